"""Faults of a source: each is named with its rows and evidence, and a true shift is not taken for one."""

import numpy as np
import pandas as pd
import pytest

from mlops_nb.outer_loop.faults import Found, find_faults, find_faults_of_reference

KINDS = {**dict.fromkeys(["kg", "long", "lat", "celsius", "hour"], "numerical"), "sender": "categorical"}


def rides(rows: int = 3000, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    day = np.exp(-((np.arange(24) - 15) ** 2) / 18)
    return pd.DataFrame({"kg": rng.gamma(2.0, 4, rows), "long": rng.normal(-73.9, 0.05, rows), "lat": rng.normal(40.7, 0.03, rows),
                         "celsius": rng.normal(18, 6, rows), "hour": rng.choice(24, rows, p=day / day.sum()),
                         "sender": rng.choice(["a", "b", "c"], rows)})


REFERENCE, NOW = rides(), rides(2000, 1)


def faults(production: pd.DataFrame) -> list[Found]:
    return find_faults(REFERENCE, production, KINDS)


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    assert faults(NOW) == []
    assert faults(NOW.head(0)) == []
    assert faults(NOW.head(1)) == []
    assert find_faults_of_reference(REFERENCE, NOW, KINDS) == []


@pytest.mark.parametrize("times", [0.5, 0.7, 1.3, 1.5, 2.0])
def test_more_or_less_of_the_same_is_a_shift_and_no_unit(times: float) -> None:
    assert faults(NOW.assign(kg=NOW["kg"] * times, celsius=NOW["celsius"] + 8)) == []


@pytest.mark.parametrize("factor", [1000.0, 60.0, 2.54, 0.45359237])
def test_every_unit_is_named_in_both_directions(factor: float) -> None:
    for turned in (factor, 1 / factor):
        [found] = faults(NOW.assign(kg=NOW["kg"] * turned))
        assert (found.fault.kind, found.fault.feature, found.fault.rows) == ("unit", "kg", 2000)
        assert f"{factor:g} times as {'large' if turned == factor else 'small'}" in found.fault.evidence
        assert found.mend is not None
        assert np.allclose(found.mend(NOW.assign(kg=NOW["kg"] * turned))["kg"], NOW["kg"])


def test_fahrenheit_of_one_sender_is_named_with_the_sender() -> None:
    one = NOW["sender"] == "b"
    [found] = faults(NOW.assign(celsius=NOW["celsius"].where(~one, NOW["celsius"] * 1.8 + 32)))
    assert (found.fault.kind, found.fault.only_from, found.fault.rows) == ("unit", "sender=b", int(one.sum()))
    assert "Fahrenheit" in found.fault.evidence


def test_a_position_of_zero_zero_is_one_fault_however_few_rows_have_it() -> None:
    lost = NOW.index < 4
    [found] = faults(NOW.assign(long=NOW["long"].mask(lost, 0.0), lat=NOW["lat"].mask(lost, 0.0)))
    assert (found.fault.kind, found.fault.feature, found.fault.rows) == ("placeholder", "long, lat", 4)
    assert np.array_equal(found.mask, lost)


def test_the_same_points_in_the_reference_are_the_references_fault() -> None:
    trained = REFERENCE.assign(long=REFERENCE["long"].mask(REFERENCE.index < 6, 0.0))
    assert find_faults(trained, NOW, KINDS) == []
    [found] = find_faults_of_reference(trained, NOW, KINDS)
    assert found.fault.evidence.startswith("in the reference itself long is 0 in 6 of 3,000 rows")


def test_a_stuck_sensor_swapped_columns_a_burst_and_a_clock() -> None:
    [stuck] = faults(NOW.assign(celsius=NOW["celsius"].mask(NOW.index % 3 == 0, 17.25)))
    assert (stuck.fault.kind, stuck.fault.feature) == ("constant", "celsius")
    [swapped] = faults(NOW.rename(columns={"long": "lat", "lat": "long"}))
    assert (swapped.fault.kind, swapped.fault.feature) == ("swapped", "long, lat")
    assert swapped.mend is not None
    assert swapped.mend(NOW.rename(columns={"long": "lat", "lat": "long"}))["long"].equals(NOW["long"])
    [burst] = faults(pd.concat([NOW, *[NOW.iloc[[7]]] * 400], ignore_index=True))
    assert (burst.fault.kind, burst.fault.rows) == ("duplicates", 400)
    assert "401 times" in burst.fault.evidence
    [clock] = faults(NOW.assign(hour=(NOW["hour"] + 6) % 24))
    assert clock.fault.kind == "clock"
    assert "6 h ahead" in clock.fault.evidence


def test_words_for_nothing_known_and_senders_that_stay_away() -> None:
    words = NOW.assign(sender=NOW["sender"].mask(NOW.index % 10 == 0, "n/a"))
    assert [one.fault.kind for one in faults(words)] == ["placeholder"]
    [alone] = faults(NOW.assign(sender="a"))
    assert (alone.fault.kind, alone.fault.feature) == ("constant", "sender")


def test_what_touches_most_rows_comes_first() -> None:
    both = NOW.assign(kg=NOW["kg"].mask(NOW.index % 20 == 0), celsius=NOW["celsius"].mask(NOW.index % 4 == 0))
    assert [one.fault.feature for one in faults(both)] == ["celsius", "kg"]
