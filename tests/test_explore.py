"""``explore``: one output that is a live model on a page and, where a kernel runs, widgets that call the function."""

import base64
import html
import re
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pytest
import torch

from genlib.course.explore import explore
from genlib.course.live import Drawing, Image, Lines, Noise, Pad, Points, Slider, live

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import run_notebooks  # noqa: E402
from test_live import jupyterlab  # noqa: E402, F401  (a fixture)
from test_site import browser  # noqa: E402, F401  (a fixture)

WIDGET = "application/vnd.jupyter.widget-view+json"
X = torch.linspace(-1, 1, 20)
PLOT = {"view": Lines((-1, 1), (-2, 2)), "name": "test", "alt": "A <line>"}
SLOPE = Slider("slope", -2.0, 2.0, 1.0)


def line(slope):
    return torch.stack([X, slope * X], 1)


def shown(found) -> dict:
    return found._repr_mimebundle_()


def moves(found) -> list:
    """The widgets that a reader moves."""
    return list(found.box.children[:-1])


@pytest.fixture(autouse=True)
def no_figure_stays_open():
    yield
    assert plt.get_fignums() == []  # it would appear below whatever cell runs next


def test_the_output_has_the_page_a_picture_and_the_widgets():
    page, found = live(line, SLOPE, **PLOT), explore(line, SLOPE, **PLOT)
    bundle = shown(found)
    assert bundle["text/html"] == page._repr_mimebundle_()["text/html"]
    assert base64.b64decode(bundle["image/png"])[:4] == b"\x89PNG"
    assert bundle[WIDGET] == {"version_major": 2, "version_minor": 0, "model_id": found.box.model_id}
    assert bundle["text/plain"] == "<explore test>"


def test_what_is_stored_is_the_page():
    output = nbformat.v4.new_output("display_data", shown(explore(line, SLOPE, **PLOT)))
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=[output])])
    assert set(run_notebooks.clean(nb).cells[0].outputs[0].data) == {"text/html", "image/png", "text/plain"}


@pytest.mark.parametrize(
    ("control", "limits", "value"),
    [
        (SLOPE, (-2.0, 2.0, 0.02), 0.5),
        (Slider("slope", 0.01, 10.0, 1.0, log=True), (-2.0, 1.0, 0.015), 10.0),
        (Slider("slope", 0.0, 1.0, 0.5, step=0.25), (0.0, 1.0, 0.25), 0.75),
        (Pad(("a", "b"), -1.0, 1.0, (0.0, 0.5)), (-1.0, 1.0, 0.01), (0.25, -0.5)),
    ],
)
def test_a_move_calls_the_function_with_the_new_value(control, limits, value):
    values = []

    def function(x):
        values.append(x)
        return line(x.sum())

    found = explore(function, control, **PLOT)
    before = found.picture.value
    for slider, x in zip(moves(found), torch.tensor(value).reshape(-1).tolist(), strict=True):
        assert (slider.min, slider.max, slider.step) == pytest.approx(limits)
        slider.value = x
    assert torch.allclose(values[-1], torch.tensor(value)) and values[-1].dtype == torch.float32
    assert found.picture.value != before
    assert live(function, replace(control, value=value), **PLOT).png in found.picture.value


def test_a_button_draws_new_noise():
    found = explore(lambda x: x, Noise(5, 2, seed=7), view=Points((-3, 3), (-3, 3)), name="a", alt="a")
    pictures = [found.picture.value]
    for _ in range(2):
        moves(found)[0].click()
        pictures.append(found.picture.value)
    assert len(set(pictures)) == 3


def test_two_views_several_tensors_and_numbers():
    view = (Lines((-1, 1), (-2, 2), labels=["a", "b"]), Image())
    found = explore(
        lambda s: (line(s), line(-s), torch.ones(3, 4) * s, {"twice": 2 * s}), SLOPE, view=view, name="a", alt="a"
    )
    assert found.page and found.png == found.page.png
    moves(found)[0].value = 0.5
    assert found.png and found.png != found.page.png


def test_what_a_page_cannot_repeat_is_a_picture_there_and_works_with_a_kernel():
    def function(slope):
        return line(slope if slope > 0 else 0 * slope)

    found = explore(function, SLOPE, **PLOT)
    bundle = shown(found)
    assert found.page is None and bundle["text/html"].startswith('<img alt="A &lt;line&gt;"') and bundle["image/png"]
    flat = []
    for value in (-1.0, -2.0, 2.0):
        moves(found)[0].value = value
        flat.append(found.picture.value)
    assert "<img" in flat[0] and flat[2] != flat[0]


def _raises(slope):
    raise ValueError("<b>no</b>\nsecond line")


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (_raises, "ValueError: <b>no</b>"),
        (lambda slope: exec("raise SystemExit"), "SystemExit"),
        (lambda slope: None, "None"),
        (lambda slope: (line(slope), line(slope)), "expected 1 tensors for the view, got 2"),
        (lambda slope: X, "expected a tensor of shape (n, 2)"),
        (lambda: X, "TypeError"),
        (lambda slope: line(slope).numpy(), "expected a tensor"),
    ],
)
def test_what_goes_wrong_in_the_function_is_one_line(function, words):
    bundle = shown(explore(function, SLOPE, **PLOT))
    assert set(bundle) == {"text/html", "text/plain", WIDGET}
    text = html.unescape(re.sub("<.*?>", "", bundle["text/html"]))
    assert text.startswith("No picture: ") and words in text and "\n" not in text and "Traceback" not in text


def test_a_function_that_fails_at_some_values_recovers():
    def function(slope):
        if slope > 1.5:
            raise RuntimeError("too steep")
        return line(slope)

    found = explore(function, SLOPE, **PLOT)
    (slider,) = moves(found)
    good = found.picture.value
    slider.value = 1.8
    assert found.picture.value == '<p role="alert">No picture: <code>RuntimeError: too steep</code></p>'
    slider.value = 1.0
    assert found.picture.value == good


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"name": "A b"}, ValueError, "name: "),
        ({"alt": ""}, ValueError, "alt: "),
        ({"precision": "fp8"}, ValueError, "precision: "),
        ({"view": 3}, TypeError, "view: "),
        ({"controls": [3]}, TypeError, "controls: "),
        ({"controls": [SLOPE, SLOPE]}, ValueError, "controls: "),
        ({"controls": []}, TypeError, "controls: "),
        ({"controls": [Drawing("pixels", torch.zeros(2, 3))]}, TypeError, "controls: "),
        ({"function": line(torch.ones(()))}, TypeError, "function: "),
    ],
)
def test_another_bad_argument_raises(change, error, words):
    options = {"function": line, "controls": [SLOPE], **PLOT} | change
    with pytest.raises(error, match=words):
        explore(options.pop("function"), *options.pop("controls"), **options)


# --- JupyterLab ------------------------------------------------------------------------------------------------------

CELL = """import torch
from genlib.course.explore import explore
from genlib.course.live import Lines, Slider

X = torch.linspace(-1, 1, 20)


def line(slope):
    with open("calls", "a") as file:
        print(slope.item(), file=file)
    return torch.stack([X, slope * X], 1)


explore(line, Slider("slope", 0.0, 2.0, 1.0, step=0.5), view=Lines((-1, 1), (-2, 2)), name="a", alt="A line")"""


def test_in_jupyterlab_the_slider_calls_the_function(browser, jupyterlab):
    address, folder, _ = jupyterlab
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)], metadata=kernel)
    nbformat.write(nb, folder / "explored.ipynb")
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(60_000)
    page.goto(address.format("explored.ipynb"))
    page.wait_for_selector(".jp-NotebookPanel")
    # JupyterLab's own promises say when it is ready; keys pressed too early are lost, or answered by a dialog.
    page.evaluate(
        """async () => {
            await jupyterapp.restored;
            const panel = jupyterapp.shell.currentWidget;
            await panel.context.ready;
            await panel.sessionContext.ready;
            await panel.sessionContext.session.kernel.info;
            await jupyterapp.commands.execute("notebook:run-cell");
        }"""
    )
    output = page.locator(".jp-OutputArea-output")
    picture = output.locator(".jupyter-widgets img")
    before = picture.get_attribute("src")
    output.locator("[role=slider]").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("old => document.querySelector('.jupyter-widgets img').src !== old", arg=before)
    assert (folder / "calls").read_text().split()[-2:] == ["1.0", "1.5"]
    assert picture.get_attribute("alt") == "A line" and output.locator("canvas").count() == 0
    page.close()
