"""What monitors saw: each window once, all of it or nothing, and what people said about it."""

import datetime as dt
import math
import sqlite3
import subprocess
import sys
from dataclasses import replace

import pytest

from mlops_nb.core.ledger import entries
from mlops_nb.core.records import Alert, Signal, SpecificationError
from mlops_nb.outer_loop import history
from mlops_nb.outer_loop.history import Action, Notice

BLUE, GREEN, DAY = "deployment:dev.diamonds/blue", "deployment:dev.diamonds/green", dt.timedelta(days=1)
NOON = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)
DRIFT = Signal("inputs", "data_drift", "carat", "jensen_shannon_distance", 0.4, 0.2, True, detail={"rows": 200})
CALM = replace(DRIFT, value=0.05, breached=False)


def see(settings, day=0, signals=(DRIFT,), deployment=BLUE, **more):
    """Record the window of a day, with an alert if a signal is breached."""
    window = (NOON + (day - 1) * DAY, NOON + day * DAY)
    loud = [signal for signal in signals if signal.breached]
    alert = Alert("diamonds_dev", deployment, tuple(map(history.moment, window)), loud, ["retrain"]) if loud else None
    return history.record(settings, "diamonds_dev", deployment, window, list(signals), **{"alert": alert} | more)


def test_nothing_was_seen_in_a_new_project(project):
    assert history.windows(project) == history.alerts(project) == history.actions(project) == history.notices(project) == []
    assert history.points(project, "diamonds_dev") == []
    assert not history.history_file(project).exists()


def test_a_window_is_recorded_once_whatever_time_zone_it_is_written_in(project):
    assert see(project) == 1
    zone = dt.timezone(dt.timedelta(hours=5, minutes=30))
    again = (NOON - DAY).astimezone(zone), NOON.astimezone(zone)
    assert history.record(project, "diamonds_dev", BLUE, again, [DRIFT]) is None
    assert history.record(project, "diamonds_dev", GREEN, again, [DRIFT]) == 2
    assert history.record(project, "other", BLUE, again, [DRIFT]) == 3
    assert len(history.points(project, "diamonds_dev")) == 2


def test_a_look_that_counts_takes_the_place_of_a_backfilled_window(project):
    see(project, 0, [CALM], backfilled=True)
    assert see(project, 0, [CALM, DRIFT])
    assert see(project, 0, [CALM], backfilled=True) is None
    assert [(seen.state, seen.backfilled) for seen in history.windows(project)] == [("alert", False)]
    assert len(history.points(project, "diamonds_dev")) == 2


def test_processes_that_look_at_the_same_window_record_it_once(project):
    code = f"""
import datetime as dt
from mlops_nb.core.settings import load_settings
from mlops_nb.outer_loop.history import record
settings, at, hour = load_settings(root={str(project.root)!r}), dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.timedelta(hours=1)
print(sum(record(settings, "m", "d", (at + n * hour, at + n * hour + hour), []) is not None for n in range(30)))
"""
    workers = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert sum(int(worker.communicate()[0]) for worker in workers) == 30 == len(history.windows(project))


def test_a_window_its_alert_its_actions_and_its_notices_are_written_together_or_not_at_all(project):
    twice = [Action("same", "", "annotate", BLUE, ""), Action("same", "", "retrain", BLUE, "")]
    with pytest.raises(sqlite3.IntegrityError):
        see(project, actions=twice, notices=[Notice("", "", "t", "b", "env:X")])
    assert history.windows(project) == history.alerts(project) == history.actions(project) == history.notices(project) == []
    assert see(project, actions=twice[:1], notices=[Notice("", "", "t", "b", "env:X"), Notice("", "", "t", "b", "env:Y")]) == 1
    [raised], [action], told = history.alerts(project), history.actions(project), history.notices(project)
    assert {raised.id, action.alert, *(notice.alert for notice in told)} == {raised.id}
    assert len({notice.id for notice in told}) == 2


def test_points_are_found_by_what_they_are_of_the_oldest_first(project):
    other = replace(DRIFT, feature="depth", value=math.inf, detail={"examples": [{"correlationid": "a_0", "score": 1.0, "why": "new"}]})
    lost = Signal("inputs", "data_drift", "cut", "jensen_shannon_distance", None, None, False, "no such column", "color=D")
    for day in (3, 1, 2):
        see(project, day, [replace(DRIFT, value=day / 10), other, lost])
    assert [point.value for point in history.points(project, "diamonds_dev", feature="carat")] == [0.1, 0.2, 0.3]
    assert [point.value for point in history.points(project, "diamonds_dev", feature="carat", last=2)] == [0.2, 0.3]
    [_, _, point] = history.points(project, "diamonds_dev", BLUE, "inputs", "depth", "jensen_shannon_distance")
    assert (point.value, point.detail, point.breached, point.deployment) == (math.inf, other.detail, True, BLUE)
    [_, _, point] = history.points(project, "diamonds_dev", feature="cut")
    assert (point.value, point.threshold, point.problem, point.segment) == (None, None, "no such column", "color=D")
    assert history.points(project, "diamonds_dev", GREEN) == history.points(project, "other") == []


@pytest.mark.parametrize(("signals", "state"), [
    ([DRIFT], "alert"), ([CALM], "quiet"), ([replace(CALM, value=None)], "idle"),
    ([replace(CALM, value=None), CALM], "quiet")])  # fmt: skip
def test_a_windows_state_is_what_its_signals_say(project, signals, state):
    see(project, 0, signals)
    assert [seen.state for seen in history.windows(project)] == [state]


def test_a_signal_that_failed_and_told_nobody_makes_the_window_failed(project):
    see(project, 0, [replace(DRIFT, value=None)], alert=None)
    assert history.windows(project)[0].state == "failed"


def test_an_alert_is_acknowledged_snoozed_and_opens_again(project, monkeypatch):
    see(project)
    [raised] = history.alerts(project)
    assert raised.state == "open"
    assert raised.alert.signals == [DRIFT]
    seen = history.acknowledge(project, raised.id[:3], "on it")
    assert (seen.state, seen.by, seen.reason) == ("acknowledged", project.user, "on it")
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=5)
    assert history.snooze(project, raised.id, "a fair", soon).state == "snoozed"
    assert history.alerts(project, state="open") == []
    monkeypatch.setattr(history, "now", lambda: (soon + DAY).isoformat())
    assert [one.state for one in history.alerts(project, state="open")] == ["open"]
    assert history.resolve(project, raised.id, "done").state == "resolved"
    with pytest.raises(SpecificationError, match="is resolved; there is nothing left to snooze"):
        history.snooze(project, raised.id, until=soon + 2 * DAY)
    verbs = [(entry.action, entry.details["alert"]) for entry in entries(project, BLUE)]
    assert verbs == [(verb, raised.id) for verb in ("acknowledge", "snooze", "resolve")]


def test_nobody_without_the_right_answers_an_alert(project):
    see(project)
    with pytest.raises(PermissionError, match="model_end_user may not monitor"):
        history.acknowledge(project.model_copy(update={"persona": "model_end_user"}), history.alerts(project)[0].id)


def test_ids_are_found_by_their_beginning(project):
    for name in ("abc1", "abd2"):
        see(project, len(history.windows(project)), actions=[Action(name, "", "annotate", BLUE, "")])
    assert history.find_id(project, "action", "abc") == "abc1"
    for text, said in (("ab", r"2 actions 'ab' in dev \(actions: abc1, abd2\)"), ("x", r"No action 'x' in dev"), ("", "No action ''")):
        with pytest.raises(SpecificationError, match=said):
            history.find_id(project, "action", text)


def test_a_quiet_window_ends_the_alerts_before_it_on_every_deployment_of_the_endpoint(project):
    see(project, 0)
    see(project, 2)
    other = "deployment:dev.diamonds2/blue"
    see(project, 0, deployment=other)
    see(project, 1, [CALM], GREEN)
    assert [(raised.alert.deployment, raised.state) for raised in history.alerts(project)] == [
        (BLUE, "resolved"), (BLUE, "open"), (other, "open")]  # fmt: skip
    see(project, 3, [CALM], GREEN, backfilled=True)
    assert len(history.alerts(project, state="open")) == 2


def test_alerts_reach_the_ledger_once(project):
    see(project, model="model:dev.diamonds/1")
    history.log_alerts(project)
    with history.transaction(project) as database:  # killed between writing the entry and noting that it was written
        database.execute("UPDATE alerts SET logged = 0")
    assert history.has_unlogged(project)
    assert history.log_alerts(project) == []
    assert not history.has_unlogged(project)
    [entry] = entries(project, action="alert")
    assert (entry.subject, entry.inputs, entry.details["next"]) == (BLUE, ["model:dev.diamonds/1"], ["retrain"])


def test_an_action_belongs_to_one_living_process(project):
    see(project, actions=[Action("a1", "", "annotate", BLUE, "")])
    hold = f"""
import sys
from mlops_nb.core.settings import load_settings
from mlops_nb.outer_loop.history import begin_action
print(begin_action(load_settings(root={str(project.root)!r}), "a1").state, flush=True)
sys.stdin.read()
"""
    holder = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "running\n"
    assert history.begin_action(project, "a1") is None
    assert history.is_claimed(project, "a1")
    holder.kill()
    holder.wait()
    assert history.begin_action(project, "a1").state == "running"
    assert history.end_action(project, "a1", "done", run="r", items=3).details == {"items": 3}
    assert history.begin_action(project, "a1") is None
    assert history.actions(project, state="done")[0].run == "r"


def test_a_delivery_is_claimed_noted_and_counted(project):
    see(project, notices=[Notice("n1", "", "t", "b", "env:X")])
    [notice] = history.notices(project)
    assert history.claim_notice(project, notice).attempts == 0
    assert history.claim_notice(project, notice) is None
    later = history.note_delivery(project, "n1", "waiting", "no answer", "2026-11-20T13:00:00+00:00")
    assert (later.attempts, later.due, later.problem) == (1, "2026-11-20T13:00:00+00:00", "no answer")
    assert history.claim_notice(project, notice) is None  # whoever read it before that does not try again at once
    assert history.claim_notice(project, later)
    assert history.note_delivery(project, "n1", "sent").attempts == 2
    assert history.claim_notice(project, later) is None
    assert history.notices(project, "waiting") == []


def test_a_history_of_a_later_version_is_not_touched(project):
    see(project)
    with history.open_history(project) as database:
        database.execute("PRAGMA user_version = 9")
    with pytest.raises(SpecificationError, match=r"dev\.db has format 9"):
        history.windows(project)
