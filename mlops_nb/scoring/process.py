"""What a worker's process is besides its application: the address that it takes, and its end."""

import os
import signal
import socket
import stat
import threading
import time
from pathlib import Path


def end_with_parent(
    wait: float,  # seconds for the requests under way
) -> None:
    """End this process when its parent ends, however that ends: the parent holds the other end of our standard input.

    Under systemd, and in a container, nobody holds it: such a process ends with SIGTERM alone.
    """
    if not stat.S_ISFIFO(os.fstat(0).st_mode):
        return

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(wait + 10)
        os._exit(1)  # stuck in a request

    threading.Thread(target=watch, name="parent", daemon=True).start()


def bind(address: str) -> socket.socket:
    """Take an address without listening yet: the path of a Unix socket, or `tcp:host:port` where no host stands before us."""
    if address.startswith("tcp:"):
        host, _, port = address.removeprefix("tcp:").rpartition(":")
        listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host.strip("[]"), int(port)))
        return listener
    Path(address).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(address)
    return listener
