"""A job as a value, and the sbatch command that submits it.

What a job does is in one place, its script in ``jobs/``. A command names that script, its arguments, and
the options that differ from the script's ``#SBATCH`` lines, which sbatch lets the command line overrule.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedreid_mpi.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Resources:
    """What a job asks SLURM for; None or empty leaves it to the script or the cluster.

    Attributes
    ----------
    nodes, ranks, cpus_per_task, gpus_per_node
        Counts; ranks are SLURM's tasks.
    mem, time
        Memory a node and time limit, as sbatch takes them.
    partition, account, qos, constraint
        As sbatch takes them.
    extra
        Further options of sbatch, each one word.
    """

    nodes: int | None = None
    ranks: int | None = None
    cpus_per_task: int | None = None
    gpus_per_node: int | None = None
    mem: str | None = None
    time: str | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    extra: tuple[str, ...] = ()

    @property
    def ranks_per_node(self) -> int | None:
        """The most ranks that a node has when they are dealt out evenly; None on one node."""
        if self.ranks is None or self.nodes is None or self.nodes == 1:
            return None
        return -(-self.ranks // self.nodes)

    def options(self) -> Iterator[str]:
        """Yield the options of sbatch."""
        values = {
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "nodes": self.nodes,
            "ntasks": self.ranks,
            "ntasks-per-node": self.ranks_per_node,
            "cpus-per-task": self.cpus_per_task,
            "gpus-per-node": self.gpus_per_node or None,
            "mem": self.mem,
            "time": self.time,
        }
        yield from (f"--{name}={value}" for name, value in values.items() if value is not None)
        yield from self.extra


@dataclass(frozen=True, slots=True)
class Job:
    """A job script with its arguments.

    Attributes
    ----------
    step
        What it does, e.g. ``train``; unique among jobs that are submitted together, and a name in a shell.
    name
        By which SLURM lists it.
    script
        One of ``jobs/*.sbatch``.
    arguments
        Of the script.
    log
        File that it prints to, with SLURM's patterns, e.g. ``%j``, in the file's name alone.
    resources
        What it asks for.
    environment
        Variables that the script reads.
    array
        Indices of a job array, e.g. ``0-9%4``; empty: none.
    after
        Step that must have ended well before this one begins; empty: none.
    """

    step: str
    name: str
    script: Path
    arguments: tuple[str, ...]
    log: Path
    resources: Resources = Resources()
    environment: Mapping[str, str] = field(default_factory=dict)
    array: str = ""
    after: str = ""


def sbatch_command(job: Job, dependency: str = "") -> list[str]:
    """Return the command that submits a job and prints its number.

    Parameters
    ----------
    job
        The job.
    dependency
        Number of the job that has to end well before this one begins; empty: none. If that one fails, this
        one is removed from the queue.

    Raises
    ------
    ConfigurationError
        The log's folder cannot be passed to SLURM.
    """
    after = [f"--dependency=afterok:{dependency}", "--kill-on-invalid-dep=yes"] if dependency else []
    return ["sbatch", "--parsable", *after, *_words(job)]


def shell_text(jobs: Sequence[Job]) -> str:
    """Write a shell script that submits jobs, each after the one it depends on, and prints their numbers."""
    folders = dict.fromkeys(shlex.quote(str(job.log.parent)) for job in jobs)
    lines = ["#!/bin/sh", "set -e", f"(umask 077 && mkdir -p {' '.join(folders)})"]
    for job in jobs:
        command = [f"{name}={shlex.quote(value)}" for name, value in sorted(job.environment.items())]
        command.append("sbatch --parsable")
        if job.after:
            command.append(f'--dependency=afterok:"${{{job.after}%%;*}}" --kill-on-invalid-dep=yes')
        text = " \\\n    ".join([*command, *map(shlex.quote, _words(job))])
        lines += ["", f"{job.step}=$({text})", f'echo "{job.step}: job ${{{job.step}%%;*}}"']
    return "\n".join(lines) + "\n"


def _words(job: Job) -> list[str]:
    """Return what follows ``sbatch --parsable``: options, script, arguments."""
    array = [f"--array={job.array}"] if job.array else []
    names = [f"--job-name={job.name}", f"--output={_log(job.log)}"]
    return ["--export=ALL", *names, *array, *job.resources.options(), str(job.script), *job.arguments]


def _log(path: Path) -> str:
    """Write a log's path so that SLURM fills in patterns in its last part alone."""
    folder = str(path.parent)
    if "\\" in folder:
        raise ConfigurationError(
            f"{folder}: SLURM cannot write a log into a folder with a backslash in its name"
        )
    return f"{folder.replace('%', '%%')}/{path.name}"
