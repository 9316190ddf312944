"""What a model, its data and its endpoint have to stand before a person is asked."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import mlflow
import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import demographic_parity_difference, equalized_odds_difference
from mlflow.models import infer_signature
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from mlops_nb.core.records import GateClosed
from mlops_nb.outer_loop import staging
from mlops_nb.outer_loop.staging import Check

RANDOM = np.random.default_rng(3)
ROWS = pd.DataFrame({"carat": RANDOM.uniform(0.2, 2, 200), "table": RANDOM.normal(57, 2, 200),
                     "cut": RANDOM.choice(["Fair", "Good", "Ideal"], 200)})
PRICE = 4000 * ROWS["carat"] + RANDOM.normal(0, 200, 200)
ENCODE = make_column_transformer((SimpleImputer(), ["carat", "table"]), (OneHotEncoder(handle_unknown="ignore"), ["cut"]))
MODEL = make_pipeline(ENCODE, LinearRegression()).fit(ROWS, PRICE)


class Wrapped:
    """A model with one bad habit."""

    def __init__(self, habit: Callable[[pd.DataFrame], Any]):
        self.predict = habit


def failed(checks: list[Check]) -> set[str]:
    return {check.name for check in checks if check.passed is False}


def test_a_sound_model_keeps_every_promise() -> None:
    checks = staging.unit_tests(MODEL, ROWS.head(60), infer_signature(ROWS, PRICE))
    assert [check.passed for check in checks] == [True] * 9


def test_a_model_from_mlflow_brings_its_signature(tmp_path: Path) -> None:
    mlflow.sklearn.save_model(MODEL, tmp_path / "model", signature=infer_signature(ROWS, PRICE), pip_requirements=["scikit-learn"],
                              skops_trusted_types=["numpy.dtype"])
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    assert failed(staging.unit_tests(loaded, ROWS.head(60))) == set()
    assert failed(staging.unit_tests(loaded, ROWS.head(60).astype({"carat": str}))) >= {"signature"}


@pytest.mark.parametrize(("habit", "broken"), [
    (lambda f: MODEL.predict(f)[: max(len(f) - 1, 0)], {"shape and finiteness", "one row"}),
    (lambda f: np.where(f["carat"] > 1, np.inf, MODEL.predict(f)), {"shape and finiteness"}),
    (lambda f: MODEL.predict(f) + np.arange(len(f)), {"row order", "one by one"}),
    (lambda f: MODEL.predict(f) - f["carat"].mean(), {"one by one"}),
    (lambda f: f.iloc[:, 0].to_numpy(), {"column order"}),
    (lambda f: MODEL.predict(f) + f.shape[1], {"extra column"}),
    (lambda f: MODEL.predict(f) if f["cut"].notna().all() else 1 / 0, {"nulls"}),
    (lambda f: MODEL.predict(f) if len(f) != 1 else 1 / 0, {"one row", "one by one"}),
    (lambda f: MODEL.predict(f) if len(f) else np.array([0.0]), {"empty input"}),
    (lambda f: MODEL.predict(f) if len(f) else f["carat"].iloc[0], {"empty input"}),
])
def test_each_bad_habit_is_found(habit: Callable[[pd.DataFrame], Any], broken: set[str]) -> None:
    assert failed(staging.unit_tests(Wrapped(habit), ROWS.head(60))) >= broken


def test_a_signature_fault_names_the_column() -> None:
    sample = ROWS.head(60).drop(columns="table").assign(cut=1, color="D")
    (check,) = [c for c in staging.unit_tests(MODEL, sample, infer_signature(ROWS, PRICE)) if c.name == "signature"]
    assert check.detail == "no column 'table'; 'cut' is int64, not string; column 'color' is not in the signature"


def test_the_share_in_quarantine_is_judged() -> None:
    assert staging.data_quality(1000, 50)[0].passed is True
    assert staging.data_quality(1000, 51)[0].passed is False
    assert staging.data_quality(0, 0)[0].passed is False


def test_fairness_of_classes_is_fairlearns() -> None:
    groups = pd.Series(RANDOM.choice(["a", "b"], 600), name="group")
    truth, answer = pd.Series(RANDOM.integers(0, 2, 600)), RANDOM.integers(0, 2, 600)
    parity, odds = staging.fairness(truth, answer, groups, "classification")[1:]
    assert parity.value == pytest.approx(demographic_parity_difference(truth, answer, sensitive_features=groups))
    assert odds.value == pytest.approx(equalized_odds_difference(truth, answer, sensitive_features=groups))
    unfair = staging.fairness(truth, (groups == "a").astype(int).to_numpy(), groups, "classification")
    assert failed(unfair) == {"demographic parity difference", "equalized odds difference"}


def test_three_classes_are_judged_by_the_worst() -> None:
    groups = pd.Series(["a", "b"] * 150, name="group")
    truth = pd.Series(np.repeat(["x", "y", "z"], 100))
    never_z_for_b = np.where((truth == "z") & (groups == "b"), "y", truth)
    assert failed(staging.fairness(truth, never_z_for_b, groups, "classification")) >= {"equalized odds difference"}
    assert failed(staging.fairness(truth, truth.to_numpy(), groups, "classification")) == set()


def test_errors_of_a_regression_are_relative_to_the_group() -> None:
    groups = pd.Series(["small", "big"] * 100, name="size")
    truth = pd.Series([100.0, 10_000.0] * 100)
    alike = truth.to_numpy() * 1.1  # ten per cent for everybody
    assert failed(staging.fairness(truth, alike, groups, "regression")) == set()
    worse_for_small = np.where(groups == "small", truth * 1.5, truth * 1.1)
    ratio = staging.fairness(truth, worse_for_small, groups, "regression")[1]
    assert (ratio.passed, ratio.value) == (False, pytest.approx(5))


def test_a_small_group_is_shown_not_judged() -> None:
    groups = pd.Series(["a"] * 500 + ["b"] * 500 + ["rare"] * 29, name="group")
    truth = pd.Series(np.full(1029, 100.0))
    answer = np.where(groups == "rare", 900.0, 110.0)
    checks = staging.fairness(truth, answer, groups, "regression")
    assert failed(checks) == set()
    assert checks[0].detail == "rare (29 rows)"
    assert staging.by_group(truth, answer, groups, "regression").loc["rare", "relative error"] == pytest.approx(8)
    alone = staging.fairness(truth[:500], answer[:500], groups[:500], "regression")
    assert alone[1].passed is None
    assert "two are needed" in alone[1].detail


def test_nulls_and_numbers_make_groups_too() -> None:
    ages = pd.Series([*np.linspace(18, 80, 200), None, None], name="age")
    assert sorted(staging.groups_of(ages).value_counts()) == [2, 50, 50, 50, 50]
    assert "missing" in set(staging.groups_of(ages))


@pytest.fixture
def endpoint() -> Any:
    """A real endpoint in another thread; every tenth answer can be made to fail."""

    class Scores(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            row = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.asked += 1
            self.send_response(500 if server.broken and server.asked % 10 == 0 else 200)
            self.end_headers()
            self.wfile.write(json.dumps([len(row)]).encode())

        def log_message(self, *_: Any) -> None:
            pass

    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Scores)
    server.asked, server.broken = 0, False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_an_endpoint_is_measured_over_http(endpoint: Any) -> None:
    def invoke(record: dict[str, Any]) -> Any:
        address = f"http://127.0.0.1:{endpoint.server_port}/score"
        return urlopen(Request(address, json.dumps(record).encode()), timeout=5).read()

    rate, p95, errors = staging.performance(invoke, ROWS.assign(table=None), seconds=0.5)
    assert [rate.passed, p95.passed, errors.passed] == [True, True, True]
    assert rate.value == pytest.approx(endpoint.asked / 0.5, rel=0.2)
    endpoint.broken = True
    checks = staging.performance(invoke, ROWS, seconds=0.5)
    assert failed(checks) == {"error rate"}
    assert checks[-1].value == pytest.approx(0.1, abs=0.03)
    assert "HTTP Error 500" in checks[-1].detail


def test_an_endpoint_that_never_answers_fails_everything() -> None:
    def invoke(record: dict[str, Any]) -> Any:
        raise ConnectionRefusedError("nobody there")

    checks = staging.performance(invoke, ROWS, seconds=0.1)
    assert len(failed(checks)) == 3


def test_the_verdict_and_the_gate(tmp_path: Path) -> None:
    yes, no = Check("signature", None, None, True), Check("p95 in ms", 900.0, 500.0, False, "p50 700 ms")
    unknown = Check("treated alike", None, None, None, "one group")
    assert staging.verdict([yes, unknown])
    assert not staging.verdict([yes, no])
    assert not staging.verdict([unknown])  # what nobody checked does not pass
    with pytest.raises(GateClosed, match=r"p95 in ms: 900 \(threshold 500\); p50 700 ms"):
        staging.require_passed([yes, no, unknown])
    saved = json.loads(staging.save_report([yes, no, Check("p99", float("inf"), None, None)], tmp_path / "r.json").read_text())
    assert saved["passed"] is False
    assert [check["value"] for check in saved["checks"]] == [None, 900.0, None]
    table = staging.report([yes, no, unknown]).data
    assert list(table["verdict"]) == ["FAILED", "passed", "not checked"]
    assert "FAILED" in staging.report([yes, no]).to_html()


def test_a_class_that_a_group_hardly_has_is_not_judged_by_its_few_rows() -> None:
    truth = pd.Series(["common"] * 390 + ["rare"] * 2 + ["other"] * 8)
    groups = pd.Series(["north", "south"] * 200, name="region")
    answers = truth.to_numpy().copy()
    answers[390] = "common"  # one of two rare rows: a rate of 0 in the north, and of 1 in the south
    assert failed(staging.fairness(truth, answers, groups, "classification")) == set()
