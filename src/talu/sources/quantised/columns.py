"""Reads codes and zero points that lie in 32-bit words, several in a word."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from talu.sources.quantised.modules import Module
from talu.sources.quantised.rows import Numbers, bytes_of, columns_of, numbers_of, unpacked
from talu.sources.settings import Settings
from talu.weights.tensors import Tensor

__all__ = ["group_order", "read_group_size", "stream_of_columns", "zeros_of_columns"]

Compute = Callable[[int, int], Numbers]


def read_group_size(section: Settings, key: str, *, default: int | None = None) -> int:
    """Columns of a group; -1 for all columns of the matrix.

    Raises:
        ModelError: it is missing or out of range.
    """
    size = section.integer(key, -1, 2**20, default=default)
    if size == 0:
        raise section.error(key, "is 0; expected a number of columns, or -1 for all of a row")
    return size


def stream_of_columns(stored: Tensor) -> Compute:
    """The codes of a matrix that is stored with its columns as rows, as streams of bits."""
    return lambda start, stop: bytes_of(columns_of(stored, start, stop))


def zeros_of_columns(stored: Tensor, bits: int, count: int, more: int) -> Compute:
    """Zero points that are stored with one row for each group; ``more`` is added to each."""

    def compute(start: int, stop: int) -> Numbers:
        codes = unpacked(bytes_of(numbers_of(stored)), bits, count)[:, start:stop].T
        zeros = codes.astype(np.int32) + more
        if zeros.size and zeros.max() > 255:
            raise stored.error("has a zero point of 256; the codes of 8 bits end at 255")
        return zeros.astype(np.uint8)

    return compute


def group_order(
    module: Module, word: str, columns: int, groups: int, size: int
) -> NDArray[np.int32] | None:
    """The group of each column; None if the groups are ``size`` neighbouring columns.

    Raises:
        ModelError: the tensor has another type or shape, or names a group that does not exist.
    """
    if word not in module.tensors:
        return None
    stored = module.shaped(word, ["I32", "I64"], (columns,))
    order = numbers_of(stored)
    if order.min() < 0 or order.max() >= groups:
        raise stored.error(
            f"names groups from {order.min()} to {order.max()}; the module has {groups}, from 0"
        )
    if np.array_equal(order, np.arange(columns) // size):
        return None
    return order.astype(np.int32)
