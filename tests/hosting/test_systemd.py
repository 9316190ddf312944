"""The generated units: systemd takes them, they start what they should, and they leave a process little to do harm with."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mlops_nb.core.records import SpecificationError
from mlops_nb.core.settings import Settings
from mlops_nb.hosting.nginx import write_nginx
from mlops_nb.hosting.systemd import write_systemd
from mlops_nb.outer_loop.state import read_status
from mlops_nb.scoring.config import Config, Wish

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
ACTIVATE = shutil.which("systemd-socket-activate")
ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="no systemd-analyze: apt-get install systemd")
ME = subprocess.run(["id", "-un"], capture_output=True, text=True).stdout.strip()


def read(path: Path) -> dict[str, list[str]]:
    """Read a unit: key -> its values."""
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            found.setdefault(line.partition("=")[0], []).append(line.partition("=")[2])
    return found


def words(line: str, instance: str = "") -> list[str]:
    """Split a setting as systemd does."""
    return [word.replace("%%", "\0").replace("%i", instance).replace("\0", "%") for word in shlex.split(line)]


def arguments(line: str, instance: str = "") -> list[str]:
    """Split a command line as systemd does: in it, variables are filled in, too."""
    assert not re.search(r"(?<!\$)\$(\$\$)*(?!\$)", line)
    return [word.replace("$$", "$") for word in words(line, instance)]


def verify(folder: Path) -> str:
    """Let systemd itself read the units, each template with an instance."""
    units = [path.with_name(path.name.replace("@.", "@0.")) for path in folder.iterdir() if path.suffix != ".slice"]
    for path in folder.glob("*@.service"):
        shutil.copy(path, path.with_name(path.name.replace("@.", "@0.")))
    done = subprocess.run(
        [str(ANALYZE), "verify", "--man=no", "--recursive-errors=no", *map(str, units)],
        capture_output=True,
        text=True,
        env={"SYSTEMD_UNIT_PATH": f"{folder}:"},
    )
    return "" if done.returncode == 0 and not done.stderr else f"{done.returncode} {done.stderr}"


@needs_systemd
def test_systemd_takes_the_units(project: Settings, lay_endpoint: Callable[..., Any], tmp_path: Path) -> None:
    lay_endpoint(project)
    write_systemd(project, "diamonds", tmp_path / "host", memory="8G")
    write_nginx(project, "diamonds", tmp_path / "nginx", group="www-data")
    assert verify(tmp_path / "host") == ""
    assert verify(tmp_path / "nginx/systemd") == ""
    (tmp_path / "host/mlops-nb-dev-diamonds.service").write_text("[Service]\nExecStart=/nowhere\nRestart=sometimes\n")
    assert "sometimes" in verify(tmp_path / "host")  # it does look


@needs_systemd
def test_what_runs_is_exposed_to_little(project: Settings, lay_endpoint: Callable[..., Any], tmp_path: Path) -> None:
    lay_endpoint(project)
    write_systemd(project, "diamonds", tmp_path / "host", user="serving")
    write_nginx(project, "diamonds", tmp_path / "nginx", user="serving")
    units = [*tmp_path.glob("host/*.service"), *tmp_path.glob("nginx/systemd/*.service")]
    assert len(units) == 4
    for unit in units:
        done = subprocess.run(
            [str(ANALYZE), "security", "--offline=yes", "--threshold=35", "--no-pager", str(unit)],
            capture_output=True,
            text=True,
        )  # in tenths: a service as it comes is at 96
        assert done.returncode == 0, f"{unit.name}: {done.stdout}{done.stderr}"


def test_systemd_holds_the_socket_and_hands_it_to_the_host(
    project: Settings, lay_endpoint: Callable[..., Any], tmp_path: Path
) -> None:
    wanted = lay_endpoint(project)
    write_systemd(project, "diamonds", tmp_path, memory="8G")
    listening, service = (read(tmp_path / f"mlops-nb-dev-diamonds.{kind}") for kind in ("socket", "service"))
    assert listening["ListenStream"] == [f"127.0.0.1:{wanted['port']}"]
    folder = str(project.endpoints / "diamonds")
    assert arguments(service["ExecStart"][0]) == [
        sys.executable,
        "-P",
        "-m",
        "mlops_nb.serving.host",
        folder,
        "3",
        "--foreground",
    ]
    assert (service["Restart"], service["User"], service["MemoryMax"], service["Slice"]) == (
        ["always"],
        [ME],
        ["8G"],
        ["mlops_nb.slice"],
    )
    assert float(service["TimeoutStopSec"][0]) > 5 + 10  # the longest request, then the workers' own grace
    assert service["ReadWritePaths"] == [f"-{folder}", f"-{project.collected / 'diamonds'}"]
    assert (tmp_path / "mlops-nb.target").is_file()


def test_a_worker_gets_its_whole_configuration(
    project: Settings, lay_endpoint: Callable[..., Any], tmp_path: Path
) -> None:
    wish = Wish(
        "model:dev.diamonds/1",
        '/mod "els"/$1\\n',
        700,
        instances=3,
        variables={"GREETING": "50% of $HOME; 'yes' %i", "PLAIN": "1"},
        collector={"collections": {"model_inputs": 0.5}},
    )
    lay_endpoint(project, deployments={"blue": vars(wish)}, traffic={"blue": 100})
    write_nginx(project, "diamonds", tmp_path)
    unit = read(tmp_path / "systemd/mlops-nb-dev-diamonds-blue@.service")
    config = Config.of(json.loads(arguments(unit["ExecStart"][0], "2")[-1]))
    assert (config.deployment, config.instance, config.socket) == (
        "blue",
        "blue-2",
        "/run/mlops-nb/dev-diamonds/blue-2/sock",
    )
    assert config.wish == wish
    assert unit["RuntimeDirectory"] == ["mlops-nb/dev-diamonds/blue-%i"]
    assert "GREETING=50% of $HOME; 'yes' %i" in [words(line, "2")[0] for line in unit["Environment"]]
    wants = read(tmp_path / "systemd/mlops-nb-dev-diamonds-nginx.service")["Wants"][0].split()
    assert wants == [f"mlops-nb-dev-diamonds-blue@{n}.service" for n in range(3)]
    served = set(re.findall(r"unix:(\S+)", (tmp_path / "endpoint.conf").read_text()))
    assert served == {
        f"/run/mlops-nb/dev-diamonds/blue-{n}/sock" for n in range(3)
    }  # nginx and systemd name them alike


def test_without_a_port_there_is_nothing_to_listen_on(
    project: Settings, lay_endpoint: Callable[..., Any], tmp_path: Path
) -> None:
    lay_endpoint(project, port=0)
    with pytest.raises(SpecificationError, match="no port yet"):
        write_systemd(project, "diamonds", tmp_path)


def ask(address: str | int, body: bytes) -> Any:  # path of a socket, or port
    """Score at a socket or a port; waits for somebody to listen there."""
    request = b"POST /score HTTP/1.1\r\nhost: x\r\nauthorization: Bearer p1\r\ncontent-type: application/json\r\nconnection: close\r\n"
    until = time.monotonic() + 120
    while True:
        with socket.socket(socket.AF_INET if isinstance(address, int) else socket.AF_UNIX) as raw:
            try:
                raw.connect(("127.0.0.1", address) if isinstance(address, int) else address)
            except OSError:
                assert time.monotonic() < until
                time.sleep(0.05)
                continue
            raw.sendall(request + b"content-length: %d\r\n\r\n%b" % (len(body), body))
            return json.loads(b"".join(iter(lambda: raw.recv(65536), b"")).partition(b"\r\n\r\n")[2])


@contextmanager
def running(command: list[Any], log: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command as systemd does, without anybody at its standard input; it is told to end, and ends."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.DEVNULL, stdout=output, stderr=output, **options
        )
    try:
        yield process
        assert process.poll() is None, log.read_text()
        process.terminate()
        assert process.wait(60) in (0, -15), log.read_text()
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def doubling(tmp_path: Path) -> Wish:
    """A deployment that starts at once and doubles numbers."""
    code = tmp_path / "code"
    code.mkdir()
    (code / "score.py").write_text(
        "import json\ndef init(): pass\ndef run(raw_data): return [2 * x for x in json.loads(raw_data)]\n"
    )
    return Wish("model:dev.double/1", str(tmp_path), script={"code": str(code), "scoring_script": "score.py"})


@pytest.fixture
def runtime() -> Iterator[str]:
    """A folder with a short name: an address of a socket has no more than 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="mlops-nb-") as folder:
        yield folder


@pytest.mark.slow
def test_the_worker_of_a_unit_answers_also_behind_nginx(
    project: Settings, lay_endpoint: Callable[..., Any], tmp_path: Path, doubling: Wish, runtime: str
) -> None:
    wanted = lay_endpoint(project, deployments={"blue": vars(doubling)}, traffic={"blue": 100})
    write_nginx(project, "diamonds", tmp_path / "out", runtime=runtime)
    unit = read(tmp_path / "out/systemd/mlops-nb-dev-diamonds-blue@.service")
    place = Path(runtime, "dev-diamonds/blue-0")
    place.mkdir(parents=True)  # systemd's RuntimeDirectory
    variables = dict(words(line)[0].split("=", 1) for line in unit["Environment"])
    command = arguments(unit["ExecStart"][0], "0")
    with running(command, tmp_path / "log", cwd=unit["WorkingDirectory"][0], env=variables):
        assert ask(str(place / "sock"), b"[1, 2]") == [2, 4]
        if NGINX is None:
            return
        [line] = read(tmp_path / "out/systemd/mlops-nb-dev-diamonds-nginx.service")["ExecStart"]
        proxy = [NGINX, *arguments(line)[1:-1], ("user root; " if os.geteuid() == 0 else "") + arguments(line)[-1]]
        with running(proxy, tmp_path / "log"):
            assert ask(wanted["port"], b"[3, 4]") == [6, 8]


@pytest.mark.slow
@pytest.mark.skipif(ACTIVATE is None, reason="no systemd-socket-activate: apt-get install systemd")
def test_the_host_answers_on_a_socket_of_systemds(
    project: Settings, lay_endpoint: Callable[..., Any], tmp_path: Path, doubling: Wish
) -> None:
    wanted = lay_endpoint(project, deployments={"blue": vars(doubling)}, traffic={"blue": 100})
    write_systemd(project, "diamonds", tmp_path / "out")
    socket_, service = (read(tmp_path / f"out/mlops-nb-dev-diamonds.{kind}") for kind in ("socket", "service"))
    command = [ACTIVATE, "-l", socket_["ListenStream"][0], *arguments(service["ExecStart"][0])]
    with running(command, tmp_path / "log", cwd=service["WorkingDirectory"][0]):
        until = time.monotonic() + 120
        while (answer := ask(wanted["port"], b"[5]")) != [10]:  # until the deployment is ready, the front says so
            assert answer["error"]["code"]
            assert time.monotonic() < until
            time.sleep(0.1)
        assert read_status(project, "diamonds")["state"] == "running"
