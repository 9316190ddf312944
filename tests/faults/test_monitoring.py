"""Kills between a signal and what is done about it: whoever comes next finishes, and everything has happened exactly once.

`ci/test tests/faults/test_monitoring.py --kills 200` kills a hundred times.
"""

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mlops_nb.core import queue
from mlops_nb.core.ledger import entries, verify
from mlops_nb.core.records import Deployment, save_record
from mlops_nb.core.runs import list_runs, new_run, note
from mlops_nb.outer_loop import history

JOBS = """\
  train: {component: ../components/shop_20_train.yml, inputs: {rows: "${{parent.inputs.rows}}"}}
  deploy: {component: ../components/shop_40_deploy.yml, inputs: {model: "${{parent.jobs.train.outputs.model}}"}}
"""
DRIVER = Path(__file__).with_name("monitored.py")


@pytest.fixture
def shop(project, lay):
    """Lay a scenario, a run of it that has deployed, and what its endpoint collected."""
    lay(JOBS, _20_train=("rows: int = 1\nmodel: Output = ''", "open(model, 'w').write('1')"),
        _40_deploy=("model: Input = ''\ndeployed: Output = ''", "open(deployed, 'w').write('{}')"))  # fmt: skip
    run = new_run(project, "shop", {"rows": 7}, {"train": [], "deploy": ["train"]}, project.root)
    save_record(Deployment("diamonds", "blue", "model:dev.diamonds/1", "dev", 100), run.output("deploy", "deployed"))
    for step in run.planned:
        note(run, step, "done")
    for collection in ("model_inputs", "model_outputs"):
        hour = project.collected / "diamonds" / "blue" / collection / "2026/11/20/11"
        hour.mkdir(parents=True)
        events = [{"specversion": "1.0", "id": str(n), "time": "2026-11-20T11:30:00Z", "correlationid": f"r{n}", "data": [{"x": n}]}
                  for n in range(20)]  # fmt: skip
        (hour / "one.jsonl").write_text("\n".join(map(json.dumps, events)))
    return project


def drive(settings: Any, kill: int = 0) -> subprocess.CompletedProcess[str]:
    """Look at the same window in a process of its own that carries out what follows; it kills itself at its n-th step."""
    command = [sys.executable, str(DRIVER), str(settings.root), str(kill)]
    return subprocess.run(command, capture_output=True, text=True, cwd=settings.root)


def everything(settings: Any) -> dict[str, Any]:
    """Count what there is of each thing that must be there once."""
    patch = list((settings.state / "monitors" / "dev" / "proposals").glob("*"))
    return {
        "windows": len(history.windows(settings)),
        "alerts": len(history.alerts(settings)),
        "actions": Counter((action.kind, action.state) for action in history.actions(settings)),
        "notices": len(history.notices(settings)),
        "runs of the scenario": [run.state for run in list_runs(settings, "shop")],
        "rows for people": len(queue.queue_file(settings, "diamonds").read_text().splitlines()),
        "proposals": len(patch),
        "in the ledger": Counter(entry.action for entry in entries(settings) if entry.action not in ("run", "queue")),
        "runs in the ledger": len({entry.subject for entry in entries(settings, action="run")}),
        "faults of the ledger": verify(settings),
    }


ONCE = {
    "windows": 1,
    "alerts": 1,
    "actions": Counter({("retrain", "done"): 1, ("annotate", "done"): 1, ("reconfigure", "done"): 1, ("investigate", "done"): 1}),
    "notices": 1,
    "runs of the scenario": ["done", "done"],  # the one that deployed, and the retraining
    "rows for people": 5,
    "proposals": 1,
    "in the ledger": Counter(alert=1, retrain=1, annotate=1, reconfigure=1, investigate=1),
    "runs in the ledger": 1,
    "faults of the ledger": [],
}


@pytest.mark.slow
def test_a_kill_between_signal_and_action_changes_nothing(shop, request, tmp_path_factory):
    """Kill at steps spread over the whole way, then once more while the next process mends, and let a third one finish."""
    import shutil

    kills = max(2, request.config.getoption("--kills") // 2)
    chance = random.Random(kills)
    fresh = tmp_path_factory.mktemp("k") / "s"
    shutil.copytree(shop.state, fresh)
    done = drive(shop)
    assert done.returncode == 0, done.stderr
    steps = int(done.stdout.split()[-1])
    assert everything(shop) == ONCE
    assert steps > 100
    seen = Counter[str]()
    for turn in range(kills):
        shop.state.rename(fresh.with_name(f"left-{turn}"))  # a kernel of the killed process may still be there
        shutil.copytree(fresh, shop.state)
        first = int(steps * (turn + chance.random()) / kills) + 1
        killed = drive(shop, first)
        assert killed.returncode in (-signal.SIGKILL, 0), killed.stderr
        seen[killed.stderr.splitlines()[-1] if killed.returncode else "reached the end"] += 1
        if turn % 2:
            drive(shop, chance.randrange(1, steps))
        last = drive(shop)
        assert last.returncode == 0, last.stderr
        assert everything(shop) == ONCE, f"killed at step {first} of {steps} ({killed.stderr.splitlines()[-1:]})"
    print(json.dumps(seen, indent=1), f"of {steps} steps", os.getpid())
