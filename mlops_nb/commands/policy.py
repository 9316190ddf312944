"""Show the project's policies, run their controls, exempt something for a time."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlops_nb.commands.options import acting, group, looking
from mlops_nb.terminal import busy, say, table

if TYPE_CHECKING:
    from mlops_nb.core.settings import Settings
    from mlops_nb.outer_loop.controls import Control
    from mlops_nb.outer_loop.governance import Scope

app = group("Policies as code: what must hold before a deployment, after it, and from then on.")

Only = Annotated[list[str] | None, typer.Argument(help="Policies or controls by name; by default all.", show_default=False)]
Subject = Annotated[str, typer.Option("--subject", help="Pattern of the addresses it is for: 'deployment:prod.diamonds/*'.")]


@app.command("check")
@acting
def check(
    settings: "Settings",
    only: Only = None,
    when: Annotated[
        str, typer.Option("--when", help="before_deployment, after_deployment or on_schedule.")
    ] = "on_schedule",
    endpoint: Annotated[str, typer.Option("--endpoint", help="Look at this endpoint only.")] = "",
    model: Annotated[str, typer.Option("--model", help="Look at a registered model as if it were to be deployed.")] = "",
    file: Annotated[str, typer.Option("--file", help="Its deployment file.", show_default="environments/<env>/deployment.yml")] = "",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Also write the findings: .html, .md or .json.", show_default=False)
    ] = None,
    verbose: Annotated[bool, typer.Option("--all", help="Also list what passed.")] = False,
) -> None:
    """Run the controls that hold now: exit 3 if one with the effect deny did not pass. The evidence is kept in the state folder."""
    from mlops_nb.core.records import GateClosed, SpecificationError
    from mlops_nb.outer_loop import controls

    if when not in controls.MOMENTS:
        raise SpecificationError([f"--when {when}: one of {', '.join(controls.MOMENTS)} is expected."])
    if output and output.suffix not in (".html", ".md", ".json"):
        raise SpecificationError([f"-o {output}: a name that ends in .html, .md or .json is expected."])
    with busy("checking"):
        found = controls.check(_scope(settings, endpoint, model, file), when, only or ())
    if output:
        _write(settings, output)
    shown = [one for one in found if verbose or one.state != "passed"]
    if shown:
        table(f"Controls of {settings.environment}", controls.COLUMNS, controls.rows(shown))
    say(", ".join(f"{number} {state.replace('_', ' ')}" for state, number in controls.count(found).items()))
    if denied := controls.explain(found):
        raise GateClosed(denied)


def _scope(settings: "Settings", endpoint: str, model: str, file: str) -> "Scope":
    from mlops_nb.outer_loop import models
    from mlops_nb.outer_loop.governance import Scope
    from mlops_nb.outer_loop.wish import deployment_file

    if not model:
        return Scope(settings, endpoint)
    found = models.registered_model(settings, model.removeprefix("models:/"))
    script = deployment_file(settings, file)[0].code_configuration is not None
    return Scope(settings, endpoint, model=found, path=models.model_folder(settings, found, script), file=file)


def _write(settings: "Settings", output: Path) -> None:
    """Write the newest findings in the form that a file's name asks for."""
    import dataclasses
    import json

    from mlops_nb.core.files import write_file
    from mlops_nb.outer_loop import controls

    found = controls.last(settings)
    forms = {
        ".html": lambda: controls.as_html(found, f"Controls of {settings.environment}"),
        ".md": lambda: controls.as_markdown(found),
        ".json": lambda: json.dumps([dataclasses.asdict(one) for one in found], indent=1),
    }
    write_file(output, forms[output.suffix]())


@app.command("show")
@looking
def show(
    settings: "Settings",
    only: Only = None,
) -> None:
    """List the controls that hold in an environment, and their exemptions; exit 2 for a file with faults."""
    from mlops_nb.outer_loop import controls

    known = [one for one in controls.policies(settings) if settings.environment in one.environments]
    if only and (wrong := set(only) - {name for one in known for name in (one.policy, one.id)}):
        raise LookupError(f"No policy or control {', '.join(sorted(wrong))} in {settings.environment}.")
    held = [one for one in known if not only or one.policy in only or one.id in only]
    columns = ("control", "effect", "severity", "when", "implements", "title")
    rows = [
        (f"{one.policy}/{one.id}", one.effect, one.severity, ", ".join(one.when), ", ".join(one.implements), one.title)
        for one in held
    ]
    table(f"Policies of {settings.environment}", columns, rows)
    _show_exemptions(settings, held)


def _show_exemptions(settings: "Settings", held: "list[Control]") -> None:
    from mlops_nb.outer_loop import controls
    from mlops_nb.outer_loop.governance import Scope

    scope = Scope(settings)
    rows = []
    for one in held:
        for name, given in controls.exemptions(scope, one):
            until = given.expires_on.isoformat() + " (ended)" * controls.has_ended(scope, given)
            rows.append((one.id, given.subject, given.granted_by, until, given.reason, name))
    if rows:
        table("Exemptions", ("control", "subject", "granted by", "until", "reason", "where"), rows)


@app.command("exempt")
@acting
def exempt(
    settings: "Settings",
    control: Annotated[str, typer.Argument(help="Id of the control, as `mlops-nb policy show` lists it.")],
    until: Annotated[str, typer.Option("--until", help="The last day on which it counts, UTC: 2026-12-31.")] = "",
    reason: Annotated[str, typer.Option("--reason", help="Why, and what is done about it; stays in the audit trail.")] = "",
    subject: Subject = "*",
    end: Annotated[bool, typer.Option("--end", help="Take an exemption back.")] = False,
) -> None:
    """Let something pass a control for a time; asks for the right to approve."""
    import datetime as dt

    from mlops_nb.core.records import SpecificationError
    from mlops_nb.outer_loop import controls

    if end:
        controls.end_exemption(settings, control, subject)
        say(f"{control} holds again for {subject} in {settings.environment}.")
        return
    try:
        day = dt.date.fromisoformat(until)
    except ValueError:
        raise SpecificationError([f"--until '{until}': a day such as 2026-12-31 is expected."]) from None
    given = controls.exempt(settings, control, day, reason, subject)
    say(f"{given.subject} may pass {control} in {settings.environment} until {given.expires_on}.")
