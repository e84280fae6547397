"""The network of the paper: backbone and embedding are shared, the classifier is the client's own."""

import torch
from torch import Tensor, nn

from fedreid_mpi import config
from fedreid_mpi.model.backbones import build_backbone
from fedreid_mpi.seeds import derive

USUAL_SIZE = (256, 128)
"""Height and width of images in most work on re-identification; only transformers are built for one size."""


class ReIDNetwork(nn.Module):
    """Backbone, embedding and, on a client, a classifier of its identities.

    Parameters
    ----------
    settings
        The experiment's ``[model]`` section.
    identities
        Number of people the classifier tells apart; None for a network without classifier.
    size
        Height and width of the images, in pixels.

    Attributes
    ----------
    pixel_scale
        What the backbone expects of pixels.

    Notes
    -----
    ``neck = "none"`` is the paper's head: Linear, BatchNorm, Dropout, then Linear (Zhuang et al., ACM TOMM
    2023). ``"bnneck"`` takes the shift out of the BatchNorm and the biases out of both Linear layers, so that
    classes are separated by angle alone (Luo et al., CVPR Workshops 2019, section 3.5).
    """

    def __init__(
        self, settings: config.Model, identities: int | None, size: tuple[int, int] = USUAL_SIZE
    ) -> None:
        super().__init__()
        self.memory_format = torch.contiguous_format
        biased = settings.neck == "none"
        built = build_backbone(settings, size)
        self.backbone, dimension = built.module, built.dimension
        self.pixel_scale = built.pixel_scale
        self.embedding = nn.Linear(dimension, settings.embedding_dim, bias=biased)
        self.embedding_bn = nn.BatchNorm1d(settings.embedding_dim)
        self.embedding_bn.bias.requires_grad_(biased)
        self.dropout = nn.Dropout(settings.dropout)
        self.classifier: nn.Linear | None = None
        nn.init.kaiming_normal_(self.embedding.weight, mode="fan_out")
        nn.init.normal_(self.embedding_bn.weight, 1.0, 0.02)
        if biased:
            nn.init.zeros_(self.embedding.bias)
        if identities is not None:
            self.classifier = nn.Linear(settings.embedding_dim, identities, bias=biased)
            nn.init.normal_(self.classifier.weight, 0.0, 0.001)
            if biased:
                nn.init.zeros_(self.classifier.bias)

    def place(self, device: torch.device, memory_format: torch.memory_format) -> "ReIDNetwork":
        """Move the network to a device and lay out its filters; images are laid out like them."""
        self.memory_format = memory_format
        return self.to(device=device, memory_format=memory_format)  # type: ignore[call-overload,no-any-return]

    def features(self, images: Tensor) -> Tensor:
        """Map normalised images (B, 3, H, W) to embeddings (B, embedding_dim)."""
        images = images.contiguous(memory_format=self.memory_format)
        embeddings: Tensor = self.embedding_bn(self.embedding(self.backbone(images)))
        return embeddings

    def classify(self, features: Tensor) -> Tensor:
        """Map embeddings (B, embedding_dim) to logits (B, identities)."""
        assert self.classifier is not None
        logits: Tensor = self.classifier(self.dropout(features))
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (B, 3, H, W) to logits (B, identities)."""
        return self.classify(self.features(images))


def build_network(
    settings: config.Model,
    identities: int | None,
    seed: int,
    *path: str | int,
    size: tuple[int, int] = USUAL_SIZE,
) -> ReIDNetwork:
    """Build a network on the CPU, its random weights drawn from the stream (seed, "model", *path).

    The global generator of torch is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "model", *path))
        return ReIDNetwork(settings, identities, size)


def initial_classifier(settings: config.Model, identities: int, seed: int, client: int) -> dict[str, Tensor]:
    """Draw a client's first classifier from the stream (seed, "classifier", client).

    Returns
    -------
    dict
        Name of each tensor in the network to its value, float32: N(0, 0.001²), without shift.
    """
    random = torch.Generator().manual_seed(derive(seed, "classifier", client))
    weight = torch.empty(identities, settings.embedding_dim).normal_(0.0, 0.001, generator=random)
    shift = {"classifier.bias": torch.zeros(identities)} if settings.neck == "none" else {}
    return {"classifier.weight": weight, **shift}
