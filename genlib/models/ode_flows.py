"""Continuous flows: data flow into noise along an ordinary differential equation, and back.

Time runs from the data, t = 0, to the noise, t = 1. Along a path the density changes by the trace of the Jacobian alone
(R. Chen, Y. Rubanova, J. Bettencourt and D. Duvenaud, Neural ordinary differential equations, NeurIPS, 2018)::

    dz/dt = h(t, z)      d log p(z)/dt = -tr dh/dz      log p(x) = log N(z(1); 0, I) + integral tr dh/dz dt

- ``CNF``: ``h`` is any network, and training may estimate the trace by one random vector (FFJORD; W. Grathwohl,
  R. Chen, J. Bettencourt, I. Sutskever and D. Duvenaud, ICLR, 2019; M. Hutchinson, Communications in Statistics, 1990).
- ``OTFlow``: ``h`` is minus the gradient of a potential, whose trace is known in closed form, and the loss asks for
  straight paths (D. Onken, S. Wu Fung, X. Li and L. Ruthotto, OT-Flow, AAAI, 2021).

The fields carry tangents through their layers themselves: a training step is one pass back through matrix products.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlib.contract import check_choice, check_count, check_data, check_generator, check_positive, rand, randn
from genlib.nets import spread


def integrate(f, state, t0: float, t1: float, steps: int, method: str = "rk4"):
    """Solve ``ds/dt = f(t, s)`` from ``t0`` to ``t1``, either way, in ``steps`` equal steps.

    ``state``: a tensor, or a tuple of them, and ``f`` returns the same. ``method``: "euler", whose error falls as the
    step, or "rk4", the classical Runge-Kutta method, whose error falls as its fourth power at four calls of ``f``.
    """
    check_choice(method, ("euler", "rk4"), "method")
    if isinstance(state, Tensor):
        return integrate(lambda t, s: (f(t, *s),), (state,), t0, t1, steps, method)[0]
    dt = (t1 - t0) / check_count(steps, "steps")
    for t in (t0 + i * dt for i in range(steps)):
        k = f(t, state)
        if method == "rk4":
            k2 = f(t + dt / 2, _moved(state, k, dt / 2))
            k3 = f(t + dt / 2, _moved(state, k2, dt / 2))
            k4 = f(t + dt, _moved(state, k3, dt))
            k = tuple((a + 2 * (b + c) + d) / 6 for a, b, c, d in zip(k, k2, k3, k4, strict=True))
        state = _moved(state, k, dt)
    return state


def _moved(state, slopes, by):
    return tuple(s + by * slope for s, slope in zip(state, slopes, strict=True))


class ContinuousFlow(nn.Module):
    """What the two share: a ``field``, a solver, and the exact density.

    A field is called as ``field(t, z)``, which gives ``h`` ``(B, dim)``, and as ``field.value_and_trace(t, z)``, which
    gives ``h`` and ``tr dh/dz`` ``(B,)``.

    ``solver``: "rk4" or "euler" with ``steps`` equal steps, or torchdiffeq's adaptive "dopri5" with the tolerances
    ``rtol`` and ``atol``, where ``adjoint`` gets gradients by a second equation, solved backwards, in place of stored
    steps. All may be changed at any time. ``evaluations`` counts the calls of the field since the last solution began.
    """

    base = "normal"

    def __init__(self, dim, field, *, solver="rk4", steps=16, rtol=1e-5, atol=1e-5, adjoint=False):
        super().__init__()
        if not (callable(field) and callable(getattr(field, "value_and_trace", None))):
            raise TypeError(f"field: expected a function with a method value_and_trace, got {field!r}")
        self.event_shape, self.field, self.evaluations = (check_count(dim, "dim"),), field, 0
        self.solver, self.steps, self.rtol, self.atol, self.adjoint = solver, steps, rtol, atol, adjoint
        self._check_solver()

    def _check_solver(self):
        check_choice(self.solver, ("euler", "rk4", "dopri5"), "solver")
        check_count(self.steps, "steps")
        check_positive(self.rtol, "rtol")
        check_positive(self.atol, "atol")
        if self.adjoint not in (False, True) or (self.adjoint and self.solver != "dopri5"):
            raise ValueError(f"adjoint: expected False, or True with dopri5, got {self.adjoint} with {self.solver}")

    def _solve(self, f, state, t0: float = 0.0, t1: float = 1.0):
        self._check_solver()
        self.evaluations = 0

        def counted(t, state):
            self.evaluations += 1
            return f(t, state)

        if self.solver != "dopri5":
            return integrate(counted, state, t0, t1, self.steps, self.solver)
        from torchdiffeq import odeint, odeint_adjoint

        options = {"rtol": self.rtol, "atol": self.atol, "method": self.solver}
        if self.adjoint:
            options["adjoint_params"] = tuple(self.parameters())
        path = (odeint_adjoint if self.adjoint else odeint)(counted, state, state[0].new_tensor([t0, t1]), **options)
        return tuple(s[-1] for s in path)

    def _transport(self, x: Tensor, t0: float, t1: float, **noise) -> tuple[Tensor, Tensor]:
        return self._solve(lambda t, s: self.field.value_and_trace(t, s[0], **noise), (x, x.new_zeros(len(x))), t0, t1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``z`` ``(B, dim)`` and the exact ``log |det dz/dx|`` ``(B,)``."""
        return self._transport(check_data(x, self.event_shape), 0.0, 1.0)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """``x`` and the exact ``log |det dx/dz|``: the same equation, solved backwards."""
        return self._transport(check_data(z, self.event_shape, "z"), 1.0, 0.0)

    def log_prob(self, x: Tensor) -> Tensor:
        """``log p(x)`` in nats, shape ``(B,)``: its trace is exact, its error that of the solver."""
        return _log_normal(*self.forward(x))

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """``n`` draws, shape ``(n, dim)``."""
        like = next(self.parameters(), torch.empty(0))
        z = randn(check_count(n), *self.event_shape, like=like, generator=generator)
        return self._solve(lambda t, s: (self.field(t, *s),), (z,), 1.0, 0.0)[0]


def _log_normal(z: Tensor, logdet: Tensor) -> Tensor:
    return logdet - (z.square() + math.log(2 * math.pi)).sum(1) / 2


class TanhField(nn.Module):
    """``h(t, z)``, a network of tanh layers whose biases move with time: ``a <- tanh(W a + b + U t)``.

    The first layer's units start with their bends within ``reach`` of the origin, see :func:`genlib.nets.spread`.
    """

    def __init__(self, dim: int, hidden=(64, 64), reach: float = 4.0):
        super().__init__()
        if not isinstance(hidden, tuple | list):
            raise TypeError(f"hidden: expected a tuple of widths, got {hidden!r}")
        widths = [check_count(dim, "dim"), *(check_count(width, "hidden") for width in hidden), dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:], strict=False))
        self.times = nn.ModuleList(nn.Linear(1, b, bias=False) for b in widths[1:])
        spread(self.layers[0], dim, reach)

    def _at(self, t) -> list[tuple[Tensor, Tensor]]:
        """Weight and bias of each layer at time ``t``."""
        pairs = zip(self.layers, self.times, strict=True)
        return [(layer.weight, layer.bias + time.weight[:, 0] * t) for layer, time in pairs]

    def forward(self, t, z: Tensor) -> Tensor:
        *hidden, last = self._at(t)
        for weight, bias in hidden:
            z = F.linear(z, weight, bias).tanh()
        return F.linear(z, *last)

    def jvp(self, t, z: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """``h`` ``(B, dim)`` and ``(dh/dz) v`` for K tangents ``v`` ``(K, B, dim)`` in one pass.

        Where ``a = tanh(c)``, a tangent ``dc`` becomes ``(1 - a^2) dc``. ``v`` may be ``(K, 1, dim)``, for all rows.
        """
        *hidden, last = self._at(t)
        for weight, bias in hidden:
            z = F.linear(z, weight, bias).tanh()
            v = F.linear(v, weight) * (1 - z * z)
        return F.linear(z, *last), F.linear(v, last[0])

    def value_and_trace(self, t, z: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``h`` and ``tr dh/dz``; with ``noise`` e ``(B, dim)`` the estimate ``e^T (dh/dz) e`` in its place.

        The trace needs ``dim`` tangents, the estimate one. With two hidden layers it needs none: with the slopes s of
        the layers it is ``s_2^T (W_2 * (W_1 W_3)^T) s_1``, one matrix product whatever ``dim``.
        """
        if noise is None and len(self.layers) == 3:
            (w1, b1), (w2, b2), (w3, b3) = self._at(t)
            a1 = F.linear(z, w1, b1).tanh()
            a2 = F.linear(a1, w2, b2).tanh()
            trace = (F.linear(1 - a1 * a1, w2 * (w1 @ w3).T) * (1 - a2 * a2)).sum(1)
            return F.linear(a2, w3, b3), trace
        v = torch.eye(z.shape[1]).to(z)[:, None] if noise is None else noise[None]
        h, along = self.jvp(t, z, v)
        return h, (v * along).sum((0, 2)).expand(len(z))


class CNF(ContinuousFlow):
    """FFJORD: ``h`` is a :class:`TanhField` of ``hidden`` layers, or a ``field`` of your own.

    ``trace``: what the loss uses, "exact" or "hutchinson", the estimate ``e^T (dh/dz) e`` with one ``noise`` e for
    the whole path, "rademacher" (-1 or 1) or "gaussian". The density is exact with either. Other keywords are those of
    :class:`ContinuousFlow`.
    """

    def __init__(self, dim: int, hidden=(64, 64), trace="hutchinson", *, noise="rademacher", field=None, **solver):
        super().__init__(dim, TanhField(dim, hidden) if field is None else field, **solver)
        self.trace = check_choice(trace, ("exact", "hutchinson"), "trace")
        self.noise = check_choice(noise, ("rademacher", "gaussian"), "noise")

    @property
    def loss_is_nll(self) -> bool:
        return self.trace == "exact"

    def loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The mean of ``-log p(x)`` over the batch in nats; with "hutchinson" an unbiased estimate of it."""
        check_generator(generator)
        x, noise = check_data(x, self.event_shape), {}
        if self.trace == "hutchinson":
            gaussian = self.noise == "gaussian"
            draw = (randn if gaussian else rand)(*x.shape, like=x, generator=generator)
            noise = {"noise": draw if gaussian else 2 * (draw < 0.5).to(x) - 1}
        return -_log_normal(*self._transport(x, 0.0, 1.0, **noise)).mean()


class Potential(nn.Module):
    """``h = -grad_x Phi`` of the potential ``Phi(s) = w^T N(s) + 1/2 s^T (A^T A) s + b^T s`` at ``s = (x, t)``.

    ``N`` is a residual network of width m, ``u_0 = sigma(K_0 s + b_0)``, ``N = u_0 + sigma(K_1 u_0 + b_1)``, where
    ``sigma(a) = |a| + log(1 + exp(-2 |a|)) = log(e^a + e^-a)`` has the derivative tanh. ``A`` has at most 10 rows.
    Gradient and trace are the paper's closed forms. ``reach`` is that of :class:`TanhField`; the potential learns the
    toys of the course best from bends near the origin.
    """

    def __init__(self, dim: int, hidden: int = 32, reach: float = 1.0):
        super().__init__()
        self.opening = nn.Linear(check_count(dim, "dim") + 1, check_count(hidden, "hidden"))
        self.layer = nn.Linear(hidden, hidden)
        self.w, self.b = nn.Parameter(torch.full((hidden,), 1 / hidden)), nn.Parameter(torch.zeros(dim + 1))
        self.A = nn.Parameter(torch.empty(min(10, dim + 1), dim + 1))
        nn.init.xavier_uniform_(self.A)
        spread(self.opening, dim, reach)

    def value(self, t, x: Tensor) -> Tensor:
        """``Phi(x, t)``, shape ``(B,)``."""
        s = _with_time(x, t)
        u = _sigma(self.opening(s))
        return (u + _sigma(self.layer(u))) @ self.w + F.linear(s, self.A).square().sum(1) / 2 + s @ self.b

    def gradient(self, t, x: Tensor) -> Tensor:
        """``grad_s Phi``, shape ``(B, dim + 1)``; its last column is ``dPhi/dt``."""
        return self.derivatives(t, x, laplacian=False)[0]

    def derivatives(self, t, x: Tensor, laplacian=True) -> tuple[Tensor, Tensor | None]:
        """``grad_s Phi`` and the Laplacian ``tr d^2 Phi / dx^2`` ``(B,)``, at ``dim`` products with ``K_1``."""
        s, K0, K1 = _with_time(x, t), self.opening.weight, self.layer.weight
        a = self.opening(s)
        inner, outer = a.tanh(), self.layer(_sigma(a)).tanh()  # sigma' of both layers
        back = self.w + (outer * self.w) @ K1  # dPhi / du_0
        gradient = (inner * back) @ K0 + F.linear(s, self.A) @ self.A + self.b
        if not laplacian:
            return gradient, None
        space = K0.T[:-1]  # without the column for time; its rows are coordinates
        moved = F.linear(inner * space[:, None], K1)  # K_1 du_0 / dx_k, shape (dim, B, m)
        bent = ((1 - inner * inner) * back) @ space.square().sum(0)
        bent = bent + ((1 - outer * outer) * self.w * moved.square().sum(0)).sum(1)
        return gradient, bent + self.A[:, :-1].square().sum()

    def forward(self, t, x: Tensor) -> Tensor:
        return -self.gradient(t, x)[:, :-1]

    def value_and_trace(self, t, x: Tensor) -> tuple[Tensor, Tensor]:
        gradient, laplacian = self.derivatives(t, x)
        return -gradient[:, :-1], -laplacian


def _sigma(a: Tensor) -> Tensor:
    return torch.logaddexp(a, -a)


def _with_time(x: Tensor, t) -> Tensor:
    return torch.cat([x, torch.as_tensor(t, dtype=x.dtype, device=x.device).expand(len(x), 1)], 1)


class OTFlow(ContinuousFlow):
    """Optimal-transport flow: ``h = -grad Phi`` of a :class:`Potential` with ``hidden`` units a layer.

    A flow of least kinetic energy follows a potential with ``dPhi/dt = |grad Phi|^2 / 2`` (Hamilton, Jacobi, Bellman),
    and its paths are straight. So the loss is ``alpha_1 NLL + transport cost + alpha_2 HJB residual`` with ``alpha`` =
    (alpha_1, alpha_2), of which the second may be zero, and few steps solve the equation.
    """

    def __init__(self, dim: int, hidden: int = 32, *, alpha=(100.0, 15.0), steps=8, **solver):
        super().__init__(dim, Potential(dim, hidden), steps=steps, **solver)
        if not isinstance(alpha, tuple | list) or len(alpha) != 2:
            raise ValueError(f"alpha: expected two weights, of the NLL and of the residual, got {alpha!r}")
        self.alpha = check_positive(alpha[0], "alpha"), check_positive(alpha[1], "alpha") if alpha[1] != 0 else 0.0

    def costs(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``-log p(x)``, transport cost ``integral |h|^2 / 2 dt`` and HJB residual along each path, each ``(B,)``."""
        x = check_data(x, self.event_shape)

        def rates(t, state):
            gradient, laplacian = self.field.derivatives(t, state[0])
            kinetic = gradient[:, :-1].square().sum(1) / 2
            return -gradient[:, :-1], -laplacian, kinetic, (gradient[:, -1] - kinetic).abs()

        z, logdet, transport, residual = self._solve(rates, (x, *x.new_zeros(3, len(x))))
        return -_log_normal(z, logdet), transport, residual

    def loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """``alpha_1 NLL + transport cost + alpha_2 HJB residual``, averaged over the batch; it draws no noise."""
        check_generator(generator)
        nll, transport, residual = self.costs(x)
        return (self.alpha[0] * nll + transport + self.alpha[1] * residual).mean()
