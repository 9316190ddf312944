"""The catalogue: what tables there are, and where they came from."""

from pathlib import Path

import pandas as pd
import pytest

from mlops_nb.core.ledger import lineage
from mlops_nb.core.settings import Settings
from mlops_nb.data_estate.catalogue import list_tables, read_asset, read_assets, register
from mlops_nb.data_estate.tables import write_table

STONES = pd.DataFrame({"carat": [0.2, 0.3], "price": [300, 400]})


def test_a_registered_table_is_in_mlflow_and_tied_to_its_source(project: Settings) -> None:
    import mlflow

    table = write_table(project, STONES, "diamonds", "gold", target="price")
    run_id = register(project, table, "stones.csv")
    assert register(project, table, "stones.csv") == run_id
    run = mlflow.get_run(run_id)
    (data,) = [given.dataset for given in run.inputs.dataset_inputs]
    assert (data.name, data.digest) == ("diamonds.gold", table.digest)
    assert run.data.tags["owner"] == project.user
    assert [entry.inputs for entry in lineage(project, table.uri)][-1] == ["source:stones.csv"]
    assert len(lineage(project, table.uri)) == 2  # written and registered, each once


def test_the_newest_version_of_every_table_is_listed(project: Settings) -> None:
    assert list_tables(project).empty
    write_table(project, STONES, "diamonds", "bronze")
    write_table(project, STONES, "diamonds", "gold")
    newest = write_table(project, STONES.head(1), "diamonds", "gold", target="price")
    found = list_tables(project).set_index("layer")
    assert list(found.index) == ["bronze", "gold"]
    assert found.loc["gold", ["version", "rows", "digest"]].tolist() == [1, 1, newest.digest]


def test_who_may_not_register(project: Settings) -> None:
    table = write_table(project, STONES, "diamonds", "gold")
    with pytest.raises(PermissionError, match="model_tester may not register in dev"):
        register(project.model_copy(update={"persona": "model_tester"}), table, "stones.csv")


def test_an_address_of_azure_ml_is_the_table_of_that_name_and_version(project: Settings) -> None:
    write_table(project, STONES, "diamonds", "gold")
    write_table(project, STONES.head(1), "diamonds", "gold")
    write_table(project, STONES, "diamonds", "validation")
    assert len(read_asset(project, "azureml:diamonds:0")) == 2
    assert len(read_asset(project, "azureml:diamonds@latest")) == 1
    assert len(read_asset(project, "azureml:diamonds-validation@latest")) == 2


def test_a_data_asset_file_comes_before_a_table(project: Settings) -> None:
    write_table(project, STONES, "stones", "gold")
    folder = project.root / "environments" / "dev" / "data"
    folder.mkdir(parents=True)
    (folder / "stones.yml").write_text("name: stones\nversion: 1\ntype: mltable\npath: ./sold\n")
    (folder / "sold").mkdir()
    (folder / "sold" / "monday.csv").write_text("carat\n1\n2\n3\n")
    (folder / "sold" / "notes.txt").write_text("not data")
    assert len(read_asset(project, "azureml:stones:1")) == 3


def test_what_is_not_there_is_told_and_the_rest_is_read(project: Settings, tmp_path: Path) -> None:
    (tmp_path / "sold.csv").write_text("carat\n1\n")
    (tmp_path / "empty").mkdir()
    found, missing = read_assets(project, ["./sold.csv", "azureml:emeralds:1", "./empty", "", "./sold.csv"], tmp_path)
    assert list(found) == ["./sold.csv"]
    assert list(missing) == ["azureml:emeralds:1", "./empty"]
    assert "No data in" in missing["./empty"]
