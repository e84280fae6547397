"""Going on without lost ranks: those that are left do the work again, from what is on disk.

A run that is resumed gives the same bits on any number of ranks, so a recovery is a resume by the same
processes: nothing of the attempt that was cut off is used.
"""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from fedreid_mpi.comm.contract import Communicator
from fedreid_mpi.comm.errors import PhaseError, RanksLost

T = TypeVar("T")

Policy = Literal["abort", "replace", "drop"]
"""What becomes of the clients of lost ranks: all ranks end; others host them; they take no further part."""

Placement = Sequence[Sequence[int]]
"""Ids of the clients that each rank hosts."""


@dataclass(frozen=True, slots=True)
class RankLoss:
    """Ranks that were lost together.

    Attributes
    ----------
    size
        Number of ranks before.
    ranks, hosts
        Their numbers then, ascending, and the node of each.
    """

    size: int
    ranks: tuple[int, ...]
    hosts: tuple[str, ...]


class FailureLog:
    """Losses since these processes started or resumed a run; the same on every rank, without a message.

    Parameters
    ----------
    drop
        Whether the clients of lost ranks drop out; otherwise other ranks host them.

    Attributes
    ----------
    acquired
        Whether this run directory is known to be ours. All ranks know it before anything is in it that a
        resume would find, so a server that does not know it may treat the directory as at first.
    """

    def __init__(self, drop: bool = False) -> None:
        self.acquired = False
        self._drop = drop
        self._told_after: dict[RankLoss, int] = {}
        self._losses: list[RankLoss] = []

    def add(self, loss: RankLoss) -> None:
        """Take note of a loss."""
        self._losses.append(loss)

    def untold(self, after: int) -> tuple[RankLoss, ...]:
        """Return the losses that no record on disk has, when rounds continue after ``after``.

        The first round of an attempt records them. Until a checkpoint holds that round, each attempt does
        it anew, and has to tell of them again.
        """
        for loss in self._losses:
            self._told_after.setdefault(loss, after)
        return tuple(loss for loss in self._losses if self._told_after[loss] >= after)

    def dropped(self, placement: Callable[[int], Placement]) -> frozenset[int]:
        """Return the ids of the clients that take no further part.

        Parameters
        ----------
        placement
            Gives the clients of each rank, for a number of ranks.
        """
        losses = self._losses if self._drop else ()
        return frozenset(id for loss in losses for rank in loss.ranks for id in placement(loss.size)[rank])

    def describe(self, loss: RankLoss, placement: Placement, names: Sequence[str]) -> str:
        """Put a loss into words.

        Parameters
        ----------
        loss
            Which.
        placement
            Of the clients on the ranks before it.
        names
            Of the clients, in id order.
        """
        words = []
        for rank, host in zip(loss.ranks, loss.hosts, strict=True):
            clients = [names[id] for id in placement[rank]]
            parts = ["the server"] * (rank == 0) + clients or ["idle"]
            words.append(f"rank {rank} of {loss.size} on {host} ({', '.join(parts)})")
        fate = "drop: its clients drop out" if self._drop else "replace: others host its clients"
        return f"{'; '.join(words)}; {fate if len(words) == 1 else fate.replace('its', 'their')}"


class ElasticRunner:
    """The ranks that are left of those that were launched.

    Parameters
    ----------
    comm
        All of them, connected so that losses are survived, unless the policy is ``"abort"``.
    policy
        What becomes of the clients of lost ranks.

    Attributes
    ----------
    comm
        The ranks that are left.
    """

    def __init__(self, comm: Communicator, policy: Policy = "abort") -> None:
        self.comm = comm
        self._policy = policy

    def run(self, work: Callable[[Communicator, FailureLog], T]) -> T:
        """Do collective work, again from its start whenever ranks were lost in it; called on every rank.

        Parameters
        ----------
        work
            Is given the ranks that are left, and what was lost since it was first called.
        """
        losses = FailureLog(self._policy == "drop")
        while self._policy != "abort":
            try:
                return self._attempt(work, losses)
            except RanksLost:
                pass  # out of this block first: the error's traceback holds on to models
            gc.collect()
            before = self.comm
            self.comm, lost = before.shrink()
            losses.add(RankLoss(before.size, lost, tuple(before.hosts[rank] for rank in lost)))
        return work(self.comm, losses)

    def _attempt(self, work: Callable[[Communicator, FailureLog], T], losses: FailureLog) -> T:
        """Do the work; raise `RanksLost` on all ranks, if on any.

        A loss near the end reaches some ranks within the work and others only after it.
        """
        try:
            result = work(self.comm, losses)
        except RanksLost:
            self.comm.agree(False)
            raise
        except PhaseError:
            self._require_everyone()
            raise
        self._require_everyone()
        return result

    def _require_everyone(self) -> None:
        if not self.comm.agree(True):
            raise RanksLost("ranks were lost while others had come to the end")
