"""Backbones: shapes, sizes and names of tensors as published, and what is refused."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_pre_hook

from fedreid_mpi import config
from fedreid_mpi.cli import run
from fedreid_mpi.config import load_experiment
from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.model import FlatModel, build_network, load_model, measure
from fedreid_mpi.model.backbones import BACKBONES, SIZED, build_backbone
from fedreid_mpi.model.backbones.ibn import IBN, NormalisedBottleneck
from fedreid_mpi.model.backbones.osnet import Gate
from fedreid_mpi.records.pixels import CLIP, HALF, IMAGENET
from support.small import write_experiment, write_public

SIZES = ((256, 128), (128, 64))

# Parameters without classifier, and width of the feature. ResNets: torchvision's counts; IBN-a has those of
# ResNet-50, IBN-b two instance normalisations more; OSNet: 2.2 million (Zhou et al., ICCV 2019, table 7).
PUBLISHED = {
    "small": (309_952, 128),
    "resnet18": (11_176_512, 512),
    "resnet34": (21_284_672, 512),
    "resnet50": (25_557_032 - 2_049_000, 2048),
    "resnet50_ibn_a": (25_557_032 - 2_049_000, 2048),
    "resnet50_ibn_b": (25_557_032 - 2_049_000 + 2 * (256 + 512), 2048),
    "osnet_x1_0": (2_169_508, 512),
    "mobilenet_v2": (3_504_872 - 1_281_000, 1280),
    "timm:resnet50": (25_557_032 - 2_049_000, 2048),
    "timm:convnext_atto": (3_374_520, 320),
    "timm:swin_tiny_patch4_window7_224": (27_515_610, 768),
}

STEM = 3 * 64 * 49 + 2 * 64 * 64 * 9 + 3 * 2 * 64  # three convolutions, each with scale and shift


def vit(width, patches, first):
    """Parameters of a vision transformer of twelve blocks, counted from its description."""
    block = 4 * width + 3 * width * (width + 1) + width * (width + 1) + 2 * 4 * width * width + 5 * width
    return first + width * (patches + 2) + 12 * block + 2 * width


def parameters_and_width(name, size):
    if name in PUBLISHED:
        return PUBLISHED[name]
    patches, width = size[0] * size[1] // 256, 768 if "base" in name else 384
    first = STEM + (64 * 64 + 1) * width if "ics" in name else (3 * 256 + 1) * width
    return vit(width, patches, first), width


def build(name, size=(128, 64), last_stride=2):
    with torch.device("meta"):
        return build_backbone(config.model_settings(backbone=name, last_stride=last_stride), size)


NAMES = (*PUBLISHED, "vit_small_ics", "vit_base_ics", "timm:vit_small_patch16_224")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_backbones_have_their_published_size_and_map_images_to_vectors(name, size):
    backbone = build(name, size)
    if size != SIZES[0] and "swin" in name:
        return  # fewer windows, and so fewer positions: its own count
    parameters, width = parameters_and_width(name, size)
    assert sum(parameter.numel() for parameter in backbone.module.parameters()) == parameters
    assert backbone.dimension == width
    assert backbone.module(torch.empty(2, 3, *size, device="meta")).shape == (2, width)


def test_every_name_of_the_configuration_is_in_the_table():
    assert (*BACKBONES, *SIZED) == config.BACKBONES


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("resnet50_ibn_a", IMAGENET),
        ("vit_small_ics", HALF),
        ("timm:vit_small_patch16_224", HALF),
        ("timm:vit_small_patch16_224.dino", IMAGENET),
    ],
)
def test_a_backbone_knows_what_pixels_it_expects(name, scale):
    assert build(name).pixel_scale == scale
    assert build_network(config.Model(backbone="small"), None, 0).pixel_scale == IMAGENET


def test_weights_may_expect_other_pixels_than_the_backbone_of_their_name(archives, tmp_path, capsys):
    with torch.device("meta"):
        for scale, expected in (("backbone", HALF), ("imagenet", IMAGENET), ("clip", CLIP), ("half", HALF)):
            settings = config.Model(backbone="vit_small_ics", normalization=scale)
            assert build_network(settings, None, 0).pixel_scale == expected
        assert build("timm:vit_base_patch16_clip_quickgelu_224.openai").pixel_scale == CLIP
    torch.save(
        build_network(config.Model(backbone="small"), None, 0).backbone.state_dict(), tmp_path / "w.pth"
    )
    path = write_experiment(
        tmp_path / "run.toml",
        archives[:1],
        run={"rounds": 1},
        model={"backbone": "small", "weights": str(tmp_path / "w.pth"), "normalization": "half"},
    )
    assert run(["train", str(path), "--run-dir", str(tmp_path / "run")]) == 0
    assert load_model(tmp_path / "run" / "models" / "global.safetensors").network.pixel_scale == HALF
    resumed = ["train", str(path), "--run-dir", str(tmp_path / "run"), "--resume"]
    with pytest.raises(SystemExit):
        run([*resumed, "--set", "model.normalization=clip"])
    assert "model.normalization is 'clip', expected 'half'" in capsys.readouterr().err
    path = write_experiment(tmp_path / "without.toml", archives[:1], model={"normalization": "half"})
    with pytest.raises(ConfigurationError, match=r'"half" is what weights .* but model.weights is unset'):
        load_experiment(path)


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("resnet50_ibn_a", "layer1.0.bn1.IN.weight layer3.5.bn1.BN.running_var bn1.weight layer4.0.bn1.bias"),
        ("resnet50_ibn_b", "bn1.weight layer1.2.IN.weight layer2.3.IN.bias layer3.0.downsample.1.weight"),
        (
            "osnet_x1_0",
            "conv1.conv.weight conv2.0.conv2a.conv1.weight conv2.0.conv2d.3.conv2.weight conv2.2.0.bn.bias "
            "conv2.1.gate.fc1.bias conv3.0.downsample.bn.weight conv3.2.0.conv.weight conv5.bn.running_mean "
            "fc.0.weight fc.1.bias",
        ),
        ("vit_small_ics", "patch_embed.conv.1.IN.weight patch_embed.conv.7.weight patch_embed.proj.bias"),
    ],
)
def test_tensors_have_the_names_of_the_public_files(name, published):
    assert set(published.split()) <= build(name).module.state_dict().keys()


def test_ibn_normalises_half_by_instance_and_half_by_batch():
    layer, x = IBN(6).train(), torch.randn(4, 6, 5, 3) + 2
    expected = [F.instance_norm(x[:, :3]), F.batch_norm(x[:, 3:], None, None, training=True)]
    torch.testing.assert_close(layer(x), torch.cat(expected, 1))


def test_ibn_b_normalises_the_sum_of_residual_and_shortcut():
    block, x = NormalisedBottleneck(8, 2).eval(), torch.rand(2, 8, 4, 4)
    nn.init.zeros_(block.bn3.weight)  # so that the residual is nothing
    torch.testing.assert_close(block(x), F.instance_norm(x).relu())


def test_the_gate_weighs_channels_by_their_mean():
    gate, x = Gate(16), torch.rand(2, 16, 3, 5)
    weight, bias = gate.fc1.weight[:, :, 0, 0], gate.fc1.bias
    inner = F.relu(F.linear(x.mean((2, 3)), weight, bias))
    weights = torch.sigmoid(F.linear(inner, gate.fc2.weight[:, :, 0, 0], gate.fc2.bias))
    torch.testing.assert_close(gate(x), torch.einsum("bchw,bc->bchw", x, weights))


@pytest.mark.parametrize(
    "name", ["mobilenet_v2", "resnet50_ibn_a", "timm:resnet50d", "timm:efficientnet_lite0"]
)
def test_a_last_stride_of_1_doubles_the_last_map(name):
    seen = {}
    for stride in (1, 2):
        module, maps = build(name, (256, 128), stride).module, []
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d):
                layer.register_forward_hook(lambda _layer, _x, y, maps=maps: maps.append(y.shape[2:]))
        module(torch.empty(2, 3, 256, 128, device="meta"))
        seen[stride] = [size for size in maps if min(size) > 1][-1]
    assert seen == {1: (16, 8), 2: (8, 4)}


@pytest.mark.parametrize(
    "name", ["osnet_x1_0", "vit_small_ics", "timm:vit_tiny_patch16_224", "timm:levit_128s"]
)
def test_a_last_stride_of_1_is_refused_where_there_is_no_such_stage(name):
    with pytest.raises(
        ConfigurationError, match=f"last_stride is 1, but {name} has no last stage .*expected 2"
    ):
        build(name, last_stride=1)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("timm:vit_smal_patch16_224", "timm knows no vit_smal_patch16_224, perhaps vit_small_patch16_224"),
        ("timm:vit_small_patch16_224.nowhere", "timm cannot make .*nowhere"),
        (
            "timm:nest_tiny",
            "timm cannot make nest_tiny for images of 128x64: Model only handles square inputs",
        ),
        ("timm:inception_v3", "timm:inception_v3 takes no images of 128x64: "),
        ("resnet51", "model.backbone: 'resnet51' is unknown, expected small, .* or timm:NAME"),
        ("timm:hf-hub:someone/something", "is unknown, expected"),
    ],
)
def test_a_backbone_that_cannot_be_is_refused_in_one_line(name, said):
    with pytest.raises(ConfigurationError, match=said) as caught:
        build(name)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["timm:resnet18", "vit_small_ics"])
def test_without_timm_its_networks_are_refused(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigurationError, match=f"{name} needs timm: pip install 'fedreid_mpi"):
        build(name)


def test_constants_of_a_network_do_not_travel():
    """Swin's masks are buffers that are not stored: no result of training."""
    with torch.device("meta"):
        network = build_network(
            config.Model(backbone="timm:swin_tiny_patch4_window7_224"), 2, 0, size=(128, 64)
        )
    model = FlatModel(network, torch.device("meta"))
    buffers = {name for name, tensor in network.named_buffers() if tensor.is_floating_point()}
    assert {name for name in buffers if "mask" in name}
    assert not any("mask" in spec.name for spec in model.specs)


def test_a_footprint_is_that_of_the_model():
    settings = config.Model(backbone="small", embedding_dim=16)
    model = FlatModel(build_network(settings, 1000, 0), torch.device("cpu"))
    found = measure(settings, (32, 16), 8)
    assert (found.parameters, found.dimension, found.pixel_scale) == (309_952, 128, IMAGENET)
    assert found.message == 4 * model.shared.numel()
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.setdefault(t.data_ptr(), t), lambda t: t):
        model.network.train()(torch.zeros(8, 3, 32, 16))
    held = {id(storage) for storage in kept}
    own = range(model.buffer.data_ptr(), model.buffer.data_ptr() + 4 * model.buffer.numel())
    batch = sum(t.untyped_storage().nbytes() for start, t in kept.items() if start not in own)
    trained = sum(parameter.numel() for parameter in model.network.parameters())
    state = model.buffer.numel() + 2 * trained + 4 * model.shared.numel() + 8 * 3 * 32 * 16
    assert held
    assert found.rank == pytest.approx(4 * state + batch, rel=0.02)


def test_all_that_looks_at_images_sees_them_as_the_backbone_expects(archives, tmp_path):
    """Training, evaluation, probes, distillation, clustering, re-estimated statistics, and `evaluate`."""
    few = [archive for archive in archives if archive.stem in ("harbour", "campus", "mall")]
    path = write_experiment(
        tmp_path / "run.toml",
        few,
        run={"rounds": 1},
        model={"backbone": "timm:test_vit"},
        data={"public": str(write_public(tmp_path / "public.h5"))},
        aggregation={"weights": "cosine-distance"},
        distillation={"enabled": True},
        clustering={"enabled": True},
        evaluation={"reestimate_bn": True},
    )
    seen = []

    def look(module, inputs):
        if isinstance(module, nn.Conv2d) and module.in_channels == 3:
            seen.append((inputs[0].min().item(), inputs[0].max().item()))

    hook = register_module_forward_pre_hook(look)
    try:
        assert run(["train", str(path), "--run-dir", str(tmp_path / "run")]) == 0
        trained = len(seen)
        model = min((tmp_path / "run" / "models").glob("*.safetensors"))
        assert run(["evaluate", str(model), str(few[0])]) == 0
    finally:
        hook.remove()
    assert 20 < trained < len(seen)
    assert load_model(model).network.pixel_scale == HALF
    assert min(low for low, _ in seen) == -1  # padding is black: −2.1 where pixels are scaled as ImageNet's
    assert max(high for _, high in seen) <= 1


@pytest.mark.parametrize("recipe", ["resnet50-ibn-a-triplet", "vit-small-luperson"])
def test_a_recipe_says_what_it_costs(recipe):
    path = Path(__file__).parents[3] / "jobs" / "experiments" / f"{recipe}.toml"
    said = " ".join(path.read_text(encoding="utf-8").replace("\n#", " ").split())
    experiment = load_experiment(path)
    found = measure(experiment.model, (256, 128), experiment.federation.batch_size)
    clients = len(experiment.data.archives)
    assert f"messages of {found.message / 1e6:.1f} MB, and {found.rank / 1e9:.1f} GB of GPU memory" in said
    assert f"{clients * 3 * found.message / 1e9:.1f} GB travel in a round" in said
    assert experiment.model.backbone in said


def test_the_command_lists_what_there_is(capsys):
    assert run(["backbones", "--size", "128x64", "--batch-size", "4"]) == 0
    printed = capsys.readouterr().out
    assert [name for name in config.BACKBONES if name not in printed] == []
    assert "25.6" not in printed  # classifiers do not count
    assert run(["backbones", "timm:test_vit"]) == 0
    assert run(["backbones", "--size", "16x8"]) == 0
    assert "resnet50_ibn_a cannot be trained on images of 16x8: " in capsys.readouterr().out
    assert run(["backbones", "timm:no_such"]) == 2
    assert "timm knows no no_such" in capsys.readouterr().err
