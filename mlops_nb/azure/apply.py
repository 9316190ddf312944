"""Create or update on Azure ML what specification files describe: assets, endpoints, deployments, schedules, monitors."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_nb.azure.check import load_files, schema_of, specifications
from mlops_nb.azure.code import staged
from mlops_nb.azure.repair import own_components, prepare, repaired
from mlops_nb.azure.submit import components_of, image_of, make_ready
from mlops_nb.azure.workspace import explained, silent
from mlops_nb.core.access import require
from mlops_nb.core.ledger import log
from mlops_nb.core.records import SpecificationError
from mlops_nb.core.settings import Settings
from mlops_nb.core.specification import read_yaml

if TYPE_CHECKING:
    from azure.ai.ml import MLClient


@dataclass(frozen=True)
class Applied:
    """Something that Azure ML now has as its file says."""

    path: Path
    kind: str  # of `KINDS`
    name: str
    version: str  # of an asset; endpoints and schedules have none
    id: str  # Azure's address of it
    left_out: tuple[str, ...] = ()  # signals of a monitor that only this workbench computes

    def uri(self, environment: str) -> str:
        """Address in the ledger: `model:dev.diamonds/3`."""
        name = self.name if self.name.startswith(f"{environment}.") else f"{environment}.{self.name}"
        return f"{self.kind.replace('_', '-')}:{name}" + (f"/{self.version}" if self.version else "")


@dataclass(frozen=True)
class _Kind:
    operations: str  # the client's attribute
    begins: bool  # whether Azure ML answers before it is done
    right: str  # the action of environments/access that applying it is


# In an order in which they can be applied: what others refer to comes first.
KINDS = {
    "compute": _Kind("compute", True, "train"),
    "environment": _Kind("environments", False, "train"),
    "data": _Kind("data", False, "train"),
    "model": _Kind("models", False, "register"),
    "component": _Kind("components", False, "train"),
    "online_endpoint": _Kind("online_endpoints", True, "deploy"),
    "online_deployment": _Kind("online_deployments", True, "deploy"),
    "batch_endpoint": _Kind("batch_endpoints", True, "deploy"),
    "batch_deployment": _Kind("batch_deployments", True, "deploy"),
    "schedule": _Kind("schedules", True, "train"),
    "monitor": _Kind("schedules", True, "monitor"),
}
REGISTRY_KINDS = ("environment", "data", "model", "component")
_SCHEMAS = {
    "amlCompute": "compute",
    "computeInstance": "compute",
    "environment": "environment",
    "data": "data",
    "model": "model",
    "commandComponent": "component",
    "pipelineComponent": "component",
    "parallelComponent": "component",
    "managedOnlineEndpoint": "online_endpoint",
    "kubernetesOnlineEndpoint": "online_endpoint",
    "managedOnlineDeployment": "online_deployment",
    "kubernetesOnlineDeployment": "online_deployment",
    "batchEndpoint": "batch_endpoint",
    "modelBatchDeployment": "batch_deployment",
    "pipelineComponentBatchDeployment": "batch_deployment",
}


def kind_of(path: Path) -> str:
    """Return the kind of what a file describes; empty for what is not applied: jobs, workspaces, files without `$schema`."""
    schema = schema_of(path)
    if schema.lower() in ("schedule", "monitorschedule"):
        return "monitor" if "create_monitor" in read_yaml(path)[0] else "schedule"
    return _SCHEMAS.get(schema, "")


def project_files(
    settings: Settings,
    kinds: Iterable[str],  # of `KINDS`
) -> list[Path]:
    """List the project's files of some kinds: those of this environment and those that all environments share."""
    wanted = list(kinds)
    if unknown := [f"'{kind}' is no kind that can be applied (kinds: {', '.join(KINDS)})." for kind in wanted if kind not in KINDS]:
        raise SpecificationError(unknown)
    room = settings.root / "environments"
    others = {path.parent for path in room.glob("*/workspace.yml")} - {room / settings.environment}
    return [p for p in specifications(settings.root) if kind_of(p) in wanted and not others.intersection(p.parents)]


def apply(
    settings: Settings,
    client: "MLClient",  # of the workspace, or of a registry
    files: Iterable[Path],
    progress: Callable[[Applied], None] = lambda applied: None,
) -> list[Applied]:
    """Create or update what the files describe, what others refer to first.

    Every file is loaded before anything is sent; raises `SpecificationError` with every fault.
    """
    kinds = {Path(path): kind_of(Path(path)) for path in files}
    if faults := [problem for path, kind in kinds.items() if (problem := _problem(path, kind, client))]:
        raise SpecificationError(faults)
    for right in sorted({KINDS[kind].right for kind in kinds.values()}):
        require(settings, right)
    loaded = load_files(kinds)
    order = list(KINDS)
    done = []
    for path in sorted(kinds, key=lambda path: (order.index(kinds[path]), str(path))):
        done.append(_send(settings, client, path, kinds[path], loaded[path]))
        progress(done[-1])
    return done


def _problem(path: Path, kind: str, client: "MLClient") -> str:
    if not kind:
        schema = schema_of(path)
        hint = "A pipeline job is sent with `mlops-nb azure submit`." if schema.endswith("Job") else f"Kinds: {', '.join(KINDS)}."
        return f"{path}: $schema '{schema}' is nothing that can be applied. {hint}"
    if client.workspace_name is None and kind not in REGISTRY_KINDS:
        return f"{path}: a registry has no {kind.replace('_', ' ')}s; it holds {', '.join(REGISTRY_KINDS)}."
    return ""


def _send(settings: Settings, client: "MLClient", path: Path, kind: str, entity: Any) -> Applied:
    operations = getattr(client, KINDS[kind].operations)
    left_out: tuple[str, ...] = ()
    components = [entity] if kind == "component" else []
    if kind == "schedule" and hasattr(entity.create_job, "jobs"):
        make_ready(settings, entity.create_job)
        components = components_of(entity.create_job)
    elif kind == "component" and client.workspace_name is None:
        _qualify(settings, client, path, entity)
    elif kind == "monitor":
        left_out = _repair(client, path, entity)
    elif kind == "online_endpoint" and not entity.traffic:
        _keep_traffic(client, entity)
    with explained(f"apply {path}"), staged(settings, components), silent():
        begins = KINDS[kind].begins
        there = operations.begin_create_or_update(entity).result() if begins else operations.create_or_update(entity)
    there = there or entity  # some services answer with nothing
    applied = Applied(path, kind, str(there.name), str(getattr(there, "version", None) or ""), str(there.id or ""), left_out)
    about: dict[str, Any] = {"file": str(path), "id": applied.id} | ({"left_out": list(left_out)} if left_out else {})
    log(settings, "apply", applied.uri(settings.environment), **about)
    return applied


def _qualify(settings: Settings, client: "MLClient", path: Path, component: Any) -> None:
    """Write a component's image in full: a registry knows no short names."""
    name, version, _ = image_of(settings.root, str(read_yaml(path)[0].get("environment", "")))
    if name:
        registry = client._operation_scope.registry_name
        component.environment = f"azureml://registries/{registry}/environments/{name}/versions/{version}"


def _keep_traffic(client: "MLClient", entity: Any) -> None:
    """Leave the traffic of a live endpoint as it is when its file says nothing of it: Azure ML would take all of it away."""
    from mlops_nb.azure.deploy import keep_traffic
    from mlops_nb.azure.workspace import find

    keep_traffic(entity, find(client.online_endpoints.get, entity.name))


def _repair(client: "MLClient", path: Path, entity: Any) -> tuple[str, ...]:  # the signals that are left out
    """Have the monitor's REST body repaired when azure-ai-ml asks for it, which is after it has resolved the addresses."""
    from mlops_nb.azure.workspace import find

    original, content = entity._to_rest_object, read_yaml(path)[0]
    own = own_components(content)
    left_out = tuple(name for name, component in own.items() if find(client.components.get, *component) is None)
    if own and len(left_out) == len(content["create_monitor"]["monitoring_signals"]):
        raise SpecificationError([f"{path}: every signal is one that only `mlops-nb monitor` computes ({', '.join(left_out)})."])
    prepare(entity, content, path.parent, left_out)
    scope = (
        f"/subscriptions/{client.subscription_id}/resourceGroups/{client.resource_group_name}/providers/"
        f"Microsoft.MachineLearningServices/workspaces/{client.workspace_name}"
    )
    entity._to_rest_object = lambda: repaired(original().as_dict(exclude_readonly=True), content, scope, path.parent)
    return left_out
