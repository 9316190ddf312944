"""Say which types a model file may hold to be read without MLflow: scikit-learn's own classes, and two of numpy."""

from importlib import import_module

_NUMPY = {"numpy.asarray", "numpy.dtype"}


def is_trusted(
    name: str,  # of a type, as skops lists it, e.g. `sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor`
) -> bool:
    """Tell whether a type is one of numpy's two, or a class that scikit-learn itself defines."""
    module, _, attribute = name.rpartition(".")
    if name in _NUMPY or not name.startswith("sklearn."):
        return name in _NUMPY
    try:
        found = getattr(import_module(module), attribute, None)
    except ImportError:
        return False
    return isinstance(found, type) and found.__module__.startswith("sklearn.")
