"""The scripts and styles of a card as one text: no bundler, and nothing is fetched from elsewhere."""

from pathlib import Path

HERE = Path(__file__).parent


def script(*names: str) -> str:
    """Join what all cards share and a card's own scripts, in this order."""
    return "\n".join((HERE / name).read_text() for name in ("parts.js", *names))


def style(*names: str) -> str:
    """Join the styles of a card."""
    return "\n".join((HERE / name).read_text() for name in names)
