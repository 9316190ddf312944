"""COCO files: what goes in comes out, pycocotools reads the same from it, and wrong entries are told."""

import contextlib
import io
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from mlops_nb.core.records import SpecificationError
from mlops_nb.inner_loop.answers import check_annotation
from mlops_nb.inner_loop.coco import copy_picture, is_inside, locate, picture_names, read_coco, write_coco
from mlops_nb.inner_loop.labeling import LabelProject
from mlops_nb.inner_loop.shapes import encode, to_rle, uncompress
from mlops_nb.inner_loop.store import Labeled, LabelItem

SHARED = Path(__file__).resolve().parents[3] / "shared/data/cv"
WIDTH, HEIGHT = 40, 30
CLASSES = ["hand", "Käse 🧀", "c c"]
PROJECT = LabelProject(name="signs", task="image_instance_segmentation", classes=CLASSES)  # type: ignore[arg-type]
Lay = Callable[..., Path]


@pytest.fixture
def lay(tmp_path: Path) -> Lay:
    """Write a COCO file with one picture and one class, and what a test changes of it."""

    def write(*annotations: Any, **parts: Any) -> Path:
        content = {
            "images": [{"id": 1, "file_name": "1.jpg", "width": WIDTH, "height": HEIGHT}],
            "categories": [{"id": 1, "name": "hand"}],
            "annotations": list(annotations),
        } | parts
        path = tmp_path / "labels.json"
        path.write_text(json.dumps(content))
        return path

    return write


def box(**changes: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 5], "iscrowd": 0} | changes


def by_pycocotools(path: Path) -> COCO:
    """Let the library read a file, without what it prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(path)


def picture(width: int = WIDTH, height: int = HEIGHT, kind: str = "JPEG", orientation: int = 1) -> bytes:
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = 255  # so that one sees which way up it is
    Image.fromarray(pixels).save(buffer, kind, exif=exif)
    return buffer.getvalue()


# --- the three files of Microsoft's recipes ------------------------------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore:__array__")
@pytest.mark.skipif(not SHARED.is_dir(), reason="the files are not here")
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("odFridgeObjects_coco.json", "box"),
        ("odFridgeObjectsMask_coco.json", "polygon"),
        ("odFridgeObjectsMask_coco_rle.json", "mask"),
    ],
)
def test_a_published_file_passes_through_unchanged_in_meaning(name: str, kind: str, tmp_path: Path) -> None:
    """Its ids are texts, its areas count a pixel more on each side, its outlines repeat the first point, its boxes fit no outline."""
    read = read_coco(SHARED / name)
    assert (read.problems, read.classes, len(read.labeled)) == ([], ("can", "carton", "milk_bottle", "water_bottle"), 128)
    assert {one["kind"] for labeled in read.labeled for one in labeled.annotations} == {kind}
    stored = [
        Labeled(one.item, tuple(check_annotation(json.loads(json.dumps(shape))) for shape in one.annotations)) for one in read.labeled
    ]
    project = LabelProject(name="fridge", task="image_instance_segmentation", classes=read.classes)
    [written, *_] = write_coco(project, stored, tmp_path, kept=json.loads(json.dumps(read.kept)))
    before, after = (json.loads(path.read_text()) for path in (SHARED / name, written))
    by_id = {entry["id"]: entry for entry in after["annotations"]}
    assert {key: value for key, value in before.items() if key != "annotations"} == {
        key: after[key] for key in before if key != "annotations"
    }
    assert len(by_id) == len(after["annotations"]) == len(before["annotations"]) == 336
    for entry in before["annotations"]:
        expected = dict(entry)
        if kind == "polygon":  # only the repetition of the first point is gone
            expected["segmentation"] = [part[:-2] if part[:2] == part[-2:] else part for part in entry["segmentation"]]
        assert by_id[entry["id"]] == expected
    theirs, ours = by_pycocotools(SHARED / name), by_pycocotools(written)
    for entry in before["annotations"] if kind != "box" else []:
        assert (theirs.annToMask(theirs.anns[entry["id"]]) == ours.annToMask(ours.anns[entry["id"]])).all()


# --- there and back ------------------------------------------------------------------------------------------------------------------
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(words, inner, max_size=2),
    max_leaves=4,
)
names = words | st.sampled_from(
    ["bbox", "_bbox", "area", "score", "source", "id", "image_id", "annotator", "iscrowd", "coco", "ignore"]
)
numbers = st.floats(0, 1).map(lambda part: round(part * HEIGHT, 3)) | st.integers(0, HEIGHT).map(float)


@st.composite
def shapes(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["box", "polygon", "mask", "points", "class"]))
    shape: dict[str, Any] = {"kind": kind, "label": draw(st.sampled_from(CLASSES))}
    if kind == "box":
        shape |= {"x": draw(numbers), "y": draw(numbers) / 2, "width": draw(st.floats(0.1, 10)), "height": draw(st.floats(0.1, 10))}
    elif kind == "polygon":
        x, y = draw(numbers), draw(numbers)
        shape["rings"] = [[[x, 0.0], [x / 2 + 10, y / 2 + 5], [0.0, 20.0 + place]] for place in range(draw(st.integers(1, 3)))]
    elif kind == "mask":
        array = np.zeros((HEIGHT, WIDTH), bool)
        array[draw(st.integers(0, 20)) :, draw(st.integers(0, 30)) :: draw(st.integers(1, 4))] = True
        rle = encode(array)
        shape["rle"] = rle if draw(st.booleans()) else {"size": rle["size"], "counts": uncompress(rle["counts"])}
    elif kind == "points":
        shape["points"] = [
            [draw(numbers), draw(numbers), 2],
            *([draw(numbers), draw(numbers), draw(st.integers(0, 2))] for _ in range(2)),
        ]
    if kind in ("box", "polygon", "mask"):
        shape["crowd"] = draw(st.booleans())
    shape["score"] = draw(st.none() | st.floats(0, 1))
    shape["source"] = draw(st.sampled_from(["", "model:dev.signs/3"]))
    shape["attributes"] = draw(st.dictionaries(names, plain, max_size=3))
    return shape


@st.composite
def answers(draw: st.DrawFn) -> list[Labeled]:
    """One to three pictures, some of them labeled by two people."""
    found = []
    for number in range(draw(st.integers(1, 3))):
        further = draw(st.dictionaries(names.filter(lambda name: name != "image_id"), plain, max_size=2))
        item = LabelItem(f"a/{number}.jpg", further | {"image": f"/data/a/{number}.jpg", "width": WIDTH, "height": HEIGHT})
        for by in draw(st.sampled_from([("",), ("ana",), ("ana", "ben")])):
            drawn = draw(st.lists(shapes(), min_size=1 if by else 0, max_size=3))
            found.append(Labeled(item, tuple(check_annotation(one | {"id": f"{by}{n}"}) for n, one in enumerate(drawn)), by))
    return found


def meaning(labeled: list[Labeled]) -> list[Any]:
    """Say what labels mean: ids of annotations may change, and what a reader keeps to write it again."""

    def one(annotation: dict[str, Any]) -> dict[str, Any]:
        attributes = {key: value for key, value in annotation.get("attributes", {}).items() if key != "coco"}
        return {key: value for key, value in annotation.items() if key not in ("id", "attributes")} | {"attributes": attributes}

    def data(item: LabelItem) -> dict[str, Any]:
        return {key: value for key, value in item.data.items() if key not in ("image", "image_id", "file_name")}

    return [
        (answer.item.id, data(answer.item), answer.by, [one(annotation) for annotation in answer.annotations]) for answer in labeled
    ]


@settings(max_examples=40, deadline=None)
@given(answers())
def test_what_is_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, labeled: list[Labeled]) -> None:
    folder = tmp_path_factory.mktemp("coco")
    [written] = write_coco(PROJECT, labeled, folder)
    read = read_coco(written, fractions=False)
    assert read.problems == []
    assert read.classes == tuple(CLASSES)
    assert meaning(read.labeled) == meaning(labeled)
    [again] = write_coco(PROJECT, read.labeled, folder / "again", kept=read.kept)
    assert json.loads(again.read_text()) == json.loads(written.read_text())
    theirs = by_pycocotools(written)  # and pycocotools finds the same pixels
    for entry, shape in zip(theirs.dataset["annotations"], [shape for one in labeled for shape in one.annotations], strict=True):
        if shape["kind"] in ("polygon", "mask"):
            found = theirs.annToRLE(entry)["counts"]
            assert found == to_rle(shape, WIDTH, HEIGHT)["counts"].encode() or found == to_rle(shape, WIDTH, HEIGHT)["counts"]


def test_key_points_come_with_their_class(tmp_path: Path) -> None:
    hand = {"name": "hand", "keypoints": ["wrist", "thumb", "tip"], "skeleton": [[0, 1], [1, 2]]}
    project = LabelProject(name="hands", task="image_keypoints", classes=[hand])  # type: ignore[arg-type]
    points = {"id": "k", "kind": "points", "label": "hand", "points": [[5, 6, 2], [9, 12, 1], [0, 0, 0]]}
    [written] = write_coco(
        project, [Labeled(LabelItem("1.jpg", {"image": "1.jpg", "width": WIDTH, "height": HEIGHT}), (points,))], tmp_path
    )
    content = json.loads(written.read_text())
    assert content["categories"] == [{"id": 1, "name": "hand", "keypoints": ["wrist", "thumb", "tip"], "skeleton": [[1, 2], [2, 3]]}]
    [entry] = content["annotations"]
    assert (entry["keypoints"], entry["num_keypoints"], entry["bbox"]) == ([5, 6, 2, 9, 12, 1, 0, 0, 0], 2, [5, 6, 4, 6])
    [shape] = read_coco(written).labeled[0].annotations
    assert shape["points"] == points["points"]


def test_what_an_entry_holds_beside_its_shape_is_written_again_until_the_shape_changes(lay: Lay, tmp_path: Path) -> None:
    person = box(
        bbox=[2, 2, 20, 20], area=137.5, segmentation=[[3, 3, 9, 3, 9, 9]], keypoints=[4, 4, 2, 5, 5, 1], num_keypoints=2, extra=[1]
    )
    read = read_coco(lay(person, info={"year": 2017}, licenses=[{"id": 4}]))
    [points] = read.labeled[0].annotations
    assert points["kind"] == "points"
    [written] = write_coco(PROJECT, read.labeled, tmp_path / "a", kept=read.kept)
    content = json.loads(written.read_text())
    assert content["annotations"] == [person]
    assert (content["info"], content["licenses"]) == ({"year": 2017}, [{"id": 4}])
    moved = Labeled(read.labeled[0].item, (points | {"points": [[4, 4, 2], [6, 6, 2]]},))
    [written] = write_coco(PROJECT, [moved], tmp_path / "b", kept=read.kept)
    [entry] = json.loads(written.read_text())["annotations"]
    assert (entry["bbox"], entry["segmentation"], entry["area"], entry["extra"]) == ([4, 4, 2, 2], [], 4, [1])


def test_the_task_says_which_shape_is_wanted(lay: Lay) -> None:
    path = lay(box(segmentation=[[3, 3, 9, 3, 9, 9, 3, 9]]))
    found = {
        kinds: read_coco(path, kinds=kinds).labeled[0].annotations[0] for kinds in [(), ("box",), ("mask",), ("polygon", "mask")]
    }
    assert [one["kind"] for one in found.values()] == ["polygon", "box", "mask", "polygon"]
    assert (found["box",]["x"], found["box",]["width"]) == (1, 10)  # the file's own box, not one around the outline
    assert sum(uncompress(found["mask",]["rle"]["counts"])[1::2]) == 36
    read = read_coco(lay(box()), kinds=("polygon",))
    assert (read.labeled[0].annotations, len(read.problems)) == ((), 1)
    assert "without making something up" in read.problems[0]


def test_ids_of_classes_and_pictures_stay_and_new_ones_are_free(lay: Lay, tmp_path: Path) -> None:
    path = lay(
        box(id="x1", image_id="p9", category_id=90),
        box(id=7, image_id="p9", category_id=90),
        images=[{"id": "p9", "file_name": "9.jpg", "width": WIDTH, "height": HEIGHT, "license": 3, "id_": 5}],
        categories=[{"id": 90, "name": "hand", "supercategory": "body", "class": "x"}],
    )
    read = read_coco(path)
    new = {"id": "3f2a", "kind": "box", "label": "c c", "x": 1, "y": 1, "width": 2, "height": 2}
    other = LabelItem("new.jpg", {"image": "new.jpg", "width": WIDTH, "height": HEIGHT})
    labeled = [Labeled(other, (new,)), Labeled(read.labeled[0].item, (*read.labeled[0].annotations, new))]
    content = json.loads(write_coco(PROJECT, labeled, tmp_path / "out", kept=read.kept)[0].read_text())
    assert content["categories"][0] == {"id": 90, "name": "hand", "supercategory": "body", "class": "x"}
    assert [one["name"] for one in content["categories"]] == ["hand", "Käse 🧀", "c c"]
    assert [one["id"] for one in content["images"]] == [1, "p9"]
    assert content["images"][1] == json.loads(path.read_text())["images"][0]
    assert [one["id"] for one in content["annotations"]] == [1, "x1", 7, 2]
    assert len({str(one["id"]) for one in content["categories"]}) == 3


def test_parts_of_the_picture_are_pixels(lay: Lay) -> None:
    """Azure ML's labeling projects tell boxes and outlines so."""
    whole = box(id=2, bbox=[0, 0, 1, 1], segmentation=[[0, 0, 1, 0, 1, 1]])
    read = read_coco(lay(box(bbox=[0.25, 0.5, 0.5, 0.25], area=0.125), whole), kinds=("box",))
    assert read.problems == []
    assert [[one[key] for key in ("x", "y", "width", "height")] for one in read.labeled[0].annotations] == [
        [10, 15, 20, 7.5],
        [0, 0, 40, 30],
    ]
    assert read_coco(lay(whole, box(bbox=[0.25, 0.5, 2, 2]))).labeled[0].annotations[1]["x"] == 0.25  # in pixels: it is two wide
    sizeless = read_coco(lay(box(bbox=[0.25, 0.5, 0.5, 0.25]), images=[{"id": 1, "file_name": "1.jpg"}]))
    assert "whose size is not known" in sizeless.problems[0]


# --- what is wrong in a file ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (box(bbox=[35, 2, 10, 5]), "outside of the picture of 40 by 30"),
        (box(bbox=[1, 2, 0, 5]), "enclose nothing"),
        (box(bbox=[1, 2, math.nan, 5]), "must be numbers"),
        (box(bbox=[1, 2, 10**400, 5]), "box"),
        (box(bbox=[1, 2, 10]), "x, y, width and height are expected"),
        (box(bbox="1 2 10 5"), "x, y, width and height are expected"),
        (box(bbox={"x": 1}), "x, y, width and height are expected"),
        (box(image_id=2), "there is no image 2"),
        (box(image_id={"id": 1}), "there is no image"),
        (box(category_id=9), "there is no category 9"),
        (box(category_id=True), "there is no category True"),
        (box(segmentation=[[1, 2, 3]]), "x, y, x, y"),
        (box(segmentation=[[1, 2, 3, 4]]), "encloses nothing"),
        (box(segmentation=["a"]), "x, y, x, y"),
        (box(segmentation=[[1, 2, 3, 4, 5, 500]]), "outside of the picture"),
        (box(segmentation={"size": [HEIGHT, WIDTH], "counts": "rubbish~"}), "no COCO text"),
        (box(segmentation={"size": [WIDTH, HEIGHT], "counts": [0, 1200]}), "it is 30 by 40 pixels, the picture 40 by 30"),
        (box(segmentation={"size": [HEIGHT, WIDTH], "counts": [0, 9999]}), "add up to 9999"),
        (box(segmentation={"counts": [1]}), "mask"),
        (box(keypoints=[1, 2, 2, 4]), "x, y, v"),
        (box(keypoints=[99, 2, 2]), "outside of the picture"),
        (box(keypoints=[1, 2, 7]), "hidden"),
        (box(iscrowd=2), "iscrowd 2"),
        (box(iscrowd="yes"), "iscrowd 'yes'"),
    ],
    ids=range(24),
)
def test_a_wrong_annotation_is_told_with_its_id_and_the_others_are_read(lay: Lay, entry: dict[str, Any], says: str) -> None:
    read = read_coco(lay(entry | {"id": 17}, box(id=18)))
    assert [one["id"] for one in read.labeled[0].annotations] == ["18"]
    [problem] = read.problems
    assert problem.startswith("labels.json: annotation 17: left out: ")
    assert says in problem


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        (
            {"images": [{"id": 1, "file_name": "../../etc/passwd"}]},
            "image 1: left out, with its annotations: file_name '../../etc/passwd'",
        ),
        ({"images": [{"id": 1, "file_name": "/etc/passwd"}]}, "no name below"),
        ({"images": [{"id": 1, "file_name": "c:\\x.jpg"}]}, "no name below"),
        ({"images": [{"id": 1, "file_name": "a\\..\\..\\x.jpg"}]}, "no name below"),
        ({"images": [{"id": 1, "file_name": "http://127.0.0.1/x.jpg"}]}, "no name below"),
        ({"images": [{"id": 1, "file_name": "a\x00.jpg"}]}, "no name below"),
        ({"images": [{"id": 1, "file_name": 5}]}, "no name below"),
        ({"images": [{"id": 1, "file_name": "x" * 300 + ".jpg"}]}, "no name below"),
        ({"images": [{"id": 1, "file_name": "1.jpg", "width": -4}]}, "no sizes in pixels"),
        ({"images": [{"id": 1, "file_name": "1.jpg", "width": "40"}]}, "no sizes in pixels"),
        ({"images": [{"file_name": "1.jpg"}]}, "image number 1: left out: its id is missing"),
        ({"images": ["1.jpg"]}, "image number 1: left out: no object"),
        ({"images": [{"id": 1, "file_name": "1.jpg"}, {"id": 2, "file_name": "1.jpg"}]}, "1.jpg is the picture of image 1 already"),
        ({"images": [{"id": 1, "file_name": "1.jpg"}, {"id": "1", "file_name": "2.jpg"}]}, "image 1: a second one has this id"),
        ({"categories": [{"id": 1}]}, "category 1: left out: it has no name"),
        ({"categories": [{"id": 1, "name": "hand"}, {"id": 1, "name": "foot"}]}, "category 1: a second one has this id"),
        ({"categories": [{"id": 1, "name": "hand"}, {"id": 2, "name": "hand"}]}, "it is read as 'hand (2)'"),
        ({"info": {"year": math.nan}}, "the file: info is left out"),
        ({"annotations": [box(), box()]}, "annotation 1: a second one has this id; it is read as 1-2"),
        ({"annotations": [box(note=math.inf)]}, "annotation 1: note is left out"),
        ({"annotations": [box(), 5]}, "annotation number 2: left out: no object"),
        (
            {"categories": [{"id": 1, "name": "hand", "keypoints": ["a", "b"]}], "annotations": [box(keypoints=[1, 2, 2])]},
            "1 key points, its class 2",
        ),
    ],
    ids=range(22),
)
def test_a_wrong_part_is_told(lay: Lay, parts: dict[str, Any], says: str) -> None:
    read = read_coco(lay(**{"annotations": [box()]} | parts))
    assert any(says in problem for problem in read.problems), read.problems


def test_two_classes_of_one_name_stay_two(lay: Lay, tmp_path: Path) -> None:
    categories = [{"id": 1, "name": "hand"}, {"id": 2, "name": "hand"}]
    read = read_coco(lay(box(), box(id=2, category_id=2), categories=categories))
    assert read.classes == ("hand", "hand (2)")
    project = LabelProject(name="x", task="image_object_detection", classes=read.classes)
    content = json.loads(write_coco(project, read.labeled, tmp_path / "out", kept=read.kept)[0].read_text())
    assert content["categories"] == categories
    assert [one["category_id"] for one in content["annotations"]] == [1, 2]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"images": [',
        b"[]",
        b"7",
        b"null",
        b'{"images": {}}',
        b'{"images": [], "annotations": 5}',
        b'{"images": [], "categories": "a"}',
        b'[{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]',
        b"\xff\xfe\x00",
        b"PK\x03\x04",
        b"[" * 100_000,
        b'{"images": [], "info": "\\ud800"}',
        b'{"images": [], "n": ' + b"1" * 10_000 + b"}",
        b'{"pictures": []}',
    ],
    ids=range(15),
)
def test_a_file_that_is_none_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_bytes(content)
    with pytest.raises(SpecificationError, match=r"labels\.json"):
        read_coco(path)
    with pytest.raises(SpecificationError, match="no such file"):
        read_coco(tmp_path / "nowhere.json")


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_whatever_stands_in_a_field_nothing_breaks_and_nothing_is_lost_in_silence(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    junk = plain | st.just(math.nan) | st.integers(10**20, 10**30)
    content: dict[str, Any] = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": WIDTH, "height": HEIGHT}],
        "categories": [{"id": 1, "name": "hand"}],
        "annotations": [
            box(segmentation=[[1, 1, 9, 1, 9, 9]], area=5, keypoints=[1, 1, 2]),
            box(id=2),
            box(id=3, segmentation={"size": [HEIGHT, WIDTH], "counts": [0, 1200]}),
        ],
    }
    for _ in range(data.draw(st.integers(1, 3))):
        part = data.draw(st.sampled_from(sorted(content)))
        entry = data.draw(st.sampled_from(content[part]))
        entry[data.draw(st.sampled_from(sorted(entry)))] = data.draw(junk)
    folder = tmp_path_factory.mktemp("junk")
    (folder / "labels.json").write_text(json.dumps(content))
    read = read_coco(folder / "labels.json")
    assert sum(len(one.annotations) for one in read.labeled) + len(read.problems) >= 3
    json.dumps([one.annotations for one in read.labeled], allow_nan=False)
    write_coco(PROJECT, read.labeled, folder, kept=read.kept)


# --- pictures ------------------------------------------------------------------------------------------------------------------------
def test_pictures_beside_the_file_are_found_and_must_be_of_the_stated_size(lay: Lay, tmp_path: Path) -> None:
    path = lay(
        box(),
        images=[
            {"id": 1, "file_name": "a\\1.jpg"},
            {"id": 2, "file_name": "2.jpg", "width": 30, "height": 40},
            {"id": 3, "file_name": "3.jpg", "width": 1, "height": 1},
            {"id": 4, "file_name": "4.jpg"},
        ],
    )
    (tmp_path / "images/a").mkdir(parents=True)
    (tmp_path / "images/a/1.jpg").write_bytes(picture())
    (tmp_path / "2.jpg").write_bytes(picture(orientation=6))  # lies on its side
    (tmp_path / "3.jpg").write_bytes(picture())
    (tmp_path / "4.jpg").write_bytes(b"no picture")
    read = read_coco(path)
    first, second = (one.item.data for one in read.labeled)
    assert (first["image"], first["width"], first["height"]) == (str(tmp_path / "images/a/1.jpg"), WIDTH, HEIGHT)
    assert (second["image"], second["width"], second["height"]) == (str(tmp_path / "2.jpg"), 30, 40)
    assert ["40 by 30 pixels upright, the file says 1 by 1" in read.problems[0], "4.jpg is no picture" in read.problems[1]] == [
        True,
        True,
    ]
    assert read_coco(path, images="memory://pictures/").labeled[1].item.data["image"] == "memory://pictures/2.jpg"
    assert read_coco(path, images=str(tmp_path / "elsewhere")).labeled[1].item.data["image"] == str(tmp_path / "elsewhere/2.jpg")


def test_a_link_that_leads_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(picture())
    inside = tmp_path / "images"
    inside.mkdir()
    (inside / "own.jpg").write_bytes(picture())
    os.symlink(tmp_path / "secret.jpg", inside / "link.jpg")
    assert locate(inside, "own.jpg") == inside / "own.jpg"
    assert locate(inside, "link.jpg") is None
    assert locate(inside, "../secret.jpg") is None
    assert locate(inside, "missing.jpg") is None


@settings(deadline=None)
@given(st.text(max_size=12) | st.sampled_from(["..", "a/..", "a/../b.jpg", "a/b.jpg", "/", "", ".", "~/x", "a//b"]))
def test_a_name_that_is_inside_stays_inside(name: str) -> None:
    if is_inside(name):
        place = os.path.normpath(os.path.join("/pictures", name))
        assert place.startswith("/pictures/")


def test_pictures_are_copied_upright_and_none_over_another(tmp_path: Path) -> None:
    """Programs that train do not look at the EXIF data, and coordinates are of the upright picture."""
    held = {
        "a/hand.jpg": picture(),
        "b/hand.jpg": picture(HEIGHT, WIDTH, orientation=6),
        "a1b2": picture(kind="PNG"),
        "../up.png": picture(kind="PNG"),
        "phone": picture(HEIGHT, WIDTH, "MPO", 8),
    }
    items = [LabelItem(key, {"image": f"/data/{key}" if "." in key else "x", "width": WIDTH, "height": HEIGHT}) for key in held]
    written = write_coco(PROJECT, [Labeled(item, ()) for item in items], tmp_path, lambda item: held[item.id])
    assert [path.relative_to(tmp_path).as_posix() for path in written] == [
        "annotations.json",
        "images/a/hand.jpg",
        "images/b/hand.jpg",
        "images/a1b2.png",
        "images/up.png",
        "images/phone.jpg",
    ]
    assert written[1].read_bytes() == held["a/hand.jpg"]  # byte by byte
    with Image.open(written[2]) as turned:
        assert turned.size == (WIDTH, HEIGHT)
        assert turned.getexif().get(0x0112, 1) == 1
        assert [turned.convert("L").getpixel(place) > 128 for place in ((2, 2), (WIDTH - 3, 2))] == [False, True]
    read = read_coco(written[0])
    assert read.problems == []
    assert [one.item.data["image"] for one in read.labeled] == [str(path) for path in written[1:]]
    with pytest.raises(ValueError, match="its picture cannot be read"):
        copy_picture(items[0], "x.jpg", tmp_path, lambda item: b"nothing")


def test_names_differ_also_where_a_disk_ignores_case() -> None:
    items = [LabelItem(key, {"image": f"{key}/Hand.JPG" if key == "b" else f"{key}/hand.jpg"}) for key in "abc"]
    assert picture_names(Labeled(item, ()) for item in items) == {"a": "hand.jpg", "b": "Hand-2.JPG", "c": "hand-3.jpg"}
    held = ["x.png", "x", "X.PNG", "y", "y.jpg", "doc.v1", "doc.v2", "..", "漢字" * 90]
    found = picture_names((Labeled(LabelItem(key, {}), ()) for key in held), stems=True)
    assert list(found.values())[:7] == ["x.png", "x-2", "X-3.PNG", "y", "y-2.jpg", "doc_v1", "doc_v2"]  # an ending may still come
    assert all(is_inside(name) for name in found.values())
    alike = [LabelItem("x.jpg", {}), LabelItem("x.png", {})]
    assert picture_names((Labeled(item, ()) for item in alike), stems=True) == {"x.jpg": "x.jpg", "x.png": "x-2.png"}
    assert picture_names(Labeled(item, ()) for item in alike) == {"x.jpg": "x.jpg", "x.png": "x.png"}


def test_what_coco_cannot_hold_is_refused(tmp_path: Path) -> None:
    span = {"id": "s", "kind": "span", "label": "hand", "start": 0, "end": 2}
    with pytest.raises(SpecificationError, match="COCO holds no annotations of kind span"):
        write_coco(PROJECT, [Labeled(LabelItem("t", {"text": "Ana"}), (span,))], tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_librarys_measure_finds_no_difference(tmp_path: Path) -> None:
    """COCO's own evaluation of what is written, against what was drawn."""
    shape = {"id": "p", "kind": "polygon", "label": "hand", "rings": [[[3, 3], [30, 4], [20, 25]], [[31, 20], [39, 20], [39, 29]]]}
    [written] = write_coco(
        PROJECT, [Labeled(LabelItem("1.jpg", {"image": "1.jpg", "width": WIDTH, "height": HEIGHT}), (shape,))], tmp_path
    )
    theirs = by_pycocotools(written)
    [entry] = theirs.loadAnns(theirs.getAnnIds())
    drawn = coco_mask.merge(coco_mask.frPyObjects([[3, 3, 30, 4, 20, 25], [31, 20, 39, 20, 39, 29]], HEIGHT, WIDTH))
    assert coco_mask.iou([theirs.annToRLE(entry)], [drawn], [0])[0][0] == 1
    assert theirs.cats[entry["category_id"]]["name"] == "hand"


def test_a_class_of_the_whole_picture_needs_no_shape(lay: Lay, tmp_path: Path) -> None:
    """Azure ML's labeling projects write classifications so."""
    path = lay({"id": 1, "image_id": 1, "category_id": 1, "area": 0.0})
    read = read_coco(path, kinds=("class",))
    assert [(one["kind"], one["label"]) for one in read.labeled[0].annotations] == [("class", "hand")]
    [written] = write_coco(PROJECT, read.labeled, tmp_path / "out", kept=read.kept)
    assert json.loads(written.read_text())["annotations"] == [{"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 0.0}]
    told = read_coco(path, kinds=("box",)).problems
    assert told == ["labels.json: annotation 1: left out: class: it cannot be made a box without making something up."]
