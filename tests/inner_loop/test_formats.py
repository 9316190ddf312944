"""Labels into a project's store and out of it, in any format: whole or not at all."""

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from mlops_nb.core.ledger import entries
from mlops_nb.core.records import SpecificationError
from mlops_nb.core.settings import Settings
from mlops_nb.inner_loop.answers import Event
from mlops_nb.inner_loop.formats import FORMATS, export_labels, formats_of, import_labels
from mlops_nb.inner_loop.labeling import SINGLE, TASKS, LabelProject
from mlops_nb.inner_loop.store import LabelItem, Store, create, open_store

WNUT = Path(__file__).resolve().parents[3] / "shared/data/nlp/wnut17"
COCO = Path(__file__).resolve().parents[3] / "shared/data/cv/odFridgeObjects_coco.json"
CONLL = "Ana\tB-person\nflew\tO\nto\tO\nRome\tB-place\n\nShe\tO\nsang\tO\n\n"


@pytest.fixture
def people(project: Settings) -> Iterator[Store]:
    """Make a project of entities."""
    with labels(project, "people", "text_ner", annotators=("ana", "bo")) as store:
        yield store


def labels(settings: Settings, name: str, task: str, **fields: Any) -> Store:
    """Make a labeling project with what its task asks for."""
    points = (
        {"classes": [{"name": name, "keypoints": ["head", "foot"]} for name in ("person", "place")]}
        if task == "image_keypoints"
        else {}
    )
    parts = {
        "classes": ["person", "place"],
        "relations": [{"name": "in"}],
        "fields": [{"name": "summary"}],
        "criteria": [{"name": "true"}],
    }
    return create(settings, LabelProject(**{"name": name, "task": task} | parts | points | fields))


def said(store: Store, which: str = "final") -> list[tuple[str, Any]]:
    """List what is said about each item."""
    return [(one.item.id, without_ids(one.annotations)) for one in store.labeled(which)]


def without_ids(annotations: tuple[dict[str, Any], ...]) -> list[dict[str, Any]]:
    """Say what annotations say, whatever they are called."""
    return [
        {key: value for key, value in one.items() if key not in ("id", "attributes", "source")} for one in annotations
    ]


def conll(settings: Settings, text: str = CONLL) -> Path:
    """Write a CoNLL file."""
    path = settings.root / "news.conll"
    path.write_text(text)
    return path


# Every task in every format that says it holds it

PHOTO = {"image": "photos/p1.jpg", "width": 64, "height": 48}
SPANS = [
    {"id": "s1", "kind": "span", "label": "person", "start": 0, "end": 3},
    {"id": "s2", "kind": "span", "label": "place", "start": 12, "end": 16},
]
ANSWERS: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "image_classification": (PHOTO, [{"id": "c", "kind": "class", "label": "place"}]),
    "image_classification_multilabel": (PHOTO, [{"id": n, "kind": "class", "label": n} for n in ("person", "place")]),
    "image_object_detection": (PHOTO, [
        {"id": "1", "kind": "box", "label": "person", "x": 8.0, "y": 6.0, "width": 16.0, "height": 12.0}]),
    "image_instance_segmentation": (PHOTO, [
        {"id": "1", "kind": "polygon", "label": "place", "rings": [[[8, 8], [24, 8], [24, 24], [8, 24]]]}]),
    "image_semantic_segmentation": (PHOTO, [
        {"id": "1", "kind": "mask", "label": "place", "rle": {"size": [48, 64], "counts": [480, 20, 28, 20, 2524]}}]),
    "image_keypoints": (PHOTO, [{"id": "1", "kind": "points", "label": "person", "points": [[8, 8, 2], [16, 24, 1]]}]),
    "text_classification": ({"text": "Ana flew to Rome"}, [{"id": "c", "kind": "class", "label": "place"}]),
    "text_classification_multilabel": ({"text": "Ana"}, [{"id": n, "kind": "class", "label": n} for n in ("person", "place")]),
    "text_ner": ({"text": "Ana flew to Rome"}, SPANS),
    "text_relations": ({"text": "Ana flew to Rome"}, [
        *SPANS, {"id": "r", "kind": "relation", "label": "in", "head": "s1", "tail": "s2"}]),
    "text_tagging": ({"text": "Ana flew to Rome"}, SPANS),
    "text_generation": ({"text": "Ana"}, [{"id": "t", "kind": "text", "label": "summary", "text": "A\r\n🚀"}]),
    "text_ranking": ({"prompt": "?", "candidates": [{"id": "a", "text": "x"}, {"id": "b", "text": "y"}]},
                     [{"id": "c", "kind": "choice", "label": "tie"}]),
    "text_rubric": ({"prompt": "?", "candidates": [{"id": "a", "text": "x"}]},
                    [{"id": "s", "kind": "score", "label": "true", "value": 3.0, "candidate": "a"}]),
    "tabular_classification": ({"row": {"carat": "0.5", "label": "x"}}, [{"id": "c", "kind": "class", "label": "place"}]),
}  # fmt: skip


@pytest.mark.parametrize("task", TASKS)
def test_what_goes_out_comes_in_again(project: Settings, task: str) -> None:
    """In every format that the table says holds the task: the same classes, places and texts, laid on the same item."""
    data, annotations = ANSWERS[task]
    (project.root / "photos").mkdir()
    _picture(project.root / "photos/p1.jpg")
    with labels(project, "one", task) as store:
        final(store, "p1", data, annotations)
        for form in formats_of(task):
            folder = export_labels(store, project.root / "out", form)
            assert import_labels(store, folder / file_of(folder, form), form, "proposals") == 1, form
            [item] = store.items()
            back = without_ids(item.prediction)
            assert [one["label"] for one in back] == [one["label"] for one in annotations], form
            if (task, form) != ("image_instance_segmentation", "masks"):  # there an outline becomes pixels
                assert [places(one) for one in back] == [places(one) for one in without_ids(tuple(annotations))], form
            store.set_predictions({item.id: []}, "")


def places(annotation: dict[str, Any]) -> dict[str, Any]:
    """Leave out what names other annotations, and how a mask's runs are written."""
    return {key: value for key, value in annotation.items() if key not in ("head", "tail", "rle")}


def file_of(folder: Path, form: str) -> str:
    """Name the file that a reader of files takes; empty: it takes the folder."""
    if form in ("mltable", "spacy", "yolo", "voc", "masks"):
        return ""
    if form == "azure":
        return next(path.name for path in sorted(folder.iterdir()) if path.is_dir())
    return next(path.name for path in folder.iterdir() if path.name != "manifest.json")


def _picture(path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (64, 48), "gray").save(path)


def final(store: Store, item: str, data: dict[str, Any], annotations: list[dict[str, Any]]) -> None:
    """Add an item with a final answer."""
    store.add([LabelItem(item, data)])
    events = [Event(f"{item}-{kind}", item, kind, store.settings.user, "", values)
              for kind, values in (("adopt", {"annotations": annotations}), ("submit", {}))]  # fmt: skip
    assert not any(store.record(events, role="import").values())


def test_every_task_has_several_formats() -> None:
    """And JSON lines and MLTable hold all of them; the functions that the table names are there."""
    from importlib import import_module

    assert all({"jsonl", "mltable"} <= set(formats_of(task)) for task in TASKS)
    for form in FORMATS.values():
        for place in (form.read, form.write):
            module, name = place.split(".")
            assert callable(getattr(import_module(f"mlops_nb.inner_loop.{module}"), name))


def test_a_format_that_cannot_hold_a_task_names_those_that_can(people: Store) -> None:
    """For export and import; one that is none names all."""
    for ask in (lambda: export_labels(people, "out", "yolo"), lambda: import_labels(people, "x", "yolo")):
        with pytest.raises(
            SpecificationError, match=r"yolo cannot hold text_ner\. Formats that can: conll, spacy, .*csv"
        ):
            ask()
    with pytest.raises(SpecificationError, match=r"No format 'xml' \(formats: coco, yolo"):
        export_labels(people, "out", "xml")


# Out


def test_an_export_says_what_it_is_of(people: Store) -> None:
    """The manifest: version, counts, digests, agreement; and the ledger: who, when, where to."""
    import hashlib

    import_labels(people, conll(people.settings), "conll", "final")
    folder = export_labels(people, "out/labels", "mltable", agreement={"alpha": 0.8})
    manifest = json.loads((folder / "manifest.json").read_text())
    assert {key: value for key, value in manifest.items() if key not in ("at", "environment", "files")} == {
        "project": "people", "task": "text_ner", "version": 1, "format": "mltable", "which": "final", "items": 2, "answers": 2,
        "classes": {"person": 1, "place": 1}, "agreement": {"alpha": 0.8}, "by": people.settings.user}  # fmt: skip
    assert set(manifest["files"]) == {"data.yml", "table/MLTable", "table/labels.txt"}
    assert all(
        hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest for name, digest in manifest["files"].items()
    )
    [entry] = entries(people.settings, people.uri, "export_labels")
    assert entry.outputs == [f"file:{folder}"]
    assert entry.details["manifest"] == hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()


def test_an_export_takes_the_place_of_the_one_before(people: Store) -> None:
    """Of any format; nothing of the old one and nothing half done is left."""
    import_labels(people, conll(people.settings), "conll", "final")
    export_labels(people, "out/labels", "mltable")
    folder = export_labels(people, "out/labels", "conll")
    assert sorted(path.name for path in folder.iterdir()) == ["labels.conll", "manifest.json"]
    assert [path.name for path in folder.parent.iterdir()] == ["labels"]


def test_a_folder_with_anything_else_is_left_alone(people: Store) -> None:
    """Somebody's files, a file that was laid into an export, a file in the folder's place."""
    import_labels(people, conll(people.settings), "conll", "final")
    root = people.settings.root
    export_labels(people, root / "mixed", "conll")
    (root / "mixed/notes.txt").write_text("mine")
    (root / "own").mkdir()
    (root / "own/a.txt").write_text("mine")
    (root / "file").write_text("mine")
    (root / "empty").mkdir()
    for name, says in {"mixed": r"notes\.txt", "own": r"a\.txt", "file": "holds what no export"}.items():
        with pytest.raises(FileExistsError, match=says):
            export_labels(people, root / name, "conll")
    assert export_labels(people, root / "empty", "conll").is_dir()
    assert [(root / name).read_text() for name in ("mixed/notes.txt", "own/a.txt", "file")] == ["mine"] * 3


def test_what_a_format_cannot_hold_leaves_the_old_export(project: Settings) -> None:
    """Nested spans do not fit CoNLL: the export before stays as it was, and so does the ledger."""
    with labels(project, "people", "text_ner", nested=True) as store:
        import_labels(store, conll(project), "conll", "final")
        folder = export_labels(store, "out", "conll")
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        final(store, "n", {"text": "New York"}, [SPANS[0] | {"end": 8}, SPANS[1] | {"start": 0, "end": 3}])
        with pytest.raises(SpecificationError, match="item n: spans s1 and s2 overlap") as refused:
            export_labels(store, "out", "conll")
        assert "Export as jsonl or spacy" in refused.value.faults[-1]
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".out")] == []
        assert len(entries(project, store.uri, "export_labels")) == 1
        assert export_labels(store, "out", "spacy").is_dir()


def test_nothing_to_export_is_told(people: Store) -> None:
    """An empty export would only look like one."""
    people.add([LabelItem("a", {"text": "Ana"})])
    with pytest.raises(SpecificationError, match="no answers of 'final' in people"):
        export_labels(people, "out", "conll")
    assert not Path("out").exists()


def test_pictures_get_the_address_they_are_uploaded_to(project: Settings) -> None:
    """What AutoML asks for; an address that is one already stays."""
    with labels(project, "signs", "image_classification") as store:
        for name, place in {"a": "photos/a.jpg", "b": "https://s/b.jpg"}.items():
            final(store, name, {"image": place}, [{"id": "c", "kind": "class", "label": "place"}])
        folder = export_labels(store, "out", "mltable", images="azureml://datastores/blob/paths/signs/")
        lines = [json.loads(line) for line in (folder / "table/labels.jsonl").read_text().splitlines()]
    assert [line["image_url"] for line in lines] == [
        "azureml://datastores/blob/paths/signs/photos/a.jpg",
        "https://s/b.jpg",
    ]


def test_pictures_can_travel_along(project: Settings) -> None:
    """Where the format has a place for them; the manifest lists them, too."""
    (project.root / "photos").mkdir()
    _picture(project.root / "photos/p1.jpg")
    with labels(project, "boxes", "image_object_detection") as store:
        final(store, "p1", PHOTO, ANSWERS["image_object_detection"][1])
        folder = export_labels(store, "out", "coco", pictures=True)
        listed = json.loads((folder / "manifest.json").read_text())["files"]
    [picture] = [name for name in listed if name.endswith(".jpg")]
    assert (folder / picture).read_bytes() == (project.root / "photos/p1.jpg").read_bytes()


def test_a_kill_leaves_the_old_export_or_the_new(people: Store) -> None:
    """A process that exports by turns in two formats is killed after an export and in the midst of one: what is there is whole."""
    import_labels(people, conll(people.settings), "conll", "final")
    folder, clock = people.settings.root / "out/labels", random.Random(6)
    export_labels(people, folder, "conll")
    people.close()
    forms = set()
    for kill in range(10):
        (done, tell), (wait, go) = os.pipe(), os.pipe()
        child = os.fork()
        if not child:
            _export_for_ever(people.settings, folder, tell, wait)
        os.close(tell)
        for _ in range(1 + kill % 2):
            os.write(go, b".")
            assert os.read(done, 1), "it has exported"
        if kill > 1:  # else it is killed before it begins the next one
            os.write(go, b".")
            time.sleep(clock.uniform(0, 0.05))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for end in (done, wait, go):
            os.close(end)
        manifest = json.loads((folder / "manifest.json").read_text())
        forms.add(manifest["format"])
        files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        assert files == {*manifest["files"], "manifest.json"}
        assert files == {"conll": {"labels.conll", "manifest.json"},
                         "mltable": {"data.yml", "manifest.json", "table/MLTable", "table/labels.txt"}}[manifest["format"]]  # fmt: skip
    assert forms == {"conll", "mltable"}
    with open_store(people.settings, "people") as store:
        export_labels(store, folder, "csv")
    assert [path.name for path in folder.parent.iterdir()] == ["labels"]


def _export_for_ever(settings: Settings, folder: Path, tell: int, wait: int) -> None:
    try:
        with open_store(settings, "people") as store:
            for form in cycle(("mltable", "conll")):
                os.read(wait, 1)
                export_labels(store, folder, form)
                os.write(tell, b".")
    finally:
        os._exit(1)


# In


def test_wnut_goes_through_a_store(project: Settings) -> None:
    """In as final labels, out again: every token and tag in its order, sentences that stand there twice, too."""
    path = WNUT / "emerging.dev.conll"
    if not path.is_file():
        pytest.skip(f"no {path}")
    from mlops_nb.inner_loop.lines import read_lines
    from mlops_nb.inner_loop.tokens import read_conll

    read = read_conll(path)
    with create(project, LabelProject(name="wnut", task="text_ner", classes=list(read.classes))) as store:
        assert import_labels(store, path, "conll", "final") == len(read.labeled)
        again = [read_conll(export_labels(store, "out", "conll") / "labels.conll"),
                 read_lines(export_labels(store, "out", "jsonl") / "labels.jsonl")]  # fmt: skip
    for back in again:
        assert [(one.item.data, without_ids(one.annotations)) for one in back.labeled] == [
            (one.item.data, without_ids(one.annotations)) for one in read.labeled]  # fmt: skip


def test_coco_keeps_what_the_file_says_beyond_labels(project: Settings) -> None:
    """Through the store: its categories with their ids, areas, and whatever stands at its top."""
    if not COCO.is_file():
        pytest.skip(f"no {COCO}")
    theirs = json.loads(COCO.read_text())
    classes = [one["name"] for one in theirs["categories"]]
    with create(project, LabelProject(name="fridge", task="image_object_detection", classes=classes)) as store:
        assert import_labels(store, COCO, "coco", "final") == len(theirs["images"])
        ours = json.loads((export_labels(store, "out", "coco") / "annotations.json").read_text())
    assert ours["categories"] == theirs["categories"]
    assert {key: value for key, value in ours.items() if key not in ("images", "annotations")} == {
        key: value for key, value in theirs.items() if key not in ("images", "annotations")}  # fmt: skip

    def boxes(content: Any) -> list[Any]:
        names = {image["id"]: image["file_name"] for image in content["images"]}
        return sorted(
            (names[one["image_id"]], one["category_id"], one["bbox"], one["area"]) for one in content["annotations"]
        )

    assert boxes(ours) == boxes(theirs)


def test_roles_say_what_labels_become(people: Store) -> None:
    """Final answers, somebody's answers, known answers to check people by, or what people begin with."""
    path = conll(people.settings)
    assert import_labels(people, path, "conll", "proposals", model="models:/ner/3") == 1  # the other sentence has none
    [proposed] = [item for item in people.items() if item.prediction]
    assert (proposed.model, [one["source"] for one in proposed.prediction]) == ("models:/ner/3", ["models:/ner/3"] * 2)
    assert import_labels(people, path, "conll", "ana") == 2
    assert [answer.state for answer in people.answers(whose="ana")] == ["submitted"] * 2
    assert {event.by for event in people.events()} == {"ana"}
    assert import_labels(people, path, "conll", "final") == 2
    assert {item.state for item in people.items()} == {"final"}
    (people.settings.root / "gold.conll").write_text("Bo\tB-person\n\n")
    assert import_labels(people, people.settings.root / "gold.conll", "conll", "gold") == 1
    assert [item.data["text"] for item in people.items() if item.gold is not None] == ["Bo"]
    roles = [entry.details["role"] for entry in entries(people.settings, people.uri, "import_labels")]
    assert roles == ["proposals", "ana", "final", "gold"]
    assert len(list(people.items())) == 3  # the same texts are the same items
    with pytest.raises(
        SpecificationError, match=r"role 'cleo': gold, proposals, final, each or one of the annotators \(ana, bo\)"
    ):
        import_labels(people, path, "conll", "cleo")


def test_importing_again_changes_nothing(people: Store) -> None:
    """No event is written; other labels for the same text take the place of the final ones, and history keeps both."""
    path = conll(people.settings)
    assert [import_labels(people, path, "conll", "final") for _ in range(2)] == [2, 0]
    events = len(list(people.events()))
    path.write_text(CONLL.replace("B-place", "O"))
    assert import_labels(people, path, "conll", "final") == 1
    assert len(list(people.events())) == events + 2
    assert not people.replay()
    assert [len(annotations) for _, annotations in said(people)] == [1, 0]


def test_everybodys_answers_travel_between_projects(people: Store) -> None:
    """What several people said about one item, by name; a file that does not say whose is refused."""
    import_labels(people, conll(people.settings), "conll", "ana")
    import_labels(people, conll(people.settings, CONLL.replace("B-place", "O")), "conll", "bo")
    folder = export_labels(people, "out", "jsonl", which="submitted")
    with labels(people.settings, "other", "text_ner") as other:
        assert import_labels(other, folder / "labels.jsonl", "jsonl", "each") == 2
        assert sorted(said(other, "bo")) == sorted(said(people, "bo"))
        assert sorted(said(other, "ana")) == sorted(said(people, "ana"))
        with pytest.raises(SpecificationError, match="2 answers do not say whose"):
            import_labels(other, conll(people.settings), "conll", "each")
        with pytest.raises(SpecificationError, match="it stands here twice"):
            import_labels(other, folder / "labels.jsonl", "jsonl", "final")


def test_an_import_is_whole_or_nothing(people: Store) -> None:
    """What cannot be read, unknown classes and what does not fit are told together; no item, answer or entry is left."""
    path = conll(people.settings, CONLL + "Bo\tB-persona\n\nParis\tplace\n\nOslo\tB-persona\n")
    before = len(entries(people.settings))
    with pytest.raises(SpecificationError) as refused:
        import_labels(people, path, "conll", "final")
    assert len(refused.value.faults) == 3
    assert "line 11: 'place' is no tag" in refused.value.faults[0]
    assert "class 'persona' (2 annotations): people has none of that name" in refused.value.faults[1]
    assert "Nothing of" in refused.value.faults[2]
    assert list(people.items()) == list(people.events()) == []
    assert len(entries(people.settings)) == before


def test_a_kill_leaves_all_of_an_import_or_nothing(project: Settings) -> None:
    """A process is killed while it takes labels in: there is no item without its answer, and the same again completes it."""
    path, clock = conll(project, "".join(f"Ana{n}\tB-person\n\n" for n in range(300))), random.Random(6)
    labels(project, "people", "text_ner").close()
    for _ in range(5):
        ready, tell = os.pipe()
        child = os.fork()
        if not child:
            try:
                with open_store(project, "people") as store:
                    os.write(tell, b".")
                    import_labels(store, path, "conll", "final")
            finally:
                os._exit(1)
        os.close(tell)
        assert os.read(ready, 1), "it begins"
        time.sleep(clock.uniform(0.02, 0.3))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        with open_store(project, "people") as store:
            assert len(list(store.items())) == len(list(store.items(state="final"))) == len(said(store)) in (0, 300)
            assert not store.replay()
    with open_store(project, "people") as store:
        import_labels(store, path, "conll", "final")
        assert len(said(store)) == 300


def test_every_item_that_does_not_fit_is_told(project: Settings) -> None:
    """By item: outside of the text, two where one is expected, an id that is another item's, no text at all."""
    with labels(project, "people", "text_classification") as store:
        store.add([LabelItem("taken", {"text": "old"})])
        lines = [{"id": "a", "text": "x", "label": ["person", "place"]}, {"id": "taken", "text": "new", "label": "person"},
                 {"id": "c", "data": {"title": "no text"}, "label": "person"}, {"id": "d", "text": "x", "annotations": SPANS[:1]},
                 {"id": "e", "text": "fine", "label": "person"}]  # fmt: skip
        Path("a.jsonl").write_text("\n".join(map(json.dumps, lines)))
        with pytest.raises(SpecificationError) as refused:
            import_labels(store, "a.jsonl", "jsonl", "final")
        assert [fault.split(":")[0] for fault in refused.value.faults[:-1]] == [
            f"item {name}" for name in ("a", "taken", "c", "d")
        ]
        assert len(list(store.items())) == 1


def test_answers_that_people_gave_are_not_overwritten(people: Store) -> None:
    """What ana has submitted otherwise stays hers; the import says so, and takes nothing of the rest."""
    import_labels(people, conll(people.settings), "conll", "ana")
    path = conll(people.settings, CONLL.replace("B-place", "O") + "Bo\tB-person\n")
    with pytest.raises(SpecificationError, match="the answer of ana is submitted"):
        import_labels(people, path, "conll", "ana")
    assert len(list(people.items())) == 2
    assert [len(answer.annotations) for answer in people.answers(whose="ana")].count(2) == 1


def test_labels_find_the_items_that_are_there(project: Settings) -> None:
    """Pictures by their place or their name, whatever the file calls them; an outline becomes the box that the task asks for."""
    with labels(project, "boxes", "image_object_detection") as store:
        store.add(
            [
                LabelItem("may/a.jpg", {"image": "photos/may/a.jpg", "width": 64, "height": 48}),
                LabelItem("b", {"image": "b.jpg"}),
            ]
        )
        shape = [{"label": "place", "isCrowd": 0, "polygon": [[0.25, 0.25, 0.5, 0.25, 0.5, 0.5]]}]
        line = {
            "image_url": "AmlDatastore://blob/x/a.jpg",
            "image_details": {"width": 64, "height": 48},
            "label": shape,
        }
        Path("a.jsonl").write_text(json.dumps(line))
        assert import_labels(store, "a.jsonl", "jsonl", "final") == 1
        assert len(list(store.items())) == 2
        assert said(store) == [
            ("may/a.jpg", [{"kind": "box", "label": "place", "x": 16, "y": 12, "width": 16, "height": 12}])
        ]


def test_only_who_may_curate_moves_labels(people: Store, project: Settings) -> None:
    """Both ways ask the access matrices."""
    path = conll(project)
    import_labels(people, path, "conll", "final")
    outsider = project.model_copy(update={"persona": "auditor"})
    with open_store(outsider, "people") as store:
        for ask in (lambda: export_labels(store, "out", "conll"), lambda: import_labels(store, path, "conll", "final")):
            with pytest.raises(PermissionError, match="may not curate"):
                ask()
    assert not Path("out").exists()


def test_a_missing_file_is_told(people: Store) -> None:
    """Of each format, in words that name it."""
    for form in formats_of("text_ner"):
        with pytest.raises((FileNotFoundError, SpecificationError), match="nowhere"):
            import_labels(people, "nowhere.jsonl" if form == "azure" else "nowhere", form)


def test_single_tasks_have_one_answer() -> None:
    """The table of answers above is one of each task."""
    assert set(ANSWERS) == set(TASKS)
    assert all(len(ANSWERS[task][1]) == 1 for task in SINGLE)
