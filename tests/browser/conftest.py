"""A JupyterLab of the tests' own, and pages that remember what they asked for."""

import base64
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60_000  # milliseconds that a page may take for anything
CONNECT = """async () => {
  const session = window.jupyterapp.shell.currentWidget.sessionContext;
  await session.ready;
  const kernel = session.session.kernel;
  await kernel.info;
  for (let i = 0; i < 1200 && (kernel.connectionStatus !== 'connected' || kernel.status !== 'idle'); i++)
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

    def answers(self) -> bool:
        """Whether the server is there."""
        try:
            urllib.request.urlopen(f"{self.url}/api/status?token={self.token}", timeout=10).close()  # noqa: S310 always http
        except (OSError, ValueError):  # ValueError: there is no address yet
            return False
        return True

    def open(self, page: Any, notebook: str) -> None:
        """Open a notebook alone in a fresh workspace, and wait for its kernel: a run issued earlier is silently lost."""
        page.goto(f"{self.url}/doc/workspaces/{secrets.token_hex(4)}/tree/{notebook}?token={self.token}&reset")
        page.wait_for_selector(".jp-NotebookPanel .jp-Cell")
        page.wait_for_function("window.jupyterapp.shell.currentWidget?.sessionContext")
        page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.context.ready }")
        self.connect(page)

    def connect(self, page: Any) -> None:
        """Wait until the notebook's kernel listens."""
        assert page.evaluate(CONNECT) == ["connected", "idle"]

    def run_all(self, page: Any, notebook: str, picture: Path) -> None:
        """Open a notebook, run all its cells, and look: all ran, none failed, nothing was asked of another machine."""
        self.open(page, notebook)
        page.evaluate(RUN_ALL)
        cells = page.evaluate(CELLS)
        page.screenshot(path=picture)
        assert not [cell["error"] for cell in cells if cell["error"]]
        assert cells
        assert all(cell["ran"] or cell["empty"] for cell in cells)
        assert page.locator(".Toastify__toast").count() == 0  # no question about news
        self.assert_stayed_here(page)

    def assert_stayed_here(self, page: Any) -> None:
        """Nothing was asked of another machine."""
        here = (self.url, self.url.replace("http", "ws"), "data:", "blob:")
        assert not [url for url in page.requested if not url.startswith(here)]


def address(path: Path) -> str:
    """Say where a Jupyter server listens, from the file that it writes when it does."""
    try:
        return f"http://127.0.0.1:{json.loads(path.read_text())['port']}"
    except (FileNotFoundError, ValueError):  # not yet, or not all of it
        return ""


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Start JupyterLab as ci/lab does, with its own settings, so that nothing of this person's is read or written."""
    folder = tmp_path_factory.mktemp("lab")
    project = folder / "project"
    for part in ("settings.ini", "environments", "ci", "nbs", "docs/_static"):
        (project / part).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / part).is_dir() else shutil.copy)(ROOT / part, project / part)
    token = secrets.token_hex(16)
    own = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime", "IPYTHONDIR": "ipython",
           "JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces"}
    variables = {key: value for key, value in os.environ.items() if not key.startswith("MLOPS_NB_")}
    variables |= {key: str(folder / name) for key, name in own.items()}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0", "--ServerApp.ip=127.0.0.1",
               f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={project}", "--LabApp.expose_app_in_browser=True",
               f"--LabApp.app_settings_dir={project / 'ci/jupyterlab'}", "--LabApp.news_url=None",
               "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
               "--ServerApp.kernel_websocket_connection_class=mlops_nb.widgets.channel.PromptConnection"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, env=variables, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 120
        while not (lab := Lab(address(folder / f"runtime/jpserver-{server.pid}.json"), token, project)).answers():
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.1)
        yield lab
    finally:
        server.terminate()
        server.wait(120)


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that notes every address it asks for."""
    context = browser.new_context(viewport={"width": 1400, "height": 1100})
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.requested = []
    page.on("request", lambda request: page.requested.append(request.url))
    yield page
    context.close()


# --- the labeling card on a page, without JupyterLab: the card's own script in chromium, its model joined to the card in Python ---

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>card</title><style>STYLE</style>
<body><main id="card"></main><script>
onerror = said => { window.fault = said };
const later = setTimeout; // what ends by itself after seconds (a word to the person, a key held down) stays, however slow the machine
setTimeout = (act, after, ...more) => later(act, after >= 1000 ? 300_000 : after, ...more);
</script><script type="module">
import card from "/card.js";
const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0)), heard = {}, state = STATE;
const tell = (name, ...said) => [...(heard[name] ?? [])].forEach(hear => hear(...said));
async function pass(message) {
  if (window.offline) return;
  let answers;
  try { answers = JSON.parse(await window.toPython(JSON.stringify(message))); } catch { return; }
  for (const {method, state: changed, content, buffers} of answers) {
    if (method === 'update') for (const [key, value] of Object.entries(changed)) { state[key] = value; tell(`change:${key}`); }
    if (method === 'custom') tell('msg:custom', content, buffers.map(one => new DataView(bytes(one).buffer)));
  }
}
let unsaved = {};
const model = {
  get: key => state[key],
  set: (key, value) => { state[key] = unsaved[key] = value; tell(`change:${key}`); },
  save_changes: () => { pass({method: 'update', state: unsaved}); unsaved = {}; },
  send: content => void pass({method: 'custom', content}),
  on: (name, hear) => (heard[name] ??= []).push(hear),
  off: (name, hear) => { heard[name] = (heard[name] ?? []).filter(one => one !== hear); },
};
window.pump = setInterval(() => pass({method: 'pump'}), 100);
window.model = model;
window.leave = card.render({model, el: document.getElementById('card')});
</script></body></html>"""


@pytest.fixture
def card_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Put a labeling card on a page of its own: `page = card_page(card)`; `page.evaluate("window.offline = true")` cuts the line.

    A second call with `beside=page` opens another page of the same browser (the same localStorage); otherwise each has its own.
    """
    contexts = []

    def open_page(card: Any, beside: Any = None, dark: bool = False, **options: Any) -> Any:
        waiting: list[dict[str, Any]] = []  # what the card says, also from its other threads

        def catch(kind: str, data: Any = None, metadata: Any = None, buffers: Any = None, **_: Any) -> None:
            waiting.append({**(data or {}), "buffers": [base64.b64encode(bytes(one)).decode() for one in buffers or ()]})

        def to_python(told: str) -> str:
            message = json.loads(told)
            if message["method"] != "pump":
                card._handle_msg({"content": {"data": message}, "buffers": []})
            said, waiting[:] = list(waiting), []
            return json.dumps(said)

        card.comm.publish_msg = catch
        options = {"viewport": {"width": 1100, "height": 800}, "color_scheme": "dark" if dark else "light", **options}
        context = beside.context if beside else browser.new_context(**options)
        if not beside:
            contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.faults = []
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.on("console", lambda message: page.faults.append(message.text) if message.type == "error" else None)
        page.expose_function("toPython", to_python)
        state = json.dumps(card.get_state(["shown"])).replace("</", "<\\/")
        paper = "html { background: #111418 }" if dark else ""
        body = PAGE.replace("STYLE", paper + card._css).replace("STATE", state)
        page.route("http://localhost/**", lambda route: route.fulfill(content_type="text/javascript", body=card._esm)
                   if route.request.url.endswith("/card.js") else route.fulfill(content_type="text/html", body=body))
        page.goto("http://localhost/card")
        page.wait_for_function("Boolean(window.leave || window.fault)")
        assert not page.faults, page.faults
        return page

    yield open_page
    for context in contexts:
        context.close()


CLASSES = {"image": ("hand", "face", "cup"), "text": ("person", "place", "group"), "compare": (), "row": ("yes", "no")}
MORE: dict[str, dict[str, Any]] = {
    "image_keypoints": {"classes": [{"name": "hand", "keypoints": ["wrist", "thumb", "finger"], "skeleton": [[0, 1], [0, 2]]}]},
    "text_relations": {"relations": [{"name": "works in", "head": ["person"], "tail": ["place"]}, {"name": "knows"}]},
    "text_generation": {"fields": [{"name": "summary", "max_length": 200}]},
    "text_rubric": {"criteria": [{"name": "helpful", "description": "says what was asked"},
                                 {"name": "correct", "lowest": 0, "highest": 3}]},
}


@pytest.fixture
def quick_project() -> Callable[..., str]:
    """Lay a labeling project: `name = quick_project(settings, task, *items, **fields)`; an item is its data, or a LabelItem."""

    def lay(settings: Any, task: str, *items: Any, **fields: Any) -> str:
        from mlops_nb.inner_loop.labeling import TASKS, LabelProject
        from mlops_nb.inner_loop.store import LabelItem, create

        given = {"name": "quick", "task": task, "classes": CLASSES[TASKS[task][0]], "sampling": {"strategy": "order"}}
        given |= MORE.get(task, {}) | fields
        with create(settings, LabelProject(**given)) as store:
            store.add(one if isinstance(one, LabelItem) else LabelItem(f"i{n}", one, rank=float(n)) for n, one in enumerate(items, 1))
        return given["name"]

    return lay
