"""A package: what is in it, that it is the same every time, that it serves, and that nothing leaves which a check stopped."""

import json
import pickle
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml

from mlops_nb.core import ledger
from mlops_nb.core.records import GateClosed, SpecificationError
from mlops_nb.core.settings import Settings
from mlops_nb.outer_loop import models, package
from mlops_nb.packaging.audit import Package, check_manifest, sha256
from mlops_nb.packaging.code import serving_modules, serving_requirements
from mlops_nb.packaging.lock import read_pins
from mlops_nb.packaging.sbom import check_sbom

SECRET = "correct-horse-battery-staple"  # noqa: S105 pragma: allowlist secret


# --- what is in it ---


def test_a_package_of_a_registered_model_holds_what_serves_it(made: Package, shop: Settings) -> None:
    folder = Path(made.folder)
    assert (made.uri, made.model, made.base[-71:]) == ("package:dev.diamonds/1", "model:dev.diamonds/1", f"sha256:{'5' * 64}")
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"Dockerfile", ".dockerignore", "lock.txt", "conda.yml", "config.json", "run", "sbom.json", "manifest.json",
            "model/MLmodel", "model/model.skops", "code/mlops_nb/scoring/app.py"} <= there
    assert not [name for name in there if re.search(r"front|host\.py|azure/|\.ipynb|__pycache__|settings", name)]
    config = json.loads((folder / "config.json").read_text())
    assert (config["socket"], config["wish"]["path"]) == ("tcp:0.0.0.0:5001", "/opt/serve/model")
    assert package.check(made) == []


def test_the_image_is_pinned_has_no_shell_and_nobody_in_it_is_root(made: Package) -> None:
    steps = [line.split(" ", 1) for line in (Path(made.folder) / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    by_kind: dict[str, list[str]] = {}
    for kind, words in steps:
        by_kind.setdefault(kind, []).append(words)
    assert by_kind["FROM"] == [f"docker.io/library/python:3.11-slim-bookworm@sha256:{'5' * 64}"]
    assert by_kind["USER"] == ["10001:10001"]
    assert by_kind["EXPOSE"] == ["5001"]
    for words in [*by_kind["RUN"], *by_kind["ENTRYPOINT"], by_kind["HEALTHCHECK"][0].partition("CMD ")[2]]:
        assert isinstance(json.loads(words), list)  # a list of words is run as it is; a text would go through a shell
    assert 'org.opencontainers.image.version="1"' in by_kind["LABEL"]
    assert 'MLOPS_NB_SERVE="/opt/serve/config.json"' in by_kind["ENV"]


def test_the_lock_pins_the_model_and_the_server_at_the_projects_versions(made: Package, shop: Settings) -> None:
    text = (Path(made.folder) / "lock.txt").read_text()
    pins = {(pin.name, pin.version) for pin in read_pins(text)}  # a name may have two: one below Python 3.12, one from there on
    names = {name for name, _ in pins}
    assert {"scikit-learn", "skops", "starlette", "uvicorn", "httptools", "orjson", "pyyaml"} <= names
    assert not {"jupyterlab", "azure-ai-ml", "papermill", "locust"} & names
    assert pins <= {(pin.name, pin.version) for pin in read_pins((shop.root / "environments/lock.txt").read_text())}
    assert not re.search(r"https?://", text)
    hashed = all(pin.hashes for pin in read_pins(text))
    assert ("--require-hashes" in (Path(made.folder) / "Dockerfile").read_text()) == hashed
    conda = yaml.safe_load((Path(made.folder) / "conda.yml").read_text())
    assert {tuple(line.partition(" ")[0].split("==")) for line in conda["dependencies"][-1]["pip"]} == pins


def test_every_module_that_travels_finds_what_it_imports() -> None:
    """What the worker needs is followed from its imports, so that no list can fall behind."""
    assert "mlops_nb/scoring/model.py" in serving_modules()
    assert {"starlette", "uvicorn", "skops", "httptools"} <= {line.partition(";")[0] for line in serving_requirements()}


def test_the_bill_names_every_package_and_every_file_of_the_model(made: Package) -> None:
    folder = Path(made.folder)
    text = (folder / "sbom.json").read_text()
    assert check_sbom(text) is None
    assert check_sbom(text.replace('"library"', '"cake"', 1)) is not None
    parts = {part["name"]: part for part in json.loads(text)["components"]}
    assert parts["starlette"]["purl"].startswith("pkg:pypi/starlette@")
    assert parts["model/model.skops"]["hashes"] == [{"alg": "SHA-256", "content": sha256(folder / "model/model.skops")}]
    assert parts["docker.io/library/python:3.11-slim-bookworm"]["hashes"][0]["content"] == "5" * 64


def test_the_same_inputs_give_the_same_bytes(build: Callable[..., Package], here: Settings, tmp_path: Path) -> None:
    first = build(folder=tmp_path / "first")
    time.sleep(0.01)
    for path in (here.root / "model").rglob("*"):  # other times, other rights
        path.chmod(0o700)
    second = build(folder=tmp_path / "second")
    assert first.digest == second.digest
    for path in (tmp_path / "first").rglob("*"):
        twin = tmp_path / "second" / path.relative_to(tmp_path / "first")
        assert (path.stat().st_mtime, path.stat().st_mode) == (twin.stat().st_mtime, twin.stat().st_mode)
        assert path.is_dir() or path.read_bytes() == twin.read_bytes()


def test_a_scoring_script_travels_with_its_folder(build: Callable[..., Package], here: Settings) -> None:
    lay_script(here, "def init(): pass\ndef run(data): return data\n")
    made = build()
    assert (Path(made.folder) / "script/score.py").is_file()
    assert json.loads((Path(made.folder) / "config.json").read_text())["wish"]["script"] == {
        "code": "/opt/serve/script", "scoring_script": "score.py"}


def lay_script(settings: Settings, text: str) -> None:
    folder = settings.root / "environments/dev/scoring"
    folder.mkdir()
    (folder / "score.py").write_text(text)
    deployment = folder.parent / "deployment.yml"
    deployment.write_text(deployment.read_text() + "code_configuration: {code: scoring, scoring_script: score.py}\n")


# --- it serves ---


def test_the_folder_serves_the_model(made: Package) -> None:
    """Where no image can be built, `./run` serves; here with the packages of these tests, not an environment of its own."""
    command = [sys.executable, str(Path(made.folder) / "run"), "--port", "0", "--python", sys.executable]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout
            address = server.stdout.readline().strip()
            assert address.startswith("http://127.0.0.1:")
            assert ask(address) == pytest.approx([2000.0])
            code = json.loads(urllib.request.urlopen(address.replace("/score", "/version")).read())  # noqa: S310
            assert code["model"] == "model:dev.diamonds/1"
        finally:
            server.terminate()
    assert package.check(made) == []  # serving leaves no trace in it


def ask(address: str) -> Any:
    body = json.dumps({"input_data": {"columns": ["carat", "depth"], "data": [[0.5, 61.0]]}}).encode()
    request = urllib.request.Request(address, body, {"content-type": "application/json"})  # noqa: S310
    until = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                return json.loads(answer.read())
        except urllib.error.URLError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


# --- planted faults: each stops the build, is named with its place, and leaves nothing but the audit trail ---


def plant_secret(settings: Settings) -> None:
    output = nbformat.v4.new_output("stream", text=f"connected\npassword = '{SECRET}'\n")
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# shop"), nbformat.v4.new_code_cell("1", outputs=[output])])
    (settings.root / "nbs").mkdir()
    nbformat.write(page, settings.root / "nbs/shop.ipynb")


def plant_eval(settings: Settings) -> None:
    lay_script(settings, "def init(): pass\n\ndef run(data):\n    return eval(data)\n")


class Hostile:
    """Runs a command when it is loaded."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        import os

        return os.system, ("touch pwned",)


def plant_pickle(settings: Settings) -> None:
    (settings.root / "model/extra.bin").write_bytes(pickle.dumps({"weights": Hostile()}))


def plant_old_pin(settings: Settings) -> None:
    [record] = (settings.root / "osv").iterdir()
    record.write_text(record.read_text().replace("nobody-has-this", "starlette").replace('"1.0"', '"999"'))


@pytest.mark.parametrize(
    ("plant", "check", "place", "what"),
    [
        (plant_secret, "detect-secrets", r"nbs/shop.ipynb cell 2 output:2", "Secret Keyword"),
        (plant_eval, "bandit", r"script/score.py:4", "B307"),
        (plant_pickle, "model-files", r"model/extra.bin", "system, which is not on the allow-list"),
        (plant_old_pin, "pip-audit", r"lock.txt:\d+ starlette [\d.]+", "GHSA-starlette: known vulnerability; mended in 999"),
    ],
)
def test_a_planted_fault_stops_the_build(
    build: Callable[..., Package], here: Settings, plant: Callable[[Settings], None], check: str, place: str, what: str
) -> None:
    plant(here)

    with pytest.raises(GateClosed, match=f"{check}: {place}") as refusal:
        build(check)

    found = package.find(here, "stones")
    [failed] = found.failed
    assert failed.name == check
    [finding] = failed.open
    assert re.fullmatch(place, finding.place)
    assert what in finding.what
    left = [path.name for path in (here.state / "packages/dev/stones" / found.version).iterdir()]
    assert left == ["audit.json"]
    [entry] = ledger.entries(here, found.uri, "reject")
    assert finding.place in json.dumps(entry.details)
    assert ledger.verify(here) == []
    kept = b"".join(path.read_bytes() for path in here.state.rglob("*") if path.is_file())
    assert SECRET.encode() not in kept
    assert SECRET not in str(refusal.value)
    assert not Path("pwned").exists()


def test_what_passed_yesterday_is_removed_when_a_fault_becomes_known_today(build: Callable[..., Package], here: Settings) -> None:
    before = build()
    assert Path(before.folder).is_dir()
    plant_old_pin(here)
    with pytest.raises(GateClosed, match="starlette"):
        build()
    assert not Path(before.folder).exists()
    assert [entry.action for entry in ledger.entries(here, before.uri)] == ["package", "reject"]


def test_a_secret_that_a_run_of_the_model_printed_is_found(made: Package, shop: Settings, model: Path) -> None:
    """Executed notebooks lie in the run's folder; the ledger says which run registered the model."""
    folder = shop.runs / "classical-1"
    folder.mkdir(parents=True)
    output = nbformat.v4.new_output("display_data", data={"text/html": f"<p>password = '{SECRET}'</p>"})
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1", outputs=[output])]), folder / "20_train.ipynb")
    ledger.log(shop, "register", made.model, [], [made.model], run="classical-1")
    skip = {"checkov": "slow", "bandit": "slow", "sbom": "slow"}
    with pytest.raises(GateClosed, match=r"20_train.ipynb cell 1 output:1: Secret Keyword"):
        package.build(shop, models.find_model(shop, "diamonds/1"), "other", image=False, osv_mirror=str(shop.root / "osv"), skip=skip)
    shutil.rmtree(folder)


# --- a check that cannot look ---


def test_a_base_without_a_digest_is_refused_unless_that_is_said(build: Callable[..., Package], here: Settings) -> None:
    images = here.root / "environments/images/serving.yml"
    images.write_text(re.sub(r"sha256:5+", '""', images.read_text()))
    with pytest.raises(GateClosed, match=r"base-image: Dockerfile:2: .* not pinned by a digest"):
        build()
    made = build(allow_unpinned=True)
    assert made.checks[0].skipped == "--allow-unpinned"
    [entry] = ledger.entries(here, made.uri, "package")
    assert entry.details["checks"][0]["skipped"] == "--allow-unpinned"


def test_a_check_that_cannot_look_has_not_passed(build: Callable[..., Package], here: Settings, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(GateClosed, match=r"pip-audit: could not look: .*empty holds no record"):
        build(osv_mirror=str(tmp_path / "empty"))
    reason = "the mirror is down until noon"
    made = build(osv_mirror=str(tmp_path / "empty"), skip={"pip-audit": reason})
    [check] = [check for check in package.find(here, "stones").checks if check.name == "pip-audit"]
    assert (check.state, check.skipped) == ("skipped", reason)
    assert json.loads((Path(made.folder) / "manifest.json").read_text())["checks"]["pip-audit"] == "skipped"


def test_a_check_is_skipped_by_its_name_and_with_a_reason(build: Callable[..., Package]) -> None:
    with pytest.raises(SpecificationError) as refusal:
        build(skip={"virus": "there is none", "bandit": " "})
    assert len(refusal.value.faults) == 2


def test_files_that_changed_after_the_sign_off_are_named(build: Callable[..., Package], tmp_path: Path) -> None:
    made = build(folder=tmp_path / "out")
    (tmp_path / "out/model/MLmodel").write_text("flavors: {}")
    (tmp_path / "out/code/extra.py").write_text("")
    (tmp_path / "out/lock.txt").unlink()
    faults = " ".join(check_manifest(tmp_path / "out", made.digest))
    assert all(word in faults for word in ("model/MLmodel was changed", "code/extra.py does not belong", "lock.txt is missing"))


def test_a_folder_that_holds_something_else_is_left_alone(build: Callable[..., Package], here: Settings) -> None:
    with pytest.raises(FileExistsError, match="is no package"):
        build(folder=here.root / "environments")
    assert (here.root / "environments/lock.txt").is_file()


# --- the command ---


@pytest.mark.slow
def test_the_command_packages_notices_changes_and_refuses(
    here: Settings, monkeypatch: pytest.MonkeyPatch, mlops_nb_command: Callable[..., Any]
) -> None:
    monkeypatch.chdir(here.root)
    quick = ["--osv-mirror", "osv", "--skip", "bandit=slow"]
    more = [f"--skip={name}=slow" for name in ("checkov", "detect-secrets", "model-files", "sbom")]
    done = mlops_nb_command("package", "build", "model", "--name", "stones", "--no-image", *quick, *more, "-o", "out")
    assert done.rc == 0, done.stderr
    assert "package:dev.stones/" in done.stdout
    (here.root / "out/lock.txt").write_text("")
    changed = mlops_nb_command("package", "show", "stones")
    assert changed.rc == 2
    assert "out/lock.txt was changed" in changed.stderr
    plant_secret(here)
    refused = mlops_nb_command("package", "scan", *quick)
    assert refused.rc == 3
    assert "nbs/shop.ipynb cell 2 output:2: Secret Keyword" in refused.stderr
    assert SECRET not in refused.stdout + refused.stderr
