"""Train on two processes with torchrun, many times, and compare with one process.

    python tests/stress/ddp.py --runs 50

Each run starts ``torchrun --nproc-per-node 2`` on this file. It must exit cleanly, without a warning about the process
group; its weights must be those of one process within 1e-5, and those of both ranks equal to the bit. They also
resume a checkpoint, train two players, draw noise, and meet a loss that is infinite on one rank only.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import nn

from genlib.nets import mlp
from genlib.training import cosine, train, train_adversarial

STEPS = 60


class Fit(nn.Module):
    """A loss without noise."""

    event_shape = (5,)

    def __init__(self):
        super().__init__()
        self.net = mlp(5, 16, 5, activation=nn.Tanh)

    def loss(self, x, generator=None):
        return ((self.net(x) - x) ** 2).sum(1).mean()


class Denoise(Fit):
    """A loss that keeps the first noise it drew."""

    noise = None

    def loss(self, x, generator=None):
        noise = torch.randn(x.shape, generator=generator)
        self.noise = noise if self.noise is None else self.noise
        return super().loss(x + noise)


class Players(nn.Module):
    event_shape = (5,)

    def __init__(self):
        super().__init__()
        self.generator, self.critic = mlp(2, 16, 5), mlp(5, 16, 1)

    def sample(self, n, generator=None):
        return self.generator(torch.randn(n, 2, generator=generator))

    def critic_loss(self, x, generator=None):
        return self.critic(self.sample(len(x), generator)).mean() - self.critic(x).mean()

    def generator_loss(self, n, generator=None):
        return -self.critic(self.sample(n, generator)).mean()


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def data():
    """43 rows in batches of 7: shares of 4 and 3, and at the end of an epoch of 1 and 0."""
    return torch.randn(43, 5, generator=torch.Generator().manual_seed(7))


def fit(seed=0, **options):
    torch.manual_seed(seed)  # a rank with another seed must end with rank 0's weights all the same
    model, generator = Fit(), torch.Generator().manual_seed(3 + seed)
    return model, train(model, data(), STEPS, 7, 1e-2, schedule=cosine, generator=generator, **options)


def worker(folder):
    """What each rank does; what it finds is written for the parent, as the process group is gone by then."""
    dist.init_process_group("gloo")
    try:
        found, rank = {}, dist.get_rank()
        model, run = fit(seed=rank)
        found["losses"] = torch.tensor([step.loss for step in run])
        found["whole"] = weights(model)
        for stop in (25, STEPS):
            model, run = fit(seed=rank, checkpoint=folder / "run.safetensors", checkpoint_every=7)
            for step in run:
                if step.number == stop:
                    break
            dist.barrier()  # a new run may read the file only when rank 0 has written it
        found["resumed"] = weights(model)
        model = Denoise()
        for _ in train(model, data(), 3, 7):
            pass
        found["noise"] = model.noise
        model = Players()
        for _ in train_adversarial(model, data(), 5, 7, critic_steps=2):
            pass
        found["players"] = weights(model)
        x, seen = data(), 0
        x[17] *= 1e30  # its square is infinite: one rank meets it
        try:
            for step in train(Fit(), x, 20, 7, generator=torch.Generator().manual_seed(1)):
                seen = step.number
        except FloatingPointError as error:
            found["stopped"] = torch.tensor([seen + 1, int(f"step {seen + 1}:" in str(error))])
        save_file(found, folder / f"{rank}.safetensors")
    finally:
        dist.destroy_process_group()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--worker", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.worker:
        return worker(args.worker)
    model, run = fit()
    losses = torch.tensor([step.loss for step in run])
    clean, apart, began = 0, 0.0, time.monotonic()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for i in range(args.runs):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
            done = subprocess.run(
                [*command, __file__, "--worker", folder], env=environment, capture_output=True, text=True, timeout=300
            )
            if done.returncode or "destroy_process_group" in done.stderr:
                sys.exit(f"FAILED: run {i} exited with {done.returncode}\n{done.stderr[-4000:]}")
            clean += 1
            zero, one = (load_file(Path(folder) / f"{rank}.safetensors") for rank in (0, 1))
        for name in ("whole", "losses", "resumed", "players", "stopped"):
            if not torch.equal(zero[name], one[name]):
                sys.exit(f"FAILED: run {i}, the ranks differ in {name}")
        if not torch.equal(zero["whole"], zero["resumed"]):
            sys.exit(f"FAILED: run {i}, the resumed run ended with other weights")
        if zero["noise"].shape == one["noise"].shape and torch.equal(zero["noise"], one["noise"]):
            sys.exit(f"FAILED: run {i}, both ranks drew the same noise")
        if not zero["stopped"][1]:
            sys.exit(f"FAILED: run {i}, the step of a loss that is not finite is not named")
        apart = max(apart, float((zero["whole"] - weights(model)).abs().max()))
        apart = max(apart, float((zero["losses"] - losses).abs().max()))
        if apart > 1e-5:
            sys.exit(f"FAILED: run {i}, two processes are {apart:.1e} from one")
    print(
        f"{clean} of {args.runs} runs of two processes exited cleanly; largest difference from one process {apart:.1e}"
    )
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
