"""Train FVSBN, NADE and MADE on all of binarised Fashion-MNIST; store a record of the runs, and no weights.

python tools/deeper/autoregressive_fashion.py                            # the stored run: 10 minutes on one thread
python tools/deeper/autoregressive_fashion.py --steps 3 --out FOLDER     # a trial

A pixel is 1 where its grey level is above one half. All models see the same batches; the learning rates come from short
trials on the validation images.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from vae_fashion import ASSETS, binary, processor

from genlib import data, metrics
from genlib.models.autoregressive import FVSBN, MADE, NADE
from genlib.training import cosine, train

BATCH = 100
MODELS = {  # how each is made, and its learning rate
    "FVSBN": (lambda: FVSBN(784), 0.02),
    "MADE, two layers of 500": (lambda: MADE(784, (500, 500)), 0.003),
    "MADE, one layer of 2,000": (lambda: MADE(784, (2000,)), 0.003),
    "NADE, 200 hidden units": (lambda: NADE(784, 200), 0.015),
}


def output_bias(model) -> torch.Tensor:
    return model.bias if isinstance(model, FVSBN) else model.b if isinstance(model, NADE) else model.layers[-1].bias


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ASSETS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    full = data.fashion_mnist()
    x, x_test = torch.cat([binary(full.train.x), binary(full.valid.x)]), binary(full.test.x)
    share = (x.sum(0) + 1) / (len(x) + 2)
    record = {
        "data": f"{len(x)} images of Fashion-MNIST, 1 where above one half",
        "test_images": len(x_test),
        "steps": options.steps,
        "batch_size": BATCH,
        "seed": options.seed,
        "hardware": f"{processor()}, {options.threads} thread{'s' * (options.threads > 1)}",
        "torch": torch.__version__,
        "every_pixel_its_share": -torch.distributions.Bernoulli(share).log_prob(x_test).sum(1).mean().item(),
        "models": {},
    }
    for name, (make, lr) in MODELS.items():
        torch.manual_seed(options.seed)
        model, start = make(), time.process_time()
        output_bias(model).data.copy_(share.logit())  # every model starts as this baseline, or near it
        generator = torch.Generator().manual_seed(options.seed)
        for step in train(model, x, options.steps, BATCH, lr, schedule=cosine, generator=generator):
            if step.number % 500 == 0:
                print(f"{name}, step {step.number}: {step.loss:.2f} nats", flush=True)
        minutes = (time.process_time() - start) / 60  # of the processor: what else runs there does not count
        nll = {part: sum(metrics.nll(model, rows) for rows in x.split(1000)) / (len(x) // 1000)
               for part, x in (("train", x[:10_000]), ("test", x_test))}  # fmt: skip
        record["models"][name] = {"lr": lr, "minutes": round(minutes, 2), **nll}
        (options.out / "autoregressive-fashion.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
