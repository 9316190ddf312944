"""`mlops-nb monitor compare`: two tables, files in, a report out; in bounded memory, without an endpoint or a monitor."""

from pathlib import Path
from typing import Annotated

import typer


def compare(
    reference: Annotated[Path, typer.Argument(help="Parquet or CSV file, or a folder of them: what is known.")],
    production: Annotated[Path, typer.Argument(help="The same: what is looked at.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write a report as one HTML file.")] = None,
    column_type: Annotated[
        list[str] | None,
        typer.Option("--column-type", help="NAME=numerical or NAME=categorical, may be repeated.", show_default="Azure ML's rule"),
    ] = None,
    feature: Annotated[
        list[str] | None, typer.Option("--feature", help="Column to compare, may be repeated.", show_default="all")
    ] = None,
    gate: Annotated[bool, typer.Option("--gate", help="Exit 3 when anything is beyond its threshold.")] = False,
) -> None:
    """Compare two tables: data quality and drift of every column, with Azure ML's out-of-box thresholds."""
    from mlops_nb.core.files import write_file
    from mlops_nb.core.records import GateClosed, SpecificationError
    from mlops_nb.outer_loop.streams import compare_tables, report

    pairs = [text.rpartition("=") for text in column_type or ()]
    if wrong := ["=".join(filter(None, (name, kind))) for name, equals, kind in pairs if not (name and equals)]:
        raise SpecificationError([f"--column-type '{text}' is not NAME=TYPE, e.g. shelf=categorical." for text in wrong])
    try:
        signals = compare_tables(reference, production, features=feature or (), types={name: kind for name, _, kind in pairs})
    except FileNotFoundError as problem:
        raise SpecificationError([str(problem)]) from problem
    loud = [signal for signal in signals if signal.breached]
    for signal in loud:
        found = signal.problem if signal.value is None else f"{signal.value:.4g} (threshold {signal.threshold:g})"
        print(f"{signal.type} {signal.feature} {signal.metric}: {found}")
    print(f"{len(loud)} of {len(signals)} values beyond their thresholds")
    if output is not None:
        write_file(output, report(signals, reference.name, production.name))
        print(f"report: {output}")
    if gate and loud:
        raise GateClosed(f"{production} has moved from {reference}: {len(loud)} values are beyond their thresholds.")
