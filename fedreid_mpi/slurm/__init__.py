"""SLURM: jobs as values, their sbatch commands as text, and what a cluster can give them."""

from fedreid_mpi.slurm.answers import job_number, moment, rows
from fedreid_mpi.slurm.cluster import SINFO, Partition, parse_partitions, parse_time, refusals
from fedreid_mpi.slurm.job import Job, Resources, sbatch_command, shell_text
from fedreid_mpi.slurm.sizing import count_clients, fit

__all__ = [
    "SINFO",
    "Job",
    "Partition",
    "Resources",
    "count_clients",
    "fit",
    "job_number",
    "moment",
    "parse_partitions",
    "parse_time",
    "refusals",
    "rows",
    "sbatch_command",
    "shell_text",
]
