"""The command `mlops-nb`: the same doors as the Python functions, with exit codes for scripts.

Exit codes: 0 done, 2 wrong use or bad specification, 3 a gate said no or waits for a person, 4 a step failed, 5 timed out,
130 stopped. Everything heavy is imported inside a command, so that the help answers at once.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlops_nb.terminal import busy, run_scenario, say, table

if TYPE_CHECKING:
    from mlops_nb.core.pipeline import Run
    from mlops_nb.core.records import ModelVersion
    from mlops_nb.core.settings import Settings

app = typer.Typer(
    help="A notebook-first MLOps workbench: from the first look at the data to the alert in production.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help answers twice as fast
)
notebooks = typer.Typer(help="Run and read single notebooks.", no_args_is_help=True, rich_markup_mode=None)
endpoints = typer.Typer(help="Start and stop local endpoints.", no_args_is_help=True, rich_markup_mode=None)
ledgers = typer.Typer(help="Read and verify the audit trail.", no_args_is_help=True, rich_markup_mode=None)
azure = typer.Typer(help="The same files on Azure ML.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(notebooks, name="notebook")
app.add_typer(endpoints, name="endpoint")
app.add_typer(ledgers, name="ledger")
app.add_typer(azure, name="azure")

Environment = Annotated[str, typer.Option("--env", help="Environment: a section of settings.ini.", show_default="dev")]
State = Annotated[str, typer.Option("--state", help="State folder, instead of the settings' own.")]
By = Annotated[str, typer.Option("--by", help="Who acts, as the ledger records it.", show_default="your login")]
As = Annotated[str, typer.Option("--as", help="In which role: a persona of environments/access.")]
Values = Annotated[list[str] | None, typer.Option("-p", help="Parameter as NAME=VALUE; repeat for more.")]


# --- run -------------------------------------------------------------------------------------------------------------


@app.command()
def run(
    scenario: Annotated[str, typer.Argument(help="Scenario: a file of ci/pipelines.")],
    values: Values = None,
    env: Environment = "",
    start: Annotated[str, typer.Option("--from", help="Run from this step on.")] = "",
    only: Annotated[str, typer.Option("--only", help="Run this step alone.")] = "",
    new: Annotated[bool, typer.Option("--new", help="Start afresh, even if a run could be continued.")] = False,
    state: State = "",
    by: By = "",
    persona: As = "",
) -> None:
    """Run a scenario, or go on where it stopped."""
    settings = _settings(env, state, by, persona)
    given = _parse(values) or None
    run_scenario(settings, scenario, given, start=start, only=only, new=new)


@app.command()
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


@app.command()
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


@app.command()
def status(env: Environment = "", state: State = "") -> None:
    """Show the runs, what waits for a person, and the endpoints."""
    from mlops_nb.core.pipeline import list_runs
    from mlops_nb.outer_loop import online

    settings = _settings(env, state)
    runs = list_runs(settings)
    if not runs:
        say("No runs yet. Start with: mlops-nb run classical")
    else:
        rows = [(r.id, r.state, " ".join(f"{s}:{st}" for s, st in r.steps.items())) for r in runs[-10:]]
        table("Runs", ("run", "state", "steps"), rows)
    newest = {str(r.values): r for r in runs}
    for waiting in (r for r in newest.values() if r.state == "waiting"):
        print(waiting.message)
    _endpoints(online.endpoint_status(settings))


# --- serve -----------------------------------------------------------------------------------------------------------


@app.command()
def deploy(
    model: Annotated[str, typer.Argument(help="Registered model as NAME or NAME/VERSION; NAME: the version staged last.")],
    endpoint: Annotated[str, typer.Option("--endpoint", help="Endpoint; by default the model's name.")] = "",
    env: Environment = "",
    state: State = "",
    by: By = "",
    persona: As = "",
) -> None:
    """Deploy an approved model beside the live one; `traffic` then shifts requests to it."""
    from mlops_nb.inner_loop import registry
    from mlops_nb.outer_loop import approval, online

    settings = _settings(env, state, by, persona)
    short, _, version = model.removeprefix(f"{settings.environment}.").partition("/")
    found = registry.model_version(settings, short, int(version) if version.isdigit() else version or "staged")
    approval.require(settings, found)
    with busy(f"deploying {found.name}/{found.version}"):
        deployment = online.deploy(settings, endpoint or short, found)
    say(f"{deployment.uri} is ready with {deployment.traffic} % of the traffic.")


@app.command()
def traffic(
    endpoint: Annotated[str, typer.Argument(help="Endpoint.")],
    shares: Annotated[list[str] | None, typer.Argument(help="DEPLOYMENT=PER_CENT ...; sum 100, or 0.")] = None,
    roll_back: Annotated[bool, typer.Option("--roll-back", help="Return to the traffic before the last change.")] = False,
    env: Environment = "",
    state: State = "",
    by: By = "",
    persona: As = "",
) -> None:
    """Show, shift or roll back an endpoint's traffic."""
    from mlops_nb.core.records import SpecificationError
    from mlops_nb.outer_loop import online

    settings = _settings(env, state, by, persona)
    if roll_back:
        online.roll_back(settings, endpoint)
    elif shares:
        wanted = _parse(shares)
        if wrong := [f"{k}={v}: a whole number of per cent is expected." for k, v in wanted.items() if not v.isdigit()]:
            raise SpecificationError(wrong)
        online.shift_traffic(settings, endpoint, {name: int(share) for name, share in wanted.items()})
    _endpoints(online.endpoint_status(settings, endpoint))


@app.command()
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

    settings = _settings(env, state)
    payload = _example(settings, endpoint) if request is None else _read_request(request)
    print(json.dumps(online.invoke(settings, endpoint, payload, deployment)))


@endpoints.command("start")
def endpoint_start(endpoint: str, env: Environment = "", state: State = "") -> None:
    """Start an endpoint again, as it was."""
    from mlops_nb.outer_loop import online

    with busy(f"starting {endpoint}"):
        online.start(_settings(env, state), endpoint)
    say(f"{endpoint} answers.")


@endpoints.command("stop")
def endpoint_stop(endpoint: str, env: Environment = "", state: State = "") -> None:
    """Stop an endpoint; what it is stays written, `start` brings it back."""
    from mlops_nb.outer_loop import online

    online.stop(_settings(env, state), endpoint)
    say(f"{endpoint} is stopped.")


@endpoints.command("remove")
def endpoint_remove(endpoint: str, deployment: str, env: Environment = "", state: State = "", by: By = "", persona: As = "") -> None:
    """Remove a deployment that has no traffic."""
    from mlops_nb.outer_loop import online

    online.remove(_settings(env, state, by, persona), endpoint, deployment)
    say(f"{endpoint}/{deployment} is removed.")


@app.command()
def monitor(
    endpoint: Annotated[str, typer.Argument(help="Endpoint.")],
    file: Annotated[str, typer.Option("--file", help="Azure ML monitor file.", show_default="environments/<env>/monitor.yml")] = "",
    ground_truth: Annotated[str, typer.Option("--ground-truth", help="CSV or Parquet with correlationid and the truth.")] = "",
    env: Environment = "",
    state: State = "",
    by: By = "",
    persona: As = "",
) -> None:
    """Watch an endpoint: run its monitor notebook now, and follow the alert as settings.ini says."""
    import json

    from mlops_nb.core.records import SpecificationError

    settings = _settings(env, state, by, persona)
    made = _runs_of(settings, endpoint)
    if not made:
        where = settings.environment
        raise SpecificationError([f"No run has deployed '{endpoint}' in {where}. Start with: mlops-nb run classical"])
    values = made[-1].values | {"monitor": file, "ground_truth": ground_truth}
    found = run_scenario(settings, made[-1].scenario, values, only="monitor", run_id=made[-1].id)
    alert = json.loads(found.output("monitor", "decision").read_text())
    rows = [(s["type"], s["feature"], s["metric"], _number(s["value"]), _number(s["threshold"]), s["problem"] or "breached")
            for s in alert["signals"]]
    if rows:
        table("Alert", ("signal", "feature", "metric", "value", "threshold", ""), rows)
    say(f"decision: [bold]{alert['action']}[/]; the whole picture: {found.folder / '50_monitor.html'}")
    if alert["action"] == "retrain":
        if settings.retrain == "automatic":
            run_scenario(settings, found.scenario, found.values, new=True)
        else:
            say(f"To retrain: mlops-nb run {found.scenario} --new {_repeat(found.values)}")


# --- notebooks, specifications, ledger ---------------------------------------------------------------------------------


@notebooks.command("run")
def notebook_run(
    notebook: Annotated[Path, typer.Argument(help="Notebook; it is never written to.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The executed copy.")],
    values: Values = None,
    env: Environment = "",
    state: State = "",
    by: By = "",
    persona: As = "",
) -> None:
    """Execute one notebook with typed parameters."""
    from mlops_nb.core.notebook import run_notebook

    settings = _settings(env, state, by, persona)
    with busy(f"running {notebook.name}"):
        done = run_notebook(settings, notebook, output, _parse(values))
    say(f"{done.path} and {done.report.name} in {done.seconds:.1f} s")


@notebooks.command("show")
def notebook_show(notebook: Path) -> None:
    """Print a notebook's parameters."""
    from mlops_nb.core.parameters import read_parameters

    rows = [(p.name, p.annotation, repr(p.default), p.doc) for p in read_parameters(notebook)]
    table(notebook.name, ("parameter", "type", "default", ""), rows)


@app.command("compile")
def compile_(check: Annotated[bool, typer.Option("--check", help="Only compare; exit 2 if something differs.")] = False) -> None:
    """Write ci/components from the notebooks' typed parameters."""
    from mlops_nb.core.records import SpecificationError
    from mlops_nb.core.settings import find_root
    from mlops_nb.core.specification import compile_components

    changed = compile_components(find_root(), write=not check)
    if check and changed:
        raise SpecificationError([f"{path}: not what the notebook says. Run `mlops-nb compile`." for path in changed])
    say("\n".join(str(path) for path in changed) or "components are in sync")


@ledgers.command("verify")
def ledger_verify(env: Environment = "", state: State = "") -> None:
    """Check every entry's hash and link; exit 2 if one was changed, removed or reordered."""
    from mlops_nb.core import ledger
    from mlops_nb.core.records import SpecificationError

    settings = _settings(env, state)
    if faults := ledger.verify(settings):
        raise SpecificationError([f"{settings.ledger}: {fault}" for fault in faults])
    say(f"{len(ledger.entries(settings))} entries, unbroken")


@ledgers.command("show")
def ledger_show(
    address: Annotated[str, typer.Argument(help="Only what concerns this address, e.g. model:dev.diamonds/2.")] = "",
    lineage: Annotated[bool, typer.Option("--lineage", help="Everything it was made from.")] = False,
    env: Environment = "",
    state: State = "",
) -> None:
    """Print the ledger, or the lineage of one address."""
    from mlops_nb.core import ledger

    settings = _settings(env, state)
    found = ledger.lineage(settings, address) if lineage else ledger.entries(settings, address)
    rows = [(str(e.seq), e.at[:19], f"{e.user} ({e.persona})", e.action, e.subject, ", ".join(e.inputs)) for e in found]
    table("Ledger", ("", "at", "who", "action", "subject", "from"), rows)


# --- project -----------------------------------------------------------------------------------------------------------


@app.command()
def init(folder: Annotated[Path, typer.Argument(help="Project folder.")] = Path()) -> None:
    """Lay the scenarios, specifications and settings into a project; nothing is overwritten."""
    from mlops_nb.setup.project import lay_project

    written, kept = lay_project(folder)
    say(f"{len(written)} files laid into {folder.resolve()}" + (f", {len(kept)} kept as they were" if kept else ""))
    say("Next: mlops-nb demo")


@app.command()
def doctor(env: Environment = "", state: State = "") -> None:
    """Show the settings in force, where each comes from, the versions, and what is missing."""
    from mlops_nb.setup.doctor import examine, show_settings

    settings = _settings(env, state)
    table("Settings", ("setting", "value", "from"), show_settings(env, state=state))
    findings = examine(settings)
    table("Workbench", ("part", "", "found", "to mend it"), [(f.what, f.state, f.found, f.remedy) for f in findings])
    if any(f.state == "broken" for f in findings):
        raise typer.Exit(2)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Project folder; laid if it is empty.")] = Path(),
    keep: Annotated[bool, typer.Option("--keep/--stop", help="Leave the demo's endpoint running, or stop it.")] = True,
) -> None:
    """Walk the whole loop twice on real data: live, drift, retrained, approved, replaced, quiet."""
    from mlops_nb.demo import run_demo

    run_demo(folder, keep)


@azure.command("check")
def azure_check(files: Annotated[list[Path] | None, typer.Argument(help="YAML files; by default all of the project.")] = None) -> None:
    """Load specification files with azure-ai-ml, as Azure ML would."""
    from mlops_nb.azure import check
    from mlops_nb.core.settings import find_root

    with busy("loading with azure-ai-ml"):
        kinds = check(files or find_root())
    table("Azure ML", ("file", "kind"), [(str(path), kind) for path, kind in kinds.items()])


# --- what the commands share ---------------------------------------------------------------------------------------------


def _settings(env: str = "", state: str = "", by: str = "", persona: str = "") -> "Settings":
    from mlops_nb.core.settings import load_settings

    folder = str(Path(state).expanduser().resolve()) if state else ""
    return load_settings(env, state=folder, user=by, persona=persona)


def _parse(values: list[str] | None) -> dict[str, str]:
    """Split NAME=VALUE words; raises `SpecificationError` listing every word that is none."""
    from mlops_nb.core.records import SpecificationError

    if wrong := [f"'{word}': NAME=VALUE is expected." for word in values or [] if "=" not in word]:
        raise SpecificationError(wrong)
    return {name: value for name, _, value in (word.partition("=") for word in values or [])}


def _decide(choice: str, name: str, reason: str, env: str, state: str, by: str, persona: str) -> None:
    """Enter a decision in the ledger as the one who decides; then let the run go on as the one who runs."""
    from mlops_nb.outer_loop import approval

    settings = _settings(env, state, by, persona)
    waiting, model = _waiting(settings, name)
    decision = getattr(approval, choice)(settings, model, reason)
    say(f"{decision.decision} {decision.model} by {decision.by} as {decision.persona}")
    run_scenario(_settings(env, state), waiting.scenario, None, run_id=waiting.id)


def _waiting(settings: "Settings", name: str) -> "tuple[Run, ModelVersion]":
    """Find the run that waits for a person about a model, and the model."""
    from mlops_nb.core.pipeline import list_runs
    from mlops_nb.core.records import ModelVersion, SpecificationError, load_record

    short = name.removeprefix(f"{settings.environment}.").partition("/")[0]
    runs = [r for r in list_runs(settings) if r.state == "waiting"]
    found = [(r, load_record(ModelVersion, r.output("stage", "candidate"))) for r in runs]
    newest = {m.name: (r, m) for r, m in found if not short or m.name == f"{settings.environment}.{short}"}
    if len(newest) == 1:
        return next(iter(newest.values()))
    names = ", ".join(m.removeprefix(f"{settings.environment}.") for m in newest)
    if newest:
        raise SpecificationError([f"{len(newest)} models wait in {settings.environment}: {names}. Name one."])
    raise SpecificationError([f"No model{f' {short}' * bool(short)} waits for an approval in {settings.environment}."])


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


def _endpoints(found: list[dict[str, Any]]) -> None:
    rows = [
        (e["endpoint"], e["deployment"], e["state"], f"{e['traffic']} %", e["model"].removeprefix("model:"), e["address"])
        for e in found
    ]
    if rows:
        table("Endpoints", ("endpoint", "deployment", "state", "traffic", "model", "address"), rows)


def _runs_of(settings: "Settings", endpoint: str) -> "list[Run]":
    from mlops_nb.core.pipeline import list_runs
    from mlops_nb.core.records import Deployment, load_record

    runs = [r for r in list_runs(settings) if r.steps.get("deploy") == "done"]
    return [r for r in runs if load_record(Deployment, r.output("deploy", "deployed")).endpoint == endpoint]


def _repeat(values: dict[str, Any]) -> str:
    import shlex

    where = "" if values["environment"] == "dev" else f"--env {values['environment']} "
    given = {name: value for name, value in values.items() if name != "environment" and value != ""}
    return where + " ".join(f"-p {shlex.quote(f'{name}={value}')}" for name, value in given.items())


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; every foreseen fault becomes one message on stderr and its exit code."""
    raise SystemExit(_guarded(lambda: app(arguments, standalone_mode=False)))


def _guarded(command: Callable[[], Any]) -> int:
    usage_error: Any = typer.BadParameter.__base__  # the command-line parser's own, which typer does not name
    try:
        return int(command() or 0)
    except typer.Exit as end:
        return end.exit_code
    except usage_error as wrong:
        wrong.show()
        return 2
    except (KeyboardInterrupt, typer.Abort):
        print("stopped; the same command goes on where it was", file=sys.stderr)
        return 130
    except Exception as problem:
        code = _exit_code(problem)
        if code is None:
            raise
        print(problem, file=sys.stderr)
        return code


def _exit_code(problem: Exception) -> int | None:
    """Translate an exception of ours to its exit code; None for a bug, which keeps its traceback."""
    from mlops_nb.core.records import GateClosed, SpecificationError, StepFailed

    if isinstance(problem, StepFailed):
        return 4
    if isinstance(problem, GateClosed) or (isinstance(problem, PermissionError) and problem.errno is None):
        return 3
    if isinstance(problem, TimeoutError):
        return 5
    if isinstance(problem, SpecificationError | OSError | ValueError | LookupError):
        return 2
    return None
