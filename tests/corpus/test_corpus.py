"""Notebooks written by others: the engine ends them, and fills their cells, as nbclient does. See README.md."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError

from mlops_nb.kernels.manager import PlainKernelManager

SECONDS = 300  # for each cell
CHANGING = re.compile(
    r"0x[0-9a-f]{6,}|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.\d]*|\d\d:\d\d:\d\d|\d+(\.\d+)? ?(ns|µs|us|ms|s|it/s)\b"
    r"|/tmp/[\w/.-]+|ipykernel_\d+|In \[\d+\]|\x1b\[[\d;]*m"
)
OURS = {
    "plain.ipynb": ["x = 1", "print(x)\nx + 1", "import sys\nprint('to stderr', file=sys.stderr)"],
    "shown.ipynb": ["from IPython.display import HTML, display\ndisplay(HTML('<b>bold</b>'))", "h = display('a', display_id='one')",
                    "from IPython.display import update_display\nupdate_display('b', display_id='one')"],
    "magic.ipynb": ["%env GREETING=hello", "!echo $GREETING", "%%bash\necho from bash", "import os\nos.getcwd() != ''"],
    "broken.ipynb": ["print('before')", "1 / 0", "print('never')"],
    "pardoned.ipynb": ["raise ValueError('on purpose')  # raises-exception", "print('after')"],
    "passed_over.ipynb": ["print('one')", "1 / 0  # skip-execution", "print('three')"],
    "await.ipynb": ["import asyncio\nawait asyncio.sleep(0.01)\n'slept'"],
}  # fmt: skip


def write_ours(folder: Path) -> Path:
    """Write the notebooks that are tried when there are no others; a comment names a cell's tag."""
    for name, cells in OURS.items():
        page = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}})
        page.cells = [nbformat.v4.new_code_cell(source) for source in cells]
        for cell in page.cells:
            cell.metadata["tags"] = re.findall(r"# ([a-z]+-[a-z]+)$", cell.source)
        nbformat.write(page, folder / name)
    return folder


def run_by_nbclient(page: Any, folder: Path) -> str:
    try:
        # our manager, since it takes no port that another process may have
        options = {"kernel_manager_class": PlainKernelManager, "timeout": SECONDS, "iopub_timeout": SECONDS}
        NotebookClient(page, resources={"metadata": {"path": str(folder)}}, **options).execute()
    except CellExecutionError as problem:
        return str(problem.ename)
    except CellTimeoutError:
        return "timeout"
    except DeadKernelError:
        return "dead kernel"
    return "done"


def run_by_engine(page: Any, folder: Path, output: Path) -> str:
    try:
        papermill.execute_notebook(
            page, None, {}, engine_name="mlops-nb", progress_bar=False, cwd=str(folder), save_to=str(output), cell_timeout=SECONDS
        )
    except PapermillExecutionError as problem:
        return str(problem.ename)
    except TimeoutError:
        return "timeout"
    except DeadKernelError:
        return "dead kernel"
    return "done"


def outputs(cell: Any) -> list[Any]:
    """A cell's outputs without what changes from run to run: the streams, whole, then the rest in order."""
    shown = [o for o in cell.get("outputs", []) if "papermill-error" not in str(o.get("metadata"))]
    streams = {name: "".join(o["text"] for o in shown if o.get("name") == name) for name in ("stdout", "stderr")}
    others = [o.get("data") or (o.get("ename"), o.get("evalue")) for o in shown if o["output_type"] != "stream"]
    return json.loads(CHANGING.sub("~", json.dumps([streams, others])))


def code_cells(page: Any) -> list[Any]:
    return [cell for cell in page.cells if cell.cell_type == "code" and "injected-parameters" not in cell.metadata.get("tags", [])]


def compare(notebook: Path, root: Path, work: Path) -> dict[str, Any]:
    """Run a notebook both ways, each in its own copy of the notebook's folder."""
    pages, ends = {}, {}
    for name in ("nbclient", "mlops-nb"):
        folder = work / name / notebook.parent.relative_to(root)
        shutil.copytree(notebook.parent, folder, dirs_exist_ok=True)
        page = nbformat.read(notebook, as_version=4)
        output = work / f"{name}.ipynb"
        ends[name] = run_by_nbclient(page, folder) if name == "nbclient" else run_by_engine(page, folder, output)
        pages[name] = page if name == "nbclient" else nbformat.read(output, as_version=4)
    pairs = list(zip(code_cells(pages["nbclient"]), code_cells(pages["mlops-nb"]), strict=True))
    differing = [index for index, (one, other) in enumerate(pairs) if outputs(one) != outputs(other)]
    counts = {name: sum(cell.execution_count is not None for cell in code_cells(page)) for name, page in pages.items()}
    entry: dict[str, Any] = {name: {"end": ends[name], "cells": counts[name]} for name in pages}
    return entry | {"agree": entry["nbclient"] == entry["mlops-nb"] and not differing, "differing_cells": differing}


@pytest.mark.slow
def test_the_engine_agrees_with_nbclient(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    given = request.config.getoption("--corpus")
    (tmp_path / "ours").mkdir()
    root = Path(given).resolve() if given else write_ours(tmp_path / "ours")
    notebooks = sorted(path for path in root.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
    assert notebooks, f"no notebook below {root}"
    outcomes = {}
    for index, notebook in enumerate(notebooks):
        outcomes[notebook.relative_to(root).as_posix()] = compare(notebook, root, tmp_path / str(index))
    for place in filter(None, (tmp_path / "outcomes.json", request.config.getoption("--outcomes"))):
        Path(place).write_text(json.dumps(outcomes, indent=1))
    agreed = sum(outcome["agree"] for outcome in outcomes.values())
    print(f"{agreed} of {len(outcomes)} notebooks end and read as with nbclient")
    known = json.loads((root / "expected.json").read_text()) if (root / "expected.json").is_file() else {}
    surprising = {name: o for name, o in outcomes.items() if not o["agree"] and known.get(name, {}).get("agree", True)}
    assert not surprising, json.dumps(surprising, indent=1)
    if not given:
        ends = {name: outcome["mlops-nb"]["end"] for name, outcome in outcomes.items()}
        assert ends == dict.fromkeys(sorted(OURS), "done") | {"broken.ipynb": "ZeroDivisionError"}
