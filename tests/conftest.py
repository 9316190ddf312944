"""What every room's tests stand on: an empty project, the command line, a browser."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mlops_nb.core.settings import Settings, load_settings

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the settings of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith("MLOPS_NB_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_environment: None) -> Settings:
    """Lay an empty project, make it the current folder, and load its settings."""
    shutil.copy(ROOT / "settings.ini", tmp_path)
    shutil.copytree(ROOT / "environments", tmp_path / "environments")
    monkeypatch.chdir(tmp_path)
    return load_settings()


class Result(NamedTuple):
    """How a command ended."""

    rc: int
    stdout: str
    stderr: str


@pytest.fixture
def mlops_nb_command() -> Callable[..., Result]:
    """Run the command line in a process of its own: `mlops_nb_command("run", "classical", MLOPS_NB_USER="ada")`."""

    def run(*arguments: Any, timeout: float = 300, **variables: str) -> Result:
        command = [str(Path(sys.executable).with_name("mlops-nb")), *map(str, arguments)]
        environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", **variables}
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment)
        return Result(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="module")  # not the session: a living Playwright keeps an event loop running in this thread
def browser() -> Iterator[Any]:
    """A real chromium without a window; the test is skipped where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no chromium: apt-get install chromium")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--no-first-run"]
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=quiet)
        yield chromium
        chromium.close()
