"""Make a package in a folder of its own: lay the context, list what is in it, look at it, sign it off."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from mlops_nb.core.records import SpecificationError
from mlops_nb.packaging import scans
from mlops_nb.packaging.audit import Check, write_manifest
from mlops_nb.packaging.code import serving_requirements
from mlops_nb.packaging.context import Source, lay_context, settle
from mlops_nb.packaging.lock import Lock, make_lock
from mlops_nb.packaging.models import read_allowed
from mlops_nb.packaging.sbom import FILE, make_sbom


@dataclass(frozen=True)
class Looks:
    """How the checks look."""

    skip: dict[str, str] = field(default_factory=dict)  # name of a check -> why it is left out
    osv: str = ""  # address, folder or all.zip of an OSV mirror
    allow_unpinned: bool = False
    allowed: Path | None = None  # file of names that model files may fetch beside the known ones
    notebooks: Sequence[scans.Named] = ()


def check_skips(skip: dict[str, str]) -> None:
    """Raise `SpecificationError` for a check that does not exist, or that is skipped without a reason."""
    faults = [f"No check '{name}' (checks: {', '.join(scans.NAMES)})." for name in skip if name not in scans.NAMES]
    silent = [name for name, reason in skip.items() if not reason.strip()]
    faults += [f"{name} is skipped without a reason. Write one: --skip {name}='why'" for name in silent]
    if faults:
        raise SpecificationError(faults)


def lock_model(folder: Path, python: str, constraints: str) -> Lock:
    """Pin what a model's requirements and the server need."""
    wanted = _requirements(folder / "requirements.txt")
    return make_lock(sorted({*wanted, *serving_requirements()}), constraints, python)


def _requirements(path: Path) -> list[str]:
    if not path.is_file():
        raise SpecificationError([f"No {path}. Log the model with MLflow, which writes what it needs."])
    lines = (line.partition(" #")[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line and not line.startswith(("#", "-"))]


def make_package(source: Source, lock: Lock, folder: Path, looks: Looks) -> tuple[list[Check], str]:
    """Lay a package into an empty folder and check it; returns the checks and, where all passed, the digest of its manifest."""
    lay_context(source, lock, folder)
    bill = make_sbom(source, folder)
    allowed = read_allowed(looks.allowed) if looks.allowed else set()
    code = [("code", folder / "code"), ("model", folder / "model")] + ([("script", folder / "script")] if source.script else [])
    checks = scans.run_checks({
        "base-image": partial(scans.scan_base, source.base, looks.allow_unpinned),
        "bandit": partial(scans.scan_code, code, looks.notebooks),
        "detect-secrets": partial(scans.scan_secrets, [("", folder)], looks.notebooks),
        "pip-audit": partial(scans.scan_packages, lock.text, looks.osv),
        "model-files": partial(scans.scan_model, folder / "model", allowed),
        "checkov": partial(scans.scan_dockerfile, folder),
        "sbom": partial(scans.scan_bill, bill),
    }, looks.skip)
    if any(check.state == "failed" for check in checks):
        return checks, ""
    (folder / FILE).write_text(bill)
    about = {"name": source.name, "version": source.version, "environment": source.environment, "model": source.model,
             "base": source.base.reference, "checks": {check.name: check.state for check in checks}}
    digest = write_manifest(folder, about)
    settle(folder)
    return checks, digest
