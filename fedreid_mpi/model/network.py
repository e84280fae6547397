"""The network of the paper: backbone and embedding are shared, the classifier is the client's own."""

import torch
from torch import Tensor, nn

from fedreid_mpi import config
from fedreid_mpi.algorithms.seeds import derive
from fedreid_mpi.model.backbones import build_backbone
from fedreid_mpi.records.pixels import SCALES

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
        What the backbone expects of pixels, by its name or by ``model.normalization``.
    dimension
        Width of what the backbone returns.
    width
        Length of a feature.

    Notes
    -----
    ``neck = "none"`` is the paper's head: Linear, BatchNorm, Dropout, then Linear (Zhuang et al., ACM TOMM
    2023). ``"bnneck"`` takes the shift out of the BatchNorm and the biases out of both Linear layers, so that
    classes are separated by angle alone (Luo et al., CVPR Workshops 2019, section 3.5). Without an embedding
    layer, ``embedding_dim = 0``, what the backbone returns takes its place; with ``"none"`` the BatchNorm is
    left out as well.
    """

    def __init__(
        self, settings: config.Model, identities: int | None, size: tuple[int, int] = USUAL_SIZE
    ) -> None:
        super().__init__()
        self.memory_format = torch.contiguous_format
        biased = settings.neck == "none"
        built = build_backbone(settings, size)
        self.backbone, self.dimension = built.module, built.dimension
        self.pixel_scale = SCALES.get(settings.normalization, built.pixel_scale)
        self.width = settings.embedding_dim or self.dimension
        self.embedding: nn.Module = nn.Identity()
        self.embedding_bn: nn.Module = nn.Identity()
        self.dropout = nn.Dropout(settings.dropout)
        self.classifier: nn.Linear | None = None
        if settings.embedding_dim:
            self.embedding = nn.Linear(self.dimension, self.width, bias=biased)
            nn.init.kaiming_normal_(self.embedding.weight, mode="fan_out")
            if biased:
                nn.init.zeros_(self.embedding.bias)
        if settings.embedding_dim or settings.neck == "bnneck":
            self.embedding_bn = nn.BatchNorm1d(self.width)
            self.embedding_bn.bias.requires_grad_(biased)
            nn.init.normal_(self.embedding_bn.weight, 1.0, 0.02)
        if identities is not None:
            self.classifier = nn.Linear(self.width, identities, bias=biased)
            nn.init.normal_(self.classifier.weight, 0.0, 0.001)
            if biased:
                nn.init.zeros_(self.classifier.bias)

    def place(self, device: torch.device, memory_format: torch.memory_format) -> "ReIDNetwork":
        """Move the network to a device and lay out its filters; images are laid out like them."""
        self.memory_format = memory_format
        return self.to(device=device, memory_format=memory_format)  # type: ignore[call-overload,no-any-return]

    def embed(self, images: Tensor) -> Tensor:
        """Map normalised images (B, 3, H, W) to embeddings before the last BatchNorm, (B, width)."""
        images = images.contiguous(memory_format=self.memory_format)
        embeddings: Tensor = self.embedding(self.backbone(images))
        return embeddings

    def neck(self, embeddings: Tensor) -> Tensor:
        """Map what `embed` returns to features, (B, width): through the last BatchNorm where there is one."""
        features: Tensor = self.embedding_bn(embeddings)
        return features

    def features(self, images: Tensor) -> Tensor:
        """Map normalised images (B, 3, H, W) to features (B, width)."""
        return self.neck(self.embed(images))

    def classify(self, features: Tensor) -> Tensor:
        """Map features (B, width) to logits (B, identities)."""
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


def initial_classifier(network: ReIDNetwork, identities: int, seed: int, client: int) -> dict[str, Tensor]:
    """Draw a client's first classifier from the stream (seed, "classifier", client).

    Parameters
    ----------
    network
        A network with a classifier, of whatever number of people.
    identities, seed, client
        The client's people, the run's seed, and the client's id.

    Returns
    -------
    dict
        Name of each tensor in the network to its value, float32: N(0, 0.001²), without shift.
    """
    random = torch.Generator().manual_seed(derive(seed, "classifier", client))
    weight = torch.empty(identities, network.width).normal_(0.0, 0.001, generator=random)
    biased = network.classifier is not None and network.classifier.bias is not None
    shift = {"classifier.bias": torch.zeros(identities)} if biased else {}
    return {"classifier.weight": weight, **shift}
