"""Run and read single notebooks; keep the components in step with them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlops_nb.commands.options import Values, acting, group, parse_values
from mlops_nb.terminal import busy, say, table

if TYPE_CHECKING:
    from mlops_nb.core.settings import Settings

commands = group("")
app = group("Run and read single notebooks.")


@app.command("run")
@acting
def run(
    settings: "Settings",
    notebook: Annotated[Path, typer.Argument(help="Notebook; it is never written to.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The executed copy.")],
    values: Values = None,
    timeout: Annotated[
        float, typer.Option("--timeout", help="Seconds for the whole notebook.", show_default="none")
    ] = 0,
    cell_timeout: Annotated[
        float, typer.Option("--cell-timeout", help="Seconds for each cell.", show_default="none")
    ] = 0,
) -> None:
    """Execute one notebook with typed parameters, and keep the run."""
    from mlops_nb.core.pipeline import run_single

    with busy(f"running {notebook.name}") as line:
        done = run_single(
            settings,
            notebook,
            output,
            parse_values(values),
            timeout=timeout or None,
            cell_timeout=cell_timeout or None,
            on_cell=lambda cell, cells: line.update(f"running {notebook.name}, cell {cell} of {cells}"),
        )
    say(f"{output} and {output.with_suffix('.html').name} in {done.seconds[notebook.stem]:.1f} s; run {done.id}")


@app.command("show")
def show(notebook: Path) -> None:
    """Print a notebook's parameters."""
    from mlops_nb.core.parameters import read_parameters

    special = {(True, False): "required", (False, True): "computed"}
    rows = [
        (p.name, p.annotation, special.get((p.required, p.computed)) or repr(p.default), p.doc)
        for p in read_parameters(notebook)
    ]
    table(notebook.name, ("parameter", "type", "default", ""), rows)


@app.command("debug")
def debug(
    executed: Annotated[Path, typer.Argument(help="Executed notebook, failed or not.")],
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open a browser, or only print the address.")
    ] = True,
) -> None:
    """Open an executed notebook in JupyterLab with a kernel at the state before its failing cell."""
    from mlops_nb.kernels.debug import debug

    debug(executed, browser)


@commands.command("compile")
def compile_notebooks(
    check: Annotated[bool, typer.Option("--check", help="Only compare; exit 2 if they differ.")] = False,
) -> None:
    """Write ci/components from the notebooks' typed parameters."""
    from mlops_nb.core.components import compile_components
    from mlops_nb.core.records import SpecificationError
    from mlops_nb.core.settings import find_root

    changed = compile_components(find_root(), write=not check)
    if check and changed:
        raise SpecificationError([f"{path}: not what the notebook says. Run `mlops-nb compile`." for path in changed])
    say("\n".join(str(path) for path in changed) or "components are in sync")
