"""What an endpoint costs: month by month in its own time zone, with a forecast, tiers, a size that would do, and who is not needed."""

import datetime as dt
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from mlops_nb.core.endpoint import load_deployment
from mlops_nb.core.records import Deployment, SpecificationError
from mlops_nb.core.settings import Settings
from mlops_nb.outer_loop.actions import make_patch
from mlops_nb.outer_loop.collected import Collected
from mlops_nb.outer_loop.cost import (
    cost,
    forecast,
    hours_between,
    hours_of,
    instances_needed,
    month_of,
    staleness,
    tiers_reached,
)
from mlops_nb.outer_loop.monitor import Watch
from mlops_nb.outer_loop.signals import Asked, Measure

ROOT = Path(__file__).resolve().parents[2]
VIENNA = ZoneInfo("Europe/Vienna")
CORE, GIB = 0.05, 0.006


def utc(*when: int) -> dt.datetime:
    return dt.datetime(*when, tzinfo=dt.UTC)  # type: ignore[misc,arg-type]


@pytest.fixture
def here(tmp_path: Path) -> Settings:
    """A project with dev's deployment file, three instances, and known prices."""
    room = tmp_path / "environments/dev"
    room.mkdir(parents=True)
    text = (ROOT / "environments/dev/deployment.yml").read_text()
    (room / "deployment.yml").write_text(text.replace("instance_count: 1", "instance_count: 3 # for Christmas"))
    return Settings(root=tmp_path, state=tmp_path / ".mlops", price_core_hour=CORE, price_gib_hour=GIB, currency="EUR")


def lay(settings: Settings, start: dt.datetime, end: dt.datetime, each: dt.timedelta = dt.timedelta(hours=1), endpoint: str = "shop",
        **fields: Any) -> None:
    """Write samples of an endpoint that runs from start to end: one instance of half a GiB and a tenth of a core."""
    folder = settings.endpoints / endpoint / "logs/usage"
    folder.mkdir(parents=True, exist_ok=True)
    hours = each / dt.timedelta(hours=1)
    line = {"deployment": "blue", "instance": "blue-0", "pid": 1, "cpu_percent": 10.0, "cpu_seconds": 360 * hours,
            "memory_bytes": 2**29, "hours": hours, "requests": 0, "cores": 4, "memory_total": 2**33, "disk_used": 1,
            "disk_total": 2} | fields
    days: dict[str, list[str]] = {}
    at = start
    while at < end:
        days.setdefault(f"{at:%Y-%m-%d}", []).append(json.dumps(line | {"time": at.isoformat()}) + "\n")
        at += each
    for day, lines in days.items():
        with (folder / f"{day}.jsonl").open("a") as file:
            file.write("".join(lines))


HOURLY = 0.1 * CORE + 0.5 * GIB


@pytest.fixture
def ask(here: Settings) -> Callable[..., Asked]:
    def make(until: dt.datetime, limits: dict[str, float] | None = None, past: list[float] | None = None, settings: Settings = here,
             **parameters: Any) -> Asked:
        watch = Watch("cost", "custom", {"custom": limits or {}}, parameters=parameters)
        ends = [(until - dt.timedelta(days=len(past or []) - n), value) for n, value in enumerate(past or [])]
        where = Deployment("shop", "blue", "model:dev.shop/1", "dev")
        return Asked(settings, watch, "regression", where, (until - dt.timedelta(days=1), until),
                     lambda collection, window: Collected(None, 0), past=lambda metric, feature: ends)  # type: ignore[arg-type]

    return make


def of(measures: list[Measure]) -> dict[tuple[str, str], Measure]:
    return {(measure.metric, measure.feature): measure for measure in measures}


@pytest.mark.parametrize(("moment", "zone", "hours"), [
    (utc(2026, 3, 15), "Europe/Vienna", 31 * 24 - 1), (utc(2026, 10, 15), "Europe/Vienna", 31 * 24 + 1),
    (utc(2028, 2, 1), "UTC", 29 * 24), (utc(2026, 2, 1), "UTC", 28 * 24), (utc(2100, 2, 1), "UTC", 28 * 24), (utc(2026, 12, 31,
    23, 30), "Europe/Vienna", 31 * 24),
    (utc(2026, 4, 5), "Australia/Lord_Howe", 30 * 24 + 0.5), (utc(2026, 1, 1, 5), "America/New_York", 31 * 24)])  # fmt: skip
def test_months_have_the_hours_that_they_have(moment: dt.datetime, zone: str, hours: float) -> None:
    start, end = month_of(moment, ZoneInfo(zone))
    assert start <= moment < end
    assert hours_between(start, end) == hours


@limits(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(moment=st.datetimes(dt.datetime(2000, 1, 1), dt.datetime(2090, 1, 1)),
       zone=st.sampled_from(["UTC", "Europe/Vienna", "Asia/Kolkata"]))
def test_the_days_of_a_month_are_the_month(moment: dt.datetime, zone: str) -> None:
    start, end = month_of(moment.replace(tzinfo=dt.UTC), ZoneInfo(zone))
    first, last = (each.astimezone(ZoneInfo(zone)).date() for each in (start, end))
    assert sum(hours_of(first + dt.timedelta(days=n), ZoneInfo(zone)) for n in range((last - first).days)) == hours_between(start, end)


@pytest.mark.parametrize("now", [utc(2026, 3, 30, 12), utc(2026, 10, 26, 12), utc(2028, 3, 1, 12)], ids=["spring", "autumn", "leap"])
def test_a_steady_endpoint_costs_its_hours_whatever_the_clocks_do(here: Settings, ask: Any, now: dt.datetime) -> None:
    lay(here, now - dt.timedelta(days=45), now)
    found = of(cost(ask(now, time_zone="Europe/Vienna")))
    start, end = month_of(now, VIENNA)
    assert found["cost_to_date", ""].value == pytest.approx(HOURLY * hours_between(start, now), rel=1e-6)
    assert found["cost_forecast", ""].value == pytest.approx(HOURLY * hours_between(start, end), rel=1e-4)
    assert found["cost_to_date", "blue"].value == found["cost_to_date", ""].value
    assert found["cost_to_date", ""].detail["currency"] == "EUR"
    low, high = found["cost_forecast", ""].detail["interval_80"]
    assert high - low < 0.01 * high


def test_an_endpoint_that_began_in_the_month_and_stood_still_for_days(here: Settings, ask: Any) -> None:
    lay(here, utc(2026, 11, 5), utc(2026, 11, 10))
    now = utc(2026, 11, 16)  # stopped for six days
    found = of(cost(ask(now)))
    assert found["cost_to_date", ""].value == pytest.approx(HOURLY * 120)
    seen = [24 * HOURLY] * 4 + [0.0] * 6  # complete days; the first one is not counted, as it may have been cut
    assert found["cost_forecast", ""].value == pytest.approx(HOURLY * 120 + sum(seen) / 10 * 15)
    low, high = found["cost_forecast", ""].detail["interval_80"]
    assert low < found["cost_forecast", ""].value < high
    assert low >= found["cost_to_date", ""].value


def test_the_first_hour_of_a_month_and_of_an_endpoint(here: Settings, ask: Any) -> None:
    lay(here, utc(2026, 11, 1), utc(2026, 11, 1, 1), dt.timedelta(minutes=1))
    found = of(cost(ask(utc(2026, 11, 1, 1))))
    assert found["cost_to_date", ""].value == pytest.approx(HOURLY)
    assert found["cost_forecast", ""].value == pytest.approx(HOURLY * 720)
    assert found["cost_forecast", ""].detail["interval_80"] is None


def test_the_interval_of_the_forecast_holds_what_it_says() -> None:
    draw, held = random.Random(5), 0
    for _ in range(400):
        days = [draw.gauss(10, 2) for _ in range(24)]
        _, (low, high) = forecast([(day, 24) for day in days[:14]], 0.0, 240.0)  # type: ignore[misc]
        held += low <= sum(days[14:]) <= high
    assert 0.74 < held / 400 < 0.86


def test_deployments_the_front_and_other_endpoints_are_told_apart(here: Settings, ask: Any) -> None:
    span = utc(2026, 11, 2), utc(2026, 11, 3)
    lay(here, *span)
    lay(here, *span, deployment="green", instance="green-0", cpu_seconds=3600.0, memory_bytes=0)
    lay(here, *span, deployment="", instance="front", cpu_seconds=0.0, memory_bytes=2**30)
    lay(here, *span, endpoint="other")
    found = of(cost(ask(utc(2026, 11, 3))))
    parts = {"blue": 24 * HOURLY, "green": 24 * CORE, "front and host": 24 * GIB}
    assert {name: found["cost_to_date", name].value for name in parts} == pytest.approx(parts)
    assert found["cost_to_date", ""].value == pytest.approx(sum(parts.values()))
    both = of(cost(ask(utc(2026, 11, 3), scope="environment")))
    assert both["cost_to_date", "other/blue"].value == pytest.approx(24 * HOURLY)
    assert both["cost_to_date", ""].value == pytest.approx(sum(parts.values()) + 24 * HOURLY)


def test_tiers_are_reached_one_after_the_other(here: Settings, ask: Any) -> None:
    lay(here, utc(2026, 11, 1), utc(2026, 11, 19))  # 60 per cent of the month
    budget = HOURLY * 720
    found = of(cost(ask(utc(2026, 11, 19), budget=f"{budget:.6f}", tiers=[50, 80, "100 %"])))
    assert found["budget_share", "actual"].value == pytest.approx(0.6, abs=1e-4)
    assert found["budget_share", "actual"].detail["reached"] == [50]
    assert found["budget_share", "forecast"].detail["reached"][:2] == [50, 80]
    assert tiers_reached(1.0, [100, 120]) == [100]


def test_a_threshold_without_a_budget_is_no_silence(here: Settings, ask: Any) -> None:
    lay(here, utc(2026, 11, 1), utc(2026, 11, 2))
    assert "Write inputs: {budget" in of(cost(ask(utc(2026, 11, 2), limits={"budget_share": 0.8})))["budget_share", ""].problem
    assert ("budget_share", "") not in of(cost(ask(utc(2026, 11, 2))))


def served(settings: Settings, until: dt.datetime, a_minute: int, ms: float, waited: float = 0.0) -> None:
    """Write a day's summaries of steady traffic."""
    folder = settings.endpoints / "shop/logs/traffic"
    (folder / "minutes").mkdir(parents=True)
    (folder / "reach.json").write_text(json.dumps({"lines": until.isoformat()}))
    for ago in range(1, 1440):
        at = until - dt.timedelta(minutes=ago)
        line = {"Minute": f"{at:%Y-%m-%dT%H:%M}", "DeploymentName": "blue", "ResponseCode": 200, "Reason": "",
                "TotalDurationMs": [ms + waited], "Requests": [a_minute], "DelayMs": [waited * a_minute, 0, 0],
                "LongestDelayMs": [waited, 0, 0], "Delayed": [1, 0, 0]}
        with (folder / f"minutes/{at:%Y-%m-%d}.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")


@pytest.mark.parametrize(("a_minute", "ms", "busy", "needed"), [
    (60, 20.0, 5.0, 1), (12_000, 150.0, 5.0, 2), (25_000, 150.0, 5.0, 3), (60, 20.0, 130.0, 2), (60_000, 150.0, 5.0, 7)])  # fmt: skip
def test_after_repeated_alerts_the_size_that_would_do_is_proposed(here: Settings, ask: Any, a_minute: int, ms: float, busy: float,
                                                                  needed: int) -> None:
    """12,000 requests a minute of 150 ms are 30 at once; at 70 per cent of 32 each that is 1.34, so two instances."""
    now = utc(2026, 11, 19)
    lay(here, utc(2026, 11, 1), now, cpu_percent=busy)
    served(here, now, a_minute, ms, waited=400.0)  # the wait at the front is none of the model's
    once = of(cost(ask(now, budget="1", past=[0.5, 5.0])))["budget_share", "forecast"]
    assert "propose" not in once.detail
    often = of(cost(ask(now, budget="1", past=[0.5, 5.0, 5.0])))["budget_share", "forecast"].detail
    assert often["needed"] == needed
    if needed >= 3:
        assert often["no_resize"] == "the load needs the instances that there are"
        return
    assert often["propose"] == "resize"
    patch = make_patch(here, often["patch"])
    assert "-instance_count: 3 # for Christmas" in patch
    assert f"+instance_count: {needed} # for Christmas" in patch


def test_a_deployment_that_scales_is_given_other_bounds(here: Settings, ask: Any) -> None:
    now, path = utc(2026, 11, 19), here.root / "environments/dev/deployment.yml"
    path.write_text(path.read_text() + "scale_settings: {type: target_utilization, min_instances: 4, max_instances: 9, "
                    "target_utilization_percentage: 50}\n")  # fmt: skip
    lay(here, utc(2026, 11, 1), now)
    served(here, now, 12_000, 150.0)
    patch = of(cost(ask(now, budget="1", past=[5.0, 5.0])))["budget_share", "forecast"].detail["patch"]
    assert [(change["path"], change["before"], change["value"]) for change in patch] == [
        ("/scale_settings/min_instances", 4, 2), ("/scale_settings/max_instances", 9, 2)]
    least = of(cost(ask(now, budget="1", past=[5.0, 5.0], minimum_instances="3")))["budget_share", "forecast"].detail["patch"]
    assert {change["value"] for change in least} == {3}
    assert load_deployment(path).scale_settings


@limits(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(load=st.floats(0, 1e4), target=st.floats(0.05, 1), concurrent=st.integers(1, 256))
def test_so_many_instances_carry_the_load_and_one_fewer_would_not(load: float, target: float, concurrent: int) -> None:
    count = instances_needed(load, target, concurrent)
    assert count * concurrent * target >= load - 1e-6
    assert count == 1 or (count - 1) * concurrent * target < load


@pytest.mark.parametrize(("parameters", "said"), [
    ({"budget": "much"}, "write a number"), ({"budget": "-1"}, "above 0"), ({"tiers": "half"}, "per cent"),
    ({"scope": "world"}, "endpoint or"), ({"time_zone": "Mars/Olympus"}, "no such time zone")])  # fmt: skip
def test_wrong_parameters_are_told(here: Settings, ask: Any, parameters: Any, said: str) -> None:
    lay(here, utc(2026, 11, 1), utc(2026, 11, 2))
    with pytest.raises(SpecificationError, match=said):
        cost(ask(utc(2026, 11, 2), **parameters))


def test_no_samples_no_endpoint_and_samples_that_are_tidied_away(here: Settings, ask: Any) -> None:
    now = utc(2026, 11, 19)
    assert "there is no endpoint shop in dev" in cost(ask(now))[0].problem
    lay(here, now, now)
    assert "no process was measured" in cost(ask(now))[0].problem
    lay(here, utc(2026, 11, 10), now)
    log = here.endpoints / "shop/logs/usage"
    (log / "reach.json").write_text(json.dumps({"since": "2026-11-10T00:00:00+00:00"}))
    assert cost(ask(now))[0].problem.startswith("the log of usage reaches back only to 2026-11-10")
    (log / "reach.json").write_text(json.dumps({"since": "2026-10-30T00:00:00+00:00"}))
    with (log / "2026-11-11.jsonl").open("a") as file:
        file.write('{"time": "2026-11-11T0\n[]\n{"deployment": "blue"}\n')
    assert cost(ask(now))[0].value == pytest.approx(HOURLY * 24 * 9)


@pytest.mark.parametrize(("environment", "days", "parameters", "proposes"), [
    ("dev", 13, {}, False), ("dev", 15, {}, True), ("dev", 15, {"decommission_after": "P30D"}, False), ("prod", 90, {}, False),
    ("staging", 90, {}, False)])  # fmt: skip
def test_a_workspace_without_active_cores_is_to_be_given_back(here: Settings, ask: Any, environment: str, days: int, parameters: Any,
                                                              proposes: bool) -> None:
    settings = here.model_copy(update={"environment": environment})
    active, now = utc(2026, 9, 1), utc(2026, 9, 1) + dt.timedelta(days=days)
    lay(settings, active - dt.timedelta(hours=5), active)
    lay(settings, active, now, dt.timedelta(hours=6), cpu_percent=0.8)  # it runs, and waits
    lay(settings, active, now, dt.timedelta(hours=6), deployment="", instance="front", cpu_percent=30.0)
    (idle,) = staleness(ask(now, settings=settings, **parameters))
    assert idle.value == pytest.approx(days, abs=0.1)
    assert (idle.detail.get("propose") == "decommission") == proposes


def test_a_run_and_a_request_are_use_and_a_monitor_is_none(here: Settings, ask: Any) -> None:
    now = utc(2026, 9, 30)
    lay(here, utc(2026, 8, 1), utc(2026, 8, 1, 4), cpu_percent=1.0)
    assert staleness(ask(now))[0].detail["last_active"] is None

    def run(name: str, scenario: str, started: dt.datetime) -> None:
        folder = here.runs / name
        folder.mkdir(parents=True)
        about = {"id": name, "scenario": scenario, "environment": "dev", "user": "ada", "persona": "data_scientist", "values": {},
                 "cwd": ".", "started": started.isoformat(), "planned": []}
        (folder / "run.json").write_text(json.dumps(about))

    run("20260929-0300-monitor-aaaa", "monitor", utc(2026, 9, 29, 3))
    assert staleness(ask(now))[0].value == 60
    run("20260920-0000-classical-aaaa", "classical", utc(2026, 9, 20))
    assert staleness(ask(now))[0].value == pytest.approx(10, abs=0.01)
    lay(here, utc(2026, 9, 28), utc(2026, 9, 28, 1), cpu_percent=1.0, requests=3)
    assert staleness(ask(now))[0].value == 2


def test_nothing_was_ever_measured(ask: Any) -> None:
    (idle,) = staleness(ask(utc(2026, 9, 30)))
    assert (idle.value, idle.problem) == (None, "nothing was measured in dev yet: no run, no endpoint.")
