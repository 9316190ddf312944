"""What leaves for Azure ML is what the files say: every kind's REST body, against a golden file and Microsoft's own types.

The golden files are written anew with `RENEW_GOLDEN=1 pytest tests/azure/test_bodies.py`; look at their difference before
you keep it. The types are those of ../shared/arm-types, where that folder stands beside the repository.
"""

import gzip
import json
import os
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from mlops_nb.azure import apply, connect, submit
from mlops_nb.core.settings import Settings, load_settings
from mlops_nb.core.specification import read_pipeline

HERE, ROOT = Path(__file__).parent, Path(__file__).resolve().parents[2]
GOLDEN, TYPES = ROOT / "tests/golden", ROOT.parent / "shared/arm-types"

# golden file -> what is applied (in tests/azure/specifications, or in the project), and the address of the body looked at
CASES = {
    "environment": ("environments/images/training.yml", "/environments/mlops-nb-training/versions/1$"),
    "component": ("ci/components/classical_20_train.yml", "/components/classical_20_train/versions/1$"),
    "compute": ("environments/prod/compute.yml", "/computes/cpu-cluster$"),
    "data": ("data.yml", "/data/diamonds-truth/versions/1$"),
    "model": ("model.yml", "/models/prod.diamonds/versions/3$"),
    "online_endpoint": ("environments/prod/endpoint.yml", "/onlineEndpoints/diamonds$"),
    "online_deployment": ("environments/prod/deployment.yml", "/deployments/blue$"),
    "batch_endpoint": ("batch-endpoint.yml", "/batchEndpoints/diamonds-batch$"),
    "batch_deployment": ("batch-deployment.yml", "/deployments/blue$"),
    "job_schedule": ("environments/prod/schedules/promotion.yml", "/schedules/classical_promotion$"),
    "monitor": ("environments/prod/monitor.yml", "/schedules/diamonds_prod$"),
    "monitor_classification": ("monitor.yml", "/schedules/stones$"),
}
SHARED = ("environment", "component", "data", "model")  # what a registry holds, too
API_OF_REGISTRIES = "2023-04-01"  # the first published one; the SDK speaks a preview that was not


@pytest.fixture
def production(shop: Settings, cloud: Any) -> Settings:
    """The project in prod as the process that delivers sees it, with what its files refer to in place."""
    scope = cloud.workspace("prod")
    for name in ("diamonds", "diamonds-blue-model_inputs", "diamonds-blue-model_outputs", "diamonds-validation", "diamonds-truth"):
        cloud.put(f"{scope}/data/{name}/versions/1", {"dataType": "uri_folder", "dataUri": "azureml://datastores/x/paths/y"})
    model = {"modelType": "mlflow_model", "modelUri": "azureml://datastores/x/paths/y", "flavors": {}}
    for version in (1, 3):
        cloud.put(f"{scope}/models/prod.diamonds/versions/{version}", model)
    cloud.put(f"{scope}/environments/mlops-nb-training/versions/1", {"image": "x"})
    collected = {
        name: {"dataCollectionMode": "Enabled", "dataId": f"{scope}/data/diamonds-blue-{name}/versions/1"}
        for name in ("model_inputs", "model_outputs")
    }
    blue: dict[str, Any] = {"endpointComputeType": "Managed", "instanceType": "Standard_DS3_v2"}
    blue |= {"scaleSettings": {"scaleType": "Default"}, "dataCollector": {"collections": collected}}
    endpoint = f"{scope}/onlineEndpoints/diamonds"
    cloud.put(f"{endpoint}/deployments/blue", blue, location="westeurope", sku={"capacity": 3})
    cloud.put(endpoint, {"authMode": "Key", "traffic": {}, "properties": {}}, location="westeurope")
    cloud.put(f"{scope}/batchEndpoints/diamonds-batch", {"authMode": "AADToken"}, location="westeurope")
    return load_settings("prod", user="delivery")


@pytest.fixture
def applied(production: Settings, cloud: Any, credential: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Apply one file, and return the request that did it."""
    monkeypatch.setenv("AZURE_SUBSCRIPTION_ID", cloud.subscription)

    def run(file: str, address: str, registry: str = "") -> Any:
        own = HERE / "specifications" / file
        apply(production, connect(production, credential, registry), [own if own.exists() else production.root / file])
        return [sent for sent in cloud.written() if sent.method == "PUT" and re.search(address, sent.path)][-1]

    return run


def golden(name: str, body: Any) -> None:
    """Compare a body with its golden file, or write that anew."""
    path, text = GOLDEN / f"{name}.json", json.dumps(steady(body), indent=1) + "\n"
    if os.environ.get("RENEW_GOLDEN"):
        path.write_text(text)
    assert json.loads(path.read_text()) == json.loads(text), f"differs from {path}; see this file's first lines"


def steady(body: Any) -> Any:
    """Replace what differs from run to run: ids that the SDK draws, and hashes of content in the places uploads go to."""
    text = json.dumps(body)
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "{id}", text)
    text = re.sub(r"(LocalUpload/)[0-9a-f]{32,64}", r"\1{hash}", text)
    text = re.sub(r'("hash_sha256": |"azureml\.\w*[hH]ash\w*": )"[0-9a-f]+"', r'\1"{hash}"', text)
    text = re.sub(r'("(start_?[tT]ime|startTime)": )"[^"]+"', r'\1"{time}"', text)
    return json.loads(text)


@pytest.mark.parametrize("name", CASES)
def test_a_workspace_is_sent_what_the_file_says(name: str, applied: Callable[..., Any], cloud: Any) -> None:
    sent = applied(*CASES[name])
    golden(name, sent.body)
    assert faults_of(cloud) == []


@pytest.mark.parametrize("name", SHARED)
def test_a_registry_is_sent_what_the_file_says(name: str, applied: Callable[..., Any], cloud: Any) -> None:
    scope = cloud.workspace("prod").replace("workspaces/mlops-nb-prod", "registries/shop").replace("mlops-nb-prod", "registry-group")
    cloud.put(f"{scope}/environments/mlops-nb-training/versions/1", {"image": "x"})
    sent = applied(*CASES[name], registry="shop")
    assert "/registries/shop/" in sent.path
    golden(f"registry_{name}", sent.body)
    body = {key: value for key, value in sent.body["properties"].items() if key != "system_metadata"}  # the SDK's own, always null
    assert list(faults(sent.path, API_OF_REGISTRIES, {"properties": body})) == []


def test_a_job_is_sent_as_its_pipeline_says(shop: Settings, client: Any, cloud: Any) -> None:
    submit(shop, client, read_pipeline(shop.root / "ci/pipelines/classical.yml"), {"environment": "dev", "budget_trials": "5"})
    [sent] = [sent for sent in cloud.written() if "/jobs/" in sent.path]
    golden("job", sent.body)
    assert faults_of(cloud) == []


def faults_of(cloud: Any) -> list[str]:
    """Hold everything that was put to Azure ML to its type: what was asked for, and what the SDK put before it."""
    puts = [sent for sent in cloud.written() if sent.method == "PUT"]
    found = [f"{sent.path}{fault}" for sent in puts for fault in faults(sent.path, sent.api, sent.body)]
    return [fault for fault in found if ".hash_version: " not in fault]  # of code: the SDK's own, a number as ever


# Microsoft's published types: a table of types per provider and API version, in which types refer to each other by number.


@cache
def tables(api: str) -> list[list[dict[str, Any]]]:
    files = TYPES.glob(f"microsoft.machinelearningservices_{api}.json.gz") if TYPES.is_dir() else []
    return [json.loads(gzip.decompress(path.read_bytes())) for path in files]


def faults(address: str, api: str, body: Any) -> Iterator[str]:
    """Hold a resource's body to its published type: nothing unknown, missing, of the wrong type, or only for reading."""
    if not TYPES.is_dir():
        return
    parts = address.split("/providers/")[1].split("/")
    name = f"{parts[0]}/{'/'.join(parts[1::2])}@{api}".lower()
    found = [(table, entry) for table in tables(api) for entry in table if entry.get("name", "").lower() == name and "body" in entry]
    if not found:
        yield f"no published type {name}"
        return
    table, entry = found[0]
    written = body | {"name": parts[-1]}  # which stands in the address
    yield from differences(table, entry["body"], written, "")


def differences(table: list[dict[str, Any]], reference: dict[str, str], value: Any, where: str) -> Iterator[str]:
    kind = table[int(reference["$ref"].rpartition("/")[2])]
    match kind["$type"]:
        case "StringType" | "StringLiteralType" | "IntegerType" | "BooleanType" | "ArrayType" if value is None:
            yield f"{where}: null"
        case "StringType" if not isinstance(value, str):
            yield f"{where}: {value!r} is no text"
        case "StringLiteralType" if str(value).lower() != kind["value"].lower():  # the service does not mind the case
            yield f"{where}: {value!r} is not {kind['value']!r}"
        case "IntegerType" if isinstance(value, bool) or not isinstance(value, int | float):
            yield f"{where}: {value!r} is no number"
        case "BooleanType" if not isinstance(value, bool):
            yield f"{where}: {value!r} is neither true nor false"
        case "ArrayType" if not isinstance(value, list):
            yield f"{where}: {value!r} is no list"
        case "ArrayType":
            for number, item in enumerate(value):
                yield from differences(table, kind["itemType"], item, f"{where}[{number}]")
        case "UnionType":
            elements = [(table[int(element["$ref"].rpartition("/")[2])], element) for element in kind["elements"]]
            literals = [element["value"] for element, _ in elements if element["$type"] == "StringLiteralType"]
            if literals and str(value).lower() not in map(str.lower, literals):  # open or not: we send what is published
                yield f"{where}: {value!r} is none of {', '.join(literals)}"
            elif not literals and all(list(differences(table, element, value, where)) for _, element in elements):
                yield f"{where}: {value!r} is none of {[element['$type'] for element, _ in elements]}"
        case "ObjectType" | "DiscriminatedObjectType":
            yield from differences_of_object(table, kind, value, where)


READ_ONLY, REQUIRED, DEPLOY_TIME = 2, 1, 8


def differences_of_object(table: list[dict[str, Any]], kind: dict[str, Any], value: Any, where: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where}: {value!r} is no object"
        return
    known, rest = dict(kind.get("properties") or kind.get("baseProperties") or {}), kind.get("additionalProperties")
    if kind["$type"] == "DiscriminatedObjectType":
        elements = {name.lower(): element for name, element in kind["elements"].items()}
        chosen = elements.get(str(value.get(kind["discriminator"])).lower())
        if chosen is None:
            yield f"{where}.{kind['discriminator']}: {value.get(kind['discriminator'])!r} is none of {list(kind['elements'])}"
            return
        element = table[int(chosen["$ref"].rpartition("/")[2])]
        known, rest = known | element["properties"], rest or element.get("additionalProperties")
    for name, entry in known.items():
        fixed = entry["flags"] & (READ_ONLY | DEPLOY_TIME)
        if entry["flags"] & REQUIRED and not fixed and name not in value:
            yield f"{where}.{name}: missing"
    for name, item in value.items():
        if name in known:
            if known[name]["flags"] & READ_ONLY:
                yield f"{where}.{name}: only for reading"
            yield from differences(table, known[name]["type"], item, f"{where}.{name}")
        elif rest:
            yield from differences(table, rest, item, f"{where}.{name}")
        else:
            yield f"{where}.{name}: unknown"


@pytest.mark.skipif(not TYPES.is_dir(), reason="no ../shared/arm-types")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"unknown": 1}, ".properties.unknown: unknown"),
        ({"authMode": "Password"}, ".properties.authMode: 'Password' is none of"),
        ({"description": 7}, ".properties.description: 7 is no text"),
        ({"scoringUri": "x"}, ".properties.scoringUri: only for reading"),
        ({"authMode": None}, ".properties.authMode: "),
    ],
)
def test_the_check_finds_a_planted_fault(change: dict[str, Any], said: str) -> None:
    body = json.loads((GOLDEN / "online_endpoint.json").read_text())
    body["properties"] |= change
    address = "/providers/Microsoft.MachineLearningServices/workspaces/w/onlineEndpoints/e"
    [fault] = faults(address, "2022-02-01-preview", body)
    assert fault.startswith(said)
