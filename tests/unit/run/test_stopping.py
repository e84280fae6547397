"""When a run is ended early, and why; runs that are stopped are in ``tests/mpi/test_stopping.py``."""

import os
import signal
import time

import pytest

from fedreid_mpi.errors import Abandoned, ConfigurationError
from fedreid_mpi.run.stopping import (
    AFTER_ROUND,
    AT_ONCE,
    GO_ON,
    StopController,
    StopRequest,
    heartbeat_or_abandon,
    parse_duration,
    seconds_left_of_job,
    strongest,
)


def signalled(*numbers):
    """What a process asks for after some signals, and what it has said of them."""
    said, stop = [], StopController()
    with stop.listening(said.append):
        for number in numbers:
            os.kill(os.getpid(), number)
    return stop, said


@pytest.mark.parametrize(
    ("numbers", "level", "reason"),
    [
        ((), GO_ON, ""),
        ((signal.SIGUSR2,), AFTER_ROUND, "signal SIGUSR2"),
        ((signal.SIGTERM,), AT_ONCE, "signal SIGTERM"),
        ((signal.SIGINT,), AFTER_ROUND, "signal SIGINT"),
        ((signal.SIGINT, signal.SIGINT), AT_ONCE, "signal SIGINT"),
        ((signal.SIGUSR2, signal.SIGINT), AFTER_ROUND, "signal SIGUSR2"),
        ((signal.SIGUSR2, signal.SIGTERM), AT_ONCE, "signal SIGTERM"),
        ((signal.SIGTERM, signal.SIGUSR2), AT_ONCE, "signal SIGTERM"),
    ],
)
def test_the_strongest_signal_counts_and_of_equal_ones_the_first(numbers, level, reason):
    stop, _ = signalled(*numbers)
    assert stop.request == StopRequest(level, reason)
    assert stop.abandon_requested is (level == AT_ONCE)


def test_an_interrupt_says_what_the_next_one_will_do():
    _, said = signalled(signal.SIGUSR2, signal.SIGINT, signal.SIGINT)
    assert said == [
        "interrupt: finishing the round; once more to abandon it",
        "interrupt: abandoning the round; once more to end at once",
    ]


def test_a_third_interrupt_is_an_ordinary_one_and_handlers_come_back():
    numbers = (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    with pytest.raises(KeyboardInterrupt):
        signalled(signal.SIGINT, signal.SIGINT, signal.SIGINT)
    assert [signal.getsignal(number) for number in numbers] == before


def test_nobody_need_be_told_of_an_interrupt():
    stop = StopController()
    with stop.listening():
        os.kill(os.getpid(), signal.SIGINT)
    assert stop.request.level == AFTER_ROUND


@pytest.mark.parametrize("ignored", [False, True])
def test_a_hangup_is_heeded_unless_it_is_ignored(heeded, ignored):
    if ignored:  # as by nohup
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = StopController()
    with stop.listening():
        os.kill(os.getpid(), signal.SIGHUP)
    assert stop.abandon_requested is not ignored
    assert signal.getsignal(signal.SIGHUP) is (signal.SIG_IGN if ignored else signal.SIG_DFL)


def test_a_margin_is_left_before_the_time_limit():
    """A tenth of it, 30 s at most."""
    assert StopController().seconds_left() is None
    assert StopController(1000.0).seconds_left() == pytest.approx(970, abs=1)
    assert StopController(200.0).seconds_left() == pytest.approx(180, abs=1)


def test_a_round_that_would_not_fit_is_not_begun(tmp_path):
    """It may take a quarter longer than the longest of the last ones."""

    def reason(stop, *lengths):
        return stop.reason_to_stop(tmp_path, [StopRequest()], lengths)

    stop = StopController(1000.0)
    assert reason(stop) == reason(stop, 700.0) == reason(stop, 770.0, 5.0) == ""
    assert reason(stop, 5.0, 800.0) == "time limit: 970 s left, a round may take 1000 s"
    assert reason(StopController(), 1e9) == ""
    assert reason(StopController(-1.0)) == "time limit: 0 s left, a round may take 0 s"
    assert reason(StopController(-1.0), 8.0) == "time limit: 0 s left, a round may take 10 s"


def test_a_wish_comes_before_the_file_and_the_file_before_the_time_limit(tmp_path):
    stop = StopController(-1.0)
    (tmp_path / "STOP").touch()
    assert stop.reason_to_stop(tmp_path, [StopRequest(AFTER_ROUND, "a")], [1.0]) == "a"
    assert stop.reason_to_stop(tmp_path, [StopRequest()], [1.0]) == "the file STOP"


def test_a_round_that_takes_too_long_is_abandoned():
    stop = StopController(1000.0)
    stop.begin_round(100.0)
    assert stop.request == StopRequest()
    stop.begin_round(-1.0)
    assert stop.request == StopRequest(AT_ONCE, "time limit: the round took too long")
    assert stop.abandon_requested
    stop.begin_round(None)
    assert not stop.abandon_requested


def test_the_time_limit_does_not_hide_a_signal():
    stop, _ = signalled(signal.SIGTERM)
    stop.begin_round(-1.0)
    assert stop.request.reason == "signal SIGTERM"
    stop, _ = signalled(signal.SIGUSR2)
    stop.begin_round(-1.0)
    assert stop.request.reason == "time limit: the round took too long"


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("heard", [False, True])
def test_a_round_is_abandoned_at_the_wish_of_this_rank_or_another(asked, heard):
    stop = StopController()
    if asked:
        stop.begin_round(-1.0)
    if asked or heard:
        with pytest.raises(Abandoned):
            heartbeat_or_abandon(lambda: heard, stop)
    else:
        heartbeat_or_abandon(lambda: heard, stop)


def test_the_strongest_request_of_the_lowest_rank_counts():
    assert strongest([StopRequest()]) == ""
    assert strongest([StopRequest(AFTER_ROUND, "a")]) == "a"
    assert strongest([StopRequest(), StopRequest(AFTER_ROUND, "a")]) == "a (rank 1)"
    assert (
        strongest(
            [
                StopRequest(),
                StopRequest(AFTER_ROUND, "a"),
                StopRequest(AT_ONCE, "b"),
                StopRequest(AT_ONCE, "c"),
            ]
        )
        == "b (rank 2)"
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        (" 90 ", 90),
        ("2h30m", 9000),
        ("1d", 86400),
        ("45s", 45),
        ("02:30:10", 9010),
        ("1-00:00:01", 86401),
    ],
)
def test_time_limits_are_read(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "2h30", "1:30", "-5", "soon", "1.5h", "2m1h"])
def test_bad_time_limits_are_refused(text):
    with pytest.raises(ConfigurationError, match=r"^--time-limit .*expected seconds, or a time like"):
        parse_duration(text)


def test_slurm_tells_the_end_of_the_job():
    assert seconds_left_of_job({}) is None
    assert seconds_left_of_job({"SLURM_JOB_END_TIME": "Unknown"}) is None
    end = str(int(time.time()) + 600)
    assert 590 < seconds_left_of_job({"SLURM_JOB_END_TIME": end}) <= 600
    assert seconds_left_of_job({"SLURM_JOB_END_TIME": "1"}) == 1.0  # over: nearly no time, not none set
