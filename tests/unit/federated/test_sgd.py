"""SGD and what it remembers, against `torch.optim.SGD`."""

import math

import pytest
import torch
from torch import nn

from fedreid_mpi.config import Optimizer
from fedreid_mpi.federated.sgd import Descent, Sgd, descend
from fedreid_mpi.model import FlatModel, build_network
from fedreid_mpi.records import Role
from support.small import experiment

RATES = 0.1, 0.02


def parameters():
    """Two for the first group, one for the second; the filters do not lie in the order of their indices."""
    random = torch.Generator().manual_seed(3)
    values = [torch.randn(shape, generator=random) for shape in ((2, 3, 2, 2), (4,), (3, 2))]
    values[0] = values[0].contiguous(memory_format=torch.channels_last)
    return [nn.Parameter(value) for value in values]


def ours(of, settings, momentum=None):
    return Sgd(((of[:2], RATES[0]), (of[2:], RATES[1])), settings, momentum)


def set_gradients(of, step, left_out=()):
    random = torch.Generator().manual_seed(step)
    for number, parameter in enumerate(of):
        drawn = torch.randn(parameter.shape, generator=random)
        parameter.grad = None if number in left_out else torch.empty_like(parameter).copy_(drawn)


def reference(settings, steps, left_out=()):
    plain = parameters()
    groups = [{"params": plain[:2], "lr": RATES[0]}, {"params": plain[2:], "lr": RATES[1]}]
    sgd = torch.optim.SGD(
        groups, momentum=settings.momentum, nesterov=settings.nesterov, weight_decay=settings.weight_decay
    )
    for step in range(steps):
        set_gradients(plain, step, left_out)
        sgd.step()
    return plain, [sgd.state[each].get("momentum_buffer", torch.zeros_like(each)) for each in plain]


def same(found, expected):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


SETTINGS = [
    Optimizer(momentum=0.9, nesterov=True, weight_decay=0.01),
    Optimizer(momentum=0.5, nesterov=False, weight_decay=0.0),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=["Nesterov", "heavy ball"])
@pytest.mark.parametrize("left_out", [(), (1,)], ids=["all", "one without a gradient"])
def test_steps_are_torchs_also_where_another_goes_on_from_the_momentum(settings, left_out):
    plain, momenta = reference(settings, 5, left_out)
    mine = parameters()
    first = ours(mine, settings)
    for step in range(3):
        set_gradients(mine, step, left_out)
        first.step()
    second = ours(mine, settings, first.momentum())
    for step in (3, 4):
        set_gradients(mine, step, left_out)
        second.step()
    same(mine, plain)
    vector = second.momentum()
    assert vector.dtype == torch.float32
    same([vector], [torch.cat([each.flatten() for each in momenta])])


def test_before_the_first_step_there_is_no_momentum():
    assert ours(parameters(), SETTINGS[0]).momentum() is None


def test_without_momentum_there_is_never_any():
    mine, settings = parameters(), Optimizer(momentum=0.0, nesterov=False)
    sgd = ours(mine, settings)
    set_gradients(mine, 0)
    sgd.step()
    assert sgd.momentum() is None


def descent(*batches):
    """Descend at a rate of 0 along a loss that is the mean of what belongs to the images."""
    model = FlatModel(build_network(experiment().model, 3, 1), torch.device("cpu"))
    held = model.parameters(Role.BACKBONE)
    sgd = Sgd(((held, 0.0),), SETTINGS[0])

    def loss_of(images, aim):
        return aim.mean() + 0 * sum(parameter.sum() for parameter in held)

    return descend(
        model, sgd, [(torch.zeros(len(aim), 3, 8, 4), torch.tensor(aim)) for aim in batches], loss_of, 0
    )


def test_the_loss_is_a_mean_over_images():
    assert descent([2.0, 4.0, 3.0, 3.0], [7.0, 11.0]) == Descent((4 * 3 + 2 * 9) / 6, 6, 2)


def test_where_nothing_is_seen_there_is_no_loss():
    nothing = descent()
    assert math.isnan(nothing.loss)
    assert (nothing.images, nothing.steps) == (0, 0)


def test_gradients_are_dropped():
    mine = parameters()
    set_gradients(mine, 0)
    ours(mine, SETTINGS[0]).drop_gradients()
    assert [parameter.grad for parameter in mine] == [None] * 3
