from functools import partial

import pytest

from fedreid_mpi.algorithms.schedule import learning_rate

rate = partial(
    learning_rate, rounds=8, base=0.1, schedule="constant", warmup=0, step_every=3, step_factor=0.5
)


def rates(**options):
    return [rate(round, **options) for round in range(1, 9)]


def test_constant():
    assert rates() == [0.1] * 8


def test_step():
    assert rates(schedule="step") == pytest.approx([0.1] * 3 + [0.05] * 3 + [0.025] * 2)


def test_milestones():
    expected = [0.1] * 2 + [0.05] * 3 + [0.025] * 3
    assert rates(schedule="milestones", milestones=(2, 5)) == pytest.approx(expected)
    assert rates(schedule="milestones", milestones=(3, 6)) == rates(schedule="step")


def test_cosine():
    root = 2**-0.5
    assert rate(1, schedule="cosine") == 0.1
    assert rate(3, schedule="cosine") == pytest.approx(0.1 * (1 + root) / 2)
    assert rate(5, schedule="cosine") == pytest.approx(0.05)
    assert rate(7, schedule="cosine") == pytest.approx(0.1 * (1 - root) / 2)
    assert 0 < rate(8, schedule="cosine") < rate(7, schedule="cosine")


def test_warmup():
    assert rates(warmup=4) == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1, 0.1, 0.1])
    assert rates(warmup=4, schedule="step") == pytest.approx(
        [0.025, 0.05, 0.075, 0.05, 0.05, 0.05, 0.025, 0.025]
    )
    assert rates(warmup=1) == rates()


@pytest.mark.parametrize(
    ("round", "options", "message"),
    [
        (0, {}, "round 0, expected 1 to 8"),
        (9, {}, "round 9, expected 1 to 8"),
        (1, {"schedule": "linear"}, "schedule 'linear', expected constant, step, milestones or cosine"),
        (1, {"schedule": "step", "step_every": 0}, "a step every 0 rounds"),
    ],
)
def test_bad_input_is_named(round, options, message):
    with pytest.raises(ValueError, match=message):
        rate(round, **options)
