"""The search: every family once, inside the budget, and reproducible."""


import numpy as np
import pandas as pd
import pytest

from mlops_nb.inner_loop.tabular import FAMILIES, Family
from mlops_nb.inner_loop.tuning import plot_trials, tune

RANDOM = np.random.default_rng(0)
FRAME = pd.DataFrame({"a": RANDOM.normal(size=1_000), "b": RANDOM.normal(size=1_000), "c": RANDOM.choice(["x", "y"], 1_000)})
FRAME["y"] = np.sin(3 * FRAME["a"]) + (FRAME["c"] == "x") * FRAME["b"]
FRAME["kind"] = np.where(FRAME["y"] > 0, "up", "down")


def test_every_family_is_tried_and_the_best_is_refitted_on_all_rows() -> None:
    tuned = tune(FRAME.drop(columns="kind"), "y", "regression", budget_trials=8, budget_seconds=600)
    assert set(tuned.trials["family"]) == set(FAMILIES)
    assert len(tuned.trials) == 8
    assert tuned.score == tuned.trials["score"].max()
    assert tuned.family in ("forest", "boosting")  # no line goes through a sine
    assert tuned.model[-1].get_params().get("n_jobs") in (None, 1)  # answers on one core
    assert len(tuned.model.predict(FRAME.head(3))) == 3
    assert plot_trials(tuned).draw()


def test_the_budget_in_seconds_holds() -> None:
    tuned = tune(FRAME.drop(columns="y"), "kind", "classification", budget_trials=1_000, budget_seconds=2)
    assert len(FAMILIES) <= len(tuned.trials) < 1_000


def test_the_same_seed_finds_the_same_model() -> None:
    first, second = (tune(FRAME.drop(columns="kind"), "y", "regression", 6, 600, ["ridge", "forest"], seed=3) for _ in range(2))
    assert (first.family, first.params, first.score) == (second.family, second.params, second.score)


def test_a_family_that_cannot_cope_is_noted_not_fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.linear_model import LogisticRegression

    monkeypatch.setitem(FAMILIES, "stubborn", Family(lambda task, seed: LogisticRegression(), {}, {}))  # classes, whatever the task
    frame = FRAME.drop(columns="kind")
    tuned = tune(frame, "y", "regression", budget_trials=3, families=["stubborn", "ridge"])
    assert tuned.family == "ridge"
    assert "Unknown label type" in tuned.trials.loc[0, "problem"]
    with pytest.raises(ValueError, match="No family could be trained on 'y': Unknown label type"):
        tune(frame, "y", "regression", families=["stubborn"])


def test_a_class_with_a_single_row_does_not_stop_the_search() -> None:
    rare = FRAME.drop(columns="y").assign(kind=["once", *FRAME["kind"].iloc[1:]])
    assert set(tune(rare, "kind", "classification", budget_trials=5).trials["problem"]) == {""}
