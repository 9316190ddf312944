"""`mlops-nb label`: a project from its file, items in, people at work, agreement, review, labels out."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlops_nb.commands.options import By, Environment, State, acting, group, looking, settings_of
from mlops_nb.terminal import busy, say, table

if TYPE_CHECKING:
    import pandas as pd

    from mlops_nb.core.settings import Settings
    from mlops_nb.inner_loop.labeling import LabelProject
    from mlops_nb.inner_loop.store import LabelItem, Store

app = group("Labels made by people: a project, who labels what, how far they agree, what a reviewer decides, files in and out.")

Name = Annotated[str, typer.Argument(help="Labeling project, as its file names it.")]
Format = Annotated[
    str, typer.Option("--format", help="coco, yolo, voc, masks, conll, spacy, spacy_jsonl, jsonl, csv, mltable or azure.")
]
Images = Annotated[str, typer.Option("--images", help="Folder or address of the pictures, where the file only names them.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; stays with the item.")]


def _plain(text: object) -> str:
    """Return text that says itself, whatever brackets it holds."""
    from rich.markup import escape

    return escape(str(text))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _open(settings: "Settings", name: str) -> "Store":
    from mlops_nb.inner_loop.store import open_store

    return open_store(settings, name)


# --- projects and items ------------------------------------------------------------------------------------------------


@app.command("create")
@acting
def create(
    settings: "Settings",
    file: Annotated[Path, typer.Argument(help="The project's file: task, classes, people, source.")],
) -> None:
    """Create a project from its file, or put a new version of it; exit 2 where answers stand against the change."""
    from mlops_nb.inner_loop import store as stores
    from mlops_nb.inner_loop.labeling import load_project

    settings, project = settings, load_project(file)
    with stores.create(settings, project, file.read_text()) as store:
        say(f"{project.name}: {project.task}, version {store.version} of its file.")
        if not store.progress()["items"]:
            say(f"Next: mlops-nb label add {project.name}, or mlops-nb label import {project.name} PATH --format FORMAT")


@app.command("add")
@acting
def add(
    settings: "Settings",
    name: Name,
) -> None:
    """Add the items of the project's source; those that are there already are passed over. What cannot be read is listed."""
    from mlops_nb.inner_loop.items import gather

    problems: list[str] = []
    with _open(settings, name) as store, busy("reading"):
        project = store.project
        readers = _reader_of_tables(settings, project), _reader_of_answers(settings, project)
        new = store.add(gather(settings, project, *readers, problems))
        ordered = _order(store) if new else 0
        say(f"{_count(new, 'new item')}, {store.progress()['items']} in all.")
        if ordered:
            say(f"{_count(ordered, 'open item')} put into order: {store.project.sampling.strategy}.")
    for problem in problems:
        say(f"[yellow]passed over[/]: {_plain(problem)}")


def _reader_of_tables(settings: "Settings", project: "LabelProject") -> Any:
    from mlops_nb.core.settings import load_settings
    from mlops_nb.data_estate.catalogue import read_asset
    from mlops_nb.data_estate.tables import read_table

    there = load_settings(project.source.environment, settings.root) if project.source.environment else settings

    def read(address: str) -> "pd.DataFrame":
        is_table = not address.startswith("azureml:") and not (settings.root / address).exists() and "/" not in address
        return read_table(there, address) if is_table else read_asset(there, address, settings.root)

    return read


def _reader_of_answers(settings: "Settings", project: "LabelProject") -> Any:
    from mlops_nb.core.settings import load_settings
    from mlops_nb.outer_loop.collected import read_answers

    there = load_settings(project.source.environment, settings.root) if project.source.environment else settings
    return lambda endpoint, deployment, collection: read_answers(there, endpoint, deployment, collection)


def _order(store: "Store") -> int:
    """Put the items into the project's order, where that can be told before anybody has labeled or proposed anything."""
    from mlops_nb.inner_loop import sampling

    if store.project.sampling.strategy == "order":
        return 0
    return len(sampling.rank(store))


@app.command("import")
def import_(
    name: Name,
    path: Annotated[Path, typer.Argument(help="File or folder of labels.")],
    format_: Format,
    role: Annotated[
        str, typer.Option("--as", help="gold (known answers), proposals, final, each (whoever the file names), or a person's name.")
    ] = "proposals",
    images: Images = "",
    env: Environment = "",
    state: State = "",
    by: By = "",
    persona: Annotated[str, typer.Option("--persona", help="In which role: a persona of environments/access.")] = "",
) -> None:
    """Take labels of a file into a project: all of them, or none where something is wrong."""
    from mlops_nb.inner_loop.formats import import_labels

    with _open(settings_of(env, state, by, persona), name) as store:
        with busy("importing"):
            count = import_labels(store, path, format_, role, images)
        words = {"gold": "known answers", "final": "final", "proposals": "proposals", "each": "people's answers"}
        say(f"Labels of {_count(count, 'item')} taken over: {words.get(role, f'answers of {role}')}.")


@app.command("export")
@acting
def export(
    settings: "Settings",
    name: Name,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder; what was exported there before is replaced at once.")],
    format_: Format,
    which: Annotated[str, typer.Option("--which", help="final, submitted (everybody's), or a person's name.")] = "final",
    images: Annotated[str, typer.Option("--images", help="Address that is put before the pictures' relative ones.")] = "",
    pictures: Annotated[bool, typer.Option("--pictures", help="Copy the pictures along.")] = False,
) -> None:
    """Write a project's labels, with a manifest that says from which version of the project they are."""
    from mlops_nb.inner_loop.formats import export_labels

    with _open(settings, name) as store:
        with busy("exporting"):
            folder = export_labels(store, output, format_, which, images, pictures)
        count = sum(1 for _ in store.labeled(which))
        say(f"{_count(count, 'answer')} ({which}) written: {_plain(folder)}")


# --- people ------------------------------------------------------------------------------------------------------------


@app.command("next")
@acting
def next_(
    settings: "Settings",
    name: Name,
    count: Annotated[int, typer.Option("--count", help="So many, those in hand included.", min=1, max=1000)] = 1,
    role: Annotated[str, typer.Option("--role", help="label or review.")] = "label",
    give_back: Annotated[bool, typer.Option("--give-back", help="Give back what is in hand, and take nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Hand out the next item and print it; exit 3 while others have to answer first."""
    from mlops_nb.core.records import GateClosed
    from mlops_nb.inner_loop import leases

    with _open(settings, name) as store:
        if give_back:
            say(f"{_count(leases.give_back(store, settings.user), 'item')} given back.")
            return
        items = leases.hand_out(store, settings.user, count, role)
        if not items:
            reason, told = leases.why_nothing(store, settings.user, role), store.progress()
            if not told["items"] or told["open" if role == "label" else "disputed"]:
                raise GateClosed(reason)
            say(_plain(reason))
    if as_json:
        print(json.dumps([_as_dict(item) for item in items], indent=1))
    elif items:
        table(f"In the hands of {settings.user}", ("item", "content", "proposed", "why"), [_row(item) for item in items])


def _as_dict(item: "LabelItem") -> dict[str, Any]:
    """Return what a person may know of an item: not whether its answer is known."""
    return {key: value for key, value in dataclasses.asdict(item).items() if key != "gold"}


def _row(item: "LabelItem") -> tuple[str, ...]:
    data = item.data
    whole = json.dumps(data.get("row", data), ensure_ascii=False, default=str)
    content = data.get("image") or data.get("text") or data.get("prompt") or whole
    proposed = ", ".join(f"{one['kind']} {one['label']}".strip() for one in item.prediction[:5])
    return item.id, str(content)[:200], proposed + ", ..." * (len(item.prediction) > 5), item.why


@app.command("page")
@acting
def page(
    settings: "Settings",
    name: Name,
    role: Annotated[str, typer.Option("--role", help="label or review.")] = "label",
    port: Annotated[int, typer.Option("--port", help="Port; 0: any free one.", min=0, max=65535)] = 0,
    people: Annotated[
        list[str] | None, typer.Option("--for", help="Who gets a link; repeat for more.", show_default="the project's people")
    ] = None,
) -> None:
    """Serve a page on which people label or review without JupyterLab, until it is stopped; prints everybody's own link."""
    from mlops_nb.widgets import label_page

    label_page.serve(settings, name, role, port, people or ())


# --- how far, and how well ---------------------------------------------------------------------------------------------


@app.command("status")
@acting
def status(
    settings: "Settings",
    name: Annotated[str, typer.Argument(help="Labeling project.", show_default="all")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Exit 3 while people are needed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say how far a project is, or all of them."""
    from mlops_nb.inner_loop.sessions import wait_for_people
    from mlops_nb.inner_loop.store import list_projects

    names = [name] if name else list_projects(settings)
    told = {}
    for one in names:
        with _open(settings, one) as store:
            told[one] = {"task": store.project.task, "version": store.version, **store.progress(settings.user)}
    if as_json:
        print(json.dumps(told[name] if name else told, indent=1))
    elif not told:
        say("No labeling projects. mlops-nb label create FILE makes one.")
    elif name:
        _show(name, told[name])
    else:
        columns = ("items", "open", "labeled", "disputed", "review", "final", "dropped")
        rows = [(one, it["task"], *(str(it[key]) for key in columns)) for one, it in told.items()]
        table("Labeling projects", ("project", "task", *columns), rows)
    for one in names if wait else ():
        with _open(settings, one) as store:
            wait_for_people(store)


def _show(name: str, told: dict[str, Any]) -> None:
    """Print how far one project is."""
    states = ", ".join(f"{told[key]} {key}" for key in ("open", "labeled", "disputed", "review", "final", "dropped") if told[key])
    say(f"{name}: {told['task']}, version {told['version']} of its file")
    say(f"{_count(told['items'], 'item')}: {states or 'none yet'}" + f"; {told['gold']} more with a known answer" * bool(told["gold"]))
    say(f"{told['answers']} of {told['needed']} answers" + _left(told["seconds_left"]))
    for title, key in (("people", "people"), ("annotations", "classes")):
        if told[key]:
            table("", (title, ""), [(label, str(count)) for label, count in sorted(told[key].items(), key=lambda one: -one[1])])


def _left(seconds: int | None) -> str:
    if not seconds:
        return ""
    hours, minutes = divmod(round(seconds / 60), 60)
    return f", about {f'{hours} h {minutes} min' if hours else f'{max(1, minutes)} min'} of work left"


def _number(value: Any) -> str:
    import pandas as pd

    return "" if pd.isna(value) else f"{value:.3g}" if isinstance(value, float) else str(value)


@app.command("agreement")
@acting
def agreement(
    settings: "Settings",
    name: Name,
    by_class: Annotated[bool, typer.Option("--by-class", help="Also for each class by itself.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say how far people agree, with 95 % intervals, and how each of them does."""
    from mlops_nb.inner_loop.agreement import measure
    from mlops_nb.inner_loop.review import report

    with _open(settings, name) as store, busy("comparing"):
        found, people = measure(store, by_class), report(store)
    if as_json:
        rows = json.loads(people.reset_index().to_json(orient="records"))
        print(json.dumps({"agreement": [dataclasses.asdict(one) for one in found], "people": rows}, indent=1))
        return
    rows = [
        (
            one.measure,
            one.label,
            "none" if one.value is None else f"{one.value:.3f}",
            "" if one.low is None or one.high is None else f"{one.low:.3f} to {one.high:.3f}",
            str(one.items),
            str(one.people),
            one.reason,
        )
        for one in found
    ]
    table("Agreement", ("measure", "of", "value", "95 % interval", "items", "people", ""), rows)
    columns = [column for column in people.columns if people[column].notna().any()]
    shown = [(str(index), *(_number(row[column]) for column in columns)) for index, row in people[columns].iterrows()]
    if shown:
        table("People", ("person", *(column.replace("_", " ") for column in columns)), shown)


@app.command("review")
@acting
def review(
    settings: "Settings",
    name: Name,
    accept: Annotated[str, typer.Option("--accept", help="Item whose consensus is right; it is final then.")] = "",
    reject: Annotated[str, typer.Option("--reject", help="Item with an answer that is to be given again.")] = "",
    whose: Annotated[str, typer.Option("--whose", help="Whose answer is rejected.", show_default="the only one")] = "",
    adopt: Annotated[str, typer.Option("--adopt", help="Item for which the answer of --whose is right; it is final then.")] = "",
    reason: Reason = "",
    again: Annotated[bool, typer.Option("--again", help="Also judge what is in dispute, by the file as it is now.")] = False,
) -> None:
    """Make final what people agree on, and list what a reviewer has to decide; or decide on one item."""
    from mlops_nb.core.records import SpecificationError
    from mlops_nb.inner_loop import review as reviews

    if len(list(filter(None, (accept, reject, adopt)))) > 1:
        raise SpecificationError(["--accept, --reject, --adopt: decide on one thing at a time."])
    if (whose or reason) and not (accept or reject or adopt):
        raise SpecificationError(["--whose, --reason: say what is decided, with --accept, --reject or --adopt."])
    with _open(settings, name) as store:
        if accept:
            reviews.accept(store, accept, reason)
        elif reject:
            reviews.reject(store, reject, whose or _only(store, reject), reason)
        elif adopt:
            answer = store.answer(store.item(adopt).id, whose or _only(store, adopt))
            if answer.state not in ("submitted", "accepted"):
                raise SpecificationError([f"{adopt}: the answer of {answer.whose} is {answer.state}, not submitted."])
            reviews.settle(store, adopt, answer.annotations, reason)
        else:
            with busy("judging"):
                done = reviews.judge(store, again)
            say(f"{done.final} became final, {done.disputed} are disputed, {done.review} are for review.")
            _show_disputes(store)
            return
        item = accept or reject or adopt
        say(f"{_plain(item)} is {store.item(item).state}.")


def _only(store: "Store", item: str) -> str:
    """Return whose answer an item has, if it has one; raises `SpecificationError` naming those there are."""
    from mlops_nb.core.records import SpecificationError

    people = [one.whose for one in store.answers(store.item(item).id) if one.whose and one.state in ("submitted", "accepted")]
    if len(people) != 1:
        there = f"{_count(len(people), 'answer')} ({', '.join(people) or 'of nobody'})"
        raise SpecificationError([f"{item} has {there}. Say whose with --whose."])
    return people[0]


def _show_disputes(store: "Store", limit: int = 20) -> None:
    from mlops_nb.inner_loop.review import disagreements

    found = disagreements(store)
    rows = [(one.item, f"{one.agreement:.2f}", one.reason, "; ".join(f"{who}: {_said(said)}" for who, said in one.answers.items()))
            for one in found[:limit]]  # fmt: skip
    if rows:
        table("Disputed", ("item", "agreement", "why", "answers"), rows)
        more = f", {len(found) - limit} more" if len(found) > limit else ""
        say(f"A reviewer decides: mlops-nb label page {store.project.name} --role review{more}")


def _said(annotations: Any) -> str:
    return ", ".join(str(one.get("text") or one.get("label"))[:40] for one in annotations) or "nothing"


# --- models, and the store itself --------------------------------------------------------------------------------------


@app.command("propose")
@acting
def propose(
    settings: "Settings",
    name: Name,
    model: Annotated[str, typer.Option("--model", help="MLflow address of any model.", show_default="the project file's")] = "",
    limit: Annotated[int, typer.Option("--limit", help="At most so many items; 0: all that are open.", min=0)] = 0,
) -> None:
    """Let a model propose annotations on the open items, marked as its own."""
    from mlops_nb.core.records import SpecificationError
    from mlops_nb.inner_loop import proposals

    problems: list[str] = []
    with _open(settings, name) as store:
        if not (model or store.project.model.name):
            raise SpecificationError([f"{name} names no model. Pass --model models:/NAME/VERSION, or put `model:` into its file."])
        with busy("proposing"):
            count = proposals.propose(store, model, limit, problems)
    for problem in problems[:20]:
        say(f"[yellow]not taken[/]: {_plain(problem)}")
    say(f"{_count(count, 'item')} with new proposals" + f", {len(problems)} annotations not taken." * bool(problems))


@app.command("rank")
@acting
def rank(
    settings: "Settings",
    name: Name,
    strategy: Annotated[
        str, typer.Option("--strategy", help="order, random, uncertainty, diversity or wrong.", show_default="the project file's")
    ] = "",
) -> None:
    """Put the open items into the order in which they are handed out."""
    from mlops_nb.inner_loop import sampling

    with _open(settings, name) as store, busy("ranking"):
        ranks = sampling.rank(store, strategy)
        say(f"{_count(len(ranks), 'open item')} put into order: {strategy or store.project.sampling.strategy}.")


@app.command("replay")
@acting
def replay(
    settings: "Settings",
    name: Name,
    repair: Annotated[bool, typer.Option("--repair", help="Put right what differs: the events are the truth.")] = False,
) -> None:
    """Compute all answers and counts from the events; exit 2 if something else is kept."""
    from mlops_nb.core.records import SpecificationError
    from mlops_nb.inner_loop.store import open_store

    with open_store(settings, name, check=True) as store, busy("replaying"):
        found = store.replay(repair)
        if found and not repair:
            raise SpecificationError([*found, f"mlops-nb label replay {name} --repair puts this right."])
        for difference in found:
            say(f"put right: {_plain(difference)}")
        events = store.database.execute("SELECT count(*) FROM events").fetchone()[0]
        say(f"{_count(events, 'event')} replayed" + ("." if found else ", nothing differs."))


@app.command("history")
@looking
def history(
    settings: "Settings",
    name: Name,
    item: Annotated[str, typer.Argument(help="Its id.")],
    whose: Annotated[str, typer.Option("--whose", help="Only this person's answer.", show_default="everybody's")] = "",
    as_json: AsJson = False,
) -> None:
    """List everything that was ever done with an item: when, by whom, how long it took."""
    with _open(settings, name) as store:
        events = list(store.events(store.item(item).id, whose or None))
    if as_json:
        print(json.dumps([dataclasses.asdict(event) for event in events], indent=1))
        return
    rows = []
    for event in events:
        whose = "" if event.whose == event.by else event.whose or "final"
        at = event.at[:19].replace("T", " ")
        rows.append((str(event.seq), at, event.by, event.kind, whose, _detail(event.data), f"{event.seconds:g}"))
    table(f"{name}, {item}", ("", "at (UTC)", "by", "what", "whose", "", "seconds"), rows)


def _detail(data: dict[str, Any]) -> str:
    """Say in a line what an event carried."""
    if isinstance(one := data.get("annotation"), dict):
        return f"{one.get('kind')} {one.get('label', '')} ({one.get('id')})"
    if "annotations" in data:
        return _said(data["annotations"])
    return ", ".join(f"{key} {value}" for key, value in data.items())[:120]
