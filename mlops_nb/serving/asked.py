"""Read the head of a request once, and make of it what a process may see."""

import os
import re
from typing import Any

from mlops_nb.serving.route import Refused

HOP = frozenset((b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te", b"trailer",
                 b"transfer-encoding", b"upgrade", b"content-length", b"host", b"expect", b"authorization"))
NOTED = frozenset((b"x-request-id", b"azureml-model-deployment", b"user-agent", b"x-ms-client-request-id"))
REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,200}").fullmatch


class Asked:
    """One request's head, read once."""

    __slots__ = ("authorization", "began", "head", "length", "method", "noted", "path", "probe", "request")

    def __init__(self, scope: dict[str, Any], now: float):
        self.method, self.path, self.began = scope["method"], scope["path"], now
        self.authorization = self.probe = b""
        self.length = 0
        self.noted: dict[bytes, bytes] = {}
        lines = []
        named: tuple[bytes, ...] = ()
        for name, value in scope["headers"]:
            if name in HOP or name.startswith(b"x-mlops-nb-"):
                if name == b"authorization":
                    self.authorization = value
                elif name == b"x-mlops-nb-probe":
                    self.probe = value
                elif name == b"content-length":
                    self.length = int(value)
                elif name == b"connection" and value.lower() not in (b"keep-alive", b"close"):
                    named = tuple(part.strip().lower() for part in value.split(b","))
                continue
            if name in NOTED:
                self.noted[name] = value
                if name == b"x-request-id":
                    continue
            lines.append(b"%b: %b\r\n" % (name, value))
        if named:
            lines = [line for line in lines if line.partition(b":")[0] not in named]
        given = self.noted.get(b"x-request-id", b"")
        self.request = given if REQUEST_ID(given) else _new_id()
        target = self.path.encode() + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        first = b"%b %b HTTP/1.1\r\nhost: deployment\r\nx-request-id: %b\r\n" % (self.method.encode(), target, self.request)
        self.head = b"".join([first, *lines])
        if self.head.count(b"\n") != len(lines) + 3 or b"\0" in self.head:  # the parser lets none through; nor do we
            raise Refused(400, "BadRequest", "A header holds a line break. Send it without.")

    @property
    def pinned(self) -> str:
        """Say which deployment the client names; empty: none."""
        return self.noted[b"azureml-model-deployment"].decode("latin-1") if b"azureml-model-deployment" in self.noted else ""

    def to_worker(self, body: bytes, probe: bool) -> bytes:
        """Make the request as a process gets it."""
        mark = b"x-mlops-nb-probe: 1\r\n" if probe else b""
        return b"%b%bcontent-length: %d\r\n\r\n%b" % (self.head, mark, len(body), body)


def _new_id() -> bytes:
    """Make a random UUID, in a tenth of the time that `uuid` takes."""
    digits = os.urandom(16).hex()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}".encode()
