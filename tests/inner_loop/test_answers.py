"""What one person says about one item follows from the events: undo has no end, every moment comes back, wrong changes are refused."""

import json
import re
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_nb.inner_loop.answers import CHANGES, Answer, Event, Folded, check_annotation, fold, step

BOX = {"id": "b1", "kind": "box", "label": "hand", "x": 10, "y": 20, "width": 40, "height": 30}
SPAN = {"id": "s1", "kind": "span", "label": "place", "start": 0, "end": 4}


def did(kind, seconds=1.0, **data):
    return Event("e", "i1", kind, "ana", "ana", data, "2026-11-21T10:00:00+00:00", seconds)


def told(*events):
    return fold("i1", "ana", events)


def ids(*events):
    return [one["id"] for one in told(*events).annotations]


# --- annotations -------------------------------------------------------------------------------------------------------

SOUND = {
    "class": {"id": "c", "kind": "class", "label": "8"},
    "box": BOX,
    "polygon": {"id": "p", "kind": "polygon", "label": "hand", "rings": [[[0, 0], [4, 0], [4, 3]], [[6, 6], [7, 6], [7, 7]]]},
    "mask": {"id": "m", "kind": "mask", "label": "hand", "rle": {"size": [2, 3], "counts": [1, 2, 3]}, "crowd": True},
    "compressed mask": {"id": "m", "kind": "mask", "label": "hand", "rle": {"size": [2, 3], "counts": "123"}},
    "points": {"id": "k", "kind": "points", "label": "hand", "points": [[1, 2, 2], [0, 0, 0]]},
    "span": SPAN,
    "relation": {"id": "r", "kind": "relation", "label": "in", "head": "s1", "tail": "s2"},
    "text": {"id": "t", "kind": "text", "label": "summary", "text": "Short.\r\n👩‍🚀"},
    "choice": {"id": "w", "kind": "choice", "label": "tie"},
    "score": {"id": "v", "kind": "score", "label": "true", "value": 4, "candidate": "a"},
}


@pytest.mark.parametrize("annotation", SOUND.values(), ids=SOUND)
def test_every_kind_survives_json_in_the_same_words(annotation):
    kept = check_annotation(annotation)
    assert check_annotation(json.loads(json.dumps(kept))) == kept
    assert json.loads(json.dumps(kept)) == json.loads(json.dumps(annotation))


FAULTY = {
    "no mapping": ("hand", "annotation of kind None"),
    "no kind": ({"id": "x"}, "one of class, box, polygon"),
    "unknown kind": (BOX | {"kind": "circle"}, "annotation of kind 'circle'"),
    "no id": (BOX | {"id": ""}, "box: id: String should have at least 1 character (given: '')."),
    "no width": (BOX | {"width": 0}, "width: Input should be greater than 0 (given: 0)"),
    "not a number": (BOX | {"x": float("nan")}, "x: Input should be a finite number"),
    "infinite": (BOX | {"height": float("inf")}, "height: Input should be a finite number"),
    "unknown field": (BOX | {"radius": 3}, "radius: Extra inputs are not permitted (given: 3)."),
    "negative offset": (SPAN | {"start": -1}, "start: Input should be greater than or equal to 0"),
    "no rings": ({"id": "p", "kind": "polygon", "label": "x", "rings": []}, "rings: List should have at least 1 item"),
    "class without a name": ({"id": "c", "kind": "class"}, "label: Field required"),
}


@pytest.mark.parametrize(("annotation", "message"), FAULTY.values(), ids=FAULTY)
def test_a_faulty_annotation_is_refused_with_what_is_wrong(annotation, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        check_annotation(annotation)


def test_all_faults_of_an_annotation_are_told_at_once():
    with pytest.raises(ValueError, match=r"x: .*; width: .*"):
        check_annotation(BOX | {"x": "left", "width": -1})


# --- events ------------------------------------------------------------------------------------------------------------


def test_annotations_are_drawn_moved_labelled_and_deleted():
    story = [did("draw", annotation=BOX), did("draw", annotation=BOX | {"id": "b2"}), did("move", id="b1", x=11, y=21),
             did("label", id="b1", label="arm")]  # fmt: skip
    first, second = told(*story).annotations
    assert (first["x"], first["y"], first["width"], first["label"]) == (11, 21, 40, "arm")
    assert second["x"] == 10
    assert ids(*story, did("delete", id="b1")) == ["b2"]


def test_drawing_the_same_id_again_takes_its_place():
    story = [did("draw", annotation=BOX), did("draw", annotation=BOX | {"id": "b2"}), did("draw", annotation=BOX | {"width": 99})]
    assert [(one["id"], one["width"]) for one in told(*story).annotations] == [("b1", 99), ("b2", 40)]


def test_a_relation_goes_with_the_span_that_it_holds_on_to():
    relation = {"id": "r", "kind": "relation", "label": "in", "head": "s1", "tail": "s2"}
    story = [did("adopt", annotations=[SPAN, SPAN | {"id": "s2"}, relation])]
    assert ids(*story, did("delete", id="s2")) == ["s1"]


def test_what_a_person_changes_is_no_longer_the_models():
    proposal = SPAN | {"source": "model:dev.ner/1", "score": 0.7}
    shown = told(did("open", annotations=[proposal])).annotations[0]
    moved = told(did("open", annotations=[proposal]), did("move", id="s1", end=5)).annotations[0]
    assert (shown["source"], shown["score"]) == ("model:dev.ner/1", 0.7)
    assert "source" not in moved
    assert "score" not in moved


def test_a_proposal_stays_when_the_item_is_shown_again():
    shown = [did("open", annotations=[SPAN]), did("submit")]
    assert ids(*shown, did("open")) == ids(*shown, did("open", annotations=[])) == ["s1"]
    changed = [did("open", annotations=[SPAN]), did("delete", id="s1")]
    assert ids(*changed, did("open", annotations=[SPAN])) == []  # something was done already


def test_undo_goes_back_to_the_beginning_and_redo_forth_again():
    story = [did("open", annotations=[SPAN]), *(did("draw", annotation=BOX | {"id": f"b{n}"}) for n in range(50))]
    back = [*story, *(did("undo") for _ in range(60))]  # ten more than there is to take back
    assert ids(*back) == ["s1"]
    assert (told(*back).undos, told(*back).redos) == (0, 50)
    assert ids(*back, *(did("redo") for _ in range(50))) == ids(*story)
    assert told(*back, did("delete", id="s1"), did("redo")).annotations == ()  # a new change leaves nothing to redo


def test_states_follow_the_last_word_and_keep_its_reason():
    assert told(did("submit")).state == "submitted"
    assert told(did("submit"), did("reopen")).state == "open"
    assert told(did("submit"), did("reject", reason="too wide")).reason == "too wide"
    skipped = told(did("skip", reason="too dark"), did("comment", text="looks like night"), did("comment", text="or fog"))
    assert (skipped.state, skipped.reason, skipped.comments) == ("skipped", "too dark", ("looks like night", "or fog"))
    assert (skipped.by, skipped.at, skipped.seconds) == ("ana", "2026-11-21T10:00:00+00:00", 3.0)


REFUSED = {
    "move": (did("move", id="b7", x=1), "move: no annotation 'b7' (there: none)."),
    "delete": (did("delete"), "delete: no annotation 'None'"),
    "label": (did("label", id="b7", label="x"), "label: no annotation 'b7'"),
    "draw nothing": (did("draw"), "annotation of kind None"),
    "draw nonsense": (did("draw", annotation=BOX | {"width": -1}), "width"),
    "adopt nothing": (did("adopt"), "adopt: `annotations`, a list, is expected (given: None)."),
    "adopt two of one id": (did("adopt", annotations=[BOX, BOX]), "two annotations have the same id"),
}


@pytest.mark.parametrize(("event", "message"), REFUSED.values(), ids=REFUSED)
def test_a_change_that_cannot_be_is_refused(event, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        told(event)


def test_a_refused_change_leaves_everything_as_it_was():
    before = step(step(Folded(Answer("i1", "ana")), did("draw", annotation=BOX)), did("undo"))
    kept = asdict(before.answer)
    with pytest.raises(ValueError, match="no annotation"):
        step(before, did("move", id="b1", x=1))
    assert asdict(before.answer) == kept
    assert step(before, did("redo")).answer.annotations[0]["id"] == "b1"


# --- any story ---------------------------------------------------------------------------------------------------------

IDS = st.sampled_from(["b1", "b2", "b3"])
STORIES = st.lists(
    st.one_of(
        st.builds(lambda id, x: did("draw", annotation=BOX | {"id": id, "x": x}), IDS, st.integers(0, 9)),
        st.builds(lambda id, x: did("move", id=id, x=x), IDS, st.integers(0, 9)),
        st.builds(lambda id, label: did("label", id=id, label=label), IDS, st.sampled_from(["hand", "arm"])),
        st.builds(lambda id: did("delete", id=id), IDS),
        st.builds(lambda id: did("adopt", annotations=[BOX | {"id": id}]), IDS),
        st.sampled_from(["undo", "redo", "submit", "reopen", "open", "undo", "redo"]).map(did),
    ),
    max_size=40,
)


def plainly(events):
    """Fold a story in the most obvious way: a list of all the states there were, and a place in it."""
    states, place = [[]], 0
    for event in events:
        if event.kind in CHANGES:
            last = fold("i1", "ana", [did("adopt", annotations=states[place]), event]).annotations
            states, place = [*states[: place + 1], list(last)], place + 1
        elif event.kind == "undo":
            place = max(0, place - 1)
        elif event.kind == "redo":
            place = min(len(states) - 1, place + 1)
    return states[place], place, len(states) - 1 - place


@settings(max_examples=150, deadline=None)
@given(STORIES)
def test_any_story_says_what_a_list_of_all_its_states_says(events):
    possible, so_far = [], Folded(Answer("i1", "ana"))
    for event in events:
        try:
            so_far = step(so_far, event)
        except ValueError:
            continue
        possible.append(event)
    annotations, undos, redos = plainly(possible)
    assert list(so_far.answer.annotations) == annotations
    assert (so_far.answer.undos, so_far.answer.redos) == (undos, redos)
    assert fold("i1", "ana", possible) == so_far.answer


def test_the_next_event_costs_no_more_after_a_long_story():
    """What undo goes back to is shared between the moments, not copied: going on holds on to the same object."""
    so_far = Folded(Answer("i1", "ana"))
    for n in range(3000):
        so_far = step(so_far, did("draw", annotation=BOX | {"x": n}))
    after = step(so_far, did("draw", annotation=BOX))
    assert after.done[1] is so_far.done
    assert after.done[0] is so_far.answer.annotations
