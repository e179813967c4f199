"""Reads the header of a GGUF file: metadata and the places of the tensors.

Everything that the header claims is compared with the size of the file before it is used, so a
damaged or hostile file is refused in time and memory that are proportional to its size.
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import struct
from collections.abc import Mapping, Sequence
from math import prod
from typing import NamedTuple

from talu._native import Texts
from talu.error_text import shown
from talu.exceptions import ModelError
from talu.gguf.encodings import TYPES
from talu.weights.files import OpenFile

__all__ = [
    "ALIGNMENT",
    "ARRAY",
    "DEFAULT_ALIGNMENT",
    "MAGIC",
    "NUMBERS",
    "STRING",
    "Header",
    "Metadata",
    "TensorInfo",
    "Value",
    "read_header",
]

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = "general.alignment"
DEFAULT_ALIGNMENT = 32
MAX_ALIGNMENT = 1 << 16
MAX_HEADER = 1 << 27  # bytes; the largest known have 16 MB
MAX_NAME = (1 << 16) - 1  # bytes of a key or of a tensor's name
MAX_DIMENSIONS = 4
MAX_ELEMENTS = (1 << 63) - 1  # of a tensor
MIN_ENTRY = 8 + 4 + 1  # bytes of the smallest entry of metadata
MIN_TENSOR = 8 + 4 + 4 + 8  # bytes of the smallest entry of a tensor
FIRST_READ = 1 << 16  # bytes; half as many more as long as the header continues

STRING, ARRAY, BOOL = 8, 9, 7
NUMBERS = {  # types of values with a fixed size, as ``struct`` names them
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", BOOL: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip

Scalar = bool | int | float | str
# an array of texts that was read is ``Texts``, one of numbers cannot be changed
Value = Scalar | Sequence[str] | memoryview
Metadata = Mapping[str, Value]

_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


class TensorInfo(NamedTuple):
    """Where a tensor is and how it is stored.

    Attributes:
        type: its name in ``TYPES``.
        shape: in C order, so that the last dimension counts the numbers of a row. GGUF has the
            reverse.
        start, end: its bytes in the file.
    """

    type: str
    shape: tuple[int, ...]
    start: int
    end: int


class Header(NamedTuple):
    """The header of a file.

    Attributes:
        metadata: values by key.
        types: numbers of the types of these values.
        tensors: the tensors of this file by name.
    """

    metadata: Metadata
    types: Mapping[str, int]
    tensors: Mapping[str, TensorInfo]


def read_header(file: OpenFile) -> Header:
    """Read and check the header of an open file.

    Raises:
        ModelError: it is not a GGUF file that talu can read; the message says what is wrong.
    """
    cursor = _Cursor(file)
    _check_version(cursor)
    tensors, entries = cursor.u64(), cursor.u64()
    for count, smallest, what in ((entries, MIN_ENTRY, "values"), (tensors, MIN_TENSOR, "tensors")):
        if count * smallest > file.size:
            raise cursor.damaged(f"it claims {count} {what}, but has only {file.size} bytes")
    metadata: dict[str, Value] = {}
    types: dict[str, int] = {}
    for _ in range(entries):
        key = cursor.name("a key")
        if not key or key in metadata:
            raise cursor.damaged(f"the key {shown(key)} {'occurs twice' if key else 'is empty'}")
        types[key], metadata[key] = _value(cursor, key)
    places = _tensors(cursor, tensors, _alignment(cursor, metadata))
    return Header(metadata, types, places)


class _Cursor:
    """A position in the header, of which only as much is read as is needed."""

    def __init__(self, file: OpenFile) -> None:
        self.file = file
        self.data = b""
        self.at = 0

    def need(self, size: int, what: str) -> int:
        """Make ``size`` bytes available and move past them; return where they begin.

        Raises:
            ModelError: the file is shorter, or the header longer than any known one.
        """
        start, end = self.at, self.at + size
        if end > len(self.data):
            if end > self.file.size:
                raise self.damaged(
                    f"it ends inside {what}: {size} bytes at {start} are needed, but it has "
                    f"{self.file.size}; the download or copy may be incomplete"
                )
            if end > MAX_HEADER:
                raise self.damaged(f"its header has more than {MAX_HEADER} bytes")
            self.expect(end + end // 2)
        self.at = end
        return start

    def expect(self, size: int) -> None:
        """Read the first ``size`` bytes of the file, or as many as a header can have."""
        wanted = min(max(size, FIRST_READ), MAX_HEADER, self.file.size)
        if wanted > len(self.data):
            self.data = self.file.content(0, wanted)

    def u32(self, what: str = "its header") -> int:
        """An unsigned 32-bit number."""
        start = self.need(4, what)  # may read more data
        number: int = _U32.unpack_from(self.data, start)[0]
        return number

    def u64(self, what: str = "its header") -> int:
        """An unsigned 64-bit number."""
        start = self.need(8, what)
        number: int = _U64.unpack_from(self.data, start)[0]
        return number

    def text(self, what: str, most: int = MAX_HEADER) -> str:
        """A text with its length before it."""
        length = self.u64(what)
        if length > most:
            raise self.damaged(f"{what} claims {length} bytes; the maximum is {most}")
        start = self.need(length, what)
        try:
            return self.data[start : start + length].decode()
        except UnicodeDecodeError as error:
            raise self.damaged(f"{what} is not valid UTF-8: {error.reason}") from error

    def name(self, what: str) -> str:
        """A key or the name of a tensor."""
        return self.text(what, MAX_NAME)

    def damaged(self, why: str) -> ModelError:
        """The error for a file that cannot be read."""
        return ModelError(f"{self.file.path} is not a valid GGUF file: {why}")


def _check_version(cursor: _Cursor) -> None:
    start = cursor.need(4, "its first bytes")
    magic = cursor.data[start : start + 4]
    if magic != MAGIC:
        raise cursor.damaged(f"it begins with {magic!r} instead of {MAGIC!r}")
    version = cursor.u32()
    if version in VERSIONS:
        return
    if version == 1:
        raise cursor.damaged(
            "it has version 1, which is not supported; download a newer conversion of the model, "
            "or convert it again"
        )
    swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
    if swapped in (1, *VERSIONS):
        raise cursor.damaged(
            "it is big-endian, which is not supported; download the little-endian file"
        )
    raise cursor.damaged(f"it has version {version}; supported are versions 2 and 3")


def _value(cursor: _Cursor, key: str) -> tuple[int, Value]:
    """The value of a key, after the number of its type."""
    what = f"the value of {shown(key)}"
    kind = cursor.u32(what)
    if kind == STRING:
        return kind, cursor.text(what)
    if kind == ARRAY:
        return kind, _array(cursor, what)
    if kind not in NUMBERS:
        raise cursor.damaged(f"{what} has type {kind}, which does not exist")
    value: Scalar = _numbers(cursor, kind, 1, what)[0]
    return kind, value


def _array(cursor: _Cursor, what: str) -> Value:
    kind, count = cursor.u32(what), cursor.u64(what)
    if kind == STRING:
        return _texts(cursor, count, what)
    if kind == ARRAY:
        raise cursor.damaged(f"{what} is an array of arrays, which is not supported")
    if kind not in NUMBERS:
        raise cursor.damaged(f"{what} is an array of type {kind}, which does not exist")
    return _numbers(cursor, kind, count, what)


def _numbers(cursor: _Cursor, kind: int, count: int, what: str) -> memoryview:
    start = cursor.need(count * struct.calcsize(NUMBERS[kind]), what)
    if kind == BOOL and cursor.data[start : cursor.at].strip(b"\0\1"):
        raise cursor.damaged(f"{what} is neither true nor false")
    data = cursor.data[start : cursor.at]  # a copy, so that the header can be released
    numbers: memoryview = memoryview(data).cast(NUMBERS[kind])  # type: ignore[call-overload]
    return numbers


def _texts(cursor: _Cursor, count: int, what: str) -> Texts:
    """An array of texts: a vocabulary can have a million."""
    if count * 8 > cursor.file.size - cursor.at:
        raise cursor.damaged(f"{what} claims {count} texts, but the file ends before")
    start = cursor.at
    while True:
        texts, read, cursor.at = Texts.read(cursor.data, start, count)
        if read == count:
            return texts
        at = cursor.at
        if read:
            cursor.expect(start + (at - start) * count // read * 3 // 2)  # the rest may be longer
        size = cursor.u64(what)
        text = cursor.need(size, what)
        try:
            cursor.data[text : cursor.at].decode()
        except UnicodeDecodeError as error:
            place = f"text {read} of {what}"
            raise cursor.damaged(f"{place} is not valid UTF-8: {error.reason}") from error
        assert cursor.at > at  # the header has been read further, so there are more texts now


def _alignment(cursor: _Cursor, metadata: Metadata) -> int:
    value = metadata.get(ALIGNMENT, DEFAULT_ALIGNMENT)
    if type(value) is not int or not 0 < value <= MAX_ALIGNMENT or value & (value - 1):
        limits = f"a power of two up to {MAX_ALIGNMENT}"
        raise cursor.damaged(f"{ALIGNMENT} is {shown(value)}, expected {limits}")
    return value


def _tensors(cursor: _Cursor, count: int, alignment: int) -> dict[str, TensorInfo]:
    """The entries of the tensors, whose offsets count from the end of the header, aligned."""
    entries: dict[str, tuple[str, tuple[int, ...], int]] = {}
    for _ in range(count):
        name = cursor.name("the name of a tensor")
        if name in entries:
            raise cursor.damaged(f"the tensor {shown(name)} occurs twice")
        entries[name] = _entry(cursor, f"tensor {shown(name)}")
    data = -(-cursor.at // alignment) * alignment
    tensors = {}
    for name, (kind, shape, offset) in entries.items():
        if offset % alignment:
            raise cursor.damaged(
                f"tensor {shown(name)} is at offset {offset}, not a multiple of {alignment}"
            )
        columns, size = TYPES[kind].columns, TYPES[kind].bytes
        end = data + offset + prod(shape) // columns * size
        if end > cursor.file.size:
            raise cursor.damaged(
                f"tensor {shown(name)} ends at byte {end}, the file at {cursor.file.size}; the "
                "download or copy may be incomplete"
            )
        tensors[name] = TensorInfo(kind, shape, data + offset, end)
    _check_overlaps(cursor, tensors)
    return tensors


def _entry(cursor: _Cursor, what: str) -> tuple[str, tuple[int, ...], int]:
    """Type, shape and offset of a tensor."""
    dimensions = cursor.u32(what)
    if dimensions > MAX_DIMENSIONS:
        raise cursor.damaged(f"{what} has {dimensions} dimensions; at most 4 are possible")
    shape = tuple(cursor.u64(what) for _ in range(dimensions))[::-1]
    if not 0 < prod(shape) <= MAX_ELEMENTS:
        raise cursor.damaged(f"{what} has shape {shape}, which is empty or too large")
    number, offset = cursor.u32(what), cursor.u64(what)
    kind = next((name for name, kind in TYPES.items() if kind.number == number), None)
    if kind is None:
        raise cursor.damaged(
            f"{what} has type {number}, which is unknown; known are {', '.join(TYPES)}"
        )
    columns = shape[-1] if shape else 1
    if columns % TYPES[kind].columns:
        raise cursor.damaged(
            f"{what} has rows of {columns} numbers, but {kind} stores blocks of "
            f"{TYPES[kind].columns}"
        )
    return kind, shape, offset


def _check_overlaps(cursor: _Cursor, tensors: Mapping[str, TensorInfo]) -> None:
    position = 0
    for name, info in sorted(tensors.items(), key=lambda item: item[1].start):
        if info.start < position:
            raise cursor.damaged(f"tensor {shown(name)} overlaps another one")
        position = info.end
