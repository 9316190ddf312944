"""CI runs what people run: the files of GitHub Actions and Azure Pipelines are sound, safe, and only call the scripts of ci/."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlops_nb.core import ledger
from mlops_nb.core.runs import list_runs
from mlops_nb.core.settings import Settings, load_settings

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
AZURE = ROOT / "ci/azure-pipelines.yml"
SCENARIOS = ROOT / ".github/workflows/scenarios.yml"
AZURE_DIALECT = ["--regex-variant", "nonunicode", "--data-transform", "azure-pipelines"]  # of its published schema


def run(tool: str, *arguments: Any) -> subprocess.CompletedProcess[str]:
    """Run a tool of this environment; none of them asks another machine."""
    command = [Path(sys.executable).with_name(tool), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def check_workflows(*paths: Path, schema: str = "vendor.github-workflows") -> subprocess.CompletedProcess[str]:
    return run("check-jsonschema", "--builtin-schema", schema, *paths)


def check_azure(path: Path) -> subprocess.CompletedProcess[str]:
    return run("check-jsonschema", "--builtin-schema", "vendor.azure-pipelines", *AZURE_DIALECT, path)


def audit(*paths: Path) -> subprocess.CompletedProcess[str]:
    return run("zizmor", "--offline", "--no-progress", "--persona=auditor", "--strict-collection", *paths)


def commands(node: Any) -> Iterator[str]:
    """Yield every shell command of a file, wherever it stands."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        if key in ("run", "script", "bash") and isinstance(value, str):
            yield value
        yield from commands(value)


# --- the files as they are ---


def test_the_workflows_follow_their_schema_and_each_job_has_a_time_limit() -> None:
    for schema in ("vendor.github-workflows", "custom.github-workflows-require-timeout"):
        checked = check_workflows(*WORKFLOWS, schema=schema)
        assert checked.returncode == 0, checked.stdout


def test_the_azure_pipeline_follows_its_schema() -> None:
    checked = check_azure(AZURE)
    assert checked.returncode == 0, checked.stdout


def test_zizmor_finds_nothing() -> None:
    audited = audit(*WORKFLOWS)
    assert audited.returncode == 0, audited.stdout


@pytest.mark.parametrize("path", [*WORKFLOWS, AZURE], ids=lambda path: path.name)
def test_they_only_call_scripts_of_this_repository(path: Path) -> None:
    found = [command.split()[0] for command in commands(yaml.safe_load(path.read_text()))]
    assert found or path.name == "docs.yml"
    assert not [script for script in found if not re.match(r"\.?ci/", script) or not (ROOT / script).is_file()]


@pytest.mark.parametrize("path", [*WORKFLOWS, AZURE], ids=lambda path: path.name)
def test_no_expression_becomes_part_of_a_shell_command(path: Path) -> None:
    """Azure Pipelines has no auditor; its macros are expressions, too."""
    assert not [command for command in commands(yaml.safe_load(path.read_text())) if "${{" in command or "$(" in command]


def test_an_action_has_one_version_everywhere() -> None:
    used = {line for path in WORKFLOWS for line in re.findall(r"uses: (.+)", path.read_text())}
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line) for line in used)
    actions = [line.partition("@")[0] for line in used]
    assert len(actions) == len(set(actions))


def test_both_offer_every_environment_and_hand_the_same_inputs_to_the_script() -> None:
    settings = ConfigParser(default_section="")
    settings.read(ROOT / "settings.ini")
    environments = [section for section in settings.sections() if section != "DEFAULT"]
    github, azure = (yaml.safe_load(path.read_text()) for path in (SCENARIOS, AZURE))
    offered = github[True]["workflow_dispatch"]["inputs"]  # YAML reads `on` as true
    parameters = {parameter["name"]: parameter for parameter in azure["parameters"]}
    assert set(offered) == set(parameters) == {"scenario", "environment", "parameters"}
    assert offered["environment"]["options"] == parameters["environment"]["values"] == environments
    handed = [step["env"] for job in (*github["jobs"].values(), *azure["jobs"]) for step in job["steps"] if "env" in step]
    assert [set(variables) for variables in handed] == [{"SCENARIO", "ENVIRONMENT", "PARAMETERS"}] * 2


# --- planted faults: each is caught ---


@pytest.fixture
def broken(tmp_path: Path) -> Any:
    """Copy a file with one thing changed."""

    def change(path: Path, old: str, new: str) -> Path:
        text = path.read_text()
        assert old in text
        folder = tmp_path / ".github/workflows"
        folder.mkdir(parents=True, exist_ok=True)
        copy = folder / path.name
        copy.write_text(text.replace(old, new, 1))
        return copy

    return change


def test_an_unknown_key_is_caught(broken: Any) -> None:
    checked = check_workflows(broken(SCENARIOS, "timeout-minutes:", "timeout-in-minutes:"))
    assert checked.returncode == 1
    assert "timeout-in-minutes" in checked.stdout


def test_an_unknown_key_is_caught_in_the_azure_pipeline(broken: Any) -> None:
    checked = check_azure(broken(AZURE, "- script: ci/scenarios", "- scrypt: ci/scenarios"))
    assert checked.returncode == 1
    assert "scrypt" in checked.stdout


def test_a_job_without_a_time_limit_is_caught(broken: Any) -> None:
    checked = check_workflows(broken(SCENARIOS, "timeout-minutes: 60", "continue-on-error: true"),
                              schema="custom.github-workflows-require-timeout")  # fmt: skip
    assert checked.returncode == 1
    assert "'timeout-minutes' is a required property" in checked.stdout


@pytest.mark.parametrize(
    ("old", "new", "audit_name"),
    [
        ("run: ci/scenarios", "run: ci/scenarios ${{ inputs.parameters }}", "template-injection"),
        ("persist-credentials: false", "fetch-depth: 1", "artipacked"),
        ("contents: read", "contents: write", "excessive-permissions"),
        ("@08c6903cd8c0fde910a37f88322edcfb5dd907a8 # v5.0.0", "@v5", "unpinned-uses"),
        ("on:\n  schedule:", "on:\n  pull_request_target:\n  schedule:", "dangerous-triggers"),
    ],
)
def test_an_unsafe_workflow_is_caught(broken: Any, old: str, new: str, audit_name: str) -> None:
    audited = audit(broken(SCENARIOS, old, new))
    assert audited.returncode > 10, audited.stdout  # zizmor's codes of findings; 1 and 2 say that it could not work
    assert f"[{audit_name}]" in audited.stdout


# --- the script that they call ---

JOB = '  train: {component: ../components/shop_10_train.yml, inputs: {rows: "${{parent.inputs.rows}}"}}\n'
TRAIN = """\
from mlops_nb.core.records import PeopleNeeded
if rows == 0:
    raise PeopleNeeded('the model waits for a person')"""


@pytest.fixture
def scenario(lay: Any) -> None:
    """Lay a scenario of one notebook that waits or succeeds, as its parameter says."""
    lay(JOB, _10_train=("rows: int = 3", TRAIN))


def run_scenarios(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the script on the project here, as `ci/scenarios` does on this one."""
    environment = {**os.environ, "NO_COLOR": "1", **variables}
    command = [sys.executable, ROOT / "ci/scenarios.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)


@pytest.mark.slow
def test_a_workflows_inputs_reach_the_run_whatever_is_in_them(project: Settings, scenario: None, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    done = run_scenarios(SCENARIO="all", ENVIRONMENT=" ", PARAMETERS="'rows=5' ", GITHUB_STEP_SUMMARY=str(page))
    assert done.returncode == 0, done.stderr
    [made] = list_runs(project)
    assert str(made.values["rows"]) == "5"
    gathered = project.state / "ci"
    there = {path.relative_to(gathered / "runs" / made.id).as_posix() for path in (gathered / "runs" / made.id).rglob("*")}
    assert {"10_train.ipynb", "10_train.html", "log/train.log", "run.json", "journal.jsonl"} <= there
    assert not [name for name in there if name.startswith("outputs")]  # data stays
    assert f'href="runs/{made.id}/10_train.html"' in (gathered / "index.html").read_text()
    assert f"| shop | done | {made.id} |" in page.read_text()
    copy = load_settings(state=str(gathered))
    assert ledger.verify(copy) == []
    assert [entry.action for entry in ledger.entries(copy)] == [entry.action for entry in ledger.entries(project)]

    again = run_scenarios("shop", "-p", "rows=5")  # nothing has changed: what is there is gathered again
    assert again.returncode == 0
    assert (gathered / "runs" / made.id / "10_train.html").is_file()

    hostile = run_scenarios(SCENARIO="shop", PARAMETERS=f"'rows=5; touch {tmp_path}/pwned' rows=$(touch {tmp_path}/pwned)")
    assert hostile.returncode == 2
    assert not (tmp_path / "pwned").exists()


@pytest.mark.slow
def test_a_gate_is_shown_and_is_no_failure_but_a_failure_is_one(project: Settings, scenario: None) -> None:
    waits = run_scenarios("shop", "-p", "rows=0")
    assert waits.returncode == 0, waits.stderr
    assert "shop: waiting" in waits.stdout
    for page in ("summary.md", "index.html"):
        assert "the model waits for a person" in (project.state / "ci" / page).read_text()
    refused = run_scenarios("shop", "-p", "rows=many")
    assert refused.returncode == 2
    assert "| shop | refused (exit code 2) |" in (project.state / "ci/summary.md").read_text()


def test_an_unknown_scenario_is_refused(project: Settings, scenario: None) -> None:
    refused = run_scenarios(SCENARIO="shop nosuch")
    assert (refused.returncode, list_runs(project)) == (2, [])
    assert "No scenario nosuch in ci/pipelines (scenarios: shop)." in refused.stderr
