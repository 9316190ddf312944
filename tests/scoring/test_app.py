"""One instance of a deployment: its answers equal the model's, its failures say whose they are, and it takes every kind of model."""

import asyncio
import contextlib
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
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression
from starlette.testclient import TestClient

from mlops_nb.scoring.app import make_app
from mlops_nb.scoring.batching import QUICK, Batcher, Job
from mlops_nb.scoring.config import Config, Wish
from mlops_nb.scoring.model import Model, load_model

FRAME = pd.DataFrame({"carat": [0.3, 0.5, 0.8, 1.0], "depth": [60.0, 61.0, 62.5, 59.0]})
PRICES = pd.Series([500.0, 1200.0, 3000.0, 5000.0])
REQUEST = {"input_data": {"columns": list(FRAME), "index": [0, 1], "data": FRAME.head(2).to_numpy().tolist()}}


def save(model: object, folder: Path, **more: Any) -> Path:
    signature = mlflow.models.infer_signature(FRAME, PRICES.to_numpy())
    mlflow.sklearn.save_model(model, folder, signature=signature, pip_requirements=["scikit-learn"], **more)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(LinearRegression().fit(FRAME, PRICES), tmp_path_factory.mktemp("model") / "model")


def configured(folder: Path, **wish: object) -> Config:
    return Config("shop", "blue", "dev", "blue-0", "unused", Wish("model:dev.diamonds/3", str(folder), **wish), max_bytes=2000)


def serve(folder: Path, tmp_path: Path) -> TestClient:
    collector = {"collections": {"model_inputs": 1.0, "model_outputs": 1.0}}
    config = configured(folder, collected=str(tmp_path / "collected"), collector=collector)
    return TestClient(make_app(config, load_model(folder)), raise_server_exceptions=False)


@pytest.fixture
def client(folder: Path, tmp_path: Path) -> Iterator[TestClient]:
    with serve(folder, tmp_path) as client:
        yield client


def events(collected: Path, collection: str) -> list[dict]:
    files = (collected / collection).glob("????/??/??/??/*.jsonl")
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_answers_as_azure_and_as_mlflow_and_equal_to_the_model(client: TestClient, folder: Path) -> None:
    expected = mlflow.pyfunc.load_model(str(folder)).predict(FRAME.head(2)).tolist()
    answer = client.post("/score", json=REQUEST)
    assert answer.json() == expected
    assert answer.headers["azureml-model-deployment"] == "blue"
    assert answer.headers["x-request-id"] == answer.headers["x-ms-request-id"]
    assert float(answer.headers["x-mlops-nb-queue-ms"]) >= 0
    assert client.post("/invocations", json=REQUEST).json() == {"predictions": expected}
    csv = FRAME.head(2).to_csv(index=False)
    assert client.post("/score", content=csv, headers={"content-type": "text/csv"}).json() == expected
    assert client.post("/score", json={"input_data": []}).json() == []
    assert client.get("/version").json()["model"] == "model:dev.diamonds/3"
    assert client.get("/ready").status_code == client.get("/health").status_code == 200


def test_a_request_that_cannot_be_scored_is_the_clients_fault(client: TestClient) -> None:
    answer = client.post("/score", json={"dataframe_records": [{"carat": "big", "depth": 1}]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "BadRequest")
    assert "'carat'" in answer.json()["error"]["message"]
    assert client.post("/score", content=b" " * 3000).status_code == 413
    assert client.get("/score").status_code == 405


def test_a_model_that_fails_is_the_models_fault(tmp_path: Path) -> None:
    model = save(LinearRegression().fit(FRAME.rename(columns={"depth": "height"}), PRICES), tmp_path / "wrong")
    with TestClient(make_app(configured(model), load_model(model))) as client:
        answer = client.post("/score", json=REQUEST)
    assert answer.status_code == 424
    assert answer.headers["ms-azureml-model-error-statuscode"] == "500"
    reason = answer.headers["ms-azureml-model-error-reason"]
    assert reason.startswith("ValueError: The feature names should match")
    assert reason == reason.strip()  # a server that sends such a header breaks the connection instead
    assert "model:dev.diamonds/3" in answer.json()["error"]["message"]


def test_requests_and_answers_are_collected_as_cloud_events(folder: Path, tmp_path: Path) -> None:
    with serve(folder, tmp_path) as client:
        predictions = client.post("/score", json=REQUEST, headers={"x-request-id": "order-7"}).json()
        client.post("/score", json={"input_data": [["big", 1]]})  # refused, so not collected
    (asked,), (answered,) = (events(tmp_path / "collected", name) for name in ("model_inputs", "model_outputs"))
    assert asked["data"] == FRAME.head(2).to_dict(orient="records")
    assert answered["data"] == [{"prediction": value} for value in predictions]
    for event in (asked, answered):
        assert event["specversion"] == "1.0"
        assert event["correlationid"] == event["xrequestid"] == "order-7"
        assert event["modelversion"] == "3"
        assert event["source"].endswith("/onlineEndpoints/shop/deployments/blue")
        size = len(json.dumps(event["data"], separators=(",", ":")))
        assert event["contentrange"] == f"bytes 0-{size - 1}/{size}"
    assert (asked["type"], answered["type"]) == ("azureml.inference.model_inputs", "azureml.inference.model_outputs")


def test_a_model_that_skops_does_not_read_is_loaded_by_mlflow(tmp_path: Path) -> None:
    code = tmp_path / "doubling.py"
    code.write_text("import mlflow\n\n\nclass Doubling(mlflow.pyfunc.PythonModel):\n"
                    "    def predict(self, context, model_input, params=None):\n"
                    "        return model_input['carat'] * 2\n\n\nmlflow.models.set_model(Doubling())\n")
    signature = mlflow.models.infer_signature(FRAME, PRICES)
    mlflow.pyfunc.save_model(tmp_path / "model", python_model=code, signature=signature, pip_requirements=["mlflow"])
    model = load_model(tmp_path / "model")
    assert [column.name for column in model.signature or []] == ["carat", "depth"]
    assert list(model.predict(FRAME)) == [0.6, 1.0, 1.6, 2.0]
    shutil.rmtree(tmp_path / "model")
    with pytest.raises(FileNotFoundError, match="No MLmodel"):
        load_model(tmp_path / "model")


# --- other kinds of models -------------------------------------------------------------------------------------------

ECHO = """import mlflow
import numpy as np
class Echo(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        if params and params.get("fail"):
            raise StopIteration("no\\r\\nmore")
        if isinstance(model_input, dict):
            return {name: (value * 2).tolist() for name, value in model_input.items()}
        found = model_input if isinstance(model_input, np.ndarray) else model_input.to_numpy()
        return [type(model_input).__name__, *found.ravel().tolist()] + ([params["top"]] if params and "top" in params else [])
mlflow.models.set_model(Echo())
"""
ARRAY = np.array([[1.0, 2.0]])
NAMED = {"a": np.array([1, 2]), "b": np.array([[1.0], [2.0]])}


def asked(tmp_path: Path, signature: Any, *bodies: Any, path: str = "/score") -> list[Any]:
    """Deploy a model of someone's own making; returns the answers."""
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "echo.py").write_text(ECHO)
    mlflow.pyfunc.save_model(tmp_path / "echo", python_model=tmp_path / "echo.py", signature=signature, pip_requirements=["mlflow"])
    with TestClient(make_app(configured(tmp_path / "echo"), load_model(tmp_path / "echo"))) as client:
        answers = [client.post(path, json=body) for body in bodies]
    return [found.json() if found.status_code == 200 else (found.status_code, found.json()["error"]["message"]) for found in answers]


def test_arrays_with_and_without_names(tmp_path: Path) -> None:
    infer = mlflow.models.infer_signature
    assert asked(tmp_path / "one", infer(ARRAY), {"input_data": [[1, 2], [3, 4]]}, {"inputs": [[1, 2, 3]]}, {"instances": [["x", 1]]},
                 {"dataframe_split": {"columns": ["x", "y"], "data": [[5, 6]]}}) == [
        ["ndarray", 1, 2, 3, 4], (400, "The array has shape 1, 3. The model needs float64, shape any, 2."),
        (400, "The array holds values that are not float64. The model needs float64, shape any, 2."), ["ndarray", 5, 6]]
    assert asked(tmp_path / "two", infer(NAMED), {"input_data": {"a": [1, 2], "b": [[1], [2]]}}, {"inputs": {"a": [1]}},
                 {"instances": [{"a": 1, "b": [3]}, {"a": 2, "b": [4]}]}) == [
        {"a": [2, 4], "b": [[2], [4]]},
        (400, "Missing arrays: b (given: a). The model needs: a (int64, shape any), b (float64, shape any, 1)."),
        {"a": [2, 4], "b": [[6], [8]]}]


def test_a_model_without_a_signature_gets_what_mlflow_hands_over(tmp_path: Path) -> None:
    split = {"columns": ["x", "y"], "data": [[1, 2]]}
    assert asked(tmp_path, None, {"inputs": [[1, 2]]}, {"dataframe_split": split}, {"input_data": split}, {"inputs": {"x": [1, 2]}},
                 {"inputs": 3}) == [["ndarray", 1, 2], ["DataFrame", 1, 2], ["DataFrame", 1, 2], {"x": [2, 4]},
                                    (400, "inputs is 3, not a table. Send rows, columns, or a split table.")]


def test_params_reach_a_model_that_takes_them(tmp_path: Path) -> None:
    signature = mlflow.models.infer_signature(FRAME, params={"top": 3, "fail": False})
    good, bad, failing = ({**REQUEST, "params": params} for params in ({"top": 5}, {"top": "many"}, {"fail": True}))
    answered, refused, failed = asked(tmp_path, signature, good, bad, failing)
    assert answered == ["DataFrame", 0.3, 60, 0.5, 61, 5]
    assert refused[0] == 400
    assert "Invalid parameters" in refused[1]
    assert failed[0] == 424


def test_mlflows_answer_to_a_series_is_a_table(client: TestClient, tmp_path: Path) -> None:
    model = Model(lambda rows: rows["carat"], load_model(client.app.config.wish.path).signature)
    with TestClient(make_app(client.app.config, model)) as serving:
        assert serving.post("/invocations", json=REQUEST).json() == {"predictions": [{"carat": 0.3}, {"carat": 0.5}]}
        assert serving.post("/score", json=REQUEST).json() == [0.3, 0.5]


def test_a_scoring_script_answers_as_it_likes(tmp_path: Path) -> None:
    (tmp_path / "score.py").write_text(
        "import json\ndef init():\n    global factor\n    factor = 2\n"
        "def run(data):\n    return [value * factor for value in json.loads(data)['data']]\n")
    process = subprocess.run([sys.executable, "-c", """
import sys
from starlette.testclient import TestClient
from mlops_nb.scoring.app import make_app
from mlops_nb.scoring.config import Config, Wish
from mlops_nb.scoring.script import load_script
config = Config("shop", "blue", "dev", "b", "x", Wish("m", ".", script={"code": sys.argv[1], "scoring_script": "score.py"}))
with TestClient(make_app(config, None, load_script(config))) as client:
    print(client.post("/score", json={"data": [1, 2]}).json())
    answer = client.post("/score", json={"other": 1})
    print(answer.status_code, answer.headers["ms-azureml-model-error-reason"], client.put("/score").status_code)
""", str(tmp_path)], capture_output=True, text=True, cwd=tmp_path)  # it changes the folder, so it has a process of its own
    assert process.stdout.splitlines() == ["[2, 4]", "424 KeyError: 'data' 405"], process.stderr


# --- calls that several requests share -------------------------------------------------------------------------------


def together(batcher: Batcher, *rows: list[float]) -> list[Any]:
    """Hand over jobs at the same moment; returns their results, or what was raised."""
    async def score() -> list[Any]:
        jobs = [Job(np.array(values), len(values), lambda: False) for values in rows]
        return await asyncio.gather(*map(batcher.score, jobs), return_exceptions=True)

    return [found.tolist() if isinstance(found, np.ndarray) else repr(found) for found in asyncio.run(score())]


def test_requests_that_wait_share_a_call_and_no_faults() -> None:
    calls: list[int] = []

    def predict(rows: np.ndarray) -> np.ndarray:
        calls.append(len(rows))
        if (rows < 0).any():
            raise ValueError("negative")
        return rows * 2

    batcher = Batcher(predict, most=3, quick=False)
    assert together(batcher, [1], [2, 3], [4], [5]) == [[2], [4, 6], [8], [10]]
    assert calls == [4, 1]  # three requests, then the fourth
    assert together(batcher, [1], [-1], [2]) == [[2], "ValueError('negative')", [4]]
    assert calls[2:] == [3, 1, 1, 1]
    alone = Batcher(lambda rows: rows.sum(keepdims=True), most=3, quick=False)  # one answer for all rows
    assert together(alone, [1, 2], [3, 4]) == [[3], [7]]


def test_a_job_tells_how_long_it_waited_for_the_calls_before_it() -> None:
    began, ended = [], []

    def predict(rows: np.ndarray) -> np.ndarray:
        began.append(time.monotonic())
        time.sleep(0.02)
        ended.append(time.monotonic())
        return rows

    async def run() -> list[Job]:
        batcher = Batcher(predict, 1, quick=False)
        jobs = [Job(np.zeros((1, 1)), 1, lambda: False) for _ in range(3)]
        await asyncio.gather(*map(batcher.score, jobs))
        return jobs

    jobs = asyncio.run(run())
    assert all(job.waited <= start - job.since for job, start in zip(jobs, began, strict=True))
    assert all(job.waited >= end - job.since for job, end in zip(jobs[1:], ended[:2], strict=True))


def test_a_quick_model_runs_on_the_loop_and_a_slow_one_beside_it() -> None:
    seen: list[str] = []

    def predict(rows: np.ndarray) -> np.ndarray:
        seen.append(threading.current_thread().name)
        until = time.thread_time() + (QUICK * 1.5 if rows[0] < 0 else 0)
        while time.thread_time() < until:
            pass
        return rows

    batcher = Batcher(predict, most=1, quick=True)
    while len(seen) < 3000 and seen[-1:] != ["MainThread"]:  # on a slow machine some of these take long, too
        together(batcher, *([1.0] for _ in range(30)))
    assert seen[0].startswith("model")  # nothing is known yet
    assert seen[-1] == "MainThread"
    together(batcher, [-1.0])
    together(batcher, [1.0])
    assert seen[-1].startswith("model")


def test_health_is_answered_while_a_slow_model_works(folder: Path) -> None:
    begun, asked = threading.Event(), threading.Event()

    def predict(rows: Any) -> Any:
        begun.set()
        asked.wait(60)
        return rows["carat"].to_numpy()

    with TestClient(make_app(configured(folder), Model(predict, load_model(folder).signature))) as client:
        slow = threading.Thread(target=lambda: client.post("/score", json=REQUEST))
        slow.start()
        assert begun.wait(60)
        assert client.get("/health").status_code == client.get("/ready").status_code == 200
        assert slow.is_alive()
        asked.set()
        slow.join()


# --- its process -----------------------------------------------------------------------------------------------------


def test_an_end_by_sigterm_answers_what_is_under_way_and_still_wanted(tmp_path: Path) -> None:
    (tmp_path / "score.py").write_text("import os, time\ndef init(): pass\ndef run(data):\n    print(data, file=open('runs', 'a'))\n"
                                       "    while not os.path.exists('go'): time.sleep(0.01)\n    return [1.0]\n")
    script, collector = {"code": str(tmp_path), "scoring_script": "score.py"}, {"collections": {"response": 1.0}}
    wish = Wish("model:dev.slow/1", str(tmp_path), 60_000, script=script, collected=str(tmp_path / "collected"), collector=collector)
    config = Config("shop", "blue", "dev", "blue-0", "w.sock", wish)
    process = subprocess.Popen([sys.executable, "-m", "mlops_nb.scoring.app", json.dumps(asdict(config))], cwd=tmp_path,
                               stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": os.getcwd()})
    place = str(tmp_path / "w.sock")
    with socket.socket(socket.AF_UNIX) as asker:
        wait_for(lambda: asker.connect_ex(place) == 0)
        request = b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n"
        asker.sendall(request + b"1")
        wait_for(lambda: (tmp_path / "runs").exists())
        with socket.socket(socket.AF_UNIX) as impatient:
            impatient.connect(place)
            impatient.sendall(request + b"2")
            knock(place)  # answered after the request was read
            time.sleep(0.2)  # whoever waits no longer than a moment is not asked whether it is still there
        knock(place)
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: not knock(place))
        (tmp_path / "go").touch()
        answer = b"".join(iter(lambda: asker.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"[1.0]")
    process.wait(60)
    assert (tmp_path / "runs").read_text() == "1\n"  # who has hung up while it waited is not worked for
    assert [event["data"] for event in events(tmp_path / "collected", "response")] == [[1.0]]


def wait_for(happened: Callable[[], Any]) -> None:
    until = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.02)


def knock(place: str) -> bool:
    """Ask for /health twice on one connection; tells whether anybody listens."""
    with socket.socket(socket.AF_UNIX) as asker:
        if asker.connect_ex(place):
            return False
        with contextlib.suppress(ConnectionError):  # closed at its end
            for _ in range(2):
                asker.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
                asker.recv(65536)
        return True


def test_without_a_host_it_listens_on_tcp(tmp_path: Path) -> None:
    (tmp_path / "score.py").write_text("def init(): pass\ndef run(data): return data\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    wish = Wish("model:dev.slow/1", str(tmp_path), script={"code": str(tmp_path), "scoring_script": "score.py"})
    config = Config("shop", "blue", "dev", "blue-0", f"tcp:127.0.0.1:{port}", wish)
    process = subprocess.Popen([sys.executable, "-m", "mlops_nb.scoring.app", json.dumps(asdict(config))], cwd=tmp_path,
                               stdin=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": os.getcwd()})
    until, answer = time.monotonic() + 60, b""
    while not answer and time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/score", b"x", timeout=60) as told:
            answer = told.read()
        time.sleep(0.05)
    process.terminate()
    process.wait(60)
    assert answer == b'"x"'


def test_a_model_that_learned_names_takes_arrays_without_a_word(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    boost = HistGradientBoostingRegressor(max_iter=3, min_samples_leaf=1).fit(FRAME, PRICES)
    save(boost, tmp_path / "model", skops_trusted_types=["sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"])
    model = load_model(tmp_path / "model")
    assert model.array
    assert model.shares
    with TestClient(make_app(configured(tmp_path / "model"), model)) as client:
        recwarn.clear()
        assert client.post("/score", json=REQUEST).json() == boost.predict(FRAME.head(2)).tolist()
    assert not [str(warning.message) for warning in recwarn if "feature names" in str(warning.message)]
