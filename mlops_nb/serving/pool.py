"""Speak HTTP/1.1 to one process over its Unix socket: connections are kept, and each carries one request at a time."""

import asyncio
from time import monotonic
from typing import NamedTuple

import httptools

Headers = list[tuple[bytes, bytes]]  # names in lower case


class Answer(NamedTuple):
    """What a process answered, whole."""

    status: int
    headers: Headers
    body: bytes


class ConnectionEnded(Exception):
    """The process closed the connection, or could not be reached, before its answer was complete."""

    def __init__(self, why: str, sent: bool = True):  # sent: the process may have seen the request
        self.sent = sent
        super().__init__(why)


def _expire(waiting: "asyncio.Future[Answer]") -> None:
    if not waiting.done():
        waiting.set_exception(TimeoutError())


class Connection(asyncio.Protocol):
    """One connection: it is idle, or one request is under way on it."""

    def __init__(self, pool: "Pool") -> None:
        self.pool = pool
        self.parser = httptools.HttpResponseParser(self)
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set by connection_made
        self.waiting: asyncio.Future[Answer] | None = None
        self.headers: Headers = []
        self.parts: list[bytes] = []
        self.begun = False  # a part of the answer is here

    async def ask(self, request: bytes, until: float) -> Answer:
        """Send one request and wait for its answer; a late one is thrown away, with the connection."""
        loop = self.pool.loop
        self.waiting = waiting = loop.create_future()
        self.begun = False
        late = loop.call_later(until - monotonic(), _expire, waiting)
        self.transport.write(request)
        try:
            answer = await waiting
            if monotonic() > until:  # both were due when this process went on, and the timer was not looked at first
                raise TimeoutError
            return answer
        finally:
            late.cancel()
            if self.waiting is waiting:  # not another's by now: the one who asked was cancelled, or is told that it is late
                self.waiting = None
                self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Feed the parser; an answer that is no HTTP ends the connection."""
        self.begun = True
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep one header."""
        self.headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body."""
        self.parts.append(body)

    def on_message_complete(self) -> None:
        """Hand the answer over, and the connection back."""
        status, headers, parts = self.parser.get_status_code(), self.headers, self.parts
        self.headers, self.parts = [], []
        if status < 200:  # `100 Continue`, and the like: the answer follows
            return
        waiting, self.waiting = self.waiting, None
        if waiting is None or waiting.done() or not self.parser.should_keep_alive():
            self.transport.close()
        else:
            self.pool.idle.append(self)
        if waiting is not None and not waiting.done():
            waiting.set_result(Answer(status, headers, parts[0] if len(parts) == 1 else b"".join(parts)))

    def connection_lost(self, problem: Exception | None) -> None:
        """Leave the pool; whoever waits is told."""
        if self in self.pool.idle:
            self.pool.idle.remove(self)
        waiting, self.waiting = self.waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_exception(ConnectionEnded(str(problem or "closed before the answer was complete")))


class Pool:
    """The connections to one process."""

    def __init__(self, path: str) -> None:  # of the socket
        self.path = path
        self.loop = asyncio.get_running_loop()
        self.idle: list[Connection] = []  # the newest is used first, so a burst's connections are left alone

    async def ask(self, request: bytes, until: float) -> Answer:
        """Send a request; raises `ConnectionEnded`, or `TimeoutError` at the monotonic time `until`."""
        sent = False
        while self.idle:
            kept = self.idle.pop()
            if kept.transport.is_closing():
                continue
            try:
                return await kept.ask(request, until)
            except ConnectionEnded:
                if kept.begun:
                    raise
                sent = True  # perhaps; or it was closed while it was idle, at the very moment we wrote
        try:
            _, fresh = await self.loop.create_unix_connection(lambda: Connection(self), self.path)
        except OSError as problem:
            raise ConnectionEnded(str(problem), sent) from None
        return await fresh.ask(request, until)

    def close(self) -> None:
        """Close the idle connections."""
        for connection in self.idle[:]:
            connection.transport.close()
