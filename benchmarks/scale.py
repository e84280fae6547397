"""What does a client cost beside its images?

    python -m benchmarks.scale [--ranks 1 3 5] [--clients 4 8 44 180 360 1000] [--rounds 11]

Four datasets of noise are dealt out by people; there are always as many images. For each number of ranks
one launch times the rounds of all numbers of clients in turn, without augmentation and without scores. In the
same turn it times what a round is compared with, as only that means something on a machine with other work:
where there are several ranks the same round in one process, while the others wait; where there is one, the
bare steps of all its batches. Another launch for each number of clients measures memory and traffic.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.noise import write_noise
from benchmarks.playing import Outcome, anonymous_memory, on_ranks, options_of, play
from benchmarks.training import take_steps
from fedreid_mpi.algorithms.seeds import generator
from fedreid_mpi.comm import Communicator, SingleCommunicator, connect
from fedreid_mpi.config import Experiment
from fedreid_mpi.data.samplers import training_batches
from fedreid_mpi.federated.plan import plan_round
from fedreid_mpi.federated.round import run_round
from fedreid_mpi.records import no_heartbeat
from fedreid_mpi.run.setup import describe_clients, open_archives, set_up
from fedreid_mpi.run.state import ResumePoint

DATASETS, IMAGES = 4, 1000
HEIGHT, WIDTH, BATCH, EMBEDDING = 64, 32, 32, 128

SETTINGS = {
    "model": {"backbone": "small", "embedding_dim": EMBEDDING, "dropout": 0.0},
    "augmentation": {"pad": 0, "flip": 0.0},
    "evaluation": {"every": 10**6},
    "run": {"rounds": 10**6},
}


class Federation:
    """A federation of so many clients on these ranks, round after round."""

    def __init__(self, comm: Communicator, archives: list[Path], clients: int, looks: bool = False) -> None:
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
        self.peak = max(self.peak, anonymous_memory())

    def play(self) -> float:
        """Play a round; return its seconds."""
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


def write_datasets(folder: Path, images: int) -> None:
    """Write the datasets of noise, two images of each person."""
    for number in range(DATASETS):
        write_noise(folder / f"noise{number}.h5", images, images // 2, HEIGHT, WIDTH)


def bare_steps(federation: Federation) -> float:
    """Take the steps of a round, each batch from memory, as one client; return their seconds."""
    state = federation.state
    model, experiment = state.model, state.experiment
    pixels = torch.zeros(BATCH, 3, HEIGHT, WIDTH).contiguous(memory_format=torch.channels_last)
    batches = [
        (pixels[: len(rows)], client.labels[torch.from_numpy(rows)])
        for client in state.clients
        for rows in training_batches(client.people, client.cameras, experiment.federation, generator(0))
    ]
    model.use_identities(max(spec.identities for spec in state.specs))
    began = time.perf_counter()
    take_steps(model, batches, experiment.compute)
    return time.perf_counter() - began


def work(folder: str, counts: list[int], rounds: int) -> dict[str, Any] | None:
    """Play rounds of all numbers of clients in turn; return seconds per round, MB of ranks, bytes sent."""
    torch.set_num_threads(1)
    comm = connect()
    archives = sorted(Path(folder).glob("*.h5"))
    looks = rounds == 1
    federations = {count: Federation(comm, archives, count, looks) for count in counts}
    others: dict[int, Callable[[], float]] = {}
    for count in counts if comm.is_server and not looks else ():
        alone = Federation(SingleCommunicator(), archives, count)
        others[count] = alone.play if comm.size > 1 else partial(bare_steps, alone)
    seconds: dict[int, list[tuple[float, float]]] = {count: [] for count in counts}
    for played in range(rounds + 1):  # the first is to warm up
        for count, federation in federations.items():
            other = comm.decide("compare", others.get(count, float))
            took = federation.play()
            if played:
                seconds[count].append((took, other))
    peaks = comm.gather(max(each.peak for each in federations.values()))
    if peaks is None:
        return None
    medians = [[statistics.median(times) for times in zip(*seconds[count], strict=True)] for count in counts]
    return {"seconds": medians, "peaks": peaks, "sent": max(each.sent for each in federations.values())}


def measure(options: argparse.Namespace) -> Outcome:
    """Launch each number of ranks."""
    rows: list[dict[str, Any]] = [{"clients": count} for count in options.clients]
    with tempfile.TemporaryDirectory() as folder:
        write_datasets(Path(folder), options.images)
        for ranks in options.ranks:
            words = f"{ranks} ranks" if ranks > 1 else "one process"
            medians = on_ranks(ranks, "scale", folder, options.clients, options.rounds)["seconds"]
            for row, (seconds, other) in zip(rows, medians, strict=True):
                row[words] = seconds
                if ranks > 1:
                    row[f"{words}: times as fast"] = other / seconds
                else:
                    row["ms per client beside bare steps"] = 1e3 * (seconds - other) / row["clients"]
        for row in rows:
            measured = on_ranks(ranks, "scale", folder, [row["clients"]], 1)
            row["MB of a client rank"] = max(measured["peaks"][1:] or measured["peaks"])
            row["MB sent per rank and round"] = measured["sent"] / 1e6
    first, last = rows[0], rows[-1]
    words = [*first][1]
    ratio = last[words] / first[words]
    told = [
        f"{DATASETS * options.images:,} images per round on {words}: {first[words]:.2f} s with "
        f"{first['clients']} clients, {last[words]:.2f} s with {last['clients']:,} ({ratio:.1f} times)"
    ]
    for key in first:
        if key.endswith(": times as fast"):
            gains = [row[key] for row in rows]
            told.append(f"{key.partition(':')[0]} are {min(gains):.2f} to {max(gains):.2f} times as fast")
    memory = [row["MB of a client rank"] for row in (first, last)]
    told.append(f"a client rank holds {memory[0]:.0f} and {memory[1]:.0f} MB")
    return Outcome("; ".join(told), ratio, rows)


def main() -> None:
    """Read the options and measure."""
    options = options_of(__doc__)
    options.add_argument("--ranks", type=int, nargs="+", default=[1, 3, 5], help="memory is that of the last")
    options.add_argument("--clients", type=int, nargs="+", default=[4, 8, 44, 180, 360, 1000])
    options.add_argument("--images", type=int, default=IMAGES, help="of each dataset")
    options.add_argument("--rounds", type=int, default=11)
    play(measure, options, {"ranks": [2], "clients": [4], "images": 80, "rounds": 2}, work)


if __name__ == "__main__":
    main()
