"""Where an environment stands on Azure, the client that speaks to it, and its errors in words that help."""

import io
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlops_nb.azure.check import quiet
from mlops_nb.core.records import SpecificationError
from mlops_nb.core.settings import Settings
from mlops_nb.core.specification import read_yaml

if TYPE_CHECKING:
    from azure.ai.ml import MLClient


@dataclass(frozen=True)
class Workspace:
    """The Azure ML workspace of an environment."""

    subscription: str  # its id
    resource_group: str
    name: str

    @property
    def uri(self) -> str:
        """Address in the ledger: `workspace:<resource group>/<name>`."""
        return f"workspace:{self.resource_group}/{self.name}"


def find_workspace(settings: Settings) -> Workspace:
    """Read which workspace an environment stands for; raises `SpecificationError` with everything that is missing.

    Name and resource group are those of environments/<environment>/workspace.yml; the subscription, which is nothing to
    commit, comes from the settings, from AZURE_SUBSCRIPTION_ID, or from Azure ML's own config.json of this workspace.
    """
    path = settings.root / "environments" / settings.environment / "workspace.yml"
    content, _ = read_yaml(path)
    found = {key: str(content.get(key) or "") for key in ("name", "resource_group")}
    faults = [f"{path}: no `{key}:`. Write that of your workspace." for key, value in found.items() if not value]
    subscription = str(getattr(settings, "subscription", "") or os.environ.get("AZURE_SUBSCRIPTION_ID", ""))
    if not (subscription := subscription or _config_subscription(settings, found["name"])):
        faults.append(
            f"No Azure subscription for {settings.environment}. Set AZURE_SUBSCRIPTION_ID, or put the config.json that Azure "
            f"ML's studio offers for workspace '{found['name']}' into {settings.root}."
        )
    if faults:
        raise SpecificationError(faults)
    return Workspace(subscription, found["resource_group"], found["name"])


def _config_subscription(settings: Settings, workspace: str) -> str:
    """Return the subscription of the config.json that names this workspace; one of another workspace says nothing."""
    for folder in (f"environments/{settings.environment}", ".", ".azureml"):
        path = settings.root / folder / "config.json"
        if not path.is_file():
            continue
        try:
            content = json.loads(path.read_text())
        except ValueError as problem:
            raise SpecificationError([f"{path}: not JSON ({problem}). Download it again from Azure ML's studio."]) from None
        if content.get("workspace_name") == workspace:
            return str(content.get("subscription_id", ""))
    return ""


def connect(
    settings: Settings,
    credential: Any = None,  # an azure-identity credential; None: DefaultAzureCredential
    registry: str = "",  # speak to this Azure ML registry instead of the environment's workspace
    **client_options: Any,  # whatever else MLClient takes
) -> "MLClient":
    """Open the workspace of an environment; telemetry is off."""
    target: dict[str, str] = {"registry_name": registry}
    if not registry:
        workspace = find_workspace(settings)
        target = {
            "subscription_id": workspace.subscription,
            "resource_group_name": workspace.resource_group,
            "workspace_name": workspace.name,
        }
    quiet()
    from azure.ai.ml import MLClient

    if credential is None:
        from azure.identity import DefaultAzureCredential

        credential = DefaultAzureCredential()
    with explained(f"open registry {registry}" if registry else "open the workspace"):
        return MLClient(credential, **target, enable_telemetry=False, show_progress=False, **client_options)


@contextmanager
def explained(
    what: str,  # that is tried, as in "to ..."
) -> Iterator[None]:
    """Turn what Azure and its SDK raise into the workbench's errors, which say what to do."""
    from azure.ai.ml.exceptions import MlException
    from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError, ServiceRequestError

    try:
        yield
    except ClientAuthenticationError as problem:
        raise SpecificationError(
            [
                f"Could not {what}: Azure does not know you. Sign in with `az login`, or set AZURE_TENANT_ID, AZURE_CLIENT_ID "
                f"and AZURE_CLIENT_SECRET ({_first_line(problem)})."
            ]
        ) from None
    except ServiceRequestError as problem:
        raise ConnectionError(f"Could not {what}: Azure cannot be reached ({_first_line(problem)}).") from None
    except HttpResponseError as problem:
        if problem.status_code == 403:
            raise PermissionError(
                f"Could not {what}: Azure does not let you ({_first_line(problem)}). Ask the owner of the workspace for a role."
            ) from None
        raise SpecificationError([f"Could not {what}: Azure ML refuses it: {problem.message}"]) from None
    except (MlException, AzureError) as problem:
        raise SpecificationError([f"Could not {what}: {_plain(problem)}"]) from None


@contextmanager
def silent() -> Iterator[None]:
    """Keep to itself what azure-ai-ml prints while it sends something: dots, and the end of a colour."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        yield


def _first_line(problem: Exception) -> str:
    return next(iter(_plain(problem).splitlines()), type(problem).__name__)


def _plain(problem: Exception) -> str:
    """Return a message without the colours and empty lines that azure-ai-ml puts in."""
    lines = re.sub(r"\x1b\[[\d;]*m", "", str(problem)).splitlines()
    return "\n".join(line.strip() for line in lines if line.strip())


def find(get: Any, *address: Any, **more: Any) -> Any:
    """Get something from Azure ML; None if there is no such thing."""
    from azure.core.exceptions import ResourceNotFoundError

    try:
        return get(*address, **more)
    except ResourceNotFoundError:
        return None
