"""What an endpoint writes down of itself: what its processes use, how requests and answers were held up, and a summary a minute."""

import contextlib
import json
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from mlops_nb.serving import traffic_log, usage
from mlops_nb.serving.lines import Lines
from mlops_nb.serving.traffic_log import Summary, TrafficLog, about
from mlops_nb.serving.usage import Usage, Who


@pytest.fixture(scope="module")
def shop(lay_once: Any) -> Any:
    """An endpoint that is measured often; the instances of blue and hasty do one thing at a time, and nobody waits long for hasty."""
    hasty = {"max_concurrent": 1, "max_queue_wait_ms": 300}
    endpoint = lay_once({"blue": {"max_concurrent": 1}, "busy": {}, "hasty": hasty}, usage_seconds=0.2, max_bytes=20_000_000)
    return endpoint.start().until_ready()


def test_every_process_is_measured(shop: Any) -> None:
    for _ in range(5):
        shop.ask(b"[]", azureml_model_deployment="busy")
    found = shop.written("logs/usage", lambda lines: sum(line["requests"] for line in lines if line["instance"] == "busy-0") >= 5)
    by = {name: [line for line in found if line["instance"] == name] for name in ("blue-0", "busy-0", "front", "host")}
    assert all(by.values())
    worker = psutil.Process(shop.status()["deployments"]["blue"]["pid"])
    last = shop.written("logs/usage", lambda lines: any(line["pid"] == worker.pid for line in lines[-5:]))
    last = [line for line in last if line["pid"] == worker.pid]
    assert last[-1]["memory_bytes"] == pytest.approx(worker.memory_info().rss, rel=0.05)
    assert (last[-1]["deployment"], last[-1]["endpoint"], last[-1]["environment"]) == ("blue", "shop", "dev")
    assert last[-1]["cores"] == psutil.cpu_count()
    assert 0 < last[-1]["disk_used"] < last[-1]["disk_total"]
    times = worker.cpu_times()
    assert sum(line["cpu_seconds"] for line in last) == pytest.approx(times.user + times.system, abs=0.1)
    span = datetime.fromisoformat(last[-1]["time"]) - datetime.fromisoformat(last[0]["time"])
    rounded = 0.002 * len(last)
    assert sum(line["hours"] for line in last[1:]) * 3600 == pytest.approx(span.total_seconds(), abs=0.05 + rounded)


def test_measuring_goes_on_when_the_front_is_another(shop: Any) -> None:
    before = shop.status()["front"]["pid"]
    os.kill(before, signal.SIGKILL)
    shop.written("logs/usage", lambda lines: any(line["instance"] == "front" and line["pid"] != before for line in lines[-7:]))
    assert shop.ask(b"[]").status == 200


def test_a_request_that_waits_for_room_is_throttled_and_no_other(shop: Any) -> None:
    with ThreadPoolExecutor(1) as pool:
        with shop.holding("blue", x_request_id="first"):
            second = pool.submit(shop.ask, b"[]", x_request_id="second")
            shop.until_pending("blue", 2)
            time.sleep(0.2)  # it waits at least that long
        assert second.result().status == 200
    assert shop.logged("first")["RequestThrottlingDelayMs"] == 0
    line = shop.logged("second")
    assert 200 <= line["RequestThrottlingDelayMs"] < line["TotalDurationMs"]
    assert shop.logged("first")["TotalDurationMs"] > 200
    assert (line["ResponseThrottlingDelayMs"], line["QueueDelayMs"], line["ErrorCode"]) == (0, None, "")


def test_a_request_that_is_turned_away_tells_why_and_how_long_it_waited(shop: Any) -> None:
    with shop.holding("blue", 2):
        assert shop.ask(b"[]", x_request_id="no-room").status == 429
    line = shop.logged("no-room")
    assert (line["ErrorCode"], line["RequestThrottlingDelayMs"]) == ("TooManyRequests", 0)
    with shop.holding("hasty"):
        assert shop.ask(b"[]", x_request_id="turned-away", azureml_model_deployment="hasty").status == 429
    line = shop.logged("turned-away")
    assert (line["ErrorCode"], line["ResponseCodeReason"]) == ("QueueWait", "Too Many Requests")
    assert 300 <= line["RequestThrottlingDelayMs"] < line["TotalDurationMs"]


def test_an_answer_waits_for_a_slow_client(shop: Any) -> None:
    body = json.dumps({"headers": {"x-long": "a" * 8_000_000}}).encode()
    head = (f"POST /score HTTP/1.1\r\nhost: x\r\nauthorization: Bearer first-key\r\nx-request-id: slow\r\n"
            f"azureml-model-deployment: busy\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n")
    with socket.socket() as client:
        client.settimeout(60)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", shop.wanted["port"]))
        client.sendall(head.encode() + body)
        size = len(client.recv(1000))  # the answer is there,
        time.sleep(0.4)  # and nobody takes the rest of it
        while part := client.recv(1 << 20):
            size += len(part)
    assert size > 8_000_000
    line = shop.logged("slow")
    assert line["ResponseThrottlingDelayMs"] > 250
    assert line["ResponseDurationMs"] >= line["ResponseThrottlingDelayMs"]
    assert shop.ask(b"[]", azureml_model_deployment="busy").status == 200


def test_an_instance_tells_the_log_how_long_a_request_waited_and_not_the_client(shop: Any) -> None:
    answer = shop.ask({"headers": {"x-mlops-nb-queue-ms": "12.5"}}, x_request_id="queued")
    assert "x-mlops-nb-queue-ms" not in answer.headers
    assert shop.logged("queued")["QueueDelayMs"] == 12.5
    shop.ask({"headers": {"x-mlops-nb-queue-ms": "nan"}}, x_request_id="nonsense")
    assert shop.logged("nonsense")["QueueDelayMs"] is None


def test_the_summary_is_there_when_the_front_ends(lay: Any) -> None:
    shop = lay({"blue": {}}).start().until_ready()
    assert [shop.ask({"status": status}).status for status in (200, 200, 503)] == [200, 200, 503]
    shop.stop()
    (path,) = (shop.folder / "logs/traffic/minutes").glob("*.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert {line["ResponseCode"] for line in lines} == {200, 503}
    assert sum(sum(line["Requests"]) for line in lines) == 3


def test_a_summary_tells_few_reasons_apart(tmp_path: Path) -> None:
    summary = Summary(tmp_path)
    for number in range(1000):
        summary.add("2026-11-20T10:00", "blue", 424, f"Error{number}", 5.0, (0.0, 0.0, 0.0))
    summary.write(0)
    (path,) = (tmp_path / "minutes").glob("*.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == traffic_log.REASONS_MOST + 1
    assert sum(sum(line["Requests"]) for line in lines) == 1000
    assert lines[-1]["Reason"] == ""


@pytest.mark.parametrize("value", [1e-6, 0.001, 0.5, 1.0, 3.14159, 99.99, 4096.0, 179_999.9])
def test_times_are_rounded_to_within_a_hundredth(value: float) -> None:
    assert abs(about(value) - value) <= 0.008 * value
    assert about(about(value)) == about(value)


def record(at: float, total: float = 0.3) -> tuple[Any, ...]:
    """Make what the front notes of a request."""
    times = (1.0, 1.0, 1.0 + total, 1.0 + total, 1.0 + total)
    return at, "POST", "/score", "blue", 200, [], 2, 3, b"r", b"agent", b"", times, 0.0, ""


def test_whoever_removes_lines_notes_from_when_on_the_log_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = TrafficLog(Lines(), tmp_path)
    log.follow({"name": "shop", "environment": "dev"})
    for folder in (tmp_path, tmp_path / "minutes"):
        folder.mkdir(exist_ok=True)
        (folder / "2020-01-01.jsonl").write_text("{}\n")
    now = time.time()
    log.write([record(now)])
    log.write_summary([None])
    reach = json.loads((tmp_path / "reach.json").read_text())
    days = {name: (datetime.now(UTC) - datetime.fromisoformat(since)).days for name, since in reach.items()}
    assert days == {"lines": traffic_log.DAYS, "minutes": traffic_log.SUMMARY_DAYS}
    assert not list(tmp_path.glob("**/2020-*"))

    monkeypatch.setattr(traffic_log, "ROLL", 1000)  # a line has about 600 bytes
    before = datetime.now(UTC) - timedelta(seconds=2)
    for _ in range(4):
        log.write([record(now)])
    assert datetime.fromisoformat(json.loads((tmp_path / "reach.json").read_text())["lines"]) > before  # the older half is gone


def test_old_samples_are_removed_and_it_is_noted(tmp_path: Path) -> None:
    (tmp_path / "2020-01-01.jsonl").write_text("{}\n")
    measured = Usage("shop", "dev", tmp_path)
    measured.sample([Who("blue", "blue-0", os.getpid()), Who("blue", "blue-1", 2**22 + 1)], {"blue": 7})
    measured.sample([Who("blue", "blue-0", os.getpid())], {"blue": 9})
    measured.sample([Who("blue", "blue-0", os.getpid())], {"blue": 3})  # another front, which began anew
    (path,) = tmp_path.glob("*.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["instance"], line["requests"]) for line in lines] == [("blue-0", 7), ("blue-0", 2), ("blue-0", 3)]
    since = datetime.fromisoformat(json.loads((tmp_path / "reach.json").read_text())["since"])
    assert (datetime.now(UTC) - since).days == usage.DAYS


def test_a_full_disk_loses_samples_and_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "usage").write_text("a file where the folder should be")
    measured = Usage("shop", "dev", tmp_path / "usage")
    with contextlib.suppress(AssertionError):
        measured.sample([Who("", "host", os.getpid())], {})
    assert "samples are lost" in caplog.text


def test_the_children_of_a_process_count_with_it(tmp_path: Path) -> None:
    measured = Usage("shop", "dev", tmp_path)
    ready, tell = os.pipe()
    child = os.fork()
    if not child:
        filled = bytearray(80 * 2**20)
        os.write(tell, filled[:1])
        time.sleep(300)
        os._exit(0)
    try:
        assert os.read(ready, 1)
        measured.sample([Who("blue", "blue-0", os.getpid())], {})
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(tell)
    (path,) = tmp_path.glob("*.jsonl")
    assert json.loads(path.read_text())["memory_bytes"] > psutil.Process().memory_info().rss + 70 * 2**20


def test_the_signals_read_what_the_endpoint_wrote(shop: Any, tmp_path: Path) -> None:
    from mlops_nb.core.records import Deployment
    from mlops_nb.core.settings import Settings
    from mlops_nb.outer_loop import service
    from mlops_nb.outer_loop.collected import Collected
    from mlops_nb.outer_loop.monitor import Watch
    from mlops_nb.outer_loop.signals import Asked

    assert shop.ask(b"[]", key="wrong").status == 401
    failed = {"ms-azureml-model-error-statuscode": 500, "ms-azureml-model-error-reason": "KeyError: x"}
    assert shop.ask({"status": 424, "headers": failed}, azureml_model_deployment="busy").status == 424
    assert shop.ask({"wait": 0.05}, azureml_model_deployment="busy", x_request_id="newest").status == 200
    shop.logged("newest")
    settings = Settings(root=tmp_path, state=tmp_path)
    settings.endpoints.mkdir(parents=True)
    (settings.endpoints / "shop").symlink_to(shop.folder)
    now = datetime.now(UTC)
    watch, window = Watch("service", "custom", {}), (now - timedelta(hours=1), now + timedelta(seconds=1))
    where = Deployment("shop", "busy", "model:dev.shop/1", "dev")
    asked = Asked(settings, watch, "regression", where, window, lambda *_: Collected(None, 0))  # type: ignore[arg-type]
    found = {(m.metric, m.feature): m for m in (*service.errors(asked), *service.resources(asked), *service.requests(asked))}
    assert not [m for m in found.values() if m.value is None]
    assert found["error_rate", "424 KeyError"].detail["count"] == 1
    assert found["error_rate", "401 Unauthorized"].detail["count"] == 1
    assert found["RequestLatency_P99", "busy"].value >= 50
    assert found["CpuUtilizationPercentage", "busy-0"].value >= 0
    assert found["idle_days", ""].value < 0.01
