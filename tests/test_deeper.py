"""The deeper runs of tools/deeper: what the package stores agrees with its record, and the script still runs."""

import hashlib
import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from genlib import data
from genlib.training import load_weights

SCRIPT = Path(__file__).resolve().parent.parent / "tools" / "deeper" / "vae_fashion.py"
spec = importlib.util.spec_from_file_location("vae_fashion", SCRIPT)
vae_fashion = importlib.util.module_from_spec(spec)
spec.loader.exec_module(vae_fashion)

ASSETS = vae_fashion.ASSETS
WEIGHTS = ASSETS / "vae-fashion.safetensors"
RECORD = json.loads((ASSETS / "vae-fashion.json").read_text("utf8"))


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_record(record, images, steps):
    kinds = {"sha256": str, "images_sha256": str, "model": str, "data": str, "steps": int, "batch_size": int}
    kinds |= {"seed": int, "hardware": str, "torch": str, "minutes": float, "train": dict, "test": dict, "few": dict}
    assert {key: type(value) for key, value in record.items()} == kinds
    assert "one half" in record["data"] and "thread" in record["hardware"] and record["steps"] == steps
    for part, n in zip(("train", "test", "few"), images, strict=True):
        assert set(record[part]) == {"images", "elbo", "bound_50"} and record[part]["images"] == n
        assert record[part]["elbo"] < record[part]["bound_50"] < 0


def test_the_record_is_complete():
    check_record(RECORD, (10_000, 10_000, 500), 100_000)
    assert RECORD["minutes"] > 1 and RECORD["test"]["elbo"] < RECORD["train"]["elbo"]


def test_the_sums_and_sizes_of_the_files():
    assert sha256(WEIGHTS) == RECORD["sha256"] and sha256(ASSETS / vae_fashion.IMAGES) == RECORD["images_sha256"]
    assert WEIGHTS.stat().st_size < 700_000 and (ASSETS / vae_fashion.IMAGES).stat().st_size < 300_000


def test_the_images_are_fifty_of_each_class_of_the_test_set():
    images, labels = vae_fashion.stored_images()
    assert images.shape == (500, 28, 28) and images.dtype == np.uint8 and (labels == np.arange(500) % 10).all()
    if not (data._SYSTEM / "fashion-mnist").is_dir():
        pytest.skip("Fashion-MNIST is not installed here")
    full = data.fashion_mnist().test
    rows = vae_fashion.fifty_of_each(full)
    assert len(set(rows)) == 500 and (full.y[rows].numpy() == labels).all()
    assert torch.equal((255 * full.x[rows, 0]).round().byte(), torch.from_numpy(images))


def deviations(model):
    """How far the bounds on the 500 images are from the record, in standard errors of the difference."""
    x, generator = vae_fashion.binary(vae_fashion.stored_images()[0]), torch.Generator().manual_seed(40)
    with torch.no_grad():
        elbos = torch.stack([model.elbo(x, generator) for _ in range(20)]).double()
        bounds = torch.stack([model.log_prob_bound(x, 50, generator) for _ in range(4)]).double()
    found = {"elbo": (elbos, 20), "bound_50": (bounds, 1)}  # and how many draws the record's number is the mean of
    return [
        abs(values.mean().item() - RECORD["few"][key])
        / math.sqrt(values.var(0).sum().item() / len(x) ** 2 * (1 / len(values) + 1 / n))
        for key, (values, n) in found.items()
    ]


def test_the_stored_weights_give_the_bounds_of_the_record():
    """Four standard errors: a false alarm in 8,000 runs with other seeds."""
    model = load_weights(vae_fashion.make_vae(), WEIGHTS, RECORD["sha256"])
    assert max(deviations(model)) < 4


@pytest.mark.parametrize("layer", ["encoder.0.weight", "encoder.2.bias", "decoder.0.weight", "decoder.2.weight"])
def test_other_weights_do_not(layer):
    model = load_weights(vae_fashion.make_vae(), WEIGHTS)
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        tensor = model.get_parameter(layer)
        tensor += 0.2 * tensor.std() * torch.randn(tensor.shape, generator=noise)
    assert max(deviations(model)) > 8


def test_weights_of_another_sum_are_refused(tmp_path):
    content = bytearray(WEIGHTS.read_bytes())
    content[-1] ^= 1
    (tmp_path / "weights").write_bytes(content)
    with pytest.raises(ValueError, match="sha256"):
        load_weights(vae_fashion.make_vae(), tmp_path / "weights", RECORD["sha256"])


def test_the_script_runs_on_what_the_package_holds(tmp_path):
    command = [sys.executable, str(SCRIPT), "--stored", "--steps", "3", "--seed", "5", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "vae-fashion.json").read_text("utf8"))
    check_record(record, (500, 500, 500), 3)
    assert record["seed"] == 5 and json.loads(done.stdout) == record
    model = load_weights(vae_fashion.make_vae(), tmp_path / "vae-fashion.safetensors", record["sha256"])
    assert max(deviations(model)) > 100  # three steps are not the stored run
