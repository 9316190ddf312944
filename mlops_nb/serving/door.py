"""Let nobody hold the door: a request's head has a size and a time, its body a pace, and an answer has to be read."""

import asyncio
import json
from collections import Counter
from time import monotonic
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES = 64 * 1024  # of one request's line and headers
HEAD_TIME = 10.0  # seconds from a connection, or from the first byte of a head, to the end of the head
BODY_WAIT = 10.0  # seconds without a byte of an unfinished body
BODY_TIME = 300.0  # seconds for a whole body
STALLED = 60.0  # seconds for which a client may leave an answer unread
UNREAD = 64 * 2**20  # bytes of a body that was refused, which are read and thrown away to let the client hear why
CONNECTIONS = 10_000


class Door(HttpToolsProtocol):
    """Uvicorn's protocol, with limits on what comes before a request is one."""

    opened = 0  # connections, ever
    refused: ClassVar["Counter[int]"] = Counter()  # status -> requests refused here

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to count the time."""
        super().connection_made(transport)
        Door.opened += 1
        self.since: float | None = monotonic()  # of a head that is not complete; None: none is awaited
        self.heard = self.asked = self.since  # when the last byte came, and the last head was complete
        self.size = 0  # bytes of the present head, or of a body that nobody wants
        self.stalled: float | None = None
        if len(self.connections) > CONNECTIONS:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Count what comes, and refuse a head that is too large."""
        self.heard = monotonic()
        if self.since is not None or self.cycle is None or self.cycle.response_complete:
            self.size += len(data)
            if self.size > UNREAD:
                self.transport.abort()
                return
        super().data_received(data)
        if self.since is not None and self.size > HEAD_BYTES:
            self.refuse(431, "TooLarge", f"The head of the request is over {HEAD_BYTES} bytes. Send fewer or shorter headers.")

    def on_message_begin(self) -> None:
        """Note when a head begins."""
        super().on_message_begin()
        self.since = self.heard

    def on_headers_complete(self) -> None:
        """Note that a head is complete."""
        self.since = None
        self.asked = self.heard
        self.size = 0
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP: also a request whose length is told twice, or in two ways."""
        self.refuse(400, "BadRequest", "This is no valid HTTP request. Send it with a common HTTP client.")

    def refuse(self, status: int, code: str, message: str) -> None:
        """Answer by hand, and close; an answer that is under way is cut off."""
        if self.transport.is_closing():
            return
        Door.refused[status] += 1
        reason = {400: "Bad Request", 408: "Request Timeout", 431: "Request Header Fields Too Large"}[status]
        body = json.dumps({"error": {"code": code, "message": message}})
        self.transport.write(f"HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
                             f"connection: close\r\n\r\n{body}".encode())
        self.transport.close()

    def look(self, now: float) -> None:
        """Close a connection that keeps us waiting."""
        cycle = self.cycle
        if self.since is not None:
            if now - self.since > HEAD_TIME:
                self.refuse(408, "SlowRequest", f"The head of the request took over {HEAD_TIME:g} s. Send it faster.")
        elif cycle is not None and not cycle.response_complete:
            if cycle.more_body and (now - self.heard > BODY_WAIT or now - self.asked > BODY_TIME):
                self.refuse(408, "SlowRequest", f"The body stood still for {BODY_WAIT:g} s, or took over {BODY_TIME:g} s. "
                            "Send it faster, or fewer rows at a time.")
        elif self.timeout_keep_alive_task is None and (now - self.heard > BODY_WAIT or now - self.asked > BODY_TIME):
            self.transport.abort()  # the rest of a body that was refused
        if not self.transport.get_write_buffer_size():
            self.stalled = None
        elif self.stalled is None:
            self.stalled = now
        elif now - self.stalled > STALLED:
            self.transport.abort()


def sweep(connections: set[Any], now: float) -> None:
    """Look at all connections; once a second is enough."""
    for connection in list(connections):
        connection.look(now)
