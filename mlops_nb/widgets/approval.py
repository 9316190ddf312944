"""The approval card: the candidate beside the champion, the stage report, and two buttons."""

import html
import os
from typing import Any

import ipywidgets

from mlops_nb.core import access
from mlops_nb.core.records import ModelVersion
from mlops_nb.core.settings import Settings
from mlops_nb.outer_loop import approval


class ApprovalCard(ipywidgets.VBox):
    """Approve or refuse a model version by hand; the decision is the very one of `mlops-nb approve` and `refuse`."""

    def __init__(
        self,
        settings: Settings,
        model: ModelVersion,  # the candidate
        champion: ModelVersion | None = None,  # None: there is none yet
        checks: list[dict[str, Any]] | None = None,  # the stage report's, as `staging.save_report` wrote them
    ):
        self.settings, self.model = settings, model
        self.facts = ipywidgets.HTML(_facts(model, champion, checks or []))
        self.name = ipywidgets.Text(description="name", placeholder=f"not {model.trained_by}, who trained it")
        self.persona = ipywidgets.Dropdown(description="persona", options=access.may(settings, "approve"))
        self.reason = ipywidgets.Text(description="reason", placeholder="for the ledger; required to refuse")
        self.approve = ipywidgets.Button(description="Approve", button_style="success")
        self.refuse = ipywidgets.Button(description="Refuse", button_style="danger")
        self.answer = ipywidgets.HTML()
        self.approve.on_click(lambda _: self._decide("approve"))
        self.refuse.on_click(lambda _: self._decide("refuse"))
        super().__init__([self.facts, self.name, self.persona, self.reason,
                          ipywidgets.HBox([self.approve, self.refuse]), self.answer])  # fmt: skip
        self._show(approval.decision(settings, model))

    def _decide(self, choice: str) -> None:
        acting = self.settings.model_copy(
            update={"user": self.name.value.strip() or self.settings.user, "persona": self.persona.value}
        )
        try:
            self._show(getattr(approval, choice)(acting, self.model, self.reason.value.strip()))
        except (PermissionError, ValueError) as problem:
            self.answer.value = f'<span role="alert" style="color:#b02a37">{html.escape(str(problem))}</span>'

    def _show(self, decision: Any) -> None:
        if decision is None:
            self.answer.value = "waits for a decision"
            return
        who = f"{decision.decision} by {decision.by} ({decision.persona})"
        self.answer.value = f"<b>{html.escape(who)}</b> {html.escape(decision.reason)}"

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """Show the facts alone where nobody can click: in an executed notebook's report, in the docs."""
        if os.environ.get("MLOPS_NB_HEADLESS"):
            return {"text/html": self.facts.value, "text/plain": repr(self.model)}
        return super()._repr_mimebundle_(**options)


def _facts(model: ModelVersion, champion: ModelVersion | None, checks: list[dict[str, Any]]) -> str:
    names = sorted(set(model.metrics) | set(champion.metrics if champion else {}))
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{_number(model.metrics.get(name))}</td>"
        f"<td>{_number(champion.metrics.get(name)) if champion else ''}</td></tr>"
        for name in names
    )
    failed = [check["name"] for check in checks if check["passed"] is False]
    passed = sum(check["passed"] is True for check in checks)
    stage = f"{passed} checks passed, {len(failed)} failed {', '.join(failed)}" if checks else "no stage report"
    return (
        f"<p><b>{html.escape(model.uri)}</b>: {html.escape(model.task)}, trained by {html.escape(model.trained_by)} "
        f"on {html.escape(model.table)}</p><table><tr><th></th><th>candidate</th><th>champion</th></tr>{rows}</table>"
        f"<p>Stage report: {html.escape(stage)}</p>"
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
