"""What the commands and the demo show in a terminal: lines, tables, and a run as it goes."""

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlops_nb.core.runs import Run
    from mlops_nb.core.settings import Settings
    from mlops_nb.core.specification import Pipeline


def console() -> Any:
    """Make the console that commands print to; piped output is 160 columns wide."""
    from rich.console import Console

    piped = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160
    return Console(soft_wrap=True, width=piped)


def busy(what: str) -> Any:
    """Show that something is under way, for as long as the block lasts."""
    return console().status(what)


def say(text: str) -> None:
    """Print a line; `[green]...[/]` colours it where colours are shown."""
    console().print(text, highlight=False)


def table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print a table of texts, as they are."""
    from rich.markup import escape
    from rich.table import Table

    shown = Table(title=escape(title), title_justify="left", box=None, header_style="dim", pad_edge=False)
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(*map(escape, row))
    console().print(shown)


def load_scenario(
    settings: "Settings", scenario: str, values: dict[str, Any] | None
) -> "tuple[Pipeline, dict[str, Any] | None]":  # the pipeline, and the values with the environment among them
    """Read a scenario's pipeline; raises `SpecificationError` if there is none, or if the values name another environment."""
    from mlops_nb.core.records import SpecificationError
    from mlops_nb.core.specification import read_pipeline

    path = settings.root / "ci" / "pipelines" / f"{scenario}.yml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yml"))) or "none"
        raise SpecificationError([f"No scenario '{scenario}' in {path.parent} (scenarios: {known})."])
    pipeline = read_pipeline(path)
    if values is not None:
        if values.get("environment", settings.environment) != settings.environment:
            raise SpecificationError(
                [f"environment = {values['environment']}: choose it with --env {values['environment']}."]
            )
        values = ({"environment": settings.environment} if "environment" in pipeline.inputs else {}) | values
    return pipeline, values


def run_scenario(
    settings: "Settings", scenario: str, values: dict[str, Any] | None, jobs: int = 0, **request: Any
) -> "Run":
    """Run a scenario's pipeline, showing each step as it goes; the request is that of `core.plan.Request`."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from mlops_nb.core.fingerprint import notebook_code
    from mlops_nb.core.pipeline import run_pipeline
    from mlops_nb.core.plan import Request
    from mlops_nb.kernels.manager import warm_up

    pipeline, values = load_scenario(settings, scenario, values)
    out = console()
    width = max(len(step.name) for step in pipeline.steps) + 2
    code = "\n".join(notebook_code(step.component.notebook) for step in pipeline.steps)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as lines:
        shown: dict[str, Any] = {}

        def show(step: str, state: str, seconds: float) -> None:
            if state == "running":
                warm_up(code)
                shown[step] = lines.add_task(step)
                return
            if step in shown:
                lines.remove_task(shown.pop(step))
            colour = {"done": "green", "skipped": "dim", "waiting": "yellow", "again": "yellow"}.get(state, "red")
            time = "" if state == "skipped" else f"{seconds:6.1f} s"
            out.print(f"  {step:<{width}}[{colour}]{state:<8}[/]{time}", highlight=False)

        done = run_pipeline(settings, pipeline, values, Request(**request), jobs, show)
    out.print(f"[green]{done.state}[/] {done.id}: {done.folder}", highlight=False)
    return done
