"""Computes rotary frequencies: plain, with linear scaling, or with the scaling of Llama 3.1.

They are rounded to float32 after each step, as in training: at position 30,000 the last bit of a
frequency rotates a pair of columns by a fifth of a degree. For the same reason they must not depend
on the processor, so powers are computed with integers.
"""

from collections.abc import Iterator, Sequence
from decimal import Context, Decimal
from math import copysign, inf

from talu.arrays import single

__all__ = ["Frequencies", "default_frequencies", "divided", "linear_scaling", "llama3_scaling"]

Frequencies = tuple[float, ...]  # numbers of 32 bits
TWO_PI = single(6.283185307179586)
_DIGITS = Context(prec=45)  # five more than are needed after thousands of products


def default_frequencies(theta: float, head_size: int) -> Frequencies:
    """theta^(-2i / head_size) for each pair i of a head's columns."""
    base = Decimal(single(theta))
    exponents = [single(column / head_size) for column in range(0, head_size, 2)]
    return tuple(divided(1.0, single(float(power))) for power in _powers(base, exponents))


def _powers(base: Decimal, exponents: Sequence[float]) -> Iterator[Decimal]:
    """Powers of a positive base, computed with integers to at least 40 digits.

    Multiples of one exponent, as those of all usual sizes of a head are, take a product each: a
    power takes a hundred times as long.
    """
    step = exponents[1] if len(exponents) > 1 else 0.0
    if any(exponent != number * step for number, exponent in enumerate(exponents)):
        yield from (_DIGITS.power(base, Decimal(exponent)) for exponent in exponents)
        return
    factor, power = _DIGITS.power(base, Decimal(step)), Decimal(1)
    for _ in exponents:
        yield power
        power = _DIGITS.multiply(power, factor)


def divided(number: float, divisor: float) -> float:
    """The quotient of two numbers of 32 bits, rounded to as many."""
    return single(number / divisor) if divisor else copysign(inf, number)


def linear_scaling(frequencies: Sequence[float], factor: float) -> Frequencies:
    """Positions divided by ``factor``. Chen et al., 2023, https://arxiv.org/abs/2306.15595."""
    return tuple(divided(frequency, single(factor)) for frequency in frequencies)


def llama3_scaling(
    frequencies: Sequence[float], factor: float, low: float, high: float, *, context: int
) -> Frequencies:
    """Low frequencies divided by ``factor``, high ones kept, with a linear ramp between.

    A frequency's place on the ramp from ``low`` to ``high`` is the number of turns that it makes in
    the context used in pretraining; if ``high`` is not above ``low``, the ramp is a step at
    ``low``. Grattafiori et al., 2024, https://arxiv.org/abs/2407.21783, and its code.
    """

    def scaled(frequency: float) -> float:
        turns = divided(single(context), divided(TWO_PI, frequency))
        if high > low:
            kept = divided(single(turns - single(low)), single(high - low))
            kept = min(max(kept, 0.0), 1.0)
        else:
            kept = float(turns >= single(low))
        rest = divided(single(single(1 - kept) * frequency), single(factor))
        return single(rest + single(kept * frequency))

    return tuple(map(scaled, frequencies))
