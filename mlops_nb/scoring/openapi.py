"""Describe an endpoint as OpenAPI 3 does, from its model's signature: every format that is taken, and every answer that is given."""

from typing import Any

from mlops_nb import __version__
from mlops_nb.scoring.arrays import Tensor
from mlops_nb.scoring.config import Config
from mlops_nb.scoring.fitting import Column
from mlops_nb.scoring.model import Model

_TYPES: dict[str, dict[str, Any]] = {  # MLflow's type -> JSON schema
    "boolean": {"type": "boolean"},
    "integer": {"type": "integer", "format": "int32", "minimum": -(2**31), "maximum": 2**31 - 1},
    "long": {"type": "integer", "format": "int64", "minimum": -(2**63), "maximum": 2**63 - 1},
    "float": {"type": "number", "format": "float"},
    "double": {"type": "number", "format": "double"},
    "string": {"type": "string"},
    "datetime": {"type": "string", "description": "A date and time as in ISO 8601; one with an offset is turned into UTC."},
    "binary": {"type": "string", "format": "byte"},
}
_FAILURES = {
    "400": "The request cannot be scored as it is: the message names column, row and value.",
    "401": "The key or token is missing, wrong or expired.",
    "404": "There is no such deployment, or none has traffic.",
    "408": "The deployment took longer than request_timeout_ms.",
    "413": "The body is too large.",
    "415": "The content type or the content encoding is not read here.",
    "424": "The model, or the scoring script, failed.",
    "429": "More requests are pending than the deployment takes.",
    "503": "No deployment is ready.",
}
_ERROR = {"$ref": "#/components/schemas/Error"}


def describe(
    config: Config,
    model: Model | None,  # None: a scoring script answers, which says nothing about its format
) -> dict[str, Any]:
    """Return the endpoint's OpenAPI document."""
    schemas: dict[str, Any] = {"Error": _object({"error": _object({"code": {"type": "string"}, "message": {"type": "string"}})})}
    content: dict[str, Any] = {"application/json": {"schema": {}}}
    if model:
        schemas |= _inputs(model)
        content = {"application/json": {"schema": {"$ref": "#/components/schemas/Request"}},
                   "text/csv": {"schema": {"type": "string", "description": "A line of column names, then one line per row."}}}
        schemas["Predictions"] = _predictions(model)
    answer: dict[str, Any] = {"$ref": "#/components/schemas/Predictions"} if model else {}
    wrapped = _object({"predictions": answer}) if model else {}
    about = f"{config.endpoint}: {config.wish.model}" if config.wish.model else config.endpoint
    return {
        "openapi": "3.0.3",
        "info": {"title": config.endpoint, "version": __version__, "description": about},
        "security": [{"bearer": []}],
        "paths": {
            "/score": {"post": _scoring("score", "Score rows; the answer is Azure ML's.", content, answer)},
            "/invocations": {"post": _scoring("invocations", "Score rows; the answer is MLflow's.", content, wrapped)},
            "/health": {"get": _reading("health", "Whether the endpoint is there.", open_to_all=True)},
            "/ready": {"get": _reading("ready", "Whether a request would be answered.", open_to_all=True)},
            "/version": {"get": _reading("version", "What is deployed.")},
        },
        "components": {"securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}, "schemas": schemas},
    }


def _object(properties: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    required = list(properties) if required is None else required
    return {"type": "object", "properties": properties} | ({"required": required} if required else {})


def _list(items: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, **more}


def _scoring(name: str, summary: str, content: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    text = {"schema": {"type": "string"}}
    named = {"x-request-id": {"description": "The request's id: the one that was sent, or a new one.", **text},
             "azureml-model-deployment": {"description": "The deployment that answered.", **text}}
    failed = {"ms-azureml-model-error-statuscode": {"description": "The model's own status.", **text},
              "ms-azureml-model-error-reason": {"description": "What the model says.", **text}}
    responses: dict[str, Any] = {"200": {
        "description": "The predictions, one per row.", "headers": named, "content": {"application/json": {"schema": answer}}}}
    for status, meaning in _FAILURES.items():
        responses[status] = {"description": meaning, "content": {"application/json": {"schema": _ERROR}}}
    responses["424"]["headers"] = failed
    pinned = {"name": "azureml-model-deployment", "in": "header", "description": "The deployment to ask.", **text}
    identity = {"name": "x-request-id", "in": "header", "description": "A name of your own for the request.",
                "schema": {"type": "string", "maxLength": 200}}
    return {"operationId": name, "summary": summary, "parameters": [pinned, identity],
            "requestBody": {"required": True, "content": content}, "responses": responses}


def _reading(name: str, summary: str, open_to_all: bool = False) -> dict[str, Any]:
    responses = {"200": {"description": "It is.", "content": {"application/json": {"schema": {"type": "object"}}}},
                 "503": {"description": _FAILURES["503"], "content": {"application/json": {"schema": {"type": "object"}}}}}
    if open_to_all:
        return {"operationId": name, "summary": summary, "security": [], "responses": responses}
    responses["401"] = {"description": _FAILURES["401"], "content": {"application/json": {"schema": _ERROR}}}
    return {"operationId": name, "summary": summary, "responses": responses}


# --- the model's side ------------------------------------------------------------------------------------------------


def _inputs(model: Model) -> dict[str, Any]:
    """Make the schemas of the request: one alternative per format."""
    if model.signature is not None:
        formats = _tables(model.signature, model.positions)
    elif model.tensors:
        formats = _tensors(model.tensors)
    else:
        formats = {key: {} for key in ("input_data", "dataframe_split", "dataframe_records", "inputs", "instances")}
        formats = {"inputs": {}} if model.hinted else formats
    params = {"params": _params(model)} if model.params else {}
    names = {"input_data": "AzureRequest", "dataframe_split": "SplitRequest", "dataframe_records": "RecordsRequest",
             "inputs": "InputsRequest", "instances": "InstancesRequest"}
    schemas = {names[key]: _object({key: schema, **params}, [key]) for key, schema in formats.items()}
    return {"Request": {"oneOf": [{"$ref": f"#/components/schemas/{name}"} for name in schemas]}, **schemas}


def _tables(signature: list[Column], positions: bool) -> dict[str, Any]:
    names = [column.name for column in signature]
    values = [_column(column) for column in signature]
    # a row's values stand in the order of the columns; OpenAPI 3.0 can only say which kinds of values it holds
    row = _list({"anyOf": _different(values)}, minItems=len(names), maxItems=len(names), description=", ".join(names))
    rows = _list(row)
    if positions:
        return {"input_data": rows, "inputs": rows, "instances": rows}
    split = _object({"columns": _list({"type": "string", "enum": names}, minItems=len(names), maxItems=len(names), uniqueItems=True),
                     "index": _list({}), "data": rows}, ["columns", "data"])
    required = [column.name for column in signature if column.required]
    records = _list(_object(dict(zip(names, values, strict=True)), required))
    by_column = _object({name: _list(value) for name, value in zip(names, values, strict=True)}, required)
    either = {"anyOf": [rows, records, by_column]}
    return {"input_data": {"anyOf": [split, rows, records, by_column]}, "dataframe_split": split, "dataframe_records": records,
            "inputs": either, "instances": either}


def _different(values: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [value for i, value in enumerate(values) if value not in values[:i]] or [{}]


def _column(column: Column) -> dict[str, Any]:
    schema = dict(_TYPES.get(str(column.type), {}))  # a nested type is MLflow's to check
    return schema | {"nullable": True} if schema and not column.required else schema


def _tensors(tensors: tuple[Tensor, ...]) -> dict[str, Any]:
    if tensors[0].name:
        arrays = _object({tensor.name: _tensor(tensor) for tensor in tensors})
        return {"input_data": arrays, "inputs": arrays}
    array = _tensor(tensors[0])
    return {"input_data": array, "inputs": array, "instances": array}


def _tensor(tensor: Tensor) -> dict[str, Any]:
    kind = next((schema for start, schema in (
        ("float", {"type": "number"}), ("int", {"type": "integer"}), ("uint", {"type": "integer"}), ("bool", {"type": "boolean"}),
        ("str", {"type": "string"})) if tensor.dtype.startswith(start)), {})
    for length in reversed(tensor.shape):
        kind = _list(kind) if length < 0 else _list(kind, minItems=length, maxItems=length)
    return kind


def _params(model: Model) -> dict[str, Any]:
    known = (model.schema or {}).get("params", [])
    return _object({param["name"]: dict(_TYPES.get(str(param.get("type")), {})) for param in known}, [])


def _predictions(model: Model) -> dict[str, Any]:
    """Make the schema of the answer; what is NaN or infinite is sent as null."""
    outputs = (model.schema or {}).get("outputs", [])
    if len(outputs) == 1 and outputs[0]["type"] == "tensor":
        spec = outputs[0]["tensor-spec"]
        shape = tuple(spec["shape"])
        found = _tensor(Tensor("", spec["dtype"], (-1, *shape[1:])))
        inner = found
        while inner.get("type") == "array":
            inner = inner["items"]
        if inner:
            inner["nullable"] = True
        return found
    return {}
