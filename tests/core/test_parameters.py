"""Parameters: what the cell declares is what a value must be."""

import json
from pathlib import Path

import pytest

from mlops_nb.core.parameters import bind, read_parameters
from mlops_nb.core.records import SpecificationError


@pytest.fixture
def notebook(tmp_path: Path):
    """Write a notebook with one parameters cell."""

    def write(source: str) -> Path:
        cells = [{"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": source}]
        path = tmp_path / "step.ipynb"
        path.write_text(json.dumps({"cells": cells}))
        return path

    return write


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        ("str", "1.10", "1.10"),
        ("bool", "true", True),
        ("bool", "no", False),
        ("int", "7", 7),
        ("float", "1e-3", 0.001),
        ("Optional[int]", "7", 7),
        ("Literal['a', 'b']", "b", "b"),
        ("list[int]", "[1, 2]", [1, 2]),
        ("dict[str, float]", '{"a": 1}', {"a": 1.0}),
    ],
)
def test_text_is_read_by_the_declared_type(notebook, annotation, text, value):
    assert bind(notebook(f"x: {annotation} = None"), {"x": text}) == {"x": value}


def test_without_an_annotation_the_default_tells_the_type(notebook):
    assert bind(notebook("x = 3\ny = 'a'"), {"x": "4", "y": "5"}) == {"x": 4, "y": "5"}


def test_a_default_may_be_computed_from_another_parameter(notebook):
    _, second = read_parameters(notebook("x: int = 3\ny: int = 2 * x"))
    assert second.computed
    assert second.default is None


def test_every_fault_is_listed_before_anything_runs(notebook):
    with pytest.raises(SpecificationError) as problem:
        bind(notebook("x: int = 1\nflag: bool = False"), {"x": "many", "flag": "perhaps", "z": "1"})
    assert len(problem.value.faults) == 3


@pytest.mark.parametrize("content", ["", "[]", '{"cells": 3}', "not json"])
def test_a_file_that_is_no_notebook_is_named(tmp_path, content):
    path = tmp_path / "step.ipynb"
    path.write_text(content)
    with pytest.raises(SpecificationError, match=r"step\.ipynb: not a notebook"):
        read_parameters(path)


def test_two_tagged_cells_are_one_too_many(tmp_path):
    cell = {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": "x = 1"}
    path = tmp_path / "step.ipynb"
    path.write_text(json.dumps({"cells": [cell, cell]}))
    with pytest.raises(SpecificationError, match="2 cells tagged parameters"):
        read_parameters(path)


def test_show_prints_the_signature(notebook, mlops_nb_command):
    done = mlops_nb_command("notebook", "show", notebook('data: str = "a.csv"  # the file'))
    assert "data" in done.stdout
    assert "the file" in done.stdout
