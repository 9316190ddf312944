"""Files: a reader never sees half of one."""

import sqlite3
import subprocess
import sys
import time
from itertools import count
from types import SimpleNamespace

import pytest

from mlops_nb.core.files import all_or_nothing, append_line, open_database, read_lines, write_file

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


@pytest.fixture
def two(tmp_path):
    """One file of rows, opened twice; the second one writes already."""
    schema = "CREATE TABLE sales (stone TEXT)"
    with open_database(tmp_path / "shop.db", schema) as mine, open_database(tmp_path / "shop.db", schema) as other:
        other.execute("BEGIN IMMEDIATE")
        yield mine, other


def test_whoever_waits_for_his_turn_to_write_asks_often(two, monkeypatch):
    """SQLite's own waits grow to a tenth of a second; a program that writes all the time would always come first."""
    (mine, other), waits = two, []

    def wait(seconds):
        waits.append(seconds)
        if len(waits) == 100:
            other.execute("COMMIT")

    monkeypatch.setattr("mlops_nb.core.files.time", SimpleNamespace(sleep=wait, monotonic=lambda: 0.0))
    with all_or_nothing(mine):
        mine.execute("INSERT INTO sales VALUES ('ruby')")
    assert len(waits) == 100
    assert max(waits) < 0.01
    assert other.execute("SELECT * FROM sales").fetchall() == [("ruby",)]


def test_nobody_waits_for_ever(two, monkeypatch):
    (mine, other), clock = two, count(0, 10)
    monkeypatch.setattr("mlops_nb.core.files.time", SimpleNamespace(sleep=lambda seconds: None, monotonic=lambda: next(clock)))
    with pytest.raises(sqlite3.OperationalError, match="locked"), all_or_nothing(mine):
        pass
    other.execute("COMMIT")
    with all_or_nothing(mine):
        pass
