"""Fit a request to the table that the model's signature asks for.

A quick way takes rows of plain numbers straight to an array; whatever it does not take, the thorough way checks and
casts, or refuses with every fault. Both accept the same values and give the same numbers.
"""

import base64
import binascii
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlops_nb.scoring.reading import BadPayload, Content, Table, as_table, is_split, shown, some

if TYPE_CHECKING:
    import numpy
    import pandas


@dataclass(frozen=True)
class Column:
    """One column of the model's signature."""

    name: str
    type: str  # MLflow's: boolean, integer, long, float, double, string, datetime, binary, or a nested one
    required: bool = True  # False: it may be null, or be missing


@dataclass(frozen=True)
class Array:
    """What lets rows of numbers go to a model as one array."""

    names: list[str]  # of the columns, in order
    dtype: str  # float64, float32, int64 or int32
    whole: tuple[int, ...] = ()  # places of integer columns among others
    nulls: bool = False  # whether a null may stand somewhere


# --- tables ----------------------------------------------------------------------------------------------------------


def fit_table(
    table: Table,
    signature: Sequence[Column] | None,
    positions: bool = False,  # the signature has no names: columns are known by their place
) -> "pandas.DataFrame":
    """Check, order and cast a request's rows as the signature says; raises `BadPayload` with every fault found."""
    import pandas as pd

    if signature is None:
        return pd.DataFrame(table.columns)
    columns = _name(table, signature) if positions or not table.named else table.columns
    missing = [column.name for column in signature if column.required and column.name not in columns]
    if missing and (table.rows or table.named):
        raise BadPayload(f"Missing columns: {some(missing)} (given: {some(columns) or 'none'}). "
                         f"The model needs: {some(_describe(column) for column in signature)}.")
    faults: list[str] = []
    cast = {}
    for column in signature:
        values = columns.get(column.name, [None] * table.rows)
        try:
            cast[column.name] = _cast(column, values, table.text)
        except BadPayload as fault:  # all columns first, then raise once
            faults.append(str(fault))
    if faults:
        raise BadPayload(some(faults, " "))
    frame = pd.DataFrame(cast, index=pd.RangeIndex(table.rows))
    return frame.set_axis(range(len(signature)), axis=1) if positions else frame


def _name(table: Table, signature: Sequence[Column]) -> dict[str, list[Any]]:
    if table.rows and len(table.columns) != len(signature):
        raise BadPayload(
            f"Rows have {len(table.columns)} values, the model needs {len(signature)}: "
            f"{some(_describe(column) for column in signature)}. Send them in this order, or name the columns.")
    values = list(table.columns.values()) if table.rows else [[] for _ in signature]
    return {column.name: given for column, given in zip(signature, values, strict=True)}


def _cast(column: Column, values: list[Any], text: bool) -> Any:
    """Cast one column to the array that the model was trained on; a series would take several times as long."""
    import numpy as np
    import pandas as pd

    rule = _RULES.get(column.type)
    if rule is None:  # nested types go to the model as they are; MLflow checks them
        return _objects(values)
    if not text and (quick := _cast_numbers(column, values)) is not None:
        return quick
    cast = [_fit(column, rule, row, value, text) for row, value in enumerate(values)]
    nulls = any(value is None for value in cast)
    if column.type == "string":
        return pd.array(cast, dtype=pd.StringDtype(na_value=np.nan))
    if column.type == "datetime":
        return np.array(["NaT" if value is None else value.to_datetime64() for value in cast], dtype="datetime64[ns]")
    if column.type == "binary" or (column.type == "boolean" and nulls):
        return _objects(cast)
    if column.type == "boolean":
        return np.array(cast, dtype=bool)
    # an optional integer that is null somewhere is a double, as it was when pandas read the training table
    dtype = "float64" if nulls and column.type in ("integer", "long") else _DTYPES[column.type]
    return np.array([math.nan if value is None else value for value in cast], dtype=dtype)


def _objects(values: list[Any]) -> Any:
    import numpy as np

    found = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):  # one by one, so that a list stays a list
        found[place] = value
    return found


def _cast_numbers(column: Column, values: list[Any]) -> Any:
    """Cast plain numbers in one go; None where a closer look is needed."""
    import numpy as np

    if column.type not in _DTYPES or not _PLAIN[column.type].issuperset(map(type, values)):
        return None
    try:
        cast = np.array(values, dtype=_DTYPES[column.type])
    except OverflowError:
        return None
    return None if column.required and cast.dtype.kind == "f" and np.isnan(cast).any() else cast


def _fit(column: Column, rule: Callable[[Any], Any], row: int, given: Any, text: bool) -> Any:
    value = from_text(column.type, given) if text else given
    if value is None or (isinstance(value, float) and math.isnan(value)):
        if column.required:
            raise BadPayload(f"Column '{column.name}', row {row}: null, but the model requires {_WORDS[column.type][0]}. "
                             f"Send {_WORDS[column.type][1]}.")
        return None
    fitted = rule(value)
    if fitted is None:
        raise BadPayload(f"Column '{column.name}', row {row}: {shown(given)} is not {_WORDS[column.type][0]}. "
                         f"Send {_WORDS[column.type][1]}.")
    return fitted


def _whole(bits: int) -> Callable[[Any], int | None]:
    def rule(value: Any) -> int | None:
        whole = isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
        return int(value) if whole and -(2 ** (bits - 1)) <= value < 2 ** (bits - 1) else None

    return rule


def _number(value: Any) -> float | None:
    try:
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    except OverflowError:
        return None


def _moment(value: Any) -> Any:
    import pandas as pd

    if not isinstance(value, str):
        return None
    try:
        moment = pd.Timestamp(value)
        if not isinstance(moment, pd.Timestamp):  # "NaT" is no time
            return None
        return (moment.tz_convert("UTC").tz_localize(None) if moment.tzinfo else moment).as_unit("ns")
    except (ValueError, TypeError, AttributeError, OverflowError):  # pandas' parser is not particular about what it raises
        return None


def _bytes(value: Any) -> bytes | None:
    try:
        return base64.b64decode("".join(value.split()), validate=True) if isinstance(value, str) else None
    except (binascii.Error, ValueError):
        return None


_NUMBERS: set[type] = {int, float}
_PLAIN: dict[str, set[type]] = {  # MLflow's type -> Python's
    "integer": {int}, "long": {int}, "float": _NUMBERS, "double": _NUMBERS}
_DTYPES = {"integer": "int32", "long": "int64", "float": "float32", "double": "float64"}
_RULES: dict[str, Callable[[Any], Any]] = {
    "boolean": lambda value: value if isinstance(value, bool) else None,
    "integer": _whole(32),
    "long": _whole(64),
    "float": _number,
    "double": _number,
    "string": lambda value: value if isinstance(value, str) else None,
    "datetime": _moment,
    "binary": _bytes,
}
_WORDS = {  # what a value must be, and what to send
    "boolean": ("a boolean", "true or false"),
    "integer": ("an integer of 32 bits", "a whole number"),
    "long": ("a long integer", "a whole number"),
    "float": ("a float", "a number"),
    "double": ("a double", "a number"),
    "string": ("a string", "text in quotes"),
    "datetime": ("a datetime", "text such as \"2026-11-20T08:30:00\""),
    "binary": ("binary", "bytes as base64 text"),
}


def from_text(kind: str, value: str) -> Any:
    """Read one value of a CSV; what cannot be read stays text, and is refused by the column's rule."""
    if value == "":
        return None
    if kind == "boolean":
        return {"true": True, "false": False}.get(value.strip().lower(), value)
    if kind in _DTYPES:
        for read in (int, float):
            try:
                return read(value)
            except ValueError:
                continue
    return value


def _describe(column: Column) -> str:
    return f"{column.name} ({column.type}{'' if column.required else ', optional'})"


# --- the quick way ---------------------------------------------------------------------------------------------------


def array_for(signature: Sequence[Column]) -> Array | None:
    """Say how rows of this signature make one array with the numbers that scikit-learn makes of the table; None if they do not."""
    kinds = {column.type for column in signature}
    names = [column.name for column in signature]
    nulls = any(not column.required for column in signature)
    if kinds <= {"double", "long", "integer"} and "double" in kinds:
        whole = tuple(place for place, column in enumerate(signature) if column.type != "double")
        return Array(names, "float64", whole, nulls)
    if len(kinds) == 1 and kinds <= _DTYPES.keys() and not (nulls and kinds & {"long", "integer"}):
        return Array(names, _DTYPES[kinds.pop()], (), nulls)
    return None


def fit_array(content: Content, array: Array, signature: Sequence[Column]) -> "numpy.ndarray":
    """Check, order and cast a request's rows to one array; raises `BadPayload` with every fault found."""
    import numpy as np

    found = _quick_array(content, array)
    return np.asfortranarray(fit_table(as_table(content), signature).to_numpy(array.dtype)) if found is None else found


def _quick_array(content: Content, array: Array) -> "numpy.ndarray | None":
    """Take rows that need no closer look; None for all others, also bad ones."""
    import numpy as np

    rows = _quick_rows(content, array.names)
    if rows is None:
        return None
    width, plain = len(array.names), {int} if array.dtype.startswith("int") else _NUMBERS
    for row in rows:
        if type(row) is not list or len(row) != width or not plain.issuperset(map(type, row)):
            return None
        for place in array.whole:
            if type(row[place]) is not int or not -(2**31) <= row[place] < 2**31:  # larger ones depend on the column's type
                return None
    try:
        found = np.array(rows, dtype=array.dtype, order="F")  # as a table's: another order adds up in another order
    except OverflowError:
        return None
    return found if array.nulls or array.dtype.startswith("int") or not np.isnan(found).any() else None


def _quick_rows(content: Content, names: list[str]) -> list[Any] | None:
    data, key = content.data, content.key
    if type(data) is dict:  # a split table whose columns stand in order
        if data.get("columns") != names or not is_split(data) or not _indexed(data) or key == "dataframe_records":
            return None
        return data["data"] or None if type(data["data"]) is list else None
    if type(data) is not list or not data or key in ("csv", "dataframe_split"):
        return None
    if type(data[0]) is not dict:
        return data if key != "dataframe_records" else None
    try:
        return [[record[name] for name in names] for record in data]
    except (KeyError, TypeError):  # a name is missing, or not all are objects
        return None


def _indexed(data: dict[str, Any]) -> bool:
    index = data.get("index")
    return index is None or (type(index) is list and type(data["data"]) is list and len(index) == len(data["data"]))
