"""Pictures of a camera that changed are found by cheap numbers; halves of the same pictures are not told apart."""

import base64
import datetime as dt
import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFilter

from mlops_nb.core.records import Deployment
from mlops_nb.core.settings import Settings
from mlops_nb.outer_loop.collected import Collected
from mlops_nb.outer_loop.images import NUMBERS, compare_descriptions, describe, describe_all, image_drift, open_picture
from mlops_nb.outer_loop.monitor import Watch
from mlops_nb.outer_loop.signals import Asked

START = dt.datetime(2026, 11, 20, tzinfo=dt.UTC)
DIGITS = Path(__file__).resolve().parents[3] / "shared" / "data" / "cv" / "sign_language_digits_600.zip"


def ask(inputs: pd.DataFrame, reference: pd.DataFrame | None, minimum: int = 50, root: Path = Path(), **parameters: Any) -> Asked:
    return Asked(
        Settings(root=root),
        Watch("pictures", "custom", {}, parameters=parameters),
        "classification",
        Deployment("signs", "blue", "", "dev"),
        (START, START + dt.timedelta(days=1)),
        lambda collection, window: Collected(inputs, len(inputs)),
        reference,
        minimum,
    )


def png(picture: Image.Image) -> bytes:
    picture.save(stream := io.BytesIO(), "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def signs() -> list[Image.Image]:
    if not DIGITS.is_file():
        pytest.skip("needs the sign language digits")
    with zipfile.ZipFile(DIGITS) as archive:
        return [Image.open(io.BytesIO(archive.read(name))).convert("RGB") for name in sorted(archive.namelist())]


@pytest.fixture(scope="module")
def numbers(signs: list[Image.Image]) -> np.ndarray:
    return describe_all([np.asarray(picture) for picture in signs])[0]


def darker(picture: Image.Image) -> Image.Image:
    return Image.fromarray(np.uint8(np.clip(np.asarray(picture) / 255 - 0.05, 0, 1) * 255))


def blurred(picture: Image.Image) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(0.8))


HALVES = [np.random.default_rng(seed).permutation(600) for seed in range(5)]
SIDES = np.arange(600) >= 300


def test_random_halves_are_quiet(numbers: np.ndarray) -> None:
    for order in HALVES:
        auc, chance, *_ = compare_descriptions(numbers[order], SIDES, examples=0)
        assert auc.value < 0.57
        assert chance.value > 0.01


@pytest.mark.parametrize(
    ("change", "named"),
    [(darker, {"brightness", "light", "dark", "red", "green", "blue"}), (blurred, {"sharpness", "noise", "edges"})],
)
def test_a_camera_that_is_darker_or_out_of_focus_is_found(
    signs: list[Image.Image], numbers: np.ndarray, change: Callable[[Image.Image], Image.Image], named: set[str]
) -> None:
    order = HALVES[0]
    moved = describe_all([np.asarray(change(signs[n])) for n in order[300:]])[0]
    auc, chance, *by_number = compare_descriptions(np.vstack([numbers[order[:300]], moved]), SIDES, [f"p{n}" for n in range(300)])
    assert auc.value > 0.85
    assert chance.value == 0.002
    assert set(list(auc.detail["numbers"])[:2]) & named
    assert max(by_number, key=lambda measure: measure.value).feature in named
    assert any(name in auc.detail["examples"][0]["why"] for name in named)


def test_halves_of_the_persons_are_no_drift_where_the_person_is_named(numbers: np.ndarray) -> None:
    person = np.arange(600) % 60  # each person shows every digit
    drawn = np.isin(person, np.random.default_rng(0).permutation(60)[:30])
    rows, groups = np.vstack([numbers[drawn], numbers[~drawn]]), np.concatenate([person[drawn], person[~drawn]])
    alone, by_person = (compare_descriptions(rows, SIDES, groups=those, examples=0)[0] for those in (None, groups))
    assert alone.detail["p_value"] < 0.01 < by_person.detail["p_value"]


def pictures(n: int, seed: int = 0) -> list[bytes]:
    random = np.random.default_rng(seed)
    return [png(Image.fromarray(random.integers(60, 190, (12, 16, 3), dtype=np.uint8))) for _ in range(n)]


def frame(values: list[Any]) -> pd.DataFrame:
    return pd.DataFrame({"correlationid": [f"r{n}_0" for n in range(len(values))], "image": values})


def test_a_picture_is_the_same_however_it_was_sent(tmp_path: Path) -> None:
    (content,) = pictures(1)
    (tmp_path / "one.png").write_bytes(content)
    text = base64.b64encode(content).decode()
    array = np.asarray(Image.open(io.BytesIO(content)))
    forms = [
        content,
        text,
        f"data:image/png;base64,{text}",
        "one.png",
        array.tolist(),
        (array / 255).tolist(),
        array.transpose(2, 0, 1).tolist(),
    ]
    rows, places, problem = describe_all(forms, tmp_path)
    assert (len(places), problem) == (7, "")
    assert np.ptp(rows, axis=0).max() < 0.01
    assert dict(zip(NUMBERS, rows[0], strict=True))["aspect"] == pytest.approx(4 / 3)


def test_no_request_reads_a_file_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(pictures(1)[0])
    (tmp_path / "in").mkdir()
    for name in ("../secret.png", str(tmp_path / "secret.png")):
        with pytest.raises(ValueError, match="is not below"):
            open_picture(name, tmp_path / "in")
    with pytest.raises(ValueError, match="neither a file"):
        open_picture("secret.png")


def test_numbers_of_pictures_one_can_work_out() -> None:
    grey = dict(zip(NUMBERS, describe(*open_picture(png(Image.new("RGB", (40, 20), (51, 51, 51))))), strict=True))
    assert (grey["width"], grey["height"], grey["brightness"]) == pytest.approx((40, 20, 0.2), abs=1e-3)
    assert grey["contrast"] == pytest.approx(0, abs=1e-6)
    assert grey["entropy"] == grey["edges"] == grey["saturation"] == 0
    half = np.zeros((20, 40, 3), dtype=np.uint8)
    half[:, 20:] = 255
    split = dict(zip(NUMBERS, describe(*open_picture(png(Image.fromarray(half)))), strict=True))
    assert (split["brightness"], split["contrast"], split["entropy"], split["left"]) == pytest.approx((0.5, 0.5, 1, 0), abs=1e-3)


def test_a_folder_of_pictures_by_the_files_times(tmp_path: Path) -> None:
    for side, seed, when in (
        ("old", 0, START - dt.timedelta(days=9)),
        ("new", 1, START + dt.timedelta(hours=3)),
        ("new", 2, START - dt.timedelta(days=2)),
    ):
        (tmp_path / side).mkdir(exist_ok=True)
        for place, content in enumerate(pictures(60, seed)):
            (path := tmp_path / side / f"{seed}-{place}.png").write_bytes(content)
            os.utime(path, (when.timestamp(),) * 2)
    found = image_drift(ask(frame([]), None, root=tmp_path, folder="new", reference_folder="old"))
    assert found[0].detail["rows"] == [60, 60]
    assert {row["correlationid"].partition("-")[0] for row in found[0].detail["examples"]} == {"1"}
    assert "no folder" in image_drift(ask(frame([]), None, root=tmp_path, folder="gone", reference_folder="old"))[0].problem


@pytest.mark.parametrize(
    ("new", "old", "parameters", "said"),
    [
        (frame(pictures(9)), frame(pictures(60)), {}, "only 9 rows in the window, 50 needed"),
        (frame(pictures(60)), None, {}, "no reference data"),
        (frame(pictures(40) + [b"broken"] * 20), frame(pictures(60)), {}, "20 of 60 pictures of the window cannot be read"),
        (frame(pictures(60)), frame([None] * 60), {}, "only 0 rows in the reference"),
        (frame(pictures(60)), frame(pictures(60)), {"column": "photo"}, "no column 'photo'"),
        (frame(pictures(60)), frame(pictures(60)), {"group": "camera"}, "no column 'camera'"),
    ],
)
def test_what_cannot_be_compared_says_so(new: pd.DataFrame, old: pd.DataFrame | None, parameters: dict[str, str], said: str) -> None:
    first = image_drift(ask(new, old, **parameters))[0]
    assert first.value is None
    assert said in first.problem


def test_the_same_picture_throughout_is_no_drift() -> None:
    found = image_drift(ask(frame(pictures(1) * 60), frame(pictures(1) * 60)))
    assert (found[0].value, found[1].value) == (0.5, 1)
