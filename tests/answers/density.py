"""What learners write in the lab on density estimation: plausible mistakes, each with words of its message."""

import functools
import math

import numpy as np
import torch

ROOT2PI = math.sqrt(2 * math.pi)


def _bins(data, edges):
    return (torch.searchsorted(edges, data, right=True) - 1).clamp(max=len(edges) - 2)


def _counts(data, edges):
    return torch.bincount(_bins(data, edges), minlength=len(edges) - 1)


def _right(u, x, cdf):
    return torch.searchsorted(cdf, u).clamp(1, len(x) - 1)


def _share(u, x, cdf):
    r = _right(u, x, cdf)
    return (u - cdf[r - 1]) / (cdf[r] - cdf[r - 1])


def _kernel(x, data, h):
    return torch.exp(-(((x[:, None] - data) / h) ** 2) / 2)


def _log_kernel(data, h, left_out=True):
    log_kernel = -(((data[:, None] - data) / h) ** 2) / 2 - math.log(h * ROOT2PI)
    return log_kernel.masked_fill(torch.eye(len(data), dtype=torch.bool), -math.inf) if left_out else log_kernel


def _score(data, h):
    return _log_kernel(data, h).logsumexp(1).mean() - math.log(len(data) - 1)


def _scores(data, candidates):
    return torch.stack([_score(data, h) for h in candidates.tolist()])


MISTAKES = {
    "density.inverse-cdf": [
        (lambda u, rate: -u.log() / rate, "at 1 - u"),
        (lambda u, rate: -(1 - u).log() * rate, "multiply by the rate"),
        (lambda u, rate: -(1 - u).log(), "rate out"),
        (lambda u, rate: (1 - u).log() / rate, "sign"),
        (lambda u, rate: 1 - (-rate * u).exp(), "cdf itself"),
        (lambda u, rate: rate * (-rate * u).exp(), "density"),
        (lambda u, rate: -(1 - u).log10() / rate, "base 10"),
        (lambda u, rate: -3 * (1 - u).log() / rate, "3 times the expected"),
    ],
    "density.table": [
        (lambda u, x, cdf: x[_right(u, x, cdf) - 1], "grid point to the left"),
        (lambda u, x, cdf: x[_right(u, x, cdf)], "grid point to the right"),
        (lambda u, x, cdf: (x[_right(u, x, cdf) - 1] + x[_right(u, x, cdf)]) / 2, "middle of the interval"),
        (lambda u, x, cdf: x[_right(u, x, cdf) - 1] + _share(u, x, cdf), "not multiplied by the width"),
        (lambda u, x, cdf: x[_right(u, x, cdf) - 1] + u - cdf[_right(u, x, cdf) - 1], "as it is"),
        (
            lambda u, x, cdf: x[(r := _right(u, x, cdf)) - 1] + (u - cdf[r - 1]) * (x[r] - x[r - 1]),
            "not divided by the step",
        ),
        (lambda u, x, cdf: torch.lerp(x[(r := _right(u, x, cdf))], x[r - 1], _share(u, x, cdf)), "ends are swapped"),
        (lambda u, x, cdf: torch.from_numpy(np.interp(u, x, cdf)).float(), "forwards"),
        (lambda u, x, cdf: x[0] + u * (x[-1] - x[0]), "no say"),
        (lambda u, x, cdf: x[torch.searchsorted(cdf, u, right=True) + 1], "IndexError"),
    ],
    "density.histogram": [
        (lambda d, e: _counts(d, e), "these are counts"),
        (lambda d, e: _counts(d, e).float(), "these are counts"),
        (lambda d, e: _counts(d, e) / len(d), "shares of the data"),
        (lambda d, e: _counts(d, e) / e.diff(), "not by n"),
        (lambda d, e: _counts(d, e) / (len(d) + 1) / e.diff(), "n + 1"),
        (lambda d, e: _counts(d, e) / (len(d) - 1) / e.diff(), "n - 1"),
        (lambda d, e: _counts(d, e) / len(d) / (e[1] - e[0]), "first bin's width"),
        (lambda d, e: _counts(d, e) / len(d) / e.diff().mean(), "average width"),
        (lambda d, e: _counts(d, e) / (_counts(d, e) * e.diff()).sum(), "common factor"),
        (lambda d, e: _counts(d, e) / len(d) * e.diff(), "multiply by the width"),
        (
            lambda d, e: (
                torch.bincount((torch.searchsorted(e, d) - 1).clamp(0), minlength=len(e) - 1) / len(d) / e.diff()
            ),
            "on its right",
        ),
        (lambda d, e: ((d >= e[:-1, None]) & (d < e[1:, None])).float().mean(1) / e.diff(), "last edge"),
    ],
    "density.kde": [
        (lambda x, d, h: _kernel(x, d, h).sum(1) / (h * ROOT2PI), "not by n"),
        (lambda x, d, h: _kernel(x, d, h).mean(1) / ROOT2PI, "not by h"),
        (lambda x, d, h: _kernel(x, d, h).sum(1) / ROOT2PI, "both 1/n and 1/h"),
        (lambda x, d, h: _kernel(x, d, h).mean(1) / h**2 / ROOT2PI, "h twice"),
        (lambda x, d, h: _kernel(x, d, h).mean(1) * h / ROOT2PI, "multiply by h"),
        (lambda x, d, h: _kernel(x, d, h).sum(1) / (len(d) + 1) / (h * ROOT2PI), "n + 1"),
        (lambda x, d, h: _kernel(x, d, h).sum(1) / (len(d) - 1) / (h * ROOT2PI), "n - 1"),
        (lambda x, d, h: _kernel(x, d, h).mean(1) / h, "sqrt(2 pi)"),
        (lambda x, d, h: (_kernel(x, d, h) ** 2).mean(1) / (h * ROOT2PI), "lacks its 1/2"),
        (lambda x, d, h: _kernel(x, d, h**0.5).mean(1) / (h * ROOT2PI), "unsquared"),
        (lambda x, d, h: _kernel(x, d, 1.0).mean(1) / (h * ROOT2PI), "not divided by h before"),
        (lambda x, d, h: (_kernel(x, d, h).mean(1) / (h * ROOT2PI)).log(), "logarithm of the density"),
        (lambda x, d, h: _kernel(x, d, h).mean(0) / (h * ROOT2PI), "shape is (4,), expected (3,)"),
    ],
    "density.leave-one-out": [
        (lambda d, h: _log_kernel(d, h, False).logsumexp(1).mean() - math.log(len(d)), "training data"),
        (lambda d, h: _log_kernel(d, h, False).logsumexp(1).mean() - math.log(len(d) - 1), "although you divide"),
        (lambda d, h: _log_kernel(d, h).logsumexp(1).mean() - math.log(len(d)), "you divide by n."),
        (lambda d, h: _log_kernel(d, h).logsumexp(1).mean(), "do not divide by their number"),
        (lambda d, h: _score(d, h) * len(d), "sum over the points"),
        (lambda d, h: -_score(d, h), "negative log-likelihood"),
        (lambda d, h: (_log_kernel(d, h).logsumexp(1).exp().mean() / (len(d) - 1)).log(), "log of the mean"),
        (lambda d, h: _log_kernel(d, h).logsumexp(1).exp().mean() / (len(d) - 1), "logarithm is missing"),
        (lambda d, h: _score(d, h) + math.log(h), "1/h is missing"),
        (lambda d, h: _score(d, h) + math.log(ROOT2PI), "sqrt(2 pi)"),
        (lambda d, h: (_log_kernel(d, h).exp().sum(1) / (len(d) - 1)).log().mean(), "logsumexp"),
        (lambda d, h: _log_kernel(d, h).logsumexp(1) - math.log(len(d) - 1), "shape is (5,), expected ()"),
    ],
    "density.bandwidth": [
        (lambda d, c: _scores(d, c).argmax(), "the place of the best"),
        (lambda d, c: int(_scores(d, c).argmax()), "the place of the best"),
        (
            lambda d, c: c[torch.stack([_log_kernel(d, h, False).logsumexp(1).mean() for h in c.tolist()]).argmax()],
            "own training data",
        ),
        (lambda d, c: c[_scores(d, c).argmin()], "lowest score"),
        (lambda d, c: _scores(d, c).max(), "best score"),
        (lambda d, c: c[0], "first candidate"),
        (lambda d, c: _scores(d, c), "shape is (4,), expected ()"),
    ],
    "density.sample": [
        (lambda d, h, i, z: d[i] + z, "not scaled"),
        (lambda d, h, i, z: d[i], "noise is missing"),
        (lambda d, h, i, z: h * z, "around 0"),
        (lambda d, h, i, z: d[i] + h**2 * z, "h squared"),
        (lambda d, h, i, z: d[i] + h**0.5 * z, "square root"),
        (lambda d, h, i, z: d[i] + z / h, "divide the noise"),
        (lambda d, h, i, z: d[i] - h * z, "taken off"),
        (lambda d, h, i, z: i + h * z, "to the index"),
        (lambda d, h, i, z: d + h * z, "RuntimeError"),
    ],
}


def _by_loop(x, data, h):
    return torch.stack([torch.distributions.Normal(data, h).log_prob(v).exp().mean() for v in x])


def _by_leaving_out(data, h):
    scores = []
    for i in range(len(data)):
        rest = torch.cat([data[:i], data[i + 1 :]])
        scores.append(torch.distributions.Normal(rest, h).log_prob(data[i]).logsumexp(0) - math.log(len(rest)))
    return sum(scores).item() / len(data)


OTHERS = {  # right answers written in other ways
    "density.inverse-cdf": lambda u, rate: torch.log(1 / (1 - u)) / rate,
    "density.table": lambda u, x, cdf: torch.from_numpy(np.interp(u, cdf, x)).float(),
    "density.histogram": lambda data, edges: torch.histogram(data, edges, density=True).hist,
    "density.kde": _by_loop,
    "density.leave-one-out": _by_leaving_out,
    "density.sample": functools.partial(lambda scale, d, h, i, z: d[i] + scale * z * h, 1.0),
}
