"""What the commands share: the options that most of them take, and the settings and values these lead to."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mlops_nb.core.settings import Settings

Environment = Annotated[str, typer.Option("--env", help="Environment: a section of settings.ini.", show_default="dev")]
State = Annotated[str, typer.Option("--state", help="State folder, instead of the settings' own.")]
By = Annotated[str, typer.Option("--by", help="Who acts, as the ledger records it.", show_default="your login")]
As = Annotated[str, typer.Option("--as", help="In which role: a persona of environments/access.")]
Values = Annotated[list[str] | None, typer.Option("-p", help="Parameter as NAME=VALUE; repeat for more.")]


def group(text: str) -> typer.Typer:
    """Make a group of commands; plain help answers twice as fast as rich's."""
    return typer.Typer(help=text, no_args_is_help=True, rich_markup_mode=None)


def settings_of(env: str = "", state: str = "", by: str = "", persona: str = "") -> "Settings":
    """Load the settings that a command's options ask for."""
    from mlops_nb.core.settings import load_settings

    folder = str(Path(state).expanduser().resolve()) if state else ""
    return load_settings(env, state=folder, user=by, persona=persona)


def parse_values(values: list[str] | None) -> dict[str, str]:
    """Split NAME=VALUE words; raises `SpecificationError` listing every word that is none."""
    from mlops_nb.core.records import SpecificationError

    if wrong := [f"'{word}': NAME=VALUE is expected." for word in values or [] if "=" not in word]:
        raise SpecificationError(wrong)
    return {name: value for name, _, value in (word.partition("=") for word in values or [])}
