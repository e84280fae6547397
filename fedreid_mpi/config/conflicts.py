"""Settings of different sections that cannot go together."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedreid_mpi.config.sections import Experiment


def conflicts(experiment: "Experiment") -> Iterator[str]:
    """Name each: the key, what it is, and what it cannot be with or was expected to be."""
    yield from _in_time(experiment)
    yield from _of_the_server(experiment)
    yield from _of_privacy(experiment)
    if experiment.compute.precision == "tf32" and experiment.compute.device == "cpu":
        yield 'compute.precision is "tf32", which needs a GPU, but compute.device is "cpu"'
    scale = experiment.model.normalization
    if scale != "backbone" and experiment.model.weights is None:
        yield f'model.normalization = "{scale}" is what weights were trained with, but model.weights is unset'
    drawn, needed = experiment.federation.clients_per_round, experiment.reliability.min_clients
    if 0 < drawn < needed:
        yield (
            f"reliability.min_clients is {needed}, expected at most federation.clients_per_round, "
            f"which is {drawn}"
        )


def _in_time(experiment: "Experiment") -> Iterator[str]:
    """Name what needs other data, or comes after the last round."""
    rounds = experiment.run.rounds
    for section, settings in (
        ("distillation", experiment.distillation),
        ("clustering", experiment.clustering),
    ):
        if settings.enabled and experiment.data.public is None:
            yield f"{section}.enabled = true needs data.public, the archive of a public dataset"
        if settings.enabled and settings.every > rounds:
            yield f"{section}.every is {settings.every}, expected at most run.rounds, which is {rounds}"
    if experiment.measures_by_public and experiment.data.public is None:
        yield 'aggregation.probe = "public" needs data.public, the archive of a public dataset'
    last = experiment.optimizer.milestones[-1]
    if experiment.optimizer.schedule == "milestones" and last >= rounds:
        yield f"optimizer.milestones has {last}, expected rounds before the last, {rounds}"


def _of_the_server(experiment: "Experiment") -> Iterator[str]:
    """Name what a rule that is more than an average cannot be with."""
    rule, optimizer = experiment.aggregation.rule, experiment.server.optimizer
    stepping = [f'aggregation.rule = "{rule}"'] * (rule != "average")
    stepping += [f'server.optimizer = "{optimizer}"'] * (optimizer != "none")
    for chosen in stepping:
        if experiment.clustering.enabled:
            yield f"{chosen} needs a model that all clients begin with, but clustering.enabled = true"
        if experiment.federation.edge_rounds:
            yield f"{chosen} needs a model that all clients begin with, but federation.edge_rounds > 0"
    if rule != "average" and experiment.aggregation.weights == "cosine-distance":
        yield f'{stepping[0]} needs weights that stay, but aggregation.weights = "cosine-distance"'


def _of_privacy(experiment: "Experiment") -> Iterator[str]:
    """Name what would send a client's own values past the protection that is asked for."""
    federation, aggregation = experiment.federation, experiment.aggregation
    if experiment.privacy.secure_aggregation:
        key = "privacy.secure_aggregation = true hides all but sums"
        if experiment.clustering.enabled:
            yield f"{key}, but clustering.enabled = true needs a feature of each client"
        if aggregation.bn == "reference":
            yield f'{key}, but aggregation.bn = "reference" sends one client\'s statistics; expected another'
        if federation.clients_per_round == 1:
            yield f"{key}, and federation.clients_per_round is 1, expected 0 or at least 2"
    if experiment.privacy.clip:
        key = "privacy.clip > 0 bounds what a client adds to a round"
        if aggregation.weights != "uniform":
            yield f'{key}, but aggregation.weights is "{aggregation.weights}", expected "uniform"'
        if aggregation.bn == "reference":
            yield f'{key}, but aggregation.bn = "reference" sends one client\'s statistics; expected another'
        if aggregation.rule != "average":
            yield f'{key}, but aggregation.rule is "{aggregation.rule}", expected "average"'
        if federation.edge_rounds:
            yield f"{key}, but federation.edge_rounds > 0 makes sums of a few clients"
        if experiment.distillation.enabled:
            yield f"{key}, but distillation.enabled = true sends features of its own"
        if experiment.clustering.enabled:
            yield f"{key}, but clustering.enabled = true sends features of its own"
