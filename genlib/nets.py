"""What several families share: a plain network, and what a network's outputs say about the data."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlib.contract import check_choice, check_count, check_data, check_positive, rand, randn


def mlp(*sizes: int, activation=nn.ReLU) -> nn.Sequential:
    """A multilayer perceptron ``sizes[0] -> ... -> sizes[-1]`` with ``activation`` between layers, none at the end.

    ``mlp(2, 64, 64, 1)`` has two hidden layers of 64 units. Input ``(..., sizes[0])``, output ``(..., sizes[-1])``.
    Raises ValueError for fewer than two sizes, TypeError or ValueError for one that is not a whole number above zero.
    """
    if len(sizes) < 2:
        raise ValueError(f"sizes: expected at least an input and an output width, got {sizes!r}")
    sizes, layers = [check_count(size, "sizes") for size in sizes], []
    for width_in, width_out in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(width_in, width_out), activation()]
    return nn.Sequential(*layers[:-1])


@torch.no_grad()
def spread(layer: nn.Linear, dim: int, reach: float):
    """Start a first layer anew, its units' bends spread evenly within ``reach`` of the origin, where the data are.

    torch's own start crowds them at the origin, and learns edges that are far from it slowly. ``dim``: the width of the
    data, which may be less than that of the layer's input.
    """
    layer.weight.normal_(0, math.sqrt(2 / dim))
    layer.bias.uniform_(-1, 1).mul_(check_positive(reach, "reach") * layer.weight.norm(dim=1))


def input_width(network, name: str) -> int | None:
    """The input width of a network that begins with a linear layer, None for one that begins otherwise."""
    if not isinstance(network, nn.Module):
        raise TypeError(f"{name}: expected a torch.nn.Module, got {type(network).__name__}")
    first = next((layer for layer in network.modules() if not list(layer.children())), None)
    return first.in_features if isinstance(first, nn.Linear) else None


def shape_of_events(network, event_shape, name: str) -> tuple[int, ...]:
    """The shape of one example: as given, or the input width of the network that takes it."""
    width = input_width(network, name)
    if event_shape is None and width is None:
        raise ValueError(f"event_shape: expected a shape, as {name} does not begin with a linear layer; got None")
    return tuple(check_count(size, "event_shape") for size in ((width,) if event_shape is None else event_shape))


class Likelihood:
    """``p(x | out)``: the law of an example of D values that a network's ``out`` ``(..., O)`` stands for.

    - "bernoulli", O = D: the logits of independent bits; for values between 0 and 1, minus their cross-entropy.
    - "gaussian", O = D: means, of variance one. O = 2 D: D means, then D log-variances. O = K (1 + 2 D): for each of K
      components a logit, D means and D log-variances (C. Bishop, Mixture density networks, Aston University, 1994).

    Leading dimensions broadcast. ``check(x)`` raises as :func:`genlib.contract.check_data` does, and ValueError for
    bits outside [0, 1]; all else raises ValueError for another O.
    """

    def __init__(self, kind: str, event_shape):
        self.kind = check_choice(kind, ("bernoulli", "gaussian"), "likelihood")
        self.event_shape, self.dim = tuple(event_shape), math.prod(event_shape)

    def check(self, x: Tensor, name: str = "x") -> Tensor:
        low, high = check_data(x, self.event_shape, name).detach().aminmax()
        if self.kind == "bernoulli" and not (low >= 0 and high <= 1):
            raise ValueError(f"{name}: expected values from 0 to 1 for bernoulli, got {low:.3g} to {high:.3g}")
        return x

    def parts(self, out: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """The bits' logits ``(..., D)``, or the log-weights ``(..., K)``, means and log-variances ``(..., K, D)``."""
        d, width = self.dim, out.shape[-1]
        if width == d:
            out = out if self.kind == "bernoulli" else torch.cat([out, torch.zeros_like(out)], -1)
        elif self.kind == "bernoulli" or (width != 2 * d and width % (1 + 2 * d)):
            wanted = d if self.kind == "bernoulli" else f"{d}, {2 * d} or K times {1 + 2 * d}"
            raise ValueError(f"network: expected {wanted} outputs for D = {d} and {self.kind}, got {width}")
        if self.kind == "bernoulli":
            return out
        if width <= 2 * d:
            return out.new_zeros(*out.shape[:-1], 1), *out[..., None, :].split(d, -1)
        logits, mu, logvar = out.unflatten(-1, (-1, 1 + 2 * d)).split([1, d, d], -1)
        return logits[..., 0].log_softmax(-1), mu, logvar

    def log_prob(self, x: Tensor, out: Tensor) -> Tensor:
        """``log p(x | out)`` in nats for ``x`` ``(..., D)``, shape ``(...)``."""
        if self.kind == "bernoulli":
            logits = self.parts(out)
            return -F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(-1)
        log_weight, mu, logvar = self.parts(out)
        log_normal = -((x[..., None, :] - mu).square() / logvar.exp() + logvar + math.log(2 * math.pi)) / 2
        return (log_weight + log_normal.sum(-1)).logsumexp(-1)

    def mean(self, out: Tensor) -> Tensor:
        """``E[x | out]``, shape ``(..., D)``."""
        if self.kind == "bernoulli":
            return self.parts(out).sigmoid()
        log_weight, mu, _ = self.parts(out)
        return (log_weight.exp()[..., None] * mu).sum(-2)

    def sample(self, out: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A draw from ``p(x | out)`` for each row of ``out`` ``(B, O)``, shape ``(B, D)``."""
        parts = self.parts(out)
        if self.kind == "bernoulli":
            return (rand(*parts.shape, like=parts, generator=generator) < parts.sigmoid()).to(parts.dtype)
        log_weight, mu, logvar = parts
        u = rand(len(mu), 1, like=mu, generator=generator)
        k = (log_weight.exp().cumsum(1) < u).sum(1).clamp_max(mu.shape[1] - 1)
        rows, eps = torch.arange(len(mu), device=mu.device), randn(*mu.shape[::2], like=mu, generator=generator)
        return mu[rows, k] + (logvar[rows, k] / 2).exp() * eps
