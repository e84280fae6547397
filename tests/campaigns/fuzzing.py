"""Damaged files, and a process of its own that reads them within a limit of memory.

A kind of file is a line in `KINDS`. The process runs ``python -m
campaigns.fuzzing``: it takes lines ``KIND PATH`` and
answers each with a line of JSON, the outcome (``read``, ``refused``, ``raised``) and the digest of the value,
the message or the traceback.

`play` is a campaign: it damages files of all kinds, and tells of each what came of it.
"""

import dataclasses
import hashlib
import json
import os
import resource
import select
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from campaigns.chaos import Trial
from support.launching import PYTHONPATH

HEADROOM = 256 * 2**20
"""Bytes of memory that reading a file of some ten kilobytes may take; it takes far less."""

PATIENCE = 120
"""Seconds after which a reader counts as hung, however busy the machine is."""


def words(value: object) -> Iterator[bytes]:
    """Take a value apart into what its digest is made of."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield field.name.encode()
            yield from words(getattr(value, field.name))
    elif isinstance(value, dict):
        for key in value:
            yield from words(key)
            yield from words(value[key])
    elif isinstance(value, tuple | list):
        yield b"%d" % len(value)
        for each in value:
            yield from words(each)
    elif isinstance(value, np.ndarray):
        yield f"{value.dtype} {value.shape}".encode()
        yield value.tobytes()
    else:
        yield repr(value).encode()


def read_experiment(path: Path) -> object:
    from fedreid_mpi.config import load_experiment

    return load_experiment(path).to_toml()


def read_dataset(path: Path) -> object:
    from fedreid_mpi.data.archive import DatasetArchive

    archive = DatasetArchive.open(path)
    splits = [
        (role, archive.split(role, number))
        for number in range(archive.splits)
        for role in archive.roles(number)
    ]
    texts = (archive.paths, archive.notes, archive.skipped)
    return dict(archive.attributes), archive.pids, archive.camids, splits, texts, archive.images.shape


def read_pixels(path: Path) -> object:
    from fedreid_mpi.data.archive import DatasetArchive, verify_dataset
    from fedreid_mpi.errors import DataError

    if faults := verify_dataset(path, lambda _: None):
        raise DataError("; ".join(faults))
    return read_dataset(path), np.array(DatasetArchive.open(path).images)


def read_results(path: Path) -> object:
    from fedreid_mpi.results import read_run

    return dataclasses.replace(read_run(path), files=())


def read_features(path: Path) -> object:
    import h5py

    from fedreid_mpi.errors import DataError
    from fedreid_mpi.results.verify import verify_features

    if faults := verify_features(path):
        raise DataError("; ".join(faults))
    with h5py.File(path) as file:
        values: dict[str, object] = {}
        file.visititems(
            lambda name, item: values.update({name: item[()]}) if hasattr(item, "shape") else None
        )
    return {name: list(value) if value.dtype == object else value for name, value in values.items()}


def read_model(path: Path) -> object:
    from fedreid_mpi.model import load_model

    stored = load_model(path)
    tensors = {name: tensor.numpy() for name, tensor in stored.network.state_dict().items()}
    return stored.settings.model_dump(), stored.height, stored.width, tensors


def read_manifest(path: Path) -> object:
    from fedreid_mpi.run import checkpoint

    return checkpoint.read_manifest(path.parent).model_dump()


KINDS: dict[str, Callable[[Path], object]] = {
    "experiment": read_experiment,
    "dataset": read_dataset,
    "pixels": read_pixels,
    "results": read_results,
    "features": read_features,
    "model": read_model,
    "manifest": read_manifest,
}
"""Kind of file to its reader."""


def damages(size: int) -> st.SearchStrategy[list[tuple[str, int, bytes]]]:
    """Draw up to four damages of a file of some bytes: what, where, and with which bytes."""
    place = st.integers(0, size - 1)
    one = st.one_of(
        st.tuples(st.just("flip"), place, st.binary(min_size=1, max_size=8)),
        st.tuples(
            st.just("overwrite"), place, st.sampled_from([b"\0" * 8, b"\xff" * 8, b"\0" * 64, b"\x7f" * 4])
        ),
        st.tuples(st.just("insert"), place, st.binary(min_size=1, max_size=16)),
        st.tuples(st.just("remove"), place, st.binary(min_size=1, max_size=16)),
        st.tuples(st.just("cut"), place, st.just(b"")),
    )
    return st.lists(one, min_size=1, max_size=4)


def damaged(content: bytes, what: list[tuple[str, int, bytes]]) -> bytes:
    """Damage a file's bytes."""
    for name, place, data in what:
        after = place + len(data)
        if name == "flip":
            mixed = bytes(a ^ b for a, b in zip(content[place:after], data, strict=False))
            content = content[:place] + mixed + content[after:]
        elif name == "overwrite":
            content = content[:place] + data[: len(content) - place] + content[after:]
        elif name == "insert":
            content = content[:place] + data + content[place:]
        elif name == "remove":
            content = content[:place] + content[after:]
        else:
            content = content[:place]
    return content


class Reader:
    """The process that reads; started anew when a file has ended it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def read(self, kind: str, path: Path) -> tuple[str, str]:
        """Let the process read a file: the outcome, and the digest, the message or what went wrong."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "campaigns.fuzzing"],
                env={**os.environ, "PYTHONPATH": PYTHONPATH},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{kind} {path}\n")
        self._process.stdin.flush()
        if not select.select([self._process.stdout], [], [], PATIENCE)[0]:
            self.close()
            return "hung", f"no answer for {PATIENCE} s"
        answer = self._process.stdout.readline()
        if not answer:
            code = self._process.wait()
            self._process = None
            return "crashed", f"exit code {code}"
        outcome, text = json.loads(answer)
        return outcome, text

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def write_whole(folder: Path) -> dict[str, Path]:
    """Write a good file of each kind, all of them small."""
    from fedreid_mpi.cli import run
    from support.bad_inputs import stock
    from support.small import write_site

    folder = stock(folder / "stock")
    write_site(folder / "tiny.h5", images=2, people=1, test_people=1, height=8, width=4)
    model, features = folder / "model.safetensors", folder / "features.h5"
    assert run(["evaluate", str(model), str(folder / "site.h5"), "--save", str(features)]) == 0
    return {
        "experiment": folder / "good.toml",
        "dataset": folder / "tiny.h5",
        "pixels": folder / "tiny.h5",
        "results": folder / "run" / "results_001_001.h5",
        "features": features,
        "model": model,
        "manifest": folder / "run" / "checkpoints" / "round_000001" / "manifest.json",
    }


def damage(kind: str, whole: Path, reader: Reader, count: int, number: int, folder: Path) -> list[Trial]:
    """Damage a file of one kind so many times, by a seed."""
    content, path = whole.read_bytes(), folder / whole.name
    outcome, expected = reader.read(kind, whole)
    assert outcome == "read", expected
    trials: list[Trial] = []

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(damages(len(content)))
    def once(what: list[tuple[str, int, bytes]]) -> None:
        path.write_bytes(damaged(content, what))
        outcome, text = reader.read(kind, path)
        broken = ""
        if outcome not in ("read", "refused"):
            broken = f"{outcome} by {what}: {text}"
            reader.read(kind, whole)  # a new process limits its memory after a whole file
        elif outcome == "read" and kind != "experiment" and text != expected:  # a number may be another one
            broken = f"read as something else after {what}"
        elif outcome == "refused" and kind not in ("pixels", "features") and path.name not in text:
            broken = f"refused without naming the file: {text}"
        trials.append(Trial(f"{kind} {outcome}", broken))

    once()
    return trials


def play(count: int, number: int, folder: Path) -> Iterator[Trial]:
    """Damage files of all kinds, ``count`` times altogether."""
    whole, reader = write_whole(folder), Reader()
    try:
        for kind, path in whole.items():
            yield from damage(kind, path, reader, -(-count // len(whole)), number, folder)
    finally:
        reader.close()


def answer(kind: str, path: Path) -> tuple[str, str]:
    from fedreid_mpi.errors import FedReIDError

    try:
        value = KINDS[kind](path)
    except FedReIDError as error:
        return "refused", str(error)
    except BaseException:  # noqa: BLE001
        return "raised", traceback.format_exc()
    digest = hashlib.sha256()
    for word in words(value):
        digest.update(word + b"\0")
    return "read", digest.hexdigest()


def main() -> None:
    import torch

    import fedreid_mpi.data.archive
    import fedreid_mpi.model
    import fedreid_mpi.results.verify  # noqa: F401

    torch.set_num_threads(1)
    # HDF5 and safetensors report on standard output's descriptor at times: keep the answers apart.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    limited: set[str] = set()
    for line in sys.stdin:
        kind, path = line.split()
        print(json.dumps(answer(kind, Path(path))), file=answers, flush=True)
        if kind not in limited:  # the first one of a kind is whole, and loads what its reader needs
            limited.add(kind)
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            room = pages * resource.getpagesize() + HEADROOM
            resource.setrlimit(resource.RLIMIT_AS, (room, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main()
