"""The host: it follows what is wanted, and whatever ends comes back, or ends for good, without a request lost."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from mlops_nb.serving.scale import Scaler


@contextmanager
def load(endpoint: Any, body: Any = b"[]", clients: int = 4) -> Iterator[Counter[Any]]:
    """Ask without a pause until the block ends; yields what was answered, by (status, deployment)."""
    seen: Counter[Any] = Counter()
    ended = threading.Event()

    def ask() -> None:
        connection = endpoint.connect()
        while not ended.is_set():
            answer = endpoint.ask(body, connection=connection)
            seen[answer.status, answer.headers.get("azureml-model-deployment", "")] += 1

    with ThreadPoolExecutor(clients) as pool:
        done = [pool.submit(ask) for _ in range(clients)]
        try:
            yield seen
        finally:
            ended.set()
        for one in done:
            one.result()


def wait_for(happened: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end, f"never {what}"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def shop(lay_once: Any) -> Any:
    return lay_once({"blue": {"instances": 2}, "green": {}}).start().until_ready()


def test_traffic_moves_without_a_lost_request(shop: Any) -> None:
    with load(shop) as seen:
        for name in ("green", "blue") * 3:
            shop.save(traffic={name: 100})
            enough = seen[200, name] + 20
            wait_for(lambda name=name, enough=enough: seen[200, name] >= enough, f"answered by {name}: {seen}")  # type: ignore[misc]
    assert {status for status, _ in seen} == {200}
    assert {name for _, name in seen} == {"blue", "green"}
    status = shop.status()
    assert status["state"] == "running"
    assert status["deployments"]["blue"]["traffic"] == 100
    assert status["deployments"]["blue"]["requests"]["200"] >= 1
    assert status["deployments"]["blue"]["p95_ms"] > 0
    assert [one["state"] for one in status["deployments"]["blue"]["instances"]] == ["ready", "ready"]


def test_a_deployment_that_leaves_answers_what_it_has(shop: Any) -> None:
    shop.save(deployments=shop.wanted["deployments"] | {"old": shop.wish()})
    shop.until_ready("old")
    pid = shop.status()["deployments"]["old"]["pid"]
    with shop.holding("old") as held:
        shop.save(deployments={name: wish for name, wish in shop.wanted["deployments"].items() if name != "old"})
        assert shop.ask(b"[]", azureml_model_deployment="old").status == 404
        assert psutil.pid_exists(pid)
    assert held[0].result().json["deployment"] == "old"
    shop.until(lambda s: not s["leaving"], "drained")
    assert not psutil.pid_exists(pid)


def test_another_model_under_the_same_name_is_counted_anew(shop: Any) -> None:
    shop.ask(b"[]", azureml_model_deployment="green")
    shop.until(lambda s: s["deployments"]["green"]["requests"], "counted")
    before = shop.status()["deployments"]["green"]["pid"]
    shop.save(deployments=shop.wanted["deployments"] | {"green": shop.wish(model="model:dev.shop/2")})
    assert shop.ask(b"[]", azureml_model_deployment="green").status == 200  # it waits for the new process
    green = shop.until_ready().status()["deployments"]["green"]
    assert (green["model"], green["restarts"]) == ("model:dev.shop/2", 0)
    assert green["pid"] != before
    assert shop.until(lambda s: s["deployments"]["green"]["requests"], "counted")["deployments"]["green"]["requests"] == {"200": 1}


def test_killed_instances_and_a_killed_front_come_back(shop: Any) -> None:
    before = shop.status()
    with load(shop) as seen:
        os.kill(before["deployments"]["blue"]["pid"], signal.SIGKILL)
        shop.until(lambda s: s["deployments"]["blue"]["restarts"] > before["deployments"]["blue"]["restarts"], "noticed")
        shop.until_ready()
    assert set(seen) == {(200, "blue")}
    counted = shop.status()["deployments"]["blue"]["requests"]["200"]
    os.kill(before["front"]["pid"], signal.SIGKILL)
    assert shop.ask(b"[]").status == 200  # it waited in the backlog of the socket, which the host holds
    status = shop.until(lambda s: s["front"]["pid"] != before["front"]["pid"], "started again")
    assert status["front"]["restarts"] == before["front"]["restarts"] + 1
    assert status["deployments"]["green"]["pid"] == before["deployments"]["green"]["pid"]
    shop.until(lambda s: s["deployments"]["blue"]["requests"].get("200", 0) > 0.5 * counted, "counting on")


def test_a_request_whose_process_dies_is_sent_once_more_and_not_for_ever(shop: Any) -> None:
    restarts = shop.status()["deployments"]["blue"]["restarts"]
    assert shop.ask({"cut": True}).status == 503
    poison = shop.ask({"die": True}, azureml_model_deployment="blue")
    assert (poison.status, poison.json["error"]["code"]) == (503, "DeploymentEnded")
    shop.until(lambda s: s["deployments"]["blue"]["restarts"] >= restarts + 2, "restarted")
    shop.until_ready()
    assert shop.status()["deployments"]["blue"]["restarts"] == restarts + 2


def test_connections_that_a_process_closes_lose_nothing(shop: Any) -> None:
    shop.save(deployments=shop.wanted["deployments"] | {"closing": shop.wish(variables={"CLOSES": "1"})})
    shop.until_ready("closing")
    connection = shop.connect()
    asked = [shop.ask(b"[]", connection=connection, azureml_model_deployment="closing").status for _ in range(60)]
    assert set(asked) == {200}


def test_a_deployment_that_does_not_start_says_why_and_is_tried_again(shop: Any) -> None:
    wishes = dict(shop.wanted["deployments"])
    shop.save(deployments=wishes | {"bad": shop.wish(variables={"FAILS": "1"}), "lost": shop.wish(python="/no/such/python")})
    status = shop.until(lambda s: all(s["deployments"][name]["state"] == "failed" for name in ("bad", "lost")), "failed")
    assert "no such model" in status["deployments"]["bad"]["error"]
    assert "/no/such/python" in status["deployments"]["lost"]["error"]
    shop.until(lambda s: s["deployments"]["bad"]["restarts"] > 1, "tried again")
    shop.save(deployments=wishes)
    (shop.folder / "endpoint.json").write_text("{")  # a broken wish changes nothing
    wait_for(lambda: "endpoint.json is not understood" in (shop.folder / "logs/host.log").read_text(), "read")
    assert shop.ask(b"[]").status == 200
    shop.save()


def test_it_ends_with_all_its_processes_and_comes_back_as_it_was(lay: Any) -> None:
    endpoint = lay({"blue": {}, "green": {}}, traffic={"green": 100}).start().until_ready()
    with endpoint.holding("green") as held:
        endpoint.host().terminate()
        wait_for(lambda: not listens(endpoint), "closed")
    assert held[0].result().status == 200  # what is under way is answered
    endpoint.until(lambda s: s["state"] == "stopped", "stopped")
    everybody = endpoint.start().until_ready().host().children(recursive=True)
    assert endpoint.ask(b"[]").headers["azureml-model-deployment"] == "green"
    endpoint.host().kill()  # nobody can tell the others; they see it
    assert not psutil.wait_procs(everybody, timeout=60)[1]
    endpoint.start().until_ready()
    assert endpoint.ask(b"[]").headers["azureml-model-deployment"] == "green"
    assert oct(os.stat(endpoint.folder / "run").st_mode)[-3:] == "700"
    (endpoint.folder / "endpoint.json").unlink()  # removed
    assert not psutil.wait_procs([endpoint.host()], timeout=60)[1]


def listens(endpoint: Any) -> bool:
    """Say whether anybody takes connections there."""
    with socket.socket() as knocking:
        return knocking.connect_ex(("127.0.0.1", endpoint.wanted["port"])) == 0


def test_a_temporary_endpoint_ends_with_its_owner(lay: Any) -> None:
    owner = psutil.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    endpoint = lay({"blue": {}}, owner=[owner.pid, owner.create_time()]).start()
    host = endpoint.host()
    owner.kill()
    owner.wait()
    assert not psutil.wait_procs([host], timeout=60)[1]


def test_it_stays_in_the_foreground_for_systemd_and_another_interpreter_finds_the_library(lay: Any) -> None:
    endpoint = lay({"blue": {}}).start("--foreground").until_ready()
    assert endpoint.status()["pid"] == endpoint.process.pid
    lent = [Path(place) for place in endpoint.ask(b"[]").json["python_path"].split(os.pathsep)]
    assert [[entry.name for entry in place.iterdir()] for place in lent] == [["mlops_nb"]]  # and no package beside it
    assert (lent[0] / "mlops_nb").resolve() == Path(__file__).parents[2] / "mlops_nb"
    endpoint.process.terminate()
    assert endpoint.process.wait(60) == 0


def test_nobody_else_can_reach_it(shop: Any) -> None:
    listening = {c.laddr.ip for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.laddr.port == shop.wanted["port"]}
    assert listening == {"127.0.0.1"}
    others = {p.pid for p in [shop.host(), *shop.host().children(recursive=True)]}
    assert not [c for c in psutil.net_connections("inet") if c.pid in others and c.laddr.port != shop.wanted["port"]]


def test_instances_follow_the_load(lay: Any) -> None:
    scale = {"min_instances": 1, "max_instances": 3, "polling_interval": 1, "target_utilization_percentage": 70}
    endpoint = lay({"blue": {"scale": scale, "max_concurrent": 2}}).start().until_ready()
    with endpoint.holding("blue", 4) as held:
        endpoint.until(lambda s: len([i for i in s["deployments"]["blue"]["instances"] if i["state"] == "ready"]) == 3, "scaled up")
    assert [one.result().status for one in held] == [200] * 4
    endpoint.save(deployments={"blue": endpoint.wish(scale=scale | {"max_instances": 2}, max_concurrent=2)})
    endpoint.until(lambda s: len(s["deployments"]["blue"]["instances"]) == 2 and not s["leaving"], "no more than are allowed")


def test_up_at_once_and_down_slowly() -> None:
    scaler = Scaler({"min_instances": 1, "max_instances": 5, "polling_interval": 1, "target_utilization_percentage": 50}, most=2)
    instances, seen = 1, []
    for second in range(20):
        pending = 6 if second < 3 else 0  # 6 of 2 a piece at 50 %: six instances, of which five are allowed
        instances = scaler.look(float(second), pending, instances)
        seen.append(instances)
    assert seen[:3] == [1, 5, 5]
    assert seen[3:9] == [5, 5, 5, 5, 4, 4]  # five quiet seconds for one fewer
    assert seen[-1] == 2
    assert max(a - b for a, b in pairwise(seen[2:])) == 1


def test_a_process_that_hangs_is_killed_by_its_probe(lay: Any) -> None:
    probe = {"initial_delay": 0, "period": 0.2, "timeout": 1, "failure_threshold": 2}
    endpoint = lay({"blue": {"probe": probe}}).start().until_ready()
    hangs = endpoint.status()["deployments"]["blue"]
    os.kill(hangs["pid"], signal.SIGSTOP)
    endpoint.until(lambda s: s["deployments"]["blue"]["restarts"] > hangs["restarts"], "restarted")
    endpoint.until_ready()
    assert not psutil.pid_exists(hangs["pid"])
    assert endpoint.ask(b"[]").status == 200


def test_a_certificate_makes_it_https(lay: Any, tmp_path: Path) -> None:
    import ssl
    import urllib.request

    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    write_certificate(key, certificate)
    endpoint = lay({"blue": {}}, tls={"certificate": str(certificate), "key": str(key)}).start().until_ready()
    trusted = ssl.create_default_context(cafile=str(certificate))
    with urllib.request.urlopen(f"https://localhost:{endpoint.wanted['port']}/health", context=trusted) as answer:
        assert answer.status == 200
    assert not endpoint.raw(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 200")


def write_certificate(key: Path, certificate: Path) -> None:
    """Make a certificate for localhost that signs itself."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    secret = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, secret.public_key(), 1, now - timedelta(hours=1), now + timedelta(hours=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    certificate.write_bytes(builder.sign(secret, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    key.write_bytes(secret.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
