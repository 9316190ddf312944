"""In which order people label: chance that stays, doubt that is comparable, difference that covers, and what went wrong first."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from mlops_nb.core.ledger import entries
from mlops_nb.core.settings import Settings
from mlops_nb.inner_loop.labeling import LabelProject
from mlops_nb.inner_loop.leases import hand_out
from mlops_nb.inner_loop.sampling import MEASURES, chance, embed, picture_numbers, rank, spread, unsure, unsure_of
from mlops_nb.inner_loop.sessions import label_by
from mlops_nb.inner_loop.store import LabelItem, Store, create, open_store

MODEL = "model:dev.posts/1"


def of(settings: Settings, strategy: str = "random", **more: Any) -> Store:
    about = {"name": "posts", "task": "text_classification", "classes": ["spam", "ham"]} | more
    return create(settings, LabelProject(**about, sampling={"strategy": strategy, "seed": 3}))


def texts(*ids: str, scores: dict[str, float] | None = None) -> list[LabelItem]:
    return [LabelItem(id, {"text": f"text {id}"}, score=(scores or {}).get(id)) for id in ids]


def order(store: Store) -> list[str]:
    return [item.id for item in store.items(state="open")]


def test_chance_is_the_same_every_time_and_does_not_move_what_was_there(project: Settings) -> None:
    store = of(project)
    store.add(texts(*map(str, range(20))))
    rank(store)
    before = order(store)
    store.add(texts(*map(str, range(20, 40))))
    rank(store)
    assert before != sorted(before, key=int)
    assert [id for id in order(store) if int(id) < 20] == before
    assert chance(3, "7") != chance(4, "7")


def test_in_order_is_as_they_were_added(project: Settings) -> None:
    store = of(project, "random")
    store.add(texts("c", "a", "b"))
    rank(store)
    rank(store, "order")
    assert order(store) == ["c", "a", "b"]


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9).filter(lambda shares: sum(shares) > 0.01), st.sampled_from(MEASURES))
def test_doubt_lies_between_none_and_all_whatever_the_number_of_classes(shares: list[float], measure: str) -> None:
    assert -1e-9 <= unsure(shares, measure) <= 1 + 1e-9
    assert unsure([1.0] + [0.0] * len(shares), measure) == pytest.approx(0)
    assert unsure([0.3] * len(shares), measure) == pytest.approx(1)


def test_the_three_measures_are_those_of_the_books() -> None:
    """By hand for (0.7, 0.2, 0.1): entropy in units of log 3, 1 - (0.7 - 0.2), (1 - 0.7) / (2 / 3)."""
    shares = (0.2, 0.7, 0.1)
    entropy = -(0.7 * math.log(0.7) + 0.2 * math.log(0.2) + 0.1 * math.log(0.1)) / math.log(3)
    assert unsure(shares) == pytest.approx(entropy)
    assert (unsure(shares, "margin"), unsure(shares, "least_confidence")) == (pytest.approx(0.5), pytest.approx(0.45))
    with pytest.raises(ValueError, match="No measure 'guess'"):
        unsure(shares, "guess")


def test_of_many_boxes_the_mean_or_the_least_sure_one_counts() -> None:
    boxes = [{"score": 1.0}, {"score": 0.5}, {"kind": "box"}]
    assert (unsure_of(boxes), unsure_of(boxes, of="least"), unsure_of([])) == (0.5, 1.0, 0.5)


def test_what_the_model_is_least_sure_of_comes_first_and_what_it_has_not_seen_last(project: Settings) -> None:
    store = of(project, "uncertainty")
    store.add(texts("sure", "torn", "unseen", "leaning"))
    made = {"sure": 0.99, "torn": 0.51, "leaning": 0.7}
    store.set_predictions({id: [{"id": "class:spam", "kind": "class", "label": "spam", "score": s}] for id, s in made.items()}, MODEL)
    assert set(rank(store)) == {"sure", "torn", "unseen", "leaning"}
    assert order(store) == ["torn", "leaning", "sure", "unseen"]
    assert hand_out(store, project.user)[0].id == "torn"
    rank(store, predictions={"sure": (0.5, 0.5), "unseen": (0.6, 0.4), "torn": (0.9, 0.1), "leaning": [{"score": 1.0}]})
    assert order(store) == ["sure", "unseen", "torn", "leaning"]


def test_what_went_worst_in_production_comes_first(project: Settings) -> None:
    store = of(project, "wrong")
    store.add(texts("mild", "none", "bad", scores={"mild": 0.2, "bad": 0.9}))
    rank(store)
    assert order(store) == ["bad", "mild", "none"]


@given(st.integers(0, 40), st.integers(0, 5), st.integers(0, 9))
def test_spreading_names_every_open_item_once(count: int, known: int, seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(count + known, 3)).astype(np.float32)
    assert sorted(spread(points, range(known), most=10)) == list(range(known, count + known))


def test_each_next_one_is_the_farthest_from_all_before() -> None:
    line = np.array([[0.0], [1.0], [10.0], [4.0], [11.0]], dtype=np.float32)
    assert spread(line, known=[0]) == [4, 3, 1, 2]


def test_a_hundred_thousand_items_are_spread_in_little_memory() -> None:
    """The first thousand one by one; no pairs of items are kept, which would be 40 GB."""
    points = np.random.default_rng(0).normal(size=(100_000, 8)).astype(np.float32)
    found = spread(points, most=100)
    assert len(set(found)) == 100_000


def test_texts_of_every_kind_come_before_more_of_the_same(project: Settings) -> None:
    """Also after a kind is labeled: then the others are the farthest from it."""
    store = of(project, "diversity")
    kinds = {"train": "the train to {} is late", "cake": "bake butter sugar flour {} minutes", "match": "goal score {} keeper wins"}
    counts = {"train": 12, "cake": 2, "match": 2}
    store.add(LabelItem(f"{kind}{n}", {"text": text.format(n)}) for kind, text in kinds.items() for n in range(counts[kind]))
    rank(store)
    assert {id.rstrip("0123456789") for id in order(store)[:3]} == set(kinds)
    label_by(store, lambda item: [{"kind": "class", "label": "ham"}], project.user, limit=1)
    labeled = next(answer.item for answer in store.answers())
    rank(store)
    assert not order(store)[0].startswith(labeled.rstrip("0123456789"))


def drawn(folder: Path, name: str, seed: int) -> LabelItem:
    generator = np.random.default_rng(seed)
    picture = Image.fromarray(generator.integers(200, 255, (40, 40, 3), dtype=np.uint8))
    pen, (x, y) = ImageDraw.Draw(picture), generator.integers(8, 12, 2).tolist()
    if name == "box":
        pen.rectangle((x, y, x + 20, y + 20), outline="black", width=3)
    else:
        pen.line((x, y, x + 20, y + 20), fill="black", width=4)
    picture.save(folder / f"{name}{seed}.png")
    return LabelItem(f"{name}{seed}", {"image": f"{name}{seed}.png", "width": 40, "height": 40})


def test_pictures_that_look_alike_lie_near_each_other(project: Settings) -> None:
    items = [drawn(project.root, name, seed) for seed in range(6) for name in ("box", "line")]
    points = embed(project, "image", [*items, LabelItem("torn", {"image": "gone.png"})])
    far = np.linalg.norm(points[:12, None] - points[None, :12], axis=2) + np.eye(12) * 1e9
    assert [items[near].id[:3] for near in far.argmin(axis=1)] == [item.id[:3] for item in items]
    with Image.open(project.root / "box0.png") as picture:
        assert picture_numbers(picture).shape == (900,)
        assert 0 <= picture_numbers(picture).min() <= picture_numbers(picture).max() <= 0.2 + 1e-6


def test_rows_are_spread_by_numbers_and_texts(project: Settings) -> None:
    rows = [{"fare": str(n), "town": "Riga" if n < 8 else "Oslo"} for n in range(9)]
    points = embed(project, "row", [LabelItem(str(n), {"row": row}) for n, row in enumerate(rows)])
    assert spread(points)[1] == 8


def test_ranking_is_for_those_who_curate_and_leaves_a_trace(project: Settings) -> None:
    store = of(project)
    store.add(texts("a"))
    rank(store)
    [entry] = entries(project, action="rank_labels")
    assert (entry.subject, entry.details["strategy"]) == (store.uri, "random")
    with pytest.raises(PermissionError, match="may not curate"):
        rank(open_store(project.model_copy(update={"persona": "data_analyst"}), "posts"))
    with pytest.raises(ValueError, match="No strategy 'best'"):
        rank(store, "best")
