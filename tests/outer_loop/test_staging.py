"""What a model and its data have to stand before a person is asked, and the verdict."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from mlops_nb.core.records import GateClosed
from mlops_nb.outer_loop import staging
from mlops_nb.outer_loop.staging import Check
from mlops_nb.packaging import audit

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


def test_the_verdict_and_the_gate(tmp_path: Path) -> None:
    yes, no = Check("signature", None, None, True), Check("p95 in ms", 1900.0, 500.0, False, "p50 700 ms")
    unknown = Check("treated alike", None, None, None, "one group")
    assert staging.verdict([yes, unknown])
    assert not staging.verdict([yes, no])
    assert not staging.verdict([unknown])  # what nobody checked does not pass
    with pytest.raises(GateClosed, match=r"p95 in ms: 1,900 \(threshold 500\); p50 700 ms"):
        staging.require_passed([yes, no, unknown])
    saved = json.loads(staging.save_report([yes, no, Check("p99", float("inf"), None, None)], tmp_path / "r.json").read_text())
    assert saved["passed"] is False
    assert [check["value"] for check in saved["checks"]] == [None, 1900.0, None]


def test_what_was_found_in_a_package_is_a_check_among_the_others() -> None:
    leak = audit.Check("detect-secrets", False, [audit.Finding("10_data.ipynb cell 2", "AWS Access Key")])
    skipped = audit.Check("pip-audit", False, [], skipped="no network")
    bill = audit.Check("sbom", True, [], "103 components")
    made = audit.Package("diamonds", "3", "dev", "model:dev.diamonds/3", "", "", [bill, leak, skipped])
    checks = staging.packaged(made)
    assert [(check.name, check.passed, check.group) for check in checks] == [
        ("sbom", True, "package"), ("detect-secrets", False, "package"), ("pip-audit", None, "package")]
    assert [check.detail for check in checks] == ["103 components", "10_data.ipynb cell 2: AWS Access Key", "skipped: no network"]
    assert not staging.verdict(checks)
