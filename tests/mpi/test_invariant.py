"""A run gives the same bits on any number of ranks: every byte of the models, every stable figure."""

import re
from collections import Counter

import numpy as np
import pytest

from fedreid_mpi.comm import SingleCommunicator
from fedreid_mpi.config import load_experiment
from fedreid_mpi.records import ModelKind
from fedreid_mpi.results import read_run
from fedreid_mpi.run.loop import run_federation
from support.launching import fedreid, launch_program, mpich
from support.on_ranks.mpi_runs import EVERYONE, MASKED, MASKED_SIZES, SIZES, VARIANTS, sample
from support.same_runs import assert_did, assert_same_run
from support.small import PUBLIC_IMAGES, Silent, write_experiment, write_folds, write_public

SAMPLE = sample(2, seed=2)  # of the combinations; `make chaos` plays them all

pytestmark = pytest.mark.timeout(1500)  # ten ranks on two busy cores


@pytest.fixture(scope="module")
def experiments(archives, tmp_path_factory):
    folder = tmp_path_factory.mktemp("variants")
    write_public(folder / "public.h5")
    write_folds(folder / "folds.h5")
    write_folds(folder / "whole.h5", folds=0, seed=12)
    paths = {
        name: write_experiment(folder / f"{name}.toml", archives, **sections)
        for name, sections in (VARIANTS | MASKED).items()
    }
    few = [archive for archive in archives if archive.stem in ("harbour", "campus", "mall")]
    return paths | {
        name: write_experiment(folder / f"{name}.toml", few, **sections) for name, sections in SAMPLE.items()
    }


@pytest.fixture(scope="module")
def alone(experiments, tmp_path_factory):
    """The run directory of each experiment, played by this very process."""
    folder = tmp_path_factory.mktemp("alone")
    for name, path in experiments.items():
        if name in MASKED:  # which one process refuses
            continue
        run_federation(SingleCommunicator(), load_experiment(path), folder / name, Silent())
    return {name: folder / name for name in experiments if name not in MASKED}


@pytest.fixture(scope="module")
def together(experiments, tmp_path_factory):
    """The run directories of each experiment and number of ranks, from a single launch."""
    folder = tmp_path_factory.mktemp("together")
    ended = launch_program(EVERYONE, "mpi_runs.py", folder, *experiments.values(), cwd=folder, timeout=1200)
    assert ended.code == 0, ended.stderr
    return folder


@pytest.mark.parametrize("ranks", SIZES)
@pytest.mark.parametrize("variant", [*VARIANTS, *SAMPLE])
def test_any_number_of_ranks_gives_the_same_bits(variant, ranks, together, alone):
    assert_same_run(together / variant / str(ranks), alone[variant])


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_resume_on_another_number_of_ranks_gives_the_same_bits(variant, together, alone):
    resumed = together / variant / "resumed"
    assert {path.name for path in resumed.glob("results_*.h5")} == {
        "results_001_001.h5",
        "results_002_001.h5",
    }
    assert_same_run(resumed, alone[variant])


@pytest.mark.parametrize("ranks", [*MASKED_SIZES, "resumed"])
@pytest.mark.parametrize("variant", MASKED)
def test_with_masks_the_bits_are_those_without(variant, ranks, together, alone):
    assert_same_run(together / variant / str(ranks), alone[variant.removesuffix("-masked")])


@pytest.mark.parametrize("variant", MASKED)
def test_with_masks_no_client_rank_sends_a_model_or_a_teachers_feature_in_the_clear(variant, together):
    results = read_run(together / variant / "4")
    for round in results.rounds[1:].tolist():
        sums = [
            (rank, message)
            for number, rank, message, _ in results.messages
            if number == round and rank and message.dtype in ("int64", "uint64") and len(message.shape) == 1
            if message.kind != "heartbeat"
        ]
        assert {rank for rank, _ in sums} == {1, 2, 3}  # one without participants as well
        assert {message.dtype for _, message in sums} == {"uint64"}
        kinds = {"models"} | {"distilled-masked": {"features"}, "controlled-masked": {"controls"}}.get(
            variant, set()
        )
        assert {message.kind for _, message in sums} == kinds
        models = [m for n, r, m, _ in results.messages if n == round and r and m.kind == "models"]
        assert {message.dtype for message in models} == {"uint64"}


KINDS = {
    *("models", "features", "controls", "heartbeat"),
    *("NoneType", "bool", "int", "float", "str", "list", "dict", "tuple"),
}
RECORDS = {
    *("ClientReport", "ClientSpec", "Evaluation", "Experiment", "Group", "Message", "Process", "PublicKey"),
    "RankInfo",
    *("Directive", "ResumePoint", "Scores", "StopRequest", "StoredFile", "View"),
}


@pytest.mark.parametrize("variant", [*VARIANTS, *MASKED])
def test_the_ledger_holds_models_features_and_small_records_alone(variant, together):
    entries = read_run(together / variant / "4").messages
    assert {rank for _, rank, _, _ in entries} == {0, 1, 2, 3}
    for _, _, message, count in entries:
        assert count > 0
        assert set(message.kind.split("+")) <= KINDS | RECORDS, message
        assert (message.dtype != "pickle") == (
            message.kind in ("models", "features", "controls", "heartbeat")
        )
        assert message.dtype in ("float32", "int64", "uint64", "pickle")
        assert len(message.shape) <= 2


def test_the_command_line_gives_the_same_bits_under_mpirun(experiments, alone, tmp_path):
    ended = fedreid(4, "train", experiments["plain"], "--run-dir", "run", "--verbose", cwd=tmp_path)
    assert ended.code == 0, ended.stderr
    assert ended.errors == []
    assert_same_run(tmp_path / "run", alone["plain"])
    printed = ended.stdout.splitlines()
    said = [re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d rank (\d)  (.*)", line) for line in printed]
    assert all(said), printed
    by_rank = {rank: [match[2] for match in said if match[1] == str(rank)] for rank in range(4)}
    assert len([line for line in by_rank[0] if line.startswith("round ") and "rank-1" in line]) == 3
    assert [line for line in by_rank[0] if line.startswith("done: ")] == [by_rank[0][-1]]
    trained = re.compile(r"round \d: .*: loss [\d.]+, \d+ steps?, [\d.]+ s")
    assert not any(trained.fullmatch(line) for line in by_rank[0])  # the server hosts no client
    assert any(map(trained.fullmatch, by_rank[1]))
    assert all(trained.fullmatch(line) for rank in (1, 2, 3) for line in by_rank[rank])
    results = read_run(tmp_path / "run")
    hosted = [rank.clients for rank in results.header.ranks]
    assert hosted[0] == ()
    assert sorted(sum(hosted, ())) == [0, 1, 2, 3, 4]
    assert [rank.role for rank in results.header.ranks] == ["server", "client", "client", "client"]


def test_the_command_line_gives_the_same_bits_under_mpich(experiments, alone, tmp_path):
    ended = fedreid(3, "train", experiments["published"], "--run-dir", "run", cwd=tmp_path, launcher=mpich())
    assert ended.code == 0, ended.stderr
    assert_same_run(tmp_path / "run", alone["published"])
    assert len(read_run(tmp_path / "run").header.ranks) == 3


@pytest.mark.parametrize("name", SAMPLE)
def test_a_combination_does_all_that_its_name_says(name, alone):
    assert_did(alone[name], name)


def test_the_variants_differ(alone):
    """Else the comparisons above would show less than they seem to."""
    files = {name: sorted((alone[name] / "models").rglob("*.safetensors")) for name in VARIANTS}
    assert len({files[name][0].read_bytes() for name in VARIANTS}) == len(VARIANTS)
    assert len(files["optimised"]) > 1  # one model per group
    assert len(files["alone"]) == 5


def test_another_seed_gives_another_run(experiments, alone, tmp_path):
    experiment = load_experiment(experiments["plain"], ["run.seed=4"])
    run_federation(SingleCommunicator(), experiment, tmp_path / "run", Silent())
    name = "models/global.safetensors"
    assert (tmp_path / "run" / name).read_bytes() != (alone["plain"] / name).read_bytes()


def test_the_records_say_what_happened(alone):
    results = read_run(alone["published"])
    assert results.rounds.tolist() == [0, 1, 2]
    assert results.participated.sum(1).tolist() == [0, 3, 3]
    assert results.evaluations.tolist() == [0, 2]
    assert (results.weight[1:][results.participated[1:]] == 1).all()
    images = np.array([client.images for client in results.header.clients])
    trained = results.participated[1:]
    expected_steps = np.where(trained, 2 * (images // 8), -1)
    np.testing.assert_array_equal(results.steps[1:], expected_steps)
    assert results.learning_rate[1:].tolist() == pytest.approx([0.025, 0.025])
    away = [client.name for client in results.header.clients if not results.participated[-1, client.id]]
    (event,) = results.events
    assert (event.kind, event.round) == ("no-local-model", int(results.rounds[-1]))
    assert event.text == f"no local model of {', '.join(away)}: away, not drawn, or diverged"
    local = {path.name.partition("_")[2] for path in (alone["published"] / "models" / "local").iterdir()}
    assert local == {f"{client.name}.safetensors" for client in results.header.clients} - {
        f"{name}.safetensors" for name in away
    }


def sent(results, round, kind):
    """Bytes of one kind that travelled in a round."""
    return int(results.bytes_sent[round, results.traffic.index(kind)]) if kind in results.traffic else 0


@pytest.mark.parametrize("ranks", [2, 4, EVERYONE])
@pytest.mark.parametrize(("variant", "teachers"), [("distilled", 3), ("optimised", 9)])
def test_a_rank_sends_a_sum_for_each_group_and_not_a_model_a_client(variant, teachers, ranks, together):
    """Three of five datasets, and nine of ten cameras, in a round that is not evaluated.

    A rank sends two bytes for each byte of a model, as its sums are of 64 bits, for each group that clients
    of its took part in; a client that is alone in its group sends its model. Each group's model goes to all
    other ranks. Distillation adds features, and not a model.
    """
    results = read_run(together / variant / str(ranks))
    model, groups = 4 * results.header.parameters, len(set(results.group[1]))
    trained = np.flatnonzero(results.participated[1]).tolist()
    assert len(trained) == teachers
    assert np.isfinite(results.distillation_loss[1][trained]).all()
    up = features = 0
    for group in set(results.group[1][trained].tolist()):
        members = [client for client in trained if results.group[1, client] == group]
        senders = sum(bool(set(members) & set(rank.clients)) for rank in results.header.ranks if rank.rank)
        alone = len(members) == 1 and variant == "optimised"  # by the grouping
        up += model * (1 if alone else 2 * senders)
        features += senders * PUBLIC_IMAGES * 16 * 8
    assert sent(results, 1, "features") == features
    assert sent(results, 1, "models") == up + groups * (ranks - 1) * model


def test_control_variates_travel_like_the_parameters_of_a_model(together):
    results = read_run(together / "controlled" / "4")
    sizes = {
        (message.kind, message.dtype): message.bytes
        for _, _, message, _ in results.messages
        if message.kind in ("models", "controls")
    }
    for dtype in ("float32", "int64"):
        assert 0.9 < sizes["controls", dtype] / sizes["models", dtype] < 1  # no statistics
    counts = Counter()
    for _, rank, message, count in results.messages:
        counts[message.kind, message.dtype, bool(rank)] += count
    for sums in ((kind, "int64", True) for kind in ("models", "controls")):
        assert counts[sums] > 0
    assert counts["controls", "int64", True] == counts["models", "int64", True]


def test_alone_nothing_is_sent(together):
    assert read_run(together / "distilled" / "1").bytes_sent.sum() == 0


def test_a_client_without_test_images_trains_but_is_not_scored(alone):
    results = read_run(alone["plain"])
    names = [client.name for client in results.header.clients]
    untested = names.index("mall")
    assert results.participated[1:, untested].all()
    for model in (ModelKind.GLOBAL, ModelKind.LOCAL):
        scored = [score is not None for score in results.scores(2, model)]
        assert scored == [client != untested for client in range(5)]
    assert results.score(0, 0, ModelKind.LOCAL) is None
    assert results.score(2, 0, ModelKind.GLOBAL).unmatched == 1


def test_local_training_shares_nothing(alone, experiments, tmp_path):
    """A client alone in the world ends with the model that it has beside others."""
    one = load_experiment(experiments["alone"])
    lone = one.model_copy(update={"data": one.data.model_copy(update={"archives": one.data.archives[:1]})})
    run_federation(SingleCommunicator(), lone, tmp_path / "run", Silent())
    name = "models/local/0_harbour.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (alone["alone"] / name).read_bytes()
    results = read_run(alone["alone"])
    assert np.isnan(results.weight).all()
    assert results.scores(2, ModelKind.GLOBAL) == (None,) * 5
    assert results.score(2, 0, ModelKind.LOCAL) is not None
