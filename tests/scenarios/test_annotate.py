"""Language and vision do not retrain by themselves: what the model knows least goes to people (architecture, V5).

The texts are real: sentences of the documentation that comes with the libraries. The model tells numpy's from pandas'; then people
ask about scikit-learn's.
"""

import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

from mlops_nb.core import ledger, queue
from mlops_nb.core.runs import list_runs
from mlops_nb.core.settings import Settings, load_settings
from mlops_nb.inner_loop.store import open_store
from mlops_nb.setup.project import lay_project

pytestmark = pytest.mark.slow
PROJECT = """
name: topics
task: text_classification
classes: [numpy, pandas, scikit-learn]
source: {queue: topics}
sampling: {strategy: wrong}
"""
MONITOR = """
$schema: http://azureml/sdk-2-0/Schedule.json
name: topics
trigger: {type: recurrence, frequency: day, interval: 1}
properties: {mlops_nb.policy: ./people.yml}
create_monitor:
  compute: {instance_type: standard_e4s_v3, runtime_version: "3.4"}
  monitoring_target: {ml_task: classification, endpoint_deployment_id: azureml:topics:blue}
  monitoring_signals:
    texts:
      type: custom
      component_id: azureml:mlops_nb_text_drift:1
      inputs: {column: {type: uri_file, path: text}}
      input_data:
        reference_data:
          input_data: {path: ./sentences.csv, type: mltable}
          data_context: training
      alert_enabled: true
      metric_thresholds: [{metric_name: domain_classifier_auc, threshold: 0.7}]
  alert_notification: {emails: []}
"""
POLICY = """
name: topics
rules: [{when: {type: custom}, then: annotate}]
annotate: {queue: topics, examples: 30}
"""


def sentences(package: ModuleType, count: int) -> list[str]:
    """Take sentences out of the documentation of a package's functions."""
    pages = [inspect.getdoc(value) or "" for name in sorted(dir(package)) if callable(value := getattr(package, name))]
    found = re.findall(r"[A-Z][a-z][^.`>|=]{40,200}\.", " ".join(" ".join(page.split()) for page in pages))
    return list(dict.fromkeys(found))[:count]


class Library:
    """A project whose endpoint `topics` tells sentences about numpy from those about pandas."""

    def __init__(self, root: Path):
        lay_project(root)
        self.root = root
        folder = root / "environments" / "dev"
        (folder / "topics.yml").write_text(MONITOR)
        (folder / "people.yml").write_text(POLICY)

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("mlops-nb")), *words]
        variables = {"NO_COLOR": "1", "COLUMNS": "200", "MLOPS_NB_USER": "ada"}
        clean = {name: value for name, value in os.environ.items() if not name.startswith("MLOPS_NB_")}
        return subprocess.run(command, cwd=self.root, capture_output=True, text=True, env=clean | variables)

    @property
    def settings(self) -> Settings:
        return load_settings("dev", self.root, user="ada")

    def ask(self, texts: list[str]) -> None:
        from mlops_nb.outer_loop import online

        online.invoke(self.settings, "topics", {"input_data": {"columns": ["text"], "data": [[text] for text in texts]}})


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    import mlflow
    import numpy as np
    from sklearn.compose import ColumnTransformer
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    library = Library(tmp_path_factory.mktemp("library"))
    known = {name: sentences(package, 400) for name, package in (("numpy", np), ("pandas", pd.DataFrame))}
    table = pd.DataFrame([(text, name) for name, texts in known.items() for text in texts], columns=["text", "topic"])
    table.sample(frac=1, random_state=1).to_csv(library.root / "environments" / "dev" / "sentences.csv", index=False)
    model = make_pipeline(ColumnTransformer([("words", TfidfVectorizer(), "text")]), LogisticRegression())
    model.fit(table[["text"]], table["topic"])
    signature = mlflow.models.infer_signature(table[["text"]], table["topic"])
    mlflow.sklearn.save_model(model, library.root / "model", signature=signature, pip_requirements=["scikit-learn"])
    done = library("deploy", "model", "--endpoint", "topics")
    assert done.returncode == 0, done.stdout + done.stderr
    yield library
    library("endpoint", "stop", "topics")


def watch(library: Library) -> Any:
    return library("monitor", "once", "topics", "--file", "environments/dev/topics.yml")


def test_texts_that_the_model_does_not_know_go_to_people_and_nothing_is_retrained(library: Library) -> None:
    import sklearn.metrics

    strange = sentences(sklearn.metrics, 200)
    assert len(strange) > 100
    library.ask(strange)
    looked = watch(library)
    assert looked.returncode == 0, looked.stdout + looked.stderr
    assert "domain_classifier_auc" in looked.stdout
    items = queue.read(library.settings, "topics")
    assert len(items) == 30
    assert {item.data["text"] for item in items} <= set(strange)
    assert {item.prediction for item in items} <= {"numpy", "pandas"}
    assert all(item.why for item in items)
    [entry] = ledger.entries(library.settings, action="annotate")
    assert entry.subject == "deployment:dev.topics/blue"
    assert not [run for run in list_runs(library.settings) if run.scenario != "monitor"]

    again = watch(library)  # the next window holds the same texts
    assert again.returncode == 0, again.stdout + again.stderr
    ids = [json.loads(line)["id"] for line in (library.settings.state / "queues" / "dev" / "topics.jsonl").read_text().splitlines()]
    assert len(ids) == len(set(ids)), "no text is asked twice"

    (library.root / "topics.yml").write_text(PROJECT)  # and people take them up, the least known first
    for words in (("create", "topics.yml"), ("add", "topics")):
        done = library("label", *words)
        assert done.returncode == 0, done.stdout + done.stderr
    with open_store(library.settings, "topics") as labels:
        waiting = list(labels.items())
    assert {item.data["text"] for item in waiting} == {item.data["text"] for item in items}
    assert [item.score for item in waiting] == sorted((item.score for item in waiting), reverse=True)
    assert {item.prediction[0]["label"] for item in waiting} <= {"numpy", "pandas"}  # as the model answered, to be put right
    assert all(item.why for item in waiting)
