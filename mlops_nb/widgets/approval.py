"""The approval card: what a person reads before a model goes on, and the two buttons.

What the buttons do is the very thing that `mlops-nb approve` and `refuse` do, under the same access matrices.
"""

import html
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import anywidget
from traitlets import Dict

from mlops_nb.core import access
from mlops_nb.core.ledger import entries
from mlops_nb.core.records import Approval, ModelVersion
from mlops_nb.core.settings import Settings
from mlops_nb.core.tracking import connect
from mlops_nb.outer_loop import approval
from mlops_nb.outer_loop.staging import number
from mlops_nb.widgets.parts import script, style

ERRORS = re.compile(r"(^|_)(r?mse|mae|mape|loss|error|errors|brier|deviance)(_|$)")  # metrics of which less is better
STATES = {None: "waits for a decision", "approved": "approved", "refused": "refused"}
VERDICTS = {True: "passed", False: "failed", None: "not judged"}


class ApprovalCard(anywidget.AnyWidget):
    """The candidate beside the champion, the stage report, who decided before, and the decision."""

    _esm = script("approval.js")
    _css = style("approval.css")
    shown = Dict().tag(sync=True)  # everything on the card, as JSON carries it

    def __init__(
        self,
        settings: Settings,
        model: ModelVersion,  # the candidate
        champion: ModelVersion | None = None,  # None: there is none yet
        checks: Iterable[Any] = (),  # the stage report's: `staging.Check`, or the dictionaries that `staging.save_report` wrote
    ):
        self.settings, self.model = settings, model
        super().__init__()
        self.on_msg(self._hear)
        self.shown = describe(settings, model, champion, [dict(one) if isinstance(one, Mapping) else asdict(one) for one in checks])

    def decide(
        self,
        act: str,  # approve or refuse
        reason: str = "",
        *,
        name: str = "",  # who decides; empty: as the settings say
        persona: str = "",
    ) -> Approval:
        """Decide, and show it; raises as `approval.approve` and `approval.refuse` do."""
        doors = {"approve": approval.approve, "refuse": approval.refuse}
        if act not in doors:
            raise ValueError(f"'{act}' is no decision (decisions: {', '.join(doors)}).")
        own = {"user": name.strip() or self.settings.user, "persona": persona or self.settings.persona}
        made = doors[act](self.settings.model_copy(update=own), self.model, reason.strip())
        self.shown = self.shown | _decided(self.settings, self.model)
        return made

    def _hear(self, _: Any, message: Any, buffers: Any) -> None:
        if not isinstance(message, dict) or "act" not in message:
            return
        try:
            self.decide(*(str(message.get(key, "")) for key in ("act", "reason")), name=str(message.get("name", "")),
                        persona=str(message.get("persona", "")))  # fmt: skip
            self.send({"answer": {"text": self.shown["said"], "wrong": False}})
        except (PermissionError, ValueError) as problem:
            self.send({"answer": {"text": str(problem), "wrong": True}})

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """Offer the live card, and the facts alone for where nobody can click: an executed notebook's report, the docs."""
        still = {"text/html": as_html(self.shown), "text/plain": f"{self.shown['model']}: {self.shown['said']}"}
        if os.environ.get("MLOPS_NB_HEADLESS"):
            return still
        live = super()._repr_mimebundle_(**options)
        data, metadata = live if isinstance(live, tuple) else (live or {}, {})
        return data | still, metadata


# --- what a person reads -----------------------------------------------------------------------------------------------


def describe(settings: Settings, model: ModelVersion, champion: ModelVersion | None, checks: list[dict[str, Any]]) -> dict[str, Any]:
    """Say everything that is decided on, as JSON can carry it."""
    order = {False: 0, None: 1, True: 2}
    told = [
        {"name": one["name"], "group": one.get("group", ""), "verdict": VERDICTS[one["passed"]], "value": number(one.get("value")),
         "threshold": number(one.get("threshold")), "detail": one.get("detail", "")}
        for one in sorted(checks, key=lambda one: order[one["passed"]])
    ]  # fmt: skip
    return {
        "model": model.uri, "environment": settings.environment, "user": settings.user, "trained_by": model.trained_by,
        "personas": access.may(settings, "approve"), "persona": settings.persona, "facts": _facts(settings, model),
        "champion": champion.uri if champion else "", "metrics": _metrics(model, champion),
        "columns": _columns(settings, model, champion), "checks": told, "verdict": _verdict(checks),
    } | _decided(settings, model)  # fmt: skip


def _decided(settings: Settings, model: ModelVersion) -> dict[str, Any]:
    """Say what was decided, and by whom, the newest decision first."""
    past = [entry for entry in entries(settings, model.uri) if entry.action in ("approve", "refuse") and entry.subject == model.uri]
    words = {"approve": "approved", "refuse": "refused"}
    history = [{"what": f"{words[one.action]} by {one.user} ({one.persona}) for {one.environment}", "at": one.at[:16].replace("T", " "),
                "reason": str(one.details.get("reason", ""))} for one in reversed(past)]  # fmt: skip
    found = approval.decision(settings, model)
    state = found.decision if found else None
    said = f"{found.decision} by {found.by} ({found.persona})" if found else STATES[None]
    return {"state": state or "waiting", "said": said, "reason": found.reason if found else "", "history": history}


def _facts(settings: Settings, model: ModelVersion) -> list[list[str]]:
    """Say how the model came about: what its version says, and what MLflow's run says where that can be found."""
    facts = [["task", model.task], ["trained by", model.trained_by], ["trained on", model.table]]
    with suppress(Exception):  # a card is shown also where the tracking server is away, or the run was removed
        connect(settings)
        from mlflow import MlflowClient

        run = MlflowClient().get_run(model.run_id)
        facts += [["code", run.data.tags.get("code.commit", "")[:12]]]
        facts += [[name, str(value)] for name, value in sorted(run.data.params.items())]
    return [fact for fact in facts if fact[1]]


def _metrics(model: ModelVersion, champion: ModelVersion | None) -> list[dict[str, Any]]:
    """Put the metrics beside the champion's, with the difference and whether that is better."""
    found = []
    theirs = champion.metrics if champion else {}
    for name in sorted(set(model.metrics) | set(theirs)):
        mine, other = model.metrics.get(name), theirs.get(name)
        gain = 0.0 if mine is None or other is None else (other - mine if ERRORS.search(name) else mine - other)
        word = "" if mine is None or other is None else "same" if gain == 0 else "better" if gain > 0 else "worse"
        apart = "" if mine is None or other is None else f"{mine - other:+.3g}"
        found.append({"name": name, "candidate": number(mine), "champion": number(other), "difference": apart, "word": word})
    return found


def _columns(settings: Settings, model: ModelVersion, champion: ModelVersion | None) -> list[str]:
    """Say which of its inputs the champion does not have, and the other way round."""
    if champion is None:
        return []
    sides = []
    with suppress(Exception):  # as in `_facts`
        connect(settings)
        from mlflow.models import get_model_info

        for one in (champion, model):
            signature = get_model_info(f"models:/{one.name}/{one.version}").signature
            sides.append({column.name: str(column.type) for column in signature.inputs} if signature else {})
    if len(sides) < 2:
        return []
    before, after = sides
    new, gone = ([name for name in one if name not in other] for one, other in ((after, before), (before, after)))
    changed = [name for name in after if name in before and before[name] != after[name]]
    return [*(f"{name} is new" for name in new), *(f"{name} is gone" for name in gone),
            *(f"{name} was {before[name]}, is {after[name]}" for name in changed)]  # fmt: skip


def _verdict(checks: list[dict[str, Any]]) -> str:
    if not checks:
        return "no stage report"
    counts = [sum(check["passed"] is one for check in checks) for one in (True, False, None)]
    return f"{counts[0]} passed, {counts[1]} failed" + (f", {counts[2]} not judged" if counts[2] else "")


# --- as it stands, without a kernel and without scripts ----------------------------------------------------------------


def as_html(shown: Mapping[str, Any]) -> str:
    """Lay the facts out, without scripts and without buttons."""
    e = html.escape
    facts = "".join(f"<div><dt>{e(name)}</dt><dd>{e(value)}</dd></div>" for name, value in shown["facts"])
    rows = "".join(
        f"<tr><th scope='row'>{e(one['name'])}</th><td>{one['candidate']}</td><td>{one['champion']}</td>"
        f"<td class='{one['word']}'>{e(one['difference'])} {one['word']}</td></tr>"
        for one in shown["metrics"]
    )
    checks = "".join(
        f"<tr class='{one['verdict'].replace(' ', '-')}'><th scope='row'>{e(one['name'])}</th><td>{one['verdict']}</td>"
        f"<td>{one['value']}</td><td>{one['threshold']}</td><td>{e(one['detail'])}</td></tr>"
        for one in shown["checks"]
    )
    columns = "".join(f"<li>{e(text)}</li>" for text in shown["columns"])
    history = "".join(f"<li>{e(one['at'])} UTC {e(one['what'])}. {e(one['reason'])}</li>" for one in shown["history"])
    return (
        f"<style>{style('approval.css')}</style><section class='mlops-approval still' aria-label='approval of {e(shown['model'])}'>"
        f"<header><strong>{e(shown['model'])}</strong><span>{e(shown['environment'])}</span>"
        f"<span class='state' data-state='{shown['state']}'>{e(shown['said'])}</span></header><dl>{facts}</dl>"
        f"<table><caption>Beside {e(shown['champion'] or 'no champion yet')}</caption><thead><tr><td></td>"
        "<th scope='col'>candidate</th><th scope='col'>champion</th><th scope='col'>difference</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>{f'<h4>Inputs that changed</h4><ul>{columns}</ul>' if columns else ''}"
        f"<h4>Stage report: {e(shown['verdict'])}</h4>{f'<table><tbody>{checks}</tbody></table>' if checks else ''}"
        f"{f'<h4>Decisions</h4><ul>{history}</ul>' if history else ''}</section>"
    )
