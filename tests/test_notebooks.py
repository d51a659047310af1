"""Notebooks agree with the code: what the comparison of ``conftest.py`` catches, and the form of every notebook.

nbval itself runs the notebooks of book/ and labs/, whenever pytest is given those folders.
"""

import ast
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from collections import Counter
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbformat.v4 import new_code_cell, new_notebook, new_output

from conftest import difference, tolerance

ROOT = Path(__file__).resolve().parent.parent
PATHS = sorted(p for d in ("book", "labs") for p in (ROOT / d).rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
CHAPTERS = [p for p in PATHS if p.is_relative_to(ROOT / "book")]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


# --- when two texts agree -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "new"),
    [
        ("loss 0.12341", "loss 0.12345"),
        ("tensor([0.5000, -1.2500])", "tensor([ 0.5001, -1.2501])"),
        ("1.000e-05", "9.999e-06"),
        ("9.999 nats\n", "10.001 nats\n"),
        ("1.e-05", "1.0004e-05"),
        ("-0.00", "0.00"),
        ("[nan, inf, 3]", "[nan, inf, 3]"),
        ("0.51 of 12, torch 2.13.0", "0.51 of 12, torch 2.13.0"),
        ("12.30s", "12.31s"),
        (f'<img alt="a" src="{"Ab1+" * 60}=="> 3 points', f'<img alt="a" src="{"/9zQ" * 70}"> 3 points'),
    ],
)
def test_agree(stored, new):
    assert difference(stored, new) is None and difference(new, stored) is None


@pytest.mark.parametrize(
    ("stored", "new"),
    [
        ("0.51", "0.50"),
        ("0.1234", "-0.1234"),
        ("1.5e-03", "1.5e-04"),
        ("1.5e-09", "1.5e-10"),
        ("1e-05", "1e-06"),
        ("13 points", "12 points"),
        ("We saw 1000.", "We saw 1001."),
        ("1000", "1000.0"),
        ("nan", "0.5"),
        ("0.5", "nan"),
        ("inf", "1e30"),
        ("inf", "-inf"),
        ("the KDE wins", "the histogram wins"),
        ("0.5 0.6", "0.6 0.5"),
        ("0.5", "0.5 0.5"),
        ("torch 2.13.0", "torch 2.13.1"),
        ("float32", "float64"),
        ("", "0.5"),
        ("True", ""),
        (f"{'Ab1+' * 60} 3 points", f"{'Ab1+' * 60} 4 points"),
        ("Ab1+" * 60, "Ab1+" * 40),
        ("Ab1+" * 40, "Ab2+" * 40),
    ],
)
def test_disagree(stored, new):
    assert difference(stored, new) and difference(new, stored)


def test_a_difference_says_what_and_where():
    assert difference("a loss of 0.50 nats", "a loss of 0.51 nats") == (
        "stored: 0.50\nnow:    0.51    (rtol 0.001, atol 1e-12)"
    )
    assert difference("it has 3 parts", "it has 4 parts") == "stored: 3 parts\nnow:    4 parts"


# --- what a run of a notebook catches: one notebook, a cell a case, True where the cell must pass --------------------

SHOW = "from IPython.display import display\n"
CASES = [
    ("print('ready')", [("stdout", "ready\n")], {}, True),
    ("print(0.12341)", [("stdout", "0.12345\n")], {}, True),
    ("print(0.12341)", [("stdout", "0.1244\n")], {}, False),
    ("print(1.01)", [("stdout", "1.00\n")], {"rtol": 0.02}, True),
    ("print(1.05)", [("stdout", "1.00\n")], {"rtol": 0.02}, False),
    ("print(0.0004)", [("stdout", "-0.0003\n")], {"atol": 1e-3}, True),
    ("print(0.04)", [("stdout", "-0.03\n")], {"atol": 1e-3}, False),
    ("print(1.0)", [("stdout", "1.0\n")], {"rtoll": 0.02}, False),
    ("print(12)", [("stdout", "13\n")], {"rtol": 0.5}, False),
    ("print('the KDE wins')", [("stdout", "the mixture wins\n")], {}, False),
    ("print(float('nan'))", [("stdout", "nan\n")], {}, True),
    ("print(float('nan'))", [("stdout", "0.5\n")], {}, False),
    ("print(0.5)", [], {}, False),
    ("x = 0.5", [("stdout", "0.5\n")], {}, False),
    ("0.12341", [("text/plain", "0.12345")], {}, True),
    ("0.12341;", [], {}, True),
    ("0.12341;", [("text/plain", "0.12341")], {}, False),
    *[
        (f"{SHOW}display({{{mime!r}: 'a 0.12341'}}, raw=True)", [(mime, text)], {}, passes)
        for mime in ("text/markdown", "text/html", "text/latex")
        for text, passes in [("a 0.12345", True), ("a 0.1244", False), ("b 0.12341", False)]
    ],
    (f"{SHOW}display({{'image/png': 'AAAA'}}, raw=True)", [("image/png", "BBBB")], {}, True),
    (f"{SHOW}display({{'image/png': 'AAAA'}}, raw=True)", [], {}, False),
    ("import sys; print('careful', file=sys.stderr)", [], {}, False),
    ("object()", [("text/plain", "<object at 0x7f00deadbeef>")], {}, True),
    (f"print(1)\n{SHOW}display({{'text/html': 'h', 'text/plain': 'p'}}, raw=True)\nprint(2)",
     [("stdout", "1\n2\n"), ("text/plain", "p"), ("text/html", "h")], {}, True),
    ("raise ValueError('no')", [], {}, False),
    ("print('never run')", None, {}, False),
    ("", None, {}, True),
]  # fmt: skip


def small_notebook(cases):
    nb = new_notebook()
    for count, (source, outputs, own, _) in enumerate(cases, start=1):
        cell = new_code_cell(source, execution_count=None if outputs is None else count)
        cell.metadata.update({"nbval": own} if own else {})
        for kind, text in outputs or []:
            stream = kind == "stdout"
            out = new_output("stream", name=kind, text=text) if stream else new_output("display_data", {kind: text})
            cell.outputs.append(out)
        nb.cells.append(cell)
    return nb


def run(folder: Path, notebook: str) -> dict[int, bool]:
    """Run a notebook under the project's own configuration, copied to ``folder``; whether each code cell passed."""
    (folder / "tests").mkdir()
    for file in ("conftest.py", "pyproject.toml", "tests/sanitize.cfg"):
        shutil.copy(ROOT / file, folder / file)
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    for key in ("PYTEST_XDIST_WORKER", "PYTEST_ADDOPTS"):
        environment.pop(key, None)
    command = [sys.executable, "-m", "pytest", "-rA", "--color=no", "-p", "no:cacheprovider", notebook]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    found = re.findall(r"^(PASSED|FAILED) \S+::(Cell|Solution) (\d+)", done.stdout, re.M)
    assert found, done.stdout + done.stderr
    return {int(cell) if kind == "Cell" else f"{kind} {cell}": verdict == "PASSED" for verdict, kind, cell in found}


def test_the_comparison_on_planted_cells(tmp_path):
    nbformat.write(small_notebook(CASES), tmp_path / "cases.ipynb")
    passed = run(tmp_path, "cases.ipynb")
    wrong = [CASES[i] for i in range(len(CASES)) if passed[i] != CASES[i][3]]
    assert not wrong, wrong


def test_the_folded_solutions_run_after_the_cells(tmp_path):
    """In the notebook's own kernel, in order; words and figures are not compared, an error fails."""
    code = ["y = x + 1", "assert y == 2, y", "assert y == 3, y", "print(undefined)"]
    solved = "<details><summary>Solution</summary>\n\nThus:\n\n```python\n{}\n```\n\n</details>"
    hint = "<details><summary>Hint</summary>\n\n```python\nraise ValueError\n```\n\n</details>"
    nb = small_notebook([("x = 1", [], {}, True)])
    nb.cells.append(nbformat.v4.new_markdown_cell("\n\n".join([hint, *map(solved.format, code)])))
    nbformat.write(nb, tmp_path / "solved.ipynb")
    right = {"Solution 1": True, "Solution 2": True, "Solution 3": False, "Solution 4": False}
    assert run(tmp_path, "solved.ipynb") == {0: True, **right}


def test_a_changed_library_or_a_changed_output_fails_a_real_notebook(tmp_path):
    """In a copy, KDE.log_prob is put off by a tenth of a nat, and one stored number of the lab is edited."""
    (tmp_path / "labs").mkdir()
    shutil.copytree(ROOT / "genlib", tmp_path / "genlib", ignore=shutil.ignore_patterns("__pycache__"))
    with open(tmp_path / "genlib/models/density.py", "a") as file:
        file.write("\n\n_right = KDE.log_prob\nKDE.log_prob = lambda self, x: _right(self, x) + 0.1\n")
    nb = nbformat.read(ROOT / "labs/density-estimation.ipynb", as_version=4)
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    uses_kde = [i for i, cell in enumerate(code) if "KDE(" in cell.source]
    edited = next(i for i, cell in enumerate(code) if any("minutes**" in str(o.get("data")) for o in cell.outputs))
    text = code[edited].outputs[0].data["text/markdown"]
    code[edited].outputs[0].data["text/markdown"] = re.sub(r"\d+\.\d+", lambda m: str(float(m[0]) + 0.5), text)
    nbformat.write(nb, tmp_path / "labs/density-estimation.ipynb")
    passed = run(tmp_path, "labs/density-estimation.ipynb")
    assert [i for i, good in passed.items() if not good] == sorted([*uses_kde, edited])
    assert len(passed) == len(code)


# --- the form of every notebook -------------------------------------------------------------------------------------


def read(path):
    nb = nbformat.read(path, as_version=4)
    return nb, [cell for cell in nb.cells if cell.cell_type == "code"]


def problems(path: Path) -> list[str]:
    """What is wrong with the form of a stored notebook."""
    nb, code = read(path)
    found = []
    if (nb.nbformat, nb.nbformat_minor) != (4, 5):
        found.append(f"format {nb.nbformat}.{nb.nbformat_minor}, expected 4.5")
    try:
        nbformat.validate(nb)
    except nbformat.ValidationError as error:
        found.append(f"not valid: {error.message}")
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        found.append(f"cells not run in order 1..{len(code)}: {[cell.execution_count for cell in code]}")
    if not nb.cells or not re.match(r"# \S", nb.cells[0].source):
        found.append("the first cell does not start with a # title")
    if "widgets" in nb.metadata:
        found.append("widget state in the metadata")
    sizes = [len(cell.source.splitlines()) for cell in code]
    if sizes and statistics.median(sizes) > 8:
        found.append(f"the median code cell has {statistics.median(sizes)} lines, expected at most 8")
    for i, cell in enumerate(code):
        where = f"code cell {i}: "
        tags = set(cell.metadata.get("tags", []))
        texts = [json.dumps({k: v for k, v in o.items() if k != "data"}) for o in cell.outputs]
        texts += [str(v) for o in cell.outputs for k, v in o.get("data", {}).items() if not k.startswith("image/")]
        if sizes[i] > 25:
            found.append(f"{where}{sizes[i]} lines, expected at most 25")
        if any(o.output_type == "error" for o in cell.outputs) and "raises-exception" not in tags:
            found.append(f"{where}an error in the outputs")
        if any(o.get("name") == "stderr" for o in cell.outputs):
            found.append(f"{where}a warning in the outputs")
        if re.search(r"(?<![\w.:/-])/(home|root|work|tmp|Users)/", "\n".join([cell.source, *texts])):
            found.append(f"{where}a path of some machine")
        if {"execution", "ExecuteTime"} & set(cell.metadata):
            found.append(f"{where}run times in the metadata")
        if tags & {"nbval-skip", "nbval-ignore-output"} or re.search(r"# *NBVAL_|PYTEST_VALIDATE_IGNORE", cell.source):
            found.append(f"{where}not compared")
        try:
            tolerance(cell)
        except ValueError as error:
            found.append(f"{where}{error}")
        kinds = [o.get("data", {}) for o in cell.outputs]
        shows = any("image/png" in k and "genlib-live" in k.get("text/html", "genlib-live") for k in kinds)
        book = cell.metadata.get("mystnb", {})
        said = [book.get("image", {}).get("alt"), *map(book.get("figure", {}).get, ("caption", "name"))]
        if shows and not all(said):
            found.append(f"{where}a figure without alt text, caption or name")
    return found


def chapter_problems(path: Path) -> list[str]:
    """What a chapter lacks of its skeleton."""
    nb, _ = read(path)
    texts = [cell.source for cell in nb.cells if cell.cell_type == "markdown"]
    text = "\n\n".join(texts)
    box = texts[0] if texts else ""
    wanted = {"Sources": box, "You will be able to": box, "You need": box, "Run time": box}
    found = [f"the first cell lacks {word!r}" for word, place in wanted.items() if word.lower() not in place.lower()]
    heads = ["The question", "Summary", "Quiz", "Exercises", "Further reading"]
    found += [f"no heading {head!r}" for head in heads if not re.search(rf"^#+ {head}\s*$", text, re.M | re.I)]
    exercises = re.search(r"^## Exercises\s*$(.*?)(?=^## |\Z)", text, re.M | re.S | re.I)
    parts = re.split(r"^(?=\*\*\d+\.|\*\*Exercise|### )", exercises[1] if exercises else "", flags=re.M)[1:]
    if not parts:
        found.append("no exercises, each opening with **1. ...** or a ### heading")
    for i, part in enumerate(parts, start=1):
        if not re.search(r"<details>\s*<summary>[^<]*Solution[^<]*</summary>\n\n.*\S.*\n\n</details>", part, re.S):
            found.append(f"exercise {i} has no folded solution with blank lines around it")
    return found


@pytest.mark.parametrize("path", PATHS, ids=name)
def test_form(path):
    assert problems(path) == []


@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_skeleton_of_a_chapter(path):
    assert chapter_problems(path) == []


def definitions(path: Path) -> list[str]:
    """The functions and classes that a notebook defines at top level."""
    plain = TransformerManager().transform_cell
    bodies = [node for cell in read(path)[1] for node in ast.parse(plain(cell.source)).body]
    return [node.name for node in bodies if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))]


def repeated(paths, names) -> dict[str, list[str]]:
    """The names that more than one notebook uses."""
    by_path = {name(path): set(names(path)) for path in paths}
    count = Counter(n for found in by_path.values() for n in found)
    return {n: [p for p, found in by_path.items() if n in found] for n, times in count.items() if times > 1}


def figures(path: Path) -> list[str]:
    marked = [cell.metadata.get("mystnb", {}).get("figure", {}).get("name") for cell in read(path)[1]]
    assert len(set(marked) - {None}) == len([m for m in marked if m]), f"{path}: two figures share a name"
    return [m for m in marked if m]


def test_no_function_is_defined_in_two_notebooks():
    assert repeated(PATHS, definitions) == {}


def test_no_figure_name_is_used_twice():
    assert repeated(PATHS, figures) == {}


def planted(tmp_path, **changes):
    """A notebook in good form, with some of its parts changed."""
    cell = new_code_cell("x = 1", execution_count=1, id="a")
    for key, value in changes.items():
        cell[key] = value
    nb = new_notebook(cells=[nbformat.v4.new_markdown_cell("# Title", id="b"), cell])
    nb.nbformat_minor = 5
    path = tmp_path / "planted.ipynb"
    nbformat.write(nb, path)
    return path


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, None),
        ({"execution_count": None}, "in order"),
        ({"execution_count": 7}, "in order"),
        ({"source": "\n".join(["x = 1"] * 26)}, "at most 25"),
        ({"source": "\n".join(["x = 1"] * 9)}, "at most 8"),
        ({"source": "open('/home/me/x')"}, "path"),
        ({"source": "# see https://a.org/work/x, a/tmp/b and ./tmp/c"}, None),
        ({"outputs": [new_output("stream", name="stdout", text="/work/x.py:3")]}, "path"),
        ({"outputs": [new_output("stream", name="stderr", text="careful")]}, "warning"),
        ({"outputs": [new_output("error", ename="E", evalue="e", traceback=[])]}, "error"),
        ({"metadata": {"execution": {"iopub.execute_input": "2026"}}}, "run times"),
        ({"metadata": {"tags": ["nbval-ignore-output"]}}, "not compared"),
        ({"source": "# NBVAL_SKIP\nx = 1"}, "not compared"),
        ({"metadata": {"nbval": {"rtol": 7}}}, "rtol"),
        ({"outputs": [new_output("display_data", {"image/png": "A"})]}, "alt text"),
        ({"outputs": [new_output("display_data", {"image/png": "A", "text/html": "genlib-live"})]}, "alt text"),
        ({"outputs": [new_output("display_data", {"image/png": "A", "text/html": "a table"})]}, None),
    ],
)
def test_a_fault_of_form_is_caught(tmp_path, changes, word):
    found = problems(planted(tmp_path, **changes))
    assert (found == []) if word is None else word in " ".join(found), found


GOOD = """# Title
**Sources.** a **You will be able to** b **You need** c **Run time.** d

## The question

## Summary

## Quiz

## Exercises

**1. Do it.** How?

<details><summary>Solution</summary>

So.

</details>

## Further reading
"""


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("", "", None),
        ("**Sources.**", "", "Sources"),
        ("**Run time.**", "", "Run time"),
        ("## Summary", "", "Summary"),
        ("## Quiz", "", "Quiz"),
        ("**1. Do it.** How?", "", "no exercises"),
        ("\n\nSo.\n", "\nSo.\n", "exercise 1"),
        ("## Further", "**2. And this.** Why?\n\n## Further", "exercise 2"),
    ],
)
def test_a_fault_of_a_chapter_is_caught(tmp_path, old, new, word):
    nbformat.write(new_notebook(cells=[nbformat.v4.new_markdown_cell(GOOD.replace(old, new))]), tmp_path / "a.ipynb")
    found = chapter_problems(tmp_path / "a.ipynb")
    assert (found == []) if word is None else (len(found) == 1 and word in found[0]), found
