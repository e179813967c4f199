"""Writes a file or folder completely or not at all.

It is written in a hidden folder beside the destination and moved there at the end. The hidden
folder is locked while its writer runs, so the next conversion to the same place recognises what a
killed one has left, and removes it.
"""

import contextlib
import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from talu.error_text import reason, shown, size_text
from talu.exceptions import ConvertError
from talu.sources.folder_files import is_other_file
from talu.weights.files import FileVersion

__all__ = ["Destination"]

RESULT, REPLACED = "result", "replaced"  # in the hidden folder: what is written, and the old one
MAX_NAME = 255  # bytes, of most file systems
CONFIG, WEIGHTS = "config.json", "model*.safetensors"  # what every replaced folder has
INDEX = "model.safetensors.index.json"
MODULE = re.compile(r"\d{1,3}_\w+|additional_chat_templates")  # a folder in that of a model


def is_of_model(name: str) -> bool:
    """Whether a file in a folder has the name of a model's file."""
    return name in (CONFIG, INDEX) or fnmatch(name, WEIGHTS) or is_other_file(name)


class Destination:
    """The place of a result.

    Attributes:
        path: where it will be.
    """

    def __init__(self, path: Path, *, is_folder: bool, force: bool = False) -> None:
        """Check that something can be written there.

        Args:
            path: of the result.
            is_folder: the result is a folder.
            force: replace what is there.

        Raises:
            ConvertError: it exists, or the folder that it would be in does not.
        """
        self.path = Path(os.path.abspath(path))
        self._is_folder = is_folder
        self._force = force
        parent = self.path.parent
        self._prefix = f".{self.path.name}.converting-"
        if len(os.fsencode(self._prefix)) > MAX_NAME - 8 or not self.path.name:
            raise self._error("is not a usable name; choose a shorter one")
        try:
            if not parent.is_dir():
                raise self._error(f"cannot be written: {shown(str(parent))} is not a folder")
            if os.path.lexists(self.path):
                self._check_replaceable()
            if not os.access(parent, os.W_OK | os.X_OK):
                raise self._error(f"cannot be written: no permission for {shown(str(parent))}")
        except OSError as error:
            raise self._error(f"cannot be written: {reason(error)}") from error

    def check_apart(self, location: Path, files: tuple[FileVersion, ...]) -> None:
        """Refuse a place that belongs to the model that is read.

        Args:
            location: the model's folder or file.
            files: its files.

        Raises:
            ConvertError: it is one of the files, or in the model's folder.
        """
        place = self.path.parent.resolve() / self.path.name
        folder = location.resolve()
        same = place.resolve() in {folder, *(Path(file[0]) for file in files)}
        if same or (folder.is_dir() and folder in place.parents) or place in folder.parents:
            raise self._error("belongs to the model that is converted; choose another place")

    def check_space(self, size: int) -> None:
        """Refuse a result for which there is no space.

        Args:
            size: its bytes.

        Raises:
            ConvertError: the file system has fewer.
        """
        try:
            free = shutil.disk_usage(self.path.parent).free
        except OSError as error:
            raise self._error(f"cannot be written: {reason(error)}") from error
        if size > free:
            raise self._error(
                f"needs {size_text(size)}, but only {size_text(free)} are free; free some space, "
                "or choose another place",
                size=size,
                free=free,
            )

    @contextlib.contextmanager
    def writing(self) -> Iterator[Path]:
        """A path to write to; at the end of the ``with`` block it becomes the result.

        It is a file that does not exist yet, or an empty folder. After an exception nothing of it
        is left.

        Raises:
            ConvertError: writing fails, or something has appeared at the destination.
        """
        try:
            self._sweep()
            temporary, lock = self._temporary()
        except OSError as error:
            raise self._error(f"cannot be written: {reason(error)}") from error
        try:
            path = temporary / RESULT
            if self._is_folder:
                path.mkdir()
            yield path
            _sync(path)
            self._move(temporary)
            _sync_entry(self.path.parent)
        except OSError as error:
            raise self._error(f"cannot be written: {reason(error)}") from error
        finally:
            _restore(temporary, self.path)
            shutil.rmtree(temporary, ignore_errors=True)
            os.close(lock)

    def _check_replaceable(self) -> None:
        """Refuse to replace what may not be."""
        is_folder = self.path.is_dir() and not self.path.is_symlink()
        if not self._force:
            kind = "folder" if is_folder else "file"
            raise self._exists(f"exists already; remove the {kind}, or replace it with force")
        if is_folder != self._is_folder:
            kinds = ("a folder", "a file") if is_folder else ("not a folder", "a folder")
            raise self._exists(f"is {kinds[0]}, and the result is {kinds[1]}")
        if is_folder:
            with os.scandir(self.path) as entries:
                names = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
            inner = [name for name, is_inner in names.items() if is_inner]
            other = [name for name in names if not is_of_model(name) and name not in inner]
            is_model = CONFIG in names and any(fnmatch(name, WEIGHTS) for name in names)
            if names and (other or not is_model or not all(map(MODULE.fullmatch, inner))):
                raise self._exists(
                    "is a folder that holds more than a model, and is not replaced; remove it"
                )
        elif not self.path.is_symlink() and not self.path.is_file():
            raise self._exists("is not a regular file, and is not replaced")

    def _temporary(self) -> tuple[Path, int]:
        """The hidden folder, and the descriptor that holds its lock."""
        while True:
            folder = Path(tempfile.mkdtemp(dir=self.path.parent, prefix=self._prefix))
            lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
            with contextlib.suppress(OSError):  # without locks, leftovers are not removed
                fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():  # it was not removed before it was locked
                return folder, lock
            os.close(lock)

    def _sweep(self) -> None:
        """Remove what killed conversions of this user to this place have left."""
        with os.scandir(self.path.parent) as entries:
            left = [Path(entry.path) for entry in entries if entry.name.startswith(self._prefix)]
        for folder in left:
            with contextlib.suppress(OSError):
                lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    if os.fstat(lock).st_uid != os.geteuid():
                        continue
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _restore(folder, self.path)
                    shutil.rmtree(folder)
                finally:
                    os.close(lock)

    def _move(self, temporary: Path) -> None:
        """Move the result to its place."""
        result = temporary / RESULT
        if self._force and os.path.lexists(self.path):
            self._check_replaceable()
        if self._force and self._is_folder:
            with contextlib.suppress(FileNotFoundError):
                os.rename(self.path, temporary / REPLACED)
        if self._force or self._is_folder:
            try:
                os.rename(result, self.path)
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
                    raise self._exists("has appeared in the meantime, and is kept") from error
                raise
            return
        try:
            os.link(result, self.path)  # unlike a rename, it never replaces a file
        except FileExistsError as error:
            raise self._exists("has appeared in the meantime, and is kept") from error
        except OSError:  # the file system has no links
            if os.path.lexists(self.path):
                raise self._exists("has appeared in the meantime, and is kept") from None
            os.rename(result, self.path)

    def _exists(self, what: str) -> ConvertError:
        return self._error(what, code="CONVERT_OUTPUT_EXISTS")

    def _error(self, what: str, *, code: str = "CONVERT_FAILED", **details: object) -> ConvertError:
        path = str(self.path)
        return ConvertError(f"{shown(path)} {what}", code=code, details={"path": path, **details})


def _restore(temporary: Path, path: Path) -> None:
    """Put what was to be replaced back if nothing has taken its place."""
    with contextlib.suppress(OSError):
        if not os.path.lexists(path):
            os.rename(temporary / REPLACED, path)


def _sync(path: Path) -> None:
    """Make sure that a file, or a folder and all in it, is on the disk."""
    for entry in path.rglob("*"):
        _sync_entry(entry)
    _sync_entry(path)


def _sync_entry(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
