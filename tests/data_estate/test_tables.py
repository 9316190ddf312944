"""Table versions: for ever readable, equal content once, and never half written."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from mlops_nb.core.ledger import entries
from mlops_nb.core.settings import Settings
from mlops_nb.data_estate.tables import digest, find_table, history, latest, read_table, write_table

STONES = pd.DataFrame({"carat": [0.23, 0.21, None], "cut": pd.Categorical(["Ideal", "Premium", None]), "price": [326, 326, 335],
                       "sold": pd.to_datetime(["2026-01-01", None, "2026-01-03"]), "certified": [True, None, False]})
WRITER = """
import sys, numpy as np, pandas as pd
from mlops_nb.core.settings import load_settings
from mlops_nb.data_estate.tables import write_table
settings, first, count = load_settings(), int(sys.argv[1]), int(sys.argv[2])
for number in range(first, first + count):
    write_table(settings, pd.DataFrame({"n": number, "x": np.random.default_rng(number).random(100_000)}), "numbers", "gold")
"""


def start_writer(first: int, count: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(first), str(count)])


def test_every_version_stays_readable(project: Settings) -> None:
    versions = [write_table(project, STONES.assign(price=price), "diamonds", "gold", target="price") for price in range(300, 306)]
    assert history(project, "diamonds") == versions
    assert latest(project, "diamonds") == versions[-1]
    for price, version in zip(range(300, 306), versions, strict=True):
        assert read_table(project, version)["price"].unique() == [price]
        assert digest(read_table(project, version.uri)) == version.digest
        assert find_table(project, version.uri) == version
    assert (versions[0].owner, versions[0].target, versions[0].rows) == (project.user, "price", 3)


def test_columns_may_change_from_version_to_version(project: Settings) -> None:
    first = write_table(project, STONES, "diamonds", "bronze")
    second = write_table(project, STONES.drop(columns="sold").assign(price=["326", "?", "335"]), "diamonds", "bronze")
    assert read_table(project, first)["price"].dtype == "int64"
    assert read_table(project, second)["price"].tolist() == ["326", "?", "335"]
    assert "sold" not in read_table(project, second)


def test_equal_content_makes_no_new_version_and_no_entry(project: Settings) -> None:
    first = write_table(project, STONES, "diamonds", "gold")
    assert write_table(project, STONES.iloc[::-1], "diamonds", "gold") == first
    assert write_table(project, read_table(project, first), "diamonds", "gold") == first
    assert [entry.subject for entry in entries(project, action="write")] == [first.uri]


def test_the_digest_sees_values_names_and_types() -> None:
    others = [STONES.assign(price=[326, 326, 336]), STONES.rename(columns={"cut": "Cut"}), STONES.astype({"price": "float64"}),
              STONES.head(2), pd.concat([STONES, STONES])]
    assert digest(STONES) not in map(digest, others)
    assert len(set(map(digest, others))) == len(others)


def test_what_is_read_is_what_was_written(project: Settings) -> None:
    odd = pd.DataFrame({"": [1.5, np.nan], "a b;c": ["ä", ""], "small": np.array([1, 2], "uint8"), "none": [None, None],
                        "when": pd.to_datetime(["2026-01-01T12:00+02:00", None], utc=True)})
    read = read_table(project, write_table(project, odd, "odd", "bronze"))
    assert list(read) == list(odd)
    assert read["a b;c"].tolist() == ["ä", ""]
    assert read["when"].iloc[0] == pd.Timestamp("2026-01-01 10:00")
    empty = write_table(project, STONES.head(0), "diamonds", "quarantine")
    assert list(read_table(project, empty)) == list(STONES)


def test_a_killed_writer_leaves_the_version_before_it(project: Settings) -> None:
    for delay in (0.0, 0.05):
        before = len(history(project, "numbers"))
        writer = start_writer(before, 10_000)
        while len(history(project, "numbers")) < before + 2:
            assert writer.poll() is None
            time.sleep(0.02)
        time.sleep(delay)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        newest = latest(project, "numbers")
        assert digest(read_table(project, newest)) == newest.digest
    after = write_table(project, pd.DataFrame({"n": [-1]}), "numbers", "gold")  # no lock is left behind either
    assert after.version == newest.version + 1


def test_two_writers_at_once_lose_nothing(project: Settings) -> None:
    writers = [start_writer(0, 4), start_writer(100, 4)]
    assert [writer.wait(300) for writer in writers] == [0, 0]
    assert {read_table(project, version)["n"].iloc[0] for version in history(project, "numbers")} == {*range(4), *range(100, 104)}


@pytest.mark.parametrize(("frame", "name", "message"), [
    (STONES.assign(price=[1, "two", 3.0]), "diamonds", "mixes types"),
    (STONES.assign(sizes=[[1], [2], [3]]), "diamonds", "Column 'sizes' holds list"),
    (pd.concat([STONES, STONES[["price"]]], axis=1), "diamonds", "appear twice: price"),
    (STONES, "../diamonds", "is no name for a table"),
])
def test_what_a_table_cannot_hold(project: Settings, frame: pd.DataFrame, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_table(project, frame, name, "bronze")
    assert not entries(project)


def test_a_table_or_version_that_is_not_there(project: Settings) -> None:
    write_table(project, STONES, "diamonds", "gold")
    with pytest.raises(FileNotFoundError, match=r"No table rubies.gold in dev \(tables: diamonds.gold\)"):
        read_table(project, "rubies")
    with pytest.raises(FileNotFoundError, match=r"No version 7 of diamonds\.gold in dev"):
        read_table(project, "diamonds", version=7)
    with pytest.raises(ValueError, match="is no table's address"):
        read_table(project, "model:dev.diamonds/3")
    with pytest.raises(ValueError, match="No column 'cost' in diamonds"):
        write_table(project, STONES, "diamonds", "gold", target="cost")
