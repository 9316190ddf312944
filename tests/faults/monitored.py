"""Look at a window, and carry out what follows; `monitored.py ROOT N` kills itself at the N-th step that changes something."""

import datetime as dt
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from mlops_nb.core.pipeline import run_pipeline
from mlops_nb.core.plan import Request
from mlops_nb.core.records import Deployment, Signal
from mlops_nb.core.settings import load_settings
from mlops_nb.core.specification import read_pipeline
from mlops_nb.core.trigger import Trigger
from mlops_nb.outer_loop.actions import carry_out, conclude
from mlops_nb.outer_loop.monitor import Monitor, Watch
from mlops_nb.outer_loop.policy import Policy

ROOT, KILL = Path(sys.argv[1]), int(sys.argv[2])
WATCHED = ("actions.py", "history.py", "queue.py", "ledger.py", "files.py", "runs.py", "pipeline.py", "notices.py")
steps = 0
known: dict[Any, bool] = {}


def is_watched(code: Any) -> bool:
    """Tell whether a function is one of ours that decides, writes or begins something."""
    if code not in known:
        known[code] = "mlops_nb" in code.co_filename and Path(code.co_filename).name in WATCHED
    return known[code]


def watch(frame: Any, event: str, argument: Any) -> None:
    """Count calls and returns of functions that decide, write or begin something; be killed at the one that was asked for."""
    global steps
    if event in ("call", "return") and is_watched(frame.f_code):
        steps += 1
        if steps == KILL:
            print(f"{event} {Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)


def start(settings: Any, scenario: str, values: Any, **request: Any) -> Any:
    """Run a scenario as the command does, without showing it."""
    pipeline = read_pipeline(settings.root / "ci" / "pipelines" / f"{scenario}.yml")
    return run_pipeline(settings, pipeline, values, Request(**request), jobs=1)


def signals() -> list[Signal]:
    """Make one signal for each kind of action."""
    rows = [{"correlationid": f"r{n}_0", "score": n, "why": "new"} for n in range(5)]
    change = [{"file": "deployment.yml", "path": "/instance_count", "value": 2}]
    details: dict[str, dict[str, Any]] = {"retrain": {}, "annotate": {"examples": rows}, "reconfigure": {"patch": change},
                                          "investigate": {}}  # fmt: skip
    return [Signal(name, "custom", "", "share", 2.0, 1.0, True, detail=detail) for name, detail in details.items()]


sys.setprofile(watch)
threading.setprofile(watch)
settings = load_settings(root=ROOT)
found = signals()
policy = Policy.model_validate({"rules": [{"when": {"signal": s.name}, "then": s.name, "mode": "automatic"} for s in found],
                                "annotate": {"examples": 5}})  # fmt: skip
monitor = Monitor("diamonds_dev", ROOT / "monitor.yml", "diamonds", "blue", "regression",
                  tuple(Watch(s.name, "custom", {}, alert=True) for s in found), Trigger("UTC", dt.UTC))  # fmt: skip
noon = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)
blue = Deployment("diamonds", "blue", "model:dev.diamonds/1", "dev", 100)
conclude(settings, monitor, blue, (noon - dt.timedelta(days=1), noon), found, policy)
carry_out(settings, start)
sys.setprofile(None)
print(steps)
