"""What a cluster's partitions offer, as ``sinfo`` lists it, and why a job would never start there."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fedreid_mpi.slurm.answers import rows
from fedreid_mpi.slurm.job import Resources
from fedreid_mpi.wording import counted

SINFO = ("sinfo", "--noheader", "--exact", "--format=%P|%a|%l|%D|%c|%G")
"""The command whose output `parse_partitions` reads: one line per partition and kind of node."""

_TIME = re.compile(
    r"(?:(?P<days>\d+)-(?P<h1>\d+)(?::(?P<m1>\d+)(?::(?P<s1>\d+))?)?"
    r"|(?:(?P<h2>\d+):)?(?P<m2>\d+):(?P<s2>\d+)|(?P<m3>\d+))",
    re.ASCII,
)
_COUNT = re.compile(r"(\d+)(K?)\+?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Nodes:
    """Nodes of one kind: how many, and what each has."""

    count: int
    cpus: int
    gpus: int


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition.

    Attributes
    ----------
    is_default, is_up
        Whether jobs go there that name none; whether it takes jobs.
    limit
        Longest time of a job in seconds; None: there is no limit.
    nodes
        By kind.
    """

    is_default: bool
    is_up: bool
    limit: int | None
    nodes: tuple[Nodes, ...]


def parse_time(text: str) -> int | None:
    """Return the seconds of a time as SLURM writes it; None for no limit.

    ``minutes``, ``minutes:seconds``, ``hours:minutes:seconds``, ``days-hours``, ``days-hours:minutes`` or
    ``days-hours:minutes:seconds``; ``infinite`` or ``UNLIMITED``.

    Raises
    ------
    ValueError
        It is none of these.
    """
    if text.lower() in ("infinite", "unlimited"):
        return None
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a time that SLURM knows")
    parts = {name: int(value) for name, value in match.groupdict().items() if value is not None}
    seconds = 86400 * parts.pop("days", 0)
    return seconds + sum({"h": 3600, "m": 60, "s": 1}[name[0]] * value for name, value in parts.items())


def parse_partitions(text: str) -> dict[str, Partition]:
    """Read what the command `SINFO` printed, and pass over what is no such line.

    Where several clusters have a partition of one name, a job may go to any of them.
    """
    partitions: dict[str, Partition] = {}
    for name, state, limit, count, cpus, gres in rows(text, 6):
        try:
            nodes, longest = Nodes(_count(count), _count(cpus), _gpus(gres)), parse_time(limit)
        except ValueError:
            continue
        one = Partition(name.endswith("*"), state.lower() == "up", longest, (nodes,))
        name = name.rstrip("*")
        partitions[name] = _join(partitions[name], one) if name in partitions else one
    return partitions


def _join(one: Partition, other: Partition) -> Partition:
    limits = [limit for limit in (one.limit, other.limit) if limit is not None]
    return Partition(
        one.is_default or other.is_default,
        one.is_up or other.is_up,
        max(limits) if len(limits) == 2 else None,
        (*one.nodes, *other.nodes),
    )


def _count(text: str) -> int:
    """Return a count, e.g. ``48``, ``48+`` or ``2K``."""
    match = _COUNT.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a count")
    return int(match[1]) * (1024 if match[2] else 1)


def _gpus(gres: str) -> int:
    """Count GPUs, e.g. 6 in ``gpu:a100:4(S:0-1),gpu:v100:2,nvme:1``."""
    entries = (entry.split(":") for entry in re.sub(r"\(.*?\)", "", gres).split(","))
    return sum(int(words[-1]) if words[-1].isdigit() else 1 for words in entries if words[0] == "gpu")


def refusals(resources: Resources, partitions: Mapping[str, Partition]) -> Iterator[str]:
    """Yield why a job would be refused, or wait forever; nothing if it would start at some time.

    Parameters
    ----------
    resources
        With the partition that is asked for, or several with commas in between; None: the default one.
    partitions
        All of the cluster's, by name.

    Yields
    ------
    str
        Option, what was asked for, what there is.
    """
    there = ", ".join(sorted(partitions))
    wanted = resources.partition.split(",") if resources.partition else []
    wanted = wanted or [name for name, partition in partitions.items() if partition.is_default]
    if not wanted:
        yield f"--partition is needed, as no partition is the default; there are {there}"
    unknown = [name for name in wanted if name not in partitions]
    if unknown:
        yield f"--partition {','.join(unknown)} is not there; there are {there}"
    if not wanted or unknown:
        return
    chosen, where = [partitions[name] for name in wanted], ",".join(wanted)
    if not any(partition.is_up for partition in chosen):
        yield f"--partition {where} accepts no jobs at present"
    longest = None if any(each.limit is None for each in chosen) else max(each.limit or 0 for each in chosen)
    if longest is not None and resources.time:
        asked = parse_time(resources.time)
        if not asked:
            yield f"--time {resources.time}, no limit, is over that of partition {where}, {_clock(longest)}"
        elif asked > longest:
            yield f"--time {resources.time} is over the limit of partition {where}, {_clock(longest)}"
    yield from _too_big(resources, [nodes for each in chosen for nodes in each.nodes], where)


def _too_big(resources: Resources, kinds: list[Nodes], where: str) -> Iterator[str]:
    """Compare what a job wants of a node with what nodes have."""
    gpus = resources.gpus_per_node or 0
    most = max((kind.gpus for kind in kinds), default=0)
    if gpus > most:
        yield f"--gpus-per-node {gpus}: nodes of partition {where} have {most or 'none'}"
        return
    with_gpus = [kind for kind in kinds if kind.gpus >= gpus]
    cpus = (resources.ranks_per_node or resources.ranks or 1) * (resources.cpus_per_task or 1)
    largest = max((kind.cpus for kind in with_gpus), default=0)
    if cpus > largest:
        yield (
            f"--ranks {resources.ranks} on {counted(resources.nodes or 1, 'node')} need "
            f"{counted(cpus, 'CPU')} per node, "
            f"nodes of partition {where} have {largest}"
        )
        return
    fitting = sum(kind.count for kind in with_gpus if kind.cpus >= cpus)
    if (resources.nodes or 1) > fitting:
        yield f"--nodes {resources.nodes}: partition {where} has {counted(fitting, 'such node')}"


def _clock(seconds: int) -> str:
    """Write seconds as SLURM does."""
    days, rest = divmod(seconds, 86400)
    clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days}-{clock}" if days else clock
