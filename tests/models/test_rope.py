"""Rotary frequencies from each way of writing them."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from talu.models.rope_keys import rotary_frequencies
from talu.models.settings import Settings

LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def frequencies(**values: Any) -> list[float]:
    found, _ = rotary_frequencies(Settings(Path("config.json"), values), 128, 8192)
    return found.astype(float).tolist()


def test_each_pair_turns_slower_by_the_same_factor() -> None:
    expected = [500_000.0 ** (-i / 64) for i in range(64)]
    assert frequencies(rope_theta=500_000.0) == pytest.approx(expected, rel=1e-6)


def test_theta_is_10000_when_the_file_names_none() -> None:
    assert frequencies() == frequencies(rope_theta=10_000)


def test_linear_scaling_divides_all() -> None:
    scaled = frequencies(rope_scaling={"type": "linear", "factor": 4})
    assert scaled == pytest.approx([f / 4 for f in frequencies()], rel=1e-6)


def test_llama3_scaling_keeps_the_fast_divides_the_slow_and_blends_between() -> None:
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


def test_frequencies_are_computed_in_float32() -> None:
    # 10000^(-2/128), rounded to float32 after the exponent, the power and the division: what
    # models are trained with. Rounded once it would be 0.86596435.
    assert frequencies()[1] == float(np.float32(1) / np.float32(10_000) ** np.float32(2 / 128))
