"""People draw on pictures with a real mouse, keyboard and fingers; what counts is what the store holds afterwards."""

import itertools
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mlops_nb.core.settings import Settings
from mlops_nb.inner_loop.store import LabelItem

coco = pytest.importorskip("pycocotools.mask")
pytestmark = pytest.mark.browser

SCRIPT = Path(__file__).resolve().parents[2] / "mlops_nb" / "widgets" / "surfaces/image/mask.js"
VIEW = """() => {
  const scene = document.querySelector('.scene'), {dataset: d} = scene, box = scene.getBoundingClientRect();
  return [+d.scale, +d.left, +d.top, box.left + scene.clientLeft, box.top + scene.clientTop];
}"""
PAINTED = """([name, x, y]) => {
  const canvas = document.querySelector(`.scene .${name}`), ratio = canvas.width / canvas.clientWidth;
  return [...canvas.getContext('2d').getImageData(Math.round(x * ratio), Math.round(y * ratio), 1, 1).data];
}"""
HAND = {"name": "hand", "keypoints": ["wrist", "thumb", "finger", "pinky"], "skeleton": [[0, 1], [0, 2], [0, 3]]}


class Scene(NamedTuple):
    """A picture on a page, and the card behind it."""

    page: Any
    card: Any

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Say where a pixel of the picture is on the page."""
        scale, left, top, across, down = self.page.evaluate(VIEW)
        return across + left + x * scale, down + top + y * scale

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        """Say which pixel of the picture is at a place of the page."""
        scale, left, top, across, down = self.page.evaluate(VIEW)
        return (x - across - left) / scale, (y - down - top) / scale

    def drag(self, *points: tuple[float, float], button: str = "left") -> None:
        """Press the mouse at the first place, move over the others, let go."""
        self.page.mouse.move(*self.place(*points[0]))
        self.page.mouse.down(button=button)
        for point in points[1:]:
            self.page.mouse.move(*self.place(*point))
        self.page.mouse.up(button=button)

    def click(self, *points: tuple[float, float], **options: Any) -> None:
        """Click one place after the other."""
        for point in points:
            self.page.mouse.click(*self.place(*point), **options)

    def press(self, *keys: str) -> None:
        """Press one key after the other; `ArrowLeft*5` five times."""
        for key in keys:
            name, _, times = key.partition("*")
            for _ in range(int(times or 1)):
                self.page.keyboard.press(name)

    def saved(self) -> Any:
        """Return the store, once the page says that all is saved."""
        self.page.locator(".saving[data-state=saved]").wait_for()
        assert not self.page.faults
        return self.card.store

    def on(self, item: str = "i2") -> None:
        """Wait for the next picture."""
        self.page.locator(f".mlops-label[data-item={item}]").wait_for()

    def kept(self) -> list[dict[str, Any]]:
        """Return what the store holds of the picture, once the page says that it is saved."""
        store = self.saved()
        item = self.page.locator(".mlops-label").get_attribute("data-item")
        return list(store.answer(item, self.card.whose).annotations)

    def only(self) -> dict[str, Any]:
        """Return the one annotation there is."""
        (one,) = self.kept()
        return one

    def box(self) -> tuple[float, ...]:
        """Return the one box there is."""
        return tuple(self.only()[key] for key in ("x", "y", "width", "height"))

    def pixels(self) -> NDArray[np.bool_]:
        """Return the one mask there is, as pycocotools reads it."""
        rle = self.only()["rle"]
        return coco.decode({"size": rle["size"], "counts": rle["counts"].encode()}).astype(bool)


@pytest.fixture
def scene(project: Settings, card_page: Callable[..., Any], quick_project: Callable[..., str]) -> Iterator[Callable[..., Scene]]:
    """Open a card: `scene("image_object_detection", size=(200, 150))`; further words go into the project's file."""
    cards = []

    def open_scene(task: str, size: tuple[int, int] = (200, 150), start: tuple[dict[str, Any], ...] = (), turned: bool = False,
                   page: dict[str, Any] | None = None, **fields: Any) -> Scene:  # fmt: skip
        from mlops_nb.widgets.label import LabelCard

        across, down = np.meshgrid(np.arange(200), np.arange(150))
        colours = np.stack([across * 255 // 200, down * 255 // 150, (across // 8 + down // 8) % 2 * 60 + 80], axis=-1).astype(np.uint8)
        exif = Image.Exif()
        exif[0x0112] = 6 if turned else 1  # 6: a quarter turn to the right makes it upright
        picture = Image.fromarray(np.rot90(colours) if turned else colours)
        (picture if turned else picture.resize(size)).save(project.root / "picture.jpg", quality=50, exif=exif)
        data = {"image": "picture.jpg", "width": size[0], "height": size[1]}
        model = "models:/dev.signs/1" if start else ""
        items = [LabelItem(f"i{n}", data, prediction=start, model=model, rank=float(n)) for n in (1, 2)]
        name = quick_project(project, task, *items, **fields)
        card = LabelCard(project.model_copy(update={"user": "ana"}), name)
        cards.append(card)
        opened = card_page(card, **(page or {}))
        opened.locator(".scene[data-scale]").wait_for()
        opened.locator(".mlops-label[data-item=i1]").wait_for()
        opened.evaluate("document.querySelector('.scene').focus()")
        return Scene(opened, card)

    yield open_scene
    for card in cards:
        card.close()


# --- boxes ---


def test_a_box_has_the_pixels_that_were_meant_at_every_zoom(scene: Callable[..., Scene]) -> None:
    at = scene("image_object_detection")
    for zoom in ([], ["z"], ["+*3"], ["f", "+*2"], ["f", "-*2"]):
        at.press(*zoom)
        at.drag((41.2, 30.8), (60, 90), (95.3, 70.4))
        assert at.box() == (41, 31, 54, 39), zoom
        at.press("Delete")
        assert at.kept() == []
    at.press("f")
    at.drag((100, 100), (300, -40))
    assert at.box() == (100, 0, 100, 100)  # the picture ends here


def test_a_box_is_resized_by_every_grip_and_moved_by_its_edge(scene: Callable[..., Scene]) -> None:
    at = scene("image_object_detection")
    at.drag((40, 40), (100, 90))
    sides = {(40, 40): (30, 35, 70, 55), (70, 40): (40, 35, 60, 55), (100, 40): (40, 35, 50, 55),
             (100, 65): (40, 40, 50, 50), (100, 90): (40, 40, 50, 45), (70, 90): (40, 40, 60, 45),
             (40, 90): (30, 40, 70, 45), (40, 65): (30, 40, 70, 50)}  # fmt: skip
    for (x, y), expected in sides.items():
        at.drag((x, y), (x - 8, y - 4), (x - 10, y - 5))
        assert at.box() == expected, (x, y)
        at.press("Control+z")
        assert at.box() == (40, 40, 60, 50)
    at.drag((55, 40), (60, 50), (75, 60))
    assert at.box() == (60, 60, 60, 50)
    at.drag((75, 60), (400, 400))
    assert at.box() == (140, 100, 60, 50)  # not beyond the picture
    at.drag((140, 100), (199, 149), (210, 160))  # a corner over the opposite one
    assert at.box() == (199, 149, 1, 1)


def test_arrows_nudge_a_box_and_one_press_is_one_step_back(scene: Callable[..., Scene]) -> None:
    at = scene("image_object_detection")
    at.drag((40, 40), (100, 90))
    at.press("ArrowRight*3", "ArrowUp", "Shift+ArrowDown")
    assert at.box() == (43, 49, 60, 50)
    at.press("Control+z*2")
    assert at.box() == (43, 40, 60, 50)
    at.press("e", "ArrowRight*2", "Shift+ArrowDown", "e", "ArrowUp")  # the first corner, then the edge beside it
    assert at.box() == (45, 49, 58, 41)
    at.page.keyboard.down("ArrowRight")  # held down: many steps, one action
    for _ in range(4):
        at.page.keyboard.down("ArrowRight")
    at.page.keyboard.up("ArrowRight")
    assert at.box() == (45, 49, 58, 41)  # its top edge does not go to the side
    before = len(list(at.card.store.events(item="i1")))
    at.press("Escape")
    for _ in range(5):
        at.page.keyboard.down("ArrowRight")
    at.page.keyboard.up("ArrowRight")
    assert at.box() == (50, 49, 58, 41)
    assert len(list(at.card.store.events(item="i1"))) == before + 1


def hold(at: Scene, end: Callable[[], Any], moves: int = 1) -> None:
    """Hold an arrow down, and do what ends it: only then one action is told."""

    def told() -> int:
        return sum(one.kind == "move" for one in at.card.store.events(item="i1"))

    for _ in range(5):
        at.page.keyboard.down("ArrowRight")
    at.saved()
    assert told() == moves - 1
    end()
    deadline = time.monotonic() + 60
    while told() < moves:
        assert time.monotonic() < deadline
        at.page.evaluate("0")  # what the page says comes in meanwhile
    assert told() == moves
    assert at.card.store.answer("i1", "ana").annotations[0]["x"] == 40 + 5 * moves


def test_what_a_held_key_moves_is_one_action_however_it_ends(scene: Callable[..., Scene]) -> None:
    at = scene("image_object_detection")
    at.drag((40, 40), (100, 90))
    at.kept()
    page = at.page
    hold(at, lambda: page.keyboard.up("ArrowRight"))
    hold(at, page.get_by_role("listbox", name="Annotations").focus, 2)
    page.keyboard.up("ArrowRight")
    page.locator(".scene").focus()
    hold(at, lambda: at.press("."), 3)
    page.keyboard.up("ArrowRight")
    hold(at, page.get_by_role("button", name="face, key").click, 4)
    page.keyboard.up("ArrowRight")
    page.clock.install(time=0)
    page.clock.pause_at(3_600)
    hold(at, lambda: page.clock.run_for(3_100), 5)  # nobody heard it come up
    page.keyboard.up("ArrowRight")
    hold(at, lambda: at.click((150, 130)), 6)


@pytest.mark.parametrize("end", ["Submit", "Skip", ""], ids=["submitted", "skipped", "the card is taken away"])
def test_what_a_held_key_moved_is_told_before_the_picture_goes(scene: Callable[..., Scene], end: str) -> None:
    at = scene("image_object_detection")
    at.drag((40, 40), (100, 90))
    at.kept()
    hold(at, at.page.get_by_role("button", name=end).click if end else lambda: at.page.evaluate("window.leave()"))


def test_a_key_in_an_arrows_place_is_held_as_an_arrow_is(scene: Callable[..., Scene]) -> None:
    at = scene("image_object_detection")
    at.drag((40, 40), (100, 90))
    at.press("?")
    at.page.get_by_role("button", name="Move right (Shift: 10): \u2192; change").click()
    at.press("q", "Escape")
    for _ in range(5):
        at.page.keyboard.down("q")
    at.page.keyboard.up("q")
    assert at.box() == (45, 40, 60, 50)
    assert [one.kind for one in at.saved().events(item="i1")] == ["open", "draw", "move"]


def test_a_box_by_keyboard_alone(scene: Callable[..., Scene]) -> None:
    at = scene("image_object_detection")
    at.press("ArrowLeft", "ArrowRight", "Shift+ArrowLeft*3", "Shift+ArrowUp*2", "Enter", "Shift+ArrowRight*4", "ArrowDown*7", "Enter")
    assert at.box() == (70, 55, 40, 7)
    assert at.page.locator(".scene").evaluate("one => one === document.activeElement")
    assert at.page.get_by_role("option").get_attribute("aria-label") == "box 1 hand, 40 by 7 at 70, 55"
    at.press("Enter")  # nothing is under way: the answer is submitted
    at.on()
    assert at.saved().answer("i1", "ana").state == "submitted"
    at.press("ArrowLeft", "Enter", "ArrowRight*5", "Escape")
    assert at.kept() == []


def test_a_click_selects_and_a_class_key_renames(scene: Callable[..., Scene]) -> None:
    at = scene("image_object_detection")
    at.drag((20, 20), (120, 120))
    at.press("Escape", "2")
    at.drag((40, 40), (80, 80))
    assert [one["label"] for one in at.kept()] == ["hand", "face"]
    at.click((100, 100))
    at.press("3")
    assert [one["label"] for one in at.kept()] == ["cup", "face"]
    at.click((60, 60))  # both are here: the smaller one is meant
    at.press("Delete")
    assert at.only()["label"] == "cup"
    at.press("v")
    at.drag((60, 60), (70, 75), (75, 80))
    assert at.box() == (35, 40, 100, 100)


def test_what_a_model_proposed_is_a_persons_once_it_is_changed(scene: Callable[..., Scene]) -> None:
    box = {"id": "m1", "kind": "box", "label": "hand", "x": 40, "y": 40, "width": 60, "height": 50}
    proposed = box | {"source": "models:/dev.signs/1", "score": 0.83}
    at = scene("image_object_detection", start=(proposed, proposed | {"id": "m2", "x": 120}))
    option = at.page.get_by_role("option").first
    assert option.get_attribute("aria-label") == "box 1 hand, 60 by 50 at 40, 40, proposed 0.83"
    option.click()
    at.drag((100, 90), (105, 95), (110, 100))
    first, second = at.kept()
    assert (first["width"], first.get("source", "")) == (70, "")
    assert second["source"] == "models:/dev.signs/1"


# --- polygons ---


def test_a_polygon_is_drawn_point_by_point_and_changed_at_its_points(scene: Callable[..., Scene]) -> None:
    at = scene("image_instance_segmentation")
    at.click((40, 40), (120, 40), (120, 100), (60, 110), (40, 40))
    assert at.only()["rings"] == [[[40, 40], [120, 40], [120, 100], [60, 110]]]
    at.drag((120, 100), (130, 105), (140.5, 110))
    assert at.only()["rings"][0][2] == [140.5, 110]
    at.drag((80, 40), (80, 30), (80, 20))  # of an edge: a new point
    assert at.only()["rings"] == [[[40, 40], [80, 20], [120, 40], [140.5, 110], [60, 110]]]
    at.page.keyboard.down("Alt")
    at.click((60, 110))
    at.page.keyboard.up("Alt")
    assert at.only()["rings"] == [[[40, 40], [80, 20], [120, 40], [140.5, 110]]]
    at.press("w")
    at.click((150, 20), (190, 20), (190, 60))
    at.press("Enter")
    assert at.only()["rings"][1] == [[150, 20], [190, 20], [190, 60]]
    at.press("Control+z*5")
    assert at.kept() == []


def test_a_polygon_by_keyboard_alone(scene: Callable[..., Scene]) -> None:
    at = scene("image_instance_segmentation")
    at.press("ArrowUp", "Enter", "Shift+ArrowRight*3", "Enter", "Shift+ArrowDown*2", "Enter", "ArrowLeft*4", "Enter")
    at.press("Backspace", "Enter")
    assert at.kept() == []  # the last point was taken back, and set again
    at.press("Enter")
    assert at.only()["rings"] == [[[100, 74], [130, 74], [130, 94], [126, 94]]]
    at.press("e", "e", "ArrowUp*4", "i", "ArrowRight", "Delete")
    assert at.only()["rings"] == [[[100, 74], [130, 70], [130, 94], [126, 94]]]
    at.press("Delete")
    assert at.kept() == []  # nothing is gripped any more: the whole


def test_two_points_or_a_line_are_no_polygon(scene: Callable[..., Scene]) -> None:
    at = scene("image_instance_segmentation")
    at.click((40, 40), (80, 80), (120, 120))
    at.press("Enter")
    assert "at least three points" in at.page.locator(".spoken.loud").text_content()
    at.page.get_by_role("button", name="Submit").click()
    assert at.saved().answer("i1", "ana").state == "open"
    at.press("Escape")
    assert at.kept() == []


# --- masks ---


def stroke(shape: tuple[int, int], size: float, *points: tuple[float, float]) -> NDArray[np.bool_]:
    """Say which pixels a round brush reaches: those whose centre is at most half its size from the line."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    reached = np.zeros(shape, dtype=bool)
    for (x1, y1), (x2, y2) in itertools.pairwise((points[0], *points)):
        along = np.clip(((x - x1) * (x2 - x1) + (y - y1) * (y2 - y1)) / max((x2 - x1) ** 2 + (y2 - y1) ** 2, 1e-9), 0, 1)
        reached |= np.hypot(x - x1 - along * (x2 - x1), y - y1 - along * (y2 - y1)) <= size / 2
    return reached


def size_of(at: Scene) -> int:
    return int(at.page.get_by_label("Brush", exact=True).input_value())


def test_a_mask_is_what_the_strokes_reach(scene: Callable[..., Scene]) -> None:
    at = scene("image_semantic_segmentation", page={"device_scale_factor": 2})
    line = [(30.13, 40.27), (90.41, 60.73), (95.17, 110.39)]
    size = size_of(at)
    at.drag(*line)
    first = stroke((150, 200), size, *line)
    assert coco.area(coco.encode(np.asfortranarray(first.astype(np.uint8)))) > 500
    np.testing.assert_array_equal(at.pixels(), first)
    at.press("+*3", "]*2")
    assert size_of(at) > size
    second = stroke((150, 200), size_of(at), (120.31, 70.7))
    at.click((120.31, 70.7))
    np.testing.assert_array_equal(at.pixels(), first | second)
    at.press("f", "x")
    at.drag((60.23, 20.11), (60.23, 100.57))
    third = stroke((150, 200), size_of(at), (60.23, 20.11), (60.23, 100.57))
    np.testing.assert_array_equal(at.pixels(), (first | second) & ~third)
    at.press("Control+z")
    np.testing.assert_array_equal(at.pixels(), first | second)
    at.press("Control+z", "Control+z", "Control+Shift+z")
    np.testing.assert_array_equal(at.pixels(), first)
    at.press("d")
    at.drag((120.4, 20.3), (150.9, 20.3), button="right")  # the right button erases, here nothing
    np.testing.assert_array_equal(at.pixels(), first)


def test_a_class_has_one_mask_in_a_semantic_project(scene: Callable[..., Scene]) -> None:
    at = scene("image_semantic_segmentation")
    at.drag((30, 30), (60, 30))
    at.press("2")
    at.drag((30, 90), (60, 90))
    at.press("1")
    at.drag((30, 50), (60, 50))
    assert [one["label"] for one in at.kept()] == ["hand", "face"]
    at.press("x")
    for y in range(20, 70, 6):
        at.drag((10, y), (90, y))
    assert [one["label"] for one in at.kept()] == ["face"]  # nothing was left of the other


def test_outlines_holes_and_polygons_become_masks(scene: Callable[..., Scene]) -> None:
    from scipy import ndimage

    at = scene("image_semantic_segmentation")
    ring = [(40.2, 30.3), (140.7, 40.1), (120.4, 120.8), (50.6, 100.2)]
    at.drag(*ring, ring[0])
    painted = at.pixels()
    at.press("o")
    np.testing.assert_array_equal(at.pixels(), ndimage.binary_fill_holes(painted))
    assert at.pixels().sum() > 2 * painted.sum()
    at.press("p")
    at.click((150, 90), (190, 90), (190, 140))
    at.press("Enter")
    y, x = np.mgrid[:150, :200] + 0.5
    inside = (x <= 190) & (y >= 90) & ((y - 90) / 50 <= (x - 150) / 40)
    np.testing.assert_array_equal(at.pixels(), ndimage.binary_fill_holes(painted) | inside)


def test_a_polygon_becomes_a_mask_in_its_place(scene: Callable[..., Scene]) -> None:
    at = scene("image_instance_segmentation")
    at.click((40, 30), (140, 40), (120, 120), (50, 100))
    at.press("Enter", "m")
    (ring,) = ([(40, 30), (140, 40), (120, 120), (50, 100)],)
    by_coco = coco.decode(coco.frPyObjects([[value for point in ring for value in point]], 150, 200))[..., 0]
    assert at.only()["kind"] == "mask"
    assert abs(int(at.pixels().sum()) - int(by_coco.sum())) < 0.02 * by_coco.sum()
    assert (at.pixels() & (by_coco > 0)).sum() > 0.98 * by_coco.sum()
    at.press("v", "ArrowRight*2", "Shift+ArrowDown")
    before = at.pixels()
    at.press("Control+z*3")
    np.testing.assert_array_equal(np.roll(at.pixels(), (10, 2), (0, 1)), before)
    at.press("Control+z")
    assert at.only()["rings"] == [[list(point) for point in ring]]


def test_a_brush_by_keyboard_alone(scene: Callable[..., Scene]) -> None:
    at = scene("image_semantic_segmentation")
    at.press("ArrowLeft", "Enter", "Shift+ArrowRight*3", "ArrowDown*2", "Enter")
    first = stroke((150, 200), size_of(at), (99, 75), (129, 75), (129, 77))
    np.testing.assert_array_equal(at.pixels(), first)
    at.press("Enter", "ArrowDown*9", "Control+z")  # undone while the brush is down: it is lifted, and nothing is left
    assert at.kept() == []
    at.press("Enter", "ArrowRight", "Control+Enter")  # submitted while the brush is down: what it painted is kept
    at.on()
    assert len(at.saved().answer("i1", "ana").annotations) == 1


def test_a_pen_paints_broader_when_it_is_pressed(scene: Callable[..., Scene]) -> None:
    at = scene("image_semantic_segmentation")
    pen = at.page.context.new_cdp_session(at.page)
    x, y = at.place(60.3, 70.4)
    for kind in ("mousePressed", "mouseReleased"):
        told = {"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1, "pointerType": "pen", "force": 1}
        pen.send("Input.dispatchMouseEvent", told)
    broad = stroke((150, 200), 1.6 * size_of(at), (60.3, 70.4))
    assert (at.pixels() ^ broad).sum() <= 2  # of the pixels on its very edge
    assert broad.sum() > 2 * stroke((150, 200), size_of(at), (60.3, 70.4)).sum()


def test_run_lengths_are_cocos(browser: Any) -> None:
    page = browser.new_page()
    page.add_script_tag(content=SCRIPT.read_text())
    random = np.random.default_rng(7)
    for width, height, share in itertools.product((1, 3, 40, 131), (1, 2, 57), (0.02, 0.5, 0.97)):
        mask = np.asfortranarray(random.random((height, width)) < share).astype(np.uint8, order="F")
        mask[random.integers(height), random.integers(width)] = 1
        expected = coco.encode(mask)["counts"].decode()
        runs = [len(list(group)) for _, group in itertools.groupby(mask.T.ravel().tolist())]
        runs = runs if not mask[0, 0] else [0, *runs]
        for counts in (expected, runs):
            assert page.evaluate("rle => encodeRaster(decodeRle(rle)).counts", {"size": [height, width], "counts": counts}) == expected
        assert page.evaluate("rle => measureRuns(rle).area", {"size": [height, width], "counts": expected}) == mask.sum()
    page.close()


# --- key points ---


def test_the_hint_names_the_keys_that_count(scene: Callable[..., Scene]) -> None:
    at = scene("image_keypoints", classes=[HAND])
    at.page.get_by_text("Shift-click or H: hidden; J: not there.").wait_for()
    at.press("?")
    at.page.get_by_role("button", name="Hidden: H; change").click()
    at.press("q", "Escape")
    at.page.get_by_text("Shift-click or Q: hidden; J: not there.").wait_for()


def test_key_points_are_set_in_order_hidden_and_passed_over(scene: Callable[..., Scene]) -> None:
    at = scene("image_keypoints", classes=[HAND])
    at.click((50, 100))
    at.page.keyboard.down("Shift")
    at.click((40, 60))
    at.page.keyboard.up("Shift")
    at.press("j")
    assert "pinky (4 of 4)" in at.page.locator(".hint").text_content()
    at.click((80.5, 30))
    assert at.only()["points"] == [[50, 100, 2], [40, 60, 1], [0, 0, 0], [80.5, 30, 2]]
    at.drag((80.5, 30), (85, 35), (90, 40))
    at.press("h")  # the one that was moved
    assert at.only()["points"][3] == [90, 40, 1]
    at.press("Escape", "e", "ArrowLeft*3")
    assert at.only()["points"][0] == [47, 100, 2]
    at.press("j")
    assert at.only()["points"][0] == [0, 0, 0]
    at.press("Escape", "Escape")
    at.click((120, 100))  # another hand
    assert [len(one["points"]) for one in at.kept()] == [4, 4]


def test_key_points_by_keyboard_alone(scene: Callable[..., Scene]) -> None:
    at = scene("image_keypoints", classes=[HAND])
    at.press("ArrowLeft", "Enter", "ArrowDown*2", "Enter", "h", "j", "ArrowRight", "Enter")
    assert at.only()["points"] == [[99, 75, 2], [99, 77, 1], [0, 0, 0], [100, 77, 2]]


# --- the view ---


def test_zooming_keeps_the_pixel_under_the_pointer(scene: Callable[..., Scene]) -> None:
    at = scene("image_object_detection", size=(800, 600))
    page = at.page
    there = tuple(map(round, at.place(300, 200)))  # a wheel turns at whole pixels
    page.mouse.move(*there)
    pixel = at.pixel(*there)
    fitted = page.evaluate(VIEW)[0]
    for _ in range(4):
        page.mouse.wheel(0, -120)
    page.wait_for_function("scale => +document.querySelector('.scene').dataset.scale > scale", arg=fitted * 2.5)  # all four
    assert math.dist(at.place(*pixel), there) < 0.01
    at.press("z")
    assert page.evaluate(VIEW)[0] == 1
    assert page.locator(".percent").text_content() == "100 %"
    before = at.place(300, 200)
    page.keyboard.down(" ")
    page.mouse.down()
    page.mouse.move(there[0] + 50, there[1] + 20)
    page.mouse.up()
    page.keyboard.up(" ")
    assert np.subtract(at.place(300, 200), before) == pytest.approx((50, 20))
    assert at.kept() == []
    at.press("Alt+ArrowRight")
    assert at.place(300, 200)[0] == pytest.approx(before[0] - 10)
    at.press("f")
    scale, left, top, *_ = page.evaluate(VIEW)
    assert left >= 0
    assert top >= 0
    assert scale * 600 < page.locator(".scene").bounding_box()["height"]


def test_fingers_draw_zoom_and_pan(scene: Callable[..., Scene]) -> None:
    at = scene("image_object_detection", page={"has_touch": True})
    touch = at.page.context.new_cdp_session(at.page)

    def fingers(kind: str, *points: tuple[float, float]) -> None:
        there = [{"x": x, "y": y, "id": n} for n, (x, y) in enumerate(points)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": there})

    fingers("touchStart", at.place(40, 40))
    for point in ((60, 60), (100, 90)):
        fingers("touchMove", at.place(*point))
    fingers("touchEnd")
    assert at.box() == (40, 40, 60, 50)
    scale = at.page.evaluate(VIEW)[0]
    a, b = at.place(80, 70), at.place(120, 70)
    fingers("touchStart", a)
    fingers("touchMove", (a[0] - 9, a[1]))  # a first finger has begun a box
    fingers("touchStart", a, b)
    fingers("touchMove", (a[0] - 40, a[1] + 30), (b[0] + 40, b[1] + 30))
    fingers("touchEnd", (a[0] - 40, a[1] + 30))
    fingers("touchEnd")
    assert at.page.evaluate(VIEW)[0] == pytest.approx(scale * (b[0] - a[0] + 80) / (b[0] - a[0]), rel=0.1)
    assert at.place(100, 70) == pytest.approx(((a[0] + b[0]) / 2, a[1] + 30), abs=6)
    assert at.box() == (40, 40, 60, 50)  # two fingers draw nothing


def test_the_list_goes_with_the_picture(scene: Callable[..., Scene]) -> None:
    at = scene("image_object_detection")
    for n in range(3):
        at.drag((10 + 50 * n, 20), (40 + 50 * n, 60))
        at.press("Escape")
    options = at.page.get_by_role("option")
    at.page.get_by_role("listbox", name="Annotations").focus()
    at.press("End", "ArrowUp")
    assert [one.get_attribute("aria-selected") for one in options.all()] == ["false", "true", "false"]
    at.press("Delete")
    assert [one["x"] for one in at.kept()] == [10, 110]
    at.press("Enter")
    assert at.page.locator(".scene").evaluate("one => one === document.activeElement")
    at.press(",", "ArrowRight")
    assert [one["x"] for one in at.kept()] == [11, 110]
    assert options.first.get_attribute("aria-label") == "box 1 hand, 30 by 40 at 11, 20"


def test_the_look_changes_and_no_annotation(scene: Callable[..., Scene]) -> None:
    at = scene("image_object_detection")
    page, stage = at.page, at.page.locator(".scene")
    at.drag((40, 60), (120, 120))
    at.press("Escape")
    page.mouse.move(5, 5)
    x, y = (there - edge for there, edge in zip(at.place(40, 60), page.evaluate(VIEW)[3:], strict=True))
    name = ["marks", x + 40, y - 8]
    page.wait_for_function(f"name => ({PAINTED})(name)[3] > 0", arg=name)
    at.press("t")
    page.wait_for_function(f"name => ({PAINTED})(name)[3] === 0", arg=name)
    page.get_by_label("Brightness", exact=True).fill("160")
    picture = stage.locator(".picture")
    assert "brightness(1.6)" in picture.evaluate("one => getComputedStyle(one).filter")
    page.get_by_role("button", name="Brightness and contrast as they are").click()
    assert picture.evaluate("one => getComputedStyle(one).filter") == "none"
    box = stage.bounding_box()
    corner = box["x"] + box["width"] - 5, box["y"] + box["height"] - 5
    page.mouse.move(*corner)
    page.mouse.down()
    page.mouse.move(corner[0], corner[1] + 60)
    page.mouse.up()
    assert stage.bounding_box()["height"] == pytest.approx(box["height"] + 60, abs=2)
    assert at.box() == (40, 60, 80, 60)


def test_a_reviewer_sees_each_persons_shapes(scene: Callable[..., Scene], card_page: Callable[..., Any]) -> None:
    from mlops_nb.widgets.label import LabelCard

    at = scene("image_object_detection", reviewers=["rita"], annotators=["ana"])
    at.drag((40, 40), (120, 100))
    at.press("Escape", "Enter")
    at.on()
    at.saved().set_state("i1", "disputed")
    card = LabelCard(at.card.settings.model_copy(update={"user": "rita"}), "quick", role="review")
    review = Scene(card_page(card), card)
    review.on("i1")
    scale, left, top, *_ = review.page.evaluate(VIEW)
    edge = ["marks", left + 80 * scale, top + 40 * scale]
    review.page.wait_for_function(f"edge => ({PAINTED})(edge)[3] > 0", arg=edge)
    review.page.locator(".scene").focus()
    review.press("y")
    review.page.wait_for_function(f"edge => ({PAINTED})(edge)[3] === 0", arg=edge)
    card.close()


def test_a_stroke_on_twelve_megapixels_is_kept_whole(scene: Callable[..., Scene]) -> None:
    at = scene("image_semantic_segmentation", size=(4000, 3000))
    box = at.page.locator(".scene").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    at.page.mouse.move(*middle)
    at.page.mouse.down()
    for n in range(60):
        at.page.mouse.move(middle[0] + 3 * n, middle[1] + (n % 12) * 10)
    at.page.mouse.up()
    at.page.mouse.down(button="middle")
    for n in range(40):
        at.page.mouse.move(middle[0] - 4 * n, middle[1] - 2 * n)
    at.page.mouse.up(button="middle")
    assert at.pixels().sum() > 100_000


def test_nobody_is_shut_out(scene: Callable[..., Scene], tmp_path: Path) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    at = scene("image_instance_segmentation")
    at.click((40, 40), (120, 40), (120, 100))
    at.press("Enter", "d")
    at.drag((150, 40), (180, 90))
    at.kept()
    for theme in ("light", "dark"):
        at.page.emulate_media(color_scheme=theme)
        at.page.screenshot(path=tmp_path / f"{theme}.png")
        found = axe.run(at.page).response["violations"]
        assert not [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")], theme


def test_a_picture_to_be_classified_is_moved_and_not_drawn_on(scene: Callable[..., Scene]) -> None:
    at = scene("image_classification")
    x, y = at.place(100, 75)
    at.page.mouse.move(x, y)
    at.page.mouse.down()
    at.page.mouse.move(x + 60, y + 30)
    at.page.mouse.up()
    assert at.place(100, 75) == pytest.approx((x + 60, y + 30))
    at.press("2")
    assert at.only()["label"] == "face"
    at.press("ArrowLeft", "Enter")
    at.on()
    assert [one["kind"] for one in at.saved().answer("i1", "ana").annotations] == ["class"]


def test_a_picture_that_lies_on_its_side_is_shown_upright(scene: Callable[..., Scene]) -> None:
    at = scene("image_object_detection", turned=True)
    scale, left, top, *_ = at.page.evaluate(VIEW)
    place = ["picture", left + 190 * scale, top + 10 * scale]
    at.page.wait_for_function(f"place => ({PAINTED})(place)[3] > 0", arg=place)
    red, green, *_ = at.page.evaluate(PAINTED, place)
    assert red > 200 > 60 > green  # as it was before it was turned: red from left to right, green from top to bottom
    at.drag((150, 100), (190, 140))
    assert at.box() == (150, 100, 40, 40)
