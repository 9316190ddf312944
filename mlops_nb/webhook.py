"""The webhook through which MLflow tells of registered models: what it signed is entered in the ledger, once.

MLflow sends again what was not answered in time, and a notebook that registered a version has entered it already. So a delivery
is known by its id, a version by its address; the ledger is the memory of both.
"""

import hmac
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mlops_nb.core.ledger import entries, log
from mlops_nb.core.records import SpecificationError
from mlops_nb.core.schedule import hold_schedule
from mlops_nb.core.settings import Settings

LATEST = 300  # seconds that a signature is good for
LARGEST = 1_000_000  # bytes of a body


def signature_fault(
    secret: str,
    headers: Any,  # of the request; names in any case
    body: bytes,
    at: float,  # seconds since 1970
) -> str:  # empty: MLflow sent it, just now
    """Check the signature of a webhook as MLflow makes it; says what is wrong."""
    import base64

    signature, delivery, stamp = (headers.get(f"x-mlflow-{part}", "") for part in ("signature", "delivery-id", "timestamp"))
    if not (signature and delivery and stamp):
        return "not signed: X-MLflow-Signature, X-MLflow-Delivery-Id and X-MLflow-Timestamp are expected"
    sealed = hmac.digest(secret.encode(), f"{delivery}.{stamp}.".encode() + body, "sha256")
    if not hmac.compare_digest(f"v1,{base64.b64encode(sealed).decode()}".encode(), signature.encode()):
        return "the signature is not right"
    if not stamp.isdecimal() or abs(at - int(stamp)) > LATEST:
        return f"signed more than {LATEST} seconds ago, or ahead of time"
    return ""


def record_event(
    settings: Settings,
    delivery: str,  # MLflow's id of it
    event: dict[str, Any],  # entity, action, data
) -> str:  # the address it is about; empty: nothing that the ledger keeps
    """Enter a registry's event in the ledger: a version registered, an alias set; known ones are passed over."""
    found = event.get("data")
    data = found if isinstance(found, dict) else {}
    name, version = str(data.get("name", "")), str(data.get("version", ""))
    kind = (event.get("entity"), event.get("action"))
    if kind not in (("model_version", "created"), ("model_version_alias", "created")) or not name or not version.isdecimal():
        return ""
    subject, source = f"model:{name}/{version}", {"delivery": delivery, "from": "webhook"}
    if kind[0] == "model_version_alias":
        log(settings, "alias", subject, [subject], alias=str(data.get("alias", "")), **source)
    elif not entries(settings, subject, "register"):
        log(settings, "register", subject, [f"run:{data['run_id']}"] if data.get("run_id") else [], [subject], **source)
    return subject


def webhook(settings: Settings, secret: str) -> Any:
    """Make the application that takes MLflow's webhooks at `/mlflow`."""
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    def take(headers: Any, body: bytes) -> tuple[int, str]:
        if fault := signature_fault(secret, headers, body, time.time()):
            return 401, fault
        delivery = headers["x-mlflow-delivery-id"]
        with hold_schedule(settings, ".webhook", wait=10):
            if delivery in seen or any(entry.details.get("delivery") == delivery for entry in entries(settings)):
                return 409, "this delivery has been taken"
            try:
                event = json.loads(body)
            except ValueError:
                event = None
            if not isinstance(event, dict):
                return 400, "not a JSON object"
            seen.add(delivery)
            return (200, subject) if (subject := record_event(settings, delivery, event)) else (200, "nothing to note")

    async def answer(request: Request) -> PlainTextResponse:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > LARGEST:
                return PlainTextResponse(f"more than {LARGEST} bytes", 413)
        code, text = await run_in_threadpool(take, request.headers, body)
        return PlainTextResponse(text, code)

    seen: set[str] = set()
    return Starlette(routes=[Route("/mlflow", answer, methods=["POST"])])


@contextmanager
def serve_webhook(
    settings: Settings,
    address: str,  # HOST:PORT; port 0: any free one
    secret: str,  # shared with the MLflow server
) -> Iterator[str]:  # the URL to give to MLflow
    """Serve the webhook for as long as the block lasts; raises `OSError` where the address is taken."""
    import socket

    import uvicorn

    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise SpecificationError([f"'{address}': HOST:PORT is expected, such as 127.0.0.1:8765."])
    if not secret:
        raise SpecificationError(["The webhook's secret is empty. Anybody could sign with it."])
    listener = socket.create_server((host.strip("[]"), int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    server = uvicorn.Server(uvicorn.Config(webhook(settings, secret), log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{listener.getsockname()[1]}/mlflow"
    finally:
        server.should_exit = True
        thread.join(5)
        listener.close()
