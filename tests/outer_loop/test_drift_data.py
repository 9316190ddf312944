"""On real data: a shift of population is seen, chance is not, and a broken sensor is a fault of the data before it is drift."""

import datetime as dt
from pathlib import Path

import pandas as pd
import pytest

from mlops_nb.core.records import Signal
from mlops_nb.outer_loop import drift
from mlops_nb.outer_loop.collected import read_folder
from mlops_nb.outer_loop.streams import compare_tables, report

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
TABLES = SHARED / "tabular"
pytestmark = pytest.mark.skipif(not TABLES.is_dir(), reason="the shared data are not here")
TRIP = ["passengerCount", "tripDistance", "fareAmount", "tipAmount", "tollsAmount", "totalAmount", "paymentType", "rateCodeID",
        "vendorID"]
PLACES = ["passengerCount", "tripDistance", "pickupLongitude", "pickupLatitude", "dropoffLongitude", "dropoffLatitude", "totalAmount"]


@pytest.fixture(scope="module")
def green() -> pd.DataFrame:
    return pd.read_csv(TABLES / "greenTaxiData_2016-01.csv")


def compare(folder: Path, reference: pd.DataFrame, production: pd.DataFrame) -> list[Signal]:
    for name, table in (("reference", reference), ("production", production)):
        table.to_csv(folder / f"{name}.csv", index=False)
    return compare_tables(folder / "reference.csv", folder / "production.csv")


def moved(signals: list[Signal]) -> set[str]:
    return {s.feature for s in signals if s.type == "data_drift" and s.breached}


def test_green_taxis_are_not_yellow_ones(tmp_path: Path, green: pd.DataFrame) -> None:
    yellow = pd.read_csv(TABLES / "yellowTaxiData_2016-01.csv").rename(columns={"rateCodeId": "rateCodeID"})
    found = moved(compare(tmp_path, green[TRIP], yellow[TRIP]))
    assert {"tripDistance", "tipAmount", "tollsAmount", "paymentType", "vendorID"} <= found
    assert "fareAmount" not in found  # what a mile costs is the same in both colours


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_two_halves_of_one_month_are_alike(tmp_path: Path, green: pd.DataFrame, seed: int) -> None:
    drawn = green[TRIP].sample(frac=1, random_state=seed)
    assert moved(compare(tmp_path, drawn[:2500], drawn[2500:])) == set()
    trips = pd.read_csv(TABLES / "taxi-data.csv", index_col=0).sample(frac=1, random_state=seed)
    assert moved(compare(tmp_path, trips[:5000], trips[5000:])) == set()


def test_points_in_the_ocean_are_a_fault_of_the_data_first(tmp_path: Path, green: pd.DataFrame) -> None:
    """Known defect 6: five trips that begin at 0, 0 move Wasserstein beyond all measure, and the counts not at all."""
    before = pd.read_csv(TABLES / "nyc_green_taxi_2015Q1.csv")[PLACES]
    assert (before["pickupLongitude"] != 0).all()
    assert (green["pickupLongitude"] == 0).sum() == 5
    signals = compare(tmp_path, before, green[PLACES])
    names = [(s.feature, s.metric) for s in signals if s.breached]
    fault, drifted = ("pickupLongitude", "out_of_bounds_rate"), ("pickupLongitude", "normalized_wasserstein_distance")
    assert names.index(fault) < names.index(drifted)
    assert next(s.value for s in signals if (s.feature, s.metric) == drifted) > 1
    page = report(signals, "2015", "2016")
    assert page.index("have a data-quality fault: look there first") < page.index("pickupLongitude, pickupLatitude moved")
    without = green[PLACES][green["pickupLongitude"] != 0]
    assert not {"pickupLongitude", "pickupLatitude"} & moved(compare(tmp_path, before, without))


@pytest.mark.parametrize(("known", "later", "delayed"), [
    ([5], [9], set()), ([4], [10], {"DepDelay", "ArrDelay"}), ([4, 5], [6, 7], {"DepDelay", "ArrDelay"})])
def test_delays_of_flights_lie_on_both_sides_of_the_threshold(tmp_path: Path, known: list[int], later: list[int],
                                                              delayed: set[str]) -> None:
    flights = pd.read_parquet(TABLES / "flight_delays_2013_sample.parquet")
    sides = [flights[flights["Month"].isin(months)].drop(columns=["Year", "Month", "DayofMonth"]) for months in (known, later)]
    sides[0].to_parquet(tmp_path / "reference.parquet")
    sides[1].to_parquet(tmp_path / "production.parquet")
    signals = compare_tables(tmp_path / "reference.parquet", tmp_path / "production.parquet")
    assert {s.feature for s in signals if s.breached and s.feature in ("DepDelay", "ArrDelay") and s.type == "data_drift"} == delayed
    near = [s.value for s in signals if s.feature in ("DepDelay", "ArrDelay") and s.type == "data_drift"]
    assert all(0.09 < value < 0.16 for value in near if value is not None)
    assert not {"Carrier", "DayOfWeek", "CRSArrTime", "Cancelled"} & moved(signals)
    assert not any("__index_level_0__" in s.feature for s in signals)  # pandas' own column is none


def test_sales_of_juice_do_not_move_between_two_random_halves(tmp_path: Path) -> None:
    sales = pd.read_csv(TABLES / "oj_sales_data.csv").drop(columns=["WeekStarting", "Store"]).sample(frac=1, random_state=1)
    assert moved(compare(tmp_path, sales[:6000], sales[6000:])) == set()


@pytest.mark.parametrize(("folder", "alerts"), [("iris_model_inputs_no_drift", False), ("iris_model_inputs_with_drift", True)])
def test_the_services_own_collected_files(folder: str, alerts: bool) -> None:
    january = dt.datetime(2023, 1, 1, tzinfo=dt.UTC)
    sent = read_folder(SHARED / "monitoring" / folder, january, january + dt.timedelta(days=31)).frame
    baseline = pd.read_csv(SHARED / "monitoring" / "iris_baseline.csv")
    for name in ("sepal_length", "sepal_width", "petal_length", "petal_width"):
        values = drift.measure(baseline[name].to_numpy(), sent[name].to_numpy(), "numerical", drift.NUMERICAL)
        for metric, threshold in (("normalized_wasserstein_distance", 0.5), ("two_sample_kolmogorov_smirnov_test", 0.05)):
            assert drift.breaches(metric, values[metric], threshold) == alerts, values
