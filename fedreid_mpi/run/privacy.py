"""What a run must have before it may say that what leaves its clients is bounded."""

from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec

from fedreid_mpi.config import Experiment
from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.federated.plan import plan_round
from fedreid_mpi.records import ClientSpec, RoundPlan

LEAST_RANKS = 3
"""A server and two client ranks: the sum of one is that of a rank."""


def require_protection(experiment: Experiment, specs: Sequence[ClientSpec], ranks: int) -> None:
    """Refuse a run that cannot keep what its configuration promises; the same on every rank.

    Raises
    ------
    ConfigurationError
        If a package is missing here, there are too few ranks for masks, or there is a round in which a client
        averages with nobody.
    """
    if not experiment.privacy.secure_aggregation:
        return
    if find_spec("cryptography") is None:
        raise ConfigurationError(
            "privacy.secure_aggregation = true needs cryptography: pip install 'fedreid_mpi[privacy]'"
        )
    if ranks < LEAST_RANKS:
        raise ConfigurationError(
            f"privacy.secure_aggregation = true needs {LEAST_RANKS} ranks or more, a server and client ranks "
            f"whose masks cancel, found {ranks}"
        )
    for round in range(1, experiment.run.rounds + 1):
        require_company(experiment, specs, plan_round(experiment, specs, round))


def require_company(experiment: Experiment, specs: Sequence[ClientSpec], plan: RoundPlan) -> None:
    """Refuse a round in which a client averages with nobody, so that no mask could hide its model.

    Raises
    ------
    ConfigurationError
        Naming round and client.
    """
    if not experiment.privacy.secure_aggregation:
        return
    together = Counter(specs[client].dataset * plan.edge for client in plan.participants)
    for client in plan.participants:
        if together[specs[client].dataset * plan.edge] == 1:
            raise ConfigurationError(
                f"privacy.secure_aggregation = true hides all but sums, but in round {plan.round} client "
                f"{specs[client].name} averages with nobody, expected at least two clients together"
            )
