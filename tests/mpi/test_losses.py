"""Ranks that die, hang or leave: the others go on without them, or all end; they never wait for ever."""

import re
import sys

import pytest

from support.launching import PROGRAMS, TESTS, launch, mpich, mpirun, surviving
from support.on_ranks.mpi_losses import doomed

pytestmark = pytest.mark.timeout(600)


def play(ranks, *arguments, launcher=None):
    return launch(
        ranks,
        sys.executable,
        PROGRAMS / "mpi_losses.py",
        *arguments,
        cwd=TESTS,
        launcher=launcher or mpirun(),
        timeout=300,
    )


def test_ranks_lost_in_each_call_are_left_behind():
    faults = {
        "broadcast": "kill",
        "gather": "stop",
        "broadcast_rows": "vanish",
        "gather_rows": "kill",
        "reduce_sum": "stop",
        "phase": "sleep",
        "decide": "kill",
        "shrink": "kill",
    }
    pairs = [f"{name}={fault}" for name, fault in faults.items()]
    ended = play(11, "survive", *pairs, launcher=surviving())  # nine victims, the server thrice among them
    survived = [line for line in ended.stdout.splitlines() if line.startswith("survived")]
    assert survived == [f"survived {fault} {name}" for name, fault in faults.items()], ended.stderr
    assert (ended.code, ended.errors) == (0, [])


def test_ranks_lost_at_random_moments_are_left_behind():
    ended = play(6, "random", "0", launcher=surviving())
    hows = sorted(how for _, how in doomed(6, 0).values())
    assert f"survived {len(hows)} {' '.join(hows)}" in ended.stdout.splitlines(), ended.stderr
    assert (ended.code, ended.errors) == (0, [])


SAID = {
    "raise": r"rank (\d), (between phases|work): RuntimeError: boom",
    "exit": r"rank (\d), (between phases|work): SystemExit: 0",
    "sleep": r"rank (\d) on \S+: no heartbeat for 2 s \(reliability.rank_timeout\) while others wait",
}


@pytest.mark.parametrize("fault", SAID)
@pytest.mark.parametrize(
    "call", ["broadcast", "gather", "broadcast_rows", "gather_rows", "reduce_sum", "phase", "decide"]
)
def test_without_fault_tolerance_whatever_a_rank_does_ends_all(call, fault):
    """It is a client, of three ranks, or the server, of two."""
    ranks = 2 + (len(call) + len(fault)) % 2
    ended = play(ranks, "end", call, fault)
    assert ended.code != 0
    (error,) = ended.errors
    found = re.search(SAID[fault], error)
    assert found, error
    assert int(found[1]) == ranks - 2


@pytest.mark.parametrize(
    ("call", "fault", "said"),
    [
        ("phase", "stop", "no heartbeat for 2 s (reliability.rank_timeout) while others waited (work)"),
        ("decide", "vanish", None),
        ("reduce_sum", "kill", None),
        ("gather", "send-paths", "rank 1, between phases: ForbiddenMessageError: tried to send pathlib."),
    ],
)
def test_without_fault_tolerance_a_rank_that_fails_ends_all(call, fault, said):
    ended = play(3, "end", call, fault)
    assert ended.code != 0
    assert len(ended.errors) == (said is not None), ended.stderr
    assert said is None or said in ended.errors[0]


@pytest.mark.parametrize(("call", "fault"), [("phase", "raise"), ("gather", "exit")])
def test_with_fault_tolerance_an_error_ends_all_the_same(call, fault):
    ended = play(3, "end", call, fault, "survive", launcher=surviving())
    assert ended.code == 1
    assert len(ended.errors) == 1, ended.stderr


@pytest.mark.parametrize("launched", ["plain", "mpich", "surviving"])
def test_launch_and_command_line_must_agree_on_losses(launched):
    launcher = {"plain": mpirun, "mpich": mpich, "surviving": surviving}[launched]()
    asked = "survive" if launched != "surviving" else "not"
    ended = launch(
        2,
        sys.executable,
        "-c",
        "import sys\n"
        "from fedreid_mpi.comm import connect\n"
        "from fedreid_mpi.errors import ConfigurationError\n"
        "try: connect(sys.argv[1] == 'survive')\n"
        "except ConfigurationError as error: print('refused:', error)",
        asked,
        cwd=TESTS,
        launcher=launcher,
    )
    lines = ended.stdout.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("refused:") and "mpirun --with-ft ulfm" in line for line in lines)
    assert ended.code == 0


def test_a_rank_that_dies_before_it_joins_leaves_nobody_waiting():
    ended = launch(
        3,
        sys.executable,
        "-c",
        "import os\n"
        "from fedreid_mpi import comm\n"
        "comm.START_LIMIT = 10.0\n"
        "if os.environ['OMPI_COMM_WORLD_RANK'] == '2': os.kill(os.getpid(), 9)\n"
        "comm.connect(fault_tolerant=True)",
        cwd=TESTS,
        launcher=surviving(),
    )
    assert ended.code == 1
