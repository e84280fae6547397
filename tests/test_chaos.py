"""A small sample of each campaign; ``make chaos`` plays them in full."""

import chaos_kill
import chaos_ranks
import pytest


@pytest.mark.timeout(600)
def test_a_job_killed_at_random_moments_goes_on(tmp_path):
    trials = list(chaos_kill.play(3, 1, tmp_path))
    assert [trial.broken for trial in trials] == ["", "", ""]


@pytest.mark.timeout(600)
def test_a_run_goes_on_without_ranks_killed_at_random_moments(tmp_path):
    trials = list(chaos_ranks.play(3, 1, tmp_path))
    assert len(trials) == 3
    assert {trial.broken for trial in trials} == {""}
