"""Bad input ends with one line that names what is wrong, the right exit code, and nothing half-written."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fedreid_mpi.cli import run
from fedreid_mpi.results import read_run
from fedreid_mpi.storage.run_directory import read_status
from support.bad_inputs import TABLE, stock
from support.launching import ERROR
from support.small import write_experiment, write_site

TOO_FEW_CLIENTS = 4
SAID = (Path("out/lock"), Path("out/status.json"))


@pytest.fixture(scope="module")
def stocked(tmp_path_factory):
    return stock(tmp_path_factory.mktemp("bad") / "stock")


def call(arguments, environment, capsys):
    """Run the command line here, or in a process of its own; return exit code and what it printed."""
    if environment:
        command = [sys.executable, "-m", "fedreid_mpi", *arguments]
        ended = subprocess.run(
            command, env=os.environ | environment, capture_output=True, text=True, timeout=120, check=False
        )
        return ended.returncode, ended.stdout, ended.stderr
    capsys.readouterr()
    try:
        code = run(list(arguments))
    except SystemExit as end:
        code = end.code
    return code, *capsys.readouterr()


def files_in(folder):
    """Digest every file, but for those in which a run directory says that nothing came of it."""
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).digest()
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder) not in SAID
    }


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_the_line_the_code_and_nothing_left(name, stocked, tmp_path, monkeypatch, capsys):
    if name.endswith("no-gpu") and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    case, folder = TABLE[name], tmp_path / "here"
    shutil.copytree(stocked, folder)
    monkeypatch.chdir(folder)
    write_experiment(folder / "bad.toml", case.archives, **case.sections)
    if case.toml is not None:
        (folder / "bad.toml").write_bytes(case.toml)
    case.spoil(folder)
    before = files_in(folder)
    arguments = case.command or ("train", "bad.toml", "--run-dir", "out", *case.arguments)
    code, out, err = call(arguments, case.environment, capsys)
    assert code == case.code, err
    lines = [line for line in err.splitlines() if line.startswith(ERROR)]
    assert len(lines) == 1, err
    assert re.search(case.said, lines[0]), lines[0]
    assert len(lines[0]) < 1000
    assert "Traceback" not in out + err
    assert files_in(folder) == before
    assert not (folder / "out" / "status.json").exists() or read_status(folder / "out").state == "failed"
    assert not (folder / "executed").exists()


def test_the_table_is_as_long_as_was_promised():
    assert len(TABLE) >= 60


def test_training_that_diverges_everywhere(tmp_path, capsys):
    site = write_site(tmp_path / "site.h5", images=10)
    path = write_experiment(tmp_path / "bad.toml", [site], optimizer={"lr": 1e30})
    code, _, err = call(["train", str(path), "--run-dir", str(tmp_path / "run")], {}, capsys)
    assert code == TOO_FEW_CLIENTS
    lines = err.splitlines()
    assert [line for line in lines if line.startswith(ERROR)] == [lines[-1]]
    assert "of none of 1 client are finite" in lines[-1]
    assert read_run(tmp_path / "run").rounds.tolist() == [0]  # the last commit stands


def test_help_needs_neither_torch_nor_mpi(tmp_path):
    code = (
        "import sys\nfrom fedreid_mpi.cli import run\nrun(['train', '--help'])\n"
        "sys.exit(bool({'torch', 'mpi4py', 'h5py'} & set(sys.modules)))\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
