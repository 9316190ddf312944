"""Put back what azure-ai-ml 1.35 loses of a monitor file: the file is the truth, the REST body that leaves here says the same.

| the file says | azure-ai-ml sends | sent from here |
| --- | --- | --- |
| several drift metrics of one kind | the first it finds; none with threshold 0 | every one, in the file's order |
| `ml_task: regression` | prediction drift of a classification | of the task |
| thresholds in the property of `model_performance`, where regression's must stand, as its loader refuses them | null | as written |
| `accuracy: 0.0`, or precision and recall | a missing threshold; accuracy 0.9 | as written |
| the component and the data of a custom signal | their short names, which the service cannot find | their full addresses |
"""

import json
from typing import Any

PERFORMANCE = "azureml.modelmonitor.model_performance_thresholds"
_DRIFT = ("data_drift", "prediction_drift")


def repaired(
    body: dict[str, Any],  # of the schedule, as azure-ai-ml would send it
    content: dict[str, Any],  # of the file
    scope: str,  # address of the workspace: /subscriptions/.../workspaces/<name>
) -> dict[str, Any]:  # the body to send
    """Return a monitor schedule's REST body with everything that its file says."""
    monitor = content["create_monitor"]
    task = str((monitor.get("monitoring_target") or {}).get("ml_task", "classification")).lower()
    signals = body["properties"]["action"]["monitorDefinition"]["signals"]
    for name, wanted in (monitor.get("monitoring_signals") or {}).items():
        kind, signal = wanted.get("type"), signals[name]
        if kind in _DRIFT:
            signal["metricThresholds"] = _drift_thresholds(wanted.get("metric_thresholds") or {})
        if kind == "prediction_drift":
            signal["modelType"] = _camel(task)
        elif kind == "model_performance":
            _repair_performance(signal, wanted)
        elif kind == "custom":
            signal["componentId"] = _address(str(signal["componentId"]), scope, "components")
            for data in (signal.get("inputAssets") or {}).values():
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
