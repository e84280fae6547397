"""Runs with hand-made scores, written as a real run writes them."""

import dataclasses
from pathlib import Path

import numpy as np

from fedreid_mpi.records import (
    CMC_RANKS,
    ClientReport,
    ClientSpec,
    Evaluation,
    ModelKind,
    RankInfo,
    RoundPlan,
    RoundRecord,
    RunHeader,
    Scores,
)
from fedreid_mpi.results import ResultsWriter

SITES = (ClientSpec(0, "market", 0, 800, 40, 90), ClientSpec(1, "viper", 1, 300, 30, 60))
CAMERAS = (
    ClientSpec(0, "market-camera1", 0, 500, 40, 90),
    ClientSpec(1, "market-camera2", 0, 300, 40, 90),
    ClientSpec(2, "viper-camera1", 1, 300, 30, 60),
)


def scores(rank_1: float) -> Scores:
    """Scores of which rank-5 is half way to 1, and mAP half of rank-1."""
    cmc = np.full(CMC_RANKS, (1 + rank_1) / 2)
    cmc[:4] = rank_1
    return Scores(cmc, rank_1 / 2, rank_1 / 4, 50, 0)


def header(name: str = "fedpav", seed: int = 0, clients=SITES, rounds: int = 2, more: str = "") -> RunHeader:
    return RunHeader(
        name=name,
        seed=seed,
        configuration=f'[run]\nname = "{name}"\nseed = {seed}\nrounds = {rounds}\n{more}',
        clients=clients,
        ranks=(RankInfo(0, "node1", "solo", "cpu", tuple(client.id for client in clients), (0,)),),
        versions={},
        git_commit="",
        parameters=10,
    )


def record(number: int, rank_1: dict[ModelKind, tuple[float, ...]], **changes: object) -> RoundRecord:
    """A round in which all clients train; rank-1 of each model by client."""
    clients = range(len(next(iter(rank_1.values()))))
    values = {
        "plan": RoundPlan(number, tuple(clients), 0.1, evaluate=True),
        "reports": tuple(ClientReport(k, 800, 25, 3.0 / (number + 1) + k, True, 2.0) for k in clients),
        "weights": {k: 800.0 - k for k in clients},
        "evaluations": tuple(
            Evaluation(number, k, model, scores(values[k]))
            for k in clients
            for model, values in rank_1.items()
        ),
        "phase_seconds": {"train": 2.0 + number},
    }
    return RoundRecord(**(values | changes))


def write_run(folder: Path, last: tuple[float, ...] = (0.5, 0.25), rounds: int = 2, **options) -> Path:
    """Write a run whose global model's rank-1 rises evenly from 0 to ``last``, by client."""
    per_segment = options.pop("rounds_per_segment", 100)
    first, attempt = options.pop("first", 0), options.pop("attempt", 1)
    folder.mkdir(parents=True, exist_ok=True)
    made = dataclasses.replace(header(**options), attempt=attempt)
    writer = ResultsWriter(folder, made, rounds_per_segment=per_segment)
    for number in range(first, rounds + 1):
        writer.write(record(number, {ModelKind.GLOBAL: tuple(value * number / 2 for value in last)}))
    return folder
