"""The labeling card without a browser: what it tells the page, what it takes from it, and how it stands where nobody can click."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

from mlops_nb.core.ledger import entries
from mlops_nb.core.settings import Settings
from mlops_nb.inner_loop.answers import Event
from mlops_nb.inner_loop.labeling import LabelProject
from mlops_nb.inner_loop.store import LabelItem, create
from mlops_nb.widgets.label import LabelCard, classes

TEXT = {"text": "Ana <b>works</b> in Bonn."}
SPAN = {"id": "s1", "kind": "span", "label": "person", "start": 0, "end": 3}
BOX = {"id": "b1", "kind": "box", "label": "hand", "x": 4, "y": 6, "width": 20, "height": 10}


class Page:
    """What a page would hear from a card; `ask` is what it would say."""

    def __init__(self, card: LabelCard):
        self.card, self.heard = card, []
        card.comm.publish_msg = self._hear  # type: ignore[union-attr]

    def _hear(self, kind: str, data: Any = None, metadata: Any = None, buffers: Any = None, **_: Any) -> None:
        if data and data["method"] == "custom":
            self.heard.append((data["content"], [bytes(one) for one in buffers or ()]))

    def ask(self, **content: Any) -> list[Any]:
        """Say something, and return what the card answers."""
        self.heard = []
        self.card._handle_msg({"content": {"data": {"method": "custom", "content": content}}, "buffers": []})
        return [said for said, _ in self.heard if "agreement" not in said]  # which comes when it comes

    def event(self, number: int, kind: str, item: str = "i1", **data: Any) -> dict[str, Any]:
        """Make an event as a page does."""
        at = "2026-01-01T00:00:00Z"
        return {"id": f"e{number}", "item": item, "kind": kind, "whose": self.card.whose, "data": data, "at": at, "seconds": 1}


@pytest.fixture
def lay(project: Settings) -> Callable[..., Settings]:
    """Lay a labeling project: `lay(task, *items, **fields)`."""

    def write(task: str, *items: LabelItem, **fields: Any) -> Settings:
        with create(project, LabelProject(name="small", task=task, sampling={"strategy": "order"}, **fields)) as store:
            store.add(items)
        return project

    return write


def test_an_item_comes_with_its_picture_and_only_what_the_person_may_know(lay: Callable[..., Settings], tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), "navy").save(tmp_path / "a.png")
    data = {"image": str(tmp_path / "a.png"), "width": 40, "height": 30}
    sure, unsure = BOX | {"source": "model:m/1", "score": 0.9}, BOX | {"id": "b2", "source": "model:m/1", "score": 0.1}
    item = LabelItem("i1", data, prediction=(sure, unsure), gold=(BOX,), why="an alert")
    fields = {"classes": ["hand"], "model": {"min_score": 0.5}, "gold": {"every": 1}}
    settings = lay("image_object_detection", item, LabelItem("i2", data | {"image": "gone.png"}), **fields)
    page = Page(LabelCard(settings, "small", annotator="ana"))
    told = page.ask(ask="next", hold=[])[0]["item"]
    assert page.heard[0][1] == [(tmp_path / "a.png").read_bytes()]
    assert [one["id"] for one in told["start"]] == ["b1"]  # the other one is not sure enough
    assert "gold" not in told
    assert told["why"] == ""  # known answers look like any other item
    assert page.ask(ask="next", hold=["i1"])[0]["item"]["problem"].startswith("This picture cannot be shown")


def test_which_model_gave_which_candidate_is_told_after_the_answer(lay: Callable[..., Settings]) -> None:
    candidates = [{"id": "a", "text": "Yes.", "name": "blue"}, {"id": "b", "text": "No.", "name": "green"}]
    settings = lay("text_ranking", LabelItem("i1", {"prompt": "Is it?", "candidates": candidates}))
    page = Page(LabelCard(settings, "small", annotator="ana"))
    assert [sorted(one) for one in page.ask(ask="next", hold=[])[0]["item"]["data"]["candidates"]] == [["id", "text"], ["id", "text"]]
    choice = {"id": "c", "kind": "choice", "label": "a"}
    assert page.ask(events=[page.event(1, "draw", annotation=choice), page.event(2, "submit")])[0]["saved"] == {"e1": "", "e2": ""}
    assert [one["name"] for one in page.ask(ask="item", item="i1")[0]["item"]["data"]["candidates"]] == ["blue", "green"]


def test_the_page_does_not_say_who_somebody_is(lay: Callable[..., Settings]) -> None:
    page = Page(LabelCard(lay("text_ner", LabelItem("i1", TEXT), classes=["person"]), "small", annotator="ana"))
    page.ask(events=[page.event(1, "draw", annotation=SPAN) | {"by": "ben", "whose": "ben"}])
    assert [(one.by, one.whose) for one in page.card.store.events()] == [("ana", "ana")]


def test_events_are_stored_once_in_order_and_the_bad_ones_named(lay: Callable[..., Settings]) -> None:
    page = Page(LabelCard(lay("text_ner", LabelItem("i1", TEXT), classes=["person"]), "small", annotator="ana"))
    assert page.ask(events=[page.event(2, "move", id="s1", end=2)], after="e1") == [{"again": True}]  # what it stands on is not here
    sent = [page.event(1, "draw", annotation=SPAN), page.event(2, "move", id="s1", end=2), page.event(3, "dance"),
            page.event(4, "draw", annotation=SPAN | {"end": 400}), {"id": "e5"}]
    saved = page.ask(events=sent)[0]["saved"]
    assert sorted(key for key, problem in saved.items() if not problem) == ["e1", "e2"]
    assert sorted(key for key, problem in saved.items() if problem) == ["e3", "e4", "e5"]
    page.ask(events=sent[:2])
    assert [one.id for one in page.card.store.events()] == ["e1", "e2"]
    assert page.card.store.answer("i1", "ana").annotations[0]["end"] == 2
    page.ask(events=[page.event(6, "undo")], after="e2")
    assert page.card.store.answer("i1", "ana").annotations[0]["end"] == 3


def test_every_class_has_a_colour_and_the_first_a_key() -> None:
    given = [{"name": "cat", "key": "2"}, "dog", {"name": "x", "colour": "#123456"}, *(f"class {n}" for n in range(60))]
    found = classes(LabelProject(name="a", task="image_object_detection", classes=given))
    assert [one["key"] for one in found[:6]] == ["2", "", "x", "4", "5", "6"]  # a key of one's own, the name, the place
    assert found[2]["colour"] == "#123456"
    assert len({one["colour"] for one in found}) == len(found)


def test_a_reviewer_decides_once_and_it_stands_in_the_ledger(lay: Callable[..., Settings]) -> None:
    items = [LabelItem(f"i{n}", TEXT) for n in (1, 2, 3)]
    settings = lay("text_classification", *items, classes=["good", "bad"], overlap=2)
    mine = LabelCard(settings, "small", role="review", annotator="eva")
    for item in ("i1", "i2", "i3"):
        for who, label in (("ana", "good"), ("ben", "bad")):
            made = {"id": "c", "kind": "class", "label": label}
            events = [Event(f"{item}{who}", item, "draw", who, who, {"annotation": made}),
                      Event(f"{item}{who}!", item, "submit", who, who)]  # fmt: skip
            assert set(mine.store.record(events).values()) == {""}
    page = Page(mine)
    told = next(said["item"] for said in page.ask(ask="next", hold=[]) if "item" in said)
    assert [(one["by"], one["annotations"][0]["label"]) for one in told["others"]] == [("ana", "good"), ("ben", "bad")]
    adopt = page.event(1, "adopt", annotations=told["others"][1]["annotations"])
    for _ in range(2):  # the second time because no answer came to the first
        saved = page.ask(events=[adopt, page.event(2, "submit"), page.event(3, "skip", "i2", reason="no text"),
                                 page.event(4, "reject", "i3", reason="look again") | {"whose": "ana"}])[0]["saved"]  # fmt: skip
        assert saved == {"e1": "", "e2": "", "e3": "", "e4": ""}
    assert [mine.store.item(item).state for item in ("i1", "i2", "i3")] == ["final", "dropped", "open"]
    assert mine.store.answer("i1", "").annotations[0]["label"] == "bad"
    done = [(one.action, one.user) for one in entries(settings) if one.user == "eva" and one.action != "judge_labels"]
    assert done == [("settle_label", "eva"), ("drop_label", "eva"), ("reject_label", "eva")]
    assert "reject" in page.ask(events=[page.event(5, "reject", "i1", reason="") | {"whose": "ana"}])[0]["saved"]["e5"]


# --- where nobody can click ---


@pytest.fixture
def headless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_NB_HEADLESS", "1")


def still(settings: Settings) -> Any:
    """Return what a notebook keeps of the card: its page, parsed."""
    bundle = LabelCard(settings, "small", annotator="ana")._repr_mimebundle_()
    assert set(bundle) == {"text/html", "text/plain"}  # no widget: there is no kernel
    assert "<script" not in bundle["text/html"]
    return ElementTree.fromstring(f"<div>{bundle['text/html'].replace('dir=auto', '')}</div>"), bundle["text/plain"]  # noqa: S314 our own


@pytest.mark.usefixtures("headless")
def test_a_still_draws_the_shapes_on_the_picture(lay: Callable[..., Settings], tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), "navy").save(tmp_path / "a.png")
    data = {"image": str(tmp_path / "a.png"), "width": 40, "height": 30}
    mask = {"id": "m", "kind": "mask", "label": "face", "rle": {"size": [30, 40], "counts": [0, 60, 1140]}}
    ring = {"id": "p", "kind": "polygon", "label": "face", "rings": [[[1, 1], [9, 1], [9, 9]]]}
    settings = lay("image_instance_segmentation", LabelItem("i1", data, prediction=(mask, ring)), classes=["hand", "face"])
    page, text = still(settings)
    paths = [path.get("d") for path in page.iter("path")]
    assert paths[1] == "M1 1L9 1L9 9Z"
    assert all(path.startswith("M") for path in paths)
    assert next(page.iter("image")).get("href").startswith("data:image/jpeg;base64,")
    assert next(page.iter("svg")).get("aria-label") == "picture i1: face, face"
    assert text.splitlines()[0] == "small (image_instance_segmentation): 0 of 1 answers to 1 items"


@pytest.mark.usefixtures("headless")
def test_a_still_marks_the_text_and_counts(lay: Callable[..., Settings]) -> None:
    settings = lay("text_ner", LabelItem("i1", TEXT), LabelItem("i2", TEXT), classes=["person", "place"], nested=True)
    card = LabelCard(settings, "small", annotator="ana")
    inner = SPAN | {"id": "s2", "label": "place", "start": 1, "end": 6}
    draws = [Event(one["id"], "i2", "draw", "ana", "ana", {"annotation": one}) for one in (SPAN, inner)]
    events = [*draws, Event("3", "i2", "submit", "ana", "ana")]
    assert set(card.store.record(events).values()) == {""}
    page, text = still(settings)
    first = next(page.iter("figure"))  # the one with an answer
    assert ["".join(mark.itertext()) for mark in first.iter("mark")] == ["A", "na", " <b"]
    assert [mark.get("title") for mark in first.iter("mark")] == ["person", "person, place", "place"]
    assert "".join(first.find("p").itertext()) == TEXT["text"]
    assert "by ana" in "".join(first.itertext())
    assert "  person 1, place 1" in text.splitlines()


@pytest.mark.usefixtures("headless")
def test_a_still_is_for_everybody(lay: Callable[..., Settings]) -> None:
    settings = lay("tabular_classification", LabelItem("i1", {"row": {"<a>": "& 1"}}), classes=["yes", "no"], annotators=["ana"])
    bundle = LabelCard(settings, "small", annotator="somebody")._repr_mimebundle_()  # only looks
    assert "&lt;a&gt;" in bundle["text/html"]
    assert "& 1" not in bundle["text/html"]
