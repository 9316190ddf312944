"""What the commands share: the options that most of them take, and the settings and values these lead to."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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


def looking(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that changes nothing its first argument, the settings, from --env and --state."""
    return _with_settings(command, env=Environment, state=State)


def acting(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command its first argument, the settings, from --env, --state, --by and --as: who acts stands in the ledger."""
    return _with_settings(command, env=Environment, state=State, by=By, persona=As)


def _with_settings(command: Callable[..., None], **options: Any) -> Callable[..., None]:
    def run(**given: Any) -> None:
        command(settings_of(**{name: given.pop(name) for name in options}), **given)

    functools.update_wrapper(run, command)
    _, *own = inspect.signature(command).parameters.values()
    asked = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default="", annotation=kind) for name, kind in options.items()]
    run.__signature__ = inspect.Signature([*own, *asked])  # type: ignore[attr-defined]  # typer reads it
    run.__annotations__ = {one.name: one.annotation for one in (*own, *asked)}
    return run
