"""Weights in codes of a few bits: what they stand for, and their products."""

from collections.abc import Callable

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants
from numpy.typing import NDArray

from talu import _native
from talu.graph.native_executor import NativeExecutor
from talu.graph.numpy_executor import round_to
from talu.graph.record import Graph
from talu.protocols import PackedTensor

FORMATS = _native.block_formats()
TARGETS = _native.targets()
# Where the scale and the minimum of a block are, numbers in half precision.
HALVES = {
    "q4_0": (0,), "q4_1": (0, 2), "q5_0": (0,), "q5_1": (0, 2), "q8_0": (0,), "q2_k": (80, 82),
    "q3_k": (108,), "q4_k": (0, 2), "q5_k": (0, 2), "q6_k": (208,), "iq4_nl": (0,),
    "iq4_xs": (0,), "mxfp4": (),
}  # fmt: skip
GGUF = list(HALVES)
GROUPS = [name for name in FORMATS if name not in GGUF]
HALVES |= {name: (0, 2) if name.startswith("affine") else (0,) for name in GROUPS}
# Groups of every number of bits, number of columns, type of scale, and minimums or zero points.
SOME = [
    "affine2_32_f16", "affine3_64_bf16", "affine4_32_bf16", "affine4_64_f16", "affine4_128_bf16",
    "affine5_128_f16", "affine6_32_bf16", "affine8_64_bf16", "zeros4_32_bf16", "zeros4_128_f16",
    "zeros8_64_f16",
]  # fmt: skip
per_format = pytest.mark.parametrize("number_format", FORMATS)
per_product = pytest.mark.parametrize("number_format", [*GGUF, *SOME])
per_target = pytest.mark.parametrize("target", TARGETS)
Raw = NDArray[np.uint8]


def f16(floats: NDArray[np.float32]) -> NDArray[np.uint16]:
    return floats.astype(np.float16).view(np.uint16)


def blocks(number_format: str, rows: int, columns: int, seed: int = 0) -> Raw:
    """Random blocks: all codes and integers occur; scales are like those of weights."""
    rng = np.random.default_rng(seed)
    block, size = FORMATS[number_format]
    raw = rng.integers(0, 256, (rows, columns // block, size), dtype=np.uint8)
    for at in HALVES[number_format]:
        scales = (rng.standard_normal(raw.shape[:2]) * 0.1).astype(np.float32)
        halves = scales.view(np.uint32) >> 16 if "bf16" in number_format else f16(scales)
        raw[:, :, at : at + 2] = halves.astype("<u2").view(np.uint8).reshape(*raw.shape[:2], 2)
    if number_format == "mxfp4":
        raw[:, :, 0] = rng.integers(118, 130, raw.shape[:2])
    return raw.reshape(rows, -1)


def meant(number_format: str, raw: Raw) -> NDArray[np.float32]:
    """The weights that the reference implementation reads."""
    if number_format in GROUPS:
        return meant_by_groups(number_format, raw)
    return quants.dequantize(raw, GGMLQuantizationType[number_format.upper()])


def meant_by_groups(number_format: str, raw: Raw) -> NDArray[np.float32]:
    """What MLX, GPTQ and AWQ define: scale · code + minimum, and scale · (code - zero point)."""
    columns, size = FORMATS[number_format]
    kind, bits = number_format.split("_")[0][:-1], int(number_format.split("_")[0][-1])
    blocks = raw.reshape(len(raw), -1, size)

    def floats(at: int) -> NDArray[np.float32]:
        halves = blocks[:, :, at : at + 2].copy().view("<u2")
        if "bf16" in number_format:
            return (halves.astype(np.uint32) << 16).view(np.float32)
        return halves.view(np.float16).astype(np.float32)

    first = 4 if kind == "affine" else 3
    numbers = [int.from_bytes(block[first:].tobytes(), "little") for row in blocks for block in row]
    codes = np.array(
        [[number >> bits * c & (1 << bits) - 1 for c in range(columns)] for number in numbers]
    ).reshape(*blocks.shape[:2], columns)
    if kind == "affine":
        weights = floats(0) * codes.astype(np.float32) + floats(2)
    else:
        weights = floats(0) * (codes - blocks[:, :, 2:3].astype(int)).astype(np.float32)
    return weights.reshape(len(raw), -1)


def packed(
    number_format: str, raw: Raw, aligned: Callable[[int], Raw], threads: int = 0
) -> PackedTensor:
    block, size = FORMATS[number_format]
    shape = (len(raw), raw.shape[1] // size * block)
    data = aligned(_native.packed_bytes(number_format, *shape))
    _native.pack(number_format, raw, data, threads)
    return PackedTensor(number_format, shape, data)


@per_format
@per_target
def test_the_weights_are_those_of_the_reference_to_the_last_bit(
    target: str, number_format: str, aligned: Callable
) -> None:
    raw = blocks(number_format, 37, 768)
    tensor = packed(number_format, raw, aligned)
    found = _native.unpack(number_format, tensor.data, *tensor.shape, target=target)
    np.testing.assert_array_equal(found, meant(number_format, raw))


@per_format
@pytest.mark.parametrize("bits", [0x0001, 0x8001, 0x7BFF, 0x7C00, 0x7E01])
def test_odd_scales_keep_their_meaning(number_format: str, bits: int, aligned: Callable) -> None:
    raw = blocks(number_format, 3, 256)
    _, size = FORMATS[number_format]
    if "bf16" in number_format:
        bits = {0x7BFF: 0x7A7F, 0x7C00: 0x7F80, 0x7E01: 0x7FC1}.get(bits, bits)
    for at in HALVES[number_format]:
        raw.reshape(3, -1, size)[1, 0, at : at + 2] = np.array([bits], "<u2").view(np.uint8)
    if number_format == "mxfp4":
        raw[1, 0] = {0x0001: 0, 0x8001: 1, 0x7BFF: 254, 0x7C00: 255, 0x7E01: 2}[bits]
    tensor = packed(number_format, raw, aligned)
    with np.errstate(all="ignore"):
        expected = meant(number_format, raw)
    np.testing.assert_array_equal(
        _native.unpack(number_format, tensor.data, *tensor.shape), expected
    )


@per_product
def test_the_layout_does_not_depend_on_the_number_of_threads(
    number_format: str, aligned: Callable
) -> None:
    raw = blocks(number_format, 300, 256)
    alone = packed(number_format, raw, aligned, threads=1)
    np.testing.assert_array_equal(packed(number_format, raw, aligned, threads=2).data, alone.data)


def product(
    number_format: str, raw: Raw, x: NDArray[np.float32], target: str, pack: Callable,
    aligned: Callable, threads: int = 0,
) -> NativeExecutor:  # fmt: skip
    """Rows of x with the matrix."""
    g = Graph()
    g.output(g.output_rows(g.linear(g.embed("x", *x.shape), "weight", len(raw))))
    tensors = {"x": pack(x, "f32", target), "weight": packed(number_format, raw, aligned)}
    return NativeExecutor(g, tensors, blocks=8, block_size=16, target=target, num_threads=threads)


@per_product
@per_target
def test_products_are_those_of_the_weights_and_the_rounded_activations(
    target: str, number_format: str, pack: Callable, aligned: Callable, rows: type, run: Callable
) -> None:
    raw, rng = blocks(number_format, 69, 512), np.random.default_rng(1)
    x = rng.standard_normal((23, 512)).astype(np.float32) * rng.exponential(size=(1, 512)).astype(
        "f"
    )
    found = run(product(number_format, raw, x, target, pack, aligned), rows(range(23)))
    exact = round_to(x, "i8").astype(np.float64) @ meant(number_format, raw).T.astype(np.float64)
    # A few roundings of float32 of the largest terms; a code that is wrong by one is 1e-3 and more.
    sizes = np.abs(round_to(x, "i8")).astype(np.float64) @ np.abs(meant(number_format, raw)).T
    assert (np.abs(found - exact) <= 1e-6 * sizes.max()).all()


@per_product
@per_target
def test_the_largest_products_do_not_overflow(
    target: str, number_format: str, pack: Callable, aligned: Callable, rows: type, run: Callable
) -> None:
    for byte in (0x00, 0xFF):
        raw = blocks(number_format, 16, 256)
        _, size = FORMATS[number_format]
        scales = raw.copy().reshape(16, -1, size)
        raw[:] = byte
        for at in HALVES[number_format]:
            raw.reshape(16, -1, size)[:, :, at : at + 2] = scales[:, :, at : at + 2]
        if number_format == "mxfp4":
            raw.reshape(16, -1, size)[:, :, 0] = 127
        for sign in (1.0, -1.0):
            x = np.full((17, 256), sign, np.float32)
            found = run(product(number_format, raw, x, target, pack, aligned), rows(range(17)))
            weights = meant(number_format, raw).astype(np.float64)
            exact = round_to(x, "i8").astype(np.float64) @ weights.T
            assert np.abs(found - exact).max() <= 2e-6 * np.abs(weights).sum(axis=1).max()


@per_product
def test_a_product_has_the_same_bits_everywhere(
    number_format: str, pack: Callable, aligned: Callable, rows: type, run: Callable
) -> None:
    raw = blocks(number_format, 69, 512)
    x = np.random.default_rng(1).standard_normal((64, 512)).astype(np.float32)
    first = run(product(number_format, raw, x, TARGETS[0], pack, aligned), rows(range(64)))
    for target in TARGETS:
        for threads in (1, 2):
            executor = product(number_format, raw, x, target, pack, aligned, threads)
            np.testing.assert_array_equal(run(executor, rows(range(64))), first)
            for count in (1, 2, 3, 5, 7, 11, 16, 19, 37):
                some = rows(range(20, 20 + count))
                np.testing.assert_array_equal(run(executor, some), first[20 : 20 + count])


@per_product
@per_target
def test_numbers_that_are_not_finite_affect_only_their_own_row(
    target: str, number_format: str, pack: Callable, aligned: Callable, rows: type, run: Callable
) -> None:
    raw = blocks(number_format, 20, 256)
    x = np.random.default_rng(1).standard_normal((18, 256)).astype(np.float32)
    sound = run(product(number_format, raw, x, target, pack, aligned), rows(range(18)))
    x[2, 140], x[5, 0], x[7, 255] = np.nan, np.inf, -np.inf
    found = run(product(number_format, raw, x, target, pack, aligned), rows(range(18)))
    good = [0, 1, 3, 4, 6, *range(8, 18)]
    np.testing.assert_array_equal(found[good], sound[good])
    assert np.isnan(found[[2, 5, 7]]).all()


def test_a_row_that_has_no_whole_number_of_blocks_is_refused(aligned: Callable) -> None:
    with pytest.raises(ValueError, match=r"a row of 143 bytes .* blocks of q4_k, 144 bytes each"):
        _native.pack("q4_k", np.zeros((2, 143), np.uint8), aligned(64))


def test_a_source_of_another_type_is_refused(aligned: Callable) -> None:
    with pytest.raises(ValueError, match="q4_0 is packed from an array of uint8"):
        _native.pack("q4_0", np.zeros((2, 18), np.float32), aligned(64))
