"""Notebooks run as tests: nbval runs every cell of book/ and labs/, and this file decides when two outputs agree.

Words and whole numbers agree exactly. Numbers with a decimal point or an exponent agree within RTOL of the stored one,
or within ATOL; a cell widens that in its metadata: ``{"nbval": {"rtol": 0.02, "atol": 1e-3}}``. Text, HTML, Markdown
and LaTeX are compared, figures only counted, and so are the pictures and weights that HTML carries in base64. White
space is not compared, since a longer number moves a column. A cell that was never run fails.

After the cells of a notebook in book/, the code of its folded solutions runs in the same kernel: it must not raise.

It stands at the root, and not in tests/, so that ``pytest book/foundations/one.ipynb`` loads it too.
"""

import math
import re
import shutil
import tempfile
from collections import defaultdict

import pytest
from nbformat.v4 import new_code_cell
from nbval.kernel import RunningKernel
from nbval.plugin import IPyNbCell, IPyNbFile

RTOL, ATOL = 1e-3, 1e-12
# Not part of a word or a version (1.2.3), and "12." is a whole number that ends a sentence.
DECIMAL = re.compile(r"(?<![\w.])[-+]?(?:\d*\.\d+|\d+\.?(?=[eE][-+]?\d))(?:[eE][-+]?\d+)?(?!\.?\d)")
PROFILE, PATCH = pytest.StashKey[str](), pytest.MonkeyPatch()
SOLUTION = re.compile(r"<details>\s*<summary>[^<]*Solution[^<]*</summary>(.*?)</details>", re.S)
PYTHON = re.compile(r"^```python\n(.*?)^```", re.S | re.M)
BASE64 = re.compile(r"[A-Za-z0-9+/]{200,}={0,2}")


def difference(stored: str, new: str, rtol: float = RTOL, atol: float = ATOL) -> str | None:
    """What makes two texts disagree, in words, or None when they agree."""
    stored, new = (BASE64.sub("(base64)", text) for text in (stored, new))
    words, new_words = (DECIMAL.sub(" \0 ", text).split() for text in (stored, new))
    if words != new_words:
        at = next((i for i, (a, b) in enumerate(zip(words, new_words, strict=False)) if a != b), len(words))
        a, b = (" ".join(w[at : at + 6]).replace("\0", "(decimal)") or "(nothing)" for w in (words, new_words))
        return f"stored: {a}\nnow:    {b}"
    for a, b in zip(DECIMAL.findall(stored), DECIMAL.findall(new), strict=True):
        if not math.isclose(float(a), float(b), rel_tol=rtol, abs_tol=atol):
            return f"stored: {a}\nnow:    {b}    (rtol {rtol:g}, atol {atol:g})"
    return None


def tolerance(cell) -> dict[str, float]:
    """The cell's own ``rtol`` and ``atol``; a misspelt key or a band that compares nothing is an error."""
    for key, value in cell.metadata.get("nbval", {}).items():
        if key not in ("rtol", "atol") or type(value) not in (int, float) or not 0 <= value <= 0.5:
            raise ValueError(f'cell metadata "nbval": expected rtol or atol between 0 and 0.5, got {key!r}: {value!r}')
    return dict(cell.metadata.get("nbval", {}))


def by_kind(outputs, sanitize) -> dict[str, list]:
    """What the outputs show, by stream or mime type: stored and live outputs list their types in different orders."""
    kinds = defaultdict(list)
    for output in outputs:
        if output.output_type == "stream":
            kinds[output.name].append(sanitize(output.text))
        elif output.output_type == "error":
            kinds["error"].append(sanitize(f"{output.ename}: {output.evalue}"))
        for mime, value in output.get("data", {}).items():
            if mime != "application/vnd.jupyter.widget-view+json":  # a random id
                kinds[mime].append("" if mime.startswith("image/") else sanitize(value))
    return kinds


def compare_outputs(self, test, ref, skip_compare=None) -> bool:
    """Replaces nbval's comparison, which is character by character."""
    stored, new, limits = by_kind(ref, self.sanitize), by_kind(test, self.sanitize), tolerance(self.cell)
    self.comparison_traceback = []
    for kind in sorted(stored.keys() | new.keys()):
        if len(stored[kind]) != len(new[kind]):
            self.comparison_traceback.append(f"{kind}: {len(stored[kind])} stored, {len(new[kind])} now")
        for a, b in zip(stored[kind], new[kind], strict=False):
            texts = isinstance(a, str) and isinstance(b, str)
            found = difference(a, b, **limits) if texts else None if a == b else f"stored: {a}\nnow:    {b}"
            if found:
                self.comparison_traceback.append(f"{kind}\n{found}")
    return not self.comparison_traceback


def execute_cell_input(self, cell_input, allow_stdin=None):
    """Replaces nbval's, which runs cells without history: a trailing semicolon then fails to silence a cell."""
    return self.kc.execute(cell_input, allow_stdin=allow_stdin, stop_on_error=False, store_history=True)


def solutions(nb) -> list[str]:
    """The code of each folded solution of a notebook."""
    texts = (cell.source for cell in nb.cells if cell.cell_type == "markdown")
    return ["\n".join(PYTHON.findall(solution)) for text in texts for solution in SOLUTION.findall(text)]


def collect(self, cells=IPyNbFile.collect):
    """nbval's cells, then the solutions as cells of their own; those of a lab are the tests of the labs' matter."""
    yield from cells(self)
    for i, source in enumerate(solutions(self.nb) if "labs" not in self.path.parts else [], start=1):
        cell = new_code_cell(source, metadata={"solution": True})
        yield IPyNbCell.from_parent(self, name=f"Solution {i}", cell_num=i, cell=cell, options=defaultdict(bool))


IPyNbFile.collect = collect
IPyNbCell.compare_outputs = compare_outputs
RunningKernel.execute_cell_input = execute_cell_input


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item):
    """nbval passes a cell that was never run: it has nothing to compare with."""
    if not isinstance(item, IPyNbCell) or "solution" in item.cell.metadata:
        return
    if item.cell.execution_count is None and item.cell.source.strip():
        item.raise_cell_error("the cell was never run: it has no stored outputs to compare with")


def pytest_configure(config):
    """An IPython profile of the tests' own, since the user's startup files can change an output."""
    config.stash[PROFILE] = tempfile.mkdtemp(prefix="ipython-")
    PATCH.setenv("IPYTHONDIR", config.stash[PROFILE])


def pytest_unconfigure(config):
    PATCH.undo()
    shutil.rmtree(config.stash[PROFILE], ignore_errors=True)
