"""Every library notebook runs from top to bottom, in a kernel of its own, where a person would open it."""

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LESSONS = sorted(path.relative_to(ROOT / "nbs") for path in (ROOT / "nbs").glob("[!_.]*/[!_.]*.ipynb"))  # scenarios lie deeper


@pytest.mark.parametrize("lesson", LESSONS, ids=str)
def test_a_lesson_runs(lesson: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import papermill

    for part in ("settings.ini", "environments", "ci/pipelines", "ci/components", "nbs/scenarios"):
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, tmp_path / part)
        elif (ROOT / part).exists():
            shutil.copy(ROOT / part, tmp_path / part)
    folder = tmp_path / "nbs" / lesson.parent
    folder.mkdir(parents=True)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    papermill.execute_notebook(ROOT / "nbs" / lesson, None, engine_name="mlops-nb", progress_bar=False, cwd=folder)
