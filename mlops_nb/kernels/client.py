"""The client that executes a notebook's cells one after the other, and notices within a moment why it has to end."""

import asyncio
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_core.utils import run_sync
from nbclient.exceptions import CellExecutionError, DeadKernelError
from papermill.clientwrap import PapermillNotebookClient

from mlops_nb.core.records import StepFailed

POLL = 0.2  # seconds between two looks at the kernel, the clock and the stop event


class KernelDied(StepFailed, DeadKernelError):
    """The kernel's process ended while it had work to do."""


@dataclass(frozen=True)
class Limits:
    """What ends a notebook before its last cell does."""

    cell: float | None = None  # seconds for each cell
    notebook: float | None = None  # seconds for all of them
    stop: threading.Event | None = None  # set by another thread


class Client(PapermillNotebookClient):
    """Executes the cells of one notebook in one kernel of its own."""

    def __init__(
        self,
        manager: Any,  # papermill's bookkeeping of the run
        limits: Limits,
        where: Path,  # the executed copy, for messages
        cwd: Path,  # where the kernel runs
        environment: dict[str, str],  # the kernel's environment variables, all of them
        **options: Any,  # nbclient's
    ):
        super().__init__(manager, **options)
        self.limits, self.where = limits, where
        self.start_options = {"cwd": str(cwd), "env": environment}
        self.began = self.cell_began = time.monotonic()
        self.cell: Any = None  # the one that runs
        self.end: Exception | KeyboardInterrupt | None = None  # why the kernel is ended early

    def execute(self, **options: Any) -> Any:
        """Start a kernel, execute the cells, end the kernel; whatever happens, no process is left."""
        self.reset_execution_trackers()
        self.began = time.monotonic()
        try:
            self.km = self.create_kernel_manager()
            self.start_new_kernel(**self.start_options)
            self.start_new_kernel_client()
            self.papermill_execute_cells()
            self.nb.metadata["language_info"] = self.wait_for_reply(self.kc.kernel_info())["content"]["language_info"]
            self.set_widgets_metadata()
        except BaseException:
            self.shutdown_kernel = "immediate"
            raise
        finally:
            if self.km is not None and self.km.has_kernel:
                self._cleanup_kernel()
        return self.nb

    def execute_cell(self, cell: Any, cell_index: int, **options: Any) -> Any:
        """Execute one cell; raises `CellExecutionError`, `KernelDied`, `TimeoutError` or `KeyboardInterrupt`."""
        self.cell, self.cell_began = cell, time.monotonic()
        if end := self._reason():
            raise end
        try:
            return run_sync(self.async_execute_cell)(cell, cell_index, **options)
        except DeadKernelError:
            raise (self.end or self._died()) from None

    async def _async_poll_kernel_alive(self) -> None:
        while True:
            await asyncio.sleep(POLL)
            self.end = self._reason()
            if self.end is None and not await self.kc.is_alive():
                self.end = self._died()
            if self.end is not None:
                self.task_poll_for_reply.cancel()
                return

    def _reason(self) -> Exception | KeyboardInterrupt | None:
        now = time.monotonic()
        if self.limits.stop is not None and self.limits.stop.is_set():
            return KeyboardInterrupt(f"{self.where.name} was stopped.")
        if self.limits.notebook is not None and now - self.began > self.limits.notebook:
            return TimeoutError(self._place(f"the notebook ran for more than {self.limits.notebook:g} s and was ended."))
        if self.limits.cell is not None and now - self.cell_began > self.limits.cell:
            return TimeoutError(self._place(f"the cell ran for more than {self.limits.cell:g} s and was ended."))
        return None

    def _died(self) -> KernelDied:
        code = getattr(getattr(self.km.provisioner, "process", None), "returncode", None)
        how = f"exit code {code}"
        if code is not None and code < 0:
            how = signal.Signals(-code).name
            how += ", often the system's answer to too little memory" if code == -signal.SIGKILL else ""
        return KernelDied(self._place(f"the kernel died ({how})."))

    def _place(self, problem: str) -> str:
        return place(self.where, self.cell, problem)


def place(executed: Path, cell: Any, problem: str, lines: list[str] | None = None) -> str:
    """Say where a notebook ended, why, and how to look at it."""
    if lines is None:
        lines = cell.source.rstrip().splitlines()[-3:]
    shown = "".join(f"    {line}\n" for line in lines)
    return f"{executed.name}, cell [{cell.execution_count or ' '}]:\n{shown}{problem}\nOpen it as it ran: mlops-nb notebook debug {executed}"
