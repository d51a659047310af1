"""What `make bench` times: all who compute a thing agree, ratios are ratios, and the page shows what was measured.

Peers are seen where `make bench` has installed them. The last test reads the built book: run `make html` first.
"""

import importlib
import itertools
import json
import re
import sys
from dataclasses import replace
from html import unescape
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml
from test_site import HTML

from bench import Case, density, distances, run
from genlib import metrics

ROOT = Path(__file__).resolve().parent.parent
sys.path += map(str, ROOT.glob(f"bench/.venv/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"))
RESULTS = json.loads((ROOT / "bench/results.json").read_text("utf8"))
STORED = [case for cases in RESULTS["cases"].values() for case in cases]
MODULES = {"dcor": "dcor", "POT": "ot", "nflows": "nflows", "pythae": "pythae"}  # codespell:ignore ot


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return [case for family in run.FAMILIES for case in importlib.import_module(f"bench.{family}").cases(small=True)]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- cases -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(len(STORED)), ids=[re.sub(r"\W+", "-", case["what"]) for case in STORED])
def test_all_who_compute_a_thing_agree(cases, number):
    case = cases[number]
    absent = [name for name in case.runs if name in MODULES and not find_spec(MODULES[name])]
    replace(case, runs={name: call for name, call in case.runs.items() if name not in absent}).errors()
    if absent:
        pytest.skip(f"the others agree; make bench has not installed {', '.join(absent)}")


@pytest.mark.parametrize("fault", [lambda v: 1.01 * v, lambda v: v + 1e-8, lambda v: v * float("nan")])
@pytest.mark.parametrize("name", ["genlib", "plain torch", "scikit-learn"])
def test_a_planted_error_is_found(name, fault):
    for case in density.kde(2, 0.3, 20, 100), density.knn(2, 20, 100):
        right = case.runs[name]
        case.runs[name] = lambda right=right: fault(right())
        with pytest.raises(ValueError, match=rf"{name} is off by"):
            case.errors()


def test_an_error_in_genlib_is_found(monkeypatch):
    monkeypatch.setattr(metrics, "_weights", lambda n, m, like: 1.005 * like.new_ones(n + m, 1) / n)
    with pytest.raises(ValueError, match="genlib is off by"):
        distances.mmd(2, 30).errors()


def test_the_tree_of_scikit_learn_is_wrong_in_many_dimensions_and_one_leaf_is_right():
    """If this fails, scikit-learn has mended it: then ``known`` and the remark go."""
    case = density.kde(784, 1.3, 20, 1_000)
    errors = case.errors()
    assert case.known == ("scikit-learn",) and errors["scikit-learn"] > 1e-3 > 1e-11 > errors["scikit-learn, one leaf"]
    with pytest.raises(ValueError, match="scikit-learn is off by"):
        replace(case, known=()).errors()


# --- measuring -------------------------------------------------------------------------------------------------------


def test_ratios_are_those_of_each_round(monkeypatch):
    """With a clock that only the runs move: genlib takes 1, 2, 4, ... seconds, and a peer three times as long."""
    now, took, order = [0.0], {"genlib": 1.0, "plain torch": 1.0, "peer": 3.0}, []

    def timed(name):
        order.append(name)
        now[0] += took[name] * 2 ** (order.count(name) - 1)
        return 5.0

    monkeypatch.setattr(run.time, "process_time", lambda: now[0])
    case = Case("it", {name: lambda name=name: timed(name) for name in took}, lambda: 4.0, 0.3)
    found = run.measure(case, 4)["runs"]
    assert {name: each["ratio"] for name, each in found.items()} == {name: [t, t, t] for name, t in took.items()}
    assert all(each["error"] == 0.25 for each in found.values())
    rounds = (
        list(itertools.batched(order, 3)) if sys.version_info >= (3, 12) else list(zip(*[iter(order)] * 3, strict=True))
    )
    assert len(rounds) == 5 and all(set(each) == set(took) for each in rounds)  # the first warms up
    assert len({each[0] for each in rounds[1:]}) == 3  # each has its turn to be first


def test_quartiles_are_those_of_the_rounds(monkeypatch):
    seconds, now = iter([1, 1] + [1, 1, 2, 1, 1, 3, 4, 1, 1, 5]), [0.0]  # warming up, then the pairs of five rounds

    def timed():
        now[0] += next(seconds)
        return 1.0

    monkeypatch.setattr(run.time, "process_time", lambda: now[0])
    found = run.measure(Case("it", {"genlib": timed, "peer": timed}, lambda: 1.0, 0.1), 5)["runs"]
    assert found["peer"]["ratio"] == [2, 3, 4]  # of 1/1, 2/1 (the peer first), 3/1, 4/1 and 5/1
    assert found["genlib"]["ratio"] == [1, 1, 1]


def test_a_run_that_changes_the_number_of_threads_is_refused():
    runs = {"genlib": lambda: 1.0, "peer": lambda: torch.set_num_threads(2) or 1.0}
    with pytest.raises(RuntimeError, match="it: expected one thread, torch has 2"):
        run.measure(Case("it", runs, lambda: 1.0, 0.1), 1)


# --- what is stored and shown ----------------------------------------------------------------------------------------


def test_the_stored_results_are_those_of_these_cases(cases):
    def form(case):  # what a case computes, less its sizes, by whom, and what is said of it
        case = case if isinstance(case, dict) else vars(case)
        return (
            re.sub(r"\d[\d,]*(?![\d,]*\$)", "N", case["what"]),
            list(case["runs"]),
            case["remark"],
            list(case["known"]),
        )

    assert [form(case) for case in STORED] == [form(case) for case in cases], "make bench"


def test_the_results_name_the_machine_and_the_versions():
    machine, versions = RESULTS["machine"], RESULTS["versions"]
    assert list(versions) == ["Python", *run.PACKAGES] and all(re.match(r"\d+\.\d+", v) for v in versions.values())
    assert machine["processor"] and machine["system"] and machine["cores"] >= 1 and machine["memory"] >= 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", RESULTS["date"]) and RESULTS["rounds"] >= 11
    text = run.page(RESULTS)
    for value in [*machine.values(), *itertools.chain(*versions.items()), RESULTS["date"], RESULTS["rounds"]]:
        assert str(value) in text
    assert run.machine().keys() == machine.keys()


def test_energy_distance_takes_at_most_a_third_of_dcors_time():
    (case,) = [case for case in STORED if case["what"].startswith("Energy distance, 2,000 by 2,000, $d=2$")]
    assert case["runs"]["dcor"]["ratio"][1] >= 3 and case["runs"]["plain torch"]["ratio"][1] >= 1


def test_the_race_is_won_by_twice_the_time():
    lines = (ROOT / "bench/race.md").read_text("utf8").splitlines()[5:-1]
    ours, *zukos = [line.strip("| ").split(" | ") for line in lines]
    assert ours[0].startswith("genlib") and float(ours[3]) <= 0.15 and len(zukos) == 3
    assert all(float(re.search(r"[\d.]+$", times)[0]) >= 2 for _, times, _, _ in zukos)


def test_flows_keep_the_pace_of_their_peers():
    def ratios(what):
        (case,) = [case for case in STORED if case["what"].startswith(what)]
        return {name: each["ratio"][1] for name, each in case["runs"].items()}

    assert ratios("RealNVP of 8 layers 64 - 64, three")["nflows"] >= 1.05
    assert ratios("Neural spline flow of 4 layers 64 - 64, three")["nflows"] >= 1
    for kind in ("RealNVP of 8", "Neural spline flow of 4"):
        assert ratios(f"{kind} layers 64 - 64, 10,000 draws")["genlib, log p of as many"] >= 1 / 1.5


def test_something_is_said_where_a_peer_is_faster():
    slow = [case for case in STORED if min(each["ratio"][1] for each in case["runs"].values()) < 0.8]
    assert slow and [case["what"] for case in slow if not case["remark"]] == []


def test_the_errors_are_small_but_for_those_that_are_known():
    for case in STORED:
        for name, each in case["runs"].items():
            assert (each["error"] <= 1e-3) != (name in case["known"]), (case["what"], name)


def test_the_table_is_made_from_the_results():
    assert (ROOT / "bench/results.md").read_text("utf8") == run.page(RESULTS), "make bench writes both"
    changed = json.loads(json.dumps(RESULTS))
    changed["cases"]["distances"][0]["runs"]["dcor"]["ratio"][1] *= 1.1
    assert run.page(changed) != run.page(RESULTS)


@pytest.mark.parametrize("value, text", [(0.00612, "0.0061"), (1, "1"), (1.04, "1"), (9.96, "10"), (134.2, "130")])
def test_ratios_have_two_digits(value, text):
    assert run.short(value) == text


def test_every_version_is_pinned_and_the_courses_stay():
    first, *lines = [
        line for line in (ROOT / "bench/requirements.txt").read_text("utf8").splitlines() if line[0] != "#"
    ]
    names = [re.match(r"([\w.-]+)==[\w.]+$", line)[1] for line in lines]
    ours = (ROOT / "requirements.txt").read_text("utf8")
    assert first == "-c ../requirements.txt" and not [name for name in names if re.search(rf"^{name}==", ours, re.M)]


def test_the_page_shows_every_number():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf8"))
    if "book/speed" not in json.dumps(toc):
        pytest.skip("book/speed is not in _toc.yml")
    html, race = (HTML / "book/speed.html").read_text("utf8").split('id="a-race"')
    rows = [re.findall(r"<td.*?</td>", row, re.S) for row in re.findall(r"<tr.*?</tr>", html, re.S)]
    shown = [[" ".join(unescape(re.sub("<[^>]+>", "", cell)).split()) for cell in row] for row in rows if row]
    wanted = []
    for case in STORED:
        for name, each in case["runs"].items():
            low, middle, high = map(run.short, each["ratio"])
            wanted.append(
                [name, middle, f"{low} to {high}" if name != "genlib" else "", f"{each['error']:.1g}".replace("-", "−")]
            )
    assert shown == wanted
    assert not re.search(r"\d", re.sub(r"\{include\}.*", "", (ROOT / "book/speed.md").read_text("utf8")))  # none typed
    for line in (ROOT / "bench/race.md").read_text("utf8").splitlines()[5:-1]:
        assert all(f"<p>{cell.strip()}</p>" in race.replace("’", "'") for cell in line.strip("|").split("|")), line
