"""The generated manifests: valid by Kubernetes' own schemas, sound by checkov, and the Azure ML files by Azure ML's own SDK."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from mlops_nb.core.records import SpecificationError
from mlops_nb.core.settings import Settings
from mlops_nb.hosting.kubernetes import TMP, Cluster, write_kubernetes
from mlops_nb.scoring.config import Config

ROOT = Path(__file__).resolve().parents[2]
CHECKOV = shutil.which("checkov", path=f"{ROOT / '.venv/tools/bin'}:{os.environ['PATH']}")
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
BLUE, GREEN, FRONT = (
    f"registry.example.com/{name}@sha256:{digit * 64}"
    for name, digit in (("blue", "1"), ("green", "2"), ("nginx", "3"))
)
CLUSTER = Cluster({"blue": BLUE, "green": GREEN}, FRONT, namespace="models", entrance="ingress")
Objects = dict[tuple[str, str], dict[str, Any]]  # (kind, name) -> object


def read(folder: Path) -> Objects:
    documents = list(yaml.safe_load_all((folder / "manifests.yml").read_text()))
    return {(one["kind"], one["metadata"]["name"]): one for one in documents}


def pod(objects: Objects, name: str) -> Any:
    return objects["Deployment", name]["spec"]["template"]["spec"]


@pytest.fixture
def made(project: Settings, lay_endpoint: Callable[..., Any], tmp_path: Path) -> Objects:
    """The manifests of two deployments, with traffic as the local endpoint has it."""
    lay_endpoint(project, mirror_traffic={"green": 10})
    write_kubernetes(project, "diamonds", tmp_path / "out", CLUSTER)
    return read(tmp_path / "out")


@pytest.fixture
def scaled(project: Settings) -> Path:
    """A deployment's file with everything in it that a manifest follows."""
    path = project.root / "environments/dev/deployment.yml"
    path.write_text(
        path.read_text()
        + "environment_variables: {GREETING: hello}\negress_public_network_access: disabled\n"
        + "scale_settings: {type: target_utilization, min_instances: 2, max_instances: 6, target_utilization_percentage: 55}\n"
        + "liveness_probe: {initial_delay: 3, period: 4, timeout: 5, success_threshold: 2, failure_threshold: 6}\n"
        + "resources: {requests: {cpu: 500m, memory: 1Gi}, limits: {cpu: '2', memory: 2Gi, nvidia.com/gpu: '1'}}\n"
    )
    return path


def test_kubernetes_takes_them(made: Objects, scaled: Path, project: Settings, tmp_path: Path) -> None:
    validate = pytest.importorskip("kubernetes_validate").validate
    write_kubernetes(project, "diamonds", tmp_path / "scaled", CLUSTER)
    everything = [*made.values(), *read(tmp_path / "scaled").values()]
    for one in everything:
        validate(one, "1.30", strict=True)
        validate(one, "1.34", strict=True)
    assert {one["kind"] for one in everything} == {
        "Namespace", "ServiceAccount", "Deployment", "Service", "NetworkPolicy", "PodDisruptionBudget", "HorizontalPodAutoscaler",
        "ConfigMap"}  # fmt: skip
    made["Deployment", "diamonds-blue"]["spec"]["replica"] = 1
    with pytest.raises(Exception, match="replica"):  # strict: a word too many is told
        validate(made["Deployment", "diamonds-blue"], "1.30", strict=True)


def test_a_deployment_is_what_its_file_says(made: Objects, scaled: Path, project: Settings, tmp_path: Path) -> None:
    blue = pod(made, "diamonds-blue")["containers"][0]
    assert made["Deployment", "diamonds-blue"]["spec"]["replicas"] == 1
    assert (blue["image"], pod(made, "diamonds-green")["containers"][0]["image"]) == (BLUE, GREEN)
    assert blue["resources"]["limits"] == {"cpu": "2", "memory": "7168Mi"}  # Standard_DS2_v2
    assert blue["livenessProbe"]["httpGet"] == {"path": "/health", "port": "http"}
    assert blue["ports"][0]["containerPort"] == 5001
    write_kubernetes(project, "diamonds", tmp_path / "scaled", CLUSTER)
    found = read(tmp_path / "scaled")
    blue = pod(found, "diamonds-blue")["containers"][0]
    assert blue["resources"]["requests"] == {"cpu": "500m", "memory": "1Gi"}
    assert blue["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {"name": "GREETING", "value": "hello"} in blue["env"]
    assert [
        blue["livenessProbe"][key]
        for key in ("initialDelaySeconds", "periodSeconds", "timeoutSeconds", "failureThreshold")
    ] == [3, 4, 5, 6]
    assert blue["livenessProbe"]["successThreshold"] == 1  # Kubernetes takes no other
    scaler = found["HorizontalPodAutoscaler", "diamonds-blue"]["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 6)
    assert scaler["metrics"][0]["resource"]["target"]["averageUtilization"] == 55
    assert "replicas" not in found["Deployment", "diamonds-blue"]["spec"]  # the autoscaler's number is its own
    assert found["NetworkPolicy", "diamonds-blue"]["spec"]["egress"] == []


def test_the_container_is_told_what_our_own_host_tells_a_worker(
    made: Objects, project: Settings, tmp_path: Path
) -> None:
    container = pod(made, "diamonds-blue")["containers"][0]
    variables = {one["name"]: one.get("value") for one in container["env"]}
    config = Config.of(json.loads(made["ConfigMap", "diamonds-blue"]["data"]["config.json"]))
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert variables["MLOPS_NB_SERVE"] == mounts["config"]["mountPath"] + "/config.json"
    assert config.socket == f"tcp:0.0.0.0:{container['ports'][0]['containerPort']}"
    assert (config.wish.model, config.wish.timeout_ms, config.wish.max_concurrent) == ("model:dev.diamonds/1", 5000, 32)
    assert config.wish.collector["collections"] == {"model_inputs": 1.0, "model_outputs": 1.0}
    assert config.wish.collected == mounts["collected"]["mountPath"]
    assert mounts["collected"]["subPathExpr"] == "$(POD_NAME)"  # files of two pods never meet
    context = pytest.importorskip("mlops_nb.packaging.context")
    assert config.wish.path == f"{context.PLACE}/model"  # where the image has it
    assert container["ports"][0]["containerPort"] == context.PORT
    write_kubernetes(project, "diamonds", tmp_path / "kept", replace(CLUSTER, claim="records"))
    kept = pod(read(tmp_path / "kept"), "diamonds-blue")["volumes"]
    assert {"name": "collected", "persistentVolumeClaim": {"claimName": "records"}} in kept


def test_a_pod_may_do_little(made: Objects) -> None:
    for name in ("diamonds-blue", "diamonds-green", "diamonds-front"):
        spec = pod(made, name)
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        [container] = spec["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert made["PodDisruptionBudget", name]["spec"]["maxUnavailable"] == 1
    assert made["Namespace", "models"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_requests_come_in_by_one_door(made: Objects) -> None:
    front, blue = (made["NetworkPolicy", f"diamonds-{name}"]["spec"] for name in ("front", "blue"))
    assert front["ingress"][0]["from"] == [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}
    ]
    [source] = blue["ingress"][0]["from"]
    labels = made["Deployment", "diamonds-front"]["spec"]["template"]["metadata"]["labels"]
    assert source["podSelector"]["matchLabels"].items() <= labels.items()
    for service, deployment in (("diamonds", "diamonds-front"), ("diamonds-blue", "diamonds-blue")):
        selector = made["Service", service]["spec"]["selector"]
        assert selector.items() <= made["Deployment", deployment]["spec"]["template"]["metadata"]["labels"].items()


@pytest.mark.skipif(NGINX is None, reason="no nginx: apt-get install nginx-light")
def test_the_front_is_an_nginx_that_starts_and_splits(made: Objects, tmp_path: Path) -> None:
    """The front's own files, with the cluster's names and places put as they are on this machine."""
    ports: list[int] = []
    for _ in range(3):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    here = {
        f'"{TMP}/': f'"{tmp_path}/',
        "diamonds-blue:5001": f"127.0.0.1:{ports[1]}",
        "diamonds-green:5001": f"127.0.0.1:{ports[2]}",
        "listen 8080": f"listen 127.0.0.1:{ports[0]}",
        "/etc/mlops-nb/nginx/": f"{tmp_path}/",
        "/etc/mlops-nb/keys/": f"{tmp_path}/out/",
        "/dev/stdout": f"{tmp_path}/log",
    }
    for name, text in made["ConfigMap", "diamonds-front"]["data"].items():
        for there, place in here.items():
            assert there in "".join(made["ConfigMap", "diamonds-front"]["data"].values())
            text = text.replace(there, place)
        (tmp_path / name).write_text(text)
    command = [
        word.replace(f"{TMP}/", f"{tmp_path}/") for word in pod(made, "diamonds-front")["containers"][0]["command"]
    ]
    command = [word.replace("/etc/mlops-nb/nginx/", f"{tmp_path}/") for word in [str(NGINX), *command[1:]]]
    deployments = [subprocess.Popen([sys.executable, "-m", "http.server", str(port), "-b", "127.0.0.1", "-d", tmp_path / "out"],
                                    stderr=subprocess.DEVNULL) for port in ports[1:]]  # fmt: skip
    front = subprocess.Popen(command)
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                answer = requests.get(
                    f"http://127.0.0.1:{ports[0]}/version", headers={"authorization": "Bearer p1"}, timeout=60
                )
                if answer.status_code == 404:  # a file server's own: the request has arrived there
                    break
            except requests.ConnectionError:
                time.sleep(0.05)
        assert "File not found" in answer.text
        assert requests.get(f"http://127.0.0.1:{ports[0]}/version", timeout=60).status_code == 401
    finally:
        for process in (front, *deployments):
            process.terminate()
            process.wait(60)
    shares = made["ConfigMap", "diamonds-front"]["data"]["endpoint.conf"]
    assert "20% green;\n    * blue;" in shares
    assert "10% green;" in shares


def test_other_shares_are_another_front(
    made: Objects, project: Settings, lay_endpoint: Callable[..., Any], tmp_path: Path
) -> None:
    def seal(objects: Objects) -> str:
        return objects["Deployment", "diamonds-front"]["spec"]["template"]["metadata"]["annotations"][
            "mlops-nb/configuration"
        ]

    write_kubernetes(project, "diamonds", tmp_path / "same", CLUSTER)
    assert (tmp_path / "same/manifests.yml").read_text() == (tmp_path / "out/manifests.yml").read_text()
    lay_endpoint(project, traffic={"green": 100})
    write_kubernetes(project, "diamonds", tmp_path / "other", CLUSTER)
    assert seal(read(tmp_path / "other")) != seal(made)


def test_no_key_stands_in_a_manifest(made: Objects, tmp_path: Path) -> None:
    assert "secret" in pod(made, "diamonds-front")["volumes"][1]
    assert "p1" not in (tmp_path / "out/manifests.yml").read_text().replace("sha256", "")
    assert "p1" in (tmp_path / "out/keys.conf").read_text()
    assert (tmp_path / "out/keys.conf").stat().st_mode & 0o777 == 0o600
    assert "kubectl create secret generic diamonds-keys -n models" in (tmp_path / "out/manifests.yml").read_text()


def test_what_is_missing_is_told_at_once(project: Settings, lay_endpoint: Callable[..., Any], tmp_path: Path) -> None:
    lay_endpoint(project)
    with pytest.raises(SpecificationError) as wrong:
        write_kubernetes(project, "diamonds", tmp_path, Cluster({"blue": "blue:latest"}))
    told = str(wrong.value)
    assert "green: no image" in told
    assert "blue:latest: an image by its digest is expected" in told
    assert "--front-image" in told
    file = project.root / "environments/dev/deployment.yml"
    file.write_text(file.read_text().replace("Standard_DS2_v2", "Standard_ND96"))
    with pytest.raises(SpecificationError, match="'Standard_ND96' is not in our table"):
        write_kubernetes(project, "diamonds", tmp_path, CLUSTER)
    with pytest.raises(SpecificationError, match="Nothing to generate"):
        write_kubernetes(project, "diamonds", tmp_path)


def test_what_cannot_be_a_name_in_a_cluster_is_refused(
    project: Settings, lay_endpoint: Callable[..., Any], tmp_path: Path
) -> None:
    wish = lay_endpoint(project)["deployments"]["blue"]
    lay_endpoint(project, deployments={"front": wish, "Blue": wish, "blue": wish, "last-": wish}, traffic={"gone": 100})
    with pytest.raises(SpecificationError) as wrong:
        write_kubernetes(project, "diamonds", tmp_path, CLUSTER)
    assert len(str(wrong.value).splitlines()) == 4


@pytest.mark.slow
@pytest.mark.skipif(CHECKOV is None, reason="no checkov in .venv/tools/bin or on the path")
def test_checkov_finds_nothing(made: Objects, tmp_path: Path) -> None:
    command = [
        str(CHECKOV),
        "-f",
        tmp_path / "out/manifests.yml",
        "--framework",
        "kubernetes",
        "-o",
        "json",
        "--quiet",
        "--compact",
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, env=os.environ | {"BC_SKIP_MAPPING": "TRUE"}
    )
    found = json.loads(done.stdout)
    failed = {
        f"{check['check_id']} {check['resource']}: {check['check_name']}" for check in found["results"]["failed_checks"]
    }
    assert failed == set()
    assert found["summary"]["parsing_errors"] == 0
    assert found["summary"]["passed"] > 100


@pytest.mark.filterwarnings("ignore")
def test_azure_ml_takes_the_files_for_its_own_clusters(
    scaled: Path, project: Settings, lay_endpoint: Callable[..., Any], tmp_path: Path
) -> None:
    import azure.ai.ml as sdk

    lay_endpoint(project)
    write_kubernetes(project, "diamonds", tmp_path, compute="arc-cluster")
    endpoint = sdk.load_online_endpoint(tmp_path / "azure-arc/endpoint.yml")
    assert type(endpoint).__name__ == "KubernetesOnlineEndpoint"
    assert (endpoint.name, str(endpoint.compute).removeprefix("azureml:"), endpoint.auth_mode) == (
        "diamonds",
        "arc-cluster",
        "key",
    )
    assert "blue=80 green=20" in (tmp_path / "azure-arc/endpoint.yml").read_text()  # Azure ML takes it only afterwards
    blue = sdk.load_online_deployment(tmp_path / "azure-arc/blue.yml")
    assert type(blue).__name__ == "KubernetesOnlineDeployment"
    assert (blue.name, blue.endpoint_name, str(blue.model)) == ("blue", "diamonds", "dev.diamonds:1")
    assert blue.environment.conda_file["name"] == "mlops-nb-serving"  # found from the new folder, too
    assert blue.scale_settings.max_instances == 6
    assert blue.resources.limits.cpu == "2"
    assert set(blue.data_collector.collections) == {"model_inputs", "model_outputs"}
    assert blue.request_settings.max_concurrent_requests_per_instance == 32


def test_tokens_are_azures(project: Settings, lay_endpoint: Callable[..., Any], tmp_path: Path) -> None:
    lay_endpoint(project)
    path = project.root / "environments/dev/endpoint.yml"
    path.write_text(path.read_text().replace("auth_mode: key", "auth_mode: aad_token"))
    with pytest.raises(SpecificationError, match="aad_token"):
        write_kubernetes(project, "diamonds", tmp_path, compute="arc")
    with pytest.raises(SpecificationError, match="the front checks keys only"):
        write_kubernetes(project, "diamonds", tmp_path, CLUSTER)
