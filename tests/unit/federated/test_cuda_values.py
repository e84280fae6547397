"""What a GPU makes of values, on a machine without one: the figures are the CPU's.

The tensors hold values of the CPU and are labelled ``cuda``; operations that mix devices are refused.
"""

import numpy as np
import pytest
import torch

from fedreid_mpi.config import Augmentation, Compute, Model
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.data.batches import augment
from fedreid_mpi.evaluation import features, score_split
from fedreid_mpi.evaluation.features import extract_parts
from fedreid_mpi.evaluation.ranking import cosine_distances, evaluate_ranking
from fedreid_mpi.evaluation.reranking import Reranking
from fedreid_mpi.evaluation.splits import Scoring, images_to_score
from fedreid_mpi.federated.sums import MODELS
from fedreid_mpi.model import build_network
from fedreid_mpi.records.pixels import IMAGENET
from support.client_sums import LENGTH, add_clients
from support.fake_cuda import CPU, CUDA, MIXED, DeviceMixError, labelled_cuda
from support.rankings import people, random_case, same
from support.small import EXPERIMENT, write_site


def test_a_mix_of_labels_is_caught():
    with labelled_cuda():
        there, here = torch.ones(3, device=CUDA), torch.ones(3)
        assert (there.device, (there + 1).device, there.cpu().device) == (CUDA, CUDA, CPU)
        assert (there + torch.tensor(2.0)).cpu().tolist() == [3, 3, 3]  # a number, which a GPU allows
        for mix in (lambda: there + here, lambda: here[there.long()], lambda: torch.cat([here, there])):
            with pytest.raises(DeviceMixError, match=MIXED):
                mix()
        with pytest.raises(RuntimeError, match="numpy"):
            there.numpy()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("protocol", ["standard", "published", "single-gallery-shot"])
def test_a_gpu_ranks_as_a_cpu_does(protocol, seed):
    """Ties, junk, unmatched queries and zero vectors among them; the gallery comes to the queries' device."""
    arrays = {name: np.array(values) for name, values in random_case(seed).items()}
    arrays |= {name: arrays[name].astype(np.float32) for name in ("qf", "gf")}
    expected = evaluate_ranking(*arrays.values(), protocol=protocol)
    with labelled_cuda():
        arrays["qf"] = torch.from_numpy(arrays["qf"]).to(CUDA)
        same(evaluate_ranking(*arrays.values(), protocol=protocol), expected)
        arrays |= {name: torch.from_numpy(arrays[name]).to(CUDA) for name in arrays if name != "qf"}
        same(evaluate_ranking(*arrays.values(), protocol=protocol), expected)


@pytest.mark.parametrize("seed", range(2))
def test_a_gpu_reranks_as_a_cpu_does(seed):
    query, qp, qc, gallery, gp, gc = people(seed)
    query[:3] = query[3]  # ties
    expected = evaluate_ranking(query, qp, qc, gallery, gp, gc, distances=Reranking())
    with labelled_cuda():
        there = [torch.from_numpy(each).to(CUDA) for each in (query, gallery)]
        same(evaluate_ranking(there[0], qp, qc, there[1], gp, gc, distances=Reranking()), expected)


def test_distances_left_on_the_host_are_caught():
    def on_the_host(query, gallery):
        yield from (block.cpu() for block in cosine_distances(query, gallery))

    query, qp, qc, gallery, gp, gc = people(1)
    with labelled_cuda():
        there = torch.from_numpy(query).to(CUDA)
        with pytest.raises(DeviceMixError, match=MIXED):
            evaluate_ranking(there, qp, qc, gallery, gp, gc, distances=on_the_host)


def test_a_gpu_augments_as_a_cpu_does():
    settings = Augmentation(pad=2, jitter=(0.2, 0.2, 0.2, 0.1), erasing=0.5)
    images = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (6, 32, 16, 3), np.uint8))
    expected = augment(images, IMAGENET, settings, np.random.default_rng(2))
    with labelled_cuda():
        found = augment(images.to(CUDA), IMAGENET, settings, np.random.default_rng(2))
        assert found.device == CUDA
        assert torch.equal(found.cpu(), expected)


def test_a_gpu_scores_a_split_as_a_cpu_does(tmp_path, monkeypatch):
    monkeypatch.setitem(features.BATCH, "cuda", features.BATCH["cpu"])  # another size has other last bits
    archive = DatasetArchive.open(write_site(tmp_path / "one.h5", images=4))
    settings = Model.model_validate(EXPERIMENT["model"])

    def score(device):
        network = build_network(settings, None, 3).place(device, torch.contiguous_format)
        extracted = extract_parts(network, archive, images_to_score(archive, [0]), Compute(), True)
        assert extracted.features.device == device
        return score_split(extracted, 0, Scoring(distances=Reranking(k1=4, k2=2)))

    expected = score(CPU)
    with labelled_cuda():
        same(score(CUDA), expected)


def test_a_gpu_sums_as_a_cpu_does():
    expected = add_clients(CPU)
    with labelled_cuda():
        found = add_clients(CUDA)
        np.testing.assert_array_equal(found.total(MODELS, 0).values, expected.total(MODELS, 0).values)
        for get in (lambda sums: sums.lone_model(2), lambda sums: sums.statistics(1)):
            assert torch.equal(get(found), get(expected))
        total, values = torch.zeros(LENGTH, dtype=torch.int64), torch.zeros(LENGTH).to(CUDA)
        with pytest.raises(DeviceMixError, match=MIXED):
            found.vectors[MODELS].add(total, values, 1.0)
