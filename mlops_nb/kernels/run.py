"""One run of one notebook: values in, cells executed, everything written down."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from papermill.iorw import LocalHandler, papermill_io, write_ipynb
from papermill.log import logger

from mlops_nb.core.records import SpecificationError
from mlops_nb.kernels.checkpoint import write_notebook, write_text
from mlops_nb.kernels.client import Client, Limits
from mlops_nb.kernels.injection import from_papermill, inject, papermill_command
from mlops_nb.kernels.manager import kernel_spec
from mlops_nb.kernels.record import Record

NO_LIMITS = Limits()
# Variables that are not written into the executed notebook, where `debug` would find them.
PRIVATE = re.compile(r"SECRET|TOKEN|PASSW|CREDENTIAL|NOTIFY|(_|^)(KEY|PWD|SAS|DSN)(_|$)|CONNECTION_STRING", re.IGNORECASE)


class Refusal(click.ClickException):
    """A `SpecificationError`, as the papermill command shows it."""

    exit_code = 2


def execute(
    nb: Any,  # as papermill loads it; changed in place
    kernel_name: str,
    output: Path | str | None,  # a path, or an address that papermill can write to
    *,
    values: dict[str, Any] | None = None,  # parameters by name; None: those that papermill was given
    variables: dict[str, str] | None = None,  # more environment variables for the kernel
    limits: Limits = NO_LIMITS,
    log: Path | None = None,  # text file that follows the run
    on_cell: Callable[[int, int], None] | None = None,  # called with the cells done and their number
    cwd: Path | str | None = None,  # where the kernel runs; None: here
    where: str = "notebook",  # the source, for messages
    progress_bar: Any = False,
    log_output: bool = False,
    **options: Any,  # nbclient's
) -> Any:
    """Execute a notebook and return it; raises `SpecificationError` before a kernel starts, and what `Client` raises."""
    _adapt_papermill()
    _prepare(nb, kernel_name, values, where)
    folder, variables = Path(cwd or os.getcwd()).resolve(), variables or {}
    nb.metadata["mlops_nb"] = {"cwd": str(folder), "kernel": kernel_name, "variables": _harmless(nb, variables)}
    path, write = _output(output)
    environment = {**os.environ, **variables}
    record = Record(nb, path, write, log, on_cell, log_output, progress_bar)
    try:
        record.notebook_start()
        try:
            Client(record, limits, path or Path(where), folder, environment, kernel_name=kernel_name, log=logger,
                   log_output=log_output, **options).execute()  # fmt: skip
        finally:
            record.notebook_complete()
    finally:
        record.close()
    return nb


def _prepare(nb: Any, kernel_name: str, values: dict[str, Any] | None, where: str) -> None:
    try:
        language = kernel_spec(kernel_name).language
        if language == "python":
            inject(nb, from_papermill(nb) if values is None else values, where)
        elif values:
            from papermill.parameterize import parameterize_notebook

            nb.cells = parameterize_notebook(nb, values, kernel_name=kernel_name, language=language).cells
    except SpecificationError as problem:
        if papermill_command() is None:
            raise
        raise Refusal(str(problem)) from None


def _harmless(nb: Any, variables: dict[str, str]) -> dict[str, str]:
    """Return the variables that may be written down, so that `debug` finds them: none that is or looks like a secret."""
    said = "\n".join([str(nb.metadata.papermill["parameters"]), *(cell.source for cell in nb.cells)])
    secret = set(re.findall(r"\benv:(\w+)", said))
    return {
        name: value for name, value in variables.items()
        if name not in secret and not PRIVATE.search(name) and not re.search(r"://[^/]*@", value)
    }  # fmt: skip


def _output(place: Any) -> tuple[Path | None, Callable[[Any], None] | None]:
    """Find what writes the whole output, and its path if that is a local file."""
    if place is None:
        return None, None
    handler = papermill_io.get_handler(str(place), None)
    if not isinstance(handler, LocalHandler):
        return None, lambda nb: write_ipynb(nb, place)
    path = Path(handler._cwd or "", place).resolve()
    return path, lambda nb: write_notebook(nb, path)


def _adapt_papermill() -> None:
    """Let papermill write local files whole, and count no error as a failure that its cell's tag expects."""
    import papermill.execute

    LocalHandler.write = _write  # type: ignore[method-assign]
    check = papermill.execute.raise_for_execution_errors
    if check.__module__ == papermill.execute.__name__:

        def check_failures(nb: Any, output_path: Any) -> None:
            ours = "mlops_nb" in nb.metadata
            if not ours or any(cell.metadata.get("papermill", {}).get("exception") for cell in nb.cells):
                check(nb, output_path)

        papermill.execute.raise_for_execution_errors = check_failures


def _write(self: LocalHandler, buf: str, path: str) -> None:
    place = Path(self._cwd or "", path).resolve()
    if not place.parent.is_dir():
        raise FileNotFoundError(f"output folder {place.parent} doesn't exist.")
    if place.exists() and not place.is_file():  # a device or a pipe
        place.write_text(buf, encoding="utf-8")
    else:
        write_text(place, buf)
