"""Computes rotary frequencies: plain, with linear scaling, or with the scaling of Llama 3.1.

They are rounded to float32 after each step, as in training: at position 30,000 the last bit of a
frequency rotates a pair of columns by a fifth of a degree. For the same reason they must not depend
on the processor. NumPy's elementary operations do not; its powers do, so powers are computed here.
"""

from decimal import Context, Decimal

import numpy as np
from numpy.typing import NDArray

__all__ = ["default_frequencies", "linear_scaling", "llama3_scaling"]

Frequencies = NDArray[np.float32]
TWO_PI = np.float32(6.283185307179586)
_DIGITS = Context(prec=40)


def default_frequencies(theta: float, head_size: int) -> Frequencies:
    """theta^(-2i / head_size) for each pair i of a head's columns."""
    exponents = np.arange(0, head_size, 2, dtype=np.float32) / np.float32(head_size)
    frequencies: Frequencies = np.float32(1) / _powers(np.float32(theta), exponents)
    return frequencies


def _powers(base: np.float32, exponents: Frequencies) -> Frequencies:
    """Powers of a positive base, computed to 40 digits with integers and then rounded."""
    exact = Decimal(float(base))
    powers = [float(_DIGITS.power(exact, Decimal(e))) for e in exponents.tolist()]
    return np.array(powers, np.float32)


def linear_scaling(frequencies: Frequencies, factor: float) -> Frequencies:
    """Positions divided by ``factor``. Chen et al., 2023, https://arxiv.org/abs/2306.15595."""
    return frequencies / np.float32(factor)


def llama3_scaling(
    frequencies: Frequencies, factor: float, low: float, high: float, *, context: int
) -> Frequencies:
    """Low frequencies divided by ``factor``, high ones kept, with a linear ramp between.

    A frequency's place on the ramp from ``low`` to ``high`` is the number of turns that it makes in
    the context used in pretraining; if ``high`` is not above ``low``, the ramp is a step at
    ``low``. Grattafiori et al., 2024, https://arxiv.org/abs/2407.21783, and its code.
    """
    turns = np.float32(context) / (TWO_PI / frequencies)
    if high > low:
        kept = np.clip((turns - np.float32(low)) / np.float32(high - low), 0, 1)
    else:
        kept = (turns >= np.float32(low)).astype(np.float32)
    scaled: Frequencies = (1 - kept) * frequencies / np.float32(factor) + kept * frequencies
    return scaled
