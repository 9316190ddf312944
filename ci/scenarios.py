"""Run scenarios as CI does, each through `mlops-nb run`, and gather what they leave for people in one folder.

The folder is a state folder without data: after a download `mlops-nb runs show --state FOLDER` and `mlops-nb ledger verify
--state FOLDER` read it. Exit codes are those of `mlops-nb`, but a gate that says no or waits for a person (3) is no failure.

A workflow hands its inputs over as the variables SCENARIO, ENVIRONMENT and PARAMETERS, never inside a shell command.
"""

import argparse
import html
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from mlops_nb.core.files import write_file
from mlops_nb.core.runs import Run, list_runs
from mlops_nb.core.settings import Settings, load_settings
from mlops_nb.core.specification import read_pipeline
from mlops_nb.widgets.run import describe, tail
from mlops_nb.widgets.still import as_html, draw

GATE = 3
STYLE = ":root{color-scheme:light dark}body{font-family:system-ui,sans-serif;margin:2rem auto;max-width:66rem;padding:0 1rem}"


@dataclass(frozen=True)
class Outcome:
    """How a scenario ended."""

    scenario: str
    code: int  # of `mlops-nb run`
    run: Run | None  # None: it did not come so far

    @property
    def state(self) -> str:
        """Its run's state, or that it was refused."""
        return self.run.state if self.run else f"refused (exit code {self.code})"


def main() -> int:
    """Run, gather, tell; returns the exit code."""
    names, environment, values = read_arguments()
    settings = load_settings(environment)
    known = sorted(path.stem for path in (settings.root / "ci/pipelines").glob("*.yml"))
    if unknown := [name for name in names if name not in known]:
        print(f"No scenario {', '.join(unknown)} in ci/pipelines (scenarios: {', '.join(known)}).", file=sys.stderr)
        return 2
    by_themselves = [name for name in known if "train" in read_steps(settings, name)]  # batch and monitor ask for a model that is there
    outcomes = [run_one(settings, name, values) for name in names or by_themselves]
    folder = gather(settings, outcomes)
    tell(folder, outcomes)
    return next((outcome.code for outcome in outcomes if outcome.code not in (0, GATE)), 0)


def read_steps(settings: Settings, name: str) -> list[str]:
    """List the steps of a scenario."""
    return [step.name for step in read_pipeline(settings.root / "ci/pipelines" / f"{name}.yml").steps]


def read_arguments() -> tuple[list[str], str, list[str]]:
    """Read scenarios, environment and parameters from the command line, or else from the variables that a workflow sets."""
    parser = argparse.ArgumentParser(prog="ci/scenarios", description="Run scenarios, and gather what they made in .mlops/ci.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="scenario: a file of ci/pipelines; none: all of them")
    parser.add_argument("--env", default=os.environ.get("ENVIRONMENT", "").strip(), help="a section of settings.ini; dev")
    parser.add_argument("-p", action="append", default=[], metavar="NAME=VALUE", help="parameter; repeat for more")
    given = parser.parse_args()
    names = given.names or [name for name in os.environ.get("SCENARIO", "").split() if name != "all"]
    return names, given.env, given.p or shlex.split(os.environ.get("PARAMETERS", ""))


def run_one(settings: Settings, scenario: str, values: list[str]) -> Outcome:
    """Run a scenario in a process of its own, and find the run that it wrote to."""
    print(f"{scenario}:", flush=True)
    before = journals(settings, scenario)
    command = [str(Path(sys.executable).with_name("mlops-nb")), "run", scenario, f"--env={settings.environment}"]
    code = subprocess.run([*command, *(f"-p{value}" for value in values)]).returncode  # noqa: S603
    runs = list_runs(settings, scenario)
    after = journals(settings, scenario)
    written = [run for run in runs if after[run.id] != before.get(run.id)]
    nothing_changed = runs if code == 0 else []
    return Outcome(scenario, code, next(reversed(written or nothing_changed), None))


def journals(settings: Settings, scenario: str) -> dict[str, int]:
    """Return the length of every run's journal, which only ever grows."""
    found = {run.id: run.folder / "journal.jsonl" for run in list_runs(settings, scenario)}
    return {name: path.stat().st_size if path.exists() else 0 for name, path in found.items()}


def gather(settings: Settings, outcomes: list[Outcome]) -> Path:
    """Copy what people read of the runs, and of those whose results they use; outputs, which hold data, stay behind."""
    folder = settings.state / "ci"
    shutil.rmtree(folder, ignore_errors=True)
    for run in (outcome.run for outcome in outcomes if outcome.run):
        for name in {run.id, *(path.relative_to(settings.runs).parts[0] for path in notebooks(settings, run).values())}:
            ignored = shutil.ignore_patterns("outputs", "pid", ".*")
            shutil.copytree(settings.runs / name, folder / "runs" / name, ignore=ignored, dirs_exist_ok=True)
    if settings.ledger.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(settings.ledger)) as ledger, closing(sqlite3.connect(folder / "ledger.db")) as copy:
            ledger.backup(copy)  # a copy of the file alone would miss what is still in its journal
    write_file(folder / "index.html", front_page(settings, outcomes))
    write_file(folder / "summary.md", summary(outcomes))
    return folder


def notebooks(settings: Settings, run: Run) -> dict[str, Path]:
    """Return the executed notebooks of a run's steps and trials, those that it borrows from other runs among them."""
    return {step: path for step, path in run.notebooks.items() if path.is_file() and path.is_relative_to(settings.runs)}


def front_page(settings: Settings, outcomes: list[Outcome]) -> str:
    """Show every run as a graph, and lead to its executed notebooks."""
    parts = []
    for outcome in outcomes:
        parts.append(f"<h2>{html.escape(outcome.scenario)}: {html.escape(outcome.state)}</h2>")
        if (run := outcome.run) is None:
            continue
        parts.append(as_html(draw(run), describe(run), {step: tail(run.folder, step) for step in run.planned}))
        for step, path in notebooks(settings, run).items():
            notebook = f"runs/{path.relative_to(settings.runs).as_posix()}"
            report = notebook.removesuffix(".ipynb") + ".html"
            links = [(notebook, "notebook"), *([(report, "HTML")] if path.with_suffix(".html").exists() else [])]
            shown = ", ".join(f'<a href="{html.escape(link)}">{text}</a>' for link, text in links)
            parts.append(f"<div>{html.escape(step)}: {shown}</div>")
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Scenarios</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body><h1>Scenarios</h1>{"".join(parts)}</body></html>'


def summary(outcomes: list[Outcome]) -> str:
    """Say in a table how every scenario ended, and what a gate or a failure said."""
    rows = ["| scenario | | run | |", "| --- | --- | --- | --- |"]
    for outcome in outcomes:
        said = html.escape(outcome.run.message if outcome.run else "").replace("|", "&#124;").replace("\n", "<br>")
        rows.append(f"| {outcome.scenario} | {outcome.state} | {outcome.run.id if outcome.run else ''} | {said} |")
    return "\n".join([*rows, ""])


def tell(folder: Path, outcomes: list[Outcome]) -> None:
    """Print how it went; GitHub and Azure Pipelines show the table on the run's own page."""
    print()
    for outcome in outcomes:
        print(f"{outcome.scenario}: {outcome.state}", *([outcome.run.id] if outcome.run else []))
    print(f"gathered in {folder}: open index.html", flush=True)
    if page := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(page).open("a") as file:
            file.write((folder / "summary.md").read_text())
    if os.environ.get("TF_BUILD"):
        print(f"##vso[task.uploadsummary]{folder / 'summary.md'}")


if __name__ == "__main__":
    sys.exit(main())
