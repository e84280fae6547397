"""Which clients take part in a round."""

from fedreid_mpi.algorithms import seeds


def select_participants(clients: int, per_round: int, seed: int, round: int) -> tuple[int, ...]:
    """Draw a round's clients without replacement.

    Parameters
    ----------
    clients
        Number of clients N; their ids are 0 to N - 1.
    per_round
        Number to draw, K; 0, or N and more, means all.
    seed
        The run's seed.
    round
        Number of the round; with the seed, all that the draw depends on.

    Returns
    -------
    tuple of int
        Ids in the round's seeded order: a random permutation of all clients, cut after K.

    Raises
    ------
    ValueError
        If there are no clients or `per_round` is negative.
    """
    if clients < 1 or per_round < 0:
        raise ValueError(f"{per_round} of {clients} clients per round, expected at least 0 of at least 1")
    order = seeds.generator(seed, "participants", round).permutation(clients).tolist()
    return tuple(order[: per_round or clients])


def select_poisson(clients: int, expected: float, seed: int, round: int) -> tuple[int, ...]:
    """Draw each of a round's clients independently, with one probability: none may be drawn, or all.

    Parameters
    ----------
    clients
        Number of clients N; their ids are 0 to N - 1.
    expected
        Number to expect, qN, at most N.
    seed
        The run's seed.
    round
        Number of the round; with the seed, all that the draw depends on.

    Returns
    -------
    tuple of int
        Ids in the round's seeded order.
    """
    random = seeds.generator(seed, "participants", round)
    drawn = random.random(clients) < expected / clients
    return tuple(client for client in random.permutation(clients).tolist() if drawn[client])
