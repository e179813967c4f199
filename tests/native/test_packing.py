"""Weights are packed in tiles of sixteen rows, with the same layout on every target."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from talu import _native
from talu.graph.numpy_executor import round_to

SHAPES = [(1, 1), (15, 3), (16, 2), (17, 5), (32, 128), (50, 131), (300, 64), (18, 385)]
FORMATS = _native.formats()
TARGETS = _native.targets()
Aligned = Callable[[int], NDArray[np.uint8]]


def source(number_format: str, shape: tuple[int, int]) -> tuple[NDArray[np.generic], NDArray]:
    """Random bits of a format, and the floats that they represent."""
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    if number_format == "f16":
        half = (x * 1e-3).astype(np.float16)  # subnormal ones among them
        return half.view(np.uint16), half.astype(np.float32)
    if number_format == "bf16":
        bits = (x.view(np.uint32) >> 16).astype(np.uint16)
        return bits, (bits.astype(np.uint32) << 16).view(np.float32)
    return x, round_to(x, number_format)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("number_format", FORMATS)
@pytest.mark.parametrize("target", TARGETS)
def test_unpacking_returns_the_values_that_the_format_can_represent(
    target: str, number_format: str, shape: tuple[int, int], aligned: Aligned
) -> None:
    bits, floats = source(number_format, shape)
    packed = aligned(_native.packed_bytes(number_format, *shape))
    _native.pack(number_format, bits, packed, target=target)
    found = _native.unpack(number_format, packed, *shape, target=target)
    np.testing.assert_array_equal(found, floats)


@pytest.mark.parametrize("number_format", FORMATS)
def test_the_layout_is_the_same_for_all_targets_and_numbers_of_threads(
    number_format: str, aligned: Aligned
) -> None:
    bits, _ = source(number_format, (300, 37))
    layouts = set()
    for target in TARGETS:
        for threads in (1, 2):
            packed = aligned(_native.packed_bytes(number_format, 300, 37))
            _native.pack(number_format, bits, packed, threads, target)
            layouts.add(packed.tobytes())
    assert len(layouts) == 1


@pytest.mark.parametrize(("number_format", "group"), [("f32", 1), ("f16", 1), ("bf16", 2)])
def test_a_tile_holds_groups_of_columns_of_sixteen_rows(
    number_format: str, group: int, aligned: Aligned
) -> None:
    bits, _ = source(number_format, (16, 6))
    packed = aligned(_native.packed_bytes(number_format, 16, 6))
    _native.pack(number_format, bits, packed)
    expected = bits.reshape(16, 6 // group, group).transpose(1, 0, 2)
    np.testing.assert_array_equal(packed.view(bits.dtype), expected.ravel())


def test_a_tile_of_integers_has_blocks_of_scales_sums_and_groups_of_four_columns(
    aligned: Aligned,
) -> None:
    floats = np.zeros((16, 131), np.float32)
    floats[:, 0] = 16383  # alone in its block, so that the scale is 1
    floats[:, 1] = np.arange(16)
    floats[:, 128:] = 300_000 * np.array([1, -2, 3])
    packed = aligned(_native.packed_bytes("i16", 16, 131))
    _native.pack("i16", floats, packed)
    first, last = np.split(packed, [16 * 4 + 16 * 4 + 16 * 128 * 2])
    np.testing.assert_array_equal(first[:64].view(np.float32), 1)
    np.testing.assert_array_equal(first[64:128].view(np.int32), -16383 * np.arange(16))
    numbers = first[128:].view(np.int16).reshape(32, 2, 16, 2)  # even columns, then odd ones
    np.testing.assert_array_equal(numbers[0, 0], [[16383, 0]] * 16)
    np.testing.assert_array_equal(numbers[0, 1], [[row, 0] for row in range(16)])
    assert not numbers[1:].any()
    scale = np.float32(900_000) / np.float32(16383)
    np.testing.assert_array_equal(last[:64].view(np.float32), scale)
    np.testing.assert_array_equal(last[64:128].view(np.int32), 5461 * 10922)
    numbers = last[128:].view(np.int16).reshape(2, 16, 2)
    np.testing.assert_array_equal(numbers[0], [[5461, 16383]] * 16)
    np.testing.assert_array_equal(numbers[1], [[-10922, 0]] * 16)


@pytest.mark.parametrize("number_format", [name for name in FORMATS if name != "i16"])
def test_missing_rows_and_columns_are_zero(number_format: str, aligned: Aligned) -> None:
    bits, _ = source(number_format, (3, 5))
    packed = aligned(_native.packed_bytes(number_format, 3, 5))
    _native.pack(number_format, bits, packed)
    assert np.count_nonzero(packed.view(bits.dtype)) == np.count_nonzero(bits)


def test_the_error_for_an_unknown_format_lists_the_known_formats() -> None:
    with pytest.raises(ValueError, match=r"'q9' is unknown; known: .*bf16"):
        _native.packed_bytes("q9", 1, 1)


def test_a_source_of_a_wrong_type_is_refused(aligned: Aligned) -> None:
    with pytest.raises(ValueError, match="f32 is packed from an array of float32"):
        _native.pack("f32", np.zeros((16, 4)), aligned(256))


def test_packed_bytes_of_a_wrong_size_are_refused(aligned: Aligned) -> None:
    with pytest.raises(ValueError, match=r"shape \(16, 4\) has 256 bytes, not 255"):
        _native.pack("f32", np.zeros((16, 4), np.float32), aligned(255))
    with pytest.raises(ValueError, match=r"shape \(17, 4\) has 512 bytes, not 256"):
        _native.unpack("f32", aligned(256), 17, 4)


def test_packed_bytes_that_are_not_aligned_are_refused(aligned: Aligned) -> None:
    with pytest.raises(ValueError, match="multiple of 64"):
        _native.pack("f32", np.zeros((16, 4), np.float32), aligned(320)[8:264])


@pytest.mark.parametrize("number_format", _native.block_formats())
def test_columns_without_a_whole_number_of_blocks_are_refused(
    number_format: str, aligned: Aligned
) -> None:
    columns, _ = _native.block_formats()[number_format]
    whole = _native.packed_bytes(number_format, 16, columns)
    with pytest.raises(ValueError, match=f"which needs a multiple of {columns}$"):
        _native.packed_bytes(number_format, 16, columns + 1)
    with pytest.raises(ValueError, match=f"which needs a multiple of {columns}$"):
        _native.unpack(number_format, aligned(whole), 16, columns - 1)


def test_sizes_beyond_any_memory_are_refused() -> None:
    with pytest.raises(ValueError, match="does not fit in memory"):
        _native.packed_bytes("f32", 2**40, 2**40)
