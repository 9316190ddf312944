"""The process that waits: every reason leads to one run, whatever dies meanwhile; nothing starts itself for ever."""

import datetime as dt
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from mlops_nb.core.ledger import entries, log, verify
from mlops_nb.core.runs import list_runs
from mlops_nb.core.schedule import find_schedules, load_state, take_up
from mlops_nb.core.settings import Settings

pytestmark = pytest.mark.slow


def ran(project: Settings) -> list[str]:
    path = project.root / "ran.txt"
    return path.read_text().split() if path.exists() else []


def follow_since(project: Settings, days: int) -> None:
    """Make the schedules ones that were taken up so many days ago, and never looked at since."""
    for schedule in find_schedules(project):
        take_up(project, schedule, dt.datetime.now(dt.UTC) - dt.timedelta(days=days))


def wait_for(found, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_nights_missed_are_one_run_even_for_two_schedulers(shop, lay, start, mlops_nb_command):
    lay()
    follow_since(shop, days=3)
    both = [start("nightly"), start("nightly")]
    wait_for(lambda: load_state(shop, "nightly").last)
    for scheduler in both:
        scheduler.until("next: ")
    time.sleep(1.5)  # time enough for another look
    assert [scheduler.stop() for scheduler in both] == [0, 0]
    assert ran(shop) == ["data", "train"]
    [run] = list_runs(shop)
    [entry] = entries(shop, "schedule:dev.nightly")
    assert (entry.action, entry.outputs, entry.details["state"]) == ("schedule", [f"run:{run.id}"], "done")

    shown = mlops_nb_command("schedule", "list").stdout
    assert "done" in shown
    assert run.id in shown


def test_a_scheduler_killed_or_stopped_midway_leaves_nothing_running_and_the_next_one_goes_on(shop, lay, start):
    lay()
    (shop.root / "wait").touch()
    follow_since(shop, days=1)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    first = start()  # in the background of a shell, which lets it ignore Ctrl-C
    signal.signal(signal.SIGINT, before)
    wait_for(lambda: ran(shop) == ["data", "train"])
    family = psutil.Process(first.process.pid).children(recursive=True)
    first.stop(signal.SIGKILL)
    gone, alive = psutil.wait_procs(family, 60)
    assert gone
    assert not alive
    assert load_state(shop, "nightly").claim

    second = start()
    second.until("goes on: due")
    wait_for(lambda: ran(shop) == ["data", "train", "train"])
    assert second.stop(signal.SIGINT) == 130
    assert "stopped; goes on when the scheduler does" in second.output.read_text()

    (shop.root / "wait").unlink()
    third = start()
    third.until("done after")
    assert third.stop(signal.SIGTERM) == 0
    assert ran(shop) == ["data", "train", "train", "train"]
    assert [run.state for run in list_runs(shop)] == ["done"]
    assert load_state(shop, "nightly").claim is None
    assert verify(shop) == []


def test_events_start_it_whatever_failed_before_but_not_its_own(shop, lay, start):
    lay(on="register model:dev.shop/*")
    (shop.root / "tell").write_text("register model:dev.shop/9")
    (shop.root / "wait").touch()
    scheduler = start()
    scheduler.until("next: on an event")
    wait_for(lambda: load_state(shop, "nightly").since)
    log(shop, "register", "model:dev.other/1")
    log(shop, "register", "model:dev.shop/1")
    wait_for(lambda: ran(shop) == ["data", "train"])
    for version in (2, 3):  # while it is at work: one run more
        log(shop, "register", f"model:dev.shop/{version}")
    (shop.root / "fail").touch()
    (shop.root / "wait").unlink()
    said = scheduler.until("the whole output")
    assert "starts: register model:dev.shop/1" in said
    assert "failed after" in said
    assert "no such luck" in Path(said.split("the whole output: ")[1].split("\n")[0]).read_text()

    scheduler.until("done after")
    time.sleep(1.5)  # time enough for another look
    scheduler.stop()
    assert ran(shop) == ["data", "train", "data", "train"]
    runs = entries(shop, action="schedule")
    assert [(e.inputs, e.details["state"]) for e in runs] == [
        (["model:dev.shop/1"], "failed"), (["model:dev.shop/2", "model:dev.shop/3"], "done")]
    assert [e.subject for e in entries(shop, action="notify")] == ["schedule:dev.nightly"]
    assert [e.subject for e in entries(shop, action="register")][-1] == "model:dev.shop/9"


def test_a_person_runs_it_now_and_switches_it_off(shop, lay, mlops_nb_command):
    lay()
    follow_since(shop, days=1)
    (shop.root / "fail").touch()
    failed = mlops_nb_command("schedule", "run", "nightly", "--by", "ada")
    assert failed.rc == 4
    assert "no such luck" in failed.stderr
    assert [(e.user, e.details["state"]) for e in entries(shop, action="schedule")] == [("ada", "failed")]

    assert mlops_nb_command("schedule", "disable", "nightly").rc == 0
    assert " off " in mlops_nb_command("schedule", "list").stdout
    assert "next: 2" in mlops_nb_command("schedule", "enable", "nightly").stdout
    assert len(mlops_nb_command("schedule", "next", "nightly", "-n", "3").stdout.splitlines()) == 3
    unknown = mlops_nb_command("schedule", "run", "weekly")
    assert unknown.rc == 2
    assert "schedules: diamonds_dev, nightly" in unknown.stderr


def test_a_file_changed_is_read_again_and_a_wrong_one_leaves_things_as_they_were(shop, lay, start):
    path = lay()
    scheduler = start("nightly")
    scheduler.until("02:00 UTC")
    path.write_text(path.read_text().replace("0 2 * * *", "0 25 * * *"))
    assert f"{path}:3: expression: hours '25'" in scheduler.until("is not between")
    path.write_text(path.read_text().replace("0 25 * * *", "15 4 * * *"))
    scheduler.until("04:15 UTC")
    assert scheduler.stop() == 0


def test_wrong_files_are_told_before_anything_starts(shop, lay, mlops_nb_command):
    lay().write_text("name: nightly\ntrigger: {type: cron, expression: '* * *'}\ncreate_job: nowhere.yml\n")
    wrong = mlops_nb_command("schedule", "start")
    assert wrong.rc == 2
    assert len(wrong.stderr.splitlines()) == 2
    assert not (shop.state / "schedules").exists()
    assert os.listdir(shop.root / "environments" / "dev" / "schedules") == ["nightly.yml"]
