"""Stand before the deployments of one endpoint: start and restart them, split the traffic, count what they answer.

Its folder is all it knows. `endpoint.json` is what is wanted, written by others; `status.json` is what is, written here.
A deployment that leaves is drained first, and a request whose deployment dies under it is sent once more, so neither
a shift of traffic nor a restart loses a request.
"""

import asyncio
import contextlib
import json
import logging
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil
from aiohttp import web

from mlops_nb.core.files import write_file
from mlops_nb.serving.app import Config

log = logging.getLogger("front")
POLL = 0.1  # seconds between looks at the wish, the processes and the counters
RESTARTS = (0.2, 1, 2, 5, 10, 30)  # seconds before the first, second, ... restart of a deployment that keeps ending
STABLE = 30.0  # seconds of service after which earlier crashes are forgotten
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")  # p99 6 ms, not 381
PASSED_ON = ("content-type", "x-request-id", "x-ms-request-id", "azureml-model-deployment",
             "ms-azureml-model-error-statuscode", "ms-azureml-model-error-reason")
Process = subprocess.Popen[bytes]


@dataclass(frozen=True)
class Wish:
    """One deployment as `endpoint.json` wants it."""

    model: str  # address of the model version
    path: str  # folder of the MLflow model
    timeout_ms: int = 5000
    max_concurrent: int = 1  # as many again may wait; one more is told 429
    rates: dict[str, float] | None = None  # collection -> share of requests kept
    collected: str = ""  # folder
    variables: dict[str, str] | None = None  # of the deployment's process


class Refused(Exception):
    """A request that the front answers by itself."""

    def __init__(self, status: int, code: str, message: str):
        self.status, self.code = status, code
        super().__init__(message)


class Worker:
    """One deployment's process, kept alive from `start` to `stop`."""

    def __init__(self, endpoint: str, environment: str, name: str, wish: Wish, max_bytes: int):
        self.endpoint, self.environment, self.name, self.wish, self.max_bytes = (
            endpoint, environment, name, wish, max_bytes)
        self.state = "starting"  # starting, ready, failed, stopped
        self.error = ""
        self.leaving = False  # it was told to end
        self.restarts = self.pending = self.share = 0
        self.answers: Counter[int] = Counter()  # HTTP status -> requests
        self.times: deque[float] = deque(maxlen=1000)  # seconds, of the newest requests
        self.process: Process | None = None
        self.session: aiohttp.ClientSession | None = None
        self.task = asyncio.create_task(self._keep(), name=name)

    async def _keep(self) -> None:
        """Run the process again and again, with growing pauses, until the task is cancelled."""
        crashes = 0
        while True:
            since = time.monotonic()
            try:
                with self._start() as started:
                    await self._live(*started)
            except OSError as problem:  # no file for the log, no memory for a process
                self.state, self.error = "failed", f"cannot be started: {problem}"
            if self.leaving:
                return
            pause = RESTARTS[min(crashes, len(RESTARTS) - 1)]
            crashes = 0 if time.monotonic() - since > STABLE else crashes + 1
            self.restarts += 1
            log.error("%s %s Next try in %s s.", self.name, self.error, pause)
            await asyncio.sleep(pause)

    async def _live(self, process: Process, session: aiohttp.ClientSession, path: str) -> None:
        """See one process from its start to its end; a failed deployment stays failed until a start succeeds."""
        since = time.monotonic()
        if not await self._until_ready(process, session, path):
            self.state = "failed"
            self._explain(process, "before it was ready")
            return
        self.state, self.error = "ready", ""
        log.info("%s is ready after %.1f s.", self.name, time.monotonic() - since)
        while process.poll() is None:
            await asyncio.sleep(POLL / 2)
        if self.leaving:
            return
        self.state = "starting"
        self._explain(process, "while it served")

    @contextlib.contextmanager
    def _start(self) -> Iterator[tuple[Process, aiohttp.ClientSession, str]]:
        """Run one process, with its log and its socket; on leaving, it is gone."""
        path = f"run/{self.name}-{uuid.uuid4().hex[:6]}.sock"
        config = Config(self.endpoint, self.name, self.environment, self.wish.model, self.wish.path, path,
                        self.max_bytes, self.wish.collected, self.wish.rates)
        with open(f"logs/{self.name}.log", "ab") as output:
            self._log_start = output.tell()
            self.process = subprocess.Popen(  # noqa: S603 our own module
                [sys.executable, "-P", "-m", "mlops_nb.serving.app", json.dumps(asdict(config))],
                stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT,
                env=os.environ | ONE_THREAD | {"MLFLOW_DISABLE_TELEMETRY": "true"} | (self.wish.variables or {}))
        connector = aiohttp.UnixConnector(path, limit=0, keepalive_timeout=600)
        self.session = aiohttp.ClientSession("http://deployment", connector=connector, auto_decompress=False)
        try:
            yield self.process, self.session, path
        finally:
            _end(self.process)
            Path(path).unlink(missing_ok=True)
            self._closing = asyncio.create_task(self.session.close())

    async def _until_ready(self, process: Process, session: aiohttp.ClientSession, path: str) -> bool:
        while process.poll() is None:
            if Path(path).exists():
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get("/ready") as answer:
                        if answer.status == 200:
                            return True
            await asyncio.sleep(POLL / 2)
        return False

    def _explain(self, process: Process, when: str, lines: int = 8) -> None:
        """Keep why the process ended: its exit status and the last lines of its log."""
        with open(f"logs/{self.name}.log", "rb") as file:
            file.seek(max(self._log_start, os.fstat(file.fileno()).st_size - 8192))
            last = file.read().decode(errors="replace").splitlines()[-lines:]
        self.error = "\n".join([f"ended with {process.returncode} {when}.", *last])

    async def forward(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes, dict[str, str]]:
        """Let the deployment answer; raises `aiohttp.ClientError` when it ends meanwhile, `TimeoutError` when it is late."""
        if self.session is None:
            raise aiohttp.ClientConnectionError(f"{self.name} has no process")
        async with self.session.post(path, data=body, headers=headers) as answer:
            content = await answer.read()
            return answer.status, content, {name: answer.headers[name] for name in PASSED_ON if name in answer.headers}

    async def stop(self) -> None:
        """Wait for the requests under way, then end the process."""
        until = time.monotonic() + self.wish.timeout_ms / 1000
        while self.pending and time.monotonic() < until:
            await asyncio.sleep(0.01)
        self.leaving = True
        if self.process and self.process.poll() is None:
            self.process.terminate()
            ending = time.monotonic() + 10
            while self.process.poll() is None and time.monotonic() < ending:
                await asyncio.sleep(0.02)
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.state = "stopped"

    def status(self) -> dict[str, Any]:
        """Say how the deployment is, as `status.json` holds it."""
        times = sorted(self.times)
        p50, p95 = (round(times[int(len(times) * q)] * 1000, 2) if times else None for q in (0.5, 0.95))
        return {"state": self.state, "pid": self.process.pid if self.process else 0, "error": self.error,
                "model": self.wish.model, "traffic": self.share, "restarts": self.restarts, "pending": self.pending,
                "requests": {str(k): v for k, v in sorted(self.answers.items())}, "p50_ms": p50, "p95_ms": p95}


def _end(process: Process) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()
    if process.stdin:
        process.stdin.close()


class Front:
    """One endpoint: its deployments by name, and the share of the traffic that each has."""

    def __init__(self, wanted: dict[str, Any]):
        self.wanted = wanted
        self.workers: dict[str, Worker] = {}
        self.leaving: set[asyncio.Task[None]] = set()
        self.refused: Counter[int] = Counter()
        self.credit: dict[str, float] = {}  # of the smooth weighted round robin
        self.arrange(wanted)

    def arrange(self, wanted: dict[str, Any]) -> None:
        """Bring workers and traffic to what is wanted; nothing in here waits, so no request sees half of it."""
        self.wanted = wanted
        wishes = {name: Wish(**fields) for name, fields in wanted["deployments"].items()}
        for name in [n for n, worker in self.workers.items() if wishes.get(n) != worker.wish]:
            leaving = asyncio.create_task(self.workers.pop(name).stop())
            self.leaving.add(leaving)
            leaving.add_done_callback(self.leaving.discard)
        for name, wish in wishes.items():
            if name not in self.workers:
                self.workers[name] = Worker(wanted["name"], wanted["environment"], name, wish, wanted["max_bytes"])
        for name, worker in self.workers.items():
            worker.share = wanted["traffic"].get(name, 0)
        self.credit = dict.fromkeys(self.workers, 0.0)

    def pick(self, pinned: str, avoid: str = "") -> Worker | None:
        """Choose the deployment for a request, in exact shares; None while none of them is ready."""
        if pinned:
            if pinned not in self.workers:
                raise Refused(404, "NoDeployment", f"No deployment '{pinned}' (there are: {self._names()}). "
                              "Leave the header azureml-model-deployment out, or name one of them.")
            return self.workers[pinned] if self.workers[pinned].state == "ready" else None
        sharing = [worker for worker in self.workers.values() if worker.share]
        if not sharing:
            raise Refused(404, "NoTraffic", f"No deployment of '{self.wanted['name']}' has traffic (there are: "
                          f"{self._names()}). Shift traffic to one, or name one in azureml-model-deployment.")
        ready = [worker for worker in sharing if worker.state == "ready"]
        ready = [worker for worker in ready if worker.name != avoid] or ready
        if not ready:
            return None
        for worker in ready:
            self.credit[worker.name] += worker.share
        best = max(ready, key=lambda worker: self.credit[worker.name])
        self.credit[best.name] -= sum(worker.share for worker in ready)
        return best

    def _names(self) -> str:
        return ", ".join(self.workers) or "none"

    async def answer(self, request: web.Request) -> web.Response:
        """Answer one scoring request."""
        given = request.headers.get("x-request-id", "")
        name = given if re.fullmatch(r"[\x21-\x7e]{1,200}", given) else str(uuid.uuid4())
        try:
            try:
                body = await request.read()
            except web.HTTPRequestEntityTooLarge:
                raise Refused(413, "TooLarge", f"The body is over {self.wanted['max_bytes']} bytes. "
                              "Send fewer rows at a time.") from None
            headers = {"content-type": request.headers.get("content-type", "application/json"), "x-request-id": name}
            if secrets.compare_digest(request.headers.get("x-mlops-nb-probe", ""), self.wanted["probe_key"]):
                headers["x-mlops-nb-probe"] = "1"  # a roll-out's own, not to be collected; a client's is not passed on
            pinned = request.headers.get("azureml-model-deployment", "")
            status, content, sent = await self._forward(request.path, body, headers, pinned)
        except Refused as refusal:
            self.refused[refusal.status] += 1
            error = {"error": {"code": refusal.code, "message": str(refusal)}}
            return web.json_response(error, status=refusal.status, headers={"x-request-id": name, "x-ms-request-id": name})
        return web.Response(status=status, body=content, headers=sent)

    async def _forward(self, path: str, body: bytes, headers: dict[str, str], pinned: str
                       ) -> tuple[int, bytes, dict[str, str]]:
        began, avoid = time.monotonic(), ""
        for last in (False, True):
            worker = await self._ready_one(pinned, avoid, began)
            if worker.pending >= 2 * worker.wish.max_concurrent:
                raise Refused(429, "TooManyRequests", f"{worker.name} has {worker.pending} requests pending, its most. "
                              "Send it again later, or raise max_concurrent_requests_per_instance.")
            worker.pending += 1
            try:
                async with asyncio.timeout(began + worker.wish.timeout_ms / 1000 - time.monotonic()):
                    answer = await worker.forward(path, body, headers)
                worker.answers[answer[0]] += 1
                worker.times.append(time.monotonic() - began)
                return answer
            except TimeoutError:
                worker.answers[408] += 1
                raise Refused(408, "TimedOut", f"{worker.name} took over {worker.wish.timeout_ms} ms. Send fewer rows, "
                              "or raise request_timeout_ms.") from None
            except (aiohttp.ClientError, OSError) as problem:  # it ended with our request under way
                avoid = worker.name
                if last:
                    worker.answers[503] += 1
                    raise Refused(503, "DeploymentEnded", f"{worker.name} ended while it answered, twice: {problem!r}. "
                                  f"Read logs/{worker.name}.log of the endpoint.") from None
                await asyncio.sleep(POLL)  # the end of its process is seen meanwhile
            finally:
                worker.pending -= 1
        raise AssertionError("two tries, each returns or raises")

    async def _ready_one(self, pinned: str, avoid: str, began: float) -> Worker:
        """Pick a deployment; while it is being (re)started, hold the request as long as it may take at all."""
        while (worker := self.pick(pinned, avoid)) is None:
            waited_for = [w for w in self.workers.values() if (w.name == pinned if pinned else w.share)]
            late = time.monotonic() - began > max(w.wish.timeout_ms for w in waited_for) / 1000
            if late or all(w.state == "failed" for w in waited_for):
                states = ", ".join(f"{w.name}: {w.state}" for w in waited_for)
                raise Refused(503, "NotReady", f"No deployment is ready ({states}). Send it again later.")
            await asyncio.sleep(POLL / 2)
        return worker

    async def health(self, request: web.Request) -> web.Response:
        """Say that the front is there."""
        return web.json_response({"status": "healthy"})

    async def ready(self, request: web.Request) -> web.Response:
        """Say whether a scoring request would find a deployment."""
        ready = any(worker.share and worker.state == "ready" for worker in self.workers.values())
        return web.json_response({"status": "ready" if ready else "not ready"}, status=200 if ready else 503)

    async def version(self, request: web.Request) -> web.Response:
        """Say what is deployed here."""
        about = {name: {"model": w.wish.model, "traffic": w.share, "state": w.state} for name, w in self.workers.items()}
        return web.json_response({"endpoint": self.wanted["name"], "environment": self.wanted["environment"],
                                  "deployments": about})

    async def metrics(self, request: web.Request) -> web.Response:
        """Write the counters as Prometheus reads them."""
        lines = ["# TYPE mlops_nb_requests_total counter"]
        for worker in self.workers.values():
            lines += [f'mlops_nb_requests_total{{deployment="{worker.name}",status="{status}"}} {count}'
                      for status, count in sorted(worker.answers.items())]
        lines += [f'mlops_nb_requests_total{{deployment="",status="{status}"}} {count}'
                  for status, count in sorted(self.refused.items())]
        lines.append("# TYPE mlops_nb_latency_ms gauge")
        for worker in self.workers.values():
            status = worker.status()
            lines += [f'mlops_nb_latency_ms{{deployment="{worker.name}",quantile="{q}"}} {status[key]}'
                      for q, key in ((0.5, "p50_ms"), (0.95, "p95_ms")) if status[key] is not None]
        return web.Response(text="\n".join(lines) + "\n", content_type="text/plain")

    def status(self) -> dict[str, Any]:
        """Say how the endpoint is, as `status.json` holds it."""
        return {"name": self.wanted["name"], "revision": self.wanted["revision"], "pid": os.getpid(),
                "port": self.wanted["port"], "leaving": len(self.leaving),
                "refused": {str(k): v for k, v in sorted(self.refused.items())},
                "deployments": {name: worker.status() for name, worker in self.workers.items()}}


async def _follow(front: Front, ended: asyncio.Event) -> None:
    """Follow `endpoint.json`, and write `status.json` whenever something changed."""
    started = psutil.Process().create_time()
    seen = written = None
    while not ended.is_set() and _has_owner(front.wanted):
        try:
            found = os.stat("endpoint.json")
            if seen != (stamp := (found.st_ino, found.st_mtime_ns)):
                seen = stamp
                front.arrange(json.loads(Path("endpoint.json").read_text()))
        except FileNotFoundError:  # the endpoint was removed: there is nothing left to serve
            return
        except (ValueError, TypeError, KeyError) as problem:
            log.error("endpoint.json is not understood (%r); serving goes on as before.", problem)
        if (status := front.status()) != written:
            content = json.dumps(status | {"state": "running", "started": started, "at": time.time()}, indent=1)
            with contextlib.suppress(OSError):  # a full disk must not end the service
                await asyncio.to_thread(write_file, "status.json", content)
            written = status
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), POLL)


def _has_owner(wanted: dict[str, Any]) -> bool:
    """Say whether the process that a temporary endpoint belongs to is still there."""
    if not wanted.get("owner"):
        return True
    pid, started = wanted["owner"]
    try:
        return abs(psutil.Process(pid).create_time() - started) < 1
    except psutil.Error:
        return False


async def serve(listener: socket.socket) -> None:
    """Serve the endpoint whose folder this is, on a socket that listens already, until SIGTERM."""
    ended = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, ended.set)
    wanted = json.loads(Path("endpoint.json").read_text())
    front = Front(wanted)
    application = web.Application(client_max_size=wanted["max_bytes"])
    application.add_routes([
        web.post("/score", front.answer), web.post("/invocations", front.answer), web.get("/health", front.health),
        web.get("/ready", front.ready), web.get("/version", front.version), web.get("/metrics", front.metrics)])
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=10, keepalive_timeout=75)
    await runner.setup()
    await web.SockSite(runner, listener, backlog=1024).start()
    log.info("%s listens on port %s", wanted["name"], wanted["port"])
    await _follow(front, ended)
    await runner.cleanup()  # answers what is under way, then closes
    await asyncio.gather(*(worker.stop() for worker in front.workers.values()), *front.leaving)
    status = front.status() | {"state": "stopped", "pid": 0, "at": time.time()}
    with contextlib.suppress(FileNotFoundError):  # the folder was removed
        write_file("status.json", json.dumps(status, indent=1))


def main() -> None:
    """Become a daemon in the endpoint's folder and serve; `front.py <folder> <number of the listening socket>`."""
    if os.fork():  # the starter need not wait for us, nor take us along when it ends
        os._exit(0)
    os.setsid()
    os.chdir(sys.argv[1])
    Path("logs").mkdir(exist_ok=True)
    Path("run").mkdir(mode=0o700, exist_ok=True)  # nobody else may talk to the deployments
    for leftover in Path("run").glob("*.sock"):
        leftover.unlink()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        import uvloop

        factory = uvloop.new_event_loop
    except ImportError:  # Windows
        factory = None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(socket.socket(fileno=int(sys.argv[2]))))


if __name__ == "__main__":
    main()
