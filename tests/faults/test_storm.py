"""A storm of SIGKILLs over runs and pipelines: nothing unreadable, nothing lost, nobody left behind. `ci/soak` has the long form."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest

from mlops_nb.core import ledger
from mlops_nb.core.files import read_lines
from mlops_nb.core.runs import list_runs

BIN = Path(sys.executable).parent
STEP = "import time\nfor i in range(8): print(i, 'x' * 2000); time.sleep(0.1)"
MAKE = STEP + "\n# %%\nopen(made, 'w').write(name)\n# %%\n" + STEP
JOBS = """\
  a: {component: ../components/shop_10_make.yml, inputs: {name: a, round: "${{parent.inputs.round}}"}}
  b: {component: ../components/shop_10_make.yml, inputs: {name: b, round: "${{parent.inputs.round}}"}}
  c:
    component: ../components/shop_20_join.yml
    inputs: {one: "${{parent.jobs.a.outputs.made}}", two: "${{parent.jobs.b.outputs.made}}"}
"""


def commands(folder: Path, turn: int) -> list[list[Any]]:
    source, plain = folder / "nbs/scenarios/shop/10_make.ipynb", folder / "plain.ipynb"
    return [
        [BIN / "mlops-nb", "run", "shop", "-p", f"round={turn // 6}", "--jobs", "2"],
        [BIN / "mlops-nb", "notebook", "run", source, "-o", folder / "single.ipynb", "-p", "name=s", "-p", "made=single.txt"],
        [BIN / "papermill", "--engine", "mlops-nb", "--no-progress-bar", source, plain, "-p", "name", "p", "-p", "made", "p.txt"],
    ]  # fmt: skip


def ours(folder: Path) -> list[psutil.Process]:
    """Every process that works in the folder, this one aside."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(folder):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def done_steps(folder: Path) -> set[tuple[str, str]]:
    events = [(path.parent.name, event) for path in folder.glob(".mlops/runs/*/journal.jsonl") for event in read_lines(path)]
    return {(run, event["step"]) for run, event in events if event["state"] == "done"}


@pytest.mark.slow
def test_kills_at_random_moments_lose_nothing(project, lay, request):
    kills, folder = request.config.getoption("--kills"), project.root
    lay(JOBS, inputs="{round: 0}", _10_make=("name: str = ''\nround: int = 0\nmade: Output = ''", MAKE),
        _20_join=("one: Input = ''\ntwo: Input = ''", "print(open(one).read(), open(two).read())"))  # fmt: skip
    chance, figures = random.Random(kills), {"kills": 0, "unreadable": 0, "lost steps": 0, "orphans": 0, "checked notebooks": 0}
    turn = 0
    while figures["kills"] < kills:
        turn += 1
        before = done_steps(folder)
        command = commands(folder, turn)[chance.choice([0, 0, 0, 1, 2])]
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.2, 5))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            figures["kills"] += 1
        process.wait()
        end = time.monotonic() + 60
        while ours(folder) and time.monotonic() < end:
            time.sleep(0.1)
        figures["orphans"] += len(ours(folder))
        for path in [*folder.glob("*.ipynb"), *folder.glob(".mlops/runs/*/*.ipynb")]:
            figures["checked notebooks"] += 1
            try:
                nbformat.validate(nbformat.read(path, as_version=4))
            except Exception as problem:
                figures["unreadable"] += 1
                print(f"{path}: {problem!r}")
        figures["lost steps"] += len(before - done_steps(folder))
        assert ledger.verify(project) == []
    print(json.dumps(figures))
    assert {name: figures[name] for name in ("unreadable", "lost steps", "orphans")} == {"unreadable": 0, "lost steps": 0, "orphans": 0}

    done = subprocess.run(commands(folder, turn)[0], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    last = list_runs(project, "shop")[-1]
    assert last.state == "done"
