"""Train OT-Flow and a CNF of four times its weights on two toys, three seeds each; store the gaps and seed 0's weights.

python tools/deeper/ot_toys.py                         # the stored run: about 20 minutes on one thread
python tools/deeper/ot_toys.py --steps 3 --out FOLDER  # a trial, so many steps for each

Both get about the same time of the processor. Learning rates, the reach of the CNF's first layer and the weight of
OT-Flow's residual were chosen on points of other seeds: with the weight 15 a run has outwitted its four steps of
the solver. Gaps are judged with 32 steps.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from flows_toys import ASSETS, BATCH, POINTS, gap, points
from torch import nn
from vae_fashion import processor

from genlib.models.ode_flows import CNF, OTFlow, TanhField
from genlib.training import cosine, load_weights, save_weights, train

REACH = {"checkerboard": 4.0, "moons": 1.0}  # of the CNF's first layer
MODELS = {
    "ot": (lambda toy: OTFlow(2, 43, alpha=(100.0, 40.0), steps=4), 3000, 1e-2),
    "cnf": (lambda toy: CNF(2, field=TanhField(2, (64, 64, 64), REACH[toy]), trace="exact", steps=8), 1200, 5e-3),
}


def make_models() -> nn.ModuleDict:
    return nn.ModuleDict({f"{name} {toy}": make(toy) for name, (make, *_) in MODELS.items() for toy in REACH})


def judged(model, toy: str, x: torch.Tensor) -> float:
    """The gap with 32 steps of the solver."""
    kept, model.steps = model.steps, 32
    found = gap(model, toy, x)
    model.steps = kept
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=max(steps for _, steps, _ in MODELS.values()))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ASSETS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    rows, kept = [], make_models()
    for toy in REACH:
        for name, (make, most, lr) in MODELS.items():
            for seed in range(options.seeds):
                torch.manual_seed(seed)
                model, (x, x_test), steps = make(toy), points(toy, seed), min(most, options.steps)
                start, generator = time.process_time(), torch.Generator().manual_seed(seed)
                for _ in train(model, x, steps, BATCH, lr, schedule=cosine, generator=generator):
                    pass
                seconds = round(time.process_time() - start, 1)
                row = {"model": name, "toy": toy, "seed": seed, "gap": judged(model, toy, x_test), "steps": steps}
                row |= {"parameters": sum(p.numel() for p in model.parameters()), "seconds": seconds}
                rows.append(row)
                print(json.dumps(row), flush=True)
                if seed == 0:
                    kept[f"{name} {toy}"] = model

    path = options.out / "ot-toys.safetensors"
    record = {
        "sha256": save_weights(kept.half(), path),
        "weights": "seed 0, stored as float16",
        "protocol": f"{POINTS} training and {POINTS} test points, batches of {BATCH}, Adam with cosine decay",
        "hardware": f"{processor()}, {options.threads} thread{'s' * (options.threads > 1)}",
        "torch": torch.__version__,
        "rows": rows,
    }
    stored = load_weights(make_models(), path, record["sha256"]).eval()
    record["stored_gaps"] = {
        key: judged(model, toy, points(toy, 0)[1]) for key, model in stored.items() for toy in [key.split()[1]]
    }
    (options.out / "ot-toys.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record["stored_gaps"]))


if __name__ == "__main__":
    main()
