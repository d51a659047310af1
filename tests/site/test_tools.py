"""The scripts behind the Makefile: what they do, and what they say when something is wrong."""

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tools"
sys.path.insert(0, str(TOOLS))

import address  # noqa: E402
import browser  # noqa: E402
import build  # noqa: E402
import run_notebooks  # noqa: E402


def notebook(*cells, path=None, **metadata):
    """A notebook of code cells; a cell may be (source, tags)."""
    cells = [(cell, []) if isinstance(cell, str) else cell for cell in cells]
    nb = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source, metadata={"tags": tags} if tags else {}) for source, tags in cells],
        metadata=metadata,
    )
    if path:
        nbformat.write(nb, path)
    return nb


def run(script, *options):
    return subprocess.run([sys.executable, TOOLS / script, *map(str, options)], capture_output=True, text=True)


# serve, build, browser


def test_a_busy_port_is_named_with_the_way_out():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        answer = run("serve.py", "--port", port)
    assert (
        answer.returncode == 1
        and answer.stderr == f"Port {port} is in use. Choose another: make book PORT={port + 1}\n"
    )


def test_jupyter_book_2_is_refused(monkeypatch):
    monkeypatch.setattr(build, "version", lambda name: "2.1.7")
    with pytest.raises(SystemExit, match="jupyter-book 2.1.7 is installed, the course needs Jupyter Book 1"):
        build.main()


def test_a_build_without_its_pages_is_noticed(tmp_path):
    (tmp_path / "full.html").write_text("<article>text</article>")
    (tmp_path / "empty.html").write_text("")
    assert build.missing(["full", "empty", "absent"], tmp_path) == ["empty", "absent"]


def test_pages_follow_the_table_of_contents():
    toc = {
        "root": "a",
        "parts": [
            {"caption": "P", "chapters": [{"file": "b", "sections": [{"file": "c"}]}]},
            {"chapters": [{"file": "d"}]},
        ],
    }
    assert build.pages(toc) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("script", ["exit 1", "echo this only names a snap", "sleep 0"])
def test_a_browser_that_does_not_start_is_passed_over(tmp_path, script):
    stub = tmp_path / "chromium"
    stub.write_text(f"#!/bin/sh\n{script}\n")
    stub.chmod(0o755)
    assert not browser.starts(str(stub)) and not browser.starts(str(tmp_path / "absent"))


def test_without_a_browser_the_tests_stop_and_say_so(monkeypatch):
    monkeypatch.setattr(browser, "find", lambda: None)
    monkeypatch.setattr(browser, "install_debian", lambda: None)
    monkeypatch.setattr(browser, "install_playwrights_own", lambda: None)
    with pytest.raises(SystemExit, match="none could be found or installed"):
        browser.main()


# run_notebooks


def test_stored_outputs_say_nothing_of_the_machine_or_the_clock(tmp_path):
    path = tmp_path / "nb.ipynb"
    loud = (
        f"import sys, warnings\nprint('{ROOT}/a.py', sys.prefix + '/lib/site-packages/b.py')\nwarnings.warn('planted')"
    )
    cells = [loud, "import ipywidgets\nipywidgets.IntSlider()", "1 / 3"]
    nb = notebook(*cells, path=path, widgets={"state": 1}, author="me")
    run_notebooks.run(path)
    text, stored = path.read_text("utf8"), nbformat.read(path, as_version=4)
    shown = str([cell.get("outputs") for cell in stored.cells])
    for word in (str(ROOT), str(Path.home()), "widget-view", '"execution"', '"author"'):
        assert word not in shown and (word == str(ROOT) or word not in text)
    assert set(stored.metadata) == {"kernelspec", "language_info"} and "version" not in stored.metadata.language_info
    assert stored.cells[0].outputs[0].text == "a.py site-packages/b.py\n"
    assert stored.cells[2].outputs[0].data["text/plain"] == "0.3333333333333333"
    assert [cell.id for cell in stored.cells] == [cell.id for cell in nb.cells]
    assert [cell.execution_count for cell in stored.cells] == [1, 2, 3]
    run_notebooks.run(path)
    assert path.read_text("utf8") == text


def test_a_failing_cell_stores_nothing_and_is_loud(tmp_path):
    path = tmp_path / "nb.ipynb"
    notebook("x = 1", "raise ValueError('planted')", path=path)
    before = path.read_bytes()
    answer = run("run_notebooks.py", path)
    assert answer.returncode == 1 and "ValueError: planted" in answer.stdout and "1 not stored" in answer.stderr
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_an_expected_error_is_stored(tmp_path):
    path = tmp_path / "nb.ipynb"
    notebook(("raise ValueError('planted')", ["raises-exception"]), path=path)
    run_notebooks.run(path)
    assert nbformat.read(path, as_version=4).cells[0].outputs[0].ename == "ValueError"


def test_folders_and_files_are_found(tmp_path):
    (tmp_path / ".ipynb_checkpoints").mkdir()
    for name in ("b.ipynb", "a.ipynb", ".ipynb_checkpoints/a.ipynb"):
        notebook(path=tmp_path / name)
    assert run_notebooks.notebooks([str(tmp_path)]) == [tmp_path / "a.ipynb", tmp_path / "b.ipynb"]


# address


def test_every_file_shows_the_address_of_the_configuration():
    assert address.update(write=False) == []


@pytest.fixture
def course(tmp_path):
    """A course whose address has just been changed in _config.yml."""
    (tmp_path / "labs").mkdir()
    shutil.copy(ROOT / "_config.yml", tmp_path)
    notebook(
        (address.INSTALL.format(url="https://github.com/a/b", branch="main"), ["install"]),
        path=tmp_path / "labs" / "l.ipynb",
    )
    notebook("import math", path=tmp_path / "labs" / "plain.ipynb")
    notebook("import math", "from genlib import data", path=tmp_path / "labs" / "without.ipynb")
    (tmp_path / "README.md").write_text(
        "github.com/a/b and mybinder.org/v2/gh/a/b/main, not a/bc; " + address.PLACEHOLDER
    )
    config = (tmp_path / "_config.yml").read_text("utf8")
    (tmp_path / "_config.yml").write_text(
        config.replace(address.PLACEHOLDER, "new/home").replace("branch: main", "branch: dev")
    )
    return tmp_path


def test_a_new_address_reaches_every_file(course):
    names = [path.name for path in address.update(course, write=False)]
    assert names == ["l.ipynb", "without.ipynb", "README.md"] and "new/home" not in (course / "README.md").read_text()
    address.update(course)
    assert address.update(course, write=False) == []
    assert (
        course / "README.md"
    ).read_text() == "github.com/new/home and mybinder.org/v2/gh/new/home/main, not a/bc; new/home"
    for name in ("l", "without"):
        cells = nbformat.read(course / "labs" / f"{name}.ipynb", as_version=4).cells
        install = [cell.source for cell in cells if "install" in cell.metadata.get("tags", [])]
        assert install == [address.INSTALL.format(url="https://github.com/new/home", branch="dev")]
