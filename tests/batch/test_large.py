"""Out of core: memory does not grow with the rows, and one large file keeps all workers busy.

BATCH_ROWS=50000000 pytest tests/batch/test_large.py is the long form.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from mlops_nb.outer_loop import batch

from .conftest import STONES, Shop

ROWS = int(os.environ.get("BATCH_ROWS", "2000000"))


@contextmanager
def peak_of_tree() -> Iterator[list[float]]:
    """Note the largest sum of what a job's processes have, and how much this one grows; MiB."""
    here, end, peak = psutil.Process(), threading.Event(), [0.0]
    start = here.memory_info().rss

    def watch() -> None:
        while not end.wait(0.05):
            total = max(0, here.memory_info().rss - start)
            for child in here.children(recursive=True):
                with suppress(psutil.Error):
                    if "mlops_nb.batch" in " ".join(child.cmdline()):  # others are of earlier tests
                        total += child.memory_info().rss
            peak[0] = max(peak[0], total / 2**20)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        end.set()
        thread.join()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One Parquet file, in row groups of half a million rows, of which the model needs two columns."""
    folder = tmp_path_factory.mktemp("large")
    rows = 500_000
    block = {"carat": np.linspace(0, 2, rows), "depth": np.full(rows, 60.0)}
    noise = {f"more{n}": np.random.default_rng(n).normal(size=rows).astype("float32") for n in range(2)}
    with pq.ParquetWriter(folder / "large.parquet", pa.table(block | noise).schema) as writer:
        for start in range(0, ROWS, rows):
            writer.write_table(pa.table(block | noise).slice(0, min(rows, ROWS - start)))
    return folder


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(shop: Shop, large: Path, deployment: Callable[..., Path], tmp_path: Path) -> None:
    """The worker processes stay where a much smaller input has them: 2 million rows are 48 MB here, 50 million 1.2 GB."""
    STONES.to_csv(tmp_path / "few.csv", index=False)
    batch.score(shop.settings, shop.model, tmp_path / "few.csv", tmp_path / "few", file=deployment())  # all that is imported is there
    start = time.monotonic()
    with peak_of_tree() as peak:
        done = batch.score(shop.settings, shop.model, large, tmp_path / "out", file=deployment(), form="parquet", workers=2)
    print(f"{ROWS:,} rows in {time.monotonic() - start:.1f} s, {peak[0]:.0f} MiB in all processes beside this one")
    assert peak[0] < 800
    assert (done.state, done.rows, done.failed) == ("done", ROWS, 0)
    rows = ds.dataset(done.result)
    assert rows.count_rows() == ROWS
    seen = 0
    for part in rows.to_batches(columns=["row"]):  # every row once, in order
        assert pc.all(pc.equal(part["row"], pa.array(np.arange(seen, seen + part.num_rows)))).as_py()
        seen += part.num_rows
    logs = [path.read_text() for path in sorted((done.folder / "logs").glob("worker-*.log"))]
    assert len(logs) == 2
