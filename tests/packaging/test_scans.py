"""The tools one by one: what each finds, how it says where, and that it says so when it cannot look."""

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import nbformat
import pytest

from mlops_nb.packaging import scans
from mlops_nb.packaging.audit import Package
from mlops_nb.packaging.lock import Pin, make_lock, read_pins
from mlops_nb.packaging.osv import find_known, is_affected, read_records

PASSWORD = "password = 'correct-horse-battery'"  # noqa: S105 pragma: allowlist secret


def notebook(path: Path, *cells: str, output: str = "") -> tuple[str, Path]:
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    if output:
        page.cells[-1].outputs = [nbformat.v4.new_output("stream", text=output)]
    nbformat.write(page, path)
    return path.name, path


def test_bandit_reads_cells_with_their_magics_and_takes_an_accepted_line(tmp_path: Path) -> None:
    cells = ["%matplotlib inline\nfiles = !ls\nx = eval('1')", "y = eval('2')  # noqa: S307 a lesson", "%%bash\nls"]
    page = notebook(tmp_path / "a.ipynb", *cells)
    check = scans.scan_code([], [page])
    assert [finding.place for finding in check.open] == ["a.ipynb cell 1:3"]
    assert [(finding.place, finding.accepted) for finding in check.findings if finding.accepted] == [
        ("a.ipynb cell 2:1", "noqa: S307 on line 1")]
    assert not check.passed


def test_code_that_cannot_be_read_has_not_passed(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def broken(:\n")
    check = scans.scan_code([("code", tmp_path)], [])
    assert [finding.place for finding in check.open] == ["code/a.py"]


def test_secrets_are_named_by_place_and_kind_and_names_of_things_are_none(tmp_path: Path) -> None:
    number = "12f65c9b470abda6dc35cf8e63cc574b"
    other = number[::-1]
    page = notebook(tmp_path / "a.ipynb", "1", output=f"ModelVersion(run_id='{number}')\n{{'digest': '{number}'}}\nkey: '{other}'\n")
    (tmp_path / "MLmodel").write_text(f"model_uuid: {number}\nrun_id: {number}\n")
    (tmp_path / "score.py").write_text(f"{PASSWORD}\n{PASSWORD}  # pragma: allowlist secret\n")
    check = scans.scan_secrets([("", tmp_path)], [page])
    places = {(finding.place, finding.what) for finding in check.findings if not finding.place.startswith("a.ipynb:")}
    assert places == {("score.py:1", "Secret Keyword"), ("a.ipynb cell 1 output:3", "Hex High Entropy String")}
    assert "battery" not in json.dumps([vars(finding) for finding in check.findings])


def test_a_tool_that_is_not_there_is_said_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    [check] = scans.run_checks({"checkov": lambda: scans.scan_dockerfile(tmp_path)}, {})
    assert check.state == "failed"
    assert "checkov is not installed" in check.detail


@pytest.mark.slow
def test_checkov_reads_the_dockerfile(made: Package, tmp_path: Path) -> None:
    try:
        scans.find_checkov()
    except scans.CannotLook:
        pytest.skip("no checkov: ci/setup installs it")
    lines = (Path(made.folder) / "Dockerfile").read_text().splitlines()
    (tmp_path / "Dockerfile").write_text("\n".join(line for line in lines if not line.startswith(("USER", "HEALTHCHECK"))))
    check = scans.scan_dockerfile(tmp_path)
    found = {finding.what.partition(":")[0] for finding in check.open}
    assert found == {"CKV_DOCKER_2", "CKV_DOCKER_3"}  # what was taken out, and nothing else: ours has no fault


# --- vulnerabilities ---


@pytest.fixture
def service() -> Iterator[Any]:
    """An OSV service on this machine; `known` is what it knows, by package."""

    class Answer(BaseHTTPRequestHandler):
        known: dict[str, str] = {}  # noqa: RUF012

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            name = asked["package"]["name"]
            ids = [self.known[name]] if name in self.known else []
            events = [{"introduced": "0"}, {"fixed": "99"}]
            affected = [{"package": {"ecosystem": "PyPI", "name": name}, "ranges": [{"type": "ECOSYSTEM", "events": events}]}]
            found = [{"id": one, "summary": "bad", "affected": affected} for one in ids]
            body = json.dumps({"vulns": found} if found else {}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        Answer.known = {}
        yield Answer, f"http://127.0.0.1:{server.server_port}/v1/query"
        server.shutdown()


def test_pip_audit_asks_the_mirror_and_a_mirror_that_knows_nothing_is_no_mirror(service: Any) -> None:
    answer, address = service
    lock = "idna==3.10 \\\n    --hash=sha256:" + "1" * 64 + "\nappnope==1.0.0 ; sys_platform == 'darwin'\n"
    lock += "numpy==2.3.1 ; python_full_version < '3.12'\nnumpy==2.4.6 ; python_full_version >= '3.12'\n"
    with pytest.raises(scans.CannotLook, match=r"knows no fault of django 2.0"):
        scans.scan_packages(lock, address)
    answer.known = {"django": "GHSA-bait", "appnope": "GHSA-old"}
    [finding] = scans.scan_packages(lock, address).open
    assert finding.place == "lock.txt:3 appnope 1.0.0"
    assert finding.what == "GHSA-old; mended in 99"


@pytest.mark.parametrize(
    ("version", "affected"),
    [("0.9", False), ("1.0", True), ("1.5", True), ("1.5.post1", True), ("1.6rc1", True), ("1.6", False), ("2.0", False),
     ("2.1", True), ("2.2", True), ("2.3", False), ("3.7", True), ("3.7.0", True)],
)
def test_ranges_are_read_as_osv_says(version: str, affected: bool) -> None:
    record = {"versions": ["3.7"], "ranges": [
        {"type": "ECOSYSTEM", "events": [{"introduced": "1.0"}, {"fixed": "1.6"}, {"introduced": "2.1"}, {"last_affected": "2.2"}]},
        {"type": "GIT", "events": [{"introduced": "0"}]}]}
    assert is_affected(version, record) == affected


def test_a_copy_of_the_database_is_read_from_a_folder_or_its_archive(tmp_path: Path) -> None:
    ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}]}]
    affected = [{"package": {"ecosystem": "PyPI", "name": "Jinja_2"}, "ranges": ranges},
                {"package": {"ecosystem": "npm", "name": "idna"}, "versions": ["3.10"]}]
    (tmp_path / "db").mkdir()
    (tmp_path / "db/a.json").write_text(json.dumps({"id": "GHSA-a", "affected": affected}))
    (tmp_path / "db/b.json").write_text(json.dumps({"id": "GHSA-b", "affected": affected, "withdrawn": "2026-01-01"}))
    (tmp_path / "db/c.json").write_text(json.dumps({"id": "GHSA-c", "affected": affected[1:]}))
    archive = shutil.make_archive(str(tmp_path / "all"), "zip", tmp_path / "db")
    pins = [Pin("jinja-2", "2.4.1", 1), Pin("idna", "3.10", 2)]
    for place in (tmp_path / "db", Path(archive)):
        assert [finding.what for finding in find_known(pins, read_records(place))] == [
            "GHSA-a: known vulnerability; mended in no version yet"]
    (tmp_path / "db/d.json").write_text("[]")
    with pytest.raises(ValueError, match=r"d.json is no OSV record"):
        list(read_records(tmp_path / "db"))


# --- the lock ---


def test_a_lock_is_exact() -> None:
    with pytest.raises(ValueError, match=r"line 2: 'idna>=3' is no exact pin"):
        read_pins("# ours\nidna>=3\n")
    hashes = "".join(f" \\\n    --hash=sha256:{letter * 64}" for letter in "ab")
    [pin] = read_pins(f"uvloop[dev]==0.22.1 ; sys_platform != 'win32'{hashes}\n")
    assert (pin.name, pin.version, pin.marker, len(pin.hashes)) == ("uvloop", "0.22.1", "sys_platform != 'win32'", 2)


def test_where_no_index_can_be_reached_what_is_installed_is_pinned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from importlib.metadata import version

    for name in ("UV_DEFAULT_INDEX", "PIP_INDEX_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    lock = make_lock(["starlette", "uvicorn>=0.1"], "", "3.11")
    pins = {pin.name: pin.version for pin in read_pins(lock.text)}
    assert pins["starlette"] == version("starlette")
    assert {"anyio", "idna", "h11"} <= pins.keys()
    assert not lock.hashed
    assert "installed here" in lock.how
