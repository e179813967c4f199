"""Reads matrices in the GEMM layout of AWQ: columns as rows, eight neighbouring outputs in a word.

https://github.com/casper-hansen/AutoAWQ
"""

from typing import Final

import numpy as np

from talu.sources.quantised.columns import read_group_size
from talu.sources.quantised.groups import Groups
from talu.sources.quantised.modules import FLOATS, Module
from talu.sources.quantised.rows import Computed, Numbers, numbers_of, packed_bits, transposed
from talu.sources.settings import Settings
from talu.weights.tensors import Tensor

__all__ = ["Awq"]

IN_WORD = 8
PLACES = np.array([0, 4, 1, 5, 2, 6, 3, 7])  # of an output's four bits in its word


class Awq:
    """A folder that AutoAWQ wrote; see ``Method``."""

    words: Final = ("qweight", "qzeros", "scales")

    def __init__(self, section: Settings) -> None:
        """Read the settings.

        Raises:
            ModelError: a setting is missing, out of range or not supported.
        """
        self._section = section
        bits = "w_bit" if section.has("w_bit") else "bits"
        if section.integer(bits, 1, 32) != 4:
            raise section.error(bits, f"is {section.value(bits)}; supported is 4")
        key = "q_group_size" if section.has("q_group_size") else "group_size"
        self._size = read_group_size(section, key)
        section.word("version", ["gemm", "GEMM"], default="gemm")

    def matrix(self, module: Module) -> Tensor | None:
        """See ``Method``."""
        if not {"qweight", "qzeros"} & module.tensors.keys():
            return None
        weight = module.tensor("qweight", ["I32"])
        columns, words = weight.shape
        rows, size = words * IN_WORD, self._size if self._size > 0 else columns
        if columns % size:
            raise weight.error(
                f"has {columns} columns, which are no whole number of groups of {size}"
            )
        groups = columns // size
        scales = module.shaped("scales", FLOATS, (groups, rows))
        zeros = module.shaped("qzeros", ["I32"], (groups, words))
        return Groups(
            name=f"{module.name}.qweight",
            file=weight.file,
            shape=(rows, columns),
            bits=4,
            size=size,
            kind="ZEROS",
            scale_type=scales.encoding.name,
            scales=transposed(scales),
            offsets=Computed(rows, groups, lambda start, stop: codes_of(zeros, start, stop)),
            codes=Computed(
                rows, columns // 2, lambda start, stop: packed_bits(codes_of(weight, start, stop))
            ),
        ).tensor()


def codes_of(stored: Tensor, start: int, stop: int) -> Numbers:
    """The codes of outputs ``start`` to ``stop`` - 1, one row for each."""
    first, last = start // IN_WORD, -(-stop // IN_WORD)
    words = np.ascontiguousarray(numbers_of(stored)[:, first:last].T).view(np.uint32)
    shifts = (4 * PLACES).astype(np.uint32)[None, :, None]
    codes = (words[:, None, :] >> shifts & np.uint32(15)).astype(np.uint8)
    rows = codes.reshape(-1, stored.shape[0])
    return rows[start - first * IN_WORD : stop - first * IN_WORD]
