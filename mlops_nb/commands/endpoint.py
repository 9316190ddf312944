"""`mlops-nb endpoint`: look at endpoints, start and stop them, read their logs, hand out their keys."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mlops_nb.commands.options import acting, group, looking
from mlops_nb.terminal import busy, say, table

if TYPE_CHECKING:
    from mlops_nb.core.settings import Settings

app = group("Look at endpoints, start and stop them, read their logs, hand out their keys.")

Endpoint = Annotated[str, typer.Argument(help="Endpoint.")]


def on_azure(settings: "Settings") -> Any:
    """Give the module whose functions do on Azure ML what the library's do here; None where the backend is this machine."""
    import importlib

    return importlib.import_module("mlops_nb.azure.deploy") if settings.backend == "azure" else None


def only_here(settings: "Settings", what: str) -> None:
    """Raise `SpecificationError` where the backend is Azure ML."""
    from mlops_nb.core.records import SpecificationError

    if settings.backend == "azure":
        raise SpecificationError([f"{what} is for endpoints of this machine; {settings.environment} has backend = azure."])


@app.command("list")
@looking
def list_(settings: "Settings") -> None:
    """List the endpoints of an environment, with their deployments."""
    from mlops_nb.outer_loop import online

    if found := (on_azure(settings) or online).endpoint_status(settings):
        show_endpoints(found)
    else:
        say(f"No endpoints in {settings.environment}. Make one with: mlops-nb deploy MODEL")


@app.command("show")
@looking
def show(settings: "Settings", endpoint: Endpoint) -> None:
    """Show an endpoint: its address, who is let in, its deployments, their instances, what they answered."""
    from mlops_nb.outer_loop import online
    from mlops_nb.outer_loop.client import base_address
    from mlops_nb.outer_loop.state import read_status, read_wanted

    if there := on_azure(settings):
        show_endpoints(there.endpoint_status(settings, endpoint))
        return
    wanted, found = read_wanted(settings, endpoint), read_status(settings, endpoint)
    say(f"{endpoint}: {found['state']}, {base_address(wanted)}/score, auth_mode {wanted['auth_mode']}")
    rows = []
    for one in online.endpoint_status(settings, endpoint):
        share = f"{one['traffic']} %" + (f" + {one['mirror']} % mirrored" if one["mirror"] else "")
        ready = sum(instance["state"] == "ready" for instance in one["instances"])
        answers = ", ".join(f"{status}: {count}" for status, count in one["requests"].items())
        times = f"{one['p50_ms']} / {one['p95_ms']}" if one["p95_ms"] is not None else ""
        model = one["model"].removeprefix("model:")
        rows.append((one["deployment"], one["state"], share, f"{ready} of {len(one['instances'])}", model, answers, times))
        if one["error"]:
            print(f"{one['deployment']}: {one['error']}", file=sys.stderr)
    table("Deployments", ("deployment", "state", "traffic", "instances", "model", "answers", "ms (50 %, 95 %)"), rows)


def show_endpoints(found: list[dict[str, Any]]) -> None:
    """Print endpoints as a table."""
    rows = [
        (
            e["endpoint"],
            e["deployment"],
            e["state"],
            f"{e['traffic']} %" + (f" + {e['mirror']} % mirrored" if e["mirror"] else ""),
            e["model"].removeprefix("model:"),
            e["address"],
        )
        for e in found
    ]
    if rows:
        table("Endpoints", ("endpoint", "deployment", "state", "traffic", "model", "address"), rows)


@app.command("start")
@acting
def start(settings: "Settings", endpoint: Endpoint) -> None:
    """Start an endpoint again, as it was."""
    from mlops_nb.outer_loop import online

    only_here(settings, "start")
    with busy(f"starting {endpoint}"):
        online.start(settings, endpoint)
    say(f"{endpoint} answers.")


@app.command("stop")
@acting
def stop(settings: "Settings", endpoint: Endpoint) -> None:
    """Stop an endpoint; what it is stays written, `start` brings it back."""
    from mlops_nb.outer_loop import online

    only_here(settings, "stop")
    online.stop(settings, endpoint)
    say(f"{endpoint} is stopped.")


@app.command("remove")
@acting
def remove(
    settings: "Settings",
    endpoint: Endpoint,
    deployment: Annotated[str, typer.Argument(help="Deployment; none: the endpoint itself.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Remove the whole endpoint, with its keys, without asking.")] = False,
) -> None:
    """Remove a deployment that has no traffic, or a whole endpoint; logs and collected data stay."""
    from mlops_nb.core.records import SpecificationError
    from mlops_nb.outer_loop import online

    if not deployment and not yes:
        found = (on_azure(settings) or online).endpoint_status(settings, endpoint)
        known = ", ".join(one["deployment"] for one in found) or "none"
        raise SpecificationError([f"Name a deployment of {endpoint} (there are: {known}), or remove all of it with --yes."])
    (on_azure(settings) or online).remove(settings, endpoint, deployment)
    say(f"{endpoint}{f'/{deployment}' if deployment else ''} is removed.")


@app.command("serve")
@acting
def serve(settings: "Settings", endpoint: Endpoint) -> None:
    """Serve an endpoint from this process, until it is ended: what a systemd unit calls. Takes systemd's socket if there is one."""
    import os
    import socket

    from mlops_nb.core import access
    from mlops_nb.core.records import SpecificationError
    from mlops_nb.outer_loop import state as states

    only_here(settings, "serve")
    access.require(settings, "deploy")
    states.check_host(settings)
    with states.lock_endpoint(settings, endpoint):
        wanted = states.read_wanted(settings, endpoint)
        if pid := states.read_status(settings, endpoint)["pid"]:
            raise SpecificationError([f"{endpoint} is served by process {pid}. Stop it first: mlops-nb endpoint stop {endpoint}"])
        given = os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS") == "1"
        listener = socket.socket(fileno=3) if given else states.listen(settings.host, wanted["port"] or settings.port)
        command, variables = states.host_command(settings, wanted, listener)
        listener.set_inheritable(True)
    say(f"{endpoint} listens on port {wanted['port']}.")
    sys.stdout.flush()
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        variables.pop(name, None)
    os.execve(command[0], [*command, "--foreground"], variables)  # noqa: S606 our own module; systemd goes on watching this process


@app.command("logs")
@looking
def logs(
    settings: "Settings",
    endpoint: Endpoint,
    deployment: Annotated[str, typer.Option("--deployment", help="Of this deployment's processes; by default the host's.")] = "",
    traffic: Annotated[bool, typer.Option("--traffic", help="The requests, one JSON object a line, with Azure's columns.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is written.")] = False,
    count: Annotated[int, typer.Option("-n", help="Lines to begin with.", min=0)] = 50,
) -> None:
    """Print the newest lines of an endpoint's logs."""
    from mlops_nb.core.records import SpecificationError

    if deployment and traffic:
        raise SpecificationError(["--traffic is the whole endpoint's: leave --deployment out; the lines name it as DeploymentName."])
    if there := on_azure(settings):
        if traffic or follow or not deployment:
            raise SpecificationError(["Of Azure ML, the last lines of one --deployment can be read; requests are in Log Analytics."])
        print(there.logs(settings, endpoint, deployment, count), end="")
        return
    path = _log(settings, endpoint, deployment, traffic)
    if path is None:
        raise SpecificationError([f"No request of {endpoint} was logged yet."])
    for line in _last_lines(path, count):
        print(line)
    if follow:
        sys.stdout.flush()
        for line in _follow(settings, endpoint, deployment, traffic, path):
            print(line, flush=True)


def _log(settings: "Settings", endpoint: str, deployment: str, traffic: bool) -> Path | None:
    """Find a log's newest file; raises `LookupError` for a deployment that never wrote one."""
    from mlops_nb.outer_loop.state import endpoint_folder, read_wanted

    read_wanted(settings, endpoint)
    folder = endpoint_folder(settings, endpoint) / "logs"
    if traffic:
        return max((folder / "traffic").glob("*.jsonl"), default=None)
    path = folder / f"{deployment or 'host'}.log"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.log") if p.stem not in ("host", "front"))) or "none"
        raise LookupError(f"No log of {deployment or 'the host'} in {folder} (deployments: {known}).")
    return path


def _last_lines(path: Path, count: int) -> list[str]:
    """Read a file's last lines from its end."""
    with path.open("rb") as file:
        size = end = file.seek(0, 2)
        text = b""
        while end > 0 and text.count(b"\n") <= count:
            end = max(0, end - 65536)
            file.seek(end)
            text = file.read(size - end)
    return text.decode(errors="replace").splitlines()[-count:] if count else []


def _follow(settings: "Settings", endpoint: str, deployment: str, traffic: bool, path: Path) -> Iterator[str]:
    """Yield what is written from now on; a new day's file, and one that was emptied, is read from its beginning."""
    import time

    position, rest = path.stat().st_size, ""
    while True:
        time.sleep(0.2)
        newest = _log(settings, endpoint, deployment, traffic)
        size = path.stat().st_size if path.exists() else 0
        if size < position:
            position, rest = 0, ""
        if size > position:
            with path.open(errors="replace") as file:
                file.seek(position)
                *lines, rest = (rest + file.read()).split("\n")
                position = file.tell()
            yield from lines
        elif newest and newest != path:
            path, position, rest = newest, 0, ""


@app.command("metrics")
@looking
def metrics(settings: "Settings", endpoint: Endpoint) -> None:
    """Print an endpoint's metrics, under Azure Monitor's names, as Prometheus reads them."""
    from mlops_nb.outer_loop.client import fetch

    only_here(settings, "metrics")
    print(fetch(settings, endpoint, "/metrics", timeout=10).decode(), end="")


@app.command("get-credentials")
@looking
def get_credentials(
    settings: "Settings",
    endpoint: Endpoint,
    key: Annotated[
        Literal["primary", "secondary", "token"] | None,
        typer.Option("--key", help="Print just this one; by default, what its auth_mode takes.", show_default=False),
    ] = None,
) -> None:
    """Print what opens an endpoint: its keys, or a token that ends within the hour."""
    import json

    from mlops_nb.outer_loop import credentials
    from mlops_nb.outer_loop.state import read_wanted

    if there := on_azure(settings):
        known = there.keys(settings, endpoint)
        print(_one(endpoint, known, key) if key else json.dumps(known, indent=1))
    elif key == "token":
        print(credentials.token(settings, endpoint))
    elif key:
        print(credentials.keys(settings, endpoint)[key])
    elif read_wanted(settings, endpoint)["auth_mode"] == "key":
        known = credentials.keys(settings, endpoint)
        print(json.dumps({"primaryKey": known["primary"], "secondaryKey": known["secondary"]}, indent=1))
    else:
        token = credentials.authorization(settings, endpoint)["authorization"].removeprefix("Bearer ")
        print(json.dumps({"accessToken": token}, indent=1))


def _one(endpoint: str, known: dict[str, str], key: str) -> str:
    if key not in known:
        raise LookupError(f"{endpoint} has no {key} (it has: {', '.join(known)}), as its auth_mode is another.")
    return known[key]


@app.command("regenerate-keys")
@acting
def regenerate_keys(
    settings: "Settings",
    endpoint: Endpoint,
    key_type: Annotated[Literal["primary", "secondary"], typer.Option("--key-type", help="Which of the two.")],
) -> None:
    """Replace one key of an endpoint; the other one goes on being good."""
    from mlops_nb.outer_loop import credentials

    (on_azure(settings) or credentials).regenerate(settings, endpoint, key_type)
    where = "" if settings.environment == "dev" else f" --env {settings.environment}"
    say(f"{endpoint} has a new {key_type} key: mlops-nb endpoint get-credentials {endpoint}{where} --key {key_type}")
