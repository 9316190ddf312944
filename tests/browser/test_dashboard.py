"""The dashboard as a browser shows it: from a file, without a network, with and without its script."""

import datetime as dt
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlops_nb.core.records import Alert, Signal
from mlops_nb.core.settings import Settings
from mlops_nb.outer_loop import history
from mlops_nb.outer_loop.dashboard import dashboard

pytestmark = pytest.mark.browser

BLUE = "deployment:dev.stones/blue"
FIRST = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
BINS = {"bins": ["small", "big"], "reference": [60, 40], "production": [10, 90]}
CARAT = Signal("inputs_drift", "data_drift", "carat", "jensen_shannon_distance", 0.05, 0.2, False, detail=BINS)
DEPTH = replace(CARAT, feature="depth", detail={})
PRICE = Signal("outputs_drift", "prediction_drift", "price", "jensen_shannon_distance", 0.01, 0.2, False)


@pytest.fixture
def file(project: Settings, tmp_path: Path) -> Path:
    """A dashboard of two weeks, the last day with an alert."""
    for day in range(14):
        window = (FIRST + (day - 1) * DAY, FIRST + day * DAY)
        signals = [replace(CARAT, value=0.4, breached=True) if day == 13 else CARAT, DEPTH, PRICE]
        alert = Alert("stones", BLUE, (window[0].isoformat(), window[1].isoformat()), signals[:1], ["retrain"]) if day == 13 else None
        history.record(project, "stones", BLUE, window, signals, rows=500, alert=alert)
    path = tmp_path / "dashboard.html"
    path.write_text(dashboard(project, now=FIRST + 13 * DAY + dt.timedelta(hours=1)))
    return path


def test_a_person_filters_looks_into_a_distribution_and_changes_the_colours(page: Any, file: Path, tmp_path: Path) -> None:
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.goto(file.as_uri())
    assert page.locator("h3", has_text="Need attention").is_visible()
    page.get_by_text("Distribution").click()
    assert page.locator(".pair svg").is_visible()
    page.screenshot(path=tmp_path / "light.png")
    depth, price = page.locator('.line[data-words*="depth"]'), page.locator('.line[data-words*="price"]')
    assert not depth.is_visible()  # quiet: in a fold
    page.get_by_label("Filter signals").fill("DEPTH")
    assert depth.is_visible()
    assert not price.is_visible()
    page.get_by_label("Filter signals").fill("")
    assert not depth.is_visible()
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Light or dark").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    page.screenshot(path=tmp_path / "dark.png")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.requested == [file.as_uri()]
    assert faults == []


def test_without_scripts_everything_is_there(browser: Any, file: Path) -> None:
    context = browser.new_context(java_script_enabled=False, color_scheme="dark", viewport={"width": 420, "height": 800})
    page = context.new_page()
    page.goto(file.as_uri())
    assert not page.locator("header form").is_visible()  # would do nothing
    page.locator("details.signal > summary", has_text="inputs_drift").click()
    assert page.locator('.line[data-words*="depth"] svg').is_visible()
    assert page.get_by_text("alert", exact=True).first.is_visible()
    context.close()
