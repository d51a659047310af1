"""Answers to the gaps of ``labs/autoencoder.ipynb``: wrong ones with words of their message, and right ones."""

import math

import torch
from torch.nn import functional as F


def _row_by_row(x, mean, components):
    rows = []
    for row in x:
        codes = [(row - mean).dot(v) for v in components]
        rows.append(mean + sum(z * v for z, v in zip(codes, components, strict=True)))
    return torch.stack(rows)


def _hidden(x, W, b):
    return F.linear(x, W, b).relu()


def _logits(x, W, b, V, c):
    return F.linear(_hidden(x, W, b), V, c)


def _bce(logits, x):
    return F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1)


def _naive(logits, x):
    p = torch.sigmoid(logits)
    return -(x * p.log() + (1 - x) * (1 - p).log()).sum(1)


def _mse(clean, guess):
    return ((clean - guess) ** 2).mean(1)


def _by_rank(normal, anomalies):
    """The rank-sum form of the statistic, ties sharing their ranks."""
    scores = torch.cat([normal, anomalies])
    ranks = torch.stack([(scores < s).sum() + ((scores == s).sum() + 1) / 2 for s in scores])
    n, m = len(normal), len(anomalies)
    return (ranks[n:].sum() - m * (m + 1) / 2) / (n * m)


OTHERS = {
    "autoencoder.linear": _row_by_row,
    "autoencoder.squared-error": lambda x, x_hat: F.mse_loss(x_hat, x, reduction="none").sum(1) / 2,
    "autoencoder.one-layer": _logits,
    "autoencoder.cross-entropy": _bce,
    "autoencoder.damage": lambda x, share, hit, coin: x * (hit >= share) + (coin < 0.5) * (hit < share),
    "autoencoder.psnr": lambda clean, guess: 20 * torch.log10(1 / torch.sqrt(_mse(clean, guess))),
    "autoencoder.auc": _by_rank,
}

MISTAKES = {
    "autoencoder.linear": [
        (lambda x, m, v: (x - m) @ v.T @ v, "not added back"),
        (lambda x, m, v: m + x @ v.T @ v, "was not taken away"),
        (lambda x, m, v: x @ v.T @ v, "mean is left out"),
        (lambda x, m, v: _row_by_row(x, x.mean(0), v), "mean of these rows"),
        (lambda x, m, v: x - _row_by_row(x, m, v), "what the code loses"),
        (lambda x, m, v: _row_by_row(x, m, v[:1]), "first component only"),
        (lambda x, m, v: x, "x itself"),
        (lambda x, m, v: (x - m) @ v.T, "shape is (2, 2), expected (2, 3)"),
        (lambda x, m, v: m + (x - m) @ v @ v.T, "RuntimeError"),
    ],
    "autoencoder.squared-error": [
        (lambda x, y: (x - y).square().sum(1), "1/2 is missing"),
        (lambda x, y: (x - y).square().mean(1) / 2, "mean over the pixels"),
        (lambda x, y: (x - y).square().mean(1), "mean of the squares"),
        (lambda x, y: (x - y).norm(dim=1), "this is the distance"),
        (lambda x, y: (x - y).abs().sum(1), "absolute differences"),
        (lambda x, y: (x - y).sum(1) ** 2 / 2, "differences first"),
        (lambda x, y: -torch.distributions.Normal(y, 1.0).log_prob(x).sum(1), "D/2 log(2 pi)"),
        (lambda x, y: -(x - y).square().sum(1) / 2, "sign is turned"),
        (lambda x, y: (x - y).square().sum() / 2, "shape is (), expected (2,)"),
        (lambda x, y: (x - y).square().sum(0) / 2, "shape is (3,), expected (2,)"),
    ],
    "autoencoder.one-layer": [
        (lambda x, W, b, V, c: (x @ W.T + b) @ V.T + c, "relu is missing"),
        (lambda x, W, b, V, c: _logits(x, W, None, V, c), "b is missing"),
        (lambda x, W, b, V, c: _logits(x, W, b, V, None), "c is missing"),
        (lambda x, W, b, V, c: _logits(x, W, None, V, None), "both b and c"),
        (lambda x, W, b, V, c: _logits(x, W, b, V, c).sigmoid(), "sigmoid is applied"),
        (lambda x, W, b, V, c: _logits(x, W, b, V, c).relu(), "to the output too"),
        (lambda x, W, b, V, c: (torch.relu(x @ W.T) + b) @ V.T + c, "after the relu"),
        (lambda x, W, b, V, c: torch.sigmoid(x @ W.T + b) @ V.T + c, "uses the sigmoid"),
        (lambda x, W, b, V, c: _logits(x, W.T, b, V, c), "columns of W"),
        (lambda x, W, b, V, c: _logits(x, W, b, V.T, c), "columns of V"),
        (lambda x, W, b, V, c: torch.relu(x @ W + b) @ V + c, "both W and V"),
        (lambda x, W, b, V, c: _hidden(x, W, b) @ W + c, "decode with W"),
    ],
    "autoencoder.cross-entropy": [
        (lambda a, x: _bce(a, x) / x.shape[1], "mean over the pixels"),
        (lambda a, x: -_bce(a, x), "sign is turned"),
        (lambda a, x: -(x * F.logsigmoid(a)).sum(1), "pixels that are 0"),
        (lambda a, x: -((1 - x) * F.logsigmoid(-a)).sum(1), "pixels that are 1"),
        (lambda a, x: _bce(x, a), "x and the logits"),
        (lambda a, x: (x - a.sigmoid()).square().sum(1), "squared error"),
        (lambda a, x: _bce(a, x) / math.log(2), "these are bits"),
        (lambda a, x: (F.softplus(a) + x * a).sum(1), "must be taken off"),
        (lambda a, x: _bce(-a, x), "x and 1 - x"),
        (lambda a, x: _bce(a.sigmoid(), x), "applied twice"),
        (_naive, "overflows"),
        (lambda a, x: (torch.log(1 + a.exp()) - x * a).sum(1), "overflows"),
        (lambda a, x: F.binary_cross_entropy(a.sigmoid(), x, reduction="none").sum(1), "at -100"),
        (lambda a, x: F.binary_cross_entropy_with_logits(a, x), "shape is (), expected (2,)"),
    ],
    "autoencoder.damage": [
        (lambda x, s, hit, coin: torch.where(hit >= s, (coin < 0.5).float(), x), "hit is above share"),
        (lambda x, s, hit, coin: torch.where(hit < s, 0.0, x), "salt is missing"),
        (lambda x, s, hit, coin: torch.where(hit < s, 1.0, x), "pepper is missing"),
        (lambda x, s, hit, coin: torch.where(hit < s, coin, x), "value of coin"),
        (lambda x, s, hit, coin: torch.where(hit < s, (coin < s).float(), x), "fair coin"),
        (lambda x, s, hit, coin: torch.where(hit < s, (hit < 0.5).float(), x), "0 and 1 by hit"),
        (lambda x, s, hit, coin: torch.where(hit < s, (coin > 0.5).float(), x), "exchanged"),
        (lambda x, s, hit, coin: x + (hit < s) * (coin < 0.5), "add the damage"),
        (lambda x, s, hit, coin: (coin < 0.5).float(), "hit has no say"),
        (lambda x, s, hit, coin: torch.where(coin < s, (coin < 0.5).float(), x), "where coin is below"),
        (lambda x, s, hit, coin: x, "nothing is damaged"),
        (lambda x, s, hit, coin: torch.where(hit < s, x, (coin < 0.5).float()), "hit is above share"),
    ],
    "autoencoder.psnr": [
        (lambda x, y: -10 * _mse(x, y).log(), "natural logarithm"),
        (lambda x, y: -20 * _mse(x, y).log10(), "multiply by 20"),
        (lambda x, y: -10 * _mse(x, y).sqrt().log10(), "took the root"),
        (lambda x, y: -_mse(x, y).log10(), "bels"),
        (lambda x, y: -10 * ((x - y) ** 2).sum(1).log10(), "add up the squared errors"),
        (lambda x, y: 10 * _mse(x, y).log10(), "sign is turned"),
        (lambda x, y: -10 * (x - y).abs().mean(1).log10(), "absolute errors"),
        (lambda x, y: 10 * (255**2 / _mse(x, y)).log10(), "255"),
        (lambda x, y: 10 * ((x**2).mean(1) / _mse(x, y)).log10(), "own power"),
        (_mse, "this is the mean squared error"),
        (lambda x, y: -10 * ((x - y) ** 2).mean().log10(), "shape is (), expected (2,)"),
    ],
    "autoencoder.auc": [
        (lambda n, a: (a[:, None] > n).float().mean(), "do not count"),
        (lambda n, a: (a[:, None] >= n).float().mean(), "count as wins"),
        (lambda n, a: _by_rank(a, n), "sides are exchanged"),
        (lambda n, a: _by_rank(n, a) * len(n) * len(a), "number of pairs"),
        (lambda n, a: _by_rank(n, a) * len(n), "number of anomalies only"),
        (lambda n, a: _by_rank(n, a) * len(a), "number of normal examples only"),
        (lambda n, a: (a > n.mean()).float().mean(), "mean of the normal scores"),
        (lambda n, a: (a > n.max()).float().mean(), "above every normal score"),
        (lambda n, a: a.mean() - n.mean(), "difference of the mean"),
        (lambda n, a: (a > n).float().mean(), "RuntimeError"),
    ],
}
