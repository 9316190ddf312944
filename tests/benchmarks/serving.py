"""One-row requests: 20 features, HistGradientBoosting, one worker, beside MLflow's server, Azure ML's, and a hello-world of our stack.

Every server gets the same load from the same generator (wrk where it is installed, else one of our own, which is heavier), in
turns, and answers from the same model folder. Azure ML's server is installed into an environment of its own, and bound to this
machine alone; it loads the model with mlflow.pyfunc, as Azure ML's deployments without code do. What cannot be had is left out.
"""

import asyncio
import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from mlops_nb.scoring.config import Config, Wish
from tests.benchmarks.peers import install

ROOT = Path(__file__).resolve().parents[2]
CONNECTIONS = (1, 8, 32)
ROUNDS, SECONDS = 3, 3
FEATURES = [f"f{number}" for number in range(20)]
HELLO, WORKER, COLLECTING, WHOLE = "hello world", "ours, worker", "ours, worker, collecting", "ours, endpoint"
KEEPING = "ours, endpoint, collecting"
MLFLOW, AZURE = "mlflow models serve", "Azure ML's server"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true",
               "PYTHONPATH": str(ROOT)}
SERVE = """import json, sys, uvicorn
MAKE
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), http="httptools", access_log=False, log_level="warning", server_header=False,
            date_header=False)
"""
MAKE_HELLO = """from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
async def hello(request):
    return JSONResponse([len(json.loads(await request.body()))])
app = Starlette(routes=[Route("/score", hello, methods=["POST"])])"""
MAKE_OURS = """import gc
from mlops_nb.scoring.app import make_app
from mlops_nb.scoring.config import Config
from mlops_nb.scoring.model import load_model, warm_up
config = Config.of(json.loads(sys.argv[2]))
model = load_model(config.wish.path)
warm_up(model, config.wish.path)
app = make_app(config, model)
gc.collect()
gc.freeze()"""
SCORE = """import json, os, pandas
def init():
    global model
    import mlflow.pyfunc
    model = mlflow.pyfunc.load_model(os.environ["AZUREML_MODEL_DIR"])
def run(raw):
    table = json.loads(raw)["input_data"]
    return model.predict(pandas.DataFrame(table["data"], columns=table["columns"])).tolist()
"""


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    port: int
    path: str
    body: bytes
    processes: list[int]  # what counts as its CPU time; children too
    headers: dict[str, str]


@dataclass(frozen=True)
class Found:
    """What one load showed."""

    rate: float  # answers per second
    p50: float  # milliseconds
    p99: float
    cpu: float  # milliseconds of the server's CPU time per answer
    failed: int


# --- load ------------------------------------------------------------------------------------------------------------


def load(server: Server, connections: int, seconds: float, folder: Path) -> tuple[float, float, float, int]:
    """Send as many requests as are answered; returns answers per second, p50 and p99 in ms, and failures."""
    headers = {"content-type": "application/json", **server.headers}
    if not shutil.which("wrk"):
        return asyncio.run(_load(server, connections, seconds, headers))
    (folder / "body.json").write_bytes(server.body)
    lines = [f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in headers.items()]
    (folder / "post.lua").write_text("\n".join([
        'wrk.method = "POST"', *lines, f"local f = io.open({json.dumps(str(folder / 'body.json'))})",
        'wrk.body = f:read("*a")', "f:close()",
        "done = function(summary, latency) io.write(string.format('FOUND %d %d %f %f %d\\n', summary.requests, summary.duration, "
        "latency:percentile(50), latency:percentile(99), summary.errors.status + summary.errors.connect + summary.errors.timeout)) "
        "end"]))
    address = f"http://127.0.0.1:{server.port}{server.path}"
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(folder / "post.lua"), address]
    told = re.search(r"FOUND (\d+) (\d+) ([\d.]+) ([\d.]+) (\d+)", subprocess.check_output(command, text=True))
    assert told is not None
    requests, micros, p50, p99, failed = (float(value) for value in told.groups())
    return requests / micros * 1e6, p50 / 1000, p99 / 1000, int(failed)


async def _load(server: Server, connections: int, seconds: float, headers: dict[str, str]) -> tuple[float, float, float, int]:
    head = f"POST {server.path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(server.body)}\r\n"
    request = (head + "".join(f"{n}: {v}\r\n" for n, v in headers.items()) + "\r\n").encode() + server.body
    times: list[float] = []
    failed = 0
    until = time.perf_counter() + seconds

    async def ask() -> None:
        nonlocal failed
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        while (began := time.perf_counter()) < until:
            writer.write(request)
            found = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: *(\d+)", found, re.I)
            await reader.readexactly(int(length[1]) if length else 0)
            failed += not found.startswith(b"HTTP/1.1 200")
            times.append(time.perf_counter() - began)
        writer.close()

    await asyncio.gather(*(ask() for _ in range(connections)))
    times.sort()
    return len(times) / seconds, times[len(times) // 2] * 1000, times[int(len(times) * 0.99)] * 1000, failed


def cpu(processes: list[int]) -> float:
    """Return the CPU seconds of processes and their children."""
    total = 0.0
    for pid in processes:
        with contextlib.suppress(psutil.Error):
            for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
                with contextlib.suppress(psutil.Error):
                    times = process.cpu_times()
                    total += times.user + times.system
    return total


def measure(server: Server, connections: int, folder: Path) -> Found:
    """Load a server once."""
    before = cpu(server.processes)
    rate, p50, p99, failed = load(server, connections, SECONDS, folder)
    return Found(rate, p50, p99, (cpu(server.processes) - before) * 1000 / max(rate * SECONDS, 1), failed)


# --- servers ---------------------------------------------------------------------------------------------------------


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def running(command: list[str], server: Server, log: Path, **more: Any) -> Iterator[Server]:
    """Start a server and wait for its first answer; on leaving, it is gone."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True, **{"env": ENVIRONMENT, **more})
    server.processes.append(process.pid)
    try:
        until = time.monotonic() + 90
        while not answers(server):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError("\n".join(log.read_text().splitlines()[-3:]))
            time.sleep(0.1)
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()


def answers(server: Server) -> bool:
    """Tell whether a server answers the request it is going to get."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request("POST", server.path, server.body, {"content-type": "application/json", **server.headers})
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def ours(model: Path, folder: Path, collecting: bool = False) -> list[str]:
    """Say how one worker is started on a port of its own."""
    collector = {"collections": {"model_inputs": 1.0, "model_outputs": 1.0}} if collecting else None
    wish = Wish("model:dev.bench/1", str(model), max_concurrent=32, collected=str(folder / "collected"), collector=collector)
    config = Config("bench", "blue", "dev", f"blue-{int(collecting)}", "", wish)
    return [sys.executable, "-P", "-c", SERVE.replace("MAKE", MAKE_OURS), "PORT", json.dumps(asdict(config))]


def azure_server(folder: Path, model: Path) -> tuple[list[str], dict[str, Any]] | None:
    """Install Azure ML's server, with our versions of the model's libraries; None if it cannot be had."""
    same = [f"{name}=={version(name)}" for name in ("mlflow", "numpy", "pandas", "scikit-learn", "skops")]
    python = install(folder, AZURE, ["azureml-inference-server-http", *same])
    if python is None:
        return None
    purelib = subprocess.check_output([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True).strip()
    constants = Path(purelib, "azureml_inference_server_http", "constants.py")
    constants.write_text(constants.read_text().replace('"0.0.0.0"', '"127.0.0.1"'))
    (folder / "score.py").write_text(SCORE)
    command = [str(python.with_name("azmlinfsrv")), "--entry_script", str(folder / "score.py"), "--model_dir", str(model),
               "--port", "PORT", "--worker_count", "1"]
    return command, {"cwd": folder, "env": {k: v for k, v in ENVIRONMENT.items() if k != "PYTHONPATH"} | {
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}}


def train(folder: Path) -> tuple[Path, bytes]:
    """Save the model; returns its folder and a request of one row."""
    import mlflow
    import numpy as np
    import pandas as pd
    from sklearn.ensemble import HistGradientBoostingRegressor

    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(5000, len(FEATURES))), columns=FEATURES)
    fitted = HistGradientBoostingRegressor().fit(frame, frame.sum(axis=1) + frame.f0 * frame.f1)
    mlflow.sklearn.save_model(
        fitted, folder / "model", pip_requirements=["scikit-learn"], serialization_format="skops", input_example=frame.head(3),
        signature=mlflow.models.infer_signature(frame, fitted.predict(frame)),
        skops_trusted_types=["sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"])
    row = {"columns": FEATURES, "data": frame.iloc[:1].to_numpy().tolist()}
    return folder / "model", json.dumps(row).encode()


@contextlib.contextmanager
def endpoint(folder: Path, model: Path, instances: int = 1, collecting: bool = False) -> Iterator[tuple[Server, Path]]:
    """Start a whole endpoint of ours, front and workers; yields it and its folder."""
    import mlflow
    import yaml

    from mlops_nb.core.records import ModelVersion
    from mlops_nb.core.settings import load_settings
    from mlops_nb.core.tracking import connect
    from mlops_nb.outer_loop import credentials, online
    from mlops_nb.outer_loop.client import base_address
    from mlops_nb.outer_loop.state import read_wanted

    place = folder / f"project-{instances}-{collecting}"
    shutil.copytree(ROOT / "environments", place / "environments")
    shutil.copy(ROOT / "settings.ini", place)
    settings = load_settings(root=place)
    connect(settings)
    client = mlflow.MlflowClient()
    client.create_registered_model(f"{settings.environment}.bench")
    made = client.create_model_version(f"{settings.environment}.bench", model.as_uri())
    file = place / "environments" / settings.environment / "deployment.yml"
    wanted = yaml.safe_load(file.read_text()) | {"instance_count": instances}
    wanted["request_settings"]["max_concurrent_requests_per_instance"] = 32
    file.write_text(yaml.safe_dump(wanted))
    body = json.dumps({"input_data": json.loads(train_row(model))}).encode()
    version = ModelVersion(f"{settings.environment}.bench", int(made.version), "regression")

    def server(address: str, there: Path, headers: dict[str, str]) -> tuple[Server, Path]:
        host = json.loads((there / "status.json").read_text())["pid"]
        return Server(int(address.rpartition(":")[2]), "/score", body, [host], headers), there

    if not collecting:
        with online.temporary_endpoint(settings, version) as ask:
            yield server(ask.address, ask.settings.endpoints / ask.endpoint, dict(ask.headers))
        return
    online.deploy(settings, "bench", version)  # as the environment's file says: all inputs and outputs are kept
    try:
        address = base_address(read_wanted(settings, "bench"))
        yield server(address, settings.endpoints / "bench", credentials.authorization(settings, "bench"))
    finally:
        online.stop(settings, "bench")


def train_row(model: Path) -> str:
    """Return one row of the model's own example, as a split table."""
    example = json.loads((model / "serving_input_example.json").read_text())["dataframe_split"]
    return json.dumps({"columns": example["columns"], "data": example["data"][:1]})


def servers(folder: Path, model: Path, row: bytes) -> dict[str, Callable[[], contextlib.AbstractContextManager[Server]]]:
    """Say how each server is started."""
    azure, mlflows = b'{"input_data": %s}' % row, b'{"dataframe_split": %s}' % row
    mlflow_command = [str(Path(sys.executable).with_name("mlflow")), "models", "serve", "-m", str(model), "--env-manager", "local",
                      "-h", "127.0.0.1", "-p", "PORT", "--workers", "1"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    commands: dict[str, tuple[list[str], str, bytes, dict[str, Any]]] = {
        HELLO: ([sys.executable, "-c", SERVE.replace("MAKE", MAKE_HELLO), "PORT"], "/score", azure, {}),
        WORKER: (ours(model, folder), "/score", azure, {}),
        COLLECTING: (ours(model, folder, collecting=True), "/score", azure, {}),
        MLFLOW: (mlflow_command, "/invocations", mlflows, {"env": ENVIRONMENT | {"PATH": path}}),
    }
    if found := azure_server(folder, model):
        commands[AZURE] = (found[0], "/score", azure, found[1])

    def starter(name: str) -> Callable[[], contextlib.AbstractContextManager[Server]]:
        command, route, body, more = commands[name]

        def start() -> contextlib.AbstractContextManager[Server]:
            port = free_port()
            named = [str(port) if word == "PORT" else word for word in command]
            return running(named, Server(port, route, body, [], {}), folder / f"{name.replace(' ', '-')}.log", **more)

        return start

    return {name: starter(name) for name in commands}


# --- single figures --------------------------------------------------------------------------------------------------


def first_answer(model: Path, folder: Path, body: bytes) -> float:
    """Return the seconds from starting a worker, as the host does it, to its first answer."""
    wish = Wish("model:dev.bench/1", str(model), max_concurrent=32)
    config = Config("bench", "blue", "dev", "blue-0", "worker.sock", wish)
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-P", "-m", "mlops_nb.scoring.app", json.dumps(asdict(config))], cwd=folder,
                               stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    try:
        while True:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as asker:
                asker.connect(str(folder / "worker.sock"))
                head = f"POST /score HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
                asker.sendall(head.encode() + body)
                if asker.recv(65536).startswith(b"HTTP/1.1 200"):
                    return time.perf_counter() - began
            if process.poll() is not None:
                raise RuntimeError("the worker ended before it answered")
            time.sleep(0.005)
    finally:
        process.terminate()
        process.wait()


def answered(folder: Path) -> dict[str, int]:
    """Ask every worker of an endpoint how many requests it has answered."""
    counts = {}
    for path in sorted((folder / "run").glob("*.sock")):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as asker:
            asker.connect(str(path))
            asker.sendall(b"GET /version HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            told = b"".join(iter(lambda a=asker: a.recv(65536), b"")).partition(b"\r\n\r\n")[2]  # type: ignore[misc]
            counts[path.stem] = int(json.loads(told).get("answered", 0))
    return counts


def evenness(folder: Path, model: Path, place: Path) -> None:
    """Print how two workers share the load, round by round."""
    with endpoint(folder, model, instances=2) as (server, there):
        for connections in CONNECTIONS[1:]:
            for _ in range(ROUNDS):
                before = answered(there)
                load(server, connections, 2, place)
                counts = [count - before.get(name, 0) for name, count in answered(there).items()]
                apart = (max(counts) - min(counts)) / max(sum(counts) / len(counts), 1)
                print(f"- two workers, {connections} connections: {' and '.join(map(str, counts))} answers, {apart:.1%} apart")


def front_cpu(there: Path, server: Server, place: Path) -> float:
    """Return the front's CPU milliseconds per request."""
    front = json.loads((there / "status.json").read_text())["front"]["pid"]
    before = cpu([front])
    rate, *_ = load(server, 32, SECONDS, place)
    return (cpu([front]) - before) * 1000 / (rate * SECONDS)


# --- the page --------------------------------------------------------------------------------------------------------


def table(found: dict[str, dict[int, Found]]) -> None:
    """Print the medians, and every server's rate as a multiple of the peers'."""
    heads = ["server", "connections", "requests/s", "p50 ms", "p99 ms", "CPU ms/request", "times MLflow's", "times Azure ML's",
             "of hello world"]
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for name, cases in found.items():
        for connections, case in cases.items():
            over = [f"{case.rate / found[peer][connections].rate:.1f}" if peer in found else "" for peer in (MLFLOW, AZURE)]
            share = f"{case.rate / found[HELLO][connections].rate:.0%}" if HELLO in found else ""
            note = f" ({case.failed} failed)" if case.failed else ""
            figures = f"{case.rate:.0f}{note} | {case.p50:.2f} | {case.p99:.2f} | {case.cpu:.2f}"
            print(f"| {name} | {connections} | {figures} | {over[0]} | {over[1]} | {share} |")


def middle(cases: list[Found]) -> Found:
    """Return the median of every figure."""
    return Found(*(statistics.median(getattr(case, name) for case in cases) for name in ("rate", "p50", "p99", "cpu")),
                 failed=sum(case.failed for case in cases))


def main() -> None:
    """Measure in turns, so that a busy moment hits all alike; every server is alone with the load."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        model, row = train(folder)
        started: dict[str, Server] = {}
        for title, start in servers(folder, model, row).items():
            try:
                started[title] = stack.enter_context(start())
            except (RuntimeError, OSError) as problem:
                print(f"{title} is left out: {problem}\n")
        there = None
        try:
            started[WHOLE], there = stack.enter_context(endpoint(folder, model))
            started[KEEPING], _ = stack.enter_context(endpoint(folder, model, collecting=True))
        except Exception as problem:  # the figures of the worker are worth printing all the same
            print(f"{WHOLE} is left out: {type(problem).__name__}: {problem}\n")
        for server in started.values():
            load(server, 8, 1, folder)  # warm
        rounds: dict[str, dict[int, list[Found]]] = {title: {c: [] for c in CONNECTIONS} for title in started}
        for _ in range(ROUNDS):
            for connections in CONNECTIONS:
                for title, server in started.items():
                    rounds[title][connections].append(measure(server, connections, folder))
        print(f"{ROUNDS} rounds of {SECONDS} s, Python {sys.version.split()[0]}, {os.cpu_count()} cores, "
              f"load {os.getloadavg()[0]:.1f}, {'wrk' if shutil.which('wrk') else 'our own generator'}\n")
        found = {title: {c: middle(cases) for c, cases in turns.items()} for title, turns in rounds.items()}
        table(found)
        print()
        for connections in CONNECTIONS:
            for on, off in ((COLLECTING, WORKER), (KEEPING, WHOLE)):
                if on in found:
                    kept = found[on][connections].rate / found[off][connections].rate
                    print(f"- collection on, {off}, {connections} connections: {1 - kept:.0%} fewer requests/s")
        if there:
            print(f"- the front: {front_cpu(there, started[WHOLE], folder):.3f} ms CPU per request")
        times = [first_answer(model, folder, b'{"input_data": %s}' % row) for _ in range(3)]
        print(f"- start of a worker to its first answer: {statistics.median(times):.2f} s")
        if there:
            evenness(folder, model, folder)


if __name__ == "__main__":
    main()
