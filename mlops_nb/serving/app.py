"""Serve one deployment: one MLflow model behind a Unix socket. The front starts it, and it ends with the front.

It listens only once the model is loaded, so a socket that answers is a deployment that is ready.
"""

import asyncio
import json
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from mlops_nb.serving.collector import Collector
from mlops_nb.serving.model import Model, load_model
from mlops_nb.serving.payload import BadPayload, Table, as_json, as_rows, fit_table, read_table

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Config:
    """What the front tells a deployment process, as JSON on its command line."""

    endpoint: str
    deployment: str
    environment: str
    model: str  # address of the model version
    path: str  # folder of the MLflow model
    socket: str  # where to listen; relative to the endpoint's folder, as paths of sockets must be short
    max_bytes: int = 10 * 2**20  # of a request's body
    collected: str = ""  # folder of this deployment's collected data
    rates: dict[str, float] | None = None  # collection -> share of requests kept


class Scorer:
    """Answers requests with one model, one after the other."""

    def __init__(self, config: Config, model: Model, collector: Collector | None):
        self.config, self.model, self.collector = config, model, collector
        self.turn = asyncio.Semaphore(1)  # models are not all safe to call from two threads at once
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="model")  # /health and /ready answer meanwhile
        self.started = time.time()

    async def score(self, request: Request) -> Response:
        """Answer as Azure ML does: the list of predictions."""
        return await self._answer(request, wrap=False)

    async def invocations(self, request: Request) -> Response:
        """Answer as MLflow does: an object with `predictions`."""
        return await self._answer(request, wrap=True)

    async def ready(self, request: Request) -> Response:
        """Say that the model is loaded; nothing listens before it is."""
        return Response(b'{"status":"ready"}', media_type="application/json")

    async def version(self, request: Request) -> Response:
        """Say which model answers."""
        config, collector = self.config, self.collector
        about = {"endpoint": config.endpoint, "deployment": config.deployment, "environment": config.environment,
                 "model": config.model, "started": self.started,
                 "collected": collector.written if collector else 0, "not_collected": collector.dropped if collector else 0}
        return Response(as_json(about), media_type="application/json")

    async def _answer(self, request: Request, wrap: bool) -> Response:
        given = request.headers.get("x-request-id", "")
        name = given if re.fullmatch(r"[\x21-\x7e]{1,200}", given) else str(uuid.uuid4())
        headers = {"x-request-id": name, "x-ms-request-id": name, "azureml-model-deployment": self.config.deployment}
        try:
            body = await self._read(request)
            async with self.turn:
                if await request.is_disconnected():  # timed out while it waited: nobody listens any more
                    raise ClientDisconnect
                loop = asyncio.get_running_loop()
                kind = request.headers.get("content-type", "application/json")
                collect = "x-mlops-nb-probe" not in request.headers
                answer = await loop.run_in_executor(self.thread, self._score, body, kind, name, wrap, collect)
            return Response(answer, headers=headers, media_type="application/json")
        except BadPayload as problem:
            return _failure(400, "BadRequest", str(problem), headers)
        except _TooLarge as problem:
            return _failure(413, "TooLarge", str(problem), headers)
        except _ModelFailed as problem:
            reason = re.sub(r"[^\x20-\x7e]+", " ", str(problem))[:300].strip()  # no blank may end it
            headers |= {"ms-azureml-model-error-statuscode": "500", "ms-azureml-model-error-reason": reason}
            return _failure(424, "ModelError", f"The model {self.config.model} failed: {problem}", headers)
        except ClientDisconnect:
            return Response(status_code=499)

    async def _read(self, request: Request) -> bytes:
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > self.config.max_bytes:
                raise _TooLarge(f"The body is over {self.config.max_bytes} bytes. Send fewer rows at a time.")
            parts.append(part)
        return b"".join(parts)

    def _score(self, body: bytes, kind: str, name: str, wrap: bool, collect: bool) -> bytes:
        table = read_table(body, kind)
        inputs = _as_array(table, self.model.tensor) if self.model.tensor else fit_table(table, self.model.signature)
        try:
            predictions = self.model.predict(inputs) if len(inputs) else []
            rows = as_rows(predictions)
            answer = as_json({"predictions": rows} if wrap else rows)
        except Exception as problem:
            log.exception("Request %s failed", name)
            raise _ModelFailed(f"{type(problem).__name__}: {problem}") from problem
        if self.collector and collect and len(inputs):
            self.collector.collect(inputs, predictions, name, name)
        return answer


class _TooLarge(Exception):
    pass


class _ModelFailed(Exception):
    pass


def _as_array(table: Table, dtype: str) -> Any:
    import numpy as np

    try:
        return np.array(list(zip(*table.columns.values(), strict=True)), dtype=dtype)
    except (ValueError, TypeError) as problem:
        raise BadPayload(f"The rows do not make an array of {dtype}: {problem}. Send rows of numbers.") from None


def _failure(status: int, code: str, message: str, headers: dict[str, str]) -> Response:
    content = as_json({"error": {"code": code, "message": message}})
    return Response(content, status, headers=headers, media_type="application/json")


def make_app(
    config: Config,
    model: Model,  # loaded
) -> Starlette:
    """Make the ASGI application of one deployment."""
    collector = None
    if config.rates:
        source = f"/environments/{config.environment}/onlineEndpoints/{config.endpoint}/deployments/{config.deployment}"
        collector = Collector(config.collected, source, config.model.rpartition("/")[2], config.rates)
    scorer = Scorer(config, model, collector)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        scorer.thread.shutdown()
        if collector:
            collector.close()

    return Starlette(lifespan=lifespan, routes=[
        Route("/score", scorer.score, methods=["POST"]),
        Route("/invocations", scorer.invocations, methods=["POST"]),
        Route("/health", scorer.ready),
        Route("/ready", scorer.ready),
        Route("/version", scorer.version),
    ])


def end_with_parent() -> None:
    """End this process when its parent ends, however that ends: the parent holds the other end of our standard input."""

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
        os._exit(1)  # stuck in a request

    threading.Thread(target=watch, name="parent", daemon=True).start()


def warm_up(model: Model, folder: Path | str) -> None:
    """Score the model's own example, where it has one: a first prediction imports and builds what the later ones find."""
    import pandas  # noqa: F401 the first request would wait for it

    example = Path(folder) / "serving_input_example.json"
    if example.is_file() and not model.tensor:
        try:
            model.predict(fit_table(read_table(example.read_bytes()), model.signature))
        except Exception as problem:  # it may fail on real requests too; those are told so
            log.warning("The model's own example cannot be scored: %s: %s", type(problem).__name__, problem)


def serve(config: Config) -> None:
    """Load the model, then listen until SIGTERM; requests under way are answered first."""
    end_with_parent()
    model = load_model(config.path)
    warm_up(model, config.path)
    app = make_app(config, model)
    Path(config.socket).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(config.socket)
        listener.listen(1024)
        # idle connections are the front's to close: it must never write to one that was closed here a moment ago
        options = uvicorn.Config(app, loop="auto", lifespan="on", access_log=False, log_level="warning",
                                 timeout_keep_alive=3600, timeout_graceful_shutdown=10)
        uvicorn.Server(options).run(sockets=[listener])


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    serve(Config(**json.loads(sys.argv[1])))
