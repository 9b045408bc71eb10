"""A group whose commands are imported when they are called; help and completion go by a table."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click


class LazyGroup(click.Group):
    """Commands by name, each a module with a `command`, and what help says of it.

    Args:
        table: module and line of help by name.
    """

    def __init__(self, *args: Any, table: Mapping[str, tuple[str, str]], **options: Any) -> None:
        super().__init__(*args, **options)
        self.table = dict(table)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in order."""
        return sorted(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported now; None where there is none."""
        if cmd_name not in self.table:
            return None
        command: click.Command = importlib.import_module(self.table[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table, for help."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.table[name][1]) for name in self.list_commands(ctx)])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """See click; a name that there is not brings the nearest."""
        if args and not args[0].startswith("-") and args[0] not in self.table:
            from medseg.errors import did_you_mean

            fix = did_you_mean(args[0], self.table, f"There are: {', '.join(sorted(self.table))}.")
            ctx.fail(f"There is no command '{args[0]}'. {fix}")
        return super().resolve_command(ctx, args)
