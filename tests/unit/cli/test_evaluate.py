import csv
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from fedreid_mpi import config
from fedreid_mpi.cli import run
from fedreid_mpi.data.archive import DatasetArchive
from fedreid_mpi.data.batches import normalise
from fedreid_mpi.evaluation import EvalShard, extract_features, query_then_gallery, rank_gallery, shards
from fedreid_mpi.evaluation.comparison import name_models
from fedreid_mpi.evaluation.features import BATCH, SHARD
from fedreid_mpi.model import load_model
from fedreid_mpi.records import ModelKind
from fedreid_mpi.results import read_run
from support.launching import ERROR
from support.small import write_experiment, write_folds, write_public, write_site

COMPUTE = config.Compute(device="cpu")


@pytest.fixture(scope="module")
def finished(archives, tmp_path_factory):
    """The run directory of a finished run over the clients that have a test split."""
    folder = tmp_path_factory.mktemp("finished")
    tested = [path for path in archives if path.stem != "mall"]
    path = write_experiment(folder / "x.toml", tested, evaluation={"every": 2})
    assert run(["train", str(path), "--run-dir", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture
def model(finished):
    return finished / "models" / "global.safetensors"


def naive_features(network, archive, index):
    """One image at a time: f(x) + f(mirrored x), scaled to length 1."""
    image = (archive.images[index].astype(np.float64) / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    plain = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float()[None]
    with torch.no_grad():
        total = network.features(plain) + network.features(plain.flip(-1))
    return (total / total.norm()).numpy()[0]


def test_features_are_those_of_an_image_and_its_mirror_image(model, archives):
    archive, stored = DatasetArchive.open(archives[4]), load_model(model)
    indices = query_then_gallery(archive)
    assert len(indices) > BATCH["cpu"]  # more than one batch, the last of them partial
    seen = []
    features = extract_features(stored.network, archive, indices, COMPUTE, True, seen.append)
    assert sum(seen) == len(indices)
    assert features.dtype == torch.float32
    expected = [naive_features(stored.network, archive, index) for index in indices]
    np.testing.assert_allclose(features, np.stack(expected), atol=1e-5)


def test_without_mirror_images_features_are_those_of_an_image(model, archives):
    archive, network = DatasetArchive.open(archives[4]), load_model(model).network.eval()
    indices = query_then_gallery(archive)
    features = extract_features(network, archive, indices, COMPUTE, False)
    with torch.no_grad():
        images = normalise(torch.from_numpy(archive.images[indices]), network.pixel_scale)
        alone = network.features(images)
    torch.testing.assert_close(features, torch.nn.functional.normalize(alone))
    assert not torch.allclose(features, extract_features(network, archive, indices, COMPUTE, True))


def test_results_without_mirror_images_say_so(archives, tmp_path, capsys):
    path = write_experiment(
        tmp_path / "x.toml", archives[4:], run={"rounds": 1}, evaluation={"mirror": False}
    )
    run_dir, saved = tmp_path / "run", tmp_path / "features.h5"
    assert run(["train", str(path), "--run-dir", str(run_dir)]) == 0
    capsys.readouterr()
    assert run(["results", "show", str(run_dir)]) == 0
    assert "without mirror images" in " ".join(
        capsys.readouterr().out.split()
    )  # a title wraps as its table does
    model = run_dir / "models" / "global.safetensors"
    arguments = ["evaluate", str(model), str(archives[4]), "--device", "cpu", "--save", str(saved)]
    archive = DatasetArchive.open(archives[4])
    indices = query_then_gallery(archive)
    for option, mirrored in (("--no-mirror", False), ("--mirror", True)):
        assert run([*arguments, option]) == 0
        assert ("without mirror images" in capsys.readouterr().out) == (not mirrored)
        expected = extract_features(load_model(model).network, archive, indices, COMPUTE, mirrored)
        with h5py.File(saved) as file:
            assert bool(file.attrs["mirror"]) == mirrored
            np.testing.assert_allclose(file["library/features"][...], expected.numpy(), atol=1e-5)


def test_features_are_extracted_in_evaluation_mode_and_leave_no_trace(model, archives):
    archive, network = DatasetArchive.open(archives[0]), load_model(model).network.train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    features = extract_features(network, archive, query_then_gallery(archive), COMPUTE, True)
    assert not features.requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_queries_come_before_the_gallery(archives):
    archive = DatasetArchive.open(archives[0])
    indices = query_then_gallery(archive)
    assert indices.tolist() == [*archive.split("query"), *archive.split("gallery")]
    assert (archive.camids[indices[:5]] == 1).all()
    assert (archive.camids[indices[5:]] == 2).all()


def test_a_gallery_is_ranked_by_the_cosine(archives):
    archive = DatasetArchive.open(archives[0])
    indices = query_then_gallery(archive)
    pids = archive.pids[indices]
    perfect = torch.from_numpy((pids[:, None] == np.unique(pids)).astype(np.float32))
    scores = rank_gallery(perfect, archive, "standard", 0).scores()
    assert (scores.cmc[0], scores.mean_ap, scores.queries, scores.unmatched) == (1.0, 1.0, 4, 1)
    worst = torch.cat([perfect[:5], -perfect[5:]])
    assert rank_gallery(worst, archive, "standard", 0).scores().cmc[0] == 0


@pytest.mark.parametrize("images", [0, 1, SHARD - 1, SHARD, SHARD + 1, 3 * SHARD + 5])
def test_units_cover_every_image_once_in_whole_batches(images):
    cut = list(shards(2, images))
    assert all(shard.dataset == 2 for shard in cut)
    assert [n for shard in cut for n in range(shard.start, shard.stop)] == list(range(images))
    assert all(shard.start % size == 0 for shard in cut for size in BATCH.values())
    assert cut[1:2] in ([], [EvalShard(2, SHARD, min(2 * SHARD, images))])


def test_units_do_not_change_the_bits(model, archives):
    """A shard is whole batches, so whoever extracts it gives the features that one rank alone would."""
    archive, network = DatasetArchive.open(archives[4]), load_model(model).network
    indices, batch = query_then_gallery(archive), BATCH["cpu"]
    whole = extract_features(network, archive, indices, COMPUTE, True)
    cut = [
        extract_features(network, archive, part, COMPUTE, True) for part in (indices[:batch], indices[batch:])
    ]
    assert torch.equal(torch.cat(cut), whole)


def figures(line):
    return [word.strip() for word in line.replace("│", "|").split("|") if word.strip()]


def test_the_command_reproduces_the_runs_own_figures(finished, model, archives, capsys):
    results = read_run(finished)
    paths = [str(path) for path in archives if path.stem != "mall"]
    assert run(["evaluate", str(model), *paths, "--device", "cpu"]) == 0
    printed = [figures(line) for line in capsys.readouterr().out.splitlines()]
    rows = {words[0]: words[1:] for words in printed if words}
    for client, score in zip(
        results.header.clients, results.scores(int(results.rounds[-1]), ModelKind.GLOBAL), strict=True
    ):
        shares = (score.cmc[0], score.cmc[4], score.cmc[9], score.mean_ap, score.mean_inp)
        expected = [f"{100 * share:.1f}" for share in shares]
        assert rows[client.name] == [*expected, str(score.queries), str(score.unmatched)]


def test_saved_features_and_scores_reproduce_the_figures(finished, model, archives, tmp_path, capsys):
    saved = tmp_path / "features.h5"
    assert run(["evaluate", str(model), str(archives[4]), "--save", str(saved), "--device", "cpu"]) == 0
    assert str(saved) in capsys.readouterr().out
    results = read_run(finished)
    score = results.scores(int(results.rounds[-1]), ModelKind.GLOBAL)[-1]
    archive = DatasetArchive.open(archives[4])
    with h5py.File(saved) as file:
        assert file.attrs["protocol"] == "standard"
        images, split = file["library"], file["library/splits/0"]
        query, gallery = split["query"][...], split["gallery"][...]
        paths, pids = images["path"].asstr()[...], images["pid"][...]
        assert paths[query].tolist() == [archive.paths[n] for n in archive.split("query")]
        assert pids[gallery].tolist() == archive.pids[archive.split("gallery")].tolist()
        features = images["features"][...].astype(float)
        similarity = features[query] @ features[gallery].T
        matches = pids[query][:, None] == pids[gallery]
        first = split["first_match"][...]
        precision = split["average_precision"][...]
        kept = pids[gallery] >= 0
    for number, wanted in enumerate(matches):
        order = np.argsort(-similarity[number, kept], kind="stable")
        hits = np.flatnonzero(wanted[kept][order]) + 1
        if hits.size == 0:
            assert first[number] == 0
            assert np.isnan(precision[number])
        else:
            assert first[number] == hits[0]
            assert precision[number] == pytest.approx(np.mean(np.arange(1, len(hits) + 1) / hits))
    assert np.nanmean(precision) == pytest.approx(score.mean_ap)
    assert np.mean(first[first > 0] == 1) == pytest.approx(score.cmc[0])
    assert list(tmp_path.iterdir()) == [saved]


@pytest.mark.parametrize("protocol", ["published", "single-gallery-shot"])
def test_another_protocol_may_be_asked_for(protocol, model, archives, capsys):
    assert run(["evaluate", str(model), str(archives[0]), "--protocol", protocol]) == 0
    assert protocol in capsys.readouterr().out


@pytest.fixture
def refused(capsys):
    def call(code, *arguments):
        assert run(["evaluate", *map(str, arguments)]) == code
        printed = capsys.readouterr()
        assert printed.err.count("\n") == 1
        assert printed.err.startswith(ERROR)
        assert printed.out == ""
        return printed.err.removeprefix(ERROR).strip()

    return call


def test_images_of_another_size_are_refused(refused, model, tmp_path):
    larger = write_site(tmp_path / "larger.h5", images=10, height=64, width=32)
    saved = tmp_path / "features.h5"
    line = refused(3, model, larger, "--save", saved)
    assert line == f"{larger}: images are 64x32, expected 32x16 as in {model}"
    assert not saved.exists()


def test_a_dataset_without_test_split_is_refused(refused, model, archives):
    assert refused(3, model, archives[3]).startswith(f"{archives[3]}: no split 0 for query")


def test_a_file_that_is_no_model_is_refused(refused, archives, tmp_path):
    foreign = tmp_path / "archive.safetensors"
    foreign.write_bytes(archives[0].read_bytes())
    assert "not a readable safetensors file" in refused(3, foreign, archives[0])
    assert refused(3, tmp_path / "none", archives[0]) == f"{tmp_path / 'none'}: no such model file"


def test_a_folder_that_is_not_there_is_refused_before_any_work(refused, model, archives, tmp_path):
    saved = tmp_path / "none" / "features.h5"
    assert refused(2, model, archives[0], "--save", saved).startswith(f"--save {saved}: no such folder")


def test_two_archives_of_one_name_cannot_be_told_apart(refused, model, tmp_path):
    twins = [tmp_path / folder / "site.h5" for folder in "ab"]
    for number, path in enumerate(twins):
        path.parent.mkdir()
        write_site(path, images=10, seed=number)
    for more in ((), ("--save", tmp_path / "features.h5")):
        line = refused(2, model, *twins, *more)
        assert line.startswith(f"{twins[1]} and {twins[0]} are both named 'site', expected a name each")
    assert not (tmp_path / "features.h5").exists()


def test_models_are_told_from_archives_by_their_endings(refused, model, archives):
    assert refused(2, *archives[:2]) == (
        f"no model among {archives[0]}, {archives[1]}, expected MODEL... DATA.h5..."
    )
    assert refused(2, model) == f"no archive (.h5) among {model}, expected MODEL... DATA.h5..."
    assert refused(2, model, model, archives[0]) == f"{model} is given twice, expected each model once"


def test_public_archives_are_passed_over_by_saying_so(refused, model, archives, tmp_path, capsys):
    public = write_public(tmp_path / "public.h5")
    assert run(["evaluate", str(model), str(public), str(archives[0]), "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"skipped: {public}: public, without test images\n")
    rows = [words[0] for line in printed.splitlines() if "│" in line and (words := figures(line))]
    assert rows == ["harbour"]
    line = refused(3, model, public)
    assert line == f"{public}: public, without test images; expected a dataset that is tested on"


@pytest.fixture(scope="module")
def other(archives, tmp_path_factory):
    """The model of another run: other bits, another normalisation, the same image size."""
    folder = tmp_path_factory.mktemp("other")
    changes = {"backbone": "timm:test_vit", "embedding_dim": 8}
    path = write_experiment(folder / "x.toml", archives[4:], run={"rounds": 1}, model=changes)
    assert run(["train", str(path), "--run-dir", str(folder / "run")]) == 0
    return folder / "run" / "models" / "global.safetensors"


def scored(model, path):
    """Rank-1, mAP and mINP as the parts of the evaluation give them."""
    archive, network = DatasetArchive.open(path), load_model(model).network
    scores = rank_gallery(
        extract_features(network, archive, query_then_gallery(archive), COMPUTE, True), archive, "standard", 0
    ).scores()
    return scores.cmc[0], scores.mean_ap, scores.mean_inp


def test_several_models_are_compared(model, other, tmp_path, capsys):
    assert load_model(model).network.pixel_scale != load_model(other).network.pixel_scale
    table, listed = tmp_path / "scores.csv", tmp_path / "scores.json"
    sites = [
        write_folds(tmp_path / f"{name}.h5", folds=0, seed=n) for n, name in enumerate(("north", "south"))
    ]
    words = ["evaluate", str(model), str(other), *map(str, sites), "--device", "cpu"]
    assert run([*words, "-o", str(table)]) == 0
    printed = capsys.readouterr().out
    expected = {(each, site.stem): scored(each, site) for each in (model, other) for site in sites}
    assert len(set(expected.values())) == 4
    blocks = printed.split(" in percent, protocol standard\n")[1:]
    for number, block in enumerate(blocks):
        rows = [line.split() for line in block.splitlines() if line.strip() and "─" not in line]
        assert rows[0] == [
            f"{path.parents[2].name}/{path.parents[1].name}/models/global" for path in (model, other)
        ]
        shares = {
            site: [expected[each, site][number] for each in (model, other)] for site in ("north", "south")
        }
        shares["mean"] = np.mean(list(shares.values()), axis=0)
        for row in rows[1:4]:
            assert row[1:] == [f"{100 * share:.1f}" for share in shares[row[0]]]
    assert len(blocks) == 2
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["model"], row["dataset"]) for row in rows] == [
        (str(m), s.stem) for m in (model, other) for s in sites
    ]
    for row in rows:
        found = [float(row[name]) for name in ("rank_1", "mean_ap", "mean_inp")]
        assert found == pytest.approx(expected[Path(row["model"]), row["dataset"]])
        assert (row["split"], row["protocol"], row["reranked"]) == ("0", "standard", "False")
        assert row["model_digest"] == load_model(Path(row["model"])).digest
    assert run([*words, "--protocol", "single-gallery-shot", "-o", str(listed)]) == 0
    assert "mAP in percent" not in capsys.readouterr().out
    rows = json.loads(listed.read_text())
    assert [row["mean_ap"] for row in rows] == [None] * 4
    assert {row["protocol"] for row in rows} == {"single-gallery-shot"}
    assert sorted(tmp_path.iterdir()) == sorted([table, listed, *sites])


def test_each_model_is_scored_on_archives_of_its_size(refused, model, archives, tmp_path, capsys):
    """The same dataset is there in both sizes, another in one alone."""
    larger = tmp_path / "larger" / "harbour.h5"
    larger.parent.mkdir()
    write_site(larger, images=10, height=64, width=32)
    path = write_experiment(tmp_path / "x.toml", [larger], run={"rounds": 1})
    assert run(["train", str(path), "--run-dir", str(tmp_path / "run")]) == 0
    big = tmp_path / "run" / "models" / "global.safetensors"
    capsys.readouterr()
    paths = [model, big, archives[0], archives[4], larger]
    assert run(["evaluate", *map(str, paths), "--device", "cpu"]) == 0
    block = capsys.readouterr().out.split("mAP in percent")[1]
    rows = {words[0]: words[1:] for line in block.splitlines()[1:] if (words := line.split())}
    assert rows["harbour"] == [
        f"{100 * scored(*pair)[1]:.1f}" for pair in ((model, archives[0]), (big, larger))
    ]
    assert rows["library"] == [f"{100 * scored(model, archives[4])[1]:.1f}", "–"]
    assert rows["mean"][1] == "–"
    line = refused(3, model, big, archives[0])
    assert line == f"{big}: takes images of 64x32, and none of {archives[0]} has them"
    odd = write_site(tmp_path / "odd.h5", images=10, height=32, width=32)
    assert refused(3, model, big, archives[0], larger, odd) == (
        f"{odd}: images are 32x32, expected 32x16 as in {model} or 64x32 as in {big}"
    )


@pytest.mark.parametrize(
    ("option", "name", "said"),
    [
        ("-o", "x.txt", "expected a name that ends in .csv or .json"),
        ("-o", "none/x.csv", "no such folder"),
        ("--save", "x.h5", "holds the features of one model, found 2"),
    ],
)
def test_what_cannot_be_written_is_refused_before_any_work(
    option, name, said, refused, model, other, archives, tmp_path
):
    assert said in refused(2, model, other, archives[0], option, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_models_are_named_after_what_tells_them_apart():
    paths = [Path("runs/a/models/global.safetensors"), Path("runs/b/models/global.safetensors")]
    assert name_models(paths) == ["a/models/global", "b/models/global"]
    assert name_models([*paths[:1], Path("x/local/3_viper.safetensors")]) == ["global", "3_viper"]
    assert name_models([Path("m.safetensors"), Path("m.bin")]) == ["m.safetensors", "m.bin"]
