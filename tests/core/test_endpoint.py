"""The files of endpoints and deployments: what we read is what Azure ML reads, and every fault has its line."""

from pathlib import Path

import pytest

from mlops_nb.core import endpoint
from mlops_nb.core.records import SpecificationError

ROOT = Path(__file__).resolve().parents[2]


def test_every_fault_of_a_deployment_file_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "deployment.yml"
    file.write_text("name: 1st\nendpoint_name: diamonds\ninstance_count: none\nrequest_settings:\n"
                    "  request_timeout: 5\ndata_collector: {sampling_rate: 2}\n")
    with pytest.raises(SpecificationError) as caught:
        endpoint.load_deployment(file)
    text = "\n".join(caught.value.faults)
    for line, key in [(1, "name"), (3, "instance_count"), (5, "request_settings.request_timeout"),
                      (6, "data_collector.sampling_rate")]:
        assert f"{file}:{line}: {key}:" in text
    assert len(caught.value.faults) == 4


@pytest.mark.parametrize("environment", ["dev", "staging", "prod"])
def test_azure_accepts_the_files_that_we_read(environment: str) -> None:
    from azure.ai.ml import load_environment, load_online_deployment, load_online_endpoint

    folder = ROOT / "environments" / environment
    ours, theirs = endpoint.load_deployment(folder / "deployment.yml"), load_online_deployment(folder / "deployment.yml")
    assert (ours.name, ours.endpoint_name, ours.model) == (theirs.name, theirs.endpoint_name, f"azureml:{theirs.model}")
    assert set(ours.data_collector.rates) == set(theirs.data_collector.collections)
    assert ours.properties == theirs.properties  # Azure ML keeps what only we read
    assert endpoint.load_endpoint(folder / "endpoint.yml").name == load_online_endpoint(folder / "endpoint.yml").name
    lock = (ROOT / "environments" / "lock.txt").read_text()
    for image in ("serving", "training"):
        conda = load_environment(ROOT / "environments" / "images" / f"{image}.yml").conda_file
        pins = [line for line in conda["dependencies"][-1]["pip"] if "==" in line]
        assert [pin for pin in pins if pin not in lock] == []
