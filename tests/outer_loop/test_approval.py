"""A model goes live because a person, not its trainer, said so."""

import pytest

from mlops_nb.core.ledger import entries
from mlops_nb.core.records import GateClosed, ModelVersion, PeopleNeeded
from mlops_nb.core.settings import Settings, load_settings
from mlops_nb.outer_loop.approval import approve, decision, refuse, require

MODEL = ModelVersion("dev.diamonds", 3, "regression", trained_by="ana")


def acting(settings: Settings, user: str, persona: str = "model_tester") -> Settings:
    return settings.model_copy(update={"user": user, "persona": persona})


def test_the_gate_waits_and_shows_the_command_that_opens_it(project: Settings) -> None:
    with pytest.raises(PeopleNeeded, match=r"mlops-nb approve diamonds/3 --by NAME --as project_lead --reason"):
        require(project, MODEL)


def test_a_colleague_opens_the_gate(project: Settings) -> None:
    given = approve(acting(project, "ben"), MODEL, "tested")
    assert require(project, MODEL) == given == decision(project, MODEL)
    assert (given.by, given.persona, given.reason) == ("ben", "model_tester", "tested")


@pytest.mark.parametrize("name", ["ana", "Ana", " ana"])
def test_the_trainer_may_not_approve_or_refuse(project: Settings, name: str) -> None:
    for act in (approve, refuse):
        with pytest.raises(PermissionError, match=r"trained model:dev\.diamonds/3"):
            act(acting(project, name), MODEL, "mine")
    assert decision(project, MODEL) is None


def test_the_matrices_say_who_may(project: Settings) -> None:
    with pytest.raises(PermissionError, match="model_end_user may not approve in dev"):
        approve(acting(project, "eva", "model_end_user"), MODEL)
    prod = acting(load_settings("prod"), "ben", "model_tester")
    with pytest.raises(PermissionError, match=r"in prod \(may: project_lead\)"):
        approve(prod, ModelVersion("prod.diamonds", 1, "regression", trained_by="ana"))


def test_a_refusal_needs_a_reason_and_closes_the_gate(project: Settings) -> None:
    ben = acting(project, "ben")
    with pytest.raises(ValueError, match="needs a reason"):
        refuse(ben, MODEL, "  ")
    refuse(ben, MODEL, "misses big stones")
    with pytest.raises(GateClosed, match="refused by ben \\(model_tester\\): misses big stones"):
        require(project, MODEL)
    assert [entry.action for entry in entries(project, MODEL.uri)] == ["refuse"]


def test_the_newest_decision_counts_and_only_for_its_version(project: Settings) -> None:
    approve(acting(project, "ben"), MODEL)
    refuse(acting(project, "cleo", "project_lead"), MODEL, "not yet")
    assert decision(project, MODEL).decision == "refused"  # type: ignore[union-attr]
    approve(acting(project, "ben"), MODEL, "now")
    assert require(project, MODEL).reason == "now"
    assert decision(project, ModelVersion("dev.diamonds", 4, "regression")) is None
