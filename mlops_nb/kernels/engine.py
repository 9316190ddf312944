"""The papermill engine `mlops-nb`: typed parameters, forked kernels, an output file that is whole at every moment.

Papermill imports this module with itself, whatever engine is used: nothing else is imported before a notebook is run.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any


class ForkEngine:
    """What papermill asks of an engine."""

    @classmethod
    def execute_notebook(
        cls,
        nb: Any,
        kernel_name: str,
        output_path: str | None = None,  # papermill's: a path or an address
        progress_bar: Any = True,
        log_output: bool = False,
        *,
        save_to: Path | str | None = None,  # the output, where papermill is given none
        values: dict[str, Any] | None = None,  # parameters by name; None: those that papermill was given
        variables: dict[str, str] | None = None,  # more environment variables for the kernel
        cell_timeout: float | None = None,  # seconds
        notebook_timeout: float | None = None,  # seconds
        stop: threading.Event | None = None,  # set by another thread to end the run
        log: Path | None = None,  # text file that follows the run
        on_cell: Callable[[int, int], None] | None = None,  # called with the cells done and their number
        cwd: Path | str | None = None,  # where the kernel runs; None: here
        input_path: Any = None,
        start_timeout: float = 60,  # seconds
        execution_timeout: float | None = None,  # papermill's word for `cell_timeout`
        timeout: float | None = None,  # nbclient's word for it
        autosave_cell_every: int = 30,  # not used: a checkpoint costs little
        **options: Any,  # nbclient's
    ) -> Any:
        """Execute a notebook and return it; the file at `output_path` (or `save_to`) follows cell by cell."""
        from mlops_nb.kernels.client import Limits
        from mlops_nb.kernels.run import execute

        limits = Limits(cell_timeout or execution_timeout or timeout, notebook_timeout, start_timeout, stop)
        return execute(
            nb, kernel_name, save_to or output_path, values=values, variables=variables, limits=limits, log=log,
            on_cell=on_cell, cwd=cwd, where=str(input_path or save_to or "notebook"), progress_bar=progress_bar,
            log_output=log_output, **options,
        )  # fmt: skip

    @classmethod
    def nb_kernel_name(cls, nb: Any, name: str | None = None) -> str:
        """Say which kernel a notebook wants."""
        from papermill.utils import nb_kernel_name

        return nb_kernel_name(nb, name)

    @classmethod
    def nb_language(cls, nb: Any, language: str | None = None) -> str:
        """Say which language a notebook is written in."""
        from papermill.utils import nb_language

        return nb_language(nb, language)
