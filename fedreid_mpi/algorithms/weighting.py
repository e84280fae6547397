"""How much each client's model counts in the average."""

from collections.abc import Iterable, Mapping, Sequence

from fedreid_mpi.errors import TooFewClientsError
from fedreid_mpi.types import AggregationPlan, BatchNormMode, ClientReport, Weighting


def sample_weights(images: Mapping[int, int]) -> dict[int, float]:
    """Weigh each client by its number of training images n_k, as FedPav does; in client-id order.

    Source: Zhuang et al., "Performance Optimization for Federated Person Re-identification via Benchmark
    Analysis", ACM MM 2020.
    """
    return {client: float(images[client]) for client in sorted(images)}


def uniform_weights(clients: Iterable[int]) -> dict[int, float]:
    """Weigh all clients alike; in client-id order."""
    return dict.fromkeys(sorted(clients), 1.0)


def aggregation_plan(
    reports: Sequence[ClientReport],
    participants: Sequence[int],
    weights: Weighting,
    bn: BatchNormMode,
) -> AggregationPlan:
    """Decide which models are joined, and with what weights.

    Clients whose parameters are not all finite are left out.

    Parameters
    ----------
    reports
        Of clients that trained in this round, in any order.
    participants
        The round's clients in its seeded order.
    weights
        What a client's weight is.
    bn
        ``"average"`` and ``"local"``: running statistics have the parameters' weights (with ``"local"``,
        clients replace the averaged ones by their own: FedBN, Li et al., ICLR 2021). ``"reference"``: they
        are those of the first client, in the round's order, that is not left out.

    Returns
    -------
    AggregationPlan
        Weights in client-id order.

    Raises
    ------
    TooFewClientsError
        If no client is left.
    """
    finite = {report.client: report.images for report in reports if report.finite}
    if not finite:
        raise TooFewClientsError(
            f"after training, the parameters of none of {len(reports)} clients are finite, expected at "
            "least one finite model (a lower optimizer.lr may help)"
        )
    shares = sample_weights(finite) if weights == "samples" else uniform_weights(finite)
    if bn == "reference":
        reference = next(client for client in participants if client in finite)
        return AggregationPlan(shares, {reference: 1.0})
    return AggregationPlan(shares, shares)
