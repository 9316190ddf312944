"""Fit a request to the array, or the named arrays, that a model takes; or to what MLflow hands to one without a signature."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlops_nb.scoring.fitting import from_text
from mlops_nb.scoring.reading import BadPayload, Content, as_table, is_split, shown, some

if TYPE_CHECKING:
    import numpy


@dataclass(frozen=True)
class Tensor:
    """One array of the model's signature."""

    name: str  # empty where the model takes one array without a name
    dtype: str  # numpy's name
    shape: tuple[int, ...]  # -1: any length


def fit_tensors(content: Content, tensors: Sequence[Tensor]) -> Any:
    """Make the array, or the arrays by name, that the model takes; raises `BadPayload`."""
    key, data = content.key, content.data
    as_rows = key in ("csv", "dataframe_split", "dataframe_records") or is_split(data)
    if not tensors[0].name:
        if as_rows:
            table = as_table(content)
            read = _as_number if table.text else None
            data = [[read(value) if read else value for value in row] for row in zip(*table.columns.values(), strict=True)]
        return _fit_tensor(tensors[0], data)
    if as_rows or (isinstance(data, list) and data and all(isinstance(row, dict) for row in data)):
        table = as_table(content)
        data = {n: list(map(_as_number, v)) for n, v in table.columns.items()} if table.text else table.columns
    if isinstance(data, list) and len(tensors) == 1:
        data = {tensors[0].name: data}
    if not isinstance(data, dict) or (missing := [tensor.name for tensor in tensors if tensor.name not in data]):
        given = some(data) if isinstance(data, dict) else shown(data)
        raise BadPayload(f"Missing arrays: {some(missing) if isinstance(data, dict) else 'all'} (given: {given or 'none'}). "
                         f"The model needs: {some(f'{tensor.name} ({_kind(tensor)})' for tensor in tensors)}.")
    return {tensor.name: _fit_tensor(tensor, data[tensor.name]) for tensor in tensors}


def _as_number(value: str) -> Any:
    return from_text("double", value)


def _kind(tensor: Tensor) -> str:
    return f"{tensor.dtype}, shape {', '.join('any' if length < 0 else str(length) for length in tensor.shape)}"


def _fit_tensor(tensor: Tensor, values: Any) -> "numpy.ndarray":
    import numpy as np

    name = f"Array '{tensor.name}'" if tensor.name else "The array"
    dtype = np.dtype(tensor.dtype)
    if isinstance(values, list) and not values:
        return np.zeros((0, *(max(length, 0) for length in tensor.shape[1:])), dtype)
    try:
        found = np.array(values, dtype=object if dtype.kind == "O" else None)
    except (ValueError, TypeError) as problem:
        raise BadPayload(f"{name}: lists differ in length ({str(problem)[:80]}). The model needs {_kind(tensor)}.") from None
    if dtype.kind == "O" and len(tensor.shape) == 1:
        return found
    if len(found.shape) != len(tensor.shape) or any(
            wanted not in (-1, given) for wanted, given in zip(tensor.shape, found.shape, strict=True)):
        raise BadPayload(f"{name} has shape {', '.join(map(str, found.shape)) or 'of one value'}. The model needs {_kind(tensor)}.")
    takes = {"f": "iuf", "i": "iuf", "u": "iuf", "b": "b", "U": "U", "S": "U", "O": "OiufbU"}.get(dtype.kind, "")
    with np.errstate(over="ignore", invalid="ignore"):
        cast = found.astype(dtype) if found.dtype.kind in takes else None
    if cast is None or (dtype.kind in "iu" and (cast != found).any()):
        raise BadPayload(f"{name} holds values that are not {tensor.dtype}. The model needs {_kind(tensor)}.")
    return cast


# --- models without a signature --------------------------------------------------------------------------------------


def fit_freely(
    content: Content,
    tables: bool,  # named values make a table; False: a mapping of arrays, as MLflow hands it to models
) -> Any:
    """Hand a request on as MLflow does for a model without a signature; raises `BadPayload`."""
    import numpy as np
    import pandas as pd

    key, data = content.key, content.data
    if key == "csv":
        table = as_table(content)
        return pd.DataFrame({name: _infer(values) for name, values in table.columns.items()})
    records = isinstance(data, list) and bool(data) and all(isinstance(row, dict) for row in data)
    if key.startswith("dataframe") or is_split(data) or records or (tables and isinstance(data, dict)):
        return pd.DataFrame(as_table(content).columns)
    try:
        if isinstance(data, dict):
            return {name: np.array(values) for name, values in data.items()}
        if isinstance(data, list):
            return np.array(data)
    except ValueError as problem:
        raise BadPayload(f"{key}: lists differ in length ({str(problem)[:80]}). Send as many values in each.") from None
    raise BadPayload(f"{key} is {shown(data)}, not a table. Send rows, columns, or a split table.")


def _infer(values: list[str]) -> list[Any]:
    cast = [_as_number(value) for value in values]
    return cast if not any(isinstance(value, str) for value in cast) else [value or None for value in values]
