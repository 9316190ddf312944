"""Matching: which shape is which, how alike two answers are, and what several come to together."""

from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_nb.inner_loop.answers import Answer
from mlops_nb.inner_loop.labeling import LabelProject
from mlops_nb.inner_loop.matching import agreement_of, compare, consensus, match, overlap, similarity, text_similarity

BOXES = LabelProject(name="p", task="image_object_detection", classes=["hand", "cup"])
CLASSES = LabelProject(name="p", task="text_classification", classes=["a", "b", "c"])
TOPICS = LabelProject(name="p", task="text_classification_multilabel", classes=["a", "b", "c"])
NAMES = LabelProject(name="p", task="text_ner", classes=["person", "place"], nested=True)
RELATIONS = LabelProject(name="p", task="text_relations", classes=["drug", "effect"], relations=[{"name": "causes"}, {"name": "cures"}])
RUBRIC = LabelProject(name="p", task="text_rubric", criteria=[{"name": "true"}, {"name": "kind", "lowest": 0, "highest": 10}])
TEXTS = LabelProject(name="p", task="text_generation", fields=[{"name": "german"}])
RANKING = LabelProject(name="p", task="text_ranking")
PIXELS = LabelProject(name="p", task="image_semantic_segmentation", classes=["sky", "sea"])
POINTS = LabelProject(name="p", task="image_keypoints", classes=[{"name": "hand", "keypoints": ["wrist", "thumb"]}])


def box(x: float, y: float = 0, label: str = "hand", side: float = 30, id: str = "") -> dict[str, Any]:
    """Draw a square."""
    return {"id": id or f"b{x}-{y}", "kind": "box", "label": label, "x": x, "y": y, "width": side, "height": side}


def span(start: int, end: int, label: str = "person", id: str = "") -> dict[str, Any]:
    """Mark a span."""
    return {"id": id or f"s{start}-{end}", "kind": "span", "label": label, "start": start, "end": end}


def label(name: str) -> dict[str, Any]:
    """Choose a class."""
    return {"id": f"class:{name}", "kind": "class", "label": name}


def text(said: str) -> dict[str, Any]:
    """Write a translation."""
    return {"id": "t", "kind": "text", "label": "german", "text": said}


def score(criterion: str, value: int) -> dict[str, Any]:
    """Give a score."""
    return {"id": criterion, "kind": "score", "label": criterion, "value": value}


def pixels(name: str, counts: list[int]) -> dict[str, Any]:
    """Paint an image of 4 x 5 pixels: runs of 0 and 1 by turns."""
    return {"id": f"m{name}{counts}", "kind": "mask", "label": name, "rle": {"size": [5, 4], "counts": counts}}


def people(*answers: list[dict[str, Any]]) -> list[Answer]:
    """Let ana, ben, eva and kim submit these."""
    return [Answer("i1", name, tuple(each), "submitted") for name, each in zip(("ana", "ben", "eva", "kim"), answers, strict=False)]


# --- matching -------------------------------------------------------------------------------------------------------------------


def test_as_many_as_possible_are_matched() -> None:
    """Both left boxes lie nearest to the same right one; each finds a partner all the same."""
    assert [(n, m) for n, m, _ in match([box(10), box(4)], [box(8), box(18)], iou=0.4)] == [(0, 1), (1, 0)]


def test_a_class_decides_between_equal_places() -> None:
    """Two boxes in one place, called differently: each is matched with its namesake, whatever their order."""
    left, right = [box(0, label="cup"), box(0, label="hand")], [box(0, label="hand"), box(0, label="cup")]
    assert match(left, right, labels=False) == [(0, 1, 1.0), (1, 0, 1.0)]


def test_labels_and_overlap_are_asked_for() -> None:
    """Another class, or too little overlap, is no match; overlap at the threshold is one."""
    assert match([box(0)], [box(0, label="cup")]) == []
    assert match([box(0)], [box(0, label="cup")], labels=False) == [(0, 0, 1.0)]
    assert match([box(0)], [box(10)], iou=0.5) == [(0, 0, 0.5)]
    assert match([box(0)], [box(10)], iou=0.51) == []
    assert match([], [box(0)]) == match([box(0)], []) == []


def test_kinds_of_shapes_are_compared_with_each_other() -> None:
    """A box, the polygon around it and its mask are the same shape; a span is no shape."""
    ring = {"id": "p", "kind": "polygon", "label": "sky", "rings": [[(0, 0), (2, 0), (2, 5), (0, 5)]]}
    assert overlap(ring, pixels("sky", [0, 10, 10])) == pytest.approx(1.0)
    assert overlap(ring, {"id": "b", "kind": "box", "label": "sky", "x": 0, "y": 0, "width": 4, "height": 5}) == pytest.approx(0.5)
    assert overlap(ring, span(0, 5)) == 0
    hand = {"id": "k", "kind": "points", "label": "hand", "points": [(10, 10, 2), (50, 50, 2)]}
    assert overlap(hand, hand) == 1.0
    assert len(match([hand], [hand | {"points": [(11, 10, 2), (50, 51, 2)]}])) == 1


places, sides, names = st.integers(0, 12), st.integers(3, 9), st.sampled_from(["hand", "cup"])
squares = st.lists(st.builds(box, places, places, names, sides), max_size=5)


@given(squares, squares)
@settings(max_examples=150, deadline=None)
def test_matching_is_the_best_there_is(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> None:
    """No other assignment has more pairs, nor as many that overlap more; either way round it is the same."""
    found = match(a, b, 0.3)
    assert len({n for n, _, _ in found}) == len({m for _, m, _ in found}) == len(found)
    short, long = sorted((a, b), key=len)
    shared = [[overlap(one, other) if one["label"] == other["label"] else 0 for other in long] for one in short]
    orders = permutations(range(len(long)), len(short))
    every = ([shared[n][m] for n, m in enumerate(order) if shared[n][m] >= 0.3] for order in orders)
    best = max(every, key=lambda pairs: (len(pairs), sum(pairs)))
    assert len(found) == len(best)
    assert sum(iou for _, _, iou in found) == pytest.approx(sum(best))
    assert sorted(iou for _, _, iou in match(b, a, 0.3)) == pytest.approx(sorted(iou for _, _, iou in found))


def test_a_thousand_spans_are_matched_at_once() -> None:
    """A long text does not stall a page: only what touches is compared."""
    many = [span(n * 10, n * 10 + 5) for n in range(1000)]
    moved = [one | {"start": one["start"] + 1} for one in many]
    assert len(match(many, moved)) == 1000


# --- how alike ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("project", "a", "b", "alike"), [
    (CLASSES, [label("a")], [label("a")], 1.0),
    (CLASSES, [label("a")], [label("b")], 0.0),
    (TOPICS, [label("a"), label("b")], [label("b"), label("c")], 1 / 3),
    (TOPICS, [], [], 1.0),
    (TOPICS, [], [label("a")], 0.0),
    (RANKING, [{"id": "c", "kind": "choice", "label": "tie"}], [{"id": "c", "kind": "choice", "label": "tie"}], 1.0),
    (BOXES, [box(0), box(100)], [box(1)], 2 / 3),
    (BOXES, [], [], 1.0),
    (NAMES, [span(0, 5), span(0, 5, "place")], [span(0, 5, "place")], 2 / 3),
    (TEXTS, [text("Hallo")], [text("Hallo ")], 1.0),
    (TEXTS, [text("Hallo")], [], 0.0),
    (PIXELS, [pixels("sky", [0, 10, 10])], [pixels("sky", [0, 20])], 0.5),
    (PIXELS, [pixels("sky", [0, 10, 10])], [pixels("sky", [0, 5, 15]), pixels("sky", [5, 5, 10])], 1.0),
    (PIXELS, [pixels("sky", [0, 10, 10])], [pixels("sea", [0, 10, 10])], 0.0),
    (PIXELS, [], [], 1.0),
], ids=[f"case{n}" for n in range(15)])
def test_how_alike_two_answers_are(project: LabelProject, a: list[dict[str, Any]], b: list[dict[str, Any]], alike: float) -> None:
    """By the task's own measure, whoever comes first."""
    assert similarity(project, a, b) == similarity(project, b, a) == pytest.approx(alike)


def test_scores_by_the_width_of_their_scale() -> None:
    """Two points of ten, none of five: 0.8 and 1; a score that is missing counts as 0."""
    five, low = [score("true", 5), score("kind", 3)], [score("true", 1), score("kind", 3)]
    assert similarity(RUBRIC, five, [score("true", 5), score("kind", 5)]) == pytest.approx(0.9)
    assert similarity(RUBRIC, low, five) == pytest.approx(0.5)
    assert similarity(RUBRIC, five, five[:1]) == pytest.approx(0.5)


def test_relations_count_where_their_ends_were_matched() -> None:
    """Other ids and borders a little off do not matter; another head or another kind of relation does."""
    def told(start: int, name: str, ids: str, swapped: bool = False) -> list[dict[str, Any]]:
        a, b = (ids + "2", ids + "1") if swapped else (ids + "1", ids + "2")
        return [span(start, 8, "drug", ids + "1"), span(20, 28, "effect", ids + "2"),
                {"id": ids + "r", "kind": "relation", "label": name, "head": a, "tail": b}]

    assert similarity(RELATIONS, told(0, "causes", "x"), told(1, "causes", "y")) == 1.0
    assert similarity(RELATIONS, told(0, "causes", "x"), told(0, "cures", "y")) == pytest.approx(2 / 3)
    assert similarity(RELATIONS, told(0, "causes", "x"), told(0, "causes", "y", swapped=True)) == pytest.approx(2 / 3)
    assert similarity(RELATIONS, told(0, "causes", "x"), told(7, "causes", "y")) == pytest.approx(1 / 3)
    assert compare(told(0, "causes", "x"), told(1, "causes", "y")).matched == 3


@given(st.text(max_size=40), st.text(max_size=40))
def test_texts(a: str, b: str) -> None:
    """From 0 to 1, the same both ways, 1 for the same text whatever its white space and way of writing accents."""
    assert 0 <= text_similarity(a, b) == text_similarity(b, a) <= 1
    assert text_similarity(a, f"  {a}\n") == 1
    assert text_similarity("café", "cafe\u0301") == 1
    assert text_similarity("", "x") == 0


def test_only_answers_that_count() -> None:
    """Skipped, open and rejected answers do not count; one answer agrees with itself; a known answer is compared like any other."""
    ana, ben = people([label("a")], [label("b")])
    assert agreement_of(CLASSES, [ana, ben]) == 0
    for state in ("skipped", "open", "rejected"):
        assert agreement_of(CLASSES, [ana, Answer("i1", "ben", ben.annotations, state)]) == 1
    assert agreement_of(CLASSES, [Answer("i1", "", ben.annotations, "submitted"), ana]) == 0
    assert agreement_of(CLASSES, people([label("a")], [label("a")], [label("b")])) == pytest.approx(1 / 3)


# --- consensus ------------------------------------------------------------------------------------------------------------------


def named(project: LabelProject, *answers: list[dict[str, Any]]) -> list[str] | None:
    """Return the labels of the consensus."""
    final = consensus(project, people(*answers))
    return None if final is None else [one["label"] for one in final]


def test_majority_of_classes() -> None:
    """Most votes, or none; of several classes each that more than half gave."""
    a, b, c = label("a"), label("b"), label("c")
    assert named(CLASSES, [a], [b], [a]) == ["a"]
    assert named(CLASSES, [a], [b]) is None
    assert named(CLASSES, [a], [b], [c]) is None
    assert named(TOPICS, [a, b], [b, c], [b, c]) == ["b", "c"]
    assert named(TOPICS, [a], [b]) == []
    assert consensus(CLASSES, people([a])) == (a,)


def test_the_shape_nearest_to_the_others() -> None:
    """Of three boxes the middle one, as its owner drew it; what one of three saw is left out."""
    final = consensus(BOXES, people([box(0), box(100)], [box(4), box(101)], [box(2), box(200)]))
    assert final is not None
    assert [(one["x"], one["label"]) for one in final] == [(2, "hand"), (100, "hand")]
    assert len({one["id"] for one in final}) == 2
    both = consensus(BOXES, people([box(0), box(100)], [box(1)]))  # one of two is not most of them
    assert [one["x"] for one in both or ()] == [0]


def test_most_votes_name_a_shape() -> None:
    """Two of three call it a cup: it is a cup, and one that one of the two drew."""
    final = consensus(BOXES, people([box(2)], [box(0, label="cup")], [box(3, label="cup")]))  # the hand lies nearest to all
    assert final is not None
    assert [(one["x"], one["label"]) for one in final] == [(0, "cup")]
    assert consensus(BOXES, people([box(0)], [box(0, label="cup")])) is None


def test_relations_of_the_consensus_hold_on_to_its_spans() -> None:
    """Head and tail are ids of the final spans, whatever they were called before."""
    def told(ids: str) -> list[dict[str, Any]]:
        return [span(0, 8, "drug", ids + "a"), span(20, 28, "effect", ids + "b"),
                {"id": ids + "r", "kind": "relation", "label": "causes", "head": ids + "a", "tail": ids + "b"}]

    final = consensus(RELATIONS, people(told("x"), told("y"), told("z")[:2]))
    assert final is not None
    drug, effect, causes = final
    assert (causes["head"], causes["tail"]) == (drug["id"], effect["id"])
    assert consensus(RELATIONS, people(told("x"), told("z")[:2], told("y")[:2])) == final[:2]  # one of three saw the relation


def test_the_middle_score_and_the_nearest_text() -> None:
    """The median of the scores; of the texts one that somebody wrote."""
    final = consensus(RUBRIC, people(*([score("true", value)] for value in (1, 5, 4))))
    assert final is not None
    assert [one["value"] for one in final] == [4]
    final = consensus(TEXTS, people(*([text(said)] for said in ("Der Hund", "Der Hund schläft", "Der Hund schlief"))))
    assert final is not None
    assert final[0]["text"] == "Der Hund schläft"


def test_key_points_and_pixels() -> None:
    """Key points are matched by their distance; painted pixels are taken from whoever is nearest to all."""
    hands = [[{"id": "k", "kind": "points", "label": "hand", "points": [(10 + n, 10, 2), (50, 50 + n, 2)]}] for n in (0, 1, 4)]
    final = consensus(POINTS, people(*hands))
    assert final is not None
    assert final[0]["points"] == [(11, 10, 2), (50, 51, 2)]
    painted = [[pixels("sky", [0, n, 20 - n])] for n in (8, 10, 16)]
    assert consensus(PIXELS, people(*painted)) == tuple(painted[1])


@given(st.lists(squares, min_size=1, max_size=4))
@settings(max_examples=100, deadline=None)
def test_a_consensus_is_made_of_what_people_drew(answers: list[list[dict[str, Any]]]) -> None:
    """Nothing is invented: each final shape is somebody's, but for its id; ids differ; whoever all agree with changes nothing."""
    named_apart = [[one | {"id": f"{n}"} for n, one in enumerate(each)] for each in answers]
    final = consensus(BOXES, people(*named_apart))
    if final is None:
        return
    drawn = [{**one, "id": ""} for each in answers for one in each]
    assert all({**one, "id": ""} in drawn for one in final)
    assert len({one["id"] for one in final}) == len(final)


@given(squares)
@settings(max_examples=50, deadline=None)
def test_people_who_say_the_same_agree(answer: list[dict[str, Any]]) -> None:
    """Three times the same answer is that answer."""
    answer = [one | {"id": f"{n}"} for n, one in enumerate(answer)]
    told = people(answer, answer, answer)
    assert agreement_of(BOXES, told) == 1.0
    final = consensus(BOXES, told)
    assert final is not None
    def key(one: dict[str, Any]) -> tuple[Any, ...]:
        return one["x"], one["y"], one["width"], one["label"]

    assert sorted(map(key, final)) == sorted(map(key, answer))


def test_nobody_answered() -> None:
    """There is nothing to agree upon."""
    with pytest.raises(ValueError, match="Nobody answered"):
        consensus(BOXES, [Answer("i1", "ana", (), "skipped")])
