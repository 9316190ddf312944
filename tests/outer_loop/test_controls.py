"""Policies as code: what must hold before a deployment and after it, with evidence; and what happens when it does not."""

import datetime as dt
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest

from mlops_nb.core import ledger
from mlops_nb.core.files import write_file
from mlops_nb.core.records import Deployment, GateClosed, ModelVersion, SpecificationError
from mlops_nb.core.settings import Settings, load_settings
from mlops_nb.outer_loop import approval, controls, credentials, governance, online, posture, state
from mlops_nb.outer_loop.governance import Scope
from mlops_nb.setup.project import lay_project

ROOT = Path(__file__).resolve().parents[2]
ENDPOINT = "guarded"

CONTROL = """\
name: own
controls:
  {id}:
    title: What this test is about
    severity: high
    implements: [M14]
    check: {check}
    parameters: {parameters}
    environments: [dev, staging, prod]
    when: [before_deployment, after_deployment, on_schedule]
    effect: {effect}
"""


def acting(settings: Settings, user: str, persona: str, **more: Any) -> Settings:
    return settings.model_copy(update={"user": user, "persona": persona, **more})


def only(findings: list[controls.Finding], control: str) -> controls.Finding:
    [found] = [finding for finding in findings if finding.control == control]
    return found


def own(project: Settings, check: str, parameters: str = "{}", effect: str = "deny", id: str = "own-control") -> Path:
    """Lay a policy file with one control."""
    text = CONTROL.format(id=id, check=check, parameters=parameters, effect=effect)
    return write_file(project.root / "environments/policies/own.yml", text)


# --- the files --------------------------------------------------------------------------------------------------------


def test_a_fresh_project_passes_in_dev_and_is_told_what_production_still_needs(tmp_path: Path) -> None:
    lay_project(tmp_path)
    known = controls.load_controls(tmp_path / "environments/policies")
    quick = [one for one in known if one.check != "no_secrets"]  # which takes seconds, see below
    dev = controls.run_controls(Scope(load_settings("dev", tmp_path)), quick)
    assert [one for one in dev if one.state != "passed"] == []
    assert len(dev) > 15
    prod = controls.run_controls(Scope(load_settings("prod", tmp_path)), quick)
    assert not any(one.denies for one in prod)
    missing = {one.control: one.state for one in prod if one.failed}
    failed = dict.fromkeys(("environment-pinned", "owner-tag", "project-scanned"), "failed")
    assert missing == {**failed, "lock-in-force": "not_checked"}
    [secrets] = [one for one in known if one.check == "no_secrets"]
    assert all((tmp_path / place).exists() for place in secrets.parameters["files"] + secrets.parameters["notebooks"])
    assert {moment for one in quick for moment in one.when} == set(controls.MOMENTS)


def test_every_fault_of_a_policy_file_is_told_with_its_line(project: Settings) -> None:
    path = own(project, "key_age", "{days: soon, hours: 3}", "forbid")
    text = path.read_text().replace("implements: [M14]", "implements: [fourteen]").replace("[dev, staging, prod]", "[dev, produktion]")
    path.write_text(text + "    colour: red\n    exemptions:\n      a: {granted_by: kim, expires_on: soon, reason: because}\n")
    with pytest.raises(SpecificationError) as wrong:
        controls.load_controls(project.root / "environments/policies")
    told = {fault.split(":")[1]: fault for fault in wrong.value.faults}
    assert set(told) == {"6", "8", "9", "11", "12", "14"}
    assert "days" in "".join(wrong.value.faults)
    assert "hours: Extra inputs" in "".join(wrong.value.faults)
    assert "no environment produktion in settings.ini (dev, staging, prod)" in told["9"]


def test_a_control_stands_in_one_file_only(project: Settings) -> None:
    own(project, "transport", id="transport-secured")
    with pytest.raises(SpecificationError, match=r"'transport-secured' stands in .*(own|security)\.yml:\d+, too"):
        controls.policies(project)


# --- findings ---------------------------------------------------------------------------------------------------------


def test_what_cannot_be_checked_has_not_passed(project: Settings) -> None:
    (project.root / "environments/access/production.csv").unlink()
    found = controls.run_controls(Scope(project), controls.policies(project))
    assert {one.control: one.state for one in found if one.failed} == {"access-baseline": "not_checked", "custom-roles": "not_checked"}
    assert "No " in only(found, "access-baseline").problem
    assert only(found, "access-baseline").denies


def test_an_exemption_counts_until_its_last_day_and_then_the_control_fails_again(project: Settings) -> None:
    own(project, "settings_in_force", "{expected: {approval: [required]}}")
    now = dt.datetime.now(dt.UTC)
    until = now.date() + dt.timedelta(days=3)
    with pytest.raises(PermissionError, match="may not approve"):
        controls.exempt(acting(project, "bot", "cicd_process"), "own-control", until, "a trial")
    controls.exempt(acting(project, "mia", "project_lead"), "own-control", until, "a trial", "setting:dev.*")

    def state_at(days: int) -> controls.Finding:
        return only(controls.run_controls(Scope(project, at=now + dt.timedelta(days=days)), controls.policies(project)), "own-control")

    assert (state_at(0).state, state_at(3).state, state_at(4).state) == ("exempt", "exempt", "failed")
    assert "granted by mia" in state_at(0).exemption
    assert f"its exemption has ended: ledger entry 1: granted by mia until {until}: a trial" in state_at(4).problem
    controls.end_exemption(acting(project, "mia", "project_lead"), "own-control", "setting:dev.*")
    assert state_at(0).denies
    with pytest.raises(LookupError, match="No exemption from own-control"):
        controls.end_exemption(acting(project, "mia", "project_lead"), "own-control", "setting:dev.*")


def test_an_exemption_of_the_file_is_for_the_things_it_names(project: Settings) -> None:
    path = own(project, "required_tags", "{tags: [owner]}")
    path.write_text(path.read_text() + "    exemptions:\n      later: {granted_by: kim, expires_on: 2999-01-01, reason: not yet known,"
                    " subject: 'file:*/endpoint.yml'}\n")
    found = [one for one in controls.run_controls(Scope(project), controls.load_controls(path)) if one.state != "passed"]
    states = {one.subject.rpartition("/")[2]: one.state for one in found}
    assert states["endpoint.yml"] == "exempt"
    assert states["deployment.yml"] == "failed"


def test_no_secret_comes_into_the_evidence(project: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlops_nb.core.secrets import reveal

    monkeypatch.setenv("SHOP_PASSWORD", "correct-horse-battery")
    reveal("env:SHOP_PASSWORD")
    spoilt = project.model_copy(update={"tls_certificate": "correct-horse-battery.pem", "tls_key": "x", "host": "0.0.0.0"})  # noqa: S104
    own(project, "transport")
    found = only(controls.run_controls(Scope(spoilt), controls.policies(project)), "own-control")
    assert found.failed
    assert "horse" not in json.dumps([found.problem, found.evidence])


# --- governance -------------------------------------------------------------------------------------------------------


def test_a_changed_matrix_and_a_custom_role_are_found_with_the_cells(project: Settings) -> None:
    path = project.root / "environments/access/production.csv"
    text = path.read_text()
    path.write_text(text.replace("\n", "\r\n"))  # another editor: says the same
    assert not any(one.failed for one in controls.run_controls(Scope(project), controls.policies(project)))
    path.write_text(text.replace("data_analyst,,", "data_analyst,Admin,") + "contractor,O,,,,,,,\n")
    found = controls.run_controls(Scope(project), controls.policies(project))
    baseline = next(one for one in found if one.control == "access-baseline" and one.failed)
    assert baseline.evidence["changed"] == ["contractor, ml_workspace: nothing -> O", "data_analyst, ml_workspace: nothing -> Admin"]
    custom = next(one for one in found if one.control == "custom-roles" and one.failed)
    assert custom.problem == "custom roles (data_analyst, ml_workspace: Admin) and unlisted personas (contractor)"


def test_support_outside_of_a_grant_is_found(project: Settings) -> None:
    lee = acting(project, "lee", "platform_support")
    ledger.log(lee, "deploy", "deployment:dev.diamonds/blue")
    now, hour = dt.datetime.now(dt.UTC), dt.timedelta(hours=1)

    def problems(**grants: Any) -> list[str]:
        return [found.problem for found in governance.just_in_time(Scope(project), grants=grants)]

    def grant(user: str, since: dt.datetime, until: dt.datetime) -> governance.Grant:
        return governance.Grant(user=user, since=since, until=until, reason="the disk is full")

    assert problems() == ["1 of 1 actions in the last 30 days were outside of any grant"]
    assert problems(disk=grant("lee", now - hour, now + hour)) == ["", ""]
    assert problems(disk=grant("lee", now - 3 * hour, now - hour))[1].startswith("1 of 1")
    assert problems(disk=grant("kim", now - hour, now + hour))[1].startswith("1 of 1")
    assert problems(disk=grant("lee", now - hour, now + 1000 * hour))[0] == "lasts 41.7 days; 7 are the most"
    assert "lee acts as platform_support without a grant" in governance.just_in_time(Scope(lee))[0].problem


def test_whoever_trained_is_known_from_the_training_not_from_the_approval(project: Settings) -> None:
    ana, ben = acting(project, "ana", "data_scientist"), acting(project, "ben", "project_lead")
    ledger.log(ana, "train", "run:7", outputs=["run:7"])
    for version in (1, 2):
        ledger.log(ana, "register", f"model:dev.diamonds/{version}", ["run:7"], [f"model:dev.diamonds/{version}"])
    approval.approve(acting(ana, "Ana", "project_lead"), ModelVersion("dev.diamonds", 1, "regression", trained_by="somebody"))
    approval.approve(ben, ModelVersion("dev.diamonds", 2, "regression", trained_by="ana"))
    assert [found.problem for found in governance.four_eyes(Scope(project))] == ["Ana trained it and approved it", ""]


def test_a_lower_environment_is_no_wider_open_than_production(project: Settings) -> None:
    for environment, mode in (("dev", 0o755), ("prod", 0o750)):
        folder = project.state / "collected" / environment
        folder.mkdir(parents=True)
        folder.chmod(mode)
    [found] = governance.data_guarded(Scope(project))
    assert found.problem == "1 of 1 folders are wider open than 0750"
    (project.state / "collected/dev").chmod(0o700)
    assert not governance.data_guarded(Scope(project))[0].problem


def test_a_scan_that_failed_or_left_something_out_or_is_old_is_found(project: Settings) -> None:
    model = ModelVersion("dev.diamonds", 3, "regression")

    def problem(days: float = 0) -> str:
        scope = Scope(project, "diamonds", model=model, at=dt.datetime.now(dt.UTC) + dt.timedelta(days=days))
        return governance.package_scanned(scope, required=["pip-audit"])[0].problem

    assert problem() == "model:dev.diamonds/3: never scanned"
    passed, skipped = {"name": "pip-audit", "passed": True}, {"name": "pip-audit", "passed": False, "skipped": "no network"}
    ledger.log(project, "package", "package:dev.diamonds/3", [model.uri], checks=[passed])
    assert problem() == ""
    assert problem(days=31) == "model:dev.diamonds/3: last scanned 31 days ago; 30 are the most"
    ledger.log(project, "package", "package:dev.diamonds/3", [model.uri], checks=[skipped])
    assert problem() == "model:dev.diamonds/3: was not scanned by pip-audit"
    ledger.log(project, "reject", "package:dev.diamonds/3", [model.uri], checks=[
        passed, {"name": "bandit", "passed": False, "findings": [{"place": "code/a.py:3", "what": "B102"}]}])
    assert problem() == "model:dev.diamonds/3: failed bandit"


def test_a_secret_in_a_specification_is_found_and_not_repeated(project: Settings) -> None:
    file = project.root / "environments/dev/endpoint.yml"
    assert not governance.no_secrets(Scope(project), files=["environments/dev"])[0].problem
    file.write_text(file.read_text() + "# password: hunter2hunter2\nproperties: {mlops_nb.key: AKIAIOSFODNN7EXAMPLE}\n")
    [found] = governance.no_secrets(Scope(project), files=["environments/dev"])
    assert found.problem
    assert "environments/dev/endpoint.yml:" in found.evidence["places"][0]
    assert "AKIA" not in json.dumps(found.evidence)


def test_what_is_installed_in_another_version_than_locked_has_drifted(project: Settings) -> None:
    lock = project.root / "environments/lock.txt"
    lock.write_text(f"psutil=={psutil.__version__}\nnot-here==1.0\npydantic==0.1 ; sys_platform == 'none'\n")
    assert not governance.lock_in_force(Scope(project))[0].problem
    lock.write_text("psutil==0.1\n")
    assert governance.lock_in_force(Scope(project))[0].evidence["apart"] == {"psutil": f"{psutil.__version__}, locked 0.1"}


# --- around a deployment ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(stones: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A project of its own, with the models of the other tests, and model 1 behind an endpoint."""
    root = tmp_path_factory.mktemp("g")
    shutil.copy(ROOT / "settings.ini", root)
    shutil.copytree(ROOT / "environments", root / "environments")
    (root / ".mlops").mkdir()
    tracked = str(stones.settings.tracking_uri or f"sqlite:///{stones.settings.state / 'mlflow.db'}")
    settings = load_settings("dev", root, user="ada", tracking_uri=tracked)
    online.deploy(settings, ENDPOINT, stones.model(1))
    yield settings
    for name in state.endpoint_names(settings):
        online.remove(settings, name)


@pytest.fixture
def policy(guarded: Settings) -> Iterator[Callable[..., Path]]:
    """Lay a control of the test's own: `policy("enough_instances", "{at_least: 2}")`."""
    yield lambda *words, **more: own(guarded, *words, **more)
    (guarded.root / "environments/policies/own.yml").unlink(missing_ok=True)


def test_what_passed_stands_in_the_entry_of_the_deployment(guarded: Settings) -> None:
    [entry] = ledger.entries(guarded, f"deployment:dev.{ENDPOINT}/blue", "deploy")[:1]
    passed = entry.details["controls"]
    assert (passed["before_deployment"]["passed"], passed["after_deployment"]["failed"]) == (1, 0)
    report = json.loads(Path(passed["after_deployment"]["report"]).read_text())
    assert [(one["control"], one["evidence"]["mode"]) for one in report["findings"]] == [("key-file-closed", "0600")]


def test_a_denied_deployment_never_starts_and_an_audited_one_does(guarded: Settings, stones: Any, policy: Callable[..., Path]) -> None:
    policy("enough_instances", "{at_least: 2}")
    before = state.read_wanted(guarded, ENDPOINT)
    with pytest.raises(GateClosed, match=rf"own-control \(high\): deployment:dev.{ENDPOINT}/new: 1 instances; 2 are the least") as no:
        online.deploy(guarded, ENDPOINT, stones.model(2))
    assert "mlops-nb policy exempt CONTROL" in str(no.value)
    with pytest.raises(GateClosed):
        online.deploy(guarded, "never", stones.model(2))
    assert state.read_wanted(guarded, ENDPOINT) == before
    assert "never" not in state.endpoint_names(guarded)
    assert not (guarded.endpoints / "never" / "keys.json").exists()
    entry = ledger.entries(guarded)[-1]
    assert (entry.action, entry.subject, entry.inputs) == ("deny", "deployment:dev.never/new", ["model:dev.diamonds/2"])
    assert entry.details["controls"][0]["problem"] == "1 instances; 2 are the least"
    policy("enough_instances", "{at_least: 2}", "audit")
    online.deploy(guarded, ENDPOINT, stones.model(2))
    assert only(controls.last(guarded, "before_deployment"), "own-control").failed
    online.remove(guarded, ENDPOINT, "green")


def test_what_is_denied_after_it_is_there_is_taken_back(guarded: Settings, stones: Any, policy: Callable[..., Path]) -> None:
    path = policy("metrics_private")
    path.write_text(path.read_text().replace("before_deployment, ", "").replace("metrics_private", "security_headers").replace(
        "parameters: {}", "parameters: {expected: {x-tea: green}}"))
    with pytest.raises(GateClosed, match=rf"no x-tea(?s:.)*{ENDPOINT} is as it was before"):
        online.deploy(guarded, ENDPOINT, stones.model(2))
    assert [one.name for one in online.deployments(guarded, ENDPOINT)] == ["blue"]
    assert round(online.invoke(guarded, ENDPOINT, stones.half)[0]) == 2000
    with pytest.raises(GateClosed):
        online.deploy(guarded, "fresh", stones.model(2))
    assert "fresh" not in state.endpoint_names(guarded)
    mine = str(guarded.endpoints / "fresh")
    assert not [one for one in psutil.process_iter(["cmdline"]) if mine in " ".join(one.info["cmdline"] or [])]


def test_production_asks_for_everything_before_it_deploys(guarded: Settings, stones: Any) -> None:
    prod = load_settings("prod", guarded.root, user="kim", tracking_uri=guarded.tracking_uri)
    path = mlflow.artifacts.download_artifacts("models:/dev.diamonds/1")
    model = stones.model(1)
    with pytest.raises(GateClosed) as no:
        controls.gate(Scope(prod, "shop", model=model, path=path), "before_deployment")
    assert str(no.value).startswith("governance/model-approved (high): deployment:prod.shop/new: model:dev.diamonds/1 was not approved")
    approval.approve(acting(prod, "mia", "project_lead"), model)
    passed = controls.gate(Scope(prod, "shop", model=model, path=path), "before_deployment")["before_deployment"]
    open_ = {one.control: one.problem for one in controls.last(prod) if one.failed}
    assert set(open_) == {"model-documented", "stage-passed", "environment-pinned", "package-scanned"}
    assert passed["failed"] == 4
    assert "no model card" in open_["model-documented"]
    with pytest.raises(GateClosed, match="model-approved"):
        controls.gate(Scope(prod, "shop", model=stones.model(2), path=path), "before_deployment")


# --- endpoints --------------------------------------------------------------------------------------------------------


def test_a_sound_endpoint_passes_every_probe(guarded: Settings) -> None:
    found = controls.run_controls(Scope(guarded, ENDPOINT), [one for one in controls.policies(guarded) if one.policy == "endpoints"])
    assert {one.state for one in found} == {"passed"}
    answers = only(found, "key-required").evidence["answers"]
    assert set(answers.values()) == {401}
    listens = only(found, "listens-only-there").evidence["listens"]
    assert listens == [f"127.0.0.1:{state.read_wanted(guarded, ENDPOINT)['port']}"]
    assert governance.model_signed(Scope(guarded))[0].problem == ""
    assert governance.data_collected(Scope(guarded), collections=["model_inputs", "request"])[0].problem.endswith("request")


def test_open_keys_an_unknown_shadow_and_old_keys_are_found(guarded: Settings) -> None:
    keys = guarded.endpoints / ENDPOINT / "keys.json"
    keys.chmod(0o640)
    assert posture.key_file(Scope(guarded))[0].problem == "others may read it: mode 0640"
    keys.chmod(0o600)
    wanted = state.read_wanted(guarded, ENDPOINT)
    scope = Scope(guarded)
    scope.__dict__["endpoints"] = [wanted | {"mirror_traffic": {"green": 10}}]  # as a hand edit would have it
    assert posture.mirror_known(scope)[0].problem == "copies go to green, which is no deployment"
    later = Scope(guarded, at=dt.datetime.now(dt.UTC) + dt.timedelta(days=100))
    assert posture.key_age(later)[0].problem.count("100 days old") == 2
    credentials.regenerate(guarded, ENDPOINT, "primary")
    later = Scope(guarded, at=dt.datetime.now(dt.UTC) + dt.timedelta(days=80))
    assert posture.key_age(later)[0].problem == ""
    assert posture.key_age(later)[0].evidence["age_days"]["primary"] < posture.key_age(later)[0].evidence["age_days"]["secondary"]


STRANGER = {"x-mlops-nb-probe": ""}  # our own probes carry a key, and are not logged


def test_a_burst_of_wrong_keys_and_a_search_for_addresses_are_live_threats(guarded: Settings, stones: Any) -> None:
    wanted = state.read_wanted(guarded, ENDPOINT)
    for n in range(25):
        posture.knock(wanted, "/score", b"{}", {"authorization": f"Bearer {n}", "user-agent": "curl/8", **STRANGER})
        posture.knock(wanted, f"/wp-admin/{n}")
    log, since = guarded.endpoints / ENDPOINT / "logs/traffic", dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    stones.until(lambda: sum(posture.read_strangers(log, since).minutes.values()) >= 25)

    def threat(**limits: Any) -> str:
        return posture.live_threats(Scope(guarded, ENDPOINT), **limits)[0].problem

    assert "refused keys" in threat(refused_per_minute=10)
    assert "strange requests" in threat(refused_per_minute=1000, strange_per_hour=20)
    assert threat(refused_per_minute=1000, strange_per_hour=1000) == ""
    with next(log.glob("*.jsonl")).open("ab") as file:
        file.write(b'{"TimeGenerated":"2026-02-30T"\n')  # torn
    posture.knock(wanted, "/score", b"{}", {"user-agent": "Mozilla/5.0 sqlmap/1.8", **STRANGER})
    stones.until(lambda: "asked by sqlmap" in threat(refused_per_minute=1000, strange_per_hour=1000))
    much_later = Scope(guarded, ENDPOINT, at=dt.datetime.now(dt.UTC) + dt.timedelta(days=3))
    assert posture.live_threats(much_later, refused_per_minute=10, strange_per_hour=1000)[0].problem == ""


def test_a_process_that_also_listens_elsewhere_is_found(guarded: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = state.read_wanted(guarded, ENDPOINT)
    with socket.create_server(("0.0.0.0", 0)) as other, socket.create_server(("127.0.0.1", 0)) as own:  # noqa: S104
        monkeypatch.setattr(state, "read_status", lambda *_: {"pid": os.getpid()})  # as if this process were the endpoint's host
        scope = Scope(guarded, ENDPOINT)
        scope.__dict__["endpoints"] = [wanted | {"port": own.getsockname()[1]}]
        assert posture.listens_only_there(scope)[0].problem == f"also listens at 0.0.0.0:{other.getsockname()[1]}"


def certificate(folder: Path) -> dict[str, str]:
    """Write a certificate that is good for a day; returns the settings that serve it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, who = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "shop")])
    begin = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    end = begin + dt.timedelta(days=1, hours=2)
    made = (x509.CertificateBuilder().subject_name(who).issuer_name(who).public_key(key.public_key()).serial_number(7)
            .not_valid_before(begin).not_valid_after(end).sign(key, hashes.SHA256()))
    (folder / "shop.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "shop.key").write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return {"tls_certificate": "shop.pem", "tls_key": "shop.key"}


def test_a_certificate_that_ends_soon_is_found_as_it_is_served(guarded: Settings, stones: Any) -> None:
    secured = guarded.model_copy(update=certificate(guarded.root) | {"host": "0.0.0.0"})  # noqa: S104
    online.deploy(secured, "secured", stones.model(1))
    try:
        [found] = posture.certificate(Scope(secured, "secured"))
        assert found.problem == "ends in 1.0 days; 30 are the least"
        assert found.evidence["protocol"] == "TLSv1.3"
        assert posture.certificate(Scope(secured, "secured"), days=0.5)[0].problem == ""
        ended = Scope(secured, "secured", at=dt.datetime.now(dt.UTC) + dt.timedelta(days=3))
        assert posture.certificate(ended)[0].problem == "ended 2.0 days ago"
        assert posture.metrics_private(Scope(secured, "secured"))[0].problem == "others can read /metrics without a key"
        assert posture.key_required(Scope(secured, "secured"))[0].problem == ""
    finally:
        online.remove(secured, "secured")


# --- the doors --------------------------------------------------------------------------------------------------------


def test_a_monitor_gets_the_number_of_failed_controls_with_the_evidence(guarded: Settings, policy: Callable[..., Path]) -> None:
    from mlops_nb.outer_loop.monitor import Watch
    from mlops_nb.outer_loop.signals import Asked

    def asked(endpoint: str, names: str) -> Asked:
        watch = Watch("security", "custom", {}, component="mlops_nb_controls", parameters={"policies": names} if names else {})
        deployment = Deployment(endpoint, "blue", "model:dev.diamonds/1", "dev")
        window = (dt.datetime.now(dt.UTC),) * 2
        return Asked(guarded, watch, "regression", deployment, window, lambda *_: None)  # type: ignore[arg-type, return-value]

    policy("data_collected", "{collections: [request]}", "audit")
    found = {one.feature: one for one in controls.controls(asked(ENDPOINT, "own, security"))}
    assert {name: one.value for name, one in found.items()} == {"own": 1.0, "security": 0.0}
    [evidence] = found["own"].detail["evidence"]
    assert evidence["subject"] == f"deployment:dev.{ENDPOINT}/blue"
    assert Path(found["own"].detail["report"]).is_file()
    assert {one.feature for one in controls.controls(asked(ENDPOINT, ""))} >= {"own", "security", "endpoints", "governance"}
    for problem in (controls.controls(asked("gone", "")), controls.controls(asked(ENDPOINT, "sekurity"))):
        assert problem[0].value is None
        assert problem[0].problem


def test_the_command_shows_checks_and_exempts(project: Settings, monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path) -> None:
    from mlops_nb.cli import main

    monkeypatch.setenv("COLUMNS", "200")

    def command(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["policy", *words])
        told = capsys.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    assert command("check")[0] == 0
    own(project, "settings_in_force", "{expected: {approval: [required]}}")
    rc, out, err = command("check", "own", "security", "-o", str(tmp_path / "report.html"))
    assert (rc, err.strip()) == (3, "own/own-control (high): setting:dev.approval: approval = none; allowed: required")
    assert "failed" in out
    assert "<details>" in (tmp_path / "report.html").read_text()
    entry = ledger.entries(project, action="check")[-1]
    assert (entry.subject, entry.details["not_passed"], entry.details["counted"]["failed"]) == ("policy:dev", ["own-control"], 1)
    assert command("exempt", "own-control", "--until", "2999-01-01", "--reason", "a trial", "--as", "model_end_user")[0] == 3
    assert command("exempt", "own-control", "--until", "soon")[0] == 2
    assert command("exempt", "own-control", "--until", "2999-01-01", "--reason", "a trial", "--as", "project_lead")[0] == 0
    assert command("check", "own")[0] == 0
    shown = command("show")[1]
    assert "own/own-control" in shown
    assert "2999-01-01" in shown
    assert command("check", "sekurity")[0] == 2
    assert command("check", "--endpoint", "gone")[0] == 2
    assert command("check", "--when", "later")[0] == 2
    assert command("check", "--env", "prod", "--as", "data_scientist")[0] == 3
