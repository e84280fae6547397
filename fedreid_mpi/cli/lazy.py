"""Groups of commands that are imported only when they are called."""

from collections.abc import Mapping
from importlib import import_module

import click


class LazyGroup(click.Group):
    """A group that lists its commands without importing them, so that ``--help`` needs no torch.

    Attributes
    ----------
    package
        Each command is ``command`` of the module of its name in this package, dashes read as underscores.
    table
        Names and one line each, in the order in which a user meets them.
    """

    package: str
    table: Mapping[str, str]

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the commands in the order of the table."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of a command and return its ``command``."""
        if cmd_name not in self.table:
            return None
        command = import_module(f"{self.package}.{cmd_name.replace('-', '_')}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self.table.items()))


def lazy_group(package: str, table: Mapping[str, str]) -> type[LazyGroup]:
    """Return the class of a group whose commands live in a package."""
    return type("Group", (LazyGroup,), {"package": package, "table": table})
