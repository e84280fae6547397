"""What the launcher told this process, read from its environment before MPI starts."""

from collections.abc import Mapping

SIZES = {
    "OMPI_COMM_WORLD_SIZE": "Open MPI",
    "PMI_SIZE": "MPICH or another launcher of its family",
    "MV2_COMM_WORLD_SIZE": "MVAPICH",
    "SLURM_STEP_NUM_TASKS": "srun",
}
"""Environment variables that tell how many processes were launched, and the launcher that sets each."""

RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK", "SLURM_PROCID")
"""Environment variables that number the processes of a launch from 0."""


def is_first(environment: Mapping[str, str]) -> bool:
    """Return whether this process speaks for its launch: it is rank 0, or was started alone."""
    numbers = [environment[variable] for variable in RANKS if variable in environment]
    return not numbers or numbers[0] == "0"


def launched_size(environment: Mapping[str, str]) -> tuple[int, str]:
    """Return how many processes the launcher started, and which launcher it was.

    Parameters
    ----------
    environment
        Usually ``os.environ``.

    Returns
    -------
    tuple of int and str
        1 and an empty string where no launcher is known.
    """
    for variable, launcher in SIZES.items():
        value = environment.get(variable, "")
        if value.isdigit() and int(value) >= 1:
            return int(value), launcher
    return 1, ""


def survives_losses(environment: Mapping[str, str]) -> bool:
    """Return whether the launcher switched fault tolerance on: Open MPI's ``mpirun --with-ft ulfm``.

    It must be known beforehand: without it, Open MPI has the same functions, and they do nothing.
    """
    return environment.get("OMPI_MCA_mpi_ft_enable", "").lower() in {"1", "true", "t", "yes", "enabled"}
