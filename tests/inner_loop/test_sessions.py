"""Labeling without a screen goes through the same doors, and a run that needs people ends as waiting, and goes on."""

import json
from pathlib import Path
from typing import Any

import pytest

from mlops_nb.core.ledger import entries
from mlops_nb.core.records import GateClosed, PeopleNeeded, SpecificationError
from mlops_nb.core.settings import Settings
from mlops_nb.inner_loop.answers import Event
from mlops_nb.inner_loop.labeling import LabelProject
from mlops_nb.inner_loop.leases import hand_out
from mlops_nb.inner_loop.review import judge, settle
from mlops_nb.inner_loop.sessions import label_by, replay_session, save_session, wait_for_people
from mlops_nb.inner_loop.store import LabelItem, Store, create, open_store


def posts(settings: Settings, name: str = "posts", **more: Any) -> Store:
    store = create(settings, LabelProject(**{"name": name, "task": "text_classification", "classes": ["spam", "ham"]} | more))
    store.add(LabelItem(f"t{n}", {"text": f"{('spam', 'ham')[n % 2]} {n}"}) for n in range(6))
    return store


def by_first_word(item: LabelItem) -> list[dict[str, Any]]:
    return [{"kind": "class", "label": item.data["text"].split()[0]}]


def test_an_oracle_labels_what_is_handed_out_to_it_and_nothing_twice(project: Settings) -> None:
    store = posts(project, overlap=2)
    [held] = hand_out(store, "cleo")
    assert [label_by(store, by_first_word, "ana", limit=limit) for limit in (2, 0, 0)] == [2, 4, 0]
    assert label_by(store, by_first_word, "ben") == 5  # the sixth is in cleo's hands
    assert held.id not in {answer.item for answer in store.answers(whose="ben")}
    assert {answer.annotations[0]["label"] for answer in store.answers("t3")} == {"ham"}


def test_an_oracle_that_does_not_know_skips(project: Settings) -> None:
    store = posts(project)
    assert label_by(store, lambda item: by_first_word(item) if item.id < "t3" else None, "ana") == 6
    assert {answer.item: answer.state for answer in store.answers(state="skipped")} == dict.fromkeys(["t3", "t4", "t5"], "skipped")
    assert store.progress()["dropped"] == 3


def test_an_answer_that_the_store_refuses_stops_the_oracle_and_gives_the_item_back(project: Settings) -> None:
    store = posts(project)
    with pytest.raises(SpecificationError, match=r"t0: the answer was refused: .*no 'song'"):
        label_by(store, lambda item: [{"kind": "class", "label": "song"}], "ana")
    with pytest.raises(ZeroDivisionError):
        label_by(store, lambda item: 1 // 0, "ana")
    assert hand_out(store, "ben")[0].id == "t0"


def test_what_a_model_proposed_is_where_the_oracle_begins(project: Settings) -> None:
    """So that the history shows what a person was shown, and what came of it."""
    store = posts(project)
    proposal = {"id": "class:ham", "kind": "class", "label": "ham", "source": "model:dev.posts/1"}
    store.set_predictions({"t0": [proposal]}, "model:dev.posts/1")
    label_by(store, by_first_word, "ana", limit=1)
    events = list(store.events("t0"))
    assert [event.kind for event in events] == ["open", "adopt", "submit"]
    assert events[0].data["annotations"] == [proposal]
    assert store.answer("t0", "ana").annotations == ({"id": "class:spam", "kind": "class", "label": "spam"},)


def test_a_recorded_session_ends_in_the_same_answers_elsewhere(project: Settings) -> None:
    """People's actions, a reviewer's and the consensus, each in its own name; playing it twice changes nothing."""
    first = posts(project, overlap=2, reviewers=["rita"])
    label_by(first, by_first_word, "ana")
    label_by(first, lambda item: [{"kind": "class", "label": "ham"}], "ben")
    first.record([Event("c1", "t1", "comment", "ana", "ana", {"text": "sure?"})])
    judge(first)
    reviewer = create(project.model_copy(update={"user": "rita"}), first.project)
    for item in list(first.items(state="disputed")):
        settle(reviewer, item.id, [{"id": "class:spam", "kind": "class", "label": "spam"}], "it says so")
    path = project.root / "session.jsonl"
    assert save_session(first, path) == len(list(first.events()))
    second = posts(project, "again", overlap=2, reviewers=["rita"])
    assert replay_session(second, path) == {} == replay_session(second, path)
    assert list(first.answers()) == list(second.answers())
    assert second.replay() == []
    assert wait_for_people(second) == 6 == second.progress()["final"]


def test_only_some_items_can_be_replayed_and_what_does_not_fit_is_named(project: Settings) -> None:
    first, path = posts(project), project.root / "session.jsonl"
    label_by(first, by_first_word, "ana")
    save_session(first, path)
    some = posts(project, "some")
    assert replay_session(some, path, items=["t1", "t2"]) == {}
    assert {answer.item for answer in some.answers()} == {"t1", "t2"}
    fewer = create(project, LabelProject(name="fewer", task="text_classification", classes=["ham", "eggs"]))
    fewer.add(LabelItem(f"t{n}", {"text": "x"}) for n in range(2))
    refused = replay_session(fewer, path)
    assert fewer.answer("t1", "ana").state == "submitted"
    assert fewer.answer("t0", "ana").state == "open"
    assert any("no 'spam'" in reason for reason in refused.values())
    assert any("No item 't5'" in reason for reason in refused.values())


@pytest.mark.parametrize(("change", "told"), [
    (lambda lines: lines[:-1], "holds 17 events of 18"), (lambda lines: [lines[0], "{torn", *lines[2:]], "line 2: no event"),
    (lambda lines: lines[1:], "line 1: no event"),
    (lambda lines: [lines[0].replace("text_classification", "text_ner"), *lines[1:]], "text_ner"),
], ids=["cut off", "torn", "no head", "task"])
def test_a_file_that_is_no_whole_session_changes_nothing(project: Settings, change: Any, told: str) -> None:
    first, path = posts(project), project.root / "session.jsonl"
    label_by(first, by_first_word, "ana")
    save_session(first, path)
    path.write_text("\n".join(change(path.read_text().splitlines())))
    second = posts(project, "again")
    with pytest.raises(SpecificationError, match=told):
        replay_session(second, path)
    assert not list(second.events())


def test_a_run_waits_for_people_and_says_what_is_missing(project: Settings) -> None:
    store = create(project, LabelProject(name="posts", task="text_classification", classes=["spam", "ham"], overlap=2))
    with pytest.raises(PeopleNeeded, match="posts has no items"):
        wait_for_people(store)
    store = posts(project, overlap=2)
    label_by(store, by_first_word, "ana")
    with pytest.raises(GateClosed, match=r"6 to label; 0 of 6 items are final\.\nGo on with: mlops-nb label page posts"):
        wait_for_people(store)
    label_by(store, lambda item: [{"kind": "class", "label": "ham"}], "ben")
    with pytest.raises(GateClosed, match=r"6 to compare.*\n.*mlops-nb label review posts"):
        wait_for_people(store)
    judge(store)
    with pytest.raises(GateClosed, match=r"3 to settle; 3 of 6 items are final\.\nGo on with: mlops-nb label page posts --role review"):
        wait_for_people(store)


def test_who_may_only_label_replays_nothing_and_labels_for_nobody_else(project: Settings) -> None:
    store, path = posts(project), project.root / "session.jsonl"
    label_by(store, by_first_word, "ana")
    save_session(store, path)
    store = open_store(project.model_copy(update={"persona": "data_analyst", "user": "dan"}), "posts")
    mine = (lambda: save_session(store, path), lambda: replay_session(store, path), lambda: label_by(store, by_first_word, "ana"))
    for forbidden in mine:
        with pytest.raises(PermissionError):
            forbidden()
    assert [entry.action for entry in entries(project, store.uri) if "session" in entry.action] == ["save_session"]


def test_a_session_is_one_event_a_line(project: Settings, tmp_path: Path) -> None:
    store = posts(project)
    label_by(store, by_first_word, "ana", limit=1)
    save_session(store, tmp_path / "s.jsonl")
    head, *rows = map(json.loads, (tmp_path / "s.jsonl").read_text().splitlines())
    assert head == {"project": "posts", "task": "text_classification", "events": 3}
    assert [row["kind"] for row in rows] == ["open", "adopt", "submit"]
    assert {(row["item"], row["by"], row["whose"]) for row in rows} == {("t0", "ana", "ana")}
