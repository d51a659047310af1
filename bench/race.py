"""Train genlib's continuous flow and zuko's on the checkerboard until both know its density to 0.15 nats.

``python bench/race.py`` prints the processor's time of each and their ratio, and writes bench/race.md, which the page
"How fast is it" shows. Batches of 512, Adam at 2e-3 with cosine decay over 2,000 steps, 10,000 training points; the gap
to the true density on 10,000 test points is looked at every 50 steps, and these looks are not timed.
"""

import argparse
import os

os.environ["OMP_NUM_THREADS"] = "1"

import time
from pathlib import Path

import torch

from genlib import data
from genlib.models.ode_flows import CNF

STEPS, BATCH, LR, LOOK = 2000, 512, 2e-3, 50


def ours(hidden):
    model = CNF(2, hidden, trace="exact", steps=8)

    def judge(x):
        model.steps = 32
        found = model.log_prob(x)
        model.steps = 8
        return found

    return model, model.loss, judge


def zukos(hidden, exact):
    import zuko

    model = zuko.flows.CNF(2, hidden_features=hidden, exact=exact)
    return model, lambda x: -model().log_prob(x).mean(), lambda x: model().log_prob(x)


def race(make, target: float, seed: int, limit: float) -> tuple[float, int, float]:
    """Seconds of the processor, steps and gap when this is at most ``target``, or when the time or the steps end."""
    torch.manual_seed(seed)
    model, loss, judge = make()
    generator = torch.Generator().manual_seed(seed)
    x, x_test = data.toy("checkerboard", 10_000, generator), data.toy("checkerboard", 10_000, generator)
    truth = data.toy_log_prob("checkerboard", x_test).mean()
    optimiser = torch.optim.Adam(model.parameters(), LR)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    seconds, step, gap = 0.0, 0, float("inf")
    while gap > target and seconds < limit and step < STEPS:
        start = time.process_time()
        for _ in range(LOOK):
            rows = torch.randint(len(x), (BATCH,), generator=generator)
            optimiser.zero_grad()
            loss(x[rows]).backward()
            optimiser.step(), schedule.step()
        seconds, step = seconds + time.process_time() - start, step + LOOK
        with torch.no_grad():
            gap = (truth - torch.cat([judge(part) for part in x_test.split(2500)]).mean()).item()
    return seconds, step, gap


RUNNERS = {
    "genlib, 128 and 128 units, exact trace": lambda: ours((128, 128)),
    "zuko, 64 and 64 units, exact trace": lambda: zukos((64, 64), True),
    "zuko, 128 and 128 units, exact trace": lambda: zukos((128, 128), True),
    "zuko, 64 and 64 units, Hutchinson's estimate": lambda: zukos((64, 64), False),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--target", type=float, default=0.15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--times", type=float, default=2.2, help="give up after so many times genlib's time")
    options = parser.parse_args()
    torch.set_num_threads(1)
    first, limit, lines = None, float("inf"), []
    for name, make in RUNNERS.items():
        seconds, step, gap = race(make, options.target, options.seed, limit)
        first = first or seconds
        limit = options.times * first
        more = "" if gap <= options.target else "more than "
        lines.append(f"| {name} | {more}{seconds / first:.1f} | {step:,} | {gap:.3f} |")
        print(f"{name}: {more}{seconds / first:.1f} times genlib's time, {step} steps, gap {gap:.3f}", flush=True)
    head = ["% Written by bench/race.py.", "", ":::{div} study-table"]
    head += ["| by | time | steps | gap, nats |", "|:--|--:|--:|--:|"]
    (Path(__file__).parent / "race.md").write_text("\n".join([*head, *lines, ":::", ""]))


if __name__ == "__main__":
    main()
