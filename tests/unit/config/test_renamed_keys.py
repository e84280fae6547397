"""Keys of earlier versions: refused with their new names, and read as ever in stored runs and studies."""

import json

import pytest

from fedreid_mpi.cli import run as fedreid
from fedreid_mpi.comm import SingleCommunicator
from fedreid_mpi.comm.errors import PhaseError
from fedreid_mpi.config import load_experiment
from fedreid_mpi.config.renamed import settings_of
from fedreid_mpi.errors import ConfigurationError, DataError
from fedreid_mpi.report.loading import load_study
from fedreid_mpi.results import read_run
from fedreid_mpi.run.checkpoint import _digest, folder_of
from fedreid_mpi.run.loop import run_federation
from fedreid_mpi.run.resume import conclude
from support import runs
from support.small import Silent, StopAfter, write_experiment

BEFORE = "[optimizer]\nlr = 0.05\nlabel_smoothing = {}\n[federation]\nmode = 'federated'\n"
NOW = "[optimizer]\nlr = 0.05\n[objective]\nlabel_smoothing = {}\n[federation]\nmode = 'federated'\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One method of three seeds, two of them run by an earlier version, and one by that version alone."""
    folder = tmp_path_factory.mktemp("runs")
    for seed, form in enumerate((BEFORE, BEFORE, NOW)):
        last = (0.5 + seed / 100, 0.3)
        runs.write_run(folder / f"smooth-{seed}", last, name="smooth", seed=seed, more=form.format(0.1))
    runs.write_run(folder / "plain-0", name="plain", more=BEFORE.format(0.0))
    return folder


def test_a_renamed_key_is_refused_with_its_new_name(tmp_path):
    path = write_experiment(tmp_path / "x.toml", [tmp_path / "a.h5"], optimizer={"label_smoothing": 0.1})
    with pytest.raises(ConfigurationError) as caught:
        load_experiment(path)
    assert str(caught.value) == f"{path}: optimizer.label_smoothing is now called objective.label_smoothing"


def test_stored_settings_go_by_the_names_of_today():
    assert settings_of(BEFORE.format(0.1)) == settings_of(NOW.format(0.1))


def test_runs_of_both_versions_are_one_method(folder):
    study = load_study([folder])
    assert sorted(str(method) for method in study.methods) == ["plain × 1", "smooth × 3"]
    assert study.warnings == ()
    ((one, other),) = study.families("objective.label_smoothing")
    assert {one.name, other.name} == {"plain", "smooth"}


def test_old_runs_are_shown_selected_collected_and_reported(folder, tmp_path, capsys):
    assert fedreid(["results", "show", str(folder / "smooth-0")]) == 0
    capsys.readouterr()
    assert fedreid(["results", "list", str(folder), "--where", "objective.label_smoothing=0.1"]) == 0
    assert "3 runs" in capsys.readouterr().out
    assert fedreid(["results", "list", str(folder), "--where", "optimizer.label_smoothing=0.1"]) == 2
    assert "is now called objective.label_smoothing" in capsys.readouterr().err
    assert fedreid(["results", "collect", str(folder), "-o", str(tmp_path / "study.h5")]) == 0
    capsys.readouterr()
    assert fedreid(["results", "compare", str(tmp_path / "study.h5")]) == 0
    output = capsys.readouterr().out
    assert "objective.label_smoothing = 0.1" in output
    assert "optimizer.label_smoothing" not in output
    assert fedreid(["results", "report", str(tmp_path / "study.h5"), "-o", str(tmp_path / "report")]) == 0


def test_a_run_of_before_is_not_gone_on_with(archives, tmp_path):
    path, run_dir = write_experiment(tmp_path / "x.toml", archives[:1]), tmp_path / "run"
    experiment = load_experiment(path)
    run_federation(SingleCommunicator(), experiment, run_dir, StopAfter(run_dir, 1))
    manifest = folder_of(run_dir, 1) / "manifest.json"
    content = json.loads(manifest.read_text())
    del content["digest"]
    settings = content["configuration"]
    settings["optimizer"]["label_smoothing"] = settings["objective"].pop("label_smoothing")
    manifest.write_text(json.dumps(content | {"digest": _digest(content)}))
    said = "optimizer.label_smoothing is now called objective.label_smoothing"
    with pytest.raises(PhaseError, match=said) as caught:
        run_federation(SingleCommunicator(), experiment, run_dir, Silent(), resume=True)
    assert caught.value.exit_code == DataError.exit_code
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(DataError, match=said):  # as a study asks
        conclude(run_dir, experiment)
    assert read_run(run_dir).rounds.tolist() == [0, 1]
