"""Reads from config.json how a decoder rotates queries and keys.

The settings are read from ``rope_scaling``, else from ``rope_parameters``; keys missing there are
read from the top level of the file. Only the keys of the chosen type matter.
"""

from collections.abc import Mapping
from typing import NamedTuple

from talu.arrays import single
from talu.error_text import shown
from talu.models.keys import Number, Section, Whole
from talu.models.rope import (
    Frequencies,
    default_frequencies,
    divided,
    linear_scaling,
    llama3_scaling,
)
from talu.sources.settings import Settings

__all__ = ["Rotation", "frequencies_of", "rotary_frequencies"]

MAX_CONTEXT = 2**27
PARTIAL = Number(missing=1.0, null=1.0, high=1.0)
ORIGINAL_CONTEXT = Whole(high=MAX_CONTEXT)
FACTORS: Mapping[str, tuple[str, ...]] = {  # required keys by type
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "factors": (),  # of GGUF files, which have a number for each frequency
}
MAX_FACTOR = 1e6


class Rotation(NamedTuple):
    """How a decoder rotates queries and keys.

    Attributes:
        frequencies: of each pair of a head's columns.
        without_effect: nested keys that were not read.
        base: the number whose powers the frequencies are before scaling.
        factor: positions are divided by it; 1 if another scaling is used, or none.
    """

    frequencies: Frequencies
    without_effect: list[str]
    base: float
    factor: float = 1.0


def rotary_frequencies(settings: Settings, head_size: int, context: int) -> Rotation:
    """The frequency of each pair of a head's columns, and the nested keys without effect.

    Args:
        settings: config.json.
        head_size: columns of a head.
        context: positions that the model was trained for.

    Raises:
        ModelError: the type is not known, or a value is missing or out of range.
    """
    scaling = Section(null=None, falsy=True).read(settings, "rope_scaling")
    nested = scaling or Section(null=None).read(settings, "rope_parameters")
    return frequencies_of(settings, nested, head_size, context)


def frequencies_of(
    settings: Settings,
    nested: Settings | None,
    head_size: int,
    context: int,
    *,
    base: str = "rope_theta",
    missing: float = 10_000.0,
    original_at_top: bool = True,
) -> Rotation:
    """The frequencies that one section describes; see ``rotary_frequencies``.

    Args:
        settings: config.json.
        nested: the section; None if there is none.
        head_size: columns of a head.
        context: positions that the model was trained for.
        base: the key at the top level of the file for a base that the section lacks.
        missing: the base if that key is missing, too.
        original_at_top: an ``original_max_position_embeddings`` at the top level takes precedence.
    """
    nested = nested or Settings(settings.path, {}, "rope_parameters.")
    kind = _kind(nested)
    own = nested.names("rope_theta")
    theta = Number(missing=missing, high=1e12).read(
        nested if own else settings, "rope_theta" if own else base
    )
    factors = [nested.number(key, above=0.0, up_to=MAX_FACTOR) for key in FACTORS[kind]]
    frequencies = default_frequencies(theta, head_size)
    if kind == "linear":
        frequencies = linear_scaling(frequencies, *factors)
    if kind == "llama3":
        key = "original_max_position_embeddings"
        source = settings if original_at_top and settings.names(key) else nested
        original = ORIGINAL_CONTEXT.read(source, key)
        frequencies = llama3_scaling(frequencies, *factors, context=original or context)
    if kind == "factors":
        own_factors = _factors(nested, len(frequencies))
        frequencies = tuple(map(divided, frequencies, own_factors))
    if kind != "default":
        key = "partial_rotary_factor"
        source = nested if nested.names(key) else settings
        if PARTIAL.read(source, key) != 1.0:
            raise source.error(key, "is not 1, which is not supported")
    settings.ignore(base, "partial_rotary_factor", "original_max_position_embeddings")
    nested.ignore("type", "partial_rotary_factor", "original_max_position_embeddings")
    factor = factors[0] if kind == "linear" else 1.0
    return Rotation(frequencies, nested.unread_names(), theta, factor)


def _factors(nested: Settings, count: int) -> list[float]:
    """A number for each frequency."""
    values = nested.value("factors")
    given = values if isinstance(values, list) else []
    if len(given) != count or not all(
        isinstance(value, float) and 0 < value <= MAX_FACTOR for value in given
    ):
        limits = f"{count} numbers above 0 and at most {MAX_FACTOR}"
        raise nested.error("factors", f"must be {limits}, got {shown(values)}")
    return [single(value) for value in given]


def _kind(nested: Settings) -> str:
    """``rope_type``, or in older files ``type``."""
    name = "rope_type" if nested.names("rope_type") else "type"
    return nested.word(name, tuple(FACTORS)) if nested.names(name) else "default"
