"""Agreement of a project: the measures that suit its task, from what its people submitted."""

from collections.abc import Callable
from typing import Any

import pytest

from mlops_nb.core.settings import Settings
from mlops_nb.inner_loop.agreement import measure
from mlops_nb.inner_loop.answers import Event
from mlops_nb.inner_loop.labeling import LabelProject
from mlops_nb.inner_loop.reliability import Agreement, krippendorff_alpha
from mlops_nb.inner_loop.store import LabelItem, Store, create

Annotations = list[dict[str, Any]]


@pytest.fixture
def answered(project: Settings) -> Callable[..., Store]:
    """Lay a project with answers: `answered(LabelProject(...), items, ana=[annotations of each item, None: no answer], ...)`."""

    def lay(what: LabelProject, items: list[dict[str, Any]], **people: list[Annotations | None]) -> Store:
        store = create(project.model_copy(update={"user": "eva"}), what)
        store.add(LabelItem(f"i{n}", data) for n, data in enumerate(items))
        events = []
        for name, answers in people.items():
            for n, annotations in enumerate(answers):
                if annotations is not None:
                    events.append(Event(f"{name}{n}a", f"i{n}", "adopt", name, name, {"annotations": annotations, "from": name}))
                    events.append(Event(f"{name}{n}s", f"i{n}", "submit", name, name))
        assert not any(store.record(events).values())
        return store

    return lay


TEXT = {"text": "Jordan flew to Paris with Ana."}
IMAGE = {"image": "a.png", "width": 100, "height": 50}
PAIR = {"prompt": "Why?", "candidates": [{"id": "a", "text": "So."}, {"id": "b", "text": "Because."}]}


def label(*names: str) -> Annotations:
    """Choose classes."""
    return [{"id": f"class:{name}", "kind": "class", "label": name} for name in names]


def box(*places: float, label: str = "hand") -> Annotations:
    """Draw squares of 20 pixels."""
    return [{"id": f"b{x}", "kind": "box", "label": label, "x": x, "y": 0, "width": 20, "height": 20} for x in places]


def span(*places: tuple[int, int, str]) -> Annotations:
    """Mark spans."""
    return [{"id": f"s{start}", "kind": "span", "label": label, "start": start, "end": end} for start, end, label in places]


def named(found: list[Agreement]) -> dict[str, float | None]:
    """Return the values by measure, and by class where it is of one."""
    return {f"{one.measure}, {one.label}" if one.label else one.measure: one.value for one in found}


def test_classes_of_two_people(answered: Callable[..., Store]) -> None:
    """Mean agreement, alpha, Cohen and Fleiss; one that only one person answered does not count."""
    what = LabelProject(name="p", task="text_classification", classes=["a", "b"], overlap=2)
    ana, ben = [label(name) for name in "aabba"], [label(name) for name in "ababa"]
    found = measure(answered(what, [TEXT] * 6, ana=[*ana, label("a")], ben=[*ben, None]), by_class=True)
    alpha = krippendorff_alpha([list("aabba"), list("ababa")])
    kappa = 1 - 0.4 / 0.48
    assert named(found) == pytest.approx({
        "mean agreement": 0.6, "Krippendorff's alpha, nominal": alpha.value, "Cohen's kappa": kappa, "Fleiss' kappa": kappa,
        "Krippendorff's alpha, nominal, a": alpha.value, "Krippendorff's alpha, nominal, b": alpha.value})
    assert {(one.items, one.people) for one in found} == {(5, 2)}
    assert all(one.low is not None and one.low <= (one.value or 0) <= (one.high or 0) for one in found)


def test_three_people_and_unequal_numbers_of_answers(answered: Callable[..., Store]) -> None:
    """Three people: no Cohen; as many answers of each item: Fleiss; else alpha alone."""
    what = LabelProject(name="p", task="text_classification", classes=["a", "b"], overlap=3)
    a, b = label("a"), label("b")
    full = measure(answered(what, [TEXT] * 3, ana=[a, b, a], ben=[a, b, b], kim=[a, b, a]))
    assert [one.measure for one in full] == ["mean agreement", "Krippendorff's alpha, nominal", "Fleiss' kappa"]
    other = what.model_copy(update={"name": "q"})
    holes = measure(answered(other, [TEXT] * 3, ana=[a, b, a], ben=[a, b, b], kim=[a, None, None]))
    assert [one.measure for one in holes] == ["mean agreement", "Krippendorff's alpha, nominal"]
    assert {one.people for one in holes} == {3}


def test_people_who_only_ever_say_one_thing(answered: Callable[..., Store]) -> None:
    """They always agree, and kappa and alpha say why they cannot tell that from chance."""
    what = LabelProject(name="p", task="text_classification", classes=["a", "b"], overlap=2)
    mean, *corrected = measure(answered(what, [TEXT] * 3, ana=[label("a")] * 3, ben=[label("a")] * 3))
    assert mean.value == 1.0
    assert [(one.value, "only one value" in one.reason) for one in corrected] == [(None, True)] * 3


def test_several_classes(answered: Callable[..., Store]) -> None:
    """Alpha over all classes of all items, the same as over a table with a column for each."""
    what = LabelProject(name="p", task="text_classification_multilabel", classes=["a", "b", "c"], overlap=2)
    ana, ben = [("a",), ("a", "b"), (), ("c",)], [("a",), ("b",), (), ("c", "b")]
    store = answered(what, [TEXT] * 4, ana=[label(*each) for each in ana], ben=[label(*each) for each in ben])
    cells = [[name in each for each in person for name in "abc"] for person in (ana, ben)]
    found = named(measure(store, by_class=True))
    assert found["Krippendorff's alpha, nominal"] == pytest.approx(krippendorff_alpha(cells).value)
    assert found["mean agreement"] == pytest.approx((1 + 0.5 + 1 + 0.5) / 4)
    assert found["Krippendorff's alpha, nominal, c"] == 1.0


def test_boxes(answered: Callable[..., Store]) -> None:
    """F1 over all boxes, the overlap of those that were matched, the classes where two drew in one place, and each class by itself."""
    what = LabelProject(name="p", task="image_object_detection", classes=["hand", "cup"], overlap=2)
    ana = [box(0) + box(40, label="cup"), box(0), []]
    ben = [box(0) + box(40, label="hand"), box(5, 70), []]
    found = measure(answered(what, [IMAGE] * 3, ana=ana, ben=ben), by_class=True)
    f1 = "F1, overlap from 0.5"
    assert named(found) == pytest.approx({
        "mean agreement": (1 / 2 + 2 / 3 + 1) / 3, f1: 4 / 7, "mean overlap": (1 + 0.6) / 2,
        "Krippendorff's alpha, nominal, of classes in one place": krippendorff_alpha([list("hch"), list("hhh")]).value,
        f"{f1}, cup": 0.0, f"{f1}, hand": 4 / 6})


def test_spans_and_relations(answered: Callable[..., Store]) -> None:
    """The relations have an F1 of their own."""
    what = LabelProject(name="p", task="text_relations", classes=["person", "place"], relations=[{"name": "went"}], overlap=2)
    both = span((0, 6, "person"), (15, 20, "place"))
    went = {"id": "r", "kind": "relation", "label": "went", "head": "s0", "tail": "s15"}
    found = named(measure(answered(what, [TEXT] * 2, ana=[[*both, went], [*both, went]], ben=[[*both, went], both]), by_class=True))
    assert found["F1, overlap from 0.5, went"] == pytest.approx(2 / 3)
    assert found["F1, overlap from 0.5, place"] == 1.0
    assert found["F1, overlap from 0.5"] == pytest.approx(2 * 5 / 11)


def test_tags_word_by_word(answered: Callable[..., Store]) -> None:
    """Seven words and signs per text, of which one is tagged differently; the text is one piece of evidence."""
    what = LabelProject(name="p", task="text_tagging", classes=["name", "verb"], overlap=2)
    ana, ben = span((0, 6, "name"), (7, 11, "verb"), (15, 20, "name")), span((0, 6, "name"), (7, 11, "name"), (15, 20, "name"))
    found = measure(answered(what, [TEXT] * 2, ana=[ana, ana], ben=[ben, ana]))[-1]
    words = ["name", "verb", "", "name", "", "", ""]
    said = [words * 2, ["name", "name", *words[2:], *words]]
    assert found.measure == "Krippendorff's alpha, nominal, of words"
    assert (found.value, found.items) == (pytest.approx(krippendorff_alpha(said).value), 2)


def test_pixels(answered: Callable[..., Store]) -> None:
    """Overlap over all pixels of the project, and of each class."""
    what = LabelProject(name="p", task="image_semantic_segmentation", classes=["sky", "sea"], overlap=2)

    def paint(sky: int) -> Annotations:
        return [{"id": "1", "kind": "mask", "label": "sky", "rle": {"size": [50, 100], "counts": [0, sky, 5000 - sky]}},
                {"id": "2", "kind": "mask", "label": "sea", "rle": {"size": [50, 100], "counts": [4000, 1000]}}]

    found = named(measure(answered(what, [IMAGE], ana=[paint(1000)], ben=[paint(2000)]), by_class=True))
    assert found.pop("mean agreement") == 0.75
    assert found == pytest.approx({"overlap of pixels": 2 / 3, "overlap of pixels, sea": 1.0, "overlap of pixels, sky": 0.5})


def test_scores_of_candidates(answered: Callable[..., Store]) -> None:
    """Ordinal and interval alpha over criteria and candidates, each on its scale from 0 to 1, and of each criterion."""
    criteria = [{"name": "true"}, {"name": "kind", "lowest": 0, "highest": 8}]
    what = LabelProject(name="p", task="text_rubric", criteria=criteria, overlap=2)

    def scores(*values: int) -> Annotations:
        return [{"id": f"{name}{one}", "kind": "score", "label": name, "candidate": one, "value": value}
                for (name, one), value in zip([("true", "a"), ("true", "b"), ("kind", "a"), ("kind", "b")], values, strict=True)]

    ana, ben, kim = [(1, 2, 3, 4), (5, 4, 3, 3)], [(1, 3, 3, 5), (5, 5, 3, 2)], [(2, 2, 3, 4), None]
    store = answered(what, [PAIR] * 2, ana=[scores(*each) for each in ana], ben=[scores(*each) for each in ben],
                     kim=[scores(*each) if each else None for each in kim])
    found = named(measure(store, by_class=True))
    low, wide = (1, 1, 0, 0), (4, 4, 8, 8)
    scaled = [[[(each[n] - low[n]) / wide[n] if each else None for n in range(4)] for each in person] for person in (ana, ben, kim)]
    flat = [[value for each in person for value in each] for person in scaled]
    true = [[value for each in person for value in (each or [None] * 4)[:2]] for person in (ana, ben, kim)]
    for level in ("ordinal", "interval"):
        assert found[f"Krippendorff's alpha, {level}"] == pytest.approx(krippendorff_alpha(flat, level).value)
        assert found[f"Krippendorff's alpha, {level}, true"] == pytest.approx(krippendorff_alpha(true, level).value)
    assert {(one.items, one.people) for one in measure(store)} == {(2, 3)}


def test_choices_and_texts(answered: Callable[..., Store]) -> None:
    """A choice is a class; texts have a similarity for each field."""
    choice = [[{"id": "c", "kind": "choice", "label": name}] for name in ("a", "b", "tie")]
    ranking = LabelProject(name="p", task="text_ranking", overlap=2)
    assert named(measure(answered(ranking, [PAIR] * 3, ana=choice, ben=choice)))["Cohen's kappa"] == 1.0
    texts = [[{"id": "t", "kind": "text", "label": "german", "text": text}] for text in ("Der Hund schläft.", "Der Hund schlief.")]
    translation = LabelProject(name="q", task="text_generation", fields=[{"name": "german"}], overlap=2)
    found = named(measure(answered(translation, [TEXT] * 2, ana=[texts[0], texts[0]], ben=[texts[0], texts[1]])))
    assert 0.7 < found["similarity, german"] < 1  # type: ignore[operator]
    assert found["similarity, german"] == found["mean agreement"]


def test_gold_items_and_unfinished_answers_do_not_count(answered: Callable[..., Store]) -> None:
    """Gold items were chosen to be clear; an answer that was taken up again is none."""
    what = LabelProject(name="p", task="text_classification", classes=["a", "b"], overlap=2)
    store = answered(what, [TEXT] * 3, ana=[label("a"), label("b"), label("a")], ben=[label("a"), label("a"), label("b")])
    store.set_gold({"i0": label("a")})
    store.record([Event("again", "i2", "reopen", "ben", "ben")])
    found = measure(store)[0]
    assert (found.value, found.items) == (0.0, 1)


def test_nobody_has_answered_what_another_did(answered: Callable[..., Store]) -> None:
    """No number, and why."""
    what = LabelProject(name="p", task="text_classification", classes=["a", "b"])
    found = measure(answered(what, [TEXT] * 2, ana=[label("a"), None], ben=[None, label("a")]))
    assert [(one.value, one.reason) for one in found] == [(None, "no item was answered by two people")]


def test_only_what_was_answered_last(answered: Callable[..., Store]) -> None:
    """Beside the work, the newest items are enough: they agreed at first, and do not any more."""
    what = LabelProject(name="p", task="text_classification", classes=["a", "b"], overlap=2)
    store = answered(what, [TEXT] * 6, ana=[label("a")] * 6, ben=[label(name) for name in "aaaabb"])
    assert [measure(store, newest=newest)[0].value for newest in (2, 3, 100)] == pytest.approx([0, 1 / 3, 4 / 6])
    assert measure(store, newest=100) == measure(store)
    store.set_gold({"i5": label("a")})
    assert measure(store, newest=2)[0].value == 0.5
