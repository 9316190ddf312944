"""The built site, opened from the disk: complete, searchable, and silent towards the network."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SITE = Path(__file__).resolve().parents[2] / "docs/_build/html"
pytestmark = [pytest.mark.browser, pytest.mark.skipif(not (SITE / "index.html").exists(), reason="no site here: run ci/docs")]


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    context = browser.new_context()
    context.set_default_timeout(60_000)
    page = context.new_page()
    page.requested, page.complaints = [], []
    page.on("request", lambda request: page.requested.append(request.url))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    yield page
    assert not [url for url in page.requested if not url.startswith(("file:", "data:", "blob:"))]
    assert not page.complaints
    context.close()


def test_the_front_page_leads_to_every_step(page: Any) -> None:
    page.goto((SITE / "index.html").as_uri())
    assert page.evaluate("document.querySelector('img.loop').naturalWidth") > 0
    page.locator(".sd-card", has_text="Walk the loop").click()
    page.wait_for_url("**/scenarios.html")
    steps = page.locator(".bd-article a.reference.internal")
    assert {"10_data", "20_train", "30_stage", "40_deploy", "50_monitor"} <= {
        Path(steps.nth(i).get_attribute("href")).stem for i in range(steps.count())
    }


def test_search_works_without_a_server(page: Any) -> None:
    page.goto((SITE / "search.html").as_uri() + "?q=ledger")
    page.locator("#search-results li a[href*='core/03_ledger']").first.wait_for()  # they come one after the other


@pytest.mark.parametrize("path", ["scenarios/classical/10_data.html", "core/03_ledger.html", "how-to/approve.html", "library.html"])
def test_a_page_stands_on_its_own(page: Any, path: str) -> None:
    page.goto((SITE / path).as_uri())
    assert page.locator("h1").first.inner_text()
    pictures = "[...document.images].filter(image => image.complete && !image.naturalWidth).map(image => image.src)"
    assert page.evaluate(pictures) == []


def test_the_stage_report_is_a_click_away(page: Any) -> None:
    page.goto((SITE / "scenarios/classical/40_deploy.html").as_uri())
    page.get_by_role("link", name="The stage report").click()
    page.wait_for_url("**/outputs/*.report.html")
    assert "Passed." in page.locator("body").inner_text()


def test_the_reference_has_a_table_of_parameters(page: Any) -> None:
    page.goto((SITE / "core/00_files.html").as_uri())
    assert "where; missing folders are made" in page.locator("dl.field-list").first.inner_text()
