"""Run the measurements that are named, or all: `ci/benchmarks notebooks`."""

import importlib
import sys

PARTS = {"waiting": "The first answer", "notebooks": "One notebook", "pipelines": "Pipelines",
         "serving": "One row", "batch": "Batch scoring", "monitoring": "Monitoring",
         "labeling": "Labeling"}

if __name__ == "__main__":
    unknown = sorted(set(sys.argv[1:]) - set(PARTS))
    if unknown:
        sys.exit(f"No measurement {', '.join(unknown)}. There are: {', '.join(PARTS)}.")
    for part in sys.argv[1:] or PARTS:
        print(f"\n## {PARTS[part]}\n", flush=True)
        importlib.import_module(f"tests.benchmarks.{part}").main()
