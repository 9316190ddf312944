"""`mlops-nb monitor`: look at an endpoint's signals now, and follow the alert."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlops_nb.commands.options import As, By, Environment, State, group, settings_of
from mlops_nb.terminal import run_scenario, say, table

if TYPE_CHECKING:
    from mlops_nb.core.runs import Run
    from mlops_nb.core.settings import Settings

commands = group("")


@commands.command()
def monitor(
    endpoint: Annotated[str, typer.Argument(help="Endpoint.")],
    file: Annotated[
        str, typer.Option("--file", help="Azure ML monitor file.", show_default="environments/<env>/monitor.yml")
    ] = "",
    ground_truth: Annotated[
        str, typer.Option("--ground-truth", help="CSV or Parquet with correlationid and the truth.")
    ] = "",
    env: Environment = "",
    state: State = "",
    by: By = "",
    persona: As = "",
) -> None:
    """Watch an endpoint: run its monitor notebook now, and follow the alert as settings.ini says."""
    import json

    from mlops_nb.core.records import SpecificationError

    settings = settings_of(env, state, by, persona)
    made = _runs_of(settings, endpoint)
    if not made:
        where = settings.environment
        raise SpecificationError([f"No run has deployed '{endpoint}' in {where}. Start with: mlops-nb run classical"])
    values = made[-1].values | {"monitor": file, "ground_truth": ground_truth}
    found = run_scenario(settings, made[-1].scenario, values, only="monitor", run_id=made[-1].id)
    alert = json.loads(found.output("monitor", "decision").read_text())
    rows = [
        (s["type"], s["feature"], s["metric"], _number(s["value"]), _number(s["threshold"]), s["problem"] or "breached")
        for s in alert["signals"]
    ]
    if rows:
        table("Alert", ("signal", "feature", "metric", "value", "threshold", ""), rows)
    say(f"decision: [bold]{alert['action']}[/]; the whole picture: {found.folder / '50_monitor.html'}")
    if alert["action"] == "retrain":
        if settings.retrain == "automatic":
            run_scenario(settings, found.scenario, found.values, force=True)  # whatever changed: a person or a policy wants a new model
        else:
            say(f"To retrain: mlops-nb run {found.scenario} --force {_repeat(found.values)}")


def _runs_of(settings: "Settings", endpoint: str) -> "list[Run]":
    from mlops_nb.core.records import Deployment, load_record
    from mlops_nb.core.runs import list_runs

    runs = [r for r in list_runs(settings) if r.steps.get("deploy") == "done"]
    return [r for r in runs if load_record(Deployment, r.output("deploy", "deployed")).endpoint == endpoint]


def _repeat(values: dict[str, Any]) -> str:
    import shlex

    where = "" if values["environment"] == "dev" else f"--env {values['environment']} "
    given = {name: value for name, value in values.items() if name != "environment" and value != ""}
    return where + " ".join(f"-p {shlex.quote(f'{name}={value}')}" for name, value in given.items())


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
