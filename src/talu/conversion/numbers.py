"""Encodes rows of a tensor in the number types of files."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from talu.exceptions import ConvertError, ModelError
from talu.weights.encode import encode_rows
from talu.weights.files import Bytes
from talu.weights.numbers import as_float32
from talu.weights.tensors import NUMBERS, Tensor

__all__ = ["CHUNK", "Encoder", "encoded", "row_step"]

CHUNK = 4 << 20  # bytes, as float32, of the rows that are encoded at once


def row_step(tensor: Tensor) -> int:
    """How many rows of a tensor are encoded at once."""
    return max(1, CHUNK // (4 * max(1, tensor.columns)))


class Encoder:
    """Encodes tensors, and counts what is lost."""

    def __init__(self) -> None:
        self._zeros: Counter[str] = Counter()  # numbers that became zero, by tensor

    def floats(self, tensor: Tensor, kind: str, start: int, stop: int) -> Bytes:
        """See ``encoded``."""
        return encoded(tensor, kind, start, stop, self._zeros)

    def codes(
        self, tensor: Tensor, kind: str, start: int, stop: int, factor: NDArray[np.float32] | None
    ) -> dict[str, Bytes]:
        """Rows ``start`` to ``stop`` - 1 of a matrix in a quantised encoding, by part.

        Raises:
            ConvertError: a weight is not finite or too large.
            ModelError: the file cannot be read.
        """
        rows = as_float32(tensor.some_rows(start, stop))
        try:
            return encode_rows(kind, rows, name=tensor.name, start=start, factor=factor)
        except ModelError as error:
            raise ConvertError(
                f"{tensor.file}: {error}; convert to bf16 or f32", details={"tensor": tensor.name}
            ) from error

    def notes(self) -> Iterator[str]:
        """A note on what has been lost so far."""
        if self._zeros:
            name = next(iter(self._zeros))
            yield (
                f"{self._zeros.total()} weights that are not zero are zero in F16, which has none "
                f"below 6e-8, such as in {name!r}"
            )


def encoded(
    tensor: Tensor, kind: str, start: int, stop: int, zeros: Counter[str] | None = None
) -> Bytes:
    """Rows ``start`` to ``stop`` - 1 of a tensor in F32, F16 or BF16.

    Args:
        tensor: its encoding is one of these.
        kind: name of the type.
        start: the first row.
        stop: the row after the last.
        zeros: counts the numbers of the tensor that become zero in F16.

    Raises:
        ConvertError: F16 cannot hold a number.
        ModelError: the file cannot be read.
    """
    if tensor.encoding.name == kind:
        return tensor.parts[NUMBERS].read(start, stop)
    numbers = as_float32(tensor.some_rows(start, stop))
    if kind == "BF16":
        return _bytes(bfloat16(numbers))
    if kind == "F16":
        halves = _float16(numbers, tensor)
        lost = int(np.count_nonzero(numbers) - np.count_nonzero(halves))
        if lost and zeros is not None:
            zeros[tensor.name] += lost
        return _bytes(halves)
    return _bytes(numbers)


def bfloat16(numbers: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The bits of the nearest BF16 numbers, ties to even; NaN stays NaN."""
    bits = numbers.view(np.uint32)
    rounded = bits >> 16
    rounded &= 1
    rounded += 0x7FFF
    rounded += bits
    rounded >>= 16
    if np.isnan(numbers).any():
        rounded = np.where(np.isnan(numbers), bits >> 16 | 0x40, rounded)
    return rounded.astype(np.uint16)


def _float16(numbers: NDArray[np.float32], tensor: Tensor) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        halves = numbers.astype(np.float16)
    if not np.array_equal(np.isfinite(halves), np.isfinite(numbers)):
        largest = float(np.abs(numbers[np.isfinite(numbers)]).max())
        raise ConvertError(
            f"{tensor.file}: tensor {tensor.name[:100]!r} has the number {largest:g}, and F16 "
            "holds none above 65504; convert to bf16 or f32",
            details={"tensor": tensor.name},
        )
    return halves


def _bytes(numbers: NDArray[np.generic]) -> Bytes:
    return numbers.view(np.uint8).reshape(len(numbers), -1)
