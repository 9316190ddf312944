"""What people are to label, taken from where it lies: nothing is lost, nothing comes twice, and what is broken is told."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mlops_nb.core import queue
from mlops_nb.core.records import SpecificationError
from mlops_nb.core.settings import Settings
from mlops_nb.inner_loop.items import gather, open_image, read_picture, thumbnail
from mlops_nb.inner_loop.labeling import LabelProject
from mlops_nb.inner_loop.store import LabelItem, create

SIGNS = Path(__file__).resolve().parents[3] / "shared/data/cv/sign_language_digits_600.zip"


def of(task: str, **source: Any) -> LabelProject:
    more: dict[str, Any] = {"criteria": [{"name": "true"}]} if task == "text_rubric" else {}
    fields: dict[str, Any] = {"fields": [{"name": "summary", "column": "draft"}]} if task == "text_generation" else {}
    classes = [] if task in ("text_rubric", "text_ranking", "text_generation") else ["a", "b"]
    return LabelProject(name="p", task=task, classes=classes, source=source, **more, **fields)


def png(width: int, height: int, colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def photos(project: Settings) -> Path:
    """A folder with a picture, one that lies on its side, one of 16 bits, and what is none."""
    folder = project.root / "photos"
    (folder / "may" / ".hidden").mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(folder / "flat.png")
    turned = Image.Exif()
    turned[0x0112] = 8
    Image.fromarray(np.full((30, 40, 3), (255, 0, 0), np.uint8)).save(folder / "may" / "tall.jpg", exif=turned)
    Image.fromarray((np.arange(100, dtype=np.uint16) * 600).reshape(10, 10)).save(folder / "deep.tif")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (folder / "notes.txt").write_text("no picture, and not meant as one")
    (folder / "may" / ".hidden" / "x.png").write_bytes(png(1, 1))
    return folder


def test_pictures_of_a_folder_are_upright_and_broken_ones_are_told(project: Settings, photos: Path) -> None:
    problems: list[str] = []
    items = list(gather(project, of("image_classification", folder="photos"), problems=problems))
    assert {item.id: (item.data["width"], item.data["height"]) for item in items} == {
        "deep.tif": (10, 10), "flat.png": (40, 30), "may/tall.jpg": (30, 40)}
    assert items[1].data["image"] == "photos/flat.png"  # relative: the project may move
    assert len(problems) == 1
    assert "broken.jpg: no picture" in problems[0]
    assert [read_picture(project, item).size for item in items] == [(10, 10), (40, 30), (30, 40)]
    assert max(Image.open(io.BytesIO(thumbnail(project, items[1], 16))).size) == 16


def test_a_browser_is_given_what_it_can_show(project: Settings, photos: Path) -> None:
    """A JPEG goes out as it is; 16 bits are spread over what a screen shows, not cut off."""
    items = {item.id: item for item in gather(project, of("image_classification", folder="photos"))}
    assert open_image(project, items["may/tall.jpg"]) == (photos / "may" / "tall.jpg").read_bytes()
    turned = Image.open(io.BytesIO(open_image(project, items["may/tall.jpg"], turned=True)))  # for readers that do not look
    assert turned.size == (30, 40)
    assert 0x0112 not in turned.getexif()
    shown = np.asarray(Image.open(io.BytesIO(open_image(project, items["deep.tif"]))))
    assert (shown.min(), shown.max()) == (0, 255)
    assert len(np.unique(shown)) == 100


def test_a_pattern_chooses_files(project: Settings, photos: Path) -> None:
    items = gather(project, of("image_classification", folder="photos", pattern="may/*.jpg"))
    assert [item.id for item in items] == ["may/tall.jpg"]


def test_a_pattern_that_chooses_nothing_says_so(project: Settings, photos: Path) -> None:
    problems: list[str] = []
    assert list(gather(project, of("image_classification", folder="photos", pattern="*.JPEG2"), problems=problems)) == []
    assert problems[0].startswith("photos: no file fits the pattern *.JPEG2 and ends in ")


def test_the_first_item_is_there_before_the_last_file_was_seen(project: Settings, photos: Path) -> None:
    items = gather(project, of("image_classification", folder="photos"))
    first = next(items)
    (photos / "may" / "tall.jpg").unlink()
    assert [first.id, *(item.id for item in items)] == ["deep.tif", "flat.png"]


def test_other_storage_is_read_by_address(project: Settings) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe({"/shop/a.png": png(8, 6), "/shop/list.jsonl": b'{"image": "a.png", "shelf": 3}\n{"image": "gone.png"}\n'})
    problems: list[str] = []
    folder = list(gather(project, of("image_classification", folder="memory://shop", pattern="*.png")))
    rows = list(gather(project, of("image_classification", folder="memory://shop/list.jsonl", columns=["shelf"]), problems=problems))
    assert folder[0].data == {"image": "memory:///shop/a.png", "width": 8, "height": 6}
    assert rows[0].data["shelf"] == 3
    assert open_image(project, rows[0]) == png(8, 6)
    assert len(problems) == 1
    assert "line 2" in problems[0]


@pytest.mark.skipif(not SIGNS.is_file(), reason="the sign digits are not here")
def test_pictures_in_an_archive_need_no_unpacking(project: Settings) -> None:
    items = list(gather(project, of("image_classification", folder=f"zip://sign_digits/7::{SIGNS}")))
    assert len(items) == 60
    assert read_picture(project, items[59]).size == (100, 100)


CSV = 'id,text,at\n007,"Line one\nline two",9:00\n8,Caf\u00e9 \U0001f469\u200d\U0001f680,\n9,,9:30\n10,torn\n'


def test_a_csv_file_keeps_its_texts(project: Settings) -> None:
    """`007` is no 7, a line may be broken, and a row with too few columns or no text is told."""
    (project.root / "posts.csv").write_text(CSV, encoding="utf-8-sig")
    problems: list[str] = []
    items = list(gather(project, of("text_classification", folder="posts.csv", id="id", columns=["at"]), problems=problems))
    assert {item.id: item.data["text"] for item in items} == {"007": "Line one\nline two", "8": "Caf\u00e9 \U0001f469\u200d\U0001f680"}
    assert [problem.partition(", ")[2] for problem in problems] == ["line 5: nothing in column 'text'", "line 6: not 3 columns"]


def test_every_form_of_a_table_gives_the_same_items(project: Settings) -> None:
    rows = pd.DataFrame({"text": ["Hello", "Hello", "Bye"], "n": [1, 2, 3]})
    rows.to_json(project.root / "a.jsonl", orient="records", lines=True)
    rows.to_json(project.root / "b.jsonl.gz", orient="records", lines=True)
    rows.to_csv(project.root / "c.csv", index=False)
    rows.to_parquet(project.root / "d.parquet")
    found = [[item.id for item in gather(project, of("text_classification", folder=name))]
             for name in ("a.jsonl", "b.jsonl.gz", "c.csv", "d.parquet")]
    found.append([item.id for item in gather(project, of("text_classification", table="shop"), lambda address: rows)])
    assert all(ids == found[0] for ids in found)
    assert found[0][0] == found[0][1] != found[0][2]  # equal texts are one item


def test_rows_are_shown_with_the_columns_that_are_asked_for(project: Settings) -> None:
    rows = pd.DataFrame({"fare": [3.5, float("nan")], "when": pd.to_datetime(["2026-01-02", None]), "secret": ["x", "y"]})
    items = list(gather(project, of("tabular_classification", table="taxi", columns=["fare", "when"]), lambda address: rows))
    assert [item.data["row"] for item in items] == [{"fare": 3.5, "when": "2026-01-02 00:00:00"}, {"fare": None, "when": None}]


def test_text_files_and_texts_that_begin_with_a_draft(project: Settings) -> None:
    (project.root / "letters").mkdir()
    (project.root / "letters" / "one.txt").write_text("Dear all,\r\n", newline="")
    (project.root / "letters" / "latin.txt").write_bytes("caf\u00e9".encode("latin-1"))
    (project.root / "draft.jsonl").write_text(json.dumps({"text": "A long story", "draft": "A story"}))
    problems: list[str] = []
    [letter] = gather(project, of("text_classification", folder="letters"), problems=problems)
    assert (letter.id, letter.data) == ("one.txt", {"text": "Dear all,\r\n"})
    assert "latin.txt" in problems[0]
    [drafted] = gather(project, of("text_generation", folder="draft.jsonl"))
    assert drafted.prediction[0]["text"] == "A story"
    assert drafted.prediction[0]["source"] == "column:draft"


def test_a_monitors_queue_keeps_what_the_monitor_knew(project: Settings) -> None:
    """The model's answer is the proposal; a picture that was asked in base64 or as pixels is kept beside the labels."""
    where = "deployment:dev.signs/blue"
    dark = np.zeros((4, 6)).tolist()
    queue.put(project, "signs", [
        queue.Item("r1_0", {"image": base64.b64encode(png(5, 4)).decode()}, "a", 0.9, "far from all others", where),
        queue.Item("r2_0", {"pixels": dark}, {"labels": ["a", "b"], "probs": [0.2, 0.8]}, 0.4, "", where),
        queue.Item("r3_0", {"image": "neither a file nor base64"}, "a", 0.1, "", where),
        queue.Item("r4_0", {"image": base64.b64encode(png(5, 4)).decode()}, "no such class", 0.1, "", where)])
    problems: list[str] = []
    signs = of("image_classification", queue="signs")
    items = {item.id: item for item in gather(project, signs, problems=problems)}
    assert list(items) == ["r1_0", "r2_0", "r4_0"]
    assert len(problems) == 2
    first, second, fourth = items.values()
    assert (first.score, first.why, first.model) == (0.9, "far from all others", where)
    assert (first.data["width"], first.data["height"]) == (5, 4)
    assert open_image(project, first) == png(5, 4)
    assert second.prediction[0]["label"] == "b"
    assert second.prediction[0]["score"] == 0.8
    assert (second.data["width"], second.data["height"]) == (6, 4)
    assert fourth.prediction == ()
    assert first.data["image"] == fourth.data["image"]
    with create(project, signs) as store:
        assert store.add(items.values()) == 3
        assert store.add(gather(project, signs)) == 0


def test_two_deployments_answers_are_compared_by_request(project: Settings) -> None:
    """Only what both answered; where both say the same, nobody is asked to choose."""
    collected = {
        ("blue", "model_inputs"): {"r1_0": "Why?", "r2_0": "When?", "r3_0": "Who?"},
        ("blue", "model_outputs"): {"r1_0": "Because.", "r2_0": "At noon.", "r3_0": "Ada."},
        ("green", "model_outputs"): {"r2_0": "At twelve.", "r3_0": "Ada."},
    }

    def answers(endpoint: str, deployment: str, kind: str) -> pd.DataFrame:
        rows = collected[deployment, kind]
        return pd.DataFrame({"correlationid": rows.keys(), "text" if kind == "model_inputs" else "answer": rows.values()})

    problems: list[str] = []
    ranking = of("text_ranking", endpoint="faq", deployments=["blue", "green"])
    [item] = gather(project, ranking, read_answers=answers, problems=problems)
    assert item == LabelItem("r2_0", {"prompt": "When?", "candidates": [
        {"id": "a", "text": "At noon.", "name": "blue"}, {"id": "b", "text": "At twelve.", "name": "green"}]}, "endpoint:dev.faq")
    assert problems == ["endpoint faq: 1 of 3 requests were not answered by both deployments", "endpoint faq, r3_0: both answer alike"]
    rubric = of("text_rubric", endpoint="faq", deployments=["blue", "green"])
    assert [item.id for item in gather(project, rubric, read_answers=answers)] == ["r2_0", "r3_0"]


@pytest.mark.parametrize(("source", "told"), [
    ({}, "names no source"), ({"folder": "nowhere"}, "No folder and no file nowhere"), ({"table": "taxi"}, "cannot be read from here")])
def test_a_source_that_is_none_is_refused(project: Settings, source: dict[str, Any], told: str) -> None:
    with pytest.raises((SpecificationError, FileNotFoundError), match=told):
        list(gather(project, of("text_classification", **source)))


def test_a_column_that_is_not_there_is_named_with_those_that_are(project: Settings) -> None:
    (project.root / "a.jsonl").write_text('{"body": "Hello", "n": 1}\n[1]\n')
    problems: list[str] = []
    assert list(gather(project, of("text_classification", folder="a.jsonl"), problems=problems)) == []
    assert problems[0].endswith("line 1: no column 'text' (columns: body, n). Name it as source.text")
    assert problems[1].endswith("line 2: no JSON object")
