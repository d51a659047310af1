"""The deeper runs of the flows: what the package stores agrees with its record, and the scripts still run."""

import hashlib
import importlib
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from genlib import data
from genlib.training import load_weights

FOLDER = Path(__file__).resolve().parent.parent / "tools" / "deeper"
sys.path.insert(0, str(FOLDER))
flows_toys, flows_rivals, glow_digits, ot_toys = map(
    importlib.import_module, ("flows_toys", "flows_rivals", "glow_digits", "ot_toys")
)
ASSETS = flows_toys.ASSETS
TOYS = json.loads((ASSETS / "flows-toys.json").read_text("utf8"))
GLOW = json.loads((ASSETS / "glow-digits.json").read_text("utf8"))
POTENTIAL = json.loads((ASSETS / "ot-toys.json").read_text("utf8"))


def stored(make, name, record, folder=ASSETS):
    return load_weights(make(), folder / f"{name}.safetensors", record["sha256"]).eval()


def mean_gap(model, toy):
    gaps = [row["gap"] for row in TOYS["rows"] if (row["model"], row["toy"]) == (model, toy)]
    return sum(gaps) / len(gaps)


def test_the_record_has_every_flow_on_both_toys_with_three_seeds():
    rows = [(row["toy"], row["model"], row["seed"]) for row in TOYS["rows"]]
    wanted = list(itertools.product(("checkerboard", "moons"), flows_toys.FLOWS, range(3)))
    assert rows == wanted and TOYS["steps"] == 2000 and "10000 training" in TOYS["protocol"]
    assert (
        sum((ASSETS / f"{name}.safetensors").stat().st_size for name in ("flows-chessboard", "glow-digits")) < 900_000
    )


def test_parameters_are_those_of_the_models_and_no_more_than_the_peers():
    count = {name: sum(p.numel() for p in make().parameters()) for name, make in flows_toys.FLOWS.items()}
    assert all(row["parameters"] == count[row["model"]] for row in TOYS["rows"])
    assert count["spline"] <= 29_000 and count["realnvp"] <= 35_500 and count["maf"] <= 37_500


def test_the_gaps_that_are_asked():
    assert mean_gap("spline", "checkerboard") <= 0.085 and mean_gap("realnvp", "checkerboard") <= 0.14
    assert mean_gap("realnvp", "moons") <= 0.018


def test_the_rivals_saw_the_same_points():
    rows = json.loads((ASSETS / "flows-rivals.json").read_text("utf8"))["rows"]
    assert len(rows) == 30 and len({(row["model"], row["toy"], row["seed"]) for row in rows}) == 30
    x, x_test = flows_toys.points("moons", 1)
    mixture = flows_rivals.chosen(
        [flows_rivals.GaussianMixture(k, random_state=1, max_iter=300) for k in (4, 8, 16, 32)], x
    )
    gap = (data.toy_log_prob("moons", x_test) - mixture(x_test)).mean().item()
    (row,) = (r for r in rows if (r["model"], r["toy"], r["seed"]) == ("scikit-learn's mixture", "moons", 1))
    assert gap == pytest.approx(row["gap"], abs=1e-4)


def test_the_stored_weights_give_the_gaps_of_the_record():
    flows, (_, x) = stored(flows_toys.make_flows, "flows-chessboard", TOYS), flows_toys.points("checkerboard", 0)
    for name, gap in TOYS["stored_gaps"].items():
        assert flows_toys.gap(flows[name], "checkerboard", x) == pytest.approx(gap, abs=1e-3)
        row = next(row for row in TOYS["rows"] if (row["model"], row["toy"], row["seed"]) == (name, "checkerboard", 0))
        assert gap == pytest.approx(row["gap"], abs=0.02)  # half precision costs little


def test_other_weights_do_not():
    flows, (_, x) = stored(flows_toys.make_flows, "flows-chessboard", TOYS), flows_toys.points("checkerboard", 0)
    for name, gap in TOYS["stored_gaps"].items():
        with torch.no_grad():
            for p in flows[name].parameters():
                p *= 1.05
        assert abs(flows_toys.gap(flows[name], "checkerboard", x) - gap) > 2e-3, name


def test_glows_bits_are_those_of_the_record():
    model, x = stored(glow_digits.make_glow, "glow-digits", GLOW), data.digits().test.x
    assert glow_digits.judge(model, x, 2)["bits_per_dim"] == pytest.approx(GLOW["test"]["bits_per_dim"], abs=1e-3)
    assert glow_digits.judge(model, 1 - x, 2)["bits_per_dim"] > GLOW["test"]["bits_per_dim"] + 1


def test_ot_flow_has_a_quarter_of_its_rivals_weights_and_their_gaps_are_those_of_the_record():
    models = stored(ot_toys.make_models, "ot-toys", POTENTIAL)
    for key, gap in POTENTIAL["stored_gaps"].items():
        name, toy = key.split()
        assert ot_toys.judged(models[key], toy, 0) == pytest.approx(gap, abs=1e-3)
        rows = [row for row in POTENTIAL["rows"] if (row["model"], row["toy"]) == (name, toy)]
        assert [row["seed"] for row in rows] == [0, 1, 2] and gap == pytest.approx(rows[0]["gap"], abs=0.02)
        assert rows[0]["parameters"] == sum(p.numel() for p in models[key].parameters())
    sizes = {row["model"]: row["parameters"] for row in POTENTIAL["rows"]}
    assert 4 * sizes["otflow"] < sizes["cnf"]


@pytest.mark.parametrize(
    "script,name", [("flows_toys", "flows-toys"), ("glow_digits", "glow-digits"), ("ot_toys", "ot-toys")]
)
def test_the_scripts_run(tmp_path, script, name):
    more = [] if script == "glow_digits" else ["--seeds", "1"]
    command = [sys.executable, str(FOLDER / f"{script}.py"), "--steps", "2", "--out", str(tmp_path), *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / f"{name}.json").read_text("utf8"))
    assert (
        record["steps"] == 2
        and record.keys() == {"flows_toys": TOYS, "glow_digits": GLOW, "ot_toys": POTENTIAL}[script].keys()
    )
    weights = tmp_path / f"{name.replace('flows-toys', 'flows-chessboard')}.safetensors"
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == record["sha256"]
