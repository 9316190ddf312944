"""A labeling project at work: one item after the other, for the people who label and for those who review.

The page shows at once what a person does, and says that it is saved when the store has it on the disk. Who labels is known here
and never taken from the page.
"""

import colorsys
import hashlib
import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import anywidget
from traitlets import Dict

from mlops_nb.core.ledger import log
from mlops_nb.core.records import SpecificationError
from mlops_nb.core.settings import Settings
from mlops_nb.inner_loop.answers import KINDS, Event
from mlops_nb.inner_loop.labeling import SINGLE, LabelProject
from mlops_nb.inner_loop.leases import hand_out, renew, why_nothing
from mlops_nb.inner_loop.recording import lacks_role
from mlops_nb.inner_loop.store import LabelItem, Store, open_store
from mlops_nb.widgets.label_still import as_html, as_text
from mlops_nb.widgets.parts import script, style

# the card's scripts whatever it shows, in their order; those of its medium follow
FRAME = tuple(f"frame/{name}.js" for name in ("fold", "outbox", "words", "buttons", "actions", "question", "keys", "sheet", "classes",
                                              "people", "remarks", "header", "stage", "trail", "news", "card"))  # fmt: skip
SURFACES = {  # medium -> its scripts in surfaces/<medium>/, in their order; the last one has a style, too
    "image": ("shapes", "mask", "view", "list", "draw", "pointer", "keys", "surface"),
    "text": ("cut", "paper", "list", "fields", "relations", "draw", "steps", "marks", "pointer", "search", "keys", "surface"),
    "compare": ("surface",), "row": ("surface",)}  # fmt: skip
ROLES = ("label", "review")  # also the rights that they ask
ENDS = ("submit", "skip", "accept", "reject")  # with which a person leaves an item
DECISIONS = ("submit", "accept", "reject", "skip")  # of who reviews
PERIOD = 15.0  # seconds between two looks at what takes long: agreement, proposals
PALETTE = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#ee7733", "#009988", "#cc3311", "#0077bb", "#882255",
           "#999933")  # fmt: skip


class LabelCard(anywidget.AnyWidget):
    """Hand one person item after item, and record what that person does."""

    shown = Dict().tag(sync=True)  # the project, who is at work, and the progress as the card was made

    def __init__(
        self,
        settings: Settings,
        project: str,  # its name
        role: str = "label",  # label or review
        annotator: str = "",  # who is at work; empty: as the settings say
    ):
        if role not in ROLES:
            raise SpecificationError([f"role '{role}': {' or '.join(ROLES)} is expected."])
        self.role, self.by, self.headless = role, annotator.strip() or settings.user, bool(os.environ.get("MLOPS_NB_HEADLESS"))
        with open_store(settings, project) as store:
            if not self.headless and (refusal := lacks_role(store, self.by, role)):
                raise PermissionError(refusal)
        # who decides in a review does so in his own name; who labels for another is noted as the one who sent it
        self.settings = settings.model_copy(update={"user": self.by}) if role == "review" else settings
        self.name, self._stores, self._one = project, threading.local(), threading.Lock()
        medium = self.store.project.medium
        self._esm = script(*FRAME, *(f"surfaces/{medium}/{name}.js" for name in SURFACES[medium]))
        self._css = style("frame/card.css", f"surfaces/{medium}/surface.css")
        self._known: set[str] = set()  # events that this card has heard of
        self._behind: threading.Thread | None = None  # what takes long is done there, one at a time
        self._last = 0.0  # when it was begun
        super().__init__(shown=describe(self.store, self.by, role))
        self.on_msg(self._hear)

    @property
    def store(self) -> Store:
        """The project's store as this thread has it open: JupyterLab hands us messages in another thread than the cells."""
        if not hasattr(self._stores, "store"):
            self._stores.store = open_store(self.settings, self.name)
        store: Store = self._stores.store
        return store

    @property
    def whose(self) -> str:
        """Say whose answer is made here: one's own, or, in review, the final one."""
        return self.by if self.role == "label" else ""

    # --- what the page asks for -----------------------------------------------------------------------------------------

    def _hear(self, _: Any, message: Any, buffers: Any) -> None:
        """Record events, or send what the page asks for."""
        if not isinstance(message, dict):
            return
        with self._one:
            self._answer(message)

    def _answer(self, message: Mapping[str, Any]) -> None:
        try:
            if "events" in message:
                self._record(message)
            elif message.get("ask") == "next":
                self._next([str(one) for one in message.get("hold", ())])
            elif message.get("ask") == "item":
                self._show(self.store.item(str(message.get("item", ""))), asked=True)
            elif message.get("ask") == "progress":
                renew(self.store, self.by)  # who looks for long at an item keeps it
                self.send({"progress": self.store.progress(self.by)})
                self._work_behind()
            elif message.get("ask") == "others":
                item = str(message.get("item", ""))
                self.send({"others": self._others(item), "of": item})
        except Exception as problem:  # whatever it is: the page must not wait for an answer that never comes
            self.send({"problem": _words(problem), "ask": message.get("ask", "events")})

    def _next(self, hold: Sequence[str]) -> None:
        """Hand out one item more than the page holds; say why if there is none."""
        found = [item for item in hand_out(self.store, self.by, count=len(hold) + 1, role=self.role) if item.id not in hold]
        if not found and self.role == "review" and self._judge():
            found = [item for item in hand_out(self.store, self.by, count=len(hold) + 1, role=self.role) if item.id not in hold]
        if found:
            self._show(found[0])
        else:
            self.send({"none": why_nothing(self.store, self.by, self.role), "progress": self.store.progress(self.by)})
        self._work_behind()

    def _judge(self) -> bool:
        """Compare the answers that are complete; what they disagree about then waits for a review."""
        if not self.store.progress(self.by)["labeled"]:
            return False
        from mlops_nb.inner_loop.review import judge

        judge(self.store)
        self.send({"progress": self.store.progress(self.by)})
        return True

    def _show(self, item: LabelItem, asked: bool = False) -> None:
        answer = self.store.answer(item.id, self.whose)
        told: dict[str, Any] = {
            "id": item.id, "data": _data(item, answer.state not in ("open", "rejected")), "start": _start(self.store.project, item),
            "history": [_event(one) for one in self.store.events(item=item.id, whose=self.whose)],
            "others": self._others(item.id), "why": item.why if self.role == "review" or not item.gold else "",
            "model": item.model, "state": item.state, "asked": asked}  # fmt: skip
        picture: list[bytes] = []
        if self.store.project.medium == "image":
            try:
                picture = [_open_image(self.settings, item)]
            except Exception as problem:  # a storage's library raises what it likes; this item can be skipped
                told["problem"] = f"This picture cannot be shown: {_words(problem)}"
        self.send({"item": told}, buffers=picture)

    def _others(self, item: str) -> list[dict[str, Any]]:
        """List what everybody said about an item, for who reviews it."""
        if self.role != "review":
            return []
        return [{"by": one.whose, "annotations": list(one.annotations), "state": one.state, "comments": list(one.comments),
                 "reason": one.reason, "seconds": one.seconds}
                for one in self.store.answers(item=item) if one.whose]  # fmt: skip

    # --- what the page tells --------------------------------------------------------------------------------------------

    def _record(self, message: Mapping[str, Any]) -> None:
        """Store events and say so; if one that went before them has not arrived, ask for all of them again."""
        if (after := message.get("after")) and after not in self._known:
            self.send({"again": True})
            return
        told: dict[str, str] = {}
        plain: list[Event] = []
        for one in message["events"]:
            try:
                event = self._read(one)
            except (ValueError, TypeError, KeyError, AttributeError) as problem:
                told[str(one.get("id", "")) if isinstance(one, dict) else ""] = f"not understood: {_words(problem)}"
                continue
            if self.role == "review" and event.kind in DECISIONS:
                told |= self.store.record(plain) | {event.id: self._decide(event)}
                plain = []
            else:
                plain.append(event)
        told |= self.store.record(plain) if plain else {}
        self._known.update(told)
        self.send({"saved": told, "progress": self.store.progress(self.by)})
        if any(one.get("kind") in ENDS for one in message["events"]):
            self._work_behind()

    def _decide(self, event: Event) -> str:  # empty: done; else why not
        """Accept, put right or reject, as `mlops-nb label review` does; once, however often the page sends it."""
        from mlops_nb.inner_loop import review

        reason = str(event.data.get("reason", ""))
        answer = self.store.answer(event.item, event.whose if event.kind == "reject" else "")
        try:
            if event.kind == "reject" and not (answer.state == "rejected" and answer.by == self.by):
                review.reject(self.store, event.item, event.whose, reason)
            elif event.kind == "accept" and not (answer.state == "accepted" and answer.by == self.by):
                review.accept(self.store, event.item, reason)
            elif event.kind == "submit" and not (answer.state in ("submitted", "accepted") and answer.by == self.by):
                review.settle(self.store, event.item, list(answer.annotations), reason)
            elif event.kind == "skip" and answer.state != "skipped":
                if refusal := self.store.record([event])[event.id]:
                    return refusal
                log(self.settings, "drop_label", f"{self.store.uri}/{event.item}", reason=reason)
        except (PermissionError, ValueError, LookupError) as problem:
            return _words(problem)
        return ""

    def _read(self, told: Mapping[str, Any]) -> Event:
        """Read an event as the page sent it; by whom it is, is not the page's to say."""
        if told["kind"] not in KINDS or not isinstance(told.get("data", {}), dict):
            raise ValueError(f"An action '{told['kind']}' is not known.")
        whose = str(told.get("whose", "")) if self.role == "review" else self.by
        kind, data, seconds = str(told["kind"]), told.get("data", {}), max(0.0, float(told.get("seconds", 0.0)))
        return Event(str(told["id"]), str(told["item"]), kind, self.by, whose, data, str(told.get("at", "")), seconds)

    # --- what takes long ------------------------------------------------------------------------------------------------

    def _work_behind(self) -> None:
        """Measure the agreement and refresh the proposals, now and then, beside the work; never two at once."""
        busy = self._behind is not None and self._behind.is_alive()
        if busy or time.monotonic() - self._last < PERIOD or not (self.store.project.overlap > 1 or self.store.project.model.refresh):
            return
        self._last = time.monotonic()
        self._behind = threading.Thread(target=self._measure, name=f"labels {self.store.project.name}", daemon=True)
        self._behind.start()

    def _measure(self) -> None:
        from mlops_nb.inner_loop.agreement import measure
        from mlops_nb.inner_loop.proposals import refresh_if_due

        try:
            with open_store(self.settings, self.store.project.name) as store:
                if store.project.overlap > 1:
                    found = measure(store, resamples=200, newest=500)[:2]
                    told = [{"measure": one.measure, "value": one.value, "words": str(one)} for one in found if one.value is not None]
                    self.send({"agreement": told})
                if self.role == "label" and store.project.model.refresh and refresh_if_due(store):
                    self.send({"progress": store.progress(self.by)})
        except Exception as problem:  # a model may raise whatever it likes; the work goes on without it
            self.send({"problem": f"The proposals were not refreshed: {_words(problem)}", "ask": "behind"})

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """Offer the live card, and the same as it stands now for where there is no kernel: a report, the docs."""
        shown = describe(self.store, self.by, self.role)
        still = {"text/html": as_html(self.store, shown, self.whose), "text/plain": as_text(shown)}
        if os.environ.get("MLOPS_NB_HEADLESS"):
            return still
        live = super()._repr_mimebundle_(**options)
        data, metadata = live if isinstance(live, tuple) else (live or {}, {})
        return data | still, metadata

    def close(self) -> None:
        """Leave the page, and the store."""
        super().close()
        if hasattr(getattr(self, "_stores", None), "store"):
            self._stores.store.close()
            del self._stores.store


# --- what the page is told ---------------------------------------------------------------------------------------------


def describe(store: Store, by: str, role: str) -> dict[str, Any]:
    """Say everything about a project that its page needs, as JSON can carry it."""
    project = store.project
    facts = project.model_dump(mode="json", include={"name", "task", "description", "instructions", "criteria", "fields", "nested",
                                                     "right_to_left", "overlap"})  # fmt: skip
    facts |= {"medium": project.medium, "kinds": list(project.kinds), "single": project.task in SINGLE, "classes": classes(project),
              "relations": relations(project), "key": hashlib.sha256(str(store.path.resolve()).encode()).hexdigest()[:12]}  # fmt: skip
    return {"project": facts, "user": by, "role": role, "progress": store.progress(by)}


def colour(number: int) -> str:
    """Choose the colour of the class in this place: a few that everybody can tell apart, then ever new hues."""
    if number < len(PALETTE):
        return PALETTE[number]
    red, green, blue = colorsys.hls_to_rgb((number * 0.618034) % 1, 0.42 + 0.12 * (number % 3 == 0), 0.55)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def classes(project: LabelProject) -> list[dict[str, Any]]:
    """List the classes with their keys and colours: a class without a key has its name, if that is one character, else 1 to 9."""
    keys = {one.name: one.key or (one.name if len(one.name) == 1 else "") for one in project.classes}
    taken = {*keys.values(), *(one.key for one in project.relations)}
    for place, name in enumerate(keys, 1):
        if not keys[name] and place <= 9 and str(place) not in taken:
            keys[name] = str(place)
    return [one.model_dump(mode="json") | {"key": keys[one.name], "colour": one.colour or colour(number)}
            for number, one in enumerate(project.classes)]  # fmt: skip


def relations(project: LabelProject) -> list[dict[str, Any]]:
    """List the kinds of relations with their colours."""
    return [one.model_dump(mode="json") | {"colour": colour(number)} for number, one in enumerate(project.relations)]


def _data(item: LabelItem, shown: bool) -> dict[str, Any]:
    """Say what an item is; which model gave which candidate stays hidden until the answer is given."""
    if shown or "candidates" not in item.data:
        return item.data
    return item.data | {"candidates": [{key: value for key, value in one.items() if key != "name"} for one in item.data["candidates"]]}


def _start(project: LabelProject, item: LabelItem) -> list[dict[str, Any]]:
    """List the proposals that are sure enough."""
    return [dict(one) for one in item.prediction if one.get("score") is None or one["score"] >= project.model.min_score]


def _event(event: Event) -> dict[str, Any]:
    return {"id": event.id, "item": event.item, "kind": event.kind, "whose": event.whose, "by": event.by, "data": event.data,
            "at": event.at, "seconds": event.seconds}  # fmt: skip


def _words(problem: BaseException) -> str:
    return str(problem.args[0] if problem.args else problem)


def _open_image(settings: Settings, item: LabelItem) -> bytes:
    from mlops_nb.inner_loop.items import open_image

    return open_image(settings, item)
