"""`mlops-nb deploy MODEL`: any MLflow model, from a folder, a run or the registry, to an endpoint that curl can ask."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from sklearn.linear_model import LinearRegression

from mlops_nb.core import ledger, tracking
from mlops_nb.core.settings import Settings, load_settings
from mlops_nb.outer_loop import approval, environments, models, online, state

MLOPS_NB = Path(sys.executable).with_name("mlops-nb")
Command = Callable[..., Any]


@pytest.fixture(scope="module")
def staging(stones: Any) -> Iterator[Settings]:
    """The project, as the process that delivers sees it."""
    settings = load_settings("staging", stones.settings.root, user="ada")
    yield settings
    for name in state.endpoint_names(settings):
        online.remove(settings, name)


@pytest.fixture(scope="module")
def saved(stones: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that MLflow wrote, of no project."""
    folder = tmp_path_factory.mktemp("models") / "ring prices"
    signature = mlflow.models.infer_signature(stones.frame, [1.0])
    model = LinearRegression().fit(stones.frame, stones.frame["carat"] * 3000)
    mlflow.sklearn.save_model(model, folder, signature=signature, pip_requirements=["scikit-learn"])
    return folder


def test_a_folder_goes_to_staging_and_answers_the_printed_curl_command(staging: Settings, saved: Path, command: Command) -> None:
    done = command("deploy", saved, "--env", "staging", "--endpoint", "rings")
    assert done.rc == 0, done.stderr
    assert "deployment:staging.rings/blue with staging.rings/1 is ready with 100 % of the traffic." in done.stdout
    address = online.endpoint_status(staging, "rings")[0]["address"]
    assert f"\n{address}\n" in done.stdout
    assert [entry.action for entry in ledger.entries(staging) if entry.environment == "staging"] == ["register", "deploy"]
    curl = done.stdout[done.stdout.index("curl ") :]
    assert "get-credentials rings --env staging --key primary" in curl
    if shutil.which("curl"):
        path = f"{MLOPS_NB.parent}:{os.environ['PATH']}"
        asked = subprocess.run(["bash", "-c", curl], cwd=staging.root, env=os.environ | {"PATH": path}, capture_output=True, text=True)
        (price,) = json.loads(asked.stdout)
        assert price == pytest.approx(0, abs=1e-6)  # of a stone of no carat: the row is made up from the signature
    again = command("deploy", saved, "--env", "staging", "--endpoint", "rings")
    assert "deployment:staging.rings/blue with staging.rings/1" in again.stdout  # the same files: neither registered nor started twice
    asked = command("invoke", "rings", "--env", "staging")
    assert json.loads(asked.stdout) == [pytest.approx(0, abs=1e-6)]
    assert json.loads(asked.stderr)["input_data"]["columns"] == ["carat", "depth"]


def test_a_registered_model_gets_its_name_and_the_share_that_is_asked_for(staging: Settings, command: Command) -> None:
    done = command("deploy", "dev.diamonds/2", "--env", "staging", "--endpoint", "rings", "--deployment", "crimson", "--traffic", "30")
    assert done.rc == 0, done.stderr
    assert "staging.rings/crimson with dev.diamonds/2 is ready with 30 % of the traffic" in done.stdout
    assert {d.name: d.traffic for d in online.deployments(staging, "rings")} == {"blue": 70, "crimson": 30}
    shown = command("endpoint", "show", "rings", "--env", "staging").stdout
    assert "1 of 1" in shown
    assert "30 %" in shown
    assert "dev.diamonds/2" in command("endpoint", "list", "--env", "staging").stdout
    alone = command("deploy", "dev.diamonds/2", "--env", "staging", "--endpoint", "first", "--traffic", "30")
    assert (alone.rc, "first has no other deployment to share with" in alone.stderr) == (2, True)
    gone = command("endpoint", "remove", "rings", "--env", "staging")
    assert (gone.rc, "there are: blue, crimson" in gone.stderr) == (2, True)
    assert command("traffic", "rings", "blue=100", "--env", "staging").rc == 0
    assert command("endpoint", "remove", "rings", "crimson", "--env", "staging").rc == 0


def test_where_an_approval_is_required_the_command_asks_for_it(stones: Any, saved: Path, command: Command) -> None:
    waiting = command("deploy", saved, "--env", "prod", "--endpoint", "rings")
    assert waiting.rc == 3, waiting.stderr
    assert "model:prod.rings/1 waits for an approval by somebody other than ada" in waiting.stderr
    assert "mlops-nb approve rings/1 --env prod" in waiting.stderr
    prod = load_settings("prod", stones.settings.root, user="grace", persona="project_lead")
    assert state.endpoint_names(prod) == []
    approval.refuse(prod, models.find_model(prod, "rings/1"), "too dear")
    refused = command("deploy", "rings/1", "--env", "prod")
    assert (refused.rc, "was refused by grace (project_lead): too dear" in refused.stderr) == (3, True)


def test_a_file_of_ones_own_says_what_and_where(staging: Settings, saved: Path, command: Command, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "model")
    file = tmp_path / "deployment.yml"
    file.write_text("name: scarlet\nendpoint_name: rings\ninstance_type: Standard_DS3_v2\nmodel: {path: model}\n"
                    "scale_settings: {type: target_utilization, min_instances: 1, max_instances: 2, polling_interval: 1}\n")
    done = command("deploy", "--file", file, "--env", "staging")
    assert done.rc == 0, done.stderr
    assert "deployment:staging.rings/scarlet with staging.rings/1 is ready with 0 % of the traffic" in done.stdout
    assert "-H 'azureml-model-deployment: scarlet'" in done.stdout
    wish = state.read_wanted(staging, "rings")["deployments"]["scarlet"]
    assert (wish["scale"]["max_instances"], wish["collector"]) == (2, None)
    online.remove(staging, "rings", "scarlet")


@pytest.mark.parametrize(("arguments", "says"), [
    ((), "Which model? Name a registered one"),
    (("nowhere",), r"No model staging.nowhere (registered models: "),
    (("./nowhere/model",), "No folder ./nowhere/model"),
    (("dev.diamonds/77",), "No version '77' of dev.diamonds (versions: 1, 2, 3, 4)"),
    (("dev.diamonds/1", "--file", "gone.yml"), "gone.yml"),
])
def test_what_cannot_be_deployed_is_told(command: Command, arguments: tuple[str, ...], says: str) -> None:
    done = command("deploy", *arguments, "--env", "staging")
    assert (done.rc, says in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("arguments", [("endpoint", "start", "rings"), ("endpoint", "metrics", "rings"), ("endpoint", "serve", "rings"),
                                       ("traffic", "rings", "--roll-out", "blue"), ("traffic", "rings", "--compare", "blue")])
def test_what_azure_ml_does_not_do_is_told_before_it_is_asked(command: Command, monkeypatch: Any, arguments: tuple[str, ...]) -> None:
    monkeypatch.setenv("MLOPS_NB_BACKEND", "azure")
    done = command(*arguments)
    assert (done.rc, "is for endpoints of this machine; dev has backend = azure" in done.stderr) == (2, True), done.stderr


def test_with_backend_azure_the_command_deploys_there(command: Command, monkeypatch: Any) -> None:
    """There is no Azure here: it gets as far as looking for the workspace."""
    monkeypatch.setenv("MLOPS_NB_BACKEND", "azure")
    done = command("deploy", "dev.diamonds/1")
    assert done.rc == 2
    assert "AZURE_SUBSCRIPTION_ID" in done.stderr


def test_a_runs_model_is_registered_with_the_one_who_trained_it(stones: Any) -> None:
    settings = stones.settings
    tracking.use_experiment(settings, "classical")
    with mlflow.start_run(tags={"trained_by": "grace"}) as run:
        model = LinearRegression().fit(stones.frame, stones.frame["carat"])
        mlflow.sklearn.log_model(model, name="rings", pip_requirements=["scikit-learn"])
    found = models.find_model(settings, f"runs:/{run.info.run_id}/rings")
    assert (found.name, found.trained_by, found.run_id) == ("dev.rings", "grace", run.info.run_id)
    assert models.find_model(settings, f"runs:/{run.info.run_id}/rings") == found
    assert (Path(models.model_folder(settings, found)) / "MLmodel").is_file()


def test_metrics_and_logs_are_there_to_read(staging: Settings, command: Command, stones: Any) -> None:
    for _ in range(3):
        online.invoke(staging, "rings", stones.half)
    assert 'RequestsPerMinute{deployment="blue",statusCode="200"' in command("endpoint", "metrics", "rings", "--env", "staging").stdout
    stones.until(lambda: len(command("endpoint", "logs", "rings", "--traffic", "--env", "staging", "-n", "3").stdout.splitlines()) == 3)
    lines = command("endpoint", "logs", "rings", "--traffic", "--env", "staging", "-n", "3").stdout.splitlines()
    assert {json.loads(line)["ResponseCode"] for line in lines} == {200}
    assert "rings listens on port" in command("endpoint", "logs", "rings", "--env", "staging").stdout
    assert command("endpoint", "logs", "rings", "--deployment", "blue", "--env", "staging").rc == 0
    wrong = command("endpoint", "logs", "rings", "--deployment", "red", "--env", "staging")
    assert (wrong.rc, "deployments: blue" in wrong.stderr) == (2, True)


def test_a_log_is_followed(staging: Settings, stones: Any) -> None:
    words = [MLOPS_NB, "endpoint", "logs", "rings", "--traffic", "--env", "staging", "-n", "0", "--follow"]
    with subprocess.Popen(words, cwd=staging.root, stdout=subprocess.PIPE) as following:
        try:
            assert following.stdout
            os.set_blocking(following.stdout.fileno(), False)
            told, end = b"", time.monotonic() + 60
            while not told.endswith(b"\n") and time.monotonic() < end:
                online.invoke(staging, "rings", stones.half, request_id="followed")
                time.sleep(0.2)
                told += following.stdout.read() or b""
        finally:
            following.kill()
    assert json.loads(told.splitlines()[0])["XRequestId"] == "followed"


@pytest.mark.slow
@pytest.mark.parametrize("given", [False, True], ids=["alone", "with systemd's socket"])
def test_an_endpoint_is_served_from_the_foreground_for_systemd(staging: Settings, stones: Any, given: bool) -> None:
    """What a unit calls: the process stays, is the host itself, and takes over a socket that systemd holds for it."""
    online.stop(staging, "rings")
    with contextlib.ExitStack() as stack:
        port = state.read_wanted(staging, "rings")["port"]
        words = ["bash", "-c", f"exec {MLOPS_NB} endpoint serve rings --env staging"]
        if given:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64))
            port = listener.getsockname()[1]
            words[2] = f"export LISTEN_PID=$$ LISTEN_FDS=1; exec 3<&{listener.fileno()}; {words[2]}"
        host = stack.enter_context(subprocess.Popen(words, cwd=staging.root, stdout=subprocess.DEVNULL,
                                                    pass_fds=[listener.fileno()] if given else []))
        stack.callback(host.kill)
        stones.until(lambda: state.read_status(staging, "rings")["pid"] == host.pid and bool(online.start(staging, "rings")))
        assert state.read_wanted(staging, "rings")["port"] == port
        assert len(online.invoke(staging, "rings", stones.half)) == 1
        host.send_signal(signal.SIGTERM)
        assert host.wait(60) == 0
    assert {row["state"] for row in online.endpoint_status(staging, "rings")} == {"stopped"}


SCORE = "import sys\n\ndef init():\n    pass\n\ndef run(raw_data):\n    return sys.prefix\n"


@pytest.mark.slow
def test_a_model_is_served_by_a_python_of_its_own(staging: Settings, command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "bare"
    (tmp_path / "src").mkdir()
    folder.mkdir()
    (folder / "requirements.txt").write_text("# nothing but what serving needs\n")
    (tmp_path / "src" / "score.py").write_text(SCORE)
    (tmp_path / "deployment.yml").write_text("name: bare\nendpoint_name: rings\ninstance_type: Standard_DS3_v2\nmodel: {path: bare}\n"
                                             "code_configuration: {code: src, scoring_script: score.py}\n")
    done = command("deploy", "--file", tmp_path / "deployment.yml", "--own-environment", "--env", "staging")
    if done.rc == 4 and "environment cannot be made" in done.stderr:
        pytest.skip(f"packages cannot be had here: {done.stderr[:200]}")
    assert done.rc == 0, done.stderr
    python = state.read_wanted(staging, "rings")["deployments"]["bare"]["python"]
    assert Path(python).is_relative_to(staging.state / "environments")
    assert online.invoke(staging, "rings", {}, "bare") == str(Path(python).parents[1])
    made = Path(python).lstat().st_ctime_ns
    assert environments.make_environment(staging, folder) == python  # found, not made again
    assert Path(python).lstat().st_ctime_ns == made
    online.remove(staging, "rings", "bare")
