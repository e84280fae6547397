"""The averages of a round: sums of all ranks, divided on the server."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from fedreid_mpi.algorithms.averaging import grid_of, share_of
from fedreid_mpi.federated.contributions import contributions_asked
from fedreid_mpi.federated.exchange import send_to_server
from fedreid_mpi.federated.plan import weight_rule
from fedreid_mpi.federated.rank_state import RankState
from fedreid_mpi.federated.sums import FEATURES, MODELS, RankSums, Segment, Vectors
from fedreid_mpi.records import ClientReport, Group, RoundPlan


def begin_sums(state: RankState, plan: RoundPlan) -> RankSums:
    """Return the empty sums of a round."""
    experiment, model = state.experiment, state.model
    privacy, drawn = experiment.privacy, experiment.federation.clients_per_round
    most = (0 if privacy.clip else drawn) or len(state.specs)
    parameters, statistics = slice(0, model.statistics.start), model.statistics
    vectors = {
        MODELS: Vectors(
            statistics.stop,
            (
                Segment(parameters, grid_of("parameters", most), privacy.clip),
                Segment(statistics, grid_of("statistics", most), privacy.statistics_clip),
            ),
        )
    }
    if plan.distil and state.public is not None:
        length = len(state.public) * model.network.width
        vectors[FEATURES] = Vectors(length, (Segment(slice(0, length), grid_of("features", most)),))
    for kind, each in contributions_asked(experiment).items():
        vectors[kind] = Vectors(parameters.stop, (Segment(parameters, grid_of(each.role, most)),))
    lends = experiment.aggregation.bn == "reference"
    masks = None
    if privacy.secure_aggregation and plan.participants:
        from fedreid_mpi.federated.masks import agree_on_masks  # needs an optional package

        masks = agree_on_masks(state.comm, privacy.neighbours)
    updates, keys = privacy.clip > 0, _keys(state, plan)
    return RankSums(vectors, keys, plan.participants, lends, updates, masks, state.progress.spare)


def _keys(state: RankState, plan: RoundPlan) -> dict[int, int]:
    """Describe which participants are averaged together, where that is known before they have trained."""
    if plan.cluster:
        return {}
    if state.experiment.federation.edge_rounds:
        return edge_labels(state, plan)
    group_of = {client: n for n, group in enumerate(state.progress.groups) for client in group}
    return {client: group_of[client] for client in plan.participants}


def edge_labels(state: RankState, plan: RoundPlan) -> dict[int, int]:
    """Label the participants of a hierarchy: by dataset in an edge round, all alike in a cloud round."""
    return {client: state.specs[client].dataset * plan.edge for client in plan.participants}


def shares_in(state: RankState, plan: RoundPlan) -> Callable[[ClientReport], float]:
    """Return what gives a client that has reported its share in an average."""
    rule = weight_rule(state.experiment, state.specs, plan)
    reference = rule.reference([state.specs[client].images for client in plan.participants])
    return lambda report: share_of(rule.weight(report), reference)


def average_models(
    state: RankState, sums: RankSums, groups: Sequence[Group], shares: Mapping[int, float]
) -> list[Tensor | None]:
    """Average each group's models on the server.

    Parameters
    ----------
    state, sums
        This rank's.
    groups
        The round's, the same on all ranks.
    shares
        Client to its share, on the server.

    Returns
    -------
    list of Tensor or None
        For each group its model, shape (shared,), float32, on the host: the old one where nobody trained.
        None on other ranks.
    """
    comm, vectors = state.comm, sums.vectors[MODELS]
    taken = sorted({client for group in groups for client in group.weights})
    lone: dict[int, Tensor] = {}
    for client in taken:
        if sums.is_alone(client):
            model = send_to_server(comm, sums.lone_model(client), state.hosts[client], vectors.length)
            if model is not None:
                lone[client] = model
    others = [client for client in taken if not sums.is_alone(client)]
    totals = reduce_sums(state, sums, MODELS, others)
    models: list[Tensor | None] = []
    for group in groups:
        models.append(_model_of(state, sums, group, totals, lone, shares) if comm.is_server else None)
        if sums.lends_statistics and set(group.weights) & set(others):
            (first,) = group.statistics_weights
            part = vectors.segments[-1].part
            lent = send_to_server(comm, sums.statistics(first), state.hosts[first], part.stop - part.start)
            if lent is not None and (model := models[-1]) is not None:
                model[part] = lent
    return models


def _model_of(
    state: RankState,
    sums: RankSums,
    group: Group,
    totals: Mapping[int, Tensor],
    lone: Mapping[int, Tensor],
    shares: Mapping[int, float],
) -> Tensor:
    """Return a group's new model, on the server."""
    if not group.weights:
        old = state.progress.models[group.before]
        assert old is not None  # the server keeps all
        return old.cpu()
    alone = [client for client in group.weights if client in lone]
    if len(group.weights) == len(alone) == 1:
        return lone[alone[0]]
    vectors = sums.vectors[MODELS]
    total = _joined(sums, totals, [client for client in group.weights if client not in lone], vectors.length)
    if alone:  # of a group that begins with the mean of all others
        total = total.clone()
        for client in alone:
            vectors.add(total, lone[client], shares[client])
    return vectors.mean(total, math.fsum(shares[client] for client in group.weights))


def _joined(sums: RankSums, totals: Mapping[int, Tensor], clients: Sequence[int], length: int) -> Tensor:
    """Add the sums of the groups that some clients were summed in: of one group, as they are."""
    keys = sorted({sums.keys[client] for client in clients})
    if len(keys) == 1:
        return totals[keys[0]]
    total = torch.zeros(length, dtype=torch.int64)
    for key in keys:
        total += totals[key]
    return total


def average_features(state: RankState, sums: RankSums, groups: Sequence[Group]) -> list[Tensor | None]:
    """Average the teachers' features on the server: of each group, or with ``scope = "global"`` of all.

    Returns
    -------
    list of Tensor or None
        For each group, shape (images, width), float32, on the host; None where nobody trained, and on other
        ranks.
    """
    teachers = [sorted(group.weights.keys() & set(group.members)) for group in groups]
    everyone = sorted(client for clients in teachers for client in clients)
    totals = reduce_sums(state, sums, FEATURES, everyone)
    vectors, width = sums.vectors[FEATURES], state.model.network.width
    means: list[Tensor | None] = []
    for group, own in zip(groups, teachers, strict=True):
        clients = everyone if state.experiment.distillation.scope == "global" or not own else own
        if not group.weights or not state.comm.is_server:
            means.append(None)
            continue
        total = _joined(sums, totals, clients, vectors.length)
        means.append(vectors.mean(total, float(len(clients))).view(-1, width))
    return means


def average_contributions(
    state: RankState, sums: RankSums, groups: Sequence[Group], shares: Mapping[int, float]
) -> dict[str, Tensor]:
    """Average what the clients contributed besides their models, on the server, with the models' weights.

    Returns
    -------
    dict
        Kind to mean, shape (parameters,), float32, on the host; empty where nobody trained, and on other
        ranks.
    """
    means = {}
    for kind in contributions_asked(state.experiment):
        (group,) = groups  # rules that contribute are refused where there could be several
        clients, vectors = sorted(group.weights), sums.vectors[kind]
        if totals := reduce_sums(state, sums, kind, clients):
            total = _joined(sums, totals, clients, vectors.length)
            means[kind] = vectors.mean(total, math.fsum(shares[client] for client in clients))
    return means


def reduce_sums(state: RankState, sums: RankSums, kind: str, clients: Sequence[int]) -> dict[int, Tensor]:
    """Add the sums of all ranks, for each group that the clients are in; on the server."""
    totals = {}
    for key in sorted({sums.keys[client] for client in clients}):
        length, comm = sums.vectors[kind].length, state.comm
        out = (
            sums.take_spare(length, torch.device("cpu")).numpy() if comm.is_server and comm.size > 1 else None
        )
        total = comm.reduce_sum(sums.total(kind, key), length, kind, out)
        if total is not None:
            totals[key] = torch.from_numpy(total)
            sums.received.append(totals[key])
    return totals
