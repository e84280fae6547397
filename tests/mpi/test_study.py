import tomllib

import pytest

from fedreid_mpi.cli import run
from fedreid_mpi.comm import SingleCommunicator
from fedreid_mpi.config import load_experiment, load_suite
from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.results import read_run
from fedreid_mpi.run.checkpoint import folder_of
from fedreid_mpi.run.loop import run_federation
from fedreid_mpi.storage.run_directory import Status, read_status, write_status
from support.launching import ERROR, fedreid
from support.same_runs import assert_same_run
from support.small import Silent, write_experiment, write_suite


@pytest.fixture
def base(archives, tmp_path):
    return write_experiment(tmp_path / "base.toml", archives[:2], run={"rounds": 1})


METHODS = {"plain": {}, "alone": {"federation": {"mode": "local"}}}


def test_a_suite_is_every_method_with_every_seed(base, tmp_path):
    suite = load_suite(write_suite(tmp_path / "suite.toml", METHODS), ["run.rounds=7"])
    assert suite.name == "small"
    assert [run.name for run in suite.runs] == ["plain-seed4", "alone-seed4", "plain-seed1", "alone-seed1"]
    for resolved in suite.runs:
        settings = resolved.experiment
        assert (settings.run.name, settings.run.seed, settings.run.rounds) == (
            resolved.method,
            resolved.seed,
            7,
        )
        assert settings.federation.batch_size == 8  # the base's
        assert settings.federation.mode == ("local" if resolved.method == "alone" else "federated")


def test_labels_and_order_of_the_methods_go_into_the_runs(base, tmp_path):
    methods = {"plain": {}, "alone": {"label": "Each alone", "federation": {"mode": "local"}}}
    runs = load_suite(write_suite(tmp_path / "suite.toml", methods)).runs
    named = [(run.experiment.run.label, run.experiment.run.position) for run in runs]
    assert named == [("", 0), ("Each alone", 1)] * 2
    methods["plain"]["label"] = 3
    with pytest.raises(ConfigurationError, match=r"methods\.plain: run\.label is 3, expected "):
        load_suite(write_suite(tmp_path / "suite.toml", methods))


def test_the_suites_of_the_project_are_whole(pytestconfig):
    folder = pytestconfig.rootpath / "jobs" / "experiments"
    suites = [path for path in sorted(folder.glob("*.toml")) if "study" in tomllib.loads(path.read_text())]
    counts = {path.stem: len(load_suite(path).runs) for path in suites}
    assert counts == {
        "findings-bench": 60,
        "findings-demo": 20,
        "findings-pretrained": 24,
        "findings-shift": 15,
        "leave-one-out-study": 48,
        "paper-study": 60,
        "privacy-bench": 18,
    }


@pytest.mark.parametrize(
    ("methods", "options", "message"),
    [
        (
            {"a": {"run": {"round": 3}}},
            {},
            r"methods\.a: unknown key run\.round \(did you mean run\.rounds\?\)",
        ),
        ({"a": {"federation": {"batch_size": 1}}}, {}, r"methods\.a: federation\.batch_size is 1, expected "),
        ({"a": {"federation": 3}}, {}, r"methods\.a: federation is 3, expected "),
        ({"a": {"clustering": {"every": 2}}}, {}, r"methods\.a: clustering\.every has no effect when "),
        ({"a/b": {}}, {}, r"methods\.a/b"),
        ({}, {}, r"suite\.toml: methods has 0 entries, expected "),
        ({"a": {}}, {"seeds": (1, 1)}, r"study\.seeds names a seed twice: \[1, 1\]"),
        ({"a": {}}, {"seeds": ()}, r"study\.seeds has 0 entries, expected "),
        ({"a": {}}, {"base": "gone.toml"}, r"gone\.toml: cannot read the experiment: No such file"),
    ],
)
def test_mistakes_in_a_suite_are_named(base, tmp_path, methods, options, message):
    with pytest.raises(ConfigurationError, match=message):
        load_suite(write_suite(tmp_path / "suite.toml", methods, **options))


def test_a_study_goes_on_after_a_failure_and_skips_what_is_finished(base, tmp_path, capsys):
    (tmp_path / "empty.pth").touch()
    methods = {"broken": {"model": {"weights": "empty.pth"}}, **METHODS}
    suite = write_suite(tmp_path / "suite.toml", methods, seeds=(2,))
    ended = fedreid(3, "study", suite, tmp_path / "study", cwd=tmp_path)
    assert ended.code == 3, ended.stderr
    (line,) = ended.errors
    assert line.startswith(f"{ERROR} broken-seed2: ")
    assert f"{tmp_path}/empty.pth: " in line
    assert "[3/3] alone-seed2" in ended.stdout
    for name, sections in METHODS.items():
        path = write_experiment(
            tmp_path / f"{name}.toml",
            load_experiment(base).data.archives,
            **{**sections, "run": {"rounds": 1, "name": name, "seed": 2}},
        )
        run_federation(SingleCommunicator(), load_experiment(path), tmp_path / name, Silent())
        assert_same_run(tmp_path / "study" / f"{name}-seed2", tmp_path / name)

    finished = write_suite(tmp_path / "suite.toml", METHODS, seeds=(2,))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "study").rglob("*.h5")}
    with pytest.raises(SystemExit) as end:
        run(["study", str(finished), str(tmp_path / "study")])
    assert end.value.code == 0
    assert capsys.readouterr().out.count("finished before") == 2
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "study").rglob("*.h5")} == before

    with pytest.raises(SystemExit) as end:  # as in a resume, what no round depends on may change
        run(["study", str(finished), str(tmp_path / "study"), "--set", "checkpoint.keep=9"])
    assert end.value.code == 0
    assert capsys.readouterr().out.count("finished before") == 2

    for arguments, line in (
        (["--set", "federation.batch_size=9"], "other settings: federation.batch_size is 9, expected 8"),
        (["--member", "2"], "--member 2: "),
    ):
        with pytest.raises(SystemExit) as end:
            run(["study", str(finished), str(tmp_path / "study"), *arguments])
        assert end.value.code == 2
        assert line in capsys.readouterr().err

    with pytest.raises(SystemExit) as end:
        run(["study", str(finished), str(tmp_path / "study"), "--set", "run.rounds=2"])
    assert end.value.code == 0
    assert read_run(tmp_path / "study" / "plain-seed2").rounds.tolist() == [0, 1, 2]


def test_a_study_checks_all_files_before_its_first_run(base, tmp_path, capsys):
    public = {"data": {"public": "cuhk02.h5"}, "clustering": {"enabled": True}}
    unseen = {"data": {"unseen": ["grid.h5"]}}
    suite = write_suite(tmp_path / "suite.toml", {"plain": {}, "cc": public, "far": unseen}, seeds=(1,))
    study = tmp_path / "study"

    def ends(*arguments):
        with pytest.raises(SystemExit) as end:
            run(["study", str(suite), str(study), *arguments])
        told = capsys.readouterr()
        return end.value.code, told.out, told.err

    code, said, told = ends()
    missing = (f"{tmp_path}/cuhk02.h5: no such file", f"{tmp_path}/grid.h5: no such file")
    assert code == 3
    assert told.splitlines()[-1] == f"{ERROR} {'; '.join(missing)}"
    assert "  fedreid-mpi prepare --dataset cuhk02 DATASETS/CUHK02/Dataset " in said
    assert not study.exists()

    size = {"federation": {"clients_per_round": 9}}  # of two clients: only the archives tell
    suite = write_suite(tmp_path / "suite.toml", {"plain": {}, "many": size}, seeds=(1,))
    code, _, told = ends()
    assert code == 2
    assert told.splitlines()[-1].startswith(
        f"{ERROR} many: federation.clients_per_round is 9, expected at most"
    )
    assert not study.exists()

    assert ends("--member", "0")[0] == 0
    assert read_status(study / "plain-seed1").state == "done"


def test_a_study_asks_the_newest_whole_checkpoint_what_is_finished(base, tmp_path, capsys):
    """As a kill leaves a run: between its last record and the checkpoint, and between that and its models."""
    suite = write_suite(tmp_path / "suite.toml", {"plain": {}}, seeds=(1,))
    study, model = tmp_path / "study", "models/global.safetensors"
    run_dir = study / "plain-seed1"

    def play():
        with pytest.raises(SystemExit) as end:
            run(["study", str(suite), str(study)])
        assert end.value.code == 0
        assert read_status(run_dir).state == "done"
        assert (run_dir / model).read_bytes() == last
        return "finished before" in capsys.readouterr().out

    with pytest.raises(SystemExit):
        run(["study", str(suite), str(study)])
    last = (run_dir / model).read_bytes()
    earlier = (folder_of(run_dir, 0) / "global.safetensors").read_bytes()

    def leave_as_killed():
        write_status(run_dir, Status("running", 0, 1, 1))
        (run_dir / model).unlink()
        (run_dir / model).write_bytes(earlier)

    leave_as_killed()
    assert play()  # the checkpoint is whole: models and status follow
    (folder_of(run_dir, 1) / "manifest.json").unlink()
    leave_as_killed()
    assert not play()  # the round is played again
    assert read_run(run_dir).rounds.tolist() == [0, 1]


def test_the_runs_of_a_study_are_listed_for_a_job_array(base, tmp_path, capsys):
    suite = write_suite(tmp_path / "suite.toml", METHODS)
    assert run(["study", str(suite), "--list"]) == 0
    assert capsys.readouterr().out.split() == ["plain-seed4", "alone-seed4", "plain-seed1", "alone-seed1"]
    assert run(["study", str(suite)]) == 2
    assert "Missing argument 'FOLDER'" in capsys.readouterr().err
