"""Notebooks for the engine, and a run of them through papermill's own interface."""

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import papermill
import pytest

from mlops_nb.kernels import client

WriteNotebook = Callable[..., Path]
RunNotebook = Callable[..., Any]


@pytest.fixture
def notebook(tmp_path: Path) -> WriteNotebook:
    """Write a notebook of the given cells; a cell may be (source, tag), and the first one is tagged parameters."""

    def write(*cells: str | tuple[str, str], name: str = "page.ipynb", kernel: str = "python3") -> Path:
        python = {"name": kernel, "display_name": kernel, "language": "python"}
        page = nbformat.v4.new_notebook(metadata={"kernelspec": python, "language_info": {"name": "python"}})
        for cell in cells:
            source, *tags = (cell,) if isinstance(cell, str) else cell
            page.cells.append(nbformat.v4.new_code_cell(source, metadata={"tags": tags}))
        page.cells[0].metadata["tags"] = ["parameters"]
        nbformat.write(page, tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture
def run() -> RunNotebook:
    """Execute a notebook with our engine, beside itself as `out-NAME`; returns the executed notebook."""

    def execute(path: Path, parameters: dict[str, Any] | None = None, **options: Any) -> Any:
        options = {"engine_name": "mlops-nb", "progress_bar": False, "cwd": path.parent, **options}
        return papermill.execute_notebook(path, path.with_name(f"out-{path.name}"), parameters, **options)

    return execute


@pytest.fixture
def hour_passes(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Put the engine's clock forward once a file is there: `hour_passes(path)`. So a cell says itself when it has run too long."""

    def put_forward(path: Path) -> None:
        clock = time.monotonic
        monkeypatch.setattr(client, "time", SimpleNamespace(monotonic=lambda: clock() + 3600 * path.exists()))

    return put_forward
