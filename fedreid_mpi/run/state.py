"""What the server tells the other ranks about a run: where it begins, what comes next, how it ended."""

from dataclasses import dataclass

from fedreid_mpi.records import RoundPlan


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """Where a run begins: at round 0, or after a round that is on disk.

    Attributes
    ----------
    attempt
        1 for the first start of the run.
    after
        The last round that is on disk; -1: none.
    groups
        Members of each group of clients that share a model.
    untrained
        Ids of the clients that have not trained yet, ascending.
    private
        File of the checkpoint that holds what each client keeps to itself, in id order.
    notes
        What a reader of the results should know of this start.
    warnings
        What the run directory's file system lacks.
    """

    attempt: int
    after: int
    groups: tuple[tuple[int, ...], ...]
    untrained: tuple[int, ...]
    private: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Directive:
    """What the server decides between two rounds.

    Attributes
    ----------
    plan
        Of the round that follows; None: the run stops here.
    reason
        Why it stops.
    seconds
        Time after which the round has to be abandoned; None: it has all the time there is.
    """

    plan: RoundPlan | None
    reason: str = ""
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended that was not ended by an error.

    Attributes
    ----------
    done
        Whether all rounds are done; otherwise the run was asked to stop, and can be resumed.
    after
        The last round that is on disk; -1: none.
    reason
        Why it stopped; of a run that was done before, that it was.
    """

    done: bool
    after: int
    reason: str = ""
