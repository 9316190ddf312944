"""A small scenario to run: the tests of plans, pipelines and faults lay it with what their steps shall do."""

from collections.abc import Callable

import nbformat
import pytest

from mlops_nb.core.components import compile_components
from mlops_nb.core.settings import Settings
from mlops_nb.core.specification import Pipeline, read_pipeline

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
