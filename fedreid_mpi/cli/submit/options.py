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

from fedreid_mpi.cli.streams import outlive_output
from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.slurm import (
    SINFO,
    Job,
    Resources,
    job_number,
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

OPTIONS_OF_ITS_OWN = {
    "--cpus-per-task": ("-c",),
    "--account": ("-A",),
    "--constraint": ("-C",),
    "--gpus-per-node": ("--gpus", "-G", "--gres=gpu"),
    "--mem": (),
    "--nodes": ("-N",),
    "--partition": ("-p",),
    "--qos": ("-q",),
    "--ranks": ("--ntasks", "-n", "--ntasks-per-node"),
    "--time": ("-t",),
}
"""Options by which jobs are sized and checked, and their names in sbatch."""

ONE_GPU_EACH = ("--gpus-per-task", "--gpu-bind", "--ntasks-per-gpu", "--gpus-per-socket")
"""Options of sbatch that bind GPUs to tasks."""

SET_HERE = (
    "--array",
    "-a",
    "--dependency",
    "-d",
    "--output",
    "-o",
    "--job-name",
    "-J",
    "--parsable",
    "--wrap",
)
"""Options of sbatch that the jobs need as they are."""

Function = TypeVar("Function", bound=Callable[..., Any])


def _time(context: click.Context, parameter: click.Parameter, value: str) -> str:
    try:
        parse_time(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}: e.g. 90, 12:00:00 or 1-12:00:00", context, parameter) from error
    return value


def _extra(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse options of sbatch that would contradict what the jobs are made of."""
    for value in values:
        name = value.partition("=")[0] if value.startswith("--") else value[:2]
        own = [
            option
            for option, others in OPTIONS_OF_ITS_OWN.items()
            if name in (option, *others) or (value.startswith("--gres=gpu") and "--gres=gpu" in others)
        ]
        if own:
            reason = f"expected {own[0]} of submit itself"
        elif name in ONE_GPU_EACH:
            reason = (
                "each task would see a GPU of its own, the server too; expected --gpus-per-node, of which "
                "each client rank takes one"
            )
        elif name in SET_HERE:
            reason = "submit sets this itself"
        elif not value.startswith("-"):
            reason = "expected one word that is an option, e.g. --extra=--mail-type=END"
        else:
            continue
        raise click.BadParameter(f"{value}: {reason}", context, parameter)
    return values


_COUNT = click.IntRange(min=1)
_OPTIONS = (
    click.option("--nodes", type=_COUNT, help="Nodes.  [default: as many as have the GPUs, or 1]"),
    click.option("--gpus-per-node", type=click.IntRange(min=0), default=0, help="GPUs of each node."),
    click.option(
        "--ranks",
        type=_COUNT,
        help="MPI ranks.  [default: the server and one per client; with GPUs at most one per GPU]",
    ),
    click.option("--cpus-per-task", type=_COUNT, default=1, show_default=True, help="CPUs of each rank."),
    click.option("--mem", metavar="SIZE", help="Memory of each node, e.g. 64G."),
    click.option(
        "--time",
        default="24:00:00",
        show_default=True,
        callback=_time,
        help="Time limit of each job, as sbatch takes it: minutes, HH:MM:SS, D-HH:MM:SS; 0 for none.",
    ),
    click.option("--partition", metavar="NAME", help="Partition, as for sbatch."),
    click.option("--account", metavar="NAME", help="Account, as for sbatch."),
    click.option("--qos", metavar="NAME", help="Quality of service, as for sbatch."),
    click.option("--constraint", metavar="FEATURES", help="Features of the nodes, as for sbatch."),
    click.option(
        "--extra",
        multiple=True,
        metavar="OPTION",
        callback=_extra,
        help="One more option of sbatch, e.g. --extra=--mail-type=END. May be repeated.",
    ),
    click.option(
        "--env-script",
        type=click.Path(path_type=Path),
        default=Path("jobs/env.sh"),
        show_default=True,
        help="The site's settings; the job scripts are in the same folder.",
    ),
    click.option(
        "--launcher",
        type=click.Choice(("mpirun", "srun")),
        help="What starts the ranks.  [default: the env script's choice]",
    ),
    click.option(
        "--max-requeues",
        type=click.IntRange(min=0),
        default=20,
        show_default=True,
        help="How often a job that ran out of time is requeued.",
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
    _check(jobs, dry_run)
    if dry_run:
        click.echo(shell_text(jobs), nl=False)
        return
    try:
        (folder / "logs").mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise ConfigurationError(f"{folder}: cannot be made: {error.strerror}") from error
    outlive_output()  # half a chain would be worse than none
    numbers: dict[str, str] = {}
    for job in jobs:
        command = sbatch_command(job, numbers.get(job.after, ""))
        said = ask(command, job.environment)
        numbers[job.step] = job_number(said)
        if not numbers[job.step]:
            raise ConfigurationError(f"sbatch printed {said.strip()[:200]!r}, expected the number of a job")
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


def _check(jobs: Sequence[Job], dry_run: bool) -> None:
    """Compare what jobs ask for with what the cluster has; say so where it is not known."""
    clusters = [word for word in jobs[0].resources.extra if word.startswith(("--clusters=", "-M"))]
    try:
        said = ask([*SINFO, *clusters])
    except ConfigurationError as error:
        if not dry_run:
            raise ConfigurationError(f"no SLURM here: {error}; --dry-run prints the commands") from error
        click.echo(f"not checked against a cluster: {error}", err=True)
        return
    partitions = parse_partitions(said)
    if not partitions:
        found = f"printed {said.strip()[:200]!r}, in which" if said.strip() else "printed nothing:"
        click.echo(f"not checked against a cluster: sinfo {found} no partition is listed", err=True)
        return
    problems = (problem for job in jobs for problem in refusals(job.resources, partitions))
    if unlike := list(dict.fromkeys(problems)):
        raise ConfigurationError("; ".join(unlike))


def ask(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """Run one of SLURM's commands and return what it printed.

    Raises
    ------
    ConfigurationError
        It is not installed, or failed; with its own words.
    """
    if shutil.which(command[0]) is None:
        raise ConfigurationError(f"{command[0]} is not on the PATH")
    try:
        ended = subprocess.run(
            command,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise ConfigurationError(f"{command[0]} cannot be run: {error.strerror}") from error
    if ended.returncode:
        words = (ended.stderr.strip() or ended.stdout.strip() or f"exit code {ended.returncode}").split()
        raise ConfigurationError(f"{command[0]} failed: {' '.join(words)}")
    return ended.stdout


def side_job(
    step: str, job: Job, arguments: Sequence[str | Path], after: str = "", gpus: int | None = None
) -> Job:
    """Make a one-task job that accompanies another: same partition, account and time limit, logged beside it.

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
