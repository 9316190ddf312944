"""A labeling project as it stands, without a kernel and without scripts: for a notebook's report, and for the docs."""

import base64
import itertools
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from mlops_nb.inner_loop.answers import Answer
from mlops_nb.inner_loop.shapes import to_polygons
from mlops_nb.inner_loop.store import LabelItem, Store
from mlops_nb.widgets.parts import style

MOST, LOOKED, LISTED = 6, 60, 24  # items that are shown; that are looked at to find some with answers; classes that are listed
LENGTH = 700  # characters of a text
SIDE = 240  # pixels of a thumbnail
GREY = "#7d8590"  # of a label that has no colour
STATES = ("open", "labeled", "disputed", "review", "final", "dropped")


def as_text(shown: Mapping[str, Any]) -> str:
    """Say in a few lines how a project stands."""
    project, told = shown["project"], shown["progress"]
    head = f"{project['name']} ({project['task']}): {told['answers']} of {told['needed']} answers to {told['items']} items"
    most = sorted(told["classes"].items(), key=lambda one: -one[1])[:12]
    return "\n".join([head, *(f"  {line}" for line in (_states(told), ", ".join(f"{label} {count}" for label, count in most)) if line)])


def as_html(store: Store, shown: Mapping[str, Any], whose: str) -> str:
    """Draw a project as it stands: how far it is, its classes, and some items with what was said about them."""
    project, told = shown["project"], shown["progress"]
    colours = {one["name"]: one["colour"] for one in [*project["relations"], *project["classes"]]}
    figures = "".join(_figure(store, item, answer, colours) for item, answer in _some(store, whose))
    far = f"{told['answers']:,} of {told['needed']:,} answers"
    return (
        f"<style>{style('frame/card.css')}</style>"
        f'<section class="mlops-label still" aria-label="labels {escape(project["name"])}"><header>'
        f"<strong>{escape(project['name'])}</strong>"
        f'<span class="quiet">{escape(project["task"])}</span><span>{far}</span>'
        f'<progress max="{max(1, told["needed"])}" value="{told["answers"]}" aria-label="{far}"></progress>'
        f'<span class="quiet">{_states(told)}</span></header>'
        f'<div class="body"><div class="figures" data-medium="{project["medium"]}">'
        f'{figures or "<p class=quiet>No items yet.</p>"}</div>'
        f'<aside><ul class="list">{_classes(project["classes"], told["classes"])}</ul></aside></div></section>'
    )


def _states(told: Mapping[str, Any]) -> str:
    return ", ".join(f"{told[state]:,} {state}" for state in STATES if told.get(state))


def _classes(classes: list[dict[str, Any]], counts: Mapping[str, int]) -> str:
    most = max(1, *counts.values(), 1)
    rows = [f'<li class="class" style="--share:{100 * counts.get(one["name"], 0) / most:.1f}%"><i class="swatch" style="--colour:'
            f'{one["colour"]}"></i><span class="name">{escape(one["name"])}</span>'
            f'<span class="tally">{counts.get(one["name"], 0):,}</span></li>'
            for one in classes[:LISTED]]  # fmt: skip
    return "".join(rows) + (f'<li class="quiet">and {len(classes) - LISTED} more</li>' if len(classes) > LISTED else "")


def _some(store: Store, whose: str) -> list[tuple[LabelItem, Answer | None]]:
    """Choose items to show: those that are answered first; the final answer before this person's before anybody's."""
    found: list[tuple[LabelItem, Answer | None]] = []
    for item in store.items(limit=LOOKED):
        if item.gold is None:
            answers = {one.whose: one for one in store.answers(item=item.id) if one.state in ("submitted", "accepted")}
            found.append((item, answers.get("") or answers.get(whose) or next(iter(answers.values()), None)))
    return sorted(found, key=lambda one: one[1] is None)[:MOST]


def _figure(store: Store, item: LabelItem, answer: Answer | None, colours: Mapping[str, str]) -> str:
    annotations = list(answer.annotations) if answer else list(item.prediction)
    drawer = {"image": _picture, "text": _text, "compare": _candidates, "row": _row}[store.project.medium]
    who = (f"by {answer.whose}" if answer.whose else "final") if answer else "proposed" if annotations else item.state
    return (f"<figure>{drawer(store, item, annotations, colours)}"
            f'<figcaption>{_words(annotations, colours)} <span class="quiet">{escape(who)}</span></figcaption></figure>')  # fmt: skip


def _words(annotations: Iterable[Mapping[str, Any]], colours: Mapping[str, str]) -> str:
    counts: dict[str, int] = {}
    for one in annotations:
        if one["kind"] != "text":
            name = f"{one['label']} {one['value']:g}" if one["kind"] == "score" else one["label"]
            counts[name] = counts.get(name, 0) + 1
    said = [f'<span class="said"><i class="swatch" style="--colour:{colours.get(name, GREY)}"></i>{escape(name)}'
            f"{f' × {count}' if count > 1 else ''}</span>" for name, count in counts.items()]  # fmt: skip
    return " ".join(said)


def _picture(store: Store, item: LabelItem, annotations: list[dict[str, Any]], colours: Mapping[str, str]) -> str:
    from mlops_nb.inner_loop.items import thumbnail

    width, height = item.data.get("width") or 1, item.data.get("height") or 1
    try:
        source = base64.b64encode(thumbnail(store.settings, item, SIDE)).decode()
    except Exception as problem:  # a storage's library raises what it likes
        return f'<p class="problem">{escape(str(problem))}</p>'
    shapes = "".join(_shape(one, colours.get(one["label"], GREY), width, height) for one in annotations)
    names = escape(", ".join(one["label"] for one in annotations) or "nothing")
    size = f'width="{width}" height="{height}" preserveAspectRatio="none"'
    return (f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="picture {escape(item.id)}: {names}">'
            f'<image href="data:image/jpeg;base64,{source}" {size}/>{shapes}</svg>')  # fmt: skip


def _shape(one: Mapping[str, Any], colour: str, width: int, height: int) -> str:
    look = f'fill="{colour}" fill-opacity="0.22" stroke="{colour}" stroke-width="2" vector-effect="non-scaling-stroke"'
    title = f"<title>{escape(one['label'])}</title>"
    if one["kind"] == "box":
        return f'<rect x="{one["x"]:g}" y="{one["y"]:g}" width="{one["width"]:g}" height="{one["height"]:g}" {look}>{title}</rect>'
    if one["kind"] == "points":
        radius = max(width, height) / 80
        return "".join(f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" {look}>{title}</circle>' for x, y, seen in one["points"] if seen)
    if one["kind"] in ("polygon", "mask"):
        rings = one["rings"] if one["kind"] == "polygon" else to_polygons(dict(one["rle"]))
        path = "".join("M" + "L".join(f"{x:g} {y:g}" for x, y in ring) + "Z" for ring in rings)
        return f'<path d="{path}" {look}>{title}</path>'
    return ""


def _text(store: Store, item: LabelItem, annotations: list[dict[str, Any]], colours: Mapping[str, str]) -> str:
    text, spans = item.data["text"][:LENGTH], [one for one in annotations if one["kind"] == "span"]
    parts, borders = [], {0, len(text), *(min(one[edge], len(text)) for one in spans for edge in ("start", "end"))}
    for start, end in itertools.pairwise(sorted(borders)):
        piece = escape(text[start:end])
        if over := [one["label"] for one in spans if one["start"] <= start and one["end"] >= end]:
            piece = f'<mark style="--colour:{colours.get(over[-1], GREY)}" title="{escape(", ".join(over))}">{piece}</mark>'
        parts.append(piece)
    written = "".join(f"<dt>{escape(one['label'])}</dt><dd dir=auto>{escape(one['text'][:LENGTH])}</dd>"
                      for one in annotations if one["kind"] == "text")  # fmt: skip
    more = "…" if len(item.data["text"]) > LENGTH else ""
    return f'<p class="text" dir="auto">{"".join(parts)}{more}</p>' + (f'<dl class="facts">{written}</dl>' if written else "")


def _candidates(store: Store, item: LabelItem, annotations: list[dict[str, Any]], colours: Mapping[str, str]) -> str:
    better = next((one["label"] for one in annotations if one["kind"] == "choice"), "")
    rows = "".join(f"<li>{'<b>✓</b> ' if one['id'] == better else ''}{escape(str(one.get('text', ''))[:LENGTH])}</li>"
                   for one in item.data.get("candidates", ()))  # fmt: skip
    prompt = escape(str(item.data.get("prompt", ""))[:LENGTH])
    return f'<p class="text" dir="auto"><b>{prompt}</b></p><ul class="candidates">{rows}</ul>'


def _row(store: Store, item: LabelItem, annotations: list[dict[str, Any]], colours: Mapping[str, str]) -> str:
    cells = [f"<dt>{escape(str(name))}</dt><dd>{escape(str(value)[:200])}</dd>" for name, value in item.data.get("row", {}).items()]
    return f'<dl class="facts">{"".join(cells)}</dl>'
