"""Runs that were never played: archives with scores as a test wants them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedreid_mpi.config import Experiment
from fedreid_mpi.records import (
    CMC_RANKS,
    ClientReport,
    ClientSpec,
    Evaluation,
    Event,
    ModelKind,
    RankInfo,
    RoundPlan,
    RoundRecord,
    RunHeader,
    Scores,
    UnseenDataset,
    UnseenEvaluation,
)
from fedreid_mpi.results import ResultsWriter

PHASES = {"train": 8.0, "aggregate": 1.0, "evaluate": 4.0}
SENT = {"models": 14_000_000, "features": 1_000_000}


def scores_of(rank1: float) -> Scores:
    """mAP is half of rank-1."""
    return Scores(np.full(CMC_RANKS, rank1), rank1 / 2, rank1 / 4, queries=100, unmatched=0)


def write_run(
    folder: Path,
    name: str,
    seed: int,
    rank1: Callable[[int, int, ModelKind], float | None],
    datasets: Mapping[str, int],
    rounds: int = 4,
    played: int | None = None,
    cameras: int = 1,
    weights: Callable[[int, int], float] | None = None,
    groups: Callable[[int, int], int] | None = None,
    events: tuple[Event, ...] = (),
    commit: str = "",
    source: str = "",
    unseen: Mapping[str, Callable[[int, int], float]] | None = None,
    epsilon: float | None = None,
    **sections: dict[str, Any],
) -> Path:
    """Write FOLDER/<name>-seed<seed>: datasets by name and number of training images, cameras of each.

    ``rank1`` gives the share for round, dataset and model, or None where nothing is scored; ``weights`` and
    ``groups`` those of a round and client; ``unseen`` rank-1 of a round and group on a dataset that nobody
    trains on, in each round that is scored; ``epsilon`` what is spent in each round. A pool joins in mode
    "centralised".
    """
    run_dir = folder / f"{name}-seed{seed}"
    run_dir.mkdir(parents=True)
    settings = {key: dict(value) for key, value in sections.items()}
    settings["run"] = {**settings.get("run", {}), "name": name, "seed": seed, "rounds": rounds}
    archives = [f"/data/{seed}/{dataset}.h5" for dataset in datasets]
    settings["data"] = {"archives": archives, **settings.get("data", {})}
    experiment = Experiment.model_validate(settings)
    parts = [
        (dataset if cameras == 1 else f"{dataset}-camera{camera}", number, images // cameras)
        for number, (dataset, images) in enumerate(datasets.items())
        for camera in range(1, cameras + 1)
    ]
    clients = [
        ClientSpec(k, part, number, images, images // 10, 50)
        for k, (part, number, images) in enumerate(parts)
    ]
    if experiment.federation.mode == "centralised":
        clients.append(ClientSpec(len(clients), "pool", -1, sum(datasets.values()), 10, 0))
    ids = range(len(clients))
    header = RunHeader(
        name=name,
        seed=seed,
        configuration=experiment.to_toml(),
        clients=tuple(clients),
        ranks=(
            RankInfo(0, "node1", "server", "cpu", (), (0,)),
            RankInfo(1, "node1", "client", "cpu", (0,), (1,)),
        ),
        versions={"fedreid_mpi": "0.1.0"},
        git_commit=commit,
        source_digest=source,
        parameters=1000,
        unseen=tuple(UnseenDataset(number, one, 20, 1) for number, one in enumerate(unseen or ())),
    )
    writer = ResultsWriter(run_dir, header)
    random = np.random.default_rng(seed)
    for round in range((rounds if played is None else played) + 1):
        scored = [
            Evaluation(round, client.id, kind, scores_of(value))
            for client in clients
            for kind in ModelKind
            if client.dataset >= 0 and (value := rank1(round, client.dataset, kind)) is not None
        ]
        trained = round > 0
        given = {k: weights(round, k) if weights else float(clients[k].images) for k in ids}
        group = {k: groups(round, k) if groups else 0 for k in ids}
        distances = None
        if groups and trained:
            positions = random.random((len(clients), 3))
            distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1).astype(np.float32)
        distilled = trained and experiment.distillation.enabled
        writer.write(
            RoundRecord(
                plan=RoundPlan(round, tuple(ids) if trained else (), 0.05, evaluate=bool(scored)),
                reports=tuple(
                    ClientReport(k, clients[k].images, 3, 2.0 / round, True, clients[k].images / 400)
                    for k in ids
                )
                if trained
                else (),
                weights=given if trained else {},
                groups=group,
                distillation_loss=dict.fromkeys(set(group.values()), 0.5 / round) if distilled else {},
                feature_distances=distances,
                epsilon=None if epsilon is None else epsilon * round,
                evaluations=tuple(scored),
                unseen=tuple(
                    UnseenEvaluation(round, number, one, scores_of(share(round, one)))
                    for one in sorted(set(group.values()))
                    for number, share in enumerate((unseen or {}).values())
                    if scored
                ),
                events=events if round == 1 else (),
                phase_seconds=PHASES if trained else {"evaluate": 2.0},
                bytes_sent=SENT if trained else {},
            )
        )
    return run_dir
