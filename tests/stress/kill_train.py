"""Kill a training run at random moments, many times, and see that nothing is lost.

    python tests/stress/kill_train.py --kills 200
    python tests/stress/kill_train.py --kills 200 --planted-bug        # checkpoints written in place: this must fail

Each run is a process of its own, killed with SIGKILL and started again by the same call. After each kill the checkpoint
must be readable (or not there yet) and must not have gone back. A run that reaches its end must hold the weights of one
that was never killed, bit for bit; then the next run starts, with another optimiser. Exits with 1 at the first failure.
It forks, so it needs Linux or macOS.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # a process with threads must not fork

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from genlib import training

OPTIMIZERS = [
    torch.optim.Adam,
    partial(torch.optim.SGD, momentum=0.9),
    torch.optim.RMSprop,
    partial(torch.optim.AdamW, weight_decay=0.1),
]


class Noisy(nn.Module):
    """What a checkpoint must carry: noise from the generator, dropout from torch's own, a batch norm's statistics."""

    event_shape = (8,)

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 8))

    def loss(self, x, generator=None):
        return ((self.net(x + torch.randn(x.shape, generator=generator)) - x) ** 2).mean()


def work(folder, trial, checkpoint=True):
    """One whole run. 101 rows in batches of 16: an epoch ends on a short batch, and checkpoints fall inside epochs."""
    torch.manual_seed(trial)
    x, model = torch.randn(101, 8), Noisy()
    options = {"checkpoint": folder / f"{trial}.safetensors", "checkpoint_every": 3} if checkpoint else {}
    generator = torch.Generator().manual_seed(trial)
    optimizer, schedule = OPTIMIZERS[trial % len(OPTIMIZERS)], training.cosine if trial % 2 else None
    for _ in training.train(model, x, 150, 16, optimizer=optimizer, schedule=schedule, generator=generator, **options):
        pass
    training.save_weights(model, folder / f"{trial}.{'killed' if checkpoint else 'whole'}")


def warm_up(folder):
    """Do once here what torch puts off to the first step (seconds of imports), so that no child waits for it."""
    for trial in range(len(OPTIMIZERS)):
        work(folder, trial, False)


def start(*args) -> int:
    """Run ``work`` in a child process and return its id."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    try:
        work(*args)
        os._exit(0)
    except BaseException as error:
        print(f"  {type(error).__name__}: {error}", flush=True)
        os._exit(1)


def in_place(path, content):
    """The planted bug: the old file is gone before the new one is whole."""
    with open(path, "wb", buffering=0) as file:
        for i in range(0, len(content), 4096):
            file.write(content[i : i + 4096])


def done_steps(path) -> int:
    """The step in the checkpoint, read without the library's reader."""
    if not path.exists():
        return -1
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118
            file.get_tensor(name)
        return json.loads(file.metadata()["state"])["number"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--planted-bug", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.planted_bug:
        training._write = in_place
    draw = random.Random(args.seed)
    kills = writing = trial = 0
    steps, last, moments = -1, 0, set()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        warm_up(folder)
        while True:
            path = folder / f"{trial}.safetensors"
            child = start(folder, trial)
            ended, status = 0, 0
            if kills < args.kills:
                time.sleep(draw.uniform(0.0, 0.2))
                ended, status = os.waitpid(child, os.WNOHANG)
                if not ended:
                    os.kill(child, signal.SIGKILL)
            if not ended:
                ended, status = os.waitpid(child, 0)
            if os.WIFSIGNALED(status):
                kills += 1
                part = path.with_name(path.name + ".part")
                left, last = last, part.stat().st_mtime_ns if part.exists() else 0
                writing += last not in (0, left)  # a part that an earlier kill left behind counts once
                try:
                    now = done_steps(path)
                except Exception as error:
                    sys.exit(
                        f"FAILED after {kills} kills: {path.name} is not readable ({type(error).__name__}: {error})"
                    )
                if now < steps:
                    sys.exit(f"FAILED after {kills} kills: {path.name} went back from step {steps} to {now}")
                steps = now
                moments.add(now)
                continue
            if os.waitstatus_to_exitcode(status) != 0:
                sys.exit(f"FAILED after {kills} kills: run {trial} did not resume")
            os.waitpid(start(folder, trial, False), 0)
            killed, whole = (load_file(folder / f"{trial}.{kind}") for kind in ("killed", "whole"))
            if not all(torch.equal(killed[k], whole[k]) for k in whole):
                sys.exit(f"FAILED after {kills} kills: run {trial} ended with other weights")
            trial, steps = trial + 1, -1
            if kills >= args.kills:
                break
    print(f"{kills} kills, {writing} during a write, at {len(moments)} different steps; {trial} runs, all bit for bit")
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
