"""Write the repository's address, which stands in _config.yml alone, wherever a reader needs it.

    python tools/address.py            writes
    python tools/address.py --check    names the files that would change, and fails if there are any

In a notebook that imports genlib, the cell tagged `install` gets genlib when the notebook runs in Colab; a notebook
without such a cell is given one, hidden in the book. In the README and the like the new name replaces the old one.
"""

import re
import sys
from pathlib import Path

import nbformat
import yaml

ROOT = Path(__file__).resolve().parent.parent
PLACEHOLDER = "deep-generative-models/course-that-runs"
TEXTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "pyproject.toml", "book/teaching.md"]
INSTALL = """import sys

if "google.colab" in sys.modules:
    %pip install -q "genlib @ git+{url}@{branch}"\
"""


def configured(root: Path = ROOT) -> tuple[str, str]:
    """The address and the branch of the repository."""
    repository = yaml.safe_load((root / "_config.yml").read_text("utf8"))["repository"]
    return repository["url"].removesuffix("/").removesuffix(".git"), repository["branch"]


def owner_and_name(url: str) -> str:
    return "/".join(url.split("/")[-2:])


def write_install_cell(nb, root: Path = ROOT) -> set[str]:
    """Put the address into the notebook's install cell, made where it is needed; returns the addresses it replaced."""
    url, branch = configured(root)
    cells = [cell for cell in nb.cells if "install" in cell.metadata.get("tags", [])]
    code = [(i, cell.source) for i, cell in enumerate(nb.cells) if cell.cell_type == "code"]
    imports = [i for i, source in code if re.search(r"^(from|import) genlib", source, re.M)]
    if imports and not cells:
        cells = [nbformat.v4.new_code_cell(metadata={"tags": ["install", "remove-cell"]}, id="install")]
        nb.cells.insert(min(1, imports[0]), cells[0])
    old = set()
    for cell in cells:
        shown = re.search(r"git\+(https?://[^\s\"@]+)@[^\s\"]+", cell.source)
        if shown:
            old.add(shown[1])
            cell.source = cell.source.replace(shown[0], f"git+{url}@{branch}")
        else:
            cell.source = INSTALL.format(url=url, branch=branch)
    return old - {url}


def update(root: Path = ROOT, write: bool = True) -> list[Path]:
    """Write the address into every file that shows it; returns the files that changed, or would have."""
    changed, old = [], {PLACEHOLDER}
    for path in sorted([*root.glob("book/**/*.ipynb"), *root.glob("labs/**/*.ipynb")]):
        if ".ipynb_checkpoints" in path.parts:
            continue
        nb = nbformat.read(path, as_version=4)
        before = nbformat.writes(nb)
        old.update(owner_and_name(url) for url in write_install_cell(nb, root))
        if nbformat.writes(nb) != before:
            changed.append(path)
            if write:
                nbformat.write(nb, path)
    new = owner_and_name(configured(root)[0])
    for path in (root / name for name in TEXTS if (root / name).is_file()):
        before = after = path.read_text("utf8")
        for name in old:
            after = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", new, after)
        if after != before:
            changed.append(path)
            if write:
                path.write_text(after, "utf8")
    return changed


def main():
    check = "--check" in sys.argv[1:]
    changed = update(write=not check)
    for path in changed:
        print(path.relative_to(ROOT))
    if check and changed:
        sys.exit("These files do not show the address of _config.yml: run make address")


if __name__ == "__main__":
    main()
