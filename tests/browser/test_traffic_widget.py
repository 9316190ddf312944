"""A person shifts traffic in JupyterLab and takes it back; the screenshots stay in the test's folder."""

import re
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nbformat
import pytest

from mlops_nb.core.settings import Settings, load_settings
from mlops_nb.outer_loop import credentials, online, state
from mlops_nb.scoring.config import Wish

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SCORE = "import json\ndef init(): pass\ndef run(raw_data):\n    return [2 * x for x in json.loads(raw_data)]\n"
CARD = """
from mlops_nb.core.settings import load_settings
from mlops_nb.widgets import TrafficCard
TrafficCard(load_settings(), "shop")
"""
ANSWERED = """() => [...document.querySelectorAll('.jp-OutputArea-output tbody td:nth-child(6)')]
  .reduce((sum, cell) => sum + Number(cell.innerText), 0) === 22"""


@pytest.fixture
def shop(lab: Any) -> Iterator[Settings]:
    """An endpoint of the project that JupyterLab shows: blue has all the traffic, green has none."""
    settings, place = load_settings("dev", lab.project), lab.project / "score"
    place.mkdir()
    (place / "score.py").write_text(SCORE)
    wish = Wish("model:dev.stones/1", str(place), script={"code": str(place), "scoring_script": "score.py"})
    wanted = {
        "name": "shop", "environment": "dev", "host": "127.0.0.1", "port": 0, "revision": 0, "max_bytes": 10_000, "auth_mode": "key",
        "properties": {}, "tls": None, "traffic": {"blue": 100}, "mirror_traffic": {}, "history": [], "probe_key": "p",
        "deployments": {"blue": asdict(wish), "green": asdict(wish) | {"model": "model:dev.stones/2"}},
    }  # fmt: skip
    state.apply_wanted(settings, wanted)
    credentials.make_keys(settings, "shop")
    try:
        end = time.monotonic() + 120
        while any(row["state"] != "ready" for row in online.endpoint_status(settings, "shop")):
            assert time.monotonic() < end
            time.sleep(0.05)
        yield settings
    finally:
        state.end_host(settings, "shop")


def traffic_of(settings: Settings) -> Any:
    return state.read_wanted(settings, "shop")["traffic"]


def test_a_person_shifts_traffic_with_the_sliders_and_takes_it_back(page: Any, lab: Any, shop: Settings, tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CARD)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "python3", "language": "python"}
    nbformat.write(notebook, lab.project / "traffic.ipynb")
    lab.run_all(page, "traffic.ipynb", tmp_path / "start.png")
    card = page.locator(".jp-OutputArea-output .widget-vbox").first
    blue, green = (card.locator(".widget-hslider", has=page.locator(f"label:text-is('{name}')")) for name in ("blue", "green"))
    row = {name: card.locator("tbody tr", has_text=name) for name in ("blue", "green")}

    green.locator(".noUi-handle").focus()  # the keyboard is enough
    for _ in range(3):
        page.keyboard.press("PageUp")
    page.keyboard.press("ArrowLeft")
    moved = int(green.locator(".widget-readout").inner_text())
    blue.locator(".widget-readout", has_text=str(100 - moved)).wait_for()
    assert 0 < moved < 100
    assert traffic_of(shop) == {"blue": 100}
    card.get_by_role("button", name="Apply").click()
    card.get_by_role("status").get_by_text(f"Applied: blue {100 - moved} %, green {moved} %.").wait_for()
    assert traffic_of(shop) == {"blue": 100 - moved, "green": moved}

    for _ in range(20):
        online.invoke(shop, "shop", [1, 2])
    for deployment in ("blue", "green"):
        online.invoke(shop, "shop", [1, 2], deployment=deployment)
    page.wait_for_function(ANSWERED)  # the table follows by itself
    row["green"].locator("td").nth(7).filter(has_text=" ms").wait_for()
    page.screenshot(path=tmp_path / "shifted.png")

    card.locator("select").select_option("blue")
    card.locator(".widget-hslider", has=page.locator("label:text-is('share')")).get_by_text("10").wait_for()
    card.get_by_role("button", name="Apply").click()
    card.get_by_role("alert").get_by_text("it can be no shadow").wait_for()
    page.screenshot(path=tmp_path / "refused.png")
    card.get_by_role("button", name="Roll back").click()
    card.get_by_text("Rolled back: blue 100 %.").wait_for()
    green.locator(".widget-readout", has_text=re.compile("^0$")).wait_for()
    assert traffic_of(shop) == {"blue": 100}
    page.screenshot(path=tmp_path / "back.png")
    lab.assert_stayed_here(page)
