"""Floats are rounded to the nearest number of a type."""

import numpy as np
import pytest

from talu.conversion.gguf_file import vector
from talu.conversion.numbers import Encoder, bfloat16, encoded
from talu.exceptions import ConvertError

SPECIAL = [0.0, -0.0, 1.0, -2.5, 3.4e38, 1e-40, np.inf, -np.inf, 65504.0, 6e-8]


def test_bfloat16_is_the_nearest_number_and_of_two_the_even_one() -> None:
    random = np.random.default_rng(3).integers(0, 2**32, 100_000, np.uint32)
    ties = np.arange(2**16, dtype=np.uint32) << 16 | 0x8000
    bits = np.concatenate([random, ties, np.array(SPECIAL, np.float32).view(np.uint32)])
    numbers = bits.view(np.float32)[np.isfinite(bits.view(np.float32))]
    found = (bfloat16(numbers).astype(np.uint32) << 16).view(np.float32)
    for step in (-1, 1):  # neither neighbour is nearer
        other = ((bfloat16(numbers).astype(np.int64) + step) << 16).astype(np.uint32)
        with np.errstate(invalid="ignore"):
            theirs = np.abs(other.view(np.float32).astype(float) - numbers.astype(float))
        ours = np.abs(found.astype(float) - numbers.astype(float))
        ours[np.isinf(found)] = 0.0  # beyond the largest number
        assert not (theirs < ours).any()
        assert not ((theirs == ours) & (bfloat16(numbers) & 1 == 1)).any()


def test_infinity_and_nan_are_kept() -> None:
    numbers = np.array([np.inf, -np.inf, np.nan], np.float32)
    numbers[2:].view(np.uint32)[0] = 0x7F800001  # whose upper half alone is infinity
    found = (bfloat16(numbers).astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(found, numbers)
    for kind, dtype in (("F16", np.float16), ("F32", np.float32)):
        data = encoded(vector("a", numbers), kind, 0, 1)
        np.testing.assert_array_equal(data.view(dtype)[0], numbers)


def test_a_number_beyond_f16_is_an_error_that_shows_it() -> None:
    with pytest.raises(ConvertError, match=r"'a' has the number 65520, and F16 holds none above"):
        encoded(vector("a", np.array([1.0, 65519.0, -65520.0], np.float32)), "F16", 0, 1)


def test_numbers_that_become_zero_are_counted() -> None:
    encoder = Encoder()
    small = vector("small", np.array([1e-9, -2e-8, 6e-8, 0.0], np.float32))
    encoder.floats(small, "BF16", 0, 1)
    assert [*encoder.notes()] == []
    encoder.floats(small, "F16", 0, 1)
    (note,) = encoder.notes()
    assert note.startswith("2 weights that are not zero are zero in F16")
    assert note.endswith("such as in 'small'")
