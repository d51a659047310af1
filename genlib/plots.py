"""One style for every figure of the course, and the few kinds of figure it needs.

Importing this module sets matplotlib's style: a white card that stays legible in dark mode, type that survives the
width of a phone, and the hues of Okabe and Ito (*Color Universal Design*, 2008), which all common forms of colour
blindness keep apart, darkened until each has a contrast of 3:1 on white. Lines of one figure differ in dash as well as
in colour, so that a grey print can be read too.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from cycler import cycler
from torch import Tensor

from genlib.contract import check_count, check_data, check_positive
from genlib.metrics import _log_prob

BLUE, RED, GREEN, PURPLE, ORANGE, BLACK, GREY, BROWN = (
    "#0072B2 #D55E00 #00795A #A64D83 #B87A00 #1A1A1A #6B6B6B #7A2E0E".split()
)
COLORS = (BLUE, RED, GREEN, PURPLE, ORANGE, BLACK, GREY, BROWN)
WIDTH = 5.8  # inches: 11-point type is then legible when a phone shows the figure 360 pixels wide

plt.rcParams.update(
    {
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.labelsize": 11,
        "axes.prop_cycle": cycler(color=COLORS)
        + cycler(linestyle=["-", "--", "-.", ":", (0, (5, 1, 1, 1)), (0, (1, 1)), "-", "--"]),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": 11,
        "figure.constrained_layout.use": True,
        "figure.dpi": 150,
        "figure.facecolor": "white",
        "figure.figsize": (WIDTH, 3.4),
        "font.size": 11,
        "grid.alpha": 0.25,
        "image.cmap": "cividis",
        "legend.fontsize": 10,
        "legend.frameon": False,
        "lines.linewidth": 2,
        "savefig.facecolor": "white",
        "xtick.labelsize": 10,
        "ytick.labelsize": 10,
    }
)


def panels(rows: int = 1, cols: int = 1, height: float = 2.8, **kwargs):
    """A figure of the course's width with ``rows x cols`` axes, each row ``height`` inches tall: ``(figure, axes)``.

    Keyword arguments go to ``plt.subplots``. More than two columns are hard to read on a phone.
    """
    check_count(rows, "rows"), check_count(cols, "cols")
    return plt.subplots(rows, cols, figsize=(WIDTH, height * rows), **kwargs)


def curves(ax, x: Tensor, **lines: Tensor) -> None:
    """Draw each named curve against the one-dimensional grid ``x``; the one called ``truth`` is a grey area behind.

    An infinite value of a curve, such as the logarithm of a density of zero, leaves a gap. Raises TypeError for what is
    no number, ValueError for a curve whose shape is not that of ``x``, for NaN and for a grid that is not finite.
    """
    x = _array(x, "x")
    if x.ndim != 1:
        raise ValueError(f"x: expected a grid of shape (G,), got {x.shape}")
    lines = {label: _array(y, label, infinite=True) for label, y in lines.items()}
    for label, y in lines.items():
        if y.shape != x.shape:
            raise ValueError(f"{label}: expected {len(x)} values, one for each point of x, got shape {y.shape}")
    for label, y in lines.items():
        if label == "truth":
            ax.fill_between(x, y, color=GREY, alpha=0.25, lw=0, label=label)
        else:
            ax.plot(x, y, label=label.replace("_", " "))
    ax.legend()


def ticks(ax, x: Tensor) -> None:
    """Mark one-dimensional data ``x`` of shape ``(N, 1)`` or ``(N,)`` as short strokes on the axis."""
    x = _array(x, "x")
    if x.shape not in ((x.size,), (x.size, 1)):
        raise ValueError(f"x: expected shape (N,) or (N, 1), got {x.shape}")
    style = {"color": BLACK, "alpha": 0.5, "clip_on": False, "transform": ax.get_xaxis_transform()}
    ax.plot(x.ravel(), np.full(x.size, -0.03), "|", **style)


def points(ax, x: Tensor, **kwargs) -> None:
    """Scatter two-dimensional points ``x`` of shape ``(N, 2)`` on axes of equal scale."""
    check_data(x, (2,))
    ax.scatter(*_array(x, "x").T, **({"s": 4, "color": BLUE, "alpha": 0.6, "lw": 0} | kwargs))
    ax.set(aspect="equal", xlabel="$x_1$", ylabel="$x_2$")


def density(ax, log_prob, low: float, high: float, cells: int = 200) -> None:
    """Show a two-dimensional density on the square ``[low, high]^2``; ``log_prob`` maps ``(N, 2)`` to ``(N,)``."""
    check_count(cells, "cells")
    for name, value in (("low", low), ("high", high)):
        if _array(value, name).ndim:
            raise ValueError(f"{name}: expected one number, got {value!r}")
    if not low < high:
        raise ValueError(f"low: expected a number below high, got low={low!r} and high={high!r}")
    centre = torch.linspace(low, high, 2 * cells + 1)[1::2]
    grid = torch.cartesian_prod(centre, centre)
    image = _log_prob(log_prob, grid, "log_prob").exp().reshape(cells, cells).T
    ax.imshow(image.cpu().numpy(), origin="lower", extent=(low, high, low, high))
    ax.grid(False)
    ax.set(xlabel="$x_1$", ylabel="$x_2$")


def images(x: Tensor, cols: int = 10, scale: float = 1.0):
    """A figure that tiles images ``(N, 1, H, W)`` or ``(N, 3, H, W)``; values outside [0, 1] are cut."""
    check_count(cols, "cols"), check_positive(scale, "scale")
    if check_data(x, getattr(x, "shape", (0,))[1:]).ndim != 4 or x.shape[1] not in (1, 3):
        raise ValueError(f"x: expected images of shape (N, 1, H, W) or (N, 3, H, W), got {tuple(x.shape)}")
    rows = -(-len(x) // cols)
    tiles = torch.zeros(rows * cols, *x.shape[1:], dtype=x.dtype)
    tiles[: len(x)] = x.detach().cpu().clamp(0, 1)
    tiles = torch.nn.functional.pad(tiles, (1, 1, 1, 1), value=0.5)
    picture = tiles.unflatten(0, (rows, cols)).permute(2, 0, 3, 1, 4).flatten(1, 2).flatten(2)
    figure, ax = plt.subplots(figsize=(WIDTH * scale, WIDTH * scale * picture.shape[1] / picture.shape[2]))
    ax.imshow(picture.permute(1, 2, 0).float().numpy(), cmap="gray_r", vmin=0, vmax=1)
    ax.axis("off")
    return figure


def rates(ax, sizes, errors: dict[str, Tensor], label="{name}") -> None:
    """Plot errors against sample size on two logarithmic axes with the fitted power law of each.

    ``errors`` maps a name to a tensor of shape ``(repetitions, sizes)``. A marker is the root mean square over the
    repetitions: the root mean integrated squared error, when the entries are roots of integrated squared errors.
    Raises TypeError for what is no number, ValueError for fewer than two sizes and for sizes or errors not above zero.
    """
    n = _array(sizes, "sizes")
    if n.ndim != 1 or not (n > 0).all() or n.min() == n.max():
        raise ValueError(f"sizes: expected two or more different numbers above 0, got {sizes!r}")
    if not isinstance(errors, dict) or not errors:
        raise TypeError(f"errors: expected a dict that maps names to tensors, got {errors!r}")
    errors = {name: _array(error, f"errors[{name!r}]") for name, error in errors.items()}
    for name, error in errors.items():
        if error.ndim != 2 or error.shape[1] != len(n) or not (error > 0).all():
            wanted = f"(repetitions, {len(n)}), all above 0"
            raise ValueError(f"errors[{name!r}]: expected shape {wanted}, got shape {error.shape}, least {error.min()}")
    for (name, error), marker in zip(errors.items(), "osD^vPX*", strict=False):
        rmse = np.sqrt((error**2).mean(0))
        slope, offset = np.polyfit(np.log(n), np.log(rmse), 1)
        (line,) = ax.plot(n, np.exp(offset) * n**slope)
        ax.plot(n, rmse, marker, color=line.get_color(), label=label.format(name=name, slope=slope))
    ax.set(xscale="log", yscale="log", xlabel="sample size $n$")


def _array(x, name, infinite=False) -> np.ndarray:
    """The numbers ``x`` in float64 if there are any, without NaN and, unless ``infinite``, finite; raise otherwise."""
    try:
        x = x.detach().cpu() if isinstance(x, Tensor) else x
        array = np.asarray(x.double() if isinstance(x, Tensor) and x.is_floating_point() else x)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name}: expected numbers, got {type(x).__name__} ({error})") from error
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected numbers, got {type(x).__name__} of {array.dtype}")
    array = array.astype(float)
    bad = int((np.isnan(array) if infinite else ~np.isfinite(array)).sum())
    if bad or not array.size:
        kind = "without NaN" if infinite else "that are finite"
        raise ValueError(f"{name}: expected one or more numbers {kind}, got {bad} others in shape {array.shape}")
    return array
