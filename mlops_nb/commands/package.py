"""Package a model, look at packages, serve one here, check a project without packaging anything."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlops_nb.commands.options import acting, group, looking, parse_values
from mlops_nb.terminal import busy, say, table

if TYPE_CHECKING:
    from mlops_nb.core.settings import Settings
    from mlops_nb.packaging.audit import Check, Package

app = group("Package a model with a bill of what is in it, checked before it leaves.")

Name = Annotated[str, typer.Argument(help="Package as NAME or NAME/VERSION; NAME: the newest.")]
Skip = Annotated[
    list[str] | None, typer.Option("--skip", help="Leave a check out, as NAME=REASON; the reason stays in the audit trail.")
]
Mirror = Annotated[
    str,
    typer.Option("--osv-mirror", help="Where vulnerabilities are looked up: an OSV service, or a folder of its records, or all.zip."),
]


@app.command("build")
@acting
def build(
    settings: "Settings",
    model: Annotated[str, typer.Argument(help="Registered model as NAME, NAME/VERSION or NAME@ALIAS, or an MLflow folder.")],
    folder: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for the package.", show_default="in the state folder")
    ] = None,
    name: Annotated[str, typer.Option("--name", help="Of the package; by default the model's.")] = "",
    skip: Skip = None,
    osv_mirror: Mirror = "",
    allow_unpinned: Annotated[
        bool, typer.Option("--allow-unpinned", help="Take a base image without a digest; stays in the audit trail.")
    ] = False,
    image: Annotated[
        bool, typer.Option("--image/--no-image", help="Build the image, where docker, podman or buildah can.")
    ] = True,
) -> None:
    """Package a model: exit 3 and no package if a check says no."""
    from mlops_nb.outer_loop import models, package

    asked, reasons = Path(model).expanduser(), parse_values(skip)
    with busy(f"packaging {model}"):
        found = asked if (asked / "MLmodel").is_file() else models.find_model(settings, model)
        made = package.build(settings, found, name, folder, reasons, osv_mirror, allow_unpinned, image)
    _show(made.checks)
    say(f"{made.uri}: {made.folder}")
    why = "neither docker, podman nor buildah can build here" if image else "as asked"
    say(f"image {made.image}, built with {made.builder}" if made.image else f"no image: {why}")
    where = "" if settings.environment == "dev" else f" --env {settings.environment}"
    say(f"To serve it here: mlops-nb package run {made.name}/{made.version}{where}")


@app.command("list")
@looking
def list_(settings: "Settings") -> None:
    """List the packages, those that did not pass among them, the newest last."""
    from mlops_nb.outer_loop import package

    rows = [(f"{one.name}/{one.version}", one.model, _state(one), one.at[:19], one.by, one.image or one.folder)
            for one in package.packages(settings)]
    table(f"Packages in {settings.environment}", ("package", "model", "", "at", "by", "where"), rows)


@app.command("show")
@looking
def show(settings: "Settings", name: Name) -> None:
    """Show what the checks said of a package; exit 2 if its files have changed since."""
    from mlops_nb.core.records import SpecificationError
    from mlops_nb.outer_loop import package

    found = package.find(settings, name)
    say(f"{found.uri}: [bold]{_state(found)}[/]; {found.model} on {found.base}, by {found.by} as {found.persona} at {found.at[:19]}")
    _show(found.checks)
    rows = [(check.name, finding.place, finding.what, finding.accepted) for check in found.checks for finding in check.findings]
    if rows:
        table("Findings", ("check", "where", "what", "accepted"), rows)
    if found.passed:
        if faults := package.check(found):
            raise SpecificationError([*faults, f"Build it again: mlops-nb package build {found.name}"])
        say(f"{found.folder}: as signed off, sha256 {found.digest}")


@app.command("run")
@looking
def run(
    settings: "Settings",
    name: Name,
    port: Annotated[int, typer.Option("--port", help="Port on 127.0.0.1; 0: any free one.")] = 5001,
    python: Annotated[
        str, typer.Option("--python", help="Interpreter that has the packages already.", show_default="made from the lock")
    ] = "",
) -> None:
    """Serve a package's files on this machine until Ctrl-C, in an environment made from its lock."""
    import subprocess
    import sys

    from mlops_nb.core.records import GateClosed
    from mlops_nb.outer_loop import package

    found = package.find(settings, name)
    if faults := package.check(found):
        raise GateClosed("\n".join([*faults, f"Build it again: mlops-nb package build {found.name}"]))
    command = [sys.executable, str(Path(found.folder) / "run"), "--port", str(port)]
    raise typer.Exit(subprocess.call([*command, "--python", python] if python else command))  # noqa: S603 its own, as signed off


@app.command("scan")
@looking
def scan(
    settings: "Settings",
    model: Annotated[Path | None, typer.Argument(help="Folder of a model to look into, too.")] = None,
    skip: Skip = None,
    osv_mirror: Mirror = "",
) -> None:
    """Check the project as it stands, without packaging: exit 3 if a check says no."""
    from mlops_nb.outer_loop import package

    with busy("looking"):
        checks = package.scan(settings, model, parse_values(skip), osv_mirror)
    _show(checks)


def _state(package: "Package") -> str:
    return "passed" if package.passed else f"stopped by {', '.join(check.name for check in package.failed)}"


def _show(checks: "list[Check]") -> None:
    rows = [
        (c.name, c.state, c.skipped or c.detail, str(len(c.findings) or ""), f"{c.seconds:.1f} s", c.version) for c in checks
    ]
    table("Checks", ("check", "", "", "findings", "time", "tool"), rows)
