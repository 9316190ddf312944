"""What the running service tells, from its own logs: of any window, whole or not at all, and the same from lines and summaries."""

import dataclasses
import datetime as dt
import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlops_nb.core.records import Deployment, SpecificationError
from mlops_nb.core.settings import Settings
from mlops_nb.outer_loop import service
from mlops_nb.outer_loop.collected import Collected
from mlops_nb.outer_loop.monitor import Watch
from mlops_nb.outer_loop.signals import BUILT_IN, Asked, Measure, Window
from mlops_nb.serving.lines import Lines
from mlops_nb.serving.traffic_log import TrafficLog

NOON = dt.datetime(2026, 3, 29, 12, tzinfo=dt.UTC)
Request = tuple[dt.datetime, str, int, str, bytes, float, float]  # at, deployment, status, code, model's reason, ms, ms waited


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A project with an endpoint `shop` that has no log yet."""
    settings = Settings(root=tmp_path, state=tmp_path)
    (settings.endpoints / "shop").mkdir(parents=True)
    return settings


@pytest.fixture
def ask(settings: Settings) -> Callable[..., Asked]:
    """Make what a signal is asked: `ask(window, deployment, limits, **parameters)`."""

    def make(window: Window, deployment: str = "blue", limits: dict[str, float] | None = None, **parameters: Any) -> Asked:
        watch = Watch("service", "custom", {"custom": limits or {}}, parameters=parameters)
        where = Deployment("shop", deployment, "model:dev.shop/1", "dev")
        return Asked(settings, watch, "regression", where, window, lambda name, span: Collected(None, 0))  # type: ignore[arg-type]

    return make


def write(settings: Settings, requests: list[Request]) -> Path:
    """Let the front's own log write requests."""
    folder = settings.endpoints / "shop/logs/traffic"
    log = TrafficLog(Lines(), folder)
    log.follow({"name": "shop", "environment": "dev"})
    log.day = log.summary.day = "9999"  # nothing is tidied
    records = []
    for at, deployment, status, code, reason, ms, waited in requests:
        headers = [(b"ms-azureml-model-error-reason", reason)] if reason else []
        times = (1.0, 1.0, 1.0 + ms / 1000, 1.0 + ms / 1000, 1.0 + ms / 1000)
        records.append((at.timestamp(), "POST", "/score", deployment, status, headers, 2, 3, b"r", b"", b"", times,
                        waited / 1000, code))
    for start in range(0, len(records), 700):
        log.write(records[start:start + 700])
        log.write_summary([None])
    return folder


def some(count: int, seed: int = 0, hours: float = 26) -> list[Request]:
    """Draw requests of a day and a bit, up to noon."""
    draw = random.Random(seed)
    found: list[Request] = []
    for number in range(count):
        at = NOON - dt.timedelta(hours=hours) * (1 - number / count)
        ms, waited = draw.lognormvariate(2, 1), draw.choice([0.0, 0.0, 0.0, draw.uniform(0.1, 50)])
        kind = draw.choice([(200, "", b"")] * 9 + [(424, "", b"ValueError: no column %d" % number), (429, "QueueWait", b"")])
        at = at.replace(microsecond=at.microsecond // 1000 * 1000)
        found.append((at, draw.choice(["blue", "green"]), *kind, ms + waited, waited))
    return found


def of(measures: list[Measure]) -> dict[tuple[str, str], Measure]:
    return {(measure.metric, measure.feature): measure for measure in measures}


def test_every_signal_of_the_service_is_found_by_its_component() -> None:
    from importlib import import_module

    for name in ("resources", "requests", "throttling", "errors", "objectives", "cost", "staleness"):
        module, _, function = BUILT_IN[f"mlops_nb_{name}"].partition(":")
        assert callable(getattr(import_module(module), function))


@pytest.mark.parametrize("source", ["lines", "summaries", "both", "many"])
def test_figures_are_those_of_a_plain_count(settings: Settings, ask: Any, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = some(4000)
    folder = write(settings, requests)
    if source == "many":  # of yesterday's lines, so its summaries are read
        monkeypatch.setattr(service, "MOST", (folder / "2026-03-29.jsonl").stat().st_size + 10)
        (folder / "2026-03-28.jsonl").write_bytes(b"x" * 1000)
    since = {"summaries": {"lines": "2030-01-01T00:00:00+00:00"}, "both": {"lines": "2026-03-29T03:17:20+00:00"}}
    (folder / "reach.json").write_text(json.dumps(since.get(source, {})))
    window = (NOON - dt.timedelta(hours=20), NOON)
    asked = [r for r in requests if window[0] <= r[0] < window[1] and r[1] == "blue"]
    wrong = Counter(f"{r[2]} {'ValueError' if r[2] == 424 else r[3]}" for r in asked if r[2] >= 400)

    errors = of(service.errors(ask(window)))
    assert errors["error_rate", ""].value == round(wrong.total() / len(asked), 6)
    assert {feature: m.detail["count"] for (_, feature), m in errors.items() if feature} == wrong
    assert errors["server_error_rate", ""].value == 0

    throttled = of(service.throttling(ask(window)))
    waited = throttled["RequestThrottlingDelayMs", "blue"]
    assert waited.value == pytest.approx(sum(r[6] for r in asked) / len(asked), abs=0.001)
    assert waited.detail["delayed"] == sum(r[6] > 0 for r in asked)
    assert waited.detail["longest_ms"] == pytest.approx(max(r[6] for r in asked), abs=0.001)
    assert throttled["rejected_rate", "blue"].value == round(wrong["429 QueueWait"] / len(asked), 6)

    times = np.array([r[5] for r in asked])
    latency = of(service.resources(ask(window)))
    for name, share in (("P50", 50), ("P90", 90), ("P95", 95), ("P99", 99)):
        exact = np.percentile(times, share, method="inverted_cdf")
        assert latency[f"RequestLatency_{name}", "blue"].value == pytest.approx(exact, rel=0.0081)

    assert of(service.requests(ask(window)))["RequestsPerMinute", ""].value == round(len(asked) / 1200, 4)


def test_memory_stays_where_it_is_however_long_the_log(settings: Settings, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = some(3000)
    write(settings, requests)
    window = (NOON - dt.timedelta(hours=26), NOON)
    whole = service.read_traffic(settings.endpoints / "shop", window)
    monkeypatch.setattr(service, "BLOCK", 5000)  # bytes; some 300 blocks, each of which ends within a line
    parts = service.read_traffic(settings.endpoints / "shop", window)
    keys = ["minute", "deployment", "status", "reason", "requests"]
    assert parts.counts.select(keys).sort(keys).equals(whole.counts.select(keys).sort(keys))
    assert parts.requests == len(requests)


def test_torn_and_foreign_lines_are_counted_and_left_out(settings: Settings, ask: Any) -> None:
    requests = some(50, hours=1)
    folder = write(settings, requests)
    path = folder / "2026-03-29.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    strange = [b'{"TimeGenerated":"2026-03-2\n', b"\x00\xff\n", b"[1, 2]\n", b"\n", b'{"TimeGenerated": 7, "ResponseCode": "x"}\n',
               b"{}\n"]
    path.write_bytes(b"".join([*lines[:10], *strange, *lines[10:]]) + lines[0][:100])
    traffic = service.read_traffic(settings.endpoints / "shop", (NOON - dt.timedelta(hours=2), NOON))
    assert traffic.requests == 50
    assert traffic.torn >= 3


def test_a_file_that_is_rolled_and_one_that_is_tidied_away_while_read(settings: Settings) -> None:
    folder = write(settings, some(200, hours=3))
    path = folder / "2026-03-29.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    (folder / "2026-03-29.old.jsonl").write_bytes(b"".join(lines[:120]))
    path.write_bytes(b"".join(lines[120:]))
    window = (NOON - dt.timedelta(hours=4), NOON)
    assert service.read_traffic(settings.endpoints / "shop", window).requests == 200
    assert list(service._blocks(folder / "gone.jsonl")) == []


def test_a_log_that_begins_later_gives_no_figure(settings: Settings, ask: Any) -> None:
    folder = write(settings, some(500))
    (folder / "reach.json").write_text(json.dumps({"lines": "2026-03-29T08:00:00+00:00", "minutes": "2026-03-29T02:00:00+00:00"}))
    early, late = (NOON - dt.timedelta(hours=20), NOON), (NOON - dt.timedelta(hours=9), NOON)
    for signal in (service.errors, service.throttling, service.requests):
        first = signal(ask(early))[0]
        assert first.value is None
        assert first.problem == "the traffic log reaches back only to 2026-03-29 02:00 UTC. Choose a window that begins later."
        assert signal(ask(late))[0].value is not None
    (folder / "reach.json").write_text("{torn")
    assert service.errors(ask(late))[0].value is None  # it cannot be known


def test_an_empty_window_and_an_empty_folder(ask: Any) -> None:
    window = (NOON, NOON + dt.timedelta(hours=1))
    errors, calls, throttled, used = (of(signal(ask(window))) for signal in (
        service.errors, service.requests, service.throttling, service.resources))
    assert errors["error_rate", ""].value == 0
    assert calls["RequestsPerMinute", ""].value == 0
    assert calls["idle_days", ""].problem.startswith("nothing says since when")
    assert throttled["RequestThrottlingDelayMs", "blue"].value == 0
    assert used["RequestLatency_P50", "blue"].problem == "no request was answered in the window"
    assert used["RequestLatency_P50", "blue"].detail == {"few": True}  # a quiet night is nothing to be woken for
    assert used["CpuUtilizationPercentage", "blue"].problem.startswith("no process of blue was measured")


def test_an_endpoint_that_is_not_there_and_one_that_logs_nothing(settings: Settings, ask: Any) -> None:
    window = (NOON - dt.timedelta(hours=1), NOON)
    gone = dataclasses.replace(ask(window), deployment=Deployment("gone", "blue", "", "dev"))
    assert service.errors(gone)[0].problem == "there is no endpoint gone in dev. Deploy a model to it first."
    (settings.endpoints / "shop/endpoint.json").write_text('{"log_requests": false}')
    assert "log_requests" in service.errors(ask(window))[0].problem


def sample(at: dt.datetime, instance: str = "blue-0", **fields: Any) -> str:
    """Make a line of the host's log of usage."""
    line = {"time": at.isoformat(), "deployment": instance.partition("-")[0], "instance": instance, "pid": 1, "cpu_percent": 50.0,
            "cpu_seconds": 7.5, "memory_bytes": 2**30, "hours": 15 / 3600, "requests": 0, "cores": 4, "memory_total": 2**33,
            "disk_used": 1, "disk_total": 4}
    return json.dumps(line | fields) + "\n"


def measured(settings: Settings, day: str, lines: list[str]) -> None:
    folder = settings.endpoints / "shop/logs/usage"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{day}.jsonl").write_text("".join(lines))


def test_resources_by_deployment_and_instance(settings: Settings, ask: Any) -> None:
    at = [NOON - dt.timedelta(seconds=15 * n) for n in range(100, 0, -1)]
    lines = [sample(t, name, cpu_percent=busy) for t in at for name, busy in (("blue-0", 20.0), ("blue-1", 60.0), ("green-0", 100.0))]
    measured(settings, "2026-03-29", [*lines, lines[0][:40] + "\n"])
    found = of(service.resources(ask((NOON - dt.timedelta(minutes=10), NOON))))
    busy = {feature: found["CpuUtilizationPercentage", feature].value for feature in ("blue", "blue-0", "blue-1")}
    assert busy == {"blue": 40, "blue-0": 20, "blue-1": 60}
    assert found["CpuMemoryUtilizationPercentage", "blue-0"].value == 12.5
    assert found["DiskUtilization", "blue"].value == 25
    assert found["CpuUtilizationPercentage", "blue"].detail["samples"] == 80
    assert ("CpuUtilizationPercentage", "green-0") not in found


@pytest.mark.parametrize(("days", "limits", "parameters", "retires"), [
    (29, {}, {}, False), (31, {}, {}, True), (8, {"idle_days": 7.0}, {}, True), (8, {}, {"retire_after": "P7D"}, True),
    (8, {}, {"retire_after": {"type": "literal", "path": "P9D"}}, False)])  # fmt: skip
def test_a_model_that_nobody_calls_is_to_be_retired(settings: Settings, ask: Any, days: int, limits: Any, parameters: Any,
                                                    retires: bool) -> None:
    write(settings, some(20, hours=1))
    end = NOON + dt.timedelta(days=days)
    idle = of(service.requests(ask((end - dt.timedelta(days=1), end), limits=limits, **parameters)))["idle_days", ""]
    assert idle.value == pytest.approx(days, abs=0.01)
    assert (idle.detail.get("propose") == "retire") == retires


def test_a_model_that_was_never_called_is_idle_since_it_was_deployed(settings: Settings, ask: Any) -> None:
    measured(settings, "2026-02-01", [sample(dt.datetime(2026, 2, 1, tzinfo=dt.UTC))])
    measured(settings, "2026-03-28", [sample(NOON - dt.timedelta(days=1), "green-0", requests=4), sample(NOON - dt.timedelta(days=1))])
    window = (NOON - dt.timedelta(days=1), NOON)
    idle = of(service.requests(ask(window)))["idle_days", ""]
    assert idle.value == 56.5
    assert idle.detail["propose"] == "retire"
    assert idle.detail["deployed"] == "2026-02-01T00:00:00+00:00"
    (settings.endpoints / "shop/endpoint.json").write_text('{"log_requests": false}')
    counted = of(service.requests(ask(window, "green")))
    assert counted["idle_days", ""].value == 1  # no log: the host counts, too
    assert counted["RequestsPerMinute", ""].value is None


def test_a_shadow_is_asked_all_the_time_without_a_log(settings: Settings, ask: Any) -> None:
    write(settings, some(20, hours=1))
    window = (NOON + dt.timedelta(days=60), NOON + dt.timedelta(days=61))
    assert of(service.requests(ask(window)))["idle_days", ""].detail["propose"] == "retire"
    (settings.endpoints / "shop/endpoint.json").write_text('{"mirror_traffic": {"blue": 100}}')
    assert "propose" not in of(service.requests(ask(window)))["idle_days", ""].detail


def test_an_endpoint_on_azure_is_watched_there(settings: Settings, ask: Any) -> None:
    there = dataclasses.replace(ask((NOON, NOON + dt.timedelta(hours=1))), settings=settings.model_copy(update={"backend": "azure"}))
    assert "Azure Monitor" in service.errors(there)[0].problem


def test_wrong_parameters_are_told_with_their_place(ask: Any) -> None:
    with pytest.raises(SpecificationError, match=r"service.inputs.retire_after = soon: write a duration"):
        service.requests(ask((NOON, NOON + dt.timedelta(hours=1)), retire_after="soon"))
