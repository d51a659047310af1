"""The gaps of ``labs/made.ipynb``: reference answers, and the cases that judge the learner's.

The oracles are SciPy's logistic function, NumPy's sums over named indices, fractions, and loops. Images are rows of
bits, ``(n, D)``; pixels and their degrees are counted from 1, tensors from 0.
"""

import math
from fractions import Fraction

import numpy as np
import torch
from scipy import special
from torch import Tensor

from genlib.course.checks import Case, gap


def _float(x) -> Tensor:
    return torch.as_tensor(np.asarray(x), dtype=torch.float32)


def _log_prob(x, a) -> np.ndarray:
    """The log-probability of each bit, by SciPy's ``log_expit``."""
    x, a = np.asarray(x, dtype=float), np.asarray(a, dtype=float)
    return np.where(x == 1, special.log_expit(a), special.log_expit(-a))


def _bits():
    x, a = _float([[1, 0, 1], [0, 0, 1]]), _float([[2, -1, 0.5], [-0.5, 1.5, -3]])
    each, p = _log_prob(x, a), a.sigmoid()
    right = _float(each.sum(1))
    yield Case(
        {"x": x, "logits": a},
        right,
        {
            "this is the mean over the pixels; the chain rule multiplies all of them, so take the sum.": right / 3,
            "this is a loss, minus the log-probability: a log-probability is never above 0.": -right,
            "the pixels without ink do not count: they have the factor 1 - p.": (x * p.log()).sum(1),
            "the pixels with ink do not count: they have the factor p.": ((1 - x) * (1 - p).log()).sum(1),
            "p and 1 - p are exchanged: ink should like a large logit.": _float(_log_prob(x, -a).sum(1)),
            "this is the probability; its logarithm is asked for.": right.exp(),
            "you add up probabilities; multiply them, or add up their logarithms.": _float(np.exp(each).sum(1)),
            "the sigmoid is applied twice.": _float(_log_prob(x, p).sum(1)),
            "this is the last pixel's factor alone; the chain rule multiplies all of them.": _float(each[:, -1]),
            "these are bits; the natural logarithm gives nats.": right / math.log(2),
        },
    )
    x, a = _float([[0, 1, 1], [1, 0, 0]]), _float([[200, -200, 0], [300, -1, 0]])
    huge = (
        "sigmoid(-200) is 0 in floating point, and its logarithm is -inf. Take both in one step with "
        "torch.nn.functional.logsigmoid, or with softplus(a) = log(1 + exp(a))."
    )
    cut = "torch's binary_cross_entropy cuts every logarithm off at -100. Use the one with logits."
    each = _log_prob(x, a)
    values = {huge: _float([-math.inf, each[1].sum()]), cut: _float(each.clip(-100).sum(1))}
    yield Case({"x": x, "logits": a}, _float(each.sum(1)), values)


@gap("made.bits", _bits)
def chain_log_prob(x: Tensor, logits: Tensor) -> Tensor:
    """``sum_i log p(x_i | x_<i)`` of each row of bits, where ``p(x_i = 1 | x_<i)`` is the sigmoid of ``logits[i]``."""
    return torch.nn.functional.logsigmoid((2 * x - 1) * logits).sum(1)


def _ordered(x, W, b, sees=lambda i, j: j < i) -> Tensor:
    """A loop over the pairs of pixels: the logit of i gets ``W[i, j] x[j]`` where i sees j."""
    out = np.asarray(b, dtype=float)[None].repeat(len(x), 0)
    for i, j in np.ndindex(W.shape):
        out[:, i] += np.asarray(x)[:, j] * W[i, j].item() * sees(i, j)
    return _float(out)


def _linear():
    x, b = _float([[1, 0, 1], [0, 1, 1]]), _float([0.25, -0.5, 1])
    W = _float([[1, -2, 3], [0.5, 1.5, -1], [-0.75, 2, 4]])
    made = lambda sees, W=W: _ordered(x, W, b, sees)  # noqa: E731
    right = _ordered(x, W, b)
    yield Case(
        {"x": x, "W": W, "b": b},
        right,
        {
            "every pixel sees all others: keep only the W[i, j] with j < i.": made(lambda i, j: True),
            "the diagonal is still there, so a pixel helps to predict itself.": made(lambda i, j: j <= i),
            "a pixel sees those after it; it may see those before it.": made(lambda i, j: j > i),
            "the pixel just before is missing too; W[i, j] with j = i - 1 must stay.": made(lambda i, j: j < i - 1),
            "a pixel sees its neighbour only; it may see everything before it.": made(lambda i, j: j == i - 1),
            "the order is right, but W[j, i] stands where W[i, j] belongs.": made(lambda i, j: j < i, W.T),
            "x @ W adds up along the columns: pixel i now sees those after it. Use the transpose.": (
                made(lambda i, j: j > i, W.T)
            ),
            "b is missing.": right - b,
            "the sigmoid is applied already; return the logits.": right.sigmoid(),
        },
    )
    x = _float([[1, 1], [1, 0], [0, 1]])
    yield Case({"x": x, "W": W[:2, :2], "b": b[:2]}, _float([[0.25, 0], [0.25, 0], [0.25, -0.5]]))


@gap("made.linear", _linear)
def ordered_logits(x: Tensor, W: Tensor, b: Tensor) -> Tensor:
    """``b_i + sum_{j<i} W_ij x_j`` for every pixel of every row; x ``(n, D)``, W ``(D, D)``, b ``(D,)``."""
    return x @ W.tril(-1).T + b


def _whole(x) -> Tensor:
    return torch.tensor([int(v) for v in x])


def _degrees():
    D, H = 5, 6
    even = [1 + Fraction(k * (D - 1), H) for k in range(H)]
    right, spread = _whole(map(math.floor, even)), lambda n: _whole(1 + k * n // H for k in range(H))
    yield Case(
        {"D": D, "H": H},
        right,
        {
            "these degrees start at 0; a unit of degree 0 would see no pixel at all.": right - 1,
            "a unit of degree D sees all pixels, and no output may hear it: the largest is D - 1.": spread(D),
            "degree D - 1 never comes up, so the last output misses a pixel.": spread(D - 2),
            "the degrees come in turns; here equal ones stand together.": _whole(1 + k % (D - 1) for k in range(H)),
            "you round to the nearest number; the formula rounds down.": _whole(np.linspace(1, D - 1, H).round()),
            "you round up; the formula rounds down.": _whole(map(math.ceil, even)),
            "the degrees run up to H; they count pixels, not units.": _whole(range(1, H + 1)),
            "the degrees fall; they should rise.": right.flip(0),
            "all units have the same degree; spread them over 1 .. D - 1.": 0 * right + D - 1,
        },
    )
    yield Case({"D": 7, "H": 3}, torch.tensor([1, 3, 5]))
    yield Case({"D": 4, "H": 6}, torch.tensor([1, 1, 2, 2, 3, 3]))


@gap("made.degrees", _degrees)
def hidden_degrees(D: int, H: int) -> Tensor:
    """``1 + floor(k (D - 1) / H)`` for the units ``k = 0 .. H - 1``, int64."""
    return 1 + torch.arange(H) * (D - 1) // H


def _table(rows, columns, joined) -> Tensor:
    return _float([[1.0 if joined(r, c) else 0.0 for c in columns] for r in rows])


def _hidden_mask():
    degrees, D = torch.tensor([1, 3, 2, 2]), 4
    made = lambda joined, first=1: _table([1, 3, 2, 2], range(first, first + D), joined)  # noqa: E731
    yield Case(
        {"degrees": degrees, "D": D},
        _float([[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 0, 0]]),
        {
            "a unit of degree m misses pixel m; at this layer it may see it.": made(lambda m, j: j < m),
            "a unit of degree m sees pixel m + 1 as well; pixels are counted from 1.": made(lambda m, j: j <= m, 0),
            "a unit sees pixel m and those after it; it may see those up to it.": made(lambda m, j: j >= m),
            "the mask is turned round: 1 is for a weight that stays.": made(lambda m, j: j > m),
            "a unit of degree m sees pixel m alone; it may see all up to it.": made(lambda m, j: j == m),
            "every weight stays: nothing is masked.": made(lambda m, j: True),
            "rows and columns are exchanged: a row for each unit, a column for each pixel.": (
                _table(range(1, D + 1), [1, 3, 2, 2], lambda j, m: j <= m)
            ),
        },
    )
    yield Case({"degrees": degrees[:2], "D": 3}, _float([[1, 0, 0], [1, 1, 1]]))


@gap("made.hidden-mask", _hidden_mask)
def hidden_mask(degrees: Tensor, D: int) -> Tensor:
    """``(H, D)``: 1.0 where the unit's degree is at least the number of the pixel, 0.0 elsewhere."""
    return (degrees[:, None] >= torch.arange(1, D + 1)).float()


def _output_mask():
    degrees, D = torch.tensor([1, 3, 2, 2]), 4
    made = lambda joined, first=1: _table(range(first, first + D), [1, 3, 2, 2], joined)  # noqa: E731
    yield Case(
        {"degrees": degrees, "D": D},
        _float([[0, 0, 0, 0], [1, 0, 0, 0], [1, 0, 1, 1], [1, 1, 1, 1]]),
        {
            "output i hears units of degree i, which see pixel i itself: that is a leak.": made(lambda i, m: i >= m),
            "output i misses units of degree i - 1: it never sees the pixel just before.": made(lambda i, m: i > m, 0),
            "output i hears units of larger degree; it may hear those of smaller degree.": made(lambda i, m: i < m),
            "the mask is turned round: 1 is for a weight that stays.": made(lambda i, m: i <= m),
            "output i hears units of degree i - 1 alone; smaller ones may be heard too.": made(lambda i, m: i - 1 == m),
            "every weight stays: nothing is masked.": made(lambda i, m: True),
            "rows and columns are exchanged: a row for each output, a column for each unit.": (
                _table([1, 3, 2, 2], range(1, D + 1), lambda m, i: i > m)
            ),
        },
    )
    yield Case({"degrees": degrees[:2], "D": 3}, _float([[0, 0], [1, 0], [1, 0]]))


@gap("made.output-mask", _output_mask)
def output_mask(degrees: Tensor, D: int) -> Tensor:
    """``(D, H)``: 1.0 where the number of the output's pixel is larger than the unit's degree, 0.0 elsewhere."""
    return (torch.arange(1, D + 1)[:, None] > degrees).float()


def _logits(x, W, b, V, c, M, N, g=lambda a: np.maximum(a, 0)) -> Tensor:
    """The masked network, by NumPy's sums over named indices."""
    x, W, b, V, c, M, N = (np.asarray(a, dtype=float) for a in (x, W, b, V, c, M, N))
    return _float(np.einsum("dh,dh,ih->id", V, N, g(np.einsum("hd,hd,id->ih", W, M, x) + b)) + c)


def _network():
    x, W, b = _float([[1, 0], [1, 1], [0, 1]]), _float([[1, -2], [-0.5, 1.5], [2, 0.5]]), _float([0.5, 1, -1])
    V, c = _float([[2, 1, 0.5], [-1, 0.75, 3]]), _float([0.25, -0.5])
    M, N = _float([[1, 0], [1, 1], [1, 0]]), _float([[0, 1, 0], [1, 0, 1]])
    all_M, all_N, zero, plain = 0 * M + 1, 0 * N + 1, torch.zeros(3), (x, W, b, V, c)
    right = _logits(*plain, M, N)
    yield Case(
        dict(zip("x W b V c M N".split(), (*plain, M, N), strict=True)),
        right,
        {
            "the hidden layer is not masked: W needs M.": _logits(*plain, all_M, N),
            "the output layer is not masked: V needs N.": _logits(*plain, M, all_N),
            "neither layer is masked.": _logits(*plain, all_M, all_N),
            "the masks are exchanged: M belongs to W, and N to V.": _logits(*plain, N.T, M.T),
            "the masks are added to the weights; multiply, so that a 0 removes a weight.": (
                _logits(x, W + M, b, V + N, c, all_M, all_N)
            ),
            "the relu is missing: without it the two layers are one linear map.": _logits(*plain, M, N, lambda a: a),
            "b is missing in the hidden layer.": _logits(x, W, zero, V, c, M, N),
            "c is missing in the output.": right - c,
            "both b and c are missing.": _logits(x, W, zero, V, c, M, N) - c,
            "b is added after the relu; it belongs inside.": _logits(x, W, zero, V, c, M, N) + (V * N) @ b,
            "the sigmoid is applied already; return the logits.": right.sigmoid(),
            "the relu is applied to the output too; a logit may be negative.": right.relu(),
            "the hidden layer uses the sigmoid; here it is the relu.": _logits(*plain, M, N, special.expit),
        },
    )
    x, W, V, M = _float([[1, 1]]), _float([[1, 2]]), _float([[3], [4]]), _float([[1, 0]])
    arguments = {"x": x, "W": W, "b": _float([1]), "V": V, "c": c, "M": M, "N": _float([[0], [1]])}
    yield Case(arguments, _float([[0.25, 7.5]]))


@gap("made.network", _network)
def masked_logits(x: Tensor, W: Tensor, b: Tensor, V: Tensor, c: Tensor, M: Tensor, N: Tensor) -> Tensor:
    """``c + (V * N) relu(b + (W * M) x)`` of each row; W, M ``(H, D)``, b ``(H,)``, V, N ``(D, H)``, c ``(D,)``."""
    return torch.relu(x @ (W * M).T + b) @ (V * N).T + c


def _draw():
    a, u = [2.0, -1.0, 0.5, -2.0, 3.0, 1.0, -3.0, 0.3], [0.7, 0.4, 0.2, 0.05, 0.99, 0.6, 0.02, 0.9]
    x, known = [0, 1, 0, 1, 1, 0, 1, 1], [False, False, True, False, True, True, True, False]
    put = lambda bits: _float([e if k else b for b, e, k in zip(bits, x, known, strict=True)])  # noqa: E731
    p = special.expit(a)
    drawn = [1 if v < q else 0 for v, q in zip(u, p, strict=True)]
    yield Case(
        {"logits": _float(a), "u": _float(u), "x": _float(x), "known": torch.tensor(known)},
        put(drawn),
        {
            "you take the likelier bit; a draw asks u, so that both come up.": put([v > 0 for v in a]),
            "the bit is 1 where u is above p; it should be 1 where u is below.": put([1 - d for d in drawn]),
            "u is compared with the logit; it belongs beside the probability.": put(
                [v < b for v, b in zip(u, a, strict=True)]
            ),
            "known is the wrong way round: keep x where it is true.": _float(
                [d if k else e for d, e, k in zip(drawn, x, known, strict=True)]
            ),
            "known has no say: every bit is drawn.": _float(drawn),
            "this is x: nothing is drawn.": _float(x),
            "u is compared with one half, so the network has no say.": put([v < 0.5 for v in u]),
            "these are probabilities; compare u with them.": put(p),
            "known bits are added to drawn ones; they take their place.": _float(drawn) + _float(x) * _float(known),
        },
    )
    arguments = {"logits": _float([0.1, -0.1]), "u": _float([0.51, 0.49]), "x": _float([0, 1])}
    yield Case({**arguments, "known": torch.tensor([False, False])}, _float([1, 0]))


@gap("made.draw", _draw)
def next_bits(logits: Tensor, u: Tensor, x: Tensor, known: Tensor) -> Tensor:
    """``x`` where ``known``; elsewhere 1.0 where ``u < sigmoid(logits)`` and else 0.0; all ``(n,)``."""
    return torch.where(known, x, (u < torch.sigmoid(logits)).float())


def fresh(gap: str, g: torch.Generator) -> dict:
    """Random arguments for a gap, in the order of its function."""
    u = lambda *shape: torch.rand(shape, generator=g)  # noqa: E731
    n, d, h = torch.randint(3, 9, (3,), generator=g).tolist()
    bits, degrees = (u(n, d) < 0.5).float(), torch.randint(1, d, (h,), generator=g)
    match gap:
        case "made.bits":
            return {"x": bits, "logits": 8 * u(n, d) - 4}
        case "made.linear":
            return {"x": bits, "W": 2 * u(d, d) - 1, "b": 2 * u(d) - 1}
        case "made.degrees":
            D, H = torch.randint(2, 40, (2,), generator=g).tolist()
            return {"D": D, "H": H}
        case "made.hidden-mask" | "made.output-mask":
            return {"degrees": degrees, "D": d}
        case "made.network":
            W, b, V, c = (2 * u(*shape) - 1 for shape in ((h, d), (h,), (d, h), (d,)))
            return {"x": bits, "W": W, "b": b, "V": V, "c": c, "M": u(h, d).round(), "N": u(d, h).round()}
        case "made.draw":
            return {"logits": 4 * u(n) - 2, "u": u(n), "x": bits[:, 0], "known": u(n) < 0.5}
