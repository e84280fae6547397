"""The device of a rank, and how it calculates."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from fedreid_mpi import config
from fedreid_mpi.errors import ConfigurationError


def choose_device(settings: config.Compute, index: int, count: int, host: str) -> torch.device:
    """Choose the device of one rank.

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
        If a GPU is demanded and there is none, or the node has fewer GPUs than client ranks and sharing is
        not allowed.
    """
    gpus = torch.cuda.device_count() if settings.device != "cpu" else 0
    if gpus == 0:
        if settings.device == "cuda":
            raise ConfigurationError(f'compute.device is "cuda", but {host} offers no GPU')
        return torch.device("cpu")
    if count > gpus and not settings.share_gpus:
        raise ConfigurationError(
            f"{host} has {gpus} GPUs for {count} client ranks; start fewer, or set compute.share_gpus = true"
        )
    return torch.device("cuda", index % gpus)


def set_arithmetic(settings: config.Compute, device: torch.device) -> None:
    """Set the threads and the arithmetic of this process."""
    torch.set_num_threads(settings.threads)
    torch.backends.cuda.matmul.allow_tf32 = settings.precision == "tf32"
    torch.backends.cudnn.allow_tf32 = settings.precision == "tf32"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if settings.deterministic:
        # Read by cuBLAS when it starts; without it, its sums may be ordered differently from call to call.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
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
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
