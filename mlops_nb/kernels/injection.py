"""The cell of typed values that follows a notebook's parameters cell: checked before a kernel starts."""

import math
from pathlib import Path
from typing import Any

from nbformat.v4 import new_code_cell

from mlops_nb.core.parameters import bind_signature, injected_source, parameters_source, read_signature

TAG = "injected-parameters"  # papermill's, and that of every reader of its notebooks


def inject(
    nb: Any,
    values: dict[str, Any],  # by name; text is parsed by the declared type
    where: str,  # the notebook's path
) -> None:
    """Give a Python notebook its values, in the place of any it was given before; raises `SpecificationError`."""
    source = parameters_source(nb, where)
    bound = bind_signature(read_signature(source, where), values, Path(where).name)
    hidden = any(cell.metadata.get("jupyter", {}).get("source_hidden") for cell in nb.cells if TAG in _tags(cell))
    nb.cells = [cell for cell in nb.cells if TAG not in _tags(cell)]
    nb.metadata.papermill["parameters"] = _plain(bound)
    if text := injected_source(source, bound):
        cell = new_code_cell(text, metadata={"tags": [TAG], **({"jupyter": {"source_hidden": True}} if hidden else {})})
        nb.cells.insert(next(i for i, cell in enumerate(nb.cells) if "parameters" in _tags(cell)) + 1, cell)


def from_papermill(nb: Any) -> dict[str, Any]:
    """Return the values that papermill was given; of a command line the text, before papermill guessed a type."""
    values = dict(nb.metadata.papermill.get("parameters") or {})
    context = papermill_command()
    if context is not None:
        raw = {name for name, _ in context.params.get("parameters_raw") or ()}
        values |= {name: text for name, text in context.params.get("parameters") or () if name in values and name not in raw}
    return values


def papermill_command() -> Any:
    """Return the context of the papermill command that runs; None if it is papermill's Python interface that was called."""
    import click

    context = click.get_current_context(silent=True)
    return context if context is not None and "request_save_on_cell_execute" in context.params else None


def _tags(cell: Any) -> list[str]:
    return cell.metadata.get("tags", [])


def _plain(value: Any) -> Any:
    """Say a value as JSON can: dates, paths and numbers without end become text, which the declared type reads again."""
    from pydantic_core import to_jsonable_python

    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return to_jsonable_python(value, serialize_unknown=True)
