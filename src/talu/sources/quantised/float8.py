"""Reads matrices of 8-bit floats (E4M3) with one scale for the matrix, each row, or each block."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from talu.error_text import shown
from talu.sources.quantised.modules import FLOATS, Module
from talu.sources.quantised.rows import Computed, Numbers, numbers_of, widened
from talu.sources.settings import Settings
from talu.weights.tensors import NUMBERS, Encoding, Tensor

__all__ = ["Float8", "float8_matrix", "is_float8"]

TYPE = "F8_E4M3"
SCALES = ("weight_scale_inv", "weight_scale")
SCALE_TYPES = (*FLOATS, "F8_E8M0")
Blocks = tuple[int, int]  # rows and columns with one scale


class Float8:
    """A folder in the fp8 format of transformers, vLLM or FBGEMM; see ``Method``."""

    words: Final = ("weight", *SCALES, "input_scale", "activation_scale", "input_scale_ub")

    def __init__(self, section: Settings) -> None:
        """Read the settings.

        Raises:
            ModelError: a setting is out of range or not supported.
        """
        self._section = section
        section.word("fmt", ["e4m3", "float8_e4m3fn"], default="e4m3")
        self._blocks = read_blocks(section, "weight_block_size")

    def matrix(self, module: Module) -> Tensor | None:
        """See ``Method``."""
        return float8_matrix(module, self._blocks) if is_float8(module) else None


def is_float8(module: Module) -> bool:
    """Whether the matrix of a module has 8-bit floats, or a scale that belongs to some."""
    weight = module.tensors.get("weight")
    stored = weight is not None and weight.encoding.name.startswith("F8_")
    return stored or "weight_scale_inv" in module.tensors


def read_blocks(section: Settings, key: str) -> Blocks | None:
    """Rows and columns of a block; None if the setting is missing.

    Raises:
        ModelError: it is no pair of whole numbers.
    """
    if not section.has(key):
        return None
    sizes = section.integers(key, 1, 2**20)
    if len(sizes) != 2:
        raise section.error(key, f"must be [rows, columns] of a block, got {shown(sizes)}")
    return sizes[0], sizes[1]


def float8_matrix(module: Module, blocks: Blocks | None) -> Tensor:
    """The matrix of a module: each number of the file times its scale.

    Args:
        module: has the weight and one tensor of scales.
        blocks: rows and columns that have one scale, if the scales are a matrix.

    Raises:
        ModelError: a tensor is missing, or the tensors contradict each other or the settings.
    """
    weight = module.tensor("weight", [TYPE])
    rows, columns = weight.shape
    word = next((each for each in SCALES if each in module.tensors), SCALES[0])
    scales = module.tensor(word, SCALE_TYPES, (0, 1, 2))
    down, across = scaled_block(scales, (rows, columns), blocks)

    def compute(start: int, stop: int) -> Numbers:
        codes = weight.parts[NUMBERS].read(start, stop)
        sizes = widened(numbers_of(scales), scales.encoding.name)
        sizes = sizes.reshape(-(-rows // down), -(-columns // across))
        of_rows = sizes[np.arange(start, stop) // down]
        return VALUES[codes] * of_rows[:, np.arange(columns) // across]

    return Tensor(
        name=weight.name,
        file=weight.file,
        shape=(rows, columns),
        encoding=Encoding(TYPE),
        parts={},
        floats=Computed(rows, 4 * columns, compute),
        stored_bytes=weight.bytes + scales.bytes,
    )


def scaled_block(scales: Tensor, shape: tuple[int, int], blocks: Blocks | None) -> Blocks:
    """Rows and columns of a matrix that have one scale.

    Raises:
        ModelError: the scales have another shape than the matrix and the settings need.
    """
    rows, columns = shape
    of_rows, of_all = (1, columns), (rows, columns)
    known = {(): of_all, (1,): of_all, (1, 1): of_all, (rows,): of_rows, (rows, 1): of_rows}
    if blocks is not None:
        known = {(-(-rows // blocks[0]), -(-columns // blocks[1])): blocks}
    if scales.shape not in known:
        what = f"in blocks of {blocks[0]} x {blocks[1]}" if blocks else "as a whole, or each row"
        raise scales.error(f"has shape {scales.shape}, but scales a matrix of shape {shape} {what}")
    return known[scales.shape]


def values() -> NDArray[np.float32]:
    """The number of each byte: a sign, 4 bits of exponent and 3 of fraction, without infinities."""
    codes = np.arange(256)
    exponents, fractions = codes >> 3 & 15, (codes & 7) / 8
    sizes = np.where(
        exponents == 0, np.ldexp(fractions, -6), np.ldexp(1 + fractions, exponents - 7)
    )
    sizes[codes & 127 == 127] = np.nan
    return np.where(codes >= 128, -sizes, sizes).astype(np.float32)


VALUES = values()
