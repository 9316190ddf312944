"""The code that a job takes along: the project without what stays here."""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mlops_nb.core.settings import Settings


@contextmanager
def staged(
    settings: Settings,
    components: Iterable[Any],  # as azure-ai-ml has loaded them
) -> Iterator[None]:
    """Let components take their code from a clean copy for as long as the block lasts.

    azure-ai-ml goes through every file below the folder, ignored or not, some ten times for each component: minutes for five
    components in a project with a virtual environment. What .amlignore lists stays here (without one: what .gitignore
    lists), and so do .git, the state folder and every virtual environment.
    """
    copies: dict[Path, Path] = {}
    with TemporaryDirectory(prefix="mlops-nb-code-") as scratch:
        for component in components:
            code = getattr(component, "code", None)
            folder = Path(component.base_path, code).resolve() if isinstance(code, str | os.PathLike) else Path(os.devnull)
            if not folder.is_dir():  # a registered code's address, or none
                continue
            if folder not in copies:
                copies[folder] = Path(scratch, str(len(copies)), folder.name)
                _copy(folder, copies[folder], settings.state.resolve())
            component.code = str(copies[folder])
        yield


def _copy(source: Path, target: Path, state: Path) -> None:
    from azure.ai.ml._utils._asset_utils import get_ignore_file  # the rules are the SDK's own

    ignored = get_ignore_file(source).is_file_excluded
    for place, folders, files in os.walk(source):
        here = Path(place)
        folders[:] = [name for name in folders if not _stays(here / name, state) and not ignored(here / name / "anything in it")]
        for name in files:
            if not ignored(here / name):
                copy = target / here.relative_to(source) / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(here / name, copy)


def _stays(folder: Path, state: Path) -> bool:
    return folder == state or folder.name == ".git" or (folder / "pyvenv.cfg").is_file()
