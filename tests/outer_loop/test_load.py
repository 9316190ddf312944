"""Endpoints under load: measured by Locust over HTTP, held against the deployment file, turned into machines."""

import itertools
import json
import math
import os
import shutil
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import psutil
import pytest
from sklearn.linear_model import LinearRegression

from mlops_nb.cli import main
from mlops_nb.core import tracking
from mlops_nb.core.records import ModelVersion, SpecificationError, StepFailed
from mlops_nb.core.settings import Settings, load_settings
from mlops_nb.outer_loop import load
from mlops_nb.outer_loop.load import Limits, Load, Measured, Profile

ROOT = Path(__file__).resolve().parents[2]
FRAME = pd.DataFrame({"carat": np.linspace(0.2, 0.8, 50), "depth": 60 + np.sin(np.arange(50))})
LENIENT = Limits(max_p95_ms=60_000, min_requests_per_second=0.01)  # whatever else the machine does


# ------------------------------------------------------------------------------------------------------------- thresholds
def properties(settings: Settings, text: str) -> None:
    file = settings.root / "environments" / "dev" / "deployment.yml"
    file.write_text(file.read_text().split("\nproperties:")[0] + f"\nproperties:\n{text}")


def test_thresholds_stand_in_the_deployment_file_and_a_parameter_wins(project: Settings) -> None:
    properties(project, '  mlops_nb.max_p95_ms: "80"\n  mlops_nb.max_difference: "0.25"\n')
    assert load.limits(project) == Limits(max_p95_ms=80, max_difference=0.25)
    assert load.limits(project, max_p95_ms=50, max_error_rate=None).max_p95_ms == 50
    assert load.limits(project, max_error_rate=0).max_error_rate == 0


def test_every_threshold_that_is_no_number_is_named(project: Settings) -> None:
    properties(project, '  mlops_nb.max_p95_ms: "quick"\n  mlops_nb.min_requests_per_second: "many"\n')
    with pytest.raises(SpecificationError) as found:
        load.limits(project)
    assert len(found.value.faults) == 2
    assert "mlops_nb.max_p95_ms: a number is expected, not 'quick'" in found.value.faults[0]


# --------------------------------------------------------------------------------------------------------------- requests
def test_requests_are_real_rows_in_azures_format() -> None:
    rows = pd.DataFrame({"carat": [0.1, None, 0.3], "cut": ["Fair", "Good", None], "sold": pd.to_datetime(["2026-01-31"] * 3)})
    first, second = map(json.loads, load.requests_of(rows, rows_per_request=2))
    assert first["input_data"]["columns"] == ["carat", "cut", "sold"]
    assert first["input_data"]["data"][1][:2] == [None, "Good"]
    assert first["input_data"]["data"][0][2].startswith("2026-01-31T00:00:00")
    assert second["input_data"]["index"] == [0]
    with pytest.raises(ValueError, match="no rows"):
        load.requests_of(rows.head(0))


# ----------------------------------------------------------------------------------------------------------------- Locust
ENOUGH = 60  # requests


class Scores(BaseHTTPRequestHandler):
    """Answers after some milliseconds; every tenth answer is a failure, and Locust is told to end when it has asked enough."""

    protocol_version, disable_nagle_algorithm = "HTTP/1.1", True

    def do_POST(self) -> None:
        server: Any = self.server
        server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        server.opened.add(self.headers["Authorization"])
        number = next(server.counted)
        fails = number % 10 == 9
        time.sleep(0.02)
        if number == ENOUGH:
            for process in psutil.process_iter(["ppid", "cmdline"]):
                if process.info["ppid"] == os.getpid() and "locust" in (process.info["cmdline"] or []):
                    process.terminate()
        self.send_response(503 if fails else 200)
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"[1]")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Scores)
    server.bodies, server.opened, server.counted = [], set(), itertools.count()
    server.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_locust_asks_with_the_key_and_tells_what_came_back(endpoint: Any) -> None:
    bodies = load.requests_of(FRAME)
    with load.load_test(bodies, users=2, seconds=120) as ask:
        assert not endpoint.bodies  # it has started, and waits for the address
        seen = ask(endpoint.address, {"Authorization": "Bearer key"})
    assert {body.decode() for body in endpoint.bodies} <= set(bodies)
    assert len(set(endpoint.bodies)) == len(bodies)
    assert endpoint.opened == {"Bearer key"}
    assert ENOUGH - 2 <= seen.requests <= len(endpoint.bodies)  # at the end each of the two may have been asking
    assert seen.error_rate == pytest.approx(0.1, abs=0.05)
    assert "503" in seen.problems["503"]
    assert seen.percentile(50) >= 20
    assert seen.percentile(99) >= seen.percentile(95) >= seen.percentile(50)
    assert seen.requests_per_second <= 2 / 0.02
    rate, p95, errors = load.judge(seen, LENIENT)
    assert (rate.passed, p95.passed, errors.passed) == (True, True, False)
    assert "200: " in errors.detail
    assert "503: " in errors.detail


def test_it_ends_with_the_block_and_says_why_it_could_not_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "asleep").write_text("#!/bin/sh\nexec sleep 600\n")
    (tmp_path / "asleep").chmod(0o755)
    monkeypatch.setattr("sys.executable", str(tmp_path / "asleep"))
    before = set(psutil.Process().children())
    with load.load_test(["{}"], wait=0.05) as ask, pytest.raises(StepFailed, match="has not written ready within"):
        ask("http://127.0.0.1:9", {})
    assert set(psutil.Process().children()) <= before
    monkeypatch.setattr("sys.executable", shutil.which("false"))
    with load.load_test(["{}"]) as ask, pytest.raises(StepFailed, match="Locust ended before its time"):
        ask("http://127.0.0.1:9", {})


def test_nobody_there_fails_every_check() -> None:
    nobody = Load(2, 0.4, {"0": 12}, {"0": "Connection refused"}, np.array([]))
    checks = load.judge(nobody, Limits())
    assert [check.passed for check in checks] == [False, False, False]
    assert checks[1].value == math.inf
    assert checks[-1].detail == "no answer: 12; no answer: Connection refused"
    assert [check.passed for check in load.judge(Load(1, 0.0, {}, {}, np.array([])), Limits())] == [False, False, False]


# --------------------------------------------------------------------------------------------------------------- machines
@pytest.mark.parametrize(("rate", "seconds", "at_once", "busy", "expected"), [
    (100, 0.05, 1, 0.7, 8),  # 5 under way; 5 / 0.7 = 7.14
    (1000, 0.02, 4, 0.5, 10),  # 20 under way, 2 of 4 places used each
    (70, 0.1, 1, 0.7, 10),  # exactly 10, although 70 x 0.1 / 0.7 is 10.000000000000002
    (1, 0.001, 32, 0.7, 1),  # never none
    (0, 0.5, 1, 1.0, 1),
])
def test_instances_by_azures_formula(rate: float, seconds: float, at_once: int, busy: float, expected: int) -> None:
    assert load.instances(rate, seconds, at_once, busy) == expected


@pytest.mark.parametrize("wrong", [(-1, 0.1, 1, 0.7), (1, -0.1, 1, 0.7), (1, 0.1, 0, 0.7), (1, 0.1, 1, 0.0), (1, 0.1, 1, 1.1)])
def test_what_cannot_be_is_refused(wrong: tuple[float, float, int, float]) -> None:
    with pytest.raises(ValueError, match="No instances for"):
        load.instances(*wrong)


def measured(cores: int, concurrency: int, mean: float, memory: float = 300, errors: float = 0.0) -> Measured:
    rate = concurrency / mean * 1000
    return Measured(cores, concurrency, rate, mean, mean, 2 * mean, 3 * mean, errors, 1, 0.8, memory, memory, False)


def test_machines_are_recommended_by_what_was_measured() -> None:
    seen = Profile("model:dev.diamonds/1", 1, 4, 3.0, [
        measured(1, 1, 8, memory=4000), measured(2, 4, 10), measured(2, 16, 20), measured(2, 32, 15, errors=0.01)])
    table = seen.recommend(1200).set_index("size")
    # 1200/s of 20 ms are 24 under way; 24 / 0.7 / 16 = 2.1; at 4 at once: 12 / 0.7 / 4 = 4.3
    assert table.loc["Standard_DS2_v2", ["instances", "max_concurrency"]].tolist() == [3, 16]
    quick = seen.recommend(1200, max_p95_ms=30).set_index("size")
    assert quick.loc["Standard_DS2_v2", ["instances", "max_concurrency"]].tolist() == [5, 4]
    assert table.loc["Standard_DS1_v2", "why"] == "its workers need 3.9 GiB"  # of 3.5
    assert table.loc["Standard_DS3_v2", "why"] == "4 cores were not measured"
    assert table["instances"].notna().sum() == 3  # every size of two cores


# --------------------------------------------------------------------------------------------------------- a real endpoint
@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, ModelVersion]]:
    root = tmp_path_factory.mktemp("profile")
    shutil.copy(ROOT / "settings.ini", root)
    shutil.copytree(ROOT / "environments", root / "environments")
    deployment = root / "environments/dev/deployment.yml"
    deployment.write_text(deployment.read_text().replace("request_timeout_ms: 5000", "request_timeout_ms: 60000"))
    settings = load_settings("dev", root, user="ada")
    tracking.use_experiment(settings, "classical")
    signature = mlflow.models.infer_signature(FRAME, np.array([1.0]))
    with mlflow.start_run():
        logged = mlflow.sklearn.log_model(LinearRegression().fit(FRAME, FRAME["carat"] * 4000), name="model", signature=signature,
                                          pip_requirements=["scikit-learn"], registered_model_name="dev.diamonds")
    yield settings, ModelVersion("dev.diamonds", int(logged.registered_model_version), "regression")
    mine = str(root)
    assert not [p for p in psutil.process_iter(["cmdline"]) if mine in " ".join(p.info["cmdline"] or [])]


@pytest.mark.slow
def test_a_real_endpoint_under_load(here: tuple[Settings, ModelVersion]) -> None:
    settings, model = here
    checks, seen = load.performance(settings, model, FRAME, LENIENT, users=4, seconds=1.0)
    assert [check.passed for check in checks] == [True, True, True]
    assert set(seen.statuses) == {"200"}
    assert seen.seconds > 0


@pytest.mark.slow
def test_a_short_profile_by_the_command(here: tuple[Settings, ModelVersion], monkeypatch: pytest.MonkeyPatch,
                                        capsys: pytest.CaptureFixture[str]) -> None:
    settings, _ = here
    monkeypatch.chdir(settings.root)
    FRAME.assign(price=1.0).to_csv("rows.csv", index=False)
    words = ["profile", "diamonds/1", "--rate", "50", "--seconds", "0.5", "--concurrency", "1,4", "--cores", "1", "--rows-per-request",
             "2", "--data", "rows.csv", "-o", "profile.json"]
    with pytest.raises(SystemExit) as done:
        main(words)
    assert done.value.code == 0, capsys.readouterr().err
    told = json.loads(Path("profile.json").read_text())
    assert [(row["cores"], row["concurrency"]) for row in told["measured"]] == [(1, 1), (1, 4)]
    for row in told["measured"]:
        assert row["error_rate"] == 0
        assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
        assert 20 < row["memory_mib"] <= row["resident_mib"] < 2000
    busy = sorted(row["cpu_ms"] / 1000 * row["requests_per_second"] for row in told["measured"])
    assert busy[0] <= 1.2  # one worker, on one core
    assert busy[-1] > 0
    small = next(row for row in told["recommended"]["sizes"] if row["size"] == "Standard_DS1_v2")
    assert small["instances"] >= 1
    assert "p95 ms" in capsys.readouterr().out
