import numpy as np
import pytest
import torch

from fedreid_mpi.evaluation import ranking
from fedreid_mpi.evaluation.distances import STEPS, Rows
from fedreid_mpi.evaluation.ranking import evaluate_ranking
from fedreid_mpi.evaluation.reranking import Reranking
from support.rankings import people

CPU = torch.device("cpu")


def paper(query, gallery, k1=20, k2=6, weight=0.3):
    """The paper's equations over dense matrices and Python sets: final distances, (Q, G)."""
    features = np.vstack([query, gallery]).astype(np.float64)
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    features = features / np.where(lengths == 0, 1, lengths)
    # The one thing taken over is the rounding of similarities, as it decides ties.
    squares = 2 - 2 * np.round(features @ features.T * 2**30) / 2**30
    count = len(squares)
    largest = squares.max(1, keepdims=True)
    original = squares / np.where(largest == 0, 1, largest)

    by_distance = [sorted(range(count), key=lambda g: (g != p, squares[p, g], g)) for p in range(count)]

    def nearest(p, k):
        return by_distance[p][: k + 1]

    def reciprocal(p, k):  # equation 3
        return {g for g in nearest(p, k) if p in nearest(g, k)}

    encoding = np.zeros((count, count))
    for p in range(count):
        close = reciprocal(p, k1)
        expanded = set(close)
        for q in close:  # equation 5
            candidates = reciprocal(q, round(k1 / 2))
            if 3 * len(candidates & close) > 2 * len(candidates):
                expanded |= candidates
        for g in expanded:  # equation 7
            encoding[p, g] = np.exp(-original[p, g])
        encoding[p] /= encoding[p].sum()
    encoding = np.array([encoding[by_distance[p][:k2]].mean(0) for p in range(count)])  # equation 11

    final = np.empty((len(query), len(gallery)))
    for p in range(len(query)):
        for g in range(len(gallery)):
            pair = encoding[[p, len(query) + g]]
            jaccard = 1 - pair.min(0).sum() / pair.max(0).sum()  # equation 10
            final[p, g] = (1 - weight) * jaccard + weight * original[p, len(query) + g]  # equation 12
    return final


def reranked(query, gallery, **settings):
    rows = Rows.of("query", query, CPU), Rows.of("gallery", gallery, CPU)
    return torch.cat([block.clone() for block in Reranking(**settings)(*rows)]).numpy()


@pytest.mark.parametrize("seed", range(6))
def test_equals_the_paper(seed):
    query, _, _, gallery, _, _ = people(seed)
    expected = paper(query, gallery)
    found = reranked(query, gallery)
    assert np.abs(found - expected * STEPS).max() <= 1  # a step is 2**-30
    assert len(np.unique(expected)) > 0.9 * expected.size
    np.testing.assert_array_equal(np.argsort(found, axis=1), np.argsort(expected, axis=1))


@pytest.mark.parametrize(
    "settings",
    [
        {"k1": 7, "k2": 3, "weight": 0.5},
        {"k1": 5, "k2": 1, "weight": 0.0},
        {"k1": 1, "k2": 1, "weight": 0.3},
        {"k1": 200, "k2": 150, "weight": 0.1},  # more than there are images
        {"k1": 104, "k2": 104, "weight": 0.1},  # as many as there are others
    ],
)
def test_equals_the_paper_for_other_settings(settings):
    query, _, _, gallery, _, _ = people(7)
    found = reranked(query, gallery, **settings)
    assert np.abs(found - paper(query, gallery, **settings) * STEPS).max() <= 1


@pytest.mark.parametrize("seed", range(4))
def test_ties_go_to_the_lower_index(seed):
    # Small integers: many equal distances, images with the same features, zero vectors.
    draw = np.random.default_rng(seed)
    query, gallery = draw.integers(-1, 2, (10, 3)), draw.integers(-1, 2, (60, 3))
    settings = {"k1": 6, "k2": 2}
    found = reranked(query.astype(np.float32), gallery.astype(np.float32), **settings)
    assert np.abs(found - paper(query, gallery, **settings) * STEPS).max() <= 1


def test_images_that_are_all_the_same():
    # Each is the first of its own neighbours, whatever their number, and no distance is 0 / 0.
    query, gallery = np.ones((2, 4)), np.ones((50, 4))
    found = reranked(query, gallery)
    assert np.isfinite(found).all()
    assert np.abs(found - paper(query, gallery) * STEPS).max() <= 1


def test_jaccard_distance_by_hand():
    # Two queries and two images on a circle: a at 0 and 0.1, b at 2 and 2.1 (radians), k1 = k2 = 1.
    angles = np.array([0.0, 2.0, 0.1, 2.1])
    features = np.stack([np.cos(angles), np.sin(angles)], 1)
    found = reranked(features[:2], features[2:], k1=1, k2=1, weight=0.0) / STEPS

    def share(angle, largest):  # squared distance over the largest one
        return (1 - np.cos(angle)) / (1 - np.cos(largest))

    # Both images of a pair are each other's neighbours; their weights are exp(-0) and exp(-share), in turn.
    first, second = np.exp(-share(0.1, 2.1)), np.exp(-share(0.1, 2.0))
    query, image = np.array([1, first]) / (1 + first), np.array([second, 1]) / (1 + second)
    expected = 1 - np.minimum(query, image).sum() / np.maximum(query, image).sum()
    assert found[0, 0] == pytest.approx(expected, abs=1e-9)
    assert found[0, 1] == found[1, 0] == 1  # nothing shared


@pytest.mark.parametrize("elements", [1, 300, 4000])
def test_block_size_does_not_show(monkeypatch, elements):
    case = people(8)
    whole = reranked(case[0], case[3])
    monkeypatch.setattr(ranking, "BLOCK_ELEMENTS", elements)
    seen = []
    np.testing.assert_array_equal(reranked(case[0], case[3], advance=seen.append), whole)
    assert sum(seen) == 105


def test_the_original_distance_alone_changes_nothing():
    case = people(9)
    plain = evaluate_ranking(*case)
    same = evaluate_ranking(*case, distances=Reranking(weight=1.0))
    np.testing.assert_array_equal(same.average_precision, plain.average_precision)


@pytest.mark.parametrize("protocol", ["standard", "published"])
def test_scores_are_those_of_the_distances(protocol):
    # The distances as angles on half a circle: their cosines rank in the same order.
    query, qp, qc, gallery, gp, gc = people(10)
    found = evaluate_ranking(query, qp, qc, gallery, gp, gc, protocol, distances=Reranking())
    angles = paper(query, gallery) * np.pi
    for i in range(len(query)):
        plane = np.stack([np.cos(angles[i]), np.sin(angles[i])], 1)
        one = evaluate_ranking([[1.0, 0.0]], qp[i : i + 1], qc[i : i + 1], plane, gp, gc, protocol)
        np.testing.assert_array_equal(found.average_precision[i], one.average_precision[0])
        assert found.first_match[i] == one.first_match[0]
    plain = evaluate_ranking(query, qp, qc, gallery, gp, gc, protocol)
    assert found.mean_ap > plain.mean_ap  # what it is for


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k1": 0, "k2": 0}, "k1 = 0, k2 = 0, expected k1 >= k2 >= 1"),
        ({"k1": 5, "k2": 6}, "k1 = 5, k2 = 6"),
        ({"weight": 1.5}, r"lambda = 1.5, expected 0 to 1"),
    ],
)
def test_settings_without_meaning_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Reranking(**settings)
