"""The file of a labeling project: what it may say, and every fault with its line."""

import datetime as dt

import pytest

from mlops_nb.core.records import SpecificationError
from mlops_nb.inner_loop.labeling import TASKS, LabelProject, load_project

PARTS = {"text": {"fields": [{"name": "summary"}]}, "score": {"criteria": [{"name": "true"}]}, "choice": {},
         "relation": {"classes": ["drug"], "relations": [{"name": "causes"}]}}  # fmt: skip


def least(task):
    """The least that a task's file must say."""
    parts = next((PARTS[kind] for kind in reversed(TASKS[task][1]) if kind in PARTS), {"classes": ["a"]})
    return {"name": "p", "task": task, **parts}


def faults(tmp_path, text):
    (tmp_path / "p.yml").write_text(text)
    with pytest.raises(SpecificationError) as refused:
        load_project(tmp_path / "p.yml")
    return [fault.replace(f"{tmp_path}/", "") for fault in refused.value.faults]


@pytest.mark.parametrize("task", TASKS)
def test_every_task_needs_little(task):
    fields = least(task) | ({"classes": [{"name": "a", "keypoints": ["tip"]}]} if task == "image_keypoints" else {})
    project = LabelProject(**fields)
    assert (project.medium, project.kinds) == TASKS[task]
    assert (project.overlap, project.lease) == (1, dt.timedelta(minutes=30))


@pytest.mark.parametrize("task", [task for task in TASKS if task != "text_ranking"])
def test_a_task_without_what_people_choose_from_is_refused(task):
    with pytest.raises(ValueError, match="needs some"):
        LabelProject(name="p", task=task)


def test_the_whole_file_is_read(tmp_path):
    (tmp_path / "p.yml").write_text("""\
name: signs
task: image_object_detection
classes: [0, 1, {name: "2", key: t, colour: "#ff8800"}]
overlap: 2
lease: PT10M
annotators: [ana, ben]
reviewers: [rita]
source: {folder: images, pattern: "**/*.jpg"}
sampling: {strategy: uncertainty, measure: margin}
model: {name: models:/dev.signs@champion, refresh: 50, min_score: 0.3}
review: {agreement: 0.9, iou: 0.7, share: 0.1}
gold: {every: 10, least: 0.8}
""")
    project = load_project(tmp_path / "p.yml")
    assert project.names == ["0", "1", "2"]  # numbers are names, too
    assert project.classes[2].colour == "#ff8800"
    assert project.lease == dt.timedelta(minutes=10)
    assert (project.review.iou, project.gold.every, project.model.refresh) == (0.7, 10, 50)


def test_every_fault_is_told_with_its_line(tmp_path):
    text = "name: my signs\ntask: image_boxes\nclasses: []\noverlap: 0\nsource: {folder: a, queue: b}\nsample: random\n"
    found = faults(tmp_path, text)
    assert [fault.split(":")[1] for fault in sorted(found)] == ["1", "2", "4", "5", "6"]
    assert any("folder and queue: one source is expected" in fault for fault in found)


TOGETHER = {
    "a name twice": ("classes: [a, a]", "classes: 'a' stands here twice"),
    "a key twice": ("classes: [{name: a, key: x}, {name: b, key: x}]", "key 'x' is given twice"),
    "relation of no class": ("classes: [a]\nrelations: [{name: r, head: [b]}]", "relation r: no class 'b'"),
    "only one who reviews himself": ("classes: [a]\nannotators: [ana]\nreviewers: [ana]", "ana cannot review what only ana labels"),
}


@pytest.mark.parametrize(("text", "message"), TOGETHER.values(), ids=TOGETHER)
def test_what_does_not_go_together_is_refused(tmp_path, text, message):
    assert message in "; ".join(faults(tmp_path, f"name: p\ntask: image_classification\n{text}\n"))


def test_key_points_need_names_and_their_skeleton_ends_that_exist(tmp_path):
    found = faults(tmp_path, "name: p\ntask: image_keypoints\nclasses: [hand, {name: arm, keypoints: [tip], skeleton: [[0, 1]]}]\n")
    assert "class hand: name its keypoints" in found[0]
    assert "class arm: no keypoint 1" in found[0]


def test_the_deployments_that_are_compared_are_two(tmp_path):
    found = faults(tmp_path, "name: p\ntask: text_ranking\nsource: {endpoint: chat, deployments: [blue]}\n")
    assert "endpoint: name two of its deployments" in found[0]
