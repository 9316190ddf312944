"""Take what Azure ML's own `Collector` sends from a scoring script, and hand it to this process's collector.

The package azureml-ai-monitoring posts every event to a helper of Azure's beside the model, over HTTP. `start_sink` is that
helper, as a thread: on 127.0.0.1, at a port of its own, with a password in the address that only this process and its
children know, so that no other user of the machine can write into the collections. Which requests are in the sample is decided
here, by the correlation id, so that the inputs and the outputs of a request are kept or left out together.
"""

import base64
import contextlib
import hmac
import json
import logging
import os
import secrets
import socket
import sys
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from mlops_nb.core.files import write_file
from mlops_nb.scoring.collector import MAX_WAITING_BYTES, Collector

log = logging.getLogger(__name__)

_PATH = "/modeldata/log"
_OWN = ("request", "response")  # bodies: the server keeps these itself
_KNOWN = {"ce-time", "ce-type", "ce-collect-data-type", "ce-agent", "ce-x-request-id", "ce-model-version"}


class Sink(ThreadingHTTPServer):
    """The receiver of one process; answers until it is closed."""

    daemon_threads = True
    address_family = socket.AF_INET

    def __init__(self, collector: Collector):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.collector = collector
        self.salt = secrets.token_bytes(8)  # no client can choose an id that is always in the sample
        self.password = secrets.token_urlsafe(24)
        self.expected = "Basic " + base64.b64encode(f"mlops-nb:{self.password}".encode()).decode()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 5}, name="sink", daemon=True).start()

    def variables(self, folder: Path) -> dict[str, str]:
        """Return the environment that azureml-ai-monitoring reads; the file it names is written into a folder."""
        enabled = {name: {"enabled": True, "sampleRatePercentage": 100} for name in self.collector.rates if name not in _OWN}
        content = json.dumps({"collections": enabled, "runMode": "cloud"}, sort_keys=True)
        path = write_file(folder / f"collector-{zlib.crc32(content.encode()):08x}.json", content)  # the same for all instances
        without = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or ""
        reached = ",".join(filter(None, [without, "127.0.0.1"]))  # never through a proxy
        return {"AZUREML_MDC_CONFIG_PATH": str(path), "AZUREML_MDC_PORT": str(self.server_address[1]),
                "AZUREML_MDC_HOST": f"mlops-nb:{self.password}@127.0.0.1", "NO_PROXY": reached, "no_proxy": reached}

    def is_kept(self, collection: str, correlation: str) -> bool:
        """Say whether an event is in its collection's sample."""
        drawn = zlib.crc32(self.salt + correlation.encode(errors="replace")) / 2**32
        return drawn < self.collector.rates.get(collection, 0)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a connection that broke."""


class _Handler(BaseHTTPRequestHandler):
    server: Sink
    timeout = 10  # seconds that a connection may be silent
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_POST(self) -> None:
        given = self.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), self.server.expected.encode()):
            return self._answer(401, "Not one of this process's collectors.")
        if self.path != _PATH:
            return self._answer(404, f"Only {_PATH} is here.")
        length = self.headers.get("content-length", "")
        if not length.isdigit() or int(length) > MAX_WAITING_BYTES:
            return self._answer(413, f"An event may have {MAX_WAITING_BYTES} bytes (this one: {length or 'unknown'}).")
        return self._answer(*self._keep(self.rfile.read(int(length))))

    def _keep(self, data: bytes) -> tuple[int, str]:
        given = {name.lower(): value for name, value in self.headers.items()}
        collection = given.get("ce-type", "").rpartition("azureml.inference.")[2]
        if collection in _OWN or collection not in self.server.collector.rates:
            return 404, f"The deployment collects no '{collection}'."
        correlation = given.get("ce-x-request-id") or given.get("trace-id", "")
        if not self.server.is_kept(collection, correlation):
            return 200, ""
        at = float(given["ce-time"]) if given.get("ce-time", "").isdigit() else time.time()
        more = {name[3:].replace("-", ""): value for name, value in given.items() if name.startswith("ce-") and name not in _KNOWN}
        more |= {"modelversion": given.get("ce-model-version", "default"), "agent": given.get("ce-agent", ""),
                 "collectdatatype": given.get("ce-collect-data-type", "")}
        text = given.get("content-type", "application/json").startswith("application/json")
        if not text:
            more["datacontenttype"] = given["content-type"]
        taken = self.server.collector.post(collection, data, correlation, at, text, **more)
        return (200, "") if taken else (503, "Too much is waiting for the disk.")

    def _answer(self, status: int, message: str) -> None:
        content = message.encode()
        self.close_connection = True  # the client opens one for every event
        with contextlib.suppress(OSError):
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Leave the deployment's log to the deployment."""


def start_sink(
    collector: Collector | None,
    folder: Path,  # of this endpoint's processes
) -> None:
    """Let the `Collector`s of a scoring script find this process's collector; without one, let them collect nothing.

    On Azure ML a `Collector` in a deployment without `data_collector` raises. Here it must not: the same script is also started
    for a test of its model, where nothing is kept.
    """
    if collector is not None:
        os.environ.update(Sink(collector).variables(folder))
        collector.before_close = _flush
        return
    os.environ.pop("AZUREML_MDC_CONFIG_PATH", None)
    os.environ.update(AZUREML_MDC_ENABLED="true", AZUREML_MDC_SAMPLE_RATE="0", AZUREML_MDC_WORKER_DISABLED="true")


def _flush(wait: float = 3) -> None:
    """Let azureml-ai-monitoring send what waits in its own queue, at most `wait` seconds long."""
    if package := sys.modules.get("azureml.ai.monitoring.init"):
        sending = threading.Thread(target=package.teardown, kwargs={"wait_for_flush": True}, daemon=True)
        sending.start()
        sending.join(wait)
