"""The run widget: it says what the run's folder says, follows it while it changes, and ends by itself."""

import json
import os
import random
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from mlops_nb.core.files import append_line, write_file
from mlops_nb.core.pipeline import run_pipeline
from mlops_nb.core.records import SpecificationError, StepFailed
from mlops_nb.core.runs import load_run
from mlops_nb.core.settings import Settings
from mlops_nb.widgets import run as module
from mlops_nb.widgets.graph import lay_out
from mlops_nb.widgets.run import RunView, describe, tail, watch
from mlops_nb.widgets.still import as_html, draw, duration

NEEDS = {"data": [], "train": ["data"], "features": ["data"], "stage": ["train", "features", "data"]}


class Made:
    """A run's folder, written line by line as a runner writes it."""

    def __init__(self, folder: Path, environment: str = "dev"):
        self.folder, self.clock = folder, 0.0
        about = {"id": folder.name, "scenario": "stones", "environment": environment, "user": "ada", "persona": "data_scientist",
                 "values": {}, "cwd": str(folder), "started": at(0), "planned": list(NEEDS), "needs": NEEDS}
        write_file(folder / "run.json", json.dumps(about))
        self.sign_in()

    def sign_in(self) -> None:
        write_file(self.folder / "pid", f"{os.getpid()} {psutil.Process().create_time()}")

    def sign_out(self) -> None:
        (self.folder / "pid").unlink()

    def note(self, second: float, step: str, state: str, **more: Any) -> None:
        append_line(self.folder / "journal.jsonl", {"step": step, "state": state, "at": at(second), **more})

    def end(self) -> None:
        for step in NEEDS:
            self.note(9, step, "done", seconds=1.0)
        self.sign_out()

    def shown(self, step: str = "") -> dict[str, Any]:
        found = describe(load_run(self.folder))
        return {one["name"]: one for one in found["steps"]}[step] if step else found


def at(second: float) -> str:
    return f"2026-11-21T10:00:{second:09.6f}+00:00"


@pytest.fixture
def run(project: Settings) -> Made:
    return Made(project.runs / "20261121T100000000-stones-1a2b")


def soon(condition: Callable[[], Any], seconds: float = 60) -> bool:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(condition())


# --- where nodes and edges go ---


def test_every_step_stands_right_of_those_it_needs_and_side_by_side_with_its_equals() -> None:
    places = lay_out(NEEDS).places
    assert [places[step][0] for step in NEEDS] == [0, 1, 1, 2]
    assert places["train"][1] != places["features"][1]
    assert places["data"][1] == places["stage"][1] == 0.5  # in the middle of the two between them


def test_an_edge_that_others_imply_is_left_out() -> None:
    assert set(lay_out(NEEDS).edges) == {("data", "train"), ("data", "features"), ("train", "stage"), ("features", "stage")}


@pytest.mark.parametrize("seed", range(20))
def test_nothing_overlaps_in_any_graph(seed: int) -> None:
    chance = random.Random(seed)
    names = [f"step{number}" for number in range(14)]
    found = lay_out({name: [other for other in names[:number] if chance.random() < 0.2] for number, name in enumerate(names)})
    nodes = sorted(found.places.values())
    assert all(below - above >= 1 for (column, above), (same, below) in pairwise(nodes) if column == same)
    bends = {bend for places in found.edges.values() for bend in places[1:-1]}
    assert not [bend for bend in bends for node in nodes if bend[0] == node[0] and abs(bend[1] - node[1]) < 0.5]


# --- what the folder says ---


def test_steps_are_shown_as_the_journal_tells_them(run: Made) -> None:
    run.note(0, "data", "running")
    run.note(3, "data", "done", seconds=3.0)
    run.note(3, "train", "running", attempt=1)
    run.note(5, "train", "running", attempt=2)
    write_file(run.folder / "progress/train.json", '{"cell": 3, "cells": 12}')
    train = run.shown("train")
    assert (train["state"], train["attempt"], train["cell"], train["cells"]) == ("running", 2, 3, 12)
    assert train["since"] - run.shown("data")["since"] == 3  # the first attempt counts
    assert run.shown("stage")["state"] == ""
    assert run.shown()["followed"] == "train"  # what runs is looked at first
    run.note(20, "train", "failed", seconds=17.0, message="KeyError: 'price'")
    assert run.shown("train")["message"] == "KeyError: 'price'"


def test_the_time_of_a_run_is_that_in_which_something_ran(run: Made) -> None:
    run.note(0, "data", "running")
    run.note(3, "data", "done", seconds=3.0)
    run.note(10, "train", "running")  # continued after a pause
    run.note(11, "features", "running")
    run.note(14, "train", "done", seconds=4.0)
    run.note(15, "features", "done", seconds=4.0)
    assert run.shown()["seconds"] == 3 + 5
    run.note(20, "stage", "running")  # killed in this second, and continued much later
    run.note(50, "stage", "running")
    run.note(52, "stage", "done", seconds=2.0)
    assert run.shown()["seconds"] == 3 + 5 + 2


def test_a_step_whose_process_is_gone_has_stopped(run: Made) -> None:
    run.note(0, "data", "running")
    assert (run.shown()["state"], run.shown("data")["state"]) == ("running", "running")
    run.sign_out()
    assert (run.shown()["state"], run.shown("data")["state"]) == ("stopped", "stopped")


def test_trials_are_grouped_under_their_step(run: Made) -> None:
    run.note(0, "train", "running")
    for number, metric in enumerate([0.91, 0.93]):
        run.note(1, f"train/{number}", "running", trial=number, values={"depth": number})
        run.note(2, f"train/{number}", "done", seconds=1.0, trial=number, values={"depth": number}, metric=metric)
    run.note(3, "train/2", "running", trial=2, values={"depth": 2})
    trials = run.shown("train")["trials"]
    assert [(trial["state"], trial["metric"], trial["values"]["depth"]) for trial in trials] == [
        ("done", 0.91, 0), ("done", 0.93, 1), ("running", None, 2)]  # fmt: skip
    assert [step["name"] for step in run.shown()["steps"]] == list(NEEDS)


def test_a_skipped_step_leads_to_the_notebook_of_the_run_that_made_it(run: Made, project: Settings) -> None:
    earlier = project.runs / "20261120T100000000-stones-9f9f"
    write_file(earlier / "10_data.ipynb", "{}")
    write_file(earlier / "10_data.html", "<p>")
    run.note(0, "data", "skipped", notebook=str(earlier / "10_data.ipynb"))
    data = run.shown("data")
    assert (data["from"], data["notebook"], data["report"]) == (
        earlier.name, str(earlier / "10_data.ipynb"), str(earlier / "10_data.html"))  # fmt: skip


def test_a_logs_end_is_read_as_a_terminal_shows_it(run: Made) -> None:
    lines = "".join(f"line {number} of a long log\n" for number in range(5_000))
    write_file(run.folder / "log/train.log", lines + "1 %\r50 %\r100 %\n\x1b[32mdone\x1b[0m\n")
    shown = tail(run.folder, "train").splitlines()
    assert shown[-3:] == ["line 4999 of a long log", "100 %", "done"]
    assert len(shown) <= 60
    assert tail(run.folder, "stage") == ""


@pytest.mark.parametrize(("seconds", "said"), [(3.21, "3.2 s"), (41.4, "41 s"), (125, "2 min 05 s"), (4_020, "1 h 07 min")])
def test_durations_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_a_state_that_is_new_to_it_is_shown_as_it_is(run: Made) -> None:
    run.note(0, "data", "queued")
    assert "queued" in as_html(draw(load_run(run.folder)), run.shown(), {})


# --- following ---


def test_a_change_is_seen_and_the_end_ends_it(run: Made, project: Settings) -> None:
    view = watch("1a2b", project)
    run.note(0, "data", "running")
    assert soon(lambda: view.shown["steps"][0]["state"] == "running")
    write_file(run.folder / "log/data.log", "53,940 rows read\n")
    assert soon(lambda: view.tails.get("data") == "53,940 rows read")
    write_file(run.folder / "progress/data.json", '{"cell": 1, "cells": 4}')
    assert soon(lambda: view.shown["steps"][0]["cells"] == 4)
    run.end()
    assert soon(lambda: view.shown["state"] == "done")
    assert soon(lambda: not view.following)


def test_closing_it_stops_following(run: Made) -> None:
    view = RunView(run.folder)
    assert view.following
    view.close()
    assert soon(lambda: not view.following)


def test_a_run_that_waits_for_a_person_is_followed_until_it_goes_on(run: Made) -> None:
    run.note(0, "data", "waiting", message="mlops-nb approve stones")
    run.sign_out()
    view = RunView(run.folder)
    assert (view.shown["state"], view.shown["followed"]) == ("waiting", "data")
    time.sleep(2.5)
    assert view.following
    run.sign_in()
    run.note(1, "data", "running")
    assert soon(lambda: view.shown["state"] == "running")
    view.close()


def test_a_run_that_is_over_is_shown_and_not_followed(run: Made) -> None:
    run.end()
    view = RunView(run.folder)
    assert view.shown["state"] == "done"
    assert not view.following


def test_a_folder_that_vanishes_ends_it_quietly(run: Made) -> None:
    view = RunView(run.folder)
    run.folder.rename(run.folder.with_name("gone"))
    assert soon(lambda: not view.following)


def test_a_quiet_run_is_not_read_again(run: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    run.note(0, "data", "running")
    looks: list[str] = []
    for name in ("_marks", "load_run", "read_lines"):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given, name=name, real=real: looks.append(name) or real(*given))
    view = RunView(run.folder)
    assert soon(lambda: looks.count("_marks") > 4)
    assert set(looks[4:]) == {"_marks"}  # at first it is read
    run.note(1, "data", "done", seconds=1.0)
    assert soon(lambda: "load_run" in looks[4:])
    view.close()


def test_a_log_is_sent_when_somebody_looks_at_its_step(run: Made) -> None:
    run.note(0, "data", "done", seconds=1.0)
    run.note(1, "train", "running")
    write_file(run.folder / "log/data.log", "53,940 rows read\n")
    view = RunView(run.folder)
    assert "data" not in view.tails
    view.selected = "data"
    assert view.tails["data"] == "53,940 rows read"
    view.selected = "../../settings"  # no step of this run
    assert set(view.tails) == {"train"}
    view.close()


def test_an_unknown_run_is_refused(run: Made, project: Settings) -> None:
    with pytest.raises(SpecificationError, match="No run 'nosuch'"):
        watch("nosuch", project)


# --- without a kernel ---


def test_a_report_keeps_the_last_state_without_scripts(run: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    run.note(0, "train", "failed", seconds=2.0, message="KeyError: '<price>'")
    run.sign_out()
    view = RunView(run.folder)
    live, _ = view._repr_mimebundle_()
    assert {"application/vnd.jupyter.widget-view+json", "text/html", "text/plain"} <= set(live)
    monkeypatch.setenv("MLOPS_NB_HEADLESS", "1")
    still = view._repr_mimebundle_()
    assert set(still) == {"text/html", "text/plain"}
    assert "train: failed after 2.0 s" in still["text/plain"]
    assert "KeyError: &#x27;&lt;price&gt;&#x27;" in still["text/html"]
    assert "<script" not in still["text/html"]


def test_a_report_gives_away_no_path_of_this_machine(run: Made, project: Settings) -> None:
    write_file(run.folder / "10_data.ipynb", "{}")
    run.note(0, "data", "done", seconds=1.0, notebook="10_data.ipynb")
    page = as_html(draw(load_run(run.folder)), run.shown(), {})
    assert str(project.root) not in page


# --- a real one ---


@pytest.mark.slow
def test_a_run_in_this_very_kernel_is_shown_with_its_notebooks(project: Settings, shop: Any) -> None:
    with pytest.raises(StepFailed):
        run_pipeline(project, shop("print('rows read')\n# %%\n1 / 0"), {"rows": "3"})
    view = watch("", project)
    data, train = view.shown["steps"]
    assert (data["state"], train["state"], train["needs"]) == ("done", "failed", ["data"])
    assert Path(train["notebook"]).is_file()
    assert Path(train["report"]).is_file()
    assert "ZeroDivisionError" in train["message"]
    assert view.shown["followed"] == "train"
    assert "rows read" in view.tails["train"]
