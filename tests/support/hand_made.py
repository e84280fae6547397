"""Records with a value of every kind, and archives of them."""

from pathlib import Path

import numpy as np

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
)
from fedreid_mpi.results import ResultsWriter
from fedreid_mpi.storage.hdf5.digest import content_digest

HEADER = RunHeader(
    name="unit test – θ",
    seed=7,
    configuration='[run]\nname = "unit"\n\n[federation]\nmode = "federated"\n',
    clients=(
        ClientSpec(0, "Market-1501", 0, 12936, 751, 19281),
        ClientSpec(1, "VIPeR", 1, 632, 316, 632),
        ClientSpec(2, "PRID", 2, 3744, 285, 0),
    ),
    ranks=(
        RankInfo(0, "node1", "server", "cpu", (), (0,)),
        RankInfo(1, "node1", "client", "cuda:0", (0,), (1, 2, 3)),
        RankInfo(2, "node2", "client", "cuda:1", (2, 1), (0, 5)),
    ),
    versions={"torch": "2.15", "h5py": "3.16"},
    git_commit="6c99be0",
    parameters=23_508_032,
    attempt=1,
)


def scores(value: float, queries: int = 100) -> Scores:
    return Scores(
        cmc=np.linspace(value, 1.0, CMC_RANKS),
        mean_ap=value * 0.7,
        mean_inp=value * 0.3,
        queries=queries,
        unmatched=3,
    )


def record(number: int, noise: float = 0.0, **changes: object) -> RoundRecord:
    """A round in which clients 2 and 0 train; ``noise`` moves what is volatile."""
    values = {
        "plan": RoundPlan(number, (2, 0), 0.1 / (number + 1), evaluate=number % 2 == 0),
        "reports": (
            ClientReport(0, 12936, 404, 3.0 / (number + 1), True, 12.5 + noise),
            ClientReport(2, 3744, 117, float("inf"), False, 4.5 + noise),
        ),
        "weights": {0: 1.0},
        "evaluations": (
            Evaluation(number, 0, ModelKind.GLOBAL, scores(0.5 + number / 1000)),
            Evaluation(number, 0, ModelKind.LOCAL, scores(0.4)),
            Evaluation(number, 1, ModelKind.GLOBAL, scores(0.125, queries=9)),
            Evaluation(number, 2, ModelKind.LOCAL, scores(0.25)),
        ),
        "events": (Event(number, "non-finite", f"client 2 left out, {noise}"),),
        "phase_seconds": {"train": 13.0 + noise, "aggregate": 0.5},
        "bytes_sent": {"models": 94_000_000},
    }
    return RoundRecord(**(values | changes))


def write_run(run_dir: Path, records: list[RoundRecord], header: RunHeader = HEADER, **options: int) -> Path:
    run_dir.mkdir(exist_ok=True)
    writer = ResultsWriter(run_dir, header, **options)
    for entry in records:
        writer.write(entry)
    return run_dir


def assert_same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    assert list(first) == list(second)
    for path, array in first.items():
        assert array.dtype == second[path].dtype, path
        assert array.shape == second[path].shape, path
        assert array.tobytes() == second[path].tobytes(), path


def renew_digest(file):
    file.attrs["content_digest"] = content_digest(file)
