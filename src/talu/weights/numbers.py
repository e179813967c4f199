"""Reads the numbers of tensors as arrays of NumPy, and compares them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from talu.weights.tensors import ARRAY_TYPES, NUMBERS, Rows, Tensor, UnequalError

__all__ = ["array_of", "as_float32", "check_equal", "equal"]

CHUNK = 1 << 24  # bytes compared at once


def array_of(tensor: Tensor) -> NDArray[Any]:
    """Implements ``Tensor.array``."""
    if tensor.encoding.name not in ARRAY_TYPES:
        raise tensor.unreadable(ARRAY_TYPES)
    data = tensor.parts[NUMBERS].read(0, tensor.rows).reshape(-1)
    flat = data.view(ARRAY_TYPES[tensor.encoding.name])
    return np.require(flat, requirements="A").reshape(tensor.shape)


def as_float32(tensor: Tensor) -> NDArray[np.float32]:
    """The numbers of a tensor as float32, without loss.

    Raises:
        ModelError: it is not F32, F16 or BF16, or the file cannot be read.
    """
    array = tensor.array()
    if tensor.encoding.name == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    kind = np.float16 if tensor.encoding.name == "F16" else np.float32
    return array.view(kind).astype(np.float32)


def check_equal(one: Tensor, other: Tensor) -> None:
    """Check that two tensors are equal.

    Raises:
        UnequalError: they are not.
        ModelError: a file cannot be read.
    """
    if not equal(one, other):
        raise UnequalError(f"tensors {one.name!r} and {other.name!r} in {one.file} differ")


def equal(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same encoding, shape and bits.

    Raises:
        ModelError: a file cannot be read.
    """
    if one.encoding != other.encoding or one.shape != other.shape:
        return False
    if not one.parts and one.floats is not None and other.floats is not None:
        return _equal_rows(one.floats, other.floats)
    return all(_equal_rows(part, other.parts[name]) for name, part in one.parts.items())


def _equal_rows(one: Rows, other: Rows) -> bool:
    step = max(1, CHUNK // max(1, one.width))
    return all(
        np.array_equal(one.read(start, stop), other.read(start, stop))
        for start in range(0, one.count, step)
        for stop in [min(start + step, one.count)]
    )
