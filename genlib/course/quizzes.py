"""Quizzes at the end of a chapter: :func:`quiz` shows the questions of ``book/quizzes/<chapter>.yml``.

A question is of one of four kinds: tick ``one`` option or ``several``, type a ``number``, put items in ``order``. Each
option carries its ``why``, said to the learner who chose it. Texts may hold `code`, *emphasis*, **strong**, $maths$.
"""

import difflib
import html
import json
import re
from dataclasses import dataclass, field
from importlib.resources import files

import yaml

# The shapes of scalars: what is expected, and its pattern.
TEXT = "a text with closed $ and `", r"([^$`]|\$[^$]+\$|`[^`]+`)+"
ID = "lower-case letters, digits and hyphens", r"[a-z0-9-]+"
TRUE = "true", "true"
NUMBER = "a number", r"-?(0|[1-9]\d*)(\.\d+)?(e-?\d{1,2})?"
PLACE = "a place from 1 to 8", r"[1-8]"
SIZE = "a tolerance such as 0, 0.01 or 2%", r"\d+(\.\d+)?%?"
KINDS = {  # the keys of an option; a question mark: may be left out
    "one": {"text": TEXT, "right?": TRUE, "why": TEXT},
    "several": {"text": TEXT, "right?": TRUE, "why": TEXT},
    "number": {"value": NUMBER, "check": TEXT, "right?": TRUE, "why": TEXT},
    "order": {"text": TEXT, "place": PLACE, "why": TEXT},
}
INLINE = re.compile(r"`(?P<code>[^`]+)`|\$(?P<math>[^$]+)\$|\*\*(?P<strong>.+?)\*\*|\*(?P<em>.+?)\*")


@dataclass(frozen=True)
class Quiz:
    """The questions of a chapter: a form on the page, in JupyterLab and in Colab, a list in print."""

    name: str
    questions: list[dict] = field(repr=False)

    def _repr_mimebundle_(self, include=None, exclude=None):
        style, script = ((files("genlib.course") / f"quiz.{kind}").read_text("utf8") for kind in ("css", "js"))
        root, items = f'<div class="genlib-quiz" data-quiz="{self.name}">', "".join(map(_html, self.questions))
        asked, answered = zip(*(_markdown(i, q) for i, q in enumerate(self.questions, 1)), strict=True)
        return {
            "text/html": f"<style>\n{style}</style>\n{root}<ol>\n{items}</ol></div>\n<script>\n{script}</script>",
            "text/markdown": "\n\n".join([*asked, "**Answers**", *answered]),
            "text/plain": repr(self),
        }


def quiz(name: str) -> Quiz:
    """The quiz of a chapter, such as ``"density-estimation"``, to be the last line of a cell.

    A name that no quiz has raises ValueError, and so does a fault in the file of questions, naming file and line.
    """
    if not isinstance(name, str):
        raise TypeError(f'name: expected the name of a quiz, such as "density-estimation", got {name!r}')
    found = {file.name[:-4]: file for file in files("genlib.quizzes").iterdir() if file.name.endswith(".yml")}
    if name not in found:
        near = difflib.get_close_matches(name, found, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"name: expected one of {', '.join(map(repr, sorted(found)))}, got {name!r}{hint}")
    return Quiz(name, parse(found[name].read_text("utf8"), f"{name}.yml"))


def parse(text: str, file: str) -> list[dict]:
    """The questions in the text of a quiz's file, or a ValueError that names the file, the line and what is wrong."""
    try:
        loader = yaml.SafeLoader(text)
        loader.name = file
        node = loader.get_single_node() or yaml.MappingNode("", [], yaml.Mark(file, 0, 0, 0, None, None))
    except yaml.YAMLError as error:
        line = error.problem_mark.line + 1 if isinstance(error, yaml.MarkedYAMLError) else 1
        what = getattr(error, "problem", None) or getattr(error, "reason", error)
        raise ValueError(f"{file}, line {line}: no YAML: {what}") from None
    questions = _read(node, {"questions": [_question]}, "file")["questions"]
    for i, q in enumerate(questions):
        if q["id"] in [earlier["id"] for earlier in questions[:i]]:
            _fail(node.value[0][1].value[i], f"the id {q['id']!r} is used twice")
    return questions


def _fail(node, message: str):
    raise ValueError(f"{node.start_mark.name}, line {node.start_mark.line + 1}: {message}")


def _question(node) -> dict:
    """One question, checked: its keys, and what must agree between its options."""
    keys = {str(key.value): value for key, value in node.value} if isinstance(node, yaml.MappingNode) else {}
    kind = str(getattr(keys.get("kind"), "value", None))
    if kind not in KINDS:
        _fail(keys.get("kind", node), f"kind: expected one of {', '.join(KINDS)}, found {kind}")
    number = {"within": SIZE, "hint": TEXT} if kind == "number" else {}
    q = _read(node, {"id": ID, "kind": TEXT, "text": TEXT, **number, "options": [KINDS[kind]]}, "question")
    options, right = q["options"], [option for option in q["options"] if "right" in option]
    if kind in ("one", "number") and len(right) != 1 or kind == "several" and not right:
        wanted = "at least one" if kind == "several" else "exactly one"
        _fail(keys["options"], f"options: expected {wanted} with `right: true`, found {len(right)}")
    if kind == "number":
        value, size = right[0]["value"], float(q["within"].rstrip("%"))
        q["within"] = size / 100 * abs(value) if q["within"].endswith("%") else size
        if sum(abs(option["value"] - value) <= 2 * q["within"] for option in options) > 1:
            _fail(
                keys["options"], f"options: a wrong value is nearer than twice {q['within']} to the right one, {value}"
            )
    places = [option["place"] for option in options if kind == "order"]
    if places and (sorted(places) != [*range(1, len(places) + 1)] or places == sorted(places)):
        _fail(keys["options"], f"options: expected the places 1 to {len(places)}, out of order, found {places}")
    return q


def _read(node, shape, what: str):
    """The value of a YAML node of this shape: a scalar's, a list of one, a dictionary of them, or a function."""
    if callable(shape):
        return shape(node)
    if isinstance(shape, list):
        least = 4 if what == "questions" else 2
        if not isinstance(node, yaml.SequenceNode) or not least <= len(node.value) <= 8:
            _fail(node, f"{what}: expected a list of {least} to 8")
        return [_read(each, shape[0], what) for each in node.value]
    if isinstance(shape, dict):
        known, found = {key.rstrip("?"): each for key, each in shape.items()}, {}
        for key, value in node.value if isinstance(node, yaml.MappingNode) else []:
            if not isinstance(key, yaml.ScalarNode) or key.value not in known or key.value in found:
                _fail(key, f"{what}: the key {key.value!r} is repeated or unknown; expected {', '.join(known)}")
            found[key.value] = _read(value, known[key.value], key.value)
        if missing := [key for key in shape if key not in found and not key.endswith("?")]:
            _fail(node, f"{what}: missing {', '.join(missing)}")
        return found
    (expected, pattern), text = shape, " ".join(str(node.value).split())
    if not isinstance(node, yaml.ScalarNode) or not re.fullmatch(pattern, text):
        _fail(node, f"{what}: expected {expected}, found {text!r}")
    return json.loads(text) if shape in (NUMBER, PLACE, TRUE) else text


def _rows(q: dict) -> tuple[list[tuple], list[tuple]]:
    """What a question lists and what its answer lists: (option, what opens the row, its text)."""
    options, says = q["options"], [("Right" if "right" in o else "Wrong", o) for o in q["options"]]
    if q["kind"] == "order":
        ordered = sorted(options, key=lambda option: option["place"])
        return [(o, "", o["text"]) for o in options], [(o, f"**{o['text']}.** ", o["why"]) for o in ordered]
    if q["kind"] == "number":
        return [], [(o, f"**{o['value']:.6g} is {verdict.lower()}.** ", o["why"]) for verdict, o in says]
    shown = [(o, f"({letter}) ", o["text"]) for letter, o in zip("abcdefgh", options, strict=False)]
    return shown, [(o, f"**{row[1]}{verdict}.** ", o["why"]) for row, (verdict, o) in zip(shown, says, strict=True)]


def _inline(text: str) -> str:
    """The small Markdown of a text as HTML."""

    def mark(match):
        kind, inside = match.lastgroup, match[match.lastgroup]
        if kind == "math":
            return rf'<span class="math">\({inside}\)</span>'
        return f"<{kind}>{inside if kind == 'code' else INLINE.sub(mark, inside)}</{kind}>"

    return INLINE.sub(mark, html.escape(text, quote=False))


def _html(q: dict) -> str:
    """A question as an item of a list that reads well where no script runs, and that quiz.js makes into a form."""

    def item(data, content):
        keys = [key for key in ("id", "kind", "within", "right", "place", "value") if key in data]
        return "<li" + "".join(f' data-{key}="{data[key]}"' for key in keys) + f">{content}</li>\n"

    rows = [[item(o, f"{_inline(opens)}<span>{_inline(text)}</span>") for o, opens, text in part] for part in _rows(q)]
    shown, why = map("".join, rows)
    asks = f"<details><summary>Hint</summary>{_inline(q['hint'])}</details>" if "hint" in q else f"<ul>\n{shown}</ul>"
    answer = f"<details><summary>Answer</summary><ul>\n{why}</ul></details>"
    return item(q, f"<p>{_inline(q['text'])}</p>\n{asks}\n{answer}")


def _markdown(number: int, q: dict) -> tuple[str, str]:
    """A question, and its answer, as Markdown for print."""
    shown, why = ("\n".join(f"- {opens}{text}" for _, opens, text in part) for part in _rows(q))
    return f"**{number}.** {q['text']}\n\n{shown}", f"**{number}.**\n\n{why}"
