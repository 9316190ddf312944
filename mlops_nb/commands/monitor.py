"""`mlops-nb monitor`: look at endpoints, on time or now; see what was found, and decide what is to be done about it."""

import datetime as dt
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlops_nb.commands.compare import compare
from mlops_nb.commands.options import acting, group, looking
from mlops_nb.terminal import run_scenario, say, table

if TYPE_CHECKING:
    from mlops_nb.core.records import Alert
    from mlops_nb.core.runs import Run
    from mlops_nb.core.settings import Settings
    from mlops_nb.outer_loop.history import Action, Raised

commands = group("")
app = group("Look at endpoints, on time or now; see what was found, and decide what is to be done about it.")
commands.add_typer(app, name="monitor")

WAIT = 600  # seconds for another look of the same environment to end
_STATES = {
    "alerts": ("open", "acknowledged", "snoozed", "resolved"),
    "actions": ("planned", "waiting", "running", "done", "failed", "refused", "held"),
}

Target = Annotated[str, typer.Argument(help="Monitor, as its file names it; or an endpoint.")]
Only = Annotated[str, typer.Argument(help="Only this monitor.", show_default="all")]
File = Annotated[str, typer.Option("--file", help="Azure ML monitor file.", show_default="environments/<env>/monitor.yml")]
Truth = Annotated[str, typer.Option("--ground-truth", help="CSV or Parquet with correlationid and the truth.")]
Id = Annotated[str, typer.Argument(help="Its id, or the beginning of it.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for the ledger.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


# --- looking -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Found:
    """A monitor file of the environment."""

    name: str
    endpoint: str
    path: Path


def _monitors(settings: "Settings") -> list[_Found]:
    """List the monitor files of the environment, whatever is wrong with other files."""
    import re

    folder = settings.root / "environments" / settings.environment
    paths = sorted([*folder.glob("*.yml"), *folder.glob("schedules/*.yml")])
    return [_read(path) for path in paths if re.search(r"^create_monitor:", path.read_text(), re.MULTILINE)]


def _read(path: Path) -> _Found:
    from mlops_nb.core.specification import read_yaml

    content, _ = read_yaml(path)
    create = content.get("create_monitor")
    target = create.get("monitoring_target") if isinstance(create, dict) else None
    address = str((target if isinstance(target, dict) else {}).get("endpoint_deployment_id", ""))
    return _Found(str(content.get("name", path.stem)), address.removeprefix("azureml:").partition(":")[0], path)


def _target(settings: "Settings", name: str, file: str) -> tuple[str, str]:  # endpoint, monitor file (empty: the environment's)
    """Find what a name means; raises `SpecificationError`, naming what there is, if it means nothing."""
    from mlops_nb.core.records import SpecificationError
    from mlops_nb.outer_loop.state import endpoint_names

    if file and not Path(file).is_file():
        raise SpecificationError([f"No monitor at {file}. Pass the path of a MonitorSchedule YAML."])
    endpoints, known = endpoint_names(settings), [_read(Path(file).resolve())] if file else _monitors(settings)
    fits = [one for one in known if name in (one.name, one.endpoint)]
    if not fits and name not in endpoints:
        there = f"monitors: {', '.join(one.name for one in known) or 'none'}; endpoints: {', '.join(endpoints) or 'none'}"
        raise SpecificationError([f"No monitor and no endpoint '{name}' in {settings.environment} ({there})."])
    endpoint = name if name in endpoints or not fits else fits[0].endpoint
    if endpoint not in endpoints:
        there = ", ".join(endpoints) or "none"
        where = f"in {settings.environment} (endpoints: {there})"
        raise SpecificationError([f"No endpoint '{endpoint}' {where}. Deploy a model to it first."])
    return endpoint, str(fits[0].path) if fits else str(Path(file).resolve()) if file else ""


def _moment(text: str, option: str) -> dt.datetime:
    """Read a moment; one without a time zone is UTC."""
    from mlops_nb.core.records import SpecificationError

    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise SpecificationError([f"{option} {text}: write ISO 8601, such as 2027-01-31T02:00:00+00:00."]) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


def _past(text: str, option: str) -> dt.datetime:
    from mlops_nb.core.records import SpecificationError

    moment = _moment(text, option)
    if moment > dt.datetime.now(dt.UTC):
        raise SpecificationError([f"{option} {text} is still to come."])
    return moment


def _look(settings: "Settings", name: str, file: str, truth: str, at: dt.datetime | None) -> "tuple[Run, Alert]":
    """Run the monitor notebook for one window, after a look at another endpoint that is under way."""
    import time

    from mlops_nb.core.records import Alert, load_record
    from mlops_nb.outer_loop.monitor import load_monitor
    from mlops_nb.outer_loop.policy import policy_of

    endpoint, path = _target(settings, name, file)
    policy_of(load_monitor(path or settings.root / "environments" / settings.environment / "monitor.yml"))  # faults first
    values = {"name": endpoint, "monitor": path, "ground_truth": truth, "at": at.isoformat() if at else ""}
    until = time.monotonic() + WAIT
    while True:
        try:
            run = run_scenario(settings, "monitor", values, new=True)
            break
        except BlockingIOError:  # one run of a scenario at a time
            if time.monotonic() > until:
                raise
            time.sleep(0.5)
    return run, load_record(Alert, run.output("monitor", "decision"))


@app.command()
@acting
def once(
    settings: "Settings",
    name: Target,
    file: File = "",
    ground_truth: Truth = "",
    at: Annotated[str, typer.Option("--at", help="When the windows end, ISO 8601.", show_default="now")] = "",
) -> None:
    """Look at an endpoint now, and do what its policy says."""
    run, alert = _look(settings, name, file, ground_truth, _past(at, "--at") if at else None)
    rows = [
        (s["name"], s["feature"], s["metric"], _number(s["value"]), _number(s["threshold"]), s["problem"] or "breached")
        for s in map(_fields, alert.signals)
    ]
    if rows:
        table("Alert", ("signal", "feature", "metric", "value", "threshold", ""), rows)
    else:
        say("[green]quiet[/]")
    say(f"the whole picture: {run.folder / '50_monitor.html'}")
    _act(settings)
    _deliver(settings)
    _show_undecided(settings, alert)


def _fields(signal: Any) -> dict[str, Any]:
    return signal if isinstance(signal, dict) else vars(signal)


def _act(settings: "Settings") -> "list[Action]":
    """Carry out what is planned, and say what came of it."""
    from mlops_nb.outer_loop.actions import carry_out

    moved = carry_out(settings, run_scenario)
    for action in moved:
        colour = {"done": "green", "failed": "red"}.get(action.state, "yellow")
        say(f"{action.kind} {action.id}: [{colour}]{action.state}[/]{_outcome(action)}")
    return moved


def _deliver(settings: "Settings") -> None:
    """Send the notices that are due; one that cannot be delivered now is tried again later."""
    from mlops_nb.outer_loop import history
    from mlops_nb.outer_loop.notices import deliver

    for notice in deliver(settings) if history.notices(settings, "waiting") else ():
        say(f"notice {notice.state}: {notice.title}" + (f" ({notice.problem})" if notice.problem else ""))


def _outcome(action: "Action") -> str:
    from rich.markup import escape

    told = action.details
    parts = [action.reason] if action.kind == "investigate" else [f"run {action.run}"] if action.run else []
    if "queue" in told:
        parts.append(f"{told['new']} of {told['items']} rows are new in the queue {told['queue']}")
    parts += [str(told[key]) for key in ("proposal", "report", "removed", "changes", "problem") if told.get(key)]
    return escape(f" ({'; '.join(parts)})") if parts else ""


def _show_undecided(settings: "Settings", alert: "Alert") -> None:
    """Say what waits for a person, and what the policy held back."""
    from mlops_nb.outer_loop import history

    where = "" if settings.environment == "dev" else f" --env {settings.environment}"
    for action in history.actions(settings, alert.monitor):
        if action.state == "waiting":
            say(f"{action.kind} {action.id} waits for a person: mlops-nb monitor approve {action.id}{where} --by NAME")
        elif action.state == "held" and action.alert == alert.id:
            say(f"{action.kind} {action.id} was held: {action.reason}")


@app.command()
@acting
def start(
    settings: "Settings",
    names: Annotated[list[str] | None, typer.Argument(help="Monitors; by default all of the environment.")] = None,
) -> None:
    """Look when the monitors' triggers say so, deliver notices and carry out actions, until it is stopped."""
    from mlops_nb.commands.schedule import tell
    from mlops_nb.core.records import SpecificationError
    from mlops_nb.core.schedule import find_schedules
    from mlops_nb.scheduler import follow

    known = [schedule.name for schedule in find_schedules(settings) if schedule.endpoint]
    there = f"(monitors: {', '.join(known) or 'none'})"
    if wrong := [f"No monitor '{name}' in environments/{settings.environment} {there}." for name in names or () if name not in known]:
        raise SpecificationError(wrong)
    if not known:
        say(f"No monitors in environments/{settings.environment}.")
    follow(settings, names or (), tell, monitors=True)


@app.command()
@acting
def backfill(
    settings: "Settings",
    name: Target,
    begin: Annotated[str, typer.Option("--from", help="First moment that counts, ISO 8601.")],
    end: Annotated[str, typer.Option("--to", help="Last moment that counts.", show_default="now")] = "",
    file: File = "",
    ground_truth: Truth = "",
) -> None:
    """Compute the windows of past times when a monitor was due; they are history, and lead to nothing."""
    from mlops_nb.core.records import SpecificationError
    from mlops_nb.core.schedule import read_schedule

    first, last = _past(begin, "--from"), _past(end, "--to") if end else dt.datetime.now(dt.UTC)
    if last < first:
        raise SpecificationError([f"--to {end} lies before --from {begin}."])
    _, path = _target(settings, name, file)
    schedule = read_schedule(settings, path or settings.root / "environments" / settings.environment / "monitor.yml")
    times = _due(schedule.trigger, first, last)
    if not times:
        say(f"{schedule.name} was not due between {first:%Y-%m-%d %H:%M} and {last:%Y-%m-%d %H:%M %Z}.")
        return
    with _as_history():
        for moment in times:
            run, _ = _look(settings, name, file, ground_truth, moment.astimezone(dt.UTC))
            say(f"{moment:%Y-%m-%d %H:%M %Z}: {_seen(settings, run)}")


def _due(trigger: Any, first: dt.datetime, last: dt.datetime) -> list[dt.datetime]:
    """List the times in a stretch of the past at which a trigger was due."""
    from mlops_nb.core.records import SpecificationError
    from mlops_nb.core.trigger import next_time

    found: list[dt.datetime] = []
    after = first - dt.timedelta(microseconds=1)
    while (moment := next_time(trigger, after, first)) is not None and moment <= last:
        found.append(moment)
        after = moment
        if len(found) > 10_000:
            raise SpecificationError(["More than 10,000 windows. Take a shorter stretch."])
    return found


@contextmanager
def _as_history() -> Iterator[None]:
    """Let the notebooks of the block know that what they see is of the past."""
    import os

    before = os.environ.get("MLFLOW_RUN_CONTEXT")
    os.environ["MLFLOW_RUN_CONTEXT"] = json.dumps(json.loads(before or "{}") | {"mlops_nb.backfilled": "true"})
    try:
        yield
    finally:
        os.environ.pop("MLFLOW_RUN_CONTEXT")
        if before is not None:
            os.environ["MLFLOW_RUN_CONTEXT"] = before


def _seen(settings: "Settings", run: "Run") -> str:
    from mlops_nb.outer_loop import history

    found = [seen for seen in history.windows(settings) if seen.run == run.id]
    return found[-1].state if found else "was looked at before"


# --- what was found ----------------------------------------------------------------------------------------------------


@app.command()
@looking
def status(settings: "Settings", as_json: AsJson = False) -> None:
    """Show the monitors: what they saw last, what is open, and when they look next."""
    from mlops_nb.core.schedule import outlook, read_schedule
    from mlops_nb.outer_loop import history

    rows = []
    for found in _monitors(settings):
        seen = history.windows(settings, found.name, last=1)
        opened = [raised for raised in history.alerts(settings, found.name) if raised.state == "open"]
        waiting = [action for action in history.actions(settings, found.name) if action.state in ("planned", "waiting", "running")]
        rows.append({
            "monitor": found.name,
            "endpoint": found.endpoint,
            "last": seen[0].end if seen else "",
            "state": seen[0].state if seen else "never looked",
            "rows": seen[0].rows if seen else 0,
            "alerts": len(opened),
            "actions": [f"{action.kind} {action.id} {action.state}" for action in waiting],
            "next": outlook(settings, read_schedule(settings, found.path), dt.datetime.now(dt.UTC)),
        })
    _show(rows, f"Monitors of {settings.environment}", f"No monitors in environments/{settings.environment}.", as_json)


@app.command("history")
@looking
def history_(
    settings: "Settings",
    name: Only = "",
    signal: Annotated[str, typer.Option("--signal", help="Numbers of this signal.")] = "",
    metric: Annotated[str, typer.Option("--metric", help="Numbers of this metric.")] = "",
    feature: Annotated[str, typer.Option("--feature", help="Numbers of this feature.")] = "",
    last: Annotated[int, typer.Option("-n", help="Windows, the newest; 0: all.", min=0)] = 20,
    as_json: AsJson = False,
) -> None:
    """Show the windows that were looked at; with --signal, --metric or --feature the numbers in them."""
    from mlops_nb.outer_loop import history

    name = _known_monitor(settings, name)
    rows: list[dict[str, Any]]
    if signal or metric or feature:
        names = [name] if name else sorted({seen.monitor for seen in history.windows(settings)})
        found = [(one, point) for one in names for point in history.points(settings, one, "", signal, feature, metric, last)]
        rows = [{"monitor": one, "end": point.end, "signal": point.signal, "feature": point.feature, "metric": point.metric,
                 "value": point.value, "threshold": point.threshold,
                 "state": point.problem or ("breached" if point.breached else "quiet")} for one, point in found]  # fmt: skip
    else:
        shown = ("monitor", "deployment", "start", "end", "state", "rows", "model", "run")
        rows = [asdict(seen) for seen in history.windows(settings, name, last=last)]
        if not as_json:
            rows = [{key: row[key] for key in shown} | {"": "backfilled" if row["backfilled"] else ""} for row in rows]
    _show(rows, f"Windows of {settings.environment}", _nothing(settings, name), as_json)


@app.command()
@looking
def alerts(
    settings: "Settings",
    name: Only = "",
    only: Annotated[str, typer.Option("--only", help="Only in this state.")] = "",
    as_json: AsJson = False,
) -> None:
    """List the alerts, the newest last."""
    from mlops_nb.outer_loop import history

    found = history.alerts(settings, _known_monitor(settings, name), _known_state("alerts", only))
    _show([_of_alert(raised, as_json) for raised in found], f"Alerts of {settings.environment}", "No alerts.", as_json)


def _of_alert(raised: "Raised", whole: bool) -> dict[str, Any]:
    if whole:
        return asdict(raised)
    texts = [str(signal) for signal in raised.alert.signals]
    more = f"\nand {len(texts) - 3} more" if len(texts) > 3 else ""
    until = f"until {_text(raised.until)}" if raised.until else ""
    told = " ".join(filter(None, (f"by {raised.by}" if raised.by else "", raised.reason, until)))
    return {"id": raised.id, "monitor": raised.alert.monitor, "deployment": raised.alert.deployment, "window": raised.alert.window[1],
            "signals": "\n".join(texts[:3]) + more, "next": ", ".join(raised.alert.actions) or "told", "state": raised.state,
            "": told}  # fmt: skip


@app.command()
@looking
def actions(
    settings: "Settings",
    name: Only = "",
    only: Annotated[str, typer.Option("--only", help="Only in this state.")] = "",
    as_json: AsJson = False,
) -> None:
    """List what was decided, the newest last: what waits for a person, what was done, what the policy held back."""
    from mlops_nb.outer_loop import history

    found = history.actions(settings, _known_monitor(settings, name), _known_state("actions", only))
    rows = [asdict(action) if as_json else
            {"id": action.id, "what": action.kind, "of": action.subject, "state": action.state, "mode": action.mode, "at": action.at,
             "run": action.run, "because": action.reason} for action in found]  # fmt: skip
    _show(rows, f"Actions of {settings.environment}", "No actions.", as_json)


def _known_monitor(settings: "Settings", name: str) -> str:
    """Return a monitor's name; raises `SpecificationError` with those there are."""
    from mlops_nb.core.records import SpecificationError
    from mlops_nb.outer_loop import history

    if not name:
        return ""
    found = _monitors(settings)
    known = {one.name for one in found} | {seen.monitor for seen in history.windows(settings)}
    if name in known:
        return name
    if own := [one.name for one in found if one.endpoint == name]:
        return own[0]
    raise SpecificationError([f"No monitor '{name}' in {settings.environment} (monitors: {', '.join(sorted(known)) or 'none'})."])


def _known_state(what: str, state: str) -> str:
    from mlops_nb.core.records import SpecificationError

    if state and state not in _STATES[what]:
        raise SpecificationError([f"--only {state}: {what} are {', '.join(_STATES[what])}."])
    return state


def _nothing(settings: "Settings", name: str) -> str:
    return f"Nothing was looked at yet. Look now: mlops-nb monitor once {name or 'NAME'} --env {settings.environment}"


def _show(rows: list[dict[str, Any]], title: str, nothing: str, as_json: bool) -> None:
    """Print rows as JSON, as a table, or what it means that there are none."""
    if as_json:
        print(json.dumps(rows, indent=1, default=str))
    elif rows:
        table(title, tuple(rows[0]), [tuple(map(_text, row.values())) for row in rows])
    else:
        say(nothing)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(map(str, value))
    if isinstance(value, str) and len(value) > 18 and value[4:5] == "-" and value[10:11] == "T":
        return f"{dt.datetime.fromisoformat(value):%Y-%m-%d %H:%M:%S}"
    return _number(value) if isinstance(value, float) else "" if value is None else str(value)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


# --- deciding ----------------------------------------------------------------------------------------------------------


@app.command()
@acting
def acknowledge(settings: "Settings", id: Id, reason: Reason = "") -> None:
    """Say that you have seen an alert and see to it."""
    from mlops_nb.outer_loop import history

    _tell_alert(history.acknowledge(settings, id, reason))


@app.command()
@acting
def snooze(
    settings: "Settings",
    id: Id,
    until: Annotated[str, typer.Option("--until", help="ISO 8601, or a duration such as PT4H.", show_default="P1D")] = "P1D",
    reason: Reason = "",
) -> None:
    """Put an alert aside for a time."""
    from mlops_nb.outer_loop import history
    from mlops_nb.outer_loop.monitor import parse_duration

    moment = dt.datetime.now(dt.UTC) + parse_duration(until) if until.startswith("P") else _moment(until, "--until")
    _tell_alert(history.snooze(settings, id, reason, moment))


@app.command()
@acting
def resolve(settings: "Settings", id: Id, reason: Reason = "") -> None:
    """Say that an alert needs nothing more."""
    from mlops_nb.outer_loop import history

    _tell_alert(history.resolve(settings, id, reason))


def _tell_alert(raised: "Raised") -> None:
    say(f"alert {raised.id} is {raised.state}" + (f" until {_text(raised.until)} UTC" if raised.until else "") + f", says {raised.by}")


@app.command()
@acting
def approve(settings: "Settings", id: Id, reason: Reason = "") -> None:
    """Approve an action that waits for a person or was held, and let it happen if you may do that, too."""
    from mlops_nb.outer_loop import actions as work

    action = work.approve(settings, id, reason)
    moved = [one.id for one in _act(settings)]
    if action.id not in moved:
        say(f"{action.kind} {action.id} is approved; it happens as soon as somebody who may do it looks: mlops-nb monitor act")


@app.command()
@acting
def refuse(settings: "Settings", id: Id, reason: Reason = "") -> None:
    """Refuse an action that waits for a person; the reason is required."""
    from mlops_nb.outer_loop import actions as work

    action = work.refuse(settings, id, reason)
    say(f"{action.kind} {action.id} is refused.")


@app.command()
@acting
def act(settings: "Settings") -> None:
    """Carry out what is planned, and go on with what was stopped; `start` does so every minute."""
    if not _act(settings):
        say("Nothing is planned.")
    _deliver(settings)


# --- views -------------------------------------------------------------------------------------------------------------


@app.command()
@acting
def diagnose(
    settings: "Settings",
    name: Target,
    file: File = "",
    ground_truth: Truth = "",
    at: Annotated[str, typer.Option("--at", help="When the window ends, ISO 8601.", show_default="now")] = "",
) -> None:
    """Say what moved, since when, where, and whether that is a reason to retrain; nothing follows from it."""
    with _as_history():
        run, alert = _look(settings, name, file, ground_truth, _past(at, "--at") if at else None)
    end = dt.datetime.fromisoformat(alert.window[1]).astimezone(dt.UTC)
    page = settings.state / "monitors" / settings.environment / "diagnoses" / f"{alert.monitor}-{end:%Y%m%dT%H%M%S}.html"
    say(f"the diagnosis: {page}" if page.exists() else f"Nothing is beyond its threshold: {run.folder / '50_monitor.html'}")


app.command()(compare)


@app.command()
@looking
def dashboard(
    settings: "Settings",
    name: Only = "",
    output: Annotated[str, typer.Option("-o", help="HTML file.")] = "monitoring.html",
) -> None:
    """Write everything on one page that needs no server."""
    from mlops_nb.core.files import write_file
    from mlops_nb.outer_loop.dashboard import dashboard as draw

    say(str(write_file(Path(output).resolve(), draw(settings, _known_monitor(settings, name)))))


@app.command()
@looking
def metrics(settings: "Settings") -> None:
    """Print what monitors see as Prometheus reads it."""
    from mlops_nb.outer_loop.dashboard import exposition

    print(exposition(settings), end="")
