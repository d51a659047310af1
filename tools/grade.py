"""Grade finished labs from outside: ``python tools/grade.py one.ipynb two.ipynb --lab labs/density-estimation.ipynb``.

``course.check`` runs inside the learner's notebook, where the learner's code could change the verdict. Here each call
of a learner's function runs in a sandboxed process of its own (``sandbox.py``). What it returns is compared here, with
the cases and the words of ``check``, and with fresh cases drawn from ``--seed``.

Of a notebook only this runs: the expression handed to ``check(gap, ...)``, or the lab's name for the function, and the
statements at the top level of its cells that bind what it needs, directly or through each other: imports first, then
in the notebook's order. ``torch`` and ``math`` are there in any case, ``genlib`` never. A gap that failed is replaced
by the lab's printed solution in the later ones, as ``check`` does in the notebook.

Exit status: 0 every submission was graded, 1 some could not be, 2 nothing was.
"""

import argparse
import csv
import json
import re
import secrets
import sys
import time
from pathlib import Path

import torch
from sandbox import PROBE, Refused, Workers, decode, encode, plain

import genlib.course.checks as checks

MAX_NOTEBOOK = 20_000_000  # bytes
FRESH = 3  # cases a gap


def cases(gap: str, seed: int):
    """The cases of ``check``, then fresh ones whose expected values come from the reference; with each, what it is."""
    found = checks._find(gap)
    yield from ((case, "") for case in found.cases())
    fresh, g = checks.lab_of(gap).fresh, torch.Generator().manual_seed(seed)
    for _ in range(FRESH):
        arguments = fresh(gap, g)
        yield checks.Case(arguments, found.reference(*arguments.values())), " [fresh case]"


def judge(reply: dict, case: checks.Case) -> str | None:
    """What is wrong with a worker's reply, in the words of ``check``, or None."""
    try:
        if "fault" in reply:
            return f"wrong: {reply['fault']}"
        given = {k: decode(reply["given"][k]) for k in case.arguments}
        empty = (lambda: None) if reply["empty"] is True else None  # by this `_judge` tells `...` from a lost return
        return checks._judge(decode(reply["got"]), given, empty, case, "")
    except Exception:
        return "wrong: what came back cannot be judged"


def read_lab(path: Path) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """The gaps of a lab as (gap, function), and the printed solution of each function."""
    cells = [(c["cell_type"], "".join(c["source"])) for c in json.loads(path.read_text("utf8"))["cells"]]
    code, text = ("\n".join(source for kind, source in cells if kind == k) for k in ("code", "markdown"))
    gaps = re.findall(r'^(\w+) = check\("([\w.-]+)", \1\)$', code, re.M)
    if not gaps:
        raise ValueError(f'{path}: expected a lab, with cells such as `kde = check("density.kde", kde)`, found none')
    return [(gap, function) for function, gap in gaps], {
        re.match(r"def (\w+)", s)[1]: s
        for s in re.findall(r"<summary>Solution</summary>\s+```python\n(.*?)```", text, re.S)
    }


def read(path: Path, workers: Workers) -> list[str]:
    """The code cells of a submission; Refused where it has none."""
    try:
        if not path.is_file():
            raise Refused("no such file")
        if path.stat().st_size > MAX_NOTEBOOK:
            raise Refused(f"larger than {MAX_NOTEBOOK // 10**6} MB; clear its outputs")
        reply = workers.ask({"text": path.read_text("utf-8-sig")})
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"cannot be read: {error}") from None
    if "fault" in reply:
        raise Refused(f"no notebook: {reply['fault']}")
    cells = reply.get("cells")
    if not isinstance(cells, list) or not any(isinstance(c, str) and c.strip() for c in cells):
        raise Refused("a notebook without code")
    return cells


def grade(cells: list[str], lab, workers: Workers, seed: int):
    """Judge each gap of a submission: yields (gap, what is wrong or None, seconds)."""
    gaps, solutions = lab
    stand_ins = {}
    for gap, function in gaps:
        start, fault = time.monotonic(), None
        where = {"cells": cells, "gap": gap, "function": function, "stand_ins": stand_ins}
        for case, kind in cases(gap, seed):
            arguments = {k: encode(v) for k, v in case.arguments.items()}
            if odd := [k for k, v in arguments.items() if isinstance(v, dict) and "type" in v]:
                raise ValueError(f"{gap}: its arguments {odd} cannot be handed to another process")
            if fault := judge(workers.ask({**where, "arguments": arguments}), case):
                fault = plain(fault.split("\n")[0]) + kind
                stand_ins[function] = solutions.get(function, "")
                break
        yield gap, fault, time.monotonic() - start


def prove_isolation(workers: Workers):
    """Refused where a worker can do what it should not."""
    where = {"cells": [PROBE], "gap": "", "function": "probe", "stand_ins": {}}
    reply = workers.ask({**where, "arguments": {"secret": checks.__file__}})
    if reply.get("got") != "":
        raise Refused(reply.get("fault") or f"a worker could {reply.get('got')}")


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description="Grade finished labs from outside.")
    parser.add_argument("submissions", nargs="+", type=Path, metavar="submission.ipynb")
    parser.add_argument("--lab", required=True, type=Path, help="the lab as it was handed out")
    parser.add_argument("--csv", type=Path, help="write the results here too")
    parser.add_argument(
        "--seed", type=int, default=secrets.randbelow(2**31), help="of the fresh cases (default: random)"
    )
    parser.add_argument("--seconds", type=float, default=10, help="for one call of a function (default: 10)")
    parser.add_argument("--memory", type=int, default=1024, help="in MiB, on top of torch's own (default: 1024)")
    parser.add_argument("--no-isolation", action="store_true", help="run learners' code with your own rights")
    options = parser.parse_args(argv)
    isolated, rows, refused = not options.no_isolation, [], 0
    try:
        lab = read_lab(options.lab)
        with Workers(isolated, options.seconds, options.memory) as workers:
            if isolated:
                prove_isolation(workers)
            for path in options.submissions:
                name = plain(str(path))
                try:
                    results = list(grade(read(path, workers), lab, workers, options.seed))
                except Refused as error:
                    print(f"{name}: not graded: {plain(str(error))}")
                    rows.append((name, "", "not graded", plain(str(error)), ""))
                    refused += 1
                    continue
                print(f"{name}: {sum(not fault for _, fault, _ in results)} of {len(results)} gaps")
                if all(fault and fault.startswith("not yet") for _, fault, _ in results):
                    print("  no gap is filled in")
                for gap, fault, seconds in results:
                    print(f"  {gap:24}{seconds:5.1f} s  {fault or 'passed'}")
                    rows.append((name, gap, "wrong" if fault else "passed", fault or "", f"{seconds:.1f}"))
        if options.csv:
            head = ("submission", "gap", "verdict", "detail", "seconds", "isolated", "seed")
            with options.csv.open("w", newline="", encoding="utf8") as f:
                for row in [head, *((*row, isolated, options.seed) for row in rows)]:
                    csv.writer(f).writerow([f"'{v}" if str(v)[:1] in tuple("=+-@") else v for v in row])  # no formulas
    except Refused as error:
        print(f"nothing was graded: this machine cannot isolate a submission ({error}).", file=sys.stderr)
        print("Use Linux with seccomp and Landlock, or --no-isolation for code that you trust.", file=sys.stderr)
        return 2
    except (OSError, ValueError, KeyError) as error:
        print(f"nothing was graded: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    print(f"{'isolated' if isolated else 'NOT ISOLATED'}; fresh cases: --seed {options.seed}")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
