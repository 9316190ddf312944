"""Plans: what need not run is not run, and the reason is said."""

import os
import time

import pytest

from mlops_nb.core.fingerprint import modules, packages
from mlops_nb.core.pipeline import run_pipeline
from mlops_nb.core.plan import Request, accept_results, plan_pipeline
from mlops_nb.core.runs import list_runs


def actions(*arguments) -> dict[str, str]:
    return {decision.step: decision.action for decision in plan_pipeline(*arguments)}


def reasons(step: str, *arguments) -> str:
    return "; ".join(next(d for d in plan_pipeline(*arguments) if d.step == step).reasons)


@pytest.fixture
def ran(project, shop):
    """A scenario of two steps that has been run with five rows."""
    pipeline = shop("import helper\nprint(open(gold).read(), helper.WORD)")
    (project.root / "helper.py").write_text("import words\nWORD = words.WORD")
    (project.root / "words.py").write_text("WORD = 'hello'")
    run_pipeline(project, pipeline, {"rows": "5"})
    return pipeline


def test_nothing_changed_means_nothing_is_run(project, ran):
    assert actions(project, ran, {"rows": "5"}) == {"data": "skip", "train": "skip"}
    again = run_pipeline(project, ran, {"rows": "5"})
    assert [run.id for run in list_runs(project)] == [again.id]


def test_every_cause_is_noticed_and_named(project, ran, monkeypatch):
    assert "parameter rows: 5 -> 6" in reasons("data", project, ran, {"rows": "6"})
    assert actions(project, ran, {"rows": "6"})["train"] == "open"

    (project.root / "words.py").write_text("WORD = 'good morning'")  # imported by what the notebook imports
    assert reasons("train", project, ran, {"rows": "5"}) == "module words.py: changed"

    (project.root / "words.py").write_text("WORD = 'hello'")
    source = project.root / "nbs/scenarios/shop/20_train.ipynb"
    source.write_text(source.read_text().replace("print(open", "print(1, open"))
    assert reasons("train", project, ran, {"rows": "5"}) == "code of the notebook: changed"

    monkeypatch.setattr("sys.version", "3.99.0 (a newer Python)")
    assert "packages: changed" in reasons("data", project, ran, {"rows": "5"})


def test_installed_packages_count_by_their_versions_wherever_they_lie(tmp_path, monkeypatch):
    place = tmp_path / "elsewhere" / "site-packages"
    (place / "borrowed").mkdir(parents=True)
    (place / "borrowed" / "__init__.py").write_text("import pandas")
    (place / "borrowed-1.2.dist-info").mkdir()
    monkeypatch.syspath_prepend(place)
    assert modules("import borrowed", [tmp_path]) == []
    assert packages()["borrowed"] == "1.2"


def test_prose_touches_and_outputs_are_no_causes(project, ran):
    source = project.root / "nbs/scenarios/shop/20_train.ipynb"
    source.write_text(source.read_text().replace("# 20_train", "# Train it"))
    os.utime(project.root / "words.py", (time.time() + 60,) * 2)
    assert actions(project, ran, {"rows": "5"}) == {"data": "skip", "train": "skip"}


def test_the_content_of_a_named_file_is_a_cause(project, lay):
    jobs = '  data: {component: ../components/shop_10_data.yml, inputs: {prices: "${{parent.inputs.prices}}"}}\n'
    pipeline = lay(jobs, inputs="{prices: prices.csv}", _10_data=("prices: str = ''", "print(open(prices).read())"))
    (project.root / "prices.csv").write_text("price\n1\n")
    run_pipeline(project, pipeline, {})
    assert actions(project, pipeline, {}) == {"data": "skip"}
    (project.root / "prices.csv").write_text("price\n2\n")
    assert reasons("data", project, pipeline, {}) == "content of prices: changed"


def test_going_back_to_earlier_values_finds_the_earlier_result(project, ran):
    five = list_runs(project)[0]
    six = run_pipeline(project, ran, {"rows": "6"})
    assert six.id != five.id
    assert run_pipeline(project, ran, {"rows": "5"}).id == five.id
    assert six.output("data", "gold").read_text() == "6"


def test_a_step_whose_inputs_come_out_the_same_is_skipped_after_all(project, shop):
    pipeline = shop("print(open(gold).read())")
    run_pipeline(project, pipeline, {})
    source = project.root / "nbs/scenarios/shop/10_data.ipynb"
    source.write_text(source.read_text().replace("str(rows)", "f'{rows}'"))
    run = run_pipeline(project, pipeline, {})
    assert run.steps == {"data": "done", "train": "skipped"}
    assert run.notebooks["train"].is_file()


def test_a_lost_output_is_made_again(project, ran):
    list_runs(project)[0].output("data", "gold").unlink()
    assert reasons("data", project, ran, {"rows": "5"}) == "its output is no longer there"


def test_a_non_deterministic_step_always_runs(project, shop):
    pipeline = shop("print(open(gold).read())")
    component = project.root / "ci/components/shop_20_train.yml"
    component.write_text(component.read_text() + "is_deterministic: false\n")
    from mlops_nb.core.specification import read_pipeline

    pipeline = read_pipeline(pipeline.path)
    run_pipeline(project, pipeline, {})
    assert actions(project, pipeline, {}) == {"data": "skip", "train": "run"}
    assert "is_deterministic" in reasons("train", project, pipeline, {})


def test_force_until_from_and_only_say_what_runs(project, ran):
    values = {"rows": "5"}
    assert actions(project, ran, values, Request(force=True)) == {"data": "run", "train": "run"}
    assert actions(project, ran, values, Request(start="train")) == {"train": "run"}
    assert actions(project, ran, values, Request(only="data")) == {"data": "run"}
    assert actions(project, ran, {"rows": "7"}, Request(until="data")) == {"data": "run"}


def test_a_run_until_a_step_goes_on_later(project, ran):
    part = run_pipeline(project, ran, {"rows": "7"}, Request(until="data"))
    assert part.state == "partial"
    whole = run_pipeline(project, ran, {"rows": "7"})
    assert (whole.id, whole.state, whole.steps) == (part.id, "done", {"data": "done", "train": "done"})


def test_accepting_marks_results_as_current_without_running(project, ran):
    (project.root / "words.py").write_text("WORD = 'hello'  # a word")
    assert actions(project, ran, {"rows": "5"})["train"] == "run"
    assert accept_results(project, ran, {"rows": "5"}) == ["train"]
    assert actions(project, ran, {"rows": "5"}) == {"data": "skip", "train": "skip"}


def test_the_command_line_explains_and_changes_nothing(project, ran, mlops_nb_command):
    shown = mlops_nb_command("run", "shop", "-p", "rows=6", "--dry-run")
    assert shown.rc == 0
    assert "parameter rows: 5 -> 6" in shown.stdout
    why = mlops_nb_command("run", "shop", "-p", "rows=6", "--why", "train")
    assert "after data" in why.stdout
    wrong = mlops_nb_command("run", "shop", "--why", "deploy")
    assert (wrong.rc, "no step 'deploy'" in wrong.stderr) == (2, True)
    assert len(list_runs(project)) == 1
