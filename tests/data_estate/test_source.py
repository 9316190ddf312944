"""Reading a raw table: every place it may lie, and every way it may be unusable."""

import gzip
from pathlib import Path

import pandas as pd
import pytest

from mlops_nb.data_estate.source import read_source

RIDES = ",cost,distance,start\n0,4.5,0.83,2016-01-03 21:02:35\n1,6.0,1.27,2016-01-19 21:49:17\n2,,0.4,\n"
TAXI = Path(__file__).resolve().parents[3] / "shared" / "data" / "tabular" / "taxi-data.csv"


def test_csv_parquet_json_lines_gzip_and_addresses_give_the_same_table(tmp_path: Path) -> None:
    (tmp_path / "rides.csv").write_text(RIDES)
    (tmp_path / "rides.csv.gz").write_bytes(gzip.compress(RIDES.encode()))
    plain = read_source(str(tmp_path / "rides.csv"))
    plain.to_parquet(tmp_path / "rides.parquet")
    plain.to_json(tmp_path / "rides.jsonl", orient="records", lines=True, date_format="iso", date_unit="s")
    for address in (f"{tmp_path}/rides.csv.gz", f"{tmp_path}/rides.parquet", f"{tmp_path}/rides.jsonl", f"file://{tmp_path}/rides.csv"):
        pd.testing.assert_frame_equal(read_source(address), plain)
    assert plain["start"].dtype.kind == "M"
    assert plain["start"].isna().sum() == 1


def test_only_a_nameless_running_number_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "rides.csv").write_text(RIDES)
    assert list(read_source(str(tmp_path / "rides.csv"))) == ["cost", "distance", "start"]
    (tmp_path / "codes.csv").write_text(",cost\n7,4.5\n3,6.0\n")
    assert read_source(str(tmp_path / "codes.csv")).shape == (2, 2)  # nameless, but not running: it may mean something
    (tmp_path / "ids.csv").write_text("id,cost\n0,4.5\n1,6.0\n")
    assert "id" in read_source(str(tmp_path / "ids.csv"))


def test_text_that_only_looks_like_dates_stays_text(tmp_path: Path) -> None:
    (tmp_path / "parts.csv").write_text("part,weight\n2016-01-03,1\n2016-99-99,2\n")
    assert read_source(str(tmp_path / "parts.csv"))["part"].tolist() == ["2016-01-03", "2016-99-99"]


def test_a_table_that_a_package_carries() -> None:
    diamonds = read_source("plotnine.data:diamonds")
    assert diamonds.shape == (53_940, 10)
    diamonds.loc[0, "price"] = -1
    assert read_source("plotnine.data:diamonds").loc[0, "price"] == 326  # a copy was changed, not the package's own


@pytest.mark.skipif(not TAXI.exists(), reason="no shared data here")
def test_taxi_rides() -> None:
    rides = read_source(str(TAXI))
    assert rides.shape == (9_773, 21)
    assert rides.columns[0] == "cost"


@pytest.mark.parametrize(("name", "content", "message"), [
    ("gone.csv", None, "No file .*gone.csv. Check the path"),
    ("rides.xlsx", b"PK", "suffix is '.xlsx'. Pass a .csv, .parquet or .jsonl"),
    ("rides", b"a,b\n1,2\n", "suffix is ''"),
    ("nothing.csv", b"", "nothing.csv is empty"),
    ("header.csv", b"cost,distance\n", "header.csv has 0 rows and 2 columns"),
    ("torn.parquet", b"PAR1 and then the disk was full", "Cannot read .*torn.parquet as Parquet"),
    ("torn.csv.gz", gzip.compress(RIDES.encode() * 99, mtime=0)[:60], "Cannot read .*torn.csv.gz as CSV"),
    ("binary.csv", b"\xff\xfe\x00\x81,\x00\n", "Cannot read .*binary.csv as CSV"),
    ("ragged.csv", b"a,b\n1,2\n1,2,3,4\n", "Cannot read .*ragged.csv as CSV"),
])
def test_a_source_that_cannot_be_used_says_why(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_source(str(tmp_path / name))


@pytest.mark.parametrize("address", ["no_such_package:table", "plotnine.data:rubies"])
def test_an_unknown_package_or_table_is_not_found(address: str) -> None:
    with pytest.raises(FileNotFoundError, match=address):
        read_source(address)


def test_an_attribute_that_is_no_table() -> None:
    with pytest.raises(ValueError, match="sys:path is a list, not a DataFrame"):
        read_source("sys:path")
