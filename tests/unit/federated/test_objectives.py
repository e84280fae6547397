import numpy as np
import pytest
import torch

from fedreid_mpi.algorithms.fedprox import proximal_gradient
from fedreid_mpi.config import Experiment
from fedreid_mpi.records import Role, RoundPlan
from support.learners import learner
from support.small import EXPERIMENT, write_site


def experiment(**sections):
    content = {name: dict(keys) for name, keys in EXPERIMENT.items()} | {"data": {"archives": ["unused.h5"]}}
    for name, keys in sections.items():
        content[name] = content.get(name, {}) | keys
    return Experiment.model_validate(content)


@pytest.fixture
def site(tmp_path):
    return write_site(tmp_path / "site.h5", images=20, people=4)


def test_the_proximal_gradient_by_hand():
    moved, still, without = (torch.tensor(values) for values in ([1.0, 3.0], [2.0], [7.0]))
    moved.grad, still.grad = torch.tensor([10.0, 20.0]), torch.tensor([5.0])
    pairs = [(moved, torch.tensor([0.0, 5.0])), (still, torch.tensor([2.0])), (without, torch.tensor([0.0]))]
    proximal_gradient(pairs, 0.5)
    assert moved.grad.tolist() == [10.5, 19.0]
    assert still.grad.tolist() == [5.0]
    assert without.grad is None


def two_steps(expected, term):
    """Take two steps on all images at once, by autograd of the cross-entropy and another term.

    ``term`` is made of the labels, the embeddings before the last BatchNorm, and the model.
    """
    network = expected.model.network.train()
    groups = [
        {"params": expected.model.parameters(Role.BACKBONE), "lr": 0.005},
        {"params": expected.model.parameters(Role.EMBEDDING, Role.CLASSIFIER), "lr": 0.05},
    ]
    sgd = torch.optim.SGD(groups, momentum=0.9, nesterov=True, weight_decay=5e-4)
    images = expected.data.images.batch(np.arange(20)).permute(0, 3, 1, 2).float() / 255
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    images = (images - mean[:, None, None]) / deviation[:, None, None]
    for _ in range(2):
        embeddings = network.embedding(network.backbone(images))
        logits = network.classifier(network.embedding_bn(embeddings))
        loss = torch.nn.functional.cross_entropy(logits, expected.data.labels)
        sgd.zero_grad()
        (loss + term(expected.data.labels, embeddings)).backward()
        sgd.step()


def assert_close(found, expected):
    for name, parameter in found.model.network.named_parameters():
        own = dict(expected.model.network.named_parameters())[name]
        torch.testing.assert_close(parameter, own, rtol=1e-4, atol=1e-6, msg=name)


ONE_BATCH = {"federation": {"batch_size": 64, "local_epochs": 2}, "augmentation": {"pad": 0, "flip": 0.0}}


def test_two_steps_are_those_of_the_loss_with_the_proximal_term_in_it(site):
    """Autograd of μ/2 ‖θ - θᵗ‖² over the shared parameters, instead of its gradient written down."""
    settings = experiment(**ONE_BATCH, objective={"proximal": 3.0})
    found, expected = learner(site, settings), learner(site, settings)
    found.train(RoundPlan(1, (0,), 0.05, evaluate=False))
    shared = expected.model.parameters(Role.BACKBONE, Role.EMBEDDING)
    start = [parameter.detach().clone() for parameter in shared]

    def term(labels, embeddings):
        return 3.0 / 2 * sum(((p - s) ** 2).sum() for p, s in zip(shared, start, strict=True))

    two_steps(expected, term)
    assert_close(found, expected)


@pytest.mark.parametrize("embedding_dim", [0, 16])
def test_two_steps_are_those_of_the_loss_with_the_triplet_term_in_it(embedding_dim, site):
    model = {"neck": "bnneck", "embedding_dim": embedding_dim}
    settings = experiment(**ONE_BATCH, model=model, objective={"triplet": 0.5, "margin": "soft"})
    found, expected = learner(site, settings), learner(site, settings)
    found.train(RoundPlan(1, (0,), 0.05, evaluate=False))

    def term(labels, embeddings):
        losses = []
        for a, person in enumerate(labels):
            others = torch.arange(len(labels)) != a
            distances, same = (embeddings[others] - embeddings[a]).norm(dim=1), labels[others] == person
            losses.append(torch.log1p(torch.exp(distances[same].max() - distances[~same].min())))
        return 0.5 * torch.stack(losses).mean()

    two_steps(expected, term)
    assert_close(found, expected)


def test_without_strength_it_is_fedpav_to_the_bit(site):
    plan = RoundPlan(1, (0,), 0.05, evaluate=False)
    trained = []
    neutral = {"objective": {"proximal": 0.0, "triplet": 0.0, "contrastive": 0.0}}
    for sections in ({}, neutral, {"objective": {"proximal": 0.5}}):
        one = learner(site, experiment(**sections))
        start = one.model.shared.clone()
        one.train(plan)
        parameters = one.model.shared[: one.model.statistics.start]
        trained.append((one.model.buffer, float((parameters - start[: len(parameters)]).norm())))
    assert torch.equal(trained[0][0], trained[1][0])
    assert trained[2][1] < trained[0][1]  # held nearer to the beginning
