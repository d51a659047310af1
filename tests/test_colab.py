"""Notebooks in Colab: each lab runs there, from its install cell on; and in Binder: what builds its machine.

The environment with the versions of ``colab-versions.txt`` is built once, in ``_build/colab-<hash>``, and kept.
A runtime is a new environment on top of it, in which ``google.colab`` is loaded as Colab's kernel loads it. Git reads
this checkout where the install cell names the published repository, so the cell runs as it stands, to the letter.

``COLAB=all`` runs the chapters too, which takes as long as they take.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
import warnings
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import address  # noqa: E402

VERSIONS = ROOT / "tests" / "colab-versions.txt"
PATHS = sorted([*ROOT.glob("labs/*.ipynb"), *(ROOT.glob("book/*/*.ipynb") if os.environ.get("COLAB") == "all" else [])])
BINDER = ROOT / "binder"
CPU = "https://download.pytorch.org/whl/cpu"  # torch without CUDA: gigabytes less
NO_NETWORK = re.compile(r"NewConnectionError|NameResolutionError|Network is unreachable|Temporary failure in name")
OWN_GENLIB = "import genlib, sys; assert genlib.__file__.startswith(sys.prefix), genlib.__file__"
CLEAN = {k: v for k, v in os.environ.items() if not re.match(r"PYTHON|VIRTUAL_ENV|PYTEST|JUPYTER|IPYTHON|GIT_", k)}
CLEAN |= {"GIT_CONFIG_GLOBAL": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_RETRIES": "3"}


def call(*command, cwd: Path = ROOT, **environment) -> subprocess.CompletedProcess:
    return subprocess.run(command, cwd=cwd, env=CLEAN | environment, capture_output=True, text=True, timeout=1800)


def interpreter() -> tuple[str, str]:
    """Colab's Python where there is one, and else, with a warning, the one that runs the tests: path and version."""
    wanted = re.search(r"^# Python (\d+\.\d+)", VERSIONS.read_text("utf8"), re.M)[1]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [shutil.which(f"python{wanted}"), *sorted(pyenv.glob(f"{wanted}.*/bin/python")), sys.executable]
    for python in filter(None, found):
        said = call(python, "-c", "import ensurepip, platform; print(platform.python_version())")
        if said.returncode == 0:
            if not said.stdout.startswith(f"{wanted}."):
                warnings.warn(
                    f"Colab has Python {wanted}; its versions are tested with {said.stdout.strip()}", stacklevel=2
                )
            return str(python), said.stdout.strip()
    raise RuntimeError("no Python starts")


def reachable(url: str) -> bool:
    try:
        return urllib.request.urlopen(url, timeout=5).status == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def base() -> Path:
    """The site-packages of an environment with Colab's versions, built if need be."""
    python, version = interpreter()
    key = hashlib.sha256(VERSIONS.read_bytes() + version.encode()).hexdigest()[:12]
    folder = ROOT / "_build" / f"colab-{key}"
    folder.parent.mkdir(exist_ok=True)
    with open(folder.parent / "colab.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two workers, or two runs of the tests
        if not (folder / "complete").is_file():
            for old in folder.parent.glob("colab-*/"):
                shutil.rmtree(old)
            pip = [str(folder / "bin" / "python"), "-m", "pip"]
            extra = ["--extra-index-url", CPU] if reachable(CPU + "/torch/") else []
            for step in (
                [python, "-m", "venv", str(folder)],
                [*pip, "install", "-q", "--only-binary", ":all:", "-r", str(VERSIONS), *extra],
                [*pip, "download", "-q", "--no-deps", "-d", str(folder / "wheels"), "setuptools"],  # builds genlib
            ):
                done = call(*step)
                if done.returncode and NO_NETWORK.search(done.stderr) and not reachable("https://pypi.org/simple/pip/"):
                    pytest.skip(
                        f"Colab's versions cannot be had without a network: {NO_NETWORK.search(done.stderr)[0]}"
                    )
                assert done.returncode == 0, done.stderr
            (folder / "complete").touch()
    return folder


def runtime(base: Path, folder: Path) -> Path:
    """The Python of a new runtime in ``folder``."""
    packages = next(base.glob("lib/*/site-packages"))
    done = call(str(base / "bin" / "python"), "-m", "venv", "--without-pip", str(folder))
    assert done.returncode == 0, done.stderr
    own = folder / packages.relative_to(base)
    (own / "google" / "colab").mkdir(parents=True)
    (own / "google" / "colab" / "__init__.py").touch()
    (own / "colab.pth").write_text(f"{packages}\nimport google.colab\n")
    return folder / "bin" / "python"


def published(folder: Path, edits: dict[str, tuple[str, str]]) -> dict[str, str]:
    """Commit the package, some files changed, to a new repository; the settings by which Git reads it for GitHub's."""
    for name in ("pyproject.toml", "README.md", "LICENSE", "genlib", "book/quizzes"):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, target)
    for name, (old, new) in edits.items():
        text = (folder / name).read_text("utf8")
        assert old in text
        (folder / name).write_text(text.replace(old, new), "utf8")
    shutil.copy(ROOT / ".gitignore", folder)
    url, branch = address.configured()
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for step in (["init", "-q", "-b", branch], ["add", "-A"], [*who, "commit", "-qm", "a"]):
        assert call("git", *step, cwd=folder).returncode == 0
    return {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{folder.as_uri()}.insteadOf", "GIT_CONFIG_VALUE_0": url}


def installed(python: Path) -> dict[str, str]:
    return {p["name"]: p["version"] for p in json.loads(call(str(python), "-m", "pip", "list", "--format=json").stdout)}


def faults(base: Path, folder: Path, nb, edits=None, index=False) -> str:
    """What goes wrong when a notebook runs in a new runtime: packages replaced or added, cells that fail or differ.

    ``edits`` maps a file to a change of it. Without ``index`` nothing can be fetched but genlib.
    """
    python = runtime(base, folder / "runtime")
    git = published(folder / "repository", edits or {})
    fetch = {} if index else {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(base / "wheels")}
    kernel = {"argv": [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"], "env": git | fetch}
    spec = folder / "jupyter" / "kernels" / "colab" / "kernel.json"
    for part in (spec.parent, folder / "tests", folder / "content"):
        part.mkdir(parents=True)
    spec.write_text(json.dumps(kernel | {"display_name": "Colab", "language": "python"}))
    for name in ("conftest.py", "pyproject.toml", "tests/sanitize.cfg"):
        shutil.copy(ROOT / name, folder / name)
    nb.cells.append(nbformat.v4.new_code_cell(OWN_GENLIB, execution_count=1))
    for cell in nb.cells:
        if "install" in cell.metadata.get("tags", []):
            cell.metadata.tags.append("nbval-ignore-output")  # pip asks to restart the kernel
    nbformat.write(nb, folder / "content" / "notebook.ipynb")
    before = installed(python)
    options = "addopts=--nbval --nbval-kernel-name colab --nbval-sanitize-with tests/sanitize.cfg --color=no"
    pytest_ = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", options, "content/notebook.ipynb"]
    ran = call(*pytest_, cwd=folder, JUPYTER_PATH=str(folder / "jupyter"), OMP_NUM_THREADS="1")
    after = installed(python)
    new = {name: after.get(name) for name in before | after if after.get(name) != before.get(name)}
    new.pop("genlib", None)
    changed = [f"{name}: {before.get(name)} -> {version}\n" for name, version in new.items()]
    return "".join(changed) + (re.sub(r"\x1b\[[\d;]*m", "", ran.stdout + ran.stderr) if ran.returncode else "")


def notebook(*sources: str):
    """A notebook that installs genlib as every notebook does and then runs these cells, which print nothing."""
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in ("import genlib", *sources)])
    address.write_install_cell(nb)
    for count, cell in enumerate(nb.cells, start=1):
        cell.execution_count = count
    return nb


def test_the_environment_has_colabs_versions(base):
    wanted = dict(re.findall(r"^([\w.-]+)==(\S+)$", VERSIONS.read_text("utf8"), re.M))
    have = {name.lower(): version.split("+")[0] for name, version in installed(base / "bin" / "python").items()}
    assert {name: have[name.lower()] for name in wanted} == wanted and len(wanted) > 20


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_gives_the_stored_outputs(base, tmp_path, path):
    assert faults(base, tmp_path, nbformat.read(path, as_version=4)) == ""


EXPLORE = """import torch
from genlib.course.explore import explore
from genlib.course.live import Lines, Noise, Slider
x = torch.linspace(-1, 1, 9)
found = explore(
    lambda slope, noise: torch.stack([x, slope * x + noise.sum()], 1),
    Slider("slope", 0.1, 2.0, 1.0, log=True),
    Noise(3),
    view=Lines((-1, 1), (-2, 2)),
    name="a",
    alt="A line",
)
slider, button, picture = found.box.children
pictures = [picture.value]
slider.value = 0.5
pictures.append(picture.value)
button.click()
pictures.append(picture.value)
assert len(set(pictures)) == 3 and all(text.startswith("<img") for text in pictures)
bundle = get_ipython().display_formatter.format(found)[0]
assert set(bundle) == {"text/html", "image/png", "text/plain", "application/vnd.jupyter.widget-view+json"}
assert found.page and bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == found.box.comm.comm_id"""


def test_the_widgets_of_explore_work_with_colabs_ipywidgets(base, tmp_path):
    assert faults(base, tmp_path, notebook(EXPLORE)) == ""


def test_a_requirement_that_replaces_a_package_is_found(base, tmp_path):
    found = faults(base, tmp_path, notebook(), {"pyproject.toml": ('"numpy>=2.0"', '"numpy>=2.2"')}, index=True)
    assert re.search(r"^numpy: 2\.1\.3 -> 2\.|No module named 'genlib'", found, re.M), found


def test_cells_that_cannot_run_in_colab_are_found(base, tmp_path):
    planted = {
        "from ipywidgets import Stack": "cannot import name 'Stack'",  # came with ipywidgets 8
        "from genlib import data\ndata.digits();": "digits.npz",  # a file that the package forgets
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\ndel sys.modules['genlib']": f"Error: {ROOT}/genlib",
    }
    found = faults(base, tmp_path, notebook(*planted), {"pyproject.toml": ('["assets/*"]', "[]")})
    assert [words for words in planted.values() if words not in found] == [] and "3 failed, 3 passed" in found, found


# --- Binder ----------------------------------------------------------------------------------------------------------


def test_binder_takes_the_courses_versions_and_a_python_that_the_course_supports():
    lines = (BINDER / "requirements.txt").read_text("utf8").splitlines()
    assert lines[1:] == [f"--extra-index-url {CPU}", "-r ../requirements.txt"]
    assert (BINDER / "runtime.txt").read_text() in ("python-3.11\n", "python-3.12\n", "python-3.13\n")
    assert sorted(path.name for path in BINDER.iterdir()) == ["postBuild", "requirements.txt", "runtime.txt"]


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_binders_script_stops_at_a_command_that_fails(tmp_path, failing):
    """Its Python is replaced by one that counts the calls, and fails at one of them (at none: 0)."""
    script, log, python = BINDER / "postBuild", tmp_path / "log", tmp_path / "python"
    assert script.stat().st_mode & 0o111 and script.read_text("utf8").startswith("#!/usr/bin/env bash\n")
    python.write_text(f'#!/bin/sh\necho "$@" >> {log}\ntest $(wc -l < {log}) -ne {failing}\n')
    python.chmod(0o755)
    done = call(str(script), cwd=tmp_path, PATH=f"{tmp_path}:{os.environ['PATH']}")
    calls = log.read_text().splitlines()
    assert (done.returncode == 0) == (failing == 0) and len(calls) == (failing or 2)
    assert "install" in calls[0] and calls[0].endswith("-e .")
