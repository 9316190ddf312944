"""Peers that ask for other versions of our libraries than ours live in an environment of their own."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def install(
    folder: Path,  # for the environment
    name: str,  # what people call it
    packages: Sequence[str],
) -> Path | None:  # its python; None: it cannot be had, and why is printed
    """Install a peer into an environment of its own."""
    python = folder / "peer" / "bin" / "python"
    for command in ([sys.executable, "-m", "venv", "--without-pip", str(folder / "peer")],
                    [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", str(python), *packages]):  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(f"{name} is left out: {(done.stderr.strip().splitlines() or ['it cannot be installed'])[-1]}\n")
            return None
    return python
