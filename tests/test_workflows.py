"""The workflow files: valid, and safe. zizmor and check-jsonschema look first, then the rules of this repository.

Each rule is shown to fail on a workflow that breaks it.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PINNED = re.compile(r"uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+(\.\d+)*$")


def tool(name: str, *options) -> subprocess.CompletedProcess:
    return subprocess.run([Path(sys.executable).parent / name, *options], capture_output=True, text=True)


def zizmor(path: Path) -> subprocess.CompletedProcess:
    return tool("zizmor", "--offline", "--no-progress", "--persona", "pedantic", path)


def schema(path: Path) -> subprocess.CompletedProcess:
    return tool("check-jsonschema", "--builtin-schema", "vendor.github-workflows", path)


def broken_rules(text: str) -> set[str]:
    """The rules of this repository that a workflow breaks."""
    flow = yaml.safe_load(text)
    on, jobs, broken = flow[True], flow["jobs"].values(), set()  # YAML 1.1 reads the key `on` as true
    steps = [step for job in jobs for step in job["steps"]]
    if not all(PINNED.search(line) for line in text.splitlines() if re.match(r"\s*(- )?uses:", line)):
        broken.add("pinned")
    if not all(0 < job.get("timeout-minutes", 0) <= 60 for job in jobs):
        broken.add("timeout")
    if flow.get("defaults") != {"run": {"shell": "bash"}} or any("shell" in step for step in steps):
        broken.add(
            "pipefail"
        )  # GitHub runs `shell: bash`, spelt out, with -eo pipefail, and leaves pipefail out otherwise
    if "concurrency" not in flow:
        broken.add("concurrency")
    if flow.get("permissions") not in ({}, {"contents": "read"}):
        broken.add("permissions")
    checkouts = [step for step in steps if step.get("uses", "").startswith("actions/checkout@")]
    if not all(step.get("with", {}).get("persist-credentials") is False for step in checkouts):
        broken.add("credentials")
    if "pull_request_target" in on:
        broken.add("trigger")
    if "pull_request" in on and (
        re.search(r"\{\{[^}]*secrets|secrets: inherit", text) or any("permissions" in job for job in jobs)
    ):
        broken.add("pull request")
    return broken


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflow(path):
    for checked in (schema(path), zizmor(path)):
        assert checked.returncode == 0, checked.stdout + checked.stderr
    assert broken_rules(path.read_text("utf8")) == set()


def test_all_three_are_there():
    assert [path.stem for path in WORKFLOWS] == ["gpu", "publish", "test"]


def test_pull_requests_run_the_readme_command_on_every_python():
    job = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text("utf8"))["jobs"]["test"]
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert ".ci/run" in [step.get("run") for step in job["steps"]]
    run = (ROOT / ".ci" / "run").read_text("utf8")
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111 and "set -euo pipefail" in run and "make test" in run


def test_gpu_runs_every_notebook_and_names_no_runner():
    text = (ROOT / ".github/workflows/gpu.yml").read_text("utf8")
    job = yaml.safe_load(text)["jobs"]["notebooks"]
    assert job["runs-on"] == "${{ vars.GPU_RUNNER }}" and job["if"] == "vars.GPU_RUNNER != ''"
    assert job["steps"][-1]["run"].endswith("pytest -n 2 book labs") and "rtol" not in text and "lax" not in text


GOOD = (ROOT / ".github/workflows/test.yml").read_text("utf8")
CHECKOUT = re.search(r"actions/checkout@\S+ # \S+", GOOD)[0]


@pytest.mark.parametrize(
    "rule, old, new",
    [
        ("pinned", CHECKOUT, "actions/checkout@v6"),
        ("pinned", CHECKOUT, CHECKOUT.split(" #")[0]),
        ("timeout", "timeout-minutes: 40", "timeout-minutes: 600"),
        ("pipefail", "    shell: bash", "    shell: sh"),
        ("concurrency", "concurrency:", "env:"),
        ("permissions", "contents: read", "contents: write"),
        ("credentials", "persist-credentials: false", "persist-credentials: true"),
        ("trigger", "pull_request:", "pull_request_target:"),
        ("pull request", "- run: make lint", "- run: make lint TOKEN=${{ secrets.TOKEN }}"),
    ],
)
def test_a_broken_rule_is_found(rule, old, new):
    assert old in GOOD and rule in broken_rules(GOOD.replace(old, new, 1))


@pytest.mark.parametrize(
    "check, old, new",
    [
        (schema, "runs-on: ubuntu-latest", "run-on: ubuntu-latest"),
        (schema, "timeout-minutes: 40", "timeout-minutes: long"),
        (zizmor, CHECKOUT, "actions/checkout@v6"),
        (zizmor, "- run: make lint", '- run: echo "${{ github.event.pull_request.title }}"'),
        (zizmor, "pull_request:", "pull_request_target:"),
        (zizmor, "  contents: read", "  contents: write"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_tools_find_a_planted_fault(tmp_path, check, old, new):
    path = tmp_path / ".github" / "workflows" / "test.yml"
    path.parent.mkdir(parents=True)
    path.write_text(GOOD, "utf8")
    assert check(path).returncode == 0
    path.write_text(GOOD.replace(old, new, 1), "utf8")
    assert check(path).returncode != 0
