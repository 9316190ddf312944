"""The generated nginx configuration, in a real nginx before stand-ins of the workers: it does what our own front does."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from mlops_nb.core import ledger
from mlops_nb.core.records import SpecificationError
from mlops_nb.core.settings import Settings, load_settings
from mlops_nb.hosting.nginx import write_nginx
from mlops_nb.hosting.source import worker_socket

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
needs_nginx = pytest.mark.skipif(NGINX is None, reason="no nginx: apt-get install nginx-light")
KEYS = {"primary": "tJ4+x/9.zQ=a^(b)|$c", "secondary": "s2", "signing": "nobody's"}  # as awkward as a key may be
PROBE = "probe-key"
KEY = {"authorization": f"Bearer {KEYS['primary']}"}


class Workers:
    """Stand-ins of the deployments' instances: each says who it is, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.go = threading.Event()  # what is asked with `hold` waits for it
        self.running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(self, name: str, path: str) -> None:
        """Answer as one instance on a Unix socket, in a thread."""

        async def score(request: Request) -> JSONResponse:
            self.asked.append(
                {"by": name, "path": request.url.path, "headers": dict(request.headers), "body": await request.body()}
            )
            while name.startswith(request.query_params.get("hold", "nobody")) and not self.go.is_set():
                await asyncio.sleep(0.01)
            return JSONResponse(
                [name], int(request.query_params.get("status", 200)), {"x-request-id": request.headers["x-request-id"]}
            )

        app = Starlette(routes=[Route("/{path:path}", score, methods=["GET", "POST"])])
        Path(path).parent.mkdir(parents=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()  # who asks before the thread is there waits for it
        config = uvicorn.Config(app, log_level="error", lifespan="off", timeout_keep_alive=3600)  # as a worker's
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=[[listener]], daemon=True)
        thread.start()
        self.running.append((server, thread))

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Let what is asked with `hold=NAME` of these instances wait for the block's end."""
        self.go.clear()
        try:
            yield
        finally:
            self.go.set()

    def until_asked(self, happened: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """Wait for requests that come by themselves: the copies for a shadow."""
        until = time.monotonic() + 60
        while not happened(self.asked[:]):
            assert time.monotonic() < until, self.asked
            time.sleep(0.02)
        return self.asked[:]

    def stop(self) -> None:
        for server, _ in self.running:
            server.should_exit = True
        for _, thread in self.running:
            thread.join(60)


class Site(NamedTuple):
    """An endpoint behind nginx."""

    settings: Settings
    url: str
    folder: Path
    runtime: str
    workers: Workers
    lay: Callable[..., dict[str, Any]]

    def post(
        self, path: str = "/score", data: Any = b"[[1]]", key: dict[str, str] = KEY, **headers: str
    ) -> requests.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return requests.post(self.url + path, data=data, headers=key | named, timeout=60)

    def renew(self, **changes: Any) -> None:
        """Change the endpoint, generate, and have nginx read it: what a person does after a shift of traffic."""
        self.lay(self.settings, KEYS, port=int(self.url.rpartition(":")[2]), **changes)
        write_nginx(self.settings, "diamonds", self.folder, runtime=self.runtime)
        before = self.workers_of_nginx()
        nginx(self.folder, "-s", "reload")
        until = time.monotonic() + 60
        while self.workers_of_nginx() & before:
            assert time.monotonic() < until
            time.sleep(0.02)

    def workers_of_nginx(self) -> set[int]:
        import psutil

        return {child.pid for child in psutil.Process(int((self.folder / "nginx.pid").read_text())).children()}


def nginx(folder: Path, *arguments: str) -> str:
    who = ["-g", "user root;"] if os.geteuid() == 0 else []  # its workers would be nobody, who may not into this folder
    command = [str(NGINX), "-e", "stderr", "-p", str(folder), "-c", "nginx.conf", *who, *arguments]
    with tempfile.TemporaryFile("w+") as told:  # no pipe: the daemon would keep it open
        done = subprocess.run(command, stdout=told, stderr=told, timeout=120)
        told.seek(0)
        text = told.read()
    assert done.returncode == 0, text
    until = time.monotonic() + 60
    while not arguments and not ((folder / "nginx.pid").exists() and (folder / "nginx.pid").read_text()):
        assert time.monotonic() < until  # the daemon writes it by itself
        time.sleep(0.02)
    return text


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, lay_endpoint: Callable[..., dict[str, Any]]) -> Iterator[Site]:
    """An nginx before three stand-ins: two instances of blue, one of green."""
    root = Path(__file__).resolve().parents[2]
    place = tmp_path_factory.mktemp("s")
    shutil.copy(root / "settings.ini", place)
    shutil.copytree(root / "environments", place / "environments")
    settings = load_settings("dev", place)
    wanted = lay_endpoint(settings, KEYS, mirror_traffic={"green": 50}, traffic={"blue": 100})
    workers, folder, runtime = Workers(), place / "nginx", str(place / "run")
    for name, n in (("blue", 0), ("blue", 1), ("green", 0)):
        workers.start(f"{name}-{n}", worker_socket(runtime, "dev", "diamonds", name, n))
    write_nginx(settings, "diamonds", folder, runtime=runtime)
    nginx(folder)
    try:
        yield Site(settings, f"http://127.0.0.1:{wanted['port']}", folder, runtime, workers, lay_endpoint)
    finally:
        nginx(folder, "-s", "stop")
        workers.stop()


def names(answers: list[requests.Response]) -> Counter[str]:
    return Counter(answer.json()[0].partition("-")[0] for answer in answers)


@needs_nginx
def test_nginx_finds_nothing_to_complain_about(site: Site) -> None:
    told = nginx(site.folder, "-t")
    assert "[warn]" not in told
    assert "[emerg]" not in told


@needs_nginx
def test_a_request_with_a_key_is_answered_and_the_key_goes_no_further(site: Site) -> None:
    answer = site.post("/score?verbose=1", b"[[1, 2]]", content_type="application/json", x_request_id="mine-7")
    assert (answer.status_code, answer.json()[0][:4], answer.headers["x-request-id"]) == (200, "blue", "mine-7")
    assert "nginx/" not in answer.headers["server"]
    asked = next(
        one for one in site.workers.asked if one["headers"]["x-request-id"] == "mine-7" and one["by"] != "green-0"
    )
    assert (asked["path"], asked["body"], asked["headers"]["content-type"]) == (
        "/score",
        b"[[1, 2]]",
        "application/json",
    )
    assert "authorization" not in asked["headers"]
    assert asked["headers"]["azureml-model-deployment"] == "blue"


@needs_nginx
@pytest.mark.parametrize(
    "given",
    [
        "",
        "Bearer",
        "Bearer s",
        "Bearer S2",
        "Bearer s2 ",
        "Bearer s2x",
        "Basic s2",
        KEYS["primary"],
        f"Bearer {KEYS['primary']}".upper(),
        f"Bearer {KEYS['signing']}",
    ],
)
def test_a_wrong_key_is_refused(site: Site, given: str) -> None:
    name = f"stranger-{given.encode().hex()}"
    with socket.create_connection(
        ("127.0.0.1", int(site.url.rpartition(":")[2]))
    ) as raw:  # requests would strip blanks
        head = f"POST /score HTTP/1.1\r\nhost: x\r\nauthorization: {given}\r\nx-request-id: {name}\r\ncontent-length: 2"
        raw.sendall(f"{head}\r\nconnection: close\r\n\r\n[]".encode())
        answer = b"".join(iter(lambda: raw.recv(65536), b""))
    known = [one for one in site.workers.asked if one["headers"]["x-request-id"] == name]
    if given == "Bearer s2 ":  # blanks around a header's value are none of it
        assert answer.startswith(b"HTTP/1.1 200")
        assert known
        return
    assert answer.startswith(b"HTTP/1.1 401")
    assert b"www-authenticate: Bearer" in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "Unauthorized"
    assert not known


@needs_nginx
def test_both_keys_open_and_without_one_only_health_is_told(site: Site) -> None:
    assert site.post(key={"authorization": "bearer s2"}).status_code == 200
    found = {
        path: requests.get(site.url + path, timeout=60).status_code
        for path in (
            "/",
            "/health",
            "/ready",
            "/version",
            "/openapi.json",
            "/deployments/blue/score",
            "/shadow",
            "/metrics",
            "/run/../score",
        )
    }
    assert found == {
        "/": 200,
        "/health": 200,
        "/ready": 200,
        "/version": 401,
        "/openapi.json": 401,
        "/deployments/blue/score": 404,
        "/shadow": 404,
        "/metrics": 404,
        "/run/../score": 401,
    }


@needs_nginx
def test_the_header_pins_a_known_deployment_and_no_other(site: Site) -> None:
    assert names([site.post(azureml_model_deployment="green") for _ in range(5)]) == {"green": 5}
    for unknown in ("red", "GREEN", "green/../blue", "green\tblue", "$host", "127.0.0.1:1", "ml_dev_diamonds_green"):
        answer = site.post(azureml_model_deployment=unknown)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "NotFound"), unknown


@needs_nginx
def test_a_share_of_the_requests_reaches_the_shadow_too(site: Site) -> None:
    site.workers.asked.clear()
    answers = [site.post(data=b"[[%d]]" % n) for n in range(200)]
    assert names(answers) == {"blue": 200}
    asked = site.workers.until_asked(lambda asked: sum(one["by"] == "green-0" for one in asked) >= 60)
    shadowed = [one for one in asked if one["by"] == "green-0"]
    assert 60 <= len(shadowed) <= 140  # 100 expected, deviation 7
    assert all(one["path"] == "/score" and "authorization" not in one["headers"] for one in shadowed)
    live = {one["headers"]["x-request-id"]: one["body"] for one in asked if one["by"] != "green-0"}
    assert all(live[one["headers"]["x-request-id"]] == one["body"] for one in shadowed)  # the same request, by its name
    assert {one["headers"]["azureml-model-deployment"] for one in shadowed} == {"green"}
    site.workers.asked.clear()
    for _ in range(20):
        site.post(data=b"[[777]]", azureml_model_deployment="blue")  # somebody's test of blue: not mirrored
    pinned = [one for one in site.workers.asked if "777" in str(one["body"])]  # a copy from above may come late
    assert len(pinned) == 20
    assert {one["by"][:4] for one in pinned} == {"blue"}


@needs_nginx
def test_a_slow_shadow_delays_no_answer(site: Site) -> None:
    site.renew(mirror_traffic={"green": 100}, traffic={"blue": 100}, timeout_ms=120_000)
    site.workers.asked.clear()
    with site.workers.holding():  # who waited for the shadow would not be answered
        assert names([site.post("/score?hold=green") for _ in range(12)]) == {"blue": 12}
        site.workers.until_asked(lambda asked: "green-0" in {one["by"] for one in asked})


@needs_nginx
def test_the_traffic_is_split_by_the_shares(site: Site) -> None:
    site.renew(traffic={"blue": 80, "green": 20})
    with requests.Session() as session:  # one connection: the share holds per request, not per client
        answers = [session.post(f"{site.url}/score", data=b"[]", headers=KEY, timeout=60) for _ in range(600)]
    assert 75 <= names(answers)["green"] <= 170  # 120 expected, deviation 10
    instances = Counter(answer.json()[0] for answer in answers)
    assert abs(instances["blue-0"] - instances["blue-1"]) <= 4  # in turns
    asked = {answer.headers["x-request-id"] for answer in answers}
    logged = log_of(site, asked)
    assert Counter(line["DeploymentName"] for line in logged) == names(answers)
    assert {(line["Method"], line["Path"], line["ResponseCode"]) for line in logged} == {("POST", "/score", 200)}
    assert all(0 <= line["TotalDurationMs"] < 60_000 for line in logged)


def log_of(site: Site, asked: set[str]) -> list[dict[str, Any]]:
    """Read the traffic log's lines about some requests; nginx writes a line after the answer is sent."""
    until = time.monotonic() + 60
    while True:
        written = (site.folder / "logs/traffic.jsonl").read_text().splitlines(keepends=True)
        lines = [json.loads(line) for line in written if line.endswith("\n")]
        found = [line for line in lines if line["XRequestId"] in asked]
        if len(found) == len(asked):
            return found
        assert time.monotonic() < until
        time.sleep(0.05)


@needs_nginx
def test_no_traffic_is_nobodys(site: Site) -> None:
    site.renew(traffic={})
    assert site.post().status_code == 404
    assert requests.get(f"{site.url}/ready", timeout=60).status_code == 503
    assert names([site.post(azureml_model_deployment="blue")]) == {"blue": 1}
    site.renew(traffic={"blue": 100})
    assert site.post().status_code == 200


@needs_nginx
def test_what_is_too_large_too_slow_or_too_much_is_told_so(site: Site) -> None:
    site.renew(traffic={"green": 100}, timeout_ms=700)
    large = site.post(data=b"x" * 20_001)
    assert (large.status_code, large.json()["error"]["code"]) == (413, "TooLarge")
    chunked = site.post(data=iter([b"x" * 15_000] * 2))
    assert chunked.status_code == 413
    with site.workers.holding():
        slow = site.post("/score?hold=green")
    assert (slow.status_code, slow.json()["error"]["code"]) == (408, "RequestTimeout")
    assert slow.elapsed.total_seconds() > 0.6
    site.renew(traffic={"green": 100}, timeout_ms=60_000)
    with ThreadPoolExecutor(8) as pool:
        with site.workers.holding():
            asked = [pool.submit(site.post, "/score?hold=green") for _ in range(8)]
            refused = list(islice(as_completed(asked, timeout=60), 6))
            assert {one.result().status_code for one in refused} == {429}
        found = [one.result() for one in asked]
    assert Counter(answer.status_code for answer in found) == {
        200: 2,
        429: 6,
    }  # max_concurrent 1, as many again may wait
    assert {answer.headers.get("retry-after") for answer in found if answer.status_code == 429} == {"1"}


@needs_nginx
def test_the_workers_own_answers_pass_unchanged(site: Site) -> None:
    site.renew(traffic={"blue": 100})
    failed = site.post("/score?status=424")
    assert (failed.status_code, failed.json()[0][:4]) == (424, "blue")
    answer = site.post(x_mlops_nb_probe=PROBE, x_request_id="probe")
    assert answer.status_code == 200
    site.post(x_mlops_nb_probe="guessed", x_request_id="guess")
    seen = {one["headers"]["x-request-id"]: one["headers"].get("x-mlops-nb-probe") for one in site.workers.asked[-2:]}
    assert seen == {"probe": "1", "guess": None}  # the worker is told, never the key itself


@needs_nginx
def test_a_request_whose_instance_is_gone_is_sent_to_another(site: Site) -> None:
    site.renew(traffic={"blue": 100})
    sockets = [Path(worker_socket(site.runtime, "dev", "diamonds", "blue", n)) for n in (0, 1)]
    sockets[1].rename(sockets[1].with_name("away"))
    try:
        site.renew(traffic={"blue": 100})  # no connection to it is kept
        assert Counter(site.post().json()[0] for _ in range(20)) == {"blue-0": 20}
        died = dying(sockets[1])
        assert Counter(site.post().json()[0] for _ in range(20)) == {"blue-0": 20}
        assert len(died) >= 5  # it had them, and never answered
        sockets[0].rename(sockets[0].with_name("away"))
        site.renew(traffic={"blue": 100})
        answer = site.post()
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "NotReady")
        assert requests.get(f"{site.url}/ready", timeout=60).status_code == 503
        assert requests.get(f"{site.url}/health", timeout=60).status_code == 200
    finally:
        for path in sockets:
            if path.with_name("away").exists():
                path.with_name("away").replace(path)
    assert site.post().status_code == 200


def dying(path: Path) -> list[bytes]:
    """Take requests on a Unix socket and hang up on each, as a killed worker does; returns what came."""
    came: list[bytes] = []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                came.append(connection.recv(65536))

    threading.Thread(target=serve, daemon=True).start()
    return came


@needs_nginx
@pytest.mark.parametrize(
    "sent",
    [
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused(site: Site, sent: bytes) -> None:
    before = len(site.workers.asked)
    with socket.create_connection(("127.0.0.1", int(site.url.rpartition(":")[2]))) as raw:
        raw.settimeout(60)
        raw.sendall(sent)
        answer = b"".join(iter(lambda: raw.recv(65536), b""))
    assert b" 400 " in answer.splitlines()[0]
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "BadRequest"
    assert len(site.workers.asked) == before


def test_keys_are_nobody_elses(project: Settings, lay_endpoint: Callable[..., Any], tmp_path: Path) -> None:
    lay_endpoint(project, KEYS)
    paths = write_nginx(project, "diamonds", tmp_path / "out")
    texts = {path.name: path.read_text() for path in paths}
    assert (tmp_path / "out/keys.conf").stat().st_mode & 0o777 == 0o600
    holders = [name for name, text in texts.items() if "s2" in text or PROBE in text or "x2dkey" in text]
    assert holders == ["keys.conf"]
    assert KEYS["signing"] not in "".join(texts.values())
    [entry] = ledger.entries(project, action="generate")
    assert entry.subject == "endpoint:dev.diamonds"


def test_it_listens_to_this_machine_alone_unless_told_otherwise(
    project: Settings, lay_endpoint: Callable[..., Any], tmp_path: Path
) -> None:
    wanted = lay_endpoint(project, KEYS)
    write_nginx(project, "diamonds", tmp_path)
    assert f"listen 127.0.0.1:{wanted['port']} " in (tmp_path / "endpoint.conf").read_text()
    with pytest.raises(SpecificationError, match="in the clear"):
        write_nginx(project, "diamonds", tmp_path, listen="0.0.0.0:80")


def test_what_nginx_cannot_do_is_refused(project: Settings, lay_endpoint: Callable[..., Any], tmp_path: Path) -> None:
    lay_endpoint(project, KEYS, auth_mode="aad_token")
    with pytest.raises(SpecificationError) as wrong:
        write_nginx(project, "diamonds", tmp_path, servers={"red": ["a:1"], "blue": ["1; evil"]})
    assert len(wrong.value.args[0] if isinstance(wrong.value.args[0], list) else str(wrong.value).splitlines()) == 3
    lay_endpoint(project, KEYS)
    with pytest.raises(SpecificationError, match="shorter --runtime"):
        write_nginx(project, "diamonds", tmp_path, runtime=f"/run/{'deep/' * 20}")
    with pytest.raises(LookupError, match="No endpoint 'rubies'"):
        write_nginx(project, "rubies", tmp_path)


@needs_nginx
@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl: apt-get install openssl")
def test_with_a_certificate_it_speaks_https_to_workers_behind_ports(
    project: Settings, lay_endpoint: Callable[..., Any], tmp_path: Path
) -> None:
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            tmp_path / "key.pem",
            "-out",
            tmp_path / "cert.pem",
        ],
        check=True,
        capture_output=True,
    )
    wanted = lay_endpoint(
        project, KEYS, tls={"certificate": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}
    )
    write_nginx(
        project, "diamonds", tmp_path / "out", servers={"blue": ["127.0.0.1:9"], "green": ["127.0.0.1:9", "[::1]:9"]}
    )
    nginx(tmp_path / "out")
    try:
        url = f"https://127.0.0.1:{wanted['port']}"
        assert requests.get(f"{url}/health", verify=str(tmp_path / "cert.pem"), timeout=60).json() == {
            "status": "alive"
        }
        assert (
            requests.post(f"{url}/score", headers=KEY, verify=str(tmp_path / "cert.pem"), timeout=60).status_code == 503
        )
        assert requests.get(f"http://127.0.0.1:{wanted['port']}/health", timeout=60).status_code == 400
    finally:
        nginx(tmp_path / "out", "-s", "stop")
