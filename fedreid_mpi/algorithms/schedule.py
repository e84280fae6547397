"""The learning rate as a function of the round, and of nothing else: resumed runs need no state."""

import math
from collections.abc import Sequence

from fedreid_mpi.records import Schedule


def learning_rate(
    round: int,
    rounds: int,
    base: float,
    schedule: Schedule,
    warmup: int,
    step_every: int,
    step_factor: float,
    milestones: Sequence[int] = (),
) -> float:
    """Return the learning rate of a round.

    Parameters
    ----------
    round
        Number of the round, from 1.
    rounds
        Number of rounds of the run.
    base
        Learning rate before any decay.
    schedule
        ``"constant"``; ``"step"``: multiplied by `step_factor` after every `step_every` rounds;
        ``"milestones"``: multiplied by it after each of the rounds in `milestones`; ``"cosine"``: half a
        cosine wave from `base` in round 1 to 0 after the last round, so that the last round still learns
        (Loshchilov and Hutter, "SGDR", ICLR 2017, equation 5, without restarts).
    warmup
        The first rounds, whose rates are multiplied by ``round / warmup``; 0 for none.
    step_every
        Of the ``"step"`` schedule.
    step_factor
        Of the ``"step"`` and the ``"milestones"`` schedule.
    milestones
        Of the ``"milestones"`` schedule: numbers of rounds.

    Returns
    -------
    float
        The learning rate.

    Raises
    ------
    ValueError
        If the round is not one of the run's, the schedule is unknown or `step_every` is below 1.
    """
    if not 1 <= round <= rounds:
        raise ValueError(f"round {round}, expected 1 to {rounds}")
    done = round - 1
    if schedule == "constant":
        decay = 1.0
    elif schedule == "step":
        if step_every < 1:
            raise ValueError(f"a step every {step_every} rounds, expected at least 1")
        decay = step_factor ** (done // step_every)
    elif schedule == "milestones":
        decay = step_factor ** sum(done >= milestone for milestone in milestones)
    elif schedule == "cosine":
        decay = (1 + math.cos(math.pi * done / rounds)) / 2
    else:
        raise ValueError(f"schedule {schedule!r}, expected constant, step, milestones or cosine")
    return base * decay * min(1.0, round / warmup if warmup else 1.0)
