"""Rotary frequencies for each way to configure them."""

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from talu.models.rope import default_frequencies
from talu.models.rope_keys import rotary_frequencies
from talu.sources.settings import Settings

LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def frequencies(**values: Any) -> list[float]:
    found = rotary_frequencies(Settings(Path("config.json"), values), 128, 8192).frequencies
    return list(found)


def test_each_pair_rotates_slower_by_the_same_factor() -> None:
    expected = [500_000.0 ** (-i / 64) for i in range(64)]
    assert frequencies(rope_theta=500_000.0) == pytest.approx(expected, rel=1e-6)


def test_the_default_of_theta_is_10000() -> None:
    assert frequencies() == frequencies(rope_theta=10_000)


def test_linear_scaling_divides_every_frequency() -> None:
    scaled = frequencies(rope_scaling={"type": "linear", "factor": 4})
    assert scaled == pytest.approx([f / 4 for f in frequencies()], rel=1e-6)


def test_llama3_scaling_keeps_high_frequencies_and_divides_low_ones() -> None:
    plain = frequencies(rope_theta=5e5)
    scaled = frequencies(rope_theta=5e5, rope_scaling={"rope_type": "llama3", **LLAMA3})
    seen = set()
    for before, after in zip(plain, scaled, strict=True):
        wavelength = 2 * math.pi / before
        if wavelength < 8192 / 4:
            seen.add("kept")
            assert after == before
        elif wavelength > 8192 / 1:
            seen.add("divided")
            assert after == pytest.approx(before / 8, rel=1e-6)
        else:
            seen.add("blended")
            share = (8192 / wavelength - 1) / (4 - 1)
            assert after == pytest.approx((1 - share) * before / 8 + share * before, rel=1e-5)
    assert seen == {"kept", "divided", "blended"}


@pytest.mark.parametrize(
    "scaling", [{"rope_type": "default"}, {"rope_type": "linear", "factor": 2.0}, LLAMA3]
)
def test_the_newer_and_the_older_form_mean_the_same(scaling: dict[str, Any]) -> None:
    scaling = {"rope_type": "llama3"} | scaling
    older = frequencies(rope_theta=5e5, rope_scaling=scaling)
    assert frequencies(rope_parameters=scaling | {"rope_theta": 5e5}) == older
    both = {"rope_parameters": scaling | {"rope_theta": 5e5}, "rope_scaling": scaling}
    assert frequencies(**both, rope_theta=5e5) == older


def test_frequencies_are_rounded_after_each_step() -> None:
    # 10000^(-2/128), rounded to float32 after the exponent, the power and the division: what
    # models are trained with. Rounded once it would be 0.86596435.
    assert frequencies()[1] == 0.8659643530845642


def nearest_float32(value: Fraction) -> np.float32:
    """Rounded by comparing fractions, ties to even."""
    near = np.float32(float(value))
    candidates = [np.nextafter(near, np.float32(0)), near, np.nextafter(near, np.float32(np.inf))]
    return min(
        candidates,
        key=lambda x: (abs(Fraction(float(x)) - value), int(x.view(np.uint32)) & 1),
    )


def power(base: int, exponent: float) -> Fraction:
    """base^exponent for 0 <= exponent < 1, from square roots of integers alone, to 2^-200."""
    bits, result, root = Fraction(exponent), 1 << 256, base << 256
    while bits:
        root = math.isqrt(root << 256)
        bits *= 2
        if bits >= 1:
            bits -= 1
            result = result * root >> 256
    return Fraction(result, 1 << 256)


@pytest.mark.parametrize("theta", [10_000, 500_000, 1_000_000, 10_000_000, 10**12])
@pytest.mark.parametrize("head_size", [10, 64, 96, 128, 256])
def test_frequencies_are_exact_powers_rounded_to_the_nearest(theta: int, head_size: int) -> None:
    base = int(np.float32(theta))
    expected = [
        nearest_float32(1 / Fraction(float(nearest_float32(power(base, float(exponent))))))
        for exponent in np.arange(0, head_size, 2, dtype=np.float32) / np.float32(head_size)
    ]
    assert list(default_frequencies(theta, head_size)) == expected
