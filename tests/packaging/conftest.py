"""A small model as MLflow writes it, a project around it, and a copy of the OSV database with one record."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlops_nb.core.settings import Settings, load_settings
from mlops_nb.outer_loop import models, package
from mlops_nb.packaging.audit import Package

ROOT = Path(__file__).resolve().parents[2]
CHECKS = ("bandit", "detect-secrets", "model-files", "checkov", "sbom")  # pip-audit and the base cost nothing here


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a linear model of two columns."""
    import mlflow
    import numpy as np
    import pandas as pd
    from sklearn.linear_model import LinearRegression

    stones = pd.DataFrame({"carat": np.linspace(0.2, 0.8, 30), "depth": 61.0})
    folder = tmp_path_factory.mktemp("model") / "diamonds"
    signature = mlflow.models.infer_signature(stones, np.array([1.0]))
    mlflow.sklearn.save_model(LinearRegression().fit(stones, stones["carat"] * 4000), folder, signature=signature,
                              pip_requirements=["scikit-learn"], input_example=stones.head(2))
    return folder


def know_fault(folder: Path, name: str, mended: str) -> None:
    """Write an OSV record: every version of a package before the mended one is affected."""
    events = [{"introduced": "0"}, {"fixed": mended}]
    affected = {"package": {"ecosystem": "PyPI", "name": name}, "ranges": [{"type": "ECOSYSTEM", "events": events}]}
    folder.mkdir(exist_ok=True)
    (folder / f"GHSA-{name}.json").write_text(json.dumps({"id": f"GHSA-{name}", "modified": "2026-11-01", "affected": [affected]}))


def lay_project(root: Path) -> Settings:
    """Lay a project whose base image is pinned."""
    shutil.copy(ROOT / "settings.ini", root)
    shutil.copytree(ROOT / "environments", root / "environments")
    images = root / "environments/images/serving.yml"
    images.write_text(images.read_text().replace('mlops_nb.base_digest: ""', f"mlops_nb.base_digest: sha256:{'5' * 64}"))
    know_fault(root / "osv", "nobody-has-this", "1.0")
    return load_settings("dev", root, user="ada")


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A project that only reading tests share."""
    return lay_project(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="session")
def made(shop: Settings, model: Path) -> Package:
    """The package of a registered model, built once."""
    registered = models.find_model(shop, str(model), "diamonds")
    return package.build(shop, registered, skip={"checkov": "tested by itself"}, osv_mirror=str(shop.root / "osv"), image=False)


@pytest.fixture
def here(tmp_path: Path, model: Path) -> Settings:
    """A project of one's own, with a copy of the model's folder in `model`."""
    shutil.copytree(model, tmp_path / "model")
    return lay_project(tmp_path)


@pytest.fixture
def build(here: Settings) -> Callable[..., Package]:
    """Package that folder, with the checks that the test names; the others are skipped, as they take seconds."""

    def make(*wanted: str, **options: Any) -> Package:
        skip = {name: "the test is about something else" for name in CHECKS if name not in wanted} | options.pop("skip", {})
        options = {"name": "stones", "image": False, "osv_mirror": str(here.root / "osv")} | options
        return package.build(here, here.root / "model", skip=skip, **options)

    return make
