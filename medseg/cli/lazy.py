"""Import the command of a group only when it is called; help and completion use a table."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click


class LazyGroup(click.Group):
    """List commands by name; each is a module with a `command`, or `module:member`.

    Args:
        table: for each name its module and its line of help.
    """

    def __init__(self, *args: Any, table: Mapping[str, tuple[str, str]], **options: Any) -> None:
        super().__init__(*args, **options)
        self.table = dict(table)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in order."""
        return sorted(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command of that name and return it; None if there is none."""
        if cmd_name not in self.table:
            return None
        module, _, member = self.table[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), member or "command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands for the help."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.table[name][1]) for name in self.list_commands(ctx)])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find the command; an unknown name gives an error that names the nearest."""
        if args and not args[0].startswith("-") and args[0] not in self.table:
            from medseg.errors import did_you_mean

            fix = did_you_mean(args[0], self.table, f"The commands are: {', '.join(sorted(self.table))}.")
            ctx.fail(f"There is no command '{args[0]}'. {fix}")
        return super().resolve_command(ctx, args)
