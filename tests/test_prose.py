"""What the text may say: no measured number typed by hand, no misspelt word, no citation without an entry."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(
    p for d in ("book", "labs") for p in (ROOT / d).rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts
)
PAGES = sorted([*ROOT.glob("*.md"), *(p for p in ROOT.glob("book/**/*.md") if "_static" not in p.parts)])
FILES = [*NOTEBOOKS, *PAGES]

# What holds decimals that are no measurements. Each is replaced by a space, in this order.
NOT_PROSE = [
    re.compile(pattern, flags)
    for pattern, flags in [
        (r"\A---\n.*?\n---\n", re.S),  # front matter
        (r"^(`{3,}|~{3,})(?!\{)[^\n]*\n.*?^\1", re.S | re.M),  # a fence, unless a directive whose body is prose
        (r"^(`{3,}|~{3,})\{(?:code|code-block|code-cell|math|raw)\}.*?^\1", re.S | re.M),
        (r"^[`~:]{3,}(\{[\w-]+\})?", re.M),  # the ends of a directive
        (r"^:[\w-]+:.*$", re.M),  # and its options
        (r"^%.*$", re.M),  # a comment of MyST
        (r"\$\$.*?\$\$|\\begin\{(\w+\*?)\}.*?\\end\{\1\}", re.S),
        (r"(?<=\])\([^)\s]*\)|<[^>]+>|https?://\S+|\barXiv:\s?\S+", 0),
    ]
]
SPAN = re.compile(r"(?<!\\)\$(?P<math>[^$]+)\$|(?P<ticks>`+)(?P<code>.+?)(?P=ticks)", re.S)
BARE = re.compile(r"[-+\s]*(\d*\.\d+)\s*(?:\\?%)?\s*")
NAMED = re.compile(  # versions, licences and the numbers of sections
    r"(?:\b(?:Python|PyTorch|NumPy|Debian|BY|BY-SA|Attribution|WCAG|version|section|figure|table|equation|chapter)s?|§)"
    r"\s?\d+\.\d+(?:(?:,| or| and| to|–|-)\s?\d+\.\d+)*",
    re.I,
)
DECIMAL = re.compile(r"(?<![\w.])(?![01]\.0\b)\d*\.\d+(?![\w.]*\d)")
CITATION = re.compile(r"\{cite(?::\w+)?\}`([^`]+)`")
SENTENCE = re.compile(r"(?<=[.!?:])[*_)\"]*\s+(?=[*_(\"\[]*[A-Z\0])|\n\s*\n|\n(?=\s*(?:[-*+]|\d+\.|#+|:::+)\s)")


def typed_decimals(text: str) -> list[str]:
    """The sentences with a measured decimal and no citation. A table is one: a citation in its head serves all rows."""
    for pattern in NOT_PROSE:
        text = pattern.sub(" ", text)

    def span(match):
        """Keep a citation, and a bare number of three digits or more, which quotes a result; drop all else."""
        content = match["math"] or match["code"]
        before = match.string[: match.start()]
        if role := re.search(r"\{(\S+)\}$", before):
            return f"`{content}`" if role[1].startswith("cite") else "\0"
        bare = BARE.fullmatch(content)
        return f" {bare[1]} " if bare and len(bare[1].replace(".", "").lstrip("0")) >= 3 else "\0"

    text = NAMED.sub(" ", SPAN.sub(span, text))
    return [" ".join(s.split()) for s in SENTENCE.split(text) if s and DECIMAL.search(s) and not CITATION.search(s)]


def markdown(path: Path) -> list[str]:
    """The Markdown of a page or of each Markdown cell of a notebook."""
    if path.suffix == ".md":
        return [path.read_text("utf8")]
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=name)
def test_measured_numbers_are_printed_by_code_or_cited(path):
    found = [sentence for text in markdown(path) for sentence in typed_decimals(text)]
    assert not found, "print it from a cell with Markdown(f'...'), or cite its source:\n" + "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "MADE reaches 88.4 nats.",
        "The loss falls to .25 in ten steps.",
        "An error of **0.51**.",
        "It is 12.5% better.",
        "It is -3.25 nats.",
        "The KDE wins $0.534$ to nothing.",
        "The score is `88.40`.",
        "As {cite}`germain2015` says, it works. Here we get 88.4 nats.",
        "We get 88.4 nats. As {cite}`germain2015` says, it works.",
        "- first\n- the second took 2.5 minutes\n\nSee {cite}`germain2015`.",
        "| model | nats |\n|---|---|\n| ours | 88.4 |",
        ":::{admonition} Careful\nThe error is 0.71 there.\n:::",
        "```{note}\nThe error is 0.71 there.\n```",
        "<details><summary>Solution</summary>\n\nYou get 0.71.\n\n</details>",
        "On Python 3.11 it takes 2.5 minutes.",
        "Then `x` is 0.71 and `y` is large.",
        "about 1.5e-3 in the end",
    ],
)
def test_a_typed_result_is_caught(text):
    assert len(typed_decimals(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "MADE reaches 88.40 nats {cite}`germain2015`.",
        "In {cite}`germain2015`, Table 2, MADE reaches 88.40 nats, against 84.55 for the model above.",
        "{cite:t}`germain2015` report 88.40 nats.",
        "| model | nats {cite}`germain2015` |\n|---|---|\n| MADE | 88.40 |",
        "Take `lr=0.001` and $h = 1.06 \\sigma n^{-1/5}$, or $0.5$.",
        "$$x = 0.25 y + 0.125$$",
        "```python\nx = 0.71\n```",
        "~~~\n0.71\n~~~",
        "```{code-block} python\nx = 0.71\n```",
        "[here](https://a.org/v1.25/x) and <https://a.org/2.5> and https://a.org/2.55 and arXiv:1503.03585",
        "Python 3.11, 3.12 or 3.13, PyTorch 2.13, version 0.1, release 1.0.4, CC BY 4.0, WCAG 2.1",
        "See section 2.1 and Figure 4.2.",
        "Binary data are 0.0 and 1.0.",
        '```{figure} a.png\n:width: 0.5\n```\n<img alt="0.71" width="0.5">',
        "1. First. 2. Second, 3,000 points, the year 2015.",
        "% measured: 0.71",
        "---\ntitle: 0.71\n---\nText.",
    ],
)
def test_other_decimals_pass(text):
    assert typed_decimals(text) == []


def test_spelling(tmp_path):
    """codespell over the Markdown cells, the pages and the code; outputs and figures would only confuse it."""
    for path in FILES:
        (tmp_path / name(path).replace("/", "-")).with_suffix(".md").write_text("\n\n".join(markdown(path)), "utf8")
    code = [*ROOT.glob("genlib/**/*.py"), *ROOT.glob("tests/*.py"), *ROOT.glob("tools/**/*.py"), ROOT / "conftest.py"]
    command = [sys.executable, "-m", "codespell_lib", "--builtin", "clear,rare", *map(str, code), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_spelling_would_be_caught(tmp_path):
    (tmp_path / "a.md").write_text("We recieve data.")  # codespell:ignore recieve
    done = subprocess.run([sys.executable, "-m", "codespell_lib", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode != 0 and "receive" in done.stdout


def test_every_citation_has_an_entry():
    known = set(re.findall(r"^@\w+\{([^,\s]+),", (ROOT / "book/references.bib").read_text("utf8"), re.M))
    cited = {
        (key.strip(), name(path))
        for path in FILES
        for text in markdown(path)
        for keys in CITATION.findall(text)
        for key in keys.split(",")
    }
    assert sorted((key, page) for key, page in cited if key not in known) == []


@pytest.mark.parametrize("path", [p for p in FILES if p.is_relative_to(ROOT / "labs")], ids=name)
def test_labs_use_no_markup_that_colab_cannot_show(path):
    for text in markdown(path):
        assert not re.search(r"\{\w+(?::\w+)?\}`|^:::|^```\{", text, re.M), text
