"""The environment's own files become an endpoint on Azure ML, beside what serves there and without taking any of its requests."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
import pytest

from mlops_nb.azure import apply
from mlops_nb.azure.deploy import (
    deploy,
    endpoint_status,
    invoke,
    keys,
    logs,
    regenerate,
    remove,
    roll_back,
    set_mirror,
    shift_traffic,
)
from mlops_nb.core import ledger
from mlops_nb.core.records import ModelVersion, SpecificationError, StepFailed
from mlops_nb.core.settings import Settings, load_settings

HERE = Path(__file__).parent
MODEL = ModelVersion("dev.diamonds", 7, "regression")


class Behind:
    """What stands behind an endpoint's address: keys, a log, a model that answers."""

    def __init__(self, cloud: Any):
        self.cloud, self.answers = cloud, cloud.answer
        self.keys = {"primaryKey": "one", "secondaryKey": "two"}
        self.asked: list[tuple[dict[str, str], Any]] = []
        self.fails = ""  # a part of the address whose creation fails
        self.status, self.reply = 200, [1.0]

    def answer(self, method: str, url: str, headers: Any, body: bytes | None) -> Any:
        parts = urlsplit(url)
        path = parts.path.lower()
        if parts.netloc.endswith("inference.ml.azure.com"):
            self.asked.append(({name.lower(): value for name, value in headers.items()}, json.loads(body or b"null")))
            more = {"ms-azureml-model-error-reason": "no cut"} if self.status == 424 else {}
            return self.status, {"Content-Type": "application/json", **more}, json.dumps(self.reply).encode()
        if method == "POST" and path.endswith("/listkeys"):
            return self.json(self.keys)
        if method == "POST" and path.endswith("/regeneratekeys"):
            self.keys[f"{json.loads(body or b'')['keyType'].lower()}Key"] = "new"
            return self.json({})
        if method == "POST" and path.endswith("/getlogs"):
            return self.json({"content": "init() failed: No module named 'lightgbm'"})
        if method == "DELETE":
            self.cloud.resources.pop(path)
            return 204, {}, b""
        if self.fails and path.startswith("/operations/") and re.search(self.fails, self.cloud.written()[-1].path):
            return self.json({"status": "Failed", "error": {"code": "UserScriptInitFailed", "message": "The container did not start."}})
        return self.answers(method, url, headers, body)

    def json(self, content: Any) -> Any:
        return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()


@pytest.fixture
def behind(cloud: Any, monkeypatch: pytest.MonkeyPatch) -> Behind:
    behind = Behind(cloud)
    monkeypatch.setattr(cloud, "answer", behind.answer)
    scope = cloud.workspace("dev")
    for model in ("dev.diamonds/versions/7", "dev.diamonds/versions/8", "prod.diamonds/versions/3"):
        cloud.put(f"{scope}/models/{model}", {"modelType": "mlflow_model", "modelUri": "azureml://x", "flavors": {}})
    return behind


def traffic_of(cloud: Any, endpoint: str = "diamonds") -> tuple[dict[str, int], dict[str, int]]:
    """Return the shares and the copies that were sent to Azure last."""
    body = cloud.bodies(f"/onlineEndpoints/{endpoint}$")[-1]["properties"]
    return body.get("traffic") or {}, body.get("mirrorTraffic") or {}


def test_the_first_deployment_gets_everything_once_it_is_there(shop: Settings, client: Any, cloud: Any, behind: Behind) -> None:
    told: list[str] = []
    made = deploy(shop, MODEL, progress=told.append, client=client)
    assert (made.uri, made.model, made.traffic) == ("deployment:dev.diamonds/blue", "model:dev.diamonds/7", 100)
    first, last = cloud.bodies("/onlineEndpoints/diamonds$")
    assert not first["properties"].get("traffic")  # which a new endpoint cannot have
    assert last["properties"]["traffic"] == {"blue": 100}
    [body] = cloud.bodies("/onlineEndpoints/diamonds/deployments/blue$")
    assert body["properties"]["model"].endswith("/models/dev.diamonds/versions/7")
    assert body["properties"]["dataCollector"]["collections"].keys() == {"model_inputs", "model_outputs"}
    assert body["properties"]["requestSettings"]["maxConcurrentRequestsPerInstance"] == 32
    assert [entry.action for entry in ledger.entries(shop)] == ["shift_traffic", "deploy"]
    assert told[-2:] == ["starting blue of diamonds: Azure ML takes some minutes", "giving blue of diamonds 100 % of the traffic"]
    assert faults_of(cloud) == []


def test_the_next_one_stands_beside_it_and_takes_nothing(shop: Settings, client: Any, cloud: Any, behind: Behind) -> None:
    deploy(shop, MODEL, client=client)
    made = deploy(shop, "dev.diamonds/8", client=client)
    assert (made.name, made.model, made.traffic) == ("green", "model:dev.diamonds/8", 0)
    assert traffic_of(cloud) == ({"blue": 100}, {})  # the endpoint was sent again, with what it had
    assert deploy(shop, MODEL, "diamonds", "green", 10, client=client).traffic == 10
    assert traffic_of(cloud)[0] == {"blue": 90, "green": 10}
    with pytest.raises(ValueError, match="Blue and green both have traffic"):
        deploy(shop, "dev.diamonds/8", client=client)
    with pytest.raises(ValueError, match="blue of diamonds has 90 % of the traffic"):
        deploy(shop, "dev.diamonds/8", deployment="blue", client=client)
    assert deploy(shop, MODEL, deployment="blue", client=client).traffic == 90  # the same model: its settings may change


def test_a_new_deployment_gets_the_copies_that_the_file_has_for_it(shop: Settings, client: Any, cloud: Any, behind: Behind) -> None:
    deploy(shop, MODEL, client=client)
    door = shop.root / "environments/dev/endpoint.yml"
    door.write_text(door.read_text() + "mirror_traffic: {green: 20}\n")
    deploy(shop, MODEL, client=client)
    assert traffic_of(cloud) == ({"blue": 100}, {"green": 20})


@pytest.mark.slow
def test_a_model_that_only_mlflow_has_is_uploaded(shop: Settings, client: Any, cloud: Any, behind: Behind) -> None:
    made = deploy(shop, str(HERE / "specifications/model"), "stones", client=client)
    assert made.uri == "deployment:dev.stones/blue"
    [body] = cloud.bodies("/models/dev.stones/versions/1$")
    assert body["properties"]["modelType"] == "mlflow_model"
    folder = body["properties"]["modelUri"].partition("/paths/")[2]
    assert cloud.blobs[f"/azureml/{folder}/MLmodel"][0] == (HERE / "specifications/model/MLmodel").read_bytes()
    deploy(shop, ModelVersion("dev.stones", 1, ""), "stones", client=client)
    assert len(cloud.bodies("/models/dev.stones/versions/1$")) == 1  # it is there


def test_what_nobody_has_is_told_before_anything_is_sent(shop: Settings, client: Any, cloud: Any, behind: Behind) -> None:
    with pytest.raises(SpecificationError, match="Neither Azure ML nor MLflow"):
        deploy(shop, "azureml:dev.nothing:1", client=client)
    broken = shop.root / "environments/dev/deployment.yml"
    broken.write_text(broken.read_text().replace("instance_count: 1", "instance_count: many"))
    with pytest.raises(SpecificationError, match="azure-ai-ml refuses it"):
        deploy(shop, MODEL, client=client)
    with pytest.raises(PermissionError, match="may not deploy in prod"):
        deploy(load_settings("prod", persona="data_scientist"), MODEL, client=client)
    assert cloud.written() == []


def test_one_that_does_not_start_says_why_and_gets_no_traffic(shop: Settings, client: Any, cloud: Any, behind: Behind) -> None:
    deploy(shop, MODEL, client=client)
    behind.fails = "/deployments/green$"
    with pytest.raises(StepFailed, match=r"green of diamonds with azureml:dev\.diamonds:8 did not start.*\n.*lightgbm"):
        deploy(shop, "dev.diamonds/8", traffic=100, client=client)
    assert traffic_of(cloud) == ({"blue": 100}, {})


def test_traffic_is_shifted_mirrored_and_rolled_back(shop: Settings, client: Any, cloud: Any, behind: Behind) -> None:
    deploy(shop, MODEL, client=client)
    deploy(shop, "dev.diamonds/8", client=client)
    assert set_mirror(shop, "diamonds", {"green": 20}, client=client) == {"green": 20}
    assert traffic_of(cloud) == ({"blue": 100}, {"green": 20})
    assert shift_traffic(shop, "diamonds", {"blue": 50, "green": 50}, client=client) == {"blue": 50, "green": 50}
    assert traffic_of(cloud) == ({"blue": 50, "green": 50}, {})  # who has some of it is no shadow any more
    assert roll_back(shop, "diamonds", "too slow", client=client) == {"blue": 100}
    assert traffic_of(cloud) == ({"blue": 100}, {})
    assert ledger.entries(shop, action="roll_back")[0].details["reason"] == "too slow"
    for wrong, told in (({"blue": 50}, "add up"), ({"blue": 110, "green": -10}, "below 0"), ({"red": 100}, "No deployment red")):
        with pytest.raises(ValueError, match=told):
            shift_traffic(shop, "diamonds", wrong, client=client)
    with pytest.raises(ValueError, match="0 to 50"):
        set_mirror(shop, "diamonds", {"green": 60}, client=client)
    with pytest.raises(ValueError, match="cannot be a shadow"):
        set_mirror(shop, "diamonds", {"blue": 10}, client=client)
    with pytest.raises(LookupError, match="No endpoint 'nothing'"):
        shift_traffic(shop, "nothing", {"blue": 100}, client=client)
    assert [(one["deployment"], one["model"], one["state"], one["traffic"]) for one in endpoint_status(shop, client=client)] == [
        ("blue", "model:dev.diamonds/7", "ready", 100), ("green", "model:dev.diamonds/8", "ready", 0)]


def test_it_is_opened_asked_and_removed(shop: Settings, client: Any, cloud: Any, behind: Behind) -> None:
    deploy(shop, MODEL, client=client)
    assert keys(shop, "diamonds", client=client) == {"primary": "one", "secondary": "two"}
    assert invoke(shop, "diamonds", pd.DataFrame({"carat": [0.3]}), "blue", "order-1", client=client) == [1.0]
    headers, body = behind.asked[-1]
    assert body == {"input_data": {"columns": ["carat"], "index": [0], "data": [[0.3]]}}
    assert (headers["authorization"], headers["azureml-model-deployment"], headers["x-request-id"]) == ("Bearer one", "blue", "order-1")
    invoke(shop, "diamonds", {"input_data": [[1]]}, client=client)
    assert "azureml-model-deployment" not in behind.asked[-1][0]
    assert regenerate(shop, "diamonds", "primary", client=client) == "new"
    behind.status = 424
    with pytest.raises(StepFailed, match="answered 424: no cut"):
        invoke(shop, "diamonds", {}, client=client)
    behind.status, behind.reply = 400, ["Missing columns"]
    with pytest.raises(ValueError, match="Missing columns"):
        invoke(shop, "diamonds", {}, client=client)
    assert "lightgbm" in logs(shop, "diamonds", "blue", client=client)
    with pytest.raises(ValueError, match="100 % of the traffic"):
        remove(shop, "diamonds", "blue", client=client)
    remove(shop, "diamonds", client=client)
    assert not [path for path in cloud.resources if path.endswith("/onlineendpoints/diamonds")]


KUBERNETES = {
    "arc-endpoint.yml": """
$schema: https://azuremlschemas.azureedge.net/latest/kubernetesOnlineEndpoint.schema.json
name: diamonds-arc
compute: azureml:arc-cluster
auth_mode: key
""",
    "arc-deployment.yml": """
$schema: https://azuremlschemas.azureedge.net/latest/kubernetesOnlineDeployment.schema.json
name: blue
type: kubernetes
endpoint_name: diamonds-arc
model: azureml:dev.diamonds:7
environment: file:environments/images/serving.yml
instance_type: defaultinstancetype
resources:
  requests: {cpu: "0.5", memory: 1Gi}
  limits: {cpu: "1", memory: 2Gi}
scale_settings:
  type: target_utilization
  min_instances: 1
  max_instances: 3
  polling_interval: 10
  target_utilization_percentage: 70
data_collector:
  collections:
    model_inputs: {enabled: "True"}
""",
}


def test_kubernetes_and_batch_files_are_what_azure_publishes(shop: Settings, client: Any, cloud: Any, behind: Behind) -> None:
    for name, content in KUBERNETES.items():
        (shop.root / name).write_text(content)
    paths = [shop.root / name for name in KUBERNETES]
    paths += [HERE / "specifications/batch-endpoint.yml", HERE / "specifications/batch-deployment.yml"]
    paths += sorted((shop.root / "environments/dev").glob("batch-*.yml"))
    done = apply(shop, client, paths)
    assert {applied.kind for applied in done} == {"online_endpoint", "online_deployment", "batch_endpoint", "batch_deployment"}
    [body] = cloud.bodies("/onlineEndpoints/diamonds-arc/deployments/blue$")
    assert body["properties"]["endpointComputeType"] == "Kubernetes"
    assert body["properties"]["containerResourceRequirements"]["containerResourceLimits"] == {"cpu": "1", "memory": "2Gi"}
    scale = body["properties"]["scaleSettings"]
    assert (scale["minInstances"], scale["maxInstances"], scale["targetUtilizationPercentage"]) == (1, 3, 70)
    [door] = cloud.bodies("/onlineEndpoints/diamonds-arc$")
    assert door["properties"]["compute"].endswith("/computes/arc-cluster")
    assert faults_of(cloud) == []


def faults_of(cloud: Any) -> list[str]:
    """Hold what was sent to Microsoft's published types, as the tests of the bodies do."""
    spec = importlib.util.spec_from_file_location("bodies", HERE / "test_bodies.py")
    assert spec is not None
    assert spec.loader is not None
    bodies = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bodies)
    return bodies.faults_of(cloud)
