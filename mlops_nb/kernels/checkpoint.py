"""The output file of a run: a whole notebook at every moment, at a cost that grows with the notebook, not with its square.

Two files hold the same notebook, `{"metadata": ..., "cells": [done, ..., done, running]}`, the cells last. One of them is the
output, the other is hidden beside it. A checkpoint appends to the hidden one the cells that it lacks and swaps the two names.
So each cell is written twice in all, and whoever opens the output finds a whole notebook. Somebody may have opened it just
before a swap and read on: a file is left as it is until it has been hidden for a twentieth of a second.
"""

import errno
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat

from mlops_nb.core.files import write_file

HIDDEN = 0.05  # seconds before a hidden file is written to: the time that its last reader has
SHARE = 20  # a running cell, or a whole file, is written at most a twentieth of the time


class _Half:
    """One of the two files."""

    def __init__(self, path: Path, head: bytes):
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        self.end = self.used = 0  # offsets: behind the last finished cell, and behind the last byte that is no blank
        self.lacks = [head]

    def write(self, tail: bytes) -> None:
        """Append the cells that this half lacks, and a tail that the next write replaces."""
        done = b"".join(self.lacks)
        blanks = b" " * (self.used - self.end - len(done) - len(tail))  # over what is left of a longer tail
        data, written = memoryview(done + tail + blanks), 0
        while written < len(data):
            written += os.pwrite(self.file, data[written:], self.end + written)
        self.end += len(done)
        self.used = self.end + len(tail)
        self.lacks = []


class Checkpoint:
    """Keeps a local output file up to date while a notebook runs."""

    def __init__(self, path: Path):
        self.path = path.resolve()
        self.hidden, self.spare = (self.path.with_name(f".{self.path.name}.{letter}") for letter in "ab")
        self.halves: list[_Half] = []  # the visible one, the hidden one
        self.separator = b"\n"
        self.swapped = self.shown = self.cost = 0.0  # when; when the running cell was last written, and the seconds it took
        self.late = False  # a finished cell is not in the output yet

    def start(self, nb: Any) -> None:
        """Replace the output by a notebook without cells, and remove what a killed run left."""
        self._tidy()
        head = json.dumps({key: nb[key] for key in ("metadata", "nbformat", "nbformat_minor")})
        for _ in range(2):
            half = _Half(self.hidden, f'{head[:-1]}, "cells": ['.encode())
            self.halves.append(half)
            half.write(b"]}\n")
            if len(self.halves) == 1:
                os.link(self.hidden, self.spare)  # raises where files cannot be linked
                os.replace(self.spare, self.path)
                self.hidden.unlink()

    def add(self, cell: Any) -> None:
        """Write a finished cell."""
        data = self.separator + json.dumps(cell).encode()
        self.separator = b",\n"
        for half in self.halves:
            half.lacks.append(data)
        self.late = True
        self.catch_up()

    def catch_up(self) -> float:
        """Write the finished cells if it is time for that; returns the seconds until it is, 0 if nothing is left."""
        if self.late and (wait := self.swapped + HIDDEN - time.monotonic()) > 0:
            return wait
        if self.late:
            self._swap(b"\n]}\n")
        return 0

    def due(self) -> bool:
        """Say whether the running cell may be written again."""
        now = time.monotonic()
        return now - self.shown > max(1.0, SHARE * self.cost) and now - self.swapped > HIDDEN

    def show(self, cell: Any) -> None:
        """Write the running cell as it stands."""
        start = time.monotonic()
        self._swap(self.separator + json.dumps(cell).encode() + b"\n]}\n")
        self.shown = time.monotonic()
        self.cost = self.shown - start

    def finish(self, nb: Any) -> None:
        """Write the whole notebook in nbformat's layout, through to the disk."""
        try:
            write_notebook(nb, self.path)
        finally:
            self.close()

    def close(self) -> None:
        """Remove the hidden file; the output stays as the last checkpoint left it."""
        for half in self.halves:
            os.close(half.file)
        self.halves = []
        self._tidy()

    def _swap(self, tail: bytes) -> None:
        visible, hidden = self.halves
        hidden.write(tail)
        try:
            os.link(self.path, self.spare)
        except FileNotFoundError:  # somebody removed the output
            shutil.copyfile(self.hidden, self.spare)
            os.close(visible.file)
            visible.file, visible.end, visible.used, visible.lacks = os.open(self.spare, os.O_WRONLY), hidden.end, hidden.used, []
        os.replace(self.hidden, self.path)
        os.replace(self.spare, self.hidden)
        self.halves = [hidden, visible]
        self.swapped, self.late = time.monotonic(), False

    def _tidy(self) -> None:
        for path in (self.hidden, self.spare):
            path.unlink(missing_ok=True)


class WholeFile:
    """Keeps an output up to date where files cannot be linked: the whole of it, at most a twentieth of the time."""

    def __init__(self, write: Callable[[Any], None]):
        self.write, self.nb = write, None
        self.written, self.cost = 0.0, 0.0

    def start(self, nb: Any) -> None:
        """Write the notebook as it was before the first cell."""
        self.nb = nb
        self.finish(nb)

    def add(self, cell: Any) -> None:
        """Write the notebook, unless that was done a moment ago."""
        if time.monotonic() - self.written > SHARE * self.cost:
            self.finish(self.nb)

    def catch_up(self) -> float:
        """Leave the rest to the next cell."""
        return 0

    def due(self) -> bool:
        """Say whether the notebook with its running cell may be written again."""
        return time.monotonic() - self.written > max(1.0, SHARE * self.cost)

    def show(self, cell: Any) -> None:
        """Write the notebook with its running cell."""
        self.finish(self.nb)

    def finish(self, nb: Any) -> None:
        """Write the notebook."""
        start = time.monotonic()
        self.write(nb)
        self.written = time.monotonic()
        self.cost = self.written - start

    def close(self) -> None:
        """Nothing is left beside the output."""


def follow(
    path: Path,  # the output
    nb: Any,  # the notebook, before its first cell
    write: Callable[[Any], None],  # writes a whole notebook there
) -> "Checkpoint | WholeFile":
    """Begin to keep an output file up to date; raises `OSError` if it cannot be written."""
    if hasattr(os, "pwrite"):
        checkpoint = Checkpoint(path)
        try:
            checkpoint.start(nb)
            return checkpoint
        except OSError as problem:
            checkpoint.close()
            if problem.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                raise
    whole = WholeFile(write)
    whole.start(nb)
    return whole


def write_notebook(nb: Any, path: Path) -> None:
    """Write a whole notebook in nbformat's layout, through to the disk."""
    write_text(path, nbformat.writes(nb))


def write_text(path: Path, text: str) -> None:
    """Write a whole file, through to the disk; what is no character becomes a question mark."""
    write_file(path, text.encode("utf-8", "replace"))
