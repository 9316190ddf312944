"""The approval card: what a person reads before a model goes on; its buttons decide as the command does, and refuse whom it refuses."""

import pytest

from mlops_nb.core.records import ModelVersion
from mlops_nb.core.settings import Settings
from mlops_nb.outer_loop import approval
from mlops_nb.outer_loop.staging import Check
from mlops_nb.widgets import ApprovalCard

BEFORE = ModelVersion("dev.stones", 2, "regression", {"r2": 0.91, "mae": 80.0, "rmse": 120.0}, "run", "ada", "table:dev.stones.gold/0")
MODEL = ModelVersion("dev.stones", 3, "regression", {"r2": 0.97, "mae": 90.0, "rmse": 120.0}, "run", "ada", "table:dev.stones.gold/1")


@pytest.fixture
def card(project: Settings) -> ApprovalCard:
    checks = [{"name": "one row", "passed": True}, Check("nulls", 0.4, 0.1, False, "nulls <b>fail</b>")]
    return ApprovalCard(project, MODEL, BEFORE, checks)


def click(card, act, reason="", name="", persona=""):
    """Do what a click does: the page sends a message, and is answered."""
    told = []
    card.send = told.append
    card._handle_custom_msg({"act": act, "reason": reason, "name": name, "persona": persona}, [])
    return told[-1]["answer"]


def test_the_champion_stands_beside_and_every_metric_says_whether_it_is_better(card):
    assert [(one["name"], one["difference"], one["word"]) for one in card.shown["metrics"]] == [
        ("mae", "+10", "worse"), ("r2", "+0.06", "better"), ("rmse", "+0", "same")]  # fmt: skip
    assert ["trained by", "ada"] in card.shown["facts"]


def test_a_first_model_has_none_beside_it(project):
    card = ApprovalCard(project, MODEL)
    assert card.shown["champion"] == ""
    assert {(one["champion"], one["word"]) for one in card.shown["metrics"]} == {("", "")}
    assert card.shown["verdict"] == "no stage report"


def test_failed_checks_come_first(card):
    assert card.shown["verdict"] == "1 passed, 1 failed"
    assert [(one["name"], one["verdict"], one["value"], one["threshold"]) for one in card.shown["checks"]] == [
        ("nulls", "failed", "0.4", "0.1"), ("one row", "passed", "", "")]  # fmt: skip


def test_a_colleague_approves_with_a_click(card, project):
    assert card.shown["state"] == "waiting"
    answer = click(card, "approve", "report read", "grace", "project_lead")
    decision = approval.decision(project, MODEL)
    assert (decision.decision, decision.by, decision.persona, decision.reason) == ("approved", "grace", "project_lead", "report read")
    assert answer == {"text": "approved by grace (project_lead)", "wrong": False}
    assert card.shown["state"] == "approved"
    assert [one["what"] for one in card.shown["history"]] == ["approved by grace (project_lead) for dev"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"act": "approve", "name": "ada"}, "ada trained"),
        ({"act": "refuse", "name": "grace", "persona": "project_lead"}, "needs a reason"),
        ({"act": "approve", "name": "grace", "persona": "model_end_user"}, "may not approve"),
        ({"act": "deploy", "name": "grace"}, "'deploy' is no decision"),
    ],
    ids=["the trainer", "no reason", "no right", "no decision"],
)
def test_who_may_not_is_told_why_and_nothing_is_decided(card, project, asked, said):
    answer = click(card, **asked)
    assert answer["wrong"]
    assert said in answer["text"]
    assert approval.decision(project, MODEL) is None


def test_only_personas_that_may_are_offered(card):
    assert "project_lead" in card.shown["personas"]
    assert "cicd_process" not in card.shown["personas"]


def test_without_a_person_only_the_facts_are_shown_and_no_markup_of_others(card, monkeypatch):
    monkeypatch.setenv("MLOPS_NB_HEADLESS", "1")
    shown = card._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" not in shown
    assert "model:dev.stones/3" in shown["text/html"]
    assert "nulls &lt;b&gt;fail&lt;/b&gt;" in shown["text/html"]
    assert "<button" not in shown["text/html"]
