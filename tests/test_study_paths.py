"""Study paths: what needs what and every time on the page come from the pages, and the paths keep the order of needs.

The last tests read the built book: run `make html` first.
"""

import random
import re
import sys
from itertools import pairwise
from pathlib import Path

import nbformat
import networkx as nx
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from sphinx.errors import ExtensionError
from test_site import HTML, Links

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import run_notebooks  # noqa: E402
import study_extension as study  # noqa: E402

PAGES, PLAN = study.course(ROOT)
TIMES = yaml.safe_load((ROOT / "book/run-times.yml").read_text("utf8"))["seconds"]
BOXES = {
    "half a minute": (10, 40),
    "a few seconds": (1, 20),
    "Under a minute": (1, 59),
    "Under two minutes": (60, 119),
}  # what a page may say


# --- the course ------------------------------------------------------------------------------------------------------


def test_what_needs_what_is_what_the_pages_say():
    needs = {page.removeprefix("book/foundations/"): PAGES[page].needs for page in PAGES}
    assert needs["what-is-a-generative-model"] == []
    assert needs["density-estimation"] == ["book/foundations/what-is-a-generative-model"]
    assert needs["neural-cdf"] == needs["labs/density-estimation"] == ["book/foundations/density-estimation"]
    assert all(page.needs for page in PAGES.values() if page.lab)  # every lab names its chapter


def test_every_notebook_has_a_run_time_and_no_other():
    assert set(TIMES) == set(PAGES)
    assert all(type(seconds) is int and seconds % 5 == 0 and seconds > 0 for seconds in TIMES.values())


def test_the_run_time_that_a_page_states_agrees_with_the_measured_one():
    for name in PAGES:
        first = nbformat.read(ROOT / f"{name}.ipynb", as_version=4).cells[0].source.replace("\n", " ")
        (said,) = [words for words in BOXES if words in first]
        low, high = BOXES[said]
        assert low <= TIMES[name] <= high, f"{name} says {said!r}, and took {TIMES[name]} s"


def test_the_time_that_a_lab_states_holds_the_computed_one():
    for page in PAGES.values():
        if page.lab:
            first = nbformat.read(ROOT / f"{page.page}.ipynb", as_version=4).cells[0].source
            low, high = map(int, re.search(r"\*\*Time:\*\* (\d+) to (\d+) minutes", first).groups())
            assert low <= page.read + page.do <= high


@pytest.mark.parametrize("name", PLAN["paths"])
def test_a_path_keeps_the_order_of_needs(name):
    order = sum(PLAN["paths"][name]["steps"], [])
    assert len(set(order)) == len(order)
    for page in order:
        for need in PAGES[page].needs if page in PAGES else []:
            assert need in order and order.index(need) < order.index(page), f"{page} before {need}"


def test_the_full_term_holds_every_page_and_only_what_is_to_come_has_a_title():
    paths = [set(sum(path["steps"], [])) for path in PLAN["paths"].values()]
    assert set(PAGES) <= set(sum(PLAN["paths"]["full-term"]["steps"], [])), "a chapter or lab is in no week"
    assert set(PLAN["coming"]) == set.union(*paths) - set(PAGES), "book/paths.yml: coming"
    assert len(paths) == 3


# --- planted courses: what the times are made of, and what is refused ------------------------------------------------

BOX = "# {title}\n\n:::{{admonition}} This chapter\n**You need** {need}.\n\n**Run time.** Short.\n:::\n"


@pytest.fixture
def plant(tmp_path):
    """Write a course of these notebooks (page -> cells) and paths, and read it."""

    def course(notebooks, steps=((),), coming=None):
        toc = {"format": "jb-book", "root": "book/index", "chapters": [{"file": name} for name in notebooks]}
        reader = {"words": 10, "formula": 300, "line": 30, "question": 2, "exercise": 15, "gap": 5}
        path = {"title": "P", "step": "week", "exercises": True, "steps": [list(step) for step in steps]}
        plan = {"reader": reader, "paths": {"p": path}, "coming": coming or {}}
        times = {"machine": "one", "seconds": {}}
        for name, data in {"_toc": toc, "book/paths": plan, "book/run-times": times}.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / f"{name}.yml").write_text(yaml.safe_dump(data), "utf8")
        for name, cells in notebooks.items():
            (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
            cells = [new_markdown_cell(cell) if isinstance(cell, str) else cell for cell in cells]
            nbformat.write(new_notebook(cells=cells), tmp_path / f"{name}.ipynb")
        study.course.cache_clear()
        return study.course(tmp_path)

    yield course
    study.course.cache_clear()


def test_the_time_to_read_counts_what_is_shown(plant, tmp_path):
    (tmp_path / "book/quizzes").mkdir(parents=True)
    (tmp_path / "book/quizzes/a.yml").write_text("questions: [{id: a}, {id: b}, {id: c}, {id: d}, {id: e}]")
    fold = {"tags": ["hide-input"]}
    pages, _ = plant(
        {
            "book/x/a": [
                "# One two\n\n" + "word " * 96 + "$a + b$ [text](link.ipynb)",  # 100 words: 10 min
                "$$x$$\n\n$$\n\\begin{aligned}y\\end{aligned}\n$$",  # 2 formulas: 10 min
                new_code_cell("a = 1\n\n" + "b = 2\n" * 19),  # 20 lines: 10 min
                new_code_cell("hidden = 1\n" * 99, metadata=fold),
                "<details><summary>Solution</summary>\n\n" + "word " * 999 + "$$z$$\n\n</details>",
                "## Exercises\n\n**1. A.**\n\n**2. B.**\n\n**3. C.**\n\n## Further reading\n\n**9. no.**",
            ]
        }
    )
    page = pages["book/x/a"]
    words = 11  # of the last cell
    assert page.quiz == ["a", "b", "c", "d", "e"]  # 10 min
    assert page.read == 5 * round((10 + words / 10 + 10 + 10 + 10) / 5) == 40
    assert (page.do, page.title, page.lab, page.seconds) == (45, "One two", "", 0)


def test_a_lab_is_known_by_its_gaps_and_needs_the_chapters_that_it_names(plant):
    lab = "# Lab\n\nThe chapters *First one* and *Second\none* and *something else* and **Third**."
    gap, other = (new_code_cell(f'f = check("two-words.{name}", f)') for name in ("kde", "mean"))
    pages, _ = plant(
        {
            "book/a": [BOX.format(title="First one", need="nothing")],
            "book/b": [BOX.format(title="Second one", need="[](a.ipynb)")],
            "book/c": [BOX.format(title="Third", need="[b](b.ipynb#x), [](../labs/l.ipynb), [](no.ipynb), [](n.md)")],
            "labs/l": [lab, gap, other],
        }
    )
    assert [page.needs for page in pages.values()] == [[], ["book/a"], ["book/b", "labs/l"], ["book/a", "book/b"]]
    assert (pages["labs/l"].lab, pages["labs/l"].gaps, pages["labs/l"].do) == ("two-words", 2, 10)
    assert sorted(study.graph(pages).edges) == [("book/a", "book/b"), ("book/b", "labs/l"), ("labs/l", "book/c")]


def test_pages_that_need_each_other_are_refused(plant):
    ring = {"a": "b", "b": "c", "c": "a"}
    pages, _ = plant({f"book/{name}": [BOX.format(title=name, need=f"[]({ring[name]}.ipynb)")] for name in ring})
    with pytest.raises(ExtensionError, match="need each other.*book/"):
        study.graph(pages)


def test_a_path_through_an_unknown_page_is_refused(plant):
    page = {"book/a": [BOX.format(title="A", need="nothing")]}
    with pytest.raises(ExtensionError, match="book/typo is not in _toc.yml, and has no title"):
        plant(page, steps=[["book/a"], ["book/typo"]])
    pages, plan = plant(page, steps=[["book/a"], ["book/later"]], coming={"book/later": "Later on"})
    text = study.path_text(plan["paths"]["p"], pages, plan["coming"])
    assert "So far 1 of its 2 pages" in text and "coming: Later on" in text and "/book/later" not in text
    plan["paths"]["p"]["steps"].pop()
    assert study.path_text(plan["paths"]["p"], pages, {}).startswith("All 1 pages are there.")


def test_times_in_words():
    page = study.Page("a", "A", "", 0, [], 65, 55, 130)
    lab = study.Page("b", "B", "b", 1, [], 10, 30, 5)
    assert study.costs([page]) == ["1 h 5 min", "55 min", "2 min 10 s", "2 h"]
    assert study.costs([page, lab], exercises=False) == ["1 h 15 min", "30 min", "2 min 15 s", "1 h 45 min"]
    assert study.costs([]) == ["", "", "", ""]


@pytest.mark.parametrize("seed", range(20))
def test_the_picture_puts_each_page_below_what_it_needs(seed):
    dice = random.Random(seed)
    names = [f"p{i}" for i in range(30)]
    edges = nx.DiGraph((dice.choice(names[:i]), names[i]) for i in range(1, 30) for _ in range(2))
    edges = nx.transitive_reduction(edges)
    levels, ways = study.rows(edges, names)
    row = {place: i for i, level in enumerate(levels) for place in level}
    assert sorted(place for place in row if isinstance(place, str)) == sorted(names)
    assert all(sum(isinstance(place, str) for place in level) <= study.MOST for level in levels)
    assert {(way[0], way[-1]) for way in ways} == set(edges.edges)
    for way in ways:  # a place in every row on the way
        assert all(row[b] == row[a] + 1 for a, b in pairwise(way))
    pages = {name: study.Page(name, name, "", 0, [], 0, 0, 0, list(edges.predecessors(name))) for name in names}
    boxes = re.findall(r'<rect x="(\S+)" y="(\S+)"', study.picture(pages, "here"))
    spots = sorted((float(y), float(x)) for x, y in boxes)
    assert len(spots) == 30
    for (y, x), (below, right) in pairwise(spots):  # no two boxes overlap
        assert below >= y + study.HEIGHT or right >= x + study.WIDTH


# --- run times -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("noted", "took", "wanted"),
    [(None, 31.2, 35), (30, 36, 30), (30, 24, 30), (30, 41, 45), (30, 12, 15), (5, 9, 5), (5, 11, 15)],
)
def test_a_run_time_changes_only_when_it_is_another(tmp_path, noted, took, wanted):
    times = tmp_path / "times.yml"
    seconds = {"b": 20} | ({"a": noted} if noted else {})
    times.write_text("# why\n" + yaml.safe_dump({"machine": "m", "seconds": seconds}), "utf8")
    run_notebooks.note_time("a", took, times)
    assert yaml.safe_load(times.read_text("utf8")) == {"machine": "m", "seconds": {"a": wanted, "b": 20}}
    assert times.read_text("utf8").startswith("# why\n")


def test_the_time_of_a_notebook_is_that_of_its_kernel(tmp_path):
    busy = "import time\nend = time.process_time() + 1\nwhile time.process_time() < end: pass\ntime.sleep(1)"
    nbformat.write(new_notebook(cells=[new_code_cell(busy)]), tmp_path / "nb.ipynb")
    before = run_notebooks.processor_time()
    run_notebooks.run(tmp_path / "nb.ipynb")
    assert run_notebooks.processor_time() - before >= 1


# --- the built page --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built():
    file = HTML / "book/study-paths.html"
    assert file.is_file(), "the book is not built: make html"
    return file


def plain(html):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def needs(page: str) -> list[str]:
    return PAGES[page].needs if page in PAGES else []


def test_every_box_of_the_picture_leads_to_its_page(built):
    svg = re.search(r'<div class="study-graph">.*?</svg>', built.read_text("utf8"), re.S)[0]
    assert svg in study.picture(PAGES, "book/study-paths")
    boxes = dict(re.findall(r'<a href="([^"]+)" data-page="([^"]+)"', svg))
    assert sorted(boxes.values()) == sorted(PAGES) and sorted(Links(svg).links) == sorted(boxes)
    for link, page in boxes.items():
        target = (built.parent / link).resolve()
        assert target == (HTML / f"{page}.html").resolve() and target.is_file()
    behind = {}  # all that a page builds on, near and far
    for page in sum(PLAN["paths"]["full-term"]["steps"], []):
        behind[page] = set(needs(page)).union(*(behind[need] for need in needs(page)))
    nearest = [
        (need, page) for page in PAGES for need in needs(page) if not any(need in behind[n] for n in needs(page))
    ]
    assert svg.count('class="edge"') == len(nearest)
    assert [plain(page.title) in plain(svg) for page in PAGES.values()] == [True] * len(PAGES)


def test_every_number_of_the_page_is_computed(built):
    """Those that stand in the page are those that its source does not type, and agree with sums made here."""
    source = (ROOT / "book/study-paths.md").read_text("utf8")
    assert not re.search(r"\d", source)
    text = plain(built.read_text("utf8"))
    for path in PLAN["paths"].values():
        here = [PAGES[name] for name in sum(path["steps"], []) if name in PAGES]
        read = sum(page.read for page in here)
        do = sum(page.do for page in here if page.lab or path["exercises"])
        words = lambda m: " ".join(filter(None, [f"{m // 60} h" * (m >= 60), f"{m % 60} min" * (m % 60 > 0)]))  # noqa: E731
        assert f"They take about {words(read + do)} : {words(read)} to read and {words(do)} to do" in text
    for number in [value for value in PLAN["reader"].values() if isinstance(value, int)]:
        assert re.search(rf"\b{number} (words|seconds|minutes?)", text)
    assert PLAN["machine"] in text
