"""Review: consensus or dispute, once each, also with two processes and after kills; what reviewers decide; the report."""

import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mlops_nb.core.ledger import entries
from mlops_nb.core.records import SpecificationError
from mlops_nb.core.settings import Settings
from mlops_nb.inner_loop import recording
from mlops_nb.inner_loop.answers import Answer, Event
from mlops_nb.inner_loop.labeling import LabelProject
from mlops_nb.inner_loop.review import (
    CONSENSUS,
    Judged,
    accept,
    confusion,
    disagreements,
    drawn_for_review,
    judge,
    reject,
    report,
    settle,
)
from mlops_nb.inner_loop.store import LabelItem, Store, create, open_store

Annotations = list[dict[str, Any]]


def as_user(settings: Settings, name: str, **more: Any) -> Settings:
    """Be somebody else."""
    return settings.model_copy(update={"user": name, **more})


def topics(**more: Any) -> LabelProject:
    """Describe a project: one class for each text, two people."""
    fields: dict[str, Any] = {"name": "topics", "task": "text_classification", "classes": ["sport", "money", "law"], "overlap": 2,
                              "annotators": ["ana", "ben", "kim"], "reviewers": ["eva", "kim"]}
    return LabelProject(**fields | more)


def label(name: str) -> Annotations:
    """Choose a class."""
    return [{"id": f"class:{name}", "kind": "class", "label": name}]


def answer(store: Store, item: str, name: str, annotations: Annotations, seconds: float = 0, start: Annotations | None = None) -> None:
    """Let somebody open, answer and submit."""
    story = [("open", {"annotations": start} if start else {}), ("adopt", {"annotations": annotations, "from": name}), ("submit", {})]
    turn = len(list(store.events(item, name)))
    events = [Event(f"{name}-{item}-{turn}-{kind}", item, kind, name, name, data, seconds=seconds / 3) for kind, data in story]
    refused = [why for why in store.record(events).values() if why]
    assert not refused, refused


@pytest.fixture
def lay(project: Settings) -> Iterator[Callable[..., Store]]:
    """Lay a project with answers: `lay(topics(), 3, ana=["sport", ...], ben=[...])`; eva's store."""
    stores = []

    def make(what: LabelProject, items: int, **people: list[str]) -> Store:
        store = create(as_user(project, "eva"), what)
        stores.append(store)
        store.add(LabelItem(f"i{n}", {"text": f"text {n}"}) for n in range(items))
        for name, names in people.items():
            for n, one in enumerate(names):
                answer(store, f"i{n}", name, label(one))
        return store

    yield make
    for store in stores:
        store.close()


def final(store: Store, item: str) -> list[str]:
    """Return the labels of an item's final answer."""
    return [one["label"] for one in store.answer(item, "").annotations]


def states(store: Store) -> dict[str, str]:
    """Return the items' states."""
    return {item.id: item.state for item in sorted(store.items(), key=lambda item: item.id)}


# --- judging --------------------------------------------------------------------------------------------------------------------


def test_agreed_items_become_final_and_others_are_disputed(lay: Callable[..., Store]) -> None:
    """The final answer says whose answers it was made of and how far they agreed; a dispute says why it is one."""
    store = lay(topics(), 3, ana=["sport", "law"], ben=["sport", "money"])
    assert judge(store) == Judged(final=1, disputed=1)
    assert states(store) == {"i0": "final", "i1": "disputed", "i2": "open"}
    assert final(store, "i0") == ["sport"]
    adopt, submit = store.events("i0", "")
    assert (adopt.by, adopt.data["people"], submit.data["agreement"]) == (CONSENSUS, ["ana", "ben"], 1.0)
    dispute = next(store.events("i1", ""))
    assert (dispute.kind, dispute.data["score"], dispute.data["reason"]) == ("dispute", 0.0, "agreement 0.00 is below 0.8")
    assert [one.item.id for one in store.labeled()] == ["i0"]
    assert store.replay() == []


def test_judging_again_changes_nothing(lay: Callable[..., Store]) -> None:
    """No event, no line in the ledger."""
    store = lay(topics(), 2, ana=["sport", "law"], ben=["sport", "money"])
    judge(store)
    events = list(store.events())
    assert judge(store) == Judged()
    assert list(store.events()) == events
    assert [entry.details for entry in entries(store.settings, action="judge_labels")] == [{"items": {"final": 1, "disputed": 1}}]


def test_the_answer_of_one_person_is_final(lay: Callable[..., Store]) -> None:
    """Where only one labels, there is nobody to agree with."""
    store = lay(topics(overlap=1), 1, ana=["law"])
    assert judge(store) == Judged(final=1)
    assert final(store, "i0") == ["law"]


def test_a_majority_is_enough_where_the_file_says_so(lay: Callable[..., Store]) -> None:
    """Two of three agree: a third of the pairs. A tie is none, however low the bar."""
    store = lay(topics(overlap=3, review={"agreement": 0.3}), 2, ana=["law", "law"], ben=["law", "money"], kim=["sport", "sport"])
    assert judge(store) == Judged(final=1, disputed=1)
    assert final(store, "i0") == ["law"]
    assert "below 0.3" in disagreements(store)[0].reason
    store = lay(topics(name="low", review={"agreement": 0.0}), 1, ana=["law"], ben=["money"])
    judge(store)
    assert disagreements(store)[0].reason == "as many are for one class as for another"


def test_a_consensus_that_is_no_complete_answer_is_disputed(project: Settings) -> None:
    """Each person's spans stand beside each other; those that most people saw overlap, and the project does not nest them."""
    what = LabelProject(name="names", task="text_ner", classes=["name"], overlap=5, review={"agreement": 0})
    said = {"ana": [(0, 10)], "mia": [(0, 10)], "ben": [(0, 10), (11, 20)], "kim": [(8, 20)], "lea": [(8, 20)]}
    with create(as_user(project, "eva"), what) as store:
        store.add([LabelItem("i0", {"text": "Anna Maria Luise von Habsburg"})])
        for name, places in said.items():
            answer(store, "i0", name, [{"id": f"s{a}", "kind": "span", "label": "name", "start": a, "end": b} for a, b in places])
        assert judge(store) == Judged(disputed=1)
        assert "no complete answer" in disagreements(store)[0].reason
        assert "spans overlap" in disagreements(store)[0].reason


def test_a_share_is_drawn_for_review(lay: Callable[..., Store]) -> None:
    """About the share, the same items every time, and nothing else depends on it."""
    what = topics(overlap=1, review={"share": 0.3})
    drawn = [item for item in (f"i{n}" for n in range(2000)) if drawn_for_review(what, item)]
    assert 0.26 < len(drawn) / 2000 < 0.34
    assert set(drawn) < {f"i{n}" for n in range(2000) if drawn_for_review(topics(review={"share": 0.6}), f"i{n}")}
    store = lay(what, 12, ana=["law"] * 12)
    found = judge(store)
    assert found.final + found.review == 12
    assert {item for item, state in states(store).items() if state == "review"} == {f"i{n}" for n in range(12)} & set(drawn)


def test_disputes_are_judged_again_by_a_changed_file(lay: Callable[..., Store]) -> None:
    """Two of three were not enough; the file is changed, and they are. What is still in dispute is not disputed twice."""
    store = lay(topics(overlap=3), 2, ana=["law", "law"], ben=["law", "money"], kim=["sport", "sport"])
    assert judge(store) == Judged(disputed=2)
    create(store.settings, topics(overlap=3, review={"agreement": 0.3})).close()
    with open_store(store.settings, "topics") as newer:
        assert judge(newer) == Judged()
        assert judge(newer, again=True) == Judged(final=1)
        assert [event.kind for event in newer.events("i1", "")] == ["dispute"]


def test_gold_items_are_not_judged(lay: Callable[..., Store]) -> None:
    """They are there to check people, and stay open."""
    store = lay(topics(), 1)
    store.set_gold({"i0": label("law")})
    answer(store, "i0", "ana", label("law"))
    answer(store, "i0", "ben", label("law"))
    assert judge(store) == Judged()
    with pytest.raises(SpecificationError, match="its answer is known"):
        settle(store, "i0", label("law"))


def test_whoever_may_not_review_cannot_judge(lay: Callable[..., Store]) -> None:
    """The matrices say who."""
    store = lay(topics(), 1, ana=["law"], ben=["law"])
    with open_store(as_user(store.settings, "ana", persona="monitoring_process"), "topics") as other:
        for forbidden in (lambda: judge(other), lambda: accept(other, "i0"), lambda: reject(other, "i0", "ana", "no"),
                          lambda: settle(other, "i0", label("law"))):
            with pytest.raises(PermissionError, match="may not review"):
                forbidden()
    assert states(store) == {"i0": "labeled"}


# --- exactly once ---------------------------------------------------------------------------------------------------------------


def judged_once(store: Store, items: int) -> None:
    """Every item has one verdict: adopted and submitted, or disputed."""
    kinds: dict[str, list[str]] = {}
    for event in store.events(whose=""):
        kinds.setdefault(event.item, []).append(event.kind)
    assert len(kinds) == items
    assert Counter(map(tuple, kinds.values())).keys() <= {("adopt", "submit"), ("dispute",)}
    assert {item.state for item in store.items()} <= {"final", "disputed"}
    assert store.replay() == []


def many(store: Store, items: int) -> None:
    """Let two people answer many items, and disagree on each fifth."""
    store.add(LabelItem(f"m{n}", {"text": f"text {n}"}) for n in range(items))
    events = []
    for n in range(items):
        for name in ("ana", "ben"):
            said = label("law" if name == "ana" or n % 5 else "money")
            events += [Event(f"{name}{n}a", f"m{n}", "adopt", name, name, {"annotations": said, "from": name}),
                       Event(f"{name}{n}s", f"m{n}", "submit", name, name)]
    assert not any(store.record(events).values())


def judge_elsewhere(settings: Settings, ready: Any, found: Any) -> None:
    """Judge in another process, when all are ready."""
    with open_store(settings, "topics") as store:
        ready.wait()
        found.put(judge(store))


def test_two_processes_judge_at_once(lay: Callable[..., Store]) -> None:
    """What the one has judged the other has not; together they have judged all."""
    store = lay(topics(), 0)
    many(store, 200)
    context = multiprocessing.get_context("fork")
    ready, found = context.Barrier(2), context.Queue()
    processes = [context.Process(target=judge_elsewhere, args=(store.settings, ready, found)) for _ in range(2)]
    for process in processes:
        process.start()
    told = [found.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    assert (sum(one.final for one in told), sum(one.disputed for one in told)) == (160, 40)
    judged_once(store, 200)


def judge_until_killed(settings: Settings, verdicts: int) -> None:
    """Judge in another process, which kills itself in the midst of a transaction, after so many verdicts."""
    left = iter(range(verdicts))

    def record(self: Store, *arguments: Any, **more: Any) -> dict[str, str]:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return recording.record(self, *arguments, **more)

    Store.record = record  # type: ignore[assignment, method-assign]
    with open_store(settings, "topics") as store:
        judge(store)


def test_killed_while_it_judges(lay: Callable[..., Store]) -> None:
    """SIGKILL in the midst, twice; whoever starts again does the rest, and nothing twice."""
    store = lay(topics(), 0)
    many(store, 200)
    context = multiprocessing.get_context("fork")
    for verdicts, judged in ((30, 20), (75, 80)):
        process = context.Process(target=judge_until_killed, args=(store.settings, verdicts))
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        assert 200 - store.progress()["labeled"] == judged  # what was under way is gone, all that was done before is there
    judge(store)
    judged_once(store, 200)


class Slow:
    """A store that takes its time between reading answers and returning them: Ben changes his mind meanwhile."""

    def __init__(self, store: Store):
        self.store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def answers(self, item: str) -> Iterator[Answer]:
        """Return what stood there before."""
        found = list(self.store.answers(item))
        with open_store(self.store.settings, "topics") as other:
            steps = [("reopen", {}), ("adopt", {"annotations": label("money"), "from": "ben"}), ("submit", {})]
            assert not any(other.record([Event(kind, "i0", kind, "ben", "ben", data) for kind, data in steps]).values())
        return iter(found)


def test_an_answer_that_changes_while_it_is_judged(lay: Callable[..., Store]) -> None:
    """The verdict on what Ben had said is not written; the next one is on what he says now."""
    store = lay(topics(), 2, ana=["law", "law"], ben=["law", "law"])
    assert judge(Slow(store)) == Judged(final=1)  # type: ignore[arg-type]
    assert states(store) == {"i0": "labeled", "i1": "final"}
    assert list(store.events("i0", "")) == []
    assert judge(store) == Judged(disputed=1)


# --- deciding -------------------------------------------------------------------------------------------------------------------


def test_accept(lay: Callable[..., Store]) -> None:
    """What was drawn for review is final once a reviewer has accepted it, and not twice."""
    store = lay(topics(review={"share": 1.0}), 1, ana=["law"], ben=["law"])
    judge(store)
    assert list(store.labeled()) == []
    accept(store, "i0", "as I see it")
    assert (store.item("i0").state, final(store, "i0"), store.answer("i0", "").by) == ("final", ["law"], "eva")
    with pytest.raises(SpecificationError, match="is final, not in review"):
        accept(store, "i0")
    entry, = entries(store.settings, action="accept_label")
    assert (entry.subject, entry.user, entry.details) == ("labels:topics/i0", "eva", {"reason": "as I see it"})


@pytest.mark.parametrize(("people", "hint"), [
    ({"ana": ["law"]}, "open, not in review. Its answers are not all there"),
    ({"ana": ["law"], "ben": ["law"]}, "labeled, not in review. Judge it first"),
    ({"ana": ["law"], "ben": ["money"]}, "disputed, not in review. Settle it"),
], ids=["open", "labeled", "disputed"])
def test_what_cannot_be_accepted(lay: Callable[..., Store], people: dict[str, list[str]], hint: str) -> None:
    """The refusal says what is to be done instead."""
    store = lay(topics(), 1, **people)
    if "disputed" in hint:
        judge(store)
    with pytest.raises(SpecificationError, match=hint):
        accept(store, "i0")


def test_reject(lay: Callable[..., Store]) -> None:
    """Ben's answer goes back to Ben with the reason; the item is open, and is judged anew when he has answered again."""
    store = lay(topics(), 1, ana=["law"], ben=["law"])
    judge(store)
    reject(store, "i0", "ben", "read it again")
    rejected = store.answer("i0", "ben")
    assert (rejected.state, rejected.reason, rejected.by) == ("rejected", "read it again", "eva")
    assert (store.item("i0").state, store.answer("i0", "ana").state, list(store.labeled())) == ("open", "submitted", [])
    assert store.answer("i0", "").state == "open"  # what was made of both does not stand
    answer(store, "i0", "ben", label("money"))
    assert judge(store) == Judged(disputed=1)
    answers = report(store)
    assert answers.rejected.to_dict() == {"ana": 0, "ben": 1}
    entry, = entries(store.settings, action="reject_label")
    assert entry.details == {"whose": "ben", "reason": "read it again"}
    assert store.replay() == []


def test_a_rejected_answer_that_is_given_again_unchanged(lay: Callable[..., Store]) -> None:
    """The same two answers as before are judged as new ones: the item does not hang."""
    store = lay(topics(), 1, ana=["law"], ben=["law"])
    judge(store)
    reject(store, "i0", "ben", "sure?")
    store.record([Event("sure", "i0", "submit", "ben", "ben")])
    assert judge(store) == Judged(final=1)


def test_what_cannot_be_rejected(lay: Callable[..., Store]) -> None:
    """No reason, nobody's answer, no such item."""
    store = lay(topics(), 1, ana=["law"])
    with pytest.raises(SpecificationError, match="say why"):
        reject(store, "i0", "ana", " ")
    with pytest.raises(SpecificationError, match=r"kim has no answer to reject \(answers: ana\)"):
        reject(store, "i0", "kim", "no")
    with pytest.raises(LookupError, match="No item 'i9'"):
        reject(store, "i9", "ana", "no")


def test_settle(lay: Callable[..., Store]) -> None:
    """A reviewer decides a dispute; his answer is final, both people's stay as they were, and all of it is in the history."""
    store = lay(topics(), 1, ana=["law"], ben=["money"])
    judge(store)
    settle(store, "i0", label("sport"), "neither")
    assert (store.item("i0").state, final(store, "i0"), store.answer("i0", "").by) == ("final", ["sport"], "eva")
    assert [one["label"] for name in ("ana", "ben") for one in store.answer("i0", name).annotations] == ["law", "money"]
    assert [(event.kind, event.by) for event in store.events("i0", "")] == [
        ("dispute", CONSENSUS), ("adopt", "eva"), ("comment", "eva"), ("submit", "eva")]
    settle(store, "i0", label("law"))  # he was wrong himself
    assert final(store, "i0") == ["law"]
    assert [entry.details for entry in entries(store.settings, action="settle_label")] == [
        {"reason": "neither", "was": "disputed"}, {"reason": "", "was": "final"}]


def test_an_incomplete_decision_leaves_nothing_behind(lay: Callable[..., Store]) -> None:
    """No class, or one that is none: refused, and no event is kept of it."""
    store = lay(topics(), 1, ana=["law"], ben=["money"])
    judge(store)
    before = list(store.events())
    for wrong, message in (([], "choose a class"), (label("cats"), "no 'cats'"), ([{"id": "x", "kind": "circle"}], "circle")):
        with pytest.raises(SpecificationError, match=message):
            settle(store, "i0", wrong)
    assert list(store.events()) == before
    assert entries(store.settings, action="settle_label") == []
    with pytest.raises(SpecificationError, match="is open"):
        settle(lay(topics(name="other"), 1, ana=["law"]), "i0", label("law"))


def test_nobody_reviews_his_own_answer(lay: Callable[..., Store]) -> None:
    """Kim labels and reviews, but not the same item; Ana is no reviewer at all."""
    store = lay(topics(), 2, ana=["law", "law"], kim=["money"], ben=["law", "money"][:0])
    answer(store, "i1", "ben", label("money"))
    judge(store)
    with open_store(as_user(store.settings, "kim"), "topics") as kims:
        with pytest.raises(SpecificationError, match="kim has answered i0, and cannot review it"):
            settle(kims, "i0", label("money"))
        settle(kims, "i1", label("money"))
    refused = pytest.raises(SpecificationError, match="ben is none of the reviewers")
    with open_store(as_user(store.settings, "ben"), "topics") as bens, refused:
        settle(bens, "i0", label("money"))
    assert states(store) == {"i0": "disputed", "i1": "final"}


# --- what is told ---------------------------------------------------------------------------------------------------------------


def test_disagreements_the_worst_first(project: Settings) -> None:
    """Boxes: one pair differs in all, one in half; agreed ones are not listed."""
    what = LabelProject(name="hands", task="image_object_detection", classes=["hand"], overlap=2)

    def boxes(*places: int) -> Annotations:
        return [{"id": f"b{x}", "kind": "box", "label": "hand", "x": x, "y": 0, "width": 10, "height": 10} for x in places]

    with create(as_user(project, "eva"), what) as store:
        store.add(LabelItem(f"i{n}", {"image": f"{n}.png", "width": 100, "height": 20}) for n in range(4))
        for n, (ana, ben) in enumerate([((0,), (0,)), ((0, 20), (0, 40)), ((0,), (50,)), ((), ())]):
            answer(store, f"i{n}", "ana", boxes(*ana))
            answer(store, f"i{n}", "ben", boxes(*ben))
        assert judge(store) == Judged(final=2, disputed=2)
        assert [(one.item, one.agreement, len(one.answers["ben"])) for one in disagreements(store)] == [("i2", 0.0, 1), ("i1", 0.5, 2)]
        assert disagreements(store, state="final") == []
        settle(store, "i1", boxes(0, 20))
        assert [(one.item, one.state) for one in disagreements(store, state="")] == [("i2", "disputed"), ("i1", "final")]
        assert confusion(store).to_dict() == {"hand": {"hand": 3 + 2, "(nothing)": 1}, "(nothing)": {"hand": 1, "(nothing)": 0}}


def test_what_one_could_answer_and_another_could_not(lay: Callable[..., Store]) -> None:
    """Skipped by one of two who are all there are: a dispute, that names who skipped."""
    store = lay(topics(annotators=["ana", "ben"]), 1, ana=["law"])
    store.record([Event("skip", "i0", "skip", "ben", "ben", {"reason": "no idea"})])
    judge(store)
    assert [(one.item, one.reason) for one in disagreements(store)] == [("i0", "skipped by ben")]
    assert judge(store, again=True) == Judged()
    assert report(store).skips.to_dict() == {"ana": 0, "ben": 1}


def test_confusion(lay: Callable[..., Store]) -> None:
    """Rows: what it is; columns: what people said. Or each against the others."""
    store = lay(topics(), 3, ana=["law", "law", "sport"], ben=["law", "money", "sport"])
    judge(store)
    settle(store, "i1", label("law"))
    found = confusion(store)
    assert list(found.index) == list(found.columns) == ["sport", "money", "law"]
    assert found.to_numpy().tolist() == [[2, 0, 0], [0, 0, 0], [0, 1, 3]]
    assert confusion(store, whose="ben").loc["law"].to_dict() == {"sport": 0, "money": 1, "law": 1}
    others = confusion(store, against="others")
    assert (others.loc["law", "money"], others.loc["money", "law"], others.loc["sport", "sport"]) == (1, 1, 2)
    with pytest.raises(SpecificationError, match="final or others"):
        confusion(store, against="gold")


def test_confusion_needs_classes(project: Settings) -> None:
    """Texts have none."""
    what = LabelProject(name="texts", task="text_generation", fields=[{"name": "german"}])
    with create(as_user(project, "eva"), what) as store, pytest.raises(SpecificationError, match="text_generation has no classes"):
        confusion(store)


def test_report(lay: Callable[..., Store]) -> None:
    """How much, how fast, how well: with others, with what is final, on gold items; and what was left of a model's proposals."""
    store = lay(topics(gold={"every": 2}), 5)
    store.set_gold({"i4": label("law")})
    proposal = [label("law")[0] | {"source": "model:dev.topics/1", "score": 0.9}]
    for n, (ana, ben) in enumerate([("law", "law"), ("law", "money"), ("sport", "sport")]):
        answer(store, f"i{n}", "ana", label(ana), seconds=n + 1)
        answer(store, f"i{n}", "ben", proposal if ben == "law" else label(ben), seconds=9, start=proposal)
    answer(store, "i4", "ana", label("law"))
    answer(store, "i4", "ben", label("sport"))
    store.record([Event("skip", "i3", "skip", "ben", "ben")])
    judge(store)
    settle(store, "i1", label("law"))
    found = report(store)
    assert found.loc["ana"].to_dict() == pytest.approx({
        "answers": 3, "skips": 0, "seconds": 2.0, "agreement_with_others": 0.6667, "compared": 3,
        "agreement_with_final": 1.0, "finals": 3, "gold_accuracy": 1.0, "golds": 1, "rejected": 0,
        "annotations": 3, "proposed": 0, "unchanged": 0})
    ben = found.loc["ben"].to_dict()
    assert (ben["seconds"], ben["agreement_with_final"], ben["gold_accuracy"], ben["skips"]) == (9.0, 0.6667, 0.0, 1)
    assert (ben["annotations"], ben["proposed"], ben["unchanged"]) == (3, 3, 1)


def test_report_where_there_is_nothing_to_compare(lay: Callable[..., Store]) -> None:
    """One person's own answers, made final, say nothing about how good they are: no number, and none compared."""
    store = lay(topics(overlap=1), 1, ana=["law"])
    judge(store)
    ana = report(store).loc["ana"]
    assert (ana["compared"], ana["finals"], ana["golds"]) == (0, 0, 0)
    assert ana[["agreement_with_others", "agreement_with_final", "gold_accuracy"]].isna().all()
    assert report(lay(topics(name="empty"), 1)).empty
    settle(store, "i0", label("sport"))  # a reviewer's word does
    assert report(store).loc["ana", "agreement_with_final"] == 0.0
