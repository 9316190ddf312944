"""List every global that a pickle would fetch, without fetching one.

A pickle is a program: it runs whatever the globals are that it names. This reads it with Python's own reader, in which
every global is a stand-in that takes any argument and does nothing. A pickle has no branches, so what is named here is
all that can be named. joblib's files, which hold their arrays between the program's lines, are read alike.
"""

import bz2
import gzip
import io
import lzma
import math
import pickle
import pickletools
import re
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, ClassVar

_JOBLIB = "joblib.numpy_pickle.NumpyArrayWrapper"
_CHUNK = 2**20


class Unreadable(Exception):
    """A pickle that cannot be followed to its end; the message says where it goes astray."""


class _Stub:
    """Stands in for whatever a pickle names."""

    name = ""

    def __new__(cls, *arguments: Any, **options: Any) -> "_Stub":
        stub = object.__new__(cls)
        stub.arguments, stub.state = arguments, None
        return stub

    arguments: tuple[Any, ...]
    state: Any

    def __init__(self, *arguments: Any, **options: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def __call__(self, *arguments: Any, **options: Any) -> "_Stub":
        return _Stub()

    def append(self, value: Any) -> None:
        pass

    def extend(self, values: Any) -> None:
        pass

    def add(self, value: Any) -> None:
        pass


class _Reader(pickle._Unpickler):  # the one written in Python: its steps can be overridden, and it fetches nothing by itself
    def __init__(self, file: BinaryIO, names: set[str]):
        super().__init__(file)
        self.file, self.names = file, names

    def find_class(self, module: str, name: str) -> Any:
        self.names.add(f"{module}.{name}")
        return type("Stub", (_Stub,), {"name": f"{module}.{name}"})

    def get_extension(self, code: int) -> Any:
        raise Unreadable(f"names the global of extension code {code}")

    def persistent_load(self, pid: Any) -> Any:  # torch keeps its arrays beside the pickle
        return _Stub()

    def build(self) -> None:
        pickle._Unpickler.load_build(self)  # type: ignore[attr-defined]
        built = self.stack[-1]  # type: ignore[attr-defined]
        if isinstance(built, _Stub) and built.name == _JOBLIB:
            _pass_array(self.file, built.state, self.names)

    dispatch: ClassVar = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: build}  # type: ignore[attr-defined, dict-item]


def list_globals(file: BinaryIO) -> set[str]:
    """List the globals of every pickle in a file, compressed or not, up to its end; raises `Unreadable`."""
    names: set[str] = set()
    stream = decompress(file)
    first = True
    while first or stream.peek(1):
        if not first and stream.peek(1)[:1] != b"\x80":
            raise Unreadable("holds bytes behind its end that are no pickle")
        first = False
        try:
            _Reader(stream, names).load()
        except Unreadable:
            raise
        except Exception as problem:  # whatever a broken or a hostile one makes of the reader
            raise Unreadable(f"cannot be followed to its end ({type(problem).__name__}: {str(problem)[:100]})") from None
    return names


def _pass_array(file: BinaryIO, state: Any, names: set[str]) -> None:
    """Step over an array as joblib wrote it; one of objects is a pickle again."""
    if not isinstance(state, dict) or not isinstance(state.get("shape"), tuple):
        raise Unreadable("holds an array without a shape")
    size, objects = _item(state.get("dtype"))
    if objects:
        _Reader(file, names).load()
        return
    if state.get("numpy_array_alignment_bytes") is not None:
        file.read(file.read(1)[0])
    left = math.prod(state["shape"]) * size
    while left > 0:
        part = file.read(min(left, _CHUNK))
        if not part:
            raise Unreadable("ends within an array")
        left -= len(part)


def _item(dtype: Any) -> tuple[int, bool]:  # bytes of one item, and whether it holds objects
    import numpy as np

    text = dtype.arguments[0] if isinstance(dtype, _Stub) and dtype.name == "numpy.dtype" and dtype.arguments else None
    if not isinstance(text, str) or not re.fullmatch(r"[|<>=]?[biufcSUVOmM?]\d{0,9}", text):
        raise Unreadable("holds an array of an unknown type")
    return np.dtype(text).itemsize, _holds_objects(dtype)


def _holds_objects(dtype: Any) -> bool:
    if isinstance(dtype, _Stub):
        return any(isinstance(word, str) and "O" in word for word in dtype.arguments) or _holds_objects(dtype.state)
    parts = dtype.values() if isinstance(dtype, dict) else dtype if isinstance(dtype, tuple | list) else ()
    return any(_holds_objects(part) for part in parts)


def decompress(file: BinaryIO) -> io.BufferedReader:
    """Look through the compressions that joblib and gzip know; raises `Unreadable` for one that cannot be undone here."""
    head = file.read(6)
    file.seek(0)
    openers: dict[bytes, Callable[[Any], Any]] = {
        b"\x1f\x8b": lambda packed: gzip.GzipFile(fileobj=packed), b"BZh": bz2.BZ2File,
        b"\xfd7zXZ": lzma.LZMAFile, b"]\x00": lzma.LZMAFile}
    for magic, opener in openers.items():
        if head.startswith(magic):
            return io.BufferedReader(opener(file))
    if head.startswith(b"\x04\x22\x4d\x18"):
        raise Unreadable("is compressed with lz4, which is not read here; save it with zlib")
    plain: Any = file
    return io.BufferedReader(_Inflated(file) if head[:1] == b"x" and _is_zlib(file) else plain)


def _is_zlib(file: BinaryIO) -> bool:
    """Tell a zlib stream from a text that begins with an x."""
    try:
        return bool(zlib.decompressobj().decompress(file.read(2**16), 1))
    except zlib.error:
        return False
    finally:
        file.seek(0)


class _Inflated(io.RawIOBase):
    """Read a zlib stream as a file."""

    def __init__(self, file: BinaryIO):
        self.file, self.engine, self.ready = file, zlib.decompressobj(), b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.ready and not self.engine.eof:
            given = self.engine.unconsumed_tail or self.file.read(_CHUNK)
            if not given:
                break
            try:
                self.ready = self.engine.decompress(given, _CHUNK)
            except zlib.error as problem:
                raise Unreadable(f"is no sound zlib stream ({problem})") from None
        part, self.ready = self.ready[: len(buffer)], self.ready[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


def is_pickle(head: bytes, file: BinaryIO) -> bool:
    """Tell whether a file is a pickle of any protocol: the old ones have no mark, so their steps are followed."""
    if re.match(rb"\x80[\x02-\x05]", head):
        return True
    file.seek(0)
    fetches = False
    try:
        for step, _, _ in pickletools.genops(file):
            fetches = fetches or step.name in ("GLOBAL", "INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4", "REDUCE", "OBJ")
    except Exception:  # no pickle: its first wrong step ends it
        fetches = False
    file.seek(0)
    return fetches
