"""Normalizing flows: an invertible network sends data to Gaussian noise, and the change of variables gives the density.

With ``z = f(x)``, f a diffeomorphism and ``z ~ N(0, I)``,

    log p(x) = log N(f(x); 0, I) + log |det df/dx|.

A composition of layers is again a diffeomorphism, and log-determinants add up. So all depends on layers whose inverse
and whose determinant are cheap (G. Papamakarios et al., Normalizing flows for probabilistic modeling and inference,
JMLR, 2021). Those here:

- planar: a bump along one direction, determinant in O(D) (D. Rezende and S. Mohamed, ICML, 2015);
- couplings: one part of x sets how the other is changed, so the Jacobian is triangular and the inverse is as cheap: by
  shifts (NICE; L. Dinh et al., ICLR workshop, 2015), affine maps (RealNVP; L. Dinh et al., ICLR, 2017) or monotone
  splines (C. Durkan et al., Neural spline flows, NeurIPS, 2019);
- autoregressive: each coordinate is changed as those before it say; one way is parallel, the other takes D passes
  (MAF; G. Papamakarios et al., NeurIPS, 2017, and IAF; D. Kingma et al., NeurIPS, 2016);
- for images, Glow's step: normalised channels, a learned mix of them, a coupling (D. Kingma and P. Dhariwal, NeurIPS,
  2018).

A layer's ``forward(x)`` and ``inverse(y)`` also return the log-determinant of their own Jacobian, ``(B,)``.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlib.contract import check_count, check_data, check_generator, rand, randn
from genlib.nets import mlp, spread


class Flow(nn.Module):
    """``log p(x) = log N(z; 0, I) + log |det dz/dx|`` for ``z = layers(x)``, x of shape ``(B, *event_shape)``; nats."""

    base, loss_is_nll = "normal", True

    def __init__(self, event_shape, layers):
        super().__init__()
        self.event_shape = tuple(check_count(size, "event_shape") for size in event_shape)
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Noise ``z`` and ``log |det dz/dx|``, ``(B, *event_shape)`` and ``(B,)``."""
        z, total = check_data(x, self.event_shape), x.new_zeros(len(x))
        for layer in self.layers:
            z, logdet = layer(z)
            total = total + logdet
        return z, total

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Data ``x`` and ``log |det dx/dz|``."""
        x, total = check_data(z, self.event_shape, "z"), z.new_zeros(len(z))
        for layer in reversed(self.layers):
            x, logdet = layer.inverse(x)
            total = total + logdet
        return x, total

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact ``log p(x)``, shape ``(B,)``."""
        z, logdet = self(x)
        return logdet - (z.square().flatten(1).sum(1) + z[0].numel() * math.log(2 * math.pi)) / 2

    def loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The mean of ``-log p(x)`` over the batch."""
        check_generator(generator)
        return -self.log_prob(x).mean()

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Noise sent backwards through the layers, shape ``(n, *event_shape)``."""
        like = next(self.parameters())
        return self.inverse(randn(check_count(n), *self.event_shape, like=like, generator=generator))[0]


class ActNorm(nn.Module):
    """``y = exp(a) (x - m) / s + b`` for each channel; m and s are mean and deviation of the first batch trained on."""

    def __init__(self, channels: int):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.zeros(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("m", torch.zeros(channels))
        self.register_buffer("s", torch.ones(channels))
        self.register_buffer("seen", torch.tensor(False))

    def _affine(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Factor and shift in the shape of x, and the log-determinant."""
        if self.training and not self.seen:
            values = x.detach().transpose(0, 1).flatten(1)
            (
                self.m.copy_(values.mean(1)),
                self.s.copy_(values.std(1, correction=0).clamp_min(1e-3)),
                self.seen.fill_(True),
            )
        shape = (-1,) + (1,) * (x.ndim - 2)
        factor = self.a.exp() / self.s
        places = x[0, 0].numel()
        logdet = places * (self.a - self.s.log()).sum()
        return factor.view(shape), (self.b - factor * self.m).view(shape), logdet.expand(len(x))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        factor, shift, logdet = self._affine(x)
        return x * factor + shift, logdet

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        factor, shift, logdet = self._affine(y)
        return (y - shift) / factor, -logdet


class Planar(nn.Module):
    """``y = x + u tanh(w.x + b)``, with ``w.u > -1`` enforced, so that it can be inverted.

    ``log |det| = log |1 + w.u (1 - tanh(w.x + b)^2)|``. The inverse finds ``w.x`` by bisection: there is no formula.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.w, self.v = nn.Parameter(torch.randn(dim) / math.sqrt(dim)), nn.Parameter(torch.randn(dim) / 10)
        self.b = nn.Parameter(torch.zeros(()))

    def _u(self) -> tuple[Tensor, Tensor]:
        """u and ``w.u = softplus(w.v + log(e - 1)) - 1``, which is zero where w.v is."""
        wv = self.w @ self.v
        wu = F.softplus(wv + math.log(math.e - 1)) - 1
        return self.v + (wu - wv) * self.w / (self.w @ self.w), wu

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        (u, wu), h = self._u(), (x @ self.w + self.b).tanh()
        return x + h[:, None] * u, torch.log1p(wu * (1 - h**2))

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        (u, wu), target = self._u(), y @ self.w
        low, high = target - wu.abs(), target + wu.abs()  # w.x + w.u tanh(w.x + b) = w.y grows with w.x
        for _ in range(64):
            middle = (low + high) / 2
            above = middle + wu * (middle + self.b).tanh() > target
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        h = ((low + high) / 2 + self.b).tanh()
        return y - h[:, None] * u, -torch.log1p(wu * (1 - h**2))


# Maps of one number, monotone in it. Each takes x ``(B, C, ...)``, what a network says of it, ``(B, count C, ...)``,
# and the direction; it returns y and log |dy/dx|, both of the shape of x.


def shift(x: Tensor, t: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """``y = x + t``."""
    return (x - t if inverse else x + t), torch.zeros_like(x)


def affine(x: Tensor, params: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """``y = exp(s) x + t``, with ``s = atan(a)``, so that no factor explodes, and ``params = (a, t)``."""
    a, t = params.chunk(2, 1)
    s = a.atan()
    return ((x - t) * (-s).exp(), -s) if inverse else (torch.addcmul(t, x, s.exp()), s)


def spline(x: Tensor, params: Tensor, inverse: bool = False, bound: float = 4.0) -> tuple[Tensor, Tensor]:
    """A monotone rational-quadratic spline on [-bound, bound], the identity outside.

    Of ``3 K - 1`` parameters, K set the widths of its bins, K their heights and the rest the slopes at the inner knots.
    In bin k of slope ``s = height / width``, at ``xi`` in [0, 1] along it,

        y = y_k + height (s xi^2 + d_k xi (1 - xi)) / (s + (d_k + d_{k+1} - 2 s) xi (1 - xi)).
    """
    params = params.unflatten(1, (x.shape[1], -1)).movedim(2, -1)
    bins, least = (params.shape[-1] + 1) // 3, 1e-3
    w, h, d = params.split([bins, bins, bins - 1], -1)
    w, h = (2 * bound * (least + (1 - bins * least) * part.softmax(-1)) for part in (w, h))
    d = F.pad(least + F.softplus(d + math.log(math.expm1(1 - least))), (1, 1), value=1.0)  # zeros give the identity
    left, below = w.cumsum(-1) - w - bound, h.cumsum(-1) - h - bound
    inside = x.clamp(-bound, bound)
    k = (inside[..., None] >= (below if inverse else left)[..., 1:]).sum(-1, keepdim=True)
    parts = torch.stack([left, w, below, h, d[..., :-1], d[..., 1:]], -2)
    left, w, below, h, d0, d1 = parts.gather(-1, k[..., None, :].expand(*x.shape, 6, 1))[..., 0].unbind(-1)
    s = h / w
    bend = d0 + d1 - 2 * s
    if inverse:  # the root in [0, 1] of a quadratic, in the form that does not cancel
        rise = inside - below
        b = h * d0 - rise * bend
        xi = 2 * s * rise / (b + (b**2 + 4 * s * rise * (h * (s - d0) + rise * bend)).clamp_min(0).sqrt())
        y = left + xi * w
    else:
        xi = (inside - left) / w
    both = xi * (1 - xi)
    if not inverse:
        y = below + h * (s * xi**2 + d0 * both) / (s + bend * both)
    slope = 2 * s.log() + (d1 * xi**2 + 2 * s * both + d0 * (1 - xi) ** 2).log() - 2 * (s + bend * both).log()
    return y + (x - inside), -slope if inverse else slope


class Conditioner(nn.ModuleList):
    """A network that starts at nearly zero outputs, so a layer starts near the identity.

    ``reach``: how far from the origin the data are, if the first layer is to be spread (:func:`genlib.nets.spread`).
    """

    def __init__(self, *sizes: int, activation=torch.relu_, reach: float | None = None):
        if not callable(activation):
            raise TypeError(f"activation: expected a function of a tensor, got {activation!r}")
        layers = list(mlp(*sizes))[::2]
        super().__init__(layers)
        self.activation = activation
        for layer in layers[1:-1]:
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")  # torch's own start is too flat for sharp edges
        if reach is not None:
            spread(layers[0], sizes[0], reach)
        layers[-1].weight.data.mul_(0.1), layers[-1].bias.data.zero_()

    def forward(self, x: Tensor) -> Tensor:
        *hidden, last = self
        for layer in hidden:  # not by calls of modules, which cost as much as a small product
            x = self.activation(F.linear(x, layer.weight, layer.bias))
        return F.linear(x, last.weight, last.bias)


class Coupling(nn.Module):
    """``x = (a, b)`` becomes ``(transform(b; network(a)), a)``: the two parts change places for the next layer.

    ``network`` takes the first ``width`` of the channels and gives all parameters of the transforms of the others.
    """

    def __init__(self, width: int, network: nn.Module, transform):
        super().__init__()
        self.width, self.network, self.transform = width, network, transform

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = x.split([self.width, x.shape[1] - self.width], 1)
        b, slopes = self.transform(b, self.network(a))
        return torch.cat([b, a], 1), slopes.sum(list(range(1, x.ndim)))

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        b, a = y.split([y.shape[1] - self.width, self.width], 1)
        b, slopes = self.transform(b, self.network(a), inverse=True)
        return torch.cat([a, b], 1), slopes.sum(list(range(1, y.ndim)))


class CouplingFlow(Flow):
    """``layers`` couplings of one kind of transform, of ``count`` parameters, for vectors of at least two numbers."""

    def __init__(self, dim: int, layers: int, hidden, transform, count: int, first=(), **network):
        dim, half = check_count(dim, "dim", 2), dim // 2
        sizes = (half, *(check_count(width, "hidden") for width in hidden), (dim - half) * count)
        networks = [Conditioner(*sizes, **network) for _ in range(check_count(layers, "layers"))]
        super().__init__((dim,), [*first, *(Coupling(half, each, transform) for each in networks)])


class NICE(CouplingFlow):
    """Couplings that shift, which keep volumes, and at the end one learned scale for each coordinate."""

    def __init__(self, dim: int, layers: int, hidden=(64, 64)):
        super().__init__(dim, layers, hidden, shift, 1)
        self.layers.append(ActNorm(dim))


class RealNVP(CouplingFlow):
    """Couplings that shift and scale, by networks with this ``activation`` and ``reach``, see :class:`Conditioner`."""

    def __init__(self, dim: int, layers: int = 8, hidden=(64, 64), activation=torch.relu_, reach: float | None = None):
        super().__init__(dim, layers, hidden, affine, 2, activation=activation, reach=reach)


class NeuralSplineFlow(CouplingFlow):
    """Couplings by splines of ``bins`` bins; the data is first normalised, as the splines act within [-4, 4]."""

    def __init__(self, dim: int, layers: int = 4, hidden=(64, 64), bins: int = 8):
        super().__init__(dim, layers, hidden, spline, 3 * check_count(bins, "bins", 2) - 1, first=[ActNorm(dim)])


class PlanarFlow(Flow):
    """``layers`` planar layers, the data first normalised."""

    def __init__(self, dim: int, layers: int):
        dim = check_count(dim, "dim")
        super().__init__((dim,), [ActNorm(dim), *(Planar(dim) for _ in range(check_count(layers, "layers")))])


class MaskedAffine(nn.Module):
    """``y_i = exp(s_i) x_i + t_i``, where s and t depend on ``x_<i`` by a masked network; then the order is reversed.

    A unit of degree m sees ``x_1 .. x_m`` (M. Germain et al., MADE, ICML, 2015), and direct connections reach what few
    hidden units miss. ``inverse`` finds the coordinates one after the other, in ``dim`` passes.
    """

    def __init__(self, dim: int, hidden):
        super().__init__()
        inner = [torch.linspace(1, max(1, dim - 1), width).round() for width in hidden]
        degrees = [torch.arange(1.0, dim + 1), *inner, torch.arange(dim).repeat(2)]
        self.layers = Conditioner(*map(len, degrees))
        for i, (below, above) in enumerate(zip(degrees, degrees[1:], strict=False)):
            self.register_buffer(f"mask_{i}", (above[:, None] >= below).float(), persistent=False)
        self.register_buffer("direct_mask", (degrees[-1][:, None] >= degrees[0]).float(), persistent=False)
        self.direct = nn.Parameter(torch.zeros(2 * dim, dim))

    def _params(self, x: Tensor) -> Tensor:
        h = x
        for i, layer in enumerate(self.layers):
            h = F.linear(h if i == 0 else h.relu(), layer.weight * getattr(self, f"mask_{i}"), layer.bias)
        return h + F.linear(x, self.direct * self.direct_mask)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, slopes = affine(x, self._params(x))
        return y.flip(1), slopes.sum(1)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        y, x = y.flip(1), torch.zeros_like(y)
        for _ in range(y.shape[1]):  # pass i makes x_i right, and all before it stay so
            x, slopes = affine(y, self._params(x), inverse=True)
        return x, slopes.sum(1)


class Backwards(nn.Module):
    """A layer whose ``forward`` is the ``inverse`` of another."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.layer.inverse(x)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.layer(y)


class MAF(Flow):
    """Masked autoregressive layers: the density takes one pass, a sample ``dim`` of them."""

    def __init__(self, dim: int, layers: int = 8, hidden=(64, 64)):
        dim, hidden = check_count(dim, "dim"), [check_count(width, "hidden") for width in hidden]
        super().__init__((dim,), [MaskedAffine(dim, hidden) for _ in range(check_count(layers, "layers"))])


class IAF(MAF):
    """The same layers run backwards: a sample takes one pass, the density of given data ``dim`` of them."""

    def __init__(self, dim: int, layers: int = 8, hidden=(64, 64)):
        super().__init__(dim, layers, hidden)
        self.layers = nn.ModuleList(Backwards(layer) for layer in self.layers)


class Mix(nn.Module):
    """Glow's 1x1 convolution: each place's channels times ``W = P L (U + diag(s))``, ``log |det W| = sum log |s|``."""

    def __init__(self, channels: int):
        super().__init__()
        P, L, U = torch.linalg.lu(torch.linalg.qr(torch.randn(channels, channels))[0])
        self.register_buffer("P", P)
        self.register_buffer("sign", U.diagonal().sign())
        self.L, self.U, self.log_s = nn.Parameter(L), nn.Parameter(U), nn.Parameter(U.diagonal().abs().log())

    def _factors(self) -> tuple[Tensor, Tensor]:
        one = torch.eye(len(self.L), dtype=self.L.dtype, device=self.L.device)
        return self.P @ (self.L.tril(-1) + one), self.U.triu(1) + (self.sign * self.log_s.exp()).diag()

    def _logdet(self, x: Tensor) -> Tensor:
        return (x[0, 0].numel() * self.log_s.sum()).expand(len(x))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        PL, U = self._factors()
        return (PL @ U @ x.reshape(*x.shape[:2], -1)).view_as(x), self._logdet(x)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        PL, U = self._factors()
        x = torch.linalg.solve_triangular(U, torch.linalg.solve(PL, y.reshape(*y.shape[:2], -1)), upper=True)
        return x.view_as(y), -self._logdet(y)


class Logit(nn.Module):
    """``y = logit(p)`` with ``p = a + (1 - 2 a) x`` and a = 1e-6, for x from 0 to 1: spreads out what crowds at an end.

    ``log |dy/dx| = log(1 - 2 a) - log p - log(1 - p)`` (L. Dinh et al., RealNVP, with a = 0.05).
    """

    a = 1e-6

    def covers(self, x: Tensor) -> Tensor:
        """For each row, whether all values have an image; those just outside of [0, 1] have one too."""
        return ((x + self.a > 0) & (x - self.a < 1)).flatten(1).all(1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if not self.covers(x).all():
            raise ValueError(f"x: expected values from 0 to 1, got {x.min():.3g} to {x.max():.3g}")
        p = self.a + (1 - 2 * self.a) * x
        slopes = math.log1p(-2 * self.a) - p.log() - (-p).log1p()
        return p.logit(), slopes.flatten(1).sum(1)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        slopes = F.logsigmoid(y) + F.logsigmoid(-y) - math.log1p(-2 * self.a)
        return (y.sigmoid() - self.a) / (1 - 2 * self.a), slopes.flatten(1).sum(1)


class Glow(Flow):
    """A multi-scale flow for grey or colour images of shape ``(C, H, W)``, with 2^scales a divisor of H and W.

    Values from 0 to 1 first go through :class:`Logit`. At each scale squares of 2 x 2 pixels become channels, ``steps``
    of Glow's steps follow, and half of the channels, after one more coupling, become noise; the other half goes on.

    An image has ``greys`` levels k, given as x = k / (greys - 1). A density of them would be infinite, so ``loss`` adds
    noise, :func:`dequantize`; ``log_prob`` and ``sample`` speak of the noisy values (B. Uria, I. Murray and H.
    Larochelle, RNADE: the real-valued neural autoregressive density-estimator, NeurIPS, 2013).
    """

    loss_is_nll = False

    def __init__(self, shape, scales: int = 2, steps: int = 8, hidden: int = 64, greys: int = 256):
        channels, height, width = (check_count(size, "shape") for size in shape)
        check_count(steps, "steps"), check_count(hidden, "hidden")
        if height % 2 ** check_count(scales, "scales") or width % 2**scales:
            raise ValueError(f"shape: expected height and width divisible by {2**scales}, got {tuple(shape)}")
        super().__init__((channels, height, width), [])
        self.greys, self.scales, self.logit = check_count(greys, "greys", 2), scales, Logit()

        def coupling(channels: int) -> Coupling:
            half = channels // 2
            network = nn.Sequential(
                nn.Conv2d(half, hidden, 3, padding=1), nn.ReLU(),
                nn.Conv2d(hidden, hidden, 1), nn.ReLU(),
                nn.Conv2d(hidden, 2 * (channels - half), 3, padding=1),
            )  # fmt: skip
            nn.init.zeros_(network[-1].weight), nn.init.zeros_(network[-1].bias)
            return Coupling(half, network, affine)

        for _ in range(scales):
            channels *= 4
            block = [layer for _ in range(steps) for layer in (ActNorm(channels), Mix(channels), coupling(channels))]
            self.layers.append(nn.ModuleList([*block, coupling(channels)]))
            channels //= 2

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        (h, total), noise = self.logit(check_data(x, self.event_shape)), []
        for scale in self.layers:
            h = F.pixel_unshuffle(h, 2)
            for layer in scale:
                h, logdet = layer(h)
                total = total + logdet
            done, h = h.chunk(2, 1)
            noise.append(done.flatten(1))
        return torch.cat([*noise, h.flatten(1)], 1).view_as(x), total

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        check_data(z, self.event_shape, "z")
        channels, height, width = self.event_shape
        sizes = [z[0].numel() // 2 ** (k + 1) for k in range(self.scales)]
        *noise, h = z.flatten(1).split([*sizes, sizes[-1]], 1)
        total = z.new_zeros(len(z))
        for k in reversed(range(self.scales)):
            shape = (len(z), channels * 2 ** (k + 1), height // 2 ** (k + 1), width // 2 ** (k + 1))
            h = torch.cat([noise[k].view(shape), h.view(shape)], 1)
            for layer in reversed(self.layers[k]):
                h, logdet = layer.inverse(h)
                total = total + logdet
            h = F.pixel_shuffle(h, 2)
        x, logdet = self.logit.inverse(h)
        return x, total + logdet

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact ``log p(x)``, shape ``(B,)``; minus infinity where a value is not from 0 to 1."""
        covered = self.logit.covers(check_data(x, self.event_shape))
        place = x.where(covered.view(-1, 1, 1, 1), torch.full_like(x, 0.5))
        return super().log_prob(place).masked_fill(~covered, -math.inf)

    def loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The mean of ``-log p(y)`` for the images with fresh noise; a bound on that of the levels, see below."""
        return -self.log_prob(dequantize(check_data(x, self.event_shape), self.greys, generator)).mean()

    def bits_per_dim(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """``log2(greys) - log2 p(y) / (C H W)`` for the images with fresh noise, shape ``(B,)``.

        Its mean over the noise is an upper bound on ``-log2 P(x) / (C H W)`` for ``P(x)``, the mass of the cell of x.
        """
        y = dequantize(check_data(x, self.event_shape), self.greys, generator)
        return math.log2(self.greys) - self.log_prob(y) / math.log(2) / y[0].numel()


def dequantize(x: Tensor, greys: int = 256, generator: torch.Generator | None = None) -> Tensor:
    """``y = (k + u) / greys`` for levels k, given as ``x = k / (greys - 1)`` in [0, 1], and uniform noise u in [0, 1).

    Raises ValueError for values outside [0, 1].
    """
    low, high = x.aminmax()
    if not (low >= 0 and high <= 1):
        raise ValueError(f"x: expected values from 0 to 1, got {low:.3g} to {high:.3g}")
    k = (x * (check_count(greys, "greys", 2) - 1)).round()
    return (k + rand(*x.shape, like=x, generator=generator)) / greys
