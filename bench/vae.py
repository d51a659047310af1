"""A VAE, 784 - 400 - 20 - 400 - 784, beside pythae: the same networks, weights and noise."""

import functools
import math
from copy import deepcopy

import torch
import torch.nn.functional as F
from scipy.special import logsumexp

from bench import Case, three_steps
from genlib import data
from genlib.models.vae import VAE
from genlib.nets import mlp


def networks():
    torch.manual_seed(0)
    return mlp(784, 400, 40), mlp(20, 400, 784)


def peer(encoder, decoder):
    """Pythae's VAE around two networks."""
    from pythae.models import VAE as Peer
    from pythae.models import VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):
        def forward(self, x):
            mu, logvar = self.network(x).chunk(2, 1)
            return ModelOutput(embedding=mu, log_covariance=logvar)

    class Decoder(BaseDecoder):
        def forward(self, z):
            return ModelOutput(reconstruction=self.network(z).sigmoid())

    parts = Encoder(), Decoder()
    parts[0].network, parts[1].network = encoder, decoder
    return Peer(VAEConfig(input_dim=(784,), latent_dim=20, reconstruction_loss="bce"), *parts)


def plain_loss(encoder, decoder, x):
    mu, logvar = encoder(x).chunk(2, 1)
    z = mu + (logvar / 2).exp() * torch.randn_like(mu)
    kl = (mu.square() + logvar.exp() - 1 - logvar).sum() / 2
    return (F.binary_cross_entropy_with_logits(decoder(z), x, reduction="sum") + kl) / len(x)


def step(x):
    """Training steps of Adam; a run is three of them, and its numbers are their losses."""

    def trained(make):
        def start():
            loss, parameters = make(*deepcopy(networks()))
            return loss, torch.optim.Adam(parameters, 1e-3)

        return three_steps(start)

    def ours(encoder, decoder):
        model = VAE(encoder, decoder, 20)
        return lambda: model.loss(x), model.parameters()

    def plain(encoder, decoder):
        return lambda: plain_loss(encoder, decoder, x), [*encoder.parameters(), *decoder.parameters()]

    def theirs(encoder, decoder):
        model = peer(encoder, decoder)
        return lambda: model({"data": x}).loss, model.parameters()

    runs = {"genlib": trained(ours), "plain torch": trained(plain), "pythae": trained(theirs)}

    def truth():
        """In float64, by the formulas, with the noise of float32."""
        torch.manual_seed(0)
        encoder, decoder = (network.double() for network in networks())
        torch.manual_seed(0)
        noise = [torch.randn(len(x), 20).double() for _ in range(3)]
        optimiser = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 1e-3)
        losses = []
        for eps in noise:
            mu, logvar = encoder(x.double()).chunk(2, 1)
            p = decoder(mu + (logvar / 2).exp() * eps).sigmoid()
            likelihood = (x * p.log() + (1 - x) * (1 - p).log()).sum(1)
            normal = torch.distributions.Normal(mu, (logvar / 2).exp())
            kl = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum(1)
            optimiser.zero_grad()
            loss = (kl - likelihood).mean()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        return losses

    what = f"VAE, three training steps, batches of {len(x)}"
    return Case(what, runs, truth, 1e-5)


def bound(x, k: int) -> Case:
    encoder, decoder = networks()
    model = VAE(encoder, decoder, 20)

    def plain():
        mu, logvar = encoder(x).chunk(2, 1)
        eps = torch.randn(k, *mu.shape)
        z = mu + (logvar / 2).exp() * eps
        ratio = (eps.square() - z.square() + logvar).sum(2) / 2
        likelihood = -F.binary_cross_entropy_with_logits(decoder(z), x.expand(k, -1, -1), reduction="none").sum(2)
        return ((likelihood + ratio).logsumexp(0) - math.log(k)).mean()

    @functools.cache
    def theirs():
        return peer(encoder, decoder)

    def truth():
        """In float64, one row after another, with other noise: they agree as far as the bounds have converged."""
        wide_encoder, wide_decoder, total = deepcopy(encoder).double(), deepcopy(decoder).double(), 0.0
        generator = torch.Generator().manual_seed(1)
        for row in x.double():
            mu, logvar = wide_encoder(row).chunk(2)
            q = torch.distributions.Normal(mu, (logvar / 2).exp())
            z = mu + q.scale * torch.randn(10 * k, 20, generator=generator, dtype=torch.float64)
            p = torch.distributions.Bernoulli(logits=wide_decoder(z), validate_args=False)
            prior = torch.distributions.Normal(0.0, 1.0).log_prob(z)
            weights = p.log_prob(row).sum(1) + (prior - q.log_prob(z)).sum(1)
            total += float(logsumexp(weights.numpy())) - math.log(10 * k)
        return total / len(x)

    runs = {
        "genlib": lambda: model.log_prob_bound(x, k).mean(),
        "plain torch": plain,
        "pythae": lambda: theirs().get_nll(x, n_samples=k, batch_size=min(k, 100)),
    }
    runs = {name: torch.no_grad()(run) for name, run in runs.items()}
    remark = "The noise differs, so the numbers agree as far as that many codes allow."
    return Case(f"VAE, bound of {len(x)} rows with {k} codes each", runs, torch.no_grad()(truth), 1e-3, remark)


def cases(small: bool = False):
    x = data.digits(binary=True).train.x.flatten(1)
    yield step(x[: 16 if small else 128])
    yield bound(x[: 10 if small else 20], 200 if small else 500)
