"""Every way a run can end badly, with the exit code the user's job script sees.

A message is one line that names the file or key, what was found and what was expected.
"""


class FedReIDError(Exception):
    """Root of all errors that this package raises on purpose; ends with exit code 1 unless refined."""

    exit_code = 1


class ConfigurationError(FedReIDError):
    """The command line, the configuration or the environment (MPI, GPUs, run directory) is wrong."""

    exit_code = 2


class DataError(FedReIDError):
    """A dataset folder, an archive or a weights file is not what it should be."""

    exit_code = 3


class Abandoned(Exception):  # noqa: N818 (not an error: it was asked for)
    """A round is given up between two batches, as the run was asked to stop at once."""


class TooFewClientsError(FedReIDError):
    """Fewer clients are left than the run needs."""

    exit_code = 4
