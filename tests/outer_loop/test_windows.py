"""A monitor's windows are real time: whatever clocks, calendars and slow files do, no hour is left out and none counts twice."""

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from zoneinfo import ZoneInfo

import pandas as pd
import pytest

from mlops_nb.core.records import Deployment
from mlops_nb.core.settings import Settings
from mlops_nb.core.trigger import Trigger, next_times
from mlops_nb.outer_loop.monitor import Monitor, Span, Watch, reference_window_of, window_of
from mlops_nb.outer_loop.monitoring import run_monitor

BERLIN, DAY, HOUR = ZoneInfo("Europe/Berlin"), dt.timedelta(days=1), dt.timedelta(hours=1)
BLUE = Deployment("shop", "blue", "model:dev.shop/1", "dev")
REFERENCE = pd.DataFrame({"x": [float(n) for n in range(100)]})
QUALITY = Watch("quality", "data_quality", {"numerical": {"null_value_rate": 0.0, "out_of_bounds_rate": 0.0}}, size=DAY)


def utc(*parts: int) -> dt.datetime:
    return dt.datetime(*parts, tzinfo=dt.UTC)  # type: ignore[misc,arg-type]


def seen(settings: Settings, now: dt.datetime, watch: Watch = QUALITY) -> int:
    """Count the rows that a monitor looks at."""
    monitor = Monitor("m", Path("m.yml"), "shop", "blue", "regression", (watch,), Trigger("UTC", dt.UTC))
    found = run_monitor(settings, monitor, BLUE, {"training": REFERENCE}, now=now, minimum_rows=10**9)
    return int(found[0].problem.split()[1])  # only N rows in the window


@pytest.fixture
def collect(project: Settings) -> Callable[..., Path]:
    """Write one event at a time of its own, in the folder of an hour; the folder is the event's own unless `folder` names another."""

    def write(time: dt.datetime, folder: dt.datetime | None = None, name: str = "one") -> Path:
        place = project.collected / "shop" / "blue" / "model_inputs" / f"{(folder or time).astimezone(dt.UTC):%Y/%m/%d/%H}"
        place.mkdir(parents=True, exist_ok=True)
        with (place / f"{name}.jsonl").open("a") as file:
            request = f"{time.isoformat()}-{name}"
            file.write(json.dumps({"specversion": "1.0", "id": request, "time": time.isoformat(), "data": [{"x": 1.0}],
                                   "correlationid": request}) + "\n")
        return place / f"{name}.jsonl"

    return write


@pytest.mark.parametrize(("day", "hours"), [((2026, 3, 29), 23), ((2026, 10, 25), 25), ((2026, 7, 1), 24)],
                         ids=["spring", "autumn", "summer"])
def test_a_day_is_24_hours_whatever_the_clocks_do(
    day: tuple[int, int, int], hours: int, project: Settings, collect: Callable[..., Path]
) -> None:
    """An event every hour; the monitor runs at midnight in Berlin, where the day has 23, 25 or 24 hours."""
    start, end = dt.datetime(*day, tzinfo=BERLIN), dt.datetime(*day, tzinfo=BERLIN) + DAY  # on the wall clock
    assert (end.astimezone(dt.UTC) - start.astimezone(dt.UTC)) == hours * HOUR
    for n in range(-3, hours + 3):
        collect(start.astimezone(dt.UTC) + n * HOUR + dt.timedelta(minutes=30))
    assert seen(project, end) == 24
    assert window_of(QUALITY, end) == (end.astimezone(dt.UTC) - DAY, end.astimezone(dt.UTC))


def test_the_hour_that_comes_twice_is_looked_at_once_by_each_run(project: Settings, collect: Callable[..., Path]) -> None:
    """2 o'clock comes twice on 25 October in Berlin; an hourly monitor sees each of the two hours for itself."""
    watch = Watch("quality", "data_quality", QUALITY.thresholds, size=HOUR)
    first = dt.datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN)
    for event in (first, first.replace(fold=1)):
        collect(event.astimezone(dt.UTC))
    for end in (utc(2026, 10, 25, 1), utc(2026, 10, 25, 2)):
        assert seen(project, end.astimezone(BERLIN), watch) == 1


def test_windows_of_an_hourly_monitor_leave_no_event_out_and_take_none_twice(project: Settings, collect: Callable[..., Path]) -> None:
    trigger = Trigger("W. Europe Standard Time", BERLIN, start=dt.datetime(2026, 3, 28, 22, tzinfo=BERLIN), frequency="hour")
    times = list(next_times(trigger, utc(2026, 3, 28, 21), utc(2026, 3, 28, 21), 9))
    watch = Watch("quality", "data_quality", QUALITY.thresholds, size=HOUR)
    events = [times[0].astimezone(dt.UTC) + n * dt.timedelta(minutes=20) for n in range(24)]
    for event in events:
        collect(event)
    counted = [seen(project, time, watch) for time in times[1:]]
    assert counted == [3] * 8


def test_a_leap_day_belongs_to_its_week(project: Settings, collect: Callable[..., Path]) -> None:
    for day in range(22, 32):
        collect(utc(2024, 2, 22, 12) + (day - 22) * DAY)
    week = Watch("quality", "data_quality", QUALITY.thresholds, size=7 * DAY)
    assert window_of(week, utc(2024, 3, 4))[0] == utc(2024, 2, 26)
    assert seen(project, utc(2024, 3, 4), week) == 7 - 1  # one event a day from 26 February to 2 March
    assert seen(project, utc(2024, 3, 1), Watch("quality", "data_quality", QUALITY.thresholds, size=DAY)) == 1


def test_an_event_on_the_edge_belongs_to_the_window_that_it_begins(project: Settings, collect: Callable[..., Path]) -> None:
    noon = utc(2026, 11, 20, 12)
    collect(noon)
    collect(noon - dt.timedelta(microseconds=1), name="before")
    assert (seen(project, noon), seen(project, noon + DAY)) == (1, 1)


def test_an_offset_leaves_late_events_the_time_to_arrive(project: Settings, collect: Callable[..., Path]) -> None:
    noon = utc(2026, 11, 20, 12)
    late = Watch("quality", "data_quality", QUALITY.thresholds, size=DAY, offset=6 * HOUR)
    for hours in (1, 5, 7, 29):
        collect(noon - hours * HOUR)
    assert window_of(late, noon) == (noon - 30 * HOUR, noon - 6 * HOUR)
    assert seen(project, noon, late) == 2


def test_a_late_file_is_seen_when_its_window_is_looked_at_again(project: Settings, collect: Callable[..., Path]) -> None:
    """An instance was cut off, and delivers yesterday's file today: today's window is none the richer, yesterday's is."""
    noon = utc(2026, 11, 20, 12)
    collect(noon - 2 * HOUR)
    assert seen(project, noon) == 1
    collect(noon - 30 * HOUR, name="cut-off")
    assert (seen(project, noon), seen(project, noon - DAY)) == (1, 1)


@pytest.mark.parametrize("skew", [dt.timedelta(minutes=40), dt.timedelta(minutes=-40), 400 * DAY, -400 * DAY],
                         ids=["fast", "slow", "next year", "last year"])
def test_an_instance_whose_clock_is_wrong_is_judged_by_the_folder(
    skew: dt.timedelta, project: Settings, collect: Callable[..., Path]
) -> None:
    """The folder's hour is the service's clock; the event's own time counts only within it."""
    noon = utc(2026, 11, 20, 12)
    collect(noon - 3 * HOUR + skew, folder=noon - 3 * HOUR)
    assert seen(project, noon) == 1
    assert seen(project, noon + DAY) == 0


def test_the_time_zone_in_which_someone_asks_changes_nothing(project: Settings, collect: Callable[..., Path]) -> None:
    noon = utc(2026, 3, 29, 12)
    for hours in range(1, 48):
        collect(noon - hours * HOUR)
    zones = [dt.UTC, BERLIN, ZoneInfo("America/St_Johns"), ZoneInfo("Pacific/Kiritimati"), dt.timezone(dt.timedelta(hours=-9.5))]
    assert {seen(project, noon.astimezone(zone)) for zone in zones} == {24}


def test_a_moment_without_a_time_zone_is_refused(project: Settings) -> None:
    with pytest.raises(ValueError, match="has no time zone"):
        seen(project, dt.datetime(2026, 11, 20))


def test_the_reference_s_window_follows_the_same_clock() -> None:
    """Two days before the day that is looked at, over the night that has one hour less."""
    watch = Watch("drift", "data_drift", {}, "model_inputs", size=DAY, baseline=Span(2 * DAY, DAY))
    now = dt.datetime(2026, 3, 30, 0, tzinfo=BERLIN)
    begin, end = reference_window_of(watch, now) or (now, now)
    assert (begin, end) == (utc(2026, 3, 26, 22), utc(2026, 3, 28, 22))
    assert end == window_of(watch, now)[0]


def test_a_monitor_s_window_is_the_widest_of_its_signals() -> None:
    noon = utc(2026, 11, 20, 12)
    watches = (QUALITY, Watch("late", "data_quality", {}, size=DAY, offset=3 * DAY), Watch("week", "data_quality", {}, size=7 * DAY))
    monitor = Monitor("m", Path("m.yml"), "shop", "blue", "regression", watches, Trigger("UTC", dt.UTC))
    assert window_of(monitor, noon) == (noon - 7 * DAY, noon)
