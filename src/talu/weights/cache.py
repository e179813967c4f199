"""Manages the cache of packed weights: its folder, file names and removal of outdated files.

The folder is ``packed`` in ``TALU_CACHE``, else in ``$XDG_CACHE_HOME/talu``, else in
``~/.cache/talu``. It holds at most one file for each checkpoint on this machine: writing a file
removes the others of the same checkpoint, and those whose checkpoint has changed or is gone. A
checkpoint that is quantised at load has another file for each format.
docs/decisions/0002-packed-weight-cache.md
"""

import contextlib
import functools
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from talu.error_text import reason
from talu.first_use import loaded
from talu.weights import packed_file
from talu.weights.files import Bytes, FileVersion, version_of
from talu.weights.layout import VECTOR
from talu.weights.packed_file import Check, Packed, Slot, UnusableError

__all__ = ["PackedFile", "cache_folder", "find", "packed_files", "save"]

SUFFIX = ".packed"
SPARE_BYTES = 1 << 30  # of disk space that the cache leaves free

logger = logging.getLogger("talu.weights")


def find(key: Mapping[str, Any], *, use_mmap: bool, check: Check) -> Packed | None:
    """The packed file of ``key``; None if there is no usable one.

    An unusable file is removed, and the reason is logged.

    Args:
        key: identifies the content.
        use_mmap: see ``packed_file.read``.
        check: raises ``UnusableError`` for slots that are not what the caller needs.
    """
    with contextlib.suppress(OSError):
        path = path_of(key)
        try:
            return packed_file.read(path, key, use_mmap=use_mmap, check=check)
        except UnusableError as error:
            if os.path.lexists(path):
                logger.warning("the packed weights in %s are rebuilt: %s", path, error)
                if not path.is_dir():
                    path.unlink()
    return None


def save(
    key: Mapping[str, Any],
    slots: Mapping[str, Slot],
    fill: Callable[[str, Bytes], None],
    *,
    use_mmap: bool,
) -> Packed | str:
    """Write the packed file of ``key`` and return it, or the reason why that is not possible.

    The reason is logged as well, once in a process.
    """
    try:
        path = path_of(key)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        packed_file.sweep_temporaries(path.parent)
        remove_outdated(path, key)
        size = max(slot.offset + slot.size for slot in slots.values())
        if loaded("shutil", "disk_usage")(path.parent).free < size + SPARE_BYTES:
            raise OSError(f"{size >> 20} MiB more would leave less than 1 GiB of the disk free")
        return packed_file.write(path, key, slots, fill, use_mmap=use_mmap)
    except (OSError, UnusableError) as error:
        why = reason(error) if isinstance(error, OSError) else error
        note = f"the packed weights are not saved for the next open: {why}"
        warn_once(note)
        return note


def cache_folder() -> Path:
    """The folder of the packed files; it need not exist.

    Raises:
        OSError: the user has no home folder, and no environment variable names a folder.
    """
    try:
        if root := os.environ.get("TALU_CACHE"):
            return Path(root).expanduser().absolute() / "packed"
        xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
        caches = xdg if xdg.is_absolute() else Path.home() / ".cache"
        return caches / "talu" / "packed"
    except RuntimeError as error:
        raise OSError(f"{error}; set TALU_CACHE to a folder") from error


class PackedFile(NamedTuple):
    """A file of the cache.

    Attributes:
        path: where it is.
        bytes: its size.
        sources: the files that were packed.
        formats: the number formats of the matrices.
    """

    path: Path
    bytes: int
    sources: tuple[str, ...]
    formats: tuple[str, ...]


def packed_files() -> list[PackedFile]:
    """The files of the cache that are valid."""
    found = []
    with contextlib.suppress(OSError):
        for path in sorted(cache_folder().glob("*" + SUFFIX)):
            with contextlib.suppress(OSError, UnusableError, LookupError, TypeError, ValueError):
                key = packed_file.read_key(path)
                formats = {str(kind) for kind, _ in key["layout"].values()} - {VECTOR}
                sources = tuple(str(file[0]) for file in key["source"])
                size = path.stat().st_size
                found.append(PackedFile(path, size, sources, tuple(sorted(formats))))
    return found


def path_of(key: Mapping[str, Any]) -> Path:
    """Path of the packed file of ``key``."""
    text = json.dumps(key, sort_keys=True)
    return cache_folder() / (hashlib.sha256(text.encode()).hexdigest()[:32] + SUFFIX)


def remove_outdated(spared: Path, key: Mapping[str, Any]) -> None:
    """Remove other files of this checkpoint, and those whose checkpoint has changed or is gone.

    Files that are quantised, or not, or in other formats, are kept beside each other.
    """
    source: Iterable[FileVersion] = key["source"]
    paths = {path for path, *_ in source}
    for path in set(spared.parent.glob("*" + SUFFIX)) - {spared}:
        try:
            found = packed_file.read_key(path)
            theirs = found["source"]
            current = theirs and all(version_of(Path(file[0])) == tuple(file) for file in theirs)
            alike = key.get("quantizer", [])[:1] == found.get("quantizer", [])[:1]
            outdated = not current or (alike and paths == {file[0] for file in theirs})
        except (OSError, UnusableError, LookupError, TypeError, ValueError):
            outdated = True
        if outdated:
            with contextlib.suppress(OSError):
                path.unlink()


@functools.cache
def warn_once(note: str) -> None:
    """Log ``note`` the first time."""
    logger.warning(note)
