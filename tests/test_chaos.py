"""A small sample of each campaign; ``make chaos`` plays them in full."""

import chaos_kill
import chaos_ranks
import chaos_study
import pytest


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
