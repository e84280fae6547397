"""What the server got to see of each client, round by round, from the ledger and the reports of a run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fedreid_mpi.records import CMC_RANKS, ModelKind
from fedreid_mpi.results import RunResults

CLEAR, MASKED = "as it is", "masked"

_SUMS = {"models": "model", "features": "teacher features", "controls": "change of the control variate"}
_PLACED_ANEW = ("resumed", "rank-lost")
_NUMBER = 64  # bits of a number in a report
_BATCH = 32  # images of a clustering feature, where the public dataset has as many
_EVERYONE = 4  # clients who are named; of more, their number is given


@dataclass(frozen=True, slots=True)
class Seen:
    """What the server saw of one client in one round.

    Attributes
    ----------
    round, client
        When, and of whom.
    what
        In words.
    shape
        Of the values.
    bits
        Of one value.
    how
        ``"as it is"``, ``"in a sum of N"`` clients, the rank's, or ``"masked"``.
    """

    round: int
    client: int
    what: str
    shape: tuple[int, ...]
    bits: int
    how: str


def seen_by_the_server(results: RunResults) -> tuple[Seen, ...]:
    """List what left each participant of each round, in the order of rounds and clients.

    Reports travel as they are. Models, teachers' features and control variates leave a rank as sums of its
    clients, of how many is known where the round belongs to the run's last attempt: clients may have been
    placed otherwise before. What scoring sends, features of test images, tells nothing of a client.
    """
    return tuple(
        seen
        for row in range(len(results.rounds))
        for client in np.flatnonzero(results.participated[row]).tolist()
        for seen in (*_report(results, row, client), *_arrays(results, row, client))
    )


def _report(results: RunResults, row: int, client: int) -> Iterator[Seen]:
    """List what is in the client's report."""
    round = int(results.rounds[row])
    yield Seen(round, client, "loss, images, steps, seconds, diverged or not", (5,), _NUMBER, CLEAR)
    if not np.isnan(results.cosine_distance[row, client]):
        yield Seen(round, client, "cosine distance of its logits", (1,), _NUMBER, CLEAR)
    if results.score(round, client, ModelKind.LOCAL) is not None:
        yield Seen(round, client, "scores of its own model", (CMC_RANKS + 4,), _NUMBER, CLEAR)
    if round in results.groupings:
        settings = results.settings
        images = 1 if settings["clustering"]["feature"] == "mean" else _BATCH
        yield Seen(
            round, client, "feature of its model", (images, settings["model"]["embedding_dim"]), 32, CLEAR
        )


def _arrays(results: RunResults, row: int, client: int) -> Iterator[Seen]:
    """List the arrays that left the client's rank and that it has a share in."""
    round = int(results.rounds[row])
    if not results.finite[row, client]:  # it was added to nothing
        return
    placed = round >= max((e.round for e in results.events if e.kind in _PLACED_ANEW), default=0)
    host = next((info for info in results.header.ranks if client in info.clients), results.header.ranks[0])
    trained = results.participated[row] & results.finite[row]
    together = int(trained[list(host.clients)].sum())
    in_the_open = "in its rank's sum" if not placed else CLEAR if together == 1 else f"in a sum of {together}"
    clipped = bool(results.settings.get("privacy", {}).get("clip"))
    listed: dict[Seen, None] = {}
    for number, rank, message, _ in results.messages:
        if number != round or rank == 0 or message.kind not in _SUMS or (placed and rank != host.rank):
            continue
        if message.dtype != "float32":
            what = "clipped update of its model" if clipped else _SUMS[message.kind]
            how = MASKED if message.dtype == "uint64" else in_the_open
            listed[Seen(round, client, what, message.shape, 64, how)] = None
        elif message.kind == "models":  # of a client that averages with none, or lends its statistics
            what = "model, or statistics, of one client"
            listed[Seen(round, client, what, message.shape[1:], 32, CLEAR)] = None
    yield from listed


@dataclass(frozen=True, slots=True)
class Line:
    """Entries that differ only in client and round."""

    clients: str
    rounds: str
    entry: Seen


def in_lines(results: RunResults, entries: Sequence[Seen]) -> list[Line]:
    """Combine equal entries, first over the rounds, then over the clients."""
    names = [client.name for client in results.header.clients]
    rounds: dict[tuple[object, ...], list[Seen]] = {}
    for each in entries:
        rounds.setdefault((each.client, each.what, each.shape, each.bits, each.how), []).append(each)
    clients: dict[tuple[object, ...], list[Seen]] = {}
    for (_, *what), found in rounds.items():
        clients.setdefault((*what, _ranges([each.round for each in found])), []).append(found[0])
    lines = []
    for (*_, when), found in clients.items():
        some = [names[each.client] for each in found]
        who = f"all {len(names)}" if len(some) == len(names) > 1 else ", ".join(some)
        who = f"{len(some)} of {len(names)}" if _EVERYONE < len(some) < len(names) else who
        lines.append(Line(who, str(when), found[0]))
    return lines


def _ranges(rounds: Sequence[int]) -> str:
    """Write ascending numbers shortly: 1 to 4, 6."""
    parts: list[list[int]] = []
    for number in rounds:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]} to {part[-1]}" for part in parts)
