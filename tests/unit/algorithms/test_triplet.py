"""The batch-hard triplet loss, by hand and against a plain loop."""

import math

import numpy as np
import pytest
import torch

from fedreid_mpi.algorithms.triplet import batch_hard_loss


def loss_and_gradient(embeddings, labels, margin):
    leaf = torch.tensor(embeddings, dtype=torch.float32, requires_grad=True)
    loss = batch_hard_loss(leaf, torch.tensor(labels), margin)
    loss.backward()
    return float(loss.detach()), leaf.grad


def plainly(embeddings, labels, margin):
    """The paper's equation 5, image by image."""
    losses = []
    for a, (one, person) in enumerate(zip(embeddings, labels, strict=True)):
        distances = [math.dist(one, other) for other in embeddings]
        positives = [d for n, d in enumerate(distances) if labels[n] == person and n != a]
        negatives = [d for n, d in enumerate(distances) if labels[n] != person]
        if positives and negatives:
            gap = max(positives) - min(negatives)
            losses.append(math.log1p(math.exp(gap)) if margin == "soft" else max(0.0, margin + gap))
    return sum(losses) / max(len(losses), 1)


def test_by_hand():
    # Two people on a line: 0 and 3, 1 and 6. Hardest gaps: 3 - 1, 3 - 2, 5 - 1, 5 - 3.
    embeddings, labels = [[0.0], [3.0], [1.0], [6.0]], [0, 0, 1, 1]
    loss, gradient = loss_and_gradient(embeddings, labels, 0.5)
    assert loss == pytest.approx((2.5 + 1.5 + 4.5 + 2.5) / 4)
    # Images 0, 3, 1 and 6 as a: what each adds to the gradients of the four, in this order.
    each = np.array([[0, 1, -1, 0], [-1, 0, 1, 0], [1, 0, -2, 1], [0, 1, -1, 0]])
    assert (4 * gradient).flatten().tolist() == pytest.approx(each.sum(0).tolist())
    soft = sum(math.log1p(math.exp(gap)) for gap in (2, 1, 4, 2)) / 4
    assert loss_and_gradient(embeddings, labels, "soft")[0] == pytest.approx(soft)


def test_triplets_that_keep_the_margin_cost_nothing():
    loss, gradient = loss_and_gradient([[0.0], [1.0], [5.0], [6.0]], [0, 0, 1, 1], 0.3)
    assert loss == 0
    assert not gradient.any()


@pytest.mark.parametrize("margin", [0.0, 0.3, "soft"])
def test_it_is_the_papers_loss_on_random_batches(margin):
    random = np.random.default_rng(5)
    for _ in range(30):
        count = int(random.integers(1, 12))
        embeddings = random.normal(size=(count, 3)).astype(np.float32)
        labels = random.integers(0, 4, count)
        loss, gradient = loss_and_gradient(embeddings, labels, margin)
        assert loss == pytest.approx(plainly(embeddings, labels, margin), rel=1e-5, abs=1e-6)
        assert gradient.isfinite().all()


@pytest.mark.parametrize("margin", [0.3, "soft"])
@pytest.mark.parametrize(
    "labels", [[0, 1, 2, 3], [0, 0, 0, 0], [0]], ids=["nobody twice", "nobody else", "one image"]
)
def test_a_batch_without_triplets_costs_nothing(labels, margin):
    loss, gradient = loss_and_gradient([[float(n), 1.0] for n in range(len(labels))], labels, margin)
    assert loss == 0
    assert not gradient.any()


def test_an_image_without_a_triplet_is_left_out_of_the_mean():
    pair = [[0.0], [3.0], [1.0]]  # the third is the only one of its person
    loss, gradient = loss_and_gradient(pair, [0, 0, 1], 0.5)
    assert loss == pytest.approx((2.5 + 1.5) / 2)
    assert (2 * gradient).flatten().tolist() == pytest.approx([-1, 1, 0])


@pytest.mark.parametrize("margin", [0.3, "soft"])
def test_gradients_are_finite_where_images_coincide(margin):
    loss, gradient = loss_and_gradient([[1.0, 2.0]] * 4, [0, 0, 1, 1], margin)
    assert loss == pytest.approx(0.3 if margin == 0.3 else math.log(2))
    assert not gradient.any()


def test_small_distances_between_long_vectors_are_exact():
    embeddings = [[1000.0, 0.0], [1000.0, 0.001], [1000.0, 0.002], [1000.0, 1.0]]
    loss, _ = loss_and_gradient(embeddings, [0, 0, 1, 1], 0.0)
    assert loss == pytest.approx(plainly(embeddings, [0, 0, 1, 1], 0.0), rel=1e-3)
    # From 26 images on torch would take a matrix product, unless told otherwise.
    embeddings, labels = embeddings * 8, [0, 0, 1, 1] * 8
    loss, _ = loss_and_gradient(embeddings, labels, 0.0)
    assert loss == pytest.approx(plainly(embeddings, labels, 0.0), rel=1e-3)
