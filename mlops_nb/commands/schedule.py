"""`mlops-nb schedule`: what is due when, and the process that waits for it."""

import datetime as dt
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlops_nb.commands.options import acting, group, looking
from mlops_nb.terminal import say, table

if TYPE_CHECKING:
    from mlops_nb.core.schedule import End
    from mlops_nb.core.settings import Settings

app = group("Run pipelines and monitors when they are due, or when something happened.")

_SECRET = "env:MLFLOW_WEBHOOK_SECRET"  # noqa: S105 where it is, not what
Name = Annotated[str, typer.Argument(help="Schedule, as its file names it.")]


@app.command("list")
@looking
def list_(settings: "Settings") -> None:
    """Show the environment's schedules: what starts them, when next, and how they ended last."""
    from mlops_nb.core.schedule import find_schedules, load_state, outlook, started_by

    now = dt.datetime.now(dt.UTC)
    rows = []
    for schedule in find_schedules(settings):
        last = load_state(settings, schedule.name).last
        ended = f"{dt.datetime.fromisoformat(last.at).astimezone():%Y-%m-%d %H:%M} {last.state}" if last else "never"
        what = f"monitor {schedule.endpoint}" if schedule.endpoint else f"run {schedule.scenario}"
        rows.append((schedule.name, what, started_by(schedule), outlook(settings, schedule, now), ended, last.run if last else ""))
    if not rows:
        say(f"No schedules in environments/{settings.environment}/schedules.")
        return
    table(f"Schedules of {settings.environment}", ("schedule", "does", "started by", "next", "last", "run"), rows)


@app.command("next")
@looking
def next_(
    settings: "Settings",
    name: Name,
    count: Annotated[int, typer.Option("-n", help="How many.", min=1, max=1000)] = 5,
) -> None:
    """Print the next times of a schedule."""
    from mlops_nb.core.schedule import find_schedules, load_state
    from mlops_nb.core.trigger import next_times

    [schedule] = find_schedules(settings, [name])
    now, since = dt.datetime.now(dt.UTC).replace(microsecond=0), load_state(settings, name).since
    if not schedule.by_time:
        say(f"{name} has no times: it starts on {' or '.join(map(' '.join, schedule.events))}")
        return
    times = list(next_times(schedule.trigger, now, dt.datetime.fromisoformat(since) if since else now, count))
    say("\n".join(f"{moment:%a %Y-%m-%d %H:%M:%S %Z}" for moment in times) or f"{name} ended {schedule.trigger.end:%Y-%m-%d %H:%M}")


@app.command()
@acting
def run(settings: "Settings", name: Name) -> None:
    """Run a schedule once, now; or go on with its run that was stopped."""
    from mlops_nb.core.schedule import find_schedules
    from mlops_nb.scheduler import run_once

    [schedule] = find_schedules(settings, [name])
    if end := run_once(settings, schedule, asked=True):
        say(f"{name}: {end.state} after {end.seconds:.1f} s")
        raise typer.Exit(end.code)


@app.command()
@acting
def start(
    settings: "Settings",
    names: Annotated[list[str] | None, typer.Argument(help="Schedules; by default all of the environment.")] = None,
    webhook: Annotated[str, typer.Option("--webhook", help="HOST:PORT: take MLflow's webhooks there, at /mlflow.")] = "",
    secret: Annotated[str, typer.Option("--secret", help="Where the webhooks' secret is.")] = _SECRET,
) -> None:
    """Wait for schedules and run them, until it is stopped."""
    from contextlib import nullcontext

    from mlops_nb.core.schedule import find_schedules
    from mlops_nb.scheduler import follow

    find_schedules(settings, names or ())  # wrong files are told before anything is opened
    shared: Any = nullcontext("")
    if webhook:
        from mlops_nb.core.secrets import reveal
        from mlops_nb.webhook import serve_webhook

        shared = serve_webhook(settings, webhook, reveal(secret).get_secret_value())
    with shared as address:
        if address:
            say(f"MLflow's webhooks: {address}")
        follow(settings, names or (), tell)


@app.command()
@looking
def enable(settings: "Settings", name: Name) -> None:
    """Switch a schedule on again on this machine; what passed meanwhile is not caught up."""
    _switch(settings, name, True)


@app.command()
@looking
def disable(settings: "Settings", name: Name) -> None:
    """Switch a schedule off on this machine; a run that is under way goes on."""
    _switch(settings, name, False)


def _switch(settings: "Settings", name: str, on: bool) -> None:
    from mlops_nb.core.schedule import find_schedules, outlook, switch

    [schedule] = find_schedules(settings, [name])
    now = dt.datetime.now(dt.UTC)
    switch(settings, name, on, now)
    say(f"{name} is on; next: {outlook(settings, schedule, now)}" if on else f"{name} is off.")


def tell(name: str, text: str, end: "End | None") -> None:
    """Print what happens to a schedule, and the last lines of a run that ended badly."""
    from pathlib import Path

    from rich.markup import escape

    text, colour = escape(text), ""
    if end:
        text += f" after {end.seconds:.1f} s" + (f", run {end.run}" if end.run else "")
        colour = {0: "green", 3: "yellow"}.get(end.code, "red")
    say(f"{dt.datetime.now():%H:%M:%S}  {name:<20} " + (f"[{colour}]{text}[/]" if colour else text))
    if end and end.log and end.code:
        lines = Path(end.log).read_text(errors="replace").strip().splitlines()
        print("\n".join([*(f"          {line}" for line in lines[-3:]), f"          the whole output: {end.log}"]), flush=True)
