"""Opens the files of a model for reading, and tells whether they have changed.

If another program truncates a mapped file, reading it kills the process (SIGBUS). With
``use_mmap=False``, a truncated file raises ``ModelError``.
"""

import mmap
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talu.exceptions import ModelError
from talu.first_use import loaded

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]
else:
    Bytes = Any

__all__ = ["Bytes", "FileVersion", "OpenFile", "version_of", "versions_of"]

FileVersion = tuple[str, int, int, int]  # real path, size, modification time (ns), inode


class OpenFile:
    """A regular file that is open for reading. Returned arrays stay valid after ``close``.

    Attributes:
        path: where it is.
        size: its bytes when it was opened.
    """

    def __init__(self, path: Path, *, use_mmap: bool = True) -> None:
        """Open the file at ``path``.

        Args:
            path: a regular file.
            use_mmap: map the file; otherwise what is viewed is read into its own memory.

        Raises:
            ModelError: the file cannot be opened, or is not a regular file.
        """
        self.path = path
        self._map: mmap.mmap | None = None
        try:
            # O_NONBLOCK, so that a named pipe fails below instead of waiting for a writer
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise ModelError(f"cannot open {path}: {error.strerror}") from error
        try:
            status = os.fstat(self._fd)
            if not stat.S_ISREG(status.st_mode):
                raise ModelError(f"cannot read {path}: it is not a regular file")
            self.size = status.st_size
            if use_mmap and self.size > 0:
                self._map = mmap.mmap(self._fd, self.size, access=mmap.ACCESS_READ)
        except OSError as error:
            self.close()
            raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
        except BaseException:
            self.close()
            raise

    def view(self, start: int, size: int) -> Bytes:
        """``size`` bytes at ``start``, as a read-only view of the mapping or in their own memory.

        Raises:
            ModelError: they are not in the file, or it cannot be read.
        """
        if not 0 <= start <= start + size <= self.size:
            raise ModelError(
                f"{self.path} is damaged: it has {self.size} bytes, and {size} bytes at {start} "
                "are needed"
            )
        if self._map is None:
            return self.read(start, size)
        found: Bytes = loaded("numpy", "frombuffer")(self._map, "u1", size, start)
        return found

    def read(self, start: int, size: int) -> Bytes:
        """``size`` bytes at ``start`` in their own memory; they must be in the file.

        Raises:
            ModelError: the file cannot be read, or was truncated.
        """
        out: Bytes = loaded("numpy", "empty")(size, "u1")
        done = 0
        while done < size:
            with self._reading():
                count = os.preadv(self._fd, [out.data[done:]], start + done)
            done += self._some(count)
        return out

    def content(self, start: int, size: int) -> bytes:
        """Like ``read``, without loading NumPy."""
        parts: list[bytes] = []
        while size > 0:
            with self._reading():
                parts.append(os.pread(self._fd, size, start))
            count = self._some(len(parts[-1]))
            start, size = start + count, size - count
        return parts[0] if len(parts) == 1 else b"".join(parts)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ModelError(f"cannot read {self.path}: {error.strerror}") from error

    def _some(self, count: int) -> int:
        if count == 0:
            raise ModelError(f"{self.path} was truncated while it was read")
        return count

    def close(self) -> None:
        """Close the file; idempotent. The mapping is released with the last array that uses it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._map = None


def version_of(path: Path) -> FileVersion:
    """Identify the file at ``path`` and its current content.

    Raises:
        OSError: there is no such file.
    """
    status = path.stat()
    return str(path), status.st_size, status.st_mtime_ns, status.st_ino


def versions_of(paths: Iterable[Path]) -> tuple[FileVersion, ...]:
    """Identify files, links resolved, and their current content.

    Raises:
        ModelError: a file is missing or inaccessible.
    """
    try:
        return tuple(version_of(path.resolve()) for path in paths)
    except OSError as error:
        raise ModelError(f"cannot read {error.filename}: {error.strerror}") from error
