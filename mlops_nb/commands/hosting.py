"""Generate what hosts an endpoint beside our own processes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlops_nb.commands.options import acting, group
from mlops_nb.terminal import say

if TYPE_CHECKING:
    from mlops_nb.core.settings import Settings

app = group("Generate what hosts an endpoint elsewhere: nginx, systemd units, Kubernetes manifests.")

Endpoint = Annotated[str, typer.Argument(help="Endpoint.")]
Out = Annotated[
    Path | None, typer.Option("-o", "--out", help="Folder of the files.", show_default="in the state folder")
]
User = Annotated[str, typer.Option("--user", help="Who runs the units.", show_default="your login")]


@app.command()
@acting
def nginx(
    settings: "Settings",
    endpoint: Endpoint,
    out: Out = None,
    listen: Annotated[str, typer.Option("--listen", help="ADDRESS:PORT; by default the endpoint's own.")] = "",
    server: Annotated[
        list[str] | None,
        typer.Option("--server", help="DEPLOYMENT=HOST:PORT of workers that run elsewhere; repeat for more."),
    ] = None,
    runtime: Annotated[str, typer.Option("--runtime", help="Folder of the workers' sockets.")] = "/run/mlops-nb",
    user: User = "",
    group: Annotated[
        str, typer.Option("--group", help="That may use the sockets: www-data for the machine's own nginx.")
    ] = "",
) -> None:
    """Generate nginx's configuration of an endpoint, and systemd units of its workers and of an nginx of its own."""
    from mlops_nb.hosting.nginx import write_nginx

    servers: dict[str, list[str]] = {}
    for name, address in _pairs(server):
        servers.setdefault(name, []).append(address)
    paths = write_nginx(settings, endpoint, out, runtime, servers, listen, user, group)
    _show(paths, "Try it: nginx -e stderr -t -p FOLDER -c nginx.conf. The keys are in keys.conf: keep it out of git.")


@app.command()
@acting
def systemd(
    settings: "Settings",
    endpoint: Endpoint,
    out: Out = None,
    user: User = "",
    memory: Annotated[str, typer.Option("--memory", help="Most it may take, e.g. 8G.", show_default="no limit")] = "",
) -> None:
    """Generate systemd units of an endpoint with our own front: a listening socket, and the service behind it."""
    from mlops_nb.hosting.systemd import write_systemd

    paths = write_systemd(settings, endpoint, out, user, memory)
    socket = next(path.name for path in paths if path.suffix == ".socket")
    _show(paths, f"Copy them to /etc/systemd/system, stop the endpoint, then: systemctl enable --now {socket}")


@app.command()
@acting
def kubernetes(
    settings: "Settings",
    endpoint: Endpoint,
    out: Out = None,
    image: Annotated[
        list[str] | None,
        typer.Option(
            "--image", help="Of the deployments, REPOSITORY@sha256:...; or DEPLOYMENT=IMAGE, repeat for more."
        ),
    ] = None,
    front_image: Annotated[
        str, typer.Option("--front-image", help="Of an nginx that runs without root, by digest.")
    ] = "",
    namespace: Annotated[str, typer.Option("--namespace", help="To make, and to put everything into.")] = "",
    entrance: Annotated[str, typer.Option("--from-namespace", help="Of the ingress controller.")] = "",
    claim: Annotated[str, typer.Option("--claim", help="Volume claim for the collected data.")] = "",
    compute: Annotated[
        str, typer.Option("--compute", help="Cluster attached to Azure ML: writes Azure ML's own files, too.")
    ] = "",
    instance_type: Annotated[str, typer.Option("--instance-type", help="Of the attached cluster.")] = "",
    file: Annotated[
        list[Path] | None,
        typer.Option(
            "--file", help="Deployment file; repeat for more.", show_default="environments/<env>/deployment.yml"
        ),
    ] = None,
) -> None:
    """Generate Kubernetes manifests of an endpoint, for any cluster (--image) or for Azure ML's (--compute)."""
    from mlops_nb.hosting.kubernetes import Cluster, write_kubernetes

    images = dict(_images(image))
    cluster = Cluster(images, front_image, namespace, entrance, claim) if image or front_image else None
    paths = write_kubernetes(settings, endpoint, out, cluster, compute, file or (), instance_type)
    _show(paths, "manifests.yml says in its head what is not as on Azure." if cluster else "")


def _pairs(words: list[str] | None) -> list[tuple[str, str]]:
    """Split NAME=VALUE words, a name as often as it comes."""
    from mlops_nb.commands.options import parse_values

    return [pair for word in words or [] for pair in parse_values([word]).items()]


def _images(words: list[str] | None) -> list[tuple[str, str]]:
    return [(word.partition("=")[0], word.partition("=")[2]) if "=" in word else ("", word) for word in words or []]


def _show(paths: list[Path], hint: str) -> None:
    for path in paths:
        say(str(path))
    if hint:
        say(hint)
