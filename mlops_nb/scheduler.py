"""The process that waits for schedules, and the processes it starts for them.

A run has a process of its own, so that a crash there ends nothing here. It alone holds the schedule's lock, decides again
whether there is a reason to run, writes down its claim before and how it ended after; two schedulers on one state folder
therefore never run the same time twice. Besides, it sees to what monitors have left to be done: notices that are due, and actions
whose process is no more. When the scheduler ends, however it does, a pipe closes, and the run stops where it can
go on; the claim that it leaves behind is taken up by the next scheduler.
"""

import datetime as dt
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mlops_nb.core.ledger import Entry, entries, log
from mlops_nb.core.records import SpecificationError
from mlops_nb.core.schedule import (
    Claim,
    End,
    Schedule,
    find_schedules,
    hold_schedule,
    load_state,
    outlook,
    read_schedule,
    save_state,
    state_folder,
    take_up,
    why_now,
)
from mlops_nb.core.settings import Settings, load_settings
from mlops_nb.outer_loop.actions import is_something_left
from mlops_nb.outer_loop.history import history_file

ATTEMPTS = 3  # at a run that is killed again and again
PAUSE = 60  # seconds before a run's process is tried again that could not even begin
LOGS = 30  # outputs that are kept of each schedule
ROUND = 60  # seconds between two looks at what monitors have left to be done
_STATES = {0: "done", 2: "refused", 3: "waiting", 4: "failed", 5: "timed out", 130: "stopped"}


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


# --- one run -----------------------------------------------------------------------------------------------------------


def run_once(
    settings: Settings,
    schedule: Schedule,
    asked: bool = False,  # by a person: whether it is due or not
    output: str = "",  # the file that this process writes its output to, if no person sees it
) -> End | None:  # how it ended; None: there was no reason to run
    """Run a schedule in this process if there is a reason to; raises `BlockingIOError` where another process is at work on it."""
    with hold_schedule(settings, schedule.name):
        state, ledger, at = load_state(settings, schedule.name), entries(settings), _now()
        claim = why_now(settings, schedule, state, at, ledger)
        if asked:
            fresh = Claim(f"asked for by {settings.user}", (), (schedule.name,), ledger[-1].seq if ledger else 0, at.isoformat())
            claim = state.claim.again() if state.claim else fresh
        if not claim:
            return None
        if not asked and not state.claim:
            state = replace(state, until=claim.at, seq=claim.seq)
        save_state(settings, schedule.name, replace(state, claim=claim))
        code = _command(settings, schedule, claim, ledger)
        if code == 130:  # stopped: the claim stands, and the run goes on next time
            save_state(settings, schedule.name, replace(state, claim=replace(claim, attempts=claim.attempts - 1)))
            raise KeyboardInterrupt
        end = _end(settings, schedule, claim, code, output)
        save_state(settings, schedule.name, replace(state, claim=None, last=end))
    return end


def _command(settings: Settings, schedule: Schedule, claim: Claim, ledger: list[Entry]) -> int:
    """Run the command that a schedule stands for, in this process; returns its exit code."""
    import traceback

    from mlops_nb.cli import main

    told = json.loads(os.environ.get("MLFLOW_RUN_CONTEXT") or "{}") | {"mlops_nb.schedule": ",".join(claim.causes)}
    os.environ["MLFLOW_RUN_CONTEXT"] = json.dumps(told)  # for the ledger, and a tag of every MLflow run
    if claim.attempts > ATTEMPTS:
        print(f"killed {ATTEMPTS} times; given up", file=sys.stderr)
        return 4
    try:
        main(_words(settings, schedule, claim, goes_on=_run_of(schedule, claim, ledger) != ""))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except Exception:
        traceback.print_exc()
    return 1


def _words(settings: Settings, schedule: Schedule, claim: Claim, goes_on: bool) -> list[str]:
    """Write the command line of a schedule's run."""
    who = ["--env", settings.environment, "--state", str(settings.state), "--by", settings.user, "--as", settings.persona]
    if schedule.endpoint:
        return ["monitor", "once", schedule.endpoint, "--file", str(schedule.path.resolve()), "--at", claim.due or claim.at, *who]
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in schedule.values.items() if v is not None}
    given = [word for name, text in texts.items() for word in ("-p", f"{name}={text}")]
    return ["run", schedule.scenario, *([] if goes_on else ["--new"]), *given, *who]


def _run_of(schedule: Schedule, claim: Claim, ledger: list[Entry]) -> str:
    """Find the address of the run that a claim has led to; empty if it has not come to one."""
    own = [entry for entry in ledger if entry.seq > claim.seq and entry.action == "run"
           and str(entry.details.get("schedule", "")).split(",")[0] == schedule.name]
    return own[-1].subject if own else ""


def _end(settings: Settings, schedule: Schedule, claim: Claim, code: int, output: str) -> End:
    """Write down how a run ended: in the ledger, and as a notice if it ended badly."""
    from mlops_nb.core.events import notify
    from mlops_nb.core.runs import load_run

    at, run = _now(), _run_of(schedule, claim, entries(settings))
    folder = settings.runs / run.removeprefix("run:")
    state = load_run(folder).state if code == 3 and run and folder.is_dir() else _STATES.get(code, "failed")
    seconds = round((at - dt.datetime.fromisoformat(claim.at)).total_seconds(), 1)
    end = End(claim.why, state, code, run.removeprefix("run:"), at.isoformat(), seconds, output)
    log(settings, "schedule", schedule.uri, claim.inputs, [run] if run else [], **asdict(end))
    if code not in (0, 3):
        body = f"Started: {end.why}." + (f" Its output: {output}" if output else "")
        notify(settings, f"{schedule.name} {state} in {settings.environment}", body, about=schedule.uri)
    return end


# --- a process for it --------------------------------------------------------------------------------------------------


@dataclass
class _Child:
    """A run's process, and where it writes its output."""

    process: subprocess.Popen[bytes]
    output: Path
    before: End | None  # how the run before ended

    def let_go(self) -> None:
        """Close the pipe that the process lives by."""
        if self.process.stdin:
            self.process.stdin.close()

    def stop(self, seconds: float = 30) -> None:
        """Let the run stop where it can go on; after some time, end it."""
        self.let_go()
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _start_child(settings: Settings, schedule: Schedule, before: End | None) -> _Child:
    return _spawn(settings, schedule.name, str(schedule.path.resolve()), before)


def _spawn(settings: Settings, name: str, what: str, before: End | None = None) -> _Child:
    folder = state_folder(settings) / "log" / name
    folder.mkdir(parents=True, exist_ok=True)
    for old in sorted(folder.iterdir())[: 1 - LOGS]:
        old.unlink()
    path = folder / f"{_now():%Y%m%dT%H%M%S%f}.log"
    words = [what, settings.environment, str(settings.state), settings.user, settings.persona, str(path)]
    with path.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", "mlops_nb.scheduler", *words], cwd=settings.root, stdin=subprocess.PIPE,  # noqa: S603
                                   stdout=output, stderr=output, start_new_session=True)
    return _Child(process, path, before)


def _child() -> int:
    """Run a schedule once, if there is a reason to, or do what monitors have left, for as long as the scheduler lives."""
    path, environment, state, user, persona, output = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a scheduler in the background hands on that it is ignored
    pipe, nothing = os.dup(0), os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    threading.Thread(target=_stop_with, args=(pipe,), daemon=True).start()
    settings = load_settings(environment, state=state, user=user, persona=persona)
    try:
        if path == _LEFT:
            _do_what_is_left(settings)
        else:
            run_once(settings, read_schedule(settings, path), output=output)
    except BlockingIOError:  # another scheduler was faster
        return 0
    except SpecificationError as problem:
        print(problem, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


_LEFT = "actions"  # in the place of a schedule's file


def _do_what_is_left(settings: Settings) -> None:
    from mlops_nb.outer_loop.actions import carry_out
    from mlops_nb.terminal import run_scenario

    for action in carry_out(settings, run_scenario):
        print(action.id, action.kind, action.subject, action.state, action.details.get("problem", ""))


def _stop_with(pipe: int) -> None:
    os.read(pipe, 1)  # nothing is ever written to it: it ends with the scheduler
    if os.name == "nt":
        import _thread

        _thread.interrupt_main()
    else:
        os.kill(os.getpid(), signal.SIGINT)


# --- the process that waits --------------------------------------------------------------------------------------------


Say = Callable[[str, str, End | None], None]  # schedule, what happens, how its run ended


@dataclass
class _Waiting:
    """The schedules that are followed, and the runs that are under way."""

    settings: Settings
    names: list[str]
    say: Say
    schedules: list[Schedule] = field(default_factory=list)
    children: dict[str, _Child] = field(default_factory=dict)
    ledger: list[Entry] = field(default_factory=list)
    stamps: dict[str, Any] = field(default_factory=dict)
    pauses: dict[str, float] = field(default_factory=dict)
    monitors: bool = False  # only schedules that are monitors
    chores: threading.Thread | None = None
    left: _Child | None = None  # that carries out actions
    next_round: float = 0.0

    def changed(self, what: str, paths: Iterable[Path]) -> bool:
        """Tell whether files have changed since the last time."""
        stamp = [(path, path.stat().st_mtime_ns, path.stat().st_size) for path in paths if path.exists()]
        before, self.stamps[what] = self.stamps.get(what), stamp
        return stamp != before

    def read(self) -> None:
        """Read the schedule files again if one of them has changed; a wrong one leaves things as they were."""
        folder = self.settings.root / "environments" / self.settings.environment
        if not self.changed("files", [folder, folder / "schedules", *sorted(folder.rglob("*.yml"))]):
            return
        try:
            found = find_schedules(self.settings, self.names)
        except SpecificationError as problem:
            if not self.schedules:
                raise
            for fault in problem.faults:
                self.say("", fault, None)
            return
        found = [schedule for schedule in found if schedule.endpoint or not self.monitors]
        for schedule in found:
            if schedule not in self.schedules:
                self.say(schedule.name, f"next: {outlook(self.settings, schedule, _now())}", None)
        self.schedules = found

    def look(self) -> None:
        """Start what has a reason to run, and tell of what has ended."""
        path = self.settings.ledger
        if self.changed("ledger", (path, path.with_name(f"{path.name}-wal"))):
            self.ledger = entries(self.settings)
        for name in list(self.children):
            self.end(name)
        for schedule in self.schedules:
            name = schedule.name
            if name in self.children or self.pauses.get(name, 0) > time.monotonic():
                continue
            state = load_state(self.settings, name)
            with suppress(BlockingIOError):  # another process is at work on it
                state = state if state.since else take_up(self.settings, schedule, _now())
                if claim := why_now(self.settings, schedule, state, _now(), self.ledger):
                    with hold_schedule(self.settings, name):
                        pass
                    self.say(name, f"{'goes on' if state.claim else 'starts'}: {claim.why}", None)
                    self.children[name] = _start_child(self.settings, schedule, state.last)

    def see_to(self) -> None:
        """Once a minute, deliver notices in a thread, and let a process do what monitors have left to be done."""
        if self.left and self.left.process.poll() is not None:
            self.left.let_go()
            for line in self.left.output.read_text(errors="replace").splitlines():
                self.say("actions", line, None)
            self.left = None
        if time.monotonic() < self.next_round or not history_file(self.settings).exists():
            return
        self.next_round = time.monotonic() + ROUND
        if self.chores is None or not self.chores.is_alive():
            self.chores = threading.Thread(target=self.deliver, daemon=True)
            self.chores.start()
        if self.left is None and is_something_left(self.settings):
            self.left = _spawn(self.settings, "actions", _LEFT)

    def deliver(self) -> None:
        """Send the notices that are due; whatever goes wrong, the schedules go on."""
        from mlops_nb.outer_loop.notices import deliver

        try:
            for notice in deliver(self.settings):
                self.say("notices", f"{notice.title}: {notice.state}", None)
        except Exception as problem:
            self.say("notices", f"could not be delivered: {problem!r}", None)

    def end(self, name: str) -> None:
        """Tell how a run has ended, if it has."""
        child = self.children[name]
        code = child.process.poll()
        if code is None:
            return
        del self.children[name]
        child.let_go()
        state = load_state(self.settings, name)
        if state.claim:
            self.say(name, f"was killed (exit code {code})", None)
        elif state.last and state.last != child.before:
            self.say(name, state.last.state, state.last)
        elif code:
            self.say(name, f"could not begin (exit code {code}, {child.output}); tried again in {PAUSE} s", None)
            self.pauses[name] = time.monotonic() + PAUSE


def follow(
    settings: Settings,
    names: Iterable[str] = (),  # these schedules; none: all of the environment
    say: Say = lambda name, text, end: None,
    every: float = 1.0,  # seconds between two looks
    monitors: bool = False,  # only schedules that are monitors
) -> None:
    """Wait for schedules and run them, until SIGINT or SIGTERM; runs under way are stopped where they can go on."""
    waiting = _Waiting(settings, list(names), say, monitors=monitors)
    with _until_terminated():
        try:
            while True:
                waiting.read()
                waiting.look()
                waiting.see_to()
                time.sleep(every)
        finally:
            if waiting.left:
                waiting.left.stop()
            for child in waiting.children.values():
                child.let_go()
            for name, child in waiting.children.items():
                child.stop()
                say(name, "stopped; goes on when the scheduler does", None)


@contextmanager
def _until_terminated() -> Iterator[None]:
    def end(*_: Any) -> None:
        raise SystemExit(0)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    raise SystemExit(_child())
