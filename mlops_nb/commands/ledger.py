"""Read and verify the audit trail."""

from typing import TYPE_CHECKING, Annotated

import typer

from mlops_nb.commands.options import group, looking
from mlops_nb.terminal import say, table

if TYPE_CHECKING:
    from mlops_nb.core.settings import Settings

app = group("Read and verify the audit trail.")


@app.command("verify")
@looking
def verify(settings: "Settings") -> None:
    """Check every entry's hash and link; exit 2 if one was changed, removed or reordered."""
    from mlops_nb.core import ledger
    from mlops_nb.core.records import SpecificationError

    if faults := ledger.verify(settings):
        raise SpecificationError([f"{settings.ledger}: {fault}" for fault in faults])
    say(f"{len(ledger.entries(settings))} entries, unbroken")


@app.command("show")
@looking
def show(
    settings: "Settings",
    address: Annotated[str, typer.Argument(help="Only what concerns this address, e.g. model:dev.diamonds/2.")] = "",
    lineage: Annotated[bool, typer.Option("--lineage", help="Everything it was made from.")] = False,
) -> None:
    """Print the ledger, or the lineage of one address."""
    from mlops_nb.core import ledger

    found = ledger.lineage(settings, address) if lineage else ledger.entries(settings, address)
    rows = [(str(e.seq), e.at[:19], f"{e.user} ({e.persona})", e.action, e.subject, ", ".join(e.inputs)) for e in found]
    table("Ledger", ("", "at", "who", "action", "subject", "from"), rows)
