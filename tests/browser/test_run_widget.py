"""A person watches a run in JupyterLab while another process makes it; the screenshots stay in the test's folder."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest

from mlops_nb.core.files import append_line, write_file
from mlops_nb.core.records import now
from mlops_nb.core.runs import load_run
from mlops_nb.widgets.run import describe, tail
from mlops_nb.widgets.still import as_html, draw

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NEEDS = {"data": [], "train": ["data"], "features": ["data"], "stage": ["train", "features"]}
CELL_OUTPUT = "() => [...window.jupyterapp.shell.currentWidget.content.model.cells][0].outputs.get(0).toJSON().data"
OLD, DRAWN_AGAIN = "one => { one.dataset.old = '' }", ".mlops-run:not([data-old])"  # the output, once its run is over
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
  const front = seen(element instanceof SVGElement ? style.stroke : style.color);
  return (Math.max(front, back) + .05) / (Math.min(front, back) + .05);
}"""  # WCAG's: of what is painted on what is behind it
SLEEPER = "import sys; sys.stdin.read()"  # stands for the process that runs the steps


class Made:
    """A run's folder, written as a runner writes it, with a process of its own that can be killed."""

    def __init__(self, folder: Path):
        self.folder = folder
        about = {"id": folder.name, "scenario": "stones", "environment": "dev", "user": "ada", "persona": "data_scientist",
                 "values": {}, "cwd": str(folder), "started": now(), "planned": list(NEEDS), "needs": NEEDS}
        write_file(folder / "run.json", json.dumps(about))
        self.process = subprocess.Popen([sys.executable, "-c", SLEEPER], stdin=subprocess.PIPE)
        write_file(folder / "pid", f"{self.process.pid} {psutil.Process(self.process.pid).create_time()}")

    def note(self, step: str, state: str, **more: Any) -> None:
        append_line(self.folder / "journal.jsonl", {"step": step, "state": state, "at": now(), **more})

    def log(self, step: str, text: str) -> None:
        path = self.folder / "log" / f"{step}.log"
        path.parent.mkdir(exist_ok=True)
        with path.open("a") as file:
            file.write(text)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()

    def execute(self, step: str, seconds: float) -> None:
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(f"# {step} as it ran")])
        nbformat.write(notebook, self.folder / f"{step}.ipynb")
        write_file(self.folder / f"{step}.html", f"<script>document.title = window.origin</script><h1>{step}</h1>")
        self.note(step, "running", notebook=f"{step}.ipynb")
        self.note(step, "done", seconds=seconds, notebook=f"{step}.ipynb")


@pytest.fixture
def made(request: Any) -> Iterator[Callable[[Path], Made]]:
    runs: list[Made] = []

    def make(folder: Path) -> Made:
        runs.append(Made(folder))
        return runs[-1]

    yield make
    for run in runs:
        run.end()


def watch(page: Any, lab: Any, run: Made, picture: Path) -> Any:
    """Open a notebook that watches a run, and return the widget on the page."""
    source = f"from pathlib import Path\nfrom mlops_nb.widgets.run import watch\nwatch(Path({str(run.folder)!r}))"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "python3", "language": "python"}
    nbformat.write(notebook, lab.project / f"{run.folder.name}.ipynb")
    lab.run_all(page, f"{run.folder.name}.ipynb", picture)
    page.locator(".mlops-run").wait_for()
    return page.locator(".mlops-run")


def test_a_run_of_another_process_is_shown_as_it_goes(page: Any, lab: Any, made: Any, tmp_path: Path) -> None:
    run = made(lab.project / ".mlops/runs/20261121T101010100-stones-aaaa")
    run.execute("data", 3.2)
    view = watch(page, lab, run, tmp_path / "start.png")
    node = {step: view.locator(".node", has=page.locator(f"b:text-is('{step}')")).locator("button") for step in NEEDS}
    left = {step: button.bounding_box()["x"] for step, button in node.items()}
    assert left["data"] < left["train"] == left["features"] < left["stage"]
    assert node["data"].get_attribute("aria-label") == "data: done after 3.2 s"
    assert node["stage"].get_attribute("aria-label") == "stage: not started"

    run.note("train", "running")
    run.note("features", "running")
    view.get_by_role("button", name="train: running").wait_for()
    write_file(run.folder / "progress/train.json", json.dumps({"cell": 3, "cells": 12}))
    run.log("train", "reading the table\nround 1: r2 0.91\n")
    view.get_by_role("button", name="train: running, 3 of 12 cells").wait_for()
    view.locator(".log", has_text="round 1: r2 0.91").wait_for()
    view.locator(".about", has_text="running for").wait_for()
    first = view.locator("header .time:not(:empty)").inner_text()
    ticks = "first => !['', first].includes(document.querySelector('.mlops-run header .time').textContent)"
    page.wait_for_function(ticks, arg=first)  # the clock goes without news
    page.screenshot(path=tmp_path / "running.png")

    run.note("features", "skipped")
    run.note("train", "failed", seconds=17.0, message="20_train.ipynb, cell [4]:\n    score = fit(rows)\nKeyError: 'price'")
    view.get_by_role("button", name="train: failed after 17 s").wait_for()
    view.locator(".message", has_text="KeyError: 'price'").wait_for()
    assert "train: failed after 17 s" in view.get_by_role("status").inner_text()
    page.screenshot(path=tmp_path / "failed.png")

    node["data"].click()  # JupyterLab serves no hidden folders: path and report come from the kernel
    assert view.get_by_role("button", name="Copy the notebook's path").get_attribute("title") == str(run.folder / "data.ipynb")
    with page.expect_popup() as popup:
        view.get_by_role("button", name="HTML").click()
    report = popup.value.frame_locator("iframe")
    report.get_by_role("heading", name="data").wait_for()
    assert report.locator("body").evaluate("() => document.title") == "null"  # its scripts reach nothing of JupyterLab's
    lab.assert_stayed_here(page)


def test_the_keyboard_is_enough(page: Any, lab: Any, made: Any, tmp_path: Path) -> None:
    run = made(lab.project / ".mlops/runs/20261121T101010200-stones-bbbb")
    run.execute("data", 3.2)
    run.note("train", "running")
    run.log("data", "53,940 rows read\n")
    view = watch(page, lab, run, tmp_path / "start.png")
    view.locator("h4", has_text="train").wait_for()  # what runs is shown without a click
    data = view.get_by_role("button", name="data: done")
    data.focus()
    page.keyboard.press("Enter")
    view.locator(".log", has_text="53,940 rows read").wait_for()
    assert data.get_attribute("aria-pressed") == "true"
    run.note("train", "done", seconds=1.0)
    view.get_by_role("button", name="train: done").wait_for()
    assert view.locator("h4").inner_text() == "data"  # a choice stays
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "data: done after 3.2 s"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("train")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")  # takes the choice back
    view.locator("h4", has_text="train").wait_for()

    run.note("features", "done", seconds=1.0)
    run.note("stage", "done", seconds=1.0)
    view.evaluate(OLD)
    run.end()
    page.wait_for_function(f"({CELL_OUTPUT})()['text/plain'].endsWith('stage: done after 1.0 s')")  # the notebook keeps the end
    assert page.evaluate(CELL_OUTPUT)["text/html"].count("<li") == len(NEEDS)
    page.locator(DRAWN_AGAIN).wait_for()
    page.wait_for_function("(document.activeElement.getAttribute('aria-label') || '').startsWith('data')")  # the focus is kept


def test_a_killed_run_is_seen_to_have_stopped_and_is_legible_in_both_themes(page: Any, lab: Any, made: Any, tmp_path: Path) -> None:
    run = made(lab.project / ".mlops/runs/20261121T101010300-stones-cccc")
    run.execute("data", 3.2)
    run.note("train", "failed", seconds=1.0, message="KeyError: 'price'")
    run.note("features", "running")
    view = watch(page, lab, run, tmp_path / "start.png")
    view.locator("header .state[data-state=running]").wait_for()
    view.evaluate(OLD)
    run.end()
    page.locator(f"{DRAWN_AGAIN} header .state[data-state=failed]").wait_for()
    view.get_by_role("button", name="features: stopped").wait_for()
    for theme, light in (("Light", "true"), ("Dark", "false")):
        page.evaluate(f"window.jupyterapp.commands.execute('apputils:change-theme', {{theme: 'JupyterLab {theme}'}})")
        page.wait_for_function(f"document.body.dataset.jpThemeLight === '{light}' && !document.querySelector('#jupyterlab-splash')")
        page.screenshot(path=tmp_path / f"{theme}.png")
        words, icons = view.locator("b, h4, pre:visible, .facts, .state > span").all(), view.locator(".icon path").all()
        assert min(text.evaluate(CONTRAST) for text in words) >= 4.5
        assert min(icon.evaluate(CONTRAST) for icon in icons) >= 3


def test_the_executed_notebook_opens_beside_and_its_report_in_a_page(page: Any, lab: Any, made: Any, tmp_path: Path) -> None:
    run = made(lab.project / "runs/20261121T101010400-stones-dddd")  # in sight of JupyterLab
    run.execute("data", 3.2)
    view = watch(page, lab, run, tmp_path / "start.png")
    with page.expect_popup() as popup:
        view.get_by_role("link", name="HTML").click()
    popup.value.get_by_role("heading", name="data").wait_for()
    view.get_by_role("link", name="Notebook").click()
    page.locator(".jp-NotebookPanel", has_text="data as it ran").wait_for()


def test_without_a_kernel_the_last_state_stands_on_a_page_of_its_own(page: Any, made: Any, tmp_path: Path) -> None:
    run = made(tmp_path / "20261121T101010600-stones-ffff")
    run.execute("data", 3.2)
    run.note("train", "failed", seconds=2.0, message="KeyError: '<price>'")
    run.log("train", "reading\n")
    found = load_run(run.folder)
    page.set_content(as_html(draw(found), describe(found), {"train": tail(run.folder, "train")}))
    texts = page.locator(".node").all_inner_texts()
    assert texts == ["data\ndone · 3.2 s", "train\nfailed · 2.0 s", "features\nnot started", "stage\nnot started"]
    told = page.locator("details")
    assert "KeyError: '<price>'" in told.inner_text()
    told.locator("summary").focus()
    page.keyboard.press("Enter")
    assert not told.locator("pre").first.is_visible()
    assert not page.requested
