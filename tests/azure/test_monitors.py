"""A monitor that leaves for Azure ML says what its file says, and nothing that the service would refuse."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlops_nb.azure import apply
from mlops_nb.core.ledger import entries
from mlops_nb.core.records import SpecificationError
from mlops_nb.core.settings import Settings

CUSTOM = {"type": "custom", "component_id": "azureml:spread:2", "alert_enabled": True,
          "metric_thresholds": [{"metric_name": "spread", "threshold": 0.0}, {"metric_name": "mean"}]}
SIDE = {"input_data": {"path": "azureml:diamonds:1", "type": "mltable"}, "data_context": "training",
        "data_column_names": {"target_column": "cut"}}


@pytest.fixture
def send(shop: Settings, client: Any, cloud: Any, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Apply a monitor of these signals, and return the signals that were sent."""
    scope = cloud.workspace("dev")
    for name in ("diamonds", "diamonds-blue-model_inputs", "diamonds-blue-model_outputs", "diamonds-validation", "diamonds-truth"):
        cloud.put(f"{scope}/data/{name}/versions/1", {"dataType": "uri_folder", "dataUri": "azureml://datastores/x/paths/y"})
    blue = {"endpointComputeType": "Managed", "instanceType": "Standard_DS3_v2", "scaleSettings": {"scaleType": "Default"}}
    cloud.put(f"{scope}/onlineEndpoints/diamonds/deployments/blue", blue, location="westeurope", sku={"capacity": 1}, tags={})

    def post(signals: dict[str, Any] | Path) -> dict[str, Any]:
        path = signals if isinstance(signals, Path) else tmp_path / "stones.yml"
        if not isinstance(signals, Path):
            path.write_text(yaml.safe_dump({
                "$schema": "http://azureml/sdk-2-0/Schedule.json", "name": "stones",
                "trigger": {"type": "recurrence", "frequency": "day", "interval": 1},
                "create_monitor": {"compute": {"instance_type": "standard_e4s_v3", "runtime_version": "3.4"},
                                   "monitoring_target": {"ml_task": "classification",
                                                         "endpoint_deployment_id": "azureml:diamonds:blue"},
                                   "monitoring_signals": signals}}))
        apply(shop, client, [path])
        [body] = cloud.bodies("/schedules/")
        found: dict[str, Any] = body["properties"]["action"]["monitorDefinition"]["signals"]
        return found

    return post


def test_a_literal_is_sent_as_one(send: Callable[..., Any], cloud: Any, tmp_path: Path) -> None:
    """azure-ai-ml would look for a file named 0.95, and upload it."""
    cloud.put(f"{cloud.workspace('dev')}/data/words/versions/1", {"dataType": "uri_file", "dataUri": "azureml://datastores/x/paths/y"})
    inputs = {"share": {"type": "uri_file", "path": "0.95"}, "words": {"type": "uri_file", "path": "azureml:words:1"}}
    sent = send({"spread": CUSTOM | {"inputs": inputs}})["spread"]
    assert sent["inputs"]["share"] == {"jobInputType": "literal", "value": "0.95"}
    assert sent["inputs"]["words"]["uri"].endswith("/data/words/versions/1")


def test_a_custom_signal_needs_no_data_of_its_own(send: Callable[..., Any], cloud: Any) -> None:
    sent = send({"spread": CUSTOM})["spread"]
    assert sent["componentId"] == f"{cloud.workspace('dev')}/components/spread/versions/2"
    assert [each.get("threshold") for each in sent["metricThresholds"]] == [{"value": 0.0}, None]


def test_a_threshold_of_zero_of_the_attributions_is_sent(send: Callable[..., Any]) -> None:
    sides = [{"input_data": {"path": f"azureml:diamonds-blue-{side}:1", "type": "uri_folder"}, "data_context": side}
             for side in ("model_inputs", "model_outputs")]
    signal = {"type": "feature_attribution_drift", "reference_data": SIDE, "production_data": sides,
              "metric_thresholds": {"normalized_discounted_cumulative_gain": 0.0}}
    sent = send({"order": signal})["order"]
    assert sent["metricThreshold"] == {"metric": "normalizedDiscountedCumulativeGain", "threshold": {"value": 0.0}}
    assert [each["dataContext"] for each in sent["productionData"]] == ["model_inputs", "model_outputs"]


def test_what_only_we_compute_is_left_out_and_said(send: Callable[..., Any], shop: Settings) -> None:
    sent = send(shop.root / "environments" / "dev" / "monitor.yml")
    assert set(sent) == {"inputs", "predictions", "quality", "performance", "attribution"}
    (entry,) = entries(shop, action="apply")
    assert {"errors", "objectives", "controls"} < set(entry.details["left_out"])


def test_what_the_workspace_has_a_component_for_is_sent(send: Callable[..., Any], cloud: Any) -> None:
    at = f"{cloud.workspace('dev')}/components/mlops_nb_errors/versions/1"
    cloud.put(at, {"componentSpec": {"name": "mlops_nb_errors", "version": "1", "type": "command", "command": "true",
                                     "environment": "azureml:x:1"}})
    sent = send({name: CUSTOM | {"component_id": f"azureml:mlops_nb_{name}:1"} for name in ("errors", "cost")})
    assert set(sent) == {"errors"}
    assert sent["errors"]["componentId"] == at


def test_a_monitor_of_nothing_else_is_refused(send: Callable[..., Any]) -> None:
    with pytest.raises(SpecificationError, match=r"every signal is one that only `mlops-nb monitor` computes \(cost\)"):
        send({"cost": CUSTOM | {"component_id": "azureml:mlops_nb_cost:1"}})
