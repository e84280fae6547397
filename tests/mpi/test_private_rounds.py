"""Rounds with differential privacy, against the step computed anew from the files that a run leaves."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedreid_mpi import cli
from fedreid_mpi.algorithms.seeds import generator
from fedreid_mpi.comm import SingleCommunicator
from fedreid_mpi.config import load_experiment
from fedreid_mpi.results import read_run
from fedreid_mpi.run.loop import run_federation
from support.small import Silent, write_experiment

CAMERAS = 10
CLIP, STATISTICS_CLIP, MULTIPLIER = 0.05, 0.5, 0.7
SECTIONS = {
    "run": {"rounds": 1},
    "federation": {"clients": "camera"},
    "aggregation": {"weights": "uniform"},
    "privacy": {"clip": CLIP, "statistics_clip": STATISTICS_CLIP, "noise_multiplier": MULTIPLIER},
}


class Notes(Silent):
    def started(self, header, notes):
        self.notes = notes


def play(folder, archives, *overrides, **sections):
    merged = {name: SECTIONS.get(name, {}) | sections.get(name, {}) for name in {**SECTIONS, **sections}}
    experiment = load_experiment(write_experiment(folder / "x.toml", archives, **merged), overrides)
    observer = Notes()
    run_federation(SingleCommunicator(), experiment, folder / "run", observer)
    return experiment, folder / "run", observer.notes


def shared_of(path):
    """The tensors of a model that clients share, in the file's order of names."""
    return {
        name: tensor.astype(np.float64)
        for name, tensor in load_file(path).items()
        if not name.startswith("classifier")
    }


def is_statistic(name):
    return name.endswith(("running_mean", "running_var"))


def clipped(update, bound, statistics):
    chosen = {name: values for name, values in update.items() if is_statistic(name) == statistics}
    norm = np.sqrt(sum((values**2).sum() for values in chosen.values()))
    return {name: values * min(1.0, bound / norm) for name, values in chosen.items()}


def start_and_updates(run_dir):
    """The model before round 1, and the sum of the clipped updates of all local models."""
    before = shared_of(run_dir / "checkpoints/round_000000/global.safetensors")
    total = {name: np.zeros_like(values) for name, values in before.items()}
    for path in sorted((run_dir / "models" / "local").glob("*.safetensors")):
        update = {name: values - before[name] for name, values in shared_of(path).items()}
        for part in (clipped(update, CLIP, False), clipped(update, STATISTICS_CLIP, True)):
            for name, values in part.items():
                total[name] += values
    return before, total


def noise_of(after, before, total, divisor):
    """What the run's step has beside the clients' updates, times the divisor, part by part."""
    found = {False: [], True: []}
    for name, values in after.items():
        if name.endswith("running_var"):  # may be floored
            continue
        found[is_statistic(name)].append(((values - before[name]) * divisor - total[name]).reshape(-1))
    return {part: np.concatenate(values) for part, values in found.items()}


@pytest.mark.parametrize(
    ("drawn", "seed"),
    [(0, 3), (4, 3), (1, 3)],
    ids=["everybody", "some", "nobody"],
)
def test_the_step_is_that_of_clipped_updates_and_noise_by_the_fixed_divisor(drawn, seed, archives, tmp_path):
    _, run_dir, _ = play(tmp_path, archives, federation={"clients_per_round": drawn}, run={"seed": seed})
    results, divisor = read_run(run_dir), drawn or CAMERAS
    counted = int(results.participated[1].sum())
    assert counted == len(list((run_dir / "models" / "local").glob("*.safetensors")))
    assert {0: counted == CAMERAS, 4: 1 < counted < CAMERAS, 1: counted == 0}[drawn]
    before, total = start_and_updates(run_dir)
    after = shared_of(run_dir / "models" / "global.safetensors")
    noise = noise_of(after, before, total, divisor)
    for statistics, scale in ((False, CLIP), (True, STATISTICS_CLIP)):
        expected = np.sqrt(2) * MULTIPLIER * scale
        deviation = noise[statistics].std()
        assert deviation == pytest.approx(expected, rel=0.05 if statistics else 0.01)
        assert abs(noise[statistics].mean()) < 5 * expected / np.sqrt(len(noise[statistics]))
    # To the value: the noise of the first parameter tensor is the beginning of its stream.
    stream = generator(seed, "noise", 1, "parameters").standard_normal(32 * 12 * 9)
    name = "backbone.stem.weight"
    step = (after[name] - before[name]) * divisor - total[name]
    drawn_here = np.sort((np.sqrt(2) * MULTIPLIER * CLIP * stream).reshape(-1))
    np.testing.assert_allclose(np.sort(step.reshape(-1)), drawn_here, atol=2e-5 * divisor)


def test_without_noise_and_with_wide_bounds_the_step_is_the_plain_mean(archives, tmp_path):
    wide = {"clip": 200.0, "statistics_clip": 1e5, "noise_multiplier": 0.0}
    for name in ("bounded", "plain"):
        (tmp_path / name).mkdir()
    _, bounded, notes = play(tmp_path / "bounded", archives, privacy=wide)
    sections = {name: keys for name, keys in SECTIONS.items() if name != "privacy"}
    experiment = load_experiment(write_experiment(tmp_path / "y.toml", archives, **sections))
    run_federation(SingleCommunicator(), experiment, tmp_path / "plain" / "run", Silent())
    runs = bounded, tmp_path / "plain" / "run"
    one, other = (shared_of(run / "models/global.safetensors") for run in runs)
    for name, values in other.items():
        np.testing.assert_allclose(one[name], values, rtol=1e-6, atol=1e-7)
    assert any("privacy.noise_multiplier = 0 bounds nothing" in note for note in notes)
    assert np.isinf(read_run(bounded).epsilon[1])


def test_variances_are_never_negative(archives, tmp_path):
    _, run_dir, notes = play(
        tmp_path, archives, privacy={"statistics_clip": 50.0}, evaluation={"local_models": False}
    )
    variances = [
        values
        for name, values in shared_of(run_dir / "models/global.safetensors").items()
        if name.endswith("running_var")
    ]
    smallest = min(values.min() for values in variances)
    assert smallest == 0
    assert all("evaluation.local_models" not in note for note in notes)


def test_all_that_diverge_are_zero_updates_and_the_run_goes_on(archives, tmp_path):
    _, run_dir, _ = play(tmp_path, archives, optimizer={"lr": 1e30})
    results = read_run(run_dir)
    assert not results.finite[1].any()
    assert len([event for event in results.events if event.kind == "non-finite"]) >= CAMERAS
    before, total = start_and_updates(run_dir)
    assert all((values == 0).all() for values in total.values())
    after = shared_of(run_dir / "models/global.safetensors")
    noise = noise_of(after, before, total, CAMERAS)
    assert noise[False].std() == pytest.approx(np.sqrt(2) * MULTIPLIER * CLIP, rel=0.01)


def test_what_does_not_move_is_not_noised(archives, tmp_path):
    _, run_dir, _ = play(tmp_path, archives, optimizer={"backbone_lr_factor": 0.0}, model={"neck": "bnneck"})
    before = shared_of(run_dir / "checkpoints/round_000000/global.safetensors")
    for name, values in shared_of(run_dir / "models/global.safetensors").items():
        frozen = (name.startswith("backbone") and not is_statistic(name)) or name == "embedding_bn.bias"
        assert (values == before[name]).all() == frozen, name


def test_the_start_says_what_it_will_cost_and_the_table_what_was_spent(archives, tmp_path, capsys):
    merged = SECTIONS | {
        "run": {"rounds": 2},
        "privacy": {"clip": 0.1, "noise_multiplier": 2.0, "delta": 1e-3},
    }
    path = write_experiment(tmp_path / "x.toml", archives, **merged)
    assert cli.run(["train", str(path), "--run-dir", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    joined = " ".join(printed.split())
    spent = read_run(tmp_path / "run").epsilon
    assert spent[0] == 0
    assert 0 < spent[1] < spent[2]
    assert f"privacy: ε = {spent[2]:.2f} at δ = 0.001 after 2 rounds" in joined
    assert "times as long as the longest step" in joined
    assert "outside ε lie losses, numbers of images and steps, scores of local models" in printed.replace(
        "\n", " "
    )
    (line,) = [line for line in printed.splitlines() if "round 2/2" in line]
    assert f"ε {spent[2]:.2f}" in line
    assert cli.run(["results", "show", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out
    assert f"Privacy: ε = {spent[2]:.2f} at δ = 0.001 after round 2 (clip 0.1, noise multiplier 2)" in shown
