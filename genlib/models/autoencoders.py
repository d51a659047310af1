"""Autoencoders: a network that gives its input back, through a narrow code or from a damaged copy.

The narrow one learns where the data lie: with linear layers it finds the plane of the principal components (P. Baldi
and K. Hornik, Neural Networks, 1989; G. Hinton and R. Salakhutdinov, Science, 2006). It has no rule for drawing a code,
so it has no ``sample``. The denoising one learns ``P(X | X~)``, what the data were before they were damaged (P. Vincent
et al., ICML, 2008). Damage and repair in turn are a Markov chain whose stationary law is that of the data (Y. Bengio,
L. Yao, G. Alain and P. Vincent, Generalized denoising auto-encoders as generative models, NeurIPS, 2013).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from genlib.contract import check_count, check_data, check_generator, check_positive, rand, randn
from genlib.nets import Likelihood, input_width, shape_of_events


class Autoencoder(nn.Module):
    """``x -> z = encoder(x) -> decoder(z)``, trained to end where it began.

    ``likelihood`` "gaussian": the decoder gives the mean ``x^`` of a normal law of variance one, and the loss is
    ``|x - x^|^2 / 2``, which leaves out its constant ``D/2 log 2 pi``. "bernoulli", for data from 0 to 1: it gives
    logits, and the loss is their cross-entropy with ``x``. Both are nats, summed over an example, averaged over the
    batch. ``event_shape`` ``None`` is the width of the encoder's first layer, which must then be linear.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, likelihood: str = "gaussian", event_shape=None):
        super().__init__()
        self.event_shape = shape_of_events(encoder, event_shape, "encoder")
        width = input_width(decoder, "decoder")
        self.encoder, self.decoder, self._code_shape = encoder, decoder, width and (width,)
        self.likelihood = Likelihood(likelihood, self.event_shape)

    def encode(self, x: Tensor) -> Tensor:
        """The code ``z`` of each example, ``(B, ...)`` as the encoder gives it."""
        return self.encoder(check_data(x, self.event_shape))

    def decode(self, z: Tensor) -> Tensor:
        """The mean of ``x`` given ``z``, shape ``(B, *event_shape)``."""
        shape = self._code_shape or (tuple(z.shape[1:]) if isinstance(z, Tensor) else None)
        return self.likelihood.mean(self._outputs(check_data(z, shape, "z"))).reshape(-1, *self.event_shape)

    def _outputs(self, z: Tensor) -> Tensor:
        out = self.decoder(z)
        if out.numel() != len(z) * self.likelihood.dim:
            raise ValueError(f"decoder: expected outputs for shape {self.event_shape}, got {tuple(out.shape[1:])}")
        return out.flatten(1)

    def error(self, x: Tensor) -> Tensor:
        """How badly each example is given back, its share of the loss in nats, shape ``(B,)``; a score of oddity."""
        out, flat = self._outputs(self.encoder(self.likelihood.check(x))), x.flatten(1)
        if self.likelihood.kind == "bernoulli":
            return -self.likelihood.log_prob(flat, out)
        return (flat - out).square().sum(1) / 2

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

    ``corruption(x, generator)`` draws ``x~``. What ``network(x~)`` says is read by :class:`genlib.nets.Likelihood`: for
    "bernoulli" D logits, for "gaussian" ``K (1 + 2 D)`` numbers. One component is right where the damage is small,
    several where the damage could have come from more than one place.

    ``walkback`` trains on damage done again and again: with ``k`` above 0, ``x~`` is also taken after 1 to ``k`` rounds
    of repair and damage, and the target stays ``x``, which teaches the network to walk back from where the chain strays
    (Bengio et al., 2013). ``event_shape`` as in :class:`Autoencoder`.
    """

    def __init__(self, network, corruption: Callable, likelihood="gaussian", walkback: int = 0, event_shape=None):
        super().__init__()
        self.event_shape = shape_of_events(network, event_shape, "network")
        if not callable(corruption):
            raise TypeError(f"corruption: expected a function of x and a generator, got {type(corruption).__name__}")
        self.network, self.corruption = network, corruption
        self.likelihood = Likelihood(likelihood, self.event_shape)
        self.walkback = check_count(walkback, "walkback", least=0)

    def _outputs(self, noisy: Tensor) -> Tensor:
        return self.network(check_data(noisy, self.event_shape, "noisy")).flatten(1)

    def log_prob_given(self, x: Tensor, noisy: Tensor) -> Tensor:
        """``log P(x | x~)`` in nats, shape ``(B,)``."""
        return self.likelihood.log_prob(self.likelihood.check(x).flatten(1), self._outputs(noisy))

    def denoise(self, noisy: Tensor) -> Tensor:
        """``E[X | x~]``, shape ``(B, *event_shape)``; for small noise of variance s^2, ``x~ + s^2 score(x~)``."""
        return self.likelihood.mean(self._outputs(noisy)).reshape(noisy.shape)

    def sample_given(self, noisy: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A draw from ``P(X | x~)`` for each ``x~``, shape ``(B, *event_shape)``."""
        return self.likelihood.sample(self._outputs(noisy), generator).reshape(noisy.shape)

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
