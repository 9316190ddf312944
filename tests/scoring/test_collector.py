"""What is collected is complete, bounded and in Azure ML's layout, and no request ever waits for it or fails by it."""

import datetime as dt
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops_nb.outer_loop.collected import read_folder
from mlops_nb.scoring.collector import Collector, make_collector
from mlops_nb.scoring.config import Config, Wish
from mlops_nb.scoring.records import Rows

FRAME = pd.DataFrame({"carat": [0.3, 0.5], "cut": ["Ideal", None], "depth": [60, 61]})
BOTH = {"model_inputs": 1.0, "model_outputs": 1.0}
NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)


def collector(folder: Path, rates: dict[str, float], **options: Any) -> Collector:
    return Collector(folder, "/environments/dev/onlineEndpoints/shop/deployments/blue", "3", rates, **options)


def lines(folder: Path) -> list[bytes]:
    return [line for file in sorted(folder.rglob("*.jsonl")) for line in file.read_bytes().splitlines(keepends=True)]


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(folder)]


@pytest.mark.parametrize(("rate", "depth"), [("Minute", 5), ("Hour", 4), ("Day", 3), ("Month", 2), ("Year", 1)])
def test_the_folders_are_as_deep_as_the_rolling_rate_and_are_read_again(tmp_path: Path, rate: str, depth: int) -> None:
    written = collector(tmp_path, BOTH, rolling_rate=rate)
    written.collect(FRAME, np.array([1.5, np.nan]), "r", "client")
    written.close(wait=60)
    file, = (tmp_path / "model_outputs").rglob("*.jsonl")
    assert len(file.relative_to(tmp_path / "model_outputs").parts) == depth + 1
    found = read_folder(tmp_path / "model_inputs", NOW - DAY, NOW + DAY, model_version=3)
    assert found.frame[["carat", "depth", "correlationid"]].to_numpy().tolist() == [[0.3, 60, "r_0"], [0.5, 61, "r_1"]]
    answered, = events(tmp_path / "model_outputs")
    assert answered["data"] == [{"prediction": 1.5}, {"prediction": None}]
    assert answered["type"] == "azureml.inference.model_outputs"
    assert (answered["correlationid"], answered["xrequestid"], answered["modelversion"]) == ("r", "client", "3")
    assert answered["contentrange"] == "bytes 0-39/40"
    assert written.counts() == {"collected": {"model_inputs": 1, "model_outputs": 1}, "dropped": {}}


@pytest.mark.parametrize(("table", "rows"), [
    (np.array([[1.0, np.inf], [2.0, 4.0]]), [{"carat": 1.0, "depth": None}, {"carat": 2.0, "depth": 4.0}]),
    ([[1, 2**70]], [{"carat": 1, "depth": 2**70}]),
    ([[1, 2, 3]], [{"0": 1, "1": 2, "2": 3}]),
    ({"carat": [1], "cut": ["\ud800"]}, [{"carat": 1, "cut": "\ud800"}]),
    ([{"carat": 1}], [{"carat": 1}]),
    (Rows(pd.DataFrame({"carat": [1, 2, 3], "at": pd.to_datetime(["2026-01-01", None, None])}), 0, 2),
     [{"carat": 1, "at": "2026-01-01T00:00:00"}, {"carat": 2, "at": None}]),
])
def test_whatever_the_model_takes_becomes_records(tmp_path: Path, table: Any, rows: list[dict[str, Any]]) -> None:
    written = collector(tmp_path, {"model_inputs": 1.0}, columns=lambda: ["carat", "depth"])
    written.collect(table, None, "r", "r")
    written.close(wait=60)
    assert events(tmp_path)[0]["data"] == rows


def test_inputs_and_outputs_are_in_the_same_sample(tmp_path: Path) -> None:
    written = collector(tmp_path, {"model_inputs": 0.3, "model_outputs": 0.3, "response": 0.1})
    random.seed(5)
    for number in range(500):
        written.collect([[1]], [2], f"id-{number}", "x", answer=b"[2]")
    written.close(wait=60)
    asked, answered, bodies = ({e["correlationid"] for e in events(tmp_path / name)} for name in written.rates)
    assert asked == answered
    assert bodies < asked  # the draw is one for all collections
    assert 100 < len(asked) < 200
    assert written.counts()["dropped"] == {}  # what is not in the sample is not lost


def test_bodies_are_kept_as_they_came_with_the_headers_asked_for(tmp_path: Path) -> None:
    written = collector(tmp_path, {"request": 1.0, "response": 1.0}, capture_headers=["X-Shop", "Authorization"])
    headers = {"content-type": "application/json; charset=utf-8", "x-shop": "north", "authorization": "Bearer key"}
    written.collect(None, None, "a", "a", body=b'{"rows":\n [1e400]}', answer=b"[1.0]", headers=headers, path="/invocations")
    written.collect(None, None, "b", "b", body=b"carat\r\n1\r\n", answer=b"\x89PNG", headers={"content-type": "text/csv"},
                    answer_type="image/png")
    written.close(wait=60)
    (a, b), (_, image) = events(tmp_path / "request"), events(tmp_path / "response")
    assert (a["data"], a["path"], a["method"], a["headers"]) == ({"rows": [None]}, "/invocations", "POST", {"x-shop": "north"})
    assert (b["data"], b["datacontenttype"]) == ("carat\r\n1\r\n", "text/csv")
    assert (image["datainblob"], image["datacontenttype"]) == ("true", "image/png")
    assert next((tmp_path / "response").rglob(image["id"])).read_bytes() == b"\x89PNG"


def test_a_large_payload_stands_in_a_file_beside_its_line(tmp_path: Path) -> None:
    written = collector(tmp_path, {"model_inputs": 1.0})
    written.collect({"text": ["x" * 2**20] * 5}, None, "r", "r")
    written.close(wait=60)
    event, = events(tmp_path)
    assert len(lines(tmp_path)[0]) < 1000
    assert event["data"].startswith("file:///")
    assert event["datainblob"] == "true"
    found = read_folder(tmp_path / "model_inputs", NOW - DAY, NOW + DAY)
    assert (len(found.frame), found.faults) == (5, "")
    shutil.move(tmp_path / "model_inputs", tmp_path / "moved")  # what is read is beside the line, wherever that is
    assert len(read_folder(tmp_path / "moved", NOW - DAY, NOW + DAY).frame) == 5


def test_what_waits_is_bounded_by_its_bytes_and_the_rest_is_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = collector(tmp_path, {"model_inputs": 1.0, "request": 1.0})
    body, begun = b" " * 3 * 2**20, threading.Event()
    monkeypatch.setattr(written._files, "look", lambda: begun.wait(60))  # nothing is written before all are handed over
    for number in range(40):
        written.collect([[number]], None, str(number), "x", body=body)
    begun.set()
    written.close(wait=60)
    counts = written.counts()
    assert counts["collected"]["request"] + counts["dropped"]["request:QueueFull"] == 40
    assert counts["dropped"]["model_inputs:QueueFull"] == counts["dropped"]["request:QueueFull"] > 20
    written.collect([[1]], None, "late", "late")
    assert written.counts()["dropped"]["model_inputs:Closed"] == 1


def test_files_that_are_taken_away_are_made_anew(tmp_path: Path) -> None:
    written = collector(tmp_path / "collected", {"model_inputs": 1.0})
    written.collect(FRAME, None, "first", "x")
    while not written.counts()["collected"]:
        time.sleep(0.01)
    shutil.rmtree(tmp_path / "collected")
    written.collect(FRAME, None, "second", "x")
    written.close(wait=60)
    assert [event["correlationid"] for event in events(tmp_path)] == ["second"]


def test_a_folder_that_cannot_be_made_is_counted_and_no_requests_trouble(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    written = collector(tmp_path / "file", {"model_inputs": 1.0})
    for number in range(3):
        written.collect(FRAME, None, str(number), "x")
    written.close(wait=60)
    assert written.counts()["dropped"] == {"model_inputs:WriteFailed": 3}
    assert os.listdir(tmp_path) == ["file"]


def test_a_deployment_keeps_what_its_data_collector_block_says(tmp_path: Path) -> None:
    def wished(**collector: Any) -> Config:
        wish = Wish("model:dev.diamonds/7", "", collected=str(tmp_path), **collector)
        return Config("shop", "blue", "dev", "blue-0-1f3a", "unused", wish)

    assert make_collector(wished()) is None
    assert make_collector(wished(collector={"collections": {"model_inputs": 0.0}})) is None
    config = wished(collector={"collections": {"request": 1.0}, "rolling_rate": "Day", "capture_headers": ["x-shop"]})
    written = make_collector(config)
    assert written is not None
    assert make_collector(config) is written  # a scoring script's events go through the same
    written.collect(None, None, "r", "r", body=b"1", headers={"x-shop": "north"})
    written.close(wait=60)
    event, = events(tmp_path)
    assert (event["headers"], event["source"]) == ({"x-shop": "north"}, "/environments/dev/onlineEndpoints/shop/deployments/blue")
    assert len(list((tmp_path / "request").glob("????/??/??/blue-0-1f3a-*.jsonl"))) == 1


FULL = """
import resource, sys
from mlops_nb.scoring.collector import Collector
written = Collector(sys.argv[1], "here", "1", {"model_inputs": 1.0})
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))  # the disk takes no more
def collect(numbers):
    before = sum(map(sum, (part.values() for part in written.counts().values())))
    for number in numbers:
        written.collect([[number, "x" * 100]], None, str(number), "x")
    while sum(map(sum, (part.values() for part in written.counts().values()))) < before + len(numbers):
        pass
collect(range(200))
assert written.counts()["dropped"]["model_inputs:DiskFull"] == 200 - written.counts()["collected"]["model_inputs"], written.counts()
kept = written.counts()["collected"]["model_inputs"]
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
collect(range(200, 300))
written.close()
print(kept, written.counts()["collected"]["model_inputs"])
"""


def test_a_full_disk_drops_and_counts_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    before, after = map(int, done.stdout.split())
    assert 20 < before < 200
    assert after == before + 100
    kept = [event["correlationid"] for event in events(tmp_path)]  # every line is whole
    assert kept == [*map(str, range(before)), *map(str, range(200, 300))]


STORM = """
import sys, threading, time
from mlops_nb.scoring.collector import Collector
written = Collector(sys.argv[1], "here", "1", {"model_inputs": 1.0, "model_outputs": 1.0}, "Year")
number = 0
while True:
    for _ in range(50):
        number += 1
        written.collect([["x" * (number % 5000)]], [number], f"{sys.argv[2]}-{number}", "x")
    time.sleep(0.001)
"""


def all_write(folder: Path, files: int) -> bool:
    """Tell whether there are so many files, with some lines each."""
    found = list(folder.rglob("*.jsonl"))
    return len(found) == files and all(file.read_bytes().count(b"\n") > 20 for file in found)


def test_a_storm_of_kills_tears_no_line_but_the_last_of_a_file(tmp_path: Path) -> None:
    for storm in range(2):
        commands = [[sys.executable, "-c", STORM, str(tmp_path), f"{storm}-{number}"] for number in range(4)]
        running = [subprocess.Popen(command) for command in commands]
        until = time.monotonic() + 60
        while not all_write(tmp_path, 8 * (storm + 1)):
            assert time.monotonic() < until
            time.sleep(0.02)
        for process in running:
            time.sleep(random.uniform(0.02, 0.15))
            process.send_signal(signal.SIGKILL)
            process.wait()
    files = list(tmp_path.rglob("*.jsonl"))
    assert len(files) == 16  # a file of its own for every process and collection
    for file in files:
        whole = file.read_bytes().splitlines(keepends=True)[:-1]
        numbers = [int(json.loads(line)["correlationid"].rpartition("-")[2]) for line in whole]
        assert numbers == list(range(1, len(numbers) + 1))  # none lost between, none twice
    found = read_folder(tmp_path / "model_outputs", NOW - DAY, NOW + DAY)
    assert found.requests > 100
    assert found.faults in ("", *(f"{torn} torn" for torn in range(1, 9)))
