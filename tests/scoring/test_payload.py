"""A request is read in every format, checked against the signature, and refused with a message one can act on."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from mlops_nb.scoring.fitting import Column, fit_table
from mlops_nb.scoring.reading import BadPayload, Unsupported, read_content, read_table
from mlops_nb.scoring.writing import as_json, as_rows

SIGNATURE = [Column("carat", "double"), Column("cut", "string"), Column("stones", "long"),
             Column("sold", "datetime", required=False), Column("boxed", "boolean", required=False)]
FRAME = pd.DataFrame({
    "carat": [0.5, 1.0], "cut": pd.Series(["Ideal", "Fair"], dtype="str"), "stones": [1, 2],
    "sold": pd.to_datetime(["2026-11-20T08:30:00", None]).astype("datetime64[ns]"), "boxed": [True, False]})
NAMES = list(FRAME.columns)
ROWS = [[0.5, "Ideal", 1, "2026-11-20T08:30:00", True], [1, "Fair", 2, None, False]]
RECORDS = [dict(zip(NAMES, row, strict=True)) for row in ROWS]
COLUMNS = {name: [row[i] for row in ROWS] for i, name in enumerate(NAMES)}
CSV = "boxed,carat,cut,stones,sold\ntrue,0.5,Ideal,1,2026-11-20T08:30:00\nfalse,1,Fair,2,\n"


def read(content: object, kind: str = "application/json") -> pd.DataFrame:
    body = content if isinstance(content, str) else json.dumps(content)
    return fit_table(read_table(body.encode(), kind), SIGNATURE)


@pytest.mark.parametrize("content", [
    {"input_data": {"columns": NAMES, "index": [7, 8], "data": ROWS}},
    {"input_data": {"columns": NAMES[::-1], "data": [row[::-1] for row in ROWS]}},
    {"input_data": ROWS},
    {"input_data": COLUMNS},
    {"dataframe_split": {"columns": NAMES, "data": ROWS}},
    {"dataframe_records": RECORDS},
    {"inputs": COLUMNS},
    {"inputs": RECORDS},
    {"instances": RECORDS},
    {"instances": ROWS},
    {"input_data": {**COLUMNS, "surplus": ["is", "ignored"]}},
], ids=lambda content: next(iter(content)))
def test_every_format_gives_the_same_table(content: dict[str, object]) -> None:
    pd.testing.assert_frame_equal(read(content), FRAME)


def test_csv_gives_the_same_table() -> None:
    pd.testing.assert_frame_equal(read(CSV, "text/csv; charset=utf-8"), FRAME)


def test_names_given_twice_in_an_object_and_numbers_of_any_kind() -> None:
    twice = '{"inputs": [], "inputs": {"carat": [1], "carat": [NaN, 2e0], "cut": ["a", "b"], "stones": [1.0, 2]}}'
    with pytest.raises(BadPayload, match="'carat', row 0: null"):
        read(twice)
    frame = read(twice.replace("NaN", "Infinity"))  # the last of equal names counts, as in Python
    assert frame["carat"].tolist() == [math.inf, 2.0]
    assert frame["stones"].tolist() == [1, 2]


def test_columns_may_be_known_by_their_place_and_hold_bytes() -> None:
    signature = [Column("0", "binary"), Column("1", "string")]
    frame = fit_table(read_table(b'{"inputs": [["aGk=", "x"]]}'), signature, positions=True)
    assert frame.to_dict(orient="split")["data"] == [[b"hi", "x"]]
    assert list(frame.columns) == [0, 1]
    with pytest.raises(BadPayload, match=r"is not binary\. Send bytes as base64 text"):
        fit_table(read_table(b'{"inputs": [["h!", "x"]]}'), signature, positions=True)


def test_an_optional_column_may_be_missing_or_null() -> None:
    frame = read({"input_data": {"columns": NAMES[:3], "data": [row[:3] for row in ROWS]}})
    assert frame["sold"].isna().all()
    assert frame["boxed"].isna().all()


@pytest.mark.parametrize("content", [{"input_data": []}, {"input_data": {"columns": NAMES, "data": []}}, {"inputs": []}])
def test_no_rows_give_an_empty_table_with_the_columns(content: dict[str, object]) -> None:
    frame = read(content)
    assert list(frame.columns) == NAMES
    assert len(frame) == 0


def one(**values: object) -> dict[str, object]:
    return {"dataframe_records": [RECORDS[0], RECORDS[1] | values]}


@pytest.mark.parametrize(("content", "says"), [
    ("{", "not JSON"),
    ("", "not JSON"),
    ("[1]", "exactly one of: input_data"),
    ("[" * 100000, "nested more than 64 deep"),
    ({"inputs": [[[[1] * 70]]] + [[]] * 70}, "rows differ in length"),
    ({"input_data": {"columns": NAMES, "index": [1, 2, 3], "data": ROWS}}, "index a list of 3 does not name 2 rows"),
    ({"input_data": {"columns": [["a"]], "data": [[1]]}}, "Column names must be text (given: a list of 1)"),
    ({"dataframe_records": [{f"c{n}{m}": 1 for m in range(99)} for n in range(999)]}, "999 records name"),
    ('{"inputs": "\\udc00"}', "half of a surrogate pair"),
    (one(sold="9999-01-01"), "is not a datetime"),
    ({"data": []}, "found: data"),
    ({"input_data": [], "inputs": []}, "exactly one of"),
    ({"input_data": 3}, "input_data is 3, not a table"),
    ({"input_data": [[1, 2]]}, "Rows have 2 values, the model needs 5: carat (double), cut (string)"),
    ({"input_data": [[1], [1, 2]]}, "rows differ in length (1, 2)"),
    ({"input_data": {"columns": ["a"], "data": [[1, 2]]}}, "row 0 has 2 values for 1 columns"),
    ({"input_data": {"columns": ["a", "a"], "data": [[1, 2]]}}, "Columns given twice: a"),
    ({"inputs": {"carat": [1, 2], "cut": ["a"]}}, "columns differ in length (carat: 2, cut: 1)"),
    ({"dataframe_records": [{"carat": 1, "size": 2}]}, "Missing columns: cut, stones (given: carat, size)"),
    (one(carat="big"), "Column 'carat', row 1: \"big\" is not a double. Send a number."),
    (one(carat="1.5"), "is not a double"),
    (one(carat=True), "Column 'carat', row 1: true is not a double"),
    (one(carat=None), "Column 'carat', row 1: null, but the model requires a double"),
    (one(cut=3), "Column 'cut', row 1: 3 is not a string"),
    (one(stones=1.5), "Column 'stones', row 1: 1.5 is not a long integer"),
    (one(stones=2**70), "is not a long integer"),
    (one(boxed="yes"), "Column 'boxed', row 1: \"yes\" is not a boolean. Send true or false."),
    (one(sold="yesterday"), "Column 'sold', row 1: \"yesterday\" is not a datetime"),
])
def test_a_fault_is_named_with_its_place_and_its_value(content: object, says: str) -> None:
    with pytest.raises(BadPayload) as caught:
        read(content)
    assert says in str(caught.value)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(BadPayload) as caught:
        read(one(carat="big", cut=3, stones=1.5))
    assert all(f"'{name}'" in str(caught.value) for name in ("carat", "cut", "stones"))


@pytest.mark.parametrize(("text", "says"), [
    ("", "CSV is empty"),
    ("carat,cut\n1\n", "CSV line 2 has 1 values, the header has 2"),
    (CSV.replace("0.5", "half"), "Column 'carat', row 0: \"half\" is not a double"),
])
def test_a_bad_csv_is_refused(text: str, says: str) -> None:
    with pytest.raises(BadPayload, match=says.replace("'", ".")):
        read(text, "text/csv")


def test_other_content_and_bytes_that_are_not_text_are_refused() -> None:
    with pytest.raises(BadPayload, match='"image/png" is not read here'):
        read_table(b"", "image/png")
    for kind in ("text/csv; charset=latin-1", 'application/json; charset="utf-16"'):
        with pytest.raises(Unsupported, match=r"Charset .* is not read here\. Send UTF-8"):
            read_table(b"{}", kind)
    with pytest.raises(Unsupported, match="Send the body as it is"):
        read_content(b"", encoding="gzip")
    with pytest.raises(BadPayload, match="not UTF-8"):
        read_table(b"\xff")


@pytest.mark.parametrize(("predictions", "expected"), [
    (np.array([1.5, math.nan, math.inf]), [1.5, None, None]),
    (np.array(["yes", "no"], dtype=object), ["yes", "no"]),
    (np.array([[0.25, 0.75]], dtype="float32"), [[0.25, 0.75]]),
    (pd.Series([1, 2]), [1, 2]),
    (pd.DataFrame({"low": [1.0, math.nan], "at": pd.to_datetime(["2026-11-20", None])}),
     [{"low": 1.0, "at": "2026-11-20T00:00:00"}, {"low": None, "at": None}]),
    (np.array([0.1], dtype="float32"), [0.10000000149011612]),
    ([2**70, "\ud800", {1: np.int64(2)}, pd.Timestamp("2026-11-20"), np.str_("a"), (1, 2)],
     [2**70, "\ud800", {"1": 2}, "2026-11-20T00:00:00", "a", [1, 2]]),
    ({"low": np.array([1]), "high": [np.float64(2), pd.NA]}, {"low": [1], "high": [2.0, None]}),
])
def test_predictions_become_json_that_every_reader_accepts(predictions: object, expected: object) -> None:
    written = as_json(as_rows(predictions)).decode()
    assert json.loads(written, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON")) == expected
