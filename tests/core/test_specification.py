"""Specifications: whatever could not run is refused with file and line, all of it at once."""

import pytest

from mlops_nb.core.records import SpecificationError
from mlops_nb.core.specification import literal_problem, read_pipeline, read_yaml

DATA = "rows: int = 1\nshare: float = 0.5\ngold: Output = ''"
TRAIN = "gold: Input\nkind: str = 'tree'\nmodel: Output = ''"
JOBS = """\
  data:
    component: ../components/shop_10_data.yml
    inputs:
      rows: ${{parent.inputs.rows}}
  train:
    component: ../components/shop_20_train.yml
    inputs:
      gold: ${{parent.jobs.data.outputs.gold}}
"""


@pytest.fixture
def faults(project, lay):
    """Read the scenario with one line changed; returns what is refused, without the folder."""

    def read(old: str = "", new: str = "", jobs: str = JOBS) -> list[str]:
        assert old in jobs
        try:
            lay(jobs.replace(old, new), _10_data=(DATA, "pass"), _20_train=(TRAIN, "pass"))
        except SpecificationError as problem:
            return [fault.replace(f"{project.root}/ci/pipelines/", "") for fault in problem.faults]
        return []

    return read


def test_a_sound_pipeline_has_no_faults(faults):
    assert faults() == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("parent.inputs.rows", "parent.inputs.row", "shop.yml:7: data.rows: the pipeline has no input 'row' (inputs: rows)."),
        ("jobs.data.outputs", "jobs.dato.outputs", "shop.yml:11: train.gold: no step 'dato' (steps: data, train)."),
        ("outputs.gold", "outputs.silver", "shop.yml:11: train.gold: step data has no output 'silver' (outputs: executed, gold)."),
        ("      rows:", "      row:", "shop.yml:7: data.row: the component has no such input (inputs: rows, share)."),
        ("${{parent.inputs.rows}}", "many", "shop.yml:7: data.rows: 'many' is no integer."),
        ("${{parent.inputs.rows}}", "1.5", "shop.yml:7: data.rows: 1.5 is no integer."),
        ("${{parent.inputs.rows}}", "x-${{parent.inputs.rows}}", "shop.yml:7: data.rows: cannot read x-${{parent.inputs.rows}}."),
        ("shop_20_train.yml", "shop_30_train.yml", "shop.yml:9: train: No file"),
        ("  train:\n", "  train:\n    type: spark\n", "shop.yml:9: train: type spark runs on Azure ML only."),
        ("  train:\n", "  train:\n    limits: {timeout: soon}\n", "shop.yml:9: train: timeout = 'soon': a number"),
        ("  train:\n", "  data:\n", "shop.yml:8: 'jobs.data' stands here a second time."),
    ],
)
def test_what_azures_own_validation_lets_through_is_refused_with_its_line(faults, old, new, fault):
    [found] = faults(old, new)
    assert found.startswith(fault) or found.endswith(fault), found


def test_all_faults_are_told_at_once(faults):
    assert len(faults(jobs=JOBS.replace("inputs.rows", "inputs.row").replace("outputs.gold", "outputs.silver"))) == 2


def test_a_required_input_must_be_bound(project, faults, lay):
    lay(JOBS, _10_data=(DATA, "pass"), _20_train=(TRAIN, "pass"))
    component = project.root / "ci/components/shop_20_train.yml"
    component.write_text(component.read_text().replace("    optional: true\n", ""))
    job = project.root / "ci/pipelines/shop.yml"
    job.write_text(job.read_text().replace("      gold: ${{parent.jobs.data.outputs.gold}}", "      kind: forest"))
    with pytest.raises(SpecificationError, match=r"shop.yml:8: train.gold: required by the component, bound to nothing"):
        read_pipeline(job)


def test_steps_that_wait_for_each_other_are_refused(faults):
    both = JOBS.replace("${{parent.inputs.rows}}", "${{parent.jobs.train.outputs.model}}")
    assert any("the steps wait for each other" in fault for fault in faults(jobs=both))


def test_a_missing_image_is_refused(project, faults):
    image = project.root / "environments/images/training.yml"
    image.write_text("name: mlops-nb-training\nversion: 1\n")
    assert any("neither `image:` nor `build:`" in fault for fault in faults())
    image.unlink()
    assert any("no environment 'mlops-nb-training' in environments/images" in fault for fault in faults())


SWEEP = """\
  tune:
    type: sweep
    trial: ../components/shop_10_data.yml
    sampling_algorithm: grid
    search_space: {rows: {type: choice, values: [1, 2]}}
    objective: {primary_metric: r2, goal: maximize}
"""


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("grid", "guess", "sampling algorithm guess"),
        ("choice", "uniform", "uniform needs min_value, max_value"),
        ("choice, values: [1, 2]", "uniform, min_value: 1, max_value: 2", "a grid is made of choices"),
        ("{rows:", "{row:", "the component has no such input"),
        ("maximize", "best", "needs a goal"),
        ("choice", "normal", "distribution normal"),
    ],
)
def test_a_sweep_that_could_not_run_is_refused(faults, old, new, fault):
    assert faults(jobs=SWEEP) == []
    assert any(fault in found for found in faults(old, new, SWEEP))


@pytest.mark.parametrize(
    ("declared", "good", "bad"),
    [
        ({"type": "integer", "min": 1, "max": 9}, [1, "9", ""], ["a", 1.5, 0, 10, True]),
        ({"type": "number", "min": 0.5}, [0.5, "1e3", 2], ["x", 0.1]),
        ({"type": "boolean"}, [True, "false", "True"], ["yes", 1]),
        ({"type": "string", "enum": ["a", "b"]}, ["a"], ["c"]),
    ],
)
def test_literals_are_checked_as_azure_would_at_run_time(declared, good, bad):
    assert [value for value in good if literal_problem(declared, value)] == []
    assert [value for value in bad if not literal_problem(declared, value)] == []


def test_yaml_that_is_none_is_told_with_its_line(tmp_path):
    (tmp_path / "a.yml").write_text("type: pipeline\njobs: [\n")
    with pytest.raises(SpecificationError, match=r"a\.yml:3"):
        read_yaml(tmp_path / "a.yml")
    (tmp_path / "b.yml").write_text("- one\n")
    with pytest.raises(SpecificationError, match="a mapping is expected"):
        read_yaml(tmp_path / "b.yml")
