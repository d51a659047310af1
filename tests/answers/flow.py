"""Answers to the gaps of ``labs/normalizing-flow.ipynb``: wrong ones with words of their message, and right ones."""

import math

import torch
from torch.distributions import Normal

LOG2, HALF = math.log(2), math.log(2 * math.pi) / 2
NORMAL = Normal(0.0, 1.0)


def _density(z, slope):
    return NORMAL.log_prob(z) + slope.abs().log()


def _with(change, last=True):
    """A coupling that puts ``change(b, s, t)`` in the place of the last numbers b, or of the first."""

    def answer(x, s, t):
        d = x.shape[1] - s.shape[1]
        a, b = x[:, :d], x[:, d:]
        return torch.cat([a, change(b, s, t)] if last else [change(a, s, t), b], 1)

    return answer


def _forward(b, s, t):
    return s.exp() * b + t


def _back(b, s, t):
    return (b - t) / s.exp()


def _swapped(change):
    def answer(x, s, t):
        d = x.shape[1] - s.shape[1]
        return torch.cat([change(x[:, d:], s, t), x[:, :d]], 1)

    return answer


def _whole(change):
    return lambda x, s, t: change(x, torch.cat([s, s], 1), torch.cat([t, t], 1))


def _middle(change):
    def answer(x, s, t):
        d = x.shape[1] // 2
        return torch.cat([x[:, :d], change(x[:, d:], s, t)], 1)

    return answer


def _of_the_first(x, s, t):
    a = x[:, : x.shape[1] - s.shape[1]]
    return torch.cat([a, s.exp() * a + t], 1)


def _padded(x, s, t):
    keep = torch.zeros(len(x), x.shape[1] - s.shape[1])
    return x * torch.cat([keep, s], 1).exp() + torch.cat([keep, t], 1)


def _in_place(y, s, t):
    x, d = y.clone(), y.shape[1] - s.shape[1]
    for j in range(s.shape[1]):
        x[:, d + j] = (y[:, d + j] - t[:, j]) / s[:, j].exp()
    return x


def _of_the_jacobian(s):
    return torch.stack([torch.linalg.slogdet(row.exp().diag())[1] for row in s])


def _normal(z):
    return NORMAL.log_prob(z).sum(1)


def _row_by_row(z, logdets):
    return torch.stack([NORMAL.log_prob(row).sum() + column.sum() for row, column in zip(z, logdets.T, strict=True)])


OTHERS = {
    "flow.density": lambda z, slope: (NORMAL.log_prob(z).exp() * (slope**2).sqrt()).log(),
    "flow.coupling": _padded,
    "flow.log-det": _of_the_jacobian,
    "flow.inverse": _in_place,
    "flow.likelihood": _row_by_row,
    "flow.dequantize": lambda k, u, levels: torch.lerp(k / levels, (k + 1) / levels, u),
    "flow.bits": lambda log_p, D, levels: (D * math.log(levels) - log_p) / D / LOG2,
}

MISTAKES = {
    "flow.density": [
        (lambda z, slope: NORMAL.log_prob(z), "slope has no say"),
        (lambda z, slope: NORMAL.log_prob(z) - slope.abs().log(), "is subtracted: a steep"),
        (lambda z, slope: NORMAL.log_prob(z) + slope.abs(), "slope is added"),
        (lambda z, slope: NORMAL.log_prob(z) * slope.abs(), "multiplied by the slope"),
        (lambda z, slope: _density(z, slope).exp(), "this is the density"),
        (lambda z, slope: -_density(z, slope), "this is a loss"),
        (lambda z, slope: -(z**2) / 2 + slope.abs().log(), "log(2 pi) / 2 is missing"),
        (lambda z, slope: -(z**2) / 2 - 2 * HALF + slope.abs().log(), "you subtract log(2 pi)"),
        (lambda z, slope: -(z**2) - HALF + slope.abs().log(), "not z^2"),
        (lambda z, slope: z**2 / 2 - HALF + slope.abs().log(), "sign of z^2 / 2"),
        (lambda z, slope: NORMAL.log_prob(z) + (slope**2).log(), "slope is squared"),
        (lambda z, slope: _density(z, slope) / LOG2, "this is in bits"),
        (lambda z, slope: NORMAL.log_prob(z) + slope.log(), "2 of 3 values are NaN"),
        (lambda z, slope: NORMAL.log_prob(z) + slope.clamp_min(1e-6).log(), "positive but tiny"),
        (lambda z, slope: _density(z, slope).sum(), "shape is (), expected (3,)"),
    ],
    "flow.coupling": [
        (_with(lambda b, s, t: s * b + t), "not by s"),
        (_with(lambda b, s, t: s.exp() * (b + t)), "before the scaling"),
        (_with(lambda b, s, t: b / s.exp() + t), "not exp(-s)"),
        (_with(lambda b, s, t: s.exp() * b), "t is missing"),
        (_with(lambda b, s, t: s.exp() * b - t), "t is subtracted"),
        (_with(lambda b, s, t: b + t), "scale is missing"),
        (_with(_forward, last=False), "the first numbers are changed; they"),
        (_swapped(_forward), "have changed places"),
        (_whole(_forward), "changed too"),
        (_of_the_first, "computed from the first"),
        (_middle(_forward), "s.shape[1] says how many"),
        (lambda x, s, t: _forward(x[:, x.shape[1] - s.shape[1] :], s, t), "shape is (2, 2), expected (2, 4)"),
        (_forward, "RuntimeError"),
    ],
    "flow.log-det": [
        (lambda s: s.mean(1), "this is the mean"),
        (lambda s: -s.sum(1), "the sign is wrong"),
        (lambda s: s.exp().sum(1), "you add up the scales"),
        (lambda s: s.exp().prod(1), "this is the determinant"),
        (lambda s: s.prod(1), "you multiply the entries"),
        (lambda s: s.abs().sum(1), "positive already"),
        (lambda s: s.sum(0), "runs over the batch"),
        (lambda s: s[:, 0], "one number of each row"),
        (lambda s: s.sum().expand(len(s)), "for the whole batch"),
        (lambda s: s.logsumexp(1), "logarithm of a sum"),
        (lambda s: s.sum(), "shape is (), expected (3,)"),
        (lambda s: s.exp().log(), "shape is (3, 3), expected (3,)"),
    ],
    "flow.inverse": [
        (_with(_forward), "the coupling itself"),
        (_with(lambda b, s, t: b / s.exp() - t), "before t"),
        (_with(lambda b, s, t: (b - t) * s.exp()), "and then you scale"),
        (_with(lambda b, s, t: (b + t) / s.exp()), "t is added"),
        (_with(lambda b, s, t: (b - t) / s), "you divide by s"),
        (_with(lambda b, s, t: b / s.exp()), "t is still in it"),
        (_with(lambda b, s, t: b - t), "scale is still in it"),
        (_with(_back, last=False), "the first numbers are changed; they"),
        (_swapped(_back), "have changed places"),
        (_whole(_back), "changed too"),
        (_middle(_back), "s.shape[1] says how many"),
        (_back, "RuntimeError"),
    ],
    "flow.likelihood": [
        (lambda z, logdets: _normal(z), "log-determinants are missing"),
        (lambda z, logdets: _normal(z) - logdets.sum(0), "are subtracted"),
        (lambda z, logdets: _normal(z) + logdets[-1], "last layer's"),
        (lambda z, logdets: _normal(z) + logdets.mean(0), "mean over the layers"),
        (lambda z, logdets: _normal(z) + logdets.sum(1), "a row for each layer"),
        (lambda z, logdets: -(z**2).sum(1) / 2 - HALF + logdets.sum(0), "not once in all"),
        (lambda z, logdets: -(z**2).sum(1) / 2 + logdets.sum(0), "/ 2 are missing"),
        (lambda z, logdets: -(z**2 / 2 + 2 * HALF).sum(1) + logdets.sum(0), "comes D times"),
        (lambda z, logdets: NORMAL.log_prob(z).mean(1) + logdets.sum(0), "mean over the D numbers"),
        (lambda z, logdets: -(z**2 + HALF).sum(1) + logdets.sum(0), "not z^2"),
        (lambda z, logdets: -_normal(z) - logdets.sum(0), "this is a loss"),
        (lambda z, logdets: (_normal(z) + logdets.sum(0)).mean(), "shape is (), expected (2,)"),
        (lambda z, logdets: NORMAL.log_prob(z) + logdets.sum(0), "RuntimeError"),
    ],
    "flow.dequantize": [
        (lambda k, u, levels: k / levels, "no noise in it"),
        (lambda k, u, levels: k / levels + u, "it covers many cells"),
        (lambda k, u, levels: k + u / levels, "k is not divided"),
        (lambda k, u, levels: k + u, "y should lie in [0, 1): divide"),
        (lambda k, u, levels: (k + u) / (levels - 1), "not by levels - 1"),
        (lambda k, u, levels: k / (levels - 1) + u / levels, "a cell is 1 / levels wide"),
        (lambda k, u, levels: (k + u - 0.5) / levels, "noise is centred"),
        (lambda k, u, levels: (k - u) / levels, "noise is subtracted"),
        (lambda k, u, levels: u / levels, "noise alone"),
        (lambda k, u, levels: (k + u).long() // levels, "dtype is torch.int64"),
    ],
    "flow.bits": [
        (lambda log_p, D, levels: -log_p / (D * LOG2), "width of the cells"),
        (lambda log_p, D, levels: math.log(levels) - log_p / D, "these are nats"),
        (lambda log_p, D, levels: math.log2(levels) - log_p / D, "still in nats"),
        (lambda log_p, D, levels: math.log(levels) - log_p / (D * LOG2), "take log2"),
        (lambda log_p, D, levels: math.log2(levels) + log_p / (D * LOG2), "sign of log p"),
        (lambda log_p, D, levels: -math.log2(levels) - log_p / (D * LOG2), "sign of log2(levels)"),
        (lambda log_p, D, levels: D * math.log2(levels) - log_p / LOG2, "for the whole row"),
        (lambda log_p, D, levels: math.log2(levels) - log_p / LOG2, "log p is not divided by D"),
        (lambda log_p, D, levels: math.log2(levels) / D - log_p / (D * LOG2), "log2(levels) is divided"),
        (lambda log_p, D, levels: math.log2(levels) - log_p * LOG2 / D, "you multiply by log(2)"),
        (lambda log_p, D, levels: levels - log_p / (D * LOG2), "without its logarithm"),
        (lambda log_p, D, levels: (math.log2(levels) - log_p / (D * LOG2)).mean(), "shape is (), expected (3,)"),
    ],
}
