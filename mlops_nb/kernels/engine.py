"""The papermill engine `mlops-nb`: forked kernels, and an output file that is whole at every moment."""

import sys
from typing import Any

import nbformat
from papermill.engines import NBClientEngine, NotebookExecutionManager

from mlops_nb.core.files import write_file


class AtomicManager(NotebookExecutionManager):
    """Papermill's bookkeeping of a run, saving after every cell by renaming a whole file into place."""

    nb: Any
    output_path: Any

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
        **options: Any,
    ) -> Any:
        """Execute a notebook and return it; the file at `output_path` (or `save_to`) follows cell by cell."""
        manager = AtomicManager(
            nb, options.pop("save_to", None) or output_path, log_output, progress_bar, autosave_cell_every
        )
        manager.notebook_start()
        try:
            cls.execute_managed_notebook(manager, kernel_name, log_output=log_output, **options)
        finally:
            manager.cleanup_pbar()
            manager.notebook_complete()
        return manager.nb

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **options: Any) -> Any:
        """Hand nbclient our kernel manager where processes can be forked."""
        if sys.platform == "linux":
            from mlops_nb.kernels.manager import ForkKernelManager

            options.setdefault("kernel_manager_class", ForkKernelManager)
        return super().execute_managed_notebook(nb_man, kernel_name, **options)
