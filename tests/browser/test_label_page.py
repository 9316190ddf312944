"""Two people label on pages of their own, served by the real voila, without JupyterLab."""

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlops_nb.core.ledger import entries
from mlops_nb.core.settings import Settings
from mlops_nb.inner_loop.store import open_store
from mlops_nb.widgets.label_page import links

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SERVE = """
import sys
from mlops_nb.core.settings import load_settings
from mlops_nb.widgets.label_page import serve
serve(load_settings(), "moods", port=int(sys.argv[1]), tell=lambda line: print(line, flush=True))
"""


@pytest.fixture
def moods(project: Settings, quick_project: Callable[..., str]) -> str:
    """A project that two people label, each item both of them."""
    texts = ({"text": "The room was cold."}, {"text": "We come again."})
    fields = {"classes": ["good", "bad"], "overlap": 2, "annotators": ["ana", "ben"], "name": "moods"}
    return quick_project(project, "text_classification", *texts, **fields)


@pytest.fixture
def served(project: Settings, moods: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The page's links, as whoever serves it is told them."""
    with (tmp_path / "voila.log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-c", SERVE, "0"], cwd=project.root, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout
        found = dict(process.stdout.readline().strip().split(": ", 1) for _ in range(2))
        deadline = time.monotonic() + 120
        while not alive(found["ana"]):
            assert process.poll() is None, (tmp_path / "voila.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield found
    finally:
        process.terminate()
        process.wait(120)


def alive(link: str) -> bool:
    try:
        urllib.request.urlopen(link.split("?")[0] + "voila/static/nothing", timeout=10).close()  # noqa: S310 always http
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def test_two_people_label_at_once_each_in_the_own_name(browser: Any, project: Settings, served: Any, tmp_path: Path) -> None:
    context = browser.new_context(viewport={"width": 1100, "height": 700})
    context.set_default_timeout(120_000)
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    pages = {who: context.new_page() for who in served}
    for who, page in pages.items():
        page.goto(served[who])
    for who, page in pages.items():
        page.wait_for_function("document.querySelector('.mlops-label')?.dataset.item === 'i1'")
        page.locator(".mlops-label").focus()
        page.keyboard.press("1" if who == "ana" else "2")
        page.keyboard.press("Enter")
    for who, page in pages.items():
        page.wait_for_function("document.querySelector('.mlops-label').dataset.item === 'i2'")
        page.locator(".saving[data-state=saved]").wait_for()
        page.screenshot(path=tmp_path / f"{who}.png")
    with open_store(project, "moods") as store:
        said = {one.whose: one.annotations[0]["label"] for one in store.answers(item="i1", state="submitted")}
    assert said == {"ana": "good", "ben": "bad"}
    here = served["ana"].split("?")[0]
    assert not [url for url in asked if not url.startswith((here, here.replace("http", "ws"), "data:", "blob:"))]
    assert entries(project)[-1].action == "open_label_page"

    stranger = context.browser.new_context()  # without the token
    assert "login" in stranger.new_page().goto(here, timeout=120_000).url
    stranger.close()
    forged = pages["ben"]
    forged.goto(served["ben"].replace("as=ben", "as=ana"))  # another's name
    forged.get_by_text("There was an error").or_(forged.get_by_text("not complete")).first.wait_for()
    assert forged.locator(".mlops-label").count() == 0
    context.close()


def test_a_link_is_only_for_people_of_the_project(project: Settings, moods: str) -> None:
    assert list(links(project, "moods", "label", [], 8000)) == ["ana", "ben"]
    assert links(project, "moods", "label", [], 8000) == links(project, "moods", "label", ["ana", "ben"], 8000)  # stay good
    assert links(project, "moods", "review", [], 8000)[project.user].startswith("http://127.0.0.1:8000/?token=")
    with pytest.raises(ValueError, match="zoe may not label moods"):
        links(project, "moods", "label", ["zoe"], 8000)
    with pytest.raises(ValueError, match="No labeling project 'mood'"):
        links(project, "mood", "label", [], 8000)
    kept = project.state / "labels" / "moods.page.json"
    assert kept.stat().st_mode & 0o077 == 0
