"""Keep one process of a deployment alive: start it, see it get ready, probe it, start it again when it ends, end it in peace."""

import asyncio
import contextlib
import json
import logging
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlops_nb
from mlops_nb.scoring.config import Config, Wish

log = logging.getLogger("host")
POLL = 0.05  # seconds between looks at the process
RESTARTS = (0.2, 1, 2, 5, 10, 30)  # seconds before the first, second, ... restart of a process that keeps ending; at most
# the second of them for one that had got ready
STABLE = 30.0  # seconds of service after which earlier crashes are forgotten
GRACE = 10.0  # seconds from SIGTERM to SIGKILL
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")  # p99 6 ms, not 381
Process = subprocess.Popen[bytes]
LIBRARY = Path(mlops_nb.__file__).parent


def environment_of(wish: Wish) -> dict[str, str]:
    """Make the environment variables of a deployment's processes: another interpreter finds this library, too."""
    places = [str(_lent()) if wish.python else str(LIBRARY.parent), "" if wish.python else os.environ.get("PYTHONPATH", "")]
    own = {"MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONPATH": os.pathsep.join(filter(None, places))}
    return os.environ | ONE_THREAD | own | (wish.variables or {})


def _lent() -> Path:
    """Make a folder that holds this library and no other: an installed one lies among packages that are not to be lent."""
    link = Path("run/library", LIBRARY.name).absolute()
    link.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        link.symlink_to(LIBRARY)
    return link.parent


def spawn(command: list[str], output: str, **options: Any) -> Process:
    """Start a process that writes to a log; without one where the disk is full."""
    try:
        file = open(output, "ab")  # noqa: SIM115 closed below
    except OSError:
        file = open(os.devnull, "ab")  # noqa: SIM115
    with file:
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, **options)  # noqa: S603 our own modules


async def ask(path: str, target: str, timeout: float) -> int:  # seconds
    """Send one GET to a process over its socket; returns the status, 0 when there is no answer in time."""
    with contextlib.suppress(OSError, TimeoutError, ValueError, IndexError, asyncio.LimitOverrunError):
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                writer.write(f"GET {target} HTTP/1.1\r\nhost: deployment\r\nconnection: close\r\n\r\n".encode())
                return int((await reader.readline()).split()[1])
            finally:
                writer.close()
    return 0


class Instance:
    """One instance of a deployment, from its first start until `leave`; every start is a process with a name of its own."""

    def __init__(self, endpoint: dict[str, Any], deployment: str, number: int, wish: Wish, changed: Callable[[], None]):
        self.endpoint, self.deployment, self.number, self.wish = endpoint, deployment, number, wish
        self.changed = changed  # is told when the state is another
        self.state = "starting"  # starting, ready, failed, stopped
        self.error = self.name = ""
        self.restarts = 0
        self.leaving = False
        self.process: Process | None = None
        self.task = asyncio.create_task(self._keep(), name=f"{deployment}-{number}")

    @property
    def socket(self) -> str:
        """Say where the present process listens."""
        return f"run/{self.name}.sock"

    @property
    def pid(self) -> int:
        """Say which process it is; 0: none."""
        return self.process.pid if self.process and self.process.returncode is None else 0

    def _become(self, state: str, error: str = "") -> None:
        self.state, self.error = state, error
        self.changed()

    async def _keep(self) -> None:
        """Run the process again and again, with growing pauses, until it is to leave."""
        crashes = 0
        while True:
            since = time.monotonic()
            try:
                await self._live()
            except OSError as problem:  # no memory for a process, no such interpreter
                self._become("failed", f"cannot be started: {problem}")
            if self.leaving:
                return
            crashes = 0 if time.monotonic() - since > STABLE else crashes
            served = self.state == "starting"  # it was ready before it ended: requests wait for it
            pause = RESTARTS[min(crashes, 1 if served else len(RESTARTS) - 1)]
            crashes += 1
            self.restarts += 1
            log.error("%s %s Next try in %s s.", self.name, self.error, pause)
            await asyncio.sleep(pause)

    async def _live(self) -> None:
        """See one process from its start to its end; one that fails stays failed until a start succeeds."""
        since = time.monotonic()
        process = self._start()
        try:
            if not await self._until_ready(process):
                self._become("failed", self._explain(process, "before it was ready"))
                return
            log.info("%s is ready after %.1f s.", self.name, time.monotonic() - since)
            self._become("ready")
            probing = asyncio.create_task(self._probe(process))
            while process.poll() is None:
                await asyncio.sleep(POLL)
            probing.cancel()
            if not self.leaving:
                self._become("starting", self._explain(process, "while it served"))
        finally:
            _end(process)
            Path(self.socket).unlink(missing_ok=True)

    def _start(self) -> Process:
        self.name = f"{self.deployment}-{self.number}-{uuid.uuid4().hex[:4]}"
        config = Config(self.endpoint["name"], self.deployment, self.endpoint["environment"], self.name, self.socket, self.wish,
                        self.endpoint["max_bytes"])
        command = [self.wish.python or sys.executable, "-P", "-m", "mlops_nb.scoring.app", json.dumps(asdict(config))]
        output = f"logs/{self.deployment}.log"
        self._log_start = os.path.getsize(output) if os.path.exists(output) else 0
        self.process = spawn(command, output, stdin=subprocess.PIPE, env=environment_of(self.wish))
        return self.process

    async def _until_ready(self, process: Process) -> bool:
        while process.poll() is None:
            if os.path.exists(self.socket) and await ask(self.socket, "/ready", 5) == 200:
                return True
            await asyncio.sleep(POLL)
        return False

    async def _probe(self, process: Process) -> None:
        """Kill a process that does not answer its liveness probe so many times in a row; it is then started anew."""
        if not (probe := self.wish.probe):
            return
        await asyncio.sleep(probe.get("initial_delay", 10))
        failures = 0
        while True:
            well = await ask(self.socket, "/health", probe.get("timeout", 2)) == 200
            failures = 0 if well else failures + 1
            if failures >= probe.get("failure_threshold", 30):
                log.error("%s failed %s probes in a row and is killed.", self.name, failures)
                process.kill()
                return
            await asyncio.sleep(probe.get("period", 10))

    def _explain(self, process: Process, when: str, lines: int = 8) -> str:
        """Say why the process ended: its exit status and the last lines of its log."""
        last: list[str] = []
        with contextlib.suppress(OSError), open(f"logs/{self.deployment}.log", "rb") as file:
            file.seek(max(self._log_start, os.fstat(file.fileno()).st_size - 8192))
            last = file.read().decode(errors="replace").splitlines()[-lines:]
        return "\n".join([f"ended with {process.returncode} {when}.", *last])

    async def leave(self) -> None:
        """End the process: what it still works on is answered first."""
        self.leaving = True
        if self.process and self.process.poll() is None:
            self.process.terminate()
            until = time.monotonic() + GRACE
            while self.process.poll() is None and time.monotonic() < until:
                await asyncio.sleep(0.02)
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.state = "stopped"


def _end(process: Process) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()
    if process.stdin:
        process.stdin.close()
