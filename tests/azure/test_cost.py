"""What an endpoint on Azure cost, asked of Cost Management with its own SDK."""

import datetime as dt
import json
from collections.abc import Callable
from typing import Any

import pytest

from mlops_nb.azure.cost import azure_spending
from mlops_nb.core.records import Deployment, SpecificationError
from mlops_nb.core.settings import Settings
from mlops_nb.outer_loop.collected import Collected
from mlops_nb.outer_loop.cost import HISTORY, cost, staleness
from mlops_nb.outer_loop.monitor import Watch
from mlops_nb.outer_loop.signals import Asked

NOW = dt.datetime(2026, 11, 11, 9, tzinfo=dt.UTC)
JSON = {"Content-Type": "application/json"}
QUERY = "/providers/Microsoft.CostManagement/query"


class Costs:
    """Cost Management: it answers with the rows it has, so many a page, and keeps what it was asked."""

    def __init__(self, cloud: Any) -> None:
        self.rows: list[list[Any]] = []
        self.columns = ["Cost", "UsageDate", "TagKey", "TagValue", "Currency"]
        self.page = 5000
        self.status = 200
        self.asked: list[tuple[str, Any]] = []
        self.others: Callable[..., Any] = cloud.answer

    def day(self, day: dt.date, amount: float, deployment: str = "blue", currency: str = "EUR") -> None:
        self.rows.append([amount, int(f"{day:%Y%m%d}"), "azuremldeployment", deployment, currency])

    def answer(self, method: str, url: str, headers: Any, body: bytes | None) -> Any:
        if QUERY not in url:
            return self.others(method, url, headers, body)
        assert (method, str(headers.get("Authorization", ""))[:7]) == ("POST", "Bearer ")
        self.asked.append((url, json.loads(body or b"{}")))
        if self.status != 200:
            return self.status, JSON, json.dumps({"error": {"code": "No", "message": "not for you"}}).encode()
        start = int(url.partition("skip=")[2] or 0)
        more = f"https://management.azure.com/x{QUERY}?api-version=x&skip={start + self.page}"
        link = more if start + self.page < len(self.rows) else None
        properties = {"nextLink": link, "columns": [{"name": name, "type": "Number"} for name in self.columns],
                      "rows": self.rows[start:start + self.page]}
        return 200, JSON, json.dumps({"id": "1", "name": "1", "properties": properties}).encode()


@pytest.fixture
def costs(cloud: Any, monkeypatch: pytest.MonkeyPatch) -> Costs:
    """Six weeks of an endpoint that costs 2 euros a day, of which green half a euro since November."""
    found = Costs(cloud)
    monkeypatch.setattr(cloud, "answer", found.answer)
    for number in range(42):
        day = NOW.date() - dt.timedelta(days=number + 1)
        if day.month == 11:
            found.day(day, 1.5)
            found.day(day, 0.5, "green")
        else:
            found.day(day, 2.0)
    return found


def test_the_question_is_of_one_endpoint_and_the_days_are_added_up(shop: Settings, costs: Costs, credential: Any) -> None:
    costs.page = 7  # more pages than one
    spent = azure_spending(shop, "diamonds", NOW, HISTORY, credential)
    url, asked = costs.asked[0]
    assert f"/subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/mlops-nb-dev{QUERY}" in url
    assert asked["timePeriod"] == {"from": "2026-10-14T00:00:00Z", "to": "2026-11-11T09:00:00Z"}
    assert asked["dataset"]["filter"] == {"tags": {"name": "azuremlendpoint", "operator": "In", "values": ["diamonds"]}}
    assert asked["dataset"]["grouping"] == [{"type": "TagKey", "name": "azuremldeployment"}]
    assert len(costs.asked) > 5
    assert {json.dumps(body, sort_keys=True) for _, body in costs.asked} == {json.dumps(asked, sort_keys=True)}
    assert (spent.month, spent.parts, spent.currency) == (20.0, {"blue": 15.0, "green": 5.0}, "EUR")
    assert spent.days[dt.date(2026, 11, 3)] == 2.0


def asked_of(settings: Settings, **parameters: Any) -> Asked:
    watch = Watch("cost", "custom", {}, parameters=parameters)
    return Asked(settings.model_copy(update={"backend": "azure"}), watch, "regression", Deployment("diamonds", "blue", "", "dev"),
                 (NOW - dt.timedelta(days=1), NOW), lambda collection, window: Collected(None, 0))  # type: ignore[arg-type]


def test_the_signal_is_the_same_as_on_this_machine(shop: Settings, costs: Costs, signed_in: None) -> None:
    found = {(m.metric, m.feature): m for m in cost(asked_of(shop, budget="50", time_zone="Europe/Vienna"))}
    assert found["cost_to_date", ""].value == 20.0
    assert found["cost_to_date", "green"].value == 5.0
    assert found["cost_forecast", ""].value == pytest.approx(20 + 2 * (19 + 15 / 24))
    assert found["cost_forecast", ""].detail["currency"] == "EUR"
    assert found["budget_share", "actual"].detail["reached"] == []
    assert found["budget_share", "forecast"].detail["reached"] == [50, 80, 100]
    assert staleness(asked_of(shop))[0].problem.startswith("Azure Monitor counts")


def test_everything_in_the_resource_group(shop: Settings, costs: Costs, signed_in: None) -> None:
    cost(asked_of(shop, scope="environment"))
    assert "filter" not in costs.asked[0][1]["dataset"]
    assert costs.asked[0][1]["dataset"]["grouping"] == [{"type": "TagKey", "name": "azuremlendpoint"}]


def test_no_cost_two_currencies_and_an_unknown_answer(shop: Settings, costs: Costs, credential: Any) -> None:
    costs.day(NOW.date(), 1.0, currency="USD")
    assert "in EUR, USD, which cannot be added" in azure_spending(shop, "diamonds", NOW, HISTORY, credential).problem
    costs.rows = []
    assert "has no cost of diamonds since 2026-10-14" in azure_spending(shop, "diamonds", NOW, HISTORY, credential).problem
    costs.rows, costs.columns = [[1, 2]], ["What", "When"]
    with pytest.raises(ValueError, match="columns What, When"):
        azure_spending(shop, "diamonds", NOW, HISTORY, credential)


@pytest.mark.parametrize(("status", "error", "said"), [
    (403, PermissionError, "does not let you"), (401, SpecificationError, "does not know you"),
    (400, SpecificationError, "not for you")])  # fmt: skip
def test_what_azure_refuses_is_said_in_words(shop: Settings, costs: Costs, credential: Any, status: int, error: type[Exception],
                                             said: str) -> None:
    costs.status = status
    with pytest.raises(error, match=said):
        azure_spending(shop, "diamonds", NOW, HISTORY, credential)
