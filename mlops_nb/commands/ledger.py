"""Read and verify the audit trail."""

from typing import Annotated

import typer

from mlops_nb.commands.options import Environment, State, group, settings_of
from mlops_nb.terminal import say, table

app = group("Read and verify the audit trail.")


@app.command("verify")
def verify(env: Environment = "", state: State = "") -> None:
    """Check every entry's hash and link; exit 2 if one was changed, removed or reordered."""
    from mlops_nb.core import ledger
    from mlops_nb.core.records import SpecificationError

    settings = settings_of(env, state)
    if faults := ledger.verify(settings):
        raise SpecificationError([f"{settings.ledger}: {fault}" for fault in faults])
    say(f"{len(ledger.entries(settings))} entries, unbroken")


@app.command("show")
def show(
    address: Annotated[str, typer.Argument(help="Only what concerns this address, e.g. model:dev.diamonds/2.")] = "",
    lineage: Annotated[bool, typer.Option("--lineage", help="Everything it was made from.")] = False,
    env: Environment = "",
    state: State = "",
) -> None:
    """Print the ledger, or the lineage of one address."""
    from mlops_nb.core import ledger

    settings = settings_of(env, state)
    found = ledger.lineage(settings, address) if lineage else ledger.entries(settings, address)
    rows = [(str(e.seq), e.at[:19], f"{e.user} ({e.persona})", e.action, e.subject, ", ".join(e.inputs)) for e in found]
    table("Ledger", ("", "at", "who", "action", "subject", "from"), rows)
