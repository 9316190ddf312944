"""A process that keeps the worker's side of the protocol, and does what a request's body says: what a model would take long to do."""

import asyncio
import json
import os
import signal
import sys
import threading
from typing import Any

CONFIG = json.loads(sys.argv[1])
WISH = CONFIG["wish"]
DOES = WISH["variables"] or {}
PENDING = MOST = 0


async def answer(head: list[bytes], body: bytes, writer: asyncio.StreamWriter) -> None:
    """Answer one request: `{"wait": s}`, `{"hold": path}`, `{"die": true}`, `{"cut": true}`, `{"status": n}`; else tell what came."""
    global PENDING, MOST
    asked: dict[str, Any] = {}
    if body.startswith(b"{"):
        asked = json.loads(body)
    PENDING += 1
    MOST = max(MOST, PENDING)
    if wait := float(asked.get("wait", DOES.get("WAIT", 0))):
        await asyncio.sleep(wait)
    if hold := asked.get("hold", body and DOES.get("HOLD")):  # until there is such a file
        while not os.path.exists(hold):
            await asyncio.sleep(0.01)
    PENDING -= 1
    if asked.get("die"):
        os.kill(os.getpid(), signal.SIGKILL)
    told = json.dumps({"instance": CONFIG["instance"], "deployment": CONFIG["deployment"], "head": [h.decode("latin-1") for h in head],
                       "size": len(body), "most": MOST, "prefix": sys.prefix, "python_path": os.environ.get("PYTHONPATH", "")}).encode()
    if asked.get("cut"):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf")
        writer.close()
        return
    status = int(asked.get("status", DOES.get("STATUS", 200)))
    name = next((line[14:] for line in head if line.lower().startswith(b"x-request-id: ")), b"")
    extra = b"".join(b"%b: %b\r\n" % (k.encode(), str(v).encode()) for k, v in asked.get("headers", {}).items())
    writer.write(b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nX-Request-Id: %b\r\nx-ms-request-id: %b\r\n"
                 b"azureml-model-deployment: %b\r\nserver: plain\r\n%bcontent-length: %d\r\n\r\n%b"
                 % (status, name, name, CONFIG["deployment"].encode(), extra, len(told), told))  # fmt: skip
    await writer.drain()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[:-2]
            size = next((int(line.split(b":")[1]) for line in head if line.lower().startswith(b"content-length:")), 0)
            await answer(head, await reader.readexactly(size), writer)
            if DOES.get("CLOSES") or writer.is_closing():  # without telling so in a header: the next request meets a closed connection
                break
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    writer.close()


async def main() -> None:
    if DOES.get("FAILS"):
        sys.exit("no such model")
    await asyncio.sleep(float(DOES.get("LATE", 0)))
    server = await asyncio.start_unix_server(serve, CONFIG["socket"], limit=2**24)
    async with server:
        await server.serve_forever()


def end_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os._exit(0)


threading.Thread(target=end_with_parent, daemon=True).start()
asyncio.run(main())
