"""Items are handed out for a time: to nobody beyond the overlap, to nobody twice, and none is lost."""

import json
import subprocess
import sys
from collections import Counter
from itertools import count

import pytest

from mlops_nb.core.records import SpecificationError
from mlops_nb.core.settings import load_settings
from mlops_nb.inner_loop.answers import Event
from mlops_nb.inner_loop.labeling import LabelProject
from mlops_nb.inner_loop.leases import give_back, gold_accuracy, hand_out, renew, why_nothing
from mlops_nb.inner_loop.store import LabelItem, create, open_store

_ids = count()


def photo(id, **more):
    return LabelItem(id, {"image": f"{id}.jpg", "width": 100, "height": 80}, **more)


def class_(label):
    return {"id": f"class:{label}", "kind": "class", "label": label}


def did(by, item, kind, whose=None, **data):
    return Event(f"e{next(_ids)}", item, kind, by, by if whose is None else whose, data)


def do(store, *events):
    told = store.record(events)
    assert not any(told.values()), told


def answer(store, by, item, label="1"):
    do(store, did(by, item, "adopt", annotations=[class_(label)]), did(by, item, "submit"))


def handed(store, by, number=1, role="label"):
    return [item.id for item in hand_out(store, by, number, role)]


@pytest.fixture
def opened(project):
    """Open a project of so many items: `opened(4, overlap=2)`."""
    stores = []

    def make(items, **fields):
        store = create(project, LabelProject(name="signs", task="image_classification", classes=["0", "1"], **fields))
        store.add(photo(f"i{n}") for n in range(items))
        stores.append(store)
        return store

    yield make
    for store in stores:
        store.close()


def test_items_come_by_rank_and_whoever_asks_again_gets_the_same(opened):
    store = opened(4)
    store.set_ranks({"i3": -1.0})
    assert handed(store, "ana", 2) == handed(store, "ana", 2) == ["i3", "i0"]
    assert handed(store, "ana", 3) == ["i3", "i0", "i1"]
    assert handed(store, "ana") == ["i3"]


def test_no_more_people_than_the_overlap_have_an_item(opened):
    store = opened(2, overlap=2)
    assert [handed(store, by, 2) for by in ("ana", "ben", "cleo")] == [["i0", "i1"], ["i0", "i1"], []]
    answer(store, "ana", "i0")
    assert handed(store, "cleo", 2) == []  # one answer, and ben has it in hand
    give_back(store, "ben", "i0")
    assert handed(store, "cleo", 2) == ["i0"]
    assert handed(store, "ana", 2) == ["i1"]  # never again what one has answered


class Clock:
    """The time that leases are counted by; it stands still until a test moves it on."""

    now = 0.0

    def time(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    for module in ("leases", "recording"):
        monkeypatch.setattr(f"mlops_nb.inner_loop.{module}.time", clock)
    return clock


def test_a_lease_that_is_over_returns_and_a_renewed_one_does_not(opened, clock):
    store = opened(2, lease="PT60S")
    assert handed(store, "ana", 2) == ["i0", "i1"]
    for _ in range(3):
        clock.now += 59
        assert renew(store, "ana") == 2
        assert handed(store, "ben", 2) == []
    clock.now += 60
    assert renew(store, "ana") == 0
    assert handed(store, "ben", 2) == ["i0", "i1"]
    assert handed(store, "ana", 2) == []


def test_working_on_an_item_renews_its_lease(opened, clock):
    store = opened(1, lease="PT60S")
    handed(store, "ana")
    for _ in range(3):
        clock.now += 59
        do(store, did("ana", "i0", "comment", text="hm"))
        assert handed(store, "ben") == []
    clock.now += 60
    assert handed(store, "ben") == ["i0"]
    answer(store, "ana", "i0")  # late, and still taken: work is not thrown away
    assert store.item("i0").state == "labeled"
    assert handed(store, "ben") == []


def test_giving_back_returns_at_once(opened):
    store = opened(3)
    assert handed(store, "ana", 3) == ["i0", "i1", "i2"]
    assert give_back(store, "ana", "i1") == 1
    assert handed(store, "ben", 3) == ["i1"]
    assert give_back(store, "ana") == 2
    assert give_back(store, "ana") == 0


def test_a_rejected_answer_returns_to_whoever_gave_it(opened):
    store = opened(2, overlap=1)
    answer(store, "ana", "i0")
    assert handed(store, "ben", 2) == ["i1"]
    do(store, did("rita", "i0", "reject", whose="ana", reason="look again"))
    assert handed(store, "ben", 2) == ["i1"]
    assert handed(store, "ana", 2) == ["i0"]


def test_items_that_return_are_met_by_those_who_went_past_them(opened):
    store = opened(4, overlap=2)
    for item in ("i0", "i1"):
        answer(store, "ana", item)
        answer(store, "ben", item)
    assert handed(store, "cleo") == ["i2"]
    do(store, did("rita", "i0", "reject", whose="ben", reason="?"))
    give_back(store, "ben")
    assert handed(store, "cleo", 2) == ["i2", "i0"]  # what she has in hand comes first
    store.set_state("i1", "open")
    assert handed(store, "dan", 2) == ["i2", "i3"]  # i0: ana and cleo; i1: both have answered
    store.add([photo("new", rank=-5)])
    assert handed(store, "eve") == ["new"]


# --- review ------------------------------------------------------------------------------------------------------------


def test_reviewers_get_disputes_first_one_each_and_never_their_own(opened):
    store = opened(4, reviewers=["rita", "ben"], annotators=["ana", "ben"])
    for item, state in {"i0": "review", "i1": "disputed", "i2": "disputed", "i3": "final"}.items():
        answer(store, "ben" if item == "i2" else "ana", item)
        store.set_state(item, state)
    assert handed(store, "ben", 9, "review") == ["i1", "i0"]
    assert handed(store, "rita", 9, "review") == ["i2"]
    do(store, did("ben", "i1", "adopt", whose="", annotations=[class_("0")]), did("ben", "i1", "submit", whose=""))
    assert handed(store, "ben", 9, "review") == ["i0"]
    assert "2 wait for other reviewers, 2 are final" in why_nothing(store, "ana", "review")


# --- known answers -----------------------------------------------------------------------------------------------------


def golden(opened, **gold):
    store = opened(24, gold=gold)
    store.set_gold({f"i{n}": [class_("1")] for n in range(12, 18)})
    return store


def meets(store, by, items):
    """Answer so many items, and say in which places known answers were among them."""
    places = []
    for n in range(items):
        [item] = hand_out(store, by)
        places += [n] * (item.gold is not None)
        answer(store, by, item.id)
    return places


def test_known_answers_come_in_each_group_at_a_place_of_chance(opened):
    store = golden(opened, every=4)
    met = meets(store, "ana", 16)
    assert [place // 4 for place in met] == [0, 1, 2, 3]
    assert {place % 4 for place in met} != {0}
    assert meets(store, "ana", 8)  # all the others are answered, too
    assert sum(store.progress()[state] for state in ("labeled", "open")) == 18


def test_a_restart_does_not_change_what_comes(opened):
    store = golden(opened, every=3)
    first = handed(store, "ana", 9)
    give_back(store, "ana")
    with open_store(store.settings, "signs") as again:
        assert handed(again, "ana", 9) == first


def test_everybody_meets_known_answers_whatever_the_overlap(opened):
    store = golden(opened, every=2)
    met = [{item.id for item in hand_out(store, by, 6) if item.gold is not None} for by in ("ana", "ben", "cleo")]
    assert all(met)


def test_nobody_gets_more_who_knows_too_few_of_the_answers(opened):
    store = golden(opened, every=1, least=0.7)
    for number, label in enumerate("100"):
        assert handed(store, "ana") != []
        answer(store, "ana", handed(store, "ana")[0], label)
        assert gold_accuracy(store, "ana")[1] == number + 1
    with pytest.raises(PermissionError) as refused:
        hand_out(store, "ana")
    assert "ana agrees with 33% of the 3 known answers, signs asks for 70%" in str(refused.value)
    assert "lower gold.least in its file" in str(refused.value)
    wrong = next(one.item for one in store.answers(whose="ana") if one.annotations[0]["label"] == "0")
    do(store, did("ana", wrong, "reopen"))
    answer(store, "ana", wrong, "1")  # what is put right counts at once
    assert gold_accuracy(store, "ana") == (pytest.approx(2 / 3), 3)
    store.set_gold({wrong: None})
    assert gold_accuracy(store, "ana")[1] == 2
    assert handed(store, "ana") != []


# --- what is refused, and why nothing comes ----------------------------------------------------------------------------


def test_only_those_who_may_are_handed_something(opened):
    store = opened(1, annotators=["ana"], reviewers=["rita"])
    with pytest.raises(PermissionError, match=r"ben is none of the annotators of signs \(ana\)"):
        hand_out(store, "ben")
    with pytest.raises(PermissionError, match="ana is none of the reviewers"):
        hand_out(store, "ana", role="review")
    with open_store(load_settings(persona="data_analyst", user="ben"), "signs") as other:
        for act in (hand_out, give_back, renew):
            with pytest.raises(PermissionError, match="ben cannot act for ana"):
                act(other, "ana")
    for role, number in (("admire", 1), ("label", 0)):
        with pytest.raises(SpecificationError, match=f"role '{role}', count {number}"):
            hand_out(store, "ana", number, role)


def test_why_nothing_comes_is_told(opened):
    store = opened(0)
    assert "signs has no items. `mlops-nb label add signs`" in why_nothing(store, "ana")
    store.add([photo("i0")])
    hand_out(store, "ana")
    assert handed(store, "ben") == []
    assert "Nothing is left for ben now (1 wait" in why_nothing(store, "ben")
    answer(store, "ana", "i0")
    assert why_nothing(store, "ben") == "All 1 items of signs have their answers."


def test_handing_out_never_goes_through_all_items(opened):
    """Also for somebody who has answered them all but one, every statement finds its rows by an index, and few of them."""
    store = opened(300, overlap=2)
    do(store, *(event for n in range(299) for event in
                (did("ana", f"i{n}", "adopt", annotations=[class_("1")]), did("ana", f"i{n}", "submit"))))  # fmt: skip
    assert handed(store, "ana") == ["i299"]
    give_back(store, "ana")
    ran, steps = [], [0]
    store.database.set_trace_callback(ran.append)

    def count_steps():
        steps[0] += 1

    store.database.set_progress_handler(count_steps, 100)
    assert handed(store, "ana") == ["i299"]
    store.database.set_progress_handler(None, 0)
    store.database.set_trace_callback(None)
    assert steps[0] < 20  # the 299 are not gone past again: that would take some thousand instructions of the database
    selects = [sql for sql in ran if sql.lstrip().startswith("SELECT")]
    plans = [row["detail"] for sql in selects for row in store.database.execute(f"EXPLAIN QUERY PLAN {sql}")]
    assert [plan for plan in plans if plan.startswith("SCAN")] in ([], ["SCAN projects"])


# --- many at once ------------------------------------------------------------------------------------------------------

WORKER = """
import json, sys, time
from mlops_nb.core.settings import load_settings
from mlops_nb.inner_loop.answers import Event
from mlops_nb.inner_loop.leases import hand_out
from mlops_nb.inner_loop.store import open_store

me = sys.argv[1]
beyond = '''SELECT count(*) FROM items i WHERE i.id = ? AND i.submitted + (SELECT count(*) FROM leases l
    WHERE l.item = i.id AND l.role = 'label') > ?'''
done = {}
for name in ("once", "twice"):
  done[name] = taken = []
  with open_store(load_settings(user=me), name) as store:
    hand_out(store, me, 8)
    print("ready", flush=True)
    sys.stdin.readline()
    while store.progress()["open"]:
        items = hand_out(store, me, 8)
        taken += [item.id for item in items]
        if any(store.database.execute(beyond, (item.id, store.project.overlap)).fetchone()[0] for item in items):
            print("beyond the overlap", flush=True)
        events = []
        for item in items:
            one = {"id": "class:1", "kind": "class", "label": "1"}
            events += [Event(f"{me}-{item.id}-draw", item.id, "draw", me, me, {"annotation": one}),
                       Event(f"{me}-{item.id}-submit", item.id, "submit", me, me)]
        told = [reason for reason in store.record(events).values() if reason]
        if told:
            print(told, flush=True)
        if not items:
            time.sleep(0.02)
print(json.dumps(done), flush=True)
"""


@pytest.mark.slow
def test_four_processes_label_two_thousand_items_none_twice_and_none_lost(project):
    """First every item by one person, then, in another project, every item by two."""
    overlaps = {"once": 1, "twice": 2}
    for name, overlap in overlaps.items():
        with create(project, LabelProject(name=name, task="image_classification", classes=["0", "1"], overlap=overlap)) as store:
            store.add(photo(f"i{n}") for n in range(2000))
    workers = [subprocess.Popen([sys.executable, "-c", WORKER, f"p{n}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
               for n in range(4)]  # fmt: skip
    for _ in overlaps:  # each has its first items before any goes on
        assert [worker.stdout.readline() for worker in workers] == ["ready\n"] * 4
        for worker in workers:
            worker.stdin.write("go\n")
            worker.stdin.flush()
    said = [worker.communicate(timeout=600)[0].splitlines() for worker in workers]
    assert [len(lines) for lines in said] == [1] * 4, said  # nothing was refused, nothing handed out beyond the overlap
    for name, overlap in overlaps.items():
        taken = [json.loads(line)[name] for [line] in said]
        assert all(taken), "each had a part"
        assert all(len(mine) == len(set(mine)) for mine in taken)
        assert Counter(item for mine in taken for item in mine) == {f"i{n}": overlap for n in range(2000)}
        with open_store(project, name) as store:
            told = store.progress()
            assert (told["labeled"], told["answers"]) == (2000, 2000 * overlap)
            assert told["people"] == {f"p{n}": len(mine) for n, mine in enumerate(taken)}
            assert store.database.execute("SELECT count(*) FROM events").fetchone()[0] == 4000 * overlap
            assert store.replay() == []
