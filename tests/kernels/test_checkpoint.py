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

posix = pytest.mark.skipif(os.name != "posix", reason="files are swapped on POSIX")
LOOK = """import json, time
def look():
    time.sleep(0.1)  # a cell is in the file a twentieth of a second after it is done
    page = json.load(open('out-page.ipynb'))
    print(len(page['cells']), page['nbformat'])"""


def read(path: Path) -> int:
    """Read a notebook as strictly as nbformat does; returns the number of its cells."""
    page = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
    nbformat.validate(page)
    return len(page.cells)


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_the_file_has_every_cell_that_is_done(notebook, run):
    page = run(notebook("x = 1", LOOK, *["look()"] * 5))
    assert [cell.outputs[0].text for cell in page.cells[2:]] == [f"{n} 4\n" for n in range(2, 7)]


def test_the_last_version_is_laid_out_as_nbformat_does(notebook, run, tmp_path):
    run(notebook("x = 1", "print('ä')", "2"))
    text = (tmp_path / "out-page.ipynb").read_text(encoding="utf-8")
    assert text.rstrip("\n") == nbformat.writes(nbformat.reads(text, as_version=4)).rstrip("\n")
    assert hidden(tmp_path) == []


@posix
def test_a_reader_always_finds_a_whole_notebook(notebook, run, tmp_path):
    path, output = notebook("x = 1", *[f"print('{'y' * 500}')\n{n}" for n in range(300)]), tmp_path / "out-page.ipynb"
    sizes, broken, stop = [], [], threading.Event()

    def look() -> None:
        while not stop.is_set():
            try:
                sizes.append(len(json.loads(output.read_bytes())["cells"]))
            except FileNotFoundError:
                pass
            except ValueError as problem:
                broken.append(problem)

    reader = threading.Thread(target=look)
    reader.start()
    try:
        run(path)
    finally:
        stop.set()
        reader.join()
    assert broken == []
    assert read(output) == 301
    assert len(set(sizes)) > 10, "the reader saw the notebook grow"


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
    look = """print('early')
time.sleep(1.6)
print([out['text'] for cell in json.load(open('out-page.ipynb'))['cells'][1:] for out in cell['outputs']])"""
    page = run(notebook("import json, time", look))
    assert page.cells[1].outputs[0].text == "early\n['early\\n']\n"


def test_where_files_cannot_be_linked_the_file_is_still_whole(notebook, run, tmp_path, monkeypatch):
    def refuse(*_) -> None:
        raise OSError(errno.EPERM, "links are not permitted here")

    monkeypatch.setattr(os, "link", refuse)
    page = run(notebook("x = 1", LOOK, "look()", "import time; time.sleep(0.3)", "look()"))
    assert [cell.outputs[0].text[-2:] for cell in page.cells if cell.outputs] == ["4\n", "4\n"]
    assert read(tmp_path / "out-page.ipynb") == 5
    assert hidden(tmp_path) == []


def test_an_output_that_somebody_removes_comes_back(notebook, run, tmp_path):
    run(notebook("x = 1", "import os; os.unlink('out-page.ipynb')", LOOK, "look()", "look()"))
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
    notebook("import os, time", *[f"print('{'y' * 3000}')\ntime.sleep(0.002)\n{done}('{n + 1}')" for n in range(150)])
    runs = subprocess.Popen([sys.executable, "-c", KILLABLE], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for turn in range(6):
        output.unlink(missing_ok=True)
        (tmp_path / f"done{turn}").write_text("0")
        print(turn, file=runs.stdin, flush=True)
        pid = int(runs.stdout.readline())
        while not output.exists():
            time.sleep(0.01)
        time.sleep(random.Random(turn).uniform(0, 0.8))
        finished = int((tmp_path / f"done{turn}").read_text() or 0)
        time.sleep(0.15)
        os.kill(pid, signal.SIGKILL)
        assert read(output) >= finished + (finished > 0), "a cell that was finished well before the kill is lost"
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
    assert read(tmp_path / "out.ipynb") in (2, 3)  # as many as the last checkpoint that fitted had
    assert hidden(tmp_path) == []
