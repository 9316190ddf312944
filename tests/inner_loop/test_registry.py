"""From run to registered version: only the better one, only trusted code, and never a silent change of columns."""

import logging
import os
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from plotnine.data import diamonds

from mlops_nb.core.ledger import entries, lineage
from mlops_nb.core.records import ModelVersion, TableVersion
from mlops_nb.core.settings import Settings, load_settings
from mlops_nb.inner_loop.registry import (
    Comparison,
    check_columns,
    compare,
    full_name,
    load,
    log_run,
    model_version,
    refit,
    register,
    set_alias,
    trusted_types,
)
from mlops_nb.inner_loop.tabular import evaluate, split
from mlops_nb.inner_loop.tuning import tune

ROOT = Path(__file__).resolve().parents[2]
STONES = diamonds.drop_duplicates().astype({"cut": "str", "color": "str", "clarity": "str"})
STONES = STONES[STONES["z"].between(1, 20) & STONES["y"].between(1, 20)].sample(12_000, random_state=0).assign(sold=3)
SHOP = STONES[STONES["carat"] <= 0.8]
GOLD = TableVersion("diamonds", "gold", 0, "f00d", len(SHOP), "dev", "ada", "price")


def train(settings: Settings, rows: pd.DataFrame, family: str, name: str = "diamonds") -> tuple[str, Comparison]:
    kept, held = split(rows, "price")
    tuned = tune(kept, "price", "regression", budget_trials=1, families=[family])
    run_id = log_run(settings, tuned, kept, held, "price", GOLD)
    return run_id, compare(settings, tuned.model, name, held, "price", "regression")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A project whose champion prices small stones."""
    root = tmp_path_factory.mktemp("registry")
    shutil.copy(ROOT / "settings.ini", root)
    shutil.copytree(ROOT / "environments" / "access", root / "environments" / "access")
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    settings = load_settings("dev", root, user="ada")
    first = register(settings, "diamonds", *train(settings, SHOP, "boosting"))
    assert first
    set_alias(settings, first, "champion")
    return settings


@pytest.fixture
def champion(settings: Settings) -> ModelVersion:
    return model_version(settings, "diamonds", 1)


def test_a_run_says_how_the_model_came_about(settings: Settings, champion: ModelVersion) -> None:
    import mlflow

    run = mlflow.get_run(champion.run_id)
    assert run.data.params["family"] == "boosting"
    assert run.data.metrics["holdout.r2"] == champion.metrics["r2"] > 0.95
    assert {"code.commit", "code.dirty", "table", "trained_by"} <= set(run.data.tags)
    assert run.inputs.dataset_inputs[0].dataset.digest == GOLD.digest
    files = {info.path for info in mlflow.MlflowClient().list_artifacts(champion.run_id)}
    assert {"plots", "environment.txt", "trials.csv"} <= files
    assert [entry.action for entry in lineage(settings, champion.uri)] == ["train", "register"]
    assert (champion.name, champion.task, champion.trained_by, champion.table) == ("dev.diamonds", "regression", "ada", GOLD.uri)


def test_a_model_is_loaded_by_version_address_or_alias(settings: Settings, champion: ModelVersion) -> None:
    stones = SHOP.drop(columns="price").head(5)
    answers = [load(settings, model).predict(stones).tolist() for model in (champion, champion.uri, "dev.diamonds@champion")]
    assert answers[0] == answers[1] == answers[2]


def test_the_model_file_is_small_and_promises_doubles(champion: ModelVersion) -> None:
    from mlflow.models import get_model_info

    info = get_model_info(f"models:/{champion.name}/{champion.version}")
    assert {column.name: column.type.name for column in info.signature.inputs}["sold"] == "double"
    assert info.flavors["sklearn"]["serialization_format"] == "skops"


def test_a_worse_model_is_not_registered_and_somebody_is_told(settings: Settings, champion: ModelVersion) -> None:
    run_id, comparison = train(settings, SHOP, "ridge")
    assert comparison.champion == champion
    assert not comparison.better
    assert comparison.margin < 0
    assert register(settings, "diamonds", run_id, comparison) is None
    assert [entry.action for entry in entries(settings, f"run:{run_id}")] == ["train", "reject", "notify"]
    with pytest.raises(FileNotFoundError, match=r"No version '2' of dev\.diamonds"):
        model_version(settings, "diamonds", 2)


def test_an_equal_model_is_not_better(settings: Settings, champion: ModelVersion) -> None:
    _, held = split(SHOP, "price")
    assert not compare(settings, load(settings, champion), "diamonds", held, "price", "regression").better


def test_a_better_model_becomes_the_challenger_and_the_champion_stays(settings: Settings, champion: ModelVersion) -> None:
    run_id, comparison = train(settings, STONES, "boosting")
    assert comparison.champion_metrics["r2"] < 0.5 < 0.97 < comparison.metrics["r2"]
    challenger = register(settings, "diamonds", run_id, comparison)
    assert challenger == model_version(settings, "diamonds", "challenger")
    assert model_version(settings, "diamonds") == champion
    # staging trains it again, on its own rows, and under its own name
    staging = load_settings("staging", settings.root, user="bob", persona="cicd_process")
    assert challenger
    again = refit(staging, challenger, STONES.head(6_000), "price", GOLD)
    assert (again.name, again.trained_by) == ("staging.diamonds", "ada")  # ada may not approve it, whoever ran this
    assert load(staging, again)[-1].get_params() == load(staging, challenger)[-1].get_params()
    assert evaluate(load(staging, again), split(STONES.head(6_000), "price")[1], "price", "regression") == again.metrics


def test_columns_that_changed_are_listed(settings: Settings, champion: ModelVersion) -> None:
    from mlflow.models import get_model_info

    changed = SHOP.drop(columns="x").assign(carat="big", cut=1)
    message = r"(?s)'carat' is str; the model was trained on double.*'cut' is int64.*No column 'x'"
    with pytest.raises(ValueError, match=message):
        refit(settings, champion, changed, "price", GOLD)
    with pytest.raises(ValueError, match=message):  # a new model on new columns cannot be judged against the old one
        train(settings, changed, "ridge")
    signature = get_model_info(f"models:/{champion.name}/{champion.version}").signature
    check_columns(signature, SHOP.astype({"sold": "float64", "table": "int64"}).assign(color=None, other=1))  # no harm


def test_code_that_is_not_trusted_is_neither_logged_nor_loaded(settings: Settings, champion: ModelVersion) -> None:
    import mlflow
    from numpy.testing import assert_equal
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer
    from sklearn.utils import resample

    for function in (os.system, subprocess.run, assert_equal, resample):  # from anywhere, but also numpy's and scikit-learn's
        with pytest.raises(ValueError, match="which is not trusted"):
            trusted_types(make_pipeline(FunctionTransformer(function)))
    # somebody else logged it, and vouches for it
    foreign = make_pipeline(FunctionTransformer(os.getenv))
    for format_ in ({"serialization_format": "skops", "skops_trusted_types": ["os.getenv"]}, {"serialization_format": "cloudpickle"}):
        with mlflow.start_run():
            logged = mlflow.sklearn.log_model(foreign, name="model", pip_requirements=["scikit-learn"], **format_)
        with pytest.raises(ValueError, match=r"not trusted|no scikit-learn model stored as skops"):
            load(settings, logged.model_uri)


def test_what_is_not_there_or_not_allowed(settings: Settings, champion: ModelVersion) -> None:
    with pytest.raises(FileNotFoundError, match=r"No version 'champion' of dev.rubies \(versions: none\)"):
        model_version(settings, "rubies")
    with pytest.raises(FileNotFoundError, match=r"Cannot load models:/dev\.diamonds/99"):
        load(settings, "dev.diamonds/99")
    with pytest.raises(ValueError, match="is no name for a model"):
        full_name(settings, "../diamonds")
    tester = settings.model_copy(update={"persona": "model_tester"})
    with pytest.raises(PermissionError, match="model_tester may not register in dev"):
        set_alias(tester, champion, "champion")
