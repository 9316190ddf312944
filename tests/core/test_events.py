"""A notice reaches the ledger always and people when they can be reached."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from mlops_nb.core.events import notify
from mlops_nb.core.ledger import entries
from mlops_nb.core.settings import Settings

PATIENT = "?cto=60&rto=60"  # seconds to connect, and to read the answer


@pytest.fixture
def hook() -> Iterator[Any]:
    """A real web hook on this machine that keeps what it receives; a path /broken answers 500."""

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            broken = self.path.startswith("/broken")
            server.received += [] if broken else [body]
            self.send_response(500 if broken else 200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    server.received = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def to(settings: Settings, *addresses: str) -> Settings:
    return settings.model_copy(update={"notify": list(addresses)})


def test_a_notice_arrives_and_is_in_the_ledger(project: Settings, hook: Any) -> None:
    listener = to(project, f"json://127.0.0.1:{hook.server_port}/{PATIENT}")
    notify(listener, "diamonds drifts", "carat", about="deployment:dev.diamonds/blue")
    assert [(m["title"], m["message"]) for m in hook.received] == [("diamonds drifts", "carat")]
    (entry,) = entries(project, "deployment:dev.diamonds/blue", "notify")
    assert entry.details["delivered"] == ["1:json"]


def test_nobody_to_tell_is_no_fault(project: Settings) -> None:
    assert notify(project, "hello").details == {"title": "hello", "body": "", "delivered": [], "failed": {}}


def test_one_dead_address_does_not_keep_the_others_from_knowing(project: Settings, hook: Any) -> None:
    port = hook.server_port
    listeners = to(project, "no address", f"json://127.0.0.1:{port}/broken{PATIENT}", f"json://127.0.0.1:{port}/{PATIENT}")
    with pytest.warns(UserWarning, match="did not reach"):
        entry = notify(listeners, "hello")
    assert entry.details["delivered"] == ["3:json"]
    assert set(entry.details["failed"]) == {"1:unknown", "2:json"}
    assert len(hook.received) == 1


def test_the_ledger_never_learns_an_address_secret(project: Settings) -> None:
    with pytest.warns(UserWarning, match="did not reach") as warned:
        notify(to(project, "json://ana:hush-hush@127.0.0.1:9/?cto=0.2&rto=0.2"), "hello")
    assert b"hush-hush" not in project.ledger.read_bytes()
    assert "hush-hush" not in str(warned[0].message)
