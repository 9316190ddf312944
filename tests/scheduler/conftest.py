"""A scenario of two notebooks that does what files in the project tell it, a schedule for it, and the process that waits."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest

from mlops_nb.core.components import compile_components
from mlops_nb.core.settings import Settings

DATA = """
open("ran.txt", "a").write("data\\n")
open(gold, "w").close()
"""
TRAIN = """
import os, time
from mlops_nb.core.ledger import log
from mlops_nb.core.settings import load_settings
open("ran.txt", "a").write("train\\n")
while os.path.exists("wait"): time.sleep(0.05)
if os.path.exists("fail"):
    os.unlink("fail")
    raise ValueError("no such luck")
if os.path.exists("tell"): log(load_settings(), *open("tell").read().split())
"""


@pytest.fixture
def shop(project: Settings) -> Settings:
    """Lay the scenario: each step notes in `ran.txt` that it ran; `wait`, `fail` (once) and `tell` say what `train` does besides."""
    folder = project.root / "nbs" / "scenarios" / "shop"
    folder.mkdir(parents=True)
    for name, port, source in [("10_data", "Output", DATA), ("20_train", "Input", TRAIN)]:
        page = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "python3"}})
        gold = f'from mlops_nb.core.parameters import {port}\ngold: {port} = ""'
        page.cells = [nbformat.v4.new_code_cell(gold, metadata={"tags": ["parameters", "non-deterministic"]})]
        page.cells += [nbformat.v4.new_code_cell(source)]
        nbformat.write(page, folder / f"{name}.ipynb")
    compile_components(project.root)
    pipeline = project.root / "ci" / "pipelines" / "shop.yml"
    pipeline.parent.mkdir(parents=True)
    pipeline.write_text(
        "type: pipeline\njobs:\n  data: {component: ../components/shop_10_data.yml}\n"
        '  train: {component: ../components/shop_20_train.yml, inputs: {gold: "${{parent.jobs.data.outputs.gold}}"}}\n'
    )
    shutil.rmtree(project.root / "environments" / "dev" / "schedules")
    return project


@pytest.fixture
def lay(shop: Settings) -> Callable[..., Path]:
    """Write a schedule file of the scenario: every night, or on events."""

    def write(on: str = "trigger", name: str = "nightly") -> Path:
        path = shop.root / "environments" / "dev" / "schedules" / f"{name}.yml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            f'name: {name}\nproperties: {{mlops_nb.on: "{on}"}}\ntrigger: {{type: cron, expression: "0 2 * * *"}}\n'
            "create_job: ../../../ci/pipelines/shop.yml\n"
        )
        return path

    return write


class Waiting:
    """A running `mlops-nb schedule start`, or `monitor start`."""

    def __init__(self, folder: Path, *arguments: str, group: str = "schedule"):
        self.output = folder / f"output-{time.monotonic_ns()}.txt"
        command = [Path(sys.executable).with_name("mlops-nb"), group, "start", *arguments]
        environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output, env=environment, start_new_session=True)

    def until(self, text: str, times: int = 1, seconds: float = 120) -> str:
        """Wait until it has said something so many times."""
        end = time.monotonic() + seconds
        while (said := self.output.read_text(errors="replace")).count(text) < times:
            assert time.monotonic() < end, f"'{text}' was not said:\n{said}"
            assert self.process.poll() is None, f"it ended ({self.process.returncode}):\n{said}"
            time.sleep(0.05)
        return said

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send it a signal, and wait for its end."""
        self.process.send_signal(how)
        return self.process.wait(60)


@pytest.fixture
def start(shop: Settings) -> Iterator[Callable[..., Waiting]]:
    """Start schedulers, and end those that a test leaves."""
    started = []

    def begin(*arguments: str, group: str = "schedule") -> Waiting:
        started.append(Waiting(shop.root, *arguments, group=group))
        return started[-1]

    yield begin
    for waiting in started:
        if waiting.process.poll() is None:
            waiting.stop(signal.SIGKILL)
