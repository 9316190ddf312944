"""What is written down of a run: the output file, papermill's metadata, time and memory of each cell, the log."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from papermill.engines import NotebookExecutionManager

from mlops_nb.kernels.checkpoint import WholeFile, follow

LOGGED = 8 * 2**20  # characters of a cell's streams that go to the log


class Record(NotebookExecutionManager):
    """Papermill's bookkeeping of a run, with an output file that is whole at every moment."""

    def __init__(
        self,
        nb: Any,
        path: Path | None,  # the output, if it is a local file
        write: Callable[[Any], None] | None,  # writes the whole output; None: there is none
        log: Path | None,
        on_cell: Callable[[int, int], None] | None,
        log_output: bool = False,
        progress_bar: Any = False,
    ):
        super().__init__(nb, None, log_output, progress_bar)
        self.path, self.write, self.on_cell = path, write, on_cell
        self.log, self.meter = Log(log), Meter(0)
        self.checkpoint: Any = None
        self.done, self.total, self.began = 0, sum(map(runs, nb.cells)), time.monotonic()
        self.running: Any = None  # the cell
        self.settle: Callable[[], None] = lambda: None  # puts gathered text into the running cell

    def save(self, **_: Any) -> None:
        """Leave the output to the checkpoints; papermill would write all of it."""

    def notebook_start(self, **options: Any) -> None:
        """Write the first version of the output."""
        super().notebook_start(**options)
        self.began = time.monotonic()
        self.log.line(f"{self.nb.metadata.papermill.get('input_path') or 'notebook'} starts: {self.total} cells")
        if self.on_cell:
            self.on_cell(0, self.total)
        with naming(self.path):
            if self.path and self.write:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.checkpoint = follow(self.path, self.nb, self.write)
            elif self.write:
                self.checkpoint = WholeFile(self.write)
                self.checkpoint.start(self.nb)

    def cell_start(self, cell: Any, cell_index: int | None = None, **options: Any) -> None:
        """Write down that a cell starts."""
        super().cell_start(cell, cell_index, **options)
        if runs(cell):
            first = next(iter(cell.source.strip().splitlines()))
            self.log.cell(f"cell {self.done + 1} of {self.total} starts: {first[:100]}")
            self.meter.start()
            self.running = cell

    def autosave_cell(self) -> None:
        """Write the running cell as it stands, now and then."""
        if self.checkpoint and self.running is not None and time.monotonic() - self.meter.began > 1 and self.checkpoint.due():
            self.settle()
            with naming(self.path):
                self.checkpoint.show(self.running)

    def cell_complete(self, cell: Any, cell_index: int | None = None, **options: Any) -> None:
        """Write down that a cell ended, and the cell itself."""
        if runs(cell):
            seconds, peak = self.meter.stop()
            cell.metadata["mlops_nb"] = {"seconds": round(seconds, 6), "peak_mib": peak}
            self.running = None
            self.done += 1
            how = "failed" if cell.metadata.papermill["status"] == self.FAILED else "ended"
            self.log.cell(f"cell {self.done} of {self.total} {how}: {seconds:.2f} s, peak {peak or 0:.0f} MiB")
        super().cell_complete(cell, cell_index, **options)
        if self.checkpoint:
            with naming(self.path):
                self.checkpoint.add(cell)
        if self.on_cell and runs(cell) and cell.metadata.papermill["status"] != self.FAILED:
            self.on_cell(self.done, self.total)

    def catch_up(self) -> float:
        """Bring finished cells into the output; returns the seconds to wait until that can be done, 0 if nothing is left."""
        with naming(self.path):
            return self.checkpoint.catch_up() if self.checkpoint else 0

    def notebook_complete(self, **_: Any) -> None:
        """Write the whole notebook, with the cells that were never reached."""
        self.end_time = self.now()
        seconds = time.monotonic() - self.began
        metadata = self.nb.metadata
        metadata.papermill["end_time"], metadata.papermill["duration"] = self.end_time.isoformat(), seconds
        peaks = [cell.metadata.get("mlops_nb", {}).get("peak_mib") or 0 for cell in self.nb.cells]
        metadata.setdefault("mlops_nb", {}).update(seconds=round(seconds, 3), peak_mib=max(peaks, default=0))
        self.complete_pbar()
        self.cleanup_pbar()
        if self.checkpoint:
            with naming(self.path):
                self.checkpoint.finish(self.nb)
        self.log.line(f"ended after {seconds:.2f} s, peak {max(peaks, default=0):.0f} MiB")

    def close(self) -> None:
        """Let go of every file."""
        self.cleanup_pbar()
        if self.checkpoint:
            self.checkpoint.close()
        self.log.close()


@contextmanager
def naming(path: Path | None) -> Iterator[None]:
    """Say which file could not be written; a write to an open file does not."""
    try:
        yield
    except OSError as problem:
        if problem.filename is None and problem.errno is not None:
            problem.filename = str(path)
        raise


def runs(cell: Any) -> bool:
    """Say whether a cell is executed."""
    tags = cell.metadata.get("tags", [])
    return cell.cell_type == "code" and bool(cell.source.strip()) and "skip-execution" not in tags


class Meter:
    """Measures a cell: its seconds, and the highest memory of the kernel's process meanwhile."""

    def __init__(self, pid: int):
        self.pid, self.began = pid, time.monotonic()

    def start(self) -> None:
        """Begin to measure; on Linux the process's high-water mark is set back."""
        self.began = time.monotonic()
        try:
            with open(f"/proc/{self.pid}/clear_refs", "w") as file:
                file.write("5")
        except OSError:
            pass

    def stop(self) -> tuple[float, float | None]:
        """Return the seconds, and the peak in MiB (elsewhere than on Linux: what it is now; None if the process is gone)."""
        return time.monotonic() - self.began, self._peak()

    def _peak(self) -> float | None:
        try:
            with open(f"/proc/{self.pid}/status") as file:
                return next((round(int(line.split()[1]) / 1024, 1) for line in file if line.startswith("VmHWM")), None)
        except OSError:
            pass
        try:
            import psutil

            return round(psutil.Process(self.pid).memory_info().rss / 2**20, 1)
        except psutil.Error:
            return None


class Log:
    """A text file that follows a run: when each cell starts and ends, and what it prints."""

    def __init__(self, path: Path | None):
        self.file, self.path = -1, path
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self.left, self.missing, self.midline = LOGGED, 0, False

    def line(self, text: str) -> None:
        """Write a line with the time before it."""
        if self.file >= 0:
            now = time.strftime("%Y-%m-%d %H:%M:%S")
            self._write(f"{chr(10) * self.midline}{now} {text}\n")
            self.midline = False

    def cell(self, text: str) -> None:
        """Write the line of a cell's start or end."""
        if self.missing:
            self.line(f"{self.missing:,} characters of output left out here")
        self.left, self.missing = LOGGED, 0
        self.line(text)

    def stream(self, text: str) -> None:
        """Write what a cell printed, up to a bound for each cell."""
        if self.file >= 0 and text:
            shown = text[: self.left]
            self.left -= len(shown)
            self.missing += len(text) - len(shown)
            self._write(shown)
            self.midline = not (shown or "\n").endswith("\n")

    def _write(self, text: str) -> None:
        with naming(self.path):
            os.write(self.file, text.encode("utf-8", "replace"))

    def close(self) -> None:
        """Close the file."""
        if self.file >= 0:
            os.close(self.file)
            self.file = -1
