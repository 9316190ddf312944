"""Every library notebook runs from top to bottom, in a kernel of its own, where a person would open it."""

import shutil
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
LESSONS = sorted(path.relative_to(ROOT / "nbs") for path in (ROOT / "nbs").glob("[!_.]*/[!_.]*.ipynb"))  # scenarios lie deeper


@pytest.mark.parametrize("lesson", LESSONS, ids=str)
def test_a_lesson_runs(lesson: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    for part in ("settings.ini", "environments", "ci/pipelines", "ci/components", "nbs/scenarios"):
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, tmp_path / part)
        elif (ROOT / part).exists():
            shutil.copy(ROOT / part, tmp_path / part)
    folder = tmp_path / "nbs" / lesson.parent
    folder.mkdir(parents=True)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(ROOT / "nbs" / lesson, as_version=4)
    how: dict[str, Any] = {"resources": {"metadata": {"path": str(folder)}}, "extra_arguments": ["--log-level=ERROR"]}
    NotebookClient(notebook, timeout=300, kernel_name="python3", **how).execute()
