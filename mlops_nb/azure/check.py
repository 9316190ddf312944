"""Load specification files as Azure ML would, offline."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mlops_nb.core.records import SpecificationError
from mlops_nb.core.specification import read_yaml

# The last part of a file's `$schema`, and what azure-ai-ml calls its loader.
LOADERS = {
    "pipelineJob": "load_job",
    "commandJob": "load_job",
    "sweepJob": "load_job",
    "commandComponent": "load_component",
    "pipelineComponent": "load_component",
    "parallelComponent": "load_component",
    "environment": "load_environment",
    "data": "load_data",
    "model": "load_model",
    "managedOnlineEndpoint": "load_online_endpoint",
    "kubernetesOnlineEndpoint": "load_online_endpoint",
    "managedOnlineDeployment": "load_online_deployment",
    "kubernetesOnlineDeployment": "load_online_deployment",
    "batchEndpoint": "load_batch_endpoint",
    "modelBatchDeployment": "load_model_batch_deployment",
    "pipelineComponentBatchDeployment": "load_pipeline_component_batch_deployment",
    "Schedule": "load_schedule",
    "schedule": "load_schedule",
    "monitorSchedule": "load_schedule",
    "workspace": "load_workspace",
    "amlCompute": "load_compute",
    "computeInstance": "load_compute",
}


def check(
    files: Path | Iterable[Path],  # YAML files, or a project whose ci/ and environments/ are gone through
) -> dict[Path, str]:  # file -> the class that azure-ai-ml makes of it
    """Load specification files with azure-ai-ml, offline; raises `SpecificationError` listing every one that it refuses.

    In a project, files without `$schema` (conda files, CI definitions) are passed over.
    """
    found = specifications(files) if isinstance(files, Path) else files
    return {path: type(loaded).__name__ for path, loaded in load_files(found).items()}


def load_files(paths: Iterable[Path]) -> dict[Path, Any]:
    """Load files by their `$schema`; raises `SpecificationError` with every fault."""
    quiet()
    loaded, faults = {}, []
    for path in paths:
        try:
            loaded[path] = _load(path)
        except SpecificationError as problem:
            faults += problem.faults
    if faults:
        raise SpecificationError(faults)
    return loaded


def _load(path: Path) -> Any:
    loader = LOADERS.get(kind := schema_of(path))
    if loader is None:
        raise SpecificationError([f"{path}: no loader for $schema '{kind}' (known: {', '.join(LOADERS)})."])
    try:
        return _loader(loader)(source=str(path))
    except Exception as problem:  # azure-ai-ml raises many kinds; the cause of some is only in the context
        cause = str(problem) or repr(problem.__context__)
        raise SpecificationError([f"{path}: azure-ai-ml refuses it: {cause}"]) from None


def schema_of(path: Path) -> str:
    """Return the last part of a file's `$schema`; empty if it has none."""
    return str(read_yaml(path)[0].get("$schema", "")).rpartition("/")[2].partition(".")[0]


def specifications(root: Path) -> list[Path]:
    """List the files with a `$schema` under a project's ci/ and environments/."""
    found = sorted(path for room in ("ci", "environments") for path in (root / room).rglob("*.yml"))
    return [path for path in found if schema_of(path)]


def quiet() -> None:
    """Keep azure-ai-ml from announcing every class that it calls experimental, and every field that it does not know."""
    for name in ("azure.ai.ml._utils._experimental", "azure.ai.ml", "msrest"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _loader(name: str) -> Callable[..., Any]:
    from azure.ai.ml.entities import _load_functions  # some loaders are not exported at the top

    return getattr(_load_functions, name)
