"""Makes logical tensors of codes that share a scale, and a minimum or zero point, in groups."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from talu.sources.quantised.rows import Computed, Numbers, repeated, unpacked, widened
from talu.weights.tensors import Encoding, Rows, Tensor

__all__ = ["Groups"]

BLOCKS = (128, 64, 32)  # columns of a block of the encodings
SIZES = {"F16": 2, "BF16": 2, "F32": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """A matrix as its file has it: a weight is computed from a code and the numbers of its group.

    Attributes:
        name, file, shape: of the matrix.
        bits: of a code.
        size: columns of a group.
        kind: ``"AFFINE"`` is scale · code + minimum, ``"ZEROS"`` is scale · (code - zero point).
        scale_type: F16, BF16 or F32; that of minimums, too.
        scales: one for each group of a row.
        offsets: minimums, or zero points as bytes.
        codes: a stream of bits, those of the first column in the lowest bits.
        order: the group of each column, if a group is not ``size`` neighbours.
    """

    name: str
    file: str
    shape: tuple[int, int]
    bits: int
    size: int
    kind: Literal["AFFINE", "ZEROS"]
    scale_type: str
    scales: Rows
    offsets: Rows
    codes: Rows
    order: NDArray[np.int32] | None = None

    def tensor(self) -> Tensor:
        """The logical tensor, in blocks of neighbouring columns if it has such blocks.

        Its encoding is named by kind, bits, columns of a block and type of the scales.
        """
        block = next((each for each in BLOCKS if self.size % each == 0), 0)
        if self.order is not None or not block:
            what = f"{self.size}" if self.order is None else "ACT_ORDER"
            encoding = Encoding(f"{self.kind}{self.bits}_{what}_{self.scale_type}")
            return self._tensor(encoding, {})
        times, width = self.size // block, SIZES[self.scale_type]
        second, other = ("minimums", width) if self.kind == "AFFINE" else ("zeros", 1)
        sizes = {"scales": width, second: other, "codes": block * self.bits // 8}
        parts = {
            "scales": repeated(self.scales, width, times),
            second: repeated(self.offsets, other, times),
            "codes": self.codes,
        }
        name = f"{self.kind}{self.bits}_{block}_{self.scale_type}"
        return self._tensor(Encoding(name, block, sizes), parts)

    def _tensor(self, encoding: Encoding, parts: Mapping[str, Rows]) -> Tensor:
        rows, columns = self.shape
        return Tensor(
            name=self.name,
            file=self.file,
            shape=self.shape,
            encoding=encoding,
            parts=parts,
            floats=Computed(rows, 4 * columns, self._weights),
            stored_bytes=sum(
                each.count * each.width for each in (self.scales, self.offsets, self.codes)
            ),
        )

    def _weights(self, start: int, stop: int) -> Numbers:
        """Rows as float32."""
        columns = self.shape[1]
        codes = unpacked(self.codes.read(start, stop), self.bits, columns).astype(np.float32)
        places = np.arange(columns) // self.size if self.order is None else self.order
        scales = self._floats(self.scales, start, stop)[:, places]
        if self.kind == "AFFINE":
            return scales * codes + self._floats(self.offsets, start, stop)[:, places]
        return scales * (codes - self.offsets.read(start, stop)[:, places])

    def _floats(self, rows: Rows, start: int, stop: int) -> NDArray[np.float32]:
        kind = "<f4" if self.scale_type == "F32" else "<u2"
        return widened(rows.read(start, stop).view(kind), self.scale_type)
