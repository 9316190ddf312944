"""Two tables are compared alike whether they fit into memory or not, and as the monitor would."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from mlops_nb.core.records import Signal, SpecificationError
from mlops_nb.outer_loop import drift
from mlops_nb.outer_loop.streams import OUT_OF_BOX, compare_tables, report

ALL = {"numerical": dict.fromkeys(drift.NUMERICAL), "categorical": dict.fromkeys(drift.CATEGORICAL), "quality": OUT_OF_BOX["quality"]}


def frame(seed: int, rows: int, moved: float = 0.0, holes: float = 0.0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    made = pd.DataFrame({
        "x": random.normal(moved, 1, rows), "tail": random.pareto(1.5, rows), "count": random.integers(0, 10_000, rows),
        "code": random.integers(0, 5, rows),
        "cut": random.choice(["Ideal", "Good", "Fair"], rows, p=[0.5, 0.3 - moved / 10, 0.2 + moved / 10]),
        "sold": random.random(rows) < 0.5})
    for name in ("x", "cut") if holes else ():
        made[name] = made[name].mask(random.random(rows) < holes)
    return made


def by(signals: list[Signal]) -> dict[tuple[str, str], float | None]:
    return {(s.feature, s.metric): s.value for s in signals}


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize("holes", [0.0, 0.1])
def test_every_value_is_the_one_that_the_monitor_computes(tmp_path: Path, suffix: str, holes: float) -> None:
    b, p = frame(1, 1500, holes=holes), frame(2, 700, 0.3, holes)
    for name, table in (("b", b), ("p", p)):
        table.to_parquet(tmp_path / f"{name}.parquet") if suffix == "parquet" else table.to_csv(tmp_path / f"{name}.csv", index=False)
    found = by(compare_tables(tmp_path / f"b.{suffix}", tmp_path / f"p.{suffix}", thresholds=ALL))
    kinds = drift.column_types(b)
    assert kinds == {"x": "numerical", "tail": "numerical", "count": "numerical", "code": "categorical", "cut": "categorical",
                     "sold": "categorical"}
    whole = [pd.DataFrame({c: drift.cast(side[c], b[c]) for c in b}).dropna() for side in (b, p)]
    for name, kind in kinds.items():
        metrics = drift.NUMERICAL if kind == "numerical" else drift.CATEGORICAL
        expected = drift.measure(whole[0][name].to_numpy(), whole[1][name].to_numpy(), kind, metrics)
        expected |= drift.quality_rates(b[name], p[name], kind)
        assert {m: found[name, m] for m in expected} == pytest.approx(expected)


@pytest.mark.parametrize("holes", [0.0, 0.1])
def test_what_does_not_fit_is_counted_exactly_or_says_how_far_off_it_may_be(tmp_path: Path, holes: float) -> None:
    frame(1, 30_000, holes=holes).to_parquet(tmp_path / "b.parquet")
    frame(2, 20_000, 0.02, holes).to_parquet(tmp_path / "p.parquet")
    whole, stream = (compare_tables(tmp_path / "b.parquet", tmp_path / "p.parquet", thresholds=ALL, memory=m) for m in (2**29, 0))
    exact = by(whole)
    sketched = 0
    for signal in stream:
        value = exact[signal.feature, signal.metric]
        assert signal.value is not None
        if "error" in signal.detail:
            assert 0 < signal.detail["error"] < 1e-3
            assert abs(signal.value - value) <= signal.detail["error"]
        elif "sketch" in signal.detail:
            assert signal.detail["least"] - 1e-12 <= value <= signal.detail["most"] + 1e-12
        else:
            assert signal.value == pytest.approx(value)
        sketched += "sketch" in signal.detail
    assert sketched == 2 * 3  # Wasserstein and Kolmogorov-Smirnov, of three columns of numbers
    assert not any("sketch" in signal.detail for signal in whole)


@pytest.mark.parametrize("values", [[7.0] * 50, [0.0] * 49 + [1e9], [-1e-9, 1e-9] * 25, [1.0]])
def test_the_error_bound_holds_for_odd_columns(tmp_path: Path, values: list[float]) -> None:
    pl.DataFrame({"x": values}).write_parquet(tmp_path / "b.parquet")
    pl.DataFrame({"x": [*values[:-1], values[-1] + 0.5, 3.0]}).write_parquet(tmp_path / "p.parquet")
    exact, rough = (compare_tables(tmp_path / "b.parquet", tmp_path / "p.parquet", thresholds={"numerical": ALL["numerical"]}, memory=m)
                    for m in (2**29, 0))
    for signal in rough:
        value = by(exact)[signal.feature, signal.metric]
        room = signal.detail.get("error", 1e-9) * (1 + 1e-9)
        assert signal.detail.get("least", signal.value - room) - 1e-9 <= value <= signal.detail.get("most", signal.value + room) + 1e-9


def test_a_folder_of_files_is_one_table(tmp_path: Path) -> None:
    table = pl.from_pandas(frame(1, 1000))
    for number in range(4):
        (tmp_path / "in" / f"day={number}").mkdir(parents=True)
        table[number * 250:(number + 1) * 250].write_parquet(tmp_path / "in" / f"day={number}" / "part.parquet")
    table.write_parquet(tmp_path / "whole.parquet")
    signals = compare_tables(tmp_path / "whole.parquet", tmp_path / "in", thresholds=ALL)
    assert not any(s.breached for s in signals)
    assert by(signals)["x", "normalized_wasserstein_distance"] == 0


def test_values_that_are_not_of_the_references_type_are_counted(tmp_path: Path) -> None:
    pl.DataFrame({"carat": [0.2, 0.9], "sold": [True, False], "day": ["2026-01-01", "2026-01-02"]}).write_csv(tmp_path / "b.csv")
    (tmp_path / "p.csv").write_text("carat,sold,day\n0.3,1,2026-01-01\nheavy,maybe,2026-01-03\n,false,2026-01-02\n"
                                    " inf,TRUE,2026-01-02\n5,0,\n")
    found = by(compare_tables(tmp_path / "b.csv", tmp_path / "p.csv"))
    assert [found["carat", m] for m in OUT_OF_BOX["quality"]] == [0.2, 0.4, 0.2]
    assert [found["sold", m] for m in OUT_OF_BOX["quality"]] == [0.0, 0.2, 0.0]
    assert [found["day", m] for m in OUT_OF_BOX["quality"]] == [0.2, 0.0, 0.2]


def test_what_cannot_be_compared_is_a_failed_signal_never_silence(tmp_path: Path) -> None:
    kinds = {"gone": pl.Float64, "null": pl.Float64, "list": pl.List(pl.Int64), "text": pl.String, "kept": pl.Float64}
    b, p = {"gone": 1.0, "null": None, "list": [1], "text": "a", "kept": 1.5}, {"null": 1.0, "list": [1], "text": None, "kept": 1.5}
    for name, row in (("b", b), ("p", p)):
        pl.DataFrame([row], schema={c: kinds[c] for c in row}).write_parquet(tmp_path / f"{name}.parquet")
    signals = compare_tables(tmp_path / "b.parquet", tmp_path / "p.parquet")
    drifts = {s.feature: s for s in signals if s.type == "data_drift"}
    assert {name: s.problem for name, s in drifts.items()} == {
        "gone": "no such column in production", "null": "no values to compare (reference 0, production 1)",
        "list": "lists and structures cannot be compared", "text": "no value that fits the reference's type", "kept": ""}
    assert {name for name, s in drifts.items() if s.breached} == {"gone", "null", "list", "text"}
    assert by(signals)["text", "null_value_rate"] == 1.0


@pytest.mark.parametrize("rows", [0, 1])
def test_tables_of_no_or_one_row(tmp_path: Path, rows: int) -> None:
    frame(1, 100).to_parquet(tmp_path / "b.parquet")
    frame(1, 100).head(rows).to_parquet(tmp_path / "p.parquet")
    signals = compare_tables(tmp_path / "b.parquet", tmp_path / "p.parquet")
    assert all((s.value is None) == (rows == 0) for s in signals)
    assert all(s.breached and "production 0" in s.problem for s in signals if rows == 0)
    assert "<svg" in report(signals, "b", "p") or rows == 0


def test_a_thousand_columns(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name in ("b", "p"):
        pl.DataFrame({f"c{n}": random.normal(size=100) for n in range(1_000)}).write_parquet(tmp_path / f"{name}.parquet")
    assert len(compare_tables(tmp_path / "b.parquet", tmp_path / "p.parquet")) == 4_000


def test_types_features_and_thresholds_are_given(tmp_path: Path) -> None:
    frame(1, 500).to_parquet(tmp_path / "b.parquet")
    frame(2, 500, 0.5).to_parquet(tmp_path / "p.parquet")
    given = {"numerical": {"jensen_shannon_distance": 0.9}, "categorical": {"pearsons_chi_squared_test": 0.05}}
    signals = compare_tables(tmp_path / "b.parquet", tmp_path / "p.parquet", features=["x", "count"], types={"count": "categorical"},
                             thresholds=given)
    assert [(s.feature, s.metric) for s in signals] == [("x", "jensen_shannon_distance"), ("count", "pearsons_chi_squared_test")]
    assert [s.breached for s in signals] == [False, True]  # nothing but new categories: the probability is 0


@pytest.mark.parametrize(("change", "says"), [
    ({"types": {"x": "number"}}, "neither numerical nor categorical"), ({"types": {"y": "numerical"}}, "No column 'y'"),
    ({"thresholds": {"numeric": {}}}, "No group 'numeric'"), ({"thresholds": {"numerical": {"psi": 1}}}, "No metric 'psi'")])
def test_wrong_wishes_are_named(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    frame(1, 10).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(SpecificationError, match=says):
        compare_tables(tmp_path / "b.parquet", tmp_path / "b.parquet", **change)


def test_files_that_are_not_there_or_not_tables_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "broken.parquet").write_text("x")
    for name, kind, says in (("gone.csv", FileNotFoundError, "is not there"), ("empty", FileNotFoundError, "holds no Parquet or CSV"),
                             ("notes.txt", ValueError, "neither Parquet nor CSV"), ("broken.parquet", ValueError, "cannot be read")):
        with pytest.raises(kind, match=says):
            compare_tables(tmp_path / name, tmp_path / name)


def test_the_report_stands_alone_and_hostile_names_stay_text(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    pl.DataFrame({hostile: ["a", "<b>&"] * 50}).write_parquet(tmp_path / "b.parquet")
    pl.DataFrame({hostile: ["a", "new"] * 50}).write_parquet(tmp_path / "p.parquet")
    page = report(compare_tables(tmp_path / "b.parquet", tmp_path / "p.parquet"), hostile, "p")
    assert "<script" not in page
    assert "http" not in page
    assert "&lt;b&gt;&amp;" in page
    assert "has a data-quality fault: look there first" in page


COMPARE = [sys.executable, "-c", "import json, sys; from mlops_nb.commands import compare as c; import typer\n"
           "try: typer.run(c.compare)\n"
           "finally: print(json.dumps([m for m in ('pandas', 'mlflow', 'scipy', 'pyarrow') if m in sys.modules]))"]


def test_the_command_is_light_and_writes_the_report(tmp_path: Path) -> None:
    for name, moved in (("b", 0.0), ("p", 1.0)):
        frame(1, 500, moved).to_parquet(tmp_path / f"{name}.parquet")
    command = [*COMPARE, "b.parquet", "p.parquet", "-o", "report.html", "--column-type", "code=numerical"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(Path.cwd())})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []  # none of the heavy ones was needed
    assert "data_drift x normalized_wasserstein_distance: 1" in done.stdout
    assert "report: report.html" in done.stdout
    assert "aria-label=\"Shares of x in reference and production\"" in (tmp_path / "report.html").read_text()


def test_the_command_is_a_gate_when_asked(tmp_path: Path) -> None:
    from mlops_nb.commands.compare import compare
    from mlops_nb.core.records import GateClosed

    for name, moved in (("b", 0.0), ("p", 1.0)):
        frame(1, 500, moved).to_parquet(tmp_path / f"{name}.parquet")
    compare(tmp_path / "b.parquet", tmp_path / "b.parquet", gate=True)
    with pytest.raises(GateClosed, match="has moved"):
        compare(tmp_path / "b.parquet", tmp_path / "p.parquet", gate=True)
    with pytest.raises(SpecificationError, match="is not there"):
        compare(tmp_path / "gone.parquet", tmp_path / "p.parquet")
    with pytest.raises(SpecificationError, match="NAME=TYPE"):
        compare(tmp_path / "b.parquet", tmp_path / "p.parquet", column_type=["code"])
