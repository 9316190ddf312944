"""Serve one instance of a deployment: a model, or a scoring script, behind a Unix socket.

The host starts it, and it ends with the host. It listens only once the model is loaded, so a socket that answers is an
instance that is ready. It needs nothing that stands before it: what is too large, too deep, packed or malformed is refused
here, too.
"""

import asyncio
import gc
import json
import logging
import math
import os
import re
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from mlops_nb.scoring.batching import SMALL, Batcher, Job
from mlops_nb.scoring.collector import Collector, make_collector
from mlops_nb.scoring.config import Config
from mlops_nb.scoring.model import Model, count_rows, load_model, warm_up
from mlops_nb.scoring.openapi import describe
from mlops_nb.scoring.process import bind, end_with_parent
from mlops_nb.scoring.reading import BadPayload, read_content
from mlops_nb.scoring.records import Rows
from mlops_nb.scoring.script import Asked, Script, ScriptFailed, load_script
from mlops_nb.scoring.writing import as_json, as_records, as_rows

log = logging.getLogger(__name__)

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
LARGE = 64 * 1024  # bytes of a body that is read in a thread: /health is to be answered meanwhile
_ID = re.compile(rb"[\x21-\x7e]{1,200}")
_JSON = (b"content-type", b"application/json")
WAITED = b"x-mlops-nb-queue-ms"  # how long a request waited here for the calls before it; the front writes it to its log


class Failure(Exception):
    """A request that is not answered with predictions."""

    def __init__(self, status: int, code: str, message: str, headers: Headers | None = None):
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers or []


class Scorer:
    """Answers /score as Azure ML does, /invocations as MLflow does, in plain ASGI; all other paths are Starlette's."""

    def __init__(self, config: Config, model: Model | None, script: Script | None, collector: Collector | None):
        self.config, self.model, self.script, self.collector = config, model, script, collector
        self.deployment = config.deployment.encode()
        self.methods = script.methods if script else ("POST",)
        most = config.wish.max_concurrent if model and model.shares else 1  # requests in one call
        self.batcher = Batcher(model.predict if model else script.run if script else lambda rows: rows, max(most, 1),
                               quick=model is not None and model.plain)
        self.started, self.answered = time.time(), 0
        errors: Any = {HTTPException: _plain_failure}
        self.rest = Starlette(exception_handlers=errors, routes=[
            Route("/health", self.ready), Route("/ready", self.ready), Route("/version", self.version),
            Route("/openapi.json", self.document), Route("/swagger.json", self.document)])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and scope["path"] in ("/score", "/invocations"):
            await self._answer(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self.rest(scope, receive, send)  # type: ignore[arg-type]
        else:  # a web socket is not opened
            await send({"type": "websocket.close"})

    async def ready(self, request: Request) -> Response:
        """Say that the model is loaded; nothing listens before it is."""
        return Response(b'{"status":"ready"}', media_type="application/json")

    async def version(self, request: Request) -> Response:
        """Say which model answers, and what is collected of its requests."""
        config, counts = self.config, self.collector.counts() if self.collector else {"collected": {}, "dropped": {}}
        about = {"endpoint": config.endpoint, "deployment": config.deployment, "environment": config.environment,
                 "instance": config.instance, "model": config.wish.model, "started": self.started,
                 "answered": self.answered,
                 "collected": counts["collected"], "not_collected": counts["dropped"]}
        return Response(as_json(about), media_type="application/json")

    async def document(self, request: Request) -> Response:
        """Describe this endpoint as OpenAPI does."""
        return Response(as_json(describe(self.config, self.model)), media_type="application/json")

    async def _live(self, receive: Receive, send: Send) -> None:
        """See the server from its start to its end; uvicorn has answered the requests under way by then."""
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.batcher.close()
        if self.collector:
            await asyncio.to_thread(self.collector.close)
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        name = given if _ID.fullmatch(given) else str(uuid.uuid4()).encode()
        ours = [(b"x-request-id", name), (b"x-ms-request-id", name), (b"azureml-model-deployment", self.deployment)]
        status, kind = 200, _JSON
        try:
            if scope["method"] not in self.methods:
                raise Failure(405, "MethodNotAllowed", f"{scope['method']} is not answered here. Send {' or '.join(self.methods)}.",
                              [(b"allow", ", ".join(self.methods).encode())])
            body = await self._read(headers, receive)
            if self.script:
                status, content, kind, more = await self._run(scope, headers, body, receive, name, ours)
                ours = [pair for pair in ours if pair[0] not in dict(more)] + more
            else:
                content = await self._score(scope, headers, body, receive, name, ours)
        except (Failure, BadPayload) as problem:
            status, ours = problem.status, ours + getattr(problem, "headers", [])
            content = _error(problem.code, str(problem))
        except (ClientDisconnect, asyncio.CancelledError):  # nobody listens any more
            status, content = 499, b""
        except Exception as problem:
            log.exception("Request %s failed in the server", name.decode())
            status, content = 500, _error("InternalError", f"{type(problem).__name__} in the server. Read the deployment's log.")
        self.answered += 1
        await send({"type": "http.response.start", "status": status, "headers": [
            kind, (b"content-length", str(len(content)).encode()), *ours]})
        await send({"type": "http.response.body", "body": content})

    async def _read(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        most = self.config.max_bytes
        declared = headers.get(b"content-length", b"0")
        if len(declared) > 18 or int(declared) > most:  # the server has seen that it is a number
            raise Failure(413, "TooLarge", f"The body is over {most} bytes. Send fewer rows at a time.")
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise ClientDisconnect
            part = message.get("body", b"")
            size += len(part)
            if size > most:
                raise Failure(413, "TooLarge", f"The body is over {most} bytes. Send fewer rows at a time.")
            parts.append(part)
            if not message.get("more_body"):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _score(self, scope: Scope, headers: dict[bytes, bytes], body: bytes, receive: Receive, name: bytes, ours: Headers
                     ) -> bytes:
        """Check a request, let the model score it, and write the answer."""
        kind = headers.get(b"content-type", b"application/json").decode("latin-1")
        encoding = headers.get(b"content-encoding", b"").decode("latin-1")
        if len(body) > LARGE:
            inputs, rows, params = await asyncio.to_thread(self._fit, body, kind, encoding)
        else:
            inputs, rows, params = self._fit(body, kind, encoding)
        wrap = scope["path"] == "/invocations"
        try:
            job = Job(inputs, rows, lambda: _is_gone(receive), params)
            predictions = await self.batcher.score(job) if rows else []
            ours.append((WAITED, b"%.3f" % (job.waited * 1000)))
            answer = self._write(predictions, wrap) if rows <= SMALL else await asyncio.to_thread(self._write, predictions, wrap)
        except BadPayload:  # MLflow's own check of the signature
            raise
        except Exception as problem:
            log.error("Request %s failed", name.decode(), exc_info=problem)
            raise self._model_failed(f"{type(problem).__name__}: {problem}") from None
        if self.collector and rows and b"x-mlops-nb-probe" not in headers:
            text = name.decode()
            about = _texts(headers) if self.collector.bodies else None
            if job.call:  # the collector turns the rows of one call into records together
                inputs, predictions = (Rows(table, job.call[2], job.call[2] + rows) for table in job.call[:2])
            self.collector.collect(inputs, predictions, text, text, body=body, answer=answer, headers=about, path=scope["path"])
        return answer

    def _fit(self, body: bytes, kind: str, encoding: str) -> tuple[Any, int, Any]:
        model: Model = self.model  # type: ignore[assignment]  # without one, a script answers
        content = read_content(body, kind, encoding)
        inputs = model.fit(content)
        return inputs, count_rows(inputs), content.params if model.params else None

    def _write(self, predictions: Any, wrap: bool) -> bytes:
        return as_json({"predictions": as_records(predictions)} if wrap else as_rows(predictions))

    async def _run(self, scope: Scope, headers: dict[bytes, bytes], body: bytes, receive: Receive, name: bytes, ours: Headers
                   ) -> tuple[int, bytes, tuple[bytes, bytes], Headers]:
        """Let the scoring script answer a request."""
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise Failure(415, "UnsupportedMediaType", "A content-encoding is not read here. Send the body without compression.")
        about = _texts(headers) | {"x-request-id": name.decode()}
        asked = Asked(scope["method"], scope["path"], scope["query_string"].decode("latin-1"), about, body)
        try:
            job = Job(asked, 1, lambda: _is_gone(receive))
            answered = await self.batcher.score(job)
            ours.append((WAITED, b"%.3f" % (job.waited * 1000)))
        except ScriptFailed as problem:
            raise self._model_failed(str(problem)) from None
        if self.collector and answered.status == 200 and b"x-mlops-nb-probe" not in headers:
            self.collector.collect(None, None, name.decode(), name.decode(), body=body, answer=answered.body, headers=about,
                                   method=asked.method, path=asked.path, answer_type=answered.media_type)
        more = [(key.lower().encode("latin-1"), value.encode("latin-1")) for key, value in answered.headers.items()]
        return answered.status, answered.body, (b"content-type", answered.media_type.encode("latin-1")), more

    def _model_failed(self, reason: str) -> Failure:
        brief = re.sub(r"[^\x20-\x7e]+", " ", reason)[:300].strip()  # one line of ASCII, and no blank may end it
        return Failure(424, "ModelError", f"The model {self.config.wish.model} failed: {reason}", [
            (b"ms-azureml-model-error-statuscode", b"500"), (b"ms-azureml-model-error-reason", brief.encode())])


def _texts(headers: dict[bytes, bytes]) -> dict[str, str]:
    return {key.decode("latin-1"): value.decode("latin-1") for key, value in headers.items()}


def _error(code: str, message: str) -> bytes:
    return as_json({"error": {"code": code, "message": message}})


async def _plain_failure(request: Request, problem: HTTPException) -> Response:
    code, hint = {404: ("NotFound", "There are /score, /invocations, /health, /ready, /version, /openapi.json."),
                  405: ("MethodNotAllowed", "Send GET.")}.get(problem.status_code, ("Refused", ""))
    message = f"{request.method} {request.url.path[:200]}: {problem.detail}. {hint}".strip()
    return Response(_error(code, message), problem.status_code, headers=problem.headers, media_type="application/json")


def _is_gone(receive: Receive) -> bool:
    """Tell whether the client has hung up: asked once, without waiting."""
    asked = receive()
    try:
        asked.send(None)  # type: ignore[attr-defined]
    except StopIteration as told:
        return bool(told.value["type"] == "http.disconnect")
    except Exception:  # a loop that cannot be asked like this
        return False
    finally:
        asked.close()  # type: ignore[attr-defined]
    return False


def make_app(
    config: Config,
    model: Model | None,  # loaded
    script: Script | None = None,  # loaded; takes the model's place
) -> Scorer:
    """Make the ASGI application of one instance."""
    return Scorer(config, model, script, make_collector(config))


def serve(config: Config) -> None:
    """Load the model, then listen until SIGTERM; requests under way are answered first."""
    wait = max(10, math.ceil(config.wish.timeout_ms / 1000))
    end_with_parent(wait)
    with bind(config.socket) as listener:  # before a scoring script changes the folder; nobody is let in before `listen`
        model = script = None
        if config.wish.script:
            script = load_script(config)
        else:
            model = load_model(config.wish.path)
            warm_up(model, config.wish.path)
        app: Any = make_app(config, model, script)
        gc.collect()
        gc.freeze()  # what is loaded stays; no search for garbage need look at it again
        listener.listen(1024)
        # idle connections are the front's to close: it must never write to one that was closed here a moment ago
        options = uvicorn.Config(app, loop="auto", http="httptools", ws="none", lifespan="on", access_log=False,
                                 log_level="warning", server_header=False, date_header=False, proxy_headers=False,
                                 timeout_keep_alive=3600, timeout_graceful_shutdown=wait)
        uvicorn.Server(options).run(sockets=[listener])


if __name__ == "__main__":
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")  # threads of one request's arithmetic only disturb one another: p99 6 ms, not 381
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    with suppress(KeyboardInterrupt):
        text = sys.argv[1] if sys.argv[1:] else Path(os.environ["MLOPS_NB_SERVE"]).read_text()  # a container's file
        serve(Config.of(json.loads(text)))
