"""Say how the endpoint does, under the names and dimensions that Azure Monitor uses, as text that Prometheus reads."""

import asyncio
import contextlib
import json
import shutil
from collections import Counter, deque
from time import monotonic
from typing import Any

import psutil

from mlops_nb.serving.door import Door, sweep
from mlops_nb.serving.lines import Lines
from mlops_nb.serving.mirror import Mirror
from mlops_nb.serving.pool import ConnectionEnded
from mlops_nb.serving.route import Routes, Target

WINDOW = 60  # seconds that a figure per minute looks back
STEP = 5  # seconds between two snapshots of the counters
QUANTILES = (("P50", 0.5), ("P90", 0.9), ("P95", 0.95), ("P99", 0.99))
Labels = tuple[tuple[str, str], ...]
Samples = list[tuple[Labels, float]]


class Meter:
    """What a figure per second or per minute is made of: snapshots of the counters over the last minute."""

    def __init__(self) -> None:
        self.bytes = 0  # of requests and answers
        self.connections: set[Any] = set()
        self.past: deque[tuple[float, dict[Any, float]]] = deque(maxlen=WINDOW // STEP + 1)
        self.processes: dict[int, psutil.Process] = {}
        self.before: tuple[float, Counter[Labels]] | None = None  # the last look at the collectors: when, and their counts

    async def run(self, server: Any, routes: Routes) -> None:
        """Look at the connections every second, and keep a snapshot every few."""
        self.connections = server.server_state.connections
        second = 0
        while True:
            sweep(self.connections, monotonic())
            if second % STEP == 0:
                self.past.append((monotonic(), self.now(routes)))
            second += 1
            await asyncio.sleep(1)

    def now(self, routes: Routes) -> dict[Any, float]:
        """Take the counters as they are."""
        counted: dict[Any, float] = {"bytes": self.bytes, "opened": Door.opened}
        for name, one in routes.deployments.items():
            counted |= {(name, *key): count for key, count in one.answers.items()}
        return counted

    def since(self, routes: Routes) -> tuple[float, dict[Any, float]]:
        """Say by how much the counters grew, and in how many seconds."""
        now = monotonic()
        at, before = self.past[0] if self.past else (now, {})
        return max(now - at, 1.0), {key: max(0, count - before.get(key, 0)) for key, count in self.now(routes).items()}

    def rates(self, counts: "Counter[Labels]") -> dict[Labels, float]:
        """Say how much the collectors' counts grew per minute since the last look; nothing at the first."""
        now = monotonic()
        at, before = self.before or (now, counts)
        self.before = (now, counts)
        minutes = max(now - at, 1.0) / 60
        return {labels: max(0.0, count - before[labels]) / minutes for labels, count in counts.items()}

    def usage(self, pid: int) -> tuple[float, float]:
        """Say how much CPU (per cent, since the last look) and memory (per cent) a process uses."""
        try:
            process = self.processes.setdefault(pid, psutil.Process(pid))
            return process.cpu_percent(), process.memory_percent()
        except psutil.Error:
            self.processes.pop(pid, None)
            return 0.0, 0.0


class Page:
    """The text, metric by metric."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, name: str, kind: str, samples: Samples, about: str) -> None:
        """Add one metric; without a sample it is left out."""
        if samples:
            self.lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
            self.lines += [f"{name}{_labels(labels)} {value:.10g}" for labels, value in samples]


def _labels(labels: Labels) -> str:
    escaped = (f'{key}="{_escape(value)}"' for key, value in labels)
    return f"{{{','.join(escaped)}}}" if labels else ""


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


async def render(routes: Routes, refused: Counter[int], meter: Meter, mirror: Mirror, lines: Lines) -> str:
    """Write all figures."""
    page = Page()
    _requests(page, routes, refused, meter)
    _latency(page, routes)
    _door(page, routes, meter, mirror, lines)
    _machine(page, routes, meter)
    await _collection(page, routes, meter)
    return "\n".join(page.lines) + "\n"


def _requests(page: Page, routes: Routes, refused: Counter[int], meter: Meter) -> None:
    seconds, grown = meter.since(routes)
    rates: Samples = []
    for key, count in grown.items():
        if isinstance(key, tuple):
            name, status, model_status = key
            rates.append(((("deployment", name), ("statusCode", str(status)), ("statusCodeClass", f"{status // 100}xx"),
                           ("modelStatusCode", model_status)), count * 60 / seconds))
    page.add("RequestsPerMinute", "gauge", rates, "Requests answered per minute, over the last minute.")
    totals: Counter[tuple[str, int]] = Counter({("", status): count for status, count in refused.items()})
    for name, one in routes.deployments.items():
        for (status, _), count in one.answers.items():
            totals[name, status] += count
    counted: Samples = [((("deployment", name), ("status", str(status))), count) for (name, status), count in sorted(totals.items())]
    page.add("mlops_nb_requests_total", "counter", counted, "Requests answered; without a deployment: refused.")
    pending: Samples = [((("deployment", name),), one.pending) for name, one in routes.deployments.items()]
    page.add("mlops_nb_pending", "gauge", pending, "Requests under way and waiting.")


def _latency(page: Page, routes: Routes) -> None:
    found: dict[str, Samples] = {}
    for name, one in routes.deployments.items():
        where = (("deployment", name),)
        if times := sorted(one.times):
            found.setdefault("RequestLatency", []).append((where, sum(times) / len(times) * 1000))
            for label, share in QUANTILES:
                found.setdefault(f"RequestLatency_{label}", []).append((where, times[int(len(times) * share)] * 1000))
    for metric, samples in found.items():
        page.add(metric, "gauge", samples, "Milliseconds, of the newest 1000 answers.")


def _door(page: Page, routes: Routes, meter: Meter, mirror: Mirror, lines: Lines) -> None:
    seconds, grown = meter.since(routes)
    page.add("ConnectionsActive", "gauge", [((), float(len(meter.connections)))], "Connections from clients.")
    page.add("NewConnectionsPerSecond", "gauge", [((), grown["opened"] / seconds)], "Opened per second, over the last minute.")
    page.add("NetworkBytes", "gauge", [((), grown["bytes"] / seconds)], "Bytes of requests and answers per second.")
    page.add("mlops_nb_mirrored_total", "counter", [((), float(mirror.sent))], "Copies sent to a shadow deployment.")
    dropped: Samples = [((("what", "mirror"),), float(mirror.dropped)), ((("what", "log"),), float(lines.dropped))]
    page.add("mlops_nb_not_kept_total", "counter", dropped, "Copies and log lines that were dropped.")


def _machine(page: Page, routes: Routes, meter: Meter) -> None:
    targets = [(name, target) for name, one in routes.deployments.items() for target in one.targets]
    living = {target.pid for _, target in targets}
    meter.processes = {pid: process for pid, process in meter.processes.items() if pid in living}
    usage = [(_where(name, target), meter.usage(target.pid)) for name, target in targets if target.pid]
    for index, metric in enumerate(("CpuUtilizationPercentage", "CpuMemoryUtilizationPercentage")):
        page.add(metric, "gauge", [(where, found[index]) for where, found in usage], "Of an instance's process.")
    disk = shutil.disk_usage(".")
    page.add("DiskUtilization", "gauge", [((), disk.used / disk.total * 100)], "Per cent of the disk that holds the endpoint's folder.")
    capacity = [(_where(name, target), float(target.ready)) for name, target in targets]
    page.add("DeploymentCapacity", "gauge", capacity, "Instances; 1 is ready.")


def _where(name: str, target: Target) -> Labels:
    return ("deployment", name), ("instanceId", target.name)


async def _collection(page: Page, routes: Routes, meter: Meter) -> None:
    """Ask every instance what its collector wrote and dropped."""
    targets = [(name, target) for name, one in routes.deployments.items() for target in one.targets if target.ready]
    found = await asyncio.gather(*(_about(target) for _, target in targets))
    collected: Samples = []
    dropped: Samples = []
    sums: Counter[Labels] = Counter()
    for (name, target), about in zip(targets, found, strict=True):
        for kind, count in _counts(about.get("collected")).items():
            collected.append(((*_where(name, target), ("type", kind)), count))
            sums[("deployment", name), ("type", kind)] += count  # type: ignore[assignment]
        for key, count in _counts(about.get("not_collected")).items():
            kind, _, reason = key.partition(":")
            dropped.append(((*_where(name, target), ("reason", reason), ("type", kind)), count))
            sums[("deployment", name), ("reason", reason), ("type", kind)] += count  # type: ignore[assignment]
    page.add("mlops_nb_collected_total", "counter", collected, "Events that were collected.")
    page.add("mlops_nb_dropped_total", "counter", dropped, "Events that were not collected, and why.")
    rates = meter.rates(sums)
    for metric, size in (("DataCollectionEventsPerMinute", 2), ("DataCollectionErrorsPerMinute", 3)):
        found_rates = [(labels, rate) for labels, rate in rates.items() if len(labels) == size]
        page.add(metric, "gauge", found_rates, "Since this page was read before.")


def _counts(found: Any) -> dict[str, float]:
    return {str(key): float(count) for key, count in found.items()} if isinstance(found, dict) else {}


async def _about(target: Target) -> dict[str, Any]:
    with contextlib.suppress(ConnectionEnded, TimeoutError, ValueError):
        until = monotonic() + 1
        answer = await target.pool.ask(b"GET /version HTTP/1.1\r\nhost: deployment\r\ncontent-length: 0\r\n\r\n", until)
        about = json.loads(answer.body)
        return about if isinstance(about, dict) else {}
    return {}
