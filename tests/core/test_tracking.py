"""MLflow's store: made once, whole, whoever comes first."""

import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from mlops_nb.core.settings import Settings

FIRST_TOUCH = """
import mlflow
from mlops_nb.core.settings import load_settings
from mlops_nb.core.tracking import use_experiment
use_experiment(load_settings(), "classical")
with mlflow.start_run():
    mlflow.log_metric("r2", 0.9)
"""


@pytest.mark.slow
def test_four_processes_on_a_fresh_folder_all_succeed(project: Settings):
    writers = [subprocess.Popen([sys.executable, "-c", FIRST_TOUCH], stderr=subprocess.PIPE) for _ in range(4)]
    ends = [(writer.communicate()[1].decode()[-2000:], writer.returncode) for writer in writers]
    assert [code for _, code in ends] == [0, 0, 0, 0], ends
    with closing(sqlite3.connect(project.state / "mlflow.db")) as database:
        assert database.execute("SELECT count(*) FROM metrics").fetchone() == (4,)
        assert database.execute("SELECT count(*) FROM experiments WHERE name = 'dev.classical'").fetchone() == (1,)
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.slow
def test_a_process_killed_while_it_creates_the_store_does_no_harm(project: Settings):
    halves = project.state / "mlflow.new"
    halves.parent.mkdir(parents=True)
    halves.write_bytes(b"half a database")
    subprocess.run([sys.executable, "-c", FIRST_TOUCH], check=True, capture_output=True)
    assert (project.state / "mlflow.db").exists()
    assert not halves.exists()
