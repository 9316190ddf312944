"""Features are ranked by a surrogate of the model, and a monitor notices when production ranks them otherwise."""

import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlops_nb.core.records import Deployment
from mlops_nb.core.settings import Settings
from mlops_nb.outer_loop.attribution import agreement, feature_attribution_drift, importances, most_important
from mlops_nb.outer_loop.collected import Collected
from mlops_nb.outer_loop.monitor import NDCG, Watch
from mlops_nb.outer_loop.signals import Asked

NOON = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)
WATCH = Watch("order", "feature_attribution_drift", {"all": {NDCG: 0.9}}, columns={"target_column": "y"})


def table(rows: int = 600, seed: int = 0, **weights: float) -> pd.DataFrame:
    """Four features, and a target that is their weighted sum; `kind` counts by its name."""
    random = np.random.default_rng(seed)
    frame = pd.DataFrame({name: random.normal(size=rows) for name in ("a", "b", "c")})
    frame["kind"] = random.choice(["low", "mid", "high"], rows)
    weights = {"a": 8.0, "b": 4.0, "c": 0.0, "kind": 2.0} | weights
    level = frame["kind"].map({"low": -1.0, "mid": 0.0, "high": 1.0})
    return frame.assign(y=weights["a"] * frame["a"] + weights["b"] * frame["b"] + weights["c"] * frame["c"] + weights["kind"] * level)


def ask(production: pd.DataFrame, reference: pd.DataFrame | None, watch: Watch = WATCH, task: str = "regression") -> Asked:
    ids = [f"r{n}_0" for n in range(len(production))]
    sides = {"model_inputs": production.drop(columns="y").assign(correlationid=ids),
             "model_outputs": pd.DataFrame({"prediction": production["y"].to_numpy(), "correlationid": ids})}
    blue = Deployment("shop", "blue", "model:dev.shop/1", "dev")
    return Asked(Settings(root=Path()), watch, task, blue, (NOON - dt.timedelta(1), NOON),
                 lambda collection, window: Collected(sides[collection], len(production)), reference)


def test_importance_follows_the_weights() -> None:
    found = importances(table(), "y", "regression")
    assert sorted(found, key=lambda name: -found[name]) == ["a", "b", "kind", "c"]
    assert found["c"] < 0.1 * found["a"]
    assert 4 < found["a"] < 8  # the mean of |8 x| over a normal x is 6.4, in the unit of the target


def test_the_same_table_gives_the_same_numbers_whatever_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    first = importances(table(), "y", "regression")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert importances(table(), "y", "regression") == first


def test_the_shapley_values_are_those_that_add_up_to_the_prediction() -> None:
    """What LightGBM calls contributions: with the expected value they are the prediction, so they are in its unit."""
    from mlops_nb.outer_loop.attribution import _fit, _prepared

    frame = table(300)
    inputs = _prepared(frame.drop(columns="y"))
    booster = _fit(inputs, frame["y"], "regression")
    assert booster.predict(inputs, pred_contrib=True).sum(axis=1) == pytest.approx(booster.predict(inputs))


@pytest.mark.parametrize("classes", [2, 3])
def test_classes_are_explained_too(classes: int) -> None:
    frame = table()
    frame["y"] = pd.qcut(frame["y"], classes, labels=["ant", "bee", "cat"][:classes]).astype(str)
    assert most_important(frame, "y", "classification", 2) == ["a", "b"]


def test_dates_nulls_flags_and_text_are_features_like_others() -> None:
    frame = table().assign(day=pd.date_range("2026-01-01", periods=600), flag=lambda f: f["a"] > 0, note=None)
    frame.loc[::7, "b"] = np.nan
    frame["[odd] name"] = frame["c"]
    found = importances(frame, "y", "regression")
    assert set(found) == set(frame.columns) - {"y"}
    assert found["note"] == 0
    assert max(found, key=lambda name: found[name]) == "a"


def test_a_large_table_costs_no_more_than_a_middling_one() -> None:
    """Of more than 10,000 rows, 5,000 are looked at."""
    from mlops_nb.outer_loop.attribution import _sample

    assert [len(_sample(table(n), "y")) for n in (10, 1_000, 10_000, 10_001, 200_000)] == [10, 500, 5_000, 5_000, 5_000]


def test_the_gain_is_scikit_learn_s() -> None:
    from sklearn.metrics import ndcg_score

    random = np.random.default_rng(5)
    for size in (2, 3, 10):
        for _ in range(50):
            b, p = (dict(zip("jihgfedcba", random.uniform(size=size), strict=False)) for _ in range(2))
            names = sorted(b)
            assert agreement(b, p) == pytest.approx(ndcg_score([[b[n] for n in names]], [[p[n] for n in names]]))
    assert agreement({"a": 1.0}, {"a": 0.2}) == 1.0
    with pytest.raises(ValueError, match="production has no column b"):
        agreement({"a": 1.0, "b": 2.0}, {"a": 1.0})


def test_another_order_is_found_and_the_same_one_is_quiet() -> None:
    """The model came to answer by another column: `a` says nothing any more, `c` everything."""
    (same,) = feature_attribution_drift(ask(table(400, seed=1), table()))
    (other,) = feature_attribution_drift(ask(table(400, seed=1, a=0.0, b=1.0, c=9.0), table()))
    assert (same.metric, other.metric) == (NDCG, NDCG)
    assert (same.value or 0) > 0.98
    assert (other.value or 1) < 0.8
    assert other.detail["production"]["c"] > other.detail["production"]["a"]
    assert set(other.detail["reference"]) == {"a", "b", "c", "kind"}


def test_what_cannot_be_told_is_said() -> None:
    (few,) = feature_attribution_drift(ask(table(20), table()))
    assert few.detail == {"waiting": True}
    assert few.problem == "only 20 questions with their answer in the window, 100 needed"
    for production, reference, problem in ((table(200), None, "no reference data for context 'training'"),
                                           (table(200).drop(columns="c"), table(), "production has no column c")):
        (lost,) = feature_attribution_drift(ask(production, reference))
        assert (lost.value, lost.problem, lost.detail) == (None, problem, {})
    with pytest.raises(ValueError, match="nothing to explain: 4 features, 100 rows, 'y' with 1 values"):
        feature_attribution_drift(ask(table(200).assign(y=1.0), table()))
    with pytest.raises(ValueError, match="no column 'z' to explain"):
        importances(table(50), "z", "regression")
