"""A federation small enough for tests: archives of drawn people, and experiments over them."""

import hashlib
from pathlib import Path
from types import MappingProxyType

import numpy as np
import tomli_w

from fedreid_mpi.algorithms.seeds import generator
from fedreid_mpi.config import Experiment
from fedreid_mpi.data.archive import ArchiveContents, write_archive

HEIGHT, WIDTH = 32, 16

# Training images of each client: very different, and with leftovers of 1 and more at a batch size of 8.
SITES = MappingProxyType({"harbour": 26, "campus": 9, "station": 61, "mall": 17, "library": 40})

PUBLIC_IMAGES = 36

EXPERIMENT = MappingProxyType(
    {
        "run": {"name": "small", "seed": 3, "rounds": 2},
        "federation": {"batch_size": 8},
        "model": {"backbone": "small", "embedding_dim": 16, "dropout": 0.0},
        "augmentation": {"pad": 2},
        "evaluation": {"every": 1},
        "compute": {"device": "cpu"},
    }
)


def draw(seed: int, person: int, count: int, height: int = HEIGHT, width: int = WIDTH):
    """Noisy pictures of one person, who is known by the colours of head, body and legs."""
    random = generator(seed, "drawn", person, count)
    colours = generator(seed, "colours", person).integers(20, 236, (3, 1, 3))
    bands = np.repeat(colours, [height // 4, height // 2, height - height // 4 - height // 2], axis=0)
    noise = random.normal(0, 12, (count, height, width, 3))
    return np.clip(bands + noise, 0, 255).astype(np.uint8)


def write_site(
    path: Path,
    images: int,
    people: int = 4,
    test_people: int = 5,
    gallery_images: int = 2,
    seed: int = 1,
    height: int = HEIGHT,
    width: int = WIDTH,
) -> Path:
    """Write a dataset archive: people with ids 3, 6, … to train on, others to find again.

    A test person has a query by camera 1 and gallery images by camera 2; the last one is not in the gallery,
    which holds a junk image instead. Without test people there is no test split.
    """
    pids = [3 * (1 + number % people) for number in range(images)]
    camids = [1 + number // people % 2 for number in range(images)]
    roles = ["train"] * images
    for person in range(1000, 1000 + test_people):
        last = person == 1000 + test_people - 1
        pids += [person] + ([-1] if last else [person] * gallery_images)
        camids += [1] + [2] * (1 if last else gallery_images)
        roles += ["query"] + ["gallery"] * (1 if last else gallery_images)
    splits = {role: [n for n, other in enumerate(roles) if other == role] for role in dict.fromkeys(roles)}
    seen: dict[int, int] = {}
    pictures = []
    drawn = {person: draw(seed, person, pids.count(person), height, width) for person in set(pids)}
    for person in pids:
        pictures.append(drawn[person][seen.setdefault(person, 0)])
        seen[person] += 1
    contents = ArchiveContents(
        name=path.stem,
        layout="drawn",
        height=height,
        width=width,
        paths=[f"{role}/{n:04d}.png" for n, role in enumerate(roles)],
        pids=pids,
        camids=camids,
        splits=[splits],
        attributes={},
    )
    write_archive(path, contents, ((image, hashlib.sha256(image).digest()) for image in pictures))
    return path


def write_sites(folder: Path) -> list[Path]:
    """Write the archives of `SITES`; one has no test split, one has more test images than a batch."""
    return [
        write_site(
            folder / f"{name}.h5",
            images,
            people=2 + number,
            test_people=0 if name == "mall" else 5,
            gallery_images=35 if name == "library" else 2,
            seed=number,
        )
        for number, (name, images) in enumerate(SITES.items())
    ]


def write_public(path, seed=9):
    """A public archive of twelve people; a third of it lies in P1."""
    paths = [f"P{1 + n % 3}/cam1/{n:03d}_1.png" for n in range(PUBLIC_IMAGES)]
    contents = ArchiveContents(
        name="public",
        layout="drawn",
        height=HEIGHT,
        width=WIDTH,
        paths=paths,
        pids=[n % 12 for n in range(PUBLIC_IMAGES)],
        camids=[1] * PUBLIC_IMAGES,
        splits=[{"public": list(range(PUBLIC_IMAGES))}],
        attributes={},
    )
    pictures = (draw(seed, n % 12, PUBLIC_IMAGES)[n] for n in range(PUBLIC_IMAGES))
    write_archive(path, contents, ((image, hashlib.sha256(image).digest()) for image in pictures))
    return path


def write_folds(path: Path, people: int = 20, strangers: int = 50, folds: int = 3, seed: int = 11) -> Path:
    """Write an archive like GRID's: each person once in a probe and once in the gallery, which has strangers.

    A fold trains on the people whose number leaves its own when divided by the number of folds; without folds
    everybody is tested, and nobody trained on.
    """
    pids = [1 + n // 2 for n in range(2 * people)] + [0] * strangers
    camids = [1 + n % 2 for n in range(2 * people)] + [1 + n % 3 for n in range(strangers)]
    splits = []
    for fold in range(max(folds, 1)):
        split = {"train": [], "query": [], "gallery": []}
        for n, pid in enumerate(pids):
            trained = folds and pid and pid % folds == fold
            split["train" if trained else "query" if pid and n % 2 == 0 else "gallery"].append(n)
        splits.append({role: images for role, images in split.items() if images})
    contents = ArchiveContents(
        name=path.stem,
        layout="drawn",
        height=HEIGHT,
        width=WIDTH,
        paths=[f"{n:04d}.png" for n in range(len(pids))],
        pids=pids,
        camids=camids,
        splits=splits,
        attributes={},
    )
    drawn = {pid: draw(seed, pid, pids.count(pid)) for pid in set(pids)}
    noise = generator(seed, "noise")
    pictures = []
    for n, pid in enumerate(pids):  # so much noise that not everybody is found
        picture = 0.5 * drawn[pid][pids[:n].count(pid)] + noise.normal(60, 20, 3)
        pictures.append(np.clip(noise.normal(picture, 30), 0, 255).astype(np.uint8))
    write_archive(path, contents, ((image, hashlib.sha256(image).digest()) for image in pictures))
    return path


def write_experiment(path: Path, archives: list[Path], **sections: dict[str, object]) -> Path:
    """Write `EXPERIMENT` over some archives, with keys replaced."""
    content = {name: dict(keys) for name, keys in EXPERIMENT.items()}
    content["data"] = {"archives": [str(archive) for archive in archives]}
    for name, keys in sections.items():
        content[name] = content.get(name, {}) | keys
    path.write_text(tomli_w.dumps(content), encoding="utf-8")
    return path


def experiment(**sections) -> Experiment:
    """Return `EXPERIMENT` over an archive that is not looked at, with keys replaced."""
    content = {name: dict(keys) for name, keys in EXPERIMENT.items()} | {"data": {"archives": ["unused.h5"]}}
    for name, keys in sections.items():
        content[name] = content.get(name, {}) | keys
    return Experiment.model_validate(content)


def write_suite(path, methods, seeds=(4, 1), base="base.toml"):
    study = {"name": "small", "base": str(base), "seeds": list(seeds)}
    path.write_text(tomli_w.dumps({"study": study, "methods": methods}), encoding="utf-8")
    return path


class Silent:
    """Watches a run and says nothing."""

    def started(self, header, notes):
        pass

    def finished(self, record):
        pass


class StopAfter(Silent):
    """Asks a run to stop once a round is finished."""

    def __init__(self, run_dir, round):
        self.run_dir, self.round = run_dir, round

    def finished(self, record):
        if record.plan.round == self.round:
            (self.run_dir / "STOP").touch()
