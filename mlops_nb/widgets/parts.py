"""The scripts and styles of a card as one text: no bundler, and nothing is fetched from elsewhere."""

from pathlib import Path

HERE = Path(__file__).parent


def script(*names: str) -> str:
    """Join what all cards share and a card's own scripts, in this order."""
    return "\n".join((HERE / f"{name}.js").read_text() for name in ("parts", *names) if (HERE / f"{name}.js").is_file())


def style(*names: str) -> str:
    """Join the styles of a card; a part without one of its own has what the others say."""
    return "\n".join((HERE / f"{name}.css").read_text() for name in names if (HERE / f"{name}.css").is_file())
