"""Patterns in ``data.archives``: ``archives/*.h5`` means those that are there and can be trained on."""

import glob
from pathlib import Path

from fedreid_mpi.config import Experiment
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.errors import ConfigurationError


def is_pattern(path: Path) -> bool:
    """Whether a path is a pattern; a file that has such a name is not."""
    return glob.has_magic(str(path)) and not path.exists()


def with_files(experiment: Experiment, known: dict[Path, tuple[str, ...]]) -> tuple[Experiment, str]:
    """Put archives in the place of patterns, sorted by path.

    Left out are the public archive, those of unseen datasets, and all that have nothing to train on in their
    first split. Files that are named without a pattern stay whatever they are.

    Parameters
    ----------
    experiment
        Resolved.
    known
        Roles of the first split by archive, filled in here: many experiments have the same archives.

    Returns
    -------
    tuple
        The experiment, and one line on what was taken and left out; empty where there is no pattern.

    Raises
    ------
    ConfigurationError
        A pattern matches no archive with training images.
    DataError
        A file that matches is no archive.
    """
    data = experiment.data
    if not any(map(is_pattern, data.archives)):
        return experiment, ""
    named = [path for path in data.archives if not is_pattern(path)]
    taken: list[Path] = []
    left_out: dict[Path, str] = {}
    for path in data.archives:
        if not is_pattern(path):
            taken.append(path)
            continue
        found = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207 (may be absolute)
        reasons = {each: _reason_against(each, experiment, known) for each in found}
        left_out |= {each: reason for each, reason in reasons.items() if reason and each not in named}
        if all(reasons.values()):
            raise ConfigurationError(
                f"data.archives: {path} matches {_words(left_out) or 'no file'}, expected archives with "
                "training images"
            )
        taken += [each for each in found if not reasons[each] and each not in (*named, *taken)]
    words = f"data.archives: {', '.join(path.stem for path in taken)}"
    if left_out:
        words += f"; left out: {_words(left_out)}"
    chosen = data.model_copy(update={"archives": tuple(taken)})
    return experiment.model_copy(update={"data": chosen}), words


def _reason_against(path: Path, experiment: Experiment, known: dict[Path, tuple[str, ...]]) -> str:
    """Return why an archive that a pattern matches is not trained on; empty: it is."""
    data = experiment.data
    if data.public is not None and path == data.public:
        return "data.public"
    if path in data.unseen:
        return "data.unseen"
    if path not in known:
        known[path] = DatasetArchive.open(path).roles()
    return "" if "train" in known[path] else f"for {' and '.join(known[path])} alone"


def _words(left_out: dict[Path, str]) -> str:
    return ", ".join(f"{path.stem} ({reason})" for path, reason in left_out.items())
