"""Settings of different sections that cannot go together."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedreid_mpi.config.sections import Experiment


def conflicts(experiment: "Experiment") -> Iterator[str]:
    """Name each: the key, what it is, and what it cannot be with or was expected to be."""
    yield from _in_time(experiment)
    yield from _of_the_server(experiment)
    if experiment.compute.precision == "tf32" and experiment.compute.device == "cpu":
        yield 'compute.precision is "tf32", which needs a GPU, but compute.device is "cpu"'
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
