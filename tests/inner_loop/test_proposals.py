"""What models propose: every form of answer is read alike, nothing that does not fit is stored, and a stopped run goes on."""

import logging
import shutil
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from PIL import Image
from sklearn.linear_model import LogisticRegression

from mlops_nb.core.ledger import entries
from mlops_nb.core.records import SpecificationError, StepFailed
from mlops_nb.core.settings import Settings, load_settings
from mlops_nb.core.tracking import use_experiment
from mlops_nb.inner_loop import shapes
from mlops_nb.inner_loop.labeling import LabelProject
from mlops_nb.inner_loop.proposals import model_input, propose, read_output, split_output
from mlops_nb.inner_loop.store import LabelItem, Store, create, open_store

ROOT = Path(__file__).resolve().parents[2]
PHOTO = LabelItem("p1", {"image": "p1.png", "width": 100, "height": 80})
POST = LabelItem("t1", {"text": "Rain in S\u00e3o Paulo, sun in Rio \U0001f31e"})


def of(task: str, *classes: str, **more: Any) -> LabelProject:
    return LabelProject(name=f"p-{task.replace('_', '-')}", task=task, classes=classes, **more)


CATS = of("image_classification", "cat", "dog", "hen")
MANY = of("text_classification_multilabel", "rain", "sun", "snow")


@pytest.mark.parametrize(("answer", "label", "score"), [
    ("dog", "dog", None), (1, "dog", None), (1.0, "dog", None), ("LABEL_1", "dog", None), (np.str_("dog"), "dog", None),
    (["dog"], "dog", None), ({"prediction": "dog"}, "dog", None), ({"label": "dog", "score": 0.9}, "dog", 0.9),
    ([{"label": "cat", "score": 0.1}, {"label": "dog", "score": 0.9}], "dog", 0.9), ({"cat": 0.2, "dog": 0.8}, "dog", 0.8),
    ([0.2, 0.7, 0.1], "dog", 0.7), (np.array([0.2, 0.7, 0.1]), "dog", 0.7),
    ({"labels": ["hen", "dog", "cat"], "probs": [0.1, 0.6, 0.3]}, "dog", 0.6), ('{"label": "dog", "score": 0.5}', "dog", 0.5),
], ids=str)
def test_one_class_in_every_form(answer: Any, label: str, score: float | None) -> None:
    [found] = read_output(CATS, PHOTO, answer, "model:dev.cats/2").annotations
    assert (found["id"], found["label"], found.get("score"), found["source"]) == (f"class:{label}", label, score, "model:dev.cats/2")


def test_a_class_is_meant_by_its_name_before_its_number() -> None:
    digits = of("image_classification", "1", "2", "3")
    assert [read_output(digits, PHOTO, answer).annotations[0]["label"] for answer in ("1", 1, 1.0, "LABEL_1")] == ["1", "1", "1", "2"]


def test_several_classes_are_those_more_likely_than_not() -> None:
    forms = [["rain", "sun"], {"labels": ["sun", "snow", "rain"], "probs": [0.6, 0.2, 0.9]}, [0.9, 0.6, 0.2]]
    assert [sorted(one["label"] for one in read_output(MANY, POST, form).annotations) for form in forms] == [["rain", "sun"]] * 3


def test_the_classes_probabilities_are_kept_for_ranking() -> None:
    assert read_output(CATS, PHOTO, [0.2, 0.7, 0.1]).chances == (0.2, 0.7, 0.1)
    assert read_output(CATS, PHOTO, {"label": "dog", "score": 0.9}).chances == pytest.approx((0.9, 0.1))
    assert read_output(CATS, PHOTO, "dog").chances == ()


BOX = {"x": 10.0, "y": 20.0, "width": 40.0, "height": 40.0}


@pytest.mark.parametrize("answer", [
    {"boxes": [{"box": {"topX": 0.1, "topY": 0.25, "bottomX": 0.5, "bottomY": 0.75}, "label": "hand", "score": 0.9}]},
    [{"category_id": 1, "bbox": [10, 20, 40, 40], "score": 0.9}], {"category_name": "hand", "bbox": [10, 20, 40, 40], "score": 0.9},
    [{"label": "hand", "score": 0.9, "box": {"xmin": 10, "ymin": 20, "xmax": 50, "ymax": 60}}],
    [{"id": "b1", "kind": "box", "label": "hand", "score": 0.9, **BOX}],
], ids=["azure", "coco", "coco, one", "transformers", "ours"])
def test_a_box_in_every_form(answer: Any) -> None:
    [found] = read_output(of("image_object_detection", "hand"), PHOTO, answer, "m").annotations
    assert {key: found[key] for key in BOX} == BOX
    assert found["score"] == 0.9
    assert found["source"] == "m"


def test_a_box_that_sticks_out_is_cut_and_one_outside_is_told() -> None:
    made = read_output(of("image_object_detection", "hand"), PHOTO, [
        {"category_id": 1, "bbox": [90, 70, 40, 40]}, {"category_id": 1, "bbox": [200, 20, 40, 40]},
        {"category_id": 9, "bbox": [1, 1, 5, 5]}, {"nothing": 1}])
    assert [(one["width"], one["height"]) for one in made.annotations] == [(10.0, 10.0)]
    assert len(made.faults) == 3


def test_polygons_and_masks_become_what_the_task_asks_for() -> None:
    square = [10, 10, 30, 10, 30, 30, 10, 30]
    azure = {"boxes": [{"polygon": [[x / (100, 80)[n % 2] for n, x in enumerate(square)]], "label": "hand", "score": 0.5}]}
    coco = [{"segmentation": [square], "category_id": 1, "score": 0.5}]
    runs = shapes.to_rle({"kind": "polygon", "rings": [list(zip(square[::2], square[1::2], strict=True))]}, 100, 80)
    instances, semantic = of("image_instance_segmentation", "hand"), of("image_semantic_segmentation", "hand", "sky")
    forms: tuple[Any, ...] = (azure, coco, [{"segmentation": runs, "label": "hand"}])
    areas = [shapes.area(read_output(instances, PHOTO, form).annotations[0]) for form in forms]
    assert areas == pytest.approx([400] * 3)
    pixels = np.zeros((80, 100), int)
    pixels[10:30, 10:30] = 2
    forms = (coco, [{"segmentation": runs, "label": "hand"}], pixels)
    made = [read_output(semantic, PHOTO, form).annotations[0] for form in forms]
    assert [(one["kind"], one["label"], shapes.area(one)) for one in made] == [
        ("mask", "hand", 400), ("mask", "hand", 400), ("mask", "sky", 400)]
    assert "pixels of shape (2, 2)" in read_output(semantic, PHOTO, [[0, 1], [0, 0]]).faults[0]


def test_key_points_as_coco_has_them() -> None:
    pose = of("image_keypoints", *[{"name": "hand", "keypoints": ["thumb", "wrist"]}])
    [found] = read_output(pose, PHOTO, [{"category_id": 1, "keypoints": [5, 6, 2, 7, 8, 1]}]).annotations
    assert [list(point) for point in found["points"]] == [[5, 6, 2], [7, 8, 1]]


@pytest.mark.parametrize("answer", [
    [{"entity_group": "place", "start": 8, "end": 17, "score": 0.8}], [{"entity": "B-place", "start": 8, "end": 17}],
    {"entities": [{"label": "place", "start": 8, "end": 17}]}, ["O", "O", "B-place", "I-place", "O", "O", "O", "O"],
    {"tokens": ["Rain", "in", "S\u00e3o", "Paulo", ",", "sun"], "tags": ["O", "O", "B-place", "I-place", "O", "O"]},
], ids=["groups", "entities", "a column", "tags of words", "tags of tokens"])
def test_a_span_in_every_form(answer: Any) -> None:
    [found] = read_output(of("text_ner", "place"), POST, answer).annotations
    assert POST.data["text"][found["start"] : found["end"]].startswith("S\u00e3o Paulo")


def test_texts_choices_and_scores() -> None:
    summary = of("text_generation", fields=[{"name": "summary"}, {"name": "title", "required": False}])
    forms = ["Rain.", {"summary": "Rain."}, [{"summary_text": "Rain."}]]
    assert [[one["text"] for one in read_output(summary, POST, form).annotations] for form in forms] == [["Rain."]] * 3
    both = LabelItem("c", {"prompt": "?", "candidates": [{"id": "a", "text": "x"}, {"id": "b", "text": "y"}]})
    assert read_output(of("text_ranking"), both, "b").annotations[0]["label"] == "b"
    rubric = of("text_rubric", criteria=[{"name": "true", "highest": 3}, {"name": "kind"}])
    made = read_output(rubric, both, {"a": {"true": 3, "kind": 1}, "b": {"true": 4, "kind": 5}})
    scores = [(one["candidate"], one["label"], one["value"]) for one in made.annotations]
    assert scores == [("a", "true", 3), ("a", "kind", 1), ("b", "kind", 5)]
    assert "not between 1 and 3" in made.faults[0]


@pytest.mark.parametrize(("project", "item", "answer", "told"), [
    (CATS, PHOTO, "cow", "no 'cow'"), (CATS, PHOTO, {"class": object()}, "no '"),
    (of("text_ner", "place"), POST, [{"entity_group": "place"}], "no known form"),
    (of("text_ner", "place"), POST, [{"entity_group": "place", "start": 8, "end": 99}], "outside"),
    (of("text_ner", "place"), POST, {"tokens": ["Snow"], "tags": ["B-place"]}, "'Snow' is not in the text"),
    (of("image_object_detection", "hand"), PHOTO, "hand", "no known form"), (of("text_ranking"), POST, "c", "no candidate 'c'"),
], ids=["class", "object", "no offsets", "outside", "token", "no box", "candidate"])
def test_what_does_not_fit_is_told_and_not_kept(project: LabelProject, item: LabelItem, answer: Any, told: str) -> None:
    made = read_output(project, item, answer)
    assert made.annotations == ()
    assert told in made.faults[0]


def test_a_batchs_answer_is_taken_apart_item_by_item() -> None:
    two = [PHOTO, LabelItem("p2", PHOTO.data)]
    assert split_output(pd.DataFrame({"probs": [[0.1], [0.2]]}), two) == [{"probs": [0.1]}, {"probs": [0.2]}]
    assert split_output(pd.Series(["a", "b"]), two) == [{0: "a"}, {0: "b"}] or split_output(pd.Series(["a", "b"]), two)[0] == {"0": "a"}
    assert split_output(np.array([[0.1, 0.9], [0.3, 0.7]]), two) == [[0.1, 0.9], [0.3, 0.7]]
    assert split_output({"labels": ["a", "b"], "scores": [1, 2]}, two) == [{"labels": "a", "scores": 1}, {"labels": "b", "scores": 2}]
    boxes = [{"image_id": "p2", "bbox": [1]}, {"image_id": 0, "bbox": [2]}, {"image_id": "p2", "bbox": [3]}]
    assert [[row["bbox"] for row in rows] for rows in split_output(boxes, two)] == [[[2]], [[1], [3]]]
    for wrong in (["a"], "a", [{"image_id": 7}]):
        with pytest.raises(ValueError, match=r"items|image_id"):
            split_output(wrong, two)


def test_a_picture_is_asked_as_the_signature_says(project: Settings) -> None:
    Image.new("RGB", (100, 80), "red").save(project.root / "p1.png")
    content = (project.root / "p1.png").read_bytes()
    asked = {
        "float32": infer_signature(np.zeros((1, 32, 24, 3), np.float32)),
        "channels first": infer_signature(np.zeros((1, 3, 32, 24), np.uint8)),
        "grey": infer_signature(np.zeros((1, 32, 24), np.float64)), "bytes": infer_signature(pd.DataFrame({"picture": [b"x"]})),
        "base64": infer_signature(pd.DataFrame({"photo": ["x"]})), "none": None,
    }
    made = {name: model_input(project, CATS, [PHOTO, PHOTO], signature) for name, signature in asked.items()}
    assert [made[name].shape for name in ("float32", "channels first", "grey")] == [(2, 32, 24, 3), (2, 3, 32, 24), (2, 32, 24)]
    assert made["float32"].dtype == np.float32
    assert made["channels first"][0, 0].min() == 255
    assert made["channels first"][0, 1].max() == 0
    assert made["bytes"]["picture"][0] == content
    assert list(made["base64"]) == ["photo"]
    assert list(made["none"]) == ["image"]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A project with two models: one of scikit-learn on rows, one that answers texts with a word of them."""
    root = tmp_path_factory.mktemp("p")
    shutil.copy(ROOT / "settings.ini", root)
    shutil.copytree(ROOT / "environments" / "access", root / "environments" / "access")
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    settings = load_settings("dev", root, user="ada")
    use_experiment(settings, "labeling")
    (root / "words.py").write_text(
        "import mlflow\n\nclass Words(mlflow.pyfunc.PythonModel):\n    def predict(self, context, model_input, params=None):\n"
        "        if 'stop' in model_input['text'].tolist():\n            raise RuntimeError('I cannot read this')\n"
        "        return [{'label': t.split()[0], 'score': len(t) / 20} for t in model_input['text']]\n\n"
        "mlflow.models.set_model(Words())\n")
    frame = pd.DataFrame({"size": np.arange(40.0), "age": np.arange(40.0)[::-1]})
    with mlflow.start_run():
        mlflow.sklearn.log_model(LogisticRegression().fit(frame, np.where(frame["size"] < 20, "small", "large")), name="rows",
                                 registered_model_name="dev.sizes", serialization_format="skops", pip_requirements=["scikit-learn"],
                                 signature=infer_signature(frame, pd.Series(["small"])))
        mlflow.pyfunc.log_model(name="words", python_model=str(root / "words.py"), registered_model_name="dev.words",
                                pip_requirements=["mlflow"])
    mlflow.MlflowClient().set_registered_model_alias("dev.words", "champion", "1")
    return settings


def posts(settings: Settings, name: str, **more: Any) -> Store:
    store = create(settings, LabelProject(name=name, task="text_classification", classes=["spam", "ham"], **more))
    store.add(LabelItem(f"t{n}", {"text": f"{('spam', 'ham')[n % 2]} {n}"}) for n in range(70))
    return store


def test_an_alias_is_asked_and_labels_bear_its_version(settings: Settings) -> None:
    store = posts(settings, "alias", model={"name": "models:/dev.words@champion"})
    store.add([LabelItem("bad", {"text": "stop"}), LabelItem("odd", {"text": "eggs 1"})])
    problems: list[str] = []
    assert propose(store, problems=problems) == 71  # one that fails costs no other of its batch
    assert sorted(problem.partition(":")[0] for problem in problems) == ["bad", "odd"]
    item = store.item("t3")
    assert item.model == item.prediction[0]["source"] == "model:dev.words/1"
    assert item.prediction[0]["label"] == "ham"
    assert store.item("odd").prediction == ()
    assert store.item("bad").model == ""
    [entry] = entries(settings, store.uri, "propose_labels")
    assert entry.inputs == ["model:dev.words/1"]
    assert entry.details["items"] == 71


def test_a_run_that_was_stopped_goes_on_where_it_was(settings: Settings) -> None:
    store = posts(settings, "stopped")
    assert propose(store, "words/1", limit=40) == 40
    assert [propose(store, "model:dev.words/1"), propose(store, "models:/dev.words@champion")] == [30, 0]


def test_a_model_of_scikit_learn_is_asked_for_probabilities(settings: Settings) -> None:
    """Its rows come as texts, as from a CSV file; its classes are found by name, whatever their order in the project."""
    sizes = LabelProject(name="sizes", task="tabular_classification", classes=["small", "large"], sampling={"strategy": "uncertainty"})
    store = create(settings, sizes)
    store.add(LabelItem(f"r{n}", {"row": {"age": str(39 - n), "size": str(n), "note": "x"}}) for n in (0, 19, 39))
    assert propose(store, "models:/dev.sizes/1") == 3
    found = {item.id: item for item in store.items()}
    assert [found[id].prediction[0]["label"] for id in ("r0", "r19", "r39")] == ["small", "small", "large"]
    assert found["r0"].prediction[0]["score"] > 0.95
    assert (found["r19"].score or 0) > 0.9 > (found["r0"].score or 0)  # how uncertain, for the order


def test_proposals_less_sure_than_the_project_asks_for_are_not_shown(settings: Settings) -> None:
    store = posts(settings, "sure", model={"name": "words/1", "min_score": 0.3})
    propose(store)
    assert (len(store.item("t0").prediction), len(store.item("t2").prediction), len(store.item("t9").prediction)) == (1, 1, 0)


def test_what_cannot_be_asked_is_refused(settings: Settings) -> None:
    store = posts(settings, "refused")
    with pytest.raises(SpecificationError, match=r"No model\. Name one"):
        propose(store)
    with pytest.raises(FileNotFoundError, match=r"No model models:/dev.words@best"):
        propose(store, "models:/dev.words@best")
    with pytest.raises(FileNotFoundError, match="Cannot load"):
        propose(store, "runs:/0/model")
    with pytest.raises(StepFailed, match="could answer none of 70 items: t0: ValueError: the model asks for size, age"):
        propose(store, "sizes/1")
    with pytest.raises(PermissionError, match="may not curate"):
        propose(open_store(settings.model_copy(update={"persona": "data_analyst"}), "refused"), "words/1")
