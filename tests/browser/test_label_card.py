"""A person labels with the card in a real browser: keys, saving, undoing, going back, searching, reviewing."""

import json
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nbformat
import pytest

from mlops_nb.core.settings import Settings, load_settings
from mlops_nb.inner_loop.answers import Answer, Event, Folded, fold, step
from mlops_nb.inner_loop.store import LabelItem, create, open_store
from mlops_nb.widgets.label import LabelCard
from mlops_nb.widgets.parts import script

pytestmark = pytest.mark.browser

RUN_ALL = "async () => { await window.jupyterapp.commands.execute('notebook:run-all-cells') }"

TEXTS = ({"text": "The room was cold."}, {"text": "We come again."}, {"text": "It is a hotel."}, {"text": "Never again."})
MOODS = [{"name": "good", "key": "g"}, {"name": "bad", "description": "somebody complains"}, "neither"]


@pytest.fixture
def moods(project: Settings, quick_project: Callable[..., str]) -> str:
    """A project of four short texts, each of one class."""
    instructions = "Say how the guest felt.\n\n- **bad** if in doubt"
    return quick_project(project, "text_classification", *TEXTS, classes=MOODS, instructions=instructions)


def shown(page: Any, item: str) -> None:
    """Wait until an item is shown."""
    page.wait_for_function("item => document.querySelector('.mlops-label').dataset.item === item", arg=item)


def saving(page: Any, state: str) -> str:
    """Wait until the card says so of what was done, and return its words."""
    page.wait_for_function("state => document.querySelector('.saving').dataset.state === state", arg=state)
    return page.locator(".saving").inner_text()


def begin(page: Any, item: str = "i1") -> None:
    """Wait for the first item, and put the focus where the keys count."""
    shown(page, item)
    page.locator(".mlops-label").focus()


def test_keys_choose_submit_and_go_back(project: Settings, moods: str, card_page: Any) -> None:
    card = LabelCard(project, moods, annotator="ana")
    page = card_page(card)
    begin(page)
    page.keyboard.press("g")
    page.keyboard.press("Enter")
    shown(page, "i2")
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    shown(page, "i3")
    assert saving(page, "saved") == "Saved"
    assert [card.store.answer(item, "ana").annotations[0]["label"] for item in ("i1", "i2")] == ["good", "bad"]
    assert page.locator("header .place").inner_text() == "2 of 4 answers"
    assert page.get_by_role("button", name="good, key G, 1 so far").count() == 1

    page.keyboard.press("b")
    page.keyboard.press("b")
    shown(page, "i1")
    assert saving(page, "saved") == "Saved · submitted"
    page.keyboard.press("3")  # changing it takes it up again
    page.keyboard.press("Enter")
    shown(page, "i2")
    saving(page, "saved")
    kinds = [event.kind for event in card.store.events(item="i1", whose="ana")]
    assert kinds == ["open", "draw", "submit", "reopen", "delete", "draw", "submit"]
    assert card.store.answer("i1", "ana").annotations[0]["label"] == "neither"
    assert not page.faults


def test_nothing_is_submitted_without_an_answer_and_a_skip_says_why(project: Settings, moods: str, card_page: Any) -> None:
    card = LabelCard(project, moods, annotator="ana")
    page = card_page(card)
    begin(page)
    page.keyboard.press("Enter")
    page.get_by_role("status").get_by_text("Choose a class first.").wait_for()
    page.keyboard.press("s")
    page.keyboard.type("not English")
    page.keyboard.press("Enter")
    shown(page, "i2")
    saving(page, "saved")
    assert (card.store.answer("i1", "ana").state, card.store.answer("i1", "ana").reason) == ("skipped", "not English")
    page.keyboard.press("c")
    page.keyboard.type("what is this? g")  # letters in a field choose nothing
    page.keyboard.press("Enter")
    page.keyboard.press("g")
    page.keyboard.press("Enter")
    shown(page, "i3")
    saving(page, "saved")
    assert card.store.answer("i2", "ana").comments == ("what is this? g",)


def test_undo_takes_back_what_was_one_action_to_the_person(project: Settings, moods: str, card_page: Any) -> None:
    card = LabelCard(project, moods, annotator="ana")
    page = card_page(card)
    begin(page)
    for key in ("g", "2", "3", "Control+z"):  # another class takes the place of the one before: two events
        page.keyboard.press(key)
    saving(page, "saved")
    assert [one["label"] for one in card.store.answer("i1", "ana").annotations] == ["bad"]
    assert page.get_by_role("button", name="bad", pressed=True).count() == 1
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    assert page.get_by_role("button", name="Undo").is_disabled()
    for _ in range(3):
        page.keyboard.press("Control+Shift+z")
    saving(page, "saved")
    assert [one["label"] for one in card.store.answer("i1", "ana").annotations] == ["neither"]
    assert card.store.replay() == []


def test_what_was_not_acknowledged_is_kept_shown_and_sent_by_the_next_page(project: Settings, moods: str, card_page: Any) -> None:
    card = LabelCard(project, moods, annotator="ana")
    page = card_page(card)
    begin(page)
    page.keyboard.press("g")
    saving(page, "saved")
    page.clock.set_fixed_time(now := time.time())  # time stands still where it matters
    page.evaluate("window.offline = true")
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    shown(page, "i2")  # it was here already
    page.keyboard.press("g")
    saving(page, "pending")
    page.clock.set_fixed_time(now + 3)
    assert "Sending again" in saving(page, "resending")
    page.clock.set_fixed_time(now + 9)
    assert "kept in this browser" in saving(page, "offline")
    assert [one["label"] for one in card.store.answer("i1", "ana").annotations] == ["good"]
    page.close(run_before_unload=False)  # the browser is gone; what it kept is not

    after = LabelCard(project, moods, annotator="ana")
    again = card_page(after, beside=page)
    begin(again, "i2")
    saving(again, "saved")
    assert (after.store.answer("i1", "ana").state, after.store.answer("i1", "ana").annotations[0]["label"]) == ("submitted", "bad")
    assert after.store.answer("i2", "ana").annotations[0]["label"] == "good"
    assert again.get_by_role("button", name="good", pressed=True).count() == 1
    assert again.evaluate("Object.keys(localStorage).filter(key => key.startsWith('mlops-label ')).length") == 0


def test_a_line_that_comes_back_delivers_everything_once_and_in_order(project: Settings, moods: str, card_page: Any) -> None:
    card = LabelCard(project, moods, annotator="ana")
    page = card_page(card)
    begin(page)
    page.evaluate("window.offline = true")
    page.keyboard.press("g")  # is lost at once
    page.evaluate("window.offline = false")
    page.keyboard.press("2")  # arrives before what went before it: the card asks for all
    saving(page, "saved")
    kinds = [event.kind for event in card.store.events(item="i1", whose="ana")]
    assert kinds == ["open", "draw", "delete", "draw"]
    assert card.store.replay() == []


def test_a_browser_that_keeps_nothing_says_so(project: Settings, moods: str, card_page: Any) -> None:
    card = LabelCard(project, moods, annotator="ana")
    page = card_page(card)
    page.evaluate("void (Storage.prototype.setItem = () => { throw new Error('quota') })")
    begin(page)
    page.evaluate("window.offline = true")
    page.context.set_offline(True)
    page.keyboard.press("g")
    assert "in this page only: do not close it" in saving(page, "offline")
    page.evaluate("window.offline = false")
    page.context.set_offline(False)  # the browser says so, and all goes out at once
    saving(page, "saved")
    assert card.store.answer("i1", "ana").annotations[0]["label"] == "good"


def test_what_the_store_refuses_is_taken_back_and_said(project: Settings, moods: str, card_page: Any) -> None:
    card = LabelCard(project, moods, annotator="ana")
    page = card_page(card)
    begin(page)
    fewer = card.store.project.model_copy(update={"classes": card.store.project.classes[1:]})
    create(project, fewer).close()  # somebody has taken a class out of the file meanwhile
    page.keyboard.press("g")
    page.get_by_role("alert").get_by_text("Not saved").wait_for()
    assert page.locator(".class[aria-pressed=true]").count() == 0
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    shown(page, "i2")
    saving(page, "saved")
    assert card.store.answer("i1", "ana").annotations[0]["label"] == "bad"


def test_two_annotators_get_the_same_items_and_see_nothing_of_each_other(project: Settings, quick_project: Any, card_page: Any) -> None:
    name = quick_project(project, "text_classification", *TEXTS[:2], classes=MOODS, overlap=2, annotators=["ana", "ben"])
    pages = {who: card_page(LabelCard(project, name, annotator=who)) for who in ("ana", "ben")}
    for who, page in pages.items():
        begin(page)
        for item, key in (("i1", "g"), ("i2", "2")) if who == "ana" else (("i1", "2"), ("i2", "2")):
            shown(page, item)
            page.keyboard.press(key)
            page.keyboard.press("Enter")
    for page in pages.values():
        page.get_by_role("button", name="Look again").wait_for()  # nothing is left, and why stands above
        saving(page, "saved")
    with open_store(project, name) as store:
        said = {(one.item, one.whose): one.annotations[0]["label"] for one in store.answers(state="submitted")}
    assert said == {("i1", "ana"): "good", ("i1", "ben"): "bad", ("i2", "ana"): "bad", ("i2", "ben"): "bad"}


def test_the_keys_go_on_with_an_item_that_comes_late(project: Settings, quick_project: Any, card_page: Any) -> None:
    name = quick_project(project, "text_classification", *TEXTS[:2], classes=MOODS)
    card = LabelCard(project, name, annotator="ana")
    page = card_page(card)
    begin(page)
    page.keyboard.press("g")
    page.keyboard.press("Enter")
    shown(page, "i2")
    assert page.locator(".stage").evaluate("one => one.contains(document.activeElement)")
    page.keyboard.press("2")
    page.keyboard.press("Enter")  # nothing is left, so what had the focus is hidden
    again = page.get_by_role("button", name="Look again")
    again.wait_for()
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.locator(".mlops-label").evaluate("one => one === document.activeElement")
    card.store.add([LabelItem("i3", TEXTS[2], rank=3.0)])
    again.dispatch_event("click")  # as time does, without the mouse
    shown(page, "i3")
    page.keyboard.press("g")
    saving(page, "saved")
    assert [one["label"] for one in card.store.answer("i3", "ana").annotations] == ["good"]


def test_only_who_may_label_gets_a_card(project: Settings, quick_project: Callable[..., str]) -> None:
    name = quick_project(project, "text_classification", *TEXTS, classes=MOODS, annotators=["ana"])
    with pytest.raises(PermissionError, match="ben is none of the annotators"):
        LabelCard(project, name, annotator="ben")
    with pytest.raises(ValueError, match="label or review"):
        LabelCard(project, name, role="boss")


# --- keys ---


def test_all_keys_stand_in_a_sheet_and_can_be_changed(project: Settings, moods: str, card_page: Any) -> None:
    card = LabelCard(project, moods, annotator="ana")
    page = card_page(card)
    begin(page)
    page.keyboard.press("?")
    sheet = page.get_by_role("dialog", name="Keys")
    assert sheet.get_by_role("button", name="Skip: S or Alt S; change").is_visible()
    assert sheet.get_by_role("button", name="bad: 2; change").is_visible()
    sheet.get_by_role("button", name="Submit: Enter or Ctrl Enter; change").click()
    page.keyboard.press("w")
    sheet.get_by_role("button", name="Submit: W; change").wait_for()
    page.keyboard.press("Escape")
    sheet.wait_for(state="hidden")
    page.keyboard.press("g")
    page.keyboard.press("w")
    shown(page, "i2")

    again = card_page(LabelCard(project, moods, annotator="ana"), beside=page)  # this browser remembers it
    begin(again, "i2")
    assert again.get_by_role("button", name="Submit").locator("kbd").inner_text() == "W"
    again.keyboard.press("?")
    again.get_by_role("button", name="Reset").click()
    assert again.get_by_role("button", name="Submit: Enter or Ctrl Enter; change").is_visible()


def test_a_class_among_150_is_found_by_typing(project: Settings, quick_project: Any, card_page: Any) -> None:
    names = [f"class {n}" for n in range(150)]
    card = LabelCard(project, quick_project(project, "text_classification", *TEXTS, classes=names), annotator="ana")
    page = card_page(card)
    begin(page)
    page.keyboard.press("/")
    page.keyboard.type("137")
    assert page.locator(".class").count() == 1
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    shown(page, "i2")
    saving(page, "saved")
    assert card.store.answer("i1", "ana").annotations[0]["label"] == "class 137"


# --- the same answer on both sides ---


def story(seed: int) -> list[Event]:
    """Tell a random story that can be: every kind of event, on annotations that are there."""
    chance, events, now = random.Random(seed), [], Folded(Answer("i1", "ana"))
    boxes = ({"kind": "box", "x": 1.5, "y": 2, "width": 3, "height": 4, "crowd": False}, {"kind": "span", "start": 1, "end": 5},
             {"kind": "class", "label": "good"}, {"kind": "score", "value": 3, "candidate": "", "label": "helpful"},
             {"kind": "points", "points": [[1, 2, 2]]}, {"kind": "polygon", "rings": [[[0, 0], [4, 0], [4, 4]]]})  # fmt: skip

    def add(kind: str, **data: Any) -> None:
        nonlocal now
        at = f"2026-01-01T00:00:{len(events):02}+00:00"
        events.append(Event(f"e{len(events)}", "i1", kind, "ana", "ana", data, at, seconds=float(chance.randint(0, 5))))
        now = step(now, events[-1])

    def new(n: int) -> dict[str, Any]:
        said = chance.choice([{"source": "model:m/1", "score": 0.5}, {"attributes": {}}, {"attributes": {"a": 1}}, {"score": None}])
        return {"label": "hand", **chance.choice(boxes), "id": f"a{n}", **said}

    add("open", **({"annotations": [new(n) for n in range(2)]} if chance.random() < 0.5 else {}))
    for n in range(2, 30):
        there = [one["id"] for one in now.answer.annotations]
        kind = chance.choice(["draw", "draw", "relation", "move", "label", "delete", "adopt", "undo", "undo", "redo", "comment",
                              "submit", "skip", "reopen", "open", "dispute"])  # fmt: skip
        if kind == "draw":
            add("draw", annotation=new(chance.choice([n, n - 1])))
        elif kind == "relation" and len(there) > 1:
            add("draw", annotation={"id": f"a{n}", "kind": "relation", "label": "in", "head": there[0], "tail": there[-1]})
        elif kind == "adopt":
            add("adopt", annotations=[new(n)], **{"from": "ben"})
        elif kind == "delete" and there:
            add("delete", id=chance.choice(there))
        elif kind == "label" and there:
            add("label", id=chance.choice(there), label="face")
        elif kind == "move" and (boxed := [one["id"] for one in now.answer.annotations if one["kind"] == "box"]):
            add("move", id=chance.choice(boxed), x=chance.random())
        elif kind in ("comment", "skip"):
            add(kind, **{"text" if kind == "comment" else "reason": f"because {n}"})
        elif kind not in ("relation", "delete", "label", "move"):
            add(kind)
    return events


def test_the_page_computes_the_answer_that_the_store_computes(page: Any) -> None:
    stories = [story(seed) for seed in range(60)]
    page.goto("about:blank")
    told = [script("frame/fold.js"), [[asdict(event) for event in one] for one in stories]]
    found = page.evaluate("([source, all]) => all.map(new Function(source + '; return one => foldEvents(one)')())", told)
    for events, answer in zip(stories, found, strict=True):
        expected = json.loads(json.dumps(asdict(fold("i1", "ana", events))))
        assert answer == {key: value for key, value in expected.items() if key not in ("item", "whose")}
    assert sum(len(one["annotations"]) for one in found) > 60  # they say something


# --- review ---


def disagree(settings: Settings, name: str, items: tuple[str, ...], people: dict[str, str]) -> None:
    """Let people say different classes of the same items."""
    with open_store(settings, name) as store:
        for item in items:
            for who, label in people.items():
                made = {"id": f"class:{label}", "kind": "class", "label": label}
                events = [Event(f"{item} {who} 1", item, "draw", who, who, {"annotation": made}),
                          Event(f"{item} {who} 2", item, "submit", who, who)]  # fmt: skip
                assert set(store.record(events).values()) == {""}


def test_a_reviewer_adopts_and_mends_one_answer_and_sends_another_back(project: Settings, quick_project: Any, card_page: Any) -> None:
    name = quick_project(project, "text_classification_multilabel", *TEXTS[:2], classes=MOODS, overlap=2, reviewers=["eva"])
    disagree(project, name, ("i1", "i2"), {"ana": "good", "ben": "bad"})
    card = LabelCard(project, name, role="review", annotator="eva")
    page = card_page(card)
    begin(page)
    assert page.locator(".person b").all_inner_texts() == ["ana", "ben"]
    page.keyboard.press("Alt+2")
    page.keyboard.press("3")
    page.get_by_role("button", name="Accept").click()
    shown(page, "i2")
    saving(page, "saved")
    final = card.store.answer("i1", "")
    assert (sorted(one["label"] for one in final.annotations), final.state, final.by) == (["bad", "neither"], "submitted", "eva")
    assert card.store.item("i1").state == "final"

    page.locator(".person", has_text="ana").get_by_role("button", name="Reject").click()
    page.keyboard.type("look again")
    page.keyboard.press("Enter")
    page.get_by_text("Nothing is left for eva to review").wait_for()
    saving(page, "saved")
    assert (card.store.answer("i2", "ana").state, card.store.answer("i2", "ana").reason) == ("rejected", "look again")
    assert card.store.item("i2").state == "open"
    assert not page.faults


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_keeps_anybody_out(project: Settings, quick_project: Any, card_page: Any, tmp_path: Path, dark: bool) -> None:
    from axe_playwright_python.sync_playwright import Axe

    def faults(page: Any) -> list[str]:
        found = Axe().run(page).response["violations"]
        return [f"{one['id']}: {node['html']}" for one in found if one["impact"] in ("serious", "critical") for node in one["nodes"]]

    fields = {"classes": MOODS, "overlap": 2, "reviewers": ["eva"], "instructions": "Say `how`.\n\n- **bad** if in doubt"}
    name = quick_project(project, "text_classification", *TEXTS, **fields)
    page = card_page(LabelCard(project, name, annotator="ana"), dark=dark)
    begin(page)
    page.keyboard.press("g")
    assert faults(page) == []
    page.keyboard.press("s")
    assert faults(page) == []
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    assert faults(page) == []
    page.screenshot(path=tmp_path / "keys.png")
    disagree(project, name, ("i2",), {"ben": "good", "ana": "bad"})
    page = card_page(LabelCard(project, name, role="review", annotator="eva"), dark=dark)
    begin(page, "i2")
    assert faults(page) == []
    page.screenshot(path=tmp_path / "review.png")


# --- in JupyterLab ---

CARD = """
import os
from pathlib import Path
from mlops_nb.core.settings import load_settings
from mlops_nb.widgets.label import LabelCard
Path("kernel.pid").write_text(str(os.getpid()))
LabelCard(load_settings(), "moods", annotator="ana")
"""


def write_notebook(folder: Path, name: str, source: str) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "python3", "language": "python"}
    nbformat.write(notebook, folder / name)


@pytest.mark.slow
def test_a_killed_kernel_loses_nothing_that_was_shown_as_saved(page: Any, lab: Any, quick_project: Any, tmp_path: Path) -> None:
    settings = load_settings("dev", lab.project)
    quick_project(settings, "text_classification", *TEXTS, classes=MOODS, name="moods")
    write_notebook(lab.project, "moods.ipynb", CARD)
    lab.run_all(page, "moods.ipynb", tmp_path / "start.png")
    begin(page)
    page.keyboard.press("g")  # a key that JupyterLab knows, too
    page.keyboard.press("Enter")
    shown(page, "i2")
    page.keyboard.press("2")
    page.locator(".class[aria-pressed=true]").wait_for()
    saving(page, "saved")
    os.kill(int((lab.project / "kernel.pid").read_text()), signal.SIGKILL)

    with open_store(settings, "moods") as store:
        assert (store.answer("i1", "ana").state, store.answer("i1", "ana").annotations[0]["label"]) == ("submitted", "good")
        assert store.answer("i2", "ana").annotations[0]["label"] == "bad"
        assert store.replay() == []
    page.locator(".jp-Dialog button").last.click()  # JupyterLab says that the kernel was started anew, once it knows
    page.locator(".jp-Dialog").wait_for(state="detached")
    page.locator(".mlops-label").focus()
    page.keyboard.press("Enter")  # submitted while nobody listens
    page.locator(".saving[data-state=resending], .saving[data-state=offline]").wait_for()
    page.screenshot(path=tmp_path / "offline.png")
    lab.connect(page)
    page.evaluate(RUN_ALL)
    shown(page, "i3")
    saving(page, "saved")
    with open_store(settings, "moods") as store:
        assert (store.answer("i2", "ana").state, store.answer("i2", "ana").annotations[0]["label"]) == ("submitted", "bad")
    page.screenshot(path=tmp_path / "again.png")
    lab.assert_stayed_here(page)
