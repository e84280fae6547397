import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedreid_mpi.config import PRESETS, Experiment, load_experiment
from fedreid_mpi.errors import ConfigurationError
from support.small import write_experiment


def load(folder, text, *overrides):
    (folder / "x.toml").write_text('data = {archives = ["a.h5"]}\n' + text)
    return load_experiment(folder / "x.toml", overrides)


def test_defaults_are_the_papers(tmp_path):
    experiment = load(tmp_path, "")
    assert (experiment.run.rounds, experiment.federation.local_epochs, experiment.federation.batch_size) == (
        300,
        1,
        32,
    )
    assert (experiment.model.backbone, experiment.model.embedding_dim) == ("resnet50", 512)
    assert (experiment.optimizer.lr, experiment.optimizer.backbone_lr_factor) == (0.05, 0.1)
    assert (experiment.optimizer.momentum, experiment.optimizer.weight_decay) == (0.9, 5e-4)
    assert (experiment.aggregation.weights, experiment.aggregation.bn) == ("samples", "average")


def test_the_file_outdoes_the_preset_and_overrides_outdo_the_file(tmp_path):
    published = PRESETS["published"]
    assert published["aggregation"]["bn"] == "reference"
    assert published["federation"]["drop_last"]
    text = 'preset = "published"\n'
    assert load(tmp_path, text).aggregation.bn == "reference"
    text += '[aggregation]\nbn = "local"\n'
    experiment = load(tmp_path, text)
    assert experiment.aggregation.bn == "local"
    assert experiment.federation.drop_last
    assert load(
        tmp_path, text, "aggregation.bn=average", "aggregation.weights=uniform"
    ).aggregation.model_dump() == {
        "rule": "average",
        "bn": "average",
        "probe": "own",
        "weights": "uniform",
    }


def test_adaptive_optimizers_of_the_server_have_a_rate_of_their_own(tmp_path):
    rates = {"none": 1.0, "momentum": 1.0, "adam": 0.01, "yogi": 0.01}
    assert {name: load(tmp_path, "", f"server.optimizer={name}").server.lr for name in rates} == rates
    given = load(tmp_path, '[server]\noptimizer = "adam"\nlr = 1.0\n')
    assert given.server.lr == 1
    assert Experiment.model_validate(given.model_dump(mode="json")) == given


def test_an_override_may_choose_the_preset(tmp_path):
    assert load(tmp_path, "", "preset=published").evaluation.protocol == "published"


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("run.rounds=7", lambda e: e.run.rounds == 7),
        (" run.rounds = 7", lambda e: e.run.rounds == 7),
        ("run.name=two words", lambda e: e.run.name == "two words"),
        ('run.name="a=b"', lambda e: e.run.name == "a=b"),
        ("federation.drop_last=true", lambda e: e.federation.drop_last is True),
        ("optimizer.lr=1e-3", lambda e: e.optimizer.lr == 0.001),
        ("augmentation.jitter=[0.1,0.2,0.3,0.4]", lambda e: e.augmentation.jitter == (0.1, 0.2, 0.3, 0.4)),
    ],
)
def test_overrides_are_toml_values_or_plain_words(override, read, tmp_path):
    assert read(load(tmp_path, "", override))


def test_the_last_of_two_overrides_counts(tmp_path):
    assert load(tmp_path, "", "run.rounds=7", "run.rounds=8").run.rounds == 8


def test_paths_are_relative_to_the_file(tmp_path, monkeypatch):
    folder = tmp_path / "experiments"
    folder.mkdir()
    text = (
        'model = {weights = "w/r50.pth"}\ndata = {archives = ["a.h5", "../b.h5", "/data/c.h5", "~/d.h5"]}\n'
    )
    (folder / "x.toml").write_text(text)
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.chdir(tmp_path)
    experiment = load_experiment(type(folder)("experiments/x.toml"))
    assert [str(path) for path in experiment.data.archives] == [
        f"{folder}/a.h5",
        f"{folder}/../b.h5",
        "/data/c.h5",
        "/home/somebody/d.h5",
    ]
    assert str(experiment.model.weights) == f"{folder}/w/r50.pth"


def test_nothing_can_be_changed_afterwards(tmp_path):
    experiment = load(tmp_path, "")
    with pytest.raises(ValueError, match="frozen"):
        experiment.run.seed = 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[run]\nrounds = 1.5\n", "run.rounds is 1.5, expected an integer"),
        ("run = 3\n", "run is 3, expected a table"),
        ("[optimizer]\nmilestones = 3\n", "optimizer.milestones is 3, expected a list"),
        ("[optimizer]\nnesterov = 1\n", "optimizer.nesterov is 1, expected true or false"),
        ('preset = "text"\n', "preset is 'text', expected 'default', 'paper' or 'published'"),
        ("[optimizer]\nlr = nan\n", "optimizer.lr is nan, expected"),
        ("[optimizer]\nlr = inf\n", "optimizer.lr is inf, expected"),
        ("[optimizer]\nweight_decay = inf\n", "optimizer.weight_decay is inf, expected"),
        ("[augmentation]\nerasing = nan\n", "augmentation.erasing is nan, expected"),
        ("[federation]\nbatch_size = 1\n", "federation.batch_size is 1, expected greater than or equal to 2"),
        (
            '[federation]\nmode = "local"\n[evaluation]\nlocal_models = false\n',
            'evaluation.local_models has no effect when federation.mode = "local"',
        ),
        ("[model]\nlast_stride = 3\n", "model.last_stride is 3, expected 1 or 2"),
        (
            "[federation]\nclients_per_round = 2\n[reliability]\nmin_clients = 3\n",
            "reliability.min_clients is 3, expected at most federation.clients_per_round, which is 2",
        ),
        (
            "[optimizer]\nmilestones = [20, 10]\n",
            "optimizer.milestones: [20, 10], expected rounds in ascending order, each once",
        ),
        (
            '[run]\nrounds = 30\n[optimizer]\nschedule = "milestones"\n',
            "optimizer.milestones has 30, expected rounds before the last, 30",
        ),
        (
            "[optimizer]\nmilestones = [20]\n",
            'optimizer.milestones has no effect when optimizer.schedule = "constant"',
        ),
        ("[objective]\nmargin = 0.5\n", "objective.margin has no effect when objective.triplet = 0"),
        (
            "[objective]\ntemperature = 1.0\n",
            "objective.temperature has no effect when objective.contrastive = 0",
        ),
        (
            '[federation]\nmode = "local"\n[objective]\ncontrastive = 1.0\n',
            'objective.contrastive has no effect when federation.mode = "local"',
        ),
        ("[model]\nembedding_dim = 1\n", "model.embedding_dim: 1, expected 0 or at least 2"),
        ("[x]\ny = 3\n", "unknown key x (valid here: preset, run, data,"),
    ],
)
def test_wrong_values_name_key_found_and_expected(text, said, tmp_path):
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'x.toml'}: ")
    assert said in str(caught.value)


def test_missing_data_is_told(tmp_path):
    (tmp_path / "x.toml").write_text("[run]\nrounds = 3\n")
    with pytest.raises(ConfigurationError, match="data is missing"):
        load_experiment(tmp_path / "x.toml")


def test_what_is_stored_is_what_was_resolved(tmp_path):
    path = write_experiment(tmp_path / "x.toml", ["a.h5", "b.h5"], model={"weights": "w.pth"})
    experiment = load_experiment(path, ["preset=published"])
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "stored.toml").write_text(experiment.to_toml())
    assert load_experiment(tmp_path / "elsewhere" / "stored.toml") == experiment


NAMES = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1)


@given(
    st.fixed_dictionaries(
        {
            "run": st.fixed_dictionaries({"seed": st.integers(0, 2**62), "name": NAMES}),
            "optimizer": st.fixed_dictionaries(
                {"lr": st.floats(1e-9, 1e9), "momentum": st.floats(0.01, 0.99)}
            ),
            "augmentation": st.fixed_dictionaries(
                {"jitter": st.tuples(*[st.floats(0, 0.5)] * 4), "flip": st.floats(0, 1)}
            ),
        }
    )
)
def test_any_experiment_survives_toml(sections):
    experiment = Experiment.model_validate({"data": {"archives": ["a.h5"]}, **sections})
    assert Experiment.model_validate(tomllib.loads(experiment.to_toml())) == experiment
