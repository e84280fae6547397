"""``--verbose`` and ``--quiet`` of the commands of one process, and of a study's costs."""

import logging
import re

import pytest

from fedreid_mpi.cli import run
from support.small import write_experiment

TIMED = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The folder of VIPeR's synthetic stand-in."""
    folder = tmp_path_factory.mktemp("drawn") / "datasets"
    assert run(["synth", str(folder), "--only", "viper", "--jobs", "1", "--quiet"]) == 0
    return folder / "VIPeR"


@pytest.fixture
def called(capsys):
    """Calls a command; gives what it printed to standard output, and to the error stream."""

    def call(*words, code=0):
        capsys.readouterr()
        assert run([*map(str, words)]) == code
        assert logging.getLogger("fedreid_mpi").handlers == []
        assert logging.getLogger("fedreid_mpi").level == logging.NOTSET
        captured = capsys.readouterr()
        return captured.out.splitlines(), captured.err.splitlines()

    return call


def test_a_quiet_command_says_nothing_where_nothing_is_unusual(called, tmp_path, drawn):
    prepare = ("prepare", "--dataset", "viper", drawn, tmp_path / "viper.h5", "--size", "64x32")
    usual, _ = called(*prepare)
    assert usual[-1].startswith(f"{tmp_path / 'viper.h5'}: 200 images")
    assert called(*prepare, "--quiet") == ([], [])


def test_a_quiet_command_says_what_is_unusual(called, tmp_path, drawn):
    broken = tmp_path / "VIPeR"
    for image in drawn.rglob("*.bmp"):
        (copy := broken / image.relative_to(drawn)).parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(image.read_bytes())
    (first := min(broken.rglob("*.bmp"))).write_bytes(b"BM")
    options = ("--allow-subset", "--skip-broken", "--quiet")
    said, _ = called("prepare", "--dataset", "viper", broken, tmp_path / "viper.h5", *options)
    assert said[0] == f"viper: broken and left out: {first.relative_to(broken)}"
    assert all(line.startswith("viper: ") for line in said)


def test_a_verbose_command_says_how_long_each_step_took(called, tmp_path, drawn):
    said, _ = called("prepare", "--dataset", "viper", drawn, tmp_path / "viper.h5", "--verbose")
    steps = [line for line in said if TIMED.match(line)]
    assert re.fullmatch(TIMED.pattern + r"viper: \S+ listed: \d+\.\d\d s", steps[0])
    assert re.fullmatch(TIMED.pattern + r"viper: written: \d+\.\d\d s", steps[-2])


def test_both_are_refused(called, tmp_path):
    _, said = called("synth", tmp_path / "x", "--verbose", "--quiet", code=2)
    assert said == ["fedreid-mpi: error: --verbose and --quiet: expected one of them"]
    assert not (tmp_path / "x").exists()


def test_a_quiet_evaluation_prints_its_scores_alone(called, tmp_path, archives):
    experiment = write_experiment(tmp_path / "e.toml", archives[:2], run={"rounds": 1})
    called("train", experiment, "--run-dir", tmp_path / "run", "--quiet")
    words = ("evaluate", tmp_path / "run" / "models" / "global.safetensors", archives[0])
    usual, _ = called(*words, "-o", tmp_path / "scores.csv")
    quiet, _ = called(*words, "-o", tmp_path / "scores.csv", "--quiet")
    assert usual == [*quiet, f"scores: {tmp_path / 'scores.csv'}"]
    assert any("rank-1" in line for line in quiet)


def test_a_quiet_study_prints_no_costs(called, tmp_path, archives, capsys):
    write_experiment(tmp_path / "base.toml", archives[:2], run={"rounds": 1})
    suite = tmp_path / "suite.toml"
    suite.write_text('[study]\nname = "x"\nbase = "base.toml"\nseeds = [0]\n[methods.fedpav]\n')
    names, costs = called("study", suite, "--list")
    assert any("Images through the network" in line for line in costs)
    assert called("study", suite, "--list", "--quiet") == (names, [])
    with pytest.raises(SystemExit, match=r"^0$"):
        called("study", suite, tmp_path / "study", "--quiet")
    assert capsys.readouterr() == ("", "")
