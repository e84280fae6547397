"""The model exchange over random placements; alone, or under mpirun on groups of ranks.

Usage: mpirun -n RANKS python -m mpi4py mpi_exchange.py SIZE...
"""

import sys
from functools import reduce

import numpy as np
import torch
from mpi_contract import sent

from fedreid_mpi.comm import Communicator
from fedreid_mpi.federated import exchange
from fedreid_mpi.seeds import generator

DRAWS = 40


def drawn_models(draw: int):
    """Vectors of very different magnitudes, some weights, and clients that are left out."""
    random = generator(draw, "models")
    clients, length = int(random.integers(1, 8)), int(random.integers(1, 3000))
    scale = 10.0 ** random.integers(-20, 20, (clients, 1))
    models = (random.normal(size=(clients, length)) * scale).astype(np.float32)
    models[:, random.random(length) < 0.1] = -0.0
    # Numbers that cancel out: their sum tells in which order it was taken, whatever the last rounding.
    cancelling = random.random(length) < 0.3
    models[:, cancelling] = random.choice(np.float32([1e30, -1e30, 3.0]), (clients, int(cancelling.sum())))
    counted = sorted(random.choice(clients, int(random.integers(1, clients + 1)), replace=False).tolist())
    equal = draw % 2 == 0
    weights = {client: 1.0 if equal else float(random.integers(1, 40000)) / 3 for client in counted}
    return models, weights


def expected_average(models, weights):
    """Products and sum in float64 in client-id order, one division, one rounding."""
    rounded = [(client, np.float64(np.float32(weights[client]))) for client in sorted(weights)]
    products = [models[client].astype(np.float64) * weight for client, weight in rounded]
    return (reduce(np.add, products) / sum(weight for _, weight in rounded)).astype(np.float32)


def placed(clients: int, comm: Communicator, random: np.random.Generator):
    """Clients on random ranks, in random order, the server's rank included."""
    placement = [[] for _ in range(comm.size)]
    for client in random.permutation(clients).tolist():
        placement[int(random.integers(comm.size))].append(client)
    return placement


def averages_do_not_depend_on_placement_or_chunk(comm):
    for draw in range(DRAWS):
        models, weights = drawn_models(draw)
        random = generator(draw, "placement", comm.size)
        placement = placed(len(models), comm, random)
        exchange.CHUNK = int(random.integers(max(models.shape[1] // 9, 1), models.shape[1] + 50))
        updates = {client: torch.from_numpy(models[client]) for client in placement[comm.rank]}
        before = {client: update.clone() for client, update in updates.items()}
        average = exchange.aggregate(comm, placement, updates, weights, models.shape[1])
        if comm.is_server:
            assert average.tobytes() == expected_average(models, weights).tobytes(), f"draw {draw}"
        else:
            assert average is None
        assert all(torch.equal(updates[client], before[client]) for client in updates)


def a_lone_clients_model_comes_back_unchanged(comm):
    random = generator(0, "bits")
    bits = random.integers(0, 2**32, 5000, dtype=np.uint32)  # any float there is, subnormals included
    model = bits.view(np.float32)
    model[~np.isfinite(model)] = -0.0
    exchange.CHUNK = 512
    placement = [[] for _ in range(comm.size - 1)] + [[4]]
    updates = {4: torch.from_numpy(model)} if comm.rank == comm.size - 1 else {}
    average = exchange.aggregate(comm, placement, updates, {4: 12936.0}, 5000)
    assert not comm.is_server or average.tobytes() == model.tobytes()


def only_what_counts_travels(comm):
    comm.ledger.clear()
    placement = [[] for _ in range(comm.size - 1)] + [[0, 1, 2]]
    held = placement[comm.rank]
    updates = {client: torch.ones(10) for client in held}
    exchange.aggregate(comm, placement, updates, {1: 1.0}, 10)
    assert sent(comm, "models") == (40 if held and not comm.is_server else 0)


def the_servers_model_reaches_all(comm):
    model = torch.arange(1000.0) if comm.is_server else torch.full((1000,), torch.nan)
    exchange.distribute(comm, model)
    assert torch.equal(model, torch.arange(1000.0))


def the_servers_part_of_a_buffer_reaches_all(comm):
    buffer = torch.full((100,), -1.0)
    if comm.is_server:
        buffer[:60] = torch.arange(60.0)
    exchange.distribute(comm, buffer[:60])
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
        averages_do_not_depend_on_placement_or_chunk,
        a_lone_clients_model_comes_back_unchanged,
        only_what_counts_travels,
        the_servers_model_reaches_all,
        the_servers_part_of_a_buffer_reaches_all,
        features_are_put_together_in_the_order_of_the_pieces,
    )
}

if __name__ == "__main__":
    from mpi_contract import run_cases

    run_cases(CASES, [int(size) for size in sys.argv[1:]])
