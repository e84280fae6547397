"""The layouts that the federated benchmark's own scripts make of the ten datasets.

Zhuang et al., Performance Optimization for Federated Person Re-identification via Benchmark Analysis, ACM MM
2020. Every dataset ends as ``pytorch/{train,val,train_all,query,gallery,multi-query}/<person>/<file>``. The
five small ones come there from the DGD scripts' layout (Xiao et al., CVPR 2016): ``cam_0`` and ``cam_1`` with
files ``<identity>_<image>``, a ``meta.json`` and a ``split.json`` that speak of identities counted from 0.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fedreid_mpi.data.archive import SplitRole
from fedreid_mpi.data.readers.base import (
    BENCHMARK,
    Choices,
    Listing,
    Record,
    Variant,
    for_queries,
    holds,
    separate_people,
)
from fedreid_mpi.data.readers.names import (
    few,
    image_names,
    list_folder,
    list_images,
    match_folder,
    match_name,
    match_names,
)
from fedreid_mpi.data.readers.split_files import assign_identities, read_identity_split, require_listed
from fedreid_mpi.data.readers.views import View, halve, people_and_images, people_in, reach_of_views
from fedreid_mpi.data.splits import generator, sample
from fedreid_mpi.errors import DataError
from fedreid_mpi.wording import counted

VIEW = re.compile(r"cam_(?P<cam>[01])_(?P<pid>\d{5})_\d{5}\.(bmp|png|jpg)", re.ASCII)
"""Name of an image of a small dataset in the ``pytorch`` layout."""

SHOT = re.compile(r"(?P<pid>\d{5})_\d{5}\.(bmp|png|jpg)", re.ASCII)
"""Name of an image in ``cam_0`` or ``cam_1``."""

PERSON = re.compile(r"(?P<pid>-1|\d+)", re.ASCII)
"""Name of a person's folder."""

LEVELS = (".", "pytorch")


def pytorch_variant(
    counts: Mapping[str, int],
    *patterns: re.Pattern[str],
    restarts: bool = False,
    validation: int | None = None,
) -> Variant:
    """Return the variant of a dataset in the ``pytorch`` layout.

    Parameters
    ----------
    counts
        Published.
    *patterns
        Of the file names, with groups ``pid`` and ``cam``; the first that fits a folder's first image holds
        for the folder.
    restarts
        Whether numbers of people start again in the test set.
    validation
        Number of training images set apart in ``val``, where it is known.
    """

    def read(root: Path, choices: Choices) -> Listing:
        _require_same_training(root)
        records = [
            *(
                record
                for folder in _training_folders(root, choices)
                for record in _read_people(root, folder, SplitRole.TRAIN, patterns)
            ),
            *_read_people(root, "query", SplitRole.QUERY, patterns),
            *_read_people(root, "gallery", SplitRole.GALLERY, patterns),
        ]
        if (root / "multi-query").is_dir():
            records += for_queries(
                _read_people(root, "multi-query", SplitRole.MULTI_QUERY, patterns), records
            )
        return Listing((tuple(separate_people(records) if restarts else records),))

    alone = None if validation is None else counts["train_images"] - validation
    return Variant(
        name="processed",
        looks_for="pytorch/ with train_all, query, gallery",
        recognise=_recognise_pytorch,
        read=read,
        splits={BENCHMARK: counts},
        levels=LEVELS,
        train_only={"train_images": alone},
    )


def small_variants(
    dataset: str,
    counts: Mapping[str, int],
    drawn: Mapping[str, int] | None = None,
    whole: Mapping[str, int] | None = None,
    trained: Callable[[int], int] = lambda people: people // 2,
) -> tuple[Variant, ...]:
    """Return the variants of a small dataset in the benchmark's layouts and in the DGD scripts'.

    Parameters
    ----------
    dataset
        Whose split is drawn where there is no ``split.json``.
    counts
        Published.
    drawn
        The same where the split is drawn, if some depend on it.
    whole
        Published counts of all images, as a drawn split does not tell them.
    trained
        Number of people to train on, given the number of all.
    """

    def split(root: Path, choices: Choices) -> Listing:
        views = _read_cameras(root)
        known = read_identity_split(choices.split_file or root / "split.json")
        require_listed(known, root, views)
        return describe(views, assign_identities(known, root, views))

    def draw(root: Path, choices: Choices) -> Listing:
        if choices.split_file is not None:
            return split(root, choices)
        views = _read_cameras(root)
        people, rng = people_in(views), generator(choices.seed, dataset, "identities")
        return describe(views, halve(views, sample(people, trained(len(people)), rng)), drawn=True)

    def describe(views: Sequence[View], records: tuple[Record, ...], drawn: bool = False) -> Listing:
        number = len({record.pid for record in records if record.role == SplitRole.TRAIN})
        return Listing((records,), drawn, whole=people_and_images(views), reach=reach_of_views(views, number))

    with_file, without = _camera_variants(counts, split, draw)
    without = replace(without, splits={BENCHMARK: drawn or counts}, whole=whole or {})
    return (pytorch_variant(counts, VIEW), with_file, without)


def prid_variants(counts: Mapping[str, int]) -> tuple[Variant, ...]:
    """Return the variants of PRID 2011; numbers of identities alone tell its split."""
    with_file = small_variants("prid2011", counts)

    def by_number(root: Path, choices: Choices) -> Listing:
        if choices.split_file is not None:
            return with_file[1].read(root, choices)
        return Listing((tuple(Record(*view, _prid_role(view)) for view in _read_cameras(root)),))

    return (*with_file[:2], replace(with_file[2], read=by_number))


def _prid_role(view: View) -> SplitRole:
    """Identities 0 to 99 are probes, 100 to 384 trained on, the others seen by camera 1 only."""
    if 100 <= view.pid < 385:
        return SplitRole.TRAIN
    return SplitRole.QUERY if view.camid == 0 else SplitRole.GALLERY


def public_variant(counts: Mapping[str, int]) -> Variant:
    """Return the variant of the public dataset in the ``pytorch`` layout: ``train_all`` alone.

    Nothing says how its files are named, so cameras are unknown and any name is accepted.
    """

    def read(root: Path, choices: Choices) -> Listing:
        records = [
            Record(f"train_all/{person}/{name}", pid, 0, SplitRole.PUBLIC)
            for person, pid in _people(root, "train_all")
            for name in list_images(root, f"train_all/{person}")
        ]
        return Listing((tuple(records),), notes=("file names have no cameras here: all are stored as 0",))

    return Variant(
        name="processed",
        looks_for="pytorch/ with train_all",
        recognise=holds("train_all"),
        read=read,
        splits={BENCHMARK: {key: number for key, number in counts.items() if key != "cameras"}},
        levels=LEVELS,
    )


def _camera_variants(
    counts: Mapping[str, int],
    split: Callable[[Path, Choices], Listing],
    draw: Callable[[Path, Choices], Listing],
) -> tuple[Variant, Variant]:
    """Return the variants of ``cam_0`` and ``cam_1``, with a split file and without."""
    with_file = Variant(
        name="cameras",
        looks_for="cam_0, cam_1, meta.json, split.json",
        recognise=holds("cam_0", "cam_1", "meta.json", "split.json"),
        read=split,
        splits={BENCHMARK: counts},
        split_file="split.json next to meta.json",
    )
    without = replace(
        with_file,
        name="cameras-unsplit",
        looks_for="cam_0, cam_1",
        recognise=holds("cam_0", "cam_1"),
        read=draw,
    )
    return with_file, without


def _recognise_pytorch(root: Path) -> str | None:
    whole, parts = holds("train_all", "query", "gallery"), holds("train", "val", "query", "gallery")
    return whole(root) or parts(root)


def _training_folders(root: Path, choices: Choices) -> tuple[str, ...]:
    if choices.training == "train":
        return ("train",)
    # train_all is train and val together; the scripts make it last, so copies without it are about.
    return ("train_all",) if (root / "train_all").is_dir() else ("train", "val")


def _require_same_training(root: Path) -> None:
    """Refuse a ``train_all`` that is not ``train`` and ``val`` together, where all three are there.

    Raises
    ------
    DataError
        Naming the first few images that are on one side only.
    """
    if not all((root / folder).is_dir() for folder in ("train_all", "train", "val")):
        return
    whole, *parts = (
        {
            f"{person}/{name}"
            for person, _ in _people(root, folder)
            for name in list_images(root, f"{folder}/{person}")
        }
        for folder in ("train_all", "train", "val")
    )
    if odd := sorted(whole ^ set().union(*parts)):
        raise DataError(
            f"{root}: {counted(len(odd), 'image is', 'images are')} not both in train_all and in "
            f"train or val: {few(odd)}"
        )


def _people(root: Path, folder: str) -> list[tuple[str, int]]:
    """List the folders of people below a folder, with their numbers.

    Raises
    ------
    DataError
        If something else is there.
    """
    if strays := image_names(root / folder):
        raise DataError(
            f"{root / folder}: {counted(len(strays), 'image')} in no person's folder: {few(strays)}"
        )
    names = [entry.name for entry in list_folder(root, folder) if entry.is_dir()]
    if not names:
        raise DataError(f"{root / folder}: holds no images, expected one folder of them per person")
    if strangers := [name for name in names if not PERSON.fullmatch(name)]:
        raise DataError(
            f"{root / folder}: {counted(len(strangers), 'folder is', 'folders are')} named "
            f"otherwise: {few(strangers)}; "
            f"expected {PERSON.pattern}"
        )
    return [(name, int(name)) for name in names]


def _read_people(
    root: Path, folder: str, role: SplitRole, patterns: Collection[re.Pattern[str]]
) -> list[Record]:
    """Read the images of all people below a folder.

    Raises
    ------
    DataError
        If an image is in somebody else's folder.
    """
    records: list[Record] = []
    for person, pid in _people(root, folder):
        where = f"{folder}/{person}"
        names = list_images(root, where)
        pattern = next((each for each in patterns if match_name(names[0], each)), next(iter(patterns)))
        for name, match in match_names(root / where, names, pattern):
            if int(match["pid"]) != pid:
                raise DataError(f"{root / where}: {name!r} is of person {int(match['pid'])}")
            records.append(Record(f"{where}/{name}", pid, int(match["cam"]), role))
    return records


def _read_cameras(root: Path) -> list[View]:
    """Read the images of ``cam_0`` and ``cam_1``."""
    return [
        View(path, int(match["pid"]), camid)
        for camid in (0, 1)
        for path, match in match_folder(root, f"cam_{camid}", SHOT)
    ]
