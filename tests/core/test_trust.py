"""A model file may hold what scikit-learn itself defines, and nothing else."""

import pytest

from mlops_nb.core.trust import is_trusted


@pytest.mark.parametrize("name", ["sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor", "numpy.dtype", "numpy.asarray"])
def test_the_parts_of_scikit_learn_are_trusted(name: str) -> None:
    assert is_trusted(name)


@pytest.mark.parametrize("name", [
    "numpy.load", "os.system", "builtins.eval", "sklearn.utils.os.system", "sklearn.no_such.Class", "sklearnlike.Model",
    "sklearn.linear_model._base.sp.sparse.csr_matrix",
])  # fmt: skip
def test_nothing_else_is_trusted_however_it_is_reached(name: str) -> None:
    assert not is_trusted(name)
