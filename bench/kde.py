"""Time KDE.log_prob against scikit-learn and SciPy: 2,000 queries on 10,000 points, one thread, runs interleaved.

``python bench/kde.py [rounds]`` prints, for d = 2 and d = 784, the median and quartiles of each peer's time divided by
ours in the same round (above 1: ours is faster), and each one's largest error against a plain float64 sum.
"""

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import platform
import sys
import time

import numpy as np
import scipy
import sklearn
import torch
from scipy.special import logsumexp
from scipy.stats import gaussian_kde
from sklearn.neighbors import KernelDensity

from genlib.models.density import KDE

QUERIES, POINTS = 2_000, 10_000


def direct(query: np.ndarray, points: np.ndarray, h: float) -> np.ndarray:
    d = points.shape[1]
    exponents = np.stack([-np.square(q - points).sum(1) / (2 * h**2) for q in query])
    return logsumexp(exponents, 1) - np.log(len(points)) - d * np.log(h) - d / 2 * np.log(2 * np.pi)


def scipy_kde(points: np.ndarray, h: float):
    """SciPy's kernel has the shape of the data's covariance; replacing it gives the isotropic one of width h."""
    kde = gaussian_kde(points.T)
    kde.covariance = h**2 * np.eye(points.shape[1])
    kde.cho_cov = h * np.eye(points.shape[1])
    return kde


def compare(d: int, rounds: int):
    rng = np.random.default_rng(0)
    points, query = rng.standard_normal((POINTS, d)), rng.standard_normal((QUERIES, d))
    x, q = torch.from_numpy(points), torch.from_numpy(query)
    h = KDE().fit(x).bandwidth
    ours, sklearns, scipys = KDE(h).fit(x), KernelDensity(bandwidth=h).fit(points), scipy_kde(points, h)
    q32 = q.float()
    runs = {
        "genlib": lambda: ours.log_prob(q).numpy(),
        "genlib, float32": lambda: ours.log_prob(q32).numpy(),
        "scikit-learn": lambda: sklearns.score_samples(query),
        "scipy": lambda: scipys.logpdf(query.T),
    }
    truth, times = direct(query[:200], points, h), {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            log_p = run()
            times[name].append(time.perf_counter() - start)
            times[name, "error"] = np.abs(log_p[:200] / truth - 1).max()
    print(f"d = {d}, bandwidth {h:.4f}")
    for name in runs:
        ratio = np.percentile(np.array(times[name]) / np.array(times["genlib"]), [25, 50, 75])
        shown = "{1:6.2f} times ours (quartiles {0:.2f} to {2:.2f})".format(*ratio)
        error = f"relative error at most {times[name, 'error']:.1e}"
        print(f"{name:>16} {1e3 * np.median(times[name]):8.1f} ms, {shown}, {error}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    print(f"Python {platform.python_version()}, torch {torch.__version__}, scikit-learn {sklearn.__version__},")
    print(f"scipy {scipy.__version__}, numpy {np.__version__}, {platform.machine()}, one thread, {rounds} rounds")
    for d in 2, 784:
        compare(d, rounds)
