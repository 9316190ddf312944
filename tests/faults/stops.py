"""A bad machine: run a command, and let its processes stand still at random, one, some or all of them, for up to 1.5 seconds.

A test whose verdict hangs on the clock fails sooner or later under it; so does a program that takes whoever stands still for dead.
`ci/stops tests/serving` runs tests so. Daemons are stopped, too: a process belongs to the command when it has inherited its mark.
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import psutil

MARK = "BAD_MACHINE"
APART = (0.2, 2.0)  # seconds between two stops
LONG = (0.05, 0.2, 0.5, 1.0, 1.5)  # seconds that a stop takes


def run(command: list[str]) -> int:  # its exit code
    """Run a command to its end among stops."""
    ended, mark = threading.Event(), f"{os.getpid()}-{time.time()}"
    child = subprocess.Popen(command, env=os.environ | {MARK: mark})
    storm = threading.Thread(target=_storm, args=(mark, ended))
    storm.start()
    try:
        return child.wait()
    finally:
        ended.set()
        storm.join()


def _storm(mark: str, ended: threading.Event) -> None:
    chance = random.Random()
    while not ended.wait(chance.uniform(*APART)):
        there = list(_ours(mark))
        chosen = there if chance.random() < 0.2 else chance.sample(there, min(len(there), chance.randint(1, 3)))
        stopped = [one for one in chosen if _send(one, signal.SIGSTOP)]
        time.sleep(chance.choice(LONG))
        for one in stopped:
            _send(one, signal.SIGCONT)


def _ours(mark: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except psutil.Error:  # it has ended, or is somebody else's
            pass


def _send(process: psutil.Process, what: signal.Signals) -> bool:
    try:
        process.send_signal(what)
    except psutil.Error:
        return False
    return True


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
