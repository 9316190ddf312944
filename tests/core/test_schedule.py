"""Schedules: Azure ML's trigger block means what it means there; what it would pass over in silence is refused."""

import datetime as dt
import shutil
import sys
from pathlib import Path

import pytest

from mlops_nb.core.ledger import entries, log
from mlops_nb.core.records import SpecificationError
from mlops_nb.core.schedule import (
    Claim,
    Schedule,
    State,
    find_schedules,
    hold_schedule,
    load_state,
    outlook,
    read_schedule,
    save_state,
    switch,
    take_up,
    why_now,
)
from mlops_nb.core.settings import Settings, load_settings
from mlops_nb.core.trigger import in_words, next_times

ROOT = Path(__file__).resolve().parents[2]
NIGHTLY = 'type: cron, expression: "0 2 * * *"'


@pytest.fixture
def project(project: Settings) -> Settings:
    """Lay the classical scenario into the project, and take the schedules out of it."""
    for part in ("ci/pipelines", "ci/components", "nbs/scenarios"):
        shutil.copytree(ROOT / part, project.root / part)
    shutil.rmtree(project.root / "environments/dev/schedules")
    return project


CLASSICAL = "create_job: ../../../ci/pipelines/classical.yml"


def lay(project: Settings, trigger: str = NIGHTLY, job: str = CLASSICAL, more: str = "") -> Path:
    path = project.root / "environments/dev/schedules/one.yml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"name: one\ntrigger: {{{trigger}}}\n{job}\n{more}")
    return path


def faults(project: Settings, **parts: str) -> list[str]:
    path = lay(project, **parts)
    with pytest.raises(SpecificationError) as problem:
        read_schedule(project, path)
    return [fault.removeprefix(f"{path}:") for fault in problem.value.faults]


def at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


DAILY = "type: recurrence, frequency: day, interval: 1, time_zone: Europe/Berlin, schedule: {hours: [2], minutes: [30]}"

# trigger, taken up and asked at (UTC), the next times (UTC where they say nothing)
TIMES = [
    # cron: Sunday is 0, names in any case, lists, ranges, steps
    ('type: cron, expression: "0 9 * * 0"', "2027-01-01T00:00", ["2027-01-03T09:00", "2027-01-10T09:00"]),
    ('type: cron, expression: "15 9 * * MON,Friday"', "2027-01-01T09:15", ["2027-01-04T09:15", "2027-01-08T09:15"]),
    ('type: cron, expression: "*/25 7-9/2 * * 1-5"', "2027-01-01T07:30",
     ["2027-01-01T07:50", "2027-01-01T09:00", "2027-01-01T09:25", "2027-01-01T09:50", "2027-01-04T07:00"]),
    # the clock: 02:30 does not exist on 28 March, and comes twice on 31 October
    ('type: cron, expression: "30 2 * * *", time_zone: Europe/Berlin', "2027-03-27T12:00",
     ["2027-03-28T03:30+02:00", "2027-03-29T02:30+02:00"]),
    ('type: cron, expression: "30 2 * * *", time_zone: W. Europe Standard Time', "2027-10-30T12:00",
     ["2027-10-31T02:30+02:00", "2027-11-01T02:30+01:00"]),
    ('type: cron, expression: "30 * * * *", time_zone: Europe/Berlin', "2027-10-31T00:00",
     ["2027-10-31T02:30+02:00", "2027-10-31T02:30+01:00", "2027-10-31T03:30+01:00"]),
    (DAILY, "2027-03-27T12:00",
     ["2027-03-28T03:30+02:00", "2027-03-29T02:30+02:00"]),
    (DAILY, "2027-10-30T12:00",
     ["2027-10-31T02:30+02:00", "2027-11-01T02:30+01:00"]),
    ('type: recurrence, frequency: hour, interval: 2, time_zone: Europe/Berlin, start_time: "2027-10-31T00:00:00"', "2027-10-30T22:00",
     ["2027-10-31T02:00+02:00", "2027-10-31T03:00+01:00"]),
    # minutes and hours: counted from the start, whatever pattern there is
    ("type: recurrence, frequency: minute, interval: 7, schedule: {hours: [3], minutes: [0]}", "2027-01-01T00:01",
     ["2027-01-01T00:08", "2027-01-01T00:15"]),
    ('type: recurrence, frequency: hour, interval: 5, start_time: "2020-01-01T00:30:00"', "2027-01-01T00:00", ["2027-01-01T02:30"]),
    # days, weeks, months: counted from the start, too
    ('type: recurrence, frequency: day, interval: 3, start_time: "2026-12-30T10:15:00"', "2027-01-01T00:00",
     ["2027-01-02T10:15", "2027-01-05T10:15"]),
    ('type: recurrence, frequency: week, interval: 2, start_time: "2026-12-30T10:15:00"', "2027-01-01T00:00",
     ["2027-01-13T10:15", "2027-01-27T10:15"]),
    ('type: recurrence, frequency: week, interval: 2, start_time: "2026-12-30T00:00:00", '
     "schedule: {hours: [3, 15], minutes: 0, week_days: [Monday, thursday]}", "2027-01-01T00:00",
     ["2027-01-11T03:00", "2027-01-11T15:00", "2027-01-14T03:00", "2027-01-14T15:00", "2027-01-25T03:00"]),
    ('type: recurrence, frequency: month, interval: 1, start_time: "2027-01-31T04:00:00"', "2027-02-01T00:00",
     ["2027-03-31T04:00", "2027-05-31T04:00"]),
    ("type: recurrence, frequency: month, interval: 1, schedule: {hours: [4], minutes: [0], month_days: [31, 15]}", "2027-02-01T00:00",
     ["2027-02-15T04:00", "2027-03-15T04:00", "2027-03-31T04:00"]),
    ("type: recurrence, frequency: month, interval: 2, schedule: {hours: [4], minutes: [0], week_days: friday}", "2027-02-20T00:00",
     ["2027-02-26T04:00", "2027-04-02T04:00"]),
    # a start to come, an end that has come
    ('type: cron, expression: "0 2 * * *", start_time: "2027-01-05T02:00:00", end_time: "2027-01-06T02:00:00"', "2027-01-01T00:00",
     ["2027-01-05T02:00", "2027-01-06T02:00"]),
    ('type: recurrence, frequency: hour, interval: 1, end_time: "2027-01-01T01:00:00"', "2027-01-01T00:00", ["2027-01-01T01:00"]),
]


@pytest.mark.parametrize(("trigger", "when", "expected"), TIMES)
def test_the_next_times(project, trigger, when, expected):
    schedule = read_schedule(project, lay(project, trigger))
    ends = len(expected) + (1 if "end_time" in trigger else 0)
    found = list(next_times(schedule.trigger, at(when), at(when), ends))
    assert [moment.isoformat(timespec="minutes").removesuffix("+00:00") for moment in found] == expected


def test_years_of_days_cost_nothing(project):
    started = 'type: recurrence, frequency: day, interval: 1, start_time: "1990-01-01T00:00:00"'
    times = f"{started}, schedule: {{hours: {list(range(24))}, minutes: {list(range(60))}}}"
    schedule = read_schedule(project, lay(project, times))
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        assert len(list(next_times(schedule.trigger, at("2027-01-01T00:00"), at("2027-01-01T00:00"), 10))) == 10
    finally:
        sys.setprofile(None)
    assert calls < 1_000_000, "it does not go through the 19 million minutes since then"


WRONG = [
    ('type: cron, expression: "0 3 * *"', "2: expression: '0 3 * *' has 4 fields"),
    ('type: cron, expression: "0 3 1 * *"', "2: expression: days '1': Azure ML takes any value here for *"),
    ('type: cron, expression: "0 3 * jan *"', "2: expression: months 'jan'"),
    ('type: cron, expression: "0 3 * * 7"', "2: expression: days of the week '7': 7 is not between 0 and 6"),
    ('type: cron, expression: "0 3 * * fri-mon"', "2: expression: days of the week 'fri-mon': a range runs upwards"),
    ('type: cron, expression: "*/0 24 * * *"', "2: expression: minutes '*/0'"),
    ('type: cron, expression: "0 3 * * last"', "2: expression: days of the week 'last'"),
    (f"{NIGHTLY}, time_zone: Middle-earth", "2: no time zone 'Middle-earth'"),
    (f"{NIGHTLY}, start_time: 2027-01-01T00:00:00", "2: start_time 2027-01-01 00:00:00: write it in quotes"),
    (f'{NIGHTLY}, start_time: "2027-01-01T00:00:00-04:00"', "2: start_time 2027-01-01T00:00:00-04:00: write it in quotes, as"),
    (f'{NIGHTLY}, start_time: "2027-02-01T00:00:00", end_time: "2027-01-01T00:00:00"', "2: the end does not come after the start"),
    (f"{NIGHTLY}, interval: 1", "2: 'interval' means nothing here"),
    ("type: sometimes", "2: a `trigger:` of type recurrence or cron is expected"),
    ("type: recurrence, frequency: year, interval: 1", "2: frequency 'year'"),
    ("type: recurrence, frequency: day, interval: 0", "2: interval 0"),
    ("type: recurrence, frequency: day, interval: 1, schedule: {hours: [24], minutes: [0]}", "2: hours 24: 0 to 23"),
    ("type: recurrence, frequency: day, interval: 1, schedule: {hours: [2]}", "2: schedule: Azure ML wants both"),
    ("type: recurrence, frequency: week, interval: 1, schedule: {hours: 2, minutes: 0, week_days: [moonday]}", "2: week_days moonday"),
    ("type: recurrence, frequency: day, interval: 1, schedule: {hours: 2, minutes: 0, week_days: [monday]}", "2: week_days: not with"),
    ("type: recurrence, frequency: month, interval: 1, schedule: {hours: 2, minutes: 0, month_days: 32}", "2: month_days 32: 1 to 31"),
]


@pytest.mark.parametrize(("trigger", "fault"), WRONG)
def test_a_wrong_trigger_is_refused_with_its_line(project, trigger, fault):
    assert any(found.startswith(fault) for found in faults(project, trigger=trigger))


def test_a_wrong_job_is_refused_with_its_line(project):
    job = ("create_job:\n  type: pipeline\n  job: ../../../ci/pipelines/classical.yml\n"
           "  inputs:\n    environment: prod\n    outlier_limit: wide\n    colour: red")
    found = faults(project, job=job)
    assert any(fault.startswith("7: environment: this file belongs to dev") for fault in found)
    assert any(fault.startswith("8: ") and "outlier_limit" in fault for fault in found)
    assert any(fault.startswith("9: create_job: classical has no input 'colour'") for fault in found)
    for job in ("create_job: ./nothing.yml", "create_job: azureml:yesterday", "create_job: {type: command, job: x.yml}", ""):
        assert faults(project, job=job)[0].split(": ")[1] == "create_job"


def test_events_are_read_and_wrong_ones_refused(project):
    on = 'properties: {mlops_nb.on: "register model:dev.diamonds/*, alert deployment:*"}'
    schedule = read_schedule(project, lay(project, more=on))
    assert schedule.events == (("register", "model:dev.diamonds/*"), ("alert", "deployment:*"))
    assert not schedule.by_time
    assert faults(project, more="properties: {mlops_nb.on: whenever}") == [
        "4: mlops_nb.on: 'whenever': `trigger`, or ACTION ADDRESS such as `register model:dev.diamonds/*`, is expected."]
    assert "means nothing here" in faults(project, more="properties: {mlops_nb.when: now}")[0]


@pytest.mark.parametrize("environment", ["dev", "staging", "prod"])
def test_the_repositorys_own_schedules_are_sound(environment):
    found = find_schedules(load_settings(environment, root=ROOT))
    assert {schedule.scenario or schedule.endpoint for schedule in found} == {"classical", "diamonds"} | (
        {"batch"} if environment == "dev" else set())
    for schedule in found:
        assert schedule.values in ({}, {"environment": environment})


def test_two_schedules_of_one_name_are_refused(project):
    path = lay(project)
    shutil.copy(path, path.with_name("two.yml"))
    with pytest.raises(SpecificationError, match=r"two\.yml:1: another schedule of dev is named 'one'"):
        find_schedules(project)


def test_in_words(project):
    fortnight = ('type: recurrence, frequency: week, interval: 2, start_time: "2027-01-01T00:00:00", time_zone: Tokyo Standard Time, '
                 "schedule: {hours: [3, 15], minutes: [5], week_days: [monday]}")
    said = in_words(read_schedule(project, lay(project, fortnight)).trigger)
    assert said == "every 2 weeks on monday at 03:05, 15:05 from 2027-01-01 00:00 (Tokyo Standard Time)"


# --- why now -------------------------------------------------------------------------------------------------------------

BEGIN = at("2027-01-01T12:00")
NIGHT = dt.timedelta(days=1)


def why(project: Settings, schedule: Schedule, state: State, when: dt.datetime) -> str:
    claim = why_now(project, schedule, state, when, entries(project))
    return claim.why if claim else ""


def test_what_lies_before_is_not_caught_up_what_was_missed_is_once(project):
    schedule = read_schedule(project, lay(project))
    state = take_up(project, schedule, BEGIN)
    assert why(project, schedule, state, BEGIN + NIGHT / 2) == ""
    assert why(project, schedule, state, BEGIN + 3 * NIGHT) == "due 2027-01-02 02:00 UTC"
    dealt = State(state.since, (BEGIN + 3 * NIGHT).isoformat(), state.seq)
    assert why(project, schedule, dealt, BEGIN + 3 * NIGHT) == ""
    assert take_up(project, schedule, BEGIN + NIGHT) == state


def test_a_recurrence_without_a_start_is_due_at_once_as_on_azure(project):
    schedule = read_schedule(project, lay(project, "type: recurrence, frequency: hour, interval: 1"))
    state = take_up(project, schedule, BEGIN)
    assert why(project, schedule, state, BEGIN) == "due 2027-01-01 12:00 UTC"


def test_what_passes_while_it_is_off_is_not_caught_up(project):
    schedule = read_schedule(project, lay(project, more='properties: {mlops_nb.on: "trigger, alert deployment:*"}'))
    state = take_up(project, schedule, BEGIN)
    switch(project, "one", False, BEGIN)
    log(project, "alert", "deployment:dev.diamonds/blue")
    assert why(project, schedule, state, BEGIN + NIGHT) == ""
    assert outlook(project, schedule, BEGIN) == "off"
    switch(project, "one", True, BEGIN + NIGHT)
    assert why(project, schedule, state, BEGIN + NIGHT) == ""
    log(project, "alert", "deployment:dev.diamonds/blue")
    assert why(project, schedule, state, BEGIN + NIGHT) == "alert deployment:dev.diamonds/blue"


def test_a_version_told_by_the_webhook_and_by_the_run_is_one_event(project):
    schedule = read_schedule(project, lay(project, more='properties: {mlops_nb.on: "register model:*"}'))
    state = take_up(project, schedule, BEGIN)
    log(project, "register", "model:team.shop/1", delivery="7f")
    claim = why_now(project, schedule, state, BEGIN, entries(project))
    assert claim
    dealt = State(state.since, state.until, claim.seq)
    log(project, "register", "model:team.shop/1")
    assert why(project, schedule, dealt, BEGIN) == ""
    log(project, "register", "model:team.shop/2", delivery="8f")  # the webhook is faster than the schedule's own run
    log(project, "register", "model:team.shop/2", schedule="one")
    assert why(project, schedule, dealt, BEGIN) == ""


def test_two_schedules_that_start_each_other_do_not_go_on_for_ever(project):
    schedule = read_schedule(project, lay(project, more='properties: {mlops_nb.on: "write table:dev.shop.*"}'))
    state = take_up(project, schedule, BEGIN)
    log(project, "write", "table:dev.shop.gold/1", schedule="other")  # by a run of another schedule
    log(project, "write", "table:dev.shop.gold/2", schedule="one")  # by its own run
    log(project, "write", "table:dev.shop.gold/3", schedule="other,one")  # by a run that its own run led to
    claim = why_now(project, schedule, state, BEGIN, entries(project))
    assert claim
    assert (claim.inputs, claim.causes) == (("table:dev.shop.gold/1",), ("one", "other"))
    log(project, "write", "table:dev.shop.gold/4")  # by a person: what follows is no echo
    claim = why_now(project, schedule, state, BEGIN, entries(project))
    assert claim
    assert claim.causes == ("one",)


def test_a_monitor_waits_for_its_endpoint(project):
    [monitor] = find_schedules(project, ["diamonds_dev"])
    assert monitor.endpoint == "diamonds"
    state = take_up(project, monitor, BEGIN)
    assert why(project, monitor, state, BEGIN + NIGHT) == ""
    assert outlook(project, monitor, BEGIN) == "once diamonds is deployed"
    (project.endpoints / "diamonds").mkdir(parents=True)
    assert why(project, monitor, state, BEGIN + NIGHT) == "due 2027-01-01 12:00 UTC"


def test_a_claim_that_stands_is_a_reason_until_its_end_is_written(project):
    schedule = read_schedule(project, lay(project))
    state = State(BEGIN.isoformat(), BEGIN.isoformat(), 0, Claim("due", ("table:a",), ("one",), 3, BEGIN.isoformat()))
    save_state(project, "one", state)
    assert load_state(project, "one") == state
    again = why_now(project, schedule, state, BEGIN, [])
    assert again
    assert (again.why, again.attempts) == ("due", 2)
    assert outlook(project, schedule, BEGIN).startswith("stopped")
    with hold_schedule(project, "one"):
        assert outlook(project, schedule, BEGIN) == "under way"
    switch(project, "one", False, BEGIN)
    assert why_now(project, schedule, state, BEGIN, []) is None
