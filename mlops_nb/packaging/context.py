"""Lay everything that an image of one deployment is made from into one folder: the same inputs give the same bytes."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from mlops_nb.core.endpoint import DeploymentFile
from mlops_nb.core.records import SpecificationError
from mlops_nb.packaging.code import ENTRY, serving_modules
from mlops_nb.packaging.lock import Lock
from mlops_nb.scoring.config import Config, Wish

PLACE = "/opt/serve"  # in the image
PORT = 5001
USER = "10001:10001"
_TIME = 1_577_836_800  # of every file: the first second of 2020, UTC
_LEFT_OUT = re.compile(r"(^|/)(__pycache__|\.git|\.ipynb_checkpoints|\.DS_Store|\.venv)(/|$)")
_PROBE = ("import http.client as h; c = h.HTTPConnection('127.0.0.1', {port}, timeout=2); c.request('GET', '/health'); "
          "raise SystemExit(c.getresponse().status != 200)")


@dataclass(frozen=True)
class Base:
    """The image that a package stands on."""

    image: str  # with its tag
    digest: str  # sha256:...; empty: not pinned, so that tomorrow it may be another

    @property
    def reference(self) -> str:
        """What FROM names."""
        return f"{self.image}@{self.digest}" if self.digest else self.image


@dataclass(frozen=True)
class Source:
    """What one package is made from."""

    name: str
    version: str
    environment: str
    model: str  # address of the model version
    folder: Path  # of the MLflow model
    deployment: DeploymentFile
    script: Path | None  # folder of the deployment's scoring script, where it has one
    base: Base
    python: str  # 3.11


def read_base(path: Path) -> Base:
    """Read the base image from an environment's file: its tags `mlops_nb.base_image` and `mlops_nb.base_digest`, else `image`."""
    if not path.is_file():
        raise SpecificationError([f"No {path}. Run `mlops-nb init` to lay it: it names the image that packages stand on."])
    content = yaml.safe_load(path.read_text()) or {}
    tags = content.get("tags") or {}
    image, _, digest = str(tags.get("mlops_nb.base_image") or content.get("image") or "").partition("@")
    digest = str(tags.get("mlops_nb.base_digest") or digest)
    faults = []
    if not re.fullmatch(r"[a-z0-9][\w./:-]*", image):
        faults.append(f"{path}: '{image}' is no image. Name one in tags: mlops_nb.base_image.")
    if digest and not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        faults.append(f"{path}: mlops_nb.base_digest: '{digest}' is no digest. Write sha256: and 64 hexadecimal digits.")
    if faults:
        raise SpecificationError(faults)
    return Base(image, digest)


def lay_context(source: Source, lock: Lock, folder: Path) -> None:
    """Write the context; raises `SpecificationError` for files that cannot travel, such as links that lead out of the model."""
    copies = {"model": source.folder} | ({"script": source.script} if source.script else {})
    faults = [fault for place in copies.values() for fault in _not_portable(place)]
    if faults:
        raise SpecificationError(faults)
    for name, place in copies.items():
        for path in _files(place):
            _copy(path, folder / name / path.relative_to(place))
    for name, path in serving_modules().items():
        _copy(path, folder / "code" / name)
    _copy(Path(__file__).with_name("start.py"), folder / "run")
    (folder / "run").chmod(0o755)
    for name, text in _texts(source, lock).items():
        (folder / name).write_text(text)


def _texts(source: Source, lock: Lock) -> dict[str, str]:
    return {"Dockerfile": dockerfile(source, lock), ".dockerignore": _ignore(source), "lock.txt": lock.text,
            "conda.yml": _conda(source, lock), "config.json": json.dumps(asdict(make_config(source)), indent=1, sort_keys=True) + "\n"}


def make_config(source: Source) -> Config:
    """Say to the worker in the image what the host says to a worker here; there, nothing is collected."""
    given, requests = source.deployment, source.deployment.request_settings
    script = None
    if given.code_configuration:
        script = {"code": f"{PLACE}/script", "scoring_script": given.code_configuration.scoring_script}
    wish = Wish(source.model, f"{PLACE}/model", requests.request_timeout_ms, requests.max_concurrent_requests_per_instance,
                requests.max_queue_wait_ms, script=script, variables=dict(given.environment_variables) or None)
    return Config(source.name, given.name, source.environment, f"{given.name}-package", f"tcp:0.0.0.0:{PORT}", wish)


def dockerfile(source: Source, lock: Lock) -> str:
    """Write the Dockerfile: one layer of packages, then the files; no shell anywhere, nobody is root."""
    labels = {
        "org.opencontainers.image.title": source.name,
        "org.opencontainers.image.version": source.version,
        "org.opencontainers.image.description": f"Serves {source.model} on port {PORT}.",
        "org.opencontainers.image.base.name": source.base.image,
        "org.opencontainers.image.base.digest": source.base.digest,
        "io.mlops-nb.environment": source.environment,
        "io.mlops-nb.model": source.model,
    }
    variables = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1",
                 **source.deployment.environment_variables, "PYTHONPATH": f"{PLACE}/code", "MLOPS_NB_SERVE": f"{PLACE}/config.json"}
    hashes = ["--require-hashes"] if lock.hashed else []
    install = ["python", "-m", "pip", "install", "--no-cache-dir", "--no-deps", *hashes, "--requirement", "lock.txt"]
    lines = [
        f"# Serves {source.model} on port {PORT}. Written by `mlops-nb package build`: change what it is made from, not this file.",
        f"FROM {source.base.reference}",
        *(f"LABEL {name}={_quoted(value)}" for name, value in sorted(labels.items()) if value),
        *(f"ENV {name}={_quoted(value)}" for name, value in sorted(variables.items())),
        f"WORKDIR {PLACE}",
        'COPY ["lock.txt", "./"]',
        f"RUN {json.dumps(install)}",
        'COPY ["config.json", "./"]',
        *(f'COPY ["{name}", "{name}/"]' for name in _folders(source)),
        f"EXPOSE {PORT}",
        f"USER {USER}",
        "HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 "
        f"CMD {json.dumps(['python', '-c', _PROBE.format(port=PORT)])}",
        f"ENTRYPOINT {json.dumps(['python', '-P', '-m', ENTRY])}",
    ]
    return "\n".join(lines) + "\n"


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False).replace("$", "\\$")


def _folders(source: Source) -> list[str]:
    return ["code", "model"] + (["script"] if source.script else [])


def _ignore(source: Source) -> str:
    kept = ["lock.txt", "config.json", *_folders(source)]
    return "# Only what the image needs.\n*\n" + "".join(f"!{name}\n" for name in kept)


def _conda(source: Source, lock: Lock) -> str:
    """Write the lock as Azure ML and conda take it."""
    pins = [re.sub(r"\s*\\?\s*$", "", line) for line in lock.text.splitlines() if line[:1].strip() and not line.startswith("#")]
    packages: list[Any] = [f"python={source.python}", "pip", {"pip": pins}]
    content = {"name": source.name, "channels": ["conda-forge"], "dependencies": packages}
    return "# The lock once more, as conda and Azure ML's environments take it; the hashes stand in lock.txt.\n" + yaml.safe_dump(
        content, sort_keys=False)


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not _LEFT_OUT.search(path.relative_to(folder).as_posix()):
            yield path


def _not_portable(folder: Path) -> Iterator[str]:
    home = folder.resolve()
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() and not path.resolve().is_relative_to(home):
            yield f"{path} is a link that leads out of {folder}. Put the file itself there."
        elif not path.is_dir() and not path.is_file():
            yield f"{path} is no plain file. Remove it from the model."


def _copy(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)


def settle(folder: Path) -> None:
    """Give every file and folder the same time and plain rights, so that two builds differ in nothing."""
    for path in [folder, *sorted(folder.rglob("*"))]:
        path.chmod(0o755 if path.is_dir() or (path.name == "run" and path.parent == folder) else 0o644)
        os.utime(path, (_TIME, _TIME))
