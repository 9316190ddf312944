"""Boxes, polygons, masks and key points: faults, measures, and one form made of another, against pycocotools."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mlops_nb.inner_loop.shapes import (
    area,
    bounds,
    compress,
    convert,
    decode,
    encode,
    fault,
    iou,
    points_iou,
    to_polygons,
    to_rle,
    uncompress,
)

WIDTH, HEIGHT = 40, 30
pixels = st.tuples(st.integers(1, 14), st.integers(1, 14)).flatmap(lambda size: arrays(bool, size, elements=st.booleans()))


def box(x: float = 5, y: float = 5, width: float = 10, height: float = 10, **more: Any) -> dict[str, Any]:
    return {"id": "b", "kind": "box", "label": "hand", "x": x, "y": y, "width": width, "height": height, **more}


def polygon(*rings: list[tuple[float, float]]) -> dict[str, Any]:
    return {"id": "p", "kind": "polygon", "label": "hand", "rings": [list(ring) for ring in rings]}


def mask(rle: dict[str, Any]) -> dict[str, Any]:
    return {"id": "m", "kind": "mask", "label": "hand", "rle": rle}


def points(*places: tuple[float, float, int]) -> dict[str, Any]:
    return {"id": "k", "kind": "points", "label": "hand", "points": list(places)}


@st.composite
def boxes(draw: st.DrawFn) -> dict[str, Any]:
    x, y = draw(st.floats(0, WIDTH - 1)), draw(st.floats(0, HEIGHT - 1))
    return box(x, y, draw(st.floats(0.5, WIDTH - x)), draw(st.floats(0.5, HEIGHT - y)))


# --- runs of pixels ------------------------------------------------------------------------------------------------------------------
@settings(deadline=None)
@given(pixels)
def test_runs_are_those_of_pycocotools(array: np.ndarray) -> None:
    rle = coco.encode(np.asfortranarray(array.astype(np.uint8)))
    text = rle["counts"].decode()
    height, width = array.shape
    assert encode(array) == {"size": [height, width], "counts": text}
    runs = uncompress(text)
    assert sum(runs) == height * width
    assert sum(runs[1::2]) == array.sum()
    assert compress(runs, width, height) == text
    for counts in (text, text.encode(), runs):
        assert (decode({"size": [height, width], "counts": counts}) == array).all()


@settings(deadline=None)
@given(st.lists(st.integers(0, 5_000_000), min_size=1, max_size=30))
def test_long_runs_survive_compression(runs: list[int]) -> None:
    if 0 < sum(runs) <= 2**30:
        assert uncompress(compress(runs, sum(runs), 1)) == runs


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes_are_runs_or_refused(junk: bytes) -> None:
    """The library itself trusts a text, and writes past its memory for a wrong one."""
    annotation = mask({"size": [6, 5], "counts": junk.decode("latin1")})
    wrong = fault(annotation, 5, 6)
    if not wrong:
        assert sum(uncompress(junk)) == 30
    else:
        with pytest.raises(ValueError, match="mask"):
            to_rle(annotation, 5, 6)


# --- faults --------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("annotation", "says"),
    [
        (box(x=35), "reaches from 35, 5 to 45, 15, outside of the picture of 40 by 30 pixels"),
        (box(y=-1), "outside of the picture"),
        (box(width=0), "enclose nothing"),
        (box(height=-3), "enclose nothing"),
        (box(x=math.nan), "must be numbers"),
        (box(width=math.inf), "must be numbers"),
        (box(x="5"), "must be numbers"),
        (box(x=10**400), "not complete"),
        ({"kind": "box", "x": 1}, "not complete"),
        (polygon([(0, 0), (5, 5)]), "part 1 of 2 points encloses nothing"),
        (polygon([(0, 0), (5, 0), (9, 0)]), "encloses nothing"),
        (polygon([(1, 1), (3, 3), (2, 2), (9.9, 9.9)]), "encloses nothing"),
        (polygon([]), "part 1 of 0 points"),
        (polygon([(0, 0), (5, 0), (5, 5)], [(1, 1), (1, 1), (2, 2)]), "part 2"),
        (polygon([(0, 0), (5, math.nan), (5, 5)]), "part 1 is no pair of numbers"),
        (polygon([(0, 0), (50, 0), (5, 5)]), "outside of the picture"),
        (polygon(), "it has no part"),
        (mask({"size": [40, 30], "counts": [0, 1200]}), "it is 30 by 40 pixels, the picture 40 by 30"),
        (mask({"size": [30, 40], "counts": [0, 1201]}), "add up to 1201"),
        (mask({"size": [30, 40], "counts": [1300, -100]}), "add up to 1200"),
        (mask({"size": [30, 40], "counts": [1200]}), "no pixel is set"),
        (mask({"size": [30, 40], "counts": [0, 1200.0]}), "whole numbers"),
        (mask({"size": [2**20, 2**20], "counts": [0, 2**40]}), "cannot be"),
        (mask({"size": [30, 40], "counts": "é漢"}), "no COCO text"),
        (mask({"size": [30], "counts": [30]}), "mask"),
        (points((50, 5, 2)), "outside of the picture"),
        (points((5, 5, 0)), "none of them is set"),
        (points((5, 5, 3)), "hidden"),
        (points((5, math.nan, 2)), "point 1"),
    ],
    ids=str,
)
def test_a_fault_is_said(annotation: dict[str, Any], says: str) -> None:
    assert says in fault(annotation, WIDTH, HEIGHT)


def test_what_is_fine_has_no_fault() -> None:
    sound = [
        box(),
        box(0, 0, WIDTH, HEIGHT),
        box(0, 0, WIDTH + 0.4, HEIGHT),
        polygon([(0, 0), (40, 0), (40, 30)]),
        mask({"size": [30, 40], "counts": [600, 600]}),
        points((5, 5, 2), (99, 99, 0), (40, 30, 1)),
        {"kind": "class", "label": "a"},
    ]
    assert [fault(one, WIDTH, HEIGHT) for one in sound] == [""] * len(sound)
    assert fault(box(x=3000)) == ""  # the picture's size is not known
    assert "outside" in fault(box(x=-5))  # left of every picture


@settings(deadline=None)
@given(boxes())
def test_a_box_in_its_picture_is_fine_and_one_beside_it_is_not(shape: dict[str, Any]) -> None:
    assert fault(shape, WIDTH, HEIGHT) == ""
    assert fault(shape | {"x": shape["x"] + WIDTH + 1}, WIDTH, HEIGHT)


# --- measures ------------------------------------------------------------------------------------------------------------------------
@settings(deadline=None)
@given(boxes(), boxes())
def test_overlap_of_boxes_is_that_of_pycocotools(a: dict[str, Any], b: dict[str, Any]) -> None:
    expected = coco.iou(np.array([bounds(a)]), np.array([bounds(b)]), [0])[0][0]
    assert iou(a, b, WIDTH, HEIGHT) == pytest.approx(expected, abs=1e-9)
    assert iou(a, b, WIDTH, HEIGHT) == iou(b, a, WIDTH, HEIGHT)
    assert iou(a, a, WIDTH, HEIGHT) == 1


@settings(deadline=None)
@given(st.data())
def test_overlap_of_masks_is_that_of_their_pixels(data: st.DataObject) -> None:
    one, two = (data.draw(arrays(bool, (9, 11), elements=st.booleans())) for _ in "ab")
    if one.any() and two.any():
        expected = (one & two).sum() / (one | two).sum()
        assert iou(mask(encode(one)), mask(encode(two)), 11, 9) == pytest.approx(expected)
        assert area(mask(encode(one))) == one.sum()
        rows, columns = np.nonzero(one)
        assert bounds(mask(encode(one))) == (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)


def test_shapes_of_different_kinds_are_compared_by_pixels() -> None:
    drawn = polygon([(5, 5), (15, 5), (15, 15), (5, 15)])
    assert iou(box(), drawn, WIDTH, HEIGHT) == 1
    assert iou(drawn, mask(to_rle(box(), WIDTH, HEIGHT)), WIDTH, HEIGHT) == 1
    assert iou(drawn, box(x=10)) == pytest.approx(1 / 3)  # also where the picture's size is not known
    assert iou(box(), points((5, 5, 2)), WIDTH, HEIGHT) == 0
    assert iou(polygon([(5, 5), (15, 5), (15, 15), (5, 15)], [(20, 20), (25, 20), (25, 25)]), drawn, WIDTH, HEIGHT) < 1
    assert area(polygon([(5, 5), (15, 5), (15, 15), (5, 15)], [(20, 20), (30, 20), (30, 30)])) == 150


def test_what_is_no_shape_or_a_wrong_one_has_no_overlap() -> None:
    with pytest.raises(ValueError, match="class: no shape"):
        iou(box(), {"id": "c", "kind": "class", "label": "a"})
    with pytest.raises(ValueError, match="outside of the picture"):
        iou(box(), box(x=35), WIDTH, HEIGHT)
    with pytest.raises(ValueError, match="outside of the picture"):
        to_rle(polygon([(0, 0), (1e9, 0), (5, 5)]), WIDTH, HEIGHT)  # would be drawn point by point


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)), min_size=5, max_size=5),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)), min_size=5, max_size=5),
)
def test_key_points_are_compared_as_coco_does(a: list[tuple[int, int]], b: list[tuple[int, int]]) -> None:
    """With all points set and the object's size known, it is COCO's measure."""
    spread = [0.026, 0.079, 0.107, 0.05, 0.087]
    truth, found = COCO(), COCO()
    for holder, places in ((truth, a), (found, b)):
        entry = {
            "id": 1,
            "image_id": 1,
            "category_id": 1,
            "iscrowd": 0,
            "area": 900.0,
            "bbox": [0, 0, 30, 30],
            "score": 1.0,
            "num_keypoints": 5,
            "keypoints": [number for x, y in places for number in (x, y, 2)],
        }
        holder.dataset = {"images": [{"id": 1}], "annotations": [entry], "categories": [{"id": 1}]}
        holder.createIndex()
    judge = COCOeval(iouType="keypoints")
    judge.params.kpt_oks_sigmas = np.array(spread)
    judge._gts[1, 1], judge._dts[1, 1] = truth.dataset["annotations"], found.dataset["annotations"]
    judge.params.imgIds, judge.params.catIds = [1], [1]
    expected = judge.computeOks(1, 1)[0][0]
    ours = points_iou(points(*((x, y, 2) for x, y in a)), points(*((x, y, 2) for x, y in b)), size=900, sigmas=spread)
    assert ours == pytest.approx(expected, abs=1e-9)


def test_a_point_that_only_one_person_set_counts_nothing() -> None:
    whole = points((5, 5, 2), (15, 15, 2))
    assert iou(whole, points((5, 5, 2), (0, 0, 0)), WIDTH, HEIGHT) == pytest.approx(0.5)
    assert iou(whole, points((5, 5, 1), (15, 15, 1)), WIDTH, HEIGHT) == 1  # hidden or visible: it is in the same place
    assert 0.5 < iou(whole, points((5.5, 5, 2), (15, 15, 2)), WIDTH, HEIGHT) < 1
    assert points_iou(points((5, 5, 2)), points((6, 5, 2))) < points_iou(points((5, 5, 2)), points((5.001, 5, 2)))
    with pytest.raises(ValueError, match="2 against 1"):
        points_iou(whole, points((5, 5, 2)))


# --- one form made of another --------------------------------------------------------------------------------------------------------
@settings(max_examples=150, deadline=None)
@given(pixels)
def test_a_polygon_made_of_a_mask_gives_the_same_mask(array: np.ndarray) -> None:
    """Holes, parts, pixels that touch at a corner: the very same pixels come out, and each ring is one that encloses something."""
    height, width = array.shape
    rings = to_polygons(array)
    assert rings == to_polygons(encode(array))
    if not array.any():
        assert rings == []
        return
    drawn = polygon(*rings)
    assert fault(drawn, width, height) == ""
    assert (decode(to_rle(drawn, width, height)) == array).all()
    assert area(drawn) == array.sum()  # no ring lies in another one


def test_a_mask_of_a_12_megapixel_picture_is_traced() -> None:
    y, x = np.mgrid[:3000, :4000]
    ring = np.hypot(x - 2000, y - 1500)
    array = (ring < 1200) & (ring > 400)
    rings = to_polygons(array)
    assert sum(map(len, rings)) > 5000
    assert (decode(to_rle(polygon(*rings), 4000, 3000)) == array).all()


def test_a_shape_becomes_what_is_asked_for() -> None:
    drawn = polygon([(5, 5), (15, 5), (15, 15), (5, 15)]) | {"attributes": {"by": "x"}, "crowd": True}
    assert convert(drawn, ["box"]) == box(id="p", attributes={"by": "x"}, crowd=True)
    as_mask = convert(drawn, ["mask"], WIDTH, HEIGHT)
    assert area(as_mask) == 100
    back = convert(as_mask, ["polygon", "mask"], WIDTH, HEIGHT)
    assert back is as_mask  # what is wanted already stays as it is
    assert bounds(convert(as_mask, ["polygon"])) == (5, 5, 10, 10)
    assert convert(points((5, 5, 2), (0, 0, 0), (8, 9, 1)), ["box"])["height"] == 4
    for shape, kinds in ((box(), ["polygon", "mask"]), (drawn, ["points"]), (points((5, 5, 2)), ["box"])):
        with pytest.raises(ValueError, match="without making something up"):
            convert(shape, kinds, WIDTH, HEIGHT)
