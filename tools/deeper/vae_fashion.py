"""Train the VAE of Fashion-MNIST that the chapter on VAEs judges; store its weights and a record of the run.

python tools/deeper/vae_fashion.py                                   # the stored run: 9 minutes on one thread
python tools/deeper/vae_fashion.py --stored --steps 3 --out FOLDER   # a trial on the 500 images of the package

A pixel is 1 where its grey level is above one half. Both bounds are those of the weights as stored, in half precision.
"""

import argparse
import hashlib
import json
import platform
import time
from pathlib import Path

import numpy as np
import torch

import genlib
from genlib import data
from genlib.models.vae import VAE
from genlib.nets import mlp
from genlib.training import cosine, load_weights, save_weights, train

ASSETS = Path(genlib.__file__).parent / "assets"
IMAGES = "fashion-test.npz"
LATENT, HIDDEN, DRAWS = 20, 200, 50


def make_vae() -> VAE:
    return VAE(mlp(784, HIDDEN, 2 * LATENT), mlp(LATENT, HIDDEN, 784), LATENT)


def binary(images) -> torch.Tensor:
    """Images ``(N, ...)`` in [0, 1] or uint8, as bits ``(N, 784)``."""
    images = torch.as_tensor(images)
    return (images.flatten(1) > (0.5 if images.is_floating_point() else 127.5)).float()


def stored_images() -> tuple[np.ndarray, np.ndarray]:
    with np.load(ASSETS / IMAGES, allow_pickle=False) as file:
        return file["images"], file["labels"]


def fifty_of_each(part: data.Part) -> np.ndarray:
    """The rows of the first 50 test images of each class; row i of the choice shows class i % 10."""
    return np.stack([np.flatnonzero(part.y.numpy() == label)[:50] for label in range(10)], 1).ravel()


def judge(model: VAE, x: torch.Tensor, seed: int) -> dict[str, float]:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        elbos = [model.elbo(x, generator).mean().item() for _ in range(-(-10_000 // len(x)))]  # so many draws at least
        bound = model.log_prob_bound(x, DRAWS, generator).mean().item()
    return {"images": len(x), "elbo": sum(elbos) / len(elbos), f"bound_{DRAWS}": bound}


def processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ASSETS)
    parser.add_argument("--stored", action="store_true", help="train and test on the 500 images of the package")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    if options.stored:
        x = x_test = x_few = binary(stored_images()[0])
    else:
        full = data.fashion_mnist()
        rows = fifty_of_each(full.test)
        images = (255 * full.test.x[rows, 0]).round().byte().numpy()
        labels = full.test.y[rows].byte().numpy()
        np.savez_compressed(options.out / IMAGES, images=images, labels=labels)
        x, x_test, x_few = binary(full.train.x), binary(full.test.x), binary(images)

    torch.manual_seed(options.seed)
    model, start = make_vae(), time.process_time()
    run = train(model, x, options.steps, schedule=cosine, generator=torch.Generator().manual_seed(options.seed))
    for step in run:
        if step.number % 5000 == 0:
            print(f"step {step.number}: loss {step.loss:.2f} nats", flush=True)
    minutes = (time.process_time() - start) / 60  # of the processor: what else runs on the machine does not count

    path = options.out / "vae-fashion.safetensors"
    record = {
        "sha256": save_weights(model.half(), path),
        "images_sha256": hashlib.sha256((ASSETS / IMAGES).read_bytes()).hexdigest(),
        "model": f"784-{HIDDEN}-{LATENT}-{HIDDEN}-784, ReLU, Bernoulli, stored as float16",
        "data": f"{len(x)} images of Fashion-MNIST, 1 where above one half",
        "steps": options.steps,
        "batch_size": 128,
        "seed": options.seed,
        "hardware": f"{processor()}, {options.threads} thread{'s' * (options.threads > 1)}",
        "torch": torch.__version__,
        "minutes": round(minutes, 1),
    }
    model = load_weights(make_vae(), path, record["sha256"])
    record |= {"train": judge(model, x[:10_000], 1), "test": judge(model, x_test, 2), "few": judge(model, x_few, 3)}
    (options.out / "vae-fashion.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
