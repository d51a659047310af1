"""Train OT-Flow and a CNF of four times its weights on two toys, three seeds each; store the gaps and seed 0's weights.

python tools/deeper/ot_toys.py                         # the stored run: about 20 minutes on one thread
python tools/deeper/ot_toys.py --steps 3 --out FOLDER  # a trial, so many steps for each

Both get about the same time of the processor. Learning rates, the reach of the CNF's first layer and the weight of
OT-Flow's residual were chosen for each toy on points of other seeds. The record also has a run on the checkerboard with
the paper's weight, which outwits its four steps of the solver. Gaps are judged with 32.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from flows_toys import ASSETS, BATCH, POINTS, descend, gap, points
from torch import nn
from vae_fashion import processor

from genlib.models.ode_flows import CNF, OTFlow, TanhField
from genlib.training import load_weights, save_weights

REACH = {"checkerboard": 4.0, "moons": 1.0}  # of the CNF's first layer
RESIDUAL = {"checkerboard": 40.0, "moons": 15.0}  # its weight in OT-Flow's loss
MODELS = {
    "otflow": (lambda toy: OTFlow(2, 43, alpha=(100.0, RESIDUAL[toy]), steps=4), 3000, 1e-2),
    "cnf": (lambda toy: CNF(2, field=TanhField(2, (64, 64, 64), REACH[toy]), trace="exact", steps=8), 1200, 5e-3),
}


def make_models() -> nn.ModuleDict:
    return nn.ModuleDict({f"{name} {toy}": make(toy) for name, (make, *_) in MODELS.items() for toy in REACH})


def judged(model, toy: str, seed: int, steps: int = 32) -> float:
    """The gap with so many steps of the solver."""
    kept, model.steps = model.steps, steps
    found = gap(model, toy, points(toy, seed)[1])
    model.steps = kept
    return found


def outwitted(steps: int) -> dict[str, float]:
    """OT-Flow on the checkerboard with the paper's weight of the residual: its gap by 4 steps, and by 32."""
    torch.manual_seed(0)
    model = OTFlow(2, 43, steps=4)
    descend(model, "checkerboard", 0, steps, 1e-2)
    return {"weight": model.alpha[1]} | {f"by {n} steps": judged(model, "checkerboard", 0, n) for n in (4, 32)}


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
                model, steps, start = make(toy), min(most, options.steps), time.process_time()
                descend(model, toy, seed, steps, lr)
                seconds = round(time.process_time() - start, 1)
                row = {"model": name, "toy": toy, "seed": seed, "gap": judged(model, toy, seed), "steps": steps}
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
        "steps": options.steps,
        "hardware": f"{processor()}, {options.threads} thread{'s' * (options.threads > 1)}",
        "torch": torch.__version__,
        "rows": rows,
    }
    stored = load_weights(make_models(), path, record["sha256"]).eval()
    record["stored_gaps"] = {key: judged(model, key.split()[1], 0) for key, model in stored.items()}
    record["outwitted"] = outwitted(min(MODELS["otflow"][1], options.steps))
    (options.out / "ot-toys.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record["stored_gaps"]))


if __name__ == "__main__":
    main()
