"""The front: exact shares, even instances, limits, and nothing that a client sends reaches a process unless it should."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mlops_nb.serving.pool import Connection, Pool
from mlops_nb.serving.route import Deployment, Target

PART = b"POST /score HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer first-key\r\n"


@pytest.fixture(scope="module")
def shop(lay_once: Any) -> Any:
    """Blue with two instances, green, and some with limits; blue and green share the traffic."""
    deployments = {"blue": {"instances": 2}, "green": {}, "slow": {"timeout_ms": 1500}, "narrow": {"max_concurrent": 1},
                   "hasty": {"max_concurrent": 1, "max_queue_wait_ms": 200}, "broken": {"variables": {"FAILS": "1"}}}
    endpoint = lay_once(deployments, traffic={"blue": 75, "green": 25})
    return endpoint.start().until_ready("blue", "green", "slow", "narrow", "hasty")


@pytest.fixture(scope="module", autouse=True)
def dawdlers(shop: Any) -> Iterator[dict[str, Any]]:
    """Clients that never get to the end of a request; they begin with the first test, as each is borne for ten seconds."""
    sent = {"head": PART, "body": PART + b"Content-Length: 10\r\n\r\nhalf", "nothing": b""}
    with ThreadPoolExecutor(len(sent)) as pool:
        yield {name: pool.submit(shop.raw, content) for name, content in sent.items()}


def test_a_request_reaches_the_model_and_its_answer_the_client(shop: Any) -> None:
    answer = shop.ask({"input_data": [[1]]}, "/invocations?version=2", x_request_id="order-7", x_customer="ada",
                      azureml_model_deployment="green")
    head = [line.lower() for line in answer.json["head"]]
    assert answer.status == 200
    assert answer.headers["x-request-id"] == "order-7"
    assert answer.headers["azureml-model-deployment"] == "green"
    assert "server" not in answer.headers
    assert head[0] == "post /invocations?version=2 http/1.1"
    assert {"x-request-id: order-7", "x-customer: ada", "content-type: application/json"} <= set(head)
    assert not [line for line in head if line.startswith(("authorization", "connection"))]
    assert shop.ask(b"", "/openapi.json", "GET", azureml_model_deployment="green").json["head"][0] == "GET /openapi.json HTTP/1.1"
    assert shop.ask({}, method="PUT", azureml_model_deployment="green").json["head"][0] == "PUT /score HTTP/1.1"  # a script may take it


def test_shares_are_exact_and_instances_even(shop: Any) -> None:
    shop.save(traffic={"green": 30, "blue": 70})
    connection = shop.connect()
    answers = [shop.ask(b"[]", connection=connection).json for _ in range(100)]
    assert Counter(answer["deployment"] for answer in answers) == {"blue": 70, "green": 30}
    first, second = Counter(a["instance"] for a in answers if a["deployment"] == "blue").values()
    assert abs(first - second) <= 1
    with shop.holding("blue", 12) as held:
        assert [one["pending"] for one in shop.until_pending("blue", 12)["instances"]] == [6, 6]
    assert list(Counter(one.result().json["instance"] for one in held).values()) == [6, 6]


def test_what_is_pending_is_limited_and_waits_in_turn(shop: Any) -> None:
    with shop.holding("narrow", 2) as held:  # one is worked on, one waits
        assert [one["pending"] for one in shop.until_pending("narrow", 2)["instances"]] == [1]
        for _ in range(4):
            refused = shop.ask(b"[]", azureml_model_deployment="narrow")
            assert (refused.status, refused.json["error"]["code"]) == (429, "TooManyRequests")
    assert [one.result().status for one in held] == [200, 200]
    with shop.holding("hasty") as held:
        late = shop.ask(b"[]", azureml_model_deployment="hasty")
        assert (late.status, late.json["error"]["code"]) == (429, "QueueWait")
    assert held[0].result().status == 200
    assert shop.ask(b"[]", azureml_model_deployment="narrow").json["most"] == 1  # never two at once on an instance


def test_a_late_answer_is_thrown_away_and_nobody_gets_it(shop: Any) -> None:
    connection = shop.connect()
    gate = shop.folder / "gate-late"
    began = time.monotonic()
    late = shop.ask({"hold": str(gate)}, connection=connection, azureml_model_deployment="slow", x_request_id="late")
    assert late.status == 408
    assert time.monotonic() - began >= 1.5
    assert "1500 ms" in late.json["error"]["message"]
    gate.touch()
    statuses = set()
    for number in range(20):  # on a slow machine some of these are late, too
        answer = shop.ask(b"[]", connection=connection, azureml_model_deployment="slow", x_request_id=f"next-{number}")
        assert answer.headers["x-request-id"] == f"next-{number}"
        statuses.add(answer.status)
    assert 200 in statuses
    assert statuses <= {200, 408}


def test_whoever_finds_room_is_not_refused_because_the_front_stood_still() -> None:
    async def run() -> None:
        blue, one = Deployment("blue"), Target("blue-0", "unused", 1)
        blue.targets, one.ready, blue.queue_wait, waits = [one], True, 0.0, []
        one.broken_at = time.monotonic()
        waiting = asyncio.create_task(blue.acquire(time.monotonic(), time.monotonic() + 60, None, waits))
        await asyncio.sleep(0)
        one.broken_at -= 100  # so long it stood still
        assert await waiting is one
        assert len(waits) == 1
        blue.release(one)
        assert await blue.acquire(time.monotonic(), time.monotonic() + 60, None, waits) is one
        assert len(waits) == 1  # there was room at once, however long that took

    asyncio.run(run())


def test_an_answer_that_is_found_after_its_time_is_late() -> None:
    class Transport:
        def write(self, request: bytes) -> None:
            time.sleep(0.02)
            self.connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async def run() -> None:
        transport: Any = Transport()
        transport.connection = connection = Connection(Pool("unused"))
        connection.transport = transport
        with pytest.raises(TimeoutError):
            await connection.ask(b"", time.monotonic() + 0.01)
        assert (await connection.ask(b"", time.monotonic() + 60)).status == 200

    asyncio.run(run())


def test_what_cannot_be_answered_is_told_why(shop: Any) -> None:
    unknown = shop.ask(b"[]", azureml_model_deployment="purple")
    assert (unknown.status, unknown.json["error"]["code"]) == (404, "NoDeployment")
    assert "blue, green, slow" in unknown.json["error"]["message"]
    broken = shop.ask(b"[]", azureml_model_deployment="broken")
    assert (broken.status, broken.json["error"]["code"]) == (503, "NotReady")
    assert shop.ask(b"x" * 100_001).status == 413
    assert shop.ask(b"x" * 100_000).json["size"] == 100_000
    chunked = PART + b"Transfer-Encoding: chunked\r\n\r\n" + b"10000\r\n%b\r\n" % (b"x" * 0x10000) * 2 + b"0\r\n\r\n"
    assert shop.raw(chunked, b"\r\n\r\n").startswith(b"HTTP/1.1 413")
    before = shop.wanted["traffic"]
    shop.save(traffic={})
    assert shop.ask(b"[]").json["error"]["code"] == "NoTraffic"
    assert shop.ask(b"", "/ready", "GET", key="").status == 503
    shop.save(traffic=before)
    failed = shop.ask({"status": 424, "headers": {"ms-azureml-model-error-statuscode": 500}})
    assert (failed.status, failed.headers["ms-azureml-model-error-statuscode"]) == (424, "500")


def test_pages_that_are_open_and_pages_that_are_not(shop: Any) -> None:
    for path in ("/", "/health", "/ready", "/metrics"):
        assert shop.ask(b"", path, "GET", key="").status == 200
    for path in ("/version", "/openapi.json", "/swagger.json"):
        assert shop.ask(b"", path, "GET", key="").status == 401
    assert shop.ask(b"", "/version", "GET").json["deployments"]["blue"]["instances"] == 2
    for path in ("/../keys.json", "/score/../keys.json", "/%2e%2e/keys.json", "/logs/front.log", "//score", "/score%00"):
        assert shop.ask(b"", path, "GET").status == 404, path
    assert shop.ask(b"", "/health").status == 405


@pytest.mark.parametrize("lines", [
    b"Content-Length: 5\r\nContent-Length: 6\r\n",
    b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: chunked, identity\r\n",
    b"Content-Length: -5\r\n",
    b"Content-Length : 5\r\n",
    b"x-request-id: a\nx-evil: b\r\n",
    b"x-no\0body: 1\r\n",
    b"no colon\r\n",
])  # fmt: skip
def test_requests_that_two_parsers_could_read_in_two_ways_are_refused(shop: Any, lines: bytes) -> None:
    answer = shop.raw(PART + lines + b"\r\n" + b"0\r\n\r\nGET /version HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400"), answer
    assert answer.count(b"HTTP/1.1") == 1  # and what follows is no request


def test_no_header_is_smuggled_in(shop: Any) -> None:
    answer = shop.ask(b"[]", x_request_id="a b\tc", x_mlops_nb_probe="guessed", x_mlops_nb_admin="1", connection_="x", x_hop="1",
                      Connection="keep-alive, X-Hop")
    head = "\n".join(answer.json["head"]).lower()
    assert "x-mlops-nb" not in head
    assert "x-hop" not in head
    assert len(answer.headers["x-request-id"]) == 36  # one of ours, for one that no log should hold
    assert "x-mlops-nb-probe: 1" in "\n".join(shop.ask(b"[]", x_mlops_nb_probe="probing").json["head"])


def test_metrics_and_the_log_tell_what_was_answered(shop: Any) -> None:
    shop.ask(b"[]", user_agent="a" * 100, x_ms_client_request_id="client-1", x_request_id='quote"', azureml_model_deployment="green")
    shop.ask(b"[]", key="wrong", x_request_id="refused")
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(shop.ask(b"", "/metrics", "GET", key="").body.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[",".join(sample.labels.values())] = sample.value
    assert found["mlops_nb_requests_total"]["green,200"] >= 1
    assert found["mlops_nb_requests_total"][",401"] >= 1
    assert found["RequestsPerMinute"]["green,200,2xx,"] > 0
    assert {"RequestLatency", "RequestLatency_P50", "RequestLatency_P90", "RequestLatency_P95", "RequestLatency_P99",
            "ConnectionsActive", "NewConnectionsPerSecond", "NetworkBytes", "CpuUtilizationPercentage",
            "CpuMemoryUtilizationPercentage", "DiskUtilization", "DeploymentCapacity"} <= set(found)  # fmt: skip
    line = shop.logged('quote"')
    expected = {"Method": "POST", "Path": "/score", "EndpointName": "shop", "DeploymentName": "green", "ResponseCode": 200,
                "AzureMLWorkspaceName": "dev", "RequestPayloadSize": 2, "XMSClientRequestId": "client-1", "UserAgent": "a" * 70}
    assert {name: line[name] for name in expected} == expected
    assert 0 < line["RequestDurationMs"] + line["ResponseDurationMs"] < line["TotalDurationMs"]
    assert shop.logged("refused")["ResponseCode"] == 401
    assert shop.logged("late")["ResponseCode"] == 408


def test_nobody_holds_the_door(shop: Any, dawdlers: dict[str, Any]) -> None:
    assert shop.raw(PART + b"x-large: " + b"x" * 70_000).startswith(b"HTTP/1.1 431")
    assert shop.ask(b"[]").status == 200  # while they dawdle
    for name, dawdler in dawdlers.items():
        assert dawdler.result().startswith(b"HTTP/1.1 408"), name
