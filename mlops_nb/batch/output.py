"""What a batch job leaves: parts, each written whole or not at all, and one result made of them.

Parts are Parquet, whatever the result is. The result appears in the output folder in one move, after the last mini batch: nobody
reads half of it. As Parquet it is a folder of part files, as CSV one file; rows are in the order of the files and of their rows.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_nb.batch.job import Job, Status
from mlops_nb.core.files import write_file

if TYPE_CHECKING:
    import pyarrow

_ROWS_A_PART = 1_000_000  # small parts are put together up to here


class Parts:
    """The parts that a worker writes for one mini batch; a new one begins where the columns' types change."""

    def __init__(self, folder: Path, name: str):
        self.folder, self.name = folder, name
        self.rows = 0
        self.names: list[str] = []
        self._writer: Any = None

    def write(self, table: "pyarrow.Table") -> None:
        """Append rows."""
        import pyarrow.parquet as pq

        if self._writer is not None and not self._writer.schema.equals(table.schema):
            self._end()
        if self._writer is None:
            self.names.append(f"{self.name}-{len(self.names)}.parquet")
            self._writer = pq.ParquetWriter(self.folder / f".{self.names[-1]}", table.schema, use_dictionary=["file_name"])
        self._writer.write_table(table)
        self.rows += table.num_rows

    def close(self) -> list[str]:
        """Flush the parts to the disk and give them their names; returns these."""
        self._end()
        for name in self.names:
            _flush(self.folder / f".{name}")
            os.replace(self.folder / f".{name}", self.folder / name)
        _flush(self.folder)
        return self.names

    def _end(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _flush(path: Path) -> None:
    """Wait until a file's content, or a folder's names, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def prediction_columns(
    predictions: Any,  # array, series, frame, list, or arrays by name
    rows: int,
) -> dict[str, Any]:  # Arrow arrays by column; one column is called `prediction`
    """Turn what a model predicts into columns; raises `ValueError` where there are not as many as rows."""
    import numpy as np

    if hasattr(predictions, "columns"):
        found = {str(name): predictions[name] for name in predictions.columns}
    elif isinstance(predictions, dict):
        found = {str(name): np.asarray(values) for name, values in predictions.items()}
    else:
        wide = getattr(predictions, "ndim", 1) == 2
        found = {f"prediction_{i}": predictions[:, i] for i in range(predictions.shape[1])} if wide else {"prediction": predictions}
    if len(found) == 1:
        found = {"prediction": next(iter(found.values()))}
    counts = {len(values) for values in found.values()}
    if counts != {rows}:
        raise ValueError(f"the model gave {' and '.join(map(str, sorted(counts)))} predictions for {rows} rows")
    return {f"prediction_{n}" if n in ("row", "file_name") else n: _to_arrow(values) for n, values in found.items()}


def _to_arrow(values: Any) -> Any:
    import numpy as np
    import pyarrow as pa

    if isinstance(values, np.ndarray) and values.ndim > 1:
        values = values.reshape(len(values), -1).tolist()
    try:
        made = pa.array(values)
        return made.combine_chunks() if isinstance(made, pa.ChunkedArray) else made
    except (pa.ArrowException, TypeError, ValueError):  # values of several types, or objects: their JSON
        return pa.array([json.dumps(value, default=str) for value in values])


def rows_of(file: str, first: int, columns: dict[str, Any]) -> "pyarrow.Table":
    """Give predictions the identity of their rows: the number in the file, and the file's name."""
    import numpy as np
    import pyarrow as pa

    rows = len(next(iter(columns.values())))
    numbers = pa.array(np.arange(first, first + rows))
    return pa.table({"row": numbers, **columns, "file_name": pa.repeat(file, rows)})


def make_result(
    job: Job,
    folder: Path,  # of the job
    parts: Sequence[str],  # in the order of the rows
    status: Status,
) -> str:  # where it is
    """Make the result of the finished parts and move it to the output folder; doing so again changes nothing."""
    if job.action == "summary_only":
        content = {"job": job.id, "model": job.model, "files": status.files, "failed": status.failed, "rows": status.rows}
        return _deliver(job, write_file(folder / "result" / "summary.json", json.dumps(content, indent=1)))
    paths = [folder / "parts" / name for name in parts]
    made = folder / "result" / job.file_name
    if made.is_dir():  # of a process that was killed here
        shutil.rmtree(made)
    made.parent.mkdir(exist_ok=True)
    if job.form == "csv":
        _write_csv(made, paths)
    else:
        _write_parquet(made, paths)
    for path in [*made.iterdir(), made] if made.is_dir() else [made]:
        _flush(path)
    return _deliver(job, made)


def _common_schema(paths: Sequence[Path]) -> "pyarrow.Schema":
    """Find the schema that all parts fit: the mini batches may differ in whole numbers and doubles, or in columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schemas: list[Any] = []
    for path in paths:
        if (schema := pq.read_schema(path)) not in schemas:
            schemas.append(schema)
    if not schemas:
        return pa.schema({"row": pa.int64(), "prediction": pa.float64(), "file_name": pa.string()})
    try:
        return pa.unify_schemas(schemas, promote_options="permissive")
    except pa.ArrowException:  # numbers here, texts there: all become texts
        names = list(dict.fromkeys(field.name for schema in schemas for field in schema))
        kinds = {name: {s.field(name).type for s in schemas if name in s.names} for name in names}
        return pa.schema([(name, kinds[name].pop() if len(kinds[name]) == 1 else pa.string()) for name in names])


def _batches(paths: Sequence[Path], schema: "pyarrow.Schema") -> "Iterator[pyarrow.Table]":
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in paths:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches(131_072):
                table = pa.Table.from_batches([batch])
                for name in schema.names:
                    if name not in table.column_names:
                        table = table.append_column(name, pa.nulls(table.num_rows, schema.field(name).type))
                yield table.select(schema.names).cast(schema)


def _write_csv(made: Path, paths: Sequence[Path]) -> None:
    import pyarrow as pa
    import pyarrow.csv as pc

    schema = _common_schema(paths)
    flat = pa.schema([(f.name, pa.string() if pa.types.is_nested(f.type) else f.type) for f in schema])
    with pc.CSVWriter(str(made), flat) as writer:
        for table in _batches(paths, schema):
            if flat != schema:
                columns = [[json.dumps(v) for v in table[f.name].to_pylist()] if pa.types.is_nested(f.type) else table[f.name]
                           for f in schema]
                table = pa.table(dict(zip(flat.names, columns, strict=True)), schema=flat)
            writer.write_table(table)


def _write_parquet(made: Path, paths: Sequence[Path]) -> None:
    """Fill a folder with part files: large parts as they are, small ones put together."""
    import pyarrow.parquet as pq

    made.mkdir()
    schema = _common_schema(paths)
    for number, group in enumerate(_groups(paths) or [[]]):
        target = made / f"part-{number:05d}.parquet"
        if len(group) == 1 and pq.read_schema(group[0]).equals(schema):
            _link(group[0], target)
            continue
        with pq.ParquetWriter(target, schema, use_dictionary=["file_name"]) as writer:
            for table in _batches(group, schema):
                writer.write_table(table)


def _groups(paths: Sequence[Path]) -> list[list[Path]]:
    import pyarrow.parquet as pq

    groups: list[list[Path]] = []
    room = 0
    for path in paths:
        rows = pq.read_metadata(path).num_rows
        if not groups or rows > room:
            groups.append([])
            room = _ROWS_A_PART
        groups[-1].append(path)
        room -= rows
    return groups


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, target)


def _deliver(job: Job, made: Path) -> str:
    """Bring the result to the output folder: beside it first, then in its place in one move."""
    if "://" in job.output:
        from mlops_nb.batch.files import open_system

        address = f"{job.output.rstrip('/')}/{made.name}"
        system, place = open_system(address)
        if system.exists(place):
            system.rm(place, recursive=True)
        system.put(str(made), place, recursive=made.is_dir())
        return address
    target = Path(job.output) / made.name
    target.parent.mkdir(parents=True, exist_ok=True)
    beside, old = (target.with_name(f".{made.name}.{job.id}{end}") for end in ("", ".old"))
    for leftover in (beside, old):
        _remove(leftover)
    if made.is_dir():
        shutil.copytree(made, beside, copy_function=lambda source, aim: _link(Path(source), Path(aim)))
    else:
        _link(made, beside)
    if target.is_dir():
        os.replace(target, old)
    os.replace(beside, target)
    _remove(old)
    return str(target)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
