"""``course.check`` tells right from wrong and each mistake from the next, and a lab can be gone through to its end."""

import functools
import math
import re
from importlib import import_module
from pathlib import Path

import nbformat
import pytest
import torch
from nbclient import NotebookClient

from genlib.course import check
from genlib.course.checks import GAPS, LABS, _find

ROOT = Path(__file__).resolve().parent.parent
PATHS = {lab: ROOT / "labs" / f"{module.split('.')[-1].replace('_', '-')}.ipynb" for lab, module in LABS.items()}
ANSWERS = {lab: import_module(f"answers.{lab}") for lab in LABS}
MISTAKES = {name: wrong for answers in ANSWERS.values() for name, wrong in answers.MISTAKES.items()}


@pytest.fixture(autouse=True, scope="module")
def _load():
    with pytest.raises(ValueError):
        _find("nothing")  # looks through every lab


def said(capsys, name, answer) -> tuple[str, bool]:
    """What check prints, and whether the learner's own function came back."""
    capsys.readouterr()
    back = check(name, answer)
    own = back is answer
    assert own or back is GAPS[name].reference
    return capsys.readouterr().out, own


def cells(lab, kind):
    return [cell for cell in nbformat.read(PATHS[lab], as_version=4).cells if cell.cell_type == kind]


def gaps(lab) -> list[tuple[str, str, str]]:
    """The gaps of the lab: the name of each, its function's name and the source of its cell."""
    code = [cell.source for cell in cells(lab, "code")]
    found = []
    for stub, call in zip(code, code[1:], strict=False):
        if match := re.fullmatch(r'(\w+) = check\("([\w.-]+)", \1\)', call):
            assert re.match(rf'def {match[1]}\(.*\):\n    """.*"""\n    \.\.\.$', stub, re.S), stub
            found.append((match[2], match[1], stub))
    return found


def solutions(lab) -> dict[str, str]:
    """The folded solutions of the lab: a function's name -> its source."""
    found = {}
    for cell in cells(lab, "markdown"):
        for source in re.findall(
            r"<summary>Solution</summary>\n\n```python\n(.*?)```\n\n</details>", cell.source, re.S
        ):
            found[re.match(r"def (\w+)", source)[1]] = source
    return found


def solved(lab) -> dict:
    space = {"torch": torch, "math": math}
    for source in solutions(lab).values():
        exec(source, space)
    return space


# --- the lab ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lab", LABS)
def test_every_gap_of_the_lab_is_declared_and_the_other_way_round(lab):
    assert 5 <= len(gaps(lab)) <= 7
    assert [name for name, _, _ in gaps(lab)] == [name for name in GAPS if name.startswith(f"{lab}.")]


def test_every_lab_has_its_checks():
    assert sorted(PATHS.values()) == sorted((ROOT / "labs").glob("*.ipynb"))


@pytest.mark.parametrize("lab", LABS)
def test_untouched_the_stored_lab_says_not_yet_at_each_gap(lab):
    """nbval runs the lab as it stands and compares it with these outputs."""
    for name, function, _ in gaps(lab):
        (cell,) = [c for c in cells(lab, "code") if c.source == f'{function} = check("{name}", {function})']
        assert f"[{name}] not yet: the body is still `...`." in cell.outputs[0].text
    assert not any(o.output_type == "error" for cell in cells(lab, "code") for o in cell.outputs)


@pytest.mark.parametrize("lab", LABS)
def test_filled_from_its_folded_solutions_the_lab_passes_every_check_and_runs_to_its_end(lab):
    nb, answers = nbformat.read(PATHS[lab], as_version=4), solutions(lab)
    assert set(answers) == {function for _, function, _ in gaps(lab)}
    for cell in nb.cells:
        if cell.cell_type == "code" and (match := re.match(r"def (\w+)", cell.source)):
            cell.source = answers.get(match[1], cell.source)
    folder = {"metadata": {"path": str(ROOT / "labs")}}
    NotebookClient(nb, timeout=240, kernel_name="python3", resources=folder).execute()
    printed = "".join(o.text for c in nb.cells if c.cell_type == "code" for o in c.outputs if o.output_type == "stream")
    assert [line.split()[0] + line.split()[1] for line in printed.splitlines() if line.startswith("[")] == [
        f"[{n}]passed" for n, _, _ in gaps(lab)
    ]


@pytest.mark.parametrize("lab", LABS)
def test_each_gap_has_three_hints_and_a_solution_folded(lab):
    texts = [cell.source for cell in cells(lab, "markdown") if "<summary>Hint 1</summary>" in cell.source]
    assert len(texts) == len(gaps(lab))
    for text in texts:
        assert re.findall(r"<summary>(.*?)</summary>\n\n", text) == ["Hint 1", "Hint 2", "Hint 3", "Solution"]
        assert len(re.findall(r"\n\n</details>", text)) == 4


@pytest.mark.parametrize("lab", LABS)
def test_the_first_code_cell_installs_in_colab_only(lab):
    first = cells(lab, "code")[0]
    assert "install" in first.metadata.tags
    assert re.fullmatch(
        r'import sys\n\nif "google.colab" in sys.modules:\n    %pip install -q "genlib @ git.*"', first.source
    )


# --- right answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lab", LABS)
def test_the_solutions_pass(capsys, lab):
    space = solved(lab)
    for name, function, _ in gaps(lab):
        out, own = said(capsys, name, space[function])
        assert own and re.match(rf"\[{name}\] passed", out), out


@pytest.mark.parametrize("lab", LABS)
def test_other_right_answers_pass(capsys, lab):
    """Answers written in other ways, with loops or with torch's own tools, are as right."""
    for name, answer in ANSWERS[lab].OTHERS.items():
        out, own = said(capsys, name, answer)
        assert own, out


# --- mistakes: the plausible ones, each written as a learner would write it -------------------------------------------


@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_gets_its_own_message(capsys, name):
    heard = {}
    for answer, words in MISTAKES[name]:
        out, own = said(capsys, name, answer)
        assert not own and out.startswith(f"[{name}] wrong: ") and words in out, out
        assert "\n  try it:   " in out and out.endswith("the lab goes on with the course's own answer.\n"), out
        heard.setdefault(words, out.split("\n")[0])
    assert len(heard) >= 5 and len(set(heard.values())) == len(heard)


def test_every_declared_mistake_is_made_by_some_wrong_answer():
    """A declared sentence that no plausible function earns would be dead text."""
    assert set(MISTAKES) == set(GAPS)
    for name, wrong in MISTAKES.items():
        for case in GAPS[name].cases():
            for sentence in case.mistakes:
                assert sum(words in sentence for _, words in wrong) >= 1, (name, sentence)


def test_no_declared_mistake_equals_the_answer_or_another():
    for name, gap in GAPS.items():
        for case in gap.cases():
            values = [case.expected, *case.mistakes.values()]
            for i, a in enumerate(values):
                assert a.shape == case.expected.shape and a.dtype == case.expected.dtype, name
                assert not any(torch.allclose(a, b, rtol=1e-3, atol=1e-5) for b in values[:i]), (name, i)


# --- whatever else a learner may hand over ----------------------------------------------------------------------------


def _untouched(x, data, h):
    """As the lab has it."""
    ...


def _raises(x, data, h):
    return torch.nothing(data)


def _recurses(x, data, h):
    return _recurses(x, data, h)


def _quits(x, data, h):
    raise SystemExit("no")


def _no_return(x, data, h):
    z = (x[:, None] - data) / h
    torch.exp(-(z**2) / 2).mean(1)


def _changes_input(x, data, h):
    data -= 1
    return solved("density")["kernel_density"](x, data + 1, h)


def _resizes_input(x, data, h):
    y = solved("density")["kernel_density"](x, data, h)
    data.resize_(0)
    return y


def _long_error(x, data, h):
    raise ValueError("first line\n" + "x" * 10_000)


class _Silent(Exception):
    def __str__(self):
        raise ValueError("no message")


def _silent_error(x, data, h):
    raise _Silent


def _quantized(x, data, h):
    return torch.quantize_per_tensor(_good(x, data, h), 0.1, 0, torch.qint8)


def _ruins_input(x, data, h):
    data.data = torch.ones(2, device="meta")
    return _good(x, x, h)


def _good(x, data, h):
    return solved("density")["kernel_density"](x, data, h)


FAULTS = {
    "untouched": (_untouched, "not yet: the body is still `...`."),
    "raises": (_raises, "in:       return torch.nothing(data)"),
    "too few arguments": (lambda x: x, "TypeError"),
    "too many arguments": (lambda a, b, c, d: a, "TypeError"),
    "recursion": (_recurses, "RecursionError"),
    "exit": (_quits, "SystemExit: no"),
    "long error": (_long_error, "ValueError: first line\n"),
    "error without a message": (_silent_error, "raised _Silent: (no message)"),
    "no return": (_no_return, "None came back"),
    "not a function": (3.0, "expected a function, got float"),
    "called already": (torch.ones(3), "expected a function, got Tensor"),
    "nothing": (None, "expected a function, got NoneType"),
    "numpy": (lambda *a: _good(*a).numpy(), "ndarray came back"),
    "list": (lambda *a: _good(*a).tolist(), "list came back"),
    "number": (lambda *a: 0.5, "float came back"),
    "text": (lambda *a: "0.5", "str came back"),
    "tuple": (lambda *a: (_good(*a), 1), "tuple came back"),
    "shape": (lambda *a: _good(*a)[:, None], "shape is (3, 1), expected (3,)"),
    "empty": (lambda *a: torch.empty(0), "shape is (0,), expected (3,)"),
    "scalar": (lambda *a: _good(*a).mean(), "shape is (), expected (3,)"),
    "float64": (lambda *a: _good(*a).double(), "dtype is torch.float64, expected torch.float32"),
    "integers": (lambda *a: _good(*a).long(), "dtype is torch.int64, expected torch.float32"),
    "booleans": (lambda *a: _good(*a) > 0.1, "dtype is torch.bool"),
    "complex": (lambda *a: _good(*a) + 0j, "dtype is torch.complex64"),
    "nan": (lambda *a: _good(*a) * torch.tensor([1.0, math.nan, 1.0]), "1 of 3 values are NaN or infinite"),
    "infinite": (lambda *a: _good(*a) / 0, "3 of 3 values are NaN or infinite"),
    "zero": (lambda *a: 0 * _good(*a), "the values differ"),
    "meta": (lambda *a: _good(*a).to("meta"), "a meta tensor came back"),
    "sparse meta": (lambda *a: _good(*a).to_sparse().to("meta"), "a meta tensor came back"),
    "nested": (lambda *a: torch.nested.nested_tensor([_good(*a)] * 2), "a nested tensor came back"),
    "quantized": (_quantized, "a quantized tensor came back"),
    "ruins its input": (_ruins_input, "wrong: "),
    "changes its input": (_changes_input, "changed its input `data` in place"),
    "resizes its input": (_resizes_input, "changed its input `data` in place"),
    "constant factor": (lambda *a: 3 * _good(*a), "3 times the expected one"),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested", "ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_answer_gets_a_clear_word_and_the_reference_comes_back(capsys, fault):
    answer, words = FAULTS[fault]
    out, own = said(capsys, "density.kde", answer)
    assert not own and words in out and "Traceback" not in out and len(out) < 1000, out


def test_what_needs_no_fault_is_let_be(capsys):
    """A tensor that asks for gradients, a sparse one and a callable object are answers like any other."""
    for answer in (
        lambda *a: _good(*a).requires_grad_(),
        lambda *a: _good(*a).to_sparse(),
        functools.partial(_good),
    ):
        out, own = said(capsys, "density.kde", answer)
        assert own, out


def test_a_wrong_answer_shows_a_call_that_can_be_typed(capsys):
    def kernel_density(x, data, h):
        return torch.exp(-(((x[:, None] - data) / h) ** 2) / 2).mean(1) / math.sqrt(2 * math.pi)

    out, _ = said(capsys, "density.kde", kernel_density)
    call = re.search(r"try it:   (.*)", out)[1]
    shown = torch.tensor(eval(re.search(r"got:      (.*)", out)[1]))
    assert torch.allclose(eval(call, {"torch": torch, "kernel_density": kernel_density}), shown, rtol=1e-3)
    assert "expected: [0.2493, 0.02191, 0.2393]" in out


def test_the_reference_is_not_passed_off_as_the_learners(capsys):
    """Running the check's cell twice would otherwise say that an answer passed which the learner did not write."""
    out, own = said(capsys, "density.kde", check("density.kde", _untouched))
    assert own and "not judged" in out


def test_an_unknown_gap_is_named_with_the_nearest_and_all():
    with pytest.raises(
        ValueError, match="name: expected one of .*'density.sample'.*, got .*; did you mean 'density.kde'"
    ):
        check("density.kdE", _good)
    with pytest.raises(ValueError, match="'density.kde'.*got 'vqx'"):
        check("vqx", _good)
    with pytest.raises(TypeError, match="name: expected the name of a gap"):
        check(_good, "density.kde")
