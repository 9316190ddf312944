"""All columns together: what moved jointly is found, halves of one table are not told apart, and every odd table has a result."""

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import pytest
from plotnine.data import diamonds
from scipy import stats
from sklearn.metrics import roc_auc_score

from mlops_nb.core.records import Deployment
from mlops_nb.core.settings import Settings
from mlops_nb.outer_loop.collected import Collected
from mlops_nb.outer_loop.monitor import Watch
from mlops_nb.outer_loop.multivariate import (
    TooFew,
    boosted,
    compare_tables,
    maximum_mean_discrepancy,
    multivariate_drift,
    tell_apart,
)
from mlops_nb.outer_loop.signals import Asked, Measure

START = dt.datetime(2026, 11, 20, tzinfo=dt.UTC)
STONES = diamonds.sample(3000, random_state=1).reset_index(drop=True)
OLD, NEW = STONES[:1500], STONES[1500:].assign(correlationid=[f"r{n}_0" for n in range(1500)], time=START)


def ask(inputs: pd.DataFrame, reference: pd.DataFrame | None, minimum: int = 100, **parameters: Any) -> Asked:
    return Asked(
        Settings(),
        Watch("together", "custom", {}, parameters=parameters),
        "regression",
        Deployment("diamonds", "blue", "", "dev"),
        (START, START + dt.timedelta(days=1)),
        lambda collection, window: Collected(inputs, len(inputs)),
        reference,
        minimum,
    )


def values(measures: list[Measure]) -> dict[str, float | None]:
    return {measure.metric: measure.value for measure in measures}


def test_halves_of_one_table_are_not_told_apart() -> None:
    found = values(multivariate_drift(ask(NEW, OLD)))
    assert found["domain_classifier_auc"] == pytest.approx(0.5, abs=0.05)
    assert found["maximum_mean_discrepancy_test"] > 0.05
    assert found["reconstruction_error_ratio"] == pytest.approx(1, abs=0.1)


def test_columns_that_no_longer_go_together_are_found_though_each_is_as_it_was() -> None:
    broken = NEW.assign(x=NEW["x"].sample(frac=1, random_state=0).to_numpy())
    assert stats.ks_2samp(OLD["x"], broken["x"]).pvalue > 0.05
    measures = multivariate_drift(ask(broken, OLD))
    found = values(measures)
    assert found["domain_classifier_auc"] > 0.85
    assert found["maximum_mean_discrepancy_test"] == 0.002
    assert found["reconstruction_error_ratio"] > 1.5
    assert next(iter(measures[0].detail["columns"])) in ("x", "y", "z", "carat")


def test_the_rows_that_changed_are_the_examples_and_say_why() -> None:
    strange = NEW.copy()
    strange["cut"] = strange["cut"].astype(object)
    strange.loc[strange.index[:150], ["cut", "depth"]] = ["Heart", 75.0]
    examples = multivariate_drift(ask(strange, OLD, examples=50))[0].detail["examples"]
    assert {row["correlationid"] for row in examples} <= {f"r{n}_0" for n in range(150)}
    assert len(examples) == 50
    assert [row["score"] for row in examples] == sorted((row["score"] for row in examples), reverse=True)
    assert "Heart" in examples[0]["why"] or "depth 75" in examples[0]["why"]


def test_a_window_has_one_result() -> None:
    first, second = (multivariate_drift(ask(NEW.assign(price=NEW["price"] * 1.1), OLD, rows=500)) for _ in range(2))
    assert first == second
    assert first[0].detail["rows"] == [500, 500]


def test_chance_passes_its_bound_as_often_as_it_should() -> None:
    """Of 30 random halves, a bound for 5 % is passed by at most 5 (by more: 3 in 1,000 if it is honest)."""
    passed, quiet = 0, 0
    for seed in range(30):
        rows = np.random.default_rng(seed).normal(size=(200, 6))
        side = np.arange(200) >= 100
        told = tell_apart(rows, side, boosted([]))
        passed += told.auc > told.chance
        quiet += maximum_mean_discrepancy(rows, side, draws=99)[1] <= 0.05
    assert passed <= 5
    assert quiet <= 5


def test_the_auc_is_that_of_rows_not_learned_from() -> None:
    rows, side = np.random.default_rng(0).normal(size=(1000, 3)), np.arange(1000) >= 500
    rows[side, 0] += 1
    told = tell_apart(rows, side, boosted([]))
    folds = [roc_auc_score(side[asked], told.scores[asked]) for _, asked in told.parts]
    assert told.auc == pytest.approx(np.mean(folds))
    assert told.chance < 0.6 < told.low < told.auc < stats.norm.cdf(1 / 2**0.5)  # the best that any classifier can reach


def test_groups_that_differ_anyhow_are_no_drift() -> None:
    """Every camera has its own tint; other cameras on the two sides are told apart only beyond that."""
    random = np.random.default_rng(0)
    camera = np.repeat(np.arange(24), 25)
    tint = random.normal(size=24)
    frame = pd.DataFrame(
        {"camera": [f"c{n}" for n in camera], "tint": tint[camera] + random.normal(0, 0.2, 600), "light": random.normal(size=600)}
    )
    drawn = np.isin(camera, random.permutation(24)[:12])
    alone, grouped = (compare_tables(frame[drawn], frame[~drawn], group=group)[0] for group in ("", "camera"))
    assert alone.detail["p_value"] < 0.01 < grouped.detail["p_value"]
    moved = frame.assign(light=frame["light"] + 2)
    assert compare_tables(frame[drawn], moved[~drawn], group="camera")[0].value > 0.8


def test_a_permutation_is_a_p_value() -> None:
    """Against the definition, on a handful of rows: the share of all exchanges with as great a distance."""
    rows = np.array([[0.0], [0.1], [0.2], [3.0], [3.1], [3.2]])
    _, chance = maximum_mean_discrepancy(rows, np.arange(6) >= 3, draws=1999)
    assert chance == pytest.approx(2 / 20, abs=0.02)  # of the 20 ways to choose three of six, two part the clusters


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (OLD[:0], NEW, "no reference data"),
        (None, NEW, "no reference data"),
        (OLD, NEW[:12], "only 12 rows in the window, 100 needed"),
        (OLD[:50], NEW, "only 50 rows in the reference"),
        (OLD[["cut"]], NEW[["price", "correlationid", "time"]], "no column in common"),
        (OLD.assign(carat=np.nan)[["carat"]], NEW, "empty in the reference"),
    ],
)
def test_what_cannot_be_compared_says_so(old: pd.DataFrame | None, new: pd.DataFrame, said: str) -> None:
    for measure in multivariate_drift(ask(new, old)):
        assert measure.value is None
        assert said in measure.problem


@pytest.mark.parametrize("parameters", [{"rows": "many"}, {"columns": "carat, weight"}, {"group": "shop"}, {"rows": -1}])
def test_parameters_are_checked(parameters: dict[str, Any]) -> None:
    problem = multivariate_drift(ask(NEW, OLD, **parameters))[0].problem
    assert any(str(value).split(", ")[-1] in problem for value in parameters.values())


@pytest.mark.parametrize(
    "new",
    [
        NEW.assign(carat=np.nan),
        NEW.assign(carat=0.5),
        NEW.assign(cut="New"),
        NEW.assign(carat=["x", 1.0, None] * 500),
        NEW.assign(price=np.inf),
        NEW.assign(cut=[["a"]] * 1500),
    ],
    ids=["null only", "constant", "all new", "mixed types", "infinite", "lists"],
)
def test_odd_columns_have_a_result(new: pd.DataFrame) -> None:
    found = values(compare_tables(OLD, new, rows=300))
    assert all(np.isfinite(value) for value in found.values())


def test_constant_tables_are_alike_and_rows_of_one_are_too_few() -> None:
    still = pd.DataFrame({"a": [1.0] * 200, "b": ["x"] * 200})
    found = values(compare_tables(still, still))
    assert found == {"domain_classifier_auc": 0.5, "maximum_mean_discrepancy_test": 1.0, "reconstruction_error_ratio": None}
    with pytest.raises(ValueError, match="only 1 rows in the reference"):
        compare_tables(still[:1], still)
    with pytest.raises(TooFew):
        compare_tables(still, still[:1])


def test_names_of_rows_do_not_tell_the_sides_apart() -> None:
    ids = [pd.DataFrame({"id": [f"{side}-{n}" for n in range(300)], "x": np.arange(300) % 7.0, "at": START}) for side in "ab"]
    (auc, *_) = compare_tables(*ids)
    assert auc.value == pytest.approx(0.5, abs=0.1)
    assert set(auc.detail["left_out"]) == {"id", "at"}


def test_ten_thousand_columns_have_a_result_in_bounded_time() -> None:
    random = np.random.default_rng(0)
    sides = [pd.DataFrame(random.normal(size=(300, 10_000)), columns=[f"c{n}" for n in range(10_000)]) for _ in range(2)]
    sides[1]["c77"] += 3
    loud = compare_tables(*sides, rows=200)[0]
    assert next(iter(loud.detail["columns"])) == "c77"
