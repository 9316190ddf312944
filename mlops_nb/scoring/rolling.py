"""The files that a process collects into: one open per collection, whole lines appended, a new one when the time's folder changes."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Open:
    """One open file."""

    folder: str
    handle: int
    size: int  # bytes, all in whole lines


class Files:
    """The open files of one process, one per collection: whole lines are appended, nothing else."""

    def __init__(self, folder: Path, instance: str):
        self.folder, self.instance = folder, instance
        self._open: dict[str, Open] = {}  # by collection

    def append(self, collection: str, folder: str, lines: list[bytes]) -> tuple[int, OSError | None]:
        """Append lines in one write; returns how many are whole in the file, and why the others are not."""
        try:
            file = self._file(collection, folder)
        except OSError as problem:
            return 0, problem
        data, done = b"".join(lines), 0
        try:
            while done < len(data):  # a disk that gets full takes a part, and refuses the next
                done += os.write(file.handle, memoryview(data)[done:])
            file.size += done
            return len(lines), None
        except OSError as problem:
            file.size += data.rfind(b"\n", 0, done) + 1
            os.ftruncate(file.handle, file.size)
            return data.count(b"\n", 0, done), problem

    def beside(self, folder: str, name: str, data: bytes) -> Path:
        """Write one payload into a file of its own."""
        path = self.folder / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return path

    def look(self) -> None:
        """Let go of files that somebody has removed."""
        for collection, file in list(self._open.items()):
            if not os.fstat(file.handle).st_nlink:
                os.close(self._open.pop(collection).handle)

    def close(self) -> None:
        """Flush all files to the disk and close them."""
        for file in self._open.values():
            _finish(file.handle)
        self._open.clear()

    def _file(self, collection: str, folder: str) -> Open:
        current = self._open.get(collection)
        if current and current.folder == folder:
            return current
        path = self.folder / folder / f"{self.instance}.jsonl"  # of a new hour
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        if current:
            _finish(current.handle)
        self._open[collection] = made = Open(folder, handle, os.fstat(handle).st_size)
        return made


def _finish(handle: int) -> None:
    try:
        os.fsync(handle)
    except OSError as problem:
        log.warning("A file of collected data may not be on the disk: %s", problem)
    finally:
        os.close(handle)
