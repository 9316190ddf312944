"""systemd units for an endpoint: our own host behind a listening socket of systemd's, or its workers alone behind nginx.

systemd does what `mlops-nb endpoint start` does by hand, and does it again after a crash or a boot.
"""

import getpass
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlops_nb.core import access, ledger
from mlops_nb.core.records import SpecificationError
from mlops_nb.core.settings import Settings
from mlops_nb.hosting.source import (
    RUNTIME,
    Generated,
    comment,
    default_folder,
    read_endpoint,
    worker_socket,
    write_folder,
)
from mlops_nb.scoring.config import Config, Wish

SLICE, TARGET = "mlops_nb.slice", "mlops-nb.target"  # all of ours, to be limited, started and stopped at once
# a process that serves needs none of this; a model file is code of others until proven otherwise
HARDENING = """\
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RemoveIPC=yes
KeyringMode=private
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
"""
INSTANCE = "<instance>"  # stands for the number of a worker until the text is escaped; no name can hold it
QUIET = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def host_units(
    settings: Settings,
    wanted: dict[str, Any],  # endpoint.json
    user: str = "",  # who runs it; empty: whoever acts
    memory: str = "",  # most it may take, e.g. 8G; empty: no limit
) -> dict[str, str]:  # name -> text
    """Write the units of an endpoint with our own front: a socket, its service, and what all endpoints share."""
    name, folder = unit_name(wanted), settings.endpoints / wanted["name"]
    host = f"[{wanted['host']}]" if ":" in wanted["host"] else wanted["host"]
    if not wanted["port"]:
        raise SpecificationError([f"{wanted['name']} has no port yet. Start it once, or set `port` in settings.ini."])
    command = [sys.executable, "-P", "-m", "mlops_nb.serving.host", str(folder), "3", "--foreground"]
    writable = [folder, settings.collected / wanted["name"]]
    drain = max(wish["timeout_ms"] for wish in wanted["deployments"].values()) / 1000
    service = _service(
        wanted["name"],
        f"Endpoint {wanted['name']} of {settings.environment}",
        command,
        settings,
        writable,
        user,
        memory,
        drain,
        {},
        [f"Requires={name}.socket", f"After=network.target {name}.socket"],
        ["UMask=0077"],
    )
    socket = (
        f"[Unit]\nDescription=Socket of the endpoint {wanted['name']} of {settings.environment}\nPartOf={TARGET}\n\n"
        f"[Socket]\nListenStream={host}:{wanted['port']}\nBacklog=1024\nNoDelay=yes\n\n"
        f"[Install]\nWantedBy=sockets.target {TARGET}\n"
    )
    head = _head(wanted, "systemd")
    return {f"{name}.socket": head + socket, f"{name}.service": head + service, **_shared()}


def worker_units(
    settings: Settings,
    wanted: dict[str, Any],  # endpoint.json
    nginx: Path,  # folder of the nginx configuration
    runtime: str = RUNTIME,  # folder of the sockets; must lie in /run, where systemd makes it
    user: str = "",  # who runs it; empty: whoever acts
    group: str = "",  # that may use the sockets: www-data, where the machine's own nginx is to
    elsewhere: Iterable[str] = (),  # deployments whose workers somebody else runs
) -> dict[str, str]:  # name -> text
    """Write the units of an endpoint behind nginx: a template per deployment, one instance each of its workers, and nginx."""
    name = unit_name(wanted)
    units, instances = {}, []
    for deployment, wish in wanted["deployments"].items():
        if deployment in set(elsewhere):
            continue
        units[f"{name}-{deployment}@.service"] = _worker(
            settings, wanted, deployment, Wish(**wish), runtime, user, group
        )
        instances += [f"{name}-{deployment}@{n}.service" for n in range(wish.get("instances", 1))]
    site = ["/usr/sbin/nginx", "-e", "stderr", "-p", str(nginx), "-c", "nginx.conf", "-g", "daemon off;"]
    proxy = _service(
        wanted["name"],
        f"nginx of the endpoint {wanted['name']} of {settings.environment}",
        site,
        settings,
        [nginx],
        user,
        "",
        200,
        {},
        [" ".join(["Wants=", *instances]).replace("= ", "="), " ".join(["After=network.target", *instances])],
        ["ExecReload=/bin/kill -HUP $MAINPID", "KillSignal=SIGQUIT", "UMask=0077"],
    )
    units[f"{name}-nginx.service"] = proxy
    return {unit: _head(wanted, "nginx") + text for unit, text in units.items()} | _shared()


def _worker(
    settings: Settings, wanted: dict[str, Any], deployment: str, wish: Wish, runtime: str, user: str, group: str
) -> str:
    """Write the template of one deployment's workers; `%i` is the instance's number."""
    socket = worker_socket(runtime, settings.environment, wanted["name"], deployment, INSTANCE)
    config = Config(
        wanted["name"], deployment, settings.environment, f"{deployment}-{INSTANCE}", socket, wish, wanted["max_bytes"]
    )
    command = [wish.python or sys.executable, "-P", "-m", "mlops_nb.scoring.app", json.dumps(asdict(config))]
    writable = [Path(wish.collected)] if wish.collected else []
    place = str(Path(socket).parent).removeprefix("/run/").replace(INSTANCE, "%i")
    more = [f"RuntimeDirectory={place}", "RuntimeDirectoryMode=0750"] if socket.startswith("/run/") else []
    more += [f"Group={group}", "UMask=0007"] if group else ["UMask=0077"]
    return _service(
        wanted["name"],
        f"{deployment} %i of the endpoint {wanted['name']} of {settings.environment}",
        command,
        settings,
        writable,
        user,
        "",
        wish.timeout_ms / 1000,
        QUIET | (wish.variables or {}),
        ["After=network.target"],
        more,
    )


def _service(
    name: str,
    what: str,
    command: list[str],
    settings: Settings,
    writable: list[Path],
    user: str,
    memory: str,
    drain: float,
    variables: dict[str, str],
    unit: list[str],
    more: Iterable[str] = (),
) -> str:
    import mlops_nb

    library, folder = str(Path(mlops_nb.__file__).parents[1]), settings.endpoints / name
    lines = [
        "Type=exec",
        f"ExecStart={' '.join(_word(word).replace('$', '$$') for word in command)}",
        *more,
        f"User={user or getpass.getuser()}",
        f"Slice={SLICE}",
        f"WorkingDirectory={_percent(folder)}",
        *(f"Environment={_word(f'{k}={v}')}" for k, v in variables.items()),
        f"Environment={_word(f'PYTHONPATH={library}')}",
        *(f"ReadWritePaths={_word(f'-{path}')}" for path in writable),
        "Restart=always",
        "RestartSec=200ms",
        "KillMode=mixed",
        f"TimeoutStopSec={drain + 15:g}",
        "LimitNOFILE=65536",
        *([f"MemoryMax={memory}"] if memory else []),
        "OOMPolicy=continue",
    ]
    head = "\n".join([f"Description={what}", f"PartOf={TARGET}", "StartLimitIntervalSec=0", *unit])
    return f"[Unit]\n{head}\n\n[Service]\n" + "\n".join(lines) + f"\n{HARDENING}\n[Install]\nWantedBy={TARGET}\n"


def _shared() -> dict[str, str]:
    """Write the units that all endpoints of this machine have in common."""
    return {
        TARGET: "[Unit]\nDescription=All endpoints of mlops-nb\n\n[Install]\nWantedBy=multi-user.target\n",
        SLICE: "[Unit]\nDescription=What all endpoints of mlops-nb take together\n\n[Slice]\n",
    }


def _head(wanted: dict[str, Any], kind: str) -> str:
    return comment(
        [
            f"Generated by `mlops-nb generate {kind} {wanted['name']} --env {wanted['environment']}` from revision "
            f"{wanted['revision']} of its",
            "endpoint.json; the next time overwrites it. Changes of yours belong into `systemctl edit`.",
        ]
    )


def unit_name(wanted: dict[str, Any]) -> str:
    """Name the units of an endpoint."""
    return f"mlops-nb-{wanted['environment']}-{wanted['name']}"


def _word(text: str) -> str:
    """Write one word of a setting as systemd reads it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace(INSTANCE, "%i")
    if any(ord(c) < 32 for c in text):
        raise SpecificationError([f"{text!r}: a unit of systemd cannot hold control characters."])
    return f'"{escaped}"' if set(text) & set(" \"'\\;#\t") or not text else escaped


def _percent(path: Path) -> str:
    return str(path).replace("%", "%%")


def write_systemd(
    settings: Settings,
    endpoint: str,
    folder: Path | None = None,  # None: in the state folder
    user: str = "",  # who runs it; empty: whoever acts
    memory: str = "",  # most it may take, e.g. 8G; empty: no limit
) -> list[Path]:  # the files
    """Generate the systemd units of an endpoint with our own front."""
    access.require(settings, "deploy")
    units = host_units(settings, read_endpoint(settings, endpoint), user, memory)
    place = (folder or default_folder(settings, endpoint, "systemd")).resolve()
    (settings.collected / endpoint).mkdir(parents=True, exist_ok=True)  # systemd opens only what is there
    paths = write_folder(place, {name: Generated(text) for name, text in units.items()})
    ledger.log(settings, "generate", f"endpoint:{settings.environment}.{endpoint}", kind="systemd", folder=str(place))
    return paths
