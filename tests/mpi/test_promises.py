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


def test_each_order_to_kill_is_obeyed(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", ORDERS], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
