"""An endpoint with two deployments, as `mlops-nb deploy` leaves it, without anything that runs."""

import json
import socket
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest

from mlops_nb.core.settings import Settings
from mlops_nb.scoring.config import Wish


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _lay(
    settings: Settings,
    keys: dict[str, str] | None = None,
    name: str = "diamonds",
    timeout_ms: int = 5000,  # of both deployments
    **changes: Any,
) -> dict[str, Any]:
    """Write an endpoint's state: blue with two instances and most of the traffic, green beside it."""
    deployments = {
        "blue": asdict(Wish("model:dev.diamonds/1", "/models/1", timeout_ms, max_concurrent=4, instances=2)),
        "green": asdict(Wish("model:dev.diamonds/2", "/models/2", timeout_ms, max_concurrent=1)),
    }
    wanted = {
        "name": name,
        "environment": settings.environment,
        "host": "127.0.0.1",
        "port": _free_port(),
        "revision": 7,
        "max_bytes": 20_000,
        "auth_mode": "key",
        "properties": {},
        "tls": None,
        "traffic": {"blue": 80, "green": 20},
        "mirror_traffic": {},
        "history": [],
        "deployments": deployments,
        "probe_key": "probe-key",
    } | changes
    folder = settings.endpoints / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "endpoint.json").write_text(json.dumps(wanted))
    (folder / "keys.json").touch(0o600)
    (folder / "keys.json").write_text(json.dumps(keys or {"primary": "p1", "secondary": "s2", "signing": "s3"}))
    return wanted


@pytest.fixture(scope="session")
def lay_endpoint() -> Callable[..., dict[str, Any]]:
    """Lay an endpoint: `lay_endpoint(settings, keys, traffic={"blue": 100})`; returns its endpoint.json."""
    return _lay
