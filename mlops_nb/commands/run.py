"""Run scenarios, decide at their gates, look at their runs."""

import shutil
import time
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlops_nb.commands.azure import submit_scenario
from mlops_nb.commands.endpoint import show_endpoints
from mlops_nb.commands.options import As, By, Environment, State, Values, group, looking, parse_values, settings_of
from mlops_nb.terminal import load_scenario, run_scenario, say, table

if TYPE_CHECKING:
    from mlops_nb.core.records import ModelVersion
    from mlops_nb.core.runs import Run
    from mlops_nb.core.settings import Settings

commands = group("")
app = group("List, read, open and compare runs.")

RunId = Annotated[str, typer.Argument(help="Run: its id, or enough of it.", show_default="the newest")]


@commands.command()
def run(
    scenario: Annotated[str, typer.Argument(help="Scenario: a file of ci/pipelines.")],
    values: Values = None,
    env: Environment = "",
    start: Annotated[str, typer.Option("--from", help="Run this step and all behind it, whatever changed.")] = "",
    only: Annotated[str, typer.Option("--only", help="Run this step alone, whatever changed.")] = "",
    until: Annotated[str, typer.Option("--until", help="Stop behind this step.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Run every step, whatever changed.")] = False,
    new: Annotated[bool, typer.Option("--new", help="Start a new run, even if one could be continued.")] = False,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=0, help="Notebooks at once.", show_default="cores, at most 4")
    ] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run, and why; run nothing.")] = False,
    why: Annotated[str, typer.Option("--why", help="Say why this step would run, or not; run nothing.")] = "",
    accept: Annotated[bool, typer.Option("--accept", help="Mark the newest results as current; run nothing.")] = False,
    state: State = "",
    by: By = "",
    persona: As = "",
) -> None:
    """Run what has changed of a scenario, or go on where it stopped."""
    settings = settings_of(env, state, by, persona)
    given = parse_values(values) or None
    request = {"start": start, "only": only, "until": until, "force": force, "new": new}
    if accept:
        _accept(settings, scenario, given)
    elif dry_run or why:
        _explain(settings, scenario, given, why, request)
    elif settings.backend == "azure":
        submit_scenario(scenario, values, env, state=state, by=by, persona=persona)
    else:
        run_scenario(settings, scenario, given, jobs, **request)


def _accept(settings: "Settings", scenario: str, given: dict[str, Any] | None) -> None:
    from mlops_nb.core.plan import accept_results

    accepted = accept_results(settings, *load_scenario(settings, scenario, given))
    say(f"current now: {', '.join(accepted)}" if accepted else "every result was current already")


def _explain(
    settings: "Settings", scenario: str, given: dict[str, Any] | None, why: str, request: dict[str, Any]
) -> None:
    from mlops_nb.core.plan import Request, plan_pipeline

    pipeline, values = load_scenario(settings, scenario, given)
    if why:
        pipeline.step(why)
    words = {"run": "runs", "skip": "is skipped", "keep": "is done", "open": "is decided later"}
    decisions = [d for d in plan_pipeline(settings, pipeline, values, Request(**request)) if why in ("", d.step)]
    table(scenario, ("step", "", "because"), [(d.step, words[d.action], "\n".join(d.reasons)) for d in decisions])


@commands.command()
def approve(
    name: Annotated[str, typer.Argument(help="Model that waits; may be left out if only one does.")] = "",
    reason: Annotated[str, typer.Option("--reason", help="Why, for the ledger.")] = "",
    env: Environment = "",
    state: State = "",
    by: By = "",
    persona: As = "",
) -> None:
    """Approve the model that waits at a gate, and let its run go on."""
    _decide("approve", name, reason, env, state, by, persona)


@commands.command()
def refuse(
    name: Annotated[str, typer.Argument(help="Model that waits; may be left out if only one does.")] = "",
    reason: Annotated[str, typer.Option("--reason", help="Why; required.")] = "",
    env: Environment = "",
    state: State = "",
    by: By = "",
    persona: As = "",
) -> None:
    """Refuse the model that waits at a gate; its run ends there."""
    _decide("refuse", name, reason, env, state, by, persona)


@commands.command()
@looking
def status(settings: "Settings") -> None:
    """Show the runs, what waits for a person, and the endpoints."""
    from mlops_nb.core.runs import list_runs
    from mlops_nb.outer_loop import online

    runs = list_runs(settings)  # all of them: what waits for a person may be old
    if not runs:
        say("No runs yet. Start with: mlops-nb run classical")
    else:
        rows = [(r.id, r.state, " ".join(f"{s}:{st}" for s, st in r.steps.items())) for r in runs[-10:]]
        table("Runs", ("run", "state", "steps"), rows)
    newest = {str(r.values): r for r in runs}
    for waiting in (r for r in newest.values() if r.state == "waiting"):
        print(waiting.message)
    show_endpoints(online.endpoint_status(settings))


@app.command("list")
@looking
def list_(
    settings: "Settings",
    scenario: Annotated[str, typer.Argument(help="Only the runs of this scenario or notebook.")] = "",
    count: Annotated[int, typer.Option("-n", help="At most so many, the newest; 0: all.")] = 20,
) -> None:
    """List runs, the newest last."""
    from mlops_nb.core.runs import list_runs

    runs = list_runs(settings, scenario, newest=count)
    rows = []
    for run in runs:
        steps = " ".join(f"{step}:{run.steps.get(step, '-')}" for step in run.planned)
        rows.append((run.id, run.state, run.user, f"{sum(run.seconds.values()):.1f} s", steps))
    table("Runs", ("run", "state", "by", "time", "steps"), rows)


@app.command("show")
@looking
def show(settings: "Settings", run: RunId = "") -> None:
    """Show a run's values, steps, times and memory, and what went wrong."""
    from mlops_nb.core.runs import find_run, run_metrics

    found = find_run(settings, run)
    say(
        f"{found.id}: [bold]{found.state}[/]; by {found.user} as {found.persona}, code {found.code or 'without git'}, {found.folder}"
    )
    table("Values", ("input", "value"), [(name, str(value)) for name, value in found.values.items()])
    metrics = run_metrics(settings, found.id)
    rows = []
    for step in [*found.planned, *(s for s in found.steps if s not in found.planned)]:
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in metrics.get(step, {}).items())
        notebook = found.notebooks.get(step)
        rows.append(
            (
                step,
                found.steps.get(step, "-"),
                f"{found.seconds.get(step, 0):.1f} s",
                _memory(notebook),
                numbers,
                str(notebook or ""),
            )
        )
    table("Steps", ("step", "state", "time", "memory", "metrics", "executed notebook"), rows)
    if found.message:
        print(found.message)


@app.command("logs")
@looking
def logs(
    settings: "Settings",
    run: RunId = "",
    step: Annotated[str, typer.Argument(help="Only this step.")] = "",
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as long as the run does.")] = False,
) -> None:
    """Print the logs of a run's steps."""
    from mlops_nb.core.runs import find_run, load_run, log_file

    found = find_run(settings, run)
    seen: dict[Path, int] = {}
    while True:
        going = follow and load_run(found.folder).state == "running"
        for path in (
            [log_file(found, step)]
            if step
            else sorted((found.folder / "log").rglob("*.log"), key=lambda p: p.stat().st_ctime)
        ):
            for text in _news(path, seen):
                print(text, end="", flush=True)
        if not going:
            return
        time.sleep(0.3)


@app.command("open")
@looking
def open_(
    settings: "Settings",
    run: RunId = "",
    step: Annotated[str, typer.Argument(help="Step; by default the last one that ran.")] = "",
    lab: Annotated[bool, typer.Option("--lab", help="In JupyterLab instead of the HTML.")] = False,
) -> None:
    """Open an executed notebook of a run."""
    import subprocess

    from mlops_nb.core.records import SpecificationError
    from mlops_nb.core.runs import find_run

    found = find_run(settings, run)
    chosen = step or next(reversed(found.notebooks), "")
    if chosen not in found.notebooks:
        there = ", ".join(found.notebooks) or "none"
        raise SpecificationError([f"{found.id} has no executed notebook of '{chosen}' (steps: {there})."])
    notebook = found.notebooks[chosen]
    if lab:
        raise typer.Exit(subprocess.call([shutil.which("jupyter") or "jupyter", "lab", str(notebook)]))  # noqa: S603
    page = notebook.with_suffix(".html")
    say(str(page if page.exists() else notebook))
    webbrowser.open((page if page.exists() else notebook).resolve().as_uri())


@app.command("diff")
@looking
def diff(
    settings: "Settings",
    first: Annotated[str, typer.Argument(help="Run: its id, or enough of it.")],
    second: RunId = "",
) -> None:
    """Say what differs between two runs: values, code, packages, inputs, times, metrics."""
    from mlops_nb.core.runs import compare_runs, find_run

    one, other = find_run(settings, first), find_run(settings, second)
    rows = compare_runs(settings, one, other)
    table("Differences", ("", one.id, other.id), rows) if rows else say("no differences")


def _memory(notebook: Path | None) -> str:
    import json

    try:
        peak = json.loads(notebook.read_text())["metadata"]["mlops_nb"]["peak_mib"] if notebook else 0
    except (OSError, ValueError, KeyError):
        return ""
    return f"{peak:.0f} MiB" if peak else ""


def _news(path: Path, seen: dict[Path, int]) -> Iterator[str]:
    """Read what was added to a log since the last look."""
    if not path.is_file():
        return
    with path.open() as file:
        if path not in seen:
            yield f"--- {path.stem}\n"
        file.seek(seen.get(path, 0))
        yield file.read()
        seen[path] = file.tell()


def _decide(choice: str, name: str, reason: str, env: str, state: str, by: str, persona: str) -> None:
    """Enter a decision in the ledger as the one who decides; then let the run go on as the one who runs."""
    from mlops_nb.outer_loop import approval

    settings = settings_of(env, state, by, persona)
    waiting, model = _waiting(settings, name)
    decision = getattr(approval, choice)(settings, model, reason)
    say(f"{decision.decision} {decision.model} by {decision.by} as {decision.persona}")
    if waiting:
        run_scenario(settings_of(env, state), waiting.scenario, None, run_id=waiting.id)


def _waiting(settings: "Settings", name: str) -> "tuple[Run | None, ModelVersion]":
    """Find the model to decide on, and the run that waits for that; NAME/VERSION may be one that no run waits for."""
    from mlops_nb.core.records import ModelVersion, SpecificationError, load_record
    from mlops_nb.core.runs import list_runs

    short, _, version = name.removeprefix(f"{settings.environment}.").partition("/")
    runs = [r for r in list_runs(settings) if r.state == "waiting" and r.output("stage", "candidate").exists()]
    found = [(r, load_record(ModelVersion, r.output("stage", "candidate"))) for r in runs]
    newest = {m.name: (r, m) for r, m in found if not short or m.name == f"{settings.environment}.{short}"}
    if version:
        return next((one for one in newest.values() if str(one[1].version) == version), (None, _registered(settings, name)))
    if len(newest) == 1:
        return next(iter(newest.values()))
    names = ", ".join(m.removeprefix(f"{settings.environment}.") for m in newest)
    if newest:
        raise SpecificationError([f"{len(newest)} models wait in {settings.environment}: {names}. Name one."])
    raise SpecificationError([f"No model{f' {short}' * bool(short)} waits for an approval in {settings.environment}. "
                              "To decide on another one, name its version: NAME/VERSION."])


def _registered(settings: "Settings", name: str) -> "ModelVersion":
    from mlops_nb.outer_loop.models import registered_model

    return registered_model(settings, name)
