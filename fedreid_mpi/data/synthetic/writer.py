"""Drawing and writing the benchmark, spread over processes; the same bytes whatever their number."""

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fedreid_mpi.algorithms.seeds import generator
from fedreid_mpi.data.synthetic.domains import Cameras, Domain, draw_cameras, draw_domain
from fedreid_mpi.data.synthetic.drawing import draw_images
from fedreid_mpi.data.synthetic.layouts import LAYOUTS, Shot, Tree
from fedreid_mpi.data.synthetic.people import People, draw_people
from fedreid_mpi.data.synthetic.scales import SCALES
from fedreid_mpi.data.synthetic.variants import ORIGINAL, place_of, plan_variant
from fedreid_mpi.errors import ConfigurationError, FedReIDError
from fedreid_mpi.records import Advance
from fedreid_mpi.storage.atomic import scratch_folder

UNIT = 16
"""Images in a unit of work: few enough for the processor's cache, where drawing is twice as fast.

A unit has one random stream, so another size gives other bytes.
"""

ENCODING: Mapping[str, Mapping[str, Any]] = {
    ".jpg": {"quality": 95, "subsampling": 0},
    ".jpeg": {"quality": 95, "subsampling": 0},
    ".png": {"compress_level": 1},
    ".bmp": {},
}


@dataclass(frozen=True, slots=True)
class World:
    """What the pictures of one dataset depend on; small, so that every process can draw it for itself."""

    dataset: str
    seed: int
    people: int
    cameras: int
    size: tuple[int, int]
    shift: float


@dataclass(frozen=True, slots=True)
class Unit:
    """Images that are drawn together, by whichever process is free."""

    world: World
    number: int
    root: Path
    shots: Sequence[Shot]


@dataclass(frozen=True, slots=True)
class Written:
    """One dataset of the benchmark, as it is on disk.

    Attributes
    ----------
    digest
        SHA-256, in hexadecimal, over the path and the bytes of every file in order of path.
    """

    dataset: str
    folder: Path
    images: int
    identities: int
    cameras: int
    digest: str


def count_images(scale: str, datasets: Iterable[str], variant: str = ORIGINAL, seed: int = 0) -> int:
    """Return how many images `write_benchmark` draws; of the original layouts it writes all of them.

    The seed matters to variants that have more than the original.

    Raises
    ------
    ConfigurationError
        When a dataset has no such variant.
    """
    if variant == ORIGINAL:
        return sum(SCALES[scale].counts[dataset].images for dataset in datasets)
    trees = [plan_variant(dataset, variant, scale, seed) for dataset in datasets]
    return sum(len(tree.shots) + len(tree.more) for tree in trees)


def write_benchmark(
    root: Path,
    scale: str,
    seed: int,
    datasets: Sequence[str] = tuple(LAYOUTS),
    jobs: int = 1,
    advance: Advance | None = None,
    variant: str = ORIGINAL,
    shift: float = 1.0,
) -> list[Written]:
    """Write datasets below ``root`` as image files in their originals' layouts.

    Each dataset appears whole or not at all. The bytes depend on scale, seed and shift, on the versions of
    NumPy and Pillow and, in the last bit of few pixels, on the processor's vector unit; never on ``jobs``.

    Parameters
    ----------
    root
        Folder that receives one folder per dataset; made if missing.
    scale
        ``"demo"``, ``"bench"`` or ``"full"``; see `fedreid_mpi.data.synthetic.scales`.
    seed
        Of the whole benchmark.
    datasets
        Names of those to write.
    jobs
        Number of processes.
    advance
        Called with the number of images just drawn.
    variant
        Way in which the datasets are written; see `fedreid_mpi.data.synthetic.variants`.
    shift
        How far light, colours and backgrounds differ between datasets, from 0 to 2; see
        `fedreid_mpi.data.synthetic.domains.draw_domain`.

    Raises
    ------
    ConfigurationError
        If a dataset's folder is there already and not empty, or cannot be written, or a dataset has no such
        variant.
    """
    for dataset in datasets:
        folder = root / place_of(dataset, variant).folder
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigurationError(f"{folder} already exists: remove it, or name another folder")
    try:
        root.mkdir(parents=True, exist_ok=True)
        # The processes have ended, and write no more, when the folder is removed.
        with scratch_folder(root / "synth") as scratch, _processes(jobs) as draw_all:
            return [
                _write_dataset(root, scratch, scale, seed, dataset, variant, shift, draw_all, advance)
                for dataset in datasets
            ]
    except OSError as error:
        reason = error.strerror or error
        raise ConfigurationError(f"{error.filename or root} cannot be written: {reason}") from error
    except BrokenProcessPool as error:
        raise FedReIDError(f"{root}: a process that drew images was killed; enough memory?") from error


def join_digests(written: Iterable[Written]) -> str:
    """Return one digest for several datasets: SHA-256 over their names and digests in order of name."""
    lines = sorted(f"{dataset.dataset} {dataset.digest}\n" for dataset in written)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def digest_folder(folder: Path) -> str:
    """Return the SHA-256 over the path and the bytes of every file below ``folder``, in order of path."""
    total = hashlib.sha256()
    for path in sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()):
        content = hashlib.sha256((folder / path).read_bytes()).hexdigest()
        total.update(f"{path} {content}\n".encode())
    return total.hexdigest()


DrawAll = Callable[[Iterable[Unit]], Iterable[int]]


@contextmanager
def _processes(jobs: int) -> Iterator[DrawAll]:
    """Yield a function that draws units on ``jobs`` processes and tells how many images each had."""
    if jobs == 1:
        yield lambda units: map(_draw_unit, units)
        return
    # Spawned processes inherit no threads, locks or MPI state, as forked ones would.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_follow_parent) as pool:
        try:
            yield lambda units: pool.map(_draw_unit, units, chunksize=4)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _follow_parent() -> None:
    """Let a drawing process end with its parent, and with nothing else that a terminal sends to both."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _write_dataset(
    root: Path,
    scratch: Path,
    scale: str,
    seed: int,
    dataset: str,
    variant: str,
    shift: float,
    draw_all: DrawAll,
    advance: Advance | None,
) -> Written:
    tree, place = plan_variant(dataset, variant, scale, seed), place_of(dataset, variant)
    people = 1 + max(shot.person for shot in tree.shots)
    cameras = 1 + max(shot.camera for shot in tree.shots)
    world = World(dataset, seed, people, cameras, SCALES[scale].size_of(dataset), shift)
    folder = scratch / place.folder
    start = folder / place.root
    paths = [shot.path for shot in (*tree.shots, *tree.more) if shot.path]
    for parent in sorted({start / Path(path).parent for path in (*paths, *tree.copies)}):
        parent.mkdir(parents=True, exist_ok=True)
    for path, text in (tree.texts | {"counts.json": json.dumps(tree.counts, indent=2) + "\n"}).items():
        (start / path).write_text(text, encoding="utf-8")
    for images in draw_all(_units(world, start, tree)):
        if advance:
            advance(images)
    for copy, path in tree.copies.items():
        shutil.copyfile(start / path, start / copy)
    if tree.pack:
        tree.pack(start)
    digest = digest_folder(folder)
    folder.replace(root / place.folder)
    return Written(dataset, root / place.folder, len(paths), people, cameras, digest)


def _units(world: World, root: Path, tree: Tree) -> Iterator[Unit]:
    """Cut a dataset into units; none has both pictures of the original and others."""
    parts = (shots[at : at + UNIT] for shots in (tree.shots, tree.more) for at in range(0, len(shots), UNIT))
    for number, part in enumerate(parts):
        yield Unit(world, number, root, part)


@lru_cache(maxsize=2)
def _draw_world(world: World) -> tuple[Domain, Cameras, People]:
    """Draw all that a dataset's units share, once per process."""
    domain = draw_domain(world.seed, world.dataset, world.shift)
    cameras = draw_cameras(world.seed, world.dataset, domain, world.cameras, world.size[0])
    people = draw_people(generator(world.seed, world.dataset, "people"), domain, world.people)
    return domain, cameras, people


def _draw_unit(unit: Unit) -> int:
    """Draw the images of a unit and write those that have a path; return how many were drawn."""
    world = unit.world
    domain, cameras, people = _draw_world(world)
    rng = generator(world.seed, world.dataset, "images", unit.number)
    seen = people.take(np.array([shot.person for shot in unit.shots]))
    camera = np.array([shot.camera for shot in unit.shots])
    images = draw_images(rng, domain, cameras, seen, camera, world.size)
    for shot, pixels in zip(unit.shots, images, strict=True):
        if shot.path:
            path = unit.root / shot.path
            Image.fromarray(pixels).save(path, **ENCODING[path.suffix])
    return len(unit.shots)
