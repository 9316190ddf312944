"""A run on Azure ML is watched, fetched and kept like one of this machine."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from mlops_nb.azure import cancel, fetch, follow, open_run, refresh, submit
from mlops_nb.core import ledger
from mlops_nb.core.files import read_lines
from mlops_nb.core.records import SpecificationError
from mlops_nb.core.runs import Run, list_runs, load_run, log_file
from mlops_nb.core.settings import Settings, load_settings
from mlops_nb.core.specification import read_pipeline

STEPS = ["data", "train", "stage", "deploy", "monitor"]


def executed(source: str, *outputs: dict[str, Any]) -> bytes:
    """Write a notebook as a step's kernel leaves it."""
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "execution_count": 1, "source": source, "outputs": list(outputs)}
    return json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}).encode()


def error(name: str, text: str) -> dict[str, Any]:
    return {"output_type": "error", "ename": name, "evalue": text, "traceback": []}


def one_after_the_other(*steps: str) -> list[dict[str, str]]:
    """List the states of steps that wait for each other."""
    return [{step: state} for step in steps for state in ("Queued", "Running", "Completed")]


@pytest.fixture
def run(shop: Settings, client: Any, cloud: Any) -> Run:
    """A submitted run, whose steps will leave an executed notebook, a log and a record each."""
    for step in STEPS:
        cloud.outputs[step] = {"executed": executed(f"# {step}"), "std_log.txt": f"{step} at work\n".encode()}
    cloud.outputs["data"]["gold"] = b'{"name": "diamonds"}'
    return submit(shop, client, read_pipeline(shop.root / "ci/pipelines/classical.yml"), {"environment": "dev"})


def test_the_whole_way_through_the_command(
    shop: Settings, cloud: Any, signed_in: None, command: Callable[..., Any], run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.play(*one_after_the_other(*STEPS))
    ended = command("azure", "submit", "classical", "-p", "target=carat", "--every", "0")
    done = load_run(shop.runs / ended.run)
    assert ended.rc == 0
    assert done.state == "done"
    assert [line.split()[:2] for line in ended.stdout.splitlines() if "running" in line or " s" in line][:2] == [
        ["data", "running"],
        ["data", "done"],
    ]
    assert done.values == {"environment": "dev", "target": "carat"}
    assert done.seconds["train"] == 90.0
    assert [entry.action for entry in ledger.entries(shop, f"run:{done.id}")] == ["submit", "fetch"]
    assert done.id in [found.id for found in list_runs(shop, "classical")]


def test_what_the_steps_made_stands_where_a_local_run_has_it(shop: Settings, client: Any, cloud: Any, run: Run) -> None:
    cloud.play(*one_after_the_other(*STEPS))
    done, fetched = fetch(shop, client, follow(client, run, every=0))
    assert fetched == STEPS
    assert done.notebooks["train"] == run.folder / "20_train.ipynb"
    assert "# train" in done.notebooks["train"].read_text()
    assert "# train" in done.notebooks["train"].with_suffix(".html").read_text()
    assert json.loads(done.output("data", "gold").read_text()) == {"name": "diamonds"}
    assert done.outputs["data"] == ["gold"]
    assert log_file(done, "stage").read_text() == "stage at work\n"
    times = [(event["step"], event["state"], event["at"]) for event in read_lines(run.folder / "journal.jsonl")]
    assert times[:2] == [("data", "running", "2026-01-01T10:00:00+00:00"), ("data", "done", "2026-01-01T10:01:30+00:00")]


def test_each_change_is_told_once(client: Any, cloud: Any, run: Run) -> None:
    cloud.play({"data": "Queued"}, {"data": "Queued"}, {"data": "Running"}, {"data": "Running"}, {"data": "Completed"},
               *one_after_the_other(*STEPS[1:]))  # fmt: skip
    told: list[tuple[str, str]] = []
    follow(client, run, lambda step, state, seconds: told.append((step, state)), every=0)
    assert [state for step, state in told if step == "data"] == ["queued", "running", "done"]


def test_nothing_is_fetched_twice(shop: Settings, client: Any, cloud: Any, run: Run) -> None:
    cloud.play({"data": "Completed"})
    assert fetch(shop, client, run)[1] == ["data"]
    cloud.play({"train": "Completed"})
    run, fetched = fetch(shop, client, run)
    assert fetched == ["train"]
    assert run.state == "running"


def test_a_failed_step_brings_its_error_home(shop: Settings, client: Any, cloud: Any, run: Run) -> None:
    cloud.outputs["train"]["executed"] = executed("1 / 0", error("ZeroDivisionError", "division by zero"))
    cloud.play({"data": "Completed"}, {"train": "Running"}, {"train": "Failed"})
    failed, _ = fetch(shop, client, follow(client, run, every=0))
    assert failed.state == "failed"
    assert "ZeroDivisionError: division by zero" in failed.message
    assert f"mlops-nb notebook debug {run.folder / '20_train.ipynb'}" in failed.message
    assert "stage" not in failed.steps, "it was never begun"


def test_a_failure_without_a_notebook_says_what_azure_says(shop: Settings, client: Any, cloud: Any, run: Run) -> None:
    cloud.outputs["data"] = {}
    cloud.play({"data": "Failed"})
    failed, _ = fetch(shop, client, follow(client, run, every=0))
    assert failed.message == "Execution failed. Process exited with status code: 4"


def test_a_gate_that_waits_for_a_person_is_no_failure(
    shop: Settings, cloud: Any, run: Run, signed_in: None, command: Callable[..., Any]
) -> None:
    cloud.outputs["deploy"]["executed"] = executed("approve()", error("PeopleNeeded", "dev.diamonds/3 waits for an approval."))
    cloud.play(*one_after_the_other("data", "train", "stage"), {"deploy": "Running"}, {"deploy": "Failed"})
    ended = command("azure", "status", run.id, "--stream", "--every", "0")
    assert ended.rc == 3
    assert "dev.diamonds/3 waits for an approval." in ended.stderr
    assert load_run(run.folder).steps["deploy"] == "waiting"


def test_an_interrupt_leaves_the_job_running(
    shop: Settings, cloud: Any, run: Run, signed_in: None, command: Callable[..., Any]
) -> None:
    cloud.play(*one_after_the_other(*STEPS))
    cloud.interrupts_at = 5
    ended = command("azure", "status", run.id, "--stream", "--every", "0")
    assert ended.rc == 130
    assert f"mlops-nb azure cancel {run.id}" in ended.stdout
    assert f"mlops-nb azure status {run.id}" in ended.stdout
    assert not [sent for sent in cloud.written() if sent.path.endswith("/cancel")]
    assert load_run(run.folder).state == "running"


def test_a_cancelled_run_is_stopped(shop: Settings, client: Any, cloud: Any, run: Run) -> None:
    cloud.play({"data": "Running"})
    refresh(client, run)
    cancel(shop, client, run)
    stopped = follow(client, run, every=0)
    assert stopped.state == "stopped"
    assert [entry.action for entry in ledger.entries(shop, f"run:{run.id}")] == ["submit", "cancel"]


def test_the_commands_by_hand(shop: Settings, cloud: Any, run: Run, signed_in: None, command: Callable[..., Any]) -> None:
    cloud.play({"data": "Completed"}, {}, {"train": "Running"})
    part = run.id[-9:]
    fetched = command("azure", "fetch", part)
    assert (fetched.rc, "fetched data" in fetched.stdout) == (0, True)
    shown = command("azure", "status", part)
    states = [tuple(line.split()[:2]) for line in shown.stdout.splitlines()[2:5]]
    assert states == [("data", "done"), ("train", "running"), ("stage", "notstarted")]
    assert command("azure", "cancel", part).rc == 0
    ended = command("azure", "status", part, "--stream", "--every", "0")
    assert ended.rc == 130
    assert "stopped" in ended.stdout


def test_a_result_that_azure_reuses_is_a_skipped_step(client: Any, cloud: Any, run: Run) -> None:
    cloud.play({"data": "Reused"}, *one_after_the_other(*STEPS[1:]))
    done = follow(client, run, every=0)
    assert done.steps["data"] == "skipped"
    assert done.state == "done"


def test_a_job_that_ends_before_its_first_step(client: Any, cloud: Any, run: Run) -> None:
    cloud.runs.clear()
    cloud.fail()
    stopped = follow(client, run, every=0)
    assert stopped.state == "stopped"
    assert "the job is failed" in stopped.message


def test_a_run_submitted_elsewhere_is_fetched_by_its_name(shop: Settings, client: Any, cloud: Any, run: Run) -> None:
    cloud.play(*one_after_the_other(*STEPS))
    here = load_settings("dev", state=str(shop.root / "another"), user="bob")
    found = open_run(here, client, run.id)
    assert (found.user, found.scenario, found.planned, found.needs) == ("ada", "classical", STEPS, run.needs)
    assert found.values["target"] == "price"
    done, fetched = fetch(here, client, follow(client, found, every=0))
    assert (done.state, fetched) == ("done", STEPS)


def test_a_run_that_is_nowhere(shop: Settings, client: Any, cloud: Any) -> None:
    with pytest.raises(SpecificationError, match="No pipeline job 'nothing' in workspace 'mlops-nb-dev' either"):
        open_run(shop, client, "nothing")
