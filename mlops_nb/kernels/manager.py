"""Jupyter's kernel manager over the fork server, with UNIX sockets instead of ports."""

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner

PRELOAD = ",".join(
    (
        "numpy,pandas,pyarrow,sklearn.ensemble,sklearn.linear_model,sklearn.pipeline,matplotlib.pyplot,plotnine,optuna",
        "mlflow,mlflow.sklearn,mlflow.store.tracking.sqlalchemy_store,mlflow.store.model_registry.sqlalchemy_store",
        "pandera.pandas,skops.io,fairlearn.metrics,casbin",
    )
)


class ForkServer:
    """One fork server of this process, started when the first kernel is asked for."""

    _running: "ForkServer | None" = None
    _lock = threading.Lock()

    @classmethod
    def get(cls) -> "ForkServer":
        """Return the running server, starting it first if there is none."""
        with cls._lock:
            if cls._running is None or cls._running.process.poll() is not None:
                cls._running = cls()
            return cls._running

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="mlops-nb-")
        self.path = f"{self.folder.name}/kernels"
        self.log = Path(self.folder.name, "log")
        command = [sys.executable, str(Path(__file__).with_name("server.py")), self.path, PRELOAD]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(  # noqa: S603
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        atexit.register(self.close)

    def connect(self, seconds: float = 90) -> socket.socket:
        """Open a connection for one kernel, waiting while the server still imports."""
        end = time.monotonic() + seconds
        while True:
            client = socket.socket(socket.AF_UNIX)
            try:
                client.connect(self.path)
                return client
            except (FileNotFoundError, ConnectionRefusedError):
                client.close()
            if time.monotonic() > end or self.process.poll() is not None:
                raise RuntimeError(f"The kernel server did not start: {self.log.read_text()[-2000:]}")
            time.sleep(0.02)

    def close(self) -> None:
        """End the server, and with it every kernel it forked."""
        self.process.terminate()
        self.process.wait()
        self.folder.cleanup()


def warm_up() -> None:
    """Start the fork server now, so that its imports run beside what the caller does before its first notebook."""
    if sys.platform == "linux":
        ForkServer.get()


class ForkedKernel:
    """What the provisioner needs of a `Popen`, for a process that another process forked."""

    stdin = stdout = stderr = None

    def __init__(self, client: socket.socket, pid: int):
        self.client, self.pid, self.answer = client, pid, b""
        self.returncode: int | None = None
        client.setblocking(False)

    def poll(self) -> int | None:
        """Return the exit code, or None while the kernel runs."""
        if self.returncode is None:
            try:
                part = self.client.recv(4096)
            except BlockingIOError:
                return None
            except OSError:
                part = b""
            self.answer += part
            if not part or b"\n" in self.answer:
                self.returncode = json.loads(self.answer)["exit"] if self.answer.strip() else -signal.SIGKILL
                self.client.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait until the kernel ends, at most `timeout` seconds (30 if none)."""
        end = time.monotonic() + (timeout or 30)
        while self.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to the kernel, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask the kernel to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the kernel."""
        self.send_signal(signal.SIGKILL)


class ForkProvisioner(LocalProvisioner):
    """Launches a kernel by asking the fork server for it."""

    async def launch_kernel(self, cmd: list[str], **options: Any) -> Any:
        """Fork the kernel and keep the connection that keeps it alive."""
        request = {
            "argv": cmd,
            "cwd": str(options.get("cwd") or os.getcwd()),
            "env": dict(options.get("env") or os.environ),
            "log": options.get("log") or os.devnull,
        }
        client = ForkServer.get().connect()
        client.sendall(json.dumps(request).encode() + b"\n")
        pid = json.loads(client.makefile("rb").readline())["pid"]
        self.process: Any = ForkedKernel(client, pid)
        self.pid = self.pgid = pid
        return self.connection_info


class ForkKernelManager(AsyncKernelManager):
    """A kernel manager whose Python kernels come from the fork server, whatever their kernelspec says."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        place = f"{ForkServer.get().folder.name}/{os.urandom(4).hex()}"  # short, and gone with the server
        self.transport, self.ip, self.connection_file = "ipc", place, f"{place}.json"

    async def _async_pre_start_kernel(self, **options: Any) -> Any:
        if self.kernel_spec and self.kernel_spec.language == "python":
            self.kernel_id = options.setdefault("kernel_id", self.kernel_id or os.urandom(8).hex())
            self.provisioner = ForkProvisioner(parent=self, kernel_id=self.kernel_id, kernel_spec=self.kernel_spec)
        return await super()._async_pre_start_kernel(**options)
