"""genlib.models.density against SciPy, scikit-learn, quadrature and brute force.

Every test of randomness has a fixed seed and rejects at 1e-4: with other seeds, the chance that any of the nine here
gives a false alarm is below 1 in 1,000.
"""

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats
from sklearn.mixture import GaussianMixture as SklearnMixture
from sklearn.neighbors import KernelDensity

from genlib.contract import seeded
from genlib.models import density
from genlib.models.density import KDE, KNN, BasisDensity, GaussianMixture, Histogram, NeuralCDF

ALPHA = 1e-4


def normal(n, d, seed=0, dtype=torch.float64):
    return torch.randn(n, d, generator=seeded(seed), dtype=torch.float64).to(dtype)


def two_bumps(n, seed=0):
    """0.6 N(-1.5, 0.5^2) + 0.4 N(1, 1)."""
    x = normal(n, 1, seed)
    left = torch.rand(n, 1, generator=seeded(seed + 1), dtype=torch.float64) < 0.6
    return torch.where(left, -1.5 + 0.5 * x, 1 + x)


def line(low, high, n=200_001):
    return torch.linspace(low, high, n, dtype=torch.float64)[:, None]


ESTIMATORS = {
    "histogram": lambda: Histogram(),
    "kde": lambda: KDE(),
    "mixture": lambda: GaussianMixture(2),
    "basis": lambda: BasisDensity(),
}
ALL = ESTIMATORS | {"knn": lambda: KNN(5)}
DRAWS = ESTIMATORS | {"cdf": lambda: NeuralCDF(8).double()}


def ready(name, n=300):
    model = DRAWS[name]() if name in DRAWS else ALL[name]()
    return model.fit(two_bumps(n)) if hasattr(model, "fit") else model


# What every estimator promises


@pytest.mark.parametrize("name", DRAWS)
def test_one_dimensional_density_integrates_to_one(name):
    model = ready(name)
    edges = getattr(model, "edges", None)
    if edges is None:
        grid = line(-60, 60)
        assert torch.trapezoid(model.log_prob(grid).exp(), grid[:, 0]).item() == pytest.approx(1, abs=2e-5)
    else:  # a step function: the middle of each cell says all
        middle = (edges[0, 1:] + edges[0, :-1]) / 2
        assert (model.log_prob(middle[:, None]).exp() * edges[0].diff()).sum().item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("make", [lambda: KDE(), lambda: GaussianMixture(3), lambda: Histogram(7)])
def test_two_dimensional_density_integrates_to_one(make):
    model = make().fit(normal(400, 2))
    steps = torch.linspace(-8, 8, 321, dtype=torch.float64)
    if isinstance(model, Histogram):
        axes = [(e[1:] + e[:-1]) / 2 for e in model.edges]
        cell = model.edges.diff(dim=1)[:, 0].prod()
    else:
        axes, cell = [steps, steps], (steps[1] - steps[0]) ** 2
    p = model.log_prob(torch.cartesian_prod(*axes)).exp()
    assert (p.sum() * cell).item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", DRAWS)
def test_samples_follow_the_density(name):
    """Kolmogorov-Smirnov against the cumulative of ``log_prob`` by quadrature, which shares no code with ``sample``."""
    model, grid = ready(name), line(-60, 60, 240_001)
    with torch.no_grad():
        p = torch.cat([model.log_prob(part) for part in grid.split(50_000)]).exp()
    cumulative = torch.cumulative_trapezoid(p, grid[:, 0]).numpy()
    draws = model.sample(4000, seeded(3))[:, 0].numpy()
    assert stats.kstest(draws, lambda v: np.interp(v, grid[1:, 0].numpy(), cumulative)).pvalue > ALPHA


@pytest.mark.parametrize("make", [lambda: KDE(), lambda: GaussianMixture(3), lambda: Histogram(6)])
def test_samples_follow_the_density_in_two_dimensions(make):
    """Chi-squared over a grid of cells whose masses come from the density by the midpoint rule."""
    x = torch.cat([normal(150, 2) @ torch.tensor([[1.0, 0.8], [0.0, 0.6]], dtype=torch.float64), normal(100, 2, 1) + 2])
    model = make().fit(x)
    low, high, cells, fine = -8.0, 9.0, 12, 60
    width = (high - low) / (cells * fine)
    steps = low + width * (torch.arange(cells * fine, dtype=torch.float64) + 0.5)
    p = torch.cat([model.log_prob(part) for part in torch.cartesian_prod(steps, steps).split(40_000)]).exp() * width**2
    mass = p.reshape(cells, fine, cells, fine).sum((1, 3)).flatten()
    draws = model.sample(4000, seeded(4))
    place = ((draws - low) / (high - low) * cells).long().clamp(0, cells - 1)
    counts = torch.bincount(place[:, 0] * cells + place[:, 1], minlength=cells**2).double()
    rare = mass * 4000 < 5
    seen = torch.cat([counts[~rare], counts[rare].sum()[None]])
    expected = torch.cat([mass[~rare], mass[rare].sum()[None]])
    assert stats.chisquare(seen, 4000 * expected / expected.sum()).pvalue > ALPHA


@pytest.mark.parametrize("name", ALL)
def test_not_fitted(name):
    model = ALL[name]()
    with pytest.raises(RuntimeError, match=r"call fit\(x\) first"):
        model.log_prob(normal(3, 1))
    if name != "knn":
        with pytest.raises(RuntimeError, match=r"call fit\(x\) first"):
            model.sample(3)


@pytest.mark.parametrize("name", ALL)
def test_dtype_shape_and_repeatability(name):
    x = two_bumps(200).float()
    model = ALL[name]()
    assert model.fit(x) is model and model.event_shape == (1,)
    query = torch.tensor([[-1.53], [-0.2], [1.1]])
    assert model.log_prob(query).shape == (3,) and model.log_prob(query).dtype == torch.float32
    assert model.log_prob(query.double()).dtype == torch.float64
    torch.testing.assert_close(model.log_prob(query), model.log_prob(query.flip(0)).flip(0))
    torch.testing.assert_close(model.log_prob(query)[1:2], model.log_prob(query[1:2]))
    if name != "knn":
        a, b = model.sample(5, seeded(1)), model.sample(5, seeded(1))
        assert a.shape == (5, 1) and a.dtype == torch.float32 and torch.equal(a, b)
    state = torch.random.get_rng_state()
    ALL[name]().fit(x)
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("name", ["histogram", "kde", "mixture", "basis"])
def test_shift_and_scale_of_the_data_change_nothing_but_the_scale(name):
    x = two_bumps(300)
    base, moved = ESTIMATORS[name]().fit(x), ESTIMATORS[name]().fit(1e5 + 1e-3 * x)
    query = torch.linspace(-2, 2, 50, dtype=torch.float64)[:, None]
    torch.testing.assert_close(
        moved.log_prob(1e5 + 1e-3 * query) + math.log(1e-3), base.log_prob(query), rtol=1e-5, atol=1e-5
    )


# Histogram


def test_histogram_is_numpys():
    x = two_bumps(500)
    model = Histogram(17).fit(x)
    p, edges = np.histogram(x.numpy(), 17, density=True)
    query = line(float(edges[0]), float(edges[-1]), 997)
    cell = np.clip(np.searchsorted(edges, query.numpy()[:, 0], side="right") - 1, 0, 16)
    np.testing.assert_allclose(model.edges[0], edges, rtol=1e-14)
    np.testing.assert_allclose(model.log_prob(query).exp(), p[cell], rtol=1e-12)


def test_histogram_in_three_dimensions_is_numpys():
    x = normal(400, 3)
    p, edges = np.histogramdd(x.numpy(), 5, density=True)
    cell = [np.clip(np.searchsorted(e, c, side="right") - 1, 0, 4) for e, c in zip(edges, x.T.numpy(), strict=True)]
    np.testing.assert_allclose(Histogram(5).fit(x).log_prob(x).exp(), p[tuple(cell)], rtol=1e-12)


def test_histogram_outside_is_minus_infinity():
    model = Histogram(4).fit(torch.tensor([[0.0], [0.1], [1.0]]))
    outside = model.log_prob(torch.tensor([[-0.01], [1.01], [0.6]]))
    assert (outside == -math.inf).all()  # the last lies in an empty cell
    assert model.log_prob(torch.tensor([[0.0], [1.0]])).isfinite().all()


def brute_risk(x, bins):
    """The definition: the integral of q^2 less twice the mean of the histogram of the others at each point."""
    x = x.numpy()[:, 0]
    counts, edges = np.histogram(x, bins)
    width, n = edges[1] - edges[0], len(x)
    cell = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, bins - 1)
    others = [(counts[c] - 1) / ((n - 1) * width) for c in cell]
    return ((counts / (n * width)) ** 2 * width).sum() - 2 * np.mean(others)


def test_histogram_risk_is_the_leave_one_out_sum():
    x = two_bumps(150)
    bins = range(1, 41)
    np.testing.assert_allclose(Histogram.risk(x, bins), [brute_risk(x, m) for m in bins], rtol=1e-10)


def test_histogram_bins_minimise_the_risk():
    x = two_bumps(400)
    chosen = Histogram().fit(x).bins
    best = min(range(1, 81), key=lambda m: brute_risk(x, m))
    assert brute_risk(x, chosen) <= brute_risk(x, best) + 1e-3 and abs(chosen - best) <= 2


def test_risk_test_catches_a_planted_bug(monkeypatch):
    right = Histogram._count
    monkeypatch.setattr(Histogram, "_count", staticmethod(lambda data, bins: right(data, bins + 1)))
    with pytest.raises(AssertionError):
        test_histogram_risk_is_the_leave_one_out_sum()


# KDE


def direct_log_prob(query, points, h):
    """A loop over the queries in float64 differences."""
    query, points = query.double().numpy(), points.double().numpy()
    e = np.array([special.logsumexp(-np.square(q - points).sum(1) / (2 * h**2)) for q in query])
    return e - np.log(len(points)) - points.shape[1] * (np.log(h) + 0.5 * np.log(2 * np.pi))


@pytest.mark.parametrize("d, h", [(1, 0.01), (2, 0.2), (3, 50.0), (64, 0.5), (784, 1.2), (784, 0.05)])
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_kde_is_the_direct_sum(d, h, offset):
    points = offset + normal(2000, d)
    query = torch.cat([points[:5], offset + normal(125, d, 1), offset + 40 * normal(5, d, 2), 1e6 * normal(2, d, 3)])
    ours = KDE(h).fit(points).log_prob(query)
    np.testing.assert_allclose(ours, direct_log_prob(query, points, h), rtol=1e-8)


def test_kde_with_far_clusters_keeps_its_digits():
    """Two clusters 1e6 apart: |x|^2 + |y|^2 - 2xy alone would be wrong by about 1e-4 of h^2 times 1e4."""
    points = torch.cat([normal(50, 20), 1e6 + normal(50, 20, 1)])
    query = torch.cat([normal(5, 20, 2), 1e6 + normal(5, 20, 3)])
    np.testing.assert_allclose(KDE(0.3).fit(points).log_prob(query), direct_log_prob(query, points, 0.3), rtol=1e-8)


def test_kde_of_float32_data_loses_only_the_rounding_of_the_answer():
    points, query = normal(2000, 784, dtype=torch.float32), normal(50, 784, 1, torch.float32)
    ours = KDE(1.2).fit(points).log_prob(query)
    assert ours.dtype == torch.float32
    np.testing.assert_allclose(ours, direct_log_prob(query, points, 1.2), rtol=2e-7)


def test_kde_is_scikit_learns_in_low_dimension():
    x, query = normal(300, 2), normal(40, 2, 1)
    peer = KernelDensity(bandwidth=0.3).fit(x.numpy()).score_samples(query.numpy())
    np.testing.assert_allclose(KDE(0.3).fit(x).log_prob(query), peer, rtol=1e-7)


def test_kde_far_out():
    model = KDE(0.1).fit(normal(10, 2))
    x = torch.tensor([[1e30, 0.0], [1e140, 1e140]], dtype=torch.float64, requires_grad=True)
    p = model.log_prob(x)
    assert p[0] < -1e60 and p[1] < -1e250
    assert torch.autograd.grad(p.sum(), x)[0].isfinite().all()
    with pytest.raises(ValueError, match="^x: expected values within 1e150"):
        model.log_prob(1e60 * x)


@pytest.mark.parametrize("scale", [1e-310, 1e-120, 1e-70, 1e70, 1e110])
@pytest.mark.parametrize("name, dim", [("histogram", 5), ("basis", 1), ("mixture", 2), ("kde", 2), ("knn", 2)])
def test_extreme_scales_are_right_or_refused(name, dim, scale):
    """The log-density of scaled data is that of the data less D log scale; where it is not, fit refuses by name."""
    make = {"histogram": Histogram, "basis": BasisDensity, "mixture": GaussianMixture, "kde": KDE, "knn": KNN}[name]
    args = {"histogram": (3,), "basis": (4,), "mixture": (2,), "kde": (), "knn": (3,)}[name]
    x = normal(60, dim)
    wanted = make(*args).fit(x).log_prob(x + 0 if name != "knn" else x + 0.01) - dim * math.log(scale)
    query = (x if name != "knn" else x + 0.01) * scale
    try:
        model = make(*args).fit(x * scale)
    except ValueError as error:
        assert str(error).startswith("x: expected")
    else:
        np.testing.assert_allclose(model.log_prob(query), wanted, rtol=1e-6)


def test_a_discrete_grid_does_not_choose_the_bandwidth():
    x = normal(500, 1).mul(3).round()
    x[0] = 0.123
    with pytest.raises(ValueError, match="^x: .*most rows have an exact copy"):
        KDE().fit(x)


def test_rows_that_rounding_joins_are_not_distinct():
    x = normal(40, 2)
    x[0] = 1e16
    assert GaussianMixture(10).fit(x).log_prob(x).isfinite().all()
    x[0] = 1e20
    with pytest.raises(ValueError, match="^components: "):
        GaussianMixture(10).fit(x)


@pytest.mark.parametrize("generator", [0, "a", 1.5, [1]])
def test_a_generator_of_another_kind_is_refused(generator):
    for model in (Histogram(3), KDE(0.3), GaussianMixture(2)):
        with pytest.raises(TypeError, match="^generator: "):
            model.fit(normal(30, 2)).sample(3, generator=generator)
    with pytest.raises(TypeError, match="^generator: "):
        GaussianMixture(2).fit(normal(30, 2), generator=generator)
    for call in (NeuralCDF(3).sample, lambda n, generator: NeuralCDF(3).loss(torch.randn(4, 1), generator)):
        with pytest.raises(TypeError, match="^generator: "):
            call(3, generator=generator)


@pytest.mark.parametrize("h", [1e-300, 1e-160, 1e160, 1e300])
def test_kde_of_an_absurd_bandwidth_is_right(h):
    x = normal(10, 1)
    at = KDE(h).fit(x).log_prob(torch.cat([x[:1], x[:1] + 1]))
    bump = -math.log(h * math.sqrt(2 * math.pi))
    if h < 1:  # the point's own bump, a tenth of the whole, and none beside it
        assert at[0].item() == pytest.approx(bump - math.log(10)) and at[1] == -math.inf
    else:
        np.testing.assert_allclose(at, bump)
    assert KDE.leave_one_out(x, [h]).item() == (-math.inf if h < 1 else pytest.approx(bump))


def test_kde_gradient_is_the_score():
    points, query, h = normal(3000, 3), normal(10, 3, 1), 0.4
    x = query.clone().requires_grad_()
    (score,) = torch.autograd.grad(KDE(h).fit(points).log_prob(x).sum(), x)
    apart = points - query[:, None]
    weight = (-apart.square().sum(2) / (2 * h**2)).softmax(1)
    torch.testing.assert_close(score, (weight[..., None] * apart).sum(1) / h**2)


def brute_leave_one_out(x, h):
    return np.mean([direct_log_prob(x[i : i + 1], torch.cat([x[:i], x[i + 1 :]]), h)[0] for i in range(len(x))])


@pytest.mark.parametrize("d", [1, 2, 30])
def test_leave_one_out_is_the_loop(d):
    x = normal(70, d)
    hs = [0.1, 0.5, 2.0]
    np.testing.assert_allclose(KDE.leave_one_out(x, hs), [brute_leave_one_out(x, h) for h in hs], rtol=1e-10)


@pytest.mark.parametrize("d, scale", [(1, 1.0), (2, 1e-4), (5, 1.0), (784, 1e3)])
def test_bandwidth_maximises_the_leave_one_out_likelihood(d, scale):
    x = scale * normal(90, d)
    chosen = KDE().fit(x).bandwidth
    grid = chosen * np.exp(np.linspace(-3, 3, 601))
    score = np.array([brute_leave_one_out(x, h) for h in grid[::20]])
    assert abs(np.argmax(score) - 15) <= 1  # nothing better anywhere in [h / 20, 20 h]
    score = [brute_leave_one_out(x, h) for h in chosen * np.array([0.97, 1.0, 1.03])]
    assert np.argmax(score) == 1


def test_bandwidth_of_many_rows_comes_from_some(monkeypatch):
    """The rule for many rows (choose on a part, shrink at the known rate) stays within 15% of the choice of all."""
    x = normal(3000, 2)
    full = KDE().fit(x).bandwidth
    monkeypatch.setattr(KDE, "most_rows", 1000)
    assert KDE().fit(x).bandwidth == pytest.approx(full, rel=0.15)


def test_bandwidth_cannot_be_chosen():
    copies = normal(10, 2).repeat(2, 1)
    with pytest.raises(ValueError, match="copy; pass a bandwidth"):
        KDE().fit(copies)
    with pytest.raises(ValueError, match="x: .*at least 2 rows"):
        KDE().fit(normal(1, 2))
    assert KDE(0.5).fit(copies).log_prob(copies).isfinite().all()
    some = torch.cat([normal(10, 2), normal(30, 2)])
    assert KDE().fit(some).bandwidth > 0


def test_kde_test_catches_planted_bugs(monkeypatch):
    right = KDE._log_sum
    monkeypatch.setattr(KDE, "_log_sum", staticmethod(lambda d2, h, n, dim: right(d2, h, n, dim - 1)))
    with pytest.raises(AssertionError):
        test_kde_is_the_direct_sum(2, 0.2, 0.0)
    with pytest.raises(AssertionError):
        test_one_dimensional_density_integrates_to_one("kde")
    monkeypatch.setattr(KDE, "_log_sum", staticmethod(right))
    monkeypatch.setattr(density, "EPSILON", 0.0)  # never take differences
    with pytest.raises(AssertionError):
        test_kde_with_far_clusters_keeps_its_digits()


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads the peak of memory from Linux's /proc")
def test_kde_memory_is_bounded():
    """10,000 queries on 100,000 points: 8 GB of distances, which must never exist at once."""
    code = """
import re, torch
from genlib.models.density import KDE
torch.set_num_threads(1)
def peak():  # not getrusage, whose peak counts that of the process which started this one
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) // 1024
g = torch.Generator().manual_seed(0)
model = KDE(0.2).fit(torch.randn(100_000, 2, generator=g))
query = torch.randn(10_000, 2, generator=g)
model.log_prob(query[:10])
before = peak()
model.log_prob(query)
print(before, peak())
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    before, peak = map(int, out)
    assert peak < 1000 and peak - before < 100, f"peak {peak} MB, {peak - before} MB of it in log_prob"


# KNN


@pytest.mark.parametrize("d", [1, 2, 10, 11, 50])
def test_knn_is_the_formula(d):
    x, query, k = 7 + normal(500, d), 7 + 2 * normal(200, d, 1), 4
    r = np.sort(np.linalg.norm(query.numpy()[:, None] - x.numpy(), axis=2), axis=1)[:, k - 1]
    ball = {1: 2.0, 2: math.pi}.get(d, math.exp(d / 2 * math.log(math.pi) - special.gammaln(d / 2 + 1)))
    np.testing.assert_allclose(KNN(k).fit(x).log_prob(query), np.log(k / (500 * ball)) - d * np.log(r), rtol=1e-9)


def test_knn_approaches_the_density():
    x = normal(40_000, 2)
    query = torch.tensor([[0.0, 0.0], [0.5, -0.5], [1.0, 1.0]], dtype=torch.float64)
    truth = stats.multivariate_normal([0, 0]).logpdf(query.numpy())
    # a count of k = 400 has a relative error of 5%: five of those, and the test fails for a ball of any other volume
    np.testing.assert_allclose(KNN(400).fit(x).log_prob(query), truth, atol=0.25)


def test_knn_test_catches_a_planted_bug(monkeypatch):
    monkeypatch.setattr(density.math, "lgamma", lambda v: special.gammaln(v + 1))
    with pytest.raises(AssertionError):
        test_knn_is_the_formula(2)
    with pytest.raises(AssertionError):
        test_knn_approaches_the_density()


def test_knn_is_no_density():
    model = KNN(3).fit(normal(50, 1))
    assert model.normalized is False and not hasattr(model, "sample")
    tail = torch.tensor([[1e6], [1e7], [1e8]], dtype=torch.float64)
    mass = (
        tail[:, 0] * model.log_prob(tail).exp()
    )  # p(x) = c / |x|: each decade holds the same mass, so there is no end
    torch.testing.assert_close(mass, torch.full_like(mass, 3 / 50 / 2), rtol=1e-5, atol=0)


@pytest.mark.parametrize("d", [2, 20])
def test_knn_copies_raise(d):
    x = torch.cat([normal(20, d), 3 * torch.ones(3, d, dtype=torch.float64)])
    with pytest.raises(ValueError, match="x: row 1 lies on 3"):
        KNN(3).fit(x).log_prob(torch.stack([x[0] + 1, x[-1]]))
    assert KNN(4).fit(x).log_prob(x).isfinite().all()


def test_knn_near_copies_keep_their_digits():
    x = torch.cat([1e4 * normal(30, 20), torch.zeros(1, 20, dtype=torch.float64)])
    query = torch.zeros(1, 20, dtype=torch.float64)
    query[0, 0] = 1e-5
    model = KNN(1).fit(x)
    ball = math.exp(10 * math.log(math.pi) - special.gammaln(11))
    assert model.log_prob(query).item() == pytest.approx(-math.log(31 * ball) - 20 * math.log(1e-5), rel=1e-8)


# Gaussian mixture


def three_clusters(n=600, d=2):
    centres = torch.tensor([[0.0, 0.0], [5.0, 1.0], [-3.0, 4.0]], dtype=torch.float64)
    x = normal(n, d)
    x[:, 1] = 0.6 * x[:, 0] + 0.5 * x[:, 1]
    return x + centres[torch.arange(n) % 3]


def test_one_component_is_the_gaussian_fit():
    x = normal(200, 3) @ normal(3, 3, 1) + 5
    model = GaussianMixture(1).fit(x)
    covariance = np.cov(x.numpy().T, bias=True)
    np.testing.assert_allclose(model.means[0], x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(model.covariances[0], covariance, rtol=1e-10)
    peer = stats.multivariate_normal(x.mean(0), covariance).logpdf(x)
    np.testing.assert_allclose(model.log_prob(x), peer, rtol=1e-10)


def test_mixture_log_prob_is_scipys():
    x = three_clusters()
    model = GaussianMixture(3).fit(x)
    parts = zip(model.weights, model.means, model.covariances, strict=True)
    p = sum(float(w) * stats.multivariate_normal(m, s).pdf(x.numpy()) for w, m, s in parts)
    np.testing.assert_allclose(model.log_prob(x), np.log(p), rtol=1e-9)
    assert model.weights.sum().item() == pytest.approx(1)


@pytest.mark.parametrize("components, d", [(2, 1), (3, 2), (8, 2), (40, 2), (4, 12)])
def test_em_never_lowers_the_likelihood(components, d):
    x = three_clusters() if d == 2 else two_bumps(300) if d == 1 else normal(60, d)
    model = GaussianMixture(components).fit(x)
    gains = np.diff(model.history)
    assert len(model.history) >= 2 and (gains > -1e-10).all()
    assert model.history[-1] == pytest.approx(model.log_prob(x).mean().item(), rel=1e-12)


@pytest.mark.parametrize("components", [2, 3, 5])
def test_mixture_is_as_likely_as_scikit_learns(components):
    x = three_clusters(1500)
    peer = SklearnMixture(components, tol=1e-6, max_iter=500, n_init=1, random_state=0).fit(x.numpy())
    assert GaussianMixture(components).fit(x).history[-1] > peer.score(x.numpy()) - 0.01


def test_mixture_recovers_what_made_the_data():
    model = GaussianMixture(3).fit(three_clusters(6000))
    order = model.means[:, 0].argsort()
    truth = torch.tensor([[-3.0, 4.0], [0.0, 0.0], [5.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(model.means[order], truth, atol=0.1, rtol=0)
    expected = torch.tensor([[1.0, 0.6], [0.6, 0.61]], dtype=torch.float64)
    torch.testing.assert_close(model.covariances, expected.expand(3, 2, 2), atol=0.1, rtol=0)


def test_mixture_on_a_line_in_the_plane_stays_finite():
    t = normal(100, 1)
    x = torch.cat([t, 2 * t, torch.ones_like(t)], 1)
    model = GaussianMixture(2).fit(x)
    assert model.log_prob(x).isfinite().all() and model.sample(10, seeded()).isfinite().all()
    assert (torch.linalg.eigvalsh(model.covariances) > 0).all()


def test_mixture_generator_decides():
    x = three_clusters()
    a, b = GaussianMixture(6).fit(x, seeded(1)), GaussianMixture(6).fit(x, seeded(1))
    assert torch.equal(a.means, b.means) and torch.equal(
        GaussianMixture(6).fit(x).means, GaussianMixture(6).fit(x).means
    )
    assert not torch.equal(a.means, GaussianMixture(6).fit(x, seeded(2)).means)


# Orthogonal series


def test_basis_coefficients_and_clipping():
    x = two_bumps(200)
    model = BasisDensity(9).fit(x)
    a, b = x.min().item(), x.max().item()
    u = (x.numpy()[:, 0] - a) / (b - a)
    t = [np.sqrt(2) * np.cos(np.pi * j * u).mean() for j in range(1, 10)]
    np.testing.assert_allclose(model.coefficients, t, atol=1e-12)

    def series(v):
        return max(0.0, 1 + sum(c * np.sqrt(2) * np.cos(np.pi * j * v) for j, c in enumerate(t, 1)))

    total = sum(integrate.quad(series, i / 40, (i + 1) / 40, limit=200)[0] for i in range(40))
    assert series(0.97) == 0 or total > 1  # the sum dips below zero somewhere, or this tests nothing
    entries = np.arange(5, model.cells, 27) / model.cells
    for grid in entries, entries + 0.5 / model.cells:
        ours = model.log_prob(torch.from_numpy(a + (b - a) * grid)[:, None]).exp()
        bend = sum(abs(c) * np.sqrt(2) * (np.pi * j) ** 2 for j, c in enumerate(t, 1))
        chord = bend / (8 * model.cells**2) if grid is not entries else 0  # the most a line differs from its curve
        expected = np.array([series(v) for v in grid]) / total / (b - a)
        np.testing.assert_allclose(ours, expected, rtol=1e-7, atol=1e-8 + chord / (b - a))


def test_basis_risk_is_the_leave_one_out_sum():
    x = two_bumps(60)
    span = float(x.max() - x.min())
    u = (x.numpy()[:, 0] - float(x.min())) / span

    def brute(m):
        c = np.sqrt(2) * np.cos(np.pi * np.outer(u, np.arange(1, m + 1)))
        square = integrate.quad(
            lambda v: (1 + (c.mean(0) * np.sqrt(2) * np.cos(np.pi * v * np.arange(1, m + 1))).sum()) ** 2, 0, 1
        )
        others = [1 + (np.delete(c, i, 0).mean(0) * c[i]).sum() for i in range(len(u))]
        return (square[0] - 2 * np.mean(others)) / span

    np.testing.assert_allclose(BasisDensity.risk(x, range(9)), [brute(m) for m in range(9)], rtol=1e-8)
    chosen = BasisDensity().fit(x).terms
    assert chosen == int(BasisDensity.risk(x, range(201)).argmin())


def test_basis_with_no_terms_is_uniform():
    model = BasisDensity(0).fit(torch.tensor([[1.0], [3.0], [5.0]]))
    torch.testing.assert_close(
        model.log_prob(torch.tensor([[1.0], [4.9], [5.1]])), torch.tensor([0.25, 0.25, 0.0]).log()
    )
    assert stats.kstest(model.sample(500, seeded())[:, 0], stats.uniform(1, 4).cdf).pvalue > ALPHA


@pytest.mark.parametrize("terms", [1, 5, 50, 200])
def test_basis_total_is_exact(terms):
    model = BasisDensity(terms).fit(normal(40, 1))
    grid = torch.linspace(float(model.low), float(model.high), 400_001, dtype=torch.float64)[:, None]
    p = torch.cat([model.log_prob(part) for part in grid.split(100_000)]).exp()
    assert torch.trapezoid(p, grid[:, 0]).item() == pytest.approx(1, abs=1e-7)


# The network for the cumulative


def fitted_cdf():
    x = (two_bumps(2000) + 0.5) / 1.5
    model = NeuralCDF(16).double()
    optimiser = torch.optim.Adam(model.parameters(), 3e-2)
    g = seeded()
    for _ in range(300):
        optimiser.zero_grad()
        model.loss(x, g).backward()
        optimiser.step()
    return model, x


def test_cdf_learns_the_law():
    model, x = fitted_cdf()
    grid = line(-2.5, 3, 401)
    raw = grid.numpy()[:, 0] * 1.5 - 0.5
    truth = 0.6 * stats.norm.cdf(raw, -1.5, 0.5) + 0.4 * stats.norm.cdf(raw, 1, 1)
    assert np.abs(model.cdf(grid).detach().numpy() - truth).max() < 0.05  # sampling alone: 1.36 / sqrt(2000) = 0.03


def test_cdf_is_a_cumulative_and_log_prob_its_derivative():
    model, _ = fitted_cdf()
    x = line(-4, 4, 501).requires_grad_()
    cdf = model.cdf(x)
    (slope,) = torch.autograd.grad(cdf.sum(), x)
    torch.testing.assert_close(model.log_prob(x).exp(), slope[:, 0], rtol=1e-10, atol=1e-14)
    assert (cdf.diff() > 0).all()
    ends = model.cdf(torch.tensor([[-1e6], [1e6]], dtype=torch.float64))
    torch.testing.assert_close(ends, torch.tensor([0.0, 1.0], dtype=torch.float64))
    total = integrate.quad(
        lambda v: model.log_prob(torch.tensor([[v]], dtype=torch.float64)).exp().item(), -8, 8, limit=400
    )
    assert total[0] == pytest.approx(1, abs=1e-4)


def test_cdf_log_prob_far_out_is_finite():
    model = NeuralCDF(8)
    far = model.log_prob(torch.tensor([[-1e4], [1e4], [0.0]]))
    assert far.isfinite().all() and far[0] < -1000 and far[1] < -1000


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-14), (torch.float32, 5e-7)])
def test_cdf_inverse(dtype, tolerance):
    model, _ = fitted_cdf()
    model = model.to(dtype)
    u = torch.cat([torch.rand(200, generator=seeded(), dtype=dtype), torch.tensor([1e-6, 1 - 1e-6], dtype=dtype)])
    x = model.inverse(u)
    assert x.shape == (202, 1) and x.dtype == dtype
    torch.testing.assert_close(model.cdf(x).detach(), u, rtol=0, atol=tolerance)


def test_cdf_loss_is_the_mean_squared_distance_to_sorted_uniforms():
    model, x = NeuralCDF(5).double(), normal(50, 1)
    u = torch.rand(50, generator=seeded(7), dtype=torch.float64)
    by_hand = np.mean((np.sort(model.cdf(x).detach().numpy()) - np.sort(u.numpy())) ** 2)
    assert model.loss(x, seeded(7)).item() == pytest.approx(by_hand, rel=1e-12)
    assert model.loss(x[torch.randperm(50, generator=seeded())], seeded(7)).item() == pytest.approx(by_hand, rel=1e-12)
    model.loss(x, seeded(7)).backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in model.parameters())


def test_cdf_state_round_trip_and_monotone_whatever_the_weights():
    model = NeuralCDF(7).double()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=5, generator=seeded(2))
    grid = line(-50, 50, 2001)
    assert (model.cdf(grid).diff() >= 0).all()
    other = NeuralCDF(7).double()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.cdf(grid), model.cdf(grid))


# Bad input: the error's type, and the argument's name in its message

good = two_bumps(30)
nan, inf = good.clone(), good.clone()
nan[3], inf[2] = math.nan, -math.inf
BAD_DATA = [
    (None, TypeError),
    ([[1.0], [2.0]], TypeError),
    (good.numpy(), TypeError),
    (good.long(), TypeError),
    (good > 0, TypeError),
    (good.to(torch.complex64), TypeError),
    (good[:, 0], ValueError),
    (good[:, :, None], ValueError),
    (good[0, 0], ValueError),
    (good[:0], ValueError),
    (good[:, :0], ValueError),
    (nan, ValueError),
    (inf, ValueError),
]
BAD_WIDTH = [(torch.cat([good, good], 1), ValueError)]
BAD_COUNT = [(v, TypeError) for v in (1.0, "3", [3], True, np.float64(2), 2 + 0j, {}, math.nan)]
BAD_COUNT += [(v, ValueError) for v in (0, -1, -100, torch.tensor(-2))]
BAD_COUNT_TERMS = [(v, e) for v, e in BAD_COUNT if v is not None and not (e is ValueError and v == 0)]
BAD_POSITIVE = [(v, TypeError) for v in ("1", b"1", [1.0], True, 1j, {})]
BAD_POSITIVE += [(v, ValueError) for v in (0, 0.0, -1.0, math.nan, math.inf, -math.inf)]
BAD_U = [(b, e) for b, e in BAD_DATA if getattr(b, "ndim", 0) != 1] + [
    (torch.tensor(v), ValueError) for v in ([0.0], [1.0], [0.5, -0.1], [0.5, 1.1], [math.nan], [])
]


def cases():
    for name in ALL:
        extra = BAD_WIDTH if name == "basis" else []
        yield from ((f"{name}.fit", "x", lambda v, name=name: ALL[name]().fit(v), bad) for bad in BAD_DATA + extra)
    for name in ALL | {"cdf": None}:
        model = ready(name)
        yield from ((f"{name}.log_prob", "x", model.log_prob, bad) for bad in BAD_DATA + BAD_WIDTH)
        if name != "knn":
            yield from ((f"{name}.sample", "n", model.sample, bad) for bad in BAD_COUNT + [(None, TypeError)])
    cdf = NeuralCDF(4)
    yield from (("cdf.cdf", "x", cdf.cdf, bad) for bad in BAD_DATA + BAD_WIDTH)
    yield from (("cdf.loss", "x", cdf.loss, bad) for bad in BAD_DATA + BAD_WIDTH)
    yield from (("cdf.inverse", "u", cdf.inverse, bad) for bad in BAD_U)
    yield from (("cdf.__init__", "hidden", NeuralCDF, bad) for bad in BAD_COUNT + [(None, TypeError)])
    yield from (("histogram.__init__", "bins", Histogram, bad) for bad in BAD_COUNT)
    yield from (("histogram.risk", "bins", lambda v: Histogram.risk(good, [v]), bad) for bad in BAD_COUNT)
    yield from (("histogram.risk", "x", lambda v: Histogram.risk(v, [3]), bad) for bad in BAD_DATA)
    yield from (("kde.__init__", "bandwidth", KDE, bad) for bad in BAD_POSITIVE)
    yield from (
        ("kde.leave_one_out", "bandwidths", lambda v: KDE.leave_one_out(good, [v]), bad) for bad in BAD_POSITIVE
    )
    yield from (("kde.leave_one_out", "x", lambda v: KDE.leave_one_out(v, [0.3]), bad) for bad in BAD_DATA)
    yield from (("knn.__init__", "k", KNN, bad) for bad in BAD_COUNT + [(None, TypeError)])
    yield from (("mixture.__init__", "components", GaussianMixture, bad) for bad in BAD_COUNT + [(None, TypeError)])
    yield from (("mixture.__init__", "steps", lambda v: GaussianMixture(2, steps=v), bad) for bad in BAD_COUNT)
    yield from (
        ("mixture.__init__", "tolerance", lambda v: GaussianMixture(2, tolerance=v), bad) for bad in BAD_POSITIVE
    )
    yield from (("basis.__init__", "terms", BasisDensity, bad) for bad in BAD_COUNT_TERMS)
    yield from (("basis.risk", "terms", lambda v: BasisDensity.risk(good, [v]), bad) for bad in BAD_COUNT_TERMS)
    yield from (("basis.risk", "x", lambda v: BasisDensity.risk(v, [3]), bad) for bad in BAD_DATA + BAD_WIDTH)


CASES = list(cases())


@pytest.mark.parametrize("entry", sorted({f"{door}({name})" for door, name, _, _ in CASES}))
def test_bad_input(entry):
    faults = [c for c in CASES if f"{c[0]}({c[1]})" == entry]
    assert len(faults) >= 10
    for _, name, call, (value, error) in faults:
        with pytest.raises(error, match=rf"^{name}: expected|^{name}: .*expected") as caught:
            call(value)
        assert caught.type is error, f"{value!r} raised {caught.type}"


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: Histogram().fit(torch.ones(5, 1)), "^x: .*constant column 0"),
        (lambda: Histogram().fit(torch.cat([good, torch.ones(30, 1)], 1)), "^x: .*constant column 1"),
        (lambda: Histogram().fit(good[:1]), "^x: "),
        (lambda: Histogram(10).fit(normal(50, 8)), "^bins: .*10000000 cells"),
        (lambda: Histogram().fit(normal(50, 784)), "^bins: .*2 bins in each of the 784 columns"),
        (lambda: KNN(31).fit(good), "^k: .*30"),
        (lambda: GaussianMixture(31).fit(good), "^components: .*30"),
        (lambda: GaussianMixture(3).fit(torch.tensor([[0.0], [1.0], [1.0]])), "^components: .*2 distinct"),
        (lambda: GaussianMixture(1).fit(torch.ones(4, 2)), "^x: expected rows that differ"),
        (lambda: BasisDensity().fit(torch.ones(4, 1)), "^x: expected values that vary"),
        (lambda: BasisDensity().fit(good[:1]), "^x: expected at least 2"),
        (lambda: KDE().fit(1e200 * good), "^x: expected values within"),
        (lambda: GaussianMixture(2).fit(1e200 * good), "^x: expected values within"),
    ],
)
def test_data_that_cannot_be_fitted(call, message):
    with pytest.raises(ValueError, match=message):
        call()
