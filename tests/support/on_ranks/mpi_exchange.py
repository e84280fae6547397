"""The model exchange over random placements; alone, or under mpirun on groups of ranks.

Usage: mpirun -n RANKS python -m mpi4py mpi_exchange.py SIZE...

Under mpirun the same launch checks the communicator's contract, and that groups do not hear each other.
"""

import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fedreid_mpi.algorithms.averaging import grid_of
from fedreid_mpi.algorithms.seeds import generator
from fedreid_mpi.comm import Communicator
from fedreid_mpi.federated import exchange
from fedreid_mpi.federated.aggregation import average_models
from fedreid_mpi.federated.masks import agree_on_masks
from fedreid_mpi.federated.sums import MODELS, RankSums, Segment, Vectors
from fedreid_mpi.records import GridSum, Group
from support.on_ranks.mpi_contract import sent

DRAWS = 40


def placed(clients: int, comm: Communicator, random: np.random.Generator):
    """Clients on random ranks, in random order, the server's rank included."""
    placement = [[] for _ in range(comm.size)]
    for client in random.permutation(clients).tolist():
        placement[int(random.integers(comm.size))].append(client)
    return placement


def drawn_round(draw: int):
    """Clients in groups, some of them alone, some left out; models with statistics at the end."""
    random = generator(draw, "models")
    clients, length = int(random.integers(1, 9)), int(random.integers(2, 3000))
    models = (random.normal(size=(clients, length)) * 10.0 ** random.uniform(-9, 1, length)).astype(
        np.float32
    )
    keys = {client: int(random.integers(0, 3)) for client in range(clients)}
    finite = sorted(random.choice(clients, int(random.integers(1, clients + 1)), replace=False).tolist())
    shares = {client: float(np.float32(random.uniform(1e-3, 1))) for client in finite}
    order = random.permutation(clients).tolist()
    return models, keys, finite, shares, order, int(random.integers(1, length))


def groups_of(keys, finite, order, lends):
    """Group the clients; those of group 2 that did not train begin with the mean of all."""
    found = []
    for key in sorted(set(keys.values())):
        members = tuple(client for client in keys if keys[client] == key)
        trained = [client for client in members if client in finite]
        weighed = finite if key == 2 and not trained else trained
        first = next((client for client in order if client in weighed), None)
        statistics = {first: 1.0} if lends and weighed else dict.fromkeys(weighed, 1.0)
        found.append(Group(members, dict.fromkeys(weighed, 1.0), statistics, 0))
    return found


def expected_model(group, models, keys, shares, split, lends, grids):
    """Integers in Python, in client order."""
    weighed = sorted(group.weights)
    if len(weighed) == 1 and list(keys.values()).count(keys[weighed[0]]) == 1:
        return models[weighed[0]]
    parts = []
    for part, grid in ((slice(split), grids[0]), (slice(split, None), grids[1])):
        columns = models[weighed, part].astype(np.float64)
        factors = np.array([[shares[client]] for client in weighed])
        total = np.rint(columns * factors * 2.0**grid.bits).astype(np.int64).sum(0)
        parts.append((total / (math.fsum(shares[c] for c in weighed) * 2.0**grid.bits)).astype(np.float32))
    if lends:
        (first,) = group.statistics_weights
        parts[1] = models[first, split:]
    return np.concatenate(parts)


def averages_do_not_depend_on_placement_or_order(comm):
    grids = grid_of("parameters", 9), grid_of("statistics", 9)
    for draw in range(DRAWS):
        models, keys, finite, shares, order, split = drawn_round(draw)
        random = generator(draw, "placement", comm.size)
        placement, length = placed(len(models), comm, random), models.shape[1]
        clustered, lends = draw % 3 == 0, draw % 2 == 0
        vectors = Vectors(
            length, (Segment(slice(0, split), grids[0]), Segment(slice(split, length), grids[1]))
        )
        groups = groups_of(keys, finite, order, lends)
        sums = RankSums({MODELS: vectors}, {} if clustered else dict(keys), order, lends)
        for client in placement[comm.rank]:
            if client in finite:
                values = torch.from_numpy(models[client].copy())
                sums.add(client, MODELS, shares[client], values)
                values.fill_(torch.nan)  # the working model goes to the next client
        if clustered:
            sums.settle(groups)
        hosts = {client: rank for rank, clients in enumerate(placement) for client in clients}
        old = torch.full((length,), 7.0)
        state = SimpleNamespace(comm=comm, hosts=hosts, progress=SimpleNamespace(models=(old,)))
        averaged = average_models(state, sums, groups, shares if comm.is_server else {})
        alone = sums.keys if clustered else keys
        for group, model in zip(groups, averaged, strict=True):
            if not comm.is_server:
                assert model is None
            elif not group.weights:
                assert torch.equal(model, old)
            else:
                expected = expected_model(group, models, alone, shares, split, lends, grids)
                assert model.numpy().tobytes() == expected.tobytes(), f"draw {draw}, group {group}"


def a_lone_vector_comes_unchanged(comm):
    random = generator(0, "bits")
    bits = random.integers(0, 2**32, 5000, dtype=np.uint32)  # any float there is, subnormals included
    vector = torch.from_numpy(bits.view(np.float32))
    for host in range(comm.size):
        own = vector if comm.rank == host else None
        received = exchange.send_to_server(comm, own, host, 5000)
        assert not comm.is_server or received.numpy().tobytes() == bits.tobytes()
        assert comm.is_server or received is None


def sums_of_all_ranks_are_added(comm):
    for length in (1, 1000, (1 << 17) - 1, (1 << 17) + 1, 5 * (1 << 17) + 3):
        mine = GridSum(np.arange(length) * (comm.rank + 1) - 2**40)
        has = comm.rank % 2 == 0
        total = comm.reduce_sum(mine if has else None, length, "models")
        if comm.is_server:
            counted = range(0, comm.size, 2)
            expected = np.arange(length) * sum(r + 1 for r in counted) - 2**40 * len(counted)
            assert (total == expected).all()
        else:
            assert total is None


def masks_cancel_in_the_sum_and_are_new_each_time(comm):
    random = generator(comm.rank, "sums")
    length, sent_before = (1 << 18) + 5, b""
    for neighbours in (0, 2):
        mine = np.zeros(length, np.int64) if comm.is_server else random.integers(-(2**57), 2**57, length)
        expected = comm.reduce_sum(GridSum(mine.copy()), length, "models")
        masks = agree_on_masks(comm, neighbours)
        assert (masks is None) == comm.is_server
        comm.ledger.clear()
        for purpose in ("models 0", "models 1"):
            hidden = masks and masks.hide(mine.copy(), purpose)
            if masks:
                assert comm.size == 2 or hidden.values.tobytes() != sent_before
                assert (hidden.values.view(np.int64) == mine).all() == (comm.size == 2)
                sent_before = hidden.values.tobytes()
            total = comm.reduce_sum(hidden, length, "models")
            assert not comm.is_server or (total.dtype == np.int64 and (total == expected).all())
        if masks:
            assert {message.dtype for message in comm.ledger if message.kind == "models"} == {"uint64"}
            with pytest.raises(RuntimeError, match="models 1 masked twice with one key"):
                masks.hide(mine, "models 1")


def a_rank_without_clients_sends_a_mask(comm):
    grid = grid_of("parameters", 1)
    sums = RankSums({MODELS: Vectors(5, (Segment(slice(0, 5), grid),))}, {0: 0, 1: 0}, (0, 1))
    assert sums.total(MODELS, 0) is None
    sums.masks = agree_on_masks(comm, 0)
    total = comm.reduce_sum(sums.total(MODELS, 0), 5, "models")
    assert not comm.is_server or total.tolist() == [0] * 5
    assert comm.is_server or comm.size == 2 or sums.spare == []


def a_rank_sends_one_sum_whatever_the_number_of_clients(comm):
    comm.ledger.clear()
    comm.reduce_sum(GridSum(np.arange(10)), 10, "models")
    assert sent(comm, "models") == (0 if comm.is_server else 80)
    comm.ledger.clear()
    comm.reduce_sum(None, 10, "models")
    assert sent(comm, "models") == 0


def the_servers_model_reaches_all(comm):
    model = torch.arange(1000.0) if comm.is_server else torch.full((1000,), torch.nan)
    exchange.broadcast_model(comm, model)
    assert torch.equal(model, torch.arange(1000.0))


def the_servers_part_of_a_buffer_reaches_all(comm):
    buffer = torch.full((100,), -1.0)
    if comm.is_server:
        buffer[:60] = torch.arange(60.0)
    exchange.broadcast_model(comm, buffer[:60])
    assert torch.equal(buffer, torch.cat([torch.arange(60.0), torch.full((40,), -1.0)]))


def features_are_put_together_in_the_order_of_the_pieces(comm):
    for draw in range(DRAWS):
        random = generator(draw, "features", comm.size)
        sizes = random.integers(1, 9, int(random.integers(1, 12))).tolist()
        owners = random.integers(0, comm.size, len(sizes)).tolist()
        root = int(random.integers(comm.size))
        whole = random.normal(size=(sum(sizes), 5)).astype(np.float32)
        blocks = dict(enumerate(np.split(whole, np.cumsum(sizes)[:-1])))
        pieces = {n: torch.from_numpy(block) for n, block in blocks.items() if owners[n] == comm.rank}
        collected = exchange.collect_features(comm, pieces, owners, sizes, 5, root)
        if comm.rank == root:
            assert collected.tobytes() == whole.tobytes(), f"draw {draw}"
        else:
            assert collected is None


CASES = {
    case.__name__: case
    for case in (
        averages_do_not_depend_on_placement_or_order,
        a_lone_vector_comes_unchanged,
        sums_of_all_ranks_are_added,
        masks_cancel_in_the_sum_and_are_new_each_time,
        a_rank_without_clients_sends_a_mask,
        a_rank_sends_one_sum_whatever_the_number_of_clients,
        the_servers_model_reaches_all,
        the_servers_part_of_a_buffer_reaches_all,
        features_are_put_together_in_the_order_of_the_pieces,
    )
}


def a_group_of_ranks_does_not_hear_another() -> None:
    from mpi4py import MPI

    from fedreid_mpi.comm.mpi.communicator import MPICommunicator

    world = MPI.COMM_WORLD
    comm = MPICommunicator(world.Split(world.rank % 2))
    for _ in range(100):
        assert comm.broadcast(world.rank) == world.rank % 2
        expected = None if comm.rank else list(range(world.rank, world.size, 2))
        assert comm.gather(world.rank) == expected
    world.Barrier()
    if world.rank == 0:
        print("groups do not hear each other", flush=True)


if __name__ == "__main__":
    from support.on_ranks.mpi_contract import CASES as CONTRACT
    from support.on_ranks.mpi_contract import run_cases

    run_cases(CONTRACT | CASES, [int(size) for size in sys.argv[1:]])
    a_group_of_ranks_does_not_hear_another()
