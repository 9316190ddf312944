"""Serve one deployment where nobody holds our standard input, as systemd and containers do: it ends with SIGTERM alone."""

import json
import logging
import os
import sys
from pathlib import Path


def keep_standard_input() -> None:
    """Give this process a standard input that stays open: a worker takes the end of it for the end of its parent."""
    reading, _ = os.pipe()  # the other end is ours, too
    os.dup2(reading, 0)


def main() -> None:
    """Serve: `python -m mlops_nb.hosting.worker CONFIG-JSON`; without it, the file that MLOPS_NB_SERVE names."""
    from mlops_nb.serving.app import serve
    from mlops_nb.serving.config import Config

    keep_standard_input()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    text = sys.argv[1] if len(sys.argv) > 1 else Path(os.environ["MLOPS_NB_SERVE"]).read_text()
    serve(Config.of(json.loads(text)))


if __name__ == "__main__":
    main()
