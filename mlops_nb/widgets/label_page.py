"""The labeling card on a page of its own, for people who do not use JupyterLab, served by voila on this machine.

Everybody gets a link of his own: it carries the page's token and, sealed with a key that only this project has, the name under which
he works. Who has the one cannot make another's of it.
"""

import hashlib
import hmac
import json
import os
import re
import socket
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

from mlops_nb.core import access
from mlops_nb.core.ledger import log
from mlops_nb.core.records import SpecificationError
from mlops_nb.core.settings import Settings, load_settings
from mlops_nb.inner_loop.labeling import LabelProject
from mlops_nb.inner_loop.store import open_store
from mlops_nb.widgets.label import ROLES, LabelCard

HOST = "127.0.0.1"
TEMPLATE = "mlops_label"  # of voila
IDLE = 3600  # seconds after which the kernel of a page that nobody has open any more is ended


def serve(
    settings: Settings,
    name: str,  # of the project
    role: str = "label",  # label or review
    port: int = 0,  # 0: any free one
    people: Sequence[str] = (),  # who gets a link; none: those whom the project names, else whoever starts this
    tell: Callable[[str], None] = print,  # is told the links, a line each
) -> None:
    """Serve a project's page until the process is told to stop; raises `SpecificationError` and `PermissionError` before that."""
    links(settings, name, role, people, port)  # who may not is told before anything heavy is loaded
    from traitlets.config import Config
    from voila.app import Voila

    port = port or _free_port()  # not earlier: while voila is loaded another process could take it
    found = links(settings, name, role, people, port)
    token = _secrets(settings, name)["token"]
    with tempfile.TemporaryDirectory(prefix="label-") as folder:
        notebook = _write_notebook(Path(folder), settings, name, role)
        places = [str(_write_template(Path(folder))), os.environ.get("JUPYTER_PATH", "")]
        os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, places))
        config: dict[str, Any] = {
            "Voila": {"token": token, "open_browser": False, "port_retries": 0, "log_level": "ERROR",
                      "kernel_websocket_connection_class": "mlops_nb.widgets.channel.PromptConnection"},
            "VoilaConfiguration": {"file_allowlist": [], "show_tracebacks": False, "strip_sources": True, "template": TEMPLATE},
            "MappingKernelManager": {"cull_idle_timeout": IDLE, "cull_interval": 60},
        }
        log(settings, "open_label_page", f"labels:{name}", role=role, people=list(found))
        for person, link in found.items():
            tell(f"{person}: {link}")
        app = Voila(config=Config(config))
        app.initialize([str(notebook), f"--Voila.ip={HOST}", f"--port={port}", "--no-browser"])
        app.token = token  # whatever a configuration file of this machine says
        app.start()


def links(
    settings: Settings,
    name: str,  # of the project
    role: str,
    people: Sequence[str],  # none: those whom the project names, else whoever asks
    port: int,
) -> dict[str, str]:  # person -> address
    """Make everybody's link to a page; raises `SpecificationError` for somebody whom the project does not name."""
    if role not in ROLES:
        raise SpecificationError([f"role '{role}': {' or '.join(ROLES)} is expected."])
    access.require(settings, role)
    with open_store(settings, name) as store:
        named = _named(store.project, role)
    people = list(dict.fromkeys(people)) or list(named) or [settings.user]
    if unknown := [person for person in people if named and person not in named]:
        may = ", ".join(named)
        raise SpecificationError([f"{person} may not {role} {name} (may: {may}). Its file names who may." for person in unknown])
    kept = _secrets(settings, name)
    return {person: f"http://{HOST}:{port}/?{urlencode({'token': kept['token'], 'as': person, 'seal': _seal(kept, role, person)})}"
            for person in people}  # fmt: skip


def card(
    root: str,  # the project's folder
    environment: str,
    persona: str,
    name: str,
    role: str,
) -> LabelCard:
    """Show the card to the person whose link was followed; what the page's notebook calls."""
    asked = {key: values[0] for key, values in parse_qs(os.environ.get("QUERY_STRING", "")).items()}
    person, settings = asked.get("as", ""), load_settings(environment, root, persona=persona, user=asked.get("as", ""))
    if not person or not hmac.compare_digest(asked.get("seal", ""), _seal(_secrets(settings, name), role, person)):
        raise PermissionError("This link is not complete. Ask for your own link to this page.")
    return LabelCard(settings, name, role)


# --- parts -------------------------------------------------------------------------------------------------------------


def _named(project: LabelProject, role: str) -> tuple[str, ...]:
    return project.annotators if role == "label" else project.reviewers


def _secrets(settings: Settings, name: str) -> dict[str, str]:
    """Read the token and the key of a project's pages; they are made once, and links stay good until the file goes."""
    path = settings.state / "labels" / f"{name}.page.json"
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump({"token": os.urandom(24).hex(), "key": os.urandom(32).hex()}, file)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        pass
    found: dict[str, str] = json.loads(path.read_text())
    return found


def _seal(kept: dict[str, str], role: str, person: str) -> str:
    return hmac.new(bytes.fromhex(kept["key"]), f"{role}\n{person}".encode(), hashlib.sha256).hexdigest()[:32]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _write_template(folder: Path) -> Path:  # where voila finds it
    """Write voila's own pages anew, without the style sheets that they would fetch from elsewhere."""
    from jupyter_core.paths import jupyter_path

    made = folder / "voila" / "templates" / TEMPLATE
    made.mkdir(parents=True)
    (made / "conf.json").write_text(json.dumps({"base_template": "lab"}))
    for place in reversed(jupyter_path("voila", "templates")):
        for page in (*Path(place, "base").glob("page.html"), *Path(place, "lab").glob("index.html.j2")):
            (made / page.name).write_text(re.sub(r"<link[^>]*https?://[^>]*>", "", page.read_text()))
    return folder


def _write_notebook(folder: Path, settings: Settings, name: str, role: str) -> Path:
    import nbformat

    arguments: tuple[Any, ...] = (str(settings.root), settings.environment, settings.persona, name, role)
    source = f"from mlops_nb.widgets.label_page import card\n\ncard({', '.join(map(repr, arguments))})"
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    page.metadata["kernelspec"] = {"name": "python3", "display_name": "python3", "language": "python"}
    path = folder / f"{name}.ipynb"
    nbformat.write(page, path)
    return path
