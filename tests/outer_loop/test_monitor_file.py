"""The monitor file is Azure ML's language: what azure-ai-ml takes is taken here with the same meaning, and its faults are named."""

import datetime as dt
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlops_nb.core.records import SpecificationError
from mlops_nb.core.settings import Settings
from mlops_nb.outer_loop.monitor import Monitor, Span, Watch, load_monitor, parse_duration, reference_window_of

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
DAY = dt.timedelta(days=1)
DRIFT: dict[str, Any] = {
    "type": "data_drift", "alert_enabled": True,
    "reference_data": {"input_data": {"path": "azureml:stones:1", "type": "mltable"}, "data_context": "training",
                       "data_column_names": {"target_column": "price"}},
    "metric_thresholds": {"numerical": {"jensen_shannon_distance": 0.1}, "categorical": {"population_stability_index": 0.2}}}
CUSTOM: dict[str, Any] = {"type": "custom", "component_id": "azureml:mlops_nb_errors:1",
                          "metric_thresholds": [{"metric_name": "error_rate", "threshold": 0.01}, {"metric_name": "client_error_rate"}]}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a monitor file of these signals; `top` and `create` say what else stands in it."""

    def to(signals: dict[str, Any] | None = None, create: dict[str, Any] | None = None, **top: Any) -> Path:
        made = {"compute": {"instance_type": "standard_e4s_v3", "runtime_version": "3.4"},
                "monitoring_target": {"ml_task": "regression", "endpoint_deployment_id": "azureml:diamonds:blue"}}
        made |= {"monitoring_signals": signals} if signals is not None else {}
        content = {"$schema": "http://azureml/sdk-2-0/Schedule.json", "name": "stones",
                   "trigger": {"type": "recurrence", "frequency": "day", "interval": 1}, "create_monitor": made | (create or {})} | top
        path = tmp_path / "stones.yml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    return to


def theirs(path: Path) -> Any:
    """Load a file with azure-ai-ml."""
    logging.disable(logging.WARNING)
    from azure.ai.ml.entities._load_functions import load_schedule

    try:
        return load_schedule(path)
    finally:
        logging.disable(logging.NOTSET)


def only(write: Callable[..., Path], entry: dict[str, Any], **top: Any) -> Watch:
    (watch,) = load_monitor(write({"a": entry}, **top)).watches
    return watch


def faults(path: Path) -> list[str]:
    with pytest.raises(SpecificationError) as raised:
        load_monitor(path)
    return raised.value.faults


@pytest.fixture
def monitor(project: Settings) -> Monitor:
    return load_monitor(project.root / "environments" / "dev" / "monitor.yml")


# The same file, here and there


@pytest.mark.parametrize("environment", ["dev", "staging", "prod"])
def test_azure_and_we_read_the_same_monitor(environment: str) -> None:
    path = ROOT / "environments" / environment / "monitor.yml"
    azures, ours = theirs(path), load_monitor(path)
    assert azures._to_rest_object()
    declared = azures.create_monitor.monitoring_signals
    assert (azures.name, list(declared)) == (ours.name, [w.name for w in ours.watches])
    assert azures.create_monitor.monitoring_target.endpoint_deployment_id == f"azureml:{ours.endpoint}:{ours.deployment}"
    for watch in ours.watches:
        signal = declared[watch.name]
        assert signal.alert_enabled == watch.alert
        if watch.type == "custom":
            assert signal.component_id.partition(":")[0].rpartition("/")[2] == watch.component
            assert {t.metric_name: t.threshold for t in signal.metric_thresholds} == watch.thresholds["all"]
            assert {name: str(value.path) for name, value in (signal.inputs or {}).items()}.keys() == watch.parameters.keys()
            continue
        production = signal.production_data[0] if isinstance(signal.production_data, list) else signal.production_data
        assert parse_duration(production.data_window.lookback_window_size) == watch.size
        for group in {"numerical", "categorical"} & set(watch.thresholds):
            read = vars(getattr(signal.metric_thresholds, group))
            assert {metric: value for metric, value in read.items() if value is not None} == watch.thresholds[group]


SIGNALS = {
    "list": DRIFT | {"features": ["carat", "cut"], "feature_type_override": {"carat": "categorical"}},
    "top": DRIFT | {"features": {"top_n_feature_importance": 3}},
    "all": DRIFT | {"features": "all_features"},
    "segment": DRIFT | {"data_segment": {"feature_name": "cut", "feature_values": ["Ideal", "Good"]}},
    "rolling": DRIFT | {"reference_data": {"input_data": {"path": "azureml:x:1", "type": "uri_folder"}, "data_context": "model_inputs",
                                           "data_window": {"lookback_window_size": "P14D", "lookback_window_offset": "P1D"}}},
    "fixed": DRIFT | {"reference_data": {"input_data": {"path": "azureml:x:1", "type": "uri_folder"}, "data_context": "model_inputs",
                                         "data_window": {"window_start": "2026-01-01", "window_end": "2026-02-01"}}},
    "no sides": {key: DRIFT[key] for key in ("type", "metric_thresholds")},
    "attribution": {"type": "feature_attribution_drift", "reference_data": DRIFT["reference_data"],
                    "metric_thresholds": {"normalized_discounted_cumulative_gain": 0.9},
                    "production_data": [{"input_data": {"path": f"azureml:{side}:1", "type": "uri_folder"}, "data_context": side,
                                         "data_column_names": {"prediction": "y"} if side == "model_outputs" else {}}
                                        for side in ("model_inputs", "model_outputs")]},
    "custom": CUSTOM | {"inputs": {"by": {"type": "uri_file", "path": "cut"}, "hours": {"type": "uri_file", "path": "[1, 24]"}},
                        "input_data": {"reference": DRIFT["reference_data"] | {"data_context": "test"}}},
    "judged": {"type": "generation_safety_quality", "connection_id": "c", "sampling_rate": 1.0,
               "production_data": [{"input_data": {"path": "azureml:x:1", "type": "uri_folder"},
                                    "data_column_names": {"prompt_column": "p"}}],
               "metric_thresholds": {"groundedness": {"aggregated_groundedness_pass_rate": 0.7}}},
}


@pytest.mark.parametrize("name", SIGNALS)
def test_azure_takes_every_form_that_we_do(name: str, write: Callable[..., Path]) -> None:
    path = write({"a": SIGNALS[name]}, properties={"mlops_nb.minimum_rows": "50", "mlops_nb.correction": "holm"})
    assert theirs(path).create_monitor.monitoring_signals["a"].type == load_monitor(path).watches[0].type


def test_every_form_means_what_it_says(write: Callable[..., Path]) -> None:
    watch = {name: only(write, entry) for name, entry in SIGNALS.items()}
    assert (watch["list"].features, watch["list"].types) == (("carat", "cut"), {"carat": "categorical"})
    assert [watch[name].top for name in ("top", "all", "segment", "list")] == [3, 0, 10, 0]
    assert (watch["segment"].segment, watch["segment"].segment_name) == (("cut", ("Ideal", "Good")), "cut=Ideal,Good")
    assert watch["rolling"].baseline == Span(14 * DAY, DAY)
    assert watch["fixed"].baseline == Span(2 * DAY, DAY, dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.datetime(2026, 2, 1, tzinfo=dt.UTC))
    assert (watch["no sides"].context, watch["no sides"].baseline) == ("model_inputs", Span(2 * DAY, DAY))
    assert watch["attribution"].production == {"prediction": "y"}
    custom = watch["custom"]
    assert (custom.component, custom.thresholds) == ("mlops_nb_errors", {"all": {"error_rate": 0.01, "client_error_rate": None}})
    assert (custom.parameters, custom.context, custom.reference) == ({"by": "cut", "hours": [1, 24]}, "test", "azureml:stones:1")


def test_the_example_of_all_signals(write: Callable[..., Path]) -> None:
    if not SHARED.is_dir():
        pytest.skip("the example of all signals is not here")
    watches = {w.name: w for w in load_monitor(SHARED / "monitor-schedule-example.yml").watches}
    assert list(watches) == ["inputs_drift", "outputs_drift", "quality", "attribution", "performance"]
    assert watches["inputs_drift"].segment == ("season", ("1", "2"))
    assert watches["attribution"].thresholds == {"all": {"normalized_discounted_cumulative_gain": 0.9}}
    assert {w.size for w in watches.values()} == {7 * DAY}


@pytest.mark.parametrize(("trigger", "days"), [
    ({"type": "recurrence", "frequency": "minute", "interval": 30}, 1), ({"type": "recurrence", "frequency": "hour", "interval": 6}, 1),
    ({"type": "recurrence", "frequency": "day", "interval": 2}, 2), ({"type": "recurrence", "frequency": "week", "interval": 3}, 21),
    ({"type": "recurrence", "frequency": "month", "interval": 1}, 30), ({"type": "cron", "expression": "15 3 * * *"}, 7)])
def test_without_a_window_the_trigger_says_how_far_to_look_back(trigger: dict[str, Any], days: int, write: Callable[..., Path]) -> None:
    watch = only(write, SIGNALS["no sides"], trigger=trigger)
    assert (watch.size, watch.offset) == (days * DAY, 0 * DAY)
    assert watch.baseline == Span(2 * days * DAY, days * DAY)


def test_a_file_without_signals_gets_the_service_s_three(write: Callable[..., Path]) -> None:
    watches = load_monitor(write()).watches
    assert [w.type for w in watches] == ["data_drift", "prediction_drift", "data_quality"]
    assert watches[0].thresholds == {"numerical": {"normalized_wasserstein_distance": 0.1},
                                     "categorical": {"jensen_shannon_distance": 0.1}}
    assert set(watches[2].thresholds["numerical"].values()) == {0.0}


def test_options_of_the_whole_monitor(write: Callable[..., Path]) -> None:
    given = {"mlops_nb.minimum_rows": "250", "mlops_nb.correction": "benjamini_hochberg", "mlops_nb.patience": "P14D",
             "mlops_nb.policy": "../strict.yml", "team": "stones"}
    read, plain = load_monitor(write({"a": DRIFT}, properties=given)), load_monitor(write({"a": DRIFT}))
    assert (read.minimum_rows, read.correction, read.patience, read.policy.name) == (250, "benjamini_hochberg", 14 * DAY, "strict.yml")
    assert (plain.minimum_rows, plain.correction, plain.patience) == (100, "", 30 * DAY)
    assert plain.policy == plain.path.parent / "policy.yml"


@pytest.mark.parametrize(("target", "found"), [
    ({"endpoint_deployment_id": "azureml:shop:green"}, ("shop", "green", "")),
    ({"endpoint_deployment_id": "shop:green"}, ("shop", "green", "")),
    ({"endpoint_deployment_id": "azureml:/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w/"
                                "onlineEndpoints/shop/deployments/green"}, ("shop", "green", "")),
    ({"model_id": "azureml:diamonds:3"}, ("", "", "diamonds:3"))], ids=["short", "bare", "long", "model"])
def test_the_target_may_be_named_in_each_of_azure_s_ways(
    target: dict[str, str], found: tuple[str, ...], write: Callable[..., Path]
) -> None:
    monitor = load_monitor(write({"a": DRIFT}, create={"monitoring_target": target | {"ml_task": "Regression"}}))
    assert (monitor.endpoint, monitor.deployment, monitor.model) == found
    assert monitor.task == "regression"


@pytest.mark.parametrize(("wanted", "emails"), [({"emails": ["a@example.org"]}, ("a@example.org",)), ("azmonitoring", ()), (None, ())])
def test_who_is_told(wanted: Any, emails: tuple[str, ...], write: Callable[..., Path]) -> None:
    assert load_monitor(write({"a": DRIFT}, create={"alert_notification": wanted})).emails == emails


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
        (watch,) = [w for w in load_monitor(tmp_path / "m.yml").watches if w.name == "performance"]
        assert watch.thresholds == {"regression": {"mean_absolute_error": 9.0}}


# Faults


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
    found = faults(tmp_path / "bad.yml")
    lines = (tmp_path / "bad.yml").read_text().splitlines()
    assert all("guessing" in lines[int(fault.split(":")[1]) - 1] for fault in found if "ml_task" in fault)
    for part in ("expression: hours '25': 25 is not between 0 and 23", "endpoint_deployment_id: write", "ml_task: 'guessing'",
                 "inputs.metric_thresholds.numerical.chebyshev: unknown metric",
                 "inputs.metric_thresholds.numerical.jensen_shannon_distance: 'high' is no number",
                 "inputs.metric_thresholds.text: unknown group", "predictions.type: unknown signal type 'prediction_shift'",
                 "quality.production_data.data_window.lookback_window_size: '7 days' is no duration",
                 "performance.metric_thresholds: none given"):
        assert any(part in fault for fault in found), part


QUALITY = DRIFT | {"type": "data_quality", "metric_thresholds": {"numerical": {"null_value_rate": 0}}}
ROLLING = {"input_data": {"path": "azureml:x:1"}, "data_context": "model_inputs"}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": (DRIFT | {"feature": ["x"]}, "a.feature: means nothing in a signal of type data_drift"),
    "context": (DRIFT | {"reference_data": {"data_context": "traning"}}, "reference_data.data_context: unknown context 'traning'"),
    "alert": (DRIFT | {"alert_enabled": "yes"}, "a.alert_enabled: 'yes' is neither true nor false"),
    "top of nothing": (DRIFT | {"features": {"top_n_feature_importance": 0}}, "features: write top_n_feature_importance"),
    "top without target": (DRIFT | {"reference_data": {"data_context": "training"}, "features": {"top_n_feature_importance": 3}},
                           "features.top_n_feature_importance: needs reference_data.data_column_names.target_column"),
    "type override": (DRIFT | {"feature_type_override": {"x": "integer"}}, "feature_type_override.x: 'integer' is neither"),
    "segment": (DRIFT | {"data_segment": {"feature_name": "cut"}}, "data_segment: needs feature_name, and feature_values as a list"),
    "segment of quality": (QUALITY | {"data_segment": {}}, "data_segment: means nothing in a signal of type data_quality"),
    "overlap": (DRIFT | {"reference_data": ROLLING | {"data_window": {"lookback_window_offset": "PT1H"}}},
                "lookback_window_offset: overlaps the production window: it must be at least 1 day"),
    "half a window": (DRIFT | {"reference_data": ROLLING | {"data_window": {"window_start": "2026-01-01"}}},
                      "reference_data.data_window: window_start and window_end belong together"),
    "turned around": (DRIFT | {"reference_data": ROLLING | {"data_window": {"window_start": "2026-02-01", "window_end": "2026-01-01"}}},
                      "window_end: 2026-01-01 is not after window_start 2026-02-01"),
    "time of day": (DRIFT | {"reference_data": ROLLING | {"data_window": {"window_start": "2026-01-01T00:00:00Z"}}},
                    "window_start: '2026-01-01T00:00:00Z' is no day. Write YYYY-MM-DD"),
    "bare day": (DRIFT | {"reference_data": ROLLING | {"data_window": {"window_start": dt.date(2026, 1, 1)}}},
                 'window_start: 2026-01-01: write the day in quotes: "2026-01-31"'),
    "no such day": (DRIFT | {"reference_data": ROLLING | {"data_window": {"window_start": "2026-02-29", "window_end": "2026-03-01"}}},
                    "reference_data.data_window.window_start: day is out of range"),
    "fixed production": (DRIFT | {"production_data": {"data_window": {"window_start": "2026-02-01"}}},
                         "production_data.data_window.window_start: Azure ML takes only a rolling window here"),
    "empty window": (DRIFT | {"production_data": {"data_window": {"lookback_window_size": "P0D"}}}, "an empty window holds nothing"),
    "no attribution target": (SIGNALS["attribution"] | {"reference_data": {"data_context": "training"}}, "needs target_column"),
    "pre-processing": (DRIFT | {"production_data": {"pre_processing_component": "azureml:c:1"}}, "runs only on Azure ML"),
    "custom mapping": (CUSTOM | {"metric_thresholds": {"error_rate": 1}}, "metric_thresholds: a list is expected"),
    "custom nameless": (CUSTOM | {"metric_thresholds": [{"threshold": 1}]}, "metric_thresholds: entry 1 has no metric_name"),
    "custom word": (CUSTOM | {"metric_thresholds": [{"metric_name": "m", "threshold": "x"}]}, "metric_thresholds: m: 'x' is no number"),
    "custom component": (CUSTOM | {"component_id": "errors"}, "component_id: 'errors': write azureml:NAME:VERSION"),
    "custom properties": (CUSTOM | {"properties": {}}, "properties: means nothing in a signal of type custom"),
    "no mapping": (["data_drift"], "a mapping is expected, not list"),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("name", WRONG)
def test_a_fault_is_named_with_its_key(name: str, write: Callable[..., Path]) -> None:
    entry, said = WRONG[name]
    path = write({"a": entry})
    found = faults(path)
    assert any(said in fault for fault in found), found
    assert all(fault.startswith(f"{path}:") and int(fault.removeprefix(f"{path}:").partition(":")[0]) > 1 for fault in found)


@pytest.mark.parametrize(("top", "said"), [
    ({"properties": {"mlops_nb.minimum_rows": "few"}}, "mlops_nb.minimum_rows: 'few' is no number from 1 on"),
    ({"properties": {"mlops_nb.minimum_rows": 50}}, "mlops_nb.minimum_rows: Azure ML takes only text here. Write \"50\""),
    ({"properties": {"mlops_nb.correction": "bonferroni"}}, "mlops_nb.correction: 'bonferroni' is neither holm nor benjamini_hochberg"),
    ({"properties": {"mlops_nb.patience": "a month"}}, "mlops_nb.patience: 'a month' is no duration"),
    ({"properties": {"mlops_nb.minimal_rows": "5"}}, "mlops_nb.minimal_rows: means nothing here"),
    ({"create_monitor": None}, "create_monitor: is missing"),
    ({"trigger": {"type": "recurrence", "frequency": "fortnight", "interval": 1}}, "frequency 'fortnight'"),
    ({"create": {"compute": {"instance_type": "tiny"}}}, "compute.instance_type: 'tiny' is none that Azure ML monitors with"),
    ({"create": {"alert_notification": {"emails": ["nobody"]}}}, "alert_notification.emails: 'nobody' is no address"),
    ({"create": {"alert_notification": "pagers"}}, "alert_notification: write emails"),
    ({"create": {"monitoring_signals": {}}}, "monitoring_signals: none declared"),
    ({"create": {"signals": {}}}, "create_monitor.signals: means nothing here"),
], ids=str)
def test_a_fault_of_the_whole_file_is_named(top: dict[str, Any], said: str, write: Callable[..., Path]) -> None:
    assert any(said in fault for fault in faults(write({"a": DRIFT}, **top)))


@pytest.mark.parametrize("text", ["", "[1, 2]", "just text", "create_monitor: [1]", "a: [",
                                  "create_monitor: {monitoring_signals: {a: 1}}"])
def test_a_file_of_another_shape_is_refused_with_its_name(text: str, tmp_path: Path) -> None:
    (tmp_path / "odd.yml").write_text(text)
    with pytest.raises(SpecificationError, match=r"odd\.yml"):
        load_monitor(tmp_path / "odd.yml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"No monitor at .*none\.yml"):
        load_monitor(tmp_path / "none.yml")


def test_a_fixed_window_that_production_has_reached_is_refused_when_it_is_looked_at(write: Callable[..., Path]) -> None:
    watch = only(write, SIGNALS["fixed"])
    assert reference_window_of(watch, dt.datetime(2026, 2, 2, tzinfo=dt.UTC)) == (watch.baseline.start, watch.baseline.end)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="overlaps production's"):
        reference_window_of(watch, dt.datetime(2026, 2, 1, 12, tzinfo=dt.UTC))
