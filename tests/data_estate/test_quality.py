"""Faults: found with their reason, put aside, and never lost."""

import numpy as np
import pandas as pd
import pytest
from plotnine.data import diamonds

from mlops_nb.core.ledger import entries
from mlops_nb.core.records import SpecificationError
from mlops_nb.core.settings import Settings
from mlops_nb.data_estate.quality import clean, enforce, find_outliers, infer_schema, keep_schema, plot_faults, profile

ORDERS = pd.DataFrame({"carat": [0.3, 0.4, 0.5, 0.6] * 10, "pieces": [1, 2, 3, 4] * 10, "cut": ["Ideal", "Good"] * 20,
                       "note": [f"n{i}" for i in range(40)], "gift": [True, False] * 20,
                       "sold": pd.date_range("2026-01-01", periods=40), "margin": np.linspace(-1, 1, 40)})


def random_frame(seed: int) -> pd.DataFrame:
    """Make a table with every kind of fault, in random places."""
    random, rows = np.random.default_rng(seed), 60
    frame = pd.DataFrame({
        "number": random.choice([*random.lognormal(size=5), np.nan, np.inf, -1.0, 1e9], rows).astype(object),
        "whole": random.choice([1, 2.0, 2.5, "3", "x", None], rows),
        "text": random.choice(["a", "b", "c", None], rows), "flag": random.choice([True, "false", None, 7], rows),
        "day": random.choice(["2026-01-01", "2026-13-01", None], rows)})
    return frame.set_index(random.integers(0, 9, rows))  # an index that repeats itself


def test_the_real_faults_of_the_diamonds() -> None:
    good, aside = clean(diamonds, target="price")
    assert len(good) + len(aside) == len(diamonds)
    assert aside["reason"].str.contains("duplicate").sum() == 146
    assert (good[["x", "y", "z"]] > 0).all(axis=None)
    assert {58.9, 31.8} <= set(aside["y"])
    assert 31.8 in set(aside["z"])
    assert len(good) / len(diamonds) > 0.995
    assert good["carat"].max() == 5.01  # rare is not wrong


@pytest.mark.parametrize("seed", range(8))
def test_no_row_is_ever_lost_or_doubled(seed: int) -> None:
    frame = random_frame(seed).assign(row=range(60))
    numbers = frame.assign(number=pd.to_numeric(frame["number"]))
    good, aside = clean(numbers, target="whole")
    assert sorted([*good["row"], *aside["row"]]) == list(range(60))
    assert aside["reason"].ne("").all()
    assert good["whole"].notna().all()
    known = pd.DataFrame({"number": [0.5, 1.0], "whole": [1, 2], "text": ["a", "b"], "flag": [True, False],
                          "day": pd.to_datetime(["2026-01-01", "2026-01-02"]), "row": [0, 1]})
    good, aside = enforce(infer_schema(known), frame)
    assert sorted([*good["row"], *aside["row"]]) == list(range(60))
    assert good.dtypes.drop("text").equals(known.dtypes.drop("text"))


def test_outliers_are_measured_not_guessed() -> None:
    steady = pd.Series(np.random.default_rng(0).normal(100, 5, 1000))
    frame = pd.DataFrame({"steady": [*steady, 900.0], "skewed": [*np.exp(steady / 20), 400.0], "constant": 1.0,
                          "code": [*([1, 2, 3] * 333), 1, 99]})
    assert find_outliers(frame).tolist() == ["outlier in steady: 900"]  # neither a long tail, nor a constant, nor a code


def test_a_missing_feature_is_kept_and_a_missing_target_is_not() -> None:
    good, aside = clean(pd.DataFrame({"x": [1.0, None, 3.0], "y": [1.0, 2.0, None]}), target="y")
    assert len(good) == 2
    assert aside["reason"].tolist() == ["no y"]


def test_empty_and_all_null_tables_pass_through() -> None:
    assert [len(part) for part in clean(ORDERS.head(0), target="carat")] == [0, 0]
    good, aside = clean(ORDERS.assign(carat=np.nan), target="carat")
    assert (len(good), len(aside)) == (0, 40)
    assert profile(ORDERS.head(0))["nulls"].tolist() == [0] * 7


def test_an_unknown_target_lists_the_columns() -> None:
    with pytest.raises(ValueError, match=r"No column 'cost' \(columns: carat, pieces"):
        clean(ORDERS, target="cost")


def test_a_schema_is_inferred_once_and_read_back_the_same(project: Settings) -> None:
    schema, created = keep_schema(project, "orders", ORDERS)
    again, created_again = keep_schema(project, "orders", ORDERS.assign(carat=-1.0))
    assert (created, created_again) == (True, False)
    assert len(entries(project, action="infer")) == 1
    assert schema == again
    assert len(enforce(schema, ORDERS)[1]) == 0
    assert len(enforce(schema, ORDERS.assign(carat=9.9))[1]) == 0  # bigger is drift, not a fault
    assert len(enforce(schema, ORDERS.assign(carat=-1.0))[0]) == 0


def test_types_are_mended_where_nothing_is_lost() -> None:
    text = ORDERS.astype("str").assign(gift=["true", "false"] * 20)
    good, bad = enforce(infer_schema(ORDERS), text)
    assert bad.empty
    pd.testing.assert_frame_equal(good, ORDERS, check_dtype=False)
    assert good["pieces"].dtype == "int64"


def test_every_fault_of_a_row_is_named() -> None:
    delivery = ORDERS.head(4).astype(object)
    delivery.loc[0, ["pieces", "gift"]] = [1.5, "perhaps"]
    delivery.loc[1, "sold"] = 20260101
    delivery.loc[2, ["carat", "cut"]] = [-2.0, "Superb"]
    delivery.loc[3, "note"] = None
    good, bad = enforce(infer_schema(ORDERS), delivery)
    assert good.empty
    assert bad["reason"].str.split("; ").map(sorted).tolist() == [
        ["gift is no truth value: perhaps", "pieces is no integer: 1.5"], ["sold is no date: 20260101"],
        ["carat is not greater_than(0): -2.0", "cut is not one of the known values: Superb"], ["no note"]]
    assert bad.loc[0, "pieces"] == 1.5  # as it came


def test_a_column_that_changed_its_type_quarantines_what_does_not_fit() -> None:
    words = ORDERS.assign(carat=["0.3", "small"] * 20)
    good, bad = enforce(infer_schema(ORDERS), words)
    assert (len(good), len(bad)) == (20, 20)
    assert bad["reason"].unique() == ["carat is no number: small"]


def test_missing_and_unknown_columns_are_listed_together() -> None:
    with pytest.raises(SpecificationError) as caught:
        enforce(infer_schema(ORDERS), ORDERS.drop(columns=["cut", "gift"]).assign(weight=1))
    assert len(caught.value.faults) == 3


def test_the_faults_can_be_seen() -> None:
    assert plot_faults(clean(diamonds.head(2_000).assign(price=None), target="price")[1]).draw()
    assert plot_faults(clean(ORDERS)[1]).draw()  # nothing put aside
