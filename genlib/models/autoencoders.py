"""Autoencoders: a network that gives its input back, through a narrow code or from a damaged copy.

The narrow one learns where the data lie: with linear layers it finds the plane of the principal components (P. Baldi
and K. Hornik, Neural Networks, 1989; G. Hinton and R. Salakhutdinov, Science, 2006). It has no rule for drawing a code,
so it has no ``sample``. The denoising one learns ``P(X | X~)``, what the data were before they were damaged (P. Vincent
et al., ICML, 2008). Damage and repair in turn are a Markov chain whose stationary law is that of the data (Y. Bengio,
L. Yao, G. Alain and P. Vincent, Generalized denoising auto-encoders as generative models, NeurIPS, 2013).
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlib.contract import check_choice, check_count, check_data, check_generator, check_positive, rand, randn


def _width(network, name: str) -> int | None:
    """The input width of a network that begins with a linear layer, None for one that begins otherwise."""
    if not isinstance(network, nn.Module):
        raise TypeError(f"{name}: expected a torch.nn.Module, got {type(network).__name__}")
    first = next((layer for layer in network.modules() if not list(layer.children())), None)
    return first.in_features if isinstance(first, nn.Linear) else None


def _event_shape(network, event_shape, name: str) -> tuple[int, ...]:
    """The shape of one example: as given, or the input width of the network."""
    width = _width(network, name)
    if event_shape is None and width is None:
        raise ValueError(f"event_shape: expected a shape, as {name} does not begin with a linear layer; got None")
    return tuple(check_count(size, "event_shape") for size in ((width,) if event_shape is None else event_shape))


def _check_binary(x: Tensor, likelihood: str) -> Tensor:
    if likelihood == "bernoulli" and not ((x >= 0) & (x <= 1)).all():
        raise ValueError(f"x: expected values from 0 to 1 for bernoulli, got {x.min():.3g} to {x.max():.3g}")
    return x


class Autoencoder(nn.Module):
    """``x -> z = encoder(x) -> decoder(z)``, trained to end where it began.

    ``likelihood`` "gaussian": the decoder gives the mean ``x^`` of a normal law of variance one, and the loss is
    ``|x - x^|^2 / 2``, which leaves out its constant ``D/2 log 2 pi``. "bernoulli", for data from 0 to 1: it gives
    logits, and the loss is their cross-entropy with ``x``. Both are nats, summed over an example, averaged over the
    batch. ``event_shape`` ``None`` is the width of the encoder's first layer, which must then be linear.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, likelihood: str = "gaussian", event_shape=None):
        super().__init__()
        self.event_shape = _event_shape(encoder, event_shape, "encoder")
        width = _width(decoder, "decoder")
        self.encoder, self.decoder, self._code_shape = encoder, decoder, width and (width,)
        self.likelihood = check_choice(likelihood, ("gaussian", "bernoulli"), "likelihood")

    def encode(self, x: Tensor) -> Tensor:
        """The code ``z`` of each example, ``(B, ...)`` as the encoder gives it."""
        return self.encoder(check_data(x, self.event_shape))

    def decode(self, z: Tensor) -> Tensor:
        """The mean of ``x`` given ``z``, shape ``(B, *event_shape)``."""
        shape = self._code_shape or (tuple(z.shape[1:]) if isinstance(z, Tensor) else None)
        out = self._outputs(check_data(z, shape, "z"))
        return out.sigmoid() if self.likelihood == "bernoulli" else out

    def _outputs(self, z: Tensor) -> Tensor:
        out = self.decoder(z)
        if out.numel() != len(z) * math.prod(self.event_shape):
            raise ValueError(f"decoder: expected outputs for shape {self.event_shape}, got {tuple(out.shape[1:])}")
        return out.reshape(len(z), *self.event_shape)

    def error(self, x: Tensor) -> Tensor:
        """How badly each example is given back, its share of the loss in nats, shape ``(B,)``; a score of oddity."""
        out = self._outputs(self.encode(_check_binary(check_data(x, self.event_shape), self.likelihood)))
        if self.likelihood == "bernoulli":
            return F.binary_cross_entropy_with_logits(out, x, reduction="none").flatten(1).sum(1)
        return (x - out).square().flatten(1).sum(1) / 2

    def loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The mean of :meth:`error`; nothing in it is random."""
        return self.error(x).mean()


def gaussian_noise(std: float) -> Callable:
    """The corruption ``C(X~ | X) = N(X, std^2)``, a function of ``(x, generator)``."""
    check_positive(std, "std")
    return lambda x, generator=None: x + std * randn(*x.shape, like=x, generator=generator)


def salt_and_pepper(share: float) -> Callable:
    """The corruption that sets each value, with this probability, to 0 or 1, a fair coin each."""
    if check_positive(share, "share") > 1:
        raise ValueError(f"share: expected a probability, got {share!r}")

    def corrupt(x, generator=None):
        hit, coin = rand(2, *x.shape, like=x, generator=generator)
        return torch.where(hit < share, (coin < 0.5).to(x.dtype), x)

    return corrupt


class DenoisingAutoencoder(nn.Module):
    """``P(X | X~)``, learnt from pairs of an example and its damaged copy; ``loss = -log P(x | x~)`` in nats.

    ``corruption(x, generator)`` draws ``x~``. The last dimension of ``network(x~)`` tells the law of ``x``:

    - "bernoulli": as many outputs as ``x`` has values, the logits of independent bits (or of values from 0 to 1);
    - "gaussian": ``K (1 + 2 D)`` outputs, for each of K components a logit, D means and D log-variances. One component
      is right where the damage is small, several where the damage could have come from more than one place.

    ``walkback`` trains on damage done again and again: with ``k`` above 0, ``x~`` is also taken after 1 to ``k`` rounds
    of repair and damage, and the target stays ``x``, which teaches the network to walk back from where the chain strays
    (Bengio et al., 2013). ``event_shape`` as in :class:`Autoencoder`.
    """

    def __init__(self, network, corruption: Callable, likelihood="gaussian", walkback: int = 0, event_shape=None):
        super().__init__()
        self.event_shape = _event_shape(network, event_shape, "network")
        if not callable(corruption):
            raise TypeError(f"corruption: expected a function of x and a generator, got {type(corruption).__name__}")
        self.network, self.corruption = network, corruption
        self.likelihood = check_choice(likelihood, ("gaussian", "bernoulli"), "likelihood")
        self.walkback = check_count(walkback, "walkback", least=0)

    def _law(self, noisy: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """The bits' logits ``(B, D)``, or the components' log-weights ``(B, K)``, means, logvars ``(B, K, D)``."""
        out, d = self.network(noisy).flatten(1), math.prod(self.event_shape)
        per = d if self.likelihood == "bernoulli" else 1 + 2 * d
        if out.shape[1] % per or (self.likelihood == "bernoulli" and out.shape[1] != per):
            raise ValueError(f"network: expected {per} outputs a component for D = {d}, got {out.shape[1]}")
        if self.likelihood == "bernoulli":
            return out
        logits, mu, logvar = out.reshape(len(out), -1, per).split([1, d, d], -1)
        return logits[..., 0].log_softmax(1), mu, logvar

    def log_prob_given(self, x: Tensor, noisy: Tensor) -> Tensor:
        """``log P(x | x~)`` in nats, shape ``(B,)``."""
        flat = _check_binary(check_data(x, self.event_shape), self.likelihood).flatten(1)
        law = self._law(check_data(noisy, self.event_shape, "noisy"))
        if self.likelihood == "bernoulli":
            return -F.binary_cross_entropy_with_logits(law, flat, reduction="none").sum(1)
        log_weight, mu, logvar = law
        log_normal = -((flat[:, None] - mu).square() / logvar.exp() + logvar + math.log(2 * math.pi)) / 2
        return (log_weight + log_normal.sum(2)).logsumexp(1)

    def denoise(self, noisy: Tensor) -> Tensor:
        """``E[X | x~]``, shape ``(B, *event_shape)``; for small noise of variance s^2, ``x~ + s^2 score(x~)``."""
        law = self._law(check_data(noisy, self.event_shape, "noisy"))
        mean = law.sigmoid() if self.likelihood == "bernoulli" else (law[0].exp()[..., None] * law[1]).sum(1)
        return mean.reshape(noisy.shape)

    def sample_given(self, noisy: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A draw from ``P(X | x~)`` for each ``x~``, shape ``(B, *event_shape)``."""
        law = self._law(check_data(noisy, self.event_shape, "noisy"))
        if self.likelihood == "bernoulli":
            return (rand(*law.shape, like=law, generator=generator) < law.sigmoid()).to(law.dtype).reshape(noisy.shape)
        log_weight, mu, logvar = law
        u = rand(len(mu), 1, like=mu, generator=generator)
        k = (log_weight.exp().cumsum(1) < u).sum(1).clamp_max(mu.shape[1] - 1)
        rows, eps = torch.arange(len(mu), device=mu.device), randn(*mu.shape[::2], like=mu, generator=generator)
        return (mu[rows, k] + (logvar[rows, k] / 2).exp() * eps).reshape(noisy.shape)

    @torch.no_grad()
    def chain(self, x: Tensor, steps: int, walkback: bool = False, generator: torch.Generator | None = None) -> Tensor:
        """The ``steps`` states of the chain after ``x``, each damaged and then repaired; ``(steps, B, *event_shape)``.

        With ``walkback``, the damaged copies on the way instead, which training by walkback starts from.
        """
        states, noisy = [check_data(x, self.event_shape)], []
        for _ in range(check_count(steps, "steps")):
            noisy.append(self.corruption(states[-1], check_generator(generator)))
            states.append(self.sample_given(noisy[-1], generator))
        return torch.stack(noisy if walkback else states[1:])

    def loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The mean of ``-log P(x | x~)`` over the batch, and over the rounds of damage where there is walkback."""
        noisy = self.chain(x, 1 + self.walkback, walkback=True, generator=generator)
        return -torch.stack([self.log_prob_given(x, each) for each in noisy]).mean()
