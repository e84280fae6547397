"""Knowledge distillation: what the student's error is."""

import torch
from torch import Tensor
from torch.nn import functional as F

from fedreid_mpi.records import DistillationLoss, Normalised


def distillation_loss(
    student: Tensor,
    target: Tensor,
    loss: DistillationLoss = "squared-distance",
    normalize: Normalised = "both",
) -> Tensor:
    """Compare the student's features of a batch with the mean of its teachers' features.

    Parameters
    ----------
    student
        Shape (images, width), with gradient.
    target
        Shape (images, width): mean of the teachers' features, see `teacher_features`.
    loss
        ``"squared-distance"``: mean over the images of the squared Euclidean distance (Zhuang et al., ACM
        TOMM 2023). ``"mse"``: mean over all elements, as their code has it: smaller by the width.
    normalize
        ``"both"``: the student's features are scaled to length 1 as well.

    Returns
    -------
    Tensor
        Scalar.
    """
    if normalize == "both":
        student = F.normalize(student)
    squares = torch.square(student - target)
    return squares.sum(1).mean() if loss == "squared-distance" else squares.mean()


def teacher_features(features: Tensor, normalize: Normalised) -> Tensor:
    """Return a teacher's contribution to the target: its features, scaled to length 1 unless ``"none"``."""
    return features if normalize == "none" else F.normalize(features)
