"""Open an executed notebook at the state in which it ended: JupyterLab on a copy of it, with a kernel that has run the cells before."""

import atexit
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mlops_nb.core.records import SpecificationError

HIDDEN = ("MLFLOW_RUN_CONTEXT", "MLOPS_NB_HEADLESS")  # what is done here is not the run's, and somebody is there to click


@dataclass(frozen=True)
class Page:
    """A served notebook."""

    url: str  # what a browser opens, with the token
    server: str  # the REST interface's address
    token: str
    kernel: str  # id of the kernel behind the notebook
    path: Path  # the copy that is shown
    process: subprocess.Popen[bytes]
    folder: str

    def close(self) -> None:
        """End the server and its kernels."""
        for number, seconds in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
            if self.process.poll() is None:
                self.process.send_signal(number)
                try:
                    self.process.wait(seconds)
                except subprocess.TimeoutExpired:
                    continue
        shutil.rmtree(self.folder, ignore_errors=True)


def debug(
    executed: Path | str,
    browser: bool = True,  # open one
    say: Callable[[str], None] = print,
) -> None:
    """Serve an executed notebook at the state before its failing cell, until it is stopped by Ctrl-C or in JupyterLab."""
    page = serve(executed, say)
    try:
        say(f"{page.path.name} is open at {page.url}\nCtrl-C ends it.")
        if browser:
            import webbrowser

            webbrowser.open(page.url)
        page.process.wait()
    except KeyboardInterrupt:
        pass
    finally:
        page.close()


def serve(executed: Path | str, say: Callable[[str], None] = print) -> Page:
    """Start JupyterLab on a copy of an executed notebook, and run the cells before the failing one in its kernel."""
    executed = Path(executed).resolve()
    nb = _read(executed)
    run = nb.metadata.get("mlops_nb", {})
    copy = executed.with_name(f"{executed.stem}.debug.ipynb")
    shutil.copyfile(executed, copy)
    folder = tempfile.mkdtemp(prefix="mlops-nb-")
    page = None
    try:
        process, server, token = _start(copy.parent, folder, run.get("variables", {}))
        session = {"path": copy.name, "name": copy.name, "type": "notebook", "kernel": {"name": run.get("kernel") or "python3"}}
        kernel = _ask(server, token, "api/sessions", session)["kernel"]["id"]
        page = Page(f"{server}lab/tree/{quote(copy.name)}?token={token}", server, token, kernel, copy, process, folder)
        atexit.register(page.close)
        _replay(Path(folder, f"kernel-{kernel}.json"), nb, run.get("cwd", ""), say)
        return page
    except BaseException:
        if page is not None:
            page.close()
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _read(executed: Path) -> Any:
    import nbformat

    if not executed.is_file():
        raise FileNotFoundError(f"No executed notebook {executed}.")
    nb = nbformat.read(executed, as_version=4)
    if "mlops_nb" not in nb.metadata:
        raise SpecificationError([f"{executed} was not executed by mlops-nb. Open it with: jupyter lab {executed}"])
    return nb


def _start(root: Path, folder: str, variables: dict[str, str]) -> tuple[subprocess.Popen[bytes], str, str]:
    """Start JupyterLab on a free port of this machine; returns its process, its address and its token."""
    token = secrets.token_hex(16)
    environment = {**os.environ, **variables, "JUPYTER_RUNTIME_DIR": folder, "JUPYTER_TOKEN": token}
    environment = {name: value for name, value in environment.items() if name not in HIDDEN}
    options = {"root_dir": root, "ip": "127.0.0.1", "port": 0, "open_browser": False}
    command = [sys.executable, "-m", "jupyterlab", *(f"--ServerApp.{name}={value}" for name, value in options.items())]
    command += ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with open(f"{folder}/log", "wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)  # noqa: S603
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        for told in Path(folder).glob("jpserver-*.json"):
            try:
                return process, json.loads(told.read_text())["url"], token
            except ValueError:  # it is being written
                pass
        time.sleep(0.05)
    process.kill()
    raise RuntimeError(f"JupyterLab did not start: {Path(folder, 'log').read_text(errors='replace')[-2000:]}")


def _ask(server: str, token: str, path: str, content: dict[str, Any]) -> Any:
    request = urllib.request.Request(f"{server}{path}", json.dumps(content).encode(), {"Authorization": f"token {token}"})  # noqa: S310 our own server
    for attempt in range(100):
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 our own server
                return json.load(answer)
        except urllib.error.HTTPError:
            raise
        except (ConnectionError, urllib.error.URLError):  # it says where it is before it listens
            time.sleep(0.1 * bool(attempt))
    raise RuntimeError(f"JupyterLab does not answer at {server}.")


def _replay(connection: Path, nb: Any, cwd: str, say: Callable[[str], None]) -> None:
    """Run the cells before the failing one, as the notebook itself did."""
    from jupyter_client import BlockingKernelClient

    from mlops_nb.kernels.record import runs

    client = BlockingKernelClient(connection_file=str(connection))
    client.load_connection_file()
    client.start_channels(hb=False)  # who listens to heartbeats takes a kernel that stands still for a second for dead
    try:
        client.wait_for_ready(timeout=60)
        client.execute(f"import os; os.chdir({cwd!r})", silent=True, reply=True)
        for cell in nb.cells:
            if cell.metadata.get("papermill", {}).get("status") in ("failed", "pending", "running"):
                return
            if not runs(cell):
                continue
            say(f"cell [{cell.execution_count or ' '}]: {cell.source.strip().splitlines()[0][:100]}")
            reply = client.execute(cell.source, reply=True, allow_stdin=False, stop_on_error=False)["content"]
            if reply["status"] == "error" and "raises-exception" not in cell.metadata.get("tags", []):
                say(f"it failed this time: {reply['ename']}: {reply['evalue']}")
                return
    finally:
        client.stop_channels()
