"""Reads matrices as compressed-tensors stores them: fp8, 8-bit integers, 4 and 8 bits in words.

https://github.com/vllm-project/compressed-tensors
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from talu.error_text import shown
from talu.sources.quantised.columns import group_order
from talu.sources.quantised.float8 import Blocks, float8_matrix, is_float8, read_blocks
from talu.sources.quantised.groups import SIZES, Groups
from talu.sources.quantised.modules import FLOATS, Module
from talu.sources.quantised.rows import Computed, Numbers, bytes_of, numbers_of, unpacked
from talu.sources.settings import Settings
from talu.weights.tensors import NUMBERS, Rows, Tensor

__all__ = ["Compressed"]

FORMATS = (
    "pack-quantized", "float-quantized", "int-quantized", "naive-quantized", "mixed-precision",
)  # fmt: skip
BITS = (4, 8)
SIGN = np.uint8(128)
UNSUPPORTED = ("sparsity_config", "transform_config")
DENSE = ("dense", None)


class Compressed:
    """A folder that llm-compressor wrote; see ``Method``.

    The tensors show bits and groups of each module.
    """

    words: Final = (
        "weight", "weight_packed", "weight_scale", "weight_zero_point", "weight_shape",
        "weight_g_idx", "input_scale", "input_zero_point",
    )  # fmt: skip

    def __init__(self, section: Settings) -> None:
        """Read the settings.

        Raises:
            ModelError: a setting is damaged or not supported.
        """
        section.word("format", FORMATS, default="mixed-precision")
        for key in UNSUPPORTED:
            given = section.section(key)
            if given.unread() and given.raw("format", "") not in DENSE:
                raise section.error(key, "is not supported: the weights would need another network")
        self._blocks = common_blocks(section.section("config_groups"))

    def matrix(self, module: Module) -> Tensor | None:
        """See ``Method``."""
        weight = module.tensors.get("weight")
        if "weight_packed" in module.tensors:
            return packed_matrix(module)
        if weight is not None and weight.encoding.name == "I8":
            return integer_matrix(module)
        if is_float8(module):
            scale = module.tensors.get("weight_scale")
            blocked = scale is not None and len(scale.shape) == 2 and scale.shape[1] > 1
            return float8_matrix(module, self._blocks if blocked else None)
        return None


def common_blocks(groups: Settings) -> Blocks | None:
    """Rows and columns of a block with one scale; None if no group of modules has blocks.

    Raises:
        ModelError: groups have different blocks.
    """
    found: set[Blocks] = set()
    for name in groups.unread():
        weights = groups.section(name).section("weights")
        if blocks := read_blocks(weights, "block_structure"):
            found.add(blocks)
    if len(found) > 1:
        raise groups.error("weights.block_structure", f"has several values: {sorted(found)[:4]}")
    return found.pop() if found else None


def packed_matrix(module: Module) -> Tensor:
    """A matrix of codes in 32-bit words, the first in the lowest bits.

    Raises:
        ModelError: a tensor is missing, or the tensors contradict each other.
    """
    weight = module.tensor("weight_packed", ["I32"])
    rows, words = weight.shape
    sizes = module.shaped("weight_shape", ["I64", "I32"], (2,))
    height, columns = (int(each) for each in numbers_of(sizes))
    bits = next((each for each in BITS if words * 32 == columns * each), 0)
    if height != rows or not bits:
        raise weight.error(
            f"has shape {weight.shape}, which does not hold a matrix of shape "
            f"({shown(height)}, {shown(columns)}) in 4 or 8 bits"
        )
    return grouped(module, weight, (rows, columns), bits, weight.parts[NUMBERS])


def integer_matrix(module: Module) -> Tensor:
    """A matrix of 8-bit integers.

    Raises:
        ModelError: a tensor is missing, or the tensors contradict each other.
    """
    weight = module.tensor("weight", ["I8"])
    rows, columns = weight.shape
    stored = weight.parts[NUMBERS]
    codes = Computed(rows, columns, lambda start, stop: stored.read(start, stop) ^ SIGN)
    return grouped(module, weight, (rows, columns), 8, codes)


def grouped(
    module: Module, weight: Tensor, shape: tuple[int, int], bits: int, codes: Rows
) -> Tensor:
    """A matrix with these codes, and the scales and zero points of the module.

    Raises:
        ModelError: a tensor is missing, or the tensors contradict each other.
    """
    rows, columns = shape
    scales = module.tensor("weight_scale", FLOATS, (0, 1, 2))
    groups = scales.shape[1] if len(scales.shape) == 2 else 1
    height = scales.shape[0] if scales.shape else 1
    if height not in (1, rows) or columns % groups:
        raise scales.error(f"has shape {scales.shape}, but scales a matrix of shape {shape}")
    scale_type, size = scales.encoding.name, columns // groups

    def read_scales(start: int, stop: int) -> Numbers:
        return of_rows(numbers_of(scales).reshape(height, groups), rows, start, stop)

    return Groups(
        name=weight.name,
        file=weight.file,
        shape=shape,
        bits=bits,
        size=size,
        kind="ZEROS",
        scale_type=scale_type,
        scales=Computed(rows, groups * SIZES[scale_type], read_scales),
        offsets=Computed(rows, groups, zero_points(module, rows, groups, bits)),
        codes=codes,
        order=stored_order(module, columns, groups, size),
    ).tensor()


def stored_order(module: Module, columns: int, groups: int, size: int) -> NDArray[np.int32] | None:
    """The group of each column; None if groups are neighbours, also if all are -1."""
    stored = module.tensors.get("weight_g_idx")
    if stored is not None and stored.encoding.name == "I32" and (numbers_of(stored) == -1).all():
        return None
    return group_order(module, "weight_g_idx", columns, groups, size)


def zero_points(module: Module, rows: int, groups: int, bits: int) -> Callable[[int, int], Numbers]:
    """The code that stands for zero, for each group of each row.

    Raises:
        ModelError: the stored tensor has another type or shape.
    """
    stored = module.tensors.get("weight_zero_point")
    if stored is None:
        middle = np.full((1, groups), 1 << (bits - 1), np.uint8)
        return lambda start, stop: of_rows(middle, rows, start, stop)
    if stored.encoding.name == "I8":
        height = stored.shape[0] if stored.shape else 1
        if height not in (1, rows) or stored.shape[1:] not in ((), (groups,)):
            raise stored.error(f"has shape {stored.shape}, expected {(rows, groups)}")
        return lambda start, stop: (
            of_rows(numbers_of(stored).view(np.uint8).reshape(height, groups), rows, start, stop)
            ^ np.uint8(1 << (bits - 1))
        )
    words = -(-rows * bits // 32)
    packed = module.shaped("weight_zero_point", ["I32"], (words, groups))
    return lambda start, stop: unpacked(bytes_of(numbers_of(packed).T), bits, rows)[:, start:stop].T


def of_rows(numbers: Numbers, rows: int, start: int, stop: int) -> Numbers:
    """Some rows of a matrix; a matrix of one row stands for all."""
    return numbers[start:stop] if len(numbers) == rows else np.repeat(numbers, stop - start, axis=0)
