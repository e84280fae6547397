"""BatchNorm: its layers, and the statistics of a batch in place of the running ones."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d


def batch_norms(network: nn.Module) -> list[BatchNorm]:
    """Return the BatchNorm layers of a network, in the order of its modules."""
    return [module for module in network.modules() if isinstance(module, BatchNorm)]


@contextmanager
def batch_statistics(network: nn.Module) -> Iterator[None]:
    """Lend a network the statistics of each batch that it is shown, with dropout off.

    Running statistics and counters stay as they are, to the bit. A batch must hold at least two images, as
    one alone has no variance. Afterwards the network is in evaluation mode.
    """
    layers = batch_norms(network)
    network.eval()
    for layer in layers:
        layer.train()
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True
            layer.eval()
