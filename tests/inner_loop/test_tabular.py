"""Models from tables: the task, the split, and pipelines that take whatever production sends."""

import numpy as np
import pandas as pd
import pytest
from plotnine.data import diamonds

from mlops_nb.inner_loop.tabular import (
    FAMILIES,
    build,
    check_target,
    evaluate,
    importances,
    plot_importances,
    plot_predictions,
    split,
    task_of,
)

STONES = diamonds.drop_duplicates().astype({"cut": "str", "color": "str", "clarity": "str"})
STONES = STONES[STONES["z"].between(1, 20) & STONES["y"].between(1, 20)]
SHOP = STONES[STONES["carat"] <= 0.8].reset_index(drop=True)


def untidy(rows: int = 300) -> pd.DataFrame:
    """Make a table with every kind of column, each with nulls, and both kinds of target."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"size": random.normal(size=rows), "pieces": random.integers(0, 50, rows), "empty": np.nan,
                          "cut": random.choice(["a", "b", "c"], rows), "gift": random.choice([True, False], rows),
                          "sold": pd.Timestamp("2026-01-01") + pd.to_timedelta(random.integers(0, 9e6, rows), unit="s")})
    frame["price"] = 3 * frame["size"] + frame["cut"].map({"a": 0, "b": 5, "c": 9}) + frame["gift"]
    frame["kind"] = np.where(frame["price"] > 5, "dear", "cheap")
    for column in ("size", "cut", "gift", "sold"):
        frame[column] = frame[column].astype(object if column == "gift" else frame[column].dtype).mask(random.random(rows) < 0.1)
    return frame


@pytest.mark.parametrize(("values", "task"), [
    (["a", "b"] * 30, "classification"), ([True, False, None] * 20, "classification"), ([0, 1] * 30, "classification"),
    ([0.0, 1.0, None] * 20, "classification"), (list(range(60)), "regression"), ([0.5, 1.5] * 30, "regression")])
def test_the_task_follows_from_the_target(values: list[object], task: str) -> None:
    assert task_of(pd.Series(values)) == task


@pytest.mark.parametrize(("frame", "target", "message"), [
    (SHOP, "cost", r"No column 'cost' \(columns: carat, cut"),
    (SHOP.assign(price=np.nan), "price", f"'price' is null in all {len(SHOP)} rows"),
    (SHOP.assign(cut="Ideal"), "cut", "'cut' is 'Ideal' in every row"),
    (SHOP.head(49), "price", "Only 49 rows have the target 'price'"),
    (SHOP.head(0), "price", "'price' is null in all 0 rows"),
    (SHOP[["price"]], "price", "'price' is the only column"),
])
def test_a_target_that_nothing_can_be_learned_from(frame: pd.DataFrame, target: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_target(frame, target)


def test_a_row_keeps_its_side_for_ever() -> None:
    early = SHOP.sample(3_000, random_state=0)
    first_train, first_held = split(early, "price")
    train, held = split(pd.concat([SHOP, STONES]), "price")
    assert not set(first_train.itertuples(index=False)) & set(held.itertuples(index=False))
    assert not set(first_held.itertuples(index=False)) & set(train.itertuples(index=False))
    # neither the order of columns, nor whole numbers that became floats, move a row
    again, _ = split(early[early.columns[::-1]].assign(price=1.0), "price")
    assert again["carat"].tolist() == first_train["carat"].tolist()
    _, whole = split(pd.DataFrame({"n": range(500), "y": 0}), "y")
    _, floats = split(pd.DataFrame({"n": [*map(float, range(500)), np.nan], "y": 0}), "y")
    assert set(whole["n"]) <= set(floats["n"])
    assert len(held) / (len(train) + len(held)) == pytest.approx(0.2, abs=0.01)


def test_equal_features_never_straddle_the_split() -> None:
    twins = pd.concat([SHOP.head(500), SHOP.head(500).assign(price=1)])
    train, held = split(twins, "price")
    features = list(SHOP.columns.drop("price"))
    assert pd.merge(train, held, on=features).empty
    train, held = split(SHOP, "price", group="carat")
    assert not set(train["carat"]) & set(held["carat"])
    inner_train, inner_held = split(train, "price", level=1)  # not empty, though every row is on one side of level 0
    assert len(inner_train) > len(inner_held) > 0


def test_a_split_that_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"A share of 0.0 leaves one side"):
        split(SHOP, "price", share=0.0)
    with pytest.raises(ValueError, match="No column 'customer' to group by"):
        split(SHOP, "price", group="customer")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("target", "task"), [("price", "regression"), ("kind", "classification")])
def test_every_family_takes_whatever_production_sends(family: str, target: str, task: str) -> None:
    frame = untidy()
    features, truth = frame.drop(columns=["price", "kind"]), frame[target]
    model = build(family, task, FAMILIES[family].defaults, features).fit(features, truth)
    assert evaluate(model, features.assign(**{target: truth}), target, task)[{"regression": "r2"}.get(task, "accuracy")] > 0.6
    strange = features.head(4).assign(cut=["z", None, "a", "a"], size=[None, 1.0, 2.0, 3.0], pieces=[1.0, None, 2.0, 3.0],
                                      gift=[None, True, False, True], other="not asked for")
    assert len(model.predict(strange)) == 4
    assert len(model.predict(features.head(1).assign(cut=None, gift=None, size=None, sold=pd.NaT))) == 1
    shuffled = features[features.columns[::-1]]
    assert (model.predict(shuffled) == model.predict(features)).all()


def test_metrics_that_are_not_defined_are_left_out() -> None:
    frame = untidy()
    features = frame.drop(columns=["price", "kind"])
    model = build("ridge", "classification", {"alpha": 1.0}, features).fit(features, frame["kind"])
    rows = features.assign(kind=frame["kind"])
    assert set(evaluate(model, rows, "kind", "classification")) == {"accuracy", "f1_macro", "log_loss", "roc_auc"}
    assert "roc_auc" not in evaluate(model, rows[rows["kind"] == "dear"], "kind", "classification")
    assert "log_loss" not in evaluate(model, rows.assign(kind="unheard of"), "kind", "classification")


def test_at_home_and_abroad() -> None:
    train, held = split(SHOP, "price")
    features = train.drop(columns="price")
    model = build("boosting", "regression", FAMILIES["boosting"].defaults, features).fit(features, train["price"])
    assert evaluate(model, held, "price", "regression")["r2"] == pytest.approx(0.97, abs=0.005)
    assert evaluate(model, STONES[STONES["carat"] > 0.8], "price", "regression")["r2"] == pytest.approx(-1.3, abs=0.1)
    assert plot_predictions(model, held, "price", "regression").draw()
    assert plot_importances(importances(model, held, "price", "regression")).draw()


def test_a_confusion_matrix_can_be_seen() -> None:
    frame = untidy().drop(columns="price")
    model = build("linear", "classification", {}, frame.drop(columns="kind")).fit(frame.drop(columns="kind"), frame["kind"])
    assert plot_predictions(model, frame, "kind", "classification").draw()


def test_an_unknown_family_lists_the_families() -> None:
    with pytest.raises(ValueError, match=r"No family 'forests'.*linear, ridge, lasso, forest, boosting"):
        build("forests", "regression", {}, SHOP)
