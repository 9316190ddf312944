"""Pin every package that a served model needs, with the hashes of its files where they can be had."""

import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_nb.core.records import SpecificationError


@dataclass(frozen=True)
class Pin:
    """One line of a lock."""

    name: str  # normalised
    version: str
    line: int
    marker: str = ""  # where it is installed; empty: everywhere
    hashes: tuple[str, ...] = ()  # sha256, of each of its files


@dataclass(frozen=True)
class Lock:
    """A lock, and how it came about."""

    text: str
    hashed: bool  # every pin has hashes
    how: str


def read_pins(text: str) -> list[Pin]:
    """Read a lock's exact pins; raises `SpecificationError` listing every line that is none."""
    pins: list[Pin] = []
    faults = []
    for number, line in _whole_lines(text):
        found = re.fullmatch(r"([\w.-]+)(?:\[[\w,.\s-]*\])?\s*==\s*([^\s;*]+)\s*(?:;\s*(.*?))?((?:\s+--hash=\S+)*)", line)
        if not found:
            faults.append(f"lock line {number}: '{line[:80]}' is no exact pin. Write name==version.")
            continue
        hashes = tuple(re.findall(r"--hash=sha256:([0-9a-f]{64})", found[4]))
        pins.append(Pin(canonical(found[1]), found[2], number, (found[3] or "").strip(), hashes))
    if faults:
        raise SpecificationError(faults)
    return pins


def _whole_lines(text: str) -> Iterable[tuple[int, str]]:
    """Yield the requirements with the line they begin on; a backslash goes on in the next line."""
    begun, start = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        start = start if begun else number
        content = re.sub(r"(^|\s)#.*", "", line).strip()
        begun += " " * bool(begun) + content.rstrip("\\").strip()
        if not content.endswith("\\"):
            if begun:
                yield start, begun
            begun = ""


def canonical(name: str) -> str:
    """Write a package's name as the index does."""
    return re.sub(r"[-_.]+", "-", name).lower()


def make_lock(
    wanted: list[str],  # requirements of the model and of the server
    constraints: str,  # a lock whose versions are taken wherever the model does not ask for another
    python: str,  # 3.11
) -> Lock:
    """Pin what is wanted and everything below it; raises `SpecificationError` where no set of versions fits.

    uv resolves, from its cache first and from the index where that is not enough. Where it reaches neither, the versions
    installed here are pinned, without hashes.
    """
    from packaging.requirements import Requirement

    asked = {canonical(Requirement(line).name) for line in wanted if Requirement(line).specifier}
    kept = [line for line in constraints.splitlines() if canonical(re.split(r"[=<>;\[\s]", line, maxsplit=1)[0]) not in asked]
    problem = ""
    for reach in (["--offline"], []):
        done = _resolve(wanted, kept, python, reach)
        if done.returncode == 0:
            pins = read_pins(done.stdout)
            return Lock(done.stdout, all(pin.hashes for pin in pins), "uv, from its cache" if reach else "uv, from the index")
        problem = done.stderr
    installed = _installed(wanted, python)
    if isinstance(installed, str):
        return Lock(installed, False, "the versions installed here; no index could be reached for hashes")
    raise SpecificationError([f"No lock for {', '.join(sorted(wanted))}: {problem.strip()}", *installed])


def _resolve(wanted: list[str], constraints: list[str], python: str, reach: list[str]) -> Any:
    import os
    import tempfile

    environment = dict(os.environ)
    if places := environment.get("PIP_FIND_LINKS"):
        environment.setdefault("UV_FIND_LINKS", ",".join(places.split()))
    if index := environment.get("PIP_INDEX_URL"):
        environment.setdefault("UV_DEFAULT_INDEX", index)
    with tempfile.TemporaryDirectory(prefix="mlops-nb-") as folder:
        limits = Path(folder, "constraints.txt")
        limits.write_text("\n".join(constraints) + "\n")
        command = [sys.executable, "-m", "uv", "pip", "compile", "-", "--constraints", str(limits), "--universal", "--quiet",
                   "--python-version", python, "--generate-hashes", "--no-annotate", "--no-header", "--no-config", *reach]
        return subprocess.run(command, input="\n".join(sorted(wanted)) + "\n", capture_output=True, text=True, check=False,  # noqa: S603
                              timeout=300, env=environment, cwd=folder)


def _installed(wanted: list[str], python: str) -> str | list[str]:
    """Pin what is installed here, following each package's own requirements; returns the faults where it does not fit."""
    from importlib.metadata import PackageNotFoundError, distribution

    from packaging.requirements import Requirement

    if python != "{}.{}".format(*sys.version_info[:2]):
        return [f"This is Python {sys.version_info[0]}.{sys.version_info[1]}, the model asks for {python}."]
    found: dict[str, str] = {}
    faults: list[str] = []
    waiting = [(Requirement(line), "") for line in wanted]
    seen = set()
    while waiting:
        requirement, extra = waiting.pop()
        key = (canonical(requirement.name), extra, str(requirement.specifier))
        if key in seen or (requirement.marker and not requirement.marker.evaluate({"extra": extra})):
            continue
        seen.add(key)
        try:
            there = distribution(requirement.name)
        except PackageNotFoundError:
            faults.append(f"{requirement.name} is not installed here.")
            continue
        if not requirement.specifier.contains(there.version, prereleases=True):
            faults.append(f"{requirement.name} is installed as {there.version}, not {requirement.specifier}.")
        found[canonical(requirement.name)] = there.version
        below = [Requirement(line) for line in there.requires or []]
        waiting += [(one, name) for one in below for name in ("", *requirement.extras)]
    return faults or "".join(f"{name}=={version}\n" for name, version in sorted(found.items()))


def installed_versions() -> str:
    """Write everything installed here as a lock, for a project that has none of its own."""
    from importlib.metadata import distributions

    there = {canonical(one.metadata["Name"]): one.version for one in distributions() if one.metadata["Name"]}
    return "".join(f"{name}=={version}\n" for name, version in sorted(there.items()))
