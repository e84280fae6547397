"""Models for other projects: state dicts under the names that torchreid, fast-reid and timm load."""

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.model.backbones.timm_models import PREFIX
from fedreid_mpi.model.files import StoredModel

RESNETS = ("resnet18", "resnet34", "resnet50")

KNOWN: Mapping[str, tuple[str, ...]] = {
    "torchreid": (*RESNETS, "resnet50_ibn_a", "resnet50_ibn_b", "osnet_x1_0"),
    "fastreid": (*RESNETS, "resnet50_ibn_a"),
    "timm": RESNETS,
}
"""Backbones whose tensors a project names as they are named here; timm also knows its own."""


def for_project(stored: StoredModel, project: str) -> dict[str, object]:
    """Return what a project's own loader takes.

    torchreid and timm are given the backbone alone, as they have no such embedding. fast-reid's head has one,
    a convolution without bias and a BatchNorm: it is given the embedding too, its bias taken into the mean
    that the BatchNorm subtracts, so that the features are the same.

    Parameters
    ----------
    stored
        The model.
    project
        ``torchreid``: ``{"state_dict": ...}``. ``fastreid``: ``{"model": ...}`` with ``backbone.*`` and
        ``heads.bottleneck.*``. ``timm``: flat.

    Raises
    ------
    ConfigurationError
        The project has no such network.
    """
    backbone = stored.settings.backbone
    if backbone not in KNOWN[project] and not (project == "timm" and backbone.startswith(PREFIX)):
        also = " or timm:NAME" if project == "timm" else ""
        raise ConfigurationError(
            f"{project} has no {backbone} with these tensors, expected {', '.join(KNOWN[project])}{also}"
        )
    own = stored.network.backbone.state_dict()
    if project == "torchreid":
        return {"state_dict": own}
    if project == "timm":
        return dict(own)
    tensors = {f"backbone.{name}": tensor for name, tensor in own.items()}
    return {"model": tensors | dict(_bottleneck(stored))}


def _bottleneck(stored: StoredModel) -> Iterator[tuple[str, Tensor]]:
    """Name the embedding as fast-reid's head does: layers of a sequence, as far as there are any."""
    linear, norm = stored.network.embedding, stored.network.embedding_bn
    layer = 0
    if isinstance(linear, nn.Linear):
        yield "heads.bottleneck.0.weight", linear.weight.detach()[:, :, None, None].clone()
        layer = 1
    if isinstance(norm, nn.BatchNorm1d):
        state = norm.state_dict()
        if isinstance(linear, nn.Linear) and linear.bias is not None:
            state["running_mean"] = state["running_mean"] - linear.bias.detach()
        for name, tensor in state.items():
            yield f"heads.bottleneck.{layer}.{name}", tensor
