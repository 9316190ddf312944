"""A labeling project's store: what was done is kept, once, as it was; what follows from it is never anything else."""

import json
import shutil
import sqlite3
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as options
from hypothesis import strategies as st

from mlops_nb.core.ledger import entries
from mlops_nb.core.records import SpecificationError
from mlops_nb.core.settings import load_settings
from mlops_nb.inner_loop.answers import Event, fold
from mlops_nb.inner_loop.labeling import LabelProject
from mlops_nb.inner_loop.store import LabelItem, create, list_projects, open_store

ROOT = Path(__file__).resolve().parents[2]
SIGNS = LabelProject(name="signs", task="image_classification", classes=["0", "1"], overlap=2)
BOXES = LabelProject(name="boxes", task="image_object_detection", classes=["hand"])
PEOPLE = {"annotators": ("ana", "ben"), "reviewers": ("rita",)}
_ids = count()


def photo(id, **more):
    return LabelItem(id, {"image": f"{id}.jpg", "width": 100, "height": 80}, **more)


def class_(label):
    return {"id": f"class:{label}", "kind": "class", "label": label}


def box(id="b1", **more):
    return {"id": id, "kind": "box", "label": "hand", "x": 1, "y": 2, "width": 30, "height": 40} | more


def did(by, item, kind, whose=None, id="", seconds=0.0, **data):
    return Event(id or f"e{next(_ids)}", item, kind, by, by if whose is None else whose, data, seconds=seconds)


def do(store, *events, **more):
    """Record events that must be taken."""
    told = store.record(events, **more)
    assert not any(told.values()), told


def answer(store, by, item, label="1", seconds=0.0):
    do(store, did(by, item, "draw", annotation=class_(label), seconds=seconds), did(by, item, "submit"))


def refusal(store, event, **more):
    return store.record([event], **more)[event.id]


@pytest.fixture
def signs(project):
    with create(project, SIGNS) as store:
        store.add(photo(f"i{n}") for n in range(4))
        yield store


@pytest.fixture
def boxes(project):
    with create(project, BOXES) as store:
        store.add([photo("i0")])
        yield store


# --- projects ----------------------------------------------------------------------------------------------------------


def test_a_project_is_kept_with_the_words_of_its_file(project):
    text = "# three signs\nname: signs\ntask: image_classification\nclasses: ['0', '1']\noverlap: 2\n"
    with create(project, SIGNS, text) as store:
        assert store.database.execute("SELECT text FROM projects").fetchone()[0] == text
    with open_store(project, "signs") as store:
        assert store.project == SIGNS
    assert list_projects(project) == ["signs"]
    assert [(entry.action, entry.subject) for entry in entries(project)] == [("create_labels", "labels:signs")]


@pytest.mark.parametrize("fields", [{}, {"lease": "PT90S", "gold": {"every": 3, "least": 0.5}, "right_to_left": True, **PEOPLE}])
def test_a_project_without_a_file_is_written_and_read_again(project, fields):
    made = LabelProject(**SIGNS.model_dump() | fields)
    create(project, made).close()
    with open_store(project, "signs") as store:
        assert store.project == made


def test_the_same_file_again_makes_no_version_and_another_one_does(signs):
    create(signs.settings, SIGNS).close()
    assert signs.database.execute("SELECT max(version) FROM projects").fetchone()[0] == 1
    create(signs.settings, SIGNS.model_copy(update={"description": "hands"})).close()
    answer(signs, "ana", "i0")  # whoever has the store open works by the new version at once
    assert (signs.version, signs.project.description) == (2, "hands")
    assert len(entries(signs.settings, action="create_labels")) == 2


def test_what_answers_use_cannot_go(signs):
    answer(signs, "ana", "i0", "0")
    less = SIGNS.model_copy(update={"classes": SIGNS.classes[1:]})
    with pytest.raises(SpecificationError, match="'0' is used 1 times in answers and cannot go"):
        create(signs.settings, less)
    with pytest.raises(SpecificationError, match="has answers to image_classification and cannot become image_object_detection"):
        create(signs.settings, SIGNS.model_copy(update={"task": "image_object_detection"}))
    create(signs.settings, SIGNS.model_copy(update={"classes": SIGNS.classes[:1]})).close()  # nobody has used "1"


def test_more_people_per_item_open_items_again_and_fewer_close_them(signs):
    answer(signs, "ana", "i0")
    answer(signs, "ben", "i0")
    create(signs.settings, SIGNS.model_copy(update={"overlap": 3})).close()
    assert signs.item("i0").state == "open"
    answer(signs, "cleo", "i0")
    answer(signs, "ana", "i1")
    create(signs.settings, SIGNS.model_copy(update={"overlap": 1})).close()
    assert [item.state for item in signs.items()] == ["labeled", "labeled", "open", "open"]
    assert signs.replay() == []


def test_a_text_that_is_not_the_projects_is_refused(project):
    with pytest.raises(SpecificationError, match="the text is not that of the project"):
        create(project, SIGNS, "name: other\ntask: image_classification\nclasses: [a]\n")


def test_an_unknown_project_is_told_with_those_there_are(signs):
    with pytest.raises(SpecificationError, match=r"No labeling project 'sings' \(projects: signs\)"):
        open_store(signs.settings, "sings")
    with pytest.raises(SpecificationError, match="No labeling project"):
        open_store(signs.settings, "../ledger")


def test_a_file_of_another_format_or_a_damaged_one_is_refused(signs):
    signs.database.execute("PRAGMA user_version = 2")
    with pytest.raises(SpecificationError, match="has format 2, this version reads format 1"):
        open_store(signs.settings, "signs")
    signs.database.execute("PRAGMA user_version = 1")
    signs.database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    signs.close()
    content = bytearray(signs.path.read_bytes())
    content[4096 * 3 : 4096 * 3 + 200] = b"\xff" * 200
    signs.path.write_bytes(content)
    with pytest.raises((SpecificationError, sqlite3.DatabaseError), match=r"damaged|malformed"):
        open_store(signs.settings, "signs", check=True)


# --- items -------------------------------------------------------------------------------------------------------------


def test_items_are_added_once_and_come_in_order_of_rank(signs):
    assert signs.add([photo("i0"), photo("x", rank=-1), photo("x")]) == 1
    assert [item.id for item in signs.items()] == ["x", "i0", "i1", "i2", "i3"]
    assert [item.id for item in signs.items(limit=2)] == ["x", "i0"]
    assert [item.id for item in signs.items(ids=["i3", "i1"])] == ["i3", "i1"]
    signs.set_ranks({"i3": -2, "x": 5})
    assert [item.id for item in signs.items()] == ["i3", "i0", "i1", "i2", "x"]


def test_an_item_comes_back_as_it_was_added(signs):
    given_ = photo("x", source="queue:dev.signs", prediction=(class_("1") | {"source": "model:dev.signs/1", "score": 0.4},),
                   model="model:dev.signs/1", score=0.9, why="unsure", rank=3.0)  # fmt: skip
    given_.data["note"] = "\ud83d is half of an emoji, 👩‍🚀 a whole one"
    signs.add([given_])
    found = signs.item("x")
    assert found == replace(given_, at=found.at)


def test_items_are_read_while_their_states_change(signs):
    signs.add(photo(f"n{n}") for n in range(400))
    seen = []
    for item in signs.items(state="open"):
        signs.set_state(item.id, "review")
        seen.append(item.id)
    assert len(seen) == len(set(seen)) == 404
    assert signs.progress()["review"] == 404


def test_faulty_items_are_all_named_and_the_others_added(signs):
    wrong = [LabelItem("", {"image": "a"}), LabelItem("t", {"text": "a"}), photo("p", prediction=(class_("7"),)), photo("ok"),
             LabelItem("n", {"image": "a", "size": float("nan")})]  # fmt: skip
    with pytest.raises(SpecificationError) as refused:
        signs.add(wrong)
    *told, end = refused.value.faults
    assert [text.split(":")[0] for text in told] == ["item ''", "item t", "item p", "item n"]
    assert "item t: its data needs `image` for image_classification (there: text)." in told
    assert "signs has no '7' (there: 0, 1)" in told[2]
    assert "1 new items were added, 4 were not" in end
    assert signs.item("ok").state == "open"


def test_unknown_items_and_states_are_told(signs):
    with pytest.raises(LookupError, match="No item 'nope' in signs"):
        signs.item("nope")
    with pytest.raises(LookupError, match="No item nope in signs"):
        signs.set_ranks({"nope": 1, "i0": 2})
    with pytest.raises(SpecificationError, match="state 'done': one of open, labeled"):
        list(signs.items(state="done"))
    with pytest.raises(SpecificationError, match="state 'done'"):
        signs.set_state("i0", "done")
    with pytest.raises(SpecificationError, match="rank nan is no number"):
        signs.set_ranks({"i0": float("nan")})


def test_proposals_bear_their_models_name_and_unfit_ones_are_told(boxes):
    boxes.add([photo("i1")])
    refused = boxes.set_predictions({"i0": [box(score=0.4)], "i1": [box(x=90)]}, "model:dev.hands/3", {"i0": 0.6})
    assert "outside" in refused["i1"]
    first = boxes.item("i0")
    assert (first.model, first.score, first.prediction[0]["source"]) == ("model:dev.hands/3", 0.6, "model:dev.hands/3")
    assert boxes.item("i1").prediction == ()


# --- recording ---------------------------------------------------------------------------------------------------------


def test_the_same_event_is_stored_once_however_often_it_is_sent(signs):
    event = did("ana", "i0", "draw", annotation=class_("1"), seconds=2.0)
    assert signs.record([event, event]) == signs.record([event]) == {event.id: ""}
    assert len(list(signs.events())) == 1
    assert signs.answer("i0", "ana").seconds == 2.0


def test_an_id_of_another_event_is_refused(signs):
    do(signs, did("ana", "i0", "open", id="same"))
    assert "id same is that of another event" in refusal(signs, did("ana", "i1", "open", id="same"))
    assert "id same is that of another event" in refusal(signs, did("ana", "i0", "open", id="same", annotations=[]))


def test_one_bad_event_does_not_hold_up_the_others(signs):
    good, bad, last = did("ana", "i0", "draw", annotation=class_("1")), did("ana", "nope", "submit"), did("ana", "i0", "submit")
    assert signs.record([good, bad, last]) == {
        good.id: "", bad.id: "No item 'nope' in signs. `mlops-nb label add signs` reads its source.", last.id: ""}  # fmt: skip
    assert signs.answer("i0", "ana").state == "submitted"


def test_what_is_stored_is_seen_by_whoever_else_has_the_project_open(signs):
    with open_store(signs.settings, "signs") as other:
        do(signs, did("ana", "i0", "draw", annotation=class_("1")))
        do(other, did("ana", "i0", "undo"))
        do(signs, did("ana", "i0", "redo"))
        assert [one["label"] for one in other.answer("i0", "ana").annotations] == ["1"]
        assert other.answer("i0", "ana") == signs.answer("i0", "ana")


def test_every_moment_can_be_shown_again(boxes):
    do(boxes, *(did("ana", "i0", "draw", annotation=box(f"b{n}")) for n in range(5)))
    do(boxes, did("ana", "i0", "undo"), did("ana", "i0", "submit"))
    assert [len(boxes.at("i0", "ana", seq).annotations) for seq in range(8)] == [0, 1, 2, 3, 4, 5, 4, 4]
    assert boxes.at("i0", "ana", 7) == boxes.answer("i0", "ana")
    assert [event.kind for event in boxes.events("i0", "ana", after=5)] == ["undo", "submit"]


MALFORMED = {
    "no id": (lambda: did("ana", "i0", "open", id=" \n"), "id ' \\n'"),
    "unknown kind": (lambda: did("ana", "i0", "admire"), "kind 'admire': one of open, draw"),
    "nobody": (lambda: did("", "i0", "open"), "by ''"),
    "negative time": (lambda: did("ana", "i0", "open", seconds=-1), "seconds -1"),
    "no number": (lambda: did("ana", "i0", "open", seconds=float("nan")), "seconds nan"),
    "no mapping": (lambda: replace(did("ana", "i0", "open"), data=[1]), "data [1]: a mapping is expected"),
    "no JSON": (lambda: did("ana", "i0", "comment", text=float("inf")), "data: Out of range"),
    "not JSON at all": (lambda: did("ana", "i0", "comment", text=object()), "data: Object of type object"),
    "too much": (lambda: did("ana", "i0", "comment", text="x" * 2**25), "at most 33554432 are taken"),
}


@pytest.mark.parametrize(("event", "message"), MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_event_is_refused(signs, event, message):
    event = event()
    assert message in signs.record([event])[event.id]
    assert list(signs.events()) == []


UNFIT = {
    "unknown class": ("image_classification", {}, [class_("7")], "has no '7' (there: hand)"),
    "wrong kind": ("image_classification", {}, [box()], "a box is no annotation of image_classification (its kinds: class)"),
    "outside": ("image_object_detection", {}, [box(x=90)], "outside"),
}


@pytest.mark.parametrize(("task", "more", "annotations", "message"), UNFIT.values(), ids=UNFIT)
def test_what_does_not_fit_the_item_is_refused_at_once(project, task, more, annotations, message):
    with create(project, LabelProject(name="p", task=task, classes=["hand"], **more)) as store:
        store.add([photo("i0")])
        assert message in refusal(store, did("ana", "i0", "draw", annotation=annotations[0]))
        assert message in refusal(store, did("ana", "i0", "adopt", annotations=annotations))


TEXT, TWO = {"text": "Ana lives in Oslo"}, {"prompt": "?", "candidates": [{"id": "a"}, {"id": "b"}]}
ANA = {"id": "s1", "kind": "span", "label": "a", "start": 0, "end": 3}
INCOMPLETE = {
    "nothing chosen": ({"task": "text_classification"}, TEXT, [], "choose a class."),
    "two chosen": ({"task": "text_classification"}, TEXT, [class_("a"), class_("b")], "one answer is expected, not 2."),
    "a span without a class": ({"task": "text_ner"}, TEXT, [ANA | {"label": ""}], "s1: choose a class."),
    "overlapping spans": ({"task": "text_ner"}, TEXT, [ANA, ANA | {"id": "s2", "start": 1}], "spans overlap"),
    "a required text": ({"task": "text_generation", "fields": [{"name": "summary"}]}, TEXT,
                        [{"id": "t", "kind": "text", "label": "summary", "text": " \n"}], "write summary."),
    "a criterion": ({"task": "text_rubric", "criteria": [{"name": "true"}]}, TWO,
                    [{"id": "v", "kind": "score", "label": "true", "value": 2, "candidate": "a"}], "score true of b."),
    "no candidate": ({"task": "text_ranking"}, TWO, [], "choose a candidate, or tie."),
    "a relation to nothing": ({"task": "text_relations", "relations": [{"name": "in"}]}, TEXT,
                              [ANA, {"id": "r", "kind": "relation", "label": "in", "head": "s1", "tail": "s9"}],
                              "its tail 's9' is no span"),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "data", "annotations", "message"), INCOMPLETE.values(), ids=INCOMPLETE)
def test_an_incomplete_answer_is_kept_but_not_submitted(project, fields, data, annotations, message):
    classes = {} if {"fields", "criteria"} & set(fields) or fields["task"] == "text_ranking" else {"classes": ["a", "b"]}
    with create(project, LabelProject(name="p", **fields, **classes)) as store:
        store.add([LabelItem("i0", data)])
        do(store, did("ana", "i0", "adopt", annotations=annotations))
        assert message in refusal(store, did("ana", "i0", "submit"))
        assert store.answer("i0", "ana").state == "open"


def test_a_submitted_answer_is_reopened_before_it_is_changed(signs):
    answer(signs, "ana", "i0")
    assert "is submitted. Reopen it before it is changed." in refusal(signs, did("ana", "i0", "draw", annotation=class_("0")))
    assert "Reopen it" in refusal(signs, did("ana", "i0", "undo"))
    do(signs, did("ana", "i0", "reopen"), did("ana", "i0", "adopt", annotations=[class_("0")]), did("ana", "i0", "submit"))
    assert signs.progress()["classes"] == {"0": 1}


def test_a_batch_that_breaks_off_leaves_nothing_behind(signs):
    class Gone(Exception):
        pass

    def break_off():
        with signs.transaction():
            do(signs, did("ana", "i0", "draw", annotation=class_("1")))
            signs.add([photo("x")])
            raise Gone

    with pytest.raises(Gone):
        break_off()
    assert list(signs.events()) == []
    assert [entry.action for entry in entries(signs.settings)] == ["create_labels", "add_items"]  # nothing of it in the ledger
    assert "choose a class" in refusal(signs, did("ana", "i0", "submit"))  # what was taken back is forgotten in memory, too


# --- who may -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def team(project):
    with create(project, LabelProject(**SIGNS.model_dump() | PEOPLE)) as store:
        store.add(photo(f"i{n}") for n in range(4))
        yield store


def test_only_those_whom_the_project_names_answer_and_review(team):
    assert "cleo is none of the annotators of signs (ana, ben)" in refusal(team, did("cleo", "i0", "open"))
    answer(team, "ana", "i0")
    assert "ben is none of the reviewers of signs (rita)" in refusal(team, did("ben", "i0", "accept", whose="ana"))
    do(team, did("rita", "i0", "accept", whose="ana"))
    assert team.answer("i0", "ana").state == "accepted"


def test_only_its_owner_changes_an_answer(team):
    answer(team, "ana", "i0")
    for by in ("ben", "rita"):
        assert "the answer is ana's, and only ana changes it" in refusal(team, did(by, "i0", "reopen", whose="ana"))
    do(team, did("rita", "i0", "comment", whose="ana", text="Sure?"))


def test_nobody_reviews_what_he_has_answered(project):
    with create(project, SIGNS) as store:
        store.add([photo("i0")])
        answer(store, "ana", "i0")
        answer(store, "ben", "i0")
        for whose in ("ana", "ben", ""):
            assert "ana has answered i0, and cannot review it" in refusal(store, did("ana", "i0", "accept", whose=whose))
        do(store, did("cleo", "i0", "accept", whose="ben"))


def test_a_dispute_is_no_persons_word(team):
    assert "dispute: follows from comparing answers" in refusal(team, did("rita", "i0", "dispute", whose=""))
    do(team, did("rita", "i0", "dispute", whose="", score=0.2), role="judge")
    assert team.item("i0").state == "disputed"
    assert "reopen: not an event of role judge" in refusal(team, did("rita", "i0", "reopen", whose=""), role="judge")
    with pytest.raises(SpecificationError, match="role 'boss': one of judge, import is expected"):
        team.record([], role="boss")


@pytest.mark.parametrize(("persona", "user", "message"), [
    ("data_analyst", "ben", "ben cannot act for ana: act as ana, or as somebody who may curate."),
    ("platform_support", "ana", "platform_support may not label in dev"),
    ("data_analyst", "ana", ""),
    ("data_scientist", "ben", ""),
])  # fmt: skip
def test_who_acts_for_whom_is_a_matter_of_rights(team, persona, user, message):
    with open_store(load_settings(persona=persona, user=user), "signs") as store:
        told = refusal(store, did("ana", "i0", "open"))
        assert told.startswith(message) if message else not told


def test_a_right_that_is_taken_away_ends_at_once(team):
    with open_store(load_settings(persona="data_analyst", user="ana"), "signs") as store:
        do(store, did("ana", "i0", "open"))
        matrix = team.settings.root / "environments/access/preproduction.csv"
        matrix.write_text(matrix.read_text().replace("data_analyst,R,", "data_analyst,,"))
        assert "data_analyst may not label in dev" in refusal(store, did("ana", "i0", "comment", text="?"))


@pytest.mark.parametrize("change", [
    lambda store: store.add([]), lambda store: store.set_ranks({}), lambda store: store.set_gold({}),
    lambda store: store.set_predictions({}, "m"), lambda store: store.replay(repair=True), lambda store: create(store.settings, SIGNS),
])  # fmt: skip
def test_only_curators_change_what_surrounds_the_answers(team, change):
    with open_store(load_settings(persona="data_analyst"), "signs") as store, pytest.raises(PermissionError, match="may not curate"):
        change(store)


# --- states ------------------------------------------------------------------------------------------------------------


def test_an_item_is_open_until_all_answers_are_there(signs):
    answer(signs, "ana", "i0")
    assert signs.item("i0").state == "open"
    answer(signs, "ben", "i0")
    assert signs.item("i0").state == "labeled"
    do(signs, did("rita", "i0", "reject", whose="ben", reason="look again"))
    assert (signs.item("i0").state, signs.answer("i0", "ben").reason) == ("open", "look again")
    do(signs, did("ben", "i0", "submit"))
    assert signs.item("i0").state == "labeled"


def test_what_everybody_skips_is_dropped_and_what_some_skip_is_disputed(team):
    skip, cannot = {"reason": "too dark"}, "skip"
    do(team, did("ana", "i0", cannot, **skip), did("ben", "i0", cannot, **skip), did("ana", "i1", cannot, **skip))
    answer(team, "ben", "i1")
    assert (team.item("i0").state, team.item("i1").state) == ("dropped", "disputed")
    do(team, did("ana", "i0", "reopen"))
    assert team.item("i0").state == "open"


def test_whoever_is_not_named_skips_for_himself_only(signs):
    do(signs, did("ana", "i0", "skip"))
    answer(signs, "ben", "i0")
    assert signs.item("i0").state == "open"  # others may still be asked
    answer(signs, "cleo", "i0")
    assert signs.item("i0").state == "labeled"


def test_a_reviewers_word_on_the_final_answer(team):
    answer(team, "ana", "i0")
    answer(team, "ben", "i0", "0")
    do(team, did("rita", "i0", "adopt", whose="", annotations=[class_("0")]), did("rita", "i0", "submit", whose=""))
    assert team.item("i0").state == "final"
    assert "i0 is final. A reviewer may reject it first." in refusal(team, did("ana", "i0", "reopen"))
    do(team, did("rita", "i0", "reopen", whose=""))
    assert team.item("i0").state == "disputed"
    do(team, did("rita", "i0", "submit", whose="", state="review"))
    assert team.item("i0").state == "review"
    do(team, did("rita", "i0", "accept", whose=""))
    assert [one.annotations[0]["label"] for one in team.labeled()] == ["0"]


def test_gold_items_are_never_labels_of_people(signs):
    signs.set_gold({"i0": [class_("1")]})
    for by in ("ana", "ben", "cleo"):
        answer(signs, by, "i0", "0")
    told = signs.progress("ana")
    assert (told["items"], told["gold"], told["answers"], told["needed"], told["classes"], told["mine"]) == (3, 1, 0, 6, {}, 1)
    assert signs.item("i0").state == "open"
    assert list(signs.labeled("submitted")) == []
    assert signs.replay() == []
    signs.set_gold({"i0": None})
    assert signs.item("i0").state == "labeled"
    assert signs.progress()["classes"] == {"0": 3}


def test_a_final_item_is_final_again_when_it_is_no_longer_gold(team):
    do(team, did("rita", "i0", "adopt", whose="", annotations=[class_("0")]), did("rita", "i0", "submit", whose=""))
    team.set_gold({"i0": [class_("0")]})
    assert (team.item("i0").state, list(team.labeled())) == ("open", [])
    team.set_gold({"i0": None})
    assert team.item("i0").state == "final"


def test_labels_are_those_of_all_of_one_or_the_final_ones(team):
    answer(team, "ana", "i1", "1")
    answer(team, "ben", "i0", "0")
    do(team, did("ana", "i2", "draw", annotation=class_("1")))  # not submitted
    do(team, did("rita", "i1", "adopt", whose="", annotations=[class_("0")]), did("rita", "i1", "submit", whose=""))

    def said(which):
        return [(one.item.id, one.by, one.annotations[0]["label"]) for one in team.labeled(which)]

    assert said("submitted") == [("i0", "ben", "0"), ("i1", "ana", "1")]
    assert said("ana") == [("i1", "ana", "1")]
    assert said("final") == [("i1", "", "0")]
    with pytest.raises(SpecificationError, match=r"No answers of 'cleo' in signs \(there: final, submitted, ana, ben\)"):
        said("cleo")


# --- progress ----------------------------------------------------------------------------------------------------------


def test_progress_tells_pace_and_what_is_left(signs):
    assert (signs.progress("ana")["per_hour"], signs.progress("ana")["seconds_left"]) == (0.0, None)
    for item in ("i0", "i1"):
        answer(signs, "ana", item, seconds=10)
    told = signs.progress("ana")
    assert (told["mine"], told["answers"], told["needed"], told["per_hour"]) == (2, 2, 8, 360.0)
    assert told["seconds_left"] == 60  # six answers
    answer(signs, "ben", "i0", seconds=10)
    assert signs.progress("cleo")["seconds_left"] == 25  # five, and two people at it
    assert signs.progress("cleo")["per_hour"] == 0.0
    assert signs.progress()["people"] == {"ana": 2, "ben": 1}


def test_progress_and_recording_never_go_through_all_items(signs):
    """Every statement finds its rows by an index; only the few counters and the events of one answer are read in a row."""
    answer(signs, "ana", "i0")
    ran = []
    signs.database.set_trace_callback(ran.append)
    signs.progress("ana")
    answer(signs, "ben", "i0")
    signs.database.set_trace_callback(None)
    plans = {sql: [row["detail"] for row in signs.database.execute(f"EXPLAIN QUERY PLAN {sql}")]
             for sql in ran if sql.lstrip().startswith(("SELECT", "UPDATE"))}  # fmt: skip
    assert len(plans) > 10
    scans = {detail for plan in plans.values() for detail in plan if detail.startswith("SCAN")}
    assert scans <= {"SCAN projects", "SCAN cursors"}, scans


def test_a_long_answer_is_not_folded_anew_for_each_event(boxes):
    do(boxes, *(did("ana", "i0", "draw", annotation=box(f"b{n % 50}", x=n % 60)) for n in range(1000)))
    ran = []
    boxes.database.set_trace_callback(ran.append)
    do(boxes, did("ana", "i0", "undo"))
    boxes.database.set_trace_callback(None)
    assert not [sql for sql in ran if "FROM events WHERE seq >" in sql]
    with open_store(boxes.settings, "boxes") as other:  # who comes anew reads it once, and goes on from there
        do(other, *(did("ana", "i0", "undo") for _ in range(998)))
        assert other.answer("i0", "ana").undos == 1
    do(boxes, did("ana", "i0", "undo"))
    assert boxes.answer("i0", "ana").annotations == ()


# --- events are the truth ----------------------------------------------------------------------------------------------

REWRITES = ["UPDATE events SET by = 'eve'", "DELETE FROM events", "INSERT OR REPLACE INTO events SELECT * FROM events",
            "REPLACE INTO events (seq, id, item, kind, by, whose, data, at, seconds, received, sender) "
            "VALUES (1, 'x', 'i0', 'submit', 'eve', 'eve', '{}', '', 0, '', '')",
            "UPDATE projects SET text = ''", "DELETE FROM projects"]  # fmt: skip


@pytest.mark.parametrize("statement", REWRITES, ids=lambda text: text[:30])
def test_nobody_rewrites_what_was_done_whatever_program_he_uses(signs, statement):
    answer(signs, "ana", "i0")
    before = list(signs.events())
    other = sqlite3.connect(signs.path)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"), other:
        other.execute(statement)
    other.close()
    assert list(signs.events()) == before


def test_what_is_changed_beside_the_events_is_found_and_put_right(signs):
    answer(signs, "ana", "i0")
    answer(signs, "ben", "i0")
    for wrong in ("UPDATE answers SET annotations = '[]' WHERE whose = 'ana'", "UPDATE counters SET n = 9 WHERE name = 'classes'",
                  "UPDATE items SET submitted = 7 WHERE id = 'i1'", "INSERT INTO answers SELECT 'i3', whose, annotations, state, "
                  "comments, reason, by, at, seconds, undos, redos, seq FROM answers LIMIT 1"):  # fmt: skip
        signs.database.execute(wrong)
    told = "\n".join(signs.replay())
    for message in ("i0: the answer of ana is kept as submitted with 0 annotations, its events say submitted with 1 annotations.",
                    "i3: the answer of ana is kept, and has no events.", "i1: 7 answers and 0 skips are counted, there are 0 and 0.",
                    "classes 1: 9 are counted"):  # fmt: skip
        assert message in told
    assert signs.replay(repair=True)
    assert signs.replay() == []
    assert signs.progress()["classes"] == {"1": 2}
    assert entries(signs.settings, action="repair_labels")[0].details["repaired"] > 3


def test_when_and_by_whom_it_came_is_kept_beside_what_they_say(signs):
    do(signs, replace(did("ana", "i0", "open"), at="1999-01-01T00:00:00+00:00"))
    row = signs.database.execute("SELECT at, received, by, sender FROM events").fetchone()
    assert row["at"].startswith("1999")
    assert row["received"] > "2020"
    assert (row["by"], row["sender"]) == ("ana", signs.settings.user)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A store for many stories, each about items of its own."""
    root = tmp_path_factory.mktemp("shared")
    shutil.copy(ROOT / "settings.ini", root)
    shutil.copytree(ROOT / "environments/access", root / "environments/access")
    with create(load_settings(root=root), LabelProject(name="p", task="image_object_detection", classes=["hand"], overlap=2)) as store:
        yield store


WHO = st.sampled_from(["ana", "ben", "cleo", "rita"])
DONE = st.one_of(
    st.builds(lambda n, x: ("draw", {"annotation": box(f"b{n}", x=x)}), st.integers(0, 2), st.integers(0, 90)),  # some lie outside
    st.builds(lambda n, x: ("move", {"id": f"b{n}", "x": x}), st.integers(0, 2), st.integers(0, 90)),
    st.builds(lambda n: ("delete", {"id": f"b{n}"}), st.integers(0, 2)),
    st.builds(lambda n: ("adopt", {"annotations": [box(f"b{k}") for k in range(n)]}), st.integers(0, 3)),
    st.sampled_from([(kind, {}) for kind in ("undo", "redo", "submit", "skip", "reopen", "comment", "open", "accept", "reject")]),
)
STORY = st.lists(st.tuples(WHO, WHO | st.just(""), st.integers(0, 1), DONE, st.booleans()), max_size=30)


@options(max_examples=60)
@given(STORY)
def test_whatever_happens_what_is_kept_is_what_the_events_say(shared, story):
    """Four people do anything at all, possible or not, each time from this process or from another connection."""
    items = [f"s{next(_ids)}", f"s{next(_ids)}"]
    shared.add(map(photo, items))
    events = [(did(by, items[n], kind, whose=by if kind not in ("accept", "reject") and own else whose, seconds=0.5, **data), own)
              for by, whose, n, (kind, data), own in story]  # fmt: skip
    stored = []
    with open_store(shared.settings, "p") as other:
        for event, here in events:
            told = (shared if here else other).record([event])
            stored += [event.id] * (told[event.id] == "")
    kept = [event for item in items for event in shared.events(item)]
    assert sorted(event.id for event in kept) == sorted(stored)
    for one in [one for item in items for one in shared.answers(item)]:
        assert one == fold(one.item, one.whose, shared.events(one.item, one.whose))
        assert all(check["x"] <= 71 for check in one.annotations)
    assert not [line for line in shared.replay() if line.startswith(tuple(items)) or "counted" in line]
    for item in items:
        people = [one for one in shared.answers(item) if one.whose]
        given_ = sum(one.state in ("submitted", "accepted") for one in people)
        if shared.item(item).state == "open" and not list(shared.answers(item, "")):
            assert given_ < 2


def test_a_story_in_json_makes_the_same_answers_elsewhere(signs, project):
    answer(signs, "ana", "i0")
    do(signs, did("ana", "i0", "reopen"), did("ana", "i0", "undo"), did("ana", "i0", "comment", text="🤚🏽"))
    story = json.loads(json.dumps([vars(event) for event in signs.events()]))
    with create(project, SIGNS.model_copy(update={"name": "again"})) as other:
        other.add([photo("i0")])
        do(other, *(Event(**event) for event in story))
        assert other.answer("i0", "ana") == signs.answer("i0", "ana")
