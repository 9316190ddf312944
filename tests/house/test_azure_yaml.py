"""Azure ML's own SDK reads every specification of this repository: the one language both engines speak."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path for folder in ("ci/pipelines", "ci/components", "environments") for path in (ROOT / folder).rglob("*.y*ml"))
SPECIFICATIONS = [path for path in FILES if "$schema" in path.read_text()]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def load(path: Path) -> Any:
    """Load a specification with the loader of its schema."""
    import azure.ai.ml as sdk
    from azure.ai.ml.entities import _load_functions as more

    kind = re.search(r"\$schema:\s*\S+/(\w+?)(\.schema)?\.json", path.read_text())
    assert kind, f"{name(path)}: $schema is not one of Azure ML's"
    loaders: dict[str, Callable[[Path], Any]] = {
        "pipelineJob": sdk.load_job, "commandJob": sdk.load_job, "commandComponent": sdk.load_component,
        "pipelineComponent": sdk.load_component, "environment": sdk.load_environment, "workspace": sdk.load_workspace,
        "workspaceHub": sdk.load_workspace, "amlCompute": sdk.load_compute, "computeInstance": sdk.load_compute,
        "managedOnlineEndpoint": sdk.load_online_endpoint, "kubernetesOnlineEndpoint": sdk.load_online_endpoint,
        "managedOnlineDeployment": sdk.load_online_deployment, "kubernetesOnlineDeployment": sdk.load_online_deployment,
        "batchEndpoint": sdk.load_batch_endpoint, "modelBatchDeployment": more.load_model_batch_deployment,
        "monitorSchedule": more.load_schedule, "schedule": more.load_schedule, "Schedule": more.load_schedule,
        "data": sdk.load_data, "model": sdk.load_model, "registry": sdk.load_registry,
        "connection": sdk.load_connection, "azureBlob": sdk.load_datastore,
    }
    return loaders[kind[1]](path)


def reason(problem: BaseException) -> str:
    """The SDK hides what is wrong with a schedule in the context of an empty `NotImplementedError`."""
    return str(problem) or str(problem.__context__ or type(problem).__name__)


@pytest.mark.filterwarnings("ignore")  # the SDK's own, hundreds of them
@pytest.mark.parametrize("path", SPECIFICATIONS, ids=name)
def test_the_sdk_loads_it(path: Path) -> None:
    try:
        assert load(path) is not None
    except Exception as problem:
        pytest.fail(f"{name(path)}: {reason(problem)}")


POLICIES = [path for path in FILES if path.parent == ROOT / "environments/policies"]  # ours: Azure ML has no such files
LABELS = [path for path in FILES if path.parent.name == "labels"]  # ours, too: its labeling projects are made in a studio
OTHERS = [path for path in FILES if path not in (*SPECIFICATIONS, *POLICIES, *LABELS)]


@pytest.mark.parametrize("path", OTHERS, ids=name)
def test_a_file_without_schema_is_used_by_one_that_has(path: Path) -> None:
    if path.name == "policy.yml":  # what follows from the monitor's alerts: beside the monitor, unless that names another
        assert (path.parent / "monitor.yml") in SPECIFICATIONS
        return
    users = [user for user in SPECIFICATIONS if re.search(rf"[\s/]{re.escape(path.name)}\b", user.read_text())]
    assert users, f"{name(path)} has no $schema, and no specification names it"


@pytest.mark.parametrize("path", POLICIES, ids=name)
def test_a_policy_file_is_read_by_the_controls(path: Path) -> None:
    from mlops_nb.outer_loop.controls import load_controls

    assert {control.policy for control in load_controls(path)} == {path.stem}


@pytest.mark.parametrize("path", LABELS, ids=name)
def test_a_labeling_project_is_read_by_the_store(path: Path) -> None:
    from mlops_nb.inner_loop.labeling import load_project

    assert load_project(path).name == path.stem


def test_there_is_something_to_load() -> None:
    assert ROOT / "ci/pipelines/classical.yml" in SPECIFICATIONS
