"""Faults of an endpoint under a constant load: only the answers that the contract names, and none lost. `ci/soak` has the long form."""

import asyncio
import json
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

LONG = 50  # kills from which the long form begins
FRAME = pd.DataFrame({"carat": [0.3, 0.5, 0.8, 1.0]})
SLOW = "import time\ndef init(): pass\ndef run(data):\n    time.sleep(0.6)\n    return [1.0]\n"
MOODY = """\
import mlflow
class Moody(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        mood = float(model_input["carat"].iloc[0])
        if mood < 0:
            raise ValueError("a bad day\\r\\nx-evil: 1")
        return model_input["carat"]
mlflow.models.set_model(Moody())
"""


def payload(carat: float) -> bytes:
    return json.dumps({"input_data": {"columns": ["carat"], "index": [0], "data": [[carat]]}}).encode()


class Load:
    """Clients that ask without a pause, in a thread with a loop of its own; what was answered is counted by what was asked."""

    def __init__(self, endpoint: Any):
        self.endpoint = endpoint
        self.key = "first-key"
        self.seen: dict[str, Counter[Any]] = {}
        self.resets = 0
        self.lost: Counter[str] = Counter()
        self.turns: Counter[tuple[str, int]] = Counter()  # of each client
        self.ended = False
        self.thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self.thread.start()

    async def _run(self) -> None:
        clients = {"live": (6, payload(0.5), ""), "slow": (1, payload(0.5), "slow"), "bad": (1, payload(-1.0), "moody")}
        everybody = [(name, number, *rest) for name, (count, *rest) in clients.items() for number in range(count)]
        self.turns.update(dict.fromkeys(((name, number) for name, number, *_ in everybody), 0))
        await asyncio.gather(*(self._client(*client) for client in everybody))

    async def _client(self, name: str, number: int, body: bytes, pinned: str) -> None:
        streams: Any = None
        seen = self.seen.setdefault(name, Counter())
        while not self.ended:
            for again in (False, True):  # once more after a reset: a client's own retry
                try:
                    streams = streams or await asyncio.open_connection("127.0.0.1", self.endpoint.wanted["port"])
                    seen[await asyncio.wait_for(self._ask(*streams, body, pinned), 180)] += 1
                    break
                except (OSError, asyncio.IncompleteReadError, TimeoutError):
                    streams = None
                    self.resets += not again
                    self.lost[name] += again
            self.turns[name, number] += 1
        if streams:
            streams[1].close()

    async def _ask(self, reader: Any, writer: Any, body: bytes, pinned: str) -> tuple[int, str]:
        pin = f"azureml-model-deployment: {pinned}\r\n" if pinned else ""
        writer.write(f"POST /score HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.key}\r\nContent-Type: application/json\r\n{pin}"
                     f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in head[1:] if ": " in line)
        assert "x-evil" not in headers
        answer = await reader.readexactly(int(headers["content-length"]))
        assert json.loads(answer)
        return int(head[0].split()[1]), headers.get("azureml-model-deployment", "")

    @property
    def answered(self) -> int:
        return sum(seen.total() for seen in self.seen.values())

    def during(self, fault: Callable[[], None]) -> dict[str, Counter[Any]]:
        """Let something happen; returns what was answered from its beginning until every live client asked once more after its end."""
        before = {name: seen.copy() for name, seen in self.seen.items()}
        fault()
        self.settle("live")
        return {name: seen.copy() - before.get(name, Counter()) for name, seen in self.seen.items()}

    def settle(self, *names: str) -> None:
        """Wait until nothing is under way that these clients (all, if none is named) ask by now: each has been answered twice more."""
        enough = {client: turns + 2 for client, turns in self.turns.copy().items() if not names or client[0] in names}
        self.until(lambda: all(self.turns[client] >= turns for client, turns in enough.items()), "answered")

    def until(self, happened: Callable[[], Any], what: str) -> None:
        end = time.monotonic() + 180
        while not happened():
            assert self.thread.is_alive()
            assert time.monotonic() < end, f"not {what}: {self.seen}\n{self.endpoint.logs()}"
            time.sleep(0.01)

    def end(self) -> None:
        self.ended = True
        self.thread.join(240)
        assert not self.thread.is_alive()


@pytest.fixture(scope="module")
def full_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on a disk without a byte left; where none can be mounted, one in which nothing can be made at all."""
    folder = tmp_path_factory.mktemp("full")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", folder], capture_output=True).returncode == 0
    if mounted:
        (folder / "rest").write_bytes(b"x" * 8192)
        yield folder
        subprocess.run(["umount", "-l", folder], check=True)
    else:
        (folder / "file").touch()
        yield folder / "file" / "collected"


@pytest.fixture(scope="module")
def shop(lay_once: Any, tmp_path_factory: pytest.TempPathFactory, full_disk: Path) -> Any:
    folder = tmp_path_factory.mktemp("models")
    signature = mlflow.models.infer_signature(FRAME, pd.Series([1.0]))
    model = LinearRegression().fit(FRAME, [1.0, 2.0, 3.0, 4.0])
    mlflow.sklearn.save_model(model, folder / "price", signature=signature, pip_requirements=["scikit-learn"])
    (folder / "moody.py").write_text(MOODY)
    mlflow.pyfunc.save_model(folder / "moody", python_model=folder / "moody.py", signature=signature, pip_requirements=["mlflow"])
    price = {"path": str(folder / "price"), "python": "", "max_concurrent": 32, "timeout_ms": 120_000, "max_queue_wait_ms": 60_000}
    collector = {"collections": {"model_inputs": 1.0, "model_outputs": 1.0}, "rolling_rate": "Hour", "capture_headers": []}
    moody = {"path": str(folder / "moody"), "python": ""}
    (folder / "score.py").write_text(SLOW)
    script = {"code": str(folder), "scoring_script": "score.py"}
    slow = {"path": str(folder), "python": "", "script": script, "max_concurrent": 4, "timeout_ms": 300, "max_queue_wait_ms": 2000}
    blue = price | {"instances": 2, "collector": collector, "collected": str(full_disk)}
    endpoint = lay_once({"blue": blue, "green": price, "moody": moody, "slow": slow})
    return endpoint.start().until_ready()


@pytest.fixture
def load(shop: Any) -> Iterator[Load]:
    load = Load(shop)
    load.until(lambda: load.turns, "begun")
    load.settle()
    yield load
    load.end()


@pytest.mark.slow
def test_nothing_is_lost_whatever_happens(shop: Any, load: Load, request: pytest.FixtureRequest) -> None:
    kills = request.config.getoption("--kills")
    chance = random.Random(seed := random.randrange(10**6))
    print(f"seed {seed}")

    def only(seen: dict[str, Counter[Any]], *live: str) -> None:
        """See that there were only the expected answers, and some from each deployment that should have answered."""
        assert {status for status, _ in seen["live"]} == {200}, seen
        assert {name for _, name in seen["live"]} == set(live), seen
        assert {status for status, _ in seen["slow"]} <= {408, 429}, seen  # one at a time: what waits behind it is told so
        assert {status for status, _ in seen["bad"]} <= {424}, seen

    def shift() -> None:
        for traffic in ({"blue": 50, "green": 50}, {"green": 100}, {"blue": 100}):
            shop.save(traffic=traffic)
            load.settle("live")

    only(load.during(shift), "blue", "green")
    shop.save(traffic={"green": 100})
    load.settle("live")

    def roll_back() -> None:
        load.settle("live")
        shop.save(traffic={"blue": 100})

    only(load.during(roll_back), "blue", "green")
    load.settle()
    only(load.during(lambda: rotate(shop, load, turns=max(1, kills // 10))), "blue")
    assert not load.resets

    for turn in range(max(1, kills // 5)):  # one of two instances, then the only one
        name = ("blue", "green")[turn % 2]
        shop.save(traffic={name: 100})
        load.settle("live")
        only(load.during(lambda name=name: kill(shop, name, chance)), name)  # type: ignore[misc]
    assert not load.resets

    for _ in range(max(1, kills // 10)):
        only(load.during(lambda: kill_front(shop)), name)
        load.settle()  # no retry is hit by the next kill
    assert not load.lost.total(), load.lost
    assert load.resets <= max(1, kills // 10) * 8  # each client's one connection, at most
    statuses = Counter(status for seen in load.seen.values() for status, _ in seen.elements())
    print(f"answers {dict(statuses)}, connection resets while the front was killed {load.resets}, lost {load.lost.total()}")
    assert {408, 424} <= set(statuses)  # the slow and the bad were seen as what they are
    if kills >= LONG:
        flat(shop, load)


def rotate(shop: Any, load: Load, turns: int) -> None:
    for turn in range(turns):
        new = f"key-{turn}"
        shop.keys(primary=load.key, secondary=new, signing="")
        load.key = new
        load.settle()  # every client has moved
        shop.keys(primary="other", secondary=new, signing="")
    shop.keys(primary="first-key", secondary=load.key, signing="")


def kill(shop: Any, name: str, chance: random.Random) -> None:
    before = shop.status()["deployments"][name]
    os.kill(chance.choice(before["instances"])["pid"], signal.SIGKILL)
    shop.until(lambda s: s["deployments"][name]["restarts"] > before["restarts"], "noticed")
    shop.until_ready(name)


def kill_front(shop: Any) -> None:
    before = shop.status()["front"]["pid"]
    os.kill(before, signal.SIGKILL)
    shop.until(lambda s: s["front"]["pid"] not in (0, before), "started again")
    assert shop.ask(payload(0.5)).status == 200


def flat(shop: Any, load: Load) -> None:
    """See that the memory of all processes stays where it is over 200,000 requests."""
    processes = {p.pid: p for p in [shop.host(), *shop.host().children()]}
    reached = load.answered + 20_000
    while load.answered < reached:  # all is loaded, all buffers are full
        time.sleep(1)
    before = {pid: process.memory_info().rss for pid, process in processes.items()}
    reached = load.answered + 200_000
    while load.answered < reached:
        time.sleep(1)
    grown = {pid: (process.memory_info().rss - before[pid]) / 2**20 for pid, process in processes.items()}
    print(f"MiB grown over 200,000 requests: {grown}")
    assert max(grown.values()) < 16, grown


def test_a_full_disk_loses_what_is_collected_and_no_answer(shop: Any, load: Load) -> None:
    def dropped() -> list[str]:
        metrics = shop.ask(b"", "/metrics", "GET").body.decode()
        return [line for line in metrics.splitlines() if line.startswith("mlops_nb_dropped_total") and 'deployment="blue"' in line]

    shop.save(traffic={"blue": 100})
    load.settle("live")
    seen = load.during(lambda: load.until(dropped, "dropped"))
    assert set(seen["live"]) == {(200, "blue")}
