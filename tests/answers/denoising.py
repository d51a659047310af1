"""The lab on the denoising sampler: mistakes as a learner would write them, and right answers in other words."""

import math

import torch
from torch import nn
from torch.distributions import Categorical, MixtureSameFamily, Normal
from torch.nn import functional as F

from genlib.course.denoising_sampler import damage, repair_draw, repair_means, repair_weights


def _toward(share):
    """A repaired mean with this share of the way from the component's mean to x~."""
    return lambda noisy, s, m, sd: m + share(s, sd) * (noisy[:, None] - m)


def _normal(noisy, mean, scale):
    return Normal(mean, scale).log_prob(noisy[:, None])


def _wide(std, s):
    return (std**2 + s**2).sqrt()


def _spread(std, s):
    return std * s / _wide(std, s)


def _chosen(w, u):
    return (w.cumsum(1) < u[:, None]).sum(1).clamp(max=w.shape[1] - 1)


def _at(m, k):
    return m.gather(1, k[:, None])[:, 0]


def _repaired(noisy, s, w, m, sd, u, eps, seen=None, judged=None, spread=_spread):
    seen, judged = (noisy if v is None else v for v in (seen, judged))
    return repair_draw(repair_weights(judged, s, w, m, sd), repair_means(seen, s, m, sd), spread(sd, s), u, eps)


def _prior(w, m, sd, u, eps):
    rows = torch.ones(len(u), 1)
    return repair_draw(rows * w, rows * m, sd, u, eps)


MISTAKES = {
    "denoising.damage": [
        (lambda x, s, z: x + z, "not scaled"),
        (lambda x, s, z: x + s**2 * z, "s squared"),
        (lambda x, s, z: x + math.sqrt(s) * z, "square root"),
        (lambda x, s, z: x, "nothing is damaged"),
        (lambda x, s, z: s * z, "noise alone"),
        (lambda x, s, z: x - s * z, "taken off"),
        (lambda x, s, z: x * (1 + s * z), "grows with x"),
        (lambda x, s, z: (1 - s) * x + s * z, "1 - s here"),
        (lambda x, s, z: math.sqrt(1 - s**2) * x + s * z, "diffusion"),
        (lambda x, s, z: s * (x + s * z), "0.6 times the expected"),
    ],
    "denoising.means": [
        (_toward(lambda s, sd: s**2 / (sd**2 + s**2)), "swapped"),
        (_toward(lambda s, sd: sd / (sd + s)), "made of standard deviations"),
        (_toward(lambda s, sd: sd**2 / (sd**2 + s)), "s stands in the share unsquared"),
        (_toward(lambda s, sd: sd / (sd + s**2)), "std stands in the share unsquared"),
        (_toward(lambda s, sd: sd**2 / s**2), "sum of both variances"),
        (lambda noisy, s, m, sd: sd**2 / (sd**2 + s**2) * noisy[:, None], "towards 0"),
        (lambda noisy, s, m, sd: m.expand(len(noisy), -1), "before any x~"),
        (lambda noisy, s, m, sd: noisy[:, None].expand(-1, len(m)), "x~ again"),
        (lambda noisy, s, m, sd: (noisy[:, None] + m) / 2, "halfway"),
        (lambda noisy, s, m, sd: m + sd**2 / (sd**2 + s**2) * (m - noisy[:, None]), "turned round"),
        (lambda noisy, s, m, sd: m / sd**2 + noisy[:, None] / s**2, "precisions"),
        (lambda noisy, s, m, sd: repair_means(noisy, s, m, sd).T, "shape is (3, 2), expected (2, 3)"),
        (lambda noisy, s, m, sd: m + sd**2 / (sd**2 + s**2) * (noisy - m), "RuntimeError"),
    ],
    "denoising.weights": [
        (lambda x, s, w, m, sd: _normal(x, m, _wide(sd, s)).softmax(1), "have no say"),
        (lambda x, s, w, m, sd: w.expand(len(x), -1), "before x~ was seen"),
        (lambda x, s, w, m, sd: (w.log() + _normal(x, m, sd)).softmax(1), "not std^2."),
        (lambda x, s, w, m, sd: (w.log() + _normal(x, m, s)).softmax(1), "noise alone"),
        (lambda x, s, w, m, sd: (w.log() + _normal(x, m, sd + s)).softmax(1), "add the standard deviations"),
        (lambda x, s, w, m, sd: (w.log() + _normal(x, m, sd**2 + s**2)).softmax(1), "stands for a standard deviation"),
        (
            lambda x, s, w, m, sd: (w.log() - (x[:, None] - m) ** 2 / (2 * (sd**2 + s**2))).softmax(1),
            "of the normal density is missing",
        ),
        (
            lambda x, s, w, m, sd: (w.log() - _wide(sd, s).log() - ((x[:, None] - m) / _wide(sd, s)) ** 2).softmax(1),
            "lacks its 1/2",
        ),
        (lambda x, s, w, m, sd: w * _normal(x, m, _wide(sd, s)).exp(), "rows do not sum"),
        (lambda x, s, w, m, sd: (w.log() + _normal(x, m, _wide(sd, s))).softmax(0), "columns sum"),
        (lambda x, s, w, m, sd: (w.log() + _normal(x, m, _wide(sd, s))).log_softmax(1), "these are logarithms"),
        (lambda x, s, w, m, sd: (w + _normal(x, m, _wide(sd, s))).softmax(1), "take its logarithm"),
        (
            lambda x, s, w, m, sd: F.normalize(w * _normal(x, m, _wide(sd, s)).exp(), p=1, eps=0.0),
            "values are NaN",  # in the far case alone
        ),
    ],
    "denoising.draw": [
        (lambda w, m, sd, u, eps: repair_draw(F.one_hot(w.argmax(1), 3), m, sd, u, eps), "likeliest"),
        (lambda w, m, sd, u, eps: (w * m).sum(1), "no draw in it"),
        (lambda w, m, sd, u, eps: (w * (m + sd * eps[:, None])).sum(1), "averages over"),
        (lambda w, m, sd, u, eps: _at(m, _chosen(w, u)), "noise is missing"),
        (lambda w, m, sd, u, eps: _at(m, _chosen(w, u)) + eps, "not scaled"),
        (lambda w, m, sd, u, eps: _at(m, _chosen(w, u)) + sd[_chosen(w, u)] ** 2 * eps, "spread squared"),
        (lambda w, m, sd, u, eps: _at(m, _chosen(w, u)) - sd[_chosen(w, u)] * eps, "taken off"),
        (lambda w, m, sd, u, eps: repair_draw(w, m.roll(-1, 1), sd.roll(-1), u, eps), "one component too far"),
        (
            lambda w, m, sd, u, eps: m[torch.arange(len(u)), _chosen(w, u) - 1] + sd[_chosen(w, u) - 1] * eps,
            "one component short",
        ),
        (lambda w, m, sd, u, eps: repair_draw(w, m, sd, 1 - u, eps), "from the last component"),
        (lambda w, m, sd, u, eps: repair_draw(w[:1].expand(len(w), -1), m, sd, u, eps), "first row's weights"),
        (
            lambda w, m, sd, u, eps: m[range(len(u)), k := (w.cumsum(1) < u[:, None]).sum(1)] + sd[k] * eps,
            "IndexError",  # where rounding leaves the sum below u
        ),
        (lambda w, m, sd, u, eps: m[:, _chosen(w, u)] + sd[_chosen(w, u)] * eps, "shape is (4, 4), expected (4,)"),
    ],
    "denoising.step": [
        (lambda x, s, w, m, sd, z, u, e: _repaired(x, s, w, m, sd, u, e), "without having been damaged"),
        (lambda x, s, w, m, sd, z, u, e: x + s * z, "damaged copy; repair it"),
        (lambda x, s, w, m, sd, z, u, e: _repaired(x + s * z, s, w, m, sd, u, e, seen=x), "means are made from x"),
        (lambda x, s, w, m, sd, z, u, e: _repaired(x + s * z, s, w, m, sd, u, e, judged=x), "weights are made from x"),
        (lambda x, s, w, m, sd, z, u, e: _repaired(x, s, w, m, sd, u, e) + s * z, "repair first"),
        (lambda x, s, w, m, sd, z, u, e: _repaired(x + z, s, w, m, sd, u, e), "not scaled by s"),
        (
            lambda x, s, w, m, sd, z, u, e: _repaired(x + s * z, s, w, m, sd, u, e, spread=lambda sd, s: sd),
            "less is left open",
        ),
        (
            lambda x, s, w, m, sd, z, u, e: _repaired(x + s * z, s, w, m, sd, u, e, spread=lambda sd, s: s + 0 * sd),
            "that of the noise",
        ),
        (
            lambda x, s, w, m, sd, z, u, e: _repaired(
                x + s * z, s, w, m, sd, u, e, spread=lambda sd, s: _spread(sd, s) ** 2
            ),
            "is a variance",
        ),
        (lambda x, s, w, m, sd, z, u, e: _prior(w, m, sd, u, e), "new draws from the mixture"),
        (lambda x, s, w, m, sd, z, u, e: _repaired(x + s * z, s, w, m, sd, u, 0 * e), "ends without noise"),
        (lambda x, s, w, m, sd, z, u, e: _repaired(x + s * e, s, w, m, sd, u, z), "swapped"),
        (lambda x, s, w, m, sd, z, u, e: repair_means(x + s * z, s, m, sd), "shape is (4, 3), expected (4,)"),
    ],
    "denoising.score": [
        (lambda noisy, s, clean: (noisy - clean) / s**2, "sign"),
        (lambda noisy, s, clean: (clean - noisy) / s, "divide by s;"),
        (lambda noisy, s, clean: clean - noisy, "divide it by s^2"),
        (lambda noisy, s, clean: (clean - noisy) * s**2, "multiply"),
        (lambda noisy, s, clean: (clean - noisy) / (2 * s**2), "cancels the 2"),
        (lambda noisy, s, clean: clean / s**2, "not taken off"),
        (lambda noisy, s, clean: -noisy / s**2, "noise about 0"),
        (lambda noisy, s, clean: (clean + noisy) / s**2, "you add"),
        (lambda noisy, s, clean: -((clean - noisy) ** 2) / (2 * s**2), "logarithm of a density"),
        (lambda noisy, s, clean: ((clean - noisy) / s**2).sum(), "shape is (), expected (4,)"),
    ],
    "denoising.loss": [
        (lambda a, x: -F.binary_cross_entropy_with_logits(a, x, reduction="none").sum(1), "sign"),
        (lambda a, x: F.binary_cross_entropy_with_logits(a, x, reduction="none").mean(1), "mean over the pixels"),
        (lambda a, x: -(x * F.logsigmoid(a)).sum(1), "black pixels alone"),
        (lambda a, x: -((1 - x) * F.logsigmoid(-a)).sum(1), "white pixels alone"),
        (lambda a, x: (F.softplus(a) - (1 - x) * a).sum(1), "black and white"),
        (lambda a, x: torch.where(x == 1, a.sigmoid(), 1 - a.sigmoid()).prod(1), "probability of the picture"),
        (lambda a, x: (F.softplus(a) - x * a).sum(1) / math.log(2), "these are bits"),
        (lambda a, x: ((x - a.sigmoid()) ** 2).sum(1), "squared distance"),
        (lambda a, x: F.binary_cross_entropy_with_logits(a.sigmoid(), x, reduction="none").sum(1), "taken twice"),
        (lambda a, x: -(x * a.sigmoid().log() + (1 - x) * (1 - a.sigmoid()).log()).sum(1), "floating point"),
        (lambda a, x: F.binary_cross_entropy(a.sigmoid(), x, reduction="none").sum(1), "at -100"),
        (lambda a, x: F.binary_cross_entropy_with_logits(a, x), "shape is (), expected (3,)"),
    ],
}


def _means_by_precision(noisy, s, m, sd):
    means = [[(v / s**2 + a / b**2) / (1 / s**2 + 1 / b**2) for a, b in zip(m, sd, strict=True)] for v in noisy]
    return torch.tensor(means)


def _draw_by_loop(w, m, sd, u, eps):
    drawn = []
    for row in range(len(u)):
        k, total = 0, w[row, 0]
        while total < u[row] and k < len(sd) - 1:
            k += 1
            total = total + w[row, k]
        drawn.append(m[row, k] + sd[k] * eps[row])
    return torch.stack(drawn)


def _score_by_autograd(noisy, s, clean):
    """The quadratic whose gradient at x~ it is."""
    x = noisy.clone().requires_grad_()
    return torch.autograd.grad(-((x - clean) ** 2).sum() / (2 * s**2), x)[0]


def _weights_by_torch(noisy, s, w, m, sd):
    law = MixtureSameFamily(Categorical(w), Normal(m, torch.hypot(sd, torch.tensor(s))))
    joint = law.mixture_distribution.logits + law.component_distribution.log_prob(noisy[:, None])
    return (joint - law.log_prob(noisy)[:, None]).exp()


OTHERS = {
    "denoising.damage": lambda x, s, z: torch.lerp(x, x + z, s),
    "denoising.means": _means_by_precision,
    "denoising.weights": _weights_by_torch,
    "denoising.draw": _draw_by_loop,
    "denoising.step": lambda x, s, w, m, sd, z, u, e: _repaired(damage(x, s, z), s, w, m, sd, u, e),
    "denoising.score": _score_by_autograd,
    "denoising.loss": lambda a, x: nn.BCEWithLogitsLoss(reduction="none")(a, x).sum(dim=-1),
}
