"""The gaps of ``labs/autoencoder.ipynb``: reference answers, and the cases that judge the learner's.

The oracles are NumPy's least squares and loops, and SciPy's normal law, logistic function and Mann-Whitney statistic.
Images are rows: ``(N, D)``.
"""

import math

import numpy as np
import torch
from scipy import special, stats
from torch import Tensor

from genlib.course.checks import Case, gap


def _float(x) -> Tensor:
    return torch.as_tensor(np.asarray(x), dtype=torch.float32)


def _nearest(x, mean, components) -> Tensor:
    """The nearest point of the plane, by least squares."""
    x, mean, components = (np.asarray(a, dtype=float) for a in (x, mean, components))
    codes = np.linalg.lstsq(components.T, (x - mean).T, rcond=None)[0]
    return _float(mean + codes.T @ components)


def _linear():
    x, mean, components = _float([[3, 1, 2], [0, 4, -1]]), _float([1, 2, 0.5]), _float([[0.6, 0.8, 0], [0, 0, 1]])
    project, first, rest = components.T @ components, components[:1].T @ components[:1], x - mean
    yield Case(
        {"x": x, "mean": mean, "components": components},
        _nearest(x, mean, components),
        {
            "the mean is not added back.": rest @ project,
            "the mean is added, but was not taken away before the code.": x @ project + mean,
            "the mean is left out; the plane passes through it, not through zero.": x @ project,
            "you use the mean of these rows; use the mean that is given.": (x - x.mean(0)) @ project + x.mean(0),
            "this is what the code loses, x minus its reconstruction.": rest - rest @ project,
            "you use the first component only; the code has one number for each.": mean + rest @ first,
            "this is x itself: nothing has passed through the code.": x,
        },
    )
    x, mean, components = _float([[2, 1], [-1, 3], [0.5, 0]]), _float([0.5, -1]), _float([[0.8, -0.6]])
    yield Case({"x": x, "mean": mean, "components": components}, _nearest(x, mean, components))


@gap("autoencoder.linear", _linear)
def linear_reconstruction(x: Tensor, mean: Tensor, components: Tensor) -> Tensor:
    """``mean + V V^T (x - mean)``: the rows of ``x`` sent through the code; the rows of ``components`` are ``V^T``."""
    codes = (x - mean) @ components.T
    return mean + codes @ components


def _squared_error():
    x, x_hat = _float([[0, 1, 0.5], [1, 0.2, 0]]), _float([[0.5, 0.25, 1.5], [0.5, 0.5, -0.5]])
    d, constant = x - x_hat, 3 / 2 * math.log(2 * math.pi)
    nats = -stats.norm.logpdf(x, x_hat, 1).sum(1) - constant
    yield Case(
        {"x": x, "x_hat": x_hat},
        _float(nats),
        {
            "the 1/2 is missing: the exponent of a normal law is minus half the square.": d.square().sum(1),
            "this is the mean over the pixels; in nats they add up, so take the sum.": d.square().mean(1) / 2,
            "this is the mean of the squares; take half their sum.": d.square().mean(1),
            "this is the distance; the loss is half its square.": d.norm(dim=1),
            "you add up absolute differences; the squares are asked for.": d.abs().sum(1),
            "you add up the differences first and square then; square each pixel's.": d.sum(1).square() / 2,
            "the constant D/2 log(2 pi) is in it; the loss leaves it out.": _float(nats + constant),
            "the sign is turned: this is a log-density, and the loss is its negative.": -d.square().sum(1) / 2,
        },
    )
    x, x_hat = _float([[0, 0.5], [1, 0.25], [0.5, 0.5]]), _float([[1, 0], [1, 1], [0.5, 0.5]])
    yield Case({"x": x, "x_hat": x_hat}, _float([(1 + 0.25) / 2, 0.5625 / 2, 0]))


@gap("autoencoder.squared-error", _squared_error)
def squared_error_nats(x: Tensor, x_hat: Tensor) -> Tensor:
    """``|x - x^|^2 / 2`` of each row."""
    return (x - x_hat).square().sum(1) / 2


def _logits(x, W, b, V, c, g=lambda a: np.maximum(a, 0)) -> Tensor:
    """The one-layer model, by NumPy's sums over named indices."""
    x, W, b, V, c = (np.asarray(a, dtype=float) for a in (x, W, b, V, c))
    return _float(np.einsum("dh,ih->id", V, g(np.einsum("hd,id->ih", W, x) + b)) + c)


def _one_layer():
    x, W, b = _float([[1, 0], [0.5, 1], [0, 1]]), _float([[1, -2], [-0.5, 1.5]]), _float([0.3, -0.4])
    V, c = _float([[2, 1], [-1, 0.7]]), _float([0.2, -0.6])
    zero, right = torch.zeros(2), _logits(x, W, b, V, c)
    yield Case(
        {"x": x, "W": W, "b": b, "V": V, "c": c},
        right,
        {
            "the relu is missing: without it the two layers are one linear map.": _logits(x, W, b, V, c, lambda a: a),
            "b is missing in the hidden layer.": _logits(x, W, zero, V, c),
            "c is missing in the output.": _logits(x, W, b, V, zero),
            "both b and c are missing.": _logits(x, W, zero, V, zero),
            "the sigmoid is applied already; return the logits, the loss takes care of it.": right.sigmoid(),
            "the relu is applied to the output too; a logit may be negative.": right.relu(),
            "b is added after the relu; it belongs inside.": torch.relu(x @ W.T) @ V.T + b @ V.T + c,
            "the hidden layer uses the sigmoid; here g is the relu.": _logits(x, W, b, V, c, special.expit),
            "x @ W uses the columns of W; it has a row for each hidden unit: use W.T.": _logits(x, W.T, b, V, c),
            "h @ V uses the columns of V; it has a row for each pixel: use V.T.": _logits(x, W, b, V.T, c),
            "both W and V must be transposed: each has a row for each of its outputs.": _logits(x, W.T, b, V.T, c),
            "you decode with W; the decoder has a matrix V of its own.": _logits(x, W, b, W.T, c),
        },
    )
    W, V = _float([[1, 2], [0, -1], [-2, 1]]), _float([[1, -1, 2], [0, 3, 1]])
    arguments = {"x": x[:2], "W": W, "b": _float([0, 0.5, 1]), "V": V, "c": c}
    yield Case(arguments, _logits(**arguments))


@gap("autoencoder.one-layer", _one_layer)
def one_layer_logits(x: Tensor, W: Tensor, b: Tensor, V: Tensor, c: Tensor) -> Tensor:
    """``c + V g(b + W x)`` of each row, ``g(a) = max(a, 0)``; W ``(H, D)``, b ``(H,)``, V ``(D, H)``, c ``(D,)``."""
    return torch.relu(x @ W.T + b) @ V.T + c


def _bits(logits, x) -> Tensor:
    """The cross-entropy of each row, by SciPy's ``log_expit``."""
    a, x = np.asarray(logits, dtype=float), np.asarray(x, dtype=float)
    return _float(-(x * special.log_expit(a) + (1 - x) * special.log_expit(-a)).sum(1))


def _cross_entropy():
    logits, x = _float([[2, -1, 0.5], [-0.3, 1.5, -3]]), _float([[1, 0, 0.25], [0, 1, 1]])
    p, right = logits.sigmoid(), _bits(logits, x)
    yield Case(
        {"logits": logits, "x": x},
        right,
        {
            "this is the mean over the pixels; in nats they add up, so take the sum.": right / 3,
            "the sign is turned: this is a log-probability, and the loss is its negative.": -right,
            "the pixels that are 0 do not count: the term with 1 - x is missing.": -(x * p.log()).sum(1),
            "the pixels that are 1 do not count: the term with x is missing.": -((1 - x) * (1 - p).log()).sum(1),
            "x and the logits are exchanged.": _bits(x, logits),
            "this is a squared error; the cross-entropy is asked for.": (x - p).square().sum(1),
            "these are bits; the natural logarithm gives nats.": right / math.log(2),
            "the term with x is added; it must be taken off.": -((1 - p).log() - x * logits).sum(1),
            "x and 1 - x are exchanged: a pixel that is 1 should like a large logit.": _bits(-logits, x),
            "the sigmoid was applied twice; torch's binary_cross_entropy_with_logits has its own.": _bits(p, x),
        },
    )
    logits, x = _float([[200, -200, 0]]), _float([[0, 1, 1]])
    yield Case(
        {"logits": logits, "x": x},
        _bits(logits, x),
        {
            "exp(200) overflows, and log(1 - sigmoid(200)) is log 0 in floating point. Take the logarithm and the "
            "sigmoid in one step: torch.nn.functional.softplus(a) is log(1 + exp(a)), and stays finite.": (
                _float([math.inf])
            ),
            "torch's binary_cross_entropy cuts every logarithm at -100, so a pixel that is badly wrong costs 100 "
            "nats and no more. Stay with the logits.": _float([200 + math.log(2)]),
        },
    )
    logits, x = _float([[200, -200], [-200, 0]]), _float([[1, 0], [0.5, 0.5]])
    yield Case({"logits": logits, "x": x}, _bits(logits, x))


@gap("autoencoder.cross-entropy", _cross_entropy)
def cross_entropy_nats(logits: Tensor, x: Tensor) -> Tensor:
    """``-sum_d [x_d log s(a_d) + (1 - x_d) log(1 - s(a_d))]`` of each row, from the logits ``a``; ``s`` the sigmoid."""
    return (torch.nn.functional.softplus(logits) - x * logits).sum(1)


def _damaged(x, share, hit, coin) -> Tensor:
    out = np.asarray(x).astype(float)
    for i in np.ndindex(out.shape):
        if hit[i] < share:
            out[i] = 1 if coin[i] < 0.5 else 0
    return _float(out)


def _damage():
    x, share = _float([[0, 0.2, 0.4, 0.6], [0.8, 1, 0.3, 0.7]]), 0.6
    hit = _float([[0.1, 0.9, 0.55, 0.7], [0.3, 0.2, 0.65, 0.58]])
    coin = _float([[0.2, 0.1, 0.7, 0.8], [0.55, 0.95, 0.3, 0.45]])
    put = lambda value, where=hit < share: torch.where(where, value, x)  # noqa: E731
    salt = (coin < 0.5).float()
    yield Case(
        {"x": x, "share": share, "hit": hit, "coin": coin},
        _damaged(x, share, hit, coin),
        {
            "you damage where hit is above share; a pixel is damaged where hit is below.": put(salt, hit >= share),
            "every damaged pixel is 0: the salt is missing.": put(torch.tensor(0.0)),
            "every damaged pixel is 1: the pepper is missing.": put(torch.tensor(1.0)),
            "a damaged pixel takes the value of coin; it must be 0 or 1.": put(coin),
            "coin is compared with share; it is a fair coin: compare with one half.": put((coin < share).float()),
            "you choose between 0 and 1 by hit; that is what coin is for.": put((hit < 0.5).float()),
            "salt and pepper are exchanged: below one half the coin gives 1.": put(1 - salt),
            "you add the damage to the pixel; it takes the pixel's place.": put(x + salt),
            "every pixel is damaged: hit has no say.": salt,
            "you damage where coin is below share; hit decides where, coin the colour.": put(salt, coin < share),
            "this is x: nothing is damaged.": x,
        },
    )
    hit, coin = _float([[0.05, 0.2, 0.02]]), _float([[0.6, 0.1, 0.3]])
    yield Case({"x": _float([[0.5, 0.5, 0]]), "share": 0.1, "hit": hit, "coin": coin}, _float([[0, 0.5, 1]]))


@gap("autoencoder.damage", _damage)
def with_salt_and_pepper(x: Tensor, share: float, hit: Tensor, coin: Tensor) -> Tensor:
    """``x`` where ``hit >= share``; elsewhere 1 if ``coin < 1/2`` and else 0."""
    return torch.where(hit < share, (coin < 0.5).float(), x)


def _psnr():
    clean, guess = _float([[0, 1, 0.5, 0.25], [1, 1, 0, 0]]), _float([[0.1, 0.8, 0.5, 0.75], [0.5, 1, 0.2, 0]])
    power = clean.square().mean(1)
    rmse = np.linalg.norm(clean - guess, axis=1) / 2
    right = _float(20 * np.log10(1 / rmse))
    yield Case(
        {"clean": clean, "guess": guess},
        right,
        {
            "this is the natural logarithm; decibels use the one to base 10.": right * math.log(10),
            "you multiply by 20, which goes with the root of the squared error; 10 goes with the square.": 2 * right,
            "you took the root of the squared error, as for 20 log10; with 10 it stays as it is.": right / 2,
            "the factor 10 is missing: these are bels.": right / 10,
            "you add up the squared errors; take their mean over the pixels.": right - 10 * math.log10(4),
            "the sign is turned: a smaller error must give a larger PSNR.": -right,
            "you average absolute errors; the squares are asked for.": -10 * (clean - guess).abs().mean(1).log10(),
            "the peak of these images is 1; 255 is that of whole grey levels.": right + 20 * math.log10(255),
            "the signal's own power stands where its peak should, which is 1.": right + 10 * power.log10(),
            "this is the mean squared error; its logarithm is asked for.": _float(rmse**2),
        },
    )
    clean, guess = _float([[0, 0], [0.5, 1], [1, 0]]), _float([[1, 1], [0.4, 0.9], [0, 0]])
    yield Case({"clean": clean, "guess": guess}, _float([0, 20, 10 * math.log10(2)]))


@gap("autoencoder.psnr", _psnr)
def peak_signal_to_noise(clean: Tensor, guess: Tensor) -> Tensor:
    """``-10 log10(mean squared error)`` of each row, in decibels, for values from 0 to 1."""
    return -10 * (clean - guess).square().mean(1).log10()


def _auc():
    normal, anomalies = _float([1, 2, 2, 6, 0.5]), _float([2, 7, 3, 1])
    n, m = len(normal), len(anomalies)
    right = stats.mannwhitneyu(anomalies, normal).statistic / (n * m)
    above, tied = (anomalies[:, None] > normal).float().mean(), (anomalies[:, None] == normal).float().mean()
    yield Case(
        {"normal": normal, "anomalies": anomalies},
        _float(right),
        {
            "ties do not count at all; count each of them half.": above,
            "ties count as wins; count each of them half.": above + tied,
            "the sides are exchanged: an anomaly should score higher than a normal example.": _float(1 - right),
            "this is the number of pairs that are won; divide by the number of all pairs.": _float(right * n * m),
            "you divide by the number of anomalies only; there are n times m pairs.": _float(right * n),
            "you divide by the number of normal examples only; there are n times m pairs.": _float(right * m),
            "this compares with the mean of the normal scores; compare every pair.": (
                (anomalies > normal.mean()).float().mean()
            ),
            "this is the share of anomalies above every normal score; compare every pair.": (
                (anomalies > normal.max()).float().mean()
            ),
            "this is the difference of the mean scores; count pairs, so that the scale of the scores has no say.": (
                anomalies.mean() - normal.mean()
            ),
        },
    )
    yield Case({"normal": _float([3, 3]), "anomalies": _float([3, 3, 3])}, _float(0.5))
    yield Case({"normal": _float([5, 6, 7]), "anomalies": _float([4, 1])}, _float(0.0))


@gap("autoencoder.auc", _auc)
def area_under_roc(normal: Tensor, anomalies: Tensor) -> Tensor:
    """The probability that an anomaly scores higher than a normal example, ties counted half."""
    difference = anomalies[:, None] - normal
    return ((difference > 0).float() + (difference == 0).float() / 2).mean()


def fresh(gap: str, g: torch.Generator) -> dict:
    """Random arguments for a gap, in the order of its function."""
    u = lambda *shape: torch.rand(shape, generator=g)  # noqa: E731
    n, d, h = torch.randint(2, 6, (3,), generator=g).tolist()
    match gap:
        case "autoencoder.linear":
            basis = torch.linalg.qr(torch.randn(d + 1, d + 1, generator=g)).Q
            return {"x": 4 * u(n, d + 1) - 2, "mean": u(d + 1), "components": basis[: min(h, d)]}
        case "autoencoder.squared-error":
            return {"x": u(n, d), "x_hat": 2 * u(n, d) - 0.5}
        case "autoencoder.one-layer":
            W, b, V, c = (2 * u(*shape) - 1 for shape in ((h, d), (h,), (d, h), (d,)))
            return {"x": u(n, d), "W": W, "b": b, "V": V, "c": c}
        case "autoencoder.cross-entropy":
            return {"logits": 8 * u(n, d) - 4, "x": u(n, d)}
        case "autoencoder.damage":
            return {"x": u(n, d), "share": 0.1 + 0.8 * u().item(), "hit": u(n, d), "coin": u(n, d)}
        case "autoencoder.psnr":
            return {"clean": u(n, d), "guess": u(n, d)}
        case "autoencoder.auc":
            return {"normal": (5 * u(n + 2)).round(), "anomalies": (5 * u(d + 2)).round() + 1}
