"""Jupyter's kernel managers for our runs: forked kernels where that is possible, and UNIX sockets instead of ports."""

import asyncio
import atexit
import datetime as dt
import functools
import hmac
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager, NoSuchKernel
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner
from jupyter_client.session import Session

from mlops_nb.core.records import SpecificationError

# What is loaded before the fork when a notebook imports the library: heavy ones that are known to live through a fork.
PRELOAD = {
    "casbin": ["casbin"],
    "duckdb": ["duckdb"],
    "fairlearn": ["fairlearn.metrics"],
    "matplotlib": ["matplotlib.pyplot"],
    "mlflow": ["mlflow", "mlflow.sklearn", "mlflow.store.tracking.sqlalchemy_store", "mlflow.store.model_registry.sqlalchemy_store"],
    "numpy": ["numpy"],
    "optuna": ["optuna"],
    "pandas": ["pandas", "pyarrow"],
    "pandera": ["pandera.pandas"],
    "plotnine": ["plotnine"],
    "polars": ["polars"],
    "pyarrow": ["pyarrow"],
    "scipy": ["scipy.stats"],
    "skops": ["skops.io"],
    "sklearn": ["sklearn.ensemble", "sklearn.linear_model", "sklearn.pipeline"],
    "statsmodels": ["statsmodels.api"],
    "torch": ["torch"],
}
OURS = ["numpy", "pandas", "sklearn", "matplotlib", "plotnine", "optuna", "mlflow", "pandera", "skops", "fairlearn", "casbin"]
# Variables that a library, or the interpreter, reads while it is loaded: with other values a fork would be something else.
READ_AT_IMPORT = re.compile(
    r"\w+_NUM_THREADS|(?:MKL|KMP|OMP|MPL|POLARS|ARROW|CUDA)_?\w+|PYTHON(?!PATH|UNBUFFERED|DONTWRITEBYTECODE)\w+"
)
logger = logging.getLogger("papermill")


@functools.cache
def _folder(pid: int) -> str:
    """Make the folder of a process's sockets: ours alone, and with a short name, for a socket's may have 107 letters."""
    folder = tempfile.mkdtemp(prefix="mlops-nb-")
    atexit.register(_remove, folder, pid)
    return folder


def _remove(folder: str, pid: int) -> None:
    if pid == os.getpid():  # not in a fork of us
        shutil.rmtree(folder, ignore_errors=True)


class ForkServer:
    """One fork server of this process, started when the first kernel is asked for."""

    _running: "ForkServer | None" = None
    _lock = threading.Lock()

    @classmethod
    def get(cls, preload: list[str] | None = None) -> "ForkServer":
        """Return the running server, starting it first if there is none."""
        with cls._lock:
            if cls._running is None or cls._running.owner != os.getpid() or cls._running.process.poll() is not None:
                cls._running = cls(preload or [])
            return cls._running

    def __init__(self, preload: list[str]) -> None:
        self.owner, name = os.getpid(), os.urandom(4).hex()
        self.path, self.log = f"{_folder(os.getpid())}/{name}", Path(_folder(os.getpid()), f"{name}.log")
        command = [sys.executable, str(Path(__file__).with_name("server.py")), self.path, ",".join(preload)]
        self.environment = {"MLFLOW_DISABLE_TELEMETRY": "true", **os.environ}  # telemetry is a thread: it would not live on
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(  # noqa: S603
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True, env=self.environment
            )
        atexit.register(self.close)

    async def fork(self, request: dict[str, Any], seconds: float = 90) -> "ForkedKernel":
        """Ask for a kernel, waiting while the server still imports; raises `RuntimeError` if it cannot be had."""
        loop, client = asyncio.get_running_loop(), socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        try:
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        await loop.sock_connect(client, self.path)
                        break
                    except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
                        if self.process.poll() is not None:
                            raise RuntimeError(f"the kernel server ended: {self._last_words()}") from None
                        await asyncio.sleep(0.01)
                await loop.sock_sendall(client, json.dumps(request).encode() + b"\n")
                answer = b""
                while not answer.endswith(b"\n"):
                    part = await loop.sock_recv(client, 4096)
                    if not part:
                        raise RuntimeError(f"the kernel server ended: {self._last_words()}")
                    answer += part
            if "pid" not in (told := json.loads(answer)):
                raise RuntimeError(told["error"])
            return ForkedKernel(client, told["pid"])
        except BaseException:
            client.close()
            raise

    def _last_words(self) -> str:
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""

    def close(self) -> None:
        """End the server, and with it every kernel it forked."""
        if self.owner != os.getpid():  # we are a fork of its owner
            return
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:  # in the middle of a long import
            self.process.kill()
            self.process.wait()


def warm_up(code: str | None = None) -> None:  # of the first notebook; None: it is one of many that use our library
    """Start the fork server now, so that its imports run beside what the caller does before its first notebook."""
    if sys.platform == "linux":
        ForkServer.get([module for name in OURS for module in PRELOAD[name]] if code is None else _preload(code))


class ForkedKernel:
    """What the provisioner needs of a `Popen`, for a process that another process forked."""

    stdin = stdout = stderr = None

    def __init__(self, client: socket.socket, pid: int):
        self.client, self.pid, self.answer = client, pid, b""
        self.returncode: int | None = None

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
        """Return the exit code; to be called when `poll` has one."""
        return self.poll()

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
    """Launches a kernel by asking the fork server for it; a plain kernel if the server has none."""

    preload: list[str]  # libraries that the notebook imports
    parent: "ForkKernelManager"

    async def launch_kernel(self, cmd: list[str], **options: Any) -> Any:
        """Fork the kernel and keep the connection that keeps it alive."""
        environment = options["env"]
        request = {
            "argv": cmd[cmd.index("-f") :],
            "cwd": str(options.get("cwd") or os.getcwd()),
            "env": environment,
            "log": self.parent.raw_output,
            "preload": self.preload,
            "known": [module for modules in PRELOAD.values() for module in modules],
        }
        try:
            server = ForkServer.get(self.preload)
            if differing := _read_at_import(server.environment, environment):
                raise RuntimeError(f"{', '.join(differing)} must be set before libraries are loaded")
            self.process: Any = await server.fork(request)
        except (RuntimeError, OSError) as problem:
            self.parent.note = f"the kernel was started anew instead of forked: {problem}"
            logger.info(self.parent.note)
            return await super().launch_kernel(cmd, **options)
        self.pid = self.pgid = self.process.pid
        return self.connection_info


def _read_at_import(one: dict[str, str], other: dict[str, str]) -> list[str]:
    names = {name for name in (*one, *other) if one.get(name) != other.get(name)}
    return sorted(name for name in names if READ_AT_IMPORT.fullmatch(name))


class LeanSession(Session):
    """Jupyter's messages, of which only one field is turned into a date, and not every text that looks like one."""

    def deserialize(self, msg_list: list[bytes], content: bool = True, copy: bool = True) -> dict[str, Any]:  # type: ignore[override]
        """Check a message's signature and unpack it."""
        signature, *parts = msg_list
        if self.auth is None or not hmac.compare_digest(signature, self.sign(parts[:4])):
            raise ValueError("A message came with a wrong signature.")
        header, parent, metadata, body = map(json.loads, parts[:4])
        header["date"] = dt.datetime.fromisoformat(header["date"])
        names = {"header": header, "parent_header": parent, "metadata": metadata, "content": body}
        buffers = [memoryview(part) for part in parts[4:]]
        return {**names, "msg_id": header["msg_id"], "msg_type": header["msg_type"], "buffers": buffers}


class PlainKernelManager(AsyncKernelManager):
    """Jupyter's own kernel manager, with UNIX sockets where there are any."""

    note = ""  # why a kernel was not forked

    def __init__(self, **options: Any):
        super().__init__(**options)
        self.place = f"{_folder(os.getpid())}/{os.urandom(4).hex()}"
        self.raw_output = f"{self.place}.raw"  # what the process itself writes, beside the messages
        if os.name == "posix":
            self.transport, self.ip, self.connection_file = "ipc", self.place, f"{self.place}.json"
        self.context.reconnect_ivl = 10  # milliseconds: the sockets wait for the kernel to be there
        self.context.rcvhwm = 0  # no output is dropped while we are busy

    async def _async_launch_kernel(self, kernel_cmd: list[str], **options: Any) -> None:
        with open(self.raw_output, "ab") as raw:
            await super()._async_launch_kernel(kernel_cmd, **{"stdout": raw, "stderr": raw, **options})

    def discard(self) -> None:
        """Remove what was kept to explain a crash."""
        Path(self.raw_output).unlink(missing_ok=True)


class ForkKernelManager(PlainKernelManager):
    """A kernel manager whose kernels come from the fork server."""

    preload: list[str]

    async def _async_pre_start_kernel(self, **options: Any) -> Any:
        self.kernel_id = options.setdefault("kernel_id", self.kernel_id or os.urandom(8).hex())
        self.provisioner = ForkProvisioner(parent=self, kernel_id=self.kernel_id, kernel_spec=self.kernel_spec)
        self.provisioner.preload = self.preload
        return await super()._async_pre_start_kernel(**options)


def kernel_manager(
    name: str,  # of the kernel spec
    code: str = "",  # of the notebook: what it imports is loaded before the fork
) -> "PlainKernelManager":
    """Make the manager of a new kernel: a forked one where that is the same thing, else a plain one."""
    spec = kernel_spec(name)
    if sys.platform != "linux" or not _is_this_python(spec):
        return PlainKernelManager(kernel_name=name)
    if re.search(r"environ|putenv|%(set_)?env", code) and (variable := READ_AT_IMPORT.search(code)):
        manager = PlainKernelManager(kernel_name=name)
        manager.note = f"the kernel was started anew instead of forked: the notebook sets {variable[0]}"
        return manager
    manager = ForkKernelManager(kernel_name=name)
    manager.session, manager.preload = LeanSession(parent=manager), _preload(code)
    return manager


def kernel_spec(name: str) -> KernelSpec:
    """Find an installed kernel spec; raises `SpecificationError` naming those there are."""
    known = KernelSpecManager()
    try:
        spec = known.get_kernel_spec(name)
    except NoSuchKernel:
        names = ", ".join(sorted(known.find_kernel_specs())) or "none"
        raise SpecificationError(
            [f"No kernel '{name}' on this machine (kernels: {names}). Choose one of them in the notebook, or install it."]
        ) from None
    if shutil.which(spec.argv[0]) is None and not re.fullmatch(r"python[\d.]*", spec.argv[0]):
        raise SpecificationError([f"Kernel '{name}' starts {spec.argv[0]}, which is not there any more. Install the kernel again."])
    return spec


def _is_this_python(spec: KernelSpec) -> bool:
    program, *arguments = [argument for argument in spec.argv if not argument.startswith("-X")]
    ours = re.fullmatch(r"python(3(\.\d+)?)?", program) or os.path.abspath(program) == os.path.abspath(sys.executable)
    plain = arguments == ["-m", "ipykernel_launcher", "-f", "{connection_file}"]
    return bool(ours) and plain and "kernel_provisioner" not in spec.metadata


def _preload(code: str) -> list[str]:
    imported = re.findall(r"^(?:from|import)\s+([\w., ]+)", code, re.MULTILINE)
    names = {word.strip().split(" ")[0].split(".")[0] for line in imported for word in line.split(",")}
    return [module for name in PRELOAD if name in names for module in PRELOAD[name]]
