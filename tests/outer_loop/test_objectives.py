"""Service-level objectives: levels, error budgets and burn rates, against hand-worked figures and an independent count."""

import datetime as dt
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from mlops_nb.core.records import Deployment, SpecificationError
from mlops_nb.core.settings import Settings
from mlops_nb.outer_loop.collected import Collected
from mlops_nb.outer_loop.monitor import Watch
from mlops_nb.outer_loop.objectives import (
    PAIRS,
    Objective,
    budget_left,
    burn_rate,
    burn_rates,
    exhausted_in,
    objectives,
)
from mlops_nb.outer_loop.signals import Asked, Measure

NOON = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)
MONTH = dt.timedelta(days=30)


@pytest.fixture
def ask(tmp_path: Any) -> Callable[..., Asked]:
    """Lay an endpoint whose summaries are given as (minutes ago, status, ms, requests), and ask for its objectives."""

    def make(traffic: list[tuple[int, int, float, int]], reach: str = "", **parameters: Any) -> Asked:
        here = Settings(root=tmp_path, state=tmp_path)
        folder = here.endpoints / "shop/logs/traffic/minutes"
        folder.mkdir(parents=True, exist_ok=True)
        for ago, status, ms, count in traffic:
            at = NOON - dt.timedelta(minutes=ago)
            line = {"Minute": f"{at:%Y-%m-%dT%H:%M}", "DeploymentName": "blue", "ResponseCode": status, "Reason": "",
                    "TotalDurationMs": [ms], "Requests": [count], "DelayMs": [0, 0, 0], "LongestDelayMs": [0, 0, 0],
                    "Delayed": [0, 0, 0]}
            with (folder / f"{at:%Y-%m-%d}.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
        known = {"lines": NOON.isoformat()} | ({"minutes": reach} if reach else {})
        (folder.parent / "reach.json").write_text(json.dumps(known))
        watch = Watch("promises", "custom", {}, parameters=parameters)
        return Asked(here, watch, "regression", Deployment("shop", "blue", "model:dev.shop/1", "dev"),
                     (NOON - dt.timedelta(days=1), NOON), lambda collection, window: Collected(None, 0))  # type: ignore[arg-type]

    return make


def of(measures: list[Measure]) -> dict[tuple[str, str], Measure]:
    return {(measure.metric, measure.feature): measure for measure in measures}


def test_a_month_worked_by_hand(ask: Any) -> None:
    traffic = [(ago, 200, 20.0, 1000) for ago in range(60, 29 * 1440, 1440)]  # once a day
    traffic += [(3 * 1440, 503, 1.0, 10), (3 * 1440, 401, 1.0, 500), (3 * 1440, 429, 1.0, 5)]
    found = of(objectives(ask(traffic, availability="0.999", latency_ms="100", latency_target="0.9")))
    requests, bad = 29 * 1000 + 515, 15  # a wrong key spends no budget
    assert found["availability", ""].value == pytest.approx(1 - bad / requests)
    left = 1 - bad / (requests * 0.001)
    assert found["error_budget_remaining", "availability"].value == pytest.approx(left, abs=1e-5)
    assert found["latency_compliance", ""].value == 1
    assert found["burn_rate_alert", "availability"].value == 0


@pytest.mark.parametrize(("failing", "severity"), [(0, ""), (10, ""), (20, "page"), (200, "page")])
def test_an_hour_of_failures_calls_somebody_when_it_burns_fast(ask: Any, failing: int, severity: str) -> None:
    """With 1000 requests a minute and a target of 0.999, 14.4 failures a minute for an hour are 2 per cent of a month's budget."""
    traffic = [(ago, 200, 20.0, 1000) for ago in range(1, 4 * 1440, 3)]
    traffic += [(ago, 500, 20.0, failing) for ago in range(1, 61, 3)]
    found = of(objectives(ask(traffic, availability="0.999")))
    alert = found["burn_rate_alert", "availability"]
    assert (alert.value > 1, alert.detail["severity"]) == (bool(severity), severity)
    assert found["burn_rate", "availability 1h"].value == pytest.approx(failing / (1000 + failing) * 1000, rel=1e-3)


def test_what_is_over_alarms_nobody(ask: Any) -> None:
    traffic = [(ago, 200 if ago < 20 or ago > 59 else 500, 20.0, 1000) for ago in range(1, 1440)]
    found = of(objectives(ask(traffic, availability="0.999")))
    long = found["burn_rate_alert", "availability"].detail["pairs"][0]
    assert long["long"] > 14.4  # the hour was bad,
    assert long["short"] == 0  # but the last five minutes are not
    assert not long["alarm"]


def test_slow_answers_spend_the_budget_of_latency_only(ask: Any) -> None:
    traffic = [(ago, 200, ms, 50) for ago in range(1, 600) for ms in (20.0, 300.0)]
    found = of(objectives(ask(traffic, availability="0.99", latency_ms="250", latency_target="0.75", window="P7D")))
    assert found["availability", ""].value == 1
    assert found["latency_compliance", ""].value == 0.5
    assert found["error_budget_remaining", "latency"].value == -1
    assert found["error_budget_remaining", "latency"].detail["exhausted"]["hours"] == 0
    assert found["burn_rate", "latency 1h"].value == 2


def test_few_requests_alarm_nobody(ask: Any) -> None:
    found = of(objectives(ask([(2, 500, 1.0, 3)], availability="0.999")))
    assert found["burn_rate", "availability 1h"].value == pytest.approx(1000)
    assert found["burn_rate_alert", "availability"].value == 1
    bold = of(objectives(ask([], availability="0.999", minimum_requests="3")))
    assert bold["burn_rate_alert", "availability"].value > 14


def test_a_quiet_month_is_no_figure_and_no_alarm(ask: Any) -> None:
    found = of(objectives(ask([], availability="0.999")))
    assert (found["availability", ""].value, found["availability", ""].problem) == (None, "no request in the last 30 days")
    assert found["burn_rate_alert", "availability"].value == 0


def test_a_log_that_is_shorter_than_the_month_gives_no_level(ask: Any) -> None:
    traffic = [(ago, 500, 20.0, 100) for ago in range(1, 300)]
    found = of(objectives(ask(traffic, reach=(NOON - dt.timedelta(hours=5)).isoformat(), availability="0.999")))
    assert found["availability", ""].problem.startswith("the traffic log reaches back only to 2026-11-20 07:00")
    assert found["error_budget_remaining", "availability"].value is None
    assert found["burn_rate", "availability 6h"].value is None
    assert found["burn_rate", "availability 1h"].value == pytest.approx(1000)
    assert found["burn_rate_alert", "availability"].value > 1  # the hour alone is enough


def test_which_statuses_are_bad_can_be_said(ask: Any) -> None:
    traffic = [(5, 200, 1.0, 80), (5, 404, 1.0, 10), (5, 429, 1.0, 10)]
    assert of(objectives(ask(traffic, availability="0.9")))["availability", ""].value == pytest.approx(0.9)
    assert of(objectives(ask([], availability="0.9", bad="404, 429 5xx")))["availability", ""].value == pytest.approx(0.8)


@pytest.mark.parametrize(("parameters", "said"), [
    ({}, "no objective"), ({"availability": "1"}, "write a share above 0 and below 1"), ({"availability": "high"}, "write a number"),
    ({"latency_ms": "100"}, "belong together"), ({"availability": "0.9", "bad": "teapot"}, "'teapot' is no status"),
    ({"availability": "0.9", "window": "PT5M"}, "at least an hour"),
    ({"availability": "0.9", "window": "P1M"}, "write a duration")])  # fmt: skip
def test_an_objective_that_nobody_can_keep_is_refused(ask: Any, parameters: Any, said: str) -> None:
    with pytest.raises(SpecificationError, match=said):
        objectives(ask([], **parameters))


def test_the_factors_are_the_workbooks() -> None:
    import polars as pl

    minutes = pl.DataFrame({"minute": [NOON], "requests": [1], "bad": [0]}, schema_overrides={"minute": pl.Datetime("us", "UTC")})
    of_a_month = [rate["factor"] for rate in burn_rates(Objective("availability", 0.999, MONTH), minutes, NOON)]
    assert of_a_month == [14.4, 6.0, 1.0]
    of_a_week = [rate["factor"] for rate in burn_rates(Objective("availability", 0.999, dt.timedelta(days=7)), minutes, NOON)]
    assert of_a_week == [3.36, 1.4, 0.2333]
    assert len(PAIRS) == 3


@limits(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(requests=st.integers(1, 10**9), share=st.floats(0, 1), target=st.floats(0.5, 0.9999), days=st.integers(1, 365))
def test_a_budget_that_burns_at_its_rate_is_gone_when_it_says(requests: int, share: float, target: float, days: int) -> None:
    bad, window = int(requests * share), dt.timedelta(days=days)
    rate, left = burn_rate(requests, bad, target), budget_left(requests, bad, target)
    assert left == pytest.approx((requests * (1 - target) - bad) / (requests * (1 - target)))
    ends = exhausted_in(left, rate, window)
    if left > 0 and ends is not None:
        assert left - rate * (ends / window) == pytest.approx(0, abs=1e-6)
    elif left <= 0:
        assert ends == dt.timedelta(0)
