"""Flows, beside nflows, torchdiffeq and zuko."""

import math

import torch
from torch import nn

from bench import Case, three_steps
from genlib.models.flows import NeuralSplineFlow, RealNVP, affine, spline
from genlib.models.ode_flows import CNF
from genlib.nets import mlp

ONE = math.log(math.expm1(1 - 1e-3))  # a slope of one, as nflows' splines count


class Network(nn.Sequential):
    """As nflows calls its networks."""

    def forward(self, x, context=None):
        return super().forward(x)


def network(*sizes: int) -> Network:
    return Network(*mlp(*sizes))


def affine_peer(sizes) -> nn.Module:
    from nflows.transforms.coupling import AffineCouplingTransform

    layer = AffineCouplingTransform([0, 1], lambda before, after: network(before, *sizes, after))
    layer.identity = torch.tensor([0.0, math.log(0.999 / 0.001) - 2])
    return layer


def spline_peer(sizes) -> nn.Module:
    from nflows.transforms.coupling import PiecewiseRationalQuadraticCouplingTransform

    layer = PiecewiseRationalQuadraticCouplingTransform(
        [0, 1], lambda before, after: network(before, *sizes, after), 8, "linear", 4.0
    )
    layer.identity = torch.tensor([0.0] * 16 + [ONE] * 7)
    return layer


def peer(make, layers: int, sizes) -> nn.Module:
    """Nflows' couplings of two numbers, which change places after each."""
    from nflows.transforms import CompositeTransform, ReversePermutation

    flow = CompositeTransform([part for _ in range(layers) for part in (make(sizes), ReversePermutation(2))])
    for layer in flow._transforms[::2]:
        blank(layer.transform_net, layer.identity)
    return flow


def blank(network, bias=0.0):
    """Last weights of zero: each layer is the identity then, at the cost of any other."""
    nn.init.zeros_(network[-1].weight)
    network[-1].bias.data.copy_(torch.as_tensor(bias))


def ours(model) -> nn.Module:
    for layer in model.layers:
        if hasattr(layer, "network"):
            blank(layer.network)
    return model


def nats(z, logdet):
    return (z**2).sum(1).mean() / 2 + math.log(2 * math.pi) - logdet.mean()


def plain(networks, transform):
    """The couplings written out."""

    def forward(x):
        total = 0
        for network in networks:
            a, b = x.split(1, 1)
            b, slopes = transform(b, network(a))
            x, total = torch.cat([b, a], 1), total + slopes[:, 0]
        return x, total

    return forward


KINDS = {
    "RealNVP": (lambda sizes: RealNVP(2, 8, sizes), affine_peer, 8, affine, 2),
    "Neural spline flow": (lambda sizes: NeuralSplineFlow(2, 4, sizes), spline_peer, 4, spline, 23),
}


def step(kind: str, sizes, batch: int) -> Case:
    """Training steps of Adam; a run is three of them. Judged is the first loss, which all share."""
    make, theirs, layers, transform, count = KINDS[kind]
    x = torch.randn(batch, 2, generator=torch.Generator().manual_seed(0))

    def trained(model, loss_of):
        def start():
            torch.manual_seed(0)
            network = model()
            return loss_of(network), torch.optim.Adam(network.parameters(), 0.0)

        return three_steps(start)

    def written_out():
        networks = nn.ModuleList(mlp(1, *sizes, count) for _ in range(layers))
        for network in networks:
            blank(network)
        return networks

    runs = {
        "genlib": trained(lambda: ours(make(sizes)).eval(), lambda model: lambda: model.loss(x)),
        "plain torch": trained(written_out, lambda networks: lambda: nats(*plain(networks, transform)(x))),
        "nflows": trained(lambda: peer(theirs, layers, sizes), lambda flow: lambda: nats(*flow(x))),
    }
    remark = "With last weights of zero and a learning rate of zero the loss is known; the work is the same."
    remark += f" Plain torch has genlib's {transform.__name__}."
    what = f"{kind} of {layers} layers {sizes[0]} - {sizes[1]}, three training steps, batches of {batch}"
    return Case(what, runs, lambda: nats(x.double(), torch.zeros(1)).item(), 1e-5, remark)


def draws(kind: str, sizes, n: int) -> Case:
    make, theirs, layers, transform, count = KINDS[kind]
    z = torch.randn(n, 2, generator=torch.Generator().manual_seed(0))
    model, other = ours(make(sizes)).eval(), []

    def nflows():
        other[:] = other or [peer(theirs, layers, sizes)]
        return other[0].inverse(z)[0]

    calls = {"genlib": lambda: model.inverse(z)[0], "genlib, log p of as many": lambda: model(z)[0], "nflows": nflows}
    runs = {name: torch.no_grad()(lambda call=call: 9 + call().sum(1).numpy()) for name, call in calls.items()}
    remark = "All layers are the identity, at the cost of any other; noise and data are then the same."
    truth = lambda: 9 + z.double().sum(1).numpy()  # noqa: E731
    return Case(f"{kind} of {layers} layers {sizes[0]} - {sizes[1]}, {n:,} draws", runs, truth, 1e-4, remark)


def continuous(sizes, batch: int, steps: int) -> Case:
    """Training steps of Adam on one field; all integrate by the classical Runge-Kutta method, with exact traces."""
    x = torch.randn(batch, 2, generator=torch.Generator().manual_seed(0))

    def trained(loss_of):
        def start():
            torch.manual_seed(0)
            model = CNF(2, sizes, trace="exact", steps=steps)
            return loss_of(model), torch.optim.Adam(model.parameters(), 0.0)

        return three_steps(start)

    def rates(field):
        """The field and its divergence, by automatic differentiation, as most write it."""

        def f(t, state):
            z = state[0].requires_grad_()
            h = field(t, z)
            parts = [torch.autograd.grad(h[:, i].sum(), z, create_graph=True)[0][:, i] for i in range(z.shape[1])]
            return h, sum(parts)

        return f

    def written_out(model):
        def loss():
            f, z, logdet, dt = rates(model.field), x, torch.zeros(batch), 1 / steps
            for t in torch.arange(steps) * dt:
                (a, p), half = f(t, (z,)), dt / 2
                (b, q) = f(t + half, (z + half * a,))
                (c, r) = f(t + half, (z + half * b,))
                (d, s) = f(t + dt, (z + dt * c,))
                z, logdet = z + dt / 6 * (a + 2 * b + 2 * c + d), logdet + dt / 6 * (p + 2 * q + 2 * r + s)
            return nats(z, logdet)

        return loss

    def torchdiffeq(model):
        def loss():
            from torchdiffeq import odeint

            start, times = (x, torch.zeros(batch)), torch.linspace(0, 1, steps + 1)
            z, logdet = odeint(rates(model.field), start, times, method="rk4", options={"perturb": False})
            return nats(z[-1], logdet[-1])

        return loss

    def truth():
        torch.manual_seed(0)
        model = CNF(2, sizes, trace="exact", solver="dopri5", rtol=1e-8, atol=1e-8).double()
        return model.loss(x.double()).item()

    runs = {
        "genlib": trained(lambda model: lambda: model.loss(x)),
        "plain torch": trained(written_out),
        "torchdiffeq": trained(torchdiffeq),
    }
    remark = "Genlib carries the trace through its layers; the others differentiate the field at each call."
    what = (
        f"Continuous flow 2 - {sizes[0]} - {sizes[1]} - 2, {steps} RK4 steps, three training steps, batches of {batch}"
    )
    return Case(what, runs, truth, 1e-3, remark)


def cases(small: bool = False):
    sizes, batch, n = ((8, 8), 20, 50) if small else ((64, 64), 512, 10_000)
    for kind in KINDS:
        yield step(kind, sizes, batch)
        yield draws(kind, sizes, n)
    yield continuous(sizes, batch, 8)
