"""The gaps of ``labs/normalizing-flow.ipynb``: reference answers, and the cases that judge the learner's.

The oracles are SciPy's normal law, NumPy's loops, its solver and its determinants, fractions, and the mass of a cell. A
flow runs from data x to noise z; a coupling keeps the first numbers of a row and changes the last ones.
"""

import math
from fractions import Fraction

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from genlib.course.checks import Case, gap


def _float(x) -> Tensor:
    return torch.as_tensor(np.asarray(x), dtype=torch.float32)


def _density():
    z, slope = _float([0.5, -1, 2]), _float([2, 0.25, 3])
    normal, change = _float(stats.norm.logpdf(z)), _float(np.log(slope.numpy()))
    right = normal + change
    yield Case(
        {"z": z, "slope": slope},
        right,
        {
            "the slope has no say: where f is steep, much of z comes from little x.": normal,
            "log|slope| is subtracted: a steep f squeezes much probability into little x, so add it.": normal - change,
            "the slope is added; its logarithm belongs there.": normal + slope,
            "the log-density is multiplied by the slope; it is the density that is, so add log|slope|.": normal * slope,
            "this is the density; its logarithm is asked for.": right.exp(),
            "this is a loss, minus the log-density.": -right,
            "the constant log(2 pi) / 2 is missing.": right + math.log(2 * math.pi) / 2,
            "you subtract log(2 pi); it is log(2 pi) / 2 for each number.": right - math.log(2 * math.pi) / 2,
            "it is z^2 / 2, not z^2.": right - z**2 / 2,
            "the sign of z^2 / 2 is wrong: far out the density falls.": right + z**2,
            "the slope is squared: log|slope| comes once.": right + change,
            "this is in bits; the natural logarithm gives nats.": right / math.log(2),
        },
    )
    z, slope = _float([0, 1.5, -0.5]), _float([-1, -0.5, 4])
    normal = stats.norm.pdf(z.numpy())
    cut = "a negative slope counts as if it were positive but tiny: take its absolute value."
    values = {cut: _float(np.log(normal * slope.clamp_min(1e-6).numpy()))}
    yield Case({"z": z, "slope": slope}, _float(np.log(normal * slope.abs().numpy())), values)


@gap("flow.density", _density)
def bent_log_density(z: Tensor, slope: Tensor) -> Tensor:
    """``log N(z; 0, 1) + log |slope|`` for ``z = f(x)`` and ``slope = f'(x)``, each ``(n,)``."""
    return -(z**2) / 2 - math.log(2 * math.pi) / 2 + slope.abs().log()


def _loop(x, s, t, change=lambda b, s, t: math.exp(s) * b + t) -> Tensor:
    """One row and one number after the other."""
    out, keep = x.double().numpy(), x.shape[1] - s.shape[1]
    for row, j in np.ndindex(s.shape):
        out[row, keep + j] = change(out[row, keep + j], s[row, j].item(), t[row, j].item())
    return _float(out)


def _coupling():
    x, s, t = _float([[1, 2, 3, -1], [-2, 0.5, 4, 2]]), _float([[0.5, -1], [0.25, 1.5]]), _float([[2, 1], [-1, 3]])
    right = _loop(x, s, t)
    first = lambda y: y.roll(2, 1)  # noqa: E731
    both = lambda u: torch.cat([u, u], 1)  # noqa: E731
    yield Case(
        {"x": x, "s": s, "t": t},
        right,
        {
            "s is the logarithm of the scale: multiply by exp(s), not by s.": _loop(x, s, t, lambda b, s, t: s * b + t),
            "t is added before the scaling; it comes after.": _loop(x, s, t, lambda b, s, t: math.exp(s) * (b + t)),
            "the scale is exp(s), not exp(-s).": _loop(x, -s, t),
            "t is missing.": _loop(x, s, 0 * t),
            "t is subtracted; forwards it is added.": _loop(x, s, -t),
            "the scale is missing.": _loop(x, 0 * s, t),
            "the first numbers are changed; they are the ones to keep.": first(_loop(first(x), s, t)),
            "the two parts have changed places: what is kept comes first.": first(right),
            "the first numbers are changed too; they must stay, or nothing can be inverted.": _loop(
                x, both(s), both(t)
            ),
            "the last numbers are computed from the first; scale and shift what is there.": torch.cat(
                [x[:, :2], _loop(x.flip(1), s.flip(1), t.flip(1))[:, 2:].flip(1)], 1
            ),
        },
    )
    x, s, t = _float([[1, 2, 3], [-1, 0.5, 2]]), _float([[0.5], [-1]]), _float([[1], [2]])
    wide = "two numbers are changed, and s has one column: s.shape[1] says how many change."
    yield Case({"x": x, "s": s, "t": t}, _loop(x, s, t), {wide: _loop(x, s.expand(2, 2), t.expand(2, 2))})
    x, s, t = _float([[1, 0, 2]]), _float([[0.5, 0]]), _float([[1, -1]])
    yield Case({"x": x, "s": s, "t": t}, _float([[1, 1, 1]]))


@gap("flow.coupling", _coupling)
def couple(x: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """The rows ``(a, exp(s) b + t)`` for the rows ``x = (a, b)``; x ``(n, D)``, s and t as wide as b."""
    d = x.shape[1] - s.shape[1]
    return torch.cat([x[:, :d], s.exp() * x[:, d:] + t], 1)


def _log_det():
    s = _float([[0.5, -1, 0.25], [1, 2, -0.75], [-0.5, -2, 1.5]])
    # the Jacobian of a coupling, with anything in the corner below its diagonal
    jacobians = [
        np.block([[np.eye(2), np.zeros((2, 3))], [np.full((3, 2), 7.0), np.diag(np.exp(r))]]) for r in s.numpy()
    ]
    right = _float(np.linalg.slogdet(np.stack(jacobians))[1])
    yield Case(
        {"s": s},
        right,
        {
            "this is the mean over the numbers; a determinant is a product, so its logarithm is a sum.": right / 3,
            "the sign is wrong: the coupling multiplies by exp(s).": -right,
            "you add up the scales exp(s); add up their logarithms.": s.exp().sum(1),
            "this is the determinant; its logarithm is asked for.": right.exp(),
            "you multiply the entries of s; they are logarithms, so add them.": s.prod(1),
            "exp(s) is positive already: with absolute values a squeeze counts as a stretch.": s.abs().sum(1),
            "the sum runs over the batch; each row has a determinant of its own.": s.sum(0),
            "this is one number of each row; the determinant takes all.": s[:, 0],
            "one determinant for the whole batch; each row has its own.": right.sum().expand(3),
            "you take the logarithm of a sum; the diagonal is multiplied, not added.": s.exp().sum(1).log(),
        },
    )
    yield Case({"s": _float([[1, 2], [0.5, -0.5], [3, 0]])}, _float([3, 0, 3]))


@gap("flow.log-det", _log_det)
def couple_log_det(s: Tensor) -> Tensor:
    """``log |det|`` of a coupling's Jacobian, ``sum_j s_j`` for each row of s ``(n, H)``."""
    return s.sum(1)


def _inverse():
    y, s, t = _float([[1, 2, 3, -1], [-2, 0.5, 4, 2]]), _float([[0.5, -1], [0.25, 1.5]]), _float([[2, 1], [-1, 3]])
    moved = (y[:, 2:] - t).numpy()
    solved = [np.linalg.solve(np.diag(np.exp(a)), b) for a, b in zip(s.numpy(), moved, strict=True)]
    right = torch.cat([y[:, :2], _float(solved)], 1)
    first, back = (lambda y: y.roll(2, 1)), (lambda b, s, t: (b - t) / math.exp(s))
    both = lambda u: torch.cat([u, u], 1)  # noqa: E731
    yield Case(
        {"y": y, "s": s, "t": t},
        right,
        {
            "this is the coupling itself, not its inverse.": _loop(y, s, t),
            "the scale is taken back before t: undo the last step first.": _loop(y, -s, -t),
            "t is taken away, and then you scale by exp(s); divide by it.": _loop(
                y, s, t, lambda b, s, t: (b - t) * math.exp(s)
            ),
            "t is added; the inverse takes it away.": _loop(y, s, t, lambda b, s, t: (b + t) / math.exp(s)),
            "you divide by s; the scale is exp(s).": _loop(y, s, t, lambda b, s, t: (b - t) / s),
            "t is still in it.": _loop(y, -s, 0 * t),
            "the scale is still in it.": _loop(y, 0 * s, -t),
            "the first numbers are changed; they are the ones that were kept.": first(_loop(first(y), s, t, back)),
            "the two parts have changed places: what was kept comes first.": first(right),
            "the first numbers are changed too; they were kept.": _loop(y, both(s), both(t), back),
        },
    )
    y, s, t = _float([[1, 2, 3], [-1, 0.5, 2]]), _float([[0.5], [-1]]), _float([[1], [2]])
    wide = "two numbers are changed, and s has one column: s.shape[1] says how many change."
    yield Case({"y": y, "s": s, "t": t}, _loop(y, s, t, back), {wide: _loop(y, s.expand(2, 2), t.expand(2, 2), back)})


@gap("flow.inverse", _inverse)
def uncouple(y: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """The rows ``(a, exp(-s) (b - t))`` for the rows ``y = (a, b)``: what :func:`couple` made y of."""
    d = y.shape[1] - s.shape[1]
    return torch.cat([y[:, :d], (y[:, d:] - t) * (-s).exp()], 1)


def _likelihood():
    z, logdets = _float([[0.5, -1, 2], [0, 1.5, -0.5]]), _float([[1, -2], [0.25, 3]])
    normal = _float(stats.multivariate_normal(np.zeros(3)).logpdf(z.double().numpy()))
    change = _float([math.fsum(column) for column in logdets.T.tolist()])
    right, constant = normal + change, math.log(2 * math.pi) / 2
    yield Case(
        {"z": z, "logdets": logdets},
        right,
        {
            "the log-determinants are missing.": normal,
            "the log-determinants are subtracted; from x to z they are added.": normal - change,
            "this is the last layer's log-determinant alone; add those of all layers.": normal + logdets[-1],
            "this is the mean over the layers; add their log-determinants.": normal + change / 2,
            "logdets has a row for each layer: the sum runs over the rows, dimension 0.": normal + logdets.sum(1),
            "log(2 pi) / 2 comes once for each of the D numbers, not once in all.": right + 2 * constant,
            "the constants log(2 pi) / 2 are missing.": right + 3 * constant,
            "log(2 pi) comes D times; it is log(2 pi) / 2.": right - 3 * constant,
            "this is the mean over the D numbers of z; they are independent, so add.": normal / 3 + change,
            "it is z^2 / 2, not z^2.": right - _float((z**2).sum(1)) / 2,
            "this is a loss, minus the log-likelihood.": -right,
        },
    )
    arguments = {"z": _float([[1, 1], [0, 2], [0, 0]]), "logdets": _float([[0.5, 1, 2]])}
    yield Case(arguments, _float([-0.5, -1, 2]) - math.log(2 * math.pi))


@gap("flow.likelihood", _likelihood)
def flow_log_likelihood(z: Tensor, logdets: Tensor) -> Tensor:
    """``log N(z; 0, I)`` plus the log-determinants of all layers; z ``(n, D)``, logdets ``(layers, n)``."""
    return -(z**2 / 2 + math.log(2 * math.pi) / 2).sum(1) + logdets.sum(0)


def _dequantize():
    k, u, levels = torch.tensor([[0, 3, 1], [2, 0, 3]]), _float([[0.5, 0.25, 0.875], [0.125, 0.75, 0.375]]), 4
    pairs = zip(k.flatten().tolist(), u.flatten().tolist(), strict=True)
    right = _float([float((a + Fraction(b)) / levels) for a, b in pairs]).reshape(2, 3)
    yield Case(
        {"k": k, "u": u, "levels": levels},
        right,
        {
            "there is no noise in it.": k / levels,
            "the noise is not divided by the number of levels: it covers many cells.": k / levels + u,
            "k is not divided by the number of levels; y should lie in [0, 1).": k + u / levels,
            "y should lie in [0, 1): divide by the number of levels.": k + u,
            "there are as many cells as levels: divide by levels, not by levels - 1.": (k + u) / (levels - 1),
            "the levels run to levels - 1, but a cell is 1 / levels wide.": k / (levels - 1) + u / levels,
            "the noise is centred; a cell begins at k / levels.": right - 0.5 / levels,
            "the noise is subtracted.": (k - u) / levels,
            "this is the noise alone.": u / levels,
        },
    )
    k, u = torch.tensor([0, 15, 7]), _float([0, 0.5, 0.25])
    yield Case({"k": k, "u": u, "levels": 16}, _float([0, 0.96875, 0.453125]))


@gap("flow.dequantize", _dequantize)
def fill_cells(k: Tensor, u: Tensor, levels: int) -> Tensor:
    """``(k + u) / levels`` for whole numbers k from 0 to levels - 1 and u uniform in [0, 1), of one shape."""
    return (k + u) / levels


def _bits():
    log_p, D, levels = _float([2, -1.5, 4]), 3, 8
    # a cell has the volume levels^-D, and its mass is that times the density
    right = _float([-math.log2(math.exp(v) / levels**D) / D for v in log_p])
    each, nat = log_p / D, math.log(2)
    yield Case(
        {"log_p": log_p, "D": D, "levels": levels},
        right,
        {
            "the width of the cells is forgotten: add log2(levels).": -each / nat,
            "these are nats; divide by log(2).": right * nat,
            "the logarithm of the density is still in nats; divide it by log(2).": 3 - each,
            "log(levels) is in nats; take log2.": math.log(8) - each / nat,
            "the sign of log p is wrong: what is likely costs few bits.": 3 + each / nat,
            "the sign of log2(levels) is wrong: finer levels cost more bits.": -3 - each / nat,
            "this is for the whole row; divide by D.": right * D,
            "log p is not divided by D; it belongs to all D numbers together.": 3 - log_p / nat,
            "log2(levels) is divided by D; each number has that many levels.": 1 - each / nat,
            "you multiply by log(2); to get bits, divide by it.": 3 - each * nat,
            "the number of levels stands there without its logarithm.": 8 - each / nat,
        },
    )
    yield Case({"log_p": _float([0, math.log(256)]), "D": 4, "levels": 256}, _float([8, 6]))


@gap("flow.bits", _bits)
def bits_per_number(log_p: Tensor, D: int, levels: int) -> Tensor:
    """``log2(levels) - log_p / (D log 2)`` for log-densities of rows of D numbers in [0, 1), in nats, ``(n,)``."""
    return math.log2(levels) - log_p / (D * math.log(2))


def fresh(gap: str, g: torch.Generator) -> dict:
    """Random arguments for a gap, in the order of its function."""
    u = lambda *shape: torch.rand(shape, generator=g)  # noqa: E731
    wide = lambda *shape: 4 * u(*shape) - 2  # noqa: E731
    n, kept, changed = torch.randint(2, 7, (3,), generator=g).tolist()
    levels = 2 ** int(torch.randint(1, 9, (), generator=g))
    match gap:
        case "flow.density":
            return {"z": wide(n), "slope": wide(n)}
        case "flow.coupling":
            return {"x": wide(n, kept + changed), "s": wide(n, changed), "t": wide(n, changed)}
        case "flow.log-det":
            return {"s": wide(n, changed)}
        case "flow.inverse":
            return {"y": wide(n, kept + changed), "s": wide(n, changed), "t": wide(n, changed)}
        case "flow.likelihood":
            return {"z": wide(n, changed), "logdets": wide(kept, n)}
        case "flow.dequantize":
            return {"k": (levels * u(n, changed)).long(), "u": u(n, changed), "levels": levels}
        case "flow.bits":
            return {"log_p": 10 * wide(n), "D": changed, "levels": levels}
