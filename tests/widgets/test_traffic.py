"""The traffic card on a real endpoint: its sliders keep the sum, its buttons shift and roll back, and what cannot be is told."""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from mlops_nb.core import ledger
from mlops_nb.core.settings import Settings, load_settings
from mlops_nb.outer_loop import credentials, online, state, traffic
from mlops_nb.scoring.config import Wish
from mlops_nb.widgets import TrafficCard

ROOT = Path(__file__).resolve().parents[2]
SCORE = "import json\ndef init(): pass\ndef run(raw_data):\n    return [2 * x for x in json.loads(raw_data)]\n"


def until(happened: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait for something, and return it."""
    end = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """An endpoint with blue, which has all the traffic, and green beside it; both are scripts, which start at once."""
    place = tmp_path_factory.mktemp("shop")
    (place / "settings.ini").write_text((ROOT / "settings.ini").read_text())
    (place / "environments").symlink_to(ROOT / "environments")
    (place / "score.py").write_text(SCORE)
    settings = load_settings("dev", place, user="grace")
    wish = Wish("model:dev.stones/1", str(place), script={"code": str(place), "scoring_script": "score.py"})
    wanted = {
        "name": "shop", "environment": "dev", "host": "127.0.0.1", "port": 0, "revision": 0, "max_bytes": 10_000, "auth_mode": "key",
        "properties": {}, "tls": None, "traffic": {"blue": 100}, "mirror_traffic": {}, "history": [], "probe_key": "p",
        "deployments": {name: asdict(wish) for name in ("blue", "green")},
    }  # fmt: skip
    state.apply_wanted(settings, wanted)
    credentials.make_keys(settings, "shop")
    try:
        until(lambda: all(row["state"] == "ready" for row in online.endpoint_status(settings, "shop")))
        yield settings
    finally:
        state.end_host(settings, "shop")


@pytest.fixture
def card(shop: Settings) -> Iterator[TrafficCard]:
    """The card, with the traffic as it was at first."""
    traffic.set_mirror(shop, "shop", {})
    traffic.shift_traffic(shop, "shop", {"blue": 100})
    card = TrafficCard(shop, "shop")
    yield card
    card.close()


def test_it_shows_how_the_deployments_are(card: TrafficCard) -> None:
    assert "dev.stones/1" in card.state.value
    assert "ready" in card.state.value
    assert card.wanted == ({"blue": 100, "green": 0}, {})


def test_the_sliders_keep_the_sum(card: TrafficCard) -> None:
    for value in (30, 100, 7, 0, 55):
        card.sliders["green"].value = value
        assert card.wanted[0] == {"blue": 100 - value, "green": value}
    card.sliders["blue"].value = 20
    assert card.wanted[0] == {"blue": 20, "green": 80}


def test_apply_shifts_and_roll_back_returns(card: TrafficCard, shop: Settings) -> None:
    card.sliders["green"].value = 30
    assert state.read_wanted(shop, "shop")["traffic"] == {"blue": 100}  # nothing happens before
    card.apply.click()
    assert state.read_wanted(shop, "shop")["traffic"] == {"blue": 70, "green": 30}
    assert "Applied: blue 70 %, green 30 %." in card.answer.value
    assert "30 %" in card.state.value
    card.reason.value = "too dear"
    card.back.click()
    assert state.read_wanted(shop, "shop")["traffic"] == {"blue": 100}
    assert card.wanted[0] == {"blue": 100, "green": 0}
    entry = ledger.entries(shop, action="roll_back")[-1]
    assert (entry.user, entry.details["reason"]) == ("grace", "too dear")


def test_a_shadow_gets_its_share_until_it_goes_live(card: TrafficCard, shop: Settings) -> None:
    card.shadow.value, card.mirrored.value = "green", 20
    card.apply.click()
    assert state.read_wanted(shop, "shop")["mirror_traffic"] == {"green": 20}
    assert "Mirrored: green 20 %" in card.answer.value
    card.shadow.value = "nobody"
    card.sliders["green"].value = 100
    card.apply.click()
    wanted = state.read_wanted(shop, "shop")
    assert (wanted["traffic"], wanted["mirror_traffic"]) == ({"green": 100}, {})


def test_what_cannot_be_is_told_on_the_card(card: TrafficCard, shop: Settings) -> None:
    card.shadow.value, card.mirrored.value = "blue", 20
    card.apply.click()
    assert 'role="alert"' in card.answer.value
    assert "blue of shop has 100 % of the traffic: it can be no shadow" in card.answer.value
    card.apply.click()
    assert not card.apply.disabled
    stranger = TrafficCard(shop.model_copy(update={"persona": "data_analyst"}), "shop")
    stranger.sliders["green"].value = 50
    stranger.apply.click()
    assert "data_analyst may not deploy" in stranger.answer.value
    with pytest.raises(LookupError, match="No endpoint 'rubies'"):
        TrafficCard(shop, "rubies")


def test_it_follows_what_others_do_but_keeps_what_was_moved_here(card: TrafficCard, shop: Settings) -> None:
    card._repr_mimebundle_()  # as a notebook does when it shows the card
    traffic.shift_traffic(shop, "shop", {"blue": 60, "green": 40})
    until(lambda: card.wanted[0] == {"blue": 60, "green": 40})
    card.sliders["green"].value = 10
    traffic.shift_traffic(shop, "shop", {"blue": 100})
    online.invoke(shop, "shop", [1, 2])
    until(lambda: "100 %" in card.state.value)
    assert card.wanted[0] == {"blue": 90, "green": 10}


def test_in_a_report_it_is_a_table(card: TrafficCard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_NB_HEADLESS", "1")
    shown = card._repr_mimebundle_()
    assert set(shown) == {"text/html", "text/plain"}
    assert "<button" not in shown["text/html"]
    assert "blue dev.stones/1 ready 100 %" in shown["text/plain"]
