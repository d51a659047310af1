"""Print the book: LaTeX by Sphinx, a PDF by xelatex in _build/genlib-course.pdf, every fault of either an error."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib
from fontTools.merge import Merger
from fontTools.ttLib import TTFont

ROOT = Path(__file__).resolve().parent.parent
PDF = ROOT / "_build" / "genlib-course.pdf"
PACKAGES = "texlive-xetex texlive-latex-recommended texlive-latex-extra texlive-fonts-recommended latexmk"
NEEDED = ["xelatex", "latexmk"]
TOO_WIDE = 20.0  # points that a line may stick out of its column: 7 mm
FAULTS = re.compile(r"^(?:! .*|Missing character: .*|.*(?:Reference|Citation|Hyper reference) `.*undefined.*)", re.M)


def latex(folder: Path, book: Path = ROOT) -> Path:
    """Write a book as LaTeX below this folder, with every warning an error: the folder of the .tex file.

    Raises RuntimeError with the warnings.
    """
    options = ["--path-output", str(folder), "--all", "--quiet", "--warningiserror", "--nitpick", "--keep-going"]
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", "."]
    built = subprocess.run(
        [*command, "--builder", "latex", *options],
        cwd=book,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if built.returncode:
        raise RuntimeError(f"the book could not be written as LaTeX:\n{built.stdout}")
    fonts(folder / "_build" / "latex" / "fonts")
    return folder / "_build" / "latex"


def fonts(folder: Path) -> None:
    """The site's serif face, from the web's format to one that TeX reads, and matplotlib's face for code."""
    folder.mkdir(parents=True, exist_ok=True)
    web = ROOT / "book" / "_static" / "vendor" / "source-serif-4"
    for face in ("400-normal", "400-italic", "600-normal", "600-italic"):
        parts = []
        for part in sorted(web.glob(f"*-{face}.woff2"), reverse=True):
            font = TTFont(part)
            font.flavor = None
            parts.append(folder / f"{part.stem}.ttf")
            font.save(parts[-1])
        Merger().merge([str(part) for part in parts]).save(folder / f"SourceSerif4-{face}.ttf")
    for file in (Path(matplotlib.get_data_path()) / "fonts" / "ttf").glob("DejaVuSans*.ttf"):
        shutil.copy(file, folder)


def faults(log: str) -> list[str]:
    """What a TeX log complains of: missing characters, undefined references, and lines that stick out too far."""
    log = re.sub(r"(?<=.{79})\n", "", log)  # TeX breaks its lines at 79 characters
    found = FAULTS.findall(log)
    for box in re.findall(r"^Overfull \\hbox \(.*(?:\n.*)?", log, re.M):
        if float(re.search(r"\((\d+\.\d+)pt", box)[1]) > TOO_WIDE:
            found.append(box.replace("\n", " "))
    return found


def typeset(folder: Path, name: str = "genlib-course") -> Path:
    """Run xelatex on ``folder/name.tex`` as often as it takes: the PDF. Raises RuntimeError with what the log says."""
    command = ["latexmk", "-xelatex", "-interaction=nonstopmode", "-halt-on-error", f"{name}.tex"]
    run = subprocess.run(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    log = folder / f"{name}.log"
    found = faults(log.read_text("utf8", errors="replace")) if log.is_file() else [run.stdout[-2000:]]
    if found or run.returncode:
        raise RuntimeError("\n".join(["the book could not be typeset:", *(found or [run.stdout[-2000:]])]))
    return folder / f"{name}.pdf"


def install() -> None:
    """Install Debian's TeX where it is missing, there is apt-get, and we may."""
    may = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if not shutil.which("apt-get") or (may and subprocess.run([*may, "true"], capture_output=True).returncode):
        return
    subprocess.run([*may, "apt-get", "update", "-qq"])
    subprocess.run([*may, "apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES.split()])


def main():
    if not all(map(shutil.which, NEEDED)):
        install()
    if not all(map(shutil.which, NEEDED)):
        sys.exit(f"The PDF needs TeX. Debian, Ubuntu: apt install {PACKAGES}. Elsewhere: TeX Live with xelatex.")
    work = ROOT / "_build" / "pdf"
    shutil.rmtree(work, ignore_errors=True)
    try:
        made = typeset(latex(work))
    except RuntimeError as error:
        sys.exit(str(error))
    shutil.copy(made, PDF)
    print(f"Printed {PDF}")


if __name__ == "__main__":
    main()
