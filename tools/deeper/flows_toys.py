"""Train every flow on the checkerboard and the moons, three seeds each; store the gaps, and one seed's weights.

python tools/deeper/flows_toys.py                              # the stored run: about 10 minutes on one thread
python tools/deeper/flows_toys.py --only spline                # renews the rows and weights of this one
python tools/deeper/flows_toys.py --steps 3 --out FOLDER       # a trial

The gap of a model is its test negative log-likelihood above that of the true density on the same points, in nats.
"""

import argparse
import json
import time
from pathlib import Path

import safetensors.torch
import torch
from torch import nn
from torch.nn import functional as F
from vae_fashion import ASSETS, processor

from genlib import data
from genlib.contract import seeded
from genlib.models import flows
from genlib.models.flows import IAF, MAF, NICE, NeuralSplineFlow, PlanarFlow, RealNVP
from genlib.training import cosine, load_weights, save_weights, train

BATCH, LR, POINTS = 512, 2e-3, 10_000


def glow_step() -> list[nn.Module]:
    return [flows.ActNorm(2), flows.Mix(2), flows.Coupling(1, flows.Conditioner(1, 64, 64, 2), flows.affine)]


FLOWS = {
    "planar": lambda: PlanarFlow(2, 32),
    "nice": lambda: NICE(2, 8),
    "realnvp": lambda: RealNVP(2, 16, (24,) * 4, F.gelu, reach=4.0),
    "glow": lambda: flows.Flow((2,), [layer for _ in range(8) for layer in glow_step()]),
    "maf": lambda: MAF(2),
    "iaf": lambda: IAF(2),
    "spline": lambda: NeuralSplineFlow(2),
}


def make_flows() -> nn.ModuleDict:
    return nn.ModuleDict({name: make() for name, make in FLOWS.items()})


def points(toy: str, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Training and test points."""
    generator = seeded(seed)
    return data.toy(toy, POINTS, generator), data.toy(toy, POINTS, generator)


def descend(model, toy: str, seed: int, steps: int, lr: float = LR):
    """Train on the points of this seed, in its order."""
    options = {"schedule": cosine, "generator": seeded(seed)}
    for _ in train(model, points(toy, seed)[0], steps, BATCH, lr, **options):
        pass


@torch.no_grad()
def gap(model, toy: str, x: torch.Tensor) -> float:
    return (data.toy_log_prob(toy, x) - model.log_prob(x)).mean().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=list(FLOWS), choices=list(FLOWS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ASSETS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    path, record_path = options.out / "flows-chessboard.safetensors", options.out / "flows-toys.json"
    rows, kept = [], make_flows()
    if set(options.only) < set(FLOWS):
        rows = [row for row in json.loads(record_path.read_text())["rows"] if row["model"] not in options.only]
        weights = safetensors.torch.load_file(path)
        for name in set(FLOWS) - set(options.only):
            kept[name].load_state_dict({k[len(name) + 1 :]: w for k, w in weights.items() if k.startswith(f"{name}.")})
    for toy in ("checkerboard", "moons"):
        for name in options.only:
            for seed in range(options.seeds):
                torch.manual_seed(seed)
                model, (x, x_test), start = FLOWS[name](), points(toy, seed), time.process_time()
                descend(model, toy, seed, options.steps)
                seconds = round(time.process_time() - start, 1)
                row = {"model": name, "toy": toy, "seed": seed, "gap": gap(model, toy, x_test)}
                row |= {"train_gap": gap(model, toy, x), "parameters": sum(p.numel() for p in model.parameters())}
                rows.append(row | {"seconds": seconds})
                print(json.dumps(rows[-1]), flush=True)
                if toy == "checkerboard" and seed == 0:
                    kept[name] = model

    record = {
        "sha256": save_weights(kept.half(), path),
        "weights": "seed 0 on the checkerboard, stored as float16",
        "protocol": f"{POINTS} training and {POINTS} test points, batches of {BATCH}, Adam at {LR} with cosine decay",
        "steps": options.steps,
        "hardware": f"{processor()}, {options.threads} thread{'s' * (options.threads > 1)}",
        "torch": torch.__version__,
        "rows": sorted(rows, key=lambda row: (row["toy"], list(FLOWS).index(row["model"]), row["seed"])),
    }
    stored, (_, x_test) = load_weights(make_flows(), path, record["sha256"]).eval(), points("checkerboard", 0)
    record["stored_gaps"] = {name: gap(stored[name], "checkerboard", x_test) for name in FLOWS}
    record_path.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record["stored_gaps"]))


if __name__ == "__main__":
    main()
