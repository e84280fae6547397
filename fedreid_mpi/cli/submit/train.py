"""``fedreid-mpi submit train``: one run, as a job or a chain of jobs."""

from pathlib import Path
from typing import Any

import click

from fedreid_mpi.cli.experiments import read_experiment, require_files
from fedreid_mpi.cli.submit.options import (
    environment_from,
    resources_from,
    script,
    side_job,
    submission_options,
    submit,
)
from fedreid_mpi.config import Experiment
from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.slurm import Job, fit


@click.command("train")
@click.argument("experiment", type=click.Path(path_type=Path))
@click.option("--run-dir", type=click.Path(path_type=Path), required=True, help="As of train.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="As of train.")
@click.option(
    "--on-rank-loss",
    type=click.Choice(("replace", "drop", "abort")),
    default="abort",
    show_default=True,
    help="As of train; replace and drop need an Open MPI with ULFM.",
)
@click.option(
    "--prepare",
    "datasets",
    type=click.Path(path_type=Path),
    metavar="DATASETS",
    help="First prepare all datasets in this folder, into that of the experiment's archives.",
)
@click.option("--size", metavar="HxW", default="256x128", show_default=True, help="As of prepare.")
@click.option("--evaluate", is_flag=True, help="Then score the global model on the experiment's archives.")
@click.option(
    "--collect",
    type=click.Path(path_type=Path),
    metavar="STUDY.h5",
    help="Then collect the run's results into this file.",
)
@submission_options
def command(
    experiment: Path,
    run_dir: Path,
    overrides: tuple[str, ...],
    on_rank_loss: str,
    datasets: Path | None,
    size: str,
    evaluate: bool,
    collect: Path | None,
    dry_run: bool,
    **options: Any,  # noqa: ANN401 (those of submission_options)
) -> None:
    """Submit a run of EXPERIMENT.toml to SLURM.

    The run continues where it stopped when the job is submitted again, and by itself when a job runs out of
    time: it is then put back into the queue, --max-requeues times at most. Each job of a chain starts when
    the one before it has succeeded.

    \b
      fedreid-mpi submit train paper.toml --run-dir runs/1 --gpus-per-node 4 --partition gpu --dry-run
      fedreid-mpi submit train paper.toml --run-dir runs/1 --prepare datasets --evaluate
    """  # noqa: D301 (click needs the backspace)
    loaded, folder = read_experiment(experiment, overrides), run_dir.resolve()
    if datasets is None:  # notice now, not when the job starts at night, that files are missing
        require_files([(loaded, folder)], "Or in a job before this one: --prepare DATASETS")
    fault_tolerant = on_rank_loss != "abort"
    if fault_tolerant and options["launcher"] == "srun":
        raise ConfigurationError(f"--on-rank-loss {on_rank_loss} needs --launcher mpirun: srun has no ULFM")
    settings = [word for override in overrides for word in ("--set", override)]
    losses = ["--on-rank-loss", on_rank_loss] if fault_tolerant else []
    train = Job(
        step="train",
        name=loaded.run.name,
        script=script(options["env_script"], "train_ft" if fault_tolerant else "train"),
        arguments=(str(experiment.resolve()), str(folder), *settings, *losses),
        log=folder / "logs" / "train-%j.log",
        resources=fit(loaded, resources_from(options)),
        environment=environment_from(options),
        after="prepare" if datasets else "",
    )
    jobs = [train]
    if datasets is not None:
        target = _common_folder(loaded)
        jobs.insert(0, side_job("prepare", train, ["--all", datasets.resolve(), target, "--size", size]))
    if evaluate:
        gpus = 1 if options["gpus_per_node"] else None
        arguments = [_global_model(loaded, folder), *loaded.data.archives, *loaded.data.unseen]
        jobs.append(side_job("evaluate", train, arguments, "train", gpus))
    if collect is not None:
        jobs.append(side_job("collect", train, [folder, "-o", collect.resolve()], "train"))
    submit(jobs, folder, dry_run)


def _common_folder(experiment: Experiment) -> Path:
    """Return the folder into which datasets are prepared."""
    data = experiment.data
    folders = sorted({path.resolve().parent for path in (*data.archives, *data.unseen)})
    if len(folders) > 1:
        raise ConfigurationError(
            "--prepare writes into one folder, but data.archives and data.unseen are in "
            f"{', '.join(map(str, folders))}"
        )
    return folders[0]


def _global_model(experiment: Experiment, folder: Path) -> Path:
    """Return the model that the run will leave."""
    if experiment.federation.mode == "local" or experiment.clustering.enabled:
        raise ConfigurationError(
            "--evaluate scores models/global.safetensors, which runs with clustering or of mode 'local' lack"
        )
    return folder / "models" / "global.safetensors"
