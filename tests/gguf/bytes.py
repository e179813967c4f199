"""Writes GGUF headers byte by byte, so that each number can be wrong."""

import struct
from collections.abc import Sequence
from pathlib import Path

from talu.gguf.header import Metadata
from talu.gguf.reader import open_gguf


def u32(number: int) -> bytes:
    return struct.pack("<I", number)


def u64(number: int) -> bytes:
    return struct.pack("<Q", number)


def text(value: str | bytes, length: int | None = None) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return u64(len(data) if length is None else length) + data


def entry(key: str | bytes, kind: int, value: bytes) -> bytes:
    return text(key) + u32(kind) + value


def array(key: str, kind: int, count: int, values: bytes) -> bytes:
    return entry(key, 9, u32(kind) + u64(count) + values)


def tensor(
    name: str, shape: Sequence[int] = (2,), kind: int = 0, offset: int = 0, dimensions: int = -1
) -> bytes:
    """An entry; ``shape`` is in the order of the file."""
    count = len(shape) if dimensions < 0 else dimensions
    sizes = b"".join(map(u64, shape))
    return text(name) + u32(count) + sizes + u32(kind) + u64(offset)


def whole(
    entries: Sequence[bytes] = (),
    tensors: Sequence[bytes] = (),
    data: bytes = b"",
    *,
    magic: bytes = b"GGUF",
    version: bytes = u32(3),
    counts: tuple[int, int] | None = None,
    alignment: int = 32,
) -> bytes:
    """A file; ``counts`` are the claimed numbers of tensors and values."""
    numbers = (len(tensors), len(entries)) if counts is None else counts
    header = magic + version + u64(numbers[0]) + u64(numbers[1])
    header += b"".join(entries) + b"".join(tensors)
    return header + bytes(-len(header) % alignment) + data


def metadata_of(path: Path) -> Metadata:
    """The metadata of a file's model."""
    model = open_gguf(path, use_mmap=False)
    with model.tensors:
        return model.metadata
