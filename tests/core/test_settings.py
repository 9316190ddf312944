"""Settings: who wins, and what a person reads when something is wrong."""

import pytest

from mlops_nb.core.records import SpecificationError
from mlops_nb.core.settings import Settings, collect, find_root, load_settings


def write(project: Settings, text: str) -> None:
    (project.root / "settings.ini").write_text(text)


def test_the_strongest_source_wins(project, monkeypatch):
    write(project, "[DEFAULT]\nport = 1\n[dev]\n[prod]\nport = 2\n")
    assert load_settings().port == 1
    assert load_settings("prod").port == 2
    monkeypatch.setenv("MLOPS_NB_PORT", "3")
    assert load_settings("prod").port == 3
    assert load_settings("prod", port=4).port == 4


def test_each_value_tells_where_it_comes_from(project, monkeypatch):
    write(project, "[DEFAULT]\nport = 1\nhost = 127.0.0.1\n[prod]\nport = 2\n")
    monkeypatch.setenv("MLOPS_NB_PERSONA", "project_lead")
    sources = {name: source for name, (_, source) in collect("prod", user="ada").items()}
    assert sources["host"] == "[DEFAULT]"
    assert sources["port"] == "[prod]"
    assert sources["persona"] == "MLOPS_NB_PERSONA"
    assert sources["user"] == "command line"


def test_a_variable_moves_the_state_folder(project, monkeypatch, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("MLOPS_NB_STATE", str(elsewhere))
    assert load_settings().state == elsewhere
    assert load_settings().ledger == elsewhere / "ledger.db"


def test_the_project_is_found_from_a_folder_below(project, monkeypatch):
    below = project.root / "nbs" / "scenarios"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert load_settings().state == project.root / ".mlops"


def test_outside_a_project_the_message_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="mlops-nb init"):
        find_root(tmp_path)


def test_all_faults_are_listed_with_section_and_key(project):
    write(project, "[DEFAULT]\napproval = maybe\n[prod]\nport = high\ncolor = red\n")
    with pytest.raises(SpecificationError) as problem:
        load_settings("prod")
    told = "\n".join(problem.value.faults)
    assert len(problem.value.faults) == 3
    assert "[DEFAULT] approval = maybe" in told
    assert "[prod] port = high" in told
    assert "[prod] color: no such setting" in told


def test_a_misspelt_variable_is_told(project, monkeypatch):
    monkeypatch.setenv("MLOPS_NB_PROT", "8080")
    with pytest.raises(SpecificationError, match="MLOPS_NB_PROT prot: no such setting"):
        load_settings()


def test_an_unknown_environment_names_the_known_ones(mlops_nb_command, project):
    done = mlops_nb_command("status", "--env", "moon")
    assert done.rc == 2
    assert "No environment 'moon'" in done.stderr
    assert "dev, staging, prod" in done.stderr


def test_a_file_that_is_no_ini_is_told_by_line(mlops_nb_command, project):
    write(project, "state = .mlops\n")
    done = mlops_nb_command("status")
    assert done.rc == 2
    assert "settings.ini" in done.stderr


def test_approval_is_required_where_nothing_says_otherwise_and_http_stays_at_home(project):
    assert (Settings().approval, Settings().allow_http, Settings().host) == ("required", False, "127.0.0.1")
    assert [load_settings(environment).approval for environment in ("dev", "staging", "prod")] == ["none", "none", "required"]
    write(project, "[prod]\nallow_http = maybe\napproval = never\n")
    with pytest.raises(SpecificationError) as problem:
        load_settings("prod")
    assert [fault.split(":")[0] for fault in problem.value.faults] == ["[prod] allow_http = maybe", "[prod] approval = never"]
