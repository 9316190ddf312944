"""The monitor card: it says what the history says, follows it, and answers alerts and actions as the command does."""

import datetime as dt
import time
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pandas as pd
import pytest

from mlops_nb.core.files import append_line
from mlops_nb.core.ledger import entries
from mlops_nb.core.records import Alert, Signal
from mlops_nb.core.settings import Settings
from mlops_nb.outer_loop import history
from mlops_nb.outer_loop.history import Action
from mlops_nb.widgets import MonitorCard
from mlops_nb.widgets.monitor import as_html, as_text, describe, distribution

BLUE = "deployment:dev.shop/blue"
BEGIN = dt.datetime(2026, 11, 20, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)


def drift(feature: str, value: float | None, **more: Any) -> Signal:
    return Signal("inputs", "data_drift", feature, "jensen_shannon_distance", value, 0.2, value is None or value > 0.2, **more)


@pytest.fixture
def see(project: Settings) -> Callable[..., None]:
    """Write down the window that ends so many hours after the beginning."""

    def write(hour: int, *signals: Signal, actions: tuple[Action, ...] = ()) -> None:
        window = (BEGIN + (hour - 1) * HOUR, BEGIN + hour * HOUR)
        loud = [signal for signal in signals if signal.breached]
        alert = Alert("shop", BLUE, (history.moment(window[0]), history.moment(window[1])), loud, ["retrain"]) if loud else None
        assert history.record(project, "shop", BLUE, window, signals, alert=alert, actions=actions, rows=100, model="model:dev.shop/1")

    return write


RETRAIN = Action("", "", "retrain", BLUE, "carat moved", "supervised", "waiting")


def test_it_says_what_the_history_says(project: Settings, see: Any) -> None:
    for hour in range(6):
        see(hour, drift("carat", 0.05 * hour), drift("depth", 0.1), Signal("service", "custom", "", "error_rate", 0.0, None, False))
    shown = describe(project, "shop")
    assert [one["state"] for one in shown["windows"]] == ["quiet"] * 5 + ["alert"]
    carat, depth, errors = shown["series"]
    assert (carat["feature"], carat["value"], carat["breached"], carat["ever"]) == ("carat", "0.25", True, 1)
    assert carat["label"] == "carat jensen_shannon_distance: 0.25, threshold 0.2, needed attention in 1 of 6 windows"
    assert [dot["x"] for dot in carat["dots"]] == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    heights = [dot["y"] for dot in carat["dots"]]
    assert heights == sorted(heights)
    assert heights[4] == carat["limit"]  # 0.2 is the threshold
    assert (depth["breached"], errors["limit"]) == (False, None)
    [alert] = shown["alerts"]
    assert alert["lines"] == ["carat jensen_shannon_distance of inputs: 0.25, threshold 0.2"]


def test_what_could_not_be_computed_is_a_gap_and_not_a_zero(project: Settings, see: Any) -> None:
    see(0, drift("carat", 0.1))
    see(1, drift("carat", None, problem="no rows"))
    [line] = describe(project, "shop")["series"]
    assert [dot["y"] is None for dot in line["dots"]] == [False, True]
    assert line["dots"][1]["text"].endswith("not computed, no rows")
    assert "could not be computed: no rows" in describe(project, "shop")["alerts"][0]["lines"][0]


def test_an_alert_that_goes_on_is_one_and_is_answered_as_one(project: Settings, see: Any) -> None:
    for hour in range(4):
        see(hour, drift("carat", 0.3))
    card = MonitorCard(project, "shop")
    [alert] = card.shown["alerts"]
    assert alert["lines"][-1] == "goes on since 2026-11-19 23:00, in 4 windows"
    card._hear(card, {"act": "acknowledge", "id": alert["id"], "reason": "mine", "name": "grace", "persona": "project_lead"}, [])
    assert {raised.state for raised in history.alerts(project)} == {"acknowledged"}
    assert card.shown["alerts"][0]["answer"] == "by grace (mine)"
    assert [(entry.user, entry.persona) for entry in entries(project, BLUE, "acknowledge")] == [("grace", "project_lead")] * 4
    card.close()


def test_snoozed_resolved_approved_and_refused(project: Settings, see: Any) -> None:
    see(0, drift("carat", 0.3), actions=(RETRAIN,))
    card = MonitorCard(project, "shop")
    [alert], [action] = card.shown["alerts"], card.shown["actions"]
    before = dt.datetime.now(dt.UTC)
    card.answer("snooze", alert["id"], "tomorrow", hours=8)
    [raised] = history.alerts(project)
    assert raised.state == "snoozed"
    assert 7.9 * HOUR < dt.datetime.fromisoformat(raised.until) - before < 8.1 * HOUR
    assert card.answer("resolve", alert["id"]) == "Resolved."
    card.answer("approve", action["id"], "go", name="grace", persona="project_lead")
    assert [one.state for one in history.actions(project)] == ["planned"]
    card.look()
    assert card.shown["actions"] == []
    card.close()


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        pytest.param({"act": "refuse", "id": "ACTION", "persona": "project_lead"}, "needs a reason", id="no-reason"),
        pytest.param({"act": "approve", "id": "ACTION", "persona": "model_end_user"}, "may not approve", id="may-not"),
        pytest.param({"act": "acknowledge", "id": "ALERT", "persona": "model_end_user"}, "may not monitor", id="may-not-look"),
        pytest.param({"act": "snooze", "id": "ALERT", "hours": -1}, "is over", id="in-the-past"),
        pytest.param({"act": "snooze", "id": "ALERT", "hours": "soon"}, "could not convert", id="no-number"),
        pytest.param({"act": "acknowledge", "id": "nothing"}, "No alert 'nothing'", id="unknown"),
        pytest.param({"act": "__init__", "id": "ALERT"}, "nothing that can be done here", id="no-such-thing"),
    ],
)
def test_what_may_not_be_is_told_and_changes_nothing(project: Settings, see: Any, message: dict[str, Any], problem: str) -> None:
    see(0, drift("carat", 0.3), actions=(RETRAIN,))
    card = MonitorCard(project, "shop")
    ids = {"ACTION": card.shown["actions"][0]["id"], "ALERT": card.shown["alerts"][0]["id"]}
    said: list[Any] = []
    card.send = lambda content, **_: said.append(content["answer"])
    card._hear(card, message | {"id": ids.get(message["id"], message["id"])}, [])
    assert said[0]["wrong"]
    assert problem in said[0]["text"]
    assert [raised.state for raised in history.alerts(project)] == ["open"]
    assert [action.state for action in history.actions(project)] == ["waiting"]
    card.close()


def test_it_follows_what_others_do_until_it_is_closed(project: Settings, see: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    card = MonitorCard(project, "shop")
    assert card.shown["windows"] == []  # nothing yet
    card._repr_mimebundle_()
    assert card.following
    see(0, drift("carat", 0.3))
    end = time.monotonic() + 60
    while not card.shown["alerts"]:
        assert time.monotonic() < end
        time.sleep(0.02)
    card.close()
    card._follower.join(60)
    assert not card.following


def test_a_distribution_comes_from_the_point_or_from_what_was_collected(project: Settings, see: Any) -> None:
    stored = {"edges": [0, 1, 2], "reference": [3, 1], "production": [1, 1]}
    see(1, drift("carat", 0.3, detail=stored), drift("cut", 0.1), drift("price", 0.1))
    rows = [{"cut": "Ideal", "depth": 1.0}] * 3 + [{"cut": "Fair", "depth": 2.0}]
    append_line(project.collected / "shop" / "blue" / "model_inputs" / "2026" / "11" / "20" / "00" / "a.jsonl",
                {"specversion": "1.0", "id": "r", "correlationid": "r", "time": "2026-11-20T00:10:00Z", "data": rows})  # fmt: skip
    reference = pd.DataFrame({"cut": ["Ideal", "Fair"], "price": [1.0, 2.0]})
    shown = describe(project, "shop")
    keys, end = {one["feature"]: one["key"] for one in shown["series"]}, shown["windows"][0]["end"]
    assert distribution(project, "shop", keys["carat"], end) == {
        "bins": ["0 to 1", "1 to 2"], "reference": [0.75, 0.25], "production": [0.5, 0.5]}  # fmt: skip
    cut = distribution(project, "shop", keys["cut"], end, reference)
    shares = {name: (cut["reference"][i], cut["production"][i]) for i, name in enumerate(cut["bins"])}
    assert shares == {"Ideal": (0.5, 0.75), "Fair": (0.5, 0.25), "(others)": (0.0, 0.0)}
    assert "Pass reference=" in distribution(project, "shop", keys["cut"], end)["problem"]
    with pytest.raises(LookupError, match="column price"):
        distribution(project, "shop", keys["price"], end, reference)


class Tags(HTMLParser):
    """Collects what a page is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found.append((tag, dict(attrs)))


def test_without_a_kernel_it_stands_as_it_is_and_data_is_no_markup(
    project: Settings, see: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = "\"><script>alert(1)</script><img src=x onerror=alert(1)>'"
    see(0, drift(evil, 0.3), drift("carat", None, problem=evil, segment=evil), actions=(RETRAIN,))
    monkeypatch.setenv("MLOPS_NB_HEADLESS", "1")
    card = MonitorCard(project, "shop")
    bundle = card._repr_mimebundle_()
    assert set(bundle) == {"text/html", "text/plain"}
    assert not card.following
    tags = Tags()
    tags.feed(bundle["text/html"])
    assert {"script", "img"}.isdisjoint(tag for tag, _ in tags.found)
    assert not [name for _, attributes in tags.found for name in attributes if name.startswith("on")]
    pictures = [attributes for tag, attributes in tags.found if tag == "svg" and attributes.get("role") == "img"]
    assert len(pictures) == 2
    assert all(picture["aria-label"] for picture in pictures)
    assert "waits for a person" in bundle["text/plain"]
    assert as_text(card.shown) == bundle["text/plain"]
    card.close()


def test_many_features_are_a_page_of_bounded_size(project: Settings, see: Any) -> None:
    for hour in range(3):
        see(hour, *(drift(f"column_{number}", 0.3 if number == 999 else 0.1) for number in range(1000)))
    shown = describe(project, "shop")
    assert (len(shown["series"]), shown["hidden"]) == (400, 600)
    assert shown["series"][0]["feature"] == "column_999"  # what needs attention comes first
    assert len(as_html(shown)) < 200_000
