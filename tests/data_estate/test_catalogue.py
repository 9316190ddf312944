"""The catalogue: what tables there are, and where they came from."""

import pandas as pd
import pytest

from mlops_nb.core.ledger import lineage
from mlops_nb.core.settings import Settings
from mlops_nb.data_estate.catalogue import list_tables, register
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
