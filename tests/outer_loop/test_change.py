"""A level that moved is found soon, with its time; noise of any kind is not a change."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.signal import lfilter

from mlops_nb.core.records import Deployment
from mlops_nb.core.settings import Settings
from mlops_nb.outer_loop.change import by_hour, change_point, find_change
from mlops_nb.outer_loop.collected import Collected
from mlops_nb.outer_loop.monitor import Watch
from mlops_nb.outer_loop.signals import Asked

START = dt.datetime(2026, 10, 1, tzinfo=dt.UTC)
RANDOM = np.random.default_rng(5)


def ask(past: list[float], rows: pd.DataFrame | None = None, **parameters: Any) -> Asked:
    rows = pd.DataFrame({"correlationid": [], "time": []}) if rows is None else rows
    series = [(START + dt.timedelta(days=n), value) for n, value in enumerate(past)]
    return Asked(
        Settings(),
        Watch("since", "custom", {}, parameters=parameters),
        "regression",
        Deployment("diamonds", "blue", "", "dev"),
        (START, START + dt.timedelta(days=7)),
        lambda collection, window: Collected(rows, len(rows)),
        past=lambda metric, feature: series if (metric, feature) == ("jensen_shannon_distance", "carat") else [],
    )


FOLLOWED = {"metric": "jensen_shannon_distance", "feature": "carat"}


def test_the_day_of_a_change_is_named_with_the_levels_before_and_after() -> None:
    (measure,) = change_point(ask([*RANDOM.normal(0.05, 0.01, 20), *RANDOM.normal(0.2, 0.01, 6)], **FOLLOWED))
    assert (measure.metric, measure.feature) == ("change_score", "carat jensen_shannon_distance")
    assert measure.value > 8
    assert measure.detail["since"] == "2026-10-21T00:00:00+00:00"
    assert (measure.detail["before"], measure.detail["after"]) == pytest.approx((0.05, 0.2), abs=0.01)


@pytest.mark.parametrize(
    "draw",
    [
        lambda n: RANDOM.normal(size=n),
        lambda n: RANDOM.standard_t(2.5, n),
        lambda n: RANDOM.exponential(size=n),
        lambda n: RANDOM.integers(0, 3, n),
        lambda n: np.where(RANDOM.random(n) < 0.1, 20, RANDOM.normal(size=n)),
    ],
    ids=["normal", "heavy tails", "skewed", "counts", "lone windows"],
)
def test_noise_is_no_change(draw: Callable[[int], np.ndarray]) -> None:
    """Of 100 series at most 5 are called changed; one in a hundred is what the test is made for."""
    assert sum(find_change(draw(n)).score > 0 for n in (12, 30) for _ in range(50)) <= 5


def test_a_series_that_remembers_its_last_value_is_seldom_called_changed() -> None:
    drawn = [lfilter([1], [1, -0.5], RANDOM.normal(size=110))[50:] for _ in range(50)]
    assert sum(find_change(series).score > 0 for series in drawn) <= 6


def test_three_times_the_noise_is_found_within_eight_windows() -> None:
    found = [find_change(np.r_[RANDOM.normal(size=20), RANDOM.normal(3, 1, 8)]) for _ in range(40)]
    assert sum(change.score > 0 for change in found) >= 36
    assert np.median([abs(change.at - 20) for change in found if change.score]) <= 1


def test_the_last_of_several_changes_is_told_and_all_are_listed() -> None:
    levels = np.repeat([0.1, 0.3, 0.2], 16) + RANDOM.normal(0, 0.01, 48)
    (measure,) = change_point(ask(list(levels), **FOLLOWED))
    assert {(START + dt.timedelta(days=n)).isoformat() for n in (16, 32)} <= set(measure.detail["changes"])
    assert measure.detail["after"] == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize(
    ("series", "said"),
    [
        ([], "only 0 values in the series, 10 needed"),
        ([0.1] * 9, "only 9 values"),
        ([float("nan")] * 30, "only 0 values"),
    ],
)
def test_too_short_a_series_says_so(series: list[float], said: str) -> None:
    (measure,) = change_point(ask(series, **FOLLOWED))
    assert measure.value is None
    assert said in measure.problem


@pytest.mark.parametrize("series", [[0.0] * 30, [1e9] * 30, [1.0, float("inf")] * 20])
def test_a_constant_series_has_no_change(series: list[float]) -> None:
    (measure,) = change_point(ask(series, **FOLLOWED))
    assert measure.value == 0
    assert "since" not in measure.detail


def test_a_step_without_noise_and_gaps_in_a_series_are_fine() -> None:
    assert find_change([1.0] * 10 + [2.0] * 10).at == 10
    series = np.r_[RANDOM.normal(0, 1, 20), RANDOM.normal(6, 1, 10)]
    series[[4, 19, 25]] = np.nan
    assert find_change(series).at == 20


def week(moved: float = 0.0) -> pd.DataFrame:
    """A week of requests with a daily course; from the fifth day on, a level that moved."""
    random = np.random.default_rng(2)
    hours = np.sort(random.uniform(0, 7 * 24, 6000))
    light = np.sin(hours / 24 * 2 * np.pi) + random.normal(0, 0.3, 6000) + moved * (hours > 96)
    kind = np.where(random.random(6000) < 0.2 + 0.5 * (moved > 0) * (hours > 96), "late", "usual")
    return pd.DataFrame({"time": START + pd.to_timedelta(hours, "h"), "light": light, "kind": kind})


def test_within_a_week_days_and_nights_are_no_change_and_a_moved_level_is() -> None:
    quiet = change_point(ask([], week(), columns="light, kind"))
    assert [measure.value for measure in quiet] == [0, 0]
    for measure in change_point(ask([], week(0.5), columns=["light", "kind"])):
        since = dt.datetime.fromisoformat(measure.detail["since"])
        assert abs(since - (START + dt.timedelta(days=4))) <= dt.timedelta(hours=4)


def test_hours_with_few_rows_do_not_count() -> None:
    rows = week()[:200]
    assert len(by_hour(rows, "light", fewest=1)) > len(by_hour(rows, "light", fewest=60))
    (measure,) = change_point(ask([], rows[:30], columns="light"))
    assert "hours with five rows" in measure.problem


@pytest.mark.parametrize(("parameters", "said"), [({}, "names nothing to follow"), ({"columns": "weight"}, "no column 'weight'")])
def test_what_cannot_be_followed_says_so(parameters: dict[str, str], said: str) -> None:
    assert said in change_point(ask([], week(), **parameters))[0].problem
