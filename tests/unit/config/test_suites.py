"""The suites in jobs/experiments: complete, in the paper's terms, and nothing run twice."""

import shutil
from pathlib import Path

import pytest

from fedreid_mpi.config import load_suite
from fedreid_mpi.run.cost import Cost, method_costs
from support.small import write_public, write_site

EXPERIMENTS = Path(__file__).parents[3] / "jobs" / "experiments"
WHOLE = ("paper-study", "findings-bench")
OF_THE_PAPER = (*WHOLE, "findings-demo", "findings-pretrained")
SUITES = (*OF_THE_PAPER, "findings-shift")

NINE = ("msmt17", "dukemtmc-reid", "market1501", "cuhk03-np", "prid2011", "cuhk01", "viper", "3dpes", "ilids")
TABLES = {
    "Table 2": {
        *("CUHK03-NP, by camera", "CUHK03-NP, by identity", "CUHK03-NP, centralised"),
        *("Market-1501, by camera", "Market-1501, by identity", "Market-1501, centralised"),
    },
    "Table 3": {"Standalone", "FedPav", "Centralised"},
    "Table 4": {"Standalone", "FedPav", "FedNova", "FedProx", "CC", "CDW", "CC & CDW"},
    "Table 5": {"CC & CDW", "KD & CDW"},
    "Figure 2": {"FedPav", "B = 64", "B = 128", "E = 5", "E = 10"},
    "Figure 4": {"FedPav", "KD", "CDW", "KD & CDW"},
}
LOCAL_MODELS = (TABLES["Table 3"] | TABLES["Table 4"]) - {"Centralised"}
"""Methods whose local models the paper reports."""


def methods(suite):
    """Label to experiment, of the first seed."""
    runs = load_suite(EXPERIMENTS / f"{suite}.toml").runs
    return {run.experiment.run.label: run.experiment for run in runs if run.seed == runs[0].seed}


def differences(experiment, base):
    """The keys in which two experiments differ in what they train."""

    def keys(of):
        content = of.model_dump()
        content.pop("evaluation")
        return {
            f"{section}.{key}": value
            for section, values in content.items()
            if isinstance(values, dict)
            for key, value in values.items()
            if f"{section}.{key}" not in ("run.name", "run.label", "run.position", "data.unseen")
        }

    now, before = keys(experiment), keys(base)
    return {key: value for key, value in now.items() if value != before[key]}


@pytest.mark.parametrize("suite", [*SUITES, "privacy-bench"])
def test_no_two_methods_train_alike(suite):
    resolved = list(methods(suite).items())
    assert all(label for label, _ in resolved)
    for number, (label, experiment) in enumerate(resolved):
        for other, earlier in resolved[:number]:
            assert differences(experiment, earlier), f"{label} is {other}"


@pytest.mark.parametrize("suite", OF_THE_PAPER)
def test_each_table_has_its_methods_in_the_papers_terms(suite):
    found = methods(suite)
    left_out = {"Table 2", "Figure 2"} if suite not in WHOLE else set()
    if suite == "findings-pretrained":
        left_out |= {"Table 5", "Figure 4"}
    wanted = {label for table, labels in TABLES.items() if table not in left_out for label in labels}
    assert set(found) == wanted
    base = found["FedPav"]
    assert tuple(path.stem for path in base.data.archives) == NINE
    assert (base.federation.batch_size, base.federation.local_epochs) == (32, 1)
    changes = {label: differences(experiment, base) for label, experiment in found.items()}
    for label, keys in changes.items():
        public = keys.pop("data.public", None)
        assert (public is None) or public.stem == "cuhk02", label
    if suite != "paper-study":  # there it is the preset's
        for label in {"CDW", "CC & CDW", "KD & CDW"} & set(found):
            assert changes[label].pop("aggregation.probe") == "public"
    cdw = {"aggregation.weights": "cosine-distance"}
    expected = {
        "FedPav": {},
        "Standalone": {"federation.mode": "local"},
        "Centralised": {"federation.mode": "centralised"},
        "FedNova": {"aggregation.rule": "fednova"},
        "FedProx": {"objective.proximal": 0.01},
        "CC": {"clustering.enabled": True},
        "CDW": cdw,
        "CC & CDW": {"clustering.enabled": True, **cdw},
        "KD": {"distillation.enabled": True},
        "KD & CDW": {"distillation.enabled": True, **cdw},
        "B = 64": {"federation.batch_size": 64},
        "B = 128": {"federation.batch_size": 128},
        "E = 5": {"federation.local_epochs": 5, "run.rounds": base.run.rounds // 5},
        "E = 10": {"federation.local_epochs": 10, "run.rounds": base.run.rounds // 10},
    }
    for label, keys in expected.items():
        if label in found:
            assert changes[label] == keys, label
    for label, experiment in found.items():
        assert (label in LOCAL_MODELS) is (
            experiment.evaluation.local_models and experiment.federation.mode != "centralised"
        ), label


@pytest.mark.parametrize("suite", WHOLE)
def test_table_2_is_two_federations_of_one_dataset(suite):
    found = methods(suite)
    for title, stem, shares in (("CUHK03-NP", "cuhk03-np", 2), ("Market-1501", "market1501", 6)):
        camera, identity, central = (
            found[f"{title}, {how}"] for how in ("by camera", "by identity", "centralised")
        )
        for experiment in (camera, identity, central):
            assert [path.stem for path in experiment.data.archives] == [stem]
        assert camera.federation.clients == "camera"
        assert (identity.federation.clients, identity.federation.identity_clients) == ("identity", shares)
        assert central.federation.mode == "centralised"


@pytest.mark.parametrize("suite", WHOLE)
def test_table_5_is_of_datasets_that_nobody_trains_on(suite):
    unseen = {label for label, experiment in methods(suite).items() if experiment.data.unseen}
    assert unseen == TABLES["Table 5"] | {"FedPav"}
    for label in unseen:
        assert [path.stem for path in methods(suite)[label].data.unseen] == ["caviar4reid", "grid"]


@pytest.mark.parametrize("suite", WHOLE)
def test_figure_2_scores_at_the_same_epochs(suite):
    """Or accuracy at as many epochs could not be compared."""
    found = methods(suite)

    def scored(experiment):
        rounds = range(0, experiment.run.rounds + 1, experiment.evaluation.every)
        return {round * experiment.federation.local_epochs for round in rounds}

    for label in ("E = 5", "E = 10"):
        common = scored(found[label]) & scored(found["FedPav"])
        assert len(common) >= 3
        assert max(common) == found["FedPav"].run.rounds


@pytest.mark.parametrize("suite", SUITES)
def test_each_method_makes_a_federation_of_its_archives(suite, tmp_path):
    """On small archives of the same names: no error, and what it costs is known."""
    folder = tmp_path / "jobs" / "experiments"
    shutil.copytree(EXPERIMENTS, folder)
    where = {"paper-study": "archives", "findings-bench": "bench/archives"}
    archives = tmp_path / where.get(suite, "demo/archives")
    archives.mkdir(parents=True)
    for number, name in enumerate((*NINE, "caviar4reid", "grid")):
        write_site(archives / f"{name}.h5", 40, people=8, seed=number)
    write_public(archives / "cuhk02.h5")
    runs = load_suite(folder / f"{suite}.toml").runs
    costs = method_costs(runs)
    assert [cost for cost in costs.values() if not isinstance(cost, Cost)] == []
    assert len(costs) == len(methods(suite))
