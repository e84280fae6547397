"""A run in one line: what it is called, how far it is, how well it ends."""

import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedreid_mpi.config import settings_of
from fedreid_mpi.errors import DataError
from fedreid_mpi.records import ModelKind
from fedreid_mpi.results.datasets import datasets_of, mean_over_clients
from fedreid_mpi.results.reader import client_specs
from fedreid_mpi.results.schema import FIELDS
from fedreid_mpi.results.segments import IDENTIFYING, read_joined
from fedreid_mpi.results.sources import Source
from fedreid_mpi.storage.run_directory import read_status

_FIELDS = tuple(
    field
    for field in FIELDS
    if field.path in (*IDENTIFYING, "client", "evaluations/round", "evaluations/cmc", "evaluations/mean_ap")
    or field.path.startswith("clients/")
)


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run in one line.

    Attributes
    ----------
    source
        Where it was read.
    run_id
        Its identity.
    name, seed, mode
        From the configuration.
    code
        What tells the program's source: its digest, or in earlier archives its commit.
    settings
        The configuration, parsed.
    state
        As its job last said: running, interrupted, done, failed. Where that is not known, done or unfinished.
    round, rounds
        The last round in the archive, and the last one there is to be.
    attempt
        Number of the last start.
    rank_1, mean_ap
        Of the last evaluated round, in [0, 1]: mean over the datasets of the global model's scores, or of
        each client's own in mode local; NaN where a dataset's score is missing.
    written
        When its last file was written: UTC, ISO 8601.
    """

    source: Source
    run_id: str
    name: str
    seed: int
    mode: str
    code: str
    settings: Mapping[str, Any]
    state: str
    round: int
    rounds: int
    attempt: int
    rank_1: float
    mean_ap: float
    written: str

    def is_copy_of(self, other: "RunSummary") -> bool:
        """Return whether two archives are of one run, as far as it was at either moment.

        Of runs that went on from copies of one folder each is a run of its own: by name, code or scores.
        """
        if self.run_id != other.run_id or self.round != other.round:
            return self.run_id == other.run_id
        mine, theirs = ([each.rank_1, each.mean_ap] for each in (self, other))
        same = np.array_equal(mine, theirs, equal_nan=True)
        return same and (self.name, self.code) == (other.name, other.code)


def summarise(source: Source) -> RunSummary:
    """Summarise a run.

    Raises
    ------
    DataError
        It cannot be read.
    """
    attributes, arrays = read_joined(source.segments, _FIELDS)
    try:
        settings = settings_of(str(attributes["configuration"]))
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{source}: its configuration is not TOML: {error}") from error
    mode = str(settings.get("federation", {}).get("mode", "federated"))
    round = int(max(arrays["rounds/round"], default=-1))
    rounds = int(settings.get("run", {}).get("rounds", round))
    rank_1 = mean_ap = np.nan
    if len(arrays["evaluations/round"]):
        datasets = datasets_of(client_specs(arrays), settings)
        tested = [row for row, dataset in enumerate(datasets) if dataset.test_images]
        model = list(ModelKind).index(ModelKind.LOCAL if mode == "local" else ModelKind.GLOBAL)
        rank_1, mean_ap = (
            float(mean_over_clients(scores[:, model], datasets)[tested].mean()) if tested else np.nan
            for scores in (arrays["evaluations/cmc"][-1, ..., 0], arrays["evaluations/mean_ap"][-1])
        )
    state = source.state or read_state(source.path) or ("done" if round >= rounds else "unfinished")
    return RunSummary(
        source=source,
        run_id=attributes["run_id"],
        name=str(attributes["name"]),
        seed=int(attributes["seed"]),
        mode=mode,
        code=str(attributes.get("source_digest") or attributes["git_commit"]),
        settings=settings,
        state=state,
        round=round,
        rounds=rounds,
        attempt=int(attributes["attempt"]),
        rank_1=rank_1,
        mean_ap=mean_ap,
        written=written_at(source),
    )


def read_state(run_dir: Path) -> str | None:
    """Read a run's status, as its job reported it; None where there is none, or none that can be read."""
    try:
        return read_status(run_dir).state
    except DataError:
        return None


def written_at(source: Source) -> str:
    """Return when the last file of a run was written: UTC, ISO 8601.

    Raises
    ------
    DataError
        The file has gone.
    """
    if source.written:
        return source.written
    try:
        changed = source.segments[-1].path.stat().st_mtime
    except OSError as error:
        raise DataError(f"{source}: {error.strerror}") from error
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(changed))
