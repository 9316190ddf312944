#!/usr/bin/env python3
"""Serve this package on this machine: make an environment from lock.txt once, then answer on 127.0.0.1.

`./run --port 8000` listens elsewhere; `./run --python PATH` takes an interpreter that has the packages already.
It needs Python 3.11 or newer, and uv or pip; it is written for the standard library alone.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

PLACE = "/opt/serve"  # in an image; config.json is written for there


def prepare(here: Path) -> Path:
    """Make the environment `.venv` beside the package's files, unless it is there; returns its interpreter."""
    python = here / ".venv/bin/python"
    if (here / ".venv/ready").is_file():
        return python
    hashes = ["--require-hashes"] if "--hash=" in (here / "lock.txt").read_text() else []
    lock = ["--no-deps", *hashes, "--requirement", str(here / "lock.txt")]
    if uv := shutil.which("uv"):
        _call([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(here / ".venv")])
        _call([uv, "pip", "install", "--quiet", "--python", str(python), *lock])
    else:
        _call([sys.executable, "-m", "venv", "--clear", str(here / ".venv")])
        _call([str(python), "-m", "pip", "install", "--quiet", *lock])
    (here / ".venv/ready").touch()
    return python


def _call(command: list[str]) -> None:
    if code := subprocess.call(command):  # noqa: S603
        raise SystemExit(f"{' '.join(command)} ended with {code}.")


def configure(here: Path, host: str, port: int) -> dict[str, Any]:
    """Read the worker's configuration, for this place and address."""
    text = (here / "config.json").read_text().replace(f'"{PLACE}/', json.dumps(f"{here}/")[:-1])
    config: dict[str, Any] = json.loads(text)
    return config | {"socket": f"tcp:{host}:{port}"}


def main() -> None:
    """Serve until it is stopped."""
    parser = argparse.ArgumentParser(description="Serve this package on this machine.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=5001, help="port to listen on; 0: any free one")
    parser.add_argument("--python", default="", help="interpreter that has the packages of lock.txt already")
    asked = parser.parse_args()
    here = Path(__file__).resolve().parent
    python = asked.python or str(prepare(here))
    port = asked.port or _free_port(asked.host)
    config = configure(here, asked.host, port)
    print(f"http://{asked.host}:{port}/score", flush=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", **(config["wish"]["variables"] or {}),
                   "PYTHONPATH": str(here / "code")}
    os.execve(python, [python, "-P", "-m", "mlops_nb.scoring.app", json.dumps(config)], environment)  # noqa: S606 no shell in between


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
