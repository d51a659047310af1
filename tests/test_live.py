"""Live models: the page must compute what torch computes, and a reader must be able to play with it.

One browser page compiles tapes and runs them; others show an output as the book and JupyterLab do.
"""

import base64
import contextlib
import json
import math
import os
import socket
import subprocess
import sys
import time

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook, new_output
from test_site import AXE, WCAG, browser, site  # noqa: F401  (two are fixtures)
from torch import nn
from torch.nn import functional as F

from genlib.course.live import Drawing, Image, Lines, Noise, Pad, Points, Slider, live
from genlib.course.tape import OPS, SCRIPT, record


@pytest.fixture(scope="module")
def page(browser):
    """A page that knows live.js."""
    tab = browser.new_page()
    tab.evaluate(f"window.engine = {SCRIPT}")
    yield tab
    tab.close()


def in_page(page, tape, inputs):
    """What the page computes from the tape."""
    given = [x.double().flatten().tolist() for x in inputs]
    code = """([tape, inputs]) => engine.compile(tape).run(inputs).map(x => [x.shape, Array.from(x.data, String)])"""
    found = page.evaluate(code, [tape, given])
    return [torch.tensor([float(v) for v in data]).double().reshape(shape) for shape, data in found]


def check(page, function, *inputs, tolerance=1e-6, precision="fp32"):
    """Record at the inputs, run in the page at others of the same shape too, and compare with torch."""
    _, tape, _ = record(function, inputs, precision=precision)
    for values in (inputs, [x + 0.1 * torch.rand_like(x) if x.is_floating_point() else x for x in inputs]):
        result = function(*[x.clone() for x in values])
        wanted = [x.detach().double() for x in (result if isinstance(result, (tuple, list)) else [result])]
        for a, b in zip(in_page(page, tape, values), wanted, strict=True):
            assert a.shape == b.shape
            scale = b[b.isfinite()].abs().max().clamp_min(1e-3) if b.isfinite().any() else 1.0
            torch.testing.assert_close(a, b, rtol=0, atol=float(tolerance * scale), equal_nan=True)
    return tape


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X = randn(3, 4)
ELEMENTWISE = {
    name: getattr(torch, name)
    for name in """abs ceil cos cosh exp expm1 floor neg reciprocal relu round sigmoid sign sin sinh sqrt square tan
    tanh trunc erf erfc isnan isinf isfinite logical_not logit log1p log2 log10 log rsqrt acos asin atan""".split()
}
FUNCTIONS = {
    name: getattr(F, name)
    for name in """silu gelu elu selu celu mish softplus leaky_relu relu6 hardtanh hardsigmoid hardswish logsigmoid
    softsign tanhshrink softshrink""".split()
}
IDENTITY = {**ELEMENTWISE, **FUNCTIONS}


@pytest.mark.parametrize("name", IDENTITY)
def test_elementwise(page, name):
    x = torch.cat([X.flatten(), torch.linspace(-4, 4, 17), torch.tensor([0.5, 1.5, 1e-4, 0.999])])
    check(page, IDENTITY[name], x)


y, one = randn(4, seed=1), torch.ones(())
index = torch.tensor([[0, 2, 1, 1], [3, 0, 0, 2]])
square, image = randn(3, 3, seed=2), randn(2, 4, 7, 6, seed=3)
CASES = {
    "add": lambda x: (x + y, x.add(y, alpha=2), 2 - x, x - y, torch.rsub(x, y, alpha=3), y[:3, None] + x),
    "mul": lambda x: (x * y, x / y, 1 / x, x**2, x**3, x.abs() ** 0.5, 2**x, x.abs() ** y),
    "compare": lambda x: (x > y, x < 0, x >= y, x <= 0, x == x, x != y, torch.maximum(x, y), torch.minimum(x, -x)),
    "logic": lambda x: ((x > 0) & (y > 0), (x > 0) | (y > 0), (x > 0) ^ (y > 0), ~(x > 0), torch.logical_and(x, y)),
    "logical": lambda x: (torch.logical_or(x, y), torch.logical_xor(x, y > 0)),
    "where": lambda x: (torch.where(x > 0, x, y), torch.where(x > 0, 1.0, x), x.masked_fill(x > 0, -math.inf)),
    "clamp": lambda x: (x.clamp(-0.5, 0.5), x.clamp(min=0), x.clamp(max=y), x.clip(y, y + 1), x.clamp_max(0.3)),
    "round": lambda x: (
        x // 0.7,
        x % 0.7,
        x.fmod(0.7),
        x.floor_divide(y),
        x.remainder(-0.3),
        torch.div(x, y, rounding_mode="trunc"),
    ),
    "ternary": lambda x: (
        torch.lerp(x, y, 0.3),
        torch.addcmul(x, x, y, value=2),
        torch.addcdiv(x, x, y),
        torch.atan2(x, y),
    ),
    "logarithms": lambda x: (
        torch.logaddexp(x, y),
        x.logsumexp(1),
        x.log_softmax(1),
        x.softmax(0),
        torch.xlogy(x, x.abs()),
    ),
    "special": lambda x: (torch.special.ndtr(x), x.sinc()),
    "sums": lambda x: (
        x.sum(),
        x.sum(0),
        x.sum((0, -1)),
        x.sum(1, keepdim=True),
        x.mean(),
        x.mean(0),
        x.prod(1),
        x.prod(),
    ),
    "spread": lambda x: (
        x.var(),
        x.var(0),
        x.std(1),
        x.var(correction=0),
        torch.linalg.vector_norm(x, dim=1),
        x.norm(),
    ),
    "most": lambda x: (x.amax(0), x.amin((0, 1)), x.max(), x.min(), x.max(1).values, x.max(1).indices, x.min(0).values),
    "places": lambda x: (
        x.argmax(),
        x.argmax(1),
        x.argmin(0, keepdim=True),
        x.argsort(1),
        x.sort(0, descending=True)[0],
    ),
    "anyall": lambda x: (
        (x > 1).any(),
        (x > -1).all(1),
        (x > 0).any(0),
        x.sort(1).values,
        torch.sort(x, stable=True, dim=1)[1],
    ),
    "scans": lambda x: (x.cumsum(0), x.cumsum(-1), x.cumprod(1), x.diff(dim=1), torch.trapezoid(x, dim=1)),
    "views": lambda x: (
        x.T,
        x[1],
        x[:, 1:3],
        x[::2, -1],
        x[None],
        x.view(2, 6),
        x.expand(2, 3, 4),
        x.flatten(),
        x.mT[1:],
    ),
    "more views": lambda x: (
        *x.split(2, 1),
        *x.unbind(0),
        x.diagonal(),
        x.unfold(1, 2, 1),
        *x.chunk(2, 1),
        x.movedim(0, 1),
    ),
    "permuted": lambda x: (
        x.T.reshape(-1),
        x.T.contiguous() + 1,
        x.relu().T.reshape(12),
        x.view(3, 2, 2).permute(2, 0, 1) * 2,
    ),
    "joined": lambda x: (
        torch.cat([x, y[None], x]),
        torch.stack([x, x + 1], 1),
        torch.cat([x, x], -1),
        torch.hstack([x, x]),
    ),
    "copies": lambda x: (
        x.repeat(2, 1),
        x.flip(1),
        x.roll(1, 0),
        x.repeat_interleave(2, 1),
        x.tile(2),
        F.pad(x, (1, 2), value=3.0),
    ),
    "products": lambda x: (
        x @ x.T,
        x @ y,
        y @ x.T,
        (x[0] * y).sum(),
        torch.einsum("ij,kj->ik", x, x),
        torch.outer(y, x[0]),
    ),
    "batched": lambda x: (
        torch.bmm(x[None].expand(2, 3, 4), image[:, 0, :4, :5]),
        image[:, :, :3, :3] @ x,
        F.linear(x, square[:, :1].expand(3, 4)),
    ),
    "gather": lambda x: (
        x.gather(1, index),
        x[:, index[0]],
        x[index[1].clamp(max=2)],
        x[[0, 2], [1, 3]],
        x.index_select(1, index[0]),
    ),
    "gather by value": lambda x: (
        y.gather(0, (x[0] > 0).long()),
        y[(x > 0).long()],
        F.one_hot((x > 0).long(), 2),
        F.embedding((x > 0).long(), square),
    ),
    "take along": lambda x: (x.take_along_dim(x.argsort(1), 1), x[torch.arange(3), x.argmax(1)]),
    "scatter": lambda x: (
        x.scatter(1, index, 0.5),
        torch.zeros(3, 4).scatter_add(0, 0 * index[:, :3], x[:2, :3]),
        x.scatter(0, index[:1].clamp(max=2), x + 1),
    ),
    "put": lambda x: (
        x.index_put((torch.tensor([0, 2]),), y),
        torch.zeros(5).index_put((index.flatten(),), x[0].repeat(2), accumulate=True),
    ),
    "search": lambda x: (
        torch.searchsorted(y.sort()[0], x),
        torch.bucketize(x, y.sort()[0], right=True),
        torch.searchsorted(x.sort(1)[0], x),
    ),
    "types": lambda x: (
        (10 * x).long(),
        (x > 0).double(),
        x.int() // 2,
        x.float() + 1,
        x.bool(),
        (x > 0).long().sum(),
        x.to(torch.float64),
    ),
    "norms": lambda x: (
        F.layer_norm(x, (4,)),
        F.group_norm(x[..., None], 2),
        F.normalize(x),
        F.layer_norm(x, (4,), y, y),
    ),
    "losses": lambda x: (
        F.mse_loss(x, x + y),
        F.binary_cross_entropy_with_logits(x, x.sigmoid()),
        F.softmin(x, 1),
        F.cosine_similarity(x, x + 1),
    ),
    "distances": lambda x: (
        torch.cdist(x, x + 1),
        torch.cdist(x, x[:2] + y, compute_mode="donot_use_mm_for_euclid_dist"),
    ),
    "attention": lambda x: F.scaled_dot_product_attention(x[None, None], x[None, None], (x + y)[None, None]),
    "tril": lambda x: (
        x.tril(),
        x.triu(1),
        torch.diag_embed(x),
        x.new_zeros(2) + x[0, 0],
        torch.zeros_like(x) + x,
        torch.full_like(x, 2.0) * x,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_operations(page, name):
    check(page, CASES[name], X)


def numbers(n, seed=5):
    return torch.linspace(0.1, 0.9, n)


def seeded(make, seed=0):
    """A module in evaluation mode whose every number, also the running statistics, is drawn with this seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = make()
        for buffer in module.buffers():
            if buffer.is_floating_point():
                buffer.copy_(torch.rand_like(buffer) + 0.5)
    return module.eval()


LAYERS = {
    "linear": lambda: nn.Linear(4, 5),
    "bilinear": lambda: nn.Sequential(nn.Linear(4, 8), nn.GLU()),
    "batch norm": lambda: nn.BatchNorm1d(4),
    "layer norm": lambda: nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.PReLU(), nn.RMSNorm(6)),
    "dropout": lambda: nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.ReLU(inplace=True), nn.Linear(6, 2)),
    "recurrent": lambda: nn.Sequential(nn.RNNCell(4, 3), nn.Softmax(1)),
    "transformer": lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True),
    "spectral": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)),
    **{
        f"mlp {f.__name__}": lambda f=f: nn.Sequential(nn.Linear(4, 40), f(), nn.Linear(40, 40), f(), nn.Linear(40, 3))
        for f in (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid, nn.Softplus)
    },
}
PICTURES = {
    "conv": lambda: nn.Conv2d(4, 3, 3),
    "conv strides": lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2), bias=False),
    "conv dilated": lambda: nn.Conv2d(4, 6, 3, dilation=(2, 1), padding="same", groups=2),
    "conv depthwise": lambda: nn.Conv2d(4, 4, 3, padding=1, groups=4, padding_mode="reflect"),
    "transposed": lambda: nn.ConvTranspose2d(4, 3, 4, stride=2, padding=1),
    "transposed more": lambda: nn.ConvTranspose2d(4, 6, 3, stride=3, padding=1, output_padding=(1, 2), groups=2),
    "transposed dilated": lambda: nn.ConvTranspose2d(4, 3, 3, stride=2, dilation=2, bias=False),
    "pools": lambda: nn.Sequential(nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2, 1, 1)),
    "more pools": lambda: nn.Sequential(nn.AvgPool2d(2, 2, 1, count_include_pad=False), nn.AdaptiveAvgPool2d(2)),
    "upsampling": lambda: nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(4, 2, 3, padding=1), nn.PixelShuffle(1)),
    "bilinear": lambda: nn.Sequential(
        nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(4, 4, 1), nn.PixelShuffle(2)
    ),
    "norms": lambda: nn.Sequential(
        nn.BatchNorm2d(4), nn.ReLU(True), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4), nn.Flatten()
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_networks_of_vectors(page, name):
    check(page, seeded(LAYERS[name]), X, tolerance=1e-5)


@pytest.mark.parametrize("name", PICTURES)
def test_networks_of_images(page, name):
    check(page, seeded(PICTURES[name]), image, tolerance=1e-5)


@pytest.mark.parametrize("layer", [lambda: nn.Conv1d(4, 3, 3, 2, 1), lambda: nn.ConvTranspose1d(4, 3, 3, 2, 1, 1)])
def test_networks_of_signals(page, layer):
    check(page, seeded(layer), randn(2, 4, 9), tolerance=1e-5)


def decoder(*widths):
    layers = [layer for a, b in zip(widths, widths[1:], strict=False) for layer in (nn.Linear(a, b), nn.ReLU())]
    return seeded(lambda: nn.Sequential(*layers[:-1], nn.Sigmoid()))


@pytest.mark.parametrize(
    "precision, tolerance, most", [("fp32", 1e-5, 1_350), ("fp16", 1e-2, 680), ("int8", 2e-2, 345)]
)
def test_precisions(page, precision, tolerance, most):
    """The relative error stated for each precision, and its kilobytes for 235 thousand weights."""
    tape = check(page, decoder(2, 128, 256, 784), randn(1, 2), precision=precision, tolerance=tolerance)
    assert len(json.dumps(tape)) < 1000 * most


def in_place(x):
    a = x.clone()
    row, column = a[1], a[:, 2]
    row += 1
    column.mul_(2)
    a[0, 1:3] = y[:2]
    a[2].zero_()
    a[:, 0].clamp_(min=0).exp_()
    b = torch.zeros(3, 4)
    before = b + x
    b[1] = x[0]
    b.fill_diagonal_(5.0)
    c = b.T
    c[0] -= 1
    d = torch.arange(4.0)
    e = d * x
    d[1] = 10.0
    d += 1
    return a, row, column, b, before, c, e, d * x, nn.functional.silu(x.clone(), inplace=True), x


def test_in_place_changes_and_views(page):
    check(page, in_place, X)


def masked(x):
    a, columns = x.clone(), torch.tensor([True, False, True, False])
    a[:, columns] = 2 * x[:, columns]
    a[X > 0.2] = 0
    return a, x[:, columns], x[X > 0.2], x[torch.tensor([2, 0]), columns.nonzero()[:, 0]]


def test_masks_and_lookups(page):
    lstm, table = nn.LSTM(4, 3), nn.Embedding(5, 4)
    check(page, masked, X)
    check(page, lambda x: lstm(x)[0], X, tolerance=1e-5)
    check(page, lambda x, k: table(k) + x[k[None]][0], X, torch.tensor(2))


def test_the_models_own_checks_do_no_harm(page):
    def function(x):
        if not torch.isfinite(x).all() or x.abs().max().item() > 1e9:
            raise ValueError("x")
        return torch.distributions.Normal(x, x.abs() + 1).log_prob(torch.ones(()))

    check(page, function, X)


def test_what_costs_less_is_made_in_the_page(page):
    x, grid = randn(300, 1), torch.linspace(-3, 3, 200)

    def function(h):
        return (-0.5 * ((grid - x) / h) ** 2).exp().mean(0) / h

    tape = check(page, function, torch.tensor(0.3))
    assert [shape for _, shape, _ in tape["constants"]] == [[200], [300, 1]]


def test_every_operation_is_tested():
    """The functions above ask for every operation of live.js between them."""
    asked = set()
    for make, x in [*((f, X) for f in LAYERS.values()), *((f, image) for f in PICTURES.values())]:
        asked |= {name for name, *_ in record(seeded(make), [x])[1]["ops"]}
    for function in [*IDENTITY.values(), *CASES.values(), in_place]:
        asked |= {name for name, *_ in record(function, [X])[1]["ops"]}
    assert asked == OPS


@pytest.mark.parametrize(
    "right, wrong, case",
    [
        ("tanh: Math.tanh", "tanh: Math.sin", "mlp Tanh"),
        ("a + k * b", "a + b", "add"),
        ("softplus: (a, b, c) => a * b > c ? a", "softplus: (a, b, c) => a * b > 0 ? a", "mlp Softplus"),
        ("y * W + shift", "y * W", "conv"),
        ("transposed ? c * cout + d % cout", "transposed ? d * cin + c % cin", "transposed"),
        ("Math.ceil(-shift / sx)", "0", "conv strides"),
        ("(padded ? kh * kw : n)", "n", "pools"),
        ("d < 0 ? d + x.shape.length : d", "d", "sums"),
        ("near % 2 ? near - 1 : near", "near", "round"),
        ("scatter_add: scatter(true)", "scatter_add: scatter(false)", "scatter"),
        ("scale[Math.floor(i / row)]", "2 * scale[0]", "int8"),
        ("e ? e === 31", "e > 9 ? e === 31", "fp16"),
    ],
)
def test_a_planted_fault_is_found(browser, right, wrong, case):
    assert right in SCRIPT
    tab = browser.new_page()
    tab.evaluate(f"window.engine = {SCRIPT.replace(right, wrong)}")
    layers = {**LAYERS, **PICTURES}
    with pytest.raises(AssertionError):
        if case in ("int8", "fp16"):
            check(tab, decoder(2, 128, 784), randn(1, 2), precision=case, tolerance=2e-2)
        elif case == "round":
            check(tab, torch.round, torch.tensor([0.5, 1.5, 2.5]))
        elif case in CASES:
            check(tab, CASES[case], X)
        else:
            check(tab, seeded(layers[case]), image if case in PICTURES else X, tolerance=1e-5)
    tab.close()


# --- what cannot be recorded, and wrong arguments -------------------------------------------------------------------

SLIDER, FLAT = Slider("$h$", 0.1, 2, 0.3), Lines((0, 1), (0, 1))
REST = {"view": FLAT, "name": "a", "alt": "A line."}


def line(h):
    return torch.stack([torch.linspace(0, 1, 5), h * torch.linspace(0, 1, 5)], 1)


def branches(h):
    return line(h if h > 1 else -h)


@pytest.mark.parametrize(
    "function, words",
    [
        (branches, "depend on the values"),
        (lambda h: line(h * h.item()), "depend on the values"),
        (lambda h: line(h) * torch.rand(5, 1), "random numbers of its own"),
        (lambda h: line(h if abs(h - 0.5) > 0.1 else -h), "depend on the values"),
        (lambda h: line(X.flatten()[(5 * h).long()]), r"x\[t\[None\]\]\[0\]"),
        (lambda h: line(h)[line(h)[:, 1] > 1], "no operation 'nonzero"),
        (lambda h: torch.exp(1j * line(h)).real, "complex numbers"),
        (lambda h: F.conv3d(h * torch.ones(1, 1, 2, 2, 2), torch.ones(1, 1, 1, 1, 1)), "three dimensions"),
        (lambda h: F.avg_pool2d(h * torch.ones(1, 1, 5, 5), 2, ceil_mode=True), "ceil_mode"),
        (lambda h: (h * torch.ones(2, 3, 4))[index[0, :2] % 2, :, index[0, :2]], "an index with other dimensions"),
        (lambda h: torch.linalg.inv(h * torch.eye(2) + 1), "no operation 'linalg_inv_ex"),
        (lambda h: F.dropout(line(h)), r"or .eval\(\) for a module"),
        (lambda h: h, "shape \\(n, 2\\)"),
        (lambda h: (line(h), line(h)), "expected 1 tensors for the view, got 2"),
        (lambda h: (line(h), {"x": line(h)}), "0-d tensors"),
    ],
)
def test_what_the_page_cannot_repeat_is_refused(function, words):
    with pytest.raises(ValueError, match=words):
        live(function, SLIDER, **REST)


WRONG = [
    (lambda: Slider("h", 0, 1, 2), ValueError, "h: expected low <= value <= high"),
    (lambda: Slider("h", 1, 1, 1), ValueError, "h: expected low <= value"),
    (lambda: Slider("", 0, 1, 0), ValueError, "label: expected a text"),
    (lambda: Slider("h", 0, math.inf, 0), TypeError, "h: expected finite numbers"),
    (lambda: Slider("h", 0, 1, "0"), TypeError, "h: expected finite numbers"),
    (lambda: Slider("h", 0, 1, 0, step=2), ValueError, "step: expected whole steps"),
    (lambda: Slider("h", 0, 1, 0, step=0.3), ValueError, "step: expected whole steps"),
    (lambda: Slider("h", 0, 1, 0.3, step=0.2), ValueError, "step: expected whole steps"),
    (lambda: Slider("h", 0, 1, 0, step=0), ValueError, "step: expected a finite number above 0"),
    (lambda: Slider("h", 0, 1, 0, log=True), ValueError, "log: expected low > 0"),
    (lambda: Slider("h", 0, 1, 0, drags="z"), ValueError, "drags: expected one of"),
    (lambda: Pad(("a",), 0, 1, (0, 0)), ValueError, "labels, value: expected two"),
    (lambda: Pad(("a", "b"), 0, 1, (0, 2)), ValueError, "a: expected low <= value"),
    (lambda: Noise(0), ValueError, "shape: expected a whole number"),
    (lambda: Drawing("", torch.zeros(2, 3)), ValueError, "label: expected a text"),
    (lambda: Drawing("d", [[0, 1]]), TypeError, "value: expected a tensor"),
    (lambda: Drawing("d", torch.zeros(3)), ValueError, r"value: expected zeros and ones of shape \(H, W\)"),
    (lambda: Drawing("d", torch.zeros(0, 3)), ValueError, "value: expected zeros and ones"),
    (lambda: Drawing("d", torch.full((2, 2), 0.5)), ValueError, "value: expected zeros and ones"),
    (lambda: Drawing("d", torch.full((2, 2), math.nan)), ValueError, "value: expected zeros and ones"),
    (lambda: Lines((1, 0), (0, 1)), ValueError, "xlim: expected low"),
    (lambda: Lines((0, 1), (0, 1), labels=("a", "b"), styles=("line",)), ValueError, "styles: expected one for each"),
    (lambda: Lines((0, 1), (0, 1), styles=("dotted",)), ValueError, "styles: expected one of"),
    (lambda: Lines((0, 1), (0, 1), behind={"a": X}), ValueError, "behind"),
    (lambda: Image(columns=0), ValueError, "columns: expected"),
    (lambda: live(line, SLIDER, **{**REST, "name": "A b"}), ValueError, "name: expected"),
    (lambda: live(line, SLIDER, **{**REST, "alt": " "}), ValueError, "alt: expected"),
    (lambda: live(line, SLIDER, **{**REST, "view": "lines"}), TypeError, "view: expected Lines"),
    (lambda: live(line, SLIDER, precision="fp8", **REST), ValueError, "precision: expected one of"),
    (lambda: live(line, SLIDER, noise="normal", **REST), ValueError, "noise: expected one of"),
    (lambda: live(lambda a, b: line(a), SLIDER, SLIDER, **REST), ValueError, "controls: expected labels that differ"),
    (lambda: live(line, **REST), TypeError, "controls: expected at least one"),
    (lambda: live(line, 3, **REST), TypeError, "controls: expected Slider"),
    (lambda: live("line", SLIDER, **REST), TypeError, "function: expected a function"),
    (lambda: live(lambda x, t: x, SLIDER, steps=3, **REST), TypeError, "controls: expected the first state"),
    (lambda: live(lambda x, t: x, Noise(3, 2), steps=0, **REST), ValueError, "steps: expected a whole number"),
    (lambda: live(lambda x, t: x[1:], Noise(3, 2), steps=3, **REST), ValueError, "function: expected the next state"),
]


@pytest.mark.parametrize("act, error, words", WRONG)
def test_wrong_arguments_raise(act, error, words):
    with pytest.raises(error, match=words):
        act()


# --- what a reader does ---------------------------------------------------------------------------------------------

HOLDER = """<!doctype html><html lang="en" data-theme="{theme}"><head><title>t</title><style>
html {{background: #fff}} html[data-theme=dark] {{background: #121212; color: #fff; --pst-color-text-base: #dde3e9;
--pst-color-primary: #7fb3ee; --pst-color-border: #48566b}}</style></head>
<body><main><h1>A page</h1>{body}</main></body></html>"""
net = decoder(2, 16, 64)
grid = torch.linspace(-3, 3, 61)


def sampled(u, noise):
    x = u.logit()
    path = torch.stack([torch.stack([x - x - 3, x, x]), torch.stack([u, u, 0 * u])], 1)
    return path, noise + x, {"$x$": x}


def decoded(z):
    return net(z[None]).view(8, 8)


def drifts(x, t, speed):
    return x + speed * 0.1 * torch.stack([-x[:, 1], x[:, 0] * torch.cos(t / 10)], 1)


FIRST = torch.tensor([[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]).float()
WEIGHTS = randn(3, 4, seed=8)


def flows(x, t, ink, shift, speed):
    """A loop whose state tells the drawing, the noise given after it, and the number of steps."""
    return x + speed * (ink * WEIGHTS + shift * t)


@pytest.fixture(scope="module")
def outputs():
    u = Slider("$u$", 0.01, 0.99, 0.6, step=0.01, drags="y")
    truth = torch.stack([grid, grid.sigmoid()], 1)
    above = Lines((-3, 3), (0, 1), "$x$", "$u$", ("path",), behind={"CDF": truth, "truth": truth}, rug=grid[::9])
    cloud = Points((-3, 3), (-3, 3), labels=("points $x_1$",))
    pad = Pad(("$z_1$", "$z_2$"), -2, 2, (0.5, -1))
    return {
        "sampled": live(sampled, u, Noise(20, 2), view=(above, cloud), name="sampled", alt="A path."),
        "decoded": live(decoded, pad, view=Image(), name="decoded", alt="A picture."),
        "drifts": live(drifts, Noise(30, 2), Slider("speed", 0, 2, 1), steps=40, view=Points((-3, 3), (-3, 3)),
                       name="drifts", alt="A cloud."),
        "drawn": live(lambda ink: (ink * WEIGHTS).abs(), Drawing("Ink $x_1$", FIRST), view=Image(), name="drawn",
                      alt="A drawing."),
        "flows": live(flows, torch.zeros(3, 4), Drawing("Ink", FIRST), Noise(3, 4), Slider("speed", 0, 2, 1), steps=9,
                      view=Image(), name="flows", alt="A flow."),
        "walks": live(lambda x, t, ink, u: x + ink * u, torch.zeros(3, 4), Drawing("Ink", FIRST), steps=9,
                      noise="uniform", view=Image(), name="walks", alt="A walk."),
    }  # fmt: skip


@pytest.fixture
def show(browser, outputs):
    """Open a page with these outputs, other hosts out of reach; what it complains of is in ``tab.complaints``."""
    contexts = []

    def opened(*names, theme="light", **options):
        context = browser.new_context(**options)
        contexts.append(context)
        tab = context.new_page()
        tab.complaints = []
        tab.on(
            "request", lambda request: tab.complaints.append(request.url) if not request.url.startswith("data:") else 0
        )
        tab.on("console", lambda said: tab.complaints.append(said.text) if said.type == "error" else 0)
        tab.on("pageerror", lambda error: tab.complaints.append(str(error)))
        tab.set_content(HOLDER.format(theme=theme, body="".join(outputs[name].html for name in names)))
        return tab

    yield opened
    for context in contexts:
        context.close()


def settled(tab, root=0):
    """The outputs of one live model after its next picture."""
    frames = "new Promise(done => { let n = 4; (function next() { n-- ? requestAnimationFrame(next) : done(); })(); })"
    tab.evaluate(frames)
    code = "i => document.querySelectorAll('.genlib-live')[i].outputs.map(x => [x.shape, Array.from(x.data)])"
    return [torch.tensor(data).double().reshape(shape) for shape, data in tab.evaluate(code, root)]


def close(a, b):
    torch.testing.assert_close(a, b.detach().double(), rtol=1e-4, atol=1e-4)


def test_what_the_output_is(outputs):
    for name, output in outputs.items():
        bundle = output._repr_mimebundle_()
        assert set(bundle) == {"text/html", "image/png", "text/plain"} and bundle["text/plain"] == f"<live {name}>"
        assert bundle["image/png"] in bundle["text/html"] and base64.b64decode(bundle["image/png"])[:4] == b"\x89PNG"
        assert bundle["text/html"].count("</script>") == 2


def test_a_picture_stands_where_no_script_runs(show):
    tab = show("sampled", "decoded", java_script_enabled=False)
    assert tab.locator("img").count() == 2 and tab.locator("img").first.get_attribute("alt") == "A path."
    tab = show("sampled", "decoded")
    assert tab.locator("img:visible").count() == 0
    assert tab.get_by_role("img", name="A picture.").bounding_box()["width"] == 64
    assert tab.complaints == []


def test_the_first_picture_is_that_of_torch(show):
    tab = show("sampled", "decoded")
    noise = Noise(20, 2).start()
    path, moved, says = sampled(torch.tensor(0.6), noise)
    for a, b in zip(settled(tab), [path, moved, says["$x$"]], strict=True):
        close(a, b)
    close(settled(tab, 1)[0], decoded(torch.tensor([0.5, -1.0])))
    assert tab.locator(".says").inner_text() == "x = 0.405"


def test_keys_move_a_slider(show):
    tab = show("sampled")
    slider = tab.get_by_role("slider", name="u")
    slider.focus()
    for _ in range(5):
        tab.keyboard.press("ArrowRight")
    close(settled(tab)[2], torch.tensor(0.65).logit())
    assert slider.get_attribute("aria-valuetext") == "0.650"
    tab.keyboard.press("Home")
    close(settled(tab)[2], torch.tensor(0.01).logit())


@pytest.mark.parametrize("touch", [False, True])
def test_a_slider_is_dragged_in_the_picture(show, touch):
    tab = show("sampled", has_touch=touch)
    box = tab.locator("canvas").first.bounding_box()
    at = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    canvas = "document.querySelector('canvas')"
    wanted = torch.tensor(tab.evaluate(f"y => {canvas}.read.y(y - {canvas}.getBoundingClientRect().top)", at[1] - 40))
    if touch:
        tab.touchscreen.tap(at[0], at[1] - 40)
    else:
        tab.mouse.move(*at)
        tab.mouse.down()
        tab.mouse.move(at[0] + 3, at[1] - 40, steps=3)
        tab.mouse.up()
        tab.mouse.move(*at)
    close(settled(tab)[2], wanted.logit())


@pytest.mark.parametrize("touch", [False, True])
def test_a_pad_is_dragged(show, touch):
    tab = show("decoded", has_touch=touch)
    box = tab.get_by_role("application").bounding_box()
    at = box["x"] + 0.75 * box["width"], box["y"] + 0.25 * box["height"]
    if touch:
        tab.touchscreen.tap(*at)
    else:
        tab.mouse.move(box["x"] + 20, box["y"] + 20)
        tab.mouse.down()
        tab.mouse.move(*at, steps=3)
        tab.mouse.up()
    found = settled(tab)[0]
    torch.testing.assert_close(found, decoded(torch.tensor([1.0, 1.0])).detach().double(), rtol=0, atol=0.01)


def test_keys_move_a_pad(show):
    tab = show("decoded")
    tab.get_by_role("application", name="z₁ and z₂").focus()
    for key in ("ArrowRight", "ArrowUp", "ArrowUp", "Shift+ArrowLeft"):
        tab.keyboard.press(key)
    close(settled(tab)[0], decoded(torch.tensor([0.5 + 0.08 - 0.4, -1 + 0.16])))
    tab.get_by_role("slider", name="z₂").focus()
    tab.keyboard.press("End")
    close(settled(tab)[0], decoded(torch.tensor([0.18, 2.0])))


def stroke(tab, *points):
    """Press at the first pixel (column, row), move to the others in one event each, and let go."""
    box = tab.get_by_role("application").bounding_box()
    at = [(box["x"] + (x + 0.5) * box["width"] / 4, box["y"] + (y + 0.5) * box["height"] / 3) for x, y in points]
    tab.mouse.move(*at[0])
    tab.mouse.down()
    for point in at[1:]:
        tab.mouse.move(*point)
    tab.mouse.up()


def has(tab, *rows):
    """The page shows what torch makes of these rows, written in x for ink, in its pixels and in its output."""
    ink = torch.tensor([[c == "x" for c in row] for row in rows]).float()
    close(settled(tab)[0], (ink * WEIGHTS).abs())
    shown = tab.evaluate("[...document.querySelectorAll('.grid i')].map(i => getComputedStyle(i).backgroundColor)")
    assert shown == ["rgb(0, 0, 0)" if on else "rgb(255, 255, 255)" for on in ink.flatten()]


def test_a_mouse_draws(show):
    tab = show("drawn")
    has(tab, "....", ".xx.", "....")
    stroke(tab, (0, 0), (3, 0))  # a quick stroke leaves no gap
    has(tab, "xxxx", ".xx.", "....")
    stroke(tab, (0, 2), (2, 0))
    has(tab, "xxxx", ".xx.", "x...")
    stroke(tab, (3, 0), (3, 1), (1, 1))  # one that starts on ink erases
    has(tab, "xxx.", "....", "x...")
    stroke(tab, (3, 2))
    has(tab, "xxx.", "....", "x..x")
    tab.mouse.move(0, 0)
    has(tab, "xxx.", "....", "x..x")
    tab.get_by_role("button", name="Clear Ink x₁").click()
    has(tab, "....", "....", "....")
    stroke(tab, (1, 1), (1, 9))  # out of the grid
    has(tab, "....", ".x..", ".x..")
    assert tab.complaints == []


def test_a_stroke_is_as_wide_as_a_pixel(show):
    """A little beside the middle it stays in its row; at the border between two it is as wide as both."""
    tab = show("drawn")
    for shift, rows in [(0.3, ("....", "xxxx", "....")), (0.48, ("....", "xxxx", "xxxx"))]:
        tab.get_by_role("button", name="Clear").click()
        stroke(tab, (0, 1 + shift), (3, 1 + shift))
        has(tab, *rows)


def test_a_finger_draws(show):
    tab = show("drawn", has_touch=True, is_mobile=True, viewport={"width": 390, "height": 300})
    box = tab.get_by_role("application").bounding_box()
    assert (
        box["x"] + box["width"] < 390
        and tab.locator(".grid").evaluate("b => getComputedStyle(b).touchAction") == "none"
    )
    tab.touchscreen.tap(box["x"] + 0.9 * box["width"], box["y"] + 0.9 * box["height"])
    has(tab, "....", ".xx.", "...x")
    tab.touchscreen.tap(box["x"] + 0.4 * box["width"], box["y"] + 0.5 * box["height"])
    has(tab, "....", "..x.", "...x")
    finger = tab.context.new_cdp_session(tab)
    for kind, x in [("touchStart", 0.1), ("touchMove", 0.5), ("touchMove", 0.6)]:
        points = [{"x": box["x"] + x * box["width"], "y": box["y"] + 0.1 * box["height"]}]
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    has(tab, "xxx.", "..x.", "...x")
    assert tab.evaluate("scrollY") == 0


def test_keys_draw(show):
    tab = show("drawn", viewport={"width": 400, "height": 150})
    tab.get_by_role("application", name="Ink x₁: the arrow keys").focus()
    place = tab.evaluate("scrollY")
    tab.keyboard.press("ArrowRight")
    cursor = "getComputedStyle(document.querySelectorAll('.grid i')[1]).boxShadow"
    assert tab.evaluate(cursor) != "none"
    tab.keyboard.press("Space")
    has(tab, ".x..", ".xx.", "....")
    for key in ("ArrowUp", "ArrowDown", "Space"):
        tab.keyboard.press(key)
    has(tab, ".x..", "..x.", "....")
    for key in ("ArrowDown", "ArrowDown", "ArrowLeft", "ArrowLeft", "ArrowLeft", "Space"):
        tab.keyboard.press(key)
    has(tab, ".x..", "..x.", "x...")
    assert tab.evaluate("scrollY") == place and tab.evaluate(cursor) == "none"
    tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    has(tab, "....", "....", "....")


def test_what_a_screen_reader_hears_of_a_drawing(show):
    tab = show("flows")
    grid, told = tab.get_by_role("application"), tab.locator("[aria-live=polite]")
    grid.focus()
    for key, place in [("ArrowDown", "row 2, column 1, empty"), ("ArrowRight", "row 2, column 2, ink")]:
        grid.press(key)
        assert told.inner_text() == place
    grid.press("Space")
    tab.wait_for_function("document.querySelector('[aria-live=polite]').textContent.includes('pixels')")
    assert told.inner_text() == "Ink: 1 of 12 pixels drawn, speed 1.00, step t 9"


def test_a_drawing_starts_a_loop_again(show):
    tab = show("flows")
    shift = Noise(3, 4).start()

    def states(ink):
        path = [torch.zeros(3, 4)]
        for t in range(9):
            path.append(flows(path[-1], torch.tensor(t), ink, shift, torch.tensor(1.0)))
        return path

    close(settled(tab)[0], states(FIRST)[-1])
    tab.get_by_role("slider", name="step t").focus()
    for _ in range(3):
        tab.keyboard.press("ArrowLeft")
    stroke(tab, (0, 0), (3, 0))
    ink = FIRST.clone()
    ink[0] = 1
    close(settled(tab)[0], states(ink)[6])
    tab.get_by_role("button", name="Play").click()
    tab.wait_for_function("document.querySelector('.genlib-live input[max=\\'9\\']').value === '9'")
    close(settled(tab)[0], states(ink)[-1])


def test_a_finger_that_trembles_touches_one_pixel(show):
    tab = show("drawn")
    stroke(tab, (0, 0.45), (0.1, 0.6))
    has(tab, "x...", ".xx.", "....")


def test_other_noise_comes_with_other_pixels_only(show):
    """And when the reader plays the loop again."""
    tab = show("walks")
    before = settled(tab)[0]
    assert torch.equal(before > 0, FIRST > 0)
    grid = tab.get_by_role("application")
    grid.press("ArrowDown")
    assert torch.equal(settled(tab)[0], before)
    tab.get_by_role("button", name="Play").click()
    tab.get_by_role("button", name="Pause").wait_for()
    tab.get_by_role("button", name="Play").wait_for()
    again = settled(tab)[0]
    assert (again != before).any() and torch.equal(again > 0, FIRST > 0)
    box = grid.bounding_box()
    tab.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.1 * box["height"])
    tab.mouse.down()
    drawn = settled(tab)[0]
    assert (drawn != again)[1, 1:3].all() and drawn[0, 1] > 0
    tab.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 0.15 * box["height"])
    assert torch.equal(settled(tab)[0], drawn)


def test_a_drawing_keeps_its_value_and_tries_others():
    value = FIRST.bool()
    ink = Drawing("Ink", value)
    value[:] = True
    assert torch.equal(ink.start(), FIRST) and ink.start().dtype == torch.float32
    others = [ink.other(k, torch.Generator().manual_seed(k)) for k in range(4)]
    assert torch.equal(others[0], 0 * FIRST) and torch.equal(others[1], 0 * FIRST + 1)
    assert not torch.equal(others[2], others[3]) and set(others[2].unique().tolist()) == {0.0, 1.0}
    with pytest.raises(ValueError, match="depend on the values"):
        live(lambda x: x + 1 if x[0, 0] else x, ink, view=Image(), name="a", alt="a")


def test_new_noise(show):
    tab = show("sampled")
    before = settled(tab)[1]
    tab.get_by_role("button", name="New noise").click()
    after = settled(tab)[1]
    assert (before - after).abs().min() > 1e-6 and after.shape == before.shape
    assert abs(after.mean() - 0.405) < 0.6 and 0.5 < after.std() < 1.5


def test_a_loop_repeats_the_steps(show):
    tab = show("drifts")
    x, speed = Noise(30, 2).start(), torch.tensor(1.0)
    states = [x := drifts(x, torch.tensor(t), speed) for t in range(40)]
    tab.wait_for_timeout(300)
    close(settled(tab)[0], states[-1])
    tab.get_by_role("slider", name="step t").focus()
    tab.keyboard.press("ArrowLeft")
    close(settled(tab)[0], states[-2])
    tab.get_by_role("slider", name="speed").focus()
    tab.keyboard.press("Home")
    close(settled(tab)[0], Noise(30, 2).start())


def test_play(show):
    tab = show("drifts")
    tab.get_by_role("button", name="Play").click()
    tab.get_by_role("button", name="Pause").wait_for()
    tab.get_by_role("button", name="Play").wait_for()
    assert tab.get_by_role("slider", name="step t").input_value() == "40"
    tab = show("drifts", reduced_motion="reduce")
    for value in ("10", "20"):
        tab.get_by_role("button", name="Ten steps").click()
        settled(tab)
        assert tab.get_by_role("slider", name="step t").input_value() == value


def test_noise_of_each_step(browser):
    walk = live(lambda x, t, z: x + z, torch.zeros(400, 2), steps=9, noise="normal", view=Points((-9, 9), (-9, 9)),
                name="walk", alt="A walk.")  # fmt: skip
    tab = browser.new_page()
    tab.set_content(walk.html)
    tab.wait_for_timeout(200)
    x = settled(tab)[0]
    assert abs(x.std() - 3) < 0.4 and abs(x.mean()) < 0.4
    tab.close()


def test_what_a_screen_reader_hears(show):
    """Nothing while the slider moves, whatever the machine's load; where it stopped, once it has."""
    tab = show("sampled")
    tab.get_by_role("slider", name="u").focus()
    heard = tab.evaluate("""async () => {
        const told = document.querySelector("[aria-live=polite]"), slider = document.activeElement, heard = [];
        for (let i = 0; i < 3; i++) {
            slider.stepUp();
            slider.dispatchEvent(new Event("input"));
            heard.push(told.textContent);
        }
        return heard;
    }""")
    assert heard == ["", "", ""]
    tab.wait_for_function("document.querySelector('[aria-live=polite]').textContent")
    assert tab.locator("[aria-live=polite]").inner_text() == "u 0.630, x 0.532"


def test_its_keys_are_no_commands_to_the_page(show):
    """JupyterLab listens to arrow keys on the whole document, and would keep them from the slider."""
    tab = show("sampled")
    tab.evaluate("document.addEventListener('keydown', event => { event.preventDefault(); window.heard = true; })")
    tab.get_by_role("slider", name="u").focus()
    tab.keyboard.press("ArrowRight")
    close(settled(tab)[2], torch.tensor(0.61).logit())
    assert not tab.evaluate("window.heard")


def test_an_output_that_was_taken_away_and_put_back(show):
    tab = show("sampled")
    tab.evaluate("""async () => {
        const root = document.querySelector(".genlib-live"), place = root.parentNode;
        const frames = () => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
        root.remove();
        document.documentElement.dataset.theme = "dark";
        root.querySelector("input").dispatchEvent(new Event("input"));
        await frames();
        place.append(root);
        await frames();
    }""")
    tab.get_by_role("slider", name="u").focus()
    tab.keyboard.press("ArrowRight")
    close(settled(tab)[2], torch.tensor(0.61).logit())
    assert tab.complaints == []


def test_labels_cannot_end_the_script(browser):
    view = Lines((0, 1), (0, 1), "<!--", "</script>", ["<!--<script>"])
    page = live(line, SLIDER, view=view, name="a", alt="<b>")._repr_mimebundle_()["text/html"]
    tab = browser.new_page()
    tab.set_content(f"<!doctype html><body>{page}<p id=after>after</p>")
    tab.wait_for_selector(".genlib-live input")
    assert tab.locator("body > #after").inner_text() == "after"
    tab.close()


def test_twice_on_one_page(show):
    tab = show("decoded", "sampled", "decoded")
    tab.get_by_role("application").nth(1).focus()
    tab.keyboard.press("ArrowRight")
    close(settled(tab, 2)[0], decoded(torch.tensor([0.58, -1.0])))
    close(settled(tab, 0)[0], decoded(torch.tensor([0.5, -1.0])))
    assert tab.complaints == []


@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_nothing(show, width):
    tab = show(
        "sampled", "decoded", "drifts", "drawn", viewport={"width": width, "height": 900}, reduced_motion="reduce"
    )
    tab.evaluate(AXE)
    colors = []
    for theme in ("light", "dark"):
        tab.evaluate("theme => {document.documentElement.dataset.theme = theme}", theme)
        settled(tab)
        found = tab.evaluate("tags => axe.run({runOnly: {type: 'tag', values: tags}}).then(r => r.violations)", WCAG)
        assert [(fault["id"], fault["nodes"][0]["html"]) for fault in found] == []
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        picture = "[...document.querySelector('canvas').getContext('2d').getImageData(0, 0, 200, 200).data]"
        colors.append(max(tab.evaluate(picture)[::4]))
    assert colors[0] < 180 < colors[1]  # dark ink, then light ink
    assert tab.complaints == []


# --- where readers meet it ------------------------------------------------------------------------------------------

FIGURES = [
    ("density-estimation", "bins", "width h"),
    ("density-estimation", "bandwidth", "bandwidth h"),
    ("neural-cdf", "inversion", "u"),
]


@pytest.mark.parametrize("chapter, name, label", FIGURES)
def test_a_figure_of_the_book_responds(browser, site, chapter, name, label):
    tab = browser.new_page()
    tab.goto(f"{site}book/foundations/{chapter}.html")
    figure = tab.locator(f".genlib-live[data-name={name}]")
    seen = "root => JSON.stringify(Array.from(root.outputs[0].data))"
    before = figure.evaluate(seen)
    figure.get_by_role("slider", name=label).focus()
    tab.keyboard.press("ArrowLeft")
    tab.wait_for_function(f"([root, before]) => ({seen})(root) !== before", arg=[figure.element_handle(), before])
    assert figure.locator("xpath=ancestor::figure//figcaption").inner_text().startswith("Fig.")
    tab.close()


@pytest.mark.parametrize("trusted", [True, False])
def test_jupyterlab_shows_it(browser, jupyterlab, outputs, trusted):
    """A trusted output runs; of an untrusted one, which JupyterLab cleans of scripts, the picture stays."""
    address, folder, environment = jupyterlab
    nb = new_notebook(
        cells=[new_code_cell("1", outputs=[new_output("display_data", outputs["sampled"]._repr_mimebundle_())])]
    )
    path = folder / f"{trusted}.ipynb"
    nbformat.write(nb, path)
    if trusted:
        subprocess.run(
            [sys.executable, "-m", "jupyter", "trust", path], env=environment, check=True, capture_output=True
        )
    tab = browser.new_page()
    tab.goto(address.format(path.name))
    output = tab.locator(".jp-OutputArea-output")
    output.wait_for(timeout=60_000)
    if trusted:
        output.locator("canvas").first.wait_for()
        move = "slider => { slider.value = 60; slider.dispatchEvent(new Event('input')); }"
        output.get_by_role("slider", name="u").evaluate(move)
        close(settled(tab)[2], torch.tensor(0.61).logit())
    else:
        output.locator("img").wait_for()
        assert output.locator("img").get_attribute("alt") == "A path." and output.locator("canvas").count() == 0
    tab.close()


@pytest.fixture(scope="module")
def jupyterlab(tmp_path_factory):
    """A JupyterLab of the tests' own: its address for a notebook, its folder, its environment."""
    folder, own = tmp_path_factory.mktemp("notebooks"), tmp_path_factory.mktemp("jupyter")
    environment = os.environ | {f"JUPYTER_{kind}_DIR": str(own / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [
        f"--port={port}",
        "--no-browser",
        "--allow-root",
        f"--ServerApp.root_dir={folder}",
        "--IdentityProvider.token=t",
        "--LabApp.expose_app_in_browser=True",
    ]
    command = [sys.executable, "-m", "jupyterlab", *options, "--ServerApp.ip=127.0.0.1", "--ServerApp.port_retries=0"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        for _ in range(300):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/lab/tree/{{}}?token=t&reset", folder, environment
        server.kill()  # it would wait for its front end
