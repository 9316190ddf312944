"""Load one MLflow model from its folder, and no more of MLflow than it needs.

A scikit-learn model saved as skops, which is what this workbench registers, is read by skops itself: that spares the
import of MLflow, half of the start. Every other model is loaded by `mlflow.pyfunc`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlops_nb.serving.payload import Column

_OWN = ("sklearn.", "numpy.", "scipy.")  # a model that asks skops to trust other types is left to MLflow and its rules


@dataclass(frozen=True)
class Model:
    """A model that is ready to predict."""

    predict: Callable[[Any], Any]  # takes the checked table
    signature: list[Column] | None  # None: the model takes any table
    tensor: str = ""  # the type of a model that takes one array instead of a table, e.g. float64


def load_model(
    folder: Path | str,  # holds the file MLmodel
) -> Model:
    """Load a model; raises `FileNotFoundError` without an MLmodel file, and whatever loading the model raises."""
    import yaml

    path = Path(folder) / "MLmodel"
    if not path.is_file():
        raise FileNotFoundError(f"No MLmodel in {folder}. Deploy the model again, or restore the artifact folder.")
    description = yaml.safe_load(path.read_text())
    signature, tensor = _read_signature(description.get("signature") or {})
    return Model(_predictor(Path(folder), description), signature, tensor)


def _read_signature(signature: dict[str, Any]) -> tuple[list[Column] | None, str]:
    inputs = json.loads(signature.get("inputs") or "[]")
    tensors = [entry["tensor-spec"]["dtype"] for entry in inputs if entry["type"] == "tensor"]
    if len(tensors) == 1 and "name" not in inputs[0]:
        return None, tensors[0]
    if tensors or not inputs or any("name" not in entry for entry in inputs):
        return None, ""
    return [Column(entry["name"], entry["type"], entry.get("required", True)) for entry in inputs], ""


def _predictor(folder: Path, description: dict[str, Any]) -> Callable[[Any], Any]:
    flavors = description.get("flavors", {})
    flavor, function = flavors.get("sklearn") or {}, flavors.get("python_function") or {}
    trusted = flavor.get("skops_trusted_types") or []
    plain = flavor.get("serialization_format") == "skops" and not flavor.get("code")
    if plain and function.get("loader_module") == "mlflow.sklearn" and all(t.startswith(_OWN) for t in trusted):
        import skops.io

        estimator = skops.io.load(folder / flavor["pickled_model"], trusted=trusted)
        return getattr(estimator, function.get("predict_fn", "predict"))
    import mlflow.pyfunc

    return mlflow.pyfunc.load_model(str(folder)).predict
