"""Bad input at every public door: each fault is refused with a typed error that names the argument, and nothing is NaN.

Two tables, of data and of counts, each crossed with every entry of the library that takes such an argument.
"""

import math
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from genlib import data, metrics, plots
from genlib.course import check
from genlib.models.autoencoders import Autoencoder, DenoisingAutoencoder, gaussian_noise
from genlib.models.density import KDE, KNN, BasisDensity, GaussianMixture, Histogram, NeuralCDF
from genlib.models.vae import VAE, ConditionalVAE, HierarchicalVAE
from genlib.nets import mlp
from genlib.testing import check_model
from genlib.training import train, train_adversarial

GOOD = {d: torch.randn(40, d, generator=torch.Generator().manual_seed(d), dtype=torch.float64) for d in (1, 2, 3)}

FAULTS = {  # in place of x (N, D)
    "None": (lambda d: None, TypeError),
    "a list": (lambda d: GOOD[d].tolist(), TypeError),
    "an array": (lambda d: GOOD[d].numpy(), TypeError),
    "a number": (lambda d: 1.5, TypeError),
    "a string": (lambda d: "x", TypeError),
    "whole numbers": (lambda d: GOOD[d].long(), TypeError),
    "booleans": (lambda d: GOOD[d] > 0, TypeError),
    "complex": (lambda d: GOOD[d].to(torch.complex128), TypeError),
    "no rows": (lambda d: GOOD[d][:0], ValueError),
    "no columns": (lambda d: GOOD[d][:, :0], ValueError),
    "too many dimensions": (lambda d: GOOD[d][None], ValueError),
    "too few dimensions": (lambda d: GOOD[d][0], ValueError),
    "a scalar": (lambda d: GOOD[d].sum(), ValueError),
    "NaN": (lambda d: torch.where(GOOD[d] > 1, math.nan, GOOD[d]), ValueError),
    "infinity": (lambda d: torch.where(GOOD[d] > 1, math.inf, GOOD[d]), ValueError),
}
WIDER = {"another width": (lambda d: torch.cat([GOOD[d], GOOD[d]], 1), ValueError)}


class Pair(torch.nn.Module):
    """The least model of two players."""

    event_shape = (3,)

    def __init__(self):
        super().__init__()
        self.generator, self.critic = mlp(3, 3).double(), mlp(3, 1).double()

    def critic_loss(self, x, generator=None):
        return self.critic(x).mean()

    def generator_loss(self, n, generator=None):
        return -self.critic(self.generator(GOOD[3][:n])).mean()


def fitted():
    return {
        "Histogram": (Histogram(4).fit(GOOD[3]), 3),
        "KDE": (KDE(0.5).fit(GOOD[3]), 3),
        "KNN": (KNN(3).fit(GOOD[3]), 3),
        "GaussianMixture": (GaussianMixture(2).fit(GOOD[3]), 3),
        "BasisDensity": (BasisDensity().fit(GOOD[1]), 1),
        "NeuralCDF": (NeuralCDF(4).double(), 1),
    }


MODELS = fitted()
NARROW = Autoencoder(mlp(3, 2), mlp(2, 3)).double()
DENOISER = DenoisingAutoencoder(mlp(3, 7), gaussian_noise(0.5)).double()
CODER = VAE(mlp(3, 4), mlp(2, 3), 2, "gaussian").double()
LEVELS = HierarchicalVAE([mlp(3, 4), mlp(2, 4)], [mlp(2, 3), mlp(2, 4)], (2, 2), "gaussian").double()
TAKES_DATA = {  # entry: the call, the width it wants, and whether it knows that width
    "Histogram().fit": (Histogram().fit, 3, False),
    "Histogram.risk": (lambda x: Histogram.risk(x, [2, 3]), 3, False),
    "KDE().fit": (KDE().fit, 3, False),
    "KDE.leave_one_out": (lambda x: KDE.leave_one_out(x, [0.5]), 3, False),
    "KNN(3).fit": (KNN(3).fit, 3, False),
    "GaussianMixture(2).fit": (GaussianMixture(2).fit, 3, False),
    "BasisDensity().fit": (BasisDensity().fit, 1, True),
    "BasisDensity.risk": (lambda x: BasisDensity.risk(x, [2]), 1, True),
    **{f"{name}.log_prob": (model.log_prob, d, True) for name, (model, d) in MODELS.items()},
    "NeuralCDF.cdf": (MODELS["NeuralCDF"][0].cdf, 1, True),
    "NeuralCDF.loss": (MODELS["NeuralCDF"][0].loss, 1, True),
    "Autoencoder.encode": (NARROW.encode, 3, True),
    "Autoencoder.error": (NARROW.error, 3, True),
    "Autoencoder.loss": (NARROW.loss, 3, True),
    "DenoisingAutoencoder.loss": (DENOISER.loss, 3, True),
    "DenoisingAutoencoder.chain": (lambda x: DENOISER.chain(x, 2), 3, True),
    "DenoisingAutoencoder.log_prob_given": (lambda x: DENOISER.log_prob_given(x, GOOD[3]), 3, True),
    **{f"VAE.{name}": (getattr(CODER, name), 3, True) for name in ("encode", "kl", "elbo", "loss", "posterior")},
    "VAE.log_prob_bound": (lambda x: CODER.log_prob_bound(x, 2), 3, True),
    **{f"HierarchicalVAE.{name}": (getattr(LEVELS, name), 3, True) for name in ("encode", "kl", "elbo", "loss")},
    "HierarchicalVAE.log_prob_bound": (lambda x: LEVELS.log_prob_bound(x, 2), 3, True),
    "metrics.nll": (partial(metrics.nll, MODELS["KDE"][0]), 3, True),
    "data.toy_log_prob": (partial(data.toy_log_prob, "moons"), 2, True),
    "plots.points": (lambda x: plots.points(plots.panels()[1], x), 2, True),
    "train": (lambda x: next(train(MODELS["NeuralCDF"][0], x, 1)), 1, True),
    "train_adversarial": (lambda x: next(train_adversarial(Pair(), x, 1)), 3, True),
}
DATA_CASES = [
    pytest.param(call, d, *fault, id=f"{entry}-{name}")
    for entry, (call, d, knows) in TAKES_DATA.items()
    for name, fault in (FAULTS | (WIDER if knows else {})).items()
    if not (entry.startswith("train") and name == "whole numbers")  # levels, as the pixel models take
]

COUNTS = {
    "None": (None, TypeError),
    "a fraction": (2.5, TypeError),
    "a whole float": (2.0, TypeError),
    "a string": ("2", TypeError),
    "a boolean": (True, TypeError),
    "a list": ([2], TypeError),
    "NaN": (math.nan, TypeError),
    "infinity": (math.inf, TypeError),
    "a tensor of a fraction": (torch.tensor(2.5), TypeError),
    "a tensor of two": (torch.tensor([2, 3]), TypeError),
    "an array of a fraction": (np.array(2.5), TypeError),
    "negative": (-1, ValueError),
    "zero": (0, ValueError),
}
TAKES_COUNT = {  # entry: the call, the argument's name, and the values that mean something there
    "Histogram": (Histogram, "bins", (None,)),
    "KNN": (KNN, "k", ()),
    "GaussianMixture": (GaussianMixture, "components", ()),
    "BasisDensity": (BasisDensity, "terms", (None, 0)),
    "NeuralCDF": (NeuralCDF, "hidden", ()),
    **{f"{k}.sample": (m.sample, "n", ()) for k, (m, _) in MODELS.items() if hasattr(m, "sample")},
    "DenoisingAutoencoder.chain": (partial(DENOISER.chain, GOOD[3]), "steps", ()),
    "DenoisingAutoencoder": (lambda n: DenoisingAutoencoder(mlp(3, 7), len, walkback=n), "walkback", (0,)),
    "VAE": (lambda n: VAE(mlp(3, 4), mlp(2, 3), n), "latent_dim", ()),
    "ConditionalVAE": (lambda n: ConditionalVAE(mlp(5, 4), mlp(4, 3), 2, n), "classes", ()),
    "HierarchicalVAE": (lambda n: HierarchicalVAE([mlp(3, 4)], [mlp(2, 3)], (n,)), "latent_dims", ()),
    **{f"{type(m).__name__}.sample": (m.sample, "n", ()) for m in (CODER, LEVELS)},
    **{f"{type(m).__name__}.log_prob_bound": (partial(m.log_prob_bound, GOOD[3]), "k", ()) for m in (CODER, LEVELS)},
    "two_sample_test": (partial(metrics.two_sample_test, GOOD[3], GOOD[3]), "permutations", ()),
    "toy": (partial(data.toy, "moons"), "n", ()),
    "mlp": (lambda n: mlp(3, n, 1), "sizes", ()),
    "panels, rows": (plots.panels, "rows", ()),
    "panels, cols": (partial(plots.panels, 1), "cols", ()),
    "images": (partial(plots.images, torch.zeros(2, 1, 4, 4)), "cols", ()),
    "train, steps": (partial(train, NeuralCDF(4).double(), GOOD[1]), "steps", ()),
    "train, batch_size": (partial(train, NeuralCDF(4).double(), GOOD[1], 1), "batch_size", ()),
    "train_adversarial, steps": (partial(train_adversarial, Pair(), GOOD[3]), "steps", ()),
    "train_adversarial, critic_steps": (
        lambda n: train_adversarial(Pair(), GOOD[3], 1, critic_steps=n),
        "critic_steps",
        (),
    ),  # fmt: skip
}
COUNT_CASES = [
    pytest.param(call, name, value, error, id=f"{entry}-{fault}")
    for entry, (call, name, allowed) in TAKES_COUNT.items()
    for fault, (value, error) in COUNTS.items()
    if not any(value is a for a in allowed)
]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.mark.parametrize("call, d, fault, error", DATA_CASES)
def test_bad_data_is_refused(call, d, fault, error):
    with pytest.raises(error, match="^x: .*expected"):
        call(fault(d))


@pytest.mark.parametrize("call, name, value, error", COUNT_CASES)
def test_bad_counts_are_refused(call, name, value, error):
    with pytest.raises(error, match=f"^{name}: .*expected"):
        call(value)


def test_the_tables_are_as_wide_as_they_claim():
    assert len(FAULTS) >= 10 and len(COUNTS) >= 10 and len(TAKES_DATA) + len(TAKES_COUNT) >= 40


@pytest.mark.parametrize("entry", TAKES_DATA)
def test_good_data_is_taken_and_gives_no_nan(entry):
    call, d, _ = TAKES_DATA[entry]
    answer = call(GOOD[d])
    if isinstance(answer, torch.Tensor):
        assert not answer.isnan().any()


@pytest.mark.parametrize(
    "name", [None, 3, "", "density", "kde", "density.", "density.KDE", "vqvae.kl", ["density.kde"], b"density.kde", 1.5]
)
def test_an_unknown_gap_is_refused(name):
    with pytest.raises((TypeError, ValueError), match="^name: .*expected"):
        check(name, lambda: None)


@pytest.mark.parametrize("skip", ["sample", ["sample"], ("nothing",)])
def test_check_model_refuses_an_unknown_check(skip):
    with pytest.raises(ValueError, match="^skip: .*expected"):
        check_model(MODELS["KDE"][0], GOOD[3], skip=skip)
