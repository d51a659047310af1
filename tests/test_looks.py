"""How the built book looks: the measure, the dark page, what a printer gets. Run `make html` first."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from test_site import HTML, NOTEBOOKS, PAGES, browser, links, site  # noqa: E402, F401

# Run in the page: the characters that fit into a line, for each paragraph, from the mean width of its own characters.
MEASURE = """() => [...document.querySelectorAll("article section > p")].flatMap(box => {
    const pen = document.createElement("canvas").getContext("2d"), text = box.textContent;
    pen.font = getComputedStyle(box).font;
    const plain = text.length > 100 && !box.querySelector("mjx-container, code");
    return plain ? [box.clientWidth * text.length / pen.measureText(text).width] : [];
})"""
BRIGHT = """() => [...document.querySelectorAll("body, body *")].filter(box => {
    const [r, g, b, alpha = 1] = getComputedStyle(box).backgroundColor.match(/[\\d.]+/g).map(Number);
    const bright = alpha > 0.5 && (r + g + b) / 3 > 150, {width, height, bottom} = box.getBoundingClientRect();
    return bright && bottom > 0 && width * height > 4000 && !box.closest("figure, img, canvas");
}).map(box => box.outerHTML.slice(0, 120))"""
ON_PAPER = """() => {
    const seen = box => box.checkVisibility({visibilityProperty: true}) && box.getBoundingClientRect().height > 0;
    const found = [], every = (what, test, says) => document.querySelectorAll(what).forEach(box => {
        if (!test(box)) found.push(says + ": " + box.outerHTML.slice(0, 100));
    });
    every(".bd-sidebar, .bd-header-article, .prev-next-footer, .bd-footer, .headerlink, article button",
        box => !seen(box), "on paper");
    every("article h1, article figure img, article details:not(.hide) p", seen, "not on paper");
    every("article pre, article figure, article table", box =>
        box.scrollWidth <= box.clientWidth + 1 && box.getBoundingClientRect().right <= innerWidth, "cut off");
    const light = getComputedStyle(document.body);
    const bright = colour => colour.match(/[\\d.]+/g).slice(0, 3).map(Number).reduce((a, b) => a + b) / 3;
    if (bright(light.color) > 80) found.push("pale ink: " + light.color);
    if (bright(light.backgroundColor) < 250 && !/, 0\\)/.test(light.backgroundColor)) found.push("dark paper");
    return found;
}"""
A4 = {"width": 680, "height": 1000}  # the width of A4 between its margins, in CSS pixels
PAGE = "book/foundations/density-estimation"


@pytest.fixture(scope="module")
def tabs(browser):
    """Open a page of the site in a tab of this colour scheme, with a style of the test's own."""
    context = {scheme: browser.new_context(color_scheme=scheme) for scheme in ("light", "dark")}

    def open_page(address, scheme="light", style=""):
        tab = context[scheme].new_page()
        tab.set_viewport_size({"width": 1280, "height": 900})
        tab.goto(address)
        tab.evaluate("window.MathJax && MathJax.startup && MathJax.startup.promise")
        tab.evaluate("document.fonts.ready")
        tab.add_style_tag(content="* {transition: none !important}" + style)
        return tab

    yield open_page
    for each in context.values():
        each.close()


def paper(tab) -> list[str]:
    """What is wrong with the page as a printer gets it."""
    tab.set_viewport_size(A4)
    tab.emulate_media(media="print")
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    found = tab.evaluate(ON_PAPER)
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    tab.emulate_media(media="screen")
    return found


def measure(tab) -> float:
    """The characters a line of the middle paragraph."""
    found = sorted(tab.evaluate(MEASURE))
    return found[len(found) // 2] if found else 66.0


@pytest.mark.parametrize("page", PAGES)
def test_a_line_has_the_length_of_a_books(tabs, site, page):
    tab = tabs(f"{site}{page}.html")
    assert 55 <= measure(tab) <= 80
    tab.close()


@pytest.mark.parametrize("page", PAGES)
def test_a_dark_page_has_no_bright_box(tabs, site, page):
    tab = tabs(f"{site}{page}.html", "dark")
    assert tab.evaluate("document.documentElement.dataset.theme") == "dark"
    assert tab.evaluate(BRIGHT) == []
    tab.close()


@pytest.mark.parametrize("page", PAGES)
def test_paper_gets_the_text_alone(tabs, site, page):
    tab = tabs(f"{site}{page}.html", "dark")
    folded = tab.locator("article details:not([open])").count()
    assert paper(tab) == []
    assert tab.evaluate("document.documentElement.dataset.theme") == "dark"
    assert tab.locator("article details:not([open])").count() == folded
    tab.close()


def test_paper_gets_the_picture_of_a_live_model(tabs, site):
    tab = tabs(f"{site}{PAGE}.html")
    tab.emulate_media(media="print")
    for model in tab.locator(".genlib-live").all():
        assert (
            model.locator("> img, canvas").first.is_visible() and not model.locator("input, button").first.is_visible()
        )
    tab.close()


def test_logo_icon_and_cover_load(tabs, site):
    tab = tabs(f"{site}book/index.html")
    loaded = tab.evaluate("[...document.querySelectorAll('.navbar-brand img, img.cover')].map(i => i.naturalWidth > 0)")
    assert len(loaded) >= 2 and all(loaded)
    icon = tab.locator("link[rel*=icon]").get_attribute("href")
    assert icon.endswith("logo.svg") and tab.request.get(f"{site}book/{icon}").status == 200
    assert tab.locator(".navbar-brand").first.inner_text().strip() == "Deep Generative Models"
    tab.close()


def test_nothing_in_the_style_sheet_is_left_over(site):
    """Every class that the style sheet names is in a page, or in a script that makes it."""
    css = re.sub(
        r"/\*.*?\*/|url\([^)]*\)|@font-face \{.*?\}",
        "",
        (ROOT / "book/_static/course.css").read_text("utf8"),
        flags=re.S,
    )
    names = set(re.findall(r"\.([a-z][\w-]+)", re.sub(r"\{[^{}]*\}", "{}", css)))
    text = "".join((HTML / f"{page}.html").read_text("utf8") for page in PAGES)
    text += "".join(file.read_text("utf8") for file in (HTML / "_static").rglob("*.js") if "vendor" not in str(file))
    assert sorted(name for name in names if name not in text) == []


# The checks can fail: the same page with one rule that spoils it.


@pytest.mark.parametrize("width, right", [("80rem", False), ("26rem", False), ("42rem", True)])
def test_a_bad_measure_is_found(tabs, site, width, right):
    style = (
        f".bd-main .bd-content .bd-article-container {{ max-width: {width} !important; flex: none; width: {width} }}"
    )
    tab = tabs(f"{site}{PAGE}.html", style=style)
    assert (55 <= measure(tab) <= 80) == right
    tab.close()


@pytest.mark.parametrize(
    "style",
    [
        "div.admonition { background: #fff !important }",
        "div.cell_input, div.cell_input * { background: #eee !important }",
    ],
)
def test_a_bright_box_is_found(tabs, site, style):
    tab = tabs(f"{site}{PAGE}.html", "dark", style)
    assert tab.evaluate(BRIGHT)
    tab.close()


@pytest.mark.parametrize(
    "style, complaint",
    [
        (".prev-next-footer { display: block !important }", "on paper"),
        ("@media print { article figure img { display: none !important } }", "not on paper"),
        ("article details p { display: none }", "not on paper"),
        (
            "html .bd-article div pre, html .bd-article div pre * { white-space: pre !important; width: 90px }",
            "cut off",
        ),
        ("body { color: #aaa !important }", "pale ink"),
        ("body { background: #222 !important }", "dark paper"),
    ],
)
def test_a_fault_on_paper_is_found(tabs, site, style, complaint):
    tab = tabs(f"{site}{PAGE}.html", style=style)
    assert any(fault.startswith(complaint) for fault in paper(tab))
    tab.close()
