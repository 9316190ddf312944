"""Masks as PNG files: pixels come back as they were, the layouts of others are understood, and faults are told."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from mlops_nb.core.records import SpecificationError
from mlops_nb.inner_loop.answers import check_annotation
from mlops_nb.inner_loop.labeling import LabelProject
from mlops_nb.inner_loop.masks import palette, read_masks, write_masks
from mlops_nb.inner_loop.shapes import decode, encode, to_rle
from mlops_nb.inner_loop.store import Labeled, LabelItem

CLASSES = [{"name": "hand", "colour": "#ff8800"}, "Käse, 🧀", "x\ny"]
PROJECT = LabelProject(name="signs", task="image_instance_segmentation", classes=CLASSES)  # type: ignore[arg-type]
OWN = "number,name,colour\n1,hand,#ff0000\n2,face,#00ff00\n"
Lay = Callable[..., Path]


def png(pixels: Any, mode: str = "L", cut: int = 0, colours: list[int] | None = None) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(np.array(pixels, np.uint16 if mode == "I;16" else np.uint8))
    if colours:
        image = image.convert("L")
        image.putpalette(colours)
    image.save(buffer, "PNG")
    return buffer.getvalue()[: -cut or None]


@st.composite
def answers(draw: st.DrawFn) -> list[Labeled]:
    """One or two pictures with masks that may overlap, be of the same class, be crowds; or with a polygon."""
    found = []
    for number in range(draw(st.integers(1, 2))):
        height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
        drawn: list[dict[str, Any]] = []
        for _ in range(draw(st.integers(0, 3))):
            shape: dict[str, Any] = {
                "id": str(len(drawn)),
                "label": draw(st.sampled_from(PROJECT.names)),
                "crowd": draw(st.booleans()),
            }
            if draw(st.booleans()):
                shape |= {"kind": "polygon", "rings": [[[0, 0], [width, 0], [width, height], [0, height]]]}
            else:
                shape |= {"kind": "mask", "rle": encode(draw(arrays(bool, (height, width), elements=st.booleans()).filter(np.any)))}
            drawn.append(check_annotation(shape))
        item = LabelItem(f"a/{number}.jpg", {"image": f"/data/a/{number}.jpg", "width": width, "height": height})
        found.append(Labeled(item, tuple(drawn)))
    return found


def meaning(labeled: list[Labeled]) -> dict[str, Any]:
    """Say of each picture its size, and of each shape its class, whether it is a crowd, and its pixels; in no order."""
    return {
        one.item.id: (
            one.item.data["width"],
            one.item.data["height"],
            sorted(
                (shape["label"], shape.get("crowd", False), to_rle(shape, one.item.data["width"], one.item.data["height"])["counts"])
                for shape in one.annotations
            ),
        )
        for one in labeled
    }


@settings(max_examples=30, deadline=None)
@given(answers())
def test_what_is_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, labeled: list[Labeled]) -> None:
    folder = tmp_path_factory.mktemp("masks")
    write_masks(PROJECT, labeled, folder)
    read = read_masks(folder)
    assert read.problems == []
    assert read.classes == tuple(PROJECT.names)
    assert meaning(read.labeled) == meaning(labeled)


def test_one_shape_of_a_class_is_in_the_class_picture_alone(tmp_path: Path) -> None:
    upper, lower = np.zeros((2, 4, 6), bool)
    upper[:2], lower[3:, :2] = True, True
    shapes = tuple(
        {"id": label, "kind": "mask", "label": label, "rle": encode(pixels)} for label, pixels in (("hand", upper), ("x\ny", lower))
    )
    written = write_masks(PROJECT, [Labeled(LabelItem("1.jpg", {"image": "1.jpg", "width": 6, "height": 4}), shapes)], tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in written] == ["classes.csv", "masks/1.png", "pictures.json"]
    with Image.open(tmp_path / "masks/1.png") as picture:
        assert picture.mode == "P"
        assert (np.asarray(picture) == upper * 1 + lower * 3).all()
        assert picture.convert("RGB").getpixel((0, 0)) == (255, 136, 0)  # the class's own colour
        assert picture.convert("RGB").getpixel((5, 3)) == (0, 0, 0)
    assert meaning(read_masks(tmp_path).labeled)["1.jpg"][2] == [
        ("hand", False, encode(upper)["counts"]),
        ("x\ny", False, encode(lower)["counts"]),
    ]


def test_of_overlapping_shapes_the_later_one_is_in_the_class_picture_and_both_have_a_file(tmp_path: Path) -> None:
    whole, part = np.ones((2, 4, 6), bool)
    part[:, 3:] = False
    shapes = tuple(
        {"id": label, "kind": "mask", "label": label, "rle": encode(pixels)} for label, pixels in (("hand", whole), ("x\ny", part))
    )
    write_masks(PROJECT, [Labeled(LabelItem("1.jpg", {"image": "1.jpg", "width": 6, "height": 4}), shapes)], tmp_path)
    with Image.open(tmp_path / "masks/1.png") as picture:
        assert np.asarray(picture)[0].tolist() == [3, 3, 3, 1, 1, 1]
    with Image.open(tmp_path / "instances/1/0001.png") as picture:
        assert (picture.mode, bool(np.asarray(picture).all())) == ("1", True)
    assert len(read_masks(tmp_path).labeled[0].annotations) == 2


def test_more_classes_than_a_palette_holds(tmp_path: Path) -> None:
    names = [f"class {number}" for number in range(400)]
    project = LabelProject(name="many", task="image_semantic_segmentation", classes=names)  # type: ignore[arg-type]
    assert len(set(palette(project, names))) == 400
    shapes = []
    for place, name in enumerate(("class 0", "class 254", "class 255", "class 399")):
        pixels = np.zeros((2, 4), bool)
        pixels[:, place] = True
        shapes.append({"id": name, "kind": "mask", "label": name, "rle": encode(pixels)})
    write_masks(project, [Labeled(LabelItem("1.png", {"image": "1.png", "width": 4, "height": 2}), tuple(shapes))], tmp_path)
    read = read_masks(tmp_path)
    assert read.problems == []
    assert [one["label"] for one in read.labeled[0].annotations] == ["class 0", "class 254", "class 255", "class 399"]
    assert decode(read.labeled[0].annotations[3]["rle"]).tolist() == [[False, False, False, True]] * 2


def test_pictures_go_along_and_are_found_again(tmp_path: Path) -> None:
    items = [LabelItem(key, {"image": f"{key}/hand", "width": 6, "height": 4}) for key in ("a", "b")]
    write_masks(PROJECT, [Labeled(item, ()) for item in items], tmp_path, lambda item: png(np.zeros((4, 6))))
    read = read_masks(tmp_path)
    assert read.problems == []
    assert {one.item.id: one.item.data["image"] for one in read.labeled} == {key: str(tmp_path / f"images/{key}.png") for key in "ab"}
    (tmp_path / "pictures.json").unlink()
    assert [one.item.id for one in read_masks(tmp_path).labeled] == ["a.png", "b.png"]


def test_pascal_vocs_classes_and_instances(lay: Lay) -> None:
    """Two instances of one class; the border between them, 255, belongs to nothing for certain."""
    read = read_masks(
        lay(
            **{
                "classes.txt": "aeroplane\nbicycle\n",
                "SegmentationClass/1.png": png([[1, 1, 255, 1, 1], [0, 2, 2, 2, 0]]),
                "SegmentationObject/1.png": png([[1, 1, 255, 2, 2], [0, 3, 3, 3, 0]]),
                "JPEGImages/1.jpg": png(np.zeros((2, 5))),
            }
        )
    )
    assert read.problems == []
    assert [(one["label"], decode(one["rle"]).sum()) for one in read.labeled[0].annotations] == [
        ("aeroplane", 2),
        ("aeroplane", 2),
        ("bicycle", 3),
    ]
    assert read.labeled[0].item.data["image"].endswith("JPEGImages/1.jpg")


def test_cvats_colours(lay: Lay) -> None:
    colours = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nhand:255,0,0::\nface:0,250,0::\n"
    pixels = [[[255, 0, 0], [0, 250, 0]], [[0, 0, 0], [224, 224, 192]]]
    read = read_masks(
        lay(
            **{
                "labelmap.txt": colours,
                "SegmentationClass/1.png": png(pixels),
                "SegmentationClass/2.png": png([[1, 0]], colours=[0, 0, 0, 0, 250, 0]),
                "SegmentationClass/3.png": png([[[1, 2, 3]]]),
            }
        )
    )
    assert read.classes == ("hand", "face")
    assert [[one["label"] for one in labeled.annotations] for labeled in read.labeled] == [["hand", "face"], ["face"]]
    assert read.problems == ["SegmentationClass/3.png: left out: no class has the colour #010203."]


def test_what_is_wrong_in_a_folder_is_told(lay: Lay, tmp_path: Path) -> None:
    good = png([[1, 0], [0, 2]])
    folder = lay(
        **{
            "classes.csv": OWN,
            "masks/good.png": good,
            "masks/torn.png": png(np.ones((40, 40)), cut=40),
            "masks/none.png": b"PK\x03\x04",
            "masks/unknown.png": png([[7, 1]]),
            "masks/other.png": good,
            "images/other.jpg": png(np.zeros((3, 3))),
            "masks/two.png": good,
            "instances.csv": "file,class,crowd\ntwo/1.png,hand,0\ntwo/2.png,hand,0\ntwo/3.png,hand,0\n../up.png,hand,0\n"
            "two/1.png,foot,0\ntwo/1.png,hand,yes\ngone/1.png,hand,0\n",
            "instances/two/1.png": png([[255, 0], [0, 0]]),
            "instances/two/2.png": png([[255]]),
            "pictures.json": '{"lost.jpg": {"id": "lost", "width": 1, "height": 1}, "x/../../y.jpg": {"id": "y"}}',
        }
    )
    (folder / "masks/link.png").symlink_to(tmp_path / "elsewhere.png")
    (tmp_path / "elsewhere.png").write_bytes(good)
    read = read_masks(folder)
    assert {one.item.id: [shape["label"] for shape in one.annotations] for one in read.labeled} == {
        "good.png": ["hand", "face"],
        "unknown.png": ["hand"],
        "two.png": ["hand"],
    }
    told = "\n".join(read.problems)
    for text in (
        "masks/torn.png: left out: no picture",
        "masks/none.png: left out: no picture",
        "masks/unknown.png: 1 pixels of number 7",
        "masks/other.png: left out: its picture is 3 by 3 pixels upright, the mask 2 by 2",
        "instances/two/2.png: left out: mask: it is 1 by 1",
        "instances/two/3.png: left out: there is no such file",
        "instances.csv:5: left out: '../up.png'",
        "instances.csv:6: left out: 'two/1.png': no",
        "instances.csv:7",
        "instances.csv: gone: there is no mask",
        "pictures.json: lost.jpg",
        "'x/../../y.jpg'",
        "masks/link.png: left out",
    ):
        assert text in told, f"{text}\n{told}"
    assert len(read.problems) == 13


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "no PNG files"),
        ({"masks/1.txt": "x"}, "no PNG files"),
        ({"masks/1.png": png([[1]])}, "none of classes.csv"),
        ({"classes.csv": "a,b\n", "masks/1.png": png([[1]])}, "columns number, name, colour"),
        ({"classes.csv": "", "masks/1.png": b""}, "classes.csv"),
        ({"classes.csv": OWN + "1,foot,\n", "masks/1.png": png([[1]])}, "the number 1 stands here twice"),
        ({"classes.csv": OWN + "3,hand,\n", "masks/1.png": png([[1]])}, "the name hand stands here twice"),
        ({"classes.csv": OWN + "0,foot,\n", "masks/1.png": png([[1]])}, "from 1 to 65535"),
        ({"classes.csv": OWN + "4\n", "masks/1.png": b""}, "csv:4: 1 values"),
        ({"classes.csv": OWN + "x,,\n", "masks/1.png": png([[1]])}, "from 1 to 65535"),
        ({"classes.csv": b"\xff", "masks/1.png": b""}, "no table"),
        ({"labelmap.txt": "hand:300,0,0::\n", "masks/1.png": png([[1]])}, r"labelmap.txt:1: name:red,green,blue"),
        ({"classes.csv": OWN, "masks/1.png": png([[1]]), "pictures.json": "{"}, "pictures.json"),
        ({"classes.csv": OWN, "masks/1.png": png([[1]]), "instances.csv": "x"}, "instances.csv:1"),
    ],
    ids=range(14),
)
def test_a_folder_that_is_none_is_refused(lay: Lay, files: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecificationError, match=says):
        read_masks(lay(**files))


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    item = LabelItem("1.jpg", {"image": "1.jpg", "width": 6, "height": 4})
    box = {"id": "b", "kind": "box", "label": "hand", "x": 1, "y": 1, "width": 2, "height": 2}
    outside = {"id": "p", "kind": "polygon", "label": "hand", "rings": [[[0, 0], [90, 0], [90, 4]]]}
    whole = {"id": "m", "kind": "mask", "label": "hand", "rle": encode(np.ones((4, 6)))}
    for labeled, says in (
        ([Labeled(item, (box,))], "PNG holds no annotations of kind box"),
        ([Labeled(item, (outside,))], "outside of the picture"),
        ([Labeled(LabelItem("1.jpg", {"image": "1.jpg"}), (whole,))], "not known"),
        ([Labeled(item, (whole,), by) for by in ("ana", "ben")], "one answer for each picture"),
    ):
        with pytest.raises(SpecificationError, match=says):
            write_masks(PROJECT, labeled, tmp_path / "out")
    assert not (tmp_path / "out").exists()


SHARED = Path(__file__).resolve().parents[3] / "shared/data/cv"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the files are not here")
def test_published_masks_go_to_png_and_back(tmp_path: Path) -> None:
    from mlops_nb.inner_loop.coco import read_coco

    given = read_coco(SHARED / "odFridgeObjectsMask_coco_rle.json")
    project = LabelProject(name="fridge", task="image_instance_segmentation", classes=given.classes)
    write_masks(project, given.labeled[:12], tmp_path)
    found = read_masks(tmp_path)
    assert found.problems == []
    assert meaning(found.labeled) == meaning(given.labeled[:12])
