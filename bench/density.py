"""Densities: kernels and nearest neighbours, beside scikit-learn and SciPy."""

import math

import numpy as np
import torch
from scipy.spatial import cKDTree
from scipy.special import logsumexp
from scipy.stats import gaussian_kde
from sklearn.neighbors import KernelDensity, NearestNeighbors

from bench import Case
from genlib.models.density import KDE, KNN


def normals(d: int, queries: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((queries, d)), rng.standard_normal((rows, d))


def scipy_kde(points: np.ndarray, h: float):
    """SciPy's kernel has the shape of the data's covariance; replacing it gives the isotropic one of width h."""
    kde = gaussian_kde(points.T)
    kde.covariance = h**2 * np.eye(points.shape[1])
    kde.cho_cov = h * np.eye(points.shape[1])
    return kde


def kde(d: int, h: float, queries: int, rows: int) -> Case:
    query, points = normals(d, queries, rows)
    q, x = torch.from_numpy(query), torch.from_numpy(points)
    scale = math.log(rows) + d * math.log(h) + d / 2 * math.log(2 * math.pi)
    ours, scipys = KDE(h).fit(x), scipy_kde(points, h)
    sklearns = KernelDensity(bandwidth=h).fit(points)

    def direct():
        exponents = np.stack([-np.square(row - points).sum(1) / (2 * h**2) for row in query[:50]])
        return logsumexp(exponents, 1) - scale

    runs = {
        "genlib": lambda: ours.log_prob(q),
        "plain torch": lambda: (torch.cdist(q, x).square() / (-2 * h * h)).logsumexp(1) - scale,
        "scikit-learn": lambda: sklearns.score_samples(query),
        "SciPy": lambda: scipys.logpdf(query.T),
    }
    remark, known = "", ()
    if d > 10:
        leaf = KernelDensity(bandwidth=h, leaf_size=rows).fit(points)
        runs["scikit-learn, one leaf"] = lambda: leaf.score_samples(query)
        known = ("scikit-learn",)
        remark = (
            "Scikit-learn's tree gives wrong densities in many dimensions. "
            "With a single leaf (`leaf_size` as large as the data) it uses no tree, and is right."
        )
    return Case(f"Kernel density, {queries:,} rows on {rows:,} points, $d={d}$", runs, direct, 1e-11, remark, known)


def knn(d: int, queries: int, rows: int, k: int = 10) -> Case:
    query, points = normals(d, queries, rows)
    q, x = torch.from_numpy(query), torch.from_numpy(points)
    scale = math.log(k / rows) - d / 2 * math.log(math.pi) + math.lgamma(d / 2 + 1)
    ours, neighbours = KNN(k).fit(x), NearestNeighbors(n_neighbors=k).fit(points)

    def direct():
        return scale - d * np.log([np.sort(np.linalg.norm(row - points, axis=1))[k - 1] for row in query[:50]])

    runs = {
        "genlib": lambda: ours.log_prob(q),
        "plain torch": lambda: scale - d * torch.cdist(q, x).topk(k, largest=False)[0][:, -1].log(),
        "scikit-learn": lambda: scale - d * np.log(neighbours.kneighbors(query)[0][:, -1]),
    }
    remark = "Beyond ten dimensions a matrix product finds the neighbours and differences measure them."
    if d <= 10:
        tree = cKDTree(points)
        runs["SciPy"] = lambda: scale - d * np.log(tree.query(query, [k])[0][:, 0])
        remark = "Genlib's neighbours come from SciPy's tree; plain torch takes the distances to all points."
    return Case(f"Nearest neighbours, {queries:,} rows on {rows:,} points, $d={d}$", runs, direct, 1e-9, remark)


def cases(small: bool = False):
    rows = 1_000 if small else 10_000
    yield kde(2, 0.27, 60 if small else 2_000, rows)
    yield kde(784, 1.3, 60 if small else 100, rows)
    yield knn(2, 60 if small else 2_000, rows)
    yield knn(784, 60 if small else 200, rows)
