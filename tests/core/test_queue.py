"""Rows for people: each once, in order, whoever is killed while writing."""

import datetime as dt
import json
import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from mlops_nb.core.ledger import entries
from mlops_nb.core.queue import Item, list_queues, put, queue_file, read
from mlops_nb.core.records import SpecificationError

ROWS = [Item(f"r{n}", {"carat": n / 10}, n * 100.0, float(n), "changed most", "deployment:dev.diamonds/blue") for n in range(5)]


def test_an_item_is_there_once_and_in_order(project):
    assert (put(project, "diamonds", ROWS[:3]), put(project, "diamonds", [*ROWS[1:], ROWS[4]])) == (3, 2)
    assert read(project, "diamonds") == ROWS
    assert list_queues(project) == ["diamonds"]
    assert read(project, "empty") == []
    [first, second] = entries(project, action="queue")
    assert (first.subject, first.inputs, second.details["items"]) == ("queue:dev.diamonds", ["deployment:dev.diamonds/blue"], 2)


def test_whatever_a_data_frame_holds_becomes_json(project):
    when = pd.Timestamp("2026-11-20", tz="UTC")
    frame = pd.DataFrame({"n": np.array([1], "int8"), "x": [math.nan], "when": [when], "pixels": [np.eye(2)]})
    put(project, "all", [Item("a", frame.to_dict("records")[0], np.float32(0.5), math.inf)])
    line = json.loads(queue_file(project, "all").read_text(), parse_constant=pytest.fail)
    assert line["data"] == {"n": 1, "x": None, "when": "2026-11-20 00:00:00+00:00", "pixels": [[1.0, 0.0], [0.0, 1.0]]}
    assert (line["prediction"], line["score"]) == (0.5, None)


@pytest.mark.parametrize("torn", [b'{"id": "r9", "da', b"\xff\xfe", b"[1, 2]\n", b"null\n"])
def test_a_torn_line_is_no_obstacle(project, torn):
    put(project, "diamonds", ROWS[:1])
    with queue_file(project, "diamonds").open("ab") as file:
        file.write(torn)
    assert put(project, "diamonds", ROWS) == 4
    assert read(project, "diamonds") == ROWS


def test_processes_that_put_the_same_rows_put_them_once(project):
    code = f"""
from mlops_nb.core.queue import Item, put
from mlops_nb.core.settings import load_settings
settings = load_settings(root={str(project.root)!r})
print(sum(put(settings, "q", [Item(str(n), {{}}) for n in range(20 * k, 20 * k + 40)]) for k in range(5)))
"""
    workers = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert sum(int(worker.communicate()[0]) for worker in workers) == 120
    assert sorted(int(item.id) for item in read(project, "q")) == list(range(120))


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 101, "line\nbreak"])
def test_a_name_that_is_no_file_name_is_refused(project, name):
    with pytest.raises(SpecificationError, match="letters, digits"):
        put(project, name, ROWS)


def test_times_are_kept_as_they_were_written(project):
    at = dt.datetime(2026, 11, 20, tzinfo=dt.UTC).isoformat()
    put(project, "diamonds", [Item("a", {}, at=at)])
    assert read(project, "diamonds")[0].at == at
