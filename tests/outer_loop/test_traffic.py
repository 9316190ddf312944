"""Traffic on a real endpoint: shares, shadows, roll-outs that end by themselves, well or not, and no request lost by any of it."""

import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from mlops_nb.core import ledger
from mlops_nb.core.records import StepFailed
from mlops_nb.core.settings import Settings
from mlops_nb.outer_loop import credentials, online, shadow, state, traffic

ENDPOINT = "shop"
Command = Callable[..., Any]


@pytest.fixture(scope="module")
def here(stones: Any) -> Iterator[Settings]:
    """The project with model 1 as blue, with all the traffic, and model 2, which asks twice the price, as green."""
    online.deploy(stones.settings, ENDPOINT, stones.model(1))
    online.deploy(stones.settings, ENDPOINT, stones.model(2))
    yield stones.settings
    online.remove(stones.settings, ENDPOINT)


class Asked:
    """A clock that roll-outs hold their steps by: a second of it is twenty answers to a client, however long they take."""

    def __init__(self, client: Any, meanwhile: Callable[[], None] = lambda: None):
        self.client, self.meanwhile, self.until = client, meanwhile, time.monotonic() + 60
        self.time = time.time

    def monotonic(self) -> float:
        assert time.monotonic() < self.until, "nobody is answered any more"
        return (self.client.answers.total() + len(self.client.failures)) / 20

    def sleep(self, seconds: float) -> None:
        self.meanwhile()
        time.sleep(0.02)


@pytest.fixture
def live(here: Settings) -> Iterator[Settings]:
    """The same, whatever a test does to the traffic."""
    yield here
    traffic.shift_traffic(here, ENDPOINT, {"blue": 100})
    traffic.set_mirror(here, ENDPOINT, {})


def test_shares_are_exact_and_a_roll_back_returns_to_those_before(live: Settings, stones: Any) -> None:
    traffic.shift_traffic(live, ENDPOINT, {"blue": 80, "green": 20})
    assert Counter(round(online.invoke(live, ENDPOINT, stones.half)[0]) for _ in range(20)) == {2000: 16, 4000: 4}
    traffic.shift_traffic(live, ENDPOINT, {"green": 100})
    assert traffic.roll_back(live, ENDPOINT, reason="too dear") == {"blue": 80, "green": 20}
    assert traffic.roll_back(live, ENDPOINT) == {"blue": 100}
    *_, shifted, first, _ = ledger.entries(live)
    assert (shifted.action, shifted.details["after"]) == ("shift_traffic", {"green": 100})
    assert (first.action, first.details["before"], first.details["reason"]) == ("roll_back", {"green": 100}, "too dear")


def test_traffic_that_cannot_be_is_refused(live: Settings, stones: Any) -> None:
    for shares, says in [({"blue": 90}, "add up to 0 or 100"), ({"red": 100}, r"No deployment red in shop \(there are: blue, green\)"),
                         ({"blue": 150, "green": -50}, "none below 0")]:
        with pytest.raises(ValueError, match=says):
            traffic.shift_traffic(live, ENDPOINT, shares)
    for mirror, says in [({"green": 51}, "0 to 50 %"), ({"blue": 10}, "blue of shop has 100 % of the traffic"),
                         ({"red": 10}, "No deployment red")]:
        with pytest.raises(ValueError, match=says):
            traffic.set_mirror(live, ENDPOINT, mirror)
    traffic.shift_traffic(live, ENDPOINT, {"blue": 0})
    with pytest.raises(ValueError, match=r"404: .*No deployment of 'shop' has traffic"):
        online.invoke(live, ENDPOINT, stones.half)
    assert len(online.invoke(live, ENDPOINT, stones.frame, deployment="blue")) == len(stones.frame)
    assert traffic.roll_back(live, ENDPOINT) == {"blue": 100}
    with pytest.raises(PermissionError, match="data_analyst may not deploy"):
        traffic.shift_traffic(live.model_copy(update={"persona": "data_analyst"}), ENDPOINT, {"blue": 100})
    traffic.shift_traffic(live, ENDPOINT, {"blue": 50, "green": 50})
    with pytest.raises(ValueError, match="green of shop has 50 % of the traffic"):
        online.remove(live, ENDPOINT, "green")


def test_a_shadow_gets_its_share_of_copies_and_its_answers_are_compared(live: Settings, stones: Any, command: Command) -> None:
    assert traffic.set_mirror(live, ENDPOINT, {"green": 50}) == {"green": 50}
    assert stones.row(ENDPOINT, "green")["mirror"] == 50
    prices = [round(online.invoke(live, ENDPOINT, stones.half)[0]) for _ in range(40)]
    assert prices == [2000] * 40  # nobody got an answer of the shadow's
    stones.until(lambda: (live.endpoints / ENDPOINT / "mirror" / "green.jsonl").is_file()
                 and traffic.compare(live, ENDPOINT, "green").pairs == 20)
    found = traffic.compare(live, ENDPOINT, "green")
    assert (found.predictions, found.differ, round(found.difference, 6)) == (20, 1.0, 1.0)  # twice the price: as much again
    assert (round(found.mean or 0), round(found.largest or 0), found.errors) == (2000, 2000, (0.0, 0.0))
    assert list(found.table().columns) == ["live", "green"]
    told = command("traffic", ENDPOINT, "--compare", "green")
    assert told.rc == 0
    assert "20 requests that both answered" in told.stdout
    assert "100.00% of 20 predictions are not the same; difference 1" in told.stdout
    traffic.shift_traffic(live, ENDPOINT, {"green": 100})  # a shadow that goes live is none any more
    assert state.read_wanted(live, ENDPOINT)["mirror_traffic"] == {}


@pytest.mark.parametrize(("live", "other", "differ", "difference"), [
    ([100.0, 300.0], [110.0, 330.0], 1.0, 0.1),  # amounts: the mean difference as a share of the mean size
    ([100.0, 300], [100.0, 300.0], 0.0, 0.0),
    (["Ideal", "Fair"], ["Ideal", "Good"], 0.5, 0.5),  # labels: the share that changed
    ([0, 1, 1, 0], [0, 1, 0, 0], 0.25, 0.25),
    ({"predictions": [True]}, {"predictions": [False]}, 1.0, 1.0),
    ([float("nan"), 1.0], [float("nan"), 1.0], 0.0, 0.0),
    ([1.0, 2.0], [1.0], 0.5, 1.0),  # one is missing
    ([np.float32(1), np.float64(3)], [1.5, 2.5], 1.0, 0.25),
    ('{"price": 10.0}', {"price": 20.0}, 1.0, 1.0),  # an answer that was kept as text
])
def test_how_far_answers_are_apart(live: Any, other: Any, differ: float, difference: float) -> None:
    found = shadow.measure([(live, other)])
    assert (found["differ"], found["difference"]) == (pytest.approx(differ), pytest.approx(difference))


def test_a_roll_out_takes_over_in_steps_without_losing_a_request(
    live: Settings, stones: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stones.client(ENDPOINT) as client:
        monkeypatch.setattr(traffic, "time", Asked(client))
        steps = traffic.roll_out(live, ENDPOINT, "green", steps=(20, 100), hold=0.6)
        with pytest.raises(ValueError, match="green of shop has 100 % of the traffic"):
            online.remove(live, ENDPOINT, "green")
        assert traffic.roll_back(live, ENDPOINT) == {"blue": 100}
        seen = client.answers[2000]
        stones.until(lambda: client.answers[2000] > seen + 5)
    assert [(step["step"], step["traffic"], step["problem"]) for step in steps] == [
        (0, {"blue": 100}, ""), (20, {"blue": 80, "green": 20}, ""), (100, {"green": 100}, "")]
    assert not client.failures
    assert set(client.answers) == {2000, 4000}
    assert [entry.action for entry in ledger.entries(live)][-3:] == ["shift_traffic", "shift_traffic", "roll_back"]


def test_a_model_whose_predictions_are_too_far_is_found_as_a_shadow_before_it_has_traffic(
    live: Settings, stones: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = r"Rolled back shop to blue 100 %\. green at 0 %: its predictions differ by 1 from those of blue, over 0.2"
    with stones.client(ENDPOINT) as client:
        with pytest.raises(StepFailed, match=told):
            traffic.roll_out(live, ENDPOINT, "green", probe=stones.half, hold=0.5, max_difference=0.2)
        seen = client.answers.total()
        stones.until(lambda: client.answers.total() > seen + 5)
    assert set(client.answers) == {2000}
    with stones.client(ENDPOINT) as client:  # without a probe, live requests tell: half of them are copied to it
        monkeypatch.setattr(traffic, "time", Asked(client))
        with pytest.raises(StepFailed, match=r"green at 0 %: its predictions differ by 1 "):
            traffic.roll_out(live, ENDPOINT, "green", hold=0.5, max_difference=0.2)
        near = traffic.roll_out(live, ENDPOINT, "green", steps=(10,), hold=0.3, max_difference=1.5)
    assert [step["difference"] for step in near] == [pytest.approx(1.0), None]
    assert near[0]["requests"] > 0  # the copies
    assert state.read_wanted(live, ENDPOINT)["mirror_traffic"] == {}


def test_a_model_that_fails_or_is_slow_is_rolled_back_by_itself_and_no_client_sees_it(
    live: Settings, stones: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stones.client(ENDPOINT) as client:
        online.deploy(live, ENDPOINT, stones.model(3), "broken")
        online.invoke(live, ENDPOINT, stones.half, "green")  # how long it takes is known
        with pytest.raises(StepFailed, match=r"Rolled back shop to blue 100 %\. broken at 0 %: the probe failed: .*424"):
            traffic.roll_out(live, ENDPOINT, "broken", probe=stones.half)
        with pytest.raises(StepFailed, match=r"green at 0 %: p95_ms is .*, over 0.001"):
            traffic.roll_out(live, ENDPOINT, "green", steps=(10,), hold=0.4, max_latency_ms=0.001)
    assert client.answers[2000]
    assert not client.failures
    # without a probe it is found out by its first answers to production, also where the host is late to tell of them
    host, save = psutil.Process(state.read_status(live, ENDPOINT)["pid"]), state.save_wanted

    def save_and_wake(*words: Any) -> None:
        save(*words)
        host.resume()

    monkeypatch.setattr(state, "save_wanted", save_and_wake)
    try:
        with stones.client(ENDPOINT) as client:
            monkeypatch.setattr(traffic, "time", Asked(client, meanwhile=host.suspend))
            with pytest.raises(StepFailed, match=r"broken at 50 %: error_rate is 1, over 0"):
                traffic.roll_out(live, ENDPOINT, "broken", steps=(50, 100), hold=0.4)
    finally:
        host.resume()
    assert {d.name: d.traffic for d in online.deployments(live, ENDPOINT)} == {"blue": 100, "green": 0, "broken": 0}
    assert ledger.entries(live)[-1].action == "roll_back"
    online.remove(live, ENDPOINT, "broken")


def test_the_probes_of_a_roll_out_are_nobodys_requests_and_are_not_collected(live: Settings, stones: Any) -> None:
    def collected() -> Counter[str]:
        return Counter(event["correlationid"] for event in stones.events(ENDPOINT, "green", "model_inputs"))

    online.invoke(live, ENDPOINT, stones.half, "green", request_id="last")
    stones.until(lambda: "last" in collected())  # and with it all that was asked before
    before = collected()
    traffic.roll_out(live, ENDPOINT, "green", steps=(100,), probe=stones.half, hold=0.3)
    forged = {"x-request-id": "client", "x-mlops-nb-probe": "1", "content-type": "application/json"}
    headers = forged | credentials.authorization(live, ENDPOINT)
    request = urllib.request.Request(stones.row(ENDPOINT, "green")["address"], json.dumps(stones.half).encode(), headers)  # noqa: S310
    assert json.loads(urllib.request.urlopen(request).read())  # noqa: S310
    stones.until(lambda: "client" in collected())  # a client cannot hide its requests
    assert list((collected() - before).elements()) == ["client"]


def test_a_change_by_somebody_else_ends_a_roll_out_and_stands(live: Settings) -> None:
    def meddle(record: dict[str, Any]) -> None:
        if record["step"] == 10:
            traffic.shift_traffic(live, ENDPOINT, {"blue": 40, "green": 60})

    with pytest.raises(StepFailed, match="Somebody else shifted the traffic of shop meanwhile"):
        traffic.roll_out(live, ENDPOINT, "green", hold=0, progress=meddle)
    assert state.read_wanted(live, ENDPOINT)["traffic"] == {"blue": 40, "green": 60}


def test_stopped_by_hand_a_roll_out_returns_to_the_old_traffic(live: Settings) -> None:
    def stop(record: dict[str, Any]) -> None:
        if record["step"] == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        traffic.roll_out(live, ENDPOINT, "green", hold=0, progress=stop)
    assert state.read_wanted(live, ENDPOINT)["traffic"] == {"blue": 100}


def test_a_kill_at_any_moment_leaves_what_is_wanted_whole(live: Settings) -> None:
    script = f"""
import itertools
from mlops_nb.core.settings import load_settings
from mlops_nb.outer_loop import traffic
settings = load_settings("dev", {str(live.root)!r}, user="ada")
print("on", flush=True)
for share in itertools.cycle(range(0, 101, 5)):
    traffic.shift_traffic(settings, "shop", {{"blue": 100 - share, "green": share}})
"""
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as shifting:
            assert shifting.stdout
            shifting.stdout.readline()
            time.sleep(random.uniform(0.1, 0.4))
            os.kill(shifting.pid, signal.SIGKILL)
        wanted = state.read_wanted(live, ENDPOINT)
        assert sum(wanted["traffic"].values()) == 100
        assert all(sum(before.values()) == 100 for before in wanted["history"])
        traffic.shift_traffic(live, ENDPOINT, {"blue": 100})  # nobody holds the lock
    assert not [path for path in (live.endpoints / ENDPOINT).glob("*.json") if not json.loads(path.read_text())]


def test_the_command_shifts_mirrors_rolls_out_and_says_what_cannot_be(live: Settings, command: Command, tmp_path: Path) -> None:
    assert "blue        ready  80 %" in command("traffic", ENDPOINT, "blue=80", "green=20").stdout
    assert command("traffic", ENDPOINT, "--roll-back").rc == 0
    assert "0 % + 20 % mirrored" in command("traffic", ENDPOINT, "--mirror", "green=20").stdout
    request = tmp_path / "request.json"
    request.write_text('{"input_data": [[0.5, 60.0]]}')
    ways = ("--roll-out", "green", "--steps", "50,100", "--hold", "0.1", "--probe", request, "--max-p95-ms", "60000")
    kept = command("traffic", ENDPOINT, *ways, "--max-difference", "0.5")
    assert (kept.rc, state.read_wanted(live, ENDPOINT)["mirror_traffic"]) == (4, {"green": 20})
    assert "not well" in kept.stdout
    assert "Rolled back shop to blue 100 %" in kept.stderr
    done = command("traffic", ENDPOINT, *ways)
    assert done.rc == 0, done.stderr
    assert [line.split()[:3] for line in done.stdout.splitlines()[:3]] == [[step, "%", "well"] for step in ("0", "50", "100")]
    assert state.read_wanted(live, ENDPOINT)["traffic"] == {"green": 100}
    for arguments, says in [(("blue=ten",), "blue=ten: a whole number"), (("--roll-back", "--mirror", "green=1"), "one at a time"),
                            (("--roll-out", "green", "--steps", "10,x"), "x is no whole number")]:
        wrong = command("traffic", ENDPOINT, *arguments)
        assert (wrong.rc, says in wrong.stderr) == (2, True), wrong.stderr
