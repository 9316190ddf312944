"""Write one line a request, with the columns of Azure's AmlOnlineEndpointTrafficLog."""

import http
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from mlops_nb.serving.asked import Asked
from mlops_nb.serving.lines import Lines, append
from mlops_nb.serving.pool import Headers

DAYS = 7  # of logs that are kept
ROLL = 256 * 2**20  # bytes of a day's file; one more is kept
FOLDER = Path("logs/traffic")
REASONS = {status.value: status.phrase for status in http.HTTPStatus}


class TrafficLog:
    """The log of one endpoint; what it needs to know of a request is noted, the line is made in the thread."""

    def __init__(self, lines: Lines, folder: Path = FOLDER):
        self.lines, self.folder = lines, folder
        self.on = False
        self.endpoint = self.environment = self.day = ""

    def follow(self, endpoint: dict[str, Any]) -> None:
        """Take over whether requests are logged."""
        self.on = endpoint.get("log_requests", True)
        self.endpoint, self.environment = _quote(endpoint["name"].encode()), _quote(endpoint["environment"].encode())

    def add(self, asked: Asked, deployment: str, status: int, headers: Headers, size: int, answer_size: int,
            times: tuple[float, float, float, float]) -> None:  # began, received, answered, sent
        """Note a request."""
        noted = asked.noted
        self.lines.put(self.write, (
            time.time(), asked.method, asked.path, deployment, status, headers, size, answer_size, asked.request,
            noted.get(b"user-agent", b"")[:70], noted.get(b"x-ms-client-request-id", b"")[:200], times))

    def write(self, records: list[Any]) -> None:
        """Append the lines to their day's file, and remove old ones when a day begins."""
        days: dict[str, list[bytes]] = {}
        for record in records:
            second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record[0]))
            days.setdefault(second[:10], []).append(self._line(second, record))
        for day, lines in days.items():
            if day > self.day:
                self.day = day
                self._tidy()
            append(self.folder / f"{day}.jsonl", lines, ROLL)

    def _line(self, second: str, record: Any) -> bytes:
        """Make a line by hand: what a client chose is quoted by orjson, the rest needs no quoting."""
        at, method, path, deployment, status, headers, size, answer_size, request, agent, client, times = record
        began, received, answered, sent = times
        model = {name: value for name, value in headers if name.startswith(b"ms-azureml-model-error-")}
        return (
            f'{{"TimeGenerated":"{second}.{int(at % 1 * 1000):03}Z","Method":"{method}","Path":"{path}",'
            f'"AzureMLWorkspaceName":{self.environment},"EndpointName":{self.endpoint},"DeploymentName":{_quote(deployment.encode())},'
            f'"Protocol":"HTTP/1.1","ResponseCode":{status},"ResponseCodeReason":"{REASONS.get(status, "")}",'
            f'"ModelStatusCode":{_quote(model.get(b"ms-azureml-model-error-statuscode", b""))},'
            f'"ModelStatusReason":{_quote(model.get(b"ms-azureml-model-error-reason", b""))},'
            f'"RequestPayloadSize":{size},"ResponsePayloadSize":{answer_size},"UserAgent":{_quote(agent)},"XRequestId":{_quote(request)},'
            f'"XMSClientRequestId":{_quote(client)},"TotalDurationMs":{(sent - began) * 1000:.3f},'
            f'"RequestDurationMs":{(received - began) * 1000:.3f},"ResponseDurationMs":{(sent - answered) * 1000:.3f},'
            '"RequestThrottlingDelayMs":0,"ResponseThrottlingDelayMs":0}\n').encode()

    def _tidy(self) -> None:
        oldest = (datetime.now(UTC) - timedelta(days=DAYS)).strftime("%Y-%m-%d")
        for path in self.folder.glob("????-??-??*.jsonl"):
            if path.name[:10] < oldest:
                path.unlink(missing_ok=True)


def _quote(text: bytes) -> str:
    return orjson.dumps(text.decode("latin-1")).decode() if text else '""'
