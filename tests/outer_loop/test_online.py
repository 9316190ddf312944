"""A real endpoint on this machine: deploying, asking, and coming back after every kind of death."""

import datetime as dt
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest

from mlops_nb.core import ledger
from mlops_nb.core.records import SpecificationError, StepFailed
from mlops_nb.core.settings import Settings
from mlops_nb.outer_loop import credentials, models, online, state, traffic

ENDPOINT = "diamonds"


@pytest.fixture(scope="module")
def here(stones: Any) -> Iterator[Settings]:
    """The project; whatever a test leaves is removed at the end."""
    yield stones.settings
    for name in state.endpoint_names(stones.settings):
        online.remove(stones.settings, name)


@pytest.fixture
def live(here: Settings, stones: Any) -> Settings:
    """The project with model 1 alone behind the endpoint."""
    rows = online.endpoint_status(here, ENDPOINT) if ENDPOINT in state.endpoint_names(here) else []
    if [(row["model"], row["state"], row["traffic"]) for row in rows] != [("model:dev.diamonds/1", "ready", 100)]:
        if rows:
            online.remove(here, ENDPOINT)
        online.deploy(here, ENDPOINT, stones.model(1))
    return here


def test_the_first_deployment_has_all_the_traffic_and_answers_as_the_model_does(here: Settings, stones: Any) -> None:
    deployed = online.deploy(here, ENDPOINT, stones.model(1))
    assert (deployed.name, deployed.traffic, deployed.uri) == ("blue", 100, "deployment:dev.diamonds/blue")
    expected = mlflow.pyfunc.load_model("models:/dev.diamonds/1").predict(stones.frame)
    assert online.invoke(here, ENDPOINT, stones.frame) == expected.tolist()
    assert online.deploy(here, ENDPOINT, stones.model(1)) == deployed  # asked again: found, not started twice
    assert [entry.action for entry in ledger.lineage(here, deployed.uri)][-1] == "deploy"
    assert online.deployments(here, ENDPOINT) == [deployed]
    assert list(online.endpoint_table(here, ENDPOINT)["state"]) == ["ready"]


def test_what_is_asked_and_answered_is_collected(live: Settings, stones: Any) -> None:
    prices = online.invoke(live, ENDPOINT, stones.frame.head(3), request_id="order-7")

    def lines(collection: str) -> list[dict[str, Any]]:
        return [event for event in stones.events(ENDPOINT, "blue", collection) if event["correlationid"] == "order-7"]

    stones.until(lambda: bool(lines("model_inputs") and lines("model_outputs")))
    assert list((live.collected / ENDPOINT / "blue").glob("model_inputs/????/??/??/??/*.jsonl"))
    assert lines("model_inputs")[0]["data"] == stones.frame.head(3).to_dict(orient="records")
    assert lines("model_outputs")[0]["data"] == [{"prediction": price} for price in prices]


def test_a_request_that_cannot_be_answered_says_why(live: Settings, stones: Any) -> None:
    with pytest.raises(ValueError, match=r"answered 400: .*depth"):
        online.invoke(live, ENDPOINT, {"inputs": {"carat": [1.0]}})
    with pytest.raises(ValueError, match=r"answered 404: .*No deployment 'red' \(there are: blue\)"):
        online.invoke(live, ENDPOINT, stones.half, deployment="red")
    with pytest.raises(ValueError, match=r"bytes, over the 10485760 that diamonds takes. Send fewer rows"):
        online.invoke(live, ENDPOINT, stones.half | {"padding": "x" * 11_000_000})
    with pytest.raises(LookupError, match=r"No endpoint 'rubies' in dev \(there are: .*diamonds"):
        online.invoke(live, "rubies", stones.half)


def test_a_model_that_cannot_be_loaded_leaves_the_endpoint_as_it_was(live: Settings, stones: Any) -> None:
    before = [(r["deployment"], r["pid"], r["traffic"]) for r in online.endpoint_status(live, ENDPOINT)]
    with pytest.raises(StepFailed, match=r"(?s)green of diamonds with model:dev.diamonds/4 did not start: .*BadZipFile"):
        online.deploy(live, ENDPOINT, stones.model(4))
    assert [(r["deployment"], r["pid"], r["traffic"]) for r in online.endpoint_status(live, ENDPOINT)] == before
    with pytest.raises(StepFailed, match=r"blue of stillborn with model:dev\.diamonds/1 did not start: ended with 1"):
        online.deploy(live, "stillborn", stones.model(1), python="/bin/false")
    assert "stillborn" not in state.endpoint_names(live)
    assert not (live.endpoints / "stillborn" / "keys.json").exists()


def test_a_killed_deployment_comes_back_and_its_requests_wait_for_it(live: Settings, stones: Any) -> None:
    with stones.client(ENDPOINT) as client:
        stones.until(lambda: client.answers.total() > 5)
        killed = stones.row(ENDPOINT, "blue")
        os.kill(killed["pid"], signal.SIGKILL)
        stones.until(lambda: stones.row(ENDPOINT, "blue")["restarts"] == killed["restarts"] + 1)
        stones.until(lambda: stones.row(ENDPOINT, "blue")["state"] == "ready")
        seen = client.answers.total()
        stones.until(lambda: client.answers.total() > seen + 5)
    late = [failure for failure in client.failures if "503" not in str(failure)]  # the wait is limited, here by 5 s
    assert not late


@pytest.mark.slow
def test_a_killed_host_takes_everything_along_and_start_brings_it_back_as_it_was(live: Settings, stones: Any) -> None:
    online.deploy(live, ENDPOINT, stones.model(2))
    traffic.shift_traffic(live, ENDPOINT, {"green": 100})
    traffic.shift_traffic(live, ENDPOINT, {"blue": 100})
    traffic.set_mirror(live, ENDPOINT, {"green": 10})
    kept = ("traffic", "mirror_traffic", "history", "port", "deployments", "auth_mode", "probe_key")
    wanted, keys = state.read_wanted(live, ENDPOINT), credentials.keys(live, ENDPOINT)
    host = psutil.Process(state.read_status(live, ENDPOINT)["pid"])
    everybody = [host, *host.children(recursive=True)]
    assert len(everybody) >= 4  # the host, its front, two deployments
    host.kill()
    assert psutil.wait_procs(everybody, timeout=60)[1] == []
    assert {r["state"] for r in online.endpoint_status(live, ENDPOINT)} == {"stopped"}
    with pytest.raises(ConnectionError, match="Start diamonds"):
        online.invoke(live, ENDPOINT, stones.half)

    online.start(live, ENDPOINT)
    again = state.read_wanted(live, ENDPOINT)
    assert {name: again[name] for name in kept} == {name: wanted[name] for name in kept}
    assert credentials.keys(live, ENDPOINT) == keys
    assert round(online.invoke(live, ENDPOINT, stones.half)[0]) == 2000
    assert stones.row(ENDPOINT, "green")["mirror"] == 10
    assert ledger.entries(live)[-1].action == "start"
    stones.until(lambda: stones.row(ENDPOINT, "green")["state"] == "ready")
    assert traffic.roll_back(live, ENDPOINT) == {"green": 100}  # the history came back, too
    traffic.roll_back(live, ENDPOINT)
    online.remove(live, ENDPOINT, "green")


def test_a_port_in_use_is_named_before_anything_is_started(here: Settings, stones: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=rf"Cannot listen on 127.0.0.1:{port} .*set another `port`"):
            online.deploy(here.model_copy(update={"port": port}), "occupied", stones.model(1))
    assert "occupied" not in state.endpoint_names(here)


def test_others_are_let_in_over_tls_only_unless_a_person_says_so(here: Settings, stones: Any) -> None:
    everywhere = here.model_copy(update={"host": "0.0.0.0"})  # noqa: S104
    with pytest.raises(SpecificationError, match=r"host = 0.0.0.0: others can reach it.*tls_certificate.*allow_http = true"):
        online.deploy(everywhere, "open", stones.model(1))
    assert "open" not in state.endpoint_names(here)
    state.check_host(everywhere.model_copy(update={"allow_http": True}))
    with pytest.raises(SpecificationError, match=r"tls_certificate = gone.pem: no such file(?s:.)*tls_key = : no such file"):
        state.check_host(here.model_copy(update={"tls_certificate": "gone.pem"}))


def make_certificate(folder: Path, name: str) -> dict[str, str]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    certificate = (x509.CertificateBuilder().subject_name(who).issuer_name(who).public_key(key.public_key()).serial_number(7)
                   .not_valid_before(now - dt.timedelta(1)).not_valid_after(now + dt.timedelta(1))
                   .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("192.0.2.1"))]), critical=False)
                   .sign(key, hashes.SHA256()))
    pem = serialization.Encoding.PEM
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(pem))
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / f"{name}.key").write_bytes(secret)
    return {"tls_certificate": f"{name}.pem", "tls_key": f"{name}.key"}  # relative to the project


def test_over_tls_our_client_trusts_exactly_the_endpoints_certificate(here: Settings, stones: Any) -> None:
    secured = here.model_copy(update=make_certificate(here.root, "shop") | {"host": "0.0.0.0"})  # noqa: S104
    make_certificate(here.root, "other")
    online.deploy(secured, "secured", stones.model(1))
    try:
        assert stones.row("secured", "blue")["address"].startswith("https://127.0.0.1:")
        assert round(online.invoke(secured, "secured", stones.half)[0]) == 2000
        shutil.copy(here.root / "other.pem", here.root / "shop.pem")  # as if somebody else answered there
        with pytest.raises(ConnectionError, match="certificate verify failed"):
            online.invoke(secured, "secured", stones.half)
        with socket.create_connection(("127.0.0.1", state.read_wanted(here, "secured")["port"])) as plain:
            plain.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
            assert not plain.recv(100).startswith(b"HTTP/1.1 200")
        with pytest.raises(ssl.SSLError):
            ssl.create_default_context().wrap_socket(
                socket.create_connection(("127.0.0.1", state.read_wanted(here, "secured")["port"])), server_hostname="localhost")
    finally:
        online.remove(here, "secured")


@pytest.mark.slow
def test_an_endpoint_outlives_who_started_it_and_a_temporary_one_does_not(live: Settings, stones: Any) -> None:
    script = f"""
import json, os, signal, urllib.request
from mlops_nb.core.records import ModelVersion
from mlops_nb.core.settings import load_settings
from mlops_nb.outer_loop import online
settings = load_settings("dev", {str(live.root)!r}, user="ada", host="0.0.0.0", allow_http=True)
model = ModelVersion("dev.diamonds", 1, "regression")
online.deploy(settings, "lasting", model)
with online.temporary_endpoint(settings, model) as ask:
    request = urllib.request.Request(ask.address + "/invocations", b'{{"inputs": {{"carat": [0.5], "depth": [60.0]}}}}',
                                     {{"content-type": "application/json", **ask.headers}})
    print(json.dumps([ask({stones.half!r}), json.loads(urllib.request.urlopen(request).read()), ask.address,
                      str(ask.settings.endpoints)]), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    own, mlflows, address, folder = json.loads(done.stdout)
    assert (round(own[0]), round(mlflows["predictions"][0])) == (2000, 2000)
    assert address.startswith("http://127.0.0.1:")  # a temporary endpoint is nobody else's, whatever the settings say
    assert len(online.invoke(live, "lasting", stones.frame)) == len(stones.frame)
    online.remove(live, "lasting")

    def temporary() -> list[psutil.Process]:
        return [p for p in psutil.process_iter(["cmdline"]) if folder in " ".join(p.info["cmdline"] or [])]

    stones.until(lambda: not temporary())


HELD = """
import os, pathlib, time

def init():
    pass

def run(raw_data):
    pathlib.Path(os.environ["BEGUN"]).touch()
    while not pathlib.Path(os.environ["GATE"]).exists():
        time.sleep(0.02)
    return "through"
"""
NARROW = """
name: narrow
endpoint_name: diamonds
instance_type: Standard_DS3_v2
request_settings: {{request_timeout_ms: {wait}, max_concurrent_requests_per_instance: 1}}
code_configuration: {{code: src, scoring_script: score.py}}
environment_variables: {{BEGUN: {folder}/begun-{wait}, GATE: {folder}/gate}}
"""


def test_a_deployment_refuses_what_takes_too_long_and_more_than_it_can_hold(live: Settings, stones: Any, tmp_path: Path) -> None:
    for name, content in (("src/score.py", HELD), ("held/model.txt", "")):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(content)
    found, file = models.find_model(live, str(tmp_path / "held"), script=True), tmp_path / "narrow.yml"
    file.write_text(NARROW.format(wait=300, folder=tmp_path))
    online.deploy(live, ENDPOINT, found, "narrow", file=file)
    with pytest.raises(StepFailed, match=r"answered 408: .*narrow took over 300 ms"):
        online.invoke(live, ENDPOINT, {}, "narrow")

    file.write_text(NARROW.format(wait=180_000, folder=tmp_path))
    online.deploy(live, ENDPOINT, found, "narrow", file=file)
    with ThreadPoolExecutor() as pool:
        try:
            first = pool.submit(online.invoke, live, ENDPOINT, {}, "narrow")
            stones.until((tmp_path / "begun-180000").exists)
            with pytest.raises(StepFailed, match="answered 429"):
                online.invoke(live, ENDPOINT, {}, "narrow")
            assert len(online.invoke(live, ENDPOINT, stones.frame)) == len(stones.frame)  # the other deployment never noticed
        finally:
            (tmp_path / "gate").touch()
        assert first.result() == "through"
    online.remove(live, ENDPOINT, "narrow")


SCORE = """
import json, os, sys

def init():
    global factor
    with open(os.path.join(os.environ["AZUREML_MODEL_DIR"], FOLDER, "factor.txt")) as file:
        factor = float(file.read())

def run(raw_data):
    return {"price": json.loads(raw_data)["carat"] * factor, "greeting": os.environ["GREETING"], "python": sys.prefix}
"""
DEPLOYMENT = """
name: scripted
endpoint_name: diamonds
instance_type: Standard_DS3_v2
instance_count: 2
code_configuration: {code: src, scoring_script: score.py}
environment_variables: {GREETING: hello}
properties: {mlops_nb.python: own/bin/python}
"""


def test_a_files_script_variables_instances_and_interpreter_are_the_deployments(live: Settings, stones: Any, tmp_path: Path) -> None:
    """A model that is none of MLflow's, with a scoring script, in an environment of its own that borrows our libraries."""
    (tmp_path / "src").mkdir()
    (tmp_path / "prices").mkdir()
    (tmp_path / "prices" / "factor.txt").write_text("4000")
    found = models.find_model(live, str(tmp_path / "prices"), script=True)
    (tmp_path / "src" / "score.py").write_text(SCORE.replace("FOLDER", repr(Path(models.model_folder(live, found, script=True)).name)))
    (tmp_path / "deployment.yml").write_text(DEPLOYMENT)
    with pytest.raises(SpecificationError, match=r"mlops_nb.python: no interpreter own/bin/python"):
        online.deploy(live, ENDPOINT, found, "scripted", file=tmp_path / "deployment.yml")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "own"], check=True)
    borrowed = next(path for path in sys.path if path.endswith("site-packages"))
    purelib = next((tmp_path / "own" / "lib").glob("python*/site-packages"))
    (purelib / "borrowed.pth").write_text(f"import sys; sys.path.append({borrowed!r})\n")

    port = state.read_wanted(live, ENDPOINT)["port"]
    online.stop(live, ENDPOINT)  # a deployment starts a stopped endpoint, as it was
    assert online.deploy(live, ENDPOINT, found, "scripted", file=tmp_path / "deployment.yml").traffic == 0
    assert state.read_wanted(live, ENDPOINT)["port"] == port
    answer = online.invoke(live, ENDPOINT, {"carat": 0.5}, "scripted")
    assert answer == {"price": 2000.0, "greeting": "hello", "python": str(tmp_path / "own")}
    stones.until(lambda: [one["state"] for one in stones.row(ENDPOINT, "scripted")["instances"]] == ["ready", "ready"])
    online.remove(live, ENDPOINT, "scripted")
