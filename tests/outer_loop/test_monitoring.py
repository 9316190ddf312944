"""A monitor speaks when production moved or could not be looked at, and is quiet otherwise."""

import datetime as dt
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops_nb.core.records import Deployment, Signal
from mlops_nb.core.settings import Settings
from mlops_nb.core.trigger import Trigger
from mlops_nb.outer_loop import history
from mlops_nb.outer_loop.drift import adjusted
from mlops_nb.outer_loop.monitor import Monitor, Source, Span, Watch, load_monitor, retarget
from mlops_nb.outer_loop.monitoring import plot_feature, plot_signals, run_monitor, signals_table
from mlops_nb.outer_loop.signals import BUILT_IN

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
NOW = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)
BLUE = Deployment("diamonds", "blue", "model:dev.diamonds/1", "dev", traffic=100)
RANDOM = np.random.default_rng(11)


@pytest.fixture(scope="module")
def stones() -> pd.DataFrame:
    from plotnine.data import diamonds

    return diamonds[(diamonds.x > 0) & (diamonds.y.between(0.1, 20)) & (diamonds.z.between(0.1, 20))].astype(
        {"cut": str, "color": str, "clarity": str})


@pytest.fixture(scope="module")
def small(stones: pd.DataFrame) -> pd.DataFrame:
    return stones[stones.carat <= 0.8]


@pytest.fixture
def monitor(project: Settings) -> Monitor:
    return load_monitor(project.root / "environments" / "dev" / "monitor.yml")


@pytest.fixture
def collect(project: Settings) -> Callable[..., None]:
    """Write requests as the endpoint does: one row each, an hour before NOW."""

    def write(rows: pd.DataFrame, collection: str = "model_inputs", version: int = 1, deployment: Deployment = BLUE) -> None:
        path = project.collected / deployment.endpoint / deployment.name / collection / "2026/11/20/11" / f"{version}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        plain = rows.astype(object).where(rows.notna(), None).to_dict("records")
        path.write_text("\n".join(json.dumps({
            "specversion": "1.0", "id": f"{collection}-{version}-{n}", "time": "2026-11-20T11:30:00Z", "data": [row],
            "correlationid": f"{version}-{n}", "modelversion": str(version)}) for n, row in enumerate(plain)))

    return write


def only(monitor: Monitor, *names: str) -> Monitor:
    return replace(monitor, watches=tuple(w for w in monitor.watches if w.name in names))


def monitor_of(*watches: Watch, **more: Any) -> Monitor:
    return Monitor("m", Path("m.yml"), "diamonds", "blue", more.pop("task", "regression"), watches, Trigger("UTC", dt.UTC), **more)


def inputs(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.drop(columns="price")


# Drift


@pytest.mark.parametrize("rows", [100, 300])
def test_random_samples_of_the_reference_are_quiet(
    rows: int, project: Settings, monitor: Monitor, collect: Callable[..., None], small: pd.DataFrame
) -> None:
    for seed in range(5):
        collect(inputs(small.sample(rows, random_state=seed)))
        signals = run_monitor(project, only(monitor, "inputs", "quality"), BLUE, {"training": small}, now=NOW)
        assert len(signals) == 9 * 2 + 9 * 3
        assert [s for s in signals if s.breached] == []


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_bigger_stones_are_drift(
    share: float, project: Settings, monitor: Monitor, collect: Callable[..., None], small: pd.DataFrame, stones: pd.DataFrame
) -> None:
    big = stones[stones.carat > 0.8]
    for seed in range(3):
        many = int(100 * share)
        collect(inputs(pd.concat([small.sample(100 - many, random_state=seed), big.sample(many, random_state=seed)])))
        signals = run_monitor(project, only(monitor, "inputs", "quality"), BLUE, {"training": small}, now=NOW)
        breached = {(s.feature, s.metric) for s in signals if s.breached}
        assert {("carat", "normalized_wasserstein_distance"), ("carat", "jensen_shannon_distance"),
                ("carat", "out_of_bounds_rate")} <= breached
    for signal in signals:
        shown = signal.detail.get("distribution")
        assert (shown is not None) == (signal.breached and signal.type in ("data_drift", "prediction_drift")), "only what moved is kept"
        assert shown is None or (sum(shown["reference"]), sum(shown["production"])) == (pytest.approx(1, abs=1e-3),) * 2


@pytest.mark.skipif(not SHARED.is_dir(), reason="the collected iris files are not here")
@pytest.mark.parametrize(("folder", "drifted"), [("iris_model_inputs_no_drift", False), ("iris_model_inputs_with_drift", True)])
def test_the_iris_files(folder: str, drifted: bool, project: Settings, monitor: Monitor) -> None:
    """The files with which Azure ML's own monitoring is tried out."""
    place = project.collected / "iris" / "blue" / "model_inputs"
    shutil.copytree(SHARED / "data" / "monitoring" / folder, place)
    baseline = pd.read_csv(SHARED / "data" / "monitoring" / "iris_baseline.csv")
    iris, blue = retarget(monitor, "iris", "blue", "classification", "target"), Deployment("iris", "blue", "model:dev.iris/1", "dev")
    now = dt.datetime(2023, 1, 2, tzinfo=dt.UTC)
    signals = run_monitor(project, only(iris, "inputs", "quality"), blue, {"training": baseline}, now=now, minimum_rows=20)
    assert {s.feature for s in signals if s.breached} == (set(baseline.columns) - {"target"} if drifted else set())


@pytest.mark.skipif(not SHARED.is_dir(), reason="the collected iris files are not here")
@pytest.mark.parametrize(("folder", "side", "kind"), [
    ("iris_model_outputs_no_drift", "model_outputs", "prediction_drift"),
    ("iris_model_inputs_outputs_no_drift", "model_inputs", "data_drift")])
def test_the_iris_answers_are_quiet(folder: str, side: str, kind: str, project: Settings) -> None:
    """Answers alone, and questions and answers in one file; some of these files end without a line's end."""
    shutil.copytree(SHARED / "data" / "monitoring" / folder, project.collected / "iris" / "blue" / side)
    baseline = pd.read_csv(SHARED / "data" / "monitoring" / "iris_baseline.csv")
    drift = {"numerical": {"jensen_shannon_distance": 0.3}, "categorical": {"jensen_shannon_distance": 0.3}}
    watch = Watch("iris", kind, drift, columns={"target_column": "target"}, collection=side, size=dt.timedelta(days=1))
    blue, now = Deployment("iris", "blue", "model:dev.iris/1", "dev"), dt.datetime(2023, 1, 2, tzinfo=dt.UTC)
    signals = run_monitor(project, monitor_of(watch), blue, {"training": baseline}, now=now, minimum_rows=20)
    assert signals
    assert all(s.value is not None and not s.breached for s in signals)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the service's table of answers and truth is not here")
def test_the_service_s_table_of_answers_and_truth(project: Settings, collect: Callable[..., None]) -> None:
    frame = pd.read_csv(SHARED / "data" / "monitoring" / "model_performance_production_data.csv")
    collect(frame[["classification", "regression"]].assign(id=frame["correlationid"]), "model_outputs")
    for task, metric in (("classification", "accuracy"), ("regression", "root_mean_squared_error")):
        watch = Watch("p", "model_performance", {task: {metric: 0.9}}, "ground_truth", size=dt.timedelta(days=1),
                      columns={"target_column": f"{task}-targetvalue", "correlation_id": "correlationid"},
                      production={"prediction": task, "correlation_id": "id"})
        (signal,) = run_monitor(project, monitor_of(watch, task=task), BLUE, {"ground_truth": frame}, now=NOW, minimum_rows=5)
        answers, truth = frame[task], frame[f"{task}-targetvalue"]
        wanted = (answers == truth).mean() if task == "classification" else ((answers - truth) ** 2).mean() ** 0.5
        assert signal.value == pytest.approx(wanted)
        assert signal.breached == (wanted < 0.9 if task == "classification" else wanted > 0.9)


def test_predictions_are_compared_with_those_on_the_hold_out(
    project: Settings, monitor: Monitor, collect: Callable[..., None], small: pd.DataFrame
) -> None:
    watch = only(monitor, "predictions")
    collect(pd.DataFrame({"prediction": small.price.sample(200, random_state=0)}), "model_outputs")
    for reference in (small[["price"]], small[["price"]].rename(columns={"price": "prediction"})):
        assert not any(s.breached for s in run_monitor(project, watch, BLUE, {"validation": reference}, now=NOW))
    collect(pd.DataFrame({"prediction": small.price.sample(200, random_state=0) * 3}), "model_outputs")
    signals = run_monitor(project, watch, BLUE, {"validation": small}, now=NOW)
    assert [s.breached for s in signals] == [True, True]
    assert {s.feature for s in signals} == {"prediction"}


def test_a_retrained_model_is_judged_by_its_own_requests(
    project: Settings, monitor: Monitor, collect: Callable[..., None], small: pd.DataFrame, stones: pd.DataFrame
) -> None:
    collect(inputs(stones[stones.carat > 0.8].sample(100, random_state=0)), version=1)
    collect(inputs(small.sample(100, random_state=0)), version=2)
    watch = only(monitor, "inputs")
    assert not any(s.breached for s in run_monitor(project, watch, BLUE, {"training": small}, model_version=2, now=NOW))
    assert any(s.breached for s in run_monitor(project, watch, BLUE, {"training": small}, model_version=1, now=NOW))
    assert any(s.breached for s in run_monitor(project, watch, BLUE, {"training": small}, now=NOW))


def test_the_type_of_a_feature_may_be_overridden(project: Settings, collect: Callable[..., None], monitor: Monitor) -> None:
    (watch,) = only(monitor, "inputs").watches
    reference = pd.DataFrame({"shelf": RANDOM.integers(0, 5, 500)})
    collect(pd.DataFrame({"shelf": RANDOM.integers(0, 5, 100).astype(float)}))
    for kind, metrics in (("numerical", {"normalized_wasserstein_distance", "jensen_shannon_distance"}),
                          ("categorical", {"jensen_shannon_distance", "population_stability_index"})):
        forced = replace(monitor, watches=(replace(watch, types={"shelf": kind}, top=0),))
        signals = run_monitor(project, forced, BLUE, {"training": reference}, now=NOW)
        assert {s.metric for s in signals} == metrics
        assert not any(s.breached for s in signals)


def test_only_the_most_important_features_are_looked_at(
    project: Settings, monitor: Monitor, collect: Callable[..., None], small: pd.DataFrame
) -> None:
    collect(inputs(small.sample(100, random_state=0)))
    (watch,) = only(monitor, "inputs").watches
    top = replace(monitor, watches=(replace(watch, top=4),))
    signals = run_monitor(project, top, BLUE, {"training": small}, now=NOW)
    found = {s.feature for s in signals}
    assert len(found) == 4
    assert {"carat", "clarity", "x"} < found


# Data quality


def test_a_broken_source_is_investigated_before_anything_is_retrained(
    project: Settings, monitor: Monitor, collect: Callable[..., None], small: pd.DataFrame
) -> None:
    sent = inputs(small.sample(100, random_state=0)).astype({"depth": object, "carat": object})
    sent.iloc[:10, sent.columns.get_loc("depth")] = None
    sent.iloc[:20, sent.columns.get_loc("carat")] = "heavy"
    sent["cut"] = ["Rough"] * 5 + list(sent["cut"][5:])
    collect(sent.drop(columns="table"))
    signals = run_monitor(project, only(monitor, "inputs", "quality"), BLUE, {"training": small}, now=NOW)
    rates = {(s.feature, s.metric): s.value for s in signals if s.name == "quality" and s.breached}
    assert rates == {("depth", "null_value_rate"): 0.1, ("carat", "data_type_error_rate"): 0.2, ("cut", "out_of_bounds_rate"): 0.05,
                     ("table", "null_value_rate"): 1.0}
    lost = [s for s in signals if s.name == "inputs" and s.feature == "table"]
    assert all((s.value, s.breached, s.problem) == (None, True, "no such column in production") for s in lost)


# Performance


@pytest.fixture
def answered(collect: Callable[..., None]) -> pd.DataFrame:
    """A hundred answers, each 100 dollars too high, and their true prices by row id."""
    price = RANDOM.uniform(500, 5000, 100)
    collect(pd.DataFrame({"prediction": price + 100}), "model_outputs")
    return pd.DataFrame({"correlationid": [f"1-{n}_0" for n in range(100)], "price": price}).sample(frac=1, random_state=0)


def test_the_truth_finds_its_answer_by_id(project: Settings, monitor: Monitor, answered: pd.DataFrame) -> None:
    watch = only(monitor, "performance")
    (fine,) = run_monitor(project, watch, BLUE, {"ground_truth": answered}, now=NOW)
    assert (round(fine.value or 0), fine.breached) == (100, False)
    (bad,) = run_monitor(project, watch, BLUE, {"ground_truth": answered.assign(price=answered.price + 900)}, now=NOW)
    assert (round(bad.value or 0), bad.breached) == (800, True)


def test_late_truth_is_waited_for(project: Settings, monitor: Monitor, answered: pd.DataFrame) -> None:
    watch = only(monitor, "performance")
    (none,) = run_monitor(project, watch, BLUE, {}, now=NOW)
    (few,) = run_monitor(project, watch, BLUE, {"ground_truth": answered.head(10)}, now=NOW)
    assert (none.value, none.breached, none.problem) == (None, False, "no reference data for context 'ground_truth'")
    assert (few.value, few.breached) == (None, False)
    assert few.problem == "ground truth for only 10 of 100 answers so far"


def test_a_classifier_that_gets_better_does_not_alert(project: Settings, monitor: Monitor, collect: Callable[..., None]) -> None:
    """Known defect 2: the service alerts when accuracy is above its threshold."""
    (watch,) = only(monitor, "performance").watches
    watch = replace(watch, thresholds={"classification": {"accuracy": 0.9}}, columns={"target_column": "cut"})
    monitor = replace(monitor, task="classification", watches=(watch,))
    truth = pd.DataFrame({"correlationid": [f"1-{n}_0" for n in range(100)], "cut": ["Good", "Ideal"] * 50})
    for right, breached in ((95, False), (85, True)):
        collect(pd.DataFrame({"prediction": [*truth.cut[:right], *["Fair"] * (100 - right)]}), "model_outputs")
        (signal,) = run_monitor(project, monitor, BLUE, {"ground_truth": truth}, now=NOW)
        assert (signal.value, signal.breached) == (right / 100, breached)


# Never silence


def test_an_idle_endpoint_is_seen_and_does_not_alert(
    project: Settings, monitor: Monitor, collect: Callable[..., None], small: pd.DataFrame
) -> None:
    collect(inputs(small.head(99)))
    watched = only(monitor, "inputs", "predictions", "quality", "performance", "attribution")
    signals = run_monitor(project, watched, BLUE, {"training": small}, now=NOW)
    assert {s.name for s in signals} == {w.name for w in watched.watches}
    assert {s.problem for s in signals if s.name == "inputs"} == {"only 99 rows in the window, 100 needed"}
    assert not any(s.breached for s in signals)


@pytest.mark.parametrize(("references", "problem"), [
    ({}, "no reference data for context 'training'"),
    ({"training": pd.DataFrame({"other": [1.0] * 50})}, "no such column in production"),
])
def test_what_cannot_be_computed_is_a_failed_signal(
    references: dict, problem: str, project: Settings, monitor: Monitor, collect: Callable[..., None], small: pd.DataFrame
) -> None:
    """Known defect 3: the service drops such a signal, and nobody hears of it."""
    collect(inputs(small.sample(100, random_state=0)))
    signals = run_monitor(project, only(monitor, "inputs"), BLUE, references, now=NOW)
    assert {(s.value, s.breached, s.problem) for s in signals} == {(None, True, problem)}


@pytest.mark.parametrize(("empty", "breached"), [(0.3, False), (0.6, True)])
def test_rows_lost_to_nulls_are_told_from_an_idle_endpoint(
    empty: float, breached: bool, project: Settings, monitor: Monitor, collect: Callable[..., None], small: pd.DataFrame
) -> None:
    sent = inputs(small.sample(120, random_state=0))
    sent.iloc[: int(120 * empty), sent.columns.get_loc("depth")] = None
    collect(sent)
    signals = run_monitor(project, only(monitor, "inputs"), BLUE, {"training": small}, now=NOW)
    complete = 120 - int(120 * empty)
    assert {s.problem for s in signals} == {f"only {complete} of 120 rows without a null, 100 needed"}
    assert {s.breached for s in signals} == {breached}


def test_a_segment_that_is_not_there_is_a_failed_signal(
    project: Settings, monitor: Monitor, collect: Callable[..., None], small: pd.DataFrame
) -> None:
    collect(inputs(small.sample(200, random_state=0)))
    (watch,) = only(monitor, "inputs").watches
    for feature, expected in (("cut", set()), ("season", {"no column 'season' to take the segment from"})):
        part = replace(monitor, watches=(replace(watch, segment=(feature, ("Ideal", "Premium"))),))
        signals = run_monitor(project, part, BLUE, {"training": small}, now=NOW)
        assert {s.problem for s in signals if s.breached} == expected


# People

BREACHED = Signal("inputs", "data_drift", "carat", "normalized_wasserstein_distance", 4.9, 0.3, True)
QUIET = Signal("inputs", "data_drift", "cut", "jensen_shannon_distance", 0.1, 0.2, False)
LOST = Signal("quality", "data_quality", "x", "null_value_rate", None, 0.0, True, "no such column in reference")
WATCHED = Signal("traffic", "custom", "", "RequestsPerMinute", 12.0, None, False, segment="cut=Ideal", detail={"since": "2026"})


def test_the_table_shows_first_what_needs_a_person(small: pd.DataFrame, stones: pd.DataFrame, tmp_path: Path) -> None:
    table = signals_table([WATCHED, QUIET, BREACHED, LOST])
    assert list(table["feature"]) == ["x", "carat", "cut", ""]
    assert str(WATCHED) == "traffic cut=Ideal RequestsPerMinute: 12"
    assert str(LOST) == "quality x null_value_rate: no such column in reference"
    assert signals_table([]).empty
    asked = stones.head(300)
    plots = [plot_signals([QUIET, BREACHED, WATCHED]), plot_signals([LOST]), plot_feature(small, asked, "carat"),
             plot_feature(small, asked, "cut")]
    for number, plot in enumerate(plots):
        plot.save(tmp_path / f"{number}.png", verbose=False, width=4, height=3)
        assert (tmp_path / f"{number}.png").stat().st_size > 1000


# Any number of features


def test_holm_and_benjamini_hochberg_agree_with_their_definitions() -> None:
    p = [0.01, 0.04, 0.03, 0.005, 0.5]
    assert adjusted(p, "holm") == pytest.approx([0.04, 0.09, 0.09, 0.025, 0.5])
    assert adjusted(p, "benjamini_hochberg") == pytest.approx([0.025, 0.05, 0.05, 0.025, 0.5])


@pytest.mark.parametrize(("correction", "alarmed"), [("", True), ("holm", False), ("benjamini_hochberg", False)])
def test_forty_quiet_features_raise_no_alarm_by_chance(
    correction: str, alarmed: bool, project: Settings, collect: Callable[..., None]
) -> None:
    """Of forty tests at 0.05, two fall below by chance alone."""
    random = np.random.default_rng(3)
    names = [f"f{n}" for n in range(40)]
    reference = pd.DataFrame(random.normal(size=(1000, 40)), columns=names)
    collect(pd.DataFrame(random.normal(size=(300, 40)), columns=names))
    watch = Watch("inputs", "data_drift", {"numerical": {"two_sample_kolmogorov_smirnov_test": 0.05}})
    signals = run_monitor(project, monitor_of(watch, correction=correction), BLUE, {"training": reference}, now=NOW)
    assert len(signals) == 40
    assert any(s.breached for s in signals) == alarmed
    if correction:
        assert all(s.detail["raw"] <= (s.value or 0) for s in signals)


# References


def test_last_week_is_a_reference_of_its_own(project: Settings, monitor: Monitor, small: pd.DataFrame, stones: pd.DataFrame) -> None:
    """The reference rolls: what was asked yesterday is compared with what was asked the week before."""
    def write(day: int, rows: pd.DataFrame) -> None:
        path = project.collected / "diamonds" / "blue" / "model_inputs" / f"2026/11/{day}/11" / "one.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text("\n".join(json.dumps({"specversion": "1.0", "id": f"{day}-{n}", "time": f"2026-11-{day}T11:30:00Z",
                                              "data": [row], "correlationid": f"{day}-{n}"})
                                  for n, row in enumerate(inputs(rows).to_dict("records"))))

    day = dt.timedelta(days=1)
    write(15, small.sample(300, random_state=1))
    write(19, small.sample(300, random_state=2))
    (watch,) = only(monitor, "inputs").watches
    rolling = replace(watch, context="model_inputs", columns={}, top=0, size=day, baseline=Span(7 * day, day))
    calm = run_monitor(project, monitor_of(rolling), BLUE, {}, now=NOW - day)
    write(20, stones[stones.carat > 0.8].sample(300, random_state=3))
    moved = run_monitor(project, monitor_of(rolling), BLUE, {}, now=NOW)
    assert {s.feature for s in calm} == {s.feature for s in moved} == set(inputs(small).columns)
    assert not any(s.breached for s in calm)
    assert any(s.breached and s.feature == "carat" for s in moved)
    fixed = replace(rolling, baseline=Span(start=NOW - 2 * day, end=NOW))
    assert {(s.value, s.breached) for s in run_monitor(project, monitor_of(fixed), BLUE, {}, now=NOW)} == {(None, True)}
    for span, breached in ((Span(7 * day, 30 * day), False), (Span(start=NOW - 20 * day, end=NOW - 10 * day), True)):
        (first, *_) = run_monitor(project, monitor_of(replace(rolling, baseline=span)), BLUE, {}, now=NOW)
        assert (first.breached, first.problem) == (breached, "only 0 rows in the reference's window, 100 needed")


@pytest.mark.parametrize("key", ["inputs", "azureml:diamonds:1", "training"])
def test_a_reference_is_found_by_signal_by_address_and_by_context(
    key: str, project: Settings, monitor: Monitor, collect: Callable[..., None], small: pd.DataFrame
) -> None:
    collect(inputs(small.sample(200, random_state=0)))
    signals = run_monitor(project, only(monitor, "inputs"), BLUE, {key: small}, now=NOW)
    assert signals
    assert all(s.value is not None for s in signals)


def test_a_segment_of_the_answers_is_chosen_by_the_questions(
    project: Settings, collect: Callable[..., None], small: pd.DataFrame
) -> None:
    """The model is bad at ideal cuts only; nothing but the questions says which those are."""
    rows = small.sample(400, random_state=5)
    collect(inputs(rows))
    collect(pd.DataFrame({"prediction": rows.price + (rows.cut == "Ideal") * 1000}), "model_outputs")
    truth = pd.DataFrame({"correlationid": [f"1-{n}" for n in range(400)], "price": rows.price.to_numpy()})
    watch = Watch("performance", "model_performance", {"regression": {"mean_absolute_error": 500.0}}, "ground_truth",
                  columns={"target_column": "price"}, size=dt.timedelta(days=1))
    parts = [replace(watch, segment=("cut", values)) for values in (("Ideal",), ("Good", "Fair"))]
    signals = run_monitor(project, monitor_of(*parts), BLUE, {"ground_truth": truth}, now=NOW, minimum_rows=20)
    assert [(s.segment, s.value, s.breached) for s in signals] == [("cut=Ideal", 1000, True), ("cut=Good,Fair", 0, False)]


# Performance that nobody can tell


def test_truth_that_never_comes_is_a_failed_signal(project: Settings, monitor: Monitor, answered: pd.DataFrame) -> None:
    """Answers of yesterday may wait; a month later they have waited for too long."""
    day = dt.timedelta(days=1)
    watched = replace(only(monitor, "performance"), patience=30 * day)
    (early,) = run_monitor(project, watched, BLUE, {}, now=NOW)
    assert (early.value, early.breached) == (None, False)
    later = project.collected / "diamonds" / "blue" / "model_outputs" / "2026/12/20/11"
    shutil.copytree(project.collected / "diamonds" / "blue" / "model_outputs" / "2026/11/20/11", later)
    (overdue,) = run_monitor(project, watched, BLUE, {}, now=NOW + 30 * day)
    assert (overdue.value, overdue.breached) == (None, True)
    assert overdue.problem == "ground truth never came: 0 of 100 answers from before 2026-11-20 have theirs"
    (patient,) = run_monitor(project, replace(watched, patience=60 * day), BLUE, {}, now=NOW + 30 * day)
    assert not patient.breached


def test_thresholds_of_the_other_task_are_a_failed_signal(project: Settings, monitor: Monitor, answered: pd.DataFrame) -> None:
    other = replace(only(monitor, "performance"), task="classification")
    (signal,) = run_monitor(project, other, BLUE, {"ground_truth": answered}, now=NOW)
    assert signal.breached
    assert "thresholds of regression, but the monitor's task is classification" in signal.problem


def test_a_model_that_is_gone_is_said_first(
    project: Settings, monitor: Monitor, collect: Callable[..., None], small: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect(inputs(small.sample(100, random_state=0)))
    watched = only(monitor, "inputs")
    before = run_monitor(project, watched, BLUE, {"training": small}, now=NOW)  # no registry: nothing to ask
    registry = project.model_copy(update={"tracking_uri": (project.root / "registry").as_uri()})
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # made in no time, unlike a database
    gone, *others = run_monitor(registry, watched, BLUE, {"training": small}, now=NOW)
    assert (gone.name, gone.metric, gone.breached) == ("inputs", "model", True)
    assert "model:dev.diamonds/1 is gone from the registry" in gone.problem
    assert others == before


# Custom signals


COMPONENT = """
type: command
name: spread
inputs:
  production_data: {type: mltable}
  reference_data: {type: mltable}
  data_window_start: {type: string}
  spread_threshold: {type: number, default: 0}
  column: {type: string}
  note: {type: string, optional: true}
outputs: {signal_metrics: {type: mltable}}
code: .
command: python spread.py ${{inputs.production_data}} ${{inputs.reference_data}} ${{inputs.column}} ${{inputs.data_window_start}}
  ${{inputs.spread_threshold}} $[[--note ${{inputs.note}}]] ${{outputs.signal_metrics}}
"""
SCRIPT = """
import pandas, pathlib, sys
production, reference, column, start, threshold, place = sys.argv[1:]
assert pathlib.Path(production, "MLTable").is_file() and start == "2026-11-19T12:00:00Z"
p, b = (pandas.read_parquet(pathlib.Path(f, "data.parquet"))[column] for f in (production, reference))
rows = [["", "spread", p.std() / b.std(), threshold], ["all", "mean", p.mean(), None], ["all", "median", None, 3.0]]
pandas.DataFrame(rows, columns=["group", "metric_name", "metric_value", "threshold_value"]).to_csv(pathlib.Path(place, "metrics.csv"))
"""


@pytest.fixture
def spread(project: Settings) -> Watch:
    """Lay a component of the project's own, and return a signal that uses it."""
    folder = project.root / "ci" / "components"
    folder.mkdir(parents=True)
    (folder / "spread.yml").write_text(COMPONENT)
    (folder / "spread.py").write_text(SCRIPT)
    sources = {"production_data": Source("model_inputs"), "reference_data": Source("training")}
    return Watch("spread", "custom", {"all": {"spread": 1.5, "skew": 1.0}}, component="spread", parameters={"column": "carat"},
                 size=dt.timedelta(days=1), sources=sources)


def test_a_component_of_the_project_computes_a_signal(
    project: Settings, spread: Watch, collect: Callable[..., None], small: pd.DataFrame, stones: pd.DataFrame
) -> None:
    collect(inputs(stones.sample(300, random_state=1)))
    found = {s.metric: s for s in run_monitor(project, monitor_of(spread), BLUE, {"training": small}, now=NOW)}
    wide = found["spread"]
    assert wide.breached
    assert (wide.value or 0) > 1.5
    assert (found["mean"].feature, found["mean"].threshold, found["mean"].breached) == ("all", None, False)
    assert (found["median"].value, found["median"].threshold, found["median"].breached) == (None, 3.0, True)
    assert (found["skew"].breached, found["skew"].problem) == (True, "the component did not compute it")


@pytest.mark.parametrize(("change", "problem"), [
    ({"component": "nobody"}, "no component 'nobody'"),
    ({"parameters": {}}, "inputs column were given nothing"),
    ({"parameters": {"column": "shelf"}}, "the component ended with 1"),
    ({"parameters": {"column": "carat", "colour": 1}}, "the component has no input colour"),
    ({"sources": {"reference_data": Source("test")}}, "no data for input_data.reference_data"),
])
def test_a_component_that_fails_is_a_failed_signal_and_no_others(
    change: dict[str, Any], problem: str, project: Settings, spread: Watch, collect: Callable[..., None], small: pd.DataFrame
) -> None:
    collect(inputs(small.sample(100, random_state=1)))
    quality = Watch("quality", "data_quality", {"numerical": {"null_value_rate": 0.0}}, features=("x", "y"), size=dt.timedelta(days=1))
    signals = run_monitor(project, monitor_of(replace(spread, **change), quality), BLUE, {"training": small}, now=NOW)
    assert all(s.breached and problem in s.problem for s in signals if s.name == "spread")
    assert all(s.value == 0 for s in signals if s.name == "quality")


def test_a_judge_that_is_only_on_azure_is_not_passed_over(project: Settings) -> None:
    (signal,) = run_monitor(project, monitor_of(Watch("answers", "generation_safety_quality", {})), BLUE, {}, now=NOW)
    assert signal.breached
    assert "Azure ML only" in signal.problem


def test_a_built_in_component_that_is_missing_says_so(project: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BUILT_IN, "mlops_nb_planets", "mlops_nb.outer_loop.planets:planets")
    watch = Watch("planets", "custom", {"all": {"phase": 1.0}}, component="mlops_nb_planets")
    (signal,) = run_monitor(project, monitor_of(watch), BLUE, {}, now=NOW)
    assert (signal.breached, signal.problem) == (True, "mlops_nb.outer_loop.planets is missing")


def test_a_signal_sees_what_earlier_windows_found(project: Settings, spread: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    from types import ModuleType

    from mlops_nb.outer_loop.signals import Measure

    module = ModuleType("before")
    module.last = lambda asked: [Measure("last", asked.past("spread", "")[-1][1])]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "before", module)
    monkeypatch.setitem(BUILT_IN, "mlops_nb_before", "before:last")
    for days, value in ((3, 1.0), (2, 7.0), (0, 9.0)):
        end = NOW - dt.timedelta(days=days)
        signal = Signal("spread", "custom", "", "spread", value, 1.5, False)
        history.record(project, "m", BLUE.uri, (end - dt.timedelta(days=1), end), [signal])
    watch = Watch("change", "custom", {"all": {"last": 100.0}}, component="mlops_nb_before", parameters={"signal": "spread"})
    (signal,) = run_monitor(project, monitor_of(watch), BLUE, {}, now=NOW)
    assert signal.value == 7.0  # today's own window is no past


# A whole file

BIKES = """
$schema: http://azureml/sdk-2-0/Schedule.json
name: bikes_daily
properties: {mlops_nb.minimum_rows: "50", mlops_nb.correction: benjamini_hochberg}
trigger: {type: recurrence, frequency: day, interval: 1}
create_monitor:
  compute: {instance_type: standard_e4s_v3, runtime_version: "3.4"}
  monitoring_target: {ml_task: classification, endpoint_deployment_id: "azureml:bikes-ep:blue"}
  monitoring_signals:
    drift:
      type: data_drift
      reference_data: &training
        input_data: {path: "azureml:bikes-train:1", type: mltable}
        data_context: training
        data_column_names: {target_column: busy}
      features: {top_n_feature_importance: 2}
      feature_type_override: {hr: categorical}
      data_segment: {feature_name: season, feature_values: ["1", "2"]}
      metric_thresholds:
        numerical: {two_sample_kolmogorov_smirnov_test: 0.001, population_stability_index: 0.5}
        categorical: {pearsons_chi_squared_test: 0.001, jensen_shannon_distance: 0.3}
    earlier:
      type: prediction_drift
      reference_data:
        input_data: {path: "azureml:bikes-ep-outputs:1", type: uri_folder}
        data_context: model_outputs
        data_window: {lookback_window_size: default, lookback_window_offset: default}
      metric_thresholds: {categorical: {jensen_shannon_distance: 0.2}}
    quality:
      type: data_quality
      features: [temp, hum]
      reference_data: *training
      metric_thresholds: {numerical: {null_value_rate: 0.01, data_type_error_rate: 0.01, out_of_bounds_rate: 0.05}}
    attribution:
      type: feature_attribution_drift
      reference_data: *training
      metric_thresholds: {normalized_discounted_cumulative_gain: 0.8}
    performance:
      type: model_performance
      production_data:
        input_data: {path: "azureml:bikes-ep-outputs:1", type: uri_folder}
        data_context: model_outputs
        data_column_names: {prediction: busy_pred}
      reference_data:
        input_data: {path: "azureml:bikes-truth:1", type: mltable}
        data_context: ground_truth
        data_column_names: {target_column: busy}
      data_segment: {feature_name: season, feature_values: ["1"]}
      metric_thresholds: {classification: {accuracy: 0.9, precision: 0.9, recall: 0.9}}
    spread:
      type: custom
      component_id: azureml:spread:1
      inputs: {column: {type: uri_file, path: temp}}
      input_data:
        production_data: {input_data: {path: "azureml:bikes-ep-inputs:1", type: uri_folder}, data_context: model_inputs}
        reference_data: {input_data: {path: "azureml:bikes-train:1", type: mltable}, data_context: training}
      metric_thresholds: [{metric_name: spread, threshold: 2}, {metric_name: mean}]
    all_columns:
      type: custom
      component_id: azureml:mlops_nb_multivariate_drift:1
      input_data: {reference_data: *training}
      metric_thresholds: [{metric_name: domain_classifier_auc, threshold: 0.6}]
"""


def bikes(rows: int, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    frame = pd.DataFrame({"hr": random.integers(0, 24, rows), "season": random.integers(1, 5, rows),
                          "temp": random.normal(15, 8, rows), "hum": random.uniform(20, 100, rows)})
    return frame.assign(busy=np.where((frame["temp"] > 12) & frame["hr"].between(7, 19), "yes", "no"))


@pytest.mark.slow
@pytest.mark.parametrize("which", ["own", "shared"])
def test_a_file_of_all_signals_runs_on_what_a_local_endpoint_collected(which: str, project: Settings, tmp_path: Path) -> None:
    """Every signal of the file is computed, and quiet; a broken sensor and a wrong model are then found by the right ones."""
    if which == "own":
        (tmp_path / "bikes.yml").write_text(BIKES)
        (project.root / "ci" / "components").mkdir(parents=True)
        (project.root / "ci" / "components" / "spread.yml").write_text(COMPONENT)
        script = SCRIPT.replace('start == "2026-11-19T12:00:00Z"', "start").replace('"median", None', '"median", 1.0')
        (project.root / "ci" / "components" / "spread.py").write_text(script)
    path = tmp_path / "bikes.yml" if which == "own" else SHARED / "monitor-schedule-example.yml"
    if not path.is_file():
        pytest.skip("the example of all signals is not here")
    blue = Deployment("bikes-ep", "blue", "model:dev.bikes/1", "dev")
    end, day = dt.datetime(2026, 11, 21, tzinfo=dt.UTC), dt.timedelta(days=1)

    def collect(at: dt.datetime, rows: pd.DataFrame, answers: pd.Series) -> None:
        for side, frame in (("model_inputs", rows.drop(columns="busy")), ("model_outputs", answers.to_frame("busy_pred"))):
            place = project.collected / "bikes-ep" / "blue" / side / f"{at:%Y/%m/%d/%H}" / "one.jsonl"
            place.parent.mkdir(parents=True)
            place.write_text("\n".join(json.dumps({"specversion": "1.0", "id": f"{at:%d}-{n}", "time": at.isoformat(), "data": [row],
                                                   "correlationid": f"{at:%d}-{n}"}) for n, row in enumerate(frame.to_dict("records"))))

    train, fine, odd = bikes(4000, 0), bikes(600, 1), bikes(600, 2)
    odd = odd.assign(temp=odd["temp"].where(odd.index % 2 == 0, 99.0))
    truth = pd.concat([fine.busy, odd.busy], ignore_index=True).to_frame("busy")
    truth["correlationid"] = [f"{at}-{n}" for at in ("20", "28") for n in range(600)]
    references = {"training": train, "validation": train.assign(busy_pred=train.busy), "ground_truth": truth}
    collect(end - 3 * day, bikes(600, 3), bikes(600, 3).busy)
    collect(end - day / 2, fine, fine.busy)
    collect(end + 7 * day, odd, pd.Series(["yes"] * 600))
    monitor = load_monitor(path)
    before = run_monitor(project, monitor, blue, references, now=end)
    assert {s.name for s in before} == {w.name for w in monitor.watches}
    limits = [s for s in before if s.threshold is not None]
    assert [s for s in limits if s.value is None] == []
    after = run_monitor(project, monitor, blue, references, now=end + 7.5 * day)
    loud = {s.name for s in after if s.breached}
    assert {"quality", "performance"} < loud
    assert {"drift", "inputs_drift"} & loud
    if which == "own":
        assert [s for s in before if s.breached] == []
        assert {s.segment for s in after if s.name == "performance"} == {"season=1"}
        assert "all_columns" in loud
        (rolled,) = [s for s in after if s.name == "earlier"]
        assert (rolled.breached, rolled.problem) == (False, "only 0 rows in the reference's window, 50 needed")
