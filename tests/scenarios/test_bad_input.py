"""Bad input: what is wrong, the value, what to do; the right exit code; nothing half-written."""

import pandas as pd
import pytest

from mlops_nb.core.runs import list_runs
from mlops_nb.core.settings import load_settings
from mlops_nb.setup.project import lay_project

ROWS = 200


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A laid project with one good table, `good.csv`, as the current folder."""
    lay_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    good = pd.DataFrame({"size": range(ROWS), "kind": ["a", "b"] * (ROWS // 2), "cost": [n * 2.5 for n in range(ROWS)]})
    good.to_csv("good.csv", index=False)
    return tmp_path


@pytest.fixture(scope="module")
def tables():
    """Tables that nothing can be learned from, by the name of their fault."""
    good = pd.DataFrame({"size": range(ROWS), "cost": [n * 2.5 for n in range(ROWS)]})
    return {
        "empty": good[:0],
        "one class": good.assign(cost="cheap"),
        "only nulls": good.assign(cost=None),
        "too short": good[:10],
    }


@pytest.mark.parametrize("scenario", ["classic", "../classical"])
def test_an_unknown_scenario_names_the_known_ones(here, mlops_nb_command, scenario):
    done = mlops_nb_command("run", scenario)
    assert done.rc == 2
    assert f"No scenario '{scenario}'" in done.stderr
    assert "classical" in done.stderr


def test_unknown_and_ill_typed_parameters_are_all_listed_before_anything_runs(here, mlops_nb_command):
    done = mlops_nb_command("run", "classical", "-p", "dato=good.csv", "-p", "budget_seconds=long")
    assert done.rc == 2
    assert "no input 'dato'" in done.stderr
    assert "budget_seconds = 'long'" in done.stderr
    assert list_runs(load_settings()) == []


def test_a_word_that_is_no_parameter(here, mlops_nb_command):
    done = mlops_nb_command("run", "classical", "-p", "target")
    assert done.rc == 2
    assert "'target': NAME=VALUE is expected" in done.stderr


def test_outside_a_project(tmp_path, monkeypatch, mlops_nb_command):
    monkeypatch.chdir(tmp_path)
    done = mlops_nb_command("run", "classical")
    assert done.rc == 2
    assert "mlops-nb init" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "target", "told"),
    [
        ("gone.csv", "cost", "No file gone.csv"),
        ("good.csv", "price", "No column 'price'"),
        ("empty", "cost", "rows"),
        ("one class", "cost", "cheap"),
        ("only nulls", "cost", "cost"),
    ],
)
def test_a_table_that_cannot_be_used_fails_its_step_and_says_why(here, tables, mlops_nb_command, data, target, told):
    if data in tables:
        tables[data].to_csv("table.csv", index=False)
    file = "table.csv" if data in tables else data
    done = mlops_nb_command("run", "classical", "-p", f"data={file}", "-p", f"target={target}")
    assert done.rc == 4, done.stdout + done.stderr
    assert told in done.stderr
    assert "10_data.ipynb, cell" in done.stderr
    assert "mlops-nb notebook debug" in done.stderr


def test_nothing_waits_for_an_approval(here, mlops_nb_command):
    done = mlops_nb_command("approve", "good", "--by", "grace", "--as", "project_lead")
    assert done.rc == 2
    assert "No model good waits" in done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("invoke", "nowhere"), "nowhere"),
        (("traffic", "nowhere", "blue=100"), "nowhere"),
        (("monitor", "once", "nowhere"), "nowhere"),
        (("endpoint", "start", "nowhere"), "nowhere"),
        (("deploy", "nowhere"), "nowhere"),
        (("invoke", "nowhere", "gone.json"), "gone.json"),
    ],
)
def test_an_endpoint_that_is_not_there(here, mlops_nb_command, words, told):
    done = mlops_nb_command(*words)
    assert done.rc == 2, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr
