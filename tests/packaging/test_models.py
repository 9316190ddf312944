"""What loading a model's file would run is known before it is loaded, whatever the file calls itself."""

import importlib
import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import skops.io
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from mlops_nb.packaging.models import look_into_folder, read_allowed

RNG = np.random.default_rng(0)
ROWS = RNG.random((40, 3))
CLASSES = ROWS[:, 0] > 0.5
MODELS = {
    "boosting": HistGradientBoostingRegressor(max_iter=3).fit(ROWS, ROWS[:, 0]),
    "forest": RandomForestClassifier(3).fit(ROWS, CLASSES),
    "neighbours": KNeighborsClassifier(algorithm="kd_tree").fit(ROWS, CLASSES),
    "pipeline": make_pipeline(FunctionTransformer(np.log1p), StandardScaler(), LinearRegression()).fit(ROWS, ROWS[:, 0]),
    "texts": OneHotEncoder().fit(np.array([["red"], ["blue"]], dtype=object)),
}


class Call:
    """A pickle of it calls what it was given, when it is loaded."""

    def __init__(self, function: Any, *arguments: Any):
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def plain(thing: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(thing))


WRITERS: dict[str, Callable[[Any, Path], Any]] = {
    "pickle": plain,
    "old pickle": lambda thing, path: path.write_bytes(pickle.dumps(thing, protocol=0)),
    "joblib": joblib.dump,
    "joblib, zlib": lambda thing, path: joblib.dump(thing, path, compress=("zlib", 3)),
    "joblib, gzip": lambda thing, path: joblib.dump(thing, path, compress=("gzip", 3)),
    "joblib, xz": lambda thing, path: joblib.dump(thing, path, compress=("xz", 3)),
}


def findings(folder: Path, *allowed: str) -> list[str]:
    return [finding.what for finding in look_into_folder(folder, set(allowed))[0]]


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("model", MODELS)
def test_a_model_of_known_classes_passes(tmp_path: Path, writer: str, model: str) -> None:
    WRITERS[writer](MODELS[model], tmp_path / "model.pkl")
    assert findings(tmp_path) == []


HOSTILE = {
    "a command": Call(os.system, "touch pwned"),
    "eval": Call(eval, "open('pwned', 'w')"),
    "an import that hides another": Call(importlib.import_module, "antigravity"),
    "getattr": Call(getattr, "text", "upper"),
    "a reader of files": Call(np.load, "anything.npy"),
    "inside an array of objects": np.array([1, Call(os.system, "touch pwned")], dtype=object),
    "behind a real array": [ROWS, {"more": np.array([Call(os.system, "touch pwned")], dtype=object)}],
    "a step of a pipeline": make_pipeline(FunctionTransformer(os.system), LinearRegression()),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_pickle_that_would_run_something_is_stopped_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str, hostile: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    WRITERS[writer](HOSTILE[hostile], tmp_path / "model/weights.txt")  # its name does not matter
    [what] = findings(tmp_path / "model")
    assert "which is not on the allow-list" in what
    assert not (tmp_path / "pwned").exists()


def test_archives_and_arrays_are_looked_into(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "weights.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Call(os.system, "touch pwned")))
    np.save(tmp_path / "array.npy", np.array([Call(os.system, "touch pwned")], dtype=object))
    (tmp_path / "two.pkl").write_bytes(pickle.dumps(1) + pickle.dumps(Call(eval, "1")))  # torch reads several, one behind the other
    with zipfile.ZipFile(tmp_path / "net.keras", "w") as archive:
        archive.writestr("config.json", '{"layers": [{"class_name": "Lambda"}]}')
    skops.io.dump(FunctionTransformer(os.system), tmp_path / "model.skops")
    found = {finding.place.partition("!")[0] for finding in look_into_folder(tmp_path, set())[0]}
    assert found == {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("name", "content"),
    [("model.so", b"\x7fELF\x02"), ("module.pyc", b"\xa7\r\r\n"), ("net.h5", b"\x89HDF\r\n\x1a\n"), ("model.pkl", b"hello"),
     ("cut.pkl", pickle.dumps(MODELS["forest"])[:500]), ("model.joblib", b"\x04\x22\x4d\x18lz4"), ("code.pkl", b"\x80\x02\x82\x01.")],
)
def test_what_cannot_be_looked_into_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert findings(tmp_path)


def test_data_passes(tmp_path: Path) -> None:
    texts = {"MLmodel": "flavors: {}\n", "words.txt": "x marks the spot\n", "table.csv": "a,b\n1,2\n", "few.txt": "I1\n."}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    np.savez(tmp_path / "arrays.npz", rows=ROWS)
    skops.io.dump(MODELS["boosting"], tmp_path / "model.skops")
    assert findings(tmp_path) == []


def test_a_project_may_know_more(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    plain(Call(importlib.import_module, "json"), tmp_path / "model/a.pkl")
    (tmp_path / "allowed.txt").write_text("# ours\nimportlib.import_module  # only an example\n")
    assert findings(tmp_path / "model", *read_allowed(tmp_path / "allowed.txt")) == []
    assert read_allowed(tmp_path / "none.txt") == set()


def test_a_zip_within_a_file_object_is_read_from_its_beginning() -> None:
    from mlops_nb.packaging.models import look_into

    assert list(look_into("a.npy", io.BytesIO(b"\x93NUMPY broken"), set()))
