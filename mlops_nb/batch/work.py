"""One worker process of a batch job: `python -P -m mlops_nb.batch.work FOLDER FD`.

It loads the model once, then scores one mini batch after the other, as the driver sends them through the socket FD. Standard input
is a pipe from the driver: when the driver is gone, however it went, so is the worker.
"""

import importlib.util
import json
import logging
import os
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from mlops_nb.batch.files import fetch
from mlops_nb.batch.fit import Unfit, to_model
from mlops_nb.batch.job import Job, load_job
from mlops_nb.batch.output import Parts, prediction_columns, rows_of
from mlops_nb.batch.plan import Piece, Slice, read_piece
from mlops_nb.batch.read import CHUNK_BYTES, CHUNK_ROWS, Unit, Wanted, read_slice

log = logging.getLogger("mlops_nb.batch")


def main(folder: Path, connection: Connection) -> None:
    """Load the model, then score what comes until nothing comes any more."""
    threading.Thread(target=_watch_parent, daemon=True).start()
    job = load_job(folder)
    logging.basicConfig(level=job.logging_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")

    def tell(**message: Any) -> None:
        connection.send_bytes(json.dumps(message, default=str).encode())

    try:
        score = _load_script(job, folder) if job.script else _load_model(job)
    except BaseException as problem:
        log.exception("the model did not load")
        tell(broken=_reason(problem))
        return
    tell(ready=True)
    while True:
        task = json.loads(connection.recv_bytes())
        work = Work(read_piece(task["piece"]), task["skip"], task["alone"], Parts(folder / "parts", task["token"]), tell)
        log.debug("mini batch %s: %s", work.piece.number, [part.file for part in work.slices])
        try:
            score(work)
            parts = work.parts.close()
        except OSError as problem:  # the disk is full, say: no file's fault
            log.exception("mini batch %s", work.piece.number)
            tell(broken=f"{_reason(problem)}. Make room in {folder}, then resume the job.")
            return
        tell(done=work.piece.number, parts=parts, rows=work.rows, failed=list(work.failed.values()))


def _watch_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


def _reason(problem: BaseException) -> str:
    text = str(problem).strip()
    return (text if isinstance(problem, Unfit) else f"{type(problem).__name__}: {text}")[:1000]


class Work:
    """A mini batch under way: what is written, and which files have failed."""

    def __init__(self, piece: Piece, skip: dict[str, str], alone: bool, parts: Parts, tell: Callable[..., None]):
        self.piece, self.parts, self.tell = piece, parts, tell
        self.slices = [part for part in piece.slices if part.file not in skip]
        self.alone = alone  # no file shares a call of the model with another, so that a crash is one file's
        self.rows = 0
        self.failed: dict[str, dict[str, Any]] = {}  # by file
        self.written: Counter[str] = Counter()

    def fail(self, file: str, problem: BaseException) -> None:
        """Note why a file could not be scored."""
        log.warning("%s: %s", file, _reason(problem), exc_info=log.isEnabledFor(logging.DEBUG))
        again = not isinstance(problem, Unfit)
        self.failed[file] = {"file": file, "reason": _reason(problem), "again": again, "written": self.written[file]}


# --- MLflow models ---------------------------------------------------------------------------------------------------


def _load_model(job: Job) -> Callable[[Work], None]:
    from mlops_nb.scoring.model import load_model

    model = load_model(job.path)
    tensor = model.tensor or (model.array.dtype if model.array else "")
    shape = model.tensors[0].shape if model.tensor else ()
    wanted = Wanted(model.signature, tensor, shape, model.positions)
    keep = job.action == "append_row"
    return lambda work: _score_files(work, model.predict, wanted, keep)


def _score_files(work: Work, predict: Callable[[Any], Any], wanted: Wanted, keep: bool) -> None:
    """Score a mini batch: small files share a call of the model, large ones go through in chunks."""
    waiting: list[Unit] = []
    for part in work.slices:
        work.tell(at=part.file)
        try:
            for unit in read_slice(part, wanted):
                if waiting and (work.alone or not _fits(waiting, unit)):
                    _score_units(work, waiting, predict, wanted, keep)
                    waiting = []
                if part.file in work.failed:
                    break
                waiting.append(unit)
        except Exception as problem:
            waiting = [unit for unit in waiting if unit.file != part.file]
            work.fail(part.file, problem)
        if work.alone and waiting:
            _score_units(work, waiting, predict, wanted, keep)
            waiting = []
    if waiting:
        _score_units(work, waiting, predict, wanted, keep)


def _fits(waiting: Sequence[Unit], unit: Unit) -> bool:
    """Say whether a unit can share a call of the model with those that wait."""
    first = waiting[0].data
    if sum(u.rows for u in waiting) + unit.rows > CHUNK_ROWS or type(first) is not type(unit.data):
        return False
    if isinstance(first, str):
        return True
    if hasattr(first, "schema"):
        return bool(first.schema.equals(unit.data.schema))
    return first.shape == unit.data.shape and first.nbytes * (len(waiting) + 1) <= CHUNK_BYTES


def _score_units(work: Work, units: list[Unit], predict: Callable[[Any], Any], wanted: Wanted, keep: bool) -> None:
    units = [unit for unit in units if unit.file not in work.failed]
    if not units:
        return
    try:
        rows = sum(unit.rows for unit in units)
        columns = prediction_columns(predict(_join(units, wanted)), rows)
    except Exception as problem:
        if len(units) == 1:
            work.fail(units[0].file, problem)
            return
        for unit in units:  # each alone, to find whose fault it is
            _score_units(work, [unit], predict, wanted, keep)
        return
    start = 0
    for unit in units:
        mine = {name: values.slice(start, unit.rows) for name, values in columns.items()}
        if keep:
            work.parts.write(rows_of(unit.file, unit.first, mine))
        work.written[unit.file] += unit.rows
        start += unit.rows
    work.rows += rows
    work.tell(rows=rows)


def _join(units: Sequence[Unit], wanted: Wanted) -> Any:
    """Make one input of the model out of units."""
    import numpy as np

    first = units[0].data
    if hasattr(first, "schema"):
        import pyarrow as pa

        return to_model(first if len(units) == 1 else pa.concat_tables([unit.data for unit in units]), wanted.tensor)
    if isinstance(first, str):
        import pandas as pd

        named = next((column.name for column in wanted.signature or () if column.type == "string"), "text")
        return pd.DataFrame({named: [unit.data for unit in units]})
    return np.stack([unit.data for unit in units])


# --- scoring scripts -------------------------------------------------------------------------------------------------


def _load_script(job: Job, folder: Path) -> Callable[[Work], None]:
    """Import a scoring script and call its `init()`."""
    script = job.script or {}
    path = Path(script["code"]) / script["scoring_script"]
    if not path.is_file():
        raise FileNotFoundError(f"No scoring script {path}. Put it into the code folder of the deployment")
    output = Path(job.output) if "://" not in job.output else folder / "written"
    output.mkdir(parents=True, exist_ok=True)
    os.environ.update(AZUREML_MODEL_DIR=str(folder / "model"), AZUREML_BI_OUTPUT_PATH=str(output))
    sys.path.insert(0, script["code"])
    found = importlib.util.spec_from_file_location(path.stem, path)
    if found is None or found.loader is None:
        raise ImportError(f"{path} is no Python file. Name a .py file as scoring_script")
    module = importlib.util.module_from_spec(found)
    sys.modules[path.stem] = module
    found.loader.exec_module(module)
    if not callable(getattr(module, "run", None)):
        raise AttributeError(f"{path} has no function run(mini_batch). Define one that returns a list or a DataFrame")
    if callable(getattr(module, "init", None)):
        module.init()
    keep = job.action == "append_row"
    return lambda work: _run_script(work, module.run, keep)


def _run_script(work: Work, run: Callable[[list[str]], Any], keep: bool) -> None:
    """Call `run` with the paths of a mini batch; it returns one row per success, in a list or a data frame."""
    for part in work.slices:
        work.tell(at=part.file)
    try:
        with_paths = _Paths(work)
        try:
            results = run(with_paths.all)
        finally:
            with_paths.remove()
        rows, table = _results(work, results)
    except Exception as problem:
        for part in work.slices:
            work.fail(part.file, problem)
        return
    if keep and rows:
        work.parts.write(table)
    work.rows = rows
    work.tell(rows=rows)
    if (lost := len(work.slices) - rows) > 0:
        names = ", ".join(part.file for part in work.slices)
        reason = f"run() returned {rows} results for {len(work.slices)} files: {names}"
        work.failed[""] = {"file": work.slices[0].file if len(work.slices) == 1 else f"{lost} of {len(work.slices)}", "count": lost,
                           "reason": reason[:1000], "again": False, "written": 0}


class _Paths:
    """The paths of a mini batch's files; remote ones are fetched for as long as the mini batch lasts."""

    def __init__(self, work: Work):
        self.folder = work.parts.folder.parent / "fetched" / work.parts.name
        self.all = [self._path(part) for part in work.slices]

    def _path(self, part: Slice) -> str:
        return fetch(part.path, self.folder, part.file) if "://" in part.path else part.path

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _results(work: Work, results: Any) -> tuple[int, Any]:
    """Turn what `run` returned into rows, with the number in the mini batch, and the file where there is one row per file."""
    import pyarrow as pa

    if not hasattr(results, "__len__"):
        raise TypeError(f"run() returned {type(results).__name__}. Return a list or a DataFrame with one row per success")
    rows = len(results)
    if not rows:
        return 0, None
    columns = prediction_columns(results, rows)
    table = pa.table({"row": pa.array(range(rows)), **columns})
    names = [part.file for part in work.slices] if rows == len(work.slices) else [None] * rows
    if "file_name" not in table.column_names:
        table = table.append_column("file_name", pa.array(names, pa.string()))
    return rows, table.append_column("mini_batch", pa.array([work.piece.number] * rows))


if __name__ == "__main__":
    with Connection(int(sys.argv[2])) as pipe, suppress(EOFError, BrokenPipeError, ConnectionResetError):
        main(Path(sys.argv[1]), pipe)
