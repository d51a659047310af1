"""Answers to the gaps of ``labs/made.ipynb``: wrong ones with words of their message, and right ones."""

import math

import torch
from torch.distributions import Bernoulli
from torch.nn import functional as F

LOG2 = math.log(2)


def _each(x, a):
    return -F.binary_cross_entropy_with_logits(a, x, reduction="none")


def _naive(x, a):
    p = 1 / (1 + torch.exp(-a))
    return torch.where(x == 1, p, 1 - p).log().sum(1)


def _cut(x, a):
    return -F.binary_cross_entropy(a.sigmoid(), x, reduction="none").sum(1)


def _pixels(D):
    return torch.arange(1, D + 1)


def _mlp(x, W, b, V, c):
    return F.linear(F.linear(x, W, b).relu(), V, c)


def _right(x, W, b, V, c, M, N):
    return _mlp(x, W * M, b, V * N, c)


def _coin(a, u):
    return (u < a.sigmoid()).float()


def _pixel_by_pixel(x, W, b):
    logits = [b[i] + (x[:, :i] * W[i, :i]).sum(1) for i in range(len(b))]
    return torch.stack(logits, 1)


def _spread(D, H):
    return torch.tensor([1 + k * (D - 1) // H for k in range(H)])


def _rows(degrees, D):
    return torch.stack([torch.cat([torch.ones(m), torch.zeros(D - m)]) for m in degrees.tolist()])


def _columns(degrees, D):
    mask = torch.zeros(D, len(degrees))
    for k, m in enumerate(degrees):
        mask[m:, k] = 1
    return mask


def _cut_weights(x, W, b, V, c, M, N):
    h = torch.relu(W.masked_fill(M == 0, 0) @ x.T + b[:, None])
    return (torch.where(N == 1, V, torch.zeros(())) @ h).T + c


OTHERS = {
    "made.bits": lambda x, a: Bernoulli(logits=a).log_prob(x).sum(1),
    "made.linear": _pixel_by_pixel,
    "made.degrees": _spread,
    "made.hidden-mask": _rows,
    "made.output-mask": _columns,
    "made.network": _cut_weights,
    "made.draw": lambda a, u, x, known: known * x + ~known * (a > u.logit()),
}

MISTAKES = {
    "made.bits": [
        (lambda x, a: _each(x, a).mean(1), "mean over the pixels"),
        (lambda x, a: F.binary_cross_entropy_with_logits(a, x, reduction="none").sum(1), "this is a loss"),
        (lambda x, a: (x * F.logsigmoid(a)).sum(1), "pixels without ink do not count"),
        (lambda x, a: ((1 - x) * F.logsigmoid(-a)).sum(1), "pixels with ink do not count"),
        (lambda x, a: _each(x, -a).sum(1), "are exchanged"),
        (lambda x, a: _each(x, a).exp().prod(1), "this is the probability"),
        (lambda x, a: _each(x, a).exp().sum(1), "you add up probabilities"),
        (lambda x, a: _each(x, a.sigmoid()).sum(1), "applied twice"),
        (lambda x, a: _each(x, a)[:, -1], "last pixel's factor"),
        (lambda x, a: _each(x, a).sum(1) / LOG2, "these are bits"),
        (_naive, "sigmoid(-200)"),
        (_cut, "cuts every logarithm"),
        (lambda x, a: _each(x, a), "shape is (2, 3), expected (2,)"),
        (lambda x, a: _each(x, a).sum(), "shape is (), expected (2,)"),
    ],
    "made.linear": [
        (lambda x, W, b: x @ W.T + b, "every pixel sees all others"),
        (lambda x, W, b: F.linear(x, W.tril(), b), "diagonal is still there"),
        (lambda x, W, b: F.linear(x, W.triu(1), b), "sees those after it; it may"),
        (lambda x, W, b: F.linear(x, W.tril(-2), b), "just before is missing"),
        (lambda x, W, b: F.linear(x, W.tril(-1).triu(-1), b), "neighbour only"),
        (lambda x, W, b: x @ W.triu(1) + b, "W[j, i] stands"),
        (lambda x, W, b: x @ W.tril(-1) + b, "along the columns"),
        (lambda x, W, b: x @ W.tril(-1).T, "b is missing"),
        (lambda x, W, b: F.linear(x, W.tril(-1), b).sigmoid(), "return the logits"),
        (lambda x, W, b: W.tril(-1) @ x + b, "RuntimeError"),
    ],
    "made.degrees": [
        (lambda D, H: torch.arange(H) * (D - 1) // H, "start at 0"),
        (lambda D, H: 1 + torch.arange(H) * D // H, "a unit of degree D sees all"),
        (lambda D, H: 1 + torch.arange(H) * (D - 2) // H, "degree D - 1 never comes up"),
        (lambda D, H: 1 + torch.arange(H) % (D - 1), "come in turns"),
        (lambda D, H: torch.linspace(1, D - 1, H).round().long(), "to the nearest"),
        (lambda D, H: 1 + (torch.arange(H) * (D - 1) / H).ceil().long(), "you round up"),
        (lambda D, H: torch.arange(1, H + 1), "run up to H"),
        (lambda D, H: _spread(D, H).flip(0), "the degrees fall"),
        (lambda D, H: torch.full((H,), D - 1), "the same degree"),
        (lambda D, H: 1 + torch.arange(H) * (D - 1) / H, "dtype is torch.float32, expected torch.int64"),
        (lambda D, H: torch.arange(1, D), "shape is (4,), expected (6,)"),
        (lambda D, H: 2 * _spread(D, H), "2 times the expected"),
    ],
    "made.hidden-mask": [
        (lambda m, D: (m[:, None] > _pixels(D)).float(), "misses pixel m"),
        (lambda m, D: (m[:, None] >= torch.arange(D)).float(), "sees pixel m + 1"),
        (lambda m, D: (m[:, None] <= _pixels(D)).float(), "those after it"),
        (lambda m, D: (m[:, None] < _pixels(D)).float(), "turned round"),
        (lambda m, D: (m[:, None] == _pixels(D)).float(), "pixel m alone"),
        (lambda m, D: torch.ones(len(m), D), "nothing is masked"),
        (lambda m, D: (_pixels(D)[:, None] <= m).float(), "exchanged"),
        (lambda m, D: m[:, None] >= _pixels(D), "dtype is torch.bool"),
    ],
    "made.output-mask": [
        (lambda m, D: (_pixels(D)[:, None] >= m).float(), "that is a leak"),
        (lambda m, D: (torch.arange(D)[:, None] > m).float(), "never sees the pixel just before"),
        (lambda m, D: (_pixels(D)[:, None] < m).float(), "larger degree"),
        (lambda m, D: (_pixels(D)[:, None] <= m).float(), "turned round"),
        (lambda m, D: (_pixels(D)[:, None] - 1 == m).float(), "degree i - 1 alone"),
        (lambda m, D: torch.ones(D, len(m)), "nothing is masked"),
        (lambda m, D: (m[:, None] < _pixels(D)).float(), "exchanged"),
        (lambda m, D: _pixels(D)[:, None] > m, "dtype is torch.bool"),
    ],
    "made.network": [
        (lambda x, W, b, V, c, M, N: _mlp(x, W, b, V * N, c), "W needs M"),
        (lambda x, W, b, V, c, M, N: _mlp(x, W * M, b, V, c), "V needs N"),
        (lambda x, W, b, V, c, M, N: _mlp(x, W, b, V, c), "neither layer"),
        (lambda x, W, b, V, c, M, N: _mlp(x, W * N.T, b, V * M.T, c), "masks are exchanged"),
        (lambda x, W, b, V, c, M, N: _mlp(x, W + M, b, V + N, c), "masks are added"),
        (lambda x, W, b, V, c, M, N: F.linear(F.linear(x, W * M, b), V * N, c), "relu is missing"),
        (lambda x, W, b, V, c, M, N: _right(x, W, 0 * b, V, c, M, N), "b is missing in"),
        (lambda x, W, b, V, c, M, N: _right(x, W, b, V, 0 * c, M, N), "c is missing in"),
        (lambda x, W, b, V, c, M, N: _right(x, W, 0 * b, V, 0 * c, M, N), "both b and c"),
        (lambda x, W, b, V, c, M, N: (torch.relu(x @ (W * M).T) + b) @ (V * N).T + c, "after the relu"),
        (lambda *a: _right(*a).sigmoid(), "return the logits"),
        (lambda *a: _right(*a).relu(), "to the output too"),
        (lambda x, W, b, V, c, M, N: F.linear(F.linear(x, W * M, b).sigmoid(), V * N, c), "uses the sigmoid"),
        (lambda x, W, b, V, c, M, N: torch.relu(x @ (W * M) + b) @ (V * N) + c, "RuntimeError"),
    ],
    "made.draw": [
        (lambda a, u, x, known: torch.where(known, x, (a > 0).float()), "likelier bit"),
        (lambda a, u, x, known: torch.where(known, x, (u > a.sigmoid()).float()), "u is above p"),
        (lambda a, u, x, known: torch.where(known, x, (u < a).float()), "compared with the logit"),
        (lambda a, u, x, known: torch.where(known, _coin(a, u), x), "wrong way round"),
        (lambda a, u, x, known: _coin(a, u), "known has no say"),
        (lambda a, u, x, known: x, "nothing is drawn"),
        (lambda a, u, x, known: torch.where(known, x, (u < 0.5).float()), "one half"),
        (lambda a, u, x, known: torch.where(known, x, a.sigmoid()), "these are probabilities"),
        (lambda a, u, x, known: x * known + _coin(a, u), "known bits are added"),
        (lambda a, u, x, known: known | (u < a.sigmoid()), "dtype is torch.bool"),
    ],
}
