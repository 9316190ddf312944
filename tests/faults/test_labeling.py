"""A labeling process is killed at any moment: what it said was saved is there, nothing is there twice, and nothing is half done."""

import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter

import pytest

from mlops_nb.inner_loop.answers import fold
from mlops_nb.inner_loop.labeling import LabelProject
from mlops_nb.inner_loop.leases import hand_out
from mlops_nb.inner_loop.store import LabelItem, create, open_store

# One person's session: it says what was saved only after `record` has returned, as the page does.
# It goes on to the next item when it is told to. Started again, it sends everything again.
SESSION = """
import sys
from mlops_nb.core.settings import load_settings
from mlops_nb.inner_loop.answers import Event
from mlops_nb.inner_loop.leases import hand_out
from mlops_nb.inner_loop.store import open_store

def story(n):
    for k in range(6):
        box = {"id": f"b{k % 3}", "kind": "box", "label": "hand", "x": k + n % 50, "y": 1, "width": 9, "height": 9}
        yield Event(f"{n}-{k}", f"i{n}", "draw", "ana", "ana", {"annotation": box}, seconds=1.0)
    yield Event(f"{n}-undo", f"i{n}", "undo", "ana", "ana")
    yield Event(f"{n}-submit", f"i{n}", "submit", "ana", "ana")

with open_store(load_settings(user="ana"), "boxes") as store:
    for n in range(int(sys.argv[1])):
        sys.stdin.readline()
        hand_out(store, "ana", 3)
        for event in story(n):
            told = store.record([event])
            print(event.id, told[event.id] or "saved", sep="|", flush=True)
print("end|", flush=True)
"""
ITEMS = 40


@pytest.mark.slow
def test_kills_in_the_middle_of_recording_lose_nothing_and_store_nothing_twice(project, request):
    chance = random.Random(7)
    with create(project, LabelProject(name="boxes", task="image_object_detection", classes=["hand"])) as store:
        store.add(LabelItem(f"i{n}", {"image": f"{n}.jpg", "width": 100, "height": 80}) for n in range(ITEMS))
        path = store.path
    saved, kills = set(), request.config.getoption("--kills")
    command = [sys.executable, "-c", SESSION, str(ITEMS)]
    for turn in range(kills + 1):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        process.stdin.write("\n" * (ITEMS - (turn < kills)))  # the kill is never too late
        process.stdin.flush()
        lines = [process.stdout.readline()]  # it is under way
        if turn < kills:
            time.sleep(chance.uniform(0, 0.15))
            process.send_signal(signal.SIGKILL)
        lines += process.stdout.read().splitlines()
        process.wait()
        process.stdin.close()
        told = [line.strip().split("|") for line in lines if line.strip().endswith("saved")]
        saved |= {id for id, _ in told}
        assert saved
        with open_store(project, "boxes", check=True) as store:  # as the kill left it
            there = Counter(event.id for event in store.events())
            assert saved <= set(there), "what was shown as saved is there"
            assert set(there.values()) == {1}, "nothing is there twice"
            assert store.replay() == []
            for answer in store.answers():
                assert answer == fold(answer.item, answer.whose, store.events(answer.item, answer.whose))
    assert lines[-1] == "end|"
    with open_store(project, "boxes") as store:
        assert store.progress()["labeled"] == ITEMS
        assert len(saved) == ITEMS * 8
        assert store.answer("i3", "ana").seconds == 6.0  # time is counted once, too
        assert store.answer("i3", "ana").undos == 5
        assert hand_out(store, "ana") == []
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


CREATE = """
from mlops_nb.core.settings import load_settings
from mlops_nb.inner_loop.labeling import LabelProject
from mlops_nb.inner_loop.store import LabelItem, create
print("go", flush=True)
with create(load_settings(), LabelProject(name="many", task="text_classification", classes=["a"])) as store:
    store.add(LabelItem(f"i{n}", {"text": "x" * 200}) for n in range(20_000))
    print("end", flush=True)
"""


@pytest.mark.slow
def test_kills_in_the_middle_of_creating_and_adding_are_made_good_by_doing_it_again(project):
    chance = random.Random(3)
    for turn in range(4):
        process = subprocess.Popen([sys.executable, "-c", CREATE], stdout=subprocess.PIPE, text=True)
        process.stdout.readline()
        if turn < 3:
            time.sleep(chance.uniform(0, 0.3))
            process.send_signal(signal.SIGKILL)
        said = process.stdout.read()
        process.wait()
    assert said == "end\n"
    with open_store(project, "many", check=True) as store:
        assert store.progress()["items"] == 20_000
        assert store.database.execute("SELECT count(*) FROM contents").fetchone()[0] == 20_000
        assert store.database.execute("SELECT max(version) FROM projects").fetchone()[0] == 1
        assert store.replay() == []
