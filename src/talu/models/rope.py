"""Rotary frequencies as config.json asks for them: plain, linear scaling, Llama 3.1 scaling.

They are computed in float32, step by step as in the trainings: at position 30,000 the last bit of a
frequency already turns a pair of columns by a fifth of a degree.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from talu.models.settings import Settings

__all__ = ["rotary_frequencies"]

Frequencies = NDArray[np.float32]
MAX_FACTOR = 1e6


def rotary_frequencies(settings: Settings, head_size: int) -> Frequencies:
    """theta^(-2i / head_size) for each pair i of a head's columns, scaled as the settings say.

    The settings stand in ``rope_parameters`` or, in files of before 2025, in ``rope_theta`` and
    ``rope_scaling``. A file that has both must mean the same with each.

    Raises:
        ModelError: the kind of scaling is unknown, or a value is missing or out of range.
    """
    theta = _theta(settings, default=10000.0)
    keys = [key for key in ("rope_parameters", "rope_scaling") if settings.has(key)]
    forms = [_scaled(settings.section(key), head_size, theta) for key in keys or ["rope_scaling"]]
    if not np.array_equal(forms[0], forms[-1]):
        raise settings.error(keys[0], f"and {keys[1]!r} contradict each other")
    if "rope_parameters" in keys and settings.has("rope_theta"):
        nested = _theta(settings.section("rope_parameters"), default=theta)
        if nested != theta:
            raise settings.error("rope_theta", f"is {theta}, but {nested} in 'rope_parameters'")
    _refuse_partial(settings)
    return forms[0]


def _theta(settings: Settings, default: float) -> float:
    return settings.number("rope_theta", above=1.0, up_to=1e12, default=default)


def _refuse_partial(settings: Settings) -> None:
    if settings.number("partial_rotary_factor", above=0.0, up_to=1.0, default=1.0) != 1.0:
        raise settings.error("partial_rotary_factor", "is not 1, which is not supported")


def _scaled(section: Settings, head_size: int, theta: float) -> Frequencies:
    names = [key for key in ("rope_type", "type") if section.has(key)]  # newer and older files
    kinds = {section.word(key, tuple(_SCALINGS)) for key in names} or {"default"}
    if len(kinds) > 1:
        raise section.error("rope_type", "and 'type' contradict each other")
    _refuse_partial(section)
    exponents = np.arange(0, head_size, 2, dtype=np.float32) / np.float32(head_size)
    frequencies = np.float32(1) / np.float32(_theta(section, theta)) ** exponents
    return _SCALINGS[kinds.pop()](section, frequencies)


def _linear(section: Settings, frequencies: Frequencies) -> Frequencies:
    """Positions divided by ``factor``. Chen et al., 2023, https://arxiv.org/abs/2306.15595."""
    return frequencies / np.float32(section.number("factor", above=0.0, up_to=MAX_FACTOR))


def _llama3(section: Settings, frequencies: Frequencies) -> Frequencies:
    """Slow frequencies divided by ``factor``, fast ones kept, a linear ramp between.

    A frequency's place on the ramp is the number of turns that it makes in the context of the
    pretraining. Grattafiori et al., 2024, https://arxiv.org/abs/2407.21783, and its code.
    """
    factor = section.number("factor", above=0.0, up_to=MAX_FACTOR)
    low = section.number("low_freq_factor", above=0.0, up_to=MAX_FACTOR)
    high = section.number("high_freq_factor", above=low, up_to=MAX_FACTOR)
    context = section.integer("original_max_position_embeddings", 1, 2**27)
    turns = np.float32(context) / (np.float32(2 * np.pi) / frequencies)
    kept = np.clip((turns - np.float32(low)) / np.float32(high - low), 0, 1)
    scaled: Frequencies = (1 - kept) * frequencies / np.float32(factor) + kept * frequencies
    return scaled


_SCALINGS: Mapping[str, Callable[[Settings, Frequencies], Frequencies]] = {
    "default": lambda _, frequencies: frequencies,
    "linear": _linear,
    "llama3": _llama3,
}
