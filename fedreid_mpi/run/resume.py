"""Where a run begins: at its beginning, or after the newest round that is whole on disk."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from fedreid_mpi.config import Experiment, refused_changes, stored_experiment
from fedreid_mpi.errors import ConfigurationError, DataError
from fedreid_mpi.records import ClientSpec
from fedreid_mpi.results import last_attempt, read_run
from fedreid_mpi.run.checkpoint import (
    MANIFEST,
    MEANING,
    Manifest,
    folder_of,
    list_checkpoints,
    newest_whole,
    publish_models,
)
from fedreid_mpi.run.program import source_digest
from fedreid_mpi.run.state import ResumePoint
from fedreid_mpi.run.stopping import STOP_FILE
from fedreid_mpi.storage.run_directory import (
    Status,
    hold,
    make_private,
    make_run_dir,
    write_status,
)
from fedreid_mpi.wording import counted


def acquire(
    run_dir: Path,
    experiment: Experiment,
    specs: Sequence[ClientSpec],
    datasets: Sequence[str],
    resume: bool,
    held: ExitStack,
    recovering: bool = False,
    waiting: Callable[[], object] = lambda: None,
) -> ResumePoint:
    """Take hold of the run directory, and find out where the run begins; the server's work.

    Nothing in the directory is changed before all that could be refused has been looked at.

    Parameters
    ----------
    run_dir, experiment, specs
        The run.
    datasets
        Content digests of the archives, the public one last.
    resume
        Whether an existing run is resumed.
    held
        Keeps the lock until it is closed.
    recovering
        Whether these processes have acquired the directory before, and lost ranks since.
    waiting
        Is called again and again while the lock is waited for.

    Raises
    ------
    ConfigurationError
        The directory cannot be written, holds a run, is in use, or holds a run of another experiment.
    DataError
        What it holds is damaged.
    """
    make_run_dir(run_dir)
    lacks = held.enter_context(hold(run_dir, recovering, waiting))
    if not (resume or recovering) and (last_attempt(run_dir) or list_checkpoints(run_dir)):
        raise ConfigurationError(
            f"--run-dir {run_dir}: already holds a run, expected a new or empty folder, "
            "or --resume to continue it"
        )
    start, manifest = _find_start(run_dir, experiment, specs, datasets)
    make_private(run_dir)
    if not recovering:  # else it is meant for this run
        _remove_stop_file(run_dir)
    _show(run_dir, manifest, start.attempt, experiment)
    return replace(start, warnings=lacks)


def conclude(
    run_dir: Path,
    experiment: Experiment,
    recovering: bool = False,
    waiting: Callable[[], object] = lambda: None,
) -> bool:
    """Return whether all rounds of a run are committed; then let models and status say so, too.

    The last round's record, its checkpoint, ``models/`` and the status are written one after the other, and a
    kill may come in between. What counts is the newest whole checkpoint, as in a resume.

    Parameters
    ----------
    run_dir, experiment, recovering, waiting
        See `acquire`.

    Raises
    ------
    ConfigurationError
        The directory is in use, or holds a run with other settings, where they could not be changed in a
        resume either.
    DataError
        None of its checkpoints is whole.
    """
    if not list_checkpoints(run_dir):
        return False
    with hold(run_dir, recovering, waiting):
        manifest, _ = newest_whole(run_dir)
        if manifest is None:
            return False
        before = stored_experiment(manifest.configuration, folder_of(run_dir, manifest.round) / MANIFEST)
        if changes := "; ".join(refused_changes(before, experiment)):
            raise ConfigurationError(f"{run_dir}: holds a run with other settings: {changes}")
        done = manifest.round >= experiment.run.rounds
        if done:
            _show(run_dir, manifest, 1 + last_attempt(run_dir), experiment)
        return done


def _show(run_dir: Path, manifest: Manifest | None, attempt: int, experiment: Experiment) -> None:
    """Let models and status be those of the newest whole checkpoint; ``attempt`` would be the next."""
    after = -1
    if manifest is not None:
        publish_models(run_dir, manifest)
        after = manifest.round
    done = after >= experiment.run.rounds
    status = Status("done" if done else "running", after, experiment.run.rounds, attempt - done)
    write_status(run_dir, status)


def _remove_stop_file(run_dir: Path) -> None:
    """Forget a request to stop that was meant for an earlier attempt."""
    try:
        (run_dir / STOP_FILE).unlink(missing_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"{run_dir / STOP_FILE}: cannot be removed: {error.strerror}; expected a file or nothing"
        ) from error


def _find_start(
    run_dir: Path, experiment: Experiment, specs: Sequence[ClientSpec], datasets: Sequence[str]
) -> tuple[ResumePoint, Manifest | None]:
    attempt = 1 + last_attempt(run_dir)
    manifest, damage = newest_whole(run_dir)
    results = read_run(run_dir) if attempt > 1 else None
    completed = results.rounds[-1] if results else -1
    if manifest is None:
        if completed > 0:  # round 0 is always committed before round 1 begins
            raise DataError(
                f"{run_dir}: has results up to round {completed}, but no checkpoint to continue from"
            )
        everyone = tuple(spec.id for spec in specs)
        return ResumePoint(attempt, -1, (everyone,), everyone), None
    if changes := list(_changes(run_dir, manifest, experiment, specs, datasets)):
        raise ConfigurationError(f"--resume of {run_dir}: " + "; ".join(changes))
    notes = [*damage, f"attempt {attempt} continues after round {manifest.round}"]
    before, now = results.header.source_digest if results else "", source_digest()
    if before not in ("", now):
        notes.append(
            f"the program has changed: its source is {now[:10]}, in the attempt before {before[:10]}"
        )
    point = ResumePoint(
        attempt, manifest.round, manifest.groups, manifest.untrained, manifest.private, tuple(notes)
    )
    return point, manifest


def _changes(
    run_dir: Path,
    manifest: Manifest,
    experiment: Experiment,
    specs: Sequence[ClientSpec],
    datasets: Sequence[str],
) -> Iterator[str]:
    """Name whatever would make the resumed run another one."""
    if manifest.meaning != MEANING:
        yield (
            "its rounds were computed by a version that computes differently (meaning "
            f"{manifest.meaning}, expected {MEANING}): only the version that began the run can resume it"
        )
    where = folder_of(run_dir, manifest.round) / MANIFEST
    before = stored_experiment(manifest.configuration, where)
    yield from refused_changes(before, experiment)
    lists = ("archives", "unseen")
    lengths = [(key, len(getattr(experiment.data, key)), len(getattr(before.data, key))) for key in lists]
    if others := [length for length in lengths if length[1] != length[2]]:
        yield from (
            f"data.{key} has {counted(found, 'archive')}, expected {expected}"
            for key, found, expected in others
        )
    elif (experiment.data.public is None) != (before.data.public is None):
        yield "data.public was set or unset"
    else:
        for path, digest, known in zip(experiment.data.files, datasets, manifest.datasets, strict=False):
            if digest != known:
                yield f"{path} has other content than when the run was begun"
        names = tuple(spec.name for spec in specs)
        if names != manifest.clients:
            yield f"the clients are {', '.join(names)}, expected {', '.join(manifest.clients)}"
