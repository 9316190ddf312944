"""Jobs end well: what fails is tried again and told, what is killed goes on, no row is there twice and none is lost."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import psutil
import pytest

from mlops_nb.batch.driver import Driver, Worker
from mlops_nb.batch.job import Status
from mlops_nb.core.ledger import entries
from mlops_nb.core.records import StepFailed
from mlops_nb.outer_loop import batch

from .conftest import SCRIPT, Shop

Deployment = Callable[..., Path]
Words = Callable[..., Path]


def test_a_scoring_script_gets_mini_batches_of_paths_on_all_workers(shop: Shop, deployment: Deployment, words: Words,
                                                                     tmp_path: Path) -> None:
    file = deployment(SCRIPT, mini_batch_size=3, max_concurrency_per_instance=2)
    done = batch.score(shop.settings, shop.model, words(*["meets"] * 20), tmp_path / "out", file=file)
    found = pd.read_csv(done.result)
    assert found["file_name"].tolist() == [f"{n:03}.in" for n in range(20)]
    assert found["files"].max() == 3
    assert found["pid"].nunique() == 2
    assert (done.state, done.files, done.rows, done.failed) == ("done", 20, 20, 0)
    assert not (done.folder / "parts").exists()


def test_what_fails_once_is_tried_again_and_what_fails_always_is_told(shop: Shop, deployment: Deployment, words: Words) -> None:
    folder = words("fine", "fails once", "fails", "dies once", "dies", "lost", "hangs once", "hangs", "fine")
    file = deployment(SCRIPT, mini_batch_size=1, max_retries=1, timeout=3)
    done = batch.score(shop.settings, shop.model, folder, file=file, workers=2)
    scored = batch.results(shop.settings, done.id)
    assert scored["word"].tolist() == ["fine", "fails once", "dies once", "hangs once", "fine"]
    failed = batch.errors(shop.settings, done.id).set_index("file")["reason"]
    assert failed.sort_index().to_dict() == {
        "002.in": "ValueError: cannot read 002.in",
        "004.in": "the worker process died (SIGKILL)",
        "005.in": "run() returned 0 results for 1 files: 005.in",
        "007.in": "took longer than 3 s (retry_settings.timeout)"}
    assert (done.state, done.failed, done.files_done) == ("done", 4, 9)
    assert done.retries >= 6  # three that were well after one more try, three that were not
    [entry] = entries(shop.settings, done.uri)
    assert (entry.action, entry.details["failed"], entry.inputs) == ("score", 4, [shop.model.uri, str(folder)])


def test_a_worker_is_heard_before_it_is_called_late() -> None:
    """A driver that stood still finds both: the time is over, and the worker had told that it was done."""
    ours, theirs = Pipe()
    driver = Driver.__new__(Driver)
    driver.job, late = SimpleNamespace(timeout=1), []  # type: ignore[assignment]
    driver.workers = [Worker(1, None, ours, since=-100.0, ready=True, piece=object())]  # type: ignore[arg-type]
    driver._buried = lambda worker, reason: late.append(reason)  # type: ignore[method-assign]
    theirs.send_bytes(b"{}")
    driver._check_times()
    assert late == []
    ours.recv_bytes()
    driver._check_times()
    assert late == ["took longer than 1 s (retry_settings.timeout)"]


def test_too_many_failures_end_the_job_and_keep_the_results_so_far(shop: Shop, deployment: Deployment, words: Words,
                                                                    tmp_path: Path) -> None:
    folder = words("fine", "fails", "fine", "fails")
    file = deployment(SCRIPT, mini_batch_size=1, max_retries=0, error_threshold=1)
    with pytest.raises(StepFailed, match=r"(?s)2 of 4 files failed, more than error_threshold \(1\) allows.*cannot read 003.in"):
        batch.score(shop.settings, shop.model, folder, tmp_path / "out", file=file, workers=1)
    failed = batch.jobs(shop.settings)[-1]
    assert failed.state == "failed"
    assert batch.results(shop.settings, failed.id)["file_name"].tolist() == ["000.in", "002.in"]
    assert not (tmp_path / "out/predictions.csv").exists()  # nobody takes a part for the whole

    (tmp_path / "code/score.py").write_text(SCRIPT.replace('word == "fails"', "False"))  # mended: the failed ones are tried again
    done = batch.resume(shop.settings, failed.id)
    assert (done.state, done.failed, pd.read_csv(done.result)["file_name"].tolist()) == (
        "done", 0, ["000.in", "001.in", "002.in", "003.in"])


def test_a_script_that_does_not_start_fails_the_job_with_its_reason(shop: Shop, deployment: Deployment, words: Words) -> None:
    file = deployment(SCRIPT, variables={"INIT": "fails"})
    with pytest.raises(StepFailed, match=r"RuntimeError: no weights here.*worker-1\.log"):
        batch.score(shop.settings, shop.model, words("fine"), file=file, workers=1)


def test_summary_only_leaves_the_output_to_the_script(shop: Shop, deployment: Deployment, words: Words, tmp_path: Path) -> None:
    script = "import os, pathlib\ndef run(files):\n  for f in files:\n" \
             "    (pathlib.Path(os.environ['AZUREML_BI_OUTPUT_PATH']) / (pathlib.Path(f).stem + '.out')).touch()\n  return list(files)"
    done = batch.score(shop.settings, shop.model, words("a", "b"), tmp_path / "out",
                       file=deployment(script, output_action="summary_only"), workers=1)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["000.out", "001.out", "summary.json"]
    assert (done.rows, Path(done.result).name) == (2, "summary.json")


GO_ON = """
import sys
from mlops_nb.core.settings import load_settings
from mlops_nb.outer_loop import batch
settings = load_settings(root=sys.argv[1])
batch.resume(settings, batch.jobs(settings)[-1].id)
"""


@pytest.mark.slow
def test_kills_of_the_driver_and_of_workers_lose_nothing_and_double_nothing(
    shop: Shop, deployment: Deployment, words: Words, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Kill whatever is there at an odd moment; resumed, or asked for again, the same job goes on."""
    rounds = min(20, max(3, request.config.getoption("--kills") // 2))
    files = [f"{n:03}.in" for n in range(40 * rounds)]
    folder = words(*["slower"] * (30 * rounds), *["waits"] * (10 * rounds))  # no round comes to the end before the last
    file, output = deployment(SCRIPT, mini_batch_size=2, max_retries=50), tmp_path / "out"
    before = len(batch.jobs(shop.settings))
    with pytest.raises(KeyboardInterrupt):
        batch.score(shop.settings, shop.model, folder, output, file=file, workers=2, show=interrupt)
    for number in range(rounds):
        driver = subprocess.Popen([sys.executable, "-c", GO_ON, shop.settings.root])
        found = wait_for(lambda pid=driver.pid: psutil.Process(pid).children())
        time.sleep(0.3 + 0.07 * (number % 5))
        found[0].kill()
        time.sleep(0.2 + 0.05 * (number % 3))
        alive = wait_for(lambda pid=driver.pid: psutil.Process(pid).children(recursive=True))
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        assert alive
        assert not psutil.wait_procs(alive, timeout=60)[1]  # no orphans
    (tmp_path / "marks/go").touch()
    killed = batch.jobs(shop.settings)[-1]
    assert (killed.state, killed.message) == ("stopped", "its process was killed")
    done = batch.score(shop.settings, shop.model, folder, output, file=file, workers=2)
    assert (done.id, done.state, done.failed) == (killed.id, "done", 0)
    assert len(batch.jobs(shop.settings)) == before + 1
    assert pd.read_csv(done.result)["file_name"].tolist() == files


def interrupt(status: Status) -> None:
    raise KeyboardInterrupt


def wait_for(found: Callable[[], list[psutil.Process]]) -> list[psutil.Process]:
    until = time.monotonic() + 60
    while not (there := found()) and time.monotonic() < until:
        time.sleep(0.02)
    return there


def test_a_cancelled_job_stops_and_goes_on_only_when_told_to(shop: Shop, deployment: Deployment, words: Words) -> None:
    folder, file = words(*["slow"] * 70), deployment(SCRIPT, mini_batch_size=1)

    def call_off(status: Status) -> None:
        if status.rows and status.state == "running":
            batch.cancel(shop.settings, batch.jobs(shop.settings)[-1].id, wait=0)

    with pytest.raises(StepFailed, match="was cancelled by"):
        batch.score(shop.settings, shop.model, folder, file=file, workers=1, show=call_off)
    job = batch.jobs(shop.settings)[-1]
    assert (job.state, job.message) == ("stopped", f"cancelled by {shop.settings.user}")
    assert len(batch.results(shop.settings, job.id)) == job.rows < 70
    done = batch.resume(shop.settings, job.id)
    assert (done.state, done.rows, done.id) == ("done", 70, job.id)
    with pytest.raises(ValueError, match="nothing to cancel"):
        batch.cancel(shop.settings, job.id)


def test_a_job_does_not_go_on_with_other_files(shop: Shop, deployment: Deployment, words: Words) -> None:
    folder = words("fails", "fine")
    with pytest.raises(StepFailed):
        batch.score(shop.settings, shop.model, folder, file=deployment(SCRIPT, error_threshold=0, max_retries=0), workers=1)
    (folder / "000.in").write_text("now fine")
    with pytest.raises(ValueError, match=r"are not those that .* began with"):
        batch.resume(shop.settings, batch.jobs(shop.settings)[-1].id)
