"""The same files on Azure ML."""

from pathlib import Path
from typing import Annotated

import typer

from mlops_nb.commands.options import group
from mlops_nb.terminal import busy, table

app = group("The same files on Azure ML.")


@app.command("check")
def check_files(
    files: Annotated[list[Path] | None, typer.Argument(help="YAML files; by default all of the project.")] = None,
) -> None:
    """Load specification files with azure-ai-ml, as Azure ML would."""
    from mlops_nb.azure import check
    from mlops_nb.core.settings import find_root

    with busy("loading with azure-ai-ml"):
        kinds = check(files or find_root())
    table("Azure ML", ("file", "kind"), [(str(path), kind) for path, kind in kinds.items()])
