"""The reader's progress in a real browser: it is kept and shown, and no fault of the storage breaks a page.

Run `make html` first. The last tests plant a bug in progress.js, one for each scenario, and see the scenario fail.
"""

import json
import re
from pathlib import Path

import pytest
from test_site import AXE, HTML, RUN_AXE, TOO_WIDE, WCAG, browser, serving, site  # noqa: F401  (two are fixtures)

from genlib.course import checks

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = (ROOT / "book/_static/progress.js").read_text("utf8")
KEY, ASIDE = "course-progress:/", "course-progress:/:damaged"
CHAPTER, LAB = "book/foundations/density-estimation", "labs/density-estimation"
DAY = {"on": "2026-11-21"}
DENIED = "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no', 'SecurityError') }})"
ABSENT = "Object.defineProperty(window, 'localStorage', {value: undefined})"
KEYS = "Object.keys(localStorage).filter(key => key.startsWith('course'))"
FULL = "Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError') }"


RUN_AXE_ON_OURS = RUN_AXE.replace("axe.run({", "axe.run({include: [['.study-foot'], ['.bd-links']]}, {")


class Reader:
    """A browser with its own storage, that reaches this site alone; every error of progress.js is noted."""

    def __init__(self, browser, base, script=None, init=None, **options):
        self.base, self.errors = base, []
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
        self.context.set_default_timeout(10_000)
        self.context.route("**/*", lambda r: r.continue_() if r.request.url.startswith(base) else r.abort())
        if script is not None:
            self.context.route("**/progress.js*", lambda r: r.fulfill(body=script, content_type="text/javascript"))
        if init:
            self.context.add_init_script(init)

    def open(self, page):
        tab = self.context.new_page()
        tab.on("pageerror", lambda error: self.errors.extend(re.findall(".*progress.js.*", error.stack or "")))
        tab.goto(f"{self.base}{page}.html", wait_until="domcontentloaded")
        return tab


@pytest.fixture
def reader(browser, site):
    """Make a reader; at the end no page may have had an error."""
    made = []

    def make(**options):
        made.append(Reader(browser, site, **options))
        return made[-1]

    yield make
    errors = [error for each in made for error in each.errors]
    for each in made:
        each.context.close()
    assert errors == []


def put(tab, key, value):
    return tab.evaluate("([key, value]) => courseProgress.set(key, value)", [key, value])


def entries(tab):
    return tab.evaluate("courseProgress.entries()")


def marks(tab):
    """The marks of the table of contents, as a screen reader says them."""
    links = "links => links.map(link => link.innerText.trim().replace(/\\s+/g, ' '))"
    found = tab.eval_on_selector_all("nav.bd-links a:has(.study-mark)", links)
    return {re.sub(r"^\d+\. | \(\w+\)$", "", text): re.search(r"\((\w+)\)$", text)[1] for text in found}


def answer_all(tab, page=CHAPTER):
    questions = tab.evaluate("page => courseStudy.pages.find(p => p.page === page).quiz", page)
    for question in questions:
        put(tab, f"quiz:{page.split('/')[-1]}/{question}", {"right": True, "tries": 1, "answer": 0})
    return questions


# --- scenarios: each is also run with a bug planted ------------------------------------------------------------------


def read_and_undo(reader):
    tab = reader().open(CHAPTER)
    button = tab.locator(".study-foot > button")
    assert button.inner_text() == "Mark this chapter as read" and marks(tab) == {}
    button.focus()
    tab.keyboard.press("Enter")
    assert list(entries(tab)[f"read:{CHAPTER}"]) == ["on"] and marks(tab) == {"Density estimation": "begun"}
    assert re.search(r"read on \d+ \w+ 20\d\d", tab.locator(".study-foot > [role=status]").inner_text())
    tab.reload()
    assert marks(tab) == {"Density estimation": "begun"}
    button.click()
    assert f"read:{CHAPTER}" not in entries(tab) and marks(tab) == {}


def done_takes_the_quiz_too(reader):
    tab = reader().open(CHAPTER)
    questions = answer_all(tab)
    assert len(questions) >= 4 and marks(tab) == {"Density estimation": "begun"}
    put(tab, f"read:{CHAPTER}", DAY)
    assert marks(tab) == {"Density estimation": "done"}
    put(tab, f"quiz:density-estimation/{questions[-1]}", {"right": False, "tries": 2, "answer": 1})
    assert marks(tab) == {"Density estimation": "begun"}
    tab.evaluate("courseProgress.remove('quiz:density-estimation/' + courseStudy.pages[1].quiz[0])")
    assert f"{len(questions) - 2} of {len(questions)} right" in tab.locator(".study-foot").inner_text()


def lab_code(reader):
    tab = reader().open(LAB)
    said = tab.locator(".study-code [role=status]")
    for text in ("", "density", "density-7-0000", "nothing-1-AAAA", "0", "💥" * 999):
        tab.fill("#study-code", text)
        tab.keyboard.press("Enter")
        assert "no code of a lab" in said.inner_text() and not any(key.startswith("lab:") for key in entries(tab))
    part, whole = (f"density-{n}-{checks._checksum(f'density-{n}')}" for n in (5, 7))
    tab.fill("#study-code", f"  {part.lower().replace('-', ' ')} ")
    tab.click(".study-code button")
    assert "Well begun" in said.inner_text() and marks(tab) == {"Lab: density estimation": "begun"}
    tab.fill("#study-code", whole)
    tab.keyboard.press("Enter")
    assert "The lab is done" in said.inner_text() and marks(tab) == {"Lab: density estimation": "done"}
    tab.fill("#study-code", part)
    tab.keyboard.press("Enter")
    assert marks(tab) == {"Lab: density estimation": "done"}  # less than before takes nothing away


def codes_agree_with_python(reader):
    tab = reader().open("book/notation")
    names = ["density", "vae", "gan-in-one-dimension", "two-sample-tests", "wgan-gp", "x"]
    tab.evaluate(
        """names => {
            courseStudy.pages.push(...names.map(lab => ({page: lab, title: lab, lab, quiz: []})));
            courseStudy.pages.forEach(page => {page.gaps = 12});
        }""",
        names[1:],
    )
    right = [f"{name}-{n}-{checks._checksum(f'{name}-{n}')}" for name in names for n in range(1, 13)]
    assert all("accepted" in said for said in tab.evaluate("codes => codes.map(courseProgress.accept)", right))
    letters = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    code = right[6]
    wrong = {code[:i] + letter + code[i + 1 :] for i in range(len(code)) for letter in letters}
    wrong |= {code[:i] + code[i + 1 :] for i in range(len(code))}
    wrong |= {code[:i] + code[i + 1] + code[i] + code[i + 2 :] for i in range(len(code) - 1)}
    plain = lambda text: re.sub(r"[^a-z0-9]", "", text.lower())  # noqa: E731
    wrong = [text for text in wrong if plain(text) != plain(code)]
    said = tab.evaluate("codes => codes.map(courseProgress.accept)", wrong)
    assert len(wrong) > 300 and not any("accepted" in each for each in said)


def damaged_storage(reader):
    faults = {
        "not JSON": "{",
        "nothing": "null",
        "a list": "[1, 2]",
        "another version": json.dumps({"version": 99, "entries": {}}),
        "no version": json.dumps({"entries": {}}),
        "entries are a list": json.dumps({"version": 1, "entries": []}),
        "a wrong type": json.dumps({"version": 1, "entries": {f"read:{CHAPTER}": "yes"}}),
        "a null": json.dumps({"version": 1, "entries": {"quiz:a/b": None}}),
        "a wrong date": json.dumps({"version": 1, "entries": {f"read:{CHAPTER}": {"on": "2026-99-99"}}}),
        "an unknown key": json.dumps({"version": 1, "entries": {"toString": {"on": "2026-11-21"}}}),
        "a prototype": '{"version": 1, "entries": {"__proto__": {"polluted": 1}, "constructor": {"on": 1}}}',
        "a huge value": json.dumps({"version": 1, "entries": {"read:a": DAY | {"more": "x" * 9999}}}),
        "huge": json.dumps({"version": 1, "entries": {}, "more": "x" * 1_100_000}),
        "deep": "[" * 100_000,
    }
    tab = reader().open("book/progress")
    for name, text in faults.items():
        tab.evaluate("([key, text]) => { localStorage.clear(); localStorage.setItem(key, text) }", [KEY, text])
        tab.reload(wait_until="domcontentloaded")
        assert entries(tab) == {} and tab.evaluate("({}).polluted") is None, name
        assert "could not be read" in tab.locator(".study-damage").inner_text(), name
        assert tab.evaluate("key => localStorage.getItem(key)", ASIDE) == text, name
        assert put(tab, f"read:{CHAPTER}", DAY) and entries(tab) == {f"read:{CHAPTER}": DAY}, name
    good = {f"read:{CHAPTER}": DAY, "lab:density": DAY | {"gaps": 3}}
    text = json.dumps({"version": 1, "entries": good | {"read:x": 7}})
    tab.evaluate("([key, text]) => localStorage.setItem(key, text)", [KEY, text])
    tab.reload(wait_until="domcontentloaded")
    assert entries(tab) == good  # what was right is still there
    tab.get_by_role("button", name="Forget it").click()
    assert tab.locator(".study-damage").inner_text() == "" and entries(tab) == good


def storage_switched_off(reader):
    for init in (DENIED, ABSENT, FULL):
        tab = reader(init=init).open(CHAPTER)
        assert put(tab, "path", {"name": "afternoon"})
        assert tab.evaluate("courseProgress.get('path')") == {"name": "afternoon"}
        tab.click(".study-foot > button")
        assert marks(tab) == {"Density estimation": "begun"}  # as long as the page is open
        note = tab.locator(".study-note")
        assert note.count() == 1 and "not kept" in note.inner_text()
        note.get_by_role("button").click()
        put(tab, "path", {"name": ""})
        assert tab.locator(".study-note").count() == 1 and not note.is_visible()  # once
        tab.goto(f"{tab.url.split('/book/')[0]}/book/progress.html", wait_until="domcontentloaded")
        assert "Next:" in tab.locator(".study-next").inner_text() and entries(tab) == {}


def full_in_between(reader):
    """What storage refused is written as soon as it takes something again, over nothing that another tab wrote."""
    one = reader()
    tab, other = one.open(CHAPTER), one.open(CHAPTER)
    tab.evaluate("() => { window.keep = Storage.prototype.setItem; " + FULL + " }")
    put(tab, f"read:{CHAPTER}", DAY)
    put(other, "lab:density", DAY | {"gaps": 2})
    assert f"read:{CHAPTER}" not in entries(other) and len([k for k in entries(tab) if k[:4] in ("read", "lab:")]) == 2
    tab.evaluate("() => { Storage.prototype.setItem = window.keep }")
    put(tab, "path", {"name": "full-term"})
    assert {f"read:{CHAPTER}", "lab:density", "path"} <= set(entries(other))


def two_tabs(reader):
    one = reader()
    a, b = one.open(CHAPTER), one.open("book/progress")
    for i in range(5):
        put(a, f"quiz:x/a{i}", {"right": True, "tries": i})
        put(b, f"quiz:x/b{i}", {"right": False, "tries": i})
    wanted = {f"quiz:x/{tab}{i}" for tab in "ab" for i in range(5)}
    for tab in (a, b):  # a browser tells its tabs of each other's writing when it finds the time
        tab.wait_for_function("wanted => wanted.every(key => courseProgress.get(key))", arg=sorted(wanted))
    a.click(".study-foot > button")
    b.wait_for_function("document.querySelector('nav.bd-links .study-mark') !== null")  # with no reload
    assert marks(b) == {"Density estimation": "begun"}


def save_remove_load(reader):
    tab = reader().open("book/progress")
    for key, value in ((f"read:{CHAPTER}", DAY), ("lab:density", DAY | {"gaps": 4}), ("path", {"name": "four-weeks"})):
        put(tab, key, value)
    answer_all(tab)
    before, said = entries(tab), tab.locator(".study-said")
    with tab.expect_download() as download:
        tab.get_by_role("button", name="Save to a file").click()
    saved = Path(download.value.path()).read_text("utf8")
    assert re.fullmatch(r"course-progress-20\d\d-\d\d-\d\d\.json", download.value.suggested_filename)

    tab.get_by_role("button", name="Remove everything").press("Enter")
    tab.keyboard.press("Enter")  # the focus is on "Keep"
    assert entries(tab) == before and "Nothing" in said.inner_text()
    tab.get_by_role("button", name="Remove everything").click()
    tab.get_by_role("button", name="Remove", exact=True).click()
    assert entries(tab) == {} and marks(tab) == {}
    tab.get_by_role("button", name="Undo").click()
    assert entries(tab) == before
    tab.get_by_role("button", name="Remove everything").click()
    tab.get_by_role("button", name="Remove", exact=True).click()

    def load(text, name="p.json"):
        tab.locator(".study-said").evaluate("said => said.replaceChildren()")
        tab.set_input_files("input[type=file]", {"name": name, "mimeType": "application/json", "buffer": text.encode()})
        tab.wait_for_function("document.querySelector('.study-said').textContent")
        return said.inner_text()

    load(saved)
    assert entries(tab) == before
    wrong = ['{"version": 2, "entries": {}}', '{"version": 1, "entries": {"x": 1}}', "x" * 1_000_001]
    for text in ["", "{", "hello", "[]", *wrong]:
        answer = load(text, "wrong.txt")
        assert "Nothing was changed" in answer and "wrong.txt" in answer and entries(tab) == before
    mine = {"lab:density": DAY | {"gaps": 6}, "read:book/foundations/neural-cdf": DAY}
    fewer = json.dumps({"version": 1, "entries": mine})
    load(fewer)
    assert entries(tab) == before | mine  # more gaps passed is kept, and nothing is lost
    load(saved)
    assert entries(tab) == before | mine
    tab.get_by_label("in place of what is here").check()
    load(fewer)
    assert entries(tab) == mine


def path_and_next(reader):
    tab = reader().open("book/progress")
    following = tab.locator(".study-next")
    assert "What is a generative model?" in following.inner_text()
    tab.select_option("#study-path", "afternoon")
    tab.reload(wait_until="domcontentloaded")
    assert tab.input_value("#study-path") == "afternoon" and "of 3 pages" in tab.locator(".study-bar").inner_text()
    for page in ("book/foundations/what-is-a-generative-model", CHAPTER):
        answer_all(tab, page)
        put(tab, f"read:{page}", DAY)
    assert "Lab: density estimation" in following.inner_text() and "2 of 3" in tab.locator(".study-bar").inner_text()
    put(tab, "lab:density", DAY | {"gaps": 7})
    assert "You have done all" in following.inner_text()
    tab.select_option("#study-path", "")
    assert "Learning the cumulative" in following.inner_text()
    put(tab, "path", {"name": "a path of another year"})
    assert tab.input_value("#study-path") == ""
    following.get_by_role("link").click()
    assert tab.url.endswith("book/foundations/neural-cdf.html")


def picture_is_marked(reader):
    tab = reader().open("book/study-paths")
    box = tab.locator(f".study-graph a[data-page='{CHAPTER}']")
    assert box.get_attribute("aria-label") == "Density estimation" and box.locator(".study-icon").count() == 0
    put(tab, f"read:{CHAPTER}", DAY)
    answer_all(tab)
    assert box.get_attribute("aria-label") == "Density estimation (done)" and box.locator(".study-icon").count() == 1
    assert tab.locator(".study-graph a[data-state=done]").count() == 1
    box.focus()
    tab.keyboard.press("Enter")
    tab.wait_for_url(f"**/{CHAPTER}.html")


def only_right_values(reader):
    tab = reader().open("book/notation")
    bad = tab.evaluate(
        """() => {
            const loop = {}, on = "2026-11-21", right = true, tries = 1;
            loop.loop = loop;
            const bad = [
                ["x", 1], ["__proto__", {on}], ["read:a", null], ["read:a", {on: "today"}], ["read:a b", {on}],
                ["quiz:a/b", {right: 1, tries}], ["quiz:a/b", {right, tries: -1}], ["quiz:a", {total: 1.5}],
                ["quiz:a/b", {right, tries, answer: "x".repeat(9999)}], ["quiz:a/b", loop], ["quiz:a/b", undefined],
                [Symbol("a"), {on}], [null, {}], [{}, {}], ["read:" + "a".repeat(300), {on}], ["lab:a", {on}],
            ];
            const answers = bad.map(([key, value]) => courseProgress.set(key, value));
            bad.forEach(([key]) => { courseProgress.get(key); courseProgress.remove(key); });
            courseProgress.subscribe(null);
            return answers.filter(Boolean).length;
        }"""
    )
    assert bad == 0 and entries(tab) == {}
    assert put(tab, "quiz:a-b/c_1.x", {"right": True, "tries": 2, "answer": [1, "x", None]})
    tab.evaluate("courseProgress.get('quiz:a-b/c_1.x').right = 7")  # a copy
    assert tab.evaluate("courseProgress.get('quiz:a-b/c_1.x').right") is True
    assert (
        tab.evaluate("""() => {
        let heard = 0;
        const stop = courseProgress.subscribe(() => { heard++; courseProgress.set("path", {name: "x"}); });
        courseProgress.set("quiz:a", {total: 3});
        stop();
        courseProgress.set("quiz:a", {total: 4});
        return heard;
    }""")
        == 2
    )


SCENARIOS = [
    read_and_undo, done_takes_the_quiz_too, lab_code, codes_agree_with_python, damaged_storage, storage_switched_off,
    full_in_between, two_tabs, save_remove_load, path_and_next, picture_is_marked, only_right_values,
]  # fmt: skip


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_scenario(reader, scenario):
    scenario(reader)


# --- the rest --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["book/progress", "book/study-paths", LAB])
def test_with_progress_the_page_is_accessible_and_fits(reader, page):
    tab = reader(color_scheme="light").open(page)
    put(tab, f"read:{CHAPTER}", DAY)
    answer_all(tab)
    put(tab, "lab:density", DAY | {"gaps": 3})
    tab.evaluate("key => localStorage.setItem(key, '?')", ASIDE)
    put(tab, "path", {"name": "full-term"})
    assert len(marks(tab)) == 2
    if page == "book/progress":
        tab.get_by_role("button", name="Remove everything").click()
    tab.add_style_tag(content="* {transition: none !important; animation: none !important}")
    tab.evaluate(AXE)
    for width in (1280, 390):
        tab.set_viewport_size({"width": width, "height": 900})
        assert tab.evaluate(TOO_WIDE) == []
        for theme in ("light", "dark"):
            tab.evaluate("theme => {document.documentElement.dataset.theme = theme}", theme)
            assert tab.evaluate(RUN_AXE if page.startswith("book/") else RUN_AXE_ON_OURS, WCAG) == []


def test_by_touch(reader):
    tab = reader(has_touch=True, viewport={"width": 390, "height": 800}).open(CHAPTER)
    tab.tap(".study-foot > button")
    assert f"read:{CHAPTER}" in entries(tab)


def test_two_books_on_one_host_do_not_mix(browser, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).symlink_to(HTML)
    server, base = serving(tmp_path)
    one = Reader(browser, base)
    a, b = one.open("one/book/progress"), one.open("two/book/progress")
    put(a, "path", {"name": "afternoon"})
    assert entries(a) and entries(b) == {} and a.evaluate(KEYS) == ["course-progress:/one/"]
    one.context.close()
    server.shutdown()


def test_without_scripts_the_pages_say_what_they_would_show(reader):
    one = reader(java_script_enabled=False)
    assert "With scripts switched on, it shows" in one.open("book/progress").locator(".study-progress").inner_text()
    assert one.open("book/study-paths").locator(".study-graph a rect").count() >= 4


def test_a_quiz_of_the_page_reaches_the_table_of_contents(reader):
    tab = reader().open(CHAPTER)
    assert entries(tab)["quiz:density-estimation"]["total"] == len(tab.evaluate("courseStudy.pages[1].quiz"))
    assert marks(tab) == {}  # to have seen a quiz is not to have begun it


def test_the_code_of_a_lab_counts_the_gaps_that_passed(monkeypatch):
    monkeypatch.setattr(checks, "PASSED", set())
    assert checks.code("density").data.startswith("0 of 7 gaps passed so far. Still open: density.inverse-cdf, ")
    gaps = [name for name in checks.GAPS if name.startswith("density.")]
    for name in gaps[:-1]:
        checks.check(name, lambda *arguments: checks.GAPS[name].reference(*arguments))  # noqa: B023
    assert checks.code("density").data == (
        f"6 of 7 gaps passed so far. Your code: **density-6-{checks._checksum('density-6')}**. Still open: {gaps[-1]}."
    )
    checks.check(gaps[0], lambda *arguments: None)  # changed for the worse
    assert checks.code("density").data.startswith("5 of 7")
    checks.PASSED.update(gaps)
    whole = f"**density-7-{checks._checksum('density-7')}**"
    assert checks.code("density").data == f"7 of 7 gaps passed so far. Your code: {whole}."
    for lab in ("densty", 3, None, ["density"]):
        with pytest.raises(ValueError, match="lab: expected one of 'density'"):
            checks.code(lab)


# --- the scenarios can fail: progress.js with one bug each -----------------------------------------------------------

BUGS = [
    (read_and_undo, "entries.delete(key)) : ", "entries) : "),
    (done_takes_the_quiz_too, "read && right === page.quiz.length", "read"),
    (done_takes_the_quiz_too, "answer?.right", "answer"),
    (lab_code, "if (gaps > before)", "if (gaps !== before)"),
    (lab_code, '.replace(/[^a-z0-9]/g, "");\n    for', ".trim();\n    for"),
    (codes_agree_with_python, "16777619", "16777618"),
    (codes_agree_with_python, "(hash >>> shift)", "(hash >> (shift + 1))"),
    (damaged_storage, "if (fault && !stuck) setAside(text, entries);", ""),
    (damaged_storage, "if (valid(key, value)) entries.set(key, value);", "if (1) entries.set(key, value);"),
    (damaged_storage, "if (entries.size) localStorage", "if (0) localStorage"),
    (storage_switched_off, "} catch {} // switched off", "} catch (error) { throw error; }"),
    (storage_switched_off, " || document.querySelector(\".study-note\")", ""),
    (full_in_between, "else entries.set(key, structuredClone(value));", ""),
    (full_in_between, "unsaved.set(key, after.get(key))", "0"),
    (two_tabs, "else if (event.key === KEY || event.key === null) tell();", ""),
    (two_tabs, "const before = load(), after", "const before = (window.old ??= load()), after"),
    (save_remove_load, "b.gaps > a.gaps", "b.gaps < a.gaps"),
    (save_remove_load, "merge ? mine : []", "mine"),
    (save_remove_load, "if (fault) return say(", "if (fault) say("),
    (path_and_next, "state !== \"done\")", "state)"),
    (picture_is_marked, "(state && ` (${state})`)", '""'),
    (only_right_values, "JSON.stringify(value).length < 5000", "true"),
]  # fmt: skip


@pytest.mark.parametrize(("scenario", "old", "new"), BUGS, ids=[f"{b[0].__name__}-{i}" for i, b in enumerate(BUGS)])
def test_a_planted_bug_fails_its_scenario(browser, site, scenario, old, new):
    assert SCRIPT.count(old) >= 1, old
    made = []

    def reader(**options):
        made.append(Reader(browser, site, script=SCRIPT.replace(old, new), **options))
        made[-1].context.set_default_timeout(1500)
        return made[-1]

    from playwright.sync_api import Error

    with pytest.raises((AssertionError, Error, KeyError)):
        scenario(reader)
        assert [error for each in made for error in each.errors] == []
    for each in made:
        each.context.close()
