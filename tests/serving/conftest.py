"""An endpoint as its host sees it: a folder that others write, a socket that listens, and processes that answer."""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
KEYS = {"primary": "first-key", "secondary": "second-key", "signing": "a-key-for-signing-of-32-letters!"}


class Answer(NamedTuple):
    """One answer over HTTP."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Endpoint:
    """One endpoint in a folder, without the library that writes such folders."""

    def __init__(self, folder: Path, deployments: dict[str, dict[str, Any]], **wanted: Any):
        self.folder = folder
        (folder / "logs").mkdir(parents=True)
        self.plain = folder / "plain_worker"
        self.plain.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{Path(__file__).with_name("plain_worker.py")}" "$4"\n')
        self.plain.chmod(0o755)
        self.wanted: dict[str, Any] = {
            "name": "shop", "environment": "dev", "host": "127.0.0.1", "port": 0, "revision": 0, "max_bytes": 100_000,
            "auth_mode": "key", "properties": {}, "tls": None, "mirror_traffic": {}, "history": [], "probe_key": "probing",
            "traffic": {next(iter(deployments)): 100}, **wanted,
            "deployments": {name: self.wish(**wish) for name, wish in deployments.items()}}  # fmt: skip
        self.keys(**KEYS)
        self.connections: list[http.client.HTTPConnection] = []
        self.gates = count()

    def wish(self, **fields: Any) -> dict[str, Any]:
        patient = {"timeout_ms": 60_000, "max_queue_wait_ms": 60_000}  # nobody is refused because the machine is slow
        return {"model": "model:dev.shop/1", "path": "unused", "python": str(self.plain), "max_concurrent": 16} | patient | fields

    def keys(self, **keys: str) -> None:
        self.write("keys.json", keys)

    def write(self, name: str, content: Any) -> None:
        beside = self.folder / f".{name}"
        beside.write_text(json.dumps(content))
        beside.replace(self.folder / name)

    def start(self, *options: str) -> "Endpoint":
        before = self.status()["pid"]  # of a host that was killed
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", self.wanted["port"]))
            listener.listen(1024)
            self.wanted["port"] = listener.getsockname()[1]
            self.write("endpoint.json", self.wanted)
            command = [sys.executable, "-P", "-m", "mlops_nb.serving.host", *options, str(self.folder), str(listener.fileno())]
            with open(self.folder / "logs/host.log", "ab") as log:
                self.process = subprocess.Popen(command, pass_fds=[listener.fileno()], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                                env=os.environ | {"PYTHONPATH": str(ROOT)})
        if not options:
            assert self.process.wait(60) == 0
        self.until(lambda s: s["pid"] not in (0, before) and s["revision"] == self.wanted["revision"], "running")
        return self

    def save(self, wait: bool = True, **changes: Any) -> None:
        """Change what is wanted, and wait until the front follows."""
        self.wanted |= changes | {"revision": self.wanted["revision"] + 1}
        self.write("endpoint.json", self.wanted)
        if wait:
            self.until(lambda s: s["revision"] == self.wanted["revision"], "followed")

    def status(self) -> dict[str, Any]:
        with contextlib.suppress(OSError):
            return json.loads((self.folder / "status.json").read_text())
        return {"pid": 0, "revision": -1, "deployments": {}, "state": "stopped"}

    def until(self, happened: Callable[[dict[str, Any]], Any], what: str = "so", wait: float = 180) -> dict[str, Any]:
        end = time.monotonic() + wait
        while not happened(status := self.status()):
            assert time.monotonic() < end, f"not {what}: {status}\n{self.logs()}"
            time.sleep(0.03)
        return status

    def until_ready(self, *deployments: str) -> "Endpoint":
        names = deployments or tuple(self.wanted["deployments"])
        self.until(lambda s: all(one["state"] == "ready" for name in names for one in s["deployments"][name]["instances"]), "ready")
        return self

    def logs(self) -> str:
        return "\n".join(path.read_text()[-2000:] for path in sorted((self.folder / "logs").glob("*.log")))

    @contextlib.contextmanager
    def holding(self, deployment: str, requests: int = 1, **headers: str) -> Iterator[list[Future[Answer]]]:
        """Let a deployment work on requests until the block ends; they are there when it begins, and answered when it has ended."""
        gate = self.folder / f"gate-{next(self.gates)}"
        pinned = {"azureml_model_deployment": deployment} | headers
        with ThreadPoolExecutor(requests) as pool:
            try:
                self.until_pending(deployment, 0)  # or a status from before would be taken for theirs
                held = [pool.submit(self.ask, {"hold": str(gate)}, **pinned) for _ in range(requests)]
                self.until_pending(deployment, requests)
                yield held
            finally:
                gate.touch()

    def until_pending(self, deployment: str, requests: int) -> dict[str, Any]:
        """Wait until so many requests are under way at a deployment, or wait for it."""
        status = self.until(lambda s: s["deployments"][deployment]["pending"] == requests, f"{requests} pending")
        return status["deployments"][deployment]

    def written(self, folder: str, until: Callable[[list[dict[str, Any]]], Any], what: str = "????-??-??") -> list[dict[str, Any]]:
        """Read the whole lines of a log once they hold what is waited for."""
        end = time.monotonic() + 60
        while True:
            lines = [json.loads(line) for path in sorted((self.folder / folder).glob(f"{what}.jsonl"))
                     for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
            if until(lines):
                return lines
            assert time.monotonic() < end, f"never written: {lines[-5:]}\n{self.logs()}"
            time.sleep(0.05)

    def logged(self, request: str) -> dict[str, Any]:
        """Read a request's line of the traffic log."""
        lines = self.written("logs/traffic", lambda lines: any(line["XRequestId"] == request for line in lines))
        return next(line for line in lines if line["XRequestId"] == request)

    def connect(self, timeout: float = 60) -> http.client.HTTPConnection:
        self.connections.append(http.client.HTTPConnection("127.0.0.1", self.wanted["port"], timeout=timeout))
        return self.connections[-1]

    def ask(self, body: Any = b"", path: str = "/score", method: str = "POST", key: str = KEYS["primary"],
            connection: http.client.HTTPConnection | None = None, **headers: str) -> Answer:
        """Send one request; names of headers are written with _ for -."""
        made = connection or http.client.HTTPConnection("127.0.0.1", self.wanted["port"], timeout=60)
        sent = {"Authorization": f"Bearer {key}"} if key else {}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        made.request(method, path, content, {"Content-Type": "application/json"} | sent)
        answer = made.getresponse()
        found = Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        if connection is None:
            made.close()
        return found

    def raw(self, content: bytes, enough: bytes = b"\0") -> bytes:
        """Send bytes as they are; returns all that comes back until the connection is closed, or enough has come."""
        with socket.create_connection(("127.0.0.1", self.wanted["port"]), timeout=60) as connection:
            found = b""
            with contextlib.suppress(ConnectionError):  # it may be closed before it is read to the end
                connection.sendall(content)
            with contextlib.suppress(TimeoutError, ConnectionError):
                while enough not in found and (part := connection.recv(65536)):
                    found += part
        return found

    def host(self) -> psutil.Process:
        return psutil.Process(self.status()["pid"])

    def stop(self) -> None:
        """End the host, and see that nobody is left."""
        for connection in self.connections:
            connection.close()
        if not (pid := self.status().get("pid")) or not psutil.pid_exists(pid):
            return
        host = psutil.Process(pid)
        everybody = [host, *host.children(recursive=True)]
        host.terminate()
        _, left = psutil.wait_procs(everybody, timeout=60)
        for process in left:
            process.kill()
        assert not left, f"left behind: {left}\n{self.logs()}"


Lay = Callable[..., Endpoint]


@contextlib.contextmanager
def laying(folder: Path) -> Iterator[Lay]:
    """Lay endpoints: `lay({"blue": {"instances": 2}}, traffic={"blue": 100})`; they end with the block."""
    made: list[Endpoint] = []

    def lay(deployments: dict[str, dict[str, Any]], **wanted: Any) -> Endpoint:
        made.append(Endpoint(folder / str(len(made)), deployments, **wanted))
        return made[-1]

    try:
        yield lay
    finally:
        for endpoint in made:
            endpoint.stop()


@pytest.fixture
def lay(tmp_path: Path) -> Iterator[Lay]:
    with laying(tmp_path) as lay:
        yield lay


@pytest.fixture(scope="module")
def lay_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lay]:
    """The same, for an endpoint that a whole module shares."""
    with laying(tmp_path_factory.mktemp("endpoints")) as lay:
        yield lay
