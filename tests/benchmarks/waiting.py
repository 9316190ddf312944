"""How long a person waits for the first answer, as a multiple of the yardstick on the same machine, in the same minute."""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

BIN = Path(sys.executable).parent
PYTHON = [sys.executable, "-c"]
CASES: dict[str, list[str | Path]] = {
    "import mlops_nb": [*PYTHON, "import mlops_nb"],
    "import of core's records and settings": [*PYTHON, "import mlops_nb.core.records, mlops_nb.core.settings"],
    "mlops-nb --help": [BIN / "mlops-nb", "--help"],
    "papermill --help": [BIN / "papermill", "--help"],
}
YARDSTICK: list[str | Path] = [*PYTHON, "pass"]
ROUNDS = 7


def seconds(command: list[str | Path]) -> float:
    """Run a command once; returns how long it took."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Measure in turns, so that a busy moment hits all alike, and print a table of the medians."""
    commands = {"python -c pass": YARDSTICK, **CASES}
    for command in commands.values():
        seconds(command)  # the first run compiles and warms the disk's cache
    rounds = [{name: seconds(command) for name, command in commands.items()} for _ in range(ROUNDS)]
    medians = {name: statistics.median(turn[name] for turn in rounds) for name in commands}
    base = medians["python -c pass"]
    print(f"{ROUNDS} rounds, Python {sys.version.split()[0]}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    print("| | median | over `python -c pass` |\n| --- | --- | --- |")
    for name, median in medians.items():
        print(f"| `{name}` | {median:.3f} s | {median / base:.1f} x |")

