"""What the input of a batch job is: a folder, a file, a glob or an fsspec address, listed without opening anything.

The rules are those that Azure ML has for MLflow models without a scoring script: nested folders are not searched, and a file of
another type fails the job. A scoring script of the user's own takes any file, at any depth.
"""

import glob
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mlops_nb.core.records import SpecificationError

KINDS = {
    **dict.fromkeys((".csv",), "csv"),
    **dict.fromkeys((".parquet", ".pqt"), "parquet"),
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".tiff", ".tif", ".bmp", ".gif"), "image"),
    **dict.fromkeys((".txt",), "text"),
}
_AGES = ("etag", "ETag", "mtime", "LastModified", "last_modified", "created")  # as file systems call it
_SHOWN = 10  # files named in one message


@dataclass(frozen=True)
class File:
    """One file of the input."""

    name: str  # as the output names it: relative to the folder that was given
    path: str  # where to open it: a path, or an fsspec address
    size: int  # bytes
    modified: str  # whatever the file system tells of its age
    kind: str  # csv, parquet, image, text, or any


def list_files(
    data: str,  # folder, file, glob or fsspec address
    scripted: bool = False,  # True: any type of file, at any depth
) -> list[File]:  # in the order of their names
    """List the input's files; raises `SpecificationError` where there are none, or some that could not be read."""
    found = [_file(*entry, scripted) for entry in (_remote(data, scripted) if "://" in data else _local(data, scripted))]
    files = sorted((f for f in found if not _hidden(f.name)), key=lambda file: file.name)
    if not files:
        deeper = "" if scripted else " Nested folders are not searched for a model without a scoring script."
        raise SpecificationError([f"No files in {data}.{deeper} Check the path, or give a glob such as 'folder/*.parquet'."])
    if wrong := [file.name for file in files if not file.kind]:
        more = f", and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise SpecificationError([f"{data}: {', '.join(wrong[:_SHOWN])}{more}: a model without a scoring script takes "
                                  f"{', '.join(KINDS)} only. Take them out, or deploy with a code_configuration."])
    return files


Entry = tuple[str, str, int, str]  # name, path, size, age


def _file(name: str, path: str, size: int, modified: str, scripted: bool) -> File:
    return File(name, path, size, modified, "any" if scripted else KINDS.get(PurePosixPath(name).suffix.lower(), ""))


def _hidden(name: str) -> bool:
    """Say whether a file is no data: `_SUCCESS`, `.crc` and their like, which Spark and others leave beside it."""
    return any(part.startswith((".", "_")) for part in PurePosixPath(name).parts)


def _local(data: str, scripted: bool) -> Iterator[Entry]:
    place = Path(data).expanduser().absolute()
    if place.is_dir():
        root, paths = place, _walk(place) if scripted else (e.path for e in os.scandir(place) if e.is_file())
    elif place.is_file():
        root, paths = place.parent, iter([str(place)])
    elif _pattern(data):
        root = _root(place)
        paths = (path for path in glob.iglob(str(place), recursive=True) if os.path.isfile(path))
    else:
        raise SpecificationError([f"No folder or file {place}. Check the path, or give a glob such as 'folder/*.parquet'."])
    for path in paths:
        known = os.stat(path)
        yield Path(path).relative_to(root).as_posix(), str(path), known.st_size, str(known.st_mtime_ns)


def _walk(folder: Path) -> Iterator[str]:
    return (os.path.join(here, name) for here, _, names in os.walk(folder) for name in names)


def _pattern(path: str) -> bool:
    return bool(re.search(r"[*?\[]", path))


def _root(place: Path) -> Path:
    """Take the folders of a glob before its first pattern."""
    parts = place.parts[: next(i for i, part in enumerate(place.parts) if _pattern(part))]
    return Path(*parts)


def open_system(address: str) -> tuple[Any, str]:
    """Open the file system of an fsspec address; returns it and the path in it, or raises `SpecificationError`."""
    import fsspec

    try:
        return fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as problem:
        raise SpecificationError([f"{address}: {problem}. Install the package that fsspec asks for, or give a path."]) from None


def _remote(address: str, scripted: bool) -> Iterator[Entry]:
    system, place = open_system(address)
    if _pattern(place):
        root, found = str(PurePosixPath(*_root(Path(place)).parts)), system.glob(place, detail=True).values()
    elif system.isfile(place):
        root, found = str(PurePosixPath(place).parent), [system.info(place)]
    elif system.isdir(place):
        root, found = place.rstrip("/"), (system.find(place, detail=True).values() if scripted else system.ls(place, detail=True))
    else:
        raise SpecificationError([f"No folder or file {address}. Check the address."])
    for entry in _only_files(found):
        age = next((str(entry[key]) for key in _AGES if key in entry), "")
        name = str(PurePosixPath(entry["name"]).relative_to(root))
        yield name, system.unstrip_protocol(entry["name"]), int(entry.get("size") or 0), age


def _only_files(found: Iterable[Any]) -> Iterator[dict[str, Any]]:
    return (entry for entry in found if entry["type"] == "file")


def shared(address: str) -> bool:
    """Say whether other processes see what is at an address: not so for fsspec's file systems in memory."""
    return not address.startswith("memory://")


def fetch(address: str, folder: Path, name: str) -> str:
    """Copy one remote file below a folder; returns its path there."""
    system, place = open_system(address)
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    system.get_file(place, str(target))
    return str(target)
