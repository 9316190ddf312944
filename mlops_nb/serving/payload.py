"""Turn request bodies into tables that fit the model's signature, and predictions into JSON.

Both families of formats are read: Azure ML's `input_data` (a split table, rows, or columns) and MLflow's
`dataframe_split`, `dataframe_records`, `inputs` and `instances`; also CSV with a header line. The signature is
MLflow's, read from the MLmodel file, so that nothing heavy is imported for it.
"""

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

FORMATS = "input_data, dataframe_split, dataframe_records, inputs, instances"
_SHOWN = 10  # faults and names listed in one message


class BadPayload(ValueError):
    """A request cannot be scored; the message says what, the value, and what to send instead. HTTP 400."""


@dataclass(frozen=True)
class Column:
    """One column of the model's signature."""

    name: str
    type: str  # MLflow's: boolean, integer, long, float, double, string, datetime, binary, or a nested one
    required: bool = True  # False: it may be null, or be missing


@dataclass(frozen=True)
class Table:
    """The rows of a request, column by column, before they are checked."""

    columns: dict[str, list[Any]]  # by name, or by position ("0", "1", ...) where the request gives no names
    rows: int
    named: bool = True
    text: bool = False  # from CSV: everything is text, and empty means null


# --- reading ---------------------------------------------------------------------------------------------------------


def read_table(body: bytes, content_type: str = "application/json") -> Table:
    """Read a request's body in any of the formats; raises `BadPayload`."""
    try:
        text = body.decode()
    except UnicodeDecodeError as problem:
        raise BadPayload(f"The body is not UTF-8 (byte {problem.start}). Send JSON or CSV as UTF-8.") from None
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "text/csv":
        return _from_csv(text)
    if kind not in ("", "application/json"):
        raise BadPayload(f"Content type '{kind}' is not read here. Send application/json or text/csv.")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise BadPayload(f"The body is not JSON: {problem}. Send an object with one of: {FORMATS}.") from None
    return _from_json(content)


def _from_csv(text: str) -> Table:
    lines = [line for line in csv.reader(io.StringIO(text)) if line]
    if not lines:
        raise BadPayload("The CSV is empty. Send a line of column names, then one line per row.")
    header, *rows = lines
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise BadPayload(f"CSV line {number} has {len(row)} values, the header has {len(header)}. Send as many.")
    return Table(_columns(header, rows), len(rows), text=True)


def _from_json(content: Any) -> Table:
    known = {"input_data", "dataframe_split", "dataframe_records", "inputs", "instances"}
    found = [key for key in content if key in known] if isinstance(content, dict) else []
    if len(found) != 1:
        given = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise BadPayload(f"The body must be an object with exactly one of: {FORMATS} (found: {given or 'nothing'}).")
    key, data = found[0], content[found[0]]
    if key == "dataframe_split" or (isinstance(data, dict) and {"columns", "data"} <= set(data) <= _SPLIT):
        return _from_split(key, data)
    if key == "dataframe_records" and not _all_are(data, dict):
        raise BadPayload(f"{key} must be a list of objects, one per row.")
    if isinstance(data, dict):
        return _from_columns(key, data)
    if not isinstance(data, list):
        raise BadPayload(f"{key} is {json.dumps(data)[:40]}, not a table. Send rows, columns, or a split table.")
    return _from_records(data) if data and _all_are(data, dict) else _from_rows(key, data)


_SPLIT = {"columns", "index", "data"}


def _all_are(data: Any, kind: type) -> bool:
    return isinstance(data, list) and all(isinstance(row, kind) for row in data)


def _columns(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, list[Any]]:
    if len(set(names)) != len(names):
        twice = ", ".join(sorted({str(name) for name in names if list(names).count(name) > 1}))
        raise BadPayload(f"Columns given twice: {twice}. Name each column once.")
    values = zip(*rows, strict=True) if rows else ([] for _ in names)
    return {str(name): list(column) for name, column in zip(names, values, strict=True)}


def _from_split(key: str, data: Any) -> Table:
    if not isinstance(data, dict) or not isinstance(data.get("columns"), list) or not _all_are(data.get("data"), list):
        raise BadPayload(f"{key} must hold 'columns' (a list of names) and 'data' (a list of rows, each a list).")
    for position, row in enumerate(data["data"]):
        if len(row) != len(data["columns"]):
            raise BadPayload(
                f"{key}: row {position} has {len(row)} values for {len(data['columns'])} columns. Send as many.")
    return Table(_columns(data["columns"], data["data"]), len(data["data"]))


def _from_columns(key: str, data: dict[str, Any]) -> Table:
    columns = {name: values if isinstance(values, list) else [values] for name, values in data.items()}
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise BadPayload(f"{key}: columns differ in length ({_some(f'{n}: {c}' for n, c in lengths.items())}).")
    return Table(columns, max(lengths.values(), default=0))


def _from_records(records: list[dict[str, Any]]) -> Table:
    names = dict.fromkeys(name for record in records for name in record)
    return Table({name: [record.get(name) for record in records] for name in names}, len(records))


def _from_rows(key: str, rows: list[Any]) -> Table:
    rows = [row if isinstance(row, list) else [row] for row in rows]
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        raise BadPayload(f"{key}: rows differ in length ({_some(map(str, sorted(widths)))}). Send as many values in each.")
    return Table(_columns([str(i) for i in range(max(widths, default=0))], rows), len(rows), named=False)


# --- checking --------------------------------------------------------------------------------------------------------


def fit_table(table: Table, signature: Sequence[Column] | None) -> "pandas.DataFrame":
    """Check, order and cast a request's rows as the signature says; raises `BadPayload` with every fault found."""
    import pandas as pd

    if signature is None:
        return pd.DataFrame(table.columns)
    columns = table.columns if table.named else _name(table, signature)
    missing = [column.name for column in signature if column.required and column.name not in columns]
    if missing and (table.rows or table.named):
        raise BadPayload(
            f"Missing columns: {_some(missing)} (given: {_some(columns) or 'none'}). "
            f"The model needs: {_some(_describe(column) for column in signature)}.")
    faults: list[str] = []
    cast = {}
    for column in signature:
        values = columns.get(column.name, [None] * table.rows)
        try:
            cast[column.name] = _cast(column, values, table.text)
        except BadPayload as fault:  # all columns first, then raise once
            faults.append(str(fault))
    if faults:
        raise BadPayload(_some(faults, " "))
    return pd.DataFrame(cast, index=pd.RangeIndex(table.rows), columns=[column.name for column in signature])


def _name(table: Table, signature: Sequence[Column]) -> dict[str, list[Any]]:
    if table.rows and len(table.columns) != len(signature):
        raise BadPayload(
            f"Rows have {len(table.columns)} values, the model needs {len(signature)}: "
            f"{_some(_describe(column) for column in signature)}. Send them in this order, or name the columns.")
    values = list(table.columns.values()) or [[] for _ in signature]
    return {column.name: given for column, given in zip(signature, values, strict=True)}


def _cast(column: Column, values: list[Any], text: bool) -> Any:
    """Cast one column to the array or series that the model was trained on."""
    import pandas as pd

    rule = _RULES.get(column.type)
    if rule is None:  # nested and binary types go to the model as they are
        return pd.Series(values, dtype=object)
    if not text and (quick := _cast_numbers(column, values)) is not None:
        return quick
    cast = [_fit(column, rule, row, value, text) for row, value in enumerate(values)]
    nulls = any(value is None for value in cast)
    if column.type == "string":
        return pd.Series(cast, dtype="str")
    if column.type == "datetime":
        return pd.to_datetime(pd.Series(cast, dtype=object)).astype("datetime64[ns]")
    if column.type == "boolean":
        return pd.Series(cast, dtype=object if nulls else "bool")
    # an optional integer that is null somewhere is a double, as it was when pandas read the training table
    dtype = "float64" if nulls and column.type in ("integer", "long") else _DTYPES[column.type]
    return pd.Series([math.nan if value is None else value for value in cast], dtype=dtype)


def _cast_numbers(column: Column, values: list[Any]) -> Any:
    """Cast plain numbers in one go; None where a closer look is needed."""
    import numpy as np

    if column.type not in ("float", "double") or not set(map(type, values)) <= {int, float}:
        return None
    try:
        cast = np.array(values, dtype=_DTYPES[column.type])
    except OverflowError:
        return None
    return None if column.required and np.isnan(cast).any() else cast


def _fit(column: Column, rule: Callable[[Any], Any], row: int, given: Any, text: bool) -> Any:
    value = _from_text(column.type, given) if text else given
    if value is None or (isinstance(value, float) and math.isnan(value)):
        if column.required:
            raise BadPayload(f"Column '{column.name}', row {row}: null, but the model requires {_WORDS[column.type][0]}. "
                             f"Send {_WORDS[column.type][1]}.")
        return None
    fitted = rule(value)
    if fitted is None:
        shown = json.dumps(given, default=str)
        raise BadPayload(f"Column '{column.name}', row {row}: {shown[:60]} is not {_WORDS[column.type][0]}. "
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

    try:
        moment = pd.Timestamp(value) if isinstance(value, str) else None
        return moment.tz_convert("UTC").tz_localize(None) if moment is not None and moment.tzinfo else moment
    except (ValueError, OverflowError):
        return None


_DTYPES = {"integer": "int32", "long": "int64", "float": "float32", "double": "float64"}
_RULES: dict[str, Callable[[Any], Any]] = {
    "boolean": lambda value: value if isinstance(value, bool) else None,
    "integer": _whole(32),
    "long": _whole(64),
    "float": _number,
    "double": _number,
    "string": lambda value: value if isinstance(value, str) else None,
    "datetime": _moment,
}
_WORDS = {  # what a value must be, and what to send
    "boolean": ("a boolean", "true or false"),
    "integer": ("an integer of 32 bits", "a whole number"),
    "long": ("a long integer", "a whole number"),
    "float": ("a float", "a number"),
    "double": ("a double", "a number"),
    "string": ("a string", "text in quotes"),
    "datetime": ("a datetime", "text such as \"2026-11-20T08:30:00\""),
}


def _from_text(kind: str, value: str) -> Any:
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


def _some(words: Iterable[str], between: str = ", ") -> str:
    words = list(words)
    more = f"{between}... and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
    return between.join(words[:_SHOWN]) + more


# --- answering -------------------------------------------------------------------------------------------------------


def as_rows(predictions: Any) -> Any:
    """Turn what a model predicts (array, series, frame, list, mapping) into lists and objects for JSON."""
    if hasattr(predictions, "to_dict") and hasattr(predictions, "columns"):
        return predictions.to_dict(orient="records")
    if hasattr(predictions, "tolist"):
        return predictions.tolist()
    if isinstance(predictions, dict):
        return {key: as_rows(value) for key, value in predictions.items()}
    return predictions


def as_json(content: Any) -> bytes:
    """Write JSON that every reader accepts: NaN and infinity become null, times become ISO 8601."""
    try:
        return json.dumps(content, allow_nan=False, default=_plain, separators=(",", ":")).encode()
    except ValueError:
        return json.dumps(_finite(content), default=_plain, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    if hasattr(value, "isoformat"):
        text = value.isoformat()
        return None if text == "NaT" else text
    if hasattr(value, "tolist"):  # numpy's arrays and scalars
        return _finite(value.tolist())
    if type(value).__name__ == "NAType":
        return None
    return str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if hasattr(value, "tolist"):
        return _finite(value.tolist())
    return value
