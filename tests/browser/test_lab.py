"""A person opens a scenario notebook in JupyterLab and runs all of it; the screenshot stays in the test's folder."""

from pathlib import Path
from typing import Any

import nbformat
import pytest

from mlops_nb.core import ledger
from mlops_nb.core.settings import load_settings

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_the_front_page_runs_and_shows_the_loop(page: Any, lab: Any, tmp_path: Path) -> None:
    lab.run_all(page, "nbs/index.ipynb", tmp_path / "index.png")
    page.wait_for_function("document.querySelector('.jp-RenderedMarkdown img').naturalWidth > 0")
    assert page.locator(".jp-RenderedText").first.inner_text().startswith("mlops_nb ")


def test_a_scenario_notebook_runs_from_top_to_bottom(page: Any, lab: Any, tmp_path: Path) -> None:
    lab.run_all(page, "nbs/scenarios/classical/10_data.ipynb", tmp_path / "10_data.png")
    page.locator(".jp-OutputArea-output table, .jp-OutputArea-output img").first.wait_for()


CARD = """
from mlops_nb.core.records import ModelVersion
from mlops_nb.core.settings import load_settings
from mlops_nb.widgets import ApprovalCard
candidate = ModelVersion("dev.stones", 2, "regression", {"r2": 0.97, "mae": 90.1}, "run", "ada", "table:dev.stones.gold/0")
champion = ModelVersion("dev.stones", 1, "regression", {"r2": 0.91, "mae": 214.0}, "run", "ada", "table:dev.stones.gold/0")
ApprovalCard(load_settings(), candidate, champion, [{"name": "one row", "passed": True}])
"""


def test_a_person_approves_with_the_card_and_the_trainer_cannot(page: Any, lab: Any, tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CARD)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "python3", "language": "python"}
    nbformat.write(notebook, lab.project / "card.ipynb")
    lab.run_all(page, "card.ipynb", tmp_path / "waiting.png")
    card = page.locator(".mlops-approval")
    card.wait_for()
    assert card.locator("tr.better").all_inner_texts() == ["mae\t90.1\t214\t-124 better", "r2\t0.97\t0.91\t+0.06 better"]
    card.get_by_label("Name").fill("ada")
    card.get_by_role("button", name="Approve").click()
    card.get_by_role("alert").get_by_text("ada trained model:dev.stones/2").wait_for()
    card.get_by_label("Name").fill("grace")
    card.get_by_label("in the role").select_option("project_lead")
    card.get_by_label("Reason").fill("report read")
    card.get_by_role("button", name="Approve").click()
    card.get_by_role("status").get_by_text("approved by grace (project_lead)").wait_for()
    page.screenshot(path=tmp_path / "approved.png")
    [entry] = ledger.entries(load_settings("dev", lab.project), action="approve")
    assert (entry.user, entry.persona, entry.details["reason"]) == ("grace", "project_lead", "report read")
