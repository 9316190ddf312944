"""How a notebook ends, other than by its last cell: each time with a clear word, a readable copy, and no process left."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from papermill.exceptions import PapermillExecutionError

from mlops_nb.core.records import StepFailed
from mlops_nb.kernels import client

CHILD = """import subprocess
_ = open('child', 'w').write(str(subprocess.Popen(['sleep', '300']).pid))"""
SLEEP = """open('asleep', 'w').close()
time.sleep(60)"""
posix = pytest.mark.skipif(os.name != "posix", reason="process groups are POSIX's")


def ran(path: Path) -> list[str]:
    """List how the code cells of the executed copy ended: the name of their error, else what they printed ("": nothing)."""
    page = nbformat.read(path.with_name(f"out-{path.name}"), as_version=4)
    cells = [{out.output_type: out for out in cell.outputs} for cell in page.cells if cell.cell_type == "code"][1:]
    return [out["error"].ename if "error" in out else out["stream"].text.strip() if out else "" for out in cells]


def gone(folder: Path) -> bool:
    """Say whether the process whose number is in `child` ends."""
    child, end = int((folder / "child").read_text()), time.monotonic() + 60
    while time.monotonic() < end:
        try:
            if psutil.Process(child).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def appears(path: Path) -> None:
    """Wait for a file."""
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.02)


def test_an_error_that_the_tag_expects_is_no_failure(notebook, run):
    path = notebook("x = 1", ("1 / 0", "raises-exception"), "print('after')")
    run(path)
    assert ran(path) == ["ZeroDivisionError", "after"]


def test_a_failure_behind_an_expected_error_is_told_as_such(notebook, run):
    path = notebook("x = 1", ("1 / 0", "raises-exception"), "int('a')", "print('after')")
    with pytest.raises(PapermillExecutionError, match="ValueError"):
        run(path)
    assert ran(path) == ["ZeroDivisionError", "ValueError", ""]


def test_a_cell_that_is_tagged_so_is_skipped(notebook, run):
    path = notebook("x = 1", ("print('never')", "skip-execution"), "print('after')")
    run(path)
    assert ran(path) == ["", "after"]


@pytest.mark.parametrize("leave", ["import sys; sys.exit(0)", "import sys; sys.exit()", "raise SystemExit(None)", "exit()", "quit()"])
def test_leaving_with_success_ends_the_notebook_there(notebook, run, leave):
    path = notebook("x = 1", leave, "print('after')")
    run(path)
    assert ran(path)[1] == ""


def test_leaving_with_another_code_fails(notebook, run):
    path = notebook("x = 1", "import sys; sys.exit(3)", "print('after')")
    with pytest.raises(PapermillExecutionError, match="SystemExit"):
        run(path)
    assert ran(path) == ["SystemExit", ""]


@posix
def test_a_kernel_that_dies_fails_the_notebook_and_leaves_what_was_done(notebook, run, tmp_path):
    path = notebook("import time", "print('before')", f"{CHILD}\nimport os\nos.kill(os.getpid(), 9)", "print('after')")
    with pytest.raises(StepFailed, match=r"cell \[3\](.|\n)*[Dd]ied \(SIGKILL, often (.|\n)* memory") as told:
        run(path)
    assert f"mlops-nb notebook debug {tmp_path}/out-page.ipynb" in str(told.value)
    assert "os.kill(os.getpid(), 9)" in str(told.value)
    assert ran(path) == ["before", "", ""]
    assert gone(tmp_path)


@posix
def test_a_crash_says_where(notebook, run):
    path = notebook("import time", "import ctypes\nctypes.string_at(0)")
    with pytest.raises(StepFailed, match=r"SIGSEGV(.|\n)*Segmentation fault(.|\n)*in string_at"):
        run(path)


@posix
def test_a_cell_that_takes_too_long_is_interrupted(notebook, run, tmp_path, hour_passes, monkeypatch):
    path = notebook("import time", f"{CHILD}\nprint('started', flush=True)\n{SLEEP}", "print('after')")
    hour_passes(tmp_path / "asleep")
    monkeypatch.setattr(client, "INTERRUPTED", 60)
    with pytest.raises(TimeoutError, match=r"cell \[2\]:(.|\n)*time.sleep\(60\)\n(.|\n)*more than 900 s(.|\n)*debug"):
        run(path, cell_timeout=900)
    assert ran(path) == ["KeyboardInterrupt", ""]
    assert gone(tmp_path)


@posix
def test_a_cell_that_cannot_be_interrupted_is_ended_all_the_same(notebook, run):
    stubborn = "while True:\n    try:\n        time.sleep(60)\n    except BaseException:\n        pass"
    with pytest.raises(TimeoutError):
        run(notebook("import time", stubborn), cell_timeout=0.5)


def test_a_notebook_that_takes_too_long_is_ended(notebook, run, tmp_path, hour_passes):
    path = notebook("import time", "print('done')", SLEEP, "print('after')")
    hour_passes(tmp_path / "asleep")
    with pytest.raises(TimeoutError, match=r"The notebook ran for more than 900 s"):
        run(path, notebook_timeout=900)
    assert ran(path)[0] == "done"
    assert ran(path)[-1] == ""


@posix
def test_another_thread_stops_a_run_at_once(notebook, run, tmp_path, monkeypatch):
    path, stop = notebook("import time", CHILD, SLEEP, "print('after')"), threading.Event()
    monkeypatch.setattr(client, "INTERRUPTED", 60)

    def later() -> None:
        appears(tmp_path / "asleep")
        stop.set()

    threading.Thread(target=later).start()
    with pytest.raises(KeyboardInterrupt):
        run(path, stop=stop)
    assert ran(path) == ["", "KeyboardInterrupt", ""], "it did not wait for the cell"
    assert gone(tmp_path)


@posix
def test_control_c_ends_the_command_and_its_processes(notebook, tmp_path):
    path = notebook("import time", f"print('before')\n{CHILD}", SLEEP, "print('after')")
    program = [Path(sys.executable).with_name("papermill"), "--engine", "mlops-nb", path.name, f"out-{path.name}"]
    asker = subprocess.Popen(program, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    appears(tmp_path / "asleep")
    asker.send_signal(signal.SIGINT)
    assert asker.wait(60) != 0
    assert ran(path) in (["before", "KeyboardInterrupt", ""], ["before", "", ""])  # a kernel that does not hear it in time is killed
    assert gone(tmp_path)


@posix
def test_what_a_finished_notebook_left_running_is_ended(notebook, run, tmp_path):
    """Whoever wants a process to go on starts it in a session of its own, as endpoints do."""
    apart = "open('apart', 'w').write(str(subprocess.Popen(['sleep', '300'], start_new_session=True).pid))"
    run(notebook("import time", CHILD, apart))
    assert gone(tmp_path)
    served = int((tmp_path / "apart").read_text())
    assert psutil.pid_exists(served)
    os.kill(served, signal.SIGKILL)
