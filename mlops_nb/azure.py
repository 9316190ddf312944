"""Azure ML: the only module that imports azure-ai-ml."""

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
    "commandComponent": "load_component",
    "environment": "load_environment",
    "managedOnlineEndpoint": "load_online_endpoint",
    "managedOnlineDeployment": "load_online_deployment",
    "Schedule": "load_schedule",
    "schedule": "load_schedule",
    "monitorSchedule": "load_schedule",
    "workspace": "load_workspace",
    "amlCompute": "load_compute",
}


def check(
    files: Path | Iterable[Path],  # YAML files, or a project whose ci/ and environments/ are gone through
) -> dict[Path, str]:  # file -> the class that azure-ai-ml makes of it
    """Load specification files with azure-ai-ml, offline; raises `SpecificationError` listing every one that it refuses.

    In a project, files without `$schema` (conda files, CI definitions) are passed over.
    """
    logging.getLogger("azure.ai.ml._utils._experimental").setLevel(logging.ERROR)
    named = not isinstance(files, Path)
    found = list(files) if not isinstance(files, Path) else _specifications(files)
    kinds, faults = {}, []
    for path in found:
        schema = read_yaml(path)[0].get("$schema", "")
        loader = LOADERS.get(schema.rpartition("/")[2].partition(".")[0])
        if loader is None:
            if schema or named:
                faults.append(f"{path}: no loader for $schema '{schema}' (known: {', '.join(LOADERS)}).")
            continue
        try:
            kinds[path] = type(_loader(loader)(source=str(path))).__name__
        except Exception as problem:  # azure-ai-ml raises many kinds; the cause of some is only in the context
            cause = str(problem) or repr(problem.__context__)
            faults.append(f"{path}: azure-ai-ml refuses it: {cause}")
    if faults:
        raise SpecificationError(faults)
    return kinds


def _specifications(root: Path) -> list[Path]:
    return sorted(path for room in ("ci", "environments") for path in (root / room).rglob("*.yml"))


def _loader(name: str) -> Callable[..., Any]:
    from azure.ai.ml.entities import _load_functions  # some loaders are not exported at the top

    return getattr(_load_functions, name)
