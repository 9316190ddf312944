"""The same files on Azure ML."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlops_nb.commands.options import As, By, Environment, State, Values, acting, group, parse_values, settings_of
from mlops_nb.terminal import busy, console, load_scenario, say, table

if TYPE_CHECKING:
    from mlops_nb.azure import Submission
    from mlops_nb.core.runs import Run
    from mlops_nb.core.settings import Settings

app = group("The same files on Azure ML.")

RunId = Annotated[str, typer.Argument(help="Run: its id, or enough of it; for one submitted elsewhere, the job's name.")]
Every = Annotated[float, typer.Option("--every", help="Seconds between two looks.")]


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


@app.command("submit")
@acting
def submit_scenario(
    settings: "Settings",
    scenario: Annotated[str, typer.Argument(help="Scenario: a file of ci/pipelines.")],
    values: Values = None,
    stream: Annotated[bool, typer.Option("--stream/--no-stream", help="Watch it and fetch what it makes, or not.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only look what is missing and what would be sent.")] = False,
    every: Every = 5.0,
) -> None:
    """Run a scenario's pipeline on Azure ML, watch it, and fetch what it makes into a run folder."""
    from mlops_nb.azure import prepare, submit

    pipeline, given = load_scenario(settings, scenario, parse_values(values))
    client = _open(settings)
    if dry_run:
        with busy("looking at the workspace"):
            plan = prepare(settings, client, pipeline, given)
        _show_plan(plan)
        return
    with busy("sending the job"):
        run = submit(settings, client, pipeline, given)
    say(f"submitted {run.id}; {_studio(run)}")
    if stream:
        _watch(settings, client, run, every)
    else:
        _tell_more(run)


@app.command("status")
def show_status(
    run_id: RunId,
    stream: Annotated[bool, typer.Option("--stream/--no-stream", help="Watch until it ends.")] = False,
    every: Every = 5.0,
    env: Environment = "",
    state: State = "",
) -> None:
    """Show how far a run on Azure ML is, or watch it."""
    from mlops_nb.azure import refresh

    settings, client, run = _find(run_id, env, state)
    if stream:
        _watch(settings, client, run, every)
        return
    waiting: dict[str, str] = {}
    run, ended = refresh(client, run, lambda step, state, seconds: waiting.update({step: state}))
    rows = [
        (step, run.steps.get(step) or waiting.get(step, ""), f"{run.seconds.get(step, 0):.1f}", run.messages.get(step, ""))
        for step in run.planned
    ]
    table(f"{run.id}: {run.state}", ("step", "state", "seconds", ""), rows)
    if [step for step, reached in run.steps.items() if reached != "running" and step not in run.outputs]:
        say(f"To fetch what its ended steps have made: mlops-nb azure fetch {run.id}")
    say(_studio(run) if not ended else str(run.folder))


@app.command("fetch")
def fetch_run(run_id: RunId, env: Environment = "", state: State = "", by: By = "", persona: As = "") -> None:
    """Download what the ended steps of a run have made: executed notebooks, outputs, logs."""
    settings, client, run = _find(run_id, env, state, by, persona)
    _fetch(settings, client, run)


@app.command("cancel")
def cancel_run(run_id: RunId, env: Environment = "", state: State = "", by: By = "", persona: As = "") -> None:
    """Cancel a run on Azure ML."""
    from mlops_nb.azure import cancel

    settings, client, run = _find(run_id, env, state, by, persona)
    with busy(f"cancelling {run.id}"):
        cancel(settings, client, run)
    say(f"Azure ML cancels {run.id}; to see it end: mlops-nb azure status {run.id} --stream")


@app.command("apply")
@acting
def apply_files(
    settings: "Settings",
    files: Annotated[list[Path] | None, typer.Argument(help="YAML files with a $schema of Azure ML.")] = None,
    kinds: Annotated[
        list[str] | None, typer.Option("--kind", help="All of the project's files of a kind: environment, component, ...")
    ] = None,
    registry: Annotated[str, typer.Option("--registry", help="Into this Azure ML registry, not the workspace.")] = "",
) -> None:
    """Create or update on Azure ML what files describe: assets, compute, endpoints, deployments, schedules, monitors."""
    from mlops_nb.azure import apply, project_files
    from mlops_nb.core.records import SpecificationError

    named = [*(files or []), *(project_files(settings, kinds) if kinds else [])]
    if not named:
        raise SpecificationError(["Nothing to apply. Name files, or a kind of them with --kind."])
    client = _open(settings, registry)
    with busy("applying") as line:
        for path in named:
            line.update(f"applying {path.name}")
        done = apply(settings, client, named, lambda applied: line.update(f"applied {applied.path.name}"))
    rows = [(applied.kind.replace("_", " "), applied.name, applied.version, str(applied.path)) for applied in done]
    table(f"Applied to {registry or client.workspace_name}", ("kind", "name", "version", "file"), rows)
    for applied in done:
        if applied.left_out:
            say(f"{applied.name}: left out, as only mlops-nb monitor computes them: {', '.join(applied.left_out)}")


def _open(settings: "Settings", registry: str = "") -> Any:
    from mlops_nb.azure import connect

    with busy("opening the workspace"):
        return connect(settings, registry=registry)


def _find(name: str, env: str, state: str, by: str = "", persona: str = "") -> "tuple[Settings, Any, Run]":
    """Open the workspace that a run was sent to, and find the run."""
    from mlops_nb.azure import open_run
    from mlops_nb.core.records import SpecificationError
    from mlops_nb.core.runs import find_run

    settings = settings_of(env, state, by, persona)
    if not env:
        with suppress(SpecificationError):  # not submitted from here
            settings = settings_of(find_run(settings, name).environment, state, by, persona)
    client = _open(settings)
    return settings, client, open_run(settings, client, name)


def _watch(settings: "Settings", client: Any, run: "Run", every: float) -> None:
    """Show a run's steps until it ends, and fetch what they made; an interrupt leaves it running."""
    from mlops_nb.azure import follow

    try:
        with _lines(run) as show:
            run = follow(client, run, show, every)
    except KeyboardInterrupt:
        say(f"{run.id} goes on at Azure ML.")
        _tell_more(run)
        raise typer.Exit(130) from None
    except ConnectionError:
        _tell_more(run)
        raise
    _fetch(settings, client, run)


def _fetch(settings: "Settings", client: Any, run: "Run") -> None:
    """Fetch a run and tell how it stands; raises what a local run would raise for a step that did not end well."""
    from mlops_nb.azure import fetch
    from mlops_nb.core.records import GateClosed, StepFailed

    with busy("fetching"):
        run, fetched = fetch(settings, client, run)
    colour = {"done": "green", "waiting": "yellow", "running": "yellow"}.get(run.state, "red")
    say(f"[{colour}]{run.state}[/] {run.id}: {run.folder}" + (f"; fetched {', '.join(fetched)}" if fetched else ""))
    if run.state == "failed":
        raise StepFailed(run.message)
    if run.state in ("waiting", "closed"):
        raise GateClosed(run.message)
    if run.state == "stopped":
        raise typer.Exit(130)


@contextmanager
def _lines(run: "Run") -> Iterator[Callable[[str, str, float], None]]:
    """Show each change of a step as one line, and the steps under way below them."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    out = console()
    width = max(map(len, run.planned), default=0) + 2
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as live:
        shown = {step: live.add_task(step, visible=False) for step in run.planned}

        def show(step: str, state: str, seconds: float) -> None:
            ended = state in ("done", "skipped", "failed", "stopped")
            live.update(shown[step], description=f"{step} {state}", visible=not ended)
            if ended or state == "running":
                colour = {"done": "green", "skipped": "dim", "running": "yellow"}.get(state, "red")
                time = f"{seconds:6.1f} s" if ended and state != "skipped" else ""
                out.print(f"  {step:<{width}}[{colour}]{state:<8}[/]{time}", highlight=False)

        yield show


def _show_plan(plan: "Submission") -> None:
    rows = [(step.name, step.component.path.name, step.component.environment, ", ".join(step.needs)) for step in plan.pipeline.steps]
    table(f"{plan.pipeline.name}, to {plan.workspace.name}", ("step", "component", "image", "after"), rows)
    given = {name: value._data for name, value in plan.job.inputs.items()}
    table("Inputs", ("input", "value"), [(name, str(getattr(value, "path", value))) for name, value in given.items()])
    for path in plan.images:
        say(f"to be registered first: {path}")
    say("Nothing was sent.")


def _tell_more(run: "Run") -> None:
    say(f"To watch it:  mlops-nb azure status {run.id} --stream")
    say(f"To cancel it: mlops-nb azure cancel {run.id}")


def _studio(run: "Run") -> str:
    import json

    return str(json.loads((run.folder / "azure.json").read_text())["studio"])
