"""The client that executes a notebook's cells one after the other, and notices within a moment why it has to end."""

import asyncio
import contextlib
import os
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Empty
from typing import Any

from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionComplete, CellExecutionError, DeadKernelError
from nbformat import from_dict
from papermill.clientwrap import PapermillNotebookClient
from papermill.exceptions import strip_color

from mlops_nb.core.records import StepFailed
from mlops_nb.kernels.manager import ForkedKernel, ForkProvisioner, kernel_manager
from mlops_nb.kernels.record import Record
from mlops_nb.kernels.streams import Streams

POLL = 0.2  # seconds between two looks at the kernel, the clock and the stop event
INTERRUPTED = 0.3  # seconds that a cell has to end by itself after an interrupt
SHUTDOWN = 5.0  # seconds that a kernel has for its exit hooks
SILENCE = 20  # looks, one each `POLL`, after a cell's reply: more of its output may come (who stands still does not look)
OUTPUTS = {
    "stream": ("name", "text"),
    "display_data": ("data", "metadata"),
    "execute_result": ("data", "metadata", "execution_count"),
    "error": ("ename", "evalue", "traceback"),
}


class KernelDied(StepFailed, DeadKernelError):
    """The kernel's process ended while it had work to do."""


@dataclass(frozen=True)
class Limits:
    """What ends a notebook before its last cell does."""

    cell: float | None = None  # seconds for each cell
    notebook: float | None = None  # seconds for all of them
    start: float = 60  # seconds for the kernel to start
    stop: threading.Event | None = None  # set by another thread


class Client(PapermillNotebookClient):
    """Executes the cells of one notebook in one kernel of its own."""

    nb_man: Record
    km: Any
    clear_before_next_output: bool
    iopub_timeout = 10**6  # outputs are waited for as long as they come, see `_async_poll_output_msg`

    def __init__(
        self,
        record: Record,
        limits: Limits,
        executed: Path,  # the executed copy, for messages
        cwd: Path,  # where the kernel runs
        environment: dict[str, str],  # the kernel's environment variables, all of them
        **options: Any,  # nbclient's
    ):
        super().__init__(record, **options)
        self.limits, self.executed = limits, executed
        self.start_options: dict[str, Any] = {"cwd": str(cwd), "env": environment}
        self.began = time.monotonic()
        self.cell: Any = None  # the one that runs
        self.cell_began = 0.0
        self.end: Exception | KeyboardInterrupt | None = None  # why the notebook is ended early
        self.streams: Streams = Streams([])
        self.looks = 0  # after the cell's reply, since the kernel last said something
        self.catching: asyncio.TimerHandle | None = None  # when finished cells will be written
        self.unwritten: OSError | None = None  # why they could not
        self.listening: asyncio.Task[Any] | None = None  # to the running cell's outputs
        self.silent = False  # the kernel lost its last messages
        self.left = False  # the notebook called `exit()`
        self.interrupted = threading.Event()  # by Ctrl-C, where the notebook is not run by the main thread
        self.on_cell_executed = self._note_exit
        record.settle = lambda: self.streams.settle()

    def execute(self, **_: Any) -> Any:
        """Start a kernel, execute the cells, end the kernel; whatever happens, no process is left."""
        self.reset_execution_trackers()
        self.began = time.monotonic()
        self._run(self._execute())
        if self.end is not None:
            raise self.end
        return self.nb

    def _run(self, coroutine: Any) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(coroutine)
            return
        with ThreadPoolExecutor(1) as pool:  # we are called from a notebook: its loop cannot run ours
            future = pool.submit(self._run, coroutine)
            try:
                future.result()
            except KeyboardInterrupt:
                self.interrupted.set()
                raise

    async def _execute(self) -> None:
        self.km = kernel_manager(self.kernel_name, "\n".join(c.source for c in self.nb.cells if c.cell_type == "code"))
        work = asyncio.ensure_future(self._work())
        try:
            while not (await asyncio.wait([work], timeout=POLL))[0]:
                if self.unwritten is not None:
                    raise self.unwritten
                self.nb_man.autosave_cell()
                self._listen_no_longer()
                if (end := self._reason()) is not None:
                    await self._interrupt(work, end)
                    break
                if self.km.has_kernel and not await self.km.is_alive():
                    await asyncio.sleep(0.05)  # its last messages
                    self.end = self._died()
                    break
            if work.done() and self.end is None:
                await work
        except DeadKernelError:
            self.end = self._died()
        except asyncio.CancelledError:  # Ctrl-C
            await self._interrupt(work, KeyboardInterrupt())
            raise
        finally:
            if self.catching is not None:
                self.catching.cancel()
            work.cancel()
            done = (await asyncio.gather(work, return_exceptions=True))[0]
            await self._end_kernel(now=done is not None or self.end is not None)

    async def _work(self) -> None:
        await self.km.start_kernel(extra_arguments=self._arguments(), **self.start_options)
        if self.km.note:
            self.nb_man.log.line(self.km.note)
        await self._connect()
        self.nb_man.meter.pid = getattr(self.km.provisioner, "pid", 0) or 0
        for index, cell in enumerate(self.nb.cells):
            if not await self._execute_one(index, cell):
                break
        self.set_widgets_metadata()

    def _arguments(self) -> list[str]:
        return ["--HistoryManager.hist_file=:memory:"] if "ipykernel_launcher" in self.km.kernel_spec.argv else []

    async def _connect(self) -> None:
        """Wait until the kernel answers, and its outputs arrive; nbclient's own wait is 0.2 s longer than need be."""
        self.kc, began = self.km.client(context=self.km.context), time.monotonic()
        self.kc.start_channels(stdin=False, hb=False, control=False)
        while True:
            self.kc.kernel_info()
            with contextlib.suppress(Empty):
                reply = await self.kc.get_shell_msg(timeout=1)
                if reply["msg_type"] != "kernel_info_reply":
                    continue
                await self.kc.get_iopub_msg(timeout=0.2)
                self.nb.metadata["language_info"] = reply["content"]["language_info"]
                return
            if time.monotonic() - began > self.limits.start:
                raise RuntimeError(f"Kernel '{self.kernel_name}' did not answer in {self.limits.start:g} s.")

    async def _execute_one(self, index: int, cell: Any) -> bool:  # whether the next cell is to follow
        self.cell, self.cell_began = cell, time.monotonic()
        self.streams, self.silent = Streams([]), False
        self.nb_man.cell_start(cell, index)
        try:
            await self.async_execute_cell(cell, index)
            return not self.left
        except CellExecutionError as problem:
            if problem.ename == "SystemExit" and problem.evalue in ("", "0", "None"):
                return False
            self.nb_man.cell_exception(cell, index, exception=problem)
            return False
        except BaseException:
            self.nb_man.cell_exception(cell, index)
            raise
        finally:
            self.streams.settle()
            self.nb_man.cell_complete(cell, index)
            self._catch_up()

    def _catch_up(self) -> None:
        """Write what is done as soon as the output may be changed again."""
        try:
            if (wait := self.nb_man.catch_up()) and self.catching is None:
                self.catching = asyncio.get_running_loop().call_later(wait, self._caught)
        except OSError as problem:
            self.unwritten = problem

    def _caught(self) -> None:
        self.catching = None
        self._catch_up()

    async def _async_poll_kernel_alive(self) -> None:
        """Leave this to `_execute`, which looks after the whole run."""

    async def _async_poll_output_msg(self, parent_msg_id: str, cell: Any, cell_index: int) -> None:
        """Take the cell's outputs until the kernel is idle; an answered cell may stay silent for a few seconds only."""
        self.streams, self.looks, breath = Streams(cell.outputs), 0, time.monotonic()
        self.listening = asyncio.current_task()
        socket, session = self.kc.iopub_channel.socket, self.kc.session
        while True:
            try:
                frames = await socket.recv_multipart()
            except asyncio.CancelledError:
                if self.silent:
                    return
                raise
            message = session.deserialize(session.feed_identities(frames)[1])
            del frames  # may be large
            if time.monotonic() - breath > 0.05:  # a flood of messages must not keep `_execute` from looking
                await asyncio.sleep(0)
                breath = time.monotonic()
            self.looks = 0
            if message["parent_header"].get("msg_id") == parent_msg_id:
                try:
                    self.process_message(message, cell, cell_index)
                except CellExecutionComplete:
                    return

    def _listen_no_longer(self) -> None:
        """End an answered cell whose last messages do not come: the kernel, or the way from it, lost them."""
        answered = self.cell is not None and "shell.execute_reply" in self.cell.metadata.get("execution", {})
        if not answered or self.listening is None or self.listening.done():
            return
        self.looks += 1
        if self.looks > SILENCE:
            self.nb_man.log.line("the kernel did not say that the cell is over: output may be missing")
            self.silent = True
            self.listening.cancel()

    def process_message(self, msg: dict[str, Any], cell: Any, cell_index: int) -> Any:
        """Take one message of a cell; what it prints goes to the log as well."""
        output = NotebookClient.process_message(self, msg, cell, cell_index)
        if output is not None:
            if output.output_type == "stream":
                self.nb_man.log.stream(output.text)
            elif output.output_type == "error":
                self.nb_man.log.stream(strip_color("\n".join([*output.traceback, ""])))
            if self.log_output or self.stdout_file or self.stderr_file:
                self.log_output_message(output)
        return output

    def output(self, outs: list[Any], msg: dict[str, Any], display_id: str | None, cell_index: int) -> Any:
        """Add an output to a cell; streams are gathered and kept within bounds. (nbformat would check each by its schema.)"""
        if self.output_hook_stack.get(msg["parent_header"].get("msg_id")):
            return super().output(outs, msg, display_id, cell_index)
        if self.clear_before_next_output:
            self.clear_before_next_output = False
            self._clear(outs, cell_index)
        kind, content = msg["msg_type"], msg["content"]
        if kind not in OUTPUTS:
            return super().output(outs, msg, display_id, cell_index)
        output = from_dict({"output_type": kind, **{name: content[name] for name in OUTPUTS[kind]}})
        if kind == "stream":
            self.streams.add(output.name, output.text)
            return output
        if display_id:
            self._display_id_map.setdefault(display_id, {}).setdefault(cell_index, []).append(len(outs))
        outs.append(output)
        return output

    def clear_output(self, outs: list[Any], msg: dict[str, Any], cell_index: int) -> None:
        """Clear a cell's outputs, or remember to."""
        super().clear_output(outs, msg, cell_index)
        if not outs:
            self.streams = Streams(outs)

    def _clear(self, outs: list[Any], cell_index: int) -> None:
        outs[:] = []
        self.clear_display_id_mapping(cell_index)
        self.streams = Streams(outs)

    def _note_exit(self, execute_reply: dict[str, Any], **_: Any) -> None:
        self.left = any(part.get("source") == "ask_exit" for part in execute_reply["content"].get("payload", []))

    def _reason(self) -> Exception | KeyboardInterrupt | None:
        now, limits = time.monotonic(), self.limits
        if self.interrupted.is_set() or (limits.stop is not None and limits.stop.is_set()):
            return KeyboardInterrupt(f"{self.executed.name} was stopped.")
        if limits.notebook and now - self.began > limits.notebook:
            return TimeoutError(self._place(f"The notebook ran for more than {limits.notebook:g} s and was ended."))
        if limits.cell and self.cell is not None and now - self.cell_began > limits.cell:
            return TimeoutError(self._place(f"The cell ran for more than {limits.cell:g} s and was ended."))
        return None

    async def _interrupt(self, work: Any, end: Exception | KeyboardInterrupt) -> None:
        self.end = end
        if self.km.has_kernel and self.cell is not None:
            await self.km.interrupt_kernel()
            await asyncio.wait([work], timeout=INTERRUPTED)

    async def _end_kernel(self, now: bool) -> None:
        """End the kernel: by its own exit hooks if there is time, and with everything that it started."""
        provisioner = self.km.provisioner
        try:
            if self.km.has_kernel and not now:
                if isinstance(provisioner, ForkProvisioner) and isinstance(provisioner.process, ForkedKernel):
                    provisioner.process.terminate()  # ipykernel's own way waits seconds for children that nobody waited for
                else:
                    await self.km.request_shutdown()
                await _ended(provisioner, SHUTDOWN)
            if self.km.has_kernel and await provisioner.poll() is None:
                await provisioner.kill()
                await _ended(provisioner, SHUTDOWN)
            if isinstance(getattr(provisioner, "process", None), subprocess.Popen) and provisioner.pgid and os.name == "posix":
                with contextlib.suppress(OSError):  # the fork server does the same for those that it forked
                    os.killpg(provisioner.pgid, signal.SIGKILL)
        finally:
            if self.kc is not None:
                self.kc.stop_channels()
            await self.km.cleanup_resources()
            self.km.discard()

    def _died(self) -> KernelDied:
        code = getattr(getattr(self.km.provisioner, "process", None), "returncode", None)
        how = f"exit code {code}" if code is None or code >= 0 else signal.Signals(-code).name
        if how == "SIGKILL":
            how += ", often the system's answer to too little memory"
        crash = _crash(self.km.raw_output, self.cell is not None)
        if crash:
            self.nb_man.log.stream(crash)
        return KernelDied(self._place(f"The kernel died ({how}).{crash}"))

    def _place(self, problem: str) -> str:
        lines = self.cell.source.rstrip().splitlines()[-3:] if self.cell is not None else []
        number = None if self.cell is None else self.cell.execution_count or self.nb_man.done + 1  # it may not have said it any more
        return place(self.executed, number, lines, problem)


async def _ended(provisioner: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while await provisioner.poll() is None and time.monotonic() < end:
        await asyncio.sleep(0.005)


def _crash(path: str, started: bool) -> str:
    """Return the interpreter's own words on a crash; what cells made the process write is in their outputs, without secrets."""
    try:
        text = Path(path).read_text(errors="replace").rstrip()
    except OSError:
        return ""
    start = text.find("Fatal Python error") if started else 0
    return "" if start < 0 or not text else f"\n{text[start:][:2000]}"


def place(executed: Path, number: int | None, lines: list[str], problem: str) -> str:
    """Say where a notebook ended, why, and how to look at it."""
    cell = "" if number is None else f", cell [{number}]"
    shown = "".join(f"    {line}\n" for line in lines)
    return f"{executed.name}{cell}:\n{shown}{problem}\nOpen it at that state: mlops-nb notebook debug {executed}"
