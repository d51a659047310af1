"""genlib.metrics against closed forms and SciPy."""

import inspect
import itertools
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from genlib import metrics
from genlib.models.density import GaussianMixture


class Normal:
    """N(mean, scale^2), from SciPy."""

    event_shape = (1,)

    def __init__(self, mean=0.0, scale=1.0):
        self.law = stats.norm(mean, scale)

    def log_prob(self, x):
        return torch.from_numpy(np.asarray(self.law.logpdf(x[:, 0].double().numpy())))


class Broken(Normal):
    def log_prob(self, x):
        return torch.full((len(x),), math.nan)


x = torch.randn(50, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
grid = torch.linspace(-12, 12, 4001, dtype=torch.float64)


def test_nll_is_the_mean_and_a_float():
    value = metrics.nll(Normal(0.3, 2.0), x)
    assert isinstance(value, float)
    assert value == pytest.approx(-stats.norm(0.3, 2.0).logpdf(x.numpy()).mean(), rel=1e-14)


def test_nll_of_the_fitted_gaussian_is_its_entropy():
    model = GaussianMixture(1).fit(x)
    assert metrics.nll(model, x) == pytest.approx(0.5 * math.log(2 * math.pi * math.e * float(x.var(correction=0))))


def test_nll_where_the_density_is_zero_is_infinite():
    model = Normal()
    model.law = stats.uniform(0, 1)
    assert metrics.nll(model, x) == math.inf


def test_nll_leaves_no_graph():
    model = torch.nn.Linear(1, 1)
    model.log_prob = lambda v: model(v)[:, 0]
    assert isinstance(metrics.nll(model, torch.zeros(2, 1)), float)


@pytest.mark.parametrize("a, b, s", [(0.0, 0.0, 1.0), (0.0, 1.0, 1.0), (-1.0, 2.0, 0.5)])
def test_integrated_squared_error_of_gaussians(a, b, s):
    """``integral (p - q)^2 = (1/s + 1/t) / (2 sqrt(pi)) - 2 N(a - b; 0, s^2 + t^2)`` with t = 1."""
    ours = metrics.integrated_squared_error(Normal(a, s), Normal(b, 1.0).log_prob, grid)
    closed = (1 / s + 1) / (2 * math.sqrt(math.pi)) - 2 * stats.norm(0, math.hypot(s, 1)).pdf(a - b)
    assert ours == pytest.approx(closed, abs=1e-10)


def test_integrated_squared_error_on_an_uneven_grid():
    uneven = torch.sinh(torch.linspace(-3.5, 3.5, 20_001, dtype=torch.float64))
    square = integrate.quad(lambda v: (stats.norm.pdf(v) - stats.norm.pdf(v, 1, 2)) ** 2, -16, 16)[0]
    assert metrics.integrated_squared_error(Normal(1, 2), Normal().log_prob, uneven) == pytest.approx(square, rel=1e-6)


def test_planted_bug_a_root_is_caught(monkeypatch):
    right = torch.trapezoid
    monkeypatch.setattr(torch, "trapezoid", lambda y, g: right(y, g).sqrt())
    with pytest.raises(AssertionError):
        test_integrated_squared_error_of_gaussians(0.0, 1.0, 1.0)


def with_value(v, i=3):
    bad = x.clone()
    bad[i] = v
    return bad


BAD_X = [
    (None, TypeError),
    ([[1.0]], TypeError),
    (x.numpy(), TypeError),
    (x.long(), TypeError),
    (x > 0, TypeError),
    (x[:, 0], ValueError),
    (x[:, :, None], ValueError),
    (torch.cat([x, x], 1), ValueError),
    (x[:0], ValueError),
    (x[:, :0], ValueError),
    (with_value(math.nan), ValueError),
    (with_value(math.inf), ValueError),
]
BAD_GRID = [
    (None, TypeError),
    ([0.0, 1.0], TypeError),
    (grid.numpy(), TypeError),
    (grid.long(), TypeError),
    (grid[:, None], ValueError),
    (grid[0], ValueError),
    (grid[:0], ValueError),
    (grid[:1], ValueError),
    (grid.flip(0), ValueError),
    (torch.zeros(5), ValueError),
    (torch.tensor([0.0, math.nan, 1.0]), ValueError),
    (torch.tensor([0.0, 1.0, math.inf]), ValueError),
]
BAD_MODEL = [(m, TypeError) for m in (None, 3, "kde", x, {}, [], object(), Normal, stats.norm(), lambda v: v)]
BAD_MODEL += [(Broken(), ValueError)]
BAD_TRUTH = [(f, TypeError) for f in (None, 3, "normal", x, {}, [], Normal(), 1.5)]
BAD_TRUTH += [
    (lambda v: v, ValueError),
    (lambda v: v[:3, 0], ValueError),
    (lambda v: v.sum(), ValueError),
    (lambda v: 0.0, TypeError),
    (lambda v: v[:, 0] * math.nan, ValueError),
]


@pytest.mark.parametrize(
    "name, call, faults",
    [
        ("x", lambda v: metrics.nll(Normal(), v), BAD_X),
        ("model", lambda v: metrics.nll(v, x), BAD_MODEL),
        ("grid", lambda v: metrics.integrated_squared_error(Normal(), Normal().log_prob, v), BAD_GRID),
        ("model", lambda v: metrics.integrated_squared_error(v, Normal().log_prob, grid), BAD_MODEL),
        ("log_prob_true", lambda v: metrics.integrated_squared_error(Normal(), v, grid), BAD_TRUTH),
    ],
    ids=["nll-x", "nll-model", "ise-grid", "ise-model", "ise-truth"],
)
def test_bad_input(name, call, faults):
    assert len(faults) >= 10
    for value, error in faults:
        with pytest.raises(error, match=rf"^{name}: expected") as caught:
            call(value)
        assert caught.type is error


def test_rate_of_a_power_law_is_its_exponent():
    sizes = [100, 1000, 10000]
    errors = torch.tensor([[0.5, 1.0, 2.0]]).T.double() * torch.tensor(sizes, dtype=torch.float64) ** -0.4
    slope, error = metrics.rate(sizes, errors)
    assert slope == pytest.approx(-0.4, abs=1e-12) and error == pytest.approx(0, abs=1e-12)


def test_rate_is_the_slope_of_scipy_and_its_error_that_of_many_trials():
    """Errors with known scatter: the standard error must match the spread of the slope over 400 fresh experiments."""
    generator, sizes = torch.Generator().manual_seed(0), [10, 40, 160, 640]
    trials = torch.randn(400, 20, 4, generator=generator, dtype=torch.float64).abs() + 0.5
    results = [metrics.rate(sizes, trial) for trial in trials]
    oracle = stats.linregress(np.log(sizes), np.log(np.sqrt((trials[0].numpy() ** 2).mean(0))))
    assert results[0][0] == pytest.approx(oracle.slope, rel=1e-10)
    slopes, errors = (np.array(v) for v in zip(*results, strict=True))
    assert np.mean(errors) == pytest.approx(slopes.std(), rel=0.15)  # 4 standard errors of a spread over 400 trials


@pytest.mark.parametrize(
    "sizes, errors, error, name",
    [
        ([1, 2], torch.ones(3, 3), ValueError, "errors"),
        ([1, 2], torch.ones(1, 2), ValueError, "errors"),
        ([1], torch.ones(3, 1), ValueError, "errors"),
        ([1, 2], torch.zeros(3, 2), ValueError, "errors"),
        ([1, 2], torch.full((3, 2), math.nan), ValueError, "errors"),
        ([1, 2], torch.full((3, 2), math.inf), ValueError, "errors"),
        ([1, 2], -torch.ones(3, 2), ValueError, "errors"),
        ([1, 2], torch.ones(3, 2).int(), TypeError, "errors"),
        ([1, 2], [[1.0, 2.0]], TypeError, "errors"),
        ([0, 2], torch.ones(3, 2), ValueError, "sizes"),
        ([5, 5], torch.ones(3, 2), ValueError, "sizes"),
        ([], torch.ones(3, 0), ValueError, "sizes"),
        ([1, math.nan], torch.ones(3, 2), ValueError, "sizes"),
        (None, None, TypeError, "sizes"),
        ("ab", torch.ones(2, 2), TypeError, "sizes"),
        ([1, [2]], torch.ones(2, 2), TypeError, "sizes"),
    ],
)
def test_rate_refuses_and_names(sizes, errors, error, name):
    with pytest.raises(error, match=name):
        metrics.rate(sizes, errors)


# --- distances between two sets of samples ---------------------------------------------------------------------------


def normal(n, d=1, mean=0.0, scale=1.0, seed=0):
    return mean + scale * torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


PAIRS = [(1, 1), (1, 7), (30, 30), (301, 204), (2500, 40)]


@pytest.mark.parametrize("n, m", PAIRS)
def test_distances_in_one_dimension_are_scipys(n, m):
    a, b = normal(n), normal(m, mean=0.3, scale=1.5, seed=1)
    assert metrics.energy_distance(a, b) == pytest.approx(stats.energy_distance(a[:, 0], b[:, 0]) ** 2, rel=1e-9)
    assert metrics.wasserstein(a, b) == pytest.approx(stats.wasserstein_distance(a[:, 0], b[:, 0]), rel=1e-12)


def double_sum(a, b, kernel):
    """``E k(X, X') + E k(Y, Y') - 2 E k(X, Y)`` pair by pair."""
    mean = lambda u, v: np.mean([kernel(math.dist(p, q)) for p in u.tolist() for q in v.tolist()])  # noqa: E731
    return mean(a, a) + mean(b, b) - 2 * mean(a, b)


@pytest.mark.parametrize("shape", [(3,), (1, 2, 3), ()])
def test_energy_distance_and_mmd_are_their_double_sums(shape):
    d = math.prod(shape)
    a, b = normal(33, d, mean=1e4), normal(41, d, mean=1e4 + 0.5, seed=1)
    ours = metrics.energy_distance(a.reshape(33, *shape), b.reshape(41, *shape))
    assert ours == pytest.approx(double_sum(a, b, lambda r: -r), rel=1e-8)
    ours = metrics.mmd(a.reshape(33, *shape), b.reshape(41, *shape), 0.7)
    assert ours == pytest.approx(double_sum(a, b, lambda r: math.exp(-(r**2) / (2 * 0.7**2))), rel=1e-8)


def test_blocks_do_not_change_the_result():
    a, b = normal(3000, 2), normal(1500, 2, mean=0.2, seed=1)  # several blocks of rows
    z, w = torch.cat([a, b]).numpy(), np.concatenate([np.full(3000, 1 / 3000), np.full(1500, -1 / 1500)])
    sums = [w[i] * (w * np.linalg.norm(z - z[i], axis=1)).sum() for i in range(len(z))]
    assert metrics.energy_distance(a, b) == pytest.approx(-sum(sums), rel=1e-8)


@pytest.mark.parametrize(
    "right, wrong", [("2 * w[later:]", "w[later:]"), ("rows[-1] + 1", "rows[-1]"), ("w[rows] *", "w[rows].abs() *")]
)
def test_a_planted_bug_in_the_blocks_is_caught(monkeypatch, right, wrong):
    source, space = inspect.getsource(metrics._quadratic), dict(vars(metrics))
    assert right in source
    exec(source.replace(right, wrong), space)
    monkeypatch.setattr(metrics, "_quadratic", space["_quadratic"])
    with pytest.raises((AssertionError, RuntimeError)):
        test_blocks_do_not_change_the_result()


def test_energy_distance_of_gaussians():
    """In one dimension ``E|N(m, s^2)| = s sqrt(2/pi) exp(-m^2/2s^2) + m erf(m / (s sqrt 2))``."""

    def folded(m, s):
        return s * math.sqrt(2 / math.pi) * math.exp(-(m**2) / (2 * s**2)) + m * math.erf(m / (s * math.sqrt(2)))

    closed = 2 * folded(1.0, math.hypot(1, 2)) - folded(0, math.sqrt(2)) - folded(0, 2 * math.sqrt(2))
    values = [metrics.energy_distance(normal(4000, seed=2 * i), normal(4000, 1, 1.0, 2.0, 2 * i + 1)) for i in range(8)]
    assert np.mean(values) == pytest.approx(closed, abs=4 * np.std(values, ddof=1) / math.sqrt(8))


@pytest.mark.parametrize("d", [1, 3])
def test_mmd_of_gaussians(d):
    """``E k(X, Y) = (h^2 / (h^2 + s^2 + t^2))^(d/2) exp(-|mean|^2 / (2 (h^2 + s^2 + t^2)))``, plus the pairs i = i."""
    h, n, mean = 0.8, 500, 0.6

    def k(s, t, shift):
        v = h**2 + s**2 + t**2
        return (h**2 / v) ** (d / 2) * math.exp(-d * shift**2 / (2 * v))

    same = k(1, 1, 0) + (1 - k(1, 1, 0)) / n + k(1.5, 1.5, 0) + (1 - k(1.5, 1.5, 0)) / n
    closed = same - 2 * k(1, 1.5, mean)
    values = [metrics.mmd(normal(n, d, seed=2 * i), normal(n, d, mean, 1.5, 2 * i + 1), h) for i in range(20)]
    assert np.mean(values) == pytest.approx(closed, abs=4 * np.std(values, ddof=1) / math.sqrt(20))


def test_mmd_takes_the_median_distance():
    a, b = normal(40, 3), normal(30, 3, seed=1)
    z = torch.cat([a, b])
    h = np.median([math.dist(p, q) for p, q in itertools.combinations(z.tolist(), 2)])
    assert metrics.mmd(a, b) == pytest.approx(metrics.mmd(a, b, h), rel=1e-3)  # torch's median is the lower one


@pytest.mark.parametrize("p", [1, 2, 3.5])
@pytest.mark.parametrize("d", [1, 2])
def test_wasserstein_is_the_best_matching(p, d):
    a, b = normal(6, d), normal(6, d, mean=0.4, seed=1)
    costs = [
        np.mean([math.dist(u, v) ** p for u, v in zip(a.tolist(), order, strict=True)])
        for order in itertools.permutations(b.tolist())
    ]
    assert metrics.wasserstein(a, b, p) == pytest.approx(min(costs) ** (1 / p), rel=1e-12)


def test_wasserstein_in_three_dimensions_is_scipys_linear_program():
    a, b = normal(40, 3), normal(40, 3, mean=0.5, seed=1)
    assert metrics.wasserstein(a, b) == pytest.approx(stats.wasserstein_distance_nd(a.numpy(), b.numpy()), rel=1e-9)


@pytest.mark.parametrize("p", [1, 2, 4])
def test_wasserstein_of_samples_of_different_sizes(p):
    """Repeating the rows of each until the sizes agree changes neither law."""
    a, b = normal(6), normal(4, mean=1.0, seed=1)
    repeated = metrics.wasserstein(a.repeat_interleave(2, 0), b.repeat_interleave(3, 0), p)
    assert metrics.wasserstein(a, b, p) == pytest.approx(repeated, rel=1e-12)
    pairs = zip(sorted(a.repeat_interleave(2).tolist()), sorted(b.repeat_interleave(3).tolist()), strict=True)
    assert repeated == pytest.approx(np.mean([abs(u - v) ** p for u, v in pairs]) ** (1 / p), rel=1e-12)


def test_wasserstein_2_of_gaussians_is_the_difference_of_mean_and_scale():
    a, b = normal(20_000), normal(20_000, 1, 1.0, 2.0, 1)
    assert metrics.wasserstein(a, b, 2) ** 2 == pytest.approx(1**2 + (2 - 1) ** 2, rel=0.05)


def test_a_high_power_does_not_overflow():
    a, b = normal(5) * 1e3, normal(5, seed=1)
    furthest = (a.sort(0)[0] - b.sort(0)[0]).abs().max().item()
    assert metrics.wasserstein(a, b, 500) == pytest.approx(furthest, rel=0.01)
    assert metrics.wasserstein(a.expand(5, 2), b.expand(5, 2), 500) < math.inf


def test_equal_samples_have_no_distance():
    a = normal(200, 3, mean=1e3)
    assert metrics.energy_distance(a, a) < 1e-9 and metrics.mmd(a, a) < 1e-12 and metrics.wasserstein(a, a) == 0


BOUNDED = """
import resource, torch
from genlib import metrics
x, y = torch.randn(2, 20_000, 2, generator=torch.Generator().manual_seed(0))
metrics.energy_distance(x[:100], y[:100])  # what torch loads with the first use
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + 2**26, -1))
metrics.energy_distance(x, y)
print("done")
metrics._quadratic = lambda z, w, kernel: (w * (kernel(torch.cdist(z, z)) @ w)).sum(0)  # a planted bug
metrics.energy_distance(x, y)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on memory is Linux's")
def test_the_memory_of_the_energy_distance_does_not_grow_with_the_pairs():
    """20,000 by 20,000 within 64 MiB; one matrix of the distances between the two takes 3.2 GB."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # each thread would reserve memory of its own
    done = subprocess.run([sys.executable, "-c", BOUNDED], env=environment, capture_output=True, text=True)
    assert done.stdout == "done\n" and "allocate memory" in done.stderr, done.stderr


def test_the_units_are_those_of_x():
    a, b = normal(50, 2), normal(50, 2, mean=1.0, seed=1)
    assert metrics.energy_distance(3 * a, 3 * b) == pytest.approx(3 * metrics.energy_distance(a, b), rel=1e-9)
    assert metrics.wasserstein(3 * a, 3 * b, 2) == pytest.approx(3 * metrics.wasserstein(a, b, 2), rel=1e-9)
    assert metrics.mmd(3 * a, 3 * b) == pytest.approx(metrics.mmd(a, b), rel=1e-9)


def rejections(mean, trials, n=40):
    generator = torch.Generator().manual_seed(0)
    draw = lambda shift: torch.randn(n, 2, generator=generator) + shift  # noqa: E731
    return np.mean([metrics.two_sample_test(draw(0.0), draw(mean), 99, generator) <= 0.05 for _ in range(trials)])


def test_the_level_and_the_power_of_the_two_sample_test():
    """1,000 nulls: a level of 5% with a standard error of 0.7%. A false alarm of this test: 3 in 1,000."""
    assert abs(rejections(0.0, 1000) - 0.05) < 0.021
    assert rejections(0.7, 100) > 0.8


def test_a_two_sample_test_of_the_wrong_statistic_is_caught(monkeypatch):
    right = metrics._quadratic
    monkeypatch.setattr(metrics, "_quadratic", lambda z, w, kernel: right(z, w, lambda d: d))  # large where alike
    with pytest.raises(AssertionError):
        test_the_level_and_the_power_of_the_two_sample_test()


def test_ties_keep_the_level():
    """Every statistic of constant samples is the same: nothing may be rejected."""
    assert metrics.two_sample_test(torch.ones(20, 1), torch.ones(10, 1), generator=torch.Generator()) == 1
    coins = torch.tensor([[0.0], [1.0]]).repeat(10, 1)
    assert metrics.two_sample_test(coins, coins, generator=torch.Generator()) == 1


def test_the_same_generator_gives_the_same_p_value():
    a, b = normal(50, 2), normal(60, 2, mean=0.2, seed=1)
    values = {metrics.two_sample_test(a, b, generator=torch.Generator().manual_seed(3)) for _ in range(2)}
    assert len(values) == 1


@pytest.mark.parametrize(
    "call, error, name",
    [
        (lambda: metrics.energy_distance(normal(3, 2), normal(3, 1)), ValueError, "y"),
        (lambda: metrics.energy_distance(normal(3, 2), normal(0, 2)), ValueError, "y"),
        (lambda: metrics.mmd(normal(3), normal(3), 0.0), ValueError, "bandwidth"),
        (lambda: metrics.mmd(normal(3), normal(3), "wide"), TypeError, "bandwidth"),
        (lambda: metrics.mmd(torch.ones(3, 1), torch.ones(3, 1)), ValueError, "bandwidth"),
        (lambda: metrics.wasserstein(normal(3), normal(3), 0.5), ValueError, "p"),
        (lambda: metrics.wasserstein(normal(3), normal(3), None), TypeError, "p"),
        (lambda: metrics.wasserstein(normal(3, 2), normal(4, 2)), ValueError, "y"),
        (lambda: metrics.two_sample_test(normal(3), normal(3), 0), ValueError, "permutations"),
        (lambda: metrics.two_sample_test(normal(3), normal(3), 9.5), TypeError, "permutations"),
        (lambda: metrics.two_sample_test(normal(3), normal(3), generator=1), TypeError, "generator"),
    ],
)
def test_a_distance_refuses_and_names(call, error, name):
    with pytest.raises(error, match=rf"^{name}: expected"):
        call()


DISTANCES = [metrics.energy_distance, metrics.mmd, metrics.wasserstein, metrics.two_sample_test]
NO_SAMPLE = [v for v in BAD_X if not (isinstance(v[0], torch.Tensor) and v[1] is ValueError and v[0].numel() >= 50)]
NO_SAMPLE += [(with_value(math.nan), ValueError), (with_value(-math.inf), ValueError), (torch.tensor(1.0), ValueError)]


@pytest.mark.parametrize("distance", DISTANCES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("value, error", NO_SAMPLE)
def test_a_distance_refuses_what_is_no_sample(distance, value, error):
    for name, pair in {"x": (value, x), "y": (x, value)}.items():
        with pytest.raises(error, match=rf"^{name}: expected"):
            distance(*pair)
