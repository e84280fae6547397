"""The tables of docs/backbones.md: each backbone gives features, and goes to disk and to other projects.

The second table is made from what is tried here, and `make pages` renews it.
"""

import re
from functools import cache
from pathlib import Path

import pytest
import timm
import torch

from fedreid_mpi import config
from fedreid_mpi.model import (
    FlatModel,
    build_network,
    for_project,
    load_backbone_weights,
    load_model,
    measure,
    save_model,
)
from fedreid_mpi.model.backbones import build_backbone
from fedreid_mpi.model.export import KNOWN
from fedreid_mpi.records.pixels import HALF, IMAGENET
from support.on_ranks.mpi_backbones import FAMILIES, NARROW

PAGE = Path(__file__).parents[3] / "docs" / "backbones.md"
SIZES = ((256, 128), (128, 64))
CPU = torch.device("cpu")

# Name, and the family that stands for it where bits are compared (tests/mpi/test_backbone_ranks.py).
TRIED = {
    "small": "small",
    **dict.fromkeys(("resnet18", "resnet34", "resnet50"), "resnet"),
    "resnet50_ibn_a": "ibn-a",
    "resnet50_ibn_b": "ibn-b",
    "osnet_x1_0": "osnet",
    "mobilenet_v2": "mobilenet",
    "vit_small_ics": "ics",
    "vit_base_ics": "ics",
    **dict.fromkeys(
        (
            "timm:mobilenetv3_small_050",
            "timm:efficientnet_b0",
            "timm:tf_efficientnet_lite0",
        ),
        "timm-convolutional",
    ),
    "timm:convnext_atto": "timm-convnext",
    "timm:vit_small_patch32_224": "timm-transformer",
    "timm:swin_tiny_patch4_window7_224": "timm-windows",
}
LARGE = "resnet34|resnet50|vit_|swin"  # take seconds


@cache
def parameters_of(name, size):
    with torch.device("meta"):
        backbone = build_backbone(config.model_settings(backbone=name), size)
    return sum(parameter.numel() for parameter in backbone.module.parameters()), backbone.dimension


def projects_of(name):
    return [
        project
        for project, names in KNOWN.items()
        if name in names or (project == "timm" and name.startswith("timm:"))
    ]


def played(family):
    """Say which network was played on several ranks."""
    name = FAMILIES[family]
    narrow = name in ("resnet50", "resnet50_ibn_a", "resnet50_ibn_b", "vit_small_ics") or name[5:] in NARROW
    return f"`{name}`" + ", narrow" * narrow


def tried():
    """The generated table."""
    lines = [
        "| `model.backbone` | parameters at 256×128 | at 128×64 | feature | projects | run on ranks |",
        "|---|---:|---:|---:|---|---|",
    ]
    for name, family in TRIED.items():
        (large, width), (small, same) = (parameters_of(name, size) for size in SIZES)
        assert width == same
        projects = ", ".join(projects_of(name)) or "–"
        lines.append(f"| `{name}` | {large:,} | {small:,} | {width} | {projects} | {played(family)} |")
    return "\n".join(lines)


def renewed(page):
    start, end = "<!-- tried -->\n\n", "\n\n<!-- end -->"
    before, after = page.split(start)[0], page.split(end)[1]
    return before + start + tried() + end + after


def test_the_page_says_what_has_been_tried(generated):
    assert {name for name in TRIED if ":" not in name} == set(config.BACKBONES)
    generated(PAGE, renewed)


def test_the_page_says_what_each_backbone_weighs():
    page, found = PAGE.read_text(encoding="utf-8"), []
    pattern = r"^\| (`\w+`(?:, `\w+`)*) \| [^|]+ \| ([^|]+) M \| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$"
    for names, *cells in re.findall(pattern, page, re.MULTILINE):
        names = re.findall(r"\w+", names)
        columns = [cell.split(", ") for cell in cells]
        columns[2] = ["0.5" if cells[2].startswith("0.5") else "ImageNet's"]
        for number, name in enumerate(names):
            found.append(name)
            weight = measure(config.Model(backbone=name), SIZES[0], 32)
            message = weight.message / 1e6
            assert [column[min(number, len(column) - 1)] for column in columns] == [
                f"{weight.parameters / 1e6:.1f}",
                str(weight.dimension),
                {IMAGENET: "ImageNet's", HALF: "0.5"}[weight.pixel_scale],
                f"{message:.{1 if message < 10 else 0}f}",
                f"{weight.rank / 1e6:,.0f}",
            ], name
    assert sorted(found) == sorted(config.BACKBONES)


def settings_of(name):
    return config.model_settings(backbone=name, embedding_dim=16)


def images_of(size):
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))


def network_of(name, size, seed):
    """A network in which every scale, shift and running statistic has a value of its own."""
    network = build_network(settings_of(name), None, seed, size=size)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point() and tensor.dim() == 1:
                tensor.copy_(torch.rand(tensor.shape, generator=random) / 2 + 0.75)
    return network.eval()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * bool(re.search(LARGE, name))) for name in TRIED]
)
@torch.no_grad()
def test_features_are_the_same_after_the_disk_and_after_each_project(name, tmp_path):
    any_size = parameters_of(name, SIZES[0]) == parameters_of(name, SIZES[1])
    for built in SIZES[:1] if any_size else SIZES:
        network, settings = network_of(name, built, 1), settings_of(name)
        seen = {size: images_of(size) for size in SIZES if any_size or size == built}
        vectors = {size: network.backbone(images) for size, images in seen.items()}
        features = {size: network.features(images) for size, images in seen.items()}
        for size in seen:
            assert vectors[size].shape == (2, network.dimension)
            assert features[size].isfinite().all()
            assert not torch.equal(*features[size])
        model = FlatModel(network, CPU, torch.channels_last)  # as it is trained on a CPU
        save_model(tmp_path / "model.safetensors", model, settings, *built, 0)
        stored = load_model(tmp_path / "model.safetensors")
        assert stored.network.pixel_scale == network.pixel_scale
        for size, images in seen.items():
            assert torch.equal(stored.network.features(images), features[size])
        other = network_of(name, built, 2) if projects_of(name) else None
        for project in projects_of(name):
            torch.save(for_project(stored, project), tmp_path / f"{project}.pth")
            for tensor in other.state_dict().values():
                tensor.zero_()
            load_backbone_weights(tmp_path / f"{project}.pth", other, name)
            for size, images in seen.items():
                assert torch.equal(other.backbone(images), vectors[size]), project
        if "timm" in projects_of(name):
            assert torch.equal(
                timms_own(name, built, for_project(stored, "timm"))(seen[built]), vectors[built]
            )


def timms_own(name, size, tensors):
    """The network that timm makes, with tensors that it loads strictly."""
    known = name.removeprefix("timm:")
    sized = {"img_size": size} if re.match("vit|swin", known) else {}
    own = timm.create_model(known, num_classes=0, **sized)
    own.load_state_dict(tensors)
    return own.eval()
