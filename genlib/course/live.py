"""A trained model inside a page: the reader moves its controls, and no kernel and no network is needed.

:func:`live` runs a function once and records the ATen operations that turn the values of the controls into the outputs:
the tape. ``live.js`` reads the tape in the browser and repeats it whenever a control moves. What does not depend on a
control, such as the weights of a network, travels with the page as numbers.
"""

import base64
import hashlib
import html
import io
import json
import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field

import matplotlib.pyplot as plt
import torch
from torch import Tensor
from torch.nn import functional as F

from genlib import plots
from genlib.contract import check_choice, check_count, check_positive
from genlib.course.tape import SCRIPT, record


@dataclass(frozen=True)
class Slider:
    """One number between ``low`` and ``high``; the function receives it as a 0-d tensor.

    ``step`` None is a 200th of the range; ``log`` spaces the steps by equal ratios. ``drags`` "x" or "y": the reader
    may also drag it along that axis of the first view. Between two ``$`` stands a letter in italics.
    """

    label: str
    low: float
    high: float
    value: float
    step: float | None = None
    log: bool = False
    drags: str | None = None

    def __post_init__(self):
        _check_range(self.label, self.low, self.high, (self.value,))
        check_choice(self.drags, (None, "x", "y"), "drags")
        if self.step is not None and check_positive(self.step, "step"):
            steps = [(end - self.low) / self.step for end in (self.high, self.value)]
            if any(abs(count - round(count)) > 1e-6 for count in steps) or steps[0] < 0.5:
                raise ValueError(f"step: expected whole steps from low to high and to value, got {self.step!r}")
        if self.log and (self.step is not None or not self.low > 0):
            raise ValueError(f"log: expected low > 0 and no step, got low={self.low!r}, step={self.step!r}")

    def start(self) -> Tensor:
        return torch.tensor(float(self.value))

    def other(self, k: int, generator) -> Tensor:
        """Another value: the least, the greatest, then any."""
        return torch.empty(()).uniform_(*_ends(self, k), generator=generator)


@dataclass(frozen=True)
class Pad:
    """Two numbers in the square ``[low, high]^2``, dragged together; the function receives a tensor of shape (2,)."""

    labels: tuple[str, str]
    low: float
    high: float
    value: tuple[float, float]

    def __post_init__(self):
        if len(self.labels) != 2 or len(self.value) != 2:
            raise ValueError(f"labels, value: expected two of each, got {self.labels!r} and {self.value!r}")
        for label in self.labels:
            _check_range(label, self.low, self.high, self.value)

    def start(self) -> Tensor:
        return torch.tensor([float(value) for value in self.value])

    def other(self, k: int, generator) -> Tensor:
        return torch.empty(2).uniform_(*_ends(self, k), generator=generator)


class Noise:
    """Standard normal numbers of this shape, with a button that draws new ones; the first draw has a fixed ``seed``."""

    def __init__(self, *shape: int, label: str = "New noise", seed: int = 0):
        self.shape, self.label, self.seed = tuple(check_count(n, "shape") for n in shape), label, seed

    def start(self) -> Tensor:
        return torch.randn(self.shape, generator=torch.Generator().manual_seed(self.seed))

    def other(self, k: int, generator) -> Tensor:
        return torch.randn(self.shape, generator=generator)


class Drawing:
    """A grid of pixels to draw in; the function receives a tensor (H, W) of 1.0 where there is ink and 0.0 elsewhere.

    ``value``, of that shape, is what is drawn at first. A stroke is about a pixel wide, and erases if it starts on ink.
    """

    def __init__(self, label: str, value: Tensor):
        _check_range(label, 0, 1, ())
        if not isinstance(value, Tensor):
            raise TypeError(f"value: expected a tensor, got {value!r}")
        if value.ndim != 2 or not value.numel() or not ((value == 0) | (value == 1)).all():
            raise ValueError(f"value: expected zeros and ones of shape (H, W), got {value!r}")
        self.label, self.value = label, value.int().tolist()

    def start(self) -> Tensor:
        return torch.tensor(self.value).float()

    def other(self, k: int, generator) -> Tensor:
        """Another drawing: without ink, all ink, then any."""
        p = torch.full_like(self.start(), (0.0, 1.0)[k] if k < 2 else 0.5)
        return p.bernoulli(generator=generator)


STYLES = ("line", "dashed", "fill", "dots", "cloud")


@dataclass(frozen=True)
class Lines:
    """A plot of one line for each of ``labels``; the function returns as many tensors of shape ``(n, 2)``.

    ``styles`` names one of ``STYLES`` for each line: "fill" is an area down to zero, "dots" marks the points, "cloud"
    many of them. ``behind`` maps labels to ``(n, 2)`` tensors that do not move: "truth" is a grey area, others are grey
    lines, or grey clouds behind clouds. ``rug`` marks data ``(N,)`` below the axis. An empty label has no entry in the
    legend. ``height`` is in inches, on a page 5.8 inches wide; ``square`` makes both axes of equal scale.
    """

    xlim: tuple[float, float]
    ylim: tuple[float, float]
    xlabel: str = ""
    ylabel: str = ""
    labels: Sequence[str] = ("",)
    styles: Sequence[str] = ()
    behind: dict[str, Tensor] = field(default_factory=dict)
    rug: Tensor | None = None
    height: float = 2.8
    square: bool = False

    def __post_init__(self):
        _check_range("xlim", *self.xlim, ()), _check_range("ylim", *self.ylim, ())
        object.__setattr__(self, "styles", tuple(self.styles) or ("line",) * len(self.labels))
        if isinstance(self.labels, str) or len(self.styles) != len(self.labels):
            raise ValueError(f"styles: expected one for each of labels {self.labels!r}, got {self.styles!r}")
        for style in self.styles:
            check_choice(style, STYLES, "styles")
        for label, points in self.behind.items():
            self.check(points, f"behind[{label!r}]")

    @staticmethod
    def check(x, name="the function") -> None:
        if not isinstance(x, Tensor) or x.ndim != 2 or x.shape[1] != 2:
            raise ValueError(f"{name}: expected a tensor of shape (n, 2), got {getattr(x, 'shape', x)!r}")

    def draw(self, ax, *outputs: Tensor) -> None:
        """Draw the outputs of the function, one for each label, with matplotlib."""
        cloud = "cloud" if "cloud" in self.styles else "line"
        lines = [(label, "truth" if label == "truth" else cloud, x, plots.GREY) for label, x in self.behind.items()]
        lines += zip(self.labels, self.styles, outputs, plots.COLORS, strict=False)
        dashes = ["-"] * len(self.behind) + [cycle["linestyle"] for cycle in plt.rcParams["axes.prop_cycle"]]
        for (label, style, x, color), dash in zip(lines, dashes, strict=False):
            x, y = x.detach().T
            options = {"color": color, "label": label.replace("_", " ")}
            if style in ("truth", "fill"):
                ax.fill_between(x, y, alpha=0.28, lw=0, **options)
            elif style in ("dots", "cloud"):
                small = style == "cloud" and len(x) > 1
                ax.plot(x, y, ".", ms=3 if small else 10, alpha=0.6 if small else 1, mew=0, **options)
            else:
                ax.plot(x, y, ls="--" if style == "dashed" else dash, **options)
        if self.rug is not None:
            plots.ticks(ax, self.rug)
        ax.set(xlim=self.xlim, ylim=self.ylim, xlabel=self.xlabel, ylabel=self.ylabel)
        if self.square:
            ax.set_aspect("equal")
        if any([*self.labels, *self.behind]):
            ax.legend()

    def spec(self) -> dict:
        cloud = "cloud" if "cloud" in self.styles else "line"
        behind = [[label, _round(x), "truth" if label == "truth" else cloud] for label, x in self.behind.items()]
        rug = None if self.rug is None else _round(self.rug)
        return {**vars(self), "behind": behind, "rug": rug}


def Points(xlim, ylim, labels=("",), **options) -> Lines:
    """Clouds on axes of equal scale: the function returns one ``(N, 2)`` tensor for each of ``labels``."""
    options = {"xlabel": "$x_1$", "ylabel": "$x_2$", "styles": ("cloud",) * len(labels), "height": 4.0} | options
    return Lines(xlim, ylim, labels=labels, square=True, **options)


@dataclass(frozen=True)
class Image:
    """Grey images: the function returns ``(H, W)`` or ``(N, 1, H, W)`` with 0 white and 1 black; others are cut.

    ``columns`` images stand in a row; a pixel is ``scale`` CSS pixels wide where the page has room for that.
    """

    columns: int = 1
    scale: float = 8.0
    height = 2.8

    def __post_init__(self):
        check_count(self.columns, "columns"), check_positive(self.scale, "scale")

    @staticmethod
    def check(x) -> None:
        if not isinstance(x, Tensor) or not (x.ndim == 2 or x.ndim == 4 and x.shape[1] == 1):
            raise ValueError(f"the function: expected (H, W) or (N, 1, H, W), got {getattr(x, 'shape', x)!r}")

    def draw(self, ax, *outputs: Tensor) -> None:
        """Draw the output of the function with matplotlib."""
        x = outputs[0].detach().float().reshape(-1, *outputs[0].shape[-2:])
        columns, gap = min(self.columns, len(x)), int(len(x) > 1)
        rows = [torch.cat([F.pad(tile, (gap, 0, gap, 0), value=0.5) for tile in row], 1) for row in x.split(columns)]
        rows = [F.pad(row, (0, (columns * (x.shape[2] + gap)) - row.shape[1] + gap), value=0.5) for row in rows]
        ax.imshow(F.pad(torch.cat(rows), (0, 0, 0, gap), value=0.5), cmap="gray_r", vmin=0, vmax=1)
        ax.axis("off")

    def spec(self) -> dict:
        return vars(self)


def live(function, *controls, view, name: str, alt: str, precision="fp16", steps=None, noise=None) -> "Live":
    """Show ``function`` of the controls, in the page.

    ``function(*values)`` takes a tensor for each control and returns what ``view`` shows: a tensor or a tuple of
    tensors, and after them, if numbers are to stand beside the controls, a dict of 0-d tensors. ``view`` may be a tuple
    of views, one below the other; each takes as many tensors as it has labels.

    With ``steps`` it is a loop: ``function(x, t, *values)`` is the state after step ``t``, a 0-d int64 tensor from 0
    to ``steps - 1``. The first of ``controls`` is then the first state, :class:`Noise` or a tensor; with ``noise``
    "normal" or "uniform" each step receives noise of its shape as a last argument. The view shows the state.

    ``name``, of small letters, digits and hyphens, tells this output from others; ``alt`` describes the picture; large
    constants travel in ``precision`` "fp32", "fp16" or "int8". Raises ValueError where the steps of the function depend
    on the values (a Python ``if``, ``.item()``) and where the page has no counterpart of an operation.
    """
    for text, wanted, given in (("name", r"[a-z0-9]+(-[a-z0-9]+)*", name), ("alt", r".*\S.*", alt)):
        if not isinstance(given, str) or not re.fullmatch(wanted, given, re.S):
            raise ValueError(f"{text}: expected a text like {wanted}, got {given!r}")
    check_choice(precision, ("fp32", "fp16", "int8"), "precision")
    check_choice(noise, (None, "normal", "uniform")[: 1 if steps is None else 3], "noise")
    if not callable(function):
        raise TypeError(f"function: expected a function, got {function!r}")
    if not controls:
        raise TypeError("controls: expected at least one Slider, Pad, Noise or Drawing, got none")
    for i, control in enumerate(controls):
        state = steps is not None and i == 0
        if not isinstance(control, (Noise, Tensor) if state else (Slider, Pad, Noise, Drawing)):
            wanted = "the first state, Noise or a tensor" if state else "Slider, Pad, Noise or Drawing"
            raise TypeError(f"controls: expected {wanted}, got {control!r}")
    labels = [label for c in controls for label in getattr(c, "labels", [getattr(c, "label", None)])]
    if len(set(labels)) < len(labels):
        raise ValueError(f"controls: expected labels that differ, got {labels}")
    views = view if isinstance(view, tuple) else (view,)
    if not all(isinstance(v, (Lines, Image)) for v in views):
        raise TypeError(f"view: expected Lines, Points or Image, got {view!r}")

    starts = [c.clone() if isinstance(c, Tensor) else c.start() for c in controls]
    generator = torch.Generator().manual_seed(0)
    drawn = [] if noise is None else [torch.empty_like(starts[0]) for _ in range(check_count(steps, "steps"))]
    for x in drawn:
        x.normal_(generator=generator) if noise == "normal" else x.uniform_(generator=generator)
    first, tape, asked, values, k = None, None, False, starts, 0
    while k < (60 if asked else 5):  # at the start, then at other values, where the steps must be the same
        given = [*values, *drawn[:1]]
        if steps is not None:
            given.insert(1, torch.tensor((check_count(steps, "steps") - 1) * min(k, 4) // 4))
        result, other, asks = record(function, given, starts, precision)
        first, tape = (result, other) if tape is None else (first, tape)
        if other != tape:
            pairs = zip(tape["ops"], other["ops"], strict=False)
            where = next((f"{a} and {b}" for a, b in pairs if a != b), "in the constants or in the number of steps")
            raise ValueError(
                "function: its steps depend on the values of the controls (write torch.where for an if, x[t[None]][0] "
                "for x[t]), or it draws random numbers of its own (use Noise, or .eval() for a module). The first "
                f"difference is {where}"
            )
        values = [result if isinstance(c, Tensor) else c.other(k, generator) for c in controls]
        asked, k = asked or asks, k + 1
    if steps is not None:
        if not isinstance(first, Tensor) or first.shape != starts[0].shape:
            raise ValueError(
                f"function: expected the next state, {tuple(starts[0].shape)}, got {getattr(first, 'shape', first)!r}"
            )
        first = starts[0]
        for t in range(steps):
            with torch.no_grad():
                first = function(first, torch.tensor(t), *starts[1:], *drawn[t : t + 1])
    parts, says = _split(first, views)
    png = _picture(views, parts, controls, says)
    kinds = [{"kind": type(c).__name__.lower(), **(vars(c) if not isinstance(c, Tensor) else {})} for c in controls]
    loop = None if steps is None else {"steps": steps, "noise": noise}
    spec = {"views": [v.spec() for v in views], "controls": kinds, "says": list(says), "loop": loop, "tape": tape}
    text = json.dumps(spec, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    once = f'window["genlibLive-{hashlib.sha256(SCRIPT.encode()).hexdigest()[:8]}"]'
    return Live(
        name,
        png,
        f'<div class="genlib-live" data-name="{name}"><img alt="{html.escape(alt)}" src="data:image/png;base64,{png}">'
        f'<script type="application/json">{text}</script>\n<script>({once} ??= {SCRIPT}).start()</script></div>',
    )


@dataclass(frozen=True)
class Live:
    """What :func:`live` returns: an output that JupyterLab, Colab, the book and its PDF can each show."""

    name: str
    png: str
    html: str

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        return {"text/html": self.html, "image/png": self.png, "text/plain": f"<live {self.name}>"}


def _split(result, views) -> tuple[list[list[Tensor]], dict[str, Tensor]]:
    """The tensors of each view, checked, and the numbers to show, of what a function returned."""
    outputs = [*result] if isinstance(result, (tuple, list)) else [result]
    says = outputs.pop() if isinstance(outputs[-1], dict) else {}
    for label, x in says.items():
        if not isinstance(x, Tensor) or x.ndim:
            raise ValueError(f"function: expected 0-d tensors in its dict, got {label!r}: {x!r}")
    counts = [len(getattr(view, "labels", [""])) for view in views]
    if len(outputs) != sum(counts):
        raise ValueError(f"function: expected {sum(counts)} tensors for the view, got {len(outputs)}")
    parts = [[outputs.pop(0) for _ in range(count)] for count in counts]
    for view, part in zip(views, parts, strict=True):
        for x in part:
            view.check(x)
    return parts, says


def _number(x, whole=False) -> str:
    short = whole or x == 0 or not math.isfinite(x)
    return (f"{x:g}" if short else f"{x:#.3g}").rstrip(".").replace("-", "−")


def _picture(views, parts, controls, says) -> str:
    """The views at the controls' first values, drawn for print, as a PNG in base64."""
    heights = [view.height for view in views]
    figure, axes = plots.panels(len(views), height=sum(heights) / len(views), squeeze=False, height_ratios=heights)
    try:
        for view, ax, outputs in zip(views, axes[:, 0], parts, strict=True):
            view.draw(ax, *outputs)
        told = {c.label: _number(c.value, isinstance(c.step, int)) for c in controls if isinstance(c, Slider)}
        told |= {label: _number(x.item()) for label, x in says.items()}
        axes[0, 0].set_title(textwrap.fill(", ".join(f"{label} = {value}" for label, value in told.items()), 60))
        file = io.BytesIO()
        figure.savefig(file, metadata={"Software": None})
    finally:
        plt.close(figure)
    return base64.b64encode(file.getvalue()).decode()


def _round(x: Tensor) -> list:
    return [float(f"{v:.4g}") for v in x.detach().double().flatten().tolist()]


def _ends(control, k) -> tuple[float, float]:
    return [(control.low,) * 2, (control.high,) * 2][k] if k < 2 else (control.low, control.high)


def _check_range(label, low, high, values) -> None:
    if not isinstance(label, str) or not label:
        raise ValueError(f"label: expected a text, got {label!r}")
    for value in (low, high, *values):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise TypeError(f"{label}: expected finite numbers, got {value!r}")
    if not (low < high and all(low <= value <= high for value in values)):
        raise ValueError(f"{label}: expected low <= value <= high, got {low!r}, {values!r} and {high!r}")
