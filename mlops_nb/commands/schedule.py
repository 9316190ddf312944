"""`mlops-nb schedule`: what is due when, and the process that waits for it."""

import datetime as dt
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlops_nb.commands.options import As, By, Environment, State, group, settings_of
from mlops_nb.terminal import say, table

if TYPE_CHECKING:
    from mlops_nb.core.schedule import End

app = group("Run pipelines and monitors when they are due, or when something happened.")

_SECRET = "env:MLFLOW_WEBHOOK_SECRET"  # noqa: S105 where it is, not what
Name = Annotated[str, typer.Argument(help="Schedule, as its file names it.")]


@app.command("list")
def list_(env: Environment = "", state: State = "") -> None:
    """Show the environment's schedules: what starts them, when next, and how they ended last."""
    from mlops_nb.core.schedule import find_schedules, load_state, outlook, started_by

    settings = settings_of(env, state)
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
def next_(
    name: Name,
    count: Annotated[int, typer.Option("-n", help="How many.", min=1, max=1000)] = 5,
    env: Environment = "",
    state: State = "",
) -> None:
    """Print the next times of a schedule."""
    from mlops_nb.core.schedule import find_schedules, load_state
    from mlops_nb.core.trigger import next_times

    settings = settings_of(env, state)
    [schedule] = find_schedules(settings, [name])
    now, since = dt.datetime.now(dt.UTC).replace(microsecond=0), load_state(settings, name).since
    if not schedule.by_time:
        say(f"{name} has no times: it starts on {' or '.join(map(' '.join, schedule.events))}")
        return
    times = list(next_times(schedule.trigger, now, dt.datetime.fromisoformat(since) if since else now, count))
    say("\n".join(f"{moment:%a %Y-%m-%d %H:%M:%S %Z}" for moment in times) or f"{name} ended {schedule.trigger.end:%Y-%m-%d %H:%M}")


@app.command()
def run(name: Name, env: Environment = "", state: State = "", by: By = "", persona: As = "") -> None:
    """Run a schedule once, now; or go on with its run that was stopped."""
    from mlops_nb.core.schedule import find_schedules
    from mlops_nb.scheduler import run_once

    settings = settings_of(env, state, by, persona)
    [schedule] = find_schedules(settings, [name])
    if end := run_once(settings, schedule, asked=True):
        say(f"{name}: {end.state} after {end.seconds:.1f} s")
        raise typer.Exit(end.code)


@app.command()
def start(
    names: Annotated[list[str] | None, typer.Argument(help="Schedules; by default all of the environment.")] = None,
    webhook: Annotated[str, typer.Option("--webhook", help="HOST:PORT: take MLflow's webhooks there, at /mlflow.")] = "",
    secret: Annotated[str, typer.Option("--secret", help="Where the webhooks' secret is.")] = _SECRET,
    env: Environment = "",
    state: State = "",
    by: By = "",
    persona: As = "",
) -> None:
    """Wait for schedules and run them, until it is stopped."""
    from contextlib import nullcontext

    from mlops_nb.core.schedule import find_schedules
    from mlops_nb.scheduler import follow

    settings = settings_of(env, state, by, persona)
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
def enable(name: Name, env: Environment = "", state: State = "") -> None:
    """Switch a schedule on again on this machine; what passed meanwhile is not caught up."""
    _switch(name, True, env, state)


@app.command()
def disable(name: Name, env: Environment = "", state: State = "") -> None:
    """Switch a schedule off on this machine; a run that is under way goes on."""
    _switch(name, False, env, state)


def _switch(name: str, on: bool, env: str, state: str) -> None:
    from mlops_nb.core.schedule import find_schedules, outlook, switch

    settings = settings_of(env, state)
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
