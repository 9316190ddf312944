"""Profile a model: how fast it answers on machines of several sizes, and how many of them a rate of requests needs."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlops_nb.commands.options import group, looking
from mlops_nb.terminal import busy, say, table

if TYPE_CHECKING:
    import pandas

    from mlops_nb.core.records import ModelVersion
    from mlops_nb.core.settings import Settings
    from mlops_nb.outer_loop.load import Profile

commands = group("")


@commands.command("profile")
@looking
def profile(
    settings: "Settings",
    model: Annotated[str, typer.Argument(help="Registered model as NAME, NAME/VERSION or NAME@ALIAS.")],
    rate: Annotated[float, typer.Option("--rate", help="Requests per second that are to be served.")] = 100,
    max_p95_ms: Annotated[
        float, typer.Option("--max-p95-ms", help="Of the answers.", show_default="the deployment file's")
    ] = 0,
    utilisation: Annotated[float, typer.Option("--utilisation", help="How busy a machine shall be, 0 to 1.")] = 0.7,
    seconds: Annotated[float, typer.Option("--seconds", help="Length of each measurement.")] = 3.0,
    rows: Annotated[int, typer.Option("--rows-per-request", min=1)] = 1,
    concurrency: Annotated[str, typer.Option("--concurrency", help="Users at once, with commas.")] = "1,4,16",
    cores: Annotated[
        str, typer.Option("--cores", help="Sizes; what this machine does not have is left out.")
    ] = "1,2,4",
    data: Annotated[
        str, typer.Option("--data", help="CSV or Parquet of rows to ask for.", show_default="the validation table")
    ] = "",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write everything as JSON, too.")] = None,
) -> None:
    """Measure latency, throughput, CPU and memory by size of machine; recommend how many machines a rate needs."""
    from mlops_nb.core.files import write_file
    from mlops_nb.outer_loop import load, models

    found = models.registered_model(settings, model)
    short = found.name.removeprefix(f"{settings.environment}.")
    users, sizes = _numbers("--concurrency", concurrency), _numbers("--cores", cores)
    limit = max_p95_ms or load.limits(settings).max_p95_ms
    asked = _rows(settings, found, short, data)
    with busy(f"profiling {found.name}/{found.version}"):
        seen = load.profile(settings, found, asked, seconds, rows, users, sizes)
    machines = seen.recommend(rate, limit, utilisation)
    _show(seen, machines, f"Machines for {rate:g} requests per second, p95 up to {limit:g} ms, {utilisation:.0%} busy")
    if output:
        told = {"rate": rate, "max_p95_ms": limit, "target_utilisation": utilisation}
        whole = load.as_plain(seen) | {"recommended": told | {"sizes": json.loads(machines.to_json(orient="records"))}}
        say(f"written to {write_file(output, json.dumps(whole, indent=1))}")


def _numbers(option: str, text: str) -> list[int]:
    from mlops_nb.core.records import SpecificationError

    words = [word.strip() for word in text.split(",")]
    if not all(word.isdigit() and int(word) > 0 for word in words):
        raise SpecificationError([f"{option} {text}: whole numbers above 0 with commas are expected, e.g. 1,4,16."])
    return sorted(set(map(int, words)))


def _rows(settings: "Settings", model: "ModelVersion", name: str, data: str) -> "pandas.DataFrame":
    """Read the rows to ask for: a file's columns that the model knows, else the table that it was validated on."""
    from mlops_nb.data_estate import source, tables
    from mlops_nb.outer_loop.models import model_folder

    if not data:
        validation = tables.latest(settings, name, "validation")
        return tables.read_table(settings, validation).drop(columns=["prediction", validation.target])
    from mlflow.models import Model

    found, signature = source.read_source(data), Model.load(model_folder(settings, model)).signature
    return found[[column for column in signature.inputs.input_names() if column in found]] if signature else found


def _show(seen: "Profile", machines: "pandas.DataFrame", title: str) -> None:
    rows = [
        (
            str(m.cores),
            str(m.concurrency),
            f"{m.requests_per_second:,.0f}",
            *(f"{value:.1f}" for value in (m.p50_ms, m.p95_ms, m.p99_ms)),
            f"{m.error_rate:.1%}",
            f"{m.cpu_ms:.2f}",
            f"{m.busy:.2f}",
            f"{m.memory_mib:.0f}",
            "shared with the users" if m.shared else "",
        )
        for m in seen.measured
    ]
    columns = ("cores", "users", "req/s", "p50 ms", "p95 ms", "p99 ms", "errors", "CPU ms", "busy", "MiB", "")
    table(f"{seen.model}, {seen.rows_per_request} rows a request", columns, rows)
    found = [
        (r["size"], str(r["cores"]), "" if r["instances"] is None else str(r["instances"]),
         "" if r["max_concurrency"] is None else str(r["max_concurrency"]), r["why"])
        for r in json.loads(machines.to_json(orient="records"))
    ]  # fmt: skip
    table(title, ("size", "cores", "instances", "max concurrency", ""), found)
