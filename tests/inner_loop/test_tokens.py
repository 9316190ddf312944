"""Labeled texts as files of tokens: CoNLL, spaCy's documents, and JSON lines of spaCy's tools."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_nb.core.records import SpecificationError
from mlops_nb.inner_loop.labeling import LabelProject
from mlops_nb.inner_loop.store import Labeled, LabelItem
from mlops_nb.inner_loop.tokens import (
    pieces_of,
    read_conll,
    read_spacy,
    read_spacy_lines,
    write_conll,
    write_spacy,
    write_spacy_lines,
)

WNUT = Path(__file__).resolve().parents[3] / "shared/data/nlp/wnut17"
PEOPLE = LabelProject(name="people", task="text_ner", classes=["person", "place"])
NESTED = LabelProject(name="people", task="text_ner", classes=["person", "place", "B-odd"], nested=True)
RELATED = LabelProject(
    name="people", task="text_relations", classes=["person", "place"], relations=[{"name": "in"}], nested=True
)
TAGGED = LabelProject(name="tags", task="text_tagging", classes=["NOUN", "VERB"])
TOPICS = LabelProject(name="topics", task="text_classification_multilabel", classes=["sport", "art", "politics"])
MANY = settings(max_examples=30)


def answer(text: str, *spans: tuple[int, int, str], **data: Any) -> Labeled:
    """Make a labeled text."""
    found = [
        {"id": f"s{n}", "kind": "span", "label": label, "start": start, "end": end}
        for n, (start, end, label) in enumerate(spans, 1)
    ]
    return Labeled(LabelItem(f"t{abs(hash(text)) % 10_000}", {"text": text, **data}), tuple(found))


def marked(one: Labeled) -> list[tuple[int, int, str]]:
    """List the spans of an answer, in the order of the text."""
    return sorted((a["start"], a["end"], a["label"]) for a in one.annotations if a["kind"] == "span")


# CoNLL


def sentences_of(path: Path) -> list[list[tuple[str, str]]]:
    """Read a file of two columns in the plainest way: (token, tag) by sentence."""
    found: list[list[tuple[str, str]]] = [[]]
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line.strip("\t"):
            token, tag = line.split("\t")
            found[-1].append((token, tag))
        elif found[-1]:
            found.append([])
    return found[:-1]


@pytest.mark.parametrize("name", ["wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated"])
def test_wnut_passes_through_unchanged(tmp_path: Path, name: str) -> None:
    """Every token and every tag of every sentence, with the lines that are only a tab, and the token with a space of no width."""
    if not (WNUT / name).is_file():
        pytest.skip(f"no {WNUT / name}")
    read = read_conll(WNUT / name)
    assert not read.problems
    assert len({one.item.id for one in read.labeled}) == len(read.labeled)
    assert set(read.classes) == {"person", "location", "corporation", "product", "creative-work", "group"}
    [written] = write_conll(
        LabelProject(name="wnut", task="text_ner", classes=list(read.classes)), read.labeled, tmp_path
    )
    assert sentences_of(written) == sentences_of(WNUT / name)
    again = read_conll(written)
    assert [(one.item.id, one.item.data, one.annotations) for one in again.labeled] == [
        (one.item.id, one.item.data, one.annotations) for one in read.labeled]  # fmt: skip


def test_four_columns_and_documents_come_back_as_they_were(tmp_path: Path) -> None:
    """As in the shared task of 2003: parts of speech and chunks, lines that begin a document, comments, tags that begin with I."""
    text = (
        "-DOCSTART- -X- -X- O\n\nU.N. NNP I-NP I-ORG\nofficial NN I-NP O\n\n"
        "# sent_id = 2\nEkeus NNP I-NP I-PER\nRolf NNP I-NP B-PER\n\n"
        "-DOCSTART- -X- -X- O\n\n# # I-NP O\n\n"
    )
    (tmp_path / "eng.conll").write_text(text)
    read = read_conll(tmp_path / "eng.conll")
    assert [marked(one) for one in read.labeled] == [[(0, 4, "ORG")], [(0, 5, "PER"), (6, 10, "PER")], []]
    assert read.labeled[0].item.data["columns"] == [["NNP", "I-NP"], ["NN", "I-NP"]]
    assert [len(one.item.data.get("before", [])) for one in read.labeled] == [1, 1, 1]
    [written] = write_conll(PEOPLE, read.labeled, tmp_path / "out", separator=" ")
    assert written.read_text() == text.replace("I-ORG", "B-ORG").replace("I-PER", "B-PER")


def test_windows_files_are_read(tmp_path: Path) -> None:
    """A mark of the byte order, line ends of two characters, no empty line at the end."""
    (tmp_path / "win.conll").write_bytes(b"\xef\xbb\xbfAna\tB-person\r\nsang\tO\r\n\r\nBo\tB-person")
    read = read_conll(tmp_path / "win.conll")
    assert not read.problems
    assert [one.item.data["text"] for one in read.labeled] == ["Ana sang", "Bo"]


def test_every_fault_of_a_file_is_told_by_its_line(tmp_path: Path) -> None:
    """And the sound sentences are read; whoever imports decides."""
    (tmp_path / "bad.conll").write_bytes(b"a\tO\nb\n\n\tO\n\nc\tX\tO\nd\tO\n\ne\tB-\n\n\xff\tO\n\nok\tS-person\n")
    read = read_conll(tmp_path / "bad.conll")
    assert [problem.split("bad.conll, ")[1].split(":")[0] for problem in read.problems] == [
        f"line {n}" for n in (2, 4, 7, 9, 11)
    ]
    assert [one.item.data["text"] for one in read.labeled] == ["ok"]
    assert read.kept["scheme"] == "BIOES"
    with pytest.raises(FileNotFoundError):
        read_conll(tmp_path / "none.conll")


def test_equal_sentences_are_two_items_with_stable_ids(tmp_path: Path) -> None:
    """The same file gives the same ids; the second of two equal sentences has one of its own."""
    (tmp_path / "a.conll").write_text("ok\tO\n\nok\tO\n\nno\tO\n")
    ids = [one.item.id for one in read_conll(tmp_path / "a.conll").labeled]
    assert ids == [one.item.id for one in read_conll(tmp_path / "a.conll").labeled]
    assert ids[1] == f"{ids[0]}-2"
    assert len(set(ids)) == 3


def test_sentences_of_different_width_make_an_even_table(tmp_path: Path) -> None:
    """One brought parts of speech, the other did not: those are `_`."""
    wide = answer("Ana sang", (0, 3, "person"), tokens=[[0, 3], [4, 8]], columns=[["NNP"], ["VBD"]])
    [written] = write_conll(PEOPLE, [answer("Bo left", (0, 2, "person")), wide], tmp_path)
    assert written.read_text() == "Bo\t_\tB-person\nleft\t_\tO\n\nAna\tNNP\tB-person\nsang\tVBD\tO\n\n"


TOKEN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=" \t\r\n"), min_size=1, max_size=6).filter(
    str.strip
)
TAG = st.sampled_from(["O", "O", "B-person", "I-person", "B-B-odd", "B-place"])


@MANY
@given(st.lists(st.lists(st.tuples(TOKEN, TAG), min_size=1, max_size=6)))
def test_any_tokens_come_back(tmp_path: Path, drawn: list[list[tuple[str, str]]]) -> None:
    """Emoji, accents by themselves, right-to-left, any line end of Unicode but those of files: all in tokens."""
    lines = "".join("".join(f"{token}\t{tag}\n" for token, tag in sentence) + "\n" for sentence in drawn)
    (tmp_path / "a.conll").write_text(lines, encoding="utf-8", newline="")
    read = read_conll(tmp_path / "a.conll")
    kept = [sentence for sentence in drawn if sentence[0][0] != "-DOCSTART-"]
    assert not read.problems
    words = [[one.item.data["text"][start:end] for start, end in one.item.data["tokens"]] for one in read.labeled]
    assert words == [[token for token, _ in sentence] for sentence in kept]
    again = read_conll(write_conll(NESTED, read.labeled, tmp_path, scheme="BIOES")[0])
    assert [(one.item.data, one.annotations) for one in again.labeled] == [
        (one.item.data, one.annotations) for one in read.labeled
    ]


@pytest.mark.parametrize(("one", "says"), [
    (answer("São Paulo", (0, 9, "place"), (0, 3, "person")), "spans s1 and s2 overlap"),
    (answer("a\tb c", (0, 3, "person"), tokens=[[0, 3], [4, 5]]), "a space, a tab or a line end in it"),
    (answer("-DOCSTART- x", tokens=[[0, 10], [11, 12]]), "-DOCSTART-"),
    (answer(" \n "), "no token in it"),
    (answer(""), "no token in it"),
    (answer("a b", (1, 2, "person")), "nothing but spaces"),
    (answer("Ana", tokens=[[0, 2], [1, 3]]), "tokens do not fit"),
    (answer("Ana", tokens=[[0, 9]]), "tokens do not fit"),
    (Labeled(LabelItem("c", {"text": "Ana"}), ({"id": "c", "kind": "class", "label": "person"},)), "annotations of kind class"),
])  # fmt: skip
def test_what_conll_cannot_hold_is_refused(tmp_path: Path, one: Labeled, says: str) -> None:
    """With the item and what to do; all of them together, and no file is left."""
    with pytest.raises(SpecificationError, match=says) as refused:
        write_conll(PEOPLE, [answer("fine"), one, one], tmp_path)
    assert len(refused.value.faults) == 3
    assert "Export as jsonl" in refused.value.faults[-1]
    assert list(tmp_path.iterdir()) == []


def test_an_old_file_stays_where_the_new_one_cannot_be(tmp_path: Path) -> None:
    """Half of a file is never seen."""
    [path] = write_conll(PEOPLE, [answer("fine")], tmp_path)
    with pytest.raises(SpecificationError):
        write_conll(PEOPLE, [answer("new"), answer("")], tmp_path)
    assert path.read_text() == "fine\tO\n\n"
    assert list(tmp_path.iterdir()) == [path]


# spaCy


@st.composite
def nested(draw: st.DrawFn) -> Labeled:
    """Draw a text of anything with spans over and in one another, that do not begin or end with spaces."""
    parts = st.one_of(
        st.text(max_size=6),
        st.sampled_from(["👩‍🚀 ", "e\u0301", "שלום ", "\r\n", "\t\t", "  ", "New York", "\u2028", "हिन्दी"]),
    )
    text = "".join(draw(st.lists(parts, max_size=6)))
    spans = []
    for _ in range(draw(st.integers(0, 4)) if text else 0):
        start = draw(st.integers(0, len(text) - 1))
        end = draw(st.integers(start + 1, len(text)))
        if text[start:end] == text[start:end].strip():
            spans.append((start, end, draw(st.sampled_from(["person", "place", "B-odd"]))))
    return answer(text, *dict.fromkeys(spans), source={"row": [1, None]})


@MANY
@given(st.lists(nested(), max_size=4))
def test_spacy_holds_any_text_and_nested_spans(tmp_path: Path, drawn: list[Labeled]) -> None:
    """The text to the last space, the item's id and further data, every span; also of an empty text."""
    read = read_spacy(write_spacy(NESTED, drawn, tmp_path)[0])
    assert not read.problems
    assert [(one.item.id, one.item.data, marked(one)) for one in read.labeled] == [
        (o.item.id, o.item.data, marked(o)) for o in drawn
    ]


@MANY
@given(st.lists(nested(), max_size=4))
def test_json_lines_hold_any_text_and_nested_spans(tmp_path: Path, drawn: list[Labeled]) -> None:
    """The same, as Prodigy writes it: each span also by its tokens."""
    [path] = write_spacy_lines(NESTED, drawn, tmp_path)
    for line, one in zip(path.read_text(encoding="utf-8").split("\n"), drawn, strict=False):
        value = json.loads(line)
        for span in value["spans"]:
            first, last = value["tokens"][span["token_start"]], value["tokens"][span["token_end"]]
            assert (first["start"], last["end"]) == (span["start"], span["end"])
            assert one.item.data["text"][first["start"] : first["end"]] == first["text"]
    read = read_spacy_lines(path)
    assert not read.problems
    assert [(one.item.id, one.item.data, marked(one)) for one in read.labeled] == [
        (o.item.id, o.item.data, marked(o)) for o in drawn
    ]


def test_spacy_itself_reads_entities_classes_and_tags(tmp_path: Path) -> None:
    """What its training looks at: `doc.ents`, `doc.cats`, `token.tag_`."""
    import spacy
    from spacy.tokens import DocBin

    def docs(path: Path) -> list[Any]:
        return list(DocBin().from_disk(path).get_docs(spacy.blank("xx").vocab))

    [entities] = write_spacy(
        PEOPLE, [answer("Ana flew\tto Rome ", (0, 3, "person"), (12, 17, "place"))], tmp_path / "a"
    )
    [doc] = docs(entities)
    assert [(ent.text, ent.label_) for ent in doc.ents] == [
        ("Ana", "person"),
        ("Rome", "place"),
    ]  # a space at the end is no part of it
    chosen = Labeled(LabelItem("x", {"text": "Goal!"}), ({"id": "class:sport", "kind": "class", "label": "sport"},))
    [doc] = docs(write_spacy(TOPICS, [chosen], tmp_path / "b")[0])
    assert doc.cats == {"sport": 1.0, "art": 0.0, "politics": 0.0}
    assert read_spacy(tmp_path / "b").classes == ("sport", "art", "politics")
    [doc] = docs(write_spacy(TAGGED, [answer("Dogs bark", (0, 4, "NOUN"), (5, 9, "VERB"))], tmp_path / "c")[0])
    assert [token.tag_ for token in doc] == ["NOUN", "VERB"]
    assert marked(read_spacy(tmp_path / "c", layer="tags").labeled[0]) == [(0, 4, "NOUN"), (5, 9, "VERB")]


def test_tags_of_sentences_are_no_tags_of_tokens(tmp_path: Path) -> None:
    """They are a span group, also where the tags of tokens are asked for."""
    one = answer("Go! Dogs bark.", (0, 3, "VERB"), (4, 14, "NOUN"))
    [back] = read_spacy(write_spacy(TAGGED, [one], tmp_path)[0], layer="tags").labeled
    assert marked(back) == marked(one)


def test_documents_of_other_tools_bring_their_tokens(tmp_path: Path) -> None:
    """And what they know of an entity's entry in a knowledge base does not hurt."""
    import spacy
    from spacy.tokens import Doc, DocBin, Span

    nlp = spacy.blank("en")
    doc = Doc(nlp.vocab, words=["don't", "\n", "go"], spaces=[True, False, False])
    doc.set_ents([Span(doc, 2, 3, label="VERB", kb_id="Q1")])
    DocBin(docs=[doc]).to_disk(tmp_path / "theirs.spacy")
    [one] = read_spacy(tmp_path / "theirs.spacy").labeled
    assert one.item.data == {"text": "don't \ngo", "tokens": [[0, 5], [7, 9]]}
    assert marked(one) == [(7, 9, "VERB")]
    assert pieces_of(one.item) == [(0, 5), (7, 9)]


def test_many_documents_are_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no more than some are in memory at once; a folder of them is one corpus. An empty one is a file, too."""
    monkeypatch.setattr("mlops_nb.inner_loop.tokens._PART", 2)
    drawn = [answer(f"Ana {n}", (0, 3, "person")) for n in range(5)]
    assert len(write_spacy(PEOPLE, drawn, tmp_path)) == 3
    assert [one.item.data["text"] for one in read_spacy(tmp_path).labeled] == [f"Ana {n}" for n in range(5)]
    assert read_spacy(write_spacy(PEOPLE, [], tmp_path / "none")[0]).labeled == []
    with pytest.raises(SpecificationError, match="relation"):
        write_spacy(PEOPLE, [*drawn, related()], tmp_path / "half")
    assert list((tmp_path / "half").iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"x\x9c\x03\x00\x00\x00\x00\x01"])
def test_what_is_no_document_is_told(tmp_path: Path, content: bytes) -> None:
    """A broken or foreign file is a problem with its name, not a crash of a library."""
    (tmp_path / "a.spacy").write_bytes(content)
    [problem] = read_spacy(tmp_path).problems
    assert "a.spacy: no spaCy documents" in problem
    with pytest.raises(FileNotFoundError, match=r"No \.spacy file"):
        read_spacy(_empty(tmp_path))
    with pytest.raises(FileNotFoundError):
        read_spacy(tmp_path / "none.spacy")


def _empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def related() -> Labeled:
    """Make an answer with two relations, of which one goes out from the inner of two equal places."""
    spans = answer("Rome in Italy", (0, 4, "place"), (0, 4, "person"), (8, 13, "place")).annotations
    return Labeled(LabelItem("r", {"text": "Rome in Italy"}), (
        *spans, {"id": "r1", "kind": "relation", "label": "in", "head": "s1", "tail": "s3"},
        {"id": "r2", "kind": "relation", "label": "in", "head": "s2", "tail": "s3"}))  # fmt: skip


def test_relations_come_back(tmp_path: Path) -> None:
    """Each holds on to the span of the right place and class, whatever the spans' ids."""
    [one] = read_spacy_lines(write_spacy_lines(RELATED, [related()], tmp_path)[0]).labeled
    labels = {a["id"]: (a["start"], a["label"]) for a in one.annotations if a["kind"] == "span"}
    ends = {(labels[a["head"]], labels[a["tail"]]) for a in one.annotations if a["kind"] == "relation"}
    assert ends == {((0, "place"), (8, "place")), ((0, "person"), (8, "place"))}


def test_lines_of_other_tools_are_read(tmp_path: Path) -> None:
    """Prodigy's answers, doccano's spans, relations and classes, and the training data of spaCy 2."""
    lines = [
        {"text": "Ana sang", "spans": [{"start": 0, "end": 3, "label": "person", "token_start": 0}], "answer": "accept",
         "meta": {"page": 3}},
        {"text": "passed over", "spans": [], "answer": "ignore"},
        {"text": "Bo", "label": [[0, 2, "person"]]},
        {"text": "Bo", "entities": [{"id": 7, "start_offset": 0, "end_offset": 2, "label": "person"}], "relations": []},
        {"text": "A in B", "entities": [{"id": 4, "start_offset": 0, "end_offset": 1, "label": "place"},
                                        {"id": 9, "start_offset": 5, "end_offset": 6, "label": "place"}],
         "relations": [{"id": 1, "from_id": 4, "to_id": 9, "type": "in"}]},
        {"text": "Goal", "label": "sport"}, {"text": "Both", "label": ["sport", "art"]},
        {"text": "Two", "accept": ["art"], "answer": "accept"},
        {"text": "Sure", "cats": {"sport": 0.9, "art": 0.1}},
    ]  # fmt: skip
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    read = read_spacy_lines(tmp_path / "a.jsonl")
    assert not read.problems
    assert read.kept == {"passed_over": 1}
    assert Counter(a["label"] for one in read.labeled for a in one.annotations) == {
        "person": 3, "place": 2, "in": 1, "sport": 3, "art": 2}  # fmt: skip
    assert read.labeled[0].item.data == {"text": "Ana sang", "page": 3}
    assert [a for a in read.labeled[3].annotations if a["kind"] == "relation"] == [
        {"id": "r1", "kind": "relation", "label": "in", "head": "s1", "tail": "s2"}]  # fmt: skip


def test_every_fault_of_lines_is_told(tmp_path: Path) -> None:
    """No JSON, no object, no text, a span that is none, a relation to nowhere, brackets without end."""
    (tmp_path / "a.jsonl").write_text('{"text": \n[1]\n{"spans": []}\n{"text": 3}\n{"text": "a", "spans": [[0, "x", "p"]]}\n'
                                      '{"text": "a", "spans": [{"start": 0}]}\n'
                                      '{"text": "a", "entities": [], '
                                      '"relations": [{"from_id": 1, "to_id": 2, "type": "in"}]}\n' + "[" * 100_000)  # fmt: skip
    problems = read_spacy_lines(tmp_path / "a.jsonl").problems
    assert [problem.split("line ")[1].split(":")[0] for problem in problems] == list("12345678")
