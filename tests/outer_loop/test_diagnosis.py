"""Before retraining: what moved, since when, where, and whether it is a fault, a season or a true shift."""

import datetime as dt
import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops_nb.core.records import Signal
from mlops_nb.outer_loop.diagnosis import Diagnosis, diagnose, report
from mlops_nb.outer_loop.drift import cast, column_types, measure

END = dt.datetime(2026, 3, 21, tzinfo=dt.UTC)
WINDOW = (END - dt.timedelta(days=1), END)
DAY = dt.timedelta(days=1)
TAXI = Path(__file__).resolve().parents[3] / "shared" / "data" / "tabular"
GPS = ["pickupLongitude", "pickupLatitude", "dropoffLongitude", "dropoffLatitude", "passengerCount", "tripDistance", "totalAmount"]


def parcels(rows: int, seed: int) -> pd.DataFrame:
    """Parcels whose weight follows from their size; the rest is independent."""
    rng = np.random.default_rng(seed)
    size = rng.lognormal(1, 0.5, rows)
    return pd.DataFrame({"size": size, "weight": 3 * size**2 * rng.normal(1, 0.05, rows), "celsius": rng.normal(18, 6, rows),
                         "shop": rng.choice(["Bonn", "Ghent", "Lund"], rows, p=[0.5, 0.3, 0.2]), "lane": rng.poisson(4, rows)})


REFERENCE = parcels(3000, 0)


def collected(days: int = 16, a_day: int = 700) -> pd.DataFrame:
    """What was collected day by day until the window's end, alike the reference."""
    times = pd.date_range(END - days * DAY, END, periods=days * a_day + 1, tz="UTC")[:-1]
    return parcels(len(times), 1).assign(time=times)


def reader(past: pd.DataFrame) -> Callable[[tuple[dt.datetime, dt.datetime]], pd.DataFrame]:
    return lambda window: past[(past["time"] >= window[0]) & (past["time"] < window[1])].reset_index(drop=True)


def breached(feature: str, kind: str = "data_drift", metric: str = "jensen_shannon_distance") -> Signal:
    return Signal("drift", kind, feature, metric, 0.4, 0.1, True)


def examine(past: pd.DataFrame, *signals: Signal, reference: pd.DataFrame = REFERENCE, truth: pd.DataFrame | None = None) -> Diagnosis:
    read = reader(past)
    return diagnose("parcels", "deployment:dev.parcels/blue", WINDOW, signals, reference, read(WINDOW), read, truth)


def test_bigger_parcels_since_tuesday_afternoon_are_a_true_shift() -> None:
    past, began = collected(), END - dt.timedelta(days=3, hours=9)
    later = (past["time"] >= began).to_numpy()
    past = past.assign(size=past["size"].where(~later, past["size"] * 1.5), weight=past["weight"].where(~later, past["weight"] * 2.25))
    found = examine(past, breached("size"))
    assert (found.recommendation, found.cause, found.quality, found.season) == ("retrain", "true_shift", [], {})
    assert {moved.name for moved in found.features[:2]} == {"size", "weight"}
    assert sum(moved.share for moved in found.features) == pytest.approx(1)
    assert abs(dt.datetime.fromisoformat(found.since or "") - began) <= dt.timedelta(hours=2)
    assert found.sentence.startswith("Production has truly moved in ")
    assert "17 March" in found.sentence
    assert json.loads(json.dumps(asdict(found)))["rows"] == [3000, 700]


def test_a_shift_of_one_shop_names_the_shop() -> None:
    past = collected(3)
    past["celsius"] = past["celsius"].where(past["shop"] != "Ghent", past["celsius"] + 12)
    found = examine(past, breached("celsius"))
    assert found.cause == "true_shift"
    assert [one.name for one in found.segments] == ["shop=Ghent"]
    assert "most of all for shop=Ghent" in found.sentence


def test_columns_that_only_moved_against_each_other_are_found() -> None:
    """Each column alone is as it was: no distance of one column sees that weights no longer belong to sizes."""
    past = collected(2)
    past["weight"] = np.random.default_rng(0).permutation(past["weight"])
    found = examine(past, breached("weight"))
    assert found.cause == "true_shift"
    assert {moved.name for moved in found.features[:2]} == {"size", "weight"}


FAULTS: dict[str, tuple[str, Callable[[pd.DataFrame], Any]]] = {
    "nulls": ("celsius", lambda past: past["celsius"].mask(past.index % 5 == 0)),
    "constant": ("celsius", lambda past: 21.5),
    "placeholder": ("celsius", lambda past: past["celsius"].mask(past.index % 12 == 0, -999.0)),
    "unit": ("weight", lambda past: past["weight"] * 1000),
    "type": ("celsius", lambda past: past["celsius"].astype(object).mask(past.index % 9 == 0, "18 C")),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_at_the_source_is_not_retrained_on(kind: str) -> None:
    feature, plant = FAULTS[kind]
    past = collected(1)
    past[feature] = plant(past)
    found = examine(past, breached(feature))
    assert (found.recommendation, found.cause) == ("investigate", "data_fault")
    assert (found.quality[0].kind, found.quality[0].feature) == (kind, feature)
    assert found.quality[0].evidence in found.sentence


def test_a_pattern_of_every_saturday_is_a_season() -> None:
    past = collected()
    saturday = (past["time"].dt.day_of_week == WINDOW[0].weekday()).to_numpy()
    past["celsius"] = past["celsius"].where(~saturday, past["celsius"] + 9)
    found = examine(past, breached("celsius"))
    assert (found.recommendation, found.cause, found.season["like"]) == ("nothing", "season", "a week ago")
    assert found.season["drift"] < 0.25 * found.season["drift_now"]


def test_a_shift_that_lasts_for_ten_days_is_no_season_although_last_week_was_the_same() -> None:
    past = collected()
    past["celsius"] = past["celsius"].where(past["time"] < END - 10 * DAY, past["celsius"] + 9)
    assert examine(past, breached("celsius")).cause == "true_shift"


def test_the_reference_knows_its_own_season() -> None:
    times = pd.Series(pd.date_range("2025-01-01", "2025-12-31", periods=6000, tz="UTC"))
    year = parcels(6000, 2).assign(ordered=times.astype(str))
    year["celsius"] += 12 * np.cos((times.dt.month - 7) / 12 * 2 * np.pi)
    march = parcels(600, 3).assign(celsius=lambda frame: frame["celsius"] + 12 * np.cos(-4 / 12 * 2 * np.pi),
                                   ordered="2026-03-20T10:00:00+00:00", time=WINDOW[0])
    found = examine(march, breached("celsius"), reference=year)
    assert (found.cause, found.season["like"]) == ("season", "the same months of the reference")


def test_a_hundred_rows_that_breach_by_chance_are_waited_for() -> None:
    past = collected(1).sample(100, random_state=0).sort_values("time")
    found = examine(past, breached("celsius"))
    assert (found.recommendation, found.cause, found.features) == ("wait", "noise", [])
    assert "only 100 rows" in found.sentence


PERFORMANCE = Signal("truth", "model_performance", "minutes", "mean_absolute_error", 30.0, 20.0, True)


def test_a_model_that_got_worse_under_the_same_inputs_is_retrained_with_the_new_truth() -> None:
    reference = REFERENCE.assign(minutes=REFERENCE["size"] * 10)
    truth = pd.DataFrame({"correlationid": [f"r{n}_0" for n in range(700)], "minutes": parcels(700, 4)["size"] * 16})
    found = examine(collected(1), PERFORMANCE, reference=reference, truth=truth)
    assert (found.recommendation, found.cause) == ("retrain", "performance_only")
    assert "the truth itself moved" in found.sentence
    broken = examine(collected(1), PERFORMANCE, reference=reference, truth=truth.assign(minutes=0.0))
    assert (broken.recommendation, broken.cause, broken.quality[0].kind) == ("investigate", "data_fault", "constant")


def test_a_shift_under_which_the_model_holds_needs_no_new_model() -> None:
    past = collected(1)
    past["celsius"] += 9
    holds = Signal("truth", "model_performance", "minutes", "mean_absolute_error", 10.0, 20.0, False)
    found = examine(past, breached("celsius"), holds)
    assert (found.recommendation, found.cause) == ("wait", "true_shift")
    assert "the model still holds" in found.sentence


def test_predictions_that_move_alone_are_investigated() -> None:
    found = examine(collected(1), breached("prediction", "prediction_drift"))
    assert (found.recommendation, found.cause) == ("investigate", "unknown")


def test_it_says_what_it_cannot_examine() -> None:
    past = collected(1)
    assert examine(past.head(4), breached("size")).recommendation == "investigate"
    assert examine(past.head(4)).recommendation == "wait"
    with pytest.raises(ValueError, match="The reference has no rows"):
        examine(past, reference=REFERENCE.head(0))
    with pytest.raises(ValueError, match="the earlier one first"):
        diagnose("parcels", "", WINDOW[::-1], [], REFERENCE, past, reader(past))
    nothing = diagnose("parcels", "", WINDOW, [], REFERENCE[["size"]], past[["lane"]], reader(past))
    assert nothing.recommendation == "nothing"


def test_the_report_says_what_to_do_before_it_shows_why() -> None:
    past = collected(4)
    past["celsius"] = past["celsius"].where(past["time"] < END - 2 * DAY, past["celsius"] + 9)
    found = examine(past.rename(columns={"celsius": "<celsius>"}), breached("<celsius>"),
                    reference=REFERENCE.rename(columns={"celsius": "<celsius>"}))
    page = report(found)
    words = re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL)
    places = [words.index(text) for text in ("Retrain.", "What moved", "Since when", "Looked at")]
    assert places == sorted(places)
    assert "<celsius>" not in page
    assert "&lt;celsius&gt;" in page
    assert not re.search(r"<script|https?:|url\(", page)
    for picture in re.findall(r"<svg[^>]*>", page):
        assert 'role="img" aria-label="' in picture


def taxi(name: str) -> pd.DataFrame:
    if not TAXI.is_dir():
        pytest.skip("the shared data are not here")
    frame = pd.read_csv(TAXI / name)
    return frame.rename(columns={"startLon": "pickupLongitude", "startLat": "pickupLatitude", "endLon": "dropoffLongitude",
                                 "endLat": "dropoffLatitude"})[GPS]


def drift_signals(reference: pd.DataFrame, production: pd.DataFrame) -> list[Signal]:
    """Azure ML's own metric and threshold for every column."""
    found = []
    for name, kind in column_types(reference).items():
        metric = "normalized_wasserstein_distance" if kind == "numerical" else "jensen_shannon_distance"
        sides = [cast(frame[name], reference[name]).dropna().to_numpy() for frame in (reference, production)]
        value = measure(*sides, kind, [metric])[metric]
        found.append(Signal("drift", "data_drift", name, metric, value, 0.1, value > 0.1))
    return found


def diagnose_files(reference: pd.DataFrame, production: pd.DataFrame) -> Diagnosis:
    signals = drift_signals(reference, production)
    return diagnose("taxi", "", WINDOW, signals, reference, production, lambda window: production.head(0))


def test_yellow_taxis_are_another_population_than_green_ones() -> None:
    found = diagnose_files(taxi("greenTaxiData_2016-01.csv"), taxi("yellowTaxiData_2016-01.csv"))
    assert (found.recommendation, found.cause) == ("retrain", "true_shift")
    assert "itude" in found.features[0].name
    assert any(fault.kind == "placeholder" for fault in found.quality)  # 1.7 % of the yellow ones drive at 0,0


def test_five_taxis_at_zero_zero_are_a_fault_and_no_shift() -> None:
    reference, production = taxi("nyc_green_taxi_2015Q1.csv"), taxi("greenTaxiData_2016-01.csv")
    rang = {signal.feature for signal in drift_signals(reference, production) if signal.breached}
    assert rang == {"pickupLongitude", "pickupLatitude"}
    found = diagnose_files(reference, production)
    assert (found.recommendation, found.cause) == ("investigate", "data_fault")
    first = found.quality[0]
    assert (first.kind, first.feature, first.rows) == ("placeholder", "pickupLongitude, pickupLatitude", 5)


def test_bigger_diamonds_are_a_true_shift() -> None:
    diamonds = pytest.importorskip("plotnine.data").diamonds.drop(columns="price").sample(frac=1, random_state=0)
    small, big = diamonds[diamonds["carat"] <= 0.8], diamonds[diamonds["carat"] > 0.8]
    found = diagnose_files(small.head(6000), pd.concat([big.head(1500), small.tail(500)]))
    assert (found.recommendation, found.cause) == ("retrain", "true_shift")
    assert found.features[0].name in ("carat", "x", "y", "z")
    assert diagnose_files(small.head(6000), small.tail(2000)).recommendation == "nothing"
