"""MLflow's webhooks: signed ones reach the ledger once, all others nothing."""

import json
import time
import urllib.error
import urllib.request
import uuid

import pytest

from mlops_nb.core.ledger import entries, log
from mlops_nb.webhook import serve_webhook

SECRET = "between the two of us"  # noqa: S105


def post(url: str, body: bytes, headers: dict[str, str]) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60) as answer:  # noqa: S310
            return answer.status
    except urllib.error.HTTPError as problem:
        return problem.code


def signed(body: bytes, at: float | None = None, secret: str = SECRET) -> dict[str, str]:
    """Sign as MLflow does, with its own function."""
    from mlflow.webhooks.delivery import _generate_hmac_signature

    delivery, stamp = str(uuid.uuid4()), str(int(time.time() if at is None else at))
    signature = _generate_hmac_signature(secret, delivery, stamp, body.decode())
    return {"X-MLflow-Signature": signature, "X-MLflow-Delivery-Id": delivery, "X-MLflow-Timestamp": stamp}


def created(version: int) -> bytes:
    data = {"name": "team.shop", "version": str(version), "source": "models:/1", "run_id": "4f1a", "tags": {}, "description": None}
    return json.dumps({"entity": "model_version", "action": "created", "timestamp": "2027-01-01T00:00:00", "data": data}).encode()


@pytest.fixture
def url(project):
    with serve_webhook(project, "127.0.0.1:0", SECRET) as address:
        yield address


def test_a_webhook_that_mlflow_sends_is_entered_in_the_ledger(project, url, monkeypatch):
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "http,https")
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true")
    from mlflow.entities.webhook import Webhook, WebhookEvent
    from mlflow.webhooks.delivery import test_webhook as send

    events = [WebhookEvent.from_str("model_version.created"), WebhookEvent.from_str("model_version_alias.created")]
    hook = Webhook("1", "ours", url, events, creation_timestamp=0, last_updated_timestamp=0, secret=SECRET)
    assert [send(hook, event).response_status for event in events] == [200, 200]
    registered, alias = entries(project)
    assert (registered.action, registered.subject) == ("register", "model:example_model/1")
    assert registered.inputs == ["run:abcd1234abcd5678"]
    assert registered.details["delivery"]
    assert (alias.action, alias.subject, alias.details["alias"]) == ("alias", "model:example_model/1", "example_alias")


def test_what_is_not_signed_is_stale_or_came_before_is_refused(project, url):
    body = created(1)
    right = signed(body)
    assert post(url, body, {}) == 401
    assert post(url, body, right | {"X-MLflow-Signature": "v1,bm8="}) == 401
    assert post(url, created(2), right) == 401
    assert post(url, body, signed(body, secret="another")) == 401  # noqa: S106
    assert post(url, body, right | {"X-MLflow-Timestamp": str(int(time.time()) + 1)}) == 401
    assert post(url, body, signed(body, at=time.time() - 600)) == 401
    assert post(url, body, signed(body, at=time.time() + 600)) == 401
    assert post(url, b"x" * 2_000_000, signed(b"x")) == 413
    assert post(url, b"[]", signed(b"[]")) == 400
    assert entries(project) == []

    assert post(url, body, right) == 200
    assert post(url, body, right) == 409
    assert len(entries(project)) == 1


def test_a_version_that_the_ledger_knows_is_not_entered_again(project, url):
    log(project, "register", "model:team.shop/1")
    body = created(1)
    assert post(url, body, signed(body)) == 200
    other = json.dumps({"entity": "prompt", "action": "created", "data": {"name": "greeting"}}).encode()
    assert post(url, other, signed(other)) == 200
    assert len(entries(project)) == 1


def test_a_webhook_without_a_secret_is_not_served(shop, mlops_nb_command):
    without = mlops_nb_command("schedule", "start", "diamonds_dev", "--webhook", "127.0.0.1:0")
    assert without.rc == 2
    assert "MLFLOW_WEBHOOK_SECRET" in without.stderr
