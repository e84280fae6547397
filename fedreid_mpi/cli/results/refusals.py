"""What happens with archives that cannot be read: each is named, the rest is done, and the exit code is 3."""

import click

from fedreid_mpi.errors import DataError


class Refusals:
    """Names each archive that is left out; a `fedreid_mpi.results.sources.Refuse`."""

    def __init__(self) -> None:
        self._first: DataError | None = None
        self._count = 0

    def __call__(self, error: DataError) -> None:
        """Name one."""
        self._first = self._first or error
        self._count += 1
        click.echo(f"skipped: {error}", err=True)

    def settle(self) -> None:
        """End the command, when the rest is done.

        Raises
        ------
        DataError
            If anything was left out.
        """
        if self._first is not None:
            others = f" (and {self._count - 1} more)" if self._count > 1 else ""
            raise DataError(f"skipped {self._first}{others}")
