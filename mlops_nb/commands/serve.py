"""Deploy, shift traffic, ask, watch: what concerns an endpoint."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlops_nb.commands.options import As, By, Environment, State, group, parse_values, settings_of
from mlops_nb.terminal import busy, run_scenario, say, table

if TYPE_CHECKING:
    from mlops_nb.core.runs import Run
    from mlops_nb.core.settings import Settings

commands = group("")
app = group("Start and stop local endpoints.")


@commands.command()
def deploy(
    model: Annotated[
        str, typer.Argument(help="Registered model as NAME or NAME/VERSION; NAME: the version staged last.")
    ],
    endpoint: Annotated[str, typer.Option("--endpoint", help="Endpoint; by default the model's name.")] = "",
    env: Environment = "",
    state: State = "",
    by: By = "",
    persona: As = "",
) -> None:
    """Deploy an approved model beside the live one; `traffic` then shifts requests to it."""
    from mlops_nb.inner_loop import registry
    from mlops_nb.outer_loop import approval, online

    settings = settings_of(env, state, by, persona)
    short, _, version = model.removeprefix(f"{settings.environment}.").partition("/")
    found = registry.model_version(settings, short, int(version) if version.isdigit() else version or "staged")
    approval.require(settings, found)
    with busy(f"deploying {found.name}/{found.version}"):
        deployment = online.deploy(settings, endpoint or short, found)
    say(f"{deployment.uri} is ready with {deployment.traffic} % of the traffic.")


@commands.command()
def traffic(
    endpoint: Annotated[str, typer.Argument(help="Endpoint.")],
    shares: Annotated[list[str] | None, typer.Argument(help="DEPLOYMENT=PER_CENT ...; sum 100, or 0.")] = None,
    roll_back: Annotated[
        bool, typer.Option("--roll-back", help="Return to the traffic before the last change.")
    ] = False,
    env: Environment = "",
    state: State = "",
    by: By = "",
    persona: As = "",
) -> None:
    """Show, shift or roll back an endpoint's traffic."""
    from mlops_nb.core.records import SpecificationError
    from mlops_nb.outer_loop import online

    settings = settings_of(env, state, by, persona)
    if roll_back:
        online.roll_back(settings, endpoint)
    elif shares:
        wanted = parse_values(shares)
        if wrong := [f"{k}={v}: a whole number of per cent is expected." for k, v in wanted.items() if not v.isdigit()]:
            raise SpecificationError(wrong)
        online.shift_traffic(settings, endpoint, {name: int(share) for name, share in wanted.items()})
    show_endpoints(online.endpoint_status(settings, endpoint))


@commands.command()
def invoke(
    endpoint: Annotated[str, typer.Argument(help="Endpoint.")],
    request: Annotated[Path | None, typer.Argument(help="JSON request file; - reads standard input.")] = None,
    deployment: Annotated[str, typer.Option("--deployment", help="Ask this deployment, whatever the traffic.")] = "",
    env: Environment = "",
    state: State = "",
) -> None:
    """Send a request to an endpoint and print its answer; without a file, its own example."""
    import json

    from mlops_nb.outer_loop import online

    settings = settings_of(env, state)
    payload = _example(settings, endpoint) if request is None else _read_request(request)
    print(json.dumps(online.invoke(settings, endpoint, payload, deployment)))


@app.command("start")
def start(endpoint: str, env: Environment = "", state: State = "") -> None:
    """Start an endpoint again, as it was."""
    from mlops_nb.outer_loop import online

    with busy(f"starting {endpoint}"):
        online.start(settings_of(env, state), endpoint)
    say(f"{endpoint} answers.")


@app.command("stop")
def stop(endpoint: str, env: Environment = "", state: State = "") -> None:
    """Stop an endpoint; what it is stays written, `start` brings it back."""
    from mlops_nb.outer_loop import online

    online.stop(settings_of(env, state), endpoint)
    say(f"{endpoint} is stopped.")


@app.command("remove")
def remove(
    endpoint: str, deployment: str, env: Environment = "", state: State = "", by: By = "", persona: As = ""
) -> None:
    """Remove a deployment that has no traffic."""
    from mlops_nb.outer_loop import online

    online.remove(settings_of(env, state, by, persona), endpoint, deployment)
    say(f"{endpoint}/{deployment} is removed.")


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


def _read_request(path: Path) -> Any:
    import json

    from mlops_nb.core.records import SpecificationError

    if str(path) != "-" and not path.is_file():
        raise SpecificationError([f"No file {path}. Give a JSON request, or - for standard input."])
    try:
        return json.loads(sys.stdin.read() if str(path) == "-" else path.read_text())
    except ValueError as problem:
        raise SpecificationError([f"{path}: not JSON ({problem})."]) from None


def _example(settings: "Settings", endpoint: str) -> Any:
    """Take two rows of the table that the endpoint's model was validated on, and show the request."""
    import json

    from mlops_nb.data_estate import tables

    validation = tables.latest(settings, endpoint, "validation")
    rows = tables.read_table(settings, validation).drop(columns=["prediction", validation.target]).head(2)
    payload = {"input_data": json.loads(rows.to_json(orient="split"))}
    print(json.dumps(payload), file=sys.stderr)
    return payload


def show_endpoints(found: list[dict[str, Any]]) -> None:
    """Print endpoints as a table."""
    rows = [
        (
            e["endpoint"],
            e["deployment"],
            e["state"],
            f"{e['traffic']} %",
            e["model"].removeprefix("model:"),
            e["address"],
        )
        for e in found
    ]
    if rows:
        table("Endpoints", ("endpoint", "deployment", "state", "traffic", "model", "address"), rows)


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
