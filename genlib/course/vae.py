"""The gaps of ``labs/vae.ipynb``: reference answers, and the cases that judge the learner's.

The oracles are SciPy's laws and functions, Gauss-Hermite quadrature and ``torch.distributions``. Images are rows of
bits ``(n, D)``, codes rows ``(n, d)``; a law of codes is its mean and the logarithm of its variance.
"""

import math

import numpy as np
import torch
from scipy import special, stats
from torch import Tensor, distributions
from torch.nn import functional as F

from genlib.course.checks import Case, gap

LOG2PI = math.log(2 * math.pi)


def _float(x) -> Tensor:
    return torch.as_tensor(np.asarray(x), dtype=torch.float32)


def _bits():
    x, a = _float([[1, 0, 1], [0, 0, 1]]), _float([[2, -1, 0.5], [-3, 1, -0.5]])
    each = lambda x, a: _float(special.log_expit(np.where(x == 1, a, -a.double())))  # noqa: E731
    logs, p = each(x, a), a.sigmoid()
    yield Case(
        {"x": x, "logits": a},
        logs.sum(1),
        {
            "this is the mean over the pixels; independent pixels multiply, so their logarithms add up.": logs.mean(1),
            "the sign is turned: this is a loss, and a log-probability is never above 0.": -logs.sum(1),
            "only the pixels that are 1 count; a 0 has the probability 1 - sigmoid(a).": (x * logs).sum(1),
            "only the pixels that are 0 count; a 1 has the probability sigmoid(a).": ((1 - x) * logs).sum(1),
            "ink and paper are exchanged: a large logit speaks for a pixel that is 1.": each(1 - x, a).sum(1),
            "this is the probability; its logarithm is asked for.": logs.sum(1).exp(),
            "you add up probabilities; take the logarithm of each first.": logs.exp().sum(1),
            "the sigmoid is applied twice.": each(x, p).sum(1),
            "this is a squared error; the log-probability of a coin is asked for.": -((x - p) ** 2).sum(1),
            "the unit here is the bit; use the natural logarithm, for nats.": logs.sum(1) / math.log(2),
        },
    )
    x, a = _float([[1, 0], [0, 1]]), _float([[-200, 1], [200, 3]])
    yield Case(
        {"x": x, "logits": a},
        each(x, a).sum(1),
        {
            "the logarithm of 0: sigmoid(200) rounds to 1, or exp(200) overflows. F.softplus does both "
            "steps at once.": torch.full((2,), -math.inf),
            "the logarithm is cut off at -100, as in F.binary_cross_entropy; start from the logits.": each(x, a)[:, 1]
            - 100,
        },
    )
    x, a = _float([[1, 0, 1]]), _float([[[0, 1, 2]], [[-2, 3, 1]]])
    yield Case({"x": x, "logits": a}, each(x, a).sum(2))


@gap("vae.bits", _bits)
def log_bernoulli(x: Tensor, logits: Tensor) -> Tensor:
    """``sum_d log p(x_d | logit_d)`` of bits, the pixels last; leading dimensions broadcast."""
    return -F.softplus((1 - 2 * x) * logits).sum(-1)


def _draw():
    mu, var, noise = _float([[0, 1, -2, 3]]), _float([[4, 0.25, 9, 1]]), _float([[1, -2, 0.5, -1.5]])
    sd, logvar = _float([[2, 0.5, 3, 1]]), var.log()
    yield Case(
        {"mu": mu, "logvar": logvar, "noise": noise},
        _float([[2, 0, -0.5, 1.5]]),
        {
            "you scale by exp(logvar), the variance; noise is scaled by the standard deviation.": mu + var * noise,
            "half a variance is no standard deviation: halve the logarithm, before exp.": mu + var / 2 * noise,
            "the exp is missing: logvar / 2 is the logarithm of the standard deviation.": mu + logvar / 2 * noise,
            "you scale by the log-variance itself; the standard deviation is exp(logvar / 2).": mu + logvar * noise,
            "you divide by the standard deviation; multiply.": mu + noise / sd,
            "the noise is not scaled.": mu + noise,
            "the noise is missing: this is the mean.": mu,
            "the mean is missing: this is noise around 0.": sd * noise,
            "the noise is taken off; add it.": mu - sd * noise,
            "you scale the mean as well; only the noise is scaled.": sd * (mu + noise),
        },
    )
    arguments = {"mu": _float([[1, -1]]), "logvar": _float([[0, 9]]).log1p(), "noise": _float([[[1, 0]], [[-1, 2]]])}
    yield Case(arguments, _float([[[2, -1]], [[0, -1 + 2 * math.sqrt(10)]]]))


@gap("vae.draw", _draw)
def draw_codes(mu: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    """``mu + sigma noise``: draws from ``N(mu, exp(logvar))`` made of standard normal ``noise``."""
    return mu + torch.exp(logvar / 2) * noise


def _log_normal():
    z, mu, logvar = _float([[1, -0.5], [0, 2]]), _float([[0.5, 0.5], [-1, 3]]), _float([[-0.4, 0.8], [1.2, -1]])
    scipy = lambda z, mu, logvar: _float(stats.norm.logpdf(z, mu, (logvar / 2).exp()).sum(-1))  # noqa: E731
    square, answer = (z - mu) ** 2, scipy(z, mu, logvar)
    scaled, by_sigma = square / logvar.exp(), square / (logvar / 2).exp()
    yield Case(
        {"z": z, "mu": mu, "logvar": logvar},
        answer,
        {
            "the constant is missing: each unit has its own -log(2 pi) / 2.": answer + LOG2PI,
            "the constant stands there once; each unit has its own, so sum it with the rest.": answer + LOG2PI / 2,
            "the term -logvar / 2 is missing: a narrow law is high.": answer + logvar.sum(1) / 2,
            "logvar is not halved: log sigma is logvar / 2.": answer - logvar.sum(1) / 2,
            "logvar has the wrong sign: a narrow law is high.": answer + logvar.sum(1),
            "the square is not divided by the variance.": answer + (scaled - square).sum(1) / 2,
            "you divide the square by sigma; its square, the variance, is due.": answer
            + (scaled - by_sigma).sum(1) / 2,
            "the square lacks its 1/2.": answer - scaled.sum(1) / 2,
            "you take logvar for the logarithm of sigma.": scipy(z, mu, 2 * logvar),
            "this is the density; its logarithm is asked for.": answer.exp(),
            "this is the mean over the units; independent units add their logarithms.": answer / 2,
        },
    )
    z, mu, logvar = _float([[[1, 2, 3]], [[0, 1, 0]]]), _float([[0, 1, 1]]), _float([[0, 0, 1]])
    yield Case({"z": z, "mu": mu, "logvar": logvar}, scipy(z, mu, logvar))


@gap("vae.log-normal", _log_normal)
def log_normal(z: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    """``log N(z; mu, diag exp(logvar))``, the units last; leading dimensions broadcast."""
    return -((z - mu) ** 2 / logvar.exp() + logvar + LOG2PI).sum(-1) / 2


def _quadrature(mu, logvar) -> Tensor:
    """``E_q[log q(z) - log p(z)]`` summed over units; Gauss and Hermite's rule is exact for this square of z."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(5)
    mu, sd = (np.asarray(a, dtype=float)[..., None] for a in (mu, (logvar.double() / 2).exp()))
    z = mu + sd * nodes
    ratio = stats.norm.logpdf(z, mu, sd) - stats.norm.logpdf(z)
    return _float((ratio @ weights / weights.sum()).sum(-1))


def _kl():
    mu, logvar = _float([[1, -0.5, 0], [0.3, 2, -1]]), _float([[-1, 0.5, 0], [0.7, -2, 1]])
    var, answer = logvar.exp(), _quadrature(mu, logvar)
    yield Case(
        {"mu": mu, "logvar": logvar},
        answer,
        {
            "the factor 1/2 is missing.": 2 * answer,
            "the sign is turned: a KL divergence is never negative.": -answer,
            "this is the mean over the units; independent units add their divergences.": answer / 3,
            "logvar has the wrong sign: it is taken off.": answer + logvar.sum(1),
            "logvar is missing: without it a law of no width would be cheap.": answer + logvar.sum(1) / 2,
            "the -1 of each unit is missing: at mu = 0 and logvar = 0 the price must be 0.": answer + 3 / 2,
            "the -1 stands there once; each unit has its own.": answer + 1,
            "mu is not squared.": answer + (mu - mu**2).sum(1) / 2,
            "mu is missing: a code far from 0 has its price.": answer - (mu**2).sum(1) / 2,
            "exp(logvar) is missing, so a wide law costs nothing.": answer - var.sum(1) / 2,
            "logvar stands where its exp belongs: the term is the variance.": answer + (logvar - var).sum(1) / 2,
            "you take logvar for the logarithm of sigma.": _quadrature(mu, 2 * logvar),
            "this is KL(p || q); the expectation runs over q.": ((1 + mu**2) / var - 1 + logvar).sum(1) / 2,
        },
    )
    yield Case({"mu": torch.zeros(1, 4), "logvar": torch.zeros(1, 4)}, torch.zeros(1))


@gap("vae.kl", _kl)
def kl_to_prior(mu: Tensor, logvar: Tensor) -> Tensor:
    """``KL(N(mu, exp(logvar)) || N(0, I))`` of each row in nats, summed over its units."""
    return (mu**2 + logvar.exp() - 1 - logvar).sum(1) / 2


def _terms(x, logits, mu, logvar) -> tuple[Tensor, Tensor]:
    """The mean log-likelihood of the rows and the mean KL of their codes."""
    q, p = distributions.Normal(mu, (logvar / 2).exp()), distributions.Normal(0.0, 1.0)
    likelihood = distributions.Bernoulli(logits=logits).log_prob(x).sum(1)
    return likelihood.mean(), distributions.kl_divergence(q, p).sum(1).mean()


def _loss():
    x, logits = _float([[1, 0, 1], [0, 1, 1]]), _float([[1.5, 0.5, -1], [-2, 2, 0]])
    mu, logvar, beta = _float([[1, -0.5], [0.2, 1.5]]), _float([[-1, 0], [0.5, -0.5]]), 0.4
    ll, kl = _terms(x, logits, mu, logvar)
    yield Case(
        {"x": x, "logits": logits, "mu": mu, "logvar": logvar, "beta": beta},
        beta * kl - ll,
        {
            "the sign is turned: training minimises, so the loss is minus the bound.": ll - beta * kl,
            "the KL term is taken off, so the code would be paid for being dear.": -ll - beta * kl,
            "the log-likelihood enters with the wrong sign, so unlikely images would be sought.": ll + beta * kl,
            "beta weighs the likelihood here; it weighs the KL.": kl - beta * ll,
            "beta weighs both terms; it weighs the KL alone.": beta * (kl - ll),
            "beta is left out.": kl - ll,
            "this is the sum over the rows; take their mean.": 2 * (beta * kl - ll),
            "the log-likelihood is averaged over the pixels; they add up.": beta * kl - ll / 3,
            "the KL is averaged over the units; they add up.": beta * kl / 2 - ll,
            "the KL is left out: this is an autoencoder's loss.": -ll,
            "the log-likelihood is left out.": beta * kl,
        },
    )
    arguments = {"x": x[:1], "logits": logits[:1], "mu": mu[:1], "logvar": logvar[:1]}
    ll, kl = _terms(**arguments)
    yield Case({**arguments, "beta": 1.0}, kl - ll)


@gap("vae.loss", _loss)
def vae_loss(x: Tensor, logits: Tensor, mu: Tensor, logvar: Tensor, beta: float) -> Tensor:
    """Minus the lower bound on ``log p(x)``, the KL weighed by ``beta``, averaged over the rows."""
    return (beta * kl_to_prior(mu, logvar) - log_bernoulli(x, logits)).mean()


def _grid(places, transform=stats.norm.ppf) -> Tensor:
    """The codes row by row from the top, by loops."""
    z = transform(np.asarray(places, dtype=float))
    return _float([(right, up) for up in z[::-1] for right in z])


def _plane():
    middle = lambda n: (np.arange(n) + 0.5) / n  # noqa: E731
    answer = _grid(middle(2))
    yield Case(
        {"n": 2},
        answer,
        {
            "these are the shares; send them through the inverse of the normal cdf.": _grid(middle(2), lambda u: u),
            "you applied the normal cdf; its inverse turns shares into codes.": _grid(middle(2), stats.norm.cdf),
            "the shares reach 0 and 1, whose codes are infinite. Take the middles of n equal parts.": _grid([0, 1]),
            "the shares are i / (n + 1); take the middles of n equal parts, (i + 1/2) / n.": _grid([1 / 3, 2 / 3]),
            "the codes are evenly spaced; equal shares of the prior crowd in its middle.": _grid([-3, 3], lambda z: z),
            "upside down: the first row of pictures is the top one, where the second unit is greatest.": (
                answer.reshape(2, 2, 2).flip(0).reshape(4, 2)
            ),
            "mirrored: the first unit grows from left to right.": answer.reshape(2, 2, 2).flip(1).reshape(4, 2),
            "the two units are exchanged: the first grows to the right, the second upwards.": answer.flip(1),
            "you go down the columns; pictures are laid row by row, so the first unit changes fastest.": (
                answer.reshape(2, 2, 2).transpose(0, 1).reshape(4, 2)
            ),
            "this runs over pairs as torch.cartesian_prod does, the first unit slowest and from the bottom. The first "
            "unit must change fastest, and the second fall.": answer.reshape(2, 2, 2).flip(0).reshape(4, 2).flip(1),
        },
    )
    yield Case({"n": 3}, _grid(middle(3)))


@gap("vae.plane", _plane)
def plane_codes(n: int) -> Tensor:
    """Codes ``(n * n, 2)`` that cut the prior into equal shares, row by row from the top."""
    z = torch.special.ndtri((torch.arange(n) + 0.5) / n)
    return torch.cartesian_prod(z.flip(0), z).flip(1)


def _bound():
    w = _float([[-1, 0.5], [-2.5, -1], [0.3, -3]])
    answer = lambda w: _float(special.logsumexp(w.double(), axis=0, b=1 / len(w)))  # noqa: E731
    yield Case(
        {"log_weights": w},
        answer(w),
        {
            "this is the sum of the weights; their mean is asked for, so take log k off.": answer(w) + math.log(3),
            "log k is added; take it off.": answer(w) + 2 * math.log(3),
            "you take off k; in logarithms, dividing by k takes off log k.": answer(w) + math.log(3) - 3,
            "you take off log n; the mean runs over the k draws.": answer(w) + math.log(1.5),
            "you divide the logarithm by k; divide before the logarithm.": (answer(w) + math.log(3)) / 3,
            "this is the mean of the log-weights, the bound of a single draw; take the mean of the weights, then the "
            "logarithm.": w.mean(0),
            "this is the best draw alone; the others count too.": w.amax(0),
            "this is the mean weight; its logarithm is asked for.": answer(w).exp(),
            "the sign is turned.": -answer(w),
            "the unit here is the bit; use the natural logarithm, for nats.": answer(w) / math.log(2),
        },
    )
    w = _float([[-900, -1000], [-901, -1003]])
    small = (
        "exp(-900) is 0 in floating point, and log 0 is -inf. An image has hundreds of pixels, so such weights are "
        "usual: torch.logsumexp adds them without leaving logarithms."
    )
    yield Case({"log_weights": w}, answer(w), {small: torch.full((2,), -math.inf)})


@gap("vae.bound", _bound)
def importance_bound(log_weights: Tensor) -> Tensor:
    """``log 1/k sum_i w_i`` for each column of ``log w``, shape ``(k, n)``."""
    return torch.logsumexp(log_weights, 0) - math.log(len(log_weights))


def fresh(gap: str, g: torch.Generator) -> dict:
    """Random arguments for a gap, in the order of its function."""
    n, dim, d, k = torch.randint(2, 6, (4,), generator=g).tolist()
    normal = lambda *shape: torch.randn(shape, generator=g)  # noqa: E731
    x, logits = (normal(n, dim) > 0).float(), 3 * normal(n, dim)
    mu, logvar, u = normal(n, d), normal(n, d), torch.rand((), generator=g).item()
    match gap:
        case "vae.bits":
            return {"x": x, "logits": logits}
        case "vae.draw":
            return {"mu": mu, "logvar": logvar, "noise": normal(k, n, d)}
        case "vae.log-normal":
            return {"z": normal(k, n, d), "mu": mu, "logvar": logvar}
        case "vae.kl":
            return {"mu": mu, "logvar": logvar}
        case "vae.loss":
            return {"x": x, "logits": logits, "mu": mu, "logvar": logvar, "beta": 0.1 + u}
        case "vae.plane":
            return {"n": n + 1}
        case "vae.bound":
            return {"log_weights": 5 * normal(k, n) - 100}
