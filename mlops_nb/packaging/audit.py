"""What the checks of a package found, and the list of its files that proves later that it is still the same package."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mlops_nb.core.files import write_file

MANIFEST = "manifest.json"
OWN = ".venv"  # what `run` makes beside a package's files; never part of the package


@dataclass(frozen=True)
class Finding:
    """One thing that a check found; it never holds a secret's value."""

    place: str  # file and line, or cell and line, or package and version
    what: str
    severity: str = ""
    accepted: str = ""  # why it does not count, where somebody said so


@dataclass(frozen=True)
class Check:
    """What one check says of a package. One that could not run has not passed."""

    name: str
    passed: bool
    findings: list[Finding] = field(default_factory=list)
    detail: str = ""
    seconds: float = 0.0
    version: str = ""  # of the tool
    skipped: str = ""  # the reason, where a person skipped it

    @property
    def open(self) -> list[Finding]:
        """The findings that nobody accepted."""
        return [finding for finding in self.findings if not finding.accepted]

    @property
    def state(self) -> str:
        """Say passed, skipped or failed."""
        return "skipped" if self.skipped else "passed" if self.passed else "failed"


@dataclass(frozen=True)
class Package:
    """One package: which model, where it lies, what the checks said."""

    name: str
    version: str
    environment: str
    model: str  # address of the model version, or `file:` and a folder
    folder: str  # where its files are; empty when they were removed
    digest: str  # SHA-256 of its manifest; empty when it did not pass
    checks: list[Check]
    by: str = ""
    persona: str = ""
    at: str = ""
    base: str = ""  # image it stands on
    image: str = ""  # id of the built image
    builder: str = ""  # docker, podman or buildah; empty: a folder only

    @property
    def uri(self) -> str:
        """Address in the ledger: `package:dev.diamonds/3`."""
        return f"package:{self.environment}.{self.name}/{self.version}"

    @property
    def passed(self) -> bool:
        """Say whether no check stands in its way."""
        return not self.failed

    @property
    def failed(self) -> list[Check]:
        """The checks that say no."""
        return [check for check in self.checks if check.state == "failed"]


def write_audit(package: Package, path: Path) -> Path:
    """Write everything that is known of a package as JSON."""
    return write_file(path, json.dumps({"passed": package.passed, **asdict(package)}, indent=1) + "\n")


def read_audit(path: Path) -> Package:
    """Read what `write_audit` wrote."""
    fields = json.loads(path.read_text())
    fields.pop("passed")
    checks = [Check(**{**check, "findings": [Finding(**one) for one in check["findings"]]}) for check in fields["checks"]]
    return Package(**{**fields, "checks": checks})


def for_ledger(check: Check) -> dict[str, Any]:
    """Shorten a check to what its ledger entry keeps: everything but what is empty."""
    return {key: value for key, value in asdict(check).items() if value or key == "passed"}


def sha256(path: Path) -> str:
    """Hash a file of any size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_of(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files of a package in order, with their names in it."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_dir() and name != MANIFEST and name.partition("/")[0] != OWN:
            yield name, path


def write_manifest(folder: Path, about: dict[str, Any]) -> str:  # the package's digest
    """Write every file's hash beside the files. It holds no time and no name: the same files make the same manifest."""
    content = {**about, "files": {name: sha256(path) for name, path in files_of(folder)}}
    data = (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()
    (folder / MANIFEST).write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def check_manifest(folder: Path, digest: str) -> list[str]:
    """List what is not as it was when the package was signed off: nothing for a sound one."""
    manifest = folder / MANIFEST
    if not manifest.is_file():
        return [f"{manifest} is missing."]
    faults = [] if sha256(manifest) == digest else [f"{manifest} is not the one that was signed off."]
    wanted = json.loads(manifest.read_text())["files"]
    found = dict(files_of(folder))
    faults += [f"{folder / name} is missing." for name in sorted(wanted.keys() - found.keys())]
    faults += [f"{folder / name} does not belong to the package." for name in sorted(found.keys() - wanted.keys())]
    changed = [name for name in sorted(wanted.keys() & found.keys()) if sha256(found[name]) != wanted[name]]
    return faults + [f"{folder / name} was changed." for name in changed]
