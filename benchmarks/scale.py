"""What a client costs beside its images: rounds of 4 to 1,000 clients with the same images in all.

    python benchmarks/scale.py [--ranks 1 3 5] [--clients 4 8 44 180 360 1000] [--rounds 5] [--pfl]

Four datasets of noise are dealt out by people; there are always as many images. For each number of ranks
one launch times the rounds of all numbers of clients in turn, without augmentation and without scores;
another one for each number of clients measures memory and traffic. With --pfl, and the package `pfl`
installed, one process plays the same rounds by its SimulatedBackend as well, in the same turn: the same
network, images, batches, optimiser and memory layout; it has one classifier for all clients.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from noise import write_noise

DATASETS, IMAGES, PEOPLE = 4, 1000, 500
HEIGHT, WIDTH, BATCH, EMBEDDING = 64, 32, 32, 128

SETTINGS = {
    "model": {"backbone": "small", "embedding_dim": EMBEDDING, "dropout": 0.0},
    "augmentation": {"pad": 0, "flip": 0.0},
    "evaluation": {"every": 10**6},
    "run": {"rounds": 10**6},
}


def anonymous() -> float:
    """Return the megabytes of this process's memory that no file backs."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("RssAnon"))


class Federation:
    """A federation of so many clients on these ranks, round after round."""

    def __init__(self, comm, archives: list[Path], clients: int, looks: bool = False) -> None:  # noqa: ANN001
        from fedreid_mpi.config import Experiment
        from fedreid_mpi.records import no_heartbeat
        from fedreid_mpi.run.setup import describe_clients, open_archives, set_up
        from fedreid_mpi.run.state import ResumePoint

        federation = {"batch_size": BATCH, "clients": "identity", "identity_clients": clients // DATASETS}
        experiment = Experiment.model_validate(
            {**SETTINGS, "data": {"archives": list(map(str, archives))}, "federation": federation}
        )
        opened = open_archives(experiment, True)
        specs = describe_clients(experiment, opened)
        everyone = tuple(spec.id for spec in specs)
        start = ResumePoint(1, -1, (everyone,), everyone)
        self.peak, self.sent = 0.0, 0
        self.state = set_up(
            comm, experiment, opened, specs, Path("unused"), start, self._look if looks else no_heartbeat
        )
        self.round = 0

    def _look(self) -> None:
        self.peak = max(self.peak, anonymous())

    def play(self) -> float:
        """Play a round; return its seconds."""
        from fedreid_mpi.federated.plan import plan_round
        from fedreid_mpi.federated.round import run_round

        self.round += 1
        plan = plan_round(self.state.experiment, self.state.specs, self.round)
        began = time.perf_counter()
        record = run_round(self.state, plan)
        seconds = time.perf_counter() - began
        self._look()
        if record is not None:
            self.sent = max(
                sum(m.bytes * count for m, count in messages.items() if m.kind == "models")
                for rank, messages in record.messages.items()
                if rank or self.state.comm.size == 1
            )
        return seconds


def simulated(archives: list[Path], clients: int) -> Callable[[], float]:
    """Return what plays a round of the same clients by pfl's SimulatedBackend, in seconds."""
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.sampling import get_user_sampler
    from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
    from pfl.metrics import Weighted
    from pfl.model.pytorch import PyTorchModel
    from torch.nn import functional as F

    from fedreid_mpi.comm import SingleCommunicator
    from fedreid_mpi.data.batches import normalise
    from fedreid_mpi.model import build_network
    from fedreid_mpi.pixels import IMAGENET

    twin = Federation(SingleCommunicator(), archives, clients).state
    identities = max(spec.identities for spec in twin.specs)
    network = build_network(twin.experiment.model, identities, 0, "shared")
    network = network.place(torch.device("cpu"), torch.channels_last)
    network.loss = lambda x, y: F.cross_entropy(network.train()(x), y)
    network.metrics = lambda x, y, eval=False: {"loss": Weighted(0.0, len(x))}
    users = {}
    for client in twin.clients:
        pixels = normalise(client.images.batch(np.arange(len(client.images))), IMAGENET)
        users[client.spec.id] = Dataset([pixels, client.labels], user_id=str(client.spec.id))
    sampler = get_user_sampler("minimize_reuse", list(users))
    dataset = FederatedDataset(users.__getitem__, sampler)

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


def work(folder: Path, counts: list[int], rounds: int, with_pfl: bool) -> None:
    """Play rounds of all numbers of clients in turn; the server prints what it saw as JSON."""
    from fedreid_mpi.comm import connect

    torch.set_num_threads(1)
    comm = connect()
    archives = sorted(folder.glob("*.h5"))
    federations = {count: Federation(comm, archives, count, looks=rounds == 1) for count in counts}
    players: dict[str, Callable[[], float]] = {
        f"ours {count}": each.play for count, each in federations.items()
    }
    if with_pfl:
        players |= {f"pfl {count}": simulated(archives, count) for count in counts}
    seconds: dict[str, list[float]] = {name: [] for name in players}
    for played in range(rounds + 1):  # the first is to warm up
        for name, play in players.items():
            took = play()
            if played:
                seconds[name].append(took)
    peaks = comm.gather(max(each.peak for each in federations.values()))
    if peaks is not None:
        sent = max(each.sent for each in federations.values())
        print(json.dumps({"seconds": seconds, "peak": peaks, "sent": sent}))


def launch(ranks: int, *words: object) -> dict[str, object]:
    """Run this file on so many ranks; return what its server printed."""
    command = [sys.executable, __file__, "work", *map(str, words)]
    if ranks > 1:
        command = ["mpirun", "--bind-to", "none", "-n", str(ranks), *command]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    if ran.returncode:
        sys.exit(ran.stderr)
    return json.loads(ran.stdout.splitlines()[-1])


def main() -> None:
    """Measure all, and print a table for each number of ranks."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--ranks", type=int, nargs="+", default=[1, 3, 5])
    options.add_argument("--clients", type=int, nargs="+", default=[4, 8, 44, 180, 360, 1000])
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--pfl", action="store_true")
    arguments = options.parse_args()
    counts = arguments.clients
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(DATASETS):
            write_noise(folder / f"noise{number}.h5", IMAGES, PEOPLE, HEIGHT, WIDTH)
        for ranks in arguments.ranks:
            compared = int(arguments.pfl and ranks == 1)
            words = [folder, ",".join(map(str, counts)), arguments.rounds, compared]
            seconds = {n: statistics.median(s) for n, s in launch(ranks, *words)["seconds"].items()}
            print(f"{ranks} ranks: {DATASETS * IMAGES} images per round, {arguments.rounds} rounds, medians")
            heads = "clients  s per round  ms per client  MB of server, client rank  MB per rank and round"
            print(heads + "      pfl s" * compared)
            for count in counts:
                ours, alone = seconds[f"ours {count}"], launch(ranks, folder, count, 1, 0)
                each = 1e3 * (ours - seconds[f"ours {counts[0]}"]) / count
                server, memory = alone["peak"][0], max(alone["peak"][1:] or alone["peak"])
                line = f"{count:>7} {ours:>10.2f} {each:>12.2f} {server:>13.0f} {memory:>12.0f}"
                line += f" {alone['sent'] / 1e6:>20.2f}"
                if compared:
                    line += f" {seconds[f'pfl {count}']:>10.2f}"
                print(line, flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["work"]:
        work(
            Path(sys.argv[2]), [int(n) for n in sys.argv[3].split(",")], int(sys.argv[4]), sys.argv[5] == "1"
        )
    else:
        main()
