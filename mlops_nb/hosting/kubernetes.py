"""The same endpoint on any Kubernetes cluster, as plain manifests from environments/<env>/endpoint.yml and deployment.yml.

An nginx stands before the deployments, with the configuration that `mlops-nb generate nginx` writes: Kubernetes itself splits
traffic by numbers of pods, and by nothing finer.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mlops_nb.core import access, ledger
from mlops_nb.core.endpoint import DeploymentFile, EndpointFile, ProbeSettings, load_deployment, load_endpoint
from mlops_nb.core.records import SpecificationError
from mlops_nb.core.settings import Settings
from mlops_nb.hosting.nginx import Backend, Site, configuration, keys_text, own_configuration
from mlops_nb.hosting.source import Generated, comment, default_folder, write_folder
from mlops_nb.scoring.config import Config, Wish

PORT, FRONT_PORT = 5001, 8080  # of a deployment's container, as Azure ML's own images have it; of the front's
USER = 10001  # who runs in the containers; no image needs to know it
IMAGE, COLLECTED = "/opt/serve", "/var/mlops-nb/collected"  # folders in the container
MAX_BYTES = 10 * 2**20  # of a request's body
TMP = "/tmp"  # noqa: S108 of the container, a volume of its own
DIGEST = r"\S+@sha256:[0-9a-f]{64}"
MACHINES = {  # instance_type -> processors, GiB of memory
    "standard_ds1_v2": (1, 3.5),
    "standard_ds2_v2": (2, 7),
    "standard_ds3_v2": (4, 14),
    "standard_ds4_v2": (8, 28),
    "standard_ds5_v2": (16, 56),
    "standard_f2s_v2": (2, 4),
    "standard_f4s_v2": (4, 8),
    "standard_f8s_v2": (8, 16),
    "standard_f16s_v2": (16, 32),
    "standard_f32s_v2": (32, 64),
    "standard_f48s_v2": (48, 96),
    "standard_f64s_v2": (64, 128),
    "standard_f72s_v2": (72, 144),
    "standard_e2s_v3": (2, 16),
    "standard_e4s_v3": (4, 32),
    "standard_e8s_v3": (8, 64),
    "standard_e16s_v3": (16, 128),
    "standard_e32s_v3": (32, 256),
    "standard_e48s_v3": (48, 384),
    "standard_e64s_v3": (64, 432),
}


@dataclass(frozen=True)
class Cluster:
    """What the specification does not say: where on a cluster, and with which images."""

    images: dict[str, str]  # deployment -> image by digest; "": of all that are not named
    front: str = ""  # image of an nginx that runs without root, by digest
    namespace: str = ""  # empty: the one that `kubectl apply` is told
    entrance: str = ""  # namespace of the ingress controller; empty: requests come from the endpoint's own namespace
    claim: str = ""  # volume claim for the collected data; empty: it ends with the pod
    front_replicas: int = 2


@dataclass(frozen=True)
class Wanted:
    """An endpoint with its deployments, filled in as `mlops-nb deploy` does."""

    environment: str
    endpoint: EndpointFile
    deployments: tuple[DeploymentFile, ...]
    traffic: dict[str, int]
    mirror: dict[str, int] = field(default_factory=dict)
    source: str = ""  # what all this was read from, in words

    def named(self, deployment: str = "") -> str:
        """Name an object in the cluster, whose names have no capitals."""
        return "-".join(filter(None, [self.endpoint.name, deployment])).lower()


def read_wanted(
    settings: Settings,
    endpoint: str,
    files: Iterable[
        Path | str
    ] = (),  # of deployments; none: the local endpoint's deployments in the environment's file
) -> Wanted:
    """Read what is to be hosted: the environment's files, and from the local endpoint, where there is one, who has which traffic."""
    folder = settings.root / "environments" / settings.environment
    about = load_endpoint(folder / "endpoint.yml").model_copy(update={"name": endpoint})
    local = settings.endpoints / endpoint / "endpoint.json"
    given = [load_deployment(path) for path in files]
    source = f"environments/{settings.environment}/endpoint.yml and " + (
        ", ".join(map(str, files)) or "deployment.yml beside it"
    )
    traffic, mirror = about.traffic, about.mirror_traffic
    if not given:
        template = load_deployment(folder / "deployment.yml")
        given = [template]
        if local.is_file():
            state = json.loads(local.read_text())
            source += f", and revision {state['revision']} of the local endpoint's state"
            traffic, mirror = state["traffic"], state.get("mirror_traffic") or {}
            given = [
                template.model_copy(update={"name": name, "model": azure_model(wish["model"])})
                for name, wish in state["deployments"].items()
            ] or given
    if not any(traffic.values()) and len(given) == 1:
        traffic = {given[0].name: 100}
    names = [one.name for one in given]
    faults = [
        f"{name} has traffic, but there is no such deployment (there are: {', '.join(names)})."
        for name in {**traffic, **mirror}
        if name not in names
    ]
    if len({name.lower() for name in names}) < len(names):
        faults.append(
            f"Kubernetes tells no capitals from small letters: {', '.join(names)}. Name the deployments otherwise."
        )
    whole = [f"{endpoint}-{name}".lower() for name in names]
    faults += [
        f"{name}: no name in a cluster. At most 63 letters, digits and hyphens are expected, the last no hyphen."
        for name in [endpoint.lower(), *whole]
        if not re.fullmatch(r"[a-z][a-z0-9-]{,61}[a-z0-9]", name)
    ]
    faults += [
        f"{name}: the {what} has this name already. Name the deployment otherwise."
        for name, what in (("front", "nginx before the deployments"), ("keys", "secret with the keys"))
        if f"{endpoint}-{name}".lower() in whole
    ]
    if faults:
        raise SpecificationError(faults)
    filled = tuple(one.model_copy(update={"endpoint_name": endpoint}) for one in given)
    return Wanted(settings.environment, about, filled, traffic, mirror, source)


def azure_model(uri: str) -> str:
    """Write a model's address as Azure ML does: `model:dev.diamonds/3` is `azureml:dev.diamonds:3`."""
    name, _, version = uri.removeprefix("model:").rpartition("/")
    return f"azureml:{name}:{version}"


def resources_of(one: DeploymentFile) -> dict[str, dict[str, str]]:
    """Say how much a deployment's container asks for, and gets at most; raises `SpecificationError` for an unknown machine."""
    if one.resources:
        given = {
            kind: one.resources.get(kind) or one.resources.get("limits") or one.resources["requests"]
            for kind in ("requests", "limits")
        }
        if missing := [key for key in ("cpu", "memory") if any(key not in part for part in given.values())]:
            raise SpecificationError([f"{one.name}: resources: {' and '.join(missing)} missing."])
        return given
    machine = MACHINES.get(one.instance_type.lower())
    if machine is None:
        raise SpecificationError(
            [
                f"{one.name}: instance_type: '{one.instance_type}' is not in our table ({', '.join(MACHINES)}). "
                "Write the deployment's `resources:`, with requests and limits."
            ]
        )
    size = {"cpu": str(machine[0]), "memory": f"{int(machine[1] * 1024)}Mi"}
    return {"requests": dict(size), "limits": dict(size)}


def manifests(wanted: Wanted, cluster: Cluster) -> list[dict[str, Any]]:
    """Make all objects of an endpoint, in an order in which they can be applied; raises `SpecificationError` with every fault."""
    faults = [
        f"{one.name}: no image. Name the one that `mlops-nb package build` made: --image {one.name}=REPOSITORY@sha256:...,"
        " or the property mlops_nb.image of its file."
        for one in wanted.deployments
        if not _image(cluster, one)
    ]
    given = {**{one.name: _image(cluster, one) for one in wanted.deployments}, "front": cluster.front}
    faults += [
        f"{name}: {image}: an image by its digest is expected (REPOSITORY@sha256:...): a tag may be another image tomorrow."
        for name, image in given.items()
        if image and not re.fullmatch(DIGEST, image)
    ]
    if not cluster.front:
        faults.append(
            "No image for the front. Name an nginx that runs without root: --front-image nginxinc/nginx-unprivileged@sha256:..."
        )
    if wanted.endpoint.auth_mode != "key":
        faults.append(
            f"auth_mode of {wanted.endpoint.name} is {wanted.endpoint.auth_mode}; the front checks keys only. Use Azure Arc for tokens."
        )
    if faults:
        raise SpecificationError(faults)
    objects: list[dict[str, Any]] = []
    if cluster.namespace:
        labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
        objects.append(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": cluster.namespace, "labels": labels}}
        )
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": _about(wanted, cluster),
        "automountServiceAccountToken": False,
    }
    objects.append(account)
    for one in wanted.deployments:
        objects += _deployment_objects(wanted, cluster, one)
    return objects + _front_objects(wanted, cluster)


def _image(cluster: Cluster, one: DeploymentFile) -> str:
    return cluster.images.get(one.name) or cluster.images.get("") or one.properties.get("mlops_nb.image", "")


def _about(wanted: Wanted, cluster: Cluster, part: str = "", **more: Any) -> dict[str, Any]:
    labels = {
        "app.kubernetes.io/name": wanted.named(),
        "app.kubernetes.io/part-of": "mlops-nb",
        "app.kubernetes.io/managed-by": "mlops-nb",
    }
    about: dict[str, Any] = {"name": wanted.named(part), "labels": labels | _labels(wanted, part)}
    return about | ({"namespace": cluster.namespace} if cluster.namespace else {}) | more


def _labels(wanted: Wanted, part: str) -> dict[str, str]:
    """Tell the pods of one deployment, or of the front, from all others."""
    return {
        "app.kubernetes.io/instance": wanted.named(part),
        "app.kubernetes.io/component": "front" if part == "front" else "deployment",
    }


def config_of(wanted: Wanted, one: DeploymentFile) -> Config:
    """Say to the worker in a container what our own host says to one here; files are where `mlops-nb package build` lays them."""
    asked, data, code = one.request_settings, one.data_collector, one.code_configuration
    collector = {
        "collections": data.rates,
        "rolling_rate": data.rolling_rate,
        "capture_headers": data.request_logging.capture_headers,
    }
    wish = Wish(
        our_model(str(one.model)),
        f"{IMAGE}/model",
        asked.request_timeout_ms,
        asked.max_concurrent_requests_per_instance,
        asked.max_queue_wait_ms,
        script={"code": f"{IMAGE}/script", "scoring_script": code.scoring_script} if code else None,
        variables=one.environment_variables or None,
        collected=COLLECTED if data.rates else "",
        collector=collector if data.rates else None,
    )
    return Config(wanted.endpoint.name, one.name, wanted.environment, one.name, f"tcp:0.0.0.0:{PORT}", wish, MAX_BYTES)


def our_model(address: str) -> str:
    """Write a model's address as we do: `azureml:dev.diamonds:3` is `model:dev.diamonds/3`."""
    name, _, version = address.removeprefix("azureml:").rpartition(":")
    return f"model:{name}/{version}"


def _container(cluster: Cluster, one: DeploymentFile) -> dict[str, Any]:
    variables = one.environment_variables | {"MLOPS_NB_SERVE": "/etc/mlops-nb/config.json"}
    env: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in variables.items()]
    mounts: list[dict[str, Any]] = [
        {"name": "tmp", "mountPath": TMP},
        {"name": "config", "mountPath": "/etc/mlops-nb", "readOnly": True},
    ]
    if one.data_collector.rates:  # all pods name their files alike: each has a folder of its own
        env.append({"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}})
        mounts.append({"name": "collected", "mountPath": COLLECTED, "subPathExpr": "$(POD_NAME)"})
    return {
        "name": "deployment",
        "image": _image(cluster, one),
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"name": "http", "containerPort": PORT}],
        "env": env,
        "resources": resources_of(one),
        "livenessProbe": _probe("/health", one.liveness_probe, 1),
        "readinessProbe": _probe("/ready", one.readiness_probe, one.readiness_probe.success_threshold),
        "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},  # until no front sends it anything more
        "securityContext": _locked(),
        "volumeMounts": mounts,
    }


def _volumes(wanted: Wanted, cluster: Cluster, one: DeploymentFile) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = [
        {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
        {"name": "config", "configMap": {"name": wanted.named(one.name)}},
    ]
    if one.data_collector.rates and cluster.claim:
        volumes.append({"name": "collected", "persistentVolumeClaim": {"claimName": cluster.claim}})
    elif one.data_collector.rates:
        volumes.append({"name": "collected", "emptyDir": {"sizeLimit": "1Gi"}})
    return volumes


def _deployment_objects(wanted: Wanted, cluster: Cluster, one: DeploymentFile) -> list[dict[str, Any]]:
    scale, name = one.scale_settings, one.name
    scaled = scale.type == "target_utilization"
    data = {"config.json": json.dumps(asdict(config_of(wanted, one)), indent=1) + "\n"}
    grace = math.ceil(one.request_settings.request_timeout_ms / 1000) + 20
    pod = _pod(wanted, _container(cluster, one), _volumes(wanted, cluster, one), grace)
    ports = [{"name": "http", "port": PORT, "targetPort": "http"}]
    service = {"type": "ClusterIP", "selector": _labels(wanted, name), "ports": ports}
    front = [{"podSelector": {"matchLabels": _labels(wanted, "front")}}]
    egress: list[dict[str, Any]] = [] if one.egress_public_network_access == "disabled" else [{}]
    objects = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _about(wanted, cluster, name), "data": data},
        _deployment(wanted, cluster, name, pod, None if scaled else one.instance_count, data),
        {"apiVersion": "v1", "kind": "Service", "metadata": _about(wanted, cluster, name), "spec": service},
        _policy(wanted, cluster, name, front, PORT, egress),
        _budget(wanted, cluster, name),
    ]
    return [*objects, _autoscaler(wanted, cluster, one)] if scaled else objects


def _deployment(
    wanted: Wanted,
    cluster: Cluster,
    part: str,
    pod: dict[str, Any],
    replicas: int | None,  # None: the autoscaler's number is its own
    data: dict[str, str],  # of its configuration; another one makes other pods, and nobody has to restart them
) -> dict[str, Any]:
    labels = _labels(wanted, part)
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": labels},
    }
    seal = hashlib.sha256(json.dumps(data).encode()).hexdigest()
    about = {"labels": _about(wanted, cluster, part)["labels"], "annotations": {"mlops-nb/configuration": seal}}
    spec = {
        **({} if replicas is None else {"replicas": replicas}),
        "revisionHistoryLimit": 3,
        "selector": {"matchLabels": labels},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "template": {"metadata": about, "spec": pod | {"topologySpreadConstraints": [spread]}},
    }
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": _about(wanted, cluster, part), "spec": spec}


def _pod(wanted: Wanted, container: dict[str, Any], volumes: list[dict[str, Any]], grace: int) -> dict[str, Any]:
    return {
        "serviceAccountName": wanted.named(),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [{key: value for key, value in container.items() if value != []}],
        "volumes": volumes,
    }


def _locked() -> dict[str, Any]:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "privileged": False,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
    }


def _probe(path: str, settings: ProbeSettings, success: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "http"},
        "initialDelaySeconds": settings.initial_delay,
        "periodSeconds": settings.period,
        "timeoutSeconds": settings.timeout,
        "successThreshold": success,
        "failureThreshold": settings.failure_threshold,
    }


def _policy(
    wanted: Wanted, cluster: Cluster, part: str, sources: list[dict[str, Any]], port: int, egress: list[dict[str, Any]]
) -> dict[str, Any]:
    rule = {"from": sources, "ports": [{"protocol": "TCP", "port": port}]}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _about(wanted, cluster, part),
        "spec": {
            "podSelector": {"matchLabels": _labels(wanted, part)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [rule],
            "egress": egress,
        },
    }


def _budget(wanted: Wanted, cluster: Cluster, part: str) -> dict[str, Any]:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _about(wanted, cluster, part),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": _labels(wanted, part)}},
    }


def _autoscaler(wanted: Wanted, cluster: Cluster, one: DeploymentFile) -> dict[str, Any]:
    scale = one.scale_settings
    metric = {
        "type": "Resource",
        "resource": {
            "name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": scale.target_utilization_percentage},
        },
    }
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": wanted.named(one.name)}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": _about(wanted, cluster, one.name),
        "spec": {
            "scaleTargetRef": target,
            "minReplicas": scale.min_instances,
            "maxReplicas": scale.max_instances,
            "metrics": [metric],
        },
    }


def site_of(wanted: Wanted) -> Site:
    """Say what the nginx before the deployments is to do; it finds them by the names of their services."""
    backends = []
    for one in wanted.deployments:
        most = (
            one.scale_settings.max_instances if one.scale_settings.type == "target_utilization" else one.instance_count
        )
        pending = 2 * one.request_settings.max_concurrent_requests_per_instance * most
        backends.append(
            Backend(one.name, (f"{wanted.named(one.name)}:{PORT}",), one.request_settings.request_timeout_ms, pending)
        )
    # a connection stays with one pod: short ones let new pods have their part
    return Site(
        wanted.environment,
        wanted.endpoint.name,
        tuple(backends),
        wanted.traffic,
        wanted.mirror,
        str(FRONT_PORT),
        MAX_BYTES,
        "/etc/mlops-nb/keys/keys.conf",
        "/dev/stdout",
        keepalive_time="10s",
    )


def _front_pod(wanted: Wanted, cluster: Cluster) -> dict[str, Any]:
    place, alive = "/etc/mlops-nb", ProbeSettings(initial_delay=1, period=5, failure_threshold=3)
    longest = max(one.request_settings.request_timeout_ms for one in wanted.deployments)
    start = ["nginx", "-e", "stderr", "-p", f"{TMP}/", "-c", f"{place}/nginx/nginx.conf", "-g", "daemon off;"]
    container = {
        "name": "front",
        "image": cluster.front,
        "imagePullPolicy": "IfNotPresent",
        "command": start,
        "ports": [{"name": "http", "containerPort": FRONT_PORT}],
        "resources": {"requests": {"cpu": "250m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "256Mi"}},
        "livenessProbe": _probe("/health", alive, 1),
        "readinessProbe": _probe("/health", alive, 1),
        "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
        "securityContext": _locked(),
        "volumeMounts": [
            {"name": "nginx", "mountPath": f"{place}/nginx", "readOnly": True},
            {"name": "keys", "mountPath": f"{place}/keys", "readOnly": True},
            {"name": "tmp", "mountPath": TMP},
        ],
    }
    volumes: list[dict[str, Any]] = [
        {"name": "nginx", "configMap": {"name": wanted.named("front")}},
        {"name": "keys", "secret": {"secretName": wanted.named("keys"), "defaultMode": 0o440}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
    ]
    return _pod(wanted, container, volumes, math.ceil(longest / 1000) + 20)


def _front_objects(wanted: Wanted, cluster: Cluster) -> list[dict[str, Any]]:
    data = {
        "nginx.conf": own_configuration("/etc/mlops-nb/nginx/endpoint.conf", TMP, f"{TMP}/nginx.pid"),
        "endpoint.conf": configuration(site_of(wanted)),
    }
    here = {"podSelector": dict[str, Any]()}  # whoever runs in the endpoint's namespace
    there = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": cluster.entrance}}}
    dns = {
        "to": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}],
        "ports": [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")],
    }
    ours = {"app.kubernetes.io/name": wanted.named(), "app.kubernetes.io/component": "deployment"}
    backends = {"to": [{"podSelector": {"matchLabels": ours}}], "ports": [{"protocol": "TCP", "port": PORT}]}
    ports = [{"name": "http", "port": 80, "targetPort": "http"}]
    service = {"type": "ClusterIP", "selector": _labels(wanted, "front"), "ports": ports}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _about(wanted, cluster, "front"), "data": data},
        _deployment(wanted, cluster, "front", _front_pod(wanted, cluster), cluster.front_replicas, data),
        {"apiVersion": "v1", "kind": "Service", "metadata": _about(wanted, cluster), "spec": service},
        _policy(wanted, cluster, "front", [there if cluster.entrance else here], FRONT_PORT, [backends, dns]),
        _budget(wanted, cluster, "front"),
    ]


def yaml_text(*documents: dict[str, Any]) -> str:
    """Write documents as YAML, in the order of their keys."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Write texts of several lines as they are."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: Any, value: str) -> Any:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Dumper.add_representer(str, text)
    return yaml.dump_all(documents, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=140)


def _head(wanted: Wanted, cluster: Cluster) -> str:
    name, where = wanted.endpoint.name, f" -n {cluster.namespace}" if cluster.namespace else ""
    shares = ", ".join(f"{deployment} {share} %" for deployment, share in wanted.traffic.items() if share) or "none"
    return comment(
        [
            f"Generated by `mlops-nb generate kubernetes {name} --env {wanted.environment}` from",
            f"{wanted.source}.",
            f"Traffic: {shares}. An nginx splits it, request by request, mirrors, pins and checks the keys; it is asked at the service",
            f"{wanted.named()}, port 80, without TLS: an ingress or a gateway of yours stands before it. The keys come from a secret:",
            f"  kubectl create secret generic {wanted.named('keys')}{where} --from-file=keys.conf",
            "Not as on Azure: requests to one deployment are spread by connection; an instance asks for all of its machine;",
            "autoscaling goes by processor time, not by requests under way; the limit of pending requests holds for each front by",
            "itself; a shadow's answers are not compared. NetworkPolicies need a network that enforces them.",
        ]
    )


def write_kubernetes(
    settings: Settings,
    endpoint: str,
    folder: Path | None = None,  # None: in the state folder
    cluster: Cluster | None = None,  # for plain manifests; None: none
    compute: str = "",  # cluster attached to Azure ML, for its files; empty: none
    files: Iterable[Path] = (),  # of deployments; none: the local endpoint's, in the environment's deployment.yml
    instance_type: str = "",  # of the attached cluster
) -> list[Path]:  # the files
    """Generate what a cluster needs to host an endpoint: plain manifests, Azure ML's own files, or both."""
    from mlops_nb.hosting.arc import arc_files

    access.require(settings, "deploy")
    wanted = read_wanted(settings, endpoint, tuple(files))
    place = (folder or default_folder(settings, endpoint, "kubernetes")).resolve()
    made: dict[str, Generated] = {}
    if cluster:
        made["manifests.yml"] = Generated(_head(wanted, cluster) + yaml_text(*manifests(wanted, cluster)))
        known = settings.endpoints / endpoint / "keys.json"
        if known.is_file():
            probe = json.loads((known.parent / "endpoint.json").read_text()).get("probe_key", "")
            made["keys.conf"] = Generated(keys_text(site_of(wanted), json.loads(known.read_text()), probe), secret=True)
    if compute:
        made |= arc_files(wanted, compute, settings.root / "environments" / settings.environment, place, instance_type)
    if not made:
        raise SpecificationError(
            [
                "Nothing to generate: name an image (--image) for plain manifests, a cluster of Azure ML (--compute), or both."
            ]
        )
    paths = write_folder(place, made)
    ledger.log(
        settings, "generate", f"endpoint:{settings.environment}.{endpoint}", kind="kubernetes", folder=str(place)
    )
    return paths
