"""Autoencoders against PCA and SciPy; the denoising chain against exact posteriors."""

import math

import numpy as np
import pytest
import torch
from scipy import linalg, stats
from torch import nn

from genlib import data, metrics
from genlib.contract import seeded
from genlib.models.autoencoders import Autoencoder, DenoisingAutoencoder, gaussian_noise, salt_and_pepper
from genlib.nets import mlp
from genlib.testing import check_model
from genlib.training import train


def points(n, d, seed=0):
    return torch.randn(n, d, generator=seeded(seed), dtype=torch.float64)


def bits(n, d):
    return (torch.rand(n, d, generator=seeded()) < 0.4).double()


def small(likelihood, d=5, **options):
    torch.manual_seed(0)
    return Autoencoder(mlp(d, 7, 2), mlp(2, 7, d), likelihood, **options).double()


# --- the narrow one --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood, x", [("gaussian", points(9, 5)), ("bernoulli", bits(9, 5))])
def test_conformance(likelihood, x):
    assert len(check_model(small(likelihood), x)) > 5


def test_conformance_on_images():
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Conv2d(1, 3, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(27, 3))
    decoder = nn.Sequential(nn.Linear(3, 49))
    assert check_model(Autoencoder(encoder, decoder, event_shape=(1, 7, 7)), points(8, 49).reshape(8, 1, 7, 7))


def test_the_error_is_the_negative_log_likelihood():
    x, model = points(6, 5), small("gaussian")
    mean = model.decode(model.encode(x)).detach().numpy()
    nats = -stats.norm(mean).logpdf(x.numpy()).sum(1) - 5 / 2 * math.log(2 * math.pi)
    assert model.error(x).detach().numpy() == pytest.approx(nats, rel=1e-12)
    x, model = bits(6, 5), small("bernoulli")
    nats = -stats.bernoulli(model.decode(model.encode(x)).detach().numpy()).logpmf(x.numpy()).sum(1)
    assert model.error(x).detach().numpy() == pytest.approx(nats, rel=1e-10)
    assert model.loss(x).item() == pytest.approx(nats.mean(), rel=1e-10)


def angle_to_pca(code, seed=0):
    """The largest principal angle, in degrees, between what a trained linear autoencoder spans and PCA's plane."""
    x = data.digits().train.x[:1000].flatten(1)
    x = (x - x.mean(0)) @ torch.linalg.eigh((x - x.mean(0)).T @ (x - x.mean(0)))[1][:, -20:]
    torch.manual_seed(seed)
    model = Autoencoder(nn.Linear(20, code, bias=False), nn.Linear(code, 20, bias=False))
    for _ in train(model, x, steps=1500, batch_size=1000, lr=1e-2):
        pass
    components = linalg.svd(x.numpy(), full_matrices=False)[2][:code]
    return np.degrees(linalg.subspace_angles(model.decoder.weight.detach().numpy(), components.T).max())


def test_a_linear_autoencoder_spans_the_plane_of_pca():
    assert angle_to_pca(3) < 1


def test_pca_of_data_that_is_not_centred_is_another_plane(monkeypatch):
    right = Autoencoder.error
    monkeypatch.setattr(Autoencoder, "error", lambda self, x: right(self, x + 5))
    assert angle_to_pca(3) > 1


# --- the denoising one -----------------------------------------------------------------------------------------------


def denoiser(likelihood="gaussian", d=3, components=2, **options):
    torch.manual_seed(0)
    outputs = d if likelihood == "bernoulli" else components * (1 + 2 * d)
    corruption = salt_and_pepper(0.3) if likelihood == "bernoulli" else gaussian_noise(0.5)
    return DenoisingAutoencoder(mlp(d, 8, outputs), corruption, likelihood, **options).double()


@pytest.mark.parametrize("likelihood, x", [("gaussian", points(9, 3)), ("bernoulli", bits(9, 3))])
@pytest.mark.parametrize("walkback", [0, 2])
def test_conformance_of_the_denoiser(likelihood, x, walkback):
    assert len(check_model(denoiser(likelihood, walkback=walkback), x)) > 5


def test_log_prob_given_is_scipys():
    model, x, noisy = denoiser(), points(6, 3), points(6, 3, 1)
    logits, mu, logvar = model.network(noisy).detach().reshape(6, 2, 7).split([1, 3, 3], -1)
    weights, mu, scale = np.exp(logits[..., 0].numpy()), mu.numpy(), np.exp(logvar.numpy() / 2)
    weights /= weights.sum(1, keepdims=True)
    each = stats.norm(mu, scale).pdf(x[:, None].numpy()).prod(2)
    assert model.log_prob_given(x, noisy).detach().numpy() == pytest.approx(np.log((weights * each).sum(1)))
    assert model.denoise(noisy).detach().numpy() == pytest.approx((weights[..., None] * mu).sum(1))
    model, x = denoiser("bernoulli"), bits(6, 3)
    law = stats.bernoulli(model.denoise(noisy).detach().numpy())
    assert model.log_prob_given(x, noisy).detach().numpy() == pytest.approx(law.logpmf(x.numpy()).sum(1))


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_draws_have_the_moments_of_the_law(likelihood):
    model = denoiser(likelihood)
    noisy = points(1, 3).expand(40_000, 3)
    draws, n = model.sample_given(noisy, seeded()).detach(), 40_000
    mean = model.denoise(noisy[:1])[0]
    assert ((draws.mean(0) - mean).abs() < 5 * draws.std(0) / math.sqrt(n)).all()
    entropy = -model.log_prob_given(
        draws, noisy
    ).detach()  # against the density by quadrature, coordinate by coordinate
    if likelihood == "bernoulli":
        p = mean.detach().numpy()
        exact = stats.bernoulli(p).entropy().sum()
    else:
        more = model.sample_given(noisy, seeded(1)).detach()
        exact = -model.log_prob_given(more, noisy).mean().item()
    assert entropy.mean().item() == pytest.approx(exact, abs=6 * entropy.std().item() / math.sqrt(n))


class Exact(nn.Module):
    """The parameters of ``P(X | x~)`` for data from a Gaussian mixture of this spread and noise of variance s^2."""

    def __init__(self, means, spread, s):
        super().__init__()
        self.means, self.spread, self.s = means, spread, s

    def forward(self, noisy):
        total = self.spread**2 + self.s**2
        logits = -(noisy[:, None] - self.means).square().sum(2, keepdim=True) / (2 * total)
        mu = (self.spread**2 * noisy[:, None] + self.s**2 * self.means) / total
        logvar = torch.full_like(mu, math.log(self.spread**2 * self.s**2 / total))
        return torch.cat([logits, mu, logvar], 2).flatten(1)


MEANS = {1: torch.tensor([[-1.5], [1.0]]), 2: torch.tensor([[-1.5, 0.0], [1.0, 1.0], [1.0, -1.5]])}
SPREAD, S = 0.4, 1.0


def mixture(n, d, seed):
    g = seeded(seed)
    return MEANS[d][torch.randint(len(MEANS[d]), (n,), generator=g)] + SPREAD * torch.randn(n, d, generator=g)


@pytest.mark.parametrize("d", [1, 2])
def test_the_chain_of_the_exact_posterior_stays_at_the_law_of_the_data(d):
    """Started far away, 2,000 independent chains arrive there: the energy test does not reject."""
    model = DenoisingAutoencoder(Exact(MEANS[d], SPREAD, S), gaussian_noise(S), event_shape=(d,))
    end = model.chain(torch.full((2000, d), 5.0), 100, generator=seeded())[-1]
    assert metrics.two_sample_test(end, mixture(2000, d, 1), generator=seeded()) > 0.05


@pytest.mark.parametrize("bug", ["no spread", "twice the spread", "any component", "more damage"])
def test_a_planted_bug_in_the_chain_is_caught(bug):
    model = DenoisingAutoencoder(Exact(MEANS[2], SPREAD, S), gaussian_noise(S), event_shape=(2,))
    law = model.likelihood.parts
    model.likelihood.parts = {
        "no spread": lambda out: (*law(out)[:2], law(out)[2] - 20),
        "twice the spread": lambda out: (*law(out)[:2], law(out)[2] + 2 * math.log(2)),
        "any component": lambda out: ((0 * law(out)[0]).log_softmax(1), *law(out)[1:]),
    }.get(bug, law)
    if bug == "more damage":
        model.corruption = gaussian_noise(2.0)
    end = model.chain(torch.full((2000, 2), 5.0), 100, generator=seeded())[-1]
    assert metrics.two_sample_test(end, mixture(2000, 2, 1), generator=seeded()) <= 0.05


@pytest.mark.parametrize("d", [1, 2])
def test_a_trained_chain_has_the_law_of_the_data(d):
    torch.manual_seed(0)
    model = DenoisingAutoencoder(mlp(d, 64, 64, 3 * (1 + 2 * d)), gaussian_noise(S))
    before = model.chain(torch.zeros(500, d), 50, generator=seeded())[-1]
    for _ in train(model, mixture(20_000, d, 2), steps=3000, batch_size=512, lr=2e-3, generator=seeded()):
        pass
    end = model.chain(torch.zeros(2000, d), 100, generator=seeded())[-1]
    truth = mixture(2000, d, 1)
    assert metrics.two_sample_test(end, truth, generator=seeded()) > 0.05
    assert metrics.two_sample_test(before, truth, generator=seeded()) <= 0.05


def test_the_chain_hands_out_each_state():
    model, x = denoiser(), points(4, 3)
    states, noisy = (model.chain(x, 3, walkback=w, generator=seeded()) for w in (False, True))
    assert states.shape == noisy.shape == (3, 4, 3) and not states.requires_grad
    g = seeded()
    first = model.corruption(x, g)
    assert torch.equal(noisy[0], first) and torch.equal(states[0], model.sample_given(first, g).detach())
    assert torch.equal(noisy[1], model.corruption(states[0], g))


def test_walkback_trains_on_what_the_chain_does_to_x():
    plain, back = denoiser(), denoiser(walkback=2)
    x = points(6, 3)
    noisy = back.chain(x, 3, walkback=True, generator=seeded())
    losses = [-plain.log_prob_given(x, each).mean().item() for each in noisy]
    assert plain.loss(x, seeded()).item() == pytest.approx(losses[0], rel=1e-12)
    assert back.loss(x, seeded()).item() == pytest.approx(np.mean(losses), rel=1e-12)


def test_the_corruptions():
    x = torch.full((200_000,), 0.3)
    noisy = gaussian_noise(0.5)(x, seeded())
    assert noisy.mean().item() == pytest.approx(0.3, abs=0.005) and noisy.std().item() == pytest.approx(0.5, rel=0.01)
    salted = salt_and_pepper(0.4)(x, seeded())
    shares = [(salted == v).double().mean().item() for v in (0.0, 1.0, x[0])]
    assert shares == pytest.approx([0.2, 0.2, 0.6], abs=0.005)


@pytest.mark.parametrize(
    "call, error, name",
    [
        (lambda: Autoencoder(len, mlp(2, 5)), TypeError, "encoder"),
        (lambda: Autoencoder(mlp(5, 2), "decoder"), TypeError, "decoder"),
        (lambda: Autoencoder(nn.Flatten(), mlp(2, 5)), ValueError, "event_shape"),
        (lambda: Autoencoder(mlp(5, 2), mlp(2, 5), event_shape=(0,)), ValueError, "event_shape"),
        (lambda: Autoencoder(mlp(5, 2), mlp(2, 5), event_shape=(2.5,)), TypeError, "event_shape"),
        (lambda: Autoencoder(mlp(5, 2), mlp(2, 5), "normal"), ValueError, "likelihood"),
        (lambda: Autoencoder(mlp(5, 2), mlp(2, 4)).loss(torch.zeros(3, 5)), ValueError, "decoder"),
        (lambda: small("bernoulli").loss(points(3, 5)), ValueError, "x"),
        (lambda: DenoisingAutoencoder("network", gaussian_noise(1)), TypeError, "network"),
        (lambda: DenoisingAutoencoder(mlp(3, 7), 0.5), TypeError, "corruption"),
        (lambda: DenoisingAutoencoder(mlp(3, 7), gaussian_noise(1), walkback=-1), ValueError, "walkback"),
        (lambda: DenoisingAutoencoder(mlp(3, 8), gaussian_noise(1)).loss(torch.zeros(2, 3)), ValueError, "network"),
        (lambda: DenoisingAutoencoder(mlp(3, 6), len, "bernoulli").denoise(torch.zeros(2, 3)), ValueError, "network"),
        (lambda: denoiser("bernoulli").loss(points(3, 3)), ValueError, "x"),
        (lambda: denoiser().denoise(torch.zeros(2, 4).double()), ValueError, "noisy"),
        (lambda: denoiser().chain(points(2, 3), 0), ValueError, "steps"),
        (lambda: denoiser().chain(points(2, 3), 1, generator=3), TypeError, "generator"),
        (lambda: gaussian_noise(0), ValueError, "std"),
        (lambda: gaussian_noise("much"), TypeError, "std"),
        (lambda: salt_and_pepper(1.5), ValueError, "share"),
    ],
)
def test_bad_input_is_refused_and_named(call, error, name):
    with pytest.raises(error, match=rf"^{name}: expected"):
        call()
