"""Send a scenario's pipeline to Azure ML: the file as it is, with this run's values."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_nb.azure.check import load_files
from mlops_nb.azure.code import staged
from mlops_nb.azure.workspace import Workspace, explained, find, find_workspace, silent
from mlops_nb.core.access import require
from mlops_nb.core.files import write_file
from mlops_nb.core.ledger import log
from mlops_nb.core.plan import check_values
from mlops_nb.core.records import SpecificationError, now
from mlops_nb.core.runs import Run, load_run
from mlops_nb.core.settings import Settings
from mlops_nb.core.specification import Pipeline, bound_inputs, read_yaml

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.ai.ml.entities import PipelineJob

STEP_TAG = "mlops_nb.step"  # on a step's own job
RUN_TAGS = ("scenario", "environment", "user", "persona")  # on the pipeline's job, each behind `mlops_nb.`
_DATA = ("uri_file", "uri_folder", "mltable")
_NUMBERS = {"integer": int, "number": float}


@dataclass(frozen=True)
class Submission:
    """What would be sent: everything that it needs is there, or is going to be registered first."""

    name: str  # of the run here and of the job there
    workspace: Workspace
    pipeline: Pipeline
    values: dict[str, Any]
    job: "PipelineJob"
    images: tuple[Path, ...]  # files of the images that are not registered yet


def prepare(
    settings: Settings,
    client: "MLClient",
    pipeline: Pipeline,
    values: dict[str, Any] | None = None,  # of the pipeline's inputs
) -> Submission:
    """Load a pipeline's job with this run's values and look what is missing; nothing is sent.

    Raises `SpecificationError` with everything that is wrong or missing: inputs, workspace, compute, images.
    """
    values = values or {}
    check_values(pipeline, values)
    name = _new_name(pipeline.name)
    job = make_job(settings, pipeline, values, name)
    faults, images = _look(settings, client, pipeline)
    if faults:
        raise SpecificationError(faults)
    return Submission(name, find_workspace(settings), pipeline, values, job, tuple(images))


def submit(
    settings: Settings,
    client: "MLClient",
    pipeline: Pipeline,
    values: dict[str, Any] | None = None,  # of the pipeline's inputs
) -> Run:
    """Register what a pipeline's job needs, send the job, and keep it as a run; raises as `prepare` does."""
    require(settings, "train")
    plan = prepare(settings, client, pipeline, values)
    for path in plan.images:
        with explained(f"register {path}"), silent():
            client.environments.create_or_update(load_files([path])[path])
    with explained(f"submit {pipeline.name}"), staged(settings, components_of(plan.job)), silent():
        sent = client.jobs.create_or_update(plan.job)
    needs = {step.name: list(step.needs) for step in pipeline.steps}
    run = keep_run(settings, plan.workspace, sent, plan.values, needs)
    details = {"workspace": plan.workspace.uri, "values": plan.values, "images": [str(path) for path in plan.images]}
    log(settings, "submit", f"run:{run.id}", **details)
    return run


def components_of(job: Any) -> list[Any]:
    """List the components of a pipeline job's steps; of a sweep, that of its trials."""
    return [getattr(node, "trial", None) or node.component for node in job.jobs.values()]


def _new_name(scenario: str) -> str:
    """Name a run as the local engine does: by its start, its scenario, and four digits that tell it from others."""
    return f"{now()[:23].translate(dict.fromkeys(map(ord, ':-.')))}-{scenario}-{os.urandom(2).hex()}"


def make_job(settings: Settings, pipeline: Pipeline, values: dict[str, Any], name: str) -> "PipelineJob":
    """Load a pipeline's job with azure-ai-ml, give it the run's name and values, and make it ready to send."""
    from azure.ai.ml import load_job

    inputs = {key: _input(pipeline, key, value) for key, value in (pipeline.inputs | values).items() if value not in (None, "")}
    changed = {key: value for key, value in inputs.items() if key in values or isinstance(value, dict)}
    override: list[dict[str, Any]] = [{"name": name}, *({f"inputs.{key}": value} for key, value in changed.items())]
    with explained(f"load {pipeline.path}"):
        job: Any = load_job(source=str(pipeline.path), params_override=override)
    for key in pipeline.inputs.keys() - inputs.keys():
        del job.inputs[key]
    job.tags = (job.tags or {}) | {f"mlops_nb.{key}": value for key, value in _about(settings, pipeline.name).items()}
    make_ready(settings, job)
    return job


def _about(settings: Settings, scenario: str) -> dict[str, str]:
    values = (scenario, settings.environment, settings.user, settings.persona)
    return dict(zip(RUN_TAGS, values, strict=True))


def make_ready(settings: Settings, job: Any) -> None:
    """Prepare a loaded pipeline job for Azure ML, which knows no empty values and names the steps' jobs by itself.

    azure-ai-ml leaves an empty input out of the job, but leaves the steps bound to it, which the service then refuses; so
    they are unbound, and the notebook's own default stands, as it does here.
    """
    given = {f"${{{{parent.inputs.{name}}}}}" for name, value in job.inputs.items() if value._data not in (None, "")}
    for step, node in job.jobs.items():
        for port, value in list(node.inputs.items()):
            binding = str(value._data)
            if binding.startswith("${{parent.inputs.") and binding not in given:
                del node.inputs[port]
        node.display_name = node.display_name or step
        node.tags = (node.tags or {}) | {STEP_TAG: step}
        if hasattr(node, "environment_variables"):
            node.environment_variables = _variables(settings) | (node.environment_variables or {})


def _variables(settings: Settings) -> dict[str, str]:
    """Tell the notebooks there who acts where; nothing that differs from run to run, or Azure ML could reuse no step."""
    told = {f"MLOPS_NB_{name.upper()}": str(getattr(settings, name)) for name in ("environment", "user", "persona")}
    told |= {"MLOPS_NB_TRACKING_URI": settings.tracking_uri} if settings.tracking_uri else {}
    return told | {"MLFLOW_DISABLE_TELEMETRY": "true"}


def _input(pipeline: Pipeline, name: str, value: Any) -> Any:
    """Write a value as Azure ML wants it: a number as a number, data as its type and its path."""
    kinds = {
        str(step.component.inputs[port].get("type", "string"))
        for step in pipeline.steps
        for port, bound in step.inputs.items()
        if name in bound_inputs(step) and str(bound) == f"${{{{parent.inputs.{name}}}}}"
    }
    if data := kinds.intersection(_DATA):
        local = Path(str(value)).expanduser()
        return {"type": min(data), "path": str(local.resolve()) if local.exists() else str(value)}
    if len(kinds) == 1 and (number := _NUMBERS.get(min(kinds))):
        return number(value)
    return value


def _look(settings: Settings, client: "MLClient", pipeline: Pipeline) -> tuple[list[str], list[Path]]:
    """Look for the workspace, the computes and the images: the faults, and the files of images to register."""
    workspace, where = find_workspace(settings), settings.root / "environments" / settings.environment
    with explained(f"look at workspace {workspace.name}"):
        if find(client.workspaces.get, workspace.name) is None:
            return [
                f"No workspace '{workspace.name}' in resource group '{workspace.resource_group}' of subscription "
                f"{workspace.subscription}. Correct {where / 'workspace.yml'}, or create it: az ml workspace create "
                f"--file {where / 'workspace.yml'} --resource-group {workspace.resource_group}"
            ], []
        faults = [
            f"{pipeline.path}: no compute '{name}' in workspace '{workspace.name}'. Write one that is there, or create it: "
            f"mlops-nb azure apply {where / 'compute.yml'} --env {settings.environment}"
            for name in sorted(set(_computes(pipeline.path)))
            if find(client.compute.get, name) is None
        ]
        images = []
        for address in dict.fromkeys(step.component.environment for step in pipeline.steps):
            image, problem = _missing_image(client, settings.root, address)
            faults += [problem] if problem else []
            images += [image] if image else []
    return faults, images


def _computes(path: Path) -> Iterator[str]:
    """Name the computes that a pipeline file asks for; serverless ones need not be there."""
    content, _ = read_yaml(path)
    asked = [content.get("compute"), (content.get("settings") or {}).get("default_compute")]
    asked += [job.get("compute") for job in content["jobs"].values()]
    for name in asked:
        if name and name != "serverless" and not str(name).startswith(("azureml:serverless", "/", "azureml:/")):
            yield str(name).removeprefix("azureml:")


def _missing_image(client: "MLClient", root: Path, address: str) -> tuple[Path | None, str]:
    """Return the file of an image that is to be registered first, and what is wrong if there is none."""
    name, version, path = image_of(root, address)
    if path and not version:
        return None, f"{path}: no `version:`. Without one, Azure ML would register it anew at every run."
    if not name or find(client.environments.get, name, version=version) is not None:
        return None, ""
    if path is None:
        return None, f"No environment '{name}:{version}', neither registered nor in {root / 'environments' / 'images'}."
    return path, ""


def image_of(root: Path, address: str) -> tuple[str, str, Path | None]:
    """Return an image's name, its version and its file; no name for Azure's own images and for full addresses.

    `@latest` is the version that the file says: the newest one here is the one to be registered.
    """
    if not address.startswith("azureml:") or address.startswith(("azureml://", "azureml:AzureML-", "azureml:/")):
        return "", "", None
    name, _, version = address.removeprefix("azureml:").partition("@")[0].partition(":")
    for path in sorted((root / "environments" / "images").glob("*.yml")):
        content, _ = read_yaml(path)
        mine = str(content.get("version", ""))
        is_image = "image" in content or "build" in content  # not a conda file, which bears the same name
        if is_image and content.get("name") == name and version in ("", mine):
            return name, mine, path
    return name, version, None


def keep_run(
    settings: Settings,
    workspace: Workspace,
    job: Any,  # as Azure ML answered
    values: dict[str, Any],
    needs: dict[str, list[str]],  # every step, in order, and the steps it reads from
) -> Run:
    """Make the run folder of a job that is on Azure ML."""
    about = _about(settings, job.experiment_name) | {
        key: job.tags[f"mlops_nb.{key}"] for key in RUN_TAGS if f"mlops_nb.{key}" in (job.tags or {})
    }
    commit = str(job.properties.get("mlflow.source.git.commit", ""))[:12]
    started = job.creation_context.created_at if job.creation_context else None
    stored = about | {
        "id": job.name,
        "values": values,
        "cwd": str(Path.cwd()),
        "started": started.isoformat() if started else now(),
        "planned": list(needs),
        "needs": needs,
        "code": commit + "+" * (job.properties.get("azureml.git.dirty") == "True") if commit else "",
        "backend": "azure",
    }
    folder = settings.runs / job.name
    studio = job.studio_url or ""
    write_file(folder / "azure.json", json.dumps({"workspace": workspace.uri, "studio": studio}, indent=1))
    write_file(folder / "run.json", json.dumps(stored, indent=1, default=str))
    return load_run(folder)

