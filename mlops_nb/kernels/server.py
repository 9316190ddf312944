"""The fork server: imports heavy libraries once, then forks a fresh kernel process for every request.

Run by its path, never imported, so that nothing of mlops_nb is loaded before the fork and a kernel always sees the
library as it lies on the disk. One UNIX stream socket per kernel: the client sends one JSON line (`argv`, `cwd`, `env`,
`log`, `preload`), the server answers `{"pid": n}` (or `{"error": text}`) and, when the kernel ends, `{"exit": code}`.
When the client closes the socket, or dies, its kernel's process group is killed; when the server's parent dies, all are.
"""

import atexit
import contextlib
import ctypes
import faulthandler
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import sys
import threading
import time
import warnings
from typing import Any, NoReturn

ALWAYS = ("ipykernel.kernelapp", "ipykernel.ipkernel", "ipykernel.zmqshell", "IPython.core.interactiveshell", "jedi")
GRACE = 1.0  # seconds that a finished kernel's own children have to end
PARENT_DEATH_SIGNAL = 1  # prctl's PR_SET_PDEATHSIG


class Server:
    """The kernels of one parent process, and the libraries that they find loaded."""

    def __init__(self, path: str, preload: list[str]):
        self.parent, self.path, self.ending, self.told, self.loading = os.getppid(), path, False, False, True
        self.kernels: dict[socket.socket, int] = {}
        self.leftovers: dict[int, float] = {}  # process group -> when it is ended
        self.woken, self.wake = os.pipe()
        self.learned, self.learn = os.pipe()  # kernels name the libraries that they had to load themselves
        for pipe in (self.woken, self.wake, self.learned):
            os.set_blocking(pipe, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._end)
        signal.set_wakeup_fd(self.wake, warn_on_full_buffer=False)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)  # in a folder that is ours alone; who connects now waits for the imports
        self.listener.listen(64)
        _load([*ALWAYS, *preload])
        self.loading = False

    def serve(self) -> None:
        """Fork kernels until the parent process goes away, or says so."""
        while not self.ending and os.getppid() == self.parent:
            sources: list[Any] = [self.listener, self.woken, sys.stdin, *self.kernels]
            readable, _, _ = select.select(sources, [], [], 0.2 if self.leftovers else 2)
            for source in readable:
                if source is self.listener:
                    self._accept()
                elif source is sys.stdin:  # the parent's end of the pipe is closed
                    self.ending = True
                elif source is self.woken:
                    self._reap()
                elif source in self.kernels and _closed(source):
                    _kill(self.kernels.pop(source))
                    source.close()
            for group in [group for group, end in self.leftovers.items() if time.monotonic() > end]:
                del self.leftovers[group]
                _kill(group)

    def close(self) -> None:
        """End every kernel with its children; a parent that died leaves its folder to us."""
        for group in [*self.kernels.values(), *self.leftovers]:
            _kill(group)
        if not self.told:
            shutil.rmtree(os.path.dirname(self.path), ignore_errors=True)

    def _end(self, *_: Any) -> None:
        if self.loading:  # nobody waits for the imports any more
            os._exit(0)
        self.ending = self.told = True

    def _accept(self) -> None:
        client, _ = self.listener.accept()
        line = client.makefile("rb").readline()
        if not line:
            client.close()
            return
        request = json.loads(line)
        with contextlib.suppress(BlockingIOError):
            request["preload"] += os.read(self.learned, 65536).decode().split()
        try:
            _load(request["preload"])
            pid = os.fork()
        except Exception as problem:
            _tell(client, {"error": str(problem)})
            client.close()
            return
        if pid == 0:
            for other in (self.listener, client, *self.kernels):
                other.close()
            self._become_kernel(request)
        self.kernels[client] = pid
        _tell(client, {"pid": pid})

    def _become_kernel(self, request: dict[str, Any]) -> NoReturn:
        code = 1
        try:
            os.setsid()
            ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, _asked_to_leave(os.getpid()))
            for pipe in (self.woken, self.wake, self.learned):
                os.close(pipe)
            loaded = set(sys.modules)
            _settle(request)
            _keep_output_in_step()
            from ipykernel.kernelapp import IPKernelApp

            IPKernelApp.launch_instance(argv=sys.argv[1:])
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        if code == 0:
            names = [name for name in request["known"] if name in sys.modules and name not in loaded]
            os.write(self.learn, " ".join([*names, ""]).encode())
        _leave(code)

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.woken, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            if code == 0:
                self.leftovers[pid] = time.monotonic() + GRACE
            else:
                _kill(pid)
            for client in [c for c, p in self.kernels.items() if p == pid]:
                _tell(client, {"exit": code})
                client.close()
                del self.kernels[client]


def _load(names: list[str]) -> None:
    """Import libraries; what cannot be imported here, the notebook will say of it."""
    new = [name for name in dict.fromkeys(names) if name not in sys.modules]
    if not new:
        return
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [place for place in sys.path if place not in ("", here)]  # a kernel's own folder comes with its request
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in new:
            if select.select([sys.stdin], [], [], 0)[0]:  # the parent died: `serve` sees it next, and clears everything away
                return
            try:
                importlib.import_module(name)
            except Exception as problem:
                print(f"cannot preload {name}: {problem}", file=sys.stderr)
    gc.collect()
    gc.freeze()  # the kernels share these pages


def _asked_to_leave(kernel: int) -> Any:
    def leave(number: int, _: Any) -> None:
        if os.getpid() == kernel:
            sys.exit(0)
        signal.signal(number, signal.SIG_DFL)  # a process that the notebook forked ends as any other does
        os.kill(os.getpid(), number)

    return leave


def _settle(request: dict[str, Any]) -> None:
    """Make the forked process what a new one would be: its environment, folder, streams, arguments and chance."""
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.path[0:0] = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and p not in sys.path]
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    faulthandler.enable(log, all_threads=False)  # a crash says where
    sys.argv = ["ipykernel_launcher", *request["argv"]]
    time.tzset()
    import random

    random.seed()  # a fork would repeat its siblings' numbers
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    if "torch" in sys.modules:
        sys.modules["torch"].seed()


def _keep_output_in_step() -> None:
    """Let a cell end with all that its processes have written; ipykernel leaves it to a thread, which may come too late."""
    from ipykernel.iostream import OutStream

    flush = OutStream.flush

    def take(stream: Any) -> None:
        with stream.__dict__.setdefault("_taking", threading.RLock()), contextlib.suppress(OSError):  # of which: there is nothing
            os.set_blocking(stream._fid, False)
            part = os.read(stream._fid, 65536)  # all that a pipe holds
            stream.write(part.decode(errors="replace"))
            os.write(stream._original_stdstream_copy, part)

    def watch(stream: Any) -> None:
        written = select.poll()
        written.register(stream._fid, select.POLLIN)
        while written.poll()[0][1] & select.POLLIN and stream._should_watch:
            take(stream)

    def flush_all(stream: Any) -> None:  # at the end of each cell, too
        if stream._should_watch and os.getpid() == stream._master_pid:
            take(stream)
        flush(stream)

    OutStream._watch_pipe_fd, OutStream.flush = watch, flush_all  # type: ignore[method-assign]


def _leave(code: int) -> NoReturn:
    """End as an interpreter does (threads joined, exit hooks run, streams flushed), without taking every module apart."""
    with contextlib.suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    for stream in (sys.__stdout__, sys.__stderr__):
        with contextlib.suppress(BaseException):
            stream.flush()  # type: ignore[union-attr]
    os._exit(code)


def _tell(client: socket.socket, answer: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # the client is gone; select will say so next
        client.sendall(json.dumps(answer).encode() + b"\n")


def _closed(client: socket.socket) -> bool:
    try:
        return not client.recv(1)
    except OSError:
        return True


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    server = Server(sys.argv[1], [name for name in sys.argv[2].split(",") if name])
    try:
        server.serve()
    finally:
        server.close()
