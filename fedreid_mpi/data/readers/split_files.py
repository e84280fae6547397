"""Split files as users hold them, in three forms of JSON.

* Lists of images, a dictionary ``train``, ``query``, ``gallery`` a split: torchreid's ``splits.json`` of
  VIPeR and CUHK01, whose entries are ``[path, person, camera]``, and of i-LIDS, whose entries are file names.
* Lists of people, a dictionary ``train``, ``test`` a split: ``splits_single_shot.json`` and
  ``splits_prid2011.json`` of PRID2011.
* Numbers of identities: the DGD scripts' ``split.json`` (``trainval``, ``test_probe``, ``test_gallery``),
  which counts the identities of the ``meta.json`` beside it.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from fedreid_mpi.data.archive import SplitRole
from fedreid_mpi.data.readers.base import Record
from fedreid_mpi.data.readers.names import few
from fedreid_mpi.data.readers.views import View, people_in
from fedreid_mpi.errors import DataError
from fedreid_mpi.storage.regular import read_bytes, read_text
from fedreid_mpi.wording import counted

LISTED_ROLES = (SplitRole.TRAIN, SplitRole.QUERY, SplitRole.GALLERY)
SCRIPTED = re.compile(r"\d{5}_\d{5}", re.ASCII)
"""Name that the DGD scripts give an image, without its extension: identity and number."""

DIGITS = re.compile(r"\d+", re.ASCII)


@dataclass(frozen=True, slots=True)
class IdentitySplit:
    """The content of a ``split.json`` and the ``meta.json`` beside it; identities are counted from 0.

    Attributes
    ----------
    path
        The ``split.json``.
    training, probes, gallery
        Identities trained on, asked for, and looked at. Probes are in the gallery as well.
    views
        Number of images of each identity in camera 0 and in camera 1.
    names
        Names of the images of each camera, with the identity that lists them.
    """

    path: Path
    training: frozenset[int]
    probes: frozenset[int]
    gallery: frozenset[int]
    views: tuple[tuple[int, int], ...]
    names: tuple[frozenset[tuple[int, str]], frozenset[tuple[int, str]]]


def cite(path: Path) -> str:
    """Return the note that says which file splits are from, and which content it had.

    Raises
    ------
    DataError
        When it cannot be read.
    """
    try:
        digest = hashlib.sha256(read_bytes(path)).hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    return f"the splits are those of {path.name}, SHA-256 {digest[:16]}…"


def read_json(path: Path) -> Any:  # noqa: ANN401 (JSON)
    """Read a JSON file.

    Raises
    ------
    DataError
        When there is no such file, or it is no JSON.
    """
    try:
        return json.loads(read_text(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a JSON file: {error}") from error


def read_image_lists(path: Path, folder: Path, views: Iterable[View]) -> tuple[tuple[Record, ...], ...]:
    """Read splits that list images.

    Files are found by the last parts of their paths, as many as the dataset's paths have, since lists were
    written on somebody else's machine. People and cameras are those of ``views``; where the list has its own,
    they must say the same.

    Parameters
    ----------
    path
        The file.
    folder
        The dataset's, for messages.
    views
        All images of the dataset; those that no split lists are left out.

    Returns
    -------
    tuple of tuple of Record
        One list of images per split.

    Raises
    ------
    DataError
        When the file is of another form, lists an image that is not there or one twice, or disagrees about a
        camera or about who is the same person.
    """
    known = {view.path: view for view in views}
    depth = 1 + next(iter(known), "").count("/")
    splits: list[tuple[Record, ...]] = []
    for number, split in enumerate(_dictionaries(path, [role.value for role in LISTED_ROLES])):
        where = f"{path}: split {number}"
        records: list[Record] = []
        labels: dict[bool, list[tuple[Any, int]]] = {True: [], False: []}
        missing: list[str] = []
        for role in LISTED_ROLES:
            for entry in split[role.value]:
                name, pid, camid = _image_entry(where, entry)
                view = known.get("/".join(re.split(r"[/\\]", name)[-depth:]))
                if view is None:
                    missing.append(name)
                    continue
                if camid not in (None, view.camid):
                    raise DataError(f"{where} says camera {camid} of {name!r}, its name says {view.camid}")
                labels[role == SplitRole.TRAIN].append((pid, view.pid))
                records.append(Record(*view, role))
        if missing:
            raise DataError(
                f"{where} lists {counted(len(missing), 'image')} that {folder} lacks: {few(missing)}"
            )
        _require_numbers(where, split, records)
        for pairs in labels.values():
            _require_same_people(where, pairs)
        _require_once(where, [record.path for record in records])
        splits.append(tuple(records))
    return tuple(splits)


def _require_numbers(where: str, split: Mapping[str, Any], records: Iterable[Record]) -> None:
    """Refuse a split whose own numbers of people, where it has them, are not those of its lists."""
    people = Counter(role for role, _ in {(record.role, record.pid) for record in records})
    for role in LISTED_ROLES:
        declared = split.get(f"num_{role}_pids", people[role])
        if declared != people[role]:
            raise DataError(
                f"{where} says num_{role}_pids {declared}, lists {counted(people[role], 'person', 'people')}"
            )


def _image_entry(where: str, entry: object) -> tuple[str, int | None, int | None]:
    """Take apart ``"name"`` or ``["path", person, camera]``."""
    match entry:
        case str(name):
            return name, None, None
        case [str(name), int(pid), int(camid)]:
            return name, pid, camid
    raise DataError(f"{where} has an entry {str(entry)[:80]}, expected a file name or [path, person, camera]")


def _require_same_people(where: str, labels: Iterable[tuple[int | None, int]]) -> None:
    """Refuse labels that join two people or part one; they may number people otherwise than names do."""
    pairs = {pair for pair in labels if pair[0] is not None}
    for side, what in ((0, "one person to several"), (1, "several people to one")):
        seen: set[int | None] = set()
        for pair in sorted(pairs, key=str):
            if pair[side] in seen:
                raise DataError(f"{where} gives {what}: person {pair[0]} there, {pair[1]} by the file names")
            seen.add(pair[side])


def read_people_lists(
    path: Path, people: Iterable[int], folder: Path
) -> tuple[tuple[frozenset[int], frozenset[int]], ...]:
    """Read splits that list people, by number or by folder name (``person_0001``).

    Parameters
    ----------
    path
        The file.
    people
        Who may be listed.
    folder
        The dataset's, for messages.

    Returns
    -------
    tuple of (frozenset of int, frozenset of int)
        People trained on and people tested, of each split.

    Raises
    ------
    DataError
        When the file is of another form, lists somebody who is not there, or somebody twice.
    """
    known = set(people)
    splits: list[tuple[frozenset[int], frozenset[int]]] = []
    for number, split in enumerate(_dictionaries(path, ("train", "test"))):
        where = f"{path}: split {number}"
        train, test = ([_person(where, entry) for entry in split[part]] for part in ("train", "test"))
        if strangers := [pid for pid in train + test if pid not in known]:
            raise DataError(
                f"{where} lists {counted(len(strangers), 'person', 'people')} that {folder} "
                f"lacks: {few(strangers)}"
            )
        _require_once(where, train + test)
        splits.append((frozenset(train), frozenset(test)))
    return tuple(splits)


def _person(where: str, entry: object) -> int:
    match entry:
        case bool():
            pass
        case int(pid):
            return pid
        case str(name) if len(numbers := DIGITS.findall(name)) == 1:
            return int(numbers[0])
    raise DataError(f"{where} has an entry {str(entry)[:80]}, expected a number or a name like 'person_0001'")


def read_identity_split(path: Path) -> IdentitySplit:
    """Read a ``split.json`` and the ``meta.json`` beside it.

    Raises
    ------
    DataError
        When one is missing or of another form, or people are both trained on and tested.
    """
    meta = path.with_name("meta.json")
    identities: list[tuple[int, int]] = []
    names: tuple[set[tuple[int, str]], set[tuple[int, str]]] = (set(), set())
    for entry in _member(meta, read_json(meta), "identities"):
        match entry:
            case [list(first), list(second)]:
                for listed, known in zip((first, second), names, strict=True):
                    known.update((len(identities), str(name)) for name in listed)
                identities.append((len(first), len(second)))
            case _:
                raise DataError(f"{meta}: identity {len(identities)} is not a pair of lists of images")
    content = read_json(path)
    parts: list[frozenset[int]] = []
    for key in ("trainval", "test_probe", "test_gallery"):
        numbers = _member(path, content, key)
        if strange := [each for each in numbers if type(each) is not int or not 0 <= each < len(identities)]:
            raise DataError(
                f"{path}: {key} holds {few(strange)}, expected identities 0 to {len(identities) - 1} "
                f"of {meta.name}"
            )
        _require_once(f"{path}: {key}", numbers)
        parts.append(frozenset(numbers))
    training, probes, gallery = parts
    if both := sorted(training & (probes | gallery)):
        raise DataError(
            f"{path}: {counted(len(both), 'identity is', 'identities are')} both trained on and "
            f"tested: {few(both)}"
        )
    if lacking := sorted(probes - gallery):
        probe = counted(len(lacking), "probe is", "probes are")
        raise DataError(f"{path}: {probe} not in test_gallery: {few(lacking)}")
    return IdentitySplit(
        path, training, probes, gallery, tuple(identities), (frozenset(names[0]), frozenset(names[1]))
    )


def require_listed(split: IdentitySplit, folder: Path, views: Iterable[View]) -> None:
    """Refuse a ``meta.json`` that lists other images than there are, or gives one to another identity.

    It is for images that the DGD scripts named, ``00007_00002.png`` for identity 7; where ``meta.json`` calls
    them otherwise there is nothing to compare.

    Raises
    ------
    DataError
        Naming the first few.
    """
    meta = split.path.with_name("meta.json")
    found: tuple[set[tuple[int, str]], set[tuple[int, str]]] = (set(), set())
    for view in views:
        found[view.camid].add((view.pid, PurePosixPath(view.path).stem))
    for camera, (listed, there) in enumerate(zip(split.names, found, strict=True)):
        declared = {(identity, PurePosixPath(name).stem) for identity, name in listed}
        if all(SCRIPTED.fullmatch(stem) for _, stem in declared) and (odd := sorted(declared ^ there)):
            raise DataError(
                f"{meta}: lists other images than {folder}/cam_{camera} holds, or gives them to others: "
                f"{few(f'{stem} (identity {identity})' for identity, stem in odd)}"
            )


def assign_identities(split: IdentitySplit, folder: Path, views: Sequence[View]) -> tuple[Record, ...]:
    """Make a split of images from cameras 0 and 1; identities number people in ascending order.

    Of a probe, views of camera 0 are queries and views of camera 1 the gallery; of somebody in the gallery
    only, all views are.

    Raises
    ------
    DataError
        When ``meta.json`` tells of other people or of other numbers of images than there are.
    """
    people = people_in(views)
    meta = split.path.with_name("meta.json")
    if len(people) != len(split.views):
        raise DataError(
            f"{meta}: describes {counted(len(split.views), 'person', 'people')}, {folder} shows {len(people)}"
        )
    numbers = {pid: number for number, pid in enumerate(people)}
    found = [[0, 0] for _ in people]
    for view in views:
        found[numbers[view.pid]][view.camid] += 1
    for number, (here, there) in enumerate(zip(found, split.views, strict=True)):
        if tuple(here) != there:
            raise DataError(
                f"{meta}: identity {number} has {there[0]} and {there[1]} images in "
                "the two cameras, "
                f"person {people[number]} of {folder} has {here[0]} and {here[1]}"
            )
    records: list[Record] = []
    for view in views:
        number = numbers[view.pid]
        if number in split.training:
            records.append(Record(*view, SplitRole.TRAIN))
        elif number in split.gallery:
            asked = number in split.probes and view.camid == 0
            records.append(Record(*view, SplitRole.QUERY if asked else SplitRole.GALLERY))
    return tuple(records)


def _dictionaries(path: Path, keys: Sequence[str]) -> list[dict[str, list[Any]]]:
    """Read a list of dictionaries that have a list under each of ``keys``; others are ignored."""
    content = read_json(path)
    if not isinstance(content, list) or not content:
        form = f"a dictionary of {', '.join(content)}" if isinstance(content, dict) else str(content)[:60]
        raise DataError(f"{path}: found {form}, expected a list of splits with {', '.join(keys)}")
    for number, split in enumerate(content):
        for key in keys:
            _member(path, split, key, f"split {number}")
    return content


def _member(path: Path, content: object, key: str, where: str = "it") -> list[Any]:
    if not isinstance(content, dict) or not isinstance(content.get(key), list):
        raise DataError(f"{path}: {where} has no list {key!r}")
    members: list[Any] = content[key]
    return members


def _require_once(where: str, items: Iterable[object]) -> None:
    if twice := [item for item, number in Counter(items).items() if number > 1]:
        raise DataError(f"{where} lists more than once: {few(twice)}")
