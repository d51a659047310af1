"""Time genlib beside its peers: one process, one thread, every round one run of each, in turn.

``make bench`` runs all cases, prints a table and writes bench/results.json, and bench/results.md, which the book shows.
``python -m bench.run density distances`` runs these families only and writes nothing; ``--rounds N`` sets the rounds.
"""

import argparse
import importlib
import json
import os
import platform
import re
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from bench import Case

HERE = Path(__file__).resolve().parent
FAMILIES = {
    "density": "Densities",
    "distances": "Distances between samples",
    "autoregressive": "Autoregressive networks",
    "vae": "Variational autoencoders",
    "flows": "Flows",
}
PACKAGES = "torch", "numpy", "scipy", "scikit-learn", "dcor", "POT", "nflows", "pythae", "torchdiffeq"


def measure(case: Case, rounds: int) -> dict:
    """For each run its error, and the quartiles over rounds of its time divided by genlib's in the same round.

    Time is the processor's: with one thread that is the time a call takes where nothing else runs.
    """
    errors, names = case.errors(), list(case.runs)  # which also warms up
    times = {name: [] for name in names}
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            start = time.process_time()
            case.runs[name]()
            times[name].append(time.process_time() - start)
    if torch.get_num_threads() != 1:
        raise RuntimeError(f"{case.what}: expected one thread, torch has {torch.get_num_threads()}")
    quartiles = {name: np.percentile(np.divide(times[name], times["genlib"]), [25, 50, 75]) for name in names}
    runs = {name: {"ratio": [float(f"{q:.3g}") for q in quartiles[name]], "error": errors[name]} for name in names}
    return {"what": case.what, "remark": case.remark, "known": case.known, "runs": runs}


def machine() -> dict:
    """The processor, its cores and memory (GiB), and the system."""
    info = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.is_file() else None
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    processor = model[1].strip() if model else platform.processor() or platform.machine()
    return {"processor": processor, "cores": os.cpu_count(), "memory": round(memory), "system": platform.system()}


def short(value: float) -> str:
    """Two digits: 0.034, 1.5, 23, 140."""
    return f"{float(f'{value:.2g}'):g}"


def page(results: dict) -> str:
    """The results as Markdown: a table a case, and where they were measured."""
    text = ["% Written by `make bench` from bench/results.json.", ""]
    for family, title in FAMILIES.items():
        text += [f"## {title}", ""]
        for case in results["cases"].get(family, []):
            text += [f"**{case['what']}.** {case['remark']}".strip(), ""]
            text += [":::{div} study-table", "| by | time | quartiles | error |", "|:--|--:|--:|--:|"]
            for name, run in case["runs"].items():
                low, middle, high = map(short, run["ratio"])
                between = f"{low}&nbsp;to&nbsp;{high}" if name != "genlib" else ""
                error = f"{run['error']:.1g}".replace("-", "&minus;")  # where no line is broken, unlike a hyphen
                error = f"**{error}**" if name in case["known"] else error
                text.append(f"| {name} | {middle} | {between} | {error} |")
            text += [":::", ""]
    m, versions = results["machine"], ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    text += [
        "## Where this was measured",
        "",
        f"On {results['date']}, {results['rounds']} rounds on one thread of a machine with {m['cores']} cores",
        f"({m['processor']}) and {m['memory']} GiB of memory, under {m['system']}, with {versions}.",
        "",
    ]
    return "\n".join(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("families", nargs="*", choices=[*FAMILIES, []], help="all of them, if none is named")
    parser.add_argument("--rounds", type=int, default=11)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if os.getloadavg()[0] > 0.5:
        print(f"Other programs are running (load {os.getloadavg()[0]:.1f}): the quartiles may be wide apart.")
    found = {}
    for family in asked.families or FAMILIES:
        for case in importlib.import_module(f"bench.{family}").cases():
            found.setdefault(family, []).append(measure(case, asked.rounds))
            print(case.what)
            for name, run in found[family][-1]["runs"].items():
                low, middle, high = map(short, run["ratio"])
                print(f"  {name:24} {middle:>6} times genlib's time ({low} to {high}), error {run['error']:.1g}")
    if not asked.families:
        versions = {"Python": platform.python_version()} | {name: version(name) for name in PACKAGES}
        about = {"date": time.strftime("%Y-%m-%d"), "rounds": asked.rounds, "machine": machine(), "versions": versions}
        results = about | {"cases": found}
        (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n", "utf8")
        (HERE / "results.md").write_text(page(results), "utf8")


if __name__ == "__main__":
    main()
