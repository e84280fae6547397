"""What a file is that was given for a model or for weights, and cannot be read as such."""

import re
import tarfile
import zipfile
from pathlib import Path
from pickle import UnpicklingError

_BEGINNINGS = {
    b"\x89HDF": "an HDF5 file",
    b"\x1f\x8b": "a gzip file, to be unpacked",
    b"\x93NUMPY": "a NumPy array",
    b"version https://git-lfs": "a pointer of Git LFS, whose file `git lfs pull` fetches",
}
_HTML = re.compile(rb"\s*(<!doctype\s+html|<html|<\?xml)", re.IGNORECASE)
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_OBJECT = re.compile(r"(?:GLOBAL|class) ([\w.]+\.\w+)")

STATE_DICT = (
    "expected a state_dict of tensors alone, as torch.save(model.state_dict(), FILE) writes it in the "
    "program that made the model"
)
"""What weights are to be."""


def what_it_is(path: Path, error: Exception) -> str:
    """Describe what a file is by its content.

    Parameters
    ----------
    path
        A regular file.
    error
        What was raised when it was read, by torch or safetensors.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        return "an empty file"
    if head[:2] == b"PK":
        return _what_zip_it_is(path, error)
    if tarfile.is_tarfile(path):
        return "a tar archive"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**32:
        return "a safetensors file by its content, damaged or with another ending"
    if head[:1] == b"\x80":
        return _what_pickle_it_is(error)
    for beginning, words in _BEGINNINGS.items():
        if head.startswith(beginning):
            return words
    if _HTML.match(head):
        return "a web page, as is saved if a download needs a login or a click"
    if not _CONTROL.search(head):
        return f"a text, which begins {head.decode(errors='replace').strip()[:40]!r}"
    return "of no kind that is known, or damaged"


def _what_zip_it_is(path: Path, error: Exception) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):  # of names, or of a version, that cannot be
        return "a PyTorch or zip file that is cut off or damaged"
    if any(name.endswith("/constants.pkl") for name in names):
        return (
            "a TorchScript program, whose weights "
            "torch.save(torch.jit.load(FILE).state_dict(), NEW) writes as a state_dict"
        )
    if not any(name.endswith("/data.pkl") for name in names):
        return f"a zip archive, of {', '.join(map(repr, names[:3]))}"
    return _what_pickle_it_is(error)


def _what_pickle_it_is(error: Exception) -> str:
    """Name the first Python object that is no tensor, from torch's words."""
    found = _OBJECT.search(str(error))
    if found is not None:
        words = f"a PyTorch or pickle file that holds Python objects ({found[1]}) besides tensors"
        return f"{words}, which are not loaded, as they can run code"
    if isinstance(error, UnpicklingError):
        return "a PyTorch or pickle file of other things than tensors, or damaged"
    return "a PyTorch or pickle file, damaged or with another ending"
