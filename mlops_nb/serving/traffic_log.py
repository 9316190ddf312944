"""Write one line a request, with the columns of Azure's AmlOnlineEndpointTrafficLog, and a summary of every minute.

Three columns are ours: `ErrorCode` says why the front refused, `QueueDelayMs` how long the request waited within the instance, where
it tells so, and the two of throttling say how long it waited at the front for room on an instance, and its answer for a client that
was slow to take it. Lines are kept for days, and fewer where there are very many; the summaries for two months.
"""

import contextlib
import http
import json
import math
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from mlops_nb.serving.asked import Asked
from mlops_nb.serving.lines import Lines, append
from mlops_nb.serving.pool import Headers
from mlops_nb.serving.usage import note_reach, tidy

DAYS = 7  # of logs that are kept
ROLL = 256 * 2**20  # bytes of a day's file; one more is kept
SUMMARY_DAYS = 62
NO_DELAYS = (0.0, 0.0, 0.0)
SUMMARY_EVERY = 15.0  # seconds between two lines of the same minute; they add up
REASONS_MOST = 200  # a minute's sorts of answer that are told apart
FOLDER = Path("logs/traffic")
REASONS = {status.value: status.phrase for status in http.HTTPStatus}


class TrafficLog:
    """The log of one endpoint; what it needs to know of a request is noted, the line is made in the thread."""

    def __init__(self, lines: Lines, folder: Path = FOLDER):
        self.lines, self.folder = lines, folder
        self.on = False
        self.endpoint = self.environment = self.day = ""
        self.summary = Summary(folder)

    def follow(self, endpoint: dict[str, Any]) -> None:
        """Take over whether requests are logged."""
        self.on = endpoint.get("log_requests", True)
        self.endpoint, self.environment = _quote(endpoint["name"].encode()), _quote(endpoint["environment"].encode())

    def add(self, asked: Asked, deployment: str, status: int, headers: Headers, size: int, answer_size: int,
            times: tuple[float, ...],  # began, received, answered, handed to the connection, sent
            waited: float, code: str = "") -> None:
        """Note a request."""
        noted = asked.noted
        self.lines.put(self.write, (
            time.time(), asked.method, asked.path, deployment, status, headers, size, answer_size, asked.request,
            noted.get(b"user-agent", b"")[:70], noted.get(b"x-ms-client-request-id", b"")[:200], times, waited, code))

    def tick(self) -> None:
        """Let the thread write the summary of what came, though nothing more may come."""
        self.lines.put(self.write_summary, None)

    def write(self, records: list[Any]) -> None:
        """Append the lines to their day's file, and remove old ones when a day begins."""
        days: dict[str, list[bytes]] = {}
        for record in records:
            second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record[0]))
            days.setdefault(second[:10], []).append(self._line(second, record))
        for day, lines in days.items():
            if day > self.day:
                self.day = day
                self._tidy()
            path = self.folder / f"{day}.jsonl"
            self._note_loss(path, sum(map(len, lines)))
            append(path, lines, ROLL)
        self.summary.write(SUMMARY_EVERY)

    def write_summary(self, ticks: list[None]) -> None:
        """Append what is counted so far."""
        self.summary.write(0)

    def _line(self, second: str, record: Any) -> bytes:
        """Make a line by hand: what a client chose is quoted by orjson, the rest needs no quoting."""
        at, method, path, deployment, status, headers, size, answer_size, request, agent, client, times, waited, code = record
        began, received, answered, handed, sent = times
        model = {name: value for name, value in headers if name.startswith((b"ms-azureml-model-error-", b"x-mlops-nb-queue-ms"))}
        reason, queued = model.get(b"ms-azureml-model-error-reason", b""), _number(model.get(b"x-mlops-nb-queue-ms"))
        total, slow = (sent - began) * 1000, (sent - handed) * 1000
        self.summary.add(second[:16], deployment, status, _kind(status, code, reason), total, (waited * 1000, slow, queued or 0.0))
        return (
            f'{{"TimeGenerated":"{second}.{int(at % 1 * 1000):03}Z","Method":"{method}","Path":"{path}",'
            f'"AzureMLWorkspaceName":{self.environment},"EndpointName":{self.endpoint},"DeploymentName":{_quote(deployment.encode())},'
            f'"Protocol":"HTTP/1.1","ResponseCode":{status},"ResponseCodeReason":"{REASONS.get(status, "")}",'
            f'"ModelStatusCode":{_quote(model.get(b"ms-azureml-model-error-statuscode", b""))},'
            f'"ModelStatusReason":{_quote(reason)},'
            f'"RequestPayloadSize":{size},"ResponsePayloadSize":{answer_size},"UserAgent":{_quote(agent)},"XRequestId":{_quote(request)},'
            f'"XMSClientRequestId":{_quote(client)},"TotalDurationMs":{total:.3f},'
            f'"RequestDurationMs":{(received - began) * 1000:.3f},"ResponseDurationMs":{(sent - answered) * 1000:.3f},'
            f'"RequestThrottlingDelayMs":{waited * 1000:.3f},"ResponseThrottlingDelayMs":{slow:.3f},'
            f'"QueueDelayMs":{"null" if queued is None else f"{queued:.3f}"},"ErrorCode":"{code}"}}\n').encode()

    def _note_loss(self, path: Path, size: int) -> None:
        """Note that the older half of a day is about to make room for the newer one."""
        old = path.with_suffix(".old.jsonl")
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size + size > ROLL and old.stat().st_size:
                note_reach(self.folder, "lines", datetime.fromtimestamp(old.stat().st_mtime, UTC))

    def _tidy(self) -> None:
        tidy(self.folder, "lines", time.time() - DAYS * 86_400)


class Summary:
    """Counts the answers of every minute, by deployment, status and reason, with their times."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.day = ""
        self.counts: dict[tuple[str, str, int, str], Counts] = {}
        self.sorts: Counter[str] = Counter()  # minute -> sorts of answers that are told apart
        self.written = time.monotonic()

    def add(self, minute: str, deployment: str, status: int, reason: str, total: float, delays: tuple[float, float, float]) -> None:
        """Count one answer; times in milliseconds."""
        key = minute, deployment, status, reason
        if (counts := self.counts.get(key)) is None:
            if reason and self.sorts[minute] >= REASONS_MOST:  # reasons are a model's own words
                self.add(minute, deployment, status, "", total, delays)
                return
            counts = self.counts[key] = Counts()
            self.sorts[minute] += 1
        counts.add(total, delays)

    def write(self, wait: float) -> None:
        """Append what was counted, if the last time is so many seconds ago."""
        if not self.counts or time.monotonic() - self.written < wait:
            return
        self.written = time.monotonic()
        counted, self.counts = self.counts, {}
        self.sorts.clear()
        days: dict[str, list[bytes]] = {}
        for (minute, deployment, status, reason), counts in counted.items():
            line = {"Minute": minute, "DeploymentName": deployment, "ResponseCode": status, "Reason": reason} | counts.told()
            days.setdefault(minute[:10], []).append(json.dumps(line).encode() + b"\n")
        folder = self.folder / "minutes"
        if not folder.exists() and (known := sorted(self.folder.glob("????-??-??*.jsonl"))) and known[0].name[:10] < min(days):
            note_reach(self.folder, "minutes", datetime.now(UTC))  # lines were written before summaries were
        for day, lines in days.items():
            if day > self.day:
                self.day = day
                self._tidy(folder)
            append(folder / f"{day}.jsonl", lines)

    def _tidy(self, folder: Path) -> None:
        until = time.time() - SUMMARY_DAYS * 86_400
        if any(path.name[:10] < time.strftime("%Y-%m-%d", time.gmtime(until)) for path in folder.glob("*.jsonl")):
            note_reach(self.folder, "minutes", datetime.fromtimestamp(until, UTC).replace(hour=0, minute=0, second=0, microsecond=0))
            tidy(folder, "minutes", until)


class Counts:
    """The answers of one minute, deployment, status and reason."""

    __slots__ = ("delayed", "longest", "sums", "times")

    def __init__(self) -> None:
        self.times: dict[float, int] = {}  # milliseconds, rounded -> answers
        self.sums, self.longest, self.delayed = [0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0, 0, 0]

    def add(self, total: float, delays: tuple[float, float, float]) -> None:
        """Count one answer."""
        rounded = about(total)
        self.times[rounded] = self.times.get(rounded, 0) + 1
        if delays == NO_DELAYS:
            return
        for index, delay in enumerate(delays):
            if delay > 0.0005:  # what the log's lines show
                self.sums[index] += delay
                self.delayed[index] += 1
                if delay > self.longest[index]:
                    self.longest[index] = delay

    def told(self) -> dict[str, Any]:
        """Make the columns of a line; the delays are request throttling, response throttling and the instance's queue."""
        return {"TotalDurationMs": list(self.times), "Requests": list(self.times.values()), "DelayMs": [round(s, 3) for s in self.sums],
                "LongestDelayMs": [round(most, 3) for most in self.longest], "Delayed": self.delayed}


def about(value: float) -> float:
    """Round to within 0.8 per cent: to 64 steps from one power of two to the next."""
    part, power = math.frexp(value)
    return math.ldexp(round(part * 128), power - 7)


def _kind(status: int, code: str, reason: bytes) -> str:
    """Say in a word why a request failed: the front's code, or what class of error the model raised."""
    return reason.decode("latin-1").partition(":")[0][:60] if reason else code if status >= 400 else ""


def _number(text: bytes | None) -> float | None:
    with contextlib.suppress(TypeError, ValueError):
        value = float(text or b"x")
        return value if math.isfinite(value) else None
    return None


def _quote(text: bytes) -> str:
    return orjson.dumps(text.decode("latin-1")).decode() if text else '""'
