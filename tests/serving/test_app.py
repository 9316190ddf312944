"""One deployment: its answers equal the model's, its failures say whose they are, and what it saw is collected."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression
from starlette.testclient import TestClient

from mlops_nb.serving.app import Config, make_app
from mlops_nb.serving.collector import Collector
from mlops_nb.serving.model import load_model

FRAME = pd.DataFrame({"carat": [0.3, 0.5, 0.8, 1.0], "depth": [60.0, 61.0, 62.5, 59.0]})
PRICES = pd.Series([500.0, 1200.0, 3000.0, 5000.0])
REQUEST = {"input_data": {"columns": list(FRAME), "index": [0, 1], "data": FRAME.head(2).to_numpy().tolist()}}


def save(model: object, folder: Path) -> Path:
    signature = mlflow.models.infer_signature(FRAME, PRICES.to_numpy())
    mlflow.sklearn.save_model(model, folder, signature=signature, pip_requirements=["scikit-learn"])
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(LinearRegression().fit(FRAME, PRICES), tmp_path_factory.mktemp("model") / "model")


def serve(folder: Path, tmp_path: Path) -> TestClient:
    config = Config("shop", "blue", "dev", "model:dev.diamonds/3", str(folder), "unused", max_bytes=2000,
                    collected=str(tmp_path / "collected"), rates={"model_inputs": 1.0, "model_outputs": 1.0})
    return TestClient(make_app(config, load_model(folder)), raise_server_exceptions=False)


@pytest.fixture
def client(folder: Path, tmp_path: Path) -> Iterator[TestClient]:
    with serve(folder, tmp_path) as client:
        yield client


def events(collected: Path, collection: str) -> list[dict]:
    files = (collected / collection).glob("????/??/??/??/*.jsonl")
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_answers_as_azure_and_as_mlflow_and_equal_to_the_model(client: TestClient, folder: Path) -> None:
    expected = mlflow.pyfunc.load_model(str(folder)).predict(FRAME.head(2)).tolist()
    answer = client.post("/score", json=REQUEST)
    assert answer.json() == expected
    assert answer.headers["azureml-model-deployment"] == "blue"
    assert answer.headers["x-request-id"] == answer.headers["x-ms-request-id"]
    assert client.post("/invocations", json=REQUEST).json() == {"predictions": expected}
    csv = FRAME.head(2).to_csv(index=False)
    assert client.post("/score", content=csv, headers={"content-type": "text/csv"}).json() == expected
    assert client.post("/score", json={"input_data": []}).json() == []
    assert client.get("/version").json()["model"] == "model:dev.diamonds/3"
    assert client.get("/ready").status_code == client.get("/health").status_code == 200


def test_a_request_that_cannot_be_scored_is_the_clients_fault(client: TestClient) -> None:
    answer = client.post("/score", json={"dataframe_records": [{"carat": "big", "depth": 1}]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "BadRequest")
    assert "'carat'" in answer.json()["error"]["message"]
    assert client.post("/score", content=b" " * 3000).status_code == 413
    assert client.get("/score").status_code == 405


def test_a_model_that_fails_is_the_models_fault(tmp_path: Path) -> None:
    model = save(LinearRegression().fit(FRAME.rename(columns={"depth": "height"}), PRICES), tmp_path / "wrong")
    config = Config("shop", "blue", "dev", "model:dev.diamonds/4", str(model), "unused")
    with TestClient(make_app(config, load_model(model))) as client:
        answer = client.post("/score", json=REQUEST)
    assert answer.status_code == 424
    assert answer.headers["ms-azureml-model-error-statuscode"] == "500"
    reason = answer.headers["ms-azureml-model-error-reason"]
    assert reason.startswith("ValueError: The feature names should match")
    assert reason == reason.strip()  # a server that sends such a header breaks the connection instead
    assert "model:dev.diamonds/4" in answer.json()["error"]["message"]


def test_requests_and_answers_are_collected_as_cloud_events(folder: Path, tmp_path: Path) -> None:
    with serve(folder, tmp_path) as client:
        predictions = client.post("/score", json=REQUEST, headers={"x-request-id": "order-7"}).json()
        client.post("/score", json={"input_data": [["big", 1]]})  # refused, so not collected
    (asked,), (answered,) = (events(tmp_path / "collected", name) for name in ("model_inputs", "model_outputs"))
    assert asked["data"] == FRAME.head(2).to_dict(orient="records")
    assert answered["data"] == [{"prediction": value} for value in predictions]
    for event in (asked, answered):
        assert event["specversion"] == "1.0"
        assert event["correlationid"] == event["xrequestid"] == "order-7"
        assert event["modelversion"] == "3"
        assert event["source"].endswith("/onlineEndpoints/shop/deployments/blue")
        size = len(json.dumps(event["data"], separators=(",", ":")))
        assert event["contentrange"] == f"bytes 0-{size - 1}/{size}"
    assert (asked["type"], answered["type"]) == ("azureml.inference.model_inputs", "azureml.inference.model_outputs")


def test_a_model_that_skops_does_not_read_is_loaded_by_mlflow(tmp_path: Path) -> None:
    code = tmp_path / "doubling.py"
    code.write_text("import mlflow\n\n\nclass Doubling(mlflow.pyfunc.PythonModel):\n"
                    "    def predict(self, context, model_input, params=None):\n"
                    "        return model_input['carat'] * 2\n\n\nmlflow.models.set_model(Doubling())\n")
    signature = mlflow.models.infer_signature(FRAME, PRICES)
    mlflow.pyfunc.save_model(tmp_path / "model", python_model=code, signature=signature, pip_requirements=["mlflow"])
    model = load_model(tmp_path / "model")
    assert [column.name for column in model.signature or []] == ["carat", "depth"]
    assert list(model.predict(FRAME)) == [0.6, 1.0, 1.6, 2.0]
    shutil.rmtree(tmp_path / "model")
    with pytest.raises(FileNotFoundError, match="No MLmodel"):
        load_model(tmp_path / "model")


def collect(collector: Collector, requests: int) -> None:
    for number in range(requests):
        collector.collect(FRAME, np.array([1.0, np.nan, 3.0, 4.0]), f"id-{number}", f"id-{number}")


def test_the_collector_keeps_the_same_sample_of_inputs_and_outputs(tmp_path: Path) -> None:
    collector = Collector(tmp_path, "here", "1", {"model_inputs": 0.3, "model_outputs": 0.3})
    collect(collector, 500)
    collector.close()
    asked, answered = ({e["correlationid"] for e in events(tmp_path, name)} for name in ("model_inputs", "model_outputs"))
    assert asked == answered
    assert 100 < len(asked) == collector.written < 200
    assert events(tmp_path, "model_outputs")[0]["data"][1] == {"prediction": None}


def test_the_collector_goes_on_when_its_files_are_taken_away(tmp_path: Path) -> None:
    collector = Collector(tmp_path / "collected", "here", "1", {"model_inputs": 1.0})
    collect(collector, 1)
    while not collector.written:
        pass
    shutil.rmtree(tmp_path / "collected")
    collect(collector, 2)
    collector.close()
    assert len(events(tmp_path / "collected", "model_inputs")) == 2


def test_the_collector_drops_and_counts_what_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    collector = Collector(tmp_path / "file", "here", "1", {"model_inputs": 1.0})
    collect(collector, 3)
    collector.close()
    assert (collector.written, collector.dropped) == (0, 3)
    assert os.listdir(tmp_path) == ["file"]
