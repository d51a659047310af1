"""``course.check`` tells right from wrong and each mistake from the next, and a lab can be gone through to its end."""

import functools
import math
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient

from genlib.course import check
from genlib.course.checks import GAPS, LABS, _find

LAB = Path(__file__).resolve().parent.parent / "labs/density-estimation.ipynb"
PREFIX = {"density": LAB}  # the first word of a gap's name -> its lab


@pytest.fixture(autouse=True, scope="module")
def _load():
    with pytest.raises(ValueError):
        _find("nothing")  # looks through every lab


def said(capsys, name, answer) -> tuple[str, bool]:
    """What check prints, and whether the learner's own function came back."""
    capsys.readouterr()
    back = check(name, answer)
    own = back is answer
    assert own or back is GAPS[name].reference
    return capsys.readouterr().out, own


def cells(kind):
    return [cell for cell in nbformat.read(LAB, as_version=4).cells if cell.cell_type == kind]


def gaps() -> list[tuple[str, str, str]]:
    """The gaps of the lab: the name of each, its function's name and the source of its cell."""
    code = [cell.source for cell in cells("code")]
    found = []
    for stub, call in zip(code, code[1:], strict=False):
        if match := re.fullmatch(r'(\w+) = check\("([\w.-]+)", \1\)', call):
            assert re.match(rf'def {match[1]}\(.*\):\n    """.*"""\n    \.\.\.$', stub, re.S), stub
            found.append((match[2], match[1], stub))
    return found


def solutions() -> dict[str, str]:
    """The folded solutions of the lab: a function's name -> its source."""
    found = {}
    for cell in cells("markdown"):
        for source in re.findall(
            r"<summary>Solution</summary>\n\n```python\n(.*?)```\n\n</details>", cell.source, re.S
        ):
            found[re.match(r"def (\w+)", source)[1]] = source
    return found


def solved() -> dict:
    space = {"torch": torch, "math": math}
    for source in solutions().values():
        exec(source, space)
    return space


# --- the lab ---------------------------------------------------------------------------------------------------------


def test_every_gap_of_the_lab_is_declared_and_the_other_way_round():
    assert 5 <= len(gaps()) <= 7
    assert [name for name, _, _ in gaps()] == [name for name in GAPS if name.startswith("density.")]
    assert set(PREFIX) == set(LABS)


def test_untouched_the_stored_lab_says_not_yet_at_each_gap():
    """nbval runs the lab as it stands and compares it with these outputs."""
    for name, function, _ in gaps():
        (cell,) = [c for c in cells("code") if c.source == f'{function} = check("{name}", {function})']
        assert f"[{name}] not yet: the body is still `...`." in cell.outputs[0].text
    assert not any(o.output_type == "error" for cell in cells("code") for o in cell.outputs)


def test_filled_from_its_folded_solutions_the_lab_passes_every_check_and_runs_to_its_end():
    nb, answers = nbformat.read(LAB, as_version=4), solutions()
    assert set(answers) == {function for _, function, _ in gaps()}
    for cell in nb.cells:
        if cell.cell_type == "code" and (match := re.match(r"def (\w+)", cell.source)):
            cell.source = answers[match[1]]
    NotebookClient(nb, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(LAB.parent)}}).execute()
    printed = "".join(o.text for c in nb.cells if c.cell_type == "code" for o in c.outputs if o.output_type == "stream")
    assert [line.split()[0] + line.split()[1] for line in printed.splitlines()] == [
        f"[{n}]passed" for n, _, _ in gaps()
    ]


def test_each_gap_has_three_hints_and_a_solution_folded():
    texts = [cell.source for cell in cells("markdown") if "<summary>Hint 1</summary>" in cell.source]
    assert len(texts) == len(gaps())
    for text in texts:
        assert re.findall(r"<summary>(.*?)</summary>\n\n", text) == ["Hint 1", "Hint 2", "Hint 3", "Solution"]
        assert len(re.findall(r"\n\n</details>", text)) == 4


def test_the_first_code_cell_installs_in_colab_only():
    first = cells("code")[0]
    assert "install" in first.metadata.tags
    assert re.fullmatch(
        r'import sys\n\nif "google.colab" in sys.modules:\n    %pip install -q "genlib @ git.*"', first.source
    )


# --- right answers ---------------------------------------------------------------------------------------------------


def test_the_solutions_pass(capsys):
    space = solved()
    for name, function, _ in gaps():
        out, own = said(capsys, name, space[function])
        assert own and re.match(rf"\[{name}\] passed", out), out


def test_other_right_answers_pass(capsys):
    """Answers written in other ways, with loops or with torch's own tools, are as right."""

    def by_histogram(data, edges):
        return torch.histogram(data, edges, density=True).hist

    def by_loop(x, data, h):
        return torch.stack([torch.distributions.Normal(data, h).log_prob(v).exp().mean() for v in x])

    def by_leaving_out(data, h):
        scores = []
        for i in range(len(data)):
            rest = torch.cat([data[:i], data[i + 1 :]])
            scores.append(torch.distributions.Normal(rest, h).log_prob(data[i]).logsumexp(0) - math.log(len(rest)))
        return sum(scores).item() / len(data)

    for name, answer in {
        "density.inverse-cdf": lambda u, rate: torch.log(1 / (1 - u)) / rate,
        "density.table": lambda u, x, cdf: torch.from_numpy(np.interp(u, cdf, x)).float(),
        "density.histogram": by_histogram,
        "density.kde": by_loop,
        "density.leave-one-out": by_leaving_out,
        "density.sample": functools.partial(lambda scale, d, h, i, z: d[i] + scale * z * h, 1.0),
    }.items():
        out, own = said(capsys, name, answer)
        assert own, out


# --- mistakes: the plausible ones, each written as a learner would write it -------------------------------------------

ROOT2PI = math.sqrt(2 * math.pi)


def _bins(data, edges):
    return (torch.searchsorted(edges, data, right=True) - 1).clamp(max=len(edges) - 2)


def _counts(data, edges):
    return torch.bincount(_bins(data, edges), minlength=len(edges) - 1)


def _right(u, x, cdf):
    return torch.searchsorted(cdf, u).clamp(1, len(x) - 1)


def _share(u, x, cdf):
    r = _right(u, x, cdf)
    return (u - cdf[r - 1]) / (cdf[r] - cdf[r - 1])


def _kernel(x, data, h):
    return torch.exp(-(((x[:, None] - data) / h) ** 2) / 2)


def _log_kernel(data, h, left_out=True):
    log_kernel = -(((data[:, None] - data) / h) ** 2) / 2 - math.log(h * ROOT2PI)
    return log_kernel.masked_fill(torch.eye(len(data), dtype=torch.bool), -math.inf) if left_out else log_kernel


def _score(data, h):
    return _log_kernel(data, h).logsumexp(1).mean() - math.log(len(data) - 1)


def _scores(data, candidates):
    return torch.stack([_score(data, h) for h in candidates.tolist()])


MISTAKES = {
    "density.inverse-cdf": [
        (lambda u, rate: -u.log() / rate, "at 1 - u"),
        (lambda u, rate: -(1 - u).log() * rate, "multiply by the rate"),
        (lambda u, rate: -(1 - u).log(), "rate out"),
        (lambda u, rate: (1 - u).log() / rate, "sign"),
        (lambda u, rate: 1 - (-rate * u).exp(), "cdf itself"),
        (lambda u, rate: rate * (-rate * u).exp(), "density"),
        (lambda u, rate: -(1 - u).log10() / rate, "base 10"),
        (lambda u, rate: -3 * (1 - u).log() / rate, "3 times the expected"),
    ],
    "density.table": [
        (lambda u, x, cdf: x[_right(u, x, cdf) - 1], "grid point to the left"),
        (lambda u, x, cdf: x[_right(u, x, cdf)], "grid point to the right"),
        (lambda u, x, cdf: (x[_right(u, x, cdf) - 1] + x[_right(u, x, cdf)]) / 2, "middle of the interval"),
        (lambda u, x, cdf: x[_right(u, x, cdf) - 1] + _share(u, x, cdf), "not multiplied by the width"),
        (lambda u, x, cdf: x[_right(u, x, cdf) - 1] + u - cdf[_right(u, x, cdf) - 1], "as it is"),
        (
            lambda u, x, cdf: x[(r := _right(u, x, cdf)) - 1] + (u - cdf[r - 1]) * (x[r] - x[r - 1]),
            "not divided by the step",
        ),
        (lambda u, x, cdf: torch.lerp(x[(r := _right(u, x, cdf))], x[r - 1], _share(u, x, cdf)), "ends are swapped"),
        (lambda u, x, cdf: torch.from_numpy(np.interp(u, x, cdf)).float(), "forwards"),
        (lambda u, x, cdf: x[0] + u * (x[-1] - x[0]), "no say"),
        (lambda u, x, cdf: x[torch.searchsorted(cdf, u, right=True) + 1], "IndexError"),
    ],
    "density.histogram": [
        (lambda d, e: _counts(d, e), "these are counts"),
        (lambda d, e: _counts(d, e).float(), "these are counts"),
        (lambda d, e: _counts(d, e) / len(d), "shares of the data"),
        (lambda d, e: _counts(d, e) / e.diff(), "not by n"),
        (lambda d, e: _counts(d, e) / (len(d) + 1) / e.diff(), "n + 1"),
        (lambda d, e: _counts(d, e) / (len(d) - 1) / e.diff(), "n - 1"),
        (lambda d, e: _counts(d, e) / len(d) / (e[1] - e[0]), "first bin's width"),
        (lambda d, e: _counts(d, e) / len(d) / e.diff().mean(), "average width"),
        (lambda d, e: _counts(d, e) / (_counts(d, e) * e.diff()).sum(), "common factor"),
        (lambda d, e: _counts(d, e) / len(d) * e.diff(), "multiply by the width"),
        (
            lambda d, e: (
                torch.bincount((torch.searchsorted(e, d) - 1).clamp(0), minlength=len(e) - 1) / len(d) / e.diff()
            ),
            "on its right",
        ),
        (lambda d, e: ((d >= e[:-1, None]) & (d < e[1:, None])).float().mean(1) / e.diff(), "last edge"),
    ],
    "density.kde": [
        (lambda x, d, h: _kernel(x, d, h).sum(1) / (h * ROOT2PI), "not by n"),
        (lambda x, d, h: _kernel(x, d, h).mean(1) / ROOT2PI, "not by h"),
        (lambda x, d, h: _kernel(x, d, h).sum(1) / ROOT2PI, "both 1/n and 1/h"),
        (lambda x, d, h: _kernel(x, d, h).mean(1) / h**2 / ROOT2PI, "h twice"),
        (lambda x, d, h: _kernel(x, d, h).mean(1) * h / ROOT2PI, "multiply by h"),
        (lambda x, d, h: _kernel(x, d, h).sum(1) / (len(d) + 1) / (h * ROOT2PI), "n + 1"),
        (lambda x, d, h: _kernel(x, d, h).sum(1) / (len(d) - 1) / (h * ROOT2PI), "n - 1"),
        (lambda x, d, h: _kernel(x, d, h).mean(1) / h, "sqrt(2 pi)"),
        (lambda x, d, h: (_kernel(x, d, h) ** 2).mean(1) / (h * ROOT2PI), "lacks its 1/2"),
        (lambda x, d, h: _kernel(x, d, h**0.5).mean(1) / (h * ROOT2PI), "unsquared"),
        (lambda x, d, h: _kernel(x, d, 1.0).mean(1) / (h * ROOT2PI), "not divided by h before"),
        (lambda x, d, h: (_kernel(x, d, h).mean(1) / (h * ROOT2PI)).log(), "logarithm of the density"),
        (lambda x, d, h: _kernel(x, d, h).mean(0) / (h * ROOT2PI), "shape is (4,), expected (3,)"),
    ],
    "density.leave-one-out": [
        (lambda d, h: _log_kernel(d, h, False).logsumexp(1).mean() - math.log(len(d)), "training data"),
        (lambda d, h: _log_kernel(d, h, False).logsumexp(1).mean() - math.log(len(d) - 1), "although you divide"),
        (lambda d, h: _log_kernel(d, h).logsumexp(1).mean() - math.log(len(d)), "you divide by n."),
        (lambda d, h: _log_kernel(d, h).logsumexp(1).mean(), "do not divide by their number"),
        (lambda d, h: _score(d, h) * len(d), "sum over the points"),
        (lambda d, h: -_score(d, h), "negative log-likelihood"),
        (lambda d, h: (_log_kernel(d, h).logsumexp(1).exp().mean() / (len(d) - 1)).log(), "log of the mean"),
        (lambda d, h: _log_kernel(d, h).logsumexp(1).exp().mean() / (len(d) - 1), "logarithm is missing"),
        (lambda d, h: _score(d, h) + math.log(h), "1/h is missing"),
        (lambda d, h: _score(d, h) + math.log(ROOT2PI), "sqrt(2 pi)"),
        (lambda d, h: (_log_kernel(d, h).exp().sum(1) / (len(d) - 1)).log().mean(), "logsumexp"),
        (lambda d, h: _log_kernel(d, h).logsumexp(1) - math.log(len(d) - 1), "shape is (5,), expected ()"),
    ],
    "density.bandwidth": [
        (lambda d, c: _scores(d, c).argmax(), "the place of the best"),
        (lambda d, c: int(_scores(d, c).argmax()), "the place of the best"),
        (
            lambda d, c: c[torch.stack([_log_kernel(d, h, False).logsumexp(1).mean() for h in c.tolist()]).argmax()],
            "own training data",
        ),
        (lambda d, c: c[_scores(d, c).argmin()], "lowest score"),
        (lambda d, c: _scores(d, c).max(), "best score"),
        (lambda d, c: c[0], "first candidate"),
        (lambda d, c: _scores(d, c), "shape is (4,), expected ()"),
    ],
    "density.sample": [
        (lambda d, h, i, z: d[i] + z, "not scaled"),
        (lambda d, h, i, z: d[i], "noise is missing"),
        (lambda d, h, i, z: h * z, "around 0"),
        (lambda d, h, i, z: d[i] + h**2 * z, "h squared"),
        (lambda d, h, i, z: d[i] + h**0.5 * z, "square root"),
        (lambda d, h, i, z: d[i] + z / h, "divide the noise"),
        (lambda d, h, i, z: d[i] - h * z, "taken off"),
        (lambda d, h, i, z: i + h * z, "to the index"),
        (lambda d, h, i, z: d + h * z, "RuntimeError"),
    ],
}


@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_gets_its_own_message(capsys, name):
    heard = {}
    for answer, words in MISTAKES[name]:
        out, own = said(capsys, name, answer)
        assert not own and out.startswith(f"[{name}] wrong: ") and words in out, out
        assert "\n  try it:   " in out and out.endswith("the lab goes on with the course's own answer.\n"), out
        heard.setdefault(words, out.split("\n")[0])
    assert len(heard) >= 5 and len(set(heard.values())) == len(heard)


def test_every_declared_mistake_is_made_by_some_wrong_answer():
    """A declared sentence that no plausible function earns would be dead text."""
    assert set(MISTAKES) == {name for name in GAPS if name.startswith("density.")}
    for name, wrong in MISTAKES.items():
        for case in GAPS[name].cases():
            for sentence in case.mistakes:
                assert sum(words in sentence for _, words in wrong) >= 1, (name, sentence)


def test_no_declared_mistake_equals_the_answer_or_another():
    for name, gap in GAPS.items():
        for case in gap.cases():
            values = [case.expected, *case.mistakes.values()]
            for i, a in enumerate(values):
                assert a.shape == case.expected.shape and a.dtype == case.expected.dtype, name
                assert not any(torch.allclose(a, b, rtol=1e-3, atol=1e-5) for b in values[:i]), (name, i)


# --- whatever else a learner may hand over ----------------------------------------------------------------------------


def _untouched(x, data, h):
    """As the lab has it."""
    ...


def _raises(x, data, h):
    return torch.nothing(data)


def _recurses(x, data, h):
    return _recurses(x, data, h)


def _quits(x, data, h):
    raise SystemExit("no")


def _no_return(x, data, h):
    z = (x[:, None] - data) / h
    torch.exp(-(z**2) / 2).mean(1)


def _changes_input(x, data, h):
    data -= 1
    return solved()["kernel_density"](x, data + 1, h)


def _resizes_input(x, data, h):
    y = solved()["kernel_density"](x, data, h)
    data.resize_(0)
    return y


def _long_error(x, data, h):
    raise ValueError("first line\n" + "x" * 10_000)


class _Silent(Exception):
    def __str__(self):
        raise ValueError("no message")


def _silent_error(x, data, h):
    raise _Silent


def _quantized(x, data, h):
    return torch.quantize_per_tensor(_good(x, data, h), 0.1, 0, torch.qint8)


def _ruins_input(x, data, h):
    data.data = torch.ones(2, device="meta")
    return _good(x, x, h)


def _good(x, data, h):
    return solved()["kernel_density"](x, data, h)


FAULTS = {
    "untouched": (_untouched, "not yet: the body is still `...`."),
    "raises": (_raises, "in:       return torch.nothing(data)"),
    "too few arguments": (lambda x: x, "TypeError"),
    "too many arguments": (lambda a, b, c, d: a, "TypeError"),
    "recursion": (_recurses, "RecursionError"),
    "exit": (_quits, "SystemExit: no"),
    "long error": (_long_error, "ValueError: first line\n"),
    "error without a message": (_silent_error, "raised _Silent: (no message)"),
    "no return": (_no_return, "None came back"),
    "not a function": (3.0, "expected a function, got float"),
    "called already": (torch.ones(3), "expected a function, got Tensor"),
    "nothing": (None, "expected a function, got NoneType"),
    "numpy": (lambda *a: _good(*a).numpy(), "ndarray came back"),
    "list": (lambda *a: _good(*a).tolist(), "list came back"),
    "number": (lambda *a: 0.5, "float came back"),
    "text": (lambda *a: "0.5", "str came back"),
    "tuple": (lambda *a: (_good(*a), 1), "tuple came back"),
    "shape": (lambda *a: _good(*a)[:, None], "shape is (3, 1), expected (3,)"),
    "empty": (lambda *a: torch.empty(0), "shape is (0,), expected (3,)"),
    "scalar": (lambda *a: _good(*a).mean(), "shape is (), expected (3,)"),
    "float64": (lambda *a: _good(*a).double(), "dtype is torch.float64, expected torch.float32"),
    "integers": (lambda *a: _good(*a).long(), "dtype is torch.int64, expected torch.float32"),
    "booleans": (lambda *a: _good(*a) > 0.1, "dtype is torch.bool"),
    "complex": (lambda *a: _good(*a) + 0j, "dtype is torch.complex64"),
    "nan": (lambda *a: _good(*a) * torch.tensor([1.0, math.nan, 1.0]), "1 of 3 values are NaN or infinite"),
    "infinite": (lambda *a: _good(*a) / 0, "3 of 3 values are NaN or infinite"),
    "zero": (lambda *a: 0 * _good(*a), "the values differ"),
    "meta": (lambda *a: _good(*a).to("meta"), "a meta tensor came back"),
    "sparse meta": (lambda *a: _good(*a).to_sparse().to("meta"), "a meta tensor came back"),
    "nested": (lambda *a: torch.nested.nested_tensor([_good(*a)] * 2), "a nested tensor came back"),
    "quantized": (_quantized, "a quantized tensor came back"),
    "ruins its input": (_ruins_input, "wrong: "),
    "changes its input": (_changes_input, "changed its input `data` in place"),
    "resizes its input": (_resizes_input, "changed its input `data` in place"),
    "constant factor": (lambda *a: 3 * _good(*a), "3 times the expected one"),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested", "ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_answer_gets_a_clear_word_and_the_reference_comes_back(capsys, fault):
    answer, words = FAULTS[fault]
    out, own = said(capsys, "density.kde", answer)
    assert not own and words in out and "Traceback" not in out and len(out) < 1000, out


def test_what_needs_no_fault_is_let_be(capsys):
    """A tensor that asks for gradients, a sparse one and a callable object are answers like any other."""
    for answer in (
        lambda *a: _good(*a).requires_grad_(),
        lambda *a: _good(*a).to_sparse(),
        functools.partial(_good),
    ):
        out, own = said(capsys, "density.kde", answer)
        assert own, out


def test_a_wrong_answer_shows_a_call_that_can_be_typed(capsys):
    def kernel_density(x, data, h):
        return _kernel(x, data, h).mean(1) / ROOT2PI

    out, _ = said(capsys, "density.kde", kernel_density)
    call = re.search(r"try it:   (.*)", out)[1]
    shown = torch.tensor(eval(re.search(r"got:      (.*)", out)[1]))
    assert torch.allclose(eval(call, {"torch": torch, "kernel_density": kernel_density}), shown, rtol=1e-3)
    assert "expected: [0.2493, 0.02191, 0.2393]" in out


def test_the_reference_is_not_passed_off_as_the_learners(capsys):
    """Running the check's cell twice would otherwise say that an answer passed which the learner did not write."""
    out, own = said(capsys, "density.kde", check("density.kde", _untouched))
    assert own and "not judged" in out


def test_an_unknown_gap_is_named_with_the_nearest_and_all():
    with pytest.raises(
        ValueError, match="name: expected one of .*'density.sample'.*, got .*; did you mean 'density.kde'"
    ):
        check("density.kdE", _good)
    with pytest.raises(ValueError, match="'density.kde'.*got 'vqx'"):
        check("vqx", _good)
    with pytest.raises(TypeError, match="name: expected the name of a gap"):
        check(_good, "density.kde")
