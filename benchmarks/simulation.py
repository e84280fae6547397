"""How fast is a round in one process, against the simulator of pfl-research?

    python -m benchmarks.simulation [--clients 4 8 44 180 360 1000] [--rounds 11]

The federations of `benchmarks.scale`, run here and by pfl's SimulatedBackend in turn: the same network,
images, batches, optimiser and memory layout. pfl has one classifier for all clients, and takes batches in a
fixed order. It is timed in two ways: reading and normalising each client's images in its turn, as is done
here, and with all images in memory as normalised floats. Memory is that of a process of each way, at its
highest in two rounds. Needs the package pfl, which nothing else here does.
"""

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.playing import Outcome, anonymous_memory, on_ranks, options_of, play, unavailable
from benchmarks.scale import BATCH, DATASETS, IMAGES, Federation, write_datasets
from fedreid_mpi.comm import SingleCommunicator
from fedreid_mpi.data.batches import normalise
from fedreid_mpi.model import build_network
from fedreid_mpi.records.pixels import IMAGENET


def simulated(archives: list[Path], clients: int, held: bool) -> Callable[[], float]:
    """Return what runs a round of the same clients by pfl's SimulatedBackend, in seconds.

    Parameters
    ----------
    held
        Whether all images lie in memory as normalised floats; else each client's are read in its turn.
    """
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.sampling import get_user_sampler
    from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
    from pfl.metrics import Weighted
    from pfl.model.pytorch import PyTorchModel

    twin = Federation(SingleCommunicator(), archives, clients).state
    identities = max(spec.identities for spec in twin.specs)
    network = build_network(twin.experiment.model, identities, 0, "shared")
    network = network.place(torch.device("cpu"), torch.channels_last)
    network.loss = lambda x, y: F.cross_entropy(network.train()(x), y)
    network.metrics = lambda x, y, eval=False: {"loss": Weighted(0.0, len(x))}
    users = {client.spec.id: client for client in twin.clients}

    def read(user: int) -> Dataset:
        client = users[user]
        pixels = normalise(client.images.batch(np.arange(len(client.images))), IMAGENET)
        return Dataset([pixels, client.labels], user_id=str(user))

    sampler = get_user_sampler("minimize_reuse", list(users))
    dataset = FederatedDataset({user: read(user) for user in users}.__getitem__ if held else read, sampler)

    def optimizer(parameters, lr: float):  # noqa: ANN001, ANN202
        return torch.optim.SGD(parameters, lr=lr, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True)

    model = PyTorchModel(network, optimizer, torch.optim.SGD(network.parameters(), 1.0))
    backend = SimulatedBackend(training_data=dataset, val_data=None)
    train = NNTrainHyperParams(local_batch_size=BATCH, local_num_epochs=1, local_learning_rate=0.05)

    def play() -> float:
        parameters = NNAlgorithmParams(
            central_num_iterations=1, evaluation_frequency=10**6, train_cohort_size=clients, val_cohort_size=0
        )
        began = time.perf_counter()
        FederatedAveraging().run(parameters, backend, model, train, NNEvalHyperParams(local_batch_size=None))
        return time.perf_counter() - began

    return play


def work(folder: str, clients: int, way: str) -> float:
    """Play two rounds one way in this process; return the MB it held at its highest."""
    torch.set_num_threads(1)
    archives = sorted(Path(folder).glob("*.h5"))
    play_round = WAYS[way](archives, clients)
    peak, done = 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, anonymous_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    for _ in range(2):
        play_round()
    done.set()
    watcher.join()
    return peak


def ours(archives: list[Path], clients: int) -> Callable[[], float]:
    """Return what plays a round here, in seconds."""
    return Federation(SingleCommunicator(), archives, clients).play


WAYS = {
    "one process": ours,
    "pfl": partial(simulated, held=False),
    "pfl, images in memory": partial(simulated, held=True),
}


def measure(options: argparse.Namespace) -> Outcome:
    """Play rounds of all numbers of clients, here and there, in turn."""
    if find_spec("pfl") is None:
        unavailable("needs pfl-research: pip install 'pfl[pytorch]'")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        write_datasets(Path(folder), options.images)
        archives = sorted(Path(folder).glob("*.h5"))
        players = {(n, way): make(archives, n) for n in options.clients for way, make in WAYS.items()}
        seconds: dict[tuple[int, str], list[float]] = {of: [] for of in players}
        for played in range(options.rounds + 1):  # the first is to warm up
            for of, play_round in players.items():
                took = play_round()
                if played:
                    seconds[of].append(took)
        memory = {of: on_ranks(1, "simulation", folder, *of) for of in players}
    rows = []
    here, *others = WAYS
    for count in options.clients:
        medians = {way: statistics.median(seconds[count, way]) for way in WAYS}
        ratios = {f"ratio to {way}": medians[here] / medians[way] for way in others}
        rows.append(
            {"clients": count, **medians, **ratios, **{f"MB, {way}": memory[count, way] for way in WAYS}}
        )
    words = []
    for way in others:
        times = sorted(row[f"ratio to {way}"] for row in rows)
        shares = sorted(row[f"MB, {here}"] / row[f"MB, {way}"] for row in rows)
        words.append(
            f"{times[0]:.2f} to {times[-1]:.2f} times the seconds and {shares[0]:.2f} to {shares[-1]:.2f} "
            f"times the memory of {way}"
        )
    sizes = f"{DATASETS * options.images:,} images per round, {options.clients[0]} to {options.clients[-1]:,}"
    ratio = statistics.median(row[f"ratio to {others[0]}"] for row in rows)
    return Outcome(f"{sizes} clients: {'; '.join(words)}", ratio, rows)


def main() -> None:
    """Read the options and measure."""
    options = options_of(__doc__)
    options.add_argument("--clients", type=int, nargs="+", default=[4, 8, 44, 180, 360, 1000])
    options.add_argument("--images", type=int, default=IMAGES, help="of each dataset")
    options.add_argument("--rounds", type=int, default=11)
    play(measure, options, {"clients": [4, 8], "images": 80, "rounds": 1}, work)


if __name__ == "__main__":
    main()
