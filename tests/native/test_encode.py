"""Choosing the codes of GGUF and MLX files: errors, extreme weights, the same bits everywhere."""

import gguf
import numpy as np
import pytest
from gguf import quants
from numpy.typing import NDArray

from talu import _native

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
FORMATS = _native.encoded_formats()
BLOCKS = [name for name in FORMATS if not name.startswith("affine")]
GROUPS = [name for name in FORMATS if name.startswith("affine")]
TARGETS = _native.targets()
HALVES = [name for name in BLOCKS if not name.endswith("_k")]  # those that `gguf` encodes itself
per_block_format = pytest.mark.parametrize("name", BLOCKS)
per_format = pytest.mark.parametrize("name", [*BLOCKS, *(n for n in GROUPS if "_64_" in n)])


def kind(name: str) -> gguf.GGMLQuantizationType:
    return gguf.GGMLQuantizationType[name.upper()]


def encode(
    name: str, rows: Floats, factor: Floats | None = None, threads: int = 0, target: str = ""
) -> NDArray[np.uint8]:
    columns, size = FORMATS[name]
    out = np.full(rows.size // columns * size, 0xFF, np.uint8)
    _native.encode(name, rows, out, factor, threads, target)
    return out.reshape(len(rows), -1)


def groups(name: str, encoded: NDArray[np.uint8]) -> tuple[Floats, Floats, NDArray[np.uint8]]:
    """Scales, minimums and codes, each for (row, group)."""
    bits, columns = int(name[6]), FORMATS[name][0]
    blocks = encoded.reshape(len(encoded), -1, FORMATS[name][1])
    halves = np.ascontiguousarray(blocks[:, :, :4]).view(np.uint16)
    if name.endswith("bf16"):
        halves = (halves.astype(np.uint32) << 16).view(np.float32)
    else:
        halves = halves.view(np.float16).astype(np.float32)
    stream = np.unpackbits(blocks[:, :, 4:], axis=2, bitorder="little")
    in_bits = stream.reshape(*stream.shape[:2], columns, bits)
    codes = (in_bits << np.arange(bits, dtype=np.uint8)).sum(axis=3, dtype=np.uint8)
    return halves[..., :1], halves[..., 1:], codes


def decode(name: str, encoded: NDArray[np.uint8]) -> Floats:
    """The weights, as the `gguf` package or the definition of MLX has them."""
    if name in BLOCKS:
        return quants.dequantize(encoded, kind(name))
    scales, minimums, codes = groups(name, encoded)
    return (scales * codes + minimums).reshape(len(encoded), -1)


def matrix(outliers: bool, rows: int = 37, columns: int = 512) -> Floats:
    """Weights like those of a network, or with columns and rows of unequal sizes."""
    rng = np.random.default_rng(3)
    weights = rng.standard_normal((rows, columns)) * 0.03
    if outliers:
        weights *= rng.exponential(size=(1, columns)) ** 2 * rng.exponential(size=(rows, 1))
    return weights.astype(np.float32)


def squares(found: Floats, weights: Floats) -> Doubles:
    """The squared error of each row."""
    difference = found.astype(np.float64) - weights.astype(np.float64)
    return (difference * difference).sum(axis=1)


def plain(name: str, weights: Floats) -> Floats:
    """The simplest rule: scales from the smallest and the largest weight, codes to the nearest."""
    if name in HALVES:
        return quants.dequantize(quants.quantize(weights, kind(name)), kind(name))
    bits = int(name.removeprefix("affine").removeprefix("q")[0])
    part = FORMATS[name][0] if name in GROUPS else 32 if name in ("q4_k", "q5_k") else 16
    parts = weights.reshape(-1, part).astype(np.float64)
    if name in ("q3_k", "q6_k"):
        scales = np.abs(parts).max(axis=1, keepdims=True) / 2 ** (bits - 1)
        return nearest(parts, integers(name, scales), 0, -(2 ** (bits - 1)), bits, weights.shape)
    low = np.minimum(parts.min(axis=1, keepdims=True), 0 if name in BLOCKS else np.inf)
    scales = (parts.max(axis=1, keepdims=True) - low) / (2**bits - 1)
    if name in BLOCKS:
        scales, low = integers(name, scales), -integers(name, -low)
    else:
        scales, low = rounded(name, scales), rounded(name, low)
    return nearest(parts, scales, low, 0, bits, weights.shape)


def integers(name: str, scales: Doubles) -> Doubles:
    """Scales as integer multiples of the largest in 256 columns."""
    most = {"q2_k": 15, "q3_k": 31, "q4_k": 63, "q5_k": 63, "q6_k": 127}[name]
    block = scales.reshape(-1, 8 if name in ("q4_k", "q5_k") else 16)
    unit = (block.max(axis=1, keepdims=True) / most).astype(np.float16).astype(np.float64)
    return (unit * np.rint(block / np.maximum(unit, 1e-30))).reshape(scales.shape)


def rounded(name: str, numbers: Doubles) -> Doubles:
    if not name.endswith("bf16"):
        return numbers.astype(np.float16).astype(np.float64)
    bits = numbers.astype(np.float32).view(np.uint32) + 0x8000
    return (bits & 0xFFFF0000).view(np.float32).astype(np.float64)


def nearest(
    parts: Doubles, scales: Doubles, low: Doubles | int,
    least: int, bits: int, shape: tuple[int, ...],
) -> Floats:  # fmt: skip
    codes = np.rint((parts - low) / np.maximum(scales, 1e-30)).clip(least, least + 2**bits - 1)
    return (codes * scales + low).reshape(shape).astype(np.float32)


def test_all_but_the_indexed_formats_of_gguf_and_all_of_mlx_are_encoded() -> None:
    names = "q4_0 q4_1 q5_0 q5_1 q8_0 q2_k q3_k q4_k q5_k q6_k"
    assert names.split() == BLOCKS
    assert len(GROUPS) == 6 * 3 * 2


@per_format
@pytest.mark.parametrize("outliers", [False, True])
def test_the_error_is_below_that_of_plain_rounding(name: str, outliers: bool) -> None:
    weights = matrix(outliers)
    found = squares(decode(name, encode(name, weights)), weights)
    expected = squares(plain(name, weights), weights)
    assert (found <= expected).all()
    assert found.sum() < 0.97 * expected.sum()


@pytest.mark.parametrize("name", ["q4_1", "q5_1"])
def test_scale_and_minimum_are_close_to_the_best_of_all(name: str) -> None:
    weights = matrix(False, rows=16, columns=32)
    most = 2 ** int(name[1]) - 1
    low, width = weights.min(axis=1), np.ptp(weights, axis=1)
    best = np.full(len(weights), np.inf)
    for below in np.linspace(-0.1, 0.2, 80):
        minimum = (low + below * width).astype(np.float16).astype(np.float64)
        for above in np.linspace(-0.1, 0.2, 80):
            scale = (width * (1 - below - above) / most).astype(np.float16).astype(np.float64)
            codes = np.rint((weights - minimum[:, None]) / scale[:, None]).clip(0, most)
            best = np.minimum(best, squares(codes * scale[:, None] + minimum[:, None], weights))
    found = squares(decode(name, encode(name, weights)), weights)
    assert found.sum() < 1.04 * best.sum()


@pytest.mark.parametrize("name", GROUPS)
def test_groups_are_stored_as_mlx_reads_them(name: str) -> None:
    weights = matrix(True, rows=5, columns=256)
    bits, columns = int(name[6]), int(name.split("_")[1])
    steps = np.ptp(weights.reshape(-1, columns), axis=1) / (2**bits - 1)
    error = np.abs(decode(name, encode(name, weights)) - weights).reshape(-1, columns)
    coarse = 2.0 ** (-8 if name.endswith("bf16") else -11) * np.abs(weights).max()  # stored minimum
    assert (error.max(axis=1) <= 1.4 * steps + coarse).all()


@per_format
def test_zeros_stay_zeros_and_constants_constant(name: str) -> None:
    weights = np.zeros((4, 256), np.float32)
    weights[1], weights[2] = 0.37, -0.37
    found = decode(name, encode(name, weights))
    assert not found[[0, 3]].any()
    np.testing.assert_allclose(found[1:3], weights[1:3], rtol=0.004)


@per_format
@pytest.mark.parametrize("size", [1e-44, 1e-40, 1e-30, 1e-6, 60000])
def test_tiny_and_huge_weights_are_no_worse_than_zeros(name: str, size: float) -> None:
    weights = matrix(True)
    weights = (weights / np.abs(weights).max()).astype(np.float64) * size
    rows = weights.astype(np.float32)
    found = decode(name, encode(name, rows))
    assert np.isfinite(found).all()
    assert (squares(found, rows) <= squares(np.zeros_like(rows), rows) * 1.0001).all()
    if size > 1:
        assert squares(found, rows).sum() < 0.2 * squares(np.zeros_like(rows), rows).sum()


@per_format
def test_all_targets_and_numbers_of_threads_choose_the_same_codes(name: str) -> None:
    weights, factor = matrix(True, rows=150), factor_of(512)
    for given in (None, factor):
        first = encode(name, weights, given, 1, TARGETS[0])
        for target in TARGETS:
            for threads in (1, 2):
                np.testing.assert_array_equal(encode(name, weights, given, threads, target), first)


@per_format
def test_a_row_is_encoded_the_same_alone_and_with_others(name: str) -> None:
    weights, factor = matrix(True), factor_of(512)
    for given in (None, factor):
        whole = encode(name, weights, given)
        for start in range(0, len(weights), 11):
            part = encode(name, weights[start : start + 11], given)
            np.testing.assert_array_equal(part, whole[start : start + 11])


def inputs(columns: int) -> Doubles:
    """Activations that have something in common, of unequal sizes."""
    rng = np.random.default_rng(1)
    mixed = rng.standard_normal((700, 40)) @ rng.standard_normal((40, columns))
    return (mixed + rng.standard_normal((700, columns))) * rng.exponential(size=columns)


def factor_of(columns: int) -> Floats:
    x = inputs(columns)
    sums = (x.T @ x).astype(np.float32)
    assert _native.factorize(sums)
    return sums


@per_format
def test_error_feedback_brings_the_error_of_products_below_a_fifth(name: str) -> None:
    weights, x = matrix(False), inputs(512)

    def error(factor: Floats | None) -> float:
        difference = decode(name, encode(name, weights, factor)) - weights
        return float(np.square(x @ difference.T).sum())

    assert error(factor_of(512)) < 0.2 * error(None)


@per_format
def test_weights_that_no_input_reaches_do_not_disturb_the_others(name: str) -> None:
    weights, x = matrix(False), inputs(512)
    x[:, ::3] = 0
    sums = (x.T @ x).astype(np.float32)
    assert _native.factorize(sums)
    found = decode(name, encode(name, weights, sums))
    assert np.isfinite(found).all()
    assert squares(found, weights).sum() < 0.5 * squares(np.zeros_like(weights), weights).sum()


def test_rows_that_are_no_whole_number_of_blocks_are_refused() -> None:
    rows = np.zeros((2, 96), np.float32)
    with pytest.raises(ValueError, match=r"96 columns cannot be encoded as q4_k.* multiple of 256"):
        _native.encode("q4_k", rows, np.zeros(0, np.uint8))
    with pytest.raises(ValueError, match="the encoded rows have 108 bytes, not 107"):
        _native.encode("q4_0", rows, np.zeros(107, np.uint8))
    with pytest.raises(
        ValueError, match=r"the factor has the shape \(64, 64\), expected \(96, 96\)"
    ):
        _native.encode("q4_0", rows, np.zeros(108, np.uint8), np.zeros((64, 64), np.float32))
    with pytest.raises(ValueError, match="matrices cannot be encoded as r4"):
        _native.encode("r4", rows, np.zeros(0, np.uint8))
