"""Density estimation: from n points drawn from an unknown law, a guess at its density.

Five estimators are fitted in one call, ``fit(x)``; :class:`NeuralCDF` is a network trained by its ``loss``. A smoothing
parameter left at ``None`` is chosen by leave-one-out: the estimate at each point is judged by the other n - 1.
Data is ``(N, D)``. The fitted estimators compute in float64; ``log_prob`` (nats) answers in the dtype of its argument,
``sample`` in that of the data.
"""

import math
from functools import reduce

import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn
from torch.distributions import MultivariateNormal
from torch.nn import functional as F

from genlib.contract import check_count, check_data, check_generator, check_positive, rand, randn

EPSILON = torch.finfo(torch.float64).eps
EXACT = "donot_use_mm_for_euclid_dist"  # torch.cdist by differences


def _data(x: Tensor, least: int = 1, event_shape=None) -> Tensor:
    """The checked data of ``fit``, in float64; choosing by leave-one-out takes at least two rows."""
    data = check_data(x, event_shape).detach().double()
    if len(data) < least:
        raise ValueError(f"x: expected at least {least} rows to leave one out, got {len(data)}")
    if data.abs().max() > 1e100:
        raise ValueError(f"x: expected values within 1e100 of zero, got {data.abs().max():.3g}, whose square overflows")
    spread = data.amax(0) - data.amin(0)
    if ((spread > 0) & (spread < 1e-100)).any():
        raise ValueError(f"x: expected columns that vary by 1e-100 or more, got {spread[spread > 0].min():.3g}")
    return data


def _fitted(model):
    if not hasattr(model, "event_shape"):
        raise RuntimeError(f"{type(model).__name__} is not fitted: call fit(x) first")
    return model


def _pick(weights: Tensor, n: int, generator) -> Tensor:
    """``n`` indices, each drawn in proportion to its weight, by inverting the cumulative."""
    total = weights.cumsum(0)
    return torch.searchsorted(total / total[-1], rand(check_count(n), like=total, generator=generator), right=True)


class Histogram:
    """Counts in equal cells over the range of the data: ``p(x) = N_j / (n V)`` in cell ``j`` of volume ``V``.

    ``bins`` is the number of cells along each dimension; ``None`` takes the one of least :meth:`risk` (M. Rudemo, 1982,
    Scandinavian Journal of Statistics). ``fit`` sets ``bins``, ``edges`` ``(D, bins + 1)`` and ``density``, a ``(bins,
    ..., bins)`` grid. It raises ValueError for a column that does not vary and for more than ``max_cells`` cells.
    """

    max_cells = 10**7

    def __init__(self, bins: int | None = None):
        self._given = self.bins = None if bins is None else check_count(bins, "bins")

    def fit(self, x: Tensor) -> "Histogram":
        data, self.bins = _data(x), self._given
        n, dim = data.shape
        if self.bins is None:
            most = max(2, min(4 * math.isqrt(n), int(self.max_cells ** (1 / dim))))
            choices = sorted({round(most ** (i / 99)) for i in range(100)})
            self.bins = choices[int(self.risk(x, choices).argmin())]
        counts, self.edges, volume = self._count(data, self.bins)
        self.density = counts / (n * volume)
        self.event_shape, self.dtype = (dim,), x.dtype
        return self

    @staticmethod
    def risk(x: Tensor, bins) -> Tensor:
        """An unbiased guess at ``integral (q - p)^2`` less ``integral p^2`` for each of ``bins``, by leaving one out.

        ``J = integral q^2 - 2/n sum_i q_{-i}(x_i) = (2 - (n+1)/n^2 sum_j N_j^2) / ((n-1) V)``.
        """
        data, risks = _data(x, 2), []
        n = len(data)
        for m in bins:
            counts, _, volume = Histogram._count(data, check_count(m, "bins"))
            risks.append((2 - (n + 1) / n**2 * counts.square().sum()) / ((n - 1) * volume))
        return torch.stack(risks)

    @staticmethod
    def _count(data: Tensor, bins: int) -> tuple[Tensor, Tensor, Tensor]:
        """The number of points in each cell, the edges, and the volume of a cell."""
        dim, most = data.shape[1], Histogram.max_cells
        if max(2, bins) ** dim > most:
            least = max(2, bins)
            raise ValueError(f"bins: expected at most {most} cells, got {least} bins in each of the {dim} columns of x")
        low, high = data.amin(0), data.amax(0)
        if not (high > low).all():
            raise ValueError(f"x: expected columns that vary, got a constant column {(high > low).int().argmin()}")
        steps = torch.linspace(0, 1, bins + 1, dtype=data.dtype, device=data.device)
        edges = torch.lerp(low[:, None], high[:, None], steps)
        counts = data.new_zeros([bins] * dim)
        counts.index_put_(Histogram._cell(data, edges), torch.ones_like(data[:, 0]), accumulate=True)
        volume = ((high - low) / bins).prod()
        if not 1e-290 < volume < 1e290:
            raise ValueError(
                f"x: expected ranges whose product is a float64, got cells of volume {volume:.3g}; rescale x"
            )
        return counts, edges, volume

    @staticmethod
    def _cell(x: Tensor, edges: Tensor) -> tuple[Tensor, ...]:
        """The index of each row's cell along each dimension."""
        place = torch.searchsorted(edges, x.T.contiguous(), right=True) - 1
        return place.clamp(0, edges.shape[1] - 2).unbind()

    def log_prob(self, x: Tensor) -> Tensor:
        """``log p(x)``, shape ``(B,)``; minus infinity in an empty cell and outside the range of the data."""
        x64 = check_data(x, _fitted(self).event_shape).double()
        inside = ((x64 >= self.edges[:, 0]) & (x64 <= self.edges[:, -1])).all(1)
        return torch.where(inside, self.density[self._cell(x64, self.edges)], 0.0).log().to(x.dtype)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """A cell in proportion to its count, then a uniform point in it; shape ``(n, D)``."""
        cell = torch.unravel_index(_pick(_fitted(self).density.flatten(), n, generator), self.density.shape)
        place = torch.stack(cell, 1) + rand(n, *self.event_shape, like=self.edges, generator=generator)
        return torch.lerp(self.edges[:, 0], self.edges[:, -1], place / self.bins).to(self.dtype)


class KDE:
    """A Gaussian bump on every point: ``p(x) = 1/n sum_i N(x; x_i, h^2 I)`` (E. Parzen, 1962, Annals of Mathematical
    Statistics).

    ``bandwidth`` is ``h``; ``None`` takes the one of largest :meth:`leave_one_out` likelihood (R. Duin, 1976, IEEE
    Transactions on Computers). Of more than ``most_rows`` rows, that many, drawn with a fixed seed, choose, and their
    ``h`` is multiplied by ``(most_rows / n)^(1 / (D + 4))``, the rate at which the best one shrinks. ``fit`` sets
    ``bandwidth``; it raises ValueError if it must choose and most rows have exact copies, for then ``h = 0`` would win.
    """

    most_rows = 4096

    def __init__(self, bandwidth: float | None = None):
        self._given = self.bandwidth = None if bandwidth is None else check_positive(bandwidth, "bandwidth")

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
        data, bandwidths = _data(x, 2), [check_positive(h, "bandwidths") for h in bandwidths]
        blocks = KDE._others(data - data.mean(0), min(bandwidths, default=1.0))
        total = sum(torch.stack([KDE._log_sum(d2, h, *data.shape).sum() for h in bandwidths]) for d2 in blocks)
        return total / len(data) + math.log(len(data) / (len(data) - 1))

    @staticmethod
    def _choose(points: Tensor) -> float:
        """The bandwidth of largest leave-one-out likelihood, to about 1%, on three ever finer grids.

        At the best, ``h^2 D`` is a weighted mean of squared distances: between that to the nearest and that to all.
        """
        n, dim = _data(points, 2).shape
        if n > KDE.most_rows:
            rows = torch.randperm(n, generator=torch.Generator().manual_seed(0))[: KDE.most_rows].to(points.device)
            return KDE._choose(points[rows]) * (KDE.most_rows / n) ** (1 / (dim + 4))
        counts = points.unique(dim=0, return_counts=True)[1]
        if counts[counts > 1].sum() > n / 2:  # the spacing of a discrete grid would choose, not the shape
            raise ValueError("x: expected rows that differ, but most rows have an exact copy; pass a bandwidth")
        nearest = torch.cat([d2.amin(1) for d2 in KDE._others(points, math.inf)])
        high = (2 * points.var(0).mean()).sqrt()
        low = (nearest.mean() / dim).sqrt().clamp_min(1e-7 * high)  # rounding hides what is nearer
        for _ in range(3):
            grid = torch.linspace(low.log(), high.log(), 16, dtype=torch.float64).exp()
            best = int(KDE.leave_one_out(points, grid.tolist()).argmax().clamp(1, 14))
            low, high = grid[best - 1], grid[best + 1]
        return grid[best].item()

    @staticmethod
    def _squared_distances(x: Tensor, y: Tensor, h: float) -> Tensor:
        """``|x_i - y_j|^2``, ``(N, M)``: a matrix product, or, where that loses more than 1e-9 ``h^2``, differences."""
        x2, y2 = x.square().sum(1), y.square().sum(1)
        if EPSILON * (x2.max() + y2.max()) <= 1e-9 * h * h:
            return torch.addmm(y2, x, y.T, alpha=-2).add_(x2[:, None]).clamp_min_(0)
        return torch.cdist(x, y, compute_mode=EXACT).square()

    @staticmethod
    def _others(points: Tensor, h: float):
        """Squared distances from each point to all, in blocks of rows, those to itself made infinite."""
        for i in torch.arange(len(points), device=points.device).split(64):
            yield KDE._squared_distances(points[i], points, h).scatter_(1, i[:, None], math.inf)

    @staticmethod
    def _log_sum(d2: Tensor, h: float, n: int, dim: int) -> Tensor:
        """``log 1/n sum_j N(x_i; x_j, h^2 I)`` over the columns of ``d2``."""
        e = (d2 / h).div_(-2 * h)  # h^2 could underflow
        most = e.detach().amax(1)
        # exp is slow where it underflows; terms cut at e^-700 of the largest add nothing to a float64
        small = e.sub_(most.clamp_min(-1e300)[:, None]).clamp_min_(-700).exp_().sum(1)
        return most + small.log() - math.log(n) - dim * (math.log(h) + math.log(2 * math.pi) / 2)

    def log_prob(self, x: Tensor) -> Tensor:
        """``log p(x)``, shape ``(B,)``, differentiable; summed in blocks, so memory does not grow with ``B n``."""
        x64 = check_data(x, _fitted(self).event_shape).double() - self.centre
        blocks, h, size = self.points.split(1024), self.bandwidth, self.points.shape
        # each block's sum is folded in at once: thousands of small results kept would leave holes of a block's size
        parts = ((self._log_sum(self._squared_distances(q, p, h), h, *size) for p in blocks) for q in x64.split(128))
        return torch.cat([reduce(torch.logaddexp, part) for part in parts]).to(x.dtype)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """A point of the data at random plus normal noise of scale ``bandwidth``; shape ``(n, D)``."""
        points = _fitted(self).points[_pick(torch.ones_like(self.points[:, 0]), n, generator)]
        noise = randn(*points.shape, like=points, generator=generator)
        return (self.centre + points + self.bandwidth * noise).to(self.dtype)


class KNN:
    """k nearest neighbours: ``p(x) = k / (n V r_k(x)^D)``, ``r_k`` the distance to the k-th nearest point of the data
    and ``V`` the volume of the unit ball (D. Loftsgaarden and C. Quesenberry, 1965, Annals of Mathematical Statistics).

    Its integral is infinite: it is no density and has no ``sample``. A tree finds the neighbours up to ten dimensions,
    the distances to all points beyond. ``fit`` raises ValueError for k above the number of rows, ``log_prob`` where
    ``r_k = 0``.
    """

    normalized = False

    def __init__(self, k: int):
        self.k = check_count(k, "k")

    def fit(self, x: Tensor) -> "KNN":
        data = _data(x)
        if self.k > len(data):
            raise ValueError(f"k: expected at most the {len(data)} rows of x, got {self.k}")
        self.points, self.event_shape = data, tuple(x.shape[1:])
        self.squares = data.square().sum(1)
        self.tree = cKDTree(data.cpu().numpy()) if data.shape[1] <= 10 else None
        return self

    def log_prob(self, x: Tensor) -> Tensor:
        """``log p(x)``, shape ``(B,)``."""
        x64 = check_data(x, _fitted(self).event_shape).detach().double()
        if self.tree:
            radius = torch.from_numpy(self.tree.query(x64.cpu().numpy(), [self.k])[0][:, 0]).to(x64)
        else:
            radius = torch.cat([self._radius(block) for block in x64.split(256)])
        if not radius.all():
            row = int(radius.argmin())
            raise ValueError(f"x: row {row} lies on {self.k} rows of the data or more; expected fewer copies than k")
        n, dim = self.points.shape
        log_ball = dim / 2 * math.log(math.pi) - math.lgamma(dim / 2 + 1)
        return (math.log(self.k / n) - log_ball - dim * radius.log()).to(x.dtype)

    def _radius(self, x: Tensor) -> Tensor:
        """``r_k``: a matrix product finds the k nearest and differences measure them, unless rounding could mislead."""
        near = torch.addmm(self.squares, x, self.points.T, alpha=-2).topk(self.k, largest=False)[1]
        radius = torch.stack([(x - self.points[row]).norm(dim=1) for row in near.T]).amax(0)
        if (EPSILON * (x.square().sum(1) + self.squares.max()) > 1e-9 * radius.square()).any():
            return torch.cdist(x, self.points, compute_mode=EXACT).kthvalue(self.k)[0]
        return radius


class GaussianMixture:
    """``p(x) = sum_k w_k N(x; m_k, S_k)``, full covariances, by expectation-maximisation (A. Dempster, N. Laird and D.
    Rubin, 1977, Journal of the Royal Statistical Society B).

    A component could shrink onto one point and the likelihood grow for ever. So the eigenvalues of ``S_k``, in units
    where each column has variance one, stay above ``floor``: the exact M step under that constraint, so no step lowers
    the likelihood. EM starts from rows drawn far apart (k-means++: D. Arthur and S. Vassilvitskii, 2007, SODA), by a
    fixed seed if ``generator`` is None, and stops when a step gains less than ``tolerance`` nats, or after ``steps``.

    ``fit`` sets ``weights`` ``(K,)``, ``means`` ``(K, D)``, ``covariances`` ``(K, D, D)`` and ``history``, the mean
    log-likelihood of each step. It raises ValueError for more components than distinct rows.
    """

    floor = 1e-6

    def __init__(self, components: int, steps: int = 500, tolerance: float = 1e-6):
        self.components, self.steps = check_count(components, "components"), check_count(steps, "steps")
        self.tolerance = check_positive(tolerance, "tolerance")

    def fit(self, x: Tensor, generator: torch.Generator | None = None) -> "GaussianMixture":
        data = _data(x)
        spread = data.std(0, correction=0)
        varies = (data.amax(0) > data.amin(0)) & (spread > 0)
        if not varies.any():
            raise ValueError(f"x: expected rows that differ, got {len(data)} times the same")
        scale = torch.where(varies, spread, spread[varies].mean())  # of a constant column: the mean of the others
        z = (data - data.mean(0)) / scale
        distinct = len(z.unique(dim=0)) if self.components > 1 else 1  # rounding joins rows close beside a far one
        if self.components > distinct:
            raise ValueError(f"components: expected at most the {distinct} distinct rows of x, got {self.components}")
        share = self._nearest_seed(z, check_generator(generator) or torch.Generator().manual_seed(0))
        self.history = []
        while len(self.history) < self.steps:
            self._maximise(data, share, scale)
            joint = self._log_joint(data)
            log_p = joint.logsumexp(1, keepdim=True)
            self.history.append(log_p.mean().item())
            if len(self.history) > 1 and self.history[-1] - self.history[-2] < self.tolerance:
                break
            share = (joint - log_p).exp()
        self.event_shape, self.dtype = tuple(x.shape[1:]), x.dtype
        return self

    def _nearest_seed(self, z: Tensor, generator: torch.Generator) -> Tensor:
        """Each row's nearest of K rows drawn far apart, as shares of zero and one, ``(N, K)``."""
        seeds = z[_pick(torch.ones_like(z[:, 0]), 1, generator)]
        while len(seeds) < self.components:
            seeds = torch.cat(
                [seeds, z[_pick(torch.cdist(z, seeds, compute_mode=EXACT).amin(1).square(), 1, generator)]]
            )
        return F.one_hot(torch.cdist(z, seeds, compute_mode=EXACT).argmin(1), self.components).to(z)

    def _maximise(self, x: Tensor, share: Tensor, scale: Tensor):
        """The M step: each component takes the weighted mean and covariance of the rows, each row by its share."""
        count = share.sum(0).clamp_min(1e-300)
        self.weights, self.means = count / count.sum(), share.T @ x / count[:, None]
        apart = (x[:, None] - self.means) / scale
        covariance = torch.einsum("nk,nki,nkj->kij", share, apart, apart) / count[:, None, None]
        values, axes = torch.linalg.eigh(covariance)
        root = scale[:, None] * axes * values.clamp_min(self.floor).sqrt()[:, None]
        self.covariances = root @ root.mT

    def _log_joint(self, x: Tensor) -> Tensor:
        """``log w_k N(x; m_k, S_k)``, shape ``(N, K)``."""
        normals = MultivariateNormal(self.means, self.covariances, validate_args=False)
        return self.weights.log() + normals.log_prob(x[:, None])

    def log_prob(self, x: Tensor) -> Tensor:
        """``log p(x)``, shape ``(B,)``."""
        return self._log_joint(check_data(x, _fitted(self).event_shape).double()).logsumexp(1).to(x.dtype)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """A component by its weight, then a draw from its Gaussian; shape ``(n, D)``."""
        k = _pick(_fitted(self).weights, n, generator)
        x = randn(n, *self.event_shape, like=self.means, generator=generator)
        for j in k.unique():
            x[k == j] = self.means[j] + x[k == j] @ torch.linalg.cholesky(self.covariances[j]).T
        return x.to(self.dtype)


class BasisDensity:
    """Cosines on the range ``[a, b]`` of the data, one dimension only (N. Cencov, 1962, Soviet Mathematics).

    With ``u = (x - a) / (b - a)`` and ``c_j = sqrt(2) cos(pi j u)``, ``f = 1 + sum_{j=1..J} t_j c_j`` and ``t_j = 1/n
    sum_i c_j(u_i)``. As ``f`` can be negative, ``p(x) = max(f, 0) / (Z (b - a))``, tabulated on 100 points a half-wave
    or more and joined by straight lines, so that it integrates to one and is sampled exactly.

    ``terms`` is ``J``; ``None`` takes the one of least :meth:`risk` up to ``most_terms`` (R. Kronmal and M. Tarter,
    1968, Journal of the American Statistical Association). ``fit`` sets ``terms`` and ``coefficients`` ``(J,)``; it
    raises ValueError for D other than 1 and for data that does not vary.
    """

    most_terms = 200

    def __init__(self, terms: int | None = None):
        self._given = self.terms = None if terms is None else check_count(terms, "terms", least=0)

    def fit(self, x: Tensor) -> "BasisDensity":
        self.terms = self._given
        if self.terms is None:
            self.terms = int(self.risk(x, range(self.most_terms + 1)).argmin())
        u, self.low, self.high = self._unit(x)
        self.coefficients = self._cosines(u, self.terms).mean(0)
        self.cells = 100 * (100 + self.terms)
        grid = torch.linspace(0, 1, self.cells + 1, dtype=u.dtype, device=u.device)
        f = 1 + self._cosines(grid, self.terms) @ self.coefficients
        self.table = f.clamp_min(0)
        self.table /= torch.trapezoid(self.table, dx=1 / self.cells)
        self.event_shape, self.dtype = (1,), x.dtype
        return self

    @staticmethod
    def risk(x: Tensor, terms) -> Tensor:
        """The risk of each number of terms in ``terms``, as :meth:`Histogram.risk`, of ``f`` before it is cut at zero.

        ``J = (-1 + sum_{j <= terms} (2 s_j^2 / n - t_j^2)) / (b - a)``, ``s_j^2`` the sample variance of ``c_j``.
        """
        n, terms = len(_data(x, 2, (1,))), [check_count(m, "terms", least=0) for m in terms]
        u, low, high = BasisDensity._unit(x)
        c = BasisDensity._cosines(u, max(terms, default=0))
        steps = 2 * c.var(0) / n - c.mean(0).square()
        return (F.pad(steps.cumsum(0), (1, 0)) - 1)[terms] / (high - low)

    @staticmethod
    def _unit(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        data = _data(x, 1, (1,))[:, 0]
        low, high = data.aminmax()
        if not high > low:
            raise ValueError(f"x: expected values that vary, got {len(data)} times {low:g}")
        return (data - low) / (high - low), low, high

    @staticmethod
    def _cosines(u: Tensor, terms: int) -> Tensor:
        """``c_j(u_i)``, shape ``(N, terms)``."""
        return math.sqrt(2) * torch.cos(math.pi * u[:, None] * torch.arange(1, terms + 1, device=u.device))

    def log_prob(self, x: Tensor) -> Tensor:
        """``log p(x)``, shape ``(B,)``; minus infinity where the sum is cut and outside the range of the data."""
        u = (check_data(x, _fitted(self).event_shape).double()[:, 0] - self.low) / (self.high - self.low)
        place = u.clamp(0, 1) * self.cells
        left = place.detach().long().clamp_max(self.cells - 1)
        density = torch.lerp(self.table[left], self.table[left + 1], place - left) / (self.high - self.low)
        return torch.where((u >= 0) & (u <= 1), density, 0.0).log().to(x.dtype)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """A table entry by its weight, then a point of its triangle: the lines are sums of such; shape ``(n, 1)``."""
        weights = _fitted(self).table.clone()
        weights[[0, -1]] /= 2
        top = _pick(weights, n, generator)
        first, second = rand(2, n, like=weights, generator=generator)
        u = ((top + first - second) / self.cells).abs()  # the triangles at both ends are halves: reflected
        return torch.lerp(self.low, self.high, 1 - (1 - u).abs())[:, None].to(self.dtype)


class NeuralCDF(nn.Module):
    """A cumulative that can only increase, and its derivative, the density; one dimension.

    ``H(x) = sum_k pi_k sigmoid(w_k x + b_k)`` with ``pi = softmax`` and ``w = softplus > 0``: one hidden layer whose
    output weights are positive and sum to one, so H rises from 0 to 1. It is fitted to targets drawn at random, sorted
    uniforms for sorted data (M. Magdon-Ismail and A. Atiya, 2002, IEEE Transactions on Neural Networks).

    The ``hidden`` units start evenly spread over [-3, 3], each as wide as the gap between two: scale the data to fill
    about [-3, 3]. Train on one full batch, since sorting small batches bends the targets towards one half.
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

        Bisects between the least and the greatest of the units' own quantiles ``(logit(u) - b_k) / w_k``.
        """
        if not ((check_data(u, (), "u") > 0) & (u < 1)).all():
            raise ValueError(f"u: expected values strictly between 0 and 1, got {u.min():.3g} to {u.max():.3g}")
        ends = (u.logit()[:, None] - self.bias) / F.softplus(self.raw_weight)
        low, high = ends.amin(1), ends.amax(1)
        for _ in range(64):  # more than the digits of a float64
            middle = (low + high) / 2
            below = self.cdf(middle[:, None]) < u
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return ((low + high) / 2)[:, None]

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Uniforms sent through :meth:`inverse`, shape ``(n, 1)``."""
        u = rand(check_count(n), like=self.bias, generator=generator)
        return self.inverse(u.clamp_min(torch.finfo(u.dtype).eps / 4))  # rand can give exactly 0
