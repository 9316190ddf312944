"""Who is let in: two keys, so that one can be replaced under load; tokens that end; and nothing of it in ledger or logs."""

import os
import shutil
import stat
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from mlops_nb.core import ledger
from mlops_nb.core.settings import Settings
from mlops_nb.outer_loop import client, credentials, online, state

ENDPOINT = "vault"


@pytest.fixture(scope="module")
def here(stones: Any) -> Iterator[Settings]:
    """The project with model 1 behind an endpoint."""
    online.deploy(stones.settings, ENDPOINT, stones.model(1))
    yield stones.settings
    online.remove(stones.settings, ENDPOINT)
    assert not (stones.settings.endpoints / ENDPOINT / "keys.json").exists()


def ask(settings: Settings, path: str, bearer: str = "") -> int:
    """Ask without our client; returns the status."""
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {bearer}"} if bearer else {})
    body = b'{"input_data": [[0.5, 60.0]]}' if path == "/score" else None
    address = client.base_address(state.read_wanted(settings, ENDPOINT)) + path
    try:
        with urllib.request.urlopen(urllib.request.Request(address, body, headers)) as answer:  # noqa: S310 our own endpoint
            return int(answer.status)
    except urllib.error.HTTPError as problem:
        return problem.code


def test_either_key_opens_and_nothing_else_does(here: Settings) -> None:
    keys = credentials.keys(here, ENDPOINT)
    assert [ask(here, "/score", keys[name]) for name in ("primary", "secondary")] == [200, 200]
    assert [ask(here, "/score", bearer) for bearer in ("", "wrong", keys["signing"], keys["primary"][:-1])] == [401] * 4
    assert [ask(here, path) for path in ("/health", "/ready", "/metrics")] == [200] * 3
    file = here.endpoints / ENDPOINT / "keys.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(set(keys.values())) == 3
    assert min(map(len, keys.values())) >= 40


def test_a_key_is_replaced_while_clients_use_the_other_one(here: Settings) -> None:
    before, answers, ended = credentials.keys(here, ENDPOINT), Counter[int](), threading.Event()

    def go_on() -> None:
        while not ended.is_set():
            answers[ask(here, "/score", before["secondary"])] += 1

    clients = threading.Thread(target=go_on)
    clients.start()
    new = credentials.regenerate(here, ENDPOINT, "primary")
    assert round(online.invoke(here, ENDPOINT, {"input_data": [[0.5, 60.0]]})[0]) == 2000  # our client has the new one at once
    end = time.monotonic() + 60
    while ask(here, "/score", before["primary"]) != 401:
        assert time.monotonic() < end, "the old key is still good"
    assert ask(here, "/score", new) == 200
    ended.set()
    clients.join()
    assert set(answers) == {200}
    after = credentials.keys(here, ENDPOINT)
    assert (after["primary"], after["secondary"], after["signing"]) == (new, before["secondary"], before["signing"])
    entry = ledger.entries(here)[-1]
    assert (entry.action, entry.subject, entry.details) == ("regenerate_keys", f"endpoint:dev.{ENDPOINT}", {"key": "primary"})


def test_who_may_not_deploy_may_not_replace_a_key(here: Settings) -> None:
    before = credentials.keys(here, ENDPOINT)
    with pytest.raises(PermissionError, match="data_analyst may not deploy"):
        credentials.regenerate(here.model_copy(update={"persona": "data_analyst"}), ENDPOINT, "secondary")
    with pytest.raises(ValueError, match="no signing key"):
        credentials.regenerate(here, ENDPOINT, "signing")  # type: ignore[arg-type]
    assert credentials.keys(here, ENDPOINT) == before


def test_with_aml_token_a_token_opens_until_it_ends_and_a_key_does_not(here: Settings, stones: Any) -> None:
    file = here.root / "environments" / "dev" / "endpoint.yml"
    given = file.read_text()
    with pytest.raises(ValueError, match="vault has auth_mode key: it takes no tokens"):
        credentials.token(here, ENDPOINT)
    file.write_text(given.replace("auth_mode: key", "auth_mode: aml_token"))
    try:
        online.deploy(here, ENDPOINT, stones.model(1))  # the same model: only who is let in changes
        token = credentials.token(here, ENDPOINT)
        assert [ask(here, "/score", bearer) for bearer in (token, token[:-2] + "xx", credentials.keys(here, ENDPOINT)["primary"],
                                                           credentials.token(here, ENDPOINT, seconds=-60))] == [200, 401, 401, 401]
        assert round(online.invoke(here, ENDPOINT, stones.half)[0]) == 2000
    finally:
        file.write_text(given)
        online.deploy(here, ENDPOINT, stones.model(1))
    assert ask(here, "/score", token) == 401


def test_an_endpoint_for_entras_tokens_must_say_whose(here: Settings, stones: Any) -> None:
    file = here.root / "environments" / "dev" / "endpoint.yml"
    given = file.read_text()
    file.write_text(given.replace("auth_mode: key", "auth_mode: aad_token"))
    try:
        with pytest.raises(ValueError, match=r"endpoint.yml: auth_mode: aad_token needs to know whose tokens: set mlops_nb.tenant"):
            online.deploy(here, ENDPOINT, stones.model(1))
    finally:
        file.write_text(given)


def test_the_commands_print_just_the_key_so_that_curl_can_be_given_it(here: Settings, command: Callable[..., Any]) -> None:
    keys = credentials.keys(here, ENDPOINT)
    for which in ("primary", "secondary"):
        assert command("endpoint", "get-credentials", ENDPOINT, "--key", which).stdout == f"{keys[which]}\n"
    assert keys["secondary"] in command("endpoint", "get-credentials", ENDPOINT).stdout
    told = command("endpoint", "regenerate-keys", ENDPOINT, "--key-type", "secondary")
    new = credentials.keys(here, ENDPOINT)
    assert (told.rc, new["primary"]) == (0, keys["primary"])
    assert new["secondary"] != keys["secondary"]
    assert new["secondary"] not in told.stdout + told.stderr
    assert command("endpoint", "get-credentials", ENDPOINT, "--key", "token").rc == 2
    if shutil.which("curl"):
        address = client.base_address(state.read_wanted(here, ENDPOINT))
        key = f"$(mlops-nb endpoint get-credentials {ENDPOINT} --key primary)"
        line = (f'curl -s {address}/invocations -H "Authorization: Bearer {key}" '
                """-H 'Content-Type: application/json' -d '{"inputs": {"carat": [0.5], "depth": [60.0]}}'""")
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        done = subprocess.run(["bash", "-c", line], cwd=here.root, env=os.environ | {"PATH": path}, capture_output=True, text=True)
        assert done.stdout.startswith('{"predictions":[2000'), done.stdout + done.stderr


def test_no_key_is_ever_written_down_elsewhere(here: Settings) -> None:
    """After all of the above: neither in the ledger nor in a log, a status or a command line."""
    keys = credentials.keys(here, ENDPOINT).values()
    files = [path for path in (here.endpoints / ENDPOINT).rglob("*") if path.is_file() and path.name != "keys.json"]
    texts = [str(ledger.entries(here)), *(path.read_text(errors="replace") for path in files)]
    for process in psutil.process_iter(["cmdline"]):
        texts.append(" ".join(process.info["cmdline"] or []))
    assert len(texts) > 10
    assert not [text[:100] for text in texts for key in keys if key in text]
