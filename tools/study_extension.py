"""Study paths: what each page needs and how long it takes, read from the pages themselves, drawn and added up.

A chapter needs the notebooks that its "You need" links to; a lab needs the chapters whose titles its first cell has in
italics. ``{study} graph`` draws this, ``{study} pages`` lists it with the times, ``{study} NAME`` sums up a path of
book/paths.yml, and ``{study} reader`` says what the times assume. progress.js gets the same as ``window.courseStudy``.
"""

import functools
import json
import re
import textwrap
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

import build
import networkx as nx
import yaml
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

FOLDED = {"hide-input", "hide-cell", "remove-input", "remove-cell"}
WIDTH, HEIGHT, GAP, LANE, MOST = 158, 62, 14, 46, 3  # of the picture: a box, between boxes, between rows; boxes a row


@dataclass
class Page:
    """A chapter or a lab. ``read`` and ``do`` are minutes; what is done is a chapter's exercises or a lab's gaps."""

    page: str
    title: str
    lab: str  # the first word of its gaps' names; empty for a chapter
    gaps: int
    quiz: list[str]  # the ids of its questions
    read: int
    do: int
    seconds: int
    needs: list[str] = field(default_factory=list)


@functools.cache
def course(root: Path) -> tuple[dict[str, Page], dict]:
    """Every chapter and lab of the table of contents by name, and what book/paths.yml and book/run-times.yml say."""
    plan, times = (yaml.safe_load((root / "book" / f"{n}.yml").read_text("utf8")) for n in ("paths", "run-times"))
    names = build.pages(yaml.safe_load((root / "_toc.yml").read_text("utf8")))
    files = {name: root / f"{name}.ipynb" for name in names}
    cells = {name: json.loads(file.read_text("utf8"))["cells"] for name, file in files.items() if file.is_file()}
    for name, inside in cells.items():
        if not inside or not "".join(inside[0]["source"]).startswith("# "):
            raise ExtensionError(f"{name}.ipynb: expected a first cell that begins with a title, # ...")
    pages = {name: measured(root, name, cells[name], plan["reader"], times["seconds"].get(name, 0)) for name in cells}
    titles = {page.title: name for name, page in pages.items() if not page.lab}
    for name, page in pages.items():
        first = "".join(cells[name][0]["source"])
        box = re.search(r"\*\*You need\*\*(.*?)(?=\n\s*\n|\n:::|\Z)", first, re.S)
        links = re.findall(r"\]\(([^)\s#]+)\.ipynb", box[1] if box else "")
        found = [normpath(join(dirname(name), link)) for link in links]
        found += [titles.get(" ".join(t.split())) for t in re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", first) if page.lab]
        page.needs = [other for other in dict.fromkeys(found) if other in pages]
    for name in sum((sum(path["steps"], []) for path in plan["paths"].values()), []):
        if name not in pages and name not in plan["coming"]:
            raise ExtensionError(f"book/paths.yml: {name} is not in _toc.yml, and has no title under coming")
    return pages, plan | {"machine": times["machine"]}


def measured(root: Path, name: str, cells: list[dict], reader: dict, seconds: int) -> Page:
    """One notebook's times. What is folded away (solutions, the code of figures) takes no time to read."""
    kinds = [(cell["cell_type"], "".join(cell["source"]), cell["metadata"].get("tags", [])) for cell in cells]
    text = "\n\n".join(source for kind, source, _ in kinds if kind == "markdown")
    code = "\n".join(source for kind, source, tags in kinds if kind == "code" and not FOLDED & set(tags))
    shown = re.sub(r"<details.*?</details>", " ", text, flags=re.S)
    formulas = re.findall(r"\$\$.+?\$\$|\\begin\{(\w+\*?)\}.+?\\end\{\1\}", shown, re.S)
    prose = re.sub(r"\$\$.+?\$\$|```.*?```|(?<=\])\([^)]*\)|\{[\w:]+\}(?=`)", " ", shown, flags=re.S)
    words = len(re.findall(r"\$[^$]+\$|\w[\w'’-]*", prose))  # a formula in the text is read like a word
    lines = sum(bool(line.strip()) for line in code.splitlines())
    gaps = re.findall(r'check\("([\w-]+)\.', code)
    exercises = re.findall(r"^\*\*\d+\.", text.partition("\n## Exercises")[2].partition("\n## ")[0], re.M)
    file = root / "book" / "quizzes" / f"{name.rpartition('/')[2]}.yml"
    quiz = [q["id"] for q in yaml.safe_load(file.read_text("utf8"))["questions"]] if not gaps and file.is_file() else []
    read = words / reader["words"] + (len(formulas) * reader["formula"] + lines * reader["line"]) / 60
    read, do = read + len(quiz) * reader["question"], len(exercises) * reader["exercise"] + len(gaps) * reader["gap"]
    title, lab = re.search(r"^# (.+)", text, re.M)[1].strip(), gaps[0] if gaps else ""
    return Page(name, title, lab, len(gaps), quiz, 5 * round(read / 5), 5 * round(do / 5), seconds)


def graph(pages: dict[str, Page]) -> nx.DiGraph:
    """What needs what, less what follows: where A needs B and B needs C, no arrow says that A needs C."""
    found = nx.DiGraph((need, name) for name, page in pages.items() for need in page.needs)
    found.add_nodes_from(pages)
    if not nx.is_directed_acyclic_graph(found):
        raise ExtensionError(f"pages that need each other: {nx.find_cycle(found)}")
    return nx.transitive_reduction(found)


def rows(edges: nx.DiGraph, order: list[str]) -> tuple[list[list], list[list]]:
    """The rows of the picture, each page below what it needs, and the way of each edge through the rows.

    An edge that passes a row has a place of its own there, so that it crosses no box.
    """
    row, ways, above, at = {}, [], {}, {}
    for name in nx.lexicographical_topological_sort(edges, key=order.index):
        row[name] = max((row[need] + 1 for need in edges.predecessors(name)), default=0)
        while list(row.values()).count(row[name]) > MOST:
            row[name] += 1
    for a, b in sorted(
        edges.edges, key=lambda edge: [*map(order.index, edge)]
    ):  # a set until here: no order of its own
        ways.append([a, *((a, b, i) for i in range(row[a] + 1, row[b])), b])
        row |= {place: place[2] for place in ways[-1][1:-1]}
        for upper, lower in zip(ways[-1], ways[-1][1:], strict=False):
            above.setdefault(lower, []).append(upper)
    levels = [[place for place in row if row[place] == i] for i in range(max(row.values(), default=-1) + 1)]
    for level in levels:  # each place goes below the middle of what leads to it
        level.sort(key=lambda place: sum(at[a] for a in above.get(place, [])) / max(len(above.get(place, [])), 1))
        at |= {place: (i + 0.5) / len(level) for i, place in enumerate(level)}
    return levels, ways


def picture(pages: dict[str, Page], here: str) -> str:
    """The graph as SVG for the page ``here``: every box is a link."""
    levels, ways = rows(graph(pages), list(pages))
    wide = lambda place: WIDTH if place in pages else 0  # noqa: E731
    sizes = [sum(map(wide, level)) + GAP * (len(level) - 1) for level in levels]
    total, tall = max(sizes, default=0) + 20, len(levels) * (HEIGHT + LANE) - LANE + 12
    x, y, shapes = {}, {}, []
    for i, (level, size) in enumerate(zip(levels, sizes, strict=True)):
        left = (total - size) / 2
        for place in level:
            x[place], y[place] = left + wide(place) / 2, 8 + i * (HEIGHT + LANE)
            left += wide(place) + GAP
    for way in ways:
        line = f"M{x[way[0]]:g} {y[way[0]]}"
        for a, b in zip(way, way[1:], strict=False):
            half = y[a] + HEIGHT + LANE / 2
            line += f"V{y[a] + HEIGHT}C{x[a]:g} {half:g} {x[b]:g} {half:g} {x[b]:g} {y[b] - 5 * (b in pages)}"
        shapes.append(f'<path class="edge" d="{line}" marker-end="url(#study-arrow)"/>')
    for name, page in pages.items():
        words, middle = textwrap.wrap(page.title, 18), y[name] + HEIGHT / 2 + 5
        at = [(middle + 17 * (i - (len(words) - 1) / 2), word) for i, word in enumerate(words)]
        text = "".join(f'<tspan x="{x[name]:g}" y="{height:g}">{escape(word)} </tspan>' for height, word in at)
        box = (
            f'x="{x[name] - WIDTH / 2:g}" y="{y[name]}" width="{WIDTH}" height="{HEIGHT}" rx="{20 if page.lab else 4}"'
        )
        link = f'<a href="{relpath(name, dirname(here))}.html" data-page="{name}">'
        shapes.append(f"{link}<rect {box}/><text>{text}</text></a>")
    return (
        f'<div class="study-graph"><svg role="group" aria-label="What needs what" width="{total:g}" height="{tall}">'
        '<marker id="study-arrow" viewBox="0 0 8 8" refX="4" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0 0L8 4L0 8z"/></marker>{"".join(shapes)}</svg></div>'
    )


def costs(pages: list[Page], exercises: bool = True) -> list[str]:
    """The time to read, to do and to run these pages, and the first two together, in words: "40 s", "1 h 5 min"."""
    read, run = sum(page.read for page in pages), sum(page.seconds for page in pages)
    do = sum(page.do for page in pages if page.lab or exercises)
    parts = [[(m // 60, "h"), (m % 60, "min")] for m in (read, do)] + [[(run // 60, "min"), (run % 60, "s")]]
    parts.append([((read + do) // 60, "h"), ((read + do) % 60, "min")])
    return [" ".join(f"{number} {unit}" for number, unit in part if number) for part in parts]


def table(*rows: list[str]) -> str:
    """A Markdown table of five columns, the last three of times."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([":::{div} study-table", lines[0], "|---|---|--:|--:|--:|", *lines[1:], ":::"])


def links(names: list[str]) -> str:
    return ", ".join(f"[](/{name}.ipynb)" for name in names)


def path_text(path: dict, pages: dict[str, Page], coming: dict[str, str]) -> str:
    """A path as MyST Markdown: what is there of it in a sentence, then a table by weeks."""
    cells, here = [[path["step"], "pages", "read", "do", "run"]], []
    for i, step in enumerate(path["steps"], 1):
        there = [pages[name] for name in step if name in pages]
        later = ", ".join(coming[name] for name in step if name not in pages)
        text = "; ".join(filter(None, [links(p.page for p in there), later and f"[coming: {later}]{{.later}}"]))
        cells.append([str(i), text, *costs(there, path["exercises"])[:3]])
        here += there
    (read, do, run, whole), every = costs(here, path["exercises"]), len(sum(path["steps"], []))
    ready = f"All {every}" if len(here) == every else f"So far {len(here)} of its {every}"
    said = (
        f"{ready} pages are there. They take about **{whole}**: {read} to read and {do} to do. The code runs in {run}."
    )
    return f"{said}\n\n{table(*cells)}"


class Study(SphinxDirective):
    """``{study} graph``, ``{study} pages``, ``{study} reader`` or ``{study} NAME``: see the top of this file."""

    required_arguments = 1

    def run(self):
        root, what, box = Path(self.env.srcdir), self.arguments[0], nodes.container()
        pages, plan = course(root)
        if what == "graph":
            return [nodes.raw("", picture(pages, self.env.docname), format="html")]
        if what == "pages":
            rest = [[links([p.page]), links(p.needs) or "no other page", *costs([p])[:3]] for p in pages.values()]
            text = table(["page", "needs", "read", "do", "run"], *rest)
        elif what == "reader":
            text = plan["reader"]["says"].format(**plan["reader"], machine=plan["machine"])
        else:
            text = path_text(plan["paths"][what], pages, plan["coming"])
        self.state.nested_parse(StringList(text.splitlines(), self.env.docname), self.content_offset, box)
        return box.children


def give_to_pages(app):
    """Tell progress.js, on every page, what there is to do in the course."""
    course.cache_clear()
    pages, plan = course(Path(app.srcdir))
    known = [{key: asdict(page)[key] for key in ("page", "title", "lab", "gaps", "quiz")} for page in pages.values()]
    paths = [{"name": name} | {key: path[key] for key in ("title", "steps")} for name, path in plan["paths"].items()]
    data = json.dumps({"pages": known, "paths": paths}).replace("<", "\\u003c")
    app.add_js_file(None, body=f"window.courseStudy = {data};", priority=700)


def setup(app):
    app.add_directive("study", Study)
    app.connect("builder-inited", give_to_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
