"""Flows against autograd's Jacobians, round trips, closed forms and formulas written once more in NumPy."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from genlib.contract import seeded
from genlib.models import flows
from genlib.models.flows import (
    IAF,
    MAF,
    NICE,
    ActNorm,
    Conditioner,
    Coupling,
    Flow,
    Glow,
    MaskedAffine,
    Mix,
    NeuralSplineFlow,
    Planar,
    PlanarFlow,
    RealNVP,
    affine,
    dequantize,
    shift,
    spline,
)
from genlib.testing import ConformanceError, check_model
from genlib.training import train


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


def rough(model, scale=0.2):
    """The model with random numbers added to all weights, and its normalisation away from the identity."""
    for i, p in enumerate(model.parameters()):
        p.data += scale * torch.randn(p.shape, generator=seeded(i))
    for module in model.modules():
        if isinstance(module, ActNorm):
            module.m.fill_(0.3), module.s.fill_(1.4), module.seen.fill_(True)
    return model


def glow_like(d):
    half = d // 2
    parts = [(ActNorm(d), Mix(d), Coupling(half, Conditioner(half, 16, 2 * (d - half)), affine)) for _ in range(3)]
    return Flow((d,), [layer for part in parts for layer in part])


FLOWS = {
    "planar": lambda d: PlanarFlow(d, 6),
    "nice": lambda d: NICE(d, 4, (16, 16)),
    "realnvp": lambda d: RealNVP(d, 4, (16, 16)),
    "glow": glow_like,
    "maf": lambda d: MAF(d, 3, (16, 16)),
    "maf of narrow layers": lambda d: MAF(d, 2, (3, 3)),
    "iaf": lambda d: IAF(d, 3, (16, 16)),
    "spline": lambda d: NeuralSplineFlow(d, 3, (16, 16)),
}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("d", [2, 5])
@pytest.mark.parametrize("name", FLOWS)
def test_conformance(name, d):
    make = FLOWS[name]
    ran = check_model(rough(make(d), 0.1), normal(40, d, dtype=torch.float32), tolerance=1e-8, fresh=lambda: make(d))
    assert {"round_trip", "logdet", "base", "samples", "likelihood_loss", "gradients"} <= set(ran)
    assert ("integral" in ran) == (d == 2)


@pytest.mark.parametrize("d", [2, 3, 5, 6])
@pytest.mark.parametrize("name", FLOWS)
def test_the_log_determinant_is_that_of_the_jacobian(name, d):
    model = rough(FLOWS[name](d)).double().eval()
    for x in normal(5, d, seed=1):
        jacobian = torch.autograd.functional.jacobian(lambda row: model(row[None])[0][0], x)
        assert model(x[None])[1].item() == pytest.approx(jacobian.slogdet()[1].item(), abs=1e-8)


@pytest.mark.parametrize("dtype,tolerance", [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize("d", [2, 3, 5, 6])
@pytest.mark.parametrize("name", FLOWS)
def test_round_trips(name, d, dtype, tolerance):
    model = rough(FLOWS[name](d), 0.1).to(dtype).eval()
    x = normal(200, d, seed=1, dtype=dtype)
    with torch.no_grad():
        for there, back in ((model, model.inverse), (model.inverse, model)):
            y, one = there(x)
            again, two = back(y)
            assert (again - x).abs().max() <= tolerance and (one + two).abs().max() <= tolerance


def test_training_brings_each_flow_near_a_density_that_is_known():
    """A correlated Gaussian, on fresh points: a small gap, and none below zero."""
    g = seeded(3)
    half = torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [0.5, -0.5, 0.7]])
    x = torch.randn(2000, 3, generator=g) @ half.T + torch.tensor([2.0, -1.0, 0.5])
    truth = torch.distributions.MultivariateNormal(torch.tensor([2.0, -1.0, 0.5]), scale_tril=half)
    y = truth.sample((5000,))
    for name, make in FLOWS.items():
        model = make(3)
        for _ in train(model, x, 150, 250, 1e-2, generator=seeded()):
            pass
        gap = (truth.log_prob(y) - model.log_prob(y)).mean().item()
        assert 0 < gap < (0.6 if name == "planar" else 0.12), (name, gap)


def on(transform, x, params, **options):
    """The transform of the numbers x ``(N,)``."""
    return (part[:, 0] for part in transform(x[:, None], params.expand(len(x), -1), **options))


# Planar


def test_a_planar_layer_can_be_inverted_whatever_its_weights():
    layer = Planar(3).double()
    layer.w.data, layer.v.data = torch.tensor([2.0, 0.0, 1.0]).double(), torch.tensor([-9.0, 1.0, -2.0]).double()
    u, wu = layer._u()
    assert wu.item() > -1 and (layer.w @ u).item() == pytest.approx(wu.item(), abs=1e-12)
    x = 3 * normal(500, 3)
    y, logdet = layer(x)
    back, other = layer.inverse(y)
    assert (back - x).abs().max() < 1e-6 and (logdet + other).abs().max() < 1e-5

    layer._u = lambda: (layer.v, layer.w @ layer.v)  # as it would be without the constraint: the plane folds
    y, logdet = layer(x)
    assert (layer.inverse(y)[0] - x).abs().max() > 1 or logdet.isnan().any()


# Splines


def numpy_spline(x, params, bound=4.0):
    """Gregory and Delbourgo's formula, one number at a time; returns y, and the knots with their slopes."""
    bins = (len(params) + 1) // 3
    w, h, d = np.split(params, [bins, 2 * bins])
    w, h = (np.exp(part - part.max()) / np.exp(part - part.max()).sum() for part in (w, h))
    w, h = (2 * bound * (1e-3 + (1 - 1e-3 * bins) * part) for part in (w, h))
    d = np.concatenate([[1], 1e-3 + np.log1p(np.exp(d + np.log(np.expm1(1 - 1e-3)))), [1]])
    xs, ys = -bound + np.concatenate([[0], np.cumsum(w)]), -bound + np.concatenate([[0], np.cumsum(h)])
    if not -bound <= x <= bound:
        return x, xs, ys, d
    k = min(np.searchsorted(xs, x, side="right") - 1, bins - 1)
    s, xi = h[k] / w[k], (x - xs[k]) / w[k]
    top = h[k] * (s * xi**2 + d[k] * xi * (1 - xi))
    return ys[k] + top / (s + (d[k + 1] + d[k] - 2 * s) * xi * (1 - xi)), xs, ys, d


def test_the_spline_is_the_published_formula():
    params = normal(40, 23)
    x = 6 * torch.rand(40, generator=seeded(2), dtype=torch.float64) - 3
    x[:2] = torch.tensor([-7.0, 5.5])  # outside
    wanted = [numpy_spline(a, p)[0] for a, p in zip(x.numpy(), params.numpy(), strict=True)]
    y, slope = on(spline, x, params)
    np.testing.assert_allclose(y, wanted, atol=1e-12)
    step = 1e-5
    above, below = (next(on(spline, x + h, params)) for h in (step, -step))
    rise = (above - below) / (2 * step)
    assert (rise.log() - slope).abs().max() < 1e-5
    back, minus = on(spline, y, params, inverse=True)
    assert (back - x).abs().max() < 1e-12 and (slope + minus).abs().max() < 1e-10


def test_the_spline_passes_its_knots_with_their_slopes():
    params = normal(23, seed=4)
    _, xs, ys, d = numpy_spline(0.0, params.numpy())
    y, slope = on(spline, torch.from_numpy(xs), params)
    np.testing.assert_allclose(y, ys, atol=1e-12)
    np.testing.assert_allclose(slope.exp(), d, atol=1e-9)


def test_zeros_give_the_identity():
    x = 5 * normal(50)
    for transform, count in ((shift, 1), (affine, 2), (spline, 23)):
        y, slope = on(transform, x, torch.zeros(50, count, dtype=torch.float64))
        assert (y - x).abs().max() < 1e-12 and slope.abs().max() < 1e-12


@pytest.mark.parametrize("transform,count", [(shift, 1), (affine, 2), (spline, 5), (spline, 23)])
def test_transforms_increase_and_their_slopes_are_right(transform, count):
    params = 4 * normal(count)
    x = torch.linspace(-6, 6, 4001, dtype=torch.float64, requires_grad=True)
    y, slope = on(transform, x, params)
    assert (y.diff() > 0).all()
    (rise,) = torch.autograd.grad(y.sum(), x)
    assert (rise.log() - slope).abs().max() < 1e-9


def test_affine_factors_are_bounded():
    _, slope = on(affine, normal(5), torch.tensor([1e9, 0.0]).double())
    assert slope.tolist() == pytest.approx([math.pi / 2] * 5)


# Couplings, NICE, ActNorm, Mix


def test_a_coupling_changes_one_part_as_the_other_says():
    layer = Coupling(2, Conditioner(2, 8, 6), affine).double()
    layer.network[-1].weight.data = normal(6, 8)
    x = normal(4, 5)
    y, _ = layer(x)
    assert torch.equal(y[:, 3:], x[:, :2])
    other = x.clone()
    other[:, 2] += 1
    moved = (layer(other)[0] - y).abs() > 0
    assert moved.any(0).tolist() == [True, False, False, False, False]


def test_nice_keeps_the_volume_until_its_last_layer():
    model = rough(NICE(5, 4)).double()
    _, logdet = model(normal(30, 5))
    scale = model.layers[-1]
    assert (logdet - (scale.a - scale.s.log()).sum()).abs().max() < 1e-12


def test_actnorm_normalises_the_first_batch_of_training_and_no_other():
    layer, x = ActNorm(3), 5 + 2 * normal(100, 3, 4, 4, dtype=torch.float32)
    layer.eval()
    assert torch.equal(layer(x)[0], x)
    layer.train()
    y, logdet = layer(x)
    assert y.mean((0, 2, 3)).abs().max() < 1e-5 and (y.std((0, 2, 3)) - 1).abs().max() < 1e-3
    assert logdet.tolist() == pytest.approx(
        [-16 * x.transpose(0, 1).flatten(1).std(1).log().sum().item()] * 100, rel=1e-3
    )
    assert torch.allclose(layer(x + 7)[0], y + 7 / layer.s.view(1, 3, 1, 1), atol=1e-4)
    assert not ActNorm(2).train()(torch.ones(5, 2))[0].isnan().any()  # a constant channel
    fresh = ActNorm(3)
    fresh.load_state_dict(layer.state_dict())
    assert torch.equal(fresh.train()(x)[0], y)


def test_mix_starts_as_a_rotation_and_its_determinant_is_read_off():
    layer = Mix(6).double()
    W = layer._factors()[0] @ layer._factors()[1]
    assert (W @ W.T - torch.eye(6)).abs().max() < 1e-6
    rough(layer, 0.5)
    W = layer._factors()[0] @ layer._factors()[1]
    x = normal(3, 6, 2, 5)
    y, logdet = layer(x)
    assert torch.allclose(y, torch.einsum("ij,njhw->nihw", W, x), atol=1e-12)
    assert logdet.tolist() == pytest.approx([10 * W.slogdet()[1].item()] * 3, abs=1e-10)


# Masked layers


@pytest.mark.parametrize("hidden", [(20, 20), (3,), (1, 1), ()])
def test_a_masked_layer_sees_all_that_precede_and_nothing_else(hidden):
    layer = rough(MaskedAffine(6, list(hidden)), 0.5).double()
    seen = torch.zeros(6, 6)
    for x in normal(20, 6):
        jacobian = torch.autograd.functional.jacobian(lambda row: layer._params(row[None])[0], x)  # (12, 6)
        seen += jacobian.view(2, 6, 6).abs().amax(0)
    assert torch.equal(seen > 0, torch.ones(6, 6).tril(-1) > 0)


def test_iaf_is_maf_backwards():
    maf, iaf = rough(MAF(4, 1, (8,))).double(), IAF(4, 1, (8,)).double()
    iaf.layers[0].layer.load_state_dict(maf.layers[0].state_dict())
    x = normal(10, 4)
    assert torch.equal(maf(x)[0], iaf.inverse(x)[0]) and torch.equal(maf.inverse(x)[1], iaf(x)[1])


def test_passes_through_the_network_of_each_direction(monkeypatch):
    calls, inner = [], MaskedAffine._params
    monkeypatch.setattr(MaskedAffine, "_params", lambda self, x: calls.append(1) or inner(self, x))
    for model, there, back in ((MAF(7, 1), 1, 7), (IAF(7, 1), 7, 1)):
        calls.clear(), model(torch.zeros(2, 7))
        assert len(calls) == there
        calls.clear(), model.sample(2)
        assert len(calls) == back


# Glow


@pytest.mark.parametrize("shape,scales", [((1, 4, 8), 2), ((3, 4, 4), 1), ((3, 4, 4), 2)])
def test_glow_on_images(shape, scales):
    make = lambda: Glow(shape, scales, steps=2, hidden=8)  # noqa: E731
    x = torch.rand(40, *shape, generator=seeded())
    # Rougher ones send noise to where the logit is so steep that float64 loses the eighth digit on the way back.
    ran = check_model(rough(make(), 0.05), x, tolerance=1e-8, fresh=make)
    assert {"round_trip", "logdet", "base", "loss", "save_load"} <= set(ran)
    model = rough(make(), 0.05).double().eval()
    row = x[0].double().flatten()
    jacobian = torch.autograd.functional.jacobian(lambda r: model(r.view(1, *shape))[0].flatten(), row)
    assert model(x[:1].double())[1].item() == pytest.approx(jacobian.slogdet()[1].item(), abs=1e-8)


def test_glow_has_no_density_outside_of_its_images():
    model, x = rough(Glow((1, 4, 4), steps=2, hidden=8), 0.05).eval(), torch.rand(3, 1, 4, 4, generator=seeded())
    inside, x[1, 0, 2, 3], x[2, 0, 0, 0] = model.log_prob(x), 1.01, -0.01
    found = model.log_prob(x)
    assert inside.isfinite().all() and found[0] == inside[0] and (found[1:] == -math.inf).all()


def test_bits_per_dim_against_the_untrained_model_which_only_rotates():
    model, k = Glow((1, 4, 4), greys=16).double().eval(), torch.randint(0, 16, (30, 1, 4, 4), generator=seeded())
    x = k.double() / 15
    y = (k + torch.rand(x.shape, generator=seeded(9), dtype=torch.float64)) / 16
    p = 1e-6 + (1 - 2e-6) * y
    nats = (p / (1 - p)).log() ** 2 / 2 + math.log(2 * math.pi) / 2 + (p * (1 - p) / (1 - 2e-6)).log()
    nats = nats.flatten(1).sum(1)
    bits = model.bits_per_dim(x, seeded(9))
    assert (bits / (nats / math.log(2) / 16 + 4) - 1).abs().max() < 1e-6  # the rotation is one to float32
    loss = model.loss(x, seeded(9)).item()
    assert loss == pytest.approx(nats.mean().item(), abs=1e-5)


def test_dequantized_values_fill_the_cells_of_their_levels():
    x = torch.arange(256).repeat(500, 1).double() / 255
    y = dequantize(x, 256, seeded())
    assert torch.equal((256 * y).floor(), 255 * x)
    assert ((256 * y) % 1).mean().item() == pytest.approx(0.5, abs=0.005)
    assert torch.equal((4 * dequantize(torch.tensor([[0.0, 1.0]]), 4, seeded())).floor(), torch.tensor([[0.0, 3.0]]))


def test_a_first_layer_with_a_reach_bends_within_it():
    layer = RealNVP(2, hidden=(4000,), reach=3.0).layers[0].network[0]
    bends = (-layer.bias / layer.weight.abs()[:, 0]).sort().values
    assert (bends - torch.linspace(-3, 3, 4000)).abs().max() < 0.15  # evenly spread, by Kolmogorov and Smirnov


# What is refused

REFUSED = {
    "dim": lambda: RealNVP(1),
    "layers": lambda: MAF(2, 0),
    "hidden": lambda: NICE(3, 2, (0,)),
    "bins": lambda: NeuralSplineFlow(2, bins=1),
    "reach": lambda: RealNVP(2, reach=0.0),
    "shape": lambda: Glow((1, 28, 28), scales=3),
    "greys": lambda: Glow((1, 4, 4), greys=1),
    "event_shape": lambda: Flow((0,), []),
    "x": lambda: Glow((1, 4, 4)).loss(torch.full((2, 1, 4, 4), 1.5)),
    "x ": lambda: Glow((1, 4, 4))(torch.full((2, 1, 4, 4), -0.01)),
    "z": lambda: RealNVP(3).inverse(torch.zeros(2, 4)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused_by_name(name):
    with pytest.raises(ValueError, match=f"^{name.strip()}: expected "):
        REFUSED[name]()
    with pytest.raises(TypeError, match="^activation: expected a function"):
        RealNVP(2, activation="gelu")


# Planted bugs


def broken(name):
    class Halves(Coupling):  # right for halves of equal size alone: the popular mistake
        def inverse(self, y):
            b, a = y[:, : self.width], y[:, self.width :]
            b, slopes = self.transform(b, self.network(a[:, : self.width]), inverse=True)
            return torch.cat([a, b], 1), slopes.flatten(1).sum(1)

    class OneSide(Coupling):  # the log-determinant of half of the coordinates
        def forward(self, x):
            a, b = x[:, : self.width], x[:, self.width :]
            b, slopes = self.transform(b, self.network(a))
            return torch.cat([b, a], 1), slopes[:, : self.width].sum(1)

    return {"halves": Halves, "one side": OneSide}[name]


@pytest.mark.parametrize("name", ["halves", "one side"])
def test_a_bug_that_two_dimensions_hide_is_caught_in_three(name):
    def model(d):
        flow = rough(RealNVP(d, 2, (8,)), 0.5)
        for layer in flow.layers:
            layer.__class__ = broken(name)
        return flow

    check_model(model(2), normal(40, 2, dtype=torch.float32), tolerance=1e-8)
    with pytest.raises(ConformanceError):
        check_model(model(3), normal(40, 3, dtype=torch.float32), tolerance=1e-8)


def _wrong_sign(x, params, inverse=False):
    y, slope = affine(x, params, inverse)
    return y, -slope


def _no_slope(x, params, inverse=False):
    return affine(x, params, inverse)[0], torch.zeros_like(x)


def _forgets_the_knot(x, params, inverse=False):
    y, slope = spline(x, params, inverse)
    return y, slope + 1e-4 * (x > 1)


@pytest.mark.parametrize("transform,count", [(_wrong_sign, 2), (_no_slope, 2), (_forgets_the_knot, 23)])
def test_a_wrong_slope_is_caught(transform, count):
    network = Conditioner(2, 8, 3 * count)
    model = rough(Flow((5,), [Coupling(2, network, transform)]), 0.5)
    with pytest.raises(ConformanceError):
        check_model(model, 2 * normal(40, 5, dtype=torch.float32), tolerance=1e-8)


def test_a_mask_that_leaks_is_caught():
    model = rough(MAF(5, 1, (16,)), 0.5)
    last = model.layers[0].mask_1
    last.fill_(1)
    with pytest.raises(ConformanceError):
        check_model(model, normal(40, 5, dtype=torch.float32), tolerance=1e-8)


def test_public_names_have_docstrings():
    for value in vars(flows).values():
        if isinstance(value, type) and issubclass(value, nn.Module) and value.__module__ == flows.__name__:
            assert value.__doc__
