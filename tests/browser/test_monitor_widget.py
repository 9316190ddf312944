"""A person watches a monitor in JupyterLab, looks into a feature, and answers an alert; the screenshots stay in the test's folder."""

import datetime as dt
from pathlib import Path
from typing import Any

import nbformat
import pytest

from mlops_nb.core.records import Alert, Signal
from mlops_nb.core.settings import Settings, load_settings
from mlops_nb.outer_loop import history
from mlops_nb.outer_loop.history import Action
from mlops_nb.widgets.monitor import as_html, describe

pytestmark = [pytest.mark.browser, pytest.mark.slow]

BLUE = "deployment:dev.shop/blue"
BEGIN = dt.datetime(2026, 11, 20, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
EVIL = "<img src=x onerror=\"window.caught = 1\">"
CARD = """
from mlops_nb.core.settings import load_settings
from mlops_nb.widgets import MonitorCard
MonitorCard(load_settings(user="ana"), {name!r})
"""
UNNAMED = """root => [...root.querySelectorAll('button, input, select, [role=img], summary')].filter(one => {
  const label = one.getAttribute('aria-label') || (one.labels?.length ? one.labels[0].textContent : '') || one.textContent;
  return !one.closest('[hidden]') && !label.trim();
}).map(one => one.outerHTML)"""
CONTRAST = """element => {
  const paint = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
  const seen = colour => {
    paint.fillStyle = colour;
    paint.fillRect(0, 0, 1, 1);
    return [...paint.getImageData(0, 0, 1, 1).data].slice(0, 3).map(v => v / 255)
      .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4).reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  };
  const layers = [];
  for (let one = element; one; one = one.parentElement) layers.unshift(getComputedStyle(one).backgroundColor);
  const [back] = ['white', ...layers].map(seen).slice(-1), style = getComputedStyle(element);
  const front = seen(element instanceof SVGElement ? (style.fill === 'none' ? style.stroke : style.fill) : style.color);
  return (Math.max(front, back) + .05) / (Math.min(front, back) + .05);
}"""  # WCAG's: of what is painted on what is behind it


def see(settings: Settings, monitor: str, hour: int, value: float, actions: tuple[Action, ...] = ()) -> None:
    """Write down a window of a monitor with a few features, among them one with a name that means harm."""
    window = (BEGIN + (hour - 1) * HOUR, BEGIN + hour * HOUR)
    bins = {"bins": ["low", EVIL], "reference": [5, 5], "production": [8, 2]}
    signals = [Signal("inputs", "data_drift", "carat", "jensen_shannon_distance", value, 0.2, value > 0.2, detail=bins),
               Signal("inputs", "data_drift", EVIL, "jensen_shannon_distance", 0.1, 0.2, False),
               *(Signal("inputs", "data_drift", f"column {n}", "jensen_shannon_distance", 0.1, 0.2, False) for n in range(9))]
    loud = [signal for signal in signals if signal.breached]
    alert = Alert(monitor, BLUE, (history.moment(window[0]), history.moment(window[1])), loud, ["retrain"]) if loud else None
    history.record(settings, monitor, BLUE, window, signals, alert=alert, actions=actions, rows=100)


def watch(page: Any, lab: Any, name: str, tmp_path: Path) -> Any:
    """Open a notebook that watches a monitor, and return the card on the page."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CARD.format(name=name))])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "python3", "language": "python"}
    nbformat.write(notebook, lab.project / f"{name}.ipynb")
    lab.run_all(page, f"{name}.ipynb", tmp_path / "start.png")
    card = page.locator(".mlops-monitor")
    card.wait_for()
    return card


def test_a_person_watches_looks_into_a_feature_and_answers(page: Any, lab: Any, tmp_path: Path) -> None:
    settings = load_settings("dev", lab.project, user="ana")
    for hour in range(5):
        see(settings, "stones", hour, 0.03 * hour)
    card = watch(page, lab, "stones", tmp_path)
    assert card.get_attribute("data-lm-suppress-shortcuts") == "true"
    assert card.locator(".strip").get_attribute("aria-label") == "5 windows: 5 quiet"
    assert card.locator(".multiple").count() == 8
    card.get_by_role("button", name="Show all 11").click()
    assert card.locator(".multiple").count() == 11

    carat = card.get_by_role("button", name="carat jensen_shannon_distance")
    carat.focus()  # the keyboard is enough
    page.keyboard.press("Enter")
    assert carat.get_attribute("aria-pressed") == "true"
    about = card.locator(".about")
    about.locator("rect").first.wait_for()
    about.locator("summary").click()
    assert about.locator("tbody tr").all_inner_texts() == ["low\t50.0 %\t80.0 %", f"{EVIL}\t50.0 %\t20.0 %"]
    slider = about.get_by_label("Window", exact=True)
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert slider.get_attribute("aria-valuetext") == "2026-11-20 03:00: 0.09"

    see(settings, "stones", 5, 0.4, (Action("", "", "retrain", BLUE, "carat moved", "supervised", "waiting"),))  # by another process
    card.locator(".alert .state[data-state=open]").wait_for()
    assert "carat jensen_shannon_distance of inputs: 0.4" in card.get_by_role("status").inner_text()
    assert page.evaluate("document.activeElement.type") == "range"  # whoever was somewhere, still is
    card.get_by_role("button", name="Acknowledge 2026-11-20").focus()
    page.keyboard.press("Enter")
    page.keyboard.type("seen it")  # the form's first field has the focus
    see(settings, "stones", 6, 0.45)  # what was typed survives what happens meanwhile
    card.locator(".strip i").nth(6).wait_for(state="attached")
    card.get_by_text("goes on since 2026-11-20 04:00, in 2 windows").wait_for()
    page.screenshot(path=tmp_path / "alert.png", full_page=True)
    page.keyboard.press("Enter")
    card.get_by_text("by ana (seen it)").wait_for()
    page.wait_for_function("document.activeElement.textContent === 'Acknowledge'")  # the focus goes back where it came from
    assert {raised.state for raised in history.alerts(settings, "stones")} == {"acknowledged"}

    card.get_by_role("button", name="Refuse retrain").click()
    page.keyboard.press("Enter")
    card.get_by_role("alert").get_by_text("needs a reason").wait_for()
    page.keyboard.type("the season")
    page.keyboard.press("Enter")
    card.locator("li.action").wait_for(state="detached")
    assert [action.state for action in history.actions(settings, "stones")] == ["refused"]
    assert page.evaluate("window.caught") is None
    assert card.locator("img").count() == 0
    lab.assert_stayed_here(page)


def test_it_is_named_and_legible_in_both_themes(page: Any, lab: Any, tmp_path: Path) -> None:
    settings = load_settings("dev", lab.project, user="ana")
    see(settings, "gems", 0, 0.1)
    see(settings, "gems", 1, 0.4, (Action("", "", "retrain", BLUE, "carat moved", "supervised", "waiting"),))
    card = watch(page, lab, "gems", tmp_path)
    card.locator(".multiple").first.click()
    card.get_by_role("button", name="Snooze 2026-11-20").click()
    card.locator("rect").first.wait_for()
    assert card.evaluate(UNNAMED) == []
    assert card.locator("form select").evaluate("one => one === document.activeElement")
    for theme, light in (("Light", "true"), ("Dark", "false")):
        page.evaluate(f"window.jupyterapp.commands.execute('apputils:change-theme', {{theme: 'JupyterLab {theme}'}})")
        page.wait_for_function(f"document.body.dataset.jpThemeLight === '{light}' && !document.querySelector('#jupyterlab-splash')")
        page.screenshot(path=tmp_path / f"{theme}.png", full_page=True)
        words = card.locator("b:visible, h4:visible, button:visible, label:visible, .quiet:visible, li > ul > li:visible, .facts").all()
        marks = card.locator(".icon path, circle, rect, .multiple .line").all()
        assert min(text.evaluate(CONTRAST) for text in words) >= 4.5
        assert min(one.evaluate(CONTRAST) for one in marks) >= 3


def test_without_a_kernel_the_last_state_stands_on_a_page_of_its_own(page: Any, tmp_path: Path) -> None:
    settings = Settings(root=Path(__file__).parents[2], state=tmp_path)
    for hour in range(4):
        see(settings, "shop", hour, 0.1 * hour)
    page.set_content(as_html(describe(settings, "shop")))
    assert page.locator(".multiple").count() == 11
    assert page.locator(".alert").inner_text().splitlines()[-1] == "carat jensen_shannon_distance of inputs: 0.3, threshold 0.2"
    box = page.locator(".multiple svg").first.bounding_box()
    assert box["width"] > 100
    assert box["height"] > 20
    assert page.evaluate("window.caught") is None
    assert not page.requested
