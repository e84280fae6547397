"""The device of a rank, and how it calculates."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from fedreid_mpi import config
from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.wording import counted

# Read by cuBLAS once, when it starts; without it, its sums may be ordered differently from call to call. A
# later run of this process may want them in order, so it is set before any work is done on a GPU.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def choose_device(settings: config.Compute, index: int, count: int, host: str) -> torch.device:
    """Choose the device of one rank: of the node's GPUs that of its index, or the only one that it is shown.

    Launchers may show each task a GPU of its own; `gpu_id` tells whether it is.

    Parameters
    ----------
    settings
        The experiment's ``[compute]`` section.
    index
        The rank's index among the client ranks of its node, from 0.
    count
        Number of client ranks on the node.
    host
        Name of the node, for the message.

    Raises
    ------
    ConfigurationError
        If a GPU is demanded and there is none, or there are several, though fewer than client ranks, and
        sharing is not allowed.
    """
    gpus = torch.cuda.device_count() if settings.device != "cpu" else 0
    if gpus == 0:
        if settings.device == "cuda":
            raise ConfigurationError(f'compute.device is "cuda", but {host} offers no GPU')
        return torch.device("cpu")
    if count > gpus > 1 and not settings.share_gpus:
        raise ConfigurationError(
            f"{host} has {counted(gpus, 'GPU')} for {counted(count, 'client rank')}; start fewer, "
            "or set compute.share_gpus = true"
        )
    return torch.device("cuda", index % gpus)


def gpu_id(device: torch.device) -> str:
    """Identify a GPU, or a part of one, the same for all processes of a node that use it; empty for a CPU.

    It is the UUID; where torch does not tell it, the word for it in ``CUDA_VISIBLE_DEVICES``.
    """
    if device.type != "cuda":
        return ""
    try:
        return str(torch.cuda.get_device_properties(device).uuid)
    except (AttributeError, AssertionError, RuntimeError):
        words = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        index = device.index or 0
        return words[index] if index < len(words) and words[index] else str(index)


def set_arithmetic(settings: config.Compute, device: torch.device) -> None:
    """Set the threads and the arithmetic of this process, whatever an earlier run has set."""
    torch.set_num_threads(settings.threads)
    torch.backends.cuda.matmul.allow_tf32 = settings.precision == "tf32"
    torch.backends.cudnn.allow_tf32 = settings.precision == "tf32"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.use_deterministic_algorithms(settings.deterministic)
    # Fresh memory is not filled, as torch would now do: nothing here reads it before writing it, and filling
    # takes 5 % of a round.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not settings.deterministic


def memory_format(settings: config.Compute, device: torch.device) -> torch.memory_format:
    """Return how images and filters are laid out: NHWC makes convolutions on CPUs faster."""
    auto, chosen = device.type == "cpu", settings.channels_last
    return torch.channels_last if (auto if chosen == "auto" else chosen) else torch.contiguous_format


def autocast(settings: config.Compute, device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which the network runs: bfloat16 where it is asked for."""
    if settings.precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


@contextmanager
def torch_randomness(device: torch.device, seed: int) -> Iterator[None]:
    """Seed torch's global generators, from which dropout draws, and put them back as they were."""
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        # Not `torch.manual_seed`: it keeps a traceback of each call for a CUDA that may never start.
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
