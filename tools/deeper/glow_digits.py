"""Train Glow on the 4,000 digits, for the chapter on normalizing flows; store its weights and a record of the run.

python tools/deeper/glow_digits.py                            # the stored run: 20 minutes on one thread
python tools/deeper/glow_digits.py --steps 3 --out FOLDER     # a trial

Bits per dimension are those of the weights as stored, in half precision, at 256 grey levels, one draw of the noise.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from vae_fashion import ASSETS, processor

from genlib import data
from genlib.models.flows import Glow
from genlib.training import cosine, load_weights, save_weights, train

BATCH, LR, SHORT = 64, 2e-3, 600


def make_glow() -> Glow:
    return Glow((1, 28, 28), scales=2, steps=8, hidden=64)


@torch.no_grad()
def judge(model: Glow, x: torch.Tensor, seed: int) -> dict[str, float]:
    generator = torch.Generator().manual_seed(seed)
    bits = torch.cat([model.bits_per_dim(part, generator) for part in x.split(250)])
    return {"images": len(x), "bits_per_dim": bits.mean().item()}


def descend(model: Glow, x: torch.Tensor, steps: int, seed: int):
    """Train; yields each step."""
    generator = torch.Generator().manual_seed(seed)
    yield from train(model, x, steps, BATCH, LR, schedule=cosine, clip_norm=100.0, generator=generator)


def short_run(digits, a: float, steps: int) -> float:
    """Bits per dimension on the validation digits with another ``a`` in the logit, straight near one half."""
    torch.manual_seed(0)
    model = make_glow()
    model.logit.a = a
    for _ in descend(model, digits.train.x, steps, 0):
        pass
    return judge(model, digits.valid.x, 0)["bits_per_dim"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ASSETS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    digits = data.digits()
    torch.manual_seed(options.seed)
    model, start = make_glow(), time.process_time()
    for step in descend(model, digits.train.x, options.steps, options.seed):
        if step.number % 500 == 0:
            bits = judge(model, digits.valid.x, 0)["bits_per_dim"]
            print(f"step {step.number}: {bits:.3f} bits per dimension on the validation digits", flush=True)
    minutes = (time.process_time() - start) / 60  # of the processor: what else runs on the machine does not count

    path = options.out / "glow-digits.safetensors"
    record = {
        "sha256": save_weights(model.half(), path),
        "model": "2 scales of 8 steps, couplings of 64 maps, stored as float16",
        "parameters": sum(p.numel() for p in model.parameters()),
        "data": f"{len(digits.train.x)} digits, 256 grey levels, dequantised by uniform noise",
        "steps": options.steps,
        "batch_size": BATCH,
        "seed": options.seed,
        "hardware": f"{processor()}, {options.threads} thread{'s' * (options.threads > 1)}",
        "torch": torch.__version__,
        "minutes": round(minutes, 1),
    }
    model = load_weights(make_glow(), path, record["sha256"]).eval()
    short = min(options.steps, SHORT)
    record |= {"short_steps": short, "short": {str(a): short_run(digits, a, short) for a in (1e-6, 0.05, 0.45)}}
    record |= {"train": judge(model, digits.train.x[:500], 1), "test": judge(model, digits.test.x, 2)}
    (options.out / "glow-digits.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
