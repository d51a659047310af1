"""Density estimation: from n points drawn from an unknown law, a guess at its density.

:class:`Histogram` counts points in cells, :class:`KDE` puts a bump on every point, :class:`KNN` asks how far the k-th
neighbour is, :class:`GaussianMixture` fits a few ellipsoids, :class:`BasisDensity` sums cosines: each is fitted in one
call, ``fit(x)``. :class:`NeuralCDF` is a network, trained by its ``loss``, that learns the cumulative.

A smoothing parameter left at ``None`` is chosen by leave-one-out: the estimate at each point is judged by the other n -
1. Data is ``(N, D)``. The fitted estimators compute in float64 whatever the data; ``log_prob`` (nats) answers in the
dtype of its argument, ``sample`` in that of the data.
"""

import math
from functools import reduce

import torch
from numpy.polynomial.chebyshev import chebroots
from scipy.spatial import cKDTree
from torch import Tensor, nn
from torch.nn import functional as F

from genlib.contract import check_count, check_data, check_positive, rand, randn

EPSILON = torch.finfo(torch.float64).eps
EXACT = "donot_use_mm_for_euclid_dist"  # torch.cdist by differences


def _data(x: Tensor, least: int = 1, why: str = "", event_shape=None) -> Tensor:
    """The checked data of ``fit``, in float64."""
    data = check_data(x, event_shape).detach().double()
    if len(data) < least:
        raise ValueError(f"x: expected at least {least} rows {why}, got {len(data)}")
    if data.abs().max() > 1e100:
        raise ValueError(f"x: expected values within 1e100 of zero, got {data.abs().max():.3g}, whose square overflows")
    return data


def _fitted(model):
    if not hasattr(model, "event_shape"):
        raise RuntimeError(f"{type(model).__name__} is not fitted: call fit(x) first")
    return model


def _pick(weights: Tensor, n: int, generator) -> Tensor:
    """``n`` indices, each drawn in proportion to its weight, by inverting the cumulative."""
    total = weights.cumsum(0)
    return torch.searchsorted(total / total[-1], rand(check_count(n), like=total, generator=generator), right=True)


def _bisect(cdf, u: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The x with ``cdf(x) = u`` for an increasing ``cdf``; 64 halvings of the bracket leave nothing but rounding."""
    for _ in range(64):
        middle = (low + high) / 2
        below = cdf(middle) < u
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def _squared_distances(x: Tensor, y: Tensor, scale: float) -> Tensor:
    """``|x_i - y_j|^2``, shape ``(N, M)``, to within 1e-9 ``scale^2``.

    ``|x|^2 + |y|^2 - 2 x.y`` is one matrix product, ten times faster than differences in high dimension, but it finds a
    small number by subtracting large ones. Where that would lose too much, differences are taken.
    """
    x2, y2 = x.square().sum(1), y.square().sum(1)
    if EPSILON * (x2.max() + y2.max()) <= 1e-9 * scale**2:
        return torch.addmm(y2, x, y.T, alpha=-2).add_(x2[:, None]).clamp_min_(0)
    return torch.cdist(x, y, compute_mode=EXACT).square()


class Histogram:
    """Counts in equal cells over the range of the data: ``p(x) = N_j / (n V)`` in cell ``j`` of volume ``V``.

    ``bins`` is the number of cells along each dimension; ``None`` takes the one of least :meth:`risk` (M. Rudemo,
    Empirical choice of histograms and kernel density estimators, Scandinavian Journal of Statistics, 1982). The grid
    has ``bins^D`` cells, at most ``max_cells``: beyond a few dimensions ``fit`` refuses, and nearly every cell would be
    empty anyway.

    ``fit`` sets ``bins``, ``edges`` ``(D, bins + 1)`` and ``density``, a ``(bins, ..., bins)`` grid. It raises
    ValueError for too many cells and for a column that does not vary.
    """

    max_cells = 10**7

    def __init__(self, bins: int | None = None):
        self._given = self.bins = None if bins is None else check_count(bins, "bins")

    def fit(self, x: Tensor) -> "Histogram":
        data = _data(x)
        n, dim = data.shape
        self.bins = self._given
        if self._given is None:
            most = max(2, min(4 * math.isqrt(n), int(self.max_cells ** (1 / dim))))
            choices = sorted({round(most ** (i / 99)) for i in range(100)})
            self.bins = choices[int(self.risk(x, choices).argmin())]
        cell, low, high = self._cells(data, self.bins)
        self.edges = torch.lerp(
            low[:, None], high[:, None], torch.linspace(0, 1, self.bins + 1, dtype=low.dtype).to(low)
        )
        counts = torch.bincount(cell, minlength=self.bins**dim).reshape([self.bins] * dim)
        self.density = counts / (n * ((high - low) / self.bins).prod())
        self.event_shape, self.dtype = (dim,), x.dtype
        return self

    @staticmethod
    def risk(x: Tensor, bins) -> Tensor:
        """For each number of cells in ``bins``, an unbiased guess at the integrated squared error less ``integral
        p^2``.

        ``J = integral q^2 - 2/n sum_i q_{-i}(x_i) = (2 - (n+1)/n^2 sum_j N_j^2) / ((n-1) V)``, where ``q_{-i}`` is the
        histogram without point ``i``. Only differences of J mean anything. Shape ``(len(bins),)``.
        """
        data, risks = _data(x, 2, "to leave one out"), []
        n = len(data)
        for m in bins:
            cell, low, high = Histogram._cells(data, check_count(m, "bins"))
            squares = cell.unique(return_counts=True)[1].double().square().sum()
            risks.append((2 - (n + 1) / n**2 * squares) / (n - 1) / ((high - low) / m).prod())
        return torch.stack(risks)

    @staticmethod
    def _cells(data: Tensor, bins: int) -> tuple[Tensor, Tensor, Tensor]:
        """The number of each point's cell, and the range of the data."""
        dim, most = data.shape[1], Histogram.max_cells
        if bins**dim > most:
            raise ValueError(f"bins: expected at most {most} cells, got {bins} bins in each of the {dim} columns of x")
        low, high = data.amin(0), data.amax(0)
        if not (high > low).all():
            raise ValueError(f"x: expected columns that vary, got a constant column {(high > low).int().argmin()}")
        return Histogram._index(data, low, high, bins), low, high

    @staticmethod
    def _index(x: Tensor, low: Tensor, high: Tensor, bins: int) -> Tensor:
        place = ((x - low) / (high - low) * bins).long().clamp_(0, bins - 1)
        return (place * bins ** torch.arange(x.shape[1] - 1, -1, -1, device=x.device)).sum(1)

    def log_prob(self, x: Tensor) -> Tensor:
        """``log p(x)``, shape ``(B,)``; minus infinity in an empty cell and outside the range of the data."""
        x64 = check_data(x, _fitted(self).event_shape).double()
        low, high = self.edges[:, 0], self.edges[:, -1]
        density = self.density.flatten()[self._index(x64.clamp(low, high), low, high, self.bins)]
        return torch.where(((x64 >= low) & (x64 <= high)).all(1), density, 0.0).log().to(x.dtype)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """A cell in proportion to its count, then a uniform point in it; shape ``(n, D)``."""
        place = torch.unravel_index(_pick(_fitted(self).density.flatten(), n, generator), self.density.shape)
        place = torch.stack(place, 1) + rand(n, *self.event_shape, like=self.edges, generator=generator)
        return torch.lerp(self.edges[:, 0], self.edges[:, -1], place / self.bins).to(self.dtype)


class KDE:
    """A Gaussian bump on every point: ``p(x) = 1/n sum_i N(x; x_i, h^2 I)`` (E. Parzen, On estimation of a probability
    density function and mode, Annals of Mathematical Statistics, 1962).

    ``bandwidth`` is ``h``; ``None`` takes the one of largest :meth:`leave_one_out` likelihood (R. Duin, On the choice
    of smoothing parameters for Parzen estimators, IEEE Transactions on Computers, 1976), in one dimension or a
    thousand. Heavy tails make it too wide: it must reach the farthest point. Of more than ``most_rows`` rows, that
    many, drawn with a fixed seed, choose, and their ``h`` is multiplied by ``(most_rows / n)^(1 / (D + 4))``, the rate
    at which the best one shrinks.

    ``log_prob`` sums in blocks, so memory does not grow with ``B n``, and can be differentiated in ``x``. ``fit`` sets
    ``bandwidth``; it raises ValueError if it must choose and every row has an exact copy, for then ``h = 0`` would win.
    """

    most_rows = 4096

    def __init__(self, bandwidth: float | None = None):
        self._given = self.bandwidth = None if bandwidth is None else self._check(bandwidth, "bandwidth")

    def fit(self, x: Tensor) -> "KDE":
        data = _data(x)
        self.centre = data.mean(0)
        self.points = data - self.centre  # small coordinates lose less to rounding
        self.bandwidth = self._given or self._choose(self.points)
        self.event_shape, self.dtype = tuple(x.shape[1:]), x.dtype
        return self

    @staticmethod
    def leave_one_out(x: Tensor, bandwidths) -> Tensor:
        """``1/n sum_i log p_{-i}(x_i)`` for each of ``bandwidths``, in nats: how well others foretell each point."""
        data, bandwidths = _data(x, 2, "to leave one out"), [KDE._check(h, "bandwidths") for h in bandwidths]
        blocks = KDE._others(data - data.mean(0), min(bandwidths, default=1.0))
        total = sum(torch.stack([KDE._log_sum(d2, h, *data.shape).sum() for h in bandwidths]) for d2 in blocks)
        return total / len(data) + math.log(len(data) / (len(data) - 1))

    @staticmethod
    def _check(bandwidth, name: str) -> float:
        if check_positive(bandwidth, name) < 1e-100:
            raise ValueError(f"{name}: expected at least 1e-100, got {bandwidth!r}, whose square is lost")
        return float(bandwidth)

    @staticmethod
    def _others(points: Tensor, scale: float):
        """Squared distances from each point to all, in blocks of rows, those to itself made infinite."""
        for i in torch.arange(len(points), device=points.device).split(64):
            yield _squared_distances(points[i], points, scale).scatter_(1, i[:, None], math.inf)

    @staticmethod
    def _log_sum(d2: Tensor, h: float, n: int, dim: int) -> Tensor:
        """``log 1/n sum_j N(x_i; x_j, h^2 I)`` over the columns of ``d2``."""
        e = d2 * (-0.5 / h**2)
        most = e.detach().amax(1)
        # exp is slow where it underflows; terms cut at e^-700 of the largest add nothing to a float64
        small = e.sub_(most.clamp_min(-1e300)[:, None]).clamp_min_(-700).exp_().sum(1)
        return most + small.log() - math.log(n) - dim * (math.log(h) + math.log(2 * math.pi) / 2)

    @staticmethod
    def _choose(points: Tensor) -> float:
        """The bandwidth of largest leave-one-out likelihood, to about 1%.

        There ``h^2 D`` is a mean of squared distances between points with weights that fall with distance. So it lies
        between the mean squared distance to the nearest point and that to all: two ends that need no guess.
        """
        n, dim = _data(points, 2, "to choose a bandwidth").shape
        if n > KDE.most_rows:
            rows = torch.randperm(n, generator=torch.Generator().manual_seed(0))[: KDE.most_rows].to(points.device)
            return KDE._choose(points[rows]) * (KDE.most_rows / n) ** (1 / (dim + 4))
        for scale in math.inf, 0.0:  # fast distances, then exact ones if the nearest are too near for the fast
            blocks = list(KDE._others(points, scale))
            low = torch.cat([d2.amin(1) for d2 in blocks]).mean().div(dim).sqrt().item()
            if EPSILON * points.square().sum(1).max() <= 1e-6 * low**2:
                break
        if low == 0:
            raise ValueError("x: expected rows that differ, but every row has an exact copy; pass a bandwidth")
        high = max(low, math.sqrt(2 * n / (n - 1) * points.square().sum(1).mean().item() / dim))
        for steps in 3 + math.ceil(math.log2(high / low)), 9:
            grid = torch.linspace(math.log(low), math.log(high), steps, dtype=torch.float64).tolist()
            score = [sum(KDE._log_sum(d2, math.exp(g), n, dim).sum().item() for d2 in blocks) for g in grid]
            i = min(max(score.index(max(score)), 1), steps - 2)
            low, high = math.exp(grid[i - 1]), math.exp(grid[i + 1])
        rise, fall = score[i] - score[i - 1], score[i] - score[i + 1]  # the top of the parabola through three points
        shift = (rise - fall) / (2 * (rise + fall)) if rise + fall > 0 else 0.0
        return math.exp(grid[i] + min(max(shift, -1.0), 1.0) * (grid[i + 1] - grid[i]))

    def log_prob(self, x: Tensor) -> Tensor:
        """``log p(x)``, shape ``(B,)``."""
        x64 = check_data(x, _fitted(self).event_shape).double() - self.centre
        blocks, h, size = self.points.split(1024), self.bandwidth, self.points.shape
        # each block's sum is folded in at once: thousands of small results kept would leave holes of a block's size
        parts = ((self._log_sum(_squared_distances(q, p, h), h, *size) for p in blocks) for q in x64.split(128))
        return torch.cat([reduce(torch.logaddexp, part) for part in parts]).to(x.dtype)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """A point of the data at random plus normal noise of scale ``bandwidth``; shape ``(n, D)``."""
        points = _fitted(self).points[_pick(torch.ones_like(self.points[:, 0]), n, generator)]
        noise = randn(*points.shape, like=points, generator=generator)
        return (self.centre + points + self.bandwidth * noise).to(self.dtype)


class KNN:
    """k nearest neighbours: ``p(x) = k / (n V r_k(x)^D)``, ``r_k`` the distance to the k-th nearest point of the data
    and ``V`` the volume of the unit ball (D. Loftsgaarden and C. Quesenberry, A nonparametric estimate of a
    multivariate density function, Annals of Mathematical Statistics, 1965).

    Far away it falls as ``|x|^-D``, whose integral is infinite: it is no density (``normalized = False``), nothing can
    be drawn from it, and there is no ``sample``. A point of the data counts as its own neighbour. A search tree finds
    the neighbours up to ten dimensions, all distances beyond. ``fit`` raises ValueError for k above the number of rows,
    ``log_prob`` where ``r_k = 0``, for there the estimate is infinite.
    """

    normalized = False

    def __init__(self, k: int):
        self.k = check_count(k, "k")

    def fit(self, x: Tensor) -> "KNN":
        data = _data(x)
        if self.k > len(data):
            raise ValueError(f"k: expected at most the {len(data)} rows of x, got {self.k}")
        self.points, self.event_shape = data, tuple(x.shape[1:])
        self.tree = cKDTree(data.cpu().numpy()) if data.shape[1] <= 10 else None
        return self

    def log_prob(self, x: Tensor) -> Tensor:
        """``log p(x)``, shape ``(B,)``."""
        x64 = check_data(x, _fitted(self).event_shape).detach().double()
        if self.tree is None:
            radius = torch.empty_like(x64[:, 0])
            for part, out in zip(x64.split(64), radius.split(64), strict=True):
                out.copy_(torch.cdist(part, self.points, compute_mode=EXACT).kthvalue(self.k)[0])
        else:
            radius = torch.from_numpy(self.tree.query(x64.cpu().numpy(), k=[self.k])[0][:, 0]).to(x64)
        if not radius.all():
            row = int(radius.argmin())
            raise ValueError(f"x: row {row} lies on {self.k} rows of the data or more; expected fewer copies than k")
        n, dim = self.points.shape
        log_ball = dim / 2 * math.log(math.pi) - math.lgamma(dim / 2 + 1)
        return (math.log(self.k / n) - log_ball - dim * radius.log()).to(x.dtype)


class GaussianMixture:
    """``p(x) = sum_k w_k N(x; m_k, S_k)``, full covariances, by expectation-maximisation (A. Dempster, N. Laird and D.
    Rubin, Maximum likelihood from incomplete data via the EM algorithm, Journal of the Royal Statistical Society B,
    1977).

    One component is the parametric fit of a Gaussian. With more, the likelihood has no maximum unless something keeps a
    component from shrinking onto one point: the eigenvalues of ``S_k``, in units where each column has variance one,
    stay above ``floor``. Cutting them there is the exact M step under that constraint, so no step lowers the
    likelihood. A column that does not vary takes the mean scale of the others; then the floor, not the data, sets the
    density across it.

    EM starts from k-means seeded far apart (k-means++: D. Arthur and S. Vassilvitskii, SODA, 2007), by a fixed seed if
    ``generator`` is None, and stops when a step gains less than ``tolerance`` nats, or after ``steps``. ``fit`` sets
    ``weights`` ``(K,)``, ``means`` ``(K, D)``, ``covariances`` ``(K, D, D)``, in float64, and ``history``, the mean
    log-likelihood of each step. It raises ValueError for more components than distinct rows.
    """

    floor = 1e-6

    def __init__(self, components: int, steps: int = 500, tolerance: float = 1e-6):
        self.components, self.steps = check_count(components, "components"), check_count(steps, "steps")
        self.tolerance = check_positive(tolerance, "tolerance")

    def fit(self, x: Tensor, generator: torch.Generator | None = None) -> "GaussianMixture":
        data = _data(x)
        distinct = len(data.unique(dim=0)) if self.components > 1 else 1
        if self.components > distinct:
            raise ValueError(f"components: expected at most the {distinct} distinct rows of x, got {self.components}")
        self.shift, spread = data.mean(0), data.std(0, correction=0)
        varies = (data.amax(0) > data.amin(0)) & (spread > 0)
        if not varies.any():
            raise ValueError(f"x: expected rows that differ, got {len(data)} times the same")
        self.scale = torch.where(varies, spread, spread[varies].mean())
        z = (data - self.shift) / self.scale
        self._maximise(z, self._k_means(z, generator or torch.Generator().manual_seed(0)))
        self.history = []
        for _ in range(self.steps):
            joint = self._log_joint(z)
            log_p = joint.logsumexp(1, keepdim=True)
            self.history.append(float(log_p.mean()))
            if len(self.history) > 1 and self.history[-1] - self.history[-2] < self.tolerance:
                break
            self._maximise(z, (joint - log_p).exp())
        root = self.scale[:, None] * self.axes * self.widths[:, None]
        self.means, self.covariances = self.shift + self.scale * self.centres, root @ root.mT
        self.event_shape, self.dtype = tuple(x.shape[1:]), x.dtype
        return self

    def _k_means(self, z: Tensor, generator: torch.Generator) -> Tensor:
        """Ten rounds of k-means; the cluster of each row as shares of zero and one, ``(N, K)``."""
        centres = z[_pick(torch.ones_like(z[:, 0]), 1, generator)]
        while len(centres) < self.components:
            centres = torch.cat([centres, z[_pick(torch.cdist(z, centres).amin(1).square(), 1, generator)]])
        for _ in range(10):
            share = F.one_hot(torch.cdist(z, centres).argmin(1), self.components).to(z)
            count = share.sum(0)[:, None]
            centres = torch.where(count > 0, share.T @ z / count.clamp_min(1), centres)
        return share

    def _maximise(self, z: Tensor, share: Tensor):
        """The M step: each component takes the weighted mean and covariance of the rows, each row by its share."""
        count = share.sum(0).clamp_min(1e-300)
        self.weights, self.centres = count / count.sum(), share.T @ z / count[:, None]
        apart = [z - m for m in self.centres]
        covariance = torch.stack([(s[:, None] * a).T @ a / c for s, a, c in zip(share.T, apart, count, strict=True)])
        values, self.axes = torch.linalg.eigh(covariance)
        self.widths = values.clamp_min(self.floor).sqrt()

    def _log_joint(self, z: Tensor) -> Tensor:
        """``log w_k N(x; m_k, S_k)``, shape ``(N, K)``."""
        parts = zip(self.centres, self.axes, self.widths, strict=True)
        squares = torch.stack([((z - m) @ axes / width).square().sum(1) for m, axes, width in parts], 1)
        log_volume = (self.widths.log() + self.scale.log() + math.log(2 * math.pi) / 2).sum(1)
        return self.weights.log() - squares / 2 - log_volume

    def log_prob(self, x: Tensor) -> Tensor:
        """``log p(x)``, shape ``(B,)``."""
        x64 = check_data(x, _fitted(self).event_shape).double()
        return self._log_joint((x64 - self.shift) / self.scale).logsumexp(1).to(x.dtype)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """A component by its weight, then a draw from its Gaussian; shape ``(n, D)``."""
        k = _pick(_fitted(self).weights, n, generator)
        z = randn(n, *self.event_shape, like=self.scale, generator=generator)
        for j in k.unique():
            z[k == j] = (z[k == j] * self.widths[j]) @ self.axes[j].T + self.centres[j]
        return (self.shift + self.scale * z).to(self.dtype)


class BasisDensity:
    """Cosines on the range ``[a, b]`` of the data, one dimension only (N. Cencov, Evaluation of an unknown distribution
    density from observations, Soviet Mathematics, 1962): with ``u = (x - a) / (b - a)`` and ``c_j = sqrt(2) cos(pi j
    u)``, ``f = 1 + sum_{j=1..J} t_j c_j``, ``t_j = 1/n sum_i c_j(u_i)``, and ``p(x) = max(f, 0) / (Z (b - a))``, for
    ``f`` can be negative.

    ``terms`` is ``J``; ``None`` takes the one of least :meth:`risk` up to ``most_terms`` (R. Kronmal and M. Tarter, The
    estimation of probability densities and cumulatives by Fourier series methods, Journal of the American Statistical
    Association, 1968). ``f`` is a polynomial in ``cos(pi u)``: its roots say where it is negative, so ``Z`` and the
    cumulative are exact.

    ``fit`` sets ``terms`` and ``coefficients`` ``(J,)``; it raises ValueError for D other than 1 and for data that does
    not vary.
    """

    most_terms = 200

    def __init__(self, terms: int | None = None):
        self._given = self.terms = None if terms is None else check_count(terms, "terms", least=0)

    def fit(self, x: Tensor) -> "BasisDensity":
        u, self.low, self.high = self._unit(x, 1 if self._given is not None else 2)
        self.terms = self._given
        if self._given is None:
            self.terms = int(self.risk(x, range(self.most_terms + 1)).argmin())
        self.coefficients = torch.stack([self._cosine(u, j).mean() for j in range(self.terms + 1)])[1:]
        # f keeps its sign between two neighbouring roots; a doubtful root is kept, for a cut too many changes nothing
        roots = chebroots([1.0, *(math.sqrt(2) * self.coefficients).tolist()])
        roots = torch.from_numpy(roots.real[(abs(roots.imag) < 1e-3) & (abs(roots.real) < 1)]).to(u)
        self.cuts = torch.cat([u.new_tensor([0.0, 1.0]), roots.acos() / math.pi]).sort()[0]
        self.positive = self._series((self.cuts[1:] + self.cuts[:-1]) / 2) > 0
        mass = torch.where(self.positive, self._integral(self.cuts).diff(), 0.0)
        self.mass = F.pad(mass.cumsum(0), (1, 0))
        self.event_shape, self.dtype = (1,), x.dtype
        return self

    @staticmethod
    def risk(x: Tensor, terms) -> Tensor:
        """The risk of each number of terms in ``terms``, as :meth:`Histogram.risk`, of ``f`` before it is cut at zero.

        ``J = (-1 + sum_{j <= terms} (2 s_j^2 / n - t_j^2)) / (b - a)``, ``s_j^2`` the sample variance of ``c_j``.
        """
        u, low, high = BasisDensity._unit(x, 2)
        terms = [check_count(m, "terms", least=0) for m in terms]
        cosines = (BasisDensity._cosine(u, j) for j in range(1, max(terms, default=0) + 1))
        steps = [u.new_tensor(-1.0), *(2 * c.var() / len(u) - c.mean().square() for c in cosines)]
        return torch.stack(steps).cumsum(0)[terms] / (high - low)

    @staticmethod
    def _unit(x: Tensor, least: int) -> tuple[Tensor, Tensor, Tensor]:
        data = _data(x, least, "to leave one out", (1,))[:, 0]
        low, high = data.aminmax()
        if not high > low:
            raise ValueError(f"x: expected values that vary, got {len(data)} times {low:g}")
        return (data - low) / (high - low), low, high

    @staticmethod
    def _cosine(u: Tensor, j: int) -> Tensor:
        return math.sqrt(2) * torch.cos(math.pi * j * u)

    def _series(self, u: Tensor) -> Tensor:
        return 1 + sum((t * self._cosine(u, j) for j, t in enumerate(self.coefficients, 1)), torch.zeros_like(u))

    def _integral(self, u: Tensor) -> Tensor:
        waves = (t * torch.sin(math.pi * j * u) / (math.pi * j) for j, t in enumerate(self.coefficients, 1))
        return u + math.sqrt(2) * sum(waves, torch.zeros_like(u))

    def _cdf(self, u: Tensor) -> Tensor:
        i = (torch.searchsorted(self.cuts, u, right=True) - 1).clamp(0, len(self.positive) - 1)
        part = torch.where(self.positive[i], self._integral(u) - self._integral(self.cuts)[i], 0.0)
        return (self.mass[i] + part) / self.mass[-1]

    def log_prob(self, x: Tensor) -> Tensor:
        """``log p(x)``, shape ``(B,)``; minus infinity where the sum is cut and outside the range of the data."""
        u = (check_data(x, _fitted(self).event_shape).double()[:, 0] - self.low) / (self.high - self.low)
        density = torch.where((u >= 0) & (u <= 1), self._series(u).clamp_min(0), 0.0)
        return (density / (self.mass[-1] * (self.high - self.low))).log().to(x.dtype)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Uniforms sent through the inverse of the cumulative; shape ``(n, 1)``."""
        u = rand(check_count(n), like=_fitted(self).cuts, generator=generator)
        place = _bisect(self._cdf, u, torch.zeros_like(u), torch.ones_like(u))
        return torch.lerp(self.low, self.high, place)[:, None].to(self.dtype)


class NeuralCDF(nn.Module):
    """A cumulative that can only increase, and its derivative, the density; one dimension.

    ``H(x) = sum_k pi_k sigmoid(w_k x + b_k)`` with ``pi = softmax`` and ``w = softplus > 0``: one hidden layer whose
    output weights are positive and sum to one, so H rises from 0 to 1. It is fitted to targets drawn at random, sorted
    uniforms for sorted data (M. Magdon-Ismail and A. Atiya, Density estimation and random variate generation using
    multilayer networks, IEEE Transactions on Neural Networks, 2002).

    The ``hidden`` units start evenly spread over [-3, 3], each as wide as the gap between two, so standardise the data
    first.
    """

    event_shape = (1,)

    def __init__(self, hidden: int = 64):
        super().__init__()
        slope = max(1.0, check_count(hidden, "hidden") / 6)
        self.raw_weight = nn.Parameter(torch.full((hidden,), math.log(math.expm1(slope))))
        self.bias = nn.Parameter(-slope * (torch.linspace(-3, 3, hidden) if hidden > 1 else torch.zeros(1)))
        self.logits = nn.Parameter(torch.zeros(hidden))

    def _units(self, x: Tensor) -> Tensor:
        return check_data(x, (1,)) * F.softplus(self.raw_weight) + self.bias

    def cdf(self, x: Tensor) -> Tensor:
        """``H(x)``, shape ``(B,)``."""
        return (self._units(x).sigmoid() * self.logits.softmax(0)).sum(1)

    def log_prob(self, x: Tensor) -> Tensor:
        """``log H'(x) = log sum_k pi_k w_k sigmoid(a_k) sigmoid(-a_k)`` with ``a_k = w_k x + b_k``, shape ``(B,)``."""
        a, log_weight = self._units(x), F.softplus(self.raw_weight).log() + self.logits.log_softmax(0)
        return (log_weight + F.logsigmoid(a) + F.logsigmoid(-a)).logsumexp(1)

    def loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The mean squared difference between H at the sorted batch and as many sorted uniforms, drawn anew."""
        x = check_data(x, (1,)).sort(0)[0]
        return F.mse_loss(self.cdf(x), rand(len(x), like=x, generator=generator).sort()[0])

    @torch.no_grad()
    def inverse(self, u: Tensor) -> Tensor:
        """The x with ``H(x) = u``, shape ``(N, 1)``, for ``u`` ``(N,)`` strictly between 0 and 1; ValueError otherwise.

        By bisection: it lies between the least and the greatest of the units' own quantiles ``(logit(u) - b_k) / w_k``.
        """
        if not ((check_data(u, (), "u") > 0) & (u < 1)).all():
            raise ValueError(f"u: expected values strictly between 0 and 1, got {u.min():.3g} to {u.max():.3g}")
        ends = (u.logit()[:, None] - self.bias) / F.softplus(self.raw_weight)
        return _bisect(lambda x: self.cdf(x[:, None]), u, ends.amin(1), ends.amax(1))[:, None]

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Uniforms sent through :meth:`inverse`, shape ``(n, 1)``."""
        u = rand(check_count(n), like=self.bias, generator=generator)
        return self.inverse(u.clamp_min(torch.finfo(u.dtype).eps / 4))  # rand can give exactly 0
