"""The same files on Azure ML: the only package that imports azure-ai-ml, and only inside its functions.

`check` loads specification files offline; `connect` opens the workspace of an environment; `submit`, `follow`, `cancel` and
`fetch` run a pipeline there and bring its results back as a run folder like a local one; `apply` creates or updates
everything else that a specification file describes; `deploy` puts a model behind an online endpoint.
"""

from mlops_nb.azure.apply import Applied, apply, project_files
from mlops_nb.azure.check import check
from mlops_nb.azure.deploy import deploy
from mlops_nb.azure.fetch import fetch, open_run
from mlops_nb.azure.follow import cancel, follow, refresh
from mlops_nb.azure.submit import Submission, prepare, submit
from mlops_nb.azure.workspace import Workspace, connect, explained, find_workspace

__all__ = [
    "Applied",
    "Submission",
    "Workspace",
    "apply",
    "cancel",
    "check",
    "connect",
    "deploy",
    "explained",
    "fetch",
    "find_workspace",
    "follow",
    "open_run",
    "prepare",
    "project_files",
    "refresh",
    "submit",
]
