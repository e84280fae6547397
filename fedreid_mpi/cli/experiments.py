"""Experiments as commands take them: patterns become files, and all that is missing is named at once."""

import glob
import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedreid_mpi.config import Experiment, Suite, load_experiment, load_suite
from fedreid_mpi.errors import DataError, FedReIDError
from fedreid_mpi.storage.run_directory import STATUS_FILE

if TYPE_CHECKING:
    from fedreid_mpi.data.readers import Reader

USUAL_SIZE = (256, 128)
"""Height and width in which `prepare` stores images by default."""


def read_experiment(path: Path, overrides: Sequence[str]) -> Experiment:
    """Read an experiment, and say which archives its patterns stand for; raises as reading does."""
    from fedreid_mpi.data.globs import with_files

    experiment, words = with_files(load_experiment(path, overrides), {})
    if words:
        click.echo(words, err=True)
    return experiment


def read_suite(path: Path, overrides: Sequence[str]) -> Suite:
    """Read a suite, and say which archives its patterns stand for; raises as reading does."""
    from fedreid_mpi.data.globs import with_files

    known: dict[Path, tuple[str, ...]] = {}
    suite = load_suite(path, overrides)
    resolved = [with_files(run.experiment, known) for run in suite.runs]
    for words in dict.fromkeys(words for _, words in resolved if words):
        click.echo(words, err=True)
    runs = zip(suite.runs, resolved, strict=True)
    return replace(suite, runs=tuple(replace(run, experiment=experiment) for run, (experiment, _) in runs))


def require_files(experiments: Iterable[tuple[Experiment, Path]], advice: str = "") -> None:
    """Refuse experiments of which files are missing; archives first, with the commands that make them.

    Parameters
    ----------
    experiments
        Each with its run directory: a run that has begun needs no pre-trained weights any more.
    advice
        Another way to archives that are missing.

    Raises
    ------
    DataError
        Naming all that is missing.
    """
    archives: dict[Path, None] = {}
    trained: dict[Path, None] = {}
    weights: dict[Path, None] = {}
    for experiment, run_dir in experiments:
        archives |= dict.fromkeys(experiment.data.files)
        trained |= dict.fromkeys(experiment.data.archives)
        if experiment.model.weights is not None and not (run_dir / STATUS_FILE).exists():
            weights[experiment.model.weights] = None
    # What a link leads to is checked on opening.
    missing = [path for path in archives if not os.path.lexists(path)]
    if missing:
        _print_commands(missing, [path for path in archives if path not in missing])
        there = [path for path in trained if path not in missing]
        if there and len(there) < len(trained):
            folder = glob.escape(_from_here(there[0].parent))
            setting = f'data.archives=["{folder}/*.h5"]'
            click.echo(f"To train on the available ones: --set {shlex.quote(setting)}")
        if advice:
            click.echo(advice)
    lines = [f"{path}: no such file" for path in missing]
    lines += [f"model.weights: {path}: no such file" for path in weights if not path.exists()]
    if lines:
        raise DataError("; ".join(lines))


def _print_commands(missing: Sequence[Path], there: Sequence[Path]) -> None:
    """Print how each archive is made, in images of the size of those that are there."""
    from fedreid_mpi.data.archive import DatasetArchive
    from fedreid_mpi.data.readers import READERS

    size = USUAL_SIZE
    if there:
        try:
            archive = DatasetArchive.open(there[0])
            size = (archive.height, archive.width)
        except FedReIDError:
            pass  # it is named when the run opens it
    option = [] if size == USUAL_SIZE else ["--size", f"{size[0]}x{size[1]}"]
    click.echo("Make the missing archives with:")
    for path in missing:
        words = _source(path.stem, READERS)
        click.echo(f"  {shlex.join(['fedreid-mpi', 'prepare', *words, _from_here(path), *option])}")


def _source(name: str, readers: "dict[str, Reader]") -> list[str]:
    """Return the arguments of `prepare` for a dataset: which it is, and where it usually is."""
    if name in readers:
        return ["--dataset", name, f"DATASETS/{readers[name].folders[0]}"]
    return ["--dataset", "custom", "--name", name, "MANIFEST.csv"]


def _from_here(path: Path) -> str:
    """Return the shorter of a path and the way to it from the current folder."""
    return min(str(path), os.path.relpath(path), key=len)
