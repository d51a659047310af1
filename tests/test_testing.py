"""check_model passes over 100 correct models and catches each planted bug by the check meant for it.

The models are small and written here. A bug is a subclass that differs in one method, and the correct class beside it
passes, so nothing else is at fault. Seeds are fixed; over seeds a random check raises a false alarm about once in 1e6.
"""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genlib.contract import check_count, check_data, rand, randn
from genlib.models.density import KDE, KNN, BasisDensity, GaussianMixture, Histogram, NeuralCDF
from genlib.nets import mlp
from genlib.testing import CHECKS, ConformanceError, check_model

LOG_2PI = math.log(2 * math.pi)


def normal_log_prob(x, mu, log_sigma):
    return (-(((x - mu) / log_sigma.exp()) ** 2) / 2 - log_sigma - LOG_2PI / 2).sum(-1)


class Flow(nn.Module):
    """Anything with ``push`` (x to z) and ``pull`` (z to x), each with its log-determinant."""

    loss_is_nll, base = True, "normal"

    def __init__(self, dim):
        super().__init__()
        self.event_shape = (dim,)
        self.mu, self.log_sigma = nn.Parameter(torch.randn(dim)), nn.Parameter(0.3 * torch.randn(dim))

    def push(self, x):
        return (x - self.mu) * (-self.log_sigma).exp(), -self.log_sigma.sum().expand(len(x))

    def pull(self, z):
        return self.mu + z * self.log_sigma.exp(), self.log_sigma.sum().expand(len(z))

    def forward(self, x):
        return self.push(check_data(x, self.event_shape))

    def inverse(self, z):
        return self.pull(check_data(z, self.event_shape, "z"))

    def log_prob(self, x):
        z, logdet = self.forward(x)
        return -(z**2 + LOG_2PI).sum(1) / 2 + logdet

    def loss(self, x, generator=None):
        return -self.log_prob(x).mean()

    @torch.no_grad()
    def sample(self, n, generator=None):
        return self.inverse(randn(check_count(n), *self.event_shape, like=self.mu, generator=generator))[0]


class Affine(Flow):
    """``x = L z + mu`` with L lower triangular; its inverse is an autoregressive map in the natural order."""

    def __init__(self, dim):
        super().__init__(dim)
        self.lower, self.ordering = nn.Parameter(0.5 * torch.randn(dim, dim)), range(dim)

    def matrix(self):
        return self.lower.tril(-1) + torch.diag(self.log_sigma.exp())

    def push(self, x):
        z = torch.linalg.solve_triangular(self.matrix(), (x - self.mu).T, upper=False).T
        return z, -self.log_sigma.sum().expand(len(x))

    def pull(self, z):
        return z @ self.matrix().T + self.mu, self.log_sigma.sum().expand(len(z))


class Coupling(Flow):
    """Two affine couplings; the odd coordinates move, then the even ones."""

    def __init__(self, dim, start=1.0):
        super().__init__(dim)
        self.nets = nn.ModuleList(mlp(dim, 16, 2 * dim, activation=nn.Tanh) for _ in range(2))
        self.register_buffer("masks", torch.stack([torch.arange(dim) % 2, 1 - torch.arange(dim) % 2]))
        for net in self.nets:
            net[-1].weight.data *= start
            net[-1].bias.data *= start

    def steps(self, x, k):
        keep = self.masks[k].to(x.dtype)
        shift, scale = self.nets[k](x * keep).chunk(2, 1)
        return shift * (1 - keep), scale.tanh() * (1 - keep)

    def push(self, x):
        z, logdet = super().push(x)
        for k in (0, 1):
            shift, scale = self.steps(z, k)
            z, logdet = z * scale.exp() + shift, logdet + scale.sum(1)
        return z, logdet

    def pull(self, z):
        total = 0
        for k in (1, 0):
            shift, scale = self.steps(z, k)
            z, total = (z - shift) * (-scale).exp(), total - scale.sum(1)
        x, logdet = super().pull(z)
        return x, logdet + total


class Mixture(nn.Module):
    """Isotropic normals, ``sum_k pi_k N(mu_k, sigma_k^2 I)``."""

    loss_is_nll = True

    def __init__(self, dim, components=3, spread=2.0):
        super().__init__()
        self.event_shape = (dim,)
        self.logit, self.mu = (
            nn.Parameter(0.5 * torch.randn(components)),
            nn.Parameter(spread * torch.randn(components, dim)),
        )
        self.log_sigma = nn.Parameter(0.3 * torch.randn(components, 1))

    def log_prob(self, x):
        check_data(x, self.event_shape)
        return (self.logit.log_softmax(0) + normal_log_prob(x[:, None], self.mu, self.log_sigma)).logsumexp(1)

    def loss(self, x, generator=None):
        return -self.log_prob(x).mean()

    def pick(self, n, generator):
        return torch.searchsorted(self.logit.softmax(0).cumsum(0)[:-1], rand(n, like=self.mu, generator=generator))

    @torch.no_grad()
    def sample(self, n, generator=None):
        k = self.pick(check_count(n), generator)
        return self.mu[k] + self.log_sigma.exp()[k] * randn(n, *self.event_shape, like=self.mu, generator=generator)


class Masked(nn.Module):
    """MADE with one hidden layer, direct connections and any ordering; ``levels`` values a coordinate.

    Two levels are 0.0 and 1.0, more are integers.
    """

    loss_is_nll = True

    def __init__(self, dim, levels=2, hidden=None):
        super().__init__()
        self.event_shape, self.levels, hidden = (dim,), levels, hidden or 4 * dim
        self.ordering = torch.randperm(dim).tolist()
        rank = torch.tensor(self.ordering).argsort()
        unit = torch.arange(hidden) % max(dim - 1, 1)
        self.register_buffer("mask_in", self.sees(unit, rank))
        self.register_buffer("mask_out", (rank[:, None] > unit).float().repeat_interleave(levels, 0))
        self.register_buffer("mask_skip", (rank[:, None] > rank).float().repeat_interleave(levels, 0))
        self.w, self.v = nn.Parameter(torch.randn(hidden, dim)), nn.Parameter(torch.randn(dim * levels, hidden) / 2)
        self.skip, self.b = nn.Parameter(torch.randn(dim * levels, dim) / 2), nn.Parameter(torch.randn(dim * levels))

    def sees(self, unit, rank):
        return (unit[:, None] >= rank).float()

    def logits(self, x):
        h = F.softplus(F.linear(x, self.w * self.mask_in))
        out = F.linear(h, self.v * self.mask_out, self.b) + F.linear(x, self.skip * self.mask_skip)
        return out.reshape(len(x), *self.event_shape, self.levels)

    def checked(self, x):
        if self.levels > 2 and isinstance(x, torch.Tensor) and x.dtype == torch.int64:
            if x.numel() and ((x < 0) | (x >= self.levels)).any():
                raise ValueError(f"x: expected levels 0 .. {self.levels - 1}")
            check_data(x.float(), self.event_shape)
            return x.to(self.w.dtype)
        if self.levels > 2:
            raise TypeError("x: expected int64 levels")
        check_data(x, self.event_shape)
        if not ((x == 0) | (x == 1)).all():
            raise ValueError("x: expected 0.0 and 1.0 alone")
        return x

    def log_prob(self, x):
        x = self.checked(x)
        return self.logits(x).log_softmax(-1).gather(-1, x.long()[..., None]).squeeze(-1).sum(1)

    def loss(self, x, generator=None):
        return -self.log_prob(x).mean()

    @torch.no_grad()
    def sample(self, n, generator=None):
        x = self.w.new_zeros(check_count(n), *self.event_shape)
        for i in self.ordering:
            steps = self.logits(x)[:, i].softmax(-1).cumsum(-1)[:, :-1]
            x[:, i] = (rand(n, 1, like=self.w, generator=generator) > steps).sum(1).to(x.dtype)
        return x if self.levels == 2 else x.long()


class IntegerMasked(Masked):
    """The same on integer levels, whose ``logits`` take integers too."""

    def logits(self, x):
        return super().logits(x.to(self.w.dtype))


class LinearVAE(nn.Module):
    """``x = W z + b + sigma e``: log p(x) is a normal's. ``error`` moves the encoder off the exact posterior."""

    def __init__(self, dim, latent=2, error=0.0):
        super().__init__()
        self.event_shape, self.latent = (dim,), latent
        self.w = nn.Parameter(torch.linalg.qr(torch.randn(dim, latent))[0] * 1.5)
        self.b, self.log_sigma = nn.Parameter(torch.randn(dim)), nn.Parameter(torch.tensor(-0.5))
        precision = 1 + 1.5**2 / math.exp(-1.0)
        self.a = nn.Parameter(self.w.data.T / math.exp(-1.0) / precision + error * torch.randn(latent, dim))
        self.logvar = nn.Parameter(-math.log(precision) + error * torch.randn(latent))

    def encode(self, x):
        return (check_data(x, self.event_shape) - self.b) @ self.a.T, self.logvar.expand(len(x), -1)

    def decode(self, z):
        return check_data(z, (self.latent,), "z") @ self.w.T + self.b

    def log_likelihood(self, x, z):
        return normal_log_prob(x, z @ self.w.T + self.b, self.log_sigma)

    def noisy(self, x, k, generator):
        mu, logvar = self.encode(x)
        return mu + (logvar / 2).exp() * randn(k, *mu.shape, like=mu, generator=generator), mu, logvar

    def kl(self, mu, logvar):
        return (mu**2 + logvar.exp() - logvar - 1).sum(1) / 2

    def elbo(self, x, generator=None):
        z, mu, logvar = self.noisy(x, 1, generator)
        return self.log_likelihood(x, z[0]) - self.kl(mu, logvar)

    def log_weights(self, x, k, generator):
        z, mu, logvar = self.noisy(x, check_count(k, "k"), generator)
        prior = normal_log_prob(z, torch.zeros_like(mu), torch.zeros_like(mu))
        return self.log_likelihood(x, z) + prior - normal_log_prob(z, mu, logvar / 2)

    def log_prob_bound(self, x, k, generator=None):
        return self.log_weights(x, k, generator).logsumexp(0) - math.log(k)

    def log_prob(self, x):
        cov = self.w @ self.w.T + (2 * self.log_sigma).exp() * torch.eye(len(self.b)).to(self.b)
        return torch.distributions.MultivariateNormal(self.b, cov).log_prob(check_data(x, self.event_shape))

    def loss(self, x, generator=None):
        return -self.elbo(x, generator).mean()

    @torch.no_grad()
    def sample(self, n, generator=None):
        z = randn(check_count(n), self.latent, like=self.b, generator=generator)
        return self.decode(z) + self.log_sigma.exp() * randn(n, *self.event_shape, like=self.b, generator=generator)


class BinaryVAE(LinearVAE):
    """Binary data and no tractable ``log_prob``: the bounds have only each other, and the sum over the states."""

    levels, log_prob = 2, None

    def encode(self, x):
        if not ((check_data(x, self.event_shape) == 0) | (x == 1)).all():
            raise ValueError("x: expected 0.0 and 1.0 alone")
        return super().encode(x)

    def log_likelihood(self, x, z):
        logit = (z @ self.w.T + self.b) * (-self.log_sigma).exp()
        return (x * logit - F.softplus(logit)).sum(-1)

    @torch.no_grad()
    def sample(self, n, generator=None):
        z = randn(check_count(n), self.latent, like=self.b, generator=generator)
        odds = (self.decode(z) * (-self.log_sigma).exp()).sigmoid()
        return (rand(n, *self.event_shape, like=self.b, generator=generator) < odds).to(self.b.dtype)


class TinyGAN(nn.Module):
    """Non-saturating, or Wasserstein with a penalty on the critic's slope along a straight line."""

    def __init__(self, dim, wasserstein=False):
        super().__init__()
        self.event_shape, self.wasserstein = (dim,), wasserstein
        self.generator, self.critic = mlp(2, 8, dim), mlp(dim, 8, 1)

    def make(self, n, generator):
        return self.generator(randn(check_count(n), 2, like=self.generator[0].weight, generator=generator))

    def fakes(self, n, generator):
        return self.make(n, generator).detach()

    def critic_loss(self, x, generator=None):
        fake = self.fakes(len(check_data(x, self.event_shape)), generator)
        if not self.wasserstein:
            return F.softplus(-self.critic(x)).mean() + F.softplus(self.critic(fake)).mean()
        t = rand(len(x), 1, like=x, generator=generator)
        point = (t * x + (1 - t) * fake).detach().requires_grad_()
        (slope,) = torch.autograd.grad(self.critic(point).sum(), point, create_graph=True)
        return (self.critic(fake) - self.critic(x)).mean() + 10 * ((slope.norm(dim=1) - 1) ** 2).mean()

    def generator_loss(self, n, generator=None):
        score = self.critic(self.make(n, generator))
        return -score.mean() if self.wasserstein else F.softplus(-score).mean()

    @torch.no_grad()
    def sample(self, n, generator=None):
        return self.make(n, generator)


class TinyAutoencoder(nn.Module):
    """No ``sample``, no density: only shapes, inputs, batches and gradients can be checked."""

    def __init__(self, dim):
        super().__init__()
        self.event_shape = (dim,)
        self.encoder, self.decoder = mlp(dim, 8, 2), mlp(2, 8, dim)

    def encode(self, x):
        return self.encoder(check_data(x, self.event_shape))

    def decode(self, z):
        return self.decoder(check_data(z, (2,), "z"))

    def loss(self, x, generator=None):
        return (self.decode(self.encode(x)) - x).square().sum(1).mean()


class Pareto:
    """``p(x, y) = 1 / (x y)^2`` above one: tails without a mean, and a jump at the edges."""

    event_shape = (2,)

    def log_prob(self, x):
        check_data(x, self.event_shape)
        return torch.where((x > 1).all(1), -2 * x.clamp_min(1).log().sum(1), -math.inf)

    def sample(self, n, generator=None):
        like = torch.empty(0, dtype=torch.float64)
        return 1 / (1 - rand(check_count(n), 2, like=like, generator=generator))


def bits(dim, n=16):
    return torch.randint(0, 2, (n, dim)).float()


def reals(dim, n=16):
    return 1.5 * torch.randn(n, dim)


def fitted(name, dim):
    x = torch.cat([torch.randn(150, dim), 0.5 * torch.randn(150, dim) + 2])
    if name == "neural":
        return NeuralCDF(16), (x - x.mean()) / x.std()
    build = {"histogram": lambda: Histogram(7), "risk": Histogram, "kde": KDE, "knn": lambda: KNN(5)}
    build |= {"mixture": lambda: GaussianMixture(2), "basis": BasisDensity, "kde32": lambda: KDE(0.4)}
    x = x if name == "kde32" else x.double()
    return build[name]().fit(x), x[::20]


def far(dim, gap, share):
    x = torch.randn(400, dim, dtype=torch.float64)
    x[int(400 * share) :] += gap
    return GaussianMixture(2).fit(x), x[:9]


CORRECT = {}
for s in range(3):
    CORRECT |= {f"gauss-{d}-{s}": (lambda d=d: (Flow(d), reals(d)), s) for d in (1, 2, 3, 5, 9)}
    CORRECT |= {f"affine-{d}-{s}": (lambda d=d: (Affine(d), reals(d)), s) for d in (2, 3, 7)}
    CORRECT |= {f"coupling-{d}-{s}": (lambda d=d: (Coupling(d), reals(d)), s) for d in (2, 3, 6, 13)}
    CORRECT |= {f"mixture-{d}-{s}": (lambda d=d: (Mixture(d), reals(d)), s) for d in (1, 2, 3, 5)}
    CORRECT |= {f"made-{d}-{s}": (lambda d=d: (Masked(d), bits(d)), s) for d in (3, 5, 12, 21)}
    CORRECT |= {f"levels-{d}-{s}": (lambda d=d: (IntegerMasked(d, 4), torch.randint(0, 4, (16, d))), s) for d in (3, 7)}
    CORRECT |= {
        f"vae-{d}-{s}": (lambda d=d, e=e: (LinearVAE(d, error=e), reals(d)), s) for d, e in ((3, 0.0), (7, 0.1))
    }
    CORRECT |= {f"binary-vae-{s}": (lambda: (BinaryVAE(5), bits(5)), s)}
    CORRECT |= {f"gan-{w}-{s}": (lambda w=w: (TinyGAN(3, w), reals(3)), s) for w in (False, True)}
    CORRECT |= {f"fit-{k}-{s}": (lambda k=k: fitted(k, 1), s) for k in ("histogram", "basis", "neural", "kde")}
CORRECT |= {
    "double": (lambda: (Coupling(3).double(), reals(3).double()), 0),
    "zero-start": (lambda: (Coupling(5, start=0.0), reals(5)), 0),
    "far-modes": (lambda: (Mixture(2, 4, spread=12.0), reals(2)), 0),
    "far-modes-1": (lambda: (Mixture(1, 4, spread=30.0), reals(1)), 0),
    "autoencoder": (lambda: (TinyAutoencoder(5), reals(5)), 0),
    "fit-risk-1": (lambda: fitted("risk", 1), 0),
    "fit-kde-2": (lambda: fitted("kde", 2), 0),
    "fit-knn-3": (lambda: fitted("knn", 3), 0),
}
CORRECT |= {f"fit-mixture-{d}": (lambda d=d: fitted("mixture", d), 0) for d in (1, 2, 3)}
CORRECT |= {
    f"far-{d}-{gap}-{share}": (lambda d=d, gap=gap, share=share: far(d, gap, share), 0)
    for d in (1, 2)
    for gap in (50, 100, 300)
    for share in (0.5, 0.9)
}
CORRECT |= {f"pareto-{s}": (lambda: (Pareto(), Pareto().sample(9)), s) for s in range(2)}
# Sorted draws against sorted uniforms: a larger batch has less noise, so this loss depends on the batch's size.
SKIPS = {"neural": ["loss_mean"]}


def build(name):
    make, seed = CORRECT[name]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def test_there_are_a_hundred_correct_models():
    assert len(CORRECT) >= 100


@pytest.mark.parametrize("name", CORRECT)
def test_no_false_alarm(name):
    model, x = build(name)
    ran = check_model(model, x, skip=SKIPS.get(name.split("-")[1] if "fit" in name else "", ()))
    assert {"shapes", "bad_input", "global_state", "evaluation", "batch"} <= set(ran) or name.startswith("gan")


def test_every_check_runs_on_some_correct_model():
    names = ["coupling-3-0", "gauss-2-0", "made-5-0", "affine-3-0", "vae-3-0", "gan-True-0"]
    ran = set().union(*(check_model(*build(name)) for name in names))
    assert ran == set(CHECKS) - {"device"}  # which needs a second device


def test_options():
    model, x = build("coupling-3-0")
    assert "integral" not in check_model(model, x, skip=["samples", "logdet"])
    assert not {"samples", "logdet"} & set(check_model(model, x, skip=["samples", "logdet"]))
    assert "save_load" in check_model(model, x, fresh=lambda: Coupling(3))
    with pytest.raises(ValueError, match="skip: expected names among shapes.*got nonsense"):
        check_model(model, x, skip=["nonsense"])


ROWS = torch.ones(4, 3)
UNFIT = {
    "x": (None, [[1.0] * 3], ROWS.numpy(), "x", ROWS / 0, ROWS * math.nan, ROWS[:0], ROWS.long(), ROWS[0, 0]),
    "samples": (-5, 0, "a", 2.5, None),
    "seed": ("a", -1, 0.5, None),
    "tolerance": (math.nan, 0, -1, math.inf, "a", None),
    "skip": (None, "samples", 3, [3], ["nonsense"]),
    "fresh": (3, "a", ROWS),
    "model": (Flow, GaussianMixture, GaussianMixture(2), KDE(), None, "a", ROWS),
}


@pytest.mark.parametrize("name, bad", [(name, bad) for name, values in UNFIT.items() for bad in values])
def test_bad_arguments_are_refused_by_name(name, bad):
    arguments = {"model": Flow(3), "x": ROWS} | {name: bad}
    with pytest.raises((TypeError, ValueError), match=f"^{name}: expected"):
        check_model(**arguments)


def test_integers_are_data_where_there_are_levels():
    assert check_model(IntegerMasked(3, 4), torch.ones(4, 3).long())
    with pytest.raises(TypeError, match="^x: expected"):
        check_model(IntegerMasked(3, 4), torch.ones(4, 3).bool())


def test_a_state_on_the_edge_of_a_set_raises_no_false_alarm():
    """At this seed a set's edge falls on states, and rounding could put each of them on either side of it."""
    assert "samples" in check_model(*build("levels-7-1"), seed=6000)


def test_a_fresh_model_finds_a_buffer_that_is_not_saved():
    class Whitened(Flow):
        def __init__(self, dim):
            super().__init__(dim)
            self.register_buffer("shift", torch.randn(dim), persistent=False)

        def push(self, x):
            return super().push(x - self.shift)

        def pull(self, z):
            x, logdet = super().pull(z)
            return x + self.shift, logdet

    model, x = Whitened(3), reals(3)
    with pytest.raises(ConformanceError) as caught:
        check_model(model, x, fresh=lambda: Whitened(3))
    assert caught.value.check == "save_load"


def test_works_where_gradients_are_off():
    with torch.no_grad():
        assert "gradients" in check_model(*build("coupling-3-0"))


def test_the_callers_model_data_and_random_state_are_untouched():
    model, x = build("coupling-3-0")
    before = [copy.deepcopy(model.state_dict()), x.clone(), torch.get_rng_state(), model.training]
    check_model(model, x)
    assert all(torch.equal(v, before[0][k]) for k, v in model.state_dict().items())
    assert torch.equal(x, before[1]) and torch.equal(torch.get_rng_state(), before[2]) and model.training == before[3]
    assert all(p.grad is None for p in model.parameters())


# Planted bugs: name -> (the check meant for it, how to build the model, its data).
BUGS = {}


def bug(check, build, x):
    def register(change):
        BUGS[change.__name__] = check, build, x, change
        return change

    return register


def broken(name):
    """A class with the bug's methods on top of the correct one, built by the same line."""
    check, build, x, change = BUGS[name]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        good = build()
        data = x()
        bad = copy.deepcopy(good)
        bad.__class__ = type(name, (change, type(good)), {})
        if hasattr(change, "plant"):
            bad.plant()
    return check, good, bad, data


FLOW, PLANE, MADE5 = lambda: Coupling(5), lambda: Coupling(2), lambda: Masked(5)  # noqa: E731
R1, R2, R3, R5, B5 = ((lambda f=f, d=d: f(d)) for f, d in ((reals, 1), (reals, 2), (reals, 3), (reals, 5), (bits, 5)))
VAE3 = lambda: LinearVAE(3, error=0.2)  # noqa: E731


@bug("integral", lambda: Mixture(2), R2)
class FivePercentTooMuch:
    def log_prob(self, x):
        return super().log_prob(x) + math.log(1.05)


@bug("integral", lambda: Mixture(1), R1)
class OnePercentTooLittle:
    def log_prob(self, x):
        return super().log_prob(x) - math.log(1.01)


@bug("samples", lambda: Mixture(5), R5)
class FivePercentTooMuchBeyondTheGrid:
    def log_prob(self, x):
        return super().log_prob(x) + math.log(1.05)


class Wider:
    def sample(self, n, generator=None):
        return self.mu + 1.1 * (super().sample(n, generator) - self.mu)


for dim in (1, 2, 5):
    BUGS[f"SampleTenPercentWider{dim}"] = "samples", lambda dim=dim: Flow(dim), lambda dim=dim: reals(dim), Wider


@bug("samples", lambda: Mixture(2), R2)
class MixtureWeightsIgnored:
    def pick(self, n, generator):
        return (rand(n, like=self.mu, generator=generator) * len(self.mu)).long()


class Dropped:
    def pick(self, n, generator):
        return super().pick(n, generator).clamp(max=len(self.mu) - 2)


for dim in (1, 2, 5):
    BUGS[f"ModeDropped{dim}"] = "samples", lambda dim=dim: Mixture(dim), lambda dim=dim: reals(dim), Dropped


class FarModeNotInTheDensity:
    def log_prob(self, x):
        return torch.where(check_data(x)[:, 0] > 20, -(x**2).sum(1), super().log_prob(x))


class FarModeOfDensityZero:
    def log_prob(self, x):
        return super().log_prob(x).where(x[:, 0] < 20, -math.inf)


class FarModesTenPercentTooMuch:
    def log_prob(self, x):
        return super().log_prob(x) + math.log(1.1)


for change in (FarModeNotInTheDensity, FarModeOfDensityZero, FarModesTenPercentTooMuch):
    for dim in (1, 2):
        parts = ((lambda dim=dim, i=i: far(dim, 300, 0.9)[i]) for i in (0, 1))
        BUGS[f"{change.__name__}{dim}"] = "samples", *parts, change


@bug("samples", lambda: Affine(2), R2)
class SampleWithoutCorrelation:
    def sample(self, n, generator=None):
        std = self.matrix().square().sum(1).sqrt()
        return (self.mu + std * randn(check_count(n), 2, like=self.mu, generator=generator)).detach()


@bug("samples", lambda: Affine(5), R5)
class SampleColumnsSwapped:
    def sample(self, n, generator=None):
        return super().sample(n, generator).flip(1)


@bug("samples", MADE5, B5)
class SampleForgetsTheLastCoordinate:
    def sample(self, n, generator=None):
        x = super().sample(n, generator)
        x[:, -1] = (rand(n, like=self.w, generator=generator) < 0.5).to(x.dtype)
        return x


@bug("samples", lambda: Masked(21), lambda: bits(21))
class SampleForgetsWithManyStates:
    def sample(self, n, generator=None):
        x = super().sample(n, generator)
        x[:, self.ordering[-1]] = (rand(n, like=self.w, generator=generator) < 0.5).to(x.dtype)
        return x


@bug("masses", MADE5, B5)
class MassesSumToPoint99:
    def log_prob(self, x):
        return super().log_prob(x) + math.log(0.99)


@bug("round_trip", FLOW, R5)
class LogdetSign:
    def forward(self, x):
        z, logdet = super().forward(x)
        return z, -logdet


@bug("logdet", FLOW, R5)
class LogdetSignBothWays:
    def push(self, x):
        z, logdet = super().push(x)
        return z, -logdet

    def pull(self, z):
        x, logdet = super().pull(z)
        return x, -logdet


@bug("logdet", FLOW, R5)
class LogdetMissesOneTerm:
    def push(self, x):
        z, logdet = super().push(x)
        return z, logdet + self.log_sigma[0]

    def pull(self, z):
        x, logdet = super().pull(z)
        return x, logdet - self.log_sigma[0]


@bug("round_trip", lambda: Flow(5), R5)
class InverseRightInTwoDimensionsOnly:
    """De-interleaves on the way in and never puts the coordinates back: the identity for two of them."""

    def pull(self, z):
        x, logdet = super().pull(z)
        return torch.cat([x[:, ::2], x[:, 1::2]], 1), logdet


@bug("base", FLOW, R5)
class LogProbForgetsTheConstant:
    def log_prob(self, x):
        z, logdet = self.forward(x)
        return -(z**2).sum(1) / 2 + logdet


@bug("batch", FLOW, R5)
class BatchStatistics:
    def push(self, x):
        return super().push(x - x.mean(0) + self.mu)


@bug("batch", FLOW, R5)
class DependsOnTheOrderOfRows:
    def log_prob(self, x):
        return super().log_prob(x) + 1e-3 * torch.arange(len(x)).to(x)


@bug("same_generator", FLOW, R5)
class GeneratorIgnored:
    def sample(self, n, generator=None):
        return super().sample(n)


@bug("new_noise", FLOW, R5)
class SeededInside:
    def sample(self, n, generator=None):
        return super().sample(n, torch.Generator().manual_seed(0))


@bug("new_noise", FLOW, R5)
class SeededWithoutGenerator:
    def sample(self, n, generator=None):
        return super().sample(n, generator or torch.Generator().manual_seed(0))


@bug("global_state", FLOW, R5)
class GlobalSeedSet:
    def sample(self, n, generator=None):
        torch.manual_seed(0)
        return super().sample(n, generator)


@bug("global_state", FLOW, R5)
class GlobalNoiseInTheLoss:
    def loss(self, x, generator=None):
        return super().loss(x) + 0 * torch.rand(()).to(x)


@bug("global_state", FLOW, R5)
class GradientsLeftOff:
    def log_prob(self, x):
        out = super().log_prob(x)
        if not check_data(x, self.event_shape).requires_grad:
            torch.set_grad_enabled(False)
        return out


@bug("bad_input", lambda: Mixture(3), R3)
class NaNPassesInSilence:
    def log_prob(self, x):
        if isinstance(x, torch.Tensor) and x.is_floating_point() and x.shape[1:] == self.event_shape and len(x):
            return (self.logit.log_softmax(0) + normal_log_prob(x[:, None], self.mu, self.log_sigma)).logsumexp(1)
        return super().log_prob(x)


@bug("bad_input", lambda: Mixture(3), R3)
class EmptyBatchAccepted:
    def log_prob(self, x):
        return x[:, 0] if isinstance(x, torch.Tensor) and x.shape == (0, 3) else super().log_prob(x)


@bug("bad_input", lambda: Mixture(3), R3)
class IntegersAccepted:
    def log_prob(self, x):
        return super().log_prob(x.to(self.mu.dtype) if isinstance(x, torch.Tensor) else x)


@bug("bad_input", lambda: Mixture(3), R3)
class WrongWidthBroadcast:
    def log_prob(self, x):
        return super().log_prob(x[:, :3] if isinstance(x, torch.Tensor) and x.ndim == 2 else x)


@bug("bad_input", lambda: Mixture(3), R3)
class ZeroSamples:
    def sample(self, n, generator=None):
        return super().sample(n, generator) if n else self.mu[:0].detach()


@bug("bad_input", lambda: Mixture(3), R3)
class ErrorWithoutTheArgumentsName:
    def log_prob(self, x):
        try:
            return super().log_prob(x)
        except ValueError:
            raise ValueError("bad input") from None


@bug("bad_input", MADE5, B5)
class HalfALevelAccepted:
    def checked(self, x):
        return super().checked((check_data(x, self.event_shape) > 0.4).to(x.dtype))


@bug("bad_input", VAE3, R3)
class ZeroImportanceSamples:
    def log_prob_bound(self, x, k, generator=None):
        return super().log_prob_bound(x, max(k, 1), generator)


@bug("shapes", FLOW, R5)
class ColumnOfLogProbs:
    def log_prob(self, x):
        return super().log_prob(x)[:, None]


@bug("shapes", FLOW, R5)
class LossNotReduced:
    def loss(self, x, generator=None):
        return -self.log_prob(x)


@bug("shapes", FLOW, R5)
class WrongEventShape:
    def plant(self):
        self.event_shape = 5


@bug("precision", FLOW, R5)
class AlwaysFloat32:
    def log_prob(self, x):
        return super().log_prob(x).float()


@bug("precision", FLOW, R5)
class TensorThatDoesNotMove:
    def plant(self):
        self.shift = torch.zeros(5, 5)

    def log_prob(self, x):
        return super().log_prob(x + x @ self.shift)


@bug("gradients", FLOW, R5)
class DetachedNetwork:
    def steps(self, x, k):
        shift, scale = super().steps(x, k)
        return (shift.detach(), scale.detach()) if k else (shift, scale)


@bug("gradients", FLOW, R5)
class ParameterNeverUsed:
    def plant(self):
        self.spare = nn.Parameter(torch.ones(3))


@bug("loss", FLOW, R5)
class LossWithoutGradient:
    def loss(self, x, generator=None):
        return super().loss(x).detach()


@bug("loss_mean", FLOW, R5)
class LossSummed:
    loss_is_nll = False

    def loss(self, x, generator=None):
        return super().loss(x) * len(x)


@bug("loss_mean", VAE3, R3)
class RandomLossSummed:
    def loss(self, x, generator=None):
        return super().loss(x, generator) * len(x)


@bug("likelihood_loss", FLOW, R5)
class LossInBits:
    def loss(self, x, generator=None):
        return super().loss(x) / math.log(2)


@bug("evaluation", FLOW, R5)
class EvaluationMovesWeights:
    def log_prob(self, x):
        out = super().log_prob(x)
        self.mu.data += 1e-6
        return out


@bug("evaluation", FLOW, R5)
class EvaluationEditsTheData:
    def log_prob(self, x):
        out = super().log_prob(x).detach()
        x.mul_(1 + 1e-6)
        return out


@bug("save_load", FLOW, R5)
class ShiftNotSaved:
    def plant(self):
        self.shift = torch.ones(())

    def push(self, x):
        z, logdet = super().push(x)
        return z + self.shift.to(z), logdet

    def pull(self, z):
        return super().pull(z - self.shift.to(z))


@bug("autoregressive_mask", MADE5, B5)
class SeesItself:
    def plant(self):
        self.mask_skip += torch.eye(5).repeat_interleave(2, 0)


@bug("autoregressive_reach", MADE5, B5)
class MissesAnEarlierInput:
    def plant(self):
        rank = torch.tensor(self.ordering)
        self.mask_in[:, rank[1]] = 0
        self.mask_skip[:, rank[1]] = 0


@bug("autoregressive_mask", lambda: Affine(5), R5)
class FlowInTheWrongOrder:
    def plant(self):
        self.ordering = range(4, -1, -1)


@bug("bounds", VAE3, R3)
class KLSignFlipped:
    def kl(self, mu, logvar):
        return -super().kl(mu, logvar)


@bug("bounds", VAE3, R3)
class KLForgotten:
    def kl(self, mu, logvar):
        return 0.0 * super().kl(mu, logvar)


@bug("bounds", VAE3, R3)
class BoundFallsWithK:
    def log_prob_bound(self, x, k, generator=None):
        return self.log_weights(x, k, generator).amin(0)


@bug("bounds", VAE3, R3)
class BoundForgetsLogK:
    def log_prob_bound(self, x, k, generator=None):
        return self.log_weights(x, k, generator).logsumexp(0)


@bug("bounds", lambda: BinaryVAE(5, error=0.2), B5)
class BoundForgetsLogKWithoutLogProb:
    log_prob_bound = BoundForgetsLogK.log_prob_bound


@bug("two_player", lambda: TinyGAN(3), R3)
class CriticTrainsTheGenerator:
    def fakes(self, n, generator):
        return self.make(n, generator)


@bug("two_player", lambda: TinyGAN(3, True), R3)
class GeneratorCutOff:
    def generator_loss(self, n, generator=None):
        return self.critic(self.fakes(n, generator)).mean()


@bug("latent", lambda: TinyAutoencoder(5), R5)
class OneCodeForTheBatch:
    def decode(self, z):
        return super().decode(z)[:, :4]

    def loss(self, x, generator=None):
        return (self.decode(self.encode(x)) - x[:, :4]).square().sum(1).mean()


@pytest.mark.parametrize("name", BUGS)
def test_each_planted_bug_is_caught_by_its_check(name):
    check, good, bad, x = broken(name)
    check_model(good, x)
    with pytest.raises(ConformanceError) as caught:
        check_model(bad, x)
    assert caught.value.check == check
    assert all((caught.value.reproduce, caught.value.seen, caught.value.expected))
    assert check in str(caught.value) and caught.value.seen in str(caught.value)


def test_there_are_twenty_planted_bugs_for_nearly_every_check():
    assert len(BUGS) >= 20
    assert {check for check, *_ in BUGS.values()} == set(CHECKS) - {"device"}
