"""Many archives at once: which are whole, and which are copies of one run."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace

from fedreid_mpi.errors import DataError, FedReIDError
from fedreid_mpi.results.sources import Refuse, Source
from fedreid_mpi.results.summary import RunSummary, summarise

MANY = 50
"""Archives from which on it pays to start processes: a digest takes some ten milliseconds."""

PROCESSES = 4
"""At most: a login node is for everyone."""


def choose(
    sources: Sequence[Source],
    refuse: Refuse,
    repeated: Callable[[Source, Source], None],
    done: Callable[[], None],
) -> list[RunSummary]:
    """Summarise runs, each once; of several copies of a run the one that is furthest.

    Parameters
    ----------
    sources
        Where they were found.
    refuse
        Called with the error of those that cannot be read, or whose content does not match its digest.
    repeated
        Called with a copy that is left out, and the one that is kept.
    done
        Called after each.
    """
    chosen: list[RunSummary] = []
    for outcome in summarise_all(sources):
        done()
        if isinstance(outcome, DataError):
            refuse(outcome)
            continue
        # A thousand configurations would fill the memory.
        left_out = keep_once(chosen, replace(outcome, settings={}))
        if left_out is not None:
            repeated(left_out.source, next(each.source for each in chosen if left_out.is_copy_of(each)))
    return chosen


def keep_once(kept: list[RunSummary], summary: RunSummary) -> RunSummary | None:
    """Add a run to others, in place; of copies the furthest is kept, and the one left out is returned."""
    for place, known in enumerate(kept):
        if summary.is_copy_of(known):
            if known.round >= summary.round:
                return summary
            kept[place] = summary
            return known
    kept.append(summary)
    return None


def summarise_all(sources: Sequence[Source]) -> Iterator[RunSummary | DataError]:
    """Summarise runs in order, many of them on several processes; one that cannot be read is its error.

    Raises
    ------
    FedReIDError
        A process was killed.
    """
    workers = min(len(os.sched_getaffinity(0)), PROCESSES)
    if len(sources) < MANY or workers == 1:
        yield from map(_summarise, sources)
        return
    try:
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            yield from pool.map(_summarise, sources, chunksize=16)
    except BrokenProcessPool as error:
        raise FedReIDError("a process that examined archives was killed; out of memory?") from error


def _summarise(source: Source) -> RunSummary | DataError:
    try:
        return summarise(source)
    except DataError as error:
        return error
