"""The approval card: its buttons decide as the command does, and refuse whom it refuses."""

import pytest

from mlops_nb.core.records import ModelVersion
from mlops_nb.core.settings import Settings
from mlops_nb.outer_loop import approval
from mlops_nb.widgets import ApprovalCard

MODEL = ModelVersion("dev.stones", 3, "regression", {"r2": 0.97}, "run", "ada", "table:dev.stones.gold/0")


@pytest.fixture
def card(project: Settings) -> ApprovalCard:
    return ApprovalCard(project, MODEL, checks=[{"name": "one row", "passed": True}, {"name": "nulls", "passed": False}])


def test_it_shows_what_is_decided_about(card):
    assert "model:dev.stones/3" in card.facts.value
    assert "0.97" in card.facts.value
    assert "1 checks passed, 1 failed nulls" in card.facts.value


def test_a_colleague_approves_with_a_click(card, project):
    card.name.value, card.persona.value, card.reason.value = "grace", "project_lead", "report read"
    card.approve.click()
    decision = approval.decision(project, MODEL)
    assert (decision.decision, decision.by, decision.persona, decision.reason) == (
        "approved", "grace", "project_lead", "report read")  # fmt: skip
    assert "approved by grace" in card.answer.value


def test_the_trainer_is_told_no(card, project):
    card.name.value = "ada"
    card.approve.click()
    assert approval.decision(project, MODEL) is None
    assert "ada trained" in card.answer.value


def test_a_refusal_needs_a_reason(card, project):
    card.name.value, card.persona.value = "grace", "project_lead"
    card.refuse.click()
    assert approval.decision(project, MODEL) is None
    assert "reason" in card.answer.value


def test_only_personas_that_may_are_offered(card):
    assert "project_lead" in card.persona.options
    assert "cicd_process" not in card.persona.options


def test_without_a_person_only_the_facts_are_shown(card, monkeypatch):
    monkeypatch.setenv("MLOPS_NB_HEADLESS", "1")
    shown = card._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" not in shown
    assert "model:dev.stones/3" in shown["text/html"]
