"""Lay a project, look it over, see it work."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlops_nb.commands.options import Environment, State, group, settings_of
from mlops_nb.terminal import say, table

if TYPE_CHECKING:
    pass

commands = group("")


@commands.command()
def init(folder: Annotated[Path, typer.Argument(help="Project folder.")] = Path()) -> None:
    """Lay the scenarios, specifications and settings into a project; nothing is overwritten."""
    from mlops_nb.setup.project import lay_project

    written, kept = lay_project(folder)
    say(f"{len(written)} files laid into {folder.resolve()}" + (f", {len(kept)} kept as they were" if kept else ""))
    say("Next: mlops-nb demo")


@commands.command()
def doctor(env: Environment = "", state: State = "") -> None:
    """Show the settings in force, where each comes from, the versions, and what is missing."""
    from mlops_nb.setup.doctor import examine, show_settings

    settings = settings_of(env, state)
    table("Settings", ("setting", "value", "from"), show_settings(env, state=state))
    findings = examine(settings)
    table("Workbench", ("part", "", "found", "to mend it"), [(f.what, f.state, f.found, f.remedy) for f in findings])
    if any(f.state == "broken" for f in findings):
        raise typer.Exit(2)


@commands.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Project folder; laid if it is empty.")] = Path(),
    keep: Annotated[bool, typer.Option("--keep/--stop", help="Leave the demo's endpoint running, or stop it.")] = True,
) -> None:
    """Walk the whole loop twice on real data: live, drift, retrained, approved, replaced, quiet."""
    from mlops_nb.demo import run_demo

    run_demo(folder, keep)
