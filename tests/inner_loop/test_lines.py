"""Labels as lines and tables: JSON lines, CSV, MLTable folders, and what an Azure ML labeling project exports."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mlops_nb.core.records import SpecificationError
from mlops_nb.core.settings import Settings
from mlops_nb.data_estate.catalogue import read_asset
from mlops_nb.inner_loop.labeling import LabelProject
from mlops_nb.inner_loop.lines import (
    locate,
    read_azure,
    read_csv,
    read_lines,
    read_mltable,
    write_asset,
    write_azure,
    write_csv,
    write_lines,
    write_mltable,
)
from mlops_nb.inner_loop.store import Labeled, LabelItem

MANY = settings(max_examples=30)
PHOTO = {"image": "photos/p1.jpg", "width": 640, "height": 480}
ODD = st.sampled_from(["👩‍🚀", "e\u0301", "שלום", "\r\n", "\r", "\t", '"', ",", "\u2028", "\x00"])
TEXT = st.lists(st.one_of(st.text(max_size=8), ODD), max_size=5).map("".join)
NAMES = ["a", "b, c", "[d]", 'e "f"', "人"]


def made_for(task: str, **fields: Any) -> LabelProject:
    """Make a project with what its task asks for."""
    return LabelProject(
        **{
            "name": "p",
            "task": task,
            "classes": NAMES,
            "fields": [{"name": "summary"}, {"name": "text"}],
            "criteria": [{"name": "true"}, {"name": "short"}],
            "relations": [{"name": "in"}],
        }
        | fields
    )


def chosen(*names: str) -> tuple[dict[str, Any], ...]:
    """Choose classes."""
    return tuple({"id": f"class:{name}", "kind": "class", "label": name} for name in names)


def without_ids(annotations: tuple[dict[str, Any], ...]) -> list[dict[str, Any]]:
    """Say what annotations say, whatever they are called."""
    return [{key: value for key, value in one.items() if key != "id"} for one in annotations]


BOX = {"id": "a1", "kind": "box", "label": "a", "x": 10, "y": 20.5, "width": 99.25, "height": 3}
POLYGON = {
    "id": "a1",
    "kind": "polygon",
    "label": "人",
    "rings": [[[1, 2], [30.5, 2], [30, 40]], [[50, 50], [60, 50], [60, 61.25]]],
}
MASK = {
    "id": "m",
    "kind": "mask",
    "label": "a",
    "rle": {"size": [480, 640], "counts": [480 * 10 + 5, 20, 460, 20, 480 * 640 - 480 * 10 - 505]},
}
POINTS = {"id": "k", "kind": "points", "label": "a", "points": [[1.5, 2, 2], [0, 0, 0]]}
SPANS = (
    {"id": "s1", "kind": "span", "label": "a", "start": 0, "end": 9},
    {"id": "s2", "kind": "span", "label": "人", "start": 0, "end": 3},
)
CASES: dict[str, tuple[dict[str, Any], tuple[dict[str, Any], ...]]] = {  # task -> an item's data, an answer
    "image_classification": (PHOTO, chosen("b, c")),
    "image_classification_multilabel": (PHOTO, chosen("b, c", "人")),
    "image_object_detection": (PHOTO, (BOX, BOX | {"id": "a2", "crowd": True})),
    "image_instance_segmentation": (PHOTO, (POLYGON, MASK)),
    "image_semantic_segmentation": (PHOTO, (MASK,)),
    "image_keypoints": (PHOTO, (POINTS,)),
    "text_classification": ({"text": "Win\r\nnow 🚀"}, chosen('e "f"')),
    "text_classification_multilabel": ({"text": "Win", "from": {"page": 3}}, chosen()),
    "text_ner": ({"text": "São Paulo", "tokens": [[0, 3], [4, 9]]}, SPANS),
    "text_relations": ({"text": "São Paulo"}, (*SPANS, {"id": "r", "kind": "relation", "label": "in", "head": "s1", "tail": "s2"})),
    "text_tagging": ({"text": "São Paulo"}, SPANS[1:]),
    "text_generation": ({"text": "long"}, ({"id": "t", "kind": "text", "label": "summary", "text": "s\r\n,\""},
                                           {"id": "u", "kind": "text", "label": "text", "text": "🚀"})),
    "text_ranking": ({"prompt": "Why?", "candidates": [{"id": "a", "text": "So."}, {"id": "b", "text": "Not."}]},
                     ({"id": "choice:a", "kind": "choice", "label": "a"},)),
    "text_rubric": ({"prompt": "Why?", "candidates": [{"id": "a", "text": "So."}]},
                    ({"id": "x", "kind": "score", "label": "true", "value": 2.0, "candidate": "a"},
                     {"id": "y", "kind": "score", "label": "short", "value": 5.0, "candidate": "a"})),
    "tabular_classification": ({"row": {"id": "7", "label": "x", "carat": "0.5", "note": ""}}, chosen("a")),
}  # fmt: skip
KEYPOINTS = {"classes": [{"name": "a", "keypoints": ["tip", "wrist"]}]}


def case(task: str) -> tuple[LabelProject, Labeled]:
    """Make a project of a task, and an answer to an item of it."""
    data, annotations = CASES[task]
    return made_for(task, **(KEYPOINTS if task == "image_keypoints" else {})), Labeled(
        LabelItem("i1", data), annotations
    )


@pytest.mark.parametrize("task", CASES)
def test_json_lines_hold_every_task(tmp_path: Path, task: str) -> None:
    """The item's id and data, and everything that was said, whoever said it."""
    made, one = case(task)
    more = Labeled(
        LabelItem("i2", one.item.data), tuple(a | {"attributes": {"note": ["x", None]}} for a in one.annotations), "ana"
    )
    read = read_lines(write_lines(made, [one, more], tmp_path)[0])
    assert not read.problems
    assert [(a.item.id, a.item.data, a.by) for a in read.labeled] == [
        ("i1", one.item.data, ""),
        ("i2", one.item.data, "ana"),
    ]
    assert without_ids(read.labeled[0].annotations) == without_ids(one.annotations)
    assert without_ids(read.labeled[1].annotations) == without_ids(more.annotations)


@pytest.mark.parametrize(
    "task",
    [
        task
        for task in CASES
        if task
        not in ("image_instance_segmentation", "image_semantic_segmentation", "image_keypoints", "text_relations")
    ],
)
def test_tables_hold_these_tasks(tmp_path: Path, task: str) -> None:
    """Items with several annotations, and after them one that differs, each with its own."""
    made, one = case(task)
    other = Labeled(LabelItem("i2", one.item.data), one.annotations[:1])
    read = read_csv(write_csv(made, [one, other], tmp_path)[0], made)
    assert not read.problems
    plain = {key: value for key, value in one.item.data.items() if key not in ("tokens", "from")}
    assert [(a.item.id, a.item.data) for a in read.labeled] == [("i1", plain), ("i2", plain)]
    assert [without_ids(a.annotations) for a in read.labeled] == [
        without_ids(one.annotations),
        without_ids(other.annotations),
    ]


@pytest.mark.parametrize("task", CASES)
def test_mltable_folders_are_read_again(tmp_path: Path, task: str) -> None:
    """What AutoML trains on holds what it knows: of a mask its outline, of entities those beside each other, no ids."""
    made, one = case(task)
    one = Labeled(one.item, one.annotations[:1] if task == "text_ner" else one.annotations)
    write_mltable(made, [one], tmp_path)
    read = read_mltable(tmp_path, made)
    assert not read.problems
    assert [a["label"] for a in read.labeled[0].annotations] == [a["label"] for a in one.annotations]
    if task != "image_instance_segmentation":
        assert without_ids(read.labeled[0].annotations) == without_ids(one.annotations)
    table = yaml.safe_load((tmp_path / "table/MLTable").read_text())
    assert all((tmp_path / "table" / entry["file"]).is_file() for entry in table["paths"])


def test_an_mltable_says_how_its_files_are_read(tmp_path: Path) -> None:
    """Texts with line breaks in quotes, pictures as streams; entities as AutoML takes them, a token and its tag parted by a space."""
    tables = {}
    for task in ("text_classification", "image_classification", "text_ner"):
        made, one = case(task)
        write_mltable(made, [Labeled(one.item, one.annotations[:1])], tmp_path / task)
        tables[task] = yaml.safe_load((tmp_path / task / "table/MLTable").read_text())
    assert {table["type"] for table in tables.values()} == {"mltable"}
    delimited = tables["text_classification"]["transformations"][0]["read_delimited"]
    assert (delimited["support_multi_line"], delimited["encoding"], delimited["delimiter"]) == (True, "utf8", ",")
    assert (tmp_path / "text_classification/table/labels.csv").read_text().startswith('"text","label"\n')  # an id would be learned from
    lines, columns = tables["image_classification"]["transformations"]
    assert lines["read_json_lines"]["invalid_lines"] == "error"
    assert columns["convert_column_types"] == [{"columns": "image_url", "column_type": "stream_info"}]
    assert "transformations" not in tables["text_ner"]
    assert (tmp_path / "text_ner/table/labels.txt").read_text() == "São B-a\nPaulo I-a\n\n"


def test_lines_are_those_of_automl(tmp_path: Path) -> None:
    """Names, nesting and units as its schema for pictures says: parts of width and height, sizes in px."""
    lines = {
        task: json.loads(write_lines(made, [one], tmp_path)[0].read_text())
        for task in CASES
        for made, one in [case(task)]
    }
    details = {"format": "jpg", "width": "640px", "height": "480px"}
    assert lines["image_classification"] == {
        "id": "i1",
        "image_url": "photos/p1.jpg",
        "image_details": details,
        "label": "b, c",
    }
    assert lines["image_classification_multilabel"]["label"] == ["b, c", "人"]
    assert lines["image_object_detection"]["label"][1] == {
        "label": "a", "topX": 10 / 640, "topY": 20.5 / 480, "bottomX": 109.25 / 640, "bottomY": 23.5 / 480, "isCrowd": 1}  # fmt: skip
    polygon = lines["image_instance_segmentation"]["label"][0]
    assert (polygon["label"], polygon["isCrowd"]) == ("人", 0)
    assert polygon["polygon"][0] == [1 / 640, 2 / 480, 30.5 / 640, 2 / 480, 30 / 640, 40 / 480]
    assert "annotations" not in lines["image_object_detection"]  # the form says it all
    assert "annotations" in lines["image_instance_segmentation"]  # but not a mask to the pixel
    assert lines["text_classification"] == {"id": "i1", "text": "Win\r\nnow 🚀", "label": 'e "f"'}


def test_lines_of_others_are_read(tmp_path: Path) -> None:
    """Addresses of a datastore, numbers as texts, one box that is no list, how sure a model was."""
    details = {"format": "png", "width": "200px", "height": "100px"}
    box = {"label": "a", "topX": "0.1", "topY": "0", "bottomX": "0.5", "bottomY": "1", "isCrowd": "true"}
    urls = [
        "AmlDatastore://workspaceblobstore/UI/photos/p1.png",
        "azureml://subscriptions/s/resourcegroups/r/workspaces/w/datastores/d/paths/UI/photos/p2.png",
    ]
    lines = [{"image_url": urls[0], "image_details": details, "label": box},
             {"image_url": urls[1], "image_details": details, "label": ["a", "人"], "label_confidence": [1, 0.25]},
             {"image_url": urls[1], "image_details": details, "label": "a", "label_confidence": 0.5},
             {"text": "Win", "label": "a"}, {"image_url": "p3.png"}]  # fmt: skip
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    read = read_lines(tmp_path / "a.jsonl")
    assert not read.problems
    assert [one.item.id for one in read.labeled[:3]] == ["UI/photos/p1.png", "UI/photos/p2.png", "UI/photos/p2.png-2"]
    assert read.labeled[0].annotations[0] == BOX | {"x": 20, "y": 0, "width": 80, "height": 100, "crowd": True}
    assert [one.get("score") for one in read.labeled[1].annotations] == [None, 0.25]
    assert read.labeled[2].annotations[0]["score"] == 0.5
    assert [len(one.annotations) for one in read.labeled[3:]] == [1, 0]


def test_pictures_are_found_where_they_lie(tmp_path: Path) -> None:
    """The longest end of the address that is in the folder; what is not there gets its whole name; the size is the file's, upright."""
    from PIL import Image

    sideways = Image.Exif()
    sideways[0x0112] = 6
    (tmp_path / "may").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "may/p1.jpg", exif=sideways)
    assert locate("AmlDatastore://store/UI/may/p1.jpg", str(tmp_path)) == f"{tmp_path}/may/p1.jpg"
    assert locate("azureml://datastores/d/paths/none.jpg", f"{tmp_path}/") == f"{tmp_path}/none.jpg"
    assert locate("./a.jpg", "abfss://c@s/photos") == "abfss://c@s/photos/a.jpg"
    assert locate("AmlDatastore://store/a.jpg", "") == "AmlDatastore://store/a.jpg"
    box = {"label": "a", "topX": 0, "topY": 0, "bottomX": 1, "bottomY": 0.5}
    (tmp_path / "a.jsonl").write_text(json.dumps({"image_url": "AmlDatastore://store/UI/may/p1.jpg", "label": [box]}))
    [one] = read_lines(tmp_path / "a.jsonl", str(tmp_path)).labeled
    assert (one.item.data["width"], one.item.data["height"]) == (30, 40)
    assert (one.annotations[0]["width"], one.annotations[0]["height"]) == (30, 20)


@MANY
@given(st.lists(st.tuples(TEXT, st.lists(st.sampled_from(NAMES), unique=True)), max_size=4))
def test_any_text_and_class_comes_back(tmp_path: Path, drawn: list[tuple[str, list[str]]]) -> None:
    """Line ends of any kind, quotes, commas, null characters; classes with commas and brackets; from lines and from a table."""
    made = made_for("text_classification_multilabel")
    answers = [Labeled(LabelItem(f"i{n}", {"text": text}), chosen(*names)) for n, (text, names) in enumerate(drawn)]
    for read in (
        read_lines(write_lines(made, answers, tmp_path)[0]),
        read_csv(write_csv(made, answers, tmp_path)[0], made),
    ):
        assert not read.problems
        assert [(a.item.id, a.item.data, a.annotations) for a in read.labeled] == [
            (a.item.id, a.item.data, a.annotations) for a in answers
        ]


COORDINATE = st.one_of(st.integers(0, 4000), st.floats(0, 4000).map(lambda value: round(value, 4)))
SIDE = st.floats(0.01, 900)


@MANY
@given(
    st.lists(st.tuples(COORDINATE, COORDINATE, SIDE, SIDE), max_size=4),
    st.tuples(st.integers(1, 6000), st.integers(1, 6000)),
)
def test_any_box_comes_back(
    tmp_path: Path, drawn: list[tuple[float, float, float, float]], size: tuple[int, int]
) -> None:
    """To the last digit, though the lines say them as parts of the picture."""
    width, height = size
    data = {"image": "p.jpg", "width": width, "height": height}
    boxes = tuple({"id": f"a{n}", "kind": "box", "label": "a", "x": x, "y": y, "width": w, "height": h}
                  for n, (x, y, w, h) in enumerate(drawn, 1))  # fmt: skip
    made, one = made_for("image_object_detection"), Labeled(LabelItem("p", data), boxes)
    assert without_ids(read_lines(write_lines(made, [one], tmp_path)[0]).labeled[0].annotations) == without_ids(boxes)
    read = read_csv(write_csv(made, [one], tmp_path)[0], made)
    assert without_ids(read.labeled[0].annotations) == without_ids(boxes)
    label = read_mltable(write_mltable(made, [one], tmp_path)[0].parent, made).labeled[0].annotations
    for there, box in zip(label, boxes, strict=True):
        assert [there[key] for key in ("x", "y", "width", "height")] == pytest.approx(
            [box[key] for key in ("x", "y", "width", "height")], abs=1e-3)  # fmt: skip


def test_tables_of_others_are_read(tmp_path: Path) -> None:
    """A labeling project's columns, a tab between them, classes as Python lists them or parted by commas, the source's columns."""
    made = made_for(
        "text_classification_multilabel", classes=["a", "b"], source={"folder": "x", "text": "body", "id": "nr"}
    )
    (tmp_path / "a.tsv").write_text("nr\tbody\tlabel\n7\tWin\t['a', 'b']\n8\tNow\ta, b\n9\tNo\t\n")
    read = read_csv(tmp_path / "a.tsv", made)
    assert [(one.item.id, one.item.data["text"], [a["label"] for a in one.annotations]) for one in read.labeled] == [
        ("7", "Win", ["a", "b"]), ("8", "Now", ["a", "b"]), ("9", "No", [])]  # fmt: skip
    (tmp_path / "b.csv").write_bytes(
        b"\xef\xbb\xbfimage_url,label,label_confidence\r\nAmlDatastore://s/p/1.jpg,a,0.5\r\n"
    )
    [one] = read_csv(tmp_path / "b.csv", made_for("image_classification")).labeled
    assert (one.item.id, one.annotations[0]["score"]) == ("p/1.jpg", 0.5)


def test_parquet_is_read_like_a_table(tmp_path: Path) -> None:
    """As an MLTable folder may hold it."""
    import pandas as pd

    (tmp_path / "t").mkdir()
    pd.DataFrame({"text": ["a", "b"], "label": ["a", None]}).to_parquet(tmp_path / "t/part-1.parquet")
    (tmp_path / "t/MLTable").write_text("paths: [{pattern: ./*.parquet}]\ntransformations: [read_parquet]\n")
    read = read_mltable(tmp_path / "t", made_for("text_classification"))
    assert [[a["label"] for a in one.annotations] for one in read.labeled] == [["a"], []]


def test_every_fault_of_lines_is_told(tmp_path: Path) -> None:
    """By line, in words; the sound lines are read."""
    lines = [
        '{"image_url": "a.jpg", "label": [{"label": "a", "topX": 0, "topY": 0, "bottomX": 1, "bottomY": 1}]}',
        "{",
        "[]",
        '{"label": "a"}',
        '{"text": "a", "annotations": [{"id": "x", "kind": "circle"}]}',
        '{"text": "a", "label": 3}',
        '{"image_url": "a", "image_details": {"width": "wide"}, "label": "a"}',
        '{"text": "a", "label": "a"}',
        '{"image_url": "a", "image_details": {"width": 9, "height": 9}, "label": [{"label": "a", "polygon": [[0, 0, 1]]}]}',
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    read = read_lines(tmp_path / "a.jsonl")
    assert [problem.split("line ")[1].split(":")[0] for problem in read.problems] == list("12345679")
    assert "Put width and height" in read.problems[0]
    assert len(read.labeled) == 1


def test_every_fault_of_a_table_is_told(tmp_path: Path) -> None:
    """Values that are missing or no numbers, lists that are none, columns that are not there, and what is no table at all."""
    made = made_for("image_object_detection")
    (tmp_path / "a.csv").write_text(
        "image,label,x,y,box_width,box_height\na.jpg,a,1,2,3,4\na.jpg,a,one,2,3,4\nb.jpg,a,1\nc.jpg,a,1,2,0,4\n"
    )
    problems = read_csv(tmp_path / "a.csv", made).problems
    assert ["line 4: not as many" in problems[0], "could not convert" in problems[1], "width" in problems[2]] == [
        True
    ] * 3
    (tmp_path / "b.csv").write_text("label\na\n")
    assert "there is no column 'image'" in read_csv(tmp_path / "b.csv", made).problems[0]
    (tmp_path / "c.csv").write_bytes(b"text,label\nok,a\n\xff,a\n")
    assert read_csv(tmp_path / "c.csv", made_for("text_classification")).problems
    (tmp_path / "d.csv").write_text("text,label\nok,[a\n")
    assert "no list of classes" in read_csv(tmp_path / "d.csv", made_for("text_classification_multilabel")).problems[0]
    with pytest.raises(ValueError, match="no columns for polygon and mask"):
        read_csv(tmp_path / "a.csv", made_for("image_instance_segmentation"))


@pytest.mark.parametrize(("task", "item", "annotations", "says"), [
    ("image_object_detection", {"image": "a.jpg"}, (BOX,), "size of its picture is not known"),
    ("image_classification", PHOTO, (), "one class is expected, not 0"),
    ("text_classification", {"text": "a"}, chosen("a", "人"), "one class is expected, not 2"),
])  # fmt: skip
def test_answers_that_automl_has_no_form_for_are_refused(
    tmp_path: Path, task: str, item: Any, annotations: Any, says: str
) -> None:
    """All of them, by item."""
    with pytest.raises(SpecificationError, match=says) as refused:
        write_lines(made_for(task), [Labeled(LabelItem(f"i{n}", item), annotations) for n in range(60)], tmp_path)
    assert len(refused.value.faults) == 52  # fifty, how many more, and what to do
    assert list(tmp_path.iterdir()) == []


def test_tables_refuse_rows_of_another_shape(tmp_path: Path) -> None:
    """Nothing is written into the wrong column."""
    rows = [Labeled(LabelItem(f"i{n}", {"row": row}), chosen("a")) for n, row in enumerate([{"x": 1}, {"y": 1}])]
    with pytest.raises(SpecificationError, match="item i1: columns"):
        write_csv(made_for("tabular_classification"), rows, tmp_path)


@pytest.mark.parametrize(
    ("task", "columns"),
    [
        ("text_classification", ["text", "label"]),
        ("text_generation", ["id", "text", "summary", "item_text"]),
        ("tabular_classification", ["item_id", "id", "label", "carat", "note", "item_label"]),
    ],
)
def test_the_catalogue_reads_tables_of_labels(project: Settings, task: str, columns: list[str]) -> None:
    """As any data asset: the MLTable folder, the file of the asset, and `azureml:NAME` once it is among the environment's data."""
    made, one = case(task)
    write_mltable(made, [one, one], project.root / "labels")
    assert list(read_asset(project, str(project.root / "labels/table"))) == columns
    (project.root / "environments/dev/data").mkdir(exist_ok=True)
    write_asset(made, project.root / "environments/dev/data/p.yml", "../../../labels/table")
    frame = read_asset(project, "azureml:p@latest")
    assert list(frame) == columns
    assert len(frame) == 2


def test_azure_takes_the_data_asset(tmp_path: Path) -> None:
    """The Azure ML SDK reads the YAML: its name, type and folder."""
    ml = pytest.importorskip("azure.ai.ml")
    made, one = case("image_object_detection")
    write_mltable(made, [one], tmp_path)
    asset = ml.load_data(tmp_path / "data.yml")
    assert (asset.name, asset.type) == ("p", "mltable")
    assert Path(asset._base_path, asset.path).resolve() == (tmp_path / "table").resolve()
    assert asset.tags["task"] == "image_object_detection"


@pytest.mark.parametrize(
    "task",
    [
        "image_classification",
        "image_classification_multilabel",
        "image_object_detection",
        "image_instance_segmentation",
        "text_classification",
        "text_classification_multilabel",
        "text_ner",
    ],
)
def test_every_form_of_a_labeling_project_is_read(tmp_path: Path, task: str) -> None:
    """Of each file and folder that one writes: the same labels."""
    made, one = case(task)
    one = Labeled(one.item, one.annotations[:1])
    write_azure(made, [one], tmp_path)
    names = {"csv": "labels.csv", "coco": "annotations.json", "conll": "labels.conll", "mltable": ""}
    forms = [place.name for place in sorted(tmp_path.iterdir())]
    assert "mltable" in forms
    assert len(forms) >= 2
    for form in forms:
        for place in {tmp_path / form, tmp_path / form / names[form]}:
            read = read_azure(place, made)
            assert not read.problems
            assert [a["label"] for a in read.labeled[0].annotations] == [a["label"] for a in one.annotations]


def test_coco_of_a_labeling_project_is_in_parts(tmp_path: Path) -> None:
    """Boxes, areas and outlines from 0 to 1, the address of the picture beside its name; pixels when it is read."""
    made, one = case("image_object_detection")
    write_azure(made, [one], tmp_path)
    content = json.loads((tmp_path / "coco/annotations.json").read_text())
    assert content["annotations"][0]["bbox"] == pytest.approx([10 / 640, 20.5 / 480, 99.25 / 640, 3 / 480])
    assert content["images"][0]["coco_url"] == "photos/p1.jpg"
    [read] = read_azure(tmp_path / "coco", made).labeled
    assert [[round(a[key], 6) for key in ("x", "y", "width", "height")] for a in read.annotations] == [
        [10, 20.5, 99.25, 3]
    ] * 2


def test_what_is_no_export_is_told(tmp_path: Path) -> None:
    """A task that labeling projects do not have, a folder with several exports or none, a file of another kind."""
    made, one = case("text_generation")
    with pytest.raises(SpecificationError, match="no task of a labeling project"):
        write_azure(made, [one], tmp_path)
    with pytest.raises(ValueError, match="one export is expected, there are 0"):
        read_azure(tmp_path, made)
    (tmp_path / "a.csv").touch()
    (tmp_path / "b.csv").touch()
    with pytest.raises(ValueError, match=r"there are 2 \(a\.csv, b\.csv\)"):
        read_azure(tmp_path, made)
    (tmp_path / "c.xml").touch()
    with pytest.raises(ValueError, match=r"c\.xml: \.jsonl"):
        read_azure(tmp_path / "c.xml", made)
    with pytest.raises(FileNotFoundError, match="No MLTable"):
        read_mltable(tmp_path, made)
    (tmp_path / "MLTable").write_text("paths: [{file: none.csv}]")
    assert "paths name no file" in read_mltable(tmp_path, made).problems[0]
    for broken in ("paths: [", "paths: none.csv", "- a", "", "paths: [a.csv]", "paths: [{}]"):
        (tmp_path / "MLTable").write_text(broken)
        with pytest.raises(ValueError, match="a list `paths`"):
            read_mltable(tmp_path, made)


@pytest.mark.parametrize(
    "entry", ["file: ./parts/a.csv", "pattern: ./parts/*.csv", "pattern: '**/a.csv'", "folder: ./parts", "folder: parts/"]
)
def test_paths_of_an_mltable_name_files_in_any_way(tmp_path: Path, entry: str) -> None:
    """One file, a pattern, or a whole folder."""
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/a.csv").write_text("text,label\nx,a\n")
    (tmp_path / "MLTable").write_text(f"paths:\n- {entry}\n")
    assert len(read_mltable(tmp_path, made_for("text_classification")).labeled) == 1


def test_long_cells_are_read(tmp_path: Path) -> None:
    """Longer than the 131,072 characters at which Python's reader of tables stops by itself."""
    made = made_for("text_classification")
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text", "label"], ["x" * 200_000, "a"]])
    assert len(read_csv(tmp_path / "a.csv", made).labeled[0].item.data["text"]) == 200_000
