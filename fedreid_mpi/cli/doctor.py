"""``fedreid-mpi doctor``: what this machine or allocation offers, and likely problems."""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

import click

from fedreid_mpi.cli.console import print_error, print_table
from fedreid_mpi.comm import Communicator, PhaseError, SingleCommunicator, connect
from fedreid_mpi.comm.mpi.launch import is_first, survives_losses
from fedreid_mpi.doctor import Finding, Level, Report, examine, judge, look_around
from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.wording import counted

COLOURS = {Level.OK: "green", Level.WARNING: "yellow", Level.ERROR: "red"}
GIB = 2**30


@click.command("doctor")
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path),
    default=Path(),
    show_default="the current folder",
    help="Folder whose file system is tested; need not exist.",
)
@click.option("--json", "as_json", is_flag=True, help="Print facts and findings as JSON.")
def command(run_dir: Path, as_json: bool) -> None:
    """Check what this machine or allocation offers to a run; list likely problems and how to fix them.

    Launched as a run would be, it shows the ranks by node with their cores and GPUs, and checks that
    all nodes see the run directory:

    \b
      fedreid-mpi doctor
      mpirun -n 10 fedreid-mpi doctor --run-dir runs/1

    Exit codes: 0 if jobs can run, with or without warnings; 2 if none can.
    """  # noqa: D301 (click needs the backspace)
    surroundings = look_around(os.environ)
    comm, problem = _join()
    try:
        report = examine(comm, run_dir, surroundings, problem)
    except PhaseError as error:
        if comm.is_server:
            print_error(str(error))
        sys.exit(error.exit_code)
    except BaseException as error:  # noqa: BLE001
        # Not agreed upon: the other ranks know nothing of it and would wait forever.
        failure = comm.describe("doctor", error)
        print_error(failure.message)
        comm.abort(failure.exit_code)
        sys.exit(failure.exit_code)
    findings = judge(report) if report is not None else []
    # Before anything is printed: if the output is lost, no rank is left waiting.
    failed = comm.broadcast(any(finding.level is Level.ERROR for finding in findings))
    if report is not None and as_json:
        click.echo(json.dumps({**asdict(report), "findings": [asdict(each) for each in findings]}, indent=2))
    elif report is not None:
        _print_facts(report)
        _print_ranks(report)
        _print_findings(findings)
    sys.exit(ConfigurationError.exit_code if failed else 0)


def _join() -> tuple[Communicator, str]:
    """Join the other ranks; where that is impossible the first process says so and the others leave."""
    try:
        return connect(fault_tolerant=survives_losses(os.environ)), ""
    except ConfigurationError as error:
        if not is_first(os.environ):
            sys.exit(0)  # with another code the launcher might end the first before it has printed its report
        return SingleCommunicator(), str(error)


def _print_facts(report: Report) -> None:
    from rich.table import Table

    table = Table(title="Facts", show_header=False)
    for name, text in _facts(report):
        table.add_row(name, text)
    print_table(table)


def _facts(report: Report) -> Iterator[tuple[str, str]]:
    """Put what is the same on all ranks into words."""
    mpi, storage, first = report.mpi, report.storage, report.ranks[0]
    if isinstance(mpi, str):
        yield "MPI", f"none ({mpi})"
    else:
        words = [f"{mpi.vendor} {mpi.version} (MPI {mpi.standard})"]
        words += [f"threads {mpi.threads}"] if mpi.threads else []
        words += ["CUDA-aware" if mpi.cuda_aware else "not CUDA-aware"] if mpi.cuda_aware is not None else []
        if report.launcher:
            words.append("survives lost ranks" if mpi.fault_tolerant else "ends when a rank is lost")
        yield "MPI", ", ".join(words)
    launched = f"{report.launcher}, {counted(len(report.ranks), 'rank')}"
    yield "launcher", launched if report.launcher else f"none; mpirun: {report.mpirun or 'not on the PATH'}"
    if report.job is not None:
        end = report.job.end or "unknown"
        yield "SLURM job", f"{report.job.id}, {counted(report.job.nodes, 'node')}, ends {end}"
    space = f"{storage.free / GIB:.0f} of {storage.total / GIB:.0f} GiB free"
    can = {
        "atomic rename": storage.renames,
        "flock": storage.locks,
        "hard links": storage.links,
        "flushed folders": storage.flushes,
    }
    offers = [name if able else f"no {name}" for name, able in can.items()]
    yield "run directory", ", ".join([storage.path, storage.kind, space, *([] if storage.error else offers)])
    yield "versions", ", ".join(f"{name} {text or 'none'}" for name, text in first.versions.items())
    yield "torch is on", first.packages or "unknown"
    yield "HDF5_USE_FILE_LOCKING", report.hdf5_locking or "not set"


def _print_ranks(report: Report) -> None:
    from rich.table import Table

    table = Table(title="Ranks")
    for heading in (
        "rank",
        "role",
        "node",
        "cores",
        "threads",
        "device",
        "GPU",
        "import",
        "memory",
    ):
        table.add_column(heading)
    for rank in report.ranks:
        role = (
            "server" if rank.rank == 0 and not rank.worker else "client" if len(report.ranks) > 1 else "both"
        )
        gpu = rank.gpus[int(rank.device.partition(":")[2])] if rank.device.startswith("cuda") else ""
        cores = f"{_ranges(rank.cores)} of {rank.node_cores}"
        table.add_row(
            *(str(rank.rank), role, rank.node, cores, str(rank.threads or "not set")),
            *(rank.device, gpu, f"{rank.import_seconds:.1f} s", f"{rank.memory / GIB:.0f} GiB"),
        )
    print_table(table)


def _print_findings(findings: list[Finding]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Findings")
    for heading in ("", "subject", "finding", "how to fix it"):
        table.add_column(heading)
    for each in findings:
        table.add_row(Text(each.level, style=COLOURS[each.level]), each.subject, each.text, each.remedy)
    print_table(table)


def _ranges(numbers: tuple[int, ...]) -> str:
    """Write ascending numbers short: 0-3,8."""
    parts = []
    for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        members = [number for _, number in run]
        parts.append(str(members[0]) if len(members) == 1 else f"{members[0]}-{members[-1]}")
    return ",".join(parts)
