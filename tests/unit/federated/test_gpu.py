"""What only a real GPU can show: `pytest -m gpu`. Its paths without one are in `test_cuda_paths.py`."""

import time

import numpy as np
import pytest
import torch

from fedreid_mpi.config import Compute, Experiment
from fedreid_mpi.device import choose_device, gpu_id, set_arithmetic, torch_randomness
from fedreid_mpi.evaluation.ranking import cosine_distances, evaluate_ranking
from fedreid_mpi.evaluation.reranking import Reranking
from fedreid_mpi.federated.sums import MODELS
from fedreid_mpi.records import RoundPlan
from support.client_sums import add_clients
from support.learners import learner
from support.rankings import people, same
from support.small import EXPERIMENT, write_site

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU on this machine"),
]

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)

STEPS = 4  # 26 images, eight at a time


@pytest.fixture
def site(tmp_path):
    return write_site(tmp_path / "site.h5", images=26, people=3)


@pytest.fixture(autouse=True)
def arithmetic():
    """Undo what `set_arithmetic` sets for the whole process."""
    threads = torch.get_num_threads()
    yield
    set_arithmetic(Compute(deterministic=False, threads=threads), CUDA)
    torch.backends.cudnn.benchmark = False


def on(device, site, **sections):
    content = {name: dict(keys) for name, keys in EXPERIMENT.items()} | {"data": {"archives": [site]}}
    content["compute"] = {"device": device.type}
    for name, keys in sections.items():
        content[name] = content.get(name, {}) | keys
    experiment = Experiment.model_validate(content)
    set_arithmetic(experiment.compute, device)
    return learner(site, experiment, device=device)


def plan(round=1):
    return RoundPlan(round=round, participants=(0,), learning_rate=0.05, evaluate=False)


@pytest.mark.parametrize(
    "backbone",
    [
        *("small", "resnet18", "resnet50_ibn_a", "resnet50_ibn_b", "osnet_x1_0", "mobilenet_v2"),
        *("vit_small_ics", "timm:test_vit", "timm:test_efficientnet", "timm:swin_tiny_patch4_window7_224"),
    ],
)
def test_two_runs_have_the_same_bits(backbone, site):
    """With ``compute.deterministic``, on one kind of GPU; dropout draws from the GPU's own generator."""

    def run():
        model = {"backbone": backbone, "dropout": 0.5}
        client = on(CUDA, site, model=model, compute={"deterministic": True})
        losses = [client.train(plan(round)).loss for round in (1, 2)]
        return losses, client.model.buffer.cpu(), client.probe(plan())

    (losses, model, logits), (losses_again, model_again, logits_again) = run(), run()
    assert losses == losses_again
    assert torch.equal(model, model_again)
    np.testing.assert_array_equal(logits, logits_again)


def test_the_first_loss_is_that_of_a_cpu(site):
    """Of one batch that holds all images, before its step; sums are ordered differently."""
    whole = {
        "federation": {"batch_size": 32},
        "augmentation": {"jitter": (0.2, 0.2, 0.2, 0.1), "erasing": 0.5},
    }
    there, here = (on(device, site, **whole).train(plan()) for device in (CUDA, CPU))
    assert there.steps == here.steps == 1
    assert there.loss == pytest.approx(here.loss, rel=1e-3)


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_every_precision_trains_to_finite_values(precision, site):
    if precision == "bf16" and not torch.cuda.is_bf16_supported():
        pytest.skip("this GPU has no bfloat16")
    client = on(CUDA, site, compute={"precision": precision})
    losses = [client.train(plan(round)).loss for round in range(1, 9)]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    assert client.model.buffer.isfinite().all()


def test_turns_do_not_add_up_in_memory(site):
    client = on(CUDA, site)
    client.train(plan(0))  # the first turn loads libraries and their workspaces
    kept, peaks = [], []
    for round in range(1, 5):
        torch.cuda.reset_peak_memory_stats(CUDA)
        client.train(plan(round))
        kept.append(torch.cuda.memory_allocated(CUDA))
        peaks.append(torch.cuda.max_memory_allocated(CUDA))
    assert len(set(kept)) == 1
    assert max(peaks) <= 1.05 * peaks[0]  # batches differ in how many images are mirrored


def test_ranks_are_bound_by_their_index():
    gpus = torch.cuda.device_count()
    bound = [choose_device(Compute(device="cuda"), index, gpus, "node1") for index in range(gpus)]
    assert [device.index for device in bound] == list(range(gpus))
    assert len({gpu_id(device) for device in bound}) == gpus
    for device in bound:
        set_arithmetic(Compute(), device)
        assert torch.cuda.current_device() == device.index
        assert torch.ones(1, device="cuda").device == device


def test_the_generator_of_the_gpu_is_lent():
    before = torch.cuda.get_rng_state(CUDA)
    drawn = []
    for _ in range(2):
        with torch_randomness(CUDA, 3):
            drawn.append(torch.rand(5, device=CUDA).tolist())
    assert drawn[0] == drawn[1]
    assert torch.equal(torch.cuda.get_rng_state(CUDA), before)


@pytest.mark.parametrize("distances", [cosine_distances, Reranking()], ids=["cosine", "re-ranked"])
def test_it_ranks_as_a_cpu_does(distances):
    query, qp, qc, gallery, gp, gc = people(1)
    query[:3] = query[3]  # ties
    there = [torch.from_numpy(each).to(CUDA) for each in (query, gallery)]
    expected = evaluate_ranking(query, qp, qc, gallery, gp, gc, distances=distances)
    same(evaluate_ranking(there[0], qp, qc, there[1], gp, gc, distances=distances), expected)


def test_it_sums_as_a_cpu_does():
    found, expected = (add_clients(device).total(MODELS, 0).values for device in (CUDA, CPU))
    np.testing.assert_array_equal(found, expected)


def test_throughput_is_told(site, record_property):
    """In the report of the tests, e.g. ``--junit-xml``; what is fast depends on the GPU."""
    client = on(CUDA, site, federation={"local_epochs": 20})
    client.train(plan(0))
    began = time.perf_counter()
    report = client.train(plan(1))
    seconds = time.perf_counter() - began
    assert report.steps == 20 * STEPS
    record_property("images_per_second", round(20 * report.images / seconds))
