"""Call a function from a learner's notebook in a process that can compute, answer, and do nothing else.

Three kinds of process share the work. The parent makes :class:`Workers`; it runs no code of a learner's and parses
nothing that did not come through a worker. The nursery is this file as a program: it has torch loaded and no secrets,
and forks a worker for each job. A worker reads its job, gives up its rights, does it, and writes the reply as JSON:
whatever it says is a value to be judged, and never a verdict.

A worker on Linux (x86-64, ARM64) reads Python's own files and nothing else (Landlock), writes no file, opens no socket,
starts and signals no process (seccomp), and ends at its limits of time, memory and answer. No privileges are needed.
"""

import ast
import contextlib
import ctypes
import errno
import json
import math
import os
import platform
import re
import select
import signal
import socket
import struct
import subprocess
import symtable
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

MAX_ANSWER = 1_000_000  # bytes
DTYPES = {str(d)[6:]: d for d in (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
                                  torch.float16, torch.bfloat16, torch.float32, torch.float64)}  # fmt: skip

# --- what both sides share: values as JSON ---------------------------------------------------------------------------


def encode(value):
    """A number, text, None or plain tensor as JSON; of anything else, the name of its type."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    odd = isinstance(value, Tensor) and (value.is_nested or str(value.dtype)[6:] not in DTYPES or value.is_meta)
    if odd or not isinstance(value, Tensor):
        return {"type": f"{value.dtype} tensor" if odd else type(value).__name__}
    value = value.detach().cpu().to_dense()
    return {"dtype": str(value.dtype)[6:], "shape": list(value.shape), "values": value.flatten().tolist()}


def decode(x):
    """The value that :func:`encode` wrote; some exception where it is none."""
    if x is None or type(x) in (bool, int, float, str):
        return x
    if "type" in x:
        return type(plain(x["type"]), (), {})()
    return torch.tensor(x["values"], dtype=DTYPES[x["dtype"]]).reshape(x["shape"])


def plain(text: str) -> str:
    """Text from a learner on one line, without control characters, cut to 200."""
    return "".join(c if c.isprintable() else " " for c in text[:200])


# --- the worker: what runs in the sandbox ----------------------------------------------------------------------------

SYSCALLS = {  # x86-64, ARM64 (None: it has none); whatever is not listed fails
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "stat": (4, None), "fstat": (5, 80), "lstat": (6, None),
    "poll": (7, None), "lseek": (8, 62), "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215),
    "brk": (12, 214), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139),
    "pread64": (17, 67), "readv": (19, 65), "writev": (20, 66), "access": (21, None), "sched_yield": (24, 124),
    "mremap": (25, 216), "madvise": (28, 233), "dup": (32, 23), "nanosleep": (35, 101), "getpid": (39, 172),
    "exit": (60, 93), "uname": (63, 160), "getcwd": (79, 17), "readlink": (89, None), "gettimeofday": (96, 169),
    "getrusage": (98, 165), "sysinfo": (99, 179), "times": (100, 153), "getuid": (102, 174), "getgid": (104, 176),
    "geteuid": (107, 175), "getegid": (108, 177), "getppid": (110, 173), "sigaltstack": (131, 132),
    "gettid": (186, 178), "futex": (202, 98), "sched_getaffinity": (204, 123), "getdents64": (217, 61),
    "restart_syscall": (219, 128), "clock_gettime": (228, 113), "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115), "exit_group": (231, 94), "newfstatat": (262, 79), "readlinkat": (267, 78),
    "faccessat": (269, 48), "ppoll": (271, 73), "set_robust_list": (273, 99), "getcpu": (309, 168),
    "getrandom": (318, 278), "membarrier": (324, 283), "statx": (332, 291), "rseq": (334, 293),
    "faccessat2": (439, 439),
}  # fmt: skip
MACHINES = {"x86_64": (0, 0xC000003E, 56, 257), "aarch64": (1, 0xC00000B7, 220, 56)}  # column, arch, clone, openat
CREATE_RULESET, ADD_RULE, RESTRICT_SELF, CLONE3 = 444, 445, 446, 435  # the same number on every machine
MAGIC = re.compile(r"^([ \t]*)[%!?].*", re.M)


def kernel(function, *arguments) -> int:
    """A C function that returns -1 and sets errno when it fails; raises OSError."""
    result = function(*(ctypes.c_ulong(a) if isinstance(a, int) else a for a in arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def readable() -> int:
    """A Landlock ruleset, as a file descriptor: Python's own files can be read, save genlib, and nothing else."""
    libc = ctypes.CDLL(None, use_errno=True)
    ruleset = kernel(libc.syscall, CREATE_RULESET, struct.pack("Q", 0x1FFF), 8, 0)  # the 13 rights of version 1
    own = [p for p in sys.path if p.startswith((sys.prefix, sys.base_prefix))]
    system = [f"{sys.base_prefix}/lib", "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib"]
    for folder in filter(os.path.isdir, own + system):
        inside = [e.path for e in os.scandir(folder) if not re.search(r"genlib|-packages$|^python\d", e.name)]
        for path in filter(os.path.exists, [folder, *inside]):
            read = 0b1000 if path == folder else 0b1100 if os.path.isdir(path) else 0b0100  # list, list and read, read
            fd = os.open(path, os.O_PATH)
            kernel(libc.syscall, ADD_RULE, ruleset, 1, struct.pack("=Qi", read, fd), 0)
            os.close(fd)
    return ruleset


def system_calls() -> bytes:
    """The seccomp filter: only what is listed, threads but no processes, files opened for reading only."""
    column, arch, clone, openat = MACHINES[platform.machine()]
    load, equal, any_bit, answer, allow, error = 0x20, 0x15, 0x45, 0x06, 0x7FFF0000, 0x00050000
    steps = [(load, 0, 0, 4), (equal, 1, 0, arch), (answer, 0, 0, 0x80000000), (load, 0, 0, 0)]
    for number in filter(lambda n: n is not None, (row[column] for row in SYSCALLS.values())):
        steps += [(equal, 0, 1, number), (answer, 0, 0, allow)]
    steps += [(equal, 0, 1, CLONE3), (answer, 0, 0, error | errno.ENOSYS)]  # its flags are out of sight: use clone
    thread, write = 0x10000, os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
    steps += [(equal, 0, 4, clone), (load, 0, 0, 16), (any_bit, 0, 1, thread)]  # 16: its first argument
    steps += [(answer, 0, 0, allow), (answer, 0, 0, error | errno.EPERM)]
    steps += [(equal, 0, 4, openat), (load, 0, 0, 32), (any_bit, 1, 0, write)]  # 32: its third
    steps += [(answer, 0, 0, allow), (answer, 0, 0, error | errno.EACCES), (answer, 0, 0, error | errno.EPERM)]
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def confine(ruleset: int, calls: bytes, answer: int, seconds: float, memory: int):
    """Give up every right but to compute, to read Python's files and to write to ``answer``; for good."""
    import resource  # which Windows lacks

    libc = ctypes.CDLL(None, use_errno=True)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = {"CPU": math.ceil(seconds) + 1, "AS": used + memory * 2**20, "FSIZE": 0, "NOFILE": 64, "CORE": 0}
    for name, limit in limits.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (limit, limit))
    kernel(libc.prctl, 1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG: end with the nursery
    kernel(libc.prctl, 4, 0, 0, 0, 0)  # PR_SET_DUMPABLE: no other process may look inside
    kernel(libc.capset, struct.pack("Ii", 0x20080522, 0), bytes(24))  # root's privileges too
    kernel(libc.prctl, 38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    kernel(libc.syscall, RESTRICT_SELF, ruleset, 0)
    os.closerange(3, answer)
    os.closerange(answer + 1, 1 << 16)
    steps = ctypes.create_string_buffer(calls, len(calls))
    kernel(libc.prctl, 22, 2, struct.pack("HP", len(calls) // 8, ctypes.addressof(steps)), 0, 0)  # PR_SET_SECCOMP


def code_cells(text: str) -> list[str]:
    """The code cells of a notebook."""
    notebook = json.loads(text)
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise ValueError('no notebook of format 4: it has no list of "cells"')
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def names(statement) -> tuple[set[str], set[str]]:
    """The global names that a statement binds, and those that it or a function in it uses."""
    if isinstance(statement, ast.ImportFrom) and statement.names[0].name == "*":
        return {"*"}, set()
    top = symtable.symtable(ast.unparse(statement), "cell", "exec")
    binds = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported()}
    uses = {s.get_name() for s in top.get_symbols() if s.is_referenced()}
    inner = top.get_children()
    for table in inner:
        inner += table.get_children()
        uses |= {s.get_name() for s in table.get_symbols() if s.is_global()}
    return binds, uses


def program(cells: list[str], gap: str, function: str, stand_ins: dict[str, str]):
    """The statements that the answer to a gap needs, and the expression that is the answer."""
    body, broken, answer = [], [], ast.parse(function, mode="eval").body
    for cell in cells:
        for source in (cell, MAGIC.sub(r"\1pass", cell)):
            with contextlib.suppress(SyntaxError):
                body += ast.parse(source).body
                break
        else:
            broken.append(cell)
    kept = []
    for statement in body:
        call = getattr(statement, "value", None)
        if isinstance(call, ast.Call) and ast.unparse(call.func).split(".")[-1] == "check":
            given = [*call.args, *(keyword.value for keyword in call.keywords)]
            if len(given) == 2 and ast.unparse(given[0]) == repr(gap):
                answer = given[1]
        elif not names(statement)[0] & stand_ins.keys():
            kept.append(statement)
    kept += [s for source in stand_ins.values() for s in ast.parse(source).body]
    known = [names(statement) for statement in kept]
    wanted, chosen = names(answer)[1] | {"*"}, set()
    if isinstance(answer, ast.Name) and not any(answer.id in binds for binds, _ in known):
        for cell in broken:
            if re.search(rf"^def {answer.id}\b", cell, re.M):
                ast.parse(MAGIC.sub(r"\1pass", cell), "its cell")  # says what is wrong with it
        raise LookupError(f"there is no function `{answer.id}` in the notebook")
    while more := {i for i, (binds, _) in enumerate(known) if binds & wanted} - chosen:
        chosen |= more
        wanted = wanted.union(*(known[i][1] for i in more))
    return sorted(
        (kept[i] for i in sorted(chosen)), key=lambda s: not isinstance(s, ast.Import | ast.ImportFrom)
    ), answer


def call(arguments: dict, **where) -> dict:
    """Call a learner's function, and say what came back and what became of the arguments."""
    statements, answer = program(**where)
    space = {"__name__": "__main__", "torch": torch, "math": math}
    exec(compile(ast.Module(statements, []), "notebook", "exec"), space)
    function = eval(compile(ast.Expression(answer), "notebook", "eval"), space)
    given = {k: decode(v) for k, v in arguments.items()}
    got = function(*given.values())
    code = getattr(getattr(function, "__code__", None), "co_code", b"")
    empty = len(code) == len((lambda: None).__code__.co_code)
    return {"got": encode(got), "given": {k: encode(v) for k, v in given.items()}, "empty": empty}


def work(job: int, answer: int, isolation, seconds: float, memory: int):
    """A worker's whole life: read the job, give up all rights, do it, write the answer, end."""
    try:
        os.setsid()
        for fd in range(3):
            os.dup2(os.open(os.devnull, os.O_RDWR), fd)
        with open(job, "rb") as f:
            task = json.loads(f.read())
        if isolation:
            confine(*isolation, answer, seconds, memory)
        reply = {"cells": code_cells(**task)} if "text" in task else call(**task)
        reply = json.dumps(reply)
    except BaseException as error:
        try:
            reply = json.dumps({"fault": f"{type(error).__name__}: {error}"[:500]})
        except BaseException:  # its __str__ is the learner's too
            reply = '{"fault": "an error without a message"}'
    reply = reply.encode()
    while reply:
        reply = reply[os.write(answer, reply) :]


def nursery(isolated: bool, seconds: float, memory: int):
    """Fork a worker for each pair of file descriptors that comes through the socket at standard input."""
    torch.set_num_threads(1)
    sys.modules["genlib"] = None  # its import fails; its files are out of reach too
    isolation = (readable(), system_calls()) if isolated else None
    leave = os._exit  # as it was before a learner's code could replace it
    parent = socket.socket(fileno=0)
    parent.sendall(b"ready")
    while fds := socket.recv_fds(parent, 1, 2)[1]:
        pid = os.fork()
        if not pid:
            try:
                work(*fds, isolation, seconds, memory)
            finally:
                leave(0)
        for fd in fds:
            os.close(fd)
        parent.sendall(struct.pack("i", pid))
        status = os.waitpid(pid, 0)[1]
        if not isolated:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)  # the processes that it started
        parent.sendall(struct.pack("i", status))


# --- the parent ------------------------------------------------------------------------------------------------------


class Refused(Exception):
    """What a submission or this machine lacks, in words."""


class Workers:
    """A nursery and the way to it; ``ask`` gives one worker one job."""

    def __init__(self, isolated: bool, seconds: float, memory: int):
        if sys.platform != "linux" and (isolated or not hasattr(os, "fork")):
            raise Refused(f"it runs {platform.system()}")
        self.seconds, self.scratch = seconds, tempfile.TemporaryDirectory()
        self.socket, theirs = socket.socketpair()
        command = [sys.executable, "-I", str(Path(__file__).resolve())]
        self.process = subprocess.Popen(
            [*command, json.dumps([isolated, seconds, memory])], stdin=theirs, cwd=self.scratch.name,
            env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "LANG": "C.UTF-8"},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        theirs.close()
        if self.socket.recv(5) != b"ready":
            raise Refused(self.process.stderr.read().strip().split("\n")[-1])

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.socket.close()
        self.process.communicate()
        self.scratch.cleanup()

    def ask(self, job: dict) -> dict:
        """The worker's reply, or ``{"fault": ...}``: nothing in it can be trusted but that it is a dict."""
        (read_job, write_job), (read_reply, write_reply) = os.pipe(), os.pipe()
        socket.send_fds(self.socket, [b"."], [read_job, write_reply])
        os.close(read_job)
        os.close(write_reply)
        (pid,) = struct.unpack("i", self.socket.recv(4))
        with contextlib.suppress(BrokenPipeError), open(write_job, "wb") as f:
            f.write(json.dumps(job).encode())
        end, reply, fault = time.monotonic() + self.seconds, b"", None
        while fault is None:
            if not select.select([read_reply], [], [], max(0, end - time.monotonic()))[0]:
                fault = f"no answer within {self.seconds:g} seconds"
            elif not (more := os.read(read_reply, 65536)):
                break
            elif len(reply := reply + more) > MAX_ANSWER:
                fault = f"an answer of more than {MAX_ANSWER // 10**6} MB"
        os.close(read_reply)
        if not fault and not select.select([self.socket], [], [], max(1, end - time.monotonic()))[0]:
            fault = f"no end within {self.seconds:g} seconds"  # it closed the pipe and lives on
        if fault:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        (status,) = struct.unpack("i", self.socket.recv(4))
        if not fault and os.WIFSIGNALED(status):
            fault = f"Python crashed: {signal.strsignal(os.WTERMSIG(status))}"
        try:
            reply = json.loads(reply or "{}") if not fault else {"fault": fault}
        except (ValueError, RecursionError):
            reply = None
        return reply if isinstance(reply, dict) and reply else {"fault": "Python ended without an answer"}


PROBE = """
import os, socket

def probe(secret):
    tries = {
        "read genlib": lambda: open(secret),
        "write a file": lambda: open("x", "w"),
        "open a socket": lambda: socket.socket(),
        "start a process": lambda: os.fork() or os._exit(0),
        "signal a process": lambda: os.kill(os.getppid(), 0),
    }
    done = []
    for name, attempt in tries.items():
        try:
            attempt()
            done.append(name)
        except OSError:
            pass
    return ", ".join(done)
"""

if __name__ == "__main__":
    nursery(*json.loads(sys.argv[1]))
