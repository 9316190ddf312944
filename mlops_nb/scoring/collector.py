"""Keep what the model was asked and what it answered, in Azure ML's layout, without ever slowing a request.

One line per request and collection, a CloudEvent, in `<collection>/<time>/<instance>.jsonl`, where the time's folders are as
deep as the rolling rate says: `yyyy/MM/dd/HH` for Hour and `yyyy/MM/dd` for Day, as Azure ML documents; `yyyy/MM/dd/HH/mm` for
Minute, `yyyy/MM` for Month and `yyyy` for Year follow from these. A payload over 4 MB, and one that is no text, is a file of its
own in the same folder, named by the event's id; the event then says `"datainblob":"true"`, and its `data` is the file's address.

The data path only puts what it has into a queue. A thread turns it into lines and appends whole lines, many in one write; what
is killed loses what waited, 0.1 s at most, and tears no line but the last of its own file. When the thread falls behind, or the
disk refuses, requests are dropped and counted by reason: QueueFull, DiskFull, WriteFailed, NotSerializable, Closed.
"""

import atexit
import errno
import json
import logging
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from mlops_nb import __version__
from mlops_nb.scoring.config import Config
from mlops_nb.scoring.records import MAX_INLINE, Tables, dumps, fit_for_line, weigh
from mlops_nb.scoring.rolling import Files

log = logging.getLogger(__name__)

MAX_WAITING = 20_000  # requests held back for a slow disk before new ones are dropped
MAX_WAITING_BYTES = 64 * 2**20  # the same, by what they hold on to
RATES = {"Minute": "%Y/%m/%d/%H/%M", "Hour": "%Y/%m/%d/%H", "Day": "%Y/%m/%d", "Month": "%Y/%m", "Year": "%Y"}
_GATHER, _SOON = 0.1, 0.02  # seconds that the first of a batch waits for others: under load, to wake up less often; else
_BATCH = 64  # requests turned into lines before they are written; the data path may have to wait that long for the interpreter
_OVERHEAD = 1500  # bytes that a waiting request takes besides its payload
_NEVER = {"authorization", "cookie", "proxy-authorization", "set-cookie"}  # headers that are secrets


@dataclass(slots=True)
class _Asked:
    """One request that was answered, as it waits."""

    at: float  # seconds since 1970
    draw: float  # 0 to 1, decides for all collections alike whether it is in the sample
    weight: int  # bytes
    correlation: str
    request: str
    inputs: Any = None
    outputs: Any = None
    body: bytes = b""
    answer: bytes = b""
    more: dict[str, Any] | None = None  # captured headers, method, path, types of the bodies


@dataclass(slots=True)
class _Posted:
    """One event that a scoring script has made itself, as it waits."""

    at: float
    weight: int
    collection: str
    correlation: str
    data: bytes
    more: dict[str, Any]  # attributes of the event
    text: bool  # whether the data is JSON


class Collector:
    """Write the collections of one deployment process until it is closed; safe to call from any thread."""

    def __init__(
        self,
        folder: Path | str,  # <collected>/<endpoint>/<deployment>
        source: str,  # the deployment's address
        version: str,  # of the model
        rates: Mapping[str, float],  # collection -> share of requests kept, 0 to 1
        rolling_rate: str = "Hour",  # one of `RATES`
        capture_headers: Iterable[str] = (),  # kept beside the bodies of requests and answers
        instance: str = "local",  # part of the files' name
        columns: Callable[[], Sequence[str]] = list,  # names the columns of inputs that come without names; asked once
    ):
        self.folder, self.source, self.version = Path(folder).absolute(), source, version
        self.rates = {name: float(rate) for name, rate in rates.items() if rate > 0}
        self.instance = f"{instance}-{random.getrandbits(32):08x}"  # new in every process: one writer per file
        self._roll, self._tables = RATES[rolling_rate.capitalize()], Tables(columns)
        self._captured = sorted({name.lower() for name in capture_headers} - _NEVER)
        self._asked = {name: rate for name, rate in self.rates.items() if name in _FROM_REQUESTS}
        self._largest, self._smallest = max(self._asked.values(), default=0.0), min(self._asked.values(), default=0.0)
        self._always = list(self._asked)
        self.bodies = "request" in self._asked or "response" in self._asked  # whether bodies and headers are of any use
        self._waiting: deque[_Asked | _Posted] = deque()
        self._entered = self._left = 0  # bytes; the first changes under the lock, the second in the thread
        self._lock, self._wake, self._closing = threading.Lock(), threading.Event(), threading.Event()
        self._refused: Counter[str] = Counter()  # changes under the lock
        self._kept: Counter[str] = Counter()  # changes in the thread, as does the next
        self._failed: Counter[str] = Counter()
        self._files = Files(self.folder, self.instance)
        self.before_close: Callable[[], None] = lambda: None  # lets others hand over what they hold back
        fixed = {"specversion": "1.0", "source": source}
        self._heads = {name: dumps({**fixed, "type": f"azureml.inference.{name}"})[:-1] + b"," for name in self.rates}
        about = {"datacontenttype": "application/json", "modelversion": version, "collectdatatype": "pandas.core.frame.DataFrame"}
        self._about = dumps({**about, "agent": f"mlops-nb/{__version__}"})[1:-1] + b","
        digits = f"{random.getrandbits(80):020x}"
        self._stem, self._number = f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}", 0
        self._thread = threading.Thread(target=self._run, name="collector", daemon=True)
        self._thread.start()

    def collect(
        self,
        inputs: Any,  # frame, `payload.Table`, mapping of columns, array or list of rows, or `Rows` of one; None: no table
        outputs: Any,  # the model's predictions, in any of these; nobody may change either afterwards
        correlation: str,  # the request's id; a row's is `<correlation>_<row>`
        request: str,  # the id the client gave, or the same
        *,
        body: bytes = b"",  # as it came; also tells how much the table takes
        answer: bytes = b"",  # as it went
        headers: Mapping[str, str] | None = None,  # of the request, names in lower case
        method: str = "POST",
        path: str = "/score",
        answer_type: str = "application/json",
    ) -> None:
        """Hand over one request; returns at once, and never raises."""
        draw = random.random()  # noqa: S311 a sample, not a secret
        if draw >= self._largest:
            return
        try:
            weight = _OVERHEAD + weigh(inputs, body) + weigh(outputs, answer)
            asked = _Asked(time.time(), draw, weight, correlation, request, inputs, outputs)
            if self.bodies:
                asked.weight += len(body) + len(answer)
                asked.body, asked.answer = body, answer
                asked.more = {"method": method, "path": path, "answer_type": answer_type}
                if headers is not None:
                    asked.more["body_type"] = headers.get("content-type", "application/json")
                    asked.more["headers"] = {name: headers[name] for name in self._captured if name in headers}
            self._enqueue(asked)
        except Exception:  # nothing in here may be the request's trouble
            log.exception("Request %s was not collected", correlation)

    def post(
        self,
        collection: str,
        data: bytes,  # JSON, or anything when `text` is false
        correlation: str,
        at: float,  # seconds since 1970
        text: bool = True,
        **more: str,  # attributes of the event
    ) -> bool:  # whether it was taken
        """Hand over an event that a scoring script has made; returns at once, and never raises."""
        return self._enqueue(_Posted(at, _OVERHEAD + len(data), collection, correlation, data, more, text))

    def counts(self) -> dict[str, dict[str, int]]:
        """Return how many requests are kept by collection, and dropped by `<collection>:<reason>`."""
        dropped = dict(self._refused)  # a copy, as the thread goes on counting
        for key, lost in dict(self._failed).items():
            dropped[key] = dropped.get(key, 0) + lost
        return {"collected": dict(self._kept), "dropped": dropped}

    def close(self, wait: float = 5) -> None:
        """Write what is waiting, at most `wait` seconds long, and close the files; whatever comes later is dropped."""
        self.before_close()
        self._closing.set()
        self._wake.set()
        self._thread.join(wait)

    def _enqueue(self, item: _Asked | _Posted) -> bool:
        with self._lock:
            full = len(self._waiting) >= MAX_WAITING or self._entered - self._left + item.weight > MAX_WAITING_BYTES
            if full or self._closing.is_set():
                reason = "QueueFull" if full else "Closed"
                self._refused.update(f"{name}:{reason}" for name in self._wanted(item))
                return False
            self._entered += item.weight
            self._waiting.append(item)
        if not self._wake.is_set():
            self._wake.set()
        return True

    def _run(self) -> None:
        busy = False
        while not (self._closing.is_set() and not self._waiting):
            if not busy:  # under load nobody needs to wake us
                self._wake.clear()
                if not self._waiting and not self._closing.is_set():
                    self._wake.wait()
            self._closing.wait(_GATHER if busy else _SOON)
            self._files.look()
            busy = len(self._waiting) > _BATCH / 4
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
                try:
                    self._write(batch)
                except Exception:  # the thread must live
                    log.exception("A batch was not collected")
                self._tables.forget()
                self._left += sum(item.weight for item in batch)
        self._files.close()

    def _write(self, batch: list[_Asked | _Posted]) -> None:
        lines: dict[tuple[str, str], list[bytes]] = {}
        for item in batch:
            folder = _folder(self._roll, int(item.at) // 60)
            common = _common(item.at, item.correlation, item.request if isinstance(item, _Asked) else item.correlation)
            for collection in self._wanted(item):
                try:
                    made = _posted(item) if isinstance(item, _Posted) else self._part(collection, item)
                    if made:
                        line = self._line(collection, folder, common, *made)
                        lines.setdefault((collection, folder), []).append(line)
                except Exception as problem:
                    self._fail(collection, _reason(problem), 1, problem)
        for (collection, folder), those in lines.items():
            written, fault = self._files.append(collection, f"{collection}/{folder}", those)
            self._kept[collection] += written
            if fault:
                self._fail(collection, _reason(fault), len(those) - written, fault)

    def _wanted(self, item: _Asked | _Posted) -> list[str]:
        if isinstance(item, _Posted):
            return [item.collection]
        return self._always if item.draw < self._smallest else [name for name, rate in self._asked.items() if item.draw < rate]

    def _fail(self, collection: str, reason: str, lost: int, problem: Exception) -> None:
        if not self._failed[key := f"{collection}:{reason}"]:
            log.warning("Not collected, and counted from now on (%s): %s: %s", key, type(problem).__name__, problem)
        self._failed[key] += lost

    def _part(self, collection: str, item: _Asked) -> tuple[bytes, bytes, bool] | None:
        """Return the data of one collection, more of the event, and whether the data goes into the line; None: no data."""
        if collection in ("model_inputs", "model_outputs"):
            table, name = (item.inputs, "") if collection == "model_inputs" else (item.outputs, "prediction")
            return None if table is None else (self._tables.data(table, name), self._about, True)
        body, kind = (item.body, "body_type") if collection == "request" else (item.answer, "answer_type")
        more = item.more or {}
        data, kind, inline = fit_for_line(body, str(more.get(kind, "application/json")).partition(";")[0].strip().lower())
        about = {key: more[key] for key in ("path", "method", "headers") if collection == "request" and more.get(key)}
        return data, dumps({"datacontenttype": kind, **about})[1:-1] + b",", inline

    def _line(self, collection: str, folder: str, common: bytes, data: bytes, more: bytes, inline: bool) -> bytes:
        """Make one event's line; what is too large for it goes into a file of its own."""
        self._number += 1
        name, size = f"{self._stem}-{self._number:012x}", len(data)
        if size > MAX_INLINE or not inline:
            data = dumps(self._files.beside(f"{collection}/{folder}", name, data).as_uri())
            more += b'"datainblob":"true",'
        about = b'"id":"%b","contentrange":"bytes 0-%d/%d",' % (name.encode(), size - 1 if size else 0, size)
        return b"".join((self._heads[collection], about, more, common, data, b"}\n"))


def _posted(item: _Posted) -> tuple[bytes, bytes, bool]:
    data, kind, inline = fit_for_line(item.data, "application/json") if item.text else (item.data, "application/octet-stream", False)
    return data, dumps({"datacontenttype": kind, **item.more})[1:-1] + b",", inline


def _common(at: float, correlation: str, request: str) -> bytes:
    known = dumps(correlation)
    other = known if request is correlation else dumps(request)
    whole = int(at)
    moment = (_second(whole), int((at - whole) * 1000))
    return b'"time":"%b.%03dZ","correlationid":%b,"xrequestid":%b,"data":' % (*moment, known, other)


_FROM_REQUESTS = ("model_inputs", "model_outputs", "request", "response")
_made: dict[tuple[str, str], Collector] = {}  # one in a process: what a scoring script logs goes through the same


def make_collector(config: Config) -> Collector | None:
    """Make the collector of this process, or return the one that is there; None when the deployment keeps nothing."""
    wanted = config.wish.collector
    if not wanted or not config.wish.collected or not any(wanted.get("collections", {}).values()):
        return None
    there = _made.get(key := (config.instance, config.wish.collected))
    if there is None or there._closing.is_set():
        source = f"/environments/{config.environment}/onlineEndpoints/{config.endpoint}/deployments/{config.deployment}"
        there = _made[key] = Collector(
            config.wish.collected, source, config.wish.model.rpartition("/")[2], wanted["collections"],
            wanted.get("rolling_rate") or "Hour", wanted.get("capture_headers") or (), config.instance or "local",
            lambda: _signature(config.wish.path))
        atexit.register(there.close)
    return there


def _signature(folder: str) -> list[str]:
    """Read the names of the model's inputs; none where the model has no signature of columns."""
    import yaml

    path = Path(folder) / "MLmodel"
    if not path.is_file():
        return []
    inputs = json.loads((yaml.safe_load(path.read_text()).get("signature") or {}).get("inputs") or "[]")
    return [str(entry["name"]) for entry in inputs if "name" in entry]


def _reason(problem: Exception) -> str:
    if not isinstance(problem, OSError):
        return "NotSerializable"
    return "DiskFull" if problem.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "WriteFailed"


@lru_cache(8)
def _folder(roll: str, minute: int) -> str:
    return time.strftime(roll, time.gmtime(60 * minute))


@lru_cache(8)
def _second(whole: int) -> bytes:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)).encode()
