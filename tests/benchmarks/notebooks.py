"""One notebook, run by papermill with our engine and by its peers, each in a process of its own that has run one before.

ploomber-engine is installed into an environment of its own, which borrows the other libraries from this one; where it cannot
be had, its column is left out. It runs the cells in the caller's own process: fast, but nothing parts one notebook from the next.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import nbformat

ROUNDS = 5
HEAVY = "import mlflow\nimport pandas\nimport sklearn.ensemble"
WORKER = """import json, os, sys, time
RUN
for line in sys.stdin:
    source, output = json.loads(line)
    start = time.perf_counter()
    run(source, output)
    print(json.dumps(time.perf_counter() - start), file=sys.stderr, flush=True)
"""
OURS, PLAIN, NBCLIENT, PLOOMBER = "papermill --engine mlops-nb", "papermill", "nbclient", "ploomber-engine"
PAPERMILL = "import papermill\ndef run(source, output):\n    papermill.execute_notebook(source, output, progress_bar=False"
PEERS = {
    OURS: f"{PAPERMILL}, engine_name='mlops-nb')",
    PLAIN: f"{PAPERMILL})",
    NBCLIENT: """import nbclient, nbformat
def run(source, output):
    page = nbformat.read(source, as_version=4)
    nbclient.execute(page, kernel_name='python3')
    nbformat.write(page, output)""",
    PLOOMBER: """import ploomber_engine
def run(source, output):
    ploomber_engine.execute_notebook(source, output, progress_bar=False)""",
}


def write(folder: Path, name: str, cells: list[str]) -> Path:
    """Write a notebook of code cells."""
    python = {"name": "python3", "display_name": "python3", "language": "python"}
    page = nbformat.v4.new_notebook(metadata={"kernelspec": python, "language_info": {"name": "python"}})
    page.cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
    nbformat.write(page, folder / name)
    return folder / name


def ploomber(folder: Path) -> str | None:
    """Install ploomber-engine into a new environment; returns its interpreter."""
    python = folder / "ploomber" / "bin" / "python"
    borrowed = next(path for path in sys.path if path.endswith("site-packages"))
    commands = [
        [sys.executable, "-m", "venv", "--without-pip", str(folder / "ploomber")],
        [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", str(python), "ploomber-engine"],
        [str(python), "-c", "import ploomber_engine"],
    ]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(f"{PLOOMBER} is left out: {(done.stderr.strip().splitlines() or ['it cannot be installed'])[-1]}\n")
            return None
    purelib = subprocess.check_output([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True).strip()
    Path(purelib, "borrowed.pth").write_text(f"import sys; sys.path.append({borrowed!r})\n")
    return str(python)


def worker(name: str, python: str, folder: Path) -> Callable[[Path], float]:
    """Start a peer's process; returns what makes it run a notebook and tells the seconds."""
    environment = {**os.environ, "PLOOMBER_STATS_ENABLED": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    process = subprocess.Popen(
        [python, "-c", WORKER.replace("RUN", PEERS[name])], cwd=folder, env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip

    def run(source: Path) -> float:
        assert process.stdin is not None
        assert process.stderr is not None
        print(json.dumps([str(source), str(folder / "out" / f"{name.split()[-1]}.ipynb")]), file=process.stdin, flush=True)
        for line in process.stderr:  # others write there, too
            try:
                return float(json.loads(line))
            except ValueError:
                continue
        raise RuntimeError(f"{name} ended at {source.name}")

    return run


def main() -> None:
    """Measure in turns, so that a busy moment hits all alike, and print a table of the medians."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "out").mkdir()
        pythons = dict.fromkeys(PEERS, sys.executable) | {PLOOMBER: ploomber(folder)}
        peers = {name: worker(name, python, folder) for name, python in pythons.items() if python}
        small = write(folder, "small.ipynb", ["1 + 1"])
        heavy = write(folder, "heavy.ipynb", [HEAVY, "pandas.DataFrame({'x': [1]}).shape"])
        many = write(folder, "many.ipynb", [f"x{n} = {n}\nx{n}" for n in range(1000)])
        for run in peers.values():
            run(heavy)  # the first run is not counted: ours imports before the fork what the notebook is going to
        found: dict[str, dict[str, list[float]]] = {name: {} for name in peers}
        for turn in range(ROUNDS):
            for source in (small, heavy, many):
                for name, run in peers.items():
                    if not (name == PLAIN and source == many and turn):  # minutes: once is enough
                        found[name].setdefault(source.stem, []).append(run(source))
    medians = {name: {case: statistics.median(times) for case, times in cases.items()} for name, cases in found.items()}
    ours = medians[OURS]
    print(f"{ROUNDS} rounds, Python {sys.version.split()[0]}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    print("| second run of a notebook | of one cell | that imports mlflow, pandas, scikit-learn | of 1,000 cells |")
    print("| --- | --- | --- | --- |")
    for name, cases in medians.items():
        columns = [f"{cases[case]:.2f} s ({cases[case] / ours[case]:.1f})" for case in ("small", "heavy", "many")]
        print(f"| `{name}` | {' | '.join(columns)} |")
    print("\nIn brackets: as a multiple of ours. ploomber-engine runs the cells in the caller's own process, so that its modules stay")
    print("loaded, and what one notebook does to them the next one finds.")


if __name__ == "__main__":
    main()
