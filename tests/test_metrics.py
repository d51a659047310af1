"""genlib.metrics against closed forms and SciPy."""

import math

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
