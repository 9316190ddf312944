"""A monitor as it goes: its signals over time, what has changed, its alerts, and what waits for a person.

Nothing but the monitors' history is read, so it does not matter who looks at the windows: this kernel, the scheduler, a run in CI.
What the buttons do is the very thing that `mlops-nb monitor` does, under the same access matrices.
"""

import datetime as dt
import html
import itertools
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
from traitlets import Dict, Unicode

from mlops_nb.core import access
from mlops_nb.core.records import Deployment, Signal, SpecificationError
from mlops_nb.core.settings import Settings
from mlops_nb.outer_loop import actions as work
from mlops_nb.outer_loop import history
from mlops_nb.outer_loop.collected import read_collected
from mlops_nb.outer_loop.history import Action, Point, Raised, Seen
from mlops_nb.widgets.parts import script
from mlops_nb.widgets.still import ICONS

if TYPE_CHECKING:
    import pandas as pd

PERIOD = 1.0  # seconds between two looks at the history
WINDOWS, SERIES, ALERTS, LINES = 60, 400, 20, 12  # shown at most: windows, lines of signals, alerts, signals of an alert
STYLE = Path(__file__).with_name("monitor.css")
WORDS = {"quiet": "quiet", "alert": "alert", "idle": "idle", "failed": "could not be computed", "": "no window yet",
         "open": "open", "acknowledged": "acknowledged", "snoozed": "snoozed", "resolved": "resolved",
         "waiting": "waiting"}  # fmt: skip
MARKS = {"quiet": "done", "alert": "failed", "idle": "", "failed": "stopped", "open": "failed", "acknowledged": "skipped",
         "snoozed": "waiting", "resolved": "done", "waiting": "waiting"}  # state -> icon  # fmt: skip


class MonitorCard(anywidget.AnyWidget):
    """What a monitor has seen and raised, live until `close`; alerts and actions are answered here."""

    _esm = script("monitor.js")
    _css = STYLE
    shown = Dict().tag(sync=True)  # the monitor, as of the last change
    selected = Unicode().tag(sync=True)  # key of the signal that is looked at; empty: none

    def __init__(
        self,
        settings: Settings,
        monitor: Any,  # its name, or a Monitor
        reference: "pd.DataFrame | None" = None,  # to draw distributions of windows whose points hold none; None: only those that do
        windows: int = WINDOWS,  # the newest, so many
    ):
        self.settings, self.monitor, self.reference, self.windows = settings, str(getattr(monitor, "name", monitor)), reference, windows
        super().__init__()
        self._stop, self._looking, self._reading = threading.Event(), threading.Lock(), threading.Lock()
        self._seen: Any = None
        self._follower: threading.Thread | None = None
        self.on_msg(self._hear)
        self.look()

    @property
    def following(self) -> bool:
        """Whether the history is being watched."""
        return self._follower is not None and self._follower.is_alive()

    def look(self) -> None:
        """Read the history if it has changed since the last look, and show it."""
        with self._looking:
            marks = _marks(self.settings)
            over = any(one["until"] and one["state"] == "snoozed" and one["until"] <= history.moment(dt.datetime.now(dt.UTC))
                       for one in self.shown.get("alerts", []))  # fmt: skip
            if marks == self._seen and not over:
                return
            shown = describe(self.settings, self.monitor, self.windows)
            if shown != {key: value for key, value in self.shown.items() if key != "clock"}:
                self.shown = shown | {"clock": time.time()}
            self._seen = marks

    def close(self) -> None:
        """Stop following, and leave the page."""
        self._stop.set()
        super().close()

    def _follow(self) -> None:
        while not self._stop.wait(PERIOD):
            try:
                self.look()
            except (OSError, ValueError) as problem:  # the history is of another version, or gone
                self.send({"answer": {"text": str(problem), "wrong": True}})
                return

    def _hear(self, _: Any, message: Any, buffers: Any) -> None:
        """Do what the page asks for: answer an alert or an action, or draw a distribution."""
        if not isinstance(message, dict):
            return
        if "act" in message:
            self.send({"answer": self._act(message)})
        elif "show" in message:
            asked = str(message["show"]), str(message.get("end", ""))
            threading.Thread(target=self._draw, args=asked, name="distribution", daemon=True).start()

    def _act(self, message: Mapping[str, Any]) -> dict[str, Any]:
        told = {"id": str(message.get("id", "")), "act": str(message.get("act", ""))}
        try:
            said = self.answer(told["act"], told["id"], str(message.get("reason", "")), hours=message.get("hours"),
                               name=str(message.get("name", "")), persona=str(message.get("persona", "")))  # fmt: skip
            self.look()
            return told | {"text": said, "wrong": False}
        except (PermissionError, ValueError, LookupError, OSError) as problem:
            return told | {"text": str(problem.args[0] if problem.args else problem), "wrong": True}

    def answer(
        self,
        act: str,  # acknowledge, snooze, resolve (an alert), approve or refuse (an action)
        id: str,
        reason: str = "",
        *,
        hours: float | None = None,  # of snoozing; None: a day
        name: str = "",  # who does so; empty: as the settings say
        persona: str = "",
    ) -> str:  # what was done
        """Answer an alert or an action; raises `PermissionError` as the access matrices say."""
        own = {"user": name.strip() or self.settings.user, "persona": persona or self.settings.persona}
        acting = self.settings.model_copy(update=own)
        until = dt.datetime.now(dt.UTC) + dt.timedelta(hours=float(24 if hours is None else hours))
        doors: dict[str, Callable[[Settings, str, str], Raised | Action]] = {
            "acknowledge": history.acknowledge, "snooze": partial(history.snooze, until=until), "resolve": history.resolve,
            "approve": work.approve, "refuse": work.refuse}  # fmt: skip
        if act not in doors:
            raise SpecificationError([f"'{act}' is nothing that can be done here (there is: {', '.join(doors)})."])
        ids = next((one["ids"] for one in self.shown["alerts"] if one["id"] == id), [id])
        done = [doors[act](acting, one, reason.strip()) for one in ids]
        return f"{done[0].state.capitalize()}{f' until {_time(until.isoformat())} UTC' if act == 'snooze' else ''}."

    def _draw(self, key: str, end: str) -> None:
        with self._reading:
            try:
                found = distribution(self.settings, self.monitor, key, end, self.reference)
            except (OSError, ValueError, LookupError, TypeError) as problem:
                found = {"problem": str(problem)}
        self.send({"distribution": {"key": key, "end": end} | found})

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """Offer the live card, and the same as it stands now for where there is no kernel: a report, the docs."""
        still = {"text/html": as_html(self.shown), "text/plain": as_text(self.shown)}
        if os.environ.get("MLOPS_NB_HEADLESS"):
            return still
        if self._follower is None:
            self._follower = threading.Thread(target=self._follow, name=f"monitor {self.monitor}", daemon=True)
            self._follower.start()
        live = super()._repr_mimebundle_(**options)
        data, metadata = live if isinstance(live, tuple) else (live or {}, {})
        return data | still, metadata


# --- what the history says ---------------------------------------------------------------------------------------------


def _marks(settings: Settings) -> list[Any]:
    """Note size and time of the history's files; equal marks mean that nothing has changed."""
    path = history.history_file(settings)
    marks: list[Any] = []
    for file in (path, path.with_name(f"{path.name}-wal")):
        try:
            stat = file.stat()
            marks.append((stat.st_mtime_ns, stat.st_size))
        except FileNotFoundError:
            marks.append(None)
    return marks


def describe(settings: Settings, monitor: str, windows: int = WINDOWS) -> dict[str, Any]:
    """Say everything about a monitor that is worth showing, as JSON can carry it."""
    seen = history.windows(settings, monitor, last=windows)
    ends = sorted({one.end for one in seen})
    points = history.points(settings, monitor, last=windows)
    series = _series(points, ends)
    alerts = sorted(history.alerts(settings, monitor), key=lambda raised: raised.alert.window[1], reverse=True)
    stories = _stories(alerts)
    pending = [one for one in stories if one["state"] != "resolved"]
    actions = history.actions(settings, monitor)
    return {"monitor": monitor, "environment": settings.environment, "user": settings.user, "persona": settings.persona,
            "personas": _personas(settings), "state": seen[-1].state if seen else "", "windows": [_window(one) for one in seen],
            "series": series[:SERIES], "hidden": max(0, len(series) - SERIES),
            "alerts": (pending + [one for one in stories if one["state"] == "resolved"][:3])[:ALERTS],
            "more": max(0, len(pending) - ALERTS),
            "actions": [_action(action) for action in actions if action.state == "waiting"],
            "done": [_action(action) for action in reversed(actions) if action.state != "waiting"][:8],
            "untold": _untold(settings, {raised.id for raised in alerts}), "words": WORDS, "icons": ICONS, "marks": MARKS}  # fmt: skip


def _personas(settings: Settings) -> list[str]:
    """List who may answer an alert or an action here."""
    try:
        return list(dict.fromkeys([*access.may(settings, "monitor"), *access.may(settings, "approve")]))
    except (SpecificationError, OSError):
        return [settings.persona]


def _window(seen: Seen) -> dict[str, Any]:
    return {"start": seen.start, "end": seen.end, "state": seen.state, "rows": seen.rows, "deployment": seen.deployment,
            "text": f"{_time(seen.start)} to {_time(seen.end)}: {WORDS.get(seen.state, seen.state)}, {seen.rows:,} rows"
                    f"{', computed afterwards' if seen.backfilled else ''}"}  # fmt: skip


def _time(when: str) -> str:
    try:
        return f"{dt.datetime.fromisoformat(when).astimezone(dt.UTC):%Y-%m-%d %H:%M}"
    except ValueError:
        return when


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _untold(settings: Settings, alerts: set[str]) -> list[str]:
    """Say which notices have not reached anybody, and why."""
    found = [notice for notice in history.notices(settings) if notice.alert in alerts and notice.problem]
    waits = {f"A notice to {notice.to} is tried again: {notice.problem}" for notice in found if notice.state == "waiting"}
    failed = {f"A notice to {notice.to} was given up: {notice.problem}" for notice in found if notice.state == "failed"}
    return sorted(waits | failed)[:4]


def _key(signal: str, feature: str, metric: str, segment: str) -> str:
    return "\x1f".join((signal, feature, metric, segment))


def _series(points: Iterable[Point], ends: list[str]) -> list[dict[str, Any]]:
    """Collect each number over time, signal by signal, those that need attention first."""
    found: dict[str, list[Point]] = {}
    order: dict[str, int] = {}
    for point in points:
        order.setdefault(point.signal, len(order))
        found.setdefault(_key(point.signal, point.feature, point.metric, point.segment), []).append(point)
    drawn = [_line(key, own, ends) for key, own in found.items()
             if own[-1].end == ends[-1] or any(point.value is not None or point.breached for point in own)]  # else: of an idle window
    return sorted(drawn, key=lambda one: (order[one["signal"]], not one["breached"], not one["ever"], -one["nearness"]))


def _line(key: str, points: list[Point], ends: list[str]) -> dict[str, Any]:
    """Place one number's windows in a square of side 1, the newest to the right, high values up."""
    last = points[-1]
    values = [point.value for point in points if point.value is not None and math.isfinite(point.value)]
    low, high = _range(values + ([last.threshold] if last.threshold is not None else []))
    times = [dt.datetime.fromisoformat(end).timestamp() for end in ends]
    span = (times[-1] - times[0]) or 1.0
    dots = []
    for point in points:
        at = dt.datetime.fromisoformat(point.end).timestamp()
        known = point.value is not None and math.isfinite(point.value)
        text = f"{_time(point.end)}: " + (_number(point.value) if known else f"not computed, {point.problem}"[:200])
        dots.append({"end": point.end, "x": round((at - times[0]) / span, 4) if span > 1 else 1.0, "text": text,
                     "y": round((float(point.value or 0) - low) / (high - low), 4) if known else None, "breached": point.breached,
                     "examples": _examples(point.detail)})  # fmt: skip
    limit = None if last.threshold is None else round((last.threshold - low) / (high - low), 4)
    ever = sum(point.breached for point in points)
    told = "not computed" if last.value is None else _number(last.value)
    beside = "" if last.threshold is None else f", threshold {_number(last.threshold)}"
    label = f"{_where(last)}: {told}{beside}, needed attention in {ever} of {len(points)} windows"
    return {"key": key, "signal": last.signal, "type": last.type, "feature": last.feature, "metric": last.metric,
            "segment": last.segment, "value": told, "threshold": _number(last.threshold), "breached": last.breached, "ever": ever,
            "label": label, "dots": dots, "limit": limit, "low": _number(low), "high": _number(high),
            "nearness": _nearness(last)}  # fmt: skip


def _where(one: Point | Signal) -> str:
    return " ".join(filter(None, (one.feature, one.metric))) + (f" where {one.segment}" if one.segment else "")


def _range(values: list[float]) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    if 0 <= low < high / 2:
        low = 0.0
    margin = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return (low if low == 0 else low - margin), high + margin


def _nearness(point: Point) -> float:
    """Say how near to its threshold, or beyond it, a number is; 0 where there is none."""
    if point.value is None or not point.threshold or not math.isfinite(point.value):
        return 0.0
    return round(min(abs(point.value / point.threshold), 1e9), 6)


def _examples(detail: Mapping[str, Any]) -> list[str]:
    found = detail.get("examples")
    rows = found[:5] if isinstance(found, list) else []
    return [f"{row.get('correlationid', '')}: {row.get('why', '')}"[:300] for row in rows if isinstance(row, dict)]


def _stories(
    alerts: list[Raised],  # the newest first
) -> list[dict[str, Any]]:
    """Describe alerts; those of consecutive windows that stand alike are one, whose answer is the answer to all of them."""
    found: list[dict[str, Any]] = []
    for raised in alerts:
        one, last = _alert(raised), found[-1] if found else {}
        if raised.state != "resolved" and all(one[key] == last.get(key) for key in ("state", "answer", "deployment")):
            last["ids"].append(raised.id)
            last |= {"id": raised.id, "since": one["since"]}  # the first one's id stays when the next window comes
        else:
            found.append(one)
    for one in found:
        if len(one["ids"]) > 1:
            one["lines"].append(f"goes on since {one['since']}, in {len(one['ids'])} windows")
    return found


def _alert(raised: Raised) -> dict[str, Any]:
    alert = raised.alert
    loud = [signal for signal in alert.signals if signal.breached]
    answer = " ".join(filter(None, (f"by {raised.by}" if raised.by else "", f"until {_time(raised.until)}" if raised.until else "",
                                    f"({raised.reason})" if raised.reason else "")))  # fmt: skip
    return {"id": raised.id, "ids": [raised.id], "since": _time(alert.window[0]), "state": raised.state, "until": raised.until,
            "answer": answer if raised.state != "open" else "", "title": f"{_time(alert.window[0])} to {_time(alert.window[1])}",
            "deployment": alert.deployment.removeprefix("deployment:"), "lines": [_tell(signal) for signal in loud[:LINES]],
            "more": max(0, len(loud) - LINES), "actions": list(alert.actions)}  # fmt: skip


def _tell(signal: Signal) -> str:
    if signal.value is None:
        return f"{_where(signal)} of {signal.name} could not be computed: {signal.problem}"[:300]
    beside = "" if signal.threshold is None else f", threshold {_number(signal.threshold)}"
    return f"{_where(signal)} of {signal.name}: {_number(signal.value)}{beside}"


def _action(action: Action) -> dict[str, Any]:
    return {"id": action.id, "kind": action.kind, "state": action.state, "mode": action.mode, "reason": action.reason[:400],
            "subject": action.subject.removeprefix("deployment:"), "at": _time(action.at), "alert": action.alert}  # fmt: skip


# --- distributions -----------------------------------------------------------------------------------------------------


def distribution(
    settings: Settings,
    monitor: str,
    key: str,  # of a series
    end: str,  # of the window
    reference: "pd.DataFrame | None" = None,
) -> dict[str, Any]:  # bins (their names), reference and production (shares); or problem
    """Draw one feature's distribution in one window beside the reference, from its point, or from what was collected."""
    signal, feature, metric, segment = [*key.split("\x1f"), "", "", ""][:4]
    points = [point for point in history.points(settings, monitor, signal=signal, feature=feature)
              if point.end == end and point.segment == segment]  # fmt: skip
    for point in sorted(points, key=lambda point: point.metric != metric):
        if found := _stored(point.detail):
            return found
    if not feature:
        return {"problem": "This number is of the whole, and has no distribution."}
    if reference is None or feature not in reference:
        return {"problem": "The history holds no distribution of this window. Pass reference= with the table to compare with."}
    if segment:
        return {"problem": "Distributions of segments are drawn only where the history holds them."}
    window = next((one for one in history.windows(settings, monitor) if one.end == end), None)
    if window is None:
        return {"problem": f"No window ends at {_time(end)}."}
    return _compare(reference[feature], _collected(settings, window, feature))


def _stored(detail: Mapping[str, Any]) -> dict[str, Any] | None:
    """Find a distribution in what a point says: bins by their names or edges, and both sides' counts or shares."""
    inner = detail.get("distribution")
    found = inner if isinstance(inner, dict) else detail
    names: list[Any] = next((found[key] for key in ("bins", "categories", "edges") if isinstance(found.get(key), list)), [])
    sides = [side for key in ("reference", "production") if isinstance(side := found.get(key), list) and side]
    if not names or len(sides) < 2:
        return None
    if len(names) == len(sides[0]) + 1:
        names = [f"{_number(low)} to {_number(high)}" for low, high in itertools.pairwise(map(float, names))]
    if not len(names) == len(sides[0]) == len(sides[1]):
        return None
    shares = [[float(n) / (sum(map(float, side)) or 1.0) for n in side] for side in sides]
    return {"bins": list(map(str, names)), "reference": shares[0], "production": shares[1]}


def _collected(settings: Settings, window: Seen, feature: str) -> "pd.Series":
    endpoint, _, name = window.deployment.removeprefix("deployment:").partition(".")[2].rpartition("/")
    deployment = Deployment(endpoint, name, window.model, settings.environment)
    span = dt.datetime.fromisoformat(window.start), dt.datetime.fromisoformat(window.end)
    for collection in ("model_inputs", "model_outputs"):
        frame = read_collected(settings, deployment, collection, *span).frame
        if feature in frame:
            return frame[feature]
    raise LookupError(f"Nothing that was collected in this window has a column {feature}.")


def _compare(before: "pd.Series", after: "pd.Series") -> dict[str, Any]:
    """Count both sides over the same bins; the outermost ones hold what is beyond."""
    import numpy as np
    import pandas as pd

    numbers = pd.to_numeric(after, errors="coerce")
    if pd.api.types.is_numeric_dtype(before) and not pd.api.types.is_bool_dtype(before) and numbers.notna().any():
        sides = [side[np.isfinite(side)] for side in (before.dropna().to_numpy(float), numbers.dropna().to_numpy(float))]
        low, high = (float(q) for q in np.quantile(np.concatenate(sides), [0.01, 0.99]))
        edges = np.linspace(low, high if high > low else low + 1, 17)
        counts = [np.histogram(np.clip(side, edges[0], edges[-1]), edges)[0] for side in sides]
        names = [f"{_number(a)} to {_number(b)}" for a, b in itertools.pairwise(edges.tolist())]
    else:
        texts = [side.astype("string").fillna("(null)") for side in (before, after)]
        shares = [side.value_counts(normalize=True) for side in texts]
        names = list(shares[0].add(shares[1], fill_value=0).sort_values(ascending=False).index[:12])
        counts = [np.array([*((side == name).sum() for name in names), (~side.isin(names)).sum()]) for side in texts]
        names.append("(others)")
    shares_of = [[round(float(n) / max(int(side.sum()), 1), 5) for n in side] for side in counts]
    return {"bins": [str(name)[:60] for name in names], "reference": shares_of[0], "production": shares_of[1]}


# --- as it stands, without a kernel and without scripts ----------------------------------------------------------------


def as_text(shown: Mapping[str, Any]) -> str:
    """Say in a few lines how a monitor stands."""
    head = f"{shown['monitor']} ({shown['environment']}): {WORDS.get(shown['state'], shown['state'])}, {len(shown['windows'])} windows"
    alerts = [f"  alert {one['id']} {one['state']} {one['title']}: {'; '.join(one['lines'])}" for one in shown["alerts"]]
    return "\n".join([head, *alerts, *(f"  {one['kind']} {one['id']} waits for a person" for one in shown["actions"])])


def as_html(shown: Mapping[str, Any]) -> str:
    """Draw a monitor as it stands, without scripts."""
    e = html.escape
    strip = "".join(f'<i data-state="{e(one["state"])}" title="{e(one["text"])}"></i>' for one in shown["windows"])
    alerts = "".join(_still_alert(one) for one in shown["alerts"]) or "<p class='none'>No alerts.</p>"
    waiting = "".join(f"<li>{_badge('waiting', one['kind'])} <span>{e(one['subject'])} {e(one['reason'])}</span></li>"
                      for one in shown["actions"])  # fmt: skip
    signals: dict[str, list[dict[str, Any]]] = {}
    for one in shown["series"]:
        signals.setdefault(one["signal"], []).append(one)
    parts = "".join(_still_signal(name, lines) for name, lines in signals.items())
    return (
        f"<style>{STYLE.read_text()}</style>"
        f'<section class="mlops-monitor still" aria-label="monitor {e(shown["monitor"])}"><header>'
        f"<strong>{e(shown['monitor'])}</strong><span>{e(shown['environment'])}</span>"
        f"{_badge(shown['state'], WORDS.get(shown['state'], shown['state']))}<span>{len(shown['windows'])} windows</span></header>"
        f'<div class="strip" role="img" aria-label="{e(strip_label(shown))}">{strip}</div>'
        f"<h4>Alerts</h4><ul class='alerts'>{alerts}</ul>"
        f"{f'<h4>Waiting for a person</h4><ul class=actions>{waiting}</ul>' if waiting else ''}{parts}</section>"
    )


def strip_label(shown: Mapping[str, Any]) -> str:
    """Say how many windows stand how: `12 windows: 10 quiet, 2 alert`."""
    states = [one["state"] for one in shown["windows"]]
    return f"{len(states)} windows: " + ", ".join(f"{states.count(state)} {WORDS.get(state, state)}" for state in dict.fromkeys(states))


def _badge(state: str, words: str) -> str:
    path = ICONS.get(MARKS.get(state, state), ICONS[""])
    icon = f'<svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><path d="{path}"/></svg>'
    return f'<span class="state" data-state="{html.escape(state)}">{icon}<span>{html.escape(words)}</span></span>'


def _still_alert(one: Mapping[str, Any]) -> str:
    e = html.escape
    lines = "".join(f"<li>{e(line)}</li>" for line in one["lines"]) + (f"<li>and {one['more']} more</li>" if one["more"] else "")
    state = _badge(one["state"], WORDS.get(one["state"], one["state"]))
    return (f'<li class="alert"><div class="head">{state}<b>{e(one["title"])}</b>'
            f'<span class="quiet">{e(one["deployment"])}</span><span class="quiet">{e(one["answer"])}</span></div>'
            f"<ul>{lines}</ul></li>")


def _still_signal(name: str, lines: list[dict[str, Any]], most: int = 24) -> str:
    figures = "".join(_still_line(one) for one in lines[:most])
    rest = f'<p class="quiet">and {len(lines) - most} more</p>' if len(lines) > most else ""
    title = f'<h4>{html.escape(name)} <span class="quiet">{html.escape(lines[0]["type"])}</span></h4>'
    return f'{title}<div class="grid">{figures}</div>{rest}'


def _still_line(one: Mapping[str, Any], width: int = 200, height: int = 56) -> str:
    e = html.escape
    placed = [(4 + dot["x"] * (width - 8), None if dot["y"] is None else 4 + (1 - dot["y"]) * (height - 8), dot) for dot in one["dots"]]
    path, pen = "", "M"
    for x, y, _ in placed:
        path, pen = (f"{path}{pen}{x:.1f} {y:.1f}", "L") if y is not None else (path, "M")
    limit = "" if one["limit"] is None else f'<path class="limit" d="M0 {4 + (1 - one["limit"]) * (height - 8):.1f}H{width}"/>'
    dots = "".join(f'<circle class="{"bad" if dot["breached"] else ""}" cx="{x:.1f}" cy="{height - 4 if y is None else y:.1f}" r="2.6">'
                   f"<title>{e(dot['text'])}</title></circle>"
                   for x, y, dot in placed if dot["breached"] or dot is one["dots"][-1])  # fmt: skip
    title = " ".join(filter(None, (one["feature"], one["segment"] and f"where {one['segment']}"))) or "all"
    return (f'<figure class="multiple{" bad" if one["breached"] else ""}"><figcaption><b>{e(title)}</b><span>{e(one["metric"])}</span>'
            f'<span class="value">{e(one["value"])}</span></figcaption><svg viewBox="0 0 {width} {height}" role="img" '
            f'aria-label="{e(one["label"])}">{limit}<path class="line" d="{path}"/>{dots}</svg></figure>')
