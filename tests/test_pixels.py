"""Pixel models against enumeration, gradients, recurrences written out pixel by pixel, and the naive loop."""

import math

import pytest
import torch
from torch import nn

from genlib.contract import seeded
from genlib.models.pixels import (
    DiagonalBiLSTM,
    DiagonalLSTM,
    GatedPixelCNN,
    MaskedConv,
    PixelCNN,
    PixelRNN,
    RowLSTM,
    _visible,
)
from genlib.testing import ConformanceError, check_model


def images(n, shape, levels, seed=0):
    return torch.randint(levels, (n, *shape), generator=seeded(seed))


def rough(model, scale=0.4):
    """The model with random weights throughout, in float64."""
    for i, p in enumerate(model.parameters()):
        p.data = scale * torch.randn(p.shape, generator=seeded(i), dtype=torch.float64)
    return model.double()


MODELS = {
    "PixelCNN": lambda shape, levels: PixelCNN(shape, levels, maps=6, blocks=2),
    "GatedPixelCNN": lambda shape, levels: GatedPixelCNN(shape, levels, maps=6, layers=3, size=3),
    "row": lambda shape, levels: PixelRNN(shape, levels, "row", maps=6, layers=2),
    "diagonal": lambda shape, levels: PixelRNN(shape, levels, "diagonal", maps=6, layers=2),
}


@pytest.mark.parametrize("shape, levels", [((1, 3, 4), 2), ((3, 3, 4), 3)])
@pytest.mark.parametrize("name", MODELS)
def test_conformance(name, shape, levels):
    model = rough(MODELS[name](shape, levels))
    ran = check_model(model.float(), images(40, shape, levels), skip=["autoregressive_reach"], samples=4000)
    assert {"autoregressive_mask", "samples", "gradients", "bad_input"} <= set(ran)


@pytest.mark.parametrize("shape", [(1, 3, 3), (2, 2, 2), (3, 1, 3), (1, 1, 1)])
@pytest.mark.parametrize("name", MODELS)
def test_the_masses_of_all_images_sum_to_one(name, shape):
    every = torch.cartesian_prod(*[torch.arange(2)] * math.prod(shape)).reshape(-1, *shape)
    assert rough(MODELS[name](shape, 2)).log_prob(every).exp().sum().item() == pytest.approx(1, abs=1e-10)


def test_colours_see_earlier_colours():
    """Six maps in three groups: red sees nothing of its own pixel under A, blue sees red and green."""
    assert _visible("A", 3, 6, 3).int().tolist() == [[0] * 6, [1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0]]
    assert _visible("B", 3, 3, 3).int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]


@pytest.mark.parametrize("name", MODELS)
def test_a_mask_of_type_b_at_the_door_is_caught(name):
    model = rough(MODELS[name]((1, 3, 3), 2))
    first = model.horizontal[0] if name == "GatedPixelCNN" else model.first
    first.mask[:, :, -1, first.reach] = 1
    every = torch.cartesian_prod(*[torch.arange(2)] * 9).reshape(-1, 1, 3, 3)
    assert abs(model.log_prob(every).exp().sum().item() - 1) > 1e-3
    with pytest.raises(ConformanceError):
        check_model(model, images(40, (1, 3, 3), 2))


def seen(model, r, c):
    """Which pixels move the logits of one, by gradients; positive weights keep all units awake."""
    for p in model.parameters():
        p.data = 0.05 * p.data.abs()
    x = torch.zeros(1, *model.event_shape, dtype=torch.float64, requires_grad=True)
    model._features(x, {}, None)[0][0, :, r, c].sum().backward()
    return x.grad[0, 0] != 0


def before(height, width, r, c):
    return torch.arange(height * width).reshape(height, width) < r * width + c


def test_the_blind_spot_of_masked_convolutions_and_its_cure():
    """Stacks of masked 3x3 layers see a cone that leaves a wedge to the right; two stacks see all within reach."""
    past = before(9, 9, 7, 4)
    plain = seen(rough(PixelCNN((1, 9, 9), maps=4, blocks=6)), 7, 4)
    assert not (plain & ~past).any() and not plain[6, 8]
    assert (past & ~plain).sum() >= 1 and (past & ~plain)[:, :5].sum() == 0  # blind to the right only
    assert torch.equal(seen(rough(GatedPixelCNN((1, 9, 9), maps=4, layers=8, size=3)), 7, 4), past)


def test_the_row_lstm_sees_a_triangle_and_the_diagonal_one_nearly_all():
    """No masked feature of the row above has seen its last pixel, so that one is seen from nearby only."""
    past = before(15, 15, 12, 7)
    row = seen(rough(PixelRNN((1, 15, 15), maps=3, layers=1)), 12, 7)
    assert not (row & ~past).any() and row[0].all() and not row[11, 14]
    past[11, 14] = False
    assert torch.equal(seen(rough(PixelRNN((1, 15, 15), kind="diagonal", maps=3, layers=1)), 12, 7), past)


# --- recurrences, written out pixel by pixel -------------------------------------------------------------------------


def step(gates, c):
    o, f, i, g = gates.chunk(4, 1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def written_out(layer, x):
    """``h`` at every pixel of one direction of the diagonal LSTM, from its two neighbours."""
    gates, (batch, _, height, width) = layer.inward(x, None)[0], x.shape
    zero = x.new_zeros(batch, gates.shape[1] // 4)
    left, up = layer.left.weight[..., 0], layer.up.weight[..., 0]
    h, c = {}, {}
    for r in range(height):
        for col in range(width):
            sums = gates[:, :, r, col] + h.get((r, col - 1), zero) @ left.T + h.get((r - 1, col), zero) @ up.T
            h[r, col], c[r, col] = step(sums, c.get((r, col - 1), zero))
    return torch.stack([torch.stack([h[r, col] for col in range(width)], 2) for r in range(height)], 2)


@pytest.mark.parametrize("height, width", [(5, 4), (4, 6), (1, 3), (3, 1)])
def test_skewing_equals_the_naive_recurrence(height, width):
    x = torch.randn(2, 6, height, width, generator=seeded(), dtype=torch.float64)
    layer = rough(DiagonalLSTM(3, 1))
    torch.testing.assert_close(layer(x, None, None)[0], written_out(layer, x))
    both = rough(DiagonalBiLSTM(3, 1))
    back = written_out(both.left, x.flip(3)).flip(3)
    moved = torch.cat([torch.zeros_like(back[:, :, :1]), back[:, :, :-1]], 2)
    torch.testing.assert_close(both(x, None, None)[0], written_out(both.right, x) + moved)


def test_the_row_lstm_equals_the_naive_recurrence():
    x, layer = torch.randn(2, 6, 4, 5, generator=seeded(), dtype=torch.float64), rough(RowLSTM(3, 1))
    gates, weight = layer.inward(x, None)[0], layer.onward.weight
    h, c = torch.zeros(2, 3, 7, dtype=torch.float64), torch.zeros(2, 3, 5, dtype=torch.float64)  # h with a border
    for r in range(4):
        sums = sum(torch.einsum("og,bgw->bow", weight[..., k], h[..., k : k + 5]) for k in range(3))
        new, c = step(gates[:, :, r] + sums, c)
        torch.testing.assert_close(layer(x, None, None)[0][:, :, r], new)
        h = nn.functional.pad(new, (1, 1))


def test_a_masked_convolution_is_torchs_with_a_full_kernel():
    x, layer = torch.randn(2, 2, 5, 6, generator=seeded(), dtype=torch.float64), rough(MaskedConv("B", 2, 4, 5, 2))
    kernel = torch.zeros(4, 2, 5, 5, dtype=torch.float64)
    kernel[:, :, :2] = layer.weight[:, :, :2]
    kernel[:, :, 2, :2] = layer.weight[:, :, 2, :2]
    kernel[:, :, 2, 2] = layer.weight[:, :, 2, 2]
    kernel[:2, 1, 2, 2] = 0  # the first channel's maps do not see the second channel of their pixel
    torch.testing.assert_close(layer(x, None)[0], nn.functional.conv2d(x, kernel, layer.bias, padding=2))


# --- what strips save ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_strips_of_rows_equal_the_whole_image(name):
    model, x = rough(MODELS[name]((2, 7, 5), 3)), images(3, (2, 7, 5), 3)
    whole, state, parts = model.logits(x), {}, []
    for rows in x.split([1, 3, 1, 2], 2):
        part, state = model._logits(rows, state)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, 2), whole)


def drawn_naively(model, n, g):
    u = torch.rand(n, *model.event_shape, generator=g, dtype=torch.float64)
    x = torch.zeros(u.shape, dtype=torch.int64)
    channels, height, width = model.event_shape
    for r in range(height):
        for c in range(width):
            for k in range(channels):
                p = model.logits(x)[:, k, r, c].softmax(1).cumsum(1)
                x[:, k, r, c] = (p[:, :-1] <= u[:, k, r, c, None]).sum(1)
    return x


@pytest.mark.parametrize("shape, levels", [((1, 9, 8), 2), ((3, 4, 3), 5)])
@pytest.mark.parametrize("name", MODELS)
def test_drawing_row_by_row_equals_the_naive_loop(name, shape, levels):
    model = rough(MODELS[name](shape, levels))
    fast = model.sample(8, seeded())
    with torch.no_grad():
        assert torch.equal(fast, drawn_naively(model, 8, seeded()))
    assert fast.unique().tolist() == list(range(levels))


@pytest.mark.parametrize("name", MODELS)
def test_known_pixels_stay_and_count(name):
    """The upper row known: the lower one follows the conditional law, by enumeration."""
    model = rough(MODELS[name]((1, 2, 3), 2), 0.8)
    mask, known = torch.tensor([[[True] * 3, [False] * 3]]), torch.tensor([[[1, 0, 1], [0, 0, 0]]])
    drawn = model.sample(20_000, seeded(), known=known, mask=mask)
    lower = torch.cartesian_prod(*[torch.arange(2)] * 3).reshape(-1, 1, 1, 3)
    fitting = torch.cat([known[None, :, :1].expand(8, 1, 1, 3), lower], 2)
    with torch.no_grad():
        p = model.log_prob(fitting).softmax(0)
    shares = (drawn[:, None] == fitting).flatten(2).all(2).double().mean(0)
    assert shares.sum() == 1 and ((shares - p).abs() < 5 * (p * (1 - p) / 20_000).sqrt() + 1e-9).all()


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: PixelCNN((3, 3)), ValueError, "shape: expected .channels, height, width."),
        (lambda: PixelCNN((1, 0, 3)), ValueError, "shape: expected"),
        (lambda: PixelCNN((1, 3, 3), 1), ValueError, "levels: expected"),
        (lambda: PixelCNN((1, 3, 3), maps=0), ValueError, "maps: expected"),
        (lambda: GatedPixelCNN((1, 3, 3), layers=0), ValueError, "layers: expected"),
        (lambda: PixelRNN((1, 3, 3), kind="column"), ValueError, "kind: expected one of 'row', 'diagonal'"),
        (lambda: PixelCNN((1, 3, 3)).log_prob(torch.zeros(2, 1, 3, 3)), TypeError, "x: expected whole levels 0 .. 1"),
        (lambda: PixelCNN((1, 3, 3)).log_prob(images(2, (1, 3, 3), 3)), ValueError, "x: expected levels 0 .. 1"),
        (lambda: PixelCNN((1, 3, 3)).log_prob(images(2, (1, 3, 4), 2)), ValueError, "x: expected shape"),
        (lambda: PixelCNN((1, 3, 3)).sample(0), ValueError, "n: expected"),
        (lambda: PixelCNN((1, 3, 3)).sample(1, known=images(1, (1, 3, 3), 2)), ValueError, "mask: expected known and"),
        (
            lambda: PixelCNN((1, 3, 3)).sample(1, known=torch.zeros(1, 3, 3), mask=torch.ones(1, 3, 3) > 0),
            TypeError,
            "known: expected whole levels",
        ),
        (
            lambda: PixelCNN((1, 3, 3)).sample(2, known=images(3, (1, 3, 3), 2), mask=torch.ones(1, 3, 3) > 0),
            ValueError,
            "known: expected one image or 2, got 3",
        ),
        (lambda: PixelCNN((1, 3, 3)).loss(images(2, (1, 3, 3), 2), 3), TypeError, "generator: expected"),
    ],
)
def test_bad_input_is_refused_and_named(call, error, words):
    with pytest.raises(error, match=f"^{words}"):
        call()
