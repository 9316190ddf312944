"""A scenario's pipeline goes to Azure ML as it is, or not at all."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlops_nb.azure import connect, find_workspace, prepare, submit
from mlops_nb.core import ledger
from mlops_nb.core.records import SpecificationError
from mlops_nb.core.runs import find_run
from mlops_nb.core.settings import Settings, load_settings
from mlops_nb.core.specification import Pipeline, read_pipeline


@pytest.fixture
def classical(shop: Settings) -> Pipeline:
    return read_pipeline(shop.root / "ci/pipelines/classical.yml")


def job(cloud: Any) -> Any:
    """Return what was sent of the one job."""
    [body] = cloud.bodies("/jobs/")
    return body["properties"]


def test_a_run_is_the_pipeline_file_with_this_runs_values(shop: Settings, client: Any, cloud: Any, classical: Pipeline) -> None:
    before = classical.path.read_bytes()
    submit(shop, client, classical, {"environment": "dev", "target": "carat", "budget_trials": "5"})
    sent = job(cloud)
    assert list(sent["jobs"]) == ["data", "train", "stage", "deploy", "monitor"]
    assert sent["inputs"]["target"] == {"jobInputType": "literal", "value": "carat"}
    assert sent["inputs"]["budget_trials"]["value"] == "5"
    assert sent["inputs"]["outlier_limit"]["value"] == "4.0", "the file's own"
    assert classical.path.read_bytes() == before


def test_the_run_is_known_here_by_the_name_it_has_there(shop: Settings, client: Any, cloud: Any, classical: Pipeline) -> None:
    run = submit(shop, client, classical, {"environment": "dev"})
    [address] = [sent.path for sent in cloud.written() if "/jobs/" in sent.path]
    assert address.endswith(f"/jobs/{run.id}")
    assert find_run(shop).id == run.id
    assert (run.backend, run.state, run.environment, run.user) == ("azure", "running", "dev", "ada")
    assert run.needs == {"data": [], "train": ["data"], "stage": ["data", "train"], "deploy": ["stage"], "monitor": ["deploy"]}
    [entry] = ledger.entries(shop, action="submit")
    assert (entry.subject, entry.details["workspace"]) == (f"run:{run.id}", "workspace:mlops-nb-dev/mlops-nb-dev")


def test_an_empty_value_leaves_the_notebooks_default(shop: Settings, client: Any, cloud: Any, classical: Pipeline) -> None:
    submit(shop, client, classical, {"environment": "dev", "group": "cut"})
    sent = job(cloud)
    bound = {
        value["value"].removeprefix("${{parent.inputs.").removesuffix("}}")
        for node in sent["jobs"].values()
        for value in node["inputs"].values()
        if value["value"].startswith("${{parent.inputs.")
    }
    assert bound == set(sent["inputs"]), "every input that a step is bound to is there"
    assert "group" in sent["inputs"]
    assert "production" not in sent["inputs"]


def test_the_notebooks_there_know_who_acts_where(shop: Settings, client: Any, cloud: Any, classical: Pipeline) -> None:
    submit(shop, client, classical)
    told = job(cloud)["jobs"]["deploy"]["environment_variables"]
    assert told["MLOPS_NB_ENVIRONMENT"] == "dev"
    assert told["MLOPS_NB_USER"] == "ada"
    assert told["MLOPS_NB_PERSONA"] == "data_scientist"


def test_a_missing_image_is_registered_once_and_first(shop: Settings, client: Any, cloud: Any, classical: Pipeline) -> None:
    for _ in range(2):
        submit(shop, client, classical)
    written = [sent.path for sent in cloud.written()]
    image = [path for path in written if path.endswith("/environments/mlops-nb-training/versions/1")]
    assert len(image) == 1
    assert written.index(image[0]) == 0
    components = [sent.body for sent in cloud.written() if "/components/" in sent.path]
    assert components[0]["properties"]["componentSpec"]["environment"].endswith("/environments/mlops-nb-training/versions/1")


def test_what_stays_here_is_not_sent_along(shop: Settings, client: Any, cloud: Any, classical: Pipeline) -> None:
    for name in (".git/config", ".mlops/own", "my-env/pyvenv.cfg", "my-env/lib/large.bin", "notes.txt", "src/own.py"):
        (shop.root / name).parent.mkdir(parents=True, exist_ok=True)
        (shop.root / name).write_text(name)
    (shop.root / ".amlignore").write_text("notes.txt\n")
    submit(shop, client, classical)
    sent = {name.partition(f"{shop.root.name}/")[2] for name in cloud.blobs}
    assert {"settings.ini", "nbs/scenarios/classical/20_train.ipynb", "ci/pipelines/classical.yml", "src/own.py"} < sent
    assert not [name for name in sent if name.startswith((".git/", ".mlops", "my-env", "notes"))]


def test_all_steps_share_one_code(shop: Settings, client: Any, cloud: Any, classical: Pipeline) -> None:
    submit(shop, client, classical)
    codes = {sent.body["properties"]["componentSpec"]["code"] for sent in cloud.written() if "/components/" in sent.path}
    assert len(codes) == 1
    before = len(cloud.blobs)
    (shop.root / "settings.ini").touch()
    submit(shop, client, classical)
    assert len(cloud.blobs) == before, "unchanged code is not sent again"


def test_data_is_uploaded(shop: Settings, client: Any, cloud: Any) -> None:
    path = shop.root / "ci/pipelines/again.yml"
    path.write_text(
        "type: pipeline\nsettings: {default_compute: 'azureml:cpu-cluster'}\ninputs: {gold: ''}\njobs:\n  train:\n    type: command\n"
        "    component: ../components/classical_20_train.yml\n    inputs: {gold: '${{parent.inputs.gold}}'}\n"
    )
    Path("gold.json").write_text('{"name": "diamonds"}')
    submit(shop, client, read_pipeline(path), {"gold": "gold.json"})
    sent = job(cloud)["inputs"]["gold"]
    assert sent["jobInputType"] == "uri_file"
    assert sent["uri"].startswith("azureml://")
    [stored] = [data for name, (data, _) in cloud.blobs.items() if sent["uri"].endswith(name.removeprefix("/azureml/"))]
    assert stored == b'{"name": "diamonds"}'


def test_a_sweep_is_sent_as_one(shop: Settings, client: Any, cloud: Any) -> None:
    path = shop.root / "ci/pipelines/search.yml"
    path.write_text("""
type: pipeline
settings: {default_compute: "azureml:cpu-cluster"}
inputs: {environment: dev, group: ""}
jobs:
  train:
    type: sweep
    trial: ../components/classical_20_train.yml
    inputs: {environment: "${{parent.inputs.environment}}", group: "${{parent.inputs.group}}"}
    search_space: {seed: {type: choice, values: [1, 2, 3]}}
    sampling_algorithm: grid
    objective: {goal: minimize, primary_metric: rmse}
    limits: {max_total_trials: 3, max_concurrent_trials: 3}
""")
    run = submit(shop, client, read_pipeline(path), {"environment": "dev"})
    node = job(cloud)["jobs"]["train"]
    assert node["type"] == "sweep"
    assert node["search_space"] == {"seed": {"type": "choice", "values": [1, 2, 3]}}
    assert list(node["inputs"]) == ["environment"]
    assert run.planned == ["train"]


def test_looking_sends_nothing(shop: Settings, client: Any, cloud: Any, classical: Pipeline) -> None:
    plan = prepare(shop, client, classical, {"environment": "dev"})
    assert [path.name for path in plan.images] == ["training.yml"]
    assert plan.workspace.name == "mlops-nb-dev"
    assert cloud.written() == []
    assert cloud.blobs == {}


def test_everything_that_is_missing_is_told_before_anything_is_sent(
    shop: Settings, client: Any, cloud: Any, classical: Pipeline
) -> None:
    text = classical.path.read_text().replace("azureml:cpu-cluster", "azureml:gpu-cluster")
    classical.path.write_text(text)
    component = shop.root / "ci/components/classical_20_train.yml"
    component.write_text(component.read_text().replace("mlops-nb-training@latest", "mlops-nb-training:7"))
    with pytest.raises(SpecificationError) as raised:
        submit(shop, client, read_pipeline(classical.path))
    compute, image = raised.value.faults
    assert "no compute 'gpu-cluster' in workspace 'mlops-nb-dev'" in compute
    assert "mlops-nb azure apply" in compute
    assert "No environment 'mlops-nb-training:7'" in image
    assert cloud.written() == []


def test_a_wrong_value_is_refused_before_azure_is_asked(shop: Settings, client: Any, cloud: Any, classical: Pipeline) -> None:
    with pytest.raises(SpecificationError) as raised:
        submit(shop, client, classical, {"tarqet": "carat", "budget_trials": "many"})
    assert len(raised.value.faults) == 2
    assert cloud.sent == []


def test_a_workspace_that_is_not_there_is_named(shop: Settings, client: Any, cloud: Any, classical: Pipeline) -> None:
    cloud.resources.clear()
    with pytest.raises(SpecificationError, match=r"No workspace 'mlops-nb-dev' in resource group 'mlops-nb-dev'"):
        submit(shop, client, classical)


def test_who_may_not_train_may_not_submit(shop: Settings, cloud: Any, client: Any, classical: Pipeline) -> None:
    with pytest.raises(PermissionError, match="data_scientist may not train in prod"):
        submit(load_settings("prod", persona="data_scientist"), client, classical)
    assert cloud.sent == []


def test_a_role_that_azure_does_not_give_is_told_as_such(shop: Settings, client: Any, cloud: Any, classical: Pipeline) -> None:
    cloud.refuses["/jobs/"] = 403
    with pytest.raises(PermissionError, match="Azure does not let you"):
        submit(shop, client, classical)


def test_nobody_signed_in(shop: Settings, cloud: Any, classical: Pipeline) -> None:
    from azure.core.exceptions import ClientAuthenticationError

    class Nobody:
        def get_token(self, *scopes: str, **options: Any) -> Any:
            raise ClientAuthenticationError("no account")

    with pytest.raises(SpecificationError, match=r"az login"):
        submit(shop, connect(shop, Nobody()), classical)


def test_the_subscription_stands_in_a_variable_or_in_azures_own_file(shop: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    config = shop.root / "environments/dev/config.json"
    config.rename(shop.root / "config.json")
    assert find_workspace(shop).subscription.startswith("1111")
    monkeypatch.setenv("AZURE_SUBSCRIPTION_ID", "9999")
    assert find_workspace(shop).subscription == "9999"


def test_another_workspaces_file_says_nothing(shop: Settings) -> None:
    config = shop.root / "environments/dev/config.json"
    config.write_text(json.dumps({"subscription_id": "7", "workspace_name": "somebody else's"}))
    (shop.root / "environments/dev/workspace.yml").write_text("name: mine\n")
    with pytest.raises(SpecificationError) as raised:
        find_workspace(shop)
    no_group, no_subscription = raised.value.faults
    assert "no `resource_group:`" in no_group
    assert "AZURE_SUBSCRIPTION_ID" in no_subscription


def test_the_command_refuses_before_it_loads_the_sdk(shop: Settings, mlops_nb_command: Callable[..., Any]) -> None:
    (shop.root / "environments/dev/config.json").unlink()
    done = mlops_nb_command("azure", "submit", "classical", AZURE_SUBSCRIPTION_ID="")
    assert done.rc == 2
    assert "No Azure subscription for dev" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_shows_what_it_would_send(shop: Settings, cloud: Any, signed_in: None, command: Callable[..., Any]) -> None:
    ended = command("azure", "submit", "classical", "-p", "target=carat", "--dry-run")
    assert ended.rc == 0, ended.stderr
    assert "classical_40_deploy.yml" in ended.stdout
    assert [line.split() for line in ended.stdout.splitlines() if line.startswith("target")] == [["target", "carat"]]
    assert "environments/images/training.yml" in ended.stdout
    assert cloud.written() == []
