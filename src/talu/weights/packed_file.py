"""Writes and reads the file that stores packed weights between runs.

It consists of a header (magic, layout, size and SHA-256 of the table, size of the file), the table
as JSON (key, slot and sampled checksum of every tensor), and the page-aligned data, in which each
tensor starts at a multiple of 64 bytes. A file that fails any check is not used. The reasons are in
docs/decisions/0002-packed-weight-cache.md.
"""

import contextlib
import fcntl
import hashlib
import json
import mmap
import os
import stat
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from talu.error_text import shown
from talu.exceptions import ResourceError
from talu.first_use import loaded

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "Slot",
    "UnusableError",
    "aligned",
    "place",
    "read",
    "read_key",
    "sweep_temporaries",
    "write",
]

MAGIC = b"TALUPACK"
LAYOUT = 1
HEADER = struct.Struct("<8sIQ32sQ")  # magic, LAYOUT, bytes of the table, its SHA-256, file size
ALIGNMENT = 64
PAGE = 4096
SAMPLE = 4096  # bytes at each end of a tensor that its checksum covers
TEMPORARY = ".writing-"


class UnusableError(Exception):
    """The file is missing, damaged, of another kind, or writable by another user."""


class Slot(NamedTuple):
    """The location of a packed tensor: ``size`` bytes at ``offset`` of the data."""

    format: str
    shape: tuple[int, ...]
    offset: int
    size: int


Packed = tuple[dict[str, Slot], memoryview]  # the slots, and the data that they refer to
Check = Callable[[Mapping[str, Slot]], None]


def place(sizes: Mapping[str, tuple[str, tuple[int, ...], int]]) -> tuple[dict[str, Slot], int]:
    """Consecutive slots for tensors of (format, shape, bytes), and the total size."""
    slots, position = {}, 0
    for name, (kind, shape, size) in sizes.items():
        slots[name] = Slot(kind, shape, position, size)
        position = round_up(position + size, ALIGNMENT)
    return slots, position


def aligned(size: int) -> "NDArray[np.uint8]":
    """``size`` bytes of private memory, aligned to 64 bytes.

    Raises:
        ResourceError: there is not enough memory.
    """
    try:
        block: NDArray[np.uint8] = loaded("numpy", "empty")(size + ALIGNMENT, "u1")
    except MemoryError as error:
        raise ResourceError(
            f"there is not enough memory for {size / 1e9:.1f} GB of weights; use_mmap=True shares "
            "them with other processes"
        ) from error
    start = -block.ctypes.data % ALIGNMENT
    return block[start : start + size]


def write(
    path: Path,
    key: Mapping[str, Any],
    slots: Mapping[str, Slot],
    fill: Callable[[str, "NDArray[np.uint8]"], None],
    *,
    use_mmap: bool,
) -> Packed:
    """Write the file beside ``path``, sync it to disk, and move it into place atomically.

    Args:
        path: its folder must exist. Readers see the old file or the complete new one.
        key: identifies the content, in JSON types; ``read`` needs the same key.
        slots: from ``place``.
        fill: called with a name and the bytes to fill, for each tensor in turn.
        use_mmap: see ``read``.

    Returns:
        the result of ``read`` for this file, even if another process has replaced it since.

    Raises:
        OSError: the file cannot be written; nothing is left behind.
        UnusableError: the written file fails the checks of ``read``.
    """
    buffer = aligned(max(slot.size for slot in slots.values()))
    checks = dict.fromkeys(slots, "0" * 8)  # placeholders, so that the size of the table is known
    start = data_start(len(encode(key, slots, checks)))
    file_size = start + max(slot.offset + slot.size for slot in slots.values())
    fd, temporary = locked_temporary(path.parent)
    try:
        for name, slot in slots.items():
            fill(name, buffer[: slot.size])
            checks[name] = sampled_checksum(buffer[: slot.size].data)
            write_at(fd, buffer[: slot.size].data, start + slot.offset)
        table = encode(key, slots, checks)
        digest = hashlib.sha256(table).digest()
        header = HEADER.pack(MAGIC, LAYOUT, len(table), digest, file_size)
        write_at(fd, memoryview(header + table), 0)
        os.fchmod(fd, 0o400)  # truncating a mapped file kills its readers
        os.fsync(fd)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.rmdir()  # an empty folder at this path
        os.replace(temporary, path)
        return load(fd, key, use_mmap=use_mmap)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    finally:
        os.close(fd)


def read(
    path: Path, key: Mapping[str, Any], *, use_mmap: bool, check: Check = lambda slots: None
) -> Packed:
    """The slots of a packed file, and its read-only data, aligned to 64 bytes.

    Args:
        path: the file.
        key: the key that was given to ``write``.
        use_mmap: map the file, shared with other processes; otherwise read it into private memory.
        check: raises ``UnusableError`` for slots that are not what the caller needs.

    Raises:
        UnusableError: there is no valid file of that key, or another user can write to it.
    """
    with opened(path) as fd:
        return load(fd, key, use_mmap=use_mmap, check=check)


def load(
    fd: int, key: Mapping[str, Any], *, use_mmap: bool, check: Check = lambda slots: None
) -> Packed:
    """Implements ``read`` for an open file."""
    table, start, file_size = read_table(fd)
    if table["key"] != key:
        raise UnusableError("it was made for another key")
    slots, checksums = slots_of(table, file_size - start)
    check(slots)
    if use_mmap:
        whole = mmap.mmap(fd, file_size, access=mmap.ACCESS_READ)
        data = memoryview(whole)[start:]
    else:
        data = aligned(file_size - start).data
        read_at(fd, data, start)
    for name, slot in slots.items():
        if sampled_checksum(data[slot.offset : slot.offset + slot.size]) != checksums[name]:
            raise UnusableError(f"the bytes of {shown(name)} are damaged")
    return slots, data


def slots_of(table: Mapping[str, Any], room: int) -> tuple[dict[str, Slot], dict[str, str]]:
    """The slots and checksums in a table; the slots must be placed as by ``place``.

    Raises:
        UnusableError: an entry is malformed, or the slots do not fill ``room`` bytes of data.
    """
    sizes, slots, checksums = {}, {}, {}
    try:
        for name, (kind, shape, offset, size, checksum) in table["tensors"].items():
            numbers = (*shape, offset, size)
            if type(kind) is not str or any(type(n) is not int or n < 0 for n in numbers):
                raise UnusableError(f"the entry of {shown(name)} is damaged")
            slots[name] = Slot(kind, tuple(shape), offset, size)
            sizes[name] = (kind, tuple(shape), size)
            checksums[name] = checksum
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UnusableError("its table is malformed") from error
    if place(sizes)[0] != slots or max(s.offset + s.size for s in slots.values()) != room:
        raise UnusableError("its tensors are not consecutive")
    return slots, checksums


def read_key(path: Path) -> dict[str, Any]:
    """The key that the file at ``path`` was written with.

    Raises:
        UnusableError: it is not a valid packed file.
    """
    with opened(path) as fd:
        return dict(read_table(fd)[0]["key"])


def locked_temporary(folder: Path) -> tuple[int, str]:
    """A new file, open for reading and writing, whose lock shows that its writer is running."""
    while True:
        fd, temporary = loaded("tempfile", "mkstemp")(dir=folder, prefix=TEMPORARY)
        with contextlib.suppress(OSError):  # without file locks, temporary files are not removed
            fcntl.flock(fd, fcntl.LOCK_EX)
        if os.path.exists(temporary):  # it was not removed before it was locked
            return fd, temporary
        os.close(fd)


def sweep_temporaries(folder: Path) -> None:
    """Remove the temporary files of killed writers."""
    for path in folder.glob(TEMPORARY + "*"):
        with contextlib.suppress(OSError, UnusableError), opened(path) as fd:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    """Descriptor of a file that only this user or root can write."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise UnusableError(f"{error.strerror}: {path}") from error
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise UnusableError("not a regular file")
        if status.st_uid not in (os.geteuid(), 0) or status.st_mode & 0o022:
            raise UnusableError("another user can write to it")
        yield fd
    finally:
        os.close(fd)


def read_table(fd: int) -> tuple[dict[str, Any], int, int]:
    """The validated table, the offset of the data, and the size of the file."""
    size = os.fstat(fd).st_size
    header = bytearray(HEADER.size)
    if size < HEADER.size:
        raise UnusableError("it is cut short")
    read_at(fd, memoryview(header), 0)
    magic, layout, length, digest, file_size = HEADER.unpack(header)
    if (magic, layout) != (MAGIC, LAYOUT):
        raise UnusableError("it is of another kind or version")
    if size != file_size or data_start(length) > size:
        raise UnusableError("it is cut short or damaged")
    text = bytearray(length)
    read_at(fd, memoryview(text), HEADER.size)
    if hashlib.sha256(text).digest() != digest:
        raise UnusableError("its table is damaged")
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnusableError("its table is malformed") from error
    if not isinstance(table, dict) or not all(
        isinstance(table.get(part), dict) and table[part] for part in ("key", "tensors")
    ):
        raise UnusableError("its table is malformed")
    return table, data_start(length), size


def encode(key: Mapping[str, Any], slots: Mapping[str, Slot], checks: Mapping[str, str]) -> bytes:
    """The table as JSON; its length does not depend on the checksums."""
    tensors = {name: [*slot, checks[name]] for name, slot in slots.items()}
    return json.dumps({"key": key, "tensors": tensors}).encode()


def sampled_checksum(data: memoryview) -> str:
    """CRC-32 of both ends of ``data``: a cheap check for lost pages and mixed-up files."""
    return f"{zlib.crc32(data[-SAMPLE:], zlib.crc32(data[:SAMPLE])):08x}"


def data_start(table_length: int) -> int:
    """Offset of the data: the first page after header and table."""
    return round_up(HEADER.size + table_length, PAGE)


def round_up(size: int, multiple: int) -> int:
    """``size`` rounded up to a multiple."""
    return -(-size // multiple) * multiple


def write_at(fd: int, data: memoryview, offset: int) -> None:
    """Write all of ``data``; a single system call may write less."""
    while data:
        count = os.pwrite(fd, data, offset)
        data, offset = data[count:], offset + count


def read_at(fd: int, data: memoryview, offset: int) -> None:
    """Read until ``data`` is full."""
    while data:
        count = os.preadv(fd, [data], offset)
        if count == 0:
            raise UnusableError("it is cut short")
        data, offset = data[count:], offset + count
