"""Putting rounds on disk, on all ranks together: all of a round or nothing."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from fedreid_mpi.config import with_relative_paths
from fedreid_mpi.federated.client import load_client
from fedreid_mpi.federated.plan import trainers
from fedreid_mpi.federated.rank_state import RankState
from fedreid_mpi.federated.round import KeepLocal
from fedreid_mpi.model import FlatModel
from fedreid_mpi.records import ClientSpec, Event, RoundRecord
from fedreid_mpi.results import ResultsWriter
from fedreid_mpi.run.checkpoint import (
    MEANING,
    SERVER_FILE,
    Manifest,
    StoredFile,
    begin_checkpoint,
    conclude_checkpoint,
    folder_of,
    group_files,
    local_file,
    private_file,
    publish_models,
    retire_checkpoints,
    save_loaded,
    save_private,
    save_server,
    save_shared,
)
from fedreid_mpi.run.state import ResumePoint
from fedreid_mpi.storage.run_directory import Status, require_held, write_status

NAMED = 9
"""Clients that an event names; of more it gives the number."""


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
        self._begun = -1
        self._files: list[StoredFile] = []

    def begin(self, round: int, checkpoint: bool) -> KeepLocal | None:
        """Prepare for the commit of the next round.

        Returns
        -------
        callable or None
            Writes a client's own model into the checkpoint; None where the checkpoint holds none.
        """
        if not checkpoint:
            return None
        self._make_folder(round)
        return partial(self._keep_local, round) if self._keeps(round) else None

    def _keeps(self, round: int) -> bool:
        """Return whether a round's checkpoint is to keep the models of those that trained in it."""
        experiment = self._state.experiment
        wanted, last = experiment.checkpoint.local_models, round == experiment.run.rounds
        shares = experiment.federation.mode != "local"  # else every checkpoint holds them, as private state
        return shares and (wanted == "every" or (wanted == "last" and last))

    def _make_folder(self, round: int) -> None:
        self._state.comm.decide("commit", partial(begin_checkpoint, folder_of(self._run_dir, round)))
        self._begun, self._files = round, []

    def _keep_local(self, round: int, spec: ClientSpec, model: FlatModel) -> None:
        folder = folder_of(self._run_dir, round)
        self._files.append(save_loaded(folder, local_file(spec), self._state, round))

    def _missing(self, round: int, files: Sequence[StoredFile]) -> Iterator[Event]:
        """Name clients whose own models a checkpoint lacks, though it keeps local models."""
        names = {file.name for file in files}
        every = [self._state.specs[id] for id in trainers(self._state.experiment, self._state.specs)]
        without = [spec.name for spec in every if local_file(spec) not in names]
        if files and self._keeps(round) and without:
            named = ", ".join(without[:NAMED]) + f" and {len(without) - NAMED} more" * (len(without) > NAMED)
            yield Event(round, "no-local-model", f"no local model of {named}: away, not drawn, or diverged")

    def commit(self, round: int, record: RoundRecord | None, checkpoint: bool) -> None:
        """Write a round's record and, where asked for, a checkpoint of the state that it left.

        The order makes a checkpoint count only when everything up to it is safe: its files, then the record,
        then its manifest; only after that older checkpoints go.

        Parameters
        ----------
        round
            The round just done.
        record
            On the server; None where it is on disk already.
        checkpoint
            Whether a checkpoint is made.

        Raises
        ------
        PhaseError
            On every rank, if anything could not be written; the last checkpoint is kept.
        """
        comm, server = self._state.comm, self._state.comm.is_server
        files: list[list[StoredFile]] | None = None
        if checkpoint:
            if self._begun != round:
                self._make_folder(round)
            save = partial(self._save, folder_of(self._run_dir, round), round)
            files = comm.gather(comm.phase("commit", save))
        stored = sorted(file for part in files or () for file in part)
        comm.phase("commit", lambda: self._conclude(round, record, stored) if server else None)
        if checkpoint:
            self.after = round

    def _save(self, folder: Path, round: int) -> list[StoredFile]:
        """Write this rank's files."""
        state = self._state
        if state.comm.is_server:
            names = group_files(len(state.progress.groups))
            for name, shared in zip(names, state.progress.models, strict=False):
                if shared is not None:
                    self._files.append(save_shared(folder, name, state, shared, round))
            if state.progress.server:
                self._files.append(save_server(folder, state.progress.server, round))
        if state.experiment.federation.mode == "local":
            for client in state.clients:
                private = state.progress.private[client.spec.id]
                load_client(state.model, client.spec, None, private, state.experiment)
                self._keep_local(round, client.spec, state.model)
        if state.progress.private:
            self._files.append(save_private(folder, state, round))
        return self._files

    def _conclude(self, round: int, record: RoundRecord | None, files: list[StoredFile]) -> None:
        """Do the server's part: the record, then the manifest, then what follows from it."""
        state, experiment = self._state, self._state.experiment
        require_held(self._run_dir)
        if record is not None and self._writer is not None:
            self._writer.write(replace(record, events=(*record.events, *self._missing(round, files))))
        if files:
            names = [file.name for file in files]
            private = tuple(private_file(state.hosts[spec.id]) for spec in state.specs)
            manifest = Manifest(
                meaning=MEANING,
                round=round,
                groups=state.progress.groups,
                untrained=tuple(sorted(state.progress.untrained)),
                configuration=with_relative_paths(experiment, self._run_dir).model_dump(mode="json"),
                clients=tuple(spec.name for spec in state.specs),
                datasets=self._datasets,
                models=tuple(name for name in names if name not in (*private, SERVER_FILE)),
                private=private,
                files=tuple(files),
            )
            conclude_checkpoint(folder_of(self._run_dir, round), manifest)
            publish_models(self._run_dir, manifest)
            retire_checkpoints(self._run_dir, round, experiment.checkpoint.keep)
        write_status(self._run_dir, Status("running", round, experiment.run.rounds, self._attempt))
