"""The traffic card: how each deployment of an endpoint is doing, a slider for its share, and the way back."""

import html
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ipywidgets

from mlops_nb.core.records import StepFailed
from mlops_nb.core.settings import Settings
from mlops_nb.outer_loop import traffic
from mlops_nb.outer_loop.online import endpoint_status
from mlops_nb.outer_loop.state import shares

PERIOD = 1.0  # seconds between two looks at the endpoint
NOBODY = "nobody"  # is the shadow
WRONG = 'style="color:#b02a37"'
COLUMNS = ("deployment", "model", "state", "traffic", "mirrored", "requests", "errors", "p95")


class TrafficCard(ipywidgets.VBox):
    """Shift an endpoint's traffic by hand; what a button does is the very thing that `mlops-nb traffic` does.

    The card follows the endpoint by itself, also what others change, until `close`; a slider that somebody moved stays as it is.
    """

    def __init__(
        self,
        settings: Settings,
        endpoint: str,
    ):
        self.settings, self.endpoint = settings, endpoint
        self.state = ipywidgets.HTML()
        self.sliders: dict[str, ipywidgets.IntSlider] = {}
        self.places = ipywidgets.VBox()
        self.shadow = ipywidgets.Dropdown(description="mirror to", options=[NOBODY])
        self.mirrored = ipywidgets.IntSlider(description="share", max=50, disabled=True)
        self.reason = ipywidgets.Text(description="reason", placeholder="of a roll back, for the ledger")
        self.apply = ipywidgets.Button(description="Apply", button_style="primary")
        self.back = ipywidgets.Button(description="Roll back", button_style="warning")
        self.answer = ipywidgets.HTML()
        self.apply.on_click(lambda _: self._do(self._apply))
        self.back.on_click(lambda _: self._do(self._roll_back))
        self.shadow.observe(lambda _: self._choose_shadow(), "value")
        self._shown: list[dict[str, Any]] = []  # the endpoint, as of the last look
        self._mover = 0  # thread in which sliders move because another one did, or the endpoint
        self._looking, self._stop = threading.RLock(), threading.Event()
        self._follower: threading.Thread | None = None
        self.look()
        super().__init__([self.state, self.places, ipywidgets.HBox([self.shadow, self.mirrored]), self.reason,
                          ipywidgets.HBox([self.apply, self.back]), self.answer])  # fmt: skip

    @property
    def wanted(self) -> tuple[dict[str, int], dict[str, int]]:
        """Say what the sliders stand at: traffic, and mirrored traffic."""
        live = {name: slider.value for name, slider in self.sliders.items()}
        nobody = self.shadow.value == NOBODY or not self.mirrored.value
        return live, {} if nobody else {self.shadow.value: self.mirrored.value}

    def look(self) -> None:
        """Show how the endpoint is now; raises `LookupError` for one that is not there."""
        with self._looking:
            found = endpoint_status(self.settings, self.endpoint)
            if [row["deployment"] for row in found] != list(self.sliders):
                self._lay(found)
            elif self.wanted == _shares(self._shown) != _shares(found):  # others shifted, nobody did here
                self._move(found)
            self._shown, table = found, state_table(found)
            if self.state.value != table:
                self.state.value = table

    def _lay(self, found: list[dict[str, Any]]) -> None:
        """Make a slider for each deployment."""
        names = [row["deployment"] for row in found]
        self.sliders = {name: ipywidgets.IntSlider(description=name, max=100) for name in names}
        self._move(found)
        for name, slider in self.sliders.items():
            slider.observe(lambda change, name=name: self._balance(name, change), "value")
        self.places.children = list(self.sliders.values())

    @contextmanager
    def _moving(self) -> Iterator[None]:
        """Set several sliders at once: what each of them would set in motion stays undone."""
        with self._looking:
            before, self._mover = self._mover, threading.get_ident()
            try:
                yield
            finally:
                self._mover = before

    def _move(self, found: list[dict[str, Any]]) -> None:
        """Set the sliders to what the endpoint has."""
        live, mirrored = _shares(found)
        with self._moving():
            for name, slider in self.sliders.items():
                slider.value = live[name]
            self.shadow.options = [NOBODY, *live]
            self.shadow.value = next(iter(mirrored), NOBODY)
            self.mirrored.value = mirrored.get(self.shadow.value, 0)

    def _balance(self, moved: str, change: Any) -> None:
        """Keep the sum at 100: the others share what is left, in the proportions they had."""
        if self._mover == threading.get_ident() or len(self.sliders) == 1:
            return
        with self._moving():
            before = {name: slider.value for name, slider in self.sliders.items()} | {moved: change.old}
            others = [name for name in before if name != moved]
            if not any(before[name] for name in others):
                before[others[0]] = 1  # all of it was here: the first one gets what is left
            after = dict.fromkeys(self.sliders, 0) | traffic.share_out(before, moved, change.new)
            for name, slider in self.sliders.items():
                slider.value = after[name]

    def _choose_shadow(self) -> None:
        self.mirrored.disabled = self.shadow.value == NOBODY
        if self._mover != threading.get_ident():
            self.mirrored.value = 0 if self.mirrored.disabled else self.mirrored.value or 10

    def _do(self, what: Callable[[], str]) -> None:
        """Do what a button is for, and say how it went."""
        self.apply.disabled = self.back.disabled = True
        try:
            self._say(what())
        except (OSError, ValueError, LookupError, StepFailed) as problem:
            self._say(str(problem), wrong=True)
        finally:
            self.apply.disabled = self.back.disabled = False

    def _apply(self) -> str:
        live, mirrored = self.wanted
        live_now, mirrored_now = _shares(endpoint_status(self.settings, self.endpoint))
        if (live, mirrored) == (live_now, mirrored_now):
            return "Nothing to apply: the traffic is as the sliders stand."
        if live != live_now:
            traffic.shift_traffic(self.settings, self.endpoint, live)
        if mirrored != mirrored_now:
            traffic.set_mirror(self.settings, self.endpoint, mirrored)
        return self._settle("Applied")

    def _roll_back(self) -> str:
        traffic.roll_back(self.settings, self.endpoint, self.reason.value.strip())
        return self._settle("Rolled back")

    def _settle(self, done: str) -> str:
        with self._looking:
            self._shown = endpoint_status(self.settings, self.endpoint)
            self._move(self._shown)
            self.look()
        live, mirrored = _shares(self._shown)
        told = f"{done}: {shares({name: share for name, share in live.items() if share})}."
        return told + (f" Mirrored: {shares(mirrored)}." if mirrored else "")

    def _say(self, text: str, wrong: bool = False) -> None:
        style = f'role="alert" {WRONG}' if wrong else 'role="status"'
        self.answer.value = f"<span {style}>{html.escape(text)}</span>"

    def _follow(self) -> None:
        while not self._stop.wait(PERIOD):
            try:
                self.look()
            except (OSError, ValueError, LookupError) as problem:  # the endpoint was removed
                self._say(str(problem), wrong=True)
                return

    def close(self) -> None:
        """Stop following, and leave the page."""
        self._stop.set()
        super().close()

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """Show the state alone where nobody can click: in an executed notebook's report, in the docs."""
        still = {"text/html": self.state.value, "text/plain": _as_text(self._shown)}
        if os.environ.get("MLOPS_NB_HEADLESS"):
            return still
        if self._follower is None:
            self._follower = threading.Thread(target=self._follow, name=f"traffic of {self.endpoint}", daemon=True)
            self._follower.start()
        return super()._repr_mimebundle_(**options)


def _shares(found: list[dict[str, Any]]) -> tuple[dict[str, int], dict[str, int]]:
    live = {row["deployment"]: row["traffic"] for row in found}
    return live, {row["deployment"]: row["mirror"] for row in found if row["mirror"]}


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Say how one deployment is, column by column."""
    counts = row["requests"]
    errors = sum(count for status, count in counts.items() if status in ("408", "424") or status.startswith("5"))
    late = "" if row["p95_ms"] is None else f"{row['p95_ms']:.1f} ms"
    mirrored = f"{row['mirror']} %" if row["mirror"] else ""
    return (row["deployment"], row["model"].removeprefix("model:"), row["state"], f"{row['traffic']} %", mirrored,
            f"{sum(counts.values()):,}", f"{errors:,}", late)  # fmt: skip


def state_table(
    found: list[dict[str, Any]],  # as `online.endpoint_status` has it
) -> str:
    """Draw an endpoint's deployments as an HTML table, without scripts."""
    style = "text-align:left;padding:0 .8em 0 0"
    head = "".join(f'<th style="{style}">{name}</th>' for name in COLUMNS)
    rows = ["".join(f'<td style="{style}">{html.escape(cell)}</td>' for cell in _cells(row)) for row in found]
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    told = [html.escape(f"{row['deployment']}: {row['error']}") for row in found if row["error"]]
    errors = "".join(f"<p {WRONG}>{text}</p>" for text in told)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{errors}"


def _as_text(found: list[dict[str, Any]]) -> str:
    return "\n".join(" ".join(filter(None, _cells(row))) for row in found)
