"""Texts of another site are told apart by their words; halves of one site are not."""

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlops_nb.core.records import Deployment
from mlops_nb.core.settings import Settings
from mlops_nb.outer_loop.collected import Collected
from mlops_nb.outer_loop.monitor import Watch
from mlops_nb.outer_loop.signals import Asked, Measure
from mlops_nb.outer_loop.text import language, out_of_vocabulary_rates, text_drift, words

START = dt.datetime(2026, 11, 20, tzinfo=dt.UTC)
WNUT = Path(__file__).resolve().parents[3] / "shared" / "data" / "nlp" / "wnut17"


def ask(
    texts: list[Any], reference: list[Any] | None, answers: tuple[list[str], list[str]] | None = None, **parameters: Any
) -> Asked:
    ids = [f"r{n}_0" for n in range(len(texts))]
    frames = {
        "model_inputs": pd.DataFrame({"correlationid": ids, "text": texts}),
        "model_outputs": pd.DataFrame({"correlationid": ids}),
    }
    known = None if reference is None else pd.DataFrame({"text": reference})
    if answers and known is not None:
        known["prediction"], frames["model_outputs"]["prediction"] = answers
    return Asked(
        Settings(),
        Watch("texts", "custom", {}, parameters=parameters),
        "classification",
        Deployment("notes", "blue", "", "dev"),
        (START, START + dt.timedelta(days=1)),
        lambda collection, window: Collected(frames[collection], len(texts)),
        known,
        100,
    )


def values(measures: list[Measure]) -> dict[str, float | None]:
    return {measure.feature or measure.metric: measure.value for measure in measures}


@pytest.fixture(scope="module")
def sites() -> dict[str, list[str]]:
    """Texts of three sites, as they were split into words."""
    if not WNUT.is_dir():
        pytest.skip("needs the WNUT-17 texts")
    found = {}
    for site, name in (("tweets", "wnut17train.conll"), ("videos", "emerging.dev.conll"), ("forum", "emerging.test.annotated")):
        blocks = (WNUT / name).read_text().replace("\t\n", "\n").split("\n\n")
        found[site] = [" ".join(line.split("\t")[0] for line in block.splitlines()) for block in blocks if block.strip()]
    return found


def test_random_halves_of_one_site_are_quiet(sites: dict[str, list[str]]) -> None:
    order = np.random.default_rng(0).permutation(len(sites["tweets"]))
    old, new = ([sites["tweets"][n] for n in part] for part in (order[:800], order[800:1600]))
    measures = text_drift(ask(new, old))
    found = values(measures)
    assert found["domain_classifier_auc"] < 0.56
    assert found["maximum_mean_discrepancy_test"] > 0.01
    assert found["out_of_vocabulary_rate"] == pytest.approx(measures[2].detail["without_change"], abs=0.03)
    assert found["language_change_rate"] < 0.04


def test_texts_of_other_sites_are_drift_with_the_words_that_say_so(sites: dict[str, list[str]]) -> None:
    for site in ("videos", "forum"):
        measures = text_drift(ask(sites[site][:500], sites["tweets"][:800]))
        found = values(measures)
        assert found["domain_classifier_auc"] > 0.9
        assert found["maximum_mean_discrepancy_test"] == 0.002
        assert measures[0].detail["examples"][0]["why"].startswith("words: ")
    assert "<link>" in measures[0].detail["words"]


def test_a_quarter_of_texts_of_another_site_is_found_and_they_are_the_examples(sites: dict[str, list[str]]) -> None:
    mixed = sites["tweets"][1000:1600] + sites["videos"][:200]
    measures = text_drift(ask(mixed, sites["tweets"][:1000], examples=40))
    assert measures[0].detail["p_value"] < 0.05
    foreign = [int(row["correlationid"][1:-2]) >= 600 for row in measures[0].detail["examples"]]
    assert np.mean(foreign) > 0.7  # of a quarter


NOTES = [
    f"please price the {thing} of {who}"
    for thing in ("ring", "stone", "necklace", "brooch")
    for who in ("my aunt", "a friend", "the shop")
] * 10


def test_new_words_languages_lengths_and_answers() -> None:
    german = ["bitte schätzen Sie den Ring und die Kette, die ich von meiner Tante habe, und sagen Sie mir, was er wert ist"] * 60
    measures = text_drift(
        ask(NOTES[:60] + german, NOTES, (["price"] * 120, ["price"] * 60 + ["unknown"] * 60), prediction="prediction")
    )
    found = values(measures)
    assert found["language_change_rate"] == pytest.approx(0.5)
    assert found["out_of_vocabulary_rate"] > 0.6
    assert found["length"] > 1
    assert found["prediction"] > 0.4
    assert next(m for m in measures if m.feature == "prediction").detail["classes"]["unknown"] == [0, 0.5]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("what is the price of this ring", "en"),
        ("was ist der Preis für den Ring", "de"),
        ("quel est le prix de la bague", "fr"),
        ("сколько стоит это кольцо и как его купить", "ru"),
        ("この指輪はいくらですか", "ja"),
        ("这个戒指多少钱", "zh"),
        ("πόσο κάνει", "el"),
        ("12 + 3", ""),
        ("", ""),
    ],
)
def test_languages(text: str, expected: str) -> None:
    assert language(text) == expected


def test_names_numbers_and_links_are_no_words_of_their_own() -> None:
    assert words("@ann 12.5 http://x.y 3") == ["<name>", "<number>", "<link>", "<number>"]
    assert out_of_vocabulary_rates(["call @ann at 5"] * 4, ["call @bob at 7"])[0] == 0


def embedding(texts: list[str]) -> np.ndarray:
    return np.array([[len(text), text.count("ring")] for text in texts], dtype=float)


def test_an_embedding_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types

    monkeypatch.setitem(sys.modules, "own_embedding", module := types.ModuleType("own_embedding"))
    module.embedding = embedding  # type: ignore[attr-defined]
    found = text_drift(ask([note + " ring ring" for note in NOTES], NOTES, embedding="own_embedding:embedding"))
    assert found[1].detail["embedding"] == "own_embedding:embedding"
    assert found[1].value == 0.002
    assert "no nowhere:f" in text_drift(ask(NOTES, NOTES, embedding="nowhere:f"))[1].problem


@pytest.mark.parametrize(
    ("texts", "reference", "parameters", "said", "waits"),
    [
        (NOTES[:20], NOTES, {}, "only 20 rows in the window, 100 needed", True),
        (NOTES, None, {}, "no reference data", False),
        (NOTES, NOTES, {"column": "body"}, "no column 'body'", False),
        ([None] * 120, NOTES, {}, "only 0 of 120 rows in the window with a text", False),
        ([""] * 110 + NOTES[:10], NOTES, {}, "only 10 of 120 rows", False),
        ([3.5] * 120, NOTES, {}, "only 0 of 120", False),
        (NOTES, NOTES[:20], {}, "only 20 rows in the reference", False),
        (["?!"] * 120, ["..."] * 120, {}, "no word is in three texts", False),
    ],
)
def test_what_cannot_be_compared_says_so(
    texts: list[Any], reference: list[Any] | None, parameters: dict[str, str], said: str, waits: bool
) -> None:
    first = text_drift(ask(texts, reference, **parameters))[0]
    assert first.value is None
    assert said in first.problem
    assert first.detail.get("waiting", False) is waits


def test_the_same_texts_on_both_sides_are_no_drift() -> None:
    first, second = (text_drift(ask(["price this ring"] * 120, ["price this ring"] * 120)) for _ in range(2))
    assert values(first)["domain_classifier_auc"] == 0.5
    assert values(first)["maximum_mean_discrepancy_test"] == 1
    assert first == second
