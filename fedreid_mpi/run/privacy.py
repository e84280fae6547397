"""What a run must have before it may say that what leaves its clients is bounded, and what it says then."""

from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.util import find_spec

from fedreid_mpi.algorithms.differential_privacy import noise_to_signal
from fedreid_mpi.config import Experiment
from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.federated.plan import expected_clients, plan_round, sampling_probability
from fedreid_mpi.federated.private_step import parts_of
from fedreid_mpi.federated.rank_state import RankState
from fedreid_mpi.records import ClientSpec, RoundPlan
from fedreid_mpi.wording import counted

LEAST_RANKS = 3
"""A server and two client ranks: the sum of one is that of a rank."""

DROWNED = 10.0
"""From this ratio of noise to signal on, the log says that a run is meaningless."""


def require_protection(experiment: Experiment, specs: Sequence[ClientSpec], ranks: int) -> None:
    """Refuse a run that cannot keep what its configuration promises; the same on every rank.

    Raises
    ------
    ConfigurationError
        If a package is missing here, there are too few ranks for masks, or there is a round in which a client
        averages with nobody.
    """
    privacy = experiment.privacy
    for needed, setting, package in (
        (privacy.secure_aggregation, "privacy.secure_aggregation = true", "cryptography"),
        (privacy.clip > 0, "privacy.clip > 0", "dp_accounting"),
    ):
        if needed and find_spec(package) is None:
            name = package.replace("_", "-")
            raise ConfigurationError(f"{setting} needs {name}: pip install 'fedreid_mpi[privacy]'")
    if not privacy.secure_aggregation:
        return
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
                f"{specs[client].name} averages alone, expected at least two clients together"
            )


def privacy_notes(state: RankState) -> Iterator[str]:
    """Say at the start of a run what differential privacy it will have spent, at what noise, and for what."""
    experiment, privacy, specs = state.experiment, state.experiment.privacy, state.specs
    if not privacy.clip:
        return
    from fedreid_mpi.algorithms.accountant import epsilon_after  # needs an optional package

    sampling, multiplier = sampling_probability(experiment, specs), privacy.noise_multiplier
    spent = epsilon_after(experiment.run.rounds, sampling, multiplier, privacy.delta)
    yield (
        f"privacy: ε = {spent:.2f} at δ = {privacy.delta:g} after "
        f"{counted(experiment.run.rounds, 'round')}, each of "
        f"which takes each client with probability {sampling:.3g}"
    )
    if not multiplier:
        yield "privacy: updates are clipped, but privacy.noise_multiplier = 0 bounds nothing"
        return
    parts = parts_of(state.model, experiment)
    ratio = noise_to_signal(multiplier, expected_clients(experiment, specs), parts[0].size, len(parts))
    drowned = ratio >= DROWNED
    times = f"{ratio:,.0f}" if drowned else f"{ratio:.2g}"
    warning = ": nothing can be learnt from such a step" if drowned else ""
    yield (
        f"privacy: the noise of a round on {parts[0].size:,} parameters is {times} times as long as the "
        f"longest step that its clients can make together{warning}"
    )
    outside = ["losses", "numbers of images and steps"]
    outside += ["scores of local models (evaluation.local_models)"] * experiment.evaluation.local_models
    scored = experiment.evaluation.reestimate_bn
    outside += ["scores with clients' statistics (evaluation.reestimate_bn)"] * scored
    kept = experiment.checkpoint.local_models
    outside += [f'models of clients on disk (checkpoint.local_models = "{kept}")'] * (kept != "none")
    yield f"privacy: outside ε lie {', '.join(outside)}"
