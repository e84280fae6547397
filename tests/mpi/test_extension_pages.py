"""The examples of the pages on adding an algorithm and a backbone are played as they stand there."""

import ast
import inspect
import re
from math import log, sqrt
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from fedreid_mpi import config
from fedreid_mpi.algorithms import fedprox, weighting
from fedreid_mpi.comm import SingleCommunicator
from fedreid_mpi.config import load_experiment
from fedreid_mpi.federated import plan
from fedreid_mpi.model import FlatModel, backbones, build_network, load_backbone_weights
from fedreid_mpi.results import read_run
from fedreid_mpi.run.loop import run_federation
from support.small import SITES, Silent, write_experiment

DOCS = Path(__file__).parents[2] / "docs"


def example(page):
    (source,) = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    names = {}
    exec(compile(source, page, "exec"), names)
    return names


def test_the_algorithm_of_the_page_is_the_one_in_the_tree():
    """But for the docstring, which the page cuts short."""

    def body(source, name):
        (found,) = [node for node in ast.walk(ast.parse(source)) if getattr(node, "name", "") == name]
        return ast.dump(ast.Module(found.body[1:], [])) + ast.dump(found.args)

    (shown,) = re.findall(
        r"```python\n(.*?)```", (DOCS / "adding-an-algorithm.md").read_text(encoding="utf-8"), re.DOTALL
    )
    assert body(shown, "proximal_gradient") == body(inspect.getsource(fedprox), "proximal_gradient")


def test_the_loss_of_the_page_is_its_term_times_its_weight():
    page = (DOCS / "changing-the-loss.md").read_text(encoding="utf-8")
    names = {}
    exec(compile("\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL)), "page", "exec"), names)

    def term(weight):
        objective = SimpleNamespace(confidence=weight)
        return names["confidence"](SimpleNamespace(experiment=SimpleNamespace(objective=objective)))

    even, sure = torch.zeros(3, 4), torch.tensor([[200.0, 0, 0, 0]])
    assert term(0.0) is None
    assert term(2.0)(SimpleNamespace(logits=even)).item() == pytest.approx(-2 * log(4))
    assert term(2.0)(SimpleNamespace(logits=sure)).item() == pytest.approx(0)


def test_the_weight_of_the_page_weighs_clients(archives, tmp_path, monkeypatch):
    page = (DOCS / "adding-an-algorithm.md").read_text(encoding="utf-8")
    (row,) = re.findall(r'^("square-root": .*),$', page, re.MULTILINE)
    rules = eval(f"{{{row}}}", {"WeightRule": weighting.WeightRule, "sqrt": sqrt})
    monkeypatch.setattr(weighting, "WEIGHTINGS", {**weighting.WEIGHTINGS, **rules})
    monkeypatch.setattr(plan, "WEIGHTINGS", weighting.WEIGHTINGS)
    experiment = load_experiment(write_experiment(tmp_path / "small.toml", archives, run={"rounds": 1}))
    chosen = experiment.aggregation.model_copy(update={"weights": "square-root"})
    experiment = experiment.model_copy(update={"aggregation": chosen})
    run_federation(SingleCommunicator(), experiment, tmp_path / "run", Silent())
    weights = read_run(tmp_path / "run").weight[1]
    np.testing.assert_allclose(weights, [sqrt(images) for images in SITES.values()])


def test_the_backbone_of_the_page_learns_and_takes_weights(archives, tmp_path, monkeypatch):
    build = example("adding-a-backbone.md")["build_stripes"]
    monkeypatch.setitem(backbones.BACKBONES, "stripes", build)
    path = write_experiment(tmp_path / "small.toml", archives[:2], run={"rounds": 1})
    experiment = load_experiment(path)
    model = experiment.model.model_copy(update={"backbone": "stripes"})
    run_federation(
        SingleCommunicator(), experiment.model_copy(update={"model": model}), tmp_path / "run", Silent()
    )
    trained = load_file(tmp_path / "run" / "models" / "global.safetensors")
    settings = config.Model.model_construct(**{**dict(experiment.model), "backbone": "stripes"})
    fresh = build_network(settings, None, experiment.run.seed, "shared")
    assert trained["backbone.second.weight"].shape == (48, 24, 3, 3)
    assert trained.keys() == {spec.name for spec in FlatModel(fresh, torch.device("cpu")).specs}
    assert (
        np.abs(trained["backbone.first.weight"] - fresh.backbone.first.weight.detach().numpy()).max() > 1e-4
    )

    torch.save(build(2).module.state_dict(), tmp_path / "stripes.pth")
    load_backbone_weights(tmp_path / "stripes.pth", fresh, "stripes")
