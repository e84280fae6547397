"""The results archive of a run, its reader and writer, and study files."""

from fedreid_mpi.results.reader import RunResults, read_run, results_of, stable_figures
from fedreid_mpi.results.segments import last_attempt
from fedreid_mpi.results.writer import ResultsWriter

__all__ = ["ResultsWriter", "RunResults", "last_attempt", "read_run", "results_of", "stable_figures"]
