"""What clients add beside their models is averaged with the models' weights; the round knows no names."""

import pytest
import torch

from fedreid_mpi.config import Experiment
from fedreid_mpi.federated import contributions, server_step
from fedreid_mpi.federated.contributions import Contribution
from fedreid_mpi.federated.plan import plan_round
from fedreid_mpi.federated.round import run_round
from support.federations import begun
from support.small import EXPERIMENT, write_site

IMAGES = (26, 9, 12)


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sites")
    return [write_site(folder / f"{n}.h5", images, people=2, seed=n) for n, images in enumerate(IMAGES)]


def play(archives, folder, monkeypatch, of, rounds=2):
    """Play rounds in which clients contribute what ``of`` says, and are sent the mean of the round before.

    Returns the records, the means that the server's steps found, what each turn was sent, and the state.
    """
    means, broadcast = [], []

    def contribute(finished, remembered):
        broadcast.append(finished.turn.broadcast["invented"].unique().tolist())
        return of(finished, len(broadcast) - 1)

    def step(turn):
        means.append(turn.means["invented"].unique().tolist())
        return turn.mean, {**turn.memory, "invented": turn.means["invented"]}

    always = lambda experiment: True  # noqa: E731
    monkeypatch.setattr(
        contributions, "CONTRIBUTIONS", {"invented": Contribution(always, "gradients", contribute)}
    )
    monkeypatch.setattr(server_step, "STEPS", [(always, step)])
    monkeypatch.setattr(server_step, "BROADCAST", {"invented": always})
    content = {**EXPERIMENT, "data": {"archives": archives}}
    experiment = Experiment.model_validate(content)
    state = begun(experiment, folder)
    records = [run_round(state, plan_round(experiment, state.specs, n)) for n in range(1, rounds + 1)]
    return records, means, broadcast, state


def constant(value):
    return lambda finished, turn: torch.full((finished.turn.model.statistics.start,), float(value(turn)))


def test_a_contribution_is_averaged_with_the_models_weights_and_told_in_the_next_round(
    archives, tmp_path, monkeypatch
):
    _, means, broadcast, _ = play(archives, tmp_path, monkeypatch, constant(lambda turn: 1000 * turn))
    expected = [sum(n * 1000 * (first + k) for k, n in enumerate(IMAGES)) / sum(IMAGES) for first in (0, 3)]
    assert [mean for (mean,) in means] == pytest.approx(expected)
    assert broadcast == 3 * [[0.0]] + 3 * [means[0]]


@pytest.mark.parametrize("value", [float("nan"), 2.0**20])
def test_a_client_whose_contribution_is_off_the_grid_has_diverged(value, archives, tmp_path, monkeypatch):
    (record,), means, _, state = play(
        archives, tmp_path, monkeypatch, constant(lambda turn: value if turn == 1 else 1), rounds=1
    )
    assert [report.finite for report in record.reports] == [True, False, True]
    assert means == [[1.0]]
    assert sorted(record.weights) == [0, 2]
    assert sorted(state.progress.memory) == [0, 2]
