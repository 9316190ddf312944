"""Ask Azure Cost Management what an environment's resource group, or one of its endpoints, cost day by day.

Azure tags the machines of a managed online endpoint with `azuremlendpoint` and `azuremldeployment`. Its days are those of UTC, and the
newest are up to a day behind.
"""

import datetime as dt
import json
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from mlops_nb.azure.workspace import explained, find_workspace
from mlops_nb.core.settings import Settings

if TYPE_CHECKING:
    from azure.mgmt.costmanagement import CostManagementClient

    from mlops_nb.outer_loop.cost import Spending

ENDPOINT, DEPLOYMENT = "azuremlendpoint", "azuremldeployment"
PAGES = 100  # of one answer, at most


def azure_spending(
    settings: Settings,
    endpoint: str,  # empty: everything in the environment's resource group
    until: dt.datetime,
    history: dt.timedelta,  # before `until`, that a forecast looks at
    credential: Any = None,  # an azure-identity credential; None: DefaultAzureCredential
) -> "Spending":
    """Add up what was spent; raises `SpecificationError` or `PermissionError` that say what Azure does not let us."""
    from mlops_nb.outer_loop.cost import Spending, month_of

    start = month_of(until, ZoneInfo("UTC"))[0]
    first = min(start, until.astimezone(dt.UTC) - history).date()
    rows = list(_rows(settings, endpoint, first, until.astimezone(dt.UTC), credential))
    whose = endpoint or f"resource group {find_workspace(settings).resource_group}"
    if not rows:
        return Spending({}, 0.0, problem=f"Cost Management has no cost of {whose} since {first}. It is up to a day behind.")
    if len(currencies := sorted({row[3] for row in rows})) > 1:
        return Spending({}, 0.0, problem=f"Cost Management tells costs of {whose} in {', '.join(currencies)}, which cannot be added.")
    days: dict[dt.date, float] = {}
    parts: dict[str, float] = {}
    for day, amount, part, _ in rows:
        days[day] = days.get(day, 0.0) + amount
        if day >= start.date():
            parts[part or "other"] = parts.get(part or "other", 0.0) + amount
    began = dt.datetime.combine(min(days), dt.time(), dt.UTC)
    method = "Azure Cost Management, actual cost, days of UTC"
    return Spending(days, sum(parts.values()), parts, began, currency=currencies[0], method=method)


def _rows(settings: Settings, endpoint: str, first: dt.date, until: dt.datetime, credential: Any
          ) -> "list[tuple[dt.date, float, str, str]]":
    """Ask for every page: day, cost, the deployment's (or endpoint's) name, currency."""
    from azure.mgmt.costmanagement import CostManagementClient

    if credential is None:
        from azure.identity import DefaultAzureCredential

        credential = DefaultAzureCredential()
    workspace = find_workspace(settings)
    scope = f"/subscriptions/{workspace.subscription}/resourceGroups/{workspace.resource_group}"
    question: Any = _question(endpoint, first, until)
    found: list[tuple[dt.date, float, str, str]] = []
    with explained(f"read the cost of {endpoint or workspace.resource_group}"), CostManagementClient(credential) as client:
        answer = client.query.usage(scope, question)
        page: dict[str, Any] = answer.as_dict() if answer else {}
        for _ in range(PAGES):
            about = page.get("properties") or {}
            found += _read(about)
            if not about.get("nextLink"):
                return found
            page = _next(client, about["nextLink"], question)
    raise ConnectionError(f"Cost Management answers with more than {PAGES} pages for {scope}. Choose one endpoint instead.")


def _question(endpoint: str, first: dt.date, until: dt.datetime) -> dict[str, Any]:
    """Ask for the cost of every day, by deployment; or by endpoint."""
    group = {"type": "TagKey", "name": DEPLOYMENT if endpoint else ENDPOINT}
    total = {"totalCost": {"name": "Cost", "function": "Sum"}}
    dataset: dict[str, Any] = {"granularity": "Daily", "aggregation": total, "grouping": [group]}
    if endpoint:
        dataset["filter"] = {"tags": {"name": ENDPOINT, "operator": "In", "values": [endpoint]}}
    period = {"from": f"{first}T00:00:00Z", "to": f"{until:%Y-%m-%dT%H:%M:%S}Z"}
    return {"type": "ActualCost", "timeframe": "Custom", "timePeriod": period, "dataset": dataset}


def _read(about: dict[str, Any]) -> "list[tuple[dt.date, float, str, str]]":
    """Read one page, whose columns say in which place what stands; raises `ValueError` for one that lacks some."""
    names = [str(column.get("name")) for column in about.get("columns") or []]
    rows = about.get("rows") or []
    cost = next((names.index(name) for name in ("Cost", "totalCost", "PreTaxCost") if name in names), -1)
    if rows and (cost < 0 or "UsageDate" not in names):
        raise ValueError(f"Cost Management answers with the columns {', '.join(names)}: Cost and UsageDate are missing.")
    found = []
    for row in rows:
        part, currency = (str(row[names.index(name)] or "") if name in names else "" for name in ("TagValue", "Currency"))
        day = dt.datetime.strptime(str(row[names.index("UsageDate")])[:8], "%Y%m%d").date()
        found.append((day, float(row[cost]), part, currency))
    return found


def _next(client: "CostManagementClient", address: str, question: dict[str, Any]) -> dict[str, Any]:
    """Follow an answer to its next page; the SDK knows only the first."""
    from azure.core.rest import HttpRequest

    answer = client.send_request(HttpRequest("POST", address, json=question))
    answer.raise_for_status()
    page = json.loads(answer.text())
    return page if isinstance(page, dict) else {}
