"""Ten notebooks one after the other: what running them costs besides their own work, and what it costs when nothing changed.

The peer is what a person would write without a runner: a shell loop that calls papermill for each notebook.
"""

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat

from mlops_nb.core.components import compile_components

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
STEPS, ROUNDS = 10, 3
PARAMETERS = "from mlops_nb.core.parameters import Input, Output\nbefore: Input = ''\nround: int = 0\nmade: Output = ''"


def lay(folder: Path) -> None:
    """Lay a project with a chain of ten steps, each of which reads what the one before it wrote."""
    shutil.copy(ROOT / "settings.ini", folder)
    shutil.copytree(ROOT / "environments", folder / "environments")
    scenario = folder / "nbs/scenarios/chain"
    scenario.mkdir(parents=True)
    jobs = []
    for number in range(STEPS):
        page = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}})
        page.cells = [nbformat.v4.new_code_cell(PARAMETERS), nbformat.v4.new_code_cell("if made: open(made, 'w').write(f'{round}')")]
        page.cells[0].metadata["tags"] = ["parameters"]
        nbformat.write(page, scenario / f"{number:02d}_step.ipynb")
        bound = 'round: "${{parent.inputs.round}}"'
        bound += f', before: "${{{{parent.jobs.s{number - 1}.outputs.made}}}}"' if number else ""
        jobs.append(f"  s{number}: {{component: ../components/chain_{number:02d}_step.yml, inputs: {{{bound}}}}}\n")
    compile_components(folder)
    (folder / "ci/pipelines").mkdir()
    (folder / "ci/pipelines/chain.yml").write_text("type: pipeline\ninputs: {round: 0}\njobs:\n" + "".join(jobs))


def seconds(command: list[str | Path], folder: Path) -> float:
    """Run a command once; returns how long it took."""
    start = time.perf_counter()
    subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Measure in turns, and print a table of the medians."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lay(folder)
        run: list[str | Path] = [BIN / "mlops-nb", "run", "chain", "--jobs", "1"]
        notebooks = sorted((folder / "nbs/scenarios/chain").glob("*.ipynb"))
        script = f'for n in {" ".join(map(str, notebooks))}; do {BIN / "papermill"} --no-progress-bar "$n" out.ipynb; done'
        loop: list[str | Path] = ["sh", "-ec", script]
        found: dict[str, list[float]] = {"changed": [], "unchanged": [], "loop": [], "one": []}
        seconds([*run, "-p", "round=99"], folder)  # the first run compiles and warms the disk's cache
        for turn in range(ROUNDS):
            found["changed"].append(seconds([*run, "-p", f"round={turn}"], folder))
            found["unchanged"].append(seconds([*run, "-p", f"round={turn}"], folder))
            found["one"].append(seconds([*run, "-p", f"round={turn}", "--only", "s9"], folder))
            found["loop"].append(seconds(loop, folder))
        median = {name: statistics.median(values) for name, values in found.items()}
        each = (median["changed"] - median["one"]) / (STEPS - 1)
        print("| ten steps | median | beside papermill |\n| --- | --- | --- |")
        print(f"| papermill in a loop | {median['loop']:.2f} s | 1 |")
        for what, key in (("everything changed", "changed"), ("nothing changed", "unchanged")):
            print(f"| `mlops-nb run`, {what} | {median[key]:.2f} s | {median['loop'] / median[key]:.1f} times faster |")
        print(f"\none more executed step: {each:.2f} s (papermill: {median['loop'] / STEPS:.2f} s)")


if __name__ == "__main__":
    main()
