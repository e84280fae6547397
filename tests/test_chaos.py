"""A small sample of each campaign; ``make chaos`` plays them in full."""

import chaos_kill
import pytest


@pytest.mark.timeout(600)
def test_a_job_killed_at_random_moments_goes_on(tmp_path):
    trials = list(chaos_kill.play(3, 1, tmp_path))
    assert [trial.broken for trial in trials] == ["", "", ""]
