"""A run that was stopped, killed or damaged goes on as if nothing had happened, or says why it cannot."""

import errno
import fcntl
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

from fedreid_mpi.cli import run
from fedreid_mpi.comm import PhaseError, SingleCommunicator
from fedreid_mpi.config import Experiment, load_experiment
from fedreid_mpi.config.changes import may_change
from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.results import read_run
from fedreid_mpi.run.checkpoint import MEANING, _digest, list_checkpoints, newest_whole
from fedreid_mpi.run.loop import run_federation
from fedreid_mpi.run.program import source_digest
from fedreid_mpi.storage.run_directory import read_status
from support.rights import as_nobody
from support.same_runs import assert_same_run
from support.small import Silent, StopAfter, write_experiment

ROUNDS = 4


@pytest.fixture(scope="module")
def experiment_path(archives, tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    sections = {"run": {"rounds": ROUNDS}, "aggregation": {"bn": "local"}, "checkpoint": {"keep": 2}}
    return write_experiment(folder / "small.toml", archives[:2], **sections)


def play(path, run_dir, *overrides, observer=None, resume=False):
    experiment = load_experiment(path, overrides)
    return run_federation(SingleCommunicator(), experiment, run_dir, observer or Silent(), resume=resume)


@pytest.fixture(scope="module")
def reference(experiment_path, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("reference") / "run"
    assert play(experiment_path, run_dir).done
    return run_dir


@pytest.fixture(scope="module")
def interrupted(experiment_path, tmp_path_factory):
    """A run that was stopped after round 2, to be copied."""
    run_dir = tmp_path_factory.mktemp("interrupted") / "run"
    assert not play(experiment_path, run_dir, observer=StopAfter(run_dir, 2)).done
    return run_dir


@pytest.fixture
def run_dir(interrupted, tmp_path):
    return shutil.copytree(interrupted, tmp_path / "run")


def checkpoints(run_dir):
    return [int(folder.name[6:]) for folder in list_checkpoints(run_dir)]


@pytest.mark.parametrize(("last", "every", "keep"), [(0, 1, 1), (1, 3, 2), (2, 1, 2), (3, 1, 1)])
def test_a_stop_after_any_round_loses_nothing(last, every, keep, experiment_path, reference, tmp_path):
    overrides = (f"checkpoint.every_rounds={every}", f"checkpoint.keep={keep}")
    outcome = play(experiment_path, tmp_path / "run", *overrides, observer=StopAfter(tmp_path / "run", last))
    assert (outcome.done, outcome.after, outcome.reason) == (False, last, "the file STOP")
    assert checkpoints(tmp_path / "run")[-1] == last
    status = read_status(tmp_path / "run")
    assert (status.state, status.round, status.rounds, status.attempt) == ("interrupted", last, ROUNDS, 1)
    assert play(experiment_path, tmp_path / "run", *overrides, resume=True).done
    assert_same_run(tmp_path / "run", reference)
    assert len(checkpoints(tmp_path / "run")) == keep
    assert not (tmp_path / "run" / "STOP").exists()
    status = read_status(tmp_path / "run")
    assert (status.state, status.round, status.attempt) == ("done", ROUNDS, 2)
    events = read_run(tmp_path / "run").events
    assert [(event.round, event.kind) for event in events] == [(last + 1, "resumed")]
    assert events[0].text == f"attempt 2 continues after round {last}"


class FailAfter(Silent):
    def __init__(self, round):
        self.round = round

    def finished(self, record):
        if record.plan.round == self.round:
            raise RuntimeError("boom")


def test_rounds_since_the_last_checkpoint_are_played_again(experiment_path, reference, tmp_path):
    overrides, run_dir = ["checkpoint.every_rounds=3"], tmp_path / "run"
    with pytest.raises(RuntimeError, match="boom"):
        play(experiment_path, run_dir, *overrides, observer=FailAfter(2))
    assert (read_status(run_dir).state, read_status(run_dir).reason) == ("failed", "boom")
    assert checkpoints(run_dir) == [0]
    assert read_run(run_dir).rounds.tolist() == [0, 1, 2]
    assert play(experiment_path, run_dir, *overrides, resume=True).done
    assert_same_run(run_dir, reference)
    assert read_run(run_dir).header.attempt == 2


def test_a_run_that_never_committed_starts_anew(experiment_path, reference, tmp_path):
    run_dir = tmp_path / "run"
    play(experiment_path, run_dir, observer=StopAfter(run_dir, 0))
    (run_dir / "checkpoints" / "round_000000" / "manifest.json").unlink()  # killed just before that
    assert play(experiment_path, run_dir, resume=True).done
    assert_same_run(run_dir, reference)


def test_resume_starts_where_there_is_nothing(experiment_path, reference, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "STOP").touch()  # of the job before
    assert play(experiment_path, tmp_path / "run", resume=True).done
    assert_same_run(tmp_path / "run", reference)


def test_more_rounds_extend_a_run(experiment_path, reference, tmp_path):
    run_dir = tmp_path / "run"
    assert play(experiment_path, run_dir, "run.rounds=2").done
    assert play(experiment_path, run_dir, "run.name=longer", "compute.share_gpus=true", resume=True).done
    assert_same_run(run_dir, reference)


def test_archives_may_move(experiment_path, archives, reference, run_dir, tmp_path):
    moved = [shutil.copy(path, tmp_path / path.name) for path in archives[:2]]
    paths = json.dumps([str(path) for path in moved])
    assert play(experiment_path, run_dir, f"data.archives={paths}", resume=True).done
    assert_same_run(run_dir, reference)


def test_stored_paths_are_relative_and_those_of_before_are_taken(
    experiment_path, archives, reference, run_dir, tmp_path, monkeypatch
):
    manifest_path = list_checkpoints(run_dir)[-1] / "manifest.json"
    stored = json.loads(manifest_path.read_text())["configuration"]["data"]["archives"]
    settings = read_run(reference).settings["data"]["archives"]
    for folder, paths in ((reference, settings), (reference, stored)):
        assert not any(Path(path).is_absolute() for path in paths)
        assert [(folder / path).resolve() for path in paths] == [path.resolve() for path in archives[:2]]
    content = json.loads(manifest_path.read_text())
    del content["digest"]
    content["configuration"]["data"]["archives"] = [
        str(path) for path in archives[:2]
    ]  # as it was stored once
    manifest_path.write_text(json.dumps(content | {"digest": _digest(content)}))
    monkeypatch.chdir(tmp_path)  # from another working directory
    assert play(experiment_path, run_dir.relative_to(tmp_path), resume=True).done
    assert_same_run(run_dir, reference)


def test_a_finished_run_is_left_alone(experiment_path, reference, tmp_path, capsys):
    run_dir = shutil.copytree(reference, tmp_path / "run")
    before = {path: path.read_bytes() for path in run_dir.rglob("*.*5")}
    assert run(["train", str(experiment_path), "--run-dir", str(run_dir), "--resume"]) == 0
    assert "done (all rounds are done already): " in capsys.readouterr().out
    assert {path: path.read_bytes() for path in run_dir.rglob("*.*5")} == before
    assert (read_status(run_dir).state, read_status(run_dir).attempt) == ("done", 1)


def refused(path, run_dir, *overrides, resume=True):
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    with pytest.raises(PhaseError) as caught:
        play(path, run_dir, *overrides, resume=resume)
    assert {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()} == before
    return caught.value.exit_code, str(caught.value)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("run.seed=4", "run.seed is 4, expected 3"),
        ("run.rounds=3", "run.rounds is 3, expected at least 4"),
        ("preset=published", "preset is 'published', expected 'default'"),
        ("federation.batch_size=9", "federation.batch_size is 9, expected 8"),
        (
            "federation.availability={campus=[[3,3]]}",
            "federation.availability is {'campus': [[3, 3]]}, expec",
        ),
        ("model.embedding_dim=8", "model.embedding_dim is 8, expected 16"),
        ("optimizer.lr=0.1", "optimizer.lr is 0.1, expected 0.05"),
        ("augmentation.flip=0.1", "augmentation.flip is 0.1, expected 0.5"),
        ("aggregation.bn=average", "aggregation.bn is 'average', expected 'local'"),
        ("evaluation.every=2", "evaluation.every is 2, expected 1"),
        ("compute.threads=2", "compute.threads is 2, expected 1"),
        ("compute.precision=bf16", "compute.precision is 'bf16', expected 'fp32'"),
        ("model.weights=w.pth", "model.weights is "),
    ],
)
def test_a_change_that_would_alter_the_past_is_refused(override, said, experiment_path, run_dir):
    code, line = refused(experiment_path, run_dir, override)
    assert code == 2
    assert said in line


def rewritten(run_dir, **changes):
    """Change the manifest of the newest checkpoint, as another version would have written it."""
    path = list_checkpoints(run_dir)[-1] / "manifest.json"
    content = {**json.loads(path.read_bytes()), **changes}
    content = {name: value for name, value in content.items() if name != "digest" and value is not None}
    path.write_text(json.dumps({**content, "digest": _digest(content)}))


def test_a_run_of_a_version_that_computes_otherwise_is_not_resumed(experiment_path, run_dir):
    rewritten(run_dir, meaning=MEANING + 1)
    code, line = refused(experiment_path, run_dir)
    assert code == 2
    meaning = f"(meaning {MEANING + 1}, expected {MEANING}): only the"
    assert f"a version that computes differently {meaning}" in line


def test_a_manifest_from_before_meanings_is_of_the_first(experiment_path, reference, run_dir):
    rewritten(run_dir, meaning=None)
    assert MEANING == 1, "from now on such a manifest is to be refused"
    assert play(experiment_path, run_dir, resume=True).done
    assert_same_run(run_dir, reference)


def test_a_changed_program_is_told(experiment_path, reference, run_dir, monkeypatch):
    before = source_digest()
    for module in ("resume", "loop"):
        monkeypatch.setattr(f"fedreid_mpi.run.{module}.source_digest", lambda: "f" * 64)
    assert play(experiment_path, run_dir, resume=True).done
    said = f"the program has changed: its source is ffffffffff, in the attempt before {before[:10]}"
    assert said in [event.text for event in read_run(run_dir).events if event.kind == "resumed"]


def test_every_key_is_checked():
    """A new key is refused on resume unless somebody has said that it is harmless."""
    checkpoint, reliability = ("every_rounds", "keep", "local_models"), ("min_clients", "rank_timeout")
    expected = {
        *(
            "run.name",
            "run.label",
            "run.position",
            "run.rounds",
            "data.archives",
            "data.unseen",
            "data.public",
            "model.weights",
            "compute.share_gpus",
            "data.stage",
        ),
        *(f"checkpoint.{key}" for key in checkpoint),
        *(f"reliability.{key}" for key in reliability),
    }
    keys = {
        f"{section}.{key}"
        for section, field in Experiment.model_fields.items()
        for key in getattr(field.annotation, "model_fields", ())
    }
    assert {key for key in keys if may_change(key)} == expected


def test_a_cosine_schedule_cannot_be_extended(experiment_path, tmp_path):
    cosine = ["optimizer.schedule=cosine"]
    play(experiment_path, tmp_path / "run", "run.rounds=1", *cosine)
    code, line = refused(experiment_path, tmp_path / "run", *cosine)
    assert code == 2
    assert "run.rounds is 4, expected 1: with optimizer.schedule = 'cosine'" in line


def test_other_archives_are_refused(experiment_path, archives, run_dir):
    for names, said in (
        ((archives[0], archives[3]), f"{archives[3]} has other content than when the run was begun"),
        (archives[:3], "data.archives has 3 archives, expected 2"),
    ):
        paths = json.dumps([str(path) for path in names])
        code, line = refused(experiment_path, run_dir, f"data.archives={paths}")
        assert code == 2
        assert said in line


def test_without_resume_a_run_is_not_touched(experiment_path, run_dir):
    code, line = refused(experiment_path, run_dir, resume=False)
    assert code == 2
    assert "already holds a run, expected a new or empty folder, or --resume to continue it" in line


def test_a_second_live_job_is_refused(experiment_path, run_dir):
    holder = {"host": "node07", "pid": 1234, "since": "2026-01-01T00:00:00Z", "slurm_job": "99"}
    (run_dir / "lock").write_text(json.dumps(holder))
    with (run_dir / "lock").open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        code, line = refused(experiment_path, run_dir)
    assert code == 2
    assert line.endswith("in use by process 1234 on node07, SLURM job 99, since 2026-01-01T00:00:00Z")
    assert play(experiment_path, run_dir, resume=True).done  # what a job that was killed wrote means nothing
    assert (run_dir / "lock").read_text() == ""


@pytest.mark.parametrize(
    ("host", "pid", "free"), [("node07", 1234, False), (None, 1, False), (None, 2**22 + 1, True)]
)
def test_where_there_is_no_flock_the_holder_is_believed(
    host, pid, free, experiment_path, run_dir, monkeypatch
):
    def no_locks(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    from socket import gethostname

    monkeypatch.setattr(fcntl, "flock", no_locks)
    (run_dir / "lock").write_text(json.dumps({"host": host or gethostname(), "pid": pid}))
    if free:
        assert play(experiment_path, run_dir, "run.rounds=4", resume=True).done
    else:
        code, line = refused(experiment_path, run_dir)
        assert code == 2
        assert line.endswith(f"if that job is gone, remove {run_dir / 'lock'}")


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


DAMAGE = {
    "flipped": (lambda folder: flip(folder / "global.safetensors"), "global.safetensors: is damaged"),
    "private": (lambda folder: flip(folder / "rank_0.safetensors"), "rank_0.safetensors: is damaged"),
    "cut": (lambda folder: (folder / "rank_0.safetensors").write_bytes(b""), "has 0 bytes, expected "),
    "missing": (lambda folder: (folder / "rank_0.safetensors").unlink(), "cannot be read: No such file"),
    "manifest": (lambda folder: flip(folder / "manifest.json"), "manifest.json: is damaged"),
    "text": (lambda folder: (folder / "manifest.json").write_text("[" * 10**5), "manifest.json: is damaged"),
    "list": (lambda folder: (folder / "manifest.json").write_text("[]"), "manifest.json: is damaged"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(kind, experiment_path, reference, run_dir, request):
    damage, said = DAMAGE[kind]
    damage(run_dir / "checkpoints" / "round_000002")
    manifest, found = newest_whole(run_dir)
    assert manifest.round == 1
    assert len(found) == 1
    assert said in found[0]
    if kind == "flipped":
        assert play(experiment_path, run_dir, resume=True).done
        assert_same_run(run_dir, reference)
        assert found[0] in [event.text for event in read_run(run_dir).events]
    else:
        damage(run_dir / "checkpoints" / "round_000001")
        code, line = refused(experiment_path, run_dir)
        assert code == 3
        assert said in line
        assert line.endswith("; no other checkpoint is whole")


def test_a_checkpoint_that_cannot_be_opened_for_now_is_not_given_up(interrupted):
    with tempfile.TemporaryDirectory() as name:  # unlike tmp_path, it can be opened to others
        Path(name).chmod(0o755)
        run_dir = shutil.copytree(interrupted, Path(name) / "run")
        run_dir.chmod(0o755)
        for path in run_dir.rglob("*"):
            path.chmod(0o755)
        newest = list_checkpoints(run_dir)[-1]
        for path in (newest / "rank_0.safetensors", newest / "manifest.json"):
            path.chmod(0)
            with as_nobody(), pytest.raises(ConfigurationError, match=f"{path}: cannot be read: Permission"):
                newest_whole(run_dir)


def test_results_without_any_checkpoint_are_not_played_over(experiment_path, run_dir):
    shutil.rmtree(run_dir / "checkpoints")
    code, line = refused(experiment_path, run_dir)
    assert code == 3
    assert "has results up to round 2, but no checkpoint to continue from" in line


def test_too_few_clients_end_a_run(experiment_path, tmp_path):
    with pytest.raises(PhaseError, match=r"expected at least 3 \(reliability\.min_clients") as caught:
        play(experiment_path, tmp_path / "run", "reliability.min_clients=3")
    assert caught.value.exit_code == 4
    assert read_status(tmp_path / "run").state == "failed"


def test_the_run_directory_is_private(reference):
    assert reference.stat().st_mode & 0o777 == 0o700


def test_models_are_those_of_the_newest_checkpoint(run_dir, experiment_path):
    """What a kill between checkpoint and models/ leaves is put right."""
    newest = run_dir / "checkpoints" / "round_000002" / "global.safetensors"
    (run_dir / "models" / "global.safetensors").write_bytes(b"old")
    (run_dir / "models" / "group_1.safetensors").write_bytes(b"older")
    play(experiment_path, run_dir, observer=StopAfter(run_dir, 3), resume=True)
    newest = run_dir / "checkpoints" / "round_000003" / "global.safetensors"
    assert [path.name for path in (run_dir / "models").glob("*.safetensors")] == ["global.safetensors"]
    assert (run_dir / "models" / "global.safetensors").samefile(newest)
    assert np.all(read_run(run_dir).rounds == np.arange(4))
