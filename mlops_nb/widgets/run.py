"""A run as it goes: its steps as a graph, what each one does, how long, and what it said.

Nothing but the run's folder is read. So it does not matter who runs the steps: this kernel, a terminal, another machine
that shares the folder.
"""

import json
import os
import re
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import anywidget
from IPython.display import publish_display_data
from traitlets import Dict, Unicode

from mlops_nb.core.files import read_lines
from mlops_nb.core.runs import Run, find_run, load_run, state_of
from mlops_nb.core.settings import Settings, load_settings
from mlops_nb.widgets.parts import script
from mlops_nb.widgets.still import BAD, STYLE, as_html, as_text, draw

LINES, BYTES = 60, 16_000  # of a log's end
PERIOD, BEAT, GRACE = 0.25, 2.0, 2.0  # seconds: between two looks; between two signs of life; until an end is believed


def watch(
    run: Run | Path | str = "",  # a run, its folder, its id or enough of it; empty: the newest
    settings: Settings | None = None,  # whose runs; None: those of the project here
) -> "RunView":
    """Show a run live, until it is over; raises `SpecificationError` if none or several answer to the name."""
    if isinstance(run, str):
        run = find_run(settings or load_settings(), run)
    return RunView(run if isinstance(run, Path) else run.folder)


class RunView(anywidget.AnyWidget):
    """The graph of a run that follows the run's folder by itself, and ends with the run or with `close`."""

    _esm = script("run.js")
    _css = STYLE
    graph = Dict().tag(sync=True)  # where nodes and edges go
    shown = Dict().tag(sync=True)  # the run and its steps, as of the last change
    tails = Dict().tag(sync=True)  # step -> its log's end; of the steps that are looked at
    selected = Unicode().tag(sync=True)  # a step, or a trial as `step/number`; empty: the one that matters most now

    def __init__(self, folder: Path):
        self.folder = folder.resolve()
        self._run = load_run(self.folder)
        super().__init__(graph=draw(self._run))
        self._stop, self._looking = threading.Event(), threading.Lock()
        self._seen: Any = None
        self._display = ""  # the notebook's name of our output
        self.on_msg(self._answer)
        self.look()
        self.observe(lambda _: self._read_logs(), "selected")
        self._follower = threading.Thread(target=self._follow, name=f"watch {self.folder.name}", daemon=True)
        if self.shown["state"] in ("running", "waiting"):
            self._follower.start()

    @property
    def following(self) -> bool:
        """Whether the folder is still being watched."""
        return self._follower.is_alive()

    def look(self) -> None:
        """Read what has changed since the last look, and show it."""
        with self._looking:
            seen = [*_marks(self.folder), _state_of(self._run)]  # a killed process changes no file
            if seen == self._seen:
                return
            self._run = load_run(self.folder)
            shown = describe(self._run)
            if shown != {key: value for key, value in self.shown.items() if key != "clock"}:
                self.shown = shown | {"clock": time.time()}
            self._seen = [*seen[:-1], shown["state"]]
        self._read_logs()

    def _read_logs(self) -> None:
        self.tails = {step: tail(self.folder, step) for step in _of_interest(self.shown, self.selected)}

    def close(self) -> None:
        """Stop following, and leave the page."""
        self._stop.set()
        super().close()

    def _follow(self) -> None:
        """Look now and then while the run goes on or waits for a person; believe an end only after a moment."""
        ended, beaten = 0.0, 0.0
        while not self._stop.wait(PERIOD if self.shown["state"] == "running" else 2 * PERIOD):
            try:
                self.look()
            except (OSError, ValueError):  # the folder is gone
                return
            now = time.monotonic()
            going = self.shown["state"] in ("running", "waiting")
            if self.shown["state"] == "running" and now - beaten > BEAT:
                self.send({"beat": time.time()})
                beaten = now
            ended = 0.0 if going else ended or now
            if ended and now - ended > GRACE:
                if self._display:
                    self._publish(update=True)  # what the notebook keeps for later readers is the end, not the beginning
                return

    def _answer(self, _: Any, message: dict[str, Any], buffers: Any) -> None:
        """Hand the page a step's report, where it cannot fetch it by itself."""
        self.send({"beat": time.time()})
        if path := _find(self.shown, message.get("report", "")).get("report"):
            self.send({"report": message["report"]}, buffers=[Path(path).read_bytes()])

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """Offer the live view, and the same as it stands now for where there is no kernel: a report, the docs."""
        still = {"text/html": as_html(self.graph, self.shown, self.tails), "text/plain": as_text(self.shown)}
        if os.environ.get("MLOPS_NB_HEADLESS"):
            return still
        live = super()._repr_mimebundle_(**options)
        data, metadata = live if isinstance(live, tuple) else (live or {}, {})
        return data | still, metadata

    def _ipython_display_(self) -> None:
        self._display = self._display or os.urandom(8).hex()
        self._publish(update=False)

    def _publish(self, update: bool) -> None:
        bundle = self._repr_mimebundle_()
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        publish_display_data(data, metadata, transient={"display_id": self._display}, update=update)


# --- what a run's folder says ------------------------------------------------------------------------------------------


def _marks(folder: Path) -> list[Any]:
    """Note the size and time of every file that says something; equal marks mean that nothing has changed."""
    found = [folder / "journal.jsonl", folder / "pid", *folder.glob("*.html")]
    for room in ("progress", "log"):
        found += (Path(here, name) for here, _, names in os.walk(folder / room) for name in names)
    marks: list[Any] = []
    for path in found:
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        marks.append((str(path), stat.st_mtime_ns, stat.st_size))
    return marks


def _state_of(run: Run) -> str:
    begins = not run.steps and time.time() - (run.folder / "run.json").stat().st_mtime < 15  # its process has not signed in yet
    return "running" if begins else state_of(run)


def describe(run: Run) -> dict[str, Any]:
    """Say everything about a run that is worth showing, as JSON can carry it."""
    state, events = _state_of(run), read_lines(run.folder / "journal.jsonl")
    told: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        told.setdefault(event["step"], []).append(event)
    steps = [_describe(run, state, step, told) for step in run.planned]
    seconds, since = _busy(events, run.planned)
    return {"id": run.id, "scenario": run.scenario, "environment": run.environment, "user": run.user, "started": run.started,
            "folder": str(run.folder), "home": str(Path.home()), "state": state, "seconds": seconds, "since": since,
            "steps": steps, "followed": _most_telling(steps)}  # fmt: skip


def _describe(run: Run, run_state: str, name: str, told: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    state, own = run.steps.get(name, ""), told.get(name, [])
    step = {
        "name": name,
        "state": "stopped" if state == "running" and run_state != "running" else state,  # killed: it could not say so
        "since": next((_seconds(event["at"]) for event in reversed(own) if _starts(event)), 0.0),
        "seconds": run.seconds.get(name, 0.0),
        "attempt": next((event.get("attempt", 1) for event in reversed(own) if event["state"] == "running"), 1),
        "message": run.messages.get(name, "")[:8_000],
        "needs": run.needs.get(name, []),
        **_files(run, name),
        **_progress(run.folder / "progress" / f"{name}.json", state),
    }
    if "/" in name:
        return step | {"metric": own[-1].get("metric"), "values": own[-1].get("values", {})}
    return step | {"trials": [_describe(run, run_state, trial, told) for trial in told if trial.startswith(f"{name}/")]}


def _starts(event: dict[str, Any]) -> bool:
    return event["state"] == "running" and event.get("attempt", 1) == 1


def _files(run: Run, name: str) -> dict[str, str]:
    """Return the executed notebook, its report, and the run that they are borrowed from, each empty if there is none."""
    notebook = run.notebooks.get(name)
    if notebook is None or not notebook.is_file():
        return {"notebook": "", "report": "", "from": ""}
    report = notebook.with_suffix(".html")
    borrowed = run.steps[name] == "skipped" and notebook.parent != run.folder
    return {"notebook": str(notebook), "report": str(report) if report.is_file() else "",
            "from": notebook.parent.name if borrowed else ""}  # fmt: skip


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()


def _progress(path: Path, state: str) -> dict[str, int]:
    try:
        found = json.loads(path.read_text()) if state not in ("", "skipped") else {}
    except (OSError, ValueError):
        found = {}
    return {"cell": int(found.get("cell", 0)), "cells": int(found.get("cells", 0))}


def _busy(events: list[dict[str, Any]], planned: list[str]) -> tuple[float, float]:
    """Add up the time in which at least one step ran; returns the seconds, and since when the steps that still run do."""
    total, since = 0.0, 0.0
    running: set[str] = set()
    for event in events:
        if (step := event["step"]) not in planned:
            continue
        if _starts(event) and step in running:  # it was killed, and starts anew
            running = set()
        if event["state"] == "running":
            since = since if running else _seconds(event["at"])
            running = running | {step}
        elif step in running:
            running = running - {step}
            total += 0.0 if running else _seconds(event["at"]) - since
    return total, since if running else 0.0


def _most_telling(steps: list[dict[str, Any]]) -> str:
    """Choose the step to look at while nobody has chosen: what went wrong, what runs, what ran last."""
    for wanted in (BAD, ("running",)):
        if found := [step["name"] for step in steps if step["state"] in wanted]:
            return str(found[0])
    begun = sorted((step for step in steps if step["state"]), key=lambda step: float(step["since"]))
    return str([*steps[:1], *begun][-1]["name"]) if steps else ""


def _of_interest(shown: dict[str, Any], selected: str) -> list[str]:
    """List whose logs to send: what is looked at, and all that somebody may look at while this kernel is busy."""
    alive = [step["name"] for step in shown["steps"] if step["state"] in ("running", *BAD)]
    return list(dict.fromkeys(filter(None, [selected and _find(shown, selected).get("name"), shown["followed"], *alive])))


def _find(shown: dict[str, Any], name: str) -> dict[str, Any]:
    every = (one for step in shown["steps"] for one in (step, *step["trials"]))
    return next((one for one in every if one["name"] == name), {})


def tail(folder: Path, step: str) -> str:
    """Read the last lines of a step's log as a terminal would show them, without colours."""
    try:
        with (folder / "log" / f"{step}.log").open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    lines = text.split("\n")[1 if size > BYTES else 0 :]
    text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines[-LINES:])
    return re.sub(r"\x1b\[[0-?]*[ -/]*[@-~]", "", text).rstrip("\n")
