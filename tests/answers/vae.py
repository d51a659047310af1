"""Answers to the gaps of ``labs/vae.ipynb``: wrong ones with words of their message, and right ones."""

import math

import torch
from torch.distributions import Bernoulli, Normal, kl_divergence
from torch.nn import functional as F

LOG2PI = math.log(2 * math.pi)


def _each(x, a):
    """The log-probability of each pixel."""
    return x * F.logsigmoid(a) + (1 - x) * F.logsigmoid(-a)


def _cut(x, a):
    return -F.binary_cross_entropy(a.sigmoid(), x.expand_as(a), reduction="none").sum(-1)


def _naive(x, a):
    p = torch.sigmoid(a)
    return torch.where(x == 1, p, 1 - p).log().sum(-1)


def _sd(logvar):
    return logvar.mul(0.5).exp()


def _normal(z, mu, logvar):
    return Normal(mu, _sd(logvar)).log_prob(z).sum(-1)


def _kl(mu, logvar):
    return kl_divergence(Normal(mu, _sd(logvar)), Normal(torch.zeros_like(mu), torch.ones_like(mu)))


def _parts(x, logits, mu, logvar):
    return Bernoulli(logits=logits).log_prob(x).sum(1), _kl(mu, logvar).sum(1)


def _loss(x, logits, mu, logvar, beta):
    total = 0.0
    for a, b, c, d in zip(x, logits, mu, logvar, strict=True):
        total += beta * _kl(c, d).sum() + F.binary_cross_entropy_with_logits(b, a, reduction="sum")
    return total / len(x)


def _z(n):
    return math.sqrt(2) * torch.erfinv(2 * (torch.arange(n) + 0.5) / n - 1)


def _laid(z):
    """The codes of a picture, from the places of one unit."""
    return torch.stack([torch.stack([right, up]) for up in z.flip(0) for right in z])


def _mean_weight(w):
    top = w.max(0).values
    return (w - top).exp().mean(0).log() + top


OTHERS = {
    "vae.bits": lambda x, a: (x * a - F.softplus(a)).sum(-1),
    "vae.draw": lambda mu, logvar, noise: Normal(mu, logvar.exp().sqrt()).icdf(Normal(0.0, 1.0).cdf(noise)),
    "vae.log-normal": _normal,
    "vae.kl": lambda mu, logvar: _kl(mu, logvar).sum(-1),
    "vae.loss": _loss,
    "vae.plane": lambda n: _laid(_z(n)),
    "vae.bound": _mean_weight,
}

MISTAKES = {
    "vae.bits": [
        (lambda x, a: _each(x, a).mean(-1), "mean over the pixels"),
        (lambda x, a: F.binary_cross_entropy_with_logits(a, x, reduction="none").sum(-1), "this is a loss"),
        (lambda x, a: (x * F.logsigmoid(a)).sum(-1), "only the pixels that are 1"),
        (lambda x, a: ((1 - x) * F.logsigmoid(-a)).sum(-1), "only the pixels that are 0"),
        (lambda x, a: _each(x, -a).sum(-1), "ink and paper are exchanged"),
        (lambda x, a: _each(x, a).exp().prod(-1), "this is the probability"),
        (lambda x, a: _each(x, a).exp().sum(-1), "you add up probabilities"),
        (lambda x, a: _each(x, a.sigmoid()).sum(-1), "applied twice"),
        (lambda x, a: -(x - a.sigmoid()).square().sum(-1), "squared error"),
        (lambda x, a: _each(x, a).sum(-1) / math.log(2), "the unit here is the bit"),
        (_naive, "sigmoid(200)"),
        (lambda x, a: -torch.log(1 + torch.exp((1 - 2 * x) * a)).sum(-1), "sigmoid(200)"),
        (_cut, "cut off at -100"),
        (lambda x, a: _each(x, a).sum(), "shape is (), expected (2,)"),
        (lambda x, a: _each(x, a).sum(1), "shape is (2, 3), expected (2, 1)"),
    ],
    "vae.draw": [
        (lambda m, v, e: m + v.exp() * e, "the variance; noise"),
        (lambda m, v, e: m + v.exp() / 2 * e, "half a variance"),
        (lambda m, v, e: m + v / 2 * e, "exp is missing"),
        (lambda m, v, e: m + v * e, "log-variance itself"),
        (lambda m, v, e: m + (-v / 2).exp() * e, "you divide"),
        (lambda m, v, e: m + e, "not scaled"),
        (lambda m, v, e: m, "this is the mean"),
        (lambda m, v, e: _sd(v) * e, "mean is missing"),
        (lambda m, v, e: m - _sd(v) * e, "taken off"),
        (lambda m, v, e: (m + e) * _sd(v), "scale the mean"),
        (lambda m, v, e: m + v.sqrt() * e, "NaN or infinite"),
    ],
    "vae.log-normal": [
        (lambda z, m, v: -((z - m) ** 2 / v.exp() + v).sum(-1) / 2, "constant is missing"),
        (lambda z, m, v: -(((z - m) ** 2 / v.exp() + v).sum(-1) + LOG2PI) / 2, "stands there once"),
        (lambda z, m, v: -((z - m) ** 2 / v.exp() + LOG2PI).sum(-1) / 2, "term -logvar / 2"),
        (lambda z, m, v: -((z - m) ** 2 / v.exp() + 2 * v + LOG2PI).sum(-1) / 2, "logvar is not halved"),
        (lambda z, m, v: -((z - m) ** 2 / v.exp() - v + LOG2PI).sum(-1) / 2, "logvar has the wrong sign"),
        (lambda z, m, v: -((z - m) ** 2 + v + LOG2PI).sum(-1) / 2, "not divided by the variance"),
        (lambda z, m, v: -((z - m) ** 2 / _sd(v) + v + LOG2PI).sum(-1) / 2, "divide the square by sigma"),
        (lambda z, m, v: -((z - m) ** 2 / v.exp() + (v + LOG2PI) / 2).sum(-1), "square lacks its 1/2"),
        (lambda z, m, v: Normal(m, v.exp()).log_prob(z).sum(-1), "for the logarithm of sigma"),
        (lambda z, m, v: _normal(z, m, v).exp(), "this is the density"),
        (lambda z, m, v: Normal(m, _sd(v)).log_prob(z).mean(-1), "mean over the units"),
        (lambda z, m, v: Normal(m, _sd(v)).log_prob(z), "shape is (2, 2), expected (2,)"),
        (lambda z, m, v: Normal(m, _sd(v)).log_prob(z).sum(1), "shape is (2, 3), expected (2, 1)"),
    ],
    "vae.kl": [
        (lambda m, v: (m**2 + v.exp() - 1 - v).sum(1), "1/2 is missing"),
        (lambda m, v: -_kl(m, v).sum(1), "sign is turned"),
        (lambda m, v: _kl(m, v).mean(1), "mean over the units"),
        (lambda m, v: (m**2 + v.exp() - 1 + v).sum(1) / 2, "logvar has the wrong sign"),
        (lambda m, v: (m**2 + v.exp() - 1).sum(1) / 2, "logvar is missing"),
        (lambda m, v: (m**2 + v.exp() - v).sum(1) / 2, "-1 of each unit is missing"),
        (lambda m, v: ((m**2 + v.exp() - v).sum(1) - 1) / 2, "-1 stands there once"),
        (lambda m, v: (m + v.exp() - 1 - v).sum(1) / 2, "mu is not squared"),
        (lambda m, v: (v.exp() - 1 - v).sum(1) / 2, "mu is missing"),
        (lambda m, v: (m**2 - 1 - v).sum(1) / 2, "exp(logvar) is missing"),
        (lambda m, v: (m**2 + v - 1 - v).sum(1) / 2, "where its exp belongs"),
        (lambda m, v: (m**2 + (2 * v).exp() - 1 - 2 * v).sum(1) / 2, "for the logarithm of sigma"),
        (lambda m, v: kl_divergence(Normal(0.0, 1.0), Normal(m, _sd(v))).sum(1), "KL(p || q)"),
        (_kl, "shape is (2, 3), expected (2,)"),
        (lambda m, v: _kl(m, v).sum(), "shape is (), expected (2,)"),
    ],
    "vae.loss": [
        (lambda *a: -_loss(*a), "minus the bound"),
        (lambda x, a, m, v, b: _loss(x, a, m, v, -b), "taken off"),
        (lambda x, a, m, v, b: -_loss(x, a, m, v, -b), "enters with the wrong sign"),
        (lambda x, a, m, v, b: b * _loss(x, a, m, v, 1 / b), "weighs the likelihood here"),
        (lambda x, a, m, v, b: b * _loss(x, a, m, v, 1.0), "weighs both terms"),
        (lambda x, a, m, v, b: _loss(x, a, m, v, 1.0), "beta is left out"),
        (lambda *a: _loss(*a) * len(a[0]), "sum over the rows"),
        (lambda x, a, m, v, b: b * _parts(x, a, m, v)[1].mean() - _each(x, a).mean(), "averaged over the pixels"),
        (lambda x, a, m, v, b: b * _kl(m, v).mean() - _parts(x, a, m, v)[0].mean(), "averaged over the units"),
        (lambda x, a, m, v, b: _loss(x, a, m, v, 0.0), "KL is left out"),
        (lambda x, a, m, v, b: b * _parts(x, a, m, v)[1].mean(), "log-likelihood is left out"),
        (lambda x, a, m, v, b: b * _parts(x, a, m, v)[1] - _parts(x, a, m, v)[0], "shape is (2,), expected ()"),
    ],
    "vae.plane": [
        (lambda n: _laid((torch.arange(n) + 0.5) / n), "these are the shares"),
        (lambda n: _laid(Normal(0.0, 1.0).cdf((torch.arange(n) + 0.5) / n)), "applied the normal cdf"),
        (lambda n: _laid(torch.special.ndtri(torch.linspace(0, 1, n))), "infinite"),
        (lambda n: _laid(torch.special.ndtri(torch.linspace(0, 1, n + 2)[1:-1])), "i / (n + 1)"),
        (lambda n: _laid(torch.linspace(-3, 3, n)), "evenly spaced"),
        (lambda n: torch.cartesian_prod(_z(n), _z(n)).flip(1), "upside down"),
        (lambda n: torch.cartesian_prod(_z(n), _z(n)).flip(0, 1), "mirrored"),
        (lambda n: torch.cartesian_prod(_z(n).flip(0), _z(n)), "two units are exchanged"),
        (lambda n: torch.cartesian_prod(_z(n), _z(n).flip(0)), "down the columns"),
        (lambda n: torch.cartesian_prod(_z(n), _z(n)), "torch.cartesian_prod does"),
        (_z, "shape is (2,), expected (4, 2)"),
    ],
    "vae.bound": [
        (lambda w: w.logsumexp(0), "sum of the weights"),
        (lambda w: w.logsumexp(0) + math.log(len(w)), "log k is added"),
        (lambda w: w.logsumexp(0) - len(w), "you take off k"),
        (lambda w: w.logsumexp(0) - math.log(w.shape[1]), "take off log n"),
        (lambda w: w.logsumexp(0) / len(w), "divide the logarithm"),
        (lambda w: w.mean(0), "mean of the log-weights"),
        (lambda w: w.max(0).values, "best draw alone"),
        (lambda w: w.exp().mean(0), "this is the mean weight"),
        (lambda w: -_mean_weight(w), "sign is turned"),
        (lambda w: _mean_weight(w) / math.log(2), "the unit here is the bit"),
        (lambda w: w.exp().mean(0).log(), "exp(-900)"),
        (lambda w: w.logsumexp(1) - math.log(len(w)), "shape is (3,), expected (2,)"),
        (lambda w: _mean_weight(w).mean(), "shape is (), expected (2,)"),
    ],
}
