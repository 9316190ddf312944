"""Texts labeled with the real mouse and the real keyboard; what the store holds is checked against Python's own slicing."""

from pathlib import Path
from typing import Any

import pytest

from mlops_nb.core.settings import Settings
from mlops_nb.inner_loop.store import open_store
from mlops_nb.widgets.label import LabelCard

pytestmark = pytest.mark.browser

WNUT = Path(__file__).resolve().parents[3] / "shared/data/nlp/wnut17/emerging.dev.conll"
FAMILY = "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466"  # seven code points, one character to people
FLAG, THUMB, CAFE = "\U0001f1e8\U0001f1ed", "\U0001f44d\U0001f3fd", "cafe\u0301"
# where words stand on the screen: from the text nodes, since nothing else of the page holds the text
PLACES = """words => {
  const lines = document.querySelector('.lines'), whole = [], nodes = [];
  for (const line of lines.children)
    for (const node of line.childNodes) { nodes.push([whole.join('').length, node]); whole.push(node.data); }
  const at = whole.join('').indexOf(words);
  if (at < 0) throw new Error('not on the page: ' + words);
  const spot = unit => {
    const [start, node] = nodes.findLast(([start, node]) => start <= unit && unit <= start + node.length);
    return [node, unit - start];
  };
  const range = document.createRange();
  range.setStart(...spot(at)); range.setEnd(...spot(at + words.length));
  range.startContainer.parentElement.scrollIntoView({block: 'nearest'});
  const boxes = [...range.getClientRects()];
  return [boxes[0], boxes.at(-1)].map(box => [box.left, box.right, box.top + box.height / 2]);
}"""


@pytest.fixture
def label(project: Settings, card_page: Any, quick_project: Any) -> Any:
    """Open a card on texts: `page, spans = label("text_ner", "a text", nested=True)`; `spans()` is what the store holds."""
    cards = []

    def open_card(task: str, *texts: Any, dark: bool = False, has_touch: bool = False, **fields: Any) -> Any:
        items = [{"text": one} if isinstance(one, str) else one for one in texts]
        name = quick_project(project, task, *items, annotators=["ada"], **fields)
        card = LabelCard(project, name, annotator="ada")
        cards.append(card)
        page = card_page(card, dark=dark, has_touch=has_touch)
        page.locator(".stage .paper").wait_for()

        def said(item: str = "i1") -> list[dict[str, Any]]:
            page.locator(".saving[data-state=saved]").wait_for()
            with open_store(project, name) as store:
                return list(store.answer(item, "ada").annotations)

        return page, said

    yield open_card
    for card in cards:
        card.close()


def drag(page: Any, words: str, backwards: bool = False) -> None:
    """Draw the mouse over these words, from their first to their last character."""
    (left, _, top), (_, right, bottom) = page.evaluate(PLACES, words)
    ends = [(left + 1, top), (right - 1, bottom)]
    for place, (x, y) in enumerate(ends[::-1] if backwards else ends):
        page.mouse.move(x, y, steps=3)
        page.mouse.up() if place else page.mouse.down()


def drag_rtl(page: Any, words: str) -> None:
    """Draw the mouse over words that are written from right to left."""
    (_, right, top), (left, _, bottom) = page.evaluate(PLACES, words)
    page.mouse.move(right - 1, top)
    page.mouse.down()
    page.mouse.move(left + 1, bottom, steps=3)
    page.mouse.up()


def box_of(page: Any, selector: str, words: str = "") -> dict[str, float]:
    """Wait for an element, and say where it is, in one look: what is drawn anew is another element a moment later."""
    look = """([selector, words]) => {
      const one = [...document.querySelectorAll(selector)].find(one => one.textContent.includes(words));
      return one && one.getBoundingClientRect().toJSON();
    }"""
    found: dict[str, float] = page.wait_for_function(look, arg=[selector, words]).json_value()
    return found


def drawn(page: Any) -> None:
    """Wait for the next picture: what changed is drawn once a frame."""
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def cut(text: str, spans: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Read spans as Python cuts them."""
    return [(one["label"], text[one["start"] : one["end"]]) for one in spans]



CRLF = "First line\r\n\r\n\tSecond\tline by Anna\r\nLast without an end Bob"
MARKUP = "<img src=x onerror='window.caught = 1'> & Bob </textarea><script>window.caught = 2</script> Anna"
HEBREW = "שלח את זה לדוד בן גוריון בתל אביב מחר"
ARABIC = "وُلِدَ أحمد زويل في مدينة دمنهور"


LEFT_TO_RIGHT = {
    f"{FAMILY} Anna Müller {FLAG}{FLAG} and {THUMB}Bob{THUMB} in the {CAFE} at Rom": ["Anna Müller", "Bob", CAFE, "Rom", FAMILY],
    CRLF: ["Second\tline", "Bob", "line by Anna"],
    MARKUP: ["<img", "Bob", "</textarea><script>", "Anna"],
    "\U0001d49c\U0001d4b7 math, 東京 and 𠮷野家 by Bob\n": ["\U0001d49c\U0001d4b7", "東京", "𠮷野家", "Bob"],
}
RIGHT_TO_LEFT = {HEBREW: (["דוד", "תל אביב"], 1), ARABIC: (["أحمد زويل", "دمنهور"], 3)}


def test_the_mouse_marks_what_python_cuts(label: Any) -> None:
    page, said = label("text_ner", *LEFT_TO_RIGHT, nested=True)
    page.get_by_role("button", name="Whole words").click()  # off: what is chosen is taken as it is
    for number, (text, words) in enumerate(LEFT_TO_RIGHT.items(), 1):
        page.locator(f".mlops-label[data-item=i{number}]").wait_for()
        for one in words:
            drag(page, one)
        assert cut(text, said(f"i{number}")) == [("person", one) for one in words]
        page.keyboard.press("Enter")
    assert page.evaluate("window.caught") is None
    assert page.locator(".lines img, .lines script").count() == 0


def test_what_is_written_from_right_to_left(label: Any) -> None:
    page, said = label("text_ner", *RIGHT_TO_LEFT)
    page.get_by_role("button", name="Whole words").click()
    for number, (text, (words, steps)) in enumerate(RIGHT_TO_LEFT.items(), 1):
        page.locator(f".mlops-label[data-item=i{number}]").wait_for()
        for one in words:
            drag_rtl(page, one)
        assert cut(text, said(f"i{number}")) == [("person", one) for one in words]
        drawn(page)
        drawn(page)
        tag, (_, right, _) = box_of(page, ".tag:not(:has(~ .tag))"), page.evaluate(PLACES, words[0])[0]
        assert tag["x"] + tag["width"] == pytest.approx(right, abs=4)  # its name stands where it begins: at the right
        page.keyboard.press("Home")
        for _ in range(steps):
            page.keyboard.press("ArrowLeft")  # onwards
        page.keyboard.press("2")
        assert cut(text, said(f"i{number}"))[2] == ("place", text.split()[steps])
        page.keyboard.press("1")
        page.keyboard.press("Escape")
        page.keyboard.press("Enter")


def test_a_sloppy_hand_marks_whole_words_and_no_half_character(label: Any) -> None:
    text = f"born in Empire State, {FLAG}{FAMILY} and so on"
    page, said = label("text_ner", text)
    drag(page, "pire Sta")
    drag(page, "tate, ".strip(), backwards=True)  # the same again: nothing new
    assert cut(text, said()) == [("person", "Empire State")]
    page.get_by_role("button", name="Whole words").click()
    drawn(page)
    page.evaluate("""text => {  // as a screen reader may: a selection that begins inside of a flag and ends inside of a family
      const node = document.querySelector('.line').firstChild, at = node.data.indexOf(text);
      getSelection().setBaseAndExtent(node, at + 2, node, at + 10);
    }""", FLAG)  # fmt: skip
    page.locator(".pick").first.wait_for(state="attached")  # a browser tells of a selection when it has time
    page.keyboard.press("3")
    assert cut(text, said())[1:] == [("group", FLAG + FAMILY)]


def test_the_keyboard_is_enough(label: Any) -> None:
    text = "From Green Newsfeed: AHFA extends deadline\nfor Sage Award to Nov. 5"
    page, said = label("text_ner", text, nested=True)
    page.locator(".paper").focus()
    press = page.keyboard.press
    for key in ("ArrowRight", "ArrowRight", "Shift+ArrowRight", "3"):  # Green Newsfeed
        press(key)
    for key in ("ArrowDown", "Home", "ArrowRight", "Shift+ArrowRight", "2"):  # Sage Award
        press(key)
    assert cut(text, said()) == [("group", "Green Newsfeed"), ("place", "Sage Award")]
    for key in ("1", "Alt+ArrowRight", "Alt+Shift+ArrowLeft"):  # another class; its end and its start a word further
        press(key)
    assert cut(text, said())[1] == ("person", "for Sage Award to")
    for key in ("[", "Delete", "Control+z", "Escape"):
        press(key)
    assert len(said()) == 2
    for key in ("w", "Control+Home", "ArrowRight", *["Control+Shift+ArrowLeft"] * 2, "Enter"):  # two characters less
        press(key)
    assert cut(text, said())[2][1] == "Gre"
    drawn(page)
    names = [row.get_attribute("aria-label") for row in page.get_by_role("option").all()]
    assert names == ["group: Green Newsfeed, 5 to 19", "person: Gre, 5 to 8", "person: for Sage Award to, 43 to 60"]
    page.get_by_role("listbox").focus()
    press("ArrowDown")
    press("ArrowDown")
    drawn(page)
    active = page.get_by_role("listbox").get_attribute("aria-activedescendant")
    assert page.locator(f"#{active}").get_attribute("aria-selected") == "true"
    press("Control+Enter")
    page.locator(".rest").wait_for()  # that was all


def test_spans_overlap_only_where_the_project_says_so(label: Any) -> None:
    text = "at the University of Zürich in Zürich"
    page, said = label("text_ner", text)
    drag(page, "University of Zürich")
    drag(page, "of Zürich in")
    assert "do not overlap" in page.locator(".spoken.loud").inner_text()
    drawn(page)
    assert page.locator(".row[aria-selected=true] bdi").inner_text() == "University of Zürich"  # what is in the way is one key away
    assert len(said()) == 1


def test_nested_spans_lie_under_each_other_and_a_click_finds_each(label: Any) -> None:
    text = "at the University of Zürich yesterday"
    page, said = label("text_ner", text, nested=True)
    drag(page, "University of Zürich")
    page.keyboard.press("3")
    drag(page, "Zürich")
    page.keyboard.press("2")
    assert cut(text, said()) == [("group", "University of Zürich"), ("place", "Zürich")]
    low, high = box_of(page, ".tag", "group"), box_of(page, ".tag", "place")
    assert low["y"] >= high["y"] + high["height"]
    (left, right, middle), _ = page.evaluate(PLACES, "Zürich")
    selected = page.locator(".row[aria-selected=true] .what")
    page.keyboard.press("Escape")
    found = []
    for _ in range(3):
        page.mouse.click((left + right) / 2, middle)
        drawn(page)
        found.append(selected.inner_text())
    assert found == ["place", "group", "place"]
    page.locator(".tag", has_text="group").click()
    drawn(page)
    box, (start, _, _) = box_of(page, ".handle[data-end=start]"), page.evaluate(PLACES, "the")[0]
    page.mouse.move(box["x"] + 6, box["y"] + 6)
    page.mouse.down()
    page.mouse.move(start + 2, box["y"] + 6, steps=4)
    page.mouse.up()
    assert cut(text, said())[0] == ("group", "the University of Zürich")


def test_what_is_not_drawn_yet_is_gone_through_as_well(label: Any) -> None:
    page, said = label("text_ner", "Anna Bob Carl")
    for word in ("Anna", "Bob"):
        drag(page, word)
    drawn(page)
    page.locator(".paper").focus()
    page.keyboard.press("Control+End")
    page.evaluate("""() => {  // two keys within one frame
      for (const key of ['1', 'Delete'])
        document.querySelector('.paper').dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true, cancelable: true}));
    }""")
    drawn(page)
    assert len(said()) == 2
    assert page.locator(".row[aria-selected=true] bdi").inner_text() == "Bob"  # the one beside it


def test_a_proposal_is_told_apart_until_somebody_takes_it(label: Any) -> None:
    from mlops_nb.inner_loop.store import LabelItem

    text = "Anna went to Paris"
    guess = {"id": "p1", "kind": "span", "label": "place", "start": 13, "end": 18, "source": "models:/dev.ner@champion", "score": 0.87}
    page, said = label("text_ner", LabelItem("i1", {"text": text}, prediction=(guess,)))
    tag = page.locator(".tag.guess")
    assert tag.inner_text() == "place 87 %"
    assert "proposed by models:/dev.ner@champion" in tag.get_attribute("title")
    assert page.locator(".bar.guess").count() == 1  # its line is dashed
    drag(page, "Paris")
    page.keyboard.press("2")
    tag.wait_for(state="detached")
    assert page.locator(".bar.guess").count() == 0
    assert [(one["label"], one.get("source", "")) for one in said()] == [("place", "")]


def test_a_finger_taps_a_word_and_then_a_class(label: Any) -> None:
    text = "Anna went to Paris"
    page, said = label("text_ner", text, has_touch=True)
    (left, right, middle), _ = page.evaluate(PLACES, "Paris")
    page.touchscreen.tap((left + right) / 2, middle)
    page.locator(".pick").first.wait_for(state="attached")
    assert said() == []
    page.get_by_role("button", name="place").tap()
    assert cut(text, said()) == [("place", "Paris")]


def test_a_pen_marks_what_it_is_drawn_over(label: Any) -> None:
    text = "Anna went to New York"
    page, said = label("text_ner", text)
    (left, _, middle), (_, right, _) = page.evaluate(PLACES, "New York")
    session = page.context.new_cdp_session(page)
    pen = {"y": middle, "button": "left", "buttons": 1, "clickCount": 1, "pointerType": "pen"}
    way = ("Moved", left + 1), ("Pressed", left + 1), ("Moved", (left + right) / 2), ("Moved", right - 2), ("Released", right - 2)
    for kind, x in way:
        session.send("Input.dispatchMouseEvent", {"type": f"mouse{kind}", "x": x, **pen})
    assert cut(text, said()) == [("person", "New York")]


def test_what_a_search_finds_can_be_marked(label: Any) -> None:
    text = "İstanbul, paris, Paris (PARIS?) a+b-c/d"
    page, said = label("text_ner", text)
    page.locator(".paper").focus()
    page.keyboard.press("f")
    page.keyboard.type("paris")
    assert page.locator(".finder .quiet").inner_text() == "3 found"
    page.locator(".hit").nth(2).wait_for(state="attached")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    page.keyboard.press("2")
    assert cut(text, said()) == [("place", "Paris")]
    page.keyboard.press("f")
    page.keyboard.type("a+b-c/")  # as it is written, no pattern
    assert page.locator(".finder .quiet").inner_text() == "1 found"


def test_relations_go_from_span_to_span(label: Any) -> None:
    text = "Anna works in Zürich with Bob"
    page, said = label("text_relations", text)
    drag(page, "Anna")
    drag(page, "Zürich")
    page.keyboard.press("2")
    drag(page, "Bob")
    page.keyboard.press("1")
    drawn(page)
    page.locator(".tag", has_text="place").click()
    page.keyboard.press("r")
    assert "goes out from person, not from place" in page.locator(".spoken.loud").inner_text()
    page.locator(".tag", has_text="person").first.click()
    page.keyboard.press("r")
    page.locator(".tag", has_text="place").click()
    page.locator(".arc", has_text="works in").wait_for(state="attached")
    *spans, relation = said()
    words = {one["id"]: text[one["start"] : one["end"]] for one in spans}
    assert (words[relation["head"]], relation["label"], words[relation["tail"]]) == ("Anna", "works in", "Zürich")
    assert page.get_by_role("option", name="Anna works in Zürich").get_attribute("aria-selected") == "true"
    page.get_by_role("option", name="person: Anna").click()  # and by the keyboard: from the span, along the list, to the other
    page.locator(".paper").focus()
    page.get_by_role("button", name="knows").click()
    page.keyboard.press("]")
    page.keyboard.press("]")
    page.keyboard.press("Enter")
    assert [one["label"] for one in said() if one["kind"] == "relation"] == ["works in", "knows"]
    page.get_by_role("option", name="person: Anna").click()
    page.locator(".paper").focus()
    page.keyboard.press("Delete")
    page.locator(".arc").first.wait_for(state="detached")
    assert [one["kind"] for one in said()] == ["span", "span"]  # no relation without its ends


def test_tokens_are_tagged_one_by_one(label: Any) -> None:
    text = "Don't stop, 東京! Really?"
    page, said = label("text_tagging", text, classes=["WORD", "SIGN"])
    page.locator(".paper").focus()
    for key in "1121":
        page.keyboard.press(key)
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("1")  # another tag in its place
    assert cut(text, said()) == [("WORD", "Don't"), ("WORD", "stop"), ("WORD", ","), ("WORD", "東")]
    assert page.locator(".foot").inner_text().startswith("4 of 8 words tagged")
    page.get_by_role("button", name="Sentences").click()
    page.keyboard.press("Control+End")
    page.keyboard.press("1")
    assert ("WORD", "Really?") in cut(text, said())


def test_tokens_and_sentences_are_those_of_the_library(label: Any) -> None:
    import random

    from mlops_nb.inner_loop import spans

    page, _ = label("text_tagging", "a")
    chance = random.Random(7)
    words = ["Don't", "1,250.5", "a.b", "x_1", "’tis", "l’été", "東京", "かな", "हिन्दी", "กขค", "٣,٤", "𝒜𝒷", "½"]
    ends = ["#ok", "@bob", "small", "Big", "Dr.", "J.", "U.K.", "e.g.", "。", "«no»", "…", "?!", ".", ",", "'", '"', ")", "-"]
    parts = [*words, *ends, FAMILY, FLAG, THUMB, CAFE, "\ufeff", "\n", "\r\n", "\n\n", "\t", " ", "  ", "\u00a0"]
    texts = ["".join(chance.choice(parts) + chance.choice(["", " "]) for _ in range(chance.randint(1, 30))) for _ in range(200)]
    if WNUT.exists():
        texts += [" ".join(line.split("\t")[0] for line in piece.split("\n")) for piece in WNUT.read_text().split("\n\n")[:100]]
    found = page.evaluate("""async texts => {
      const source = await (await fetch('/card.js')).text();
      const open = source + '\\nexport {cutTokens, cutSentences, counted};';
      const made = await import(URL.createObjectURL(new Blob([open], {type: 'text/javascript'})));
      return texts.map(text => {
        const {toPoint, toUnit, points} = made.counted(text);
        const pairs = all => all.map(([start, end]) => [toPoint(start), toPoint(end)]);
        const same = [...Array(points + 1).keys()].every(n => toPoint(toUnit(n)) === n);
        return [pairs(made.cutTokens(text)), pairs(made.cutSentences(text)), points, same];
      });
    }""", texts)  # fmt: skip
    for text, (tokens, sentences, points, there_and_back) in zip(texts, found, strict=True):
        assert [tuple(one) for one in tokens] == spans.tokens(text), text
        assert [tuple(one) for one in sentences] == spans.sentences(text), text
        assert points == len(text)
        assert there_and_back


def test_a_summary_is_kept_as_it_is_written(label: Any) -> None:
    text = "Anna works at Acme. " * 30
    fields = [{"name": "summary", "max_length": 20}, {"name": "title", "required": False, "column": "headline"}]
    page, said = label("text_generation", {"text": text, "headline": "Acme"}, {"text": "another"}, fields=fields)
    summary, title = page.get_by_label("summary"), page.get_by_label("title")
    assert title.input_value() == "Acme"  # the source's text to begin with
    summary.click()
    page.keyboard.press("Control+Enter")
    assert page.locator(".spoken.loud").inner_text() == "Write summary first."
    page.keyboard.type(f"Acme {FAMILY}{THUMB}1")  # a family is seven code points
    assert page.locator(".count").first.inner_text() == "15 of 20"
    page.keyboard.type("2 and much more")
    assert "too long, not stored" in page.locator(".count").first.inner_text()
    page.keyboard.press("Control+Enter")
    assert "too long" in page.locator(".spoken.loud").inner_text()
    for _ in "2 and much more":
        page.keyboard.press("Backspace")
    page.keyboard.press("Control+Enter")  # at once: what was typed is stored before it is submitted
    page.get_by_text("another").wait_for()
    assert {one["label"]: one["text"] for one in said()} == {"summary": f"Acme {FAMILY}{THUMB}1", "title": "Acme"}
    page.get_by_role("button", name="Back").click()
    assert summary.input_value() == f"Acme {FAMILY}{THUMB}1"
    summary.fill("שלום")
    page.locator(".paper").click()
    assert said()[1]["text"] == "שלום" or said()[0]["text"] == "שלום"
    page.get_by_role("button", name="Undo").click()
    drawn(page)
    assert summary.input_value() == f"Acme {FAMILY}{THUMB}1"


def test_a_text_gets_its_class(label: Any) -> None:
    page, said = label("text_classification", "good\r\n\r\nreally", classes=["good", "bad"])
    page.locator(".paper").focus()
    page.keyboard.press("2")
    page.keyboard.press("1")
    assert [one["label"] for one in said()] == ["good"]
    assert page.locator(".line").all_inner_texts() == ["good", "", "really"]
    assert page.locator(".side").is_hidden()


def test_a_hundred_thousand_characters_with_two_thousand_spans(label: Any) -> None:
    from mlops_nb.inner_loop import spans
    from mlops_nb.inner_loop.store import LabelItem

    line = f"Anna {FLAG} works in Zürich with many others. " * 3 + "\n"
    text = (line * (100_000 // len(line) + 1))[:100_000]
    tokens = spans.tokens(text)
    places = [start for start, end in tokens if text[start:end] in ("Anna", "Zürich", "works")][:2000]
    assert len(places) == 2000
    guess = [{"id": f"s{n}", "kind": "span", "label": "place", "start": start, "end": start + 4} for n, start in enumerate(places)]
    page, said = label("text_ner", LabelItem("i1", {"text": text}, prediction=tuple(guess)))
    assert page.locator(".rows .row").count() < 60  # as many as are seen; who listens is told of all of them
    assert page.locator(".rows .row").first.get_attribute("aria-setsize") == "2000"
    assert page.evaluate("document.querySelectorAll('.tints > *, .tags > *').length") < 1500
    page.locator(".paper").focus()
    page.keyboard.press("Control+End")
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("3")
    assert [(one["start"], one["end"]) for one in said() if one["label"] == "group"] == [(tokens[-6][0], tokens[-5][1])]
    drawn(page)
    tag, paper = box_of(page, ".tag", "group"), box_of(page, ".paper")
    assert paper["y"] < tag["y"] < paper["y"] + paper["height"]  # what was marked is seen
    page.mouse.move(paper["x"] + 100, paper["y"] + 100)
    page.mouse.wheel(0, -3_000_000)
    page.wait_for_function("document.querySelector('.paper').scrollTop === 0")
    page.wait_for_function("document.querySelector('.tag').dataset.id === 's0'")


@pytest.mark.skipif(not WNUT.exists(), reason="needs WNUT-17")
def test_tweets_get_their_entities_back(label: Any) -> None:
    """Label real tweets by mouse and key as their annotators did, and read the same spans from the store."""
    tweets: list[list[list[str]]] = []
    for piece in WNUT.read_text().split("\n\n")[:120]:
        rows = [line.split("\t") for line in piece.split("\n") if "\t" in line]
        if rows and any(tag != "O" for _, tag in rows):
            tweets.append(rows)
    texts: list[str] = []
    gold: list[list[tuple[str, int, int]]] = []
    for rows in tweets[:5]:
        text = ""
        spans: list[tuple[str, int, int]] = []
        for word, tag in rows:
            start = len(text) + bool(text)
            text += f"{' ' if text else ''}{word}"
            if tag[0] == "B":
                spans.append((tag[2:], start, len(text)))
            elif tag[0] == "I":
                spans[-1] = (*spans[-1][:2], len(text))
        texts.append(text)
        gold.append(spans)
    names = sorted({name for spans in gold for name, _, _ in spans})
    page, said = label("text_ner", *texts, classes=names)
    page.locator(".paper").click()
    for number, (text, spans) in enumerate(zip(texts, gold, strict=True), 1):
        page.locator(f".mlops-label[data-item=i{number}]").wait_for()
        for name, start, end in spans:
            drag(page, text[start:end]) if text.count(text[start:end]) == 1 else choose_by_keys(page, text, start, end)
            page.keyboard.press(str(names.index(name) + 1))
        assert [(one["label"], one["start"], one["end"]) for one in said(f"i{number}")] == spans
        page.keyboard.press("Escape")
        page.keyboard.press("Enter")


def choose_by_keys(page: Any, text: str, start: int, end: int) -> None:
    """Choose a stretch by the arrows alone."""
    from mlops_nb.inner_loop import spans

    tokens = spans.tokens(text)
    inside = [place for place, (begin, _) in enumerate(tokens) if start <= begin < end]
    page.keyboard.press("Control+Home")
    for _ in range(inside[0]):
        page.keyboard.press("ArrowRight")
    for _ in range(len(inside) - 1):
        page.keyboard.press("Shift+ArrowRight")


def test_a_reviewer_sees_everybody_and_adopts_one(label: Any, project: Settings, card_page: Any) -> None:
    text = "Anna went to New York"
    page, _ = label("text_ner", text, reviewers=["rex"])
    drag(page, "New York")
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    page.locator(".saving[data-state=saved]").wait_for()
    with open_store(project, "quick") as store:
        store.set_state("i1", "review")
    card = LabelCard(project, "quick", "review", annotator="rex")
    page = card_page(card)
    page.locator(".tag", has_text="ada: place").wait_for()
    assert page.locator(".marked .row").count() == 0  # theirs, not yet the final answer
    page.get_by_role("button", name="Adopt").click()
    page.locator(".marked .row").wait_for()
    drag(page, "Anna")
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    page.locator(".saving[data-state=saved]").wait_for()
    with open_store(project, "quick") as store:
        assert cut(text, list(store.answer("i1", "").annotations)) == [("place", "New York"), ("person", "Anna")]
    card.close()
