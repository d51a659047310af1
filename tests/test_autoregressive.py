"""Autoregressive networks against enumeration of all states, Jacobians, and the loops that they save."""

import math

import pytest
import torch

from genlib.contract import seeded
from genlib.models.autoregressive import FVSBN, MADE, NADE, Autoregressive
from genlib.testing import ConformanceError, check_model
from genlib.training import train


def bits(n, d, seed=0):
    return (torch.rand(n, d, generator=seeded(seed)) < 0.4).double()


def shuffled(d):
    return torch.randperm(d, generator=seeded(d))


def states(d):
    return torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * d).reshape(-1, d)


def rough(model, scale=1.0):
    """The model with random weights throughout, in float64."""
    for i, p in enumerate(model.parameters()):
        p.data = scale * torch.randn(p.shape, generator=seeded(i), dtype=torch.float64)
    return model.double()


MODELS = {
    "FVSBN": lambda d: FVSBN(d, shuffled(d)),
    "NADE": lambda d: NADE(d, 6, shuffled(d)),
    "MADE": lambda d: MADE(d, (20, 30), ordering=shuffled(d)),
    "MADE of narrow layers": lambda d: MADE(d, (3, 2), ordering=shuffled(d)),
    "MADE without a hidden layer": lambda d: MADE(d, ()),
    "MADE of four orderings": lambda d: MADE(d, (20, 30), orderings=4, ordering=shuffled(d)),
}


@pytest.mark.parametrize("name", MODELS)
def test_conformance(name):
    torch.manual_seed(0)
    ran = check_model(MODELS[name](7).double(), bits(40, 7), skip=["autoregressive_reach"])
    assert {"masses", "samples", "autoregressive_mask"} <= set(ran)


@pytest.mark.parametrize("d", [1, 2, 5, 12])
@pytest.mark.parametrize("name", MODELS)
def test_the_masses_of_all_states_sum_to_one(name, d):
    assert rough(MODELS[name](d)).log_prob(states(d)).exp().sum().item() == pytest.approx(1, abs=1e-10)


def reach(model, d):
    """Which input moves which logit, by automatic differentiation; positive weights keep every hidden unit awake."""
    for p in model.parameters():
        p.data = p.data.abs() + 0.1
    jacobian = torch.func.jacrev(lambda x: model._logits(x[None], 0)[0])(torch.ones(d, dtype=torch.float64))
    return jacobian != 0


@pytest.mark.parametrize("name", MODELS)
def test_every_logit_sees_all_that_comes_before_it_and_nothing_else(name):
    """In the usual libraries a hidden layer narrower than the input leaves some out."""
    assert torch.equal(reach(rough(MODELS[name](11)), 11), torch.ones(11, 11).tril(-1) > 0)


def test_the_pattern_follows_the_ordering():
    order, x = shuffled(9), bits(1, 9)[0]
    for name in ("FVSBN", "NADE", "MADE"):
        model = rough(MODELS[name](9))
        for p in model.parameters():
            p.data = p.data.abs()
        jacobian = torch.stack([model.logits((x + e)[None].clamp(0, 1))[0] for e in torch.eye(9).double()])
        before = order.argsort()[:, None] < order.argsort()
        moved = (jacobian != model.logits(x[None])) & (x == 0)[:, None]
        assert torch.equal(moved, before & (x == 0)[:, None])


def test_without_its_direct_connections_a_narrow_made_misses_inputs():
    model = rough(MODELS["MADE of narrow layers"](11))
    missed = model.missed.shape[1]
    model.missed = model.missed[:, :0]
    model.direct.data = model.direct.data[:, :0]
    assert missed > 0 and (torch.ones(11, 11).tril(-1).bool() & ~reach(model, 11)).sum() == missed


def test_a_wide_made_has_no_direct_connections():
    assert MADE(7, (6, 6)).direct.numel() == 0 and MADE(784).missed.shape[1] < 784


BUGS = {
    "FVSBN sees its own bit": (FVSBN, "_logits", lambda m, x, k: x @ m.weight.tril(0).T + m.bias),
    "NADE a column late": (NADE, "_logits", lambda m, x, k: ((m.c + _late(m, x)).sigmoid() * m.V).sum(2) + m.b),
}


def _late(model, x):
    return (x[:, :, None] * model.W).cumsum(1)  # its own bit included


@pytest.mark.parametrize("bug", BUGS)
def test_a_logit_that_sees_its_own_bit_is_caught(bug, monkeypatch):
    kind, name, wrong = BUGS[bug]
    monkeypatch.setattr(kind, name, wrong)
    model = rough(kind(5) if kind is FVSBN else kind(5, 4))
    assert abs(model.log_prob(states(5)).exp().sum().item() - 1) > 1e-3
    with pytest.raises(ConformanceError):
        check_model(model, bits(40, 5))


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_wrong_mask_is_caught(layer):
    model = rough(MADE(7, (20, 30)))
    below, above = model.degrees[layer : layer + 2]
    setattr(model, f"mask_{layer}", (above[:, None] + 1 >= below).double())
    assert abs(model.log_prob(states(7)).exp().sum().item() - 1) > 1e-3


# --- what the structure saves ----------------------------------------------------------------------------------------


def test_nade_equals_its_separate_networks():
    model, x = rough(NADE(37, 5, shuffled(37))), bits(6, 37)
    total = torch.zeros(6, dtype=torch.float64)
    ordered = x[:, model.ordering]
    for i in range(37):
        hidden = torch.sigmoid(ordered[:, :i] @ model.W[:i] + model.c)
        p = torch.sigmoid(hidden @ model.V[i] + model.b[i])
        total += torch.distributions.Bernoulli(p).log_prob(ordered[:, i])
    torch.testing.assert_close(model.log_prob(x), total)


@pytest.mark.parametrize("name", MODELS)
def test_drawing_in_turn_equals_the_naive_loop(name, monkeypatch):
    model = rough(MODELS[name](17), 0.7)
    fast = model.sample(200, seeded())
    monkeypatch.setattr(type(model), "_in_turn", Autoregressive._in_turn)
    assert torch.equal(fast, model.sample(200, seeded()))
    assert 0.2 < fast.mean() < 0.8


def test_a_stale_hidden_unit_would_be_noticed(monkeypatch):
    model = rough(MADE(17, (20, 30)))
    fast = model.sample(200, seeded())
    model.degrees[1] = model.degrees[1] + 1  # units updated one bit late
    assert not torch.equal(fast, model.sample(200, seeded()))


@pytest.mark.parametrize("name", ["FVSBN", "NADE", "MADE"])
def test_known_bits_stay_and_count(name):
    """With the known bits first in the order, the others follow the conditional law, by enumeration."""
    model = rough(MODELS[name](6), 0.7)
    mask = torch.zeros(6, dtype=torch.bool)
    mask[model.ordering[:3]] = True
    known = bits(1, 6, 3)[0]
    drawn = model.sample(40_000, seeded(), known=known, mask=mask)
    assert torch.equal(drawn[:, mask], known[mask].expand(40_000, 3))
    fitting = states(6)[(states(6)[:, mask] == known[mask]).all(1)]
    p = model.log_prob(fitting).softmax(0)
    shares = (drawn[:, None] == fitting).all(2).double().mean(0)
    assert ((shares - p).abs() < 5 * (p * (1 - p) / 40_000).sqrt() + 1e-9).all()


# --- several orderings -----------------------------------------------------------------------------------------------


def test_an_ensemble_averages_probabilities():
    model, x = rough(MODELS["MADE of four orderings"](7)), states(7)
    each = torch.stack([model._log_prob(x, k) for k in range(4)]).exp()
    torch.testing.assert_close(each.sum(1), torch.ones(4, dtype=torch.float64))
    assert (each.diff(dim=0).abs().max(1).values > 1e-4).all()
    torch.testing.assert_close(model.log_prob(x).exp(), each.mean(0))
    assert len({model.loss(x, seeded(i)).item() for i in range(50)}) == 4


# --- learning --------------------------------------------------------------------------------------------------------


def test_hidden_layers_learn_what_a_logistic_regression_cannot():
    """The third bit is the exclusive or of the first two: the entropy is log 4, and FVSBN stays at log 8."""
    x = torch.tensor([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]]).float()
    nats = {}
    for model in (FVSBN(3), NADE(3, 16), MADE(3, (32,))):
        torch.manual_seed(0)
        for _ in train(model, x, 400, 4, 0.03, generator=seeded()):
            pass
        nats[type(model).__name__] = model.loss(x).item()
    assert nats["FVSBN"] == pytest.approx(math.log(8), abs=0.01)
    assert max(nats["NADE"], nats["MADE"]) < math.log(4) + 0.02


# --- bad input -------------------------------------------------------------------------------------------------------


def drawn_given(known):
    return FVSBN(3).sample(2, known=known, mask=torch.ones(3) > 0)


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: FVSBN(0), ValueError, "dim: expected"),
        (lambda: FVSBN(3, [0, 1]), ValueError, "ordering: expected each of 0 .. 2 once"),
        (lambda: FVSBN(3, [0, 1, 1]), ValueError, "ordering: expected"),
        (lambda: FVSBN(3, [0.0, 1.0, 2.0]), ValueError, "ordering: expected"),
        (lambda: NADE(3, 0), ValueError, "hidden: expected"),
        (lambda: MADE(3, (4, 0)), ValueError, "hidden: expected"),
        (lambda: MADE(3, orderings=0), ValueError, "orderings: expected"),
        (lambda: FVSBN(3).log_prob(torch.full((2, 3), 0.5)), ValueError, "x: expected bits"),
        (lambda: FVSBN(3).log_prob(torch.zeros(2, 4)), ValueError, "x: expected shape"),
        (lambda: FVSBN(3).loss(torch.zeros(2, 3), 1), TypeError, "generator: expected"),
        (lambda: FVSBN(3).sample(2, known=torch.zeros(3)), ValueError, "mask: expected known and mask together"),
        (lambda: FVSBN(3).sample(2, known=torch.zeros(3), mask=[True] * 3), ValueError, "mask: expected a tensor of 3"),
        (lambda: FVSBN(3).sample(2, known=[1, 0, 1], mask=torch.ones(3) > 0), TypeError, "known: expected"),
        (lambda: drawn_given(torch.full((3,), 0.5)), ValueError, "known: expected bits"),
        (lambda: drawn_given(torch.zeros(4)), ValueError, "known: expected shape"),
        (lambda: drawn_given(torch.zeros(3, 3)), ValueError, "known: expected one row or 2, got 3"),
        (lambda: FVSBN(3).sample(0), ValueError, "n: expected"),
    ],
)
def test_bad_input_is_refused_and_named(call, error, words):
    with pytest.raises(error, match=f"^{words}"):
        call()
