"""Labeling: what a person waits for between two items, beside Label Studio, in a real browser with 100,000 items in the project.

Both are asked the same: short texts, one class each, chosen and submitted with the keyboard in chromium, on this machine, each on a
page of its own server (ours is the page of `mlops-nb label page`). Measured in the page, by its own clock: from the key that submits to
the first frame that shows the next text. Of ours also: from the key that chooses a class to the word that it is saved, which the page
says when the store has it on the disk; and how large items are shown and drawn on. They run one after the other; each begins with a few
items that do not count.

Sizes by environment variables: LABELING_ITEMS in the project, LABELING_ROUNDS submitted answers. Label Studio runs in an environment of
its own; where it cannot be had, it is left out.
"""

import contextlib
import itertools
import json
import os
import re
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks.peers import install
from tests.benchmarks.serving import free_port

ROOT = Path(__file__).resolve().parents[2]
ITEMS = int(os.environ.get("LABELING_ITEMS", "100000"))
ROUNDS = int(os.environ.get("LABELING_ROUNDS", "100"))
WARM = 5  # items that do not count
PEER = "label-studio==1.23.2"
PROJECT = """
name: bench
task: text_classification
classes: [{name: good, key: "1"}, {name: bad, key: "2"}]
sampling: {strategy: order}
"""
LAY = """
import sys
from pathlib import Path
from mlops_nb.core.settings import Settings
from mlops_nb.inner_loop.labeling import load_project
from mlops_nb.inner_loop.store import LabelItem, create
from mlops_nb.setup.project import lay_project
root, items = Path(sys.argv[1]), int(sys.argv[2])
lay_project(root)
settings = Settings(root=root, state=root / ".mlops", user="ana")
with create(settings, load_project(root / "bench.yml")) as store:
    store.add(LabelItem(f"i{n}", {"text": f"message {n} of many"}, rank=float(n)) for n in range(items))
"""
LARGE = """
import sys
from pathlib import Path
import numpy as np
from PIL import Image
from mlops_nb.core.settings import Settings
from mlops_nb.inner_loop.labeling import LabelProject
from mlops_nb.inner_loop.store import LabelItem, create
from mlops_nb.setup.project import lay_project
root = Path(sys.argv[1])
lay_project(root)
settings, order = Settings(root=root, state=root / ".mlops", user="ana"), {"strategy": "order"}
noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
Image.fromarray(noise).resize((4000, 3000), Image.Resampling.BICUBIC).save(root / "large.jpg", quality=90)
with create(settings, LabelProject(name="photos", task="image_semantic_segmentation", classes=["hand"], sampling=order)) as store:
    store.add(LabelItem(f"i{n}", {"image": "large.jpg", "width": 4000, "height": 3000}, rank=float(n)) for n in range(30))
words = " ".join(f"word{n}" for n in range(12_000))[:100_000]
with create(settings, LabelProject(name="books", task="text_ner", classes=["name"], sampling=order)) as store:
    store.add(LabelItem(f"i{n}", {"text": f"{n} {words}"}, rank=float(n)) for n in range(30))
"""
FRAMES = """() => {
  window.frames_ = [];
  const tick = now => { window.frames_.push(now); window.over || requestAnimationFrame(tick) };
  window.over = false;
  requestAnimationFrame(tick);
}"""
WATCH = """() => {
  window.shown = [];
  const seen = () => (document.body.innerText.match(/message \\d+/) ?? [''])[0];
  addEventListener('keydown', event => {
    if (event.key !== 'Enter') return;
    const began = performance.now(), before = seen();
    const look = () => (seen() && seen() !== before ? window.shown.push(performance.now() - began) : requestAnimationFrame(look));
    requestAnimationFrame(look);
  }, true);
}"""
WATCH_SAVING = """() => {
  window.saved = [];
  const state = document.querySelector('.saving');
  let began = 0;
  addEventListener('keydown', event => { if (event.key === '1') began = performance.now() }, true);
  new MutationObserver(() => {
    if (!began || state.dataset.state !== 'saved') return;
    window.saved.push(performance.now() - began);
    began = 0;
  }).observe(state, {attributes: true, attributeFilter: ['data-state']});
}"""


def main() -> None:
    print(f"{ITEMS:,} items, {ROUNDS} answers; milliseconds: median, p95\n")
    print("| | next item shown after submit | action saved |\n| --- | --- | --- |")
    ours, saved = measure_ours()
    print(f"| mlops_nb | {row(ours)} | {row(saved)} |", flush=True)
    theirs = measure_label_studio()
    if theirs:
        print(f"| Label Studio | {row(theirs)} | |")
        print(f"\nmlops_nb shows the next item {statistics.median(theirs) / statistics.median(ours):.1f} times sooner.")
    print("\n| | shown after the one before | a frame while dragging |\n| --- | --- | --- |")
    for what, (shown, frames) in measure_large().items():
        print(f"| {what} | {row(shown)} | {row(frames)} |", flush=True)


def row(times: list[float]) -> str:
    return f"{statistics.median(times):.0f}, {sorted(times)[int(0.95 * len(times))]:.0f}"


def label(page: Any, submit: str) -> list[float]:
    """Choose and submit, item by item; returns the milliseconds until the next text was there."""
    page.evaluate(WATCH)
    for n in range(WARM + ROUNDS):
        page.keyboard.press("1")
        page.wait_for_timeout(60)  # nobody is faster, and the choice is on its way
        page.keyboard.press(submit)
        page.wait_for_function(f"window.shown.length > {n}")
        page.wait_for_timeout(60)
    return [float(one) for one in page.evaluate("window.shown")[WARM:]]


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Open a page."""
    from playwright.sync_api import sync_playwright

    from tests.conftest import CHROMIUM

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser.new_page(viewport={"width": 1400, "height": 1000})
        browser.close()


def measure_ours() -> tuple[list[float], list[float]]:
    """Label on the page that `mlops-nb label page` serves."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "bench.yml").write_text(PROJECT)
        subprocess.run([sys.executable, "-c", LAY, folder, str(ITEMS)], check=True, stdout=subprocess.DEVNULL)
        with our_page(folder, "bench") as page:
            page.get_by_text("message 0 of many").wait_for(timeout=60_000)
            page.locator(".mlops-label").focus()
            page.evaluate(WATCH_SAVING)
            times = label(page, "Enter")
            return times, [float(one) for one in page.evaluate("window.saved")[WARM:]]


@contextlib.contextmanager
def our_page(folder: str, project: str) -> Iterator[Any]:
    """Open the page that `mlops-nb label page` serves for a project."""
    command = [str(Path(sys.executable).with_name("mlops-nb")), "label", "page", project, "--by", "ana"]
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert server.stdout
        link = next(found[0] for line in server.stdout if (found := re.search(r"http://\S+", line)))
        with chromium() as page:
            wait_until_up(link)
            page.goto(link)
            page.locator(".mlops-label[data-item=i0]").wait_for(timeout=60_000)
            yield page
    finally:
        server.terminate()
        server.wait(30)


def measure_large() -> dict[str, tuple[list[float], list[float]]]:
    """Skip from one large item to the next, then drag over one of them: milliseconds until it is shown, and of each frame."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-c", LARGE, folder], check=True, stdout=subprocess.DEVNULL)
        for project, what, place in (("photos", "a brush on 12 megapixels", ".scene"),
                                     ("books", "a selection in 100,000 characters", ".paper")):  # fmt: skip
            with our_page(folder, project) as page:
                shown = []
                for n in range(1, 21):
                    page.locator(".mlops-label").focus()
                    page.keyboard.press("s")
                    page.keyboard.press("Enter")
                    page.locator(f".mlops-label[data-item=i{n}]").wait_for()
                    shown.append(float(page.locator(".mlops-label").get_attribute("data-took")))
                    page.wait_for_timeout(500)  # nobody answers such an item sooner
                box = page.locator(place).first.bounding_box()
                page.mouse.move(box["x"] + 60, box["y"] + 60)
                page.mouse.down()
                page.evaluate(FRAMES)
                for n in range(120):
                    page.mouse.move(box["x"] + 60 + 3 * n, box["y"] + 60 + 1.5 * n)
                times = page.evaluate("() => { window.over = true; return window.frames_ }")
                page.mouse.up()
                found[what] = shown, [after - before for before, after in itertools.pairwise(times)]
    return found


def measure_label_studio() -> list[float]:
    """Label in the peer's own label stream; nothing where it cannot be installed."""
    with tempfile.TemporaryDirectory() as folder:
        python = install(Path(folder), "Label Studio", [PEER])
        if python is None:
            return []
        port, token, password = free_port(), secrets.token_hex(20), secrets.token_hex(8)
        base = f"http://127.0.0.1:{port}"
        quiet = {"LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true", "LATEST_VERSION_CHECK": "false", "COLLECT_ANALYTICS": "false"}
        command = [str(python.with_name("label-studio")), "start", "bench", "--init", "--username", "ana@example.org",
                   "--password", password, "--user-token", token, "--no-browser", "--port", str(port), "--data-dir", folder,
                   "--internal-host", "127.0.0.1"]  # fmt: skip
        server = subprocess.Popen(command, env=os.environ | quiet, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_until_up(f"{base}/health")
            project = fill(base, token)
            with chromium() as page:
                page.goto(f"{base}/user/login/")
                page.fill("input[name=email]", "ana@example.org")
                page.fill("input[name=password]", password)
                page.click("button[type=submit]")
                page.wait_for_function("!location.pathname.includes('login')")
                page.goto(f"{base}/projects/{project}/data?labeling=1")
                page.get_by_text("of many").first.wait_for(timeout=60_000)
                page.wait_for_timeout(1_000)
                return label(page, "Control+Enter")
        finally:
            server.terminate()
            server.wait(30)


def fill(base: str, token: str) -> int:
    """Make the same project there."""

    def ask(path: str, body: Any) -> Any:
        headers = {"Authorization": f"Token {token}", "Content-Type": "application/json"}
        request = urllib.request.Request(base + path, json.dumps(body).encode(), headers)  # noqa: S310 always http
        with urllib.request.urlopen(request, timeout=600) as answer:  # noqa: S310
            return json.load(answer)

    view = ('<View><Text name="text" value="$text"/><Choices name="c" toName="text" choice="single">'
            '<Choice value="good"/><Choice value="bad"/></Choices></View>')  # fmt: skip
    project = int(ask("/api/projects", {"title": "bench", "label_config": view})["id"])
    for first in range(0, ITEMS, 5_000):
        ask(f"/api/projects/{project}/import", [{"text": f"message {n} of many"} for n in range(first, min(ITEMS, first + 5_000))])
    return project


def wait_until_up(address: str) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).close()  # noqa: S310 always http
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
