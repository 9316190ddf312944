"""From a signal to what is done about it: decided once, done once, by whoever may."""

import datetime as dt
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mlops_nb.core import queue
from mlops_nb.core.ledger import entries, verify
from mlops_nb.core.pipeline import run_pipeline
from mlops_nb.core.plan import Request
from mlops_nb.core.records import Deployment, PeopleNeeded, Signal, SpecificationError, StepFailed, save_record
from mlops_nb.core.runs import list_runs, new_run, note
from mlops_nb.core.specification import read_pipeline
from mlops_nb.core.trigger import Trigger
from mlops_nb.outer_loop import history
from mlops_nb.outer_loop.actions import approve, carry_out, conclude, is_something_left, make_patch, refuse
from mlops_nb.outer_loop.monitor import Monitor, Watch
from mlops_nb.outer_loop.policy import Limits, Policy

NOON, DAY = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC), dt.timedelta(days=1)
BLUE = Deployment("diamonds", "blue", "model:dev.diamonds/1", "dev", traffic=100)
WATCHES = Watch("inputs", "data_drift", {}, alert=True), Watch("silent", "data_drift", {})
MONITOR = Monitor("diamonds_dev", Path("monitor.yml"), "diamonds", "blue", "regression", WATCHES, Trigger("UTC", dt.UTC))
DRIFT = Signal("inputs", "data_drift", "carat", "jensen_shannon_distance", 0.4, 0.2, True)
CALM = replace(DRIFT, value=0.05, breached=False)
RETRAIN = Policy.model_validate({"rules": [{"then": "retrain", "mode": "automatic"}]})
JOBS = """\
  train: {component: ../components/shop_20_train.yml, inputs: {rows: "${{parent.inputs.rows}}"}}
  deploy: {component: ../components/shop_40_deploy.yml, inputs: {model: "${{parent.jobs.train.outputs.model}}"}}
"""
TRAIN = """
from pathlib import Path
from mlops_nb.core.records import PeopleNeeded
open("trained.txt", "a").write(f"{rows}\\n")
if Path("broken").exists(): raise ValueError("no such luck")
if Path("gate").exists(): raise PeopleNeeded("waits for a person")
open(model, "w").write("1")
"""
DEPLOY = "open(deployed, 'w').write('{}')"


def start(settings, scenario, values, **request):
    """Run a scenario as the command does, without showing it."""
    return run_pipeline(settings, read_pipeline(settings.root / "ci" / "pipelines" / f"{scenario}.yml"), values, Request(**request))


@pytest.fixture
def deployed(project, lay):
    """Lay a scenario, and a run of it that has deployed: it is what makes this endpoint's models."""
    lay(JOBS, _20_train=("rows: int = 1\nmodel: Output = ''", TRAIN), _40_deploy=("model: Input = ''\ndeployed: Output = ''", DEPLOY))
    run = new_run(project, "shop", {"rows": 7}, {"train": [], "deploy": ["train"]}, project.root)
    save_record(BLUE, run.output("deploy", "deployed"))
    for step in run.planned:
        note(run, step, "done")
    return project


def look(settings, day=0.0, signals=(DRIFT,), policy=RETRAIN, deployment=BLUE, **more):
    return conclude(settings, MONITOR, deployment, (NOON + (day - 1) * DAY, NOON + day * DAY), list(signals), policy, **more)


def states(settings):
    return [(action.kind, action.state) for action in history.actions(settings)]


def test_a_window_leads_to_an_alert_an_action_and_a_notice_once(project):
    alert = look(project, rows=200)
    assert (alert.actions, alert.window[1], alert.signals) == (["retrain"], "2026-11-20T12:00:00+00:00", [DRIFT])
    assert look(project, rows=200) == alert
    assert (len(history.windows(project)), len(history.alerts(project)), states(project)) == (1, 1, [("retrain", "planned")])
    [notice] = history.notices(project)
    assert notice.alert == alert.id
    [entry] = entries(project, action="alert")
    assert (entry.subject, entry.inputs, entry.details["alert"]) == (BLUE.uri, ["model:dev.diamonds/1"], alert.id)


def test_only_signals_that_may_alarm_do(project):
    assert look(project, signals=[CALM, replace(DRIFT, name="silent")]) is None
    assert history.windows(project)[0].state == "quiet"
    assert states(project) == []
    assert history.notices(project) == []


def test_a_window_of_the_past_is_history_and_leads_to_nothing(project, monkeypatch):
    twice = Policy.model_validate({"rules": [{"then": "annotate", "breaches": {"at_least": 2, "of": 2}}]})
    assert look(project, 0, policy=twice, backfilled=True) is None
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT", '{"mlops_nb.backfilled": "true"}')
    assert look(project, 1, policy=twice) is None
    monkeypatch.delenv("MLFLOW_RUN_CONTEXT")
    assert [(seen.state, seen.backfilled) for seen in history.windows(project)] == [("alert", True)] * 2
    assert states(project) == []
    assert history.notices(project) == history.alerts(project) == entries(project, action="alert") == []
    assert look(project, 2, policy=twice).actions == ["annotate"]  # the second window in a row


def test_a_retraining_is_the_run_that_deployed_made_again(deployed):
    alert = look(deployed)
    [action] = carry_out(deployed, start)
    [first, run] = list_runs(deployed, "shop")
    assert (action.state, action.run, run.state, run.values) == ("done", run.id, "done", first.values)
    assert [run.steps[step] for step in run.planned] == ["done", "done"]
    assert Path("trained.txt").read_text() == "7\n"
    [entry] = entries(deployed, action="retrain")
    assert (entry.outputs, entry.details["alert"], entry.details["state"]) == ([f"run:{run.id}"], alert.id, "done")
    assert carry_out(deployed, start) == []
    assert not is_something_left(deployed)
    assert verify(deployed) == []


def test_a_policy_names_another_scenario_and_other_values(deployed):
    look(deployed, policy=RETRAIN.model_copy(update={"retrain": RETRAIN.retrain.model_copy(update={"inputs": {"rows": 12}})}))
    assert carry_out(deployed, start)[0].state == "done"
    assert Path("trained.txt").read_text() == "12\n"
    look(deployed, 1, policy=RETRAIN.model_copy(update={"retrain": RETRAIN.retrain.model_copy(update={"scenario": "mall"})}))
    [action] = carry_out(deployed, start)
    assert action.state == "failed"
    assert "No scenario 'mall'" in action.details["problem"]
    assert "shop" in action.details["problem"]


def test_what_no_scenario_deployed_is_watched_but_not_retrained(project):
    look(project)
    [action] = carry_out(project, start)
    assert action.state == "failed"
    assert "No run of a scenario has deployed deployment:dev.diamonds/blue" in action.details["problem"]


def test_a_retraining_that_waits_at_a_gate_is_not_begun_again_and_ends_with_its_run(deployed):
    Path("gate").touch()
    look(deployed)
    [action] = carry_out(deployed, start)
    assert (action.state, action.details["run_state"]) == ("running", "waiting")
    assert "waits for a person" in action.details["problem"]
    assert carry_out(deployed, start) == []
    assert not is_something_left(deployed)
    assert len(list_runs(deployed, "shop")) == 2
    held = look(deployed, 1)
    assert held.actions == []
    assert f"retraining {action.id} is running" in history.actions(deployed, state="held")[0].reason
    Path("gate").unlink()
    start(deployed, "shop", None, run_id=action.run, start="train")  # as a person does
    assert is_something_left(deployed)
    assert carry_out(deployed, start)[0].state == "done"


def test_a_retraining_that_fails_says_so(deployed):
    Path("broken").touch()
    look(deployed)
    [action] = carry_out(deployed, start)
    assert action.state == "failed"
    assert "no such luck" in action.details["problem"]
    assert entries(deployed, action="retrain")[0].details["state"] == "failed"


def test_a_stopped_retraining_goes_on_with_the_run_that_it_had(deployed):
    def stop(*given, **request):
        raise KeyboardInterrupt

    look(deployed)
    with pytest.raises(KeyboardInterrupt):
        carry_out(deployed, stop)
    [action] = history.actions(deployed)
    assert action.state == "planned"
    assert action.run
    assert is_something_left(deployed)
    assert carry_out(deployed, start)[0].state == "done"
    assert [run.state for run in list_runs(deployed, "shop")] == ["done", "done"]


def test_a_scenario_that_is_at_work_already_makes_the_action_wait(deployed):
    from mlops_nb.core.files import hold

    look(deployed)
    with hold(deployed.runs / "dev.shop.lock"):
        code = "from test_actions import *; from mlops_nb.core.settings import load_settings; print(states(s := load_settings())," \
               " carry_out(s, start)[0].details['problem'], states(s))"  # fmt: skip
        folder = {"PYTHONPATH": str(Path(__file__).parent)}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=folder)
    assert "is held by process" in done.stdout, done.stdout + done.stderr
    assert done.stdout.count("planned") == 2
    assert len(list_runs(deployed, "shop")) == 1
    assert carry_out(deployed, start)[0].state == "done"


def test_two_monitors_at_the_same_time_retrain_an_endpoint_once(project):
    code = """
import sys
from test_actions import *
from mlops_nb.core.settings import load_settings
settings, name = load_settings(), sys.argv[1]
for day in range(6):
    conclude(settings, replace(MONITOR, name=name), BLUE, (NOON + (day - 1) * DAY, NOON + day * DAY), [DRIFT], RETRAIN)
"""
    folder = {"PYTHONPATH": str(Path(__file__).parent)}
    workers = [subprocess.Popen([sys.executable, "-c", code, name], env=folder, stderr=subprocess.PIPE) for name in ("one", "two")]
    assert [worker.wait() for worker in workers] == [0, 0], [worker.stderr.read() for worker in workers]
    assert sorted(states(project)) == [("retrain", "held")] * 11 + [("retrain", "planned")]


def test_a_supervised_action_waits_for_a_person_who_may(deployed):
    look(deployed, policy=Policy.model_validate({"rules": [{"then": "retrain"}]}))
    [action] = history.actions(deployed)
    assert action.state == "waiting"
    assert carry_out(deployed, start) == []
    with pytest.raises(PermissionError, match="monitoring_process may not approve"):
        approve(deployed.model_copy(update={"persona": "monitoring_process"}), action.id)
    with pytest.raises(ValueError, match="needs a reason"):
        refuse(deployed, action.id, "")
    ann = deployed.model_copy(update={"user": "ann", "persona": "project_lead"})
    assert approve(ann, action.id[:4], "the market has changed").state == "planned"
    with pytest.raises(SpecificationError, match="is planned"):
        refuse(ann, action.id, "too late")
    analyst = deployed.model_copy(update={"persona": "data_analyst"})  # may monitor, may not train
    assert carry_out(analyst, start) == []
    assert not is_something_left(analyst)
    assert is_something_left(deployed)
    [done] = carry_out(deployed, start)
    assert (done.state, done.details["by"], done.details["answer"]) == ("done", "ann", "the market has changed")
    [entry] = entries(deployed, action="approve")
    assert (entry.subject, entry.user, entry.details["reason"]) == (f"action:dev.{action.id}", "ann", "the market has changed")


def test_what_was_held_may_be_approved_but_not_beside_another(deployed):
    look(deployed)
    look(deployed, 1)
    [held] = history.actions(deployed, state="held")
    with pytest.raises(SpecificationError, match=r"of this endpoint is planned\. Approve"):
        approve(deployed, held.id)
    carry_out(deployed, start)
    look(deployed, 2, policy=RETRAIN.model_copy(update={"limits": Limits(cool_down="P1D")}))
    assert "was done at" in history.actions(deployed, state="held")[-1].reason  # the pause after a retraining
    approve(deployed, held.id)
    assert [action.state for action in carry_out(deployed, start)] == ["done"]
    assert len(list_runs(deployed, "shop")) == 3
    look(deployed, 3, policy=RETRAIN.model_copy(update={"limits": Limits(retrainings=2)}))
    assert "the budget is 2 retrainings" in history.actions(deployed, state="held")[-1].reason


def collect(settings, collection, column, rows):
    hour = settings.collected / "diamonds" / "blue" / collection / "2026/11/20/11"
    hour.mkdir(parents=True)
    events = [{"specversion": "1.0", "id": str(n), "time": "2026-11-20T11:30:00Z", "correlationid": f"r{n}", "modelversion": "1",
               "data": [{column: row}]} for n, row in enumerate(rows)]  # fmt: skip
    (hour / "one.jsonl").write_text("\n".join(map(json.dumps, events)))


def named(rows, why="changed most"):
    return {"examples": [{"correlationid": f"r{n}_0", "score": score, "why": why} for n, score in rows]}


def test_the_worst_rows_of_every_signal_go_to_people_in_turns(project):
    collect(project, "model_inputs", "text", [f"text {n}" for n in range(50)])
    collect(project, "model_outputs", "label", ["spam"] * 50)
    signals = [replace(DRIFT, detail=named([(n, n / 50) for n in range(40, 50)])),
               replace(DRIFT, metric="accuracy", detail=named([(3, 9.0), (49, 8.0), (4, 7.0)], "answered spam"))]  # fmt: skip
    policy = Policy.model_validate({"rules": [{"then": "annotate"}], "annotate": {"queue": "texts", "examples": 5}})
    look(project, signals=signals, policy=policy)
    [action] = carry_out(project, start)
    items = queue.read(project, "texts")
    assert [item.id for item in items] == ["r49_0", "r3_0", "r48_0", "r47_0", "r4_0"]
    assert (items[1].data, items[1].prediction, items[1].why) == ({"text": "text 3"}, "spam", "answered spam")
    assert (action.details["new"], items[0].source) == (5, BLUE.uri)
    look(project, 0.5, signals=signals, policy=policy)  # a window that overlaps this one: no row is asked for twice
    assert carry_out(project, start)[0].details["new"] == 0
    assert len(queue.read(project, "texts")) == 5


def test_without_named_rows_the_least_certain_answers_go_to_people(project):
    collect(project, "model_inputs", "x", list(range(20)))
    hour = project.collected / "diamonds" / "blue" / "model_outputs" / "2026/11/20/11"
    hour.mkdir(parents=True)
    events = [{"specversion": "1.0", "id": str(n), "time": "2026-11-20T11:30:00Z", "correlationid": f"r{n}", "modelversion": "1",
               "data": [{"probability_no": 1 - n / 40, "probability_yes": n / 40}]} for n in range(20)]  # fmt: skip
    (hour / "one.jsonl").write_text("\n".join(map(json.dumps, events)))
    look(project, policy=Policy.model_validate({"rules": [{"then": "annotate"}], "annotate": {"examples": 3}}))
    assert carry_out(project, start)[0].state == "done"
    assert [item.id for item in queue.read(project, "diamonds")] == ["r19_0", "r18_0", "r17_0"]


def test_an_annotation_without_rows_fails_with_the_reason(project):
    look(project, signals=[replace(DRIFT, detail=named([(1, 1.0)]))], policy=Policy.model_validate({"rules": [{"then": "annotate"}]}))
    [action] = carry_out(project, start)
    assert action.state == "failed"
    assert "none of the 1 rows that they name" in action.details["problem"]


@pytest.mark.parametrize(("path", "value", "after"), [
    ("/instance_count", 3, "instance_count: 3 # how many\n"),
    ("/scale_settings/max_instances", 8, "{type: target_utilization, max_instances: 8}"),
    ("scale_settings.min_instances", 2, "{type: target_utilization, max_instances: 4, min_instances: 2}"),
    ("/limits/memory", "2Gi", "  cpu: 1 # cores\n  memory: 2Gi\n"),
    ("/tags/team", "a: b", "'a: b' # quoted\n")])  # fmt: skip
def test_a_change_of_a_file_is_a_patch_that_applies_and_keeps_the_comments(project, path, value, after):
    import yaml

    text = ("# the deployment\ninstance_count: 1 # how many\nscale_settings: {type: target_utilization, max_instances: 4}\n"
            "limits:\n  cpu: 1 # cores\n\ntags:\n  team: 'x' # quoted\n")  # fmt: skip
    file = project.root / "environments" / "dev" / "shop.yml"
    file.write_text(text)
    patch = project.root / "change.patch"
    patch.write_text(make_patch(project, [{"file": "shop.yml", "path": path, "value": value}]))
    applied = subprocess.run(["git", "apply", str(patch)], cwd=project.root, capture_output=True, text=True)
    assert applied.returncode == 0, applied.stderr
    assert after in file.read_text()
    node = yaml.safe_load(file.read_text())
    for key in path.replace(".", "/").strip("/").split("/"):
        node = node[key]
    assert node == value
    assert file.read_text().count("#") == text.count("#")


def test_a_change_of_what_is_not_there_is_refused(project):
    with pytest.raises(ValueError, match=r"no file nowhere\.yml"):
        make_patch(project, [{"file": "nowhere.yml", "path": "/a", "value": 1}])
    with pytest.raises(ValueError, match=r"deployment\.yml: no 'sizes'"):
        make_patch(project, [{"file": "deployment.yml", "path": "/sizes/big", "value": 1}])
    with pytest.raises(ValueError, match="no file"):
        make_patch(project, [{"file": "/etc/hostname", "path": "/a", "value": 1}])


def test_an_idle_endpoint_is_removed_only_when_a_person_says_so(project):
    look(project, signals=[replace(DRIFT, type="custom", detail={"propose": "retire"})], policy=Policy.model_validate(
        {"rules": [{"when": {"signal": "other"}, "then": "tell"}]}))  # fmt: skip
    assert carry_out(project, start) == []
    [action] = history.actions(project)
    proposal = project.state / "monitors" / "dev" / "proposals" / f"{action.id}.md"
    assert action.state == "waiting"
    assert f"mlops-nb monitor approve {action.id}" in proposal.read_text()
    approve(project, action.id)
    assert carry_out(project, start)[0].details["removed"] == "nothing: the endpoint is no longer there"


def test_a_diagnosis_that_says_wait_is_followed(project):
    from types import SimpleNamespace

    winter = SimpleNamespace(recommendation="wait", sentence="The same days of last year looked the same.")
    assert look(project, diagnosis=winter, report="why.html").actions == ["investigate"]
    [action] = carry_out(project, start)
    assert (action.state, action.details["report"]) == ("done", "why.html")
    assert "last year" in action.reason
    advise = RETRAIN.model_copy(update={"diagnosis": "advise"})
    assert look(project, 1, diagnosis=winter, policy=advise).actions == ["retrain"]


@pytest.mark.parametrize("problem", [StepFailed("it broke"), PeopleNeeded("wait")])
def test_a_run_that_cannot_begin_is_told_by_its_own_state(deployed, problem):
    def refuse_to_run(*given, **request):
        raise problem

    look(deployed)
    [action] = carry_out(deployed, refuse_to_run)
    assert action.state == "failed"
    assert action.details["problem"] == str(problem)
