"""``fedreid-mpi submit study``: the runs of a suite, as a job array."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from fedreid_mpi.cli.experiments import read_suite, require_files
from fedreid_mpi.cli.submit.options import (
    environment_from,
    resources_from,
    script,
    side_job,
    submission_options,
    submit,
)
from fedreid_mpi.slurm import Job, Resources, fit


@click.command("study")
@click.argument("suite", type=click.Path(path_type=Path))
@click.argument("study_dir", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="As of study.")
@click.option("--at-once", type=click.IntRange(min=1), metavar="N", help="Run at most N tasks at a time.")
@click.option(
    "--collect",
    type=click.Path(path_type=Path),
    metavar="STUDY.h5",
    help="When all runs have succeeded, collect their results into this file.",
)
@submission_options
def command(
    suite: Path,
    study_dir: Path,
    overrides: tuple[str, ...],
    at_once: int | None,
    collect: Path | None,
    dry_run: bool,
    **options: Any,  # noqa: ANN401 (those of submission_options)
) -> None:
    """Submit the study SUITE.toml to SLURM: a job array, one task per run.

    Each task gets the resources that the largest run needs. When the study is submitted again, finished runs
    are skipped and the others are resumed.

    \b
      fedreid-mpi submit study jobs/experiments/paper-study.toml studies/paper --gpus-per-node 4 --at-once 4
    """  # noqa: D301 (click needs the backspace)
    loaded, folder = read_suite(suite, overrides), study_dir.resolve()
    require_files((run.experiment, folder / run.name) for run in loaded.runs)
    wanted = resources_from(options)
    sizes = [fit(run.experiment, wanted) for run in loaded.runs]
    resources: Resources = replace(
        wanted,
        nodes=max(each.nodes or 1 for each in sizes),
        ranks=max(each.ranks or 1 for each in sizes),
    )
    study = Job(
        step="study",
        name=loaded.name,
        script=script(options["env_script"], "sweep"),
        arguments=(
            str(suite.resolve()),
            str(folder),
            *(word for override in overrides for word in ("--set", override)),
        ),
        log=folder / "logs" / "%A_%a.log",
        resources=resources,
        environment=environment_from(options),
        array=f"0-{len(loaded.runs) - 1}" + (f"%{at_once}" if at_once else ""),
    )
    jobs = [study]
    if collect is not None:
        runs = [folder / run.name for run in loaded.runs]
        jobs.append(side_job("collect", study, [*runs, "-o", collect.resolve()], "study"))
    submit(jobs, folder, dry_run)
