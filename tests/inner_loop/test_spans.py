"""Spans of text: their borders, how they agree, and the units in which others count them."""

import unicodedata
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlops_nb.inner_loop.spans import (
    crossing,
    fault,
    from_bio,
    from_utf16,
    iou,
    sentences,
    snap,
    split_tokens,
    to_bio,
    to_utf16,
    tokens,
    trim,
)

TEXTS = st.lists(
    st.one_of(st.text(max_size=8), st.sampled_from(
        ["👩‍👩‍👧", "🇫🇷🇩🇪", "é̂", "שלום", "مرحبا ", "\r\n", "\t", "हिन्दी", "don't", "1,250.5", "東京", "ไทย"])),
    max_size=8,
).map("".join)  # fmt: skip


def span(start: int, end: int, label: str = "place", id: str = "s1") -> dict[str, Any]:
    """Make a span."""
    return {"id": id, "kind": "span", "label": label, "start": start, "end": end}


@pytest.mark.parametrize(("start", "end", "says"), [
    (0, 4, ""), (0, 8, ""), (3, 3, "not after its start"), (5, 2, "not after its start"), (4, 9, "outside of the text, which has 8"),
    (-1, 3, "outside"), (4, 6, "nothing but spaces"),
])  # fmt: skip
def test_a_span_lies_inside_of_its_text_and_holds_something(start: int, end: int, says: str) -> None:
    """The fault names the span and says what to look at; none is an empty text."""
    found = fault(span(start, end), "Rome \tis")
    assert says in found
    assert bool(found) == bool(says)


def test_only_spans_have_faults_of_spans() -> None:
    """A relation or a class of the same answer is none of this."""
    assert fault({"id": "r1", "kind": "relation", "label": "in", "head": "a", "tail": "b"}, "") == ""


@given(st.tuples(*[st.integers(0, 30)] * 4))
def test_overlap_is_what_counting_characters_gives(edges: tuple[int, int, int, int]) -> None:
    """Intersection over union, checked against sets of positions."""
    a, b = span(edges[0], edges[0] + edges[1] + 1), span(edges[2], edges[2] + edges[3] + 1)
    one, other = set(range(a["start"], a["end"])), set(range(b["start"], b["end"]))
    assert iou(a, b) == iou(b, a) == pytest.approx(len(one & other) / len(one | other))


@pytest.mark.parametrize(("text", "words"), [
    ("Don't pay 1,250.5 €, o.k.?", ["Don't", "pay", "1,250.5", "€", ",", "o", ".", "k", ".", "?"]),
    ("@ana #1 a_b l’été", ["@", "ana", "#", "1", "a_b", "l’été"]),
    ("👩‍👩‍👧👍🏽 🇫🇷🇩🇪", ["👩‍👩‍👧", "👍🏽", "🇫🇷", "🇩🇪"]),
    ("हिन्दी, שָׁלוֹם", ["हिन्दी", ",", "שָׁלוֹם"]),
    ("東京へ。", ["東", "京", "へ", "。"]),
    ("' 1. .5 ", ["'", "1", ".", ".", "5"]),
    ("\r\n\t \u2028", []),
])  # fmt: skip
def test_tokens_are_words_and_signs(text: str, words: list[str]) -> None:
    """Letters with their accents, numbers with their points, and every other character as people see it."""
    assert [text[start:end] for start, end in tokens(text)] == words


@given(TEXTS)
@example("e\u0301'e\u0301\r\n\u200d")
def test_tokens_hold_all_but_spaces_in_order(text: str) -> None:
    """Nothing is lost, nothing twice; no border cuts an accent off its letter."""
    found = tokens(text)
    assert all(a < b <= c < d for (a, b), (c, d) in pairwise(found))
    assert all(text[a:b].strip() for a, b in found)
    assert all(
        character.isspace() or unicodedata.combining(character) or character == "\u200d"
        for n, character in enumerate(text)
        if not any(a <= n < b for a, b in found)
    )
    assert not any(unicodedata.combining(text[start]) for start, _ in found if start and not text[start - 1].isspace())


def test_a_selection_is_widened_to_what_people_see() -> None:
    """Half an emoji, half a line end, half a flag: the whole one."""
    text = "né👩‍🚀\r\n🇫🇷 New York"
    assert [text[slice(*snap(text, n, n + 1))] for n in (2, 4, 6, 8)] == ["👩‍🚀", "👩‍🚀", "\r\n", "🇫🇷"]
    assert text[slice(*snap(text, text.index("w Y"), text.index("or"), words=True))] == "New York"
    assert snap("a  b", 1, 3, words=True) == (1, 3)  # no word is touched
    with pytest.raises(ValueError, match="no span of a text of 3 code points"):
        snap("abc", 2, 4)


@given(TEXTS, st.data())
def test_snapping_holds_the_selection_and_stays(text: str, data: st.DataObject) -> None:
    """The widened span holds the given one, and widening it again changes nothing."""
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    wide = snap(text, start, end)
    assert wide[0] <= start <= end <= wide[1]
    assert snap(text, *wide) == wide


@given(TEXTS, st.data())
def test_browsers_count_utf_16(text: str, data: st.DataObject) -> None:
    """There and back, each offset is the same; the units are those of the text's UTF-16 form."""
    offset = data.draw(st.integers(0, len(text)))
    [units] = to_utf16(text, offset)
    assert from_utf16(text, units) == (offset,)
    assert units == sum(2 if ord(character) > 0xFFFF else 1 for character in text[:offset])


def test_half_of_a_character_lies_before_it() -> None:
    """An offset between the two units of one emoji can come from a browser."""
    assert from_utf16("a🚀b", 0, 1, 2, 3, 4) == (0, 1, 1, 2, 3)


@pytest.mark.parametrize(("text", "parts"), [
    ("Dr. Woo met J. Doe. He left!  Why? ", ["Dr. Woo met J. Doe.", "He left!", "Why?"]),
    ("It cost 3.5 million. (Really.) See e.g. this? he asked.", ["It cost 3.5 million.", "(Really.)", "See e.g. this? he asked."]),
    ("Title\n\nText goes on", ["Title", "Text goes on"]),
    ("東京へ行く。明日！", ["東京へ行く。", "明日！"]),
    ("متى؟ غدا.", ["متى؟", "غدا."]),
    ("   ", []),
])  # fmt: skip
def test_sentences(text: str, parts: list[str]) -> None:
    """Stops of any script end one; an abbreviation, a number or a small letter after it do not."""
    assert [text[start:end] for start, end in sentences(text)] == parts


@given(TEXTS)
def test_sentences_hold_all_but_spaces(text: str) -> None:
    """No character is lost, and none stands in two."""
    assert all(a < b <= c for (a, b), (c, _) in pairwise(sentences(text)))
    covered = {n for a, b in sentences(text) for n in range(a, b)}
    assert all(character.isspace() for n, character in enumerate(text) if n not in covered)


@st.composite
def tagged(draw: st.DrawFn) -> tuple[str, list[tuple[int, int]], list[dict[str, Any]]]:
    """Draw a text, its tokens, and spans beside each other that hold whole tokens."""
    text = draw(TEXTS)
    pieces = tokens(text)
    edges = sorted(draw(st.sets(st.integers(0, len(pieces)), max_size=6)))
    labels = st.sampled_from(["place", "B-odd", "a-b", "人"])
    pairs = zip(edges[::2], edges[1::2], strict=False)
    return (
        text,
        pieces,
        [span(pieces[a][0], pieces[b - 1][1], draw(labels), f"s{n}") for n, (a, b) in enumerate(pairs, 1)],
    )


@given(tagged(), st.sampled_from(["BIO", "BIOES"]))
def test_tags_hold_spans(case: tuple[str, list[tuple[int, int]], list[dict[str, Any]]], scheme: str) -> None:
    """Spans, tags, spans: the same, also of neighbours of one class and of classes with dashes."""
    _, pieces, spans = case
    assert from_bio(pieces, to_bio(pieces, spans, scheme)) == spans


def test_tags_as_others_write_them() -> None:
    """IOB as of 2002 begins with I; BILOU says L and U; a class that changes begins a new span."""
    pieces = [(n, n + 1) for n in range(5)]
    read = {
        " ".join(tags): [(one["label"], one["start"], one["end"]) for one in from_bio(pieces, tags)]
        for tags in (
            ["I-a", "I-a", "B-a", "O", "I-b"],
            ["B-a", "L-a", "U-a", "O", "S-b"],
            ["B-a", "I-b", "I-b", "E-b", "I-b"],
        )
    }
    assert list(read.values()) == [
        [("a", 0, 2), ("a", 2, 3), ("b", 4, 5)],
        [("a", 0, 2), ("a", 2, 3), ("b", 4, 5)],
        [("a", 0, 1), ("b", 1, 4), ("b", 4, 5)],
    ]


@pytest.mark.parametrize(
    ("tags", "says"),
    [
        (["O"], "1 tags for 2 tokens"),
        (["O", "place"], "tag 'place'"),
        (["B-", "O"], "tag 'B-'"),
        (["X-a", "O"], "tag 'X-a'"),
        (["", "O"], "tag ''"),
        (["BI-a", "O"], "tag 'BI-a'"),
    ],
)
def test_what_is_no_tag_is_told(tags: list[str], says: str) -> None:
    """With the value."""
    with pytest.raises(ValueError, match=says):
        from_bio([(0, 1), (2, 3)], tags)


def test_what_tags_cannot_hold_is_told() -> None:
    """Spans that overlap, spans that cut a token, a scheme that is none."""
    pieces = [(0, 3), (4, 8)]
    with pytest.raises(ValueError, match="spans s1 and s2 overlap"):
        to_bio(pieces, [span(0, 8), span(4, 8, id="s2")])
    with pytest.raises(ValueError, match="does not hold whole tokens"):
        to_bio(pieces, [span(0, 6)])
    with pytest.raises(ValueError, match="scheme 'IO'"):
        to_bio(pieces, [], "IO")
    assert split_tokens(pieces, [span(0, 6)]) == [(0, 3), (4, 6), (6, 8)]
    assert to_bio(split_tokens(pieces, [span(0, 6)]), [span(0, 6)]) == ["B-place", "I-place", "O"]


def test_crossing_pairs_name_both() -> None:
    """Nested, crossing and equal spans; not those that touch."""
    spans = [
        span(0, 9, id="all"),
        span(2, 4, id="in"),
        span(9, 12, id="next"),
        span(11, 14, id="over"),
        span(11, 14, id="same"),
    ]
    assert [(a["id"], b["id"]) for a, b in crossing(spans)] == [("all", "in"), ("next", "over"), ("over", "same")]


def test_spaces_at_the_ends_are_taken_off() -> None:
    """Of nothing but spaces an empty span is left."""
    assert trim(" a b\t", 0, 5) == (1, 4)
    assert len(set(trim(" \r\n ", 1, 4))) == 1


def test_a_book_chapter_of_100_000_characters_is_cut() -> None:
    text = "She said: Don't 🚀 pay é1,250.5. " * 3_200
    assert len(tokens(text)) > 20_000
    assert len(sentences(text)) > 3_000
    assert snap(text, 50_000, 50_010)[0] <= 50_000
