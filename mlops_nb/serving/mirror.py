"""Send copies of a share of the requests to a shadow deployment, after the live answer is out, and note both answers."""

import asyncio
import time
from collections import deque
from pathlib import Path
from time import monotonic
from typing import Any

import orjson

from mlops_nb.serving.lines import Lines, append
from mlops_nb.serving.pool import Answer, ConnectionEnded
from mlops_nb.serving.route import Refused, Routes

MOST = 256  # copies that wait
MOST_BYTES = 64 * 2**20  # of their bodies
ANSWER_BYTES = 64 * 1024  # a longer answer is kept as null
LINES = 500  # that wait to be written
ROLL = 16 * 2**20  # bytes of a file; one old file is kept
FOLDER = Path("mirror")


class Mirror:
    """The shadow of one endpoint: a bounded queue, and a few copies under way."""

    def __init__(self, routes: Routes, lines: Lines, folder: Path = FOLDER):
        self.routes, self.lines, self.folder = routes, lines, folder
        self.shares: dict[str, float] = {}
        self.credit: dict[str, float] = {}
        self.waiting: deque[tuple[str, Any]] = deque()
        self.bytes = self.dropped = self.sent = self.queued = self.lost = 0
        self.written = 0  # changes in the thread that writes
        self.some = asyncio.Event()
        self.under_way: set[asyncio.Task[None]] = set()

    def follow(self, shares: dict[str, float]) -> None:
        """Take over who shadows, and how much of the traffic."""
        shares = {name: share for name, share in shares.items() if share}
        if shares != self.shares:
            self.shares, self.credit = shares, dict.fromkeys(shares, 0.0)

    def chosen(self, live: str) -> str:
        """Say which deployment, if any, gets a copy of this request; shares are exact."""
        for name, share in self.shares.items():
            if name == live:
                continue
            self.credit[name] += share
            if self.credit[name] >= 100:
                self.credit[name] -= 100
                return name
        return ""

    def offer(self, shadow: str, name: str, request: bytes, live: str, answer: Answer, seconds: float) -> None:
        """Queue a copy; returns at once, and drops it when too many wait already."""
        if len(self.waiting) >= MOST or self.bytes + len(request) > MOST_BYTES:
            self.dropped += 1
            return
        self.bytes += len(request)
        self.queued += 1
        self.waiting.append((shadow, (name, request, live, answer.status, _short(answer.body), seconds, time.time())))
        self.some.set()

    async def run(self) -> None:
        """Send the copies, as many at once as the shadow works on."""
        while True:
            await self.some.wait()
            while self.waiting:
                deployment = self.routes.deployments.get(self.waiting[0][0])
                room = deployment.most * deployment.size if deployment else 1
                if len(self.under_way) >= room:
                    await asyncio.wait(self.under_way, return_when=asyncio.FIRST_COMPLETED)
                    continue
                shadow, copy = self.waiting.popleft()
                self.bytes -= len(copy[1])
                task = asyncio.create_task(self._send(shadow, *copy))
                self.under_way.add(task)
                task.add_done_callback(self.under_way.discard)
            self.some.clear()

    async def _send(self, shadow: str, name: str, request: bytes, live: str, live_status: int, live_answer: bytes | None,
                    seconds: float, at: float) -> None:
        """Ask the shadow, and note both answers; whatever it does, nobody waits for it."""
        began = monotonic()
        status, body = 503, b""
        deployment = self.routes.deployments.get(shadow)
        if deployment is None:
            self._lose()
            return
        try:
            target = await deployment.acquire(began, began + deployment.timeout)
            if target is None:
                self._lose()
                return
            try:
                began = monotonic()
                status, _, body = await target.pool.ask(request, began + deployment.timeout)
            finally:
                deployment.release(target)
        except Refused as refusal:
            status = refusal.status
        except TimeoutError:
            status = 408
        except ConnectionEnded:
            pass
        took = monotonic() - began
        self.sent += 1
        deployment.answers[status, ""] += 1
        deployment.times.append(took)
        record = {"at": at, "request": name, "live": live, "live_status": live_status, "shadow_status": status,
                  "live_ms": round(seconds * 1000, 3), "shadow_ms": round(took * 1000, 3)}
        if len(self.lines.waiting) > LINES:  # a disk that hangs; a pair may be large
            self._lose()
        else:
            self.lines.put(self.write, (shadow, record, live_answer, _short(body)))

    def _lose(self) -> None:
        self.dropped += 1
        self.lost += 1

    def told(self) -> dict[str, int]:
        """Say how many copies were queued, and of how many both answers are written, or never will be."""
        return {"queued": self.queued, "done": self.lost + self.written}

    def write(self, records: list[Any]) -> None:
        """Append pairs of answers to the shadow's file; a full file becomes the old one."""
        files: dict[str, list[bytes]] = {}
        try:
            for shadow, record, live, other in records:
                pair = record | {"live_answer": _read(live), "shadow_answer": _read(other)}
                files.setdefault(shadow, []).append(orjson.dumps(pair, option=orjson.OPT_APPEND_NEWLINE))
            for shadow, lines in files.items():
                append(self.folder / f"{shadow}.jsonl", lines, ROLL)
        finally:  # on a full disk they are lost
            self.written += len(records)


def _short(body: bytes) -> bytes | None:
    return body if len(body) <= ANSWER_BYTES else None


def _read(body: bytes | None) -> Any:
    """Read an answer; one that is no JSON is kept as text."""
    if body is None:
        return None
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return body.decode(errors="replace")
