"""Notebook runs: the papermill engine `mlops-nb`, and kernels forked from a server that has imported the heavy libraries."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import papermill and nbformat in half the time: without a grammar of web addresses that jsonschema can do without."""
    grammar = "rfc3987_syntax"
    absent = grammar not in sys.modules and "jsonschema" not in sys.modules
    if absent:
        sys.modules[grammar] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if absent:
            del sys.modules[grammar]
