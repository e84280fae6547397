"""Images of a folder, whatever their names: no person, no camera, no split."""

from dataclasses import dataclass, replace
from pathlib import Path

from fedreid_mpi.data.readers.names import EXTENSIONS, few, list_folder
from fedreid_mpi.errors import DataError


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """The image files in a folder and in those below it.

    Attributes
    ----------
    root
        The folder.
    paths
        Of the images, relative to it, sorted.
    others
        Of files whose names are not those of images, sorted in the same way.
    """

    root: Path
    paths: tuple[str, ...]
    others: tuple[str, ...] = ()

    def without(self, paths: tuple[str, ...]) -> "ImageFolder":
        """Return the same without some of the images."""
        left_out = frozenset(paths)
        return replace(self, paths=tuple(path for path in self.paths if path not in left_out))


def list_image_folder(root: Path) -> ImageFolder:
    """List the images in a folder and in those below it; a single image is a list of one.

    Hidden files are left out, and links to folders are followed, but not in circles.

    Raises
    ------
    DataError
        There is no such folder, it cannot be read, holds no images, a link in it leads nowhere, or a name is
        not UTF-8.
    """
    try:
        if root.is_file():
            if root.suffix.lower() not in EXTENSIONS:
                raise DataError(f"{root}: no image by its name, expected {_endings()}")
            return ImageFolder(root.parent, (root.name,))
        files = sorted(path.relative_to(root).as_posix() for path in _files(root, ()))
    except OSError as error:
        raise DataError(f"{root}: cannot be read: {error.strerror}") from error
    images = tuple(path for path in files if Path(path).suffix.lower() in EXTENSIONS)
    others = tuple(path for path in files if Path(path).suffix.lower() not in EXTENSIONS)
    if not images:
        held = f", found {few(others)}" if others else ""
        raise DataError(f"{root}: holds no images, expected {_endings()} files{held}")
    return ImageFolder(root, images, others)


def _files(folder: Path, above: tuple[Path, ...]) -> list[Path]:
    real = folder.resolve()
    if real in above:
        return []
    found = []
    for entry in list_folder(folder, "."):
        found += _files(entry, (*above, real)) if entry.is_dir() else [entry]
    return found


def _endings() -> str:
    return ", ".join(sorted(EXTENSIONS))
