"""`mlops-nb monitor`: an endpoint is looked at when it is time, each window once, and what follows is done once, by whoever comes."""

import datetime as dt
import json
import time
from collections.abc import Callable
from typing import Any

import nbformat
import pytest

from mlops_nb.cli import main
from mlops_nb.core import queue
from mlops_nb.core.components import compile_components
from mlops_nb.core.ledger import entries
from mlops_nb.core.records import Deployment, Signal
from mlops_nb.core.schedule import find_schedules, take_up
from mlops_nb.core.settings import Settings
from mlops_nb.outer_loop import history
from mlops_nb.outer_loop.actions import conclude
from mlops_nb.outer_loop.monitor import load_monitor
from mlops_nb.outer_loop.policy import policy_of

PARAMETERS = """
from mlops_nb.core.parameters import Output
name: str = ""
environment: str = "dev"
monitor: str = ""
ground_truth: str = ""
at: str = ""
decision: Output = ""
"""
LOOK = """
import datetime as dt, json
from mlops_nb.core.records import Alert, Deployment, Signal, save_record
from mlops_nb.core.settings import load_settings
from mlops_nb.outer_loop import actions, history
from mlops_nb.outer_loop.monitor import load_monitor, window_of
from mlops_nb.outer_loop.policy import policy_of
settings, watch = load_settings(environment), load_monitor(monitor)
window = window_of(watch, dt.datetime.fromisoformat(at) if at else dt.datetime.now(dt.UTC))
signals = [Signal(**signal) for signal in json.load(open("signals.json"))]
blue = Deployment(name, "blue", "model:dev.stones/1", "dev")
alert = actions.conclude(settings, watch, blue, window, signals, policy_of(watch), rows=9)
save_record(alert or Alert(watch.name, name, tuple(map(history.moment, window)), [], []), decision)
"""
MONITOR = """
name: stones_dev
properties: {mlops_nb.minimum_rows: "1", mlops_nb.policy: ./policy.yml}
trigger: {type: recurrence, frequency: hour, interval: 1}
create_monitor:
  compute: {instance_type: standard_e4s_v3, runtime_version: "3.4"}
  monitoring_target: {ml_task: regression, endpoint_deployment_id: "azureml:stones:blue"}
  monitoring_signals:
    inputs:
      type: data_drift
      reference_data: {input_data: {path: "azureml:stones:1", type: mltable}, data_context: training}
      alert_enabled: true
      metric_thresholds: {numerical: {normalized_wasserstein_distance: 0.3}}
"""
METRIC = "normalized_wasserstein_distance"
DRIFT = {"name": "inputs", "type": "data_drift", "feature": "carat", "metric": METRIC, "value": 1.4, "threshold": 0.3, "breached": True,
         "detail": {"examples": [{"correlationid": "r1_0", "score": 1.0, "why": "new"}]}}  # fmt: skip
CALM = DRIFT | {"value": 0.1, "breached": False}


@pytest.fixture
def watched(shop: Settings) -> Callable[..., None]:
    """Lay a monitor of an endpoint that has collected one row; `watched(signal)` says what the next look finds."""
    page = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "python3"}})
    page.cells = [nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters", "non-deterministic"]}),
                  nbformat.v4.new_code_cell(LOOK)]  # fmt: skip
    folder = shop.root / "nbs" / "scenarios" / "watch"
    folder.mkdir(parents=True)
    nbformat.write(page, folder / "50_monitor.ipynb")
    compile_components(shop.root)
    ports = ("name", "environment", "monitor", "ground_truth", "at")
    inputs = "\n".join(f'  {port}: "{"dev" if port == "environment" else ""}"' for port in ports)
    bound = "\n".join(f"      {port}: ${{{{parent.inputs.{port}}}}}" for port in ports)
    component = "../components/watch_50_monitor.yml"
    (shop.root / "ci/pipelines/monitor.yml").write_text(
        f"type: pipeline\ninputs:\n{inputs}\njobs:\n  monitor:\n    component: {component}\n    inputs:\n{bound}\n")
    (shop.root / "environments/dev/monitor.yml").write_text(MONITOR)
    (shop.root / "environments/dev/policy.yml").write_text("rules: [{then: annotate}]\nannotate: {queue: stones}\n")
    (shop.endpoints / "stones").mkdir(parents=True)
    (shop.endpoints / "stones" / "endpoint.json").write_text("{}")
    now = dt.datetime.now(dt.UTC) - dt.timedelta(hours=2)
    event = {"specversion": "1.0", "id": "1", "time": now.isoformat(), "correlationid": "r1", "data": [{"carat": 3.5}]}
    for collection in ("model_inputs", "model_outputs"):
        hour = shop.collected / "stones" / "blue" / collection / f"{now:%Y/%m/%d/%H}"
        hour.mkdir(parents=True)
        (hour / "a.jsonl").write_text(json.dumps(event) + "\n")

    def find(*signals: dict[str, Any]) -> None:
        (shop.root / "signals.json").write_text(json.dumps(signals))

    find(DRIFT)
    return find


@pytest.fixture
def say(shop: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run a command of `mlops-nb monitor` in this process; returns its exit code and what it said, or its JSON."""
    monkeypatch.setenv("COLUMNS", "300")

    def run(*words: str) -> Any:
        with pytest.raises(SystemExit) as end:
            main(["monitor", *words])
        said = capsys.readouterr()
        return json.loads(said.out) if "--json" in words and end.value.code == 0 else (end.value.code, said.out + said.err)

    return run


def test_a_look_leads_to_an_alert_its_action_and_tables_to_read(shop, watched, say):
    assert say("status")[1].count("never looked") == 1
    assert say("history") == (0, "Nothing was looked at yet. Look now: mlops-nb monitor once NAME --env dev\n")
    assert (say("alerts")[1], say("actions")[1]) == ("No alerts.\n", "No actions.\n")
    code, text = say("once", "stones")
    assert code == 0, text
    assert "1 of 1 rows are new in the queue stones" in text
    assert [item.data for item in queue.read(shop, "stones")] == [{"carat": 3.5}]
    [window], [alert], [action] = say("history", "--json"), say("alerts", "--json"), say("actions", "--json")
    assert (window["state"], window["rows"], alert["state"], action["state"]) == ("alert", 9, "open", "done")
    assert window["run"] in text
    assert "carat normalized_wasserstein_distance: 1.4, threshold 0.3" in say("alerts", "stones_dev")[1]
    assert "1.4" in say("history", "stones", "--metric", "normalized_wasserstein_distance")[1]
    [row] = say("status", "--json")
    assert (row["monitor"], row["state"], row["alerts"]) == ("stones_dev", "alert", 1)
    assert say("acknowledge", alert["id"][:4], "--reason", "on it")[1].startswith(f"alert {alert['id']} is acknowledged")
    assert say("snooze", alert["id"], "--until", "PT4H")[0] == 0
    assert [raised["id"] for raised in say("alerts", "--only", "snoozed", "--json")] == [alert["id"]]
    watched(CALM)
    assert "quiet" in say("once", "stones_dev")[1]
    assert say("alerts", "--only", "snoozed") == (0, "No alerts.\n")


def test_a_person_decides_what_the_policy_asks_about(shop, watched, say):
    (shop.root / "environments/dev/policy.yml").write_text("rules: [{then: annotate, mode: supervised}]\n")
    code, text = say("once", "stones")
    [action] = history.actions(shop)
    assert f"annotate {action.id} waits for a person: mlops-nb monitor approve {action.id}" in text
    assert say("act") == (0, "Nothing is planned.\n")
    assert say("refuse", action.id)[0] == 2
    code, text = say("approve", action.id, "--as", "monitoring_process")
    assert (code, "may not approve in dev" in text) == (3, True)
    assert "done" in say("approve", action.id, "--by", "ann", "--reason", "let us see")[1]
    assert (history.actions(shop)[0].state, len(queue.read(shop, "stones"))) == ("done", 1)
    assert say("refuse", action.id, "--reason", "late")[0] == 2


@pytest.mark.parametrize(("words", "said"), [
    (("once", "nobody"), "No monitor and no endpoint 'nobody' in dev (monitors: stones_dev; endpoints: stones)"),
    (("once", "stones", "--file", "gone.yml"), "No monitor at gone.yml"),
    (("once", "stones", "--at", "yesterday"), "--at yesterday: write ISO 8601"),
    (("once", "stones", "--at", "2199-01-01"), "is still to come"),
    (("backfill", "stones", "--from", "2026-01-02", "--to", "2026-01-01"), "lies before"),
    (("history", "nobody"), "No monitor 'nobody' in dev (monitors: stones_dev)"),
    (("alerts", "--only", "shut"), "alerts are open, acknowledged, snoozed, resolved"),
    (("acknowledge", "f00"), "No alert 'f00' in dev (alerts: none)"),
    (("approve", ""), "No action '' in dev"),
    (("snooze", "f00", "--until", "soon"), "--until soon: write ISO 8601"),
    (("start", "nobody"), "No monitor 'nobody' in environments/dev (monitors: stones_dev)"),
    (("status", "--env", "nowhere"), "No environment 'nowhere'"),
    (("once",), "Missing argument")])  # fmt: skip
def test_wrong_words_end_with_2_and_what_there_is(watched, say, words, said):
    code, text = say(*words)
    assert (code, said in text) == (2, True), text


def test_a_wrong_policy_is_told_before_anything_is_run(shop, watched, say):
    (shop.root / "environments/dev/policy.yml").write_text("rules: [{then: panic}]\nlimits: {cool_down: soon}\n")
    code, text = say("once", "stones")
    assert code == 2
    assert "policy.yml:1: rules.0.then: Input should be 'retrain'" in text
    assert "policy.yml:2: limits.cool_down:" in text
    assert not shop.runs.exists()


def test_an_endpoint_that_is_gone_is_told(shop, watched, say):
    (shop.endpoints / "stones" / "endpoint.json").unlink()
    assert say("once", "stones_dev") == (2, "No endpoint 'stones' in dev (endpoints: none). Deploy a model to it first.\n")


def test_the_past_is_computed_and_leads_to_nothing(shop, watched, say):
    code, text = say("backfill", "stones", "--from", "2026-11-20T10:00", "--to", "2026-11-20T11:30")
    assert (code, text.count(": alert")) == (0, 2), text
    assert [(seen.end, seen.backfilled) for seen in history.windows(shop)] == [
        (f"2026-11-20T{hour}:00:00+00:00", True) for hour in (10, 11)]  # fmt: skip
    assert history.alerts(shop) == history.actions(shop) == history.notices(shop) == []
    assert "was looked at before" in say("backfill", "stones", "--from", "2026-11-20T11:00", "--to", "2026-11-20T11:30")[1]
    assert say("backfill", "stones", "--from", "2026-11-20T11:01", "--to", "2026-11-20T11:00:59")[0] == 2


@pytest.mark.slow
def test_missed_hours_are_one_window_even_for_two_schedulers_and_the_newest_of_them(shop, watched, start):
    [schedule] = find_schedules(shop, ["stones_dev"])
    missed = dt.datetime.now(dt.UTC).replace(microsecond=0) - dt.timedelta(hours=30, minutes=7)
    take_up(shop, schedule, missed)
    first, second = start(group="monitor"), start(group="monitor")
    while "stones_dev           done" not in first.output.read_text() + second.output.read_text():
        assert (first.process.poll(), second.process.poll()) == (None, None)
        time.sleep(0.1)
    while [action.state for action in history.actions(shop)] != ["done"]:  # the other one may have taken it up
        assert (first.process.poll(), second.process.poll()) == (None, None)
        time.sleep(0.1)
    assert (first.stop(), second.stop()) == (0, 0)
    [seen] = history.windows(shop)
    assert seen.end == (missed + dt.timedelta(hours=30)).isoformat()  # when it was due, not when it ran
    assert len(entries(shop, action="annotate")) == 1


@pytest.mark.slow
def test_the_scheduler_does_what_a_process_that_is_no_more_has_left(shop, watched, start):
    path = shop.root / "environments/dev/monitor.yml"
    path.write_text(MONITOR.replace("interval: 1}", 'interval: 1, start_time: "2199-01-01T00:00:00"}'))
    monitor, noon = load_monitor(path), dt.datetime.now(dt.UTC)
    conclude(shop, monitor, Deployment("stones", "blue", "model:dev.stones/1", "dev"), (noon - dt.timedelta(hours=3), noon),
             [Signal(**DRIFT)], policy_of(monitor))  # fmt: skip
    waiting = start(group="monitor")
    waiting.until("annotate deployment:dev.stones/blue done")
    assert waiting.stop() == 0
    assert len(queue.read(shop, "stones")) == 1


def test_a_monitors_own_properties_are_no_fault_a_scenarios_are(shop, watched):
    assert find_schedules(shop, ["stones_dev"])[0].endpoint == "stones"
    nightly = shop.root / "environments" / "dev" / "schedules" / "nightly.yml"
    nightly.parent.mkdir()
    nightly.write_text('name: nightly\nproperties: {mlops_nb.minimum_rows: "1"}\ntrigger: {type: cron, expression: "0 2 * * *"}\n'
                       "create_job: ../../../ci/pipelines/shop.yml\n")  # fmt: skip
    with pytest.raises(ValueError, match=r"'mlops_nb\.minimum_rows' means nothing here"):
        find_schedules(shop)
