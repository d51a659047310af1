"""Two other libraries on the points of flows_toys.py: the same batches, optimiser and schedule; store their gaps.

bench/.venv/bin/python tools/deeper/flows_rivals.py                        # the stored run: 12 minutes on one thread
bench/.venv/bin/python tools/deeper/flows_rivals.py --steps 3 --out FOLDER # a trial

``bash bench/install.sh`` makes the environment, which has zuko. scikit-learn's kernel estimate takes its bandwidth, and
its mixture the number of components, by the likelihood of the last 2,000 training points; both are then fitted to all.
"""

import argparse
import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from flows_toys import ASSETS, BATCH, LR, POINTS, points
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity

from genlib import data
from genlib.contract import seeded
from genlib.training import cosine

ZUKO = {
    "zuko's spline flow": ("NSF", {"transforms": 4, "bins": 8}),
    "zuko's MAF": ("MAF", {"transforms": 8}),
    "zuko's RealNVP": ("RealNVP", {"transforms": 8}),
}


def zuko_flow(kind: str, options: dict, x: torch.Tensor, steps: int, seed: int):
    """The log-density of a flow trained as flows_toys.py trains, and the number of its parameters."""
    import zuko

    torch.manual_seed(seed)
    flow = getattr(zuko.flows, kind)(2, hidden_features=(64, 64), **options)
    optimiser, generator, step = torch.optim.Adam(flow.parameters(), LR), seeded(seed), 0
    while step < steps:
        for rows in torch.randperm(POINTS, generator=generator).split(BATCH)[: steps - step]:
            optimiser.param_groups[0]["lr"] = LR * cosine(step / steps)
            optimiser.zero_grad()
            (-flow().log_prob(x[rows]).mean()).backward()
            optimiser.step()
            step += 1
    return torch.no_grad()(lambda y: flow().log_prob(y)), sum(p.numel() for p in flow.parameters())


def chosen(candidates, x: torch.Tensor):
    """The candidate that knows the last 2,000 points best, fitted to all."""
    x = x.double().numpy()
    best = max(candidates, key=lambda model: model.fit(x[:-2000]).score(x[-2000:])).fit(x)
    return lambda y: torch.from_numpy(best.score_samples(y.double().numpy()))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ASSETS)
    options = parser.parse_args()
    torch.set_num_threads(1)

    rows = []
    for toy in ("checkerboard", "moons"):
        for seed in range(options.seeds):
            x, x_test = points(toy, seed)
            found = {name: zuko_flow(*kind, x, options.steps, seed) for name, kind in ZUKO.items()}
            kernels = [KernelDensity(bandwidth=h, rtol=1e-6) for h in np.geomspace(0.03, 0.4, 14)]
            mixtures = [GaussianMixture(k, random_state=seed, max_iter=300) for k in (4, 8, 16, 32, 64, 128)]
            found |= {"scikit-learn's KDE": (chosen(kernels, x), 0), "scikit-learn's mixture": (chosen(mixtures, x), 0)}
            for name, (log_prob, parameters) in found.items():
                gap = (data.toy_log_prob(toy, x_test) - log_prob(x_test)).mean().item()
                rows.append({"model": name, "toy": toy, "seed": seed, "gap": gap, "parameters": parameters})
                print(json.dumps(rows[-1]), flush=True)
    record = {"versions": {name: version(name) for name in ("zuko", "scikit-learn", "torch")}, "steps": options.steps}
    (options.out / "flows-rivals.json").write_text(json.dumps(record | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
