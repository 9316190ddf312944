"""Load one MLflow model from its folder, and no more of MLflow than it needs.

A scikit-learn model saved as skops, which is what this workbench registers, is read by skops itself: that spares the
import of MLflow, half of the start. Every other model is loaded by `mlflow.pyfunc`.
"""

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlops_nb.core.trust import is_trusted
from mlops_nb.scoring.arrays import Tensor, fit_freely, fit_tensors
from mlops_nb.scoring.fitting import Array, Column, array_for, fit_array, fit_table
from mlops_nb.scoring.reading import BadPayload, Content, as_table, read_content
from mlops_nb.scoring.trees import merge_trees

log = logging.getLogger(__name__)
_BY_NAME = ("ColumnTransformer", "FunctionTransformer")  # parts that may look at the columns' names or types


@dataclass(frozen=True)
class Model:
    """A model that is ready to predict."""

    predict: Callable[[Any], Any]  # takes what `fit` makes
    signature: list[Column] | None  # None: the model takes arrays, or any table
    tensor: str = ""  # the type of a model that takes one array instead of a table, e.g. float64
    tensors: tuple[Tensor, ...] = ()  # the arrays of a model that takes those
    positions: bool = False  # the signature's columns have no names
    array: Array | None = None  # set where rows go to the model as one array, with the answers that a table would get
    plain: bool = False  # scikit-learn's own, read without MLflow
    shares: bool = False  # rows get the same answers alone and among others, to the last bit: requests may share a call
    hinted: bool = False  # the model checks its input by its type hints: it is handed on as it comes
    params: bool = False  # `predict` takes `params`
    schema: dict[str, list[dict[str, Any]]] | None = None  # inputs, outputs, params, as the MLmodel file has them

    def fit(self, content: Content) -> Any:
        """Check a request and make the model's input of it; raises `BadPayload`."""
        if self.array and self.signature:
            return fit_array(content, self.array, self.signature)
        if self.signature is not None:
            return fit_table(as_table(content), self.signature, self.positions)
        if self.hinted:
            if content.key != "inputs":
                raise BadPayload(f"The model checks its input by type hints. Send it as inputs, not {content.key}.")
            return content.data
        return fit_tensors(content, self.tensors) if self.tensors else fit_freely(content, tables=self.plain)


def load_model(
    folder: Path | str,  # holds the file MLmodel
) -> Model:
    """Load a model; raises `FileNotFoundError` without an MLmodel file, and whatever loading the model raises."""
    description = read_description(folder)
    signature = description.get("signature") or {}
    schema = {part: json.loads(signature.get(part) or "[]") for part in ("inputs", "outputs", "params")}
    model = Model(lambda rows: rows, None, hinted=bool(description.get("is_signature_from_type_hint")), schema=schema)
    inputs = schema["inputs"]
    if inputs and inputs[0]["type"] == "tensor":
        tensors = tuple(Tensor(e.get("name", ""), e["tensor-spec"]["dtype"], tuple(e["tensor-spec"]["shape"])) for e in inputs)
        model = replace(model, tensors=tensors, tensor="" if tensors[0].name else tensors[0].dtype)
    elif inputs and not model.hinted:
        columns = [Column(e.get("name", str(i)), e["type"], e.get("required", True)) for i, e in enumerate(inputs)]
        model = replace(model, signature=columns, positions="name" not in inputs[0])
    estimator, predict = _read_skops(Path(folder), description)
    if predict is None or schema["params"]:
        return _by_mlflow(model, folder)
    model = replace(model, predict=predict, plain=True)
    array = array_for(model.signature) if model.signature and not model.positions else None
    if array and _takes_arrays(estimator, predict, array):
        model = replace(model, array=array)
    return replace(model, shares=_answers_alike(model, folder))


def read_description(folder: Path | str) -> dict[str, Any]:
    """Read a model's MLmodel file; raises `FileNotFoundError`."""
    import yaml

    path = Path(folder) / "MLmodel"
    if not path.is_file():
        raise FileNotFoundError(f"No MLmodel in {folder}. Deploy the model again, or restore the artifact folder.")
    return dict(yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))  # noqa: S506 both are safe


def _by_mlflow(model: Model, folder: Path | str) -> Model:
    import mlflow.pyfunc
    from mlflow.exceptions import MlflowException

    loaded = mlflow.pyfunc.load_model(str(folder))

    def predict(inputs: Any, params: dict[str, Any] | None = None) -> Any:
        try:
            return loaded.predict(inputs, params=params)
        except MlflowException as problem:
            if problem.error_code in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST"):  # the signature refuses it
                raise BadPayload(str(problem.message)[-500:]) from None
            raise

    return replace(model, predict=predict, params=True)


def _read_skops(folder: Path, description: dict[str, Any]) -> tuple[Any, Callable[[Any], Any] | None]:
    """Read a scikit-learn model and its method; None where MLflow and its rules are needed."""
    flavors = description.get("flavors", {})
    flavor, function = flavors.get("sklearn") or {}, flavors.get("python_function") or {}
    plain = flavor.get("serialization_format") == "skops" and not flavor.get("code")
    trusted = flavor.get("skops_trusted_types") or []
    if not plain or function.get("loader_module") != "mlflow.sklearn" or not all(map(is_trusted, trusted)):
        return None, None
    import skops.io

    # models that learned the names of their columns warn at every array, which takes longer than the array
    warnings.filterwarnings("ignore", message="X does not have valid feature names")
    estimator = skops.io.load(folder / flavor["pickled_model"], trusted=trusted)
    for part in list(_parts(estimator)):
        if type(part).__name__.startswith("HistGradientBoosting"):
            merge_trees(part)
    return estimator, getattr(estimator, function.get("predict_fn", "predict"))


def _takes_arrays(estimator: Any, predict: Callable[[Any], Any], array: Array) -> bool:
    """Tell whether a model answers an array of the columns in order as it answers the table; tried on rows, too."""
    import numpy as np
    import pandas as pd

    if any(type(part).__name__ in _BY_NAME or getattr(part, "_sklearn_output_config", None) for part in _parts(estimator)):
        return False
    rows = _numbers(len(array.names)).astype(array.dtype)
    try:
        frame = pd.DataFrame({name: rows[:, place] for place, name in enumerate(array.names)})
        of_table, of_array = np.asarray(predict(frame)), np.asarray(predict(np.asfortranarray(rows)))
    except Exception as problem:  # then the table is the way; real requests are told what fails
        log.info("The model takes no arrays: %s", problem)
        return False
    return np.array_equal(of_table, of_array, equal_nan=of_table.dtype.kind == "f")


def _answers_alike(model: Model, folder: Path | str) -> bool:
    """Tell whether rows are answered alike however many are scored at once: products of matrices may round otherwise."""
    import numpy as np

    try:
        rows = _some_rows(model, folder)
        whole = np.asarray(model.predict(rows))
        cut = (lambda piece: piece) if hasattr(rows, "iloc") else np.asfortranarray
        pieces = [cut(rows[start:start + size]) for start, size in ((0, 1), (1, 2), (3, 3), (6, 1), (7, 8), (15, 9))]
        apart = np.concatenate([np.asarray(model.predict(piece)) for piece in pieces])
        return len(whole) == len(rows) and np.array_equal(whole, apart, equal_nan=whole.dtype.kind == "f")
    except Exception as problem:  # no rows to try it with, or none that the model takes
        log.info("Requests do not share a call of this model: %s: %s", type(problem).__name__, problem)
        return False


def _some_rows(model: Model, folder: Path | str) -> Any:
    """Make 24 rows of input: of the model's own example, or of numbers."""
    import numpy as np

    if (found := _example(model, folder)) is not None and hasattr(found, "take"):
        places = np.arange(24) % len(found)
        return found.iloc[places].reset_index(drop=True) if hasattr(found, "iloc") else found[places]
    if model.array:
        return np.asfortranarray(_numbers(len(model.array.names)).astype(model.array.dtype))
    shape = model.tensors[0].shape if model.tensors else ()
    if len(shape) == 2 and shape[1] > 0 and model.tensor.startswith("float"):
        return _numbers(shape[1]).astype(model.tensor)
    raise ValueError("it has no input example")


def _numbers(columns: int) -> Any:
    import numpy as np

    sizes = np.logspace(-1, 3, 24)[:, np.newaxis]
    return np.random.default_rng(0).normal(size=(24, columns)) * sizes


def _parts(estimator: Any) -> Iterator[Any]:
    """Go through an estimator and the estimators within it."""
    waiting: list[Any] = [estimator]
    seen: set[int] = set()
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, dict):
            waiting += part.values()
        elif isinstance(part, list | tuple):
            waiting += part[:1000]  # a forest's trees are all alike
        elif type(part).__module__.startswith("sklearn.") and hasattr(part, "get_params"):
            yield part
            waiting += vars(part).values()


def _example(model: Model, folder: Path | str) -> Any:
    """Make the model's input of its own example; None where it has none."""
    path = Path(folder) / "serving_input_example.json"
    return model.fit(read_content(path.read_bytes())) if path.is_file() else None


def warm_up(model: Model, folder: Path | str) -> None:
    """Score the model's own example, where it has one: a first prediction imports and builds what the later ones find."""
    try:
        if (inputs := _example(model, folder)) is not None:
            model.predict(inputs)
    except Exception as problem:  # it may fail on real requests too; those are told so
        log.warning("The model's own example cannot be scored: %s: %s", type(problem).__name__, problem)


def count_rows(inputs: Any) -> int:
    """Count the rows of what `Model.fit` made."""
    if isinstance(inputs, dict):
        inputs = next(iter(inputs.values()), ())
    return len(inputs) if isinstance(inputs, Sequence) or hasattr(inputs, "__len__") else 1
