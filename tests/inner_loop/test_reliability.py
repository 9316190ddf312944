"""Agreement: published numbers, other libraries over random cases, intervals that hold, and a reason where there is no number."""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import krippendorff
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import fleiss_kappa as statsmodels_fleiss_kappa

from mlops_nb.inner_loop.reliability import LEVELS, cohen_kappa, fleiss_kappa, krippendorff_alpha, share

QUICK = {"resamples": 0}


def unroll(table: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
    """Turn a table of counts into what the two people said, item by item."""
    cells = [(a, b) for a, row in enumerate(table) for b, count in enumerate(row) for _ in range(count)]
    return [a for a, _ in cells], [b for _, b in cells]


# --- published examples ---------------------------------------------------------------------------------------------------------


def test_cohen_1960() -> None:
    """The two tables of the paper: .492 over 200 patients, and -.09, less than chance would make."""
    assert cohen_kappa(*unroll([[88, 14, 18], [10, 40, 10], [2, 6, 12]])).value == pytest.approx(0.492, abs=0.0005)
    assert cohen_kappa(*unroll([[25, 13, 12], [12, 2, 16], [3, 15, 2]])).value == pytest.approx(-0.09, abs=0.005)


def test_cohen_1968_weighted() -> None:
    """Weights of one's own: .348."""
    kappa = cohen_kappa(*unroll([[88, 14, 18], [10, 40, 10], [2, 6, 12]]), weights=[[0, 1, 3], [1, 0, 6], [3, 6, 0]])
    assert kappa.value == pytest.approx(0.348, abs=0.0005)


DIAGNOSES = """00060 03003 01401 00006 03030 20400 00402 20310 20040 00006 10050 11040 03300 10050 02031
               00501 30012 51000 02040 10203 00006 01050 02013 20040 10041 05010 40002 02040 10500 00006"""


def test_fleiss_1971() -> None:
    """Six psychiatrists, thirty patients: .430, and each diagnosis against all others."""
    table = np.array([[int(number) for number in row] for row in DIAGNOSES.split()])
    assert fleiss_kappa(table).value == pytest.approx(0.430, abs=0.0005)
    each = [fleiss_kappa(np.stack([table[:, n], 6 - table[:, n]], axis=1)).value for n in range(5)]
    assert each == pytest.approx([0.245, 0.245, 0.520, 0.471, 0.566], abs=0.0005)


NAN = math.nan
OBSERVERS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]


@pytest.mark.parametrize(("level", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849), ("ratio", 0.797)])
def test_krippendorff_2011(level: str, published: float) -> None:
    """Four observers, twelve units, some not answered; the unit that only one person answered does not count."""
    alpha = krippendorff_alpha(OBSERVERS, level)
    assert alpha.value == pytest.approx(published, abs=0.0005)
    assert (alpha.items, alpha.people) == (11, 4)


def test_krippendorff_2011_two_observers() -> None:
    """His first two examples: two values, and several."""
    meg, owen = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    assert krippendorff_alpha([meg, owen]).value == pytest.approx(0.095, abs=0.0005)
    assert krippendorff_alpha([list("aabbdcccedda"), list("babbbccceddd")]).value == pytest.approx(0.692, abs=0.0005)


# --- other libraries ------------------------------------------------------------------------------------------------------------

answers = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40)


@pytest.mark.parametrize("weights", ["", "linear", "quadratic"])
@given(pairs=answers)
@settings(max_examples=100, deadline=None)
def test_cohen_as_scikit_learn(weights: str, pairs: list[tuple[int, int]]) -> None:
    """The same number; where scikit-learn has NaN, there is none and a reason."""
    a, b = zip(*pairs, strict=True)
    ours = cohen_kappa(a, b, weights, classes=range(5), **QUICK)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = cohen_kappa_score(a, b, labels=list(range(5)), weights=weights or None)
    if ours.value is None:
        assert math.isnan(theirs)
        assert len({*a, *b}) == 1
        assert ours.reason
    else:
        assert ours.value == pytest.approx(theirs, abs=1e-9)


@given(st.integers(2, 6).flatmap(lambda people: st.lists(st.lists(st.integers(0, 3), min_size=people, max_size=people), min_size=1)))
@settings(max_examples=100, deadline=None)
def test_fleiss_as_statsmodels(rows: list[list[int]]) -> None:
    """The same number wherever more than one class was given."""
    table = np.array([[row.count(n) for n in range(4)] for row in rows])
    ours = fleiss_kappa(table, **QUICK)
    if (table.sum(0) > 0).sum() == 1:
        assert ours.value is None
        assert "only one value" in ours.reason
    else:
        assert ours.value == pytest.approx(statsmodels_fleiss_kappa(table), abs=1e-9)


@pytest.mark.parametrize("level", LEVELS)
@given(st.integers(2, 5).flatmap(lambda people: st.lists(
    st.lists(st.none() | st.integers(0, 4), min_size=people, max_size=people), min_size=1, max_size=30)))
@settings(max_examples=100, deadline=None)
def test_alpha_as_krippendorff(level: str, items: list[list[int | None]]) -> None:
    """The same number with any pattern of missing answers; None and why, where the other library refuses."""
    values = [list(person) for person in zip(*items, strict=True)]
    ours = krippendorff_alpha(values, level, **QUICK)
    paired = [[value for value in item if value is not None] for item in items if sum(value is not None for value in item) > 1]
    if len({value for item in paired for value in item}) < 2:
        assert ours.value is None
        assert ours.reason
        return
    numbers = np.array([[NAN if value is None else value for value in person] for person in values])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it divides by zero at the ratio level where a value is zero
        theirs = krippendorff.alpha(numbers, level_of_measurement=level)
    assert ours.value == pytest.approx(theirs, abs=1e-9)


@given(answers)
@settings(max_examples=50, deadline=None)
def test_order_does_not_matter(pairs: list[tuple[int, int]]) -> None:
    """The items' order and whose answers come first change nothing; other names for the classes change nothing either."""
    a, b = zip(*pairs, strict=True)
    names = dict(enumerate("zyxwv"))
    value = krippendorff_alpha([a, b], **QUICK).value
    assume(value is not None)
    others = [[b, a], [a[::-1], b[::-1]], [[names[v] for v in a], [names[v] for v in b]]]
    assert [krippendorff_alpha(other, **QUICK).value for other in others] == pytest.approx([value] * 3)


# --- intervals ------------------------------------------------------------------------------------------------------------------


def people_who_agree(random: np.random.Generator, items: int, people: int = 2, right: float = 0.8) -> np.ndarray:
    """Draw what people say who know the class with a probability, and guess among four otherwise: kappa is `right` squared."""
    truth = random.integers(0, 4, items)
    return np.where(random.random((people, items)) < right, truth, random.integers(0, 4, (people, items)))


@pytest.mark.parametrize("measure", ["cohen", "fleiss", "alpha"])
def test_the_interval_holds_what_it_says(measure: str) -> None:
    """In 95 % of the samples the true value lies within it: 0.64 here; 300 samples, so 0.95 give or take 0.04."""
    random, within = np.random.default_rng(0), 0
    for seed in range(300):
        said = people_who_agree(random, 200)
        if measure == "cohen":
            found = cohen_kappa(said[0].tolist(), said[1].tolist(), resamples=300, seed=seed)
        elif measure == "fleiss":
            found = fleiss_kappa(np.stack([(said == n).sum(0) for n in range(4)], axis=1), resamples=300, seed=seed)
        else:
            found = krippendorff_alpha(said.tolist(), resamples=300, seed=seed)
        assert found.low is not None
        assert found.high is not None
        within += found.low <= 0.64 <= found.high
    assert 0.91 <= within / 300 <= 0.99


@pytest.mark.parametrize("level", LEVELS)
def test_an_interval_is_what_a_slow_loop_makes_it(level: str) -> None:
    """Resampling items one by one with another library ends near the same limits."""
    random = np.random.default_rng(1)
    said = people_who_agree(random, 60, 3).astype(float) + 1
    said[0, :20] = NAN
    fast = krippendorff_alpha(said.tolist(), level, resamples=4000)
    drawn = [krippendorff.alpha(said[:, random.integers(0, 60, 60)], level_of_measurement=level) for _ in range(500)]
    assert [fast.low, fast.high] == pytest.approx(list(np.quantile(drawn, [0.025, 0.975])), abs=0.04)


def test_the_same_seed_the_same_interval() -> None:
    """Two runs say the same; another seed says nearly the same."""
    said = people_who_agree(np.random.default_rng(2), 500).tolist()
    assert cohen_kappa(*said, seed=7) == cohen_kappa(*said, seed=7)
    one, other = cohen_kappa(*said, seed=7), cohen_kappa(*said, seed=8)
    assert one.low != other.low
    assert one.low == pytest.approx(other.low, abs=0.02)


def test_parts_of_an_item_are_drawn_together() -> None:
    """Twenty words of one text that were tagged alike are one piece of evidence, not twenty: the interval is wider."""
    random = np.random.default_rng(3)
    said = people_who_agree(random, 60)
    words = np.repeat(said, 20, axis=1).tolist()
    texts = [f"text {n // 20}" for n in range(1200)]
    alone, together, whole = krippendorff_alpha(words), krippendorff_alpha(words, groups=texts), krippendorff_alpha(said.tolist())
    assert alone.value == together.value
    assert (together.items, alone.items) == (60, 1200)
    assert together.high - together.low > 3 * (alone.high - alone.low)  # type: ignore[operator]
    assert (together.high - together.low) == pytest.approx(whole.high - whole.low, abs=0.05)  # type: ignore[operator]
    assert krippendorff_alpha(words, "ordinal", groups=texts).high > krippendorff_alpha(words, "ordinal").high  # type: ignore[operator]


@pytest.mark.parametrize("level", ["nominal", "ordinal"])
def test_a_thousand_resamples_of_ten_thousand_items(level: str) -> None:
    """Scores that all differ are the hard case: a second, where a matrix for each resample would take hours."""
    random = np.random.default_rng(4)
    score = random.normal(50, 10, 10_000)
    values = (score + random.normal(0, 3, (2, 10_000))).tolist()
    found = krippendorff_alpha(values, level)
    assert found.items == 10_000
    assert found.low <= found.high  # type: ignore[operator]


# --- no number, and why ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("found", "reason"), [
    (lambda: cohen_kappa([], []), "no item was answered by two"),
    (lambda: cohen_kappa(["a", None], [None, "b"]), "no item was answered by two"),
    (lambda: cohen_kappa(["a", "a"], ["a", "a"]), "only one value"),
    (lambda: fleiss_kappa([]), "no item was answered by two"),
    (lambda: fleiss_kappa([[1, 0], [0, 1]]), "no item was answered by two"),
    (lambda: fleiss_kappa([[3, 0], [3, 0]]), "only one value"),
    (lambda: krippendorff_alpha([]), "no item was answered by two"),
    (lambda: krippendorff_alpha([["a", "b", "a"]]), "no item was answered by two"),
    (lambda: krippendorff_alpha([[None, NAN], [None, NAN]]), "no item was answered by two"),
    (lambda: krippendorff_alpha([["a", "b", None], [None, None, "a"]]), "no item was answered by two"),
    (lambda: krippendorff_alpha([[7, 7], [7, 7]], "ordinal"), "only one value"),
    (lambda: krippendorff_alpha([[0.1, 0.1], [0.1, 0.1], [0.1, 0.1]], "interval"), "only one value"),
    (lambda: krippendorff_alpha([[0, 0], [0, 0]], "ratio"), "only one value"),
    (lambda: share("F1", [], [], 2), "no item was answered by two"),
    (lambda: share("F1", [0, 0], [0, 0], 2, "nobody drew anything"), "nobody drew anything"),
], ids=[f"case{n}" for n in range(15)])
def test_no_number_without_a_reason(found: Any, reason: str) -> None:
    """Nothing that is not defined comes out as NaN, or as a number."""
    agreement = found()
    assert (agreement.value, agreement.low, agreement.high) == (None, None, None)
    assert reason in agreement.reason
    assert reason in str(agreement)


@pytest.mark.parametrize("level", LEVELS)
def test_neither_small_differences_nor_large_numbers_matter(level: str) -> None:
    """Values that differ in the ninth digit, or by nearly nothing, are values that differ; a far one does not drown the others."""
    values = [[1.0, 2.0, 3.0, 3.0, 2.0], [1.0, 2.0, 3.0, 2.0, 2.0]]
    alpha = krippendorff_alpha(values, level).value
    assert krippendorff_alpha([[v * 1e-9 for v in person] for person in values], level).value == pytest.approx(alpha)
    if level == "interval":
        assert krippendorff_alpha([[v + 1e6 for v in person] for person in values], level).value == pytest.approx(alpha)
    far = krippendorff_alpha([[*person, 1e9] for person in values], level)
    assert far.value == pytest.approx(krippendorff.alpha(np.array([[*person, 1e9] for person in values]), level_of_measurement=level))
    assert far.low is not None
    assert -1 <= far.low <= 1


def test_one_item_has_a_value_and_no_interval() -> None:
    """Resampling one item says nothing."""
    one = krippendorff_alpha([["a"], ["b"]])
    assert one.value == 0
    assert one.low is None
    assert "one item" in one.reason


def test_no_interval_where_many_resamples_have_no_number() -> None:
    """All but one of a hundred items are alike: a third of the resamples miss that one, and say nothing."""
    one, ten = ["a"] * 99 + ["b"], ["a"] * 90 + ["b"] * 10
    alone = cohen_kappa(one, one)
    assert (alone.value, alone.low) == (1.0, None)
    assert "in many resamples only one value" in alone.reason
    assert (cohen_kappa(ten, ten).low, cohen_kappa(ten, ten).reason) == (1.0, "")


@pytest.mark.parametrize(("wrong", "message"), [
    (lambda: cohen_kappa([1], [1, 2]), "1 items, the other 2"),
    (lambda: cohen_kappa(["low"], ["high"], weights="linear"), "no order"),
    (lambda: cohen_kappa([1], [2], weights="cubic"), "weights 'cubic'"),
    (lambda: cohen_kappa([1], [2], weights=[[0, 1]]), "2 x 2"),
    (lambda: cohen_kappa(["a"], ["x"], classes=["a", "b"]), "x: not among the classes"),
    (lambda: fleiss_kappa([[2, 0], [1, 2]]), "Use krippendorff_alpha"),
    (lambda: fleiss_kappa([[0.5, 1.5]]), "how many people chose each class"),
    (lambda: krippendorff_alpha([[1, 2], [1]]), "the same items are expected"),
    (lambda: krippendorff_alpha([[1], [2]], "metric"), "one of nominal, ordinal, interval, ratio"),
    (lambda: krippendorff_alpha([["a"], ["b"]], "ordinal"), "or classes= from the lowest"),
    (lambda: krippendorff_alpha([["a"], ["b"]], "interval"), "interval: a, b has no order"),
    (lambda: krippendorff_alpha([[-1], [2]], "ratio"), "-1 is below zero"),
    (lambda: krippendorff_alpha([[1, 2], [2, 2]], groups=["a"]), "1 groups for 2 items"),
], ids=[f"case{n}" for n in range(13)])
def test_wrong_input_is_refused(wrong: Any, message: str) -> None:
    """Each refusal names what was wrong."""
    with pytest.raises(ValueError, match=message):
        wrong()


def test_words_that_have_an_order() -> None:
    """An ordinal scale of words, from the lowest to the highest, is the same as one of numbers."""
    scale = ["bad", "fair", "good"]
    a, b = [0, 1, 2, 2, 0, 1], [0, 2, 2, 1, 0, 1]
    words = [[scale[v] for v in a], [scale[v] for v in b]]
    assert krippendorff_alpha(words, "ordinal", classes=scale) == krippendorff_alpha([a, b], "ordinal")
    assert cohen_kappa(*words, weights="quadratic", classes=scale).value == pytest.approx(cohen_kappa_score(a, b, weights="quadratic"))
