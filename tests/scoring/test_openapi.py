"""The OpenAPI document says what the model's signature asks for, and every format it names is one that is answered."""

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import mlflow
import numpy as np
import pandas as pd
import pytest
import schemathesis
from sklearn.linear_model import LinearRegression
from starlette.testclient import TestClient

from mlops_nb.scoring.app import make_app
from mlops_nb.scoring.arrays import Tensor
from mlops_nb.scoring.config import Config, Wish
from mlops_nb.scoring.fitting import Column
from mlops_nb.scoring.model import Model, load_model
from mlops_nb.scoring.openapi import describe

CONFIG = Config("shop", "blue", "dev", "blue-0", "unused", Wish("model:dev.diamonds/3", ""))
MIXED = [Column("carat", "double"), Column("cut", "string"), Column("stones", "long", required=False), Column("sold", "datetime")]
ROW = [0.5, "Ideal", None, "2026-11-20"]


def document(**model: Any) -> dict[str, Any]:
    return json.loads(json.dumps(describe(CONFIG, Model(lambda rows: rows, model.pop("signature", None), **model))))


def request_schema(found: dict[str, Any]) -> Any:
    """A validator of request bodies; `nullable` is OpenAPI 3.0's, so it is said in JSON schema's words."""

    def plain(part: Any) -> Any:
        if isinstance(part, list):
            return [plain(item) for item in part]
        if not isinstance(part, dict):
            return part
        part = {key: plain(value) for key, value in part.items()}
        return {"anyOf": [{"type": "null"}, {k: v for k, v in part.items() if k != "nullable"}]} if part.get("nullable") else part

    return jsonschema_rs.validator_for(plain({"$ref": "#/components/schemas/Request", "components": found["components"]}))


DOCUMENTS = {
    "table": {"signature": MIXED}, "positions": {"signature": [Column("0", "string")], "positions": True}, "anything": {},
    "tensor": {"tensors": (Tensor("", "float32", (-1, 2, 3)),)},
    "tensors": {"tensors": (Tensor("a", "int64", (-1,)), Tensor("b", "str", (-1, 2)))},
    "params": {"signature": MIXED, "params": True, "schema": {"params": [{"name": "top", "type": "long"}], "outputs": []}}}


@pytest.mark.parametrize("model", DOCUMENTS.values(), ids=DOCUMENTS)
def test_the_document_is_valid(model: dict[str, Any]) -> None:
    found = document(**model)
    schemathesis.openapi.from_dict(found).validate()
    answers = found["paths"]["/score"]["post"]["responses"]
    assert set(answers) == {"200", "400", "401", "404", "408", "413", "415", "424", "429", "503"}
    assert found["components"]["securitySchemes"]["bearer"] == {"type": "http", "scheme": "bearer"}


def test_a_broken_document_would_not_pass() -> None:
    found = document(signature=MIXED)
    del found["info"]["title"]
    with pytest.raises(Exception, match="title"):
        schemathesis.openapi.from_dict(found).validate()


SPLIT = {"columns": ["carat", "cut", "stones", "sold"], "data": [ROW]}
RECORDS = [{"carat": 0.5, "cut": "Ideal", "sold": "2026-11-20"}]


@pytest.mark.parametrize(("body", "good"), [
    ({"input_data": SPLIT | {"index": [0]}}, True), ({"input_data": [ROW]}, True), ({"dataframe_split": SPLIT}, True),
    ({"dataframe_records": RECORDS}, True), ({"inputs": {"carat": [0.5], "cut": ["Ideal"], "sold": ["2026"]}}, True),
    ({"instances": RECORDS}, True), ({"input_data": [ROW[:3]]}, False), ({"dataframe_records": [{"carat": "big"}]}, False),
    ({"data": [ROW]}, False)])
def test_the_formats_of_a_table(body: dict[str, Any], good: bool) -> None:
    assert request_schema(document(signature=MIXED)).is_valid(body) is good


def test_the_formats_of_arrays() -> None:
    schema = request_schema(document(tensors=(Tensor("", "float32", (-1, 2)),)))
    assert schema.is_valid({"inputs": [[1, 2.5], [3, 4]]})
    assert not schema.is_valid({"inputs": [[1, 2, 3]]})
    named = request_schema(document(tensors=(Tensor("a", "int64", (-1,)), Tensor("b", "float64", (-1, 2)))))
    assert named.is_valid({"input_data": {"a": [1], "b": [[1, 2]]}})
    assert not named.is_valid({"input_data": {"a": [1]}})


def test_a_worker_gives_it_under_both_names(tmp_path: Path) -> None:
    frame = pd.DataFrame({"carat": np.linspace(0, 1, 8), "depth": 2.0})
    model = LinearRegression().fit(frame, frame.carat)
    mlflow.sklearn.save_model(model, tmp_path / "model", signature=mlflow.models.infer_signature(frame, model.predict(frame)),
                              pip_requirements=["scikit-learn"], serialization_format="skops")
    with TestClient(make_app(CONFIG, load_model(tmp_path / "model"))) as client:
        found = client.get("/openapi.json").json()
        assert client.get("/swagger.json").json() == found
        answer = client.post("/score", json={"input_data": frame.to_dict(orient="list")})
        wrapped = client.post("/invocations", json={"input_data": frame.to_dict(orient="list")})
    assert request_schema(found).is_valid({"input_data": frame.to_dict(orient="list")})
    for path, given in (("/score", answer.json()), ("/invocations", wrapped.json())):
        schema = found["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
        said = json.loads(json.dumps({**schema, "components": found["components"]}).replace('"nullable": true', '"x": 1'))
        assert jsonschema_rs.validator_for(said).is_valid(given)
