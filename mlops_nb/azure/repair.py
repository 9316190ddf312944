"""Put back what azure-ai-ml 1.35 loses of a monitor file: the file is the truth, the REST body that leaves here says the same.

| the file says | azure-ai-ml sends | sent from here |
| --- | --- | --- |
| several drift metrics of one kind | the first it finds; none with threshold 0 | every one, in the file's order |
| `ml_task: regression` | prediction drift of a classification | of the task |
| thresholds in the property of `model_performance`, where regression's must stand, as its loader refuses them | null | as written |
| `accuracy: 0.0`, or precision and recall | a missing threshold; accuracy 0.9 | as written |
| a threshold of 0 of `feature_attribution_drift` | none | as written |
| the component and the data of a custom signal | their short names, which the service cannot find | their full addresses |
| a literal among a custom signal's `inputs` | a file of that name, which it would upload | the literal |

A custom signal that only this workbench computes is left out, unless the workspace has a component of that name: Azure ML would refuse
the whole monitor.
"""

import json
import re
from pathlib import Path
from typing import Any

PERFORMANCE = "azureml.modelmonitor.model_performance_thresholds"
NDCG = "normalized_discounted_cumulative_gain"
_DRIFT = ("data_drift", "prediction_drift")


def own_components(content: dict[str, Any]) -> dict[str, tuple[str, str]]:  # signal -> its component's name and version
    """List the signals of a monitor file whose component is built into this workbench."""
    from mlops_nb.outer_loop.signals import BUILT_IN

    found = {}
    for name, wanted in ((content.get("create_monitor") or {}).get("monitoring_signals") or {}).items():
        component, _, version = str(wanted.get("component_id", "")).removeprefix("azureml:").partition(":")
        if wanted.get("type") == "custom" and component in BUILT_IN:
            found[name] = (component, version)
    return found


def literals(
    wanted: dict[str, Any],  # a custom signal, as the file says it
    folder: Path,  # of the file
) -> dict[str, str]:
    """Pick the literals among a custom signal's inputs: what is no address and no file."""
    found = {}
    for name, value in (wanted.get("inputs") or {}).items():
        path = str(value.get("path", "")) if isinstance(value, dict) else str(value)
        if not re.match(r"azureml:|\w+://|/subscriptions/|file:", path) and not (folder / path).exists():
            found[name] = path
    return found


def prepare(
    monitor: Any,  # azure-ai-ml's MonitorSchedule, before it is sent
    content: dict[str, Any],  # of its file
    folder: Path,  # of its file
    left_out: tuple[str, ...],  # signals that the workspace cannot compute
) -> None:
    """Take from a monitor what azure-ai-ml or the service would stumble over; `repaired` puts back what belongs there."""
    signals = monitor.create_monitor.monitoring_signals or {}
    for name in left_out:
        signals.pop(name, None)
    for name, signal in signals.items():
        if signal.type == "custom":
            wanted = content["create_monitor"]["monitoring_signals"][name]
            signal.input_data = signal.input_data or {}  # azure-ai-ml goes through it without looking
            signal.inputs = {key: value for key, value in (signal.inputs or {}).items() if key not in literals(wanted, folder)}


def repaired(
    body: dict[str, Any],  # of the schedule, as azure-ai-ml would send it
    content: dict[str, Any],  # of the file
    scope: str,  # address of the workspace: /subscriptions/.../workspaces/<name>
    folder: Path = Path(),  # of the file
) -> dict[str, Any]:  # the body to send
    """Return a monitor schedule's REST body with everything that its file says."""
    monitor = content["create_monitor"]
    task = str((monitor.get("monitoring_target") or {}).get("ml_task", "classification")).lower()
    signals = body["properties"]["action"]["monitorDefinition"]["signals"]
    for name, wanted in (monitor.get("monitoring_signals") or {}).items():
        if name not in signals:  # left out
            continue
        kind, signal = wanted.get("type"), signals[name]
        if kind in _DRIFT:
            signal["metricThresholds"] = _drift_thresholds(wanted.get("metric_thresholds") or {})
        if kind == "prediction_drift":
            signal["modelType"] = _camel(task)
        elif kind == "model_performance":
            _repair_performance(signal, wanted)
        elif kind == "feature_attribution_drift" and NDCG in (wanted.get("metric_thresholds") or {}):
            signal["metricThreshold"] = signal["metricThreshold"] | {"threshold": {"value": wanted["metric_thresholds"][NDCG]}}
        elif kind == "custom":
            text = {key: {"jobInputType": "literal", "value": value} for key, value in literals(wanted, folder).items()}
            if text:
                signal["inputs"] = (signal.get("inputs") or {}) | text
            signal["inputAssets"] = signal.get("inputAssets") or {}  # azure-ai-ml cannot read an answer without
            signal["componentId"] = _address(str(signal["componentId"]), scope, "components")
            for data in signal["inputAssets"].values():
                data["uri"] = _address(str(data["uri"]), scope, "data")
    return body


def _drift_thresholds(wanted: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    return [
        {"dataType": kind.capitalize(), "metric": _camel(metric), "threshold": {"value": value}}
        for kind in ("numerical", "categorical")
        for metric, value in (wanted.get(kind) or {}).items()
    ]


def _repair_performance(signal: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Write all thresholds where the service's monitor reads them, and the first where the REST type wants one."""
    written = (wanted.get("properties") or {}).get(PERFORMANCE)
    thresholds = json.loads(written) if written else [
        {"modelType": kind, "metric": _camel(metric), "threshold": {"value": value}}
        for kind, metrics in (wanted.get("metric_thresholds") or {}).items()
        for metric, value in metrics.items()
    ]
    if thresholds:
        signal.setdefault("properties", {})[PERFORMANCE] = json.dumps(thresholds)
        first = thresholds[0]
        signal["metricThreshold"] = first | {"modelType": _camel(str(first["modelType"]))}


def _camel(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def _address(name: str, scope: str, kind: str) -> str:
    """Write `azureml:name:version` in full; what is an address already stays."""
    short = name.removeprefix("azureml:")
    if short.startswith("/") or "://" in name or ":" not in short:
        return short if short.startswith("/subscriptions/") else name
    asset, _, version = short.partition(":")
    return f"{scope}/{kind}/{asset}/versions/{version}"
