"""Who shares a model with whom after a round."""

from collections.abc import Collection, Mapping, Sequence

from fedreid_mpi.algorithms.weighting import WeightRule, weigh
from fedreid_mpi.errors import TooFewClientsError
from fedreid_mpi.records import BatchNormMode, ClientReport, Group
from fedreid_mpi.wording import counted


def require_finite_models(reports: Sequence[ClientReport], min_clients: int = 1) -> None:
    """End the run if too many clients have diverged.

    Raises
    ------
    TooFewClientsError
        If fewer than ``min_clients`` clients' models are finite after training.
    """
    finite = sum(report.finite for report in reports)
    if finite < min_clients:
        raise TooFewClientsError(
            f"after training, the models of {finite or 'none'} of {counted(len(reports), 'client')} "
            "are finite, "
            f"expected at least {'one' if min_clients == 1 else min_clients} "
            "(reliability.min_clients; a lower optimizer.lr may help)"
        )


def require_sums(groups: Sequence[Group]) -> None:
    """End the run if masks would hide nothing: the sum of a single model is that model.

    Raises
    ------
    TooFewClientsError
        If only one model of a group is left.
    """
    for group in groups:
        if len(group.weights) == 1:
            raise TooFewClientsError(
                f"after training, of the clients that average together only the model of client "
                f"{next(iter(group.weights))} is finite, expected at least two "
                "(privacy.secure_aggregation; a lower optimizer.lr may help)"
            )


def plan_groups(
    previous: Sequence[Sequence[int]],
    labels: Mapping[int, int] | None,
    reports: Sequence[ClientReport],
    participants: Sequence[int],
    rule: WeightRule,
    bn: BatchNormMode,
    untrained: Collection[int] = (),
    min_clients: int = 1,
) -> tuple[Group, ...]:
    """Decide which models are averaged, and with what weights.

    Clients whose models are not finite are left out. Like those that did not take part, they keep the model
    that they had.

    Parameters
    ----------
    previous
        Members of each group before the round; every client is in one.
    labels
        Cluster of each client that trained, if the clients are grouped anew; None: the groups stay.
    reports
        Of the clients that trained in this round.
    participants
        The round's clients in its seeded order.
    rule
        Gives the weights.
    bn
        ``"average"`` and ``"local"``: running statistics are averaged with the parameters' weights (with
        ``"local"``, clients replace the averaged ones by their own: FedBN, Li et al., ICLR 2021).
        ``"reference"``: they are those of the group's first client in the round's order.
    untrained
        Clients that never trained before this round. If the clients are grouped anew, those that still have
        not trained get the weighted mean of all models to start from.
    min_clients
        Least number of finite models.

    Returns
    -------
    tuple of Group
        In the order of their lowest members. Old groups are split: those that trained share a new model, the
        others keep the old one.

    Raises
    ------
    TooFewClientsError
        If fewer than ``min_clients`` are left.
    """
    finite = {report.client: report for report in reports if report.finite}
    require_finite_models(reports, min_clients)
    waiting = sorted(set(untrained) - set(finite)) if labels is not None else []
    if labels is None:
        members = [(tuple(sorted(group)), before) for before, group in enumerate(previous)]
    else:
        together: dict[int, list[int]] = {}
        for client in sorted(finite):
            together.setdefault(labels[client], []).append(client)
        away = [tuple(sorted(set(group) - set(finite) - set(waiting))) for group in previous]
        members = [(tuple(group), 0) for group in together.values()]
        members += [(group, before) for before, group in enumerate(away) if group]

    members += [(tuple(waiting), 0)] if waiting else []

    def group(clients: tuple[int, ...], before: int) -> Group:
        teachers = finite if clients == tuple(waiting) else clients
        trained = [finite[client] for client in teachers if client in finite]
        shares = weigh(trained, rule)
        if bn != "reference" or not shares:
            return Group(clients, shares, shares, before)
        first = next(client for client in participants if client in shares)
        return Group(clients, shares, {first: 1.0}, before)

    return tuple(group(*each) for each in sorted(members))
