"""Defines logical tensors: numbers with a shape, in the encoding and place where a file has them.

Sources of models make them, and executors read them to pack them in a layout of their own.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from talu.exceptions import ModelError
from talu.first_use import loaded
from talu.weights.files import Bytes, OpenFile

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "ARRAY_TYPES",
    "BLOCKS",
    "ENCODINGS",
    "NUMBERS",
    "Encoding",
    "FileRows",
    "Rows",
    "Tensor",
    "UnequalError",
]

NUMBERS = "numbers"  # the part of an encoding that has only one
BLOCKS = "blocks"  # the part of an encoding whose blocks hold codes and scales together
ARRAY_TYPES = {"F32": "<f4", "F16": "<u2", "BF16": "<u2"}  # 16-bit floats as their raw bits


class UnequalError(Exception):
    """Two tensors that must be equal are not."""


class Encoding(NamedTuple):
    """How files store the numbers of a row: in blocks of neighbouring columns.

    Attributes:
        name: in capitals, as files and their specifications write it.
        columns: numbers in a block.
        parts: bytes of a block in each part of the tensor, such as codes and scales. Empty if talu
            cannot read the encoding, or if it has no blocks of neighbouring columns.
    """

    name: str
    columns: int = 1
    parts: Mapping[str, int] = MappingProxyType({})


ENCODINGS: Mapping[str, Encoding] = {  # those that talu reads
    name: Encoding(name, 1, {NUMBERS: size}) for name, size in (("F32", 4), ("F16", 2), ("BF16", 2))
}


class Rows(Protocol):
    """The bytes of a part of a tensor, row by row, in the order in which the network has them."""

    @property
    def count(self) -> int:
        """Number of rows."""

    @property
    def width(self) -> int:
        """Bytes of a row."""

    def read(self, start: int, stop: int) -> Bytes:
        """Rows ``start`` to ``stop`` - 1: an array (rows, width), contiguous and read-only or own.

        Only what these rows need is read.

        Raises:
            ModelError: the file cannot be read.
        """


class FileRows:
    """Rows that lie one after the other in a file, from byte ``start``."""

    __slots__ = ("count", "file", "start", "width")

    def __init__(self, file: OpenFile, start: int, count: int, width: int) -> None:
        """Say where they are."""
        self.file, self.start = file, start
        self.count, self.width = count, width

    def read(self, start: int, stop: int) -> Bytes:
        """See ``Rows.read``."""
        data = self.file.view(self.start + start * self.width, (stop - start) * self.width)
        return data.reshape(stop - start, self.width)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """A logical tensor, whose rows can be read without loading it.

    A row is what the last dimension counts; a vector is one row.

    Attributes:
        name: in its file.
        file: the file, for messages.
        shape: the dimensions that the network reads, whatever the encoding.
        parts: by the names in ``encoding.parts``.
        floats: the numbers as float32, computed as they are read, for executors that cannot store
            the encoding; None if only those that can may use the tensor.
        stored_bytes: bytes in the file if the encoding has no blocks; otherwise the parts show it.
    """

    name: str
    file: str
    shape: tuple[int, ...]
    encoding: Encoding
    parts: Mapping[str, Rows]
    floats: Rows | None = None
    stored_bytes: int = 0

    def __post_init__(self) -> None:
        """Check that the parts hold as many blocks as the shape needs.

        Raises:
            ModelError: a part is missing or has another size.
        """
        if self.columns % self.encoding.columns:
            raise self.error(
                f"has rows of {self.columns} numbers, but {self.encoding.name} stores blocks of "
                f"{self.encoding.columns}"
            )
        blocks = self.columns // self.encoding.columns
        needed = {name: (self.rows, blocks * size) for name, size in self.encoding.parts.items()}
        found = {name: (part.count, part.width) for name, part in self.parts.items()}
        if needed != found:
            raise self.error(f"has parts of (rows, bytes) {found}, but needs {needed}")

    @property
    def rows(self) -> int:
        """Number of rows."""
        return prod(self.shape[:-1])

    @property
    def columns(self) -> int:
        """Numbers in a row."""
        return self.shape[-1] if self.shape else 1

    @property
    def bytes(self) -> int:
        """Bytes in the file."""
        return sum(part.count * part.width for part in self.parts.values()) or self.stored_bytes

    def some_rows(self, start: int, stop: int) -> "Tensor":
        """Rows ``start`` to ``stop`` - 1 of a matrix, read when they are needed."""
        parts = {name: _SomeRows(rows, start, stop - start) for name, rows in self.parts.items()}
        return replace(self, shape=(stop - start, self.columns), parts=parts)

    def array(self) -> "NDArray[Any]":
        """All numbers as float32, or as uint16 raw bits if they are F16 or BF16.

        Returns:
            a C-contiguous, aligned, little-endian array of the tensor's shape: a view of its file
            where that is possible, otherwise a copy.

        Raises:
            ModelError: it has another encoding, or the file cannot be read.
        """
        array: NDArray[Any] = loaded("talu.weights.numbers", "array_of")(self)
        return array

    def unreadable(self, supported: Iterable[str]) -> ModelError:
        """The error for an encoding other than the supported ones."""
        return self.error(
            f"has type {self.encoding.name[:40]}; supported are {', '.join(supported)}"
        )

    def error(self, what: str) -> ModelError:
        """An error about this tensor, to be raised."""
        return ModelError(f"{self.file}: tensor {self.name[:100]!r} {what}")


class _SomeRows:
    """Some consecutive rows of others."""

    __slots__ = ("count", "rows", "start", "width")

    def __init__(self, rows: Rows, start: int, count: int) -> None:
        self.rows, self.start = rows, start
        self.count, self.width = count, rows.width

    def read(self, start: int, stop: int) -> Bytes:
        return self.rows.read(self.start + start, self.start + stop)
