"""The table of bad inputs: what is done, the command, its exit code and what its one line says.

`test_bad_input.py` plays each case in a folder of its own, which holds what `stock` made.
"""

import hashlib
import json
import os
import pickle
import shutil
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from safetensors.torch import load_file, save_file

from fedreid_mpi import config
from fedreid_mpi.cli import run
from fedreid_mpi.model import build_network
from fedreid_mpi.storage.hdf5.digest import content_digest
from support import trees
from support.small import write_experiment, write_public, write_site

CONFIGURATION, DATA = 2, 3
DEEP = b"x = " + b"[" * 100_000
MARKET = "Market-1501-v15.09.15"


@dataclass(frozen=True)
class Bad:
    """One bad input.

    ``said`` is a regular expression for the line. Without a ``command`` the experiment over ``archives``
    with ``sections``, or with the bytes ``toml``, is trained, with more ``arguments``. ``spoil`` is called
    with the folder before. A case with an ``environment`` runs as a process of its own.
    """

    said: str
    code: int = CONFIGURATION
    sections: Mapping[str, object] = field(default_factory=dict)
    archives: tuple[str, ...] = ("site.h5",)
    toml: bytes | None = None
    arguments: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    spoil: Callable[[Path], object] = lambda folder: None
    environment: Mapping[str, str] = field(default_factory=dict)


def stock(folder: Path) -> Path:
    """Make what the cases spoil: archives, a run with its model, weights, and a dataset's folder."""
    folder.mkdir()
    write_site(folder / "site.h5", images=10)
    write_site(folder / "other.h5", images=10, seed=2)
    write_site(folder / "larger.h5", images=10, height=64, width=32)
    write_site(folder / "lone.h5", images=1)
    write_site(folder / "empty.h5", images=0)
    write_site(folder / "untested.h5", images=10, test_people=0)
    write_public(folder / "public.h5")
    experiment = write_experiment(folder / "good.toml", [folder / "site.h5"], run={"rounds": 1})
    assert run(["train", str(experiment), "--run-dir", str(folder / "run")]) == 0
    shutil.copy(folder / "run" / "models" / "global.safetensors", folder / "model.safetensors")
    weights = build_network(config.Model(backbone="small"), None, 0).backbone.state_dict()
    save_file(weights, folder / "small.safetensors")
    save_file({"conv1.weight": torch.zeros(64, 3, 7, 7)}, folder / "resnet18.safetensors")
    trees.write_tree(folder, "market1501").rename(folder / MARKET)
    return folder


def tensors(**changes: torch.Tensor | None) -> Callable[[Path], None]:
    """Change tensors of small.safetensors."""

    def spoil(folder: Path) -> None:
        path = folder / "small.safetensors"
        save_file(
            {**load_file(path), **{name.replace("__", "."): new for name, new in changes.items()}}, path
        )

    return spoil


def flip(name: str, share: float) -> Callable[[Path], None]:
    """Flip all bits of the byte at a share of a file's length."""

    def spoil(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[int(share * len(content))] ^= 0xFF
        (folder / name).write_bytes(content)

    return spoil


def cut(name: str) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size // 2)


def write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def pipe(name: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return spoil


def edit(name: str, change: Callable[[h5py.File], object]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        with h5py.File(folder / name, "r+") as file:
            change(file)

    return spoil


def attribute(name: str, value: object) -> Callable[[h5py.File], None]:
    return lambda file: file.attrs.modify(name, value)


def keep(name: str) -> Callable[[Path], object]:
    """Put something where a command would write."""
    folder = Path("kept") / (name if "." not in name else "")

    def spoil(here: Path) -> None:
        (here / folder).mkdir(parents=True)
        (here / folder / ("old" if "." not in name else name)).write_bytes(b"kept")

    return spoil


def write_namesake(folder: Path) -> None:
    (folder / "other").mkdir()
    write_site(folder / "other" / "site.h5", images=10, seed=2)


def huge(file: h5py.File) -> None:
    """Let a column claim 2^40 values that were never written."""
    del file["pid"]
    file.create_dataset("pid", (2**40,), "i4", chunks=(1024,))


class Malicious:
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


def train(*arguments: str) -> tuple[str, ...]:
    return ("train", "bad.toml", "--run-dir", "out", *arguments)


def overridden(*overrides: str) -> tuple[str, ...]:
    return tuple(word for override in overrides for word in ("--set", override))


def prepare(*more: str, source: str = MARKET, output: str = "new.h5") -> tuple[str, ...]:
    subset = ("--size", "40x16", "--allow-subset")
    return ("prepare", "--dataset", "market1501", source, output, *subset, *more)


def manifest(row: str, image: Callable[[Path], object] = lambda folder: None) -> dict[str, Any]:
    """Give a custom dataset a manifest with one row, and spoil its image."""

    def spoil(folder: Path) -> None:
        trees.write_image(folder / "own" / "a.png", "a")
        image(folder)
        (folder / "own" / "m.csv").write_text(f"path,pid,camid,split\n{row}\n")

    command = ("prepare", "--dataset", "custom", "--name", "own", "own/m.csv", "new.h5")
    return {"code": DATA, "spoil": spoil, "command": command}


QUERY = f"{MARKET}/query/0001_c1s1_001051_00.jpg"
EVALUATE = ("evaluate", "model.safetensors", "site.h5")
SHOW = ("results", "show", "run")
SEGMENT = "run/results_001_001.h5"
PUBLIC = {"data": {"public": "public.h5"}, "distillation": {"enabled": True}}

OF_CONFIGURATION = {
    "unknown-key": Bad(
        r"bad.toml: .*unknown key optimizer.momentun \(did you mean optimizer.momentum\?\)",
        sections={"optimizer": {"momentun": 0.5}},
    ),
    "unknown-section": Bad(
        r"unknown key agregation \(did you mean aggregation\?\)", sections={"agregation": {"bn": "local"}}
    ),
    "unknown-key-unlike-any": Bad(
        r"unknown key compute.xyzzy \(valid here: ", sections={"compute": {"xyzzy": 1}}
    ),
    "word-for-number": Bad("run.rounds is 'many', expected an integer", sections={"run": {"rounds": "many"}}),
    "too-small": Bad("run.rounds is 0, expected greater than or equal to 1", sections={"run": {"rounds": 0}}),
    "share-of-one": Bad(r"model.dropout is 1.0, expected less than 1", sections={"model": {"dropout": 1.0}}),
    "unknown-choice": Bad(
        "model.backbone: 'resnet51' is unknown, expected small, resnet18, ",
        sections={"model": {"backbone": "resnet51"}},
    ),
    "in-a-list": Bad(
        "augmentation.jitter.3 is 0.6, expected less than",
        sections={"augmentation": {"jitter": [0.1, 0.1, 0.1, 0.6]}},
    ),
    "negative": Bad("optimizer.lr is -1.0, expected greater than 0", sections={"optimizer": {"lr": -1.0}}),
    "infinite": Bad("optimizer.lr is inf, expected", sections={"optimizer": {"lr": float("inf")}}),
    "not-a-number": Bad("optimizer.lr is nan, expected", sections={"optimizer": {"lr": float("nan")}}),
    "boolean-for-number": Bad("run.rounds is True, expected", arguments=overridden("run.rounds=true")),
    "seed-beyond-64-bits": Bad(
        "run.seed is 9{30}, expected less than", arguments=overridden("run.seed=" + "9" * 30)
    ),
    "width-beyond-memory": Bad(
        "model.embedding_dim is 1000000000000, expected less than",
        arguments=overridden("model.embedding_dim=1000000000000"),
    ),
    "control-characters": Bad(
        r"run.name: 'a\\x00b' holds control characters", sections={"run": {"name": "a\0b"}}
    ),
    "control-characters-in-a-path": Bad(
        r"data.archives.0: .* holds control characters", sections={"data": {"archives": ["a\0.h5"]}}
    ),
    "keys-against-each-other": Bad(
        "optimizer: nesterov needs momentum > 0", sections={"optimizer": {"momentum": 0.0}}
    ),
    "all-at-once": Bad(
        "(?=.*run.seed)(?=.*compute.precision)(?=.*did you mean evaluation.every)",
        sections={"run": {"seed": -1}, "compute": {"precision": "fp16"}, "evaluation": {"evry": 2}},
    ),
    "unknown-preset": Bad(
        "preset is 'best', expected 'default', 'paper' or 'published'", arguments=overridden("preset=best")
    ),
    "section-that-is-a-value": Bad(
        "run is 3, expected", arguments=(), toml=b"run = 3\n[data]\narchives=['site.h5']"
    ),
    "does-nothing-alone": Bad(
        'federation.clients_per_round has no effect when federation.mode = "local"',
        sections={"federation": {"mode": "local", "clients_per_round": 1}},
    ),
    "does-nothing-disabled": Bad(
        "distillation.every has no effect when distillation.enabled = false",
        sections={"distillation": {"every": 3}},
    ),
    "needs-public": Bad(
        "clustering.enabled = true needs data.public", sections={"clustering": {"enabled": True}}
    ),
    "masks-of-features": Bad(
        "privacy.secure_aggregation = true hides all but sums, but clustering.enabled = true needs a feature",
        sections={
            "privacy": {"secure_aggregation": True},
            "data": {"public": "public.h5"},
            "clustering": {"enabled": True},
        },
    ),
    "masks-of-statistics": Bad(
        'hides all but sums, but aggregation.bn = "reference" sends one client\'s statistics',
        sections={"privacy": {"secure_aggregation": True}, "aggregation": {"bn": "reference"}},
    ),
    "masks-of-one-client": Bad(
        "hides all but sums, and federation.clients_per_round is 1, expected 0 or at least 2",
        sections={"privacy": {"secure_aggregation": True}, "federation": {"clients_per_round": 1}},
    ),
    "masks-of-one-rank": Bad(
        "privacy.secure_aggregation = true needs 3 ranks or more, .*, found 1",
        archives=("site.h5", "other.h5"),
        sections={"privacy": {"secure_aggregation": True}},
    ),
    "clip-of-weights": Bad(
        'privacy.clip > 0 bounds .* aggregation.weights is "samples", expected "uniform"',
        sections={"privacy": {"clip": 1.0}},
    ),
    "clip-of-features": Bad(
        "privacy.clip > 0 bounds .* but distillation.enabled = true sends features of its own",
        sections={
            "privacy": {"clip": 1.0},
            "aggregation": {"weights": "uniform"},
            "data": {"public": "public.h5"},
            "distillation": {"enabled": True},
        },
    ),
    "clip-of-controls": Bad(
        'privacy.clip > 0 bounds .* aggregation.rule is "scaffold", expected "average"',
        sections={"privacy": {"clip": 1.0}, "aggregation": {"weights": "uniform", "rule": "scaffold"}},
    ),
    "noise-without-clip": Bad(
        "privacy.noise_multiplier has no effect when privacy.clip = 0",
        sections={"privacy": {"noise_multiplier": 1.0}},
    ),
    "clip-beyond-the-grid": Bad(
        "privacy.clip is 300.0, expected less than 256", sections={"privacy": {"clip": 300.0}}
    ),
    "least-clients-of-an-empty-round": Bad(
        "reliability.min_clients has no effect when privacy.clip > 0",
        archives=("site.h5", "other.h5"),
        sections={
            "privacy": {"clip": 1.0},
            "aggregation": {"weights": "uniform"},
            "reliability": {"min_clients": 2},
        },
    ),
    "masks-with-odd-neighbours": Bad(
        "privacy.neighbours is 3, expected a multiple of 2",
        sections={"privacy": {"secure_aggregation": True, "neighbours": 3}},
    ),
    "not-toml": Bad("bad.toml: not a TOML file: ", toml=b"[run]\nrounds = = 3\n"),
    "not-utf-8": Bad("bad.toml: not a TOML file: ", toml=b"\x89HDF\r\n\x1a\n\xff\xfe"),
    "key-twice": Bad("bad.toml: not a TOML file: .*overwrite", toml=b"[run]\nseed = 1\nseed = 2\n"),
    "too-deep": Bad("bad.toml: not a TOML file: ", toml=DEEP),
    "text-for-list": Bad(
        "data.unseen is 'x.h5', expected a list of paths", sections={"data": {"unseen": "x.h5"}}
    ),
    "text-for-number": Bad("run.seed is '3', expected an integer", sections={"run": {"seed": "3"}}),
    "fraction-for-number": Bad("run.seed is 3.0, expected an integer", sections={"run": {"seed": 3.0}}),
    "tf32-without-gpu": Bad(
        'compute.precision is "tf32", which needs a GPU, but compute.device is "cpu"',
        sections={"compute": {"precision": "tf32", "device": "cpu"}},
    ),
    "optimisation-after-the-end": Bad(
        "distillation.every is 9, expected at most run.rounds, which is 1",
        sections={
            "run": {"rounds": 1},
            "data": {"public": "public.h5"},
            "distillation": {"enabled": True, "every": 9},
        },
    ),
    "number-of-5000-digits": Bad("bad.toml: not a TOML file: ", toml=b"[run]\nseed = " + b"9" * 5000),
    "empty-file": Bad("bad.toml: data is missing", toml=b""),
    "no-file": Bad(
        "none.toml: cannot read the experiment: No such file",
        command=("train", "none.toml", "--run-dir", "out"),
    ),
    "folder-for-file": Bad(
        "run: cannot read the experiment: Is a directory", command=("train", "run", "--run-dir", "out")
    ),
    "pipe-for-file": Bad(
        "bad.toml: cannot read the experiment: Not a regular file", command=train(), spoil=pipe("bad.toml")
    ),
    "device-for-file": Bad(
        "/dev/zero: cannot read the experiment: Not a regular file",
        command=("train", "/dev/zero", "--run-dir", "out"),
    ),
    "set-without-value": Bad(
        "--set run.rounds: expected section.key=value", arguments=overridden("run.rounds")
    ),
    "set-without-key": Bad("--set =3: expected section.key=value", arguments=overridden("=3")),
    "set-empty-part": Bad(
        "--set run..seed=3: expected section.key=value", arguments=overridden("run..seed=3")
    ),
    "set-below-a-value": Bad(
        "--set run.name.first=x: name is a value, not a section", arguments=overridden("run.name.first=x")
    ),
    "set-unknown-key": Bad(
        r"unknown key run.rouds \(did you mean run.rounds\?\)", arguments=overridden("run.rouds=3")
    ),
    "set-too-deep": Bad("run.seed is '", arguments=overridden("run.seed=" + "[" * 20_000)),
    "set-second-table": Bad(
        "expected section.key=value", arguments=overridden("run.seed=3\n[run]\nrounds=1")
    ),
    "no-run-dir": Bad("Missing option '--run-dir'", command=("train", "bad.toml")),
    "unknown-command": Bad("No such command 'trian'", command=("trian",)),
    "unknown-option": Bad("No such option '--rundir'", command=("train", "bad.toml", "--rundir", "out")),
    "no-archives-key": Bad("data is missing", toml=b"[run]\nseed = 1\n"),
    "archives-in-no-home": Bad(
        "bad.toml: data.archives: '~nobody-here/x.h5' names the home of a user who has none here",
        archives=("~nobody-here/x.h5",),
    ),
    "weights-in-no-home": Bad(
        "bad.toml: model.weights: '~nobody-here/x.pth' names the home of a user",
        sections={"model": {"weights": "~nobody-here/x.pth"}},
    ),
    "public-in-no-home": Bad(
        "bad.toml: data.public: '~nobody-here/x.h5' names the home of a user",
        sections={"data": {"public": "~nobody-here/x.h5"}, "distillation": {"enabled": True}},
    ),
    "stage-in-no-home": Bad(
        'data.stage is "~nobody-here/x", of which .* knows no value',
        sections={"data": {"stage": "~nobody-here/x"}},
    ),
    "archives-empty": Bad("data.archives has 0 entries, expected at least 1", archives=()),
    "away-stranger": Bad(
        "federation.availability names 'nobody', expected one of site",
        sections={"federation": {"availability": {"nobody": [[1, 1]]}}},
    ),
    "more-than-all-clients": Bad(
        "federation.clients_per_round is 2, expected at most 1, the number of clients",
        sections={"federation": {"clients_per_round": 2}},
    ),
    "less-than-a-batch": Bad(
        "client site: 10 training images are less than federation.batch_size = 16",
        sections={"federation": {"drop_last": True, "batch_size": 16}},
    ),
    "same-archive-twice": Bad("site.h5 is the same dataset as .*site.h5", archives=("site.h5", "site.h5")),
    "same-archive-copied": Bad(
        "copy.h5 is the same dataset as .*site.h5",
        archives=("site.h5", "copy.h5"),
        spoil=lambda folder: shutil.copy(folder / "site.h5", folder / "copy.h5"),
    ),
    "two-of-one-name": Bad(
        "other/site.h5 and .*/site.h5 are both named 'site', expected a name each",
        archives=("site.h5", "other/site.h5"),
        spoil=write_namesake,
    ),
    "named-as-the-pool": Bad(
        "pool.h5 is named 'pool'",
        archives=("pool.h5",),
        spoil=lambda folder: write_site(folder / "pool.h5", images=12),
    ),
    "evaluated-beside-its-namesake": Bad(
        "other/site.h5 and site.h5 are both named 'site', expected a name each",
        command=(*EVALUATE, "other/site.h5"),
        spoil=write_namesake,
    ),
    "public-that-is-a-client": Bad(
        "site.h5 is the same dataset as .*site.h5", sections=PUBLIC | {"data": {"public": "site.h5"}}
    ),
}

OF_ARCHIVES = {
    "missing": Bad("missing.h5: no such file", DATA, archives=("site.h5", "missing.h5")),
    "folder": Bad("/run: a folder, expected an archive", DATA, archives=("run",)),
    "text": Bad("site.h5: not an HDF5 file", DATA, spoil=write("site.h5", b"not an archive")),
    "empty": Bad("site.h5: not an HDF5 file", DATA, spoil=write("site.h5", b"")),
    "truncated": Bad("site.h5: damaged or truncated HDF5 file", DATA, spoil=cut("site.h5")),
    "foreign": Bad(
        "site.h5: not an archive of fedreid_mpi, but another HDF5 file",
        DATA,
        spoil=edit("site.h5", lambda file: file.attrs.clear()),
    ),
    "other-version": Bad(
        "site.h5: format version 99, expected .*prepare it again",
        DATA,
        spoil=edit("site.h5", attribute("format_version", 99)),
    ),
    "other-digest": Bad(
        "site.h5: damaged or changed: content_digest is not that of the content",
        DATA,
        spoil=edit("site.h5", attribute("content_digest", "0" * 64)),
    ),
    "other-people": Bad(
        "site.h5: damaged or changed: content_digest is not that of the content",
        DATA,
        spoil=edit("site.h5", lambda file: file["pid"].__setitem__(0, 77)),
    ),
    "other-first-image": Bad(
        "site.h5: damaged: image 0 has other pixels than were written",
        DATA,
        spoil=edit("site.h5", lambda file: file["images"].__setitem__((0, 0, 0, 0), 0)),
    ),
    "claims-terabytes": Bad(
        "site.h5: damaged: /pid would be 1,099,511,627,776 values in ", DATA, spoil=edit("site.h5", huge)
    ),
    "pipe": Bad("site.h5: cannot be read: Not a regular file", DATA, spoil=pipe("site.h5")),
    "device": Bad("/dev/zero: cannot be read: Not a regular file", DATA, archives=("/dev/zero",)),
    "loop-of-links": Bad(
        "loop.h5: cannot be read: Too many levels of symbolic links",
        DATA,
        archives=("loop.h5",),
        spoil=lambda folder: (folder / "loop.h5").symlink_to("loop.h5"),
    ),
    "results": Bad(
        "an archive of kind 'fedreid_mpi results', expected 'fedreid_mpi dataset'", DATA, archives=(SEGMENT,)
    ),
    "other-sizes": Bad(
        "larger.h5: images are 64x32, expected 32x16 as in .*site.h5", DATA, archives=("site.h5", "larger.h5")
    ),
    "one-image": Bad(
        "lone.h5: 1 training image for client lone, expected at least two", DATA, archives=("lone.h5",)
    ),
    "public-missing": Bad("none.h5: no such file", DATA, sections=PUBLIC | {"data": {"public": "none.h5"}}),
    "public-without-public-split": Bad(
        "other.h5: no split 0 for public", DATA, sections=PUBLIC | {"data": {"public": "other.h5"}}
    ),
    "public-as-a-client": Bad(
        r"public.h5: has no training images, which data.archives needs \(found public\)",
        DATA,
        archives=("public.h5",),
    ),
    "tests-alone-as-a-client": Bad(
        r"empty.h5: has no training images, which data.archives needs \(found query, gallery\); data.unseen",
        DATA,
        archives=("site.h5", "empty.h5"),
    ),
    "unseen-that-is-trained-on": Bad(
        "site.h5 is the same dataset as .*site.h5", sections={"data": {"unseen": ["site.h5"]}}
    ),
    "unseen-twice": Bad(
        "other.h5 is the same dataset as .*other.h5", sections={"data": {"unseen": ["other.h5", "other.h5"]}}
    ),
    "unseen-not-there": Bad("gone.h5: no such file", DATA, sections={"data": {"unseen": ["gone.h5"]}}),
    "unseen-without-tests": Bad(
        "untested.h5: split 0 has images for train, expected query and gallery",
        DATA,
        sections={"data": {"unseen": ["untested.h5"]}},
    ),
    "unseen-of-another-size": Bad(
        "larger.h5: images are 64x32, expected 32x16", DATA, sections={"data": {"unseen": ["larger.h5"]}}
    ),
    "unseen-alone": Bad(
        'data.unseen has no effect when federation.mode = "local"',
        sections={"data": {"unseen": ["other.h5"]}, "federation": {"mode": "local"}},
    ),
    "inspect-missing": Bad("none.h5: no such file", DATA, command=("inspect", "none.h5")),
    "inspect-pipe": Bad(
        "site.h5: cannot be read: Not a regular file",
        DATA,
        command=("inspect", "site.h5"),
        spoil=pipe("site.h5"),
    ),
    "inspect-pixels": Bad(
        r"site.h5: does not verify: image 3 \(train/0003.png\) has other pixels than were written",
        DATA,
        command=("inspect", "--verify", "site.h5"),
        spoil=edit("site.h5", lambda file: file["images"].__setitem__((3, 0, 0, 0), 0)),
    ),
    "inspect-results": Bad(
        "does not verify: content_digest is not that of the content",
        DATA,
        command=("inspect", "--verify", SEGMENT),
        spoil=edit(SEGMENT, attribute("seed", 4)),
    ),
}

OF_DATASETS = {
    "no-folder": Bad("nowhere: ", DATA, command=prepare(source="nowhere")),
    "file-for-folder": Bad("site.h5", DATA, command=prepare(source="site.h5")),
    "empty-folder": Bad(
        "void", DATA, command=prepare(source="void"), spoil=lambda folder: (folder / "void").mkdir()
    ),
    "text-for-image": Bad(
        "0001_c1s1_001051_00.jpg", DATA, command=prepare(), spoil=write(QUERY, b"not an image")
    ),
    "empty-image": Bad("0001_c1s1_001051_00.jpg", DATA, command=prepare(), spoil=write(QUERY, b"")),
    "truncated-image": Bad("0001_c1s1_001051_00.jpg", DATA, command=prepare(), spoil=cut(QUERY)),
    "pipe-for-image": Bad("no file 'a.png'", **manifest("a.png,1,1,train", image=pipe("own/a.png"))),
    "counts-no-json": Bad(
        "counts.json: cannot be read as JSON",
        DATA,
        command=prepare(),
        spoil=write(f"{MARKET}/counts.json", b"{"),
    ),
    "counts-too-deep": Bad(
        "counts.json: cannot be read as JSON",
        DATA,
        command=prepare(),
        spoil=write(f"{MARKET}/counts.json", b"[" * 100_000),
    ),
    "size-of-nothing": Bad("'0x16' is not HEIGHTxWIDTH", command=prepare("--size", "0x16")),
    "neither-dataset-nor-all": Bad(
        "expected either --dataset NAME or --all", command=("prepare", MARKET, "new.h5")
    ),
    "unknown-dataset": Bad(
        "'mars' is not one of", command=("prepare", "--dataset", "mars", MARKET, "new.h5")
    ),
    "name-missing": Bad(
        "--dataset custom and --name go together",
        command=("prepare", "--dataset", "custom", MARKET, "new.h5"),
    ),
    "output-is-a-folder": Bad("run: cannot be written: is a folder", command=prepare(output="run")),
    "output-in-no-folder": Bad(
        "none/new.h5: cannot be written: No such file", command=prepare(output="none/new.h5")
    ),
    "output-below-a-file": Bad(
        "site.h5/new.h5: cannot be written: Not a directory", command=prepare(output="site.h5/new.h5")
    ),
    "output-at-a-device": Bad(
        "/dev/full/new.h5: cannot be written: Not a directory", command=prepare(output="/dev/full/new.h5")
    ),
    "all-of-nothing": Bad(
        "void",
        DATA,
        command=("prepare", "--all", "void", "new"),
        spoil=lambda folder: (folder / "void").mkdir(),
    ),
    "manifest-missing": Bad(
        "m.csv", DATA, command=("prepare", "--dataset", "custom", "--name", "x", "m.csv", "new.h5")
    ),
    "manifest-no-such-image": Bad("line 2.*no file 'b.png'", **manifest("b.png,1,1,train")),
    "manifest-outside": Bad("line 2.*expected a file below", **manifest("../site.h5,1,1,train")),
    "manifest-person": Bad("line 2.*pid", **manifest("a.png,one,1,train")),
    "manifest-split": Bad("line 2.*split", **manifest("a.png,1,1,tran")),
    "manifest-not-utf-8": Bad(
        "m.csv: not a CSV file in UTF-8",
        DATA,
        command=("prepare", "--dataset", "custom", "--name", "x", "m.csv", "new.h5"),
        spoil=write("m.csv", b"path,pid,camid,split\n\xff"),
    ),
}

WEIGHTS = ("--weights", "small.safetensors")

OF_MODELS = {
    "weights-missing": Bad(
        "model.weights: .*none.pth: no such file", DATA, sections={"model": {"weights": "none.pth"}}
    ),
    "weights-of-another-network": Bad(
        r"resnet18.safetensors: does not fit small: \d+ tensors are missing \(stem.weight, …\); 1 tensor is "
        r"unexpected \(conv1.weight\)",
        DATA,
        arguments=("--weights", "resnet18.safetensors"),
    ),
    "weights-of-another-shape": Bad(
        r"1 tensor is of another shape or kind \(blocks.0.conv2.weight: \[32, 32, 1, 1\], expected \[32, ",
        DATA,
        arguments=WEIGHTS,
        spoil=tensors(blocks__0__conv2__weight=torch.zeros(32, 32, 1, 1)),
    ),
    "weights-of-whole-numbers": Bad(
        "bn.weight: torch.int64, expected floating point",
        DATA,
        arguments=WEIGHTS,
        spoil=tensors(bn__weight=torch.ones(32, dtype=torch.int64)),
    ),
    "weights-with-more": Bad(
        r"does not fit small: 1 tensor is unexpected \(extra\)",
        DATA,
        arguments=WEIGHTS,
        spoil=tensors(extra=torch.zeros(1)),
    ),
    "weights-that-are-sparse": Bad(
        "bn.weight: torch.sparse_coo, expected torch.strided",
        DATA,
        arguments=("--weights", "sparse.pth"),
        spoil=lambda folder: torch.save(
            load_file(folder / "small.safetensors") | {"bn.weight": torch.ones(32).to_sparse()},
            folder / "sparse.pth",
        ),
    ),
    "weights-around-nothing": Bad(
        "old.pth: expected a mapping of names to tensors .*, found entries epoch, arch under state_dict",
        DATA,
        arguments=("--weights", "old.pth"),
        spoil=lambda folder: torch.save({"state_dict": {"epoch": 1, "arch": "x"}}, folder / "old.pth"),
    ),
    "backbone-unknown": Bad(
        "bad.toml: model.backbone: 'resnet20' is unknown, expected small, ",
        sections={"model": {"backbone": "resnet20"}},
    ),
    "backbone-unknown-to-timm": Bad(
        "model.backbone: timm knows no resnet_50, perhaps resnet",
        sections={"model": {"backbone": "timm:resnet_50"}},
    ),
    "backbone-for-other-images": Bad(
        "model.backbone: timm:inception_v3 takes no images of 32x16: ",
        sections={"model": {"backbone": "timm:inception_v3"}},
    ),
    "backbone-without-a-last-stride": Bad(
        "model.last_stride is 1, but osnet_x1_0 has no last stage with a stride, expected 2",
        sections={"model": {"backbone": "osnet_x1_0", "last_stride": 1}},
    ),
    "weights-not-finite": Bad(
        "tensor bn.weight holds values that are not finite",
        DATA,
        arguments=WEIGHTS,
        spoil=tensors(bn__weight=torch.full((32,), torch.nan)),
    ),
    "weights-truncated": Bad(
        "small.safetensors: not a readable file of weights",
        DATA,
        arguments=WEIGHTS,
        spoil=cut("small.safetensors"),
    ),
    "weights-empty": Bad(
        "small.safetensors: not a readable file of weights",
        DATA,
        arguments=WEIGHTS,
        spoil=write("small.safetensors", b""),
    ),
    "weights-pipe": Bad(
        "small.safetensors: not a readable file of weights: .*Not a regular file",
        DATA,
        arguments=WEIGHTS,
        spoil=pipe("small.safetensors"),
    ),
    "weights-folder": Bad(
        "run: not a readable file of weights: .*Is a directory", DATA, arguments=("--weights", "run")
    ),
    "weights-no-mapping": Bad(
        "expected a mapping of names to tensors",
        DATA,
        arguments=("--weights", "list.pth"),
        spoil=lambda folder: torch.save([torch.zeros(3)], folder / "list.pth"),
    ),
    "weights-with-code": Bad(
        "model.weights: .*code.pth: not a readable file of weights",
        DATA,
        arguments=("--weights", "code.pth"),
        spoil=lambda folder: torch.save({"w": Malicious()}, folder / "code.pth"),
    ),
    "weights-with-scalars-of-numpy": Bad(
        r"old.pth: .* it is a PyTorch or pickle file that holds Python objects \(numpy\.\S*scalar\) besides "
        r"tensors, .*; expected a state_dict of tensors alone, as torch.save\(model.state_dict\(\), FILE\)",
        DATA,
        arguments=("--weights", "old.pth"),
        spoil=lambda folder: torch.save({"best": np.float64(1), "w": torch.zeros(1)}, folder / "old.pth"),
    ),
    "weights-with-a-namespace": Bad(
        r"holds Python objects \(argparse.Namespace\) besides tensors, .*; expected a state_dict",
        DATA,
        arguments=("--weights", "old.pth"),
        spoil=lambda folder: torch.save(
            {"args": Namespace(lr=1)}, folder / "old.pth", _use_new_zipfile_serialization=False
        ),
    ),
    "weights-as-torchscript": Bad(
        r"it is a TorchScript program, .* torch.save\(torch.jit.load\(FILE\).state_dict\(\), NEW\)",
        DATA,
        arguments=("--weights", "script.pth"),
        spoil=lambda folder: torch.jit.save(torch.jit.script(torch.nn.ReLU()), folder / "script.pth"),
    ),
    "weights-as-a-web-page": Bad(
        "page.pth: not a readable file of weights: it is a web page",
        DATA,
        arguments=("--weights", "page.pth"),
        spoil=write("page.pth", b"\n<!DOCTYPE html><html>Sign in</html>"),
    ),
    "weights-as-a-pointer": Bad(
        "it is a pointer of Git LFS",
        DATA,
        arguments=("--weights", "x.safetensors"),
        spoil=write("x.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
    ),
    "weights-as-text": Bad(
        """it is a text, which begins '{"message": "Not Found"}'""",
        DATA,
        arguments=("--weights", "x.pth"),
        spoil=write("x.pth", b'{"message": "Not Found"}'),
    ),
    "weights-cut-off": Bad(
        "old.pth: not a readable file of weights: it is a PyTorch or zip file that is cut off or damaged",
        DATA,
        arguments=("--weights", "old.pth"),
        spoil=lambda folder: (torch.save({"w": torch.zeros(99)}, folder / "old.pth"), cut("old.pth")(folder)),
    ),
    "weights-of-another-format": Bad(
        "it is a safetensors file by its content, damaged or with another ending",
        DATA,
        arguments=("--weights", "x.pth"),
        spoil=lambda folder: (folder / "small.safetensors").rename(folder / "x.pth"),
    ),
    "model-as-a-web-page": Bad(
        "model.safetensors: not a readable safetensors file: it is a web page",
        DATA,
        command=EVALUATE,
        spoil=write("model.safetensors", b"<html></html>"),
    ),
    "weights-pickled": Bad(
        "model.weights: .*code.pth: not a readable file of weights",
        DATA,
        arguments=("--weights", "code.pth"),
        spoil=lambda folder: (folder / "code.pth").write_bytes(pickle.dumps(Malicious())),
    ),
    "model-missing": Bad(
        "none.safetensors: no such model file", DATA, command=("evaluate", "none.safetensors", "site.h5")
    ),
    "model-truncated": Bad(
        "model.safetensors: not a readable safetensors file",
        DATA,
        command=EVALUATE,
        spoil=cut("model.safetensors"),
    ),
    "model-flipped": Bad(
        "model.safetensors: damaged or changed: its digest",
        DATA,
        command=EVALUATE,
        spoil=flip("model.safetensors", 0.7),
    ),
    "model-that-is-weights": Bad(
        "small.safetensors: format is None, expected ",
        DATA,
        command=("evaluate", "small.safetensors", "site.h5"),
    ),
    "model-that-is-an-archive": Bad(
        "no model among site.h5, other.h5, expected MODEL... DATA.h5...",
        command=("evaluate", "site.h5", "other.h5"),
    ),
    "model-pipe": Bad(
        "model.safetensors: not a readable safetensors file: .*Not a regular file",
        DATA,
        command=EVALUATE,
        spoil=pipe("model.safetensors"),
    ),
    "images-of-another-size": Bad(
        "larger.h5: images are 64x32, expected 32x16 as in ",
        DATA,
        command=("evaluate", "model.safetensors", "larger.h5"),
    ),
    "no-test-split": Bad(
        "untested.h5: no split 0 for query", DATA, command=("evaluate", "model.safetensors", "untested.h5")
    ),
    "no-such-split": Bad("site.h5: no split 7 for query", DATA, command=(*EVALUATE, "--split", "7")),
    "save-in-no-folder": Bad("--save none/f.h5: no such folder", command=(*EVALUATE, "--save", "none/f.h5")),
    "save-twice-one-dataset": Bad(
        "site.h5 is the same dataset as .*site.h5", command=(*EVALUATE, "site.h5", "--save", "f.h5")
    ),
    "save-over-a-folder": Bad("run: cannot be written: ", command=(*EVALUATE, "--save", "run")),
    "k1-without-rerank": Bad("belong to --rerank, which is not given", command=(*EVALUATE, "--k1", "3")),
    "rerank-without-gallery": Bad(
        "--rerank uses the whole gallery",
        command=(*EVALUATE, "--rerank", "--protocol", "single-gallery-shot"),
    ),
}

OF_RESULTS = {
    "nothing": Bad(
        "void: holds no results",
        DATA,
        command=("results", "show", "void"),
        spoil=lambda folder: (folder / "void").mkdir(),
    ),
    "no-folder": Bad(
        "none: no such run directory or results file", DATA, command=("results", "show", "none")
    ),
    "of-a-dataset": Bad(
        "site.h5: an archive of kind 'fedreid_mpi dataset', expected 'fedreid_mpi results'",
        DATA,
        command=("results", "show", "site.h5"),
    ),
    "of-a-pipe": Bad(
        "p: cannot be read: Not a regular file", DATA, command=("results", "show", "p"), spoil=pipe("p")
    ),
    "of-text": Bad("good.toml: not an HDF5 file", DATA, command=("results", "show", "good.toml")),
    "truncated": Bad("results_001_001.h5: damaged or truncated", DATA, command=SHOW, spoil=cut(SEGMENT)),
    "changed": Bad(
        "results_001_001.h5: damaged or changed: content_digest",
        DATA,
        command=SHOW,
        spoil=edit(SEGMENT, lambda file: file["rounds/loss"].__setitem__((1, 0), 0.1)),
    ),
    "other-version": Bad(
        "results_001_001.h5: format version 99, expected",
        DATA,
        command=SHOW,
        spoil=edit(SEGMENT, attribute("format_version", 99)),
    ),
    **{
        f"{words[0]}-of-nothing-{output}": Bad(
            "no (such|run)|nope",
            DATA,
            command=("results", *words, "-o", f"kept/{output}", *more),
            spoil=keep(output),
        )
        for words, output, *more in (
            (("export", "nope"), "x.csv"),
            (("export", "nope"), "x.parquet"),
            (("export", "nope"), "x.tex"),
            (("export", "nope"), "logs", "--format", "tensorboard"),
            (("collect", "nope"), "x.h5"),
            (("merge", "nope"), "x.h5"),
            (("report", "nope"), "page"),
            (("rank-list", "nope", "site.h5"), "x.png"),
        )
    },
    "export-of-no-run-like-this": Bad(
        "no run that meets run.seed=77",
        DATA,
        command=("results", "export", "run", "--where", "run.seed=77", "-o", "kept/x.csv"),
        spoil=keep("x.csv"),
    ),
    "saved-without-a-model": Bad(
        "nope: no such model file",
        DATA,
        command=("evaluate", "nope", "site.h5", "--save", "kept/x.h5"),
        spoil=keep("x.h5"),
    ),
    "round-never-scored": Bad("round 77", command=(*SHOW, "--round", "77")),
    "baseline-missing": Bad("none: no such run directory", DATA, command=(*SHOW, "--baseline", "none")),
    "plots-below-a-file": Bad(
        "site.h5/plots: plots cannot be written: Not a directory", command=(*SHOW, "--plots", "site.h5/plots")
    ),
}

LAUNCHED = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}

OF_ENVIRONMENT = {
    "no-gpu": Bad(
        'compute.device is "cuda", but .* offers no GPU',
        sections={"compute": {"device": "cuda"}},
    ),
    "no-mpi": Bad(
        "Open MPI started 2 processes, but no MPI library loads",
        environment=LAUNCHED | {"MPI4PY_LIBMPI": "/none.so"},
    ),
    "run-dir-in-use": Bad(
        "--run-dir run: already holds a run", command=("train", "good.toml", "--run-dir", "run")
    ),
    "run-dir-is-a-file": Bad(
        "--run-dir site.h5: cannot be written: File exists",
        command=("train", "good.toml", "--run-dir", "site.h5"),
    ),
    "run-dir-below-a-file": Bad(
        "--run-dir site.h5/x: cannot be written: Not a directory",
        command=("train", "good.toml", "--run-dir", "site.h5/x"),
    ),
    "run-dir-that-cannot-be": Bad(
        "--run-dir /proc/x: cannot be written: ", command=("train", "good.toml", "--run-dir", "/proc/x")
    ),
    "run-dir-name-too-long": Bad(
        "cannot be written: File name too long", command=("train", "good.toml", "--run-dir", "x" * 300)
    ),
}

RESUME = ("train", "good.toml", "--run-dir", "run", "--resume")
MANIFESTS = [f"run/checkpoints/round_00000{round}/manifest.json" for round in (0, 1)]


def each(spoil: Callable[[str], Callable[[Path], object]], names: list[str]) -> Callable[[Path], None]:
    """Spoil several files alike."""

    def spoil_all(folder: Path) -> None:
        for name in names:
            spoil(name)(folder)

    return spoil_all


def listing(name: str) -> Callable[[str], Callable[[Path], None]]:
    """Let a manifest name another file, with the digest that belongs to it."""

    def spoil(manifest: str) -> Callable[[Path], None]:
        def change(folder: Path) -> None:
            content = json.loads((folder / manifest).read_bytes())
            del content["digest"]
            content["files"][0]["name"] = name
            digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
            (folder / manifest).write_text(json.dumps({**content, "digest": digest}))

        return change

    return spoil


def called(name: str) -> Callable[[h5py.File], None]:
    """Give a dataset another name, with the digest that belongs to it."""

    def change(file: h5py.File) -> None:
        file.attrs["name"] = np.bytes_(name)
        file.attrs["content_digest"] = np.bytes_(content_digest(file))

    return change


def folder_at(name: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir()

    return spoil


OF_RUN_DIRECTORIES = {
    "status-a-pipe": Bad(
        "run: holds no run: status.json: Not a regular file",
        DATA,
        command=("stop", "run"),
        spoil=pipe("run/status.json"),
    ),
    "manifests-pipes": Bad(
        "manifest.json: cannot be read: Not a regular file; no other checkpoint is whole",
        DATA,
        command=RESUME,
        spoil=each(pipe, MANIFESTS),
    ),
    "stored-file-a-pipe": Bad(
        "rank_0.safetensors: cannot be read: Not a regular file; no other",
        DATA,
        command=RESUME,
        spoil=each(pipe, [name.replace("manifest.json", "rank_0.safetensors") for name in MANIFESTS]),
    ),
    "manifests-of-files-outside": Bad(
        r"manifest.json: names the file '../../../site.h5', expected one in its own folder",
        DATA,
        command=RESUME,
        spoil=each(listing("../../../site.h5"), MANIFESTS),
    ),
    "manifests-of-files-elsewhere": Bad(
        "manifest.json: names the file '/etc/passwd', expected",
        DATA,
        command=RESUME,
        spoil=each(listing("/etc/passwd"), MANIFESTS),
    ),
    "lock-a-folder": Bad(
        "run/lock: cannot be locked: Is a directory", command=RESUME, spoil=folder_at("run/lock")
    ),
    "lock-a-pipe": Bad(
        "run/lock: cannot be locked: Not a regular file", command=RESUME, spoil=pipe("run/lock")
    ),
    "stop-a-folder": Bad(
        "run/STOP: cannot be removed: Is a directory; expected a file or nothing",
        command=RESUME,
        spoil=folder_at("run/STOP"),
    ),
    "dataset-named-like-a-path": Bad(
        "site.h5: its dataset's name is '../x', which cannot be part of a file's name",
        DATA,
        spoil=edit("site.h5", called("../x")),
    ),
    "custom-named-like-a-path": Bad(
        "--name '../x': expected a name that can be part of a file's name",
        command=("prepare", "--dataset", "custom", "--name", "../x", "m.csv", "new.h5"),
    ),
    "more-mistakes-than-a-line-holds": Bad(
        r"bad.toml: unknown key run.k0.*… \([\d,]+ more characters?\)$",
        sections={"run": {f"k{number}": 1 for number in range(1500)}},
    ),
}

TABLE = {
    f"{kind}: {name}": case
    for kind, cases in {
        "configuration": OF_CONFIGURATION,
        "archives": OF_ARCHIVES,
        "datasets": OF_DATASETS,
        "models": OF_MODELS,
        "results": OF_RESULTS,
        "environment": OF_ENVIRONMENT,
        "run directories": OF_RUN_DIRECTORIES,
    }.items()
    for name, case in cases.items()
}
