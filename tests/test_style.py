"""The style of code and notebooks, as `make lint` checks it, and the sizes that keep the library readable."""

import subprocess
import sys
from pathlib import Path

import pytest

from genlib.course.checks import LABS

ROOT = Path(__file__).resolve().parent.parent


def ruff(*options, cwd=ROOT):
    return subprocess.run([Path(sys.executable).parent / "ruff", *options], cwd=cwd, capture_output=True, text=True)


@pytest.mark.parametrize("options", [["check"], ["format", "--check"]], ids=["check", "format"])
def test_ruff_finds_nothing(options):
    found = ruff(*options, ".")
    assert found.returncode == 0, found.stdout + found.stderr


def test_ruff_finds_a_fault(tmp_path):
    (tmp_path / "fault.py").write_text("import os\nx = {  1:2}\n")
    assert ruff("check", ".", cwd=tmp_path).returncode and ruff("format", "--check", ".", cwd=tmp_path).returncode


def test_no_family_imports_another():
    for path in (ROOT / "genlib" / "models").glob("*.py"):
        assert "genlib.models" not in path.read_text(), path


def lines(paths) -> int:
    return sum(len(path.read_text().splitlines()) for path in paths)


def test_the_library_stays_small():
    """What models are made of, the suite that checks them, what turns pages into a course, and each lab's checks."""
    files, labs = (
        set((ROOT / "genlib").rglob("*.py")),
        {ROOT / f"{name.replace('.', '/')}.py" for name in LABS.values()},
    )
    course = {path for path in files if path.parent.name == "course"}
    suite = {ROOT / "genlib" / "testing.py"}
    assert lines(files - course - suite) <= 4000 and lines(suite) <= 700 and lines(course - labs) <= 1250
    assert labs <= course and max(lines([path]) for path in labs) <= 330
