"""A batch job beside the bare model: HistGradientBoosting, 20 numeric columns, Parquet in and out, all cores.

The bare model has its rows in memory as the array that it likes best, in as many processes; both are measured in turns.
"""

import dataclasses
import datetime as dt
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

from mlops_nb.batch.job import read_journal
from mlops_nb.core.files import read_lines
from mlops_nb.core.records import ModelVersion
from mlops_nb.core.settings import Settings, load_settings
from mlops_nb.outer_loop import batch, models

ROOT = Path(__file__).resolve().parents[2]
ROWS = int(os.environ.get("BATCH_ROWS", "4000000"))
GROUP = 250_000  # rows of a row group
CORES = len(os.sched_getaffinity(0))
ROUNDS = 2
BARE = """
import sys, time, numpy as np
from mlops_nb.scoring.model import load_model
model, rows = load_model(sys.argv[1]), np.random.default_rng(0).normal(size=(min(int(sys.argv[2]), 1_000_000), 20))
model.predict(rows[:1000])
print("ready", flush=True)
sys.stdin.readline()
start, left = time.perf_counter(), int(sys.argv[2])
while left > 0:
    model.predict(rows[:left])
    left -= len(rows)
print(time.perf_counter() - start, flush=True)
"""


def lay(root: Path) -> tuple[Settings, ModelVersion]:
    """Lay a project with a trained model, and the rows to score."""
    import mlflow
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq
    from sklearn.ensemble import HistGradientBoostingRegressor

    from mlops_nb.inner_loop.registry import trusted_types

    shutil.copy(ROOT / "settings.ini", root)
    shutil.copytree(ROOT / "environments", root / "environments")
    settings = load_settings(root=root)
    names = [f"x{n}" for n in range(20)]
    rows = pd.DataFrame(np.random.default_rng(1).normal(size=(20_000, 20)), columns=names)
    model = HistGradientBoostingRegressor().fit(rows, rows["x0"] * 2 + rows["x1"] ** 2 + np.sin(rows["x2"]))
    mlflow.sklearn.save_model(model, root / "saved", signature=mlflow.models.infer_signature(rows, np.array([1.0])),
                              pip_requirements=["scikit-learn"], serialization_format="skops", skops_trusted_types=trusted_types(model))
    (root / "in").mkdir()
    with pq.ParquetWriter(root / "in" / "rows.parquet", pa.schema([(name, pa.float64()) for name in names])) as writer:
        for number in range(ROWS // GROUP):
            block = np.random.default_rng(number).normal(size=(20, GROUP))
            writer.write_table(pa.table(dict(zip(names, block, strict=True))))
    return settings, models.find_model(settings, str(root / "saved"), "rows")


def cpu() -> float:
    """Say how many seconds of the cores the ended processes below this one have used."""
    used = os.times()
    return used.children_user + used.children_system


def bare(folder: str) -> tuple[float, float]:
    """Predict all rows in one process per core; returns rows per second, and per second of a core with start and end."""
    used = cpu()
    command = [sys.executable, "-c", BARE, folder, str(ROWS // CORES)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
                 for _ in range(CORES)]
    for process in processes:
        assert process.stdout
        process.stdout.readline()
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    seconds = [float(process.communicate()[0]) for process in processes]
    return ROWS / max(seconds), ROWS / (cpu() - used)


@dataclasses.dataclass(frozen=True)
class Round:
    """What one job gave."""

    whole: float  # rows per second, from the command to the result
    steady: float  # rows per second between the first finished mini batch and the last
    cost: float  # rows per second of a core, with start and end
    memory: float  # MiB of all its worker processes together, at most


def job(settings: Settings, model: ModelVersion, root: Path, number: int) -> Round:
    """Score the file once."""
    import psutil

    end, peak = threading.Event(), [0.0]

    def watch() -> None:
        while not end.wait(0.1):
            total = 0.0
            for child in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    total += child.memory_info().rss / 2**20
            peak[0] = max(peak[0], total)

    thread = threading.Thread(target=watch)
    thread.start()
    start, used = time.perf_counter(), cpu()
    done = batch.score(settings, model, root / "in", root / f"out{number}", form="parquet", workers=CORES)
    seconds = time.perf_counter() - start
    end.set()
    thread.join()
    rows = [one.rows for one in read_journal(done.folder).values()]
    times = [dt.datetime.fromisoformat(line["at"]).timestamp() for line in read_lines(done.folder / "journal.jsonl")]
    first = CORES if len(rows) > 2 * CORES else 1
    return Round(ROWS / seconds, sum(rows[first:]) / max(times[-1] - times[first - 1], 1e-9), ROWS / (cpu() - used), peak[0])


def main() -> None:
    """Measure in turns, and print a table of the rounds."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        settings, model = lay(root)
        path = models.model_folder(settings, model)
        print(f"{ROWS:,} rows of 20 columns, {CORES} cores, Python {sys.version.split()[0]}, load {os.getloadavg()[0]:.1f}\n")
        print("| round | bare `predict`, rows/s | the job, rows/s | share | with start and end, rows/s | share | share of CPU time | "
              "workers' memory |\n| --- | --- | --- | --- | --- | --- | --- | --- |")
        for number in range(ROUNDS):
            before, ours, after = bare(path), job(settings, model, root, number), bare(path)
            speed, cost = ((first + second) / 2 for first, second in zip(before, after, strict=True))
            print(f"| {number + 1} | {speed:,.0f} | {ours.steady:,.0f} | {ours.steady / speed:.0%} | {ours.whole:,.0f} | "
                  f"{ours.whole / speed:.0%} | {ours.cost / cost:.0%} | {ours.memory:,.0f} MiB |", flush=True)
