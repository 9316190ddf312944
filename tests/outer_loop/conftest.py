"""A project with a few registered models, for the tests that put them behind endpoints; and what these tests ask with."""

import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import mlflow
import numpy as np
import pandas as pd
import psutil
import pytest
from sklearn.linear_model import LinearRegression

from mlops_nb.core import tracking
from mlops_nb.core.records import ModelVersion
from mlops_nb.core.settings import Settings, load_settings
from mlops_nb.outer_loop import online

ROOT = Path(__file__).resolve().parents[2]
FRAME = pd.DataFrame({"carat": np.linspace(0.2, 0.8, 50), "depth": 60 + np.sin(np.arange(50))})
PRICES = FRAME["carat"] * 4000


def _register(model: Any, **options: Any) -> ModelVersion:
    signature = mlflow.models.infer_signature(FRAME, PRICES.to_numpy())
    with mlflow.start_run():
        logged = mlflow.sklearn.log_model(model, name="model", signature=signature, pip_requirements=["scikit-learn"],
                                          registered_model_name="dev.diamonds", **options)
    return ModelVersion("dev.diamonds", int(logged.registered_model_version), "regression")


class Client:
    """Asks an endpoint again and again, in the background, and counts what comes back."""

    def __init__(self, settings: Settings, endpoint: str):
        self.settings, self.endpoint, self.answers, self.failures = settings, endpoint, Counter[int](), list[Exception]()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                (price,) = online.invoke(self.settings, self.endpoint, Stones.half)
                self.answers[round(price)] += 1
            except Exception as problem:
                self.failures.append(problem)
            time.sleep(0.005)

    def __enter__(self) -> "Client":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


class Stones:
    """A project with models of the same stones, and what its tests ask with."""

    frame = FRAME
    half: ClassVar = {"input_data": [[0.5, 60.0]]}  # half a carat: model 1 asks 2000, model 2 asks 4000

    def __init__(self, settings: Settings):
        self.settings = settings

    def model(self, version: int) -> ModelVersion:
        return ModelVersion("dev.diamonds", version, "regression")

    def row(self, endpoint: str, deployment: str) -> dict[str, Any]:
        return next(r for r in online.endpoint_status(self.settings, endpoint) if r["deployment"] == deployment)

    def client(self, endpoint: str) -> Client:
        return Client(self.settings, endpoint)

    def events(self, endpoint: str, deployment: str, collection: str) -> list[dict[str, Any]]:
        """Read what was collected, as far as its lines are whole."""
        paths = (self.settings.collected / endpoint / deployment / collection).rglob("*.jsonl")
        lines = [line for path in paths for line in path.read_bytes().splitlines(keepends=True)]
        return [json.loads(line) for line in lines if line.endswith(b"\n")]

    def until(self, happened: Callable[[], bool], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not happened():
            assert time.monotonic() < end, "it did not happen in time"
            time.sleep(0.05)


@pytest.fixture(scope="session")
def stones(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stones]:
    """Two good models (1, with an example of what it takes, and 2), one that fails when asked (3), one that cannot be loaded (4)."""
    root = tmp_path_factory.mktemp("a-project-whose-path-is-longer-than-the-address-of-a-unix-socket-may-be-108-bytes")
    shutil.copy(ROOT / "settings.ini", root)
    shutil.copytree(ROOT / "environments", root / "environments")
    settings = load_settings("dev", root, user="ada")
    tracking.use_experiment(settings, "classical")
    _register(LinearRegression().fit(FRAME, PRICES), input_example=FRAME.head(2))
    _register(LinearRegression().fit(FRAME, PRICES * 2))
    _register(LinearRegression().fit(FRAME.rename(columns={"depth": "height"}), PRICES))
    lost = _register(LinearRegression().fit(FRAME, PRICES))
    (Path(mlflow.artifacts.download_artifacts(f"models:/{lost.name}/{lost.version}")) / "model.skops").write_bytes(b"")
    made, mine = Stones(settings), str(settings.state)
    yield made
    made.until(lambda: not [p for p in psutil.process_iter(["cmdline"]) if mine in " ".join(p.info["cmdline"] or [])])


class Done(NamedTuple):
    """How a command ended."""

    rc: int
    stdout: str
    stderr: str


@pytest.fixture
def command(stones: Stones, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run the command line in this process, in the project: `command("traffic", "diamonds", "blue=100")`."""
    from mlops_nb.cli import main

    monkeypatch.chdir(stones.settings.root)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("MLOPS_NB_USER", "ada")

    def run(*arguments: Any) -> Done:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        told = capsys.readouterr()
        return Done(int(ended.value.code or 0), told.out, told.err)

    return run
