"""The printed book: its LaTeX holds all that the notebooks show; where TeX is installed, so does the PDF."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import build  # noqa: E402
import pdf  # noqa: E402
import tex  # noqa: E402

PAGES = [
    page
    for page in build.pages(yaml.safe_load((ROOT / "_toc.yml").read_text("utf8")))
    if page not in tex.ON_SCREEN_ONLY
]
SOURCES = {
    page: next(ROOT / f"{page}{kind}" for kind in (".md", ".ipynb") if (ROOT / f"{page}{kind}").is_file())
    for page in PAGES
}
CELLS = {
    page: json.loads(file.read_text("utf8"))["cells"]
    if file.suffix == ".ipynb"
    else [{"cell_type": "markdown", "source": file.read_text("utf8"), "metadata": {}}]
    for page, file in SOURCES.items()
}
HIDDEN = {"hide-input", "remove-input", "hide-cell", "remove-cell"}
needs_tex = pytest.mark.skipif(not all(map(shutil.which, pdf.NEEDED)), reason=f"no TeX: apt install {pdf.PACKAGES}")


def squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)


def cells(kind: str):
    """Source, metadata and outputs of every cell of this type in the printed pages."""
    for page in PAGES:
        for cell in CELLS[page]:
            if cell["cell_type"] == kind:
                yield "".join(cell["source"]), cell["metadata"], cell.get("outputs", [])


def prose() -> str:
    """The Markdown of all pages without code blocks."""
    return re.sub(r"^```\w.*?^```", "", "\n\n".join(source for source, *_ in cells("markdown")), flags=re.M | re.S)


def code_of(source: str) -> str:
    """The code blocks of a LaTeX file as they were typed, without spaces."""
    blocks = "".join(re.findall(r"\\begin\{sphinxVerbatim\}\[.*?\]\n(.*?)\\end\{sphinxVerbatim\}", source, re.S))
    signs = {"ob": "\0", "cb": "\1", "bs": "\\", "us": "_", "ca": "^", "sh": "#", "pc": "%", "dl": "$", "hy": "-",
             "sq": "'", "dq": '"', "ti": "~", "am": "&", "lt": "<", "gt": ">"}  # fmt: skip
    blocks = re.sub(r"\\PYGZ(\w\w)\{\}", lambda sign: signs[sign[1]], blocks)
    blocks = re.sub(r"\\PYG\{[^}]*\}\{|\\textcolor\{.*?\}\{|[{}]", "", blocks)
    return squeezed(blocks.replace("\0", "{").replace("\1", "}"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return pdf.latex(tmp_path_factory.mktemp("book"))


@pytest.fixture(scope="module")
def source(folder):
    return (folder / "genlib-course.tex").read_text("utf8")


@pytest.fixture(scope="module")
def printed(folder):
    """The PDF."""
    return pdf.typeset(folder)


def test_latex_holds_every_figure_and_every_live_models_picture(folder, source):
    files = {hashlib.sha256(file.read_bytes()).hexdigest(): file.stem for file in folder.glob("*.png")}
    pictures = [
        base64.b64decode("".join(output["data"]["image/png"]))
        for _, metadata, outputs in cells("code")
        for output in outputs
        if "image/png" in output.get("data", {}) and "remove-output" not in metadata.get("tags", [])
    ]
    assert len(pictures) > 30
    for picture in pictures:
        assert f"{{{files[hashlib.sha256(picture).hexdigest()]}}}.png" in source


def test_latex_holds_every_caption(source):
    captions = [m["mystnb"]["figure"]["caption"] for _, m, _ in cells("code") if "figure" in m.get("mystnb", {})]
    assert source.count("\\caption{") == len(captions) > 30
    words = squeezed(re.sub(r"\\sphinxhyphen\{\}", "-", source))
    for caption in captions:
        plain = max(re.split(r"[$*`{}\\\"'’&%_]", caption), key=len)
        assert squeezed(plain) in words, caption


def test_latex_holds_every_display_formula(source):
    formulas = re.findall(r"\$\$(.+?)\$\$", prose(), re.S)
    squeezed_source = squeezed(source)
    assert len(formulas) > 30
    assert [formula for formula in formulas if squeezed(formula) not in squeezed_source] == []


def test_latex_holds_the_code_that_is_shown_and_no_other(source):
    code = code_of(source)
    shown = [text for text, m, _ in cells("code") if not HIDDEN & set(m.get("tags", []))]
    assert len(shown) > 80
    assert [text for text in shown if squeezed(text) not in code] == []
    hidden = [text for text, m, _ in cells("code") if HIDDEN & set(m.get("tags", [])) and len(text) > 100]
    assert len(hidden) > 20
    assert [text for text in hidden if squeezed(text) in code] == []


def test_latex_holds_every_citation(source):
    cited = [key for keys in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", prose()) for key in keys.split(",")]
    assert len(cited) > 40
    assert source.count("\\hyperlink{cite.") == len(cited)
    assert source.count("\\bibitem[") == len({key.strip() for key in cited})


def test_latex_holds_every_solution_under_its_title(source):
    titles = re.findall(r"<summary[^>]*>(.*?)</summary>", prose())
    boxes = re.findall(
        r"\\begin\{sphinxuseclass\}\{solution\}\n\\sphinxAtStartPar\n\\sphinxstylestrong\{(.*?)\}", source
    )
    assert len(titles) > 30
    assert boxes == titles


def test_latex_holds_the_quizzes(source):
    quizzes = [
        "".join(output["data"]["text/markdown"])
        for _, _, outputs in cells("code")
        for output in outputs
        if "genlib-quiz" in "".join(output.get("data", {}).get("text/html", []))
    ]
    for quiz in quizzes:
        plain = max(re.split(r"[$*`{}\\\"'’\n-]", quiz), key=len)
        assert squeezed(plain) in squeezed(source)


def test_chapters_are_numbered_as_on_the_site(source):
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf8"))
    for part in toc["parts"]:
        start = source.index(rf"\courseopenpart{{{part['caption']}}}")
        for entry in part["chapters"]:
            if entry["file"] in PAGES:
                at = source.index(rf"\detokenize{{{entry['file']}::doc}}", start)
                number = max(("numbered", "unnumbered"), key=lambda kind: source.rfind(rf"\course{kind}", 0, at))
                assert number == ("numbered" if part.get("numbered") else "unnumbered"), entry


@needs_tex
def test_the_pdf_is_whole(printed, source):
    tools = [tool for tool in ("pdftotext", "pdfimages", "pdffonts") if not shutil.which(tool)]
    if tools:
        pytest.skip(f"no {tools[0]}: apt install poppler-utils")
    run = lambda *command: subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: E731
    text = squeezed(run("pdftotext", str(printed), "-"))
    titles = [re.search(r"^# (.+)", "".join(CELLS[page][0]["source"]), re.M)[1] for page in PAGES[1:]]
    for sentence in [
        *titles,
        "About this course",
        "A generative model learns a distribution from examples.",
        "Fig. 1.1",
    ]:
        assert squeezed(sentence) in text
    assert "??" not in text
    images = [line for line in run("pdfimages", "-list", str(printed)).splitlines()[2:] if line.split()[2] == "image"]
    assert len(images) == source.count("\\sphinxincludegraphics[")
    fonts = run("pdffonts", str(printed)).splitlines()[2:]
    assert any("SourceSerif4" in font for font in fonts) and any("DejaVuSansMono" in font for font in fonts)
    assert all(font.split()[-5] == "yes" for font in fonts), "a font is not embedded"


# The checks can fail: a book of one page, with one fault.


@pytest.fixture
def small(tmp_path):
    """Write a book of one page with this text as LaTeX."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text("utf8"))
    config["sphinx"]["local_extensions"] = {"site_extension": "tools", "tex": "tools"}
    book = tmp_path / "small"
    (book / "book").mkdir(parents=True)
    for name in ("tools", "book/_static", "book/references.bib"):
        (book / name).symlink_to(ROOT / name)
    (book / "_config.yml").write_text(yaml.safe_dump(config), "utf8")
    (book / "_toc.yml").write_text(
        "format: jb-book\nroot: index\nparts: [{caption: Part, numbered: true, chapters: [{file: page}]}]\n", "utf8"
    )
    (book / "index.md").write_text("# A book\n\nIt has one page.\n", "utf8")

    def write(text):
        (book / "page.md").write_text(f"# A page\n\n{text}\n", "utf8")
        return pdf.latex(tmp_path / "out", book)

    return write


@pytest.mark.parametrize("text", ["![a picture](absent.png)", "[to nowhere](#absent)", "{cite}`absent2026`"])
def test_a_fault_in_a_page_stops_the_build(small, text):
    with pytest.raises(RuntimeError, match="absent"):
        small(text)


@needs_tex
@pytest.mark.parametrize(
    "text, complaint",
    [
        (r"$$\nosuchmacro$$", "Undefined control sequence"),
        ("A character that the face does not have: \u6587", "Missing character"),
        ("`" + 130 * "m" + "`", "Overfull"),
    ],
)
def test_a_fault_that_tex_sees_stops_the_print(small, text, complaint):
    with pytest.raises(RuntimeError, match=complaint):
        pdf.typeset(small(text))


@needs_tex
def test_a_good_page_is_printed(small):
    solution = "<details>\n<summary>Solution</summary>\n\nSo.\n\n</details>"
    made = pdf.typeset(small(f"Text, $x \\to y$, ± × – “quoted”, Čencov, and `code`.\n\n{solution}"))
    assert made.stat().st_size > 10_000


def test_the_site_offers_the_pdf_where_there_is_one(small, tmp_path):
    small("Text. {pdf}`The book as a PDF`")
    command = [
        sys.executable,
        "-c",
        "from jupyter_book.cli.main import main; main()",
        "build",
        ".",
        "--all",
        "-W",
        "-q",
    ]
    for there in (False, True):
        if there:
            (tmp_path / "small" / "_build" / "genlib-course.pdf").write_bytes(b"%PDF")
        subprocess.run(command, cwd=tmp_path / "small", check=True, capture_output=True)
        html = tmp_path / "small" / "_build" / "html"
        assert ("The book as a PDF" in (html / "page.html").read_text("utf8")) == there
        assert len(list(html.glob("_downloads/*/genlib-course.pdf"))) == there


def test_what_counts_as_a_fault_in_a_log():
    wide = "Overfull \\hbox ({:.1f}pt too wide) in paragraph at lines 10--12\n[]text\n"
    good = "This is XeTeX\n" + wide.format(pdf.TOO_WIDE - 1) + "Underfull \\hbox (badness 10000)\n"
    assert pdf.faults(good) == []
    for bad in (
        wide.format(pdf.TOO_WIDE + 1),
        "! Undefined control sequence.\n",
        "Missing character: There is no → in font X!\n",
        "LaTeX Warning: Reference `fig' on page 3 undefined on input line 9.\n",
    ):
        assert len(pdf.faults(good + bad)) == 1
