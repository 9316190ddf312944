"""Write lines to files in a thread, in batches: the data path only appends to a bounded queue, and a full disk only drops lines."""

import contextlib
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

log = logging.getLogger("front")
EVERY = 0.5  # seconds between two batches


class Lines:
    """A queue of records, and the thread that hands them to whoever writes them."""

    def __init__(self, most: int = 10_000):  # records that wait
        self.waiting: deque[tuple[Callable[[list[Any]], None], Any]] = deque()
        self.most = most
        self.dropped = 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run, name="lines", daemon=True)
        self.thread.start()

    def put(self, write: Callable[[list[Any]], None], record: Any) -> None:
        """Queue a record for a writer, which is called with lists of them; returns at once."""
        if len(self.waiting) >= self.most:
            self.dropped += 1
        else:
            self.waiting.append((write, record))

    def _run(self) -> None:
        while not self.ended.wait(EVERY):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        batches: dict[Callable[[list[Any]], None], list[Any]] = {}
        for _ in range(len(self.waiting)):
            write, record = self.waiting.popleft()
            batches.setdefault(write, []).append(record)
        for write, records in batches.items():
            try:
                write(records)
            except Exception as problem:  # a full disk, above all; it must not end the thread
                self.dropped += len(records)
                log.warning("%s lines are lost: %s: %s", len(records), type(problem).__name__, problem)

    def close(self, wait: float = 5) -> None:
        """Write what is queued, and end the thread."""
        self.ended.set()
        self.thread.join(wait)


def append(
    path: Path,
    lines: list[bytes],
    roll: int = 0,  # bytes; a file that would be larger becomes `<name>.old.jsonl`, in place of the one before; 0: never
) -> None:
    """Append whole lines in one write; what a full disk cut off is taken back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if roll and path.exists() and path.stat().st_size + sum(map(len, lines)) > roll:
        path.replace(path.with_suffix(".old.jsonl"))
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        size = os.fstat(handle).st_size
        content = b"".join(lines)
        try:
            while content:
                content = content[os.write(handle, content):]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(handle, size)
            raise
    finally:
        os.close(handle)
