"""What every communicator promises, as functions of one; alone, or under mpirun on groups of ranks.

Usage: mpirun -n RANKS python -m mpi4py mpi_contract.py SIZE...  (sizes of the groups, each at most RANKS)
"""

import pickle
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from fedreid_mpi.comm import Communicator, ForbiddenMessageError, PhaseError
from fedreid_mpi.errors import DataError
from fedreid_mpi.records import ClientReport, GridSum

REPORT = ClientReport(0, 300, 10, 2.5, True, 1.5, feature=np.arange(8, dtype=np.float32))


def sent(comm: Communicator, kind: str) -> int:
    """Bytes of one kind in the ledger."""
    return sum(message.bytes * count for message, count in comm.ledger.items() if message.kind == kind)


def caught(comm: Communicator, work, name="train"):
    try:
        comm.phase(name, work)
    except PhaseError as error:
        return error
    return None


def raising(comm: Communicator, ranks, error):
    def work():
        if comm.rank in ranks:
            raise error
        return comm.rank

    return work


def roles(comm):
    assert comm.is_server == (comm.rank == 0)
    assert comm.client_ranks == (tuple(range(1, comm.size)) if comm.size > 1 else (0,))


def location(comm):
    assert comm.location.count == max(comm.size - 1, 1)
    assert comm.location.index == (comm.rank - 1 if comm.rank else comm.location.count - 1)
    assert comm.location.host
    assert comm.location.cores


def broadcast(comm):
    value = {"round": 3, "weights": (1.0, float("inf"))} if comm.is_server else None
    assert comm.broadcast(value) == {"round": 3, "weights": (1.0, float("inf"))}
    assert comm.broadcast("server" if comm.is_server else "another") == "server"


def gather(comm):
    gathered = comm.gather((2.5, comm.rank))
    assert gathered == ([(2.5, rank) for rank in range(comm.size)] if comm.is_server else None)


def broadcast_rows(comm):
    comm.ledger.clear()
    rows = np.full((3, 5), comm.rank + 7, np.float32)
    comm.broadcast_rows(rows, "models")
    assert (rows == 7).all()
    assert sent(comm, "models") == (60 * (comm.size - 1) if comm.is_server else 0)


def gather_rows_on_each_rank(comm):
    counts = [(2 * rank) % 5 for rank in range(comm.size)]  # 0, 2, 4, 1: uneven, and none
    for root in range(comm.size):
        comm.ledger.clear()
        mine = np.full((counts[comm.rank], 3), comm.rank, np.float32)
        stacked = comm.gather_rows(mine, counts, root, "features")
        if comm.rank != root:
            assert stacked is None
            assert sent(comm, "features") == mine.nbytes
        else:
            assert stacked.dtype == np.float32
            expected = np.repeat(np.arange(comm.size), counts)[:, None] * np.ones((1, 3))
            np.testing.assert_array_equal(stacked, expected)
            assert sent(comm, "features") == 0


def gather_no_rows_at_all(comm):
    stacked = comm.gather_rows(np.empty((0, 4), np.float32), [0] * comm.size, comm.size - 1, "features")
    assert (stacked is None) if comm.rank < comm.size - 1 else stacked.shape == (0, 4)


def phase_that_goes_well(comm):
    assert comm.phase("train", lambda: 10 * comm.rank) == 10 * comm.rank


def unexpected_error_on_the_server(comm):
    error = caught(comm, raising(comm, [0], ZeroDivisionError("no weights")), "aggregate")
    assert str(error) == "rank 0, aggregate: ZeroDivisionError: no weights"
    assert error.exit_code == 1
    assert "in work\n" in error.failure.trace


def unexpected_error_on_the_last_rank(comm):
    last = comm.size - 1
    error = caught(comm, raising(comm, [last], MemoryError("4 GB")))
    assert str(error) == f"rank {last}, train: MemoryError: 4 GB"
    assert (error.failure.rank, error.failure.phase) == (last, "train")


def errors_on_all_ranks(comm):
    error = caught(comm, raising(comm, range(comm.size), OSError(f"disk of rank {comm.rank}")))
    assert str(error) == "rank 0, train: OSError: disk of rank 0"


def exits_count_as_errors(comm):
    for leaving, code in ((SystemExit(7), 7), (SystemExit(0), 1), (SystemExit(), 1), (SystemExit("x"), 1)):
        error = caught(comm, raising(comm, [comm.size - 1], leaving))
        assert error.exit_code == code
        assert str(error).startswith(f"rank {comm.size - 1}, train: SystemExit")


def an_interrupt_counts_as_an_error(comm):
    error = caught(comm, raising(comm, [comm.size - 1], KeyboardInterrupt()))
    assert error.exit_code == 130
    assert "interrupted" in str(error)
    assert error.failure.trace == ""


def errors_raised_on_purpose_keep_message_and_code(comm):
    error = caught(comm, raising(comm, [comm.size - 1], DataError("viper.h5: damaged")), "datasets")
    assert str(error) == "viper.h5: damaged"
    assert error.exit_code == DataError.exit_code == 3
    assert error.failure.trace == ""


def life_goes_on_after_a_failed_phase(comm):
    assert caught(comm, raising(comm, [0], ValueError()))
    assert comm.broadcast(comm.rank) == 0
    assert comm.phase("again", lambda: "well") == "well"


def only_what_may_travel_travels(comm):
    @dataclass(frozen=True)
    class Foreign:
        label: int

    small = (
        Path("query/0001_c1.jpg"),
        ["query/0001_c1.jpg"],
        {"0001_c1.jpg": 7},
        list(range(101)),
        b"image",
        np.zeros((2, 8, 4, 3), np.uint8),
        np.arange(3.0),
        {1, 2},
        Foreign(3),
        replace(REPORT, feature=np.zeros((4, 8, 3), np.uint8)),
        replace(REPORT, feature=np.arange(64)),
    )
    for value in small:
        with pytest.raises(ForbiddenMessageError, match="tried to send"):
            comm.gather(value)
    for rows in (np.zeros((64, 32, 3), np.uint8), np.arange(9), np.zeros((2, 64, 32), np.float32), [1.0]):
        with pytest.raises(ForbiddenMessageError, match=r"tried to send .* as models"):
            comm.broadcast_rows(rows, "models")
        with pytest.raises(ForbiddenMessageError):
            comm.gather_rows(rows, [1] * comm.size, 0, "models")
        with pytest.raises(ForbiddenMessageError):
            comm.reduce_sum(rows, 9, "models")
    for sums in (
        np.arange(9),
        GridSum(np.zeros((3, 3), np.int64)),
        GridSum(np.zeros(9, np.int32)),
        GridSum(np.zeros((3, 3), np.uint64)),
        GridSum(np.zeros(9, np.uint32)),
        GridSum([1]),
    ):
        with pytest.raises(ForbiddenMessageError, match=r"tried to send .* expected a sum of updates"):
            comm.reduce_sum(sums, 9, "models")
    if comm.is_server:
        for value in (b"image", np.arange(3.0), object(), print):
            with pytest.raises(ForbiddenMessageError):
                comm.broadcast(value)
    assert comm.broadcast({"archives": [Path("a.h5")], "labels": list(range(1000))})["archives"] == [
        Path("a.h5")
    ]
    comm.gather([REPORT] * 200)  # nothing of the above is still under way


def small_values_are_entered_in_the_ledger(comm):
    comm.ledger.clear()
    comm.gather([REPORT, REPORT])
    comm.broadcast(REPORT)
    sent_here = [message for message in comm.ledger if message.kind != "sign"]
    assert all(
        (message.kind, message.dtype, message.shape) == ("ClientReport", "pickle", ())
        for message in sent_here
    )
    if comm.size > 1:
        (message,) = sent_here
        value = REPORT if comm.is_server else [REPORT, REPORT]
        assert message.bytes == len(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))
        assert comm.ledger[message] == (comm.size - 1 if comm.is_server else 1)
    else:
        assert sent_here == []


ASKED = []
"""Not empty where this rank asks for the round to be abandoned."""


def a_request_to_abandon_reaches_all(comm):
    """Comes last: the request stays. Whoever has it is waiting, and does not come to a `heartbeat`."""
    assert not comm.heartbeat()
    comm.gather(None)
    comm.broadcast(None)  # nobody asks before all have asked
    asking = 0 if comm.size == 2 else comm.size - 1  # the server, and a client
    if comm.rank == asking:
        ASKED.append(True)
    else:
        deadline = time.monotonic() + 60
        while not comm.heartbeat():
            assert time.monotonic() < deadline
            time.sleep(1e-3)
    comm.gather(None)
    comm.broadcast(None)
    deadline = time.monotonic() + 60
    while not comm.heartbeat():
        assert time.monotonic() < deadline
        time.sleep(1e-3)


def a_lone_process_cannot_shrink(comm):
    with pytest.raises(RuntimeError):
        comm.shrink()


CASES = {
    case.__name__: case
    for case in (
        roles,
        location,
        broadcast,
        gather,
        broadcast_rows,
        gather_rows_on_each_rank,
        gather_no_rows_at_all,
        phase_that_goes_well,
        unexpected_error_on_the_server,
        unexpected_error_on_the_last_rank,
        errors_on_all_ranks,
        exits_count_as_errors,
        an_interrupt_counts_as_an_error,
        errors_raised_on_purpose_keep_message_and_code,
        life_goes_on_after_a_failed_phase,
        only_what_may_travel_travels,
        small_values_are_entered_in_the_ledger,
        a_lone_process_cannot_shrink,
        a_request_to_abandon_reaches_all,
    )
}


def run_cases(cases, sizes: list[int]) -> None:
    """Run every case on groups of so many ranks; an error ends all ranks (``python -m mpi4py``)."""
    from mpi4py import MPI

    from fedreid_mpi.comm.mpi.communicator import MPICommunicator

    world = MPI.COMM_WORLD
    for size in sizes:
        part = world.Split(0 if world.rank < size else MPI.UNDEFINED)
        if part == MPI.COMM_NULL:
            continue
        ASKED.clear()
        comm = MPICommunicator(part, abandon_requested=lambda: bool(ASKED))
        for name, case in cases.items():
            case(comm)
            comm.gather(None)  # no rank may still be failing
            if comm.is_server:
                print(f"passed {size} {name}", flush=True)


if __name__ == "__main__":
    run_cases(CASES, [int(size) for size in sys.argv[1:]])
