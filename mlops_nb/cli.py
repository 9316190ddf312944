"""The command `mlops-nb`: the same doors as the Python functions, with exit codes for scripts.

Exit codes: 0 done, 2 wrong use or bad specification, 3 a gate said no or waits for a person, 4 a step failed, 5 timed out,
130 stopped. The commands stand in `mlops_nb.commands`; everything heavy is imported inside them, so that the help answers at once.
"""

import sys
from collections.abc import Callable
from typing import Any

import typer

from mlops_nb.commands import (
    azure,
    batch,
    endpoint,
    hosting,
    label,
    ledger,
    monitor,
    notebook,
    package,
    policy,
    profile,
    project,
    run,
    schedule,
    serve,
)

app = typer.Typer(
    help="A notebook-first MLOps workbench: from the first look at the data to the alert in production.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help answers twice as fast
)
for room in (run, serve, monitor, profile, notebook, project):
    app.add_typer(room.commands)
for name, commands in {
    "runs": run,
    "schedule": schedule,
    "notebook": notebook,
    "endpoint": endpoint,
    "batch": batch,
    "generate": hosting,
    "label": label,
    "package": package,
    "policy": policy,
    "ledger": ledger,
    "azure": azure,
}.items():
    app.add_typer(commands.app, name=name)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; every foreseen fault becomes one message on stderr and its exit code."""
    raise SystemExit(_guarded(lambda: app(arguments, standalone_mode=False)))


def _guarded(command: Callable[[], Any]) -> int:
    usage_error: Any = typer.BadParameter.__base__  # the command-line parser's own, which typer does not name
    try:
        return int(command() or 0)
    except typer.Exit as end:
        return end.exit_code
    except usage_error as wrong:
        wrong.show()
        return 2
    except (KeyboardInterrupt, typer.Abort):
        print("stopped; the same command goes on where it was", file=sys.stderr)
        return 130
    except Exception as problem:
        code = _exit_code(problem)
        if code is None:
            raise
        print(problem, file=sys.stderr)
        return code


def _exit_code(problem: Exception) -> int | None:
    """Translate an exception of ours to its exit code; None for a bug, which keeps its traceback."""
    from mlops_nb.core.records import GateClosed, SpecificationError, StepFailed

    if isinstance(problem, StepFailed):
        return 4
    if isinstance(problem, GateClosed) or (isinstance(problem, PermissionError) and problem.errno is None):
        return 3
    if isinstance(problem, TimeoutError):
        return 5
    if isinstance(problem, SpecificationError | OSError | ValueError | LookupError):
        return 2
    return None
