"""MSMT17: fifteen cameras, the split in four list files or, repackaged, in the folders.

Wei et al., Person Transfer GAN to Bridge Domain Gap for Person Re-identification, CVPR 2018. The lists name
every image and its person. The training set is the lists of training and validation together, as in the
federated benchmark. Version 2 has faces blurred and other folder names. Copies repackaged in the layout of
Market-1501 have no lists. Numbers of people start again at 0 in the test set, which is why those are moved up
here.
"""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from fedreid_mpi.data.archive import SplitRole
from fedreid_mpi.data.readers.base import (
    BENCHMARK,
    Choices,
    Listing,
    Reader,
    Record,
    Variant,
    client_counts,
    holds,
    holds_names,
    read_folders,
    separate_people,
)
from fedreid_mpi.data.readers.names import few, list_folder, list_images, match_names
from fedreid_mpi.data.readers.processed import pytorch_variant
from fedreid_mpi.errors import DataError
from fedreid_mpi.storage.regular import read_text
from fedreid_mpi.wording import counted

_NAME = r"_\d{3,}_(?P<cam>0[1-9]|1[0-5])_\d{4}(morning|noon|afternoon)_\d+_\d+(_ex)?\.jpg"
NAME = re.compile(r"(?P<pid>\d{4})" + _NAME, re.ASCII)
LISTED = re.compile(r"(?P<folder>\d{4})/(?P<pid>\d{4})" + _NAME, re.ASCII)
MARKET_NAME = re.compile(r"(?P<pid>\d{4})_c(?P<cam>1[0-5]|[1-9])_\d{4,}\.jpg", re.ASCII)
LINE = re.compile(r"(?P<path>\S+) (?P<pid>\d+)", re.ASCII)

TRAINING_LIST, VALIDATION_LIST = "list_train.txt", "list_val.txt"
TEST_LISTS = (("list_query.txt", SplitRole.QUERY), ("list_gallery.txt", SplitRole.GALLERY))
COUNTS = client_counts(cameras=15, train=(1_041, 32_621), query=(3_060, 11_659), gallery=82_161)
VALIDATION = 2_373
"""Images on the list of validation."""


def read_lists(training: str, test: str, root: Path, choices: Choices) -> Listing:
    """Read the four lists, and compare them with what is in the folders ``training`` and ``test``."""
    trained = _read_list(root, TRAINING_LIST, training, SplitRole.TRAIN)
    validated = _read_list(root, VALIDATION_LIST, training, SplitRole.TRAIN)
    tested = [record for name, role in TEST_LISTS for record in _read_list(root, name, test, role)]
    _compare(root, training, [*trained, *validated])
    _compare(root, test, tested)
    kept = [*trained, *(validated if choices.training == "trainval" else ()), *tested]
    return Listing((tuple(separate_people(kept)),))


def read_market_style(pattern: re.Pattern[str], root: Path, choices: Choices) -> Listing:
    """Read the three folders of a copy in the layout of Market-1501."""
    folders = (
        ("bounding_box_train", SplitRole.TRAIN, pattern),
        ("query", SplitRole.QUERY, pattern),
        ("bounding_box_test", SplitRole.GALLERY, pattern),
    )
    return Listing((tuple(separate_people(read_folders(root, folders))),))


def _read_list(root: Path, name: str, folder: str, role: SplitRole) -> list[Record]:
    path = root / name
    try:
        lines = read_text(path).splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file: {error}") from error
    pids: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        entry = LINE.fullmatch(line.strip())
        if entry is None or entry["path"] in pids:
            fault = "not 'PATH PERSON'" if entry is None else "a path for the second time"
            raise DataError(f"{path}: line {number} is {line!r}, {fault}")
        pids[entry["path"]] = int(entry["pid"])
    if not pids:
        raise DataError(f"{path}: names no images")
    matches = match_names(path, pids, LISTED)
    for image, match in matches:
        if len({pids[image], int(match["folder"]), int(match["pid"])}) > 1:
            raise DataError(f"{path}: gives {image!r} to person {pids[image]}, expected that of its name")
    return [Record(f"{folder}/{image}", pids[image], int(match["cam"]), role) for image, match in matches]


def _compare(root: Path, folder: str, records: list[Record]) -> None:
    """Refuse images that a list names and the folder lacks, or the other way round."""
    listed = {record.path for record in records}
    people = [entry.name for entry in list_folder(root, folder) if entry.is_dir()]
    found = [
        f"{folder}/{person}/{image}" for person in people for image in list_images(root, f"{folder}/{person}")
    ]
    if unlisted := [path for path in found if path not in listed]:
        raise DataError(
            f"{root}: {counted(len(unlisted), 'image is', 'images are')} in no list file: {few(unlisted)}"
        )
    if missing := sorted(listed.difference(found)):
        raise DataError(f"{root}: {len(missing)} listed images are missing: {few(missing)}")


def _listed_variant(name: str, training: str, test: str) -> Variant:
    needed = (training, test, TRAINING_LIST)
    return Variant(
        name=name,
        looks_for=", ".join(needed),
        recognise=holds(*needed),
        read=partial(read_lists, training, test),
        splits={BENCHMARK: COUNTS},
        train_only={"train_images": COUNTS["train_images"] - VALIDATION},
    )


def _market_variant(name: str, pattern: re.Pattern[str], named: str) -> Variant:
    return Variant(
        name=name,
        looks_for=f"bounding_box_train, query, bounding_box_test with names like {named}",
        recognise=_holds_market_style(pattern),
        read=partial(read_market_style, pattern),
        splits={BENCHMARK: COUNTS},
    )


def _holds_market_style(pattern: re.Pattern[str]) -> Callable[[Path], str | None]:
    folders, names = holds("bounding_box_train", "query", "bounding_box_test"), holds_names(pattern, "query")

    def recognise(root: Path) -> str | None:
        layout, naming = folders(root), names(root)
        return f"{layout}; {naming}" if layout and naming else None

    return recognise


READER = Reader(
    name="msmt17",
    folders=("MSMT17_V1", "MSMT17_V2", "MSMT17"),
    variants=(
        _listed_variant("V1", "train", "test"),
        _listed_variant("V2", "mask_train_v2", "mask_test_v2"),
        _market_variant("market-style", MARKET_NAME, "0000_c14_0030.jpg"),
        _market_variant("market-style-V1", NAME, "0000_000_14_0303morning_0015_0.jpg"),
        pytorch_variant(COUNTS, MARKET_NAME, NAME, restarts=True, validation=1_041),
    ),
)
