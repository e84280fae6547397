"""Batch-hard triplet loss: an image is nearer to its person's farthest image than to anyone else's nearest.

Source: Hermans, Beyer and Leibe, "In Defense of the Triplet Loss for Person Re-Identification",
arXiv:1703.07737, 2017: equation 5, and section 2 for the soft margin.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F


def batch_hard_loss(embeddings: Tensor, labels: Tensor, margin: float | Literal["soft"]) -> Tensor:
    """Return the mean over a batch of the hardest triplet of each image.

    For an image a, p is the farthest other image of the same person and n the nearest image of another
    person, by the Euclidean distance d. Its loss is max(0, m + d(a, p) - d(a, n)), or with a soft margin
    ln(1 + exp(d(a, p) - d(a, n))).

    An image whose person has no other image in the batch, or that has nobody else in it, makes no
    triplet and is left out of the mean. Without any triplet the loss is 0.

    Parameters
    ----------
    embeddings
        Shape (B, width), float32.
    labels
        Shape (B,), int64: the person in each image.
    margin
        m, at least 0, or ``"soft"``.

    Returns
    -------
    Tensor
        Shape (), float32. Its gradient is finite at distance 0 too, where that of the distance is taken as 0.
    """
    # Not by way of a matrix product, which loses the digits of small distances.
    distances = torch.cdist(embeddings, embeddings, compute_mode="donot_use_mm_for_euclid_dist")
    same = labels[:, None] == labels
    positives = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    farthest = distances.masked_fill(~positives, -torch.inf).amax(1)
    nearest = distances.masked_fill(same, torch.inf).amin(1)
    whole = positives.any(1) & ~same.all(1)
    gap = torch.where(whole, farthest, 0) - torch.where(whole, nearest, 0)
    losses = F.softplus(gap) if margin == "soft" else F.relu(gap + margin)
    return torch.where(whole, losses, 0).sum() / whole.sum().clamp(min=1)
