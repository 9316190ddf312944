"""Deploy a model, shift its traffic, ask it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlops_nb.commands.endpoint import Endpoint, on_azure, only_here, show_endpoints
from mlops_nb.commands.options import As, By, Environment, State, acting, group, looking, parse_values, settings_of
from mlops_nb.terminal import busy, say

if TYPE_CHECKING:
    from mlops_nb.core.records import Deployment, ModelVersion
    from mlops_nb.core.settings import Settings

commands = group("")


@commands.command()
def deploy(
    model: Annotated[
        str,
        typer.Argument(
            help="Registered model as NAME, NAME/VERSION or NAME@ALIAS (NAME: the version staged last, else the newest), "
            "models:/..., runs:/ID/NAME, or a folder with an MLmodel file.",
            show_default="the file's model",
        ),
    ] = "",
    endpoint: Annotated[str, typer.Option("--endpoint", help="Endpoint; by default the model's name.")] = "",
    deployment: Annotated[str, typer.Option("--deployment", help="Its name; by default blue or green, whichever is idle.")] = "",
    file: Annotated[
        str, typer.Option("--file", help="Azure ML deployment file.", show_default="environments/<env>/deployment.yml")
    ] = "",
    traffic: Annotated[
        int | None, typer.Option("--traffic", help="Per cent of the requests that it gets at once.", min=0, max=100, show_default="0")
    ] = None,
    own_environment: Annotated[
        bool, typer.Option("--own-environment", help="Serve it by a Python of its own, with the packages it was saved with.")
    ] = False,
    wait: Annotated[float, typer.Option("--wait", help="Seconds for it to become ready.")] = 60,
    env: Environment = "",
    state: State = "",
    by: By = "",
    persona: As = "",
) -> None:
    """Deploy a model beside the live one; `traffic` then shifts requests to it. With backend = azure, on Azure ML."""
    from dataclasses import replace

    from mlops_nb.core.records import SpecificationError
    from mlops_nb.outer_loop import approval, environments, models, online
    from mlops_nb.outer_loop import traffic as shifting
    from mlops_nb.outer_loop.wish import deployment_file

    settings = settings_of(env, state, by, persona)
    given, place = deployment_file(settings, file)
    if file:  # somebody's own file: its names count, and its model
        endpoint, deployment = endpoint or given.endpoint_name, deployment or given.name
        model = model or _model_of(given.model, place)
    if not model:
        raise SpecificationError(["Which model? Name a registered one, or a folder with an MLmodel file: mlops-nb deploy MODEL"])
    if settings.backend == "azure":
        made = _deploy_on_azure(settings, model, endpoint, deployment, traffic, file)
        say(f"{made.uri} with {made.model.removeprefix('model:')} is ready with {made.traffic} % of the traffic.")
        return
    script = given.code_configuration is not None
    found = models.find_model(settings, model, endpoint, script)
    short = endpoint or found.name.removeprefix(f"{settings.environment}.")
    _check_share(settings, short, deployment, traffic)
    if settings.approval == "required":
        approval.require(settings, found)
    with busy(f"deploying {found.name}/{found.version}") as line:
        python = ""
        if own_environment:
            python = environments.make_environment(settings, models.model_folder(settings, found, script), line.update)
            line.update(f"starting {found.name}/{found.version}")
        made = online.deploy(settings, short, found, deployment, wait, file, python)
        if traffic is not None and made.traffic != traffic:
            before = {one.name: one.traffic for one in online.deployments(settings, short)}
            now = shifting.shift_traffic(settings, short, shifting.share_out(before, made.name, traffic))
            made = replace(made, traffic=now.get(made.name, 0))
    say(f"{made.uri} with {made.model.removeprefix('model:')} is ready with {made.traffic} % of the traffic.")
    _show_audited(settings, made)
    _show_how_to_ask(settings, made, state)


def _show_audited(settings: "Settings", made: "Deployment") -> None:
    """Say which controls with the effect audit did not pass for a deployment."""
    from rich.markup import escape

    from mlops_nb.core import ledger
    from mlops_nb.outer_loop import controls

    entries = [one for one in ledger.entries(settings, made.uri, "deploy") if one.subject == made.uri]
    for told in (entries[-1].details.get("controls") or {}).values() if entries else ():
        found = [one for one in controls.read_report(told["report"]) if one.failed]
        for line in dict.fromkeys(f"  {one.policy}/{one.control}: {one.problem}" for one in found):
            say(f"[yellow]audit[/]{escape(line)}")


def _check_share(settings: "Settings", endpoint: str, deployment: str, traffic: int | None) -> None:
    """Raise `SpecificationError` for a share that nobody could have the rest of."""
    from mlops_nb.core.records import SpecificationError
    from mlops_nb.outer_loop.state import endpoint_names, read_wanted

    shares = read_wanted(settings, endpoint)["traffic"] if endpoint in endpoint_names(settings) else {}
    if traffic not in (None, 0, 100) and not any(share for name, share in shares.items() if name != deployment):
        raise SpecificationError([f"--traffic {traffic}: {endpoint} has no other deployment to share with. Leave it out."])


def _deploy_on_azure(
    settings: "Settings", model: str, endpoint: str, deployment: str, traffic: int | None, file: str
) -> "Deployment":
    """Deploy on Azure ML, after the approval and the controls that the environment asks for."""
    from mlops_nb.azure.deploy import deploy as deploy_there
    from mlops_nb.outer_loop import approval, controls
    from mlops_nb.outer_loop.governance import Scope

    known, path = _known_model(settings, model, endpoint)
    if settings.approval == "required":
        approval.require(settings, known)
    controls.gate(Scope(settings, endpoint, deployment, known, path, file), "before_deployment")
    found = known if settings.approval == "required" else model
    with busy(f"deploying {model} on Azure ML") as line:
        return deploy_there(settings, found, endpoint, deployment, traffic, line.update, file=file)


def _known_model(settings: "Settings", model: str, endpoint: str) -> "tuple[ModelVersion, str]":
    """Find the model and the folder of its files; one that only the workspace has is known by its name, and has none here."""
    import re

    from mlops_nb.core.records import ModelVersion
    from mlops_nb.outer_loop import models

    if there := re.fullmatch(r"azureml:([^:/]+):(\d+)", model):
        return ModelVersion(there[1], int(there[2]), ""), ""
    try:
        found = models.find_model(settings, model, endpoint)
    except LookupError:
        if settings.approval == "required":
            raise
        return ModelVersion(model, 0, ""), ""
    return found, models.model_folder(settings, found, script=True)


def _model_of(named: Any, file: Path) -> str:
    """Read what a deployment's file says its model is: a registered one, or a path beside the file."""
    path = named.get("path", "") if isinstance(named, dict) else named or ""
    if isinstance(path, str) and path and not path.startswith(("azureml:", "models:", "runs:")):
        return str((file.parent / path).resolve())
    return str(path)


def _show_how_to_ask(settings: "Settings", made: "Deployment", state: str) -> None:
    """Print a deployment's address, and a command that asks it."""
    import json
    import shlex

    from mlops_nb.outer_loop import client
    from mlops_nb.outer_loop.state import read_wanted

    wanted = read_wanted(settings, made.endpoint)
    request = json.dumps(client.example_request(wanted["deployments"][made.name]["path"]) or {"input_data": [[0.0]]})
    if len(request) > 2000:
        request = "@request.json"
    where = "" if settings.environment == "dev" else f" --env {settings.environment}"
    where += f" --state {shlex.quote(state)}" if state else ""
    key = {"key": "primary", "aml_token": "token"}.get(wanted["auth_mode"])
    opens = f"mlops-nb endpoint get-credentials {made.endpoint}{where} --key {key}"
    if key is None:
        opens = "az account get-access-token --resource https://ml.azure.com --query accessToken -o tsv"
    parts = [f'curl {client.base_address(wanted)}/score -H "Authorization: Bearer $({opens})"', "-H 'Content-Type: application/json'"]
    if wanted["tls"]:
        parts.append(f"--cacert {shlex.quote(wanted['tls']['certificate'])}")
    if not made.traffic:
        parts.append(f"-H 'azureml-model-deployment: {made.name}'")
    print(f"{client.base_address(wanted)}/score")
    print(" \\\n  ".join([*parts, f"-d {shlex.quote(request)}"]))


@commands.command()
@acting
def traffic(
    settings: "Settings",
    endpoint: Endpoint,
    shares: Annotated[list[str] | None, typer.Argument(help="DEPLOYMENT=PER_CENT ...; sum 100, or 0.")] = None,
    roll_back: Annotated[bool, typer.Option("--roll-back", help="Return to the traffic before the last change.")] = False,
    mirror: Annotated[str, typer.Option("--mirror", help="DEPLOYMENT=PER_CENT: copies of requests, 0 to 50 per cent.")] = "",
    compare: Annotated[str, typer.Option("--compare", help="Compare this shadow's answers with the live ones.")] = "",
    roll_out: Annotated[str, typer.Option("--roll-out", help="Let this deployment take over in steps, or roll back.")] = "",
    steps: Annotated[str, typer.Option("--steps", help="Of a roll-out, in per cent.")] = "10,50,100",
    hold: Annotated[float, typer.Option("--hold", help="Seconds under watch at each step.", min=0)] = 10,
    probe: Annotated[
        Path | None, typer.Option("--probe", help="JSON request that is asked meanwhile.", show_default="the model's own example")
    ] = None,
    max_error_rate: Annotated[
        float | None, typer.Option("--max-error-rate", help="Share of its answers that may be errors.", show_default="0")
    ] = None,
    max_p95_ms: Annotated[
        float | None, typer.Option("--max-p95-ms", help="What 95 % of its answers may take at most.", show_default="5000")
    ] = None,
    max_difference: Annotated[
        float | None,
        typer.Option("--max-difference", help="How far its predictions may be apart: 0.1 is a tenth.", show_default="not compared"),
    ] = None,
) -> None:
    """Show, shift, mirror or roll back an endpoint's traffic; roll a deployment out in steps.

    Limits that are not given stand in the properties of the environment's deployment file: mlops_nb.max_error_rate,
    mlops_nb.max_p95_ms, mlops_nb.max_difference.
    """
    from mlops_nb.core.records import SpecificationError
    from mlops_nb.outer_loop import online
    from mlops_nb.outer_loop import traffic as shifting

    asked = {"shares": shares, "--roll-back": roll_back, "--mirror": mirror, "--compare": compare, "--roll-out": roll_out}
    if len(named := [name for name, value in asked.items() if value]) > 1:
        raise SpecificationError([f"{' and '.join(named)}: one at a time."])
    there = on_azure(settings)
    if compare or roll_out:
        only_here(settings, "--compare" if compare else "--roll-out")
    if roll_back:
        (there or shifting).roll_back(settings, endpoint)
    elif mirror:
        (there or shifting).set_mirror(settings, endpoint, _shares([mirror]))
    elif shares:
        (there or shifting).shift_traffic(settings, endpoint, _shares(shares))
    elif compare:
        _show_comparison(shifting.compare(settings, endpoint, compare))
        return
    elif roll_out:
        limits = _limits(settings, max_error_rate, max_p95_ms, max_difference)
        payload = _read_request(probe) if probe else None
        with busy(f"rolling out {roll_out}"):
            shifting.roll_out(settings, endpoint, roll_out, _steps(steps), payload, hold, **limits, progress=_show_step)
    show_endpoints((there or online).endpoint_status(settings, endpoint))


def _shares(words: list[str]) -> dict[str, int]:
    from mlops_nb.core.records import SpecificationError

    wanted = parse_values(words)
    if wrong := [f"{k}={v}: a whole number of per cent is expected." for k, v in wanted.items() if not v.isdigit()]:
        raise SpecificationError(wrong)
    return {name: int(share) for name, share in wanted.items()}


def _steps(text: str) -> list[int]:
    from mlops_nb.core.records import SpecificationError

    words = text.replace(",", " ").split()
    if wrong := [word for word in words if not word.isdigit()]:
        raise SpecificationError([f"--steps {text}: {wrong[0]} is no whole number of per cent. Write them like 10,50,100."])
    return [int(word) for word in words]


def _limits(settings: "Settings", error_rate: float | None, p95_ms: float | None, difference: float | None) -> dict[str, Any]:
    """Complete the limits of a roll-out from the deployment file's properties."""
    from mlops_nb.core.records import SpecificationError
    from mlops_nb.outer_loop.wish import deployment_file

    given, place = deployment_file(settings)
    limits: dict[str, Any] = {"max_error_rate": 0.0, "max_latency_ms": 5000.0, "max_difference": None}
    for name, key in (("max_error_rate", "max_error_rate"), ("max_latency_ms", "max_p95_ms"), ("max_difference", "max_difference")):
        if text := given.properties.get(f"mlops_nb.{key}"):
            try:
                limits[name] = float(text)
            except ValueError:
                raise SpecificationError([f"{place}: properties: mlops_nb.{key}: '{text}' is no number."]) from None
    told = {"max_error_rate": error_rate, "max_latency_ms": p95_ms, "max_difference": difference}
    return limits | {name: value for name, value in told.items() if value is not None}


def _show_step(record: dict[str, Any]) -> None:
    """Print one step of a roll-out."""
    found = [f"{record['requests']} answers", f"{record['errors']} errors"]
    if record["p95_ms"] is not None:
        found.append(f"95 % within {record['p95_ms']:g} ms")
    if record["difference"] is not None:
        found.append(f"difference {record['difference']:.4g}")
    colour, told = ("red", record["problem"]) if record["problem"] else ("green", "well")
    say(f"  {record['step']:>3} %  [{colour}]{'not well' if told != 'well' else told}[/]  {', '.join(found)}")


def _show_comparison(found: Any) -> None:
    """Print a shadow's answers beside the live ones."""
    from mlops_nb.terminal import table

    def pair(name: str, unit: str, values: tuple[float, float]) -> tuple[str, str, str]:
        return name, *(f"{value:.4g}{unit}" for value in values)  # type: ignore[return-value]

    rows = [
        pair("answers that are errors", " %", (found.errors[0] * 100, found.errors[1] * 100)),
        pair("50 % within", " ms", found.p50_ms),
        pair("95 % within", " ms", found.p95_ms),
    ]
    table(f"{found.shadow} of {found.endpoint}, on {found.pairs} requests that both answered", ("", "live", found.shadow), rows)
    say(f"{found.differ:.2%} of {found.predictions} predictions are not the same; difference {found.difference:.4g}")
    if found.mean is not None:
        say(f"numbers differ by {found.mean:.4g} in the mean, {found.largest:.4g} at most")


@commands.command()
@looking
def invoke(
    settings: "Settings",
    endpoint: Endpoint,
    request: Annotated[Path | None, typer.Argument(help="JSON request file; - reads standard input.")] = None,
    deployment: Annotated[str, typer.Option("--deployment", help="Ask this deployment, whatever the traffic.")] = "",
) -> None:
    """Send a request to an endpoint and print its answer; without a file, its own example."""
    import json

    from mlops_nb.core.records import SpecificationError
    from mlops_nb.outer_loop import online

    there = on_azure(settings)
    if there and request is None:
        raise SpecificationError(["Give a JSON request, or - for standard input: Azure ML does not say what an endpoint takes."])
    payload = _example(settings, endpoint) if request is None else _read_request(request)
    print(json.dumps((there or online).invoke(settings, endpoint, payload, deployment)))


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
    """Take two rows that the endpoint's model was validated on, else an example of what it takes, and show the request."""
    import json

    from mlops_nb.core.records import SpecificationError
    from mlops_nb.data_estate import tables
    from mlops_nb.outer_loop import client, online
    from mlops_nb.outer_loop.state import read_wanted

    live = online.deployments(settings, endpoint)
    try:
        validation = tables.latest(settings, endpoint, "validation")
        rows = tables.read_table(settings, validation).drop(columns=["prediction", validation.target]).head(2)
        payload: Any = {"input_data": json.loads(rows.to_json(orient="split"))}
    except (FileNotFoundError, ValueError):
        folder = read_wanted(settings, endpoint)["deployments"][live[0].name]["path"] if live else ""
        payload = client.example_request(folder) if folder else None
    if payload is None:
        raise SpecificationError([f"{endpoint} does not say what it takes. Give a JSON request, or - for standard input."])
    print(json.dumps(payload), file=sys.stderr)
    return payload
