"""The demo: a shop that has sold small diamonds starts to sell bigger ones; the loop notices, says why, retrains, and is quiet again.

Everything is real but the customers and the two decisions of a person, which the demo records as its own: papermill runs, the
registry, endpoints in their own processes, HTTP requests, drift metrics, the diagnosis, the policy, the ledger. The data is
plotnine's `diamonds`, 53,940 priced stones with real faults.
"""

import html
import json
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mlops_nb.core.files import write_file
from mlops_nb.core.records import Deployment, ModelVersion, PeopleNeeded, TableVersion, load_record
from mlops_nb.core.runs import Run
from mlops_nb.core.settings import Settings, load_settings
from mlops_nb.demo_labels import label_the_post
from mlops_nb.terminal import console, run_scenario

if TYPE_CHECKING:
    import pandas as pd

SMALL = 0.8  # carat; the biggest stone the shop has sold so far
ENDPOINT = "diamonds"


@dataclass(frozen=True)
class Chapter:
    """One row of the summary."""

    what: str
    model: str
    rows: int
    r2: float
    error: float  # mean absolute error, dollars
    drifted: str  # signals beyond their thresholds
    decision: str
    page: Path  # what the monitor saw


def run_demo(folder: Path | str = ".", keep: bool = True) -> Path:
    """Walk the loop twice in a project folder (laid if it is empty); returns the report's path."""
    from mlops_nb.kernels.manager import warm_up

    began = time.monotonic()
    warm_up()
    settings = _fresh(Path(folder).resolve())
    shop = _Shop(settings.state / "shop")
    out = console()
    out.print(f"[bold]mlops-nb demo[/] in {settings.state}\n")

    out.print(f"[bold]1. The first model[/]: the shop has sold {shop.open():,} stones of up to {SMALL} carat")
    first = _loop(settings, shop)
    home = _chapter(settings, shop, first, "stones like those sold", shop.ordinary)
    out.print(f"   traffic: {_traffic(settings)}", highlight=False)
    out.print(f"   {home.rows} requests for such stones: R2 {home.r2:.2f}, decision: {home.decision}\n")

    out.print("[bold]2. The world moves[/]: customers ask for bigger stones; the prices paid come in later")
    abroad = _chapter(settings, shop, first, "bigger stones", shop.bigger)
    out.print(f"   {abroad.rows} requests: R2 {abroad.r2:.2f}, beyond threshold: {abroad.drifted}, decision: {abroad.decision}")
    out.print(f"   {_diagnosis(settings)}\n", highlight=False)

    out.print(f"[bold]3. Retrained under the policy[/]: on all {shop.grow():,} stones sold by now; canary, then all the traffic")
    second = _retrain(settings)
    mended = _chapter(settings, shop, second, "stones of every size", shop.mixed)
    out.print(f"   traffic: {_traffic(settings)}", highlight=False)
    out.print(f"   {mended.rows} requests: R2 {mended.r2:.2f}, decision: {mended.decision}\n")

    out.print(f"[bold]4. The stock[/]: {shop.lay_stock():,} stones in files, priced in batch by the model in charge")
    batch = run_scenario(settings, "batch", {"data": str(shop.stock), "name": ENDPOINT}, new=True)

    out.print("\n[bold]5. People label[/]: two of them read handwritten digits, a third one decides where they differ")
    labels = label_the_post(settings)
    out.print(f"   {labels.final} pictures, {labels.disputed} of them disputed (alpha {labels.alpha:.2f}); a small model learned")
    out.print(f"   from them, and {labels.right:.0%} of what it proposes for {labels.proposed} new ones is right\n")

    seconds = time.monotonic() - began
    chapters = [home, abroad, mended]
    report = write_file(settings.state / "report.html", _page(settings, chapters, [first, second, batch, labels.run], seconds))
    _finish(settings, chapters, report, seconds, keep)
    return report


def _fresh(root: Path) -> Settings:
    """Lay the project if there is none, and begin with an empty state folder of the demo's own."""
    from mlops_nb.outer_loop import online
    from mlops_nb.setup.project import lay_project

    if not (root / "settings.ini").is_file():
        lay_project(root)
    settings = load_settings("dev", root, state=root / ".mlops" / "demo", user="demo", persona="data_scientist")
    if settings.state.is_dir():
        for name in {deployment["endpoint"] for deployment in online.endpoint_status(settings)}:
            online.stop(settings, name)
        shutil.rmtree(settings.state)
    return settings


class _Shop:
    """The shop's sales file, and the customers to come."""

    def __init__(self, folder: Path):
        from plotnine.data import diamonds

        self.sales, self.prices, self.stock = folder / "sales.csv", folder / "prices.csv", folder / "stock"
        stones = diamonds.sample(frac=1.0, random_state=7)
        small, big = stones[stones["carat"] <= SMALL], stones[stones["carat"] > SMALL]
        self.ordinary, self.bigger = small[:400], big[:400]
        self.mixed = stones.drop(index=self.ordinary.index.union(self.bigger.index))[-600:]  # as they come: of every size
        self._asked = self.ordinary.index.union(self.mixed.index)
        self._small, self._all = small.drop(index=self._asked, errors="ignore"), stones.drop(index=self._asked)

    def open(self) -> int:
        """Write the sales of small stones; returns how many."""
        return self._write(self._small)

    def grow(self) -> int:
        """Write the sales of all stones; returns how many."""
        return self._write(self._all)

    def lay_stock(self, files: int = 4, rows: int = 2500) -> int:
        """Write lists of stones that have no price yet; returns how many stones."""
        stones = self._all.drop(columns="price")[: files * rows]
        for number in range(files):
            write_file(self.stock / f"{number + 1}.csv", stones[number * rows : (number + 1) * rows].to_csv(index=False))
        return len(stones)

    def _write(self, frame: "pd.DataFrame") -> int:
        write_file(self.sales, frame.sort_index().to_csv(index=False))
        return len(frame)


def _loop(settings: Settings, shop: _Shop) -> Run:
    """Run the scenario to its gate, decide as the demo's project lead, and go on."""
    values = {"data": str(shop.sales), "target": "price", "name": ENDPOINT, "sensitive": "cut", "budget_seconds": "5"}
    values |= {"batch": "false"}  # the last chapter scores files
    try:
        return run_scenario(settings, "classical", values, new=True)
    except PeopleNeeded:
        from mlops_nb.core.runs import list_runs

        run = list_runs(settings, "classical")[-1]
        _approve_model(settings, run)
        return run_scenario(settings, "classical", None, run_id=run.id)


def _lead(settings: Settings) -> Settings:
    return settings.model_copy(update={"user": "demo-lead", "persona": "project_lead"})


def _approve_model(settings: Settings, run: Run) -> None:
    """Decide on a run's candidate as the demo's project lead."""
    from mlops_nb.outer_loop import approval

    candidate = load_record(ModelVersion, run.output("stage", "candidate"))
    approval.approve(_lead(settings), candidate, "recorded as the demo's own: the stage report passed")
    console().print(f"  approved  {candidate.name}/{candidate.version} by demo-lead as project_lead")


def _retrain(settings: Settings) -> Run:
    """Let the retraining happen that the policy has proposed: a person agrees, it runs to its gate, a person agrees, it goes live."""
    from mlops_nb.core.runs import load_run
    from mlops_nb.outer_loop import actions, history

    [waiting] = [action for action in history.actions(settings, state="waiting") if action.kind == "retrain"]
    actions.approve(_lead(settings), waiting.id, "recorded as the demo's own: the diagnosis says so")
    console().print(f"  approved  the retraining {waiting.id} by demo-lead as project_lead")
    actions.carry_out(settings, run_scenario)
    [action] = [action for action in history.actions(settings) if action.id == waiting.id]
    run = load_run(settings.runs / action.run)
    _approve_model(settings, run)
    run_scenario(settings, run.scenario, None, run_id=run.id)
    actions.carry_out(settings, run_scenario)  # writes down that it is done
    return load_run(run.folder)


def _diagnosis(settings: Settings) -> str:
    """Say what the newest diagnosis says."""
    from mlops_nb.outer_loop import history

    return next(str(action.details["diagnosis"]) for action in reversed(history.actions(settings)) if "diagnosis" in action.details)


def _chapter(settings: Settings, shop: _Shop, run: Run, what: str, stones: "pd.DataFrame") -> Chapter:
    """Send the stones to the endpoint, let their prices come in, and look at the monitor."""
    import pandas as pd
    from sklearn.metrics import mean_absolute_error, r2_score

    names = [f"{what.replace(' ', '-')}-{i}" for i in range(len(stones))]
    answers = _ask(settings, stones.drop(columns="price"), names)
    known = pd.DataFrame({"correlationid": [f"{name}_0" for name in names], "price": stones["price"].to_numpy()})
    write_file(shop.prices, known.to_csv(index=False))
    time.sleep(0.5)  # the collector writes within a fraction of a second
    watched = run_scenario(settings, "monitor", {"name": ENDPOINT, "ground_truth": str(shop.prices)}, new=True)
    alert = json.loads(watched.output("monitor", "decision").read_text())
    deployment = load_record(Deployment, run.output("deploy", "deployed"))
    drifted = sorted({signal["type"] for signal in alert["signals"]})
    return Chapter(
        what, deployment.model.removeprefix("model:"), len(stones), float(r2_score(known["price"], answers)),
        float(mean_absolute_error(known["price"], answers)), ", ".join(drifted) or "none", ", ".join(alert["actions"]) or "none",
        watched.folder / "50_monitor.html",
    )  # fmt: skip


def _ask(settings: Settings, stones: "pd.DataFrame", names: Sequence[str]) -> list[float]:
    """Send one request a stone over four connections, each named, so that its price can be joined later."""
    from mlops_nb.outer_loop import client, credentials
    from mlops_nb.outer_loop.state import read_wanted

    place = urlsplit(client.base_address(wanted := read_wanted(settings, ENDPOINT)))
    opens = credentials.authorization(settings, ENDPOINT)
    payload = json.loads(stones.to_json(orient="split", index=False))
    requests = list(zip(names, payload["data"], strict=True))

    def connect() -> HTTPConnection:
        host, port = place.hostname or "127.0.0.1", place.port
        if wanted["tls"]:
            return HTTPSConnection(host, port, timeout=30, context=client.trust(wanted["tls"]["certificate"]))
        return HTTPConnection(host, port, timeout=30)

    def send(part: list[tuple[str, list[Any]]]) -> list[float]:
        connection, answers = connect(), []
        for name, row in part:
            body = json.dumps({"input_data": {"columns": payload["columns"], "index": [0], "data": [row]}})
            headers = {"Content-Type": "application/json", "x-request-id": name, **opens}
            connection.request("POST", "/score", body, headers)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200:
                raise RuntimeError(f"{ENDPOINT} answered {answer.status}: {text.decode()}")
            answers.append(float(json.loads(text)[0]))
        connection.close()
        return answers

    size = -(-len(requests) // 4)
    with ThreadPoolExecutor(4) as pool:
        parts = pool.map(send, [requests[i : i + size] for i in range(0, len(requests), size)])
        return [answer for part in parts for answer in part]


def _traffic(settings: Settings) -> str:
    """Say who answers the requests."""
    from mlops_nb.outer_loop import online

    found = online.deployments(settings, ENDPOINT)
    return ", ".join(f"{d.name} ({d.model.removeprefix('model:')}) {d.traffic} %" for d in found)


def _table(chapters: list[Chapter]) -> list[tuple[str, ...]]:
    return [
        (c.what, c.model, str(c.rows), f"{c.r2:.2f}", f"${c.error:,.0f}", c.drifted, c.decision) for c in chapters
    ]  # fmt: skip


COLUMNS = ("requests for", "model", "requests", "R2", "mean error", "beyond threshold", "decision")


def _page(settings: Settings, chapters: list[Chapter], runs: list[Run], seconds: float) -> str:
    """Lay out the report: the summary, and a link to every executed notebook."""

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)

    def link(page: Path, text: str) -> str:
        return f'<a href="{page.relative_to(settings.state)}">{html.escape(text)}</a>'

    rows = "".join(f"<tr>{cells('td', row)}<td>{link(chapter.page, 'what the monitor saw')}</td></tr>"
                   for chapter, row in zip(chapters, _table(chapters), strict=True))  # fmt: skip
    lists = []
    for run in runs:
        pages = "".join(f"<li>{link(page, page.stem)}</li>" for page in sorted(run.folder.glob("[0-9]*.html")))
        gold = run.output("data", "gold")
        table = load_record(TableVersion, gold) if gold.is_file() else None
        about = f"<p>{table.rows:,} stones in {html.escape(table.uri)}</p>" if table else ""
        lists.append(f"<h2>Run {run.id}</h2>{about}<ol>{pages}</ol>")
    style = "body{font:16px/1.5 system-ui;max-width:60rem;margin:3rem auto;padding:0 1rem;color:#1b1b1b}"
    style += "table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.4rem .6rem;border-bottom:1px solid #ddd}"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>mlops_nb demo</title><style>{style}</style>'
        f"<h1>The loop, walked twice</h1><p>In {seconds:.0f} seconds on this machine.</p>"
        f"<table><tr>{cells('th', (*COLUMNS, ''))}</tr>{rows}</table>{''.join(lists)}</html>"
    )


def _finish(settings: Settings, chapters: list[Chapter], report: Path, seconds: float, keep: bool) -> None:
    from rich.table import Table

    from mlops_nb.core import ledger
    from mlops_nb.outer_loop import online

    out = console()
    table = Table(box=None, header_style="dim", pad_edge=False)
    for column in COLUMNS:
        table.add_column(column, overflow="fold")
    for row in _table(chapters):
        table.add_row(*row)
    out.print(table)
    entries = len(ledger.entries(settings))
    out.print(f"\n{seconds:.0f} s; {entries} ledger entries, {'unbroken' if not ledger.verify(settings) else 'BROKEN'}")
    out.print(f"report: {report}\n")
    state = settings.state.relative_to(settings.root)
    out.print("Next:")
    out.print(f"  mlops-nb monitor alerts --state {state}        what the monitor found; `monitor actions`: what came of it")
    if keep:
        out.print(f"  mlops-nb invoke {ENDPOINT} --state {state}       ask the live endpoint")
        out.print(f"  mlops-nb traffic {ENDPOINT} --roll-back --state {state}   let the first model answer again")
    else:
        online.stop(settings, ENDPOINT)
        out.print(f"  mlops-nb endpoint start {ENDPOINT} --state {state}   bring the endpoint back")
    out.print(f"  mlops-nb label page digits --state {state}       label the new pictures yourself")
    out.print(f"  mlops-nb ledger show --state {state}           who did what, when")
    out.print("  mlops-nb run classical -p data=YOUR.csv -p target=COLUMN   the same with your table")
