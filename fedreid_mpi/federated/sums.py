"""What the clients of a rank add to a round's averages, until the server has said who is averaged with whom.

A client is added as soon as all that is measured of it is finite, in whatever order clients finish: sums
know no order (`algorithms.averaging`). Only what depends on who is left is kept aside: the vectors of
clients that are to be grouped by what they have learnt, that of a client that is alone, and BatchNorm
statistics that are taken from one client.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedreid_mpi.algorithms.averaging import Grid, add_contribution, fits, mean_of
from fedreid_mpi.algorithms.differential_privacy import clip_update
from fedreid_mpi.records import GridSum, Group

if TYPE_CHECKING:
    from fedreid_mpi.federated.masks import Masks  # needs an optional package

MODELS, FEATURES = "models", "features"
"""Kinds of vectors; also what they are called in the ledger."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a vector, the grid that its values are summed on, and the L2 norm of an update, at most."""

    part: slice
    grid: Grid
    bound: float = 0.0


@dataclass(frozen=True, slots=True)
class Vectors:
    """What is averaged under one kind: its length, and its segments in order."""

    length: int
    segments: tuple[Segment, ...]

    def fits(self, values: Tensor) -> bool:
        """Tell whether all values are finite and on their grids."""
        return all(fits(values[segment.part], segment.grid) for segment in self.segments)

    def add(self, total: Tensor, values: Tensor, share: float, first: bool = False) -> None:
        """Add a client's contribution to a sum, in place, or begin a sum with it."""
        for segment in self.segments:
            add_contribution(total[segment.part], values[segment.part], share, segment.grid, first)

    def mean(self, total: Tensor, shares: float) -> Tensor:
        """Divide a sum by the sum of the shares: shape (length,), float32, on the host."""
        parts = [mean_of(total[segment.part].numpy(), shares, segment.grid) for segment in self.segments]
        return torch.cat([torch.from_numpy(part) for part in parts])


@dataclass(slots=True)
class RankSums:
    """The sums of one rank in one round.

    Attributes
    ----------
    vectors
        What is averaged, by kind.
    keys
        Participant to the number of the group that it is averaged in, alike on all ranks; empty where the
        participants are yet to be grouped.
    order
        The participants in the round's seeded order.
    lends_statistics
        Whether a group takes BatchNorm statistics from its first client in that order.
    updates
        Whether a client adds how its model has moved, clipped; a lone one then is added like any other.
    masks
        What hides this rank's sums, where they are to be hidden.
    spare
        Vectors of integers that an earlier round is done with; see `finish`.
    received
        Sums of all ranks, on the server.
    """

    vectors: Mapping[str, Vectors]
    keys: dict[int, int]
    order: Sequence[int]
    lends_statistics: bool = False
    updates: bool = False
    masks: "Masks | None" = None
    spare: list[Tensor] = field(default_factory=list)
    received: list[Tensor] = field(default_factory=list)
    _sizes: Counter[int] = field(init=False)
    _sums: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    _aside: dict[tuple[str, int], tuple[float, Tensor]] = field(default_factory=dict)
    _statistics: dict[int, tuple[int, Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Count who is with whom."""
        self._sizes = Counter(self.keys.values())

    def contribution(self, trained: Tensor, start: Tensor) -> Tensor:
        """Return what a client adds: its trained model, or how far it has come from the start, clipped."""
        if not self.updates:
            return trained
        update = trained - start
        for segment in self.vectors[MODELS].segments:
            clip_update(update[segment.part], segment.bound)
        return update

    def add(self, client: int, kind: str, share: float, values: Tensor) -> None:
        """Add a client that has not diverged; its vector may change afterwards."""
        if client not in self.keys or (kind == MODELS and self.is_alone(client)):
            self._aside[kind, client] = share, values.to("cpu", copy=True)
        else:
            self._add(client, kind, share, values)

    def _add(self, client: int, kind: str, share: float, values: Tensor) -> None:
        vectors, key = self.vectors[kind], self.keys[client]
        first = (kind, key) not in self._sums
        if first:
            self._sums[kind, key] = self.take_spare(vectors.length, values.device)
        vectors.add(self._sums[kind, key], values, share, first)
        place = self.order.index(client)
        if kind == MODELS and self.lends_statistics and place <= self._statistics.get(key, (place,))[0]:
            self._statistics[key] = place, values[vectors.segments[-1].part].to("cpu", copy=True)

    def take_spare(self, length: int, device: torch.device) -> Tensor:
        """Return a vector of integers, in old memory if there is some: new pages cost as much as a sum."""
        for place, vector in enumerate(self.spare):
            if len(vector) == length and vector.device == device:
                return self.spare.pop(place)
        return torch.empty(length, dtype=torch.int64, device=device)

    def finish(self) -> None:
        """Let a later round use the memory of the sums: one vector of each length."""
        lengths = {len(vector) for vector in self.spare}
        for vector in (*self._sums.values(), *self.received):
            if len(vector) not in lengths:
                lengths.add(len(vector))
                self.spare.append(vector)
        self._sums.clear()
        self.received.clear()

    def is_alone(self, client: int) -> bool:
        """Tell whether nobody else is in a client's group: then its model comes back unchanged."""
        return not self.updates and self._sizes[self.keys[client]] == 1

    def settle(self, groups: Sequence[Group]) -> None:
        """Add what was kept until the participants were grouped, now that they are."""
        for number, group in enumerate(groups):
            self.keys.update({client: number for client in group.weights if client in group.members})
        self._sizes = Counter(self.keys.values())
        for kind, client in sorted(self._aside):
            if not (kind == MODELS and self.is_alone(client)):
                self._add(client, kind, *self._aside.pop((kind, client)))

    def total(self, kind: str, key: int) -> GridSum | None:
        """Return this rank's sum of a group, to be sent; None: it has nothing to add, and no mask."""
        total = self._sums.get((kind, key))
        if self.masks is not None:
            if total is None:
                total = self.take_spare(self.vectors[kind].length, torch.device("cpu")).zero_()
                self._sums[kind, key] = total
            return self.masks.hide(total.cpu().numpy(), f"{kind} {key}")
        return None if total is None else GridSum(total.cpu().numpy())

    def lone_model(self, client: int) -> Tensor | None:
        """Return the model of a client that is alone in its group, if this rank hosts it."""
        kept = self._aside.get((MODELS, client))
        return None if kept is None else kept[1]

    def statistics(self, client: int) -> Tensor | None:
        """Return the statistics that a client lends its group, if this rank hosts it."""
        if (lone := self.lone_model(client)) is not None:
            return lone[self.vectors[MODELS].segments[-1].part]
        place, values = self._statistics.get(self.keys[client], (-1, None))
        return values if place == self.order.index(client) else None
