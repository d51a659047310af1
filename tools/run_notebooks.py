"""Run notebooks on the CPU and store their outputs, without what changes from run to run or from machine to machine.

How long each took is noted in book/run-times.yml, which the page of study paths reads.

python tools/run_notebooks.py [notebook or folder ...]      (all notebooks of book/ and labs/ when none is named)
"""

import math
import os
import re
import sys
from pathlib import Path

import address
import nbformat
import yaml
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parent.parent
TIMES = ROOT / "book" / "run-times.yml"
WIDGET = "application/vnd.jupyter.widget-view+json"
PATHS = [  # what a stored output may not say of the machine that ran it
    (re.compile(r"/tmp/ipykernel_\d+/\d+\.py"), "/tmp/ipykernel_00000/000000.py"),
    (re.compile(r"/\S*/site-packages/"), "site-packages/"),
    (re.compile(re.escape(str(ROOT)) + "/?"), ""),
    (re.compile(re.escape(str(Path.home())) + r"(?![\w-])"), "~"),
]


def notebooks(names: list[str]) -> list[Path]:
    """The notebooks named, and those in the folders named."""
    found = []
    for path in [(Path(name) if Path(name).exists() else ROOT / name) for name in names or ["book", "labs"]]:
        inside = sorted(p for p in path.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
        found += inside if path.is_dir() else [path]
    return found


def without_paths(value):
    """The same output with the machine's paths taken out of every text in it."""
    if isinstance(value, str):
        for pattern, short in PATHS:
            value = pattern.sub(short, value)
        return value
    if isinstance(value, list):
        return [without_paths(v) for v in value]
    if isinstance(value, dict):
        return type(value)({k: v if k.startswith("image/") else without_paths(v) for k, v in value.items()})
    return value


def clean(nb):
    """Remove run times, machine paths, widget state and the versions of the interpreter from a notebook, in place."""
    nb.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python", "pygments_lexer": "ipython3"},
        }
    )
    nb.nbformat, nb.nbformat_minor = 4, 5
    for i, cell in enumerate(nb.cells):
        cell.setdefault("id", f"cell-{i}")
        for key in ("execution", "collapsed", "ExecuteTime"):
            cell.metadata.pop(key, None)
        if cell.cell_type != "code":
            continue
        for output in cell.outputs:
            output.get("data", {}).pop(WIDGET, None)
            output.pop("transient", None)
        cell.outputs = [without_paths(output) for output in cell.outputs]
    return nb


def run(path: Path):
    """Run one notebook in its own folder; write it only if every cell ran."""
    nb = nbformat.read(path, as_version=4)
    address.write_install_cell(nb)
    client = NotebookClient(
        nb, timeout=600, kernel_name="python3", record_timing=False, coalesce_streams=True,
        resources={"metadata": {"path": str(path.resolve().parent)}},
    )  # fmt: skip
    client.execute()
    nbformat.validate(clean(nb))
    part = path.with_suffix(".part")
    nbformat.write(nb, part)
    os.replace(part, path)


def processor_time() -> float:
    """Seconds of all kernels that have ended: with one thread the time on the clock, whatever else the machine does."""
    return os.times().children_user + os.times().children_system


def note_time(name: str, seconds: float, times: Path = TIMES) -> None:
    """Note how long the notebook ``name`` took, in steps of 5 s; a third or 5 s more or less than noted is noise."""
    noted = yaml.safe_load(times.read_text("utf8"))
    before = noted["seconds"].get(name)
    if before is None or abs(seconds - before) > max(before / 3, 5):
        noted["seconds"][name] = 5 * math.ceil(seconds / 5)
        head = "".join(line for line in times.read_text("utf8").splitlines(True) if line.startswith("#"))
        times.write_text(head + yaml.safe_dump(noted, sort_keys=True), "utf8")


def main():
    os.environ.update(CUDA_VISIBLE_DEVICES="", PYTHONHASHSEED="0")
    failed = []
    for path in notebooks(sys.argv[1:]):
        print(f"{path} ... ", end="", flush=True)
        try:
            start = processor_time()
            run(path)
            print("stored")
            if path.resolve().is_relative_to(ROOT):
                name = path.resolve().relative_to(ROOT).with_suffix("").as_posix()
                note_time(name, processor_time() - start)
        except (CellExecutionError, FileNotFoundError, nbformat.reader.NotJSONError) as error:
            print("FAILED", re.sub(r"\x1b\[[0-9;]*m", "", str(error)), sep="\n")
            failed.append(str(path))
    if failed:
        sys.exit(f"{len(failed)} not stored: {', '.join(failed)}")


if __name__ == "__main__":
    main()
