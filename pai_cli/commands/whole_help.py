"""`pai help`: all that a command's help says."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pai_cli.commands.panels import PANEL_OF
from pai_cli.display.console import show_lines
from pai_cli.display.help import help_text


def help_of(
    ctx: typer.Context,
    command: Annotated[
        str | None, typer.Argument(metavar="[COMMAND]", help="Whose; without it, that of pai itself.")
    ] = None,
) -> None:
    """Show all that a command's help says: the whole text of every option."""
    group: Any = ctx.parent
    if command is None:
        show_lines(help_text(group, PANEL_OF, whole=True))
        return
    found = group.command.get_command(group, command)
    if found is None:
        raise typer.BadParameter(f"no command {command!r}: there are {', '.join(group.command.list_commands(group))}")
    show_lines(help_text(type(ctx)(found, info_name=command, parent=group), PANEL_OF, whole=True))


COMMANDS = {
    "help": (help_of, "pai help prune"),
}
