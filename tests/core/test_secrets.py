"""Secrets: a reference goes in, and no byte of the value comes out."""

import base64
import html
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

from mlops_nb.core.ledger import entries, verify
from mlops_nb.core.notebook import run_notebook
from mlops_nb.core.records import SpecificationError, StepFailed
from mlops_nb.core.secrets import MASK, check_reference, hide, redact, redact_all, reveal

PASSWORD = "q<\"w'&z/+ \\x9ü-Pa55"  # noqa: S105 made up, with every character that somebody quotes
TOKEN = "ey" + "JhbGciOiJSUzI1NiIsImtpZCI6" * 3  # longer than pandas shows
KEY = "-----BEGIN KEY-----\nMIIEowIBAAKCAQEA7bq\nZ2F0ZXdheS1rZXk9MTIz\n-----END KEY-----"


def traces(value: str) -> set[bytes]:
    """The forms in which a value would give itself away."""
    quoted = {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], html.escape(value), repr(value)[1:-1]}
    twice = {json.dumps(text)[1:-1] for text in quoted} | {html.escape(text) for text in quoted}
    coded = {quote(value), quote(value, safe=""), quote_plus(value), base64.b64encode(value.encode()).decode(), value.encode().hex()}
    return {text.encode() for text in {value, value[: len(value) * 3 // 4]} | quoted | twice | coded}


@pytest.mark.parametrize(
    "reference",
    ["env:DB_PASSWORD", "file:~/.secrets/db", "file:C:\\db.txt", "keyvault:shop-vault/db", f"keyvault:shop-vault/db/{'0a' * 16}"],
)
def test_a_reference_names_a_place(reference: str) -> None:
    check_reference(reference)


@pytest.mark.parametrize(
    "text", ["", "hunter2", "env:", "env:my password", "file:", "keyvault:vault", "keyvault:v/n", "vault:a/b", "https://a/b"]
)
def test_what_is_no_reference_is_never_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="by reference: env:NAME, file:PATH or keyvault:VAULT/NAME") as problem:
        check_reference(text)
    assert not text.rpartition(":")[2] or text not in str(problem.value)


def test_a_value_is_read_from_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_PASSWORD", "from the environment")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "db").write_text("from the file \n")
    secret = reveal("env:SHOP_PASSWORD")
    assert secret.get_secret_value() == "from the environment"
    assert f"{secret}" == str(secret) == MASK
    assert "environment" not in repr(secret)
    assert reveal("file:~/db").get_secret_value() == "from the file "
    assert reveal(secret) == secret  # so a cell may reveal what a run has revealed already


def test_what_cannot_be_read_or_hidden_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHOP_PASSWORD", raising=False)
    with pytest.raises(LookupError, match=r"No environment variable SHOP_PASSWORD\. Set it where the run is started"):
        reveal("env:SHOP_PASSWORD")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        reveal(f"file:{tmp_path}/nowhere")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00secret")
    with pytest.raises(ValueError, match="no text in UTF-8"):
        reveal(f"file:{tmp_path}/binary")
    monkeypatch.setenv("SHOP_PASSWORD", "abc")
    with pytest.raises(ValueError, match=r"env:SHOP_PASSWORD has fewer than 4 characters: too short") as problem:
        reveal("env:SHOP_PASSWORD")
    assert "abc" not in str(problem.value)


@pytest.mark.parametrize("value", [PASSWORD, TOKEN, KEY, "48151623", "pässwörd mit ünicode"])
def test_every_written_form_of_a_value_is_hidden(value: str) -> None:
    hide(value)
    basic = base64.b64encode(f"user:{value}".encode()).decode()
    shown = [f"a {value} b", json.dumps({"k": [value]}), json.dumps(json.dumps(value)), html.escape(json.dumps(value)),
             repr({"k": value}), f"https://{quote_plus(value)}@host", quote(value), f"Basic {basic}", value.encode().hex(),
             json.dumps(value).replace("/", "\\/"), "\x1b[31m".join([value[:5], value[5:]]),
             f"<i>{html.escape(value[:4])}<b>{html.escape(value[4:])}</b></i>", f"\x1b[31m{value[:3]}\x1b[0m{value[3:]}",
             f"| {value[: len(value) * 3 // 4]}... |"]  # fmt: skip
    for text in shown:
        hidden = redact(text).encode()
        assert MASK.encode() in hidden, text
        assert not [form for form in traces(value) if form in hidden], text
    assert basic[8:-8] not in redact(basic)


def test_structures_are_hidden_with_their_keys() -> None:
    hide(PASSWORD)
    assert redact_all({PASSWORD: [("a", PASSWORD), 1, None, 2.5]}) == {MASK: [("a", MASK), 1, None, 2.5]}
    buffer = b"\x00" + PASSWORD.encode() + b"\x01"
    assert len(redact_all(buffer)) == len(buffer)
    assert PASSWORD.encode() not in redact_all(buffer)
    assert redact("nothing to hide") == "nothing to hide"


LEAKS = [
    "print(value, f'{password} {password!r}', str(password))",
    "print(value, file=sys.stderr)",
    "value",
    "display({'value': value}, HTML(f'<b>{html.escape(value)}</b>'), Markdown(value))",
    "display(pd.DataFrame({'secret': [value, value], value: [1, 2]}))",
    "display({'application/json': {value: [value]}, 'text/plain': value}, raw=True)",
    "subprocess.run(['echo', value]); subprocess.run('echo $SHOP_LOGIN >&2; env | grep SHOP_LOGIN', shell=True)",
    "!echo $SHOP_LOGIN",
    "os.write(1, value.encode()); os.system('echo $SHOP_LOGIN')",
    "logging.getLogger('shop').warning('password %s', value); warnings.warn(value)",
    "for character in value:\n    print(character, end='', flush=True)",
    "for character in value:\n    print(character, end=''); sys.stdout.flush(); print('.', file=sys.stderr, flush=True)",
    "print(urllib.parse.quote(value), base64.b64encode(('user:' + value).encode()), json.dumps([value]), value.encode().hex())",
    "widgets.Text(value=value)",
    "child = os.fork()\nif not child:\n    print('child', value, flush=True)\n    os._exit(0)\nos.waitpid(child, 0)",
    "threading.Thread(target=lambda: 1 / len(value[:0])).start(); threading.Thread(target=print, args=[value]).start()",
    "os.environ",
    "with mlflow.start_run(run_name=value, tags={'tag': value}, description=value):\n"
    "    mlflow.log_param('value', value); mlflow.log_params({'nested': {'value': value}, 'secret': password})\n"
    "    mlflow.set_tag('value', value); mlflow.log_metric('m', 1.0)\n"
    "    mlflow.log_text(f'it is {value}', 'value.txt'); mlflow.log_dict({'value': [value]}, 'value.json')\n"
    "    mlflow.log_table(pd.DataFrame({'value': [value]}), 'table.json')",
    "@mlflow.trace\ndef connect(password):\n    raise ValueError(password)\n\ntry:\n    connect(value)\nexcept ValueError:\n    pass",
    "log(load_settings(), 'connect', f'shop:{value}', inputs=[value], value=value, nested={'value': [value]})",
    "import base64 as b; raise RuntimeError(f'cannot connect with {value}')",
]
IMPORTS = """import base64, html, json, logging, os, subprocess, sys, threading, urllib.parse, warnings
import ipywidgets as widgets
import pandas as pd
import mlflow
from IPython.display import HTML, Markdown
from mlops_nb.core.ledger import log
from mlops_nb.core.settings import load_settings
from mlops_nb.core.tracking import use_experiment
use_experiment(load_settings(), 'shop')
value = password.get_secret_value()"""
PARAMETERS = 'from mlops_nb.core.parameters import Secret\n\npassword: Secret = "env:SHOP_LOGIN"\nrows: int = 1'


def cell(source: str, *tags: str) -> dict[str, Any]:
    return {"cell_type": "code", "id": f"c{abs(hash(source)) % 10**8}", "metadata": {"tags": list(tags)}, "source": source,
            "outputs": [], "execution_count": None}  # fmt: skip


def write_notebook(path: Path, cells: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("value", [PASSWORD, TOKEN], ids=["quotable", "long"])
def test_no_byte_of_what_a_run_leaves_behind_gives_a_secret_away(
    project: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("SHOP_LOGIN", value)
    leaks = [cell(source, *(["raises-exception"] if source is not LEAKS[-1] else [])) for source in LEAKS]
    notebook = write_notebook(tmp_path / "leaky.ipynb", [cell(PARAMETERS, "parameters"), cell(IMPORTS), *leaks])
    outputs = tmp_path / "outputs"
    with monkeypatch.context() as outside:
        outside.delenv("PYTEST_CURRENT_TEST")  # with it, ipykernel captures less
        with pytest.raises(StepFailed) as problem:
            run_notebook(project, notebook, outputs / "leaky.ipynb", {"rows": "2"}, cwd=tmp_path, log=outputs / "leaky.log")
    assert f"cannot connect with {MASK}" in str(problem.value)
    produced = [path for path in tmp_path.rglob("*") if path.is_file() and path != notebook]
    found = [(path.name, form) for path in produced for form in traces(value) if form in path.read_bytes()]
    assert not found
    names = {path.name for path in produced}
    assert names >= {"leaky.ipynb", "leaky.html", "leaky.log", "mlflow.db", "ledger.db", "value.txt", "table.json"}
    executed = json.loads((outputs / "leaky.ipynb").read_text())
    silent = ["".join(cell["source"]) for cell in executed["cells"][3:] if MASK not in json.dumps(cell["outputs"])]
    assert not [source for source in silent if not source.startswith(("with mlflow", "@mlflow", "log(", "widgets"))]
    assert [entry.subject for entry in entries(project, action="connect")] == [f"shop:{MASK}"]
    assert verify(project) == []


def test_a_person_reveals_a_secret_in_the_lab_with_the_same_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody injects anything there; and ipykernel copies what subprocesses write to the terminal it was started in."""
    from jupyter_client.manager import KernelManager

    monkeypatch.setenv("SHOP_LOGIN", PASSWORD)
    variables = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}  # as above
    place = f"{tempfile.gettempdir()}/{os.urandom(4).hex()}"  # a port might be taken by another process
    manager = KernelManager(kernel_name="python3", transport="ipc", ip=place)
    with (tmp_path / "terminal").open("wb") as terminal:
        manager.start_kernel(stdout=terminal, stderr=terminal, cwd=str(tmp_path), env=variables)
    client = manager.blocking_client()
    client.start_channels()
    messages: list[Any] = []
    try:
        client.wait_for_ready(timeout=60)
        for source in (PARAMETERS, "from mlops_nb.core.secrets import reveal\npassword = reveal(reveal(password))\npassword",
                       "import os, time; os.system('echo seen $SHOP_LOGIN')\n"
                       "while 'seen' not in open('terminal').read(): time.sleep(0.05)",
                       "print(password.get_secret_value()); print('q', end='')",
                       "import mlflow; print(mlflow.tracking.MlflowClient._log_artifact_helper.redacted)"):  # fmt: skip
            reply = client.execute_interactive(source, timeout=60, output_hook=messages.append)
            assert reply["content"]["status"] == "ok"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    texts = "".join(message["content"].get("text", "") for message in messages if message["msg_type"] == "stream")
    assert texts == f"seen {MASK}\n{MASK}\nqTrue\n"
    assert PASSWORD not in json.dumps(messages, default=str)
    assert (tmp_path / "terminal").read_text().count(f"seen {MASK}") == 1
    assert PASSWORD not in (tmp_path / "terminal").read_text()


def test_a_secret_given_as_itself_is_refused_before_anything_is_written(project: Any, tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "shop.ipynb", [cell(PARAMETERS, "parameters"), cell("password")])
    with pytest.raises(SpecificationError, match="by reference") as problem:
        run_notebook(project, notebook, tmp_path / "out.ipynb", {"password": TOKEN})
    assert TOKEN not in str(problem.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]


class _Azure(BaseHTTPRequestHandler):
    """A managed identity's endpoint, and a key vault that lets its tokens in."""

    def do_GET(self) -> None:
        if self.path.startswith("/identity"):
            resource = "vault.azure.net" in self.path and self.headers["X-IDENTITY-HEADER"] == "local"
            self.answer(200, {"access_token": "a-token" if resource else "none", "expires_on": "4000000000", "token_type": "Bearer"})
        elif self.headers["Authorization"] != "Bearer a-token":
            self.answer(401, {"error": {"code": "Unauthorized", "message": "No token."}})
        elif self.path.split("?")[0] in ("/secrets/db", f"/secrets/db/{'0a' * 16}"):
            self.answer(200, {"value": f"value of {self.path}", "id": "https://shop.vault.azure.net/secrets/db"})
        else:
            self.answer(404, {"error": {"code": "SecretNotFound", "message": "A secret with this name was not found."}})

    def answer(self, status: int, content: Any) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Stay silent."""


@pytest.fixture
def azure(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Azure)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    for name in [name for name in os.environ if name.startswith(("AZURE_", "IDENTITY_", "MSI_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{address}/identity")
    monkeypatch.setenv("IDENTITY_HEADER", "local")
    monkeypatch.setenv("AZURE_KEYVAULT_DNS_SUFFIX", address)
    yield address
    server.shutdown()
    server.server_close()


def test_a_key_vault_is_asked_with_the_identity_of_the_machine(azure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reveal("keyvault:shop-vault/db").get_secret_value() == "value of /secrets/db?api-version=7.4"
    version = "0a" * 16
    assert reveal(f"keyvault:shop-vault/db/{version}").get_secret_value() == f"value of /secrets/db/{version}?api-version=7.4"
    with pytest.raises(LookupError, match=r"Cannot read nothing of the key vault shop-vault: A secret with this name was not found"):
        reveal("keyvault:shop-vault/nothing")
    monkeypatch.setenv("AZURE_KEYVAULT_DNS_SUFFIX", "http://example.com")
    with pytest.raises(ValueError, match="AZURE_KEYVAULT_DNS_SUFFIX"):  # a token is never sent in the clear
        reveal("keyvault:shop-vault/db")


def test_reading_references_imports_nothing_heavy() -> None:
    code = (
        "import sys; from mlops_nb.core.secrets import hide, redact; print(redact(hide('a value').get_secret_value()))\n"
        "print(sorted({'mlflow', 'azure', 'IPython'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [MASK, "[]"]
