"""A real endpoint on this machine: deploying, shifting, rolling out and back, and coming back after every kind of death."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import psutil
import pytest
from sklearn.linear_model import LinearRegression

from mlops_nb.core import ledger, tracking
from mlops_nb.core.records import ModelVersion, StepFailed
from mlops_nb.core.settings import Settings, load_settings
from mlops_nb.outer_loop import online

ROOT = Path(__file__).resolve().parents[2]
FRAME = pd.DataFrame({"carat": np.linspace(0.2, 0.8, 50), "depth": 60 + np.sin(np.arange(50))})
PRICES = FRAME["carat"] * 4000
ENDPOINT = "diamonds"


def register(model: Any, **options: Any) -> ModelVersion:
    signature = mlflow.models.infer_signature(FRAME, PRICES.to_numpy())
    with mlflow.start_run():
        logged = mlflow.sklearn.log_model(model, name="model", signature=signature, pip_requirements=["scikit-learn"],
                                          registered_model_name="dev.diamonds", **options)
    return ModelVersion("dev.diamonds", int(logged.registered_model_version), "regression")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A project with two good models (1 and 2), one whose every prediction fails (3), one that cannot be loaded (4)."""
    root = tmp_path_factory.mktemp("a-project-whose-path-is-longer-than-the-address-of-a-unix-socket-may-be-108-bytes")
    shutil.copy(ROOT / "settings.ini", root)
    shutil.copytree(ROOT / "environments", root / "environments")
    settings = load_settings("dev", root, user="ada")
    tracking.use_experiment(settings, "classical")
    register(LinearRegression().fit(FRAME, PRICES), input_example=FRAME.head(2))
    register(LinearRegression().fit(FRAME, PRICES * 2), input_example=FRAME.head(2))
    register(LinearRegression().fit(FRAME.rename(columns={"depth": "height"}), PRICES))
    lost = register(LinearRegression().fit(FRAME, PRICES))
    (Path(mlflow.artifacts.download_artifacts(f"models:/{lost.name}/{lost.version}")) / "model.skops").write_bytes(b"")
    yield settings
    for name in {row["endpoint"] for row in online.endpoint_status(settings)}:
        online.stop(settings, name)
    mine = str(settings.endpoints)
    assert not [p for p in psutil.process_iter(["cmdline"]) if mine in " ".join(p.info["cmdline"] or [])]


@pytest.fixture
def clear(here: Settings) -> Settings:
    """The project without any endpoint."""
    for name in {row["endpoint"] for row in online.endpoint_status(here)}:
        online.remove(here, name)
    return here


@pytest.fixture
def live(here: Settings) -> Settings:
    """The project with model 1 alone behind the endpoint."""
    try:
        rows = online.endpoint_status(here, ENDPOINT)
    except LookupError:
        rows = []
    if [(row["model"], row["state"], row["traffic"]) for row in rows] != [("model:dev.diamonds/1", "ready", 100)]:
        if rows:
            online.remove(here, ENDPOINT)
        online.deploy(here, ENDPOINT, model(1))
    return here


def model(version: int) -> ModelVersion:
    return ModelVersion("dev.diamonds", version, "regression")


def row(settings: Settings, deployment: str) -> dict[str, Any]:
    return next(r for r in online.endpoint_status(settings, ENDPOINT) if r["deployment"] == deployment)


def until(happened: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


class Client:
    """Asks again and again, in the background, and counts what comes back."""

    def __init__(self, settings: Settings):
        self.settings, self.answers, self.failures = settings, Counter[int](), []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                (price,) = online.invoke(self.settings, ENDPOINT, {"input_data": [[0.5, 60.0]]})
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


def test_the_first_deployment_has_all_the_traffic_and_answers_as_the_model_does(clear: Settings) -> None:
    deployed = online.deploy(clear, ENDPOINT, model(1))
    assert (deployed.name, deployed.traffic, deployed.uri) == ("blue", 100, "deployment:dev.diamonds/blue")
    expected = mlflow.pyfunc.load_model("models:/dev.diamonds/1").predict(FRAME)
    assert online.invoke(clear, ENDPOINT, FRAME) == expected.tolist()
    assert online.deploy(clear, ENDPOINT, model(1)) == deployed  # asked again: found, not started twice
    assert [entry.action for entry in ledger.lineage(clear, deployed.uri)][-1] == "deploy"
    assert online.deployments(clear, ENDPOINT) == [deployed]
    assert list(online.endpoint_table(clear)["state"]) == ["ready"]


def test_what_is_asked_and_answered_is_collected(live: Settings) -> None:
    prices = online.invoke(live, ENDPOINT, FRAME.head(3), request_id="order-7")
    folder = live.collected / ENDPOINT / "blue"

    def lines(collection: str) -> list[dict[str, Any]]:
        text = "".join(path.read_text() for path in folder.glob(f"{collection}/????/??/??/??/*.jsonl"))
        return [event for event in map(json.loads, text.splitlines()) if event["correlationid"] == "order-7"]

    until(lambda: bool(lines("model_outputs")))
    assert lines("model_inputs")[0]["data"] == FRAME.head(3).to_dict(orient="records")
    assert lines("model_outputs")[0]["data"] == [{"prediction": price} for price in prices]


def test_a_request_that_cannot_be_answered_says_why(live: Settings) -> None:
    with pytest.raises(ValueError, match=r"answered 400: .*Missing columns: depth"):
        online.invoke(live, ENDPOINT, {"inputs": {"carat": [1.0]}})
    with pytest.raises(ValueError, match=r"answered 404: .*No deployment 'red' \(there are: blue\)"):
        online.invoke(live, ENDPOINT, FRAME.head(1), deployment="red")
    with pytest.raises(ValueError, match=r"answered 413: .*Send fewer rows"):
        online.invoke(live, ENDPOINT, {"input_data": [[0.5, 60.0]], "padding": "x" * 11_000_000})
    with pytest.raises(LookupError, match=r"No endpoint 'rubies' in dev \(there are: diamonds\)"):
        online.invoke(live, "rubies", FRAME)


def test_a_roll_out_takes_over_in_steps_and_can_be_taken_back(live: Settings) -> None:
    with Client(live) as client:
        new = online.deploy(live, ENDPOINT, model(2))
        assert (new.name, new.traffic, row(live, "blue")["traffic"]) == ("green", 0, 100)
        steps = online.roll_out(live, ENDPOINT, "green", steps=(20, 100), hold=0.6)
        with pytest.raises(ValueError, match="green of diamonds has 100 % of the traffic"):
            online.remove(live, ENDPOINT, "green")
        assert online.roll_back(live, ENDPOINT) == {"blue": 100}
        online.remove(live, ENDPOINT, "green")
    assert [(step["step"], step["traffic"], step["problem"]) for step in steps] == [
        (0, {"blue": 100}, ""), (20, {"blue": 80, "green": 20}, ""), (100, {"green": 100}, "")]
    assert not client.failures
    assert set(client.answers) == {2000, 4000}
    actions = [entry.action for entry in ledger.entries(live)]
    assert actions[-5:] == ["deploy", "shift_traffic", "shift_traffic", "roll_back", "remove"]


def test_the_probes_of_a_roll_out_are_nobodys_requests_and_are_not_collected(live: Settings) -> None:
    def collected() -> Counter[str]:
        paths = (live.collected / ENDPOINT / "green" / "model_inputs").rglob("*.jsonl")
        return Counter(json.loads(line)["correlationid"] for path in paths for line in path.read_text().splitlines())

    online.deploy(live, ENDPOINT, model(2))
    before = collected()
    online.roll_out(live, ENDPOINT, "green", steps=(100,), probe=FRAME.tail(2), hold=0.3)
    body = json.dumps({"input_data": [[0.5, 60.0]]}).encode()
    forged = {"x-request-id": "client", "x-mlops-nb-probe": "1", "content-type": "application/json"}
    request = urllib.request.Request(row(live, "green")["address"], body, forged)  # noqa: S310 http to our own endpoint
    try:
        assert json.loads(urllib.request.urlopen(request).read())  # noqa: S310
        until(lambda: "client" in collected())  # a client cannot hide its requests
        assert list((collected() - before).elements()) == ["client"]
    finally:
        online.roll_back(live, ENDPOINT)
        online.remove(live, ENDPOINT, "green")


def test_a_model_that_fails_is_rolled_back_by_itself_and_no_client_sees_it(live: Settings) -> None:
    with Client(live) as client:
        broken = online.deploy(live, ENDPOINT, model(3))
        with pytest.raises(StepFailed, match=r"Rolled back diamonds to blue 100 %\. green at 0 %: the probe failed: .*424"):
            online.roll_out(live, ENDPOINT, broken.name, probe={"input_data": [[0.5, 60.0]]})
    assert client.answers[2000] and not client.failures  # noqa: PT018
    # without a probe it is found out by its first answers to production
    with Client(live), pytest.raises(StepFailed, match=r"green at 50 %: error_rate is 1, over 0"):
        online.roll_out(live, ENDPOINT, broken.name, steps=(50, 100), hold=0.4)
    assert [(d.name, d.traffic) for d in online.deployments(live, ENDPOINT)] == [("blue", 100), ("green", 0)]
    assert ledger.entries(live)[-1].action == "roll_back"
    online.remove(live, ENDPOINT, "green")


def test_a_model_that_cannot_be_loaded_leaves_the_endpoint_as_it_was(live: Settings) -> None:
    before = [(r["deployment"], r["pid"], r["traffic"]) for r in online.endpoint_status(live, ENDPOINT)]
    with pytest.raises(StepFailed, match=r"(?s)green of diamonds with model:dev.diamonds/4 did not start: .*BadZipFile"):
        online.deploy(live, ENDPOINT, model(4))
    assert [(r["deployment"], r["pid"], r["traffic"]) for r in online.endpoint_status(live, ENDPOINT)] == before


def test_traffic_that_cannot_be_is_refused(live: Settings) -> None:
    for traffic, says in [({"blue": 90}, "add up to 0 or 100"), ({"green": 100}, "No deployment green"),
                          ({"blue": 150, "green": -50}, "No deployment green")]:
        with pytest.raises(ValueError, match=says):
            online.shift_traffic(live, ENDPOINT, traffic)
    online.shift_traffic(live, ENDPOINT, {"blue": 0})
    with pytest.raises(ValueError, match=r"404: .*No deployment of 'diamonds' has traffic"):
        online.invoke(live, ENDPOINT, FRAME)
    assert len(online.invoke(live, ENDPOINT, FRAME, deployment="blue")) == len(FRAME)
    assert online.roll_back(live, ENDPOINT) == {"blue": 100}
    with pytest.raises(PermissionError, match="data_analyst may not deploy"):
        online.shift_traffic(live.model_copy(update={"persona": "data_analyst"}), ENDPOINT, {"blue": 100})


def test_a_killed_deployment_comes_back_and_its_requests_wait_for_it(live: Settings) -> None:
    with Client(live) as client:
        until(lambda: client.answers.total() > 5)
        os.kill(row(live, "blue")["pid"], signal.SIGKILL)
        until(lambda: row(live, "blue")["restarts"] == 1 and row(live, "blue")["state"] == "ready")
        seen = client.answers.total()
        until(lambda: client.answers.total() > seen + 5)
    late = [failure for failure in client.failures if "503" not in str(failure)]  # the wait is limited, here by 5 s
    assert not late


def test_a_killed_front_takes_its_deployments_along_and_start_brings_all_back(live: Settings) -> None:
    deployment = psutil.Process(row(live, "blue")["pid"])
    address = row(live, "blue")["address"]
    front = deployment.parent()
    assert front is not None
    front.kill()
    assert psutil.wait_procs([front, deployment], timeout=15)[1] == []
    assert row(live, "blue")["state"] == "stopped"
    with pytest.raises(ConnectionError, match="Start diamonds"):
        online.invoke(live, ENDPOINT, FRAME)
    (back,) = online.start(live, ENDPOINT)
    assert (back["address"], back["state"], back["traffic"]) == (address, "ready", 100)
    assert len(online.invoke(live, ENDPOINT, FRAME)) == len(FRAME)


def test_a_port_in_use_is_named_before_anything_is_started(clear: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=rf"Cannot listen on 127.0.0.1:{port} .*set another `port`"):
            online.deploy(clear.model_copy(update={"port": port}), "occupied", model(1))
    assert not online.endpoint_status(clear)


def test_an_endpoint_outlives_who_started_it_and_a_temporary_one_does_not(clear: Settings) -> None:
    script = f"""
from mlops_nb.core.records import ModelVersion
from mlops_nb.core.settings import load_settings
from mlops_nb.outer_loop import online
settings = load_settings("dev", {str(clear.root)!r}, user="ada")
model = ModelVersion("dev.diamonds", 1, "regression")
online.deploy(settings, "diamonds", model)
import os, signal, psutil
with online.temporary_endpoint(settings, model) as ask:
    print(ask({{"input_data": [[0.5, 60.0]]}}), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert round(json.loads(done.stdout)[0]) == 2000
    assert len(online.invoke(clear, ENDPOINT, FRAME)) == len(FRAME)

    def temporary() -> list[psutil.Process]:
        return [p for p in psutil.process_iter(["cmdline"]) if "/endpoints/dev/temporary" in " ".join(p.info["cmdline"] or [])]

    until(lambda: not temporary())


def test_a_deployment_refuses_what_takes_too_long_and_more_than_it_can_hold(live: Settings) -> None:
    file = live.root / "environments" / "dev" / "deployment.yml"
    before = file.read_text()
    file.write_text(before.replace("timeout_ms: 5000", "timeout_ms: 300").replace("instance: 32", "instance: 1"))
    try:
        online.deploy(live, ENDPOINT, model(2), deployment="narrow")
    finally:
        file.write_text(before)
    many = {"inputs": {"carat": [0.5] * 600_000, "depth": [60.5] * 600_000}}
    with pytest.raises(StepFailed, match=r"answered 408: .*narrow took over 300 ms"):
        online.invoke(live, ENDPOINT, many, deployment="narrow")
    told: list[str] = []

    def ask() -> None:
        try:
            online.invoke(live, ENDPOINT, FRAME, deployment="narrow")
        except StepFailed as problem:
            told.append(str(problem))

    threads = [threading.Thread(target=ask) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert any("answered 429" in message for message in told)
    assert len(online.invoke(live, ENDPOINT, FRAME)) == len(FRAME)  # the other deployment never noticed
    online.remove(live, ENDPOINT, "narrow")


def test_metrics_count_requests_by_deployment_and_status(live: Settings) -> None:
    online.invoke(live, ENDPOINT, FRAME)
    address = row(live, "blue")["address"].replace("/score", "/metrics")
    text = urllib.request.urlopen(address, timeout=5).read().decode()  # noqa: S310
    assert 'mlops_nb_requests_total{deployment="blue",status="200"}' in text
