"""A lab is graded from outside: right answers pass, and nothing that a submission does makes a wrong one pass.

Each attack is a submission whose answer to one gap is wrong, or right only after it did what a submission must not do.
It runs twice: in ``grading/naive.py``, which calls ``course.check`` beside the learner's code, where it must succeed,
and under ``tools/grade.py``, where it must not.
"""

import csv
import json
import math
import os
import re
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import nbformat
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import grade  # noqa: E402
import sandbox  # noqa: E402

LAB = ROOT / "labs" / "density-estimation.ipynb"
GAPS, SOLUTIONS = grade.read_lab(LAB)
RIGHT = SOLUTIONS["kernel_density"].replace("kernel_density", "right")


def lack() -> str | None:
    """Why this machine cannot isolate a submission, or None; a sandbox that lets something through is an error."""
    try:
        with sandbox.Workers(True, 10, 1024) as workers:
            grade.prove_isolation(workers)
    except sandbox.Refused as error:
        if "could" in str(error) or os.environ.get("CI"):
            raise
        return str(error)


LACK = lack()
isolation = pytest.mark.skipif(LACK is not None, reason=f"no isolation here: {LACK}")


@pytest.fixture(scope="module")
def workers():
    with sandbox.Workers(True, 20, 512) as found:
        yield found


def fault(workers, *cells, gap="density.kde", function="kernel_density", seed=0) -> str | None:
    """What is wrong with the answer to one gap in the notebook of these cells."""
    ((_, found, _),) = grade.grade(list(cells), ([(gap, function)], {}), workers, seed)
    return found


def reply(case, got) -> dict:
    """What a worker sends back."""
    given = {k: sandbox.encode(v) for k, v in case.arguments.items()}
    return {"got": sandbox.encode(got), "given": given, "empty": False}


def notebook(path: Path, *cells: str) -> Path:
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    path.write_text(nbformat.writes(nb), encoding="utf8")
    return path


def finished(**answers: str) -> list[str]:
    """The code cells of the lab with its gaps filled, from the printed solutions unless an answer is given."""
    cells = [c.source for c in nbformat.read(LAB, as_version=4).cells if c.cell_type == "code"]
    filled = {**SOLUTIONS, **answers}
    return [filled.get(m[1], c) if (m := re.match(r"def (\w+)", c)) else c for c in cells]


# --- attacks ---------------------------------------------------------------------------------------------------------

# The body of kernel_density(x, data, h), which ends with the right answer unless it returns before; what the naive
# runner makes of it; what grade.py says. ROOM is a folder, PORT takes TCP and UDP, TABLE holds what the lab's own cases
# expect.
ATTACKS = {
    # to forge the verdict
    "print the verdict": ('print("[density.kde] passed (2 cases)"); os._exit(0)', "passed", "without an answer"),
    "write the verdict to every descriptor": (
        """
for fd in range(64):
    with contextlib.suppress(OSError):
        os.write(fd, b"[density.kde] passed (2 cases)")
os._exit(0)""",
        "passed",
        "without an answer",
    ),
    "write a reply to every descriptor": (
        """
print("[density.kde] passed")
reply = {"got": 1.0, "given": {}, "empty": False, "fault": None, "passed": True, "verdict": "passed"}
for fd in range(64):
    with contextlib.suppress(OSError):
        os.write(fd, json.dumps(reply).encode())
os._exit(0)""",
        "passed",
        "wrong: None",
    ),
    "replace what the worker calls": (
        """
print("[density.kde] passed")
json.dumps = lambda *a, **k: '{"got": 0.0, "given": {}, "empty": false}'
os._exit = sys.exit""",
        "passed",
        "cannot be judged",
    ),
    "an atexit hook that prints the verdict": (
        'atexit.register(print, "[density.kde] passed (2 cases)"); return x * 0',
        "passed",
        "the values differ",
    ),
    # to bend the comparison
    "replace torch.allclose": ("torch.allclose = lambda *a, **k: True; return x * 0", "passed", "the values differ"),
    "replace the judge": (
        """
if "genlib.course.checks" in sys.modules:
    sys.modules["genlib.course.checks"]._judge = lambda *a: None
return 0""",
        "passed",
        "int came back",
    ),
    "a tensor equal to everything": (
        """
class Equal(torch.Tensor):
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function.__name__ == "allclose":
            return True
        return super().__torch_function__(function, types, args, kwargs or {})
return torch.zeros(len(x)).as_subclass(Equal)""",
        "passed",
        "the values differ",
    ),
    # to find the answer
    "import the reference": (
        'from genlib.course.checks import GAPS; return GAPS["density.kde"].reference(x, data, h)',
        "passed",
        "ModuleNotFoundError",
    ),
    "call the library's estimator": (
        """
from genlib.models.density import KDE
return KDE(bandwidth=h).fit(data[:, None]).log_prob(x[:, None]).exp()""",
        "passed",
        "ModuleNotFoundError",
    ),
    "import the reference past a blocked import": (
        """
for name in [name for name in sys.modules if name.startswith("genlib")]:
    del sys.modules[name]
return importlib.import_module("genlib.course.density_estimation").kernel_density(x, data, h)""",
        "passed",
        "Permission denied|No module",
    ),
    "read the reference's file": (
        """
space = {}
exec(open(ROOT + "/genlib/course/density_estimation.py").read(), space)
return space["kernel_density"](x, data, h)""",
        "passed",
        "Permission denied",
    ),
    "read the printed solution": ('open(ROOT + "/labs/density-estimation.ipynb")', "passed", "Permission denied"),
    "read another's submission": ('open(ROOM + "/another.ipynb")', "passed", "Permission denied"),
    "look into the callers' frames": (
        """
frame = sys._getframe()
while frame := frame.f_back:
    if "case" in frame.f_locals:
        return frame.f_locals["case"].expected
return None""",
        "passed",
        "None came back",
    ),
    "look through all objects": (
        """
for o in gc.get_objects():
    if type(o).__name__ == "Case" and o.arguments["x"].equal(x):
        return o.expected
return None""",
        "passed",
        "None came back",
    ),
    "a table of the known cases": (
        """
for arguments, answer in TABLE:
    if arguments == x.tolist():
        return torch.tensor(answer)
return x * 0""",
        "passed",
        r"the values differ\. \[fresh case\]",
    ),
    # to reach the network and the disk
    "open a connection": ('socket.create_connection(("127.0.0.1", PORT), 1)', "passed", "not permitted"),
    "send a datagram, as for DNS": (
        'socket.socket(type=socket.SOCK_DGRAM).sendto(b"q", ("127.0.0.1", PORT))',
        "passed",
        "not permitted",
    ),
    "look up a name": ('socket.getaddrinfo("localhost", 80)', "passed", "gaierror"),
    "make a nameless file": ('os.memfd_create("x")', "passed", "not permitted"),
    "write to the home folder": ('open(ROOM + "/new", "w").write("x")', "passed", "Permission denied"),
    "write to the working folder": ('open("new", "a").close()', "passed", "Permission denied"),
    "empty a file that is only read": ('os.open(ROOM + "/kept", os.O_TRUNC)', "passed", "Permission denied"),
    "rename a file": (
        'os.path.exists(ROOM + "/gone") and os.rename(ROOM + "/gone", ROOM + "/new")',
        "passed",
        "not permitted",
    ),
    "change a file's rights": ('os.chmod(ROOM + "/kept", 0o777)', "passed", "not permitted"),
    "make a folder": ('os.path.exists(ROOM + "/folder") or os.mkdir(ROOM + "/folder")', "passed", "not permitted"),
    # to reach other processes
    "start a child that stays": (
        """
if not os.fork():
    os.setsid()
    open(ROOM + "/pid", "a").write(f"{os.getpid()} ")
    os.close(1)
    time.sleep(300)""",
        "passed",
        "not permitted",
    ),
    "a fork bomb": ("for _ in range(4): os.fork()", "passed", "not permitted"),
    "start a program": ('os.posix_spawn("/bin/true", ["true"], {})', "passed", "not permitted"),
    "become a program": ('os.execv("/bin/echo", ["echo", "[density.kde] passed"])', "passed", "not permitted"),
    "signal the parent": ("os.kill(os.getppid(), signal.SIGCONT)", "passed", "not permitted"),
    "have the kernel signal the parent": (
        "fcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, os.getppid())",
        "passed",
        "not permitted",
    ),
    "take hold of the parent's limits": ("resource.prlimit(os.getppid(), resource.RLIMIT_CPU)", "passed", "permitted"),
    "read about the parent": ('open(f"/proc/{os.getppid()}/cmdline").read()', "passed", "Permission denied"),
    "write to its own memory": ('open("/proc/self/mem", "r+b").close()', "passed", "Permission denied"),
    # to break the runner
    "end": ("os._exit(0)", "no verdict", "without an answer"),
    "close all descriptors": ("os.closerange(0, 1000)", "no verdict", "without an answer"),
    "raise a BaseException": ('raise type("Stop", (BaseException,), {})("no")', "no verdict", "wrong: Stop: no"),
    "raise a message that raises": (
        """
class Stop(BaseException):
    def __str__(self):
        raise self
raise Stop""",
        "no verdict",
        "without a message",
    ),
    "crash": ("ctypes.string_at(0)", "no verdict", "crashed: Segmentation fault"),
    "close the answer and sleep": ("os.closerange(3, 1000)\ntime.sleep(1e6)", "hung", "no end within 2 seconds"),
    "never end": ("while True: pass", "hung", "no answer within 2 seconds"),
    "sleep and ignore signals": (
        """
for number in range(1, 65):
    with contextlib.suppress(OSError, ValueError):
        signal.signal(number, signal.SIG_IGN)
time.sleep(99)""",
        "hung",
        "no answer within 2 seconds",
    ),
    "take all memory": ("keep = torch.empty(250_000_000)", "passed", "allocate memory|MemoryError"),
}


class Room:
    """A folder to damage and a port to reach, the same for every attack of one runner."""

    def __init__(self, path: Path):
        self.path = path
        for name in ("kept", "gone", "another.ipynb"):
            (path / name).write_text("def f(): ...")
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.port = self.tcp.getsockname()[1]
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", self.port))
        for door in (self.tcp, self.udp):
            door.setblocking(False)

    def cells(self, body: str) -> list[str]:
        table = [
            (case.arguments["x"].tolist(), case.expected.tolist()) for case in grade.checks._find("density.kde").cases()
        ]
        return [
            "import atexit, contextlib, ctypes, fcntl, gc, importlib, json, math, os, resource, signal, socket, sys",
            "import time, torch",
            f"ROOT, ROOM, PORT, TABLE = {str(ROOT)!r}, {str(self.path)!r}, {self.port}, {table}",
            RIGHT,
            f"def kernel_density(x, data, h):\n{textwrap.indent(body, '    ')}\n    return right(x, data, h)",
            'kernel_density = check("density.kde", kernel_density)',
        ]

    def traces(self) -> set[str]:
        """What attacks have done to it."""
        found = {p.name for p in self.path.iterdir()} ^ {"kept", "gone", "another.ipynb"}
        found |= {"emptied"} if not (self.path / "kept").read_text() else set()
        found |= {"rights"} if (self.path / "kept").stat().st_mode & 0o777 == 0o777 else set()
        for name, receive in {"connection": self.tcp.accept, "datagram": lambda: self.udp.recv(9)}.items():
            try:
                receive()
                found.add(name)
            except BlockingIOError:
                pass
        return found

    def close(self):
        self.tcp.close()
        self.udp.close()


@pytest.fixture(scope="module")
def naive(tmp_path_factory):
    """What the naive runner printed for each attack and how it ended, and what the attacks did."""
    room = Room(tmp_path_factory.mktemp("naive"))
    submissions = {name: (room.cells(body), 2 if end == "hung" else 20) for name, (body, end, _) in ATTACKS.items()}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/grading/naive.py")],
        input=json.dumps(submissions),
        cwd=room.path,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert not done.returncode, done.stderr
    results, traces = json.loads(done.stdout.splitlines()[-1]), room.traces()
    if "pid" in traces:
        for pid in (room.path / "pid").read_text().split():
            os.kill(int(pid), 9)  # raises if the child did not stay
    room.close()
    return results, traces


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    room = Room(tmp_path_factory.mktemp("room"))
    yield room
    room.close()


@isolation
@pytest.mark.parametrize("name", ATTACKS)
def test_the_attack_succeeds_against_a_naive_runner(naive, name):
    printed, ended = naive[0][name]
    passed = "[density.kde] passed" in printed
    assert {
        "passed": passed,
        "no verdict": not passed and "[density.kde] wrong" not in printed,
        "hung": ended == "hung",
    }[ATTACKS[name][1]], (printed, ended)


@isolation
def test_the_attacks_left_traces_on_a_naive_runner(naive):
    assert naive[1] >= {"new", "gone", "folder", "pid", "emptied", "rights", "connection", "datagram"}


@isolation
@pytest.mark.parametrize("name", ATTACKS)
def test_the_attack_fails_against_the_runner(workers, room, monkeypatch, name):
    body, end, says = ATTACKS[name]
    with monkeypatch.context() as patch:
        if end == "hung":
            patch.setattr(workers, "seconds", 2)
        found = fault(workers, *room.cells(body))
    assert found and re.search(says, found), found
    assert not room.traces()
    assert fault(workers, *room.cells("pass")) is None  # the next submission is graded as ever


@isolation
@pytest.mark.parametrize(
    "call, error",
    [
        ("libc.ptrace(0x4206, parent, 0, 0)", 1),
        ("libc.process_vm_readv(parent, 0, 0, 0, 0, 0)", 1),
        ("libc.open(b'/none', os.O_TRUNC)", 13),  # so that no file can be emptied, not even Python's own
        ("libc.open(b'/none', os.O_RDONLY)", 2),
    ],
)
def test_what_the_kernel_says(workers, call, error):
    """The naive runner is no measure here: a machine may forbid such calls to everyone."""
    cell = f"""
def kernel_density(x, data, h):
    libc, parent = ctypes.CDLL(None, use_errno=True), os.getppid()
    raise ValueError(f"{{{call}}} {{ctypes.get_errno()}}")"""
    assert fault(workers, "import ctypes, os", cell) == f"wrong: ValueError: -1 {error}"


@isolation
def test_an_installed_genlib_is_as_far_away(monkeypatch, tmp_path):
    """Where genlib lies in site-packages, its neighbours can be read and it cannot."""
    for name in ("genlib", "other"):
        (tmp_path / "site" / name).mkdir(parents=True)
        (tmp_path / "site" / name / "answers.py").write_text("")
    source = Path(sandbox.__file__).read_text()
    (tmp_path / "sandbox.py").write_text(source.replace("own = [", f"own = [{str(tmp_path / 'site')!r}] + [", 1))
    monkeypatch.setattr(sandbox, "__file__", str(tmp_path / "sandbox.py"))
    with sandbox.Workers(True, 10, 512) as workers:
        for name, says in {"other": None, "genlib": "Permission denied"}.items():
            path = tmp_path / "site" / name / "answers.py"
            cell = f"def kernel_density(x, data, h):\n    open('{path}')\n    return right(x, data, h)"
            found = fault(workers, RIGHT, cell)
            assert found is None if says is None else says in found, found


@isolation
def test_a_thread_or_a_hook_that_goes_on_does_not_hold_a_right_answer_up(workers):
    cell = """
def kernel_density(x, data, h):
    threading.Thread(target=time.sleep, args=(99,)).start()
    atexit.register(time.sleep, 99)
    return right(x, data, h)"""
    assert fault(workers, RIGHT, cell, "import atexit, threading, time") is None


@isolation
def test_a_huge_answer_is_cut_off(workers, monkeypatch):
    cell = "def kernel_density(x, data, h): return torch.zeros(1_000_000)"
    assert "more than 1 MB" in fault(workers, cell)
    monkeypatch.setattr(sandbox, "MAX_ANSWER", 10**8)  # nothing else stops it
    assert "the shape is (1000000,)" in fault(workers, cell)


@isolation
def test_what_one_call_changes_no_other_call_sees(workers):
    cells = [
        RIGHT,
        "seen = []",
        """
def kernel_density(x, data, h):
    global right
    seen.append(x)
    y, right = right(x, data, h), None
    torch.set_default_dtype(torch.float64)
    return y if len(seen) == 1 and torch.tensor(1.0).dtype == torch.float64 else None""",
        SOLUTIONS["kde_draw"],
    ]
    assert fault(workers, *cells) is None
    assert fault(workers, *cells, gap="density.sample", function="kde_draw") is None


NO_ANSWERS = (
    r'[null, true, 1, NaN, "1", [], {}, [[[]]], {"type": null}, {"type": "\u0000"}, {"type": []}, {"dtype": 1}]'
)
NO_TENSORS = """[{"dtype": "float64"}, {"dtype": "object"}, {"dtype": []}, {"dtype": "__class__"}, {"shape": [3, 1]},
    {"shape": [-1, 1]}, {"shape": [0, 1000000000000000000000]}, {"shape": "3"}, {"shape": null}, {"values": "123"},
    {"values": [1, 2]}, {"values": [[1], 2, 3]}, {"values": [null, null, null]}, {"values": [NaN, NaN, NaN]}]"""
NO_REPLIES = """[{"fault": "passed"}, {"fault": null}, {"fault": ""}, {"given": null}, {"given": {}},
    {"given": {"x": 1, "data": 2, "h": 3}}, {"empty": null, "got": null}]"""


def test_no_reply_passes_that_is_not_the_right_value():
    case = next(iter(grade.checks._find("density.kde").cases()))
    good = reply(case, case.expected)
    assert grade.judge(good, case) is None
    replies = [{**good, "got": got} for got in json.loads(NO_ANSWERS) + [10**400]]
    replies += [
        {**good, "got": {**good["got"], **change}} for change in json.loads(NO_TENSORS) + [{"values": [10**400]}]
    ]
    replies += [{**good, **change} for change in json.loads(NO_REPLIES)] + [{}, {"passed": True}, {"got": good["got"]}]
    for bad in replies:
        found = grade.judge(bad, case)
        assert isinstance(found, str) and found.startswith(("wrong: ", "not yet: ")), bad


def test_a_value_comes_through_as_it_was():
    for value in [
        None,
        True,
        3,
        -1.5,
        float("inf"),
        "text",
        torch.tensor(2.5),
        torch.zeros(0, 3),
        torch.randn(2, 3).double(),
        torch.tensor([True]),
        torch.arange(5),
        torch.tensor([float("nan"), -0.0]),
        torch.randn(3).half(),
        torch.randn(4, 2, requires_grad=True).t(),
        torch.eye(2).to_sparse(),
    ]:
        back = sandbox.decode(json.loads(json.dumps(sandbox.encode(value))))
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(back, value.detach().to_dense(), rtol=0, atol=0, equal_nan=True)
        else:
            assert type(back) is type(value) and back == value
    for odd in (1j, [1], torch.tensor(1j), torch.zeros(2, device="meta"), {}):
        assert type(sandbox.decode(sandbox.encode(odd))) not in (torch.Tensor, list, dict, complex)


# --- the sandbox itself ----------------------------------------------------------------------------------------------


@isolation
@pytest.mark.parametrize(
    "whole, part, says",
    [
        ("kernel(libc.syscall, RESTRICT_SELF, ruleset, 0)", "pass", "could read genlib"),
        ("kernel(libc.prctl, 22,", "print(", "could open a socket, start a process, signal a process"),
        (
            "CREATE_RULESET, ADD_RULE, RESTRICT_SELF, CLONE3 = 444",
            "CREATE_RULESET, ADD_RULE, RESTRICT_SELF, CLONE3 = 999",
            "not implemented",
        ),
        ('MACHINES = {"', 'MACHINES = {"no ', "KeyError"),
    ],
)
def test_a_machine_or_a_sandbox_that_lacks_a_part_is_refused(monkeypatch, tmp_path, capsys, whole, part, says):
    source = Path(sandbox.__file__).read_text()
    assert source.count(whole) == 1
    (tmp_path / "sandbox.py").write_text(source.replace(whole, part))
    monkeypatch.setattr(sandbox, "__file__", str(tmp_path / "sandbox.py"))
    assert grade.main([str(LAB), "--lab", str(LAB)]) == 2
    out, err = capsys.readouterr()
    assert not out and "cannot isolate" in err and says in err and "--no-isolation" in err


def test_another_system_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert grade.main([str(LAB), "--lab", str(LAB)]) == 2
    assert "cannot isolate" in capsys.readouterr().err


def test_without_isolation_the_report_says_so(tmp_path, capsys):
    path = notebook(tmp_path / "one.ipynb", *finished())
    assert grade.main([str(path), "--lab", str(LAB), "--no-isolation", "--csv", str(tmp_path / "out.csv")]) == 0
    out = capsys.readouterr().out
    assert "7 of 7 gaps" in out and out.splitlines()[-1].startswith("NOT ISOLATED")
    assert {row["isolated"] for row in csv.DictReader((tmp_path / "out.csv").open())} == {"False"}


# --- what is judged --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((ROOT / "labs").glob("*.ipynb")), ids=lambda path: path.stem)
def test_every_gap_has_fresh_cases_that_its_solution_passes_and_that_change_with_the_seed(path):
    gaps, solutions = grade.read_lab(path)
    space = {"torch": torch, "math": math}
    for source in solutions.values():
        exec(source, space)
    for gap, function in gaps:
        seen = set()
        for seed in range(100):
            new = [case for case, kind in grade.cases(gap, seed) if kind]
            assert len(new) == grade.FRESH
            for case in new:
                assert grade.judge(reply(case, space[function](*case.arguments.values())), case) is None
            seen.add(str(new))
        assert len(seen) > 30  # all differ, unless whole numbers are all that a gap takes
        assert str([c for c, _ in grade.cases(gap, 7)]) == str([c for c, _ in grade.cases(gap, 7)])


FOUND = {
    "moved below its check": ['kernel_density = check("density.kde", kernel_density)', SOLUTIONS["kernel_density"]],
    "written again further down": ["def kernel_density(x, data, h):\n    ...", SOLUTIONS["kernel_density"]],
    "under another name": [
        SOLUTIONS["kernel_density"].replace("kernel_density", "mine"),
        'mine = check("density.kde", mine)',
    ],
    "a lambda": [RIGHT, "kernel_density = lambda *a: right(*a)"],
    "in the call of check": [RIGHT, 'kernel_density = course.check("density.kde", lambda *a: right(*a))'],
    "with helpers and constants elsewhere": [
        "def kernel_density(x, data, h):\n    return bumps(x, data, h).mean(1)",
        "def bumps(x, d, h):\n    z = (x[:, None] - d) / h\n    return Law.scale / h * (-z * z / 2).exp()",
        "try:\n    import numpy as np\nexcept ImportError:\n    np = None",
        "class Law:\n    scale = 1 / np.sqrt(2 * pi)",
        "from math import *",
    ],
    "beside cells that fail, print, take long or are no Python": [
        "%pip install nothing\n!ls\nimport genlib.data",
        "raise SystemExit",
        "while True: pass",
        "print(kernel_density(1, 2, 3))",
        "def broken(:",
        "%%time\n" + SOLUTIONS["kernel_density"],
        "x = nothing",
    ],
    "wrapped": [SOLUTIONS["kernel_density"], "import functools", "kernel_density = functools.partial(kernel_density)"],
}


@isolation
@pytest.mark.parametrize("name", FOUND)
def test_the_answer_is_found(workers, name):
    assert fault(workers, *FOUND[name]) is None


@isolation
@pytest.mark.parametrize(
    "cells, says",
    [
        (["def kernel_density(x, data, h):\n    ..."], "not yet: the body is still `...`."),
        (["def kernel_density(x, data, h):\n    y = x"], "wrong: None came back: no `return`?"),
        (
            ["def kernel_density(x, data, h):\n    return (x"],
            "wrong: SyntaxError: '(' was never closed (its cell, line 2)",
        ),
        (["def other(x): ..."], "wrong: LookupError: there is no function `kernel_density` in the notebook"),
        (["def kernel_density(x, data, h):\n    return helper(x)"], "wrong: NameError: name 'helper' is not defined"),
        (
            ["def kernel_density(x):\n    return x"],
            "wrong: TypeError: kernel_density() takes 1 positional argument but 3 were given",
        ),
        (["kernel_density = 3"], "wrong: TypeError: 'int' object is not callable"),
        (
            [RIGHT, "def kernel_density(x, data, h):\n    y = right(x, data, h); data -= 1; return y"],
            "wrong: your function changed its input `data` in place; write `a = a - b`, not `a -= b`.",
        ),
        (
            [RIGHT, "def kernel_density(x, data, h):\n    return right(x, data, h).numpy()"],
            "wrong: ndarray came back, expected a torch.Tensor of shape (3,).",
        ),
        (
            [RIGHT, "def kernel_density(x, data, h):\n    return right(x, data, h) * h"],
            "wrong: you divide by n but not by h: a kernel h times as wide must be 1/h times as high.",
        ),
        (["def kernel_density(x, data, h):\n    raise ValueError('\\x1b[2J\\n=1+1')"], "wrong: ValueError:  [2J"),
        (["def kernel_density(x, data, h):\n    return " + "-" * 5000 + "x"], "wrong: "),
    ],
)
def test_what_is_wrong_is_said(workers, cells, says):
    found = fault(workers, *cells)
    assert found == says or says == "wrong: " and found.startswith(says), found


@isolation
def test_submissions_are_graded_beside_others_that_cannot_be(tmp_path, monkeypatch, capsys):
    """Marks for what is right, a wrong gap that does not spoil the next, a line for each that is no submission."""
    good = notebook(tmp_path / "=good.ipynb", *finished())
    wrong = "def left_out_score(data, h):\n    return data.sum()"
    partly = notebook(
        tmp_path / "partly.ipynb", *finished(left_out_score=wrong, kde_draw="def kde_draw(a, b, c, d):\n    ...")
    )
    shuffled = notebook(tmp_path / "shuffled.ipynb", *finished()[::-1])
    (tmp_path / "empty.ipynb").write_text("")
    (tmp_path / "text.ipynb").write_text("# not a notebook")
    (tmp_path / "list.ipynb").write_text("[1, 2]")
    (tmp_path / "old.ipynb").write_text('{"nbformat": 3, "worksheets": []}')
    (tmp_path / "odd.ipynb").write_text('{"cells": [1, {"cell_type": "code", "source": 3}]}')
    (tmp_path / "deep.ipynb").write_text("[" * 10**6)
    (tmp_path / "bytes.ipynb").write_bytes(b"\xff\xfe\x00")
    notebook(tmp_path / "blank.ipynb")
    with (tmp_path / "large.ipynb").open("wb") as f:
        f.truncate(200 * 2**20)
    bad = {
        "empty": "no notebook",
        "text": "no notebook",
        "list": "no notebook of format 4",
        "old": "no notebook of format 4",
        "odd": "no notebook",
        "deep": "no notebook",
        "bytes": "cannot be read",
        "blank": "without code",
        "large": "larger than 20 MB",
        "absent": "no such file",
    }
    paths = [good, *(tmp_path / f"{name}.ipynb" for name in bad), tmp_path, partly, shuffled, LAB]
    monkeypatch.chdir(tmp_path)
    code = grade.main([*(os.path.relpath(p) for p in paths), "--lab", str(LAB), "--csv", "out.csv", "--seed", "5"])
    out = capsys.readouterr().out
    assert code == 1
    for name, says in bad.items():
        assert re.search(rf"^{name}\.ipynb: not graded: .*{says}", out, re.M), (name, out)
    assert (
        "=good.ipynb: 7 of 7 gaps" in out
        and "shuffled.ipynb: 7 of 7 gaps" in out
        and "partly.ipynb: 5 of 7 gaps" in out
    )
    assert "0 of 7 gaps\n  no gap is filled in" in out and out.splitlines()[-1] == "isolated; fresh cases: --seed 5"
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert [r["gap"] for r in rows if r["submission"] == "partly.ipynb" and r["verdict"] == "wrong"] == [
        "density.leave-one-out",
        "density.sample",
    ]
    assert {r["verdict"] for r in rows if r["submission"] == "'=good.ipynb"} == {
        "passed"
    }  # no formula for a spreadsheet
    assert len(rows) == 4 * 7 + len(bad) + 1


@pytest.mark.parametrize("text", ["{}", "no", '{"cells": []}'])
def test_a_lab_that_is_none_is_refused(tmp_path, capsys, text):
    (tmp_path / "lab.ipynb").write_text(text)
    assert grade.main([str(LAB), "--lab", str(tmp_path / "lab.ipynb")]) == 2
    assert "nothing was graded" in capsys.readouterr().err


@isolation
def test_the_page_for_teachers_shows_the_report_as_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("handed-in").mkdir()
    slip = SOLUTIONS["kernel_density"].replace("/ (h * math", "/ (h * h * math")
    notebook(Path("handed-in/ada.ipynb"), *finished(kernel_density=slip))
    with open("handed-in/bob.ipynb", "wb") as f:
        f.truncate(grade.MAX_NOTEBOOK + 1)
    assert grade.main(["handed-in/ada.ipynb", "handed-in/bob.ipynb", "--lab", str(LAB), "--seed", "5"]) == 1
    shown = re.search(r"```text\n(.*?)```", (ROOT / "book/teaching.md").read_text("utf8"), re.S)[1]
    assert re.sub(r"\d\.\d s", "", shown) == re.sub(r"\d\.\d s", "", capsys.readouterr().out)
