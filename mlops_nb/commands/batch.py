"""`mlops-nb batch`: score files with a model, once or through an endpoint."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlops_nb.commands.options import acting, group, looking
from mlops_nb.terminal import busy, console, say, table

if TYPE_CHECKING:
    from mlops_nb.batch.job import Status
    from mlops_nb.core.records import ModelVersion
    from mlops_nb.core.settings import Settings
    from mlops_nb.outer_loop.batch import BatchJob

app = group("Score files in batches.")

Model = Annotated[str, typer.Argument(help="Model: NAME, NAME/VERSION, NAME@alias, an MLflow address, or a folder.")]
JobId = Annotated[str, typer.Argument(help="Job: its id, or enough of it.")]
File = Annotated[Path | None, typer.Option("--file", help="Deployment file.", show_default="environments/<env>/batch-deployment.yml")]
Output = Annotated[str, typer.Option("--output", "-o", help="Folder or address for the predictions.", show_default="the job's folder")]
Workers = Annotated[int, typer.Option("--workers", help="Processes.", min=0, show_default="as the deployment says")]
Form = Annotated[str, typer.Option("--format", help="csv or parquet.", show_default="as the deployment says")]
Stream = Annotated[bool, typer.Option("--stream/--no-stream", help="Wait and watch, or leave it to a process of its own.")]


@app.command()
@acting
def score(
    settings: "Settings",
    model: Model,
    data: Annotated[str, typer.Argument(metavar="INPUT", help="Folder, file, glob in quotes, or fsspec address.")],
    output: Output = "",
    workers: Workers = 0,
    form: Form = "",
    stream: Stream = True,
    file: File = None,
) -> None:
    """Score files with a model; the same command again goes on with a job that was killed."""
    from mlops_nb.outer_loop import batch

    _check(form)
    found = _approved(settings, model, file)
    with _progress() as show:
        done = batch.score(settings, found, data, output, file=file or "", workers=workers, form=form, show=show, wait=stream)
    _tell(done)


@app.command()
@acting
def deploy(
    settings: "Settings",
    model: Model,
    endpoint: Annotated[str, typer.Option("--endpoint", help="Endpoint.", show_default="the model's name and -batch")] = "",
    deployment: Annotated[str, typer.Option("--deployment", help="Deployment.", show_default="as the file names it")] = "",
    default: Annotated[bool, typer.Option("--default/--no-default", help="Whether it answers when none is named.")] = True,
    file: File = None,
) -> None:
    """Put an approved model behind a batch endpoint."""
    from mlops_nb.outer_loop import batch

    found = _approved(settings, model, file)
    name = endpoint or f"{found.name.removeprefix(f'{settings.environment}.')}-batch"
    made = batch.deploy(settings, name, found, deployment, file or "", default)
    say(f"{made.uri} has {found.name}/{found.version}. To score: mlops-nb batch invoke {made.endpoint} --input FOLDER --output FOLDER")


@app.command()
@acting
def invoke(
    settings: "Settings",
    endpoint: Annotated[str, typer.Argument(help="Endpoint.")],
    data: Annotated[str, typer.Option("--input", help="Folder, file, glob in quotes, or fsspec address.")],
    output: Output = "",
    deployment: Annotated[str, typer.Option("--deployment", help="Deployment.", show_default="the endpoint's default")] = "",
    workers: Workers = 0,
    form: Form = "",
    stream: Stream = True,
) -> None:
    """Score files through a batch endpoint; the same command again goes on with a job that was killed."""
    from mlops_nb.outer_loop import batch

    _check(form)
    with _progress() as show:
        done = batch.invoke(settings, endpoint, data, output, deployment, workers=workers, form=form, show=show, wait=stream)
    _tell(done)


@app.command("list")
@looking
def list_(settings: "Settings") -> None:
    """Show the batch endpoints and jobs of the environment."""
    from mlops_nb.outer_loop import batch

    found, known = batch.jobs(settings), batch.endpoints(settings)
    if known:
        rows = [(e["endpoint"], e["deployment"] + " (default)" * e["default"], e["model"].removeprefix("model:")) for e in known]
        table(f"Batch endpoints of {settings.environment}", ("endpoint", "deployment", "model"), rows)
    if found:
        columns = ("job", "state", "rows", "files", "failed", "model", "input")
        table(f"Batch jobs of {settings.environment}", columns, [_row(job) for job in reversed(found)])
    if not known and not found:
        say(f"No batch endpoints and no jobs in {settings.environment}. To score: mlops-nb batch score MODEL FOLDER")


@app.command()
@looking
def show(settings: "Settings", job: JobId) -> None:
    """Show how a job stands, and which files failed, with the reasons."""
    from mlops_nb.outer_loop import batch

    found = batch.status(settings, job)
    table(found.id, ("", ""), _facts(found))
    failed = batch.errors(settings, job)
    if len(failed):
        rows = [(str(entry["file"]), str(entry["reason"])) for entry in failed.head(20).to_dict("records")]
        table("Failed" + f" (the first 20 of {len(failed)})" * (len(failed) > 20), ("file", "reason"), rows)


@app.command()
@acting
def resume(
    settings: "Settings",
    job: JobId, stream: Stream = True
) -> None:
    """Go on with a job that was killed, cancelled or has failed; of a failed one, failed files are tried again."""
    from mlops_nb.outer_loop import batch

    with _progress() as show:
        done = batch.resume(settings, job, show, stream)
    _tell(done)


@app.command()
@acting
def cancel(settings: "Settings", job: JobId) -> None:
    """Stop a job; what is finished is kept, `resume` goes on from there."""
    from mlops_nb.outer_loop import batch

    with busy(f"cancelling {job}"):
        found = batch.cancel(settings, job)
    say(f"{found.id} is {found.state}, with {found.rows:,} rows. To go on: mlops-nb batch resume {found.id}")


@app.command()
@looking
def results(
    settings: "Settings",
    job: JobId,
    rows: Annotated[int, typer.Option("-n", help="How many.", min=1)] = 10,
) -> None:
    """Show the first predictions of a job, and where all of them are; of one under way, those that it has made so far."""
    from mlops_nb.outer_loop import batch

    found = batch.status(settings, job)
    frame = batch.results(settings, job, rows)
    table(found.id, tuple(map(str, frame.columns)), [tuple(map(str, row)) for row in frame.itertuples(index=False)])
    say(found.result or f"{found.id} is {found.state}; its parts: {found.folder / 'parts'}")


def _check(form: str) -> None:
    from mlops_nb.core.records import SpecificationError

    if form not in ("", "csv", "parquet"):
        raise SpecificationError([f"--format {form}: csv or parquet is expected."])


def _approved(settings: "Settings", model: str, file: Path | None) -> "ModelVersion":
    """Find a model that may be used in this environment; raises `GateClosed` for one that nobody has approved."""
    from mlops_nb.core.endpoint import load_batch_deployment
    from mlops_nb.outer_loop import approval, models

    path = file or settings.root / "environments" / settings.environment / "batch-deployment.yml"
    found = models.find_model(settings, model, script=load_batch_deployment(path).code_configuration is not None)
    if settings.approval == "required":
        approval.require(settings, found)
    return found


@contextmanager
def _progress() -> "Iterator[Callable[[Status], None]]":
    """Show files, rows, failures, speed and the time left, as long as the block lasts."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    out = console()
    columns = (SpinnerColumn(), BarColumn(bar_width=30), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as lines:
        line = lines.add_task("listing files", total=None)

        def show(status: "Status") -> None:
            left = f", {_time(status.seconds_left)} left" if status.seconds_left is not None else ""
            failed = f", {status.failed} failed" if status.failed else ""
            text = (f"{status.files_done:,} of {status.files:,} files{failed}, {status.rows:,} rows, "
                    f"{status.rows_per_second:,.0f} rows/s{left}")
            share = status.seconds / (status.seconds + status.seconds_left) if status.seconds_left is not None else None
            lines.update(line, description=text, total=None if share is None else 1.0, completed=share or 0)

        yield show


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def _tell(done: "BatchJob") -> None:
    if done.state == "running":
        say(f"{done.id} goes on by itself. To look: mlops-nb batch show {done.id}")
        return
    speed = f"{done.rows / done.seconds:,.0f} rows/s" if done.seconds else ""
    failed = f"; [yellow]{done.failed} files failed[/], see mlops-nb batch show {done.id}" if done.failed else ""
    say(f"[green]{done.state}[/] {done.id}: {done.rows:,} rows of {done.files:,} files in {done.seconds:.1f} s, {speed}{failed}")
    say(done.result)


def _row(job: "BatchJob") -> tuple[str, ...]:
    files = f"{job.files_done:,} of {job.files:,}"
    return (job.id, job.state, f"{job.rows:,}", files, str(job.failed), job.model.removeprefix("model:"), job.data)


def _facts(job: "BatchJob") -> list[tuple[str, str]]:
    facts: dict[str, Any] = {
        "state": job.state, "why": job.message, "model": job.model, "endpoint": job.endpoint, "input": job.data, "result": job.result,
        "files": f"{job.files_done:,} of {job.files:,}, {job.failed:,} failed", "rows": f"{job.rows:,}", "retries": job.retries,
        "speed": f"{job.rows_per_second:,.0f} rows/s", "time": _time(job.seconds),
        "left": _time(job.seconds_left) if job.seconds_left is not None else "", "folder": job.folder}
    return [(name, str(value)) for name, value in facts.items() if value not in ("", None)]
