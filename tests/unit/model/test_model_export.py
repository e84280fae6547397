"""Models on their way to other projects and back."""

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from fedreid_mpi import config
from fedreid_mpi.cli import run
from fedreid_mpi.errors import ConfigurationError
from fedreid_mpi.model import (
    FlatModel,
    StoredModel,
    account_for,
    build_network,
    for_project,
    read_weights,
    save_model,
)
from fedreid_mpi.model.export import KNOWN

SIZE = (64, 32)
CPU = torch.device("cpu")


def stored(backbone, **keys):
    """A model as it is read from disk, every tensor with values of its own."""
    settings = config.model_settings(backbone=backbone, **{"embedding_dim": 16} | keys)
    network = build_network(settings, None, 0, size=SIZE)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if "running" in name or "norm" in name or "bn" in name or "bias" in name:
                tensor.copy_(torch.rand(tensor.shape, generator=random) + 0.1)
    return StoredModel(network.eval(), settings, *SIZE)


@pytest.fixture(scope="module")
def resnet18():
    return stored("resnet18")


@pytest.mark.parametrize(
    ("project", "backbone"),
    [*((project, name) for project, names in KNOWN.items() for name in names), ("timm", "timm:test_vit")],
)
def test_a_projects_file_is_read_back_whole(project, backbone, tmp_path):
    """By the loader that knows what this project's files look like, in both directions."""
    with torch.device("meta"):
        settings = config.model_settings(backbone=backbone)
        model = StoredModel(build_network(settings, None, 0, size=SIZE), settings, *SIZE)
    content = for_project(model, project)
    (entry,) = {"state_dict", "model"} & content.keys() or {""}
    named = {
        name: torch.full((1,) * tensor.dim(), number / 1000).expand(tensor.shape)
        for number, (name, tensor) in enumerate((content[entry] if entry else content).items())
    }
    torch.save({entry: named} if entry else named, tmp_path / "w.pth")
    account, tensors = account_for(read_weights(tmp_path / "w.pth"), model.network.backbone)
    assert account.faults == ()
    prefix = "backbone." if project == "fastreid" else ""
    for name, tensor in tensors.items():
        assert tensor.flatten()[0] == named[prefix + name].flatten()[0]
    assert {name.partition(".")[0] for name in account.left_out} == ({"heads"} if prefix else set())


@pytest.mark.parametrize(
    "keys", [{}, {"neck": "bnneck"}, {"embedding_dim": 0, "neck": "bnneck"}, {"embedding_dim": 0}]
)
def test_fast_reids_head_gives_the_same_features(keys):
    """A 1×1 convolution without bias, where there is an embedding, then BatchNorm: its bottleneck."""
    model = stored("small", **keys)
    settings = model.settings.model_copy(update={"backbone": "resnet18"})  # for its head, any network will do
    tensors = for_project(StoredModel(model.network, settings, *SIZE), "fastreid")["model"]
    head = {n.removeprefix("heads.bottleneck."): t for n, t in tensors.items() if n.startswith("heads.")}
    images = torch.randn(3, 3, *SIZE)
    with torch.no_grad():
        x = model.network.backbone(images)[:, :, None, None]
        norm = "0"
        if "0.weight" in head and head["0.weight"].dim() == 4:
            x, norm = F.conv2d(x, head["0.weight"]), "1"
        if f"{norm}.running_mean" in head:
            parts = (head[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
            x = F.batch_norm(x, *parts)
        torch.testing.assert_close(x[:, :, 0, 0], model.network.features(images))


@pytest.mark.parametrize(
    ("project", "backbone"),
    [
        ("torchreid", "small"),
        ("fastreid", "osnet_x1_0"),
        ("timm", "resnet50_ibn_a"),
        ("fastreid", "timm:resnet18"),
    ],
)
def test_a_network_that_a_project_has_not_is_refused(project, backbone):
    with torch.device("meta"):
        settings = config.model_settings(backbone=backbone)
        model = StoredModel(build_network(settings, None, 0, size=SIZE), settings, *SIZE)
    with pytest.raises(ConfigurationError, match=f"{project} has no {backbone} .*, expected resnet18"):
        for_project(model, project)


def test_the_command_writes_the_global_model_of_a_run(resnet18, tmp_path, capsys):
    models = tmp_path / "run" / "models"
    models.mkdir(parents=True)
    model = FlatModel(build_network(resnet18.settings, 3, 0, size=SIZE), CPU)
    save_model(models / "global.safetensors", model, resnet18.settings, *SIZE, 7)
    export = ["results", "export", str(tmp_path / "run"), "--model"]
    for project, ending in (("torchreid", "pth"), ("fastreid", "pth"), ("timm", "safetensors")):
        assert run([*export, project, "-o", str(tmp_path / f"{project}.{ending}")]) == 0
    printed = capsys.readouterr().out
    assert "resnet18 for fastreid; images of 64x32, mean 0.485 0.456 0.406, deviation 0.229" in printed
    weight = model.network.backbone.conv1.weight
    assert torch.equal(load_file(tmp_path / "timm.safetensors")["conv1.weight"], weight)
    inner = torch.load(tmp_path / "fastreid.pth", weights_only=True)["model"]
    assert torch.equal(inner["backbone.conv1.weight"], weight)
    assert run([*export, "torchreid", "-o", str(tmp_path / "x.safetensors")]) == 2
    assert run([*export, "torchreid", str(tmp_path), "-o", str(tmp_path / "x.pth")]) == 2
    assert not (tmp_path / "x.pth").exists()
