"""Entry point of ``fedreid-mpi`` and of ``python -m fedreid_mpi``."""

import sys

from fedreid_mpi.cli import run


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
