"""The classical road, walked by the command line as a person would, on a table of real stones."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mlops_nb.core import ledger
from mlops_nb.core.runs import list_runs
from mlops_nb.core.settings import Settings, load_settings
from mlops_nb.setup.project import lay_project

pytestmark = pytest.mark.slow
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "tabular"
BUDGET = ("-p", "budget_seconds=600", "-p", "budget_trials=5")  # each family once on any machine: the same model each time


class Shop:
    """A project with a table of 2,500 stones, and the command line run in it."""

    def __init__(self, root: Path):
        from plotnine.data import diamonds

        lay_project(root)
        self.root = root
        self.stones = diamonds.sample(2500, random_state=1)
        self.stones.to_csv(root / "stones.csv", index=False)

    def __call__(self, *words: str, **variables: str) -> subprocess.CompletedProcess:
        command = [Path(sys.executable).with_name("mlops-nb"), *words]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("MLOPS_NB_")}
        variables = {"NO_COLOR": "1", "COLUMNS": "200", "MLOPS_NB_USER": "ada", **variables}
        return subprocess.run(command, cwd=self.root, capture_output=True, text=True, env=clean | variables)

    @property
    def settings(self) -> Settings:
        return load_settings("dev", self.root, user="ada")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    shop = Shop(tmp_path_factory.mktemp("shop"))
    yield shop
    shop("endpoint", "stop", "stones")


@pytest.fixture(scope="module")
def at_the_gate(shop):
    """The scenario has run up to its gate."""
    done = shop("run", "classical", "-p", "data=stones.csv", "-p", "target=price", "-p", "sensitive=cut", *BUDGET)
    assert done.returncode == 3, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def live(shop, at_the_gate):
    """The model has been approved and serves."""
    done = shop("approve", "stones", "--by", "grace", "--as", "project_lead", "--reason", "report read")
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_the_run_stops_at_the_gate_and_shows_the_command_that_approves(shop, at_the_gate):
    assert "mlops-nb approve stones" in at_the_gate.stderr
    [run] = list_runs(shop.settings)
    assert run.state == "waiting"
    assert run.steps == {"data": "done", "train": "done", "stage": "done", "deploy": "waiting"}
    for step in ("10_data", "20_train", "30_stage", "40_deploy"):
        assert (run.folder / f"{step}.ipynb").is_file()
        assert (run.folder / f"{step}.html").is_file()


def test_rows_are_cleaned_quarantined_and_never_lost(shop, at_the_gate):
    from mlops_nb.data_estate import tables

    bronze, gold, bad = (tables.read_table(shop.settings, "stones", layer) for layer in ("bronze", "gold", "quarantine"))
    assert len(bronze) == len(shop.stones)
    assert len(gold) + len(bad) == len(bronze)
    assert bad["reason"].str.len().gt(0).all()
    assert (gold[["x", "y", "z"]] > 0).all(axis=None)  # the stones without a dimension are out


def test_the_trainer_may_not_approve(shop, at_the_gate):
    refused = shop("approve", "stones", "--reason", "mine is fine")
    assert refused.returncode == 3
    assert "ada trained" in refused.stderr


def test_a_process_may_not_approve(shop, at_the_gate):
    refused = shop("approve", "stones", "--by", "robot", "--as", "cicd_process")
    assert refused.returncode == 3
    assert "cicd_process may not approve in dev" in refused.stderr


def test_after_the_approval_the_endpoint_answers(shop, live):
    request = shop.root / "request.json"
    columns = [c for c in shop.stones if c != "price"]
    rows = shop.stones[columns].head(2).astype(object).values.tolist()
    request.write_text(json.dumps({"input_data": {"columns": columns, "index": [0, 1], "data": rows}}))
    answer = shop("invoke", "stones", "request.json")
    assert answer.returncode == 0, answer.stderr
    prices = json.loads(answer.stdout)
    assert len(prices) == 2
    assert all(100 < price < 25_000 for price in prices)


def test_a_column_that_changed_its_type_is_told(shop, live):
    columns = [c for c in shop.stones if c != "price"]
    row = shop.stones[columns].head(1).astype(object).values.tolist()[0]
    row[columns.index("carat")] = "heavy"
    (shop.root / "odd.json").write_text(json.dumps({"input_data": {"columns": columns, "data": [row]}}))
    odd = shop("invoke", "stones", "odd.json")
    assert odd.returncode == 2
    assert "carat" in odd.stderr
    assert "heavy" in odd.stderr


def test_the_whole_road_is_in_the_ledger(shop, live):
    assert ledger.verify(shop.settings) == []
    deployment = "deployment:dev.stones/blue"
    actions = [entry.action for entry in ledger.lineage(shop.settings, deployment)]
    assert {"write", "train", "register", "deploy"} <= set(actions)
    [approval] = ledger.entries(shop.settings, action="approve")
    assert (approval.user, approval.persona) == ("grace", "project_lead")
    assert approval.details["reason"] == "report read"


def test_an_idle_endpoint_raises_no_alert(shop, live):
    quiet = shop("monitor", "once", "stones")
    assert quiet.returncode == 0, quiet.stderr
    assert "quiet" in quiet.stdout
    assert not ledger.entries(shop.settings, action="alert")


@pytest.fixture(scope="module")
def drifted(shop, live):
    """Customers have asked for 200 stones three times as heavy as any that was sold; the monitor has looked."""
    from mlops_nb.outer_loop import online

    asked = shop.stones.head(200).assign(carat=lambda stones: stones["carat"] * 3).drop(columns="price")
    online.invoke(shop.settings, "stones", asked)
    alert = shop("monitor", "once", "stones")
    assert alert.returncode == 0, alert.stderr
    return alert


def retraining(shop):
    from mlops_nb.outer_loop import history

    [action] = [action for action in history.actions(shop.settings) if action.kind == "retrain"]
    return action


def test_drift_is_an_alert_that_says_why_and_a_supervised_retraining_waits_for_a_person(shop, drifted):
    action = retraining(shop)
    assert action.state == "waiting"
    assert f"mlops-nb monitor approve {action.id}" in drifted.stdout
    assert "carat" in action.details["diagnosis"]
    assert Path(action.details["report"]).is_file()
    [entry] = ledger.entries(shop.settings, action="alert")
    assert any("carat" in line for line in entry.details["breached"])
    refused = shop("monitor", "approve", action.id, "--by", "robot", "--as", "cicd_process")
    assert refused.returncode == 3
    assert retraining(shop).state == "waiting"


def test_an_approved_retraining_starts_and_a_model_that_is_not_better_stays_out(shop, drifted):
    before = ledger.entries(shop.settings, action="register")
    agrees = ("--by", "grace", "--as", "project_lead", "--reason", "the diagnosis says so")
    again = shop("monitor", "approve", retraining(shop).id, *agrees)
    assert again.returncode == 0, again.stderr
    action = retraining(shop)
    assert action.state == "failed"  # the same table gives no better model: a gate says no
    assert "The champion stays" in action.details["problem"]
    [rejected] = ledger.entries(shop.settings, action="reject")
    assert rejected.details["champion"] == "model:dev.stones/2"
    assert any(rejected.subject in str(entry) for entry in ledger.entries(shop.settings, action="notify"))
    assert [e for e in ledger.entries(shop.settings, action="register") if e.subject.startswith("model:")] == [
        e for e in before if e.subject.startswith("model:")]  # fmt: skip
    assert [run.state for run in list_runs(shop.settings) if run.id == action.run] == ["closed"]


def test_a_refused_classifier_ends_its_run_and_is_in_the_ledger(tmp_path):
    shop = Shop(tmp_path / "refused")
    done = shop("run", "classical", "-p", "data=stones.csv", "-p", "target=cut", *BUDGET)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "waits for an approval" in done.stderr
    silent = shop("refuse", "--by", "grace", "--as", "project_lead")
    assert silent.returncode == 2
    assert "reason" in silent.stderr
    refused = shop("refuse", "--by", "grace", "--as", "project_lead", "--reason", "prices too old")
    assert refused.returncode == 3
    [entry] = ledger.entries(shop.settings, action="refuse")
    assert entry.details["reason"] == "prices too old"
    assert list_runs(shop.settings)[-1].state == "closed"
    assert "Endpoints" not in shop("status").stdout  # nothing was deployed


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared data")
def test_the_taxi_table_reaches_the_gate_and_its_published_request_is_answered(tmp_path):
    shop = Shop(tmp_path / "taxi")
    shutil.copy(SHARED / "taxi-data.csv", shop.root)
    done = shop("run", "classical", "-p", "data=taxi-data.csv", "-p", "target=cost", *BUDGET)
    assert done.returncode == 3, done.stdout + done.stderr
    assert shop("approve", "--by", "grace", "--as", "project_lead").returncode == 0
    try:
        answer = shop("invoke", "taxi-data", str(SHARED / "taxi-test-request.json"))
        assert answer.returncode == 0, answer.stderr
        short, long = json.loads(answer.stdout)
        assert 2 < short < 15 < long < 120
    finally:
        shop("endpoint", "stop", "taxi-data")
