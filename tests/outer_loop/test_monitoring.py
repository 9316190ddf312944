"""A monitor speaks when production moved or could not be looked at, and is quiet otherwise."""

import datetime as dt
import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from mlops_nb.core.ledger import entries
from mlops_nb.core.records import Deployment, Signal, SpecificationError
from mlops_nb.core.settings import Settings
from mlops_nb.outer_loop.actions import decide
from mlops_nb.outer_loop.monitoring import (
    Monitor,
    alert,
    load_monitor,
    parse_duration,
    plot_feature,
    plot_signals,
    retarget,
    run_monitor,
    signals_table,
    window_of,
)

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
    return Monitor(**{**vars(monitor), "watches": tuple(w for w in monitor.watches if w.name in names)})


def inputs(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.drop(columns="price")


# The file


@pytest.mark.parametrize("environment", ["dev", "staging", "prod"])
def test_azure_and_we_read_the_same_monitor(environment: str) -> None:
    logging.disable(logging.WARNING)
    from azure.ai.ml.entities._load_functions import load_schedule

    path = ROOT / "environments" / environment / "monitor.yml"
    theirs, ours = load_schedule(path), load_monitor(path)
    logging.disable(logging.NOTSET)
    assert theirs._to_rest_object()
    assert (theirs.name, list(theirs.create_monitor.monitoring_signals)) == (ours.name, [w.name for w in ours.watches])
    assert theirs.create_monitor.monitoring_target.endpoint_deployment_id == f"azureml:{ours.endpoint}:{ours.deployment}"
    for watch in ours.watches:
        declared = theirs.create_monitor.monitoring_signals[watch.name]
        assert declared.alert_enabled == watch.alert
        assert parse_duration(declared.production_data.data_window.lookback_window_size) == watch.size
        for group in ("numerical", "categorical"):
            if group in watch.thresholds:
                read = vars(getattr(declared.metric_thresholds, group))
                assert {metric: value for metric, value in read.items() if value is not None} == watch.thresholds[group]


def test_no_threshold_is_lost(monitor: Monitor, tmp_path: Path) -> None:
    """Known defect 4: azure-ai-ml drops a threshold of 0 and cannot load those of a regression."""
    found = {watch.name: watch.thresholds for watch in monitor.watches}
    assert found["quality"]["numerical"]["data_type_error_rate"] == 0.0
    assert found["performance"] == {"regression": {"mean_absolute_error": 500.0}}
    content = yaml.safe_load(monitor.path.read_text())
    signal = content["create_monitor"]["monitoring_signals"]["performance"]
    del signal["properties"]
    for given in ({"mae": 9}, {"mean_absolute_error": 9}):
        signal["metric_thresholds"] = {"regression": given}
        (tmp_path / "m.yml").write_text(yaml.safe_dump(content))
        (watch,) = only(load_monitor(tmp_path / "m.yml"), "performance").watches
        assert watch.thresholds == {"regression": {"mean_absolute_error": 9.0}}


def test_all_faults_of_a_file_are_listed_at_once(monitor: Monitor, tmp_path: Path) -> None:
    content = yaml.safe_load(monitor.path.read_text())
    create = content["create_monitor"]
    content["trigger"] = {"type": "cron", "expression": "0 25 * * *"}
    create["monitoring_target"] = {"ml_task": "guessing", "endpoint_deployment_id": "diamonds"}
    signals = create["monitoring_signals"]
    signals["inputs"]["metric_thresholds"] = {"numerical": {"chebyshev": 0.1, "jensen_shannon_distance": "high"}, "text": {"a": 1}}
    signals["predictions"]["type"] = "prediction_shift"
    signals["quality"]["production_data"]["data_window"] = {"lookback_window_size": "7 days"}
    signals["performance"]["properties"] = {}
    (tmp_path / "bad.yml").write_text(yaml.safe_dump(content))
    with pytest.raises(SpecificationError) as raised:
        load_monitor(tmp_path / "bad.yml")
    faults = raised.value.faults
    lines = (tmp_path / "bad.yml").read_text().splitlines()
    assert all("guessing" in lines[int(fault.split(":")[1]) - 1] for fault in faults if "ml_task" in fault)
    for part in ("expression: hours '25': 25 is not between 0 and 23", "endpoint_deployment_id: write", "ml_task: 'guessing'",
                 "inputs.metric_thresholds.numerical.chebyshev: unknown metric",
                 "inputs.metric_thresholds.numerical.jensen_shannon_distance: 'high' is no number",
                 "inputs.metric_thresholds.text: unknown group", "predictions.type: unknown signal type 'prediction_shift'",
                 "quality.production_data.data_window.lookback_window_size: '7 days' is no duration",
                 "performance.metric_thresholds: none given"):
        assert any(part in fault for fault in faults), part


@pytest.mark.parametrize("text", ["", "[1, 2]", "just text", "create_monitor: [1]", "a: [",
                                  "create_monitor: {monitoring_signals: {a: 1}}"])
def test_a_file_of_another_shape_is_refused_with_its_name(text: str, tmp_path: Path) -> None:
    (tmp_path / "odd.yml").write_text(text)
    with pytest.raises(SpecificationError, match=r"odd\.yml"):
        load_monitor(tmp_path / "odd.yml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"No monitor at .*none\.yml"):
        load_monitor(tmp_path / "none.yml")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the example of all signals is not here")
def test_signals_that_only_azure_computes_are_kept_and_shown(project: Settings) -> None:
    monitor = load_monitor(SHARED / "monitor-schedule-example.yml")
    assert monitor.watches[0].segment == ("season", ("1", "2"))
    signals = run_monitor(project, monitor, BLUE, {}, now=NOW)
    (shown,) = [s for s in signals if s.type == "feature_attribution_drift"]
    assert (shown.breached, shown.problem) == (False, "computed by Azure ML only")


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
        assert decide(signals) == "retrain"


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
    raised = alert(project, iris, blue, window_of(iris, now), signals, decide(signals))
    assert (raised is not None) == drifted
    assert {s.feature for s in signals if s.breached} == (set(baseline.columns) - {"target"} if drifted else set())


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
    assert {s.feature for s in signals} == {"carat", "x", "y", "z"}


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
    assert decide(signals) == "investigate"


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
    signals = run_monitor(project, monitor, BLUE, {"training": small}, now=NOW)
    assert {s.name for s in signals} == {"inputs", "predictions", "quality", "performance"}
    assert {s.problem for s in signals if s.name == "inputs"} == {"only 99 rows in the window, 100 needed"}
    assert not any(s.breached for s in signals)
    assert alert(project, monitor, BLUE, window_of(monitor, NOW), signals, decide(signals)) is None
    assert entries(project, action="alert") == []


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
    raised = alert(project, monitor, BLUE, window_of(monitor, NOW), signals, decide(signals))
    assert raised is not None
    assert raised.action == "investigate"


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


# Alerts and people

BREACHED = Signal("inputs", "data_drift", "carat", "normalized_wasserstein_distance", 4.9, 0.3, True)
QUIET = Signal("inputs", "data_drift", "cut", "jensen_shannon_distance", 0.1, 0.2, False)
LOST = Signal("quality", "data_quality", "x", "null_value_rate", None, 0.0, True, "no such column in reference")


def test_an_alert_is_in_the_ledger_and_reaches_people(project: Settings, monitor: Monitor) -> None:
    raised = alert(project, monitor, BLUE, window_of(monitor, NOW), [BREACHED, QUIET, LOST], "investigate")
    assert raised is not None
    assert raised.signals == [BREACHED, LOST]
    assert raised.window == ("2026-11-19T12:00:00+00:00", "2026-11-20T12:00:00+00:00")
    alerted, notice = entries(project, BLUE.uri)
    assert (alerted.action, alerted.inputs, alerted.details["next"]) == ("alert", [BLUE.model], "investigate")
    assert notice.action == "notify"
    assert "carat normalized_wasserstein_distance: 4.9, threshold 0.3" in notice.details["body"]
    assert "no such column in reference" in notice.details["body"]


def test_a_signal_whose_alert_is_off_stays_in_the_table_only(project: Settings, monitor: Monitor) -> None:
    off = Monitor(**{**vars(monitor), "watches": tuple(replace(w, alert=False) for w in monitor.watches)})
    assert alert(project, off, BLUE, window_of(off, NOW), [BREACHED], "retrain") is None


def test_a_persona_without_the_right_raises_no_alert(project: Settings, monitor: Monitor) -> None:
    stranger = project.model_copy(update={"persona": "model_end_user"})
    with pytest.raises(PermissionError, match="may not monitor in dev"):
        alert(stranger, monitor, BLUE, window_of(monitor, NOW), [BREACHED], "retrain")


def test_the_table_shows_first_what_needs_a_person(small: pd.DataFrame, stones: pd.DataFrame, tmp_path: Path) -> None:
    table = signals_table([QUIET, BREACHED, LOST])
    assert list(table["feature"]) == ["x", "carat", "cut"]
    assert signals_table([]).empty
    asked = stones.head(300)
    plots = [plot_signals([QUIET, BREACHED]), plot_signals([LOST]), plot_feature(small, asked, "carat"),
             plot_feature(small, asked, "cut")]
    for number, plot in enumerate(plots):
        plot.save(tmp_path / f"{number}.png", verbose=False, width=4, height=3)
        assert (tmp_path / f"{number}.png").stat().st_size > 1000


@pytest.mark.parametrize(("signals", "action"), [
    ([], "none"), ([QUIET], "none"), ([BREACHED, QUIET], "retrain"), ([LOST], "investigate"), ([BREACHED, LOST], "investigate")])
def test_what_follows(signals: list[Signal], action: str) -> None:
    assert decide(signals) == action


def test_a_policy_of_your_own() -> None:
    policy: dict[str, Any] = {"data_drift": "investigate"}
    assert decide([BREACHED], policy) == "investigate"
