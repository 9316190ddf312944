"""`mlops-nb generate`: thin doors to what the other tests of this folder look at."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlops_nb.cli import main
from mlops_nb.core.settings import Settings

IMAGE, FRONT = (f"registry.example.com/{name}@sha256:{'a' * 64}" for name in ("model", "nginx"))


def generate(*arguments: Any) -> int:
    """Run the command here, as a process of its own would; returns its exit code."""
    with pytest.raises(SystemExit) as end:
        main(["generate", *map(str, arguments)])
    return int(end.value.code or 0)


def test_every_kind_is_generated_where_git_does_not_look(
    project: Settings, lay_endpoint: Callable[..., Any], capsys: Any
) -> None:
    lay_endpoint(project)
    assert generate("nginx", "diamonds", "--server", "green=10.0.0.1:5001", "--server", "green=10.0.0.2:5001") == 0
    assert generate("systemd", "diamonds", "--memory", "4G", "--user", "serving") == 0
    assert generate("kubernetes", "diamonds", "--image", IMAGE, "--front-image", FRONT, "--compute", "arc") == 0
    place = project.state / "hosting/dev/diamonds"
    assert {path.name for path in place.iterdir()} == {"nginx", "systemd", "kubernetes"}
    assert "server 10.0.0.2:5001" in (place / "nginx/endpoint.conf").read_text()
    assert "User=serving" in (place / "systemd/mlops-nb-dev-diamonds.service").read_text()
    images = {c["image"] for one in yaml.safe_load_all((place / "kubernetes/manifests.yml").read_text()) if one["kind"] == "Deployment"
              for c in one["spec"]["template"]["spec"]["containers"]}  # fmt: skip
    assert images == {IMAGE, FRONT}
    told = capsys.readouterr().out.replace("\n", "")
    assert all(str(path).replace("\n", "") in told for path in place.rglob("*.conf"))


def test_mistakes_are_told_with_exit_code_2(
    project: Settings, lay_endpoint: Callable[..., Any], tmp_path: Path, capsys: Any
) -> None:
    assert generate("nginx", "rubies") == 2
    lay_endpoint(project)
    assert generate("nginx", "diamonds", "--server", "green", "-o", tmp_path / "out") == 2
    assert generate("kubernetes", "diamonds", "--image", "model:latest", "-o", tmp_path / "out") == 2
    assert generate("nginx", "diamonds", "--as", "business_stakeholder", "-o", tmp_path / "out") == 3
    told = capsys.readouterr().err
    assert "No endpoint 'rubies'" in told
    assert "NAME=VALUE" in told
    assert "by its digest" in told
    assert not (tmp_path / "out").exists()
