"""A person opens a scenario notebook in JupyterLab and runs all of it; the screenshot stays in the test's folder."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import pytest

from mlops_nb.core import ledger
from mlops_nb.core.settings import load_settings

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.browser, pytest.mark.slow]

CONNECT = """async () => {
  const session = window.jupyterapp.shell.currentWidget.sessionContext;
  await session.ready;
  const kernel = session.session.kernel;
  await kernel.info;
  for (let i = 0; i < 600 && (kernel.connectionStatus !== 'connected' || kernel.status !== 'idle'); i++)
    await new Promise(resolve => setTimeout(resolve, 50));
  return [kernel.connectionStatus, kernel.status];
}"""
RUN_ALL = "async () => { await window.jupyterapp.commands.execute('notebook:run-all-cells') }"
CELLS = """() => [...window.jupyterapp.shell.currentWidget.content.model.cells].filter(cell => cell.type === 'code').map(cell => {
  const outputs = [...Array(cell.outputs.length).keys()].map(i => cell.outputs.get(i).toJSON());
  return {ran: cell.executionCount > 0, empty: !cell.sharedModel.source.trim(),
          error: outputs.filter(o => o.output_type === 'error').map(o => o.ename + ': ' + o.evalue).join()};
})"""


class Lab(NamedTuple):
    """A JupyterLab of its own, on a copy of the project."""

    url: str
    token: str
    project: Path

    def open(self, page: Any, notebook: str) -> None:
        """Open a notebook alone in a fresh workspace, and wait for its kernel: a run issued earlier is silently lost."""
        page.goto(f"{self.url}/doc/workspaces/{secrets.token_hex(4)}/tree/{notebook}?token={self.token}&reset")
        page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=60_000)
        page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.context.ready }")
        assert page.evaluate(CONNECT) == ["connected", "idle"]


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=1).close()  # noqa: S310 always http
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Start JupyterLab as ci/lab does, with its own settings, so that nothing of this person's is read or written."""
    folder = tmp_path_factory.mktemp("lab")
    project = folder / "project"
    for part in ("settings.ini", "environments", "ci", "nbs", "docs/_static"):
        (project / part).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / part).is_dir() else shutil.copy)(ROOT / part, project / part)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    lab = Lab(f"http://127.0.0.1:{port}", secrets.token_hex(16), project)
    own = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime", "IPYTHONDIR": "ipython",
           "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces"}
    variables = {key: value for key, value in os.environ.items() if not key.startswith("MLOPS_NB_")}
    variables |= {key: str(folder / name) for key, name in own.items()}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--ServerApp.port_retries=0",
               f"--IdentityProvider.token={lab.token}", f"--ServerApp.root_dir={project}", "--LabApp.expose_app_in_browser=True",
               f"--LabApp.app_settings_dir={project / 'ci/jupyterlab'}", "--LabApp.news_url=None",
               "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, env=variables, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while not answers(f"{lab.url}/api/status?token={lab.token}"):
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.1)
        yield lab
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1400, "height": 1100})
    page = context.new_page()
    page.requested = []
    page.on("request", lambda request: page.requested.append(request.url))
    yield page
    context.close()


def run_all(page: Any, lab: Lab, notebook: str, picture: Path) -> None:
    """Open a notebook, run all its cells, and look: all ran, none failed, nothing was asked of another machine."""
    lab.open(page, notebook)
    page.evaluate(RUN_ALL)
    cells = page.evaluate(CELLS)
    page.screenshot(path=picture)
    assert not [cell["error"] for cell in cells if cell["error"]]
    assert cells
    assert all(cell["ran"] or cell["empty"] for cell in cells)
    assert page.locator(".Toastify__toast").count() == 0  # no question about news
    here = (lab.url, lab.url.replace("http", "ws"), "data:", "blob:")
    assert not [url for url in page.requested if not url.startswith(here)]


def test_the_front_page_runs_and_shows_the_loop(page: Any, lab: Lab, tmp_path: Path) -> None:
    run_all(page, lab, "nbs/index.ipynb", tmp_path / "index.png")
    assert page.evaluate("document.querySelector('.jp-RenderedMarkdown img').naturalWidth") > 0
    assert page.locator(".jp-RenderedText").first.inner_text().startswith("mlops_nb ")


def test_a_scenario_notebook_runs_from_top_to_bottom(page: Any, lab: Lab, tmp_path: Path) -> None:
    run_all(page, lab, "nbs/scenarios/classical/10_data.ipynb", tmp_path / "10_data.png")
    assert page.locator(".jp-OutputArea-output table, .jp-OutputArea-output img").count() > 0


CARD = """
from mlops_nb.core.records import ModelVersion
from mlops_nb.core.settings import load_settings
from mlops_nb.widgets import ApprovalCard
candidate = ModelVersion("dev.stones", 2, "regression", {"r2": 0.97, "mae": 90.1}, "run", "ada", "table:dev.stones.gold/0")
champion = ModelVersion("dev.stones", 1, "regression", {"r2": 0.91, "mae": 214.0}, "run", "ada", "table:dev.stones.gold/0")
ApprovalCard(load_settings(), candidate, champion, [{"name": "one row", "passed": True}])
"""


def test_a_person_approves_with_the_card_and_the_trainer_cannot(page: Any, lab: Lab, tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CARD)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "python3", "language": "python"}
    nbformat.write(notebook, lab.project / "card.ipynb")
    run_all(page, lab, "card.ipynb", tmp_path / "waiting.png")
    card = page.locator(".jp-OutputArea-output .widget-vbox").first
    name, reason = card.locator("input[type=text]").nth(0), card.locator("input[type=text]").nth(1)
    name.fill("ada")
    card.get_by_role("button", name="Approve").click()
    card.get_by_text("ada trained model:dev.stones/2").wait_for()
    name.fill("grace")
    card.locator("select").select_option("project_lead")
    reason.fill("report read")
    card.get_by_role("button", name="Approve").click()
    card.get_by_text("approved by grace (project_lead)").wait_for()
    page.screenshot(path=tmp_path / "approved.png")
    [entry] = ledger.entries(load_settings("dev", lab.project), action="approve")
    assert (entry.user, entry.persona, entry.details["reason"]) == ("grace", "project_lead", "report read")
