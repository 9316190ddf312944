"""A run as it stands: the same picture as the live one, without a kernel and without scripts, for reports and the docs."""

import html
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mlops_nb.core.runs import Run
from mlops_nb.widgets.graph import Place, lay_out

WORDS = {"running": "running", "done": "done", "skipped": "skipped", "waiting": "waits for a person", "closed": "gate closed",
         "failed": "failed", "stopped": "stopped", "partial": "partly done", "": "not started"}  # fmt: skip
ICONS = {"running": "M8 2.5a5.5 5.5 0 1 1-5.5 5.5", "done": "M3.5 8.5l3 3 6-7", "skipped": "M3 4l4 4-4 4M8.5 4l4 4-4 4",
         "waiting": "M5.5 3.5v9M10.5 3.5v9", "closed": "M8 2.5a5.5 5.5 0 1 0 .01 0M5 8h6", "failed": "M4 4l8 8M12 4l-8 8",
         "stopped": "M4.5 4.5h7v7h-7z", "partial": "M8 2.5a5.5 5.5 0 1 0 .01 0M8 2.5v11",
         "": "M8 4.5a3.5 3.5 0 1 0 .01 0"}  # fmt: skip
BAD = ("failed", "closed", "waiting", "stopped")  # what a person wants to read first, and why
NODE, PITCH = (152, 46), (192, 62)  # pixels: a node's size, and the way to the next one
STYLE = Path(__file__).with_name("run.css")


def draw(run: Run) -> dict[str, Any]:
    """Place the steps of a run, in pixels; what never changes while it goes."""
    needs = run.needs or {step: run.planned[i - 1 : i] if i else [] for i, step in enumerate(run.planned)}
    layout = lay_out({step: needs.get(step, []) for step in run.planned})
    nodes = {step: [column * PITCH[0], row * PITCH[1]] for step, (column, row) in layout.places.items()}
    edges = [{"from": ends[0], "to": ends[1], "path": _curve(places)} for ends, places in layout.edges.items()]
    return {"nodes": nodes, "edges": edges, "width": max((x for x, _ in nodes.values()), default=0) + NODE[0],
            "height": max((y for _, y in [*nodes.values(), *_bends(layout.edges.values())]), default=0) + NODE[1] + 8,
            "words": WORDS, "icons": ICONS}  # fmt: skip


def _bends(edges: Iterable[list[Place]]) -> list[Place]:
    return [(0, row * PITCH[1]) for places in edges for _, row in places]


def _curve(places: list[Place]) -> str:
    """Draw an edge from a node's right side to another's left side, straight through the columns between."""
    x, y = places[0][0] * PITCH[0] + NODE[0], places[0][1] * PITCH[1] + NODE[1] / 2
    path = f"M{x:g} {y:g}"
    for column, row in places[1:]:
        left, level, middle = column * PITCH[0], row * PITCH[1] + NODE[1] / 2, x + (PITCH[0] - NODE[0]) / 2
        path += f"C{middle:g} {y:g} {middle:g} {level:g} {left:g} {level:g}"
        x, y = left + NODE[0], level
        if (column, row) != places[-1]:
            path += f"H{x:g}"
    return path


def duration(seconds: float) -> str:
    """Say a duration as people do: `3.2 s`, `41 s`, `2 min 05 s`, `1 h 07 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, whole = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {whole:02} s" if minutes else f"{whole} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def word(state: str) -> str:
    """Say a state as people do; one that is new to us, as it is."""
    return WORDS.get(state, state)


def say(step: dict[str, Any]) -> str:
    """Say how a step stands: `running, 3 of 12 cells`, `failed after 3.2 s, 3 of 12 cells`."""
    words = word(step["state"])
    if step["state"] in ("done", *BAD) and step["seconds"]:
        words += f" after {duration(step['seconds'])}"
    if step["attempt"] > 1:
        words += f", attempt {step['attempt']}"
    if step["cells"] and step["state"] != "done":
        words += f", {step['cell']} of {step['cells']} cells"
    if trials := step.get("trials"):
        words += f", {len(trials)} trials"
    return words


def as_text(shown: dict[str, Any]) -> str:
    """Say in one line a step how a run stands."""
    lines = [f"{shown['scenario']} ({shown['environment']}) {shown['id']}: {word(shown['state'])}"]
    return "\n".join([*lines, *(f"  {step['name']}: {say(step)}" for step in shown["steps"])])


def as_html(graph: dict[str, Any], shown: dict[str, Any], tails: dict[str, str]) -> str:
    """Draw a run as it stands, without scripts: the graph, and below it whatever there is to read about a step."""
    nodes = "".join(_node(graph, step) for step in shown["steps"])
    done = {step["name"] for step in shown["steps"] if step["state"] in ("done", "skipped")}
    edges = "".join(f'<path d="{e["path"]}" class="{"passed" if e["from"] in done else ""}"/>' for e in graph["edges"])
    size = f"width:{graph['width']}px;height:{graph['height']}px"
    time_ = f"<span>{duration(shown['seconds'])}</span>" if shown["seconds"] and not shown["since"] else ""
    return (
        f"<style>{STYLE.read_text()}</style>"
        f'<section class="mlops-run still" aria-label="run {html.escape(shown["id"])}"><header>'
        f"<strong>{html.escape(shown['scenario'])}</strong><span>{html.escape(shown['environment'])}</span>"
        f"{_badge(shown['state'], word(shown['state']))}<span>{len(done)} of {len(shown['steps'])} steps</span>{time_}"
        f"<code>{html.escape(shown['id'])}</code></header>"
        f'<div class="field"><div class="graph" style="{size}"><svg aria-hidden="true" style="{size}">{edges}</svg>'
        f"<ol>{nodes}</ol></div></div>{''.join(_about(step, tails) for step in shown['steps'])}</section>"
    )


def _badge(state: str, words: str) -> str:
    icon = f'<svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><path d="{ICONS.get(state, ICONS[""])}"/></svg>'
    return f'<span class="state" data-state="{state}">{icon}{html.escape(words)}</span>'


def _node(graph: dict[str, Any], step: dict[str, Any]) -> str:
    x, y = graph["nodes"][step["name"]]
    time_ = f" · {duration(step['seconds'])}" if step["state"] in ("done", *BAD) and step["seconds"] else ""
    brief = {"waiting": "waits", "closed": "closed"}.get(step["state"], word(step["state"])) + time_
    trials = "".join(f'<i data-state="{trial["state"]}"></i>' for trial in step["trials"][-16:])
    return (
        f'<li class="node" data-state="{step["state"]}" style="left:{x:g}px;top:{y:g}px"><b>{html.escape(step["name"])}</b>'
        f'{_badge(step["state"], brief)}<span class="trials" aria-hidden="true">{trials}</span></li>'
    )


def _about(step: dict[str, Any], tails: dict[str, str]) -> str:
    """Unfold what a step said, if it went wrong or is still at it."""
    log = "\n".join(tails.get(step["name"], "").splitlines()[-12:])
    if step["state"] not in ("running", *BAD) or not (step["message"] or log):
        return ""
    message = f'<pre class="message">{html.escape(step["message"])}</pre>' if step["message"] else ""
    lines = f'<pre class="log">{html.escape(log)}</pre>' if log else ""
    opened = " open" if step["message"] else ""
    return f"<details{opened}><summary>{html.escape(step['name'])}: {html.escape(say(step))}</summary>{message}{lines}</details>"
