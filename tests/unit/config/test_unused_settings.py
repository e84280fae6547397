"""Every key in every kind of run: it is read while the run goes, or a change of it is refused.

A small run is played whose configuration notes which keys are read. Storing the configuration does not count,
as it reads none of them by name.
"""

import math
from typing import Any, get_args

import pytest

from fedreid_mpi.comm import SingleCommunicator
from fedreid_mpi.config import Experiment, Section, load_experiment
from fedreid_mpi.config.unused import unused_settings
from fedreid_mpi.run.loop import run_federation
from support.small import Silent, write_experiment, write_public

RUNS = {
    "federated": {},
    "clustered": {
        "data": {"public": "public.h5"},
        "clustering": {"enabled": True},
        "federation": {"clients": "camera"},
    },
    "distilled": {"data": {"public": "public.h5"}, "distillation": {"enabled": True}},
    "absolute": {"data": {"public": "public.h5"}, "distillation": {"enabled": True, "lr": 0.001}},
    "both": {
        "data": {"public": "public.h5"},
        "distillation": {"enabled": True},
        "clustering": {"enabled": True},
        "aggregation": {"weights": "cosine-distance"},
    },
    "public-probe": {
        "data": {"public": "public.h5"},
        "aggregation": {"weights": "cosine-distance", "probe": "public"},
    },
    "identity": {"federation": {"clients": "identity", "identity_clients": 2}},
    "edge": {"federation": {"clients": "camera", "edge_rounds": 1}, "optimizer": {"schedule": "step"}},
    "fednova": {"aggregation": {"rule": "fednova"}, "server": {"optimizer": "momentum"}},
    "scaffold": {"aggregation": {"rule": "scaffold"}, "server": {"optimizer": "yogi"}},
    "private": {
        "federation": {"clients": "camera"},
        "aggregation": {"weights": "uniform"},
        "privacy": {"clip": 0.5, "noise_multiplier": 1.0},
    },
    "clipped": {"aggregation": {"weights": "uniform"}, "privacy": {"clip": 0.5}},
    "local": {"federation": {"mode": "local"}},
    "local-identity": {"federation": {"mode": "local", "clients": "identity", "identity_clients": 2}},
    "centralised": {"federation": {"mode": "centralised"}},
}

READ_ELSEWHERE = {
    "run.name": "a title",
    "run.label": "a title",
    "run.position": "read by reports",
    "compute.deterministic": "read on a GPU",
    "compute.share_gpus": "read on a GPU",
    "reliability.rank_timeout": "read where there are several ranks",
}

CHANGED: dict[str, Any] = {
    "run.label": "a title",
    "data.public": "public.h5",
    "model.weights": "weights.pth",
    "federation.availability": {"harbour": [[1, 1]]},
    "augmentation.jitter": [0.1, 0.1, 0.1, 0.1],
    "clustering.max_distance": 0.5,
}


def keys():
    for section, field in Experiment.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            for key in field.annotation.model_fields:
                yield section, key


def changed(experiment, section, key):
    """Another value of a key."""
    value = getattr(getattr(experiment, section), key)
    name = f"{section}.{key}"
    if name in CHANGED:
        return CHANGED[name]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1 if isinstance(value, int) else math.nextafter(value / 2 + 0.01, 0)
    kind = type(getattr(experiment, section)).model_fields[key].annotation
    return next(other for other in get_args(kind) if other != value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("idle")
    write_public(folder / "public.h5")
    return folder


def load(folder, archives, run, *overrides):
    few = [archive for archive in archives if archive.stem in ("harbour", "mall")]
    sections = {"run": {"rounds": 1}, **RUNS[run]}
    return load_experiment(write_experiment(folder / "x.toml", few, **sections), overrides)


@pytest.mark.parametrize("run", RUNS)
def test_a_key_is_read_or_its_change_refused(run, folder, archives, tmp_path, monkeypatch):
    experiment = load(folder, archives, run)
    owners = {type(getattr(experiment, section)): section for section, _ in keys()}
    known = set(keys())
    read = set()
    plain = Section.__getattribute__

    def noting(self, name):
        if (owners.get(type(self)), name) in known:
            read.add((owners[type(self)], name))
        return plain(self, name)

    with monkeypatch.context() as patched:
        patched.setattr(Section, "__getattribute__", noting)
        run_federation(SingleCommunicator(), experiment, tmp_path / "run", Silent())
    assert len(read) > 30
    unread = [key for key in keys() if key not in read and ".".join(key) not in READ_ELSEWHERE]
    accepted = []
    for section, key in unread:
        other = changed(experiment, section, key)
        edited = getattr(experiment, section).model_copy(update={key: other})
        refused = unused_settings(experiment.model_copy(update={section: edited}))
        if not any(line.startswith(f"{section}.{key} ") for line in refused):
            accepted.append(f"{section}.{key} = {other!r}")
    assert accepted == []


@pytest.mark.parametrize("run", RUNS)
def test_what_a_run_of_this_kind_says_is_not_refused(run, folder, archives):
    assert list(unused_settings(load(folder, archives, run))) == []
    if "privacy" not in RUNS[run]:  # which refuses what the published code does with statistics
        load(folder, archives, run, "preset=published", "run.rounds=10")  # distils every tenth
