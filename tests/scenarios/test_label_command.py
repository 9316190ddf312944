"""`mlops-nb label`: from a project's file to labels in a file, with what people and scripts see on the way."""

import json
import shutil
from pathlib import Path

import pytest

from mlops_nb.cli import main
from mlops_nb.core.ledger import entries
from mlops_nb.core.settings import load_settings
from mlops_nb.inner_loop.answers import Event
from mlops_nb.inner_loop.labeling import load_project
from mlops_nb.inner_loop.store import LabelItem, create, open_store

ROOT = Path(__file__).resolve().parents[2]
FILE = """\
# what people write to us about
name: mail
task: text_classification
classes: [order, refund, {name: other, description: neither}]
overlap: 2
annotators: [ana, ben]
reviewers: [rita]
source: {folder: mail.jsonl, id: id}
sampling: {strategy: order}
"""
TEXTS = ["Where is my parcel?", "I want my money back.", "Do you sell tea?", "The parcel is [red]open[/]."]


@pytest.fixture
def label(capsys, monkeypatch):
    """Run the command in this process: `label("status", "mail") -> (exit code, output, errors)`."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["label", *map(str, words)])
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return run


@pytest.fixture
def files(project):
    """The project's file, and its source."""
    (project.root / "mail.yml").write_text(FILE)
    (project.root / "mail.jsonl").write_text("".join(json.dumps({"id": f"m{n}", "text": text}) + "\n" for n, text in enumerate(TEXTS)))


@pytest.fixture
def mail(label, files):
    """The project, with its four items."""
    assert label("create", "mail.yml")[0] == label("add", "mail")[0] == 0
    return label


def answers(by, **labels):
    with open_store(load_settings(user=by), "mail") as store:
        for item, name in labels.items():
            one = {"id": "c", "kind": "class", "label": name}
            told = store.record([Event(f"{by}{item}1", item, "draw", by, by, {"annotation": one}, seconds=6.0),
                                 Event(f"{by}{item}2", item, "submit", by, by)])  # fmt: skip
            assert not any(told.values()), told


def test_a_project_begins_with_its_file_and_its_items(label, project, files):
    assert label("status")[1] == "No labeling projects. mlops-nb label create FILE makes one.\n"
    rc, out, _ = label("create", "mail.yml")
    assert (rc, out.splitlines()[0]) == (0, "mail: text_classification, version 1 of its file.")
    assert "Next: mlops-nb label add mail" in out
    assert label("add", "mail")[1] == "4 new items, 4 in all.\n"
    assert label("add", "mail")[1] == "0 new items, 4 in all.\n"
    assert "4 items: 4 open" in label("status", "mail")[1]
    assert [entry.action for entry in entries(project)] == ["create_labels", "add_items"]


def test_items_that_cannot_be_read_are_listed_and_the_others_added(label, project, files):
    with (project.root / "mail.jsonl").open("a") as file:
        file.write('{"id": "m9", "text": " "}\nnonsense\n{"id": "m10", "text": "Hello"}\n')
    label("create", "mail.yml")
    rc, out, _ = label("add", "mail")
    assert (rc, out.splitlines()[0]) == (0, "5 new items, 5 in all.")
    assert [line.split(":")[1].strip() for line in out.splitlines()[1:]] == ["mail.jsonl, line 5", "mail.jsonl, line 6"]


def test_the_next_item_is_handed_out_and_says_when_there_is_none(mail):
    rc, out, _ = mail("next", "mail", "--by", "ana")
    assert rc == 0
    assert "Where is my parcel?" in out
    rc, out, _ = mail("next", "mail", "--by", "ana", "--count", 2, "--json")
    assert [item["id"] for item in json.loads(out)] == ["m0", "m1"]
    assert "gold" not in json.loads(out)[0]
    assert mail("next", "mail", "--by", "ana", "--give-back")[1] == "2 items given back.\n"
    answers("ana", m0="order", m1="refund", m2="other", m3="order")
    rc, _, err = mail("next", "mail", "--by", "ana")
    assert (rc, err) == (3, "Nothing is left for ana now (4 wait for answers of others, or are in their hands).\n")
    rc, _, err = mail("next", "mail", "--by", "cleo")
    assert (rc, err) == (3, "cleo is none of the annotators of mail (ana, ben). Its file names them.\n")


def test_what_people_agree_on_becomes_final_and_a_reviewer_decides_the_rest(mail, project):
    answers("ana", m0="order", m1="refund", m2="other", m3="order")
    answers("ben", m0="order", m1="refund", m2="order", m3="order")
    assert mail("next", "mail", "--by", "ana")[:2] == (0, "All 4 items of mail have their answers.\n")
    rc, out, _ = mail("agreement", "mail", "--json")
    told = json.loads(out)
    assert (rc, told["agreement"][0]["value"]) == (0, 0.75)
    assert [row["annotator"] for row in told["people"]] == ["ana", "ben"]
    assert "Cohen's kappa" in mail("agreement", "mail", "--by-class")[1]
    rc, out, _ = mail("review", "mail")
    assert (rc, out.splitlines()[0]) == (0, "3 became final, 1 are disputed, 0 are for review.")
    assert "ana: other; ben: order" in out
    assert mail("status", "--wait")[0] == 3
    assert mail("review", "mail", "--adopt", "m2", "--by", "rita")[::2] == (2, "m2 has 2 answers (ana, ben). Say whose with --whose.\n")
    rc, _, err = mail("review", "mail", "--adopt", "m2", "--whose", "ana", "--by", "ana")
    assert rc == 2
    assert "cannot review it" in err
    assert mail("review", "mail", "--adopt", "m2", "--whose", "ana", "--by", "rita", "--reason", "tea")[1] == "m2 is final.\n"
    assert mail("status", "mail", "--wait")[0] == 0
    assert {"judge_labels", "settle_label"} <= {entry.action for entry in entries(project)}


def test_an_answer_is_sent_back_and_its_history_tells_so(mail):
    answers("ana", m3="order")
    rc, out, _ = mail("review", "mail", "--reject", "m3", "--by", "rita", "--reason", "[red]it is open[/]")
    assert (rc, out) == (0, "m3 is open.\n")
    out = mail("history", "mail", "m3")[1]
    for part in ("draw", "class order (c)", "rita", "reject", "[red]it is open[/]", "6"):
        assert part in out
    events = json.loads(mail("history", "mail", "m3", "--json")[1])
    assert [(event["by"], event["kind"]) for event in events] == [("ana", "draw"), ("ana", "submit"), ("rita", "reject")]


def test_labels_go_out_and_come_back(mail, project):
    answers("ana", m0="order", m1="refund")
    rc, out, _ = mail("export", "mail", "-o", "out", "--format", "jsonl", "--which", "ana")
    assert (rc, out.split(":")[0]) == (0, "2 answers (ana) written")
    manifest = json.loads((project.root / "out/manifest.json").read_text())
    assert (manifest["project"], manifest["version"]) == ("mail", 1)
    file = next((project.root / "out").glob("*.jsonl"))
    assert mail("import", "mail", file, "--format", "jsonl", "--as", "gold")[0] == 0
    with open_store(project, "mail") as store:
        assert store.item("m1").gold[0]["label"] == "refund"
    rc, _, err = mail("export", "mail", "-o", "other", "--format", "voc")
    assert rc == 2
    assert "voc cannot hold text_classification" in err
    assert not (project.root / "other").exists()


def test_the_order_is_changed(mail, project):
    assert mail("rank", "mail", "--strategy", "random")[:2] == (0, "4 open items put into order: random.\n")
    with open_store(project, "mail") as store:
        assert [item.id for item in store.items()] != ["m0", "m1", "m2", "m3"]
    rc, _, err = mail("rank", "mail", "--strategy", "alphabet")
    assert rc == 2
    assert "No strategy 'alphabet' (strategies: order, random" in err


def test_a_store_that_was_tampered_with_is_found_and_put_right(mail, project):
    answers("ana", m0="order")
    assert mail("replay", "mail")[:2] == (0, "2 events replayed, nothing differs.\n")
    with open_store(project, "mail") as store:
        store.database.execute("UPDATE answers SET state = 'open'")
    rc, _, err = mail("replay", "mail")
    assert rc == 2
    assert "m0: the answer of ana is kept as open" in err
    assert "mlops-nb label replay mail --repair" in err
    assert "put right: m0" in mail("replay", "mail", "--repair")[1]
    assert mail("replay", "mail")[0] == 0


def test_the_state_is_told_to_scripts(mail):
    answers("ana", m0="order")
    told = json.loads(mail("status", "mail", "--json", "--by", "ana")[1])
    assert (told["items"], told["open"], told["mine"], told["per_hour"], told["classes"]) == (4, 4, 1, 600.0, {"order": 1})
    assert list(json.loads(mail("status", "--json")[1])) == ["mail"]
    assert "mail     text_classification  4      4" in mail("status")[1]
    assert "7 answers, about 1 min of work left" in mail("status", "mail")[1].replace("1 of 8 answers", "7 answers")


WRONG = {
    "no project": (("status", "male"), 2, "No labeling project 'male' (projects: mail)."),
    "no file": (("create", "nope.yml"), 2, "No file nope.yml"),
    "no item": (("history", "mail", "m7"), 2, "No item 'm7' in mail."),
    "no model": (("propose", "mail"), 2, "mail names no model. Pass --model models:/NAME/VERSION"),
    "two decisions": (("review", "mail", "--accept", "m0", "--reject", "m1"), 2, "decide on one thing at a time"),
    "nothing to give a reason for": (("review", "mail", "--reason", "so"), 2, "say what is decided"),
    "not in review": (("review", "mail", "--accept", "m0", "--by", "rita"), 2, "m0 is open, not in review"),
    "no such role": (("next", "mail", "--role", "admire"), 2, "role 'admire'"),
    "no such link": (("page", "mail", "--for", "cleo"), 2, "cleo"),
    "no right": (("create", "mail.yml", "--as", "data_analyst"), 3, "data_analyst may not curate in dev"),
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A project that nothing changes any more."""
    folder = tmp_path_factory.mktemp("kept")
    shutil.copy(ROOT / "settings.ini", folder)
    shutil.copytree(ROOT / "environments/access", folder / "environments/access")
    (folder / "mail.yml").write_text(FILE)
    with create(load_settings(root=folder), load_project(folder / "mail.yml"), FILE) as store:
        store.add(LabelItem(f"m{n}", {"text": text}) for n, text in enumerate(TEXTS))
    return folder


@pytest.mark.parametrize(("words", "code", "message"), WRONG.values(), ids=WRONG)
def test_wrong_use_is_told_with_what_to_do(kept, label, monkeypatch, words, code, message):
    monkeypatch.chdir(kept)
    rc, _, err = label(*words)
    assert rc == code
    assert message in err


def test_a_file_with_faults_names_them_all(label, project):
    (project.root / "mail.yml").write_text("name: my mail\ntask: mails\noverlap: 0\n")
    rc, _, err = label("create", "mail.yml")
    assert rc == 2
    assert [line.split(":")[1] for line in sorted(err.splitlines())] == ["1", "2", "3"]


def test_the_command_is_there_for_whoever_looks(mlops_nb_command, project):
    told = mlops_nb_command("label", "--help")
    assert told.rc == 0
    commands = "create add import next export agreement review status propose rank replay page history"
    assert [word for word in commands.split() if f"\n  {word}" not in told.stdout] == []
