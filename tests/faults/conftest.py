"""The endpoints of tests/serving, for the tests of faults."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_spec = importlib.util.spec_from_file_location("endpoints_to_lay", Path(__file__).parents[1] / "serving" / "conftest.py")
assert _spec
assert _spec.loader
_endpoints = sys.modules["endpoints_to_lay"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_endpoints)


@pytest.fixture(scope="module")
def lay_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Lay endpoints that a whole module shares."""
    with _endpoints.laying(tmp_path_factory.mktemp("endpoints")) as lay:
        yield lay
