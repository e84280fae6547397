import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from fedreid_mpi import config
from fedreid_mpi.comm import SingleCommunicator
from fedreid_mpi.config import load_experiment
from fedreid_mpi.errors import DataError
from fedreid_mpi.model import (
    FlatModel,
    backbones,
    build_network,
    files,
    load_backbone_weights,
    load_model,
    save_model,
    tensors_of,
    values_of,
)
from fedreid_mpi.records import Role
from fedreid_mpi.records.pixels import IMAGENET, PixelScale
from fedreid_mpi.run.loop import run_federation
from support.small import SITES, Silent, write_experiment

CPU = torch.device("cpu")
SMALL = config.Model(backbone="small", embedding_dim=16)


def flat(settings=SMALL, identities=5, seed=0, channels_last=False):
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return FlatModel(build_network(settings, identities, seed), CPU, layout)


def images(count=4, height=32, width=16):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def randomise(model):
    """Give every tensor values of its own, statistics included; leave the gaps as they are."""
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for spec in model.specs:
            model.view(spec).copy_(torch.rand(spec.shape, generator=random) + 0.1)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("neck", ["none", "bnneck"])
def test_the_networks_tensors_are_views_of_the_buffer(neck, channels_last):
    model = flat(config.Model(backbone="small", embedding_dim=16, neck=neck), channels_last=channels_last)
    state = {
        name: tensor for name, tensor in model.network.state_dict().items() if tensor.is_floating_point()
    }
    assert {spec.name for spec in model.specs} == set(state)
    start, end = model.buffer.data_ptr(), model.buffer.data_ptr() + 4 * model.buffer.numel()
    for spec in model.specs:
        tensor = state[spec.name]
        assert tensor.data_ptr() == start + 4 * spec.offset
        assert start <= tensor.data_ptr() < end
        assert (tensor.shape, tensor.stride()) == (spec.shape, spec.stride)
    with torch.no_grad():
        model.buffer.fill_(0.25)
        assert all((tensor == 0.25).all() for tensor in state.values())
        for number, tensor in enumerate(state.values()):
            tensor.fill_(number + 1)
    places = [model.view(spec) for spec in sorted(model.specs, key=lambda spec: list(state).index(spec.name))]
    assert all((view == number + 1).all() for number, view in enumerate(places))


def test_building_the_buffer_keeps_every_value():
    network = build_network(SMALL, 5, 3)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    logits = network.eval()(images())
    model = FlatModel(network, CPU)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.network.state_dict().items())
    assert torch.equal(model.network(images()), logits)


def test_regions_lie_one_after_the_other():
    model = flat()
    regions = [model.region(role) for role in Role]
    assert regions[0].start == 0
    assert [region.stop for region in regions[:-1]] == [region.start for region in regions[1:]]
    assert regions[-1].stop == model.buffer.numel()
    assert model.shared.numel() == model.region(Role.CLASSIFIER).start
    assert model.statistics == model.region(Role.STATISTICS)
    assert model.shared.data_ptr() == model.buffer.data_ptr()
    names = {role: [spec.name for spec in model.specs if spec.role is role] for role in Role}
    assert names[Role.CLASSIFIER] == ["classifier.weight", "classifier.bias"]
    assert names[Role.EMBEDDING] == [
        "embedding.weight",
        "embedding.bias",
        "embedding_bn.weight",
        "embedding_bn.bias",
    ]
    assert all("running" in name for name in names[Role.STATISTICS])
    assert all(name.startswith("backbone.") and "running" not in name for name in names[Role.BACKBONE])


def test_tensors_are_aligned_and_do_not_overlap():
    model = flat(config.Model(backbone="small", embedding_dim=10))
    assert all(spec.offset % 16 == 0 for spec in model.specs)
    for before, after in zip(model.specs, model.specs[1:], strict=False):
        assert before.offset + before.size <= after.offset < before.offset + before.size + 16
    model.buffer.fill_(0)
    randomise(model)
    assert int((model.buffer != 0).sum()) == sum(spec.size for spec in model.specs)


def test_shared_parts_of_different_clients_are_laid_out_alike():
    few, many, none = flat(identities=2), flat(identities=900), flat(identities=None)
    assert few.shared.numel() == many.shared.numel() == none.shared.numel() == none.buffer.numel()
    shared = [spec for spec in many.specs if spec.role is not Role.CLASSIFIER]
    assert shared == list(none.specs)
    end = none.buffer.numel()
    assert none.region(Role.CLASSIFIER) == slice(end, end)


def test_channels_last_filters_are_stored_so():
    model = flat(channels_last=True)
    filters = [tensor for tensor in model.network.parameters() if tensor.dim() == 4]
    assert filters
    assert all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in filters)
    plain = flat()
    torch.testing.assert_close(model.network.eval()(images()), plain.network.eval()(images()))


def test_counters_stay_out_of_the_buffer():
    model = flat()
    assert not any("num_batches" in spec.name for spec in model.specs)
    model.network.train()(images())
    assert int(model.network.embedding_bn.num_batches_tracked) == 1


def test_training_stays_within_the_buffer():
    model = flat()
    before = model.buffer.clone()
    optimizer = torch.optim.SGD(model.parameters(*Role), lr=0.1)
    model.network.train()(images()).sum().backward()
    optimizer.step()
    moved = {
        spec.name
        for spec in model.specs
        if not torch.equal(model.view(spec), torch.as_strided(before, spec.shape, spec.stride, spec.offset))
    }
    assert {
        "classifier.weight",
        "embedding.weight",
        "backbone.stem.weight",
        "backbone.bn.running_mean",
    } <= moved


def test_tensors_are_read_and_written_as_one_vector():
    model, other = flat(seed=1, channels_last=True), flat(seed=2, channels_last=True)
    chosen = [spec for spec in model.specs if spec.role is Role.CLASSIFIER or spec in model.normalisation]
    before = other.buffer.clone()
    values = model.read(chosen)
    assert values.shape == (sum(spec.size for spec in chosen),)
    other.write(chosen, values)
    for spec in model.specs:
        same = model if spec in chosen else None
        expected = same.view(spec) if same else before.as_strided(spec.shape, spec.stride, spec.offset)
        assert torch.equal(other.view(spec), expected), spec.name
    named = dict(tensors_of(chosen, values))
    assert all(torch.equal(named[spec.name], model.view(spec)) for spec in chosen)
    assert torch.equal(values_of(chosen, [named[spec.name] for spec in chosen]), values)


def test_batch_norm_is_known_by_its_layers():
    model = flat()
    norms = {n for n, m in model.network.named_modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)}
    assert "embedding_bn" in norms
    parts = ("weight", "bias", "running_mean", "running_var")
    assert {spec.name for spec in model.normalisation} == {f"{n}.{part}" for n in norms for part in parts}


def test_a_client_uses_the_first_rows_of_the_largest_classifier():
    model = flat(identities=7)
    model.buffer.fill_(3)
    model.use_identities(4)
    weight, bias = model.network.classifier.weight, model.network.classifier.bias
    assert weight.shape == (4, 16)
    assert bias.shape == (4,)
    by_name = {spec.name: spec for spec in model.specs}
    whole = model.view(by_name["classifier.weight"])
    assert (whole[:4] == 3).all()
    assert (whole[4:] == 0).all()
    assert model.view(by_name["classifier.bias"]).tolist() == [3, 3, 3, 3, 0, 0, 0]
    with torch.no_grad():
        weight[1, 2], bias[3] = 5, 6
    assert whole[1, 2] == 5
    assert model.view(by_name["classifier.bias"])[3] == 6
    assert model.network(images()).shape == (4, 4)
    assert [spec.shape for spec in model.specs_for(4) if spec.role is Role.CLASSIFIER] == [(4, 16), (4,)]
    model.use_identities(7)
    assert model.network(images()).shape == (4, 7)


def test_only_the_classifier_is_cut():
    model = flat(identities=5)
    for spec, own in zip(model.specs, model.specs_for(2), strict=True):
        if spec.role is Role.CLASSIFIER:
            assert (own.shape, own.offset, own.stride) == ((2, *spec.shape[1:]), spec.offset, spec.stride)
        else:
            assert own == spec


def test_trainable_parameters_are_grouped_by_role():
    model = flat(config.Model(backbone="small", embedding_dim=16, neck="bnneck"))
    names = {id(parameter): name for name, parameter in model.network.named_parameters()}
    head = [names[id(parameter)] for parameter in model.parameters(Role.EMBEDDING, Role.CLASSIFIER)]
    assert head == ["embedding.weight", "embedding_bn.weight", "classifier.weight"]  # no shift, no bias
    assert len(model.parameters(Role.BACKBONE)) == len(list(model.network.backbone.parameters()))


def test_a_model_survives_the_disk(tmp_path):
    model = flat(channels_last=True)
    randomise(model)
    path = tmp_path / "global.safetensors"
    save_model(path, model, SMALL, 32, 16, 7)
    stored = load_model(path)
    assert (stored.settings, stored.height, stored.width) == (SMALL, 32, 16)
    assert stored.network.classifier is None
    assert not stored.network.training
    model.network.eval()
    assert torch.equal(stored.network.features(images()), flat_features(model))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_model_file_says_what_the_network_expects_of_pixels(tmp_path):
    model, path = flat(), tmp_path / "m.safetensors"
    model.network.pixel_scale = PixelScale((0.5, 0.25, 0.125), (0.5, 1.0, 2.0))
    save_model(path, model, SMALL, 32, 16, 0)
    assert load_model(path).network.pixel_scale == model.network.pixel_scale


def test_a_model_file_from_before_pixels_had_a_scale_has_imagenets(tmp_path):
    def older(about):
        return {n: x for n, x in about.items() if n not in ("mean", "deviation")}

    assert load_model(stored(tmp_path, about=older)).network.pixel_scale == IMAGENET


@pytest.mark.parametrize("deviation", [[0.5, 0.5], [0.5, 0.5, 0.0], "0.5", None, ["a", "b", "c"]])
def test_pixels_have_three_channels_with_positive_deviations(deviation, tmp_path):
    path = stored(tmp_path, about=lambda a: a | {"deviation": deviation})
    with pytest.raises(DataError, match="description is damaged"):
        load_model(path)


def flat_features(model):
    """Features by a copy in the ordinary layout, whose sums have the same order as the stored network's."""
    copy = build_network(SMALL, None, 0).eval()
    copy.load_state_dict({n: t for n, t in model.network.state_dict().items() if "classifier" not in n})
    return copy.features(images())


def test_the_classifier_never_reaches_the_disk(tmp_path):
    save_model(tmp_path / "m.safetensors", flat(), SMALL, 32, 16, 0)
    assert not [name for name in load_file(tmp_path / "m.safetensors") if "classifier" in name]


def test_saving_twice_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        save_model(tmp_path / name, flat(), SMALL, 32, 16, 0)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def stored(tmp_path, tensors=lambda t: t, metadata=lambda m: m, about=lambda a: a):
    """A model file with its tensors or metadata changed, and the digest that goes with them."""
    path = tmp_path / "m.safetensors"
    save_model(path, flat(), SMALL, 32, 16, 0)
    with safe_open(path, framework="pt") as file:
        entry = about(json.loads(file.metadata()[files.ABOUT]))
    changed = tensors(load_file(path))
    del entry["digest"]
    entry["digest"] = files._digest(entry, changed)
    save_file(changed, path, metadata=metadata({files.ABOUT: json.dumps(entry)}))
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tensors": lambda t: t | {"embedding.weight": torch.zeros(8, 128)}}, "embedding.weight has shape"),
        (
            {"tensors": lambda t: {n: x for n, x in t.items() if n != "embedding.bias"}},
            "no tensor embedding.bias",
        ),
        (
            {"tensors": lambda t: t | {"classifier.weight": torch.zeros(2, 16)}},
            "classifier.weight is not part",
        ),
        (
            {"tensors": lambda t: t | {"embedding.bias": torch.full((16,), torch.inf)}},
            "embedding.bias holds values that are not finite",
        ),
        ({"metadata": lambda m: None}, "format is None, expected 'fedreid_mpi model 2'"),
        ({"metadata": lambda m: {n: x.replace("model 2", "model 9") for n, x in m.items()}}, "model 9"),
        (
            {"metadata": lambda m: {n: x.replace("small", "huge") for n, x in m.items()}},
            "damaged or changed: its digest",
        ),
        ({"metadata": lambda m: {n: x[:40] for n, x in m.items()}}, "description is damaged"),
        ({"metadata": lambda m: dict.fromkeys(m, "[]")}, "description is damaged"),
    ],
)
def test_a_model_file_that_does_not_fit_itself_is_refused(changes, said, tmp_path):
    path = stored(tmp_path, **changes)
    with pytest.raises(DataError, match=said) as caught:
        load_model(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_files_that_are_no_models_are_refused(tmp_path):
    with pytest.raises(DataError, match="no such model file"):
        load_model(tmp_path / "none.safetensors")
    (tmp_path / "text").write_text("weights")
    with pytest.raises(DataError, match="not a readable safetensors file"):
        load_model(tmp_path / "text")
    with pytest.raises(DataError, match=str(tmp_path)):
        load_model(tmp_path)


def test_fresh_weights_have_the_papers_distributions():
    """Kaiming normal by fan-out, BatchNorm scales about 1, a classifier near 0 (public code, ft_net)."""
    network = build_network(config.Model(backbone="small", embedding_dim=2048), 500, 0)
    embedding, scale = network.embedding, network.embedding_bn.weight
    assert embedding.weight.std().item() == pytest.approx((2 / 2048) ** 0.5, rel=0.02)
    assert embedding.weight.mean().item() == pytest.approx(0, abs=5e-4)
    assert (scale.mean().item(), scale.std().item()) == pytest.approx((1.0, 0.02), rel=0.1)
    assert network.classifier.weight.std().item() == pytest.approx(0.001, rel=0.02)
    assert not embedding.bias.any()
    assert not network.classifier.bias.any()


def test_a_seed_and_a_path_name_the_weights_and_nothing_else_does():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = flat(seed=1).buffer
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert torch.equal(flat(seed=1).buffer, first)
    assert not torch.equal(flat(seed=2).buffer, first)
    assert not torch.equal(FlatModel(build_network(SMALL, 5, 1, "client", 0), CPU).buffer, first)


@pytest.mark.parametrize(
    ("name", "parameters"), [("resnet18", 11_176_512), ("resnet34", 21_284_672), ("resnet50", 23_508_032)]
)
@pytest.mark.parametrize(("last_stride", "size"), [(1, (16, 8)), (2, (8, 4))])
def test_residual_networks_have_their_published_shapes(name, parameters, last_stride, size):
    """Parameters of the backbone without its classifier: He et al., as torchvision counts them."""
    network = build_network(config.Model(backbone=name, last_stride=last_stride), 7, 0).eval()
    maps = []
    network.backbone.layer4.register_forward_hook(
        lambda _module, _inputs, output: maps.append(output.shape[2:])
    )
    with torch.no_grad():
        logits = network(images(1, 256, 128))
    assert tuple(maps[0]) == size
    assert logits.shape == (1, 7)
    assert sum(parameter.numel() for parameter in network.backbone.parameters()) == parameters
    assert network.embedding.in_features == (2048 if name == "resnet50" else 512)


@pytest.mark.parametrize(("height", "width"), [(64, 32), (33, 17), (256, 128)])
def test_the_small_network_takes_any_size(height, width):
    network = build_network(SMALL, 3, 0).eval()
    assert network(images(2, height, width)).shape == (2, 3)
    assert sum(parameter.numel() for parameter in network.backbone.parameters()) < 4e5


def test_torchvisions_weights_fit_with_or_without_counters_and_classifier(tmp_path):
    from torchvision.models import resnet18

    published = resnet18().state_dict()
    settings = config.Model(backbone="resnet18")
    torch.save(published, tmp_path / "full.pth")
    old = {n: t for n, t in published.items() if "num_batches" not in n and not n.startswith("fc.")}
    save_file(old, tmp_path / "old.safetensors")
    for name in ("full.pth", "old.safetensors"):
        network = build_network(settings, None, 0)
        load_backbone_weights(tmp_path / name, network, "resnet18")
        loaded = network.backbone.state_dict()
        assert all(torch.equal(loaded[leaf], tensor) for leaf, tensor in old.items())
    other = build_network(config.Model(backbone="resnet50"), None, 0)
    with pytest.raises(
        DataError,
        match=r"does not fit resnet50: .* kind \(layer1.0.conv1.weight: \[64, 64",
    ):
        load_backbone_weights(tmp_path / "full.pth", other, "resnet50")


def test_the_necks_differ_as_published():
    plain, neck = (
        build_network(config.Model(backbone="small", neck=name), 4, 0) for name in ("none", "bnneck")
    )
    assert plain.embedding.bias is not None
    assert plain.embedding_bn.bias.requires_grad
    assert neck.embedding.bias is None
    assert neck.classifier.bias is None
    assert not neck.embedding_bn.bias.requires_grad
    assert not neck.embedding_bn.bias.any()


def test_dropout_acts_between_embedding_and_classifier_in_training_alone():
    network = build_network(config.Model(backbone="small", embedding_dim=64, dropout=0.5), 3, 0)
    seen = []
    network.classifier.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    network.train()(images(64))
    network.eval()(images(64))
    assert np.isclose((seen[0] == 0).float().mean().item(), 0.5, atol=0.05)
    assert not (seen[1] == 0).any()


@pytest.mark.parametrize("neck", ["none", "bnneck"])
def test_without_an_embedding_layer_the_feature_is_the_backbones(neck, tmp_path):
    settings = config.Model(backbone="small", embedding_dim=0, neck=neck)
    model = flat(settings)
    randomise(model)
    network = model.network.eval()
    assert network.width == 128
    pooled = network.backbone(images())
    expected = pooled
    if neck == "bnneck":
        norm = network.embedding_bn
        expected = (pooled - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight
        expected = expected + norm.bias
    torch.testing.assert_close(network.features(images()), expected)
    assert torch.equal(network.embed(images()), pooled)
    head = [spec.name for spec in model.specs if spec.role is Role.EMBEDDING]
    assert head == (["embedding_bn.weight", "embedding_bn.bias"] if neck == "bnneck" else [])
    regions = [model.region(role) for role in Role]
    assert [region.stop for region in regions[:-1]] == [region.start for region in regions[1:]]
    assert model.shared.numel() == model.region(Role.CLASSIFIER).start
    path = tmp_path / "global.safetensors"
    save_model(path, model, settings, 32, 16, 7)
    assert torch.equal(load_model(path).network.features(images()), network.features(images()))


class Plain(nn.Module):
    """A backbone without BatchNorm: a model of it may have no statistics."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2)

    def forward(self, x):
        return torch.relu(self.conv(x)).mean((2, 3))


def test_regions_may_be_empty(monkeypatch):
    monkeypatch.setitem(backbones.BACKBONES, "small", lambda last_stride: backbones.Backbone(Plain(), 8))
    model = flat(config.Model(backbone="small", embedding_dim=0))
    assert {spec.role for spec in model.specs} == {Role.BACKBONE, Role.CLASSIFIER}
    regions = [model.region(role) for role in Role]
    assert regions[0].start == 0
    assert [region.stop for region in regions[:-1]] == [region.start for region in regions[1:]]
    assert regions[-1].stop == model.buffer.numel()
    assert model.shared.numel() == regions[-1].start > 0


@pytest.mark.parametrize("bn", ["average", "local", "reference"])
def test_models_without_any_batch_norm_are_averaged(bn, archives, tmp_path, monkeypatch):
    monkeypatch.setitem(backbones.BACKBONES, "small", lambda last_stride: backbones.Backbone(Plain(), 8))
    path = write_experiment(
        tmp_path / "x.toml",
        archives[:2],
        run={"rounds": 1},
        model={"embedding_dim": 0},
        aggregation={"bn": bn},
    )
    run_federation(SingleCommunicator(), load_experiment(path), tmp_path / "run", Silent())
    folder = tmp_path / "run" / "models"
    names = [archive.stem for archive in archives[:2]]
    models = [load_file(folder / "local" / f"{id}_{name}.safetensors") for id, name in enumerate(names)]
    images = [SITES[name] for name in names]
    averaged = load_file(folder / "global.safetensors")
    assert set(averaged) == {"backbone.conv.weight", "backbone.conv.bias"}
    for leaf, value in averaged.items():
        expected = sum(count * model[leaf].double() for count, model in zip(images, models, strict=True))
        torch.testing.assert_close(value, (expected / sum(images)).float(), rtol=0, atol=1e-7)
