"""Monitoring: two tables beside evidently, a day's collected requests, and tables that do not fit into memory.

Every measurement is a whole process, from its start to its end, by the wall clock; its memory is the most that it held. Evidently
runs its drift preset, in an environment of its own with the pandas it asks for, on the same two files as `mlops-nb monitor compare`;
both write a report. They run in turns, so that a busy moment hits both. What cannot be had is left out.

Sizes by environment variables: MONITORING_ROWS of the two tables, MONITORING_RECORDS collected, MONITORING_STREAMS, e.g.
"25,50,100": millions of rows each side (a hundred take 7 GB of disk); MONITORING_ROUNDS says how often the first two are repeated.
"""

import datetime as dt
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.peers import install

ROOT = Path(__file__).resolve().parents[2]
ROWS = int(os.environ.get("MONITORING_ROWS", "1000000"))
RECORDS = int(os.environ.get("MONITORING_RECORDS", "1000000"))
STREAMS = [int(n) for n in os.environ.get("MONITORING_STREAMS", "5,10,20").split(",") if n]
ROUNDS = int(os.environ.get("MONITORING_ROUNDS", "2"))
EVIDENTLY = ["evidently==0.7.23", "pandas<3.1", "pyarrow"]
SOURCE = "/subscriptions/0/resourceGroups/0/providers/Microsoft.MachineLearningServices/onlineEndpoints/bench/deployments/blue"
THEIRS = """
import sys
import pandas as pd
from evidently import Dataset, Report
from evidently.presets import DataDriftPreset
reference, production = (Dataset.from_pandas(pd.read_parquet(path)) for path in sys.argv[1:3])
Report([DataDriftPreset()]).run(production, reference).save_html(sys.argv[3])
"""
COLLECTED = """
import datetime as dt, sys
from pathlib import Path
import pandas as pd
from mlops_nb.core.records import Deployment
from mlops_nb.core.settings import Settings
from mlops_nb.outer_loop.monitor import load_monitor
from mlops_nb.outer_loop.monitoring import run_monitor
folder, day = Path(sys.argv[1]), dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
signals = run_monitor(Settings(root=folder, state=folder), load_monitor(folder / "monitor.yml"),
                      Deployment("bench", "blue", "model:dev.bench/1", "dev"),
                      {"training": pd.read_parquet(folder / "training.parquet")}, now=day)
assert len(signals) == 40 and all(signal.value is not None for signal in signals), [s.problem for s in signals][:3]
"""
MONITOR = """
$schema: http://azureml/sdk-2-0/Schedule.json
name: bench
trigger: {type: recurrence, frequency: day, interval: 1}
create_monitor:
  compute: {instance_type: standard_e4s_v3, runtime_version: "3.4"}
  monitoring_target: {ml_task: regression, endpoint_deployment_id: "azureml:bench:blue"}
  monitoring_signals:
    drift:
      type: data_drift
      production_data:
        input_data: {path: "azureml:in:1", type: uri_folder}
        data_context: model_inputs
        data_window: {lookback_window_size: P1D}
      reference_data: {input_data: {path: "azureml:train:1", type: mltable}, data_context: training}
      alert_enabled: true
      metric_thresholds: {numerical: {normalized_wasserstein_distance: 0.1}, categorical: {jensen_shannon_distance: 0.1}}
    quality:
      type: data_quality
      production_data:
        input_data: {path: "azureml:in:1", type: uri_folder}
        data_context: model_inputs
        data_window: {lookback_window_size: P1D}
      reference_data: {input_data: {path: "azureml:train:1", type: mltable}, data_context: training}
      alert_enabled: true
      metric_thresholds:
        numerical: {null_value_rate: 0.01, data_type_error_rate: 0.01, out_of_bounds_rate: 0.02}
        categorical: {null_value_rate: 0.01, data_type_error_rate: 0.01, out_of_bounds_rate: 0.02}
"""


@dataclass(frozen=True)
class Cost:
    """What one process took."""

    seconds: float  # by the wall clock
    cpu: float  # seconds of all cores
    memory: float  # MiB, at most


def run(command: list[str], python: Path | str = sys.executable) -> Cost:
    """Run a process to its end."""
    begin = time.perf_counter()
    ours = os.environ | {"PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true"}
    theirs = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"DO_NOT_TRACK": "1"}
    process = subprocess.Popen([str(python), *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               env=ours if python == sys.executable else theirs)
    assert process.stderr
    told = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command[:2]} ended with {process.returncode}: {told.decode()[-600:]}")
    return Cost(time.perf_counter() - begin, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def tables(folder: Path, rows: int) -> tuple[str, str]:
    """Write two tables of 16 numeric and 4 text columns, some of which have moved."""
    import numpy as np
    import polars as pl

    for name, shift, seed in (("reference", 0.0, 1), ("production", 0.15, 2)):
        draw = np.random.default_rng(seed)
        kinds = (draw.normal, draw.uniform, draw.lognormal, draw.standard_exponential)
        columns = {f"n{i:02}": kinds[i % 4](size=rows) + (shift if i < 4 else 0) for i in range(16)}
        codes = {f"t{i}": (draw.exponential(k / 5, rows) * (1 + (shift if i < 2 else 0))).astype(int) % k
                 for i, k in enumerate((5, 50, 500, 5000))}
        text = [(pl.lit("value ") + pl.col(name).cast(pl.String)).alias(name) for name in codes]
        pl.DataFrame(columns | codes).with_columns(text).write_parquet(folder / f"{name}.parquet", row_group_size=2**18)
    return str(folder / "reference.parquet"), str(folder / "production.parquet")


def middle(costs: list[Cost]) -> Cost:
    """Return the median of each."""
    return Cost(*(statistics.median(getattr(cost, name) for cost in costs) for name in ("seconds", "cpu", "memory")))


def compare(folder: Path) -> None:
    """Two tables, files in, report out: ours and evidently's."""
    sides = tables(folder, ROWS)
    python = install(folder, "evidently", EVIDENTLY)
    mine = ["-m", "mlops_nb", "monitor", "compare", *sides, "-o", str(folder / "ours.html")]
    found: dict[str, list[Cost]] = {"mlops-nb monitor compare": [], "evidently's drift preset": []}
    run(mine)  # compiles, and warms the disk's cache
    for _ in range(ROUNDS):
        found["mlops-nb monitor compare"] += [run(mine), run(mine)]
        if python:
            found["evidently's drift preset"].append(run(["-c", THEIRS, *sides, str(folder / "theirs.html")], python))
    ours = middle(found["mlops-nb monitor compare"])
    print(f"{ROWS:,} rows each side, 16 numeric and 4 text columns, Parquet in, report out, whole process\n")
    print("| | wall clock | times ours | CPU time | most memory | times ours |\n| --- | --- | --- | --- | --- | --- |")
    for name, costs in found.items():
        if costs:
            cost = middle(costs)
            print(f"| {name} | {cost.seconds:.2f} s | {cost.seconds / ours.seconds:.1f} | {cost.cpu:.2f} s | {cost.memory:,.0f} MiB | "
                  f"{cost.memory / ours.memory:.2f} |", flush=True)


def lay_collected(folder: Path) -> int:
    """Write a day of collected requests, an hour a file, a monitor, and what the model was trained on; returns the bytes."""
    import polars as pl

    from mlops_nb.core.settings import Settings

    draw, place = random.Random(0), Settings(root=folder, state=folder).collected
    size, rows = 0, []
    for hour in range(24):
        path = place / "bench" / "blue" / "model_inputs" / f"2026/11/20/{hour:02}" / "one.jsonl"
        path.parent.mkdir(parents=True)
        with path.open("w") as file:
            for number in range(begin := RECORDS * hour // 24, RECORDS * (hour + 1) // 24):
                moment = dt.datetime(2026, 11, 20, hour, tzinfo=dt.UTC) + dt.timedelta(seconds=(number - begin) * 3600 * 24 / RECORDS)
                row: dict[str, object] = {f"x{n}": draw.gauss(0, 1) for n in range(8)}
                row |= {"cut": draw.choice(["Ideal", "Good", "Fair"]), "color": draw.choice("DEFGHIJ")}
                request = f"{draw.getrandbits(128):032x}"
                file.write(json.dumps({
                    "specversion": "1.0", "id": request, "source": SOURCE, "type": "azureml.inference.model_inputs",
                    "datacontenttype": "application/json", "time": moment.isoformat(), "data": [row],
                    "correlationid": request, "xrequestid": request, "modelversion": "1", "agent": "mlops-nb"}) + "\n")
                if len(rows) < 10_000:
                    rows.append(row)
        size += path.stat().st_size
    pl.DataFrame(rows).write_parquet(folder / "training.parquet")
    (folder / "monitor.yml").write_text(MONITOR)
    return size


def collected(folder: Path) -> None:
    """A monitor over a day's collected requests."""
    size = lay_collected(folder)
    cost = middle([run(["-c", COLLECTED, str(folder)]) for _ in range(ROUNDS)])
    print(f"\nDrift and quality of {RECORDS:,} collected records of 10 features ({size / 2**20:,.0f} MiB of JSON lines), "
          f"whole process: {cost.seconds:.1f} s, {cost.cpu:.1f} s of CPU time, {cost.memory:,.0f} MiB", flush=True)


def lay_stream(folder: Path, millions: int) -> list[str]:
    """Write two tables of 4 numeric columns and a text one, a million rows at a time."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    towns = pa.array([f"town {n}" for n in range(1000)])
    schema = pa.schema([*((name, pa.float64()) for name in "abcd"), ("town", pa.string())])
    paths = []
    for name, seed in (("reference", 1), ("production", 2)):
        draw = np.random.default_rng(seed)
        paths.append(str(folder / f"{name}-{millions}.parquet"))
        with pq.ParquetWriter(paths[-1], schema, use_dictionary=["town"]) as writer:
            kinds = (draw.normal, draw.uniform, draw.lognormal, draw.standard_exponential)
            pool = [[make(size=1_000_000) for make in kinds] for _ in range(4)]
            codes = [pa.array(draw.integers(0, 1000, 1_000_000), pa.int32()) for _ in range(4)]
            for block in range(millions):
                columns = [pa.array(values * (1 + 1e-9 * block)) for values in pool[block % 4]]
                columns.append(pa.DictionaryArray.from_arrays(codes[block % 4], towns).cast(pa.string()))
                writer.write_table(pa.table(columns, schema=schema))
    return paths


def streams(folder: Path) -> None:
    """Tables of growing length: time stays in proportion, memory does not grow with them."""
    print("\n4 numeric columns and 1 of text\n\n| million rows each side | wall clock | per million | CPU time per million | "
          "most memory |\n| --- | --- | --- | --- | --- |")
    for millions in STREAMS:
        paths = lay_stream(folder, millions)
        cost = run(["-m", "mlops_nb", "monitor", "compare", *paths, "-o", str(folder / "streams.html")])
        print(f"| {millions} | {cost.seconds:.1f} s | {cost.seconds / millions:.2f} s | {cost.cpu / millions:.2f} s | "
              f"{cost.memory:,.0f} MiB |", flush=True)
        for path in paths:
            Path(path).unlink()


def main() -> None:
    """Measure all three, and print them."""
    print(f"{len(os.sched_getaffinity(0))} cores, Python {sys.version.split()[0]}, load {os.getloadavg()[0]:.1f}\n")
    for part in (compare, collected, streams):
        with tempfile.TemporaryDirectory() as folder:
            part(Path(folder))
