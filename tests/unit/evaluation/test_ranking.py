from fractions import Fraction

import numpy as np
import pytest
import torch

from fedreid_mpi.algorithms import seeds
from fedreid_mpi.evaluation import ranking
from fedreid_mpi.evaluation.ranking import SHOTS, evaluate_ranking
from fedreid_mpi.records import CMC_RANKS
from support.rankings import random_case


def exact_order(query, gallery):
    """Gallery indices by exact rational comparison of the cosine, ties by index."""

    def signed_square(row):
        dot = sum(int(a) * int(b) for a, b in zip(query, row, strict=True))
        length = sum(int(b) ** 2 for b in row)
        return Fraction(dot * abs(dot), length) if length else Fraction(0)

    return sorted(range(len(gallery)), key=lambda index: (-signed_square(gallery[index]), index))


def kept(order, pid, camid, pids, camids):
    return [i for i in order if pids[i] != -1 and not (pids[i] == pid and camids[i] == camid)]


def oracle(case, trapezoid=False):
    """Scores of each query by the definitions, with exact fractions: (AP, INP, r_1), or None."""
    scores = []
    for features, pid, camid in zip(case["qf"], case["qp"], case["qc"], strict=True):
        order = kept(exact_order(features, case["gf"]), pid, camid, case["gp"], case["gc"])
        ranks = [rank for rank, i in enumerate(order, 1) if case["gp"][i] == pid]
        if not ranks:
            scores.append(None)
            continue
        total = Fraction(0)
        for found, rank in enumerate(ranks, 1):
            precision = Fraction(found, rank)
            if trapezoid:
                before = Fraction(found - 1, rank - 1) if rank > 1 else Fraction(1)
                precision = (precision + before) / 2
            total += precision
        scores.append((total / len(ranks), Fraction(len(ranks), ranks[-1]), ranks[0]))
    return scores


def evaluate(case, **options):
    arrays = [np.array(case[name], np.float32 if name[1] == "f" else np.int64) for name in case]
    return evaluate_ranking(*arrays, **options)


def case_with_ranks(ranks, gallery=5):
    """One query whose matches stand at the given ranks."""
    angles = np.arange(1, gallery + 1) * 0.1
    gf = np.stack([np.cos(angles), np.sin(angles)], 1)
    gp = [7 if rank in ranks else 8 for rank in range(1, gallery + 1)]
    return {"qf": [[1, 0]], "qp": [7], "qc": [0], "gf": gf, "gp": gp, "gc": [1] * gallery}


@pytest.mark.parametrize(
    ("ranks", "standard", "trapezoid", "inp"),
    [
        ({2}, 0.5, 0.25, 0.5),
        ({1, 3}, 5 / 6, 19 / 24, 2 / 3),
        ({1, 2, 3}, 1.0, 1.0, 1.0),
        ({2, 5}, (1 / 2 + 2 / 5) / 2, ((1 / 2 + 0) / 2 + (2 / 5 + 1 / 4) / 2) / 2, 2 / 5),
    ],
)
def test_vectors(ranks, standard, trapezoid, inp):
    case = case_with_ranks(ranks)
    assert evaluate(case).mean_ap == pytest.approx(standard, abs=1e-12)
    assert evaluate(case, protocol="published").mean_ap == pytest.approx(trapezoid, abs=1e-12)
    for protocol in ("standard", "published"):
        result = evaluate(case, protocol=protocol)
        assert result.mean_inp == pytest.approx(inp, abs=1e-12)
        assert result.cmc.tolist() == [float(k >= min(ranks)) for k in range(1, CMC_RANKS + 1)]


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("protocol", ["standard", "published"])
def test_equals_plain_definition(seed, protocol):
    case = random_case(seed)
    expected = oracle(case, trapezoid=protocol == "published")
    result = evaluate(case, protocol=protocol)
    matched = [score for score in expected if score is not None]
    count = len(expected) if protocol == "published" else len(matched)

    for i, score in enumerate(expected):
        if score is None:
            assert np.isnan(result.average_precision[i])
            assert np.isnan(result.inverse_negative_penalty[i])
            assert result.first_match[i] == 0
        else:
            assert result.average_precision[i] == pytest.approx(float(score[0]), abs=1e-12)
            assert result.inverse_negative_penalty[i] == float(score[1])
            assert result.first_match[i] == score[2]
    assert (result.queries, result.unmatched) == (len(matched), len(expected) - len(matched))
    assert result.unmatched >= 2
    assert result.mean_ap == pytest.approx(float(sum(score[0] for score in matched) / count), abs=1e-12)
    assert result.mean_inp == pytest.approx(float(sum(score[1] for score in matched) / count), abs=1e-12)
    cmc = [float(Fraction(sum(score[2] <= k for score in matched), count)) for k in range(1, CMC_RANKS + 1)]
    assert result.cmc.tolist() == cmc


def shot_oracle(case, seed):
    """First-match ranks, draws x queries: in each draw keep of each person the first usable image."""
    ranks = []
    for draw in range(SHOTS):
        turns = seeds.generator(seed, "single-gallery-shot", draw).permutation(len(case["gp"])).tolist()
        row = []
        for features, pid, camid in zip(case["qf"], case["qp"], case["qc"], strict=True):
            usable = kept(turns, pid, camid, case["gp"], case["gc"])
            shown = {}
            for i in usable:
                shown.setdefault(case["gp"][i], i)
            order = [i for i in exact_order(features, case["gf"]) if i in shown.values()]
            row.append(order.index(shown[pid]) + 1 if pid in shown else 0)
        ranks.append(row)
    return np.array(ranks)


@pytest.mark.parametrize("seed", range(15))
def test_single_gallery_shot_equals_plain_definition(seed):
    case = random_case(seed, people=12)
    expected = shot_oracle(case, seed)
    result = evaluate(case, protocol="single-gallery-shot", seed=seed)
    matched = expected[0] > 0
    assert (result.queries, result.unmatched) == (matched.sum(), (~matched).sum())
    np.testing.assert_allclose(result.first_match, expected.mean(0), rtol=1e-12)
    cmc = [(expected[:, matched] <= k).mean() for k in range(1, CMC_RANKS + 1)]
    np.testing.assert_allclose(result.cmc, cmc, rtol=1e-12)
    assert np.isnan(result.mean_ap)
    assert np.isnan(result.mean_inp)
    assert np.isnan(result.average_precision).all()


def test_single_gallery_shot_draws_each_image_about_equally_often():
    # One query, its person's images at angles 0.2, 0.4, ... and one other person in between each time:
    # the mean rank over many seeds says how often each image was drawn.
    case = {"qf": [[1, 0]], "qp": [1], "qc": [0], "gp": [1, 2, 1, 1], "gc": [1, 1, 1, 0]}
    case["gf"] = [[np.cos(a), np.sin(a)] for a in (0.2, 0.3, 0.4, 0.1)]
    case = {name: case[name] for name in ("qf", "qp", "qc", "gf", "gp", "gc")}
    firsts = [evaluate(case, protocol="single-gallery-shot", seed=seed).cmc[0] for seed in range(100)]
    assert np.mean(firsts) == pytest.approx(0.5, abs=0.06)  # 1,000 draws: four standard deviations
    assert len(set(firsts)) > 1


def test_single_match_identity():
    # With one match a query, trapezoid mAP is the mean of standard mAP and rank-1.
    generator = np.random.default_rng(3)
    features = generator.standard_normal((2, 60, 8))
    pids = np.arange(60)
    arrays = (features[0], pids, np.zeros(60), features[0] + features[1], pids, np.ones(60))
    standard, published = evaluate_ranking(*arrays), evaluate_ranking(*arrays, protocol="published")
    assert 0 < standard.cmc[0] < 1
    assert published.mean_ap == pytest.approx((standard.mean_ap + standard.cmc[0]) / 2, abs=1e-12)


def same_arrays(first, second, query_order=slice(None)):
    np.testing.assert_array_equal(first.cmc, second.cmc)
    np.testing.assert_equal((first.mean_ap, first.mean_inp), (second.mean_ap, second.mean_inp))
    for name in ("average_precision", "inverse_negative_penalty", "first_match"):
        np.testing.assert_array_equal(getattr(first, name)[query_order], getattr(second, name))


@pytest.mark.parametrize("protocol", ["standard", "published", "single-gallery-shot"])
@pytest.mark.parametrize("elements", [1, 90, 170])
def test_block_size_does_not_show(monkeypatch, protocol, elements):
    case = random_case(5)
    whole = evaluate(case, protocol=protocol)
    monkeypatch.setattr(ranking, "BLOCK_ELEMENTS", elements)
    seen = []
    same_arrays(whole, evaluate(case, protocol=protocol, advance=seen.append))
    assert sum(seen) == len(case["qf"])
    assert len(seen) == -(-len(case["qf"]) // max(1, elements // len(case["gf"])))


@pytest.mark.parametrize("protocol", ["standard", "published", "single-gallery-shot"])
def test_query_order_permutes_results_alone(protocol):
    case = random_case(6)
    order = np.random.default_rng(0).permutation(len(case["qf"]))
    shuffled = case | {name: [case[name][i] for i in order] for name in ("qf", "qp", "qc")}
    same_arrays(evaluate(case, protocol=protocol), evaluate(shuffled, protocol=protocol), order)


def test_gallery_order_shows_only_in_ties():
    generator = np.random.default_rng(4)
    case = random_case(7) | {
        "qf": generator.standard_normal((12, 16)),
        "gf": generator.standard_normal((40, 16)),
    }
    order = generator.permutation(40)
    shuffled = case | {name: [case[name][i] for i in order] for name in ("gf", "gp", "gc")}
    same_arrays(evaluate(case), evaluate(shuffled))


def test_identical_images_rank_by_index():
    # A match and 199 negatives with the very same features, in odd dimensions and a block of 70 queries.
    generator = np.random.default_rng(8)
    image = generator.standard_normal(131).astype(np.float32)
    for position in (0, 17, 199):
        gp = np.full(200, 2)
        gp[position] = 1
        queries = generator.standard_normal((70, 131)).astype(np.float32)
        result = evaluate_ranking(
            queries, np.ones(70), np.zeros(70), np.tile(image, (200, 1)), gp, np.ones(200)
        )
        assert (result.first_match == position + 1).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_arrays_and_tensors_give_the_same_and_stay_untouched(dtype):
    case = random_case(9)
    arrays = [np.array(case[name], dtype if name[1] == "f" else np.int32) for name in case]
    tensors = [torch.tensor(array) for array in arrays]
    for array in arrays:
        array.flags.writeable = False
    copies = [tensor.clone() for tensor in tensors]
    same_arrays(evaluate_ranking(*arrays), evaluate_ranking(*tensors))
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(tensors, copies, strict=True))


def test_length_of_features_does_not_matter():
    case = random_case(10)
    scaled = case | {"gf": [[4096 * x for x in row] for row in case["gf"]]}
    same_arrays(evaluate(case), evaluate(scaled))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("protocol", "cmc"), [("standard", np.nan), ("published", 0.0)])
def test_no_query_matches(protocol, cmc):
    case = case_with_ranks(set())
    result = evaluate(case, protocol=protocol)
    np.testing.assert_equal(result.cmc, np.full(CMC_RANKS, cmc))
    np.testing.assert_equal((result.mean_ap, result.mean_inp), (cmc, cmc))
    assert (result.queries, result.unmatched) == (0, 1)


@pytest.mark.parametrize("beyond", [0, 1])
def test_the_last_rank_counts_and_none_beyond_it(beyond):
    case = case_with_ranks({CMC_RANKS + beyond}, gallery=CMC_RANKS + 2)
    angles = np.arange(CMC_RANKS + 2) * 0.01
    case["gf"] = np.stack([np.cos(angles), np.sin(angles)], 1)
    result = evaluate(case)
    assert result.first_match.tolist() == [CMC_RANKS + beyond]
    assert result.cmc.tolist() == [0.0] * (CMC_RANKS - 1) + [1.0 - beyond]


def test_unless_said_otherwise_shots_are_drawn_with_seed_0():
    case = random_case(3, people=12)
    default, *seeded = (
        evaluate(case, protocol="single-gallery-shot", **seed) for seed in ({}, {"seed": 0}, {"seed": 1})
    )
    same_arrays(default, seeded[0])
    assert default.first_match.tolist() != seeded[1].first_match.tolist()


def test_scores_are_those_of_the_ranking():
    result = evaluate(random_case(11))
    scores = result.scores()
    assert (scores.mean_ap, scores.mean_inp) == (result.mean_ap, result.mean_inp)
    assert (scores.queries, scores.unmatched) == (result.queries, result.unmatched)
    assert scores.cmc is result.cmc


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"qp": [1]}, r"query pids have shape \(1,\), expected \(12,\)"),
        ({"gc": [[1]]}, r"gallery camids have shape \(1, 1\), expected \(40,\)"),
        ({"qf": [1.0] * 12}, r"query features have shape \(12,\), expected \(images, dimensions\)"),
        ({"gf": np.zeros((0, 3))}, r"gallery features have shape \(0, 3\)"),
        ({"gf": np.zeros((40, 4))}, "query features have 3 dimensions, gallery 4"),
        ({"gf": [[0, 0, 0]] * 38 + [[0, np.inf, 0], [np.nan, 0, 0]]}, "gallery .* in 2 rows, first 38"),
    ],
)
def test_bad_input_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        evaluate(random_case(0) | change)


def test_unknown_protocol_is_named():
    with pytest.raises(
        ValueError, match="'strict', expected one of standard, published, single-gallery-shot"
    ):
        evaluate(random_case(0), protocol="strict")
