"""What cannot be had together with the bounds on what leaves a client: refused by name."""

from collections.abc import Iterator

from fedreid_mpi.config.sections import Experiment


def unprotected_settings(experiment: Experiment) -> Iterator[str]:
    """Name each setting that would send a client's own values past the protection that is asked for."""
    federation, aggregation = experiment.federation, experiment.aggregation
    if experiment.privacy.secure_aggregation:
        key = "privacy.secure_aggregation = true hides all but sums"
        if experiment.clustering.enabled:
            yield f"{key}, but clustering.enabled = true needs a feature of each client"
        if aggregation.bn == "reference":
            yield f'{key}, but aggregation.bn = "reference" sends one client\'s statistics; expected another'
        if federation.clients_per_round == 1:
            yield f"{key}, and federation.clients_per_round is 1, expected 0 or at least 2"
