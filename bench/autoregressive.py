"""Autoregressive networks, beside nflows and beside the plain loop that runs the whole network for every pixel."""

import functools

import torch
import torch.nn.functional as F

from bench import Case, three_steps
from genlib.models.autoregressive import MADE, NADE
from genlib.models.pixels import PixelCNN


def peer(dim: int, hidden: int):
    """Nflows' MADE of two hidden layers, made to give logits."""
    from nflows.transforms.made import MADE as Peer

    return Peer(dim, hidden, num_blocks=1, activation=F.relu)


def ours(dim: int, hidden: int):
    return MADE(dim, (hidden, hidden))


def blank(model, bias):
    """Last weights of zero: then networks whose masks differ have the same outputs, at the same cost."""
    last = model.layers[-1] if isinstance(model, MADE) else model.final_layer
    torch.nn.init.zeros_(last.weight)
    last.bias.data.copy_(bias)
    return model


def plain_logits(model):
    """The logits of genlib's MADE in three lines of torch; its few direct connections are left out."""
    masks = [model.mask_0, model.mask_1, model.mask_2]

    def logits(x):
        for layer, mask in zip(model.layers, masks, strict=True):
            x = F.linear(x if layer is model.layers[0] else x.relu(), layer.weight * mask, layer.bias)
        return x

    return logits


def step(dim: int, hidden: int, batch: int) -> Case:
    """Training steps of Adam; a run is three of them. Judged is the first loss, which all networks share."""
    x = (torch.rand(batch, dim, generator=torch.Generator().manual_seed(0)) < 0.3).float()

    def trained(make, loss_of):
        def start():
            torch.manual_seed(0)
            model = blank(make(dim, hidden), torch.zeros(dim))
            return loss_of(model), torch.optim.Adam(model.parameters(), 0.0)

        return three_steps(start)

    def bits(logits):
        return lambda: F.binary_cross_entropy_with_logits(logits(x), x, reduction="sum") / batch

    runs = {
        "genlib": trained(ours, lambda model: lambda: model.loss(x)),
        "plain torch": trained(ours, lambda model: bits(plain_logits(model))),
        "nflows": trained(peer, bits),
    }
    remark = "With last weights of zero and a learning rate of zero the loss is known; the work is the same."
    what = f"MADE {dim} - {hidden} - {hidden} - {dim}, three training steps, batches of {batch}"
    return Case(what, runs, lambda: dim * torch.tensor(2.0).log().item(), 1e-5, remark)


def draws(dim: int, hidden: int, n: int) -> Case:
    bias = torch.randn(dim, generator=torch.Generator().manual_seed(1))

    def noise():
        return torch.rand(n, dim, generator=torch.Generator().manual_seed(2))

    def passes(logits):
        u, x = noise(), torch.zeros(n, dim)
        for i in range(dim):
            x[:, i] = (u[:, i] < logits(x)[:, i].sigmoid()).float()
        return 1 + x.sum(1).numpy()

    model, theirs = blank(ours(dim, hidden), bias), functools.cache(lambda: blank(peer(dim, hidden), bias))
    runs = {
        "genlib": lambda: 1 + model.sample(n, torch.Generator().manual_seed(2)).sum(1).numpy(),
        "plain torch": lambda: passes(plain_logits(model)),
        "nflows": lambda: passes(theirs()),
    }
    runs = {name: torch.no_grad()(run) for name, run in runs.items()}
    remark = "Genlib computes each hidden unit once, as its inputs are drawn; the others run the network for every bit."
    truth = lambda: 1 + (noise() < bias.sigmoid()).sum(1).numpy()  # noqa: E731
    return Case(f"MADE {dim} - {hidden} - {hidden} - {dim}, {n} draws", runs, truth, 1e-12, remark)


def likelihood(dim: int, hidden: int, batch: int) -> Case:
    torch.manual_seed(0)
    model = NADE(dim, hidden)
    x = (torch.rand(batch, dim) < 0.3).float()

    def written_out(x, W, V, b, c):
        """The running sum, one bit after the other."""
        a, total = c.expand(len(x), -1), 0
        for i in range(dim):
            logit = a.sigmoid() @ V[i] + b[i]
            total = total + x[:, i] * logit - F.softplus(logit)
            a = a + x[:, i : i + 1] * W[i]
        return total.numpy()

    weights = model.W, model.V, model.b, model.c
    runs = {"genlib": lambda: model.log_prob(x).numpy(), "plain torch": lambda: written_out(x, *weights)}
    runs = {name: torch.no_grad()(run) for name, run in runs.items()}
    truth = torch.no_grad()(lambda: written_out(x.double(), *(p.double() for p in weights)))
    return Case(f"NADE {dim} - {hidden}, likelihood of {batch} rows", runs, truth, 1e-5)


def pixels(side: int, n: int) -> Case:
    torch.manual_seed(0)
    model = PixelCNN((1, side, side), maps=16, blocks=3).double()

    def passes():
        u = torch.rand(n, 1, side, side, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        x = torch.zeros(n, 1, side, side, dtype=torch.int64)
        for i in range(side * side):
            p = model._logits(x, {})[0].reshape(n, -1, 2)[:, i].softmax(1)
            x.view(n, -1)[:, i] = (p[:, 0] <= u.view(n, -1)[:, i]).long()
        return 1 + x.sum((1, 2, 3)).numpy()

    runs = {
        "genlib": lambda: 1 + model.sample(n, torch.Generator().manual_seed(2)).sum((1, 2, 3)).numpy(),
        "plain torch": passes,
    }
    runs = {name: torch.no_grad()(run) for name, run in runs.items()}
    remark = (
        "Genlib computes the row that it draws and keeps those above. Plain torch runs the network for every pixel."
    )
    return Case(f"PixelCNN {side} by {side}, {n} draws", runs, torch.no_grad()(passes), 1e-12, remark)


def cases(small: bool = False):
    dim, hidden = (20, 30) if small else (784, 500)
    yield step(dim, hidden, 10 if small else 100)
    yield draws(dim, hidden, 8 if small else 64)
    yield likelihood(dim, hidden, 10 if small else 100)
    yield pixels(6 if small else 28, 4)
