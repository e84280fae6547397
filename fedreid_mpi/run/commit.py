"""Putting rounds on disk, on all ranks together: all of a round or nothing."""

from functools import partial
from pathlib import Path

from fedreid_mpi.federated.rank_state import RankState
from fedreid_mpi.records import RoundRecord
from fedreid_mpi.results import ResultsWriter
from fedreid_mpi.run.checkpoint import (
    Manifest,
    StoredFile,
    begin_checkpoint,
    conclude_checkpoint,
    folder_of,
    group_files,
    publish_models,
    retire_checkpoints,
    save_client,
    save_group,
)
from fedreid_mpi.run.state import ResumePoint
from fedreid_mpi.storage.run_directory import Status, write_status


class CheckpointWriter:
    """Commits the rounds of one attempt; each rank has one.

    Parameters
    ----------
    state
        This rank's part.
    run_dir
        The run directory.
    start
        Where the attempt began.
    writer
        Of the results, on the server.
    datasets
        Content digests of the archives, on the server.

    Attributes
    ----------
    after
        The last round that is in a checkpoint; -1: none.
    """

    def __init__(
        self,
        state: RankState,
        run_dir: Path,
        start: ResumePoint,
        writer: ResultsWriter | None,
        datasets: tuple[str, ...],
    ) -> None:
        self.after = start.after
        self._state = state
        self._run_dir = run_dir
        self._attempt = start.attempt
        self._writer = writer
        self._datasets = datasets

    def commit(self, round: int, record: RoundRecord | None, checkpoint: bool) -> None:
        """Write a round's record and, where asked for, a checkpoint of the state that it left.

        The order makes a checkpoint count only when everything up to it is safe: its files, then the record,
        then its manifest; only after that older checkpoints go.

        Parameters
        ----------
        round
            The round just played.
        record
            On the server; None where it is on disk already.
        checkpoint
            Whether a checkpoint is made.

        Raises
        ------
        PhaseError
            On every rank alike, if anything could not be written; the last checkpoint stands.
        """
        comm, server = self._state.comm, self._state.comm.is_server
        files: list[list[StoredFile]] | None = None
        if checkpoint:
            folder = folder_of(self._run_dir, round)
            comm.decide("commit", partial(begin_checkpoint, folder))
            files = comm.gather(comm.phase("commit", partial(self._save, folder, round)))
        stored = sorted(file for part in files or () for file in part)
        comm.phase("commit", lambda: self._conclude(round, record, stored) if server else None)
        if checkpoint:
            self.after = round

    def _save(self, folder: Path, round: int) -> list[StoredFile]:
        """Write this rank's files."""
        state, experiment = self._state, self._state.experiment
        size = (state.archives[0].height, state.archives[0].width, round)
        files: list[StoredFile] = []
        if state.comm.is_server and experiment.federation.mode != "local":
            for name, model in zip(
                group_files(len(state.progress.groups)), state.progress.models, strict=True
            ):
                state.shared.shared.copy_(model)
                files.append(save_group(folder, name, state.shared, experiment, *size))
        for client in state.clients:
            files += save_client(folder, client, experiment, *size)
        return files

    def _conclude(self, round: int, record: RoundRecord | None, files: list[StoredFile]) -> None:
        """Do the server's part: the record, then the manifest, then what follows from it."""
        experiment = self._state.experiment
        if record is not None and self._writer is not None:
            self._writer.write(record)
        if files:
            manifest = Manifest(
                round=round,
                groups=tuple(self._state.progress.groups),
                untrained=tuple(sorted(self._state.progress.untrained)),
                configuration=experiment.model_dump(mode="json"),
                clients=tuple(spec.name for spec in self._state.specs),
                datasets=self._datasets,
                models=tuple(file.name for file in files if not file.name.startswith("client_")),
                files=tuple(files),
            )
            conclude_checkpoint(folder_of(self._run_dir, round), manifest)
            publish_models(self._run_dir, manifest)
            retire_checkpoints(self._run_dir, round, experiment.checkpoint.keep)
        write_status(self._run_dir, Status("running", round, experiment.run.rounds, self._attempt))
