"""Reads matrices as MLX quantises them: in groups of columns that share a scale.

Affine groups have a minimum, too. The codes of the other modes are floats.

https://ml-explore.github.io/mlx/build/html/python/_autosummary/mlx.core.quantize.html
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from talu.error_text import shown
from talu.exceptions import ModelError
from talu.sources.quantised.float8 import VALUES as FLOAT8
from talu.sources.quantised.groups import Groups
from talu.sources.quantised.modules import FLOATS, Module
from talu.sources.quantised.rows import Computed, Numbers, unpacked, widened
from talu.sources.settings import Settings
from talu.weights.tensors import BLOCKS, NUMBERS, Encoding, Tensor

__all__ = ["Mlx"]

MODES = {  # the bits and the columns of a group
    "affine": ((1, 2, 3, 4, 5, 6, 8), (32, 64, 128)),
    "mxfp4": ((4,), (32,)),
    "mxfp8": ((8,), (32,)),
    "nvfp4": ((4,), (16,)),
}
MXFP4 = Encoding("MXFP4", 32, {BLOCKS: 17})
FLOAT4 = np.array([*(half := (0, 0.5, 1, 1.5, 2, 3, 4, 6)), *(-x for x in half)], np.float32)
POWERS = widened(np.arange(256, dtype=np.uint8), "F8_E8M0")
TABLES = {"mxfp8": (FLOAT8, POWERS), "nvfp4": (FLOAT4, FLOAT8)}  # of codes, and of scales
KEYS = ("group_size", "bits", "mode", "quant_method")


@dataclass(frozen=True, slots=True)
class Layer:
    """How a module is quantised."""

    bits: int
    size: int
    mode: str


class Mlx:
    """A folder that mlx-lm wrote; see ``Method``."""

    words: Final = ("weight", "scales", "biases")

    def __init__(self, section: Settings) -> None:
        """Read bits and group sizes: those of all modules, and of modules that have their own.

        Raises:
            ModelError: a setting is missing, out of range or not supported.
        """
        self._section = section
        self._usual = read_layer(section, None)
        self._own: Mapping[str, Layer | None] = {
            name: self._read_own(name, value)
            for name, value in section.unread().items()
            if name not in KEYS
        }

    def matrix(self, module: Module) -> Tensor | None:
        """See ``Method``."""
        stored = module.tensors.get("weight")
        is_packed = stored is not None and stored.encoding.name == "U32"
        if "scales" not in module.tensors and not is_packed:
            return None
        layer = self._own.get(module.name, self._usual)
        if layer is None:
            raise self._section.error(
                module.name, "is false, but the weights of this module are quantised"
            )
        return matrix(module, layer)

    def _read_own(self, name: str, value: object) -> Layer | None:
        """The settings of one module; None if it is not quantised."""
        if isinstance(value, bool):
            return self._usual if value else None
        if not isinstance(value, dict):
            raise self._section.error(
                name,
                f"must be an object with group_size and bits, true or false; got {shown(value)}",
            )
        return read_layer(self._section.section(name), self._usual)


def read_layer(section: Settings, usual: Layer | None) -> Layer:
    """Bits and group size.

    Raises:
        ModelError: a value is missing, or not supported.
    """
    mode = section.word("mode", list(MODES), default=usual.mode if usual else "affine")
    bits = section.integer("bits", 1, 32, default=usual.bits if usual else None)
    size = section.integer("group_size", 1, 2**20, default=usual.size if usual else None)
    known_bits, known_sizes = MODES[mode]
    if bits not in known_bits:
        raise section.error("bits", f"is {bits}; supported are {listed(known_bits)}")
    if size not in known_sizes:
        raise section.error("group_size", f"is {size}; supported are {listed(known_sizes)}")
    return Layer(bits, size, mode)


def listed(numbers: tuple[int, ...]) -> str:
    """Numbers, for a message."""
    return ", ".join(map(str, numbers))


def matrix(module: Module, layer: Layer) -> Tensor:
    """The matrix of a module.

    Raises:
        ModelError: a tensor is missing, or the tensors contradict each other or the settings.
    """
    weight = module.tensor("weight", ["U32"])
    rows, words = weight.shape
    columns, rest = divmod(words * 32, layer.bits)
    if rest or columns % layer.size:
        raise wrong(weight, layer, "a row would not be a whole number of groups")
    if "global_scale" in module.tensors:
        raise module.error("has a tensor 'global_scale', which is not supported")
    scales = module.tensor("scales", FLOATS if layer.mode == "affine" else ["U8"])
    groups = (rows, columns // layer.size)
    if scales.shape != groups:
        raise wrong(weight, layer, f"that needs scales of shape {groups}, found {scales.shape}")
    if layer.mode == "mxfp4":
        return float4_matrix(weight, scales, (rows, columns))
    if layer.mode in TABLES:
        return computed_matrix(weight, scales, (rows, columns), layer)
    minimums = module.shaped("biases", [scales.encoding.name], groups)
    return Groups(
        name=weight.name,
        file=weight.file,
        shape=(rows, columns),
        bits=layer.bits,
        size=layer.size,
        kind="AFFINE",
        scale_type=scales.encoding.name,
        scales=scales.parts[NUMBERS],
        offsets=minimums.parts[NUMBERS],
        codes=weight.parts[NUMBERS],
    ).tensor()


def float4_matrix(weight: Tensor, scales: Tensor, shape: tuple[int, int]) -> Tensor:
    """A matrix of 4-bit floats with a power of two for 32 columns, in the blocks of MXFP4.

    In a block, the codes of columns 0 and 16 share the first byte.
    """
    rows, columns = shape
    count = columns // MXFP4.columns

    def blocks(start: int, stop: int) -> Numbers:
        codes = unpacked(weight.parts[NUMBERS].read(start, stop), 4, columns)
        halves = codes.reshape(stop - start, count, 2, 16)
        pairs = halves[:, :, 0] | halves[:, :, 1] << np.uint8(4)
        powers = scales.parts[NUMBERS].read(start, stop)[:, :, None]
        return np.concatenate([powers, pairs], axis=2)

    width = count * MXFP4.parts[BLOCKS]
    return Tensor(
        name=weight.name,
        file=weight.file,
        shape=shape,
        encoding=MXFP4,
        parts={BLOCKS: Computed(rows, width, blocks)},
    )


def computed_matrix(weight: Tensor, scales: Tensor, shape: tuple[int, int], layer: Layer) -> Tensor:
    """A matrix of floats of 4 or 8 bits with a scale for the columns of a group."""
    rows, columns = shape
    of_codes, of_scales = TABLES[layer.mode]

    def compute(start: int, stop: int) -> Numbers:
        codes = unpacked(weight.parts[NUMBERS].read(start, stop), layer.bits, columns)
        sizes = of_scales[scales.parts[NUMBERS].read(start, stop)]
        return of_codes[codes] * np.repeat(sizes, layer.size, axis=1)

    return Tensor(
        name=weight.name,
        file=weight.file,
        shape=shape,
        encoding=Encoding(layer.mode.upper()),
        parts={},
        floats=Computed(rows, 4 * columns, compute),
        stored_bytes=weight.bytes + scales.bytes,
    )


def wrong(weight: Tensor, layer: Layer, why: str) -> ModelError:
    """The error for a matrix that is not stored as config.json says."""
    return weight.error(
        f"has shape {weight.shape}, but config.json says {layer.bits} bits in groups of "
        f"{layer.size}: {why}"
    )
