"""Whatever a crash, a retry or a stranger left in a collection, its rows are read once and the rest is counted."""

import datetime as dt
import json
import os
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mlops_nb.core.records import Deployment
from mlops_nb.core.settings import Settings
from mlops_nb.outer_loop.collected import read_collected, read_folder

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "monitoring"
BLUE = Deployment("diamonds", "blue", "model:dev.diamonds/1", "dev")
NINE = dt.datetime(2026, 11, 20, 9, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)


def event(request: str, *rows: dict[str, Any], time: str = "2026-11-20T09:30:00Z", version: str = "1") -> str:
    return json.dumps({"specversion": "1.0", "id": f"id-{request}", "type": "azureml.inference.model_inputs", "time": time,
                       "data": rows, "correlationid": request, "modelversion": version})


def collect(settings: Settings, *lines: str | bytes, hour: str = "2026/11/20/09", collection: str = "model_inputs",
            age: float = 3600) -> Path:
    """Lay a file of lines that nobody has written to for `age` seconds; the last line has no end."""
    path = settings.collected / "diamonds" / "blue" / collection / hour / "instance.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines))
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_every_row_has_an_id_of_request_and_place(project: Settings) -> None:
    collect(project, event("a", {"carat": 0.3}), event("b", {"carat": 0.4}, {"carat": 0.5}))
    found = read_collected(project, BLUE, "model_inputs", NINE, NINE + HOUR)
    assert list(found.frame["correlationid"]) == ["a_0", "b_0", "b_1"]
    assert list(found.frame["carat"]) == [0.3, 0.4, 0.5]
    assert (found.requests, found.faults) == (2, "")


def test_torn_repeated_and_foreign_lines_are_counted_never_fatal(project: Settings) -> None:
    a, b = event("a", {"carat": 0.3}), event("b", {"carat": 0.4})
    stored_elsewhere = json.dumps({"specversion": "1.0", "id": "x", "dataref": "blob"})
    collect(project, a, a, "[1, 2]", '"text"', '{"hello": 1}', stored_elsewhere, b"\xff\xfe", "", b, event("c", {"carat": 1})[:60])
    found = read_collected(project, BLUE, "model_inputs", NINE, NINE + HOUR)
    assert list(found.frame["correlationid"]) == ["a_0", "b_0"]
    assert (found.torn, found.repeated, found.foreign) == (2, 1, 4)


def test_a_file_is_read_while_it_grows(project: Settings) -> None:
    a, b = event("a", {"carat": 0.3}), event("b", {"carat": 0.4})
    path = collect(project, a, b[:80], age=0)
    found = read_collected(project, BLUE, "model_inputs", NINE, NINE + HOUR)
    assert (found.requests, found.unfinished, found.faults) == (1, 1, "")  # not torn: the rest of it is on its way
    with path.open("a") as file:
        file.write(b[80:] + "\n")
    found = read_collected(project, BLUE, "model_inputs", NINE, NINE + HOUR)
    assert (list(found.frame["correlationid"]), found.unfinished) == (["a_0", "b_0"], 0)


def test_a_line_cut_off_in_the_middle_of_a_file_is_torn_however_new_the_file(project: Settings) -> None:
    collect(project, event("a", {"carat": 0.3})[:80], event("b", {"carat": 0.4}), age=0)
    found = read_collected(project, BLUE, "model_inputs", NINE, NINE + HOUR)
    assert (found.requests, found.torn, found.unfinished) == (1, 1, 0)


def test_a_file_that_is_tidied_away_meanwhile_is_told(project: Settings) -> None:
    path = collect(project, event("a", {"carat": 0.3}))
    (path.parent / "gone.jsonl").symlink_to(path.parent / "nowhere")  # listed, and not there any more when it is opened
    found = read_collected(project, BLUE, "model_inputs", NINE, NINE + HOUR)
    assert (found.requests, found.faults) == (1, "1 missing")


def test_a_file_that_comes_late_is_in_the_window_of_its_folder(project: Settings) -> None:
    collect(project, event("a", {"carat": 0.3}))
    before = read_collected(project, BLUE, "model_inputs", NINE, NINE + HOUR).requests
    late = project.collected / "diamonds/blue/model_inputs/2026/11/20/09/other-instance.jsonl"
    late.write_text(event("b", {"carat": 0.4}) + "\n")
    assert (before, read_collected(project, BLUE, "model_inputs", NINE, NINE + HOUR).requests) == (1, 2)


@pytest.mark.parametrize(("said", "read"), [
    ("2026-11-20T10:30:00+01:00", "2026-11-20T09:30:00"), ("2026-11-20T04:30:00.5-05:00", "2026-11-20T09:30:00.5"),
    ("2026-11-20T09:30:00.1234567Z", "2026-11-20T09:30:00.123456"), ("2026-11-20T09:30:00", "2026-11-20T09:30:00")])
def test_an_events_time_may_be_of_any_zone(project: Settings, said: str, read: str) -> None:
    collect(project, event("a", {"carat": 1}, time=said))
    found = read_collected(project, BLUE, "model_inputs", NINE, NINE + HOUR)
    assert list(found.frame["time"]) == [pd.Timestamp(read, tz="UTC")]
    assert found.skewed == 0


def test_a_window_may_be_of_any_zone_and_must_be_of_one(project: Settings) -> None:
    collect(project, event("a", {"carat": 1}))
    madrid = dt.timezone(dt.timedelta(hours=1))
    assert read_collected(project, BLUE, "model_inputs", NINE.astimezone(madrid), (NINE + HOUR).astimezone(madrid)).requests == 1
    with pytest.raises(ValueError, match="has no time zone"):
        read_collected(project, BLUE, "model_inputs", NINE.replace(tzinfo=None), NINE + HOUR)


def test_a_clock_that_is_off_is_told(project: Settings) -> None:
    collect(project, event("fast", {"carat": 1}, time="2026-11-20T10:00:01Z"), event("right", {"carat": 1}))
    found = read_collected(project, BLUE, "model_inputs", NINE, NINE + HOUR)
    assert (found.requests, found.skewed, found.faults) == (2, 1, "")


ROWS: list[dict[str, Any]] = [
    {"whole": 1, "share": 0.5, "cut": "Ideal", "sold": True, "mixed": 1},
    {"whole": 2, "share": None, "cut": None, "sold": False, "mixed": "one"},
    {"whole": 3, "share": 2, "late": 1, "only null": None},
    {"whole": 4, "share": float("nan"), "cut": "Good", "sold": True, "list": [1, 2]}]


@pytest.mark.parametrize("block", [1, 2, 3, 100])
def test_a_table_is_the_same_however_many_rows_are_read_at_a_time(
        project: Settings, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr("mlops_nb.outer_loop.collected._BLOCK", block)
    collect(project, *(event(str(number), row) for number, row in enumerate(ROWS)))
    found = read_collected(project, BLUE, "model_inputs", NINE, NINE + HOUR).frame
    whole = pd.DataFrame(ROWS)
    for name in whole:
        assert found[name].isna().tolist() == whole[name].isna().tolist()
        assert found[name].dropna().tolist() == whole[name].dropna().tolist()
    kinds = {name: str(kind) for name, kind in found.dtypes.items()}
    assert [kinds[name] for name in ("whole", "share", "cut", "late")] == ["int64", "float64", "str", "float64"]
    assert found["time"].dtype == "datetime64[us, UTC]"


def test_many_records_take_little_more_memory_than_their_table(
        project: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark `monitoring` reads a million; these are few enough for every day."""
    row = {f"x{n}": n / 7 for n in range(20)} | {"cut": "Ideal"}
    collect(project, *(event(str(number), row) for number in range(10_000)))
    monkeypatch.setattr("mlops_nb.outer_loop.collected._BLOCK", 1_000)
    tracemalloc.start()
    frame = read_collected(project, BLUE, "model_inputs", NINE, NINE + HOUR).frame
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(frame) == 10_000
    assert peak < 10 * 2**20  # read in one block they take twice as much


def test_the_window_cuts_through_an_hour(project: Settings) -> None:
    collect(project, *(event(f"{m}", {"carat": 1}, time=f"2026-11-20T09:{m}:00Z") for m in (10, 20, 30)))
    minutes = dt.timedelta(minutes=1)
    found = read_collected(project, BLUE, "model_inputs", NINE + 10 * minutes, NINE + 30 * minutes)
    assert list(found.frame["correlationid"]) == ["10_0", "20_0"]  # from: included, to: excluded


def test_a_line_that_came_late_counts_in_the_hour_of_its_folder(project: Settings) -> None:
    collect(project, event("late", {"carat": 1}, time="2026-11-19T23:59:59Z"), event("timeless", {"carat": 1}, time="?"))
    assert read_collected(project, BLUE, "model_inputs", NINE, NINE + HOUR).requests == 2


def test_only_the_asked_version_and_collection(project: Settings) -> None:
    collect(project, event("a", {"carat": 1}), event("b", {"carat": 2}, version="2"), event("c", {"carat": 3}, version="default"))
    collect(project, event("a", {"prediction": 9.0}), collection="model_outputs")
    assert list(read_collected(project, BLUE, "model_inputs", NINE, NINE + HOUR, model_version=2).frame["carat"]) == [2]
    assert list(read_collected(project, BLUE, "model_outputs", NINE, NINE + HOUR).frame["prediction"]) == [9.0]


def test_a_feature_called_time_is_kept(project: Settings) -> None:
    collect(project, event("a", {"time": "noon"}))
    assert list(read_collected(project, BLUE, "model_inputs", NINE, NINE + HOUR).frame["time"]) == ["noon"]


def test_nothing_collected_is_an_empty_frame(project: Settings) -> None:
    found = read_collected(project, BLUE, "model_inputs", NINE, NINE + HOUR)
    assert found.frame.empty
    assert list(found.frame.columns) == ["correlationid", "time"]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the collected iris files are not here")
@pytest.mark.parametrize(("folder", "rows"), [("iris_model_inputs_no_drift", 75), ("iris_model_inputs_with_drift", 20)])
def test_files_that_azure_wrote(folder: str, rows: int) -> None:
    january = dt.datetime(2023, 1, 1, tzinfo=dt.UTC)
    found = read_folder(SHARED / folder, january, january + dt.timedelta(days=1))
    assert found.faults == ""
    assert len(found.frame) == rows
    assert {"sepal_length", "sepal_width", "petal_length", "petal_width"} <= set(found.frame.columns)


@pytest.mark.parametrize("folder", ["2026/11/20/09/05", "2026/11/20/09", "2026/11/20", "2026/11", "2026"])
def test_every_rolling_rate_is_read(project: Settings, folder: str) -> None:
    a, b = event("a", {"carat": 1}, time="2026-11-20T09:05:30Z"), event("b", {"carat": 2}, time="2026-11-20T10:30:00Z")
    collect(project, a, b, hour=folder)
    found = read_collected(project, BLUE, "model_inputs", NINE, NINE + HOUR)
    assert set(found.frame["correlationid"]) == ({"a_0", "b_0"} if folder.startswith("2026/11/20/09") else {"a_0"})
    assert read_collected(project, BLUE, "model_inputs", NINE.replace(year=2027), NINE.replace(year=2028)).requests == 0


def beside(request: str, address: str, kind: str = "application/json") -> str:
    return json.dumps({"specversion": "1.0", "id": request, "type": "azureml.inference.request", "time": "2026-11-20T09:30:00Z",
                       "correlationid": request, "datacontenttype": kind, "datainblob": "true", "data": address, "method": "POST"})


def test_a_payload_by_reference_is_read_from_beside_its_line_and_from_nowhere_else(project: Settings) -> None:
    secret = project.collected / "secret"
    collect(project, beside("a", "https://store.blob.core.windows.net/modeldata/mdc/large"), beside("b", "gone"),
            beside("c", secret.as_uri()), beside("d", "../../../../../secret"))
    (project.collected / "diamonds/blue/model_inputs/2026/11/20/09/large").write_text('[{"carat": 0.3}, {"carat": 0.4}]')
    secret.write_text('[{"carat": 9}]')
    found = read_collected(project, BLUE, "model_inputs", NINE, NINE + HOUR)
    assert list(found.frame["correlationid"]) == ["a_0", "a_1"]
    assert found.faults == "3 missing"


def test_bodies_are_read_as_they_came(project: Settings) -> None:
    collect(project, beside("image", "photo", "image/png"), event("json", {"carat": 1}), collection="request")
    (project.collected / "diamonds/blue/request/2026/11/20/09/photo").write_bytes(b"\x89PNG")
    found = read_collected(project, BLUE, "request", NINE, NINE + HOUR).frame
    assert dict(zip(found["correlationid"], found["data"], strict=True)) == {"image": b"\x89PNG", "json": [{"carat": 1}]}
    assert found["method"][0] == "POST"
