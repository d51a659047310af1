"""Build the book into _build/html with every warning an error, and make sure that its pages are there."""

import fcntl
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build" / "html"


def pages(toc: dict) -> list[str]:
    """Every page of a table of contents, in reading order."""
    found = [toc[key] for key in ("root", "file") if key in toc]
    for key in ("parts", "chapters", "sections"):
        for entry in toc.get(key, []):
            found += pages(entry)
    return found


def missing(names: list[str], html: Path = HTML) -> list[str]:
    """The pages that were not built, or were built without an article in them."""
    files = {name: html / f"{name}.html" for name in names}
    return [name for name, file in files.items() if not file.is_file() or "<article" not in file.read_text("utf8")]


def main():
    installed = version("jupyter-book")
    if not installed.startswith("1."):
        sys.exit(
            f"jupyter-book {installed} is installed, the course needs Jupyter Book 1: rm -rf .venv, then make html"
        )
    HTML.parent.mkdir(exist_ok=True)
    with open(HTML.parent / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two builds at once would write over each other
        shutil.rmtree(HTML, ignore_errors=True)  # pages that left the table of contents must not stay
        # --all: a page that is not read again does not repeat its warnings, so a second build would pass
        options = ["--path-output", ".", "--all", "--quiet", "--warningiserror", "--nitpick", "--keep-going"]
        command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", ".", *options]
        built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    names = pages(yaml.safe_load((ROOT / "_toc.yml").read_text("utf8")))
    absent = missing(names)
    if built.returncode or absent:
        print(built.stdout)
        sys.exit(f"The book was not built: {'no ' + ', '.join(absent) if absent else 'see the warnings above'}")
    print(f"Built {len(names)} pages: {HTML / 'index.html'}")


if __name__ == "__main__":
    main()
