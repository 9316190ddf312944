"""Cut the input into mini batches: as many whole files as the deployment says, or a piece of a large file.

A large file keeps all workers busy: Parquet is cut between row groups (and, where these are few, within them), CSV between lines,
which one quick pass over its bytes counts. Every slice knows the number of its first row, so that each row keeps its identity.
"""

import csv
import dataclasses
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from mlops_nb.batch.files import File
from mlops_nb.batch.job import Job
from mlops_nb.core.files import write_file

LARGE = 32 * 2**20  # bytes of a CSV from which on it is cut, into pieces of this size
PIECE_ROWS = 262_144  # of a Parquet file; row groups are put together up to here
_LOOKED_AT = 2**20  # bytes; the footer of a Parquet file above this size is read
_AT_ONCE = 8  # files
_BLOCK = 8 * 2**20  # bytes of a CSV that are looked at in one go


@dataclass(frozen=True)
class Slice:
    """A file, or a part of one."""

    file: str  # as the output names it
    path: str
    kind: str  # csv, parquet, image, text, or any
    size: int  # bytes, for the estimate of the time left
    first: int = 0  # number of its first row in the file
    rows: int = -1  # -1: all of the file
    groups: tuple[int, int] | None = None  # row groups of a Parquet file: from, to (not included)
    skip: int = 0  # rows of the first row group that are another slice's
    span: tuple[int, int] | None = None  # bytes of a CSV: from, to (not included)

    @property
    def whole(self) -> bool:
        """Whether it is all of its file."""
        return self.rows < 0


@dataclass(frozen=True)
class Piece:
    """One mini batch."""

    number: int
    slices: tuple[Slice, ...]

    @property
    def size(self) -> int:
        """Bytes of its input; at least one, so that empty files count as work, too."""
        return sum(part.size for part in self.slices) or 1


def make_plan(job: Job, files: list[File]) -> list[Piece]:
    """Cut the files into mini batches."""
    pieces: list[tuple[Slice, ...]] = []
    waiting: list[Slice] = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:  # far away, every look at a file takes a moment
        cut = list(pool.map(lambda file: _slices(job, file), files))
    for slices in cut:
        if len(slices) > 1:
            pieces += [(part,) for part in slices]
            continue
        waiting += slices
        if len(waiting) == job.mini_batch_size:
            pieces.append(tuple(waiting))
            waiting = []
    if waiting:
        pieces.append(tuple(waiting))
    return [Piece(number, slices) for number, slices in enumerate(pieces)]


def save_plan(path: Path, pieces: list[Piece]) -> None:
    """Write the mini batches: a job that goes on has the very same ones."""
    write_file(path, "".join(json.dumps(dataclasses.asdict(piece)) + "\n" for piece in pieces))


def load_plan(path: Path) -> list[Piece]:
    """Read the mini batches."""
    return [read_piece(json.loads(line)) for line in path.read_text().splitlines()]


def read_piece(fields: dict[str, Any]) -> Piece:
    """Read what `dataclasses.asdict` wrote."""
    return Piece(fields["number"], tuple(Slice(**part) for part in fields["slices"]))


def _slices(job: Job, file: File) -> list[Slice]:
    whole = Slice(file.name, file.path, file.kind, file.size)
    try:
        if file.kind == "parquet" and file.size > _LOOKED_AT:
            return list(_cut_parquet(whole, job.workers)) or [whole]
        if file.kind == "csv" and file.size > LARGE:
            return list(_cut_csv(whole)) or [whole]
    except Exception:  # a file that cannot be opened fails where it is scored, with its reason
        return [whole]
    return [whole]


# --- Parquet ---------------------------------------------------------------------------------------------------------


def _cut_parquet(whole: Slice, workers: int) -> Iterator[Slice]:
    from mlops_nb.batch.read import open_parquet

    with open_parquet(whole.path) as file:
        rows = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    total, few = sum(rows), len(rows) < 2 * workers
    if total <= PIECE_ROWS:
        return
    first = start = 0
    for group in range(len(rows)):
        count = sum(rows[start : group + 1])
        if count < PIECE_ROWS and group + 1 < len(rows):
            continue
        cuts = min(workers, -(-count // PIECE_ROWS)) if few and start == group else 1
        edges = [count * i // cuts for i in range(cuts + 1)]
        for low, high in pairwise(edges):
            size = whole.size * (high - low) // total
            yield dataclasses.replace(whole, first=first + low, rows=high - low, groups=(start, group + 1), skip=low, size=size)
        first, start = first + count, group + 1


# --- CSV -------------------------------------------------------------------------------------------------------------


def _cut_csv(whole: Slice) -> Iterator[Slice]:
    """Cut between lines that are no part of a quoted value; every piece knows its bytes and counts its rows."""
    from mlops_nb.batch.read import open_bytes

    begin, ends, first = 0, 0, 0  # of the piece under way: its first byte, its end so far, its first row
    rows = 0
    with open_bytes(whole.path) as file:
        header = header_end(file)
        begin = ends = header
        for stop, count in _lines(file, header):
            ends, rows = stop, rows + count
            if ends - begin >= LARGE:
                yield dataclasses.replace(whole, first=first, rows=rows, span=(begin, ends), size=ends - begin)
                begin, first, rows = ends, first + rows, 0
    if rows:
        yield dataclasses.replace(whole, first=first, rows=rows, span=(begin, ends), size=ends - begin)


def header_end(file: Any) -> int:
    """Find the byte after the line of column names."""
    file.seek(0)
    head = np.frombuffer(file.read(_BLOCK), np.uint8)
    stops, _ = _stops(head, False)
    previous = 0
    for stop in stops:
        if bytes(head[previous:stop]).strip():  # blank lines before it are passed over
            return int(stop)
        previous = int(stop)
    return len(head)


def read_header(file: Any) -> list[str]:
    """Read the column names of a CSV."""
    end = header_end(file)
    file.seek(0)
    text = file.read(end).decode("utf-8-sig").lstrip("\r\n")
    return next(csv.reader(io.StringIO(text)), [])


def _stops(block: np.ndarray, inside: bool) -> tuple[np.ndarray, bool]:
    """Find the bytes after the lines' ends in a block, and whether it ends inside a quoted value."""
    ends = np.flatnonzero(block == 10)
    quotes = np.flatnonzero(block == 34)
    if len(quotes):
        ends = ends[(np.searchsorted(quotes, ends) + inside) % 2 == 0]
        return ends + 1, bool((len(quotes) + inside) % 2)
    return (ends[:0] if inside else ends + 1), inside


def _lines(file: Any, start: int) -> Iterator[tuple[int, int]]:
    """Go through a CSV; yields, block by block, the byte after its last whole line and how many lines hold a row."""
    file.seek(start)
    place, pending, inside = start, b"", False  # where the pending bytes begin, bytes of a line that has not ended
    while read := file.read(_BLOCK):
        block = np.frombuffer(read, np.uint8)
        stops, inside = _stops(block, inside)
        if not len(stops):
            pending += read
            continue
        base = place + len(pending)
        lengths = np.diff(stops, prepend=-len(pending))
        blank = lengths == 1
        for index in np.flatnonzero(lengths == 2):  # "\r\n" alone is a blank line, too
            blank[index] = (pending + read)[len(pending) + stops[index] - 2] == 13
        last = int(stops[-1])
        yield base + last, int(len(stops) - blank.sum())
        place, pending = base + last, read[last:]
    if pending.strip():
        yield place + len(pending), 1
