"""Checks of a lab's gaps: run the learner's function on a few cases and say what is wrong, and how to see it.

A lab's module declares each gap once: ``@gap(name, cases)`` stands above the reference answer, and ``cases`` yields the
:class:`Case` objects that judge an answer. What a case expects comes from an oracle independent of the reference. Its
function ``fresh(gap, generator)`` draws arguments for whoever grades from outside.
"""

import difflib
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module

import torch
from IPython.display import Markdown
from torch import Tensor

from genlib.contract import check_choice

LABS = {  # the first word of a gap's name -> the module that declares it
    "density": "genlib.course.density_estimation",
    "autoencoder": "genlib.course.autoencoder",
    "denoising": "genlib.course.denoising_sampler",
    "flow": "genlib.course.normalizing_flow",
    "made": "genlib.course.made",
    "vae": "genlib.course.vae",
}
GAPS: dict[str, "Gap"] = {}
PASSED: set[str] = set()  # the gaps that have passed since the kernel started


@dataclass(frozen=True)
class Case:
    """One call of the learner's function: its arguments, the oracle's answer, and what each known mistake gives.

    ``mistakes`` maps the sentence that the learner reads to the value that the mistake leads to.
    """

    arguments: dict[str, object]
    expected: Tensor
    mistakes: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Gap:
    """A function that the learner writes: the reference answer and the cases that judge it."""

    reference: Callable
    cases: Callable[[], Iterator[Case]]


def gap(name: str, cases: Callable[[], Iterator[Case]]):
    """Declare the function below as the reference answer to the gap ``name``."""

    def declare(reference):
        GAPS[name] = Gap(reference, cases)
        return reference

    return declare


def check(name: str, answer):
    """Judge the learner's function for the gap ``name``, print the verdict, and return a function that works.

    The learner's own function comes back if it passed, the reference if not, so that the rest of the lab always runs.
    Nothing that the function does is shown as a traceback. ``name`` raises TypeError or ValueError when it is no gap.

    A check compares the function with an independent answer on a handful of small inputs. Passing says that it is right
    there, to about four digits. It does not prove it right everywhere, nor fast, nor steady on extreme input, and a
    function that never ends is never judged.
    """
    found = _find(name)
    if answer is found.reference:
        print(f"[{name}] not judged: this is the course's own answer. Run the cell of your function, then this one.")
        return answer
    cases = list(found.cases())
    if callable(answer):
        fault = next(filter(None, (_fault(answer, case) for case in cases)), None)
    else:
        fault = (
            f"wrong: expected a function, got {type(answer).__name__}: hand over its name, with no brackets behind it."
        )
    (PASSED.discard if fault else PASSED.add)(name)
    if fault is None:
        print(f"[{name}] passed ({len(cases)} {'case' if len(cases) == 1 else 'cases'})")
        return answer
    print(f"[{name}] {fault}\n  Until it passes, the lab goes on with the course's own answer.")
    return found.reference


def code(lab: str) -> Markdown:
    """How many gaps of ``lab`` have passed since the kernel started, and the code that tells the book's page so.

    The code is a checksum that catches slips of typing; anybody can compute it, so it proves nothing. ``lab``, such as
    "density", raises ValueError when there is none of that name.
    """
    lab_of(check_choice(lab, tuple(LABS), "lab"))
    gaps = [name for name in GAPS if name.startswith(f"{lab}.")]
    left = [name for name in gaps if name not in PASSED]
    short = f"{lab}-{len(gaps) - len(left)}"
    said = [f"{len(gaps) - len(left)} of {len(gaps)} gaps passed so far."]
    said += [f"Your code: **{short}-{_checksum(short)}**."] * (len(left) < len(gaps))
    said += [f"Still open: {', '.join(left)}."] * bool(left)
    return Markdown(" ".join(said))


def _checksum(text: str) -> str:
    """The last 20 bits of FNV-1a in letters that are hard to confuse; book/_static/progress.js has it too."""
    value = 2166136261
    for byte in text.encode():
        value = (value ^ byte) * 16777619 % 2**32
    return "".join("0123456789ABCDEFGHJKMNPQRSTVWXYZ"[value >> shift & 31] for shift in (15, 10, 5, 0))


def lab_of(name: str):
    """The module of the lab that a gap, or its first word, names."""
    return import_module(LABS[name.split(".")[0]])


def _find(name) -> Gap:
    """The gap called ``name``, from the lab that declares it."""
    if not isinstance(name, str):
        raise TypeError(f'name: expected the name of a gap, such as "density.kde", got {name!r}')
    for lab in LABS if name.split(".")[0] not in LABS else [name]:
        lab_of(lab)
    if name not in GAPS:
        near = difflib.get_close_matches(name, GAPS, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"name: expected one of {', '.join(map(repr, sorted(GAPS)))}, got {name!r}{hint}")
    return GAPS[name]


def _fault(answer, case: Case) -> str | None:
    """What is wrong with the learner's function on this case, or None."""
    given = {k: v.clone() if isinstance(v, Tensor) else v for k, v in case.arguments.items()}
    call, what = f"\n  try it:   {_call(answer, case)}", "your function raised"
    try:
        got = answer(*given.values())
        what = "what came back cannot be judged:"
        return _judge(got, given, answer, case, call)
    except (Exception, SystemExit) as error:
        return f"wrong: {what} {type(error).__name__}: {_text(error)}{_line(answer, error)}{call}"


def _judge(got, given, answer, case: Case, call: str) -> str | None:
    """What is wrong with what came back, and with what was done to the arguments, or None."""
    wanted = case.expected
    if got is None:
        code = getattr(getattr(answer, "__code__", None), "co_code", b"")
        untouched = len(code) == len((lambda: None).__code__.co_code)
        return "not yet: the body is still `...`." if untouched else f"wrong: None came back: no `return`?{call}"
    for k, v in case.arguments.items():
        if isinstance(v, Tensor) and not torch.equal(given[k], v):
            return f"wrong: your function changed its input `{k}` in place; write `a = a - b`, not `a -= b`.{call}"
    if isinstance(got, Tensor):
        for kind in ("nested", "quantized", "meta"):
            if getattr(got, f"is_{kind}"):
                return f"wrong: a {kind} tensor came back, expected a plain one.{call}"
        got = got.detach().cpu().to_dense()
    if wanted.ndim == 0 and type(got) in (int, float):
        got = torch.tensor(got, dtype=wanted.dtype)
    if not isinstance(got, Tensor):
        return f"wrong: {type(got).__name__} came back, expected a torch.Tensor of shape {tuple(wanted.shape)}.{call}"
    if got.shape != wanted.shape:
        return f"wrong: the shape is {tuple(got.shape)}, expected {tuple(wanted.shape)}.{call}"
    if got.is_complex() or got.dtype == wanted.dtype and _agree(got, wanted):
        return f"wrong: the dtype is {got.dtype}, expected {wanted.dtype}.{call}" if got.is_complex() else None
    call += f"\n  expected: {_show(wanted)}\n  got:      {_show(got)}"
    for sentence, value in case.mistakes.items():
        if _agree(got.to(wanted.dtype), value):
            return f"wrong: {sentence}{call}"
    if got.dtype != wanted.dtype:
        return f"wrong: the dtype is {got.dtype}, expected {wanted.dtype}.{call}"
    if not torch.isfinite(got).all():
        return f"wrong: {int((~torch.isfinite(got)).sum())} of {got.numel()} values are NaN or infinite.{call}"
    ratio = (got / wanted)[wanted != 0]
    if len(ratio) > 1 and ratio[0] != 0 and _agree(got / 1, ratio[0] * wanted):
        return f"wrong: every value is {ratio[0]:.4g} times the expected one: look for a constant factor.{call}"
    return f"wrong: the values differ.{call}"


def _agree(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-6)


def _text(error) -> str:
    """The first line of what the error says, if it can say it."""
    try:
        return str(error).strip().split("\n")[0][:200]
    except Exception:  # its __str__ is the learner's too
        return "(no message)"


def _line(answer, error) -> str:
    """Where in the learner's own cell the error came up."""
    file = getattr(getattr(answer, "__code__", None), "co_filename", None)
    lines = [f.line for f in traceback.extract_tb(error.__traceback__) if f.filename == file and f.line]
    return f"\n  in:       {lines[-1]}" if lines else ""


def _call(answer, case: Case) -> str:
    """The call as the learner can type it."""
    shown = (f"torch.tensor({_show(v)})" if isinstance(v, Tensor) else repr(v) for v in case.arguments.values())
    return f"{getattr(answer, '__name__', 'f')}({', '.join(shown)})"


def _show(x: Tensor) -> str:
    """The values of a small tensor, to four digits."""
    return str(x.item() if x.ndim == 0 else x.tolist()) if not x.is_floating_point() else _floats(x.tolist())


def _floats(x) -> str:
    return f"[{', '.join(map(_floats, x))}]" if isinstance(x, list) else f"{x:.4g}" if x % 1 else f"{x:.1f}"
