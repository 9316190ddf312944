"""The stage report: one file that a person can judge a candidate by, wherever it is opened."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops_nb.core.records import ModelVersion
from mlops_nb.outer_loop import fairness, report
from mlops_nb.outer_loop.load import Limits, Load, judge
from mlops_nb.outer_loop.staging import Check

MODEL = ModelVersion("dev.diamonds", 3, "regression", {"r2": 0.981}, "", "ada", "table:dev.diamonds.gold/2")
RANDOM = np.random.default_rng(0)
LOAD = Load(8, 2.0, {"200": 3000, "503": 2}, {"503": "too busy"}, RANDOM.lognormal(1.2, 0.5, 3000))
GROUP = pd.Series(["a"] * 300 + ["b"] * 300 + ["c"] * 10, name="group")
TRUTH = pd.Series(RANDOM.uniform(50, 150, 610))
ANSWER = TRUTH.to_numpy() * RANDOM.normal(1, 0.1, 610)
RATES = fairness.by_group(TRUTH, ANSWER, GROUP, "regression")
CHECKS = [Check("signature", None, None, True, "holds"), *fairness.fairness(TRUTH, ANSWER, GROUP, "regression"), *judge(LOAD, Limits())]


@pytest.fixture
def page(tmp_path: Path) -> str:
    data = fairness.data_by_group(TRUTH, GROUP, "regression")
    return report.write_report(tmp_path / "stage.html", MODEL, CHECKS, LOAD, RATES, data, {"Sensitive column": "group"}).read_text()


class Shape(HTMLParser):
    """What tags a page has, and whether all are closed."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.stack: list[str] = []
        self.faults: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "line", "rect"):
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        if self.stack.pop() != tag:
            self.faults.append(tag)


def test_the_verdict_stands_first_and_names_what_failed(page: str) -> None:
    words = re.sub(r"<style>.*?</style>|<[^>]+>", " ", page)
    assert words.index("Failed.") < words.index("signature")
    assert "1 failed, 0 shown without a verdict. Failed: error rate." in words
    assert "Load test" in words
    assert words.index("Load test") < words.index("Model unit tests")  # the section with the failed check comes first


def test_the_page_stands_alone_and_every_tag_is_closed(page: str) -> None:
    shape = Shape(page)
    assert not shape.faults
    assert shape.stack == []
    assert not [tag for tag, attributes in shape.tags if tag in ("script", "link", "img") or {"src", "href"} & set(attributes)]
    assert "url(" not in page
    assert "@import" not in page


def test_tables_and_pictures_can_be_read_aloud(page: str) -> None:
    tags = Shape(page).tags
    assert {attributes.get("scope") for tag, attributes in tags if tag == "th"} == {"col", "row"}
    assert sum(tag == "caption" for tag, _ in tags) == sum(tag == "table" for tag, _ in tags)
    labels = [attributes["aria-label"] for tag, attributes in tags if tag == "svg"]
    assert all(labels)
    assert any("p95" in label for label in labels)
    assert any("c " in label and "10 rows" in label for label in labels)  # the small group is shown
    assert "prefers-color-scheme: dark" in page


def test_every_check_is_in_the_page_with_value_interval_and_threshold(page: str) -> None:
    for check in CHECKS:
        assert check.name.replace("'", "&#x27;") in page
    (row,) = re.findall(r'<tr><th scope="row">difference of the bias</th>.*?</tr>', page)
    bias = next(check for check in CHECKS if check.name == "difference of the bias")
    assert f"{bias.low:.3g} to {bias.high:.3g}" in row
    assert "passed" in row
    assert "0.1" in row


def test_names_from_outside_stay_text(tmp_path: Path) -> None:
    odd = RATES.assign(group="<img src=x onerror=alert(1)>")
    checks = [Check("<script>alert(1)</script>", 1.0, None, False, "<b>no</b>", "<i>")]
    text = report.write_report(tmp_path / "odd.html", MODEL, checks, rates=odd).read_text()
    assert not {"script", "img", "b", "i"} & {tag for tag, _ in Shape(text).tags}


def test_what_was_not_measured_leaves_no_hole(tmp_path: Path) -> None:
    none = Load(1, 0.0, {"0": 4}, {"0": "refused"}, np.array([]))
    text = report.write_report(tmp_path / "none.html", MODEL, judge(none, Limits()), none).read_text()
    assert "<svg" not in text
    assert "no answer: 4" in text
    assert "nan" not in text
    assert "0 checks passed, 0 failed" in report.summary([])


def test_the_notebook_shows_failed_checks_first_and_links_to_the_page() -> None:
    shown = report.show(CHECKS)
    assert list(shown.data["verdict"])[:2] == ["FAILED", "passed"]
    assert "FAILED" in shown.to_html()
    assert 'href="outputs/stage.candidate.report.html"' in report.link("run/outputs/stage.candidate.report.html").data


@pytest.mark.browser
def test_it_reads_well_on_a_dark_screen_and_a_narrow_one(page: str, browser: Any, tmp_path: Path) -> None:
    shown = browser.new_page(color_scheme="dark", viewport={"width": 400, "height": 800})
    errors: list[str] = []
    shown.on("pageerror", lambda error: errors.append(str(error)))
    shown.goto((tmp_path / "stage.html").as_uri())
    assert shown.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(13, 17, 23)"
    assert shown.evaluate("document.documentElement.scrollWidth") <= 400  # wide tables scroll by themselves
    assert shown.locator("svg").count() >= 5
    assert not errors
