"""What every model promises, whatever its family, and the few functions that keep the promise.

The protocols are checked by tests (:func:`genlib.testing.check_model`), never inherited from. A model implements those
that fit it: a flow is ``Samples``, ``TrainsByLoss``, ``Tractable`` and ``Bijection``; a GAN is ``Samples`` and
``TwoPlayer``.

What its methods cannot tell, a model declares by attributes (``levels``, ``ordering``, ``loss_is_nll``, ...), all
optional and listed in :mod:`genlib.testing`.

Shapes: ``B`` or ``N`` is the batch, ``D`` the width of a vector. Data of a model has shape ``(N, *model.event_shape)``.
Units: every log-probability, loss and bound is in nats.
"""

import math
import operator
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Samples(Protocol):
    """Every model: it draws new data."""

    event_shape: tuple[int, ...]

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """``n`` independent draws, shape ``(n, *event_shape)``."""


@runtime_checkable
class TrainsByLoss(Protocol):
    """A model trained by gradient descent on one scalar."""

    def loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """What training minimises, averaged over the batch; in nats where it is a likelihood or a bound."""


@runtime_checkable
class TwoPlayer(Protocol):
    """A model whose two players have a loss each."""

    def critic_loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The critic's (or discriminator's) scalar loss on real data ``x`` and as many generated points."""

    def generator_loss(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """The generator's scalar loss on ``n`` generated points."""


@runtime_checkable
class Tractable(Protocol):
    """A model whose density, or mass, is computed exactly.

    An estimate that does not integrate to one (k nearest neighbours) says so with ``normalized = False``.
    """

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact ``log p(x)``, shape ``(B,)``."""


@runtime_checkable
class Bounded(Protocol):
    """A latent-variable model whose density is bounded from below."""

    def elbo(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A lower bound on ``log p(x)``, shape ``(B,)``."""

    def log_prob_bound(self, x: Tensor, k: int, generator: torch.Generator | None = None) -> Tensor:
        """The ``k``-sample bound, between the ELBO and ``log p(x)`` in expectation, shape ``(B,)``."""


@runtime_checkable
class Latent(Protocol):
    """A model with a latent space."""

    def encode(self, x: Tensor) -> Tensor:
        """The code of ``x``."""

    def decode(self, z: Tensor) -> Tensor:
        """The data that the code ``z`` stands for."""


@runtime_checkable
class Bijection(Protocol):
    """An invertible model: ``inverse(forward(x)[0])[0]`` is ``x``, and the two log-determinants cancel."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``z`` and ``log |det dz/dx|``, shapes ``(B, *event_shape)`` and ``(B,)``."""

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """``x`` and ``log |det dx/dz|``."""


def check_data(x, event_shape=None, name="x") -> Tensor:
    """Return ``x`` if it is a batch of finite floats of shape ``(N, *event_shape)`` with N >= 1; raise otherwise.

    ``event_shape=None`` accepts any vector width, so ``(N, D)``. Raises TypeError for what is not a floating-point
    tensor and ValueError for a wrong shape, an empty batch, NaN, infinity or a value whose square overflows; each names
    the argument, what came and what was expected.
    """
    wanted = (
        "(N, D)"
        if event_shape is None
        else "(" + ", ".join(["N", *map(str, event_shape)]) + ("," if event_shape == () else "") + ")"
    )
    if not isinstance(x, Tensor):
        raise TypeError(
            f"{name}: expected a torch.Tensor of shape {wanted}, got {type(x).__name__}; use torch.as_tensor"
        )
    if not x.is_floating_point():
        raise TypeError(f"{name}: expected floating-point values, got {x.dtype}; use {name}.float()")
    if x.ndim != (2 if event_shape is None else 1 + len(event_shape)) or (
        event_shape is not None and x.shape[1:] != tuple(event_shape)
    ):
        raise ValueError(f"{name}: expected shape {wanted}, got {tuple(x.shape)}")
    if x.numel() == 0:
        raise ValueError(f"{name}: expected at least one row and one column, got shape {tuple(x.shape)}")
    low, high = x.detach().aminmax()  # one pass; NaN and infinity show in one of the two
    if not (low.isfinite() and high.isfinite()):
        bad = int((~torch.isfinite(x)).sum())
        raise ValueError(f"{name}: expected finite values, got {bad} NaN or infinite of {x.numel()}")
    if x.dtype == torch.float64 and max(-low, high) > 1e150:
        most = max(-low, high)
        raise ValueError(f"{name}: expected values within 1e150 of zero, got {most:.3g}, whose square overflows")
    return x


def check_count(n, name="n", least=1) -> int:
    """Return ``n`` if it is a whole number of at least ``least``; raise TypeError or ValueError otherwise."""
    try:
        count = None if isinstance(n, bool) else operator.index(n)
    except TypeError:  # a float, a string, a tensor that holds neither one number nor a whole one
        count = None
    if count is None:
        raise TypeError(f"{name}: expected a whole number of at least {least}, got {n!r}")
    if count < least:
        raise ValueError(f"{name}: expected a whole number of at least {least}, got {n!r}")
    return count


def check_positive(value, name) -> float:
    """Return ``value`` as a float if it is a finite number above zero; raise TypeError or ValueError otherwise."""
    try:
        number = None if isinstance(value, (bool, str, bytes)) else float(value)
    except (TypeError, ValueError, RuntimeError):  # no number, or an array of several
        number = None
    if number is None:
        raise TypeError(f"{name}: expected a number above 0, got {value!r}")
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name}: expected a finite number above 0, got {value!r}")
    return number


def check_choice(value, choices, name):
    """Return ``value`` if it is one of ``choices``; raise ValueError naming them all otherwise."""
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, choices))}, got {value!r}")
    return value


def check_generator(generator, name="generator"):
    """Return ``generator`` if it is None or a ``torch.Generator``; raise TypeError otherwise."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"{name}: expected a torch.Generator or None, got {generator!r}")
    return generator


def seeded(seed: int = 0) -> torch.Generator:
    """A CPU generator that starts from ``seed``."""
    return torch.Generator().manual_seed(seed)


def randn(*shape, like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard normal noise with the dtype and device of ``like``.

    Drawn on the generator's own device and then moved, so that a CPU generator gives the same noise whatever the
    device of the model.
    """
    device = like.device if check_generator(generator) is None else generator.device
    return torch.randn(*shape, generator=generator, device=device, dtype=like.dtype).to(like.device)


def rand(*shape, like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Uniform noise on [0, 1), drawn as :func:`randn` draws."""
    device = like.device if check_generator(generator) is None else generator.device
    return torch.rand(*shape, generator=generator, device=device, dtype=like.dtype).to(like.device)
