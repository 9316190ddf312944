"""Azure ML without Azure: its control plane, run history, data plane and blob storage in this process, at `requests`' transport.

`cloud` is what the SDK talks to; nothing leaves the process. It keeps what was sent (`cloud.sent`), answers from what it
holds (`cloud.resources`, `cloud.blobs`), and plays a pipeline's steps one state further at each look (`cloud.play`).
"""

import base64
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest
import requests

from mlops_nb.core.settings import Settings, load_settings

ROOT = Path(__file__).resolve().parents[2]
SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"
PROVIDER = "/providers/Microsoft.MachineLearningServices"
REGION = "https://westeurope.api.azureml.ms"
STORE = "https://devstore.blob.core.windows.net"
CREATED = {"createdAt": "2026-01-01T00:00:00Z", "createdBy": "Ada", "createdByType": "User", "lastModifiedAt": "2026-01-01T00:00:00Z"}
ASYNCHRONOUS = r"/(onlineendpoints|batchendpoints|deployments|schedules|computes)/[^/]+$"

Answer = tuple[int, dict[str, str], bytes]


class Sent(NamedTuple):
    """One request to the control plane."""

    method: str
    path: str
    api: str  # its version
    body: Any


def jwt(**claims: Any) -> str:
    """Make a token that can be decoded, and that nobody signed."""
    parts = [{"alg": "none"}, {"aud": "https://ml.azure.com", "tid": "tenant", "exp": 4_000_000_000} | claims]
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts) + ".eA"


class Credential:
    """Signs everybody in."""

    def get_token(self, *scopes: str, **options: Any) -> Any:
        from azure.core.credentials import AccessToken

        return AccessToken(jwt(), 4_000_000_000)


class Cloud:
    """One subscription of Azure, in memory."""

    subscription = SUBSCRIPTION

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.resources: dict[str, dict[str, Any]] = {}  # lower-case path -> resource
        self.blobs: dict[str, tuple[bytes, dict[str, str]]] = {}  # /container/name -> content and metadata
        self.runs: dict[str, dict[str, Any]] = {}  # a step's job -> what run history knows of it
        self.plays: list[dict[str, str]] = []  # states that the steps take, one after the other
        self.outputs: dict[str, dict[str, bytes]] = {}  # step -> what it leaves in blob storage
        self.polls: dict[str, int] = {}
        self.refuses: dict[str, int] = {}  # part of a path -> the status it is answered with
        self.interrupts_at = -1  # the look, counted down, at which somebody presses Ctrl-C

    def workspace(self, environment: str) -> str:
        """Return the address of an environment's workspace."""
        return f"/subscriptions/{SUBSCRIPTION}/resourceGroups/mlops-nb-{environment}{PROVIDER}/workspaces/mlops-nb-{environment}"

    def put(self, path: str, properties: dict[str, Any], **more: Any) -> None:
        """Let something be there already."""
        self.resources[path.lower()] = self._resource(path, {"properties": properties} | more)

    def bodies(self, part: str) -> list[Any]:
        """Return what was sent to addresses with this part, in order."""
        return [sent.body for sent in self.sent if sent.method == "PUT" and re.search(part, sent.path)]

    def written(self) -> list[Sent]:
        """Return the requests that change something."""
        return [sent for sent in self.sent if sent.method not in ("GET", "HEAD")]

    def fail(self) -> None:
        """Let the newest job fail before any step was begun, as when its image cannot be built."""
        job = [resource for path, resource in self.resources.items() if "/jobs/" in path][-1]
        job["properties"]["status"] = "Failed"

    def play(self, *states: dict[str, str]) -> None:
        """Say which states the steps of the next pipeline take, one group after the other, as they are looked at."""
        self.plays = list(states)

    # what the transport calls

    def answer(self, method: str, url: str, headers: Any, body: bytes | None) -> Answer:
        """Answer one request."""
        parts = urlsplit(url)
        path, query = unquote(parts.path), {key: value[0] for key, value in parse_qs(parts.query).items()}
        if parts.netloc.endswith("blob.core.windows.net"):
            return self._blob(method, path, query, headers, body or b"")
        if parts.netloc.startswith("login."):
            return self._login(path)
        content = json.loads(body) if body else None
        self.sent.append(Sent(method, path, query.get("api-version", ""), json.loads(json.dumps(content))))
        for part, status in self.refuses.items():
            if part in path:
                return _json({"error": {"code": "Refused", "message": f"{part} is refused"}}, status)
        if "/discovery" in path:
            return _json(self._discovered(path))
        if path.startswith(("/history/", "/data/v1.0")):
            return self._history(path, content)
        if path.startswith("/operations/"):
            self.polls[path] = self.polls.get(path, 0) + 1
            return _json({"status": "Succeeded" if self.polls[path] > 1 else "InProgress"}, **{"x-ms-retry-after-ms": "1"})
        if not str(headers.get("Authorization", "")).startswith("Bearer "):
            return _json({"error": {"code": "Unauthorized", "message": "no token"}}, 401)
        return self._manage(method, path.removeprefix("/mferp/managementfrontend"), content)

    def _login(self, path: str) -> Answer:
        """Sign a service principal in, for DefaultAzureCredential itself."""
        if path.endswith("/token"):
            return _json({"access_token": jwt(), "expires_in": 3600, "token_type": "Bearer"})
        base = "https://login.microsoftonline.com/tenant"
        ends = {"token_endpoint": "/oauth2/v2.0/token", "authorization_endpoint": "/oauth2/v2.0/authorize", "issuer": "/v2.0"}
        if "discovery/instance" in path:
            return _json({"tenant_discovery_endpoint": f"{base}/v2.0/.well-known/openid-configuration", "metadata": []})
        return _json({key: base + value for key, value in ends.items()})

    def _discovered(self, path: str) -> dict[str, Any]:
        if "/registries/" not in path:
            return {"api": REGION, "history": REGION}
        name = path.split("/registries/")[1].split("/")[0]
        return {
            "registryName": name,
            "primaryRegionResourceProviderUri": f"{REGION}/",
            "resourceGroup": "registry-group",
            "subscriptionId": SUBSCRIPTION,
        }

    # the control plane

    def _resource(self, path: str, content: dict[str, Any]) -> dict[str, Any]:
        resource = content | {"id": path, "name": path.rsplit("/", 1)[-1], "type": path.split("/providers/")[-1], "systemData": CREATED}
        if "/registries/" in path:  # a registry has addresses of its own
            resource["id"] = "azureml://registries/" + path.partition("/registries/")[2]
        resource["properties"] = {"provisioningState": "Succeeded"} | (content.get("properties") or {})
        return resource

    def _manage(self, method: str, path: str, content: Any) -> Answer:
        key, name = path.lower().rstrip("/"), path.rsplit("/", 1)[-1]
        if "/tempdatarefs/" in key:
            return _json({"blobReferenceForConsumption": _reference()})
        if method in ("PUT", "PATCH"):
            return self._store(path, key, content)
        if method == "POST":
            return self._act(path, key)
        if key in self.resources:
            return _json(self.resources[key])
        if path.split("/")[-2:] == ["jobs", name] and name in self.runs:  # the control plane knows no steps
            return _json({"id": path, "name": name, "type": "x", "properties": None})
        children = [value for name, value in self.resources.items() if name.startswith(key + "/") and "/" not in name[len(key) + 1 :]]
        if children or re.search(r"/(versions|jobs|datastores|schedules|deployments)$", key):
            return _json({"value": children})
        return _json({"error": {"code": "UserError", "message": f"{path} is not there"}}, 404)

    def _store(self, path: str, key: str, content: dict[str, Any]) -> Answer:
        old = self.resources.get(key)
        self.resources[key] = resource = self._resource(path, content)
        known = resource["properties"]
        if "/jobs/" in key:
            studio = {"jobServiceType": "Studio", "endpoint": f"https://ml.azure.com/runs/{resource['name']}"}
            known |= {"status": "NotStarted", "services": {"Studio": studio}}
            self._begin(resource["name"], known.get("jobs", {}))
        if re.search(r"/(online|batch)endpoints/[^/]+$", key):
            known |= {"scoringUri": f"https://{resource['name']}.westeurope.inference.ml.azure.com/score", "swaggerUri": ""}
        if "/onlineendpoints/" in key and "/deployments/" in key:
            known.setdefault("scaleSettings", {"scaleType": "Default"})
            for collection in (known.get("dataCollector") or {}).get("collections", {}).values():
                collection["dataCollectionMode"] = "Enabled"
        if "/models/" in key:
            known.setdefault("flavors", {})
        if re.search(ASYNCHRONOUS, key):
            address = f"https://management.azure.com/operations/{len(self.polls)}?api-version=x"
            self.polls[urlsplit(address).path] = 0
            return _json(resource, 201, **{"Azure-AsyncOperation": address, "x-ms-retry-after-ms": "1"})
        return _json(resource, 200 if old else 201)

    def _act(self, path: str, key: str) -> Answer:
        if key.endswith("/listsecrets"):
            return _json({"secretsType": "Sas", "sasToken": "sv=2024&sig=abc"})
        if key.endswith("/startpendingupload"):
            return _json({"pendingUploadId": "1", "blobReferenceForConsumption": _reference()})
        if key.endswith("/cancel"):
            job = key.split("/")[-2]
            self.plays = [{run["displayName"]: "Canceled" for run in self.runs.values() if run["parentRunId"].lower() == job}]
            return _json({})
        return _json({"error": {"code": "UserError", "message": f"nothing to do at {path}"}}, 404)

    # jobs

    def _begin(self, name: str, nodes: dict[str, Any]) -> None:
        for number, (step, node) in enumerate(nodes.items()):
            run_id = f"{name}-{number}"
            self.runs[run_id] = {
                "runId": run_id,
                "parentRunId": name,
                "displayName": node.get("display_name", step),
                "tags": node.get("tags", {}),
                "status": "NotStarted",
                "properties": {},
                "createdUtc": f"2026-01-01T10:00:0{number}Z",
                "outputs": {},
            }

    def _history(self, path: str, content: Any) -> Answer:
        if path.endswith("/batchGetResolvedUris"):
            store = "azureml://datastores/workspaceblobstore/paths"
            return _json({"values": {asset: {"uri": f"{store}/{asset}"} for asset in content["values"]}})
        if path.endswith("/rundata"):
            return _json({"runMetadata": self.runs[content["runId"]]})
        name = path.split("/runs/")[1].split("/")[0]
        if path.endswith("/children"):
            self._advance(name)
            return _json({"value": [run for run in self.runs.values() if run["parentRunId"] == name]})
        return _json(self.runs[name])

    def _advance(self, job: str) -> None:
        """Take the steps one state further, and leave in blob storage what an ended step has made."""
        self.interrupts_at -= 1
        if self.interrupts_at == 0:
            raise KeyboardInterrupt
        steps = {run["displayName"]: run for run in self.runs.values() if run["parentRunId"] == job}
        for step, state in (self.plays.pop(0) if self.plays else {}).items():
            run = steps[step]
            if state == "Reused":
                state, run["properties"] = "Completed", {"azureml.isreused": "true"}
            if state == "Failed":
                run["error"] = {"error": {"code": "UserError", "message": "Execution failed. Process exited with status code: 4"}}
            run["status"] = state
            run.setdefault("startTimeUtc", "2026-01-01T10:00:00Z")
            if state in ("Completed", "Failed", "Canceled"):
                run["endTimeUtc"] = "2026-01-01T10:01:30Z"
                self._leave(run, self.outputs.get(step, {}))
        states, job_of = {run["status"] for run in steps.values()}, f"/jobs/{job.lower()}"
        owner = next(resource for path, resource in self.resources.items() if path.endswith(job_of))
        if states == {"Completed"}:
            owner["properties"]["status"] = "Completed"
        elif not self.plays and "Running" not in states:
            owner["properties"]["status"] = next((end for end in ("Failed", "Canceled") if end in states), "Running")

    def _leave(self, run: dict[str, Any], outputs: dict[str, bytes]) -> None:
        for port, data in outputs.items():
            name = port if port == "std_log.txt" else f"azureml/{run['runId']}/{port}"
            if port == "std_log.txt":
                self.blobs[f"/azureml/ExperimentRun/dcid.{run['runId']}/user_logs/std_log.txt"] = (data, {})
            else:
                self.blobs[f"/azureml/{name}"] = (data, {})
                run["outputs"][port.split("/")[0]] = {"assetId": f"azureml/{run['runId']}/{port.split('/')[0]}", "type": "uri_file"}

    # blob storage

    def _blob(self, method: str, path: str, query: dict[str, str], headers: Any, body: bytes) -> Answer:
        given = {"x-ms-version": "2024-11-04", "ETag": '"0x1"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
        if query.get("comp") == "list":
            return 200, given | {"Content-Type": "application/xml"}, self._listed(path, query.get("prefix", ""))
        if method == "PUT":
            meta = {key[10:]: value for key, value in headers.items() if key.lower().startswith("x-ms-meta-")}
            old = self.blobs.get(path, (b"", {}))[0]
            self.blobs[path] = (old if query.get("comp") == "metadata" else body, meta)
            return 200 if query.get("comp") == "metadata" else 201, given, b""
        if path not in self.blobs:
            return 404, given | {"x-ms-error-code": "BlobNotFound"}, b""
        data, meta = self.blobs[path]
        given |= {"x-ms-blob-type": "BlockBlob", "Content-Length": str(len(data)), **{f"x-ms-meta-{k}": v for k, v in meta.items()}}
        given["Content-Range"] = f"bytes 0-{max(len(data) - 1, 0)}/{len(data)}"
        return (200, given, b"") if method == "HEAD" else (206, given, data)

    def _listed(self, container: str, prefix: str) -> bytes:
        names = [name.removeprefix(f"{container}/") for name in self.blobs if name.startswith(f"{container}/{prefix}")]
        items = "".join(
            f"<Blob><Name>{escape(name)}</Name><Properties><Content-Length>{len(self.blobs[f'{container}/{name}'][0])}</Content-Length>"
            "<BlobType>BlockBlob</BlobType></Properties></Blob>"
            for name in names
        )
        return f'<?xml version="1.0"?><EnumerationResults><Blobs>{items}</Blobs><NextMarker/></EnumerationResults>'.encode()


def _json(content: Any, status: int = 200, **headers: str) -> Answer:
    return status, {"Content-Type": "application/json", **headers}, json.dumps(content).encode()


def _reference() -> dict[str, Any]:
    uri = f"{STORE}/azureml/upload"
    return {"blobUri": uri, "storageAccountArmId": "x", "credential": {"credentialType": "SAS", "sasUri": f"{uri}?sig=abc"}}


class _Adapter(requests.adapters.BaseAdapter):
    """Stands where `requests` would open a connection."""

    def __init__(self, cloud: Cloud) -> None:
        super().__init__()
        self.cloud = cloud

    def send(self, request: Any, *arguments: Any, **options: Any) -> Any:
        from urllib3 import HTTPResponse

        body = request.body.read() if hasattr(request.body, "read") else request.body
        body = body.encode() if isinstance(body, str) else body
        status, headers, content = self.cloud.answer(request.method, request.url, request.headers, body)
        raw = HTTPResponse(io.BytesIO(content), status=status, headers=headers, preload_content=False, request_method=request.method)
        return requests.adapters.HTTPAdapter().build_response(request, raw)

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """Azure, with the workspaces of dev and prod, their cluster and their storage."""
    fake = Cloud()
    monkeypatch.setattr(requests.Session, "get_adapter", lambda session, url: _Adapter(fake))
    monkeypatch.setenv("AZURE_ML_DISABLE_ON_DISK_CACHE", "true")  # which the SDK keeps in the home folder
    for name in ("AZURE_SUBSCRIPTION_ID", "AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_CLIENT_SECRET"):
        monkeypatch.delenv(name, raising=False)
    for environment in ("dev", "prod"):
        scope = fake.workspace(environment)
        fake.put(scope, {"workspaceId": environment, "discoveryUrl": f"{REGION}/discovery"}, location="westeurope")
        cluster = {"vmSize": "STANDARD_DS3_V2", "scaleSettings": {"minNodeCount": 0, "maxNodeCount": 4}}
        fake.put(f"{scope}/computes/cpu-cluster", {"computeType": "AmlCompute", "properties": cluster})
        for store in ("workspaceblobstore", "workspaceartifactstore"):
            about = {"accountName": "devstore", "containerName": "azureml", "isDefault": store == "workspaceblobstore"}
            fake.put(f"{scope}/datastores/{store}", about | {"datastoreType": "AzureBlob", "credentials": {"credentialsType": "Sas"}})
    return fake


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_environment: None) -> Settings:
    """A project with this repository's own scenarios and specifications, in dev, and a subscription to send them to."""
    for room in ("ci/pipelines", "ci/components", "nbs/scenarios", "environments"):
        shutil.copytree(ROOT / room, tmp_path / room)
    shutil.copy(ROOT / "settings.ini", tmp_path)
    (tmp_path / "environments/dev/config.json").write_text(
        json.dumps({"subscription_id": SUBSCRIPTION, "resource_group": "mlops-nb-dev", "workspace_name": "mlops-nb-dev"})
    )
    monkeypatch.chdir(tmp_path)
    return load_settings("dev", user="ada", persona="data_scientist")


@pytest.fixture
def signed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service principal's variables, as a CI has them, for azure-identity's own DefaultAzureCredential."""
    monkeypatch.setenv("AZURE_TENANT_ID", "tenant")
    monkeypatch.setenv("AZURE_CLIENT_ID", "client")
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "no secret")


@pytest.fixture
def credential() -> Credential:
    """Somebody who is signed in."""
    return Credential()


@pytest.fixture
def client(shop: Settings, cloud: Cloud, credential: Credential) -> Any:
    """The SDK's client of dev's workspace."""
    from mlops_nb.azure import connect

    return connect(shop, credential)


class Ended(NamedTuple):
    """How a command ended, and the run that it was about."""

    rc: int
    stdout: str
    stderr: str
    run: str


@pytest.fixture
def command(cloud: Cloud, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the command line in this process, where the cloud is: `command("azure", "submit", "classical")`."""
    from mlops_nb.cli import main

    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*arguments: str) -> Ended:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main(list(arguments))
        text = capsys.readouterr()
        return Ended(int(end.value.code or 0), text.out, text.err, next(iter(re.findall(r"submitted (\S+);", text.out)), ""))

    return run
