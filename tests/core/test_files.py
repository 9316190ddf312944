"""Files: a reader never sees half of one."""

import subprocess
import sys
import time

import pytest

from mlops_nb.core.files import append_line, read_lines, write_file

ENDLESS = """
import sys
from mlops_nb.core.files import write_file
n = 0
while True:
    n += 1
    write_file(sys.argv[1], str(n % 10) * 500_000)
"""


def test_a_writer_killed_at_any_moment_leaves_a_whole_file(tmp_path):
    path = tmp_path / "whole.txt"
    for pause in (0.15, 0.21, 0.33, 0.4):
        writer = subprocess.Popen([sys.executable, "-c", ENDLESS, str(path)])
        while not path.exists():
            time.sleep(0.01)
        time.sleep(pause)
        writer.kill()
        writer.wait()
        content = path.read_text()
        assert len(content) == 500_000
        assert set(content) == {content[0]}


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch):
    path = write_file(tmp_path / "a.txt", "old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_file(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_journal_passes_over_a_torn_line_anywhere(tmp_path):
    journal = tmp_path / "journal.jsonl"
    for n in range(3):
        append_line(journal, {"n": n})
        with journal.open("ab") as torn:
            torn.write(b'{"n":')
    append_line(journal, {"n": 3})
    assert [entry["n"] for entry in read_lines(journal)] == [0, 1, 2, 3]
