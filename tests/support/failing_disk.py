"""A disk that fails at its n-th operation, counted over opens, writes, syncs and renames in a folder."""

import builtins
import io
import os
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

CHANGES = ("replace", "unlink")


class FailingDisk:
    """Counts the operations on files in a folder, and fails one of them, or that one and all after it.

    Attributes
    ----------
    operations
        Those seen, in order.
    """

    def __init__(self, folder: Path, number: int | None = None, error: int = 0, for_good: bool = False):
        self.folder, self.number, self.error, self.for_good = str(folder), number, error, for_good
        self.operations: list[str] = []

    def step(self, name: str, path: object) -> None:
        """Count an operation, and fail it if its number has come."""
        if not str(path).startswith(self.folder):
            return
        self.operations.append(name)
        count = len(self.operations)
        if self.number is not None and (count > self.number if self.for_good else count == self.number + 1):
            raise OSError(self.error, os.strerror(self.error), str(path))

    @contextmanager
    def inserted(self):
        """Put the disk between the program and the operating system while the block runs."""
        with ExitStack() as stack:
            for module in (io, builtins):
                stack.enter_context(mock.patch.object(module, "open", self._open(module.open)))
            for name in CHANGES:
                stack.enter_context(mock.patch.object(os, name, self._change(name, getattr(os, name))))
            stack.enter_context(mock.patch.object(os, "fsync", self._fsync(os.fsync)))
            yield self

    def _open(self, original):
        def opened(file, mode="r", buffering=-1, *args, **kwargs):
            if "b" not in mode or not set(mode) & set("wax+") or not str(file).startswith(self.folder):
                return original(file, mode, buffering, *args, **kwargs)
            self.step("open", file)
            raw = _File(self, file, mode.replace("b", ""))
            return raw if buffering == 0 else (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw)

        return opened

    def _change(self, name, original):
        def changed(path, *args, **kwargs):
            # To clean up a disk must still be able to; one that is gone for good cannot.
            if name != "unlink" or self.for_good:
                self.step(name, path)
            return original(path, *args, **kwargs)

        return changed

    def _fsync(self, original):
        def synced(handle):
            self.step("fsync", Path(f"/proc/self/fd/{handle}").readlink())
            return original(handle)

        return synced


class _File(io.FileIO):
    """A file on the failing disk; a write that fails has taken half of its bytes."""

    def __init__(self, disk: FailingDisk, path: object, mode: str) -> None:
        super().__init__(path, mode)
        self._disk, self._path = disk, path

    def write(self, data) -> int:
        view = memoryview(data).cast("B")
        try:
            self._disk.step("write", self._path)
        except OSError:
            super().write(view[: len(view) // 2])
            raise
        return super().write(view)

    def truncate(self, size=None) -> int:
        self._disk.step("truncate", self._path)
        return super().truncate(size)
