"""Ranks that see other programs, folders or archives than the server are named, with their host."""

import json
import os
import re

import pytest

from fedreid_mpi.storage.run_directory import read_status
from support.launching import ERROR, launch_program
from support.on_ranks.mpi_consistency import DIFFERENCES
from support.small import write_experiment, write_public, write_site

RANKS = 3


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """The folder of all refused runs, and exit code and words of every rank in each."""
    folder = tmp_path_factory.mktemp("agreement")
    for number, name in enumerate(("here", "there")):
        (folder / name).mkdir()
        write_site(folder / name / "site.h5", images=10, seed=number)
        write_public(folder / name / "public.h5", seed=number)
    write_experiment(folder / "here.toml", [folder / "here" / "site.h5"])
    launched = launch_program(RANKS, "mpi_consistency.py", folder, cwd=folder)
    assert launched.code == 0, launched.stderr
    return folder, json.loads((folder / "said.json").read_text())


@pytest.mark.parametrize("name", DIFFERENCES)
def test_what_a_rank_sees_otherwise_is_told_once(name, ended):
    if name == "run-dir-private" and os.geteuid():
        pytest.skip("only root can become another user")
    (folder, outcomes), case = ended, DIFFERENCES[name]
    assert [code for code, _ in outcomes[name]] == [case.code] * RANKS
    lines = [line for _, heard in outcomes[name] for line in heard.splitlines() if line.startswith(ERROR)]
    assert len(lines) == 1
    assert re.match(f"{ERROR} {case.said}", lines[0]), lines[0]
    assert not any("Traceback" in heard for _, heard in outcomes[name])
    for run_dir in (folder / name, folder / "here" / name, folder / "there" / name):
        left = {path.name for path in run_dir.rglob("*") if path.is_file()}
        assert left in (set(), {"lock", "status.json"})
        assert not left or read_status(run_dir).state == "failed"
