import os
import subprocess
import sys

import pytest
import torch

from fedreid_mpi import config
from fedreid_mpi.comm import PhaseError, SingleCommunicator
from fedreid_mpi.device import autocast, choose_device, set_arithmetic
from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.run.consistency import View, require_own_gpus

CPU = torch.device("cpu")


@pytest.fixture
def gpus(monkeypatch):
    """Pretend that the node has so many."""
    return lambda count: monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.fixture
def arithmetic():
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.set_num_threads(1)


def test_auto_takes_the_cpu_where_there_is_no_gpu(gpus):
    gpus(0)
    assert choose_device(config.Compute(), 0, 9, "node1") == CPU


def test_the_cpu_is_taken_when_asked_for(gpus):
    gpus(2)
    assert choose_device(config.Compute(device="cpu"), 0, 9, "node1") == CPU


def test_a_demanded_gpu_must_be_there(gpus):
    gpus(0)
    with pytest.raises(ConfigurationError, match=r'compute.device is "cuda", but node1 offers no GPU'):
        choose_device(config.Compute(device="cuda"), 0, 1, "node1")


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_each_client_rank_of_a_node_has_its_own_gpu(device, gpus):
    gpus(4)
    settings = config.Compute(device=device)
    assert [choose_device(settings, index, 3, "node1").index for index in range(3)] == [0, 1, 2]


def test_too_few_gpus_must_be_shared_on_purpose(gpus):
    gpus(2)
    with pytest.raises(ConfigurationError, match=r"node1 has 2 GPUs for 5 client ranks.*share_gpus = true"):
        choose_device(config.Compute(), 0, 5, "node1")
    shared = config.Compute(share_gpus=True)
    assert [choose_device(shared, index, 5, "node1").index for index in range(5)] == [0, 1, 0, 1, 0]


def test_the_only_gpu_that_a_rank_is_shown_is_its_own(gpus):
    gpus(1)
    assert [choose_device(config.Compute(), index, 4, "node1").index for index in range(4)] == [0, 0, 0, 0]


class Ranks(SingleCommunicator):
    """The server of three ranks on one node, with what the others say of their GPUs."""

    def __init__(self, *others):
        super().__init__()
        self.size, self.others = 3, others

    def _gather(self, value):
        if not isinstance(value, View):
            return [value] * self.size
        return [View("node1", (gpu,)) for gpu in (*value.found, *self.others)]


def test_ranks_that_share_a_gpu_are_told_by_its_uuid():
    require_own_gpus(Ranks("GPU-1", "GPU-2"), CPU, share=False)
    require_own_gpus(Ranks("", ""), CPU, share=False)
    require_own_gpus(Ranks("GPU-1", "GPU-1"), CPU, share=True)
    with pytest.raises(
        PhaseError, match=r"^node1 has 1 GPU for 2 client ranks; .*ranks 1 and 2 are on GPU-1\)$"
    ):
        require_own_gpus(Ranks("GPU-1", "GPU-1"), CPU, share=False)


@pytest.mark.parametrize(("precision", "allowed"), [("fp32", False), ("tf32", True), ("bf16", False)])
def test_tf32_is_used_only_when_asked_for(precision, allowed, arithmetic):
    torch.backends.cudnn.allow_tf32 = not allowed
    set_arithmetic(config.Compute(precision=precision), CPU)
    assert torch.backends.cuda.matmul.allow_tf32 is allowed
    assert torch.backends.cudnn.allow_tf32 is allowed


def test_threads_and_determinism_are_set(arithmetic):
    set_arithmetic(config.Compute(threads=2), CPU)
    assert torch.get_num_threads() == 2
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory
    assert not torch.backends.cudnn.benchmark
    set_arithmetic(config.Compute(threads=2, deterministic=False), CPU)  # the next run of a study
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.benchmark


def test_cublas_is_told_to_keep_its_order_before_it_could_start():
    """Whatever the first run of a process wants."""
    program = "import os, fedreid_mpi.run.loop; print(os.environ['CUBLAS_WORKSPACE_CONFIG'])"
    environment = {name: value for name, value in os.environ.items() if name != "CUBLAS_WORKSPACE_CONFIG"}
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ended.stdout == ":4096:8\n", ended.stderr


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_network_runs_in_bfloat16_only_when_asked_for(precision, dtype):
    with autocast(config.Compute(precision=precision), CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
