"""Keep what the model was asked and what it answered, in Azure ML's layout, without ever slowing a request.

One line per request and collection, a CloudEvent, in `<collection>/yyyy/MM/dd/HH/<instance>.jsonl`. A thread writes;
when it falls behind, or the disk refuses, records are dropped and counted.
"""

import datetime as dt
import logging
import os
import queue
import random
import threading
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlops_nb import __version__
from mlops_nb.serving.payload import as_json, as_rows

log = logging.getLogger(__name__)

_WAITING = 1000  # requests held back for a slow disk before new ones are dropped


@dataclass(frozen=True)
class Scored:
    """One request that was answered."""

    inputs: Any  # the checked table
    outputs: Any  # the model's predictions
    correlation: str  # the request's id; a row's is `<correlation>_<row>`
    request: str  # the id the client gave, or the same
    draw: float  # 0 to 1, decides for all collections alike whether it is in the sample
    at: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))


class Collector:
    """Write the collections of one deployment process until it is closed."""

    def __init__(
        self,
        folder: Path | str,  # <collected>/<endpoint>/<deployment>
        source: str,  # the deployment's address
        version: str,  # of the model
        rates: dict[str, float],  # collection -> share of requests kept, 0 to 1
    ):
        self.folder, self.source, self.version, self.rates = Path(folder), source, version, rates
        self.instance = f"local-{uuid.uuid4().hex[:12]}"  # new in every process: one writer per file
        self.written = self.dropped = 0
        self._waiting: queue.Queue[Scored | None] = queue.Queue(_WAITING)
        self._open: dict[str, tuple[Path, int]] = {}  # collection -> its file of this hour
        self._complained = False
        self._thread = threading.Thread(target=self._run, name="collector", daemon=True)
        self._thread.start()

    def collect(self, inputs: Any, outputs: Any, correlation: str, request: str) -> None:
        """Hand over one request; returns at once."""
        draw = random.random()  # noqa: S311 a sample, not a secret
        if not any(draw < rate for rate in self.rates.values()):
            return
        try:
            self._waiting.put_nowait(Scored(inputs, outputs, correlation, request, draw))
        except queue.Full:
            self.dropped += 1

    def close(self, wait: float = 5) -> None:
        """Write what is waiting, at most `wait` seconds long, and close the files."""
        try:
            self._waiting.put(None, timeout=wait)
        except queue.Full:
            return
        self._thread.join(wait)

    def _run(self) -> None:
        while (scored := self._waiting.get()) is not None:
            try:
                self._write(scored)
                self.written += 1
                self._complained = False
            except Exception as problem:  # a full disk, a value that is no JSON: never the request's trouble
                self.dropped += 1
                if not self._complained:
                    log.warning("Not collected: %s: %s", type(problem).__name__, problem)
                self._complained = True
        for _, handle in self._open.values():
            os.fsync(handle)
            os.close(handle)

    def _write(self, scored: Scored) -> None:
        for collection, rate in self.rates.items():
            if scored.draw < rate:
                table = scored.inputs if collection == "model_inputs" else scored.outputs
                self._append(collection, scored.at, self._event(collection, scored, as_json(_records(table))))

    def _event(self, collection: str, scored: Scored, data: bytes) -> bytes:
        event = {
            "specversion": "1.0",
            "id": str(uuid.uuid4()),
            "source": self.source,
            "type": f"azureml.inference.{collection}",
            "datacontenttype": "application/json",
            "time": scored.at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "contentrange": f"bytes 0-{len(data) - 1}/{len(data)}",
            "correlationid": scored.correlation,
            "xrequestid": scored.request,
            "modelversion": self.version,
            "collectdatatype": "pandas.core.frame.DataFrame",
            "agent": f"mlops-nb/{__version__}",
        }
        return as_json(event)[:-1] + b',"data":' + data + b"}\n"

    def _append(self, collection: str, at: dt.datetime, line: bytes) -> None:
        """Append one whole line, or nothing of it."""
        handle = self._handle(collection, self.folder / collection / f"{at:%Y/%m/%d/%H}" / f"{self.instance}.jsonl")
        before = os.fstat(handle).st_size
        try:
            if os.write(handle, line) != len(line):
                raise OSError(f"the disk of {self.folder} is full")
        except OSError:
            os.ftruncate(handle, before)
            raise

    def _handle(self, collection: str, path: Path) -> int:
        current, handle = self._open.get(collection, (None, -1))
        if current != path or not os.fstat(handle).st_nlink:  # a new hour, or somebody removed the file
            path.parent.mkdir(parents=True, exist_ok=True)
            opened = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            if current:
                os.close(handle)
            self._open[collection] = (path, opened)
            handle = opened
        return handle


def _records(table: Any) -> list[dict[str, Any]]:
    """Turn inputs or predictions into records; a plain list of predictions gets the column `prediction`."""
    rows = as_rows(table)
    if isinstance(rows, dict):  # columns
        return [dict(zip(rows, values, strict=False)) for values in zip(*rows.values(), strict=False)]
    if not isinstance(rows, list):
        rows = [rows]
    return [row if isinstance(row, dict) else {"prediction": row} for row in rows]
