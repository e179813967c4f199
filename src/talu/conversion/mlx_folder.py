"""Writes a folder for mlx-lm, tensor by tensor."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from talu.conversion.calibrated import Factor
from talu.conversion.numbers import Encoder, row_step
from talu.exceptions import ModelError
from talu.weights.files import Bytes, OpenFile
from talu.weights.safetensors_writer import Planned, SafetensorsWriter, folder_bytes
from talu.weights.tensors import Tensor

__all__ = ["GROUP", "MlxMatrix", "MlxPlan", "MlxTensor"]

GROUP = 64  # columns with the same scale and minimum
METADATA = {"format": "mlx"}
CHUNK = 1 << 24  # bytes of a file that are copied at once


@dataclass(frozen=True, slots=True, kw_only=True)
class MlxTensor:
    """A tensor that will be written.

    Attributes:
        name: in the folder.
        type: of its numbers.
        tensor: its numbers.
    """

    name: str
    type: str
    tensor: Tensor

    def planned(self) -> dict[str, Planned]:
        """What is stored for it."""
        return {self.name: Planned(self.type, self.tensor.shape)}

    def rows(self, encoder: Encoder, factor: Factor) -> Iterator[dict[str, Bytes]]:
        """What is stored for some rows, one after the other; ``factor`` is not needed.

        Raises:
            TaluError: they cannot be read, or have numbers that the type cannot hold.
        """
        step = row_step(self.tensor)
        for first in range(0, self.tensor.rows, step):
            last = min(first + step, self.tensor.rows)
            yield {self.name: encoder.floats(self.tensor, self.type, first, last)}


@dataclass(frozen=True, slots=True, kw_only=True)
class MlxMatrix:
    """A matrix that will be written in groups of codes with a scale and a minimum.

    Attributes:
        name: of its weight in the folder.
        bits: of a code.
        type: of scales and minimums.
        tensor: its numbers.
    """

    name: str
    bits: int
    type: str
    tensor: Tensor

    @property
    def encoding(self) -> str:
        """Its name in ``talu.weights.encode``."""
        return f"AFFINE{self.bits}_{GROUP}_{self.type}"

    def planned(self) -> dict[str, Planned]:
        """What is stored for it."""
        rows, columns = self.tensor.shape
        groups = Planned(self.type, (rows, columns // GROUP))
        codes = Planned("U32", (rows, columns * self.bits // 32))
        return dict(zip(self._names, (groups, groups, codes), strict=True))

    def rows(self, encoder: Encoder, factor: Factor) -> Iterator[dict[str, Bytes]]:
        """What is stored for some rows, one after the other.

        Args:
            encoder: encodes them.
            factor: gives that of the inputs of a weight; None if they are not known.

        Raises:
            TaluError: they cannot be read, or have numbers that cannot be encoded.
        """
        step, known = row_step(self.tensor), factor(self.name)
        for first in range(0, self.tensor.rows, step):
            last = min(first + step, self.tensor.rows)
            parts = encoder.codes(self.tensor, self.encoding, first, last, known)
            found = (parts["scales"], parts["minimums"], parts["codes"])
            yield dict(zip(self._names, found, strict=True))

    @property
    def _names(self) -> list[str]:
        module = self.name.removesuffix(".weight")
        return [f"{module}.scales", f"{module}.biases", self.name]


class MlxPlan:
    """A folder; see ``Plan``."""

    def __init__(
        self,
        tensors: Sequence[MlxTensor | MlxMatrix],
        files: Mapping[str, bytes],
        copied: Mapping[str, Path],
        notes: Sequence[str],
        factor: Factor,
    ) -> None:
        """Plan what is written.

        Args:
            tensors: the weights.
            files: content of other files by their names.
            copied: files that are copied, by their names.
            notes: see ``Plan``.
            factor: see ``MlxMatrix.rows``.

        Raises:
            ModelError: a file that is to be copied cannot be read.
        """
        self._notes = tuple(notes)
        self._encoder = Encoder()
        self._tensors = tensors
        self._factor = factor
        self._files = files
        self._copied = {name: (path, size_of(path)) for name, path in copied.items()}
        self._planned = {
            name: planned for each in tensors for name, planned in each.planned().items()
        }

    @property
    def notes(self) -> Sequence[str]:
        """See ``Plan``."""
        return (*self._notes, *self._encoder.notes())

    @property
    def size(self) -> int:
        """See ``Plan``."""
        small = sum(map(len, self._files.values())) + sum(s for _, s in self._copied.values())
        return small + folder_bytes(self._planned, METADATA)

    @property
    def tensor_bytes(self) -> int:
        """See ``Plan``."""
        return sum(planned.bytes for planned in self._planned.values())

    @property
    def parameters(self) -> int:
        """See ``Plan``."""
        return sum(prod(each.tensor.shape) for each in self._tensors)

    def write(self, path: Path, add: Callable[[int], None]) -> None:
        """See ``Plan``."""
        for name, content in self._files.items():
            (path / name).write_bytes(content)
            add(len(content))
        for name, (original, size) in self._copied.items():
            (path / name).parent.mkdir(exist_ok=True)
            copy(original, path / name, size)
            add(size)
        with SafetensorsWriter(path, self._planned, metadata=METADATA) as writer:
            for tensor in self._tensors:
                for parts in tensor.rows(self._encoder, self._factor):
                    for name, data in parts.items():
                        writer.append(name, data)
                        add(data.size)


def size_of(path: Path) -> int:
    """The bytes of a file.

    Raises:
        ModelError: it cannot be read.
    """
    file = OpenFile(path, use_mmap=False)
    file.close()
    return file.size


def copy(path: Path, to: Path, size: int) -> None:
    """Copy a file of a known size.

    Raises:
        ModelError: it cannot be read, or has changed.
        OSError: the copy cannot be written.
    """
    file = OpenFile(path, use_mmap=False)
    try:
        if file.size != size:
            raise ModelError(f"{path} changed while the model was converted; convert it again")
        with to.open("xb") as target:
            for start in range(0, size, CHUNK):
                target.write(file.read(start, min(CHUNK, size - start)).data)
    finally:
        file.close()
