"""What every room's tests stand on: an empty project, a small scenario to run in it, the command line, a browser."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from mlops_nb.core.components import compile_components
from mlops_nb.core.settings import Settings, load_settings
from mlops_nb.core.specification import Pipeline, read_pipeline

ROOT = Path(__file__).resolve().parents[1]
# the same examples each time, and however long they take: a slow machine is no fault
hypothesis_settings.register_profile("steady", deadline=None, derandomize=True,
                                     suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
hypothesis_settings.load_profile("steady")
CHROMIUM = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Say how long the long tests are; `ci/soak` gives the long form, `ci/test` takes these defaults."""
    parser.addoption("--kills", type=int, default=5, help="SIGKILLs of the storm in tests/faults")
    parser.addoption("--bodies", type=int, default=300, help="random bodies that tests/scoring/test_fuzz.py sends")
    parser.addoption("--corpus", default="", help="folder of notebooks for tests/corpus")
    parser.addoption("--outcomes", default="", help="file for the report of tests/corpus")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that hold slow tests, so that no worker is left alone with one of them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in slow, "scenarios" not in item.path.parts))


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the settings of whoever runs the tests."""
    ours_and_mlflows = ("MLOPS_NB_", "MLFLOW_EXPERIMENT_")  # MLflow tells its experiment to later processes by the second
    for name in [name for name in os.environ if name.startswith(ours_and_mlflows)]:
        monkeypatch.delenv(name)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_environment: None) -> Settings:
    """Lay an empty project, make it the current folder, and load its settings."""
    shutil.copy(ROOT / "settings.ini", tmp_path)
    shutil.copytree(ROOT / "environments", tmp_path / "environments")
    monkeypatch.chdir(tmp_path)
    return load_settings()


TYPES = "from mlops_nb.core.parameters import Input, Output\n"


@pytest.fixture
def lay(project: Settings) -> Callable[..., Pipeline]:
    """Lay a scenario: `lay(jobs, NN_step=(parameters, source), ...)`; cells of a source are parted by `# %%`."""

    def write(jobs: str, /, inputs: str = "{rows: 3}", **notebooks: tuple[str, str]) -> Pipeline:
        folder = project.root / "nbs" / "scenarios" / "shop"
        folder.mkdir(parents=True, exist_ok=True)
        for name, (parameters, source) in notebooks.items():
            page = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "python3"}})
            cells = [TYPES + parameters, *source.split("\n# %%\n")]
            page.cells = [nbformat.v4.new_markdown_cell(f"# {name}"), *map(nbformat.v4.new_code_cell, cells)]
            page.cells[1].metadata["tags"] = ["parameters"]
            for index, cell in enumerate(page.cells):
                cell.id = f"{name[1:]}-{index}"
            nbformat.write(page, folder / f"{name[1:]}.ipynb")
        compile_components(project.root)
        job = project.root / "ci" / "pipelines" / "shop.yml"
        job.parent.mkdir(parents=True, exist_ok=True)
        job.write_text(f"type: pipeline\ninputs: {inputs}\njobs:\n{jobs}")
        return read_pipeline(job)

    return write


DATA = ("rows: int = 1\ngold: Output = ''", "open(gold, 'w').write(str(rows))")
JOBS = """\
  data: {component: ../components/shop_10_data.yml, inputs: {rows: "${{parent.inputs.rows}}"}}
  train: {component: ../components/shop_20_train.yml, inputs: {gold: "${{parent.jobs.data.outputs.gold}}"}}
"""


@pytest.fixture
def shop(lay: Callable[..., Pipeline]) -> Callable[[str], Pipeline]:
    """Lay a scenario of two notebooks: `data` writes a number, `train` does what the test says."""
    return lambda train: lay(JOBS, _10_data=DATA, _20_train=("gold: Input = ''", train))


class Result(NamedTuple):
    """How a command ended."""

    rc: int
    stdout: str
    stderr: str


@pytest.fixture
def mlops_nb_command() -> Callable[..., Result]:
    """Run the command line in a process of its own: `mlops_nb_command("run", "classical", MLOPS_NB_USER="ada")`."""

    def run(*arguments: Any, timeout: float = 600, **variables: str) -> Result:
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
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=quiet, timeout=180_000)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this tree."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="session")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation's bin/python, in a new environment that borrows the libraries of this one, but not the project."""
    folder = tmp_path_factory.mktemp("elsewhere")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv/bin/python"
    purelib = subprocess.check_output([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True).strip()
    borrowed = next(path for path in sys.path if path.endswith("site-packages"))
    # appended by hand: a line that is a path would make site read the .pth file of our editable installation, too
    (Path(purelib) / "borrowed.pth").write_text(f"import sys; sys.path.append({borrowed!r})\n")
    installer = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--offline", "--no-deps", "--python", str(python), str(wheel)]
    subprocess.run(installer, check=True, cwd=folder)
    return python
