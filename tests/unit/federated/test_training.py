import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.nn.functional import pixel_unshuffle

from fedreid_mpi.algorithms.seeds import derive, generator
from fedreid_mpi.algorithms.weighting import cosine_distance
from fedreid_mpi.config import Federation
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.data.batches import normalise
from fedreid_mpi.errors import DataError
from fedreid_mpi.federated.client import (
    describe_client,
    initial_private,
    label_identities,
    load_client,
    private_specs,
    reestimated,
    take_private,
    train,
)
from fedreid_mpi.model import FlatModel, build_network
from fedreid_mpi.records import RoundPlan
from fedreid_mpi.records.pixels import IMAGENET
from support.learners import learner, the_only
from support.small import experiment, write_site


def plan(round=1, learning_rate=0.05):
    return RoundPlan(round=round, participants=(0,), learning_rate=learning_rate, evaluate=False)


@pytest.fixture
def site(tmp_path):
    return write_site(tmp_path / "site.h5", images=20, people=4)


def test_a_client_is_described_by_its_archive(site):
    opened, part = the_only(site)
    spec = describe_client(3, part, opened, Federation())
    assert (spec.id, spec.name, spec.dataset) == (3, "site", 0)
    assert (spec.images, spec.identities) == (20, 4)
    assert spec.test_images == 5 + 4 * 2 + 1


def test_a_client_without_test_split_has_no_test_images(tmp_path):
    path = write_site(tmp_path / "site.h5", images=20, test_people=0)
    opened, part = the_only(path)
    assert describe_client(0, part, opened, Federation()).test_images == 0


def test_a_client_needs_two_images(tmp_path):
    path = write_site(tmp_path / "site.h5", images=1)
    opened, part = the_only(path)
    with pytest.raises(DataError, match="1 training image for client site, expected at least two"):
        describe_client(0, part, opened, Federation())


def test_labels_number_the_sorted_person_ids():
    assert label_identities(np.array([50, 3, 50, 7])).tolist() == [2, 0, 2, 1]
    assert label_identities(np.array([50, 3, 50, 7])).dtype == np.int64


# One batch holds all images, so that a round is one step; nothing is random but the order of the images.
ONE_STEP = {"federation": {"batch_size": 64}, "augmentation": {"pad": 0, "flip": 0.0}}


@pytest.mark.parametrize(("nesterov", "dropout"), [(True, 0.0), (False, 0.0), (True, 0.5)])
def test_a_round_is_the_step_that_is_written_in_the_paper(nesterov, dropout, site):
    """θ ← θ - η (g + λ θ), times 1 + μ with Nesterov's momentum; a tenth of it for the backbone."""
    settings = experiment(
        **ONE_STEP,
        model={"dropout": dropout},
        optimizer={"momentum": 0.8, "nesterov": nesterov, "weight_decay": 0.01},
        objective={"label_smoothing": 0.1},
    )
    trained = learner(site, settings)
    archive = DatasetArchive.open(site)
    chosen = archive.split("train")
    labels = torch.from_numpy(label_identities(archive.pids[chosen]))
    for round in (1, 2):  # momentum starts anew in the second: it takes the very same form
        reference = learner(site, settings)
        network = reference.model.network
        network.load_state_dict(trained.model.network.state_dict())
        rows = generator(3, "train", round, 0).permutation(20)
        torch.manual_seed(derive(3, "train", round, 0, "dropout"))
        logits = network.train()(normalise(torch.from_numpy(archive.images[chosen[rows]]), IMAGENET))
        spread = torch.full((20, 4), 0.1 / 4)
        spread[torch.arange(20), labels[rows]] += 0.9
        loss = -(spread * F.log_softmax(logits, 1)).sum(1).mean()
        loss.backward()
        expected = {}
        for name, parameter in network.named_parameters():
            rate = 0.05 * (0.1 if name.startswith("backbone.") else 1.0) * (1.8 if nesterov else 1.0)
            expected[name] = parameter.detach() - rate * (parameter.grad + 0.01 * parameter.detach())
        report = trained.train(plan(round))
        assert report.steps == 1
        assert report.loss == pytest.approx(loss.item(), rel=1e-6)
        for name, parameter in trained.model.network.named_parameters():
            torch.testing.assert_close(parameter.detach(), expected[name], rtol=1e-5, atol=1e-7, msg=name)
        for name, statistic in trained.model.network.named_buffers():
            torch.testing.assert_close(statistic, dict(network.named_buffers())[name], msg=name)


def test_weight_decay_shrinks_every_trainable_parameter(site):
    decayed, plain = (
        learner(site, settings := experiment(**ONE_STEP, optimizer={"weight_decay": decay}))
        for decay in (0.5, 0.0)
    )
    for one, decay in ((decayed, 0.5), (plain, 0.0)):
        with torch.no_grad():
            for parameter in one.model.network.parameters():
                parameter.add_(0.5)  # biases start at 0, where no decay could be seen
        settings = experiment(**ONE_STEP, optimizer={"weight_decay": decay})
        one.train(plan(), settings)
    for name, parameter in decayed.model.network.named_parameters():
        assert not torch.equal(parameter, dict(plain.model.network.named_parameters())[name]), name


def test_a_report_says_what_was_done(site):
    settings = experiment(federation={"batch_size": 8, "local_epochs": 3})
    trained = learner(site, settings)
    report = trained.train(plan())
    assert (report.client, report.images, report.steps, report.finite) == (0, 20, 3 * 3, True)
    assert 0 < report.loss < 3
    assert report.seconds > 0
    assert report.local_scores is None
    assert all(parameter.grad is None for parameter in trained.model.network.parameters())


def test_a_model_that_diverges_is_reported(site):
    settings = experiment()
    assert not learner(site, settings).train(plan(learning_rate=1e30)).finite


def test_the_loss_falls(site):
    settings = experiment()
    one = learner(site, settings)
    losses = [one.train(plan(round)).loss for round in range(1, 16)]
    assert losses[0] == pytest.approx(np.log(4), rel=0.5)
    assert losses[-1] < 0.3 * losses[0]


RANDOM = {
    "model": {"dropout": 0.5},
    "augmentation": {"pad": 3, "erasing": 0.5, "jitter": [0.2, 0.2, 0.2, 0.1]},
}


def test_a_round_depends_on_seed_round_and_client_alone(site):
    settings = experiment(**RANDOM)

    def trained(settings=settings, round=1, id=0, disturbance=1):
        one = learner(site, settings, id)
        one.model.buffer.copy_(learner(site, settings).model.buffer)  # weights differ from client to client
        torch.manual_seed(disturbance)
        torch.rand(disturbance)
        state = torch.get_rng_state()
        one.train(plan(round), settings)
        assert torch.equal(torch.get_rng_state(), state)
        return one.model.buffer

    first = trained()
    assert torch.equal(trained(disturbance=2), first)
    assert not torch.equal(trained(round=2), first)
    assert not torch.equal(trained(id=1), first)
    assert not torch.equal(trained(experiment(**RANDOM, run={"seed": 4})), first)


def test_the_order_of_clients_on_a_rank_is_irrelevant(archives):
    settings = experiment(**RANDOM)

    def trained(order):
        buffers = {}
        for id in order:
            one = learner(archives[id], settings, id)
            one.train(plan(), settings)
            buffers[id] = one.model.buffer
        return buffers

    forth, back = trained((0, 1, 4)), trained((4, 1, 0))
    assert all(torch.equal(forth[id], back[id]) for id in forth)


def test_reestimated_statistics_are_those_of_the_clients_images_and_are_only_lent(site):
    settings = experiment(model={"neck": "bnneck", "dropout": 0.5})
    trained = learner(site, settings)
    trained.train(plan())
    before = trained.model.buffer.clone()
    network, region = trained.model.network, trained.model.statistics
    order = generator(3, "reestimate", 0).permutation(20)
    batches = [normalise(trained.data.images.batch(rows), IMAGENET) for rows in np.split(order, [7, 14])]
    with torch.no_grad():
        seen = [network.backbone.stem(pixel_unshuffle(batch, 2)) for batch in batches]
    beats: list[None] = []
    with reestimated(trained.data, trained.model, settings, lambda: beats.append(None)):
        lent = trained.model.buffer.clone()
        found = network.backbone.bn.running_mean.clone(), network.backbone.bn.running_var.clone()
        assert not any(module.training for module in network.modules())
    torch.testing.assert_close(found[0], torch.stack([part.mean((0, 2, 3)) for part in seen]).mean(0))
    torch.testing.assert_close(found[1], torch.stack([part.var((0, 2, 3)) for part in seen]).mean(0))
    assert torch.equal(trained.model.buffer, before)
    changed = (lent != before).nonzero().flatten()
    assert region.start <= changed.min()
    assert changed.max() < region.stop
    assert network.backbone.bn.momentum == 0.1
    assert len(beats) == 3  # one for each batch


def test_a_client_that_learns_faster_has_the_larger_cosine_distance(site):
    """Statistics move in training, also where nothing is learned; they do not count."""
    settings = experiment(aggregation={"weights": "cosine-distance"})
    distances = []
    for rate in (0.0, 1e-5, 1e-4, 1e-3):
        one = learner(site, settings)
        before, statistics = one.probe(plan()), one.model.shared[one.model.statistics].clone()
        one.train(plan(learning_rate=rate))
        assert not torch.equal(one.model.shared[one.model.statistics], statistics)
        distances.append(cosine_distance(before, one.probe(plan())))
    assert distances[0] == 0.0
    assert distances == sorted(distances)
    assert len(set(distances)) == 4


@pytest.mark.parametrize("bn", ["average", "local"])
def test_nothing_of_one_client_reaches_the_next(bn, archives):
    """Whatever is in the working model before, a client's turn gives the same bits."""
    settings = experiment(**RANDOM, aggregation={"bn": bn})
    specs = [learner(path, settings, id).data.spec for id, path in enumerate(archives)]
    largest = max(spec.identities for spec in specs)
    model = FlatModel(build_network(settings.model, largest, 3, "shared"), torch.device("cpu"))
    shared = model.shared.clone()
    for id, path in enumerate(archives):
        one = learner(path, settings, id)
        private, spec = initial_private(one.model, one.data.spec, settings), one.data.spec
        found = []
        for before in (0.0, torch.nan):
            model.buffer.fill_(before)
            load_client(model, spec, shared, private, settings)
            report = train(one.data, model, plan(), settings).report
            found.append((report.loss, model.shared.clone(), take_private(model, spec, settings)))
        load_client(one.model, spec, shared, private, settings)  # a model of the client's own size
        own = train(one.data, one.model, plan(), settings).report.loss, one.model.shared, None
        for loss, trained, kept in (found[1], own):
            assert loss == found[0][0]
            assert torch.equal(trained, found[0][1])
            assert kept is None or torch.equal(kept, found[0][2])
        assert found[0][2].isfinite().all()
        model.buffer.fill_(0)
        model.write(private_specs(model, spec, settings), found[0][2])
        assert torch.equal(take_private(model, spec, settings), found[0][2])
