"""Deploy a model on Azure ML from the environment's own endpoint.yml and deployment.yml; shift its traffic, open it, ask it.

The functions have the names and meanings of those for an endpoint on this machine (`mlops_nb.outer_loop.online`, `traffic` and
`credentials`). An endpoint that is there keeps the traffic it has, whatever its file says or leaves out.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlops_nb.azure.check import load_files
from mlops_nb.azure.workspace import connect, explained, find, silent
from mlops_nb.core.access import require
from mlops_nb.core.ledger import entries, log
from mlops_nb.core.records import Deployment, ModelVersion, SpecificationError, StepFailed
from mlops_nb.core.settings import Settings

if TYPE_CHECKING:
    import pandas
    from azure.ai.ml import MLClient
    from azure.ai.ml.entities import OnlineEndpoint

_COLOURS = ("blue", "green")
_LOG_LINES = 50  # of a deployment that did not start


def deploy(
    settings: Settings,
    model: ModelVersion | str,  # registered; or as `mlops_nb.outer_loop.models.find_model` takes it, or azureml:NAME:VERSION
    endpoint: str = "",  # empty: as the endpoint's file says
    deployment: str = "",  # empty: blue or green, whichever has no traffic
    traffic: int | None = None,  # per cent of the requests that it gets; None: 0, or 100 as the very first one
    progress: Callable[[str], None] = lambda text: None,
    *,
    file: Path | str = "",  # deployment file; empty: the environment's
    client: "MLClient | None" = None,  # None: that of the environment's workspace
) -> Deployment:
    """Create or update a deployment beside the live one; raises `StepFailed` with its log when it does not start."""
    require(settings, "deploy")
    room = settings.root / "environments" / settings.environment
    paths = room / "endpoint.yml", Path(file).expanduser() if file else room / "deployment.yml"
    loaded = load_files(paths)
    door, made = (loaded[path] for path in paths)
    client = client or connect(settings)
    door.name = made.endpoint_name = endpoint or door.name
    progress(f"looking for {model if isinstance(model, str) else model.uri} on Azure ML")
    made.model = address = provide_model(settings, client, model, door.name)
    there = find(client.online_endpoints.get, door.name)
    made.name = deployment or _choose(there, made.model)
    _check_free(client, there, made)
    wanted_mirror = dict(door.mirror_traffic or {})
    progress(f"{'updating' if there else 'creating'} endpoint {door.name}")
    with explained(f"deploy endpoint {door.name}"), silent():
        there = client.online_endpoints.begin_create_or_update(keep_traffic(door, there)).result() or door
    progress(f"starting {made.name} of {door.name}: Azure ML takes some minutes")
    _start(client, made)
    uri = f"model:{address.removeprefix('azureml:').replace(':', '/')}"
    now = _first_traffic(settings, client, door.name, made.name, traffic, wanted_mirror, progress)
    done = Deployment(door.name, made.name, uri, settings.environment, now.get(made.name, 0))
    log(settings, "deploy", done.uri, [uri], [done.uri], traffic=now, backend="azure")
    return done


def provide_model(settings: Settings, client: "MLClient", model: ModelVersion | str, name: str = "") -> str:
    """Return a model's address on Azure ML, `azureml:NAME:VERSION`; one that only MLflow's registry here has is uploaded first."""
    if isinstance(model, str):
        plain = model.removeprefix("azureml:")
        if "://" not in plain and not plain.startswith(("runs:/", "models:/")) and not Path(plain).expanduser().is_dir():
            named, _, version = plain.replace("/", ":").partition(":")
            label = {"version": version} if version and version != "latest" else {"label": "latest"}
            if "@" not in plain and (found := find(client.models.get, named, **label)):
                return f"azureml:{found.name}:{found.version}"
        from mlops_nb.outer_loop.models import find_model

        try:
            model = find_model(settings, plain, name, script=True)
        except LookupError as problem:
            raise SpecificationError([f"Neither Azure ML nor MLflow here has it: {problem}"]) from None
    address = f"azureml:{model.name}:{model.version}"
    if find(client.models.get, model.name, version=str(model.version)):
        return address
    require(settings, "register")
    from azure.ai.ml.entities import Model

    from mlops_nb.outer_loop.models import model_folder

    folder = model_folder(settings, model, script=True)
    kind = "mlflow_model" if (Path(folder) / "MLmodel").is_file() else "custom_model"
    given = Model(name=model.name, version=str(model.version), path=folder, type=kind, tags={"task": model.task} if model.task else {})
    with explained(f"register {model.uri} on Azure ML"), silent():
        there = client.models.create_or_update(given)
    log(settings, "apply", model.uri, [model.uri], [str(there.id)], backend="azure")
    return address


def keep_traffic(wanted: "OnlineEndpoint", there: "OnlineEndpoint | None") -> "OnlineEndpoint":
    """Give an endpoint that is sent the traffic of the one that is there: to send it without any would take it off the air."""
    wanted.traffic = _shares(there.traffic) if there else {}  # a new one has no deployment yet
    wanted.mirror_traffic = _shares(there.mirror_traffic) if there else {}
    return wanted


def _shares(traffic: dict[str, Any] | None) -> dict[str, int]:
    return {name: int(share) for name, share in (traffic or {}).items() if int(share or 0)}


def _choose(there: "OnlineEndpoint | None", model: str) -> str:
    busy = {**_shares(there.traffic), **_shares(there.mirror_traffic)} if there else {}
    idle = [colour for colour in _COLOURS if colour not in busy]
    if not idle:
        shares = ", ".join(f"{name} {share} %" for name, share in busy.items())
        raise ValueError(f"Blue and green both have traffic ({shares}), so {model} has no place. Shift all of it to one of them first.")
    return idle[0]


def _check_free(client: "MLClient", there: "OnlineEndpoint | None", made: Any) -> None:
    """Refuse to change the model of a deployment that answers requests."""
    share = _shares(there.traffic).get(made.name, 0) if there else 0
    live = find(client.online_deployments.get, made.name, made.endpoint_name) if share else None
    if live is not None and not _is_model(str(live.model), made.model):
        raise ValueError(f"{made.name} of {made.endpoint_name} has {share} % of the traffic. Deploy to another name, then shift it.")


def _is_model(address: str, model: str) -> bool:
    """Whether Azure's long address of a model, or the short one, is that of `azureml:NAME:VERSION`."""
    name, _, version = model.removeprefix("azureml:").partition(":")
    return address == model or address.lower().endswith(f"/models/{name}/versions/{version}".lower())


def _start(client: "MLClient", made: Any) -> None:
    from azure.core.exceptions import AzureError

    model = made.model  # which the SDK changes to Azure's long address
    with explained(f"deploy {made.name} of {made.endpoint_name}"), silent():
        poller = client.online_deployments.begin_create_or_update(made)
    try:
        with silent():
            poller.result()
    except AzureError as problem:
        try:
            told = str(client.online_deployments.get_logs(made.name, made.endpoint_name, lines=_LOG_LINES))
        except Exception:  # the log only helps; the deployment's own fault is what counts
            told = ""
        first = str(problem).partition("\n")[0]
        raise StepFailed(f"{made.name} of {made.endpoint_name} with {model} did not start: {first}\n{told}".rstrip()) from None


def _first_traffic(settings: Settings, client: "MLClient", endpoint: str, deployment: str, share: int | None, mirror: dict[str, int],
                   progress: Callable[[str], None]) -> dict[str, int]:
    """Give a new deployment its share, or the copies that the endpoint's file has for it; returns the traffic as it is now."""
    from mlops_nb.outer_loop.traffic import share_out

    before = _shares(client.online_endpoints.get(endpoint).traffic)
    if share is None and not before:
        share = 100
    if share is not None and share != before.get(deployment, 0):
        progress(f"giving {deployment} of {endpoint} {share} % of the traffic")
        return shift_traffic(settings, endpoint, share_out(before, deployment, share), client=client)
    if (copies := mirror.get(deployment)) and not before.get(deployment):
        set_mirror(settings, endpoint, {deployment: int(copies)}, client=client)
    return before


# --- traffic ---------------------------------------------------------------------------------------------------------


def shift_traffic(
    settings: Settings,
    endpoint: str,
    traffic: dict[str, int],  # deployment -> per cent; the sum is 0 or 100
    *,
    client: "MLClient | None" = None,
) -> dict[str, int]:  # as it is now
    """Give each deployment its share; raises `ValueError` for shares that cannot be."""
    if sum(traffic.values()) not in (0, 100) or min(traffic.values(), default=0) < 0:
        raise ValueError(f"The shares of {endpoint} must add up to 0 or 100, none below 0 (given: {traffic}).")
    return _update(settings, client, endpoint, "shift_traffic", traffic=traffic)


def set_mirror(
    settings: Settings,
    endpoint: str,
    traffic: dict[str, int],  # one deployment -> 0 to 50 per cent of the requests, copied to it
    *,
    client: "MLClient | None" = None,
) -> dict[str, int]:  # as it is now
    """Send copies of requests to a deployment whose answers nobody gets; raises `ValueError` for shares that cannot be."""
    if len(traffic) > 1 or not all(0 <= share <= 50 for share in traffic.values()):
        raise ValueError(f"One deployment of {endpoint} can have copies of 0 to 50 % of the requests (given: {traffic}).")
    return _update(settings, client, endpoint, "set_mirror", mirror=traffic)


def roll_back(
    settings: Settings,
    endpoint: str,
    reason: str = "",  # for the ledger
    *,
    client: "MLClient | None" = None,
) -> dict[str, int]:  # the traffic as it is now
    """Return to the traffic before the last shift that the ledger knows; raises `ValueError` when there was none."""
    shifts = [entry for entry in entries(settings, subject=f"endpoint:{settings.environment}.{endpoint}", action="shift_traffic")
              if entry.details.get("backend") == "azure" and any(entry.details["before"].values())]
    if not shifts:
        raise ValueError(f"The ledger knows no earlier traffic of {endpoint}: nothing to go back to.")
    return _update(settings, client, endpoint, "roll_back", traffic=shifts[-1].details["before"], reason=reason)


def _update(settings: Settings, client: "MLClient | None", endpoint: str, action: str, traffic: dict[str, int] | None = None,
            mirror: dict[str, int] | None = None, reason: str = "") -> dict[str, int]:
    require(settings, "deploy")
    client = client or connect(settings)
    there = _endpoint(settings, client, endpoint)
    known = sorted({*there.traffic, *there.mirror_traffic})
    if unknown := [name for name in traffic or mirror or {} if name not in known]:
        raise ValueError(f"No deployment {', '.join(unknown)} in {endpoint} (there are: {', '.join(known) or 'none'}).")
    before = {"traffic": _shares(there.traffic), "mirror": _shares(there.mirror_traffic)}
    keep_traffic(there, there)
    if traffic is not None:
        there.traffic = _shares(traffic)  # who has some of it is no shadow any more
        there.mirror_traffic = {name: share for name, share in there.mirror_traffic.items() if name not in there.traffic}
    if mirror is not None:
        if busy := [name for name, share in mirror.items() if share and name in there.traffic]:
            raise ValueError(f"{busy[0]} of {endpoint} has {there.traffic[busy[0]]} % of the traffic: it cannot be a shadow as well.")
        there.mirror_traffic = _shares(mirror)
    with explained(f"set the traffic of {endpoint}"), silent():
        client.online_endpoints.begin_create_or_update(there).result()
    after = _shares(there.mirror_traffic if mirror is not None else there.traffic)
    which = before["mirror" if mirror is not None else "traffic"]
    uris = [Deployment(endpoint, name, "", settings.environment).uri for name in after]
    more = {"reason": reason} if reason else {}
    log(settings, action, f"endpoint:{settings.environment}.{endpoint}", [], uris, before=which, after=after, backend="azure", **more)
    return after


def _endpoint(settings: Settings, client: "MLClient", endpoint: str) -> "OnlineEndpoint":
    with explained(f"look up endpoint {endpoint}"):
        found = find(client.online_endpoints.get, endpoint)
    if found is None:
        raise LookupError(f"No endpoint '{endpoint}' in {client.workspace_name}. Deploy a model to it first.")
    return found


# --- opening and asking ----------------------------------------------------------------------------------------------


def keys(settings: Settings, endpoint: str, *, client: "MLClient | None" = None) -> dict[str, str]:
    """Read what opens an endpoint: `primary` and `secondary`, or `token` where its auth_mode is no key."""
    client = client or connect(settings)
    _endpoint(settings, client, endpoint)
    with explained(f"read the keys of {endpoint}"):
        found = client.online_endpoints.get_keys(endpoint)
    if hasattr(found, "primary_key"):
        return {"primary": found.primary_key, "secondary": found.secondary_key}
    return {"token": found.access_token}


def regenerate(
    settings: Settings,
    endpoint: str,
    which: Literal["primary", "secondary"],
    *,
    client: "MLClient | None" = None,
) -> str:  # the new key
    """Replace one key; the other one goes on being good."""
    require(settings, "deploy")
    client = client or connect(settings)
    _endpoint(settings, client, endpoint)
    with explained(f"replace the {which} key of {endpoint}"), silent():
        client.online_endpoints.begin_regenerate_keys(endpoint, key_type=which).result()
    log(settings, "regenerate", f"endpoint:{settings.environment}.{endpoint}", key=which, backend="azure")
    return keys(settings, endpoint, client=client)[which]


def invoke(
    settings: Settings,
    endpoint: str,
    payload: "dict[str, Any] | pandas.DataFrame",  # a request as Azure or MLflow write it, or the rows themselves
    deployment: str = "",  # empty: as the traffic goes
    request_id: str = "",  # becomes the collected rows' correlation id; empty: a new one
    timeout: float = 200.0,  # seconds
    *,
    client: "MLClient | None" = None,
) -> Any:  # the predictions
    """Send one request; raises `ValueError` for one that cannot be scored, `StepFailed` when the endpoint failed with it."""
    import requests

    client = client or connect(settings)
    address = str(_endpoint(settings, client, endpoint).scoring_uri)
    opened = keys(settings, endpoint, client=client)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {opened.get('primary') or opened.get('token')}"}
    headers |= {"azureml-model-deployment": deployment} if deployment else {}
    headers |= {"x-request-id": request_id} if request_id else {}
    if hasattr(payload, "to_json"):
        payload = {"input_data": json.loads(payload.to_json(orient="split"))}
    answer = requests.post(address, json=payload, headers=headers, timeout=timeout)
    if answer.status_code == 200:
        return answer.json()
    told = f"{address} answered {answer.status_code}: {answer.headers.get('ms-azureml-model-error-reason') or answer.text[:500]}"
    if answer.status_code in (400, 413, 415):
        raise ValueError(told)
    raise StepFailed(told)


def endpoint_status(settings: Settings, endpoint: str = "", *, client: "MLClient | None" = None) -> list[dict[str, Any]]:
    """Say how every deployment is: model, state, traffic, address; what Azure Monitor counts is not read here."""
    client = client or connect(settings)
    with explained("list the endpoints"):
        names = [endpoint] if endpoint else [str(one.name) for one in client.online_endpoints.list()]
        found = []
        for there in (_endpoint(settings, client, name) for name in names):
            for one in client.online_deployments.list(there.name):
                model = str(one.model).removeprefix("azureml:").rpartition("/models/")[2].replace("/versions/", "/").replace(":", "/")
                found.append({
                    "endpoint": there.name, "deployment": one.name, "model": f"model:{model}",
                    "state": {"Succeeded": "ready", "Failed": "failed"}.get(one.provisioning_state, one.provisioning_state),
                    "traffic": int(there.traffic.get(one.name, 0)), "mirror": int(there.mirror_traffic.get(one.name, 0)),
                    "requests": {}, "p50_ms": None, "p95_ms": None, "restarts": 0, "instances": [],
                    "address": there.scoring_uri, "pid": 0, "error": ""})
    return found


def logs(settings: Settings, endpoint: str, deployment: str, lines: int = 100, *, client: "MLClient | None" = None) -> str:
    """Return the end of what a deployment's container has written."""
    client = client or connect(settings)
    with explained(f"read the log of {deployment} of {endpoint}"):
        return str(client.online_deployments.get_logs(deployment, endpoint, lines=lines))


def remove(settings: Settings, endpoint: str, deployment: str = "", *, client: "MLClient | None" = None) -> None:
    """Remove a deployment that has no traffic, or a whole endpoint; collected data stay."""
    require(settings, "deploy")
    client = client or connect(settings)
    there = _endpoint(settings, client, endpoint)
    if deployment and (share := _shares(there.traffic).get(deployment)):
        raise ValueError(f"{deployment} of {endpoint} has {share} % of the traffic. Shift it to another one first.")
    subject = f"endpoint:{settings.environment}.{endpoint}"
    if deployment:
        subject = Deployment(endpoint, deployment, "", settings.environment).uri
    with explained(f"remove {subject}"), silent():
        if deployment:
            client.online_deployments.begin_delete(deployment, endpoint).result()
        else:
            client.online_endpoints.begin_delete(endpoint).result()
    log(settings, "remove", subject, backend="azure")
