"""The demo, from the built wheel, in an empty folder: what `pip install mlops-nb` and `mlops-nb demo` give."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mlops_nb.core import ledger
from mlops_nb.core.runs import list_runs
from mlops_nb.core.settings import load_settings
from mlops_nb.outer_loop import history


@pytest.mark.slow
def test_the_loop_is_walked_twice_in_an_empty_folder(elsewhere: Path, tmp_path: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    command, share = elsewhere.with_name("mlops-nb"), f"{sys.prefix}/share/jupyter"  # of the borrowed libraries
    environment = clean | {"COLUMNS": "200", "NO_COLOR": "1", "JUPYTER_PATH": share}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([command, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)

    done = run("demo")
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        rows = [re.split(r"\s{2,}", line.strip()) for line in done.stdout.splitlines() if re.search(r"dev\.diamonds/\d", line)]
        home, abroad, mended = [row for row in rows if "$" in " ".join(row)]
        assert float(home[3]) > 0.95
        assert home[-1] == "none"
        assert float(abroad[3]) < 0
        assert {"data_drift", "prediction_drift", "model_performance"} <= set(abroad[5].split(", "))
        assert "retrain" in abroad[-1].split(", ")
        assert re.search(r"Production has truly moved in .*carat.*: retrain", done.stdout)
        assert float(mended[3]) > 0.95
        assert mended[-1] == "none"
        assert home[1] != mended[1]

        settings = load_settings("dev", tmp_path, state=tmp_path / ".mlops" / "demo")
        assert ledger.verify(settings) == []
        states = [run.state for run in list_runs(settings)]  # two loops, three looks, the stock in batch, labels; the next ones wait
        assert states == ["done"] * 7 + ["waiting"]
        assert re.search(r"120 pictures, \d+ of them disputed \(alpha 0\.\d\d\)", done.stdout)
        assert int(re.search(r"(\d+)% of what it proposes for 60 new ones is right", done.stdout)[1]) > 80  # type: ignore[index]
        assert [action.state for action in history.actions(settings) if action.kind == "retrain"] == ["done"]
        assert [raised.state for raised in history.alerts(settings)] == ["resolved"]
        report = settings.state / "report.html"
        linked = re.findall(r'href="([^"]+)"', report.read_text())
        assert len(linked) == 18
        assert all((settings.state / page).is_file() for page in linked)

        asked = run("invoke", "diamonds", "--state", ".mlops/demo")  # the first command that it says to try next
        assert asked.returncode == 0, asked.stderr
    finally:
        run("endpoint", "stop", "diamonds", "--state", ".mlops/demo")
