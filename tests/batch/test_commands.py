"""`mlops-nb batch`, and the scenario that a schedule starts."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from mlops_nb.cli import main
from mlops_nb.core.endpoint import load_batch_deployment, load_batch_endpoint
from mlops_nb.core.ledger import entries
from mlops_nb.core.schedule import find_schedules
from mlops_nb.outer_loop import batch

from .conftest import ROOT, SCRIPT, STONES, Shop


@pytest.fixture
def command(shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run `mlops-nb batch ...` in the project; returns its exit code and what it printed."""
    monkeypatch.chdir(shop.settings.root)
    monkeypatch.setenv("COLUMNS", "220")

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main(["batch", *map(str, words)])
        return int(end.value.code or 0), *capsys.readouterr()

    return run


def test_deploy_invoke_look(shop: Shop, command: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    STONES.to_csv(tmp_path / "stones.csv", index=False)
    assert command("deploy", "diamonds/1") == (0, "deployment:dev.diamonds-batch/blue has dev.diamonds/1. "
                                                  "To score: mlops-nb batch invoke diamonds-batch --input FOLDER --output FOLDER\n", "")
    code, told, _ = command("invoke", "diamonds-batch", "--input", tmp_path / "stones.csv", "--output", tmp_path / "out",
                            "--format", "parquet", "--workers", 1)
    assert (code, "40 rows of 1 files" in told) == (0, True)
    assert len(pd.read_parquet(tmp_path / "out/predictions.parquet")) == 40
    job = batch.jobs(shop.settings)[-1]
    assert job.id in command("list")[1]
    assert "1 of 1, 0 failed" in command("show", job.id)[1]
    code, told, _ = command("results", job.id, "-n", 2)
    assert (code, told.count("stones.csv"), str(job.result) in told) == (0, 2, True)
    assert [entry.action for entry in entries(shop.settings, "model:dev.diamonds/1")][-2:] == ["deploy", "score"]
    code, _, told = command("invoke", "diamonds-batch", "--input", tmp_path, "--deployment", "green")
    assert (code, "No deployment 'green' in diamonds-batch (there are: blue)." in told) == (2, True)


def test_a_threshold_that_is_passed_is_exit_code_4(shop: Shop, command: Callable[..., tuple[int, str, str]],
                                                   deployment: Callable[..., Path], words: Callable[..., Path]) -> None:
    file = deployment(SCRIPT, error_threshold=0, max_retries=0, mini_batch_size=1)
    code, _, told = command("score", "diamonds/1", words("fine", "fails"), "--file", file)
    assert code == 4
    assert "1 of 2 files failed" in told
    job = batch.jobs(shop.settings)[-1]
    assert "ValueError: cannot read 001.in" in command("show", job.id)[1]
    assert command("cancel", job.id)[0] == 2


def test_an_environment_that_asks_for_approvals_gets_no_unapproved_model(
    command: Callable[..., tuple[int, str, str]], words: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOPS_NB_APPROVAL", "required")
    for asked in (("deploy", "diamonds/1"), ("score", "diamonds/1", words("x"))):
        code, _, told = command(*asked)
        assert (code, "waits for an approval" in told) == (3, True)


@pytest.mark.slow
def test_a_job_can_go_on_without_the_command(shop: Shop, command: Callable[..., tuple[int, str, str]],
                                             deployment: Callable[..., Path], words: Callable[..., Path], tmp_path: Path) -> None:
    file = deployment(SCRIPT, mini_batch_size=1)
    folder = words("waits", *["fine"] * 39)
    code, told, _ = command("score", "diamonds/1", folder, "--file", file, "--workers", 1, "--no-stream")
    job = batch.jobs(shop.settings)[-1]
    assert (code, job.state, "goes on by itself" in told) == (0, "running", True)
    assert command("resume", job.id)[0] == 2  # it has a process
    assert command("cancel", job.id)[0] == 0
    until = time.monotonic() + 60  # the command bears a slow machine for a few seconds only
    while batch.status(shop.settings, job.id).state == "running" and time.monotonic() < until:
        time.sleep(0.05)
    assert batch.status(shop.settings, job.id).state == "stopped"
    (tmp_path / "marks/go").touch()
    assert command("resume", job.id)[0] == 0
    assert batch.status(shop.settings, job.id).rows == 40


@pytest.mark.slow
def test_the_scenario_scores_a_folder_as_its_schedule_would(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = shop.settings.root
    for part in ("ci/pipelines", "ci/components", "nbs/scenarios"):
        shutil.copytree(ROOT / part, root / part, dirs_exist_ok=True)
    [schedule] = find_schedules(shop.settings, ["batch_nightly"])
    assert (schedule.scenario, schedule.values["environment"]) == ("batch", "dev")
    STONES.to_parquet(tmp_path / "stones.parquet")
    monkeypatch.chdir(root)
    with pytest.raises(SystemExit) as end:  # as long as no model is in charge, its gate is closed
        main(["run", "batch", "-p", "version=champion"])
    assert end.value.code == 3
    with pytest.raises(SystemExit) as end:
        main(["run", "batch", "-p", f"data={tmp_path / 'stones.parquet'}", "-p", "version=1"])
    assert not end.value.code
    [found] = (shop.settings.runs).glob("*/**/predictions.csv")
    assert len(pd.read_csv(found)) == len(STONES)


@pytest.mark.parametrize("environment", ["dev", "staging", "prod"])
def test_every_environment_has_its_files(environment: str) -> None:
    folder = ROOT / "environments" / environment
    given = load_batch_deployment(folder / "batch-deployment.yml")
    assert given.endpoint_name == load_batch_endpoint(folder / "batch-endpoint.yml").name
    assert (given.settings.error_threshold == 0) == (environment != "dev")
