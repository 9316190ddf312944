"""Every kind of input: what is listed, how large files are cut, what the signature lets through, and that answers are the model's."""

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.pipeline import make_pipeline

from mlops_nb.batch import plan, read
from mlops_nb.batch.files import list_files
from mlops_nb.batch.fit import Unfit, fit, to_model
from mlops_nb.batch.job import Job
from mlops_nb.batch.plan import make_plan
from mlops_nb.batch.read import Wanted, read_slice
from mlops_nb.core.records import SpecificationError
from mlops_nb.outer_loop import batch
from mlops_nb.scoring.fitting import Column

from .conftest import STONES, Shop

JOB = Job("j", "dev", "", "", "model:m/1", "", "", "", workers=2)


def test_tables_of_all_kinds_are_scored_as_the_model_scores_them(shop: Shop, tmp_path: Path, deployment: Callable[..., Path]) -> None:
    folder = tmp_path / "lists"
    folder.mkdir()
    frames = {"a.csv": STONES.head(3), "b.CSV": STONES.iloc[3:5], "c.parquet": STONES.iloc[5:20], "d.pqt": STONES.iloc[20:21]}
    frames["a.csv"].assign(note='"so, so\nla la"').to_csv(folder / "a.csv", index=False, quoting=csv.QUOTE_ALL)  # columns beside ours
    windows = frames["b.CSV"][["depth", "carat"]].to_csv(index=False).replace("\n", "\r\n\r\n")  # other order, blank lines
    (folder / "b.CSV").write_bytes(b"\xef\xbb\xbf" + windows.encode())
    frames["c.parquet"].to_parquet(folder / "c.parquet", row_group_size=4)
    frames["d.pqt"].to_parquet(folder / "d.pqt")
    (folder / "e.csv").write_text("carat,depth\n")
    (folder / "f.csv").write_text("carat,height\n1,2\n")
    (folder / "g.parquet").write_bytes(b"PAR1 not really")
    (folder / "_SUCCESS").touch()
    (folder / "deeper").mkdir()
    STONES.to_csv(folder / "deeper" / "h.csv")
    file = deployment(mini_batch_size=3)
    done = batch.score(shop.settings, shop.model, folder, tmp_path / "out", file=file, form="parquet", workers=2)

    expected = pd.concat([pd.DataFrame({"row": np.arange(len(frame)), "prediction": shop.regression.predict(frame), "file_name": name})
                          for name, frame in frames.items()], ignore_index=True)
    pd.testing.assert_frame_equal(pd.read_parquet(done.result), expected)
    failed = batch.errors(shop.settings, done.id).set_index("file")["reason"]
    assert sorted(failed.index) == ["f.csv", "g.parquet"]
    assert failed["f.csv"] == "columns are missing: depth (double) (there are: carat, height)"


def test_addresses_of_other_file_systems_are_read_and_written(shop: Shop, tmp_path: Path, deployment: Callable[..., Path]) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe({"/store/one.csv": STONES.head(3).to_csv(index=False).encode(), "/store/sub/two.csv": b"no"})
    done = batch.score(shop.settings, shop.model, "memory://store", "memory://priced", file=deployment(), workers=1)
    assert done.result == "memory://priced/predictions.csv"
    assert len(pd.read_csv(done.result)) == len(batch.results(shop.settings, done.id)) == 3
    assert [f.name for f in list_files("memory://store/*/*.csv")] == ["sub/two.csv"]
    (tmp_path / "one.csv").write_text("carat,depth\n1,60\n")
    assert [f.name for f in list_files(f"file://{tmp_path}/one.csv")] == ["one.csv"]
    with pytest.raises(SpecificationError, match="nosuch"):
        list_files("nosuch://store")


def test_what_cannot_be_input_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.csv").touch()
    with pytest.raises(SpecificationError, match="Nested folders are not searched"):
        list_files(str(tmp_path))
    assert [f.name for f in list_files(str(tmp_path), scripted=True)] == ["sub/a.csv"]
    assert [f.name for f in list_files(f"{tmp_path}/**/*.csv")] == ["sub/a.csv"]
    for name in ("b.docx", "c.jsonl", "d.csv"):
        (tmp_path / name).touch()
    with pytest.raises(SpecificationError, match=r"b\.docx, c\.jsonl: a model without a scoring script takes"):
        list_files(str(tmp_path))


def test_pictures_and_texts_are_scored(shop: Shop, tmp_path: Path, deployment: Callable[..., Path]) -> None:
    """Pictures go to a model that takes one array, in its shape; texts to the column that it takes."""
    (tmp_path / "pictures").mkdir()
    for value in (0, 100, 200):
        Image.fromarray(np.full((4, 4), value, np.uint8)).save(tmp_path / "pictures" / f"{value:03}.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "pictures" / "large.jpg")
    pixels = np.random.default_rng(0).uniform(0, 255, (50, 16))
    mean = LinearRegression().fit(pixels, pixels.mean(axis=1))
    mlflow.sklearn.save_model(mean, tmp_path / "brightness", signature=mlflow.models.infer_signature(pixels, np.array([1.0])),
                              pip_requirements=["scikit-learn"])
    done = batch.score(shop.settings, str(tmp_path / "brightness"), tmp_path / "pictures", file=deployment(), workers=1)
    assert batch.results(shop.settings, done.id)["prediction"].round().tolist() == [0, 100, 200]
    [reason] = batch.errors(shop.settings, done.id)["reason"]
    assert reason.startswith("a picture of shape (9, 9, 3), the model takes (16,)")

    (tmp_path / "letters").mkdir()
    letters = {"a.txt": "good good", "b.txt": "bad", "c.TXT": "good bad"}
    for name, text in letters.items():
        (tmp_path / "letters" / name).write_text(text)
    frame = pd.DataFrame({"letter": list(letters.values())})
    tone = make_pipeline(ColumnTransformer([("words", TfidfVectorizer(), "letter")]), Ridge()).fit(frame, [1.0, -1.0, 0.0])
    mlflow.sklearn.save_model(tone, tmp_path / "tone", signature=mlflow.models.infer_signature(frame, np.array([1.0])),
                              pip_requirements=["scikit-learn"])
    done = batch.score(shop.settings, str(tmp_path / "tone"), tmp_path / "letters", file=deployment(), workers=1)
    assert np.allclose(batch.results(shop.settings, done.id)["prediction"], tone.predict(frame))


# --- cutting large files ---------------------------------------------------------------------------------------------

VALUES = st.text(alphabet='ab",\n\r é', max_size=6)
ROWS = st.lists(st.tuples(VALUES.map(lambda text: f"x{text}x"), st.integers(-9, 9)), max_size=30)


@given(rows=ROWS, blank=st.lists(st.integers(0, 30), max_size=3), size=st.integers(1, 60), block=st.integers(1, 40))
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_csv_is_cut_between_its_rows(
    tmp_path_factory: Any, rows: list[tuple[str, int]], blank: list[int], size: int, block: int
) -> None:
    """Quoted line ends, blank lines, any size of pieces: the pieces' rows, with their numbers, are the file's."""
    lines = []
    for number, row in enumerate(rows):
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC).writerow(row)
        lines += ["\n"] * blank.count(number) + [buffer.getvalue()]
    path = tmp_path_factory.mktemp("csv") / "one.csv"
    path.write_bytes(("name,count\n" + "".join(lines)).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "LARGE", size)
        patch.setattr(plan, "_BLOCK", max(block, 12))
        pieces = [part for piece in make_plan(JOB, list_files(str(path))) for part in piece.slices]
    units = [unit for part in pieces for unit in read_slice(part, Wanted())]
    assert [row for unit in units for row in zip(*unit.data.to_pydict().values(), strict=True)] == [(n, c) for n, c in rows]
    assert [row for unit in units for row in range(unit.first, unit.first + unit.rows)] == list(range(len(rows)))


@pytest.mark.parametrize(("rows", "group"), [(1000, 100), (1000, 1000), (1001, 333), (1000, 7)])
def test_a_parquet_file_is_cut_for_all_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, group: int) -> None:
    table = pa.table({"n": np.arange(rows), "noise": np.random.default_rng(0).normal(size=rows)})
    pq.write_table(table, tmp_path / "one.parquet", row_group_size=group)
    monkeypatch.setattr(plan, "_LOOKED_AT", 10)
    monkeypatch.setattr(plan, "PIECE_ROWS", 150)
    pieces = make_plan(JOB, list_files(str(tmp_path)))
    assert len(pieces) >= JOB.workers
    units = [unit for piece in pieces for part in piece.slices for unit in read_slice(part, Wanted([Column("n", "long")]))]
    assert [n for unit in units for n in unit.data["n"].to_pylist()] == list(range(rows))
    assert [n for unit in units for n in range(unit.first, unit.first + unit.rows)] == list(range(rows))


def test_a_large_table_goes_through_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"n": np.arange(5000)}), tmp_path / "one.parquet")
    pd.DataFrame({"n": range(5000)}).to_csv(tmp_path / "two.csv", index=False)
    monkeypatch.setattr(read, "CHUNK_ROWS", 1000)
    for piece in make_plan(Job(**{**vars(JOB), "mini_batch_size": 1}), list_files(str(tmp_path))):
        assert [unit.rows for unit in read_slice(piece.slices[0], Wanted())] == [1000] * 5


# --- the signature ---------------------------------------------------------------------------------------------------

SIGNATURE = [Column("d", "double"), Column("l", "long"), Column("i", "integer", False), Column("s", "string"), Column("b", "boolean"),
             Column("t", "datetime"), Column("maybe", "double", False)]
WHOLE = pd.DataFrame({"d": [1.5, 2.0], "l": [1, 2], "i": [3.0, None], "s": ["x", "y"], "b": [True, False],
                      "t": pd.to_datetime(["2026-01-01", "2026-01-02"])})


def csv_units(text: str, path: Path) -> Iterator[Any]:
    path.write_text(text)
    [piece] = make_plan(JOB, list_files(str(path)))
    return read_slice(piece.slices[0], Wanted(SIGNATURE))


def test_a_table_becomes_what_the_model_was_trained_on(tmp_path: Path) -> None:
    found = to_model(fit(pa.Table.from_pandas(WHOLE.assign(other=1)), SIGNATURE))
    expected = WHOLE.assign(maybe=np.nan).astype({"t": "datetime64[ns]"})
    pd.testing.assert_frame_equal(found, expected)
    [unit] = csv_units(WHOLE.astype({"l": "float64"}).to_csv(index=False), tmp_path / "one.csv")  # 1.0 for 1
    pd.testing.assert_frame_equal(to_model(unit.data), expected)
    integers = pa.table({"d": pa.array([1, 2]), "l": pa.array([1.0, 2.0])})
    assert to_model(fit(integers, SIGNATURE[:2])).dtypes.astype(str).tolist() == ["float64", "int64"]


@pytest.mark.parametrize(("change", "reason"), [
    ({"d": ["a", "b"]}, "column 'd'.*model needs double"), ({"l": [1.5, 2.0]}, "column 'l'"), ({"l": [None, 1.0]}, "null in row 0"),
    ({"i": [2.0**40, 1.0]}, "column 'i'"), ({"s": [1, 2]}, "column 's'.*model needs string"), ({"b": [1, 0]}, "model needs boolean"),
    ({"t": ["soon", "later"]}, "column 't'")])
def test_what_does_not_fit_is_refused_by_column(change: dict[str, list[Any]], reason: str) -> None:
    with pytest.raises(Unfit, match=reason):
        fit(pa.Table.from_pandas(WHOLE.assign(**change)), SIGNATURE)


def test_a_csv_tells_the_column_and_the_row(tmp_path: Path) -> None:
    text = WHOLE.to_csv(index=False).replace("2.0,2", "two,2")
    with pytest.raises(Unfit, match="column 'd', row 1: invalid value 'two', the model needs double"):
        list(csv_units(text, tmp_path / "one.csv"))
