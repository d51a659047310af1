"""Quizzes: faults in their files are named by line, their numbers are recomputed, and a browser answers them.

The last part needs the built book (`make html`). Each browser check is run again on a script with one planted fault.
"""

import json
import math
import re
from importlib.resources import files
from itertools import product
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import pytest
from test_site import AXE, HTML, browser  # noqa: F401  (one is a fixture)

from genlib.course.quizzes import KINDS, Quiz, parse, quiz

ROOT = Path(__file__).resolve().parent.parent

FILES = sorted((ROOT / "book" / "quizzes").glob("*.yml"))
NAMES = [path.stem for path in FILES]
SCRIPT = (files("genlib.course") / "quiz.js").read_text("utf8")

# One question of each kind. The numbers of its lines stand in FAULTS.
TEXT = """\
questions:
- id: dice
  kind: one
  text: Which is `largest` of $x < 2$?
  options:
  - text: a < b
    why: A misses.
  - text: b
    right: true
    why: B *fits* $b$.
  - text: c
    why: C misses.
- id: holds
  kind: several
  text: Which hold?
  options:
  - text: p
    right: true
    why: P holds.
  - text: q
    why: Q fails.
  - text: r
    right: true
    why: R holds.
- id: third
  kind: number
  text: A third?
  within: 0.01
  hint: Divide one by three.
  options:
  - value: 0.3333
    check: 1 / 3
    right: true
    why: One of three.
  - value: 3
    check: 1 / (1 / 3)
    why: Upside down.
- id: steps
  kind: order
  text: In which order?
  options:
  - text: last
    place: 3
    why: Nothing follows.
  - text: first
    place: 1
    why: Nothing precedes.
  - text: middle
    place: 2
    why: It needs the first.
"""
FAULTS = {  # old text, new text, the line that must be named, what must be said
    "unknown key": ("  kind: one\n", "  kind: one\n  hint: no\n", 4, "'hint'"),
    "unknown key of an option": ("    why: C misses.", "    why: C misses.\n    whey: x", 13, "'whey'"),
    "repeated key": (
        "  text: Which hold?\n",
        "  text: Which hold?\n  text: Again?\n",
        16,
        "'text' is repeated or unknown",
    ),
    "no text": ("  text: Which hold?\n", "", 13, "missing text"),
    "empty text": ("  text: Which hold?\n", "  text:\n", 15, "expected a text"),
    "text that is a list": ("  text: Which hold?\n", "  text: [a, b]\n", 15, "expected a text"),
    "open formula": ("  text: Which hold?\n", "  text: Which $hold?\n", 15, "closed $"),
    "open code": ("  text: Which hold?\n", "  text: Which `hold?\n", 15, "closed $ and `"),
    "no explanation": ("    why: C misses.\n", "", 11, "missing why"),
    "empty explanation": ("    why: C misses.\n", "    why: ''\n", 12, "why: expected a text"),
    "no right answer": (
        "  - text: b\n    right: true\n",
        "  - text: b\n",
        6,
        "exactly one with `right: true`, found 0",
    ),
    "two right answers": (
        "    why: C misses.\n",
        "    right: true\n    why: C\n",
        6,
        "exactly one with `right: true`, found 2",
    ),
    "none of several": ("    right: true\n    why: P", "    why: P", 17, None),
    "right: false": ("    right: true\n    why: B", "    right: false\n    why: B", 9, "right: expected true"),
    "one option": (TEXT[TEXT.index("  - text: p") : TEXT.index("  - text: r")], "", 17, "2 to 8"),
    "no tolerance": ("  within: 0.01\n", "", 25, "missing within"),
    "odd tolerance": ("  within: 0.01\n", "  within: small\n", 28, "expected a tolerance such as 0, 0.01 or 2%"),
    "negative tolerance": ("  within: 0.01\n", "  within: -1\n", 28, "expected a tolerance"),
    "wide tolerance": ("  within: 0.01\n", "  within: 2\n", 31, "a wrong value is nearer than twice 2.0"),
    "no right number": (
        "    right: true\n    why: One of",
        "    why: One of",
        31,
        "exactly one with `right: true`, found 0",
    ),
    "number in words": ("value: 3\n", "value: three\n", 35, "value: expected a number, found 'three'"),
    "number with zeros before it": ("value: 3\n", "value: 007\n", 35, "value: expected a number"),
    "number beyond all": ("value: 3\n", "value: 1e400\n", 35, "value: expected a number"),
    "key that is a list": ("    check: 1 / 3\n", "    ? [1, 2]\n    : 3\n", 32, "is repeated or unknown"),
    "character of no text": ("  text: Which hold?\n", "  text: Which \0 hold?\n", 1, "no YAML"),
    "place that is no whole number": ("place: 3", "place: 3.0", 43, "a place from 1 to 8"),
    "no check": ("    check: 1 / 3\n", "", 31, "missing check"),
    "places with a gap": ("place: 3", "place: 4", 42, "places 1 to 3"),
    "place given twice": ("place: 3", "place: 2", 42, "places 1 to 3"),
    "unknown kind": ("  kind: order\n", "  kind: sort\n", 39, "one, several, number, order, found sort"),
    "no kind": ("  kind: order\n", "", 38, "kind: expected one of"),
    "kind that is a list": ("  kind: order\n", "  kind: [order]\n", 39, "kind: expected one of"),
    "question that is a text": ("- id: dice\n", "- text\n- id: dice\n", 2, "kind: expected one of"),
    "id with a capital": ("- id: dice", "- id: Dice", 2, "id: expected lower-case"),
    "id used twice": ("- id: steps", "- id: dice", 38, "the id 'dice' is used twice"),
    "three questions": (TEXT[TEXT.index("- id: steps") :], "", 2, "questions: expected a list of 4 to 8"),
    "nine questions": (TEXT, TEXT + "- a\n" * 5, 2, "questions: expected a list of 4 to 8"),
    "nothing": (TEXT, "", 1, "missing questions"),
    "an empty mapping": (TEXT, "{}", 1, "missing questions"),
    "a mapping of questions": (TEXT, "questions: {a: 1, b: 2, c: 3, d: 4}", 1, "questions: expected a list of 4 to 8"),
    "only a list": ("questions:\n", "", 1, "missing questions"),
    "something beside": ("questions:\n", "title: T\nquestions:\n", 1, "'title' is repeated or unknown"),
    "no YAML": ("  kind: one\n", "  kind: 'one\n", None, "no YAML"),
    "tab": ("  kind: one\n", "\tkind: one\n", 3, "no YAML"),
    "two documents": ("- id: steps", "---\n- id: steps", 38, "no YAML"),
}


# --- the files -------------------------------------------------------------------------------------------------------


def test_good_questions_are_read():
    assert [q["kind"] for q in parse(TEXT, "t.yml")] == list(KINDS)
    assert parse(TEXT, "t.yml")[2]["within"] == 0.01
    assert parse(TEXT.replace("0.01", "3%"), "t.yml")[2]["within"] == pytest.approx(0.03 * 0.3333)
    assert parse(TEXT.replace("0.01", "0"), "t.yml")[2]["within"] == 0


@pytest.mark.parametrize(("old", "new", "line", "said"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_named_with_its_file_and_line(old, new, line, said):
    assert old in TEXT
    text = TEXT.replace(old, new, 1)
    if said is None:  # the first of two right options is gone: no fault yet
        assert parse(text, "t.yml")
        text, said = (
            text.replace("    right: true\n    why: R", "    why: R"),
            "at least one with `right: true`, found 0",
        )
    with pytest.raises(ValueError) as error:
        parse(text, "t.yml")
    where, _, what = str(error.value).partition(": ")
    assert re.fullmatch(r"t\.yml, line \d+", where) if line is None else where == f"t.yml, line {line}"
    assert said in what


def test_a_name_that_is_none():
    with pytest.raises(ValueError, match="got 'density-estimate'; did you mean 'density-estimation'?"):
        quiz("density-estimate")
    with pytest.raises(ValueError, match="expected one of .*'density-estimation', .*, got 'zzz'$"):
        quiz("zzz")
    with pytest.raises(TypeError, match="name: expected the name of a quiz"):
        quiz(3)


def notebook_quizzes() -> dict[str, str]:
    """The quizzes that the notebooks show: name -> the chapter that shows it."""
    found = {}
    for path in (ROOT / "book").rglob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code" and (match := re.search(r'^quiz\("([\w-]+)"\)$', cell.source, re.M)):
                found[match[1]] = path.stem
    return found


def test_each_file_is_the_quiz_of_its_chapter():
    assert notebook_quizzes() == {name: name for name in NAMES} and len(NAMES) >= 3


@pytest.mark.parametrize("name", NAMES)
def test_questions_of_a_chapter(name):
    questions = quiz(name).questions
    assert 4 <= len(questions) <= 8 and len({q["kind"] for q in questions}) >= 3
    for q in questions:
        for option in q["options"]:
            if q["kind"] == "number":  # no number is typed that nobody computed
                assert math.isclose(eval(option["check"], {"math": math}), option["value"], rel_tol=1e-6), option
            assert len(option["why"].split()) >= 4, option


def test_right_answers_stand_in_no_usual_place():
    places = [
        ["right" in o for o in q["options"]].index(True) for n in NAMES for q in quiz(n).questions if q["kind"] == "one"
    ]
    assert set(places) >= {0, 1, 2, 3} and max(map(places.count, places)) <= len(places) / 2


# --- what is shown ---------------------------------------------------------------------------------------------------


def bundle() -> dict[str, str]:
    return Quiz("test", parse(TEXT, "t.yml"))._repr_mimebundle_()


def test_the_same_each_time_and_nothing_that_ends_a_script():
    assert bundle() == bundle()
    assert bundle()["text/html"].count("</script") == 1 and bundle()["text/plain"] == "Quiz(name='test')"


def test_markdown_of_a_text_becomes_html():
    shown = bundle()["text/html"]
    assert r'<p>Which is <code>largest</code> of <span class="math">\(x &lt; 2\)</span>?</p>' in shown
    assert (
        r'<span>B <em>fits</em> <span class="math">\(b\)</span>.</span>' in shown and "<span>a &lt; b</span>" in shown
    )


def test_print_has_the_questions_and_then_the_answers():
    asked, answered = bundle()["text/markdown"].split("**Answers**")
    assert "**1.** Which is `largest` of $x < 2$?\n\n- (a) a < b\n- (b) b" in asked and "- last\n- first" in asked
    assert "misses" not in asked
    assert "- **(b) Right.** B *fits* $b$." in answered and "- **(c) Wrong.** C misses." in answered
    assert "- **0.3333 is right.** One of three." in answered and "- **3 is wrong.** Upside down." in answered
    assert answered.index("**first.**") < answered.index("**middle.**") < answered.index("**last.**")


# --- in a browser ----------------------------------------------------------------------------------------------------

PROGRESS = """<script>window.courseProgress = {
  get: (key) => JSON.parse(localStorage.getItem(key)), remove: (key) => localStorage.removeItem(key),
  set: (key, value) => localStorage.setItem(key, JSON.stringify(value)), subscribe: (told) => { window.told = told; } };
</script>"""
PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>t</title><link rel="icon" href="data:,">
<meta name="viewport" content="width=device-width">
<style>html[data-theme=dark] {{background: #121212; color: #ddd; --pst-color-surface: #29313d;
--pst-color-text-base: #dde3e9; --pst-color-text-muted: #9ca4af; --pst-color-primary: #7fb3ee}}</style>
{head}</head><body><main><h1>t</h1>{body}</main></body></html>"""


class Visit:
    """A page with the quiz of TEXT, in a browser of its own."""

    def __init__(self, browser, head=PROGRESS, old="", new="", copies=1, folder=None, page="", **options):
        assert old in SCRIPT
        body = bundle()["text/html"].replace(SCRIPT, SCRIPT.replace(old, new)) * copies
        self.context, self.errors = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options}), []
        whole = PAGE.format(head=head, body=body)

        def give(route):
            file = folder and folder / urlsplit(route.request.url).path.lstrip("/")
            route.fulfill(path=file) if file else route.fulfill(body=whole, content_type="text/html")

        self.context.route("**/*", give)
        self.tab = self.context.new_page()
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))
        self.tab.goto(f"http://quiz.test/{page}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()

    def item(self, i):
        return self.tab.locator(".genlib-quiz > ol > li").nth(i)

    def says(self, i):
        return " ".join(self.item(i).get_by_role("status").inner_text().split())

    def check(self, i):
        self.item(i).get_by_role("button", name="Check").click()
        return self.says(i)

    def tick(self, i, *options):
        boxes = self.item(i).locator("input")
        for k in range(boxes.count()):
            if k in options or i == 1:
                boxes.nth(k).set_checked(k in options)
        return self.check(i)

    def type(self, text):
        self.item(2).get_by_label("Your answer").fill(text)
        return self.check(2)

    def move(self, name):
        self.item(3).get_by_role("button", name=name, exact=True).click(force=True)  # also at the ends

    def score(self):
        return self.tab.locator(".score [role=status]").first.inner_text()

    def shows(self, i, name="Show the answer"):
        return self.item(i).get_by_role("button", name=name).is_visible()

    def kept(self, key):
        return json.loads(self.tab.evaluate("key => localStorage.getItem(key)", key) or "null")


def answer(visit):
    """Go through the quiz, and say what each answer must bring."""
    assert visit.score() == "0 of 4 right" and visit.kept("quiz:test") == {"total": 4}
    assert not visit.tab.get_by_role("button", name="Start again").is_visible()
    assert not visit.tab.get_by_text("A misses").is_visible() and not visit.tab.get_by_text("Divide one").is_visible()
    assert visit.check(0) == "Choose an option first." and visit.kept("quiz:test/dice") is None

    assert visit.tick(0, 0) == "(a) Wrong. A misses." and not visit.shows(0)
    assert visit.check(0) and not visit.shows(0)  # the same answer twice is one try
    assert visit.kept("quiz:test/dice") == {"right": False, "answer": [0], "tries": 1}
    assert visit.tick(0, 2) == "(c) Wrong. C misses." and visit.shows(0)
    assert not visit.item(0).get_by_text("Answer", exact=True).is_visible()
    visit.item(0).get_by_role("button", name="Show the answer").click()
    assert visit.item(0).locator("details").get_by_text("B fits").is_visible() and not visit.shows(0)
    visit.item(0).locator("input").nth(1).check()
    assert visit.says(0) == "" and visit.score() == "0 of 4 right"  # what was said was about another answer
    assert visit.check(0).startswith("(b) Right. B fits") and visit.score() == "1 of 4 right"
    assert visit.kept("quiz:test/dice") == {"right": True, "answer": [1], "tries": 3}

    assert visit.check(1) == "Tick at least one option."
    assert visit.tick(1, 0) == "Not yet: what you ticked holds, but not only that."
    assert visit.tick(1, 0, 1, 2) == "(b) Wrong. Q fails."
    assert visit.tick(1, 0, 2) == "(a) Right. P holds. (c) Right. R holds."

    assert visit.type("7") == "Not yet. A hint: Divide one by three."
    assert visit.type("3") == "3 is wrong. Upside down." and visit.score() == "2 of 4 right"
    assert visit.type("1/3") == "0.3333 is right. One of three." and visit.score() == "3 of 4 right"

    assert visit.check(3).startswith("Not yet: “last” is too early. Before it: first. Nothing precedes.")
    visit.move("Move up: first")
    assert visit.says(3) == "first: now 1 of 3."
    visit.move("Move up: first")  # it is at the top
    assert visit.check(3) == "Not yet: “last” is too early. Before it: middle. It needs the first."
    visit.move("Move down: last")
    assert visit.check(3) == "All are in their places." and visit.score() == "4 of 4 right"
    assert visit.kept("quiz:test/steps") == {"right": True, "answer": [1, 2, 3], "tries": 3}

    visit.tab.reload()
    assert visit.score() == "4 of 4 right" and visit.says(2) == "0.3333 is right. One of three."
    assert (
        visit.item(1).locator("input:checked").count() == 2
        and visit.item(3).locator("ol li").first.inner_text()[:5] == "first"
    )
    assert visit.kept("quiz:test/dice")["tries"] == 3
    assert visit.tick(0, 0) == "(a) Wrong. A misses." and visit.score() == "4 of 4 right"  # what was right stays so
    assert visit.kept("quiz:test/dice")["answer"] == [1]
    visit.tab.reload()
    assert visit.score() == "4 of 4 right" and visit.says(0).startswith("(b) Right.")
    visit.tab.evaluate("localStorage.removeItem('quiz:test/third'); told()")  # removed on another page
    assert visit.score() == "3 of 4 right" and visit.says(2) == ""

    visit.tab.get_by_role("button", name="Start again").click()
    assert visit.score() == "0 of 4 right" and visit.says(0) == visit.says(3) == ""
    assert visit.tab.locator("input:checked").count() == 0 and visit.kept("quiz:test/dice") is None
    assert visit.tab.evaluate("document.activeElement.type") == "radio"
    visit.tab.reload()
    assert visit.score() == "0 of 4 right" and visit.errors == []


def test_right_and_wrong_answers(browser):
    with Visit(browser) as visit:
        answer(visit)


PLANTED = [
    ('"right" in shown[i].dataset', '"why" in shown[i].dataset'),
    ("if (!wrong.length && !complete)", "if (false)"),
    ("map((i) => reasons[i])", "map(() => reasons[0])"),
    ("near(x, Number(row.dataset.value))", "x === Number(row.dataset.value)"),
    ("says: hit ? [hit]", "says: false ? [hit]"),
    ('[["\\u2191", "up", -1], ["\\u2193", "down", 1]]', '[["\\u2191", "up", 1], ["\\u2193", "down", -1]]'),
    ("const at = answer.findIndex((p, i) => p !== i + 1);", "const at = answer.findIndex((p, i) => p !== i);"),
    ("if (!other) return;", "if (!other) list.append(row);"),
    ("(again ? 0 : 1)", "1"),
    ("record?.tries > 1", "record?.tries > 5"),
    ("if (li.dataset.state) window.courseProgress?.set(key, record);", ""),
    ("kind.write(kept.answer);", ""),
    ('form.addEventListener("input", () => say(""));', ""),
    ("if (score.textContent !== text)", "if (!score.textContent)"),
    ("forget() { reset(); window.courseProgress?.remove(key); }", "forget() { reset(); }"),
    ("event.preventDefault();", ""),
    ('part.classList.add("store");', ""),
    ("if (right || !record?.right)", ""),
    ("if (record && !window.courseProgress.get(key)) reset();", ""),
    ("kind.write(empty);", ""),
]


@pytest.mark.parametrize(("old", "new"), PLANTED, ids=range(len(PLANTED)))
def test_a_planted_fault_is_seen(browser, old, new):
    from playwright.sync_api import Error

    with Visit(browser, old=old, new=new) as visit:
        visit.tab.set_default_timeout(500)
        with pytest.raises((AssertionError, Error)):
            answer(visit)


NUMBERS = {
    "right": ["1/3", "0.33", "0,33", ".333", "+0.333", " 1 / 3 ", "33%", "33.3 %", "3.3e-1", "3,3E-1", "0.333333333333"]
    + ["-1/-3", "\u22121/\u22123", "1 000/3 000"],
    "wrong": ["3", "3.0", "3e0", "300%", "6/2"],
    "hint": ["-1/3", "0.3", "0.35", "0", "\u20130.33", "1e9"],
    "number": [
        "",
        "abc",
        "1/0",
        "0/0",
        "1//3",
        "1/3/3",
        "0x1",
        "1e",
        "Infinity",
        "NaN",
        "1 1/2",
        "1.2.3",
        "12,5,1",
        "e5",
        "-",
    ],
    "comma": ["1,000", "1,234,567", "-2,500", "1/3,000"],
}


def test_numbers_are_read_as_people_write_them(browser):
    said = {
        "right": "0.3333 is right",
        "wrong": "3 is wrong",
        "hint": "Not yet",
        "number": "Write a number",
        "comma": "Does the comma",
    }
    with Visit(browser) as visit:
        for kind, texts in NUMBERS.items():
            for text in texts:
                assert visit.type(text).startswith(said[kind]), (text, visit.says(2))


def test_by_keyboard_alone(browser):
    with Visit(browser) as visit:
        press = visit.tab.keyboard.press
        for key in ["Tab", "Space", "ArrowDown", "Tab", "Enter"]:  # to the radio buttons, the second one, Check
            press(key)
        assert visit.says(0).startswith("(b) Right.")
        assert visit.tab.evaluate("document.activeElement.textContent") == "Check"
        for key in ["Tab", "Tab", "Space", "Tab", "Tab", "Space", "Tab", "Enter"]:  # past the summary of the answer
            press(key)
        assert visit.says(1).startswith("(a) Right.")
        for key in ["Tab", "Tab", "1", "/", "3", "Enter"]:
            press(key)
        assert visit.says(2).startswith("0.3333 is right")
        visit.item(3).get_by_role("button", name="Move down: last").focus()
        for _ in range(2):
            press("Enter")
            assert visit.tab.evaluate("document.activeElement.ariaLabel") == "Move down: last"  # the focus moves along
        assert visit.says(3) == "last: now 3 of 3." and visit.check(3) == "All are in their places."
        assert visit.score() == "4 of 4 right"


def test_focus_goes_to_the_answer_that_was_asked_for(browser):
    with Visit(browser) as visit:
        visit.tick(0, 0), visit.tick(0, 2)
        visit.item(0).get_by_role("button", name="Show the answer").focus()
        visit.tab.keyboard.press("Enter")
        assert visit.tab.evaluate("document.activeElement.tagName") == "SUMMARY"


def test_without_a_store_of_progress(browser):
    """As in JupyterLab and Colab, where the book's own script is not there, and keys on the page are commands."""
    with Visit(browser, head="") as visit:
        visit.tab.evaluate("document.addEventListener('keydown', () => { window.heard = true; })")
        visit.item(0).locator("input").first.press("d")
        assert visit.tab.evaluate("window.heard") is None
        assert visit.tick(0, 1).startswith("(b) Right.") and visit.score() == "1 of 4 right" and visit.errors == []
        visit.tab.get_by_role("button", name="Start again").click()
        assert visit.score() == "0 of 4 right" and visit.errors == []


DAMAGED = [
    None,
    3,
    "x",
    [],
    {},
    {"answer": None},
    {"answer": 5, "right": True},
    {"answer": {"a": 1}, "right": True, "tries": "x"},
]
DAMAGED += [
    {"answer": [9, -1], "right": True, "tries": 1},
    {"answer": [3, 3, 3], "right": True},
    {"answer": "", "right": True},
]


def test_damaged_progress_breaks_nothing(browser):
    with Visit(browser) as visit:
        for value in DAMAGED:
            for key in ("dice", "holds", "third", "steps"):
                visit.tab.evaluate("([key, value]) => courseProgress.set(key, value)", [f"quiz:test/{key}", value])
            visit.tab.reload()
            assert visit.errors == [] and visit.score() == "0 of 4 right", value
            assert visit.item(3).locator("ol li").all_inner_texts()[0].startswith("last")
            assert visit.tick(0, 1).startswith("(b) Right."), value
            visit.tab.evaluate("localStorage.clear()")
        # The question has changed since: what was right is judged anew.
        visit.tab.evaluate("courseProgress.set('quiz:test/dice', {right: true, answer: [0], tries: 1})")
        visit.tab.reload()
        assert visit.says(0) == "(a) Wrong. A misses." and visit.score() == "0 of 4 right"


def test_twice_on_a_page(browser):
    with Visit(browser, copies=2) as visit:
        assert visit.tab.locator(".genlib-quiz.live").count() == 2 and visit.item(7).is_visible()
        assert visit.tick(0, 1).startswith("(b) Right.") and visit.says(4) == ""
        visit.item(4).locator("input").nth(2).check()  # radio buttons of one name, and yet two groups
        assert visit.item(0).locator("input").nth(1).is_checked()
        assert visit.check(4) == "(c) Wrong. C misses." and visit.says(0).startswith("(b) Right.")
        assert visit.tab.locator(".score").all_inner_texts()[1].startswith("0 of 4 right") and visit.errors == []
        visit.tab.evaluate(SCRIPT)  # and once more, as when a front end draws an output again
        assert visit.tab.locator("form").count() == 8


def test_without_scripts(browser):
    with Visit(browser, java_script_enabled=False) as visit:
        text = visit.tab.inner_text("main")
        assert "(a) a < b" in text and "Which hold?" in text and "C misses." not in text
        visit.item(0).get_by_text("Answer").click()
        assert visit.item(0).get_by_text("C misses.").is_visible()
        visit.item(2).get_by_text("Hint").click()
        assert visit.item(2).get_by_text("Divide one by three.").is_visible()


def axe(tab, widths=(1280, 390), themes=("light", "dark")) -> list[str]:
    """What axe finds in the quiz, and whether the page has become wider than the window."""
    found = []
    tab.evaluate(AXE)
    for width, theme in product(widths, themes):
        tab.set_viewport_size({"width": width, "height": 900})
        if tab.evaluate("document.documentElement.scrollWidth") > width:
            found.append(f"wider than {width}")
        tab.evaluate("theme => {document.documentElement.dataset.theme = theme}", theme)
        report = tab.evaluate("axe.run('.genlib-quiz').then((result) => result.violations)")
        found += [f"{theme} {width}: {fault['id']} {fault['nodes'][0]['html'][:200]}" for fault in report]
    return found


def test_axe_finds_nothing(browser):
    with Visit(browser) as visit:
        visit.tick(0, 0), visit.tick(0, 2), visit.tick(1, 0, 2), visit.type("3"), visit.type("4"), visit.check(3)
        visit.item(0).get_by_role("button", name="Show the answer").click()
        assert axe(visit.tab) == []


@pytest.mark.parametrize(
    ("old", "new"), [('"Your answer ", box', "box"), ('make("button", {}, "Check")', 'make("button", {})')]
)
def test_axe_finds_a_fault(browser, old, new):
    with Visit(browser, old=old, new=new) as visit:
        assert axe(visit.tab)


# --- on the pages of the book ----------------------------------------------------------------------------------------


def right_answer(visit, i, q):
    """Answer question i as its file says."""
    if q["kind"] == "number":
        value = next(option["value"] for option in q["options"] if "right" in option)
        visit.item(i).get_by_label("Your answer").fill(str(value))
    for k, option in enumerate(q["options"]):
        if "text" in option and q["kind"] != "order" and "right" in option:
            visit.item(i).locator("input").nth(k).check()
    for place in range(1, len(q["options"]) + 1) if q["kind"] == "order" else []:
        row = visit.item(i).locator(f"[data-place='{place}']")
        for _ in q["options"]:
            row.locator("button").first.click(force=True)
        for _ in range(place - 1):
            row.locator("button").last.click()
    return visit.check(i)


@pytest.mark.parametrize("name", NAMES)
def test_the_quiz_of_a_page(browser, name):
    assert HTML.is_dir(), "the book is not built: make html"
    (page,) = HTML.glob(f"book/**/{name}.html")
    questions = quiz(name).questions
    with Visit(browser, folder=HTML, page=page.relative_to(HTML)) as visit:
        assert visit.score() == f"0 of {len(questions)} right"
        for i, q in enumerate(questions):
            assert visit.item(i).get_by_role("status").inner_text() == ""
            said = right_answer(visit, i, q)
            assert "Right" in said or "is right" in said or "All are in" in said, (q["id"], said)
        assert visit.score() == f"{len(questions)} of {len(questions)} right"
        assert visit.tab.evaluate("key => courseProgress.get(key)", f"quiz:{name}") == {"total": len(questions)}
        visit.tab.reload()
        visit.tab.evaluate("MathJax.startup.promise")
        assert visit.score() == f"{len(questions)} of {len(questions)} right"
        assert visit.tab.locator(".genlib-quiz .math:not(:has(mjx-container))").count() == 0
        assert axe(visit.tab, [390], ["dark"]) == [] and visit.errors == []
