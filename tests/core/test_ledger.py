"""The ledger: what somebody with a database shell can do to it, and how it shows."""

import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from mlops_nb.core import ledger
from mlops_nb.core.settings import Settings


@pytest.fixture
def written(project: Settings) -> Settings:
    """A ledger of five entries."""
    for n in range(5):
        ledger.log(project, "train", f"run:{n}", inputs=[f"table:{n}"], outputs=[f"model:{n}"], r2=n / 10)
    return project


def meddle(settings: Settings, *statements: str) -> None:
    """Do what an intruder would: lift the triggers, then write."""
    with closing(sqlite3.connect(settings.ledger)) as database:
        for statement in ("DROP TRIGGER no_update", "DROP TRIGGER no_delete", *statements):
            database.execute(statement)
        database.commit()


def test_a_sound_ledger_has_no_faults(written):
    assert ledger.verify(written) == []


@pytest.mark.parametrize("statement", ["DELETE FROM entries", "UPDATE entries SET user = 'eve'"])
def test_the_database_itself_refuses_a_change(written, statement):
    with closing(sqlite3.connect(written.ledger)) as database, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        database.execute(statement)


@pytest.mark.parametrize("column", ["at", "user", "persona", "environment", "action", "subject"])
def test_a_changed_entry_is_found(written, column):
    meddle(written, f"UPDATE entries SET {column} = 'eve' WHERE seq = 3")  # noqa: S608
    assert [fault.split(":")[0] for fault in ledger.verify(written)] == ["entry 3"]


def test_a_removed_entry_is_found(written):
    meddle(written, "DELETE FROM entries WHERE seq = 3")
    assert any("entry 3: missing" in fault for fault in ledger.verify(written))


def test_the_newest_entry_cannot_be_dropped_silently(written):
    meddle(written, "DELETE FROM entries WHERE seq = 5")
    assert ledger.verify(written) == ["entries 5 to 5: missing at the end"]


def test_reordered_entries_are_found(written):
    meddle(written, "UPDATE entries SET seq = 9 WHERE seq = 2", "UPDATE entries SET seq = 2 WHERE seq = 3",
           "UPDATE entries SET seq = 3 WHERE seq = 9")  # fmt: skip
    assert len(ledger.verify(written)) >= 2


def test_a_rewritten_entry_with_a_fresh_hash_breaks_the_chain(written):
    entry = ledger.entries(written)[2]
    forged = {**vars(entry), "user": "eve"}
    meddle(written, f"UPDATE entries SET user = 'eve', hash = '{ledger._seal(forged)}' WHERE seq = 3")  # noqa: S608
    assert [fault.split(":")[0] for fault in ledger.verify(written)] == ["entry 4"]


def test_many_processes_write_one_chain(project):
    script = "import sys\nfrom mlops_nb.core import ledger\nfrom mlops_nb.core.settings import load_settings\n"
    script += "for n in range(20): ledger.log(load_settings(), 'train', f'run:{sys.argv[1]}.{n}')"
    writers = [subprocess.Popen([sys.executable, "-c", script, str(n)]) for n in range(4)]
    assert [writer.wait() for writer in writers] == [0, 0, 0, 0]
    assert len(ledger.entries(project)) == 80
    assert ledger.verify(project) == []


def test_the_command_line_verifies(written, mlops_nb_command):
    assert mlops_nb_command("ledger", "verify").stdout.strip() == "5 entries, unbroken"
    meddle(written, "UPDATE entries SET user = 'eve' WHERE seq = 2")
    broken = mlops_nb_command("ledger", "verify")
    assert broken.rc == 2
    assert "entry 2: changed after it was written" in broken.stderr
