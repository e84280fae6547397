"""A private SLURM for the tests: real daemons on this machine, in a folder and on ports of their own.

The cluster has two nodes, n1 and n2, which are two slurmd on this host, each with 8 declared CPUs and 4 GPUs
(device files of terminals; SLURM only counts them). Partition ``work`` is the default; a job in ``urgent``
preempts jobs in ``work``, which are requeued.

SLURM lets a requeued job begin two minutes later, and has no setting for it: `Cluster.release` lets it begin
in a second. Time limits are looked at every 30 seconds or so and counted in whole minutes.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.launching import ENVIRONMENT

MUNGE_SOCKET = "munge.socket"
NODES = ("n1", "n2")
CPUS, GPUS = 8, 4
"""Of each node; more CPUs than the machine has cores, so that jobs of several ranks fit."""

ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY"})

CONFIGURATION = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/{munge}
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MinJobAge=3600
ReturnToService=2
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName={nodes} NodeHostname={host} NodeAddr=127.0.0.1 Port=[{ports[1]},{ports[2]}] CPUs={cpus} \
RealMemory=8000 Gres=gpu:{gpus} State=UNKNOWN
PartitionName=work Nodes=ALL Default=YES PriorityTier=1 MaxTime=60 DefaultTime=10
PartitionName=urgent Nodes=ALL PriorityTier=2 PreemptMode=OFF MaxTime=60 DefaultTime=10
"""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running SLURM, spoken to through its own commands.

    Attributes
    ----------
    folder
        Configuration, state and logs of the daemons.
    environment
        In which SLURM's commands, and this package's, find the cluster and this environment's MPI.
    """

    folder: Path
    environment: Mapping[str, str]

    def command(self, *words: str | Path, cwd: Path | None = None, timeout: float = 60) -> str:
        """Run a command against the cluster and return what it printed; fail the test if it fails."""
        ended = subprocess.run(
            list(map(str, words)),
            cwd=cwd,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert ended.returncode == 0, f"{words}: exit code {ended.returncode}\n{ended.stdout}{ended.stderr}"
        return ended.stdout

    def sbatch(self, script: str | Path, *options: str, cwd: Path) -> str:
        """Submit a script, given as a file or as its lines, from a folder; return the job's number."""
        if isinstance(script, str):
            path = cwd / f"job{len(list(cwd.glob('job*.sbatch')))}.sbatch"
            path.write_text(f"#!/bin/bash\n{script}\n", encoding="utf-8")
        else:
            path = script
        return self.command("sbatch", "--parsable", *options, path, cwd=cwd).strip().partition(";")[0]

    def show(self, job: str) -> dict[str, str]:
        """Return what the controller knows of a job, by the keys of ``scontrol show job``."""
        text = self.command("scontrol", "show", "job", "--oneliner", job)
        return dict(re.findall(r"(\S+?)=(.*?)(?= \S+?=|\s*$)", text))

    def wait(self, job: str, *states: str, timeout: float = 120) -> dict[str, str]:
        """Wait until a job is in one of some states, by default until it has ended, and show it then."""
        wanted, shown = frozenset(states) or ENDED, {}

        def arrived() -> bool:
            shown.update(self.show(job))
            return shown["JobState"] in wanted

        if not _until(arrived, timeout):
            pytest.fail(
                f"job {job} is not in {sorted(wanted)} after {timeout} s: {shown}\n{self.output(job)}"
            )
        return shown

    def output(self, job: str) -> str:
        """Return what a batch job has written so far, both streams if they share a file."""
        path = Path(self.show(job).get("StdOut", "/dev/null"))
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def wait_for_output(self, job: str, text: str, timeout: float = 120) -> None:
        """Wait until a batch job has written something."""
        if not _until(lambda: text in self.output(job), timeout):
            pytest.fail(f"job {job} has not written {text!r} after {timeout} s: {self.output(job)!r}")

    def cancel(self, job: str, *options: str) -> None:
        """End a job, or with ``--signal`` send it one; ``--batch`` means the batch shell alone."""
        self.command("scancel", *options, job)

    def release(self, job: str, timeout: float = 60) -> None:
        """Wait until a job is requeued, and let it begin in a second instead of in two minutes."""

        def requeued() -> bool:
            shown = self.show(job)
            return shown["JobState"] == "PENDING" and shown["Restarts"] != "0"

        if not _until(requeued, timeout):
            pytest.fail(f"job {job} is not requeued after {timeout} s: {self.show(job)}\n{self.output(job)}")
        # Within the second in which the old start was ended, slurmd takes the new one for it and fails it.
        self.command("scontrol", "update", f"JobId={job}", "StartTime=now+1")


@pytest.fixture(scope="session")
def slurm() -> Iterator[Cluster]:
    """The cluster of this test session; skips where SLURM is not installed or this is not root."""
    missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch", "srun") if not _find(name)]
    if missing:
        pytest.skip(f"no private SLURM: {', '.join(missing)} not installed (apt-get install slurm-wlm munge)")
    if os.geteuid() != 0:
        pytest.skip("no private SLURM: its daemons start jobs as root, and this is not root")
    with running_cluster() as cluster:
        yield cluster


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """Start the daemons in a new folder; end them, and whatever their jobs left behind, afterwards."""
    # Directly under /tmp, as Unix sockets have short names.
    folder = Path(tempfile.mkdtemp(prefix="slurm"))
    cluster = Cluster(folder, _environment(folder / "slurm.conf"))
    daemons = []
    try:
        _configure(folder)
        files = [f"--{kind}-file={folder}/munge.{kind}" for kind in ("key", "pid", "log", "seed")]
        daemons.append(_start(cluster, "munged", "--foreground", "--force", "--socket", MUNGE_SOCKET, *files))
        _require(cluster, (folder / MUNGE_SOCKET).exists, "munged does not listen")
        daemons.append(_start(cluster, "slurmctld", "-D"))
        daemons += [_start(cluster, "slurmd", "-D", "-N", node) for node in NODES]
        _require(cluster, lambda: _idle(cluster), "the nodes do not come up")
        yield cluster
        _cancel_all(cluster)
    finally:
        _kill_all(cluster)
        for daemon in daemons:
            daemon.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _configure(folder: Path) -> None:
    """Write the files that the daemons read."""
    host = socket.gethostname().partition(".")[0]
    values = {
        "folder": folder,
        "host": host,
        "ports": _free_ports(3),
        "cpus": CPUS,
        "gpus": GPUS,
        "munge": MUNGE_SOCKET,
    }
    text = CONFIGURATION.format(nodes=",".join(NODES), **values)
    (folder / "slurm.conf").write_text(text, encoding="ascii")
    gpus = "".join(f"NodeName={node} Name=gpu File=/dev/tty[1-{GPUS}]\n" for node in NODES)
    (folder / "gres.conf").write_text(gpus, encoding="ascii")
    cgroups = "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n"
    (folder / "cgroup.conf").write_text(cgroups, encoding="ascii")
    (folder / "state").mkdir()
    (folder / "munge.key").touch(mode=0o600)
    (folder / "munge.key").write_bytes(os.urandom(128))


def _environment(configuration: Path) -> dict[str, str]:
    """Return this process's environment less any job's that it runs in, plus the cluster's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
    programs = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", ""), "/usr/sbin"])
    environment = {**kept, **ENVIRONMENT, "PATH": programs, "SLURM_CONF": str(configuration)}
    # A job's slots are SLURM's to give; with this set, Open MPI puts all ranks on the first node.
    del environment["PRTE_MCA_rmaps_default_mapping_policy"]
    return environment


def _free_ports(count: int) -> list[int]:
    """Find ports that nobody listens on, by holding all of them at once."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in held]


def _start(cluster: Cluster, name: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a daemon that dies with this process, if nothing ends it before."""
    program = _find(name)
    assert program is not None
    with (cluster.folder / f"{name}.out").open("ab") as log:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", program, *arguments],
            cwd=cluster.folder,
            env=cluster.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _idle(cluster: Cluster) -> bool:
    """Tell whether all nodes wait for jobs; the controller may not answer yet."""
    words = ["sinfo", "--noheader", "--Node", "--partition=work", "--format=%T"]
    ended = subprocess.run(
        words, env=cluster.environment, capture_output=True, text=True, timeout=60, check=False
    )
    return ended.stdout.split() == ["idle"] * len(NODES)


def _cancel_all(cluster: Cluster) -> None:
    """Cancel every job and wait a little for those that end when they are told to."""
    with suppress(subprocess.TimeoutExpired):
        options = {"env": cluster.environment, "capture_output": True, "timeout": 20, "check": False}
        subprocess.run(["scancel", "--user=root"], **options)
        _until(lambda: not subprocess.run(["squeue", "--noheader"], **options).stdout, 2)


def _kill_all(cluster: Cluster) -> None:
    """Kill the daemons and what jobs left behind: all processes whose environment names this cluster."""
    mark = f"SLURM_CONF={cluster.environment['SLURM_CONF']}".encode()

    def none_left() -> bool:
        killed = 0
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with suppress(OSError):
                    if mark in (entry / "environ").read_bytes().split(b"\0"):
                        os.kill(int(entry.name), signal.SIGKILL)
                        killed += 1
        return not killed

    _until(none_left, 10)


def _until(condition: Callable[[], bool], timeout: float) -> bool:
    """Look at a condition until it holds or time is up; return whether it holds."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def _require(cluster: Cluster, condition: Callable[[], bool], complaint: str) -> None:
    """Wait for a condition, or fail with the daemons' logs, which are gone afterwards."""
    if not _until(condition, 60):
        logs = (f"--- {path.name}\n{path.read_text()[-3000:]}" for path in cluster.folder.glob("*.log"))
        pytest.fail("\n".join([complaint, *logs]))


def _find(program: str) -> str | None:
    """Find a program, daemons included: their folder is often not on the PATH."""
    return shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
