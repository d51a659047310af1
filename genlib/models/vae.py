"""Variational autoencoders: a decoder that draws ``x`` from a code ``z``, and an encoder that guesses the code.

``p(x) = integral p(x | z) N(z; 0, I) dz`` is out of reach. So an encoder ``q(z | x)`` is trained beside the decoder.
Both maximise a bound that is tight where ``q(z | x) = p(z | x)``::

    log p(x) >= elbo(x) = E_q[log p(x | z)] - KL(q(z | x) || N(0, I))

The draw ``z = mu + exp(logvar / 2) eps`` lets gradients pass into the encoder (D. Kingma and M. Welling, Auto-encoding
variational Bayes, ICLR, 2014; D. Rezende, S. Mohamed and D. Wierstra, Stochastic backpropagation, ICML, 2014). Drawing
``k`` codes tightens the bound (Y. Burda, R. Grosse and R. Salakhutdinov, Importance weighted autoencoders, ICLR, 2016).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlib.contract import check_count, check_data, check_generator, randn
from genlib.nets import Likelihood, input_width, shape_of_events

CHUNK = 2**19  # decoder outputs held at once by a bound of many codes


def _moments(network: nn.Module, a: Tensor, dim: int, name: str) -> tuple[Tensor, Tensor]:
    """Mean and log-variance of a normal law, each ``(B, dim)``, from a network with ``2 dim`` outputs."""
    out = network(a)
    if out.shape != (len(a), 2 * dim):
        raise ValueError(
            f"{name}: expected {2 * dim} outputs, {dim} means and {dim} log-variances, got {out.shape[1:]}"
        )
    return out.chunk(2, 1)


def _draw(mu: Tensor, logvar: Tensor, generator, *k: int) -> Tensor:
    return mu + (logvar / 2).exp() * randn(*k, *mu.shape, like=mu, generator=generator)


def _log_normal(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """``log N(z; mu, exp(logvar))`` of each unit."""
    return -((z - mu).square() / logvar.exp() + logvar + math.log(2 * math.pi)) / 2


def _kl(mu: Tensor, logvar: Tensor) -> Tensor:
    """``KL(N(mu, exp(logvar)) || N(0, 1))`` of each unit."""
    return (mu.square() + logvar.exp() - 1 - logvar) / 2


def _number(value, name: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name}: expected a number of at least 0, got {value!r}")
    if not 0 <= value < math.inf:
        raise ValueError(f"{name}: expected a finite number of at least 0, got {value!r}")
    return value


class VAE(nn.Module):
    """``z ~ N(0, I)``, ``x ~ p(x | z)`` from ``decoder(z)``, and ``q(z | x) = N(mu, exp(logvar))`` from ``encoder(x)``.

    ``encoder(x)`` has ``2 latent_dim`` outputs, ``mu`` then ``logvar``. What ``decoder(z)`` says is read by
    :class:`genlib.nets.Likelihood`: for "bernoulli" D logits; for "gaussian" D means of variance one, whose loss is an
    autoencoder's up to 1/2 and a constant, or D means and D log-variances. ``event_shape`` ``None`` is the width of the
    encoder's first layer, which must then be linear.

    Two numbers change the loss and may change during training: ``beta`` weighs the KL term (I. Higgins et al.,
    beta-VAE, ICLR, 2017; rising from 0 to 1 it is the warm-up of S. Bowman et al., CoNLL, 2016), and the first
    ``free_bits`` nats of each unit's KL cost nothing (D. Kingma et al., NeurIPS, 2016). The bounds know neither.
    """

    def __init__(
        self, encoder, decoder, latent_dim: int, likelihood="bernoulli", beta=1.0, free_bits=0.0, event_shape=None
    ):
        super().__init__()
        self.event_shape = shape_of_events(encoder, event_shape, "encoder")
        if not isinstance(decoder, nn.Module):
            raise TypeError(f"decoder: expected a torch.nn.Module, got {type(decoder).__name__}")
        self.encoder, self.decoder = encoder, decoder
        self.latent_dim = check_count(latent_dim, "latent_dim")
        self.likelihood = Likelihood(likelihood, self.event_shape)
        self.beta, self.free_bits = _number(beta, "beta"), _number(free_bits, "free_bits")

    def _with(self, a: Tensor, y) -> Tensor:
        """What a network gets: codes or data, and in :class:`ConditionalVAE` the labels beside them."""
        if y is not None:
            raise TypeError(f"y: expected None, {type(self).__name__} knows no labels; use ConditionalVAE")
        return a

    def _outputs(self, z: Tensor, y) -> Tensor:
        return self.decoder(self._with(z, y)).flatten(1)

    def posterior(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``mu`` and ``logvar`` of ``q(z | x)``, each ``(B, latent_dim)``."""
        return _moments(self.encoder, self._with(self.likelihood.check(x), y), self.latent_dim, "encoder")

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The mean of ``q(z | x)``, shape ``(B, latent_dim)``."""
        return self.posterior(x, y)[0]

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """The mean of ``p(x | z)``, shape ``(B, *event_shape)``."""
        out = self._outputs(check_data(z, (self.latent_dim,), "z"), y)
        return self.likelihood.mean(out).reshape(-1, *self.event_shape)

    def sample(self, n: int, generator: torch.Generator | None = None, y: Tensor | None = None) -> Tensor:
        """``n`` draws of ``x``, shape ``(n, *event_shape)``; ``decode`` gives the means, which are smoother."""
        like = next(self.parameters())
        z = randn(check_count(n), self.latent_dim, like=like, generator=generator)
        return self.likelihood.sample(self._outputs(z, y), generator).reshape(n, *self.event_shape)

    def _terms(self, x: Tensor, generator, y) -> tuple[Tensor, Tensor]:
        """``log p(x | z)`` for one ``z ~ q(z | x)``, shape ``(B,)``, and the KL of each unit, ``(B, latent_dim)``."""
        mu, logvar = self.posterior(x, y)
        out = self._outputs(_draw(mu, logvar, check_generator(generator)), y)
        return self.likelihood.log_prob(x.flatten(1), out), _kl(mu, logvar)

    def kl(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """``KL(q(z_j | x) || N(0, 1))`` of each unit in nats, shape ``(B, latent_dim)``."""
        return _kl(*self.posterior(x, y))

    def elbo(self, x: Tensor, generator: torch.Generator | None = None, y: Tensor | None = None) -> Tensor:
        """``log p(x | z) - KL(q(z | x) || N(0, I))`` for one draw of ``z``, nats, shape ``(B,)``."""
        log_likelihood, kl = self._terms(x, generator, y)
        return log_likelihood - kl.sum(1)

    def log_prob_bound(
        self, x: Tensor, k: int, generator: torch.Generator | None = None, y: Tensor | None = None
    ) -> Tensor:
        """``log 1/k sum_i p(x | z_i) p(z_i) / q(z_i | x)`` in nats, shape ``(B,)``; it rises with ``k``.

        The codes are decoded in parts, so that the memory does not grow with ``k``.
        """
        mu, logvar = self.posterior(x, y)
        flat, zero, log_weights = x.flatten(1), torch.zeros_like(mu), []
        at_once = max(1, CHUNK // max(1, flat.numel()))
        for draws in torch.arange(check_count(k, "k")).split(at_once):
            z = _draw(mu, logvar, check_generator(generator), len(draws))
            labels = None if y is None else y.repeat(len(draws))
            out = self._outputs(z.flatten(0, 1), labels).unflatten(0, z.shape[:2])
            log_ratio = (_log_normal(z, zero, zero) - _log_normal(z, mu, logvar)).sum(2)
            log_weights.append(self.likelihood.log_prob(flat, out) + log_ratio)
        return torch.cat(log_weights).logsumexp(0) - math.log(k)

    def loss(self, x: Tensor, generator: torch.Generator | None = None, y: Tensor | None = None) -> Tensor:
        """``-E[log p(x | z)] + beta sum_j max(KL_j, free_bits)`` in nats; ``KL_j`` is the batch's mean for unit j.

        With ``beta`` 1 and no free bits it is ``-elbo(x).mean()``.
        """
        log_likelihood, kl = self._terms(x, generator, y)
        return self.beta * kl.mean(0).clamp_min(self.free_bits).sum() - log_likelihood.mean()


class ConditionalVAE(VAE):
    """A VAE of ``p(x | y)`` for labels ``y`` ``(B,)``, whole numbers ``0 .. classes - 1`` given to every method.

    Both networks see the label as ``classes`` further inputs, of which one is 1: the encoder takes ``D + classes``, the
    decoder ``latent_dim + classes`` (K. Sohn, H. Lee and X. Yan, NeurIPS, 2015). Train with ``train(model, x, y=y)``.
    """

    def __init__(self, encoder, decoder, latent_dim: int, classes: int, event_shape=None, **options):
        if event_shape is None and input_width(encoder, "encoder"):
            event_shape = (input_width(encoder, "encoder") - check_count(classes, "classes"),)
        super().__init__(encoder, decoder, latent_dim, event_shape=event_shape, **options)
        self.classes = check_count(classes, "classes")

    def _with(self, a: Tensor, y) -> Tensor:
        if not isinstance(y, Tensor) or y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
            raise TypeError(f"y: expected a tensor of whole numbers, got {getattr(y, 'dtype', type(y).__name__)}")
        if y.shape != a.shape[:1] or not ((y >= 0) & (y < self.classes)).all():
            got = f"shape {tuple(y.shape)}, {y.flatten()[:5].tolist()}"
            raise ValueError(f"y: expected {len(a)} labels from 0 to {self.classes - 1}, got {got}")
        return torch.cat([a.flatten(1), F.one_hot(y.long(), self.classes).to(a)], 1)


class HierarchicalVAE(nn.Module):
    """A chain of codes, drawn from the top: ``z_L ~ N(0, I)``, ``z_l ~ p(z_l | z_{l+1})``, ``x ~ p(x | z_1)``.

    The encoder climbs the same chain, ``q(z_1 | x) q(z_2 | z_1) ... q(z_L | z_{L-1})``. All codes are normal. Counted
    from 0, ``encoders[l]`` maps the level below (``x`` for 0) to ``2 latent_dims[l]`` numbers, means then
    log-variances; ``decoders[0]`` maps ``z_1`` to the law of ``x`` as in :class:`VAE`, and ``decoders[l]`` maps its
    level to the ``2 latent_dims[l - 1]`` numbers of the one below. Other arguments as in :class:`VAE` (Rezende, 2014;
    C. Sonderby et al., Ladder variational autoencoders, NeurIPS, 2016, on why its upper levels fall asleep).
    """

    def __init__(
        self, encoders, decoders, latent_dims, likelihood="bernoulli", beta=1.0, free_bits=0.0, event_shape=None
    ):
        super().__init__()
        self.latent_dims = tuple(check_count(dim, "latent_dims") for dim in latent_dims)
        for networks, name in ((encoders, "encoders"), (decoders, "decoders")):
            if len(networks) != len(self.latent_dims) or not self.latent_dims:
                raise ValueError(
                    f"{name}: expected one for each of latent_dims {self.latent_dims}, got {len(networks)}"
                )
        self.event_shape = shape_of_events(encoders[0], event_shape, "encoders[0]")
        self.encoders, self.decoders = nn.ModuleList(encoders), nn.ModuleList(decoders)
        self.likelihood = Likelihood(likelihood, self.event_shape)
        self.beta, self.free_bits = _number(beta, "beta"), _number(free_bits, "free_bits")

    def _prior(self, level: int, above: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of ``z_level`` given the code above it; levels count from 0."""
        return _moments(self.decoders[level + 1], above, self.latent_dims[level], f"decoders[{level + 1}]")

    def _terms(self, x: Tensor, generator, exact=True) -> tuple[Tensor, list[Tensor]]:
        """``log p(x | z_1)`` ``(B,)`` and, for each level, ``log q / p`` of its units ``(B, d_l)``, for one draw.

        ``exact`` puts the KL in the place of the top level's log-ratio.
        """
        a, codes = self.likelihood.check(x), []
        for level, (encoder, dim) in enumerate(zip(self.encoders, self.latent_dims, strict=True)):
            mu, logvar = _moments(encoder, a, dim, f"encoders[{level}]")
            a = _draw(mu, logvar, check_generator(generator))
            codes.append((a, mu, logvar))
        z, mu, logvar = codes[-1]
        zero = torch.zeros_like(z)
        ratios = [_kl(mu, logvar) if exact else _log_normal(z, mu, logvar) - _log_normal(z, zero, zero)]
        for level in reversed(range(len(codes) - 1)):
            z, mu, logvar = codes[level]
            prior = self._prior(level, codes[level + 1][0])
            ratios.insert(0, _log_normal(z, mu, logvar) - _log_normal(z, *prior))
        return self.likelihood.log_prob(x.flatten(1), self.decoders[0](codes[0][0]).flatten(1)), ratios

    def kl(self, x: Tensor, generator: torch.Generator | None = None) -> list[Tensor]:
        """For each level ``log q(z_l | z_{l-1}) / p(z_l | z_{l+1})`` of its units for one draw, nats, ``(B, d_l)``.

        Its mean over draws and data is at least 0, and 0 where the encoder has fallen back on the prior. At the top it
        is the KL itself.
        """
        return self._terms(x, generator)[1]

    def encode(self, x: Tensor) -> Tensor:
        """The top code, where each level passes on its mean; ``(B, latent_dims[-1])``."""
        a = self.likelihood.check(x)
        for level, (encoder, dim) in enumerate(zip(self.encoders, self.latent_dims, strict=True)):
            a = _moments(encoder, a, dim, f"encoders[{level}]")[0]
        return a

    def decode(self, z: Tensor) -> Tensor:
        """The mean of ``x`` for a top code, where each level passes on its mean; ``(B, *event_shape)``."""
        a = check_data(z, self.latent_dims[-1:], "z")
        for level in reversed(range(len(self.latent_dims) - 1)):
            a = self._prior(level, a)[0]
        return self.likelihood.mean(self.decoders[0](a).flatten(1)).reshape(-1, *self.event_shape)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """``n`` draws of ``x``, shape ``(n, *event_shape)``."""
        a = randn(check_count(n), self.latent_dims[-1], like=next(self.parameters()), generator=generator)
        for level in reversed(range(len(self.latent_dims) - 1)):
            a = _draw(*self._prior(level, a), generator)
        return self.likelihood.sample(self.decoders[0](a).flatten(1), generator).reshape(n, *self.event_shape)

    def elbo(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """``log p(x | z_1) - sum_l log q(z_l | .) / p(z_l | .)`` for one draw, the top term exact; nats, ``(B,)``."""
        log_likelihood, ratios = self._terms(x, generator)
        return log_likelihood - sum(ratio.sum(1) for ratio in ratios)

    def log_prob_bound(self, x: Tensor, k: int, generator: torch.Generator | None = None) -> Tensor:
        """``log 1/k sum_i p(x, z_i) / q(z_i | x)`` over ``k`` draws of all codes, nats, shape ``(B,)``."""
        log_weights = []
        for _ in range(check_count(k, "k")):
            log_likelihood, ratios = self._terms(x, generator, exact=False)
            log_weights.append(log_likelihood - sum(ratio.sum(1) for ratio in ratios))
        return torch.stack(log_weights).logsumexp(0) - math.log(k)

    def loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """As :meth:`VAE.loss`, with the log-ratios of one draw in the place of the KL below the top."""
        log_likelihood, ratios = self._terms(x, generator)
        paid = sum(ratio.mean(0).clamp_min(self.free_bits).sum() for ratio in ratios)
        return self.beta * paid - log_likelihood.mean()
