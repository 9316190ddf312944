"""Whatever a crash, a retry or a stranger left in a collection, its rows are read once and the rest is counted."""

import datetime as dt
import json
from pathlib import Path
from typing import Any

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


def collect(settings: Settings, *lines: str | bytes, hour: str = "2026/11/20/09", collection: str = "model_inputs") -> None:
    path = settings.collected / "diamonds" / "blue" / collection / hour / "instance.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines))


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
