"""What the processes of an endpoint tell one another.

The library writes `endpoint.json` (what is wanted); the host follows it, starts one process per instance of a deployment, each
with a `Config`, and tells the front which of them are ready.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Wish:
    """One deployment as `endpoint.json` wants it."""

    model: str  # address of the model version
    path: str  # folder of the MLflow model; of a model of another kind with a scoring script: the folder of its files
    timeout_ms: int = 5000
    max_concurrent: int = 1  # requests an instance works on at once; as many again may wait, one more is told 429
    max_queue_wait_ms: int = 500
    instances: int = 1
    scale: dict[str, int] | None = None  # min_instances, max_instances, polling_interval (s), target_utilization_percentage
    script: dict[str, str] | None = None  # code (folder), scoring_script (file in it); None: MLflow's own way
    python: str = ""  # interpreter of the deployment's own environment; empty: this one
    variables: dict[str, str] | None = None  # of the deployment's processes
    collected: str = ""  # folder of this deployment's collected data
    collector: dict[str, Any] | None = None  # collections (name -> share kept), rolling_rate, capture_headers; None: nothing is kept
    probe: dict[str, int] | None = None  # liveness: initial_delay, period, timeout, failure_threshold (s); None: not probed


@dataclass(frozen=True)
class Config:
    """What the host tells one process of a deployment, as JSON on its command line."""

    endpoint: str
    deployment: str
    environment: str
    instance: str  # e.g. `blue-0-1f3a`, new in every process
    socket: str  # where to listen; relative to the endpoint's folder, as paths of sockets must be short
    wish: Wish = field(default_factory=lambda: Wish("", ""))
    max_bytes: int = 10 * 2**20  # of a request's body

    @staticmethod
    def of(fields: dict[str, Any]) -> "Config":
        """Read what `dataclasses.asdict` wrote."""
        return Config(**{**fields, "wish": Wish(**fields["wish"])})
