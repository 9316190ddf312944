"""Build an image where docker, podman or buildah really can; nothing is ever pushed."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path

from mlops_nb.core.records import StepFailed

BUILDERS = ("docker", "podman", "buildah")
_CHROOT = ["--isolation", "chroot"]  # of buildah: where it has no runtime, or may not make namespaces
_WAYS: dict[str, tuple[list[str], ...]] = {
    "buildah": ([], _CHROOT, [*_CHROOT, "--storage-driver", "vfs"]),  # the last where it may not mount, either
}
_PROBE = "mlops-nb-probe"


@lru_cache
def find_builder(names: tuple[str, ...] = BUILDERS) -> tuple[str, ...]:  # the command to build with; empty: there is none
    """Find a builder by building something: a command that is installed may have no daemon, no runtime, or no right to mount."""
    for name in names:
        if program := shutil.which(name):
            for options in _WAYS.get(name, ([],)):
                if _can_build((program, *options)):
                    return (program, *options)
    return ()


def _can_build(builder: tuple[str, ...]) -> bool:
    tag = f"{_PROBE}:{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="mlops-nb-") as folder:
        context = Path(folder)
        step = 'RUN ["/probe/true"]\n' if lay_tiny_root(context / "root") else ""
        (context / "Dockerfile").write_text(f"FROM scratch\nCOPY root /\n{step}")
        try:
            done = subprocess.run(_command(builder, context, tag, None), capture_output=True, timeout=60, check=False)  # noqa: S603
        except (OSError, subprocess.TimeoutExpired):
            return False
    if done.returncode == 0:
        _remove(builder, tag)
    return done.returncode == 0


def lay_tiny_root(root: Path) -> bool:
    """Lay the smallest root that something runs in: `/probe/true` and its libraries; says whether this machine has them."""
    (root / "probe").mkdir(parents=True)
    program, ldd = shutil.which("true"), shutil.which("ldd")
    if sys.platform != "linux" or not program or not ldd:
        return False
    listed = subprocess.run([ldd, program], capture_output=True, text=True, check=False).stdout  # noqa: S603
    shutil.copy(program, root / "probe/true")
    for library in re.findall(r"(/\S+)", listed):
        place = root / library.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, place)
    return True


def _command(builder: tuple[str, ...], context: Path, tag: str, written: Path | None) -> list[str]:
    program, *options = builder
    name = Path(program).name
    verb = ["build", *(option for option in options if option not in _storage(options))]
    times = [] if name == "docker" else ["--timestamp", "0"]  # docker takes SOURCE_DATE_EPOCH instead
    told = ["--iidfile", str(written)] if written else []
    kind = ["--format", "docker"] if name in ("podman", "buildah") else []  # the other format has no HEALTHCHECK
    return [program, *_storage(options), *verb, *kind, *times, *told, "--tag", tag, "--file", str(context / "Dockerfile"), str(context)]


def _storage(options: list[str]) -> list[str]:
    """The options that stand before the verb."""
    at = options.index("--storage-driver") if "--storage-driver" in options else len(options)
    return options[at : at + 2]


def _remove(builder: tuple[str, ...], tag: str) -> None:
    program, *options = builder
    verb = ["rmi"] if Path(program).name == "buildah" else ["image", "rm"]
    subprocess.run([program, *_storage(options), *verb, tag], capture_output=True, timeout=60, check=False)  # noqa: S603


def build_image(
    builder: tuple[str, ...],  # as `find_builder` found it
    context: Path,
    tag: str,  # name:version
) -> str:  # the image's id
    """Build the image of a context; raises `StepFailed` with the end of the builder's log."""
    with tempfile.TemporaryDirectory(prefix="mlops-nb-") as folder:
        written = Path(folder) / "id"
        command = _command(builder, context, tag, written)
        environment = {**os.environ, "SOURCE_DATE_EPOCH": "0"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)  # noqa: S603
        if done.returncode:
            raise StepFailed(f"{Path(builder[0]).name} could not build {tag}: {(done.stderr or done.stdout).strip()[-2000:]}\n"
                             f"The files in {context} passed every check; `mlops-nb package run` serves them without an image.")
        return written.read_text().strip()
