"""Look at a package before it leaves: one function per tool. A tool that could not look has not passed."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mlops_nb.packaging.audit import Check, Finding
from mlops_nb.packaging.context import Base
from mlops_nb.packaging.lock import Pin, canonical, read_pins
from mlops_nb.packaging.models import look_into_folder
from mlops_nb.packaging.notebooks import lay_notebooks

Named = tuple[str, Path]  # how findings shall call a file or folder, and where it is
NAMES = ("base-image", "bandit", "detect-secrets", "pip-audit", "model-files", "checkov", "sbom")
_LONGEST = 300  # seconds that a tool may take
_LARGEST = 5 * 2**20  # bytes of a text that is searched for secrets
_BAIT = (("django", "2.0"), ("flask", "0.5"), ("pyyaml", "5.1"))  # versions with faults that every database knows


class CannotLook(Exception):
    """A tool could not do its work; the message says why and what to do."""


def run_checks(
    wanted: Mapping[str, Callable[[], Check]],  # name -> what makes the check
    skip: dict[str, str],  # name -> why a person leaves it out
) -> list[Check]:
    """Make every check, the tools with a process of their own side by side; one that raises has failed."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        threads = {name: pool.submit(_attempt, name, make) for name, make in wanted.items()
                   if name not in skip and name in ("bandit", "pip-audit", "checkov")}
        return [Check(name, False, skipped=skip[name], detail="not looked at") if name in skip
                else threads[name].result() if name in threads else _attempt(name, make) for name, make in wanted.items()]


def _attempt(name: str, make: Callable[[], Check]) -> Check:
    from dataclasses import replace

    begun = time.monotonic()
    try:
        made = make()
    except (CannotLook, OSError, ValueError, ImportError) as problem:
        made = Check(name, False, detail=f"could not look: {str(problem)[:2000]}")
    return replace(made, seconds=round(time.monotonic() - begun, 2))


def _run(command: list[str], cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NO_COLOR": "1", **variables}
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST, cwd=cwd, env=environment, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise CannotLook(f"{command[0]} took over {_LONGEST} seconds.") from None


def _json(done: subprocess.CompletedProcess[str], tool: str) -> Any:
    try:
        return json.loads(done.stdout)
    except ValueError:
        said = (done.stderr or done.stdout).strip()[-1500:]
        raise CannotLook(f"{tool} ended with {done.returncode} and no report: {said}") from None


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        raise CannotLook(f"{package} is not installed. Install what looks: pip install 'mlops-nb[scan]'") from None


# --- the code --------------------------------------------------------------------------------------------------------


def scan_code(folders: Iterable[Named], notebooks: Iterable[Named]) -> Check:
    """Have bandit read Python files and notebooks' cells; what is of medium severity or more stops the package.

    A line that says `# nosec` or, as ruff's rules S are bandit's B, `# noqa: S307` accepts what stands on it.
    """
    version = _version("bandit")
    with tempfile.TemporaryDirectory(prefix="mlops-nb-") as scratch:
        cells = {file: place for file, place in lay_notebooks(notebooks, Path(scratch)).items() if file.suffix == ".py"}
        named = {**{folder.resolve(): name for name, folder in folders}, **{file.resolve(): place for file, place in cells.items()}}
        if not named:
            return Check("bandit", True, detail="no Python code", version=version)
        # asserts and other notes of low severity are not what a package is stopped for
        command = [sys.executable, "-m", "bandit", "--recursive", "--format", "json", "--quiet", "--severity-level", "medium"]
        places = [str(place) for place in named if place not in {file.resolve() for file in cells}]
        report = _json(_run([*command, "--exit-zero", *places, *([scratch] if cells else [])], Path(scratch)), "bandit")
        findings = [Finding(_place(fault["filename"], named, 0), f"cannot be read: {fault['reason']}") for fault in report["errors"]]
        findings += [_bandit_finding(issue, named) for issue in report["results"]]
    lines = report["metrics"]["_totals"]["loc"]
    counted = Check("bandit", True, findings, f"{lines:.0f} lines of Python", version=version)
    return Check("bandit", not counted.open, findings, counted.detail, version=version)


def _bandit_finding(issue: dict[str, Any], named: dict[Path, str]) -> Finding:
    rule, where = issue["test_id"], _place(issue["filename"], named, issue["line_number"])
    text = issue["test_name"] if rule in ("B105", "B106", "B107") else issue["issue_text"]  # these repeat the password
    accepted = ""
    lines = Path(issue["filename"]).read_text().splitlines()
    for number in issue["line_range"]:
        if re.search(rf"#\s*noqa:[^#]*\bS{rule[1:]}\b", lines[number - 1] if number <= len(lines) else ""):
            accepted = f"noqa: S{rule[1:]} on line {number}"
    return Finding(where, f"{rule}: {text}", issue["issue_severity"].lower(), accepted)


def _place(file: str, named: dict[Path, str], line: int) -> str:
    path = Path(file).resolve()
    ending = f":{line}" if line else ""
    for place, name in named.items():
        if path == place:
            return f"{name}{ending}"
        if path.is_relative_to(place):
            return "/".join(filter(None, [name, path.relative_to(place).as_posix()])) + ending
    return f"{file}{ending}"


# --- secrets ---------------------------------------------------------------------------------------------------------

# hexadecimal that is the name of something: `run_id='...'`, `"digest": "..."`, `model_uuid: ...`
_NAMES_SOMETHING = re.compile(
    r"(?:^|[^a-z])(?:\w*_id|\w*uuid|id|digest|sha\d*|hash|commit|fingerprint|version|run|code)[\"']?\s*[:=(]\s*[\"'(]*"
    r"(?:sha256:|m-|runs:/|models:/)?$", re.IGNORECASE)

_REFERENCE = r"^(env|file|keyvault):"  # where a secret is, as `mlops_nb.core.secrets` reads it; not the secret
_HASH = r"^\s*--hash=sha256:[0-9a-f]{64}\s*\\?$"  # half the lines of a lock


def scan_secrets(folders: Iterable[Named], notebooks: Iterable[Named]) -> Check:
    """Have detect-secrets read every text and every notebook with its outputs; only the place and the kind are told.

    Nothing is sent anywhere to see whether a secret works. A line that says `pragma: allowlist secret` is passed over.
    """
    version = _version("detect-secrets")
    from detect_secrets.settings import default_settings

    with tempfile.TemporaryDirectory(prefix="mlops-nb-") as scratch:
        texts = dict(lay_notebooks(notebooks, Path(scratch)))
        large = []
        for name, folder in folders:
            for path in [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file()):
                place = "/".join(filter(None, [name, path.relative_to(folder).as_posix() if path != folder else ""]))
                if _is_text(path):
                    texts[path] = place
                    large += [place] * (path.stat().st_size > _LARGEST)
        with default_settings() as settings:
            usual = [{"path": path, **options} for path, options in settings.filters.items()]
            settings.configure_filters([
                *usual,
                {"path": "detect_secrets.filters.regex.should_exclude_line", "pattern": [_HASH]},
                {"path": "detect_secrets.filters.regex.should_exclude_secret", "pattern": [_REFERENCE]},
            ])
            findings = [finding for path, place in texts.items() if place not in large for finding in _secrets_in(path, place)]
    detail = f"{len(texts) - len(large)} texts" + (f"; too large to be read: {', '.join(large)}" if large else "")
    return Check("detect-secrets", not findings, findings, detail, version=version)


def _is_text(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(8192)
    try:
        head.decode()
    except UnicodeDecodeError as problem:
        return problem.start > len(head) - 4  # cut within a letter
    return b"\0" not in head


def _secrets_in(path: Path, place: str) -> Iterator[Finding]:
    from detect_secrets import SecretsCollection

    found = SecretsCollection()
    found.scan_file(str(path))
    lines = path.read_text(errors="replace").splitlines()
    seen = set()
    for _, secret in found:
        line = lines[secret.line_number - 1] if 0 < secret.line_number <= len(lines) else ""
        before, value, _ = line.partition(secret.secret_value or "\0")
        is_name = secret.type == "Hex High Entropy String" and value and _NAMES_SOMETHING.search(before)
        if not is_name and (secret.line_number, secret.type) not in seen:
            seen.add((secret.line_number, secret.type))
            yield Finding(f"{place}:{secret.line_number}", secret.type)


# --- packages --------------------------------------------------------------------------------------------------------


def scan_packages(
    lock: str,
    osv: str,  # "": PyPI's own database; an address: an OSV service; a folder or all.zip: a copy of the OSV database
) -> Check:
    """Look every pin up among the known vulnerabilities; every pin must have been looked up."""
    pins = read_pins(lock)
    if osv and not re.match(r"https?://", osv):
        return _scan_copy(pins, Path(osv))
    version = _version("pip-audit")
    bait = next((name, at) for name, at in _BAIT if name not in {pin.name for pin in pins})
    service = ["--vulnerability-service", "osv", "--osv-url", osv] if osv else []
    report = []
    with tempfile.TemporaryDirectory(prefix="mlops-nb-") as scratch:
        for file in _lists([*((pin.name, pin.version) for pin in pins), bait], Path(scratch)):
            done = _run([sys.executable, "-m", "pip_audit", "--strict", "--requirement", file, "--no-deps", "--disable-pip",
                         "--format", "json", "--progress-spinner", "off", *service], Path(scratch))
            report += _json(done, "pip-audit")["dependencies"]
    if unseen := [entry["name"] for entry in report if "vulns" not in entry]:
        raise CannotLook(f"{', '.join(unseen)}: not looked up.")
    known = {(canonical(entry["name"]), entry["version"]): entry["vulns"] for entry in report}
    if not known.get(bait):
        raise CannotLook(f"The database knows no fault of {bait[0]} {bait[1]}, which has some: it is empty. Name another --osv-mirror.")
    if missing := [f"{pin.name} {pin.version}" for pin in pins if (pin.name, pin.version) not in known]:
        raise CannotLook(f"{', '.join(missing)}: not looked up.")
    findings = [_vulnerability(pin, fault) for pin in pins for fault in known[pin.name, pin.version]]
    return Check("pip-audit", not findings, findings, f"{len(pins)} packages, {osv or 'PyPI'}", version=version)


def _lists(wanted: list[tuple[str, str]], folder: Path) -> Iterator[str]:
    """Write the pins without hashes and markers, so that each is looked up and none downloaded; pip-audit takes a name once."""
    left, number = list(dict.fromkeys(wanted)), 0
    while left:
        once = dict(reversed(left))  # of each name, the first
        (folder / f"{number}.txt").write_text("".join(f"{name}=={version}\n" for name, version in sorted(once.items())))
        yield f"{number}.txt"
        left, number = [pin for pin in left if pin not in once.items()], number + 1


def _vulnerability(pin: Pin, fault: dict[str, Any]) -> Finding:
    mended = ", ".join(fault["fix_versions"]) or "no version yet"
    names = ", ".join([fault["id"], *fault.get("aliases", [])])
    return Finding(f"lock.txt:{pin.line} {pin.name} {pin.version}", f"{names}; mended in {mended}")


def _scan_copy(pins: list[Pin], place: Path) -> Check:
    """Look the pins up in a copy of the database on this machine, for which pip-audit has no reader."""
    from mlops_nb.packaging.osv import find_known, read_records

    if not place.exists():
        raise CannotLook(f"No {place}. Name a folder of OSV's JSON records, its all.zip, or an address.")
    records = list(read_records(place))
    if not records:
        raise CannotLook(f"{place} holds no record of a PyPI package. Fetch OSV's PyPI/all.zip again.")
    newest = max(str(record.get("modified", "")) for record in records)[:10]
    findings = find_known(pins, records)
    return Check("pip-audit", not findings, findings, f"{len(pins)} packages, {len(records)} records up to {newest} in {place}",
                 version="OSV records on this machine")


# --- the model and the image -----------------------------------------------------------------------------------------


def scan_model(folder: Path, allowed: set[str]) -> Check:
    """Look into the model's files for code that loading them would run."""
    found, count = look_into_folder(folder, allowed)
    findings = [Finding(f"model/{one.place}", one.what, one.severity, one.accepted) for one in found]
    stopped = [finding for finding in findings if not finding.accepted]
    return Check("model-files", not stopped, findings, f"{count} files", version=f"skops {_version('skops')}")


def scan_base(base: Base, allow_unpinned: bool) -> Check:
    """Ask that the base image is pinned by its digest."""
    if base.digest:
        return Check("base-image", True, detail=base.reference)
    if allow_unpinned:
        return Check("base-image", False, detail=base.reference, skipped="--allow-unpinned")
    what = ("not pinned by a digest; look it up (docker buildx imagetools inspect, skopeo inspect) and write it to "
            "mlops_nb.base_digest in environments/images/serving.yml, or say --allow-unpinned")
    return Check("base-image", False, [Finding("Dockerfile:2", f"{base.image}: {what}")])


def scan_dockerfile(folder: Path) -> Check:
    """Have checkov read the Dockerfile."""
    checkov = find_checkov()
    done = _run([checkov, "--file", "Dockerfile", "--framework", "dockerfile", "--quiet", "--compact", "--output", "json",
                 "--skip-download"], folder)
    report = _json(done, "checkov")
    if "summary" not in report:
        raise CannotLook(f"checkov did not read {folder / 'Dockerfile'}.")
    findings = [Finding(f"Dockerfile:{fault['file_line_range'][0]}", f"{fault['check_id']}: {fault['check_name']}")
                for fault in report["results"]["failed_checks"]]
    if report["summary"]["parsing_errors"]:
        findings.append(Finding("Dockerfile", "cannot be read"))
    version = report["summary"]["checkov_version"]
    return Check("checkov", not findings, findings, f"{report['summary']['passed']} rules hold", version=version)


def find_checkov() -> str:
    """Find checkov, which lives in an environment of its own; raises `CannotLook` where there is none."""
    beside = Path(sys.prefix) / "tools/bin/checkov"
    found = str(beside) if beside.is_file() else shutil.which("checkov")
    if not found:
        raise CannotLook("checkov is not installed. It asks for other versions of libraries than ours, so give it an environment "
                         f"of its own: uv venv {beside.parents[1]}; uv pip install --python {beside.parent}/python checkov")
    return found


def scan_bill(text: str) -> Check:
    """Ask CycloneDX's own schema whether the bill of materials is sound."""
    from mlops_nb.packaging.sbom import check_sbom

    fault = check_sbom(text)
    findings = [Finding("sbom.json", str(fault)[:500])] if fault else []
    version = _version("cyclonedx-python-lib")
    return Check("sbom", not findings, findings, f"{len(json.loads(text)['components'])} components", version=version)
