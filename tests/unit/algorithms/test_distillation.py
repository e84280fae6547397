"""The student's error and the teachers' features, by hand."""

import pytest
import torch

from fedreid_mpi.algorithms.distillation import distillation_loss, teacher_features

STUDENT = torch.tensor([[3.0, 4.0], [0.0, 2.0]])  # of length 1: (0.6, 0.8), (0, 1)
TARGET = torch.tensor([[0.6, 0.8], [1.0, 0.0]])


@pytest.mark.parametrize(
    ("normalize", "per_image"),
    [("both", (0, 2)), ("teachers", (2.4**2 + 3.2**2, 1 + 4)), ("none", (2.4**2 + 3.2**2, 1 + 4))],
)
def test_the_loss_by_hand(normalize, per_image):
    distance = distillation_loss(STUDENT, TARGET, "squared-distance", normalize)
    assert distance.item() == pytest.approx(sum(per_image) / 2)
    assert distillation_loss(STUDENT, TARGET, "mse", normalize).item() == pytest.approx(sum(per_image) / 4)


def test_unless_said_otherwise_it_is_the_papers():
    assert distillation_loss(STUDENT, TARGET).item() == pytest.approx(1.0)


def test_a_teacher_contributes_directions_unless_it_is_taken_as_it_is():
    directions = torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    for normalize in ("both", "teachers"):
        torch.testing.assert_close(teacher_features(STUDENT, normalize), directions)
    assert torch.equal(teacher_features(STUDENT, "none"), STUDENT)
