"""Performance without labels follows the truth while cases get harder, and is blind to another truth of the same cases."""

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix
from sklearn.naive_bayes import GaussianNB
from sklearn.preprocessing import StandardScaler

from mlops_nb.core.records import Deployment
from mlops_nb.core.settings import Settings
from mlops_nb.outer_loop import estimated
from mlops_nb.outer_loop.collected import Collected
from mlops_nb.outer_loop.drift import performance_metrics
from mlops_nb.outer_loop.estimated import estimate, estimate_tables, estimated_performance, uncertain_examples
from mlops_nb.outer_loop.monitor import Watch
from mlops_nb.outer_loop.signals import Asked

START = dt.datetime(2026, 11, 20, tzinfo=dt.UTC)
RANDOM = np.random.default_rng(0)


def ask(outputs: pd.DataFrame, reference: pd.DataFrame | None, task: str = "classification", **parameters: Any) -> Asked:
    watch = Watch("estimated", "custom", {}, columns={"target_column": "diagnosis"}, parameters=parameters)
    return Asked(
        Settings(),
        watch,
        task,
        Deployment("cells", "blue", "", "dev"),
        (START, START + dt.timedelta(days=1)),
        lambda collection, window: Collected(outputs, len(outputs)),
        reference,
        100,
    )


@pytest.fixture(scope="module")
def cells() -> dict[str, Any]:
    """A model of breast cancer that is too sure of itself (naive Bayes), with a reference and rows for windows."""
    features, truth = load_breast_cancer(return_X_y=True)
    features = StandardScaler().fit_transform(features)
    place = np.random.default_rng(1).permutation(len(truth)) % 5
    learned, known, rest = place == 0, np.isin(place, (1, 2)), place > 2
    model = GaussianNB().fit(features[learned][:, :6], truth[learned])
    chances = model.predict_proba(features[:, :6])
    return {"truth": truth, "chances": chances, "known": known, "rest": rest, "features": features}


def test_it_follows_the_truth_under_a_shift_of_the_cases(cells: dict[str, Any]) -> None:
    """Windows prefer tumours near the border between the kinds, by what was measured of them alone."""
    border = -np.abs(
        LogisticRegression()
        .fit(cells["features"][~cells["rest"]], cells["truth"][~cells["rest"]])
        .decision_function(cells["features"][cells["rest"]])
    )
    scores, truth = cells["chances"][cells["known"]], cells["truth"][cells["known"]]
    errors, actual = [], []
    for slope in (0, 2, 4):
        weight = np.exp(slope * (border - border.mean()) / border.std())
        window = np.random.default_rng(slope).choice(cells["rest"].sum(), 400, p=weight / weight.sum())
        asked, real = cells["chances"][cells["rest"]][window], cells["truth"][cells["rest"]][window]
        value, _, _ = estimate(scores, truth, asked, asked.argmax(axis=1))
        right = np.array(list(performance_metrics(real, asked.argmax(axis=1), "classification").values()))
        errors.append(np.abs(value - right).max())
        actual.append(right[0])
    assert actual[0] - actual[-1] > 0.08  # the windows do get harder
    assert max(errors) < 0.08


def test_it_is_blind_to_another_truth_of_the_same_cases(cells: dict[str, Any]) -> None:
    asked = cells["chances"][cells["rest"]]
    value, bounds, _ = estimate(cells["chances"][cells["known"]], cells["truth"][cells["known"]], asked, asked.argmax(axis=1))
    swapped = performance_metrics(1 - cells["truth"][cells["rest"]], asked.argmax(axis=1), "classification")["accuracy"]
    assert swapped < 0.2 < 0.8 < bounds[0, 0] < value[0]


def test_of_certain_truth_the_matrix_is_the_counted_one() -> None:
    truth, answers = RANDOM.integers(0, 3, 300), RANDOM.integers(0, 3, 300)
    matrix = estimated.expected_confusion(np.eye(3)[truth], answers)
    assert np.array_equal(matrix, confusion_matrix(truth, answers))
    assert estimated.performance(matrix) == pytest.approx(list(performance_metrics(truth, answers, "classification").values()))


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Fifteen windows of 200 rows, whose truth is drawn from probabilities that the model overstates."""
    held, width = 0, []
    for seed in range(15):
        random = np.random.default_rng(seed)
        real = random.beta(1.5, 1.5, 1200)
        truth = (random.random(1200) < real).astype(int)
        said = 1 / (1 + np.exp(-2 * np.log(real / (1 - real))))
        said = np.column_stack([1 - said, said])
        answers = said[1000:].argmax(axis=1)
        _, bounds, _ = estimate(said[:1000], truth[:1000], said[1000:], answers, "sigmoid")
        held += bounds[0, 0] <= (answers == truth[1000:]).mean() <= bounds[1, 0]
        width.append(bounds[1, 0] - bounds[0, 0])
    assert held >= 12
    assert np.mean(width) < 0.16


@pytest.mark.parametrize("form", ["lists", "columns", "one column", "dictionaries"])
def test_probabilities_are_found_in_every_form_they_are_collected_in(cells: dict[str, Any], form: str) -> None:
    def shape(rows: np.ndarray) -> pd.DataFrame:
        if form == "columns":
            return pd.DataFrame(rows, columns=["probability_0", "probability_1"])
        if form == "one column":
            return pd.DataFrame({"risk": rows[:, 1]})
        lists = rows.tolist()
        return pd.DataFrame({"prediction": lists if form == "lists" else [dict(zip("01", row, strict=True)) for row in lists]})

    reference = shape(cells["chances"][cells["known"]]).assign(diagnosis=cells["truth"][cells["known"]])
    outputs = shape(cells["chances"][cells["rest"]]).assign(correlationid=[f"r{n}_0" for n in range(cells["rest"].sum())])
    measures = estimated_performance(ask(outputs, reference, **({"probabilities": "risk"} if form == "one column" else {})))
    actual = performance_metrics(cells["truth"][cells["rest"]], cells["chances"][cells["rest"]].argmax(axis=1), "classification")
    assert [measure.metric for measure in measures] == ["estimated_accuracy", "estimated_precision", "estimated_recall"]
    assert [measure.value for measure in measures] == pytest.approx(list(actual.values()), abs=0.05)
    examples = measures[0].detail["examples"]
    assert len(examples) == 100
    assert examples[0]["why"].startswith("between ")


def test_answers_by_name_may_differ_from_the_most_probable_class() -> None:
    """The service answers spam only above 0.9: recall falls, and the estimate knows."""
    random = np.random.default_rng(0)
    spam = random.random(2000)
    truth = np.where(random.random(2000) < spam, "spam", "ham")
    frame = pd.DataFrame(
        {"probability_ham": 1 - spam, "probability_spam": spam, "answer": np.where(spam > 0.9, "spam", "ham"), "truth": truth}
    )
    (_, _, recall) = estimate_tables(frame[:1000], frame[1000:], "truth", prediction="answer", examples=0)
    actual = performance_metrics(truth[1000:], frame["answer"][1000:].to_numpy(), "classification")["recall"]
    assert recall.value == pytest.approx(actual, abs=0.04)
    (_, _, most_probable) = estimate_tables(frame[:1000], frame[1000:], "truth", examples=0)
    assert most_probable.value > recall.value + 0.1


def test_the_least_certain_come_first() -> None:
    outputs = pd.DataFrame({"correlationid": list("abcd"), "prediction": [[0.9, 0.1], [0.5, 0.5], None, [0.3, 0.7]]})
    for by in ("entropy", "margin"):
        assert [row["correlationid"] for row in uncertain_examples(outputs, 3, by=by)] == ["b", "d", "a"]
    assert uncertain_examples(outputs, 1)[0] == {"correlationid": "b", "score": 1.0, "why": "between 0 (0.50) and 1 (0.50)"}
    assert uncertain_examples(outputs, 1, ["ham", "spam"])[0]["why"] == "between ham (0.50) and spam (0.50)"


SCORED = pd.DataFrame({"prediction": [[0.3, 0.7]] * 150, "diagnosis": [0, 1] * 75})


@pytest.mark.parametrize(
    ("outputs", "reference", "task", "parameters", "said"),
    [
        (SCORED, SCORED, "regression", {}, "this is a regression"),
        (SCORED[:20], SCORED, "classification", {}, "only 20 rows in the window, 100 needed"),
        (SCORED.assign(prediction=1), SCORED, "classification", {}, "no probabilities of the 2 classes"),
        (SCORED, None, "classification", {}, "no reference data"),
        (SCORED, SCORED[["prediction"]], "classification", {}, "no column 'diagnosis' with the truth"),
        (SCORED, SCORED[["diagnosis"]], "classification", {}, "no column with probabilities"),
        (SCORED, SCORED.assign(diagnosis=1), "classification", {}, "two are needed"),
        (SCORED, SCORED, "classification", {"calibration": "magic"}, "'magic' is none of none, sigmoid, isotonic"),
        (SCORED, SCORED, "classification", {"probabilities": "a, b"}, "no column a, b"),
        (SCORED.assign(prediction=[[0.3, 0.3]] * 150), SCORED, "classification", {},
     "only 0 of 150 rows in the window with probabilities"),
        (SCORED[:0], SCORED, "classification", {}, "only 0 rows"),
    ],
)
def test_what_cannot_be_estimated_says_so(
    outputs: pd.DataFrame, reference: pd.DataFrame | None, task: str, parameters: dict[str, Any], said: str
) -> None:
    for measure in estimated_performance(ask(outputs, reference, task, **parameters)):
        assert measure.value is None
        assert said in measure.problem


def test_a_model_that_always_says_the_same_has_a_result() -> None:
    measures = estimated_performance(ask(SCORED, SCORED))
    assert measures[0].value == pytest.approx(0.5, abs=0.02)
