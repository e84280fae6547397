"""Whole runs of several experiments, each on groups of ranks of several sizes, in one launch.

Usage: mpirun -n 10 python -m mpi4py mpi_runs.py FOLDER EXPERIMENT.toml...

The ranks are divided into groups of `GROUPS` ranks that run side by side, then the first four play, with
clients placed and ordered otherwise, then all together. Runs are written to FOLDER/<experiment>/<ranks>.
Last, each group plays a third of them once more, stops one or two rounds before the end, and goes on with
those of another group: FOLDER/<experiment>/resumed. Experiments with masks need three ranks: they are played
by the first three, by the first four and by all; those of the three stop once, and four go on.
"""

import itertools
import random
import sys
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

from support.small import Silent, StopAfter

GROUPS = (1, 2, 7)  # seven: a server, five clients, and one rank that is idle
OTHERWISE = 4  # ranks whose clients are placed and ordered otherwise
EVERYONE = sum(GROUPS)
SIZES = (*GROUPS, OTHERWISE, EVERYONE)

VARIANTS = {
    "plain": {},
    "published": {
        "federation": {"clients_per_round": 3, "drop_last": True, "local_epochs": 2},
        "aggregation": {"bn": "reference", "weights": "uniform"},
        "optimizer": {"schedule": "cosine", "warmup": 2},
        "objective": {"label_smoothing": 0.1},
        "evaluation": {"protocol": "published", "every": 2},
    },
    "fedbn": {
        "federation": {"clients_per_round": 2},
        "aggregation": {"bn": "local", "weights": "cosine-distance"},
        "evaluation": {"protocol": "single-gallery-shot", "local_models": False},
    },
    "augmented": {
        "model": {"dropout": 0.5, "neck": "bnneck", "last_stride": 1},
        "augmentation": {"pad": 3, "flip": 0.5, "erasing": 0.5, "jitter": [0.2, 0.2, 0.2, 0.1]},
        "compute": {"channels_last": False},
        "objective": {"proximal": 0.1},
        "evaluation": {"reestimate_bn": True},
    },
    "alone": {"run": {"rounds": 3}, "federation": {"mode": "local"}},
    "distilled": {
        "federation": {"clients_per_round": 3},
        "data": {"public": "public.h5"},
        "distillation": {"enabled": True, "batchnorm": "train", "loss": "mse"},
        "model": {"dropout": 0.5},
        "evaluation": {"every": 2},  # a round without, so that the ledger shows what distillation sends
    },
    "optimised": {
        "federation": {"clients": "camera", "availability": {"mall-camera1": [[1, 1]]}},
        "data": {"public": "public.h5"},
        "aggregation": {"weights": "cosine-distance", "probe": "public"},
        "distillation": {"enabled": True, "scope": "global"},
        "clustering": {"enabled": True},
        "evaluation": {"reestimate_bn": True, "every": 2},
    },
    "bare": {
        "model": {"embedding_dim": 0},
        "data": {"public": "public.h5"},
        "distillation": {"enabled": True},
        "evaluation": {"mirror": False},
    },
    "metric": {
        "federation": {
            "sampler": "identities",
            "images_per_identity": 2,
            "local_iterations": 4,
            "clients_per_round": 3,
        },
        "model": {"embedding_dim": 0, "neck": "bnneck"},
        "objective": {"triplet": 1.0, "margin": "soft", "contrastive": 1.0},
        "optimizer": {"schedule": "milestones", "milestones": [1]},
    },
    "unseen": {
        "data": {"public": "public.h5", "unseen": ["folds.h5", "whole.h5"]},
        "distillation": {"enabled": True},
        "clustering": {"enabled": True, "max_distance": 0.1},  # near enough that several groups stay
    },
    "edges": {"federation": {"clients": "identity", "identity_clients": 2, "edge_rounds": 1}},
    "normalised": {
        "federation": {"clients_per_round": 3},
        "aggregation": {"rule": "fednova", "bn": "reference"},
        "server": {"optimizer": "yogi", "lr": 0.01},
    },
    "controlled": {
        "federation": {"clients_per_round": 3},
        "aggregation": {"rule": "scaffold", "bn": "local"},
        "server": {"optimizer": "momentum", "momentum": 0.5},
    },
    "pool": {"run": {"rounds": 3}, "federation": {"mode": "centralised"}},
    "private": {
        "federation": {"clients": "camera", "clients_per_round": 4},
        "aggregation": {"weights": "uniform"},
        "privacy": {"clip": 0.01, "statistics_clip": 0.1, "noise_multiplier": 1.0},
        "server": {"optimizer": "momentum", "momentum": 0.5},
    },
}

# With masks, models and figures are those of the variant without.
MASKED = {
    f"{name}-masked": VARIANTS[name]
    | {"privacy": VARIANTS[name].get("privacy", {}) | {"secure_aggregation": True, "neighbours": neighbours}}
    for name, neighbours in {
        "plain": 2,
        "fedbn": 0,
        "augmented": 4,
        "distilled": 4,
        "edges": 2,
        "controlled": 2,
        "private": 2,
    }.items()
}
MASKED_SIZES = (3, OTHERWISE, EVERYONE)

# Every combination of the optimisations with every kind of client and way to treat BatchNorm.
OPTIMISATIONS = {
    "distillation": {"distillation": {"enabled": True}},
    "clustering": {"clustering": {"enabled": True}},
    "cosine": {"aggregation": {"weights": "cosine-distance"}},
}
KINDS = {
    "dataset": {},
    "camera": {"clients": "camera"},
    "identity": {"clients": "identity", "identity_clients": 2},
    "edge": {"clients": "camera", "edge_rounds": 1},
}
BATCH_NORM = ("average", "local", "reference")


def combinations() -> dict[str, dict[str, dict[str, object]]]:
    """Name each combination, e.g. camera-local-distillation-cosine, and give its sections."""
    found = {}
    for kind, bn, *chosen in itertools.product(KINDS, BATCH_NORM, *[(False, True)] * len(OPTIMISATIONS)):
        names = [name for name, wanted in zip(OPTIMISATIONS, chosen, strict=True) if wanted]
        if kind == "edge" and "clustering" in names:
            continue  # refused: both decide who shares a model
        sections: dict[str, dict[str, object]] = {"federation": KINDS[kind], "aggregation": {"bn": bn}}
        for name in names:
            for section, keys in OPTIMISATIONS[name].items():
                sections[section] = sections.get(section, {}) | keys
        if {"distillation", "clustering"} & set(names):
            sections["data"] = {"public": "public.h5"}
        found["-".join([kind, bn, *names])] = sections
    return found


def sample(count: int, seed: int) -> dict[str, dict[str, dict[str, object]]]:
    """Draw some of the combinations."""
    everything = combinations()
    return {name: everything[name] for name in random.Random(seed).sample(sorted(everything), count)}


def otherwise(costs, ranks):
    """Place clients by their number, the last first, however much there is to do for each."""
    return tuple(tuple(range(len(costs) - 1 - rank, -1, -ranks)) for rank in range(ranks))


def main(folder: Path, experiments: list[Path]) -> None:
    from mpi4py import MPI

    from fedreid_mpi.comm.mpi.communicator import MPICommunicator
    from fedreid_mpi.config import load_experiment
    from fedreid_mpi.evaluation import features
    from fedreid_mpi.run.loop import run_federation

    features.SHARD = 64  # so that a small test split is shared out, too
    world = MPI.COMM_WORLD
    masked = [path for path in experiments if path.stem in MASKED]
    experiments = [path for path in experiments if path.stem not in MASKED]
    group = next(number for number in range(len(GROUPS)) if world.rank < sum(GROUPS[: number + 1]))
    some, everyone = MPICommunicator(world.Split(group)), MPICommunicator(world)
    four = MPICommunicator(world.Split(world.rank < OTHERWISE))
    for comm in (some, four, everyone):
        placed = mock.patch("fedreid_mpi.run.setup.place", otherwise) if comm is four else nullcontext()
        if comm is not four or comm.size == OTHERWISE:
            with placed:
                for path in experiments:
                    run_dir = folder / path.stem / str(comm.size)
                    run_federation(comm, load_experiment(path), run_dir, Silent())
        everyone.phase("wait", lambda: None)  # asleep until the other groups are done
    for resume in (False, True):
        first = (group + resume) % len(GROUPS)
        for number, path in list(enumerate(experiments))[first :: len(GROUPS)]:
            run_dir = folder / path.stem / "resumed"
            experiment = load_experiment(path)
            stop = StopAfter(run_dir, experiment.run.rounds - 2 + number % 2)
            outcome = run_federation(some, experiment, run_dir, Silent() if resume else stop, resume=resume)
            assert outcome.done == resume
        everyone.phase("wait", lambda: None)
    play_masked(masked, folder, MPICommunicator(world.Split(world.rank < 3)), four, everyone)


def play_masked(experiments, folder, three, four, everyone):
    """Play experiments that few ranks refuse."""
    from fedreid_mpi.config import load_experiment
    from fedreid_mpi.run.loop import run_federation

    for number, path in enumerate(experiments):
        if three.size == 3:
            resumed = folder / path.stem / "resumed"
            run_federation(three, load_experiment(path), folder / path.stem / "3", Silent())
            run_federation(three, load_experiment(path), resumed, StopAfter(resumed, number % 2))
    everyone.phase("wait", lambda: None)
    for path in experiments:
        if four.size == OTHERWISE:
            with mock.patch("fedreid_mpi.run.setup.place", otherwise):
                run_federation(four, load_experiment(path), folder / path.stem / "4", Silent())
            resumed = folder / path.stem / "resumed"
            assert run_federation(four, load_experiment(path), resumed, Silent(), resume=True).done
    everyone.phase("wait", lambda: None)
    for path in experiments:
        run_federation(everyone, load_experiment(path), folder / path.stem / str(everyone.size), Silent())


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(path) for path in sys.argv[2:]])
