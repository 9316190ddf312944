"""What monitors saw as one file, and as text for Prometheus: silence is a state."""

import datetime as dt
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mlops_nb.core.records import Alert, Signal, SpecificationError
from mlops_nb.core.settings import Settings
from mlops_nb.outer_loop import history, pictures
from mlops_nb.outer_loop.dashboard import dashboard, exposition
from mlops_nb.outer_loop.history import Action, Notice

BLUE = "deployment:dev.stones/blue"
FIRST = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
NOW = FIRST + 13 * DAY + dt.timedelta(hours=2)
BINS = {"bins": ["small", "big"], "reference": [60, 40], "production": [10, 90]}
DRIFT = Signal("inputs_drift", "data_drift", "carat", "jensen_shannon_distance", 0.05, 0.2, False, detail=BINS)
FAILED = Signal("truth", "model_performance", "price", "mean_absolute_error", None, 300.0, True, "the file <costs> is not there")
OBJECTIVE = Signal("service", "custom", "availability", "error_budget_remaining", 0.4, 0.0, False)


def look(settings: Settings, day: int, *signals: Signal, monitor: str = "stones", actions: tuple[Action, ...] = (),
         notices: tuple[Notice, ...] = ()) -> None:
    """Record a window of a day; with breached signals, as an alert."""
    window = (FIRST + (day - 1) * DAY, FIRST + day * DAY)
    bad = [signal for signal in signals if signal.breached and signal.value is not None]
    alert = Alert(monitor, BLUE, (window[0].isoformat(), window[1].isoformat()), bad, ["retrain"]) if bad else None
    history.record(settings, monitor, BLUE, window, signals, rows=100 * day, alert=alert, actions=actions, notices=notices)


@pytest.fixture
def watched(project: Settings) -> Settings:
    """Quiet days, two days without a window, one that failed, one idle, and at last an alert."""
    for day in range(8):
        look(project, day, DRIFT, OBJECTIVE)
    look(project, 10, DRIFT, FAILED)
    look(project, 11, replace(FAILED, breached=False, problem="no truth yet"))
    look(project, 12, DRIFT)
    look(project, 13, replace(DRIFT, value=0.45, breached=True), FAILED, OBJECTIVE,
         actions=(Action("", "", "retrain", BLUE, "carat <b>moved</b>", "supervised", "waiting"),),
         notices=(Notice("", "", "stones: 1 signal", "...", "env:TEAM", "failed", attempts=7, problem="connection refused"),))
    return project


def words(page: str) -> str:
    plain = re.sub(r"<(style|script)>.*?</\1>|<[^>]+>", " ", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", plain)


def test_a_page_shows_state_signals_alerts_actions_and_notices(watched: Settings) -> None:
    page = dashboard(watched, now=NOW)
    shown = words(page)
    for text in ("State now alert", "Need attention", "breached jensen_shannon_distance of carat: 0.45 (threshold 0.2)", "Distribution",
                 "failed mean_absolute_error of price: the file &lt;costs&gt; is not there", "Service objectives: service",
                 "carat &lt;b&gt;moved&lt;/b&gt;", "waiting supervised", "connection refused", "env:TEAM"):
        assert text in shown, text
    assert "small: reference 60.0%, production 10.0%" in page
    assert not re.search(r"https?:|<link|<img|@import|src=", page)


def test_windows_that_did_not_come_failed_or_said_nothing_are_drawn_as_such(watched: Settings) -> None:
    page = dashboard(watched, now=NOW)
    assert "2 missing in between" in words(page)
    assert 'aria-label="Windows: 9 quiet, 2 missing, 1 failed, 1 idle, 1 alert"' in page
    late = words(dashboard(watched, now=NOW + 4 * DAY))
    assert late.count("silent: no window came") == 2  # in the overview, and beside the monitor


def test_every_tag_is_closed(watched: Settings) -> None:
    open_tags: list[str] = []

    class Shape(HTMLParser):
        def handle_starttag(self, tag: str, attributes: object) -> None:
            if tag not in ("meta", "input"):
                open_tags.append(tag)

        def handle_startendtag(self, tag: str, attributes: object) -> None:
            pass

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

    Shape().feed(dashboard(watched, now=NOW))
    assert open_tags == []


def test_one_monitor_can_be_shown_alone_and_none_is_a_page_too(watched: Settings, project: Settings) -> None:
    look(watched, 13, DRIFT, monitor="trips")
    assert "trips" not in words(dashboard(watched, "stones", now=NOW)).replace("strips", "")
    with pytest.raises(SpecificationError, match=r"No monitor 'stoned' .* \(monitors: stones, trips\)"):
        dashboard(watched, "stoned")
    assert "No monitor has looked" in words(dashboard(Settings(root=project.root, state=project.root / "empty")))


def test_a_long_history_is_thinned_and_loses_no_extreme() -> None:
    spots = [pictures.Spot(3600.0 * hour, 0.1 + hour % 7 / 100, threshold=0.5) for hour in range(8760)]
    spots[4321] = pictures.Spot(3600.0 * 4321, 0.9, True, 0.5)
    spots[6000] = pictures.Spot(3600.0 * 6000, None)
    kept = pictures.thin(spots, (0, 3600.0 * 8760))
    assert len(kept) < 900
    assert spots[4321] in kept
    assert spots[6000] in kept
    drawn = pictures.series(spots, "a year")
    assert len(drawn) < 15_000
    assert drawn.count('class="hit"') == drawn.count('class="gap"') == 1
    assert "1 breached; 1 could not be computed" in drawn


def test_prometheus_reads_the_exposition(watched: Settings) -> None:
    odd = 'a "quoted"\\name\nin two lines'
    look(watched, 14, replace(DRIFT, feature=odd, value=float("inf")), FAILED)
    families = {family.name: family for family in text_string_to_metric_families(exposition(watched))}
    assert {family.type for name, family in families.items() if name != "mlops_nb_monitor_windows"} == {"gauge"}
    [value] = families["mlops_nb_signal_value"].samples
    assert (value.labels["feature"], value.labels["deployment"], value.value) == (odd, BLUE, float("inf"))
    computed = {sample.labels["metric"]: sample.value for sample in families["mlops_nb_signal_computed"].samples}
    assert computed == {"jensen_shannon_distance": 1, "mean_absolute_error": 0}
    breached = {sample.labels["metric"]: sample.value for sample in families["mlops_nb_signal_breached"].samples}
    assert breached == {"jensen_shannon_distance": 0, "mean_absolute_error": 1}
    [end] = families["mlops_nb_monitor_window_end_timestamp_seconds"].samples
    assert end.value == (FIRST + 14 * DAY).timestamp()
    windows = families["mlops_nb_monitor_windows"]
    assert windows.type == "counter"
    assert {sample.labels["state"]: sample.value for sample in windows.samples} == {"quiet": 9, "alert": 1, "idle": 1, "failed": 2}
    assert {sample.labels["state"]: sample.value for sample in families["mlops_nb_monitor_alerts"].samples}["open"] == 1
    [action] = families["mlops_nb_monitor_actions"].samples
    assert (action.labels["kind"], action.labels["state"], action.value) == ("retrain", "waiting", 1)
    assert families["mlops_nb_monitor_notices"].samples[0].labels["state"] == "failed"


def test_prometheus_reads_a_page_of_nothing(project: Settings) -> None:
    assert list(text_string_to_metric_families(exposition(project))) == []
