"""Groups are compared with intervals: what the data prove fails, what chance may explain is said to be open."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import demographic_parity_difference, equalized_odds_difference
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from mlops_nb.core.records import Deployment
from mlops_nb.core.settings import Settings
from mlops_nb.outer_loop import fairness
from mlops_nb.outer_loop.collected import Collected
from mlops_nb.outer_loop.monitor import Watch
from mlops_nb.outer_loop.signals import Asked
from mlops_nb.outer_loop.staging import Check

RANDOM = np.random.default_rng(3)


def failed(checks: list[Check]) -> set[str]:
    return {check.name for check in checks if check.passed is False}


def of(checks: list[Check], name: str) -> Check:
    (found,) = [check for check in checks if check.name == name]
    return found


@pytest.mark.parametrize(("count", "cases"), [(0, 40), (2, 40), (40, 40), (513, 1000)])
def test_the_interval_of_a_share_is_wilsons(count: int, cases: int) -> None:
    expected = proportion_confint(count, cases, method="wilson")
    assert fairness.wilson(count / cases, cases) == pytest.approx(expected, abs=1e-12)
    assert fairness.wilson(0, 0) == (0, 1)


def test_the_interval_of_a_difference_is_newcombes() -> None:
    group = pd.Series(["a"] * 56 + ["b"] * 48, name="group")
    chosen = np.array([1] * 30 + [0] * 26 + [1] * 10 + [0] * 38)
    check = of(fairness.fairness(pd.Series(chosen), chosen, group, "classification"), "demographic parity difference")
    expected = confint_proportions_2indep(30, 56, 10, 48, method="newcomb", compare="diff")
    assert (check.low, check.high) == pytest.approx(expected, abs=1e-9)


def test_the_bootstrap_knows_how_far_another_sample_would_be() -> None:
    """Against the spread of 400 real samples, with few rows and with so many that they are summed in blocks."""
    for rows in (60, 5000):
        samples = [(RANDOM.exponential(2, rows), RANDOM.normal(10, 1, rows)) for _ in range(400)]
        spread = np.std([a.mean() / b.mean() for a, b in samples])
        value, error = fairness.bootstrap(*samples[0])
        assert value == pytest.approx(0.2, abs=4 * spread)
        assert error == pytest.approx(spread, rel=0.35)


def test_the_values_are_fairlearns() -> None:
    groups = pd.Series(RANDOM.choice(["a", "b"], 600), name="group")
    truth, answer = pd.Series(RANDOM.integers(0, 2, 600)), RANDOM.integers(0, 2, 600)
    checks = fairness.fairness(truth, answer, groups, "classification")
    expected = {"demographic parity difference": demographic_parity_difference(truth, answer, sensitive_features=groups),
                "equalized odds difference": equalized_odds_difference(truth, answer, sensitive_features=groups)}
    for name, value in expected.items():
        assert of(checks, name).value == pytest.approx(value)
    assert failed(checks) == set()


def test_a_model_that_says_yes_to_one_group_is_unfair() -> None:
    groups = pd.Series(RANDOM.choice(["a", "b"], 600), name="group")
    truth = pd.Series(RANDOM.integers(0, 2, 600))
    unfair = fairness.fairness(truth, (groups == "a").astype(int).to_numpy(), groups, "classification")
    assert failed(unfair) == {"demographic parity difference", "equalized odds difference"}
    assert of(unfair, "demographic parity difference").detail == "a 1, b 0 (of 1)"


def test_what_chance_may_explain_is_open_and_says_so() -> None:
    groups = pd.Series(["a", "b"] * 32, name="group")
    truth = pd.Series(np.where(groups == "a", np.arange(64) % 10 < 6, np.arange(64) % 10 < 3).astype(int))
    for rows, verdict in ((1, None), (40, False)):  # the same shares of forty times the rows prove it
        more = pd.concat([truth] * rows), pd.concat([groups] * rows)
        check = of(fairness.fairness(more[0], more[0].to_numpy(), more[1], "classification"), "demographic parity difference")
        assert check.value == pytest.approx(0.406, abs=0.001)
        assert check.passed is verdict
        assert ("not settled" in check.detail) is (verdict is None)


def test_of_many_fair_models_hardly_one_is_called_unfair() -> None:
    """Eight groups of 60 rows: the greatest of 28 differences is large by chance alone."""
    groups = pd.Series(np.repeat(list("abcdefgh"), 60), name="group")
    greatest, called = [], 0
    for _ in range(20):
        truth = pd.Series(RANDOM.integers(0, 2, 480))
        check = of(fairness.fairness(truth, truth.to_numpy(), groups, "classification", 0.05), "demographic parity difference")
        greatest.append(check.value)
        called += check.passed is False
    assert min(greatest) > 0.05  # the value alone would have called every one unfair
    assert called <= 1


def test_three_classes_are_judged_by_the_worst() -> None:
    groups = pd.Series(["a", "b"] * 150, name="group")
    truth = pd.Series(np.repeat(["x", "y", "z"], 100))
    never_z_for_b = np.where((truth == "z") & (groups == "b"), "y", truth)
    unfair = fairness.fairness(truth, never_z_for_b, groups, "classification")
    assert failed(unfair) >= {"equalized odds difference"}
    assert "of z" in of(unfair, "equalized odds difference").detail
    assert failed(fairness.fairness(truth, truth.to_numpy(), groups, "classification")) == set()


def test_errors_of_a_regression_are_relative_to_the_group() -> None:
    groups = pd.Series(["small", "big"] * 100, name="size")
    truth = pd.Series([100.0, 10_000.0] * 100)
    alike = truth.to_numpy() * 1.1  # ten per cent for everybody
    assert failed(fairness.fairness(truth, alike, groups, "regression")) == set()
    worse_for_small = np.where(groups == "small", truth * 1.5, truth * 1.1)
    ratio = of(fairness.fairness(truth, worse_for_small, groups, "regression"), "worst group's error over the best's")
    assert (ratio.passed, ratio.value) == (False, pytest.approx(5))


def test_a_group_that_is_always_priced_too_low_is_seen_where_errors_are_alike() -> None:
    groups = pd.Series(["a", "b"] * 500, name="group")
    truth = pd.Series(np.full(1000, 100.0))
    noise = np.abs(RANDOM.normal(20, 2, 1000))
    answer = np.where(groups == "a", 100 - noise, 100 + noise)  # 20 % off for everybody, below for one, above for the other
    checks = fairness.fairness(truth, answer, groups, "regression")
    assert failed(checks) == {"difference of the bias"}
    assert of(checks, "difference of the bias").value == pytest.approx(0.4, abs=0.01)


def test_a_small_group_is_shown_not_judged() -> None:
    groups = pd.Series(["a"] * 500 + ["b"] * 500 + ["rare"] * 29, name="group")
    truth = pd.Series(np.full(1029, 100.0))
    answer = np.where(groups == "rare", 900.0, 110.0)
    checks = fairness.fairness(truth, answer, groups, "regression")
    assert failed(checks) == set()
    assert checks[0].detail == "rare (29 rows)"
    shown = fairness.by_group(truth, answer, groups, "regression").query("group == 'rare' and measure == 'relative error'")
    assert shown["value"].item() == pytest.approx(8)
    assert not shown["judged"].item()
    alone = fairness.fairness(truth[:500], answer[:500], groups[:500], "regression")
    assert alone[1].passed is None
    assert "two are needed" in alone[1].detail


def test_too_many_rows_in_small_groups_fail() -> None:
    groups = pd.Series(["a", "b"] * 100 + [f"only {n}" for n in range(20)], name="group")
    truth = pd.Series(np.arange(220) // 2 % 2)
    assert failed(fairness.fairness(truth, truth.to_numpy(), groups, "classification")) == {"rows in groups too small to judge"}


def test_a_class_that_a_group_hardly_has_is_not_judged_by_its_few_rows() -> None:
    truth = pd.Series(["common"] * 390 + ["rare"] * 2 + ["other"] * 8)
    groups = pd.Series(["north", "south"] * 200, name="region")
    answers = truth.to_numpy().copy()
    answers[390] = "common"  # one of two rare rows: a rate of 0 in the north, and of 1 in the south
    assert failed(fairness.fairness(truth, answers, groups, "classification")) == set()


def test_nulls_and_numbers_make_groups_too() -> None:
    ages = pd.Series([*np.linspace(18, 80, 200), None, None], name="age")
    assert sorted(fairness.groups_of(ages).value_counts()) == [2, 50, 50, 50, 50]
    assert "missing" in set(fairness.groups_of(ages))


def test_bias_in_the_data_is_seen_before_any_model() -> None:
    groups = pd.Series(["many"] * 900 + ["few"] * 100, name="group")
    label = pd.Series([1] * 630 + [0] * 270 + [1] * 20 + [0] * 80)
    shown = fairness.data_bias(label, groups, "classification")
    assert {check.group for check in shown} == {"data"}
    assert failed(shown) == set()  # it may be the world's
    assert of(shown, "smallest group's share").value == pytest.approx(0.1)
    assert of(shown, "label rate difference").value == pytest.approx(0.5)
    assert failed(fairness.data_bias(label, groups, "classification", 0.3)) == {"label rate difference"}


def test_mean_targets_are_compared_by_ratio_or_where_they_may_be_negative_by_difference() -> None:
    groups = pd.Series(["a", "b"] * 200, name="group")
    price = pd.Series(np.where(groups == "a", 200.0, 100.0) + RANDOM.normal(0, 5, 400))
    assert of(fairness.data_bias(price, groups, "regression"), "ratio of the mean targets").value == pytest.approx(2, rel=0.05)
    shifted = fairness.data_bias(price - 150, groups, "regression")
    assert of(shifted, "difference of the mean targets").value == pytest.approx(100, rel=0.05)


def ask(rows: pd.DataFrame, truth: pd.DataFrame | None, task: str = "classification", **parameters: str) -> Asked:
    start, given = dt.datetime(2026, 11, 20, tzinfo=dt.UTC), [name for name in ("correlationid", "prediction") if name in rows]
    frames = {"model_inputs": rows.drop(columns="prediction"), "model_outputs": rows[given]}
    watch = Watch("alike", "custom", {}, columns={"target_column": "paid"}, parameters=parameters)
    return Asked(Settings(), watch, task, Deployment("loans", "blue", "", "dev"), (start, start + dt.timedelta(days=1)),
                 lambda collection, window: Collected(frames[collection], len(rows)), truth)


def asked_for_loans(share_of_b: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    random = np.random.default_rng(4)
    group = np.array(["a", "b"] * 400)
    rows = pd.DataFrame({"correlationid": [f"r{n}_0" for n in range(800)], "group": group,
                         "prediction": (random.random(800) < np.where(group == "a", 0.7, share_of_b)).astype(int)})
    return rows, pd.DataFrame({"correlationid": rows["correlationid"], "paid": random.integers(0, 2, 800)})


def test_over_time_the_least_that_is_proven_is_held_against_the_threshold() -> None:
    rows, truth = asked_for_loans(0.3)
    found = {(m.metric, m.feature): m for m in fairness.fairness_over_time(ask(rows, truth, sensitive="group"))}
    parity = found["demographic_parity_difference", "group"]
    expected = demographic_parity_difference(truth["paid"], rows["prediction"], sensitive_features=rows["group"])
    assert parity.detail["measured"] == pytest.approx(expected, abs=1e-6)
    assert 0.3 < parity.value < parity.detail["measured"]
    assert parity.value == pytest.approx(parity.detail["low"], abs=1e-6)
    assert found["selection_rate", "group=b (1)"].value == pytest.approx(rows.loc[rows["group"] == "b", "prediction"].mean())
    assert ("equalized_odds_difference", "group") in found
    fair, _ = asked_for_loans(0.7)
    quiet = fairness.fairness_over_time(ask(fair, truth, sensitive="group"))
    assert [m.value for m in quiet if m.metric.endswith("difference")] == [0, 0, 0]
    by_value = fairness.fairness_over_time(ask(fair, truth, sensitive="group", judge="value"))
    assert all(m.value > 0 for m in by_value if m.metric.endswith("difference"))


def test_over_time_without_truth_only_the_answers_are_compared() -> None:
    rows, truth = asked_for_loans(0.3)
    for known in (None, truth[:50]):
        measures = fairness.fairness_over_time(ask(rows, known, sensitive="group"))
        assert {m.metric for m in measures} == {"demographic_parity_difference", "selection_rate"}
    prices = rows.assign(prediction=np.where(rows["group"] == "a", 100.0, 300.0) + np.arange(800) % 7)
    (difference, *groups) = fairness.fairness_over_time(ask(prices, None, "regression", sensitive="group"))
    assert difference.value == pytest.approx(200, abs=2)
    assert {m.metric for m in groups} == {"mean_prediction"}


def test_over_time_what_cannot_be_compared_says_so() -> None:
    rows, truth = asked_for_loans(0.3)
    cases = [(rows, {}, "set sensitive"), (rows, {"sensitive": "age"}, "no column age"),
             (rows[:20], {"sensitive": "group"}, "only 20 rows"),
             (rows, {"sensitive": "group", "judge": "me"}, "neither interval nor value"),
             (rows.assign(group="a"), {"sensitive": "group"}, "two")]
    for frame, parameters, said in cases:
        first = fairness.fairness_over_time(ask(frame, truth, **parameters))[0]
        assert first.value is None
        assert said in first.problem
