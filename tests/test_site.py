"""The built book in a real browser: each page is visited once, and every check reads what the visit saw.

Run `make html` first. The last tests serve pages with one fault each and show that the check for that fault finds it.
"""

import functools
import re
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build" / "html"
sys.path.insert(0, str(ROOT / "tools"))

import address  # noqa: E402
import browser as chromium  # noqa: E402
import build  # noqa: E402
import serve  # noqa: E402

PAGES = build.pages(yaml.safe_load((ROOT / "_toc.yml").read_text("utf8")))
NOTEBOOKS = [page for page in PAGES if (ROOT / f"{page}.ipynb").is_file()]
AXE = (ROOT / "tests" / "site" / "axe.min.js").read_text("utf8")
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]  # WCAG 2.1 AA; no rule is switched off
CHECKS = ["status", "console", "foreign", "wide", "alt", "maths", "axe-light", "axe-dark"]

# Run in the page. Each returns a list of complaints.
NO_ALT = """() => [...document.querySelectorAll("article img")]
    .filter(image => !(image.getAttribute("alt") || "").trim()).map(image => image.outerHTML.slice(0, 120))"""
TOO_WIDE = """() => {
    const width = document.documentElement.scrollWidth;
    const found = width > innerWidth ? [`the page is ${width}px wide`] : [];
    const scrolls = box => box && box.tagName !== "BODY" &&
        (["auto", "scroll"].includes(getComputedStyle(box).overflowX) || scrolls(box.parentElement));
    for (const box of document.querySelectorAll("article *")) {
        if (box.getBoundingClientRect().right <= innerWidth + 1 || box.closest("mjx-assistive-mml")) continue;
        if (!scrolls(box.parentElement) && !scrolls(box)) found.push(box.outerHTML.slice(0, 120));
    }
    return found;
}"""
BAD_MATHS = """() => {
    const found = [...document.querySelectorAll("mjx-merror, [data-mjx-error]")].map(error => error.textContent);
    for (const box of document.querySelectorAll("article .math"))
        if (!box.querySelector("mjx-container")) found.push("not typeset: " + box.textContent.slice(0, 60));
    const text = document.querySelector("article").cloneNode(true);
    text.querySelectorAll("pre, code, script, style, mjx-container").forEach(part => part.remove());
    return found.concat(text.textContent.match(/\\$[^$\\n]+\\$|\\{[a-z:]+\\}`[^`]*`/g) || []);
}"""
RUN_AXE = """tags => axe.run({runOnly: {type: "tag", values: tags}, resultTypes: ["violations"]})
    .then(result => result.violations)"""


def serving(folder: Path):
    """A server of this folder in the background, and its address."""
    server = serve.server(0, folder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}/"


def visit(browser, base: str, page: str) -> dict[str, list[str]]:
    """Open one page, light and dark, wide and narrow, other hosts out of reach: the complaints of every check."""
    seen = {check: [] for check in CHECKS}
    context = browser.new_context(
        viewport={"width": 1280, "height": 900}, reduced_motion="reduce", color_scheme="light"
    )

    def only_here(route):
        if route.request.url.startswith((base, "data:", "blob:")):
            return route.continue_()
        seen["foreign"].append(route.request.url)
        return route.abort()

    context.route("**/*", only_here)
    tab = context.new_page()
    tab.on("console", lambda message: seen["console"].append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: seen["console"].append(str(error)))
    answer = tab.goto(f"{base}{page}.html")
    if answer.status != 200:
        seen["status"].append(f"HTTP {answer.status}")
    tab.evaluate("window.MathJax && MathJax.startup && MathJax.startup.promise")
    tab.add_style_tag(content="* {transition: none !important; animation: none !important}")
    seen["alt"] = tab.evaluate(NO_ALT)
    seen["maths"] = tab.evaluate(BAD_MATHS) if tab.query_selector("article") else ["no article"]
    tab.evaluate(AXE)
    for width in (1280, 390):
        tab.set_viewport_size({"width": width, "height": 900})
        if width == 390:
            seen["wide"] = tab.evaluate(TOO_WIDE)
        for theme in ("light", "dark"):
            tab.evaluate("theme => {document.documentElement.dataset.theme = theme}", theme)
            for fault in tab.evaluate(RUN_AXE, WCAG):
                where = "; ".join(node["html"][:160] for node in fault["nodes"][:3])
                seen[f"axe-{theme}"].append(f"{fault['id']} at {width}px: {fault['help']}: {where}")
    context.close()
    return seen


class Links(HTMLParser):
    """The links of a page, and the names it can be linked to by."""

    def __init__(self, text: str):
        super().__init__()
        self.links, self.names = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.names.update(filter(None, (attributes.get("id"), attributes.get("name"))))
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])


@functools.cache
def links(file: Path) -> Links:
    return Links(file.read_text("utf8"))


def broken_links(file: Path) -> list[str]:
    """The links from this page to a file or an anchor that is not there."""
    broken = []
    for link in links(file).links:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
        if not target.is_file():
            broken.append(link)
        elif parts.fragment and target.suffix == ".html" and unquote(parts.fragment) not in links(target).names:
            broken.append(link)
    return broken


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    path = chromium.find()
    assert path, "no browser: python tools/browser.py installs one"
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=chromium.FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def site():
    assert HTML.is_dir(), "the book is not built: make html"
    server, base = serving(HTML)
    yield base
    server.shutdown()


@pytest.fixture(scope="module")
def visited(browser, site):
    return functools.cache(lambda page: visit(browser, site, page))


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("page", PAGES)
def test_page(visited, page, check):
    assert visited(page)[check] == []


def test_every_page_is_built():
    assert len(PAGES) > 3 and build.missing(PAGES) == []


@pytest.mark.parametrize("page", [*PAGES, "search", "genindex", "index"])
def test_internal_links_resolve(page):
    file = HTML / f"{page}.html"
    assert broken_links(file) == []


def test_maths_is_typeset(browser, site):
    tab = browser.new_page()
    tab.goto(site + "book/notation.html")
    tab.evaluate("MathJax.startup.promise")
    assert tab.locator("mjx-container").count() > 50
    assert tab.evaluate("document.fonts.ready.then(() => document.fonts.check('1em MJXTEX-I'))")
    tab.close()


@pytest.mark.parametrize("word, page", [("bandwidth", "book/foundations/density-estimation"), ("zzyzx", None)])
def test_search(browser, site, word, page):
    tab = browser.new_page()
    tab.goto(f"{site}search.html?q={word}")
    tab.wait_for_function("/finished|did not match/.test(document.querySelector('#search-results').innerText)")
    found = tab.eval_on_selector_all("#search-results li a", "links => links.map(link => new URL(link.href).pathname)")
    tab.close()
    assert f"/{page}.html" in found if page else found == []


def test_search_page_is_accessible(visited):
    seen = visited("search")
    assert [seen[check] for check in CHECKS if check != "maths"] == [[]] * (len(CHECKS) - 1)


@pytest.mark.parametrize("page", NOTEBOOKS)
def test_colab_opens_this_notebook(page):
    url, branch = address.configured()
    shown = [link for link in links(HTML / f"{page}.html").links if "colab" in link]
    assert shown == [
        f"https://colab.research.google.com/github/{address.owner_and_name(url)}/blob/{branch}/{page}.ipynb"
    ]


def test_family_tree_links_to_every_chapter_that_exists(browser, site):
    leaves = dict(re.findall(r"\{leaf\}`(.+?) <(.+?)>`", (ROOT / "book" / "index.md").read_text("utf8")))
    tab = browser.new_page()
    tab.goto(site + "book/index.html")
    shown = tab.eval_on_selector_all(
        ".family-tree .leaf",
        "leaves => leaves.map(leaf => [leaf.innerText, leaf.querySelector('a')?.href])",
    )
    assert len(shown) == len(leaves) >= 19
    for (text, link), (title, chapter) in zip(shown, leaves.items(), strict=True):
        assert title in text
        if f"book/{chapter}" in PAGES:
            assert link == f"{site}book/{chapter}.html" and tab.request.get(link).status == 200
        else:
            assert link is None and "coming" in text
    assert any(link for _, link in shown)
    tab.close()


# The checks can fail: pages with one fault each.

GOOD = """<!doctype html><html lang="en" data-theme="light"><head><title>t</title><link rel="icon" href="data:,">
<style>body {{color: #000; background: #fff}}</style></head>
<body><main><article><h1>A page</h1>{body}</article></main></body></html>"""
FAULTS = {
    "console": ["<script>console.error('planted')</script>", "<script>throw new Error('planted')</script>"],
    "foreign": [
        "<script src='https://example.org/a.js'></script>",
        "<img alt='a' src='https://example.org/a.png'>",
        "<style>@import url(https://example.org/a.css)</style>",
    ],
    "wide": [
        "<div style='width: 900px'>wide</div>",
        "<div style='overflow: hidden'><p style='width: 900px'>cut off</p></div>",
    ],
    "alt": ["<img src='data:image/gif;base64,R0lGODlhAQABAAAAACw='>", "<img alt='' src='data:,'>"],
    "maths": [
        "<p>Raw $x^2$ here</p>",
        "<span class='math'>\\(x\\)</span>",
        "<p>{cite}`key`</p>",
        "<mjx-merror>no</mjx-merror>",
    ],
    "axe-light": ["<p style='color: #999'>pale</p>", "<button></button>", "<input type='range'>"],
    "axe-dark": ["<style>html[data-theme=dark] p {color: #ddd}</style><p>pale in the dark alone</p>"],
}


@pytest.fixture(scope="module")
def planted(browser, tmp_path_factory):
    """Visit a page with this body."""
    folder = tmp_path_factory.mktemp("planted")
    server, base = serving(folder)

    def plant(body, name="page"):
        (folder / "page.html").write_text(GOOD.format(body=body), "utf8")
        return visit(browser, base, name)

    yield plant
    server.shutdown()


def test_a_good_page_passes_every_check(planted):
    body = "<p>Text</p><img alt='a' src='data:image/gif;base64,R0lGODlhAQABAAAAACw='>"
    wide = "<div style='overflow-x: auto' tabindex='0'><p style='width: 900px'>wide</p></div>"
    assert planted(body + wide) == {check: [] for check in CHECKS}


@pytest.mark.parametrize("check, body", [(check, body) for check, bodies in FAULTS.items() for body in bodies])
def test_a_planted_fault_is_found(planted, check, body):
    assert planted(body)[check] != []


def test_a_missing_page_is_found(planted):
    assert planted("", name="absent")["status"] == ["HTTP 404"]


def test_a_broken_link_is_found(tmp_path):
    page = tmp_path / "page.html"
    page.write_text(
        "<a href='absent.html'>1</a><a href='#absent'>2</a><a href='page.html#here'>3</a><p id='here'>", "utf8"
    )
    assert broken_links(page) == ["absent.html", "#absent"]
