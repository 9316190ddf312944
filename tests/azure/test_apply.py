"""Everything else that a specification file describes is created or updated on Azure ML from that file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlops_nb.azure import apply, connect, project_files
from mlops_nb.azure.repair import PERFORMANCE
from mlops_nb.core import ledger
from mlops_nb.core.records import SpecificationError
from mlops_nb.core.settings import Settings, load_settings

SPECIFICATIONS = Path(__file__).parent / "specifications"


def test_what_others_refer_to_comes_first(shop: Settings, client: Any, cloud: Any) -> None:
    scope = cloud.workspace("dev")
    cloud.put(f"{scope}/models/dev.diamonds/versions/1", {"modelType": "mlflow_model", "modelUri": "azureml://x", "flavors": {}})
    room = shop.root / "environments/dev"
    done = apply(shop, client, [room / "deployment.yml", room / "endpoint.yml", room / "compute.yml"])
    assert [applied.kind for applied in done] == ["compute", "online_endpoint", "online_deployment"]
    assert [entry.subject for entry in ledger.entries(shop, action="apply")] == [
        "compute:dev.cpu-cluster",
        "online-endpoint:dev.diamonds",
        "online-deployment:dev.blue",
    ]


def test_a_live_endpoint_keeps_its_traffic_when_its_file_says_nothing_of_it(shop: Settings, client: Any, cloud: Any) -> None:
    live = {"authMode": "Key", "traffic": {"blue": 90, "green": 10}, "mirrorTraffic": {}, "properties": {}}
    cloud.put(f"{cloud.workspace('dev')}/onlineEndpoints/diamonds", live, location="westeurope")
    apply(shop, client, [shop.root / "environments/dev/endpoint.yml"])
    assert cloud.bodies("/onlineEndpoints/diamonds")[-1]["properties"]["traffic"] == {"blue": 90, "green": 10}


def test_applying_twice_is_an_update(shop: Settings, client: Any, cloud: Any) -> None:
    for _ in range(2):
        [applied] = apply(shop, client, [shop.root / "environments/images/training.yml"])
    assert (applied.name, applied.version) == ("mlops-nb-training", "1")
    assert applied.uri("dev") == "environment:dev.mlops-nb-training/1"
    assert len(cloud.bodies("/environments/")) == 2


def test_a_model_is_uploaded_with_its_files(shop: Settings, client: Any, cloud: Any) -> None:
    [applied] = apply(shop, client, [SPECIFICATIONS / "model.yml"])
    assert applied.uri("prod") == "model:prod.diamonds/3"
    [body] = cloud.bodies("/models/")
    folder = body["properties"]["modelUri"].partition("/paths/")[2]
    assert cloud.blobs[f"/azureml/{folder}/MLmodel"][0] == (SPECIFICATIONS / "model/MLmodel").read_bytes()


def test_every_fault_of_every_file_is_told_and_nothing_is_sent(shop: Settings, client: Any, cloud: Any) -> None:
    strange = shop.root / "strange.yml"
    strange.write_text("$schema: https://azuremlschemas.azureedge.net/latest/unheardOf.schema.json\nname: x\n")
    with pytest.raises(SpecificationError) as raised:
        apply(shop, client, [strange, shop.root / "ci/pipelines/classical.yml", shop.root / "environments/dev/endpoint.yml"])
    unheard, job = raised.value.faults
    assert "$schema 'unheardOf' is nothing that can be applied" in unheard
    assert "mlops-nb azure submit" in job
    assert cloud.written() == []


def test_a_file_that_the_sdk_refuses_is_told_before_anything_is_sent(shop: Settings, client: Any, cloud: Any) -> None:
    broken = shop.root / "environments/dev/monitor.yml"
    broken.write_text(broken.read_text().replace("type: data_drift", "type: data_drift_of_another_kind"))
    with pytest.raises(SpecificationError, match="azure-ai-ml refuses it"):
        apply(shop, client, [shop.root / "environments/dev/compute.yml", broken])
    assert cloud.written() == []


def test_a_registry_holds_assets_only(shop: Settings, cloud: Any, credential: Any) -> None:
    registry = connect(shop, credential, registry="shop")
    with pytest.raises(SpecificationError, match="a registry has no online endpoints"):
        apply(shop, registry, [shop.root / "environments/dev/endpoint.yml"])


def test_who_may_not_deploy_may_not_apply_an_endpoint(shop: Settings, client: Any, cloud: Any) -> None:
    scientist = load_settings("prod", persona="data_scientist")
    with pytest.raises(PermissionError, match="may not deploy in prod"):
        apply(scientist, client, [shop.root / "environments/prod/endpoint.yml"])
    assert cloud.written() == []


def test_a_kind_names_this_environments_files(shop: Settings) -> None:
    found = [path.relative_to(shop.root).as_posix() for path in project_files(shop, ["online_endpoint", "environment"])]
    assert found == ["environments/dev/endpoint.yml", "environments/images/serving.yml", "environments/images/training.yml"]
    with pytest.raises(SpecificationError, match="'banana' is no kind"):
        project_files(shop, ["banana"])


def test_the_command_applies_all_files_of_a_kind(shop: Settings, cloud: Any, signed_in: None, command: Callable[..., Any]) -> None:
    ended = command("azure", "apply", "--kind", "compute", "--kind", "environment")
    assert ended.rc == 0, ended.stderr
    assert [line.split()[:2] for line in ended.stdout.splitlines() if ".yml" in line] == [
        ["compute", "cpu-cluster"],
        ["environment", "mlops-nb-serving"],
        ["environment", "mlops-nb-training"],
    ]
    assert len(cloud.bodies("/environments/")) == 2


def test_the_command_wants_to_know_what(shop: Settings, command: Callable[..., Any]) -> None:
    ended = command("azure", "apply")
    assert ended.rc == 2
    assert "Nothing to apply" in ended.stderr


# What azure-ai-ml loses of a monitor file, and what leaves here all the same.


@pytest.fixture
def signals(shop: Settings, client: Any, cloud: Any) -> Callable[[Path], dict[str, Any]]:
    """Apply a monitor file, and return the signals that were sent."""
    scope = cloud.workspace("dev")
    for name in ("diamonds", "diamonds-blue-model_inputs", "diamonds-blue-model_outputs", "diamonds-validation", "diamonds-truth"):
        cloud.put(f"{scope}/data/{name}/versions/1", {"dataType": "uri_folder", "dataUri": "azureml://datastores/x/paths/y"})
    blue = {"endpointComputeType": "Managed", "instanceType": "Standard_DS3_v2", "scaleSettings": {"scaleType": "Default"}}
    cloud.put(f"{scope}/onlineEndpoints/diamonds/deployments/blue", blue, location="westeurope", sku={"capacity": 1}, tags={})

    def send(path: Path) -> dict[str, Any]:
        apply(shop, client, [path])
        [body] = cloud.bodies("/schedules/")
        found: dict[str, Any] = body["properties"]["action"]["monitorDefinition"]["signals"]
        return found

    return send


def thresholds(signal: dict[str, Any]) -> dict[tuple[str, str], float]:
    return {(each["dataType"], each["metric"]): each["threshold"]["value"] for each in signal["metricThresholds"]}


def test_every_metric_of_a_drift_signal_is_sent(shop: Settings, signals: Callable[..., Any]) -> None:
    sent = signals(shop.root / "environments/dev/monitor.yml")
    assert thresholds(sent["inputs"]) == {
        ("Numerical", "NormalizedWassersteinDistance"): 0.3,
        ("Numerical", "JensenShannonDistance"): 0.2,
        ("Categorical", "JensenShannonDistance"): 0.2,
        ("Categorical", "PopulationStabilityIndex"): 0.2,
    }


def test_a_threshold_of_zero_is_sent(signals: Callable[..., Any]) -> None:
    sent = signals(SPECIFICATIONS / "monitor.yml")
    assert thresholds(sent["inputs"])["Numerical", "PopulationStabilityIndex"] == 0.0
    assert sent["performance"]["metricThreshold"]["threshold"] == {"value": 0.0}


def test_the_prediction_drift_of_a_regression_says_so(shop: Settings, signals: Callable[..., Any]) -> None:
    assert signals(shop.root / "environments/dev/monitor.yml")["predictions"]["modelType"] == "Regression"


def test_the_thresholds_of_a_regression_are_sent(shop: Settings, signals: Callable[..., Any]) -> None:
    sent = signals(shop.root / "environments/dev/monitor.yml")["performance"]
    wanted = {"modelType": "regression", "metric": "MeanAbsoluteError", "threshold": {"value": 500}}
    assert json.loads(sent["properties"][PERFORMANCE]) == [wanted]
    assert sent["metricThreshold"] == wanted | {"modelType": "Regression"}


def test_the_thresholds_of_a_classification_are_sent(signals: Callable[..., Any]) -> None:
    sent = signals(SPECIFICATIONS / "monitor.yml")["performance"]
    stored = json.loads(sent["properties"][PERFORMANCE])
    assert {each["metric"]: each["threshold"]["value"] for each in stored} == {"Accuracy": 0.0, "Precision": 0.8, "Recall": 0.7}


def test_a_custom_signal_is_sent_with_full_addresses(cloud: Any, signals: Callable[..., Any]) -> None:
    sent = signals(SPECIFICATIONS / "monitor.yml")["language"]
    assert sent["componentId"] == f"{cloud.workspace('dev')}/components/language_signal/versions/1"
    assert sent["inputAssets"]["production_data"]["uri"] == f"{cloud.workspace('dev')}/data/diamonds-blue-model_inputs/versions/1"
