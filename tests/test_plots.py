"""The figures' style: its contrast, what each kind of figure draws, and what it refuses."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from genlib import plots
from genlib.nets import mlp


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def luminance(color):
    """Relative luminance of WCAG 2.1."""
    r, g, b = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color))
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


# Vienot, Brettel and Mollon (1999): what a dichromat sees, in linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanope": np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]]),
    "deuteranope": np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]]),
}


def lab(color, vision):
    linear = VISION[vision] @ (((np.array(to_rgb(color)) + 0.055) / 1.055) ** 2.4)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear.clip(0)
    f = np.cbrt(xyz / [0.9505, 1, 1.089])
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("color", plots.COLORS)
def test_every_colour_stands_out_from_the_card(color):
    assert 1.05 / (luminance(color) + 0.05) >= 3


@pytest.mark.parametrize("vision", VISION)
def test_the_first_four_colours_stay_apart_for_every_eye(vision):
    seen = [lab(c, vision) for c in plots.COLORS[:4]]
    assert min(np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]) > 10


def test_lines_differ_in_dash_as_well_as_in_colour():
    styles = [(s["color"], str(s["linestyle"])) for s in plt.rcParams["axes.prop_cycle"]]
    assert len(set(styles)) == len(styles) == len(plots.COLORS)
    assert len({dash for _, dash in styles[:6]}) == 6


def test_type_is_legible_at_the_width_of_a_phone():
    smallest = min(plt.rcParams[k] for k in ("font.size", "xtick.labelsize", "ytick.labelsize", "legend.fontsize"))
    assert smallest / 72 * 360 / plots.WIDTH >= 8.5  # CSS pixels when the figure is 360 wide


def test_curves_draw_each_line_and_the_truth_as_an_area():
    _, ax = plots.panels()
    x = torch.linspace(0, 1, 5)
    plots.curves(ax, x, truth=x, my_fit=x**2)
    assert len(ax.collections) == 1 and [line.get_label() for line in ax.lines] == ["my fit"]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), x**2)


def test_density_puts_the_first_coordinate_on_the_horizontal_axis():
    _, ax = plots.panels()
    plots.density(ax, lambda x: x[:, 0], -1, 1, cells=4)
    image = ax.images[0].get_array()
    np.testing.assert_allclose(image[0], np.exp([-0.75, -0.25, 0.25, 0.75]), rtol=1e-6)


def test_images_are_tiled_row_by_row_and_cut_to_the_range():
    x = torch.stack([torch.full((1, 2, 2), v) for v in (-1.0, 0.5, 2.0)])
    picture = plots.images(x, cols=2).axes[0].images[0].get_array()
    assert picture.shape == (8, 8)
    assert [float(picture[r, c]) for r, c in ((1, 1), (1, 5), (5, 1))] == [0.0, 0.5, 1.0]


def test_rates_mark_the_root_mean_square_and_draw_the_power_law():
    _, ax = plots.panels()
    n = [10, 100, 1000]
    plots.rates(ax, n, {"law": torch.tensor([[3.0], [4.0]]) * torch.tensor(n).float() ** -0.5})
    line, markers = ax.lines
    np.testing.assert_allclose(markers.get_ydata(), math.sqrt(12.5) * np.array(n) ** -0.5, rtol=1e-6)
    np.testing.assert_allclose(line.get_ydata(), markers.get_ydata(), rtol=1e-6)


def test_an_infinite_value_of_a_curve_is_a_gap():
    _, ax = plots.panels()
    plots.curves(ax, torch.arange(3), q=torch.tensor([0.0, -math.inf, 1.0]))
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [0, -math.inf, 1])


NAN = torch.tensor([0.0, math.nan, 1.0])
ONE = torch.ones(2, 2)


def on_axes(draw, *args, **kwargs):
    return lambda: draw(plots.panels()[1], *args, **kwargs)


BAD = [
    (on_axes(plots.ticks, None), TypeError, "x"),
    (on_axes(plots.ticks, "abc"), TypeError, "x"),
    (on_axes(plots.ticks, NAN), ValueError, "x"),
    (on_axes(plots.ticks, torch.zeros(0)), ValueError, "x"),
    (on_axes(plots.ticks, torch.zeros(3, 2)), ValueError, "x"),
    (on_axes(plots.curves, None, a=NAN), TypeError, "x"),
    (on_axes(plots.curves, NAN, a=torch.zeros(3)), ValueError, "x"),
    (on_axes(plots.curves, ONE, a=ONE), ValueError, "x"),
    (on_axes(plots.curves, torch.zeros(3), a=NAN), ValueError, "a"),
    (on_axes(plots.curves, torch.zeros(3), a=None), TypeError, "a"),
    (on_axes(plots.curves, torch.zeros(3), a=[1.0, None, 2.0]), TypeError, "a"),
    (on_axes(plots.curves, torch.zeros(3), a=torch.zeros(3) * 1j), TypeError, "a"),
    (on_axes(plots.density, 3, 0, 1), TypeError, "log_prob"),
    (on_axes(plots.density, lambda x: x, 0, 1), ValueError, "log_prob"),
    (on_axes(plots.density, lambda x: x[:, 0] * math.nan, 0, 1), ValueError, "log_prob"),
    (on_axes(plots.density, lambda x: x[:, 0], 1, 0), ValueError, "low"),
    (on_axes(plots.density, lambda x: x[:, 0], "a", 1), TypeError, "low"),
    (on_axes(plots.density, lambda x: x[:, 0], math.nan, 1), ValueError, "low"),
    (on_axes(plots.density, lambda x: x[:, 0], 0, math.inf), ValueError, "high"),
    (on_axes(plots.density, lambda x: x[:, 0], 0, [1.0]), ValueError, "high"),
    (on_axes(plots.density, lambda x: x[:, 0], 0, 1, cells=0), ValueError, "cells"),
    (on_axes(plots.rates, [1, 2], None), TypeError, "errors"),
    (on_axes(plots.rates, [1, 2], {}), TypeError, "errors"),
    (on_axes(plots.rates, [1, 2], {"a": None}), TypeError, r"errors\['a'\]"),
    (on_axes(plots.rates, [1, 2], {"a": 0 * ONE}), ValueError, r"errors\['a'\]"),
    (on_axes(plots.rates, [1, 2], {"a": torch.ones(2, 3)}), ValueError, r"errors\['a'\]"),
    (on_axes(plots.rates, None, {"a": ONE}), TypeError, "sizes"),
    (on_axes(plots.rates, [0, 2], {"a": ONE}), ValueError, "sizes"),
    (on_axes(plots.rates, [2, 2], {"a": ONE}), ValueError, "sizes"),
    (lambda: plots.images(torch.zeros(3, 1, 28, 28), scale=0), ValueError, "scale"),
    (lambda: plots.images(torch.zeros(3, 1, 28, 28), scale="a"), TypeError, "scale"),
    (lambda: plots.panels(0), ValueError, "rows"),
    (lambda: plots.panels(1, 1.5), TypeError, "cols"),
    (lambda: plots.panels("two"), TypeError, "rows"),
    (lambda: plots.curves(plots.panels()[1], torch.zeros(3), q=torch.zeros(4)), ValueError, "q"),
    (lambda: plots.points(plots.panels()[1], torch.zeros(4, 3)), ValueError, "x"),
    (lambda: plots.points(plots.panels()[1], torch.zeros(4)), ValueError, "x"),
    (lambda: plots.points(plots.panels()[1], [[0.0, 1.0]]), TypeError, "x"),
    (lambda: plots.points(plots.panels()[1], torch.full((2, 2), math.nan)), ValueError, "x"),
    (lambda: plots.images(torch.zeros(3, 28, 28)), ValueError, "x"),
    (lambda: plots.images(torch.zeros(3, 2, 28, 28)), ValueError, "x"),
    (lambda: plots.images(torch.zeros(0, 1, 28, 28)), ValueError, "x"),
    (lambda: plots.images(torch.zeros(3, 1, 28, 28).byte()), TypeError, "x"),
    (lambda: plots.images(torch.zeros(3, 1, 28, 28), cols=0), ValueError, "cols"),
    (lambda: plots.images(None), TypeError, "x"),
    (lambda: mlp(3), ValueError, "sizes"),
    (lambda: mlp(3, 0, 1), ValueError, "sizes"),
    (lambda: mlp(3, 2.5, 1), TypeError, "sizes"),
]


@pytest.mark.parametrize("call, error, name", BAD)
def test_bad_input_is_refused_by_name(call, error, name):
    with pytest.raises(error, match=f"^{name}: "):
        call()


def test_mlp_is_what_it_says():
    net = mlp(3, 5, 4, 2)
    assert [type(m).__name__ for m in net] == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    h = (x @ net[0].weight.T + net[0].bias).clamp(min=0)
    h = (h @ net[2].weight.T + net[2].bias).clamp(min=0)
    torch.testing.assert_close(net(x), h @ net[4].weight.T + net[4].bias)
