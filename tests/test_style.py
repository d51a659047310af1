"""The style of code and notebooks, as `make lint` checks it, and the sizes that keep the library readable."""

import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("inside, most", [(False, 4000), (True, 1500)], ids=["models", "course"])
def test_the_library_stays_small(inside, most):
    """What models need, and beside it what turns pages into a course."""
    files = [path for path in (ROOT / "genlib").rglob("*.py") if (path.parent.name == "course") == inside]
    assert len(files) > 5 and sum(len(path.read_text().splitlines()) for path in files) <= most
