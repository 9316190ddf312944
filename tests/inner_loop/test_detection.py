"""YOLO's folders and Pascal VOC's: what is written is read again, published layouts are understood, and hostile files do no harm."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mlops_nb.core.records import SpecificationError
from mlops_nb.inner_loop.answers import check_annotation
from mlops_nb.inner_loop.detection import join, read_voc, read_yolo, write_voc, write_yolo
from mlops_nb.inner_loop.labeling import LabelProject
from mlops_nb.inner_loop.shapes import decode, encode, iou, to_rle
from mlops_nb.inner_loop.store import Labeled, LabelItem

WIDTH, HEIGHT = 640, 480
CLASSES = ["hand", "Käse 🧀", "yes", "5"]
PROJECT = LabelProject(name="signs", task="image_object_detection", classes=CLASSES)  # type: ignore[arg-type]
Lay = Callable[..., Path]
sides = st.integers(0, HEIGHT).map(float) | st.floats(0, HEIGHT).map(lambda value: round(value, 4))


def picture(width: int = WIDTH, height: int = HEIGHT, orientation: int = 1) -> bytes:
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (width, height)).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def box(**changes: Any) -> dict[str, Any]:
    return {"id": "b", "kind": "box", "label": "hand", "x": 10, "y": 20, "width": 40, "height": 30} | changes


def item(name: str = "1.jpg", **data: Any) -> LabelItem:
    return LabelItem(name, {"image": f"/data/{name}", "width": WIDTH, "height": HEIGHT} | data)


NOTHING: st.SearchStrategy[dict[str, Any]] = st.just({})


@st.composite
def shapes(draw: st.DrawFn, kinds: tuple[str, ...] = ("box",)) -> dict[str, Any]:
    x, y = draw(sides) * 0.9, draw(sides) * 0.9
    shape: dict[str, Any] = {"kind": draw(st.sampled_from(kinds)), "label": draw(st.sampled_from(CLASSES))}
    if shape["kind"] == "box":
        return shape | {"x": x, "y": y, "width": draw(st.floats(0.5, 640 - x)), "height": draw(st.floats(0.5, 480 - y))}
    return shape | {"rings": [[[x, y], [x + 20, y], [draw(sides), y + 30]]]}


@st.composite
def answers(draw: st.DrawFn, kinds: tuple[str, ...] = ("box",), more: st.SearchStrategy[dict[str, Any]] = NOTHING) -> list[Labeled]:
    found = []
    for number in range(draw(st.integers(1, 3))):
        drawn = [draw(shapes(kinds)) | draw(more) for _ in range(draw(st.integers(0, 3)))]
        name = draw(st.sampled_from(["{}.jpg", "a/{}.png", "images/{}.jpg", "a b.{}.JPG"])).format(number)
        split = draw(st.sampled_from(["train", "val", "test"]))
        annotations = tuple(check_annotation(one | {"id": str(place)}) for place, one in enumerate(drawn))
        found.append(Labeled(item(name, split=split), annotations))
    return found


def alike(one: Any, other: Any) -> bool:
    """Compare with a tolerance of a hundred-thousandth of a pixel."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(key == "id" or alike(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    return abs(one - other) <= 2e-5 if isinstance(one, float) else one == other


def meaning(labeled: list[Labeled]) -> dict[str, Any]:
    return {one.item.id: ([one.item.data.get(key) for key in ("width", "height", "split")], list(one.annotations)) for one in labeled}


# --- YOLO ----------------------------------------------------------------------------------------------------------------------------
@settings(max_examples=40, deadline=None)
@given(answers(("box", "polygon")))
def test_what_is_written_for_yolo_is_read_again(tmp_path_factory: pytest.TempPathFactory, labeled: list[Labeled]) -> None:
    folder = tmp_path_factory.mktemp("yolo")
    write_yolo(PROJECT, labeled, folder)
    read = read_yolo(folder)
    assert read.problems == []
    assert read.classes == tuple(CLASSES)
    assert alike(meaning(read.labeled), meaning(labeled))


def test_yolos_files_are_those_that_programs_expect(tmp_path: Path) -> None:
    labeled = [
        Labeled(item(), (box(), box(label="yes", x=0, y=0, width=640, height=480))),
        Labeled(item("images/2.png", split="val"), ()),
    ]
    written = write_yolo(PROJECT, labeled, tmp_path, lambda one: picture())
    assert {path.relative_to(tmp_path).as_posix() for path in written} == {
        "data.yaml",
        "pictures.json",
        "labels/train/1.txt",
        "labels/val/images_/2.txt",
        "images/train/1.jpg",
        "images/val/images_/2.png",
    }
    assert yaml.safe_load((tmp_path / "data.yaml").read_text()) == {
        "train": "images/train",
        "val": "images/val",
        "names": {0: "hand", 1: "Käse 🧀", 2: "yes", 3: "5"},
    }
    assert (tmp_path / "labels/train/1.txt").read_text() == "0 0.046875 0.0729166667 0.0625 0.0625\n2 0.5 0.5 1 1\n"
    assert (tmp_path / "labels/val/images_/2.txt").read_text() == ""  # looked at, and nothing there
    read = read_yolo(tmp_path)
    assert [one.item.id for one in read.labeled] == ["1.jpg", "images/2.png"]
    assert read.labeled[0].item.data["image"] == str(tmp_path / "images/train/1.jpg")
    (tmp_path / "pictures.json").unlink()  # then sizes are those of the pictures
    assert alike(list(read_yolo(tmp_path).labeled[0].annotations), list(read.labeled[0].annotations))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_mask_of_several_parts_and_holes_is_one_outline_of_the_same_pixels(data: st.DataObject) -> None:
    from hypothesis.extra.numpy import arrays

    from mlops_nb.inner_loop.shapes import to_polygons

    pixels = data.draw(arrays(bool, (9, 8), elements=st.booleans()))
    if pixels.any():
        ring = join(to_polygons(pixels))
        assert (decode(to_rle({"kind": "polygon", "rings": [ring]}, 8, 9)) == pixels).all()


def test_masks_and_polygons_of_parts_go_to_yolo_as_one_line_each(tmp_path: Path) -> None:
    array = np.zeros((HEIGHT, WIDTH), bool)
    array[10:50, 10:90], array[20:30, 20:30], array[200:240, 300:310] = True, False, True
    mask = {"id": "m", "kind": "mask", "label": "hand", "rle": encode(array)}
    parts = {
        "id": "p",
        "kind": "polygon",
        "label": "yes",
        "rings": [[[1, 1], [50, 1], [50, 50]], [[100, 100], [150, 100], [150, 160]]],
    }
    write_yolo(PROJECT, [Labeled(item(), (mask, parts))], tmp_path)
    assert len((tmp_path / "labels/train/1.txt").read_text().splitlines()) == 2
    first, second = read_yolo(tmp_path).labeled[0].annotations
    assert iou(first, mask, WIDTH, HEIGHT) == 1
    assert iou(second, parts, WIDTH, HEIGHT) > 0.99


def test_key_points_go_to_yolo_and_back(tmp_path: Path) -> None:
    classes = [{"name": "hand", "keypoints": ["wrist", "tip", "thumb"]}, {"name": "face", "keypoints": ["nose"]}]
    project = LabelProject(name="hands", task="image_keypoints", classes=classes)  # type: ignore[arg-type]
    drawn = [
        {"id": "1", "kind": "points", "label": "hand", "points": [[10.0, 20.0, 2], [0.0, 0.0, 0], [30.5, 40.25, 1]]},
        {"id": "2", "kind": "points", "label": "face", "points": [[0.0, 480.0, 2]]},
    ]
    write_yolo(project, [Labeled(item(), tuple(drawn))], tmp_path)
    head = yaml.safe_load((tmp_path / "data.yaml").read_text())
    assert (head["kpt_shape"], head["kpt_names"]) == ([3, 3], {0: ["wrist", "tip", "thumb"], 1: ["nose"]})
    assert [len(line.split()) for line in (tmp_path / "labels/train/1.txt").read_text().splitlines()] == [14, 14]
    read = read_yolo(tmp_path)
    assert read.problems == []
    assert alike(list(read.labeled[0].annotations), drawn)


def test_layouts_of_others_are_understood(lay: Lay) -> None:
    """Roboflow's folders with paths that lead out of them, lists of pictures, names by number, labels beside pictures, scores."""
    folder = lay(
        **{
            "data.yaml": "path: ../datasets/signs\ntrain: ../train/images\nval: val.txt\nnc: 2\nnames: {1: b, 0: a}\n",
            "val.txt": "./valid/images/2.jpg\n",
            "README.txt": "0 0.5 0.5 0.5 0.5\n",
            "train/images/1.jpg": picture(),
            "train/labels/1.txt": "0 0.5 0.5 0.25 0.5\r\n\r\n1.0 0.5 0.5 0.25 0.5 0.75\n",
            "valid/images/2.jpg": picture(480, 640, orientation=6),
            "valid/labels/2.txt": "1 0 0 0.5 0 0.5 0.5 0.9",
            "extra/3.jpg": picture(),
            "extra/3.txt": "0 .5 5e-1 .25 .5",
        }
    )
    read = read_yolo(folder)
    assert read.problems == []
    found = {one.item.id: one for one in read.labeled}
    assert {key: one.item.data.get("split") for key, one in found.items()} == {
        "1.jpg": "train",
        "valid/images/2.jpg": "val",
        "extra/3.jpg": None,
    }
    first, second = found["1.jpg"].annotations
    assert (first["x"], first["y"], first["width"], first["height"], first["label"]) == (240, 120, 160, 240, "a")
    assert (second["label"], second["score"]) == ("b", 0.75)
    [outline] = found["valid/images/2.jpg"].annotations
    assert (outline["kind"], outline["score"]) == ("polygon", 0.9)
    assert [found["valid/images/2.jpg"].item.data[side] for side in ("width", "height")] == [640, 480]  # upright
    assert len(found["extra/3.jpg"].annotations) == 1


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("7 0.5 0.5 0.1 0.1", "there is no class 7 (0 to 1)"),
        ("-1 0.5 0.5 0.1 0.1", "no class -1"),
        ("0.5 0.5 0.5 0.1 0.1", "no class 0.5"),
        ("nan 0.5 0.5 0.1 0.1", "'nan' is no number"),
        ("0 nan 0.5 0.1 0.1", "'nan' is no number"),
        ("0 inf 0.5 0.1 0.1", "'inf' is no number"),
        ("0 1e999 0.5 0.1 0.1", "must be numbers"),
        ("0 0x1 0.5 0.1 0.1", "'0x1' is no number"),
        ("hand 0.5 0.5 0.1 0.1", "'hand' is no number"),
        ("0 0.5 0.5", "2 numbers after the class"),
        ("0", "0 numbers after the class"),
        ("0 0.5 0.5 0 0.1", "enclose nothing"),
        ("0 0.9 0.5 0.5 0.1", "outside of the picture"),
        ("0 320 240 40 30", "outside of the picture"),
        ("0 0 0 0.5 0.5 0.9 0.9", "encloses nothing"),
        ("0 0.5 0.5 0.1 0.1 7", "would be a score"),
    ],
    ids=range(16),
)
def test_a_wrong_line_is_told_with_its_number(lay: Lay, line: str, says: str) -> None:
    content = f"0 0.5 0.5 0.1 0.1\n{line}\n1 0.5 0.5 0.1 0.1\n"
    read = read_yolo(lay(**{"data.yaml": "names: [a, b]", "images/1.jpg": picture(), "labels/1.txt": content}))
    assert [one["label"] for one in read.labeled[0].annotations] == ["a", "b"]
    [problem] = read.problems
    assert problem.startswith("labels/1.txt:2: left out: ")
    assert says in problem


def test_what_is_missing_or_leads_elsewhere_is_told(lay: Lay, tmp_path: Path) -> None:
    folder = lay(
        **{
            "data.yaml": "train: [/etc, ../../secret, [1, 2]]\nval: nowhere\nnames: [a]\n",
            "labels/lonely.txt": "0 0.5 0.5 0.1 0.1",
            "images/torn.jpg": picture()[:100],
            "labels/torn.txt": "0 0.5 0.5 0.1 0.1",
            "images/1.jpg": picture(),
            "images/1.png": picture(),
            "labels/1.txt": b"\xff\xfe\x00",
            "pictures.json": json.dumps({"../up.jpg": {"id": "u", "width": 5, "height": 5}, "images/no.jpg": {"id": 5}}),
        }
    )
    (tmp_path / "secret.jpg").write_bytes(picture())
    os.symlink(tmp_path / "secret.jpg", folder / "images/link.jpg")
    read = read_yolo(folder)
    assert read.labeled == []
    told = "\n".join(read.problems)
    for text in (
        "train: '/etc' is nothing in the folder",
        "'../../secret' is nothing",
        "'?' is nothing",
        "val: 'nowhere' is nothing",
        "'../up.jpg'",
        "'images/no.jpg'",
        "labels/lonely.txt: left out: there is no picture",
        "labels/torn.txt: left out: torn.jpg is no picture",
        "images/1.png: left out: its labels would be those of images/1.jpg",
        "labels/1.txt: left out",
        "images/link.jpg: left out",
    ):
        assert text in told, told
    assert len(read.problems) == 11


@pytest.mark.parametrize(
    "head",
    [
        "names: 5",
        "names: [a, a]",
        "names: []",
        "names: {0: a, 2: b}",
        "names: [[a]]",
        "names: [",
        "a: &a [*a]",
        "nc: 5",
        "",
        "\x00",
        "names: ['']",
        "names:\n" + "".join(f"  {'- ' * 300}\n" for _ in range(3)),
        "[" * 1500,
        "a: &a {x: 1}\n"
        + "".join(f"b{n}: &b{n} {{p: *{'a' if not n else f'b{n - 1}'}, q: *{'a' if not n else f'b{n - 1}'}}}\n" for n in range(60)),
    ],
    ids=range(14),
)
def test_a_head_that_names_no_classes_is_refused(lay: Lay, head: str) -> None:
    with pytest.raises(SpecificationError, match="given"):
        read_yolo(lay(**{"data.yaml": head, "images/1.jpg": picture()}))


def test_a_folder_without_anything_is_refused(tmp_path: Path) -> None:
    for read in (read_yolo, read_voc):
        with pytest.raises(SpecificationError, match="no such folder"):
            read(tmp_path / "nowhere")
        with pytest.raises(SpecificationError, match="in it"):
            read(tmp_path)


def test_what_yolo_has_no_word_for_is_refused(tmp_path: Path) -> None:
    points = {"id": "k", "kind": "points", "label": "hand", "points": [[1, 1, 2]]}
    for one, says in (
        (Labeled(item(), (box(crowd=True),)), "no word for crowds"),
        (Labeled(item(), (box(), points)), "not both"),
        (Labeled(item(width=0), (box(),)), "not known"),
        (Labeled(item(), ({"id": "c", "kind": "class", "label": "hand"},)), "YOLO holds no annotations of kind class"),
    ):
        with pytest.raises(SpecificationError, match=says):
            write_yolo(PROJECT, [one], tmp_path / "out")
    for write in (write_yolo, write_voc):
        with pytest.raises(SpecificationError, match="one answer for each picture"):
            write(PROJECT, [Labeled(item(), (box(),), by) for by in ("ana", "ben")], tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- Pascal VOC ----------------------------------------------------------------------------------------------------------------------
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
plain = (
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | words
    | st.just("5")
    | st.lists(words, max_size=2)
    | st.dictionaries(words, words, max_size=2)
)
names = st.text(st.characters(categories=["L", "N", "P", "Zs"]), min_size=1, max_size=6) | st.sampled_from(
    ["pose", "difficult", "name", "score"]
)
said = st.fixed_dictionaries(
    {"attributes": st.dictionaries(names, plain, max_size=3)},
    optional={"crowd": st.booleans(), "score": st.floats(0, 1), "source": st.just("model:dev.signs/3")},
)


@settings(max_examples=40, deadline=None)
@given(answers(more=said))
def test_what_is_written_for_voc_is_read_again(tmp_path_factory: pytest.TempPathFactory, labeled: list[Labeled]) -> None:
    folder = tmp_path_factory.mktemp("voc")
    write_voc(PROJECT, labeled, folder)
    read = read_voc(folder, first=1)
    assert read.problems == []
    assert alike(meaning(read.labeled), meaning(labeled))


CHALLENGE = """<annotation><folder>VOC2012</folder><filename>2007_000027.jpg</filename><source><database>The VOC2007 Database</database>
<image>flickr</image></source><size><width>486</width><height>500</height><depth>3</depth></size><segmented>0</segmented>
<object><name>person</name><pose>Unspecified</pose><truncated>0</truncated><difficult>1</difficult>
<bndbox><xmin>174</xmin><ymin>101</ymin><xmax>349</xmax><ymax>351</ymax></bndbox>
<part><name>head</name><bndbox><xmin>169</xmin><ymin>104</ymin><xmax>209</xmax><ymax>146</ymax></bndbox></part>
<part><name>hand</name><bndbox><xmin>278</xmin><ymin>210</ymin><xmax>297</xmax><ymax>233</ymax></bndbox></part></object></annotation>"""


def test_the_challenges_own_form_passes_through(lay: Lay, tmp_path: Path) -> None:
    """Its first pixel is 1, and the last one of a box belongs to it."""
    folder = lay(**{"Annotations/2007_000027.xml": CHALLENGE, "ImageSets/Main/val.txt": "2007_000027\n"})
    read = read_voc(folder)
    [one] = read.labeled
    assert read.problems == []
    assert (one.item.id, one.item.data["width"], one.item.data["split"]) == ("2007_000027.jpg", 486, "val")
    [person] = one.annotations
    assert [person[key] for key in ("x", "y", "width", "height")] == [173, 100, 176, 251]
    assert person["attributes"]["part"][1]["bndbox"]["xmin"] == "278"
    project = LabelProject(name="voc", task="image_object_detection", classes=read.classes)
    write_voc(project, read.labeled, tmp_path / "out")
    again = read_voc(tmp_path / "out")
    assert again.labeled[0].annotations == one.annotations
    assert again.labeled[0].item.data == one.item.data
    text = (tmp_path / "out/Annotations/2007_000027.xml").read_text()
    for part in (
        "<xmin>174</xmin>",
        "<ymax>351</ymax>",
        "<database>The VOC2007 Database</database>",
        "<difficult>1</difficult>",
        "<name>head</name>",
    ):
        assert part in text


def voc(objects: str = "", head: str = "<filename>1.jpg</filename><size><width>640</width><height>480</height></size>") -> str:
    return f"<annotation>{head}{objects}</annotation>"


def thing(x: Any = 5, y: Any = 6, right: Any = 20, bottom: Any = 30, more: str = "<name>hand</name>") -> str:
    return f"<object>{more}<bndbox><xmin>{x}</xmin><ymin>{y}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"


def test_files_that_count_from_zero_are_read_so(lay: Lay) -> None:
    read = read_voc(lay(**{"1.xml": voc(thing()), "2.xml": voc(thing(0, 0.0, 640, 480), "<filename>2.jpg</filename>")}))
    assert (read.problems, read.kept) == ([], {"first": 0})
    assert [[one.annotations[0][key] for key in ("x", "width")] for one in read.labeled] == [[5, 15], [0, 640]]
    told = read_voc(lay(**{"1.xml": voc(thing())}), first=1)
    assert told.labeled[0].annotations[0]["x"] == 4
    assert "2.xml: object 1: left out: box: it reaches from -1, -1" in told.problems[0]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (thing(x=700, right=800), "outside of the picture"),
        (thing(right=4), "enclose nothing"),
        (thing(x="nan"), "numbers are expected"),
        (thing(x="five"), "numbers are expected"),
        (thing(x=""), "numbers are expected"),
        (thing(x="1e999"), "must be numbers"),
        (thing(more=""), "it has no name"),
        ("<object><name>hand</name></object>", "it has no bndbox"),
        (thing(more="<name>hand</name><difficult>maybe</difficult>"), "difficult 'maybe'"),
        (thing(more="<name>hand</name>" + "<a>" * 30 + "</a>" * 30), "20 deep"),
    ],
    ids=range(10),
)
def test_a_wrong_object_is_told_with_its_number(lay: Lay, content: str, says: str) -> None:
    read = read_voc(lay(**{"Annotations/1.xml": voc(thing() + content)}))
    assert len(read.labeled[0].annotations) == 1
    [problem] = read.problems
    assert problem.startswith("Annotations/1.xml: object 2: left out: ")
    assert says in problem


BOMB = "<!DOCTYPE a [<!ENTITY b0 'ha'>" + "".join(f"<!ENTITY b{n} '{f'&b{n - 1};' * 10}'>" for n in range(1, 12)) + "]>"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (BOMB + voc(head="<filename>&b11;</filename>"), "declares a document type or entities"),
        (
            "<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]>" + voc(head="<filename>&b;</filename>"),
            "declares a document type or entities",
        ),
        ("<!DOCTYPE a SYSTEM 'http://127.0.0.1/a.dtd'>" + voc(), "declares a document type or entities"),
        (voc(head="<filename>../../etc/passwd</filename>"), "no name below"),
        (voc(head="<filename>/etc/passwd</filename>"), "no name below"),
        (voc()[:30], "no XML, or cut short"),
        ("", "no XML, or cut short"),
        ("<kml/>", "<annotation> is expected"),
        ("<?xml version='1.0' encoding='klingon'?>" + voc(), "left out"),
        (voc(head="<filename>1.jpg</filename><size><width>wide</width></size>"), "'wide' by '0' are no pixels"),
        (
            voc(head="<filename>real.jpg</filename><size><width>4</width><height>3</height></size>"),
            "640 by 480 pixels upright, the file says 4 by 3",
        ),
        (voc(head="<filename>1.jpg</filename>" + "<a>" * 50_000 + "</a>" * 50_000), "20 deep"),
    ],
    ids=range(12),
)
def test_a_wrong_or_hostile_file_is_told_and_the_others_are_read(lay: Lay, content: str, says: str) -> None:
    read = read_voc(
        lay(**{"good.xml": voc(thing(), "<filename>good.jpg</filename>"), "bad.xml": content, "JPEGImages/real.jpg": picture()})
    )
    assert [one.item.id for one in read.labeled] == ["good.jpg"]
    [problem] = read.problems
    assert problem.startswith("bad.xml: left out: ")
    assert says in problem
    assert len(problem) < 500


def test_two_files_of_one_picture_are_told(lay: Lay) -> None:
    read = read_voc(lay(**{"a.xml": voc(thing()), "b.xml": voc(thing())}))
    assert (len(read.labeled), read.problems) == (1, ["b.xml: left out: 1.jpg is the picture of a.xml already."])


def test_pictures_go_along_with_voc(tmp_path: Path) -> None:
    written = write_voc(
        PROJECT, [Labeled(item("a/x"), (box(),)), Labeled(item("y.jpg", split="test"), ())], tmp_path, lambda one: picture()
    )
    assert [path.relative_to(tmp_path).as_posix() for path in written] == [
        "JPEGImages/a_x.jpg",
        "JPEGImages/y.jpg",
        "Annotations/a_x.xml",
        "Annotations/y.xml",
        "ImageSets/Main/train.txt",
        "ImageSets/Main/test.txt",
    ]
    read = read_voc(tmp_path)
    assert read.problems == []
    assert [Path(one.item.data["image"]) for one in read.labeled] == [tmp_path / "JPEGImages/a_x.jpg", tmp_path / "JPEGImages/y.jpg"]


def test_a_class_that_xml_cannot_hold_is_refused(tmp_path: Path) -> None:
    for name in ("a\x00b", " a", "a\n"):
        with pytest.raises(SpecificationError, match="XML cannot hold the class"):
            write_voc(PROJECT, [Labeled(item(), (box(label=name),))], tmp_path / "out")
    with pytest.raises(SpecificationError, match="Pascal VOC holds no annotations of kind polygon"):
        write_voc(
            PROJECT,
            [Labeled(item(), ({"id": "p", "kind": "polygon", "label": "hand", "rings": [[[1, 1], [5, 1], [5, 5]]]},))],
            tmp_path,
        )
    assert not list(tmp_path.iterdir())


# --- between formats -----------------------------------------------------------------------------------------------------------------
SHARED = Path(__file__).resolve().parents[3] / "shared/data/cv"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the files are not here")
@pytest.mark.parametrize(("write", "read"), [(write_yolo, read_yolo), (write_voc, read_voc)], ids=["yolo", "voc"])
def test_a_published_file_goes_to_other_formats_and_back(write: Callable[..., Any], read: Callable[..., Any], tmp_path: Path) -> None:
    from mlops_nb.inner_loop.coco import read_coco

    given = read_coco(SHARED / "odFridgeObjects_coco.json")
    project = LabelProject(name="fridge", task="image_object_detection", classes=given.classes)
    write(project, given.labeled, tmp_path)
    found = read(tmp_path)
    assert (found.problems, len(found.labeled)) == ([], 128)
    expected = {one.item.id: one.annotations for one in given.labeled}
    for one in found.labeled:
        for ours, theirs in zip(one.annotations, expected[one.item.id], strict=True):
            assert alike(*({key: shape[key] for key in ("label", "x", "y", "width", "height")} for shape in (ours, theirs)))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_whatever_bytes_stand_in_a_file_it_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("junk")
    write, read = data.draw(st.sampled_from([(write_yolo, read_yolo), (write_voc, read_voc)]))
    written = write(PROJECT, [Labeled(item(), (box(attributes={"pose": "left", "n": [1]}),))], folder)
    path = data.draw(st.sampled_from(written))
    content = path.read_bytes()
    start = data.draw(st.integers(0, len(content)))
    junk = data.draw(
        st.binary(max_size=4) | st.sampled_from([b"1e999", b"nan", b"[" * 9, b"<a>" * 99, b"- ", b"&a", b"\xed\xa0\x80"])
    )
    path.write_bytes(content[:start] + junk + content[start + data.draw(st.integers(0, 9)) :])
    try:
        found = read(folder)
    except SpecificationError:
        return
    json.dumps([one.annotations for one in found.labeled], allow_nan=False)
    assert all(line.isprintable() for line in found.problems)
