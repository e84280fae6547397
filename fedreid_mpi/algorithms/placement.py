"""Which rank does which work, so that all finish at about the same time."""

from collections.abc import Sequence


def place(costs: Sequence[float], ranks: int) -> tuple[tuple[int, ...], ...]:
    """Spread units of work over ranks: longest first, each onto the least loaded rank.

    The longest rank's load is at most 4/3 - 1/(3 ranks) times the best possible (Graham, "Bounds on
    multiprocessing timing anomalies", SIAM J. Appl. Math. 17, 1969, theorem 2). Ties go to the lower id and
    the lower rank.

    Parameters
    ----------
    costs
        Expected cost of unit 0, 1, ..., in any unit of measure; not negative.
    ranks
        Number of ranks, at least 1.

    Returns
    -------
    tuple of tuples of int
        The units of each rank, ascending; empty for ranks without work.

    Raises
    ------
    ValueError
        If there is no rank, or a cost is negative or NaN.
    """
    if ranks < 1:
        raise ValueError(f"{ranks} ranks, expected at least 1")
    if not all(cost >= 0 for cost in costs):
        raise ValueError(f"costs {list(costs)}, expected none negative or NaN")
    loads = [0.0] * ranks
    units: list[list[int]] = [[] for _ in range(ranks)]
    for unit in sorted(range(len(costs)), key=lambda unit: -costs[unit]):
        rank = loads.index(min(loads))
        loads[rank] += costs[unit]
        units[rank].append(unit)
    return tuple(tuple(sorted(own)) for own in units)
