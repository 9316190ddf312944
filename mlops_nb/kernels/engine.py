"""The papermill engine `mlops-nb`: forked kernels, and an output file that is whole at every moment."""

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
from papermill.engines import NBClientEngine, NotebookExecutionManager
from papermill.log import logger

from mlops_nb.core.files import write_file
from mlops_nb.kernels.client import Client, Limits


class AtomicManager(NotebookExecutionManager):
    """Papermill's bookkeeping of a run, saving after every cell by renaming a whole file into place."""

    nb: Any
    output_path: Any
    on_cell: Callable[[int, int], None] | None = None

    def save(self, **options: Any) -> None:
        """Write the notebook as it stands."""
        self.nb = options.get("nb") or self.nb
        if self.output_path:
            write_file(self.output_path, nbformat.writes(self.nb))
        self.last_save_time = self.now()

    def cell_start(self, cell: Any, cell_index: int | None = None, **options: Any) -> None:
        """Mark a cell as running, without writing the whole notebook for it."""
        path, self.output_path = self.output_path, None
        try:
            super().cell_start(cell, cell_index, **options)
        finally:
            self.output_path = path

    def cell_complete(self, cell: Any, cell_index: int | None = None, **options: Any) -> None:
        super().cell_complete(cell, cell_index, **options)
        if self.on_cell:
            self.on_cell((cell_index or 0) + 1, len(self.nb.cells))


class ForkEngine(NBClientEngine):
    """Runs a notebook in a kernel forked from a preloaded process (on Linux; a plain kernel elsewhere)."""

    @classmethod
    def execute_notebook(
        cls,
        nb: Any,
        kernel_name: str,
        output_path: str | None = None,
        progress_bar: Any = True,
        log_output: bool = False,
        autosave_cell_every: int = 30,
        *,
        save_to: Path | None = None,
        variables: dict[str, str] | None = None,
        cell_timeout: float | None = None,
        notebook_timeout: float | None = None,
        stop: threading.Event | None = None,
        log: Path | None = None,
        on_cell: Callable[[int, int], None] | None = None,
        cwd: Path | str | None = None,
        values: dict[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """Execute a notebook and return it; the file at `output_path` (or `save_to`) follows cell by cell."""
        if values:
            from papermill.parameterize import parameterize_notebook

            nb = parameterize_notebook(nb, values, language="python", kernel_name=kernel_name)
        where = Path(save_to or output_path or "notebook.ipynb")
        manager = AtomicManager(nb, save_to or output_path, log_output, progress_bar, autosave_cell_every)
        manager.on_cell = on_cell
        manager.notebook_start()
        if sys.platform == "linux":
            from mlops_nb.kernels.manager import ForkKernelManager

            options.setdefault("kernel_manager_class", ForkKernelManager)
        options.pop("input_path", None)
        timeout = cell_timeout or options.pop("execution_timeout", None)
        startup = options.pop("start_timeout", 60)
        try:
            Client(
                manager,
                Limits(timeout, notebook_timeout, stop),
                where,
                Path(cwd or os.getcwd()),
                {**os.environ, **(variables or {})},
                kernel_name=kernel_name,
                log=logger,
                log_output=log_output,
                startup_timeout=startup,
                **options,
            ).execute()
        finally:
            manager.cleanup_pbar()
            manager.notebook_complete()
        return manager.nb
