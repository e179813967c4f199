"""Plans and writes a GGUF file, tensor by tensor."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from talu.conversion.calibrated import Factor, unknown
from talu.conversion.numbers import Encoder, row_step
from talu.gguf.writer import Entry, Layout, Typed, place
from talu.weights.files import Bytes
from talu.weights.tensors import ARRAY_TYPES, BLOCKS, ENCODINGS, NUMBERS, Tensor

__all__ = ["FileTensor", "GgufPlan", "vector"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTensor:
    """A tensor that will be written.

    Attributes:
        name: in the file.
        type: its name in ``talu.gguf.encodings.TYPES``.
        tensor: its numbers, with the rows in the order of the file.
        weight: its name in the network; None if the network does not read it.
    """

    name: str
    type: str
    tensor: Tensor
    weight: str | None = None

    @property
    def entry(self) -> Entry:
        """What the header says about it."""
        return Entry(name=self.name, type=self.type, shape=self.tensor.shape)

    def rows(self, encoder: Encoder, factor: Factor) -> Iterator[Bytes]:
        """What is stored for some rows, one after the other.

        Raises:
            TaluError: they cannot be read, or have numbers that the type cannot hold.
        """
        tensor, step, known = self.tensor, row_step(self.tensor), None
        if self.type not in ARRAY_TYPES and self.weight is not None:
            known = factor(self.weight)
        for first in range(0, tensor.rows, step):
            last = min(first + step, tensor.rows)
            if self.type in ARRAY_TYPES:
                yield np.ascontiguousarray(encoder.floats(tensor, self.type, first, last))
            else:
                yield encoder.codes(tensor, self.type, first, last, known)[BLOCKS]


class GgufPlan:
    """A GGUF file; see ``Plan``."""

    def __init__(
        self,
        metadata: Mapping[str, Typed],
        tensors: Sequence[FileTensor],
        notes: Sequence[str],
        factor: Factor = unknown,
    ) -> None:
        """Plan a file.

        Args:
            metadata: values by key.
            tensors: in the order of the network.
            notes: see ``Plan``.
            factor: gives that of the inputs of a weight, if it is known.
        """
        self._notes = tuple(notes)
        self._encoder = Encoder()
        self._factor = factor
        self._tensors = tensors
        self._metadata = metadata

    @property
    def notes(self) -> Sequence[str]:
        """See ``Plan``."""
        return (*self._notes, *self._encoder.notes())

    @property
    def size(self) -> int:
        """See ``Plan``."""
        return self._layout.size

    @property
    def tensor_bytes(self) -> int:
        """See ``Plan``."""
        return sum(each.entry.bytes for each in self._tensors)

    @property
    def parameters(self) -> int:
        """See ``Plan``."""
        return sum(prod(each.tensor.shape) for each in self._tensors)

    def write(self, path: Path, add: Callable[[int], None]) -> None:
        """See ``Plan``."""
        with path.open("xb") as file:
            file.write(self._layout.header)
            add(len(self._layout.header))
            for each, start in zip(self._tensors, self._layout.starts, strict=True):
                file.write(bytes(start - file.tell()))  # up to the alignment
                for rows in each.rows(self._encoder, self._factor):
                    file.write(rows.data)
                    add(rows.size)
            file.write(bytes(self._layout.size - file.tell()))

    @cached_property
    def _layout(self) -> Layout:
        return place(self._metadata, [each.entry for each in self._tensors])


def vector(name: str, numbers: NDArray[np.float32]) -> Tensor:
    """A tensor with these numbers."""
    row = numbers.view(np.uint8).reshape(1, -1)
    return Tensor(
        name=name,
        file="the converted model",
        shape=numbers.shape,
        encoding=ENCODINGS["F32"],
        parts={NUMBERS: MemoryRows(row)},
    )


@dataclass(frozen=True, slots=True)
class MemoryRows:
    """Rows in memory; see ``Rows``."""

    data: Bytes

    @property
    def count(self) -> int:
        """Number of rows."""
        return len(self.data)

    @property
    def width(self) -> int:
        """Bytes of a row."""
        return int(self.data.shape[1])

    def read(self, start: int, stop: int) -> Bytes:
        """See ``Rows.read``."""
        return self.data[start:stop]
