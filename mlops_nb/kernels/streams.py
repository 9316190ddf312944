"""What a cell prints, kept within bounds: the first part, the last part, and how much is missing between them."""

from collections import deque
from typing import Any

from nbformat.v4 import new_output

HALF = 4 * 2**20  # characters of a cell's stream that are kept of its beginning, and as many of its end


class Streams:
    """Gathers the stream outputs of one cell; neighbours of one name become one output."""

    def __init__(self, outputs: list[Any]):
        self.outputs = outputs
        self.open: tuple[Any, list[str]] | None = None  # the last output, and its parts not yet joined
        self.kept = {"stdout": 0, "stderr": 0}
        self.tails: dict[str, _Tail] = {}

    def add(self, name: str, text: str) -> None:
        """Take what a cell printed."""
        if name in self.tails:
            self.tails[name].add(text)
            return
        room = max(0, HALF - self.kept.get(name, 0))
        self.kept[name] = self.kept.get(name, 0) + len(text)
        self._append(name, text[:room])
        if len(text) > room:
            self.settle()
            self.tails[name] = _Tail(new_output("stream", name=name, text=""))
            self.outputs.append(self.tails[name].output)
            self.tails[name].add(text[room:])

    def _append(self, name: str, text: str) -> None:
        if self.open is None or not self.outputs or self.outputs[-1] is not self.open[0] or self.open[0].name != name:
            self.settle()
            self.open = (new_output("stream", name=name, text=""), [])
            self.outputs.append(self.open[0])
        self.open[1].append(text)
        if len(self.open[1]) > 1000:
            self.settle()

    def settle(self) -> None:
        """Put the gathered text into the outputs."""
        if self.open is not None and self.open[1]:
            output, parts = self.open
            output.text = "".join([output.text, *parts])
            parts.clear()
        for tail in self.tails.values():
            tail.settle()


class _Tail:
    """The end of a stream that is too long to be kept."""

    def __init__(self, output: Any):
        self.output, self.parts, self.size, self.missing = output, deque[str](), 0, 0

    def add(self, text: str) -> None:
        if len(text) > HALF:
            self.missing += _bytes(text[:-HALF])
            text = text[-HALF:]
        if len(self.parts) > 10000:
            self.parts = deque(["".join(self.parts)])
        self.parts.append(text)
        self.size += len(text)
        while self.size - len(self.parts[0]) >= HALF:
            gone = self.parts.popleft()
            self.size -= len(gone)
            self.missing += _bytes(gone)

    def settle(self) -> None:
        kept = "".join(self.parts)
        cut = max(0, len(kept) - HALF)
        missing = self.missing + _bytes(kept[:cut])
        note = f"\n[... {missing:,} bytes of {self.output.name} left out here ...]\n" if missing else ""
        self.output.text = note + kept[cut:]


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
