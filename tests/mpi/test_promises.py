"""What ranks owe each other beside messages, and orders that must not be lost."""

import subprocess
import sys

from support.launching import PROGRAMS, launch, surviving

ORDERS = """
import mpi4py
from mpi4py import MPI
from fedreid_mpi.comm.mpi.heartbeat import HeartbeatMonitor
monitor = HeartbeatMonitor(MPI.COMM_SELF)
for rank in (5, 3):
    monitor.give([0], to_kill=rank)
monitor.tend()
assert monitor.to_kill == {3, 5}, monitor.to_kill
"""


EAGER = """
import sys
from mpi4py import MPI
from fedreid_mpi.cli import run
sys.exit(run(["train", "x.toml", "--run-dir", "run", "--on-rank-loss", "replace"]))
"""


def test_long_messages_long_errors_waits_and_wishes(tmp_path):
    ended = launch(
        4,
        sys.executable,
        PROGRAMS / "mpi_promises.py",
        tmp_path,
        cwd=tmp_path,
        launcher=surviving(),
        timeout=120,
    )
    assert ended.stdout.splitlines() == ["all kept"], ended.stderr
    assert ended.code == 0


def test_who_would_wait_for_lost_ranks_at_the_end_is_refused(tmp_path):
    """mpi4py by itself has MPI finished as the process ends, which waits for the dead forever."""
    ended = launch(2, sys.executable, "-c", EAGER, cwd=tmp_path, launcher=surviving(), timeout=60)
    assert ended.code == 2
    (line,) = ended.errors
    assert "mpi4py was imported first" in line
    assert not (tmp_path / "run").exists()


def test_each_order_to_kill_is_obeyed(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", ORDERS], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
