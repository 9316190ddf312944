"""What the generated files are made from, and how they are written."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_nb.core.files import write_file
from mlops_nb.core.records import SpecificationError
from mlops_nb.core.settings import Settings

RUNTIME = "/run/mlops-nb"  # where systemd makes the folders of the workers' sockets
LONGEST_SOCKET = 107  # bytes; Linux takes no longer path of a socket


@dataclass(frozen=True)
class Generated:
    """One file to be written."""

    text: str
    secret: bool = False  # only its owner may read it


def default_folder(settings: Settings, endpoint: str, kind: str) -> Path:
    """Say where generated files go when nobody asks for another place: into the state folder, which git ignores."""
    return settings.state / "hosting" / settings.environment / endpoint / kind


def read_endpoint(settings: Settings, endpoint: str) -> dict[str, Any]:
    """Read what an endpoint should be; raises `LookupError` for an unknown one, `SpecificationError` for an empty one."""
    from mlops_nb.outer_loop.state import read_wanted

    wanted = read_wanted(settings, endpoint)
    if not wanted["deployments"]:
        raise SpecificationError([f"{endpoint} has no deployments. Deploy a model to it first."])
    return wanted


def worker_socket(
    runtime: str,  # folder, e.g. /run/mlops-nb
    environment: str,
    endpoint: str,
    deployment: str,
    instance: int | str,  # 0, 1, ...; systemd's own `%i` in a template
) -> str:
    """Name the socket of one instance; raises `SpecificationError` for a name that Linux would not take."""
    path = f"{runtime}/{environment}-{endpoint}/{deployment}-{instance}/sock"
    if len(path.encode()) > LONGEST_SOCKET:
        raise SpecificationError(
            [f"{path}: over {LONGEST_SOCKET} bytes, too long for a socket. Pass a shorter --runtime."]
        )
    return path


def write_folder(folder: Path, files: Mapping[str, Generated]) -> list[Path]:
    """Write generated files, secrets readable by their owner alone."""
    paths = []
    for name, file in files.items():
        path = folder / name
        if file.secret:
            _write_secret(path, file.text)
        else:
            write_file(path, file.text)
        paths.append(path)
    return paths


def _write_secret(path: Path, text: str) -> None:
    """Write a file that nobody else could read at any moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def comment(lines: Iterable[str]) -> str:
    """Make the head of a generated file."""
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)
