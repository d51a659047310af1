"""How far a model is from the truth: scores that judge densities, and distances between two sets of samples."""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from genlib.contract import check_count, check_data, check_positive, rand


def _log_prob(log_prob, x: Tensor, name: str) -> Tensor:
    """What ``log_prob(x)`` answers, in float64, without gradients, if it is one log-density a row; raise otherwise."""
    if not callable(log_prob):
        raise TypeError(f"{name}: expected a function from (N, D) to (N,), got {type(log_prob).__name__}")
    with torch.no_grad():
        log_p = log_prob(x)
    if not isinstance(log_p, Tensor):
        raise TypeError(f"{name}: expected log-densities as a torch.Tensor, got {type(log_p).__name__}")
    if log_p.shape != x.shape[:1] or log_p.isnan().any():
        found = f"{int(log_p.isnan().sum())} NaN in shape {tuple(log_p.shape)}"
        raise ValueError(f"{name}: expected log-densities of shape ({len(x)},), got {found}")
    return log_p.double()


def _model_log_prob(model, x: Tensor) -> Tensor:
    if isinstance(model, type) or not hasattr(model, "log_prob"):
        raise TypeError(f"model: expected a model with log_prob, got {model!r}")
    return _log_prob(model.log_prob, x, "model")


def nll(model, x: Tensor) -> float:
    """The mean of ``-log p(x)`` over the rows of ``x``, in nats; infinite if the density of a row is zero.

    Raises TypeError for a model without ``log_prob`` and for data of the wrong type, ValueError for data of the wrong
    shape or value and for a model that answers NaN.
    """
    check_data(x, getattr(model, "event_shape", None))
    return float(-_model_log_prob(model, x).mean())


def integrated_squared_error(model, log_prob_true, grid: Tensor) -> float:
    """``integral of (q(x) - p(x))^2 dx`` over one dimension, by the trapezoid rule on ``grid`` ``(G,)``.

    ``model.log_prob`` gives ``log q`` and the function ``log_prob_true`` gives ``log p``, from ``(G, 1)`` to ``(G,)``.
    The grid increases, fine and wide enough for both densities. No root is taken; the unit is one over that of ``x``.
    Raises TypeError or ValueError as :func:`nll` does, and ValueError for a grid that does not increase.
    """
    check_data(grid, (), "grid")
    if len(grid) < 2 or not (grid.diff() > 0).all():
        raise ValueError(
            f"grid: expected two or more increasing points, got shape {tuple(grid.shape)}, {grid[:3].tolist()}"
        )
    q, p = _model_log_prob(model, grid[:, None]), _log_prob(log_prob_true, grid[:, None], "log_prob_true")
    return float(torch.trapezoid((q.exp() - p.exp()).square(), grid.double()))


def rate(sizes, errors: Tensor) -> tuple[float, float]:
    """The power of n with which an error falls, and its standard error: the slope of log error against log n.

    ``errors`` has shape ``(repetitions, sizes)``; the error at a size is the root mean square over its repetitions.
    The slope is that of least squares, its standard error the jackknife's over repetitions (B. Efron, The Jackknife,
    the Bootstrap and Other Resampling Plans, SIAM, 1982). Raises TypeError for what are no numbers, ValueError for
    fewer than two sizes or repetitions, sizes that are not above zero or all the same, and errors not above zero.
    """
    try:
        n = torch.as_tensor(sizes, dtype=torch.float64).detach().cpu()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise TypeError(f"sizes: expected numbers above 0, got {sizes!r}") from error
    check_data(n, (), "sizes")
    check_data(errors, n.shape, "errors")
    if min(errors.shape) < 2 or not (errors > 0).all():
        raise ValueError(f"errors: expected two or more rows and columns, all above 0, got shape {tuple(errors.shape)}")
    if not (n > 0).all() or n.min() == n.max():
        raise ValueError(f"sizes: expected different numbers above 0, got {sizes!r}")
    squares, log_n = errors.detach().double().cpu().square(), n.log()
    weights = (log_n - log_n.mean()) / (log_n - log_n.mean()).square().sum()
    left_out = ((squares.sum(0) - squares) / (len(squares) - 1)).log() / 2 @ weights
    variance = (len(squares) - 1) * left_out.var(correction=0)
    return float(squares.mean(0).log() / 2 @ weights), float(variance.sqrt())


def _two(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Two sets of samples ``(N, *event_shape)`` and ``(M, *event_shape)`` as float64 ``(N, D)`` and ``(M, D)``."""
    shape = tuple(x.shape[1:]) if isinstance(x, Tensor) and x.ndim else None
    x, y = check_data(x, shape).detach().double(), check_data(y, shape, "y").detach().double()
    return x.reshape(len(x), -1), y.to(x.device).reshape(len(y), -1)


def _weights(n: int, m: int, like: Tensor) -> Tensor:
    """``1/n`` for each row of the first sample, ``-1/m`` for each of the second, shape ``(n + m, 1)``."""
    return torch.cat([like.new_full((n, 1), 1 / n), like.new_full((m, 1), -1 / m)])


def _quadratic(z: Tensor, w: Tensor, kernel) -> Tensor:
    """``sum_ij w_i w_j kernel(|z_i - z_j|)`` for each column of ``w`` ``(N, P)``, each pair once, in blocks of rows."""
    z, total = z - z.mean(0), w.new_zeros(w.shape[1])
    for rows in torch.arange(len(z), device=z.device).split(max(1, 2**20 // len(z))):
        first, later = rows[0], rows[-1] + 1
        doubled = torch.cat([w[first:later], 2 * w[later:]])
        total += (w[rows] * (kernel(torch.cdist(z[rows], z[first:])) @ doubled)).sum(0)
    return total


def energy_distance(x: Tensor, y: Tensor) -> float:
    """``2 E|X - Y| - E|X - X'| - E|Y - Y'|`` with Euclidean distances, over all pairs of rows; at least 0.

    Zero in expectation only where the laws agree (G. Szekely and M. Rizzo, 2013, Journal of Statistical Planning and
    Inference). The unit is that of ``x``. Shapes ``(N, *event_shape)`` and ``(M, *event_shape)``; the memory does not
    grow with ``N x M``. Raises TypeError or ValueError for anything but two such batches of finite floats.
    """
    x, y = _two(x, y)
    return float(_quadratic(torch.cat([x, y]), _weights(len(x), len(y), x), torch.neg).clamp_min(0))


def mmd(x: Tensor, y: Tensor, bandwidth: float | None = None) -> float:
    """The squared maximum mean discrepancy, ``E k(X, X') + E k(Y, Y') - 2 E k(X, Y)`` over all pairs; at least 0.

    ``k(a, b) = exp(-|a - b|^2 / (2 h^2))``; ``bandwidth`` is ``h``, and ``None`` takes the median distance within the
    first 500 rows of each. As a row is also paired with itself, two samples of one law give about
    ``(1/N + 1/M) (1 - E k)`` (A. Gretton et al., 2012, Journal of Machine Learning Research). Shapes and errors as
    :func:`energy_distance`, and ValueError for a bandwidth that is not above zero, or where all rows are equal.
    """
    x, y = _two(x, y)
    if bandwidth is None:
        bandwidth = float(torch.nn.functional.pdist(torch.cat([x[:500], y[:500]])).median())
    h = check_positive(bandwidth, "bandwidth")
    weights = _weights(len(x), len(y), x)
    return float(_quadratic(torch.cat([x, y]), weights, lambda d: torch.exp(-((d / h) ** 2) / 2)).clamp_min(0))


def wasserstein(x: Tensor, y: Tensor, p: float = 1) -> float:
    """``W_p = min over couplings of (E |X - Y|^p)^(1/p)`` between the two sets of samples, in the unit of ``x``.

    In one dimension the quantile functions are coupled, for any sizes. In more, rows are matched one to one by
    :func:`scipy.optimize.linear_sum_assignment`, cubic in N, and both sets must have as many rows (G. Peyre and
    M. Cuturi, 2019, Computational Optimal Transport). Raises as :func:`energy_distance` does, and ValueError for p
    below 1 and for sets of different sizes in more than one dimension.
    """
    x, y = _two(x, y)
    if check_positive(p, "p") < 1:
        raise ValueError(f"p: expected a number of at least 1, got {p!r}")
    n, m = len(x), len(y)
    if x.shape[1] == 1:  # both quantile functions are steps; levels count in units of 1 / (n m)
        levels = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).sort()[0].to(x.device)
        share = levels.diff(prepend=levels.new_zeros(1)).double() / (n * m)
        cost = (x[:, 0].sort()[0][(levels - 1) // m] - y[:, 0].sort()[0][(levels - 1) // n]).abs()
    elif n != m:
        raise ValueError(f"y: expected {n} rows, as many as x, in more than one dimension; got {m}")
    else:
        distance = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
        pairs = linear_sum_assignment(((distance / distance.max().clamp_min(1e-300)) ** p).cpu().numpy())
        share, cost = 1 / n, distance[pairs]
    scale = cost.max().clamp_min(1e-300)  # a high power of a large cost would overflow
    return float(scale * (share * (cost / scale) ** p).sum() ** (1 / p))


def two_sample_test(x: Tensor, y: Tensor, permutations: int = 199, generator: torch.Generator | None = None) -> float:
    """The p-value of the hypothesis that both samples come from one law: a permutation test of the energy distance.

    ``(1 + number of permuted energy distances >= the observed one) / (1 + permutations)``: under the hypothesis it is
    at most ``a`` with probability at most ``a``, for any sizes (Szekely and Rizzo, 2013). Shapes and errors as
    :func:`energy_distance`, and ValueError for fewer than one permutation.
    """
    x, y = _two(x, y)
    w = _weights(len(x), len(y), x)
    order = rand(check_count(permutations, "permutations"), len(w), like=x, generator=generator).argsort(1)
    shuffled = torch.cat([w, w[order, 0].T], 1)
    energies = _quadratic(torch.cat([x, y]), shuffled, torch.neg)
    as_large = energies[1:] >= energies[0] - 1e-9 * energies[0].abs()  # rounding must not break a tie
    return float(1 + as_large.sum()) / (1 + permutations)
