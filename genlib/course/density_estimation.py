"""The gaps of ``labs/density-estimation.ipynb``: reference answers, and the cases that judge the learner's.

The oracles are SciPy's distributions and NumPy's ``interp`` and ``histogram``. All data are one-dimensional: ``(N,)``.
"""

import math

import numpy as np
import torch
from scipy import special, stats
from torch import Tensor

from genlib.course.checks import Case, gap


def _float(x) -> Tensor:
    return torch.as_tensor(x, dtype=torch.float32)


def _inverse_cdf():
    u, rate = _float([0.1, 0.25, 0.5, 0.9]), 2.0
    yield Case(
        {"u": u, "rate": rate},
        _float(stats.expon.ppf(u, scale=1 / rate)),
        {
            "these are values at 1 - u: a larger u must give a longer wait. Solve u = 1 - exp(-rate x) for x.": (
                -u.log() / rate
            ),
            "you multiply by the rate; events that come twice as often make waits half as long.": -(1 - u).log() * rate,
            "you left the rate out.": -(1 - u).log(),
            "the sign is lost: a waiting time is never negative.": (1 - u).log() / rate,
            "this is the cdf itself, from x to u; its inverse goes from u to x.": 1 - (-rate * u).exp(),
            "this is the density; the inverse of the cdf is asked for.": rate * (-rate * u).exp(),
            "this is the logarithm to base 10; the exponential's inverse is the natural one.": -(1 - u).log10() / rate,
        },
    )
    u = _float([[0.0, 0.3, 0.6], [0.2, 0.5, 0.99]])
    yield Case({"u": u, "rate": 0.5}, _float(stats.expon.ppf(u, scale=2.0)))


@gap("density.inverse-cdf", _inverse_cdf)
def exponential_quantile(u: Tensor, rate: float) -> Tensor:
    """The inverse of ``F(x) = 1 - exp(-rate x)``, for ``u`` of any shape in [0, 1)."""
    return -torch.log1p(-u) / rate


def _table():
    x, cdf = _float([0.0, 1.0, 3.0, 4.0]), _float([0.0, 0.2, 0.7, 1.0])
    u = _float([0.1, 0.3, 0.6, 0.75, 0.9])
    left = torch.tensor([0, 1, 1, 2, 2])  # the table's row below each u, by eye
    gap_x, gap_c, above = x[left + 1] - x[left], cdf[left + 1] - cdf[left], u - cdf[left]
    yield Case(
        {"u": u, "x": x, "cdf": cdf},
        _float(np.interp(u, cdf, x)),
        {
            "you return the grid point to the left; go on from it by the share of the step that u has covered.": x[
                left
            ],
            "you return the grid point to the right; u lies between two of them.": x[left + 1],
            "you return the middle of the interval; how far u lies between the two cdf values decides.": (
                x[left] + gap_x / 2
            ),
            "the share is not multiplied by the width of the interval in x.": x[left] + above / gap_c,
            "the way from the left cdf value to u is not divided by the step of the cdf.": x[left] + above * gap_x,
            "you add u - cdf to x as it is; scale it by the slope dx / dcdf.": x[left] + above,
            "the two ends are swapped: u close to the left cdf value must give x close to the left grid point.": (
                x[left + 1] - above / gap_c * gap_x
            ),
            "this reads the table forwards, from x to cdf; exchange the two columns.": _float(np.interp(u, x, cdf)),
            "this stretches u over the range of x, and the cdf has no say.": x[0] + u * (x[-1] - x[0]),
        },
    )
    u = _float([0.0, 0.25, 1.0])
    yield Case({"u": u, "x": _float([-2.0, 0.0, 1.0]), "cdf": _float([0.0, 0.5, 1.0])}, _float([-2.0, -1.0, 1.0]))


@gap("density.table", _table)
def table_quantile(u: Tensor, x: Tensor, cdf: Tensor) -> Tensor:
    """The inverse of a cdf known at the grid points ``x``, straight lines in between."""
    right = torch.searchsorted(cdf, u).clamp(1, len(x) - 1)
    share = (u - cdf[right - 1]) / (cdf[right] - cdf[right - 1])
    return x[right - 1] + share * (x[right] - x[right - 1])


def _histogram():
    data, edges = _float([0.1, 0.5, 0.2, 0.4, 0.7, 1.1, 3.9, 1.6, 1.9, 2.5]), _float([0.0, 0.5, 1.0, 2.0, 5.0])
    counts, n, width = _float([3, 2, 3, 2]), 10, edges.diff()
    yield Case(
        {"data": data, "edges": edges},
        _float(np.histogram(data, edges, density=True)[0]),
        {
            "these are counts; divide them by n and by the width of each bin.": counts,
            "these are shares of the data and sum to one; divide by the width of each bin as well, so that the area is "
            "one.": counts / n,
            "you divide by the width but not by n, so the area is n.": counts / width,
            "you divide by n + 1; n points share the area, so divide by n.": counts / (n + 1) / width,
            "you divide by n - 1; n points share the area, so divide by n.": counts / (n - 1) / width,
            "you use the first bin's width for all of them; each bin has its own.": counts / n / width[0],
            "you use the average width for all bins; each bin has its own.": counts / n / width.mean(),
            "one common factor makes the area one here; each count needs the width of its own bin.": (
                counts / (counts * width).sum()
            ),
            "you multiply by the width; divide by it, since a wide bin spreads its points thin.": counts / n * width,
            "a point on an edge belongs to the bin on its right (0.5 is in [0.5, 1)).": _float([4, 1, 3, 2])
            / n
            / width,
        },
    )
    data, edges = _float([0.0, 1.0, 1.5, 2.0, 2.0]), _float([0.0, 1.0, 2.0])
    last = "a point on the last edge is lost; the last bin holds both of its edges."
    yield Case({"data": data, "edges": edges}, _float([0.2, 0.8]), {last: _float([0.2, 0.4])})


@gap("density.histogram", _histogram)
def bin_heights(data: Tensor, edges: Tensor) -> Tensor:
    """The heights of a histogram that integrates to one; bins are [left, right), the last one [left, right]."""
    bins = (torch.searchsorted(edges, data, right=True) - 1).clamp(max=len(edges) - 2)
    counts = torch.bincount(bins, minlength=len(edges) - 1)
    return counts / len(data) / edges.diff()


def _kde():
    x, data, h = _float([0.0, 1.0, 2.5]), _float([0.0, 2.0, 3.0, 3.5]), 0.4
    n, d = len(data), x[:, None] - data
    kernel = lambda z: _float(stats.norm.pdf(z))  # noqa: E731
    yield Case(
        {"x": x, "data": data, "h": h},
        _float(stats.norm.pdf(x[:, None], data, h).mean(1)),
        {
            "you divide by h but not by n: sum over the data where a mean is due, so the area is n.": (
                kernel(d / h).sum(1) / h
            ),
            "you divide by n but not by h: a kernel h times as wide must be 1/h times as high.": kernel(d / h).mean(1),
            "both 1/n and 1/h are missing.": kernel(d / h).sum(1),
            "you divide by h twice.": kernel(d / h).mean(1) / h**2,
            "you multiply by h; divide by it.": kernel(d / h).mean(1) * h,
            "you divide by n + 1; there are n kernels.": kernel(d / h).sum(1) / h / (n + 1),
            "you divide by n - 1; there are n kernels.": kernel(d / h).sum(1) / h / (n - 1),
            "the normal density's constant 1 / sqrt(2 pi) is missing.": kernel(d / h).mean(1)
            / h
            * math.sqrt(2 * math.pi),
            "the exponent lacks its 1/2: the kernel is exp(-z^2 / 2).": kernel(d / h * math.sqrt(2)).mean(1) / h,
            "h stands in the exponent unsquared: z = (x - x_i) / h is squared as a whole.": (
                kernel(d / math.sqrt(h)).mean(1) / h
            ),
            "the distance is not divided by h before the kernel.": kernel(d).mean(1) / h,
            "this is the logarithm of the density; the density is asked for.": _float(
                np.log(stats.norm.pdf(x[:, None], data, h).mean(1))
            ),
        },
    )
    x, data, h = _float([-3.0, -1.0, 0.0, 0.5, 8.0]), _float([-1.0, 1.0]), 2.0
    yield Case({"x": x, "data": data, "h": h}, _float(stats.norm.pdf(x[:, None], data, h).mean(1)))


@gap("density.kde", _kde)
def kernel_density(x: Tensor, data: Tensor, h: float) -> Tensor:
    """The Gaussian kernel density estimate of bandwidth ``h`` at each ``x``."""
    z = (x[:, None] - data) / h
    return torch.exp(-(z**2) / 2).mean(1) / (h * math.sqrt(2 * math.pi))


def _score(data, h, own=0.0) -> np.ndarray:
    """Each point's density from the other points, or with its ``own`` kernel as well, in log by SciPy; shape (N,)."""
    data = np.asarray(data, dtype=float)
    log_kernel = stats.norm.logpdf(data[:, None], data, h)
    weight = np.where(np.eye(len(data), dtype=bool), own, 1.0)
    return special.logsumexp(log_kernel, axis=1, b=weight) - math.log(len(data) - 1 + own)


def _leave_one_out():
    data, h = _float([0.0, 0.3, 1.0, 2.0, 2.2]), 0.4
    n, left_out, with_self = len(data), _score(data, h), _score(data, h, own=1.0)
    yield Case(
        {"data": data, "h": h},
        _float(left_out.mean()),
        {
            "each point still helps to predict itself: this is the likelihood of the training data, and it rewards "
            "ever smaller h. Leave the point's own kernel out.": _float(with_self.mean()),
            "each point still helps to predict itself, although you divide by n - 1.": _float(
                with_self.mean() + math.log(n / (n - 1))
            ),
            "with one point left out there are n - 1 kernels; you divide by n.": _float(
                left_out.mean() + math.log((n - 1) / n)
            ),
            "with one point left out there are n - 1 kernels; you do not divide by their number.": _float(
                left_out.mean() + math.log(n - 1)
            ),
            "this is the sum over the points; take the mean.": _float(left_out.sum()),
            "the sign is turned: this is the negative log-likelihood.": _float(-left_out.mean()),
            "this is the log of the mean density; take the log of each, then the mean.": _float(
                np.log(np.exp(left_out).mean())
            ),
            "the logarithm is missing.": _float(np.exp(left_out).mean()),
            "the kernel's 1/h is missing: without it, a wide kernel costs nothing.": _float(
                left_out.mean() + math.log(h)
            ),
            "the kernel's constant 1 / sqrt(2 pi) is missing.": _float(left_out.mean() + math.log(2 * math.pi) / 2),
        },
    )
    data = _float([0.0, 0.2, 0.5, 60.0])
    zero = (
        "the point at 60 is so far from the rest that its density becomes 0 in floating point, and log 0 is -inf. Stay "
        "in logarithms: torch.logsumexp adds kernels without leaving them."
    )
    yield Case({"data": data, "h": 0.5}, _float(_score(data, 0.5).mean()), {zero: _float(-math.inf)})


@gap("density.leave-one-out", _leave_one_out)
def left_out_score(data: Tensor, h: float) -> Tensor:
    """The mean log-density, in nats, that the KDE of the other points gives to each point."""
    n = len(data)
    log_kernel = -(((data[:, None] - data) / h) ** 2) / 2 - math.log(h * math.sqrt(2 * math.pi))
    log_kernel = log_kernel.masked_fill(torch.eye(n, dtype=torch.bool), -math.inf)
    return (torch.logsumexp(log_kernel, 1) - math.log(n - 1)).mean()


def _bandwidth():
    data = _float([-1.2, -1.0, -0.7, -0.6, 0.9, 1.1, 1.2, 1.6])
    candidates = [0.9, 0.14, 0.3, 20.0]
    left_out = np.array([_score(data, h).mean() for h in candidates])
    with_self = np.array([_score(data, h, own=1.0).mean() for h in candidates])
    yield Case(
        {"data": data, "candidates": _float(candidates)},
        _float(candidates[left_out.argmax()]),
        {
            "you return the place of the best candidate; return the candidate itself.": _float(left_out.argmax()),
            "this candidate is best on its own training data; score each with the left-out points.": (
                _float(candidates[with_self.argmax()])
            ),
            "this candidate has the lowest score of all; the best is the highest.": (
                _float(candidates[left_out.argmin()])
            ),
            "you return the best score; return the candidate that reaches it.": _float(left_out.max()),
            "you return the first candidate, not the best.": _float(candidates[0]),
        },
    )
    candidates = [0.1, 0.5, 4.0]
    best = max(candidates, key=lambda h: _score(data, h).mean())
    yield Case({"data": data, "candidates": _float(candidates)}, _float(best))


@gap("density.bandwidth", _bandwidth)
def best_bandwidth(data: Tensor, candidates: Tensor) -> Tensor:
    """The candidate with the highest left-out score."""
    scores = torch.stack([left_out_score(data, h) for h in candidates.tolist()])
    return candidates[scores.argmax()]


def _sample():
    data, h = _float([10.0, 20.0, 40.0]), 0.5
    index, noise = torch.tensor([2, 0, 0, 1, 2]), _float([-1.5, 0.2, 1.0, -0.4, 3.0])
    arguments = {"data": data, "h": h, "index": index, "noise": noise}
    chosen = _float([40.0, 10.0, 10.0, 20.0, 40.0])
    yield Case(
        arguments,
        _float([39.25, 10.1, 10.5, 19.8, 41.5]),
        {
            "the noise is not scaled: its standard deviation must be h.": chosen + noise,
            "these are data points again: the noise is missing.": chosen,
            "this is noise around 0: add the data points that index names.": h * noise,
            "you scale by h squared, the variance; noise is scaled by the standard deviation h.": chosen + h**2 * noise,
            "you scale by the square root of h; h is a standard deviation already.": chosen + h**0.5 * noise,
            "you divide the noise by h; multiply.": chosen + noise / h,
            "the noise is taken off; add it.": chosen - h * noise,
            "you add the noise to the index; add it to the data points that the index names.": index + h * noise,
        },
    )


@gap("density.sample", _sample)
def kde_draw(data: Tensor, h: float, index: Tensor, noise: Tensor) -> Tensor:
    """Draws from a KDE: the data points at ``index``, each moved by its standard normal ``noise`` times ``h``."""
    return data[index] + h * noise


def fresh(gap: str, g: torch.Generator) -> dict:
    """Random arguments for a gap, in the order of its function."""
    u = lambda *shape: torch.rand(shape, generator=g)  # noqa: E731
    n, m = torch.randint(4, 9, (2,), generator=g).tolist()
    x, data, h = 6 * u(m) - 3, 4 * u(n) - 2, 0.3 + u().item()
    grid, table = (0.2 + u(n)).cumsum(0) - 2, (0.2 + u(n)).cumsum(0)
    match gap:
        case "density.inverse-cdf":
            return {"u": 0.05 + 0.9 * u(2, m), "rate": h}
        case "density.table":
            return {"u": u(m), "x": grid, "cdf": (table - table[0]) / (table[-1] - table[0])}
        case "density.histogram":
            return {"data": grid[0] + (grid[-1] - grid[0]) * u(4 * n), "edges": grid}
        case "density.kde":
            return {"x": x, "data": data, "h": h}
        case "density.leave-one-out":
            return {"data": data, "h": h}
        case "density.bandwidth":
            shuffled = torch.tensor([0.1, 0.3, 0.9, 2.7])[torch.randperm(4, generator=g)]
            return {"data": data, "candidates": shuffled * (0.7 + 0.6 * u(4))}
        case "density.sample":
            index = torch.randint(n, (m,), generator=g)
            return {"data": data, "h": h, "index": index, "noise": torch.randn(m, generator=g)}
