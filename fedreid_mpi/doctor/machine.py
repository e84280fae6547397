"""Looking at the process, its node and its job."""

import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version

from fedreid_mpi.comm import Communicator
from fedreid_mpi.comm.mpi.launch import launched_size
from fedreid_mpi.config import Compute
from fedreid_mpi.doctor.facts import JobFacts, RankFacts
from fedreid_mpi.doctor.storage import mount_type
from fedreid_mpi.slurm import moment

LIBRARIES = ("fedreid_mpi", "numpy", "h5py", "mpi4py")
CGROUPS = Path("/sys/fs/cgroup")
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What other programs report, asked before MPI starts: a process that runs MPI should not fork."""

    launcher: str
    mpirun: str
    root: bool
    job: JobFacts | None


def look_around(environment: Mapping[str, str]) -> Surroundings:
    """Ask the launcher, or the one that would be used, and SLURM.

    Parameters
    ----------
    environment
        Usually ``os.environ``.
    """
    launcher = launched_size(environment)[1]
    lines = _said_by("mpirun", "--version") if not launcher else ()
    allowed = {"OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"} <= environment.keys()
    job = None
    if number := environment.get("SLURM_JOB_ID"):
        end = environment.get("SLURM_JOB_END_TIME", "")
        if end.isdecimal():
            end = datetime.fromtimestamp(int(end)).astimezone().isoformat(timespec="seconds")
        else:  # before SLURM 23.02
            end = moment("\n".join(_said_by("squeue", "--noheader", "--format=%e", "--jobs", number)))
        job = JobFacts(number, int(environment.get("SLURM_JOB_NUM_NODES", "1")), end)
    return Surroundings(launcher, next(iter(lines), ""), os.geteuid() == 0 and not allowed, job)


def look_at_rank(comm: Communicator, environment: Mapping[str, str]) -> RankFacts:
    """Look at this rank; imports torch, and takes the time."""
    missing = []
    start = time.perf_counter()
    try:
        import torch
    except (ImportError, OSError) as error:
        missing.append(f"torch: {error}")
    seconds = time.perf_counter() - start
    versions = {"python": python_version()}
    device, gpu_id, packages = "none", "", ""
    gpus: tuple[str, ...] = ()
    if not missing:
        versions |= {"torch": str(torch.__version__), "CUDA": torch.version.cuda or ""}
        device, gpu_id = _device(comm)
        gpus = tuple(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        packages = mount_type(Path(torch.__file__))
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            missing.append(f"{name}: not installed")
    try:
        versions["HDF5"] = import_module("fedreid_mpi.data.archive").HDF5_VERSION
    except (ImportError, OSError) as error:
        missing.append(f"h5py: {error}")
    threads = environment.get("OMP_NUM_THREADS", "").partition(",")[0]  # by nesting level
    return RankFacts(
        rank=comm.rank,
        node=environment.get("SLURMD_NODENAME") or comm.location.host,
        worker=comm.rank in comm.client_ranks,
        cores=comm.location.cores,
        node_cores=os.cpu_count() or len(comm.location.cores),
        threads=int(threads) if threads.isdigit() else 0,
        device=device,
        gpus=gpus,
        visible_gpus=environment.get("CUDA_VISIBLE_DEVICES", ""),
        node_gpus=len(list(Path("/proc/driver/nvidia/gpus").glob("*"))),
        memory=_memory(),
        shared_memory=shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.exists() else 0,
        import_seconds=seconds,
        packages=packages,
        versions=versions,
        missing=tuple(missing),
        gpu_id=gpu_id,
    )


def _device(comm: Communicator) -> tuple[str, str]:
    """Bind as a run would that may share GPUs, and identify the GPU; whether it has to is for the judge."""
    from fedreid_mpi.device import choose_device, gpu_id

    where = comm.location
    device = choose_device(Compute(share_gpus=True), where.index, where.count, where.host)
    return str(device), gpu_id(device)


def _memory() -> int:
    """Return the bytes that the ranks of this node may use together."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(total, cgroup_limit(Path("/proc/self/cgroup").read_text(encoding="ascii"), CGROUPS) or total)


def cgroup_limit(groups: str, root: Path) -> int | None:
    """Find the memory limit of the control groups that a process is in.

    Parameters
    ----------
    groups
        Text of ``/proc/self/cgroup``: a line ``number:controllers:path`` for each hierarchy.
    root
        Where the hierarchies are mounted.

    Returns
    -------
    int or None
        Bytes, the least of the group and its parents; None where nothing limits it.
    """
    limits = []
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        mount, file = (root / "memory", "memory.limit_in_bytes") if controllers else (root, "memory.max")
        group = mount / path.strip("/")
        for folder in (group, *group.parents):
            if not folder.is_relative_to(mount):
                break
            text = (folder / file).read_text(encoding="ascii").strip() if (folder / file).exists() else "max"
            if text.isdigit():
                limits.append(int(text))
    return min(limits, default=None)


def _said_by(*command: str) -> tuple[str, ...]:
    """Return the lines that a program prints; none where there is no such program or it fails."""
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(ended.stdout.splitlines())
