"""A project with a registered model, a deployment file to vary, and a scoring script that does what its input files say."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.linear_model import LinearRegression

from mlops_nb.core import tracking
from mlops_nb.core.records import ModelVersion
from mlops_nb.core.settings import Settings, load_settings

ROOT = Path(__file__).resolve().parents[2]
STONES = pd.DataFrame({"carat": np.linspace(0.2, 2.0, 40), "depth": 60 + np.sin(np.arange(40))})

# Each input file holds one word for `run`: fail once, hang, be killed, ... `once` marks what has happened already.
SCRIPT = '''
import os, signal, time
from pathlib import Path
import pandas as pd

def once(path, what):
    mark = Path(os.environ["MARKS"]) / Path(path).name
    new = not mark.exists()
    mark.touch()
    return new and what()

def wait_for(happened):
    until = time.monotonic() + 300
    while not happened() and time.monotonic() < until:
        time.sleep(0.01)

def meet():
    (Path(os.environ["MARKS"]) / f"pid-{os.getpid()}").touch()
    wait_for(lambda: len(list(Path(os.environ["MARKS"]).glob("pid-*"))) > 1)

def init():
    global model
    model = Path(os.environ["AZUREML_MODEL_DIR"])
    assert (model / "MLmodel").is_file() and (model / "model" / "MLmodel").is_file()
    if os.environ.get("INIT") == "fails":
        raise RuntimeError("no weights here")

def run(mini_batch):
    rows = []
    for path in mini_batch:
        word = Path(path).read_text().strip()
        if word == "slow": time.sleep(0.02)
        if word == "slower": time.sleep(0.05)
        if word == "meets": meet()
        if word == "waits": wait_for((Path(os.environ["MARKS"]) / "go").exists)
        if word == "fails": raise ValueError(f"cannot read {Path(path).name}")
        if word == "hangs": time.sleep(60)
        if word == "dies": os.kill(os.getpid(), signal.SIGKILL)
        if word == "fails once": once(path, lambda: 1 / 0)
        if word == "dies once": once(path, lambda: os.kill(os.getpid(), signal.SIGKILL))
        if word == "hangs once": once(path, lambda: time.sleep(60))
        if word != "lost": rows.append({"word": word, "pid": os.getpid(), "files": len(mini_batch)})
    return pd.DataFrame(rows)
'''


class Shop(NamedTuple):
    """A project, and a model in it."""

    settings: Settings
    model: ModelVersion
    regression: LinearRegression


@pytest.fixture(scope="package")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Lay a project with a registered model that prices stones."""
    root = tmp_path_factory.mktemp("shop")
    shutil.copy(ROOT / "settings.ini", root)
    shutil.copytree(ROOT / "environments", root / "environments")
    settings = load_settings(root=root)
    tracking.use_experiment(settings, "classical")
    regression = LinearRegression().fit(STONES, STONES["carat"] * 4000)
    signature = mlflow.models.infer_signature(STONES, np.array([1.0]))
    logged = mlflow.sklearn.log_model(regression, name="model", pip_requirements=["scikit-learn"], signature=signature,
                                      registered_model_name="dev.diamonds")
    return Shop(settings, ModelVersion("dev.diamonds", int(logged.registered_model_version), "regression"), regression)


@pytest.fixture
def deployment(tmp_path: Path, shop: Shop) -> Callable[..., Path]:
    """Write a deployment file: `deployment(script=SCRIPT, mini_batch_size=2, variables={...}, ...)`."""

    def write(script: str = "", variables: dict[str, str] | None = None, properties: dict[str, str] | None = None, **told: Any) -> Path:
        content = yaml.safe_load((shop.settings.root / "environments/dev/batch-deployment.yml").read_text())
        retries = {"max_retries": told.pop("max_retries", 3), "timeout": told.pop("timeout", 300)}
        content["settings"] |= {"retry_settings": retries, **told}
        (tmp_path / "marks").mkdir(exist_ok=True)
        content["environment_variables"] = {"MARKS": str(tmp_path / "marks"), **(variables or {})}
        content["properties"] = properties or {}
        if script:
            (tmp_path / "code").mkdir(exist_ok=True)
            (tmp_path / "code" / "score.py").write_text(script)
            content["code_configuration"] = {"code": "code", "scoring_script": "score.py"}
        path = tmp_path / "batch-deployment.yml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write


@pytest.fixture
def words(tmp_path: Path) -> Callable[..., Path]:
    """Write a folder of files for the script: `words("fine", "fails", ...)` makes 000.in, 001.in, ..."""

    def write(*found: str) -> Path:
        folder = tmp_path / "in"
        folder.mkdir(exist_ok=True)
        for number, word in enumerate(found):
            (folder / f"{number:03}.in").write_text(word)
        return folder

    return write
