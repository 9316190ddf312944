"""The fork server: imports the heavy libraries once, then forks a fresh kernel process for every request.

Run by its path, never imported, so that nothing of mlops_nb is loaded before the fork and a kernel always sees the
library as it lies on the disk. One UNIX stream socket per kernel: the client sends one JSON line (`argv`, `cwd`, `env`,
`log`), the server answers `{"pid": n}` and, when the kernel ends, `{"exit": code}`. When the client closes the socket, or
dies, its kernel's process group is killed; when the server's parent dies, all are.
"""

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import warnings
from typing import Any

ALWAYS = ("ipykernel.kernelapp", "ipykernel.ipkernel", "ipykernel.zmqshell", "IPython.core.interactiveshell", "jedi")


def serve(path: str, preload: list[str]) -> None:
    """Listen on a socket and fork kernels until the parent process goes away."""
    parent = os.getppid()
    _import([*ALWAYS, *preload])
    gc.collect()
    gc.freeze()  # the kernels share these pages
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    os.chmod(path, 0o600)
    listener.listen(16)
    woken, wake = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    kernels: dict[socket.socket, int] = {}
    while os.getppid() == parent:
        sources: list[Any] = [listener, woken, *kernels]
        readable, _, _ = select.select(sources, [], [], 2)
        for source in readable:
            if source is listener:
                _accept(listener, kernels)
            elif source is woken:
                _reap(woken, kernels)
            elif source in kernels and _closed(source):
                _kill(kernels.pop(source))
                source.close()
    for pid in kernels.values():
        _kill(pid)


def _import(names: list[str]) -> None:
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [place for place in sys.path if place not in ("", here, os.getcwd())]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            try:
                importlib.import_module(name)
            except ImportError as problem:
                print(f"cannot preload {name}: {problem}", file=sys.stderr)


def _accept(listener: socket.socket, kernels: dict[socket.socket, int]) -> None:
    client, _ = listener.accept()
    line = client.makefile("rb").readline()
    if not line:
        client.close()
        return
    pid = os.fork()
    if pid == 0:
        for other in (listener, client, *kernels):
            other.close()
        _become_kernel(json.loads(line))
    kernels[client] = pid
    _tell(client, {"pid": pid})


def _become_kernel(request: dict) -> None:
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.clear()
        os.environ.update(request["env"])
        os.chdir(request["cwd"])
        sys.path[0:0] = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and p not in sys.path]
        _reseed()
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        from ipykernel.kernelapp import IPKernelApp

        arguments = request["argv"][request["argv"].index("-f") :]
        sys.argv = ["ipykernel_launcher", *arguments]
        IPKernelApp.launch_instance(argv=arguments)
        os._exit(0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)


def _reseed() -> None:
    """Give each kernel random numbers of its own; a fork would repeat its siblings'."""
    import random

    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    if "torch" in sys.modules:
        sys.modules["torch"].seed()


def _reap(woken: int, kernels: dict[socket.socket, int]) -> None:
    with contextlib.suppress(BlockingIOError):
        os.read(woken, 4096)
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        for client in [c for c, p in kernels.items() if p == pid]:
            _tell(client, {"exit": os.waitstatus_to_exitcode(status)})
            client.close()
            del kernels[client]


def _tell(client: socket.socket, answer: dict) -> None:
    with contextlib.suppress(OSError):  # the client is gone; select will say so next
        client.sendall(json.dumps(answer).encode() + b"\n")


def _closed(client: socket.socket) -> bool:
    try:
        return not client.recv(1)
    except OSError:
        return True


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


if __name__ == "__main__":
    serve(sys.argv[1], [name for name in sys.argv[2].split(",") if name])
