"""Read a slice of the input, some rows at a time: never a whole large file."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlops_nb.batch.fit import Unfit, arrow_type, check_columns, fit
from mlops_nb.batch.plan import Slice, read_header

if TYPE_CHECKING:
    import pyarrow

    from mlops_nb.scoring.fitting import Column

CHUNK_ROWS = 65_536  # scored in one go
CHUNK_BYTES = 16 * 2**20  # about as much of a table with many columns
_BLOCK = 4 * 2**20  # bytes of a CSV that are parsed in one go
_NULLS = ["", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
          "NULL", "NaN", "None", "n/a", "nan", "null"]  # what pandas takes for a missing value


@dataclass(frozen=True)
class Wanted:
    """What the model takes, as far as reading is concerned."""

    signature: "Sequence[Column] | None" = None  # None: any table
    tensor: str = ""  # type of the one array that it takes instead of a table, e.g. float64
    shape: tuple[int, ...] = ()  # of that array, -1 first
    positions: bool = False  # the signature's columns have no names: the table's are taken as they come

    @property
    def columns(self) -> "Sequence[Column] | None":
        """The columns to look for by name; None: all that there are."""
        return None if self.positions else self.signature


@dataclass(frozen=True)
class Unit:
    """Some rows of one file, ready to be scored."""

    file: str
    first: int  # number of the first row in the file
    rows: int
    data: Any  # an Arrow table, an array (one picture), or a text


def read_slice(part: Slice, wanted: Wanted) -> Iterator[Unit]:
    """Read a slice unit by unit; raises `Unfit` for what the model's signature refuses, and whatever the reader raises."""
    if part.kind == "image":
        yield Unit(part.file, 0, 1, _read_image(part, wanted))
        return
    if part.kind == "text":
        with open_bytes(part.path) as file:
            yield Unit(part.file, 0, 1, file.read().decode("utf-8-sig"))
        return
    row = part.first
    for table in (_read_parquet if part.kind == "parquet" else _read_csv)(part, wanted):
        if table.num_rows:
            yield Unit(part.file, row, table.num_rows, table)
        row += table.num_rows
    if not part.whole and row - part.first != part.rows:
        raise Unfit(f"{row - part.first} rows where {part.rows} were counted; the file has changed, or its quotes do not match")


@contextmanager
def open_bytes(path: str) -> Iterator[Any]:
    """Open a file or an fsspec address to read bytes."""
    if "://" in path:
        from mlops_nb.batch.files import open_system

        system, place = open_system(path)
        with system.open(place, "rb") as file:
            yield file
        return
    with open(path, "rb") as file:
        yield file


# --- Parquet ---------------------------------------------------------------------------------------------------------


@contextmanager
def open_parquet(path: str) -> Iterator[Any]:
    """Open a Parquet file so that its columns are read in small bites, not by whole row groups."""
    import pyarrow.parquet as pq

    if "://" in path:
        with open_bytes(path) as remote, pq.ParquetFile(remote, buffer_size=2**20, pre_buffer=False) as file:
            yield file
        return
    with pq.ParquetFile(path, buffer_size=2**20, pre_buffer=False) as file:
        yield file


def _read_parquet(part: Slice, wanted: Wanted) -> "Iterator[pyarrow.Table]":
    import pyarrow as pa

    with open_parquet(part.path) as file:
        names = file.schema_arrow.names
        if wanted.columns is not None:
            check_columns(names, wanted.columns)
        columns = None if wanted.columns is None else [c.name for c in wanted.columns if c.name in names]
        groups = range(*part.groups) if part.groups else range(file.num_row_groups)
        skip, left = part.skip, part.rows
        for batch in file.iter_batches(_chunk_rows(file.metadata, groups), list(groups), columns=columns):
            if skip >= batch.num_rows:
                skip -= batch.num_rows
                continue
            batch = batch.slice(skip, left if left >= 0 else None)
            skip, left = 0, left - batch.num_rows if left >= 0 else left
            yield _fitted(pa.Table.from_batches([batch]), wanted)
            if not left:
                return


def _chunk_rows(metadata: Any, groups: range) -> int:
    if not len(groups):
        return CHUNK_ROWS
    known = metadata.row_group(groups[0])
    return int(max(64, min(CHUNK_ROWS, CHUNK_BYTES * known.num_rows // max(known.total_byte_size, 1))))


def _fitted(table: "pyarrow.Table", wanted: Wanted) -> "pyarrow.Table":
    if wanted.signature is None:
        return table
    if wanted.positions:
        if table.num_columns != len(wanted.signature):
            raise Unfit(f"{table.num_columns} columns, the model takes {len(wanted.signature)}, in order")
        table = table.rename_columns([column.name for column in wanted.signature])
    return fit(table, wanted.signature)


# --- CSV -------------------------------------------------------------------------------------------------------------


def _read_csv(part: Slice, wanted: Wanted) -> "Iterator[pyarrow.Table]":
    import pyarrow as pa

    done = 0
    try:
        for table in _parse_csv(part, wanted, lenient=False):
            done += table.num_rows
            yield table
    except pa.ArrowInvalid as problem:
        if "CSV conversion error" not in str(problem):
            raise Unfit(str(problem)) from None
        yield from _read_again(part, wanted, done)


def _read_again(part: Slice, wanted: Wanted, done: int) -> "Iterator[pyarrow.Table]":
    """Read whole numbers that are written as 3.0, and types that change down the file; without the rows that are done."""
    import pyarrow as pa

    try:
        for table in _parse_csv(part, wanted, lenient=True):
            already = min(done, table.num_rows)
            done -= already
            if already < table.num_rows:
                yield table.slice(already)
    except pa.ArrowInvalid as problem:
        raise Unfit(_in_words(part, str(problem))) from None


def _in_words(part: Slice, problem: str) -> str:
    """Tell a fault of a CSV by the column's name and the row's number in the file."""
    found = re.match(r"In CSV column #(\d+): (?:Row #(\d+): )?CSV conversion error to (\w+): (.*)", problem)
    if not found:
        return problem
    with open_bytes(part.path) as file:
        name = read_header(file)[int(found[1])]
    row = "" if not found[2] else f", row {part.first + int(found[2]) - (1 if part.span else 2)}"
    return f"column '{name}'{row}: {found[4]}, the model needs {found[3]}"


def _parse_csv(part: Slice, wanted: Wanted, lenient: bool) -> "Iterator[pyarrow.Table]":
    import pyarrow as pa
    import pyarrow.csv as pc

    with open_bytes(part.path) as file:
        names = read_header(file)
        if not names or len(set(names)) < len(names):
            raise Unfit(f"its first line names columns twice, or none ({', '.join(names[:10])})")
        convert = _convert(names, wanted, lenient)
        if part.span:
            file.seek(part.span[0])
            file = pa.BufferReader(file.read(part.span[1] - part.span[0]))
            read = pc.ReadOptions(column_names=names, block_size=_BLOCK, use_threads=False)
        else:
            file.seek(0)
            head = file.read(2**20).strip(b"\xef\xbb\xbf\r\n")
            if len(head) < 2**20 - 5 and not head.partition(b"\n")[2].strip():
                return  # column names and no row
            file.seek(0)
            read = pc.ReadOptions(block_size=_BLOCK, use_threads=False)
        parse = pc.ParseOptions(newlines_in_values=True)
        if lenient and wanted.columns is None:  # types are found over all of it, and it is never a large file
            yield _fitted(pc.read_csv(file, read, parse, convert), wanted)
            return
        with pc.open_csv(file, read, parse, convert) as reader:
            for batch in reader:
                table = pa.Table.from_batches([batch])
                for start in range(0, table.num_rows, CHUNK_ROWS):
                    yield _fitted(table.slice(start, CHUNK_ROWS), wanted)


def _convert(names: list[str], wanted: Wanted, lenient: bool) -> Any:
    """Say how the values of a CSV are read: as the signature says, else as they look."""
    import pyarrow.csv as pc

    options: dict[str, Any] = {"null_values": _NULLS, "strings_can_be_null": True}
    if wanted.columns is None:
        return pc.ConvertOptions(**options)
    check_columns(names, wanted.columns)
    there = [column for column in wanted.columns if column.name in names]
    types = {column.name: arrow_type(column.type, lenient) for column in there}
    return pc.ConvertOptions(**options, include_columns=list(types), column_types={n: t for n, t in types.items() if t is not None})


# --- pictures --------------------------------------------------------------------------------------------------------


def _read_image(part: Slice, wanted: Wanted) -> Any:
    """Decode a picture to the array that the model takes: its colours, its type and, where only that differs, its shape."""
    import numpy as np
    from PIL import Image

    with open_bytes(part.path) as file, Image.open(file) as opened:
        inner = wanted.shape[1:]
        if len(inner) == 3 and inner[2] in (1, 3, 4):
            picture = opened.convert({1: "L", 3: "RGB", 4: "RGBA"}[inner[2]])
        elif len(inner) == 2:
            picture = opened.convert("L")
        else:
            picture = opened.convert("RGB") if opened.mode in ("P", "CMYK", "YCbCr") else opened
        array = np.asarray(picture)
    if wanted.tensor:
        array = array.astype(wanted.tensor)
    if inner and array.ndim != len(inner) and -1 not in inner and array.size == np.prod(inner):
        array = array.reshape(inner)
    if inner and (array.ndim != len(inner) or any(have != need for have, need in zip(array.shape, inner, strict=True) if need >= 0)):
        raise Unfit(f"a picture of shape {array.shape}, the model takes {inner} (-1: any). Resize the pictures")
    return array
