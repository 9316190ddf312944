"""The output file: a whole notebook at every moment, with the cells done so far, at a cost that is linear in its size."""

import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import pytest

from mlops_nb.kernels.record import Record

posix = pytest.mark.skipif(os.name != "posix", reason="files are swapped on POSIX")
LOOK = """import json, time
def look(cells):
    end = time.monotonic() + 60
    while True:
        try:
            page = json.load(open('out-page.ipynb'))
        except (OSError, ValueError):  # it is gone; we stood still while it was written
            page = {'cells': []}
        if len(page['cells']) >= cells:
            break
        assert time.monotonic() < end, page
        time.sleep(0.01)
    print(len(page['cells']), page['nbformat'])"""


def read(path: Path) -> int:
    """Read a notebook as strictly as nbformat does; returns the number of its cells."""
    page = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
    nbformat.validate(page)
    return len(page.cells)


def cells_in(path: Path) -> int:
    """Count the cells of a file that is written meanwhile."""
    try:
        return len(json.loads(path.read_bytes())["cells"])
    except ValueError:  # we stood still
        return 0


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


@pytest.fixture
def only_done(monkeypatch):
    """Keep the running cell out of the file, which a long one would bring with those before it."""
    monkeypatch.setattr(Record, "autosave_cell", lambda self: None)


def test_the_file_has_every_cell_that_is_done(notebook, run, only_done):
    page = run(notebook("x = 1", LOOK, *[f"look({n})" for n in range(2, 7)]))
    assert [cell.outputs[0].text for cell in page.cells[2:]] == [f"{n} 4\n" for n in range(2, 7)]


def test_the_last_version_is_laid_out_as_nbformat_does(notebook, run, tmp_path):
    run(notebook("x = 1", "print('ä')", "2"))
    text = (tmp_path / "out-page.ipynb").read_text(encoding="utf-8")
    assert text.rstrip("\n") == nbformat.writes(nbformat.reads(text, as_version=4)).rstrip("\n")
    assert hidden(tmp_path) == []


@posix
def test_a_reader_always_finds_a_whole_notebook(notebook, run, tmp_path):
    wait = "while int(open('seen').read() or 0) < {0}: time.sleep(0.001)"  # so the reader comes along with the writer
    cells = [wait.format(n) if n % 25 == 0 else f"print('{'y' * 500}')\n{n}" for n in range(1, 301)]
    path, output, seen = notebook("import time", *cells), tmp_path / "out-page.ipynb", tmp_path / "seen"
    sizes, broken, stop = {0}, [], threading.Event()
    seen.write_text("0")

    def look() -> None:
        while not stop.is_set():
            began = time.monotonic()
            try:
                content = output.read_bytes()
            except FileNotFoundError:
                continue
            in_time = time.monotonic() - began < 0.05  # what a reader has
            try:
                size = len(json.loads(content)["cells"])
            except ValueError as problem:
                if in_time:
                    broken.append(problem)
                continue
            if size not in sizes:
                sizes.add(size)
                seen.write_text(str(size))

    reader = threading.Thread(target=look)
    reader.start()
    try:
        run(path, cell_timeout=60)
    finally:
        stop.set()
        reader.join()
    assert broken == []
    assert read(output) == 301
    assert len(sizes) > 10, "the reader saw the notebook grow"


@posix
@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="needs /proc")
def test_each_cell_is_written_a_few_times_and_not_once_for_each_that_follows(notebook, run, tmp_path):
    def written() -> int:
        return int(Path("/proc/self/io").read_text().split("wchar:")[1].split()[0])

    path = notebook("x = 1", *["print('y' * 2000)"] * 300)
    before = written()
    run(path)
    assert written() - before < 6 * (tmp_path / "out-page.ipynb").stat().st_size


def test_what_a_running_cell_has_printed_is_there_too(notebook, run):
    look = """word = 'ear' + 'ly'
print(word)
while word not in open('out-page.ipynb').read(): time.sleep(0.05)
print('seen')"""
    page = run(notebook("import time", look), cell_timeout=60)
    assert page.cells[1].outputs[0].text == "early\nseen\n"


def test_where_files_cannot_be_linked_the_file_is_still_whole(notebook, run, tmp_path, monkeypatch):
    def refuse(*_) -> None:
        raise OSError(errno.EPERM, "links are not permitted here")

    monkeypatch.setattr(os, "link", refuse)
    page = run(notebook("x = 1", LOOK, "look(0)", "import time; time.sleep(0.3)", "look(0)"))
    assert [cell.outputs[0].text[-2:] for cell in page.cells if cell.outputs] == ["4\n", "4\n"]
    assert read(tmp_path / "out-page.ipynb") == 5
    assert hidden(tmp_path) == []


def test_an_output_that_somebody_removes_comes_back(notebook, run, tmp_path, only_done):
    run(notebook("x = 1", "import os; os.unlink('out-page.ipynb')", LOOK, "look(3)", "look(4)"))
    page = nbformat.read(tmp_path / "out-page.ipynb", as_version=4)
    assert [cell.outputs[0].text for cell in page.cells[3:]] == ["3 4\n", "4 4\n"]
    assert hidden(tmp_path) == []


KILLABLE = """import os, sys, papermill
for turn in sys.stdin:  # a fork each, so that papermill is imported once
    if (pid := os.fork()) == 0:
        os.environ['TURN'] = turn.strip()
        papermill.execute_notebook('page.ipynb', 'out.ipynb', engine_name='mlops-nb', progress_bar=False)
        os._exit(0)
    print(pid, flush=True)
    os.waitpid(pid, 0)
"""


@posix
def test_a_kill_at_any_moment_leaves_a_readable_file(notebook, tmp_path):
    """Six of the hundred that the soak test deals out."""
    output, done = tmp_path / "out.ipynb", "_ = open(f\"done{os.environ['TURN']}\", 'w').write"
    cells = [f"print('{'y' * 3000}')\ntime.sleep(0.002)\n{done}('{n + 1}')" for n in range(150)]
    notebook("import os, time", *cells, "time.sleep(600)")  # the kill comes before the end
    runs = subprocess.Popen([sys.executable, "-c", KILLABLE], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for turn in range(6):
        output.unlink(missing_ok=True)
        (tmp_path / f"done{turn}").write_text("0")
        print(turn, file=runs.stdin, flush=True)
        pid, end = int(runs.stdout.readline()), time.monotonic() + 60
        while not output.exists():
            assert time.monotonic() < end
            time.sleep(0.01)
        chance = random.Random(turn)
        time.sleep(chance.uniform(0, 0.8))
        finished = int((tmp_path / f"done{turn}").read_text() or 0)
        while cells_in(output) < finished + (finished > 0):
            assert time.monotonic() < end, "a cell that was finished well before does not come"
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.1))
        os.kill(pid, signal.SIGKILL)
        assert read(output) >= finished + (finished > 0), "a cell that was there is lost"
    runs.stdin.close()
    runs.wait()


@posix
def test_what_a_killed_run_left_beside_its_output_is_removed_by_the_next(notebook, run, tmp_path):
    for letter in "ab":
        (tmp_path / f".out-page.ipynb.{letter}").write_text("left")
    run(notebook("x = 1", "1"))
    assert hidden(tmp_path) == []


def test_a_folder_that_cannot_be_is_told_before_a_kernel_starts(notebook, run, tmp_path):
    (tmp_path / "file").write_text("")
    path = notebook("x = 1", "open('started', 'w')")
    with pytest.raises(OSError, match="file"):
        run(path, save_to=tmp_path / "file" / "out.ipynb")
    assert not (tmp_path / "started").exists()


@posix
def test_a_full_disk_is_told_with_the_file_and_nothing_half_written_stays(notebook, tmp_path):
    path, log = notebook("x = 1", "print('y' * 3_000_000)", *["print('y' * 3_000_000)"] * 3), tmp_path / "log"
    run = f"import papermill; papermill.execute_notebook({str(path)!r}, 'out.ipynb', engine_name='mlops-nb', progress_bar=False)"
    with log.open("w") as file:
        done = subprocess.run(
            [sys.executable, "-c", run], cwd=tmp_path, stderr=file,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8_000_000, 8_000_000)),
        )  # fmt: skip
    assert done.returncode == 1
    assert f"File too large: '{tmp_path}/out.ipynb'" in log.read_text()
    assert read(tmp_path / "out.ipynb") in (2, 3, 4)  # as many as the last checkpoint that fitted had, with a slow cell that ran then
    assert hidden(tmp_path) == []
