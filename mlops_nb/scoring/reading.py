"""Read request bodies: JSON in Azure ML's and MLflow's formats, or CSV, into a table that is not checked yet.

Read are Azure ML's `input_data` (a split table, rows, columns, or tensors) and MLflow's `dataframe_split`,
`dataframe_records`, `inputs` and `instances`; CSV has a header line. Whatever a body holds, it is read or refused with
a message: never a crash, never a stack without end.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

FORMATS = "input_data, dataframe_split, dataframe_records, inputs, instances"
_KEYS = frozenset(FORMATS.split(", "))
_SPLIT = {"columns", "index", "data"}
_SHOWN = 10  # faults and names listed in one message
_DEEPEST = 64  # lists and objects within one another
_MOST_CELLS = 20_000_000  # a few megabytes of records, each with names of its own, would fill the memory
_DIGITS = bytes(ord("0") if chr(byte).isdigit() else ord(" ") for byte in range(128)) + b" " * 128


class BadPayload(ValueError):
    """A request cannot be scored; the message says what, the value, and what to send instead."""

    status, code = 400, "BadRequest"


class Unsupported(BadPayload):
    """A request in a format that is not read here."""

    status, code = 415, "UnsupportedMediaType"


@dataclass(frozen=True)
class Content:
    """What a body holds."""

    key: str  # one of FORMATS, or `csv`
    data: Any
    params: Any = None  # MLflow's, for models that take them


@dataclass(frozen=True)
class Table:
    """The rows of a request, column by column, before they are checked."""

    columns: dict[str, list[Any]]  # by name, or by position ("0", "1", ...) where the request gives no names
    rows: int
    named: bool = True
    text: bool = False  # from CSV: everything is text, and empty means null


def read_table(body: bytes, content_type: str = "application/json") -> Table:
    """Read a request's body in any of the formats; raises `BadPayload`."""
    return as_table(read_content(body, content_type))


def read_content(body: bytes, content_type: str = "application/json", encoding: str = "") -> Content:
    """Read a request's body as far as its format says; raises `BadPayload`, `Unsupported`."""
    if encoding.strip().lower() not in ("", "identity"):
        raise Unsupported(f"Content encoding {shown(encoding)} is not read here. Send the body as it is, without compression.")
    if content_type != "application/json":  # the usual one needs no closer look
        kind = _media_type(content_type)
        if kind == "text/csv":
            return Content("csv", list(_lines(body)))
    content = parse(body)
    key = next(iter(content)) if isinstance(content, dict) and len(content) == 1 else ""
    if key in _KEYS:
        return Content(key, content[key])
    found = [key for key in content if key in _KEYS] if isinstance(content, dict) else []
    if len(found) != 1:
        given = some(content) if isinstance(content, dict) else type(content).__name__
        raise BadPayload(f"The body must be an object with exactly one of: {FORMATS} (found: {given or 'nothing'}).")
    return Content(found[0], content[found[0]], content.get("params"))


def _media_type(content_type: str) -> str:
    kind, *parameters = (part.strip().lower() for part in content_type.split(";"))
    if kind not in ("", "application/json", "text/csv"):
        raise Unsupported(f"Content type {shown(kind)} is not read here. Send application/json or text/csv.")
    charset = next((value.strip('"') for name, _, value in (p.partition("=") for p in parameters) if name == "charset"), "utf-8")
    if charset not in ("utf-8", "utf8", "us-ascii"):
        raise Unsupported(f"Charset {shown(charset)} is not read here. Send UTF-8.")
    return kind


# --- JSON ------------------------------------------------------------------------------------------------------------


def parse(body: bytes) -> Any:
    """Parse JSON exactly as Python's `json` does, only faster; raises `BadPayload`."""
    try:
        # orjson differs in what it refuses (NaN, infinity, half a surrogate pair), and reads integers over 64 bits as floats
        content = json.loads(_text(body)) if b"0" * 19 in body.translate(_DIGITS) else orjson.loads(body)
    except ValueError:
        content = _parse_slowly(body)
    except RecursionError:
        raise BadPayload(_TOO_DEEP) from None
    if body.count(b"[") + body.count(b"{") > _DEEPEST and isinstance(content, dict | list):
        _check_depth(content)
    return content


_TOO_DEEP = f"The JSON is nested more than {_DEEPEST} deep. Send rows of plain values."


def _parse_slowly(body: bytes) -> Any:
    try:
        content = json.loads(_text(body))
        if re.search(rb"\\u[dD][89a-fA-F]", body):  # half a surrogate pair is no character, and cannot be written again
            json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise BadPayload("The JSON holds half of a surrogate pair (\\ud800 to \\udfff). Send whole characters.") from None
    except RecursionError:
        raise BadPayload(_TOO_DEEP) from None
    except BadPayload:
        raise
    except ValueError as problem:
        raise BadPayload(f"The body is not JSON: {problem}. Send an object with one of: {FORMATS}.") from None
    return content


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as problem:
        raise BadPayload(f"The body is not UTF-8 (byte {problem.start}). Send JSON or CSV as UTF-8.") from None


def _check_depth(content: Any) -> None:
    """Look level by level, so that the deepest nesting costs no stack."""
    level = [content]
    for _ in range(_DEEPEST):
        level = [item for part in level for item in (part.values() if isinstance(part, dict) else part)
                 if isinstance(item, dict | list)]
        if not level:
            return
    raise BadPayload(_TOO_DEEP)


# --- tables ----------------------------------------------------------------------------------------------------------


def as_table(content: Content) -> Table:
    """Arrange the rows of any of the formats column by column; raises `BadPayload`."""
    key, data = content.key, content.data
    if key == "csv":
        return _from_csv(data)
    if key == "dataframe_split" or is_split(data):
        return _from_split(key, data)
    if key == "dataframe_records" and not _all_are(data, dict):
        raise BadPayload(f"{key} must be a list of objects, one per row.")
    if isinstance(data, dict):
        return _from_columns(key, data)
    if not isinstance(data, list):
        raise BadPayload(f"{key} is {shown(data)}, not a table. Send rows, columns, or a split table.")
    return _from_records(data) if data and _all_are(data, dict) else _from_rows(key, data)


def is_split(data: Any) -> bool:
    """Tell whether data is a split table: `columns` and `data`, perhaps `index`, and nothing else."""
    return isinstance(data, dict) and "columns" in data and "data" in data and data.keys() <= _SPLIT


def _lines(body: bytes) -> Iterable[list[str]]:
    try:
        yield from (line for line in csv.reader(io.StringIO(_text(body), newline="")) if line)
    except csv.Error as problem:
        raise BadPayload(f"The body is not CSV: {problem}. Send a line of column names, then one line per row.") from None


def _from_csv(lines: list[list[str]]) -> Table:
    if not lines:
        raise BadPayload("The CSV is empty. Send a line of column names, then one line per row.")
    header, *rows = lines
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise BadPayload(f"CSV line {number} has {len(row)} values, the header has {len(header)}. Send as many.")
    return Table(_columns(header, rows), len(rows), text=True)


def _all_are(data: Any, kind: type) -> bool:
    return isinstance(data, list) and all(isinstance(row, kind) for row in data)


def _columns(names: Sequence[Any], rows: Sequence[Sequence[Any]]) -> dict[str, list[Any]]:
    if odd := [name for name in names if not isinstance(name, str | int | float)]:
        raise BadPayload(f"Column names must be text (given: {some(map(shown, odd))}).")
    if len(set(map(str, names))) != len(names):
        twice = sorted(name for name, count in Counter(map(str, names)).items() if count > 1)
        raise BadPayload(f"Columns given twice: {some(twice)}. Name each column once.")
    values = zip(*rows, strict=True) if rows else ([] for _ in names)
    return {str(name): list(column) for name, column in zip(names, values, strict=True)}


def _from_split(key: str, data: Any) -> Table:
    if not isinstance(data, dict) or not isinstance(data.get("columns"), list) or not _all_are(data.get("data"), list):
        raise BadPayload(f"{key} must hold 'columns' (a list of names) and 'data' (a list of rows, each a list).")
    columns, rows, index = data["columns"], data["data"], data.get("index")
    for position, row in enumerate(rows):
        if len(row) != len(columns):
            raise BadPayload(f"{key}: row {position} has {len(row)} values for {len(columns)} columns. Send as many.")
    if index is not None and (not isinstance(index, list) or len(index) != len(rows)):
        raise BadPayload(f"{key}: index {shown(index)} does not name {len(rows)} rows. Leave it out, or give one entry per row.")
    return Table(_columns(columns, rows), len(rows))


def _from_columns(key: str, data: dict[str, Any]) -> Table:
    columns = {name: values if isinstance(values, list) else [values] for name, values in data.items()}
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise BadPayload(f"{key}: columns differ in length ({some(f'{n}: {c}' for n, c in lengths.items())}).")
    return Table(columns, max(lengths.values(), default=0))


def _from_records(records: list[dict[str, Any]]) -> Table:
    names = dict.fromkeys(name for record in records for name in record)
    if len(names) * len(records) > _MOST_CELLS:
        raise BadPayload(f"{len(records)} records name {len(names)} columns. Send the same names in each, or fewer records at a time.")
    return Table({name: [record.get(name) for record in records] for name in names}, len(records))


def _from_rows(key: str, rows: list[Any]) -> Table:
    rows = [row if isinstance(row, list) else [row] for row in rows]
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        raise BadPayload(f"{key}: rows differ in length ({some(map(str, sorted(widths)))}). Send as many values in each.")
    return Table(_columns([str(i) for i in range(max(widths, default=0))], rows), len(rows), named=False)


# --- messages --------------------------------------------------------------------------------------------------------


def shown(value: Any, most: int = 60) -> str:
    """Write a value for a message, briefly."""
    if isinstance(value, str):
        value = value[: most + 1]
    elif isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    return json.dumps(value, default=str)[:most]


def some(words: Iterable[Any], between: str = ", ") -> str:
    """Write the first of many words, and how many more there are."""
    words = [word if len(word) < 300 else word[:300] + "..." for word in map(str, words)]
    more = f"{between}... and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
    return between.join(words[:_SHOWN]) + more
