"""A round of differential privacy: bounded updates in, one noised step out.

What is summed is not models but updates, clipped on the client; the server's step is their sum and noise,
divided by the number of clients to expect. The mathematics is in `algorithms.differential_privacy`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedreid_mpi.algorithms.differential_privacy import draw_noise, noise_scale
from fedreid_mpi.config import Experiment
from fedreid_mpi.federated.aggregation import reduce_sums
from fedreid_mpi.federated.plan import expected_clients
from fedreid_mpi.federated.rank_state import RankState
from fedreid_mpi.federated.sums import MODELS, RankSums
from fedreid_mpi.model import FlatModel
from fedreid_mpi.records import Group, ParamSpec, Role, RoundPlan


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the shared model that is clipped on its own.

    Attributes
    ----------
    name
        Names the stream of its noise.
    bound
        The L2 norm that an update of it is scaled down to.
    specs
        Its tensors that training moves. The others need no noise: nothing of a client is in them.
    """

    name: str
    bound: float
    specs: tuple[ParamSpec, ...]

    @property
    def size(self) -> int:
        """Number of values that training moves."""
        return sum(spec.size for spec in self.specs)


def parts_of(model: FlatModel, experiment: Experiment) -> tuple[Part, Part]:
    """Return parameters and statistics, in the order of the flat model."""
    roles = (Role.EMBEDDING, *([Role.BACKBONE] if experiment.optimizer.backbone_lr_factor else []))
    moved = {id(parameter) for role in roles for parameter in model.parameters(role)}
    names = {name for name, parameter in model.network.named_parameters() if id(parameter) in moved}
    parameters = tuple(spec for spec in model.specs if spec.name in names)
    statistics = tuple(spec for spec in model.specs if spec.role is Role.STATISTICS)
    privacy = experiment.privacy
    return (
        Part("parameters", privacy.clip, parameters),
        Part("statistics", privacy.statistics_clip, statistics),
    )


def step_with_noise(
    state: RankState, plan: RoundPlan, sums: RankSums, groups: Sequence[Group]
) -> list[Tensor | None]:
    """Take the round's step from the model before it, even if nobody took part.

    Returns
    -------
    list of Tensor or None
        The model of the one group that there is, shape (shared,), float32, on the host; None on other ranks.
    """
    (group,) = groups
    totals = reduce_sums(state, sums, MODELS, sorted(group.weights))
    if not state.comm.is_server:
        return [None]
    (before,), experiment = state.progress.models, state.experiment
    assert before is not None  # the server keeps it
    model, total = before.to("cpu", copy=True), next(iter(totals.values()), None)
    parts, divisor = parts_of(state.model, experiment), expected_clients(experiment, state.specs)
    for part, segment in zip(parts, sums.vectors[MODELS].segments, strict=True):
        scale = noise_scale(experiment.privacy.noise_multiplier, part.bound, len(parts))
        noise, drawn = draw_noise(part.size, scale, experiment.run.seed, plan.round, part.name), 0
        for spec in part.specs:
            step, drawn = torch.from_numpy(noise[drawn : drawn + spec.size]), drawn + spec.size
            values = slice(spec.offset, spec.offset + spec.size)
            if total is not None:
                step += total[values].double() * 2.0**-segment.grid.bits
            model[values] = (model[values].double() + step / divisor).float()
            if spec.name.endswith("running_var"):
                model[values].clamp_(min=0)
    return [model]
