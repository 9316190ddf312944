"""Look a lock up in a copy of the OSV database, without a network: a folder of its JSON records, or its `all.zip`."""

import json
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mlops_nb.packaging.audit import Finding
from mlops_nb.packaging.lock import Pin, canonical


def read_records(place: Path) -> Iterator[dict[str, Any]]:
    """Yield the PyPI records of a database that were not withdrawn; raises `ValueError` for a file that is no record."""
    for name, data in _documents(place):
        try:
            record = json.loads(data)
            about = [affected["package"]["ecosystem"] for affected in record.get("affected", []) if "package" in affected]
        except (ValueError, TypeError, KeyError, AttributeError) as problem:
            raise ValueError(f"{name} is no OSV record ({problem}). Fetch the database again.") from None
        if "PyPI" in about and "withdrawn" not in record:
            yield record


def _documents(place: Path) -> Iterator[tuple[str, bytes]]:
    archives = [place] if place.is_file() else sorted(place.rglob("*.zip"))
    for path in archives:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                if name.endswith(".json"):
                    yield f"{path}/{name}", archive.read(name)
    if place.is_dir():
        for path in sorted(place.rglob("*.json")):
            yield str(path), path.read_bytes()


def find_known(pins: Iterable[Pin], records: Iterable[dict[str, Any]]) -> list[Finding]:
    """List every pinned version that a record says is affected, with the versions that mend it."""
    by_name: dict[str, list[Pin]] = {}
    for pin in pins:
        by_name.setdefault(pin.name, []).append(pin)
    found = {}
    for record in records:
        for affected in record["affected"]:
            package = affected.get("package", {})
            if package.get("ecosystem") != "PyPI":
                continue
            for pin in by_name.get(canonical(package.get("name", "")), []):
                if is_affected(pin.version, affected):
                    mended = ", ".join(_fixes(affected)) or "no version yet"
                    what = f"{record['id']}: {record.get('summary') or 'known vulnerability'}; mended in {mended}"
                    found[pin.name, record["id"]] = Finding(f"lock.txt:{pin.line} {pin.name} {pin.version}", what)
    return [found[key] for key in sorted(found)]


def is_affected(version: str, affected: dict[str, Any]) -> bool:
    """Decide as OSV's specification does: listed by name, or inside one of the ranges."""
    from packaging.version import InvalidVersion, Version

    try:
        ours = Version(version)
    except InvalidVersion:
        return version in affected.get("versions", [])
    for listed in affected.get("versions", []):
        if listed == version or (_valid(listed) and Version(listed) == ours):
            return True
    ranges = [one for one in affected.get("ranges", []) if one.get("type") in ("ECOSYSTEM", "SEMVER")]
    return any(_is_inside(ours, one["events"]) for one in ranges)


def _is_inside(ours: Any, events: list[dict[str, str]]) -> bool:
    """Walk a range's events in the order of their versions; what is no version of PyPI's kind counts as the very first."""
    from packaging.version import Version

    lowest = Version("0.dev0")
    steps = [(kind, Version(at) if _valid(at) and at != "0" else lowest) for event in events for kind, at in event.items()]
    order = {"introduced": 1, "fixed": 0, "last_affected": 2, "limit": 0}
    vulnerable = False
    for kind, at in sorted(steps, key=lambda step: (step[1], order.get(step[0], 0))):
        if kind == "introduced" and ours >= at:
            vulnerable = True
        elif (kind in ("fixed", "limit") and ours >= at) or (kind == "last_affected" and ours > at):
            vulnerable = False
    return vulnerable


def _valid(version: str) -> bool:
    from packaging.version import InvalidVersion, Version

    try:
        Version(version)
    except InvalidVersion:
        return False
    return True


def _fixes(affected: dict[str, Any]) -> list[str]:
    ranges = (one for one in affected.get("ranges", []) if one.get("type") in ("ECOSYSTEM", "SEMVER"))
    return [event["fixed"] for one in ranges for event in one.get("events", []) if "fixed" in event]
