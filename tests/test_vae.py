"""Variational autoencoders against linear-Gaussian models, whose likelihood and posterior are known, and all states."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

import genlib.models.vae as vae
from genlib.contract import seeded
from genlib.models.autoencoders import Autoencoder
from genlib.models.vae import VAE, ConditionalVAE, HierarchicalVAE
from genlib.nets import Likelihood, mlp
from genlib.testing import check_model
from genlib.training import train


def points(n, d, seed=0):
    return torch.randn(n, d, generator=seeded(seed), dtype=torch.float64)


def bits(n, d, seed=0):
    return (torch.rand(n, d, generator=seeded(seed)) < 0.4).double()


def small(likelihood="bernoulli", outputs=5, **options):
    torch.manual_seed(0)
    return VAE(mlp(5, 16, 6), mlp(3, 16, outputs), 3, likelihood, **options).double()


def tall(*dims):
    """A hierarchical VAE of 5 bits with these code widths from below."""
    torch.manual_seed(0)
    below = (5, *dims)
    encoders = [mlp(a, 8, 2 * b) for a, b in zip(below, dims, strict=False)]
    decoders = [mlp(dims[0], 8, 5), *(mlp(b, 8, 2 * a) for a, b in zip(dims, dims[1:], strict=False))]
    return HierarchicalVAE(encoders, decoders, dims).double()


def conditional():
    torch.manual_seed(0)
    return ConditionalVAE(mlp(9, 16, 6), mlp(7, 16, 5), 3, classes=4).double()


class OfClass(nn.Module):
    """A conditional VAE as a model of one class."""

    event_shape = (5,)

    def __init__(self):
        super().__init__()
        self.model = conditional()

    def label(self, x):
        return torch.full(x.shape[:1], 2) if isinstance(x, torch.Tensor) else None

    def loss(self, x, generator=None):
        return self.model.loss(x, generator, y=self.label(x))

    def elbo(self, x, generator=None):
        return self.model.elbo(x, generator, y=self.label(x))

    def log_prob_bound(self, x, k, generator=None):
        return self.model.log_prob_bound(x, k, generator, y=self.label(x))

    def sample(self, n, generator=None):
        return self.model.sample(n, generator, y=torch.full((max(n, 0),), 2) if isinstance(n, int) else None)


@pytest.mark.parametrize(
    "model, x",
    [
        (small(), bits(9, 5)),
        (small("gaussian"), points(9, 5)),
        (small("gaussian", 10), points(9, 5)),
        (small("gaussian", 22), points(9, 5)),
        (tall(3), bits(9, 5)),
        (tall(3, 2), bits(9, 5)),
        (tall(2, 4, 3), bits(9, 5)),
        (OfClass(), bits(9, 5)),
    ],
    ids=["bernoulli", "unit variance", "learned variance", "mixture", "one level", "two", "three", "conditional"],
)
def test_conformance(model, x):
    assert {"bounds", "save_load", "gradients", "bad_input"} <= set(check_model(model, x))


def test_conformance_on_images():
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Conv2d(1, 3, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(27, 6))
    decoder = nn.Sequential(nn.Linear(3, 27), nn.Unflatten(1, (3, 3, 3)), nn.ConvTranspose2d(3, 1, 3, stride=2))
    model = VAE(encoder, decoder, 3, event_shape=(1, 7, 7))
    assert check_model(model, bits(9, 49).reshape(9, 1, 7, 7).float())


# --- what the outputs say --------------------------------------------------------------------------------------------


def test_likelihoods_are_those_of_torch():
    x, out = points(4, 3), points(4, 21, 1)
    bernoulli = torch.distributions.Bernoulli(logits=out[:, :3])
    found = Likelihood("bernoulli", (3,)).log_prob(bits(4, 3), out[:, :3])
    torch.testing.assert_close(found, bernoulli.log_prob(bits(4, 3)).sum(1))
    gaussian = Likelihood("gaussian", (3,))
    torch.testing.assert_close(gaussian.log_prob(x, out[:, :3]), Normal(out[:, :3], 1.0).log_prob(x).sum(1))
    learned = Normal(out[:, :3], (out[:, 3:6] / 2).exp())
    torch.testing.assert_close(gaussian.log_prob(x, out[:, :6]), learned.log_prob(x).sum(1))
    parts = out.reshape(4, 3, 7)
    components = Independent(Normal(parts[..., 1:4], (parts[..., 4:] / 2).exp()), 1)
    mixture = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(logits=parts[..., 0]), components)
    torch.testing.assert_close(gaussian.log_prob(x, out), mixture.log_prob(x))
    torch.testing.assert_close(gaussian.mean(out), mixture.mean)
    many = gaussian.sample(out[:1].expand(200_000, 21), seeded())
    torch.testing.assert_close(many.mean(0), mixture.mean[0], atol=0.03, rtol=0)
    torch.testing.assert_close(many.var(0), mixture.variance[0], rtol=0.05, atol=0)


def test_leading_dimensions_broadcast():
    law, x, out = Likelihood("gaussian", (3,)), points(4, 3), points(10, 6, 1).reshape(5, 2, 6)
    found = law.log_prob(x[:2], out)
    assert found.shape == (5, 2)
    torch.testing.assert_close(found[3], law.log_prob(x[:2], out[3]))


# --- linear-Gaussian models ------------------------------------------------------------------------------------------

SIGMA = 0.4


def linear(weight, bias):
    layer = nn.Linear(weight.shape[1], len(weight), dtype=torch.float64)
    layer.weight.data, layer.bias.data = weight, bias
    return layer


def factor_model():
    """Two orthogonal factors in five dimensions with the exact encoder, and the exact law of x."""
    W = torch.linalg.qr(points(5, 2))[0] * torch.tensor([2.0, 0.7], dtype=torch.float64)
    mean, variance = points(1, 5, 1)[0], torch.full((5,), SIGMA**2, dtype=torch.float64)
    posterior = torch.linalg.inv(W.T @ W / SIGMA**2 + torch.eye(2, dtype=torch.float64))
    gain = posterior @ W.T / SIGMA**2
    zero = torch.zeros(2, 5, dtype=torch.float64)
    encoder = linear(torch.cat([gain, zero]), torch.cat([-gain @ mean, posterior.diag().log()]))
    decoder = linear(torch.cat([W, zero.T]), torch.cat([mean, variance.log()]))
    return VAE(encoder, decoder, 2, "gaussian"), MultivariateNormal(mean, W @ W.T + torch.diag(variance))


def chain_model():
    """z_2 -> z_1 -> x with one factor a level, and the exact law of x."""
    a, s, b = 1.3, 0.6, points(4, 1)
    precision_1 = 1 / (a**2 + s**2) + (b.T @ b / SIGMA**2).item()
    precision_2 = 1 + a**2 / s**2
    column = lambda *rows: torch.tensor(rows, dtype=torch.float64)  # noqa: E731
    climb_1 = linear(torch.cat([b.T / SIGMA**2 / precision_1, 0 * b.T]), column(0, -math.log(precision_1)))
    climb_2 = linear(column([a / s**2 / precision_2], [0]), column(0, -math.log(precision_2)))
    to_x = linear(torch.cat([b, 0 * b]), column(*[0] * 4, *[2 * math.log(SIGMA)] * 4))
    to_1 = linear(column([a], [0]), column(0, 2 * math.log(s)))
    model = HierarchicalVAE([climb_1, climb_2], [to_x, to_1], (1, 1), "gaussian")
    covariance = (a**2 + s**2) * b @ b.T + SIGMA**2 * torch.eye(4, dtype=torch.float64)
    return model, MultivariateNormal(torch.zeros(4, dtype=torch.float64), covariance)


def tight(model, law, k):
    """With the exact posterior every single weight p(x, z) / q(z | x) is p(x)."""
    x = law.sample((7,)) + 0.5
    torch.testing.assert_close(model.log_prob_bound(x, k, seeded()), law.log_prob(x), atol=1e-9, rtol=1e-9)
    draws = torch.stack([model.elbo(x, seeded(i)) for i in range(2000)])
    off, error = (draws.mean(0) - law.log_prob(x)).abs(), draws.std(0) / 2000**0.5
    assert (off < 5 * error).all() and error.max() < 0.1


MODELS = {"factors": factor_model, "chain": chain_model}


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("name", MODELS)
def test_with_the_exact_posterior_the_bounds_are_tight(name, k):
    torch.manual_seed(0)
    tight(*MODELS[name](), k)


BUGS = {
    "sign of the KL": ("_kl", lambda mu, logvar: -(mu.square() + logvar.exp() - 1 - logvar) / 2),
    "variance for its logarithm in the KL": ("_kl", lambda mu, logvar: (mu.square() + logvar - 1 - logvar.log()) / 2),
    "KL without its half": ("_kl", lambda mu, logvar: mu.square() + logvar.exp() - 1 - logvar),
    "logvar taken for log sigma": ("_draw", lambda mu, logvar, g, *k: mu + logvar.exp() * torch.randn(*k, *mu.shape)),
    "no noise": ("_draw", lambda mu, logvar, g, *k: mu.expand(*k, *mu.shape)),
    "variance counted twice": (
        "_log_normal",
        lambda z, mu, logvar: -((z - mu).square() / logvar.exp() + 2 * logvar) / 2,
    ),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_caught(name, bug, monkeypatch):
    monkeypatch.setattr(vae, *BUGS[bug])
    with pytest.raises(AssertionError):
        tight(*MODELS[name](), 1)


def test_the_gap_is_the_divergence_to_the_exact_posterior():
    model, law = factor_model()
    x = law.sample((7,))
    mu, logvar = model.posterior(x)
    exact = Independent(Normal(mu, (logvar / 2).exp()), 1)
    model.encoder.bias.data += torch.tensor([0.3, -0.2, 0.5, -0.4])
    mu, logvar = model.posterior(x)
    gap = kl_divergence(Independent(Normal(mu, (logvar / 2).exp()), 1), exact)
    assert gap.min() > 0.1
    draws = torch.stack([model.elbo(x, seeded(i)) for i in range(4000)])
    error = draws.std(0) / 4000**0.5
    assert (draws.mean(0) - (law.log_prob(x) - gap)).abs().max() < 5 * error.max()
    many = x.repeat(500, 1)
    bounds = [draws.mean().item(), *(model.log_prob_bound(many, k, seeded()).mean().item() for k in (5, 50, 500))]
    assert bounds == sorted(bounds) and 0 < law.log_prob(x).mean().item() - bounds[-1] < 0.01


def test_a_trained_linear_model_is_probabilistic_pca():
    """M. Tipping and C. Bishop, 1999: the maximum of the likelihood, from the eigenvalues of the covariance."""
    torch.manual_seed(0)
    x = points(2000, 5) @ points(5, 5, 3) + points(2000, 5, 4)
    eigenvalues = torch.linalg.eigvalsh(torch.cov(x.T, correction=0)).flip(0)
    noise = eigenvalues[2:].mean()
    best = -(5 * math.log(2 * math.pi) + eigenvalues[:2].log().sum() + 3 * noise.log() + 5) / 2

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.mean, self.logvar = nn.Linear(2, 5), nn.Parameter(torch.zeros(1))

        def forward(self, z):
            mean = self.mean(z)
            return torch.cat([mean, self.logvar.expand_as(mean)], 1)

    model = VAE(nn.Linear(5, 4), Decoder(), 2, "gaussian").double()
    for _ in train(model, x, 3000, 2000, 0.02, schedule=lambda t: 1 - t, generator=seeded()):
        pass
    with torch.no_grad():
        elbo = torch.stack([model.elbo(x, seeded(i)).mean() for i in range(50)]).mean()
    assert best - 0.01 < elbo < best + 0.01


# --- bits, enumerated ------------------------------------------------------------------------------------------------


def test_the_masses_of_all_states_sum_to_one():
    """One code on a fine grid gives p(x) of all 32 states; a bound of many draws comes near from below."""
    torch.manual_seed(0)
    model = VAE(mlp(5, 8, 2), mlp(1, 8, 5), 1).double()
    model.decoder[2].weight.data *= 6
    states = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 5)
    z = torch.linspace(-9, 9, 4001, dtype=torch.float64)[:, None]
    weights = Normal(0.0, 1.0).log_prob(z[:, 0]).exp() * (z[1] - z[0])
    mass = torch.distributions.Bernoulli(logits=model.decoder(z)[:, None]).log_prob(states).sum(-1).exp()
    p = weights @ mass
    assert p.sum().item() == pytest.approx(1, abs=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(model.log_prob_bound(states, 100_000, seeded()), p.log(), atol=0.02, rtol=0)
        drawn = model.sample(100_000, seeded())
        shares = (drawn[:, None] == states).all(2).double().mean(0)
    assert (shares - p).abs().max() < 5 * (p.max() / 100_000).sqrt()


def test_the_parts_of_a_bound_do_not_matter(monkeypatch):
    model, x = small(), bits(16, 5)
    whole = model.log_prob_bound(x, 6, seeded())
    monkeypatch.setattr(vae, "CHUNK", 2 * x.numel())
    torch.testing.assert_close(model.log_prob_bound(x, 6, seeded()), whole)


# --- the loss --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [small(), tall(3, 2)], ids=["vae", "hierarchical"])
def test_beta_and_free_bits(model):
    x = bits(9, 5)
    model.beta, model.free_bits = 1.0, 0.0
    plain = model.loss(x, seeded())
    torch.testing.assert_close(plain, -model.elbo(x, seeded()).mean())
    kl = model.kl(x, seeded()) if isinstance(model, HierarchicalVAE) else [model.kl(x)]
    units = torch.cat([level.mean(0) for level in kl])
    model.beta = 3.0
    free = units.median().item()
    if min(units) >= 0:
        torch.testing.assert_close(model.loss(x, seeded()) - plain, 2 * units.sum())
    model.beta, model.free_bits = 1.0, free
    torch.testing.assert_close(model.loss(x, seeded()) - plain, (units.clamp_min(free) - units).sum())
    assert free > units.min()


def test_units_below_the_free_bits_get_no_push_to_the_prior():
    model, x = small(free_bits=100.0), bits(9, 5)
    model.loss(x, seeded()).backward()
    pushed = model.encoder[2].bias.grad.clone()
    model.zero_grad()
    mu, logvar = model.posterior(x)
    torch.manual_seed(0)
    out = model.decoder(mu + (logvar / 2).exp() * torch.randn(9, 3, generator=seeded(), dtype=torch.float64))
    (-torch.distributions.Bernoulli(logits=out).log_prob(x).sum(1).mean()).backward()
    torch.testing.assert_close(model.encoder[2].bias.grad, pushed)


def test_without_noise_and_kl_it_is_an_autoencoder():
    x, model = points(9, 5), small("gaussian", beta=0.0)
    model.encoder[2].weight.data[3:], model.encoder[2].bias.data[3:] = 0, -80
    means = linear(model.encoder[2].weight.data[:3], model.encoder[2].bias.data[:3])
    encoder = nn.Sequential(*model.encoder[:2], means)
    autoencoder = Autoencoder(encoder, model.decoder)
    torch.testing.assert_close(model.loss(x, seeded()), autoencoder.loss(x) + 5 / 2 * math.log(2 * math.pi))


# --- labels ----------------------------------------------------------------------------------------------------------


def test_labels_are_learned():
    """Class 0 has its bits mostly off, class 1 mostly on: what is drawn for a label is like its class."""
    torch.manual_seed(0)
    y = torch.randint(2, (2000,), generator=seeded())
    x = (torch.rand(2000, 5, generator=seeded()) < torch.where(y == 1, 0.9, 0.1)[:, None]).float()
    model = ConditionalVAE(mlp(7, 16, 4), mlp(4, 16, 5), 2, classes=2)
    for _ in train(model, x, 300, 128, 1e-2, y=y, generator=seeded()):
        pass
    drawn = model.sample(4000, seeded(), y=torch.arange(4000) % 2).reshape(2000, 2, 5).mean((0, 2))
    assert drawn[0].item() == pytest.approx(0.1, abs=0.03) and drawn[1].item() == pytest.approx(0.9, abs=0.03)
    other = model.elbo(x, seeded(), y=1 - y).mean()
    assert model.elbo(x, seeded(), y=y).mean() > other + 3
    assert model.decode(torch.zeros(2, 2), torch.tensor([0, 1])).mean(1).diff() > 0.5


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: VAE(len, mlp(3, 5), 3), TypeError, "encoder: expected"),
        (lambda: VAE(mlp(5, 6), "decoder", 3), TypeError, "decoder: expected"),
        (lambda: VAE(mlp(5, 6), mlp(3, 5), 0), ValueError, "latent_dim: expected"),
        (lambda: VAE(mlp(5, 6), mlp(3, 5), 3, "normal"), ValueError, "likelihood: expected"),
        (lambda: VAE(mlp(5, 6), mlp(3, 5), 3, beta=-1), ValueError, "beta: expected"),
        (lambda: VAE(mlp(5, 6), mlp(3, 5), 3, beta="1"), TypeError, "beta: expected"),
        (lambda: VAE(mlp(5, 6), mlp(3, 5), 3, free_bits=math.inf), ValueError, "free_bits: expected"),
        (lambda: VAE(nn.Flatten(), mlp(3, 5), 3), ValueError, "event_shape: expected"),
        (lambda: VAE(mlp(5, 7), mlp(3, 5), 3).loss(torch.zeros(2, 5)), ValueError, "encoder: expected 6 outputs"),
        (lambda: VAE(mlp(5, 6), mlp(3, 4), 3).loss(torch.zeros(2, 5)), ValueError, "network: expected 5 outputs"),
        (lambda: small().loss(points(3, 5)), ValueError, "x: expected values from 0 to 1"),
        (lambda: small().decode(points(3, 4)), ValueError, "z: expected shape"),
        (lambda: small().sample(0), ValueError, "n: expected"),
        (lambda: small().elbo(bits(3, 5), 3), TypeError, "generator: expected"),
        (lambda: small().log_prob_bound(bits(3, 5), 0), ValueError, "k: expected"),
        (lambda: small().loss(bits(3, 5), y=torch.zeros(3).long()), TypeError, "y: expected None"),
        (lambda: conditional().loss(bits(3, 5)), TypeError, "y: expected a tensor of whole numbers"),
        (lambda: conditional().loss(bits(3, 5), y=torch.zeros(3)), TypeError, "y: expected a tensor of whole numbers"),
        (lambda: conditional().loss(bits(3, 5), y=torch.tensor([0, 1])), ValueError, "y: expected 3 labels"),
        (lambda: conditional().loss(bits(3, 5), y=torch.tensor([0, 1, 4])), ValueError, "y: expected 3 labels"),
        (lambda: conditional().sample(3), TypeError, "y: expected a tensor of whole numbers"),
        (lambda: HierarchicalVAE([mlp(5, 6)], [], (3,)), ValueError, "decoders: expected"),
        (lambda: HierarchicalVAE([], [], ()), ValueError, "encoders: expected"),
        (lambda: tall(3, 2).kl(points(3, 5)), ValueError, "x: expected values from 0 to 1"),
        (lambda: tall(3, 2).decode(points(3, 3)), ValueError, "z: expected shape"),
    ],
)
def test_bad_input_is_refused_and_named(call, error, words):
    with pytest.raises(error, match=f"^{words}"):
        call()
