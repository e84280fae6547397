"""Entry point of ``fedreid-mpi`` and of ``python -m fedreid_mpi``."""

import sys

from fedreid_mpi.cli import run
from fedreid_mpi.cli.ending import interrupted_by_signals
from fedreid_mpi.cli.streams import open_streams


def main() -> None:
    """Run the command line and exit with its code."""
    open_streams()
    with interrupted_by_signals():
        sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
