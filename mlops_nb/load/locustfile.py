"""Users who ask an endpoint one prepared request after the other; run by Locust, started by `mlops_nb.outer_loop.load`.

The variable MLOPS_NB_LOAD names a folder. `requests.json` is there from the start: a list of bodies. Locust's own start takes a
second, so it begins before the endpoint is ready, writes `ready`, and waits for `target.json`: address, headers, seconds.
`result.json` tells at the end what came back. By hand, with Locust's own page:

    MLOPS_NB_LOAD=FOLDER locust -f mlops_nb/load/locustfile.py
"""

import json
import os
import sys
import time
from collections import Counter
from itertools import cycle
from pathlib import Path
from typing import Any

import gevent
from locust import FastHttpUser, constant, events, task

FOLDER = Path(os.environ.get("MLOPS_NB_LOAD", "."))
BODIES = [body.encode() for body in json.loads((FOLDER / "requests.json").read_text())]
NEXT = cycle(BODIES)


class Seen:
    """What came back: latency of each answer, how many of each status, an example of each failure."""

    def __init__(self) -> None:
        self.milliseconds: list[float] = []  # of the answers with status 200
        self.statuses: Counter[str] = Counter()
        self.problems: dict[str, str] = {}
        self.began = self.ended = 0.0

    def note(self, response_time: float, response: Any, exception: BaseException | None, **_: Any) -> None:
        """Note one request that ended; Locust calls this."""
        status = str(getattr(response, "status_code", 0) or 0)  # 0: no answer at all
        self.ended = time.perf_counter()
        self.statuses[status] += 1
        if exception is None:
            self.milliseconds.append(round(response_time, 3))
        elif status not in self.problems:
            text = getattr(response, "text", "") or ""
            self.problems[status] = f"{exception} {text}".strip()[:300]


SEEN = Seen()
TARGET: dict[str, Any] = {}


@events.init.add_listener
def await_target(environment: Any, **_: Any) -> None:
    """Wait until the endpoint is ready; end with the process that wanted to know."""
    owner = os.getppid()
    (FOLDER / "ready").touch()
    while not (FOLDER / "target.json").is_file():
        if os.getppid() != owner:
            sys.exit(1)
        time.sleep(0.01)
    TARGET.update(json.loads((FOLDER / "target.json").read_text()))
    environment.host = TARGET["address"]
    events.request.add_listener(SEEN.note)


@events.test_start.add_listener
def begin(environment: Any, **_: Any) -> None:
    """Start the clock."""
    SEEN.began = time.perf_counter()
    if TARGET.get("seconds"):
        gevent.spawn(end, environment)


def end(environment: Any) -> None:
    """Quit when the time is over, but not before anything came back: a model may be slower than that."""
    gevent.sleep(TARGET["seconds"])
    while not SEEN.statuses:
        gevent.sleep(0.01)
    environment.runner.quit()


@events.quitting.add_listener
def tell(environment: Any, **_: Any) -> None:
    """Write what was seen, whole or not at all."""
    told = {
        "seconds": SEEN.ended - SEEN.began,
        "statuses": SEEN.statuses,
        "problems": SEEN.problems,
        "milliseconds": SEEN.milliseconds,
    }
    (FOLDER / "result.part").write_text(json.dumps(told))
    (FOLDER / "result.part").rename(FOLDER / "result.json")


class Client(FastHttpUser):
    """One user, who asks again as soon as an answer is there."""

    wait_time = constant(0)
    connection_timeout = network_timeout = 30.0

    @task
    def score(self) -> None:
        """Ask once."""
        self.client.post("/score", data=next(NEXT), headers=TARGET["headers"])
