"""An image, built for real where buildah is; the base is made here, as none can be fetched."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlops_nb.core import ledger
from mlops_nb.core.records import StepFailed
from mlops_nb.core.settings import Settings
from mlops_nb.outer_loop import package
from mlops_nb.packaging import image
from mlops_nb.packaging.audit import Package


def test_a_command_that_cannot_build_is_no_builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dockeroid").write_text("#!/bin/sh\nexit 1\n")  # installed, and no daemon behind it
    (tmp_path / "dockeroid").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert image.find_builder(("dockeroid", "is-not-installed")) == ()


@pytest.fixture
def base(here: Settings, tmp_path: Path) -> Iterator[tuple[str, ...]]:
    """A builder, and a base whose `python` does nothing, and does it well; the project stands on it, by its digest."""
    builder = image.find_builder(("buildah",))
    if not builder:
        pytest.skip("no buildah that can build: apt-get install buildah")
    root = tmp_path / "base"
    assert image.lay_tiny_root(root / "root")
    (root / "root/usr/bin").mkdir(parents=True)
    shutil.move(root / "root/probe/true", root / "root/usr/bin/python")
    (root / "Dockerfile").write_text("FROM scratch\nCOPY root /\n")
    name = "localhost/mlops-nb-test-base"
    image.build_image(builder, root, f"{name}:1")
    store = [*builder[:1], *image._storage(list(builder[1:]))]
    digest = subprocess.check_output([*store, "images", "--format", "{{.Digest}}", f"{name}:1"], text=True).strip()
    images = here.root / "environments/images/serving.yml"
    text = images.read_text().replace("docker.io/library/python:3.11-slim-bookworm\n", f"{name}:1\n")
    images.write_text(text.replace(f"sha256:{'5' * 64}", digest))
    yield tuple(store)
    for left in (f"{name}:1", "mlops-nb/dev/stones"):
        names = subprocess.run([*store, "images", "--quiet", left], capture_output=True, text=True).stdout.split()
        subprocess.run([*store, "rmi", "--force", *names], capture_output=True)


@pytest.mark.slow
def test_the_image_is_what_the_dockerfile_says(base: tuple[str, ...], build: Callable[..., Package], here: Settings) -> None:
    made = build(image=True)
    tag, identity = made.image.split()
    assert made.builder == "buildah"
    assert tag == f"mlops-nb/dev/stones:{made.version}"
    about = json.loads(subprocess.check_output([*base, "inspect", "--type", "image", tag]))
    config = about["Docker"]["config"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["python", "-P", "-m", "mlops_nb.scoring.app"]
    assert config["Healthcheck"]["Test"][:2] == ["CMD", "python"]
    assert config["Labels"]["org.opencontainers.image.title"] == "stones"
    assert config["Labels"]["org.opencontainers.image.base.digest"] in made.base
    assert "5001/tcp" in config["ExposedPorts"]
    assert [entry.details["id"] for entry in ledger.entries(here, made.uri, "build")] == [identity]


def test_a_build_that_fails_says_why_and_keeps_the_files(base: tuple[str, ...], build: Callable[..., Package], here: Settings) -> None:
    images = here.root / "environments/images/serving.yml"
    images.write_text(re.sub(r"sha256:\w+", f"sha256:{'0' * 64}", images.read_text()))
    with pytest.raises(StepFailed, match="buildah could not build"):
        build(image=True)
    kept = package.find(here, "stones")
    assert (package.check(kept), kept.image) == ([], "")
