"""A small sample of each campaign; ``make chaos`` plays them in full."""

import subprocess
import sys

import pytest

from campaigns import chaos, chaos_kill, chaos_ranks, chaos_study


def test_a_victim_that_has_gone_is_no_error():
    living = subprocess.Popen(["sleep", "60"])
    assert chaos_ranks.strike(living.pid)
    assert living.wait(10) == -9
    assert not chaos_ranks.strike(living.pid)


def test_what_campaigns_found_is_not_lost_where_one_ends_in_an_error(tmp_path, capsys, monkeypatch):
    (tmp_path / "chaos_made_up.py").write_text(
        "from campaigns.chaos import Trial\n"
        "def play(count, seed, folder):\n"
        "    yield Trial('first')\n"
        "    yield Trial('second', 'this broke')\n"
        "    if count == 3: raise KeyError(2)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(chaos, "CAMPAIGNS", {"bad": ("chaos_made_up", 3), "good": ("chaos_made_up", 2)})
    monkeypatch.setattr(sys, "argv", ["chaos.py"])
    assert chaos.main() == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:6] == [
        "bad 1/3: first: promises kept",
        "bad 2/3: second: this broke",
        "bad: promises kept in 1 of 2",
        "good 1/2: first: promises kept",
        "good 2/2: second: this broke",
        "good: promises kept in 1 of 2",
    ]
    assert "bad: the campaign did not come to its end: KeyError(2)" in lines


@pytest.mark.timeout(600)
def test_a_job_killed_at_random_moments_goes_on(tmp_path):
    trials = list(chaos_kill.play(3, 1, tmp_path))
    assert [trial.broken for trial in trials] == ["", "", ""]


@pytest.mark.timeout(600)
def test_a_study_killed_within_its_last_commits_goes_on(tmp_path):
    trials = list(chaos_study.play(6, 1, tmp_path))
    assert {trial.broken for trial in trials} == {""}, trials


@pytest.mark.timeout(600)
def test_a_run_goes_on_without_ranks_killed_at_random_moments(tmp_path):
    trials = list(chaos_ranks.play(3, 1, tmp_path))
    assert len(trials) == 3
    assert {trial.broken for trial in trials} == {""}
