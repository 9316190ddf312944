"""Turn what a model predicts into JSON that every reader accepts."""

import json
import math
from typing import Any

import orjson

# what orjson would write in a way of its own goes through `_plain`, as with `json`
_OPTIONS = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS


def as_rows(predictions: Any) -> Any:
    """Turn what a model predicts (array, series, frame, list, mapping) into lists and objects for JSON."""
    if hasattr(predictions, "to_dict") and hasattr(predictions, "columns"):
        return predictions.to_dict(orient="records")
    if hasattr(predictions, "tolist"):
        return predictions.tolist()
    if isinstance(predictions, dict):
        return {key: as_rows(value) for key, value in predictions.items()}
    return predictions


def as_records(predictions: Any) -> Any:
    """Do the same as MLflow's server does, where a series is a table of one column."""
    if hasattr(predictions, "to_frame") and hasattr(predictions, "dtype"):
        return predictions.to_frame().to_dict(orient="records")
    return as_rows(predictions)


def as_json(content: Any) -> bytes:
    """Write JSON that every reader accepts: NaN and infinity become null, times become ISO 8601."""
    try:
        return orjson.dumps(content, default=_plain, option=_OPTIONS)
    except TypeError:  # integers over 64 bits, keys that are no text, half a surrogate pair
        return json.dumps(_finite(content), default=_plain, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, str | int | float | dict | list | tuple):  # a subclass, e.g. numpy's own float
        return _base(value)
    if hasattr(value, "isoformat"):
        text = value.isoformat()
        return None if text == "NaT" else text
    if hasattr(value, "tolist"):  # numpy's arrays and scalars
        return _finite(value.tolist())
    if type(value).__name__ == "NAType":
        return None
    return str(value)


def _base(value: Any) -> Any:
    kind = next(kind for kind in (str, int, float, dict, list, tuple) if isinstance(value, kind))
    return list(value) if kind is tuple else kind(value)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key if isinstance(key, str | int | float | bool | None) else str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if hasattr(value, "tolist"):
        return _finite(value.tolist())
    return value
