"""What a run costs, in images that go through the network, known before it starts."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedreid_mpi.config import Experiment, StudyRun
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.data.partition import Part, partition
from fedreid_mpi.data.samplers import training_batches
from fedreid_mpi.errors import FedReIDError
from fedreid_mpi.evaluation import describe_unseen
from fedreid_mpi.federated.client import cameras_of, people_of
from fedreid_mpi.federated.distillation import CLUSTERING_BATCH, choose_public
from fedreid_mpi.federated.plan import plan_round
from fedreid_mpi.records import ClientSpec, RoundPlan
from fedreid_mpi.run.setup import by_use, describe_clients


@dataclass(frozen=True, slots=True)
class Cost:
    """Images that go through the network; one that does so twice counts twice.

    Attributes
    ----------
    trained
        Forwards and backwards: the clients' epochs, and the server's passes over the public dataset.
    scored
        Test images, queries and gallery, of which features are made, by shared models and by the clients'
        own. With mirror images each takes two passes.
    measured
        Forwards alone, for anything else: what teachers make of the public dataset, clustering features,
        cosine distances, contrasts, BatchNorm statistics that are re-estimated.
    """

    trained: int = 0
    scored: int = 0
    measured: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        """Add up two costs."""
        return Cost(self.trained + other.trained, self.scored + other.scored, self.measured + other.measured)


def run_cost(experiment: Experiment, opened: Sequence[DatasetArchive]) -> Cost:
    """Count what a run from its beginning to its end puts through the network.

    Nobody knows before which groups will be found: with clustering all clients are counted as one group,
    whose model is distilled once, and scored once per dataset.

    Parameters
    ----------
    experiment
        Resolved.
    opened
        All its archives, in the order of `Data.files`.

    Raises
    ------
    ConfigurationError, DataError
        The archives do not make the federation that is asked for.
    """
    specs = describe_clients(experiment, opened)
    data = experiment.data
    archives, others, shown = by_use(experiment, opened)
    trained = [_images_trained_on(part, opened, experiment) for part in partition(archives, experiment)]
    unseen = sum(dataset.test_images for dataset in describe_unseen(others))
    public = len(choose_public(shown[0], data.exclude_overlap)) if shown else 0
    rounds = range(experiment.run.rounds + 1)
    plans = [plan_round(experiment, specs, round) for round in rounds]
    contrasted = Cost()
    if experiment.objective.contrastive:  # from a client's second turn on, two more models see its images
        turns = Counter(id for plan in plans for id in plan.participants)
        contrasted = Cost(measured=sum(2 * (count - 1) * trained[id] for id, count in turns.items()))
    each = (_round_cost(experiment, specs, trained, public, unseen, plan) for plan in plans)
    return contrasted + sum(each, Cost())


def method_costs(
    runs: Iterable[StudyRun], heartbeat: Callable[[], object] = lambda: None
) -> dict[str, Cost | FedReIDError]:
    """Count what the runs of each method cost together.

    Parameters
    ----------
    runs
        Of a study. Archives that several of them use are opened once.
    heartbeat
        Is called between two runs.

    Returns
    -------
    dict
        Method to the sum over its runs; or, if it is unknown, to the error that such a run will end with.
    """
    archives: dict[Path, DatasetArchive] = {}
    costs: dict[str, Cost | FedReIDError] = {}
    for run in runs:
        heartbeat()
        so_far = costs.get(run.method, Cost())
        if not isinstance(so_far, Cost):
            continue
        try:
            opened = [_opened(path, archives) for path in run.experiment.data.files]
            costs[run.method] = so_far + run_cost(run.experiment, opened)
        except FedReIDError as error:
            costs[run.method] = error
    return costs


def _opened(path: Path, archives: dict[Path, DatasetArchive]) -> DatasetArchive:
    if path not in archives:
        archives[path] = DatasetArchive.open(path)
    return archives[path]


def _round_cost(
    experiment: Experiment,
    specs: Sequence[ClientSpec],
    trained_on: Sequence[int],
    public: int,
    unseen: int,
    plan: RoundPlan,
) -> Cost:
    """Count a round's images, from those that clients train on and those of public and unseen datasets."""
    federation, evaluation = experiment.federation, experiment.evaluation
    trainers = [specs[id] for id in plan.participants]
    trained = sum(trained_on[id] for id in plan.participants)
    scored = sum(spec.test_images for spec in trainers) * (plan.evaluate and evaluation.local_models)
    if federation.mode == "local":
        return Cost(trained, scored)
    measured = 0
    if experiment.aggregation.weights == "cosine-distance":
        there = [public if experiment.measures_by_public else spec.images for spec in trainers]
        measured += sum(2 * min(federation.batch_size, images) for images in there)
    if plan.cluster:
        each = CLUSTERING_BATCH if experiment.clustering.feature == "concat" else public
        measured += each * len(trainers)
    if plan.distil:
        measured += public * len(trainers)
        trained += public
    if plan.evaluate:
        tested: Mapping[int, int] = {spec.dataset: spec.test_images for spec in specs}
        scored += sum(tested.values()) * (2 if plan.distil else 1)  # before and after the server's step
        scored += unseen
        if evaluation.reestimate_bn:
            own = [spec for spec in specs if spec.test_images]
            scored += sum(spec.test_images for spec in own)
            measured += sum(spec.images for spec in own)
    return Cost(trained, scored, measured)


def _images_trained_on(part: Part, archives: Sequence[DatasetArchive], experiment: Experiment) -> int:
    """Count what a client trains on in a round; which images lie in which batch does not matter."""
    people, cameras = people_of(part, archives), cameras_of(part, archives)
    batches = training_batches(people, cameras, experiment.federation, np.random.default_rng(0))
    return sum(map(len, batches))
