"""Stand at the door of one endpoint: check who asks, split the traffic, limit and count it.

The host starts it with the listening socket and one connection, its standard input, on which it hears which processes there are
and tells what it counted. Uvicorn parses what comes from outside; a request then takes the shortest way there is to a process and back.
"""

import asyncio
import contextlib
import gc
import hmac
import json
import logging
import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl

from mlops_nb.serving.asked import Asked
from mlops_nb.serving.auth import Authentication
from mlops_nb.serving.door import Door
from mlops_nb.serving.lines import Lines
from mlops_nb.serving.metrics import Meter, render
from mlops_nb.serving.mirror import Mirror
from mlops_nb.serving.pool import Answer, ConnectionEnded, Headers
from mlops_nb.serving.route import Deployment, Refused, Routes
from mlops_nb.serving.traffic_log import SUMMARY_EVERY, TrafficLog

log = logging.getLogger("front")
RENEW = 10.0  # seconds between two looks at the certificate
REPORT = 0.1  # seconds between two reports to the host
RETRY_PAUSE = 0.05  # seconds before a request whose process died is sent once more
METHODS = ("POST", "GET", "PUT", "PATCH", "DELETE", "OPTIONS")  # a scoring script may take any
SCORING = ("/score", "/invocations")
DOCUMENTS = ("/openapi.json", "/swagger.json")
OPEN = ("/", "/health", "/ready", "/metrics")  # without a key
NOT_BACK = frozenset((b"connection", b"keep-alive", b"transfer-encoding", b"content-length", b"date", b"server", b"trailer",
                      b"upgrade", b"x-mlops-nb-queue-ms"))
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Front:
    """One endpoint's door."""

    def __init__(self) -> None:
        self.routes = Routes()
        self.authentication = Authentication()
        self.lines = Lines()
        self.traffic_log = TrafficLog(self.lines)
        self.mirror = Mirror(self.routes, self.lines)
        self.meter = Meter()
        self.refused = Door.refused
        self.max_bytes = 0
        self.probe_key = b""
        self.pages: dict[str, Callable[[Asked, Receive, Send], Awaitable[None]]] = {
            "/": self._health, "/health": self._health, "/ready": self._ready, "/version": self._version, "/metrics": self._metrics}

    def arrange(self, table: dict[str, Any]) -> None:
        """Follow what the host says."""
        self.routes.arrange(table)
        endpoint = table["endpoint"]
        self.max_bytes, self.probe_key = endpoint["max_bytes"], endpoint.get("probe_key", "").encode()
        self.authentication.follow(endpoint)
        self.mirror.follow(endpoint.get("mirror_traffic") or {})
        self.traffic_log.follow(endpoint)
        if "totals" in table:
            self.resume(table["totals"])

    @property
    def grace(self) -> int:
        """Say how many seconds the requests under way may take at the end."""
        return int(max((one.timeout for one in self.routes.deployments.values()), default=0.0)) + 1

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request: the ASGI application."""
        now, path = monotonic(), scope["path"]
        if path in SCORING:
            await self._score(scope, receive, send, now)
            return
        try:
            page = self.pages.get(path)
            if page is None and path not in DOCUMENTS:
                raise Refused(404, "NotFound", "There is no such address here. Send requests to /score or /invocations.")
            if scope["method"] not in ("GET", "HEAD"):
                raise Refused(405, "MethodNotAllowed", f"{path} is read with GET.")
            asked = Asked(scope, now)
            if path not in OPEN:
                await self._authenticate(asked.authorization)
            await (page or self._document)(asked, receive, send)
        except Refused as refusal:
            self.refused[refusal.status] += 1
            await _send_refusal(send, refusal, b"")

    async def _score(self, scope: dict[str, Any], receive: Receive, send: Send, now: float) -> None:
        """Answer one scoring request."""
        deployment: Deployment | None = None
        asked: Asked | None = None
        body = b""
        received = now
        waits: list[float] = []  # seconds in the queue for an instance
        try:
            asked = Asked(scope, now)
            if self.authentication.allows(asked.authorization) is not True:
                await self._authenticate(asked.authorization)
            body = await self._receive(asked, receive)
            received = monotonic()
            probe = self._is_probe(asked)
            request = asked.to_worker(body, probe)
            deployment, answer = await self._forward(asked.pinned, request, received, waits)
        except Refused as refusal:
            await self._refuse(send, refusal, scope, asked, now, received, len(body), sum(waits))
            return
        except _Gone:
            return
        answered = monotonic()
        headers, model_status = _give_back(answer)
        deployment.answers[answer.status, model_status] += 1
        deployment.times.append(answered - received)
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        handed = await _send_body(send, answer.body)
        self.meter.bytes += len(body) + len(answer.body)
        if self.mirror.shares and not probe and (shadow := self.mirror.chosen(deployment.name)):
            self.mirror.offer(shadow, asked.request.decode(), request, deployment.name, answer, answered - received)
        if self.traffic_log.on:
            sent = monotonic()
            self.traffic_log.add(asked, deployment.name, answer.status, answer.headers, len(body), len(answer.body),
                                 (now, received, answered, handed or sent, sent), sum(waits))

    def _is_probe(self, asked: Asked) -> bool:
        """Tell whether a request is this machine's own: it is neither collected nor mirrored, and what it is refused is no error."""
        return bool(asked.probe) and bool(self.probe_key) and hmac.compare_digest(asked.probe, self.probe_key)

    async def _receive(self, asked: Asked, receive: Receive) -> bytes:
        """Read a body, most often in one piece; raises `Refused` 405 or 413, without reading on, and `_Gone`."""
        if asked.method not in METHODS:
            raise Refused(405, "MethodNotAllowed", "A request is sent with POST.")
        if asked.length <= self.max_bytes:
            message = await receive()
            if message["type"] == "http.request" and not message["more_body"] and len(message["body"]) <= self.max_bytes:
                return message["body"]
            body = bytearray()
            while message["type"] == "http.request":
                body += message["body"]
                if len(body) > self.max_bytes:
                    break
                if not message["more_body"]:
                    return bytes(body)
                message = await receive()
            else:
                raise _Gone
        raise Refused(413, "TooLarge", f"The body is over {self.max_bytes} bytes. Send fewer rows at a time.")

    async def _authenticate(self, header: bytes) -> None:
        allowed = self.authentication.allows(header)
        if allowed is None:
            allowed = await self.authentication.allows_later(header)
        if not allowed:
            kinds = {"key": "a key of this endpoint", "aml_token": "a token of this endpoint", "aad_token": "an Entra token"}
            kind = kinds.get(self.authentication.mode, 'a key')
            raise Refused(401, "Unauthorized", f"The header 'Authorization: Bearer ...' with {kind} is missing, or it is not valid.")

    async def _forward(self, pinned: str, request: bytes, began: float, waits: list[float]) -> tuple[Deployment, Answer]:
        """Let a process answer; one that ends under the request is not the client's business, the first time."""
        broken = None
        tries = 0
        while True:
            deployment = self.routes.pick(pinned)
            until = began + deployment.timeout
            try:
                target = await deployment.acquire(monotonic(), until, broken, waits)
                if target is None:
                    continue
                try:
                    return deployment, await target.pool.ask(request, until)
                except ConnectionEnded as problem:
                    target.broken_at = monotonic()
                    broken, tries = target, tries + problem.sent
                    if tries > 1 or monotonic() >= until:
                        raise Refused(503, "DeploymentEnded", f"{deployment.name} ended while it answered, more than once ({problem}). "
                                      f"Read logs/{deployment.name}.log of the endpoint.", deployment.name) from None
                finally:
                    deployment.release(target)
                    if target is broken or not target.ready:
                        self.routes.settle()
            except TimeoutError:
                raise Refused(408, "TimedOut", f"{deployment.name} took over {deployment.timeout * 1000:.0f} ms. Send fewer rows, "
                              "or raise request_timeout_ms.", deployment.name) from None
            await asyncio.sleep(RETRY_PAUSE)

    async def _refuse(self, send: Send, refusal: Refused, scope: dict[str, Any], asked: Asked | None, now: float, received: float,
                      size: int, waited: float) -> None:
        """Answer and count a request that no process answered."""
        deployment = self.routes.deployments.get(refusal.deployment)
        if deployment and refusal.status in (408, 503):
            deployment.answers[refusal.status, ""] += 1
        else:
            self.refused[refusal.status] += 1
        sent = await _send_refusal(send, refusal, asked.request if asked else b"")
        if asked and self.traffic_log.on and not self._is_probe(asked):
            answered = monotonic()
            times = (now, received, answered, answered, answered)
            self.traffic_log.add(asked, refusal.deployment, refusal.status, [], size, sent, times, waited, refusal.code)

    async def _health(self, asked: Asked, receive: Receive, send: Send) -> None:
        """Say that the front is there."""
        await _send_json(send, 200, {"status": "healthy"})

    async def _ready(self, asked: Asked, receive: Receive, send: Send) -> None:
        """Say whether a scoring request would find a deployment."""
        ready = any(self.routes.deployments[name].ready for name in self.routes.shares if name in self.routes.deployments)
        await _send_json(send, 200 if ready else 503, {"status": "ready" if ready else "not ready"})

    async def _version(self, asked: Asked, receive: Receive, send: Send) -> None:
        """Say what is deployed here."""
        endpoint = self.routes.endpoint
        about = {name: {"model": one.model, "traffic": endpoint["traffic"].get(name, 0), "state": one.state,
                        "mirror": (endpoint.get("mirror_traffic") or {}).get(name, 0), "instances": len(one.targets)}
                 for name, one in self.routes.deployments.items()}
        await _send_json(send, 200, {"endpoint": endpoint["name"], "environment": endpoint["environment"], "deployments": about})

    async def _metrics(self, asked: Asked, receive: Receive, send: Send) -> None:
        """Write the figures as Prometheus reads them."""
        content = await render(self.routes, self.refused, self.meter, self.mirror, self.lines)
        await _send(send, 200, content.encode(), [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")])

    async def _document(self, asked: Asked, receive: Receive, send: Send) -> None:
        """Hand on a deployment's own document."""
        asked.head = asked.head.replace(b"HEAD ", b"GET ", 1)
        _, answer = await self._forward(asked.pinned, asked.to_worker(b"", False), monotonic(), [])
        await _send(send, answer.status, answer.body, [header for header in answer.headers if header[0] not in NOT_BACK])

    def totals(self) -> dict[str, Any]:
        """Hand over the counters, for the front that comes after this one."""
        answers = {name: [[*key, count] for key, count in one.answers.items()] for name, one in self.routes.deployments.items()}
        return {"answers": answers, "refused": list(self.refused.items())}

    def resume(self, totals: dict[str, Any]) -> None:
        """Go on counting where the front before this one ended."""
        for name, counts in totals.get("answers", {}).items():
            if deployment := self.routes.deployments.get(name):
                for status, model_status, count in counts:
                    deployment.answers[status, model_status] += count
        for status, count in totals.get("refused", []):
            self.refused[status] += count

    def report(self) -> dict[str, Any]:
        """Say what was counted, as the host writes it to `status.json`."""
        self.routes.settle()
        deployments = {}
        pending = {target.name: target.pending for _, target in self.routes.leaving}
        for name, one in self.routes.deployments.items():
            times = sorted(one.times)
            p50, p95 = (round(times[int(len(times) * q)] * 1000, 2) if times else None for q in (0.5, 0.95))
            requests: Counter[int] = Counter()
            for (status, _), count in one.answers.items():
                requests[status] += count
            deployments[name] = {"pending": one.pending, "p50_ms": p50, "p95_ms": p95,
                                 "requests": {str(k): v for k, v in sorted(requests.items())}}
            pending |= {target.name: target.pending for target in one.targets}
        return {"sequence": self.routes.sequence, "refused": {str(k): v for k, v in sorted(self.refused.items())},
                "mirror": self.mirror.told(), "deployments": deployments, "instances": pending, "totals": self.totals()}


class _Gone(Exception):
    """The client closed its connection."""


def _give_back(answer: Answer) -> tuple[Headers, str]:
    """Say which headers of an answer the client gets, and the status of a model that failed."""
    headers: Headers = [(b"content-length", b"%d" % len(answer.body))]
    model_status = ""
    for header in answer.headers:
        if header[0] not in NOT_BACK:
            headers.append(header)
            if header[0] == b"ms-azureml-model-error-statuscode":
                model_status = header[1].decode("latin-1")
    return headers, model_status


async def _send(send: Send, status: int, body: bytes, headers: Headers) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"%d" % len(body)), *headers]})
    await send({"type": "http.response.body", "body": body})


async def _send_body(send: Send, body: bytes) -> float:
    """Send an answer's body; where the client takes it more slowly than it comes, until it has most of it, and then says since when."""
    flow: FlowControl = send.__self__.flow  # type: ignore[attr-defined]  # uvicorn's, of this connection
    began = monotonic() if flow.write_paused else 0.0  # by the headers already
    await send({"type": "http.response.body", "body": body})
    if flow.write_paused:
        began = began or monotonic()
        await flow.drain()
    return began


async def _send_json(send: Send, status: int, content: Any) -> None:
    await _send(send, status, json.dumps(content).encode(), [(b"content-type", b"application/json")])


async def _send_refusal(send: Send, refusal: Refused, request: bytes) -> int:
    """Answer with an error of our own; returns the size of the answer."""
    headers: Headers = [(b"content-type", b"application/json")]
    if request:
        headers += [(b"x-request-id", request), (b"x-ms-request-id", request)]
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    body = json.dumps({"error": {"code": refusal.code, "message": str(refusal)}}).encode()
    await _send(send, refusal.status, body, headers)
    return len(body)


class Server(uvicorn.Server):
    """Uvicorn, told when to end by us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone: afterwards there is a log to close."""
        yield


async def _hear(front: Front, server: Server, reader: asyncio.StreamReader) -> None:
    """Follow the host; when it ends, so do we."""
    with contextlib.suppress(OSError):
        while line := await reader.readline():
            front.arrange(json.loads(line))
            server.config.timeout_graceful_shutdown = front.grace
    server.should_exit = True


async def _report(front: Front, writer: asyncio.StreamWriter) -> None:
    """Tell the host what there is to tell."""
    told = None
    with contextlib.suppress(OSError):
        while True:
            if (report := front.report()) != told:
                writer.write(json.dumps(report).encode() + b"\n")
                await writer.drain()
                told = report
            await asyncio.sleep(REPORT)


async def _summarise(front: Front) -> None:
    """Let the traffic log's summaries be written while nobody asks, too."""
    while True:
        await asyncio.sleep(SUMMARY_EVERY)
        front.traffic_log.tick()


async def _renew(config: uvicorn.Config, tls: dict[str, str]) -> None:
    """Take a renewed certificate for the connections to come."""
    seen = None
    while True:
        with contextlib.suppress(OSError):
            stamp = [os.stat(tls[which]).st_mtime_ns for which in ("certificate", "key")]
            if seen not in (None, stamp) and config.ssl:
                config.ssl.load_cert_chain(tls["certificate"], tls["key"])
            seen = stamp
        await asyncio.sleep(RENEW)


async def serve(listener: socket.socket) -> None:
    """Serve until SIGTERM, or until the host ends."""
    reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=0), limit=2**24)
    front = Front()
    front.arrange(table := json.loads(await reader.readline()))
    tls = table["endpoint"].get("tls") or {}
    config = uvicorn.Config(
        front, http=Door, ws="none", lifespan="off", interface="asgi3", log_config=None,  # type: ignore[arg-type]
        access_log=False, proxy_headers=False, server_header=False, backlog=1024, timeout_keep_alive=75,
        timeout_graceful_shutdown=front.grace, ssl_certfile=tls.get("certificate"), ssl_keyfile=tls.get("key"))
    server = Server(config)
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, setattr, server, "should_exit", True)
    others = [asyncio.create_task(_hear(front, server, reader)), asyncio.create_task(_report(front, writer)),
              asyncio.create_task(front.mirror.run()), asyncio.create_task(front.meter.run(server, front.routes)),
              asyncio.create_task(_summarise(front))]
    gc.freeze()
    if tls:
        others.append(asyncio.create_task(_renew(config, tls)))
    await server.serve(sockets=[listener])
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    with contextlib.suppress(OSError):
        writer.write(json.dumps(front.report()).encode() + b"\n")
    writer.close()
    front.traffic_log.tick()
    await asyncio.to_thread(front.lines.close)


def main() -> None:
    """Serve the endpoint in a folder: `front.py FOLDER <number of the listening socket>`; the host starts it."""
    os.chdir(sys.argv[1])
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # whoever sends nonsense fills no disk
    Path("logs/traffic").mkdir(parents=True, exist_ok=True)
    try:
        import uvloop

        factory = uvloop.new_event_loop
    except ImportError:  # Windows
        factory = None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(socket.socket(fileno=int(sys.argv[2]))))


if __name__ == "__main__":
    main()
