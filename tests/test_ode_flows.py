"""Continuous flows against closed forms, automatic differentiation, SciPy's solver and torchdiffeq.

Each check takes the module, so that it runs on the real one and must fail on copies with a planted bug (``BUGS``).
"""

import itertools
import math
import types
from pathlib import Path

import pytest
import torch
from scipy.integrate import solve_ivp

from genlib.contract import seeded
from genlib.models import ode_flows
from genlib.models.ode_flows import CNF, OTFlow, integrate
from genlib.testing import check_model

SOURCE = Path(ode_flows.__file__).read_text("utf8")
TIMES = (0.0, 0.3, 1.0)


def rows(n, d, seed=0):
    return torch.randn(n, d, generator=seeded(seed), dtype=torch.float64)


def rough(model, scale=0.5):
    """The model with random weights throughout, in float64."""
    for i, p in enumerate(model.parameters()):
        p.data = scale * torch.randn(p.shape, generator=seeded(i), dtype=torch.float64)
    return model.double()


def close(a, b, tolerance=1e-8):
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


class Linear:
    """``h = A z``, whose flow is the matrix exponential."""

    def __init__(self, A):
        self.A = A

    def __call__(self, t, z):
        return z @ self.A.T

    def value_and_trace(self, t, z, noise=None):
        return self(t, z), self.A.trace().expand(len(z))


def matrix(d):
    return torch.randn(d, d, generator=seeded(d), dtype=torch.float64) / d + torch.diag(torch.arange(d) / d - 0.2)


# --- the solver ------------------------------------------------------------------------------------------------------


def order(lib, method, steps):
    """The slope of log error against log step on ``z' = -2 t z^2``, so ``z = z0 / (1 + z0 t^2)``."""

    def error(n):
        z = lib.integrate(lambda t, z: -2 * t * z * z, z0, 0.0, 1.0, n, method)
        return (z - z0 / (1 + z0)).abs().max().item()

    z0 = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
    return math.log2(error(steps) / error(2 * steps))


def check_orders(lib):
    assert order(lib, "euler", 200) == pytest.approx(1, abs=0.03)
    assert order(lib, "rk4", 20) == pytest.approx(4, abs=0.05)


def check_state(lib):
    """A tuple is solved as its parts are, and backwards undoes forwards."""
    a, b = rows(4, 3), rows(4, 1)
    one = lib.integrate(lambda t, s: -t * s, a, 0.0, 1.0, 40)
    two, other = lib.integrate(lambda t, s: (-t * s[0], s[0].sum(1, keepdim=True)), (a, b), 0.0, 1.0, 40)
    close(one, two, 1e-14)
    close(one, a * math.exp(-0.5))
    area = math.sqrt(math.pi / 2) * math.erf(1 / math.sqrt(2))  # of exp(-t^2 / 2) over [0, 1]
    close(other, b + a.sum(1, keepdim=True) * area)
    close(lib.integrate(lambda t, s: -t * s, one, 1.0, 0.0, 40), a)


# --- densities -------------------------------------------------------------------------------------------------------


def check_gaussian(lib):
    """A linear field turns N(0, I) into N(0, e^-A e^-A^T)."""
    for d in (1, 2, 3, 5):
        A, x = matrix(d), rows(30, d)
        flow = torch.linalg.matrix_exp(A)
        model = lib.CNF(d, field=Linear(A), trace="exact", steps=40)
        exact = torch.distributions.MultivariateNormal(x.new_zeros(d), torch.linalg.inv(flow.T @ flow))
        close(model.log_prob(x), exact.log_prob(x), 1e-6)
        close(model(x)[0], x @ flow.T, 1e-7)
        close(model.inverse(x)[0], x @ torch.linalg.inv(flow).T, 1e-7)
        close(model.inverse(x)[1], -A.trace().expand(30), 1e-9)
        close(model.loss(x), -exact.log_prob(x).mean(), 1e-6)


def check_quadratic(lib):
    """With ``w = 0`` the potential is quadratic: its flow is the exponential of a matrix of (x, t, 1)."""
    for d in (1, 2, 5):
        model, x = rough(lib.OTFlow(d, 7, steps=40)), rows(30, d)
        model.field.w.data.zero_()
        Q, b = model.field.A.T @ model.field.A, model.field.b
        big = torch.zeros(d + 2, d + 2, dtype=torch.float64)
        big[:d] = -torch.cat([Q[:-1], b[:-1, None]], 1)
        big[d, d + 1] = 1  # dt/dt
        flow = torch.linalg.matrix_exp(big)[:d].detach()
        z = torch.cat([x, torch.zeros(30, 1), torch.ones(30, 1)], 1).double() @ flow.T
        logdet = flow[:, :d].det().log()
        nll = z.square().sum(1) / 2 + d / 2 * math.log(2 * math.pi) - logdet
        close(model(x)[0], z, 1e-6)
        close(model.costs(x)[0], nll, 1e-6)
        close(model.log_prob(x), -nll, 1e-6)


def check_translation(lib):
    """``Phi = -m x + |m|^2 t / 2`` moves all mass by m: transport cost ``|m|^2 / 2`` and no residual."""
    model, m = rough(lib.OTFlow(3, 5)), torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    for p in (model.field.w, model.field.A):
        p.data.zero_()
    model.field.b.data = torch.cat([-m, m.square().sum()[None] / 2])
    x, cost = rows(9, 3), m.square().sum() / 2
    nll, transport, residual = model.costs(x)
    close(model(x)[0], x + m, 1e-12)
    close(transport, cost.expand(9), 1e-12)
    close(residual, torch.zeros(9).double(), 1e-12)
    close(model.loss(x), model.alpha[0] * nll.mean() + cost, 1e-10)


def check_paths(lib):
    """All three costs against SciPy's solver, fed by automatic derivatives of ``Phi``."""
    model, x = rough(lib.OTFlow(2, 6, alpha=(3.0, 2.0), steps=60), 0.4), rows(2, 2)

    def slopes(t, state):
        s = torch.tensor([state[0], state[1], t], dtype=torch.float64)
        gradient, hessian = (
            d(lambda s: phi(model.field, s))(s).detach() for d in (torch.func.grad, torch.func.hessian)
        )
        kinetic = gradient[:2].square().sum() / 2
        return [*-gradient[:2], -hessian[:2, :2].trace(), kinetic, (gradient[2] - kinetic).abs()]

    want = [solve_ivp(slopes, (0, 1), [*r, 0, 0, 0], rtol=1e-7, atol=1e-7).y[:, -1] for r in x.numpy()]
    z0, z1, logdet, transport, residual = torch.tensor([r.tolist() for r in want], dtype=torch.float64).T
    nll = (z0**2 + z1**2) / 2 + math.log(2 * math.pi) - logdet
    for got, wanted in zip(model.costs(x), (nll, transport, residual), strict=True):
        close(got, wanted, 1e-3 if wanted is residual else 1e-6)  # its slope jumps where the residual is zero
    close(model.loss(x), (3 * nll + transport + 2 * residual).mean(), 1e-3)


# --- traces ----------------------------------------------------------------------------------------------------------


def jacobian(field, t, z):
    return torch.stack([torch.func.jacrev(lambda r: field(t, r[None])[0])(row) for row in z])


def phi(potential, s):
    return potential.value(s[-1:], s[None, :-1])[0]


def check_traces(lib):
    for d, t in itertools.product((1, 2, 3, 5, 6), TIMES):
        fields = [lib.TanhField(d, hidden) for hidden in ((), (7,), (9, 4), (5, 8, 6))] + [lib.Potential(d, 7)]
        for field in map(rough, fields):
            z = rows(4, d)
            h, trace = field.value_and_trace(t, z)
            close(trace, jacobian(field, t, z).diagonal(dim1=1, dim2=2).sum(1))
            close(h, field(t, z), 1e-12)


def check_network(lib):
    """``a <- tanh(W a + b + U t)`` layer by layer, linear at the end."""
    for hidden, t in itertools.product(((), (7,), (9, 4), (5, 8, 6)), TIMES):
        field, z = rough(lib.TanhField(5, hidden)), rows(4, 5)
        a = z
        for i, (layer, time) in enumerate(zip(field.layers, field.times, strict=True)):
            a = a @ layer.weight.T + layer.bias + t * time.weight[:, 0]
            a = a if i == len(hidden) else torch.tanh(a)
        close(field(t, z), a, 1e-12)


def check_tangents(lib):
    for hidden in ((), (7,), (9, 4), (5, 8, 6)):
        field, z, v = rough(lib.TanhField(5, hidden)), rows(4, 5), rows(12, 5, 1).reshape(3, 4, 5)
        h, along = field.jvp(0.4, z, v)
        close(along, torch.einsum("bij,kbj->kbi", jacobian(field, 0.4, z), v))
        close(h, field(0.4, z), 1e-12)


def check_potential(lib):
    """The gradient against automatic derivatives of ``Phi``; also far out, where exp would overflow."""
    for d, t, scale in itertools.product((1, 2, 5), TIMES, (1, 300)):
        field, x = rough(lib.Potential(d, 7)), scale * rows(4, d)
        s = torch.cat([x, torch.full((4, 1), t, dtype=torch.float64)], 1)
        gradient = torch.stack([torch.func.grad(phi, 1)(field, row) for row in s])
        close(field.gradient(t, x), gradient)
        close(field(t, x), -gradient[:, :d])


def check_phi(lib):
    """``Phi`` as the paper writes it, number by number."""
    field, x = rough(lib.Potential(2, 3)), rows(1, 2)
    s = [*x[0].tolist(), 0.7]
    (K0, b0), (K1, b1) = ((p.weight.tolist(), p.bias.tolist()) for p in (field.opening, field.layer))

    def layer(K, b, u):
        return [
            math.log(2 * math.cosh(sum(k * v for k, v in zip(r, u, strict=True)) + c))
            for r, c in zip(K, b, strict=True)
        ]

    u0 = layer(K0, b0, s)
    network = [u + v for u, v in zip(u0, layer(K1, b1, u0), strict=True)]
    value = sum(w * n for w, n in zip(field.w.tolist(), network, strict=True))
    value += sum(sum(a * v for a, v in zip(r, s, strict=True)) ** 2 for r in field.A.tolist()) / 2
    value += sum(b * v for b, v in zip(field.b.tolist(), s, strict=True))
    assert field.value(0.7, x).item() == pytest.approx(value, abs=1e-12)


def check_rademacher(lib):
    """Over all 2^d vectors of signs: the mean is the trace, the variance ``2 sum_{i != j} S_ij^2``, S = (J + J^T)/2."""
    for d, hidden in itertools.product((2, 5), ((9, 4), (5, 8, 6))):
        field, z = rough(lib.TanhField(d, hidden)), rows(3, d)
        signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=d)), dtype=torch.float64)
        estimates = torch.stack([field.value_and_trace(0.6, z, noise=e.expand(3, d))[1] for e in signs])
        J = jacobian(field, 0.6, z)
        S = (J + J.mT) / 2
        close(estimates.mean(0), field.value_and_trace(0.6, z)[1], 1e-10)
        diagonal = S.diagonal(dim1=1, dim2=2).square().sum(1)
        close(estimates.var(0, correction=0), 2 * (S.square().sum((1, 2)) - diagonal), 1e-10)


def check_gaussian_noise(lib):
    """The variance with normal noise, ``2 |S|^2``, by Gauss and Hermite's rule of three nodes: exact at this degree."""
    field, z = rough(lib.TanhField(3, (5, 8, 6))), rows(3, 3)
    nodes = {-math.sqrt(3): 1 / 6, 0.0: 2 / 3, math.sqrt(3): 1 / 6}
    points = torch.tensor(list(itertools.product(nodes, repeat=3)), dtype=torch.float64)
    weights = torch.tensor([math.prod(w) for w in itertools.product(nodes.values(), repeat=3)], dtype=torch.float64)
    estimates = torch.stack([field.value_and_trace(0.6, z, noise=e.expand(3, 3))[1] for e in points])
    J = jacobian(field, 0.6, z)
    S = (J + J.mT) / 2
    mean = weights @ estimates
    close(mean, field.value_and_trace(0.6, z)[1], 1e-10)
    close(weights @ (estimates - mean) ** 2, 2 * S.square().sum((1, 2)), 1e-10)


class Spy(Linear):
    """Keeps the noise that the loss gives it."""

    def value_and_trace(self, t, z, noise=None):
        self.seen.append(noise)
        return super().value_and_trace(t, z)


def check_noise(lib):
    """One noise for the whole path, another for every row, of mean 0 and covariance one; none with the exact trace."""
    x = rows(20_000, 3)
    for trace, noise in (("hutchinson", "rademacher"), ("hutchinson", "gaussian"), ("exact", "rademacher")):
        spy = Spy(matrix(3))
        spy.seen = []
        lib.CNF(3, trace=trace, noise=noise, field=spy, steps=3).loss(x, generator=seeded())
        e = spy.seen[0]
        assert len(spy.seen) == 12 and all(s is e for s in spy.seen)
        if trace == "exact":
            assert e is None
            continue
        assert e.mean(0).abs().max() < 0.05 and (e.T.cov() - torch.eye(3)).abs().max() < 0.06
        assert (set(e.unique().tolist()) == {-1.0, 1.0}) == (noise == "rademacher")
        assert e[:, 0].abs().max() == 1 or (e**4).mean() == pytest.approx(3, abs=0.2)


def check_loss(lib):
    """The loss over all signs averages to the exact one: the path does not depend on the noise."""
    torch.manual_seed(0)
    model, x = lib.CNF(3, (8, 5, 4)).double(), rows(6, 3)
    signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3)), dtype=torch.float64)
    logdets = [model._transport(x, 0.0, 1.0, noise=e.expand(6, 3))[1] for e in signs]
    close(torch.stack(logdets).mean(0), model(x)[1], 1e-10)
    model.trace = "exact"
    assert model.loss_is_nll
    close(model.loss(x), -model.log_prob(x).mean(), 1e-12)


# --- adaptive steps and the adjoint ----------------------------------------------------------------------------------


def check_dopri5(lib):
    for model in (rough(lib.CNF(3, (9, 4)), 0.8), rough(lib.OTFlow(3, 7))):
        x = rows(10, 3)
        model.steps = 200
        z, logdet = model(x)
        assert model.evaluations == 800
        model.solver, model.rtol, model.atol = "dopri5", 1e-8, 1e-8
        close(model(x)[0], z, 1e-6)
        close(model(x)[1], logdet, 1e-6)
        fine = model.evaluations
        close(model.inverse(z)[0], x, 1e-6)
        close(model.sample(5, seeded()), model.inverse(_noise(model, 5))[0], 1e-6)
        model.rtol = model.atol = 1e-3
        model(x)
        assert 0 < model.evaluations < fine / 2


def _noise(model, n):
    return torch.randn(n, *model.event_shape, generator=seeded(), dtype=torch.float64)


def gradients(model, x):
    model.zero_grad()
    smooth = not hasattr(model, "costs")  # the residual's slope jumps at zero
    (model.loss(x, generator=seeded()) if smooth else sum(model.costs(x)[:2]).mean()).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def check_adjoint(lib):
    for model in (rough(lib.CNF(3, (6, 5, 4))), rough(lib.OTFlow(3, 7))):
        x = rows(10, 3)
        model.steps = 60
        fixed = gradients(model, x)
        model.solver, model.rtol, model.atol = "dopri5", 1e-8, 1e-8
        direct = gradients(model, x)
        before = model.evaluations
        model.adjoint = True
        adjoint = gradients(model, x)
        assert model.evaluations > before  # the second equation calls the field too
        assert fixed.abs().max() > 0.01
        scale = fixed.abs().max()
        assert (direct - fixed).abs().max() < 1e-6 * scale
        assert (adjoint - direct).abs().max() < 1e-6 * scale


def check_conformance(lib):
    torch.manual_seed(0)
    for model, d in (
        (lib.CNF(3, (9, 7), steps=24), 3),
        (lib.CNF(5, (7,), "exact", steps=24), 5),
        (lib.OTFlow(3, 7, steps=24), 3),
    ):
        ran = check_model(model, rows(11, d), tolerance=1e-4, samples=2000)
        assert {"logdet", "round_trip", "base", "samples", "gradients"} <= set(ran)
        assert ("likelihood_loss" in ran) == (d == 5)
    ran = check_model(lib.OTFlow(1, 5), rows(11, 1), tolerance=1e-4, samples=2000)
    assert "integral" in ran


CHECKS = {name: check for name, check in globals().items() if name.startswith("check_") and name != "check_model"}


@pytest.mark.parametrize("name", CHECKS)
def test_models_are_right(name):
    CHECKS[name](ode_flows)


BUGS = [  # a line as it is, and wrong, and the check that must notice
    ("f(t + dt / 2, _moved(state, k, dt / 2))", "f(t, _moved(state, k, dt / 2))", "check_orders"),
    ("a + 2 * (b + c) + d) / 6", "a + b + c + d) / 4", "check_orders"),
    ("k = f(t, state)", "k = f(t + dt, state) if method == 'euler' and t else f(0, state)", "check_orders"),
    ("dt = (t1 - t0)", "dt = abs(t1 - t0)", "check_state"),
    ("return logdet - (z", "return -logdet - (z", "check_gaussian"),
    ("math.log(2 * math.pi)).sum(1) / 2", "math.log(math.pi)).sum(1) / 2", "check_gaussian"),
    ("self._transport(check_data(z, self.event_shape, \"z\"), 1.0, 0.0)",
     "self._transport(check_data(z, self.event_shape, \"z\"), 0.0, 1.0)", "check_gaussian"),
    ("(w1 @ w3).T", "(w1 @ w3)[:, : w2.shape[0]].T if len(w1) == len(w2) else (w1 @ w3).T * 0.99", "check_traces"),
    ("F.linear(v, weight) * (1 - z * z)", "F.linear(v, weight) * (1 - z)", "check_tangents"),
    ("F.linear(v, weight) * (1 - z * z)", "F.linear(v, weight) * (1 + z * z)", "check_traces"),
    ("layer.bias + time.weight[:, 0] * t", "layer.bias + time.weight[:, 0]", "check_network"),
    ("(v * along).sum((0, 2))", "(v * along).mean(2).sum(0)", "check_rademacher"),
    ("(v * along).sum((0, 2))", "along.sum((0, 2))", "check_gaussian_noise"),
    ("2 * (draw < 0.5).to(x) - 1", "2 * (draw[:, :1] < 0.5).to(x).expand(x.shape) - 1", "check_noise"),
    ("2 * (draw < 0.5).to(x) - 1", "2 * draw - 1", "check_noise"),
    ("x.new_zeros(len(x))), t0, t1)", "x.new_zeros(len(x))), t0, 0.9 * t1)", "check_conformance"),
    ("return _log_normal(*self.forward(x))", "return 1.2 * _log_normal(*self.forward(x))", "check_conformance"),
    ("return self.trace == \"exact\"", "return False", "check_loss"),
    ("(outer * self.w) @ K1", "(outer * self.w) @ K1.T", "check_potential"),
    ("F.linear(s, self.A).square().sum(1) / 2", "F.linear(s, self.A).square().sum(1)", "check_phi"),
    ("torch.logaddexp(a, -a)", "torch.logaddexp(a, -0.5 * a)", "check_phi"),
    ("torch.logaddexp(a, -a)", "(a.exp() + (-a).exp()).log()", "check_potential"),
    ("((1 - inner * inner) * back) @ space", "(1 - inner * inner) @ space", "check_traces"),
    ("self.A[:, :-1].square().sum()", "self.A.square().sum()", "check_traces"),
    ("self.A[:, :-1].square().sum()", "self.A.square().sum()", "check_quadratic"),
    ("(1 - outer * outer) * self.w", "(1 - outer * outer)", "check_traces"),
    ("(gradient[:, -1] - kinetic).abs()", "(gradient[:, -1] + kinetic).abs()", "check_translation"),
    ("kinetic = gradient[:, :-1].square().sum(1) / 2", "kinetic = gradient[:, :-1].square().sum(1)", "check_paths"),
    ("self.alpha[0] * nll + transport", "nll + transport", "check_paths"),
    ("= tuple(self.parameters())", "= ()", "check_adjoint"),
    ('"atol": self.atol', '"atol": 1e-2', "check_dopri5"),
]  # fmt: skip


BAD = {  # what raises, the kind of error, and the argument it names
    "dim of 0": (lambda: CNF(0), ValueError, "dim"),
    "dim of 2.5": (lambda: OTFlow(2.5), TypeError, "dim"),
    "hidden as a number": (lambda: CNF(2, 64), TypeError, "hidden"),
    "hidden with a zero": (lambda: CNF(2, (8, 0)), ValueError, "hidden"),
    "hidden of OTFlow as a tuple": (lambda: OTFlow(2, (8, 8)), TypeError, "hidden"),
    "no hidden units in OTFlow": (lambda: OTFlow(2, 0), ValueError, "hidden"),
    "an unknown trace": (lambda: CNF(2, trace="full"), ValueError, "trace"),
    "an unknown noise": (lambda: CNF(2, noise="uniform"), ValueError, "noise"),
    "an unknown solver": (lambda: CNF(2, solver="heun"), ValueError, "solver"),
    "no steps": (lambda: CNF(2, steps=0), ValueError, "steps"),
    "half a step": (lambda: OTFlow(2, steps=2.5), TypeError, "steps"),
    "rtol of 0": (lambda: CNF(2, solver="dopri5", rtol=0), ValueError, "rtol"),
    "atol as a string": (lambda: CNF(2, atol="1e-5"), TypeError, "atol"),
    "the adjoint of rk4": (lambda: CNF(2, adjoint=True), ValueError, "adjoint"),
    "adjoint as a string": (lambda: CNF(2, solver="dopri5", adjoint="yes"), ValueError, "adjoint"),
    "a field without a trace": (lambda: CNF(2, field=lambda t, z: z), TypeError, "field"),
    "one alpha": (lambda: OTFlow(2, alpha=(1.0,)), ValueError, "alpha"),
    "a negative alpha": (lambda: OTFlow(2, alpha=(1.0, -1.0)), ValueError, "alpha"),
    "steps that became 0": (lambda: changed(steps=0).log_prob(rows(3, 2)), ValueError, "steps"),
    "a solver that became unknown": (lambda: changed(solver="rk5").sample(3), ValueError, "solver"),
    "costs of another width": (lambda: OTFlow(2).costs(rows(3, 3)), ValueError, "x"),
    "costs of NaN": (lambda: OTFlow(2).costs(rows(3, 2) * math.nan), ValueError, "x"),
    "an unknown method": (lambda: integrate(lambda t, z: z, rows(3, 2), 0, 1, 4, "heun"), ValueError, "method"),
    "a solution in no steps": (lambda: integrate(lambda t, z: z, rows(3, 2), 0, 1, 0), ValueError, "steps"),
}


def changed(**attributes):
    model = OTFlow(2, 5).double()
    vars(model).update(attributes)
    return model


@pytest.mark.parametrize("fault", BAD)
def test_bad_input_is_refused_by_name(fault):
    call, kind, name = BAD[fault]
    with pytest.raises(kind, match=rf"^{name}:"):
        call()


@pytest.mark.parametrize("right, wrong, name", BUGS)
def test_a_planted_bug_is_caught(right, wrong, name):
    assert SOURCE.count(right) == 1, "the line has changed: plant the bug anew"
    broken = types.ModuleType("broken")
    exec(compile(SOURCE.replace(right, wrong), "broken", "exec"), vars(broken))
    with pytest.raises((AssertionError, RuntimeError)):
        CHECKS[name](broken)
