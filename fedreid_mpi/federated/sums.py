"""What the clients of a rank add to a round's averages, until the server has said who is averaged with whom.

A client is added as soon as it has trained and all that is measured of it is finite; the order does not
matter (`algorithms.averaging`). Three things are set aside, as they depend on which clients are left: vectors
of clients that are to be grouped by what they have learnt, the model of a client that is alone in its group,
and BatchNorm statistics that are taken from one client.
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
"""Kinds of vectors, as they are called in the ledger as well."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a vector that is summed on one grid.

    Attributes
    ----------
    part
        Its elements.
    grid
        The grid of their sum.
    bound
        L2 norm to which an update is clipped, with differential privacy.
    """

    part: slice
    grid: Grid
    bound: float = 0.0


@dataclass(frozen=True, slots=True)
class Vectors:
    """The vectors of one kind: their length, and their segments in order."""

    length: int
    segments: tuple[Segment, ...]

    def fits(self, values: Tensor) -> bool:
        """Whether all values are finite and within the limits of their grids."""
        return all(fits(values[segment.part], segment.grid) for segment in self.segments)

    def add(self, total: Tensor, values: Tensor, share: float, first: bool = False) -> None:
        """Add a client's contribution to a sum in place, or start a sum with it."""
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
        Participant to the number of the group that it is averaged in, the same on all ranks; empty if the
        participants are yet to be grouped.
    order
        The participants in the round's seeded order.
    lends_statistics
        Whether a group takes BatchNorm statistics from its first client in that order.
    updates
        Whether clients add their clipped updates instead of their models; then one that is alone in its
        group is added like any other.
    masks
        Hide this rank's sums, with secure aggregation.
    spare
        Buffers of earlier rounds, to be used again; see `finish`.
    received
        Sums over all ranks, on the server.
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
        """Count the clients of each group."""
        self._sizes = Counter(self.keys.values())

    def contribution(self, trained: Tensor, start: Tensor) -> Tensor:
        """Return what a client adds: its trained model, or its clipped update."""
        if not self.updates:
            return trained
        update = trained - start
        for segment in self.vectors[MODELS].segments:
            clip_update(update[segment.part], segment.bound)
        return update

    def add(self, client: int, kind: str, share: float, values: Tensor) -> None:
        """Add a vector of a client that has not diverged; the caller may change it afterwards."""
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
        """Return a buffer of integers, a used one if possible: fresh memory pages cost as much as a sum."""
        for place, vector in enumerate(self.spare):
            if len(vector) == length and vector.device == device:
                return self.spare.pop(place)
        return torch.empty(length, dtype=torch.int64, device=device)

    def finish(self) -> None:
        """Keep the buffers of the sums for a later round, one of each length."""
        lengths = {len(vector) for vector in self.spare}
        for vector in (*self._sums.values(), *self.received):
            if len(vector) not in lengths:
                lengths.add(len(vector))
                self.spare.append(vector)
        self._sums.clear()
        self.received.clear()

    def is_alone(self, client: int) -> bool:
        """Whether a client is alone in its group: its model is then returned unchanged."""
        return not self.updates and self._sizes[self.keys[client]] == 1

    def settle(self, groups: Sequence[Group]) -> None:
        """Add what was set aside until the participants were grouped."""
        for number, group in enumerate(groups):
            self.keys.update({client: number for client in group.weights if client in group.members})
        self._sizes = Counter(self.keys.values())
        for kind, client in sorted(self._aside):
            if not (kind == MODELS and self.is_alone(client)):
                self._add(client, kind, *self._aside.pop((kind, client)))

    def total(self, kind: str, key: int) -> GridSum | None:
        """Return this rank's sum of a group, to be sent; None if it has nothing to add and no mask."""
        total = self._sums.get((kind, key))
        if self.masks is not None:
            if total is None:
                total = self.take_spare(self.vectors[kind].length, torch.device("cpu")).zero_()
                self._sums[kind, key] = total
            return self.masks.hide(total.cpu().numpy(), f"{kind} {key}")
        return None if total is None else GridSum(total.cpu().numpy())

    def lone_model(self, client: int) -> Tensor | None:
        """Return the model of a client that is alone in its group; None if another rank hosts it."""
        kept = self._aside.get((MODELS, client))
        return None if kept is None else kept[1]

    def statistics(self, client: int) -> Tensor | None:
        """Return the statistics that a group takes from a client; None if another rank hosts it."""
        if (lone := self.lone_model(client)) is not None:
            return lone[self.vectors[MODELS].segments[-1].part]
        place, values = self._statistics.get(self.keys[client], (-1, None))
        return values if place == self.order.index(client) else None
