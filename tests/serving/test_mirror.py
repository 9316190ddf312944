"""Shadow traffic: exact copies, both answers noted, and a live answer that never waits for the shadow's."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from mlops_nb.serving.lines import Lines, append
from mlops_nb.serving.traffic_log import TrafficLog


def pairs(endpoint: Any, count: int) -> list[dict[str, Any]]:
    """Read the pairs, once there are so many."""
    return endpoint.written("mirror", lambda lines: len(lines) >= count, "green")


def test_copies_go_to_the_shadow_and_both_answers_are_noted(lay: Any) -> None:
    endpoint = lay({"blue": {}, "green": {"max_concurrent": 2}}, mirror_traffic={"green": 25}).start().until_ready()
    connection, began = endpoint.connect(), time.time()
    answers = [endpoint.ask(b"[]", connection=connection, x_request_id=f"r{i}") for i in range(40)]
    assert {answer.headers["azureml-model-deployment"] for answer in answers} == {"blue"}
    found = pairs(endpoint, 10)
    assert len(found) == 10  # a quarter, exactly
    assert set(found[0]) == {"at", "request", "live", "live_status", "shadow_status", "live_ms", "shadow_ms",
                             "live_answer", "shadow_answer"}  # fmt: skip
    assert (found[0]["live"], found[0]["live_status"], found[0]["shadow_status"]) == ("blue", 200, 200)
    assert found[0]["live_answer"]["deployment"] == "blue"
    assert found[0]["shadow_answer"]["deployment"] == "green"
    head = [line.lower() for line in found[0]["shadow_answer"]["head"]]
    assert f"x-request-id: {found[0]['request']}" in head
    assert began <= found[0]["at"] <= time.time()
    status = endpoint.until(lambda s: s["deployments"]["green"]["requests"].get("200") == 10, "counted")
    assert (status["deployments"]["green"]["mirror"], status["deployments"]["green"]["traffic"]) == (25, 0)

    endpoint.save(mirror_traffic={"green": 50})  # a probe, and what green answers itself, is not mirrored
    for _ in range(4):
        endpoint.ask(b"[]", x_mlops_nb_probe="probing")
        endpoint.ask(b"[]", azureml_model_deployment="green")
    endpoint.ask({"status": 500}, x_request_id="bad")
    endpoint.ask({"status": 500}, x_request_id="bad too")
    assert pairs(endpoint, 11)[10:][0]["shadow_status"] == 500
    assert len(pairs(endpoint, 11)) == 11


def test_a_shadow_that_is_slow_or_dead_slows_nobody(lay: Any) -> None:
    slow = {"variables": {"HOLD": "/no/such/file"}, "max_concurrent": 1}
    endpoint = lay({"blue": {}, "green": slow}, mirror_traffic={"green": 100}).start().until_ready()
    connection = endpoint.connect()
    assert {endpoint.ask(b"x" * 90_000, connection=connection).status for _ in range(300)} == {200}
    assert not (endpoint.folder / "mirror").exists()  # the shadow has answered none of them
    os.kill(endpoint.status()["deployments"]["green"]["pid"], signal.SIGKILL)
    assert {endpoint.ask(b"[]", connection=connection).status for _ in range(20)} == {200}
    metrics = endpoint.ask(b"", "/metrics", "GET").body.decode()
    dropped = next(line for line in metrics.splitlines() if line.startswith('mlops_nb_not_kept_total{what="mirror"}'))
    assert float(dropped.split()[-1]) > 20  # 256 wait at most
    assert pairs(endpoint, 1)[0]["live_answer"]["deployment"] == "blue"


def test_lines_are_bounded_and_a_full_disk_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlops_nb.serving.lines.EVERY", 600)  # the thread writes at the end
    lines = Lines(most=100)
    for number in range(150):
        lines.put(lambda records: append(tmp_path / "a.jsonl", [b"%d\n" % record for record in records]), number)
    full = Path("/dev/full")
    lines.close(wait=60)
    assert lines.dropped == 50
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 100
    with pytest.raises(OSError, match="No space"):
        append(full, [b"line\n"])


def test_old_days_of_the_log_are_removed(tmp_path: Path) -> None:
    for day in ("2020-01-01", "2020-01-02"):
        (tmp_path / f"{day}.jsonl").write_text("{}\n")
    lines = Lines()
    log = TrafficLog(lines, tmp_path)
    log.follow({"name": "shop", "environment": "dev"})
    record = (time.time(), "POST", "/score", "blue", 200, [], 2, 3, b"r1", b'agent "x"', b"", (1.0, 1.1, 1.2, 1.3, 1.3), 0.0, "")
    log.write([record, record])
    lines.close(wait=60)
    (path,) = tmp_path.glob("*.jsonl")
    first, second = map(json.loads, path.read_text().splitlines())
    assert first == second
    assert (first["UserAgent"], first["TotalDurationMs"], first["ResponseCodeReason"]) == ('agent "x"', 300.0, "OK")
