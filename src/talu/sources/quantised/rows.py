"""Reads numbers of stored tensors, and computes rows from them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from talu.weights.files import Bytes
from talu.weights.tensors import NUMBERS, Rows, Tensor

__all__ = [
    "Computed",
    "Numbers",
    "columns_of",
    "numbers_of",
    "packed_bits",
    "transposed",
    "unpacked",
    "widened",
]

Numbers = NDArray[Any]
TYPES = {  # of NumPy; 16-bit floats as their raw bits
    "F32": "<f4", "F16": "<u2", "BF16": "<u2", "F8_E4M3": "u1", "F8_E8M0": "u1", "U8": "u1",
    "I8": "i1", "I32": "<i4", "U32": "<u4", "I64": "<i8",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Computed:
    """Rows of ``width`` bytes that a function computes; see ``talu.weights.tensors.Rows``.

    Attributes:
        compute: returns the rows ``start`` to ``stop`` - 1, as numbers of any type.
    """

    count: int
    width: int
    compute: Callable[[int, int], Numbers]

    def read(self, start: int, stop: int) -> Bytes:
        """See ``Rows.read``."""
        rows = np.ascontiguousarray(self.compute(start, stop))
        return rows.reshape(-1).view(np.uint8).reshape(stop - start, self.width)


def numbers_of(tensor: Tensor) -> Numbers:
    """All numbers of a stored tensor, in its shape; a view of the file if that is mapped.

    Raises:
        ModelError: the file cannot be read.
    """
    flat = tensor.parts[NUMBERS].read(0, tensor.rows).reshape(-1)
    return flat.view(TYPES[tensor.encoding.name]).reshape(tensor.shape)


def columns_of(tensor: Tensor, start: int, stop: int) -> Numbers:
    """The columns ``start`` to ``stop`` - 1 of a stored matrix, as rows.

    Raises:
        ModelError: the file cannot be read.
    """
    return numbers_of(tensor)[:, start:stop].T


def transposed(tensor: Tensor) -> Computed:
    """The columns of a stored matrix as rows."""
    length, count = tensor.shape
    width = length * np.dtype(TYPES[tensor.encoding.name]).itemsize
    return Computed(count, width, lambda start, stop: columns_of(tensor, start, stop))


def widened(numbers: Numbers, number_type: str) -> NDArray[np.float32]:
    """Stored floats as float32, without loss.

    Args:
        numbers: from ``numbers_of``.
        number_type: F32, F16, BF16 or F8_E8M0.
    """
    if number_type == "F8_E8M0":  # a power of two; 255 is no number
        powers = np.ldexp(np.float32(1), np.minimum(numbers, 254).astype(np.int32) - 127)
        return np.where(numbers == 255, np.float32(np.nan), powers).astype(np.float32)
    if number_type == "BF16":
        return (numbers.astype(np.uint32) << 16).view(np.float32)
    return (numbers.view(np.float16) if number_type == "F16" else numbers).astype(np.float32)


def unpacked(stream: Bytes, bits: int, count: int) -> Bytes:
    """The codes in rows of bytes that are read as one stream of bits, the lowest bits first."""
    if bits == 8:
        return stream[:, :count]
    if bits in (2, 4):
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        several = stream[:, :, None] >> shifts & np.uint8((1 << bits) - 1)
        return several.astype(np.uint8).reshape(len(stream), -1)[:, :count]
    single = np.unpackbits(stream, axis=1, count=count * bits, bitorder="little")
    rows = single.reshape(len(stream), count, bits)
    codes: Bytes = np.packbits(rows, axis=2, bitorder="little").reshape(len(stream), count)
    return codes


def packed_bits(codes: Bytes) -> Bytes:
    """Codes of 4 bits as a stream of bits; a row has an even number of them."""
    return codes[:, 0::2] | codes[:, 1::2] << np.uint8(4)


def bytes_of(numbers: Numbers) -> Bytes:
    """The bytes of each row of a matrix of numbers."""
    rows = np.ascontiguousarray(numbers)
    return rows.reshape(-1).view(np.uint8).reshape(len(rows), -1)


def repeated(rows: Rows, size: int, times: int) -> Rows:
    """Rows in which each number of ``size`` bytes stands ``times`` times."""

    def compute(start: int, stop: int) -> Numbers:
        read = rows.read(start, stop).reshape(stop - start, -1, size)
        return np.repeat(read, times, axis=1).reshape(stop - start, -1)

    return rows if times == 1 else Computed(rows.count, rows.width * times, compute)
