"""The options that all submissions share, and the submission itself."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.slurm import (
    SINFO,
    Job,
    Resources,
    parse_partitions,
    parse_time,
    refusals,
    sbatch_command,
    shell_text,
)
from fedreid_mpi.storage.atomic import atomic_write, write_errors
from fedreid_mpi.storage.regular import read_text

SUBMITTED = "jobs.txt"
"""File in a run's or study's folder: number and step of each job that was submitted for it, a line each."""

Function = TypeVar("Function", bound=Callable[..., Any])


def _time(context: click.Context, parameter: click.Parameter, value: str) -> str:
    try:
        parse_time(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}: e.g. 90, 12:00:00 or 1-12:00:00", context, parameter) from error
    return value


_COUNT = click.IntRange(min=1)
_OPTIONS = (
    click.option("--nodes", type=_COUNT, help="Nodes.  [default: as many as have the GPUs, else 1]"),
    click.option("--gpus-per-node", type=click.IntRange(min=0), default=0, help="GPUs of each node."),
    click.option(
        "--ranks",
        type=_COUNT,
        help="MPI ranks.  [default: the server and one per client; with GPUs at most one per GPU]",
    ),
    click.option("--cpus-per-task", type=_COUNT, default=1, show_default=True, help="CPUs of each rank."),
    click.option("--mem", metavar="SIZE", help="Memory of each node, e.g. 64G."),
    click.option(
        "--time", default="24:00:00", show_default=True, callback=_time, help="Time limit of each job."
    ),
    click.option("--partition", metavar="NAME"),
    click.option("--account", metavar="NAME"),
    click.option("--qos", metavar="NAME"),
    click.option("--constraint", metavar="FEATURES"),
    click.option(
        "--extra",
        multiple=True,
        metavar="OPTION",
        help="One more option of sbatch, e.g. --extra=--mail-type=END. May be repeated.",
    ),
    click.option(
        "--env-script",
        type=click.Path(path_type=Path),
        default=Path("jobs/env.sh"),
        show_default=True,
        help="The site's settings; the job scripts are beside it.",
    ),
    click.option(
        "--launcher", type=click.Choice(("mpirun", "srun")), help="[default: the env script's choice]"
    ),
    click.option(
        "--max-requeues",
        type=click.IntRange(min=0),
        default=20,
        show_default=True,
        help="How often a job that ran out of time goes back into the queue.",
    ),
    click.option("--dry-run", is_flag=True, help="Print the commands as a shell script; submit nothing."),
)


def submission_options(function: Function) -> Function:
    """Add the options that all submissions share."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def resources_from(options: dict[str, Any]) -> Resources:
    """Gather what the options ask for."""
    names = ("nodes", "ranks", "cpus_per_task", "gpus_per_node", "mem", "time")
    places = ("partition", "account", "qos", "constraint", "extra")
    return Resources(**{name: options[name] for name in (*names, *places)})


def environment_from(options: dict[str, Any]) -> dict[str, str]:
    """Gather what the job scripts read from their environment."""
    values = {
        "FEDREID_ENV": str(options["env_script"].resolve()),
        "FEDREID_MAX_REQUEUES": str(options["max_requeues"]),
    }
    return values | ({"FEDREID_LAUNCHER": options["launcher"]} if options["launcher"] else {})


def script(env_script: Path, name: str) -> Path:
    """Return the path of a job script.

    Raises
    ------
    ConfigurationError
        It is not there.
    """
    for path in (env_script, env_script.parent / f"{name}.sbatch"):
        if not path.is_file():
            raise ConfigurationError(
                f"--env-script {env_script}: no file {path}, expected this program's folder jobs/ or a copy"
            )
    return path.resolve()


def submit(jobs: Sequence[Job], folder: Path, dry_run: bool) -> None:
    """Check jobs against the cluster and submit them, or print the shell script that would.

    Parameters
    ----------
    jobs
        Each after those that it depends on.
    folder
        Of the run or study: receives the logs and the file `SUBMITTED`.
    dry_run
        Print alone.

    Raises
    ------
    ConfigurationError
        There is no SLURM here, or it cannot give what a job asks for.
    """
    try:
        partitions = parse_partitions(ask(SINFO))
    except ConfigurationError as error:
        if not dry_run:
            raise ConfigurationError(f"no SLURM here: {error}; --dry-run prints the commands") from error
        click.echo(f"not checked against a cluster: {error}", err=True)
    else:
        problems = (problem for job in jobs for problem in refusals(job.resources, partitions))
        if unlike := list(dict.fromkeys(problems)):
            raise ConfigurationError("; ".join(unlike))
    if dry_run:
        click.echo(shell_text(jobs), nl=False)
        return
    try:
        (folder / "logs").mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise ConfigurationError(f"{folder}: cannot be made: {error.strerror}") from error
    numbers: dict[str, str] = {}
    for job in jobs:
        command = sbatch_command(job, numbers.get(job.after, ""))
        numbers[job.step] = ask(command, job.environment).strip().partition(";")[0]
        _remember(folder / SUBMITTED, f"{numbers[job.step]} {job.step}\n")
        waits = f", after {numbers[job.after]}" if job.after else ""
        log = job.log.with_name(re.sub("%[jA]", numbers[job.step], job.log.name))
        click.echo(f"{job.step}: job {numbers[job.step]}{waits}, log {log}")
    click.echo(f"follow: fedreid-mpi submit status {shlex.quote(str(folder))}")


def _remember(path: Path, line: str) -> None:
    """Add a job to the list of those that were submitted."""
    with write_errors(path):
        before = read_text(path) if path.exists() else ""
        with atomic_write(path) as temporary:
            temporary.write_text(before + line, encoding="utf-8")


def ask(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """Run one of SLURM's commands and return what it printed.

    Raises
    ------
    ConfigurationError
        It is not installed, or failed; with its own words.
    """
    if shutil.which(command[0]) is None:
        raise ConfigurationError(f"{command[0]} is not on the PATH")
    ended = subprocess.run(
        command,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if ended.returncode:
        raise ConfigurationError(f"{command[0]} failed: {ended.stderr.strip() or ended.stdout.strip()}")
    return ended.stdout


def side_job(
    step: str, job: Job, arguments: Sequence[str | Path], after: str = "", gpus: int | None = None
) -> Job:
    """Make a one-task job that goes with another: same partition, account and time limit, logged beside it.

    Parameters
    ----------
    step
        What it does; the script is named after it.
    job
        The other one.
    arguments
        Of the script.
    after
        Step that it waits for.
    gpus
        GPUs that it asks for.
    """
    where = job.resources
    return Job(
        step=step,
        name=f"{job.name}-{step}",
        script=job.script.with_name(f"{step}.sbatch"),
        arguments=tuple(map(str, arguments)),
        log=job.log.with_name(f"{step}-%j.log"),
        resources=Resources(
            gpus_per_node=gpus,
            time=where.time,
            partition=where.partition,
            account=where.account,
            qos=where.qos,
            constraint=where.constraint,
            extra=where.extra,
        ),
        environment=job.environment,
        after=after,
    )
