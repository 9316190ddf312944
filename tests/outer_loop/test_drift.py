"""The metrics equal their definitions, as scipy and scikit-learn compute them, on cases nobody tuned."""

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon
from sklearn import metrics as sk

from mlops_nb.outer_loop import drift

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "monitoring"
RANDOM = np.random.default_rng(7)
CASES = {
    "same": (RANDOM.normal(size=900), RANDOM.normal(size=400)),
    "moved": (RANDOM.normal(size=900), RANDOM.normal(0.4, 1.5, size=400)),
    "apart": (RANDOM.normal(size=300), RANDOM.normal(50, size=300)),
    "ties": (RANDOM.integers(0, 6, 500).astype(float), RANDOM.integers(1, 8, 700).astype(float)),
    "tiny": (np.array([1.0, 2.0, 2.5]), np.array([2.0])),
    "heavy tail": (RANDOM.pareto(1.5, 1000), RANDOM.pareto(1.2, 1000)),
}


@pytest.fixture(params=CASES)
def sides(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    return CASES[request.param]


def sturges(b: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count as numpy's histogram does, in Azure ML's number of bins."""
    bins = int(np.ceil(np.log2(min(len(b), len(p))) + 1))
    span = (min(b.min(), p.min()), max(b.max(), p.max()))
    return np.histogram(b, bins, span)[0], np.histogram(p, bins, span)[0]


def test_numerical_metrics(sides: tuple[np.ndarray, np.ndarray]) -> None:
    b, p = sides
    found = drift.measure(b, p, "numerical", drift.NUMERICAL)
    b_counts, p_counts = sturges(b, p)
    assert found["jensen_shannon_distance"] == pytest.approx(jensenshannon(b_counts, p_counts, base=2), abs=1e-7)
    b_share, p_share = ((c + 1) / (c.sum() + len(c)) for c in (b_counts, p_counts))
    assert found["population_stability_index"] == pytest.approx(((p_share - b_share) * np.log(p_share / b_share)).sum())
    distance = stats.wasserstein_distance(b, p) / max(b.std(ddof=1), 0.001)
    assert found["normalized_wasserstein_distance"] == pytest.approx(distance)
    if len(p) > 30:
        probability = stats.ks_2samp(b, p).pvalue
        assert found["two_sample_kolmogorov_smirnov_test"] == pytest.approx(probability, abs=0.02)


def test_categorical_metrics() -> None:
    b = RANDOM.choice(list("abcd"), 2000, p=[0.4, 0.3, 0.2, 0.1])
    p = RANDOM.choice(list("abcd"), 500, p=[0.3, 0.3, 0.2, 0.2])
    found = drift.measure(b, p, "categorical", drift.CATEGORICAL)
    b_counts, p_counts = (np.array([(side == c).sum() for c in "abcd"]) for side in (b, p))
    assert found["jensen_shannon_distance"] == pytest.approx(jensenshannon(b_counts, p_counts, base=2))
    expected = stats.chisquare(p_counts, b_counts / b_counts.sum() * p_counts.sum())
    assert found["pearsons_chi_squared_test"] == pytest.approx(expected.pvalue)


def test_a_category_never_seen_before_is_certain_drift() -> None:
    found = drift.measure(np.array(["a", "b"] * 50), np.array(["a", "b"] * 49 + ["z", "z"]), "categorical", drift.CATEGORICAL)
    assert found["pearsons_chi_squared_test"] == 0
    assert np.isfinite(list(found.values())).all()


@pytest.mark.parametrize("value", [0.0, -3.0, 1e12])
def test_a_constant_column_is_quiet_and_a_moved_constant_is_not(value: float) -> None:
    still = drift.measure(np.full(100, value), np.full(50, value), "numerical", drift.NUMERICAL)
    assert still["jensen_shannon_distance"] == still["normalized_wasserstein_distance"] == 0
    assert still["two_sample_kolmogorov_smirnov_test"] == 1
    moved = drift.measure(np.full(100, value), np.full(50, value + 1), "numerical", drift.NUMERICAL)
    assert moved["jensen_shannon_distance"] == 1
    assert moved["normalized_wasserstein_distance"] == pytest.approx(1000)  # the floor of the deviation is 0.001


def test_the_kolmogorov_smirnov_test_takes_more_than_ten_thousand_rows() -> None:
    b, p = RANDOM.normal(size=50_000), RANDOM.normal(0.02, size=50_000)
    found = drift.two_sample_kolmogorov_smirnov_test(np.sort(b), np.sort(p))
    assert found == pytest.approx(stats.ks_2samp(b, p, method="asymp").pvalue, rel=0.05)


def test_a_few_zero_coordinates_move_wasserstein_but_not_the_counts() -> None:
    """Known defect 6: one metric alone misleads, so several are shown side by side."""
    b = RANDOM.normal(-73.98, 0.02, size=5000)
    p = RANDOM.normal(-73.98, 0.02, size=1000)
    p[:5] = 0  # five in a thousand
    found = drift.measure(b, p, "numerical", drift.NUMERICAL)
    assert found["normalized_wasserstein_distance"] > 10
    assert found["jensen_shannon_distance"] < 0.1
    assert found["population_stability_index"] < 0.1


def test_sixteen_columns_of_a_hundred_thousand_rows_in_a_moment() -> None:
    b, p = RANDOM.normal(size=(2, 16, 100_000))
    start = time.process_time()
    for column in range(16):
        drift.measure(b[column], p[column], "numerical", ["normalized_wasserstein_distance", "jensen_shannon_distance"])
    assert time.process_time() - start < 2


def test_columns_are_typed_by_azures_rule() -> None:
    n = 1000
    frame = pd.DataFrame({"code": np.arange(n) % 49, "count": np.arange(n) % 50, "share": 0.5, "flag": True, "name": "x",
                          "kind": pd.Categorical(["x"] * n), "day": pd.Timestamp("2026-11-20")})
    assert drift.column_types(frame) == {"code": "categorical", "count": "numerical", "share": "numerical",
                                         "flag": "categorical", "name": "categorical", "kind": "categorical",
                                         "day": "categorical"}
    assert drift.column_types(frame, {"count": "categorical"})["count"] == "categorical"


@pytest.mark.parametrize(("reference", "sent", "nulls", "errors", "outside"), [
    ([1.0, 5.0], [1, None, "x", "3", 9], 0.2, 0.2, 0.2),
    ([1, 5], [0, 1.5, True, float("inf"), 5], 0.0, 0.2, 0.2),
    (["a", "b"], ["a", None, "c", 1, "b"], 0.2, 0.0, 0.4),
    ([True, False], [True, None, 0, "false", "maybe"], 0.2, 0.2, 0.0),
    (pd.to_datetime(["2026-01-01", "2026-01-02"]), ["2026-01-01", None, "soon", "2026-01-02T00:00:00", "2027-01-01"], 0.2, 0.2, 0.2),
])
def test_quality_rates(reference: list, sent: list, nulls: float, errors: float, outside: float) -> None:
    like = pd.Series(reference)
    kind = "numerical" if pd.api.types.is_numeric_dtype(like) and like.dtype != bool else "categorical"
    assert drift.quality_rates(like, pd.Series(sent, dtype=object), kind) == {
        "null_value_rate": nulls, "data_type_error_rate": errors, "out_of_bounds_rate": outside}


def test_performance_metrics() -> None:
    truth, answer = RANDOM.choice(list("abc"), (2, 300))
    answer[:5] = "never true"
    found = drift.performance_metrics(truth, answer, "classification")
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(truth, answer))
    assert found["precision"] == pytest.approx(sk.precision_score(truth, answer, average="macro", zero_division=0))
    assert found["recall"] == pytest.approx(sk.recall_score(truth, answer, average="macro", zero_division=0))
    truth, answer = RANDOM.normal(size=(2, 300))
    found = drift.performance_metrics(truth, answer, "regression")
    assert found["mean_absolute_error"] == pytest.approx(sk.mean_absolute_error(truth, answer))
    assert found["mean_squared_error"] == pytest.approx(sk.mean_squared_error(truth, answer))
    assert found["root_mean_squared_error"] == pytest.approx(sk.root_mean_squared_error(truth, answer))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the monitoring files are not here")
def test_performance_of_a_file_that_azure_uses() -> None:
    rows = pd.read_csv(SHARED / "model_performance_production_data.csv")
    found = drift.performance_metrics(rows["classification-targetvalue"], rows["classification"], "classification")
    assert found["accuracy"] == 0.9


@pytest.mark.parametrize(("metric", "worse", "better"), [
    ("accuracy", 0.89, 0.91), ("precision", 0.89, 0.91), ("recall", 0.89, 0.91),  # known defect 2: the service alerts above
    ("pearsons_chi_squared_test", 0.89, 0.91), ("two_sample_kolmogorov_smirnov_test", 0.89, 0.91),
    ("jensen_shannon_distance", 0.91, 0.89), ("null_value_rate", 0.91, 0.89), ("mean_absolute_error", 0.91, 0.89)])
def test_the_direction_of_an_alert(metric: str, worse: float, better: float) -> None:
    assert drift.breaches(metric, worse, 0.9)
    assert not drift.breaches(metric, better, 0.9)
    assert not drift.breaches(metric, 0.9, 0.9)


@pytest.mark.parametrize("kind", ["numerical", "categorical"])
def test_an_empty_side_is_an_error_not_a_zero(kind: str) -> None:
    with pytest.raises(ValueError, match="no values to compare"):
        drift.measure(np.array([]), np.array([1.0]), kind, ["jensen_shannon_distance"])
