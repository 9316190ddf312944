"""Answers compared and scored, rows classified, by the real mouse and keyboard; and every surface looked at in both themes."""

from pathlib import Path
from typing import Any

import pytest

from mlops_nb.core.settings import Settings
from mlops_nb.inner_loop.store import LabelItem, open_store
from mlops_nb.widgets.label import LabelCard

pytestmark = pytest.mark.browser

PARIS = {"id": "a", "name": "model-one", "text": "Paris is the capital of France. It lies on the Seine."}
SEINE = {"id": "b", "name": "model-two", "text": "The capital of France is Paris. It lies on the river Seine."}
LONG = {"id": "c", "name": "grey", "text": "I do not know."}
QUESTION = {"prompt": "What is the capital of France?", "candidates": [PARIS, SEINE]}


@pytest.fixture
def label(project: Settings, card_page: Any, quick_project: Any) -> Any:
    """Open a card: `page, said = label("text_ranking", item, ...)`; `said()` is what the store holds."""
    cards = []

    def open_card(task: str, *items: Any, who: str = "ada", role: str = "label", dark: bool = False, **fields: Any) -> Any:
        name = fields.get("name", "quick")
        if items:
            quick_project(project, task, *items, **fields)
        card = LabelCard(project, name, role, annotator=who)
        cards.append(card)
        page = card_page(card, dark=dark)
        page.locator(".stage > *").wait_for()
        page.locator(".stage :is([data-focus], .label-compare)").first.focus()

        def said(item: str = "i1", state: bool = False) -> Any:
            page.locator(".saving[data-state=saved]").wait_for()
            with open_store(project, name) as store:
                answer = store.answer(item, who)
                return (answer.state, list(answer.annotations)) if state else list(answer.annotations)

        return page, said

    yield open_card
    for card in cards:
        card.close()


def texts(page: Any) -> list[str]:
    return [one.inner_text() for one in page.locator(".candidate .text").all()]


def test_the_better_one_is_chosen_and_its_author_stays_hidden(label: Any) -> None:
    page, said = label("text_ranking", QUESTION, QUESTION | {"prompt": "Again?"}, classes=())
    assert page.locator(".prompt").inner_text() == "What is the capital of France?"
    assert "model-" not in page.content()
    ids = {PARIS["text"]: "a", SEINE["text"]: "b"}
    order = [ids[text] for text in texts(page)]
    page.keyboard.press("Enter")
    assert page.locator(".spoken.loud").inner_text() == "Choose the better one, or tie."
    for key, chosen in (("ArrowRight", order[1]), ("=", "tie"), ("1", order[0])):
        page.keyboard.press(key)
        assert [(one["kind"], one["label"]) for one in said()] == [("choice", chosen)]
    page.get_by_role("button", name="A is better").click()  # again: taken back
    assert said() == []
    page.get_by_role("button", name="B is better").click()
    page.keyboard.press("Enter")
    page.get_by_text("Again?").wait_for()
    page.keyboard.press("b")
    page.get_by_text("What is the capital of France?").wait_for()
    assert [ids[text] for text in texts(page)] == order  # the same for the same person
    assert page.get_by_role("button", name="B is better").get_attribute("aria-pressed") == "true"


def test_sides_are_drawn_by_lot(label: Any) -> None:
    page, _ = label("text_ranking", *[QUESTION | {"prompt": f"Question {n}"} for n in range(8)], classes=())
    left = []
    for n in range(8):
        page.get_by_text(f"Question {n}", exact=True).wait_for()
        left.append(texts(page)[0] == PARIS["text"])
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("Enter")
    assert 1 <= sum(left) <= 7


def test_differences_are_marked_where_they_are(label: Any) -> None:
    page, _ = label("text_ranking", QUESTION, classes=())
    page.keyboard.press("d")
    marks = {one.inner_text() for one in page.locator(".candidate mark").all()}
    assert "river" in marks
    assert all(words not in " ".join(marks) for words in ("capital", "France", "lies"))
    assert texts(page)[0] in (PARIS["text"], SEINE["text"])  # nothing is lost
    page.keyboard.press("d")
    assert page.locator("mark").count() == 0


def test_two_long_answers_are_compared_at_once(label: Any) -> None:
    words = [f"word{n}" for n in range(8_000)]
    other = [word if n % 40 else f"other{n}" for n, word in enumerate(words)]
    candidates = [{"id": "a", "text": " ".join(words)}, {"id": "b", "text": " ".join(other)}]
    page, _ = label("text_ranking", {"prompt": "", "candidates": candidates}, classes=())
    assert page.locator(".asked").is_hidden()
    page.keyboard.press("d")
    assert page.locator(".candidate mark").count() == 400


def test_more_than_two_candidates(label: Any) -> None:
    page, said = label("text_ranking", QUESTION | {"candidates": [PARIS, SEINE, LONG]}, classes=())
    place = texts(page).index(LONG["text"])
    page.keyboard.press("ArrowLeft")  # there is no left one of three
    assert said() == []
    page.keyboard.press(str(place + 1))
    assert said()[0]["label"] == "c"


def test_a_rubric_is_filled_by_digits(label: Any) -> None:
    page, said = label("text_rubric", QUESTION, classes=())
    order = ["a" if text == PARIS["text"] else "b" for text in texts(page)]
    for key in "42":
        page.keyboard.press(key)
    page.keyboard.press("9")  # out of the scale: nothing
    page.keyboard.press("Enter")
    assert page.locator(".spoken.loud").inner_text() == "Score helpful of B first."
    for key in ("5", "3", "ArrowLeft"):
        page.keyboard.press(key)
    assert {(one["candidate"], one["label"]): one["value"] for one in said()} == {
        (order[0], "helpful"): 4, (order[0], "correct"): 2, (order[1], "helpful"): 5, (order[1], "correct"): 2}  # fmt: skip
    for key in ("ArrowUp", "ArrowUp", "0", "Control+z"):
        page.keyboard.press(key)
    group = page.get_by_role("radiogroup", name="A correct")
    assert group.get_by_role("radio", checked=True).inner_text() == "2"
    group.get_by_role("radio", name="1").click()
    assert next(one["value"] for one in said() if (one["candidate"], one["label"]) == (order[0], "correct")) == 1
    page.keyboard.press("Control+Enter")
    page.locator(".rest").wait_for()
    assert said(state=True)[0] == "submitted"


def test_a_single_text_is_scored(label: Any) -> None:
    page, said = label("text_rubric", {"prompt": "Why?", "candidates": [{"id": "only", "text": "Because."}]}, classes=())
    assert texts(page) == ["Because."]
    page.keyboard.press("4")
    page.keyboard.press("1")
    assert [(one["label"], one["value"], one["candidate"]) for one in said()] == [("helpful", 4, "only"), ("correct", 1, "only")]
    page.keyboard.press("Delete")  # it is the last line that keys go to
    assert [one["label"] for one in said()] == ["helpful"]


def test_a_reviewer_sees_who_chose_what(label: Any, project: Settings) -> None:
    page, _ = label("text_ranking", QUESTION, classes=(), annotators=["ada"], reviewers=["rex"])
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    page.locator(".saving[data-state=saved]").wait_for()
    with open_store(project, "quick") as store:
        chosen = store.answer("i1", "ada").annotations[0]["label"]
        store.set_state("i1", "review")
    page, _ = label("text_ranking", who="rex", role="review")
    place = texts(page).index({"a": PARIS, "b": SEINE}[chosen]["text"])
    votes = page.locator(".candidate .votes")
    assert [votes.nth(n).inner_text() for n in range(2)] == ["ad" if n == place else "" for n in range(2)]
    page.keyboard.press("Alt+1")
    assert page.locator(".candidate").nth(place).get_by_role("button").get_attribute("aria-pressed") == "true"


def test_a_row_shows_its_values_and_folds_long_ones(label: Any) -> None:
    row = {"amount": 129.5, "note": None, "empty": "", "<b>evil</b>": "<img src=x onerror='window.caught = 1'>", "tags": ["night", 1],
           "story": "so " * 400, "city": "תל אביב"}  # fmt: skip
    page, said = label("tabular_classification", {"row": row}, {"row": {"story": "x" * 1000}})
    shown = dict(line.inner_text().split("\t", 1) for line in page.locator("tbody tr").all())
    assert shown["amount"] == "129.5"
    assert shown["note"] == "no value"
    assert shown["empty"] == "empty text"
    assert shown["tags"] == '["night",1]'
    assert shown["<b>evil</b>"].startswith("<img")
    assert page.evaluate("window.caught") is None
    assert len(shown["story"]) < 400
    page.get_by_role("button", name="Show all 1,200 characters of story").click()
    assert "so " * 399 in page.locator("tbody").inner_text()
    page.keyboard.press("1")
    assert [one["label"] for one in said()] == ["yes"]
    page.keyboard.press("Enter")
    page.get_by_text("xxxx").wait_for()
    assert page.locator(".fold").get_attribute("aria-expanded") == "true"  # whoever opened a column wants it open


SPANS = (
    {"id": "s1", "kind": "span", "label": "person", "start": 0, "end": 4},
    {"id": "s2", "kind": "span", "label": "place", "start": 14, "end": 20, "source": "models:/ner/1", "score": 0.6},
    {"id": "r1", "kind": "relation", "label": "works in", "head": "s1", "tail": "s2"},
)
TEXT = {"text": "Anna works in Zürich\nwith others from everywhere"}
SURFACES: dict[str, Any] = {
    "text_ner": LabelItem("i1", TEXT, prediction=SPANS[:2]), "text_relations": LabelItem("i1", TEXT, prediction=SPANS),
    "text_tagging": TEXT, "text_generation": TEXT, "text_classification": TEXT, "text_ranking": QUESTION, "text_rubric": QUESTION,
    "tabular_classification": {"row": {"amount": 129.5, "note": None, "story": "so " * 400}},
}  # fmt: skip
KEYS = {"text_ranking": "d=", "text_rubric": "43", "text_tagging": "12", "text_ner": "]"}


@pytest.mark.slow
@pytest.mark.parametrize("task", SURFACES)
def test_no_surface_has_a_serious_fault_of_accessibility(label: Any, tmp_path: Path, task: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page, _ = label(task, SURFACES[task])
    for key in KEYS.get(task, ""):
        page.keyboard.press(key)
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        page.screenshot(path=tmp_path / f"{theme}.png")
        found = [one for one in Axe().run(page).response["violations"] if one["impact"] in ("serious", "critical")]
        assert not [(one["id"], [node["html"] for node in one["nodes"]][:3]) for one in found], theme
    assert not page.faults
