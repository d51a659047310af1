"""How far a model is from the truth: scores that judge densities."""

import torch
from torch import Tensor

from genlib.contract import check_data


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
