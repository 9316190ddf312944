"""The short way to a model gives the answers of MLflow's own way: whatever is sent, both answer alike, or both refuse.

An optional column that is left out is one of nulls; MLflow leaves it out, too, and scikit-learn's models then fail. Where we
differ, we do so on purpose. Refused here, though MLflow would turn it into something else without a word (`altered`): text or a
boolean for a number, a fraction or a number out of range for an integer, null where the signature has no nulls, a number for
text, a time with an offset among others without. Answered here, though MLflow raises (`lenient`): no rows at all, an optional
integer that is null, a time with an offset (it is turned into UTC), times that are written in several ways.
"""

import json
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import mlflow
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.models import ModelSignature
from mlflow.pyfunc.scoring_server import infer_and_parse_data
from mlflow.types import ColSpec, Schema
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from mlops_nb.scoring.model import Model, load_model
from mlops_nb.scoring.reading import BadPayload, parse, read_content
from mlops_nb.scoring.trees import merge_trees

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered")  # 1e308 is infinite as a float of 32 bits
ROWS = 60
RANDOM = np.random.default_rng(7)
VALUES: dict[str, Callable[[], Any]] = {  # MLflow's type -> a training column
    "double": lambda: RANDOM.normal(size=ROWS), "float": lambda: RANDOM.normal(size=ROWS).astype("float32"),
    "long": lambda: RANDOM.integers(-5, 50, ROWS), "integer": lambda: RANDOM.integers(-5, 50, ROWS).astype("int32"),
    "boolean": lambda: RANDOM.random(ROWS) > 0.5, "string": lambda: RANDOM.choice(["Fair", "Good", "Ideal"], ROWS),
    "datetime": lambda: pd.Timestamp("2026-01-01") + pd.to_timedelta(RANDOM.integers(0, 1000, ROWS), unit="h")}
DOUBLES = [("a", "double", True), ("b", "double", False), ("c", "double", True)]
NUMBERS = [("a", "double", True), ("n", "long", True), ("m", "integer", True), ("b", "double", False)]
FLOATS = [("x", "float", True), ("y", "float", True)]
WHOLE = [("i", "long", True), ("j", "long", True)]
MIXED = [("carat", "double", True), ("cut", "string", True), ("stones", "long", True), ("depth", "double", False),
         ("boxed", "boolean", False), ("sold", "datetime", False), ("old", "long", False)]
BOOST = HistGradientBoostingRegressor(max_iter=8, min_samples_leaf=3)
ENCODE = ColumnTransformer([("cut", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["cut"]),
                            ("rest", "passthrough", ["carat", "stones", "depth"])])
CASES: dict[str, tuple[list[tuple[str, str, bool]], Any]] = {
    "doubles": (DOUBLES, BOOST), "numbers": (NUMBERS, BOOST), "floats": (FLOATS, make_pipeline(StandardScaler(), LinearRegression())),
    "whole": (WHOLE, LinearRegression()), "mixed": (MIXED, make_pipeline(ENCODE, BOOST))}
TREES = ["sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"]


class Both(NamedTuple):
    """One model, loaded by us and by MLflow."""

    ours: Model
    theirs: Any
    columns: list[tuple[str, str, bool]]


@pytest.fixture(scope="module", params=CASES)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Both:
    columns, estimator = CASES[request.param]
    frame = pd.DataFrame({name: VALUES[kind]() for name, kind, _ in columns})
    fitted = estimator.fit(frame, frame.select_dtypes("number").sum(axis=1))
    signature = ModelSignature(Schema([ColSpec(kind, name, required) for name, kind, required in columns]))
    folder = tmp_path_factory.mktemp("model") / "model"
    mlflow.sklearn.save_model(fitted, folder, signature=signature, pip_requirements=["scikit-learn"],
                              serialization_format="skops", skops_trusted_types=TREES)
    return Both(load_model(folder), mlflow.pyfunc.load_model(str(folder)), columns)


# --- what is sent ----------------------------------------------------------------------------------------------------

ODD = st.sampled_from([None, math.nan, math.inf, -math.inf, True, "", "1.5", "x", 0, 2**53 + 1, 2**63, -(2**63) - 1, 2**70,
                       10**400, 1.5, 1e308, -0.0, 5e-324, [], [1], {}, {"a": 1}, "2026-11-20T08:30:00+02:00", "NaT", "\x00", "é"])
GOOD: dict[str, st.SearchStrategy[Any]] = {
    "double": st.floats(-1e6, 1e6) | st.integers(-100, 100), "float": st.floats(-1e6, 1e6, width=32) | st.integers(-100, 100),
    "long": st.integers(-(2**60), 2**60) | st.integers(-5, 50), "integer": st.integers(-(2**31), 2**31 - 1),
    "boolean": st.booleans(), "string": st.sampled_from(["Fair", "Good", "Ideal", "unheard of"]) | st.text(max_size=5),
    "datetime": st.datetimes(pd.Timestamp("1980-01-01"), pd.Timestamp("2100-01-01")).map(lambda moment: moment.isoformat())}


@st.composite
def tables(draw: st.DrawFn, columns: list[tuple[str, str, bool]]) -> tuple[list[str], list[list[Any]]]:
    """Draw names and rows: mostly good ones, some with an odd value, a missing, a surplus, or a shuffled column."""
    given_columns = [column for column in columns if draw(st.integers(0, 11)) or not column[2]]
    given_columns = [column for column in given_columns if column[2] or draw(st.integers(0, 3))]
    spoilt = draw(st.sets(st.sampled_from([name for name, _, _ in columns]), max_size=2)) if draw(st.booleans()) else set()
    given_columns = draw(st.permutations(given_columns)) if draw(st.booleans()) else given_columns
    names = [name for name, _, _ in given_columns] + (["surplus"] if draw(st.booleans()) else [])
    values = [GOOD[kind] | ODD if name in spoilt else GOOD[kind] | st.none() if not required else GOOD[kind]
              for name, kind, required in given_columns]
    row = st.tuples(*values, *[ODD] * (len(names) - len(values)))
    rows = draw(st.lists(row, max_size=4, min_size=draw(st.sampled_from([0, 1, 1, 1]))))
    return names, [list(row) for row in rows]


def bodies(names: list[str], rows: list[list[Any]]) -> dict[str, Any]:
    """Write one table in every format that names its columns."""
    records = [dict(zip(names, row, strict=True)) for row in rows]
    columns = {name: [row[place] for row in rows] for place, name in enumerate(names)}
    split = {"columns": names, "data": rows}
    forms = {"input_data": split, "dataframe_split": split, "inputs": columns}
    return forms if not rows else forms | {"dataframe_records": records, "instances": records}


def answer(model: Model, body: bytes) -> Any:
    """Score as the server does: predictions, `refused`, or `failed`."""
    try:
        inputs = model.fit(read_content(body))
    except BadPayload:
        return "refused"
    try:
        return model.predict(inputs) if len(inputs) else np.array([])
    except Exception:
        return "failed"


def mlflow_answer(model: Any, names: list[str], rows: list[list[Any]]) -> Any:
    """Score as MLflow's server does."""
    try:
        sent = json.loads(json.dumps({"columns": names, "data": rows}))
        return model.predict(infer_and_parse_data({"dataframe_split": sent}, model.metadata.get_input_schema()))
    except Exception:
        return "refused"


def same(one: Any, other: Any) -> bool:
    """Tell whether both answered, with the same predictions to the last bit."""
    return not isinstance(one, str) and not isinstance(other, str) and np.array_equal(one, other, equal_nan=True)


# --- where we differ on purpose --------------------------------------------------------------------------------------


def is_fit(value: Any, kind: str, required: bool) -> bool:
    """Tell whether a value is one of a column's, taken strictly."""
    if value is None or value != value:
        return not required
    if kind in ("string", "datetime"):
        return isinstance(value, str) and (kind == "string" or is_moment(value))
    if kind == "boolean":
        return isinstance(value, bool)
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) >= 10**400:
        return False
    bits = {"long": 63, "integer": 31}.get(kind)
    return bits is None or (not math.isinf(value) and value == int(value) and -(2**bits) <= value < 2**bits)


def is_moment(value: str) -> bool:
    try:
        return pd.Timestamp(value) is not pd.NaT
    except ValueError:
        return False


def altered(columns: list[tuple[str, str, bool]], names: list[str], rows: list[list[Any]]) -> bool:
    """Tell whether MLflow would have to change a value's meaning to take it."""
    kinds = {name: (kind, required) for name, kind, required in columns}
    return not all(is_fit(value, *kinds[name]) for row in rows for name, value in zip(names, row, strict=True) if name in kinds)


def lenient(columns: list[tuple[str, str, bool]], names: list[str], rows: list[list[Any]]) -> bool:
    """Tell whether a table lacks what need not be there."""
    given_values = {name: [row[place] for row in rows] for place, name in enumerate(names)}
    offsets = any(isinstance(value, str) and "+" in value for name, kind, _ in columns if kind == "datetime"
                  for value in given_values.get(name, []))
    unequal = any(len({len(str(value)) for value in given_values.get(name, []) if value}) > 1  # MLflow takes one way to write a time
                  for name, kind, _ in columns if kind == "datetime")
    nulls = any(value is None or value != value for name, kind, _ in columns if kind in ("long", "integer")
                for value in given_values.get(name, [None]))
    return not rows or offsets or unequal or nulls


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_both_ways_answer_alike_or_refuse(both: Both, data: st.DataObject) -> None:
    names, rows = data.draw(tables(both.columns))
    key, content = data.draw(st.sampled_from(sorted(bodies(names, rows).items(), key=lambda item: item[0])))
    ours = answer(both.ours, json.dumps({key: content}).encode())
    theirs = mlflow_answer(both.theirs, names, rows)
    if isinstance(theirs, str):  # an optional column that is left out is one of nulls
        absent = [name for name, _, required in both.columns if not required and name not in names]
        theirs = mlflow_answer(both.theirs, names + absent, [row + [None] * len(absent) for row in rows])
    if isinstance(ours, str):
        assert isinstance(theirs, str) or (ours == "refused" and altered(both.columns, names, rows))
    else:
        assert same(ours, theirs) or (isinstance(theirs, str) and lenient(both.columns, names, rows))


def test_rows_of_plain_numbers_take_the_short_way(both: Both) -> None:
    assert both.ours.plain  # no model of these needs MLflow
    assert (both.ours.array is None) == (both.columns is MIXED)


def test_a_model_that_adds_up_otherwise_in_company_is_not_asked_for_several_requests_at_once(both: Both) -> None:
    if both.columns is DOUBLES:
        assert both.ours.shares  # trees compare, they do not add up columns


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3)
                    | st.dictionaries(st.text(max_size=3), inner, max_size=3), max_leaves=8) | ODD)
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_json_is_read_as_pythons_json_reads_it(content: Any) -> None:
    text = json.dumps(content)
    assert repr(parse(text.encode())) == repr(json.loads(text))


@pytest.mark.parametrize("boost", [
    HistGradientBoostingRegressor(max_iter=30), HistGradientBoostingRegressor(max_iter=1), HistGradientBoostingClassifier(max_iter=10),
    HistGradientBoostingRegressor(max_iter=9, loss="poisson"), HistGradientBoostingClassifier(max_iter=9, categorical_features=[0])],
    ids=lambda boost: str(boost)[20:])
def test_trees_under_one_root_add_up_to_the_same(boost: Any) -> None:
    rows = RANDOM.normal(size=(300, 6))
    rows[:, 0] = RANDOM.integers(0, 9, 300)
    rows[::7, 1] = np.nan
    boost.fit(rows, RANDOM.integers(0, 4, 300))
    sizes = (1, 2, 17, 300)
    before = [boost.predict(rows[-size:]) for size in sizes]
    assert merge_trees(boost)
    assert all(np.array_equal(boost.predict(rows[-size:]), found) for size, found in zip(sizes, before, strict=True))


def test_a_model_that_is_not_what_it_was_keeps_scikit_learns_way() -> None:
    boost = HistGradientBoostingRegressor(max_iter=3).fit(RANDOM.normal(size=(60, 2)), RANDOM.normal(size=60))
    taken = boost._predictors
    boost._predictors = [*taken, [object()]]
    assert not merge_trees(boost)
    boost._predictors = taken
    assert len(boost.predict([[1, 2]])) == 1


def test_a_boosting_model_is_served_with_its_trees_merged(both: Both) -> None:
    estimator = both.ours.predict.__self__
    boost = estimator[-1] if both.columns is MIXED else estimator
    assert ("_predict_iterations" in vars(boost)) == (both.columns not in (FLOATS, WHOLE))
