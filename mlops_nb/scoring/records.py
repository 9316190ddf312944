"""Turn what a model was asked and what it answered, in whatever form, into the JSON that is collected."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

MAX_INLINE = 4 * 2**20  # bytes of a payload that stands in its line


class Rows(NamedTuple):
    """Some rows of a larger table: a request's share of a batch, without a copy on the data path."""

    table: Any  # what `collect` takes, of the whole batch; the requests of one batch hand over the same object
    start: int
    stop: int


class Tables:
    """Turns tables into records; the rows that a batch's requests share are turned once."""

    def __init__(self, columns: Callable[[], Sequence[str]]):
        self._columns = columns
        self._names: Sequence[str] | None = None
        self._shared: dict[int, tuple[Any, list[bytes]]] = {}  # the table is kept, so that its id stays its own

    def data(self, table: Any, name: str) -> bytes:
        """Write a request's rows as a JSON list of records; those of a table that requests share are written once for all."""
        if type(table) is not Rows:
            return dumps(self.records(table, name))
        if id(table.table) not in self._shared:
            self._shared[id(table.table)] = (table.table, self._each(table.table, name))
        rows = self._shared[id(table.table)][1]
        return b"[%b]" % (rows[table.start] if table.stop == table.start + 1 else b",".join(rows[table.start : table.stop]))

    def _each(self, table: Any, name: str) -> list[bytes]:
        """Write every row of a table as one record."""
        records = self.records(table, name)
        if getattr(getattr(table, "dtype", None), "kind", "") in "biuf":  # of numbers: no value holds what parts the records
            whole = dumps(records)[2:-2].split(b"},{")
            if len(whole) == len(records):  # nor does a column's name
                return [b"{%b}" % row for row in whole]
        return [dumps(record) for record in records]

    def records(self, table: Any, name: str) -> Sequence[dict[str, Any]]:
        """Return one record per row; values without a name get `name`, or without one the names of the model's inputs."""
        kind = _kind(type(table))  # type: ignore[arg-type]
        if kind == "array":  # no row is a dict
            rows = table.tolist()
            rows = rows if isinstance(rows, list) else [rows]
            if not name and rows and isinstance(rows[0], list):
                names = self._names_of(len(rows[0]))
                return [dict(zip(names, row, strict=False)) for row in rows]
            return [{name: row} for row in rows] if name else self._named(rows)
        if kind == "frame":
            return _frame_records(table)
        if kind == "columns":
            return _column_records(table if isinstance(table, Mapping) else table.columns)
        rows = table if isinstance(table, list | tuple) else [table]
        if name:
            return [row if isinstance(row, dict) else {name: row} for row in rows]
        return rows if all(isinstance(row, dict) for row in rows) else self._named(rows)

    def forget(self) -> None:
        """Let go of the tables of a batch."""
        self._shared.clear()

    def _named(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        rows = [row if isinstance(row, list | tuple) else [row] for row in rows]
        names = self._names_of(max(map(len, rows), default=0))
        return [dict(zip(names, row, strict=False)) for row in rows]

    def _names_of(self, width: int) -> Sequence[str]:
        if self._names is None:
            self._names = self._columns()
        return self._names if len(self._names) == width else [str(number) for number in range(width)]


@lru_cache(64)
def _kind(kind: Any) -> str:
    """Say how a table of this type is read."""
    if hasattr(kind, "to_numpy") and hasattr(kind, "columns"):
        return "frame"
    if issubclass(kind, Mapping) or "columns" in getattr(kind, "__dataclass_fields__", {}):  # `payload.Table`
        return "columns"
    return "array" if hasattr(kind, "tolist") else "rows"


def _frame_records(frame: Any) -> list[dict[str, Any]]:
    """Turn a pandas frame into records, many times as fast as its own `to_dict`."""
    names, values = frame.columns.tolist(), frame.to_numpy()
    if values.dtype != object and len(set(frame.dtypes)) > 1:  # integers beside floats would have become floats
        return _column_records({name: frame[name] for name in names})
    return [dict(zip(names, row, strict=True)) for row in values.tolist()]


def _column_records(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    values = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in columns.items()}
    if not all(isinstance(value, list | tuple) for value in values.values()):
        return [values]
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def fit_for_line(body: bytes, kind: str) -> tuple[bytes, str, bool]:
    """Make a raw body fit for a line: JSON as it came, other text as a string; says its type, and whether it goes into a line."""
    if len(body) > MAX_INLINE:
        return body, kind or "application/octet-stream", False
    if "json" in kind or not kind:
        try:
            orjson.loads(body)
            return (body if b"\n" not in body and b"\r" not in body else dumps(json.loads(body))), "application/json", True
        except ValueError:
            pass
        try:  # NaN and the like, which only some call JSON
            return dumps(json.loads(body)), "application/json", True
        except (ValueError, RecursionError):
            kind = "text/plain"
    try:
        return dumps(body.decode()), kind, True
    except UnicodeDecodeError:
        return body, kind if kind != "text/plain" else "application/octet-stream", False


def dumps(content: Any) -> bytes:
    """Write JSON that every reader accepts: NaN and infinity become null, times become ISO 8601."""
    try:
        return orjson.dumps(content, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
    except (TypeError, ValueError):  # an integer over 64 bits, half a surrogate pair
        return json.dumps(_finite(content), default=_plain, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    if hasattr(value, "isoformat"):
        text = value.isoformat()
        return None if text == "NaT" else text
    if hasattr(value, "tolist"):
        return _finite(value.tolist())
    return None if type(value).__name__ == "NAType" else str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def weigh(table: Any, body: bytes) -> int:
    """Estimate how many bytes a table keeps in memory while it waits."""
    if body:  # what is parsed takes some four times its size
        return 4 * len(body)
    table = table.table if type(table) is Rows else table
    if hasattr(table, "nbytes"):
        return int(table.nbytes)
    if hasattr(table, "memory_usage"):
        return int(table.memory_usage(deep=True).sum())
    cells = len(table) if hasattr(table, "__len__") else 1
    return 64 * cells * (len(table[0]) if cells and isinstance(table, list) and hasattr(table[0], "__len__") else 1)
