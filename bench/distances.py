"""Distances between two sets of samples, beside dcor, POT, SciPy and scikit-learn."""

import numpy as np
import torch
from scipy import stats
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from sklearn.metrics.pairwise import rbf_kernel

from bench import Case
from genlib import metrics


def pair(d: int, n: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray, np.ndarray]:
    """Two samples of unit normals half a unit apart in each column: as tensors, and as arrays."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((n, d)), rng.standard_normal((n, d)) + 0.5
    return torch.from_numpy(x), torch.from_numpy(y), x, y


def means(distance, x, y):
    """``2 E|X - Y| - E|X - X'| - E|Y - Y'|``, each mean over a whole matrix of distances."""
    return 2 * distance(x, y).mean() - distance(x, x).mean() - distance(y, y).mean()


def energy(d: int, n: int) -> Case:
    x, y, a, b = pair(d, n)

    def peer():
        import dcor

        return dcor.energy_distance(a, b)

    runs = {
        "genlib": lambda: metrics.energy_distance(x, y),
        "plain torch": lambda: means(torch.cdist, x, y),
        "dcor": peer,
    }
    if d == 1:
        runs["SciPy"] = lambda: stats.energy_distance(a[:, 0], b[:, 0]) ** 2
        remark = "In one dimension sorting is enough, and SciPy sorts. The others take all pairs."
    else:
        runs["SciPy, cdist"] = lambda: means(cdist, a, b)
        remark = (
            "Genlib takes each pair once and holds a block of rows, where the others hold whole matrices. Most of "
            "dcor's time goes into its own distances, so the same three means of SciPy's `cdist` stand beside it."
        )
    return Case(f"Energy distance, {n:,} by {n:,}, $d={d}$", runs, lambda: means(cdist, a, b), 1e-8, remark)


def two_sample_test(d: int, n: int, permutations: int = 199) -> Case:
    x, y, a, b = pair(d, n)
    both = torch.cat([x, y])

    def plain():
        distance = torch.cdist(both, both)

        def statistic(order):
            shuffled = distance[order][:, order]
            return 2 * shuffled[:n, n:].mean() - shuffled[:n, :n].mean() - shuffled[n:, n:].mean()

        observed = statistic(torch.arange(2 * n))
        larger = sum(float(statistic(torch.randperm(2 * n)) >= observed) for _ in range(permutations))
        return (1 + larger) / (1 + permutations)

    def peer():
        import dcor

        return dcor.homogeneity.energy_test(a, b, num_resamples=permutations, random_state=0).pvalue

    runs = {
        "genlib": lambda: metrics.two_sample_test(x, y, permutations, torch.Generator().manual_seed(0)),
        "plain torch": plain,
        "dcor": peer,
    }
    remark = "Genlib takes all shuffles in one matrix product. The samples differ: each p-value is the least one."
    what = f"Two-sample test, {n:,} by {n:,}, $d={d}$, {permutations} shuffles"
    return Case(what, runs, lambda: 1 / (1 + permutations), 1e-12, remark)


def mmd(d: int, n: int) -> Case:
    x, y, a, b = pair(d, n)

    def minus(kernel, x, y):
        return -means(kernel, x, y)

    return Case(
        f"MMD, {n:,} by {n:,}, $d={d}$",
        {
            "genlib": lambda: metrics.mmd(x, y, 1.0),
            "plain torch": lambda: minus(lambda u, v: (-torch.cdist(u, v).square() / 2).exp(), x, y),
            "scikit-learn": lambda: minus(lambda u, v: rbf_kernel(u, v, gamma=0.5), a, b),
        },
        lambda: minus(lambda u, v: np.exp(-cdist(u, v, "sqeuclidean") / 2), a, b),
        1e-9,
    )


def wasserstein(d: int, n: int) -> Case:
    x, y, a, b = pair(d, n)

    def matched():
        distance = torch.cdist(x, y)
        return distance[linear_sum_assignment(distance)].mean()

    def peer():
        import ot

        return ot.wasserstein_1d(a[:, 0], b[:, 0]) if d == 1 else ot.emd2([], [], ot.dist(a, b, "euclidean"))

    runs = {
        "genlib": lambda: metrics.wasserstein(x, y),
        "plain torch": (lambda: (x.sort(0)[0] - y.sort(0)[0]).abs().mean()) if d == 1 else matched,
        "POT": peer,
    }
    if d == 1:
        runs["SciPy"] = lambda: stats.wasserstein_distance(a[:, 0], b[:, 0])
        truth = lambda: np.abs(np.sort(a, 0) - np.sort(b, 0)).mean()  # noqa: E731
        remark = (
            "The samples may differ in size, so genlib also sorts the levels at which either quantile function jumps. "
            "Plain torch, as written here, needs samples of the same size."
        )
    else:
        distance = cdist(a, b)
        truth = lambda: distance[linear_sum_assignment(distance)].mean()  # noqa: E731
        remark = "Genlib and plain torch match rows with SciPy's assignment, POT solves a network flow in C++."
    return Case(f"Wasserstein distance, {n:,} by {n:,}, $d={d}$", runs, truth, 1e-9, remark)


def cases(small: bool = False):
    n = 100 if small else 2_000
    yield energy(2, n)
    yield energy(1, n)
    yield two_sample_test(2, 200 if small else 500)
    yield mmd(2, n)
    yield wasserstein(2, 100 if small else 500)
    yield wasserstein(1, 100 if small else 10_000)
