"""The gaps of ``labs/denoising-sampler.ipynb``: reference answers, and the cases that judge the learner's.

The oracles are quadrature, SciPy's distributions, a NumPy loop and the automatic gradient of a density. ``N`` numbers
are repaired at once; their law is a mixture of ``K`` normal laws, given by weights, means and standard deviations.
"""

import math

import numpy as np
import torch
from scipy import special, stats
from torch import Tensor
from torch.nn import functional as F

from genlib.course.checks import Case, gap

LAW = {"weight": [0.5, 0.2, 0.3], "mean": [-1.0, 0.4, 2.0], "std": [0.3, 1.2, 0.7]}
WEIGHT, MEAN, STD = map(np.array, LAW.values())


def _float(x) -> Tensor:
    return torch.as_tensor(x, dtype=torch.float32)


def _law(*names: str) -> dict[str, Tensor]:
    return {name: _float(LAW[name]) for name in names}


def _damage():
    x, s, noise = _float([1.0, -2.0, 0.5, 3.0]), 0.6, _float([1.5, 1.0, -0.7, 0.2])
    mistakes = {
        "the noise is not scaled: its standard deviation must be s.": x + noise,
        "you scale by s squared, the variance; noise is scaled by its standard deviation s.": x + s**2 * noise,
        "you scale by the square root of s; s is a standard deviation already.": x + math.sqrt(s) * noise,
        "nothing is damaged: the noise is missing.": x,
        "this is the noise alone; add it to x.": s * noise,
        "the noise is taken off; add it.": x - s * noise,
        "the noise grows with x here; the same normal law is added everywhere.": x * (1 + s * noise),
        "x shrinks by 1 - s here; damage adds noise and keeps x whole.": (1 - s) * x + s * noise,
        "x shrinks by sqrt(1 - s^2) here, as in diffusion models; in this lab it stays whole.": 0.8 * x + s * noise,
    }
    yield Case({"x": x, "s": s, "noise": noise}, _float([1.9, -1.4, 0.08, 3.12]), mistakes)


@gap("denoising.damage", _damage)
def damage(x: Tensor, s: float, noise: Tensor) -> Tensor:
    """A draw from ``C(x~ | x) = N(x, s^2)`` out of standard normal ``noise``; any shape."""
    return x + s * noise


def _quadrature(noisy, s, weight, mean, std) -> Tensor:
    """``E[X | x~]`` by the trapezoidal rule over x, shape (N,)."""
    x = np.linspace(-15, 15, 20_001)[:, None]
    prior = (weight * stats.norm.pdf(x, mean, std)).sum(1, keepdims=True)
    joint = prior * stats.norm.pdf(noisy, x, s)
    return _float((x * joint).sum(0) / joint.sum(0))


def _means():
    noisy, s, (mean, std) = _float([-1.5, 0.8]), 0.6, _law("mean", "std").values()
    far, share = noisy[:, None], std**2 / (std**2 + s**2)
    around = lambda share: mean + share * (far - mean)  # noqa: E731
    mistakes = {
        "the two shares are swapped: the larger s is, the less x~ counts.": around(1 - share),
        "the share is made of standard deviations; variances add, so take squares.": around(std / (std + s)),
        "s stands in the share unsquared; the noise has variance s^2.": around(std**2 / (std**2 + s)),
        "std stands in the share unsquared; the component has variance std^2.": around(std / (std + s**2)),
        "the share is std^2 / s^2; divide by the sum of both variances.": around(std**2 / s**2),
        "this pulls towards 0; start from the component's mean and shrink the distance to it.": share * far,
        "these are the means before any x~ was seen.": around(0 * share),
        "this is x~ again; nothing pulls it towards the component.": around(1 + 0 * share),
        "this is halfway between x~ and the mean; the variances decide how far to go.": around(0.5 + 0 * share),
        "the distance is turned round: a larger x~ must give a larger mean.": mean - share * (far - mean),
        "both are weighted by their precisions; divide by the sum of the precisions too.": mean / std**2 + far / s**2,
    }
    right = torch.stack([_quadrature(noisy, s, 1.0, *each) for each in zip(LAW["mean"], LAW["std"], strict=True)], 1)
    yield Case({"noisy": noisy, "s": s, "mean": mean, "std": std}, right, mistakes)
    noisy = _float([0.0, 3.0, 8.0])
    right = _quadrature(noisy, 1.0, 1.0, 3.0, 2.0)[:, None]
    yield Case({"noisy": noisy, "s": 1.0, "mean": _float([3.0]), "std": _float([2.0])}, right)


@gap("denoising.means", _means)
def repair_means(noisy: Tensor, s: float, mean: Tensor, std: Tensor) -> Tensor:
    """``E[X | x~, component]`` for each x~ and each component, shape (N, K)."""
    return mean + std**2 / (std**2 + s**2) * (noisy[:, None] - mean)


def _bayes(log_density, weight=WEIGHT, axis=1) -> Tensor:
    return _float(special.softmax(np.log(weight) + log_density, axis=axis))


def _weights():
    far, s, wide = np.array([[-1.3], [0.8]]), 0.6, np.hypot(STD, 0.6)
    normal = lambda scale: stats.norm.logpdf(far, MEAN, scale)  # noqa: E731
    log_density = normal(wide)
    mistakes = {
        "the weights of the mixture have no say: multiply each density by its weight.": _bayes(log_density, np.ones(3)),
        "these are the weights before x~ was seen.": _bayes(0 * log_density),
        "x~ is more spread than x: its variance is std^2 + s^2, not std^2.": _bayes(normal(STD)),
        "this judges by the noise alone; the component's own variance adds to it.": _bayes(normal(s)),
        "you add the standard deviations; the variances add: std^2 + s^2.": _bayes(normal(STD + s)),
        "a variance stands for a standard deviation; take the root of std^2 + s^2.": _bayes(normal(wide**2)),
        "the factor 1 / sqrt(std^2 + s^2) of the normal density is missing.": _bayes(log_density + np.log(wide)),
        "the exponent lacks its 1/2.": _bayes(2 * log_density + np.log(wide)),
        "the rows do not sum to one: divide by their sum.": _float(WEIGHT * np.exp(log_density)),
        "the columns sum to one; each x~ has a row, so normalise over dimension 1.": _bayes(log_density, axis=0),
        "these are logarithms; take exp, or softmax in place of log_softmax.": _bayes(log_density).log(),
        "the weight itself stands among logarithms; take its logarithm.": _bayes(log_density, np.exp(WEIGHT)),
    }
    yield Case({"noisy": _float(far[:, 0]), "s": s, **_law(*LAW)}, _bayes(log_density), mistakes)
    far = np.array([[60.0], [-50.0]])  # every density is 0 in floating point here
    yield Case({"noisy": _float(far[:, 0]), "s": s, **_law(*LAW)}, _bayes(normal(wide)))


@gap("denoising.weights", _weights)
def repair_weights(noisy: Tensor, s: float, weight: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """``P(component | x~)``, shape (N, K)."""
    variance = std**2 + s**2
    log_density = -((noisy[:, None] - mean) ** 2) / (2 * variance) - variance.log() / 2
    return (weight.log() + log_density).softmax(1)


def _by_loop(weights, means, spread, u, eps, choose=np.searchsorted) -> Tensor:
    """A draw for each row, of the component that ``choose`` finds in the running sums of its weights."""
    rows = zip(np.cumsum(np.asarray(weights, float), 1), means.tolist(), u.tolist(), eps.tolist(), strict=True)
    chosen = [(choose(sums, v) % len(spread), m, e) for sums, m, v, e in rows]
    return _float([m[k] + float(spread[k]) * e for k, m, e in chosen])


def _draw():
    weights = _float([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1], [0.1, 0.2, 0.7], [0.3, 0.3, 0.4]])
    means = _float([[-1.0, 0.0, 2.0], [-1.2, 0.3, 1.5], [-0.8, 0.9, 2.4], [-0.5, 0.1, 1.8]])
    spread, u, eps = _float([0.3, 0.5, 0.4]), _float([0.1, 0.4, 0.9, 0.5]), _float([1.0, -0.5, 2.0, 0.7])
    given = {"weights": weights, "means": means, "spread": spread, "u": u, "eps": eps}
    draw, mixed, find = lambda **change: _by_loop(**given | change), (weights * means).sum(1), np.searchsorted
    likeliest = lambda sums, v: int(np.argmax(np.diff(sums, prepend=0)))  # noqa: E731
    mistakes = {
        "the likeliest component is taken each time; let u choose, so that each gets its share.": draw(
            choose=likeliest
        ),
        "this is the mean of the law, with no draw in it.": mixed,
        "this averages over the components; a draw comes from one: choose it first.": mixed + weights @ spread * eps,
        "the component is right but its noise is missing.": draw(eps=0 * eps),
        "the noise is not scaled by the spread of the component.": draw(spread=torch.ones(3)),
        "you scale by the spread squared; spread is a standard deviation.": draw(spread=spread**2),
        "the noise is taken off; add it.": draw(eps=-eps),
        "one component too far: the sums below u count those that are passed over.": draw(
            choose=lambda *a: find(*a) + 1
        ),
        "one component short: do not take 1 off the number of sums below u.": draw(choose=lambda *a: find(*a) - 1),
        "this fills from the last component; a u below the first weight means the first.": draw(u=1 - u),
        "the first row's weights choose for all; each row has its own.": draw(weights=weights[:1].expand(4, 3)),
    }
    yield Case(given, draw(), mistakes)
    short = _float([[0.35, 0.25, 0.399999], [0.5, 0.5, 0.0]])  # as rounding may leave it: the sum ends below u
    u = _float([1.0, 0.2])
    yield Case({**given, "weights": short, "means": means[:2], "u": u, "eps": eps[:2]}, _float([2.4, -1.35]))


@gap("denoising.draw", _draw)
def repair_draw(weights: Tensor, means: Tensor, spread: Tensor, u: Tensor, eps: Tensor) -> Tensor:
    """A draw from each row's mixture: uniform ``u`` chooses the component, normal ``eps`` moves it; shape (N,)."""
    k = (weights.cumsum(1) < u[:, None]).sum(1).clamp(max=len(spread) - 1)
    return means[torch.arange(len(u)), k] + spread[k] * eps


def _step():
    x, s = _float([-1.0, 0.2, 2.5, 1.1]), 0.8
    noise, u, eps = _float([0.5, 1.2, -1.6, -0.9]), _float([0.3, 0.8, 0.85, 0.4]), _float([1.0, -0.5, 0.3, 0.9])
    precision = STD**-2 + s**-2

    def repaired(noisy, seen=None, judged=None, spread=precision**-0.5, eps=eps):
        """In NumPy's doubles; ``seen`` makes the means and ``judged`` the weights, if not the damaged copy does."""
        seen, judged = (np.asarray(noisy if v is None else v, float)[:, None] for v in (seen, judged))
        weights = WEIGHT * stats.norm.pdf(judged, MEAN, np.hypot(STD, s))
        means = (MEAN * STD**-2 + seen * s**-2) / precision
        return _by_loop(weights / weights.sum(1, keepdims=True), means, spread, u, eps)

    noisy, row = x + s * noise, np.ones((4, 1))
    mistakes = {
        "x is repaired without having been damaged: the noise has no part in it.": repaired(x),
        "this is the damaged copy; repair it.": noisy,
        "the means are made from x; the repair sees the damaged copy alone.": repaired(noisy, seen=x),
        "the weights are made from x; the repair sees the damaged copy alone.": repaired(noisy, judged=x),
        "you repair first and damage then; a round ends with the repair.": repaired(x) + s * noise,
        "the damage is not scaled by s.": repaired(x + noise),
        "the spread is that before x~ was seen; afterwards less is left open.": repaired(noisy, spread=STD),
        "the spread is that of the noise; the component limits it too.": repaired(noisy, spread=[s] * 3),
        "the spread is a variance; take its root.": repaired(noisy, spread=1 / precision),
        "these are new draws from the mixture; x~ has no part in them.": _by_loop(
            row * WEIGHT, row * MEAN, STD, u, eps
        ),
        "the repair ends without noise: eps has no part in it.": repaired(noisy, eps=0 * eps),
        "noise and eps are swapped: noise damages, eps repairs.": repaired(x + s * eps, eps=noise),
    }
    given = {"x": x, "s": s, **_law(*LAW), "noise": noise, "u": u, "eps": eps}
    yield Case(given, repaired(noisy), mistakes)


@gap("denoising.step", _step)
def chain_step(x: Tensor, s: float, weight: Tensor, mean: Tensor, std: Tensor, noise, u, eps) -> Tensor:
    """One round of the chain, ``x~ ~ C(. | x)`` and then ``x' ~ P(. | x~)``, shape (N,)."""
    noisy = damage(x, s, noise)
    spread = std * s / (std**2 + s**2).sqrt()
    weights, means = repair_weights(noisy, s, weight, mean, std), repair_means(noisy, s, mean, std)
    return repair_draw(weights, means, spread, u, eps)


def _score():
    noisy, s = torch.tensor([-1.5, 0.8, 2.4, 4.0], dtype=torch.float64, requires_grad=True), 0.6
    law = torch.distributions.Normal(torch.tensor(MEAN), torch.tensor(np.hypot(STD, s)))
    log_density = (torch.tensor(WEIGHT).log() + law.log_prob(noisy[:, None])).logsumexp(1)
    (slope,) = torch.autograd.grad(log_density.sum(), noisy)
    noisy = noisy.detach().float()
    clean = _quadrature(noisy, s, WEIGHT, MEAN, STD)
    way = clean - noisy
    mistakes = {
        "the sign is turned: the score points from x~ to its repair.": -way / s**2,
        "you divide by s; divide by the variance s^2.": way / s,
        "this is the way from x~ to its repair; divide it by s^2.": way,
        "you multiply by s^2; divide.": way * s**2,
        "you divide by 2 s^2; the square's derivative cancels the 2.": way / (2 * s**2),
        "x~ is not taken off: go from x~ to its repair.": clean / s**2,
        "this is the score of noise about 0; the repair has no part in it.": -noisy / s**2,
        "you add where a difference is due.": (clean + noisy) / s**2,
        "this is the logarithm of a density; its slope is asked for.": -(way**2) / (2 * s**2),
    }
    yield Case({"noisy": noisy, "s": s, "clean": clean}, _float(slope), mistakes)
    yield Case({"noisy": _float([[1.0, 2.0]]), "s": 2.0, "clean": _float([[0.0, 4.0]])}, _float([[-0.25, 0.5]]))


@gap("denoising.score", _score)
def score(noisy: Tensor, s: float, clean: Tensor) -> Tensor:
    """The gradient of the log-density of x~, from ``clean = E[X | x~]``; any shape."""
    return (clean - noisy) / s**2


def _loss():
    logits = _float([[2.0, -1.0, 0.5, 0.3], [-0.4, 0.8, 3.0, -2.0], [1.2, 0.1, -0.6, 0.9]])
    x, p = np.array([[1, 0, 0, 1], [0, 0, 1, 1], [1, 1, 0, 0]]), special.expit(logits.double().numpy())
    nats = lambda p: _float(-stats.bernoulli(p).logpmf(x).sum(1))  # noqa: E731
    mistakes = {
        "the sign is turned: the loss is the negative logarithm.": -nats(p),
        "this is the mean over the pixels; a product of probabilities gives a sum of logarithms.": nats(p) / 4,
        "the black pixels alone are counted; a white one adds -log(1 - p).": _float(-(x * np.log(p)).sum(1)),
        "the white pixels alone are counted; a black one adds -log p.": _float(-((1 - x) * np.log(1 - p)).sum(1)),
        "black and white are swapped: a logit is that of a 1.": nats(1 - p),
        "this is the probability of the picture; take its negative logarithm.": (-nats(p)).exp(),
        "these are bits; use the natural logarithm.": nats(p) / math.log(2),
        "this is a squared distance; the repair is a law over bits, so take -log P.": _float(((x - p) ** 2).sum(1)),
        "the sigmoid is taken twice; cross-entropy with logits has one inside.": nats(special.expit(p)),
    }
    yield Case({"logits": logits, "x": _float(x)}, nats(p), mistakes)
    cut = "the sigmoid of a large logit is 1 in floating point, and log(1 - 1) is -inf. Use logits to the end."
    kept = "F.binary_cross_entropy cuts each logarithm at -100; use the one with logits."
    given = {"logits": _float([[120.0, -130.0], [3.0, -4.0]]), "x": _float([[0.0, 1.0], [1.0, 0.0]])}
    tame = -special.log_expit(3.0) - special.log_expit(4.0)
    yield Case(given, _float([250.0, tame]), {cut: _float([math.inf, tame]), kept: _float([200.0, tame])})


@gap("denoising.loss", _loss)
def repair_loss(logits: Tensor, x: Tensor) -> Tensor:
    """``-log P(x | x~)`` in nats, shape (N,), of independent bits with these ``logits``, both (N, D)."""
    return F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1)


def fresh(gap: str, g: torch.Generator) -> dict:
    """Random arguments for a gap, in the order of its function."""
    u, z = (lambda *shape, draw=draw: draw(shape, generator=g) for draw in (torch.rand, torch.randn))
    n, k = torch.randint(3, 7, (2,), generator=g).tolist()
    x, s, weight, mean, std = 3 * z(n), 0.3 + u().item(), (2 * z(k)).softmax(0), 2 * z(k), 0.3 + u(k)
    match gap:
        case "denoising.damage":
            return {"x": z(n, k), "s": s, "noise": z(n, k)}
        case "denoising.means":
            return {"noisy": x, "s": s, "mean": mean, "std": std}
        case "denoising.weights":
            return {"noisy": x, "s": s, "weight": weight, "mean": mean, "std": std}
        case "denoising.draw":
            return {"weights": (2 * z(n, k)).softmax(1), "means": z(n, k), "spread": std, "u": u(n), "eps": z(n)}
        case "denoising.step":
            law = {"weight": weight, "mean": mean, "std": std}
            return {"x": x, "s": s, **law, "noise": z(n), "u": u(n), "eps": z(n)}
        case "denoising.score":
            return {"noisy": z(n, k), "s": s, "clean": z(n, k)}
        case "denoising.loss":
            return {"logits": 2 * z(n, k), "x": (u(n, k) < 0.5).float()}
