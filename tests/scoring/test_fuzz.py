"""Whatever is sent to a worker, it answers with a status that its OpenAPI document names, and its memory stays as it was."""

import asyncio
import contextlib
import gzip
import http.client
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import hypothesis
import mlflow
import numpy as np
import pandas as pd
import psutil
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from mlops_nb.scoring.config import Config, Wish

ROOT = Path(__file__).resolve().parents[2]
FRAME = pd.DataFrame({"carat": np.linspace(0.3, 2, 9), "depth": 60.0, "stones": range(9), "cut": ["Fair", "Good", "Ideal"] * 3})
EXPECTED = {200, 400, 413, 415, 424}  # the others of the document are the front's
LIMIT = 20_000  # bytes of a body


class Worker(NamedTuple):
    """A worker that runs, as the host starts it."""

    pid: int
    path: str  # its Unix socket
    address: str  # the same, as TCP


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    folder = tmp_path_factory.mktemp("fuzz")
    encode = ColumnTransformer([("cut", OneHotEncoder(handle_unknown="ignore"), ["cut"])], remainder="passthrough")
    model = make_pipeline(encode, LinearRegression()).fit(FRAME, FRAME.carat)
    mlflow.sklearn.save_model(model, folder / "model", signature=mlflow.models.infer_signature(FRAME, model.predict(FRAME)),
                              pip_requirements=["scikit-learn"], serialization_format="skops")
    wish = Wish("model:dev.diamonds/3", str(folder / "model"), max_concurrent=8)
    config = Config("shop", "blue", "dev", "blue-0", "w.sock", wish, max_bytes=LIMIT)
    process = subprocess.Popen([sys.executable, "-m", "mlops_nb.scoring.app", json.dumps(asdict(config))], cwd=folder,
                               stdin=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)})
    path = str(folder / "w.sock")
    try:
        with relay(path) as address:
            wait_until_it_listens(process, path)
            yield Worker(process.pid, path, address)
        assert process.poll() is None, "the worker ended"
    finally:
        process.terminate()
        process.wait(60)


def wait_until_it_listens(process: "subprocess.Popen[bytes]", path: str) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as asker:
            asker.connect(path)
            return
        time.sleep(0.02)
    raise RuntimeError(f"the worker does not listen ({process.poll()})")


@contextlib.contextmanager
def relay(path: str) -> Iterator[str]:
    """Let clients that know TCP only talk to a Unix socket."""
    started: list[int] = []
    ready, loop = threading.Event(), asyncio.new_event_loop()

    async def pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
        target.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            there, out = await asyncio.open_unix_connection(path)
            await asyncio.gather(pass_on(reader, out), pass_on(there, writer))

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        started.append(server.sockets[0].getsockname()[1])
        ready.set()

    def end() -> None:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.call_later(0.1, loop.stop)

    started_server = loop.create_task(main())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    assert ready.wait(60), started_server
    yield f"http://127.0.0.1:{started[0]}"
    loop.call_soon_threadsafe(end)
    thread.join(5)


@pytest.fixture(scope="module")
def api(worker: Worker) -> schemathesis.schemas.BaseSchema:
    return schemathesis.openapi.from_url(f"{worker.address}/openapi.json")


CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance,
          response_schema_conformance]


@pytest.mark.parametrize("mode", GenerationMode)
def test_every_answer_is_one_that_the_document_names(
        api: schemathesis.schemas.BaseSchema, worker: Worker, mode: GenerationMode) -> None:
    asked = []
    for result in api.get_all_operations():
        operation = result.ok()

        @settings(max_examples=12, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
        @given(operation.as_strategy(generation_mode=mode))
        def send(case: schemathesis.Case) -> None:
            case.call_and_validate(base_url=worker.address, checks=CHECKS, headers={"connection": "close"})

        with contextlib.suppress(hypothesis.errors.Unsatisfiable):  # where nothing can be given, nothing can be given wrongly
            send()
            asked.append(operation.path)
    assert {"/score", "/invocations"} <= set(asked)


# --- bodies that no document describes -------------------------------------------------------------------------------

GOOD = {"input_data": {"columns": list(FRAME), "index": [0], "data": [[0.5, 61.0, 3, "Good"]]}}
SEEDS = [json.dumps(body).encode() for body in (
    GOOD, {"dataframe_split": GOOD["input_data"]}, {"dataframe_records": FRAME.head(2).to_dict(orient="records")},
    {"inputs": FRAME.head(2).to_dict(orient="list")}, {"instances": [[1, 2, 3, "Fair"]], "params": {"a": 1}})]
BITS = [b"[", b"]", b"{", b"}", b'"', b",", b":", b"null", b"NaN", b"-Infinity", b"1e999", b"9" * 400, b"-", b"\\ud800",
        b"\\u0000", b"\xff", b"\x00", b'"columns"', b'"data"', b"true", b"[" * 3000, b'{"a":' * 2000, b"1" * 6000,
        b'"input_data":{}', b"\xef\xbb\xbf", b"2026-13-45"]
KINDS = ["application/json"] * 12 + ["text/csv", "text/csv; charset=latin-1", "application/json; charset=utf-16", "image/png", "",
                                     "x" * 500]


def spoil(draw: random.Random) -> bytes:
    """Take a good body and change a few places of it; or make one of bits."""
    if not draw.randrange(8):
        return b"".join(draw.choices(BITS, k=draw.randrange(12)))
    body = bytearray(draw.choice([*SEEDS, FRAME.to_csv(index=False).encode()]))
    for _ in range(draw.choice([0, 1, 1, 2, 4])):
        place = draw.randrange(len(body))
        end = place + draw.choice([0, 0, 1, 1, 3, 20])
        body[place:end] = draw.choice([*BITS, bytes([draw.randrange(256)]), bytes(body[place:end]) * 2, b""])
    return bytes(body)


def ask(connection: http.client.HTTPConnection, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    connection.request("POST", path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_spoilt_bodies_are_refused_and_leave_nothing_behind(worker: Worker, request: pytest.FixtureRequest) -> None:
    draw, found = random.Random(11), Counter[int]()
    connection = http.client.HTTPConnection(worker.address.removeprefix("http://"), timeout=60)
    count, before, process = request.config.getoption("--bodies", default=300), 0, psutil.Process(worker.pid)
    for number in range(count):
        if number == count // 3:  # by then, whatever is imported late is there
            before = process.memory_info().rss
        headers = {"content-type": draw.choice(KINDS), "x-request-id": draw.choice(["a", "x" * 300, "b\tc", "d"])}
        body = spoil(draw)
        status, answer = ask(connection, draw.choice(["/score", "/invocations"]), body, headers)
        found[status] += 1
        assert status in EXPECTED, (status, headers, body[:500], answer)
        assert (status == 200) == ("error" not in answer[:10].decode()), (body, answer)
    status, answer = ask(connection, "/score", SEEDS[0], {"content-type": "application/json"})
    assert (status, len(json.loads(answer))) == (200, 1)
    assert process.memory_info().rss - before < 16 * 2**20
    assert found[400] > count / 10
    assert found[200] > count / 20


@pytest.mark.parametrize(("body", "headers", "status", "says"), [
    (b"[" * 19_000, {}, 400, "nested more than 64 deep"),
    (b'{"input_data":' * 1300, {}, 400, "nested more than 64 deep"),
    (b'{"inputs": ' + b"[" * 70 + b"]" * 70 + b"}", {}, 400, "nested more than 64 deep"),
    (b" " * (LIMIT + 1), {}, 413, f"over {LIMIT} bytes"),
    (gzip.compress(b"[" + b"1," * 10_000_000 + b"1]"), {"content-encoding": "gzip"}, 415, "Send the body as it is"),
    (SEEDS[0], {"content-encoding": "gzip, br"}, 415, "Send the body as it is"),
    (SEEDS[0], {"content-type": "application/x-pickle"}, 415, "Send application/json or text/csv"),
    (b'{"inputs": "\\ud800"}', {}, 400, "half of a surrogate pair"),
    (b'{"inputs": ' + b"9" * 5000 + b"}", {}, 400, "not JSON"),
    (b"", {}, 400, "not JSON"),
    (json.dumps({"dataframe_records": [{f"x{n}": 1} for n in range(1000)]}).encode(), {}, 400, "Missing columns"),
], ids=lambda value: value[:20] if isinstance(value, str) else None)
def test_attacks_are_refused_with_a_reason(worker: Worker, body: bytes, headers: dict[str, str], status: int, says: str) -> None:
    connection = http.client.HTTPConnection(worker.address.removeprefix("http://"), timeout=60)
    found, answer = ask(connection, "/score", body, {"content-type": "application/json", **headers})
    assert found == status
    assert says in json.loads(answer)["error"]["message"]


def test_bytes_that_are_no_http_close_the_connection_only(worker: Worker) -> None:
    draw = random.Random(5)
    for number in range(30):
        with socket.socket(socket.AF_UNIX) as asker:
            asker.settimeout(60)
            asker.connect(worker.path)
            rubbish = draw.randbytes(draw.randrange(1, 2000))
            asker.sendall(rubbish if number % 2 else b"POST /score HTTP/1.1\r\ncontent-length: -5\r\n\r\n" + rubbish)
            asker.shutdown(socket.SHUT_WR)
            told = asker.recv(65536)
            assert told == b"" or told.startswith(b"HTTP/1.1 400")
    assert ask(http.client.HTTPConnection(worker.address.removeprefix("http://")), "/score", SEEDS[0], {})[0] == 200


def test_a_failing_models_words_cannot_become_headers(worker: Worker) -> None:
    connection = http.client.HTTPConnection(worker.address.removeprefix("http://"), timeout=60)
    table = {"columns": list(FRAME), "data": [["INF", 1, 1, "Good\r\nx-injected: yes"]]}
    body = json.dumps({"input_data": table}).replace('"INF"', "Infinity").encode()
    connection.request("POST", "/score", body, {"content-type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 424
    assert "infinity" in (answer.getheader("ms-azureml-model-error-reason") or "")
    assert answer.getheader("x-injected") is None
