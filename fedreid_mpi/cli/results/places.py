"""Where commands put what they make of results, by default."""

from pathlib import Path

from fedreid_mpi.errors import DataError


def beside(results: Path, what: str) -> Path:
    """Return the folder for something made of results: no other run's.

    Parameters
    ----------
    results
        A folder of one run or many, a results archive, a study file, or a run of one: ``STUDY.h5/RUN``.
    what
        Is made of them.

    Returns
    -------
    Path
        ``FOLDER/what``; of a file ``FILE-what`` beside it, of a run of a study file ``STUDY-what/RUN``.

    Raises
    ------
    DataError
        There is no such folder, nor file.
    """
    if results.is_dir():
        return results / what
    file = next((path for path in (results, *results.parents) if path.is_file()), None)
    if file is None:
        raise DataError(f"{results}: no such run directory or results file")
    return file.with_name(f"{file.stem}-{what}") / results.relative_to(file)
